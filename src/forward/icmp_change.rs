//! The change to an ICMP error's bytes: its own addresses, those in what it quotes, and the checksums, or the whole of its
//! headers where it becomes one of the other family.

use std::net::IpAddr;

use super::echo::identifier_delta;
use super::icmp_error::Arrived;
use super::icmp_plane::Errors;
use super::parse::IcmpError;
use super::plane::{Plane, routed};
use super::translate::MAY_BE_FRAGMENTED;
use super::way::Way;
use super::{DropReason, cut_trailer};
use crate::balance::{ForwardingMode, Protocol};
use crate::flow::Direction;
use crate::port::Frame;
use crate::session::Session;
use crate::wire::checksum::Delta;
use crate::wire::icmp::{self, ERROR_LEN, Header};
use crate::wire::{crc32c, ethernet, ipv4, sctp, tcp, udp};

/// What IPv6's header is longer than IPv4's.
const IPV6_IS_LONGER: u32 = 20;

/// What a session changes of an error: its own addresses, and the quoted packet's back to what they were on arrival.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    /// The error's own source: for clients the virtual address, for real servers the local one.
    source: IpAddr,
    /// From whom the quoted packet came, and to whom it went, with their ports.
    quoted: (IpAddr, IpAddr),
    quoted_ports: [u8; 4],
    protocol: Protocol,
    /// What the change does to a quoted TCP or UDP checksum; SCTP's covers but the ports.
    delta: Delta,
    /// Whether the error keeps its own source.
    keeps_source: bool,
}

impl Change {
    /// For an error that goes where packets of this direction go.
    pub(super) fn of<T: Plane>(session: &Session<T>, direction: Direction) -> Self {
        let to = session.rewritten_key(direction);
        let (source, destination) = (routed(to.source()), routed(to.destination()));
        Self {
            source,
            quoted: (destination, source),
            quoted_ports: to.reversed().wire_ports(),
            protocol: to.protocol(),
            delta: match to.protocol() {
                Protocol::Icmp => identifier_delta(session, direction),
                _ => session.deltas(direction)[1],
            },
            // In NAT mode the real server sees the clients' network as it is: also its routers.
            keeps_source: session.mode() == ForwardingMode::Nat && direction == Direction::Inbound,
        }
    }

    /// The error's own source, and the ends of the quoted packet, to whose source the error goes.
    fn ends<Q: Plane>(&self) -> Result<(Q, (Q, Q)), DropReason> {
        let of = |address| Q::of(address).ok_or(DropReason::NoRoute);
        Ok((of(self.source)?, (of(self.quoted.0)?, of(self.quoted.1)?)))
    }
}

/// Sends an error on as it is, to a real server that has the virtual address itself.
pub(super) fn pass<P: Plane, F: Frame>(frame: &mut F, arrived: &Arrived<P>, way: &Way<'_>) -> Result<(), DropReason> {
    if arrived.error.total_len > way.mtu {
        return Err(DropReason::TooBig);
    }
    cut_trailer(frame, arrived.error.total_len);
    P::lower_ttl(frame.bytes_mut());
    set_ethernet(frame, way);
    Ok(())
}

/// Gives an error the addresses that its session's peer knows, outside and in the quotation.
pub(super) fn readdress<P: Plane, F: Frame>(
    frame: &mut F,
    arrived: &Arrived<P>,
    change: &Change,
    way: &Way<'_>,
) -> Result<(), DropReason> {
    let (source, quoted) = change.ends::<P>()?;
    let source = if change.keeps_source { arrived.error.ends.0 } else { source };
    let class_and_ttl = class_and_ttl(frame, &arrived.error)?;
    let front = P::HEADER_LEN + ERROR_LEN;
    refront(frame, &arrived.error, usize::from(arrived.error.header_len) + ERROR_LEN, front, usize::MAX)?;
    let quote = frame.bytes_mut().get_mut(ethernet::LEN + front..).unwrap_or_default();
    P::readdress(quote, quoted);
    let l4 = quote.get_mut(arrived.quoted.header_len.into()..).unwrap_or_default();
    change_transport(l4, arrived.quoted.payload_len, change);
    finish::<P, F>(frame, arrived.header, class_and_ttl, (source, quoted.0), way)
}

