//! The change to a packet's bytes: addresses, ports, TTL, and the checksums by what these change.
//!
//! Checksums are updated, never recomputed: a few additions whatever the packet's length, right on every device,
//! and a packet that arrived damaged stays recognisable as such by its receiver (RFC 1624). Devices that could
//! insert checksums are not asked to: filling in their descriptor costs more than the additions.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::parse::Packet;
use crate::balance::Protocol;
use crate::flow::{Address, Direction};
use crate::session::Session;
use crate::wire::checksum::{Delta, TTL_DECREMENT};
use crate::wire::{ethernet, sctp, tcp, udp};

/// Bytes of an Ethernet and a plain IPv4 header.
const IPV4_FRONT: usize = ethernet::LEN + crate::wire::ipv4::MIN_LEN;
/// Where TTL, checksum and addresses stand in them.
const TTL_AT: usize = ethernet::LEN + 8;
const CHECKSUM_AT: usize = ethernet::LEN + 10;
const ADDRESSES_AT: usize = ethernet::LEN + 12;
/// Bytes of an Ethernet and an IPv6 header, and where hop limit and addresses stand in them.
const IPV6_FRONT: usize = ethernet::LEN + crate::wire::ipv6::LEN;
const HOP_LIMIT_AT: usize = ethernet::LEN + 7;
const IPV6_ADDRESSES_AT: usize = ethernet::LEN + 8;
/// Bytes of the ports.
const PORTS: usize = 4;

/// Makes a parsed packet what its session sends on in this direction: gives it the Ethernet header if that is known, a TTL
/// lower by one, and, unless it is in a mode in which answers do not pass here, other addresses and ports. `PLAIN`: it is what
/// [`super::parse::plain`] finds, so not of SCTP.
#[inline]
pub fn ipv4<const ONE_WAY: bool, const PLAIN: bool>(
    frame: &mut [u8],
    packet: &Packet<Ipv4Addr>,
    header: Option<&[u8; ethernet::LEN]>,
    session: &Session<Ipv4Addr>,
    direction: Direction,
) {
    let Some((front, rest)) = frame.split_first_chunk_mut::<IPV4_FRONT>() else { return };
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
    front[ADDRESSES_AT..].copy_from_slice(&to.wire_addresses().to_ne_bytes());
    let options = usize::from(packet.header_len) - crate::wire::ipv4::MIN_LEN;
    if let Some(l4) = rest.get_mut(options..) {
        transport::<PLAIN, _>(l4, packet, to.wire_ports(), l4_delta);
    }
}

/// The same for IPv6, whose header has no checksum.
#[inline]
pub fn ipv6<const ONE_WAY: bool, const PLAIN: bool>(
    frame: &mut [u8],
    packet: &Packet<Ipv6Addr>,
    header: Option<&[u8; ethernet::LEN]>,
    session: &Session<Ipv6Addr>,
    direction: Direction,
) {
    let Some((front, rest)) = frame.split_first_chunk_mut::<IPV6_FRONT>() else { return };
    if let Some(header) = header {
        front[..ethernet::LEN].copy_from_slice(header);
    }
    front[HOP_LIMIT_AT] = front[HOP_LIMIT_AT].wrapping_sub(1);
    if ONE_WAY {
        return;
    }
    let [_, l4_delta] = session.deltas(direction);
    let to = session.rewritten_key(direction);
    front[IPV6_ADDRESSES_AT..].copy_from_slice(bytemuck::bytes_of(&to.wire_addresses()));
    let extensions = usize::from(packet.header_len) - crate::wire::ipv6::LEN;
    if let Some(l4) = rest.get_mut(extensions..) {
        transport::<PLAIN, _>(l4, packet, to.wire_ports(), l4_delta);
    }
}

/// Lowers the TTL of a packet of IPv4 by one.
#[inline]
pub(super) fn lower_ttl(frame: &mut [u8]) {
    let Some(front) = frame.first_chunk_mut::<IPV4_FRONT>() else { return };
    front[TTL_AT] = front[TTL_AT].wrapping_sub(1);
    update(front, CHECKSUM_AT, TTL_DECREMENT);
}

/// Lowers the hop limit of a packet of IPv6 by one.
#[inline]
pub(super) fn lower_hop_limit(frame: &mut [u8]) {
    if let Some(hop_limit) = frame.get_mut(HOP_LIMIT_AT) {
        *hop_limit = hop_limit.wrapping_sub(1);
    }
}

/// Gives the header of a packet, at the front of `l4`, other ports, and lets its checksum follow these and the addresses.
#[inline]
pub(super) fn transport<const PLAIN: bool, A: Address>(
    l4: &mut [u8],
    packet: &Packet<A>,
    ports: [u8; PORTS],
    delta: Delta,
) {
    match packet.key.protocol() {
        Protocol::Tcp => {
            let Some(l4) = l4.first_chunk_mut::<{ tcp::MIN_LEN }>() else { return };
            l4[..PORTS].copy_from_slice(&ports);
            update(l4, tcp::CHECKSUM_AT, delta);
        }
        Protocol::Sctp if !PLAIN => {
            if let Some(l4) = l4.first_chunk_mut() {
                sctp::set_ports(l4, ports, packet.l4_len());
            }
        }
        // Echo messages have no ports: `echo` changes them.
        Protocol::Icmp if !PLAIN => {}
        // No plain packet is one of SCTP or ICMP.
        Protocol::Udp | Protocol::Sctp | Protocol::Icmp | Protocol::Any => {
            let Some(l4) = l4.first_chunk_mut::<{ udp::LEN }>() else { return };
            l4[..PORTS].copy_from_slice(&ports);
            // 0 means that there is no checksum, so one that comes out as 0 is sent as 0xffff (RFC 768).
            if l4[udp::CHECKSUM_AT..] != [0, 0] {
                update(l4, udp::CHECKSUM_AT, delta);
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
