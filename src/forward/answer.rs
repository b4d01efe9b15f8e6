//! Answers that the gateway gives itself, made in place of the packet that they answer: TCP resets and ICMP errors.
//!
//! Both come from the address that the packet was sent to (for a client the VIP, as IPVS does), ICMP errors only if that is
//! the gateway's: what a real server in NAT mode sent to a client is answered from the port's own address. They go back to the machine
//! that handed the packet over, so that they need no route.

use std::net::IpAddr;

use super::parse::Packet;
use super::plane::Plane;
use super::{DropReason, Forwarder, Now, Verdict};
use crate::balance::Protocol;
use crate::port::{Frame, PortId};
use crate::wire::checksum::{fold, sum};
use crate::wire::ethernet::Ethernet;
use crate::wire::fragment::Piece;
use crate::wire::tcp::{self, Flags, Tcp};
use crate::wire::{ethernet, icmp};

/// TTL of packets that the gateway makes.
const TTL: u8 = 64;

impl Forwarder {
    /// Nobody is answered whose address, or link-layer address, stands for many, nor for an IPv4 fragment that is not the first
    /// (RFC 1122, 3.2.2).
    fn may_answer<A: Plane, F: Frame>(&self, frame: &F, packet: &Packet<A>) -> bool {
        let from_group = Ethernet::new(frame.bytes()).is_none_or(|ethernet| ethernet.source().is_group());
        let is_broadcast = match packet.key.source().into() {
            IpAddr::V4(source) => self.routes.is_broadcast(source),
            IpAddr::V6(_) => false,
        };
        let ip = frame.bytes().get(ethernet::LEN..).unwrap_or_default();
        let is_later = !A::HAS_MIXED && A::piece(ip, packet.header_len).is_some_and(Piece::is_later);
        !from_group && !is_broadcast && !is_later
    }

    /// Addresses an answer, whose addresses are still those of the packet that it answers, to the machine that sent that; from
    /// this port, whoever that was for: a promiscuous port takes frames for others, and switches believe what they see.
    // A call, for few packets: inlined it takes registers from the steps of all.
    #[inline(never)]
    fn send_back<F: Frame>(&self, port: PortId, frame: &mut F) {
        ethernet::swap_addresses(frame.bytes_mut());
        if let Some(view) = self.ports.get(port.index()) {
            ethernet::set_source(frame.bytes_mut(), view.mac);
        }
    }

    /// Answers a TCP segment of no session with a RST, but never a RST with one.
    pub(super) fn answer_reset<A: Plane, F: Frame>(
        &self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<A>,
        otherwise: DropReason,
    ) -> Verdict {
        let is_tcp = packet.key.protocol() == Protocol::Tcp;
        if is_tcp && !packet.flags.has(Flags::RST) && self.may_answer(frame, packet) && reset(frame, packet) {
            self.counters.resets_sent.add(1);
            self.send_back(port, frame);
            return Verdict::Transmit(port);
        }
        Verdict::Drop(otherwise)
    }

    /// Answers a packet with an ICMP error if their rate allows.
    pub(super) fn answer_icmp<A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<A>,
        error: icmp::Error,
        otherwise: DropReason,
        now: Now,
    ) -> Verdict {
        if self.may_answer(frame, packet)
            && self.icmp_errors.take(now.nanoseconds)
            && self.make_icmp_error(port, frame, packet, error)
        {
            self.counters.icmp_errors_sent.add(1);
            self.send_back(port, frame);
            return Verdict::Transmit(port);
        }
        Verdict::Drop(otherwise)
    }

    /// Turns a packet into the error about it; see [`icmp_error`]. Apart, so that the hits that may end here stay short.
    #[cold]
    #[inline(never)]
    fn make_icmp_error<A: Plane, F: Frame>(
        &self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<A>,
        error: icmp::Error,
    ) -> bool {
        icmp_error(frame, packet, error, self.own_address(port, packet))
    }

    /// The gateway's address that a packet speaks to, or that of the port that it came in by.
    fn own_address<A: Plane>(&self, port: PortId, packet: &Packet<A>) -> A {
        let destination = packet.key.destination();
        if self.routes.is_local(destination) || self.services.is_balanced(destination.into()) {
            return destination;
        }
        self.routes.interface(port).and_then(A::own_address).unwrap_or(destination)
    }

    /// A packet larger than the outgoing link takes: its sender is told if it asked not to have it cut (RFC 1191), else it is cut.
    pub(super) fn too_big<A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<A>,
        mtu: u16,
        now: Now,
    ) -> Verdict {
        if packet.dont_fragment {
            let error = icmp::Error::FragmentationNeeded { mtu };
            return self.answer_icmp(port, frame, packet, error, DropReason::TooBig, now);
        }
        Verdict::Cut(mtu)
    }
}

