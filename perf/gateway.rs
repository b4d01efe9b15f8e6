//! The pure gateway under load: what the benches and the instruction counts share. Takes the forwarder and the packet
//! builder of the forwarding tests, so that what is measured is what is tested, and adds many clients and servers.
//!
//! Every packet is 60 bytes long, the shortest Ethernet frame without its FCS. Flows are numbered: a number names
//! the same client in every run. Every burst of a [`Load`] is full.

#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../tests/forwarding/lab.rs"]
mod lab;

#[path = "random.rs"]
mod random;

use std::net::Ipv4Addr;

use fullgate::balance::{ForwardingMode, LocalAddress, LocalAddressSlot, Protocol, RealServer, Timeouts};
use fullgate::forward::{Origin, Verdict};
use fullgate::port::memory::MemoryFrame;
use fullgate::port::{BURST_SIZE, Frame, MacAddress, PortId, WorkerId};
use fullgate::route::{RouteEntry, RouteNextHop};

use self::lab::{CLIENT_MAC, Gateway, LAN, LAN_MAC, LIP, PORTS, SERVER_MAC, Spec, VIP, WAN, WAN_MAC};
use self::random::Random;

/// Bytes of a packet.
pub const PACKET_LEN: usize = 60;
/// Real servers of the service: with its one local address, room for a million sessions.
const REAL_SERVERS: u32 = 16;
/// The clients' way: they are behind a router.
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
/// Seconds after which a session ends that only its first packet has come for, few enough that [`Rig::pass_tick`]
/// reaches a steady churn soon.
const NEW_TIMEOUT_SECONDS: u32 = 20;

/// A forwarder with one service, and verdicts to write to.
pub struct Rig {
    gateway: Gateway,
    protocol: Protocol,
    verdicts: [Verdict; BURST_SIZE],
}

impl Rig {
    /// A gateway with a service of this protocol in FULLNAT mode and room for so many sessions.
    pub fn new(protocol: Protocol, capacity: u32) -> Self {
        Self::in_mode(ForwardingMode::Fullnat, protocol, capacity)
    }

    /// The same in this mode.
    pub fn in_mode(mode: ForwardingMode, protocol: Protocol, capacity: u32) -> Self {
        let address = |n: u32| Ipv4Addr::from_bits(lab::SERVER.to_bits() + n);
        let server = |n| RealServer { mode, ..lab::server(n, address(n), 1) };
        let servers = (0..REAL_SERVERS).map(server).collect();
        let mut table = lab::table(vec![lab::service(protocol, servers)], PORTS);
        table.real_server_present = vec![true; REAL_SERVERS as usize];
        table.pools[0].ipv4 = vec![LocalAddress { slot: LocalAddressSlot(0), address: LIP.into() }];
        let soon = NEW_TIMEOUT_SECONDS;
        table.timeouts = Timeouts { udp: soon, tcp_syn_sent: soon, tcp_syn_recv: soon, ..Timeouts::default() };
        let mut neighbours = vec![(WAN, ROUTER, CLIENT_MAC)];
        neighbours.extend((0..REAL_SERVERS).map(|n| (LAN, address(n), SERVER_MAC)));
        let mut routes = lab::routes(&neighbours, 1500);
        let router = RouteNextHop { port: WAN, gateway: Some(ROUTER.into()), weight: 1 };
        let destination = Ipv4Addr::UNSPECIFIED;
        routes.routes.push(RouteEntry {
            destination: destination.into(),
            prefix_len: 0,
            metric: 0,
            next_hops: vec![router],
        });
        let mut gateway = Gateway::with(table.clone(), 1, WorkerId(0), capacity);
        gateway.adopt(table, &routes);
        Self { gateway, protocol, verdicts: [Verdict::Transmit(WAN); BURST_SIZE] }
    }

    /// Takes a burst through. The measured thing: nothing else happens in here.
    #[inline]
    pub fn process(&mut self, port: PortId, frames: &mut [MemoryFrame]) {
        self.gateway.forwarder.process(port, frames, Origin::Queue, self.gateway.now, &mut self.verdicts);
    }

    /// Lets a tenth of a second pass, and ends sessions whose time is over.
    pub fn pass_tick(&mut self) {
        self.gateway.now = fullgate::forward::Now::from_nanoseconds(self.gateway.now.nanoseconds + 100_000_000);
        while self.gateway.forwarder.expire(self.gateway.now).more {}
    }

    /// Panics unless the last burst had this verdict on each of its packets: a measurement of something else than
    /// was meant is worth nothing.
    pub fn expect(&self, verdict: Verdict) {
        assert_eq!(self.verdicts, [verdict; BURST_SIZE], "the case takes another way than it is meant to measure");
    }

    /// What the forwarding of each direction ends with.
    pub fn transmitted(inbound: bool) -> Verdict {
        Verdict::Transmit(if inbound { LAN } else { WAN })
    }

