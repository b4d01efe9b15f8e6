//! Answers that the gateway gives itself, made in place of the packet that they answer: TCP resets and ICMP errors.
//!
//! Both come from the address that the packet was sent to (for a client the VIP, as IPVS does), but for errors about
//! packets to others than the gateway, which come from its own, and go back to the machine that handed the packet over,
//! so that they need no route.

use std::net::IpAddr;

use super::parse::Packet;
use super::plane::Plane;
use super::{DropReason, Forwarder, Now, Verdict};
use crate::balance::Protocol;
use crate::port::{Frame, PortId};
use crate::wire::checksum::{fold, sum};
use crate::wire::ethernet::Ethernet;
use crate::wire::tcp::{self, Flags, Tcp};
use crate::wire::{ethernet, icmp};

/// TTL of packets that the gateway makes.
const TTL: u8 = 64;

impl Forwarder {
    /// Nobody is answered whose address, or link-layer address, stands for many (RFC 1122, 3.2.2).
    fn may_answer<A: Plane, F: Frame>(&self, frame: &F, packet: &Packet<A>) -> bool {
        let from_group = Ethernet::new(frame.bytes()).is_none_or(|ethernet| ethernet.source().is_group());
        let is_broadcast = match packet.key.source().into() {
            IpAddr::V4(source) => self.routes.is_broadcast(source),
            IpAddr::V6(_) => false,
        };
        !from_group && !is_broadcast
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
        let from = self.speaker(port, packet.key.destination());
        if self.may_answer(frame, packet)
            && self.icmp_errors.take(now.nanoseconds)
            && icmp_error(frame, packet, from, error)
        {
            self.counters.icmp_errors_sent.add(1);
            return Verdict::Transmit(port);
        }
        Verdict::Drop(otherwise)
    }

    /// Who tells about a packet to `destination`: that itself where it is the gateway's, else the port that the packet came
    /// in by, as of any router (RFC 1812, 4.3.2.4).
    fn speaker<A: Plane>(&self, port: PortId, destination: A) -> A {
        let address = destination.into();
        if self.services.is_balanced(address) || self.routes.is_local(address) {
            return destination;
        }
        let own = self.routes.interface(port).and_then(|interface| match address {
            IpAddr::V4(_) => interface.address.map(IpAddr::V4),
            IpAddr::V6(_) => interface.ipv6_address.map(IpAddr::V6),
        });
        own.and_then(A::of).unwrap_or(destination)
    }

    /// A packet larger than the outgoing link takes: its sender is told, if it asked not to have it cut (RFC 1191).
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
        Verdict::Drop(DropReason::TooBig)
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
    let bytes = frame.bytes_mut();
    ethernet::swap_addresses(bytes);
    let Some((header, segment)) = bytes.get_mut(ethernet::LEN..).and_then(|ip| ip.split_at_mut_checked(A::HEADER_LEN))
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
fn icmp_error<A: Plane, F: Frame>(frame: &mut F, packet: &Packet<A>, from: A, error: icmp::Error) -> bool {
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
    A::write_header(header, payload_len, TTL, A::ICMP, ends);
    A::write_icmp_error(error, message, ends);
    ethernet::swap_addresses(frame.bytes_mut());
    true
}