/// Turns a TCP segment that belongs to nothing into the RST that it deserves (RFC 9293, 3.10.7.1). False, and the
/// frame is of no use any more, where that cannot be done.
fn reset<A: Plane, F: Frame>(frame: &mut F, packet: &Packet<A>) -> bool {
    let Some(segment) = frame.bytes().get(packet.l4_offset()..).and_then(Tcp::new) else { return false };
    let flags = segment.flags();
    let data = usize::from(packet.l4_len()) - segment.header_len();
    let length = data + usize::from(flags.has(Flags::SYN)) + usize::from(flags.has(Flags::FIN));
    let (sequence, acknowledgement, answer) = if flags.has(Flags::ACK) {
        (segment.acknowledgement(), 0, Flags::RST.0)
    } else {
        let next = segment.sequence().wrapping_add(u32::try_from(length).unwrap_or(0));
        (0, next, Flags::RST.0 | Flags::ACK.0)
    };
    if !frame.truncate(ethernet::LEN + A::HEADER_LEN + tcp::MIN_LEN) {
        return false;
    }
    let Some((header, segment)) =
        frame.bytes_mut().get_mut(ethernet::LEN..).and_then(|ip| ip.split_at_mut_checked(A::HEADER_LEN))
    else {
        return false;
    };
    let ends = (packet.key.destination(), packet.key.source());
    A::write_header(header, 20, TTL, tcp::PROTOCOL, ends);
    let Some(segment) = segment.first_chunk_mut::<{ tcp::MIN_LEN }>() else { return false };
    segment.fill(0);
    segment[0..2].copy_from_slice(&packet.key.destination_port().to_be_bytes());
    segment[2..4].copy_from_slice(&packet.key.source_port().to_be_bytes());
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    segment[8..12].copy_from_slice(&acknowledgement.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = answer;
    let checksum = !fold(A::pseudo_header(ends, tcp::PROTOCOL, 20) + sum(segment));
    segment[tcp::CHECKSUM_AT..tcp::CHECKSUM_AT + 2].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// Turns a packet into the ICMP error about it, told by `from`, quoting as much of it as such an error may. False, and the frame is of
/// no use any more, where that cannot be done.
fn icmp_error<A: Plane, F: Frame>(frame: &mut F, packet: &Packet<A>, error: icmp::Error, from: A) -> bool {
    let front = A::HEADER_LEN + icmp::ERROR_LEN;
    let in_first_segment = frame.bytes().len().saturating_sub(ethernet::LEN);
    let quoted = usize::from(packet.total_len).min(A::MAX_ICMP_PACKET - front).min(in_first_segment);
    let Some(ethernet_header) = frame.bytes().first_chunk::<{ ethernet::LEN }>().copied() else { return false };
    if !frame.truncate(ethernet::LEN + quoted) || !frame.prepend(front) {
        return false;
    }
    let bytes = frame.bytes_mut();
    let Some((front, packet_out)) = bytes.split_first_chunk_mut::<{ ethernet::LEN }>() else { return false };
    *front = ethernet_header;
    let Some((header, message)) = packet_out.split_at_mut_checked(A::HEADER_LEN) else { return false };
    let Ok(payload_len) = u16::try_from(icmp::ERROR_LEN + quoted) else { return false };
    let ends = (from, packet.key.source());
    A::write_outer(header, payload_len, (A::ERROR_CLASS, TTL), A::ICMP, ends, (0, true));
    A::write_icmp(A::error_header(error), message, ends);
    true
}
