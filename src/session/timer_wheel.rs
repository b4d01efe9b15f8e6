//! When sessions end: one wheel of a fixed number of slots, linked through the records themselves.
//!
//! A packet only stores the session's new end in its record. The wheel looks at a session when the slot in which it
//! was filed comes due, and files it again if its end has moved further off since. Only an end that moves *nearer*
//! (a TCP state with a shorter timeout) is filed anew at once.

use prefetch::prefetch;

use super::{Session, Tick};
use crate::flow::Address;

/// Slots of one tick each: 27 minutes, so that a session with a usual timeout is filed once.
const SLOTS: u32 = 16_384;

/// Sessions that are looked at in one go: enough for waits for memory to overlap, some microseconds in all.
pub(super) const STEP: usize = 16;

/// Empty slots passed in one go, of which each cache line holds 16.
const SLOTS_PASSED: u32 = 512;

/// No session.
pub(super) const NIL: u32 = u32::MAX;

/// Marks a `previous` link that names a slot instead of a session.
const SLOT_MARK: u32 = 1 << 31;

/// The wheel. Every used record of the table is in exactly one of its lists.
#[derive(Debug)]
pub(super) struct TimerWheel {
    heads: Box<[u32]>,
    /// The next tick to look at.
    position: Tick,
}

impl TimerWheel {
    pub(super) fn new(now: Tick) -> Self {
        Self { heads: vec![NIL; SLOTS as usize].into_boxed_slice(), position: now }
    }

    /// Files a session that is in no list under its end, or under the last slot of this turn if that comes first.
    pub(super) fn file<A: Address>(&mut self, sessions: &mut [Session<A>], index: u32) {
        let expires = sessions[index as usize].expires;
        let due = expires.0.clamp(self.position.0, self.position.0.saturating_add(SLOTS - 1));
        let slot = due % SLOTS;
        let first = std::mem::replace(&mut self.heads[slot as usize], index);
        if first != NIL {
            sessions[first as usize].previous = index;
        }
        let session = &mut sessions[index as usize];
        session.next = first;
        session.previous = SLOT_MARK | slot;
    }

    /// Takes a session out of its list.
    pub(super) fn unfile<A: Address>(&mut self, sessions: &mut [Session<A>], index: u32) {
        let Session { next, previous, .. } = sessions[index as usize];
        if previous & SLOT_MARK != 0 {
            self.heads[(previous & !SLOT_MARK) as usize] = next;
        } else {
            sessions[previous as usize].next = next;
        }
        if next != NIL {
            sessions[next as usize].previous = previous;
        }
    }

    /// Whether a slot has come due by `now` that was not looked through.
    #[inline]
    pub(super) fn is_due(&self, now: Tick) -> bool {
        self.position <= now
    }

    /// Looks at up to [`STEP`] sessions of the slots that have come due by `now`, and gives those whose end has come, all
    /// of one slot and still filed: the caller takes them out before the next call, which finds what is left.
    pub(super) fn due<A: Address>(&mut self, sessions: &mut [Session<A>], now: Tick) -> Due {
        let mut due = Due { sessions: [NIL; STEP], count: 0, looked_at: 0, more: true };
        for _slot in 0..SLOTS_PASSED {
            if self.position > now {
                due.more = false;
                break;
            }
            self.look_through_slot(sessions, now, &mut due);
            if due.count > 0 || due.looked_at == STEP {
                break;
            }
            self.position.0 += 1;
        }
        due
    }

    /// Looks at the sessions of the slot of now, up to the step's bound.
    fn look_through_slot<A: Address>(&mut self, sessions: &mut [Session<A>], now: Tick, due: &mut Due) {
        let mut index = self.heads[(self.position.0 % SLOTS) as usize];
        while index != NIL && due.looked_at < STEP {
            due.looked_at += 1;
            let Session { next, expires, .. } = sessions[index as usize];
            if let Some(next) = sessions.get(next as usize) {
                prefetch(next);
            }
            if expires <= now {
                due.sessions[due.count] = index;
                due.count += 1;
            } else {
                // Its end is later than it was when it was filed. Filing clamps to the slot being looked at only for
                // ends that have come, so this always leaves the slot.
                self.unfile(sessions, index);
                self.file(sessions, index);
            }
            index = next;
        }
    }
}

/// Sessions that [`TimerWheel::due`] has found.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) sessions: [u32; STEP],
    /// How many there are in `sessions`.
    pub(super) count: usize,
    pub(super) looked_at: usize,
    /// Whether slots that have come due are left.
    pub(super) more: bool,
}
