"""The cases: which frames come in, how the gateway is set up for them, and when it is warm."""

from dataclasses import dataclass, field, replace

from . import pcap

VIP = (0xC0000264, 8000)  # 192.0.2.100
# VIPs of many services: 50 ports each of 198.51.100.0 and on.
VIP_BASE, VIP_ADDRESSES, PORTS_A_VIP = 0xC6336400, 200, 50
# The MAC addresses of the first two ports that net_pcap makes.
WAN_MAC = bytes.fromhex("027063617000")
LAN_MAC = bytes.fromhex("027063617001")
REAL_SERVERS = 8
REAL_SERVER_BASE, REAL_SERVER_PORT = 0x0A020101, 8000  # 10.2.1.1
ROUTED_BASE, ROUTED_NETWORK = 0x0A400000, "10.64.0.0/12"
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
    # How many unless the user says otherwise.
    sessions: int = 1_024
    timeouts: dict = field(default_factory=dict)
    # The state that all sessions are in once it is warm; none: it is of no interest.
    state: str = ""
    # Whether real servers answer: the local ports are then exactly as many as the sessions, so that an answer to each
    # local port belongs to a session, whichever it is.
    answered: bool = False
    # Whether clients send the capture once, which opens the sessions, and never again.
    clients_once: bool = False
    # Whether sessions come and go for ever; else the case is warm when there is one session a flow.
    churns: bool = False
    # testpmd on the same frames says nothing of a rate of new sessions, and takes as much memory again.
    beside_testpmd: bool = True
    # A second gateway that is measured in the same rounds: "one_worker" or "one_service"; none: no such.
    beside: str = ""
    # The ports' `steering`; none: not said, so that gateways from before that key can be measured too.
    steering: str = ""
    # Whether all of it is IPv6.
    ipv6: bool = False
    # The forwarding mode of the services.
    mode: str = "fullnat"
    services: int = 1
    # Real servers of each service; whether they are behind a router.
    real_servers: int = REAL_SERVERS
    routed: bool = False
    # What runs it: "rounds", "lifetime" (rounds.py, lifetime.py) or "latency".
    runner: str = "rounds"
    # Whether the time of bursts is asked of the gateway's own histogram.
    burst_times: bool = False

    def protocol_name(self):
        return {pcap.UDP: "udp", pcap.TCP: "tcp"}[self.protocol]


def one_pass(_flows):
    return [0]


def syn_only(_flows):
    return [pcap.SYN]


def syn_and_data(flows):
    """A SYN, then data. Packet buffers hold the whole file: fewer data passes where there are many flows."""
    return [pcap.SYN] + [pcap.ACK | pcap.PSH] * (7 if flows <= 100_000 else 1)


def syn_and_fin(_flows):
    return [pcap.SYN, pcap.FIN | pcap.ACK]


CASES = {
    case.name: case
    for case in [
        Case("fullnat-udp", "UDP, client to real server, one packet a session in turn", pcap.UDP, one_pass),
        Case("fullnat-udp-replies", "UDP, real server to client alone; sessions a multiple of 8", pcap.UDP, one_pass,
             answered=True, clients_once=True),
        Case("fullnat-udp-both", "UDP, requests and answers in turn; sessions a multiple of 8", pcap.UDP, one_pass,
             answered=True),
        Case("fullnat-tcp-established", "TCP data on ESTABLISHED sessions, and one SYN a pass", pcap.TCP, syn_and_data,
             state="ESTABLISHED"),
        Case("fullnat-tcp-syn", "TCP, SYNs alone, on sessions that are there", pcap.TCP, syn_only, sessions=16_384,
             state="SYN_RECV"),
        Case("fullnat-udp-ipv6", "UDP over IPv6, client to real server", pcap.UDP, one_pass, ipv6=True),
        Case("nat-udp", "UDP, NAT mode, client to real server", pcap.UDP, one_pass, mode="nat"),
        Case("dr-udp", "UDP, DR mode", pcap.UDP, one_pass, mode="dr"),
        Case("tun-udp", "UDP, TUN mode, IPIP", pcap.UDP, one_pass, mode="tun"),
        Case("fullnat-udp-two-workers", "UDP on two queues, each flow in that of its owner, beside one worker with half "
             "of the flows", pcap.UDP, one_pass, workers=2, steering="rss", beside="one_worker"),
        Case("fullnat-udp-handover", "UDP on two queues; about half of the packets arrive at the worker that does not "
             "own their session", pcap.UDP, one_pass, workers=2),
        Case("fullnat-udp-10k-services", "UDP, sessions of 10,000 services with 10 real servers each, beside one "
             "service", pcap.UDP, one_pass, beside="one_service", services=10_000, real_servers=10, routed=True),
        Case("fullnat-udp-new", "UDP, sessions created and expired without end (udp = 1 s)", pcap.UDP, one_pass,
             sessions=3_000_000, timeouts={"udp": 1}, churns=True, beside_testpmd=False),
        Case("fullnat-tcp-new", "TCP, SYN and FIN of each flow in turn: a SYN in TIME_WAIT begins a new session",
             pcap.TCP, syn_and_fin, sessions=50_000, churns=True),
        Case("fullnat-udp-16m", "UDP, 16,000,000 sessions created once, then expired, while 1,024 others go on",
             pcap.UDP, one_pass, sessions=16_000_000, runner="lifetime"),
        Case("latency-burst", "UDP as fullnat-udp; the time from receiving a burst to sending it", pcap.UDP, one_pass,
             sessions=50_000, burst_times=True),
        Case("latency-af-xdp", "UDP there and back over AF_XDP and veths at 10,000 packets/s, beside the kernel's "
             "routing", pcap.UDP, one_pass, sessions=1, runner="latency"),
    ]
}

