//! ICMP errors about packets of sessions, packet in, packet out, without DPDK: both ways, in every mode, over IPv4, IPv6 and
//! both. Expected bytes and checksums come from etherparse.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "forwarding/dual.rs"]
#[allow(dead_code, reason = "not every test looks at everything")]
mod dual;
#[path = "forwarding/lab.rs"]
#[allow(dead_code, reason = "not every test looks at everything")]
mod lab;

use std::net::IpAddr;

use dual::*;
use etherparse::Ipv4Header;
use fullgate::balance::{Encapsulation, ForwardingMode, Protocol, Tunnel};
use fullgate::forward::{DropReason, Hop, Origin, PuntClass, Steering, Verdict};
use fullgate::port::{PortId, WorkerId};
use lab::{CLIENT_MAC, LAN, LAN_MAC, SERVER_MAC, WAN, WAN_MAC};
use proptest::prelude::*;

/// A header of an error: type, code, and what follows the checksum.
type Kind = (u8, u8, [u8; 4]);

const FROM_LAN: Macs = (SERVER_MAC, LAN_MAC);
const FROM_WAN: Macs = (CLIENT_MAC, WAN_MAC);
const TO_LAN: Macs = (LAN_MAC, SERVER_MAC);
const TO_WAN: Macs = (WAN_MAC, CLIENT_MAC);
const SAME: [(Family, Family); 2] = [(Family::Ipv4, Family::Ipv4), (Family::Ipv6, Family::Ipv6)];
const MIXED: [(Family, Family); 2] = [(Family::Ipv4, Family::Ipv6), (Family::Ipv6, Family::Ipv4)];

/// Errors of a family that go on as they are.
fn kinds(family: Family) -> Vec<Kind> {
    match family {
        Family::Ipv4 => {
            let unreachable = (0..16).map(|code| (3, code, if code == 4 { [0, 0, 0x05, 0x78] } else { [0; 4] }));
            unreachable.chain([(11, 0, [0; 4]), (11, 1, [0; 4]), (12, 0, [8, 0, 0, 0]), (12, 1, [0; 4])]).collect()
        }
        Family::Ipv6 => {
            let unreachable = (0..7).map(|code| (1, code, [0; 4]));
            let others =
                [(2, 0, [0, 0, 5, 0x78]), (3, 0, [0; 4]), (3, 1, [0; 4]), (4, 0, [0, 0, 0, 7]), (4, 1, [0; 4])];
            unreachable.chain(others).collect()
        }
    }
}

/// A session: what its two packets are when they come, and what the gateway made of them.
struct Session {
    lab: Dual,
    question: Packet,
    sent: Vec<u8>,
    answer: Packet,
    answered: Vec<u8>,
}

impl Session {
    fn new(lab: Dual) -> Self {
        Self::with_payload(lab, b"some payload of a packet")
    }

    fn with_payload(mut lab: Dual, payload: &[u8]) -> Self {
        let question = lab.question(payload);
        let (verdict, sent) = lab.send(WAN, &question.frame(FROM_WAN, 64));
        assert_eq!(verdict, Verdict::Transmit(LAN));
        let (source, destination) = ends(&sent);
        let answer = Packet { source: destination, destination: source, ..question.clone() };
        let (verdict, answered) = if lab.mode.is_one_way() {
            // The real server sends it past the gateway.
            let past = Packet { source: question.destination, destination: question.source, ..question.clone() };
            (Verdict::Transmit(WAN), past.frame(TO_WAN, 60))
        } else {
            lab.send(LAN, &answer.frame(FROM_LAN, 60))
        };
        assert_eq!(verdict, Verdict::Transmit(WAN));
        Self { lab, question, sent, answer, answered }
    }

    /// An error of the real server's side about the client's packet, and what the client gets; the rest of the
    /// arguments are for what comes out.
    fn about_question(&self, kind: Kind, len: usize) -> Vec<u8> {
        let quote = &self.sent[14..];
        error(FROM_LAN, (self.lab.router(LAN), ends(&self.sent).0.0), 60, kind, &quote[..len.min(quote.len())])
    }

    fn about_answer(&self, kind: Kind, len: usize) -> Vec<u8> {
        let quote = &self.answered[14..];
        error(FROM_WAN, (self.lab.router(WAN), ends(&self.answered).0.0), 60, kind, &quote[..len.min(quote.len())])
    }
}

