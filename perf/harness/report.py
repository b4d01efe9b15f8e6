"""Writes a run of the table as a report: Markdown, plots, and the JSON that they are made of."""

import json
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
    return (f"{result['case']} {result['sessions']:,} sessions, {result['workers']} worker(s): "
            f"{shown(result['mpps'], 2)} Mpps, {shown(result['ns_per_packet'])} ns a packet, "
            f"macswap {shown(result['testpmd_macswap_ns'])} ns, over it {shown(result['over_macswap_ns'])} ns, "
            f"{shown(result['new_sessions_per_second'], 0)} new sessions/s, "
            f"{shown(result['handovers_per_second'], 0)} hand-overs/s, drops {result['drop_ratio']:.2%}, "
            f"CPU {result['cpu_share']:.2f}")


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
    (where / "ns.svg").write_text(bar_plot(good))
    (where / "sessions.svg").write_text(line_plot(good))
    facts = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in about.items())
    rows = "\n".join(row(result, before.get((result["case"], result["sessions"]), {})) for result in results)
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
""")
    return file
