//! The fast path.

mod verdict;

pub use verdict::{DropReason, Hop, PuntClass, Verdict};
