//! TCP headers (RFC 9293, 3.1).

use super::checksum::Delta;
use super::{be16, be32};

/// IP protocol number.
pub const PROTOCOL: u8 = 6;
/// Bytes of a header without options.
pub const MIN_LEN: usize = 20;
/// The option that says how large segments may be (RFC 9293, 3.7.1), and its bytes.
const MSS: u8 = 2;
const MSS_LEN: u8 = 4;
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

/// Lowers the value of an MSS option to this, where it is larger, and lets the checksum follow. Options are read up to the first one
/// that is malformed.
pub fn lower_mss(segment: &mut [u8], most: u16) {
    let Some(header_len) = Tcp::new(segment).map(Tcp::header_len) else { return };
    let Some(header) = segment.get_mut(..header_len).filter(|header| header.len() > MIN_LEN) else { return };
    let Some(at) = mss_at(header) else { return };
    let Some(value) = header.get_mut(at..).and_then(|value| value.first_chunk_mut::<2>()) else { return };
    let old = u16::from_be_bytes(*value);
    if old <= most {
        return;
    }
    *value = most.to_be_bytes();
    // Behind an odd number of bytes the value's first byte is the second one of a word, and the other way round.
    let in_words = |value: u16| u32::from(if at % 2 == 0 { value } else { value.swap_bytes() });
    let delta = Delta::new(in_words(old), in_words(most));
    if let Some(checksum) = header.get_mut(CHECKSUM_AT..).and_then(|checksum| checksum.first_chunk_mut::<2>()) {
        *checksum = delta.apply(*checksum);
    }
}

/// Where the value of the MSS option stands in a whole header.
fn mss_at(header: &[u8]) -> Option<usize> {
    let mut at = MIN_LEN;
    loop {
        match *header.get(at..)? {
            [0, ..] | [] => return None,
            [1, ..] => at += 1,
            [MSS, MSS_LEN, _, _, ..] => return Some(at + 2),
            [MSS, ..] => return None,
            [_, len, ..] if len >= 2 => at += usize::from(len),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::checksum::{fold, sum};

    /// A header with these options, and payload, whose checksum is right but for the pseudo-header.
    fn segment(options: &[u8], payload: &[u8]) -> Vec<u8> {
        let words = options.len().div_ceil(4);
        let mut bytes = vec![0; MIN_LEN + words * 4];
        bytes[12] = u8::try_from(5 + words).unwrap() << 4;
        bytes[13] = 2;
        bytes[MIN_LEN..MIN_LEN + options.len()].copy_from_slice(options);
        bytes.extend(payload);
        let checksum = !fold(sum(&bytes));
        bytes[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    fn lowered(options: &[u8], most: u16) -> Vec<u8> {
        let mut bytes = segment(options, b"odd");
        lower_mss(&mut bytes, most);
        assert_eq!(fold(sum(&bytes)), 0xffff, "checksum");
        bytes[MIN_LEN..MIN_LEN + options.len()].to_vec()
    }

    #[test]
    fn an_mss_is_lowered_wherever_it_stands_and_never_raised() {
        assert_eq!(lowered(&[2, 4, 5, 180], 1400), [2, 4, 5, 120]);
        assert_eq!(lowered(&[1, 2, 4, 5, 180], 1400), [1, 2, 4, 5, 120], "at an odd place");
        assert_eq!(lowered(&[4, 2, 3, 3, 7, 2, 4, 0xff, 0xff], 536), [4, 2, 3, 3, 7, 2, 4, 2, 24]);
        assert_eq!(lowered(&[2, 4, 5, 180], 1460), [2, 4, 5, 180]);
        assert_eq!(lowered(&[2, 4, 0, 0], 1460), [2, 4, 0, 0]);
    }

    #[test]
    fn malformed_options_are_left_alone() {
        for options in [
            &[2, 3, 5, 180][..],
            &[2, 5, 5, 180],
            &[3, 0, 2, 4, 5, 180],
            &[3, 1, 2, 4, 5, 180],
            &[0, 2, 4, 5, 180],
            &[3, 40, 2, 4, 5, 180],
            &[1, 1, 2, 4],
            &[1, 1, 1, 2],
        ] {
            assert_eq!(lowered(options, 600), options);
        }
        let mut short = segment(&[2, 4, 5, 180], b"");
        short.truncate(22);
        let before = short.clone();
        lower_mss(&mut short, 600);
        assert_eq!(short, before, "the header is longer than what there is");
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_a_right_checksum_stays_right(
            options in proptest::collection::vec(0u8..6, 0..=40), payload in any::<Vec<u8>>(), most in 0u16..1500,
        ) {
            let mut bytes = segment(&options, &payload);
            lower_mss(&mut bytes, most);
            prop_assert_eq!(fold(sum(&bytes)), 0xffff);
        }
    }
}
