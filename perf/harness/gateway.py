"""The gateway under measurement: its network namespace, configuration, process and counters.

It runs as a user would run it, from a configuration file; what it counts is read with `fullgate stats --json`.
"""

import ipaddress
import json
import os
import pathlib
import signal
import subprocess
import time

from . import machine
from .cases import FIRST_LOCAL_PORT, LOCAL_BASE, REAL_SERVERS, device, pool_of

PATIENCE_SECONDS = 120

CONFIGURATION = """\
[dpdk]
eal_args = {eal_args}
mbufs = {mbufs}

[worker]
cores = {cores}
idle = "spin"

[session]
capacity = {capacity}

[control]
socket = "{folder}/control.sock"
metrics = false
state_dir = "{folder}/state"

[timeouts]
{timeouts}

[[port]]
name = "wan"
device = "{wan}"
tap = "fgp-wan"
addresses = ["192.0.2.1/24", "192.0.2.100/32"]
routes = [{{ to = "198.18.0.0/15", via = "192.0.2.254" }}]
link_timeout_milliseconds = 0

[[port]]
name = "lan"
device = "{lan}"
tap = "fgp-lan"
addresses = ["10.2.0.1/16"]
link_timeout_milliseconds = 0

[[local_pool]]
name = "lan"
port = "lan"
addresses = ["10.2.4.0-{last_local}"]
ports = "{first_port}-{last_port}"

[[service]]
vip = "192.0.2.100:8000"
protocol = "{protocol}"
scheduler = "rr"
mode = "fullnat"
local_pool = "lan"
real_server = [{real_servers}]
"""


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
            file = self.folder / "fullgate.toml"
            file.write_text(self.configuration(case, run, captures, mbufs, capacity))
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", namespace, binary, "run", "--config", file], stderr=self.log, stdout=self.log)
            self.wait_until_it_answers()
            self.name_neighbours()
        except BaseException:
            self.close()
            raise
        self.workers = machine.threads(self.process.pid, ("worker-",))

    def configuration(self, case, run, captures, mbufs, capacity):
        eal_args = [] if run.hugepages else ["--no-huge", "-m", str(machine.megabytes_for(mbufs))]
        pool = pool_of(case, run.sessions)
        servers = ", ".join(f'{{ address = "10.2.1.{n + 1}:8000" }}' for n in range(REAL_SERVERS))
        return CONFIGURATION.format(
            eal_args=json.dumps(eal_args), mbufs=mbufs, cores=run.cpus, capacity=capacity, folder=self.folder,
            timeouts="\n".join(f"{name} = {seconds}" for name, seconds in case.timeouts.items()),
            wan=device(0, captures.wan), lan=device(1, captures.lan), protocol=case.protocol_name(),
            last_local=ipaddress.IPv4Address(LOCAL_BASE + pool.addresses - 1), first_port=FIRST_LOCAL_PORT,
            last_port=FIRST_LOCAL_PORT + pool.ports - 1, real_servers=servers)

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
            time.sleep(0.05)

    def name_neighbours(self):
        """Next hops that never have to be asked for."""
        hops = [("fgp-wan", "192.0.2.254", "02:00:00:00:00:fe")]
        hops += [("fgp-lan", f"10.2.1.{n + 1}", f"02:00:00:00:01:{n + 1:02x}") for n in range(REAL_SERVERS)]
        for tap, address, mac in hops:
            machine.run("ip", "-n", self.namespace, "neigh", "replace", address, "lladdr", mac, "dev", tap,
                        "nud", "permanent")

    def command(self, *words):
        return [self.binary, *words, "--socket", str(self.folder / "control.sock")]

    def sample(self):
        """Counters now, all of them growing but `sessions`."""
        stats = json.loads(machine.run(*self.command("stats", "--json")))
        cpu = machine.cpu_nanoseconds(self.process.pid, self.workers)
        workers = stats["workers"]
        total = {key: sum(worker[key] for worker in workers) for key in
                 ("sessions", "sessions_created", "sessions_expired", "rx_packets", "tx_packets", "handovers")}
        drops = {reason: count for reason, count in stats["drops"] if count}
        return {**total, "at": stats["at_nanoseconds"], "cpu": cpu, "packets": total["tx_packets"], "drops": drops}

    def states(self, count):
        """The states of so many of its sessions."""
        text = machine.run(*self.command("session", "list", "--json", "--limit", str(count)))
        return {row["state"] for row in json.loads(text)}

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
