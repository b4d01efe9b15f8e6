//! Schedulers through the forwarder: several workers are one gateway, thresholds, and what weight 0 leaves alone.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, missing_docs)]

#[allow(dead_code, reason = "these tests need a part of it")]
#[path = "forwarding/lab.rs"]
mod lab;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use fullgate::balance::{
    Overloads, Protocol, RealServer, SchedulerFlag, SchedulerFlags, SchedulerKind, Service, ServiceTable,
};
use fullgate::forward::{DropReason, Verdict};
use fullgate::session::SessionView;
use lab::{CLIENT, Gateway, LAN, PORTS, SERVER, Spec, WAN, from_client, server, service, table};

/// Real servers of these weights, all at one MAC address; the one with slot N is at 10.1.0.11 and port 8080 + N.
fn servers(weights: &[u32]) -> Vec<RealServer> {
    let server = |(slot, &weight)| RealServer { port: 8080 + slot as u16, ..server(slot, SERVER, weight) };
    (0..).zip(weights).map(server).collect()
}

fn scheduled(kind: SchedulerKind, flags: SchedulerFlags, servers: Vec<RealServer>) -> ServiceTable {
    let scheduler = lab::scheduler(kind, flags, &servers);
    let service = Service { scheduler, ..service(Protocol::Tcp, servers) };
    ServiceTable { overloads: Arc::new(Overloads::new(16)), ..table(vec![service], PORTS) }
}

/// A packet of a client's flow with a number.
fn packet(flow: u32, flags: &str) -> Vec<u8> {
    let address = Ipv4Addr::from_bits(CLIENT.to_bits() + flow % 50);
    Spec { source: (address, 1024 + (flow / 50) as u16), ..from_client(b"") }.tcp(flags, 1, 1)
}

/// The client of a session confirms it and gives up: a reset alone leaves SYN_RECV as it is.
fn reset(gateway: &mut Gateway, view: &SessionView) {
    let IpAddr::V4(address) = view.client.ip() else { panic!("{view:?}") };
    let client = Spec { source: (address, view.client.port()), ..from_client(b"") };
    for flags in ["A", "R"] {
        assert_eq!(gateway.send(WAN, &client.tcp(flags, 2, 1)).0, Verdict::Transmit(LAN));
    }
}

fn open(gateway: &mut Gateway, flow: u32) -> Verdict {
    gateway.send(WAN, &packet(flow, "S")).0
}

/// Sessions set up so far, by real server, over all workers.
fn connections(gateways: &[Gateway], count: usize) -> Vec<u64> {
    let own = |slot: usize| gateways[0].counters.iter().map(|own| own.real_servers[slot].connections.get()).sum();
    (0..count).map(own).collect()
}

fn active(gateways: &[Gateway], count: usize) -> Vec<u64> {
    let own = |slot: usize| gateways[0].counters.iter().map(|own| own.real_servers[slot].active.get()).sum();
    (0..count).map(own).collect()
}

/// Deals flows to workers as unevenly as RSS may.
fn worker_of(flow: u32, workers: usize) -> usize {
    (flow.wrapping_mul(0x9e37_79b9) >> 28) as usize * 3 % workers
}

#[test]
fn ten_thousand_connections_over_several_workers_are_shared_exactly() {
    let none = SchedulerFlags::default();
    for workers in [1, 2, 3] {
        for (kind, weights, shares) in [
            (SchedulerKind::Rr, [7, 1].as_slice(), [5000, 5000].as_slice()),
            (SchedulerKind::Wrr, &[3, 1], &[7500, 2500]),
            (SchedulerKind::Lc, &[7, 1], &[5000, 5000]),
            (SchedulerKind::Wlc, &[3, 1], &[7500, 2500]),
            (SchedulerKind::Sed, &[3, 1], &[7500, 2500]),
            (SchedulerKind::Nq, &[3, 1], &[7500, 2500]),
        ] {
            let mut gateways = Gateway::workers(scheduled(kind, none, servers(weights)), workers, 10_000);
            for flow in 0..10_000 {
                let verdict = open(&mut gateways[worker_of(flow, workers.into())], flow);
                assert_eq!(verdict, Verdict::Transmit(LAN), "{kind}, flow {flow}");
            }
            let counted = connections(&gateways, 2);
            let is_near = |(&counted, &share): (&u64, &u64)| counted.abs_diff(share) <= 2;
            assert!(counted.iter().zip(shares).all(is_near), "{kind} over {workers} workers: {counted:?}");
        }
    }
}

