//! The control thread.

pub mod protocol;
