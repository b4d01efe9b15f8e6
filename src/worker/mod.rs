//! The poll loop, and the rings between workers and the control thread.

pub mod link;
