//! IPv6 headers and extension headers (RFC 8200).

use std::net::Ipv6Addr;

use super::be16;
use super::fragment::{IPV6_NEXT_HEADER as FRAGMENT, Piece};

/// Bytes of the fixed header.
pub const LEN: usize = 40;
/// Bytes that every link carries in one packet (RFC 8200, 5).
pub const MIN_MTU: u16 = 1280;
/// IP protocol number of an IPv6 packet inside another packet (RFC 2473, RFC 4213).
pub const IN_IP: u8 = 41;
/// Next header: nothing follows.
const NO_NEXT: u8 = 59;
/// Extension headers besides the fragment header: hop-by-hop options, routing, destination options.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;
/// Extension headers that a packet may have in front of its transport header: more say nothing that is meant well.
const MAX_EXTENSIONS: usize = 8;
/// Bytes up to the transport header, fixed header and extensions, that the gateway looks behind.
const MAX_HEADERS: usize = 240;

/// A view of the fixed header.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a>(&'a [u8; LEN]);

impl<'a> Ipv6<'a> {
    /// The header at the front of a packet; none if the packet is shorter.
    #[inline]
    pub fn new(packet: &'a [u8]) -> Option<Self> {
        packet.first_chunk().map(Self)
    }

    /// The version: 6 in an IPv6 packet.
    #[inline]
    pub fn version(self) -> u8 {
        self.0[0] >> 4
    }

    /// Bytes behind this header as it says itself.
    #[inline]
    pub fn payload_len(self) -> u16 {
        be16!(self.0, 4)
    }

    /// What follows this header.
    #[inline]
    pub fn next_header(self) -> u8 {
        self.0[6]
    }

    /// Hop limit.
    #[inline]
    pub fn hop_limit(self) -> u8 {
        self.0[7]
    }

    /// From whom.
    #[inline]
    pub fn source(self) -> Ipv6Addr {
        Ipv6Addr::from(part::<8, 16>(self.0))
    }

    /// To whom.
    #[inline]
    pub fn destination(self) -> Ipv6Addr {
        Ipv6Addr::from(part::<24, 16>(self.0))
    }
}

fn part<const AT: usize, const COUNT: usize>(bytes: &[u8; LEN]) -> [u8; COUNT] {
    let mut part = [0; COUNT];
    part.copy_from_slice(&bytes[AT..AT + COUNT]);
    part
}

/// What stands behind the extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// Its protocol number.
    pub protocol: u8,
    /// Bytes in front of it, fixed header included.
    pub offset: u8,
    /// The packet's place in its datagram, if it is a fragment: more than what an atomic one is (RFC 6946).
    pub piece: Option<Piece>,
}

/// Goes through a packet's extension headers. None where they leave the packet, where there are too many, or where one
/// stands where none may (RFC 8200, 4.1: hop-by-hop options come first). In a fragment
/// that is not the first the walk ends behind its fragment header, and the protocol is what that names.
pub fn upper(packet: &[u8]) -> Option<Upper> {
    let mut protocol = Ipv6::new(packet)?.next_header();
    let mut offset = LEN;
    let mut piece = None;
    for extension in 0..=MAX_EXTENSIONS {
        let here = Upper { protocol, offset: u8::try_from(offset).ok()?, piece };
        let header = match protocol {
            HOP_BY_HOP if extension > 0 => return None,
            HOP_BY_HOP | ROUTING | DESTINATION | FRAGMENT => packet.get(offset..)?.first_chunk::<8>()?,
            NO_NEXT => return Some(here),
            _ => return Some(here),
        };
        if protocol == FRAGMENT {
            // One is enough for any datagram: a second would say something else of it.
            if piece.is_some() {
                return None;
            }
            offset += 8;
            piece = Piece::of_ipv6(header, u8::try_from(offset).ok()?);
            if piece.is_some_and(Piece::is_later) {
                return Some(Upper { protocol: header[0], offset: u8::try_from(offset).ok()?, piece });
            }
        } else {
            offset += 8 * (usize::from(header[1]) + 1);
        }
        protocol = header[0];
        if offset > MAX_HEADERS || offset > packet.len() {
            return None;
        }
    }
    None
}

