//! When sessions end: one wheel of a fixed number of slots, linked through the records themselves.
//!
//! A packet only stores the session's new end in its record. The wheel looks at a session when the slot in which it
//! was filed comes due, and files it again if its end has moved further off since. Only an end that moves *nearer*
//! (a TCP state with a shorter timeout) is filed anew at once.

use super::{Session, Tick};

/// Slots of one tick each: 27 minutes, so that a session with a usual timeout is filed once.
const SLOTS: u32 = 16_384;

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
    pub(super) fn file(&mut self, sessions: &mut [Session], index: u32) {
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
    pub(super) fn unfile(&mut self, sessions: &mut [Session], index: u32) {
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

    /// A session whose end has come by `now`, still filed; none if there is none, or if `budget` sessions have been
    /// looked at. What is left is found by the next call.
    pub(super) fn next_expired(&mut self, sessions: &mut [Session], now: Tick, budget: &mut u32) -> Option<u32> {
        while self.position <= now {
            let index = self.heads[(self.position.0 % SLOTS) as usize];
            if index == NIL {
                self.position.0 += 1;
                continue;
            }
            *budget = budget.checked_sub(1)?;
            if sessions[index as usize].expires <= now {
                return Some(index);
            }
            // Its end is later than it was when it was filed. Filing clamps to the slot being looked at only for
            // ends that have come, so this always leaves the slot.
            self.unfile(sessions, index);
            self.file(sessions, index);
        }
        None
    }
}
