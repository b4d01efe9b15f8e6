//! ICMP errors about packets that sessions sent: they go to whom these packets came from, and say what they would say
//! had these not been changed on their way.
//!
//! An error quotes a packet that the gateway sent, so that the quoted flow turned round is that of a packet which arrives
//! from where the error does: the error goes where that packet would go. In mode dr and tun that is the real server, which
//! sent the quoted packet past the gateway. In mode tun an error may quote the tunnel's packet, too: see `icmp_tunnel`.
//! An error changes neither its session's state nor its end (net/netfilter/ipvs/ip_vs_core.c, `ip_vs_in_icmp`).

use std::net::Ipv6Addr;

use super::icmp_change::{Change, pass, readdress, sent_len, translate};
use super::icmp_plane::{CutShort, Quoted};
use super::parse::{IcmpError, Packet};
use super::plane::Plane;
use super::tun::NotWrapped;
use super::way::Way;
use super::{DropReason, Forwarder, Origin, Verdict};
use crate::balance::ForwardingMode;
use crate::flow::{Direction, FlowKey};
use crate::port::{Frame, PortId, WorkerId};
use crate::session::Found;
use crate::wire::ethernet;
use crate::wire::icmp::{ERROR_LEN, Header};
use crate::wire::tcp::Flags;

/// An error and what it quotes.
#[derive(Clone, Copy)]
pub(super) struct Arrived<P: Plane> {
    pub(super) port: PortId,
    pub(super) error: IcmpError<P>,
    pub(super) header: Header,
    pub(super) quoted: Quoted<P>,
}

/// The session of a quoted flow.
#[derive(Clone, Copy)]
pub(super) enum Of {
    /// In the table of the flow's family.
    Own(Found),
    /// Of both families, in the table of IPv6.
    Mixed(Found),
}

