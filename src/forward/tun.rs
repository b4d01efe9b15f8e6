//! TUN: the packet as the client sent it, inside another one to the real server: IPIP, GRE or GUE, over IPv4 or IPv6.
//!
//! The outer header is what Linux IPVS makes (net/netfilter/ipvs/ip_vs_xmit.c, `ip_vs_tunnel_xmit`): source the gateway's
//! address on the port that it leaves by; TTL, DF, DSCP and ECN the inner packet's (RFC 6040, normal mode);
//! identification 0 with DF.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::parse::Packet;
use super::plane::{Plane, routed};
use super::{DropReason, Forwarder, Now, Verdict, Way};
use crate::balance::{Encapsulation, RealServerSlot, Tunnel};
use crate::flow::{Direction, FlowHash};
use crate::port::{Frame, PortId};
use crate::session::Found;
use crate::wire::checksum::{fold, sum};
use crate::wire::{ethernet, gre, gue, ipv4, udp};

/// Bytes of the UDP and the GUE header.
#[allow(clippy::cast_possible_truncation, reason = "a dozen")]
const SHIM_OF_GUE: u16 = (udp::LEN + gue::LEN) as u16;

impl Forwarder {
    /// Sends a packet of a session in TUN mode, which is in the table of family `T`, on its way. Its real server answers
    /// the client itself. `LATER`: it is a fragment, and not a first one; `PLAIN`: it is what parsing has found to be plain.
    pub(super) fn forward_tunnelled<const LATER: bool, const PLAIN: bool, P: Plane, T: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<P>,
        found: Found,
        way: &Way<'_>,
        now: Now,
    ) -> Verdict {
        match self.wrap::<P, T, F>(frame, packet, found, way) {
            Ok(server) => {
                self.account_piece::<LATER, true, PLAIN, T>(found, server, packet, now);
                way.verdict()
            }
            Err(NotWrapped::TooBig { mtu }) => self.too_big(port, frame, packet, mtu, now),
            Err(NotWrapped::Drop(reason)) => Verdict::Drop(reason),
        }
    }

    /// Puts the tunnel's packet around a session's, and gives the session's real server.
    #[inline(always)]
    pub(super) fn wrap<P: Plane, T: Plane, F: Frame>(
        &mut self,
        frame: &mut F,
        packet: &Packet<P>,
        found: Found,
        way: &Way<'_>,
    ) -> Result<RealServerSlot, NotWrapped> {
        let session = T::table(&self.sessions).session(found.index);
        let server = session.real_server();
        let to = routed(session.rewritten_key(Direction::Inbound).destination());
        let mut tunnel = self.services.tunnel(server);
        // A checksum needs the whole packet in one segment; where it is not, there is none, which both formats allow, but
        // for GUE over IPv6, where only tunnels that both ends know of may do without (RFC 6935, 5): this is one.
        tunnel.checksum &= frame.packet_len() == frame.bytes().len();
        let overhead = overhead(tunnel, to);
        let room = way.mtu.saturating_sub(overhead);
        if packet.total_len > room {
            return Err(NotWrapped::TooBig { mtu: room.max(P::MIN_MTU) });
        }
        let Some(interface) = self.routes.interface(way.hop.port) else {
            return Err(NotWrapped::Drop(DropReason::NoRoute));
        };
        // Only GUE's source port tells flows apart.
        let is_gue = tunnel.encapsulation == Encapsulation::Gue;
        let flow = if is_gue { self.seed.hash(&packet.key) } else { FlowHash(0) };
        let shim = Shim { tunnel, flow };
        let wrapped = match to {
            IpAddr::V4(to) => {
                let Some(from) = interface.address else { return Err(NotWrapped::Drop(DropReason::NoSourceAddress)) };
                let id = if packet.dont_fragment { 0 } else { self.next_id() };
                P::lower_ttl(frame.bytes_mut());
                shim.wrap::<P, Ipv4Addr, F>(frame, packet, overhead, (from, to), id)
            }
            IpAddr::V6(to) => {
                let Some(from) = interface.ipv6_address else {
                    return Err(NotWrapped::Drop(DropReason::NoSourceAddress));
                };
                P::lower_ttl(frame.bytes_mut());
                shim.wrap::<P, Ipv6Addr, F>(frame, packet, overhead, (from, to), 0)
            }
        };
        let front = frame.bytes_mut().first_chunk_mut::<{ ethernet::LEN }>();
        let (true, Some(front)) = (wrapped, front) else { return Err(NotWrapped::Drop(DropReason::NoHeadroom)) };
        if let Some(header) = way.header {
            *front = *header;
        }
        Ok(server)
    }

    /// The next identification of a packet of IPv4 that the gateway makes and that may be fragmented.
    pub(super) fn next_id(&mut self) -> u16 {
        self.identification = self.identification.wrapping_add(1);
        self.identification
    }
}