fn fullnat_and_nat() -> impl Iterator<Item = (Family, ForwardingMode, Protocol)> {
    let modes = [ForwardingMode::Fullnat, ForwardingMode::Nat];
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    SAME.into_iter().flat_map(move |(family, _)| {
        modes.into_iter().flat_map(move |mode| protocols.into_iter().map(move |protocol| (family, mode, protocol)))
    })
}

#[test]
fn fullnat_and_nat_translate_every_kind_both_ways() {
    for (family, mode, protocol) in fullnat_and_nat() {
        let mut session = Session::new(Dual::new(family, family, mode, protocol));
        for kind in kinds(family) {
            let (verdict, out) = session.lab.send(LAN, &session.about_question(kind, 2000));
            assert_eq!(verdict, Verdict::Transmit(WAN), "{family:?} {mode} {kind:?}");
            let quote = session.question.packet(63);
            let expected = error(TO_WAN, (session.lab.vip, session.lab.client), 59, kind, &quote);
            assert_eq!(out, expected, "{family:?} {mode} {protocol} {kind:?} to the client");

            let (verdict, out) = session.lab.send(WAN, &session.about_answer(kind, 2000));
            assert_eq!(verdict, Verdict::Transmit(LAN), "{family:?} {mode} {kind:?}");
            let quote = session.answer.packet(59);
            // In NAT mode the real server sees who told it.
            let from = if mode == ForwardingMode::Nat { session.lab.router(WAN) } else { session.answer.destination.0 };
            let expected = error(TO_LAN, (from, session.lab.server), 59, kind, &quote);
            assert_eq!(out, expected, "{family:?} {mode} {protocol} {kind:?} to the real server");
        }
    }
}

#[test]
fn quotations_of_eight_bytes_are_enough() {
    for (family, mode, protocol) in fullnat_and_nat() {
        let mut session = Session::new(Dual::new(family, family, mode, protocol));
        let (kind, len) = (kinds(family)[0], family.header_len() + 8);
        let (verdict, out) = session.lab.send(LAN, &session.about_question(kind, len));
        let quote = &session.question.packet(63)[..len];
        let expected = error(TO_WAN, (session.lab.vip, session.lab.client), 59, kind, quote);
        assert_eq!((verdict, out), (Verdict::Transmit(WAN), expected));
        for short in [0, 1, family.header_len() - 1, family.header_len(), len - 1] {
            let verdict = session.lab.send(LAN, &session.about_question(kind, short)).0;
            assert_eq!(verdict, Verdict::Drop(DropReason::BadIcmpError), "{short}");
        }
    }
}

#[test]
fn a_wrong_checksum_or_a_broken_quotation_is_dropped() {
    for (family, _) in SAME {
        let mut session = Session::new(Dual::new(family, family, ForwardingMode::Fullnat, Protocol::Udp));
        let kind = kinds(family)[0];
        let right = session.about_question(kind, 2000);
        let quote_at = 14 + family.header_len() + 8;
        let mut damaged = right.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(session.lab.send(LAN, &damaged).0, Verdict::Drop(DropReason::BadIcmpError));
        let mut broken = right.clone();
        broken[quote_at] ^= 0xf0;
        assert_eq!(session.lab.send(LAN, &broken).0, Verdict::Drop(DropReason::BadIcmpError));
        assert_eq!(session.lab.send(LAN, &right).0, Verdict::Transmit(WAN));
        let counters = session.lab.counters();
        assert_eq!(counters.icmp_errors_sent.get(), 0, "only those of its own making");
    }
}

#[test]
fn padding_is_cut_off_and_ttl_ends() {
    let mut session = Session::new(Dual::new(Family::Ipv4, Family::Ipv4, ForwardingMode::Fullnat, Protocol::Udp));
    let right = session.about_question((3, 1, [0; 4]), 28);
    let (_, expected) = session.lab.send(LAN, &right);
    let padded = [&right[..], &[0xaa; 20]].concat();
    assert_eq!(session.lab.send(LAN, &padded).1, expected);
    let last =
        error(FROM_LAN, (session.lab.router(LAN), ends(&session.sent).0.0), 1, (3, 1, [0; 4]), &session.sent[14..]);
    assert_eq!(session.lab.send(LAN, &last).0, Verdict::Drop(DropReason::TtlExpired), "nobody is told");
}

