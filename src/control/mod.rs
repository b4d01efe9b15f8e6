//! The control thread.

pub mod envelope;
pub mod protocol;

#[cfg(feature = "dpdk")]
pub mod data_plane;
#[cfg(feature = "dpdk")]
pub mod mirror;
#[cfg(feature = "dpdk")]
pub mod pump;
#[cfg(feature = "dpdk")]
pub mod tap;
#[cfg(feature = "dpdk")]
pub mod twin;
#[cfg(feature = "dpdk")]
pub mod wake;
