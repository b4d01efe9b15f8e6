//! NAT, DR and TUN, packet in, packet out, without DPDK. Expected bytes and checksums come from etherparse.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "forwarding/lab.rs"]
#[allow(dead_code, reason = "not every test looks at everything")]
mod lab;

use std::net::Ipv4Addr;

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{Icmpv4Type, IpFragOffset, Ipv4HeaderSlice, PacketBuilder};
use fullgate::balance::{Encapsulation, ForwardingMode, Protocol, RealServer, ServiceKey, ServiceTable, Tunnel};
use fullgate::forward::{DropReason, Hop, PuntClass, Verdict};
use fullgate::port::{MacAddress, PortId, WorkerId};
use lab::*;

const LAN_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

/// One service of one real server in this mode.
fn services(protocol: Protocol, mode: ForwardingMode, tunnel: Tunnel) -> ServiceTable {
    let port = if mode.is_one_way() { 80 } else { 8080 };
    let mut service = service(protocol, vec![RealServer { mode, port, ..server(0, SERVER, 1) }]);
    (service.pool, service.owned_by_client) = (None, mode == ForwardingMode::Nat);
    let has_nat = service.owned_by_client;
    ServiceTable { has_nat, tunnels: vec![tunnel], ..table(vec![service], PORTS) }
}

fn gateway(protocol: Protocol, mode: ForwardingMode) -> Gateway {
    Gateway::new(services(protocol, mode, Tunnel::default()))
}

/// What the real server sends to the client.
fn answer(payload: &[u8]) -> Spec<'_> {
    Spec { macs: (SERVER_MAC, LAN_MAC), source: (SERVER, 8080), destination: (CLIENT, 40_000), ttl: 60, payload }
}

/// A client's packet as a real server gets it that is reached through the gateway's `lan` port, TTL lowered.
fn passed_on(payload: &[u8]) -> Spec<'_> {
    Spec { macs: (LAN_MAC, SERVER_MAC), ttl: 63, ..from_client(payload) }
}

#[test]
fn nat_changes_the_destination_there_and_the_source_back() {
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        let mut gateway = gateway(protocol, ForwardingMode::Nat);
        let build = |spec: Spec<'_>, flags| match protocol {
            Protocol::Tcp => spec.tcp(flags, 7, 9),
            Protocol::Udp | Protocol::Icmp | Protocol::Any => spec.udp(),
            Protocol::Sctp => spec.sctp(flags),
        };
        let (verdict, out) = gateway.send(WAN, &build(from_client(b"question"), "S"));
        assert_eq!(verdict, Verdict::Transmit(LAN));
        assert_eq!(out, build(Spec { destination: (SERVER, 8080), ..passed_on(b"question") }, "S"));
        let (verdict, out) = gateway.send(LAN, &build(answer(b"answer"), "SA"));
        assert_eq!(verdict, Verdict::Transmit(WAN));
        let expected = Spec {
            macs: (WAN_MAC, CLIENT_MAC),
            source: (VIP, 80),
            destination: (CLIENT, 40_000),
            ttl: 59,
            payload: b"answer",
        };
        assert_eq!(out, build(expected, "SA"));
        let counters = &gateway.counters[0];
        assert_eq!((counters.sessions.get(), counters.local_addresses[0].ports_used.get()), (1, 0));
        gateway.pass_seconds(400);
        assert_eq!(gateway.counters[0].sessions.get(), 0);
    }
}

#[test]
fn nat_refuses_a_flow_whose_answers_would_be_anothers() {
    let second = Ipv4Addr::new(10, 0, 0, 101);
    let mut services = services(Protocol::Udp, ForwardingMode::Nat, Tunnel::default());
    let mut other = services.services[0].clone();
    other.key = ServiceKey { address: second.into(), ..other.key };
    services.by_key.insert(other.key, 1);
    services.virtual_addresses.insert(second.into());
    services.services.push(other);
    let mut gateway = Gateway::new(services);
    assert_eq!(gateway.send(WAN, &from_client(b"1").udp()).0, Verdict::Transmit(LAN));
    let clash = Spec { destination: (second, 80), ..from_client(b"2") };
    assert_eq!(gateway.send(WAN, &clash.udp()).0, Verdict::Drop(DropReason::AnswersAmbiguous));
    let apart = Spec { source: (CLIENT, 40_001), ..clash };
    assert_eq!(gateway.send(WAN, &apart.udp()).0, Verdict::Transmit(LAN));
}

