//! A gateway in memory: one worker's forwarder between a `wan` and a `lan` port, and packets whose bytes and checksums
//! come from etherparse, never from the code under test.

#[allow(dead_code, reason = "not every test has to do with SCTP")]
pub mod sctp;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use etherparse::{Ethernet2Slice, Ipv4HeaderSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice};
use fullgate::balance::scheduler::Candidate;
use fullgate::balance::{
    ForwardingMode, LocalAddress, LocalAddressSlot, LocalPool, MssClamp, PortRange, Protocol, RealServer,
    RealServerSlot, Scheduler, SchedulerFlags, SchedulerKind, SchedulerSettings, Service, ServiceKey, ServiceTable,
    Weight, WideServices,
};
use fullgate::flow::HashSeed;
use fullgate::flow::ownership::Ownership;
use fullgate::forward::{Forwarder, ForwarderConfig, Hop, Now, Origin, PortView, Steering, Verdict};
use fullgate::port::memory::MemoryFrame;
use fullgate::port::{BURST_SIZE, Frame, MacAddress, PortId, WorkerId};
use fullgate::route::{Interface, Neighbour, RouteEntry, RouteInput, RouteNextHop, RouteTable};
use fullgate::session::{Capacity, SessionView};
use fullgate::telemetry::counters::{SlotLimits, WorkerCounters};

pub const WAN: PortId = PortId(0);
pub const LAN: PortId = PortId(1);
pub const WAN_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
pub const LAN_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
pub const CLIENT_MAC: MacAddress = MacAddress([2, 0, 0, 0, 1, 1]);
pub const SERVER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 2, 1]);
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
pub const LIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 200);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);
pub const PORTS: PortRange = PortRange { first: 1024, last: 65_535 };

pub fn service(protocol: Protocol, servers: Vec<RealServer>) -> Service {
    Service {
        key: ServiceKey::new(protocol, SocketAddr::new(VIP.into(), 80).into()),
        scheduler: scheduler(SchedulerKind::Rr, SchedulerFlags::default(), &servers),
        persistence: None,
        one_packet: false,
        max_connections: 0,
        pool: Some(0),
        owned_by_client: false,
        cursor: protocol as usize,
        real_servers: servers,
    }
}

/// A scheduler of these real servers, with everything as it is where nothing is said.
pub fn scheduler(kind: SchedulerKind, flags: SchedulerFlags, servers: &[RealServer]) -> Scheduler {
    let candidates: Vec<_> = servers.iter().map(Candidate::from).collect();
    Scheduler::new(kind, flags, &SchedulerSettings::default(), &candidates)
}