#[test]
fn an_error_changes_neither_state_nor_end() {
    for mode in [ForwardingMode::Fullnat, ForwardingMode::Nat, ForwardingMode::Dr, ForwardingMode::Tun] {
        let mut session = Session::new(Dual::new(Family::Ipv4, Family::Ipv4, mode, Protocol::Udp));
        let counted = |session: &Session| session.lab.counters().real_servers[0].inbound.packets.get();
        session.lab.pass_seconds(299);
        let before = counted(&session);
        assert_eq!(session.lab.send(WAN, &session.about_answer((3, 3, [0; 4]), 2000)).0, Verdict::Transmit(LAN));
        assert_eq!(counted(&session), before + 1, "it counts as a packet, as in IPVS");
        session.lab.pass_seconds(2);
        assert_eq!(session.lab.counters().sessions.get(), 0, "{mode}");
    }
}

/// RFC 7915's words for an error about a client's or a real server's packet of this family.
fn in_other_words(family: Family) -> Vec<(Kind, Option<Kind>)> {
    let pointer = |at| [0, 0, 0, at];
    match family {
        Family::Ipv4 => vec![
            ((3, 0, [0; 4]), Some((1, 0, [0; 4]))),
            ((3, 1, [0; 4]), Some((1, 0, [0; 4]))),
            ((3, 2, [0; 4]), Some((4, 1, pointer(6)))),
            ((3, 3, [0; 4]), Some((1, 4, [0; 4]))),
            ((3, 13, [0; 4]), Some((1, 1, [0; 4]))),
            ((3, 14, [0; 4]), None),
            ((3, 4, [0, 0, 0x05, 0x78]), Some((2, 0, [0, 0, 0x05, 0x8c]))),
            ((3, 4, [0, 0, 0x05, 0xdc]), Some((2, 0, [0, 0, 0x05, 0xdc]))),
            ((3, 4, [0, 0, 0x02, 0x40]), Some((2, 0, [0, 0, 0x05, 0x00]))),
            ((11, 0, [0; 4]), Some((3, 0, [0; 4]))),
            ((12, 0, [9, 0, 0, 0]), Some((4, 0, pointer(6)))),
            ((12, 0, [10, 0, 0, 0]), None),
        ],
        Family::Ipv6 => vec![
            ((1, 0, [0; 4]), Some((3, 1, [0; 4]))),
            ((1, 1, [0; 4]), Some((3, 10, [0; 4]))),
            ((1, 4, [0; 4]), Some((3, 3, [0; 4]))),
            ((1, 5, [0; 4]), None),
            ((2, 0, [0, 0, 0x05, 0x78]), Some((3, 4, [0, 0, 0x05, 0x64]))),
            ((2, 0, [0, 1, 0, 0]), Some((3, 4, [0, 0, 0x05, 0xc8]))),
            ((3, 0, [0; 4]), Some((11, 0, [0; 4]))),
            ((4, 0, pointer(7)), Some((12, 0, [8, 0, 0, 0]))),
            ((4, 0, pointer(2)), None),
            ((4, 1, pointer(6)), Some((3, 2, [0; 4]))),
        ],
    }
}

#[test]
fn between_families_errors_are_in_words_of_the_other_one() {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    for ((client, server), protocol) in MIXED.into_iter().flat_map(|of| protocols.map(|protocol| (of, protocol))) {
        let mut session = Session::new(Dual::new(client, server, ForwardingMode::Fullnat, protocol));
        for (kind, words) in in_other_words(server) {
            let (verdict, out) = session.lab.send(LAN, &session.about_question(kind, 2000));
            let Some(words) = words else {
                assert_eq!(verdict, Verdict::Drop(DropReason::BadIcmpError), "{kind:?}");
                continue;
            };
            assert_eq!(verdict, Verdict::Transmit(WAN), "{kind:?}");
            let quote = session.question.packet_that_may_be_fragmented(63);
            let expected = error(TO_WAN, (session.lab.vip, session.lab.client), 59, words, &quote);
            assert_eq!(out, expected, "{server:?} {protocol} {kind:?} to the client");
        }
        for (kind, words) in in_other_words(client) {
            let (verdict, out) = session.lab.send(WAN, &session.about_answer(kind, 2000));
            let Some(words) = words else {
                assert_eq!(verdict, Verdict::Drop(DropReason::BadIcmpError), "{kind:?}");
                continue;
            };
            let quote = session.answer.packet_that_may_be_fragmented(59);
            let expected = error(TO_LAN, (session.answer.destination.0, session.lab.server), 59, words, &quote);
            assert_eq!(
                (verdict, out),
                (Verdict::Transmit(LAN), expected),
                "{client:?} {protocol} {kind:?} to the real server"
            );
        }
    }
}

