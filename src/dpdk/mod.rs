//! DPDK made safe: the Environment Abstraction Layer, packet buffers and their pool, ports and their queues, threads
//! that poll, the clock. With `crates/` the only place for `unsafe`.
//!
//! Nothing of forwarding is known here. Invariants that make the wrappers sound: the EAL is cleaned up only after
//! every pool, port and queue is gone and every buffer is back in its pool (else it stays up until the process ends);
//! a device is stopped only when the last of its [`Queue`]s is dropped; a device queue belongs to one [`Queue`].
#![allow(unsafe_code)]

mod addresses;
mod bond;
pub mod clock;
mod device;
mod eal;
mod ethdev;
mod lcore;
mod log;
mod mbuf;
mod mempool;
mod plan;
mod port;
mod port_error;
mod queue;
mod rss;
mod umem;

use std::fmt;

pub use addresses::AddressFilter;
pub use eal::{Eal, EalError};
pub use lcore::{LcoreError, RegisteredThread, register_current_thread};
pub use log::RecentLog;
pub use mbuf::{Mbuf, free_all};
pub use mempool::{MemPool, MemPoolError, mbufs_needed};
pub use port::{Link, Port, PortStats};
pub use port_error::PortError;
pub use queue::Queue;
pub use rss::{PortOwnership, Steering, WhySoftware};

/// An error number, positive; shown as the system's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(i32);

impl Errno {
    const NO_MEMORY: Self = Self(12);
    const BUSY: Self = Self(16);
    const NO_DEVICE: Self = Self(19);
    const NOT_SUPPORTED: Self = Self(95);
    const ALREADY: Self = Self(114);

    /// From the negative number that DPDK's functions return.
    fn from_result(result: i32) -> Self {
        Self(result.checked_neg().unwrap_or(i32::MAX))
    }

    /// `rte_errno` of this thread.
    fn last() -> Self {
        // SAFETY: reads a thread-local integer.
        Self(unsafe { dpdk_sys::dpdk_shim_errno() })
    }

    /// Success for 0 and above.
    fn check(result: i32) -> Result<i32, Self> {
        if result < 0 { Err(Self::from_result(result)) } else { Ok(result) }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&std::io::Error::from_raw_os_error(self.0), f)
    }
}
