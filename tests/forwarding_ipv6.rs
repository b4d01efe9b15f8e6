//! Every mode over IPv6, and between IPv4 and IPv6, packet in, packet out, without DPDK. Expected bytes and checksums come
//! from etherparse.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "forwarding/any.rs"]
mod any;
#[path = "forwarding/lab.rs"]
#[allow(dead_code, reason = "not every test looks at everything")]
mod lab;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use any::{Any, read};
use fullgate::balance::{
    Encapsulation, ForwardingMode, LocalAddress, LocalAddressSlot, Protocol, RealServer, ServiceKey, ServiceTable,
    Tunnel,
};
use fullgate::forward::{DropReason, Hop, PuntClass, Verdict};
use fullgate::port::PortId;
use fullgate::route::{Neighbour, RouteEntry, RouteInput, RouteNextHop};
use lab::{
    CLIENT_MAC, Gateway, LAN, LAN_MAC, NEIGHBOURS, PORTS, SERVER_MAC, WAN, WAN_MAC, routes, server, service, table,
};

const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
const LIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x200);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x11);
const LAN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);

/// Which families the client and the real server are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Families {
    client_ipv6: bool,
    server_ipv6: bool,
}

const ALL: [Families; 4] = [
    Families { client_ipv6: false, server_ipv6: false },
    Families { client_ipv6: true, server_ipv6: true },
    Families { client_ipv6: true, server_ipv6: false },
    Families { client_ipv6: false, server_ipv6: true },
];

impl Families {
    fn client(self) -> SocketAddr {
        SocketAddr::new(if self.client_ipv6 { CLIENT6.into() } else { lab::CLIENT.into() }, 40_000)
    }

    fn vip(self) -> SocketAddr {
        SocketAddr::new(if self.client_ipv6 { VIP6.into() } else { lab::VIP.into() }, 80)
    }

    fn server(self, port: u16) -> SocketAddr {
        SocketAddr::new(if self.server_ipv6 { SERVER6.into() } else { lab::SERVER.into() }, port)
    }

    fn lip(self) -> IpAddr {
        if self.server_ipv6 { LIP6.into() } else { lab::LIP.into() }
    }

    fn question<'a>(self, payload: &'a [u8]) -> Any<'a> {
        Any { macs: (CLIENT_MAC, WAN_MAC), source: self.client(), destination: self.vip(), ttl: 64, payload }
    }
}

fn services(protocol: Protocol, mode: ForwardingMode, families: Families, tunnel: Tunnel) -> ServiceTable {
    let port = if mode.is_one_way() { 80 } else { 8080 };
    let real = RealServer { mode, address: families.server(port).ip(), port, ..server(0, lab::SERVER, 1) };
    let mut service = service(protocol, vec![real]);
    service.key = ServiceKey::new(protocol, SocketAddr::new(families.vip().ip(), 80).into());
    let mut services = ServiceTable { tunnels: vec![tunnel], ..table(vec![service], PORTS) };
    services.has_nat = mode == ForwardingMode::Nat;
    services.pools[0].ipv6 = vec![LocalAddress { slot: LocalAddressSlot(1), address: LIP6.into() }];
    services.local_addresses.insert(LIP6.into(), LocalAddressSlot(1));
    services
}

/// Both families' subnets and neighbours.
fn both_routes() -> RouteInput {
    let mut input = routes(&NEIGHBOURS, 1500);
    for (port, network) in
        [(WAN, Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0)), (LAN, Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0))]
    {
        let next_hops = vec![RouteNextHop { port, gateway: None, weight: 1 }];
        input.routes.push(RouteEntry { destination: network.into(), prefix_len: 64, metric: 0, next_hops });
    }
    input.local.extend([IpAddr::from(VIP6), LIP6.into(), LAN6.into()]);
    for (port, address, mac) in [(WAN, CLIENT6, CLIENT_MAC), (LAN, SERVER6, SERVER_MAC)] {
        input.neighbours.push(Neighbour { hop: Hop { port, address: address.into() }, mac });
    }
    input.interfaces[1].ipv6_address = Some(LAN6);
    input
}