#[test]
fn between_families_a_router_without_an_mtu_is_believed_the_next_smaller_one() {
    let lab = Dual::new(Family::Ipv6, Family::Ipv4, ForwardingMode::Fullnat, Protocol::Udp);
    let mut session = Session::with_payload(lab, &[7; 1445]);
    let (_, out) = session.lab.send(LAN, &session.about_question((3, 4, [0; 4]), 548));
    // The packet of 1,473 bytes was too big: 1,006 is next, and no less than 1,280 is told over IPv6.
    assert_eq!((out[54], &out[58..62]), (2, &[0, 0, 5, 0][..]));
}

#[test]
fn between_families_quotations_are_cut_to_what_the_other_one_quotes() {
    for (client, server) in MIXED {
        let mut session =
            Session::with_payload(Dual::new(client, server, ForwardingMode::Fullnat, Protocol::Udp), &[7; 1300]);
        let most = |family| if family == Family::Ipv4 { 576 } else { 1280 };
        let (kind, words) = in_other_words(server)[0];
        let header_lens = |family: Family| family.header_len() + 8;
        let packet = session.about_question(kind, most(server) - header_lens(server));
        assert_eq!(packet.len(), 14 + most(server));
        let (verdict, out) = session.lab.send(LAN, &packet);
        let quote = &session.question.packet(63);
        let l4_len = most(server) - header_lens(server) - server.header_len();
        let len = (l4_len + client.header_len()).min(most(client) - header_lens(client));
        let expected = error(TO_WAN, (session.lab.vip, session.lab.client), 59, words.unwrap(), &quote[..len]);
        assert_eq!((verdict, out), (Verdict::Transmit(WAN), expected));
        // What follows the quotation does not go over.
        let (at, unit) = if server == Family::Ipv4 { (1, 4) } else { (0, 8) };
        let mut rest = [0; 4];
        rest[at] = 128 / unit;
        let (_, out) = session.lab.send(LAN, &session.about_question((kind.0, kind.1, rest), 300));
        let quote = &quote[..128 - server.header_len() + client.header_len()];
        assert_eq!(out, error(TO_WAN, (session.lab.vip, session.lab.client), 59, words.unwrap(), quote));
    }
}

#[test]
fn dr_passes_errors_about_answers_to_the_real_server() {
    for (family, _) in SAME {
        let mut session = Session::new(Dual::new(family, family, ForwardingMode::Dr, Protocol::Tcp));
        for kind in kinds(family) {
            let packet = session.about_answer(kind, 2000);
            let (verdict, out) = session.lab.send(WAN, &packet);
            let ends = (session.lab.router(WAN), session.lab.vip);
            let expected = error(TO_LAN, ends, 59, kind, &session.answered[14..]);
            assert_eq!((verdict, out), (Verdict::Transmit(LAN), expected), "{kind:?}");
        }
    }
}

fn tunnels() -> [Tunnel; 5] {
    let tunnel = |encapsulation, checksum| Tunnel {
        encapsulation,
        checksum,
        port: if encapsulation == Encapsulation::Gue { 6080 } else { 0 },
    };
    [
        tunnel(Encapsulation::Ipip, false),
        tunnel(Encapsulation::Gre, false),
        tunnel(Encapsulation::Gre, true),
        tunnel(Encapsulation::Gue, false),
        tunnel(Encapsulation::Gue, true),
    ]
}

fn tunnelled() -> impl Iterator<Item = (Family, Family, Tunnel)> {
    let families = SAME.into_iter().chain(MIXED);
    families.flat_map(|(client, server)| tunnels().map(|tunnel| (client, server, tunnel)))
}

