//! A gateway in memory whose client and real server are of IPv4 or IPv6 as a test likes, and ICMP errors, whose bytes
//! come from etherparse.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use etherparse::{IpHeaders, Ipv4Header, Ipv6Header, PacketBuilder, SlicedPacket, TransportSlice, ip_number};
use fullgate::balance::{
    ForwardingMode, LocalAddress, LocalAddressSlot, Mark, MarkRule, Marks, MssClamp, Protocol, RealServer, Selector,
    Service, ServiceKey, ServiceTable, Sysctls, Tunnel, VirtualAddress, WideServices,
};
use fullgate::flow::HashSeed;
use fullgate::forward::{Forwarder, ForwarderConfig, Hop, Now, Origin, PortView, Steering, Verdict};
use fullgate::port::memory::MemoryFrame;
use fullgate::port::{BURST_SIZE, Frame, MacAddress, PortId, WorkerId};
use fullgate::route::{Neighbour, RouteEntry, RouteInput, RouteNextHop, RouteTable};
use fullgate::session::Capacity;
use fullgate::telemetry::counters::{SlotLimits, WorkerCounters};

use crate::lab::{self, CLIENT_MAC, LAN, LAN_MAC, PORTS, SERVER_MAC, WAN, WAN_MAC, sctp};

/// From whom, to whom, on the link.
pub type Macs = (MacAddress, MacAddress);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub fn header_len(self) -> usize {
        if self == Self::Ipv4 { 20 } else { 40 }
    }

    pub fn other(self) -> Self {
        if self == Self::Ipv4 { Self::Ipv6 } else { Self::Ipv4 }
    }

    /// 10.NET.0.HOST or 2001:db8:NET::HOST.
    pub fn address(self, net: u8, host: u8) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(10, net, 0, host).into(),
            Self::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, net.into(), 0, 0, 0, 0, host.into()).into(),
        }
    }
}

/// A packet that opens a session.
#[derive(Clone, Debug)]
pub struct Packet {
    pub protocol: Protocol,
    pub source: (IpAddr, u16),
    pub destination: (IpAddr, u16),
    pub payload: Vec<u8>,
}

impl Packet {
    pub fn frame(&self, macs: Macs, ttl: u8) -> Vec<u8> {
        if self.protocol == Protocol::Sctp {
            let init = sctp::chunk(sctp::INIT, &self.payload);
            return sctp::frame(macs, (self.source, self.destination), ttl, &init);
        }
        let ethernet = PacketBuilder::ethernet2(macs.0.0, macs.1.0);
        let step = match (self.source.0, self.destination.0) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => ethernet.ipv4(source.octets(), destination.octets(), ttl),
            (IpAddr::V6(source), IpAddr::V6(destination)) => ethernet.ipv6(source.octets(), destination.octets(), ttl),
            ends => panic!("{ends:?}"),
        };
        let mut bytes = Vec::new();
        match self.protocol {
            Protocol::Tcp => {
                step.tcp(self.source.1, self.destination.1, 7, 1000).syn().write(&mut bytes, &self.payload).unwrap();
            }
            Protocol::Udp | Protocol::Icmp | Protocol::Any => {
                step.udp(self.source.1, self.destination.1).write(&mut bytes, &self.payload).unwrap();
            }
            Protocol::Sctp => unreachable!("made above"),
        }
        bytes
    }

    pub fn packet(&self, ttl: u8) -> Vec<u8> {
        self.frame((CLIENT_MAC, CLIENT_MAC), ttl)[14..].to_vec()
    }

    /// The same, over IPv4 without DF.
    pub fn packet_that_may_be_fragmented(&self, ttl: u8) -> Vec<u8> {
        let mut packet = self.packet(ttl);
        if packet[0] >> 4 == 4 {
            packet[6] = 0;
            let header = Ipv4Header::from_slice(&packet).unwrap().0;
            packet[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
        }
        packet
    }
}

/// Source and destination of a frame; ports are 0 where it has none.
pub fn ends(frame: &[u8]) -> ((IpAddr, u16), (IpAddr, u16)) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let (source, destination): (IpAddr, IpAddr) = match sliced.net.unwrap() {
        etherparse::NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        etherparse::NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        other => panic!("{other:?}"),
    };
    match sliced.transport {
        Some(TransportSlice::Udp(udp)) => ((source, udp.source_port()), (destination, udp.destination_port())),
        Some(TransportSlice::Tcp(tcp)) => ((source, tcp.source_port()), (destination, tcp.destination_port())),
        _ => {
            let (from, to) = sctp::ports(frame).unwrap_or_default();
            ((source, from), (destination, to))
        }
    }
}

