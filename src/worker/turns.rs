//! How long turns take: the time from one poll to the next, and how much of a long one the worker itself used.
//!
//! One turn's end is the next one's start, so the clock is read once a turn. Whether it was this worker that took long
//! or somebody else who was given its CPU shows in the thread's CPU time, which only the kernel knows: it is asked
//! after a gap above [`LONG_NANOSECONDS`], when that gap has happened already, and otherwise every millisecond, so
//! that what small interruptions have taken since the last reading is not mistaken for a part of the gap. That is one
//! quick system call (a fraction of a microsecond) in tens of microseconds at the most, and never one for a packet.
//!
//! Interrupts and a hypervisor count as somebody else as far as the kernel counts them so (its interrupt time
//! accounting, a paravirtual steal clock); what it does not know about is put down to the worker.

use super::Clock;
use crate::telemetry::counters::WorkerCounters;

/// Gaps above this are looked into.
pub(super) const LONG_NANOSECONDS: u64 = 20_000;
/// Age at which a reading of the CPU time is renewed.
const READING_NANOSECONDS: u64 = 1_000_000;

/// The course of one worker's turns.
#[derive(Debug)]
pub(super) struct Turns<C> {
    clock: C,
    /// When the turn of now began.
    started: u64,
    /// When the CPU time was read last, and what it was.
    read_at: u64,
    cpu: u64,
}

impl<C: Clock> Turns<C> {
    /// The first turn begins now.
    pub(super) fn new(clock: C) -> Self {
        let started = clock.nanoseconds();
        let cpu = clock.cpu_nanoseconds();
        Self { clock, started, read_at: started, cpu }
    }

    /// When this turn began.
    #[inline]
    pub(super) fn started(&self) -> u64 {
        self.started
    }

    /// How long it has lasted, in nanoseconds.
    #[inline]
    pub(super) fn lasted(&self) -> u64 {
        self.clock.nanoseconds() - self.started
    }

    /// Ends this turn, begins the next one, and gives how long this one took.
    #[inline]
    pub(super) fn end(&mut self, counters: &WorkerCounters) -> u64 {
        let now = self.clock.nanoseconds();
        let gap = now - self.started;
        self.started = now;
        counters.poll_gaps.record(gap);
        if gap > LONG_NANOSECONDS || now - self.read_at > READING_NANOSECONDS {
            self.look_into(gap, counters);
        }
        gap
    }

    /// Begins a turn anew after a sleep, which is no gap.
    pub(super) fn slept(&mut self) {
        self.started = self.clock.nanoseconds();
        self.read_at = self.started;
        self.cpu = self.clock.cpu_nanoseconds();
    }

    /// Reads the CPU time, and splits a gap that has just ended if it is a long one. What was taken since the last
    /// reading was taken from this gap: anything longer would have made a long gap of its own.
    #[cold]
    fn look_into(&mut self, gap: u64, counters: &WorkerCounters) {
        let cpu = self.clock.cpu_nanoseconds();
        let passed = self.started - self.read_at;
        let taken = passed.saturating_sub(cpu.saturating_sub(self.cpu)).min(gap);
        (self.read_at, self.cpu) = (self.started, cpu);
        if gap > LONG_NANOSECONDS {
            counters.stalls.record(gap - taken);
            counters.preempted_nanoseconds.add(taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::telemetry::counters::SlotLimits;

    /// Time and CPU time, as the test says.
    #[derive(Default)]
    struct Hands {
        wall: Cell<u64>,
        cpu: Cell<u64>,
        cpu_readings: Cell<u32>,
    }

    impl Hands {
        fn pass(&self, own: u64, taken: u64) {
            self.wall.set(self.wall.get() + own + taken);
            self.cpu.set(self.cpu.get() + own);
        }
    }

    impl Clock for &Hands {
        fn nanoseconds(&self) -> u64 {
            self.wall.get()
        }

        fn cpu_nanoseconds(&self) -> u64 {
            self.cpu_readings.set(self.cpu_readings.get() + 1);
            self.cpu.get()
        }
    }

    fn counters() -> WorkerCounters {
        WorkerCounters::new(SlotLimits { real_servers: 0, local_addresses: 0 })
    }

    #[test]
    fn short_turns_are_counted_and_their_cpu_time_is_read_once_a_millisecond() {
        let (hands, counters) = (Hands::default(), counters());
        let mut turns = Turns::new(&hands);
        for _ in 0..10_000 {
            hands.pass(500, 0);
            assert_eq!(turns.end(&counters), 500);
        }
        let gaps = counters.poll_gaps.read();
        assert_eq!((gaps.count(), gaps.worst_nanoseconds, gaps.sum_nanoseconds), (10_000, 500, 5_000_000));
        assert_eq!(counters.stalls.read().count(), 0);
        assert!((4..=6).contains(&hands.cpu_readings.get()), "{}", hands.cpu_readings.get());
    }

    #[test]
    fn a_long_gap_is_split_into_what_was_used_and_what_was_taken() {
        let (hands, counters) = (Hands::default(), counters());
        let mut turns = Turns::new(&hands);
        for (own, taken, worst_own, taken_in_all) in [
            (45_000, 0, 45_000, 0),
            (1_000, 4_000_000, 45_000, 4_000_000),
            (60_000, 30_000, 60_000, 4_030_000),
            (0, 25_000, 60_000, 4_055_000),
        ] {
            // Of turns before it, nothing is put down to it.
            hands.pass(300_000 / 16, 0);
            turns.end(&counters);
            hands.pass(own, taken);
            assert_eq!(turns.end(&counters), own + taken);
            assert_eq!(counters.stalls.read().worst_nanoseconds, worst_own);
            assert_eq!(counters.preempted_nanoseconds.get(), taken_in_all);
        }
        assert_eq!((counters.stalls.read().count(), counters.poll_gaps.read().count()), (4, 8));
        assert_eq!(counters.poll_gaps.read().worst_nanoseconds, 4_001_000);
    }

    #[test]
    fn small_interruptions_before_a_gap_do_not_excuse_it() {
        let (hands, counters) = (Hands::default(), counters());
        let mut turns = Turns::new(&hands);
        // A tenth of the CPU goes to interrupts, a microsecond at a time, for a second.
        for _ in 0..100_000 {
            hands.pass(9_000, 1_000);
            turns.end(&counters);
        }
        hands.pass(200_000, 0);
        turns.end(&counters);
        let worst = counters.stalls.read().worst_nanoseconds;
        assert!((95_000..=200_000).contains(&worst), "at most a millisecond's share is taken off: {worst}");
    }

    #[test]
    fn sleep_is_neither_a_gap_nor_taken() {
        let (hands, counters) = (Hands::default(), counters());
        let mut turns = Turns::new(&hands);
        hands.pass(2_000, 0);
        turns.end(&counters);
        hands.pass(3_000, 10_000_000);
        turns.slept();
        hands.pass(30_000, 0);
        assert_eq!((turns.lasted(), turns.end(&counters)), (30_000, 30_000));
        assert_eq!((counters.poll_gaps.read().count(), counters.stalls.read().worst_nanoseconds), (2, 30_000));
        assert_eq!(counters.preempted_nanoseconds.get(), 0);
    }
}
