"""testpmd on the same captures: the floor that every figure is compared with."""

import os
import pty
import re
import select
import shutil
import subprocess
import time

from . import machine
from .cases import devices

PROMPT = "testpmd> "
PATIENCE_SECONDS = 120


class Testpmd:
    """A running testpmd that forwards only between `start` and `pause`."""

    def __init__(self, run, captures, mbufs):
        program = machine.need("dpdk-testpmd", "dpdk-dev")
        # Its main thread only reads commands: it lies on CPU 0 beside the control thread of the gateway.
        lcores = ",".join(["0@0"] + [f"{n + 1}@{cpu}" for n, cpu in enumerate(run.cpus)])
        memory = ["--in-memory"] if run.hugepages else [
            "--no-huge", "--no-shconf", "-m", str(machine.megabytes_for(mbufs))]
        queues = str(run.workers)
        wan, lan = devices(captures)
        self.file_prefix = f"perf-{os.getpid()}"
        words = [program, "--lcores", lcores, "--no-pci", "--no-telemetry", "--file-prefix", self.file_prefix, *memory,
                 "--vdev", wan, "--vdev", lan,
                 "--", "-i", "--forward-mode=macswap", f"--total-num-mbufs={mbufs}", f"--nb-cores={queues}",
                 f"--rxq={queues}", f"--txq={queues}", "--rxd=1024", "--txd=1024", "--burst=32"]
        # A terminal, or its output would wait in a buffer.
        self.terminal, its_end = pty.openpty()
        self.process = subprocess.Popen(words, stdin=its_end, stdout=its_end, stderr=its_end, close_fds=True)
        os.close(its_end)
        try:
            self.read_to_prompt()
            self.workers = machine.threads(self.process.pid, ("lcore-worker", "rte-worker"))
            if len(self.workers) != run.workers:
                raise machine.Trouble(f"testpmd has {len(self.workers)} worker threads, not {run.workers}")
        except BaseException:
            self.close()
            raise

    def read_to_prompt(self):
        text, deadline = "", time.monotonic() + PATIENCE_SECONDS
        while not text.endswith(PROMPT):
            readable, _, _ = select.select([self.terminal], [], [], 0.5)
            if readable:
                try:
                    text += os.read(self.terminal, 65536).decode(errors="replace")
                except OSError:
                    self.process.wait(5)
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise machine.Trouble("testpmd ended or does not answer; its last words: " + text.strip()[-600:])
        return text

    def ask(self, command):
        os.write(self.terminal, command.encode() + b"\n")
        return self.read_to_prompt()

    def start(self, mode):
        self.ask(f"set fwd {mode}")
        self.ask("start")

    def pause(self):
        self.ask("stop")

    def sample(self):
        text = self.ask("show port stats all")
        cpu = machine.cpu_nanoseconds(self.process.pid, self.workers)
        packets = [int(count) for count in re.findall(r"TX-packets:\s*(\d+)", text)]
        if len(packets) != 2:
            raise machine.Trouble(f"testpmd's statistics are not as expected: {text[-300:]}")
        return {"at": time.monotonic_ns(), "cpu": cpu, "packets": sum(packets)}

    def close(self):
        machine.end(self.process)
        os.close(self.terminal)
        # DPDK leaves its run-time directory behind.
        shutil.rmtree(f"/run/dpdk/{self.file_prefix}", ignore_errors=True)
