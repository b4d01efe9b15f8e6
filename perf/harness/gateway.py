"""The gateway under measurement: its network namespace, configuration, process and counters.

It runs as a user would run it, from a configuration file; what it counts is read with `fullgate stats --json`.
"""

import functools
import ipaddress
import json
import os
import pathlib
import signal
import subprocess
import time

from . import histogram, machine
from .cases import (
    FIRST_LOCAL_PORT, LOCAL_BASE, REAL_SERVER_PORT, ROUTED_NETWORK, VIP, VIP_ADDRESSES, VIP_BASE, device, devices, pool_of,
    real_servers_of, vip_of)
from .pcap import IPV6_BASE

PATIENCE_SECONDS = 120
# For an answer of the gateway: a debug build with much to do, on a machine that others use, takes more than a command's usual 30.
ANSWER_SECONDS = "300"
# Seconds from receiving a burst until it is sent, of all workers.
BURST_HISTOGRAM = "fullgate_worker_burst_seconds"

CONFIGURATION = """\
[dpdk]
eal_args = {eal_args}
mbufs = {mbufs}

[worker]
cores = {cores}
idle = "spin"

[session]
{capacity}

[control]
socket = "{folder}/control.sock"
metrics = {metrics}
state_dir = "{folder}/state"

[timeouts]
{timeouts}
"""

PORT = """
[[port]]
name = "{name}"
device = "{device}"
tap = "fgp-{name}"
addresses = {addresses}
routes = [{routes}]
{steering}link_timeout_milliseconds = 0
"""

POOL = """
[[local_pool]]
name = "lan"
port = "lan"
addresses = ["{addresses}"]
ports = "{ports}"
"""

SERVICE = """
[[service]]
vip = "{vip}"
protocol = "{protocol}"
scheduler = "rr"
mode = "{mode}"
{local_pool}real_server = [{real_servers}]
"""

METRICS = "127.0.0.1:9469"
ROUTER, ROUTER_MAC = "10.2.0.254", "02:00:00:00:01:fe"


def written(address, ipv6=False):
    """The address as text."""
    return str(ipaddress.IPv6Address(IPV6_BASE + address) if ipv6 else ipaddress.IPv4Address(address))


def in_family(text, ipv6):
    """An address of IPv4, or such a network, as what it is in this family."""
    if not ipv6:
        return text
    address, slash, prefix = text.partition("/")
    return written(int(ipaddress.IPv4Address(address)), True) + (f"/{96 + int(prefix)}" if slash else "")


def endpoint(address, port, ipv6):
    return f"[{written(address, True)}]:{port}" if ipv6 else f"{written(address)}:{port}"


def capacity_for(sessions):
    """Sessions of a worker's table: the next power of two."""
    return max(1 << 16, 1 << (sessions - 1).bit_length())


