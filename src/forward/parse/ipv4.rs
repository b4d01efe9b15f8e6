//! Packets of IPv4.

use std::net::Ipv4Addr;

use super::super::verdict::{DropReason, PuntClass, Verdict};
use super::{Fragment, IcmpError, Packet, Parsed, at, dropped, echo_ports, plain_tcp, plain_udp, ports_and_flags};
use crate::balance::Protocol;
use crate::flow::FlowKey;
use crate::port::{ChecksumStatus, Frame, MacAddress};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::{ethernet, icmp, tcp, udp};

/// Bytes of the headers of a plain packet up to the ports, and of whole headers.
const UDP_FRONT: usize = ethernet::LEN + ipv4::MIN_LEN + udp::LEN;
const TCP_FRONT: usize = ethernet::LEN + ipv4::MIN_LEN + tcp::MIN_LEN;

/// What nearly every packet is: to this port's own address, TCP or UDP over IPv4 without options, whole and sound.
///
/// None means only that [`super::parse`] must look. Where this gives a packet, that gives the same one, or refuses it for
/// its addresses, which are not looked at here: no session has such addresses (`Plane::is_unicast`; see the tests).
/// This one reads whole words at fixed offsets, and decides what must be so by one comparison of many bits.
#[inline]
pub fn plain<F: Frame>(frame: &F, own: MacAddress) -> Option<Packet<Ipv4Addr>> {
    let bytes = frame.bytes();
    let front = bytes.first_chunk::<UDP_FRONT>()?;
    // Destination MAC; EtherType, version and header length; more fragments, offset.
    let differs = (u64::from_le_bytes(at::<0, 8, _>(front)) ^ own.low_bits()) << 16
        | u64::from((u32::from_le_bytes(at::<12, 4, _>(front)) ^ 0x0045_0008) << 8)
        | u64::from(u32::from_be_bytes(at::<20, 4, _>(front)) & 0x3fff_0000);
    let total_len = u16::from_be_bytes(at::<16, 2, _>(front));
    if differs != 0 || usize::from(total_len) + ethernet::LEN > frame.packet_len() || !checksums_are_right(frame, front)
    {
        return None;
    }
    let l4_len = u32::from(total_len).checked_sub(20)?;
    let (protocol, flags) = match front[23] {
        udp::PROTOCOL => (Protocol::Udp, plain_udp(at::<38, 2, _>(front), l4_len)?),
        tcp::PROTOCOL => (Protocol::Tcp, plain_tcp(at::<46, 2, TCP_FRONT>(bytes.first_chunk()?), l4_len)?),
        _ => return None,
    };
    let key = FlowKey::from_wire(protocol, u64::from_ne_bytes(at::<26, 8, _>(front)), at::<34, 4, _>(front));
    Some(Packet { key, total_len, header_len: 20, ttl: front[22], flags, dont_fragment: front[20] & 0x40 != 0 })
}

/// Whether the device, or the header's sum, says that the IPv4 checksum is right, and the device not that TCP's or
/// UDP's is wrong.
#[inline]
fn checksums_are_right<F: Frame>(frame: &F, front: &[u8; UDP_FRONT]) -> bool {
    let ipv4 = match frame.ipv4_checksum() {
        ChecksumStatus::Good => true,
        ChecksumStatus::Bad => false,
        ChecksumStatus::Unknown => plain_checksum_is_right(front),
    };
    ipv4 && frame.l4_checksum() != ChecksumStatus::Bad
}

/// Whether an IPv4 header without options has the right checksum.
///
/// The sum is the same in any byte order, so words are added as they lie in memory (RFC 1071, 2.B); and it is all ones
/// where it is a multiple of 65,535 before it is folded, since 2^16 is 1 to that modulus. It is not 0: the header's
/// first byte is not.
#[inline]
fn plain_checksum_is_right(front: &[u8; UDP_FRONT]) -> bool {
    let halves = |word: [u8; 8]| {
        let word = u64::from_ne_bytes(word);
        (word & 0xffff_ffff) + (word >> 32)
    };
    let last = u64::from(u32::from_ne_bytes(at::<30, 4, _>(front)));
    (halves(at::<14, 8, _>(front)) + halves(at::<22, 8, _>(front)) + last).is_multiple_of(0xffff)
}