#[test]
fn tun_passes_errors_about_answers_through_the_tunnel() {
    for (client, server, tunnel) in tunnelled() {
        let mut session = Session::new(Dual::new(client, server, ForwardingMode::Tun, Protocol::Tcp).with(tunnel));
        let overhead = session.sent.len() - session.question.packet(64).len() - 14;
        let kind = kinds(client)[0];
        let (verdict, out) = session.lab.send(WAN, &session.about_answer(kind, 2000));
        assert_eq!(verdict, Verdict::Transmit(LAN));
        // Around it is what is around the question, as long as it is another packet.
        let inner = error(TO_LAN, (session.lab.router(WAN), session.lab.vip), 59, kind, &session.answered[14..]);
        assert_eq!(out[14 + overhead..], inner[14..], "{client:?} in {server:?} {tunnel}");
        assert_eq!(out[..14], session.sent[..14]);
        if tunnel.encapsulation == Encapsulation::Gue {
            let port_at = 14 + server.header_len();
            assert_eq!(out[port_at..port_at + 4], session.sent[port_at..port_at + 4], "by the flow's way");
        }
    }
}

#[test]
fn tun_relays_errors_from_inside_the_tunnel_to_the_client() {
    for (client, server, tunnel) in tunnelled() {
        let mut session = Session::new(Dual::new(client, server, ForwardingMode::Tun, Protocol::Tcp).with(tunnel));
        let overhead = session.sent.len() - session.question.packet(64).len() - 14;
        let kinds: Vec<_> = if client == server {
            kinds(client).into_iter().map(|kind| (kind, Some(kind))).collect()
        } else {
            in_other_words(server)
        };
        for (kind, words) in kinds {
            let (verdict, out) = session.lab.send(LAN, &session.about_question(kind, 2000));
            let Some(mut words) = words else {
                assert_eq!(verdict, Verdict::Drop(DropReason::BadIcmpError), "{kind:?}");
                continue;
            };
            if let Some(mtu) = mtu(server, kind) {
                let mtu = (mtu.min(65_535) - overhead as u32).max(if client == Family::Ipv4 { 68 } else { 1280 });
                words.2 = mtu.to_be_bytes();
            }
            let expected =
                error(TO_WAN, (session.lab.vip, session.lab.client), 59, words, &session.question.packet(63));
            assert_eq!(
                (verdict, out),
                (Verdict::Transmit(WAN), expected),
                "{client:?} in {server:?} {tunnel} {kind:?}"
            );
        }
    }
}

fn mtu(family: Family, (kind, code, rest): Kind) -> Option<u32> {
    let tells = if family == Family::Ipv4 { (kind, code) == (3, 4) } else { kind == 2 };
    tells.then(|| u32::from_be_bytes(rest))
}

#[test]
fn tun_gives_the_host_what_is_about_no_sessions_tunnel() {
    let mut session = Session::new(Dual::new(Family::Ipv4, Family::Ipv4, ForwardingMode::Tun, Protocol::Tcp));
    let own = ends(&session.sent).0.0;
    let mut quote = session.sent[14..].to_vec();
    let kind = (3, 1, [0; 4]);
    let punted = Verdict::Punt(PuntClass::Icmp);
    let short = error(FROM_LAN, (session.lab.router(LAN), own), 60, kind, &quote[..28]);
    assert_eq!(session.lab.send(LAN, &short).0, punted, "too little of what is inside");
    quote[19] ^= 1;
    let elsewhere = error(FROM_LAN, (session.lab.router(LAN), own), 60, kind, &quote);
    assert_eq!(session.lab.send(LAN, &elsewhere).0, punted, "to another real server");
}

