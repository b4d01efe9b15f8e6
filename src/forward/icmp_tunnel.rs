//! ICMP errors about the packets of tunnels: they come to the gateway, which sent these, and go on to the client whose
//! packet was inside, as if they were about that (RFC 2003, 4; net/netfilter/ipvs/ip_vs_core.c, `ip_vs_in_icmp`).
//!
//! The type stays what it is; an MTU is told without the tunnel's own bytes. Errors that quote too little to tell whose
//! packet was inside are the host's.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::icmp_change::{class_and_ttl, finish, refront, sent_len};
use super::icmp_error::{Arrived, Of, message};
use super::icmp_plane::Quoted;
use super::plane::{Plane, routed};
use super::way::Way;
use super::{DropReason, Forwarder, Origin, Verdict};
use crate::balance::ForwardingMode;
use crate::flow::Direction;
use crate::port::Frame;
use crate::session::Found;
use crate::wire::icmp::{self, ERROR_LEN, Header};
use crate::wire::{ethernet, gre, gue, ipv4, ipv6, udp};

impl Forwarder {
    /// An error that quotes a packet from this host, which may be a tunnel's: none if it is no session's.
    pub(super) fn tunnel_error<P: Plane, F: Frame>(
        &mut self,
        frame: &mut F,
        arrived: &Arrived<P>,
        origin: Origin,
    ) -> Option<Verdict> {
        let quote = message(frame, &arrived.error)?.get(ERROR_LEN..)?;
        match inside(quote, &arrived.quoted)? {
            (at, ethernet::IPV4) => self.error_about_inner::<P, Ipv4Addr, F>(frame, arrived, at, origin),
            (at, ethernet::IPV6) => self.error_about_inner::<P, Ipv6Addr, F>(frame, arrived, at, origin),
            _ => None,
        }
    }

    /// The same with a packet of family `Q` inside, which begins so far behind the quotation's begin.
    fn error_about_inner<P: Plane, Q: Plane, F: Frame>(
        &mut self,
        frame: &mut F,
        arrived: &Arrived<P>,
        at: usize,
        origin: Origin,
    ) -> Option<Verdict> {
        let message = message(frame, &arrived.error)?;
        let inner = message.get(ERROR_LEN + at..)?;
        let key = Q::quoted(inner)?.flow(inner).ok()?.filter(Q::is_unicast)?;
        match self.session_of(&key) {
            None => self.pass_on(arrived.port, &key, origin),
            Some(_) if !P::icmp_is_right(message, arrived.error.ends) => Some(Verdict::Drop(DropReason::BadIcmpError)),
            Some(Of::Own(found)) => self.relay_from_tunnel::<P, Q, Q, F>(frame, arrived, at, found),
            Some(Of::Mixed(found)) => self.relay_from_tunnel::<P, Q, Ipv6Addr, F>(frame, arrived, at, found),
        }
    }

    /// Sends it to the client, if the session, which is in the table of family `T`, has that tunnel.
    fn relay_from_tunnel<P: Plane, Q: Plane, T: Plane, F: Frame>(
        &mut self,
        frame: &mut F,
        arrived: &Arrived<P>,
        at: usize,
        found: Found,
    ) -> Option<Verdict> {
        let session = *T::table(&self.sessions).session(found.index);
        let real = routed(session.rewritten_key(Direction::Inbound).destination());
        if session.mode() != ForwardingMode::Tun || real != arrived.quoted.ends.1.into() {
            return None;
        }
        if arrived.error.ttl <= 1 {
            return Some(Verdict::Drop(DropReason::TtlExpired));
        }
        let to_client = session.rewritten_key(Direction::Outbound);
        let ends = (Q::of(routed(to_client.source()))?, Q::of(routed(to_client.destination()))?);
        let (hop, entry) = match self.find_way::<T>(Found { direction: Direction::Outbound, ..found }) {
            Ok(found) => found,
            Err(verdict) => return Some(verdict),
        };
        let way = Way::new(hop, entry.as_ref().map(|entry| &entry.header));
        Some(match unwrap::<P, Q, F>(frame, arrived, at, ends, &way) {
            Ok(()) => {
                self.count(Direction::Outbound, session.real_server(), sent_len(frame));
                way.verdict()
            }
            Err(reason) => Verdict::Drop(reason),
        })
    }
}

/// Where in a quotation the packet begins that a tunnel's packet carries, and its EtherType. None: there is none.
fn inside<P: Plane>(quote: &[u8], quoted: &Quoted<P>) -> Option<(usize, u16)> {
    let by_protocol = |protocol| match protocol {
        ipv4::IN_IP => Some(ethernet::IPV4),
        ipv6::IN_IP => Some(ethernet::IPV6),
        _ => None,
    };
    let at = usize::from(quoted.header_len);
    let rest = quote.get(at..).filter(|_| !quoted.is_fragment)?;
    match quoted.protocol {
        gre::PROTOCOL => gre::read(rest).map(|(ethertype, len)| (at + len, ethertype)),
        udp::PROTOCOL => {
            let protocol = gue::read(rest.get(udp::LEN..)?)?;
            Some((at + udp::LEN + gue::LEN, by_protocol(protocol)?))
        }
        protocol => Some((at, by_protocol(protocol)?)),
    }
}

/// Makes an error about a tunnel's packet one about what is inside.
fn unwrap<P: Plane, Q: Plane, F: Frame>(
    frame: &mut F,
    arrived: &Arrived<P>,
    at: usize,
    ends: (Q, Q),
    way: &Way<'_>,
) -> Result<(), DropReason> {
    let header = inner_header::<P, Q>(arrived, at).ok_or(DropReason::BadIcmpError)?;
    let class_and_ttl = class_and_ttl(frame, &arrived.error)?;
    let front = Q::HEADER_LEN + ERROR_LEN;
    let cap = P::quoted_len(arrived.header).map_or(usize::MAX, |len| front + len.saturating_sub(at));
    let before = usize::from(arrived.error.header_len) + ERROR_LEN + at;
    refront(frame, &arrived.error, before, front, cap.min(Q::MAX_ICMP_PACKET))?;
    finish::<Q, F>(frame, header, class_and_ttl, ends, way)
}

/// The header of the error about what is inside, in words of its family.
fn inner_header<P: Plane, Q: Plane>(arrived: &Arrived<P>, overhead: usize) -> Option<Header> {
    if let Some(mtu) = P::path_mtu(arrived.header) {
        let total_len = arrived.quoted.payload_len.saturating_add(arrived.quoted.header_len.into());
        let mtu = if mtu == 0 { icmp::plateau_below(total_len).into() } else { mtu };
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX).saturating_sub(u16::try_from(overhead).ok()?);
        return Some(Q::error_header(icmp::Error::FragmentationNeeded { mtu: mtu.max(Q::MIN_MTU) }));
    }
    let header = P::without_quoted_len(arrived.header);
    if P::ICMP == Q::ICMP { Some(header) } else { P::in_other_words(header) }
}
