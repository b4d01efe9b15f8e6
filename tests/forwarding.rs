//! The fast path, packet in, packet out, without DPDK. Expected bytes and checksums come from etherparse.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "forwarding/lab.rs"]
#[allow(dead_code, reason = "not every test looks at everything")]
mod lab;

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use fullgate::balance::{PortRange, Protocol};
use fullgate::flow::ownership::Ownership;
use fullgate::flow::rss::RssDeal;
use fullgate::flow::toeplitz::Toeplitz;
use fullgate::forward::{DropReason, Hop, PuntClass, Verdict};
use fullgate::port::{PortId, WorkerId};
use fullgate::route::Neighbour;
use lab::*;
use proptest::prelude::*;

fn udp_gateway() -> Gateway {
    Gateway::new(table(vec![service(Protocol::Udp, vec![server(0, SERVER, 1)])], PORTS))
}

fn tcp_gateway() -> Gateway {
    Gateway::new(table(vec![service(Protocol::Tcp, vec![server(0, SERVER, 1)])], PORTS))
}

/// Sends a client's packet through and gives the local address and port that it left with.
fn open(gateway: &mut Gateway, packet: &[u8]) -> (Ipv4Addr, u16) {
    let (verdict, out) = gateway.send(WAN, packet);
    assert_eq!(verdict, Verdict::Transmit(LAN));
    see(&out).source
}

/// The real server's answer to a local address.
fn reply(local: (Ipv4Addr, u16), payload: &[u8]) -> Spec<'_> {
    Spec { macs: (SERVER_MAC, LAN_MAC), source: (SERVER, 8080), destination: local, ttl: 60, payload }
}

/// Nobody else has the gateway's addresses: what comes from them comes from a forger, or round a loop.
#[test]
fn clients_have_none_of_the_gateways_addresses() {
    let services = || vec![service(Protocol::Udp, vec![server(0, SERVER, 1)])];
    let from = |address| Spec { source: (address, 40_000), ..from_client(b"?") }.udp();
    for own in [VIP, LIP, Ipv4Addr::new(10, 0, 0, 1)] {
        let mut gateway = Gateway::new(table(services(), PORTS));
        assert_eq!(gateway.send(WAN, &from(own)).0, Verdict::Drop(DropReason::MartianSource), "{own}");
    }
    // Its last six bits are those of the VIP.
    let mut gateway = Gateway::new(table(services(), PORTS));
    assert_eq!(gateway.send(WAN, &from(Ipv4Addr::new(10, 0, 0, 100 - 64))).0, Verdict::Transmit(LAN));
}

#[test]
fn udp_there_and_back() {
    let mut gateway = udp_gateway();
    let (verdict, out) = gateway.send(WAN, &from_client(b"a question").udp());
    assert_eq!(verdict, Verdict::Transmit(LAN));
    let seen = see(&out);
    assert_eq!((seen.macs.0, seen.macs.1), (LAN_MAC.0, SERVER_MAC.0));
    assert_eq!((seen.source.0, seen.destination, seen.ttl), (LIP, (SERVER, 8080), 63));
    assert!(seen.source.1 >= 1024);
    // To the byte what an independent builder makes of the expected packet.
    let expected = Spec {
        macs: (LAN_MAC, SERVER_MAC),
        source: seen.source,
        destination: (SERVER, 8080),
        ttl: 63,
        payload: b"a question",
    };
    assert_eq!(out, expected.udp());

    let (verdict, out) = gateway.send(LAN, &reply(seen.source, b"an answer").udp());
    assert_eq!(verdict, Verdict::Transmit(WAN));
    let expected = Spec {
        macs: (WAN_MAC, CLIENT_MAC),
        source: (VIP, 80),
        destination: (CLIENT, 40_000),
        ttl: 59,
        payload: b"an answer",
    };
    assert_eq!(out, expected.udp());
}

