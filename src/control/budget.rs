//! The memory that unfinished requests and unsent replies may take, over all connections of the control socket.
//!
//! Each connection has a little of its own, which nearly every line fits into, and which nobody can take from it. What is
//! longer has its memory from one budget, by the bytes that are reserved for it; what does not fit is refused, and the others
//! go on. Long lines are read into requests, and long replies made, by one connection at a time: for that moment they take
//! several times their length.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::protocol::{ErrorKind, MAX_LINE, Refusal, Request};

/// Bytes of unfinished requests and unsent replies, over all connections, besides what each has of its own: four of the
/// longest lines.
pub(super) const BUDGET: usize = 4 * MAX_LINE;
/// Who has memory of the budget has it for so long: to finish a request, or to take a reply.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that each connection has of its own, for a request and for a reply.
pub(super) const OWN: usize = 64 << 10;

/// How much memory it takes to answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Little, whatever there is.
    Short,
    /// Much where much is configured or asked for.
    Long,
    /// Much where there are many sessions, and time.
    Walk,
}

impl Work {
    /// Of this request.
    pub fn of(request: &Request) -> Self {
        match request {
            Request::SessionList { .. } | Request::TemplateList { .. } => Self::Walk,
            Request::Apply { .. } | Request::ServiceList { .. } | Request::LocalList {} | Request::Stats {} => {
                Self::Long
            }
            _ => Self::Short,
        }
    }
}

/// The budget of one socket.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    bytes: Arc<Semaphore>,
    /// Who reads a long line, or makes a long reply of what the control thread has.
    long_work: Arc<Semaphore>,
    /// Who makes one of what the workers have.
    walks: Arc<Semaphore>,
    patience: Duration,
}

impl Budget {
    /// All of it, this many bytes, of which a line may have some for so long.
    pub fn new(bytes: usize, patience: Duration) -> Self {
        let one = || Arc::new(Semaphore::new(1));
        Self { bytes: Arc::new(Semaphore::new(bytes)), long_work: one(), walks: one(), patience }
    }

    /// Room for a line, none taken of the budget yet.
    pub fn line(&self) -> Reserved {
        Reserved { bytes: Arc::clone(&self.bytes), taken: None, patience: self.patience, deadline: None }
    }

    /// Waits for the others' work of this kind. That waits for no client, so that this ends.
    pub async fn turn(&self, work: Work) -> Option<SemaphorePermit<'_>> {
        // No semaphore is ever closed.
        match work {
            Work::Short => None,
            Work::Long => self.long_work.acquire().await.ok(),
            Work::Walk => self.walks.acquire().await.ok(),
        }
    }
}

/// What one line has of the budget, until this is dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    bytes: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
    patience: Duration,
    deadline: Option<Instant>,
}

impl Reserved {
    /// Until when the line may have what it has of the budget; none: it has nothing.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Room for a line of this many bytes in all.
    ///
    /// Refused where the budget has not that much left; what was taken before stays.
    pub fn grow_to(&mut self, length: usize) -> Result<(), Refusal> {
        let has = OWN + self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(more) = length.checked_sub(has).filter(|&more| more > 0) else { return Ok(()) };
        let more = u32::try_from(more).map_err(|_| none_left(length))?;
        let new = Arc::clone(&self.bytes).try_acquire_many_owned(more).map_err(|_| none_left(length))?;
        match &mut self.taken {
            Some(taken) => taken.merge(new),
            None => {
                self.taken = Some(new);
                self.deadline = Some(Instant::now() + self.patience);
            }
        }
        Ok(())
    }
}

fn none_left(length: usize) -> Refusal {
    let message = format!(
        "there is no memory for a line of {length} bytes: unfinished requests and unsent replies of all connections \
         together may have {BUDGET} bytes, besides {OWN} each; try again, or ask for less"
    );
    Refusal::new(ErrorKind::Limit, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_share_the_budget_and_each_has_its_own_part() {
        let budget = Budget::new(1_000, PATIENCE);
        let (mut one, mut other) = (budget.line(), budget.line());
        one.grow_to(OWN).unwrap();
        assert!(one.deadline().is_none());
        one.grow_to(OWN + 600).unwrap();
        one.grow_to(OWN + 500).unwrap();
        assert_eq!(other.grow_to(OWN + 401).unwrap_err().kind, ErrorKind::Limit);
        other.grow_to(OWN + 400).unwrap();
        one.grow_to(OWN + 601).unwrap_err();
        drop(other);
        one.grow_to(OWN + 1_000).unwrap();
        drop(one);
        assert_eq!(budget.bytes.available_permits(), 1_000);
    }
}
