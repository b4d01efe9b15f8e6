//! Services of all ports and of ranges of ports, packet in, packet out, without DPDK.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "forwarding/dual.rs"]
#[allow(dead_code, reason = "not every test looks at everything")]
mod dual;
#[path = "forwarding/lab.rs"]
#[allow(dead_code, reason = "not every test looks at everything")]
mod lab;

use dual::{Dual, Family, ends};
use fullgate::balance::{ForwardingMode, Protocol, RealServer, Service, ServiceKey, ServiceTable, VirtualAddress};
use fullgate::forward::{DropReason, PuntClass, Verdict};
use lab::*;

/// A service of these ports with a real server of this port in the slot `number`, which is its cursor, too.
fn of_ports(ports: &str, number: u32, mode: ForwardingMode, port: u16) -> Service {
    let real = RealServer { mode, port, ..server(number, SERVER, 1) };
    let vip: VirtualAddress = format!("{VIP}:{ports}").parse().unwrap();
    Service {
        key: ServiceKey::new(Protocol::Udp, vip),
        owned_by_client: mode == ForwardingMode::Nat,
        cursor: number as usize,
        ..service(Protocol::Udp, vec![real])
    }
}

fn to_port(port: u16) -> Vec<u8> {
    Spec { destination: (VIP, port), ..from_client(b"?") }.udp()
}

/// The slot of the real server whose session a packet to this port begins.
fn served_by(gateway: &mut Gateway, port: u16) -> usize {
    let connections = |gateway: &Gateway| {
        gateway.counters[0].real_servers.iter().map(|own| own.connections.get()).collect::<Vec<_>>()
    };
    let before = connections(gateway);
    assert_eq!(gateway.send(WAN, &to_port(port)).0, Verdict::Transmit(LAN), "port {port}");
    let after = connections(gateway);
    (0..before.len()).find(|&slot| after[slot] > before[slot]).unwrap()
}

#[test]
fn the_narrowest_service_of_a_port_counts() {
    let of = |ports, number| of_ports(ports, number, ForwardingMode::Fullnat, 0);
    let services = vec![of("0", 0), of("8000-8099", 1), of("8050", 2), of("8100-8100", 3), of("8101-9000", 4)];
    let mut gateway = Gateway::new(table(services, PORTS));
    for (port, slot) in [
        (1, 0),
        (7999, 0),
        (8000, 1),
        (8049, 1),
        (8050, 2),
        (8051, 1),
        (8099, 1),
        (8100, 3),
        (8101, 4),
        (9000, 4),
        (9001, 0),
        (65_535, 0),
    ] {
        assert_eq!(served_by(&mut gateway, port), slot, "port {port}");
    }
    let mut gateway = Gateway::new(table(vec![of("8000-8099", 1)], PORTS));
    for port in [7999, 8100] {
        assert_eq!(gateway.send(WAN, &to_port(port)).0, Verdict::Punt(PuntClass::Virtual), "nobody's");
    }
    let tcp = Spec { destination: (VIP, 8000), ..from_client(b"") }.tcp("S", 1, 0);
    assert_eq!(gateway.send(WAN, &tcp).0, Verdict::Punt(PuntClass::Virtual), "another protocol's");
}

