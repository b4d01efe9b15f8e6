//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624, equation 3).

use std::net::Ipv4Addr;

/// The ones' complement sum of 16-bit words in network order, not yet complemented.
///
/// An odd last byte counts as the high half of a word. Sums of parts may be added if each part but the last has an
/// even length.
#[inline]
pub fn sum(bytes: &[u8]) -> u32 {
    // 64-bit accumulation over pairs of words cannot overflow for any packet: 2^32 additions would be needed.
    let mut total: u64 = 0;
    let (chunks, rest) = bytes.as_chunks::<4>();
    for chunk in chunks {
        total += u64::from(u32::from_be_bytes(*chunk));
    }
    let mut tail = [0; 4];
    tail[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_be_bytes(tail));
    total = (total & 0xffff_ffff) + (total >> 32);
    let total = u64_low(total) + u64_low(total >> 32);
    (total & 0xffff) + (total >> 16)
}

#[allow(clippy::cast_possible_truncation, reason = "the low half is meant")]
const fn u64_low(value: u64) -> u32 {
    (value & 0xffff) as u32 + ((value >> 16) & 0xffff) as u32
}

/// Folds a sum into 16 bits.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "folded twice, a 32-bit sum fits 16 bits")]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// The sum of the TCP and UDP pseudo-header (RFC 9293, 3.1; RFC 768). `len` is that of the TCP or UDP part.
#[inline]
pub fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: u16) -> u32 {
    address_sum(source) + address_sum(destination) + u32::from(protocol) + u32::from(len)
}

/// The two words of an address, added.
#[inline]
pub const fn address_sum(address: Ipv4Addr) -> u32 {
    let bits = address.to_bits();
    (bits >> 16) + (bits & 0xffff)
}

/// What replacing some 16-bit words of a packet does to a checksum that covers them.
///
/// Kept per session: the fields that a session rewrites have the same old and new values in each of its packets.
/// Held as it is added in a packet, in network order: a ones' complement sum is the same in either (RFC 1071, 2.B).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Delta(u16);

impl Delta {
    /// No change.
    pub const NONE: Self = Self(0);

    /// The change from words that sum to `old` to words that sum to `new`.
    #[inline]
    pub const fn new(old: u32, new: u32) -> Self {
        // ~old + new, in ones' complement.
        Self(fold((!fold(old)) as u32 + fold(new) as u32).to_be())
    }

    /// The change back.
    #[inline]
    pub const fn reverse(self) -> Self {
        Self(!self.0)
    }

    /// Both changes.
    #[inline]
    pub const fn and(self, other: Self) -> Self {
        Self(add(self.0, other.0))
    }

    /// The new value of a checksum, both as they stand in a packet.
    #[inline]
    pub const fn apply(self, checksum: [u8; 2]) -> [u8; 2] {
        (!add(!u16::from_ne_bytes(checksum), self.0)).to_ne_bytes()
    }
}

/// The ones' complement sum of two words.
#[inline]
const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

/// The change that a TTL lower by one makes to the IPv4 header checksum: its word is TTL * 256 + protocol.
pub const TTL_DECREMENT: Delta = Delta::new(0x0100, 0);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 done the slow way: two bytes at a time.
    fn naive(bytes: &[u8]) -> u16 {
        let mut total = 0u64;
        for pair in bytes.chunks(2) {
            total += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        u16::try_from(total).unwrap()
    }

    #[test]
    fn rfc_1071_example() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)), 0xddf2);
    }

    #[test]
    fn rfc_1624_example() {
        // Section 4: HC = 0xdd2f, m = 0x5555 becomes m' = 0x3285: equation 3 gives 0x0000, equation 2 failed with 0xffff.
        assert_eq!(Delta::new(0x5555, 0x3285).apply([0xdd, 0x2f]), [0, 0]);
    }

    proptest! {
        #[test]
        fn sum_equals_naive(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(fold(sum(&bytes)), naive(&bytes));
        }

        #[test]
        fn incremental_equals_recomputed(mut words in proptest::collection::vec(any::<u16>(), 2..40), at in 0usize..40, new in any::<u16>()) {
            // A header never sums to zero: its first word is not zero.
            words[0] |= 0x4500;
            let at = 1 + at % (words.len() - 1);
            let bytes = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
            let before = !fold(sum(&bytes(&words)));
            let delta = Delta::new(words[at].into(), new.into());
            words[at] = new;
            let after = !fold(sum(&bytes(&words)));
            prop_assert_eq!(delta.apply(before.to_be_bytes()), after.to_be_bytes());
            prop_assert_eq!(delta.reverse().apply(after.to_be_bytes()), before.to_be_bytes());
        }
    }
}