#[test]
fn what_is_about_no_session_is_the_hosts_or_nobodys() {
    for (family, _) in SAME {
        let mut lab = Dual::new(family, family, ForwardingMode::Nat, Protocol::Udp);
        let class = if family == Family::Ipv4 { PuntClass::Icmp } else { PuntClass::Ipv6 };
        let stranger = Packet { source: (lab.vip, 80), destination: (lab.client, 9), ..lab.question(b"x") };
        let kind = kinds(family)[0];
        let to = |lab: &Dual, address| {
            let quote = Packet { source: (address, 80), ..stranger.clone() }.packet(60);
            error(FROM_WAN, (lab.router(WAN), address), 60, kind, &quote)
        };
        let local = [lab.vip, lab.lip];
        for address in local {
            assert_eq!(lab.send(WAN, &to(&lab, address)).0, Verdict::Punt(class));
        }
        let other = lab.client;
        assert_eq!(lab.send(WAN, &to(&lab, other)).0, Verdict::Drop(DropReason::NotLocal));
        let mut session = Session::new(lab);
        // It is no session's what is sent to another address than its packet came from.
        let astray = error(FROM_WAN, (session.lab.router(WAN), session.lab.lip), 60, kind, &session.answered[14..]);
        assert_eq!(session.lab.send(WAN, &astray).0, Verdict::Punt(class));
        // Source quench is not passed on, nor are errors that are none.
        let quench = if family == Family::Ipv4 { (4, 0, [0; 4]) } else { (100, 0, [0; 4]) };
        assert_eq!(session.lab.send(WAN, &session.about_answer(quench, 2000)).0, Verdict::Punt(class));
    }
}

#[test]
fn ipv4_mapped_addresses_in_a_quotation_name_no_session() {
    let mut session = Session::new(Dual::new(Family::Ipv4, Family::Ipv6, ForwardingMode::Fullnat, Protocol::Udp));
    let mapped = |(address, port): (IpAddr, u16)| match address {
        IpAddr::V4(address) => (IpAddr::V6(address.to_ipv6_mapped()), port),
        IpAddr::V6(_) => (address, port),
    };
    let answered = Packet {
        source: mapped(session.question.destination),
        destination: mapped(session.question.source),
        ..session.question.clone()
    };
    let from = session.lab.router(LAN);
    let packet = error(FROM_WAN, (from, answered.source.0), 60, (1, 0, [0; 4]), &answered.packet(60));
    assert_eq!(session.lab.send(WAN, &packet).0, Verdict::Drop(DropReason::MartianSource));
    let reversed = Packet { source: (session.lab.lip, 80), ..answered };
    let packet = error(FROM_WAN, (from, session.lab.lip), 60, (1, 0, [0; 4]), &reversed.packet(60));
    assert_eq!(session.lab.send(WAN, &packet).0, Verdict::Punt(PuntClass::Ipv6));
}

#[test]
fn errors_wait_for_a_neighbour_ready_but_for_their_ethernet_header() {
    for (client, server) in SAME.into_iter().chain(MIXED) {
        let mut session = Session::new(Dual::new(client, server, ForwardingMode::Fullnat, Protocol::Udp));
        let packet = session.about_question(kinds(server)[0], 2000);
        let (_, expected) = session.lab.send(LAN, &packet);
        session.lab.forget_neighbours();
        let (verdict, out) = session.lab.send(LAN, &packet);
        assert_eq!(verdict, Verdict::AwaitNeighbour(Hop { port: WAN, address: session.lab.client }));
        assert_eq!(out[12..], expected[12..]);
    }
}

#[test]
fn a_removed_real_server_is_told_nothing() {
    let mut session = Session::new(Dual::new(Family::Ipv4, Family::Ipv4, ForwardingMode::Fullnat, Protocol::Udp));
    session.lab.remove_real_server();
    let verdict = session.lab.send(WAN, &session.about_answer((3, 3, [0; 4]), 2000)).0;
    assert_eq!(verdict, Verdict::Drop(DropReason::RealServerRemoved));
    let verdict = session.lab.send(LAN, &session.about_question((3, 3, [0; 4]), 2000)).0;
    assert_eq!(verdict, Verdict::Transmit(WAN), "the client is");
}

/// What the gateway's own error about a packet quotes of it.
fn quoted(packet: &[u8], family: Family) -> &[u8] {
    let most = if family == Family::Ipv4 { 576 } else { 1280 } - family.header_len() - 8;
    &packet[..packet.len().min(most)]
}

/// An error as the gateway itself makes it: over IPv4 it is internetwork control, as the kernel's are (RFC 1812, 4.3.2.5).
fn own(mut error: Vec<u8>) -> Vec<u8> {
    if let Ok((mut header, _)) = Ipv4Header::from_slice(&error[14..]) {
        header.dscp = 48.try_into().unwrap();
        header.header_checksum = header.calc_header_checksum();
        error[14..14 + header.header_len()].copy_from_slice(&header.to_bytes());
    }
    error
}

