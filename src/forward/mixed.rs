//! Packets of sessions one side of which is IPv4 and the other IPv6: translated in FULLNAT mode, wrapped in TUN mode.
//!
//! Such sessions are in the table of IPv6 whatever their packets are, and are looked for where a packet's own table has
//! none: they cost others nothing.

use std::net::Ipv6Addr;

use super::parse::Packet;
use super::plane::Plane;
use super::translate::{self, grown};
use super::{DropReason, Forwarder, Now, Resolved, Verdict, Way};
use crate::balance::ForwardingMode;
use crate::flow::Direction;
use crate::port::{Frame, PortId};
use crate::session::{Found, Session};
use crate::wire::icmp;

impl Forwarder {
    /// The session of both families that a packet of either belongs to.
    pub(super) fn find_mixed<P: Plane>(&self, packet: &Packet<P>) -> Option<Found> {
        let key = P::widened(packet.key);
        let found = self.sessions.ipv6.find(self.sessions.ipv6.hash(&key), &key)?;
        self.sessions.ipv6.session(found.index).is_mixed().then_some(found)
    }

    /// Forwards a packet of a session of both families.
    pub(super) fn forward_mixed<P: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<P>,
        found: Found,
        now: Now,
    ) -> Verdict {
        let session = *self.sessions.ipv6.session(found.index);
        if found.direction == Direction::Inbound && !self.services.is_present(session.real_server()) {
            return Verdict::Drop(DropReason::RealServerRemoved);
        }
        if packet.ttl <= 1 {
            return self.answer_icmp(port, frame, packet, icmp::Error::TimeExceeded, DropReason::TtlExpired, now);
        }
        let (hop, entry) = match self.find_hop::<Ipv6Addr>(found) {
            Ok(Resolved::Now(index)) => match self.routes.hop(index).copied() {
                Some(entry) => (entry.hop, Some(entry)),
                None => return Verdict::Drop(DropReason::NoRoute),
            },
            Ok(Resolved::Later(hop)) => (hop, None),
            Err(reason) => return Verdict::Drop(reason),
        };
        let mtu = self.routes.interface(hop.port).map_or(u16::MAX, |interface| interface.mtu);
        let way = Way::new((hop, mtu), entry.as_ref().map(|entry| &entry.header));
        if session.mode() == ForwardingMode::Tun {
            return self.forward_tunnelled::<P, Ipv6Addr, F>(port, frame, packet, found, &way, now);
        }
        self.forward_translated(port, frame, packet, (found, &session), &way, now)
    }

    /// The same in FULLNAT mode: the packet becomes one of the other family.
    fn forward_translated<P: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<P>,
        (found, session): (Found, &Session<Ipv6Addr>),
        way: &Way<'_>,
        now: Now,
    ) -> Verdict {
        let (before, after) = grown(packet);
        // The longest packet of IPv4 is none of IPv6.
        if u32::from(packet.total_len - before) + u32::from(after) > way.mtu.into() {
            // What the sender may send is what becomes as long as the next link takes.
            let mtu = (way.mtu - after + before).max(P::MIN_MTU);
            return self.too_big(port, frame, packet, mtu, now);
        }
        let id = self.next_id();
        if let Err(reason) = translate::translate(frame, packet, session, found.direction, id) {
            return Verdict::Drop(reason);
        }
        if let (Some(header), Some(front)) = (way.header, frame.bytes_mut().first_chunk_mut()) {
            *front = *header;
        }
        self.account::<false, Ipv6Addr>(found, session.real_server(), packet, now);
        way.verdict()
    }
}