/// An ICMP or ICMPv6 error.
pub fn error(
    macs: Macs,
    ends: (IpAddr, IpAddr),
    ttl: u8,
    (kind, code, rest): (u8, u8, [u8; 4]),
    quote: &[u8],
) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(macs.0.0, macs.1.0);
    let mut bytes = Vec::new();
    let message = [&[kind, code, 0, 0], &rest[..], quote].concat();
    let len = message.len() as u16;
    let (headers, checksum) = match ends {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let header = Ipv4Header::new(len, ttl, ip_number::ICMP, from.octets(), to.octets()).unwrap();
            (IpHeaders::Ipv4(header, Default::default()), sum(&message))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header {
                payload_length: len,
                next_header: ip_number::IPV6_ICMP,
                hop_limit: ttl,
                source: from.octets(),
                destination: to.octets(),
                ..Ipv6Header::default()
            };
            let pseudo = [&from.octets()[..], &to.octets(), &u32::from(len).to_be_bytes(), &[0, 0, 0, 58]].concat();
            (IpHeaders::Ipv6(header, Default::default()), sum(&[pseudo, message.clone()].concat()))
        }
        other => panic!("{other:?}"),
    };
    let next = if ends.0.is_ipv4() { ip_number::ICMP } else { ip_number::IPV6_ICMP };
    let message = [&message[..2], &checksum[..], &message[4..]].concat();
    ethernet.ip(headers).write(&mut bytes, next, &message).unwrap();
    bytes
}

fn sum(bytes: &[u8]) -> [u8; 2] {
    use etherparse::checksum::u64_16bit_word::{add_slice, ones_complement};
    ones_complement(add_slice(0, bytes)).to_ne_bytes()
}

/// One worker of a gateway with one service of one real server.
pub struct Dual {
    pub mode: ForwardingMode,
    pub client: IpAddr,
    pub vip: IpAddr,
    pub lip: IpAddr,
    pub server: IpAddr,
    families: (Family, Family),
    protocol: Protocol,
    services: ServiceTable,
    forwarder: Forwarder,
    counters: Arc<[Arc<WorkerCounters>]>,
    worker: WorkerId,
    now: Now,
}

impl Dual {
    pub fn new(client: Family, server: Family, mode: ForwardingMode, protocol: Protocol) -> Self {
        Self::of_worker(client, server, mode, protocol, (1, WorkerId(0)), Steering::Software)
    }

    pub fn of_worker(
        client: Family,
        server: Family,
        mode: ForwardingMode,
        protocol: Protocol,
        (workers, worker): (u8, WorkerId),
        steering: Steering,
    ) -> Self {
        let limits = SlotLimits { real_servers: 16, local_addresses: 4 };
        let counters: Arc<[_]> = (0..workers).map(|_| Arc::new(WorkerCounters::new(limits))).collect();
        let view = |mac| PortView { mac, promiscuous: false, steering, mss_clamp: MssClamp::Off };
        let now = Now::from_nanoseconds(1_000_000_000);
        let ownership = fullgate::flow::ownership::Ownership::in_turn(workers);
        let config = ForwarderConfig {
            ownership,
            worker,
            workers,
            ports: vec![view(WAN_MAC), view(LAN_MAC)],
            session_capacity: Capacity { ipv4: 1000, ipv6: 1000 },
            seed: HashSeed([11, 12]),
            counters: Arc::clone(&counters),
        };
        let (vip, address) = (client.address(0, 100), server.address(1, 11));
        let mut dual = Self {
            mode,
            client: client.address(0, 2),
            vip,
            lip: server.address(1, 200),
            server: address,
            families: (client, server),
            protocol,
            services: services(protocol, mode, vip, address),
            forwarder: Forwarder::new(config, now).unwrap(),
            counters,
            worker,
            now,
        };
        dual.adopt(&routes(true));
        dual
    }

    pub fn with(mut self, tunnel: Tunnel) -> Self {
        self.services.tunnels = vec![tunnel];
        self.adopt(&routes(true));
        self
    }

    /// With a service that lowers MSS options to this.
    pub fn clamping(mut self, clamp: MssClamp) -> Self {
        self.services.mss_clamps = vec![clamp];
        self.adopt(&routes(true));
        self
    }

    /// With a service of these ports, whose real server has the one that clients ask for.
    pub fn wide(mut self, ports: &str) -> Self {
        let service = &mut self.services.services[0];
        service.key.ports = format!("10.0.0.1:{ports}").parse::<VirtualAddress>().unwrap().ports;
        service.real_servers[0].port = 0;
        self.services.by_key = [(service.key, 0)].into_iter().collect();
        self.services.wide = WideServices::of(&self.services.services);
        self.adopt(&routes(true));
        self
    }

    /// With a service of a mark, which what enters by `wan` gets; its real server has the port that clients ask for.
    pub fn marked(mut self, mark: Mark) -> Self {
        let service = &mut self.services.services[0];
        let is_ipv6 = service.key.address.is_ipv6();
        service.key = ServiceKey::new(Protocol::Any, VirtualAddress::marked(mark, is_ipv6));
        service.real_servers[0].port = 0;
        self.services.by_key = [(service.key, 0)].into_iter().collect();
        self.services.virtual_addresses.clear();
        let rule = MarkRule { selector: Selector { port: Some(WAN), ..Selector::default() }, mark };
        self.services.marks = Marks::of(vec![rule], &self.services.services);
        self.adopt(&routes(true));
        self
    }

