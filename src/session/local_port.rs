//! Local ports: which ports of a local address are free towards a real server, in constant time.
//!
//! A local address may use the same port towards many real servers at once, so ports are counted for each *pair* of
//! a local address and a real server's address, port and protocol. A worker's share of a pair's ports is divided into
//! blocks of 512 (see `port_block`); a pair has those in which ports are in use, and knows which of all are full.
//! Taking the next free port looks at one block, or at that and the next one that is not full, however many are in
//! use. Ports are taken in turn, so one that is given back rests until all the others have had theirs.
//!
//! Pairs and blocks are as many as the sessions of the table need (see [`Room`]), and there from the start. A pair keeps
//! its place and the block that it takes ports from while it has sessions and for some time after.

use std::net::Ipv4Addr;

use pages::{Pages, Region, bytes_for};

use super::Tick;
use super::hash_index::HashIndex;
use super::port_block::{BLOCK_SIZE, PortBlocks, Unmarked};
use super::timer_wheel::NIL;
use crate::balance::{PortRange, Protocol};
use crate::flow::FlowHash;
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

/// Names the part of a pair's ports that a port was taken from, while any of that part is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairIndex(pub u32);

/// Seconds without a session after which another pair may have a pair's place.
const IDLE_SECONDS: u32 = 600;
/// The same while places are scarce: about as long as real servers remember a connection.
const IDLE_SECONDS_SCARCE: u32 = 60;
/// Pairs that one sweep looks at while places are scarce.
const SWEPT_SCARCE: u32 = 16;

/// How many pairs may have sessions or have had them lately, and how many blocks they may have.
///
/// 10,000 services of ten real servers through four addresses are 400,000 pairs. One with its block takes 136 bytes:
/// with a pair for every sixth session, and a few blocks more for those whose sessions are spread, 26 bytes a session;
/// and no more than a million, since a larger table has more sessions a pair and not more pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Pairs.
    pub pairs: usize,
    /// Blocks of 512 ports of one pair.
    pub blocks: usize,
}

impl Room {
    /// The least pairs, however few sessions.
    const LEAST_PAIRS: usize = 4096;
    /// The most pairs, however many sessions.
    const MOST_PAIRS: usize = 1 << 20;

    /// What a table of so many sessions gets.
    pub fn for_sessions(sessions: u32) -> Self {
        let sessions = sessions as usize;
        let pairs = (sessions / 6).clamp(Self::LEAST_PAIRS, Self::MOST_PAIRS);
        Self { pairs, blocks: pairs + sessions / 32 }
    }

    /// Bytes of a region that this takes.
    pub const fn bytes(self) -> u64 {
        bytes_for::<PairPorts>(self.pairs) + HashIndex::bytes(self.pairs) + PortBlocks::bytes(self.blocks)
    }
}

/// One worker's local ports.
#[derive(Debug)]
pub struct LocalPorts {
    /// This worker's number, and how many there are.
    worker: u32,
    workers: u32,
    pairs: Pages<PairPorts>,
    by_pair: HashIndex,
    blocks: PortBlocks,
    /// Head of the list of places that pairs have left.
    free: u32,
    /// Places from here on were never used.
    fresh: u32,
    owned: u32,
    /// Where the sweep for idle pairs goes on.
    swept: u32,
}

/// A pair as it is compared and hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Zeroable)]
#[repr(C)]
struct PairKey {
    local: u32,
    real: u32,
    port_and_protocol: u32,
}

impl PairKey {
    /// The key in a place that no pair has: no protocol has number 0.
    const NOBODY: Self = Self { local: 0, real: 0, port_and_protocol: 0 };

    fn new(pair: &Pair) -> Self {
        Self {
            local: u32::from_ne_bytes(pair.local.octets()),
            real: u32::from_ne_bytes(pair.real.octets()),
            port_and_protocol: u32::from(pair.real_port) << 8 | u32::from(pair.protocol as u8),
        }
    }

    /// Pairs are the operator's choice, nobody's outside: the hash needs no secret.
    #[allow(clippy::cast_possible_truncation, reason = "both halves are taken")]
    fn hash(self) -> FlowHash {
        let first = u64::from(self.local) << 32 | u64::from(self.real);
        let second = u64::from(self.port_and_protocol) ^ 0x9e37_79b9_7f4a_7c15;
        let product = u128::from(first ^ 0xbf58_476d_1ce4_e5b9) * u128::from(second);
        FlowHash(product as u64 ^ (product >> 64) as u64)
    }
}

