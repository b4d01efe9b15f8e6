//! Numbers found by a hash: an index of fixed size that is at most half full.
//!
//! An entry stands in the first free slot from its home on. Removing one moves those behind it up, so that no marks of
//! removed entries are left, and a look-up costs the same after years of coming and going. What a number stands for is
//! known to the caller alone, who compares.

use pages::{Pages, Region, bytes_for};

use crate::flow::FlowHash;

/// Slots for each entry that the index is made for.
const SLOTS: usize = 2;

/// The index. A slot is 0 if it is free, and otherwise one more than the number that is there.
#[derive(Debug)]
pub(super) struct HashIndex {
    slots: Pages<u32>,
    /// How many slots there are.
    count: u32,
}

impl HashIndex {
    /// Bytes of a region that an index for so many entries takes.
    pub(super) const fn bytes(entries: usize) -> u64 {
        bytes_for::<u32>(entries * SLOTS)
    }

    /// An index for so many entries; none if the region has no room for it.
    pub(super) fn cut(region: &mut Region, entries: usize) -> Option<Self> {
        let count = u32::try_from(entries * SLOTS).ok()?;
        Some(Self { slots: region.cut(entries * SLOTS)?, count })
    }

    fn home(&self, hash: FlowHash) -> usize {
        hash.reduce(self.count) as usize
    }

    fn after(&self, slot: usize) -> usize {
        if slot + 1 == self.slots.len() { 0 } else { slot + 1 }
    }

    /// The first number with this hash's home, or behind it, that `is_it` takes.
    #[inline]
    pub(super) fn find(&self, hash: FlowHash, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut slot = self.home(hash);
        loop {
            let number = self.slots[slot].checked_sub(1)?;
            if is_it(number) {
                return Some(number);
            }
            slot = self.after(slot);
        }
    }

    /// Enters a number that is not there. No more than the index was made for may be in it.
    pub(super) fn insert(&mut self, hash: FlowHash, number: u32) {
        let mut slot = self.home(hash);
        while self.slots[slot] != 0 {
            slot = self.after(slot);
        }
        self.slots[slot] = number + 1;
    }

    /// Removes a number that is there. `hash_of` gives the hash that any number was entered with.
    pub(super) fn remove(&mut self, number: u32, hash_of: impl Fn(u32) -> FlowHash) {
        let mut hole = self.home(hash_of(number));
        while self.slots[hole] != number + 1 {
            hole = self.after(hole);
        }
        let mut slot = hole;
        loop {
            slot = self.after(slot);
            let Some(other) = self.slots[slot].checked_sub(1) else { break };
            // It may move up unless its home is behind the hole.
            if self.distance(self.home(hash_of(other)), slot) >= self.distance(hole, slot) {
                self.slots[hole] = other + 1;
                hole = slot;
            }
        }
        self.slots[hole] = 0;
    }

    /// Steps from one slot on to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots.len() - from }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Hashes are few and far from even, so that entries crowd, pass each other, and go round the end.
        #[test]
        fn equals_a_naive_set(steps in proptest::collection::vec((any::<bool>(), 0u32..24), 1..200), homes in 1u64..32) {
            let hash_of = |number: u32| FlowHash((31 - u64::from(number) * 7 % homes) << 59);
            let mut index = HashIndex::cut(&mut Region::on_heap(HashIndex::bytes(16)), 16).unwrap();
            let mut model = BTreeSet::new();
            for (comes, number) in steps {
                if comes && model.len() < 16 && model.insert(number) {
                    index.insert(hash_of(number), number);
                } else if !comes && model.remove(&number) {
                    index.remove(number, hash_of);
                }
                for number in 0..24 {
                    let found = index.find(hash_of(number), |candidate| candidate == number);
                    prop_assert_eq!(found.is_some(), model.contains(&number));
                }
            }
            for number in model {
                index.remove(number, hash_of);
            }
            prop_assert!(index.slots.iter().all(|&slot| slot == 0));
        }
    }
}
