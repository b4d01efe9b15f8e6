//! What ICMP errors are in each address family: their headers, and the packets that they quote.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::parse::echo_ports;
use super::verdict::PuntClass;
use crate::balance::Protocol;
use crate::flow::{Address, FlowKey};
use crate::route::Interface;
use crate::wire::checksum::Delta;
use crate::wire::fragment::Piece;
use crate::wire::icmp::{self, Header};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::{icmp_translation, icmp6};

/// The header of a packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quoted<A: Address> {
    /// From whom, to whom.
    pub(super) ends: (A, A),
    /// The protocol number of what follows.
    pub(super) protocol: u8,
    /// Bytes in front of that, options and extension headers included.
    pub(super) header_len: u8,
    /// Bytes behind that, as the whole packet had them.
    pub(super) payload_len: u16,
    /// Its time to live, or hop limit.
    pub(super) ttl: u8,
    /// Whether what follows begins elsewhere: it is a later fragment.
    pub(super) is_fragment: bool,
}

/// A quotation that does not have what every ICMP error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CutShort;

impl<A: Address> Quoted<A> {
    /// The quoted packet's flow, as that packet carries it; none where it is of no protocol that is balanced, or a
    /// fragment. `quote` is the whole quotation.
    pub(super) fn flow(&self, quote: &[u8]) -> Result<Option<FlowKey<A>>, CutShort> {
        let l4 = quote.get(usize::from(self.header_len)..).unwrap_or_default();
        let is_ipv4 = self.ends.0.into().is_ipv4();
        let icmp = if is_ipv4 { icmp::PROTOCOL } else { icmp6::PROTOCOL };
        if self.protocol == icmp && !self.is_fragment {
            let (source_port, destination_port, _) = echo_ports(is_ipv4, l4).ok_or(CutShort)?;
            // Identifier 0 is no session's towards where errors come from; so is what is no echo message.
            let is_echo = source_port != 0 || destination_port != 0;
            let flow = || FlowKey::new(Protocol::Icmp, (self.ends.0, source_port), (self.ends.1, destination_port));
            return Ok(is_echo.then(flow));
        }
        let Some(protocol) = Protocol::from_number(self.protocol).filter(|_| !self.is_fragment) else {
            return Ok(None);
        };
        let &[a, b, c, d, ..] = l4.first_chunk::<{ icmp::QUOTED_LEN }>().ok_or(CutShort)?;
        let port = |high, low| u16::from_be_bytes([high, low]);
        Ok(Some(FlowKey::new(protocol, (self.ends.0, port(a, b)), (self.ends.1, port(c, d)))))
    }
}

/// An address family's ICMP.
pub(super) trait Errors: Address {
    /// As what the kernel gets ICMP.
    const CLASS: PuntClass;

    /// The class of traffic of errors that the gateway makes, which is the kernel's: internetwork control (RFC 1812, 4.3.2.5);
    /// IPv6 has none for them.
    const ERROR_CLASS: u8;

    /// The address that a port sends from.
    fn own_address(interface: &Interface) -> Option<Self>;

    /// The header of a quoted packet; none where it is broken or cut short.
    fn quoted(quote: &[u8]) -> Option<Quoted<Self>>;

    /// Gives a quoted header other addresses.
    fn readdress(header: &mut [u8], ends: (Self, Self));

    /// The header of an error that the gateway makes.
    fn error_header(error: icmp::Error) -> Header;

    /// The MTU that an error tells, if it tells one.
    fn path_mtu(header: Header) -> Option<u32>;

    /// Bytes of the quotation, where more follows it that is none of it (RFC 4884).
    fn quoted_len(header: Header) -> Option<usize>;

    /// The header of an error behind whose quotation nothing follows any more.
    fn without_quoted_len(header: Header) -> Header;

    /// An error without an MTU in the words of the other family, where it has any for it.
    fn in_other_words(header: Header) -> Option<Header>;

    /// Whether a whole message has the right checksum.
    fn icmp_is_right(message: &[u8], ends: (Self, Self)) -> bool;

    /// Writes header and checksum of an ICMP error in front of the quotation, which stands in `message` already.
    fn write_icmp(header: Header, message: &mut [u8], ends: (Self, Self));
}

impl Errors for Ipv4Addr {
    const CLASS: PuntClass = PuntClass::Icmp;
    const ERROR_CLASS: u8 = 0xc0;

    fn own_address(interface: &Interface) -> Option<Self> {
        interface.address
    }

