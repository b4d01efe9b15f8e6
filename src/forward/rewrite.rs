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

/// Makes a parsed packet what its session sends on in this direction: gives it the Ethernet header if that is known, a TTL
/// lower by one, and, unless it is in a mode in which answers do not pass here, other addresses and ports.
#[inline]
pub fn rewrite<const ONE_WAY: bool>(
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
    if ONE_WAY {
        return;
    }
    front[ADDRESSES_AT..].copy_from_slice(&to.wire_addresses());

    let options = usize::from(packet.header_len) - ipv4::MIN_LEN;
    let Some(l4) = rest.get_mut(options..) else { return };
    match packet.key.protocol() {
        Protocol::Tcp => {
            let Some(l4) = l4.first_chunk_mut::<{ tcp::MIN_LEN }>() else { return };
            l4[..PORTS].copy_from_slice(&to.wire_ports());
            update(l4, tcp::CHECKSUM_AT, l4_delta);
        }
        Protocol::Udp => {
            let Some(l4) = l4.first_chunk_mut::<{ udp::LEN }>() else { return };
            l4[..PORTS].copy_from_slice(&to.wire_ports());
            // 0 means that there is no checksum, so one that comes out as 0 is sent as 0xffff (RFC 768).
            if l4[udp::CHECKSUM_AT..] != [0, 0] {
                update(l4, udp::CHECKSUM_AT, l4_delta);
                if l4[udp::CHECKSUM_AT..] == [0, 0] {
                    l4[udp::CHECKSUM_AT..].fill(0xff);
                }
            }
        }
    }
}

/// Lets a checksum follow a change; `at` lies within the header.
#[inline]
fn update(header: &mut [u8], at: usize, delta: Delta) {
    if let Some(field) = header.get_mut(at..).and_then(|field| field.first_chunk_mut()) {
        *field = delta.apply(*field);
    }
}