#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C)]
struct PairPorts {
    /// A bit for each block all of whose ports are in use.
    full: [u64; 2],
    key: PairKey,
    /// The share's place to take from next; in a place that no pair has the next such place.
    next: u32,
    used: u32,
    /// When the last port was given back.
    idle_since: Tick,
    /// The block that the last port was taken from; kept when empty. [`NIL`]: none.
    block: u32,
    /// That block's number, or [`NIL`].
    block_number: u32,
}

impl PairPorts {
    /// The first block from a number on that is not full, whether the pair has it or not.
    fn first_not_full(&self, number: u32) -> Option<u32> {
        let [low, high] = self.full;
        let not_full = !(u128::from(high) << 64 | u128::from(low)) & u128::MAX.checked_shl(number)?;
        (not_full != 0).then(|| not_full.trailing_zeros())
    }

    fn set_full(&mut self, number: u32, full: bool) {
        let word = &mut self.full[(number / 64) as usize];
        *word = *word & !(1 << (number % 64)) | u64::from(full) << (number % 64);
    }
}

/// A free port, by its place in the worker's share, and the block that it is in if the pair has that.
#[derive(Clone, Copy, Debug)]
struct Spot {
    place: u32,
    block: Option<u32>,
}

impl LocalPorts {
    /// The share of one of `workers` workers: ports whose remainder by their number is its own. With room for the
    /// pairs of `sessions` sessions, of the heap.
    pub fn new(worker: WorkerId, workers: u8, sessions: u32) -> Self {
        let room = Room::for_sessions(sessions);
        let cut = Self::cut(&mut Region::on_heap(room.bytes()), room, worker, workers);
        cut.unwrap_or_else(|| unreachable!("the region is as large as it says"))
    }

    /// The same with memory of a region; none if that has not [`Room::bytes`] left.
    pub fn cut(region: &mut Region, room: Room, worker: WorkerId, workers: u8) -> Option<Self> {
        let pairs = region.cut(room.pairs)?;
        let by_pair = HashIndex::cut(region, room.pairs)?;
        let blocks = PortBlocks::cut(region, room.blocks)?;
        let (worker, workers) = (worker.0.into(), workers.into());
        Some(Self { worker, workers, pairs, by_pair, blocks, free: NIL, fresh: 0, owned: 0, swept: 0 })
    }

    /// Takes a free port of the range; none if all are in use, or if there is no place for one more pair or block.
    ///
    /// `start` picks where a pair that is met for the first time begins: something unpredictable, so that a restarted
    /// gateway does not at once use the ports that a real server still remembers.
    pub fn allocate(&mut self, pair: Pair, range: PortRange, start: u32) -> Option<(u16, PairIndex)> {
        let (first, last) = self.places(range)?;
        let key = PairKey::new(&pair);
        let pair = match self.by_pair.find(key.hash(), |pair| self.pairs[pair as usize].key == key) {
            Some(pair) => pair,
            None => self.own_place(key, first + start % (last - first + 1))?,
        };
        // The last one has had its turn where the next is behind it.
        let from = self.pairs[pair as usize].next.max(first);
        let from = if from > last { first } else { from };
        let (place, block) = match self.ahead_in_current(pair, from, last) {
            Some(found) => found,
            None => self.elsewhere(pair, from, first, last)?,
        };
        let set = &mut self.pairs[pair as usize];
        if self.blocks.mark(block, place % BLOCK_SIZE) {
            set.set_full(place / BLOCK_SIZE, true);
        }
        set.next = place + 1;
        set.used += 1;
        Some((self.port(place), PairIndex(block)))
    }

    /// Gives back a port that [`Self::allocate`] gave.
    pub fn release(&mut self, index: PairIndex, port: u16, now: Tick) {
        let place = u32::from(port) / self.workers;
        let Some(Unmarked { pair, number, left }) = self.blocks.unmark(index.0, place % BLOCK_SIZE) else { return };
        let set = &mut self.pairs[pair as usize];
        set.used -= 1;
        set.idle_since = now;
        if left == BLOCK_SIZE - 1 {
            set.set_full(number, false);
        }
        if left == 0 && set.block != index.0 {
            self.blocks.give_back(index.0);
        }
    }

