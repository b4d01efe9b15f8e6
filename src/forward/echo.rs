//! Echo requests of networks behind the gateway and the replies to them: source NAT of ICMP and ICMPv6.
//!
//! The identifier takes the place of the port, and is changed as one is (RFC 5508, 3.1; net/netfilter/nf_conntrack_proto_icmp.c). Such a
//! flow's key has the identifier as the source port of requests and as the destination port of replies, and 0 as the other
//! one. No reply has identifier 0 here, so that no request is taken for one. What no rule is for is the host's or nobody's, as
//! other ICMP is. Devices deal ICMP to queues by addresses or not at all, so the owner of a flow is computed on every port.

use super::parse::Packet;
use super::plane::Plane;
use super::way::Way;
use super::{DropReason, Forwarder, Now, Origin, Verdict, cut_trailer};
use crate::balance::Protocol;
use crate::flow::{Direction, FlowKey};
use crate::port::{Frame, PortId};
use crate::session::{Found, Session, State};
use crate::wire::checksum::Delta;
use crate::wire::icmp;

impl Forwarder {
    /// An ICMP packet whose flags are its type: an echo request or reply, whole or a first fragment of one, or a first fragment of
    /// something else.
    #[cold]
    #[inline(never)]
    pub(super) fn echo<A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<A>,
        (origin, now): (Origin, Now),
    ) -> Verdict {
        let key = &packet.key;
        let destination = key.destination().into();
        let direction = match packet.flags.0 {
            kind if kind == A::ECHO_REQUEST => Direction::Inbound,
            kind if kind == A::ECHO_REPLY && key.destination_port() != 0 => Direction::Outbound,
            _ => return self.other(destination, A::CLASS, false),
        };
        let hash = self.sessions.hash(key);
        if let Some(found) = A::table(&self.sessions).find(hash, key)
            && found.direction == direction
        {
            return self.forward_echo(port, frame, packet, found, now);
        }
        if direction == Direction::Outbound
            && let Some(stands_on) = self.services.local_address_port(destination)
            && let Some(verdict) = self.hand_over(self.ownership.of_answer(stands_on, key), origin)
        {
            return verdict;
        }
        let is_asked = direction == Direction::Inbound && !self.routes.is_local(destination);
        let Some(rule) = is_asked.then(|| self.snat_rule(port, key)).flatten() else {
            return self.other(destination, A::CLASS, false);
        };
        let owner = self.owner_of_client(Protocol::Icmp, (key.source(), key.source_port()));
        if let Some(verdict) = self.hand_over(owner, origin) {
            return verdict;
        }
        match self.set_up_snat(rule, key, hash, now) {
            Ok(found) => self.forward_echo(port, frame, packet, found, now),
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// Sends an echo request or reply of a session on its way.
    fn forward_echo<A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<A>,
        found: Found,
        now: Now,
    ) -> Verdict {
        let session = *A::table(&self.sessions).session(found.index);
        let (direction, server) = (found.direction, session.real_server());
        if direction == Direction::Inbound && !self.services.is_present(server) {
            return Verdict::Drop(DropReason::RealServerRemoved);
        }
        if packet.ttl <= 1 {
            return self.answer_icmp(port, frame, packet, icmp::Error::TimeExceeded, DropReason::TtlExpired, now);
        }
        let (hop, entry) = match self.find_way::<A>(found) {
            Ok(found) => found,
            Err(verdict) => return verdict,
        };
        let way = Way::new(hop, entry.as_ref().map(|entry| &entry.header));
        if packet.total_len > way.mtu {
            return self.too_big(port, frame, packet, way.mtu, now);
        }
        cut_trailer(frame, packet.total_len);
        let Some((headers, message)) = frame.bytes_mut().split_at_mut_checked(packet.l4_offset()) else {
            return Verdict::Drop(DropReason::Truncated);
        };
        A::rewrite::<false, false>(headers, packet, way.header, &session, direction);
        change_identifier(message, &session, direction);
        self.count(direction, server, packet.total_len);
        A::table_mut(&mut self.sessions).session_mut(found.index).set_state(State::Icmp);
        A::table_mut(&mut self.sessions).set_end(found.index, now.tick.plus(self.timeouts.of(State::Icmp)));
        way.verdict()
    }
}

/// The identifier that a flow's key has in place of a port.
fn identifier<A: Plane>(key: &FlowKey<A>) -> u16 {
    // The other port is 0.
    key.source_port() | key.destination_port()
}

/// Gives an echo message the identifier that its session sends on in this direction, and lets its checksum follow.
fn change_identifier<A: Plane>(message: &mut [u8], session: &Session<A>, direction: Direction) {
    icmp::set_identifier(message, identifier(&session.rewritten_key(direction)), identifier_delta(session, direction));
}

/// What the change of a session's packets of one direction does to their checksum: that of the identifier and, in IPv6, of the
/// addresses.
pub(super) fn identifier_delta<A: Plane>(session: &Session<A>, direction: Direction) -> Delta {
    let (from, to) = (identifier(&session.key(direction)), identifier(&session.rewritten_key(direction)));
    if A::HAS_MIXED { session.deltas(direction)[1] } else { Delta::new(from.into(), to.into()) }
}