fn gateway(services: ServiceTable) -> Gateway {
    let mut gateway = Gateway::new(services.clone());
    gateway.adopt(services, &both_routes());
    gateway
}

fn build(protocol: Protocol, packet: &Any<'_>, flags: &str) -> Vec<u8> {
    match protocol {
        Protocol::Tcp => packet.tcp(flags),
        Protocol::Udp | Protocol::Icmp | Protocol::Any => packet.udp(),
        Protocol::Sctp => packet.sctp(flags),
    }
}

/// What is the same whatever a packet's own bytes: its DF bit and identification may differ from etherparse's.
fn assert_same(out: &[u8], expected: &[u8], what: impl std::fmt::Debug) {
    let (out, expected) = (read(out), read(expected));
    assert_eq!(out.macs, expected.macs, "{what:?}");
    assert_eq!((out.source, out.destination), (expected.source, expected.destination), "{what:?}");
    assert_eq!((out.ttl, out.traffic_class), (expected.ttl, expected.traffic_class), "{what:?}");
    assert_eq!(out.payload, expected.payload, "{what:?}");
}

#[test]
fn fullnat_there_and_back_between_all_families() {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    for (families, protocol) in ALL.iter().flat_map(|&families| protocols.map(|protocol| (families, protocol))) {
        let mut gateway = gateway(services(protocol, ForwardingMode::Fullnat, families, Tunnel::default()));
        let what = (families, protocol);
        for _again in 0..2 {
            let (verdict, out) = gateway.send(WAN, &build(protocol, &families.question(b"a question"), "S"));
            assert_eq!(verdict, Verdict::Transmit(LAN), "{what:?}");
            let local = read(&out).source;
            assert_eq!(local.ip(), families.lip());
            let expected = Any {
                macs: (LAN_MAC, SERVER_MAC),
                source: local,
                destination: families.server(8080),
                ttl: 63,
                payload: b"a question",
            };
            assert_same(&out, &build(protocol, &expected, "S"), what);
            let answer = Any {
                macs: (SERVER_MAC, LAN_MAC),
                source: families.server(8080),
                destination: local,
                ttl: 60,
                payload: b"an answer!!",
            };
            let (verdict, out) = gateway.send(LAN, &build(protocol, &answer, "SA"));
            assert_eq!(verdict, Verdict::Transmit(WAN), "{what:?}");
            let expected = Any {
                macs: (WAN_MAC, CLIENT_MAC),
                source: families.vip(),
                destination: families.client(),
                ttl: 59,
                payload: b"an answer!!",
            };
            assert_same(&out, &build(protocol, &expected, "SA"), what);
        }
        let counters = &gateway.counters[0];
        let own = if families == ALL[0] { &counters.sessions } else { &counters.ipv6_sessions };
        assert_eq!((own.get(), counters.sessions_created.get()), (1, 1), "{what:?}");
        let server = &counters.real_servers[0];
        assert_eq!((server.inbound.packets.get(), server.outbound.packets.get()), (2, 2), "{what:?}");
        gateway.pass_seconds(400);
        assert_eq!(gateway.counters[0].sessions.get() + gateway.counters[0].ipv6_sessions.get(), 0, "{what:?}");
    }
}

#[test]
fn nat_and_dr_over_ipv6() {
    let families = ALL[1];
    for mode in [ForwardingMode::Nat, ForwardingMode::Dr] {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let mut gateway = gateway(services(protocol, mode, families, Tunnel::default()));
            for _again in 0..2 {
                let (verdict, out) = gateway.send(WAN, &build(protocol, &families.question(b"question"), "S"));
                assert_eq!(verdict, Verdict::Transmit(LAN), "{mode}");
                let destination = if mode == ForwardingMode::Dr { families.vip() } else { families.server(8080) };
                let expected =
                    Any { macs: (LAN_MAC, SERVER_MAC), destination, ttl: 63, ..families.question(b"question") };
                assert_eq!(out, build(protocol, &expected, "S"), "{mode}, to the byte");
            }
            if mode == ForwardingMode::Nat {
                let answer = Any {
                    macs: (SERVER_MAC, LAN_MAC),
                    source: families.server(8080),
                    destination: families.client(),
                    ttl: 60,
                    payload: b"answer",
                };
                let (verdict, out) = gateway.send(LAN, &build(protocol, &answer, "SA"));
                let expected = Any { macs: (WAN_MAC, CLIENT_MAC), source: families.vip(), ttl: 59, ..answer };
                assert_eq!((verdict, out), (Verdict::Transmit(WAN), build(protocol, &expected, "SA")));
            }
        }
    }
}

