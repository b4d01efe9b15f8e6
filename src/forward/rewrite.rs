//! The change to a packet's bytes: addresses, ports, TTL, and the checksums by what these change.
//!
//! Checksums are updated, never recomputed: a few additions whatever the packet's length, right on every device,
//! and a packet that arrived damaged stays recognisable as such by its receiver (RFC 1624). Devices that could
//! insert checksums are not asked to: filling in their descriptor costs more than the additions.

use super::parse::Packet;
use crate::balance::Protocol;
use crate::flow::Direction;
use crate::session::Session;
use crate::wire::checksum::Delta;
use crate::wire::{ethernet, ipv4, tcp, udp};

/// Bytes of an Ethernet and a plain IPv4 header.
const FRONT: usize = ethernet::LEN + ipv4::MIN_LEN;
/// Where TTL, checksum and addresses stand in them.
const TTL_AT: usize = ethernet::LEN + 8;
const CHECKSUM_AT: usize = ethernet::LEN + 10;
const ADDRESSES_AT: usize = ethernet::LEN + 12;
/// Bytes of the ports.
const PORTS: usize = 4;

/// Makes a parsed packet what its session sends on in this direction: gives it the addresses and ports, the Ethernet
/// header if that is known, and a TTL lower by one.
#[inline]
pub fn rewrite(
    frame: &mut [u8],
    packet: &Packet,
    header: Option<&[u8; ethernet::LEN]>,
    session: &Session,
    direction: Direction,
) {
    let Some((front, rest)) = frame.split_first_chunk_mut::<FRONT>() else { return };
    let [ip_delta, l4_delta] = session.deltas(direction);
    let to = session.rewritten_key(direction);
    if let Some(header) = header {
        front[..ethernet::LEN].copy_from_slice(header);
    }
    front[TTL_AT] = front[TTL_AT].wrapping_sub(1);
    update(front, CHECKSUM_AT, ip_delta);
    front[ADDRESSES_AT..].copy_from_slice(&to.wire_addresses());

    let options = usize::from(packet.header_len) - ipv4::MIN_LEN;
    let Some((ports, l4)) = rest.get_mut(options..).and_then(|l4| l4.split_first_chunk_mut::<PORTS>()) else { return };
    *ports = to.wire_ports();
    match packet.key.protocol() {
        Protocol::Tcp => update(l4, tcp::CHECKSUM_AT - PORTS, l4_delta),
        Protocol::Udp => update_udp(l4, l4_delta),
    }
}

#[inline]
fn update(bytes: &mut [u8], at: usize, delta: Delta) {
    if let Some(field) = bytes.get_mut(at..).and_then(|bytes| bytes.first_chunk_mut()) {
        *field = delta.apply(*field);
    }
}

/// A UDP checksum of 0 means that there is none, so one that comes out as 0 is sent as 0xffff (RFC 768).
#[inline]
fn update_udp(l4: &mut [u8], delta: Delta) {
    if let Some(field) = l4.get_mut(udp::CHECKSUM_AT - PORTS..).and_then(|bytes| bytes.first_chunk_mut())
        && *field != [0, 0]
    {
        let checksum = delta.apply(*field);
        *field = if checksum == [0, 0] { [0xff, 0xff] } else { checksum };
    }
}
