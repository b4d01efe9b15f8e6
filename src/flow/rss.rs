//! What a device's RSS deals to each worker, where its key and its redirection table are known.
//!
//! So the worker that a packet will arrive at can be computed beforehand: a FULLNAT session takes a local port whose
//! answers come back to its own worker. The hash is linear: what the addresses and the real server's port add is
//! computed once a session, and each local port that is considered adds two look-ups, an XOR and a look into the table.
//!
//! Invariant: a deal gives each worker something. It never changes: all workers share one for as long as they run.

use std::net::IpAddr;

use super::toeplitz::{KeyTooShort, Toeplitz};
use super::{Address, FlowKey};
use crate::port::WorkerId;

/// Bytes of the longest key that a driver has asked for so far is 52; the hash of IPv6 needs 40.
const KEY_LEN: usize = 64;
/// Entries of the redirection table for which a drawn key is good: the size that most NICs have, or a part of it.
const GOOD_ENTRIES: u32 = 128;
/// Keys that are drawn at most. More than half of all are good.
const DRAWS: usize = 100;

/// The key of a gateway's devices: drawn at start, so that nobody outside can aim flows at one worker, and the same for
/// all of them, so that a flow that comes by another port comes to the same worker.
#[derive(Clone, Copy, Debug)]
pub struct RssKey([u8; KEY_LEN]);

impl RssKey {
    /// Draws a key from a source of random words, one by which 256 local ports side by side reach every entry of a
    /// table alike: so each worker finds ports of its own in any such stretch.
    pub fn draw(mut random: impl FnMut() -> u64) -> Self {
        let mut key = Self([0; KEY_LEN]);
        for _ in 0..DRAWS {
            for word in key.0.as_chunks_mut::<8>().0 {
                *word = random().to_ne_bytes();
            }
            if key.reaches_all() {
                break;
            }
        }
        key
    }

    /// As many of its bytes as a device takes, or all.
    pub fn bytes(&self, count: usize) -> &[u8] {
        self.0.get(..count).unwrap_or(&self.0)
    }

    fn reaches_all(&self) -> bool {
        let Ok(toeplitz) = Toeplitz::new(&self.0) else { return false };
        let entries = (0..256).map(|port| toeplitz.destination_port_v4(port) % GOOD_ENTRIES);
        let reached = entries.fold(0_u128, |reached, entry| reached | 1 << entry);
        reached == u128::MAX
    }
}

/// Why a device's RSS is of no use for choosing local ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableRss {
    /// A key that is not long enough.
    #[error(transparent)]
    Key(#[from] KeyTooShort),
    /// A table whose entry is not simply the hash's low bits.
    #[error("its redirection table has {0} entries, which is no power of two")]
    TableSize(usize),
    /// A worker without a receive queue.
    #[error("its redirection table has nothing for worker {}", .0.0)]
    Idle(WorkerId),
}

/// Which worker gets what.
#[derive(Debug)]
pub struct RssDeal {
    toeplitz: Toeplitz,
    /// By entry of the redirection table.
    workers: Box<[WorkerId]>,
    /// Of the hash, to an entry.
    mask: u32,
}

/// What all but the local port adds to the hash of a session's answers.
#[derive(Clone, Copy, Debug)]
pub struct AnswerHash {
    hash: u32,
    ipv4: bool,
}

impl RssDeal {
    /// The deal of a device with this key and this redirection table, whose receive queues are dealt to `workers` in
    /// turn.
    pub fn new(key: &[u8], table: &[u16], workers: u8) -> Result<Self, UnusableRss> {
        let toeplitz = Toeplitz::new(key)?;
        let mask = u32::try_from(table.len()).ok().filter(|entries| entries.is_power_of_two());
        let mask = mask.ok_or(UnusableRss::TableSize(table.len()))? - 1;
        let owner = |queue: &u16| super::local_port_owner(*queue, workers);
        let owners: Box<[WorkerId]> = table.iter().map(owner).collect();
        match (0..workers).map(WorkerId).find(|worker| !owners.contains(worker)) {
            Some(worker) => Err(UnusableRss::Idle(worker)),
            None => Ok(Self { toeplitz, workers: owners, mask }),
        }
    }

    /// The worker that a TCP or UDP packet arrives at.
    #[inline]
    pub fn owner<A: Address>(&self, key: &FlowKey<A>) -> WorkerId {
        let answers = self.answers(key.source(), key.source_port(), key.destination());
        self.owner_of_port(answers, key.destination_port())
    }

