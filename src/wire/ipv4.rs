//! IPv4 headers (RFC 791, 3.1).

use std::net::Ipv4Addr;

use super::checksum::{self, fold};
use super::fragment::Piece;
use super::{be16, be32};

/// Bytes of a header without options.
pub const MIN_LEN: usize = 20;
/// Bytes of the longest header.
pub const MAX_LEN: usize = 60;
/// IP protocol number of an IPv4 packet inside another packet (RFC 2003).
pub const IN_IP: u8 = 4;

/// A view of the fixed part of the header.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a>(&'a [u8; MIN_LEN]);

impl<'a> Ipv4<'a> {
    /// The header at the front of a packet; none if the packet is shorter than its fixed part.
    #[inline]
    pub fn new(packet: &'a [u8]) -> Option<Self> {
        packet.first_chunk().map(Self)
    }

    /// The version: 4 in an IPv4 packet.
    #[inline]
    pub fn version(self) -> u8 {
        self.0[0] >> 4
    }

    /// Bytes of the header with its options; below [`MIN_LEN`] in a malformed packet.
    #[inline]
    pub fn header_len(self) -> usize {
        usize::from(self.0[0] & 0x0f) * 4
    }

    /// Bytes of the packet as it says itself.
    #[inline]
    pub fn total_len(self) -> u16 {
        be16!(self.0, 2)
    }

    /// Whether it may not be fragmented.
    #[inline]
    pub fn dont_fragment(self) -> bool {
        self.0[6] & 0x40 != 0
    }

    /// Whether it is a fragment: more follow, or its offset is not 0.
    #[inline]
    pub fn is_fragment(self) -> bool {
        be16!(self.0, 6) & 0x3fff != 0
    }

    /// The packet's place in its datagram; none if it is whole.
    pub fn piece(self) -> Option<Piece> {
        Piece::of_ipv4(self.0, u8::try_from(self.header_len()).unwrap_or(u8::MAX))
    }

    /// Where what it carries stands in the whole of a fragmented packet, in units of 8 bytes.
    #[inline]
    pub fn fragment_offset(self) -> u16 {
        be16!(self.0, 6) & 0x1fff
    }

    /// Time to live.
    #[inline]
    pub fn ttl(self) -> u8 {
        self.0[8]
    }

    /// The protocol number of what follows.
    #[inline]
    pub fn protocol(self) -> u8 {
        self.0[9]
    }

    /// From whom.
    #[inline]
    pub fn source(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(be32!(self.0, 12))
    }

    /// To whom.
    #[inline]
    pub fn destination(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(be32!(self.0, 16))
    }
}

/// Whether a whole header, options included, has the right checksum.
#[inline]
pub fn checksum_is_right(header: &[u8]) -> bool {
    fold(checksum::sum(header)) == 0xffff
}

/// Writes a header without options, DF set, identification 0 (RFC 6864, 4.1: an atomic datagram needs none).
pub fn write(
    header: &mut [u8; MIN_LEN],
    total_len: u16,
    ttl: u8,
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
) {
    header.fill(0);
    header[0] = 0x45;
    header[2..4].copy_from_slice(&total_len.to_be_bytes());
    header[6] = 0x40;
    header[8] = ttl;
    header[9] = protocol;
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let checksum = !fold(checksum::sum(header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Makes the checksum of a whole header, options included.
pub fn make_checksum(header: &mut [u8]) {
    let Some(field) = header.get_mut(10..12) else { return };
    field.fill(0);
    let checksum = !fold(checksum::sum(header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// A header without options: of a packet that carries another one, or that was one of IPv6.
#[inline]
pub fn header(
    total_len: u16,
    (tos, ttl): (u8, u8),
    protocol: u8,
    (source, destination): (Ipv4Addr, Ipv4Addr),
    (identification, dont_fragment): (u16, bool),
) -> [u8; MIN_LEN] {
    // Words as they lie in memory: their sum is the same in any byte order (RFC 1071, 2.B).
    let [len_high, len_low] = total_len.to_be_bytes();
    let [id_high, id_low] = identification.to_be_bytes();
    let words = [
        u32::from_ne_bytes([0x45, tos, len_high, len_low]),
        u32::from_ne_bytes([id_high, id_low, u8::from(dont_fragment) << 6, 0]),
        u32::from_ne_bytes([ttl, protocol, 0, 0]),
        u32::from_ne_bytes(source.octets()),
        u32::from_ne_bytes(destination.octets()),
    ];
    let sum: u64 = words.iter().map(|&word| u64::from(word)).sum();
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let [check_high, check_low] = (!fold(u32::try_from(sum).unwrap_or(0))).to_ne_bytes();
    let mut header = [0; MIN_LEN];
    for (bytes, word) in header.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_ne_bytes();
    }
    (header[10], header[11]) = (check_high, check_low);
    header
}

/// A source address that no host may send from: this network, loopback, multicast, reserved, broadcast
/// (RFC 1122, 3.2.1.3; RFC 1812, 5.3.7).
#[inline]
pub fn is_martian_source(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first == 0 || first == 127 || first >= 224
}
