//! From bytes to what the fast path needs to know, or to a verdict at once.
//!
//! Whatever the bytes, this never fails otherwise; after it every offset that it gives lies in the frame's first
//! segment.

mod fragment;
mod ipv4;
mod ipv6;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::verdict::{DropReason, PuntClass, Verdict};
use crate::balance::Protocol;
use crate::flow::{Address, FlowKey};
use crate::port::{ChecksumStatus, Frame, MacAddress};
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::sctp::{self, Sctp};
use crate::wire::tcp::{self, Flags, Tcp};
use crate::wire::udp::{self, Udp};
use crate::wire::{icmp, icmp6};

pub use fragment::Fragment;
pub use ipv4::{fragment as ipv4_fragment, plain};
pub use ipv6::{fragment as ipv6_fragment, plain as plain_ipv6};

/// A TCP, UDP or SCTP packet, whole, with sound headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<A: Address> {
    /// Its addresses and ports.
    pub key: FlowKey<A>,
    /// Bytes of the IP packet.
    pub total_len: u16,
    /// Bytes in front of the TCP, UDP or SCTP header: the IP header with options or extension headers.
    pub header_len: u8,
    /// Its time to live, or hop limit, on arrival.
    pub ttl: u8,
    /// Its TCP control bits; none for UDP; of SCTP its event (see [`sctp::Event::to_flags`]).
    pub flags: Flags,
    /// Whether it may not be fragmented on its way: so it is with every packet of IPv6.
    pub dont_fragment: bool,
}

impl<A: Address> Packet<A> {
    /// No packet: what an array of them begins with.
    pub(super) const NONE: Self = Self {
        key: FlowKey::from_wire(Protocol::Tcp, A::NOBODY, [0; 4]),
        total_len: 0,
        header_len: 0,
        ttl: 0,
        flags: Flags(0),
        dont_fragment: false,
    };

    /// Where the TCP, UDP or SCTP header stands in the frame.
    #[inline]
    pub fn l4_offset(&self) -> usize {
        ethernet::LEN + usize::from(self.header_len)
    }

    /// Bytes of the TCP, UDP or SCTP header and what it carries.
    #[inline]
    pub fn l4_len(&self) -> u16 {
        self.total_len - u16::from(self.header_len)
    }
}

/// An ICMP error; what it quotes has not been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError<A: Address> {
    /// From whom, to whom.
    pub ends: (A, A),
    /// Bytes of the IP packet.
    pub total_len: u16,
    /// Bytes in front of the ICMP header.
    pub header_len: u8,
    /// Its time to live, or hop limit, on arrival.
    pub ttl: u8,
    /// Whether it may not be fragmented on its way.
    pub dont_fragment: bool,
}

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Something over IPv4 that a service may be for.
    Ipv4(Packet<Ipv4Addr>),
    /// The same over IPv6.
    Ipv6(Packet<Ipv6Addr>),
    /// A fragment of such a thing over IPv4: see [`ipv4_fragment`]. (What that gives would make this twice as large, which whole
    /// packets would pay for.)
    Ipv4Fragment,
    /// The same over IPv6: see [`ipv6_fragment`].
    Ipv6Fragment,
    /// An echo request or reply over IPv4, or the first fragment of an ICMP message: its flags are its type. See `echo`.
    Echo(Packet<Ipv4Addr>),
    /// The same over IPv6.
    Echo6(Packet<Ipv6Addr>),
    /// An ICMP error, which may be about a session's packet.
    IcmpError(IcmpError<Ipv4Addr>),
    /// The same of ICMPv6.
    Icmp6Error(IcmpError<Ipv6Addr>),
    /// Another unicast packet: the kernel's if the address is the gateway's, else a drop for this reason.
    Other {
        /// To whom.
        destination: IpAddr,
        /// As what the kernel would get it.
        class: PuntClass,
        /// Whether it is a fragment.
        fragment: bool,
    },
    /// Decided.
    Decided(Verdict),
}

const fn dropped(reason: DropReason) -> Parsed {
    Parsed::Decided(Verdict::Drop(reason))
}

