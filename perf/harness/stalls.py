"""The case `stalls`: how long a worker does not look at its queues while everything at once is asked of it.

Each frame opens a session and each session ends a few seconds later, in a table of the size asked for; a table of
10,000 services is exchanged again and again; counters, sessions and metrics are read all the time. The worker itself
records its poll gaps. What the machine takes of such a CPU anyway, a spinning loop shows before and after.
"""

import contextlib
import ipaddress
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass

from . import cases, machine, new_flows
from .gateway import ANSWER_SECONDS, PATIENCE_SECONDS

SERVICES, REAL_SERVERS_EACH = 10_000, 10
TARGET_MICROSECONDS = 50
# What a worker is taken to set up a second at least: the timeout is so long that as many are live as were asked for.
SESSIONS_A_SECOND = 2_000_000
# ... and at most: the capture has frames for the whole run. Bytes of it in memory: 76 a frame.
MOST_SESSIONS_A_SECOND = 3_500_000
START_SECONDS = 2
FILL_PATIENCE_SECONDS = 120
MBUFS = 32_768
SCRAPE_SECONDS = 10
METRICS = "127.0.0.1:9469"

CONFIGURATION = """\
[dpdk]
eal_args = {eal_args}
mbufs = {mbufs}

[worker]
cores = [{cpu}]
idle = "spin"

[session]
capacity = {capacity}

[control]
socket = "{folder}/control.sock"
metrics = "{metrics}"
state_dir = "{folder}/state"

[timeouts]
udp = {timeout}

[[port]]
name = "wan"
device = "net_pcap0,rx_pcap={capture}"
tap = "fgp-wan"
addresses = ["192.0.2.1/24", "192.0.2.100/32"]
routes = [{{ to = "198.18.0.0/15", via = "192.0.2.254" }}]
link_timeout_milliseconds = 0

[[port]]
name = "lan"
device = "net_null0,no-rx=1"
tap = "fgp-lan"
addresses = ["10.2.0.1/16"]
link_timeout_milliseconds = 0

[[local_pool]]
name = "lan"
port = "lan"
addresses = ["10.2.4.0-{last_local}"]
ports = "1024-65535"

"""
SERVICE = """\
[[service]]
vip = "{vip}"
protocol = "udp"
scheduler = "rr"
mode = "fullnat"
local_pool = "lan"
real_server = [{real_servers}]

"""


@dataclass(frozen=True)
class About:
    """What `perf/run --help` lists."""

    name: str
    about: str


# As many as are live at once, unless the command line says otherwise.
SESSIONS = 1_000_000

CASE = About("stalls", "UDP, worst poll gap of a worker: sessions churn, 10,000 services are swapped, counters are read")


def services(weight):
    """The service that the sessions are of, and ten thousand more whose real servers have this weight."""
    def service(vip, servers):
        return SERVICE.format(vip=vip, real_servers=", ".join(servers))

    churning = [f'{{ address = "10.2.1.{n + 1}:8000" }}' for n in range(cases.REAL_SERVERS)]
    yield service("192.0.2.100:8000", churning)
    for number in range(SERVICES):
        servers = [f'{{ address = "10.2.{8 + n}.{number % 250 + 1}:{8000 + number // 250}", weight = {weight} }}'
                   for n in range(REAL_SERVERS_EACH)]
        yield service(f"192.0.2.{101 + number % 100}:{9000 + number // 100}", servers)


def capacity_of(sessions):
    """Twice as many: that a faster worker does not find its table full."""
    return max(1 << 16, 1 << (2 * sessions - 1).bit_length())


