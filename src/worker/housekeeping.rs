//! What a worker does between bursts: new tables, sessions whose time is over, waiting packets, walks over the sessions.
//!
//! All of it comes in small pieces, each of a few microseconds even if all that it touches lies in no cache; whatever
//! is left waits for the next turn. A turn that has taken [`TURN_NANOSECONDS`] does the least that keeps things going
//! where every turn is so long: it ends as many sessions as it has begun, or the table would fill up with those that are
//! over, and takes a small step of a walk.

use std::sync::Arc;

use super::link::Event;
use super::{Clock, Worker};
use crate::forward::pending::Fate;
use crate::forward::{DropReason, Now};
use crate::port::PortQueue;
use crate::session::Tick;

/// A turn that has lasted so long leaves what can wait to the next ones.
const TURN_NANOSECONDS: u64 = 20_000;
/// Sessions that one turn looks at for expiry, at most, if it has the time.
const EXPIRY_MOST: u64 = 128;
/// Records that one turn of a walk over the sessions looks at.
const WALK_STEPS: u32 = 128;
/// ... and one that is late.
const LATE_WALK_STEPS: u32 = 32;
/// Buckets of templates that one turn sweeps.
const SWEEP_STEPS: usize = 8;
/// Waiting packets that one turn looks at.
pub(super) const SETTLE_STEPS: usize = 32;

impl<Q: PortQueue, E: Event, C: Clock> Worker<Q, E, C> {
    /// `created` is how many sessions this turn has set up.
    pub(super) fn housekeep(&mut self, now: Now, created: u64) {
        self.expire(now, created);
        self.forwarder.drop_entries(created, now);
        if now.tick != self.last_tick {
            let new_second = now.tick.0 / Tick::PER_SECOND != self.last_tick.0 / Tick::PER_SECOND;
            self.last_tick = now.tick;
            self.settling = Some(0);
            self.expiring_early = true;
            self.sweeping = self.forwarder.begin_sweep(now);
            self.forwarder.begin_defence();
            if new_second {
                self.ask_again();
            }
        }
        if self.sweeping > 0 && !self.is_late() {
            let buckets = self.sweeping.min(SWEEP_STEPS);
            self.forwarder.sweep_templates(buckets, now);
            self.sweeping -= buckets;
        }
        self.settle_pending(now);
        if self.expiring_early {
            self.expire_early(now);
        }
        if self.query.is_some() || !self.link.queries.is_empty() {
            self.step_query(now);
        }
    }

    fn is_late(&self) -> bool {
        self.turns.lasted() > TURN_NANOSECONDS
    }

    /// Goes over to the newest tables, which costs as much as exchanging two pointers. The old ones go back to control,
    /// which drops them. Before a turn's packets: one that comes after control has published finds what is in force.
    pub(super) fn adopt_snapshot(&mut self) {
        while !self.link.retired.is_full()
            && let Some(snapshot) = self.link.snapshots.pop()
        {
            drop(self.forwarder.adopt(Arc::clone(&snapshot.services), Arc::clone(&snapshot.routes)));
            let old = std::mem::replace(&mut self.snapshot, snapshot);
            // There is room: this thread alone fills the ring.
            let _ = self.link.retired.push(old);
            self.settling = Some(0);
        }
    }

    /// Ends sessions whose time is over.
    fn expire(&mut self, now: Now, created: u64) {
        let mut looked_at = 0;
        loop {
            let step = self.forwarder.expire(now);
            looked_at += u64::from(step.looked_at);
            if !step.more || looked_at >= EXPIRY_MOST.max(created) || (looked_at >= created && self.is_late()) {
                return;
            }
        }
    }

    /// Sends some of the waiting packets whose hop has answered, drops those that have waited too long.
    fn settle_pending(&mut self, now: Now) {
        let Some(from) = self.settling else { return };
        let forwarder = &self.forwarder;
        let fate = |hop, frame: &mut Q::Frame| if forwarder.complete(frame, hop) { Fate::Go } else { Fate::Wait };
        let mut ready = std::mem::take(&mut self.ready);
        let counters = &self.counters;
        self.settling = self.pending.settle(from, SETTLE_STEPS, now.tick, fate, |settled| match settled {
            Ok(answered) => ready.push(answered),
            Err(_) => counters.drop_packets(DropReason::NeighbourUnresolved, 1),
        });
        for (hop, frame) in ready.drain(..) {
            self.transmit(hop.port, frame);
        }
        self.ready = ready;
    }

    /// Asks once more for every hop that is still waited for.
    fn ask_again(&mut self) {
        for hop in self.pending.hops() {
            let _ = self.link.unresolved.push(hop);
            self.wake_control = true;
        }
    }

    /// A bounded step of a walk over the sessions.
    fn step_query(&mut self, now: Now) {
        let steps = if self.is_late() { LATE_WALK_STEPS } else { WALK_STEPS };
        let Some(mut query) = self.query.take().or_else(|| self.link.queries.pop()) else { return };
        let next = self.forwarder.walk_sessions(query.next, steps, now, &mut query.found);
        query.done = next.is_none();
        query.next = next.unwrap_or(query.next);
        if !query.done && query.found.len() < query.found.capacity() {
            self.query = Some(query);
            return;
        }
        // There is room: control has one walk under way at a time.
        let _ = self.link.answers.push(query);
        self.wake_control = true;
    }
}