    /// Client packets of these flows: of an established connection if they are TCP.
    pub fn inbound(&self, flows: std::ops::Range<u32>) -> Load {
        Load::new(WAN, flows.map(|flow| self.client(flow, "A")))
    }

    /// The first packets of these flows.
    pub fn opening(&self, flows: std::ops::Range<u32>) -> Load {
        Load::new(WAN, flows.map(|flow| self.client(flow, "S")))
    }

    /// Sets these sessions up, TCP ones until they are established, and gives what their real servers send.
    pub fn open(&mut self, flows: std::ops::Range<u32>) -> Load {
        let mut replies = Vec::new();
        for flow in flows {
            let (verdict, out) = self.gateway.send(WAN, &self.client(flow, "S"));
            assert_eq!(verdict, Self::transmitted(true), "flow {flow} could not be opened");
            let seen = lab::see(&out);
            let reply = Spec {
                macs: (SERVER_MAC, LAN_MAC),
                source: seen.destination,
                destination: seen.source,
                ttl: 64,
                payload: &[0; 18],
            };
            if self.protocol == Protocol::Tcp {
                let (verdict, _) = self.gateway.send(LAN, &packet(self.protocol, reply, "SA"));
                assert_eq!(verdict, Self::transmitted(false), "flow {flow} got no answer");
                self.gateway.send(WAN, &self.client(flow, "A"));
            }
            replies.push(packet(self.protocol, reply, "A"));
        }
        Load::new(LAN, replies)
    }

    /// Packets to an address that is nobody's.
    pub fn astray(&self, flows: std::ops::Range<u32>) -> Load {
        let to = (Ipv4Addr::new(10, 9, 9, 9), 80);
        Load::new(WAN, flows.map(|flow| packet(self.protocol, Spec { destination: to, ..from(flow) }, "A")))
    }

    fn client(&self, flow: u32, flags: &str) -> [u8; PACKET_LEN] {
        packet(self.protocol, from(flow), flags)
    }
}

/// The packets of a case, over and over, a burst at a time.
pub struct Load {
    /// Where they come in.
    pub port: PortId,
    /// The burst as it stands; the gateway changes it.
    pub frames: Vec<MemoryFrame>,
    packets: Vec<[u8; PACKET_LEN]>,
    next: usize,
}

impl Load {
    fn new(port: PortId, packets: impl IntoIterator<Item = [u8; PACKET_LEN]>) -> Self {
        let mut packets: Vec<_> = packets.into_iter().collect();
        // So few flows as there are take turns.
        while !packets.len().is_multiple_of(BURST_SIZE) {
            packets.extend_from_within(..);
        }
        Self { port, frames: vec![MemoryFrame::new(&[0; PACKET_LEN]); BURST_SIZE], packets, next: 0 }
    }

    /// The same packets in a random order, always the same one.
    #[allow(dead_code, reason = "order is nothing to an instruction count")]
    pub fn shuffled(mut self) -> Self {
        let mut random = Random(1);
        for end in (1..self.packets.len()).rev() {
            self.packets.swap(end, random.below(end as u32 + 1) as usize);
        }
        self
    }

    /// Makes the frames the next burst.
    #[inline]
    pub fn receive(&mut self) {
        for (frame, packet) in self.frames.iter_mut().zip(&self.packets[self.next..]) {
            if frame.bytes().len() == PACKET_LEN {
                frame.bytes_mut().copy_from_slice(packet);
            } else {
                // A tunnel has put something around the last one.
                *frame = MemoryFrame::new(packet);
            }
        }
        self.next = (self.next + BURST_SIZE) % self.packets.len();
    }

    /// The MAC address of the port that these packets come in by.
    pub fn own_mac(&self) -> MacAddress {
        if self.port == WAN { WAN_MAC } else { LAN_MAC }
    }
}

/// A flow's packet from its client, in the range that RFC 2544 sets aside for benches.
fn from(flow: u32) -> Spec<'static> {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + (flow >> 14));
    let port = 1024 + u16::try_from(flow & 0x3fff).unwrap_or(0);
    Spec { macs: (CLIENT_MAC, WAN_MAC), source: (address, port), destination: (VIP, 80), ttl: 64, payload: &[0; 18] }
}

/// A packet's bytes; UDP has no flags.
fn packet(protocol: Protocol, spec: Spec<'_>, flags: &str) -> [u8; PACKET_LEN] {
    let bytes = match protocol {
        Protocol::Udp | Protocol::Icmp | Protocol::Any => spec.udp(),
        // Chunks end at four bytes: two of the frame pad it.
        Protocol::Sctp => [Spec { payload: &[0; 8], ..spec }.sctp(flags), vec![0; 2]].concat(),
        Protocol::Tcp => Spec { payload: &[0; 6], ..spec }.tcp(flags, 1, 1),
    };
    bytes.try_into().unwrap()
}
