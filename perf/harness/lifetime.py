"""A case by itself: a great many sessions are created once and expire, while others go on.

The capture is longer than packet buffers could hold, so the WAN port reads it from its file as it goes, once. Packets
of a few sessions that live through it all come in by a third port without end: they show what the gateway forwards
meanwhile. Everything is read off counters that are sampled several times a second.
"""

import contextlib
import os
import statistics
import tempfile
import time
from dataclasses import replace

from . import cases, machine, pcap, rounds

SAMPLE_SECONDS = 0.1
SIDE_SESSIONS, SIDE_PORT = 1_024, 60_000
# Long enough for all sessions to be there at once, unless creation is slower than so many a second.
SESSIONS_A_TIMEOUT_SECOND, LEAST_TIMEOUT_SECONDS = 320_000, 3
CREATION_PATIENCE_SECONDS, EXPIRY_PATIENCE_SECONDS = 120, 120
# Rates are measured between these shares of all sessions.
FROM, TO, LEAST_SHARE = 0.05, 0.95, 0.2
# The file has 76 bytes a flow.
FAST_FOLDER = "/dev/shm"


def write_captures(case, run, folder):
    """The flows that come once, and those that go on."""
    captures = cases.write_captures(replace(case, clients_once=True), run, folder)
    # The second port that net_pcap makes is the third of the gateway.
    frame = pcap.Frame(case.protocol, cases.LAN_MAC, run.packet_size)
    captures.side.append(f"{folder}/side.pcap")
    clients = ((pcap.CLIENT_BASE + flow, SIDE_PORT) for flow in range(SIDE_SESSIONS))
    captures.frames += pcap.write(captures.side[0], (frame.of(client, cases.VIP) for client in clients))
    return captures


def start(case, run, folder, name, capacity):
    os.mkdir(f"{folder}/{name}")
    captures = write_captures(case, run, f"{folder}/{name}")
    mbufs = captures.frames + 32_768
    pages = machine.Hugepages([machine.megabytes_for(mbufs), machine.megabytes_for_sessions(capacity)], run.hugepages)
    try:
        prepared = rounds.Prepared(case, run, captures, mbufs, capacity, f"{folder}/{name}")
        return rounds.start(prepared, name), pages
    except BaseException:
        pages.give_back()
        raise


def sampled(gateway, until, patience, what):
    """Samples until the condition holds of one."""
    deadline, samples = time.monotonic() + patience, []
    while True:
        samples.append({**gateway.sample(), "memory": gateway.footprint_bytes()})
        if until(samples[-1]):
            return samples
        if time.monotonic() > deadline:
            last = samples[-1]
            raise machine.Trouble(f"{what}: not within {patience} s; {last['sessions']} sessions, drops: {last['drops']}")
        time.sleep(SAMPLE_SECONDS)


def when(samples, key, count):
    """The time in nanoseconds when a counter reached `count`, between two samples by a straight line."""
    for before, after in zip(samples, samples[1:]):
        if before[key] <= count <= after[key] and after[key] > before[key]:
            share = (count - before[key]) / (after[key] - before[key])
            return before["at"] + share * (after["at"] - before["at"])
    return None


def rate(samples, key, base, sessions):
    """Events a second from the share FROM of all sessions, or the first sample's, to TO; none where that is too few."""
    least = max(FROM, (samples[0][key] - base) / sessions)
    if TO - least < LEAST_SHARE:
        return None
    begin, end = (when(samples, key, base + share * sessions) for share in (least, TO))
    return None if begin is None or end is None or end <= begin else (TO - least) * sessions / (end - begin) * 1e9


def forwarded(samples):
    """Median and least of the million packets a second between samples; none where they are too few."""
    each = [(b["packets"] - a["packets"]) / (b["at"] - a["at"]) * 1e3 for a, b in zip(samples, samples[1:])]
    return (round(statistics.median(each), 3), round(min(each), 3)) if each else (None, None)


def run_case(case, run):
    """Runs the case; gives its JSON object."""
    timeout = max(LEAST_TIMEOUT_SECONDS, -(-run.sessions // SESSIONS_A_TIMEOUT_SECOND))
    case = replace(case, timeouts={"udp": timeout})
    capacity = rounds.capacity_for(run.sessions + SIDE_SESSIONS)
    with contextlib.ExitStack() as stack:
        where = FAST_FOLDER if os.path.isdir(FAST_FOLDER) else None
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fullgate-perf-", dir=where))
        with contextlib.ExitStack() as running:
            gateway, pages = start(case, run, folder, "fullgate", capacity)
            running.callback(pages.give_back)
            running.callback(gateway.close)
            result = live(gateway, run)
            result["start_seconds"] = round(gateway.start_seconds, 2)
        small, pages = start(case, replace(run, sessions=case.real_servers), folder, "small", 2 * SIDE_SESSIONS)
        stack.callback(pages.give_back)
        stack.callback(small.close)
        time.sleep(rounds.WINDOW_SECONDS)
        taken = result["memory_full_bytes"] - small.footprint_bytes()
    return {
        "case": case.name, "kind": "lifetime", "mode": "fullnat", "protocol": case.protocol_name(),
        "sessions": run.sessions, "workers": 1, "udp_timeout_seconds": timeout, "session_capacity": capacity,
        "bytes_per_session": round(taken / run.sessions, 1), **result, "packet_size": run.packet_size,
        "order": run.order, "seed": run.seed, "hugepages": run.hugepages,
    }


def live(gateway, run):
    """From the first session to after the last; figures of each phase."""
    everybody = run.sessions + SIDE_SESSIONS
    first = gateway.sample()
    creating = sampled(gateway, lambda now: now["sessions_created"] >= everybody, CREATION_PATIENCE_SECONDS, "creation")
    expired = first["sessions_expired"]
    full = sampled(gateway, lambda now: now["sessions_expired"] > expired, EXPIRY_PATIENCE_SECONDS, "the first expiry")
    gone = run.sessions + expired
    expiring = sampled(gateway, lambda now: now["sessions_expired"] >= gone, EXPIRY_PATIENCE_SECONDS, "the last expiry")
    end = time.monotonic() + 1
    after = sampled(gateway, lambda _now: time.monotonic() > end, EXPIRY_PATIENCE_SECONDS, "a second")
    samples = creating + full + expiring + after
    figures = {}
    for name, phase in [("creating", creating), ("full", full), ("expiring", expiring), ("after", after)]:
        figures[f"mpps_while_{name}"], figures[f"least_mpps_while_{name}"] = forwarded(phase)
    received = samples[-1]["rx_packets"] - first["rx_packets"]
    drops = rounds.drops_between(first, samples[-1])
    # Sessions that the feed opened before the first sample count from there.
    created = rate(creating, "sessions_created", 0, run.sessions)
    ended = rate(full[-1:] + expiring, "sessions_expired", expired, run.sessions)
    return {
        "sessions_most": max(sample["sessions"] for sample in samples), "sessions_after": after[-1]["sessions"],
        "new_sessions_per_second": created and round(created), "expired_sessions_per_second": ended and round(ended),
        "expiry_seconds": round((expiring[-1]["at"] - full[-1]["at"]) / 1e9, 1), **figures,
        "memory_full_bytes": full[0]["memory"], "memory_grown_while_expiring_bytes": after[-1]["memory"] - full[0]["memory"],
        "drop_ratio": round(sum(drops.values()) / received, 6), "drops": drops,
        "samples": [{key: sample[key] for key in ("at", "sessions", "packets", "memory")} for sample in samples],
    }

