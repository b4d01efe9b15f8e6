//! IPVS's defence strategies through the forwarder: floods that fill a small table, and clients that mean it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, missing_docs)]

#[allow(dead_code, reason = "these tests need a part of it")]
#[path = "forwarding/lab.rs"]
mod lab;

#[allow(dead_code, reason = "these tests need a part of it")]
#[path = "forwarding/dual.rs"]
mod dual;

use std::net::{Ipv4Addr, SocketAddr};

use fullgate::balance::{ForwardingMode, Protocol, RealServer, Service, ServiceTable, Strategy, Sysctls};
use fullgate::forward::{DropReason, Now, Verdict, strategies};
use fullgate::port::WorkerId;
use lab::{CLIENT, Gateway, LAN, PORTS, SERVER, Spec, WAN, from_client, server, service, table};

const CAPACITY: u32 = 1024;
/// Packets of a flood in one turn, of which there are fifty in a tick.
const BURST: u32 = 32;
const TURNS_A_TICK: u64 = 50;

fn services(protocol: Protocol, mode: ForwardingMode, sysctls: Sysctls) -> ServiceTable {
    let real = RealServer { mode, port: if mode.is_one_way() { 80 } else { 8080 }, ..server(0, SERVER, 1) };
    let of_all = Service { owned_by_client: mode == ForwardingMode::Nat, ..service(protocol, vec![real]) };
    let nat_servers = [(protocol, SocketAddr::from((SERVER, 8080)))].into_iter().collect();
    ServiceTable { sysctls, has_nat: mode == ForwardingMode::Nat, nat_servers, ..table(vec![of_all], PORTS) }
}

fn gateway(protocol: Protocol, sysctls: Sysctls) -> Gateway {
    Gateway::with(services(protocol, ForwardingMode::Fullnat, sysctls), 1, WorkerId(0), CAPACITY)
}

fn automatic() -> Sysctls {
    Sysctls { drop_entry: Strategy::Automatic, ..Sysctls::default() }
}

/// Somebody of a flood.
fn spoofed(number: u32) -> Spec<'static> {
    let address = Ipv4Addr::from_bits(0xc612_0000 + number / 50_000);
    Spec { source: (address, 1024 + (number % 50_000) as u16), ..from_client(b"") }
}

/// A turn as the worker has them: a burst, what is between bursts, and the time that passes.
fn turn(gateway: &mut Gateway, packets: &[Vec<u8>]) -> Vec<(Verdict, Vec<u8>)> {
    let before = gateway.counters[0].sessions_created.get();
    let verdicts = gateway.send_burst(WAN, packets);
    let created = gateway.counters[0].sessions_created.get() - before;
    while gateway.forwarder.expire(gateway.now).more {}
    gateway.forwarder.drop_entries(created, gateway.now);
    let now = Now::from_nanoseconds(gateway.now.nanoseconds + 100_000_000 / TURNS_A_TICK);
    if now.tick != gateway.now.tick {
        gateway.forwarder.begin_defence();
    }
    gateway.now = now;
    verdicts
}

/// The answer of the real server to what was forwarded to it.
fn answer(forwarded: &[u8]) -> Spec<'static> {
    let seen = lab::see(forwarded);
    Spec {
        macs: (lab::SERVER_MAC, lab::LAN_MAC),
        source: seen.destination,
        destination: seen.source,
        ..from_client(b"")
    }
}

fn state_of(gateway: &Gateway, port: u16) -> Option<&'static str> {
    let client = SocketAddr::from((CLIENT, port));
    gateway.sessions().iter().find(|session| session.client == client).map(|session| session.state)
}

/// Clients that connect, one after the other, while a flood of SYNs goes on; how many of them got in, and stayed to the end.
fn got_in(sysctls: Sysctls, clients: u16) -> usize {
    let mut gateway = gateway(Protocol::Tcp, sysctls);
    let mut number = 0;
    let mut flood = |gateway: &mut Gateway, turns: u32| {
        for _ in 0..turns {
            let packets: Vec<_> = (number..number + BURST).map(|each| spoofed(each).tcp("S", 1, 0)).collect();
            number += BURST;
            turn(gateway, &packets);
        }
    };
    flood(&mut gateway, 200);
    let mut opened = 0;
    for port in 2000..2000 + clients {
        let client = Spec { source: (CLIENT, port), ..from_client(b"") };
        let (verdict, forwarded) = turn(&mut gateway, &[client.tcp("S", 1, 0)]).remove(0);
        if verdict != Verdict::Transmit(LAN) {
            assert_eq!(verdict, Verdict::Drop(DropReason::SessionTableFull));
            continue;
        }
        // A round trip, in which the flood goes on.
        flood(&mut gateway, 5);
        assert_eq!(gateway.send(LAN, &answer(&forwarded).tcp("SA", 9, 2)).0, Verdict::Transmit(WAN));
        flood(&mut gateway, 5);
        assert_eq!(turn(&mut gateway, &[client.tcp("A", 2, 10)])[0].0, Verdict::Transmit(LAN));
        opened += 1;
    }
    flood(&mut gateway, 500);
    let stayed = (2000..2000 + clients).filter(|&port| state_of(&gateway, port) == Some("ESTABLISHED")).count();
    assert_eq!(stayed, opened, "who is in is not touched");
    stayed
}