#[test]
fn nat_brings_both_directions_to_the_clients_worker() {
    let mut owners = std::collections::HashSet::new();
    for port in 40_000..40_032 {
        let mut gateways = [0, 1].map(|worker| {
            Gateway::with(services(Protocol::Udp, ForwardingMode::Nat, Tunnel::default()), 2, WorkerId(worker), 100)
        });
        let question = Spec { source: (CLIENT, port), ..from_client(b"?") }.udp();
        let back = Spec { destination: (CLIENT, port), ..answer(b"!") }.udp();
        let owner = match gateways[0].send(WAN, &question).0 {
            Verdict::HandOver(owner) => owner,
            other => {
                assert_eq!(other, Verdict::Transmit(LAN));
                WorkerId(0)
            }
        };
        let other = 1 - owner.index();
        assert_eq!(gateways[other].send(LAN, &back).0, Verdict::HandOver(owner));
        gateways[owner.index()].send(WAN, &question);
        assert_eq!(gateways[owner.index()].send(LAN, &back).0, Verdict::Transmit(WAN));
        owners.insert(owner.0);
    }
    assert_eq!(owners.len(), 2, "both workers own some");
}

#[test]
fn dr_changes_link_layer_addresses_and_ttl_alone() {
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        let mut gateway = gateway(protocol, ForwardingMode::Dr);
        let build = |spec: Spec<'_>| match protocol {
            Protocol::Tcp => spec.tcp("S", 7, 9),
            Protocol::Udp | Protocol::Icmp | Protocol::Any => spec.udp(),
            Protocol::Sctp => spec.sctp("S"),
        };
        for _again in 0..2 {
            let (verdict, out) = gateway.send(WAN, &build(from_client(b"question")));
            assert_eq!((verdict, out), (Verdict::Transmit(LAN), build(passed_on(b"question"))));
        }
        assert_eq!(gateway.counters[0].real_servers[0].inbound.packets.get(), 2);
        gateway.pass_seconds(400);
        assert_eq!(gateway.counters[0].sessions.get(), 0);
    }
}

#[test]
fn dr_follows_a_connection_by_the_clients_packets_alone() {
    let mut gateway = gateway(Protocol::Tcp, ForwardingMode::Dr);
    let counts = |gateway: &Gateway| {
        let server = &gateway.counters[0].real_servers[0];
        (server.active.get(), server.inactive.get())
    };
    gateway.send(WAN, &from_client(b"").tcp("S", 1, 0));
    gateway.send(WAN, &from_client(b"").tcp("A", 2, 2));
    assert_eq!(counts(&gateway), (1, 0));
    gateway.send(WAN, &from_client(b"").tcp("FA", 2, 2));
    assert_eq!(counts(&gateway), (0, 1), "FIN_WAIT");
    gateway.pass_seconds(119);
    assert_eq!(counts(&gateway), (0, 1));
    gateway.pass_seconds(2);
    assert_eq!(counts(&gateway), (0, 0));
}

#[test]
fn dr_needs_the_real_server_on_a_link() {
    let far = Ipv4Addr::new(172, 16, 0, 1);
    let mut services = services(Protocol::Udp, ForwardingMode::Dr, Tunnel::default());
    services.services[0].real_servers[0].address = far.into();
    let mut gateway = Gateway::new(services.clone());
    let mut input = routes(&NEIGHBOURS, 1500);
    input.routes.push(fullgate::route::RouteEntry {
        destination: Ipv4Addr::UNSPECIFIED.into(),
        prefix_len: 0,
        metric: 0,
        next_hops: vec![fullgate::route::RouteNextHop { port: LAN, gateway: Some(SERVER.into()), weight: 1 }],
    });
    gateway.adopt(services, &input);
    assert_eq!(gateway.send(WAN, &from_client(b"x").udp()).0, Verdict::Drop(DropReason::RealServerNotOnLink));
    assert_eq!(gateway.send(WAN, &from_client(b"x").udp()).0, Verdict::Drop(DropReason::RealServerNotOnLink));
}

