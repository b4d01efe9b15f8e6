//! Header views: checked once, with accessors that cannot fail afterwards, and the checksum arithmetic.
//!
//! A view borrows a fixed-size array out of the packet, so that each accessor reads constant offsets and needs no
//! bounds check. All multi-byte accessors give host byte order.

pub mod checksum;
pub mod crc32c;
pub mod ethernet;
pub mod fragment;
pub mod gre;
pub mod gue;
pub mod icmp;
pub mod icmp6;
pub mod icmp_translation;
pub mod ipv4;
pub mod ipv6;
pub mod sctp;
pub mod tcp;
pub mod udp;
pub mod vlan;

/// Reads two bytes in network order at a constant offset of a fixed-size header.
macro_rules! be16 {
    ($bytes:expr, $at:literal) => {
        u16::from_be_bytes([$bytes[$at], $bytes[$at + 1]])
    };
}

/// Reads four bytes in network order at a constant offset of a fixed-size header.
macro_rules! be32 {
    ($bytes:expr, $at:literal) => {
        u32::from_be_bytes([$bytes[$at], $bytes[$at + 1], $bytes[$at + 2], $bytes[$at + 3]])
    };
}

pub(crate) use {be16, be32};
