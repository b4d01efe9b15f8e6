//! SCTP, packet in, packet out, without DPDK: associations from INIT to their end, what is refused, whose a packet is among several
//! workers. That addresses and ports change rightly in every mode, and what becomes of fragments and ICMP errors, is looked at together
//! with TCP and UDP. Expected checksums are computed a bit at a time over the whole packet.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "forwarding/lab.rs"]
#[allow(dead_code, reason = "not every test looks at everything")]
mod lab;

use std::sync::Arc;

use fullgate::balance::{ForwardingMode, Protocol, RealServer, ServiceTable, Tunnel};
use fullgate::flow::ownership::Ownership;
use fullgate::flow::rss::RssDeal;
use fullgate::forward::{DropReason, Steering, Verdict};
use fullgate::port::{PortId, WorkerId};
use lab::sctp::*;
use lab::*;
use proptest::prelude::*;

fn services(mode: ForwardingMode) -> ServiceTable {
    let port = if mode.is_one_way() { 80 } else { 8080 };
    let mut service = service(Protocol::Sctp, vec![RealServer { mode, port, ..server(0, SERVER, 1) }]);
    service.owned_by_client = mode == ForwardingMode::Nat;
    let has_nat = service.owned_by_client;
    ServiceTable { has_nat, tunnels: vec![Tunnel::default()], ..table(vec![service], PORTS) }
}

fn gateway(mode: ForwardingMode) -> Gateway {
    Gateway::new(services(mode))
}

/// A packet with these chunks.
fn packet(spec: Spec<'_>, chunks: &[u8]) -> Vec<u8> {
    let ends = ((spec.source.0.into(), spec.source.1), (spec.destination.0.into(), spec.destination.1));
    frame(spec.macs, ends, spec.ttl, chunks)
}

fn of_client(kind: u8) -> Vec<u8> {
    packet(from_client(b""), &chunk(kind, b"value"))
}

/// The local address and port of the only session, and its state.
fn session(gateway: &Gateway) -> (Option<std::net::SocketAddr>, &'static str, u32) {
    let mut sessions = Vec::with_capacity(16);
    gateway.forwarder.walk_sessions(0, 10_000, gateway.now, &mut sessions);
    let [session] = sessions[..] else { panic!("{sessions:?}") };
    assert_eq!(session.protocol, Protocol::Sctp);
    (session.local, session.state, session.expires_seconds)
}

fn from_server(gateway: &Gateway) -> Spec<'static> {
    let port = session(gateway).0.map_or(40_000, |local| local.port());
    let destination = (session(gateway).0.map_or(CLIENT, |_| LIP), port);
    Spec { macs: (SERVER_MAC, LAN_MAC), source: (SERVER, 8080), destination, ttl: 60, payload: b"" }
}

/// Sends both sides' packets, which must arrive sound, and gives the states and timeouts that they lead to.
fn run(gateway: &mut Gateway, steps: &[(PortId, u8)]) -> Vec<(&'static str, u32)> {
    steps
        .iter()
        .map(|&(port, kind)| {
            let sent = if port == WAN { of_client(kind) } else { packet(from_server(gateway), &chunk(kind, b"value")) };
            let (verdict, out) = gateway.send(port, &sent);
            assert_eq!(verdict, Verdict::Transmit(if port == WAN { LAN } else { WAN }), "chunk {kind}");
            assert!(ports(&out).is_some(), "its checksum is looked at");
            let (_, state, expires) = session(gateway);
            (state, expires)
        })
        .collect()
}

#[test]
fn an_association_is_followed_to_its_end_in_fullnat_and_nat() {
    for mode in [ForwardingMode::Fullnat, ForwardingMode::Nat] {
        let mut gateway = gateway(mode);
        let open = [(WAN, INIT), (LAN, INIT_ACK), (WAN, COOKIE_ECHO), (LAN, COOKIE_ACK), (WAN, DATA), (LAN, SACK)];
        let expected = [
            ("INIT1", 4),
            ("C-SENT", 61),
            ("C-REPLIED", 61),
            ("ESTABLISHED", 900),
            ("ESTABLISHED", 900),
            ("ESTABLISHED", 900),
        ];
        assert_eq!(run(&mut gateway, &open), expected, "{mode}");
        let counts = |gateway: &Gateway| {
            let server = &gateway.counters[0].real_servers[0];
            (server.connections.get(), server.active.get(), server.inactive.get())
        };
        assert_eq!(counts(&gateway), (1, 1, 0));
        gateway.pass_seconds(899);
        let close = [(WAN, HEARTBEAT), (WAN, SHUTDOWN), (LAN, SHUTDOWN_ACK), (WAN, SHUTDOWN_COMPLETE)];
        let expected = [("ESTABLISHED", 900), ("S-RECEIVED", 61), ("S-ACK-SENT", 61), ("CLOSED", 61)];
        assert_eq!(run(&mut gateway, &close), expected, "{mode}");
        assert_eq!(counts(&gateway), (1, 0, 1));
        gateway.pass_seconds(62);
        assert_eq!((gateway.counters[0].sessions.get(), counts(&gateway)), (0, (1, 0, 0)));
    }
}

