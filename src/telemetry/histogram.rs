//! Durations counted by size, one writer each: a few instructions to record one, no division, no memory to grow.
//!
//! Buckets are two to each power of two, from 128 ns to 16.8 ms, so that a quantile is known to within a half. The
//! longest duration is kept as it is.

use serde::{Deserialize, Serialize};

use super::counters::Counter;

/// The lowest upper bound is 2 to this power, in nanoseconds.
const FIRST_POWER: u32 = 7;
/// The highest one.
const LAST_POWER: u32 = 24;
/// Buckets with an upper bound.
const BOUNDED: usize = 2 * (LAST_POWER - FIRST_POWER) as usize + 1;
/// All buckets: the last one is for what is longer.
const BUCKETS: usize = BOUNDED + 1;

/// Durations of one kind. Only the owning worker may record.
#[derive(Debug)]
pub struct Histogram {
    counts: [Counter; BUCKETS],
    sum_nanoseconds: Counter,
    worst_nanoseconds: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| Counter::default()),
            sum_nanoseconds: Counter::default(),
            worst_nanoseconds: Counter::default(),
        }
    }
}

impl Histogram {
    /// Counts a duration.
    #[inline]
    pub fn record(&self, nanoseconds: u64) {
        self.counts[bucket(nanoseconds)].add(1);
        self.sum_nanoseconds.add(nanoseconds);
        if nanoseconds > self.worst_nanoseconds.get() {
            self.worst_nanoseconds.set(nanoseconds);
        }
    }

    /// What was recorded so far.
    pub fn read(&self) -> Durations {
        Durations {
            upper_nanoseconds: (0..BOUNDED).map(upper_bound).collect(),
            counts: self.counts.iter().map(Counter::get).collect(),
            sum_nanoseconds: self.sum_nanoseconds.get(),
            worst_nanoseconds: self.worst_nanoseconds.get(),
        }
    }
}

/// The bucket of a duration: the first whose upper bound it does not exceed.
#[inline]
fn bucket(nanoseconds: u64) -> usize {
    let below = nanoseconds.saturating_sub(1);
    if below >> FIRST_POWER == 0 {
        return 0;
    }
    let power = below.ilog2();
    let upper_half = (below >> (power - 1)) & 1;
    let bucket = 2 * (power - FIRST_POWER) as usize + usize::from(upper_half == 1) + 1;
    bucket.min(BUCKETS - 1)
}

/// In nanoseconds: 2^7, 1.5 * 2^7, 2^8, ...
fn upper_bound(bucket: usize) -> u64 {
    (2 + (bucket as u64 & 1)) << (FIRST_POWER as usize - 1 + bucket / 2)
}

/// A histogram as it was when it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durations {
    /// The buckets' upper bounds in nanoseconds, each within its bucket.
    pub upper_nanoseconds: Vec<u64>,
    /// How many were in each bucket, and last how many exceeded all bounds.
    pub counts: Vec<u64>,
    /// All of them together.
    pub sum_nanoseconds: u64,
    /// The longest since the start.
    pub worst_nanoseconds: u64,
}

impl Durations {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// An upper bound, in nanoseconds, of the shortest `per_mille` thousandths; none without durations.
    pub fn quantile_nanoseconds(&self, per_mille: u64) -> Option<u64> {
        let count = self.count();
        let wanted = u128::from(count) * u128::from(per_mille);
        let mut seen = 0_u128;
        let bucket = self.counts.iter().position(|&of_bucket| {
            seen += u128::from(of_bucket) * 1000;
            seen >= wanted
        })?;
        let bound = self.upper_nanoseconds.get(bucket).copied().unwrap_or(self.worst_nanoseconds);
        (count > 0).then_some(bound.min(self.worst_nanoseconds))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_double_every_second_bucket() {
        let bounds: Vec<u64> = (0..BOUNDED).map(upper_bound).collect();
        assert_eq!(bounds[..5], [128, 192, 256, 384, 512]);
        assert_eq!(bounds[BOUNDED - 1], 1 << LAST_POWER);
        assert!(bounds.is_sorted());
    }

    #[test]
    fn quantiles_are_bounds_of_buckets_but_never_above_the_worst() {
        let histogram = Histogram::default();
        assert_eq!(histogram.read().quantile_nanoseconds(500), None);
        for _ in 0..990 {
            histogram.record(200);
        }
        for _ in 0..10 {
            histogram.record(50_000);
        }
        histogram.record(100_000_000);
        let read = histogram.read();
        assert_eq!((read.count(), read.worst_nanoseconds), (1001, 100_000_000));
        assert_eq!(read.sum_nanoseconds, 990 * 200 + 10 * 50_000 + 100_000_000);
        let quantiles = [500, 989, 990, 999, 1000].map(|per_mille| read.quantile_nanoseconds(per_mille));
        assert_eq!(quantiles, [Some(256), Some(256), Some(65_536), Some(65_536), Some(100_000_000)]);
        histogram.record(u64::MAX - read.sum_nanoseconds);
        assert_eq!(histogram.read().counts.last(), Some(&2));
    }

    #[test]
    fn one_duration_is_every_quantile() {
        let histogram = Histogram::default();
        histogram.record(130);
        assert_eq!(histogram.read().quantile_nanoseconds(999), Some(130));
    }

    proptest! {
        #[test]
        fn a_duration_is_in_the_first_bucket_that_it_fits_into(nanoseconds in prop_oneof![0_u64..2048, 0_u64..1 << 26, any::<u64>()]) {
            let first = (0..BOUNDED).find(|&bucket| nanoseconds <= upper_bound(bucket)).unwrap_or(BOUNDED);
            prop_assert_eq!(bucket(nanoseconds), first);
        }
    }
}
