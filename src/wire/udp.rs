//! UDP headers (RFC 768).

use super::be16;

/// IP protocol number.
pub const PROTOCOL: u8 = 17;
/// Bytes of the header.
pub const LEN: usize = 8;
/// Where the checksum stands in the header; 0 there means that the sender made none.
pub const CHECKSUM_AT: usize = 6;

/// A view of the header.
#[derive(Clone, Copy, Debug)]
pub struct Udp<'a>(&'a [u8; LEN]);

impl<'a> Udp<'a> {
    /// The header at the front of an IP payload; none if that is shorter.
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

    /// Bytes of header and payload as it says itself.
    #[inline]
    pub fn len(self) -> u16 {
        be16!(self.0, 4)
    }

    /// Whether it says to have not even a header.
    #[inline]
    pub fn is_empty(self) -> bool {
        usize::from(self.len()) < LEN
    }
}

/// Writes a header without a checksum; `len` is that of header and payload.
pub fn write(header: &mut [u8; LEN], ports: (u16, u16), len: u16) {
    let ([a, b], [c, d], [e, f]) = (ports.0.to_be_bytes(), ports.1.to_be_bytes(), len.to_be_bytes());
    *header = [a, b, c, d, e, f, 0, 0];
}

/// Puts a checksum in. One that comes out as 0 is sent as 0xffff, since 0 says that there is none.
pub fn set_checksum(header: &mut [u8; LEN], checksum: u16) {
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    header[CHECKSUM_AT..].copy_from_slice(&checksum.to_be_bytes());
}
