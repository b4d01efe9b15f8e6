//! Flows: the key of a packet's transport conversation, its hash, and which worker it belongs to.

mod address;
pub mod ownership;
pub mod rss;
pub mod toeplitz;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

pub use self::address::Address;
use crate::balance::Protocol;
use crate::port::WorkerId;

/// A packet's addresses and ports as it carries them.
///
/// Kept as the packet has them, source first, each in network order: read, compared and written as whole words.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey<A: Address> {
    /// Source and destination address.
    addresses: A::Pair,
    /// Source and destination port.
    ports: u32,
    protocol: Protocol,
}

impl<A: Address> FlowKey<A> {
    /// The key of these ends.
    #[inline]
    pub fn new(protocol: Protocol, source: (A, u16), destination: (A, u16)) -> Self {
        let ([i, j], [k, l]) = (source.1.to_be_bytes(), destination.1.to_be_bytes());
        Self::from_wire(protocol, A::pair(source.0, destination.0), [i, j, k, l])
    }

    /// The key of addresses and ports as they stand in a packet.
    #[inline]
    pub const fn from_wire(protocol: Protocol, addresses: A::Pair, ports: [u8; 4]) -> Self {
        Self { addresses, ports: u32::from_ne_bytes(ports), protocol }
    }

    /// Both addresses as they stand in a packet.
    #[inline]
    pub const fn wire_addresses(self) -> A::Pair {
        self.addresses
    }

    /// Both ports as they stand in a packet.
    #[inline]
    pub const fn wire_ports(self) -> [u8; 4] {
        self.ports.to_ne_bytes()
    }

    /// Source address.
    #[inline]
    pub fn source(self) -> A {
        A::first(self.addresses)
    }

    /// Destination address.
    #[inline]
    pub fn destination(self) -> A {
        A::second(self.addresses)
    }

    /// Source port.
    #[inline]
    pub const fn source_port(self) -> u16 {
        let [i, j, ..] = self.wire_ports();
        u16::from_be_bytes([i, j])
    }

    /// Destination port.
    #[inline]
    pub const fn destination_port(self) -> u16 {
        let [.., k, l] = self.wire_ports();
        u16::from_be_bytes([k, l])
    }

    /// The transport protocol.
    #[inline]
    pub const fn protocol(self) -> Protocol {
        self.protocol
    }

    /// The key of the answer: both ends exchanged.
    #[inline]
    pub fn reversed(self) -> Self {
        Self { addresses: A::exchanged(self.addresses), ports: self.ports.rotate_left(16), protocol: self.protocol }
    }
}

impl FlowKey<Ipv4Addr> {
    /// The key in tables that hold flows of both families: its addresses as IPv4-mapped ones.
    pub fn mapped(self) -> FlowKey<Ipv6Addr> {
        let end = |address: Ipv4Addr, port| (address.to_ipv6_mapped(), port);
        let (source, destination) = (self.source(), self.destination());
        FlowKey::new(self.protocol, end(source, self.source_port()), end(destination, self.destination_port()))
    }
}

impl FlowKey<Ipv6Addr> {
    /// The key of a flow of IPv4 that these addresses are mapped from, if both are.
    pub fn unmapped(self) -> Option<FlowKey<Ipv4Addr>> {
        let (source, destination) = (self.source().to_ipv4_mapped()?, self.destination().to_ipv4_mapped()?);
        Some(FlowKey::new(self.protocol, (source, self.source_port()), (destination, self.destination_port())))
    }
}

impl<A: Address> fmt::Debug for FlowKey<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |address: A, port| SocketAddr::new(address.into(), port);
        let (source, destination) =
            (end(self.source(), self.source_port()), end(self.destination(), self.destination_port()));
        write!(f, "{} {source} -> {destination}", self.protocol)
    }
}

/// Which way a packet of a session goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// Client to real server.
    Inbound = 0,
    /// Real server to client.
    Outbound = 1,
}

impl Direction {
    /// The other one.
    #[inline]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Inbound => Self::Outbound,
            Self::Outbound => Self::Inbound,
        }
    }
}

/// The secret of a gateway's hashes: drawn at start, the same in all its workers, so that nobody outside can aim
/// flows at one bucket or one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashSeed(pub [u64; 2]);

/// A well-mixed 64-bit hash of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHash(pub u64);

impl HashSeed {
    /// Hashes a flow.
    #[inline]
    pub fn hash<A: Address>(self, key: &FlowKey<A>) -> FlowHash {
        FlowHash(A::mix(key.addresses, u64::from(key.ports) << 8 | u64::from(key.protocol as u8), self.0))
    }
}

