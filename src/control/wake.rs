//! The eventfd by which workers wake the control thread, and the waiting side of it.
//!
//! Invariant: the waiting side looks at its rings once more between [`Waker::going_to_sleep`] and sleeping, so that
//! what a worker put on a ring before it could see the sleeper is not left there.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use tokio::net::unix::pipe;

use crate::worker::link::{Event, Waker};

/// An eventfd. Raising it is one system call that never blocks.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new one, not raised.
    ///
    /// # Errors
    /// As eventfd(2): out of file descriptors or memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
    }
}

impl Event for EventFd {
    fn raise(&self) {
        // Fails only with EAGAIN, when 2^64 - 2 raises were not taken back: then it is raised as it is.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// The control thread's side of a [`Waker`].
#[derive(Debug)]
pub struct Sleeper {
    waker: Arc<Waker<EventFd>>,
    /// The eventfd once more, as something that the runtime can watch and read: to it an eventfd is like the reading
    /// end of a pipe. (The runtime's `AsyncFd` cannot be made without `unsafe`.)
    raised: pipe::Receiver,
}

impl Sleeper {
    /// Waits for what `waker` raises. Must be called inside a tokio runtime with I/O.
    ///
    /// # Errors
    /// Out of file descriptors, or the runtime cannot watch another one.
    pub fn new(waker: Arc<Waker<EventFd>>) -> io::Result<Self> {
        let raised = pipe::Receiver::from_owned_fd_unchecked(waker.event().0.try_clone()?)?;
        Ok(Self { waker, raised })
    }

    /// Sleeps until a worker has something for the control thread; `has_work` looks whether there is something on a
    /// ring already. May return without anything there to do. Cancel safe.
    ///
    /// # Errors
    /// When the runtime's I/O driver has stopped.
    pub async fn woken(&self, has_work: impl Fn() -> bool) -> io::Result<()> {
        self.waker.going_to_sleep();
        if has_work() {
            return Ok(());
        }
        self.raised.readable().await?;
        // The first read takes back all raises at once, the one that fails tells the runtime to watch again.
        while self.raised.try_read(&mut [0; 8]).is_ok_and(|len| len > 0) {}
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn work_that_is_there_already_is_not_slept_over() {
        let waker = Arc::new(Waker::new(EventFd::new().unwrap()));
        let sleeper = Sleeper::new(Arc::clone(&waker)).unwrap();
        tokio::time::timeout(Duration::from_secs(10), sleeper.woken(|| true)).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn every_item_of_another_thread_is_seen() {
        const ITEMS: usize = 20_000;
        let waker = Arc::new(Waker::new(EventFd::new().unwrap()));
        let sleeper = Sleeper::new(Arc::clone(&waker)).unwrap();
        let made = Arc::new(AtomicUsize::new(0));
        let worker = {
            let made = Arc::clone(&made);
            std::thread::spawn(move || {
                for _ in 0..ITEMS {
                    made.fetch_add(1, Ordering::Release);
                    waker.wake();
                }
            })
        };
        let mut seen = 0;
        while seen < ITEMS {
            let woken = sleeper.woken(|| made.load(Ordering::Acquire) > seen);
            tokio::time::timeout(Duration::from_secs(10), woken).await.unwrap().unwrap();
            seen = made.load(Ordering::Acquire);
        }
        worker.join().unwrap();
    }
}