    fn quoted(quote: &[u8]) -> Option<Quoted<Self>> {
        let header = Ipv4::new(quote)?;
        let header_len = header.header_len();
        if header.version() != 4 || header_len < ipv4::MIN_LEN || quote.len() < header_len {
            return None;
        }
        let header_len = u8::try_from(header_len).ok()?;
        Some(Quoted {
            ends: (header.source(), header.destination()),
            protocol: header.protocol(),
            header_len,
            payload_len: header.total_len().saturating_sub(header_len.into()),
            ttl: header.ttl(),
            is_fragment: header.fragment_offset() != 0,
        })
    }

    fn readdress(header: &mut [u8], ends: (Self, Self)) {
        let Some(front) = header.first_chunk_mut::<{ ipv4::MIN_LEN }>() else { return };
        let old = Ipv4::new(front).map_or(0, |old| old.source().sum() + old.destination().sum());
        front[12..16].copy_from_slice(&ends.0.octets());
        front[16..20].copy_from_slice(&ends.1.octets());
        let [.., high, low] = *front.first_chunk::<12>().unwrap_or(&[0; 12]);
        let checksum = Delta::new(old, ends.0.sum() + ends.1.sum()).apply([high, low]);
        front[10..12].copy_from_slice(&checksum);
    }

    fn error_header(error: icmp::Error) -> Header {
        error.header()
    }

    fn path_mtu(header: Header) -> Option<u32> {
        icmp::path_mtu(header)
    }

    fn quoted_len(header: Header) -> Option<usize> {
        let [_, words, ..] = header.rest;
        (words > 0).then(|| usize::from(words) * 4)
    }

    fn without_quoted_len(header: Header) -> Header {
        let [first, _, third, fourth] = header.rest;
        Header { rest: [first, 0, third, fourth], ..header }
    }

    fn in_other_words(header: Header) -> Option<Header> {
        icmp_translation::to_icmp6(header)
    }

    fn icmp_is_right(message: &[u8], _: (Self, Self)) -> bool {
        icmp::checksum_is_right(message)
    }

    fn write_icmp(header: Header, message: &mut [u8], _: (Self, Self)) {
        icmp::write(header, message);
    }
}

impl Errors for Ipv6Addr {
    const CLASS: PuntClass = PuntClass::Ipv6;
    const ERROR_CLASS: u8 = 0;

    fn own_address(interface: &Interface) -> Option<Self> {
        interface.ipv6_address
    }

    fn quoted(quote: &[u8]) -> Option<Quoted<Self>> {
        let header = Ipv6::new(quote).filter(|header| header.version() == 6)?;
        let upper = ipv6::upper(quote)?;
        let extensions = u16::from(upper.offset).saturating_sub(u16::try_from(ipv6::LEN).unwrap_or(0));
        Some(Quoted {
            ends: (header.source(), header.destination()),
            protocol: upper.protocol,
            header_len: upper.offset,
            payload_len: header.payload_len().saturating_sub(extensions),
            ttl: header.hop_limit(),
            is_fragment: upper.piece.is_some_and(Piece::is_later),
        })
    }

    fn readdress(header: &mut [u8], ends: (Self, Self)) {
        let Some(front) = header.first_chunk_mut::<{ ipv6::LEN }>() else { return };
        front[8..24].copy_from_slice(&ends.0.octets());
        front[24..].copy_from_slice(&ends.1.octets());
    }

    fn error_header(error: icmp::Error) -> Header {
        icmp6::header(error)
    }

    fn path_mtu(header: Header) -> Option<u32> {
        icmp6::path_mtu(header)
    }

    fn quoted_len(header: Header) -> Option<usize> {
        let [words, ..] = header.rest;
        let has_it = matches!(header.kind, icmp6::UNREACHABLE | icmp6::TIME_EXCEEDED);
        (has_it && words > 0).then(|| usize::from(words) * 8)
    }

    fn without_quoted_len(header: Header) -> Header {
        let [first, rest @ ..] = header.rest;
        let first = if Self::quoted_len(header).is_some() { 0 } else { first };
        let [second, third, fourth] = rest;
        Header { rest: [first, second, third, fourth], ..header }
    }

    fn in_other_words(header: Header) -> Option<Header> {
        icmp_translation::to_icmp(header)
    }

    fn icmp_is_right(message: &[u8], ends: (Self, Self)) -> bool {
        icmp6::checksum_is_right(message, ends)
    }

    fn write_icmp(header: Header, message: &mut [u8], ends: (Self, Self)) {
        icmp6::write(header, message, ends);
    }
}
