//! The control thread.

pub mod envelope;
pub mod protocol;