#[test]
fn the_gateways_own_errors_tell_each_sender_what_it_may_send() {
    for (client, server) in SAME.into_iter().chain(MIXED) {
        for mode in [ForwardingMode::Fullnat, ForwardingMode::Nat, ForwardingMode::Dr, ForwardingMode::Tun] {
            if client != server && !matches!(mode, ForwardingMode::Fullnat | ForwardingMode::Tun) {
                continue;
            }
            let mut session = Session::new(Dual::new(client, server, mode, Protocol::Udp));
            session.lab.set_mtu(1400);
            let grown = |from: Family, to: Family| 1400 - to.header_len() + from.header_len();
            let most = match mode {
                ForwardingMode::Tun => 1400 - server.header_len(),
                _ => grown(client, server),
            };
            let question = |len: usize| session.lab.question(&vec![1; len - client.header_len() - 8]);
            let (fits, too_big) = (question(most), question(most + 1));
            assert_eq!(session.lab.send(WAN, &fits.frame(FROM_WAN, 64)).0, Verdict::Transmit(LAN), "{mode} {most}");
            let (verdict, out) = session.lab.send(WAN, &too_big.frame(FROM_WAN, 64));
            let packet = too_big.packet(64);
            let (kind, ends) = (too_big_kind(client, most), (session.lab.vip, session.lab.client));
            assert_eq!(
                (verdict, out),
                (Verdict::Transmit(WAN), own(error(TO_WAN, ends, 64, kind, quoted(&packet, client))))
            );
            if mode.is_one_way() {
                continue;
            }
            let most = grown(server, client);
            let answer =
                |len: usize| Packet { payload: vec![2; len - server.header_len() - 8], ..session.answer.clone() };
            let (fits, too_big) = (answer(most), answer(most + 1));
            assert_eq!(session.lab.send(LAN, &fits.frame(FROM_LAN, 64)).0, Verdict::Transmit(WAN));
            let (verdict, out) = session.lab.send(LAN, &too_big.frame(FROM_LAN, 64));
            let from = if mode == ForwardingMode::Nat { server.address(1, 1) } else { session.answer.destination.0 };
            let (kind, packet) = (too_big_kind(server, most), too_big.packet(64));
            let expected = own(error(TO_LAN, (from, session.lab.server), 64, kind, quoted(&packet, server)));
            assert_eq!((verdict, out), (Verdict::Transmit(LAN), expected), "{mode}");
        }
    }
}

fn too_big_kind(family: Family, mtu: usize) -> Kind {
    let kind = if family == Family::Ipv4 { (3, 4) } else { (2, 0) };
    (kind.0, kind.1, (mtu as u32).to_be_bytes())
}

#[test]
fn what_was_of_ipv6_may_be_fragmented_up_to_1260_bytes() {
    let mut lab = Dual::new(Family::Ipv6, Family::Ipv4, ForwardingMode::Fullnat, Protocol::Udp);
    for (len, dont_fragment) in [(1280, 0), (1281, 0x40)] {
        let question = lab.question(&vec![1; len - 48]);
        let (_, out) = lab.send(WAN, &question.frame(FROM_WAN, 64));
        assert_eq!((out.len(), out[20]), (14 + len - 20, dont_fragment), "{len}");
    }
}

/// The workers that see a packet until one keeps it, and that one's verdict.
fn journey(labs: &mut [Dual], first: usize, port: PortId, packet: &[u8]) -> (Vec<usize>, Verdict) {
    let (mut at, mut origin) = (first, Origin::Queue);
    let mut seen = vec![at];
    loop {
        let verdict = labs[at].send_from(port, packet, origin).0;
        let Verdict::HandOver(owner) = verdict else { return (seen, verdict) };
        assert!(seen.len() < 10, "for ever: {seen:?}");
        (at, origin) = (owner.index(), Origin::HandedOver);
        seen.push(at);
    }
}

