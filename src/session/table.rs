//! The session table: a fixed array of records, and one index for both directions.
//!
//! The index is an array of buckets of one cache line: ten short tags and ten references. A flow's home bucket is
//! given by its hash; where that is full, its entry goes to one of the next few buckets, and the home counts how many
//! have gone. So a look-up reads one line of the index unless its home has overflowed, there are no tombstones, the
//! table never rehashes, and an insert that finds no room within the bound is refused. With two entries a session
//! and five a bucket on the average when full, three homes in a hundred overflow.
//!
//! Memory is 64 bytes a record, 128 for IPv6, and 25.6 a session for the index: 90 bytes a session in all, or 154, cut
//! from one region.

use pages::{Pages, Region, bytes_for};
use prefetch::prefetch;
use wide::u16x16;

use super::record::Session;
use super::timer_wheel::{self, NIL, TimerWheel};
use super::{SessionView, Tick};
use crate::flow::{Address, Direction, FlowHash, FlowKey, HashSeed};

/// Entries in a bucket.
const BUCKET_SIZE: usize = 10;
/// Entries in a bucket on the average when the table is full.
const BUCKET_LOAD: usize = 5;
/// Buckets that an entry may be in, counted from its home.
const PROBES: u32 = 8;

/// One cache line of the index.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Bucket {
    /// 0: free.
    tags: [u16; BUCKET_SIZE],
    /// How many entries have this bucket as home and are elsewhere.
    overflowed: u16,
    unused: u16,
    /// Record index, shifted left by one, and the direction in the lowest bit.
    references: [u32; BUCKET_SIZE],
}

impl Bucket {
    /// A bit for each place whose tag is this one: half the line is compared at once, what is no tag masked off.
    #[inline]
    fn places(&self, tag: u16) -> u32 {
        let [front, _]: [u16x16; 2] = bytemuck::cast(*self);
        front.simd_eq(u16x16::splat(tag)).to_bitmask() & ((1 << BUCKET_SIZE) - 1)
    }

    /// What [`Bucket::places`] must be.
    #[cfg(test)]
    fn places_one_by_one(&self, tag: u16) -> u32 {
        (0..BUCKET_SIZE).fold(0, |places, place| places | u32::from(self.tags[place] == tag) << place)
    }
}

/// Where a session stands in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionIndex(u32);

/// A look-up's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The session.
    pub index: SessionIndex,
    /// Which way the packet goes in it.
    pub direction: Direction,
}

impl Found {
    /// No session: what an array of them begins with.
    pub const NONE: Self = Self { index: SessionIndex(NIL), direction: Direction::Inbound };
}

/// The session that a flow most likely belongs to, or none: what [`SessionTable::candidate`] found by a hash alone.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// As in a bucket; none has all bits set, which names no record.
    reference: u32,
}

impl Candidate {
    /// None.
    pub const NONE: Self = Self { reference: u32::MAX };
}

/// Sessions whose end has come, with what is needed to remove them. Removed they must be, each by
/// [`SessionTable::remove_expired`], before anything else is done to their table.
#[derive(Debug)]
pub struct Expired {
    sessions: [ExpiredSession; timer_wheel::STEP],
    count: usize,
    looked_at: usize,
    more: bool,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct ExpiredSession {
    index: u32,
    hashes: [FlowHash; 2],
}

impl Expired {
    fn none() -> Self {
        let session = ExpiredSession { index: NIL, hashes: [FlowHash(0); 2] };
        Self { sessions: [session; timer_wheel::STEP], count: 0, looked_at: 0, more: false }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Sessions that were looked at to find them.
    pub fn looked_at(&self) -> u32 {
        u32::try_from(self.looked_at).unwrap_or(u32::MAX)
    }

    /// Whether there may be more.
    pub fn more(&self) -> bool {
        self.more
    }
}

impl IntoIterator for Expired {
    type Item = ExpiredSession;
    type IntoIter = std::iter::Take<std::array::IntoIter<ExpiredSession, { timer_wheel::STEP }>>;

