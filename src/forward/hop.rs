//! Where a session's packets go next: looked up in the routes once, and remembered by the session until these change.

use super::parse::Packet;
use super::plane::{Plane, routed};
use super::{DropReason, Forwarder, Hop, Now, PuntClass, Verdict};
use crate::balance::ForwardingMode;
use crate::port::{Frame, PortId};
use crate::route::{HopIndex, Resolution};
use crate::session::Found;
use crate::wire::{ethernet, icmp};

/// What is known of a hop that has been found.
pub(super) enum Resolved {
    /// All that it takes to send, at this index.
    Now(HopIndex),
    /// Who it is; its link-layer address is asked for.
    Later(Hop),
}

impl Forwarder {
    /// The hop of a session's packets by the routes of now, which the session remembers from here on; or what becomes of them
    /// where there is none.
    pub(super) fn find_hop<A: Plane>(&mut self, found: Found) -> Result<Resolved, Verdict> {
        if self.is_for_host::<A>(found) {
            return Err(Verdict::Punt(PuntClass::LocalNode));
        }
        let session = A::table_mut(&mut self.sessions).session_mut(found.index);
        let to = session.rewritten_key(found.direction);
        let destination = routed(to.destination());
        // A rule for source NAT was chosen by the way of the packet as it came.
        let flow = if session.is_snat() { session.key(found.direction) } else { to };
        let (index, hop, resolved) = match self.routes.resolve(destination, self.seed.hash(&flow).low_bits()) {
            Resolution::Hop(index) => {
                let entry = self.routes.hop(index).ok_or(Verdict::Drop(DropReason::NoRoute))?;
                (Some(index), entry.hop, entry.resolved.then_some(index))
            }
            Resolution::Unresolved(hop) => (None, hop, None),
            Resolution::NoRoute => return Err(Verdict::Drop(DropReason::NoRoute)),
        };
        // A router would not know the packet for the real server's.
        if session.mode() == ForwardingMode::Dr && hop.address != destination {
            return Err(Verdict::Drop(DropReason::RealServerNotOnLink));
        }
        if let Some(index) = index {
            session.set_hop(found.direction, self.routes.generation, index);
        }
        Ok(resolved.map_or(Resolved::Later(hop), Resolved::Now))
    }

    /// Whether a session's packets are for the gateway's own host, which has the virtual address, too, and answers from it.
    fn is_for_host<A: Plane>(&self, found: Found) -> bool {
        let session = A::table(&self.sessions).session(found.index);
        let real_server = || routed(session.rewritten_key(found.direction).destination());
        session.mode().is_one_way() && self.routes.is_host(real_server())
    }

    /// A packet of a session that has no hop: `instead` is what becomes of it. One that is for the host itself counts as forwarded.
    pub(super) fn without_hop<A: Plane>(
        &mut self,
        packet: &Packet<A>,
        found: Found,
        instead: Verdict,
        now: Now,
    ) -> Verdict {
        if let Verdict::Punt(_) = instead {
            let server = A::table(&self.sessions).session(found.index).real_server();
            self.account::<true, false, A>(found, server, packet, now);
        }
        instead
    }

    /// A packet of a session whose TTL ends here: it reaches the host itself, and nobody else.
    #[cold]
    pub(super) fn expired<A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<A>,
        found: Found,
        now: Now,
    ) -> Verdict {
        if self.is_for_host::<A>(found) {
            return self.without_hop(packet, found, Verdict::Punt(PuntClass::LocalNode), now);
        }
        self.answer_icmp(port, frame, packet, icmp::Error::TimeExceeded, DropReason::TtlExpired, now)
    }

    /// Gives a packet that waited for `hop` its Ethernet header; false while the hop has not answered.
    pub fn complete<F: Frame>(&self, frame: &mut F, hop: Hop) -> bool {
        let Some(index) = self.routes.hop_index(hop) else { return false };
        match (self.routes.hop(index), frame.bytes_mut().first_chunk_mut()) {
            (Some(entry), Some(front)) if entry.resolved => {
                *front = entry.header;
                ethernet::set_ethertype_of_packet(frame.bytes_mut());
                true
            }
            _ => false,
        }
    }
}
