"""Writes a run of the table as a report: Markdown, plots, and the JSON that they are made of."""

import json
import statistics
import time

from . import svg

SUBJECTS = ["fullgate", "macswap", "5tswap"]


def shown(value, digits=1):
    if value is None:
        return "–"
    return f"{value:,.{digits}f}" if digits else f"{value:,.0f}"


def line(result):
    """One case for a terminal."""
    if "error" in result:
        return f"{result['case']} {result['sessions']:,}: {result['error']}"
    if result.get("kind") == "lifetime":
        return lifetime_line(result)
    if result.get("kind") == "latency":
        return latency_line(result)
    return (f"{result['case']} {result['sessions']:,} sessions, {result['workers']} worker(s): "
            f"{shown(result['mpps'], 2)} Mpps, {shown(result['ns_per_packet'])} ns a packet, "
            f"macswap {shown(result['testpmd_macswap_ns'])} ns, over it {shown(result['over_macswap_ns'])} ns, "
            f"{shown(result['new_sessions_per_second'], 0)} new sessions/s, "
            f"{shown(result['handovers_per_second'], 0)} hand-overs/s, drops {result['drop_ratio']:.2%}, "
            f"CPU {result['cpu_share']:.2f}{beside(result)}")


def beside(result):
    """What a second gateway in the same rounds showed."""
    if "scaling" in result:
        return f", {result['scaling']:.2f} times one worker's"
    if "over_one_service_percent" in result:
        return (f", {result['over_one_service_percent']:+.1f} % over one service, loaded in {result['load_seconds']} s")
    if "burst_p50_microseconds" in result:
        times = [shown(result[f"burst_{name}_microseconds"]) for name in ("p50", "p99", "p999", "max")]
        return f", bursts {'/'.join(times)} us (p50/p99/p99.9/max)"
    return ""


def lifetime_line(result):
    return (f"{result['case']} {result['sessions']:,} sessions: {shown(result['new_sessions_per_second'], 0)} created/s, "
            f"{shown(result['expired_sessions_per_second'], 0)} expired/s, {shown(result['bytes_per_session'])} bytes each, "
            f"others meanwhile {shown(result['mpps_while_creating'], 2)}/{shown(result['mpps_while_full'], 2)}/"
            f"{shown(result['mpps_while_expiring'], 2)} Mpps (creating/full/expiring), drops {result['drop_ratio']:.2%}")


def latency_line(result):
    def of(path):
        times = result["paths"][path]["round_trip"]
        return f"{path} {shown(times['p50'])}/{shown(times['p99'])}/{shown(times['p999'])} us"
    return f"{result['case']} {result['rate']:,} packets/s, p50/p99/p99.9: " + ", ".join(map(of, result["paths"]))


def label(result):
    return f"{result['case']} {result['sessions']:,}"


def spread_of(result, key, digits=1):
    spread = result["spread"].get(key)
    return f"{shown(spread['min'], digits)}–{shown(spread['max'], digits)}" if spread else "–"


HEADER = ("| case | sessions | workers | Mpps | ns/packet | least–most | macswap ns | 5tswap ns | over macswap | last run "
          "| new sessions/s | hand-overs/s | drops | bytes/session | CPU |\n|" + "---|" * 15)


def row(result, before):
    if "error" in result:
        return f"| {result['case']} | {result['sessions']:,} | {result['error']} |" + " |" * 12
    steady = "" if all(each["fullgate"]["steady"] for each in result["rounds"]) else " (not steady)"
    cells = [result["case"] + steady, f"{result['sessions']:,}", str(result["workers"]), shown(result["mpps"], 2),
             shown(result["ns_per_packet"]), spread_of(result, "fullgate.ns_per_packet"),
             shown(result["testpmd_macswap_ns"]), shown(result["testpmd_5tswap_ns"]), shown(result["over_macswap_ns"]),
             shown(before.get("over_macswap_ns")), shown(result["new_sessions_per_second"], 0),
             shown(result["handovers_per_second"], 0), f"{result['drop_ratio']:.2%}",
             shown(result["bytes_per_session"]), f"{result['cpu_share']:.2f}"]
    return "| " + " | ".join(cells) + " |"