#[test]
fn dr_waits_for_a_neighbour_with_the_packet_ready_but_for_its_ethernet_header() {
    let mut gateway = gateway(Protocol::Udp, ForwardingMode::Dr);
    let table = services(Protocol::Udp, ForwardingMode::Dr, Tunnel::default());
    gateway.adopt(table, &routes(&NEIGHBOURS[..1], 1500));
    let (verdict, out) = gateway.send(WAN, &from_client(b"x").udp());
    assert_eq!(verdict, Verdict::AwaitNeighbour(Hop { port: LAN, address: SERVER.into() }));
    assert_eq!(out[14..], passed_on(b"x").udp()[14..]);
}

/// A gateway one of whose real servers is its own host, at this address.
fn with_local_node(protocol: Protocol, mode: ForwardingMode, address: Ipv4Addr) -> Gateway {
    let mut services = services(protocol, mode, Tunnel::default());
    services.services[0].real_servers[0].address = address.into();
    Gateway::new(services)
}

#[test]
fn the_hosts_own_packets_go_to_it_as_they_came_and_are_counted_as_any() {
    for (mode, address) in
        [(ForwardingMode::Dr, Ipv4Addr::LOCALHOST), (ForwardingMode::Tun, Ipv4Addr::new(10, 0, 0, 1))]
    {
        let mut gateway = with_local_node(Protocol::Tcp, mode, address);
        for (flags, ttl) in [("S", 64), ("A", 64), ("A", 1), ("FA", 64)] {
            let sent = Spec { ttl, ..from_client(b"") }.tcp(flags, 1, 1);
            assert_eq!(gateway.send(WAN, &sent), (Verdict::Punt(PuntClass::LocalNode), sent), "{mode:?} {flags}");
        }
        let server = &gateway.counters[0].real_servers[0];
        assert_eq!((server.inbound.packets.get(), server.active.get(), server.inactive.get()), (4, 0, 1));
        assert_eq!(gateway.sessions()[0].state, "FIN_WAIT");
    }
}

#[test]
fn the_host_gets_later_fragments_and_errors_about_its_answers_too() {
    let mut gateway = with_local_node(Protocol::Udp, ForwardingMode::Dr, Ipv4Addr::LOCALHOST);
    let whole = from_client(&[7; 64]).udp();
    let fragments = [fragment(&whole, 0, 40, true), fragment(&whole, 40, 32, false)];
    for sent in fragments {
        assert_eq!(gateway.send(WAN, &sent), (Verdict::Punt(PuntClass::LocalNode), sent));
    }
    let answer = Spec { source: (VIP, 80), destination: (CLIENT, 40_000), ..from_client(b"a") }.udp();
    let error = icmp_error(&answer[14..]);
    assert_eq!(gateway.send(WAN, &error), (Verdict::Punt(PuntClass::LocalNode), error));
}

/// A router's answer to a client's router: fragmentation needed, about this packet from the VIP.
fn icmp_error(quoted: &[u8]) -> Vec<u8> {
    let unreachable = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1300 };
    let header = PacketBuilder::ethernet2(CLIENT_MAC.0, WAN_MAC.0)
        .ipv4(CLIENT.octets(), VIP.octets(), 64)
        .icmpv4(Icmpv4Type::DestinationUnreachable(unreachable));
    let mut packet = Vec::new();
    header.write(&mut packet, quoted).unwrap();
    packet
}

/// So many bytes of an IPv4 packet's payload, from this place on.
fn fragment(whole: &[u8], at: usize, len: usize, more: bool) -> Vec<u8> {
    let mut header = Ipv4HeaderSlice::from_slice(&whole[14..34]).unwrap().to_header();
    header.fragment_offset = IpFragOffset::try_new((at / 8) as u16).unwrap();
    (header.more_fragments, header.identification, header.dont_fragment) = (more, 77, false);
    header.total_len = (20 + len) as u16;
    header.header_checksum = header.calc_header_checksum();
    [&whole[..14], &header.to_bytes(), &whole[34 + at..34 + at + len]].concat()
}