/// Why no tunnel's packet is around a packet.
pub(super) enum NotWrapped {
    /// It would be too large: the packet may have so many bytes.
    TooBig {
        /// So many.
        mtu: u16,
    },
    /// Another reason.
    Drop(DropReason),
}

/// Bytes that a tunnel to this address puts in front of a packet.
pub(super) fn overhead(tunnel: Tunnel, to: IpAddr) -> u16 {
    let shim = match tunnel.encapsulation {
        Encapsulation::Ipip => 0,
        Encapsulation::Gre if tunnel.checksum => gre::LEN_WITH_CHECKSUM,
        Encapsulation::Gre => gre::LEN,
        Encapsulation::Gue => SHIM_OF_GUE.into(),
    };
    let outer = if to.is_ipv4() { Ipv4Addr::HEADER_LEN } else { Ipv6Addr::HEADER_LEN };
    u16::try_from(outer + shim).unwrap_or(u16::MAX)
}

/// What stands between the outer header and the packet.
#[derive(Clone, Copy, Debug)]
struct Shim {
    tunnel: Tunnel,
    flow: FlowHash,
}

impl Shim {
    /// Puts everything in front of the packet but an Ethernet header. False, and nothing done, where the frame has no room.
    fn wrap<P: Plane, O: Plane, F: Frame>(
        &self,
        frame: &mut F,
        packet: &Packet<P>,
        overhead: u16,
        ends: (O, O),
        id: u16,
    ) -> bool {
        // What padded a short frame would stay behind the longer packet.
        let len = ethernet::LEN + usize::from(packet.total_len);
        if frame.packet_len() > len {
            frame.truncate(len);
        }
        if !frame.prepend(overhead.into()) {
            return false;
        }
        let Some(ip) = frame.bytes_mut().get_mut(ethernet::LEN..) else { return false };
        let Some((outer, rest)) = ip.split_at_mut_checked(O::HEADER_LEN) else { return false };
        let Some((shim, inner)) = rest.split_at_mut_checked(usize::from(overhead) - O::HEADER_LEN) else {
            return false;
        };
        let Some(inner_header) = inner.first_chunk::<{ ipv4::MIN_LEN }>() else { return false };
        let class = P::traffic_class(inner_header);
        let protocol = self.write::<P, O>(shim, inner, packet.total_len, ends);
        let payload_len = packet.total_len + overhead - u16::try_from(O::HEADER_LEN).unwrap_or(0);
        let ttl = packet.ttl.wrapping_sub(1);
        O::write_outer(outer, payload_len, (class, ttl), protocol, ends, (id, packet.dont_fragment));
        true
    }

    /// Writes it, and gives the outer header's protocol.
    fn write<P: Plane, O: Plane>(&self, shim: &mut [u8], inner: &[u8], inner_len: u16, ends: (O, O)) -> u8 {
        match self.tunnel.encapsulation {
            Encapsulation::Ipip => P::IN_IP,
            Encapsulation::Gre => {
                gre::write(shim, P::ETHERTYPE, self.tunnel.checksum);
                if self.tunnel.checksum {
                    gre::set_checksum(shim, inner);
                }
                gre::PROTOCOL
            }
            Encapsulation::Gue => {
                let Some((header, variant)) = shim.split_first_chunk_mut::<{ udp::LEN }>() else {
                    return udp::PROTOCOL;
                };
                gue::write(variant, P::IN_IP);
                let len = inner_len + SHIM_OF_GUE;
                udp::write(header, (gue::source_port(self.flow), self.tunnel.port), len);
                if self.tunnel.checksum {
                    let pseudo = O::pseudo_header(ends, udp::PROTOCOL, len);
                    let headers = fold(sum(header) + sum(variant));
                    let total = fold(pseudo + u32::from(headers) + u32::from(fold(sum(inner))));
                    udp::set_checksum(header, !total);
                }
                udp::PROTOCOL
            }
        }
    }
}
