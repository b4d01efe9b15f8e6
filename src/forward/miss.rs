//! What becomes of a packet without a session: one is found after all or set up, another worker owns it, the gateway
//! answers it, the kernel gets it, or it is a counted drop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::parse::{self, Packet, Parsed};
use super::plane::Plane;
use super::set_up::SetUp;
use super::{DropReason, Forwarder, Now, Origin, PuntClass, Steering, Verdict, has_opening, is_opening};
use crate::balance::Protocol;
use crate::flow::{FlowHash, FlowKey};
use crate::port::{Frame, PortId, WorkerId};
use crate::session::Found;
use crate::wire::icmp;
use crate::wire::sctp::Event;
use crate::wire::tcp::Flags;

impl Forwarder {
    /// A packet that the look-up of its burst has found no session for: a plain one, with the hash of its flow, or one that has
    /// to be parsed yet.
    pub(super) fn miss<F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        plain: Option<(Parsed, FlowHash)>,
        origin: Origin,
        now: Now,
    ) -> Verdict {
        let view = self.ports[port.index()];
        let (parsed, hash) = match plain {
            Some((parsed, hash)) => (parsed, Some(hash)),
            None => (parse::parse(frame, view.mac, view.promiscuous), None),
        };
        match parsed {
            Parsed::Ipv4(packet) => {
                let hash = hash.unwrap_or_else(|| self.sessions.hash(&packet.key));
                self.unmatched(port, frame, &packet, hash, (origin, now))
            }
            Parsed::Ipv6(packet) => {
                let hash = hash.unwrap_or_else(|| self.sessions.hash(&packet.key));
                self.unmatched(port, frame, &packet, hash, (origin, now))
            }
            Parsed::Ipv4Fragment => self.fragment::<Ipv4Addr, F>(port, frame, origin, now),
            Parsed::Ipv6Fragment => self.fragment::<Ipv6Addr, F>(port, frame, origin, now),
            Parsed::Echo(packet) => self.echo(port, frame, &packet, (origin, now)),
            Parsed::Echo6(packet) => self.echo(port, frame, &packet, (origin, now)),
            Parsed::IcmpError(error) => self.icmp_error(port, frame, &error, origin),
            Parsed::Icmp6Error(error) => self.icmp_error(port, frame, &error, origin),
            Parsed::Other { destination, class, fragment } => self.other(destination, class, fragment),
            Parsed::Decided(verdict) => verdict,
        }
    }

    /// A TCP, UDP or SCTP packet whose session is yet to be found, or to be set up.
    fn unmatched<A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<A>,
        hash: FlowHash,
        (origin, now): (Origin, Now),
    ) -> Verdict {
        if let Some(verdict) = self.forward_found(port, frame, packet, hash, now) {
            return verdict;
        }
        let destination = packet.key.destination().into();
        let (protocol, destination_port) = (packet.key.protocol(), packet.key.destination_port());
        let exact = || self.services.exact_service(protocol, destination, destination_port);
        let service = if self.has_exact_only { exact() } else { self.service_of(port, &packet.key) };
        let Some(service) = service else {
            return self.astray(port, frame, packet, hash, (origin, now));
        };
        if self.routes.is_local_source(packet.key.source().into()) {
            return Verdict::Drop(DropReason::MartianSource);
        }
        // RSS brings fragments elsewhere than whole packets, since they have no ports.
        let is_fragment = || matches!(origin, Origin::Gathered | Origin::HandedOn);
        let by_software = || self.is_dealt_by_software(port, protocol);
        let by_client = || by_software() || self.services.services[service].owned_by_client || is_fragment();
        let owner = || self.owner_of_client(protocol, (packet.key.source(), packet.key.source_port()));
        if self.workers > 1
            && by_client()
            && let Some(verdict) = self.hand_over(owner(), origin)
        {
            return verdict;
        }
        if has_opening(protocol) && !is_opening(packet.flags) && !self.is_sloppy(protocol, packet.flags) {
            if self.workers > 1 && is_fragment() && !by_software() {
                // Another worker may well have its session.
                return Verdict::Drop(DropReason::NoSession);
            }
            return self.answer_reset(port, frame, packet, DropReason::NoSession);
        }
        self.begin(port, frame, packet, (service, hash), now)
    }

    /// Sets up a session of a service for a packet that has none, and forwards it. A call: packets that have one and come by
    /// here, SCTP's, need not make room for it.
    #[inline(never)]
    fn begin<A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<A>,
        (service, hash): (usize, FlowHash),
        now: Now,
    ) -> Verdict {
        if self.defence.drops_packet() {
            return Verdict::Drop(DropReason::DropPacket);
        }
        let of_service = &self.services.services[service];
        let is_bounded = of_service.one_packet || of_service.max_connections > 0;
        if is_bounded && self.is_at_limit(service) {
            return Verdict::Drop(DropReason::ConnectionLimit);
        }
        let set_up = self.set_up(service, &packet.key, hash, now);
        let verdict = match set_up {
            Ok(SetUp::Plain(found)) => {
                // Now and not on the way, which is for sessions that know their hop. What comes of it is seen there.
                let _ = self.find_hop::<A>(found);
                self.forward(port, frame, packet, found, now)
            }
            Ok(SetUp::Mixed(found)) => self.forward_mixed::<false, A, F>(port, frame, packet, found, now),
            // The client asks again elsewhere, or gives up, at once (IPVS answers so, too).
            Err(DropReason::NoRealServer) => {
                self.answer_icmp(port, frame, packet, icmp::Error::PortUnreachable, DropReason::NoRealServer, now)
            }
            Err(reason) => Verdict::Drop(reason),
        };
        // Of a mark, what is not UDP has sessions as ever.
        if is_bounded
            && packet.key.protocol() == Protocol::Udp
            && let Ok(session) = set_up
        {
            self.leave_none::<A>(service, session);
        }
        verdict
    }

    /// Whether a service has as many sessions as it may have.
    #[cold]
    fn is_at_limit(&self, service: usize) -> bool {
        let of_service = &self.services.services[service];
        let most = u64::from(of_service.max_connections);
        most > 0 && self.balancer.connections(of_service) >= most
    }

    /// Ends the session of a packet that leaves none. A first fragment does, by which the others follow it.
    #[cold]
    fn leave_none<A: Plane>(&mut self, service: usize, session: SetUp) {
        if !self.services.services[service].one_packet || self.leads_fragments {
            return;
        }
        match session {
            SetUp::Plain(found) => self.end::<A>(found.index),
            SetUp::Mixed(found) => self.end::<Ipv6Addr>(found.index),
        }
    }

    /// The service that is for a flow whose packets enter by `port`: that of its mark before that of its address, as in IPVS.
    #[inline(never)]
    pub(super) fn service_of<A: Plane>(&self, port: PortId, key: &FlowKey<A>) -> Option<usize> {
        let table = &*self.services;
        let destination = key.destination().into();
        let by_address = || table.service_for(key.protocol(), destination, key.destination_port());
        if table.marks.is_empty() || table.local_addresses.contains_key(&destination) {
            return by_address();
        }
        table.marks.find(key, port).or_else(by_address)
    }

    /// A packet without a session that no service is for. (No service stands on a local address.)
    #[inline(always)]
    fn astray<A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<A>,
        hash: FlowHash,
        (origin, now): (Origin, Now),
    ) -> Verdict {
        let destination = packet.key.destination().into();
        if self.services.local_addresses.contains_key(&destination) {
            return self.stray_answer(port, frame, packet, origin);
        }
        if self.has_exact_only {
            return self.other(destination, PuntClass::Local, false);
        }
        self.no_service(port, frame, packet, hash, (origin, now))
    }

    /// Forwards a packet whose session the look-up of its burst did not give, if it has one after all.
    #[inline(always)]
    fn forward_found<A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<A>,
        hash: FlowHash,
        now: Now,
    ) -> Option<Verdict> {
        // An earlier packet of this burst may have set the session up, or another session has the same tag.
        if let Some(found) = A::table(&self.sessions).find(hash, &packet.key)
            && !self.end_for::<A>(packet, found)
        {
            return Some(match A::table(&self.sessions).session(found.index).is_mixed() {
                true => self.forward_mixed::<false, A, F>(port, frame, packet, found, now),
                false => self.forward(port, frame, packet, found, now),
            });
        }
        if self.sessions.mixed > 0
            && let Some(found) = self.find_mixed(&packet.key)
            && !self.end_for::<Ipv6Addr>(packet, found)
        {
            return Some(self.forward_mixed::<false, A, F>(port, frame, packet, found, now));
        }
        None
    }

    /// Whether a packet may begin a session although it does not open a connection: any but those that end one.
    #[cold]
    fn is_sloppy(&self, protocol: Protocol, flags: Flags) -> bool {
        let sysctls = self.services.sysctls;
        match protocol {
            Protocol::Tcp => sysctls.sloppy_tcp && !flags.has(Flags::RST),
            Protocol::Sctp => sysctls.sloppy_sctp && Event::from_flags(flags) != Event::Abort,
            Protocol::Udp | Protocol::Icmp | Protocol::Any => false,
        }
    }

    /// Ends a session that gives way to the packet that belongs to it, and says whether it did.
    fn end_for<T: Plane>(&mut self, packet: &Packet<impl Plane>, found: Found) -> bool {
        let gives_way = self.gives_way::<T>(packet.flags, found);
        if gives_way {
            self.end::<T>(found.index);
        }
        gives_way
    }

    /// A packet to a local address that this worker has no session for.
    #[cold]
    fn stray_answer<A: Plane, F: Frame>(
        &self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<A>,
        origin: Origin,
    ) -> Verdict {
        let stands_on = self.services.local_address_port(packet.key.destination().into()).unwrap_or(port);
        match self.hand_over(self.ownership.of_answer(stands_on, &packet.key), origin) {
            Some(verdict) => verdict,
            None => self.answer_reset(port, frame, packet, DropReason::LocalAddressNoSession),
        }
    }

    /// To the owner, unless that is this worker. A packet is handed over once: what comes from another worker stays. (A fragment
    /// is handed over once to be brought together with the others, and once more.)
    pub(super) fn hand_over(&self, owner: WorkerId, origin: Origin) -> Option<Verdict> {
        let may_go = matches!(origin, Origin::Queue | Origin::Gathered);
        (owner != self.worker && may_go).then_some(Verdict::HandOver(owner))
    }

    /// Whether the worker that a client's flow belongs to is computed, and not the one that the device brings it to.
    #[inline]
    pub(super) fn is_dealt_by_software(&self, port: PortId, protocol: Protocol) -> bool {
        let steering = self.ports.get(port.index()).map(|port| port.steering);
        steering == Some(Steering::Software) || !protocol.is_dealt_by_rss()
    }

    /// The worker that a flow from a client belongs to where that must not depend on whom the client speaks to, nor on what
    /// a device makes of it.
    pub(super) fn owner_of_client<A: Plane>(&self, protocol: Protocol, client: (A, u16)) -> WorkerId {
        self.seed.hash(&FlowKey::new(protocol, client, client)).owner(self.workers)
    }

    /// A packet that no service is for: the host's, or nobody's.
    #[inline(always)]
    pub(super) fn other(&self, destination: IpAddr, class: PuntClass, fragment: bool) -> Verdict {
        if fragment && class == PuntClass::Local && self.services.is_balanced(destination) {
            return Verdict::Drop(DropReason::Fragment);
        }
        if self.routes.is_local(destination) {
            let refused = class == PuntClass::Local && self.services.is_balanced(destination);
            return Verdict::Punt(if refused { PuntClass::Virtual } else { class });
        }
        match destination {
            IpAddr::V4(destination) if self.routes.is_broadcast(destination) => Verdict::Punt(PuntClass::Multicast),
            _ => Verdict::Drop(DropReason::NotLocal),
        }
    }
}
