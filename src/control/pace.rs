//! When tables are made for workers.
//!
//! Making one takes time in proportion to the configuration. Changes that come one by one have theirs at once; of many in a
//! row, several share a table, so that over a second no more than a tenth of the control thread's time goes into tables:
//! tens of thousands of changes cost as many tables as there is time for instead of one each.

use std::time::Duration;

use tokio::time::Instant;

/// A table that took a millisecond is paid for after so many.
const PRICE: u32 = 10;
/// Tables can be made on credit for so long: single changes never wait, whatever takes the CPU away while theirs is made.
const CREDIT: Duration = Duration::from_millis(500);

/// Paces tables. See the module's description.
#[derive(Debug)]
pub(super) struct Pace {
    /// When all tables are paid for.
    paid: Instant,
    /// A change waits for its table.
    waits: bool,
}

impl Pace {
    /// No change waits, and nothing is owed.
    pub fn new(now: Instant) -> Self {
        Self { paid: now, waits: false }
    }

    /// A change wants a table.
    pub fn changed(&mut self) {
        self.waits = true;
    }

    /// When the next table is to be made; none: no change waits.
    pub fn due(&self) -> Option<Instant> {
        self.waits.then(|| self.paid.checked_sub(CREDIT).unwrap_or(self.paid))
    }

    /// A table with all changes was made in this time.
    pub fn made(&mut self, from: Instant, to: Instant) {
        self.waits = false;
        self.paid = self.paid.max(from) + PRICE * (to - from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_changes_have_their_tables_at_once_and_many_share_them() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.due(), None);
        let cost = Duration::from_millis(5);
        // A change each 100 ms.
        let mut now = start;
        for _ in 0..100 {
            pace.changed();
            assert!(pace.due().is_some_and(|due| due <= now));
            pace.made(now, now + cost);
            now += Duration::from_millis(100);
        }
        // Changes without end, for ten seconds.
        let (begin, mut tables) = (now, 0);
        while now < begin + Duration::from_secs(10) {
            pace.changed();
            if pace.due().is_some_and(|due| due <= now) {
                pace.made(now, now + cost);
                tables += 1;
                now += cost;
            } else {
                now += Duration::from_micros(200);
            }
        }
        assert!((200..=215).contains(&tables), "{tables} tables of 5 ms in 10 s");
    }
}
