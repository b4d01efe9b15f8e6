//! Fragments, packets in, packets out, without DPDK: in every forwarding mode, over IPv4, IPv6 and between them. What is expected is
//! the whole datagram, made by etherparse, as its receiver puts it together.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "forwarding/lab.rs"]
#[allow(dead_code, reason = "not every test looks at everything")]
mod lab;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use etherparse::{Ipv4Header, PacketBuilder};
use fullgate::balance::{
    ForwardingMode, LocalAddress, LocalAddressSlot, Protocol, RealServer, ServiceKey, ServiceTable, Tunnel,
};
use fullgate::flow::ownership::Ownership;
use fullgate::forward::early::{CAPACITY, Early};
use fullgate::forward::{DropReason, Hop, Origin, Steering, Verdict, cut};
use fullgate::port::memory::MemoryFrame;
use fullgate::port::{BURST_SIZE, Frame, MacAddress, PortId, WorkerId};
use fullgate::route::{Neighbour, RouteEntry, RouteInput, RouteNextHop};
use lab::{
    CLIENT_MAC, Gateway, LAN, LAN_MAC, NEIGHBOURS, PORTS, SERVER_MAC, WAN, WAN_MAC, routes, sctp, server, service,
    table,
};
use proptest::prelude::*;

const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
const LIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x200);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x11);

/// The families of client and real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Families {
    client6: bool,
    server6: bool,
}

const IPV4: Families = Families { client6: false, server6: false };
const IPV6: Families = Families { client6: true, server6: true };
const SIX_TO_FOUR: Families = Families { client6: true, server6: false };
const FOUR_TO_SIX: Families = Families { client6: false, server6: true };

impl Families {
    fn client(self) -> IpAddr {
        if self.client6 { CLIENT6.into() } else { lab::CLIENT.into() }
    }

    fn vip(self) -> IpAddr {
        if self.client6 { VIP6.into() } else { lab::VIP.into() }
    }

    fn server(self) -> IpAddr {
        if self.server6 { SERVER6.into() } else { lab::SERVER.into() }
    }

    fn lip(self) -> IpAddr {
        if self.server6 { LIP6.into() } else { lab::LIP.into() }
    }
}

fn services(protocol: Protocol, mode: ForwardingMode, families: Families) -> ServiceTable {
    let port = if mode.is_one_way() { 80 } else { 8080 };
    let real = RealServer { mode, port, address: families.server(), ..server(0, lab::SERVER, 1) };
    let mut service = service(protocol, vec![real]);
    service.key = ServiceKey { address: families.vip(), ..service.key };
    service.owned_by_client = mode == ForwardingMode::Nat;
    let mut table = table(vec![service], PORTS);
    let lip6 = LocalAddress { slot: LocalAddressSlot(1), address: LIP6.into() };
    table.pools[0].ipv6.push(lip6);
    table.local_addresses.insert(LIP6.into(), LocalAddressSlot(1));
    ServiceTable { has_nat: mode == ForwardingMode::Nat, tunnels: vec![Tunnel::default()], ..table }
}

/// Both families on both links.
fn both_routes(mtu: u16) -> RouteInput {
    let mut input = routes(&NEIGHBOURS, mtu);
    let on_link = |port, destination: &str| RouteEntry {
        destination: destination.parse().unwrap(),
        prefix_len: 64,
        metric: 0,
        next_hops: vec![RouteNextHop { port, gateway: None, weight: 1 }],
    };
    input.routes.extend([on_link(WAN, "2001:db8::"), on_link(LAN, "2001:db8:1::")]);
    input.local.extend([IpAddr::V6(VIP6), IpAddr::V6(LIP6)]);
    let neighbour = |port, address: Ipv6Addr, mac| Neighbour { hop: Hop { port, address: address.into() }, mac };
    input.neighbours.extend([neighbour(WAN, CLIENT6, CLIENT_MAC), neighbour(LAN, SERVER6, SERVER_MAC)]);
    input.interfaces[1].ipv6_address = Some("2001:db8:1::1".parse().unwrap());
    input.interfaces[0].ipv6_address = Some("2001:db8::1".parse().unwrap());
    input
}

/// Workers with what belongs around their forwarders: early fragments wait, packets are cut, and what is handed over arrives.
struct Gateways {
    workers: Vec<(Gateway, Early<MemoryFrame>)>,
    /// What was sent, by which port.
    sent: Vec<(PortId, Vec<u8>)>,
    drops: Vec<DropReason>,
    hand_overs: usize,
}

impl Gateways {
    fn new(services: &ServiceTable, workers: u8, mtu: u16) -> Self {
        Self::with_steering(services, workers, mtu, Steering::Software)
    }