/// Looks at any frame whatever, which came in by a port with this MAC address.
pub fn parse<F: Frame>(frame: &F, own: MacAddress, promiscuous: bool) -> Parsed {
    let bytes = frame.bytes();
    let Some(ethernet) = Ethernet::new(bytes) else { return dropped(DropReason::Truncated) };
    let destination = ethernet.destination();
    let to_group = destination.is_group();
    if destination != own && !to_group && !promiscuous {
        return dropped(DropReason::NotOurMac);
    }
    let packet = bytes.split_at(ethernet::LEN).1;
    match ethernet.ethertype() {
        ethernet::IPV4 => ipv4::parse(frame, packet, to_group),
        ethernet::IPV6 => ipv6::parse(frame, packet, to_group),
        ethernet::ARP => Parsed::Decided(Verdict::Punt(PuntClass::Arp)),
        _ => dropped(DropReason::UnknownEthertype),
    }
}

/// The ports and flags of a TCP, UDP or SCTP header at the front of `l4`, of which `len` bytes belong to the packet; or what is
/// wrong with it.
#[inline]
fn ports_and_flags<F: Frame>(
    frame: &F,
    protocol: Protocol,
    l4: &[u8],
    len: usize,
) -> Result<(u16, u16, Flags), DropReason> {
    let found = match protocol {
        Protocol::Tcp => Tcp::new(l4)
            .filter(|tcp| (tcp::MIN_LEN..=len).contains(&tcp.header_len()))
            .map(|tcp| (tcp.source_port(), tcp.destination_port(), tcp.flags())),
        Protocol::Udp | Protocol::Icmp | Protocol::Any => Udp::new(l4)
            .filter(|udp| !udp.is_empty() && usize::from(udp.len()) <= len)
            .map(|udp| (udp.source_port(), udp.destination_port(), Flags::default())),
        Protocol::Sctp => sctp_header(l4.get(..len).unwrap_or(l4)),
    };
    match found {
        // No device is asked to check SCTP's: what it says is of something else.
        Some(_) if protocol != Protocol::Sctp && frame.l4_checksum() == ChecksumStatus::Bad => {
            Err(DropReason::BadL4Checksum)
        }
        Some(found) => Ok(found),
        // The rest of the header is in another buffer.
        None if l4.len() < len && l4.len() < min_len(protocol) => Err(DropReason::Truncated),
        None => Err(DropReason::BadL4Header),
    }
}

/// The ports of an SCTP packet, as far as it is at hand, and its event in the place of flags.
// A call: inlined it makes the way of all packets that are not plain longer.
#[inline(never)]
fn sctp_header(l4: &[u8]) -> Option<(u16, u16, Flags)> {
    Sctp::new(l4).map(|sctp| (sctp.source_port(), sctp.destination_port(), sctp.event(l4).to_flags()))
}

/// What stands for ports in the key of a flow of echo messages, and the message's type as flags: 0 for other messages. None where
/// the header is cut short.
pub(super) fn echo_ports(is_ipv4: bool, message: &[u8]) -> Option<(u16, u16, Flags)> {
    let [request, reply] = match is_ipv4 {
        true => [icmp::ECHO_REQUEST, icmp::ECHO_REPLY],
        false => [icmp6::ECHO_REQUEST, icmp6::ECHO_REPLY],
    };
    let (identifier, &kind) = (icmp::identifier(message)?, message.first()?);
    let of_kind = |wanted| if kind == wanted { identifier } else { 0 };
    Some((of_kind(request), of_kind(reply), Flags(kind)))
}

fn min_len(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => tcp::MIN_LEN,
        Protocol::Udp | Protocol::Icmp | Protocol::Any => udp::LEN,
        Protocol::Sctp => sctp::MIN_LEN,
    }
}

/// The bytes at an offset of an array, which holds them.
#[inline]
fn at<const AT: usize, const COUNT: usize, const LEN: usize>(bytes: &[u8; LEN]) -> [u8; COUNT] {
    const { assert!(AT + COUNT <= LEN, "beyond the array") };
    let mut part = [0; COUNT];
    part.copy_from_slice(&bytes[AT..AT + COUNT]);
    part
}

/// The control bits of a plain packet over UDP (none), if its header is sound; `l4_len` is that of header and payload.
#[inline]
fn plain_udp(len: [u8; 2], l4_len: u32) -> Option<Flags> {
    let len = u32::from(u16::from_be_bytes(len));
    (len >= 8 && len <= l4_len).then_some(Flags(0))
}

/// The same over TCP, from its bytes 12 and 13.
#[inline]
fn plain_tcp([offset, flags]: [u8; 2], l4_len: u32) -> Option<Flags> {
    let header_len = u32::from(offset >> 4) * 4;
    (header_len >= 20 && header_len <= l4_len).then_some(Flags(flags))
}