    fn into_iter(self) -> Self::IntoIter {
        self.sessions.into_iter().take(self.count)
    }
}

/// No free record, or no room in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFull;

/// One worker's sessions.
#[derive(Debug)]
pub struct SessionTable<A: Address> {
    sessions: Pages<Session<A>>,
    buckets: Pages<Bucket>,
    bucket_count: u32,
    seed: HashSeed,
    wheel: TimerWheel,
    /// Head of the list of freed records.
    free: u32,
    /// Records from here on were never used.
    fresh: u32,
    used: u32,
}

impl<A: Address> SessionTable<A> {
    /// The most sessions that a table can be made for: a reference has 31 bits for its record.
    pub const MAX_CAPACITY: u32 = 1 << 30;

    /// Bytes of a region that a table for `capacity` sessions takes.
    pub fn memory_bytes(capacity: u32) -> u64 {
        bytes_for::<Session<A>>(capacity as usize) + bytes_for::<Bucket>(bucket_count(capacity))
    }

    /// An empty table for `capacity` sessions, at least one and at most [`Self::MAX_CAPACITY`], of the heap.
    pub fn new(capacity: u32, seed: HashSeed, now: Tick) -> Self {
        let capacity = capacity.clamp(1, Self::MAX_CAPACITY);
        let table = Self::cut(&mut Region::on_heap(Self::memory_bytes(capacity)), capacity, seed, now);
        table.unwrap_or_else(|| unreachable!("the region is as large as it says"))
    }

    /// The same with memory of a region; none if that has not [`Self::memory_bytes`] left.
    pub fn cut(region: &mut Region, capacity: u32, seed: HashSeed, now: Tick) -> Option<Self> {
        let bucket_count = bucket_count(capacity);
        Some(Self {
            sessions: region.cut(capacity as usize)?,
            buckets: region.cut(bucket_count)?,
            bucket_count: u32::try_from(bucket_count).unwrap_or(u32::MAX),
            seed,
            wheel: TimerWheel::new(now),
            free: NIL,
            fresh: 0,
            used: 0,
        })
    }

    /// The hash by which a flow is looked up.
    #[inline]
    pub fn hash(&self, key: &FlowKey<A>) -> FlowHash {
        self.seed.hash(key)
    }

    /// Sessions in the table.
    pub fn len(&self) -> u32 {
        self.used
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Whether there is no record left.
    pub fn is_full(&self) -> bool {
        self.used == self.capacity()
    }

    /// Sessions that fit.
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.sessions.len()).unwrap_or(u32::MAX)
    }

    /// Has the index line of a flow's home loaded: the first step of a look-up over a burst.
    #[inline]
    pub fn prefetch(&self, hash: FlowHash) {
        if let Some(bucket) = self.buckets.get(hash.reduce(self.bucket_count) as usize) {
            prefetch(bucket);
        }
    }

    /// The first session in a flow's home that has its tag, whose record is loaded: the second step.
    #[inline]
    pub fn candidate(&self, hash: FlowHash) -> Candidate {
        let Some(bucket) = self.buckets.get(hash.reduce(self.bucket_count) as usize) else { return Candidate::NONE };
        let places = bucket.places(tag(hash));
        let Some(&reference) = bucket.references.get(places.trailing_zeros() as usize) else { return Candidate::NONE };
        if let Some(session) = self.sessions.get(dereference(reference).0 as usize) {
            prefetch(session);
        }
        Candidate { reference }
    }

    /// The candidate, if it is the packet's session: the third step. If it is not, another one may still be: see
    /// [`Self::find`].
    #[inline]
    pub fn confirm(&self, candidate: Candidate, key: &FlowKey<A>) -> Option<Found> {
        self.is_of(candidate.reference, key)
    }

    /// The session that a packet belongs to, wherever it stands.
    pub fn find(&self, hash: FlowHash, key: &FlowKey<A>) -> Option<Found> {
        let home = hash.reduce(self.bucket_count);
        for probe in 0..PROBES {
            let bucket = self.buckets.get(self.probe(home, probe))?;
            let mut places = bucket.places(tag(hash));
            while let Some(&reference) = bucket.references.get(places.trailing_zeros() as usize) {
                if let Some(found) = self.is_of(reference, key) {
                    return Some(found);
                }
                places &= places - 1;
            }
            if probe == 0 && bucket.overflowed == 0 {
                return None;
            }
        }
        None
    }

