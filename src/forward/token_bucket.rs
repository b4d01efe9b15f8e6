//! A rate limit: so many a second on the average, a tenth of a second's worth at once.

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// One limited stream of events.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    /// Nanoseconds that one event costs; 0: none is allowed.
    cost: u64,
    /// Nanoseconds saved up at most.
    depth: u64,
    /// When the bucket was, or will be, empty.
    empty_at: u64,
}

impl TokenBucket {
    /// At most `per_second` events a second; 0 allows none.
    pub fn new(per_second: u32) -> Self {
        let cost = SECOND.checked_div(u64::from(per_second)).unwrap_or(0);
        Self { cost, depth: (SECOND / 10).max(cost), empty_at: 0 }
    }

    /// Whether an event may happen now, which it then has. `now` is in nanoseconds and does not go back.
    #[inline]
    pub fn take(&mut self, now: u64) -> bool {
        if self.cost == 0 {
            return false;
        }
        let empty_at = self.empty_at.max(now.saturating_sub(self.depth));
        let allowed = empty_at + self.cost <= now.max(self.depth);
        if allowed {
            self.empty_at = empty_at + self.cost;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_rate() {
        let mut bucket = TokenBucket::new(1000);
        let start = 5 * SECOND;
        let taken = (0..10_000u64).filter(|step| bucket.take(start + step * SECOND / 10_000)).count();
        // One second's worth, and the tenth saved up before.
        assert!((1099..=1101).contains(&taken), "{taken}");
    }

    #[test]
    fn low_rates_and_none() {
        let mut slow = TokenBucket::new(1);
        assert!(slow.take(10 * SECOND));
        assert!(!slow.take(10 * SECOND + SECOND / 2));
        assert!(slow.take(11 * SECOND));
        assert!(!TokenBucket::new(0).take(10 * SECOND));
    }
}
