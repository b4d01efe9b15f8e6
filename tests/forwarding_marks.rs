//! Services of marks, packet in, packet out, without DPDK.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "forwarding/dual.rs"]
#[allow(dead_code, reason = "not every test looks at everything")]
mod dual;
#[path = "forwarding/lab.rs"]
#[allow(dead_code, reason = "not every test looks at everything")]
mod lab;

use std::net::Ipv4Addr;

use dual::{Dual, Family, ends};
use etherparse::{IpFragOffset, IpNumber, Ipv4Header};
use fullgate::balance::{
    ForwardingMode, Mark, MarkRule, Marks, PortRange, Protocol, RealServer, Selector, Service, ServiceKey,
    ServiceTable, VirtualAddress,
};
use fullgate::forward::{DropReason, PuntClass, Verdict};
use fullgate::port::PortId;
use lab::*;

fn mark(number: u32) -> Mark {
    Mark::new(number).unwrap()
}

/// The service of a mark with a real server in the slot `number`, which is its cursor, too, at the port that was asked for.
fn of_mark(number: u32, mode: ForwardingMode) -> Service {
    let real = RealServer { mode, port: 0, ..server(number, SERVER, 1) };
    Service {
        key: ServiceKey::new(Protocol::Any, VirtualAddress::marked(mark(number), false)),
        owned_by_client: mode == ForwardingMode::Nat,
        cursor: number as usize,
        ..service(Protocol::Udp, vec![real])
    }
}

fn rule(number: u32, selector: Selector) -> MarkRule {
    MarkRule { selector, mark: mark(number) }
}

fn to(address: Ipv4Addr) -> Selector {
    Selector { destination: Some(format!("{address}/32").parse().unwrap()), ..Selector::default() }
}

fn just(port: u16) -> Option<PortRange> {
    Some(PortRange { first: port, last: port })
}

fn marked(rules: Vec<MarkRule>, services: Vec<Service>) -> ServiceTable {
    let table = table(services, PORTS);
    let virtual_addresses = table.services.iter().filter(|service| service.key.mark.is_none());
    let virtual_addresses = virtual_addresses.map(|service| service.key.address).collect();
    ServiceTable { marks: Marks::of(rules, &table.services), virtual_addresses, ..table }
}

fn udp_to(address: Ipv4Addr, port: u16) -> Vec<u8> {
    Spec { destination: (address, port), ..from_client(b"?") }.udp()
}

/// The slot of the real server whose session a packet begins that enters by a port.
fn served_by(gateway: &mut Gateway, port: PortId, packet: &[u8]) -> Option<usize> {
    let connections = |gateway: &Gateway| {
        gateway.counters[0].real_servers.iter().map(|own| own.connections.get()).collect::<Vec<_>>()
    };
    let before = connections(gateway);
    gateway.send(port, packet);
    let after = connections(gateway);
    (0..before.len()).find(|&slot| after[slot] > before[slot])
}

#[test]
fn the_first_rule_that_matches_gives_the_mark() {
    let rules = vec![
        rule(1, Selector { protocol: Some(Protocol::Udp), destination_port: just(53), ..to(VIP) }),
        rule(2, Selector { port: Some(LAN), ..to(VIP) }),
        rule(3, Selector { destination_port: Some(PortRange { first: 53, last: 99 }), ..to(VIP) }),
    ];
    let services = vec![1, 2, 3].into_iter().map(|number| of_mark(number, ForwardingMode::Fullnat)).collect();
    let mut gateway = Gateway::new(marked(rules, services));
    assert_eq!(served_by(&mut gateway, WAN, &udp_to(VIP, 53)), Some(1));
    assert_eq!(served_by(&mut gateway, WAN, &udp_to(VIP, 54)), Some(3));
    let tcp = Spec { destination: (VIP, 53), ..from_client(b"") }.tcp("S", 1, 0);
    assert_eq!(served_by(&mut gateway, WAN, &tcp), Some(3), "one service for every protocol");
    let inside =
        Spec { macs: (SERVER_MAC, LAN_MAC), destination: (VIP, 9), source: (SERVER, 4000), ..from_client(b"?") };
    assert_eq!(served_by(&mut gateway, LAN, &inside.udp()), Some(2), "by the port of entry");
    assert_eq!(gateway.send(WAN, &udp_to(VIP, 100)).0, Verdict::Punt(PuntClass::Local), "no mark: the host's");
}

