//! What the gateway tells of itself: per-worker counters (pure) and the metrics made of them.

pub mod counters;