    fn with_steering(services: &ServiceTable, workers: u8, mtu: u16, steering: Steering) -> Self {
        let worker = |worker| {
            let mut gateway = Gateway::built(
                (Ownership::in_turn(workers), steering),
                services.clone(),
                workers,
                WorkerId(worker),
                1000,
            );
            gateway.adopt(services.clone(), &both_routes(mtu));
            (gateway, Early::default())
        };
        Self { workers: (0..workers).map(worker).collect(), sent: Vec::new(), drops: Vec::new(), hand_overs: 0 }
    }

    /// Has a worker receive a burst.
    fn receive(&mut self, worker: usize, port: PortId, packets: &[Vec<u8>]) {
        for burst in packets.chunks(BURST_SIZE) {
            let frames = burst.iter().map(|packet| MemoryFrame::new(packet)).collect();
            self.process(worker, port, frames, Origin::Queue, 0);
        }
    }

    fn process(&mut self, worker: usize, port: PortId, mut frames: Vec<MemoryFrame>, origin: Origin, handed: usize) {
        let mut verdicts = [Verdict::Transmit(PortId(99)); BURST_SIZE];
        let (gateway, early) = &mut self.workers[worker];
        gateway.forwarder.process(port, &mut frames, origin, gateway.now, &mut verdicts);
        let (mut over, mut again) = (Vec::new(), Vec::new());
        for (frame, verdict) in frames.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Transmit(out) => self.sent.push((out, frame.bytes().to_vec())),
                Verdict::HandOver(owner) => over.push((owner, frame)),
                Verdict::AwaitFragment(tag) => {
                    let gone = early.push(tag, port, frame, gateway.now.tick);
                    self.drops.extend(gone.map(|_| DropReason::FragmentQueueFull));
                }
                Verdict::Cut(mtu) => cut::cut(&frame, mtu, |piece| again.push(piece)).unwrap(),
                Verdict::Drop(reason) => self.drops.push(reason),
                other => panic!("{other:?}"),
            }
        }
        for tag in gateway.forwarder.arrived() {
            early.release(tag, |_, frame| again.push(frame));
        }
        while !again.is_empty() {
            let burst = again.drain(..again.len().min(BURST_SIZE)).collect();
            self.process(worker, port, burst, Origin::HandedOver, handed);
        }
        for (owner, frame) in over {
            assert!(handed < 2, "no packet goes round");
            self.hand_overs += 1;
            self.process(owner.index(), port, vec![frame], Origin::HandedOver, handed + 1);
        }
    }

    /// Opens a session of SCTP, which a fragment never does.
    fn open_association(&mut self, families: Families) {
        let ends = ((families.client(), 40_000), (families.vip(), 80));
        let init = sctp::frame((CLIENT_MAC, WAN_MAC), ends, 64, &sctp::chunk(sctp::INIT, &[0; 16]));
        self.receive(0, WAN, &[init]);
        assert_eq!(self.take_sent().len(), 1);
    }

    fn waiting(&self) -> usize {
        self.workers.iter().map(|(_, early)| early.len()).sum()
    }

    fn pass_seconds(&mut self, seconds: u64) {
        for (gateway, early) in &mut self.workers {
            gateway.pass_seconds(seconds);
            while early.expire(7, gateway.now.tick, |_| self.drops.push(DropReason::FragmentTimeout)) {}
        }
    }

    fn take_sent(&mut self) -> Vec<(PortId, Vec<u8>)> {
        std::mem::take(&mut self.sent)
    }
}

/// A whole datagram in one frame, however long it is.
fn whole(
    macs: (MacAddress, MacAddress),
    (source, destination): ((IpAddr, u16), (IpAddr, u16)),
    protocol: Protocol,
    payload: &[u8],
) -> Vec<u8> {
    let step = PacketBuilder::ethernet2(macs.0.0, macs.1.0);
    let step = match (source.0, destination.0) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header =
                Ipv4Header::new(0, 64, etherparse::ip_number::UDP, source.octets(), destination.octets()).unwrap();
            (header.dont_fragment, header.identification) = (false, 0x1234);
            step.ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => step.ipv6(source.octets(), destination.octets(), 64),
        other => panic!("{other:?}"),
    };
    let mut bytes = Vec::new();
    match protocol {
        Protocol::Udp | Protocol::Icmp | Protocol::Any => {
            step.udp(source.1, destination.1).write(&mut bytes, payload).unwrap()
        }
        Protocol::Tcp => step.tcp(source.1, destination.1, 7, 1000).syn().write(&mut bytes, payload).unwrap(),
        Protocol::Sctp => {
            let segment = sctp::segment((source.1, destination.1), &sctp::chunk(sctp::DATA, payload));
            step.write(&mut bytes, etherparse::IpNumber(132), &segment).unwrap();
        }
    }
    bytes
}

