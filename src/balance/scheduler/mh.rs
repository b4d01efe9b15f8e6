//! Maglev hashing (net/netfilter/ipvs/ip_vs_mh.c; Eisenbud et al., "Maglev", NSDI 2016, 3.4): each real server goes through
//! the table in an order of its own, and they take free slots in turn, as many a turn as their weights say. So a removed
//! real server's slots are dealt out to the others, and most of theirs stay as they are.
//!
//! Weights are the kernel's: those last set that were not 0, so that draining one real server moves no client of another;
//! divided by their greatest common divisor, and halved until the greatest is below 64 (for a table of 4,093).
//!
//! Unlike in the kernel the table does not depend on the order in which real servers were added (they take turns in the
//! order of their addresses), so that all gateways with the same real servers, weights and secret have the same one; the
//! hash is keyed (`secret`); and a table with fewer slots than real servers is made larger.

use super::buckets::Candidate;
use super::secret::{HashSecret, Purpose};
use super::wrr::greatest_common_divisor;

/// Sizes of the table, by IPVS's index less 8.
const SIZES: [u32; 10] = [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071];

/// What a table's size may be: IPVS's CONFIG_IP_VS_MH_TAB_INDEX.
pub const TABLE_INDICES: std::ops::RangeInclusive<u32> = 8..=17;

/// One real server on its way through the table.
struct Walker {
    server: u32,
    /// Slots that it takes a turn.
    turns: u32,
    at: u32,
    skip: u32,
}

/// By slot, the index of a real server; empty where none has a weight.
pub(super) fn buckets(candidates: &[Candidate], secret: HashSecret, table_index: u8) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let size = size(table_index, candidates.len());
    let mut walkers = walkers(candidates, secret, size, table_index);
    if walkers.is_empty() {
        return Vec::new();
    }
    let mut slots = vec![FREE; size as usize];
    let mut free = slots.len();
    loop {
        for walker in &mut walkers {
            for _turn in 0..walker.turns {
                // The size is a prime: every step leads through all slots.
                while slots[walker.at as usize] != FREE {
                    walker.at = (walker.at + walker.skip) % size;
                }
                slots[walker.at as usize] = walker.server;
                free -= 1;
                if free == 0 {
                    return slots;
                }
            }
        }
    }
}

/// The configured size, or the next one that has a slot for each real server.
fn size(table_index: u8, servers: usize) -> u32 {
    let [.., largest] = SIZES;
    let from = usize::from(table_index.saturating_sub(8));
    let sizes = SIZES.get(from..).unwrap_or_default();
    sizes.iter().copied().find(|&size| size as usize >= servers).unwrap_or(largest)
}

/// The real servers that have a weight, in the order of their addresses.
fn walkers(candidates: &[Candidate], secret: HashSecret, size: u32, table_index: u8) -> Vec<Walker> {
    let weights = || candidates.iter().map(|candidate| i64::from(candidate.last_weight.0));
    let divisor = weights().fold(0, greatest_common_divisor).max(1);
    let greatest = weights().max().unwrap_or(0) / divisor;
    let shift = (i64::BITS - greatest.leading_zeros()).saturating_sub(u32::from(table_index / 2));
    let mut sorted: Vec<(&Candidate, u32)> = candidates.iter().zip(0..).collect();
    sorted.sort_unstable_by_key(|(candidate, _)| candidate.address);
    let walker = |(candidate, server): (&Candidate, u32)| {
        let address = (candidate.address.ip(), candidate.address.port());
        let hash = |purpose, below: u32| secret.hash(purpose, address, 0) % u64::from(below);
        let turns = (i64::from(candidate.last_weight.0) / divisor) >> shift;
        Walker {
            server,
            turns: u32::try_from(turns).unwrap_or(u32::MAX).max(1),
            at: u32::try_from(hash(Purpose::Offset, size)).unwrap_or(0),
            skip: u32::try_from(hash(Purpose::Skip, size - 1)).unwrap_or(0) + 1,
        }
    };
    sorted.into_iter().filter(|(candidate, _)| candidate.last_weight.0 > 0).map(walker).collect()
}