# What `perf/run --all` runs: case and sessions.
TABLE = [
    ("fullnat-udp", 1), ("fullnat-udp", 1_024), ("fullnat-udp", 50_000), ("fullnat-udp", 1_000_000),
    ("fullnat-udp-replies", 1_024), ("fullnat-udp-replies", 50_000), ("fullnat-udp-replies", 1_000_000),
    ("fullnat-udp-both", 1_024), ("fullnat-udp-both", 50_000), ("fullnat-udp-both", 1_000_000),
    ("fullnat-tcp-established", 1_024), ("fullnat-tcp-established", 50_000), ("fullnat-tcp-established", 1_000_000),
    ("fullnat-tcp-syn", 16_384),
    ("fullnat-udp-ipv6", 1_024), ("fullnat-udp-ipv6", 50_000), ("fullnat-udp-ipv6", 1_000_000),
    ("nat-udp", 1_024), ("nat-udp", 50_000), ("dr-udp", 1_024), ("dr-udp", 50_000), ("tun-udp", 1_024), ("tun-udp", 50_000),
    ("fullnat-udp-two-workers", 2_048), ("fullnat-udp-two-workers", 100_000),
    ("fullnat-udp-handover", 1_024), ("fullnat-udp-handover", 50_000),
    ("fullnat-udp-10k-services", 1_024), ("fullnat-udp-10k-services", 50_000),
    ("fullnat-udp-new", 3_000_000), ("fullnat-tcp-new", 50_000), ("fullnat-tcp-new", 1_000_000),
    ("fullnat-udp-16m", 16_000_000), ("latency-burst", 50_000), ("latency-af-xdp", 1),
]


def beside_of(case, run):
    """The case and run of the second gateway: with as many sessions for each worker."""
    if case.beside == "one_worker":
        cpu = run.cpus[-1:]
        return replace(case, workers=1, steering=""), replace(run, workers=1, cpus=cpu, sessions=run.sessions // run.workers)
    return replace(case, services=1), run


@dataclass(frozen=True)
class Pool:
    """Local addresses from LOCAL_BASE on, and local ports of each from FIRST_LOCAL_PORT on."""

    addresses: int
    ports: int


def vip_of(service, case):
    """Address and port of a service."""
    if service == 0:
        return VIP
    address, port = divmod(service, PORTS_A_VIP)
    return VIP_BASE + address, VIP[1] + port


def real_servers_of(service, case):
    """Addresses of a service's real servers, which no other service has."""
    first = (ROUTED_BASE if case.routed else REAL_SERVER_BASE) + service * case.real_servers
    return range(first, first + case.real_servers)


def pool_of(case, sessions):
    """Twice as many local ports as sessions need; where answers come, exactly as many."""
    room = case.real_servers * LOCAL_PORTS
    if not case.answered:
        return Pool(min(8_192, -(-2 * sessions // room) + 1), LOCAL_PORTS)
    addresses = -(-sessions // room)
    if sessions % (REAL_SERVERS * addresses):
        raise ValueError(f"{case.name}: --sessions {sessions}: a multiple of {REAL_SERVERS * addresses} is needed")
    return Pool(addresses, sessions // (REAL_SERVERS * addresses))


@dataclass
class Captures:
    """Paths of the captures, one a queue, that the ports receive; how many frames packet buffers hold of them."""

    wan: list
    lan: list
    frames: int = 0
    # Whether the WAN's are sent once.
    wan_once: bool = False
    # What a third port receives, if there is one.
    side: list = field(default_factory=list)


def write_captures(case, run, folder):
    """Writes the captures."""
    numbers = pcap.order_of(run.sessions, run.order, run.seed)
    passes = case.passes(run.sessions)
    # The shortest frame has no room for a packet of IPv6.
    size = max(run.packet_size, pcap.headers_len(case.protocol, True)) if case.ipv6 else run.packet_size
    frames = {flags: pcap.Frame(case.protocol, WAN_MAC, size, flags, case.ipv6) for flags in set(passes)}
    vips = [vip_of(service, case) for service in range(case.services)]
    captures = Captures([], [], wan_once=case.clients_once)
    for queue in range(run.workers):
        flows = numbers[queue::run.workers]
        path = f"{folder}/wan{queue}.pcap"
        count = pcap.write(path, (
            frames[flags].of(pcap.client_of(flow, run.sessions), vips[flow % case.services])
            for flags in passes for flow in flows))
        captures.frames += 0 if case.clients_once else count
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


def device(number, captures, once=False):
    """The DPDK device that receives these captures, without end or once, or nothing; what it sends is dropped."""
    if not captures:
        return f"net_null{number},no-rx=1"
    return f"net_pcap{number}," + ",".join(f"rx_pcap={path}" for path in captures) + ("" if once else ",infinite_rx=1")


def devices(captures):
    """The devices of both ports."""
    return device(0, captures.wan, captures.wan_once), device(1, captures.lan)
