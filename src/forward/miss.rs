//! What becomes of a packet without a session: one is found after all or set up, another worker owns it, the gateway
//! answers it, the kernel gets it, or it is a counted drop.

use std::net::Ipv4Addr;

use super::parse::{self, Packet, Parsed};
use super::{DropReason, Forwarder, Now, Origin, PuntClass, Steering, Verdict, is_opening};
use crate::balance::{Protocol, ServiceKey};
use crate::port::{Frame, PortId, WorkerId};
use crate::wire::icmp;

impl Forwarder {
    /// A packet that the look-up of its burst has found no session for: a plain one, or one that has to be parsed yet.
    pub(super) fn miss<F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        plain: Option<Packet>,
        origin: Origin,
        now: Now,
    ) -> Verdict {
        let view = self.ports[port.index()];
        let parsed = plain.map_or_else(|| parse::parse(frame, view.mac, view.promiscuous), Parsed::Flow);
        match parsed {
            Parsed::Flow(packet) => self.unmatched(port, frame, &packet, origin, now),
            Parsed::Other { destination, class, fragment } => self.other(destination, class, fragment),
            Parsed::Decided(verdict) => verdict,
        }
    }

    /// A TCP or UDP packet whose session is yet to be found, or to be set up.
    fn unmatched<F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet,
        origin: Origin,
        now: Now,
    ) -> Verdict {
        let hash = self.sessions.hash(&packet.key);
        // An earlier packet of this burst may have set the session up, or another session has the same tag.
        if let Some(found) = self.sessions.find(hash, &packet.key) {
            if !self.gives_way(packet, found) {
                return self.forward(port, frame, packet, found, now);
            }
            self.end(found.index);
        }
        if self.services.local_addresses.contains_key(&packet.key.destination()) {
            return self.stray_answer(port, frame, packet, origin);
        }
        let key = ServiceKey {
            protocol: packet.key.protocol(),
            address: packet.key.destination(),
            port: packet.key.destination_port(),
        };
        let Some(service) = self.services.index_of(&key) else {
            return self.other(packet.key.destination(), PuntClass::Local, false);
        };
        if self.ports[port.index()].steering == Steering::Software
            && let Some(verdict) = self.hand_over(hash.owner(self.workers), origin)
        {
            return verdict;
        }
        if packet.key.protocol() == Protocol::Tcp && !is_opening(packet.flags) {
            return self.answer_reset(port, frame, packet, DropReason::NoSession);
        }
        match self.set_up(service, packet, hash, now) {
            Ok(found) => {
                // Now and not on the way, which is for sessions that know their hop. What comes of it is seen there.
                let _ = self.find_hop(found);
                self.forward(port, frame, packet, found, now)
            }
            Err(DropReason::NoRealServer) => {
                self.answer_icmp(port, frame, packet, icmp::Error::PortUnreachable, DropReason::NoRealServer, now)
            }
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// A packet to a local address that this worker has no session for.
    #[cold]
    fn stray_answer<F: Frame>(&self, port: PortId, frame: &mut F, packet: &Packet, origin: Origin) -> Verdict {
        let stands_on = self.services.local_address_port(packet.key.destination()).unwrap_or(port);
        match self.hand_over(self.ownership.of_answer(stands_on, &packet.key), origin) {
            Some(verdict) => verdict,
            None => self.answer_reset(port, frame, packet, DropReason::LocalAddressNoSession),
        }
    }

    /// To the owner, unless that is this worker. A packet is handed over once: what comes from another worker stays.
    fn hand_over(&self, owner: WorkerId, origin: Origin) -> Option<Verdict> {
        (owner != self.worker && origin == Origin::Queue).then_some(Verdict::HandOver(owner))
    }

    /// A packet that no service is for: the host's, or nobody's.
    fn other(&self, destination: Ipv4Addr, class: PuntClass, fragment: bool) -> Verdict {
        if fragment && class == PuntClass::Local && self.services.is_balanced(destination) {
            return Verdict::Drop(DropReason::Fragment);
        }
        if self.routes.is_local(destination) {
            let refused = class == PuntClass::Local && self.services.is_balanced(destination);
            return Verdict::Punt(if refused { PuntClass::Virtual } else { class });
        }
        if self.routes.is_broadcast(destination) {
            return Verdict::Punt(PuntClass::Multicast);
        }
        Verdict::Drop(DropReason::NotLocal)
    }
}