/// IPVS looks for the service of a packet's mark first, then for that of its address.
#[test]
fn a_mark_comes_before_an_address() {
    let by_address = Service { cursor: 4, ..service(Protocol::Udp, vec![server(4, SERVER, 1)]) };
    let rules = vec![rule(1, Selector { source: Some("10.0.0.2/32".parse().unwrap()), ..to(VIP) })];
    let mut gateway =
        Gateway::new(marked(rules.clone(), vec![by_address.clone(), of_mark(1, ForwardingMode::Fullnat)]));
    assert_eq!(served_by(&mut gateway, WAN, &udp_to(VIP, 80)), Some(1));
    let other = Spec { source: (Ipv4Addr::new(10, 0, 0, 3), 4000), destination: (VIP, 80), ..from_client(b"?") };
    assert_eq!(served_by(&mut gateway, WAN, &other.udp()), Some(4));
    let mut without = Gateway::new(marked(rules, vec![by_address]));
    assert_eq!(served_by(&mut without, WAN, &udp_to(VIP, 80)), Some(4), "no service is of the mark");
}

/// As it stands in a network of which every address is balanced: none of them is the gateway's own.
#[test]
fn marked_packets_may_go_to_any_address() {
    let caches =
        Selector { port: Some(WAN), protocol: Some(Protocol::Tcp), destination_port: just(80), ..Selector::default() };
    let mut gateway = Gateway::new(marked(vec![rule(1, caches)], vec![of_mark(1, ForwardingMode::Dr)]));
    let away = Ipv4Addr::new(198, 51, 100, 7);
    let syn = Spec { destination: (away, 80), ..from_client(b"") }.tcp("S", 1, 0);
    let (verdict, out) = gateway.send(WAN, &syn);
    assert_eq!(verdict, Verdict::Transmit(LAN));
    assert_eq!(see(&out).destination, (away, 80));
    assert_eq!(gateway.send(WAN, &udp_to(away, 80)).0, Verdict::Drop(DropReason::NotLocal), "not marked");
}

/// What is sent to a local address is an answer, whoever marks it.
#[test]
fn local_addresses_are_never_balanced() {
    let rules = vec![rule(1, Selector { port: Some(LAN), ..Selector::default() })];
    let mut gateway = Gateway::new(marked(rules, vec![of_mark(1, ForwardingMode::Fullnat)]));
    let stray =
        Spec { macs: (SERVER_MAC, LAN_MAC), source: (SERVER, 8080), destination: (LIP, 2000), ..from_client(b"") };
    assert_eq!(served_by(&mut gateway, LAN, &stray.udp()), None);
}

/// Each mode, both families: what the client asked for reaches the real server, and the answer is from there.
#[test]
fn answers_come_from_the_address_that_was_asked() {
    for family in [Family::Ipv4, Family::Ipv6] {
        for mode in [ForwardingMode::Fullnat, ForwardingMode::Nat, ForwardingMode::Dr] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let mut gateway = Dual::new(family, family, mode, protocol).marked(mark(7));
                for port in [80, 443] {
                    let mut question = gateway.question(b"?");
                    question.destination.1 = port;
                    let (verdict, out) = gateway.send(WAN, &question.frame((CLIENT_MAC, WAN_MAC), 64));
                    assert_eq!(verdict, Verdict::Transmit(LAN), "{mode} {family:?}");
                    let (source, destination) = ends(&out);
                    let to = if mode == ForwardingMode::Dr { gateway.vip } else { gateway.server };
                    assert_eq!(destination, (to, port));
                    if mode == ForwardingMode::Dr {
                        continue;
                    }
                    let answer = dual::Packet { source: destination, destination: source, ..question.clone() };
                    let (verdict, out) = gateway.send(LAN, &answer.frame((SERVER_MAC, LAN_MAC), 64));
                    assert_eq!(verdict, Verdict::Transmit(WAN));
                    assert_eq!(ends(&out), ((gateway.vip, port), (gateway.client, 40_000)));
                }
            }
        }
    }
}

/// Fragments of marked packets go where their datagram's first one does, also to addresses that no service stands on.
#[test]
fn fragments_follow_their_mark() {
    let away = Ipv4Addr::new(198, 51, 100, 7);
    let mut gateway = Gateway::new(marked(vec![rule(1, to(away))], vec![of_mark(1, ForwardingMode::Dr)]));
    let fragment = |flags: u16, payload: &[u8]| {
        let mut header =
            Ipv4Header::new(payload.len() as u16, 64, IpNumber::UDP, CLIENT.octets(), away.octets()).unwrap();
        header.identification = 7;
        header.more_fragments = flags & 0x2000 != 0;
        header.fragment_offset = IpFragOffset::try_new(flags & 0x1fff).unwrap();
        header.header_checksum = header.calc_header_checksum();
        let mut frame = [&WAN_MAC.0[..], &CLIENT_MAC.0, &[8, 0]].concat();
        header.write(&mut frame).unwrap();
        frame.extend_from_slice(payload);
        frame
    };
    let datagram = &udp_to(away, 9)[34..];
    let first = [datagram, &[0; 16]].concat();
    assert_eq!(gateway.send(WAN, &fragment(0x2000, &first[..16])).0, Verdict::Transmit(LAN));
    assert_eq!(gateway.send(WAN, &fragment(2, &[0; 9])).0, Verdict::Transmit(LAN));
}
