//! TUN: the packet as the client sent it, inside another one to the real server: IPIP, GRE or GUE.
//!
//! The outer header is what Linux IPVS makes (net/netfilter/ipvs/ip_vs_xmit.c, `ip_vs_tunnel_xmit`): source the gateway's
//! address on the port that it leaves by; TTL, DF, DSCP and ECN the inner packet's (RFC 6040, normal mode);
//! identification 0 with DF.

use std::net::Ipv4Addr;

use super::parse::Packet;
use super::{DropReason, Forwarder, Now, Verdict, Way, rewrite};
use crate::balance::{Encapsulation, Tunnel};
use crate::flow::{Direction, FlowHash};
use crate::port::{Frame, PortId};
use crate::session::Found;
use crate::wire::checksum::{self, fold, sum};
use crate::wire::{ethernet, gre, gue, ipv4, udp};

/// No smaller MTU is told to anyone: each link takes this much (RFC 791, 3.2).
const MIN_MTU: u16 = 68;
/// Bytes of the UDP and the GUE header.
#[allow(clippy::cast_possible_truncation, reason = "a dozen")]
const SHIM_OF_GUE: u16 = (udp::LEN + gue::LEN) as u16;

impl Forwarder {
    /// Sends a packet of a session in TUN mode on its way. Its real server answers the client itself.
    pub(super) fn forward_tunnelled<F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet,
        found: Found,
        way: &Way<'_>,
        now: Now,
    ) -> Verdict {
        let session = self.sessions.session(found.index);
        let server = session.real_server();
        let to = session.rewritten_key(Direction::Inbound).destination();
        let mut tunnel = self.services.tunnel(server);
        // A checksum needs the whole packet in one segment; where it is not, there is none, which both formats allow.
        tunnel.checksum &= frame.packet_len() == frame.bytes().len();
        let Some(from) = self.routes.interface(way.hop.port).and_then(|interface| interface.address) else {
            return Verdict::Drop(DropReason::NoSourceAddress);
        };
        let mtu = way.mtu.saturating_sub(overhead(tunnel)).max(MIN_MTU);
        if packet.total_len > mtu {
            return self.too_big(port, frame, packet, mtu, now);
        }
        rewrite::rewrite::<true>(frame.bytes_mut(), packet, None, session, Direction::Inbound);
        // Only GUE's source port tells flows apart.
        let is_gue = tunnel.encapsulation == Encapsulation::Gue;
        let flow = if is_gue { self.seed.hash(&packet.key) } else { FlowHash(0) };
        let outer = Outer { tunnel, ends: (from, to), flow, id: self.next_id(packet) };
        if !outer.wrap(frame, packet, way.header) {
            return Verdict::Drop(DropReason::NoHeadroom);
        }
        self.account::<true>(found, server, packet, now);
        way.verdict()
    }

    /// The identification of an outer packet: one that may not be fragmented needs none (RFC 6864, 4.1).
    fn next_id(&mut self, packet: &Packet) -> u16 {
        if packet.dont_fragment {
            return 0;
        }
        self.identification = self.identification.wrapping_add(1);
        self.identification
    }
}

/// Bytes that a tunnel over IPv4 puts in front of a packet.
fn overhead(tunnel: Tunnel) -> u16 {
    let shim = match tunnel.encapsulation {
        Encapsulation::Ipip => 0,
        Encapsulation::Gre if tunnel.checksum => gre::LEN_WITH_CHECKSUM,
        Encapsulation::Gre => gre::LEN,
        Encapsulation::Gue => SHIM_OF_GUE.into(),
    };
    u16::try_from(ipv4::MIN_LEN + shim).unwrap_or(u16::MAX)
}

/// What is put around a packet.
#[derive(Clone, Copy, Debug)]
struct Outer {
    tunnel: Tunnel,
    ends: (Ipv4Addr, Ipv4Addr),
    flow: FlowHash,
    id: u16,
}

impl Outer {
    /// Puts everything in front of the packet. False, and nothing done, where the frame has no room.
    fn wrap<F: Frame>(&self, frame: &mut F, packet: &Packet, header: Option<&[u8; ethernet::LEN]>) -> bool {
        let overhead = overhead(self.tunnel);
        // What padded a short frame would stay behind the longer packet.
        let len = ethernet::LEN + usize::from(packet.total_len);
        if frame.packet_len() > len {
            frame.truncate(len);
        }
        if !frame.prepend(overhead.into()) {
            return false;
        }
        let Some((front, rest)) = frame.bytes_mut().split_first_chunk_mut::<{ ethernet::LEN }>() else { return false };
        if let Some(header) = header {
            *front = *header;
        }
        let Some((outer, rest)) = rest.split_first_chunk_mut::<{ ipv4::MIN_LEN }>() else { return false };
        let (shim, inner) = rest.split_at_mut(usize::from(overhead) - ipv4::MIN_LEN);
        let protocol = self.write_shim(shim, inner, packet.total_len);
        let Some(inner) = inner.first_chunk::<{ ipv4::MIN_LEN }>() else { return false };
        *outer = ipv4::wrapping(inner, packet.total_len + overhead, self.id, protocol, self.ends);
        true
    }

    /// Writes what stands between the outer header and the packet, and gives the outer header's protocol.
    fn write_shim(&self, shim: &mut [u8], inner: &[u8], inner_len: u16) -> u8 {
        match self.tunnel.encapsulation {
            Encapsulation::Ipip => ipv4::IN_IP,
            Encapsulation::Gre => {
                gre::write(shim, ethernet::IPV4, self.tunnel.checksum);
                if self.tunnel.checksum {
                    gre::set_checksum(shim, inner);
                }
                gre::PROTOCOL
            }
            Encapsulation::Gue => {
                let Some((header, variant)) = shim.split_first_chunk_mut::<{ udp::LEN }>() else {
                    return udp::PROTOCOL;
                };
                gue::write(variant, ipv4::IN_IP);
                let len = inner_len + SHIM_OF_GUE;
                udp::write(header, (gue::source_port(self.flow), self.tunnel.port), len);
                if self.tunnel.checksum {
                    let pseudo = checksum::pseudo_header(self.ends.0, self.ends.1, udp::PROTOCOL, len);
                    let total =
                        fold(pseudo + u32::from(fold(sum(header) + sum(variant))) + u32::from(fold(sum(inner))));
                    udp::set_checksum(header, !total);
                }
                udp::PROTOCOL
            }
        }
    }
}
