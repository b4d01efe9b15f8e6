//! Fragments: what a packet's header says of the datagram that it is a piece of (RFC 791, 3.2; RFC 8200, 4.5), and the
//! headers of pieces that are made here. What they are pieces of is not known here.

use super::{be16, be32, ipv4};

/// Bytes of IPv6's fragment header.
pub const IPV6_LEN: usize = 8;
/// IPv6's next header: a fragment header.
pub const IPV6_NEXT_HEADER: u8 = 44;
/// More pieces follow, in the field that has the offset.
const MORE_OF_IPV4: u16 = 0x2000;
const MORE_OF_IPV6: u16 = 1;
/// Offsets are counted in so many bytes.
pub const UNIT: u16 = 8;

/// The place of a piece in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The datagram's number at its sender; of IPv4, its lower half alone.
    pub identification: u32,
    /// Where its data stand in the datagram, in bytes: a multiple of 8.
    pub offset: u16,
    /// Whether more pieces follow.
    pub more: bool,
    /// Bytes of the packet in front of its data.
    pub data_at: u8,
}

impl Piece {
    /// What an IPv4 header says, of a packet whose headers have `header_len` bytes; none if the packet is whole.
    pub fn of_ipv4(header: &[u8; ipv4::MIN_LEN], header_len: u8) -> Option<Self> {
        let field = be16!(header, 6);
        (field & 0x3fff != 0).then(|| Self {
            identification: be16!(header, 4).into(),
            offset: (field & 0x1fff) * UNIT,
            more: field & MORE_OF_IPV4 != 0,
            data_at: header_len,
        })
    }

    /// What a fragment header of IPv6 says that ends `data_at` bytes into its packet; none if the packet is whole (an
    /// atomic fragment, RFC 6946).
    pub fn of_ipv6(header: &[u8; IPV6_LEN], data_at: u8) -> Option<Self> {
        let field = be16!(header, 2);
        (field & 0xfff9 != 0).then(|| Self {
            identification: be32!(header, 4),
            offset: field & 0xfff8,
            more: field & MORE_OF_IPV6 != 0,
            data_at,
        })
    }

    /// Whether it is not the first: it has no transport header.
    pub fn is_later(self) -> bool {
        self.offset > 0
    }

    /// Identification, flags and offset as a header of IPv4 has them, bytes 4 to 7: without DF.
    pub fn to_ipv4(self) -> [u8; 4] {
        let [.., id_high, id_low] = self.identification.to_be_bytes();
        let [high, low] = ((self.offset / UNIT) | if self.more { MORE_OF_IPV4 } else { 0 }).to_be_bytes();
        [id_high, id_low, high, low]
    }

    /// The fragment header of IPv6.
    pub fn to_ipv6(self, next_header: u8) -> [u8; IPV6_LEN] {
        let [high, low] = (self.offset | u16::from(self.more)).to_be_bytes();
        let [i, j, k, l] = self.identification.to_be_bytes();
        [next_header, 0, high, low, i, j, k, l]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_the_same_in_both_families() {
        for (offset, more) in [(0, true), (8, false), (65_528, true), (1480, true)] {
            let piece = Piece { identification: 0xabcd, offset, more, data_at: 20 };
            let mut header = [0; ipv4::MIN_LEN];
            header[4..8].copy_from_slice(&piece.to_ipv4());
            assert_eq!(Piece::of_ipv4(&header, 20), Some(piece));
            assert_eq!(Piece::of_ipv6(&piece.to_ipv6(17), 20), Some(piece));
        }
        assert_eq!(Piece::of_ipv6(&[17, 0, 0, 0, 1, 2, 3, 4], 48), None);
        let mut header = [0; ipv4::MIN_LEN];
        header[6] = 0x40;
        assert_eq!(Piece::of_ipv4(&header, 20), None, "DF is no fragment");
    }
}