    #[inline]
    fn is_of(&self, reference: u32, key: &FlowKey<A>) -> Option<Found> {
        let (index, direction) = dereference(reference);
        let session = self.sessions.get(index as usize)?;
        session.has_key(direction, key).then_some(Found { index: SessionIndex(index), direction })
    }

    /// The bucket so many after `home`, past the end at the front again.
    fn probe(&self, home: u32, probe: u32) -> usize {
        (home as usize + probe as usize) % self.buckets.len()
    }

    /// The session of an index that [`Self::find`] or [`Self::insert`] gave and that was not removed since.
    #[inline]
    pub fn session(&self, index: SessionIndex) -> &Session<A> {
        &self.sessions[index.0 as usize]
    }

    /// The same, to change. Its end is changed with [`Self::set_end`] only.
    #[inline]
    pub fn session_mut(&mut self, index: SessionIndex) -> &mut Session<A> {
        &mut self.sessions[index.0 as usize]
    }

    /// Adds a session that ends at `expires`. Neither of the keys that it is found by may be in the table: both, or in
    /// modes DR and TUN the inbound one alone.
    pub fn insert(&mut self, session: Session<A>, expires: Tick) -> Result<SessionIndex, TableFull> {
        self.insert_hashed(session, self.hashes(&session), expires)
    }

    /// The same where the hashes of its keys, inbound and outbound, are known.
    pub fn insert_hashed(
        &mut self,
        mut session: Session<A>,
        [inbound, outbound]: [FlowHash; 2],
        expires: Tick,
    ) -> Result<SessionIndex, TableFull> {
        let index = self.take_record().ok_or(TableFull)?;
        session.expires = expires;
        self.sessions[index as usize] = session;
        if !self.index_direction(index, Direction::Inbound, inbound) {
            self.give_record_back(index);
            return Err(TableFull);
        }
        if !session.mode().is_one_way() && !self.index_direction(index, Direction::Outbound, outbound) {
            self.unindex_direction(index, Direction::Inbound, inbound);
            self.give_record_back(index);
            return Err(TableFull);
        }
        self.wheel.file(&mut self.sessions, index);
        self.used += 1;
        Ok(SessionIndex(index))
    }

    /// Removes a session and gives what it was.
    pub fn remove(&mut self, index: SessionIndex) -> Session<A> {
        let hashes = self.hashes(&self.sessions[index.0 as usize]);
        self.remove_expired(ExpiredSession { index: index.0, hashes })
    }

    /// Removes a session that [`Self::expired`] has given, and gives what it was.
    pub fn remove_expired(
        &mut self,
        ExpiredSession { index, hashes: [inbound, outbound] }: ExpiredSession,
    ) -> Session<A> {
        self.wheel.unfile(&mut self.sessions, index);
        self.unindex_direction(index, Direction::Inbound, inbound);
        let session = self.sessions[index as usize];
        if !session.mode().is_one_way() {
            self.unindex_direction(index, Direction::Outbound, outbound);
        }
        self.give_record_back(index);
        self.used -= 1;
        session
    }

    /// Has loaded what [`Self::remove`] will read and write besides the record and its inbound entry, which the look-up
    /// has read.
    #[inline(never)]
    pub fn prefetch_removal(&self, index: SessionIndex) {
        let session = self.session(index);
        self.prefetch(self.seed.hash(&session.key(Direction::Outbound)));
        // A link that names a slot, or none, is no index of a record.
        for neighbour in [session.next, session.previous] {
            if let Some(neighbour) = self.sessions.get(neighbour as usize) {
                prefetch(neighbour);
            }
        }
    }

    fn hashes(&self, session: &Session<A>) -> [FlowHash; 2] {
        [Direction::Inbound, Direction::Outbound].map(|direction| self.seed.hash(&session.key(direction)))
    }

    /// Lets a session end at `expires`: a store, unless that is sooner than before.
    #[inline]
    pub fn set_end(&mut self, index: SessionIndex, expires: Tick) {
        let session = &mut self.sessions[index.0 as usize];
        let sooner = expires < session.expires;
        session.expires = expires;
        if sooner {
            self.refile(index.0);
        }
    }

    #[cold]
    fn refile(&mut self, index: u32) {
        self.wheel.unfile(&mut self.sessions, index);
        self.wheel.file(&mut self.sessions, index);
    }

