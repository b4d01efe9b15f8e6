//! The change to a packet's bytes: addresses, ports, TTL, and the checksums by what these change.
//!
//! Checksums are updated, never recomputed: a few additions whatever the packet's length, right on every device,
//! and a packet that arrived damaged stays recognisable as such by its receiver (RFC 1624). Devices that could
//! insert checksums are not asked to: filling in their descriptor costs more than the additions.

use super::parse::Packet;
use crate::balance::Protocol;
use crate::flow::FlowKey;
use crate::wire::checksum::{Delta, TTL_DECREMENT};
use crate::wire::{ethernet, ipv4, tcp, udp};

/// Bytes of an Ethernet and a plain IPv4 header.
const FRONT: usize = ethernet::LEN + ipv4::MIN_LEN;

/// Makes a parsed packet carry the key `to`, and the Ethernet header if that is known, and lowers its TTL by one.
///
/// `deltas` are what the change of key does to the IPv4 header checksum and to that of TCP or UDP.
#[inline]
pub fn rewrite(
    frame: &mut [u8],
    packet: &Packet,
    header: Option<&[u8; ethernet::LEN]>,
    to: FlowKey,
    deltas: (Delta, Delta),
) {
    let Some((front, rest)) = frame.split_first_chunk_mut::<FRONT>() else { return };
    if let Some(header) = header {
        front[..ethernet::LEN].copy_from_slice(header);
    }
    front[22] = front[22].wrapping_sub(1);
    let checksum = deltas.0.and(TTL_DECREMENT).apply(u16::from_be_bytes([front[24], front[25]]));
    [front[24], front[25]] = checksum.to_be_bytes();
    front[26..34].copy_from_slice(&to.wire_addresses());

    let options = usize::from(packet.header_len) - ipv4::MIN_LEN;
    let Some(l4) = rest.get_mut(options..) else { return };
    if let Some(ports) = l4.first_chunk_mut() {
        *ports = to.wire_ports();
    }
    match packet.key.protocol() {
        Protocol::Tcp => update(l4, tcp::CHECKSUM_AT, deltas.1),
        Protocol::Udp => update_udp(l4, deltas.1),
    }
}

#[inline]
fn update(l4: &mut [u8], at: usize, delta: Delta) {
    if let Some(field) = l4.get_mut(at..at + 2).and_then(|field| field.first_chunk_mut::<2>()) {
        *field = delta.apply(u16::from_be_bytes(*field)).to_be_bytes();
    }
}

/// A UDP checksum of 0 means that there is none, so one that comes out as 0 is sent as 0xffff (RFC 768).
#[inline]
fn update_udp(l4: &mut [u8], delta: Delta) {
    if let Some(field) = l4.get_mut(udp::CHECKSUM_AT..udp::LEN).and_then(|field| field.first_chunk_mut::<2>())
        && *field != [0, 0]
    {
        let checksum = delta.apply(u16::from_be_bytes(*field));
        *field = if checksum == 0 { [0xff, 0xff] } else { checksum.to_be_bytes() };
    }
}
