//! Packets of IPv6.

use std::net::Ipv6Addr;

use super::super::verdict::{DropReason, PuntClass, Verdict};
use super::{Fragment, IcmpError, Packet, Parsed, at, dropped, echo_ports, plain_tcp, plain_udp, ports_and_flags};
use crate::balance::Protocol;
use crate::flow::FlowKey;
use crate::port::{ChecksumStatus, Frame, MacAddress};
use crate::wire::fragment;
use crate::wire::ipv6::{self, Ipv6, Upper};
use crate::wire::{ethernet, icmp6, tcp, udp};

/// Bytes of the headers of a plain packet up to the ports, and of whole headers.
const UDP_FRONT: usize = ethernet::LEN + ipv6::LEN + udp::LEN;
const TCP_FRONT: usize = ethernet::LEN + ipv6::LEN + tcp::MIN_LEN;
/// Bytes of the fixed header as a packet counts them.
#[allow(clippy::cast_possible_truncation, reason = "40")]
const HEADER_LEN: u8 = ipv6::LEN as u8;

/// What nearly every packet of IPv6 is: to this port's own address, TCP or UDP right behind the fixed header, whole and
/// sound. As with IPv4, none means only that [`super::parse`] must look, and addresses are not looked at.
#[inline]
pub fn plain<F: Frame>(frame: &F, own: MacAddress) -> Option<Packet<Ipv6Addr>> {
    let bytes = frame.bytes();
    let front = bytes.first_chunk::<UDP_FRONT>()?;
    // Destination MAC; EtherType and version.
    let differs = (u64::from_le_bytes(at::<0, 8, _>(front)) ^ own.low_bits()) << 16
        | u64::from((u32::from_le_bytes(at::<12, 4, _>(front)) ^ 0x0060_dd86) & 0x00f0_ffff);
    let payload_len = u16::from_be_bytes(at::<18, 2, _>(front));
    let total_len = payload_len.checked_add(HEADER_LEN.into())?;
    if differs != 0
        || usize::from(total_len) + ethernet::LEN > frame.packet_len()
        || frame.l4_checksum() == ChecksumStatus::Bad
    {
        return None;
    }
    let (protocol, flags) = match front[20] {
        udp::PROTOCOL => (Protocol::Udp, plain_udp(at::<58, 2, _>(front), payload_len.into())?),
        tcp::PROTOCOL => (Protocol::Tcp, plain_tcp(at::<66, 2, TCP_FRONT>(bytes.first_chunk()?), payload_len.into())?),
        _ => return None,
    };
    let addresses: [u64; 4] = bytemuck::cast(at::<22, 32, _>(front));
    let key = FlowKey::from_wire(protocol, addresses, at::<54, 4, _>(front));
    Some(Packet { key, total_len, header_len: HEADER_LEN, ttl: front[21], flags, dont_fragment: true })
}

/// Looks at any packet whatever; it came in a frame to a group or not.
pub(super) fn parse<F: Frame>(frame: &F, packet: &[u8], to_group: bool) -> Parsed {
    let header = match check(frame, packet) {
        Ok(header) => header,
        Err(reason) => return dropped(reason),
    };
    let total_len = header.payload_len() + u16::from(HEADER_LEN);
    // Without what pads the frame.
    let packet = &packet[..packet.len().min(total_len.into())];
    let (source, destination) = (header.source(), header.destination());
    if destination.is_multicast() {
        return Parsed::Decided(Verdict::Punt(class_of_multicast(header, packet)));
    }
    if ipv6::is_martian_source(source) || ipv6::is_never_unicast(destination) {
        return dropped(DropReason::MartianSource);
    }
    // A unicast packet in a group frame is not forwarded, and no service is reached by one.
    if to_group {
        return dropped(DropReason::NotOurMac);
    }
    let Some(upper) = ipv6::upper(packet) else { return dropped(DropReason::BadIpv6Header) };
    let l4 = packet.get(usize::from(upper.offset)..).unwrap_or_default();
    let protocol = match Protocol::from_number(upper.protocol) {
        Some(_) if upper.piece.is_some() => return Parsed::Ipv6Fragment,
        Some(protocol) => protocol,
        // Of a later fragment only the first one says what it is of.
        None if upper.piece.is_some_and(|piece| piece.is_later() || upper.protocol == icmp6::PROTOCOL) => {
            return Parsed::Ipv6Fragment;
        }
        None => return other(header, upper, total_len, l4),
    };
    let l4_len = usize::from(total_len).saturating_sub(upper.offset.into());
    match ports_and_flags(frame, protocol, l4, l4_len) {
        Ok((source_port, destination_port, flags)) => Parsed::Ipv6(Packet {
            key: FlowKey::new(protocol, (source, source_port), (destination, destination_port)),
            total_len,
            header_len: upper.offset,
            ttl: header.hop_limit(),
            flags,
            dont_fragment: true,
        }),
        Err(reason) => dropped(reason),
    }
}

