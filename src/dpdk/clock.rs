//! Time from the processor's time stamp counter: no system call, a few nanoseconds to read.
//!
//! Counts from [`super::Eal::init`]; before it the clock stands at 0. On one thread it never goes back; between cores it
//! agrees as well as their counters do (processors of this century: invariant and synchronised).

use std::sync::atomic::{AtomicU64, Ordering};

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// Bits after the binary point of [`MULTIPLIER`].
const SHIFT: u32 = 32;

/// The counter's value that is time 0.
static START: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds a tick; 0 until the clock runs.
static MULTIPLIER: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds since the EAL came up.
#[inline]
pub fn now_nanoseconds() -> u64 {
    let multiplier = MULTIPLIER.load(Ordering::Acquire);
    nanoseconds(ticks().saturating_sub(START.load(Ordering::Relaxed)), multiplier)
}

/// Starts the clock. The EAL must be up: it measures the counter's rate.
pub(super) fn start() {
    // SAFETY: the EAL is up; reads a number that it measured.
    let ticks_per_second = unsafe { dpdk_sys::rte_get_tsc_hz() };
    START.store(ticks(), Ordering::Relaxed);
    MULTIPLIER.store(multiplier(ticks_per_second), Ordering::Release);
}

#[inline]
fn ticks() -> u64 {
    // SAFETY: reads a register.
    unsafe { dpdk_sys::dpdk_shim_tsc() }
}

fn multiplier(ticks_per_second: u64) -> u64 {
    (NANOSECONDS_PER_SECOND << SHIFT).checked_div(ticks_per_second).unwrap_or(0)
}

#[inline]
fn nanoseconds(ticks: u64, multiplier: u64) -> u64 {
    let product = u128::from(ticks) * u128::from(multiplier);
    u64::try_from(product >> SHIFT).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_of_ticks_is_a_year() {
        let year_seconds = 365 * 86_400;
        for ticks_per_second in [1_000_000_000, 2_400_000_000, 3_700_000_000] {
            let year = nanoseconds(year_seconds * ticks_per_second, multiplier(ticks_per_second));
            let wanted = year_seconds * NANOSECONDS_PER_SECOND;
            assert!(year.abs_diff(wanted) < 100_000_000, "{ticks_per_second} Hz: {year} for {wanted}");
        }
    }

    #[test]
    fn a_clock_that_was_not_started_stands_still() {
        assert_eq!(nanoseconds(123_456_789, multiplier(0)), 0);
    }
}