/// The high and low half of a product, combined: every input bit reaches every output bit.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "both halves are taken")]
fn fold_multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl FlowHash {
    /// Maps the hash onto `0..count` by its high half.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the product of two numbers below 2^32, shifted by 32")]
    pub fn reduce(self, count: u32) -> u32 {
        (((self.0 >> 32) * u64::from(count)) >> 32) as u32
    }

    /// 32 bits that [`FlowHash::reduce`] does not use.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the low half is meant")]
    pub fn low_bits(self) -> u32 {
        self.0 as u32
    }

    /// The worker that a client's flow belongs to on ports whose device does not steer flows by itself.
    ///
    /// Taken from other bits than table buckets are, so that each worker fills its whole table.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "below workers, which is a u8")]
    pub fn owner(self, workers: u8) -> WorkerId {
        WorkerId(((u64::from(self.low_bits() >> 8) * u64::from(workers)) >> 24) as u8)
    }
}

/// The worker that a packet to a local address belongs to where RSS does not say: local ports are dealt out to workers in
/// turn. (Receive queues are, too.)
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "a remainder of a u8")]
pub fn local_port_owner(port: u16, workers: u8) -> WorkerId {
    WorkerId((port % u16::from(workers)) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> FlowKey<Ipv4Addr> {
        let source = (Ipv4Addr::from_bits(0x0a00_0000 + (n >> 12)), (n & 0xfff) as u16 + 1024);
        FlowKey::new(Protocol::Tcp, source, (Ipv4Addr::new(10, 1, 2, 3), 80))
    }

    /// Counts how far the fullest of `count` places is from the mean, for keys that differ in few bits.
    fn fullest<A: Address>(count: u32, key: impl Fn(u32) -> FlowKey<A>, place: impl Fn(FlowHash) -> u32) -> f64 {
        let seed = HashSeed([0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344]);
        let mut places = vec![0u32; count as usize];
        let keys = 100_000;
        for n in 0..keys {
            places[place(seed.hash(&key(n))) as usize] += 1;
        }
        f64::from(*places.iter().max().unwrap()) / (f64::from(keys) / f64::from(count))
    }

    #[test]
    fn spreads_similar_flows_evenly() {
        fn even<A: Address>(key: impl Fn(u32) -> FlowKey<A>) {
            assert!(fullest(64, &key, |hash| hash.reduce(64)) < 1.15);
            assert!(fullest(64, &key, |hash| hash.low_bits() & 63) < 1.15);
            for workers in [2, 3, 7] {
                assert!(fullest(workers.into(), &key, |hash| u32::from(hash.owner(workers).0)) < 1.05);
            }
        }
        even(key);
        even(|n| key(n).mapped());
        even(|n| {
            let network = (0x2001_0db8_u128 << 96) + (u128::from(n >> 8) << 64);
            let client = Ipv6Addr::from_bits(network | u128::from(n & 0xff));
            FlowKey::new(Protocol::Udp, (client, 4000), ("2001:db8::64".parse().unwrap(), 53))
        });
    }

    #[test]
    fn keys_stand_as_on_the_wire() {
        let key = FlowKey::new(Protocol::Udp, (Ipv4Addr::new(1, 2, 3, 4), 0x506), (Ipv4Addr::new(7, 8, 9, 10), 0xb0c));
        assert_eq!((key.wire_addresses().to_ne_bytes(), key.wire_ports()), ([1, 2, 3, 4, 7, 8, 9, 10], [5, 6, 11, 12]));
        assert_eq!(format!("{:?}", key.reversed()), "udp 7.8.9.10:2828 -> 1.2.3.4:1286");
        assert_eq!(key.reversed().reversed(), key);
    }

    #[test]
    fn another_seed_gives_another_hash() {
        assert_ne!(HashSeed([1, 2]).hash(&key(7)), HashSeed([1, 3]).hash(&key(7)));
        assert_ne!(HashSeed([1, 2]).hash(&key(7)), HashSeed([3, 2]).hash(&key(7)));
    }

    #[test]
    fn local_ports_are_dealt_out_in_turn() {
        assert_eq!(local_port_owner(1024, 2), WorkerId(0));
        assert_eq!(local_port_owner(1025, 2), WorkerId(1));
        assert_eq!(local_port_owner(65_535, 3), WorkerId(0));
    }
}