    /// Looks at a pair, or a few where places are scarce, and lets go of what has been idle for long. To be called
    /// now and then.
    pub fn sweep(&mut self, now: Tick) {
        let scarce = self.owned as usize > self.pairs.len() / 8 * 7;
        let (count, seconds) = if scarce { (SWEPT_SCARCE, IDLE_SECONDS_SCARCE) } else { (1, IDLE_SECONDS) };
        for _pair in 0..count.min(self.fresh) {
            let pair = self.swept;
            self.swept = if pair + 1 >= self.fresh { 0 } else { pair + 1 };
            let set = &self.pairs[pair as usize];
            if set.key != PairKey::NOBODY && set.used == 0 && now.since(set.idle_since) > seconds * Tick::PER_SECOND {
                self.leave_place(pair);
            }
        }
    }

    /// The larger part of pairs and blocks that is in use, in thousandths: at 1000 new pairs are refused.
    pub fn fullness_permille(&self) -> u64 {
        let permille = |used: u32, all: usize| u64::from(used) * 1000 / (all as u64).max(1);
        let (blocks, all_blocks) = self.blocks.usage();
        permille(self.owned, self.pairs.len()).max(permille(blocks, all_blocks))
    }

    /// The first and last place of this worker's share that lie in a range of ports.
    fn places(&self, range: PortRange) -> Option<(u32, u32)> {
        let first = (u32::from(range.first).saturating_sub(self.worker)).div_ceil(self.workers);
        let last = u32::from(range.last).checked_sub(self.worker)? / self.workers;
        (first <= last).then_some((first, last))
    }

    fn port(&self, place: u32) -> u16 {
        u16::try_from(place * self.workers + self.worker).unwrap_or(0)
    }

    /// The first free place from one on in the block that the pair took its last port from, if that is where it is.
    #[inline]
    fn ahead_in_current(&self, pair: u32, from: u32, last: u32) -> Option<(u32, u32)> {
        let set = &self.pairs[pair as usize];
        if set.block_number != from / BLOCK_SIZE {
            return None;
        }
        let place = (from & !(BLOCK_SIZE - 1)) | self.blocks.first_free(set.block, from % BLOCK_SIZE)?;
        (place <= last).then_some((place, set.block))
    }

    /// The next free place of a pair from one on, or from the range's beginning on, in another block than the current
    /// one or beyond that one's end. Its block is the current one from here on.
    #[cold]
    fn elsewhere(&mut self, pair: u32, from: u32, first: u32, last: u32) -> Option<(u32, u32)> {
        let spot = self.free_from(pair, from, last).or_else(|| self.free_from(pair, first, last))?;
        let number = spot.place / BLOCK_SIZE;
        let Some(block) = spot.block.or_else(|| self.blocks.take(pair, number)) else {
            return self.free_in_current(pair, first, last);
        };
        let set = &mut self.pairs[pair as usize];
        let before = std::mem::replace(&mut set.block, block);
        set.block_number = number;
        if before != block && before != NIL && self.blocks.in_use(before) == 0 {
            self.blocks.give_back(before);
        }
        Some((spot.place, block))
    }

    /// The first free place of a pair from one on, up to `last`, which is not below `from`.
    fn free_from(&self, pair: u32, from: u32, last: u32) -> Option<Spot> {
        let number = from / BLOCK_SIZE;
        let Some(block) = self.blocks.find(pair, number) else { return Some(Spot { place: from, block: None }) };
        if let Some(port) = self.blocks.first_free(block, from % BLOCK_SIZE) {
            let place = number * BLOCK_SIZE + port;
            return (place <= last).then_some(Spot { place, block: Some(block) });
        }
        let number = self.pairs[pair as usize].first_not_full(number + 1)?;
        let block = self.blocks.find(pair, number);
        let port = block.map_or(Some(0), |block| self.blocks.first_free(block, 0))?;
        let place = number * BLOCK_SIZE + port;
        (place <= last).then_some(Spot { place, block })
    }

    /// A free place in the block that the pair took its last port from: where there is no further block to be had, ports
    /// rest for less long than they could, but there are some.
    fn free_in_current(&self, pair: u32, first: u32, last: u32) -> Option<(u32, u32)> {
        let set = &self.pairs[pair as usize];
        let block = Some(set.block).filter(|&block| block != NIL)?;
        let start = set.block_number * BLOCK_SIZE;
        let place = start + self.blocks.first_free(block, first.saturating_sub(start))?;
        (place <= last).then_some((place, block))
    }

    /// Gives a pair a place of its own; none if there are too many.
    #[cold]
    fn own_place(&mut self, key: PairKey, next: u32) -> Option<u32> {
        let pair = if self.free != NIL {
            let pair = self.free;
            self.free = self.pairs[pair as usize].next;
            pair
        } else if (self.fresh as usize) < self.pairs.len() {
            self.fresh += 1;
            self.fresh - 1
        } else {
            return None;
        };
        self.pairs[pair as usize] =
            PairPorts { full: [0; 2], key, next, used: 0, idle_since: Tick(0), block: NIL, block_number: NIL };
        self.by_pair.insert(key.hash(), pair);
        self.owned += 1;
        Some(pair)
    }

