//! Local ports: which ports of a local address are free towards a real server, in constant time.
//!
//! A local address may use the same port towards many real servers at once, so ports are counted for each *pair* of
//! a local address and a real server's address, port and protocol. A pair keeps its worker's share of the 64k ports
//! as a bit set of three levels; taking the next free one is three look-ups, however many are in use. Ports are
//! taken in turn, so one that is given back rests until all the others have had theirs.
//!
//! A pair's set (8 KB divided by the number of workers) is made at its first session and used again for another pair
//! when this one has been idle for long.

use std::net::Ipv4Addr;

use hashbrown::HashMap;

use super::Tick;
use crate::balance::{PortRange, Protocol};
use crate::port::WorkerId;

/// A local address and a real server that it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// The local address (LIP).
    pub local: Ipv4Addr,
    /// The real server's address.
    pub real: Ipv4Addr,
    /// The real server's port.
    pub real_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// Names a pair's set of ports while any of them is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairIndex(pub u32);

/// Seconds without a session after which a pair's set may serve another pair.
const IDLE_SECONDS: u32 = 600;

/// Pairs that may have sessions at once: one gigabyte of sets over all workers.
pub const MAX_PAIRS: usize = 1 << 17;

/// One worker's local ports.
#[derive(Debug)]
pub struct LocalPorts {
    worker: WorkerId,
    workers: u8,
    by_pair: HashMap<Pair, PairIndex>,
    sets: Vec<PairPorts>,
    /// Sets that no pair has.
    unowned: Vec<PairIndex>,
    /// Where the sweep for idle pairs goes on.
    swept: usize,
}

#[derive(Debug)]
struct PairPorts {
    pair: Pair,
    free: FreeSet,
    /// The share's place to take from next.
    next: u32,
    used: u32,
    /// When the last port was given back.
    idle_since: Tick,
    owned: bool,
}

impl LocalPorts {
    /// The share of one of `workers` workers: ports whose remainder by their number is its own.
    pub fn new(worker: WorkerId, workers: u8) -> Self {
        Self { worker, workers, by_pair: HashMap::new(), sets: Vec::new(), unowned: Vec::new(), swept: 0 }
    }

    /// Takes a free port of the range; none if all are in use, or if this is one pair more than [`MAX_PAIRS`].
    ///
    /// `start` picks where a pair that is met for the first time begins: something unpredictable, so that a restarted
    /// gateway does not at once use the ports that a real server still remembers.
    pub fn allocate(&mut self, pair: Pair, range: PortRange, start: u32) -> Option<(u16, PairIndex)> {
        let (first, last) = self.places(range)?;
        let index = match self.by_pair.get(&pair) {
            Some(&index) => index,
            None => self.own_set(pair, first + start % (last - first + 1))?,
        };
        let set = &mut self.sets[index.0 as usize];
        let from = set.next.clamp(first, last);
        let place = set.free.first_from(from).filter(|&place| place <= last);
        let place = place.or_else(|| set.free.first_from(first).filter(|&place| place <= last))?;
        set.free.take(place);
        set.next = place + 1;
        set.used += 1;
        Some((self.port(place), index))
    }

    /// Gives back a port that [`Self::allocate`] gave.
    pub fn release(&mut self, index: PairIndex, port: u16, now: Tick) {
        let place = u32::from(port) / u32::from(self.workers);
        if let Some(set) = self.sets.get_mut(index.0 as usize) {
            set.free.put(place);
            set.used -= 1;
            set.idle_since = now;
        }
    }

    /// Looks at one pair, and lets its set go if it has been idle for long. To be called now and then.
    pub fn sweep(&mut self, now: Tick) {
        let Some(set) = self.sets.get_mut(self.swept) else {
            self.swept = 0;
            return;
        };
        if set.owned && set.used == 0 && now.since(set.idle_since) > IDLE_SECONDS * Tick::PER_SECOND {
            set.owned = false;
            self.by_pair.remove(&set.pair);
            self.unowned.push(PairIndex(u32::try_from(self.swept).unwrap_or(u32::MAX)));
        }
        self.swept += 1;
    }