#[test]
fn tcp_keeps_one_session_through_a_connection() {
    let mut gateway = tcp_gateway();
    let local = open(&mut gateway, &from_client(b"").tcp("S", 100, 0));
    let (verdict, out) = gateway.send(LAN, &reply(local, b"").tcp("SA", 500, 101));
    assert_eq!((verdict, see(&out).destination), (Verdict::Transmit(WAN), (CLIENT, 40_000)));
    assert_eq!(open(&mut gateway, &from_client(b"").tcp("A", 101, 501)), local);
    assert_eq!(open(&mut gateway, &from_client(b"GET /").tcp("A", 101, 501)), local);
    let counters = &gateway.counters[0];
    assert_eq!((counters.sessions.get(), counters.sessions_created.get()), (1, 1));
    let server = &counters.real_servers[0];
    assert_eq!((server.active.get(), server.inactive.get(), server.connections.get()), (1, 0, 1));
    assert_eq!((server.inbound.packets.get(), server.outbound.packets.get()), (3, 1));
    assert_eq!((server.inbound.bytes.get(), server.outbound.bytes.get()), (125, 40));

    gateway.send(WAN, &from_client(b"").tcp("FA", 106, 501));
    gateway.send(LAN, &reply(local, b"").tcp("FA", 501, 107));
    assert_eq!((server_counts(&gateway)), (0, 1), "TIME_WAIT is inactive");
    gateway.pass_seconds(119);
    assert_eq!(gateway.counters[0].sessions.get(), 1);
    gateway.pass_seconds(2);
    assert_eq!((gateway.counters[0].sessions.get(), server_counts(&gateway)), (0, (0, 0)));
    assert_eq!(gateway.counters[0].local_addresses[0].ports_used.get(), 0);
}

fn server_counts(gateway: &Gateway) -> (u64, u64) {
    let server = &gateway.counters[0].real_servers[0];
    (server.active.get(), server.inactive.get())
}

#[test]
fn a_burst_may_open_and_use_a_session_at_once() {
    let mut gateway = tcp_gateway();
    let burst = [from_client(b"").tcp("S", 1, 0), from_client(b"x").tcp("A", 2, 1), from_client(b"y").tcp("A", 3, 1)];
    let out = gateway.send_burst(WAN, &burst);
    let sources: Vec<_> = out.iter().map(|(_, bytes)| see(bytes).source).collect();
    assert!(out.iter().all(|(verdict, _)| *verdict == Verdict::Transmit(LAN)));
    assert!(sources.iter().all(|source| *source == sources[0]));
    assert_eq!(gateway.counters[0].sessions_created.get(), 1);
}

#[test]
fn a_syn_after_the_end_is_scheduled_anew() {
    let mut gateway = tcp_gateway();
    let local = open(&mut gateway, &from_client(b"").tcp("S", 1, 0));
    gateway.send(LAN, &reply(local, b"").tcp("RA", 0, 2));
    let again = open(&mut gateway, &from_client(b"").tcp("S", 1000, 0));
    assert_ne!(again.1, local.1, "the port rests");
    assert_eq!((gateway.counters[0].sessions.get(), gateway.counters[0].sessions_created.get()), (1, 2));
}

#[test]
fn udp_without_checksum_stays_without() {
    let mut gateway = udp_gateway();
    let mut packet = from_client(b"unchecked").udp();
    packet[40..42].fill(0);
    let (_, out) = gateway.send(WAN, &packet);
    assert_eq!((&out[40..42], see(&out).payload.as_slice()), (&[0, 0][..], &b"unchecked"[..]));
}

#[test]
fn ip_options_are_carried_along() {
    let mut gateway = udp_gateway();
    let plain = from_client(b"data").udp();
    // Four NOPs between header and UDP; header length and total length grow, and the checksum is made anew.
    let mut packet = [&plain[..34], &[1, 1, 1, 1], &plain[34..]].concat();
    packet[14] = 0x46;
    packet[16..18].copy_from_slice(&(plain.len() as u16 - 14 + 4).to_be_bytes());
    let mut header = etherparse::Ipv4Header::from_slice(&packet[14..]).unwrap().0;
    header.header_checksum = header.calc_header_checksum();
    packet[24..26].copy_from_slice(&header.header_checksum.to_be_bytes());
    let (verdict, out) = gateway.send(WAN, &packet);
    assert_eq!(verdict, Verdict::Transmit(LAN));
    assert_eq!((see(&out).destination, &out[34..38]), ((SERVER, 8080), &[1, 1, 1, 1][..]));
}

#[test]
fn what_follows_the_packet_is_cut_off_but_padding_is_kept() {
    let mut gateway = udp_gateway();
    let mut short = from_client(b"ab").udp();
    short.resize(60, 0xee);
    assert_eq!(gateway.send(WAN, &short).1.len(), 60);
    let mut long = from_client(&[7; 100]).udp();
    let len = long.len();
    long.extend([0xee; 30]);
    assert_eq!(gateway.send(WAN, &long).1.len(), len);
}