/// A few connections over many workers do not all go to the same real server.
#[test]
fn workers_begin_apart() {
    let mut gateways =
        Gateway::workers(scheduled(SchedulerKind::Rr, SchedulerFlags::default(), servers(&[1; 4])), 4, 100);
    for (flow, gateway) in (0..).zip(&mut gateways) {
        open(gateway, flow);
    }
    assert_eq!(connections(&gateways, 4), [1; 4]);
}

#[test]
fn least_connections_sees_what_another_worker_has() {
    let table = scheduled(SchedulerKind::Wlc, SchedulerFlags::default(), servers(&[1, 1]));
    let mut gateways = Gateway::workers(table, 2, 1000);
    // Each of the first worker's sessions ends on real server 1.
    for flow in 0..100 {
        open(&mut gateways[0], flow);
    }
    assert_eq!(active(&gateways, 2), [50, 50]);
    let views = gateways[0].sessions();
    for view in views.iter().filter(|view| view.real.port() == 8081) {
        reset(&mut gateways[0], view);
    }
    assert_eq!(active(&gateways, 2), [50, 0]);
    for flow in 1000..1049 {
        open(&mut gateways[1], flow);
    }
    assert_eq!(active(&gateways, 2), [50, 49], "the other worker makes up for it");
}

#[test]
fn a_destination_has_one_real_server_whichever_worker_asks() {
    for kind in [SchedulerKind::Lblc, SchedulerKind::Lblcr] {
        let mut gateways = Gateway::workers(scheduled(kind, SchedulerFlags::default(), servers(&[100; 3])), 2, 1000);
        for flow in 0..100 {
            open(&mut gateways[flow as usize % 2], flow);
        }
        assert_eq!(connections(&gateways, 3), [100, 0, 0], "{kind}");
        for flow in 100..103 {
            open(&mut gateways[flow as usize % 2], flow);
        }
        // 101 are more than its weight: the next one goes elsewhere.
        assert_eq!(connections(&gateways, 3), [101, 2, 0], "{kind}");
    }
}

#[test]
fn a_client_sticks_whichever_worker_and_gateway_it_comes_to() {
    for (kind, fallback) in
        [(SchedulerKind::Sh, SchedulerFlag::ShFallback), (SchedulerKind::Mh, SchedulerFlag::MhFallback)]
    {
        let all = servers(&[1, 2, 3, 4]);
        let mut other = all.clone();
        if kind == SchedulerKind::Mh {
            // Added in another order: with sh that makes another gateway of it.
            other.rotate_left(2);
        }
        let mut one = Gateway::workers(scheduled(kind, [fallback].into_iter().collect(), all), 2, 5000);
        let mut another = Gateway::workers(scheduled(kind, [fallback].into_iter().collect(), other), 1, 5000);
        for flow in 0..500 {
            open(&mut one[(flow / 50 % 2) as usize], flow);
            open(&mut another[0], flow);
        }
        let mut chosen = std::collections::BTreeMap::new();
        for view in one.iter().chain(&another).flat_map(Gateway::sessions) {
            let server = chosen.entry(view.client.ip()).or_insert(view.real);
            assert_eq!(*server, view.real, "{kind}: {}", view.client);
        }
        assert_eq!(chosen.len(), 50);
    }
}

