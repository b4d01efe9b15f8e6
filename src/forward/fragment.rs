//! Fragments of packets to virtual and local addresses, and of answers in NAT mode: forwarded as they are, without reassembly.
//!
//! The first fragment has the ports: it is treated as any packet of its flow, and what became of it is remembered by addresses,
//! identification and protocol (`datagrams`). The others go the same way, with other addresses and a lower TTL; the transport checksum,
//! which covers the whole datagram, was put right in the first. Those that come before it wait (`early`).
//!
//! But SCTP's, where ports change, can be put right only once the datagram's length is known (`sctp_fragment`): there the first one waits
//! for the last.
//!
//! Among several workers all fragments of a datagram go first to one that a hash of the datagram chooses, which brings them together,
//! and from there to the one that owns the flow. So a fragment is handed over twice at most: by the worker that it came to, to
//! the one that gathers, and by that to the owner; what has come to another worker than the one that gathers, from a worker, stays.

use std::net::IpAddr;

use super::datagrams::{Datagram, Fate, Memory, tag};
use super::icmp_error::Of;
use super::parse::{Fragment, Packet};
use super::plane::Plane;
use super::sctp_fragment::Correction;
use super::{DatagramTag, DropReason, Forwarder, Now, Origin, PuntClass, Verdict, Way, cut_trailer};
use crate::balance::{ForwardingMode, Protocol};
use crate::flow::{Direction, FlowHash, FlowKey};
use crate::port::{Frame, PortId};
use crate::session::Found;