#[test]
fn tun_of_all_families_in_all() {
    let encapsulations = [
        (Tunnel::default(), 0),
        (Tunnel { encapsulation: Encapsulation::Gre, checksum: false, port: 0 }, 4),
        (Tunnel { encapsulation: Encapsulation::Gre, checksum: true, port: 0 }, 8),
        (Tunnel { encapsulation: Encapsulation::Gue, checksum: false, port: 6080 }, 12),
        (Tunnel { encapsulation: Encapsulation::Gue, checksum: true, port: 6080 }, 12),
    ];
    for (families, (tunnel, shim)) in ALL.iter().flat_map(|&families| encapsulations.map(|each| (families, each))) {
        let what = (families, tunnel);
        let mut gateway = gateway(services(Protocol::Udp, ForwardingMode::Tun, families, tunnel));
        for payload in [&b"even"[..], b"odd", &[7; 900]] {
            let (verdict, out) = gateway.send(WAN, &families.question(payload).udp());
            assert_eq!(verdict, Verdict::Transmit(LAN), "{what:?}");
            assert_eq!((&out[..6], &out[6..12]), (&SERVER_MAC.0[..], &LAN_MAC.0[..]));
            let outer = if families.server_ipv6 { 40 } else { 20 };
            let inner =
                [&out[..12], if families.client_ipv6 { &[0x86, 0xdd] } else { &[8, 0] }, &out[14 + outer + shim..]]
                    .concat();
            let expected = Any { macs: (LAN_MAC, SERVER_MAC), ttl: 63, ..families.question(payload) };
            assert_eq!(inner, expected.udp(), "{what:?}");
            assert_outer(&out[14..14 + outer + shim], &inner[14..], families, tunnel);
        }
    }
}

/// The outer header, read by hand, and the checksum of what is between, by etherparse.
fn assert_outer(front: &[u8], inner: &[u8], families: Families, tunnel: Tunnel) {
    let number = match (tunnel.encapsulation, families.client_ipv6) {
        (Encapsulation::Ipip, false) => 4,
        (Encapsulation::Ipip, true) => 41,
        (Encapsulation::Gre, _) => 47,
        (Encapsulation::Gue, _) => 17,
    };
    let payload = |outer: usize| [&front[outer..], inner].concat();
    if families.server_ipv6 {
        let header = etherparse::Ipv6HeaderSlice::from_slice(front).unwrap();
        assert_eq!((header.source_addr(), header.destination_addr()), (LAN6, SERVER6));
        assert_eq!((header.next_header().0, header.hop_limit()), (number, 63));
        assert_eq!(usize::from(header.payload_length()), front.len() - 40 + inner.len());
        if tunnel.encapsulation == Encapsulation::Gue {
            let rest = payload(40);
            let udp = etherparse::UdpHeaderSlice::from_slice(&rest).unwrap().to_header();
            let right = udp.calc_checksum_ipv6_raw(LAN6.octets(), SERVER6.octets(), &rest[8..]).unwrap();
            assert_eq!(udp.checksum, if tunnel.checksum { right } else { 0 });
        }
    } else {
        let header = etherparse::Ipv4HeaderSlice::from_slice(front).unwrap().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!((header.protocol.0, header.time_to_live, header.destination), (number, 63, lab::SERVER.octets()));
        assert_eq!(usize::from(header.total_len), front.len() + inner.len());
        if tunnel.encapsulation == Encapsulation::Gue {
            let rest = payload(20);
            let udp = etherparse::UdpHeaderSlice::from_slice(&rest).unwrap().to_header();
            let right = udp.calc_checksum_ipv4(&header, &rest[8..]).unwrap();
            assert_eq!(udp.checksum, if tunnel.checksum { right } else { 0 });
        }
    }
}

