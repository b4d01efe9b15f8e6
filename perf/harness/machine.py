"""The machine: hugepages for the run, processes and their threads, versions. What is taken is given back."""

import contextlib
import fcntl
import os
import pathlib
import platform
import resource
import shutil
import signal
import subprocess

HUGEPAGES = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
# Packet buffers of both programs: 2,048 bytes and headroom, mbuf and mempool headers, and what page ends waste.
BYTES_A_BUFFER = 2_560
# Everything else that DPDK takes memory for.
BASE_MEGABYTES = 192


class Trouble(Exception):
    """Something that the user should read, without a traceback."""


def need(program, package):
    """The program's path, or what to install."""
    path = shutil.which(program)
    if path is None:
        raise Trouble(f"{program} is missing: apt-get install {package}")
    return path


def run(*words):
    """Runs a command that must succeed; gives its output."""
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise Trouble(f"{' '.join(words)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def megabytes_for(buffers):
    """Memory that a DPDK program with so many packet buffers takes, in MB."""
    return BASE_MEGABYTES + buffers * BYTES_A_BUFFER // (1 << 20)


def megabytes_for_sessions(capacity):
    """Memory that a worker with room for so many sessions takes, in MB: 90 bytes each, and whole pages."""
    return 4 + capacity * 90 // (1 << 20)


class Hugepages:
    """2 MB pages for the run: the sum of so many MB."""

    def __init__(self, megabytes, wanted=True):
        self.added = 0
        if wanted:
            self.reserve(sum(megabytes))

    def reserve(self, megabytes):
        """Adds as many as are needed: those that are free already are somebody else's."""
        with self.alone():
            before = self.count("nr_hugepages")
            self.set(before + -(-megabytes // 2))
            self.added = self.count("nr_hugepages") - before
        if self.added * 2 < megabytes:
            self.give_back()
            raise Trouble(f"the kernel has no {megabytes} MB to make 2 MB pages of: fewer sessions, or --no-huge")

    @staticmethod
    def count(which):
        return int((HUGEPAGES / which).read_text())

    @staticmethod
    def set(count):
        (HUGEPAGES / "nr_hugepages").write_text(str(count))

    def give_back(self):
        """Takes off what was added, whatever others have added meanwhile."""
        if self.added > 0:
            with self.alone():
                self.set(max(0, self.count("nr_hugepages") - self.added))
            self.added = 0

    @staticmethod
    @contextlib.contextmanager
    def alone():
        """The count is read, then written: no other perf/run may do so in between."""
        with open(HUGEPAGES / "nr_hugepages") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def threads(pid, prefixes):
    """Thread ids of a process by the beginning of the thread's name."""
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().startswith(prefixes):
            found.append(task.name)
    return sorted(found)


def cpu_nanoseconds(pid, thread_ids):
    """CPU time that these threads have had. Time in which others had the CPU is not in it."""
    return sum(int(pathlib.Path(f"/proc/{pid}/task/{tid}/schedstat").read_text().split()[0]) for tid in thread_ids)


def cpu_of_children():
    """CPU seconds of the commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def footprint_bytes(pid):
    """Memory of a process, ordinary and in hugepages."""
    kilobytes = 0
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(("VmRSS:", "HugetlbPages:")):
            kilobytes += int(line.split()[1])
    return kilobytes * 1024


def end(process, patience=20):
    """Ends a process of ours, stopped or not, and waits for it."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def description(fullgate):
    """What a report must say of the machine and the versions."""
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    here = pathlib.Path(__file__).parent
    git = subprocess.run(["git", "-C", here, "describe", "--always", "--dirty"], capture_output=True, text=True)
    dpdk = subprocess.run(["pkg-config", "--modversion", "libdpdk"], capture_output=True, text=True)
    return {
        "cpu": cpu, "cpus": os.cpu_count(), "memory_megabytes": memory // 1024, "kernel": platform.release(),
        "fullgate": run(fullgate, "--version").strip(), "commit": git.stdout.strip() or "unknown",
        "dpdk": dpdk.stdout.strip() or "unknown", "load_average": os.getloadavg()[0],
    }
