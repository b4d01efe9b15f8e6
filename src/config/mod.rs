//! The configuration file: TOML -> raw, with positions -> validated [`Config`]. Pure: it reads text, not files.
//!
//! What a [`Config`] holds needs no further check of form; whether the machine has the devices, cores and memory is
//! for the daemon to find out at start.

pub mod model;

pub use model::*;