#[test]
fn nat64_makes_the_checksum_that_ipv6_wants() {
    let families = ALL[3];
    let mut gateway = gateway(services(Protocol::Udp, ForwardingMode::Fullnat, families, Tunnel::default()));
    let mut question = families.question(b"unchecked").udp();
    question[40..42].fill(0);
    let (verdict, out) = gateway.send(WAN, &question);
    assert_eq!((verdict, read(&out).payload), (Verdict::Transmit(LAN), b"unchecked".to_vec()));
    // The datagram may be shorter than what the packet says to carry: the checksum is the datagram's.
    question[38..40].copy_from_slice(&(8u16 + 5).to_be_bytes());
    let (verdict, out) = gateway.send(WAN, &question);
    assert_eq!((verdict, out.len()), (Verdict::Transmit(LAN), 14 + 40 + 8 + 9));
    let sum = etherparse::UdpHeader::from_slice(&out[54..]).unwrap().0;
    let ends = [&out[22..38], &out[38..54]].map(|address| <[u8; 16]>::try_from(address).unwrap());
    assert_eq!(sum.checksum, sum.calc_checksum_ipv6_raw(ends[0], ends[1], b"unche").unwrap());
}

#[test]
fn nat64_tells_a_path_mtu_in_the_senders_terms() {
    for (families, largest, told) in [(ALL[2], 1520, 1520), (ALL[3], 1480, 1480)] {
        let mut gateway = gateway(services(Protocol::Udp, ForwardingMode::Fullnat, families, Tunnel::default()));
        let headers = if families.client_ipv6 { 48 } else { 28 };
        let fits = vec![1; largest - headers];
        assert_eq!(gateway.send(WAN, &families.question(&fits).udp()).0, Verdict::Transmit(LAN), "{families:?}");
        let (verdict, out) = gateway.send(WAN, &families.question(&[fits, vec![1]].concat()).udp());
        assert_eq!(verdict, Verdict::Transmit(WAN), "{families:?}");
        let icmp = if families.client_ipv6 { &out[54..] } else { &out[34..] };
        assert_eq!(icmp[..2], if families.client_ipv6 { [2, 0] } else { [3, 4] });
        assert_eq!(u16::from_be_bytes([icmp[6], icmp[7]]), told);
    }
}

#[test]
fn nothing_longer_than_a_packet_can_say_becomes_one_of_the_other_family() {
    let families = ALL[3];
    let mut gateway = gateway(services(Protocol::Udp, ForwardingMode::Fullnat, families, Tunnel::default()));
    // With the header of IPv6 it has 20 bytes more.
    let (verdict, out) = gateway.send(WAN, &families.question(&[1; 65_535 - 28]).udp());
    assert_eq!((verdict, &out[34..36]), (Verdict::Transmit(WAN), &[3, 4][..]), "fragmentation needed");
}

#[test]
fn a_tunnel_sends_nothing_longer_than_its_link_takes() {
    // Where the link takes no more than every link must of IPv6, nothing of that size can go through a tunnel.
    let families = ALL[1];
    let services = services(Protocol::Udp, ForwardingMode::Tun, families, Tunnel::default());
    let mut gateway = gateway(services.clone());
    let mut input = both_routes();
    input.interfaces.iter_mut().for_each(|interface| interface.mtu = 1280);
    gateway.adopt(services, &input);
    let fits = vec![1; 1280 - 40 - 48];
    let (verdict, out) = gateway.send(WAN, &families.question(&fits).udp());
    assert_eq!((verdict, out.len()), (Verdict::Transmit(LAN), 14 + 1280));
    let (verdict, out) = gateway.send(WAN, &families.question(&[fits, vec![1]].concat()).udp());
    assert_eq!((verdict, &out[54..56]), (Verdict::Transmit(WAN), &[2, 0][..]), "packet too big");
    assert_eq!(out[58..62], 1280u32.to_be_bytes(), "no less may be told");
}