/// Makes an error one of the other family (RFC 7915, 4.2, 4.3, 5.2, 5.3). Packets arrive from where the error does on a
/// link that takes `arrival_mtu` bytes.
pub(super) fn translate<P: Plane, F: Frame>(
    frame: &mut F,
    arrived: &Arrived<P>,
    change: &Change,
    way: &Way<'_>,
    arrival_mtu: u16,
) -> Result<(), DropReason> {
    let (source, quoted_ends) = change.ends::<P::Other>()?;
    let header = match P::path_mtu(arrived.header) {
        Some(mtu) => {
            let mtu = translated_mtu(mtu, arrived, (way.mtu, arrival_mtu));
            P::Other::error_header(icmp::Error::FragmentationNeeded { mtu })
        }
        None => P::in_other_words(arrived.header).ok_or(DropReason::BadIcmpError)?,
    };
    let class_and_ttl = class_and_ttl(frame, &arrived.error)?;
    let quoted = &arrived.quoted;
    let quote_at = usize::from(arrived.error.header_len) + ERROR_LEN;
    let inner = *header_at(frame, quote_at)?;
    let (front, header_len) = (P::Other::HEADER_LEN + ERROR_LEN, P::Other::HEADER_LEN);
    let cap = P::quoted_len(arrived.header)
        .map_or(usize::MAX, |len| front + header_len + len.saturating_sub(quoted.header_len.into()));
    let before = quote_at + usize::from(quoted.header_len);
    refront(frame, &arrived.error, before, front + header_len, cap.min(P::Other::MAX_ICMP_PACKET))?;
    let quote = frame.bytes_mut().get_mut(ethernet::LEN + front..).unwrap_or_default();
    let Some((made, l4)) = quote.split_at_mut_checked(header_len) else { return Err(DropReason::Truncated) };
    let class = (P::traffic_class(&inner), quoted.ttl);
    let dont_fragment = usize::from(quoted.payload_len) + header_len > MAY_BE_FRAGMENTED.into();
    let payload_len = quoted.payload_len.min(u16::MAX - u16::from(u8::MAX));
    P::Other::write_outer(made, payload_len, class, quoted.protocol, quoted_ends, (0, dont_fragment));
    change_transport(l4, payload_len, change);
    finish::<P::Other, F>(frame, header, class_and_ttl, (source, quoted_ends.0), way)
}

/// The MTU that the other side's packets may have, of which an error told `mtu` for this side's (RFC 7915, 4.2 and 5.2).
/// `mtus` are those of the links to the receiver of the error and to where it came from.
fn translated_mtu<P: Plane>(mtu: u32, arrived: &Arrived<P>, mtus: (u16, u16)) -> u16 {
    let (to_receiver, arrival) = (u32::from(mtus.0), u32::from(mtus.1));
    let mtu = if P::HAS_MIXED {
        mtu.min(arrival).saturating_sub(IPV6_IS_LONGER).min(to_receiver)
    } else {
        let total_len = arrived.quoted.payload_len.saturating_add(arrived.quoted.header_len.into());
        let mtu = if mtu == 0 { icmp::plateau_below(total_len).into() } else { mtu };
        (mtu.min(arrival) + IPV6_IS_LONGER).min(to_receiver)
    };
    u16::try_from(mtu).unwrap_or(u16::MAX).max(P::Other::MIN_MTU)
}

/// The first bytes of a header that stands so far behind the Ethernet header.
fn header_at<F: Frame>(frame: &F, at: usize) -> Result<&[u8; ipv4::MIN_LEN], DropReason> {
    let header = frame.bytes().get(ethernet::LEN + at..).and_then(|header| header.first_chunk());
    header.ok_or(DropReason::Truncated)
}

