//! Sessions: fixed-size records in a fixed table, their states and timers, and the local ports that they hold.
//!
//! All of it belongs to one worker; nothing here is shared, and nothing allocates once the table is made. Its memory is
//! cut from one region, whose size [`Capacity::memory_bytes`] gives and whose pages are the caller's choice.

pub mod local_port;
mod record;
mod sctp_state;
mod table;
mod tables;
pub mod tcp_state;
mod timer_wheel;

pub use record::{Session, SessionView};
pub use table::{Candidate, Expired, Found, SessionIndex, SessionTable, TableFull};
pub use tables::{Capacity, Tabled, Tables};
pub use tcp_state::{Seen, State};

/// A moment or a duration on the workers' clock, in tenths of a second since the gateway started: 13 years fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Tick(pub u32);

impl Tick {
    /// Ticks in a second.
    pub const PER_SECOND: u32 = 10;
    /// Nanoseconds in a tick.
    pub const NANOSECONDS: u64 = 1_000_000_000 / Self::PER_SECOND as u64;

    /// The tick of a time in nanoseconds.
    pub fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self(u32::try_from(nanoseconds / Self::NANOSECONDS).unwrap_or(u32::MAX))
    }

    /// So many seconds later.
    #[inline]
    pub fn plus_seconds(self, seconds: u32) -> Self {
        self.plus(seconds.saturating_mul(Self::PER_SECOND))
    }

    /// So many ticks later.
    #[inline]
    pub fn plus(self, ticks: u32) -> Self {
        Self(self.0.saturating_add(ticks))
    }

    /// Ticks from `earlier` to this moment; 0 if it is not earlier.
    #[inline]
    pub fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}
