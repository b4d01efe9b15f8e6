//! The Toeplitz hash, by which NICs deal flows to queues (RSS).
//!
//! Defined in Microsoft's "RSS hashing types": for each bit of the input that is set, the 32 bits of the key that begin
//! at the same place are XORed together. The input is the packet's source address, destination address, source port and
//! destination port, in network order. Here each byte of input has a table of what its 256 values add, made once a key.
//!
//! The hash is linear: what a field adds does not depend on the others, and
//! `hash_v4(s, d, sp, dp) == addresses_v4(s, d) ^ source_port_v4(sp) ^ destination_port_v4(dp)`. Who wants a port that
//! brings a flow to a certain queue so has the rest of the hash once, and adds ports to it by two look-ups each.
//!
//! A key that repeats every 16 bits makes the hash symmetric: both directions of a flow hash alike. (But so do all
//! flows whose 16-bit words have the same XOR: such a key spreads flows less well.)

use std::net::{Ipv4Addr, Ipv6Addr};

/// Bytes of the longest input: two IPv6 addresses, two ports.
const MAX_INPUT: usize = 36;

/// Bytes of the shortest key, which the longest input needs: a window of 32 bits at each of its bits.
pub const MIN_KEY: usize = MAX_INPUT + 4;

/// Places of the fields in the input of IPv4.
mod v4 {
    pub(super) const SOURCE: usize = 0;
    pub(super) const DESTINATION: usize = 4;
    pub(super) const SOURCE_PORT: usize = 8;
    pub(super) const DESTINATION_PORT: usize = 10;
}

/// Places of the fields in the input of IPv6.
mod v6 {
    pub(super) const SOURCE: usize = 0;
    pub(super) const DESTINATION: usize = 16;
    pub(super) const SOURCE_PORT: usize = 32;
    pub(super) const DESTINATION_PORT: usize = 34;
}

/// A key shorter than [`MIN_KEY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an RSS key of {0} bytes is too short for IPv6; allowed: {MIN_KEY} bytes or more")]
pub struct KeyTooShort(pub usize);

/// The hash with one key.
#[derive(Clone, Debug)]
pub struct Toeplitz {
    /// What each value of the input byte at each place adds.
    tables: Box<[[u32; 256]; MAX_INPUT]>,
}

impl Toeplitz {
    /// The hash with a NIC's key, of 40 or 52 bytes as drivers have them, or any other number from [`MIN_KEY`] on: bytes
    /// beyond that play no part.
    pub fn new(key: &[u8]) -> Result<Self, KeyTooShort> {
        let key = key.first_chunk::<MIN_KEY>().ok_or(KeyTooShort(key.len()))?;
        let mut tables = Box::new([[0; 256]; MAX_INPUT]);
        for (table, bytes) in tables.iter_mut().zip(key.windows(5)) {
            *table = byte_table(bytes);
        }
        Ok(Self { tables })
    }

    /// The hash of an IPv4 TCP or UDP packet.
    #[inline]
    pub fn hash_v4(&self, source: Ipv4Addr, destination: Ipv4Addr, source_port: u16, destination_port: u16) -> u32 {
        self.addresses_v4(source, destination)
            ^ self.source_port_v4(source_port)
            ^ self.destination_port_v4(destination_port)
    }

    /// The hash of an IPv4 packet without ports, and what the addresses add to that of one with ports.
    #[inline]
    pub fn addresses_v4(&self, source: Ipv4Addr, destination: Ipv4Addr) -> u32 {
        self.add(v4::SOURCE, source.octets()) ^ self.add(v4::DESTINATION, destination.octets())
    }

    /// What the source port adds to the hash of an IPv4 packet.
    #[inline]
    pub fn source_port_v4(&self, port: u16) -> u32 {
        self.add(v4::SOURCE_PORT, port.to_be_bytes())
    }

