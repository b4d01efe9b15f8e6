//! Lowers the MSS options of SYNs, so that a connection's segments fit the links that they go over, whatever its ends think of
//! them.
//!
//! A SYN says how large the segments may be that come back. As they take the same links, whatever of the service, the link that a
//! SYN came by and the link that it leaves by says least counts, in either direction. A segment with SYN is never forwarded as a
//! known session's by the first look-up of its burst, so that other packets need not be asked whether they have one. What
//! has no such option, or a malformed one, stays as it is.

use super::Forwarder;
use super::parse::Packet;
use super::plane::{Plane, routed};
use super::tun::overhead;
use crate::balance::{ForwardingMode, MssClamp};
use crate::flow::Direction;
use crate::port::{Frame, PortId};
use crate::session::{Found, Session};
use crate::wire::{ipv4, ipv6, tcp};

/// No link is so bad that segments of less payload are asked for (Linux's TCP_MIN_SND_MSS).
const LEAST: u16 = 48;

impl Forwarder {
    /// Whether any service or port wants MSS options lowered.
    pub(super) fn wants_mss_clamped(&self) -> bool {
        !self.services.mss_clamps.is_empty() || self.ports.iter().any(|port| !port.mss_clamp.is_off())
    }

    /// Lowers the MSS option of a SYN of a session, which is in the table of family `T`, before it is forwarded.
    #[cold]
    #[inline(never)]
    pub(super) fn clamp_mss<P: Plane, T: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<P>,
        found: Found,
    ) {
        // Where it cannot go nothing needs to be done.
        let Ok(((hop, mtu), _)) = self.find_way::<T>(found) else { return };
        let session = T::table(&self.sessions).session(found.index);
        let of_port = |port: PortId| self.ports.get(port.index()).map_or(MssClamp::Off, |port| port.mss_clamp);
        let clamps = [self.services.mss_clamp(session.real_server()), of_port(port), of_port(hop.port)];
        let in_bytes = clamps.into_iter().filter_map(|clamp| match clamp {
            MssClamp::Off => None,
            MssClamp::Bytes(bytes) => Some(bytes),
            MssClamp::Mtu => {
                let arrival_mtu = self.routes.interface(port).map_or(u16::MAX, |interface| interface.mtu);
                let back = arrival_mtu.saturating_sub(headers_of(P::HEADER_LEN));
                Some(back.min(self.room(session, found.direction, P::HEADER_LEN, mtu)).max(LEAST))
            }
        });
        let Some(most) = in_bytes.min() else { return };
        if let Some(segment) = frame.bytes_mut().get_mut(packet.l4_offset()..) {
            tcp::lower_mss(segment, most);
        }
    }

    /// Bytes of payload that fit a segment which a session sends over a link of this MTU; on arrival its IP header has
    /// `header_len` bytes.
    fn room<T: Plane>(&self, session: &Session<T>, direction: Direction, header_len: usize, mtu: u16) -> u16 {
        let to = routed(session.rewritten_key(direction).destination());
        match session.mode() {
            ForwardingMode::Tun => {
                let tunnel = overhead(self.services.tunnel(session.real_server()), to);
                mtu.saturating_sub(tunnel).saturating_sub(headers_of(header_len))
            }
            _ => mtu.saturating_sub(headers_of(if to.is_ipv4() { ipv4::MIN_LEN } else { ipv6::LEN })),
        }
    }
}

/// Bytes of an IP header and of TCP's, neither with options.
fn headers_of(ip_header_len: usize) -> u16 {
    u16::try_from(ip_header_len + tcp::MIN_LEN).unwrap_or(u16::MAX)
}
