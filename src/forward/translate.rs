//! From IPv4 to IPv6 and back: the IP header is made anew, the transport header gets other ports and its checksum
//! follows (RFC 7915, 4.1 and 5.1).
//!
//! What stands between IPv6's fixed header and the transport header, and IPv4's options, do not go over, but for what makes a packet
//! a fragment.

use std::net::Ipv6Addr;

use super::parse::Packet;
use super::plane::{Plane, routed};
use super::rewrite;
use super::verdict::DropReason;
use crate::balance::Protocol;
use crate::flow::{Address, Direction, FlowKey};
use crate::port::Frame;
use crate::session::Session;
use crate::wire::checksum::{fold, sum};
use crate::wire::fragment::{self, Piece};
use crate::wire::udp::{self, Udp};
use crate::wire::{ethernet, ipv4, ipv6};

/// Packets of IPv4 up to here that were of IPv6 may be fragmented: no sender of IPv6 makes its own smaller
/// (RFC 7915, 5.1).
pub(super) const MAY_BE_FRAGMENTED: u16 = 1260;

/// Bytes in front of the transport header, now and in the other family; of a fragment, in front of its data.
pub(super) fn grown<P: Plane>(packet: &Packet<P>, is_fragment: bool) -> (u16, u16) {
    let of_ipv6 = if is_fragment { ipv6::LEN + fragment::IPV6_LEN } else { ipv6::LEN };
    let after = if P::HAS_MIXED { ipv4::MIN_LEN } else { of_ipv6 };
    (packet.header_len.into(), u16::try_from(after).unwrap_or(0))
}

/// Makes a packet of a session of both families what that sends on in this direction, but for its Ethernet header, of which
/// only the EtherType is right. `piece` is the packet's place in its datagram if it is a fragment, `id` for an IPv4 packet that may
/// be fragmented.
pub(super) fn translate<P: Plane, F: Frame>(
    frame: &mut F,
    packet: &Packet<P>,
    piece: Option<Piece>,
    session: &Session<Ipv6Addr>,
    direction: Direction,
    id: u16,
) -> Result<(), DropReason> {
    if piece.is_some_and(|piece| piece.data_at != packet.header_len) {
        // Without extension headers that belong to the data, the others' places would not be right any more.
        return Err(DropReason::BadIpv6Header);
    }
    let is_later = piece.is_some_and(Piece::is_later);
    let to = session.rewritten_key(direction);
    let frame_len = ethernet::LEN + usize::from(packet.total_len);
    if frame.packet_len() > frame_len {
        frame.truncate(frame_len);
    }
    let header = frame.bytes().get(ethernet::LEN..).and_then(|ip| ip.first_chunk::<{ ipv4::MIN_LEN }>()).copied();
    let header = header.ok_or(DropReason::Truncated)?;
    let needs_checksum = !P::HAS_MIXED && !is_later && lacks_checksum(frame.bytes(), packet);
    if needs_checksum && (piece.is_some() || frame.packet_len() != frame.bytes().len()) {
        // Only its sender, or the whole of it, could say what the checksum is that IPv6 wants.
        return Err(DropReason::BadL4Checksum);
    }
    let (before, after) = grown(packet, piece.is_some());
    let moved = if after > before {
        frame.prepend(usize::from(after - before))
    } else {
        before == after || frame.trim_front(usize::from(before - after))
    };
    if !moved {
        return Err(DropReason::NoHeadroom);
    }
    let Some(ip) = frame.bytes_mut().get_mut(ethernet::LEN..) else { return Err(DropReason::Truncated) };
    let Some((front, l4)) = ip.split_at_mut_checked(after.into()) else { return Err(DropReason::Truncated) };
    match front.split_first_chunk_mut::<{ ipv6::LEN }>() {
        Some((front, extension)) => to_ipv6((front, extension), &header, packet, piece, &to),
        None => to_ipv4(front, &header, packet, piece, &to, id)?,
    }
    if !is_later {
        rewrite::transport::<false, _>(l4, packet, to.wire_ports(), session.deltas(direction)[1]);
    }
    if needs_checksum {
        make_udp_checksum(l4, &to);
    }
    ethernet::set_ethertype_of_packet(frame.bytes_mut());
    Ok(())
}

/// Whether it is a UDP packet whose sender made no checksum: IPv6 wants one (RFC 8200, 8.1).
fn lacks_checksum<P: Plane>(bytes: &[u8], packet: &Packet<P>) -> bool {
    let header = bytes.get(packet.l4_offset()..).and_then(|l4| l4.first_chunk::<{ udp::LEN }>());
    packet.key.protocol() == Protocol::Udp && header.is_some_and(|header| header[udp::CHECKSUM_AT..] == [0, 0])
}

/// The length is the header's own: what follows in the packet is no part of the datagram.
fn make_udp_checksum(l4: &mut [u8], to: &FlowKey<Ipv6Addr>) {
    let len = Udp::new(l4).map_or(0, Udp::len);
    let payload = fold(sum(l4.get(..len.into()).unwrap_or_default()));
    let pseudo = ipv6::pseudo_header(to.source(), to.destination(), udp::PROTOCOL, len);
    if let Some(header) = l4.first_chunk_mut() {
        udp::set_checksum(header, !fold(pseudo + u32::from(payload)));
    }
}

/// A header of IPv6 in place of one of IPv4, and behind it, of a fragment, the fragment header.
fn to_ipv6<P: Plane>(
    (front, extension): (&mut [u8; ipv6::LEN], &mut [u8]),
    header: &[u8; ipv4::MIN_LEN],
    packet: &Packet<P>,
    piece: Option<Piece>,
    to: &FlowKey<Ipv6Addr>,
) {
    let ends = (to.source(), to.destination());
    let (mut next_header, mut len) = (packet.key.protocol() as u8, packet.l4_len());
    if let (Some(piece), Some(extension)) = (piece, extension.first_chunk_mut::<{ fragment::IPV6_LEN }>()) {
        *extension = piece.to_ipv6(next_header);
        next_header = fragment::IPV6_NEXT_HEADER;
        len += u16::try_from(fragment::IPV6_LEN).unwrap_or(0);
    }
    ipv6::write(front, len, packet.ttl.wrapping_sub(1), next_header, ends);
    ipv6::set_traffic_class(front, header[1]);
}

/// A header of IPv4 in place of one of IPv6.
fn to_ipv4<P: Plane>(
    front: &mut [u8],
    header: &[u8; ipv4::MIN_LEN],
    packet: &Packet<P>,
    piece: Option<Piece>,
    to: &FlowKey<Ipv6Addr>,
    id: u16,
) -> Result<(), DropReason> {
    let of = |address: Ipv6Addr| std::net::Ipv4Addr::of(routed(address)).ok_or(DropReason::NoRoute);
    let ends = (of(to.source())?, of(to.destination())?);
    let len = packet.l4_len() + 20;
    let dont_fragment = piece.is_none() && len > MAY_BE_FRAGMENTED;
    let class_and_ttl = (P::traffic_class(header), packet.ttl.wrapping_sub(1));
    let id = if dont_fragment { 0 } else { id };
    let mut made = ipv4::header(len, class_and_ttl, packet.key.protocol() as u8, ends, (id, dont_fragment));
    if let Some(piece) = piece {
        made[4..8].copy_from_slice(&piece.to_ipv4());
        ipv4::make_checksum(&mut made);
    }
    front.copy_from_slice(&made);
    Ok(())
}