    /// The first and last place of this worker's share that lie in a range of ports.
    fn places(&self, range: PortRange) -> Option<(u32, u32)> {
        let (workers, own) = (u32::from(self.workers), u32::from(self.worker.0));
        let first = (u32::from(range.first).saturating_sub(own)).div_ceil(workers);
        let last = u32::from(range.last).checked_sub(own)? / workers;
        (first <= last).then_some((first, last))
    }

    fn port(&self, place: u32) -> u16 {
        u16::try_from(place * u32::from(self.workers) + u32::from(self.worker.0)).unwrap_or(0)
    }

    /// Gives a pair a set of its own; none if there are too many.
    fn own_set(&mut self, pair: Pair, next: u32) -> Option<PairIndex> {
        let index = if let Some(index) = self.unowned.pop() {
            let set = &mut self.sets[index.0 as usize];
            // All its ports are free: it was let go only when none was in use.
            set.pair = pair;
            set.next = next;
            set.owned = true;
            index
        } else if self.sets.len() >= MAX_PAIRS {
            return None;
        } else {
            let free = FreeSet::new((1 << 16) / u32::from(self.workers) + 1);
            self.sets.push(PairPorts { pair, free, next, used: 0, idle_since: Tick(0), owned: true });
            PairIndex(u32::try_from(self.sets.len() - 1).unwrap_or(u32::MAX))
        };
        self.by_pair.insert(pair, index);
        Some(index)
    }
}

/// A set of small numbers as bits, with two levels of summaries over it: a set bit is a free number, and a set bit of
/// a summary is a word below that is not empty. 64^3 numbers at most.
#[derive(Debug)]
struct FreeSet {
    bits: Box<[u64]>,
    words: Box<[u64]>,
    top: u64,
}

impl FreeSet {
    /// All of `0..count` free.
    fn new(count: u32) -> Self {
        let bits = ones(count);
        let words = ones(u32::try_from(bits.len()).unwrap_or(u32::MAX));
        let top = lowest_ones(u32::try_from(words.len()).unwrap_or(u32::MAX));
        Self { bits, words, top }
    }

    fn put(&mut self, number: u32) {
        self.bits[(number >> 6) as usize] |= 1 << (number & 63);
        self.words[(number >> 12) as usize] |= 1 << ((number >> 6) & 63);
        self.top |= 1 << (number >> 12);
    }

    fn take(&mut self, number: u32) {
        let bits = &mut self.bits[(number >> 6) as usize];
        *bits &= !(1 << (number & 63));
        if *bits == 0 {
            let words = &mut self.words[(number >> 12) as usize];
            *words &= !(1 << ((number >> 6) & 63));
            if *words == 0 {
                self.top &= !(1 << (number >> 12));
            }
        }
    }

    /// The lowest free number that is not below `from`.
    fn first_from(&self, from: u32) -> Option<u32> {
        if let Some(bit) = lowest_from(*self.bits.get((from >> 6) as usize)?, from & 63) {
            return Some((from & !63) | bit);
        }
        let word = (from >> 6) + 1;
        if let Some(bit) = self.words.get((word >> 6) as usize).and_then(|&words| lowest_from(words, word & 63)) {
            let word = (word & !63) | bit;
            return Some(word << 6 | self.bits[word as usize].trailing_zeros());
        }
        let top = (word >> 6) + 1;
        let word = lowest_from(self.top, top)?;
        let word = word << 6 | self.words[word as usize].trailing_zeros();
        Some(word << 6 | self.bits[word as usize].trailing_zeros())
    }
}

/// Words that hold `count` bits, those set.
fn ones(count: u32) -> Box<[u64]> {
    let mut words = vec![u64::MAX; count.div_ceil(64) as usize];
    if let Some(last) = words.last_mut().filter(|_| !count.is_multiple_of(64)) {
        *last = lowest_ones(count % 64);
    }
    words.into_boxed_slice()
}

/// A word with the lowest `count` bits set, at most 64.
fn lowest_ones(count: u32) -> u64 {
    u64::MAX.checked_shr(64 - count.min(64)).unwrap_or(0)
}

