//! MSS options of SYNs, packet in, packet out, without DPDK. Packets and checksums come from etherparse.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "forwarding/dual.rs"]
#[allow(dead_code, reason = "not every test looks at everything")]
mod dual;
#[path = "forwarding/lab.rs"]
#[allow(dead_code, reason = "not every test looks at everything")]
mod lab;

use std::net::IpAddr;

use dual::{Dual, Family};
use etherparse::{PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice};
use fullgate::balance::{
    Encapsulation, ForwardingMode, MssClamp, Protocol, RealServerSlot, Selector, SnatRule, Tunnel,
};
use fullgate::forward::Verdict;
use lab::*;

type End = (IpAddr, u16);

/// A segment with an MSS option behind one NOP, so that it stands at an odd place.
fn segment(ends: (End, End), macs: dual::Macs, flags: &str, mss: u16) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(macs.0.0, macs.1.0);
    let step = match (ends.0.0, ends.1.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        other => panic!("{other:?}"),
    };
    let mut step = step.tcp(ends.0.1, ends.1.1, 7, 1000);
    if flags.contains('S') {
        step = step.syn();
    }
    if flags.contains('A') {
        step = step.ack(9);
    }
    let options = [TcpOptionElement::Noop, TcpOptionElement::MaximumSegmentSize(mss)];
    let mut bytes = Vec::new();
    step.options(&options).unwrap().write(&mut bytes, b"odd").unwrap();
    bytes
}