/// Writes a header without extensions, flow label 0.
pub fn write(
    header: &mut [u8; LEN],
    payload_len: u16,
    hop_limit: u8,
    next_header: u8,
    (source, destination): (Ipv6Addr, Ipv6Addr),
) {
    header.fill(0);
    header[0] = 0x60;
    header[4..6].copy_from_slice(&payload_len.to_be_bytes());
    header[6] = next_header;
    header[7] = hop_limit;
    header[8..24].copy_from_slice(&source.octets());
    header[24..].copy_from_slice(&destination.octets());
}

/// Gives a header another traffic class: DSCP and ECN.
pub fn set_traffic_class(header: &mut [u8; LEN], class: u8) {
    header[0] = header[0] & 0xf0 | class >> 4;
    header[1] = header[1] & 0x0f | class << 4;
}

/// The sum of the pseudo-header (RFC 8200, 8.1). `len` is that of what follows all IP headers.
pub fn pseudo_header(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, len: u16) -> u32 {
    let words = |address: Ipv6Addr| address.segments().iter().map(|&word| u32::from(word)).sum::<u32>();
    words(source) + words(destination) + u32::from(protocol) + u32::from(len)
}

/// A source address that no host may send from through a router: unspecified, loopback, multicast, or one that stands for
/// an IPv4 address inside a host (RFC 4291, 2.5.2, 2.5.3, 2.7; RFC 4942, 2.2).
#[inline]
pub fn is_martian_source(address: Ipv6Addr) -> bool {
    address.is_unspecified() || is_never_unicast(address)
}

/// An address that no packet goes to one host by: loopback, multicast, IPv4-mapped.
#[inline]
pub fn is_never_unicast(address: Ipv6Addr) -> bool {
    address.is_multicast() || address.is_loopback() || address.to_ipv4_mapped().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet with these headers behind the fixed one; each says what follows it.
    fn packet(first: u8, headers: &[&[u8]]) -> Vec<u8> {
        let mut packet = vec![0; LEN];
        packet[0] = 0x60;
        packet[6] = first;
        headers.iter().for_each(|header| packet.extend_from_slice(header));
        packet
    }

    #[test]
    fn walks_over_extension_headers() {
        let options = [60, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let destination = [17, 0, 1, 4, 0, 0, 0, 0];
        let found = upper(&packet(0, &[&options, &destination, &[0; 8]]));
        assert_eq!(found, Some(Upper { protocol: 17, offset: 64, piece: None }));
        assert_eq!(upper(&packet(6, &[&[0; 20]])), Some(Upper { protocol: 6, offset: 40, piece: None }));
        assert_eq!(upper(&packet(59, &[])), Some(Upper { protocol: 59, offset: 40, piece: None }));
    }

    #[test]
    fn tells_fragments_from_atomic_ones() {
        let atomic = upper(&packet(44, &[&[17, 0, 0, 0, 1, 2, 3, 4], &[0; 8]]));
        assert_eq!(atomic, Some(Upper { protocol: 17, offset: 48, piece: None }));
        let piece = |offset, more| Some(Piece { identification: 0x0102_0304, offset, more, data_at: 48 });
        let options = [17, 0, 1, 4, 0, 0, 0, 0];
        let first = upper(&packet(44, &[&[60, 0, 0, 1, 1, 2, 3, 4], &options, &[0; 8]]));
        assert_eq!(first, Some(Upper { protocol: 17, offset: 56, piece: piece(0, true) }));
        // What looks like options there are data.
        let later = upper(&packet(44, &[&[60, 0, 0, 8, 1, 2, 3, 4], &options, &[0; 8]]));
        assert_eq!(later, Some(Upper { protocol: 60, offset: 48, piece: piece(8, false) }));
    }

    #[test]
    fn refuses_chains_that_leave_the_packet_or_never_end() {
        assert_eq!(upper(&packet(0, &[&[17, 1, 0, 0, 0, 0, 0, 0]])), None, "longer than the packet");
        assert_eq!(upper(&packet(0, &[&[17, 0, 0]])), None);
        assert_eq!(upper(&packet(60, &[&[0, 0, 0, 0, 0, 0, 0, 0], &[17; 8]])), None, "hop-by-hop second");
        let endless = [60, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(upper(&packet(60, &[&endless[..]; 20])), None);
        let fragment = [44, 0, 0, 1, 0, 0, 0, 1];
        assert_eq!(upper(&packet(44, &[&fragment, &fragment, &[0; 8]])), None, "a fragment of a fragment");
        assert_eq!(upper(&[0x60; 39]), None);
    }
}
