//! A worker's thread: its end, foreseen or not, is always told.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};

use crate::port::WorkerId;

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was told to.
    Stopped,
    /// It could not begin.
    NotStarted(String),
    /// It panicked, with this message.
    Panicked(String),
}

/// Starts a worker's thread. `told` is called on it with the worker's end, whatever that is, as the last thing.
pub fn spawn(
    worker: WorkerId,
    run: impl FnOnce() -> Result<(), String> + Send + 'static,
    told: impl FnOnce(WorkerId, Exit) + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name(format!("worker-{}", worker.0)).spawn(move || {
        let exit = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(())) => Exit::Stopped,
            Ok(Err(reason)) => Exit::NotStarted(reason),
            Err(payload) => Exit::Panicked(message(payload.as_ref())),
        };
        told(worker, exit);
    })
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn end_of(run: impl FnOnce() -> Result<(), String> + Send + 'static) -> (WorkerId, Exit) {
        let (sender, receiver) = mpsc::channel();
        let thread = spawn(WorkerId(3), run, move |worker, exit| sender.send((worker, exit)).unwrap()).unwrap();
        thread.join().unwrap();
        receiver.recv().unwrap()
    }

    #[test]
    fn every_end_is_told() {
        assert_eq!(end_of(|| Ok(())), (WorkerId(3), Exit::Stopped));
        assert_eq!(end_of(|| Err("no such core".into())), (WorkerId(3), Exit::NotStarted("no such core".into())));
        assert_eq!(end_of(|| panic!("lost {}", 7)), (WorkerId(3), Exit::Panicked("lost 7".into())));
    }
}