class Setup:
    """A gateway, in a network namespace of its own, and the capture that it reads once from beginning to end.

    The capture lies in memory: libpcap copies it from there page by page. A pipe with a process that fills it would do
    without the memory, but its lock is held while hundreds of KB are copied.
    """

    def __init__(self, binary, folder, sessions, seconds, cpu, other_cpus, hugepages):
        self.binary, self.folder = binary, pathlib.Path(folder)
        self.namespace = f"fgstalls-{os.getpid()}"
        self.process, self.other_cpus = None, other_cpus
        self.timeout = max(1, round(sessions / SESSIONS_A_SECOND))
        self.capacity = capacity_of(sessions)
        capture = self.folder / "wan.pcap"
        self.frames = new_flows.write(capture, round(MOST_SESSIONS_A_SECOND * (self.timeout + seconds + START_SECONDS)))
        # Twice the ports that are needed, over 8 real servers.
        locals_ = 2 * self.capacity // (cases.REAL_SERVERS * cases.LOCAL_PORTS) + 2
        eal_args = [] if hugepages else ["--no-huge", "-m", str(machine.megabytes_for(MBUFS))]
        head = CONFIGURATION.format(
            eal_args=json.dumps(eal_args), mbufs=MBUFS, cpu=cpu, capacity=self.capacity, folder=self.folder,
            metrics=METRICS, timeout=self.timeout, capture=capture,
            last_local=ipaddress.IPv4Address(cases.LOCAL_BASE + locals_ - 1))
        self.files = [self.folder / "one.toml", self.folder / "two.toml"]
        for weight, file in enumerate(self.files, 1):
            file.write_text(head + "".join(services(weight)))

    def start(self):
        machine.run("ip", "netns", "add", self.namespace)
        machine.run("ip", "-n", self.namespace, "link", "set", "lo", "up")
        self.log = open(self.folder / "log", "w+")
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, self.binary, "run", "--config", self.files[0]],
            stderr=self.log, stdout=self.log)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while subprocess.run(self.command("status"), capture_output=True).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.log.seek(0)
                raise machine.Trouble(f"the gateway did not start: {''.join(self.log.readlines()[-5:]).strip()}")
            time.sleep(0.1)
        # The worker has its CPU to itself, as far as the gateway goes.
        for thread in set(machine.threads(self.process.pid, ("",))) - set(machine.threads(self.process.pid, ("worker-",))):
            os.sched_setaffinity(int(thread), self.other_cpus)
        hops = [("fgp-wan", "192.0.2.254", 254)] + [("fgp-lan", f"10.2.1.{n + 1}", n + 1) for n in range(8)]
        for tap, address, last in hops:
            machine.run("ip", "-n", self.namespace, "neigh", "replace", address, "lladdr", f"02:00:00:00:01:{last:02x}",
                        "dev", tap, "nud", "permanent")

    def command(self, *words):
        return [self.binary, *map(str, words), "--socket", str(self.folder / "control.sock"), "--timeout", ANSWER_SECONDS]

    def stats(self):
        return json.loads(machine.run(*self.command("stats", "--json")))

    def scrape(self):
        """A million series take seconds to write: a scrape that takes too long is given up, as Prometheus does."""
        script = f"import urllib.request; urllib.request.urlopen('http://{METRICS}/metrics').read()"
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(["ip", "netns", "exec", self.namespace, sys.executable, "-c", script],
                           capture_output=True, timeout=SCRAPE_SECONDS, check=False)

    def close(self):
        if self.process:
            machine.end(self.process)
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True)


class Busy:
    """Threads that each do one thing again and again until they are stopped; counts how often, and what went wrong."""

    def __init__(self, tasks):
        self.done = {name: 0 for name in tasks}
        self.failed, self.stopping = [], threading.Event()
        self.threads = [threading.Thread(target=self.repeat, args=task) for task in tasks.items()]
        for thread in self.threads:
            thread.start()

    def repeat(self, name, task):
        while not self.stopping.wait(0.1):
            try:
                task(self.done[name])
                self.done[name] += 1
            except (machine.Trouble, OSError) as error:
                self.failed.append(f"{name}: {error}")
                return

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


def tasks_of(setup):
    def swap(count):
        machine.run(*setup.command("apply", "--config", setup.files[(count + 1) % 2]))

    def edit(count):
        machine.run(*setup.command("service", "edit", "-u", "192.0.2.101:9000", "-s", ("wrr", "rr")[count % 2]))

    return {
        "swaps_of_all_services": swap, "swaps_for_one_service": edit, "scrapes_begun": lambda _count: setup.scrape(),
        "stats_read": lambda _count: setup.stats(),
        "sessions_listed": lambda _count: machine.run(*setup.command("session", "list", "--json", "--limit", 1000)),
        "sessions_counted": lambda _count: machine.run(*setup.command("session", "count")),
    }


def spinner(cpu, seconds):
    script = pathlib.Path(__file__).with_name("spinner.py")
    return json.loads(machine.run(sys.executable, str(script), str(cpu), str(seconds)))


def buckets(durations):
    """Upper bounds in microseconds and how many durations each has that none below it has; those that have any."""
    bounds = [f"{bound / 1e3:g}" for bound in durations["upper_nanoseconds"]] + ["inf"]
    return {bound: count for bound, count in zip(bounds, durations["counts"]) if count}


def between(before, after):
    return {**after, "counts": [late - early for early, late in zip(before["counts"], after["counts"])]}


def above(durations, microseconds):
    bounds = durations["upper_nanoseconds"] + [float("inf")]
    return sum(count for bound, count in zip(bounds, durations["counts"]) if bound > microseconds * 1e3)