#[test]
fn clients_get_in_during_a_flood_that_fills_the_table_only_with_drop_entry() {
    assert_eq!(got_in(Sysctls::default(), 20), 0);
    assert_eq!(got_in(automatic(), 20), 20);
}

/// Of IPv6, and between the families, in the table of IPv6.
#[test]
fn a_flood_of_any_family_leaves_room() {
    use dual::{Dual, Family::Ipv4, Family::Ipv6, Packet};
    for (client, real) in [(Ipv4, Ipv4), (Ipv6, Ipv6), (Ipv4, Ipv6), (Ipv6, Ipv4)] {
        for defended in [false, true] {
            let sysctls = if defended { automatic() } else { Sysctls::default() };
            let mut gateway = Dual::new(client, real, ForwardingMode::Fullnat, Protocol::Tcp).set(sysctls);
            let mut refused = 0;
            for port in 0..3000_u16 {
                let question = gateway.question(b"");
                let syn = Packet { source: (question.source.0, 1024 + port), ..question };
                let (verdict, _) = gateway.send(WAN, &syn.frame((lab::CLIENT_MAC, lab::WAN_MAC), 64));
                refused += u32::from(verdict == Verdict::Drop(DropReason::SessionTableFull));
                gateway.defend(1);
            }
            assert_eq!(refused, if defended { 0 } else { 2000 }, "{client:?} {real:?}");
            let counters = gateway.counters();
            let sessions = counters.sessions.get() + counters.ipv6_sessions.get();
            assert_eq!(sessions, counters.sessions_created.get() - counters.sessions_expired.get());
            assert!(if defended { sessions <= 901 } else { sessions == 1000 }, "{sessions}");
        }
    }
}

#[test]
fn an_automatic_strategy_is_active_while_sessions_are_scarce() {
    let mut gateway = gateway(Protocol::Tcp, Sysctls { drop_packet: Strategy::Automatic, ..automatic() });
    let active = |gateway: &Gateway| strategies(gateway.counters[0].defence.get()).map(|(_, active)| active);
    let mut syns = (0..).map(|number| spoofed(number).tcp("S", 1, 0));
    for _ in 0..TURNS_A_TICK {
        let packets: Vec<_> = syns.by_ref().take(8).collect();
        turn(&mut gateway, &packets);
    }
    assert_eq!(active(&gateway), [false; 3], "400 of 1024");
    for _ in 0..TURNS_A_TICK * 4 {
        let packets: Vec<_> = syns.by_ref().take(8).collect();
        turn(&mut gateway, &packets);
    }
    assert!(active(&gateway)[0] && !active(&gateway)[2]);
    let free = CAPACITY - gateway.sessions().len() as u32;
    assert!((86..=128).contains(&free), "about a tenth is kept free: {free}");
    let counters = &gateway.counters[0];
    let (created, ended, dropped) =
        (counters.sessions_created.get(), counters.sessions_expired.get(), counters.sessions_dropped.get());
    assert_eq!(ended, dropped, "nothing has timed out");
    assert_eq!(created - ended, u64::from(CAPACITY - free));
    // Without a flood 1/32 of the table a second is looked at, until there is a quarter more than enough.
    for _ in 0..TURNS_A_TICK * 20 {
        turn(&mut gateway, &[]);
    }
    assert_eq!(active(&gateway), [false; 3]);
}

#[test]
fn without_a_handshake_who_is_silent_for_a_minute_may_end() {
    let always = Sysctls { drop_entry: Strategy::Always, ..Sysctls::default() };
    let mut gateway = gateway(Protocol::Udp, always);
    let sessions = |gateway: &Gateway| gateway.sessions().len();
    let seconds = |gateway: &mut Gateway, seconds: u64| {
        for _ in 0..TURNS_A_TICK * 10 * seconds {
            turn(gateway, &[]);
        }
    };
    turn(&mut gateway, &(0..BURST).map(|number| spoofed(number).udp()).collect::<Vec<_>>());
    seconds(&mut gateway, 59);
    assert_eq!(sessions(&gateway), 32);
    turn(&mut gateway, &[spoofed(7).udp()]);
    // The table is small: its hand has gone round it within a second.
    seconds(&mut gateway, 3);
    assert_eq!(sessions(&gateway), 1, "the one that has spoken");
    assert_eq!(gateway.counters[0].sessions_dropped.get(), 31);
}