#[test]
fn a_reset_answers_what_belongs_to_no_connection() {
    let mut gateway = tcp_gateway();
    let (verdict, out) = gateway.send(WAN, &from_client(b"four").tcp("A", 7, 9000));
    assert_eq!(verdict, Verdict::Transmit(WAN));
    let answer =
        Spec { macs: (WAN_MAC, CLIENT_MAC), source: (VIP, 80), destination: (CLIENT, 40_000), ttl: 64, payload: b"" };
    assert_same_but_window(&out, &answer.tcp("R", 9000, 0));

    let (verdict, out) = gateway.send(WAN, &from_client(b"four").tcp("F", 7, 0));
    assert_eq!(verdict, Verdict::Transmit(WAN));
    assert_same_but_window(&out, &answer.tcp("RA", 0, 7 + 4 + 1));

    let (verdict, _) = gateway.send(WAN, &from_client(b"").tcp("RA", 7, 9000));
    assert_eq!(verdict, Verdict::Drop(DropReason::NoSession), "never a RST for a RST");
    let (verdict, _) = gateway.send(LAN, &reply((LIP, 5000), b"").tcp("A", 1, 1));
    assert_eq!(verdict, Verdict::Transmit(LAN), "a real server's stale connection is reset too");
    assert_eq!(gateway.counters[0].resets_sent.get(), 3);
}

/// The builder puts a window into its RST; ours has none, which is as right.
fn assert_same_but_window(ours: &[u8], theirs: &[u8]) {
    let seen = see(ours);
    let mut theirs = theirs.to_vec();
    theirs[48..50].fill(0);
    theirs[50..52].copy_from_slice(&ours[50..52]);
    theirs[20] = ours[20];
    theirs[24..26].copy_from_slice(&ours[24..26]);
    assert_eq!((ours, seen.payload.len()), (theirs.as_slice(), 0));
}

#[test]
fn ttl_is_a_routers() {
    let mut gateway = udp_gateway();
    let packet = Spec { ttl: 1, ..from_client(b"last hop") }.udp();
    let (verdict, out) = gateway.send(WAN, &packet);
    assert_eq!(verdict, Verdict::Transmit(WAN));
    assert_icmp(&out, &packet, 11, 0, [0, 0]);
    assert_eq!(see(&gateway.send(WAN, &Spec { ttl: 2, ..from_client(b"") }.udp()).1).ttl, 1);
}

/// An ICMP error from the VIP to the client, quoting `quoted`, with right checksums.
fn assert_icmp(out: &[u8], quoted: &[u8], kind: u8, code: u8, last_word: [u8; 2]) {
    let header = etherparse::Ipv4Header::from_slice(&out[14..]).unwrap().0;
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    assert_eq!((header.source, header.destination, header.protocol.0), (VIP.octets(), CLIENT.octets(), 1));
    assert_eq!((&out[..6], &out[6..12]), (&CLIENT_MAC.0[..], &WAN_MAC.0[..]));
    let message = &out[34..];
    assert_eq!((message[0], message[1], [message[6], message[7]]), (kind, code, last_word));
    let zeroed = [&message[..2], &[0, 0], &message[4..]].concat();
    let sum = etherparse::checksum::u64_16bit_word::add_slice(0, &zeroed);
    let checksum = etherparse::checksum::u64_16bit_word::ones_complement(sum);
    assert_eq!(checksum.to_ne_bytes(), [message[2], message[3]], "ICMP checksum");
    let len = message.len() - 8;
    assert_eq!(message[8..], quoted[14..14 + len]);
    assert_eq!(len, (quoted.len() - 14).min(548));
}

#[test]
fn too_big_packets_are_answered_or_cut() {
    let mut gateway = udp_gateway();
    open(&mut gateway, &from_client(b"").udp());
    gateway.adopt(table(vec![service(Protocol::Udp, vec![server(0, SERVER, 1)])], PORTS), &routes(&NEIGHBOURS, 1000));
    let mut packet = from_client(&[1; 1200]).udp();
    packet[20] = 0x40;
    fix_ipv4_checksum(&mut packet);
    let (verdict, out) = gateway.send(WAN, &packet);
    assert_eq!(verdict, Verdict::Transmit(WAN));
    assert_icmp(&out, &packet, 3, 4, 1000u16.to_be_bytes());
    packet[20] = 0;
    fix_ipv4_checksum(&mut packet);
    assert_eq!(gateway.send(WAN, &packet).0, Verdict::Cut(1000));
}