def worst_bound(durations):
    """The upper bound of the last bucket that has anything, in microseconds; 0 if none has, none if it has no bound."""
    bounds = durations["upper_nanoseconds"] + [None]
    last = [bound for bound, count in zip(bounds, durations["counts"]) if count][-1:]
    return 0 if not last else last[0] / 1e3 if last[0] else None


def wait_until_full(setup, sessions):
    """Until sessions have begun to expire: then as many are live as there will be."""
    deadline = time.monotonic() + FILL_PATIENCE_SECONDS
    while setup.stats()["workers"][0]["sessions_expired"] == 0:
        if time.monotonic() > deadline:
            raise machine.Trouble(f"no session has expired in {FILL_PATIENCE_SECONDS} s; --sessions {sessions}")
        time.sleep(0.25)


def run(binary, sessions, seconds, cpu, hugepages):
    """The JSON object of the case. Lasts some timeouts longer than `seconds`."""
    others = [other for other in sorted(os.sched_getaffinity(0)) if other != cpu] or [cpu]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fullgate-stalls-", dir="/dev/shm"))
        pages = machine.Hugepages(
            [machine.megabytes_for(MBUFS), machine.megabytes_for_sessions(capacity_of(sessions))], hugepages)
        stack.callback(pages.give_back)
        reference = {"before": spinner(cpu, seconds)}
        setup = Setup(binary, folder, sessions, seconds, cpu, others, hugepages)
        closing = stack.enter_context(contextlib.ExitStack())
        closing.callback(setup.close)
        setup.start()
        wait_until_full(setup, sessions)
        # Everything but the worker and the spinner stays off its CPU.
        os.sched_setaffinity(0, set(others))
        before, busy = setup.stats(), Busy(tasks_of(setup))
        time.sleep(seconds)
        after = setup.stats()
        busy.stop()
        os.sched_setaffinity(0, set(others) | {cpu})
        closing.close()
        if after["workers"][0]["rx_packets"] >= setup.frames:
            raise machine.Trouble(f"all {setup.frames} frames were taken before the time was over: fewer --seconds")
        if busy.failed:
            raise machine.Trouble("; ".join(busy.failed))
        reference["after"] = spinner(cpu, seconds)
    return {"case": CASE.name, "mode": "fullnat", "protocol": "udp", "sessions": sessions, "workers": 1, "seconds": seconds,
            "hugepages": hugepages, "timeout_seconds": setup.timeout, "session_capacity": setup.capacity,
            **summary(before, after), **busy.done, "reference": reference}


def summary(before, after):
    """What the counters say of the time between two readings, and worst times since the start."""
    early, late = before["workers"][0], after["workers"][0]
    wall = (after["at_nanoseconds"] - before["at_nanoseconds"]) / 1e9
    times = {key: between(early[key], late[key]) for key in ("poll_gaps", "stalls", "burst_times")}
    drops = {reason: count - dict(before["drops"]).get(reason, 0) for reason, count in after["drops"]}
    return {
        "worst_poll_gap_us": late["poll_gaps"]["worst_nanoseconds"] / 1e3,
        "worst_own_us": late["stalls"]["worst_nanoseconds"] / 1e3,
        "worst_own_at_most_us": worst_bound(times["stalls"]),
        "own_above_target": above(times["stalls"], TARGET_MICROSECONDS),
        "preempted_ratio": round((late["preempted_nanoseconds"] - early["preempted_nanoseconds"]) / wall / 1e9, 6),
        "sessions_live": late["sessions"],
        "new_sessions_per_second": round((late["sessions_created"] - early["sessions_created"]) / wall),
        "expired_sessions_per_second": round((late["sessions_expired"] - early["sessions_expired"]) / wall),
        "drops": {reason: count for reason, count in drops.items() if count},
        "histogram_us": {key: buckets(durations) for key, durations in times.items()},
    }


def line(result):
    """For people."""
    spun = [result["reference"][when]["worst_own_us"] for when in ("before", "after")]
    return (f"stalls {result['sessions_live']:,} sessions, {result['new_sessions_per_second']:,}/s new, "
            f"{result['expired_sessions_per_second']:,}/s expired, {result['swaps_of_all_services']} + "
            f"{result['swaps_for_one_service']} swaps: worst own part of a gap {result['worst_own_us']:.1f} us "
            f"(of the spinner {spun[0]:.1f} and {spun[1]:.1f}), {result['own_above_target']} above "
            f"{TARGET_MICROSECONDS} us; worst gap {result['worst_poll_gap_us']:.1f} us")