impl Forwarder {
    /// An ICMP error: a session's, whose peer gets it; another worker's; the host's, or nobody's.
    #[cold]
    #[inline(never)]
    pub(super) fn icmp_error<P: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        error: &IcmpError<P>,
        origin: Origin,
    ) -> Verdict {
        let Some(message) = message(frame, error) else { return Verdict::Drop(DropReason::Truncated) };
        let (Some(header), quote) = (Header::new(message), message.get(ERROR_LEN..).unwrap_or_default()) else {
            return Verdict::Drop(DropReason::BadIcmpError);
        };
        let Some(quoted) = P::quoted(quote) else { return Verdict::Drop(DropReason::BadIcmpError) };
        let arrived = Arrived { port, error: *error, header, quoted };
        let flow = match quoted.flow(quote) {
            Ok(flow) => flow.map(FlowKey::reversed).filter(P::is_unicast),
            Err(CutShort) => return Verdict::Drop(DropReason::BadIcmpError),
        };
        // An error goes to whom its packet came from: to others it is nothing that a session has to do with.
        if quoted.ends.0 != error.ends.1 {
            return self.other(error.ends.1.into(), P::CLASS, false);
        }
        if let Some(key) = &flow {
            match self.session_of(key) {
                Some(_) if !P::icmp_is_right(message, error.ends) => return Verdict::Drop(DropReason::BadIcmpError),
                Some(Of::Own(found)) => return self.relay::<P, P, F>(frame, &arrived, key, found),
                Some(Of::Mixed(found)) => return self.relay::<P, Ipv6Addr, F>(frame, &arrived, key, found),
                None => {}
            }
            if let Some(verdict) = self.pass_on(port, key, origin) {
                return verdict;
            }
        }
        if self.routes.is_local(quoted.ends.0)
            && let Some(verdict) = self.tunnel_error(frame, &arrived, origin)
        {
            return verdict;
        }
        self.other(error.ends.1.into(), P::CLASS, false)
    }

    /// The session whose arriving packets have this key.
    pub(super) fn session_of<P: Plane>(&self, key: &FlowKey<P>) -> Option<Of> {
        let table = P::table(&self.sessions);
        match table.find(table.hash(key), key) {
            Some(found) if table.session(found.index).is_mixed() => Some(Of::Mixed(found)),
            Some(found) => Some(Of::Own(found)),
            None if self.sessions.mixed > 0 => self.find_mixed(key).map(Of::Mixed),
            None => None,
        }
    }

    /// To the worker that has, or would have, the session whose arriving packets have this key; none: it is this one, or
    /// nobody's.
    ///
    /// Where the device deals clients' flows to workers as it likes, nobody knows whose a client's is: such an error goes
    /// from worker to worker, from the one that the client's hash names on, and the last one keeps it. Only the worker that had it
    /// from its queue may see it twice.
    pub(super) fn pass_on<P: Plane>(&self, port: PortId, key: &FlowKey<P>, origin: Origin) -> Option<Verdict> {
        if self.workers == 1 {
            return None;
        }
        let (protocol, destination) = (key.protocol(), key.destination().into());
        if let Some(stands_on) = self.services.local_address_port(destination) {
            return self.hand_over(self.ownership.of_answer(stands_on, key), origin);
        }
        let service = self.service_of(port, key);
        let Some(service) = service else {
            let is_answer = self.services.has_nat && !self.routes.is_local(destination);
            let owner = || self.owner_of_client(protocol, (key.destination(), key.destination_port()));
            return if is_answer { self.hand_over(owner(), origin) } else { None };
        };
        let first = self.owner_of_client(protocol, (key.source(), key.source_port()));
        if self.is_dealt_by_software(port, protocol) || self.services.services.get(service)?.owned_by_client {
            return self.hand_over(first, origin);
        }
        self.hand_round(first, origin)
    }

    /// To the next worker of a round that begins at `first`, where it is the one that has it from its queue who begins it.
    fn hand_round(&self, first: WorkerId, origin: Origin) -> Option<Verdict> {
        let next = WorkerId((self.worker.0 + 1) % self.workers);
        match origin {
            Origin::Queue if first != self.worker => Some(Verdict::HandOver(first)),
            _ => (next != first).then_some(Verdict::HandOver(next)),
        }
    }

    /// Sends an error to the peer of its session, which is in the table of family `T`.
    fn relay<P: Plane, T: Plane, F: Frame>(
        &mut self,
        frame: &mut F,
        arrived: &Arrived<P>,
        key: &FlowKey<P>,
        found: Found,
    ) -> Verdict {
        let session = *T::table(&self.sessions).session(found.index);
        let server = session.real_server();
        if found.direction == Direction::Inbound && !self.services.is_present(server) {
            return Verdict::Drop(DropReason::RealServerRemoved);
        }
        if arrived.error.ttl <= 1 {
            return Verdict::Drop(DropReason::TtlExpired);
        }
        let (hop, entry) = match self.find_way::<T>(found) {
            Ok(found) => found,
            Err(verdict) => return verdict,
        };
        let way = Way::new(hop, entry.as_ref().map(|entry| &entry.header));
        let sent = match session.mode() {
            ForwardingMode::Dr => pass(frame, arrived, &way),
            ForwardingMode::Tun => self.pass_in_tunnel::<P, T, F>(frame, arrived, key, found, &way),
            _ if session.is_mixed() => {
                let arrival_mtu = self.routes.interface(arrived.port).map_or(u16::MAX, |interface| interface.mtu);
                translate(frame, arrived, &Change::of(&session, found.direction), &way, arrival_mtu)
            }
            _ => readdress(frame, arrived, &Change::of(&session, found.direction), &way),
        };
        match sent {
            Ok(()) => {
                self.count(found.direction, server, sent_len(frame));
                way.verdict()
            }
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// What is about an answer of a real server in mode tun goes to it through its tunnel.
    fn pass_in_tunnel<P: Plane, T: Plane, F: Frame>(
        &mut self,
        frame: &mut F,
        arrived: &Arrived<P>,
        key: &FlowKey<P>,
        found: Found,
        way: &Way<'_>,
    ) -> Result<(), DropReason> {
        let IcmpError { total_len, header_len, ttl, dont_fragment, .. } = arrived.error;
        let packet = Packet { key: *key, total_len, header_len, ttl, flags: Flags::default(), dont_fragment };
        match self.wrap::<P, T, F>(frame, &packet, found, way) {
            Ok(_) => Ok(()),
            Err(NotWrapped::TooBig { .. }) => Err(DropReason::TooBig),
            Err(NotWrapped::Drop(reason)) => Err(reason),
        }
    }
}

/// The ICMP message in a frame; none where it is not all in the first segment.
pub(super) fn message<'f, P: Plane, F: Frame>(frame: &'f F, error: &IcmpError<P>) -> Option<&'f [u8]> {
    let packet = frame.bytes().get(ethernet::LEN..).filter(|_| frame.bytes().len() == frame.packet_len())?;
    packet.get(error.header_len.into()..error.total_len.into())
}
