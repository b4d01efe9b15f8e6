"""A case by itself: how long packets take through the gateway on AF_XDP, end to end, beside the kernel's own routing.

Three paths of the same shape, each of three network namespaces in a row, joined by veths: a client, what is in the
middle, and a server that echoes. In the middle is the gateway with `idle = "spin"`, the gateway with `idle = "sleep"`, or
the kernel, which routes: what the veths, the two sockets and the wake-ups of both programs cost anyway. They take turns;
a gateway whose turn it is not is stopped. perf/latency sends and echoes, both on the CPUs that no worker has.
"""

import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

from . import machine

RATE = 10_000
PATIENCE_SECONDS = 60
CLIENT, SERVER, VIP, PORT = "10.0.0.10", "10.1.0.11", "10.0.0.100", 7000
MIDDLE_WAN, MIDDLE_LAN = "10.0.0.1", "10.1.0.1"
MBUFS = 32_768
PATHS = ["kernel", "spin", "sleep"]
WAYS = ["round_trip", "round_trip_from_sent", "forth", "back", "sent_late"]
QUANTILES = ["p50", "p99", "p999", "max"]

CONFIGURATION = """\
[dpdk]
eal_args = {eal_args}
mbufs = {mbufs}

[worker]
cores = {cores}
idle = "{idle}"

[session]
capacity = 65536

[control]
socket = "{folder}/control.sock"
metrics = false
state_dir = "{folder}/state"

[[port]]
name = "wan"
device = "net_af_xdp0,iface=wan"
addresses = ["{wan}/24", "{vip}/32"]

[[port]]
name = "lan"
device = "net_af_xdp1,iface=lan"
addresses = ["{lan}/24"]

[[local_pool]]
name = "lan"
port = "lan"
addresses = ["10.1.0.200-10.1.0.203"]

[[service]]
vip = "{vip}:{port}"
protocol = "udp"
scheduler = "rr"
mode = "fullnat"
local_pool = "lan"
real_server = [{{ address = "{server}:{port}" }}]
"""


def program(binary):
    """perf/latency beside the gateway's binary, or what to do about it."""
    path = pathlib.Path(binary).resolve().parent / "fullgate-latency"
    if not os.access(path, os.X_OK):
        raise machine.Trouble(f"{path} is missing: cargo build --release -p fullgate-latency")
    return str(path)