pub fn server(slot: u32, address: Ipv4Addr, weight: u32) -> RealServer {
    RealServer {
        slot: RealServerSlot(slot),
        address: address.into(),
        port: 8080,
        mode: ForwardingMode::Fullnat,
        weight: Weight(weight),
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

pub fn table(services: Vec<Service>, ports: PortRange) -> ServiceTable {
    let lip = LocalAddress { slot: LocalAddressSlot(0), address: LIP.into() };
    ServiceTable {
        generation: 1,
        by_key: services.iter().enumerate().map(|(index, service)| (service.key, index)).collect(),
        wide: WideServices::of(&services),
        virtual_addresses: services.iter().map(|service| service.key.address).collect(),
        services,
        cursor_count: 32,
        real_server_present: vec![true; 8],
        pools: vec![LocalPool { name: "lan".into(), port: LAN, ports, ipv4: vec![lip], ipv6: vec![] }],
        local_addresses: [(LIP.into(), LocalAddressSlot(0))].into_iter().collect(),
        local_address_ports: vec![LAN],
        ..ServiceTable::default()
    }
}

/// Two subnets on link, a default route out of `wan`, and the neighbours that are given.
pub fn routes(neighbours: &[(PortId, Ipv4Addr, MacAddress)], mtu: u16) -> RouteInput {
    let on_link = |port, destination: Ipv4Addr| RouteEntry {
        destination: destination.into(),
        prefix_len: 24,
        metric: 0,
        next_hops: vec![RouteNextHop { port, gateway: None, weight: 1 }],
    };
    let interface = |port, mac, address| Interface { port, mac, mtu, address: Some(address), ipv6_address: None };
    RouteInput {
        routes: vec![on_link(WAN, Ipv4Addr::new(10, 0, 0, 0)), on_link(LAN, Ipv4Addr::new(10, 1, 0, 0))],
        local: [VIP, LIP, Ipv4Addr::new(10, 0, 0, 1)].map(Into::into).into(),
        broadcast: vec![Ipv4Addr::new(10, 0, 0, 255)],
        neighbours: neighbours
            .iter()
            .map(|&(port, address, mac)| Neighbour { hop: Hop { port, address: address.into() }, mac })
            .collect(),
        interfaces: vec![
            interface(WAN, WAN_MAC, Ipv4Addr::new(10, 0, 0, 1)),
            interface(LAN, LAN_MAC, Ipv4Addr::new(10, 1, 0, 1)),
        ],
    }
}

pub const NEIGHBOURS: [(PortId, Ipv4Addr, MacAddress); 2] = [(WAN, CLIENT, CLIENT_MAC), (LAN, SERVER, SERVER_MAC)];

fn counters(workers: u8) -> Arc<[Arc<WorkerCounters>]> {
    let limits = SlotLimits { real_servers: 16, local_addresses: 4 };
    (0..workers).map(|_| Arc::new(WorkerCounters::new(limits))).collect()
}

/// Ports that lower no MSS option.
const UNCLAMPED: [MssClamp; 2] = [MssClamp::Off; 2];

pub struct Gateway {
    pub forwarder: Forwarder,
    pub counters: Arc<[Arc<WorkerCounters>]>,
    pub now: Now,
}

impl Gateway {
    pub fn new(services: ServiceTable) -> Self {
        Self::with(services, 1, WorkerId(0), 1000)
    }

    pub fn with(services: ServiceTable, workers: u8, worker: WorkerId, session_capacity: u32) -> Self {
        Self::built((Ownership::in_turn(workers), Steering::Software), services, workers, worker, session_capacity)
    }

    /// With ports that lower MSS options to this.
    pub fn clamping(clamps: [MssClamp; 2], services: ServiceTable) -> Self {
        let ownership = (Ownership::in_turn(1), Steering::Software);
        Self::counting((ownership, clamps), Arc::new(services), counters(1), WorkerId(0), 1000)
    }

    pub fn owning(
        ownership: Ownership,
        services: ServiceTable,
        workers: u8,
        worker: WorkerId,
        session_capacity: u32,
    ) -> Self {
        Self::built((ownership, Steering::Software), services, workers, worker, session_capacity)
    }

    pub fn built(
        steered: (Ownership, Steering),
        services: ServiceTable,
        workers: u8,
        worker: WorkerId,
        session_capacity: u32,
    ) -> Self {
        Self::counting((steered, UNCLAMPED), Arc::new(services), counters(workers), worker, session_capacity)
    }

    /// All workers of a gateway, with one table.
    #[allow(dead_code, reason = "not every test has several workers")]
    pub fn workers(services: ServiceTable, workers: u8, session_capacity: u32) -> Vec<Self> {
        let (services, counters) = (Arc::new(services), counters(workers));
        let worker = |worker| {
            let ownership = (Ownership::in_turn(workers), Steering::Rss);
            Self::counting(
                (ownership, UNCLAMPED),
                services.clone(),
                counters.clone(),
                WorkerId(worker),
                session_capacity,
            )
        };
        (0..workers).map(worker).collect()
    }

    fn counting(
        ((ownership, steering), clamps): ((Ownership, Steering), [MssClamp; 2]),
        services: Arc<ServiceTable>,
        counters: Arc<[Arc<WorkerCounters>]>,
        worker: WorkerId,
        session_capacity: u32,
    ) -> Self {
        let workers = u8::try_from(counters.len()).unwrap();
        let view = |mac, mss_clamp| PortView { mac, promiscuous: false, steering, mss_clamp };
        let now = Now::from_nanoseconds(1_000_000_000);
        let config = ForwarderConfig {
            worker,
            workers,
            ports: vec![view(WAN_MAC, clamps[0]), view(LAN_MAC, clamps[1])],
            session_capacity: Capacity { ipv4: session_capacity, ipv6: session_capacity },
            ownership,
            seed: HashSeed([11, 12]),
            counters: Arc::clone(&counters),
        };
        let mut gateway = Self { forwarder: Forwarder::new(config, now).unwrap(), counters, now };
        let routes = RouteTable::new(&routes(&NEIGHBOURS, 1500), None);
        gateway.forwarder.adopt(services, Arc::new(routes));
        gateway
    }

    pub fn adopt(&mut self, services: ServiceTable, input: &RouteInput) {
        self.forwarder.adopt(Arc::new(services), Arc::new(RouteTable::new(input, None)));
    }

    /// Sends one packet in and gives the verdict and the bytes as they are then.
    pub fn send(&mut self, port: PortId, packet: &[u8]) -> (Verdict, Vec<u8>) {
        self.send_burst(port, &[packet.to_vec()]).remove(0)
    }

    /// The same for one that reached this worker so.
    pub fn send_as(&mut self, port: PortId, packet: &[u8], origin: Origin) -> (Verdict, Vec<u8>) {
        let mut frames = [MemoryFrame::new(packet)];
        let mut verdicts = [Verdict::Transmit(PortId(99)); BURST_SIZE];
        self.forwarder.process(port, &mut frames, origin, self.now, &mut verdicts);
        (verdicts[0], frames[0].bytes().to_vec())
    }

    /// The same with only the first `first` bytes in the packet's first buffer; what it is then, put together.
    pub fn send_scattered(&mut self, port: PortId, packet: &[u8], first: usize) -> (Verdict, Vec<u8>) {
        let mut frames = [MemoryFrame::scattered(packet, first)];
        let mut verdicts = [Verdict::Transmit(PortId(99)); BURST_SIZE];
        self.forwarder.process(port, &mut frames, Origin::Queue, self.now, &mut verdicts);
        let mut whole = Vec::new();
        frames[0].copy_to(&mut whole);
        assert_eq!(whole.len(), frames[0].packet_len());
        (verdicts[0], whole)
    }

    pub fn send_burst(&mut self, port: PortId, packets: &[Vec<u8>]) -> Vec<(Verdict, Vec<u8>)> {
        let mut frames: Vec<_> = packets.iter().map(|packet| MemoryFrame::new(packet)).collect();
        let mut verdicts = [Verdict::Transmit(PortId(99)); BURST_SIZE];
        self.forwarder.process(port, &mut frames, Origin::Queue, self.now, &mut verdicts);
        frames.iter().zip(verdicts).map(|(frame, verdict)| (verdict, frame.bytes().to_vec())).collect()
    }

    /// The worker's sessions.
    #[allow(dead_code, reason = "not every test looks at them")]
    pub fn sessions(&self) -> Vec<SessionView> {
        let mut views = Vec::with_capacity(100_000);
        let mut from = Some(0);
        while let Some(next) = from {
            from = self.forwarder.walk_sessions(next, 10_000, self.now, &mut views);
        }
        views
    }

    pub fn pass_seconds(&mut self, seconds: u64) {
        self.now = Now::from_nanoseconds(self.now.nanoseconds + seconds * 1_000_000_000);
        while self.forwarder.expire(self.now).more {}
        self.forwarder.sweep_templates(1000, self.now);
    }
}

/// A packet to build: who to whom, with what.
#[derive(Clone, Copy)]
pub struct Spec<'a> {
    pub macs: (MacAddress, MacAddress),
    pub source: (Ipv4Addr, u16),
    pub destination: (Ipv4Addr, u16),
    pub ttl: u8,
    pub payload: &'a [u8],
}

pub fn from_client(payload: &[u8]) -> Spec<'_> {
    Spec { macs: (CLIENT_MAC, WAN_MAC), source: (CLIENT, 40_000), destination: (VIP, 80), ttl: 64, payload }
}

