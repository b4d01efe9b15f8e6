//! IPVS's sysctls through the forwarder: sessions whose real server is gone, SYNs for sessions that are over, and packets
//! that open no connection.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, missing_docs)]

#[allow(dead_code, reason = "these tests need a part of it")]
#[path = "forwarding/lab.rs"]
mod lab;

use fullgate::balance::{ForwardingMode, Protocol, RealServer, Service, ServiceTable, Sysctls};
use fullgate::forward::{DropReason, Verdict};
use lab::{Gateway, LAN, PORTS, SERVER, Spec, WAN, from_client, server, service, table};

/// Two real servers at one address, at ports 8080 and 8081; those without a weight are removed.
fn services(protocol: Protocol, mode: ForwardingMode, weights: [Option<u32>; 2], sysctls: Sysctls) -> ServiceTable {
    let port = |slot: u32| if mode.is_one_way() { 80 } else { 8080 + slot as u16 };
    let server = |slot: u32, weight| RealServer { port: port(slot), mode, ..server(slot, SERVER, weight) };
    let real = |slot: u32| weights[slot as usize].map(|weight| server(slot, weight));
    let servers: Vec<_> = [0, 1].into_iter().filter_map(real).collect();
    let of_all = Service { owned_by_client: mode == ForwardingMode::Nat, ..service(protocol, servers) };
    ServiceTable {
        sysctls,
        real_server_present: weights.iter().map(Option::is_some).collect(),
        drained: weights.iter().map(|&weight| weight == Some(0)).collect(),
        ..table(vec![of_all], PORTS)
    }
}

const BOTH: [Option<u32>; 2] = [Some(1), Some(1)];

fn expiring() -> Sysctls {
    Sysctls { expire_nodest_conn: true, ..Sysctls::default() }
}

fn adopt(gateway: &mut Gateway, services: ServiceTable) {
    gateway.adopt(services, &lab::routes(&lab::NEIGHBOURS, 1500));
}

fn from_port(port: u16) -> Spec<'static> {
    Spec { source: (lab::CLIENT, port), ..from_client(b"?") }
}

fn drops(packets: &[(Verdict, Vec<u8>)]) -> usize {
    packets.iter().filter(|(verdict, _)| matches!(verdict, Verdict::Drop(_))).count()
}

/// The port that a forwarded packet goes to.
fn port_of((verdict, bytes): &(Verdict, Vec<u8>)) -> u16 {
    assert_eq!(*verdict, Verdict::Transmit(LAN));
    lab::see(bytes).destination.1
}

fn connections(gateway: &Gateway, slot: usize) -> u64 {
    let counters = &gateway.counters[0].real_servers[slot];
    counters.active.get() + counters.inactive.get()
}

#[test]
fn packets_of_a_removed_real_server_are_dropped_or_begin_anew() {
    for mode in [ForwardingMode::Fullnat, ForwardingMode::Nat] {
        for expire in [false, true] {
            let sysctls = Sysctls { expire_nodest_conn: expire, ..Sysctls::default() };
            let mut gateway = Gateway::new(services(Protocol::Udp, mode, BOTH, sysctls));
            // Both real servers have sessions, of two flows each.
            let flows: Vec<_> = (0..4).map(|flow| from_port(1000 + flow).udp()).collect();
            let before: Vec<_> = gateway.send_burst(WAN, &flows).iter().map(port_of).collect();
            let gone = before[0] - 8080;
            let mut weights = BOTH;
            weights[usize::from(gone)] = None;
            adopt(&mut gateway, services(Protocol::Udp, mode, weights, sysctls));
            let twice: Vec<_> = flows.iter().chain(&flows).cloned().collect();
            let after = gateway.send_burst(WAN, &twice);
            if expire {
                let ports: Vec<_> = after.iter().map(port_of).collect();
                assert_eq!(ports, [8080 + (1 - gone); 8], "{mode}");
                assert_eq!((connections(&gateway, gone.into()), gateway.sessions().len()), (0, 4));
                assert_eq!(gateway.counters[0].sessions_created.get(), 6, "each once");
            } else {
                assert_eq!((drops(&after), gateway.sessions().len()), (4, 4), "{mode}");
                assert_eq!(connections(&gateway, gone.into()), 2);
            }
        }
    }
}

#[test]
fn a_connection_of_a_removed_real_server_is_reset_or_waits_for_its_end() {
    for expire in [false, true] {
        let sysctls = Sysctls { expire_nodest_conn: expire, ..Sysctls::default() };
        let at = |weights| services(Protocol::Tcp, ForwardingMode::Fullnat, weights, sysctls);
        let mut gateway = Gateway::new(at(BOTH));
        let gone = gateway.send(WAN, &from_port(1000).tcp("S", 1, 0));
        let gone = usize::from(port_of(&gone) - 8080);
        let mut weights = BOTH;
        weights[gone] = None;
        adopt(&mut gateway, at(weights));
        let (verdict, _) = gateway.send(WAN, &from_port(1000).tcp("A", 2, 1));
        if expire {
            assert_eq!((verdict, gateway.counters[0].resets_sent.get()), (Verdict::Transmit(WAN), 1));
            assert_eq!(gateway.sessions().len(), 0);
            assert_eq!(port_of(&gateway.send(WAN, &from_port(1000).tcp("S", 9, 0))), 8080 + (1 - gone) as u16);
        } else {
            assert_eq!(verdict, Verdict::Drop(DropReason::RealServerRemoved));
            let (verdict, _) = gateway.send(WAN, &from_port(1000).tcp("S", 9, 0));
            assert_eq!(verdict, Verdict::Drop(DropReason::RealServerRemoved));
            assert_eq!(gateway.sessions().len(), 1);
        }
    }
}