/// Errors both ways about flows of many clients reach the worker that has the session, wherever they arrive.
fn errors_reach_their_owner(mode: ForwardingMode, families: (Family, Family), steering: Steering, workers: u8) {
    let (client, server) = families;
    let mut labs: Vec<_> = (0..workers)
        .map(|worker| Dual::of_worker(client, server, mode, Protocol::Udp, (workers, WorkerId(worker)), steering))
        .collect();
    for port in 5000..5010 {
        let question = Packet { source: (labs[0].client, port), ..labs[0].question(b"which worker?") };
        let frame = question.frame(FROM_WAN, 64);
        // With RSS wherever the device put it; else wherever its first packet is brought to.
        let first = usize::from(port % u16::from(workers));
        let (path, verdict) = journey(&mut labs, first, WAN, &frame);
        assert_eq!(verdict, Verdict::Transmit(LAN));
        let owner = *path.last().unwrap();
        let sent = labs[owner].send(WAN, &frame).1;
        let own = ends(&sent).0.0;
        let about_question = error(FROM_LAN, (labs[0].router(LAN), own), 60, kinds(server)[0], &sent[14..]);
        let answered = Packet { source: question.destination, destination: question.source, ..question };
        let about_answer =
            error(FROM_WAN, (labs[0].router(WAN), labs[0].vip), 60, kinds(client)[0], &answered.packet(60));
        for start in 0..workers.into() {
            if mode != ForwardingMode::Dr {
                let (path, verdict) = journey(&mut labs, start, LAN, &about_question);
                assert_eq!((*path.last().unwrap(), verdict), (owner, Verdict::Transmit(WAN)), "{mode} {path:?}");
                assert!(path.len() <= 2 || mode == ForwardingMode::Tun && steering == Steering::Rss, "{path:?}");
            }
            let (path, verdict) = journey(&mut labs, start, WAN, &about_answer);
            assert_eq!((*path.last().unwrap(), verdict), (owner, Verdict::Transmit(LAN)), "{mode} {path:?}");
            assert!(path.len() <= 2 || steering == Steering::Rss && path.len() <= usize::from(workers) + 1, "{path:?}");
        }
    }
    let nobodys = Packet { source: (labs[0].vip, 80), destination: (labs[0].client, 9), ..labs[0].question(b"x") };
    let packet = error(FROM_WAN, (labs[0].router(WAN), labs[0].vip), 60, kinds(client)[0], &nobodys.packet(60));
    let class = if client == Family::Ipv4 { PuntClass::Icmp } else { PuntClass::Ipv6 };
    for start in 0..workers.into() {
        assert_eq!(journey(&mut labs, start, WAN, &packet).1, Verdict::Punt(class), "the last one keeps it");
    }
}

#[test]
fn errors_are_handed_to_the_owner_of_their_session() {
    for families in SAME.into_iter().chain(MIXED) {
        for mode in [ForwardingMode::Fullnat, ForwardingMode::Nat, ForwardingMode::Dr, ForwardingMode::Tun] {
            if families.0 != families.1 && !matches!(mode, ForwardingMode::Fullnat | ForwardingMode::Tun) {
                continue;
            }
            for (steering, workers) in [(Steering::Software, 2), (Steering::Software, 3), (Steering::Rss, 3)] {
                errors_reach_their_owner(mode, families, steering, workers);
            }
        }
    }
}

proptest! {
    /// Whatever an error quotes, it gets one verdict, and nothing panics.
    #[test]
    fn any_quotation_gets_a_verdict(
        mixed in any::<bool>(),
        ipv6 in any::<bool>(),
        kind in (any::<u8>(), any::<u8>(), any::<[u8; 4]>()),
        changes in proptest::collection::vec((0usize..90, any::<u8>()), 0..5),
        len in 0usize..120,
    ) {
        let client = if ipv6 { Family::Ipv6 } else { Family::Ipv4 };
        let server = if mixed { client.other() } else { client };
        for mode in [ForwardingMode::Fullnat, ForwardingMode::Tun] {
            let mut session = Session::new(Dual::new(client, server, mode, Protocol::Tcp));
            let kind = (kind.0 % 14, kind.1 % 16, kind.2);
            let own = ends(&session.sent).0.0;
            let mut quote = session.sent[14..].to_vec();
            for &(at, value) in &changes {
                let at = at % quote.len();
                quote[at] = value;
            }
            quote.truncate(len);
            let packet = error(FROM_LAN, (session.lab.router(LAN), own), 60, kind, &quote);
            prop_assert_ne!(session.lab.send(LAN, &packet).0, Verdict::Transmit(PortId(99)));
        }
    }
}