class Path:
    """One path: its namespaces, its echo, and its gateway if it has one. What it made goes when it is closed."""

    def __init__(self, kind, run, folder):
        self.kind, self.run = kind, run
        self.prefix = f"fglat-{os.getpid()}-{kind}"
        self.folder = pathlib.Path(folder) / kind
        self.folder.mkdir()
        others = sorted(os.sched_getaffinity(0) - set(run.cpus)) or run.cpus
        self.taskset = ["taskset", "--cpu-list", ",".join(map(str, others))]
        self.closing = contextlib.ExitStack()
        self.gateway = None
        try:
            self.lay_cables()
            if kind == "kernel":
                self.route()
            else:
                self.start_gateway()
            self.start_echo()
            self.wait_until_answered()
        except BaseException:
            self.closing.close()
            raise

    def inside(self, role, *words):
        return ["ip", "netns", "exec", f"{self.prefix}-{role}", *words]

    def ip(self, role, words):
        machine.run("ip", "-n", f"{self.prefix}-{role}", *words.split())

    def lay_cables(self):
        for role in ["client", "middle", "server"]:
            machine.run("ip", "netns", "add", f"{self.prefix}-{role}")
            self.closing.callback(machine.run, "ip", "netns", "del", f"{self.prefix}-{role}")
            machine.run(*self.inside(role, "sysctl", "-q", "-w", "net.ipv6.conf.all.disable_ipv6=1",
                                     "net.ipv6.conf.default.disable_ipv6=1"))
            self.ip(role, "link set lo up")
        for outer, inner in [("client", "wan"), ("server", "lan")]:
            self.ip("middle", f"link add {inner} type veth peer name eth0 netns {self.prefix}-{outer}")
            for role, interface in [("middle", inner), (outer, "eth0")]:
                # Frames as a NIC would see them: with their checksums.
                machine.run(*self.inside(role, "ethtool", "-K", interface, "tx", "off", "gso", "off", "gro", "off"))
                self.ip(role, f"link set {interface} up")
        self.ip("client", f"addr add {CLIENT}/24 dev eth0")
        self.ip("server", f"addr add {SERVER}/24 dev eth0")

    def route(self):
        """The kernel in the middle: the client talks to the server itself."""
        self.ip("middle", f"addr add {MIDDLE_WAN}/24 dev wan")
        self.ip("middle", f"addr add {MIDDLE_LAN}/24 dev lan")
        machine.run(*self.inside("middle", "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"))
        self.ip("client", f"route add default via {MIDDLE_WAN}")
        self.ip("server", f"route add default via {MIDDLE_LAN}")

    def start_gateway(self):
        file = self.folder / "fullgate.toml"
        eal_args = [] if self.run.hugepages else ["--no-huge", "-m", str(machine.megabytes_for(MBUFS))]
        file.write_text(CONFIGURATION.format(
            eal_args=json.dumps(eal_args), mbufs=MBUFS, cores=self.run.cpus[-1:], idle=self.kind, folder=self.folder,
            wan=MIDDLE_WAN, lan=MIDDLE_LAN, vip=VIP, port=PORT, server=SERVER))
        log = self.closing.enter_context(open(self.folder / "log", "w"))
        self.gateway = subprocess.Popen(
            self.inside("middle", self.run.binary, "run", "--config", str(file)), stdout=log, stderr=log)
        self.closing.callback(machine.end, self.gateway)

    def start_echo(self):
        echo = subprocess.Popen(
            self.taskset + self.inside("server", program(self.run.binary), "echo", f"{SERVER}:{PORT}"))
        self.closing.callback(machine.end, echo)

    def target(self):
        return f"{SERVER if self.kind == 'kernel' else VIP}:{PORT}"

    def wait_until_answered(self):
        """Until packets come back; next hops are known then."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            if self.gateway and self.gateway.poll() is not None:
                last = (self.folder / "log").read_text().strip().splitlines()[-3:]
                raise machine.Trouble("the gateway did not start: " + " ".join(last))
            if self.measure(1, 10)["received"]:
                return
            if time.monotonic() > deadline:
                raise machine.Trouble(f"no packet came back on the path {self.kind}")

    def measure(self, seconds, rate=RATE):
        """The figures of perf/latency, and the CPU that the gateway's worker had meanwhile."""
        workers = machine.threads(self.gateway.pid, ("worker-",)) if self.gateway else []
        before, begin = self.cpu(workers), time.monotonic_ns()
        words = self.taskset + self.inside(
            "client", program(self.run.binary), "send", self.target(), str(rate), str(seconds))
        figures = json.loads(machine.run(*words))
        share = (self.cpu(workers) - before) / (time.monotonic_ns() - begin)
        return {**figures, "worker_cpu_share": share if workers else None}

    def cpu(self, workers):
        return machine.cpu_nanoseconds(self.gateway.pid, workers) if workers else 0

    def pause(self):
        if self.gateway:
            self.gateway.send_signal(machine.signal.SIGSTOP)

    def go_on(self):
        if self.gateway:
            self.gateway.send_signal(machine.signal.SIGCONT)

    def close(self):
        self.closing.close()


def run_case(case, run):
    """Runs the case; gives its JSON object."""
    for tool, package in [("ethtool", "ethtool"), ("taskset", "util-linux")]:
        machine.need(tool, package)
    seconds = max(1, round(run.seconds))
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fullgate-perf-"))
        pages = machine.Hugepages([machine.megabytes_for(MBUFS)] * 2, run.hugepages)
        stack.callback(pages.give_back)
        paths = {}
        for kind in PATHS:
            paths[kind] = Path(kind, run, folder)
            stack.callback(paths[kind].close)
            paths[kind].pause()
        rounds = [{kind: turn_of(path, seconds) for kind, path in paths.items()} for _round in range(run.rounds)]
    return {
        "case": case.name, "kind": "latency", "mode": "fullnat", "protocol": "udp", "sessions": 1, "workers": 1,
        "rate": RATE, "seconds": seconds, "paths": {kind: median_of(rounds, kind) for kind in PATHS},
        "hugepages": run.hugepages, "rounds": rounds,
    }


def turn_of(path, seconds):
    path.go_on()
    figures = path.measure(seconds)
    path.pause()
    return figures


def median_of(rounds, kind):
    """Of each quantile over the rounds, in microseconds; what was lost in all."""
    each = [figures[kind] for figures in rounds]
    if not all(figures["received"] for figures in each):
        raise machine.Trouble(f"no packet came back on the path {kind}")
    found = {way: {quantile: round(statistics.median(figures[way][quantile] for figures in each), 1)
                   for quantile in QUANTILES} for way in WAYS}
    found["lost"] = sum(figures["lost"] for figures in each)
    found["sent"] = sum(figures["sent"] for figures in each)
    shares = [figures["worker_cpu_share"] for figures in each if figures["worker_cpu_share"] is not None]
    found["worker_cpu_share"] = round(statistics.median(shares), 3) if shares else None
    return found
