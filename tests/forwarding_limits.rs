//! Services whose packets are scheduled one by one and leave no session, and services that may have so many sessions only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, missing_docs)]

#[allow(dead_code, reason = "these tests need a part of it")]
#[path = "forwarding/lab.rs"]
mod lab;

use std::sync::Arc;

use fullgate::balance::{ForwardingMode, Persistence, Protocol, RealServer, Service, ServiceTable, Templates};
use fullgate::flow::HashSeed;
use fullgate::forward::{DropReason, Verdict};
use lab::{Gateway, LAN, PORTS, SERVER, SERVER_MAC, Spec, WAN, from_client, server, service, table};

/// Two real servers at one address, at ports 8080 and 8081.
fn of_two(protocol: Protocol, mode: ForwardingMode, change: impl FnOnce(&mut Service)) -> ServiceTable {
    let port = |slot: u32| if mode.is_one_way() { 80 } else { 8080 + slot as u16 };
    let server = |slot| RealServer { port: port(slot), mode, ..server(slot, SERVER, 1) };
    let mut both = service(protocol, vec![server(0), server(1)]);
    both.owned_by_client = mode == ForwardingMode::Nat;
    change(&mut both);
    table(vec![both], PORTS)
}

fn from_port(port: u16) -> Spec<'static> {
    Spec { source: (lab::CLIENT, port), ..from_client(b"what is it?") }
}

/// Sessions set up so far and those that there are, by real server.
fn counts(gateway: &Gateway) -> [(u64, u64); 2] {
    let own = |slot: usize| {
        let counters = &gateway.counters[0].real_servers[slot];
        (counters.connections.get(), counters.active.get() + counters.inactive.get())
    };
    [own(0), own(1)]
}

#[test]
fn each_packet_goes_to_the_next_in_turn_and_leaves_nothing() {
    for mode in [ForwardingMode::Nat, ForwardingMode::Dr, ForwardingMode::Tun] {
        let services = of_two(Protocol::Udp, mode, |service| service.one_packet = true);
        let mut gateway = Gateway::new(services);
        for _burst in 0..5 {
            for (verdict, bytes) in gateway.send_burst(WAN, &vec![from_port(1000).udp(); 4]) {
                assert_eq!(verdict, Verdict::Transmit(LAN), "{mode}");
                if mode == ForwardingMode::Nat {
                    let seen = lab::see(&bytes);
                    assert_eq!((seen.source, seen.destination.0), ((lab::CLIENT, 1000), SERVER));
                    assert_eq!(seen.payload, b"what is it?");
                }
                assert_eq!(bytes[..6], SERVER_MAC.0);
            }
        }
        assert_eq!(counts(&gateway), [(10, 0), (10, 0)], "{mode}");
        assert!(gateway.sessions().is_empty());
        assert_eq!(gateway.counters[0].real_servers[0].inbound.packets.get(), 10);
    }
}

#[test]
fn sessions_from_before_go_on() {
    let mut gateway = Gateway::new(of_two(Protocol::Udp, ForwardingMode::Dr, |_| {}));
    gateway.send(WAN, &from_port(1000).udp());
    let services = of_two(Protocol::Udp, ForwardingMode::Dr, |service| service.one_packet = true);
    gateway.adopt(services, &lab::routes(&lab::NEIGHBOURS, 1500));
    for _packet in 0..4 {
        gateway.send(WAN, &from_port(1000).udp());
        gateway.send(WAN, &from_port(1001).udp());
    }
    let [first, second] = counts(&gateway);
    assert_eq!((first.0 + second.0, first.1 + second.1, gateway.sessions().len()), (5, 1, 1));
}

#[test]
fn a_client_that_stays_does_so_packet_by_packet() {
    let services = of_two(Protocol::Udp, ForwardingMode::Nat, |service| {
        service.one_packet = true;
        service.persistence = Some(Persistence { timeout_seconds: 60, prefix_len: 32 });
    });
    let templates = Arc::new(Templates::new(100, 8, HashSeed([1, 2])));
    let mut gateway = Gateway::new(ServiceTable { templates: templates.clone(), ..services });
    let ports: Vec<_> =
        (0..10).map(|port| lab::see(&gateway.send(WAN, &from_port(1000 + port).udp()).1).destination.1).collect();
    assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    let mut views = Vec::new();
    (0..templates.buckets()).for_each(|bucket| templates.views(bucket, gateway.now.tick, &mut views));
    assert_eq!((views.len(), views[0].connections), (1, 0));
}

#[test]
fn a_packet_that_is_too_large_is_answered_and_one_without_real_server_too() {
    let services = of_two(Protocol::Udp, ForwardingMode::Nat, |service| {
        service.one_packet = true;
        service.real_servers.iter_mut().for_each(|server| server.weight.0 = 0);
    });
    let mut gateway = Gateway::new(services);
    assert_eq!(gateway.send(WAN, &from_port(1000).udp()).0, Verdict::Transmit(WAN), "ICMP: port unreachable");
    assert!(gateway.sessions().is_empty());
}

#[test]
fn a_service_has_no_more_sessions_than_it_may_over_all_workers() {
    let services = of_two(Protocol::Tcp, ForwardingMode::Fullnat, |service| service.max_connections = 10);
    let mut gateways = Gateway::workers(services, 3, 1000);
    let mut open = |flow: u16| gateways[usize::from(flow) % 3].send(WAN, &from_port(1000 + flow).tcp("S", 1, 0)).0;
    for flow in 0..10 {
        assert_eq!(open(flow), Verdict::Transmit(LAN));
    }
    for flow in 10..20 {
        assert_eq!(open(flow), Verdict::Drop(DropReason::ConnectionLimit));
    }
    assert_eq!(open(5), Verdict::Transmit(LAN), "what there is goes on");
    // SYN_RECV lasts a minute.
    gateways.iter_mut().for_each(|gateway| gateway.pass_seconds(61));
    assert_eq!(gateways[0].send(WAN, &from_port(2000).tcp("S", 1, 0)).0, Verdict::Transmit(LAN));
}
