"""The cases: which frames come in, how the gateway is set up for them, and when it is warm."""

from dataclasses import dataclass, field

from . import pcap

VIP = (0xC0000264, 8000)  # 192.0.2.100
# The MAC addresses of the first two ports that net_pcap makes.
WAN_MAC = bytes.fromhex("027063617000")
LAN_MAC = bytes.fromhex("027063617001")
REAL_SERVERS = 8
REAL_SERVER_BASE, REAL_SERVER_PORT = 0x0A020101, 8000  # 10.2.1.1
LOCAL_BASE = 0x0A020400  # 10.2.4.0
FIRST_LOCAL_PORT, LOCAL_PORTS = 1_024, 64_512


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
    # Whether real servers answer: the local ports are then exactly as many as the sessions, so that an answer to each
    # local port belongs to a session, whichever it is.
    answered: bool = False
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
        Case("fullnat-udp-both", "UDP, requests and answers in turn; sessions a multiple of 8", pcap.UDP, one_pass,
             answered=True),
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
    ("fullnat-udp-both", 1_024), ("fullnat-udp-both", 50_000), ("fullnat-udp-both", 1_000_000),
    ("fullnat-tcp-established", 1_024), ("fullnat-tcp-established", 50_000), ("fullnat-tcp-established", 1_000_000),
    ("fullnat-udp-handover", 1_024), ("fullnat-udp-handover", 50_000),
    ("fullnat-udp-new", 3_000_000), ("fullnat-tcp-new", 50_000), ("fullnat-tcp-new", 1_000_000),
]


@dataclass(frozen=True)
class Pool:
    """Local addresses from LOCAL_BASE on, and local ports of each from FIRST_LOCAL_PORT on."""

    addresses: int
    ports: int


def pool_of(case, sessions):
    """Twice as many local ports as sessions need; where answers come, exactly as many."""
    room = REAL_SERVERS * LOCAL_PORTS
    if not case.answered:
        return Pool(min(8_192, -(-2 * sessions // room) + 1), LOCAL_PORTS)
    addresses = -(-sessions // room)
    if sessions % (REAL_SERVERS * addresses):
        raise ValueError(f"{case.name}: --sessions {sessions}: a multiple of {REAL_SERVERS * addresses} is needed")
    return Pool(addresses, sessions // (REAL_SERVERS * addresses))


@dataclass
class Captures:
    """Paths of the captures, one a queue, that the two ports receive, and how many frames they hold in all."""

    wan: list
    lan: list
    frames: int


def write_captures(case, run, folder):
    """Writes the captures."""
    numbers = pcap.order_of(run.sessions, run.order, run.seed)
    passes = case.passes(run.sessions)
    frames = {flags: pcap.Frame(case.protocol, WAN_MAC, run.packet_size, flags) for flags in set(passes)}
    captures = Captures([], [], 0)
    for queue in range(run.workers):
        clients = [pcap.client_of(flow, run.sessions) for flow in numbers[queue::run.workers]]
        path = f"{folder}/wan{queue}.pcap"
        captures.frames += pcap.write(path, (frames[flags].of(client, VIP) for flags in passes for client in clients))
        captures.wan.append(path)
    if case.answered:
        captures.lan.append(f"{folder}/lan.pcap")
        captures.frames += write_answers(case, run, numbers, captures.lan[0])
    return captures


def write_answers(case, run, numbers, path):
    """One answer to each local port of each local address, from each real server."""
    pool, frame = pool_of(case, run.sessions), pcap.Frame(case.protocol, LAN_MAC, run.packet_size)

    def answer(number):
        rest, server = divmod(number, REAL_SERVERS)
        address, port = divmod(rest, pool.ports)
        return frame.of((REAL_SERVER_BASE + server, REAL_SERVER_PORT), (LOCAL_BASE + address, FIRST_LOCAL_PORT + port))

    return pcap.write(path, (answer(number) for number in numbers))


def device(number, captures):
    """The DPDK device that receives these captures, or nothing; what it sends is dropped."""
    if not captures:
        return "net_null0,no-rx=1"
    return f"net_pcap{number}," + ",".join(f"rx_pcap={path}" for path in captures) + ",infinite_rx=1"