#[test]
fn local_ports_are_apart_over_both_tables() {
    // One local port: a session of IPv4 has it, and one of IPv6 to the same real server must not get it.
    let one = fullgate::balance::PortRange { first: 5000, last: 5000 };
    let mut both = services(Protocol::Udp, ForwardingMode::Fullnat, ALL[0], Tunnel::default());
    both.pools[0].ports = one;
    let mut other = both.services[0].clone();
    other.key.address = VIP6.into();
    both.by_key.insert(other.key, 1);
    both.services.push(other);
    for (first, second) in [(ALL[0], ALL[2]), (ALL[2], ALL[0])] {
        let mut gateway = gateway(both.clone());
        assert_eq!(gateway.send(WAN, &first.question(b"1").udp()).0, Verdict::Transmit(LAN));
        let (verdict, _) = gateway.send(WAN, &second.question(b"2").udp());
        assert_eq!(verdict, Verdict::Drop(DropReason::LocalPortsExhausted));
    }
}

#[test]
fn resets_and_errors_over_ipv6() {
    let families = ALL[1];
    let mut gateway = gateway(services(Protocol::Tcp, ForwardingMode::Fullnat, families, Tunnel::default()));
    let (verdict, out) = gateway.send(WAN, &families.question(b"").tcp("A"));
    assert_eq!(verdict, Verdict::Transmit(WAN));
    let reset = Any {
        macs: (WAN_MAC, CLIENT_MAC),
        source: families.vip(),
        destination: families.client(),
        ttl: 64,
        payload: b"",
    };
    assert_same(&out, &reset.tcp("R"), "a reset");
    let (verdict, out) = gateway.send(WAN, &Any { ttl: 1, ..families.question(b"") }.tcp("S"));
    assert_eq!((verdict, out[20], &out[54..56]), (Verdict::Transmit(WAN), 58, &[3, 0][..]), "time exceeded");
    let sliced = etherparse::SlicedPacket::from_ethernet(&out).unwrap();
    let Some(etherparse::TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("no ICMPv6") };
    let header =
        etherparse::Icmpv6Header::with_checksum(icmp.icmp_type(), VIP6.octets(), CLIENT6.octets(), icmp.payload());
    assert_eq!(icmp.checksum(), header.unwrap().checksum);
}

/// A message of ICMPv6 with an address behind its header, as neighbour discovery has it.
fn icmp6(to: &str, hop_limit: u8, kind: u8) -> Vec<u8> {
    let destination: Ipv6Addr = to.parse().unwrap();
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 1, 1], lab::WAN_MAC.0)
        .ipv6(CLIENT6.octets(), destination.octets(), hop_limit)
        .icmpv6_raw(kind, 0, [0; 4])
        .write(&mut frame, &VIP6.octets())
        .unwrap();
    frame
}

