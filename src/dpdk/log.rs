//! DPDK's own log, passed on to `tracing` (target `dpdk`), and its last lines kept for error messages: DPDK's error
//! numbers alone seldom say what was wrong.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Errno;

/// Lines kept.
const KEPT: usize = 8;

/// RTE_LOG_ERR, RTE_LOG_WARNING, RTE_LOG_INFO of rte_log.h: part of DPDK's stable ABI.
const ERROR: u32 = 4;
const WARNING: u32 = 5;
const INFO: u32 = 7;

static RECENT: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// What DPDK logged while an operation failed; shown in brackets, or not at all where there is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecentLog(Vec<String>);

impl fmt::Display for RecentLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " (DPDK says: {})", self.0.join("; ")) }
    }
}

impl RecentLog {
    /// The lines since the last call of [`forget`].
    pub(super) fn take() -> Self {
        Self(recent().drain(..).collect())
    }
}

/// Sends DPDK's log here. Call before the EAL is initialised.
pub(super) fn redirect() -> Result<(), Errno> {
    // SAFETY: the sink is a function that lives as long as the program.
    Errno::check(unsafe { dpdk_sys::dpdk_shim_log_to(Some(sink)) }).map(|_| ())
}

/// Sends what the BPF libraries of AF_XDP ports print here too. Call when the drivers are loaded.
pub(super) fn redirect_bpf() {
    // SAFETY: the sink is a function that lives as long as the program.
    unsafe { dpdk_sys::dpdk_shim_bpf_log_to(Some(sink)) };
}

/// Forgets what was logged so far: an operation begins whose failure should show its own lines only.
pub(super) fn forget() {
    recent().clear();
}

/// A thread that panicked within these few lines leaves a valid list.
fn recent() -> MutexGuard<'static, VecDeque<String>> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn sink(level: u32, message: *const c_char, length: usize) {
    // SAFETY: the shim passes `length` readable bytes, which nothing changes during the call.
    let bytes = unsafe { std::slice::from_raw_parts(message.cast::<u8>(), length) };
    for line in String::from_utf8_lossy(bytes).lines().map(str::trim).filter(|line| !line.is_empty()) {
        record(level, line);
    }
}

fn record(level: u32, line: &str) {
    if level <= WARNING {
        let mut recent = recent();
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(line.to_owned());
    }
    match level {
        0..=ERROR => tracing::error!(target: "dpdk", "{line}"),
        WARNING => tracing::warn!(target: "dpdk", "{line}"),
        6..=INFO => tracing::info!(target: "dpdk", "{line}"),
        _ => tracing::debug!(target: "dpdk", "{line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_lines_are_shown_once_and_bounded() {
        forget();
        assert_eq!(RecentLog::take().to_string(), "");
        record(INFO, "not a problem");
        for number in 0..KEPT + 2 {
            record(ERROR, &format!("line {number}"));
        }
        let text = RecentLog::take().to_string();
        assert!(text.starts_with(" (DPDK says: line 2; line 3;"), "{text}");
        assert!(text.ends_with("line 9)"), "{text}");
        assert_eq!(RecentLog::take(), RecentLog::default());
    }
}