#[test]
fn a_client_alone_is_followed_in_dr_and_tun() {
    for mode in [ForwardingMode::Dr, ForwardingMode::Tun] {
        let mut gateway = gateway(mode);
        let mut states = Vec::new();
        for kind in [INIT, COOKIE_ECHO, DATA, SHUTDOWN, SHUTDOWN_COMPLETE] {
            let sent = of_client(kind);
            let (verdict, out) = gateway.send(WAN, &sent);
            assert_eq!(verdict, Verdict::Transmit(LAN));
            assert!(out.ends_with(&sent[34..]), "{mode}: nothing of the packet changes");
            states.push(session(&gateway).1);
        }
        assert_eq!(states, ["INIT1", "ESTABLISHED", "ESTABLISHED", "S-RECEIVED", "CLOSED"]);
    }
}

#[test]
fn an_init_that_is_not_answered_is_forgotten_soon_and_a_refused_one_too() {
    let mut gateway = gateway(ForwardingMode::Fullnat);
    run(&mut gateway, &[(WAN, INIT)]);
    gateway.pass_seconds(5);
    assert_eq!(gateway.counters[0].sessions.get(), 0);
    assert_eq!(run(&mut gateway, &[(WAN, INIT), (LAN, ABORT)])[1], ("REJECTED", 4));
    gateway.pass_seconds(5);
    assert_eq!(gateway.counters[0].sessions.get(), 0);
}

#[test]
fn an_abort_behind_a_cookie_closes() {
    let mut gateway = gateway(ForwardingMode::Fullnat);
    run(&mut gateway, &[(WAN, INIT), (LAN, INIT_ACK)]);
    let both = [chunk(COOKIE_ECHO, b"cookie"), chunk(ABORT, b"")].concat();
    assert_eq!(gateway.send(WAN, &packet(from_client(b""), &both)).0, Verdict::Transmit(LAN));
    assert_eq!(session(&gateway).1, "CLOSED");
}

#[test]
fn a_closed_association_gives_way_to_an_init() {
    let mut gateway = gateway(ForwardingMode::Fullnat);
    run(&mut gateway, &[(WAN, INIT), (LAN, INIT_ACK), (WAN, COOKIE_ECHO), (LAN, COOKIE_ACK)]);
    // One that is not over is continued: its peer restarts it (RFC 9260, 5.2.2).
    assert_eq!(run(&mut gateway, &[(WAN, INIT)]), [("ESTABLISHED", 900)]);
    assert_eq!(gateway.counters[0].sessions_created.get(), 1);
    run(&mut gateway, &[(WAN, ABORT)]);
    assert_eq!(run(&mut gateway, &[(WAN, INIT)]), [("INIT1", 4)]);
    assert_eq!(gateway.counters[0].sessions_created.get(), 2);
}

#[test]
fn only_an_init_opens_and_nobody_is_answered() {
    let mut gateway = gateway(ForwardingMode::Fullnat);
    for kind in (0..=255).filter(|&kind| kind != INIT) {
        assert_eq!(gateway.send(WAN, &of_client(kind)).0, Verdict::Drop(DropReason::NoSession), "{kind}");
    }
    let behind = [chunk(DATA, b"x"), chunk(INIT, b"x")].concat();
    assert_eq!(gateway.send(WAN, &packet(from_client(b""), &behind)).0, Verdict::Drop(DropReason::NoSession));
    let stray =
        Spec { macs: (SERVER_MAC, LAN_MAC), source: (SERVER, 8080), destination: (LIP, 5000), ..from_client(b"") };
    let stray = packet(stray, &chunk(DATA, b"x"));
    assert_eq!(gateway.send(LAN, &stray).0, Verdict::Drop(DropReason::LocalAddressNoSession));
    let elsewhere = packet(Spec { destination: (VIP, 81), ..from_client(b"") }, &chunk(INIT, b"x"));
    assert_eq!(gateway.send(WAN, &elsewhere).0, Verdict::Punt(fullgate::forward::PuntClass::Virtual));
    let tcp = from_client(b"").tcp("S", 1, 0);
    assert_eq!(
        gateway.send(WAN, &tcp).0,
        Verdict::Punt(fullgate::forward::PuntClass::Virtual),
        "the service is SCTP's"
    );
    assert_eq!(gateway.counters[0].sessions_created.get(), 0);
}

