//! Address families: what keys, sessions and tables of IPv4 and IPv6 do each in their way.

use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::fold_multiply;
use crate::wire::checksum;

/// An address of one family, by which everything made for that family is told apart.
pub trait Address: Copy + Eq + Ord + Hash + fmt::Debug + fmt::Display + Into<IpAddr> + 'static {
    /// Two of them as they stand in a packet, source first.
    type Pair: Copy + Eq + Hash + fmt::Debug + bytemuck::Zeroable + Send + Sync;
    /// Twice the address of no host.
    const NOBODY: Self::Pair;

    /// Two addresses, source first.
    fn pair(source: Self, destination: Self) -> Self::Pair;
    /// The first of two.
    fn first(pair: Self::Pair) -> Self;
    /// The second of two.
    fn second(pair: Self::Pair) -> Self;
    /// The two exchanged.
    fn exchanged(pair: Self::Pair) -> Self::Pair;
    /// A well-mixed hash of two addresses and another word.
    fn mix(pair: Self::Pair, word: u64, seed: [u64; 2]) -> u64;
    /// The sum of the address's 16-bit words.
    fn sum(self) -> u32;
    /// An address as one of this family: an IPv4 address is an IPv4-mapped one of IPv6 (RFC 4291, 2.5.5.2).
    fn of(address: IpAddr) -> Option<Self>;
}

impl Address for Ipv4Addr {
    /// A word, read and written at once, in the byte order of the packet.
    type Pair = u64;
    const NOBODY: u64 = 0;

    #[inline]
    fn pair(source: Self, destination: Self) -> u64 {
        let ([a, b, c, d], [e, f, g, h]) = (source.octets(), destination.octets());
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }

    #[inline]
    fn first(pair: u64) -> Self {
        let [a, b, c, d, ..] = pair.to_ne_bytes();
        Self::new(a, b, c, d)
    }

    #[inline]
    fn second(pair: u64) -> Self {
        let [.., e, f, g, h] = pair.to_ne_bytes();
        Self::new(e, f, g, h)
    }

    #[inline]
    fn exchanged(pair: u64) -> u64 {
        pair.rotate_left(32)
    }

    /// Two 64-bit words, folded through one 128-bit product each.
    #[inline]
    fn mix(pair: u64, word: u64, seed: [u64; 2]) -> u64 {
        let mixed = fold_multiply(pair ^ seed[0], word ^ seed[1]);
        // A second product, since a factor of zero in the first would lose the other one whole.
        fold_multiply(mixed ^ seed[1], (pair ^ word.rotate_left(23)) | 1)
    }

    #[inline]
    fn sum(self) -> u32 {
        checksum::address_sum(self)
    }

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }
}

impl Address for Ipv6Addr {
    /// Four words, as they stand in the packet.
    type Pair = [u64; 4];
    const NOBODY: [u64; 4] = [0; 4];

    #[inline]
    fn pair(source: Self, destination: Self) -> [u64; 4] {
        bytemuck::cast([source.octets(), destination.octets()])
    }

    #[inline]
    fn first(pair: [u64; 4]) -> Self {
        let [source, _]: [[u8; 16]; 2] = bytemuck::cast(pair);
        Self::from(source)
    }

    #[inline]
    fn second(pair: [u64; 4]) -> Self {
        let [_, destination]: [[u8; 16]; 2] = bytemuck::cast(pair);
        Self::from(destination)
    }

    #[inline]
    fn exchanged([a, b, c, d]: [u64; 4]) -> [u64; 4] {
        [c, d, a, b]
    }

    /// The same as for IPv4 over twice as many words; each address goes through a product of its own first.
    #[inline]
    fn mix([a, b, c, d]: [u64; 4], word: u64, seed: [u64; 2]) -> u64 {
        let source = fold_multiply(a ^ seed[0], b ^ seed[1]);
        let destination = fold_multiply(c ^ seed[1].rotate_left(32), d ^ seed[0].rotate_left(32));
        let mixed = fold_multiply(source ^ seed[0], destination ^ word ^ seed[1]);
        let plain = (a ^ c).rotate_left(13) ^ b ^ d.rotate_left(32);
        fold_multiply(mixed ^ seed[1], (plain ^ word.rotate_left(23)) | 1)
    }

    #[inline]
    fn sum(self) -> u32 {
        self.segments().iter().map(|&word| u32::from(word)).sum()
    }

    fn of(address: IpAddr) -> Option<Self> {
        Some(match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        })
    }
}