/// The class of traffic that an error goes on in, and its TTL.
pub(super) fn class_and_ttl<P: Plane, F: Frame>(frame: &F, error: &IcmpError<P>) -> Result<(u8, u8), DropReason> {
    Ok((P::traffic_class(header_at(frame, 0)?), error.ttl.wrapping_sub(1)))
}

/// Cuts off what follows an error in its frame, and makes `before` bytes behind the Ethernet header `after`, of
/// unspecified content. What is left is at most `cap` bytes behind the Ethernet header.
pub(super) fn refront<P: Plane, F: Frame>(
    frame: &mut F,
    error: &IcmpError<P>,
    before: usize,
    after: usize,
    cap: usize,
) -> Result<(), DropReason> {
    let kept = usize::from(error.total_len).saturating_sub(before).min(cap.saturating_sub(after));
    if !frame.truncate(ethernet::LEN + before + kept) {
        return Err(DropReason::Truncated);
    }
    let moved = if after > before {
        frame.prepend(after - before)
    } else {
        before == after || frame.trim_front(before - after)
    };
    if moved { Ok(()) } else { Err(DropReason::NoHeadroom) }
}

/// Gives a quoted transport header, which may be cut short, the ports that it had on arrival, and lets its checksum follow
/// where it is quoted. The whole packet had `len` bytes from there on.
fn change_transport(l4: &mut [u8], len: u16, change: &Change) {
    if change.protocol == Protocol::Icmp {
        let [a, b, c, d] = change.quoted_ports;
        return icmp::set_identifier(l4, u16::from_be_bytes([a | c, b | d]), change.delta);
    }
    let Some(ports) = l4.first_chunk_mut() else { return };
    let bits = sctp::changed_bits(*ports, change.quoted_ports);
    *ports = change.quoted_ports;
    let at = match change.protocol {
        Protocol::Tcp => tcp::CHECKSUM_AT,
        Protocol::Sctp => {
            if let Some(header) = l4.first_chunk_mut() {
                sctp::flip_checksum(header, crc32c::change(bits, len));
            }
            return;
        }
        Protocol::Udp | Protocol::Icmp | Protocol::Any => udp::CHECKSUM_AT,
    };
    let Some(field) = l4.get_mut(at..).and_then(|field| field.first_chunk_mut::<2>()) else { return };
    let has_none = change.protocol == Protocol::Udp && *field == [0, 0];
    if !has_none {
        *field = change.delta.apply(*field);
        if change.protocol == Protocol::Udp && *field == [0, 0] {
            *field = [0xff; 2];
        }
    }
}

/// Writes the IP and the ICMP header in front of the quotation, and the Ethernet header.
pub(super) fn finish<Q: Plane, F: Frame>(
    frame: &mut F,
    header: Header,
    class_and_ttl: (u8, u8),
    ends: (Q, Q),
    way: &Way<'_>,
) -> Result<(), DropReason> {
    if sent_len(frame) > way.mtu {
        return Err(DropReason::TooBig);
    }
    let packet = frame.bytes_mut().get_mut(ethernet::LEN..).unwrap_or_default();
    let Some((ip, message)) = packet.split_at_mut_checked(Q::HEADER_LEN) else { return Err(DropReason::Truncated) };
    let len = u16::try_from(message.len()).map_err(|_| DropReason::TooBig)?;
    Q::write_outer(ip, len, class_and_ttl, Q::ICMP, ends, (0, true));
    Q::write_icmp(header, message, ends);
    set_ethernet(frame, way);
    Ok(())
}

fn set_ethernet<F: Frame>(frame: &mut F, way: &Way<'_>) {
    match (way.header, frame.bytes_mut().first_chunk_mut()) {
        (Some(header), Some(front)) => *front = *header,
        _ => ethernet::set_ethertype_of_packet(frame.bytes_mut()),
    }
}

/// Bytes of the IP packet in a frame that nothing follows.
pub(super) fn sent_len<F: Frame>(frame: &F) -> u16 {
    u16::try_from(frame.packet_len().saturating_sub(ethernet::LEN)).unwrap_or(u16::MAX)
}