BESIDE_HEADER = ("| case | sessions | Mpps | beside | its Mpps | scaling | ns over one service | start s | load s "
                 "| load CPU s | Mpps while loading |\n|" + "---|" * 11)


def beside_row(result):
    other = "one_worker" if "scaling" in result else "one_service"
    over = result.get("over_one_service_percent")
    cells = [result["case"], f"{result['sessions']:,}", shown(result["mpps"], 2), other.replace("_", " "),
             shown(result[f"{other}_mpps"], 2), shown(result.get("scaling"), 2),
             "–" if over is None else f"{over:+.1f} %", shown(result["start_seconds"], 2),
             shown(result.get("load_seconds"), 2), shown(result.get("load_cpu_seconds"), 2),
             shown(result.get("mpps_while_loading"), 2)]
    return "| " + " | ".join(cells) + " |"


BURST_HEADER = "| case | sessions | p50 us | p99 us | p99.9 us | max us |\n|" + "---|" * 6


def burst_row(result):
    times = [shown(result[f"burst_{name}_microseconds"]) for name in ("p50", "p99", "p999", "max")]
    return f"| {result['case']} | {result['sessions']:,} | " + " | ".join(times) + " |"


LIFETIME_HEADER = ("| sessions | bytes each | created/s | expired/s | others' Mpps: creating, full, expiring, after "
                   "| least of them | memory grown, bytes | drops | start s |\n|" + "---|" * 9)
PHASES = ["creating", "full", "expiring", "after"]


def lifetime_row(result):
    phases = ", ".join(shown(result[f"mpps_while_{phase}"], 2) for phase in PHASES)
    least = min(result[f"least_mpps_while_{phase}"] or 0 for phase in PHASES)
    cells = [f"{result['sessions_most']:,}", shown(result["bytes_per_session"]), shown(result["new_sessions_per_second"], 0),
             shown(result["expired_sessions_per_second"], 0), phases, shown(least, 2),
             shown(result["memory_grown_while_expiring_bytes"], 0), f"{result['drop_ratio']:.2%}",
             shown(result["start_seconds"], 1)]
    return "| " + " | ".join(cells) + " |"


LATENCY_HEADER = ("| path | p50 us | p99 us | p99.9 us | max us | forth p50, p99 | back p50, p99 | sent late p99 | lost "
                  "| worker's CPU |\n|" + "---|" * 10)


def latency_row(path, figures):
    whole, late = figures["round_trip"], figures["sent_late"]
    ways = [f"{shown(figures[way]['p50'])}, {shown(figures[way]['p99'])}" for way in ("forth", "back")]
    cells = [path, *(shown(whole[name]) for name in ("p50", "p99", "p999", "max")), *ways, shown(late["p99"]),
             f"{figures['lost']:,} of {figures['sent']:,}", shown(figures["worker_cpu_share"], 2)]
    return "| " + " | ".join(cells) + " |"


def lifetime_plot(result):
    """Sessions and packets over time."""
    samples = result["samples"]
    begin = samples[0]["at"]
    sessions = [((each["at"] - begin) / 1e9, each["sessions"] / 1e6) for each in samples]
    packets = [((b["at"] - begin) / 1e9, (b["packets"] - a["packets"]) / (b["at"] - a["at"]) * 1e3)
               for a, b in zip(samples, samples[1:])]
    return svg.lines("Sessions and packets from first to last", "millions", "seconds",
                     {"sessions": sessions, "packets a second": packets}, logarithmic=False)


def latency_plot(result):
    names = {"p50": "p50", "p99": "p99", "p999": "p99.9"}
    spread = {kind: [[figures[kind]["round_trip"][name] for figures in result["rounds"]] for name in names]
              for kind in result["paths"]}
    return svg.bars("There and back, median and range of the rounds", "microseconds", list(names.values()),
                    {kind: [(statistics.median(each), min(each), max(each)) for each in values]
                     for kind, values in spread.items()})