/// The MSS of a frame whose TCP checksum is right; of what is in a tunnel that has so many bytes of headers.
fn mss(frame: &[u8], tunnel: usize) -> u16 {
    let sliced = SlicedPacket::from_ip(&frame[14 + tunnel..]).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
    let computed = match sliced.net.unwrap() {
        etherparse::NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            tcp.to_header().calc_checksum_ipv4(&header, tcp.payload()).unwrap()
        }
        etherparse::NetSlice::Ipv6(ip) => {
            tcp.to_header().calc_checksum_ipv6(&ip.header().to_header(), tcp.payload()).unwrap()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(tcp.checksum(), computed, "TCP checksum");
    tcp.options_iterator()
        .find_map(|option| match option {
            Ok(TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
            _ => None,
        })
        .unwrap()
}

const PAIRS: [(Family, Family); 4] = [
    (Family::Ipv4, Family::Ipv4),
    (Family::Ipv6, Family::Ipv6),
    (Family::Ipv4, Family::Ipv6),
    (Family::Ipv6, Family::Ipv4),
];

/// Sends a SYN there, and, where it passes the gateway, the SYN-ACK back; the MSS of each.
fn both_ways(gateway: &mut Dual, tunnel: usize, given: u16) -> Vec<u16> {
    let question = gateway.question(b"");
    let (client, vip) = (question.source, question.destination);
    let (verdict, out) = gateway.send(WAN, &segment((client, vip), (CLIENT_MAC, WAN_MAC), "S", given));
    assert_eq!(verdict, Verdict::Transmit(LAN));
    let mut seen = vec![mss(&out, tunnel)];
    if !gateway.mode.is_one_way() {
        let (from, to) = dual::ends(&out);
        let back = segment((to, from), (SERVER_MAC, LAN_MAC), "SA", given);
        let (verdict, out) = gateway.send(LAN, &back);
        assert_eq!(verdict, Verdict::Transmit(WAN));
        seen.push(mss(&out, 0));
    }
    seen
}

#[test]
fn syns_of_both_directions_are_lowered_in_every_mode_and_never_raised() {
    for (client, server) in PAIRS {
        for mode in [ForwardingMode::Fullnat, ForwardingMode::Nat, ForwardingMode::Dr, ForwardingMode::Tun] {
            if client != server && !matches!(mode, ForwardingMode::Fullnat | ForwardingMode::Tun) {
                continue;
            }
            let tunnel = if mode == ForwardingMode::Tun { server.header_len() } else { 0 };
            let new = || Dual::new(client, server, mode, Protocol::Tcp);
            for (clamp, given, expected) in
                [(MssClamp::Bytes(1300), 1460, 1300), (MssClamp::Bytes(1300), 1200, 1200), (MssClamp::Off, 1460, 1460)]
            {
                let seen = both_ways(&mut new().clamping(clamp), tunnel, given);
                assert!(seen.iter().all(|&mss| mss == expected), "{mode} {client:?} {server:?} {clamp}: {seen:?}");
            }
            // Both links take 1500 bytes: what is left of that behind the larger headers.
            let headers = match mode {
                ForwardingMode::Tun => client.header_len() + tunnel,
                _ => client.header_len().max(server.header_len()),
            };
            let seen = both_ways(&mut new().clamping(MssClamp::Mtu), tunnel, 9000);
            assert!(seen.iter().all(|&mss| usize::from(mss) == 1500 - headers - 20), "{mode} {client:?}: {seen:?}");
        }
    }
}

#[test]
fn the_tunnel_with_the_most_headers_leaves_least() {
    let tunnel = Tunnel { encapsulation: Encapsulation::Gue, port: 6080, checksum: true };
    let mut gateway = Dual::new(Family::Ipv4, Family::Ipv6, ForwardingMode::Tun, Protocol::Tcp).with(tunnel);
    gateway = gateway.clamping(MssClamp::Mtu);
    assert_eq!(both_ways(&mut gateway, 40 + 8 + 4, 9000), [1500 - 52 - 40]);
}

#[test]
fn what_is_no_syn_of_a_session_stays_as_it_is() {
    let mut gateway =
        Dual::new(Family::Ipv4, Family::Ipv4, ForwardingMode::Fullnat, Protocol::Tcp).clamping(MssClamp::Bytes(600));
    both_ways(&mut gateway, 0, 1460);
    let question = gateway.question(b"");
    let ends = (question.source, question.destination);
    let (_, out) = gateway.send(WAN, &segment(ends, (CLIENT_MAC, WAN_MAC), "A", 1460));
    assert_eq!(mss(&out, 0), 1460, "no SYN");
    let (_, out) = gateway.send(WAN, &segment(ends, (CLIENT_MAC, WAN_MAC), "S", 1460));
    assert_eq!(mss(&out, 0), 600, "one that is sent again");
}

/// A port's clamp is for what comes by it and for what leaves by it; the smallest of all counts.
#[test]
fn a_ports_clamp_counts_for_syns_that_come_or_leave_by_it() {
    for (clamps, own, expected) in [
        ([MssClamp::Bytes(1000), MssClamp::Off], MssClamp::Off, 1000),
        ([MssClamp::Off, MssClamp::Bytes(1000)], MssClamp::Off, 1000),
        ([MssClamp::Bytes(900), MssClamp::Bytes(1000)], MssClamp::Bytes(1100), 900),
        ([MssClamp::Bytes(1200), MssClamp::Bytes(1000)], MssClamp::Bytes(800), 800),
        ([MssClamp::Mtu, MssClamp::Off], MssClamp::Off, 1460),
    ] {
        let services = fullgate::balance::ServiceTable {
            mss_clamps: vec![own],
            ..table(vec![service(Protocol::Tcp, vec![server(0, SERVER, 1)])], PORTS)
        };
        let mut gateway = Gateway::clamping(clamps, services);
        let (_, out) =
            gateway.send(WAN, &segment(((CLIENT.into(), 40_000), (VIP.into(), 80)), (CLIENT_MAC, WAN_MAC), "S", 9000));
        assert_eq!(mss(&out, 0), expected);
        let (from, to) = dual::ends(&out);
        let (_, out) = gateway.send(LAN, &segment((to, from), (SERVER_MAC, LAN_MAC), "SA", 9000));
        assert_eq!(mss(&out, 0), expected);
    }
}

/// Source NAT has no service: its sessions' SYNs are the ports'.
#[test]
fn source_nat_is_clamped_by_ports() {
    let rule = SnatRule {
        selector: Selector { source: Some("10.1.0.0/24".parse().unwrap()), ..Selector::default() },
        pool: 0,
        slot: RealServerSlot(5),
        cursor: 20,
    };
    let mut services = fullgate::balance::ServiceTable { snat: vec![rule], ..table(vec![], PORTS) };
    services.pools[0].port = WAN;
    services.local_address_ports = vec![WAN];
    let mut gateway = Gateway::clamping([MssClamp::Bytes(1000), MssClamp::Off], services);
    let (verdict, out) =
        gateway.send(LAN, &segment(((SERVER.into(), 40_000), (CLIENT.into(), 80)), (SERVER_MAC, LAN_MAC), "S", 1460));
    assert_eq!((verdict, mss(&out, 0)), (Verdict::Transmit(WAN), 1000));
}
