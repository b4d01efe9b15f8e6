//! How busy each worker was in the last whole second.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry::counters::WorkerCounters;

/// From sample to sample.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// How busy workers were in the last whole second, so that every reader of `/metrics` sees the same.
#[derive(Debug)]
pub(super) struct BusySampler {
    /// Busy and total nanoseconds by worker, at the last sample.
    last: Vec<(u64, u64)>,
    ratios: Vec<f64>,
    due: Instant,
}

impl BusySampler {
    /// None has been busy yet.
    pub fn new(counters: &[Arc<WorkerCounters>], now: Instant) -> Self {
        Self { last: vec![(0, 0); counters.len()], ratios: vec![0.0; counters.len()], due: now + SAMPLE_INTERVAL }
    }

    /// Takes a sample, if it is time; whether it was.
    pub fn sample(&mut self, counters: &[Arc<WorkerCounters>], now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        self.due = now + SAMPLE_INTERVAL;
        for ((last, ratio), own) in self.last.iter_mut().zip(&mut self.ratios).zip(counters) {
            let (busy, total) = (own.busy_nanoseconds.get(), own.total_nanoseconds.get());
            let (busy_since, total_since) = (busy.wrapping_sub(last.0), total.wrapping_sub(last.1));
            *ratio = if total_since == 0 { 0.0 } else { (busy_since as f64 / total_since as f64).min(1.0) };
            *last = (busy, total);
        }
        true
    }

    /// When to take the next sample.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// By worker, 0-1.
    pub fn ratios(&self) -> &[f64] {
        &self.ratios
    }
}