#[test]
fn an_upper_threshold_holds_back_until_below_the_lower_one_over_all_workers() {
    let mut limited = servers(&[1, 1]);
    (limited[0].upper_threshold, limited[0].lower_threshold) = (10, 8);
    let mut gateways = Gateway::workers(scheduled(SchedulerKind::Fo, SchedulerFlags::default(), limited), 2, 1000);
    for flow in 0..30 {
        open(&mut gateways[flow as usize % 2], flow);
    }
    assert_eq!(connections(&gateways, 2), [10, 20], "fo gives all to the first one until it is full");
    // Both workers end one session each; 8 are not fewer than the lower threshold.
    let end_one = |gateway: &mut Gateway| {
        let view = gateway.sessions().into_iter().find(|view| view.real.port() == 8080).unwrap();
        reset(gateway, &view);
        // CLOSE lasts 10 s; the others stay.
        gateway.pass_seconds(11);
    };
    gateways.iter_mut().for_each(end_one);
    for flow in 100..104 {
        open(&mut gateways[flow as usize % 2], flow);
    }
    assert_eq!(connections(&gateways, 2), [10, 24]);
    end_one(&mut gateways[0]);
    for flow in 200..208 {
        open(&mut gateways[flow as usize % 2], flow);
    }
    assert_eq!(connections(&gateways, 2), [13, 29], "7 are, and it gets three");
}

/// The session that reaches the threshold is what counts, and not that somebody looked then (a bug until now).
#[test]
fn a_threshold_that_was_reached_and_left_again_unseen_holds_back() {
    let mut limited = servers(&[1]);
    (limited[0].upper_threshold, limited[0].lower_threshold) = (3, 1);
    let table = scheduled(SchedulerKind::Rr, SchedulerFlags::default(), limited);
    let mut gateway = Gateway::workers(table, 1, 100).remove(0);
    for flow in 0..3 {
        assert_eq!(open(&mut gateway, flow), Verdict::Transmit(LAN));
    }
    let view = gateway.sessions()[0];
    reset(&mut gateway, &view);
    gateway.pass_seconds(11);
    assert_eq!(gateway.sessions().len(), 2);
    open(&mut gateway, 9);
    assert_eq!(gateway.counters[0].drops[DropReason::NoRealServer as usize].get(), 0, "it is answered");
    assert_eq!(gateway.sessions().len(), 2, "two are not fewer than one");
}

#[test]
fn weight_0_takes_nobody_and_leaves_who_is_there() {
    for kind in SchedulerKind::ALL {
        let mut gateway = Gateway::workers(scheduled(kind, SchedulerFlags::default(), servers(&[1])), 1, 100).remove(0);
        assert_eq!(open(&mut gateway, 1), Verdict::Transmit(LAN), "{kind}");
        let drained = ServiceTable { generation: 2, ..scheduled(kind, SchedulerFlags::default(), servers(&[0])) };
        gateway.adopt(drained, &lab::routes(&lab::NEIGHBOURS, 1500));
        assert_eq!(gateway.send(WAN, &packet(1, "A")).0, Verdict::Transmit(LAN), "{kind}");
        open(&mut gateway, 2);
        assert_eq!(gateway.sessions().len(), 1, "{kind}");
    }
}

/// TCP counts as active from its SYN until it ends, UDP never.
#[test]
fn active_and_inactive_are_the_kernels() {
    let services = vec![service(Protocol::Tcp, servers(&[1])), service(Protocol::Udp, vec![server(1, SERVER, 1)])];
    let mut gateway = Gateway::new(table(services, PORTS));
    let count = |gateway: &Gateway, slot: usize| {
        let own = &gateway.counters[0].real_servers[slot];
        (own.active.get(), own.inactive.get())
    };
    gateway.send(WAN, &from_client(b"query").udp());
    assert_eq!(count(&gateway, 1), (0, 1));
    for (flags, expected) in [("S", (1, 0)), ("A", (1, 0)), ("FA", (0, 1)), ("S", (1, 0)), ("A", (1, 0)), ("R", (0, 1))]
    {
        gateway.send(WAN, &packet(0, flags));
        assert_eq!(count(&gateway, 0), expected, "{flags}");
    }
}