fn headers_of(frame: &[u8]) -> usize {
    14 + if frame[12] == 8 { 20 } else { 40 }
}

/// A fragment of a whole datagram: what stands in it from `start` to `end`.
fn piece(frame: &[u8], identification: u16, (start, end): (usize, usize)) -> Vec<u8> {
    let front = headers_of(frame);
    let data = &frame[front..];
    piece_of(frame, identification, start, &data[start..end], end < data.len())
}

/// A fragment with this content.
fn piece_of(frame: &[u8], identification: u16, start: usize, data: &[u8], more: bool) -> Vec<u8> {
    let mut out = frame[..headers_of(frame)].to_vec();
    let id = identification.to_be_bytes();
    if frame[12] == 8 {
        let mut header = Ipv4Header::from_slice(&frame[14..]).unwrap().0;
        header.total_len = 20 + data.len() as u16;
        header.identification = identification;
        header.dont_fragment = false;
        header.more_fragments = more;
        header.fragment_offset = (start as u16 / 8).try_into().unwrap();
        header.header_checksum = header.calc_header_checksum();
        out.truncate(14);
        header.write(&mut out).unwrap();
    } else {
        out[18..20].copy_from_slice(&(8 + data.len() as u16).to_be_bytes());
        let next = std::mem::replace(&mut out[20], 44);
        let [high, low] = (start as u16 | u16::from(more)).to_be_bytes();
        out.extend_from_slice(&[next, 0, high, low, 0, 0, id[0], id[1]]);
    }
    out.extend_from_slice(data);
    out
}

/// All fragments of so many bytes of data each.
fn split(frame: &[u8], identification: u16, size: usize) -> Vec<Vec<u8>> {
    let len = frame.len() - headers_of(frame);
    let cuts = (0..len).step_by(size);
    cuts.map(|start| piece(frame, identification, (start, len.min(start + size)))).collect()
}

/// What the receiver puts together: the datagram as if it had been sent whole. Panics where the pieces do not make one.
fn join(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut parts: Vec<(usize, bool, &[u8])> = pieces.iter().map(|piece| place(piece)).collect();
    parts.sort_unstable_by_key(|part| part.0);
    parts.dedup();
    let mut data = Vec::new();
    for (start, _, part) in &parts {
        assert_eq!(*start, data.len(), "a gap, or an overlap");
        data.extend_from_slice(part);
    }
    assert!(parts[..parts.len() - 1].iter().all(|part| part.1) && !parts.last().unwrap().1, "exactly one is the last");
    assert!(pieces.iter().all(|piece| piece[..14] == pieces[0][..14]), "all go to the same");
    let mut out = pieces[0][..headers_of(&pieces[0])].to_vec();
    if out[12] == 8 {
        let mut header = Ipv4Header::from_slice(&out[14..]).unwrap().0;
        header.total_len = (20 + data.len()) as u16;
        header.identification = 0x1234;
        (header.more_fragments, header.fragment_offset) = (false, Default::default());
        header.header_checksum = header.calc_header_checksum();
        out.truncate(14);
        header.write(&mut out).unwrap();
    } else {
        out[18..20].copy_from_slice(&(data.len() as u16).to_be_bytes());
        out[20] = pieces[0][54];
    }
    [out, data].concat()
}

/// Where a fragment stands, whether more follow, and what it has; its IPv4 checksum is looked at.
fn place(frame: &[u8]) -> (usize, bool, &[u8]) {
    if frame[12] == 8 {
        let header = Ipv4Header::from_slice(&frame[14..]).unwrap().0;
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        let end = 14 + usize::from(header.total_len);
        return (usize::from(header.fragment_offset.value()) * 8, header.more_fragments, &frame[34..end]);
    }
    assert_eq!(frame[20], 44, "a fragment header");
    let field = u16::from_be_bytes([frame[56], frame[57]]);
    let end = 54 + usize::from(u16::from_be_bytes([frame[18], frame[19]]));
    (usize::from(field & 0xfff8), field & 1 != 0, &frame[62..end])
}

fn from_client(families: Families, protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    let ends = ((families.client(), 40_000), (families.vip(), 80));
    whole((CLIENT_MAC, WAN_MAC), ends, protocol, payload)
}

/// A datagram, TTL lowered, as the real server gets it from `source` to `destination`.
fn at_server(source: (IpAddr, u16), destination: (IpAddr, u16), protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    lower_ttl(whole((LAN_MAC, SERVER_MAC), (source, destination), protocol, payload))
}