impl Forwarder {
    /// A fragment of a TCP, UDP or SCTP packet.
    #[cold]
    pub(super) fn fragment<A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        origin: Origin,
        now: Now,
    ) -> Verdict {
        let fragment = &match A::fragment(frame) {
            Ok(fragment) => fragment,
            Err(reason) => return Verdict::Drop(reason),
        };
        let destination = fragment.packet.key.destination().into();
        let is_icmp = fragment.packet.key.protocol() == Protocol::Icmp;
        if !self.may_be_of_a_session(destination) || is_icmp && self.services.virtual_addresses.contains(&destination) {
            return self.other(destination, if is_icmp { A::CLASS } else { PuntClass::Local }, false);
        }
        let datagram = Datagram::of(fragment);
        let hash = datagram.hash(self.seed);
        let gatherer = hash.owner(self.workers);
        let origin = match origin {
            _ if gatherer == self.worker => Origin::Gathered,
            Origin::Queue => return Verdict::HandOver(gatherer),
            _ => Origin::HandedOn,
        };
        let known = self.datagrams.find(hash, &datagram, now).map(|memory| judge(memory, fragment));
        match (known, fragment.piece.is_later()) {
            (Some(Err(reason)), _) => Verdict::Drop(reason),
            (Some(Ok(Some(fate))), true) => self.follow(port, frame, (fragment, datagram, hash), fate, now),
            (_, true) => self.await_first((fragment, datagram, hash), now),
            (Some(Ok(Some(Fate::Ending(end)))), false) => {
                self.lead(port, frame, (fragment, datagram, hash), (Some(end), origin), now)
            }
            (_, false) => self.lead(port, frame, (fragment, datagram, hash), (None, origin), now),
        }
    }

    /// Whether packets to an address may be of a session: it is virtual or local, one that marked packets go to, a client's that
    /// answers in NAT mode go to, or outside where there are rules for source NAT.
    fn may_be_of_a_session(&self, destination: IpAddr) -> bool {
        let is_broadcast = |destination| match destination {
            IpAddr::V4(destination) => self.routes.is_broadcast(destination),
            IpAddr::V6(_) => false,
        };
        let passes = self.services.has_nat || !self.services.snat.is_empty();
        let is_passing = || passes && !self.routes.is_local(destination) && !is_broadcast(destination);
        self.services.is_balanced(destination) || self.services.marks.may_mark(destination) || is_passing()
    }

    /// A first fragment: as any packet of its flow, with its fate remembered. `end`: where its datagram ends, if that is known.
    fn lead<A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        (fragment, datagram, hash): (&Fragment<A>, Datagram, FlowHash),
        (end, origin): (Option<u16>, Origin),
        now: Now,
    ) -> Verdict {
        let verdict = match self.sctp_correction(fragment, end) {
            Correction::None => {
                let whole = (A::parsed(fragment.packet), self.sessions.hash(&fragment.packet.key));
                self.leads_fragments = true;
                let verdict = self.miss(port, frame, Some(whole), origin, now);
                self.leads_fragments = false;
                verdict
            }
            Correction::Checksum(bits) => self.lead_corrected(port, frame, &fragment.packet, bits, origin, now),
            Correction::EndUnknown => return Verdict::AwaitFragment(tag(hash)),
            Correction::Impossible => Verdict::Drop(DropReason::FragmentNotForwarded),
        };
        let key = &fragment.packet.key;
        let fate = match verdict {
            // It comes again in pieces.
            Verdict::Cut(_) => return verdict,
            Verdict::HandOver(owner) => Fate::HandedOn(owner),
            Verdict::Punt(class) => Fate::Punted(class),
            _ if self.session_of(&fragment.packet.key).is_some() => Fate::Forwarded(key.protocol(), key.wire_ports()),
            _ => Fate::Dropped(DropReason::FragmentNotForwarded),
        };
        if matches!(fate, Fate::Forwarded(..)) {
            self.count_forwarded(verdict);
        }
        self.remember_fate((fragment, datagram, hash), fate, now);
        if self.arrived.len() < self.arrived.capacity() {
            self.arrived.push(tag(hash));
        }
        verdict
    }

    /// Remembers where a datagram goes, and that its first fragment has.
    fn remember_fate<A: Plane>(
        &mut self,
        (fragment, datagram, hash): (&Fragment<A>, Datagram, FlowHash),
        fate: Fate,
        now: Now,
    ) {
        let known = self.datagrams.find(hash, &datagram, now);
        let memory = match known.filter(|memory| memory.fate == fate) {
            Some(memory) => Some(memory),
            None => {
                self.datagrams.forget(hash, &datagram);
                let remembered = self.datagrams.remember(hash, datagram, fate, now);
                remembered.map(|(memory, loses)| {
                    self.counters.datagrams_forgotten.add(u64::from(loses));
                    memory
                })
            }
        };
        if let Some(memory) = memory
            && !memory.pieces.have(fragment)
        {
            memory.went(fragment, now);
        }
    }

    /// Another fragment of a datagram whose first one went this way.
    fn follow<A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        (fragment, datagram, hash): (&Fragment<A>, Datagram, FlowHash),
        fate: Fate,
        now: Now,
    ) -> Verdict {
        let verdict = match fate {
            Fate::HandedOn(owner) => Verdict::HandOver(owner),
            Fate::Punted(class) => Verdict::Punt(class),
            Fate::Dropped(reason) => return Verdict::Drop(reason),
            Fate::Ending(_) => return Verdict::AwaitFragment(tag(hash)),
            Fate::Forwarded(protocol, ports) => {
                let key = FlowKey::from_wire(protocol, fragment.packet.key.wire_addresses(), ports);
                let packet = Packet { key, ..fragment.packet };
                match self.session_of(&packet.key) {
                    Some(Of::Own(found)) => self.forward_later(port, frame, &packet, found, now),
                    Some(Of::Mixed(found)) => self.forward_mixed::<true, A, F>(port, frame, &packet, found, now),
                    None => Verdict::Drop(DropReason::FragmentNotForwarded),
                }
            }
        };
        self.count_forwarded(verdict);
        if let Some(memory) = self.datagrams.find(hash, &datagram, now)
            && !matches!(verdict, Verdict::Cut(_))
            && !memory.pieces.have(fragment)
        {
            memory.went(fragment, now);
        }
        verdict
    }

    /// Forwards a fragment that is not the first: `packet` has the ports that the first one had.
    fn forward_later<A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<A>,
        found: Found,
        now: Now,
    ) -> Verdict {
        let session = *A::table(&self.sessions).session(found.index);
        if found.direction == Direction::Inbound && !self.services.is_present(session.real_server()) {
            return Verdict::Drop(DropReason::RealServerRemoved);
        }
        if packet.ttl <= 1 {
            return Verdict::Drop(DropReason::TtlExpired);
        }
        let (hop, entry) = match self.find_way::<A>(found) {
            Ok(found) => found,
            Err(verdict) => return verdict,
        };
        let way = Way::new(hop, entry.as_ref().map(|entry| &entry.header));
        if session.mode() == ForwardingMode::Tun {
            return self.forward_tunnelled::<true, false, A, A, F>(port, frame, packet, found, &way, now);
        }
        if packet.total_len > way.mtu {
            return self.too_big(port, frame, packet, way.mtu, now);
        }
        cut_trailer(frame, packet.total_len);
        // Behind the headers there are no ports: nothing of that is shown to what changes them.
        let Some(headers) = frame.bytes_mut().get_mut(..packet.l4_offset()) else {
            return Verdict::Drop(DropReason::Truncated);
        };
        if session.mode().is_one_way() {
            A::rewrite::<true, false>(headers, packet, way.header, &session, found.direction);
        } else {
            A::rewrite::<false, false>(headers, packet, way.header, &session, found.direction);
        }
        self.account_later::<A>(found, session.real_server(), packet, now);
        way.verdict()
    }

    fn count_forwarded(&self, verdict: Verdict) {
        if matches!(verdict, Verdict::Transmit(_) | Verdict::AwaitNeighbour(_)) {
            self.counters.fragments_forwarded.add(1);
        }
    }

    /// The datagrams whose first fragment has come since this was last asked. To be asked after each burst.
    #[inline]
    pub fn arrived(&mut self) -> impl Iterator<Item = DatagramTag> {
        self.arrived.drain(..)
    }
}

/// What becomes of a fragment of a datagram that something is remembered of: its fate, or none if it begins another datagram of the same
/// name; or why it is dropped, and from then on everything of that datagram.
fn judge<A: Plane>(memory: &mut Memory, fragment: &Fragment<A>) -> Result<Option<Fate>, DropReason> {
    let begins_anew = match memory.fate {
        Fate::Forwarded(protocol, ports) if !fragment.piece.is_later() => {
            memory.pieces.are_complete()
                || (protocol, ports) != (fragment.packet.key.protocol(), fragment.packet.key.wire_ports())
        }
        Fate::Forwarded(..) => memory.pieces.are_complete() && !memory.pieces.have(fragment),
        // Whose pieces these are is for others to say.
        Fate::HandedOn(_) | Fate::Punted(_) | Fate::Ending(_) | Fate::Dropped(DropReason::FragmentNotForwarded) => {
            return Ok(Some(memory.fate));
        }
        Fate::Dropped(reason) => return Err(reason),
    };
    if begins_anew {
        memory.forget();
        return Ok(None);
    }
    if !memory.pieces.have(fragment)
        && let Err(reason) = memory.pieces.refuse(fragment)
    {
        memory.fate = Fate::Dropped(reason);
        return Err(reason);
    }
    Ok(Some(memory.fate))
}