    /// What the answers of this real server to this local address have in common. What is IPv4-mapped comes as IPv4.
    #[inline]
    pub fn answers<A: Address>(&self, real_server: A, port: u16, local: A) -> AnswerHash {
        match (real_server.into().to_canonical(), local.into().to_canonical()) {
            (IpAddr::V4(real_server), IpAddr::V4(local)) => {
                let hash = self.toeplitz.addresses_v4(real_server, local) ^ self.toeplitz.source_port_v4(port);
                AnswerHash { hash, ipv4: true }
            }
            (real_server, local) => {
                let [real_server, local] = [real_server, local].map(|address| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                    IpAddr::V6(address) => address,
                });
                let hash = self.toeplitz.addresses_v6(real_server, local) ^ self.toeplitz.source_port_v6(port);
                AnswerHash { hash, ipv4: false }
            }
        }
    }

    /// The worker that those to this local port arrive at.
    #[inline]
    pub fn owner_of_port(&self, answers: AnswerHash, local_port: u16) -> WorkerId {
        let port = match answers.ipv4 {
            true => self.toeplitz.destination_port_v4(local_port),
            false => self.toeplitz.destination_port_v6(local_port),
        };
        let hash = answers.hash ^ port;
        // The mask keeps the index within the table.
        self.workers.get((hash & self.mask) as usize).copied().unwrap_or(WorkerId(0))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::balance::Protocol;

    fn key(seed: u64) -> RssKey {
        let mut state = seed;
        RssKey::draw(|| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            state ^ state >> 29
        })
    }

    fn table(entries: u16, queues: u16) -> Vec<u16> {
        (0..entries).map(|entry| entry % queues).collect()
    }

    #[test]
    fn owners_are_those_of_the_verification_suite() {
        // The first row of Microsoft's suite: 66.9.149.187:2794 -> 161.142.100.80:1766 hashes to 0x51ccc178.
        let suite = [
            0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca,
            0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b,
            0xbe, 0xac, 0x01, 0xfa,
        ];
        let deal = RssDeal::new(&suite, &table(128, 7), 7).unwrap();
        let (source, destination) = (Ipv4Addr::new(66, 9, 149, 187), Ipv4Addr::new(161, 142, 100, 80));
        let flow = FlowKey::new(Protocol::Tcp, (source, 2794), (destination, 1766));
        assert_eq!(deal.owner(&flow), WorkerId((0x51cc_c178_u32 % 128 % 7) as u8));
    }

    #[test]
    fn a_drawn_key_gives_each_worker_ports_in_every_stretch() {
        for seed in 0..50 {
            let deal = RssDeal::new(key(seed).bytes(40), &table(128, 16), 16).unwrap();
            let answers = deal.answers(Ipv4Addr::new(10, 1, 0, 11), 80, Ipv4Addr::new(10, 1, 0, 200));
            for worker in (0..16).map(WorkerId) {
                let own = (0x4000..0x4100).filter(|&port| deal.owner_of_port(answers, port) == worker).count();
                assert_eq!(own, 16, "worker {worker:?}, seed {seed}");
            }
        }
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let key = key(1);
        let error =
            |bytes, table: &[u16], workers| RssDeal::new(key.bytes(bytes), table, workers).unwrap_err().to_string();
        assert_eq!(
            error(39, &table(128, 2), 2),
            "an RSS key of 39 bytes is too short for IPv6; allowed: 40 bytes or more"
        );
        assert_eq!(error(40, &table(100, 2), 2), "its redirection table has 100 entries, which is no power of two");
        assert_eq!(error(40, &[], 2), "its redirection table has 0 entries, which is no power of two");
        assert_eq!(error(52, &table(128, 2), 3), "its redirection table has nothing for worker 2");
    }

    #[test]
    fn queues_beyond_the_workers_are_dealt_on() {
        let deal = RssDeal::new(key(3).bytes(52), &table(64, 4), 2).unwrap();
        assert!(deal.workers.iter().zip(0u8..).all(|(&worker, entry)| worker == WorkerId(entry % 2)));
    }

    proptest! {
        /// However the hash is put together, it names the same worker.
        #[test]
        fn a_port_and_a_packet_have_the_same_owner(
            source in any::<u32>(), local in any::<u32>(), ports in any::<(u16, u16)>(), seed in any::<u64>(),
            workers in 1u8..40,
        ) {
            let (source, local) = (Ipv4Addr::from_bits(source), Ipv4Addr::from_bits(local));
            let deal = RssDeal::new(key(seed).bytes(52), &table(512, workers.into()), workers).unwrap();
            let packet = FlowKey::new(Protocol::Udp, (source, ports.0), (local, ports.1));
            let answers = deal.answers(source, ports.0, local);
            prop_assert_eq!(deal.owner(&packet), deal.owner_of_port(answers, ports.1));
            prop_assert_eq!(deal.owner(&packet.mapped()), deal.owner(&packet), "what is mapped comes as IPv4");
            let hash = deal.toeplitz.hash_v4(source, local, ports.0, ports.1);
            prop_assert_eq!(deal.owner(&packet), deal.workers[(hash & deal.mask) as usize]);
        }

        /// The same over IPv6.
        #[test]
        fn a_port_and_a_packet_of_ipv6_have_the_same_owner(
            source in any::<u128>(), local in any::<u128>(), ports in any::<(u16, u16)>(), seed in any::<u64>(),
        ) {
            let (source, local) = (Ipv6Addr::from_bits(source | 1 << 127), Ipv6Addr::from_bits(local | 1 << 127));
            let deal = RssDeal::new(key(seed).bytes(52), &table(512, 7), 7).unwrap();
            let packet = FlowKey::new(Protocol::Udp, (source, ports.0), (local, ports.1));
            let hash = deal.toeplitz.hash_v6(source, local, ports.0, ports.1);
            prop_assert_eq!(deal.owner(&packet), deal.workers[(hash & deal.mask) as usize]);
        }
    }
}