#[test]
fn a_syn_for_a_session_with_a_drained_real_server_begins_anew_where_sessions_end_for_want_of_one() {
    for (expire, reuse, moves) in [(false, 1, false), (true, 1, true), (true, 0, true)] {
        let sysctls = Sysctls { expire_nodest_conn: expire, conn_reuse_mode: reuse, ..Sysctls::default() };
        let at = |weights| services(Protocol::Tcp, ForwardingMode::Fullnat, weights, sysctls);
        let mut gateway = Gateway::new(at(BOTH));
        let syn = from_port(1000).tcp("S", 1, 0);
        let first = port_of(&gateway.send(WAN, &syn));
        let mut weights = BOTH;
        weights[usize::from(first - 8080)] = Some(0);
        adopt(&mut gateway, at(weights));
        assert_eq!(port_of(&gateway.send(WAN, &from_port(1000).tcp("A", 2, 1))), first, "the session goes on");
        assert_eq!(port_of(&gateway.send(WAN, &syn)) != first, moves, "{expire} {reuse}");
    }
}

/// Opens a connection, brings its session to this state by the client's segments, and says whether a SYN replaces it.
fn is_replaced(mode: ForwardingMode, conn_reuse_mode: u32, segments: &[&str], state: &str) -> bool {
    let sysctls = Sysctls { conn_reuse_mode, ..Sysctls::default() };
    let mut gateway = Gateway::new(services(Protocol::Tcp, mode, BOTH, sysctls));
    for flags in segments {
        assert_eq!(gateway.send(WAN, &from_port(1000).tcp(flags, 1, 1)).0, Verdict::Transmit(LAN));
    }
    assert_eq!(gateway.sessions()[0].state, state);
    assert_eq!(gateway.send(WAN, &from_port(1000).tcp("S", 9, 0)).0, Verdict::Transmit(LAN));
    assert_eq!(gateway.sessions()[0].state, "SYN_RECV");
    gateway.counters[0].sessions_created.get() == 2
}

#[test]
fn what_is_over_gives_way_to_a_syn_as_conn_reuse_mode_says() {
    let (closed, finished) = (["S", "A", "R"], ["S", "A", "F"]);
    for (reuse, expected) in [(0, false), (1, true), (2, true), (3, true)] {
        assert_eq!(is_replaced(ForwardingMode::Fullnat, reuse, &closed, "CLOSE"), expected, "{reuse}");
    }
    for (reuse, expected) in [(0, false), (1, false), (2, true), (3, true)] {
        assert_eq!(is_replaced(ForwardingMode::Dr, reuse, &finished, "FIN_WAIT"), expected, "{reuse}");
    }
}

#[test]
fn any_segment_but_a_reset_opens_a_session_where_it_may() {
    let sloppy = Sysctls { sloppy_tcp: true, ..Sysctls::default() };
    let mut gateway = Gateway::new(services(Protocol::Tcp, ForwardingMode::Dr, BOTH, sloppy));
    assert_ne!(gateway.send(WAN, &from_port(1000).tcp("R", 1, 1)).0, Verdict::Transmit(LAN));
    assert_eq!(gateway.send(WAN, &from_port(1000).tcp("A", 1, 1)).0, Verdict::Transmit(LAN));
    assert_eq!(gateway.sessions()[0].state, "ESTABLISHED", "of a client alone");
    let mut both = Gateway::new(services(Protocol::Tcp, ForwardingMode::Nat, BOTH, sloppy));
    assert_eq!(both.send(WAN, &from_port(1000).tcp("A", 1, 1)).0, Verdict::Transmit(LAN));
    assert_eq!(both.sessions()[0].state, "ESTABLISHED");
    let mut strict = Gateway::new(services(Protocol::Tcp, ForwardingMode::Dr, BOTH, expiring()));
    assert_eq!(strict.send(WAN, &from_port(1000).tcp("A", 1, 1)).0, Verdict::Transmit(WAN), "a reset");
    assert_eq!(strict.sessions().len(), 0);
}

#[test]
fn any_packet_but_an_abort_opens_an_association_where_it_may() {
    let sloppy = Sysctls { sloppy_sctp: true, ..Sysctls::default() };
    for (sysctls, flags, expected) in
        [(sloppy, "A", 1), (sloppy, "R", 0), (Sysctls::default(), "A", 0), (Sysctls::default(), "S", 1)]
    {
        let mut gateway = Gateway::new(services(Protocol::Sctp, ForwardingMode::Fullnat, BOTH, sysctls));
        let _ = gateway.send(WAN, &from_port(1000).sctp(flags));
        assert_eq!(gateway.sessions().len(), expected, "{flags}");
    }
}

#[test]
fn an_unset_switch_is_the_kernels() {
    let Sysctls { expire_nodest_conn, expire_quiescent_template, conn_reuse_mode, sloppy_tcp, sloppy_sctp, .. } =
        Sysctls::default();
    assert_eq!(conn_reuse_mode, 1);
    assert!(!(expire_nodest_conn || expire_quiescent_template || sloppy_tcp || sloppy_sctp));
}