fn lower_ttl(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12] == 8 {
        frame[22] -= 1;
        let header = Ipv4Header::from_slice(&frame[14..]).unwrap().0;
        frame[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    } else {
        frame[21] -= 1;
    }
    frame
}

/// The source's port in a whole datagram.
fn source_port(frame: &[u8]) -> u16 {
    let at = headers_of(frame);
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 253) as u8).collect()
}

fn shuffled<T>(mut items: Vec<T>, mut seed: u64) -> Vec<T> {
    for index in (1..items.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(index, (seed >> 33) as usize % (index + 1));
    }
    items
}

/// The frames without the tunnel around them.
fn unwrapped(sent: Vec<(PortId, Vec<u8>)>, families: Families) -> Vec<Vec<u8>> {
    let outer = if families.server6 { 40 } else { 20 };
    let strip = |frame: Vec<u8>| {
        let protocol = if families.server6 { frame[20] } else { frame[23] };
        assert_eq!(protocol, if families.client6 { 41 } else { 4 });
        let ethertype: [u8; 2] = if families.client6 { [0x86, 0xdd] } else { [8, 0] };
        [&frame[..12], &ethertype, &frame[14 + outer..]].concat()
    };
    sent.into_iter().map(|(_, frame)| strip(frame)).collect()
}

/// Sends a datagram there and one back in fragments, and looks at what arrives.
fn exchange(mode: ForwardingMode, families: Families, protocol: Protocol, workers: u8, seed: u64) {
    let case = format!("{mode:?} {families:?} {protocol} {workers} workers, seed {seed}");
    let mut gateways = Gateways::new(&services(protocol, mode, families), workers, 1500);
    let content = payload(5000 + (seed % 3) as usize);
    if protocol == Protocol::Sctp {
        gateways.open_association(families);
    }
    let pieces = split(&from_client(families, protocol, &content), 0x1234, 1008);
    for (number, piece) in shuffled(pieces, seed).into_iter().enumerate() {
        gateways.receive(number % usize::from(workers), WAN, &[piece]);
    }
    assert_eq!((gateways.drops.len(), gateways.waiting()), (0, 0), "{case}");
    let sent = gateways.take_sent();
    assert!(sent.iter().all(|(port, _)| *port == LAN), "{case}");
    let sent = match mode {
        ForwardingMode::Tun => unwrapped(sent, families),
        _ => sent.into_iter().map(|(_, frame)| frame).collect(),
    };
    let arrived = join(&sent);
    let client = (families.client(), 40_000);
    let (source, destination) = match mode {
        ForwardingMode::Fullnat => ((families.lip(), source_port(&arrived)), (families.server(), 8080)),
        ForwardingMode::Nat => (client, (families.server(), 8080)),
        ForwardingMode::Dr | ForwardingMode::Tun => (client, (families.vip(), 80)),
    };
    assert_eq!(arrived, at_server(source, destination, protocol, &content), "{case}");
    if mode.is_one_way() {
        return;
    }
    let answer = whole((SERVER_MAC, LAN_MAC), (destination, source), protocol, &content[..3000]);
    for (number, piece) in shuffled(split(&answer, 77, 1440), seed + 1).into_iter().enumerate() {
        gateways.receive(number % usize::from(workers), LAN, &[piece]);
    }
    assert_eq!((gateways.drops.len(), gateways.waiting()), (0, 0), "{case}");
    let sent: Vec<_> = gateways.take_sent().into_iter().map(|(_, frame)| frame).collect();
    let expected = whole((WAN_MAC, CLIENT_MAC), ((families.vip(), 80), client), protocol, &content[..3000]);
    assert_eq!(join(&sent), lower_ttl(expected), "{case}");
}

const MODES: [ForwardingMode; 4] =
    [ForwardingMode::Fullnat, ForwardingMode::Nat, ForwardingMode::Dr, ForwardingMode::Tun];

#[test]
fn datagrams_pass_in_every_mode_and_order_over_one_worker_and_more() {
    for mode in MODES {
        for families in [IPV4, IPV6] {
            for workers in [1, 2, 3] {
                for seed in 0..8 {
                    exchange(mode, families, Protocol::Udp, workers, seed);
                    exchange(mode, families, Protocol::Tcp, workers, seed);
                    exchange(mode, families, Protocol::Sctp, workers, seed);
                }
            }
        }
    }
}