    /// What the destination port adds to the hash of an IPv4 packet: in a real server's answer that is the local port.
    #[inline]
    pub fn destination_port_v4(&self, port: u16) -> u32 {
        self.add(v4::DESTINATION_PORT, port.to_be_bytes())
    }

    /// The hash of an IPv6 TCP or UDP packet.
    #[inline]
    pub fn hash_v6(&self, source: Ipv6Addr, destination: Ipv6Addr, source_port: u16, destination_port: u16) -> u32 {
        self.addresses_v6(source, destination)
            ^ self.source_port_v6(source_port)
            ^ self.destination_port_v6(destination_port)
    }

    /// The hash of an IPv6 packet without ports, and what the addresses add to that of one with ports.
    #[inline]
    pub fn addresses_v6(&self, source: Ipv6Addr, destination: Ipv6Addr) -> u32 {
        self.add(v6::SOURCE, source.octets()) ^ self.add(v6::DESTINATION, destination.octets())
    }

    /// What the source port adds to the hash of an IPv6 packet.
    #[inline]
    pub fn source_port_v6(&self, port: u16) -> u32 {
        self.add(v6::SOURCE_PORT, port.to_be_bytes())
    }

    /// What the destination port adds to the hash of an IPv6 packet.
    #[inline]
    pub fn destination_port_v6(&self, port: u16) -> u32 {
        self.add(v6::DESTINATION_PORT, port.to_be_bytes())
    }

    /// What the bytes of a field add that begins at this place of the input.
    #[inline]
    fn add<const LEN: usize>(&self, at: usize, field: [u8; LEN]) -> u32 {
        let tables = self.tables[at..at + LEN].iter();
        tables.zip(field).fold(0, |hash, (table, byte)| hash ^ table[usize::from(byte)])
    }
}