class Gateway:
    """A running gateway in a network namespace of its own."""

    def __init__(self, binary, case, run, captures, mbufs, capacity, folder, namespace):
        self.binary, self.folder, self.namespace = binary, pathlib.Path(folder), namespace
        self.process = None
        self.folder.mkdir()
        self.log = open(self.folder / "log", "w+")
        self.made_namespace = False
        try:
            machine.run("ip", "netns", "add", namespace)
            self.made_namespace = True
            machine.run("ip", "-n", namespace, "link", "set", "lo", "up")
            file = self.folder / "fullgate.toml"
            file.write_text(self.configuration(case, run, captures, mbufs, capacity))
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", namespace, binary, "run", "--config", file], stderr=self.log, stdout=self.log)
            begin = time.monotonic()
            self.wait_until_it_answers()
            # From the start of the process to its first answer; that comes when workers poll.
            self.start_seconds = time.monotonic() - begin
            self.name_neighbours(case)
        except BaseException:
            self.close()
            raise
        self.workers = machine.threads(self.process.pid, ("worker-",))

    def configuration(self, case, run, captures, mbufs, capacity):
        eal_args = [] if run.hugepages else ["--no-huge", "-m", str(machine.megabytes_for(mbufs))]
        pool = pool_of(case, run.sessions)
        head = CONFIGURATION.format(
            eal_args=json.dumps(eal_args), mbufs=mbufs, cores=run.cpus,
            capacity=f"capacity = {capacity}" + (f"\nipv6_capacity = {capacity}" if case.ipv6 else ""),
            folder=self.folder, metrics=json.dumps(METRICS if case.burst_times else False),
            timeouts="\n".join(f"{name} = {seconds}" for name, seconds in case.timeouts.items()))
        local = POOL.format(
            addresses=f"{written(LOCAL_BASE, case.ipv6)}-{written(LOCAL_BASE + pool.addresses - 1, case.ipv6)}",
            ports=f"{FIRST_LOCAL_PORT}-{FIRST_LOCAL_PORT + pool.ports - 1}")
        return head + self.ports(case, captures) + local + "".join(
            self.service(number, case) for number in range(case.services))

    @staticmethod
    def ports(case, captures):
        wan, lan = devices(captures)
        far = f'{{ to = "{ROUTED_NETWORK}", via = "{ROUTER}" }}' if case.routed else ""
        port = functools.partial(PORT.format, steering=f'steering = "{case.steering}"\n' if case.steering else "")
        family = functools.partial(in_family, ipv6=case.ipv6)
        addresses = [family("192.0.2.1/24"), family(f"{written(VIP[0])}/32")]
        # The same whatever it has of these services, so that others can be loaded.
        addresses += [f"{written(VIP_BASE + n)}/32" for n in range(VIP_ADDRESSES)] if case.routed else []
        text = port(name="wan", device=wan, addresses=json.dumps(addresses),
                    routes=f'{{ to = "{family("198.18.0.0/15")}", via = "{family("192.0.2.254")}" }}')
        text += port(name="lan", device=lan, addresses=json.dumps([family("10.2.0.1/16")]), routes=far)
        if captures.side:
            text += port(name="side", device=device(2, captures.side), addresses='["192.0.3.1/24"]', routes="")
        return text

    @staticmethod
    def service(number, case):
        address, port = vip_of(number, case)
        servers = (f'{{ address = "{endpoint(server, REAL_SERVER_PORT, case.ipv6)}" }}'
                   for server in real_servers_of(number, case))
        return SERVICE.format(
            vip=endpoint(address, port, case.ipv6), protocol=case.protocol_name(), mode=case.mode,
            local_pool='local_pool = "lan"\n' if case.mode == "fullnat" else "", real_servers=", ".join(servers))

    def wait_until_it_answers(self):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.log.seek(0)
                last = "".join(self.log.readlines()[-5:]).strip()
                raise machine.Trouble(f"the gateway did not start: {last or 'it says nothing'}")
            done = subprocess.run(self.command("stats", "--json"), capture_output=True, text=True)
            if done.returncode == 0:
                return
            # 3: no daemon listens yet.
            if done.returncode != 3:
                raise machine.Trouble(f"fullgate stats: exit {done.returncode}: {done.stderr.strip()}")
            time.sleep(0.02)

    def name_neighbours(self, case):
        """Next hops that never have to be asked for."""
        hops = [("fgp-wan", in_family("192.0.2.254", case.ipv6), "02:00:00:00:00:fe")]
        if case.routed:
            hops.append(("fgp-lan", ROUTER, ROUTER_MAC))
        else:
            hops += [("fgp-lan", written(server, case.ipv6), f"02:00:00:00:01:{server & 0xFF:02x}")
                     for server in real_servers_of(0, case)]
        for tap, address, mac in hops:
            machine.run("ip", "-n", self.namespace, "neigh", "replace", address, "lladdr", mac, "dev", tap,
                        "nud", "permanent")

    def command(self, *words):
        return [self.binary, *words, "--socket", str(self.folder / "control.sock"), "--timeout", ANSWER_SECONDS]

    def sample(self):
        """Counters now, all of them growing but `sessions`."""
        stats = json.loads(machine.run(*self.command("stats", "--json")))
        cpu = machine.cpu_nanoseconds(self.process.pid, self.workers)
        workers = stats["workers"]
        total = {key: sum(worker.get(key, 0) for worker in workers) for key in
                 ("sessions", "ipv6_sessions", "sessions_created", "sessions_expired", "rx_packets", "tx_packets", "handovers")}
        total["sessions"] += total.pop("ipv6_sessions")
        drops = {reason: count for reason, count in stats["drops"] if count}
        return {**total, "at": stats["at_nanoseconds"], "cpu": cpu, "packets": total["tx_packets"], "drops": drops}

    def states(self, count):
        """The states of so many of its sessions."""
        text = machine.run(*self.command("session", "list", "--json", "--limit", str(count)))
        return {row["state"] for row in json.loads(text)}

    def apply(self, file):
        """Makes its services those of a file; gives the seconds that it took: of wall time, and of the CPU's, for the
        command and what the gateway did beside its workers."""
        others = set(machine.threads(self.process.pid, "")) - set(self.workers)
        cpu, begin = machine.cpu_nanoseconds(self.process.pid, others), time.monotonic()
        of_command = machine.cpu_of_children()
        machine.run(*self.command("apply", "--config", str(file)))
        wall, of_command = time.monotonic() - begin, machine.cpu_of_children() - of_command
        others = set(machine.threads(self.process.pid, "")) - set(self.workers)
        return wall, of_command + (machine.cpu_nanoseconds(self.process.pid, others) - cpu) / 1e9

    def burst_times(self):
        """Its histogram of the time of bursts; none where it has no such metric."""
        text = machine.run("ip", "netns", "exec", self.namespace, "curl", "-sS", f"http://{METRICS}/metrics")
        return histogram.read(text, BURST_HISTOGRAM)

    def pause(self):
        """Takes no CPU until it goes on."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def footprint_bytes(self):
        return machine.footprint_bytes(self.process.pid)

    def close(self):
        if self.process:
            machine.end(self.process)
        if self.made_namespace:
            machine.run("ip", "netns", "del", self.namespace)
        self.log.close()
        if os.environ.get("PERF_KEEP_LOG") and pathlib.Path(self.log.name).exists():
            print(pathlib.Path(self.log.name).read_text())
