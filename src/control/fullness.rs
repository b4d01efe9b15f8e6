//! Warnings in the log before a worker runs out of room, and word when it has some again.
//!
//! A warning comes once as a level is passed; only well below it has it ended, so that a number that goes up and down
//! about a level does not fill the log.

use std::fmt;
use std::sync::Arc;

use crate::session::Capacity;
use crate::telemetry::counters::WorkerCounters;

/// Thousandths at which each level begins, and below which it has ended.
const LEVELS: [(u64, u64); 2] = [(800, 750), (950, 900)];

/// One of a worker's session tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Ipv4,
    Ipv6,
}

impl Table {
    const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    fn sessions(self, counters: &WorkerCounters) -> u64 {
        match self {
            Self::Ipv4 => counters.sessions.get(),
            Self::Ipv6 => counters.ipv6_sessions.get(),
        }
    }
}

/// A worker's room for sessions has become scarce, or is so no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Notice {
    worker: usize,
    table: Table,
    permille: u64,
    scarce: bool,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, tenth) = (self.permille / 10, self.permille % 10);
        let (of, key) = match self.table {
            Table::Ipv4 => ("", "capacity"),
            Table::Ipv6 => (" of IPv6", "ipv6_capacity"),
        };
        write!(f, "worker {}: its session table{of} is {whole}.{tenth} % full", self.worker)?;
        if !self.scarce {
            return f.write_str(" again");
        }
        write!(
            f,
            ": new sessions are dropped (session_table_full) where there is no room; raise [session] {key}, or look \
             for a flood"
        )
    }
}

/// The levels that workers are at.
#[derive(Debug)]
pub(super) struct Fullness {
    /// By table.
    capacity: [u64; 2],
    /// Levels passed, by worker and table.
    levels: Vec<[usize; 2]>,
}

impl Fullness {
    /// So many workers, each with room for `capacity` sessions, all empty.
    pub(super) fn new(workers: usize, capacity: Capacity) -> Self {
        let capacity = [capacity.ipv4, capacity.ipv6].map(|sessions| u64::from(sessions).max(1));
        Self { capacity, levels: vec![[0; 2]; workers] }
    }

    /// Looks at all workers, and tells the log what has changed.
    pub(super) fn look(&mut self, counters: &[Arc<WorkerCounters>]) {
        for notice in self.notices(counters) {
            if notice.scarce { tracing::warn!("{notice}") } else { tracing::info!("{notice}") }
        }
    }

    fn notices(&mut self, counters: &[Arc<WorkerCounters>]) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (worker, (own, levels)) in counters.iter().zip(&mut self.levels).enumerate() {
            for ((table, capacity), level) in Table::ALL.into_iter().zip(self.capacity).zip(levels) {
                let permille = table.sessions(own).saturating_mul(1000) / capacity;
                let before = std::mem::replace(level, next_level(*level, permille));
                if *level != before {
                    notices.push(Notice { worker, table, permille, scarce: *level > before });
                }
            }
        }
        notices
    }
}

/// The level after one: up as far as levels have begun, down as far as they have ended.
fn next_level(level: usize, permille: u64) -> usize {
    let begun = LEVELS.iter().take_while(|(begin, _)| permille >= *begin).count();
    let not_ended = LEVELS.iter().take_while(|(_, end)| permille >= *end).count();
    level.clamp(begun, not_ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::counters::SlotLimits;

    #[test]
    fn each_level_is_told_once_on_the_way_up_and_once_on_the_way_down() {
        let counters = [Arc::new(WorkerCounters::new(SlotLimits { real_servers: 1, local_addresses: 1 }))];
        let mut fullness = Fullness::new(1, Capacity { ipv4: 1000, ipv6: 1000 });
        let mut told = Vec::new();
        for sessions in [0, 799, 800, 790, 810, 751, 949, 950, 990, 940, 951, 899, 960, 1000, 760, 740, 10, 960, 0] {
            counters[0].sessions.set(sessions);
            let notices = fullness.notices(&counters);
            told.extend(notices.iter().map(|notice| (notice.permille, notice.scarce)));
        }
        let up = |permille| (permille, true);
        let down = |permille| (permille, false);
        let expected = [up(800), up(950), down(899), up(960), down(760), down(740), up(960), down(0)];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_notice_says_who_what_and_what_to_do() {
        let counters: Vec<_> =
            (0..2).map(|_| Arc::new(WorkerCounters::new(SlotLimits { real_servers: 1, local_addresses: 1 }))).collect();
        let mut fullness = Fullness::new(2, Capacity { ipv4: 2000, ipv6: 100 });
        counters[1].sessions.set(1611);
        let said: Vec<_> = fullness.notices(&counters).iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("worker 1: its session table is 80.5 % full: new sessions are dropped"));
        counters[1].sessions.set(0);
        assert_eq!(fullness.notices(&counters)[0].to_string(), "worker 1: its session table is 0.0 % full again");
        counters[0].ipv6_sessions.set(96);
        let said = fullness.notices(&counters)[0].to_string();
        assert!(said.starts_with("worker 0: its session table of IPv6 is 96.0 % full"), "{said}");
        assert!(said.contains("raise [session] ipv6_capacity"), "{said}");
    }
}