/// What each value of a byte adds, given the five bytes of the key from its place on.
#[allow(clippy::cast_possible_truncation, reason = "the upper 32 of 40 bits, or fewer")]
fn byte_table(key: &[u8]) -> [u32; 256] {
    let key = key.iter().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
    // Bit 0 is the first on the wire. Its window is the first four bytes of the five.
    let windows: [u32; 8] = std::array::from_fn(|bit| (key >> (8 - bit)) as u32);
    std::array::from_fn(|value| {
        let set = |bit: usize| value & (0x80 >> bit) != 0;
        windows.iter().enumerate().filter(|&(bit, _)| set(bit)).fold(0, |hash, (_, window)| hash ^ window)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The key of Microsoft's verification suite.
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca,
        0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b,
        0xbe, 0xac, 0x01, 0xfa,
    ];

    /// The definition, bit by bit.
    fn by_definition(key: &[u8], input: &[u8]) -> u32 {
        let key_bit = |at: usize| u32::from(key[at / 8] >> (7 - at % 8) & 1);
        let window = |at: usize| (at..at + 32).fold(0, |word, at| word << 1 | key_bit(at));
        let set = (0..input.len() * 8).filter(|at| input[at / 8] >> (7 - at % 8) & 1 == 1);
        set.fold(0, |hash, at| hash ^ window(at))
    }

    #[test]
    fn hashes_as_the_verification_suite_says() {
        // Source, destination, hash of the addresses, hash with the ports.
        let v4 = [
            ("66.9.149.187:2794", "161.142.100.80:1766", 0x323e_8fc2, 0x51cc_c178),
            ("199.92.111.2:14230", "65.69.140.83:4739", 0xd718_262a, 0xc626_b0ea),
            ("24.19.198.95:12898", "12.22.207.184:38024", 0xd2d0_a5de, 0x5c2b_394a),
            ("38.27.205.30:48228", "209.142.163.6:2217", 0x8298_9176, 0xafc7_327f),
            ("153.39.163.191:44251", "202.188.127.2:1303", 0x5d18_09c5, 0x10e8_28a2),
        ];
        let hash = Toeplitz::new(&KEY).unwrap();
        for (source, destination, addresses, all) in v4 {
            let end = |text: &str| text.parse::<std::net::SocketAddrV4>().unwrap();
            let (source, destination) = (end(source), end(destination));
            assert_eq!(hash.addresses_v4(*source.ip(), *destination.ip()), addresses, "{source}");
            let found = hash.hash_v4(*source.ip(), *destination.ip(), source.port(), destination.port());
            assert_eq!(found, all, "{source}");
        }
        let v6 = [
            ("[3ffe:2501:200:1fff::7]:2794", "[3ffe:2501:200:3::1]:1766", 0x2cc1_8cd5, 0x4020_7d3d),
            ("[3ffe:501:8::260:97ff:fe40:efab]:14230", "[ff02::1]:4739", 0x0f0c_461c, 0xdde5_1bbf),
            (
                "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
                "[fe80::200:f8ff:fe21:67cf]:38024",
                0x4b61_e985,
                0x02d1_feef,
            ),
        ];
        for (source, destination, addresses, all) in v6 {
            let end = |text: &str| text.parse::<std::net::SocketAddrV6>().unwrap();
            let (source, destination) = (end(source), end(destination));
            assert_eq!(hash.addresses_v6(*source.ip(), *destination.ip()), addresses, "{source}");
            let found = hash.hash_v6(*source.ip(), *destination.ip(), source.port(), destination.port());
            assert_eq!(found, all, "{source}");
        }
    }

    #[test]
    fn short_keys_are_refused() {
        assert_eq!(Toeplitz::new(&KEY[..39]).unwrap_err(), KeyTooShort(39));
        assert!(Toeplitz::new(&[7; 52]).is_ok());
    }

    proptest! {
        #[test]
        fn tables_say_what_the_definition_says(
            key in proptest::collection::vec(any::<u8>(), 40..=52),
            source: [u8; 16],
            destination: [u8; 16],
            ports: (u16, u16),
        ) {
            let hash = Toeplitz::new(&key).unwrap();
            let ends = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
            let input = [&source[..], &destination, &ends].concat();
            prop_assert_eq!(
                hash.hash_v6(source.into(), destination.into(), ports.0, ports.1),
                by_definition(&key, &input)
            );
            prop_assert_eq!(hash.addresses_v6(source.into(), destination.into()), by_definition(&key, &input[..32]));
            let short = |address: [u8; 16]| -> [u8; 4] { *address.first_chunk().unwrap() };
            let (source, destination) = (short(source), short(destination));
            let input = [&source[..], &destination, &ends].concat();
            prop_assert_eq!(
                hash.hash_v4(source.into(), destination.into(), ports.0, ports.1),
                by_definition(&key, &input)
            );
        }

        #[test]
        fn ports_can_be_exchanged_in_a_hash(key: [u8; 40], addresses: (u32, u32), ports: (u16, u16), other: u16) {
            let hash = Toeplitz::new(&key).unwrap();
            let (source, destination) = (Ipv4Addr::from_bits(addresses.0), Ipv4Addr::from_bits(addresses.1));
            let before = hash.hash_v4(source, destination, ports.0, ports.1);
            let change = hash.destination_port_v4(ports.1) ^ hash.destination_port_v4(other);
            prop_assert_eq!(before ^ change, hash.hash_v4(source, destination, ports.0, other));
            // Linear: what the difference of two ports adds is the difference of what they add.
            prop_assert_eq!(change, hash.destination_port_v4(ports.1 ^ other));
        }

        #[test]
        fn a_key_of_period_16_is_symmetric(period: [u8; 2], ends: ([u8; 16], [u8; 16]), ports: (u16, u16)) {
            let hash = Toeplitz::new(&period.repeat(20)).unwrap();
            let (source, destination) = (Ipv6Addr::from(ends.0), Ipv6Addr::from(ends.1));
            prop_assert_eq!(
                hash.hash_v6(source, destination, ports.0, ports.1),
                hash.hash_v6(destination, source, ports.1, ports.0)
            );
        }
    }
}