    /// Whether there is a session to be looked at for its end by `now`, or may be.
    #[inline]
    pub fn is_due(&self, now: Tick) -> bool {
        self.wheel.is_due(now)
    }

    /// Some of the sessions whose end has come by `now`, with their index lines on the way. Looks at a few only; the next
    /// call goes on from there.
    pub fn expired(&mut self, now: Tick) -> Expired {
        let due = self.wheel.due(&mut self.sessions, now);
        let mut sessions = [ExpiredSession { index: NIL, hashes: [FlowHash(0); 2] }; timer_wheel::STEP];
        for (expired, &index) in sessions.iter_mut().zip(&due.sessions[..due.count]) {
            let hashes = self.hashes(&self.sessions[index as usize]);
            hashes.into_iter().for_each(|hash| self.prefetch(hash));
            *expired = ExpiredSession { index, hashes };
        }
        Expired { sessions, count: due.count, looked_at: due.looked_at, more: due.more }
    }

    /// Looks at up to `steps` records, at most 16, from `next` on and at the end of the table from its beginning again, for
    /// sessions that `ends` says are to end: gives where to go on, and these, as [`Self::expired`] does.
    pub fn pick(&self, next: u32, steps: u32, ends: impl Fn(&Session<A>) -> bool) -> (u32, Expired) {
        let steps = steps.min(self.fresh).min(u32::try_from(timer_wheel::STEP).unwrap_or(u32::MAX));
        let mut found = Expired::none();
        let mut index = next;
        for _ in 0..steps {
            if index >= self.fresh {
                index = 0;
            }
            let session = &self.sessions[index as usize];
            if session.is_used() && ends(session) {
                let hashes = self.hashes(session);
                hashes.into_iter().for_each(|hash| self.prefetch(hash));
                found.sessions[found.count] = ExpiredSession { index, hashes };
                found.count += 1;
            }
            index += 1;
        }
        found.looked_at = steps as usize;
        (index, found)
    }

    /// Copies sessions for showing: looks at up to `steps` records from `next` on, and puts those in use into `into`
    /// while that has capacity. Gives where to go on; none at the end.
    pub fn walk(&self, next: u32, steps: u32, now: Tick, into: &mut Vec<SessionView>) -> Option<u32> {
        let end = self.fresh.min(next.saturating_add(steps));
        for index in next..end {
            if into.len() == into.capacity() {
                return Some(index);
            }
            let session = &self.sessions[index as usize];
            if session.is_used() {
                into.push(session.view(now));
            }
        }
        (end < self.fresh).then_some(end)
    }

    fn take_record(&mut self) -> Option<u32> {
        if self.free != NIL {
            let index = self.free;
            self.free = self.sessions[index as usize].next;
            return Some(index);
        }
        let index = self.fresh;
        (index < self.capacity()).then(|| {
            self.fresh += 1;
            index
        })
    }

    fn give_record_back(&mut self, index: u32) {
        let session = &mut self.sessions[index as usize];
        session.protocol = 0;
        session.next = self.free;
        self.free = index;
    }

    /// Enters one direction of a session; false if no bucket within the bound has room.
    fn index_direction(&mut self, index: u32, direction: Direction, hash: FlowHash) -> bool {
        let home = hash.reduce(self.bucket_count);
        for probe in 0..PROBES {
            let at = self.probe(home, probe);
            let bucket = &mut self.buckets[at];
            let free = bucket.places(0).trailing_zeros() as usize;
            if let (Some(free_tag), Some(free_reference)) = (bucket.tags.get_mut(free), bucket.references.get_mut(free))
            {
                *free_tag = tag(hash);
                *free_reference = index << 1 | direction as u32;
                self.buckets[home as usize].overflowed += u16::from(probe > 0);
                return true;
            }
        }
        false
    }

