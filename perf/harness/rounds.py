"""Runs one case: sets up the gateway and testpmd, then measures them in turn, round by round.

Both processes live through the whole case; whichever is not measured has its threads stopped, so that each has the
CPU for itself. Time is CPU time of the workers' threads: what others took of the CPU is not counted as ours.
"""

import contextlib
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace

from . import cases, histogram, machine
from .gateway import Gateway, capacity_for
from .testpmd import Testpmd

FORWARDING = ["macswap", "5tswap"]
# Warm: the rate of two windows in turn differs by no more than this.
STEADY = 0.05
WINDOW_SECONDS = 0.25
WARM_PATIENCE_SECONDS = 60
SESSIONS_TO_LOOK_AT = 1_000
# Below this many sessions their memory is lost in what a process takes anyway.
SESSIONS_TO_WEIGH = 100_000


@dataclass
class Run:
    """What the user asked for."""

    sessions: int
    seconds: float
    rounds: int
    workers: int
    order: str
    seed: int
    packet_size: int
    hugepages: bool
    beside_testpmd: bool
    binary: str
    cpus: list


def difference(before, after):
    """What happened between two samples, per second and per packet."""
    wall, packets = after["at"] - before["at"], after["packets"] - before["packets"]
    if packets <= 0 or wall <= 0:
        raise machine.Trouble("no packet was forwarded while it was measured")
    figures = {"mpps": packets / wall * 1e3, "ns_per_packet": (after["cpu"] - before["cpu"]) / packets,
               "cpu_share": (after["cpu"] - before["cpu"]) / wall}
    if "sessions" in after:
        figures["new_sessions_per_second"] = (after["sessions_created"] - before["sessions_created"]) / wall * 1e9
        figures["new_sessions_per_cpu_second"] = (
            (after["sessions_created"] - before["sessions_created"]) / (after["cpu"] - before["cpu"]) * 1e9)
        figures["expired_sessions_per_second"] = (after["sessions_expired"] - before["sessions_expired"]) / wall * 1e9
        figures["handovers_per_second"] = (after["handovers"] - before["handovers"]) / wall * 1e9
        received = after["rx_packets"] - before["rx_packets"]
        figures["drops"] = drops_between(before, after)
        figures["drop_ratio"] = sum(figures["drops"].values()) / received if received else 0.0
        figures["sessions_live"] = after["sessions"]
    return figures


def drops_between(before, after):
    """Packets by the reason that they were dropped for, from one sample to another."""
    drops = {reason: count - before["drops"].get(reason, 0) for reason, count in after["drops"].items()}
    return {reason: count for reason, count in drops.items() if count}


def measure(subject, seconds):
    before = subject.sample()
    time.sleep(seconds)
    return difference(before, subject.sample())


def wait_until_warm(gateway, case, run):
    """All sessions are there (of a case that churns: they come and go evenly), and the rate is steady."""
    deadline, rate, last = time.monotonic() + WARM_PATIENCE_SECONDS, None, gateway.sample()
    while time.monotonic() < deadline:
        time.sleep(WINDOW_SECONDS)
        now = gateway.sample()
        if now["packets"] > last["packets"]:
            figures = difference(last, now)
            created = figures["new_sessions_per_second"]
            new_rate = figures["new_sessions_per_cpu_second"] if case.churns else 1e9 / figures["ns_per_packet"]
            ready = created > 0 if case.churns else now["sessions"] >= run.sessions and created == 0
            if ready and rate and abs(new_rate - rate) <= STEADY * rate:
                return True
            rate = new_rate
        last = now
    if not case.churns and last["sessions"] < run.sessions:
        raise machine.Trouble(f"only {last['sessions']} of {run.sessions} sessions came up; drops: {last['drops']}")
    print(f"{case.name}: the rate did not become steady in {WARM_PATIENCE_SECONDS} s", file=sys.stderr)
    return False


@dataclass
class Prepared:
    """What a gateway is started with."""

    case: cases.Case
    run: Run
    captures: cases.Captures
    mbufs: int
    capacity: int
    folder: str


