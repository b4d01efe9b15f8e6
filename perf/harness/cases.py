"""The cases: which frames come in, how the gateway is set up for them, and when it is warm."""

from dataclasses import dataclass, field

from . import pcap

VIP, VPORT = 0xC0000264, 8000  # 192.0.2.100
# The MAC address of the first port that net_pcap makes.
WAN_MAC = bytes.fromhex("027063617000")
REAL_SERVERS = 8


@dataclass(frozen=True)
class Case:
    """One case. `passes` are TCP flags of the frames that each flow sends, one pass over all flows after another."""

    name: str
    about: str
    protocol: int
    passes: callable
    workers: int = 1
    timeouts: dict = field(default_factory=dict)
    # The state that all sessions are in once it is warm; none: it is of no interest.
    state: str = ""
    # Whether sessions come and go for ever; else the case is warm when there is one session a flow.
    churns: bool = False
    # testpmd on the same frames says nothing of a rate of new sessions, and takes as much memory again.
    beside_testpmd: bool = True

    def protocol_name(self):
        return {pcap.UDP: "udp", pcap.TCP: "tcp"}[self.protocol]


def one_pass(_flows):
    return [0]


def syn_and_data(flows):
    """A SYN, then data. Packet buffers hold the whole file: fewer data passes where there are many flows."""
    return [pcap.SYN] + [pcap.ACK | pcap.PSH] * (7 if flows <= 100_000 else 1)


def syn_and_fin(_flows):
    return [pcap.SYN, pcap.FIN | pcap.ACK]


CASES = {
    case.name: case
    for case in [
        Case("fullnat-udp", "UDP, client to real server, one packet a session in turn", pcap.UDP, one_pass),
        Case("fullnat-tcp-established", "TCP data on ESTABLISHED sessions, and one SYN a pass", pcap.TCP, syn_and_data,
             state="ESTABLISHED"),
        Case("fullnat-udp-handover", "UDP on two queues; about half of the packets arrive at the worker that does not "
             "own their session", pcap.UDP, one_pass, workers=2),
        Case("fullnat-udp-new", "UDP, sessions created and expired without end (udp = 1 s)", pcap.UDP, one_pass,
             timeouts={"udp": 1}, churns=True, beside_testpmd=False),
        Case("fullnat-tcp-new", "TCP, SYN and FIN of each flow in turn: a SYN in TIME_WAIT begins a new session",
             pcap.TCP, syn_and_fin, churns=True),
    ]
}

# What `perf/run --all` runs: case and sessions.
TABLE = [
    ("fullnat-udp", 1), ("fullnat-udp", 1_024), ("fullnat-udp", 50_000), ("fullnat-udp", 1_000_000),
    ("fullnat-tcp-established", 1_024), ("fullnat-tcp-established", 50_000), ("fullnat-tcp-established", 1_000_000),
    ("fullnat-udp-handover", 1_024), ("fullnat-udp-handover", 50_000),
    ("fullnat-udp-new", 3_000_000), ("fullnat-tcp-new", 50_000), ("fullnat-tcp-new", 1_000_000),
]


def write_captures(case, run, folder):
    """Writes one capture a queue; gives their paths and how many frames there are in all."""
    numbers = pcap.order_of(run.sessions, run.order, run.seed)
    passes = case.passes(run.sessions)
    frames = {flags: pcap.Frame(case.protocol, WAN_MAC, VIP, VPORT, run.packet_size, flags) for flags in set(passes)}
    paths, count = [], 0
    for queue in range(run.workers):
        own = numbers[queue::run.workers]
        clients = [pcap.client_of(flow, run.sessions) for flow in own]
        path = f"{folder}/queue{queue}.pcap"
        count += pcap.write(path, (frames[flags].of(*client) for flags in passes for client in clients))
        paths.append(path)
    return paths, count
