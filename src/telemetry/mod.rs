//! What the gateway tells of itself: per-worker counters (pure) and the metrics made of them.

pub mod counters;
pub mod histogram;
#[cfg(feature = "dpdk")]
pub mod http;
#[cfg(feature = "dpdk")]
pub mod prometheus;
#[cfg(feature = "dpdk")]
mod worker_times;