/// The lowest set bit that is not below `from`.
fn lowest_from(bits: u64, from: u32) -> Option<u32> {
    let rest = bits & u64::MAX.checked_shl(from)?;
    (rest != 0).then(|| rest.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const RANGE: PortRange = PortRange { first: 1024, last: 65_535 };

    fn pair(real_port: u16) -> Pair {
        Pair {
            local: Ipv4Addr::new(10, 1, 0, 200),
            real: Ipv4Addr::new(10, 1, 0, 11),
            real_port,
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn gives_each_port_of_each_share_once_and_then_none() {
        for workers in [1, 2, 3] {
            let mut ports = BTreeSet::new();
            for worker in 0..workers {
                let mut local = LocalPorts::new(WorkerId(worker), workers);
                while let Some((port, _)) = local.allocate(pair(80), RANGE, 12_345) {
                    assert!(ports.insert(port), "port {port} given twice");
                    assert_eq!(crate::flow::local_port_owner(port, workers), WorkerId(worker));
                }
            }
            assert_eq!(ports, (1024..=65_535).collect());
        }
    }

    #[test]
    fn pairs_do_not_share_ports() {
        let mut local = LocalPorts::new(WorkerId(0), 1);
        let range = PortRange { first: 5000, last: 5001 };
        assert!(local.allocate(pair(80), range, 0).is_some() && local.allocate(pair(80), range, 0).is_some());
        assert_eq!(local.allocate(pair(80), range, 0), None);
        assert!(local.allocate(pair(81), range, 0).is_some());
    }

    #[test]
    fn a_port_rests_until_the_others_had_their_turn() {
        let mut local = LocalPorts::new(WorkerId(0), 1);
        let range = PortRange { first: 2000, last: 2009 };
        let (first, index) = local.allocate(pair(80), range, 0).unwrap();
        local.release(index, first, Tick(0));
        let others: Vec<_> = (0..9).map(|_| local.allocate(pair(80), range, 0).unwrap().0).collect();
        assert!(!others.contains(&first));
        assert_eq!(local.allocate(pair(80), range, 0).map(|(port, _)| port), Some(first));
    }

    #[test]
    fn an_idle_pair_makes_room_for_another() {
        let mut local = LocalPorts::new(WorkerId(0), 1);
        let (port, index) = local.allocate(pair(80), RANGE, 0).unwrap();
        let later = Tick(0).plus_seconds(IDLE_SECONDS + 1);
        local.sweep(later);
        assert_eq!(local.by_pair.len(), 1, "in use");
        local.release(index, port, Tick(0));
        local.sweep(later);
        local.sweep(later);
        assert_eq!(local.by_pair.len(), 0);
        assert_eq!(local.allocate(pair(81), RANGE, 0).unwrap().1, index);
        assert_eq!(local.sets.len(), 1);
    }

    proptest! {
        #[test]
        fn free_set_equals_a_naive_set(count in 1u32..70_000, taken in proptest::collection::vec(any::<u32>(), 0..300), from in any::<u32>()) {
            let mut set = FreeSet::new(count);
            let mut gone = BTreeSet::new();
            let from = from % count;
            // Cluster what is taken behind `from`, where it matters.
            for (step, number) in (0u32..).zip(&taken) {
                let number = if step % 2 == 0 { number % count } else { (from + step / 2) % count };
                set.take(number);
                gone.insert(number);
            }
            prop_assert_eq!(set.first_from(from), (from..count).find(|number| !gone.contains(number)));
            for number in gone {
                set.put(number);
            }
            prop_assert_eq!(set.first_from(from), Some(from));
        }

        #[test]
        fn long_runs_of_taken_numbers_are_jumped_over(from in 0u32..60_000, run in 0u32..65_536) {
            let mut set = FreeSet::new(65_536);
            let end = (from + run).min(65_536);
            for number in from..end {
                set.take(number);
            }
            prop_assert_eq!(set.first_from(from), (end < 65_536).then_some(end));
        }
    }
}
