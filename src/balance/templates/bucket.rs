//! A bucket of the table of templates: who changes it claims it for a moment; who only looks makes a copy, which counts
//! if no change came between.

use std::sync::atomic::Ordering;

use super::memory::{AtomicU16, AtomicU32, AtomicU64, COPIES, PATIENCE, PLACES, fence, spin_loop};
use super::{Template, TemplateIndex, TemplateView};
use crate::balance::persistence::TemplateKey;
use crate::balance::service::RealServerSlot;
use crate::session::Tick;

/// The tag of a place without a template; no hash's.
pub(super) const FREE: u16 = 0;
/// That of a template whose real server cannot be used, with sessions yet; no hash's.
pub(super) const RETIRED: u16 = 1;

/// A line of tags, and the entries that they are for.
#[derive(Debug)]
#[cfg_attr(not(all(test, interleave)), derive(bytemuck::Zeroable))]
#[cfg_attr(all(test, interleave), derive(Default))]
#[repr(C, align(64))]
pub(super) struct Bucket {
    /// Odd: claimed. Grows by two with each claim.
    pub(super) sequence: AtomicU32,
    /// No entry's time is over before this tick; 0: there is nothing to look for.
    pub(super) earliest: AtomicU32,
    pub(super) tags: [AtomicU16; PLACES],
    pub(super) entries: [Entry; PLACES],
}

/// A template. Changed by who has claimed its bucket; but for `connections`, which anybody takes from, `position`, a
/// hint, and `assured`, which is for listings.
#[derive(Debug)]
#[cfg_attr(not(all(test, interleave)), derive(bytemuck::Zeroable))]
#[cfg_attr(all(test, interleave), derive(Default))]
#[repr(C, align(64))]
pub(super) struct Entry {
    pub(super) key: [AtomicU64; 5],
    pub(super) server: AtomicU32,
    /// Where the real server stood in its service's list when it was looked for last.
    pub(super) position: AtomicU32,
    /// A [`Tick`].
    pub(super) expires: AtomicU32,
    /// Sessions that were set up by it.
    pub(super) connections: AtomicU32,
    /// Not 0: one of them was established.
    pub(super) assured: AtomicU32,
}

impl Bucket {
    /// The bucket for this worker alone; none: another one has it, for long.
    pub(super) fn claim(&self) -> Option<Claim<'_>> {
        for _look in 0..PATIENCE {
            let sequence = self.sequence.load(Ordering::Relaxed);
            let wanted = sequence.wrapping_add(1);
            let exchange = || self.sequence.compare_exchange(sequence, wanted, Ordering::Acquire, Ordering::Relaxed);
            if sequence & 1 == 0 && exchange().is_ok() {
                // No change may be seen before the claim is.
                fence(Ordering::Release);
                return Some(Claim(self));
            }
            spin_loop();
        }
        None
    }

    pub(super) fn tag(&self, place: usize) -> u16 {
        self.tags[place].load(Ordering::Relaxed)
    }

    /// Copies the templates as they were at one time. None of a bucket that is changed all the time.
    pub(super) fn views(&self, into: &mut Vec<TemplateView>) {
        let before = into.len();
        for _copy in 0..COPIES {
            let sequence = self.sequence.load(Ordering::Acquire);
            if sequence & 1 == 0 {
                let places = (0..PLACES).filter(|&place| self.tag(place) > RETIRED);
                into.extend(places.map(|place| self.entries[place].view()));
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == sequence {
                    return;
                }
                into.truncate(before);
            }
            spin_loop();
        }
    }
}

/// A bucket that is this worker's until this is dropped.
pub(super) struct Claim<'b>(pub(super) &'b Bucket);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let sequence = self.0.sequence.load(Ordering::Relaxed);
        self.0.sequence.store(sequence.wrapping_add(1), Ordering::Release);
    }
}

impl Claim<'_> {
    /// Where the template of a key stands, whose tag is this.
    pub(super) fn place_of(&self, key: &TemplateKey, tag: u16) -> Option<usize> {
        let is_key = |place: &usize| self.0.entries[*place].has_key(key);
        (0..PLACES).filter(|&place| self.0.tag(place) == tag).find(is_key)
    }

    /// Whether nothing keeps a template, or the rest of one.
    pub(super) fn is_over(&self, place: usize, now: Tick) -> bool {
        let entry = &self.0.entries[place];
        let may_end = self.0.tag(place) == RETIRED || entry.expires.load(Ordering::Relaxed) <= now.0;
        may_end && entry.connections.load(Ordering::Relaxed) == 0
    }

    /// One more session for a template, which lasts until then.
    pub(super) fn take(&self, number: usize, place: usize, end: Tick) -> Template {
        let entry = &self.0.entries[place];
        entry.expires.store(end.0, Ordering::Relaxed);
        entry.connections.fetch_add(1, Ordering::Relaxed);
        self.see_again(end);
        Template {
            index: join(number, place),
            server: RealServerSlot(entry.server.load(Ordering::Relaxed)),
            position: entry.position.load(Ordering::Relaxed),
        }
    }

    /// Has the bucket swept at this tick or before.
    pub(super) fn see_again(&self, at: Tick) {
        let earliest = self.0.earliest.load(Ordering::Relaxed);
        let earliest = if earliest == 0 { at.0 } else { earliest.min(at.0) };
        self.0.earliest.store(earliest.max(1), Ordering::Relaxed);
    }
}

impl Entry {
    /// Says whose the template is, and who serves them.
    pub(super) fn enter(&self, key: &TemplateKey, server: RealServerSlot, position: u32) {
        for (word, value) in self.key.iter().zip(key.words) {
            word.store(value, Ordering::Relaxed);
        }
        self.server.store(server.0, Ordering::Relaxed);
        self.position.store(position, Ordering::Relaxed);
        self.assured.store(0, Ordering::Relaxed);
    }

    fn has_key(&self, key: &TemplateKey) -> bool {
        self.key.iter().zip(key.words).all(|(word, value)| word.load(Ordering::Relaxed) == value)
    }

    fn view(&self) -> TemplateView {
        TemplateView {
            key: TemplateKey { words: std::array::from_fn(|word| self.key[word].load(Ordering::Relaxed)) },
            server: RealServerSlot(self.server.load(Ordering::Relaxed)),
            expires: Tick(self.expires.load(Ordering::Relaxed)),
            connections: self.connections.load(Ordering::Relaxed),
            is_assured: self.assured.load(Ordering::Relaxed) != 0,
        }
    }
}

/// Where the template at a place of the bucket of this number stands in the table.
fn join(number: usize, place: usize) -> TemplateIndex {
    TemplateIndex(u32::try_from(number * PLACES + place + 1).unwrap_or(0))
}

/// The bucket's number, and the place in it.
pub(super) fn split(TemplateIndex(index): TemplateIndex) -> (usize, usize) {
    let index = (index as usize).wrapping_sub(1);
    (index / PLACES, index % PLACES)
}
