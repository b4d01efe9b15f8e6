//! First fragments of SCTP packets whose ports change on their way.
//!
//! What that does to the checksum, which stands in the first fragment, depends on how long the whole packet is, which only the last
//! fragment says. So of SCTP the end of a datagram is remembered when the last one comes, and a first one without it waits. It is then
//! forwarded as any packet, which takes the piece for the whole: what comes out wrong by that is put right beforehand.
//!
//! Where ports stay (modes dr and tun, and mode nat where the real server listens at the virtual port) nothing waits for anything.

use super::datagrams::{Datagram, Fate, tag};
use super::icmp_error::Of;
use super::parse::{Fragment, Packet};
use super::plane::Plane;
use super::{Forwarder, Now, Origin, Verdict, is_opening};
use crate::balance::Protocol;
use crate::flow::{Direction, FlowHash};
use crate::port::{Frame, PortId};
use crate::session::Session;
use crate::wire::{crc32c, sctp};

/// What is to be done to a first fragment's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Correction {
    /// Nothing.
    None,
    /// These bits of it are to be changed.
    Checksum(u32),
    /// Where the datagram ends is to be waited for.
    EndUnknown,
    /// An INIT in fragments, of which nobody has seen one: a session has no ports yet.
    Impossible,
}

impl Forwarder {
    /// What makes a first fragment's checksum come out right. `end`: where the datagram ends, if that is known.
    pub(super) fn sctp_correction<A: Plane>(&self, fragment: &Fragment<A>, end: Option<u16>) -> Correction {
        let key = &fragment.packet.key;
        if key.protocol() != Protocol::Sctp {
            return Correction::None;
        }
        let ports = match self.session_of(key) {
            Some(Of::Own(found)) => ports_after(A::table(&self.sessions).session(found.index), found.direction),
            Some(Of::Mixed(found)) => ports_after(self.sessions.ipv6.session(found.index), found.direction),
            None if is_opening(fragment.packet.flags) => return Correction::Impossible,
            None => None,
        };
        let bits = ports.map_or(0, |ports| sctp::changed_bits(key.wire_ports(), ports));
        match end {
            _ if bits == 0 => Correction::None,
            None => Correction::EndUnknown,
            Some(end) => {
                let headers = u16::from(fragment.packet.header_len.saturating_sub(fragment.piece.data_at));
                let (piece, whole) = (fragment.packet.l4_len(), end.saturating_sub(headers));
                Correction::Checksum(crc32c::change(bits, piece) ^ crc32c::change(bits, whole))
            }
        }
    }

    /// Forwards a first fragment these bits of whose checksum are to be others.
    pub(super) fn lead_corrected<A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<A>,
        bits: u32,
        origin: Origin,
        now: Now,
    ) -> Verdict {
        flip_checksum(frame, packet, bits);
        let parsed = (A::parsed(*packet), self.sessions.hash(&packet.key));
        let verdict = self.miss(port, frame, Some(parsed), origin, now);
        if matches!(verdict, Verdict::Cut(_)) {
            // A smaller first fragment will come, as if it had been sent so.
            flip_checksum(frame, packet, bits);
        }
        verdict
    }

    /// A fragment that came before the first one of its datagram, or before that one could go.
    pub(super) fn await_first<A: Plane>(
        &mut self,
        (fragment, datagram, hash): (&Fragment<A>, Datagram, FlowHash),
        now: Now,
    ) -> Verdict {
        if fragment.packet.key.protocol() == Protocol::Sctp && !fragment.piece.more {
            self.datagrams.forget(hash, &datagram);
            if let Some((_, loses)) = self.datagrams.remember(hash, datagram, Fate::Ending(fragment.end), now) {
                self.counters.datagrams_forgotten.add(u64::from(loses));
            }
            // The first one may wait for this.
            if self.arrived.len() < self.arrived.capacity() {
                self.arrived.push(tag(hash));
            }
        }
        Verdict::AwaitFragment(tag(hash))
    }
}

/// The ports that a session's packets of one direction leave with; none where they leave as they came.
fn ports_after<A: Plane>(session: &Session<A>, direction: Direction) -> Option<[u8; 4]> {
    (!session.mode().is_one_way()).then(|| session.rewritten_key(direction).wire_ports())
}

fn flip_checksum<A: Plane, F: Frame>(frame: &mut F, packet: &Packet<A>, bits: u32) {
    let header = frame.bytes_mut().get_mut(packet.l4_offset()..).and_then(<[u8]>::first_chunk_mut);
    if let Some(header) = header {
        sctp::flip_checksum(header, bits);
    }
}