#[inline]
pub(super) fn parse<F: Frame>(frame: &F, packet: &[u8], to_group: bool) -> Parsed {
    let header = match check_ipv4(frame, packet) {
        Ok(header) => header,
        Err(reason) => return dropped(reason),
    };
    let destination = header.destination();
    if destination.is_multicast() || destination.is_broadcast() {
        return Parsed::Decided(Verdict::Punt(PuntClass::Multicast));
    }
    // A unicast packet in a group frame is not forwarded (RFC 1812, 5.3.4), and no service is reached by one.
    if to_group {
        return dropped(DropReason::NotOurMac);
    }
    let header_len = header.header_len();
    let l4 = packet.get(header_len..).unwrap_or_default();
    let protocol = match Protocol::from_number(header.protocol()) {
        Some(protocol) if !header.is_fragment() => protocol,
        Some(_) => return Parsed::Ipv4Fragment,
        None => return other(header, l4),
    };
    let l4_len = usize::from(header.total_len()) - header_len;
    let (source_port, destination_port, flags) = match ports_and_flags(frame, protocol, l4, l4_len) {
        Ok(found) => found,
        Err(reason) => return dropped(reason),
    };
    Parsed::Ipv4(Packet {
        key: FlowKey::new(protocol, (header.source(), source_port), (destination, destination_port)),
        total_len: header.total_len(),
        header_len: u8::try_from(header_len).unwrap_or(u8::MAX),
        ttl: header.ttl(),
        flags,
        dont_fragment: header.dont_fragment(),
    })
}

/// A packet that is neither of TCP nor of UDP: an ICMP error or an echo message, if it is whole, or something else.
fn other(header: Ipv4<'_>, l4: &[u8]) -> Parsed {
    let (is_icmp, is_fragment) = (header.protocol() == icmp::PROTOCOL, header.is_fragment());
    let (source, destination, total_len) = (header.source(), header.destination(), header.total_len());
    let header_len = u8::try_from(header.header_len()).unwrap_or(u8::MAX);
    let (ttl, dont_fragment) = (header.ttl(), header.dont_fragment());
    match l4.first().copied() {
        _ if is_icmp && is_fragment => Parsed::Ipv4Fragment,
        Some(kind) if is_icmp && icmp::is_error(kind) => {
            Parsed::IcmpError(IcmpError { ends: (source, destination), total_len, header_len, ttl, dont_fragment })
        }
        Some(icmp::ECHO_REQUEST | icmp::ECHO_REPLY)
            if is_icmp && let Some((source_port, destination_port, flags)) = echo_ports(true, l4) =>
        {
            let key = FlowKey::new(Protocol::Icmp, (source, source_port), (destination, destination_port));
            Parsed::Echo(Packet { key, total_len, header_len, ttl, flags, dont_fragment })
        }
        _ => {
            let class = if is_icmp { PuntClass::Icmp } else { PuntClass::Local };
            Parsed::Other { destination: destination.into(), class, fragment: is_fragment }
        }
    }
}

