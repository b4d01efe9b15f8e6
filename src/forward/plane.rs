//! What the steps of the fast path do each in their way for IPv4 and IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::icmp_plane::Errors;
use super::parse::{self, Fragment, Packet, Parsed};
use super::{DropReason, rewrite};
use crate::balance::Protocol;
use crate::flow::{Direction, FlowKey};
use crate::port::{Frame, MacAddress};
use crate::session::{Session, Tabled};
use crate::telemetry::counters::{Counter, WorkerCounters};
use crate::wire::fragment::Piece;
use crate::wire::ipv4::Ipv4;
use crate::wire::{checksum, ethernet, icmp, icmp6, ipv4, ipv6};

/// An address family that packets are forwarded in.
pub(super) trait Plane: Tabled + Errors {
    /// The other family.
    type Other: Plane;
    /// Bytes of an IP header without options or extensions.
    const HEADER_LEN: usize;
    /// Its EtherType.
    const ETHERTYPE: u16;
    /// The protocol number of a packet of this family inside another packet.
    const IN_IP: u8;
    /// The protocol number of its ICMP.
    const ICMP: u8;
    /// Its echo requests and replies.
    const ECHO_REQUEST: u8;
    /// See [`Plane::ECHO_REQUEST`].
    const ECHO_REPLY: u8;
    /// Bytes of the largest ICMP error (RFC 1812, 4.3.2.3; RFC 4443, 2.4 (c)).
    const MAX_ICMP_PACKET: usize;
    /// No smaller MTU is told to anyone: each link takes this much (RFC 791, 3.2; RFC 8200, 5).
    const MIN_MTU: u16;

    /// Whether its table has sessions one side of which is of the other family.
    const HAS_MIXED: bool;

    /// A plain packet; see [`parse::plain`].
    fn plain<F: Frame>(frame: &F, own: MacAddress) -> Option<Packet<Self>>;

    /// Whether a packet goes from one machine to one other, neither of them this host by an address that stays in a host.
    fn is_unicast(key: &FlowKey<Self>) -> bool;

    /// A fragment; see [`parse::ipv4_fragment`].
    fn fragment<F: Frame>(frame: &F) -> Result<Fragment<Self>, DropReason>;

    /// A packet as parsing gives it.
    fn parsed(packet: Packet<Self>) -> Parsed;

    /// The place of a packet in its datagram, if it is a fragment; its headers have `header_len` bytes.
    fn piece(packet: &[u8], header_len: u8) -> Option<Piece>;

    /// See [`rewrite::ipv4`].
    fn rewrite<const ONE_WAY: bool, const PLAIN: bool>(
        frame: &mut [u8],
        packet: &Packet<Self>,
        header: Option<&[u8; ethernet::LEN]>,
        session: &Session<Self>,
        direction: Direction,
    );

    /// Writes an IP header; a slice that is too short is left alone. `payload_len` is that of what follows.
    fn write_header(header: &mut [u8], payload_len: u16, ttl: u8, protocol: u8, ends: (Self, Self));

    /// Writes the header of a packet that carries another one: with a class of traffic and a TTL, and, where the family has
    /// these, an identification and DF. A slice that is too short is left alone.
    fn write_outer(
        header: &mut [u8],
        payload_len: u16,
        class_and_ttl: (u8, u8),
        protocol: u8,
        ends: (Self, Self),
        id_and_dont_fragment: (u16, bool),
    );

    /// The class of traffic in the first bytes of a header: DSCP and ECN.
    fn traffic_class(header: &[u8; ipv4::MIN_LEN]) -> u8;

    /// Lowers a packet's TTL by one.
    fn lower_ttl(frame: &mut [u8]);

    /// The sum of the pseudo-header of TCP, UDP or, in IPv6, ICMP; `len` is that of header and payload.
    fn pseudo_header(ends: (Self, Self), protocol: u8, len: u16) -> u32;

    /// What sessions in its table are counted by.
    fn sessions(counters: &WorkerCounters) -> &Counter;
}

impl Plane for Ipv4Addr {
    type Other = Ipv6Addr;
    const HEADER_LEN: usize = ipv4::MIN_LEN;
    const ETHERTYPE: u16 = ethernet::IPV4;
    const IN_IP: u8 = ipv4::IN_IP;
    const ICMP: u8 = icmp::PROTOCOL;
    const ECHO_REQUEST: u8 = icmp::ECHO_REQUEST;
    const ECHO_REPLY: u8 = icmp::ECHO_REPLY;
    const MAX_ICMP_PACKET: usize = 576;
    const MIN_MTU: u16 = 68;
    const HAS_MIXED: bool = false;

    #[inline(always)]
    fn plain<F: Frame>(frame: &F, own: MacAddress) -> Option<Packet<Self>> {
        parse::plain(frame, own)
    }

    #[inline]
    fn is_unicast(key: &FlowKey<Self>) -> bool {
        let destination = key.destination();
        let to_one = !destination.is_multicast() && !destination.is_broadcast() && !destination.is_loopback();
        to_one && !ipv4::is_martian_source(key.source())
    }

    fn fragment<F: Frame>(frame: &F) -> Result<Fragment<Self>, DropReason> {
        parse::ipv4_fragment(frame)
    }

    fn parsed(packet: Packet<Self>) -> Parsed {
        if packet.key.protocol() == Protocol::Icmp { Parsed::Echo(packet) } else { Parsed::Ipv4(packet) }
    }