/// A real server without a port of its own gets the client's in every mode, both families, and answers from it.
#[test]
fn the_port_that_the_client_asked_for_reaches_the_real_server() {
    let families = [Family::Ipv4, Family::Ipv6];
    for (client, server) in families.into_iter().flat_map(|client| families.map(|server| (client, server))) {
        for mode in [ForwardingMode::Fullnat, ForwardingMode::Nat, ForwardingMode::Dr] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                if client != server && mode != ForwardingMode::Fullnat {
                    continue;
                }
                let mut gateway = Dual::new(client, server, mode, protocol).wide("0");
                for port in [80, 81, 65_535] {
                    let mut question = gateway.question(b"?");
                    question.destination.1 = port;
                    let (verdict, out) = gateway.send(WAN, &question.frame((CLIENT_MAC, WAN_MAC), 64));
                    assert_eq!(verdict, Verdict::Transmit(LAN), "{mode} {client:?} {server:?}");
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

#[test]
fn a_real_server_with_a_port_of_its_own_gets_all() {
    let mut gateway = Gateway::new(table(vec![of_ports("0", 0, ForwardingMode::Fullnat, 8080)], PORTS));
    for port in [1, 443] {
        let (_, out) = gateway.send(WAN, &to_port(port));
        assert_eq!(see(&out).destination, (SERVER, 8080));
        let from = see(&out).source;
        let back =
            Spec { macs: (SERVER_MAC, LAN_MAC), source: (SERVER, 8080), destination: from, ttl: 64, payload: b"!" };
        let (_, out) = gateway.send(LAN, &back.udp());
        assert_eq!(see(&out).source, (VIP, port));
    }
    // In mode nat nothing but the client's port tells answers apart: the second port of the same client is refused.
    let mut nat = table(vec![of_ports("0", 0, ForwardingMode::Nat, 8080)], PORTS);
    nat.has_nat = true;
    let mut gateway = Gateway::new(nat);
    assert_eq!(gateway.send(WAN, &to_port(1)).0, Verdict::Transmit(LAN));
    assert_eq!(gateway.send(WAN, &to_port(2)).0, Verdict::Drop(DropReason::AnswersAmbiguous));
}

/// Each port is another endpoint, which needs nothing but its session: a scan takes no more than the session table has, ends with
/// the sessions' time, and a service beside it has its local ports all the while.
#[test]
fn a_scan_of_all_ports_exhausts_nothing_for_ever() {
    let beside = of_ports("53", 1, ForwardingMode::Fullnat, 53);
    let services = table(vec![of_ports("0", 0, ForwardingMode::Fullnat, 0), beside], PORTS);
    let mut gateway = Gateway::with(services, 1, fullgate::port::WorkerId(0), 70_000);
    for _round in 0..3 {
        for port in (1..=u16::MAX).filter(|&port| port != 53) {
            assert_eq!(gateway.send(WAN, &to_port(port)).0, Verdict::Transmit(LAN), "port {port}");
        }
        assert_eq!(served_by(&mut gateway, 53), 1);
        let used = |gateway: &Gateway| {
            (gateway.counters[0].sessions.get(), gateway.counters[0].local_addresses[0].ports_used.get())
        };
        assert_eq!(used(&gateway), (65_535, 65_535));
        gateway.pass_seconds(400);
        assert_eq!(used(&gateway), (0, 0));
    }
    // Where the table is full, what is new is a counted drop, until sessions end.
    let mut gateway = Gateway::new(table(vec![of_ports("0", 0, ForwardingMode::Fullnat, 0)], PORTS));
    let verdicts: Vec<_> = (1..3000).map(|port| gateway.send(WAN, &to_port(port)).0).collect();
    assert!(verdicts.contains(&Verdict::Drop(DropReason::SessionTableFull)));
    gateway.pass_seconds(400);
    assert_eq!(gateway.send(WAN, &to_port(3000)).0, Verdict::Transmit(LAN));
}

#[test]
fn two_workers_agree_and_errors_find_their_session() {
    let of = |worker| {
        let services: ServiceTable = table(vec![of_ports("0", 0, ForwardingMode::Fullnat, 0)], PORTS);
        Gateway::with(services, 2, fullgate::port::WorkerId(worker), 100)
    };
    let mut gateways = [of(0), of(1)];
    for port in 1..32 {
        let owner = match gateways[0].send(WAN, &to_port(port)).0 {
            Verdict::HandOver(owner) => owner.index(),
            other => {
                assert_eq!(other, Verdict::Transmit(LAN));
                0
            }
        };
        let (verdict, out) = gateways[owner].send(WAN, &to_port(port));
        assert_eq!(verdict, Verdict::Transmit(LAN));
        // Nobody listens there: the real server says so, and the client hears it of the virtual address.
        let unreachable =
            dual::error((SERVER_MAC, LAN_MAC), (SERVER.into(), LIP.into()), 64, (3, 3, [0; 4]), &out[14..]);
        let other = gateways[1 - owner].send(LAN, &unreachable).0;
        assert_eq!(other, Verdict::HandOver(fullgate::port::WorkerId(owner as u8)));
        let (verdict, out) = gateways[owner].send(LAN, &unreachable);
        assert_eq!(verdict, Verdict::Transmit(WAN));
        assert_eq!(ends(&out), ((VIP.into(), 0), (CLIENT.into(), 0)));
        assert_eq!(out[14 + 20 + 8 + 20..][..4], [&40_000_u16.to_be_bytes()[..], &port.to_be_bytes()].concat());
    }
}