/// A frame that [`super::parse`] found to be a fragment of a TCP, UDP or SCTP packet over IPv4, or what is wrong with it.
pub fn fragment<F: Frame>(frame: &F) -> Result<Fragment<Ipv4Addr>, DropReason> {
    let packet = frame.bytes().get(ethernet::LEN..).unwrap_or_default();
    let header = Ipv4::new(packet).ok_or(DropReason::Truncated)?;
    let of_icmp = (header.protocol() == icmp::PROTOCOL).then_some(Protocol::Icmp);
    let protocol = Protocol::from_number(header.protocol()).or(of_icmp).ok_or(DropReason::Fragment)?;
    let piece = header.piece().ok_or(DropReason::BadIpv4Header)?;
    let whole = Packet {
        key: FlowKey::new(protocol, (header.source(), 0), (header.destination(), 0)),
        total_len: header.total_len(),
        header_len: piece.data_at,
        ttl: header.ttl(),
        flags: tcp::Flags::default(),
        dont_fragment: header.dont_fragment(),
    };
    Fragment::new(whole, piece, header.header_len(), packet)
}

/// The header, if it and the length that it gives are sound.
#[inline]
fn check_ipv4<'a, F: Frame>(frame: &F, packet: &'a [u8]) -> Result<Ipv4<'a>, DropReason> {
    let header = Ipv4::new(packet).ok_or(DropReason::Truncated)?;
    let (header_len, total_len) = (header.header_len(), usize::from(header.total_len()));
    if header.version() != 4 || header_len < ipv4::MIN_LEN || total_len < header_len {
        return Err(DropReason::BadIpv4Header);
    }
    let whole = packet.get(..header_len).ok_or(DropReason::Truncated)?;
    if total_len > frame.packet_len() - ethernet::LEN {
        return Err(DropReason::Truncated);
    }
    let right = match frame.ipv4_checksum() {
        ChecksumStatus::Good => true,
        ChecksumStatus::Bad => false,
        ChecksumStatus::Unknown => ipv4::checksum_is_right(whole),
    };
    if !right {
        return Err(DropReason::BadIpv4Checksum);
    }
    if ipv4::is_martian_source(header.source()) || header.destination().is_loopback() {
        return Err(DropReason::MartianSource);
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::forward::plane::Plane;
    use crate::port::memory::MemoryFrame;

    const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

    /// A packet that is plain but for what is done to it afterwards.
    fn packet(protocol: u8, payload: usize) -> Vec<u8> {
        let l4_len = payload + if protocol == tcp::PROTOCOL { 20 } else { 8 };
        let total_len = u16::try_from(20 + l4_len).unwrap();
        let mut bytes = [&OWN.0[..], &[2, 0, 0, 0, 9, 9, 8, 0], &[0; 20]].concat();
        if let Some(header) = bytes[14..].first_chunk_mut() {
            ipv4::write(header, total_len, 64, protocol, Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 100));
        }
        bytes.extend([0x9c, 0x40, 0, 80]);
        bytes.resize(34 + l4_len, 0x50);
        if protocol == udp::PROTOCOL {
            bytes[38..40].copy_from_slice(&u16::try_from(l4_len).unwrap().to_be_bytes());
        }
        bytes
    }

    proptest! {
        /// Both ways of parsing agree wherever the quick one decides, and it decides on sound plain packets.
        #[test]
        fn the_quick_way_agrees_with_the_careful_one(
            protocol in prop_oneof![Just(6u8), Just(17u8), Just(1u8)],
            payload in 0usize..80,
            changes in proptest::collection::vec((0usize..60, any::<u8>()), 0..3),
            cut in prop_oneof![Just(0usize), 0usize..40],
            refit in any::<bool>(),
        ) {
            let mut bytes = packet(protocol, payload);
            for &(at, value) in &changes {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            if refit {
                bytes[24..26].fill(0);
                let sum = !crate::wire::checksum::fold(crate::wire::checksum::sum(&bytes[14..34]));
                bytes[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            let frame = MemoryFrame::new(&bytes);
            let quick = plain(&frame, OWN);
            if let Some(packet) = quick {
                let careful = super::super::parse(&frame, OWN, false);
                prop_assert_eq!(careful == Parsed::Ipv4(packet), Ipv4Addr::is_unicast(&packet.key), "{:?}", careful);
            }
            if changes.is_empty() && cut == 0 && protocol != 1 {
                prop_assert!(quick.is_some());
            }
        }
    }
}
