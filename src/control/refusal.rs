//! How rules that a request breaks become the refusal of it. The rules are the configuration's.

use std::fmt::Display;

use super::protocol::{ErrorKind, Refusal};
use crate::config::rules::Fault;

impl Refusal {
    /// A refusal of this kind for this reason.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

pub(super) fn refuse<T>(kind: ErrorKind, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(kind, message))
}

/// Refuses what has faults, one a line, in the words that a whole configuration is refused with.
pub(super) fn check(
    kind: ErrorKind,
    subject: impl Display,
    faults: impl IntoIterator<Item = Fault>,
) -> Result<(), Refusal> {
    let lines: Vec<String> = faults.into_iter().map(|fault| format!("{subject}: {fault}")).collect();
    if lines.is_empty() { Ok(()) } else { refuse(kind, lines.join("\n")) }
}

/// Refuses for one fault.
pub(super) fn broken<T>(kind: ErrorKind, subject: impl Display, fault: &Fault) -> Result<T, Refusal> {
    refuse(kind, format!("{subject}: {fault}"))
}

/// Words with commas between, or `none`.
pub(super) fn list<T: Display>(items: impl Iterator<Item = T>) -> String {
    let words: Vec<String> = items.map(|item| item.to_string()).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}
