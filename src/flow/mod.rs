//! Flows: the key of a packet's transport conversation, its hash, and which worker it belongs to.

use std::net::Ipv4Addr;

use crate::balance::Protocol;
use crate::port::WorkerId;

/// A packet's addresses and ports as it carries them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
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

/// The secret of a gateway's hashes: drawn at start, the same in all its workers, so that nobody outside can aim
/// flows at one bucket or one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashSeed(pub [u64; 2]);

/// A well-mixed 64-bit hash of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHash(pub u64);

impl HashSeed {
    /// Hashes a flow: two 64-bit words, folded through one 128-bit product each.
    #[inline]
    pub fn hash(self, key: &FlowKey) -> FlowHash {
        let addresses = u64::from(key.source.to_bits()) << 32 | u64::from(key.destination.to_bits());
        let ports =
            u64::from(key.source_port) << 32 | u64::from(key.destination_port) << 16 | u64::from(key.protocol as u8);
        let mixed = fold_multiply(addresses ^ self.0[0], ports ^ self.0[1]);
        // A second product, since a factor of zero in the first would lose the other one whole.
        FlowHash(fold_multiply(mixed ^ self.0[1], (addresses ^ ports.rotate_left(23)) | 1))
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

/// The worker that a packet to a local address belongs to: local ports are dealt out to workers in turn.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "a remainder of a u8")]
pub fn local_port_owner(port: u16, workers: u8) -> WorkerId {
    WorkerId((port % u16::from(workers)) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> FlowKey {
        FlowKey {
            source: Ipv4Addr::from_bits(0x0a00_0000 + (n >> 12)),
            destination: Ipv4Addr::new(10, 1, 2, 3),
            source_port: (n & 0xfff) as u16 + 1024,
            destination_port: 80,
            protocol: Protocol::Tcp,
        }
    }

    /// Counts how far the fullest of `count` places is from the mean, for keys that differ in few bits.
    fn fullest(count: u32, place: impl Fn(FlowHash) -> u32) -> f64 {
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
        assert!(fullest(64, |hash| hash.reduce(64)) < 1.15);
        assert!(fullest(64, |hash| hash.low_bits() & 63) < 1.15);
        for workers in [2, 3, 7] {
            assert!(fullest(workers.into(), |hash| u32::from(hash.owner(workers).0)) < 1.05);
        }
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