def prepare(case, run, folder):
    """Writes the captures into a folder of their own."""
    os.mkdir(folder)
    captures = cases.write_captures(case, run, folder)
    # infinite_rx holds the file in packet buffers; the rest is for queues, caches and rings.
    mbufs = captures.frames + 32_768 * run.workers
    return Prepared(case, run, captures, mbufs, capacity_for(run.sessions), folder)


def start(prepared, name):
    return Gateway(prepared.run.binary, prepared.case, prepared.run, prepared.captures, prepared.mbufs,
                   prepared.capacity, f"{prepared.folder}/gateway", f"{namespace()}-{name}")


def turn_of(gateway, case, run):
    """The gateway once, the others being stopped."""
    gateway.go_on()
    steady = wait_until_warm(gateway, case, run)
    if case.state and (states := gateway.states(SESSIONS_TO_LOOK_AT)) != {case.state}:
        raise machine.Trouble(f"{case.name}: sessions are in {sorted(states)}, not all in {case.state}")
    before = gateway.burst_times() if case.burst_times else None
    figures = {**measure(gateway, run.seconds), "steady": steady}
    if before:
        figures["burst"] = histogram.difference(before, gateway.burst_times())
    gateway.pause()
    return figures


def one_round(gateways, testpmd, run):
    """Each subject once; figures by subject. `gateways`: by subject, each with what it was started with."""
    figures = {subject: turn_of(gateway, prepared.case, prepared.run) for subject, (gateway, prepared) in gateways.items()}
    for mode in FORWARDING if testpmd else []:
        testpmd.start(mode)
        time.sleep(WINDOW_SECONDS)
        figures[mode] = measure(testpmd, run.seconds)
        testpmd.pause()
    return figures


def weigh(case, run, mbufs, folder, full):
    """Bytes a session: what the process takes more than one with a table of next to nothing and no traffic of note."""
    if case.churns or run.sessions < SESSIONS_TO_WEIGH:
        return None
    tiny = replace(run, sessions=max(run.workers, case.real_servers))
    with contextlib.ExitStack() as stack:
        prepared = prepare(case, tiny, f"{folder}/small")
        gateway = start(replace(prepared, mbufs=mbufs, capacity=1024), "small")
        stack.callback(gateway.close)
        time.sleep(WINDOW_SECONDS)
        return (full - gateway.footprint_bytes()) / run.sessions


def namespace():
    return f"fgperf-{os.getpid()}"


