//! TCP headers (RFC 9293, 3.1).

use super::{be16, be32};

/// IP protocol number.
pub const PROTOCOL: u8 = 6;
/// Bytes of a header without options.
pub const MIN_LEN: usize = 20;
/// Where the checksum stands in the header.
pub const CHECKSUM_AT: usize = 16;

/// The control bits that a session's state depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// The acknowledgement field counts.
    pub const ACK: Self = Self(0x10);

    /// Whether any of `other`'s bits is set.
    #[inline]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// A view of the fixed part of the header.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'a>(&'a [u8; MIN_LEN]);

impl<'a> Tcp<'a> {
    /// The header at the front of an IP payload; none if that is shorter than its fixed part.
    #[inline]
    pub fn new(payload: &'a [u8]) -> Option<Self> {
        payload.first_chunk().map(Self)
    }

    /// The source port.
    #[inline]
    pub fn source_port(self) -> u16 {
        be16!(self.0, 0)
    }

    /// The destination port.
    #[inline]
    pub fn destination_port(self) -> u16 {
        be16!(self.0, 2)
    }

    /// The sequence number.
    #[inline]
    pub fn sequence(self) -> u32 {
        be32!(self.0, 4)
    }

    /// The acknowledgement number.
    #[inline]
    pub fn acknowledgement(self) -> u32 {
        be32!(self.0, 8)
    }

    /// Bytes of the header with its options; below [`MIN_LEN`] in a malformed segment.
    #[inline]
    pub fn header_len(self) -> usize {
        usize::from(self.0[12] >> 4) * 4
    }

    /// The control bits.
    #[inline]
    pub fn flags(self) -> Flags {
        Flags(self.0[13])
    }
}
