//! What the log says of who changed what, and the counts of who was turned away at the sockets.
//!
//! A change is a line, with the user and the process that made it. A bulk of changes (`ipvsadm -R` of thousands of rules)
//! has lines for the first of it only, then one a second that says how many there were: each line is a write that the
//! control thread waits for. At level `debug` every change has its line.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::admission::Peer;

/// Lines at once.
const AT_ONCE: u32 = 200;
/// Lines that are allowed again in each second.
const PER_SECOND: u32 = 50;

/// Who asked for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// A client of a socket.
    Peer(Peer),
    /// Whoever sent a signal.
    Signal(&'static str),
    /// The daemon by itself.
    Daemon,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(peer) => peer.fmt(f),
            Self::Signal(name) => f.write_str(name),
            Self::Daemon => f.write_str("the daemon"),
        }
    }
}

/// The socket that somebody was turned away at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Door {
    Control,
    Ipvs,
}

/// Why somebody was turned away.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reason {
    /// He may not use the gateway.
    Credentials,
    /// There were as many connections as there may be.
    Connections,
    /// What he asked for needed more memory than all connections together may have.
    Memory,
}

/// What became of what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Changed,
    Refused,
}

/// The log's budget and the counts. See the module's description.
#[derive(Debug)]
pub(super) struct Audit {
    lines: Mutex<Lines>,
    turned_away: [[AtomicU64; 3]; 2],
}

#[derive(Debug)]
struct Lines {
    left: u32,
    /// What had no line since the last second, by user; none: not by a client.
    untold: BTreeMap<(Kind, Option<u32>), Untold>,
}

#[derive(Debug)]
struct Untold {
    count: u64,
    last: By,
    /// Whether `last` was the only process.
    is_only: bool,
}

impl Default for Audit {
    fn default() -> Self {
        let lines = Lines { left: AT_ONCE, untold: BTreeMap::new() };
        Self { lines: Mutex::new(lines), turned_away: Default::default() }
    }
}

impl Audit {
    /// Somebody changed something.
    pub fn changed(&self, by: By, line: &str) {
        if self.has_line(Kind::Changed, by) {
            tracing::info!(%by, "{line}");
        } else {
            tracing::debug!(%by, "{line}");
        }
    }

    /// A command of IPVS's tools was refused, for a reason that those cannot show.
    pub fn refused(&self, by: By, reason: &dyn fmt::Display) {
        if self.has_line(Kind::Refused, by) {
            tracing::warn!(%by, "an IPVS tool's command is refused: {reason}");
        } else {
            tracing::debug!(%by, "an IPVS tool's command is refused: {reason}");
        }
    }

    /// Somebody was turned away at a socket.
    pub fn turned_away(&self, door: Door, reason: Reason) {
        self.turned_away[door as usize][reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often that has happened: socket, reason, count.
    pub fn turned_away_counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut counts = Vec::new();
        for (door, of_door) in ["control", "ipvs"].into_iter().zip(&self.turned_away) {
            for (reason, count) in ["credentials", "connections", "memory"].into_iter().zip(of_door) {
                counts.push((door, reason, count.load(Ordering::Relaxed)));
            }
        }
        counts
    }

    /// A second has passed: what had no line is summed up, and there may be lines again.
    pub fn second(&self) {
        let untold = {
            let mut lines = self.lock();
            lines.left = AT_ONCE.min(lines.left + PER_SECOND);
            std::mem::take(&mut lines.untold)
        };
        for ((kind, _), untold) in untold {
            tracing::info!("{}", summary(kind, &untold));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a line for this; else it is summed up later.
    fn has_line(&self, kind: Kind, by: By) -> bool {
        let mut lines = self.lock();
        if lines.left > 0 {
            lines.left -= 1;
            return true;
        }
        let user = if let By::Peer(peer) = by { Some(peer.user) } else { None };
        let untold = lines.untold.entry((kind, user)).or_insert(Untold { count: 0, last: by, is_only: true });
        untold.is_only &= untold.last == by;
        (untold.count, untold.last) = (untold.count + 1, by);
        false
    }
}

fn summary(kind: Kind, Untold { count, last, is_only }: &Untold) -> String {
    let what = match kind {
        Kind::Changed => "more changes",
        Kind::Refused => "more commands of IPVS's tools refused",
    };
    let others = if *is_only { "" } else { " and processes before it" };
    format!("{count} {what}, by {last}{others}, without a line each: RUST_LOG=fullgate::control=debug shows all")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(process: i32) -> By {
        By::Peer(Peer { user: 7, process })
    }

    fn untold(audit: &Audit) -> Vec<String> {
        audit.lock().untold.iter().map(|(&(kind, _), untold)| summary(kind, untold)).collect()
    }

    #[test]
    fn single_changes_have_their_lines_and_a_bulk_is_summed_up() {
        let audit = Audit::default();
        let told = (0..15_000).filter(|_| audit.has_line(Kind::Changed, by(1))).count();
        assert_eq!(told, AT_ONCE as usize);
        let expected =
            "14800 more changes, by uid 7, pid 1, without a line each: RUST_LOG=fullgate::control=debug shows all";
        assert_eq!(untold(&audit), [expected]);
        audit.has_line(Kind::Changed, by(2));
        audit.has_line(Kind::Refused, by(2));
        assert!(untold(&audit)[0].contains("by uid 7, pid 2 and processes before it"));
        assert!(untold(&audit)[1].starts_with("1 more commands of IPVS's tools refused, by uid 7, pid 2, "));
        audit.second();
        assert_eq!(untold(&audit), [""; 0]);
        assert_eq!((0..1_000).filter(|_| audit.has_line(Kind::Changed, by(1))).count(), PER_SECOND as usize);
    }

    #[test]
    fn who_is_turned_away_is_counted() {
        let audit = Audit::default();
        audit.turned_away(Door::Ipvs, Reason::Credentials);
        audit.turned_away(Door::Control, Reason::Connections);
        let counts = audit.turned_away_counts();
        assert_eq!(counts.iter().map(|(_, _, count)| *count).collect::<Vec<_>>(), [0, 1, 0, 1, 0, 0]);
    }
}