/// A jumbo frame in several buffers is forwarded as one in a single buffer is, whatever is in the first, as long as
/// the headers are.
#[test]
fn packets_in_several_buffers_go_the_same_way() {
    let payload: Vec<u8> = (0..8900u32).map(|number| number.to_le_bytes()[0]).collect();
    let jumbo = |gateway: &mut Gateway, service: fullgate::balance::Service| {
        gateway.adopt(table(vec![service], PORTS), &routes(&NEIGHBOURS, 9000));
    };
    for tcp in [false, true] {
        let packet = |spec: Spec<'_>, flags| if tcp { spec.tcp(flags, 7, 9) } else { spec.udp() };
        let gateway = || {
            let mut gateway = if tcp { tcp_gateway() } else { udp_gateway() };
            let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
            jumbo(&mut gateway, service(protocol, vec![server(0, SERVER, 1)]));
            gateway.send(WAN, &packet(from_client(b""), "S"));
            gateway
        };
        let large = packet(from_client(&payload), "A");
        let (verdict, whole) = gateway().send(WAN, &large);
        assert_eq!(verdict, Verdict::Transmit(LAN));
        let headers = if tcp { 54 } else { 42 };
        for first in [headers, headers + 1, 2048, 8000, large.len() - 1] {
            assert_eq!(gateway().send_scattered(WAN, &large, first), (verdict, whole.clone()), "{first} bytes");
        }
        for first in [1, 14, 30, headers - 1] {
            let (verdict, _) = gateway().send_scattered(WAN, &large, first);
            assert_eq!(verdict, Verdict::Drop(DropReason::Truncated), "{first} bytes, tcp {tcp}");
        }
        // What follows the packet is cut off, wherever it begins.
        let longer = [&large[..], &[0; 100]].concat();
        for first in [2048, large.len(), large.len() + 50] {
            assert_eq!(gateway().send_scattered(WAN, &longer, first).1, whole, "{first} bytes");
        }
    }
}

#[test]
fn answers_to_packets_in_several_buffers_are_in_one() {
    let mut gateway = udp_gateway();
    open(&mut gateway, &from_client(b"").udp());
    let mut packet = from_client(&[1; 8000]).udp();
    packet[20] = 0x40;
    fix_ipv4_checksum(&mut packet);
    let (verdict, out) = gateway.send_scattered(WAN, &packet, 2048);
    assert_eq!(verdict, Verdict::Transmit(WAN));
    assert_icmp(&out, &packet, 3, 4, 1500u16.to_be_bytes());
    // A reset, which quotes nothing.
    let mut gateway = tcp_gateway();
    let (verdict, out) = gateway.send_scattered(WAN, &from_client(&[1; 4000]).tcp("A", 5, 6), 1000);
    assert_eq!((verdict, out.len()), (Verdict::Transmit(WAN), 54));
}