/// The outer IPv4 header of a frame, its checksum checked, and what follows it.
fn unwrap(frame: &[u8]) -> (etherparse::Ipv4Header, &[u8]) {
    assert_eq!((&frame[..6], &frame[6..12]), (&SERVER_MAC.0[..], &LAN_MAC.0[..]));
    let header = Ipv4HeaderSlice::from_slice(&frame[14..]).unwrap().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    assert_eq!((header.source, header.destination), (LAN_ADDRESS.octets(), SERVER.octets()));
    assert_eq!(usize::from(header.total_len), frame.len() - 14, "nothing stands behind the packet");
    (header, &frame[34..])
}

/// What a tunnel makes of a client's packet: the outer header, and what follows it.
fn tunnelled(tunnel: Tunnel, packet: &[u8]) -> (etherparse::Ipv4Header, Vec<u8>) {
    let mut gateway = Gateway::new(services(Protocol::Udp, ForwardingMode::Tun, tunnel));
    let (verdict, out) = gateway.send(WAN, packet);
    assert_eq!(verdict, Verdict::Transmit(LAN));
    let (header, rest) = unwrap(&out);
    assert_eq!(header.time_to_live, 63, "the inner packet's");
    (header, rest.to_vec())
}

/// A packet of even and of odd length, long enough that nothing pads it; and a short one in a padded frame.
fn packets() -> [Vec<u8>; 3] {
    let [even, odd] =
        [b"forty bytes of payload, to be even......".as_slice(), b"forty-one bytes of payload, to be odd...."]
            .map(|payload| from_client(payload).udp());
    let mut padded = from_client(b"x").udp();
    padded.resize(60, 0);
    [even, odd, padded]
}

/// The client's packet inside: as it came, but for its TTL.
fn inner(packet: &[u8]) -> Vec<u8> {
    let payload = see(packet).payload;
    passed_on(&payload).udp()[14..].to_vec()
}

#[test]
fn tun_wraps_in_ip() {
    for packet in packets() {
        let (header, rest) = tunnelled(Tunnel::default(), &packet);
        assert_eq!((header.protocol.0, rest), (4, inner(&packet)));
        assert_eq!((header.dont_fragment, header.identification), (true, 0));
    }
}

#[test]
fn tun_wraps_in_gre() {
    for (checksum, packet) in packets().into_iter().flat_map(|packet| [(false, packet.clone()), (true, packet)]) {
        let tunnel = Tunnel { encapsulation: Encapsulation::Gre, checksum, port: 0 };
        let (header, rest) = tunnelled(tunnel, &packet);
        assert_eq!(header.protocol.0, 47);
        if checksum {
            assert_eq!(rest[..4], [0x80, 0, 8, 0]);
            assert_eq!(sixteen_bit_sum(&rest), 0xffff);
            assert_eq!((&rest[6..8], rest[8..].to_vec()), (&[0, 0][..], inner(&packet)));
        } else {
            assert_eq!((&rest[..4], rest[4..].to_vec()), (&[0, 0, 8, 0][..], inner(&packet)));
        }
    }
}

#[test]
fn tun_wraps_in_gue() {
    for (checksum, packet) in packets().into_iter().flat_map(|packet| [(false, packet.clone()), (true, packet)]) {
        let tunnel = Tunnel { encapsulation: Encapsulation::Gue, checksum, port: 6080 };
        let (header, rest) = tunnelled(tunnel, &packet);
        assert_eq!(header.protocol.0, 17);
        let udp = etherparse::UdpHeaderSlice::from_slice(&rest).unwrap().to_header();
        assert_eq!((udp.destination_port, usize::from(udp.length)), (6080, rest.len()));
        assert!(udp.source_port >= 0xc000);
        assert_eq!((&rest[8..12], rest[12..].to_vec()), (&[0, 4, 0, 0][..], inner(&packet)));
        let expected = if checksum { udp.calc_checksum_ipv4(&header, &rest[8..]).unwrap() } else { 0 };
        assert_eq!(udp.checksum, expected);
        let (_, again) = tunnelled(tunnel, &packet);
        assert_eq!(again[..2], rest[..2], "a flow keeps its source port");
    }
}

fn sixteen_bit_sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low)));
    let sum: u32 = words.sum();
    let once = (sum >> 16) + (sum & 0xffff);
    (once >> 16) + (once & 0xffff)
}

