//! The table of templates: which real server the clients of a network stay with, for all workers.
//!
//! It is touched when a persistent session is set up and when it ends. A bucket is a line of tags and the entries that
//! they are for, a line each; its memory is fixed, and nothing is allocated. Who changes a bucket claims it by one
//! exchange, looks at a few lines and lets it go: some hundred nanoseconds. Who finds it claimed looks again some
//! times and then goes without ([`TemplateError::Busy`]), so that no worker ever waits for one that was interrupted.
//! Of two workers that want a template for the same clients at once, one enters it and both get it.
//!
//! Listings claim nothing: the claim's word counts changes, and a copy counts if no change came between.
//!
//! An entry with sessions is never given away: it is found no more once its real server cannot be used (*retired*),
//! and is free when they have ended.

mod bucket;
mod memory;

use std::sync::atomic::Ordering;

use pages::Region;

use self::bucket::{Bucket, Claim, Entry, FREE, RETIRED, split};
use self::memory::{AtomicU32, Buckets, PLACES, bytes_for};
use super::persistence::TemplateKey;
use super::service::RealServerSlot;
use crate::flow::{Address, FlowHash, HashSeed};
use crate::session::Tick;

/// Entries of a bucket on the average when the table holds what it was made for: one in 4,000 clients finds its bucket full then.
const LOAD: u32 = 14;
/// A template whose time is over while it has sessions gets so many seconds more (`ip_vs_conn_expire`).
const EXTENSION_SECONDS: u32 = 60;

/// Where a template stands in its table: never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateIndex(pub u32);

/// A template that a session is being set up by, and that has it among its sessions: each is to be followed by one
/// [`Templates::release`] or [`Templates::retire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// Where it stands.
    pub index: TemplateIndex,
    /// The real server.
    pub server: RealServerSlot,
    /// Where that may stand in its service's list.
    pub position: u32,
}

/// Why there is no template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// There is no room for one more.
    #[error("the table of templates is full")]
    Full,
    /// Another worker is at its bucket for longer than this one waits.
    #[error("another worker is at the templates")]
    Busy,
}

/// A template as it is shown to the outside: a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateView {
    /// Whose it is.
    pub key: TemplateKey,
    /// The real server.
    pub server: RealServerSlot,
    /// When it ends unless it is used, or has sessions.
    pub expires: Tick,
    /// Its sessions.
    pub connections: u32,
    /// Whether one of its sessions was established.
    pub is_assured: bool,
}

/// The templates of a gateway.
#[derive(Debug)]
pub struct Templates {
    buckets: Buckets<Bucket>,
    /// By real-server slot: templates that name it (IPVS's PersistConn).
    persistent: Box<[AtomicU32]>,
    used: AtomicU32,
    /// The workers' time, for who has no clock of theirs.
    now: AtomicU32,
    capacity: u32,
    seed: HashSeed,
}

impl Default for Templates {
    /// None, and no room for any.
    fn default() -> Self {
        Self::new(0, 0, HashSeed([0; 2]))
    }
}

impl Templates {
    /// Bytes of a region that a table for so many templates takes.
    pub fn memory_bytes(capacity: u32) -> u64 {
        bytes_for::<Bucket>(bucket_count(capacity))
    }

    /// An empty table for `capacity` templates to real servers of slots below `slots`, of the heap. Who knows the seed
    /// can aim clients at one bucket.
    pub fn new(capacity: u32, slots: usize, seed: HashSeed) -> Self {
        let mut region = Region::on_heap(Self::memory_bytes(capacity));
        let table = Self::cut(&mut region, capacity, slots, seed);
        table.unwrap_or_else(|| unreachable!("the region is as large as it says"))
    }

    /// The same with memory of a region; none if that has not [`Self::memory_bytes`] left.
    pub fn cut(region: &mut Region, capacity: u32, slots: usize, seed: HashSeed) -> Option<Self> {
        let buckets = memory::cut(region, bucket_count(capacity))?;
        let persistent = memory::words(slots);
        Some(Self { buckets, persistent, used: AtomicU32::new(0), now: AtomicU32::new(0), capacity, seed })
    }

