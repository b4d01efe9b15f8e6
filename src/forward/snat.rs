//! Source NAT: flows of networks behind the gateway to others, from local addresses of the port that leads there.
//!
//! Such a session is one in FULLNAT mode whose real server is the destination itself: once it is set up, the fast path
//! knows no difference. Services and the gateway's own addresses come first; what no rule is for is not forwarded.

use std::net::{IpAddr, SocketAddr};

use super::fullnat::{Answers, take_local_port};
use super::parse::Packet;
use super::plane::Plane;
use super::{DropReason, Forwarder, Now, Origin, PuntClass, Verdict, has_opening, is_opening};
use crate::balance::{ForwardingMode, Protocol};
use crate::flow::{FlowHash, FlowKey};
use crate::port::{Frame, PortId, WorkerId};
use crate::route::Resolution;
use crate::session::{Found, Session};
use crate::wire::icmp;
use crate::wire::sctp::Event;
use crate::wire::tcp::Flags;

impl Forwarder {
    /// A packet without a session that no service is for: an answer of a real server in NAT mode, one that a rule lets out,
    /// the host's, or nobody's. `hash` is its flow's.
    #[inline(never)]
    pub(super) fn no_service<A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<A>,
        hash: FlowHash,
        (origin, now): (Origin, Now),
    ) -> Verdict {
        let key = &packet.key;
        let (protocol, destination) = (key.protocol(), key.destination().into());
        if self.routes.is_local(destination) {
            return self.other(destination, PuntClass::Local, false);
        }
        let rule = self.snat_rule(port, key);
        // What a real server in NAT mode answers is its client's, whose session another worker may have. What it asks from
        // the port that it answers from goes the same way, since nothing tells the two apart.
        let may_be_answer = self.services.has_nat && (rule.is_none() || self.is_nat_server(key));
        let owner = match may_be_answer {
            true => self.owner_of_client(protocol, (key.destination(), key.destination_port())),
            false if rule.is_some() => self.owner_of_outgoing(port, key, origin),
            false => self.worker,
        };
        if let Some(verdict) = self.hand_over(owner, origin) {
            return verdict;
        }
        let Some(rule) = rule else {
            if self.services.sysctls.nat_icmp_send && self.is_nat_server(key) && !ends_something(packet) {
                let error = icmp::Error::PortUnreachable;
                return self.answer_icmp(port, frame, packet, error, DropReason::NotLocal, now);
            }
            return self.other(destination, PuntClass::Local, false);
        };
        if has_opening(protocol) && !is_opening(packet.flags) {
            return self.answer_reset(port, frame, packet, DropReason::NoSession);
        }
        match self.set_up_snat(rule, key, hash, now) {
            Ok(found) => {
                let _ = self.find_hop::<A>(found);
                self.forward(port, frame, packet, found, now)
            }
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// The worker that an outgoing flow belongs to. A first fragment comes to another one than whole packets do where RSS deals
    /// these: so it goes where they would come, if that is known.
    fn owner_of_outgoing<A: Plane>(&self, port: PortId, key: &FlowKey<A>, origin: Origin) -> WorkerId {
        let is_fragment = matches!(origin, Origin::Gathered | Origin::HandedOn);
        let steered = !self.is_dealt_by_software(port, key.protocol());
        match self.ownership.rss(port, key.protocol()) {
            Some(rss) if steered && is_fragment => rss.owner(key),
            _ if steered && !is_fragment => self.worker,
            _ => self.owner_of_client(key.protocol(), (key.source(), key.source_port())),
        }
    }

    /// The first rule for a flow that enters by `port`: one that matches it, and whose local addresses are on the port that
    /// it leaves by. So none goes from one inside network to another with an address of the outside.
    pub(super) fn snat_rule<A: Plane>(&self, port: PortId, key: &FlowKey<A>) -> Option<usize> {
        let table = &*self.services;
        let (source, destination) = (key.source().into(), key.destination().into());
        if table.snat.is_empty() || self.routes.is_local_source(source) {
            return None;
        }
        let is_broadcast = matches!(destination, IpAddr::V4(address) if self.routes.is_broadcast(address));
        if is_broadcast || table.is_balanced(destination) || stays_on_link(source) || stays_on_link(destination) {
            return None;
        }
        let leaves_by = match self.routes.resolve(destination, self.seed.hash(key).low_bits()) {
            Resolution::Hop(index) => self.routes.hop(index)?.hop.port,
            Resolution::Unresolved(hop) => hop.port,
            Resolution::NoRoute => return None,
        };
        let is_outside = |pool: usize| table.pools.get(pool).is_some_and(|pool| pool.port == leaves_by);
        table.snat.iter().position(|rule| rule.selector.matches(key, port) && is_outside(rule.pool))
    }

    /// Whether a packet comes from where a real server in NAT mode answers from.
    fn is_nat_server<A: Plane>(&self, key: &FlowKey<A>) -> bool {
        let answers_from =
            |port| self.services.nat_servers.contains(&(key.protocol(), SocketAddr::new(key.source().into(), port)));
        answers_from(key.source_port()) || answers_from(0)
    }

    /// Sets up a session by a rule, given by its index.
    pub(super) fn set_up_snat<A: Plane>(
        &mut self,
        rule: usize,
        key: &FlowKey<A>,
        hash: FlowHash,
        now: Now,
    ) -> Result<Found, DropReason> {
        if self.defence.drops_packet() {
            return Err(DropReason::DropPacket);
        }
        if A::table(&self.sessions).is_full() {
            return Err(DropReason::SessionTableFull);
        }
        let table = &*self.services;
        let rule = table.snat.get(rule).ok_or(DropReason::NotLocal)?;
        let pool = table.pools.get(rule.pool).ok_or(DropReason::NoLocalAddress)?;
        let turn = self.local_turns.get_mut(rule.cursor).ok_or(DropReason::LocalPortsExhausted)?;
        let real = (key.destination(), key.destination_port());
        let from = Answers { real, protocol: key.protocol() };
        let (local, outbound) =
            take_local_port(&self.sessions, &mut self.local_ports, &self.ownership, pool, turn, from, now.tick)?;
        let session = Session::new(ForwardingMode::Fullnat, key, local, real, rule.slot).with_snat();
        self.start(session, [hash, outbound], now)
    }
}

/// Whether a packet ends what it belongs to: nobody has to be told that nothing is there (`is_tcp_reset`, `is_sctp_abort`).
fn ends_something<A: Plane>(packet: &Packet<A>) -> bool {
    match packet.key.protocol() {
        Protocol::Tcp => packet.flags.has(Flags::RST),
        Protocol::Sctp => Event::from_flags(packet.flags) == Event::Abort,
        Protocol::Udp | Protocol::Icmp | Protocol::Any => false,
    }
}

/// Whether packets from or to an address may not be forwarded (RFC 3927, 7; RFC 4291, 2.5.6).
fn stays_on_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