#[test]
fn tun_carries_dscp_ecn_and_df_outside_too() {
    let mut packet = Vec::new();
    let mut ip =
        etherparse::Ipv4Header::new(8 + 4, 64, etherparse::ip_number::UDP, CLIENT.octets(), VIP.octets()).unwrap();
    (ip.dont_fragment, ip.identification) = (false, 77);
    ip.dscp = 46.try_into().unwrap();
    ip.ecn = 3.try_into().unwrap();
    let headers = etherparse::IpHeaders::Ipv4(ip, Default::default());
    let step = PacketBuilder::ethernet2(CLIENT_MAC.0, WAN_MAC.0).ip(headers).udp(40_000, 80);
    step.write(&mut packet, b"data").unwrap();
    let mut gateway = Gateway::new(services(Protocol::Udp, ForwardingMode::Tun, Tunnel::default()));
    let ids = [(); 2].map(|()| {
        let (_, out) = gateway.send(WAN, &packet);
        let (header, _) = unwrap(&out);
        assert_eq!((header.dscp.value(), header.ecn.value(), header.dont_fragment), (46, 3, false));
        header.identification
    });
    assert_ne!(ids[0], ids[1], "what may be fragmented needs an identification of its own");
}

#[test]
fn tun_takes_its_own_bytes_off_the_path_mtu() {
    let gue = Tunnel { encapsulation: Encapsulation::Gue, checksum: false, port: 6080 };
    for (tunnel, overhead) in [(Tunnel::default(), 20), (gue, 32)] {
        let mut gateway = Gateway::new(services(Protocol::Udp, ForwardingMode::Tun, tunnel));
        let fits = vec![1; 1500 - overhead - 28];
        let (verdict, out) = gateway.send(WAN, &from_client(&fits).udp());
        assert_eq!((verdict, out.len()), (Verdict::Transmit(LAN), 1514));
        let (verdict, out) = gateway.send(WAN, &from_client(&[fits, vec![1]].concat()).udp());
        assert_eq!((verdict, &out[34..36]), (Verdict::Transmit(WAN), &[3, 4][..]), "fragmentation needed");
        assert_eq!(usize::from(u16::from_be_bytes([out[40], out[41]])), 1500 - overhead);
    }
}

#[test]
fn tun_needs_an_address_to_send_from() {
    let table = services(Protocol::Udp, ForwardingMode::Tun, Tunnel::default());
    let mut gateway = Gateway::new(table.clone());
    let mut input = routes(&NEIGHBOURS, 1500);
    input.interfaces[1].address = None;
    gateway.adopt(table, &input);
    assert_eq!(gateway.send(WAN, &from_client(b"x").udp()).0, Verdict::Drop(DropReason::NoSourceAddress));
}

#[test]
fn real_servers_of_one_service_may_be_in_different_modes() {
    let second = Ipv4Addr::new(10, 1, 0, 12);
    let dr = RealServer { mode: ForwardingMode::Dr, port: 80, ..server(1, second, 1) };
    let services = table(vec![service(Protocol::Udp, vec![server(0, SERVER, 1), dr])], PORTS);
    let mut gateway = Gateway::new(services.clone());
    let mac = MacAddress([2, 0, 0, 0, 2, 2]);
    gateway.adopt(services, &routes(&[NEIGHBOURS[0], NEIGHBOURS[1], (LAN, second, mac)], 1500));
    let mut seen = Vec::new();
    for port in 1..=4 {
        let (verdict, out) = gateway.send(WAN, &Spec { source: (CLIENT, port), ..from_client(b"x") }.udp());
        assert_eq!(verdict, Verdict::Transmit(LAN));
        let packet = see(&out);
        seen.push((packet.destination.0, packet.source.0));
    }
    seen.sort_unstable();
    assert_eq!(seen, [(VIP, CLIENT), (VIP, CLIENT), (SERVER, LIP), (SERVER, LIP)]);
}

#[test]
fn a_packet_without_a_session_to_nobody_here_is_dropped_by_its_owner() {
    let mut gateway = gateway(Protocol::Udp, ForwardingMode::Nat);
    let stray = Spec { destination: (Ipv4Addr::new(192, 0, 2, 9), 53), ..answer(b"x") };
    assert_eq!(gateway.send(LAN, &stray.udp()).0, Verdict::Drop(DropReason::NotLocal));
    assert_ne!(gateway.send(LAN, &stray.udp()).0, Verdict::Transmit(PortId(0)));
}