    /// Templates now.
    pub fn len(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The time that a worker has told last.
    pub fn now(&self) -> Tick {
        Tick(self.now.load(Ordering::Relaxed))
    }

    /// A worker tells the time, once a tick or less.
    pub fn tell_time(&self, now: Tick) {
        self.now.store(now.0, Ordering::Relaxed);
    }

    /// Templates that it was made for; some more may fit.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Templates that name a real server.
    pub fn of_real_server(&self, server: RealServerSlot) -> u32 {
        self.persistent.get(server.0 as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// The template of this key, for one more session: it lasts so many seconds from now on.
    ///
    /// # Errors
    /// [`TemplateError::Busy`]
    pub fn find(&self, key: &TemplateKey, timeout_seconds: u32, now: Tick) -> Result<Option<Template>, TemplateError> {
        let (number, tag) = self.home(key);
        let Some(bucket) = self.buckets.get(number) else { return Ok(None) };
        let bucket = bucket.claim().ok_or(TemplateError::Busy)?;
        let Some(place) = bucket.place_of(key, tag) else { return Ok(None) };
        if bucket.is_over(place, now) {
            self.free(&bucket, place);
            return Ok(None);
        }
        Ok(Some(bucket.take(number, place, now.plus_seconds(timeout_seconds))))
    }

    /// Enters a template for a session, unless another worker has entered one of this key meanwhile: that is it then.
    /// `position` is where the real server stands in its service's list.
    ///
    /// # Errors
    /// There is no room, or [`TemplateError::Busy`].
    pub fn enter(
        &self,
        key: &TemplateKey,
        (server, position): (RealServerSlot, u32),
        timeout_seconds: u32,
        now: Tick,
    ) -> Result<Template, TemplateError> {
        let (number, tag) = self.home(key);
        let bucket = self.buckets.get(number).ok_or(TemplateError::Full)?;
        let bucket = bucket.claim().ok_or(TemplateError::Busy)?;
        let end = now.plus_seconds(timeout_seconds);
        match bucket.place_of(key, tag) {
            Some(place) if bucket.is_over(place, now) => self.free(&bucket, place),
            Some(place) => return Ok(bucket.take(number, place, end)),
            None => {}
        }
        let place = self.room(&bucket, now).ok_or(TemplateError::Full)?;
        bucket.0.entries[place].enter(key, server, position);
        bucket.0.tags[place].store(tag, Ordering::Relaxed);
        self.used.fetch_add(1, Ordering::Relaxed);
        if let Some(persistent) = self.persistent.get(server.0 as usize) {
            persistent.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bucket.take(number, place, end))
    }

    /// A session of a template has ended, or was not set up after all.
    pub fn release(&self, index: TemplateIndex) {
        if let Some(entry) = self.entry(index) {
            entry.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A session of a template is established (`ip_vs_control_assure_ct`).
    pub fn assure(&self, index: TemplateIndex) {
        if let Some(entry) = self.entry(index) {
            entry.assured.store(1, Ordering::Relaxed);
        }
    }

    /// A template's real server stands somewhere else in its service's list.
    pub fn set_position(&self, index: TemplateIndex, position: u32) {
        if let Some(entry) = self.entry(index) {
            entry.position.store(position, Ordering::Relaxed);
        }
    }

    /// A template's real server cannot be used: no session finds it again. The one that it was found for is none of its
    /// sessions any more.
    pub fn retire(&self, index: TemplateIndex) {
        let (number, place) = split(index);
        let claimed = self.buckets.get(number).and_then(Bucket::claim);
        // Where another worker is at it: who finds it next tries again.
        if let Some(bucket) = claimed
            && bucket.0.tag(place) > RETIRED
        {
            bucket.0.tags[place].store(RETIRED, Ordering::Relaxed);
            bucket.see_again(Tick(1));
            self.uncount(&bucket.0.entries[place]);
        }
        self.release(index);
    }

    /// Buckets that there are to [sweep](Self::sweep) and to [look at](Self::views).
    pub fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Frees a bucket's templates whose time is over. Those that have sessions get a minute more.
    pub fn sweep(&self, bucket: usize, now: Tick) {
        let Some(bucket) = self.buckets.get(bucket) else { return };
        let earliest = bucket.earliest.load(Ordering::Relaxed);
        if earliest == 0 || earliest > now.0 {
            return;
        }
        let Some(bucket) = bucket.claim() else { return };
        bucket.0.earliest.store(0, Ordering::Relaxed);
        for place in (0..PLACES).filter(|&place| bucket.0.tag(place) != FREE) {
            if bucket.is_over(place, now) {
                self.free(&bucket, place);
            } else if bucket.0.tag(place) == RETIRED {
                bucket.see_again(now.plus_seconds(1));
            } else {
                let expires = &bucket.0.entries[place].expires;
                if expires.load(Ordering::Relaxed) <= now.0 {
                    expires.store(now.plus_seconds(EXTENSION_SECONDS).0, Ordering::Relaxed);
                }
                bucket.see_again(Tick(expires.load(Ordering::Relaxed)));
            }
        }
    }

    /// Copies a bucket's templates for showing; those whose time is over, and that are not swept yet, are left out. So is
    /// a bucket that is changed all the time.
    pub fn views(&self, bucket: usize, now: Tick, into: &mut Vec<TemplateView>) {
        let Some(bucket) = self.buckets.get(bucket) else { return };
        let before = into.len();
        bucket.views(into);
        let is_shown = |view: &TemplateView| view.expires > now || view.connections > 0;
        let mut at = before;
        while let Some(view) = into.get(at) {
            if is_shown(view) { at += 1 } else { _ = into.swap_remove(at) }
        }
    }

    /// Where a key's bucket is, and its tag.
    fn home(&self, key: &TemplateKey) -> (usize, u16) {
        let [a, b, c, d, rest] = key.words;
        let hash = FlowHash(std::net::Ipv6Addr::mix([a, b, c, d], rest, self.seed.0));
        let buckets = u32::try_from(self.buckets.len()).unwrap_or(u32::MAX);
        #[allow(clippy::cast_possible_truncation, reason = "the low bits are meant")]
        let tag = hash.low_bits() as u16;
        (hash.reduce(buckets) as usize, if tag > RETIRED { tag } else { tag + RETIRED + 1 })
    }

    fn entry(&self, index: TemplateIndex) -> Option<&Entry> {
        let (number, place) = split(index);
        self.buckets.get(number)?.entries.get(place)
    }

    /// A free place of a bucket, or one whose template is over.
    fn room(&self, bucket: &Claim<'_>, now: Tick) -> Option<usize> {
        let free = (0..PLACES).find(|&place| bucket.0.tag(place) == FREE);
        free.or_else(|| {
            let place = (0..PLACES).find(|&place| bucket.is_over(place, now))?;
            self.free(bucket, place);
            Some(place)
        })
    }

    fn free(&self, bucket: &Claim<'_>, place: usize) {
        if bucket.0.tag(place) > RETIRED {
            self.uncount(&bucket.0.entries[place]);
        }
        bucket.0.tags[place].store(FREE, Ordering::Relaxed);
    }

    fn uncount(&self, entry: &Entry) {
        self.used.fetch_sub(1, Ordering::Relaxed);
        if let Some(persistent) = self.persistent.get(entry.server.load(Ordering::Relaxed) as usize) {
            persistent.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn bucket_count(capacity: u32) -> usize {
    capacity.div_ceil(LOAD) as usize
}

#[cfg(all(test, interleave))]
mod interleaved;
#[cfg(all(test, not(interleave)))]
mod tests;