#[test]
fn neighbour_discovery_is_punted_in_a_class_of_its_own() {
    let families = ALL[1];
    let mut gateway = gateway(services(Protocol::Tcp, ForwardingMode::Fullnat, families, Tunnel::default()));
    let (discovery, others) = (PuntClass::NeighbourDiscovery, PuntClass::Ipv6);
    assert!(discovery.is_vital() && !others.is_vital());
    for to in ["2001:db8:1::1", "2001:db8::100", "ff02::1", "ff02::1:ff00:100"] {
        for kind in 133..=137 {
            assert_eq!(gateway.send(WAN, &icmp6(to, 255, kind)).0, Verdict::Punt(discovery), "{kind} to {to}");
            // A router has passed it on: no host heeds it.
            assert_eq!(gateway.send(WAN, &icmp6(to, 254, kind)).0, Verdict::Punt(others), "{kind} to {to} from afar");
        }
        for kind in [128, 132, 138, 143] {
            assert_eq!(gateway.send(WAN, &icmp6(to, 255, kind)).0, Verdict::Punt(others), "{kind} to {to}");
        }
        let solicitation = icmp6(to, 255, 135);
        let behind = |next: u8, header: [u8; 8]| {
            let mut frame = [&solicitation[..54], &header[..], &solicitation[54..]].concat();
            (frame[19], frame[20]) = (frame[19] + 8, next);
            frame
        };
        // Behind destination options; as a fragment; and with nothing behind the fixed header.
        let behind_options = behind(60, [58, 0, 1, 4, 0, 0, 0, 0]);
        assert_eq!(gateway.send(WAN, &behind_options).0, Verdict::Punt(discovery), "behind options to {to}");
        let in_fragment = behind(44, [58, 0, 0, 1, 0, 0, 0, 7]);
        assert_eq!(gateway.send(WAN, &in_fragment).0, Verdict::Punt(others), "in a fragment to {to}");
        let mut empty = solicitation[..60].to_vec();
        empty[19] = 0;
        assert_eq!(gateway.send(WAN, &empty).0, Verdict::Punt(others), "cut short to {to}");
    }
    assert_eq!(gateway.send(WAN, &icmp6("2001:db8:9::1", 255, 135)).0, Verdict::Drop(DropReason::NotLocal));
}

#[test]
fn what_is_no_services_goes_to_the_kernel_or_is_a_counted_drop() {
    let families = ALL[1];
    let mut gateway = gateway(services(Protocol::Tcp, ForwardingMode::Fullnat, families, Tunnel::default()));
    let to = |address: &str| {
        Any { destination: format!("[{address}]:22").parse().unwrap(), ..families.question(b"") }.tcp("S")
    };
    let from =
        |address: &str| Any { source: format!("[{address}]:22").parse().unwrap(), ..families.question(b"") }.tcp("S");
    let mut echo = families.question(b"12345678").udp();
    echo[20] = 58;
    let cases = [
        ("a VIP's port without a service", to("2001:db8::100"), Verdict::Punt(PuntClass::Virtual)),
        ("the gateway's own", to("2001:db8:1::1"), Verdict::Punt(PuntClass::Local)),
        ("a multicast group", to("ff02::1"), Verdict::Punt(PuntClass::Ipv6)),
        ("ICMPv6 for the VIP", echo, Verdict::Punt(PuntClass::Ipv6)),
        ("somebody else", to("2001:db8:9::1"), Verdict::Drop(DropReason::NotLocal)),
        ("an IPv4-mapped destination", to("::ffff:10.0.0.100"), Verdict::Drop(DropReason::MartianSource)),
        ("an IPv4-mapped source", from("::ffff:10.0.0.1"), Verdict::Drop(DropReason::MartianSource)),
        ("a loopback source", from("::1"), Verdict::Drop(DropReason::MartianSource)),
        ("no source", from("::"), Verdict::Drop(DropReason::MartianSource)),
        ("a local address without session", to("2001:db8:1::200"), Verdict::Transmit(PortId(0))),
    ];
    for (what, packet, verdict) in cases {
        assert_eq!(gateway.send(WAN, &packet).0, verdict, "{what}");
    }
    let whole = families.question(b"").tcp("S");
    for (at, value, reason) in [
        (14, 0x50, DropReason::BadIpv6Header),
        (18, 0xff, DropReason::BadIpv6Header),
        (19, 0xff, DropReason::Truncated),
        (20, 0, DropReason::BadIpv6Header),
        (66, 0xf0, DropReason::BadL4Header),
        (0, 0x0a, DropReason::NotOurMac),
    ] {
        let mut broken = whole.clone();
        broken[at] = value;
        if at == 18 {
            broken[19] = 0xff;
        }
        assert_eq!(gateway.send(WAN, &broken).0, Verdict::Drop(reason), "byte {at}");
    }
}