    /// Takes the place from a pair none of whose ports is in use.
    fn leave_place(&mut self, pair: u32) {
        let block = self.pairs[pair as usize].block;
        if block != NIL {
            self.blocks.give_back(block);
        }
        let pairs = &self.pairs;
        self.by_pair.remove(pair, |pair| pairs[pair as usize].key.hash());
        let set = &mut self.pairs[pair as usize];
        set.key = PairKey::NOBODY;
        set.next = self.free;
        self.free = pair;
        self.owned -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;

    const SESSIONS: u32 = 10_000;
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
                let mut local = LocalPorts::new(WorkerId(worker), workers, SESSIONS);
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
        let mut local = LocalPorts::new(WorkerId(0), 1, SESSIONS);
        let range = PortRange { first: 5000, last: 5001 };
        assert!(local.allocate(pair(80), range, 0).is_some() && local.allocate(pair(80), range, 0).is_some());
        assert_eq!(local.allocate(pair(80), range, 0), None);
        assert!(local.allocate(pair(81), range, 0).is_some());
    }

    #[test]
    fn a_port_rests_until_the_others_had_their_turn() {
        let mut local = LocalPorts::new(WorkerId(0), 1, SESSIONS);
        let range = PortRange { first: 2000, last: 2009 };
        let (first, index) = local.allocate(pair(80), range, 0).unwrap();
        local.release(index, first, Tick(0));
        let others: Vec<_> = (0..9).map(|_| local.allocate(pair(80), range, 0).unwrap().0).collect();
        assert!(!others.contains(&first));
        assert_eq!(local.allocate(pair(80), range, 0).map(|(port, _)| port), Some(first));
    }

    #[test]
    fn an_idle_pair_makes_room_for_another() {
        let mut local = LocalPorts::new(WorkerId(0), 1, SESSIONS);
        let (port, index) = local.allocate(pair(80), RANGE, 0).unwrap();
        let later = Tick(0).plus_seconds(IDLE_SECONDS + 1);
        local.sweep(later);
        assert_eq!(local.owned, 1, "in use");
        local.release(index, port, Tick(0));
        local.sweep(later);
        local.sweep(later);
        assert_eq!((local.owned, local.blocks.usage().0), (0, 0));
        assert_eq!(local.allocate(pair(81), RANGE, 0).unwrap().1, index);
        assert_eq!(local.fresh, 1);
    }

    /// Pairs and blocks by the dozen instead of by the thousand.
    fn small(pairs: usize, blocks: usize, workers: u8) -> LocalPorts {
        let room = Room { pairs, blocks };
        LocalPorts::cut(&mut Region::on_heap(room.bytes()), room, WorkerId(0), workers).unwrap()
    }

    #[test]
    fn a_pair_that_is_nearly_full_finds_its_last_port_wherever_that_is() {
        let mut local = LocalPorts::new(WorkerId(0), 1, SESSIONS);
        let mut taken: Vec<_> = (0..64_512).map(|_| local.allocate(pair(80), RANGE, 777).unwrap()).collect();
        assert_eq!(local.allocate(pair(80), RANGE, 777), None);
        for last in [0, 511, 512, 30_000, 64_511] {
            let (port, index) = taken[last];
            local.release(index, port, Tick(0));
            taken[last] = local.allocate(pair(80), RANGE, 777).unwrap();
            assert_eq!(taken[last], (port, index));
            assert_eq!(local.allocate(pair(80), RANGE, 777), None);
        }
        for (port, index) in taken {
            local.release(index, port, Tick(0));
        }
        assert_eq!(local.blocks.usage().0, 1, "the pair keeps one block");
    }