    /// Takes one direction of a session out of the index.
    fn unindex_direction(&mut self, index: u32, direction: Direction, hash: FlowHash) {
        let home = hash.reduce(self.bucket_count);
        let reference = index << 1 | direction as u32;
        for probe in 0..PROBES {
            let at = self.probe(home, probe);
            let bucket = &mut self.buckets[at];
            let places = bucket.places(tag(hash));
            let mut places = (0..BUCKET_SIZE).filter(|place| places & 1 << place != 0);
            if let Some(place) = places.find(|&place| bucket.references[place] == reference) {
                bucket.tags[place] = 0;
                self.buckets[home as usize].overflowed -= u16::from(probe > 0);
                return;
            }
        }
    }
}

/// Buckets of the index of a table for `capacity` sessions, each with two entries; below 2^30.
fn bucket_count(capacity: u32) -> usize {
    (capacity as usize * 2).div_ceil(BUCKET_LOAD)
}

/// The tag of a hash: 16 bits that `reduce` gives little weight to, never 0.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "16 of its bits are meant")]
fn tag(hash: FlowHash) -> u16 {
    (hash.low_bits() as u16) | 1
}

#[inline]
fn dereference(reference: u32) -> (u32, Direction) {
    (reference >> 1, if reference & 1 == 0 { Direction::Inbound } else { Direction::Outbound })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::balance::{ForwardingMode, Protocol, RealServerSlot};

    const SEED: HashSeed = HashSeed([0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9]);

    fn session(client: u32) -> Session<Ipv4Addr> {
        let source = (Ipv4Addr::from_bits(0x0a00_0000 + client / 50_000), (client % 50_000) as u16);
        let flow = FlowKey::new(Protocol::Tcp, source, (Ipv4Addr::new(192, 0, 2, 1), 80));
        let local = (Ipv4Addr::from_bits(0xc0a8_0000 + client / 50_000), (client % 50_000) as u16);
        let real = (Ipv4Addr::new(10, 1, 0, 1), 80);
        Session::new(ForwardingMode::Fullnat, &flow, local, real, RealServerSlot(client))
    }

    fn find(table: &SessionTable<Ipv4Addr>, session: &Session<Ipv4Addr>, direction: Direction) -> Option<Found> {
        let key = session.key(direction);
        table.find(table.hash(&key), &key)
    }

    #[test]
    fn a_bucket_is_one_cache_line() {
        assert_eq!(size_of::<Bucket>(), 64);
    }

    #[test]
    fn fills_to_its_whole_capacity_and_no_further() {
        let capacity = 20_000;
        let mut table = SessionTable::new(capacity, SEED, Tick(0));
        for client in 0..capacity {
            table.insert(session(client), Tick(100)).unwrap();
        }
        assert_eq!(table.insert(session(capacity), Tick(100)), Err(TableFull));
        for client in 0..capacity {
            let inbound = find(&table, &session(client), Direction::Inbound).unwrap();
            assert_eq!(table.session(inbound.index).real_server(), RealServerSlot(client));
            let outbound = find(&table, &session(client), Direction::Outbound).unwrap();
            assert_eq!((outbound.index, outbound.direction), (inbound.index, Direction::Outbound));
        }
        for client in 0..capacity {
            let found = find(&table, &session(client), Direction::Inbound).unwrap();
            table.remove(found.index);
        }
        assert!(table.is_empty());
        assert!(table.buckets.iter().all(|bucket| bucket.tags == [0; BUCKET_SIZE] && bucket.overflowed == 0));
    }

    #[test]
    fn walks_over_all_sessions_in_steps() {
        let mut table = SessionTable::new(1000, SEED, Tick(0));
        let indices: Vec<_> = (0..900).map(|client| table.insert(session(client), Tick(100)).unwrap()).collect();
        for index in indices.iter().step_by(3) {
            table.remove(*index);
        }
        let (mut next, mut seen) = (Some(0), 0);
        while let Some(from) = next {
            let mut views = Vec::with_capacity(64);
            next = table.walk(from, 100, Tick(0), &mut views);
            seen += views.len();
            assert!(views.iter().all(|view| view.expires_seconds == 10));
        }
        assert_eq!(seen, 600);
    }

    #[test]
    fn picks_each_once_in_a_round() {
        let mut table = SessionTable::new(1000, SEED, Tick(0));
        assert_eq!(table.pick(7, 16, |_| true).1.count(), 0);
        for client in 0..100 {
            table.insert(session(client), Tick(100)).unwrap();
        }
        let is_odd = |session: &Session<Ipv4Addr>| session.real_server().0 % 2 == 1;
        let (mut next, mut picked) = (37, Vec::new());
        for _step in 0..7 {
            let (goes_on, found) = table.pick(next, 16, is_odd);
            next = goes_on;
            picked.extend(found.into_iter().map(|found| table.remove_expired(found).real_server().0));
        }
        picked.sort_unstable();
        assert_eq!(picked, (0..100).filter(|client| client % 2 == 1).collect::<Vec<_>>());
        assert_eq!(table.len(), 50);
        assert!((0..100).step_by(2).all(|client| find(&table, &session(client), Direction::Inbound).is_some()));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert { client: u32, timeout: u32 },
        Remove { client: u32 },
        Touch { client: u32, timeout: u32 },
        Pass { ticks: u32 },
    }

    fn step() -> impl Strategy<Value = Step> {
        // Timeouts beyond one turn of the wheel, and moments beyond several, must come out right too.
        let timeout = prop_oneof![0u32..50, 100u32..20_000, 16_000u32..60_000];
        prop_oneof![
            4 => (0u32..200, timeout.clone()).prop_map(|(client, timeout)| Step::Insert { client, timeout }),
            1 => (0u32..200).prop_map(|client| Step::Remove { client }),
            3 => (0u32..200, timeout).prop_map(|(client, timeout)| Step::Touch { client, timeout }),
            3 => prop_oneof![1u32..5, 10u32..2_000, 10_000u32..40_000].prop_map(|ticks| Step::Pass { ticks }),
        ]
    }

    proptest! {
        /// Comparing all tags at once gives what comparing one after the other does. Tags are few, so that they meet.
        #[test]
        fn a_bucket_finds_each_tag_and_no_other(
            tags in proptest::array::uniform10(prop_oneof![0u16..4, 0x7ffe_u16..=0x8001, Just(0xffff)]),
            beside in 0u16..4,
            tag in prop_oneof![0u16..4, 0x7ffe_u16..=0x8001, Just(0xffff)],
        ) {
            let references = [u32::from(tag) << 16 | u32::from(tag); BUCKET_SIZE];
            let bucket = Bucket { tags, overflowed: beside, unused: beside, references };
            prop_assert_eq!(bucket.places(tag), bucket.places_one_by_one(tag));
        }

        /// The table is a map from client to end of session, whatever is done to it in whatever order.
        #[test]
        fn equals_a_naive_model(steps in proptest::collection::vec(step(), 1..200)) {
            let capacity = 100;
            let mut table = SessionTable::new(capacity, SEED, Tick(0));
            let mut model: HashMap<u32, Tick> = HashMap::new();
            let mut now = Tick(0);
            for step in steps {
                match step {
                    Step::Insert { client, timeout } if !model.contains_key(&client) => {
                        let result = table.insert(session(client), now.plus(timeout));
                        prop_assert_eq!(result.is_ok(), model.len() < capacity as usize);
                        if result.is_ok() {
                            model.insert(client, now.plus(timeout));
                        }
                    }
                    Step::Insert { .. } => {}
                    Step::Remove { client } => {
                        let found = find(&table, &session(client), Direction::Outbound);
                        prop_assert_eq!(found.is_some(), model.remove(&client).is_some());
                        if let Some(found) = found {
                            table.remove(found.index);
                        }
                    }
                    Step::Touch { client, timeout } => {
                        if let Some(found) = find(&table, &session(client), Direction::Inbound) {
                            table.set_end(found.index, now.plus(timeout));
                            model.insert(client, now.plus(timeout));
                        }
                    }
                    Step::Pass { ticks } => {
                        now = now.plus(ticks);
                        // Steps, as many as it takes: expiry in parts must lose nothing.
                        loop {
                            let expired = table.expired(now);
                            let more = expired.more();
                            prop_assert!(expired.looked_at() <= 16);
                            for expired in expired {
                                let gone = table.remove_expired(expired);
                                let end = model.remove(&gone.real_server().0);
                                prop_assert!(end.is_some_and(|end| end <= now));
                            }
                            if !more { break; }
                        }
                        prop_assert!(model.values().all(|&end| end > now));
                    }
                }
                prop_assert_eq!(table.len() as usize, model.len());
                for client in 0..200 {
                    let found = find(&table, &session(client), Direction::Inbound);
                    prop_assert_eq!(found.is_some(), model.contains_key(&client));
                }
            }
        }
    }
}