def sections(good, where):
    """What the cases beyond the table of packets have to say; writes their plots."""
    text = ""
    if beside_rows := [beside_row(result) for result in good
                       if "scaling" in result or "over_one_service_percent" in result]:
        text += "\n## Beside a second gateway\n\n" + "\n".join([BESIDE_HEADER, *beside_rows]) + "\n"
    if burst_rows := [burst_row(result) for result in good if "burst_p50_microseconds" in result]:
        text += "\n## From receiving a burst to sending it\n\n" + "\n".join([BURST_HEADER, *burst_rows]) + "\n"
    for number, result in enumerate(each for each in good if each.get("kind") == "lifetime"):
        (where / f"lifetime{number}.svg").write_text(lifetime_plot(result))
        text += f"\n## {result['case']}\n\n{LIFETIME_HEADER}\n{lifetime_row(result)}\n"
        text += f"\n![over time](lifetime{number}.svg)\n"
    for number, result in enumerate(each for each in good if each.get("kind") == "latency"):
        (where / f"latency{number}.svg").write_text(latency_plot(result))
        rows = "\n".join(latency_row(path, figures) for path, figures in result["paths"].items())
        text += f"\n## {result['case']}, {result['rate']:,} packets/s\n\n{LATENCY_HEADER}\n{rows}\n"
        text += f"\n![latency](latency{number}.svg)\n"
    return text


def last_results(folder):
    """The newest earlier run by case and sessions; empty if there is none."""
    earlier = sorted(folder.glob("*/results.json"))
    if not earlier:
        return {}
    results = json.loads(earlier[-1].read_text())["results"]
    return {(result["case"], result["sessions"]): result for result in results}


def bar_plot(results):
    def values(subject):
        spreads = [result["spread"].get(f"{subject}.ns_per_packet") for result in results]
        return [(s["median"], s["min"], s["max"]) if s else None for s in spreads]

    return svg.bars("CPU time a packet, median and range of the rounds", "ns a packet",
                    [label(result) for result in results], {subject: values(subject) for subject in SUBJECTS})


def line_plot(results):
    series = {}
    for result in results:
        if result["over_macswap_ns"] is not None and result["workers"] == 1:
            series.setdefault(result["case"], []).append((result["sessions"], result["over_macswap_ns"]))
    return svg.lines("CPU time a packet over testpmd macswap", "ns a packet", "sessions",
                     {name: points for name, points in series.items() if len(points) > 1})


def write(folder, about, command, results):
    """Writes the report into a folder of its own; gives the path of its Markdown."""
    before = last_results(folder)
    where = folder / time.strftime("%Y%m%d-%H%M%S")
    where.mkdir(parents=True)
    (where / "results.json").write_text(json.dumps({"about": about, "command": command, "results": results}, indent=1))
    good = [result for result in results if "error" not in result]
    packets = [result for result in good if "kind" not in result]
    (where / "ns.svg").write_text(bar_plot(packets))
    (where / "sessions.svg").write_text(line_plot(packets))
    facts = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in about.items())
    rows = "\n".join(row(result, before.get((result["case"], result["sessions"]), {}))
                     for result in results if "kind" not in result)
    file = where / "report.md"
    file.write_text(f"""# fullgate beside testpmd, {time.strftime('%Y-%m-%d %H:%M')}

    {command}

{facts}

{HEADER}
{rows}

ns/packet is CPU time of the workers' threads a packet sent; `least–most` is its range over the rounds; `over macswap` is
the median of each round's difference; `last run` is that of the run before this one; CPU is the share of a CPU that the
workers got (with 1 worker, below about 0.98: others were on that CPU). docs/performance.md says more.

![CPU time a packet](ns.svg)

![over macswap, by sessions](sessions.svg)
{sections(good, where)}""")
    return file