/// A packet of no protocol that is balanced: an ICMP error, if it is whole, or something else.
fn other(header: Ipv6<'_>, upper: Upper, total_len: u16, l4: &[u8]) -> Parsed {
    let (is_icmp, is_fragment) = (upper.protocol == icmp6::PROTOCOL, upper.piece.is_some());
    if is_icmp && !is_fragment && l4.first().is_some_and(|&kind| icmp6::is_error(kind)) {
        return Parsed::Icmp6Error(IcmpError {
            ends: (header.source(), header.destination()),
            total_len,
            header_len: upper.offset,
            ttl: header.hop_limit(),
            dont_fragment: true,
        });
    }
    let is_echo = |kind| [icmp6::ECHO_REQUEST, icmp6::ECHO_REPLY].contains(&kind);
    if is_icmp
        && !is_fragment
        && l4.first().is_some_and(|&kind| is_echo(kind))
        && let Some((source_port, destination_port, flags)) = echo_ports(false, l4)
    {
        return Parsed::Echo6(Packet {
            key: FlowKey::new(Protocol::Icmp, (header.source(), source_port), (header.destination(), destination_port)),
            total_len,
            header_len: upper.offset,
            ttl: header.hop_limit(),
            flags,
            dont_fragment: true,
        });
    }
    let class = match is_icmp {
        true if is_neighbour_discovery(header, upper, l4) => PuntClass::NeighbourDiscovery,
        true => PuntClass::Ipv6,
        false => PuntClass::Local,
    };
    Parsed::Other { destination: header.destination().into(), class, fragment: is_fragment }
}

fn class_of_multicast(header: Ipv6<'_>, packet: &[u8]) -> PuntClass {
    let Some(upper) = ipv6::upper(packet) else { return PuntClass::Ipv6 };
    let l4 = packet.get(usize::from(upper.offset)..).unwrap_or_default();
    if is_neighbour_discovery(header, upper, l4) { PuntClass::NeighbourDiscovery } else { PuntClass::Ipv6 }
}

/// Whether it is neighbour discovery that hosts heed: no router has passed it on, and it is no fragment (RFC 4861 6.1, RFC 6980).
fn is_neighbour_discovery(header: Ipv6<'_>, upper: Upper, l4: &[u8]) -> bool {
    upper.protocol == icmp6::PROTOCOL
        && upper.piece.is_none()
        && header.hop_limit() == u8::MAX
        && l4.first().is_some_and(|&kind| icmp6::is_neighbour_discovery(kind))
}

/// A frame that [`super::parse`] found to be a fragment of a TCP, UDP or SCTP packet over IPv6, or what is wrong with it.
pub fn fragment<F: Frame>(frame: &F) -> Result<Fragment<Ipv6Addr>, DropReason> {
    let packet = frame.bytes().get(ethernet::LEN..).unwrap_or_default();
    let header = Ipv6::new(packet).ok_or(DropReason::Truncated)?;
    let total_len = header.payload_len().saturating_add(HEADER_LEN.into());
    let upper = ipv6::upper(&packet[..packet.len().min(total_len.into())]).ok_or(DropReason::BadIpv6Header)?;
    let piece = upper.piece.ok_or(DropReason::BadIpv6Header)?;
    let of_icmp = if upper.protocol == icmp6::PROTOCOL { Protocol::Icmp } else { Protocol::Udp };
    let protocol = Protocol::from_number(upper.protocol).unwrap_or(of_icmp);
    let whole = Packet {
        key: FlowKey::new(protocol, (header.source(), 0), (header.destination(), 0)),
        total_len,
        header_len: upper.offset,
        ttl: header.hop_limit(),
        flags: tcp::Flags::default(),
        dont_fragment: true,
    };
    // The fragment header is not in the whole datagram, nor does its length count the fixed header.
    let kept = usize::from(piece.data_at) - fragment::IPV6_LEN - ipv6::LEN;
    Fragment::new(whole, piece, kept, packet)
}

/// The header, if it and the length that it gives are sound.
fn check<'a, F: Frame>(frame: &F, packet: &'a [u8]) -> Result<Ipv6<'a>, DropReason> {
    let header = Ipv6::new(packet).ok_or(DropReason::Truncated)?;
    if header.version() != 6 || header.payload_len().checked_add(HEADER_LEN.into()).is_none() {
        return Err(DropReason::BadIpv6Header);
    }
    if usize::from(header.payload_len()) + ipv6::LEN > frame.packet_len() - ethernet::LEN {
        return Err(DropReason::Truncated);
    }
    Ok(header)
}