#[test]
fn datagrams_pass_between_the_families() {
    for families in [SIX_TO_FOUR, FOUR_TO_SIX] {
        for (mode, workers) in [(ForwardingMode::Fullnat, 1), (ForwardingMode::Fullnat, 2), (ForwardingMode::Tun, 2)] {
            for seed in 0..8 {
                exchange(mode, families, Protocol::Udp, workers, seed);
                exchange(mode, families, Protocol::Sctp, workers, seed);
            }
        }
    }
}

fn udp_gateway() -> Gateways {
    Gateways::new(&services(Protocol::Udp, ForwardingMode::Fullnat, IPV4), 1, 1500)
}

#[test]
fn doubles_pass_and_overlaps_end_their_datagram() {
    let frame = from_client(IPV4, Protocol::Udp, &payload(4000));
    let mut pieces = split(&frame, 1, 800);
    let mut gateways = udp_gateway();
    gateways.receive(0, WAN, &[pieces[0].clone(), pieces[1].clone(), pieces[1].clone(), pieces[0].clone()]);
    assert_eq!((gateways.take_sent().len(), gateways.drops.len()), (4, 0));
    let overlap = piece(&frame, 1, (1592, 2400));
    gateways.receive(0, WAN, &[overlap, pieces.remove(3), pieces[0].clone()]);
    assert_eq!(gateways.drops, [DropReason::FragmentOverlap; 3], "what comes after it does not pass either");
    assert!(gateways.take_sent().is_empty());
    // Another datagram is another matter.
    gateways.receive(0, WAN, &split(&frame, 2, 800));
    assert_eq!(join(&gateways.take_sent().into_iter().map(|(_, frame)| frame).collect::<Vec<_>>()).len(), frame.len());
}

#[test]
fn an_identification_may_come_again_with_another_flow() {
    let mut gateways = udp_gateway();
    for (round, len) in [4000, 1700, 3000].into_iter().enumerate() {
        let ends = ((IPV4.client(), 40_000 + round as u16), (IPV4.vip(), 80));
        let frame = whole((CLIENT_MAC, WAN_MAC), ends, Protocol::Udp, &payload(len));
        gateways.receive(0, WAN, &split(&frame, 5, 800));
        let sent: Vec<_> = gateways.take_sent().into_iter().map(|(_, frame)| frame).collect();
        assert_eq!(join(&sent).len(), frame.len());
    }
    assert!(gateways.drops.is_empty());
}

#[test]
fn fragments_that_are_wrong_by_themselves_are_dropped_by_name() {
    let frame = from_client(IPV4, Protocol::Udp, &payload(2000));
    let tcp = from_client(IPV4, Protocol::Tcp, &payload(2000));
    let frame6 = from_client(IPV6, Protocol::Udp, &payload(2000));
    let cases = [
        ("of no multiple of 8", piece_of(&frame, 1, 0, &[1; 33], true), DropReason::BadFragment),
        ("without data", piece_of(&frame, 1, 800, &[], false), DropReason::BadFragment),
        ("without data, IPv6", piece_of(&frame6, 1, 800, &[], false), DropReason::BadFragment),
        ("beyond 65,535", piece_of(&frame, 1, 65_528, &[1; 8], false), DropReason::FragmentTooLong),
        ("beyond 65,535 with its header", piece_of(&frame, 1, 65_512, &[1; 8], true), DropReason::FragmentTooLong),
        ("beyond 65,535, IPv6", piece_of(&frame6, 1, 65_528, &[1; 8], true), DropReason::FragmentTooLong),
        ("a tiny first one", piece(&tcp, 1, (0, 8)), DropReason::FragmentTooShort),
        ("half a TCP header", piece(&tcp, 1, (0, 16)), DropReason::FragmentTooShort),
    ];
    for (description, packet, reason) in cases {
        let mut gateways = udp_gateway();
        gateways.receive(0, WAN, &[packet]);
        assert_eq!((gateways.drops, gateways.sent.len()), (vec![reason], 0), "{description}");
    }
}

#[test]
fn the_largest_datagram_passes() {
    for families in [IPV4, IPV6] {
        let mut gateways = Gateways::new(&services(Protocol::Udp, ForwardingMode::Fullnat, families), 1, 1500);
        let frame = from_client(families, Protocol::Udp, &payload(if families.client6 { 65_527 } else { 65_507 }));
        gateways.receive(0, WAN, &shuffled(split(&frame, 9, 1440), 3));
        assert_eq!((gateways.drops.len(), gateways.take_sent().len()), (0, (frame.len() - 34).div_ceil(1440)));
    }
}