#[test]
fn what_has_no_whole_header_is_dropped() {
    let mut gateway = gateway(ForwardingMode::Fullnat);
    let whole = of_client(INIT);
    for len in 0..16_u16 {
        let mut short = whole[..34 + usize::from(len)].to_vec();
        short[16..18].copy_from_slice(&(20 + len).to_be_bytes());
        let header = etherparse::Ipv4Header::from_slice(&short[14..]).unwrap().0;
        short[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
        assert_eq!(gateway.send(WAN, &short).0, Verdict::Drop(DropReason::BadL4Header), "{len}");
        assert_eq!(gateway.send(WAN, &whole[..34 + usize::from(len)]).0, Verdict::Drop(DropReason::Truncated), "{len}");
        let scattered = gateway.send_scattered(WAN, &whole, 34 + usize::from(len)).0;
        assert_eq!(scattered, Verdict::Drop(DropReason::Truncated), "{len}");
    }
    let (verdict, out) = gateway.send_scattered(WAN, &whole, 34 + 16);
    assert_eq!(verdict, Verdict::Transmit(LAN), "the rest may lie in other buffers");
    assert!(ports(&out).is_some());
}

#[test]
fn an_init_in_fragments_opens_nothing() {
    let mut gateway = gateway(ForwardingMode::Fullnat);
    let mut piece = of_client(INIT);
    piece[20] = 0x20;
    piece.extend([0; 4]);
    piece[16..18].copy_from_slice(&48_u16.to_be_bytes());
    piece.truncate(14 + 48);
    piece.resize(14 + 48, 0);
    piece[16..18].copy_from_slice(&44_u16.to_be_bytes());
    let header = etherparse::Ipv4Header::from_slice(&piece[14..]).unwrap().0;
    piece[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    assert_eq!(gateway.send(WAN, &piece).0, Verdict::Drop(DropReason::FragmentNotForwarded));
    assert_eq!(gateway.counters[0].sessions_created.get(), 0);
}

/// Where a device deals packets by RSS, nobody knows what it makes of SCTP: all its packets go to the worker that is computed.
#[test]
fn on_ports_with_rss_owners_are_computed() {
    const KEY: [u8; 40] = [0x6d; 40];
    let table_of_device: Vec<u16> = (0..128).map(|entry| entry % 3).collect();
    let deal = Arc::new(RssDeal::new(&KEY, &table_of_device, 3).unwrap());
    let ownership = Ownership::new(3, [None, Some(deal)]);
    let mut gateways: Vec<_> = (0..3)
        .map(|worker| {
            let how = (ownership.clone(), Steering::Rss);
            Gateway::built(how, services(ForwardingMode::Fullnat), 3, WorkerId(worker), 1000)
        })
        .collect();
    let mut owners = std::collections::HashSet::new();
    for port in 40_000..40_100 {
        let init = packet(Spec { source: (CLIENT, port), ..from_client(b"") }, &chunk(INIT, b"x"));
        let verdicts: Vec<_> = gateways.iter_mut().map(|gateway| gateway.send(WAN, &init)).collect();
        let owner = verdicts.iter().position(|(verdict, _)| *verdict == Verdict::Transmit(LAN)).unwrap();
        for (worker, (verdict, _)) in verdicts.iter().enumerate().filter(|&(worker, _)| worker != owner) {
            assert_eq!(*verdict, Verdict::HandOver(WorkerId(owner as u8)), "at {worker}");
        }
        let (from, to) = ports(&verdicts[owner].1).unwrap();
        assert_eq!((usize::from(from) % 3, to), (owner, 8080));
        let answer = Spec {
            macs: (SERVER_MAC, LAN_MAC),
            source: (SERVER, 8080),
            destination: (LIP, from),
            ttl: 60,
            payload: b"",
        };
        let answer = packet(answer, &chunk(INIT_ACK, b"x"));
        for (worker, gateway) in gateways.iter_mut().enumerate() {
            let expected =
                if worker == owner { Verdict::Transmit(WAN) } else { Verdict::HandOver(WorkerId(owner as u8)) };
            assert_eq!(gateway.send(LAN, &answer).0, expected, "at {worker}");
        }
        owners.insert(owner);
    }
    assert_eq!(owners.len(), 3);
}

proptest! {
    /// Whatever a packet carries: what comes out has a right checksum if it came in with one, and there and back it is the same.
    #[test]
    fn checksums_stay_what_they_were(
        chunks in proptest::collection::vec(any::<u8>(), 4..2000),
        damage in proptest::option::of(0usize..2000),
        client in 1u16..,
        nat in any::<bool>(),
    ) {
        let mut gateway = gateway(if nat { ForwardingMode::Nat } else { ForwardingMode::Fullnat });
        let mut input = routes(&NEIGHBOURS, 9000);
        input.interfaces[0].mtu = 9000;
        gateway.adopt(services(if nat { ForwardingMode::Nat } else { ForwardingMode::Fullnat }), &input);
        let spec = Spec { source: (CLIENT, client), ..from_client(b"") };
        gateway.send(WAN, &packet(spec, &chunk(INIT, b"x")));
        let mut sent = packet(spec, &chunks);
        if let Some(at) = damage {
            // Not the first chunk's type, which may end the session.
            let at = 38 + 12 + at % (sent.len() - 50).max(1);
            if let Some(byte) = sent.get_mut(at) {
                *byte ^= 0x41;
            }
        }
        let was_right = checksum_is_right(&sent[34..]);
        let (verdict, out) = gateway.send(WAN, &sent);
        prop_assert_eq!(verdict, Verdict::Transmit(LAN));
        prop_assert_eq!(checksum_is_right(&out[34..]), was_right);
        prop_assert_eq!(&out[46..], &sent[46..]);
    }
}