fn fix_ipv4_checksum(packet: &mut [u8]) {
    let header = etherparse::Ipv4Header::from_slice(&packet[14..]).unwrap().0;
    packet[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
}

#[test]
fn without_a_real_server_the_port_is_unreachable() {
    let mut gateway = Gateway::new(table(vec![service(Protocol::Udp, vec![server(0, SERVER, 0)])], PORTS));
    let packet = from_client(b"anyone?").udp();
    let (verdict, out) = gateway.send(WAN, &packet);
    assert_eq!(verdict, Verdict::Transmit(WAN));
    assert_icmp(&out, &packet, 3, 3, [0, 0]);
    let answered = (0..1000).filter(|_| gateway.send(WAN, &packet).0 == Verdict::Transmit(WAN)).count();
    assert!(answered < 200, "{answered} errors at one moment: they are rate-limited");
}

#[test]
fn weight_0_drains_and_removal_silences() {
    let mut gateway = udp_gateway();
    let local = open(&mut gateway, &from_client(b"").udp());
    let drained = table(vec![service(Protocol::Udp, vec![server(0, SERVER, 0)])], PORTS);
    gateway.adopt(drained, &routes(&NEIGHBOURS, 1500));
    assert_eq!(open(&mut gateway, &from_client(b"").udp()), local, "the session stays");

    let mut removed = table(vec![service(Protocol::Udp, vec![])], PORTS);
    removed.real_server_present[0] = false;
    gateway.adopt(removed, &routes(&NEIGHBOURS, 1500));
    assert_eq!(gateway.send(WAN, &from_client(b"").udp()).0, Verdict::Drop(DropReason::RealServerRemoved));
    assert_eq!(gateway.send(LAN, &reply(local, b"").udp()).0, Verdict::Transmit(WAN));
}

#[test]
fn an_unresolved_hop_is_waited_for() {
    let mut gateway = udp_gateway();
    let services = || table(vec![service(Protocol::Udp, vec![server(0, SERVER, 1)])], PORTS);
    gateway.adopt(services(), &routes(&NEIGHBOURS[..1], 1500));
    let hop = Hop { port: LAN, address: SERVER.into() };
    let (verdict, out) = gateway.send(WAN, &from_client(b"wait").udp());
    assert_eq!(verdict, Verdict::AwaitNeighbour(hop));
    let mut frame = fullgate::port::memory::MemoryFrame::new(&out);
    assert!(!gateway.forwarder.complete(&mut frame, hop));
    gateway.adopt(services(), &routes(&NEIGHBOURS, 1500));
    assert!(gateway.forwarder.complete(&mut frame, hop));
    let seen = see(fullgate::port::Frame::bytes(&frame));
    assert_eq!((seen.macs, seen.destination, seen.ttl), ((LAN_MAC.0, SERVER_MAC.0), (SERVER, 8080), 63));
}

#[test]
fn an_ipv4_packet_goes_to_an_ipv6_gateway_under_an_ipv4_header() {
    let gateway_address = "fe80::11".parse().unwrap();
    let hop = Hop { port: LAN, address: gateway_address };
    let mut input = routes(&NEIGHBOURS[..1], 1500);
    input.routes[1].next_hops[0].gateway = Some(gateway_address);
    let mut gateway = udp_gateway();
    let services = || table(vec![service(Protocol::Udp, vec![server(0, SERVER, 1)])], PORTS);
    gateway.adopt(services(), &input);
    let (verdict, out) = gateway.send(WAN, &from_client(b"wait").udp());
    assert_eq!(verdict, Verdict::AwaitNeighbour(hop));
    let mut frame = fullgate::port::memory::MemoryFrame::new(&out);
    assert!(!gateway.forwarder.complete(&mut frame, hop));
    input.neighbours.push(Neighbour { hop, mac: SERVER_MAC });
    gateway.adopt(services(), &input);
    assert!(gateway.forwarder.complete(&mut frame, hop));
    let (verdict, next) = gateway.send(WAN, &from_client(b"wait").udp());
    assert_eq!(verdict, Verdict::Transmit(LAN));
    for bytes in [fullgate::port::Frame::bytes(&frame), &next] {
        let seen = see(bytes);
        assert_eq!((seen.macs, seen.destination), ((LAN_MAC.0, SERVER_MAC.0), (SERVER, 8080)));
        assert_eq!(bytes[12..14], [8, 0]);
    }
}

#[test]
fn a_changed_mac_is_followed_by_known_sessions() {
    let mut gateway = udp_gateway();
    open(&mut gateway, &from_client(b"").udp());
    let other = fullgate::port::MacAddress([2, 0, 0, 0, 2, 99]);
    let services = table(vec![service(Protocol::Udp, vec![server(0, SERVER, 1)])], PORTS);
    gateway.adopt(services, &routes(&[NEIGHBOURS[0], (LAN, SERVER, other)], 1500));
    assert_eq!(see(&gateway.send(WAN, &from_client(b"").udp()).1).macs.1, other.0);
}

#[test]
fn limits_are_counted_drops() {
    let one_port = PortRange { first: 5000, last: 5000 };
    let mut gateway = Gateway::new(table(vec![service(Protocol::Udp, vec![server(0, SERVER, 1)])], one_port));
    open(&mut gateway, &from_client(b"").udp());
    let second = Spec { source: (CLIENT, 40_001), ..from_client(b"") }.udp();
    assert_eq!(gateway.send(WAN, &second).0, Verdict::Drop(DropReason::LocalPortsExhausted));

    let services = table(vec![service(Protocol::Udp, vec![server(0, SERVER, 1)])], PORTS);
    let mut gateway = Gateway::with(services, 1, WorkerId(0), 1);
    open(&mut gateway, &from_client(b"").udp());
    assert_eq!(gateway.send(WAN, &second).0, Verdict::Drop(DropReason::SessionTableFull));
    assert_eq!(gateway.send(WAN, &from_client(b"").udp()).0, Verdict::Transmit(LAN), "those that are there go on");
    assert_eq!(gateway.counters[0].local_addresses[0].ports_used.get(), 1);

    let mut empty = table(vec![service(Protocol::Udp, vec![server(0, SERVER, 1)])], PORTS);
    empty.pools[0].ipv4.clear();
    assert_eq!(Gateway::new(empty).send(WAN, &second).0, Verdict::Drop(DropReason::NoLocalAddress));
}

#[test]
fn a_full_table_refuses_new_sessions_keeps_its_own_and_has_room_again_after_expiry() {
    let capacity = 2000;
    let services = table(vec![service(Protocol::Udp, vec![server(0, SERVER, 1)])], PORTS);
    let mut gateway = Gateway::with(services, 1, WorkerId(0), capacity);
    let client = |number: u32| {
        let source = (CLIENT, 1024 + number as u16);
        Spec { source, ..from_client(b"") }.udp()
    };
    let locals: Vec<_> = (0..capacity).map(|number| open(&mut gateway, &client(number))).collect();
    gateway.pass_seconds(200);
    for number in capacity..capacity + 500 {
        assert_eq!(gateway.send(WAN, &client(number)).0, Verdict::Drop(DropReason::SessionTableFull));
    }
    // Half of the old ones go on, both ways, by the local ports that they had.
    for number in 0..capacity / 2 {
        assert_eq!(open(&mut gateway, &client(number)), locals[number as usize]);
        let answer = reply(locals[number as usize], b"").udp();
        assert_eq!(gateway.send(LAN, &answer).0, Verdict::Transmit(WAN));
    }
    let held = |gateway: &Gateway| {
        (gateway.counters[0].sessions.get(), gateway.counters[0].local_addresses[0].ports_used.get())
    };
    assert_eq!(held(&gateway), (2000, 2000), "what was refused holds nothing");
    gateway.pass_seconds(200);
    assert_eq!(held(&gateway), (1000, 1000), "the others' time is over");
    for number in capacity..capacity + 1000 {
        open(&mut gateway, &client(number));
    }
    assert_eq!(gateway.send(WAN, &client(capacity + 1000)).0, Verdict::Drop(DropReason::SessionTableFull));
}

#[test]
fn each_worker_gets_what_it_owns() {
    let services = || table(vec![service(Protocol::Udp, vec![server(0, SERVER, 1)])], PORTS);
    let mut workers = [0, 1].map(|worker| Gateway::with(services(), 2, WorkerId(worker), 1000));
    let mut kept = [0; 2];
    for port in 1024..1224 {
        let packet = Spec { source: (CLIENT, port), ..from_client(b"") }.udp();
        let verdicts = [0, 1].map(|worker: usize| workers[worker].send(WAN, &packet));
        let owner = verdicts.iter().position(|(verdict, _)| *verdict == Verdict::Transmit(LAN)).unwrap();
        assert_eq!(verdicts[1 - owner].0, Verdict::HandOver(WorkerId(owner as u8)));
        kept[owner] += 1;
        // The answer finds the same worker by its local port.
        let local = see(&verdicts[owner].1).source;
        assert_eq!(usize::from(local.1 % 2), owner);
        let answer = reply(local, b"").udp();
        assert_eq!(workers[1 - owner].send(LAN, &answer).0, Verdict::HandOver(WorkerId(owner as u8)));
        assert_eq!(workers[owner].send(LAN, &answer).0, Verdict::Transmit(WAN));
    }
    assert!(kept.iter().all(|&kept| kept > 60), "{kept:?}");
}

/// A port whose RSS is known: answers come to the worker that the device's hash names, by any local port.
#[test]
fn with_rss_local_ports_are_those_whose_answers_come_back() {
    const KEY: [u8; 40] = *b"forty bytes that the gateway has drawn..";
    let table_of_device: Vec<u16> = (0..128).map(|entry| entry % 3).collect();
    let deal = Arc::new(RssDeal::new(&KEY, &table_of_device, 3).unwrap());
    let toeplitz = Toeplitz::new(&KEY).unwrap();
    let ownership = Ownership::new(3, [None, Some(deal)]);
    let services = || table(vec![service(Protocol::Udp, vec![server(0, SERVER, 1)])], PORTS);
    let mut workers = [0, 1, 2].map(|worker| Gateway::owning(ownership.clone(), services(), 3, WorkerId(worker), 1000));
    let mut remainders = HashSet::new();
    for port in 1024..1324 {
        let packet = Spec { source: (CLIENT, port), ..from_client(b"") }.udp();
        let verdicts = [0, 1, 2].map(|worker: usize| workers[worker].send(WAN, &packet));
        let owner = verdicts.iter().position(|(verdict, _)| *verdict == Verdict::Transmit(LAN)).unwrap();
        let local = see(&verdicts[owner].1).source;
        let queue = toeplitz.hash_v4(SERVER, local.0, 8080, local.1) % 128 % 3;
        assert_eq!(queue as usize, owner, "the device brings it there");
        remainders.insert((owner, local.1 % 3));
        // Also one that came another way finds the owner, by the port that the local address stands on.
        let answer = reply(local, b"").udp();
        let elsewhere = Spec { macs: (SERVER_MAC, WAN_MAC), ..reply(local, b"") }.udp();
        for (worker, from, answer) in [(owner + 1, LAN, &answer), (owner + 2, WAN, &elsewhere)] {
            assert_eq!(workers[worker % 3].send(from, answer).0, Verdict::HandOver(WorkerId(owner as u8)));
        }
        assert_eq!(workers[owner].send(LAN, &answer).0, Verdict::Transmit(WAN));
    }
    assert_eq!(remainders.len(), 9, "every worker uses every kind of port: {remainders:?}");
}

/// What becomes of packets that are for nobody's service: description, port, packet, verdict.
#[test]
fn the_rest_is_punted_or_dropped_by_name() {
    let broken = |at: usize, value: u8| {
        let mut packet = from_client(b"payload").udp();
        packet[at] = value;
        packet
    };
    let refitted = |at: usize, value: u8| {
        let mut packet = broken(at, value);
        fix_ipv4_checksum(&mut packet);
        packet
    };
    let ether =
        |ethertype: [u8; 2], destination: [u8; 6]| [&destination[..], &CLIENT_MAC.0, &ethertype, &[0; 46]].concat();
    let to = |address: Ipv4Addr| Spec { destination: (address, 22), ..from_client(b"") }.udp();
    let cases: Vec<(&str, Vec<u8>, Verdict)> = vec![
        ("nothing", vec![], Verdict::Drop(DropReason::Truncated)),
        ("half an Ethernet header", vec![2; 9], Verdict::Drop(DropReason::Truncated)),
        ("all zeros", vec![0; 60], Verdict::Drop(DropReason::NotOurMac)),
        ("ARP", ether([8, 6], [0xff; 6]), Verdict::Punt(PuntClass::Arp)),
        ("IPv6 of zeros", ether([0x86, 0xdd], [0x33, 0x33, 0, 0, 0, 1]), Verdict::Drop(DropReason::BadIpv6Header)),
        ("VLAN", ether([0x81, 0], WAN_MAC.0), Verdict::Drop(DropReason::UnknownEthertype)),
        ("another machine's MAC", broken(5, 77), Verdict::Drop(DropReason::NotOurMac)),
        ("unicast in a broadcast frame", broken(0, 0xff), Verdict::Drop(DropReason::NotOurMac)),
        ("IP header cut", from_client(b"").udp()[..30].to_vec(), Verdict::Drop(DropReason::Truncated)),
        ("UDP header cut", from_client(b"").udp()[..40].to_vec(), Verdict::Drop(DropReason::Truncated)),
        ("version 5", broken(14, 0x55), Verdict::Drop(DropReason::BadIpv4Header)),
        ("header length 16", broken(14, 0x44), Verdict::Drop(DropReason::BadIpv4Header)),
        ("header longer than packet", broken(14, 0x4f), Verdict::Drop(DropReason::BadIpv4Header)),
        ("total length beyond the frame", broken(17, 200), Verdict::Drop(DropReason::Truncated)),
        ("total length below the header's", broken(17, 19), Verdict::Drop(DropReason::BadIpv4Header)),
        ("IP checksum", broken(24, 0x5a), Verdict::Drop(DropReason::BadIpv4Checksum)),
        ("loopback source", refitted(26, 127), Verdict::Drop(DropReason::MartianSource)),
        ("multicast source", refitted(26, 224), Verdict::Drop(DropReason::MartianSource)),
        ("UDP length too long", broken(39, 99), Verdict::Drop(DropReason::BadL4Header)),
        ("UDP length too short", broken(39, 7), Verdict::Drop(DropReason::BadL4Header)),
        ("an odd piece of a datagram", refitted(20, 0x20), Verdict::Drop(DropReason::BadFragment)),
        ("a VIP's port without a service", to(VIP), Verdict::Punt(PuntClass::Virtual)),
        ("the gateway's own address", to(Ipv4Addr::new(10, 0, 0, 1)), Verdict::Punt(PuntClass::Local)),
        ("a LIP without session", to(LIP), Verdict::Drop(DropReason::LocalAddressNoSession)),
        ("subnet broadcast", to(Ipv4Addr::new(10, 0, 0, 255)), Verdict::Punt(PuntClass::Multicast)),
        ("multicast", to(Ipv4Addr::new(224, 0, 0, 18)), Verdict::Punt(PuntClass::Multicast)),
        ("another network", to(Ipv4Addr::new(8, 8, 8, 8)), Verdict::Drop(DropReason::NotLocal)),
        ("ICMP to the VIP", refitted(23, 1), Verdict::Punt(PuntClass::Icmp)),
        ("another protocol to the VIP", refitted(23, 112), Verdict::Punt(PuntClass::Virtual)),
    ];
    let mut gateway = udp_gateway();
    for (description, packet, verdict) in cases {
        assert_eq!(gateway.send(WAN, &packet).0, verdict, "{description}");
    }
    let syn = from_client(b"").tcp("S", 1, 0);
    for (description, at, value) in [("data offset 4", 46, 0x40), ("data offset beyond the packet", 46, 0xf0)] {
        let mut packet = syn.clone();
        packet[at] = value;
        assert_eq!(tcp_gateway().send(WAN, &packet).0, Verdict::Drop(DropReason::BadL4Header), "{description}");
    }
}

proptest! {
    /// Whatever comes in, each packet gets exactly one verdict, and nothing panics.
    #[test]
    fn any_bytes_get_a_verdict(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 1..32)) {
        let mut gateway = tcp_gateway();
        for (verdict, _) in gateway.send_burst(WAN, &packets) {
            prop_assert_ne!(verdict, Verdict::Transmit(PortId(99)), "no verdict was given");
        }
    }

    /// Valid packets with some bytes changed reach deeper than random ones.
    #[test]
    fn nearly_valid_packets_get_a_verdict(
        changes in proptest::collection::vec((0usize..80, any::<u8>()), 0..6),
        cut in 0usize..90,
        fix in any::<bool>(),
    ) {
        let mut gateway = tcp_gateway();
        for flags in ["S", "A", "FA", "RA"] {
            let mut packet = from_client(&[9; 26]).tcp(flags, 1, 2);
            for &(at, value) in &changes {
                let at = at % packet.len();
                packet[at] = value;
            }
            packet.truncate(cut.max(20));
            if fix && packet.len() >= 34 && etherparse::Ipv4Header::from_slice(&packet[14..]).is_ok() {
                fix_ipv4_checksum(&mut packet);
            }
            prop_assert_ne!(gateway.send(WAN, &packet).0, Verdict::Transmit(PortId(99)));
        }
    }

    /// Through the gateway and back again a packet is what it was, but for TTL and link-layer addresses: the
    /// rewriting and its reverse cancel out, checksums included.
    #[test]
    fn rewriting_and_its_reverse_are_the_identity(
        source_port in 1u16..,
        payload in proptest::collection::vec(any::<u8>(), 0..300),
        tcp in any::<bool>(),
    ) {
        let mut gateway = if tcp { tcp_gateway() } else { udp_gateway() };
        let spec = Spec { source: (CLIENT, source_port), ..from_client(&payload) };
        let build = |spec: Spec<'_>| if tcp { spec.tcp("S", 77, 0) } else { spec.udp() };
        let (verdict, out) = gateway.send(WAN, &build(spec));
        prop_assert_eq!(verdict, Verdict::Transmit(LAN));
        let seen = see(&out);
        prop_assert_eq!(&seen.payload, &payload);
        // The real server sends the same packet back, ends exchanged.
        let echo = Spec { macs: (SERVER_MAC, LAN_MAC), source: (SERVER, 8080), destination: seen.source, ttl: 64, payload: &payload };
        let (verdict, out) = gateway.send(LAN, &build(echo));
        prop_assert_eq!(verdict, Verdict::Transmit(WAN));
        let expected = Spec { macs: (WAN_MAC, CLIENT_MAC), source: (VIP, 80), destination: (CLIENT, source_port), ttl: 63, payload: &payload };
        prop_assert_eq!(out, build(expected));
    }
}