    #[test]
    fn memory_is_bounded_and_its_end_is_no_panic() {
        let mut local = small(4, 4, 1);
        let held: Vec<_> = (0..4).map(|port| local.allocate(pair(port), RANGE, 0).unwrap()).collect();
        assert_eq!(local.fullness_permille(), 1000);
        assert_eq!(local.allocate(pair(4), RANGE, 0), None, "a fifth pair");
        // Beyond its block, a pair goes on within it.
        let (port, index) =
            local.allocate(pair(0), PortRange { first: 5000, last: 6000 }, 0).unwrap_or((0, PairIndex(0)));
        assert_eq!((port, index), (0, PairIndex(0)), "its block is not in that range");
        let mut all: Vec<_> = std::iter::from_fn(|| local.allocate(pair(0), RANGE, 0)).collect();
        assert_eq!(all.len(), 511, "all of its one block");
        let (port, index) = all.swap_remove(100);
        local.release(index, port, Tick(0));
        assert_eq!(local.allocate(pair(0), RANGE, 0), Some((port, index)));
        // Places that are scarce are left sooner.
        local.release(held[3].1, held[3].0, Tick(0));
        local.sweep(Tick(0).plus_seconds(IDLE_SECONDS_SCARCE + 1));
        assert!(local.allocate(pair(4), RANGE, 0).is_some());
    }

    #[test]
    fn room_is_at_most_26_bytes_a_session() {
        for sessions in [100_000, 1 << 20, 16_000_000, 1 << 27] {
            assert!(Room::for_sessions(sessions).bytes() <= 26 * u64::from(sessions), "{sessions}");
        }
        assert_eq!(size_of::<PairPorts>(), 48);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take { pair: u16, times: u32 },
        GiveBack { which: usize, times: u32 },
        Idle { seconds: u32 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0u16..6, 1u32..1500).prop_map(|(pair, times)| Step::Take { pair, times }),
            3 => (any::<usize>(), 1u32..1500).prop_map(|(which, times)| Step::GiveBack { which, times }),
            1 => (1u32..2000).prop_map(|seconds| Step::Idle { seconds }),
        ]
    }

    /// What a pair must do: the ports in use, and where it goes on.
    #[derive(Default)]
    struct Naive {
        used: BTreeSet<u16>,
        next: u32,
        idle_since: u32,
    }

    impl Naive {
        /// The first free port of the share from `next` on, or from the range's beginning on.
        fn take(&mut self, range: PortRange, workers: u8) -> Option<u16> {
            let own = |port: &u16| port.is_multiple_of(u16::from(workers)) && !self.used.contains(port);
            let from = u16::try_from(self.next).unwrap_or(u16::MAX).max(range.first);
            let ahead = if self.next > range.last.into() { None } else { (from..=range.last).find(own) };
            let port = ahead.or_else(|| (range.first..=range.last).find(own))?;
            self.used.insert(port);
            self.next = u32::from(port) + 1;
            Some(port)
        }
    }

    proptest! {
        /// Local ports are a set of ports for each pair, taken in turn, whatever is done in whatever order; a pair
        /// that was idle for long begins anew.
        #[test]
        fn equal_a_naive_model(
            steps in proptest::collection::vec(step(), 1..40),
            workers in 1u8..4,
            first in 1u16..5000,
            width in 1u16..4000,
        ) {
            let range = PortRange { first, last: first + width };
            let mut local = small(64, 64, workers);
            let mut model: HashMap<u16, Naive> = HashMap::new();
            let mut held: Vec<(u16, u16, PairIndex)> = Vec::new();
            let mut now = Tick(0);
            for step in steps {
                match step {
                    Step::Take { pair: name, times } => for _ in 0..times {
                        let naive = model.entry(name).or_default();
                        let taken = local.allocate(pair(name), range, 0);
                        prop_assert_eq!(taken.map(|(port, _)| port), naive.take(range, workers));
                        let Some((port, index)) = taken else { break };
                        held.push((name, port, index));
                    },
                    Step::GiveBack { which, times } => for _ in 0..times.min(u32::try_from(held.len()).unwrap()) {
                        let (name, port, index) = held.swap_remove(which % held.len());
                        local.release(index, port, now);
                        let naive = model.get_mut(&name).unwrap();
                        prop_assert!(naive.used.remove(&port));
                        naive.idle_since = now.0;
                    },
                    Step::Idle { seconds } => {
                        now = now.plus_seconds(seconds);
                        for _ in 0..64 { local.sweep(now); }
                        model.retain(|_, naive| {
                            !naive.used.is_empty() || now.0 - naive.idle_since <= IDLE_SECONDS * Tick::PER_SECOND
                        });
                    }
                }
                prop_assert_eq!(local.owned as usize, model.len());
                let blocks: usize = model.values().map(|naive| {
                    let in_use = naive.used.iter().map(|port| port / u16::from(workers) / 512);
                    in_use.collect::<BTreeSet<_>>().len()
                }).sum();
                // Beyond those with ports in use, a pair keeps one.
                prop_assert!((blocks..=blocks + model.len()).contains(&(local.blocks.usage().0 as usize)));
            }
        }
    }
}
