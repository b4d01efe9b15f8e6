//! What must be true of a packet that the gateway sends.

use super::gateway::GUE_PORT;
use crate::targets::network::{self, Checksum, ICMP, ICMP6, Ip, SCTP, TCP, UDP};

/// Bytes of the shortest frame, which may be padded up to.
const MIN_FRAME: usize = 60;

/// Checks a frame that came of another one.
pub fn check(input: &[u8], output: &[u8], mtu: u16) {
    let sent = check_alone(output);
    assert!(sent.bytes.len() <= mtu.into(), "{} bytes where {mtu} may be sent", sent.bytes.len());
    let came = network::read(&input[14..]);
    let came = came.unwrap_or_else(|wrong| panic!("sent for a packet that is not sound: {wrong}"));
    if is_tunnelled(&came, &sent) {
        check_tunnelled(&came, &sent);
        return;
    }
    let is_answer = sent.source == came.destination && sent.destination == came.source;
    if is_answer || came.checksum() == Checksum::Right {
        assert!(is_right(&sent), "its checksum is wrong: {sent:?}");
    }
    if !is_answer && came.protocol == sent.protocol && !came.fragment && matches!(came.protocol, TCP | UDP | SCTP) {
        assert_eq!(came.ttl - 1, sent.ttl, "TTL");
        let checksum = match came.protocol {
            TCP => 16..18,
            SCTP => 8..12,
            _ => 6..8,
        };
        if came.protocol == SCTP {
            assert_eq!(sent.checksum(), came.checksum(), "a wrong checksum must stay wrong");
        }
        let of = |packet: &Ip<'_>| without_mss(packet.protocol, packet.payload());
        let (came, sent) = (of(&came), of(&sent));
        let (before, after) = (without(&came, checksum.clone()), without(&sent, checksum));
        assert_eq!(before, after, "what the packet carries");
    }
}

/// Checks what must be true whatever the frame came of, and gives its packet.
pub fn check_alone(output: &[u8]) -> Ip<'_> {
    let sent = network::read(output.get(14..).unwrap_or_default());
    let sent = sent.unwrap_or_else(|wrong| panic!("sent, and not sound: {wrong}"));
    let ethertype = if sent.source.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
    assert_eq!(output[12..14], ethertype, "EtherType");
    assert!(output.len() <= (14 + sent.bytes.len()).max(MIN_FRAME), "more than a packet and what pads it");
    assert!(sent.ttl > 0, "sent without time to live");
    sent
}

/// Whether what was sent carries what came, which may itself be a client's GUE.
fn is_tunnelled(came: &Ip<'_>, sent: &Ip<'_>) -> bool {
    sent.bytes.len() > came.bytes.len() && sent.inside(GUE_PORT).is_some_and(|inside| inside.len() == came.bytes.len())
}

fn check_tunnelled(came: &Ip<'_>, sent: &Ip<'_>) {
    let inside = sent.inside(GUE_PORT).unwrap_or_default();
    let inner = network::read(inside).unwrap_or_else(|wrong| panic!("sent in a tunnel, and not sound: {wrong}"));
    assert_eq!(inner.bytes.len(), inside.len(), "more than a packet in a tunnel");
    assert_eq!((inner.source, inner.destination), (came.source, came.destination));
    assert_eq!((inner.ttl, sent.ttl), (came.ttl - 1, came.ttl - 1), "TTL");
    if inner.payload() != came.payload() {
        let of = |packet: &Ip<'_>| without_mss(packet.protocol, packet.payload());
        let (came, inner) = (of(came), of(&inner));
        assert_eq!(came[..16], inner[..16], "what the packet carries");
        assert_eq!(without(&came, 16..18), without(&inner, 16..18), "what the packet carries");
    }
    // GUE over IPv6 may do without a checksum where the packet is not in one piece (RFC 6935).
    let has_none = sent.protocol == UDP && sent.payload()[6..8] == [0, 0];
    assert!(has_none || sent.checksum() != Checksum::Wrong, "the tunnel's checksum");
}

fn is_right(sent: &Ip<'_>) -> bool {
    match sent.protocol {
        TCP | UDP | SCTP | ICMP | ICMP6 if !sent.fragment => sent.checksum() == Checksum::Right,
        _ => true,
    }
}

/// What stands behind the ports, but for the checksum.
fn without(payload: &[u8], checksum: std::ops::Range<usize>) -> (&[u8], &[u8]) {
    (&payload[4..checksum.start], &payload[checksum.end..])
}

/// A segment with SYN without its options: the MSS may have been lowered. Others as they are.
fn without_mss(protocol: u8, payload: &[u8]) -> Vec<u8> {
    match payload {
        [first @ .., _] if protocol == TCP && first.len() >= 19 && payload[13] & 2 != 0 => {
            let data = payload.get(usize::from(payload[12] >> 4) * 4..).unwrap_or_default();
            [&payload[..20], data].concat()
        }
        _ => payload.to_vec(),
    }
}