    /// With these sysctls.
    #[allow(dead_code, reason = "not every test has others")]
    pub fn set(mut self, sysctls: Sysctls) -> Self {
        self.services.sysctls = sysctls;
        self.adopt(&routes(true));
        self
    }

    /// What the worker does between bursts against a flood, the first turn of a tick.
    #[allow(dead_code, reason = "not every test has a flood")]
    pub fn defend(&mut self, created: u64) {
        self.forwarder.begin_defence();
        self.forwarder.drop_entries(created, self.now);
    }

    fn adopt(&mut self, input: &RouteInput) {
        self.forwarder.adopt(Arc::new(self.services.clone()), Arc::new(RouteTable::new(input, None)));
    }

    pub fn forget_neighbours(&mut self) {
        self.adopt(&routes(false));
    }

    pub fn set_mtu(&mut self, mtu: u16) {
        let mut input = routes(true);
        input.interfaces.iter_mut().for_each(|interface| interface.mtu = mtu);
        self.adopt(&input);
    }

    pub fn remove_real_server(&mut self) {
        self.services.real_server_present[0] = false;
        self.adopt(&routes(true));
    }

    pub fn counters(&self) -> &WorkerCounters {
        &self.counters[self.worker.index()]
    }

    /// What the client sends.
    pub fn question(&self, payload: &[u8]) -> Packet {
        Packet {
            protocol: self.protocol,
            source: (self.client, 40_000),
            destination: (self.vip, 80),
            payload: payload.into(),
        }
    }

    /// A router on this side.
    pub fn router(&self, port: PortId) -> IpAddr {
        let (client, server) = self.families;
        if port == WAN { client.address(0, 77) } else { server.address(1, 77) }
    }

    pub fn send(&mut self, port: PortId, packet: &[u8]) -> (Verdict, Vec<u8>) {
        self.send_from(port, packet, Origin::Queue)
    }

    pub fn send_from(&mut self, port: PortId, packet: &[u8], origin: Origin) -> (Verdict, Vec<u8>) {
        let mut frames = [MemoryFrame::new(packet)];
        let mut verdicts = [Verdict::Transmit(PortId(99)); BURST_SIZE];
        self.forwarder.process(port, &mut frames, origin, self.now, &mut verdicts);
        (verdicts[0], frames[0].bytes().to_vec())
    }

    pub fn pass_seconds(&mut self, seconds: u64) {
        self.now = Now::from_nanoseconds(self.now.nanoseconds + seconds * 1_000_000_000);
        while self.forwarder.expire(self.now).more {}
    }
}

fn services(protocol: Protocol, mode: ForwardingMode, vip: IpAddr, address: IpAddr) -> ServiceTable {
    let port = if mode.is_one_way() { 80 } else { 8080 };
    let server = RealServer { mode, port, address, ..lab::server(0, lab::SERVER, 1) };
    let is_nat = mode == ForwardingMode::Nat;
    let service = Service {
        key: ServiceKey::new(protocol, SocketAddr::new(vip, 80).into()),
        owned_by_client: is_nat,
        ..lab::service(protocol, vec![server])
    };
    let mut table = lab::table(vec![service], PORTS);
    let lip = Family::Ipv6.address(1, 200);
    table.pools[0].ipv6 = vec![LocalAddress { slot: LocalAddressSlot(1), address: lip }];
    table.local_addresses.insert(lip, LocalAddressSlot(1));
    ServiceTable { has_nat: is_nat, tunnels: vec![Tunnel::default()], ..table }
}

/// Both families on both links.
fn routes(with_neighbours: bool) -> RouteInput {
    let mut input = lab::routes(if with_neighbours { &lab::NEIGHBOURS } else { &[] }, 1500);
    for (port, net, mac, host) in [(WAN, 0, CLIENT_MAC, 2), (LAN, 1, SERVER_MAC, 11)] {
        input.routes.push(RouteEntry {
            destination: Family::Ipv6.address(net, 0),
            prefix_len: 64,
            metric: 0,
            next_hops: vec![RouteNextHop { port, gateway: None, weight: 1 }],
        });
        if with_neighbours {
            input.neighbours.push(Neighbour { hop: Hop { port, address: Family::Ipv6.address(net, host) }, mac });
        }
        let IpAddr::V6(own) = Family::Ipv6.address(net, 1) else { panic!("of IPv6") };
        input.interfaces[port.index()].ipv6_address = Some(own);
        input.local.extend([own.into(), Family::Ipv4.address(net, 1)]);
    }
    input.local.extend([Family::Ipv6.address(0, 100), Family::Ipv6.address(1, 200)]);
    input
}