#[test]
fn associations_that_are_only_asked_for_give_way() {
    let always = Sysctls { drop_entry: Strategy::Always, ..Sysctls::default() };
    let mut gateway = gateway(Protocol::Sctp, always);
    turn(&mut gateway, &[spoofed(1).sctp("S")]);
    for _ in 0..TURNS_A_TICK * 20 {
        turn(&mut gateway, &[]);
    }
    assert_eq!((gateway.sessions().len(), gateway.counters[0].sessions_dropped.get()), (0, 1));
}

#[test]
fn drop_packet_drops_one_in_so_many_that_would_begin_a_session() {
    let sysctls = Sysctls { drop_packet: Strategy::Always, am_droprate: 4, ..Sysctls::default() };
    let mut gateway = gateway(Protocol::Udp, sysctls);
    let first: Vec<_> = (0..BURST).map(|number| spoofed(number).udp()).collect();
    let dropped = |verdicts: Vec<(Verdict, Vec<u8>)>| {
        verdicts.iter().filter(|(verdict, _)| *verdict == Verdict::Drop(DropReason::DropPacket)).count()
    };
    assert_eq!(dropped(turn(&mut gateway, &first)), 8);
    assert_eq!(gateway.sessions().len(), 24);
    assert_eq!(dropped(turn(&mut gateway, &first)), 2, "eight of them begin one now; the others have theirs");
}

#[test]
fn secured_a_client_alone_establishes_nothing() {
    for (secure_tcp, after_ack) in [(Strategy::Off, "ESTABLISHED"), (Strategy::Always, "SYNACK")] {
        let mut gateway = gateway(Protocol::Tcp, Sysctls { secure_tcp, ..Sysctls::default() });
        let client = Spec { source: (CLIENT, 2000), ..from_client(b"") };
        let (_, forwarded) = gateway.send(WAN, &client.tcp("S", 1, 0));
        let blind = Spec { source: (CLIENT, 2001), ..client };
        gateway.send(WAN, &blind.tcp("S", 1, 0));
        gateway.send(WAN, &blind.tcp("A", 2, 1));
        let blindly = if secure_tcp == Strategy::Off { "ESTABLISHED" } else { "SYN_RECV" };
        assert_eq!(state_of(&gateway, 2001), Some(blindly));
        gateway.send(LAN, &answer(&forwarded).tcp("SA", 9, 2));
        gateway.send(WAN, &client.tcp("A", 2, 10));
        assert_eq!(state_of(&gateway, 2000), Some(after_ack));
        let active = || gateway.counters[0].real_servers[0].active.get();
        assert_eq!(active(), 2, "as the kernel counts: half-open ones, too");
        gateway.send(LAN, &answer(&forwarded).tcp("A", 10, 2));
        assert_eq!(state_of(&gateway, 2000), Some("ESTABLISHED"));
        gateway.send(WAN, &client.tcp("R", 2, 10));
        assert_eq!(state_of(&gateway, 2000), Some("CLOSE"));
    }
}

#[test]
fn a_real_server_in_mode_nat_is_told_of_a_lost_session_where_that_is_wanted() {
    let from_server = |port| Spec {
        macs: (lab::SERVER_MAC, lab::LAN_MAC),
        source: (SERVER, port),
        destination: (CLIENT, 40_000),
        ..from_client(b"!")
    };
    for nat_icmp_send in [false, true] {
        let sysctls = Sysctls { nat_icmp_send, ..Sysctls::default() };
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let packet = |port, flags| match protocol {
                Protocol::Udp => from_server(port).udp(),
                _ => from_server(port).tcp(flags, 1, 1),
            };
            let mut gateway = Gateway::new(services(protocol, ForwardingMode::Nat, sysctls));
            let (verdict, bytes) = gateway.send(LAN, &packet(8080, "A"));
            if nat_icmp_send {
                assert_eq!(verdict, Verdict::Transmit(LAN));
                assert_eq!(bytes[34..36], [3, 3], "port unreachable");
                assert_eq!(bytes[30..34], SERVER.octets());
            } else {
                assert_eq!(verdict, Verdict::Drop(DropReason::NotLocal));
            }
            let other_port = gateway.send(LAN, &packet(8081, "A")).0;
            assert_eq!(other_port, Verdict::Drop(DropReason::NotLocal), "not where a real server answers from");
            if protocol == Protocol::Tcp {
                assert_eq!(gateway.send(LAN, &packet(8080, "R")).0, Verdict::Drop(DropReason::NotLocal));
            }
        }
    }
}
