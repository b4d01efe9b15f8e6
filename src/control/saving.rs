//! When the state is written: soon after a change, again after a failure, and at the end; by another thread, one
//! write at a time, several changes together.

use std::future::pending;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::kept::KeptSettings;
use super::persistence::{StateError, StateStore};
use crate::config::BalanceConfig;

/// From a change to its being written.
const SAVE_DELAY: Duration = Duration::from_millis(100);
/// From a failed write to the next attempt.
const SAVE_RETRY: Duration = Duration::from_secs(5);

/// What became of a write.
type Written = Result<Result<(), StateError>, JoinError>;

/// What is to be written, and how it goes.
#[derive(Debug)]
pub(super) struct Saving {
    store: Option<StateStore>,
    /// A change waits to be written then.
    due: Option<Instant>,
    /// A write under way.
    writing: Option<JoinHandle<Result<(), StateError>>>,
    failures: u64,
}

impl Saving {
    /// Keeps changes in this store, if there is one.
    pub fn new(store: Option<StateStore>) -> Self {
        Self { store, due: None, writing: None, failures: 0 }
    }

    /// When to begin the next write.
    pub fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.writing.is_none())
    }

    /// How many writes have failed.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// A change has been made.
    pub fn changed(&mut self) {
        if self.store.is_some() && self.due.is_none() {
            self.due = Some(Instant::now() + SAVE_DELAY);
        }
    }

    /// Begins to write this, if none is under way.
    pub fn start(&mut self, balance: BalanceConfig, kept: KeptSettings) {
        self.due = None;
        if let Some(writer) = self.store.as_ref().map(StateStore::writer) {
            self.writing = Some(tokio::task::spawn_blocking(move || writer.save(&balance, &kept)));
        }
    }

    /// Takes note of what became of a write.
    pub fn finish(&mut self, result: Written) {
        self.writing = None;
        let failure = match result {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        self.failures += 1;
        let seconds = SAVE_RETRY.as_secs();
        tracing::error!("the state was not written, trying again in {seconds} seconds: {failure}");
        self.due = Some(Instant::now() + SAVE_RETRY);
    }

    /// What became of the write under way; waits forever if there is none. Cancel safe.
    pub async fn written(&mut self) -> Written {
        match &mut self.writing {
            Some(handle) => handle.await,
            None => pending().await,
        }
    }

    /// Waits for the write under way, and writes what it did not hold.
    pub async fn end(&mut self, state: impl FnOnce() -> (BalanceConfig, KeptSettings)) {
        if let Some(writing) = self.writing.take() {
            self.finish(writing.await);
        }
        if self.due.take().is_some()
            && let Some(store) = &self.store
        {
            let (balance, kept) = state();
            if let Err(error) = store.writer().save(&balance, &kept) {
                tracing::error!(%error, "the last changes are not kept for the next start");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_write_is_counted_and_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = StateStore::open(directory.path()).unwrap();
        let obstacle = directory.path().join("services.json.new");
        std::fs::create_dir(&obstacle).unwrap();
        let mut saving = Saving::new(Some(store));
        saving.changed();
        assert!(saving.due().is_some_and(|due| due <= Instant::now() + SAVE_DELAY));
        saving.start(BalanceConfig::default(), KeptSettings::default());
        assert_eq!(saving.due(), None, "one write at a time");
        let result = saving.written().await;
        saving.finish(result);
        assert_eq!(saving.failures(), 1);
        assert!(saving.due().is_some_and(|due| due > Instant::now() + SAVE_DELAY));
        std::fs::remove_dir(&obstacle).unwrap();
        saving.end(|| (BalanceConfig::default(), KeptSettings::default())).await;
        assert!(directory.path().join("services.json").exists());
    }
}