#[test]
fn too_many_pieces_end_their_datagram() {
    let mut gateways = udp_gateway();
    let pieces = split(&from_client(IPV4, Protocol::Udp, &payload(1600)), 1, 8);
    gateways.receive(0, WAN, &pieces);
    assert_eq!((gateways.take_sent().len(), gateways.drops.len()), (128, pieces.len() - 128));
    assert!(gateways.drops.iter().all(|&reason| reason == DropReason::FragmentsTooMany));
}

#[test]
fn without_a_first_one_the_others_wait_in_vain() {
    let mut gateways = udp_gateway();
    let pieces = split(&from_client(IPV4, Protocol::Udp, &payload(4000)), 1, 800);
    gateways.receive(0, WAN, &pieces[1..]);
    assert_eq!(gateways.waiting(), pieces.len() - 1);
    gateways.pass_seconds(4);
    assert_eq!(gateways.waiting(), pieces.len() - 1);
    gateways.pass_seconds(2);
    assert_eq!(gateways.drops, vec![DropReason::FragmentTimeout; pieces.len() - 1]);
    gateways.receive(0, WAN, &pieces[..1]);
    assert_eq!(gateways.take_sent().len(), 1, "it goes alone");
}

#[test]
fn what_becomes_of_the_first_becomes_of_the_others() {
    let none = table(vec![service(Protocol::Udp, vec![server(0, lab::SERVER, 0)])], PORTS);
    let mut gateways = Gateways::new(&none, 1, 1500);
    let pieces = split(&from_client(IPV4, Protocol::Udp, &payload(4000)), 1, 800);
    gateways.receive(0, WAN, &pieces);
    assert_eq!(gateways.take_sent()[0].1[34..36], [3, 3], "port unreachable");
    assert_eq!(gateways.drops, vec![DropReason::FragmentNotForwarded; pieces.len() - 1]);
    // No session, no service: the kernel has them all.
    let to_nobody = ((IPV4.client(), 40_000), (IPV4.vip(), 81));
    let pieces = split(&whole((CLIENT_MAC, WAN_MAC), to_nobody, Protocol::Udp, &payload(4000)), 2, 800);
    let verdicts = gateways.workers[0].0.send_burst(WAN, &pieces);
    assert!(verdicts.iter().all(|(verdict, _)| matches!(verdict, Verdict::Punt(_))), "{verdicts:?}");
    // To the gateway itself, whatever it is a piece of.
    let own = ((IPV4.client(), 40_000), (Ipv4Addr::new(10, 0, 0, 1).into(), 81));
    let pieces = split(&whole((CLIENT_MAC, WAN_MAC), own, Protocol::Udp, &payload(4000)), 3, 800);
    let verdicts = gateways.workers[0].0.send_burst(WAN, &pieces[1..]);
    assert!(verdicts.iter().all(|(verdict, _)| matches!(verdict, Verdict::Punt(_))), "{verdicts:?}");
    // To nobody here.
    let nobody = ((IPV4.client(), 40_000), (Ipv4Addr::new(8, 8, 8, 8).into(), 81));
    let pieces = split(&whole((CLIENT_MAC, WAN_MAC), nobody, Protocol::Udp, &payload(4000)), 4, 800);
    gateways.drops.clear();
    gateways.receive(0, WAN, &pieces);
    assert_eq!(gateways.drops, vec![DropReason::NotLocal; pieces.len()]);
}

#[test]
fn fragments_move_no_tcp_state_and_are_all_counted() {
    let mut gateways = Gateways::new(&services(Protocol::Tcp, ForwardingMode::Dr, IPV4), 1, 1500);
    gateways.receive(0, WAN, &split(&from_client(IPV4, Protocol::Tcp, &payload(4000)), 1, 800));
    let counters = &gateways.workers[0].0.counters[0];
    let counted = &counters.real_servers[0];
    assert_eq!(
        (counted.active.get(), counted.inactive.get()),
        (1, 0),
        "SYN_RECV, by the first; not CLOSE by the others"
    );
    assert_eq!((counted.inbound.packets.get(), counters.fragments_forwarded.get()), (6, 6));
    assert_eq!(counted.inbound.bytes.get(), 4000 + 20 + 6 * 20);
}

