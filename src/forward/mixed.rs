//! Packets of sessions one side of which is IPv4 and the other IPv6: translated in FULLNAT mode, wrapped in TUN mode.
//!
//! Such sessions are in the table of IPv6 whatever their packets are, and are looked for where a packet's own table has
//! none: they cost others nothing.

use std::net::Ipv6Addr;

use super::parse::Packet;
use super::plane::Plane;
use super::translate::{self, grown};
use super::{DropReason, Forwarder, Hop, Now, Resolved, Verdict, Way};
use crate::balance::ForwardingMode;
use crate::flow::{Direction, FlowKey};
use crate::port::{Frame, PortId};
use crate::route::HopEntry;
use crate::session::{Found, Session};
use crate::wire::tcp::Flags;
use crate::wire::{ethernet, icmp};

impl Forwarder {
    /// The session of both families that a packet of either belongs to.
    pub(super) fn find_mixed<P: Plane>(&self, key: &FlowKey<P>) -> Option<Found> {
        let key = P::widened(*key);
        let found = self.sessions.ipv6.find(self.sessions.ipv6.hash(&key), &key)?;
        self.sessions.ipv6.session(found.index).is_mixed().then_some(found)
    }

    /// Forwards a packet of a session of both families.
    /// `LATER`: it is a fragment, and not a first one.
    pub(super) fn forward_mixed<const LATER: bool, P: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<P>,
        found: Found,
        now: Now,
    ) -> Verdict {
        if self.clamps_mss && packet.flags.has(Flags::SYN) {
            self.clamp_mss::<P, Ipv6Addr, F>(port, frame, packet, found);
        }
        let session = *self.sessions.ipv6.session(found.index);
        if found.direction == Direction::Inbound && !self.services.is_present(session.real_server()) {
            return Verdict::Drop(DropReason::RealServerRemoved);
        }
        if packet.ttl <= 1 {
            return self.answer_icmp(port, frame, packet, icmp::Error::TimeExceeded, DropReason::TtlExpired, now);
        }
        let (hop, entry) = match self.find_way::<Ipv6Addr>(found) {
            Ok(found) => found,
            Err(verdict) => {
                if let Verdict::Punt(_) = verdict {
                    self.account_piece::<LATER, true, false, Ipv6Addr>(found, session.real_server(), packet, now);
                }
                return verdict;
            }
        };
        let way = Way::new(hop, entry.as_ref().map(|entry| &entry.header));
        if session.mode() == ForwardingMode::Tun {
            return self.forward_tunnelled::<LATER, false, P, Ipv6Addr, F>(port, frame, packet, found, &way, now);
        }
        self.forward_translated::<LATER, P, F>(port, frame, packet, (found, &session), &way, now)
    }

    /// The hop of a session's packets and what it takes at once, and, once that has answered, all that is known of it.
    pub(super) fn find_way<T: Plane>(&mut self, found: Found) -> Result<((Hop, u16), Option<HopEntry>), Verdict> {
        let (hop, entry) = match self.find_hop::<T>(found)? {
            Resolved::Now(index) => {
                let entry = *self.routes.hop(index).ok_or(Verdict::Drop(DropReason::NoRoute))?;
                (entry.hop, Some(entry))
            }
            Resolved::Later(hop) => (hop, None),
        };
        let mtu = self.routes.interface(hop.port).map_or(u16::MAX, |interface| interface.mtu);
        Ok(((hop, mtu), entry))
    }

    /// The same in FULLNAT mode: the packet becomes one of the other family.
    fn forward_translated<const LATER: bool, P: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<P>,
        (found, session): (Found, &Session<Ipv6Addr>),
        way: &Way<'_>,
        now: Now,
    ) -> Verdict {
        let piece = P::piece(frame.bytes().get(ethernet::LEN..).unwrap_or_default(), packet.header_len);
        let (before, after) = grown(packet, piece.is_some());
        // The longest packet of IPv4 is none of IPv6.
        if u32::from(packet.total_len - before) + u32::from(after) > way.mtu.into() {
            // What the sender may send is what becomes as long as the next link takes; pieces of it have a header more.
            let after = if packet.dont_fragment { after } else { grown(packet, true).1 };
            let mtu = (way.mtu - after + before).max(P::MIN_MTU);
            return self.too_big(port, frame, packet, mtu, now);
        }
        let id = self.next_id();
        if let Err(reason) = translate::translate(frame, packet, piece, session, found.direction, id) {
            return Verdict::Drop(reason);
        }
        if let (Some(header), Some(front)) = (way.header, frame.bytes_mut().first_chunk_mut()) {
            *front = *header;
        }
        self.account_piece::<LATER, false, false, Ipv6Addr>(found, session.real_server(), packet, now);
        way.verdict()
    }
}