impl Spec<'_> {
    fn start(&self) -> PacketBuilderStep<etherparse::IpHeaders> {
        PacketBuilder::ethernet2(self.macs.0.0, self.macs.1.0).ipv4(
            self.source.0.octets(),
            self.destination.0.octets(),
            self.ttl,
        )
    }

    pub fn udp(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.start().udp(self.source.1, self.destination.1).write(&mut bytes, self.payload).unwrap();
        bytes
    }

    /// What TCP does with these flags.
    #[allow(dead_code, reason = "not every test has to do with SCTP")]
    pub fn sctp(&self, flags: &str) -> Vec<u8> {
        let end = |(address, port): (Ipv4Addr, u16)| (address.into(), port);
        let ends = (end(self.source), end(self.destination));
        sctp::frame(self.macs, ends, self.ttl, &sctp::like_tcp(flags, self.payload))
    }

    /// `flags` as letters: S A F R.
    pub fn tcp(&self, flags: &str, sequence: u32, acknowledgement: u32) -> Vec<u8> {
        let mut step = self.start().tcp(self.source.1, self.destination.1, sequence, 1000);
        for flag in flags.chars() {
            step = match flag {
                'S' => step.syn(),
                'A' => step.ack(acknowledgement),
                'F' => step.fin(),
                'R' => step.rst(),
                other => unreachable!("flag {other}"),
            };
        }
        let mut bytes = Vec::new();
        step.write(&mut bytes, self.payload).unwrap();
        bytes
    }
}

/// What an independent reader finds in a frame; panics where a checksum is wrong.
pub struct Seen {
    pub macs: ([u8; 6], [u8; 6]),
    pub source: (Ipv4Addr, u16),
    pub destination: (Ipv4Addr, u16),
    pub ttl: u8,
    pub payload: Vec<u8>,
}

pub fn see(frame: &[u8]) -> Seen {
    let ethernet = Ethernet2Slice::from_slice_without_fcs(frame).unwrap();
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let header = Ipv4HeaderSlice::from_slice(&frame[14..]).unwrap().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 checksum");
    let (ports, payload) = match sliced.transport {
        None => (sctp::ports(frame).expect("TCP, UDP or SCTP"), frame[46..].to_vec()),
        Some(TransportSlice::Udp(udp)) => {
            let computed = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap();
            assert!(udp.checksum() == computed || udp.checksum() == 0, "UDP checksum");
            ((udp.source_port(), udp.destination_port()), udp.payload().to_vec())
        }
        Some(TransportSlice::Tcp(tcp)) => {
            let computed = tcp.to_header().calc_checksum_ipv4(&header, tcp.payload()).unwrap();
            assert_eq!(tcp.checksum(), computed, "TCP checksum");
            ((tcp.source_port(), tcp.destination_port()), tcp.payload().to_vec())
        }
        other => panic!("neither UDP nor TCP: {other:?}"),
    };
    Seen {
        macs: (ethernet.source(), ethernet.destination()),
        source: (header.source.into(), ports.0),
        destination: (header.destination.into(), ports.1),
        ttl: header.time_to_live,
        payload,
    }
}
