//! IPVS's rate estimators (net/netfilter/ipvs/ip_vs_est.c): every two seconds an average moves a quarter of its way
//! to the rate of these two seconds.
//!
//! Averages are fixed-point numbers as in the kernel, so that both show the same: rates of connections and packets in
//! 1024ths, those of bytes in 32nds.

use std::time::Duration;

use super::command::Stats;

/// How often [`Estimator::sample`] is to be called.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// What is counted, in the order in which [`Estimator`] keeps it.
type Counters = [u64; 5];

/// Fraction bits of the averages of connections and packets, and of bytes.
const FRACTION: [u32; 5] = [10, 10, 10, 5, 5];

/// The averages of one service or real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimator {
    last: Counters,
    averages: Counters,
}

fn counters(stats: &Stats) -> Counters {
    [stats.connections, stats.in_packets, stats.out_packets, stats.in_bytes, stats.out_bytes]
}

impl Estimator {
    /// Begins with what is counted so far, and with rates of 0.
    pub fn new(stats: &Stats) -> Self {
        Self { last: counters(stats), averages: Counters::default() }
    }

    /// Takes in what has been counted since [`INTERVAL`] ago.
    pub fn sample(&mut self, stats: &Stats) {
        let now = counters(stats);
        for (index, now) in now.into_iter().enumerate() {
            // Over two seconds: one fraction bit less.
            let rate = now.saturating_sub(self.last[index]) << (FRACTION[index] - 1);
            let average = self.averages[index];
            // Both directions round down, as the kernel's shift of a signed number does.
            self.averages[index] = match rate.checked_sub(average) {
                Some(more) => average + (more >> 2),
                None => average - (average - rate).div_ceil(4),
            };
            self.last[index] = now;
        }
    }

    /// The statistics with these rates.
    pub fn fill(&self, stats: Stats) -> Stats {
        let rate = |index: usize| (self.averages[index] + ((1 << (FRACTION[index] - 1)) - 1)) >> FRACTION[index];
        Stats {
            connection_rate: rate(0),
            in_packet_rate: rate(1),
            out_packet_rate: rate(2),
            in_byte_rate: rate(3),
            out_byte_rate: rate(4),
            ..stats
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_rise_to_a_steady_rate_and_fall_to_zero() {
        let mut stats = Stats::default();
        let mut estimator = Estimator::new(&stats);
        let mut seen = Vec::new();
        for _ in 0..80 {
            stats.connections += 200;
            stats.in_bytes += 2_000_000;
            estimator.sample(&stats);
            seen.push(estimator.fill(stats).connection_rate);
        }
        // 100 a second: a quarter of the rest each time.
        assert_eq!(seen[..4], [25, 44, 58, 68]);
        let filled = estimator.fill(stats);
        assert_eq!((filled.connection_rate, filled.in_byte_rate), (100, 1_000_000));
        assert_eq!(filled.connections, stats.connections);
        for _ in 0..120 {
            estimator.sample(&stats);
        }
        assert_eq!(estimator.fill(stats).connection_rate, 0);
        assert_eq!(estimator.fill(stats).in_byte_rate, 0);
    }

    #[test]
    fn counters_that_were_here_before_are_no_rate() {
        let stats = Stats { in_packets: 1_000_000, ..Stats::default() };
        let mut estimator = Estimator::new(&stats);
        estimator.sample(&stats);
        assert_eq!(estimator.fill(stats).in_packet_rate, 0);
    }
}
