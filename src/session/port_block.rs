//! Blocks: which of 512 neighbouring ports of a pair are in use, in one cache line.
//!
//! A pair has a block only where it has ports in use, so one with few sessions takes a line or two and not the 8 KB
//! that all of its ports would. All blocks are there from the start, and go from pair to pair.

use pages::{Pages, Region, bytes_for};

use super::hash_index::HashIndex;
use super::timer_wheel::NIL;
use crate::flow::FlowHash;

/// Ports of a block.
pub(super) const BLOCK_SIZE: u32 = 512;

const WORDS: u32 = BLOCK_SIZE / 64;

/// A bit for each port in use.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Bits([u64; WORDS as usize]);

/// Whose a block is.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C)]
struct Owner {
    /// The pair; in a free block the next free one.
    pair: u32,
    /// Its place among the pair's blocks.
    number: u16,
    /// Ports in use.
    used: u16,
}

/// A block one of whose ports was marked as free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unmarked {
    /// Whose it is.
    pub(super) pair: u32,
    /// Its place among the pair's blocks.
    pub(super) number: u32,
    /// Ports still in use.
    pub(super) left: u32,
}

/// All blocks of a worker.
#[derive(Debug)]
pub(super) struct PortBlocks {
    bits: Pages<Bits>,
    owners: Pages<Owner>,
    by_owner: HashIndex,
    /// Head of the list of blocks that were given back.
    free: u32,
    /// Blocks from here on were never used.
    fresh: u32,
    used: u32,
}

impl PortBlocks {
    /// Bytes of a region that so many blocks take.
    pub(super) const fn bytes(blocks: usize) -> u64 {
        bytes_for::<Bits>(blocks) + bytes_for::<Owner>(blocks) + HashIndex::bytes(blocks)
    }

    /// So many blocks; none if the region has no room for them.
    pub(super) fn cut(region: &mut Region, blocks: usize) -> Option<Self> {
        let (bits, owners) = (region.cut(blocks)?, region.cut(blocks)?);
        let by_owner = HashIndex::cut(region, blocks)?;
        Some(Self { bits, owners, by_owner, free: NIL, fresh: 0, used: 0 })
    }

    /// Blocks that pairs have, and blocks in all.
    pub(super) fn usage(&self) -> (u32, usize) {
        (self.used, self.bits.len())
    }

    /// A pair's block of this number, if it has one.
    pub(super) fn find(&self, pair: u32, number: u32) -> Option<u32> {
        self.by_owner.find(hash(pair, number), |block| {
            let owner = self.owners[block as usize];
            (owner.pair, u32::from(owner.number)) == (pair, number)
        })
    }

    /// Gives a pair a block of this number, all of whose ports are free; none if there is none.
    pub(super) fn take(&mut self, pair: u32, number: u32) -> Option<u32> {
        let block = if self.free != NIL {
            let block = self.free;
            self.free = self.owners[block as usize].pair;
            block
        } else if (self.fresh as usize) < self.owners.len() {
            self.fresh += 1;
            self.fresh - 1
        } else {
            return None;
        };
        self.owners[block as usize] = Owner { pair, number: u16::try_from(number).unwrap_or(0), used: 0 };
        self.by_owner.insert(hash(pair, number), block);
        self.used += 1;
        Some(block)
    }

    /// Takes a block back, none of whose ports is in use.
    pub(super) fn give_back(&mut self, block: u32) {
        let owners = &self.owners;
        self.by_owner.remove(block, |block| {
            let owner = owners[block as usize];
            hash(owner.pair, owner.number.into())
        });
        self.owners[block as usize].pair = self.free;
        self.free = block;
        self.used -= 1;
    }

    /// Ports of a block in use.
    pub(super) fn in_use(&self, block: u32) -> u32 {
        self.owners[block as usize].used.into()
    }

    /// The first free port of a block from one of its ports on.
    #[inline]
    pub(super) fn first_free(&self, block: u32, from: u32) -> Option<u32> {
        let Bits(words) = &self.bits[block as usize];
        let word = (from / 64) as usize;
        let rest = !words.get(word)? & u64::MAX << (from % 64);
        if rest != 0 {
            return Some((from & !63) | rest.trailing_zeros());
        }
        let after = words.iter().zip(0..).skip(word + 1).find(|&(&word, _)| word != u64::MAX);
        after.map(|(word, number)| number * 64 + word.trailing_ones())
    }

    /// Marks a free port as in use; whether the block is full now.
    #[inline]
    pub(super) fn mark(&mut self, block: u32, port: u32) -> bool {
        self.bits[block as usize].0[(port / 64 % WORDS) as usize] |= 1 << (port % 64);
        let used = &mut self.owners[block as usize].used;
        *used += 1;
        u32::from(*used) == BLOCK_SIZE
    }

    /// Marks a port in use as free; none if there is no such block.
    #[inline]
    pub(super) fn unmark(&mut self, block: u32, port: u32) -> Option<Unmarked> {
        let bits = self.bits.get_mut(block as usize)?;
        let owner = self.owners.get_mut(block as usize)?;
        bits.0[(port / 64 % WORDS) as usize] &= !(1 << (port % 64));
        owner.used -= 1;
        Some(Unmarked { pair: owner.pair, number: owner.number.into(), left: owner.used.into() })
    }
}

/// Numbers are not chosen by anyone outside, so the hash needs no secret.
fn hash(pair: u32, number: u32) -> FlowHash {
    FlowHash((u64::from(pair) << 8 | u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn blocks(count: usize) -> PortBlocks {
        PortBlocks::cut(&mut Region::on_heap(PortBlocks::bytes(count)), count).unwrap()
    }

    #[test]
    fn blocks_go_from_pair_to_pair() {
        let mut blocks = blocks(2);
        let first = blocks.take(7, 3).unwrap();
        let second = blocks.take(7, 4).unwrap();
        assert_eq!(blocks.take(8, 0), None);
        assert_eq!((blocks.find(7, 3), blocks.find(7, 4), blocks.find(8, 3)), (Some(first), Some(second), None));
        blocks.give_back(first);
        assert_eq!(blocks.find(7, 3), None);
        assert_eq!((blocks.take(8, 0), blocks.find(8, 0), blocks.usage()), (Some(first), Some(first), (2, 2)));
    }

    proptest! {
        #[test]
        fn a_block_equals_a_naive_set(steps in proptest::collection::vec((any::<bool>(), 0..BLOCK_SIZE, 0..BLOCK_SIZE), 0..100), run in 0..BLOCK_SIZE) {
            let mut blocks = blocks(1);
            let block = blocks.take(0, 0).unwrap();
            let mut used: BTreeSet<u32> = (0..run).collect();
            for port in 0..run {
                blocks.mark(block, port);
            }
            for (comes, port, from) in steps {
                if comes && used.insert(port) {
                    prop_assert_eq!(blocks.mark(block, port), used.len() == BLOCK_SIZE as usize);
                } else if !comes && used.remove(&port) {
                    let left = blocks.unmark(block, port).unwrap().left;
                    prop_assert_eq!(left as usize, used.len());
                }
                let free = (from..BLOCK_SIZE).find(|port| !used.contains(port));
                prop_assert_eq!(blocks.first_free(block, from), free);
            }
        }
    }
}