    fn piece(packet: &[u8], _: u8) -> Option<Piece> {
        Ipv4::new(packet).and_then(Ipv4::piece)
    }

    #[inline(always)]
    fn rewrite<const ONE_WAY: bool, const PLAIN: bool>(
        frame: &mut [u8],
        packet: &Packet<Self>,
        header: Option<&[u8; ethernet::LEN]>,
        session: &Session<Self>,
        direction: Direction,
    ) {
        rewrite::ipv4::<ONE_WAY, PLAIN>(frame, packet, header, session, direction);
    }

    fn write_header(header: &mut [u8], payload_len: u16, ttl: u8, protocol: u8, (from, to): (Self, Self)) {
        if let Some(header) = header.first_chunk_mut() {
            ipv4::write(header, payload_len + 20, ttl, protocol, from, to);
        }
    }

    #[inline]
    fn write_outer(
        header: &mut [u8],
        payload_len: u16,
        (class, ttl): (u8, u8),
        protocol: u8,
        ends: (Self, Self),
        (id, dont_fragment): (u16, bool),
    ) {
        if let Some(header) = header.first_chunk_mut() {
            *header = ipv4::header(payload_len + 20, (class, ttl), protocol, ends, (id, dont_fragment));
        }
    }

    #[inline]
    fn traffic_class(header: &[u8; ipv4::MIN_LEN]) -> u8 {
        header[1]
    }

    #[inline]
    fn lower_ttl(frame: &mut [u8]) {
        rewrite::lower_ttl(frame);
    }

    fn pseudo_header((from, to): (Self, Self), protocol: u8, len: u16) -> u32 {
        checksum::pseudo_header(from, to, protocol, len)
    }

    fn sessions(counters: &WorkerCounters) -> &Counter {
        &counters.sessions
    }
}

impl Plane for Ipv6Addr {
    type Other = Ipv4Addr;
    const HEADER_LEN: usize = ipv6::LEN;
    const ETHERTYPE: u16 = ethernet::IPV6;
    const IN_IP: u8 = ipv6::IN_IP;
    const ICMP: u8 = icmp6::PROTOCOL;
    const ECHO_REQUEST: u8 = icmp6::ECHO_REQUEST;
    const ECHO_REPLY: u8 = icmp6::ECHO_REPLY;
    const MAX_ICMP_PACKET: usize = ipv6::MIN_MTU as usize;
    const MIN_MTU: u16 = ipv6::MIN_MTU;
    const HAS_MIXED: bool = true;

    #[inline(always)]
    fn plain<F: Frame>(frame: &F, own: MacAddress) -> Option<Packet<Self>> {
        parse::plain_ipv6(frame, own)
    }

    #[inline]
    fn is_unicast(key: &FlowKey<Self>) -> bool {
        !ipv6::is_never_unicast(key.destination()) && !ipv6::is_martian_source(key.source())
    }

    fn fragment<F: Frame>(frame: &F) -> Result<Fragment<Self>, DropReason> {
        parse::ipv6_fragment(frame)
    }

    fn parsed(packet: Packet<Self>) -> Parsed {
        if packet.key.protocol() == Protocol::Icmp { Parsed::Echo6(packet) } else { Parsed::Ipv6(packet) }
    }

    fn piece(packet: &[u8], header_len: u8) -> Option<Piece> {
        // One without extension headers needs no walk.
        let has_extensions = usize::from(header_len) > ipv6::LEN;
        has_extensions.then(|| ipv6::upper(packet)).flatten().and_then(|upper| upper.piece)
    }

    #[inline(always)]
    fn rewrite<const ONE_WAY: bool, const PLAIN: bool>(
        frame: &mut [u8],
        packet: &Packet<Self>,
        header: Option<&[u8; ethernet::LEN]>,
        session: &Session<Self>,
        direction: Direction,
    ) {
        rewrite::ipv6::<ONE_WAY, PLAIN>(frame, packet, header, session, direction);
    }

    fn write_header(header: &mut [u8], payload_len: u16, ttl: u8, protocol: u8, ends: (Self, Self)) {
        if let Some(header) = header.first_chunk_mut() {
            ipv6::write(header, payload_len, ttl, protocol, ends);
        }
    }

    fn write_outer(
        header: &mut [u8],
        payload_len: u16,
        (class, ttl): (u8, u8),
        protocol: u8,
        ends: (Self, Self),
        _: (u16, bool),
    ) {
        if let Some(header) = header.first_chunk_mut() {
            ipv6::write(header, payload_len, ttl, protocol, ends);
            ipv6::set_traffic_class(header, class);
        }
    }

    #[inline]
    fn traffic_class(header: &[u8; ipv4::MIN_LEN]) -> u8 {
        header[0] << 4 | header[1] >> 4
    }

    #[inline]
    fn lower_ttl(frame: &mut [u8]) {
        rewrite::lower_hop_limit(frame);
    }

    fn pseudo_header((from, to): (Self, Self), protocol: u8, len: u16) -> u32 {
        ipv6::pseudo_header(from, to, protocol, len)
    }

    fn sessions(counters: &WorkerCounters) -> &Counter {
        &counters.ipv6_sessions
    }
}

/// An address as routes know it: what stands IPv4-mapped in a table is of IPv4.
#[inline]
pub(super) fn routed<A: Plane>(address: A) -> IpAddr {
    address.into().to_canonical()
}