#[test]
fn later_fragments_are_never_answered() {
    let mut gateways = udp_gateway();
    let frame = from_client(IPV4, Protocol::Udp, &payload(4000));
    let mut pieces = split(&frame, 1, 800);
    for piece in &mut pieces[1..] {
        piece[22] = 1;
        let header = Ipv4Header::from_slice(&piece[14..]).unwrap().0;
        piece[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    }
    gateways.receive(0, WAN, &pieces);
    assert_eq!((gateways.take_sent().len(), gateways.drops.len()), (1, pieces.len() - 1));
    assert!(gateways.drops.iter().all(|&reason| reason == DropReason::TtlExpired));
}

/// A packet or fragment larger than the next link, without DF, goes on in pieces that fit, in every mode.
#[test]
fn what_is_larger_than_the_link_is_cut() {
    for (mode, families) in MODES.map(|mode| (mode, IPV4)).into_iter().chain([(ForwardingMode::Fullnat, FOUR_TO_SIX)]) {
        for (workers, protocol) in [(1, Protocol::Udp), (2, Protocol::Udp), (1, Protocol::Sctp), (2, Protocol::Sctp)] {
            let mut gateways = Gateways::new(&services(protocol, mode, families), workers, 1300);
            let content = payload(2960);
            let frame = from_client(families, protocol, &content);
            if protocol == Protocol::Sctp {
                gateways.open_association(families);
            }
            // In one large frame, and in fragments of 1,500 bytes.
            for packets in [vec![frame.clone()], split(&frame, 0x1234, 1480)] {
                gateways.receive(0, WAN, &packets);
                let sent = gateways.take_sent();
                assert!(sent.iter().all(|(_, frame)| frame.len() <= 1314), "{mode:?} {families:?}");
                assert!(sent.len() > packets.len() && gateways.drops.is_empty(), "{mode:?}: {:?}", gateways.drops);
                let sent = match mode {
                    ForwardingMode::Tun => unwrapped(sent, families),
                    _ => sent.into_iter().map(|(_, frame)| frame).collect(),
                };
                let joined = join(&sent);
                assert!(joined.ends_with(&content), "{mode:?} {families:?}");
                let right = || sctp::checksum_is_right(&joined[headers_of(&joined)..]);
                assert!(protocol != Protocol::Sctp || right(), "{mode:?} {families:?} {workers}");
            }
        }
    }
}

/// Where a NIC spreads packets, it brings fragments elsewhere than whole packets. All datagrams of a flow must still reach one worker,
/// and no connection is reset because its session is on another one.
#[test]
fn on_ports_with_rss_a_flow_has_one_worker_for_its_fragments_and_connections_are_left_alone() {
    let mut gateways =
        Gateways::with_steering(&services(Protocol::Udp, ForwardingMode::Fullnat, IPV4), 3, 1500, Steering::Rss);
    let frame = from_client(IPV4, Protocol::Udp, &payload(3000));
    for id in 0..50 {
        let pieces = shuffled(split(&frame, id, 1000), id.into());
        pieces.into_iter().enumerate().for_each(|(number, piece)| gateways.receive(number % 3, WAN, &[piece]));
    }
    assert_eq!((gateways.take_sent().len(), gateways.drops.len()), (200, 0));
    let sessions: u64 = gateways
        .workers
        .iter()
        .map(|(gateway, _)| gateway.counters.iter().map(|own| own.sessions.get()).sum::<u64>())
        .sum();
    assert_eq!(sessions, 1);

    let tcp = services(Protocol::Tcp, ForwardingMode::Fullnat, IPV4);
    let mut gateways = Gateways::with_steering(&tcp, 3, 1500, Steering::Rss);
    let mut frame = from_client(IPV4, Protocol::Tcp, &payload(3000));
    frame[47] = 0x10;
    gateways.receive(0, WAN, &split(&frame, 1, 1000));
    assert!(gateways.take_sent().is_empty(), "no RST");
    assert_eq!(gateways.drops, [vec![DropReason::NoSession], vec![DropReason::FragmentNotForwarded; 3]].concat());
}

/// With the pieces of others, first ones or later ones, the gateway is busy and no more: other packets and fragments pass.
#[test]
fn floods_disturb_nobody() {
    let mut gateways = Gateways::new(&services(Protocol::Udp, ForwardingMode::Fullnat, IPV4), 2, 1500);
    let frame = from_client(IPV4, Protocol::Udp, &payload(3000));
    let started = Instant::now();
    for round in 0..3000u32 {
        let from = Ipv4Addr::from_bits(0x0a00_0000 + (round % 200) + 10);
        let ends = ((from.into(), 1024), (IPV4.vip(), 80));
        let other = whole((CLIENT_MAC, WAN_MAC), ends, Protocol::Udp, &payload(100));
        let flood: Vec<_> = (0..10)
            .flat_map(|n| {
                let id = (round * 10 + n) as u16;
                [piece(&other, id, (0, 64)), piece(&other, id.wrapping_add(7), (64, 108))]
            })
            .collect();
        gateways.receive(0, WAN, &flood);
        assert!(gateways.waiting() <= 2 * CAPACITY);
        if round % 100 == 0 {
            // Gone from the counts: what is looked at is a datagram out of order, between two parts of the flood.
            gateways.take_sent();
            let pieces = shuffled(split(&frame, round as u16, 1000), u64::from(round));
            gateways.receive(0, WAN, &pieces[..2]);
            gateways.receive(1, WAN, &flood);
            gateways.receive(1, WAN, &pieces[2..]);
            let own = gateways.take_sent().into_iter().map(|(_, frame)| frame);
            let own: Vec<_> = own.filter(|frame| frame[14..].len() != 84 && frame[14..].len() != 64).collect();
            assert_eq!(join(&own).len(), frame.len(), "round {round}");
        }
    }
    // 60,000 packets in a debug build: some seconds would mean that each looks at everything that waits.
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

proptest! {
    /// Whatever the pieces and their order: what comes out are the fragments, cut in the same places, of what the whole packet
    /// would have become.
    #[test]
    fn fragments_become_the_fragments_of_what_the_whole_would_have_become(
        cuts in proptest::collection::vec(1usize..200, 0..30),
        rest in 1usize..1400,
        seed in any::<u64>(),
        mode in prop_oneof![Just(MODES[0]), Just(MODES[1]), Just(MODES[2])],
        ipv6 in any::<bool>(),
        workers in 1u8..4,
    ) {
        let families = if ipv6 { IPV6 } else { IPV4 };
        let mut ends: Vec<usize> = cuts.iter().scan(0, |at, len| { *at += len * 8; Some(*at) }).collect();
        ends.push(ends.last().copied().unwrap_or(0) + rest.max(9));
        let len = ends.last().unwrap() - 8;
        prop_assume!(ends.len() > 1);
        let frame = from_client(families, Protocol::Udp, &payload(len));
        let places: Vec<_> = ends.iter().scan(0, |from, &to| Some((std::mem::replace(from, to), to))).collect();
        let services = services(Protocol::Udp, mode, families);
        // Its own links take the whole packet.
        let mut large = Gateways::new(&services, 1, 65_535);
        large.receive(0, WAN, std::slice::from_ref(&frame));
        let expected = large.take_sent().remove(0).1;
        let mut gateways = Gateways::new(&services, workers, 65_535);
        let order = shuffled(places, seed);
        for (number, &place) in order.iter().enumerate() {
            gateways.receive(number % usize::from(workers), WAN, &[piece(&frame, 0x1234, place)]);
        }
        prop_assert!(gateways.drops.is_empty(), "{:?}", gateways.drops);
        let mut sent: Vec<_> = gateways.take_sent().into_iter().map(|(_, frame)| frame).collect();
        // Each worker deals out local ports of its own.
        let local = source_port(&join(&sent)).to_be_bytes();
        let mut expected = expected;
        if mode == ForwardingMode::Fullnat {
            let at = headers_of(&expected);
            let ends = ((families.lip(), u16::from_be_bytes(local)), (families.server(), 8080));
            expected = at_server(ends.0, ends.1, Protocol::Udp, &frame[at + 8..]);
        }
        let mut expected: Vec<_> = order.iter().map(|&place| piece(&expected, 0x1234, place)).collect();
        sent.sort_unstable();
        expected.sort_unstable();
        prop_assert!(sent == expected, "{} and {} fragments", sent.len(), expected.len());
    }

    /// No bytes make it panic, and every fragment gets one verdict.
    #[test]
    fn nearly_valid_fragments_get_a_verdict(
        pieces in proptest::collection::vec((0usize..20, 0usize..20, any::<bool>(), 0u16..3), 1..40),
        changes in proptest::collection::vec((0usize..40, 14usize..70, any::<u8>()), 0..3),
        ipv6 in any::<bool>(),
    ) {
        let families = if ipv6 { IPV6 } else { IPV4 };
        let mut gateway = Gateways::new(&services(Protocol::Udp, ForwardingMode::Fullnat, families), 1, 1500);
        let frame = from_client(families, Protocol::Udp, &payload(400));
        let data = &frame[headers_of(&frame)..];
        let mut packets: Vec<_> = pieces
            .iter()
            .map(|&(start, len, more, id)| piece_of(&frame, id, start * 8, &data[start * 8..(start + len) * 8], more))
            .collect();
        for (of, at, value) in changes {
            if let Some(byte) = packets.get_mut(of).and_then(|packet| packet.get_mut(at)) {
                *byte = value;
            }
        }
        for burst in packets.chunks(BURST_SIZE) {
            for (verdict, _) in gateway.workers[0].0.send_burst(WAN, burst) {
                prop_assert_ne!(verdict, Verdict::Transmit(PortId(99)));
            }
        }
    }
}