def run_case(case, run):
    """Runs a case; gives its JSON object."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fullgate-perf-"))
        sides = {"fullgate": prepare(case, run, f"{folder}/fullgate")}
        if case.beside:
            sides["beside"] = prepare(*cases.beside_of(case, run), f"{folder}/beside")
        own = sides["fullgate"]
        beside_testpmd = run.beside_testpmd and case.beside_testpmd
        memory = [machine.megabytes_for(each.mbufs) for each in sides.values()]
        memory += [machine.megabytes_for_sessions(each.capacity) * each.run.workers for each in sides.values()]
        memory += [machine.megabytes_for(own.mbufs)] if beside_testpmd else []
        pages = machine.Hugepages(memory, run.hugepages)
        stack.callback(pages.give_back)
        closing = stack.enter_context(contextlib.ExitStack())
        gateways = {}
        for subject, prepared in sides.items():
            gateway = start(prepared, subject)
            closing.callback(gateway.close)
            gateway.pause()
            gateways[subject] = (gateway, prepared)
        testpmd = Testpmd(run, own.captures, own.mbufs) if beside_testpmd else None
        if testpmd:
            closing.callback(testpmd.close)
        rounds = [one_round(gateways, testpmd, run) for _round in range(run.rounds)]
        full = gateways["fullgate"][0].footprint_bytes()
        extra = compared(case, gateways, rounds)
        closing.close()
        result = summary(case, run, rounds, own.capacity, weigh(case, run, own.mbufs, folder, full))
        return {**result, **extra, "rounds": rounds}


def compared(case, gateways, rounds):
    """What the second gateway adds to the JSON object of a case."""
    def ratio(key):
        """Of each round by itself."""
        return statistics.median(each["fullgate"][key] / each["beside"][key] for each in rounds)

    extra = {"start_seconds": round(gateways["fullgate"][0].start_seconds, 2)}
    if case.beside:
        for key in ["mpps", "ns_per_packet", "cpu_share"]:
            extra[f"{case.beside}_{key}"] = round(spread(rounds, "beside", key)["median"], 3)
    if case.beside == "one_worker":
        extra["scaling"] = round(ratio("mpps"), 3)
    if case.beside == "one_service":
        extra["services"], extra["real_servers"] = case.services, case.real_servers
        extra["over_one_service_percent"] = round((ratio("ns_per_packet") - 1) * 100, 2)
        extra["one_service_start_seconds"] = round(gateways["beside"][0].start_seconds, 2)
        extra |= load(gateways["beside"][0], gateways["fullgate"][0].folder / "fullgate.toml")
    if case.burst_times:
        extra |= burst_times(rounds)
    return extra


def load(gateway, file):
    """Has a gateway that forwards take over the services of a file."""
    gateway.go_on()
    before = gateway.sample()
    seconds, cpu_seconds = gateway.apply(file)
    figures = difference(before, gateway.sample())
    gateway.pause()
    return {"load_seconds": round(seconds, 3), "load_cpu_seconds": round(cpu_seconds, 3),
            "mpps_while_loading": round(figures["mpps"], 3),
            "drop_ratio_while_loading": figures["drop_ratio"]}


def burst_times(rounds):
    """Upper bounds of the buckets that the quantiles lie in, over all rounds; none where the gateway has no histogram."""
    counts = {}
    for each in rounds:
        for bound, count in each["fullgate"].pop("burst", {}).items():
            counts[bound] = counts.get(bound, 0) + count
    found = {}
    for name, share in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)]:
        bound = histogram.quantile(counts, share)
        found[f"burst_{name}_microseconds"] = bound if bound is None else round(bound * 1e6, 3)
    return found


def spread(rounds, subject, key):
    values = [figures[subject][key] for figures in rounds if subject in figures]
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(case, run, rounds, capacity, bytes_per_session):
    """The JSON object of a case."""
    def median(subject, key, digits=2):
        found = spread(rounds, subject, key)
        # Counts are whole numbers.
        return round(found["median"], digits or None) if found else None

    def over(mode):
        """Of each round by itself, so that what slows both does not count."""
        each = [r["fullgate"]["ns_per_packet"] - r[mode]["ns_per_packet"] for r in rounds if mode in r]
        return round(statistics.median(each), 2) if each else None

    keys = [("fullgate", "mpps"), ("fullgate", "ns_per_packet"), ("fullgate", "new_sessions_per_second"),
            ("macswap", "ns_per_packet"), ("5tswap", "ns_per_packet")]
    return {
        "case": case.name, "mode": case.mode, "protocol": case.protocol_name(), "sessions": run.sessions,
        "workers": run.workers, "mpps": median("fullgate", "mpps", 3),
        "ns_per_packet": median("fullgate", "ns_per_packet"),
        "testpmd_macswap_ns": median("macswap", "ns_per_packet"), "over_macswap_ns": over("macswap"),
        "testpmd_5tswap_ns": median("5tswap", "ns_per_packet"), "over_5tswap_ns": over("5tswap"),
        "new_sessions_per_second": median("fullgate", "new_sessions_per_second", 0),
        "new_sessions_per_cpu_second": median("fullgate", "new_sessions_per_cpu_second", 0),
        "expired_sessions_per_second": median("fullgate", "expired_sessions_per_second", 0),
        "handovers_per_second": median("fullgate", "handovers_per_second", 0),
        "bytes_per_session": round(bytes_per_session, 1) if bytes_per_session is not None else None,
        "sessions_live": median("fullgate", "sessions_live", 0), "session_capacity": capacity * run.workers,
        "drop_ratio": median("fullgate", "drop_ratio", 6), "cpu_share": median("fullgate", "cpu_share", 3),
        "order": run.order, "seed": run.seed, "packet_size": run.packet_size, "hugepages": run.hugepages,
        "seconds": run.seconds,
        "spread": {f"{subject}.{key}": spread(rounds, subject, key) for subject, key in keys},
    }
