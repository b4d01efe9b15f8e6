//! What lies between one worker and the control thread: bounded rings, a wake-up, and shared counters.
//!
//! Workers never block and never free what control made: old tables travel back to be dropped there. The control
//! thread sleeps; a worker that has something for it wakes it through an event that it raises at most once until
//! control has woken ([`Waker`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;

use crate::balance::ServiceTable;
use crate::forward::{Hop, PuntClass};
use crate::port::{PortId, WorkerId};
use crate::route::RouteTable;
use crate::session::SessionView;
use crate::telemetry::counters::WorkerCounters;

/// What workers know of the world: two immutable tables, swapped together at a burst boundary.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Services, real servers, local pools, timeouts.
    pub services: Arc<ServiceTable>,
    /// Routes and neighbours.
    pub routes: Arc<RouteTable>,
}

/// A frame for the kernel.
#[derive(Debug)]
pub struct Punt<F> {
    /// The port that it came in by.
    pub port: PortId,
    /// Its class.
    pub class: PuntClass,
    /// The frame.
    pub frame: F,
}

/// A frame from the kernel, to be sent out of a port as it is.
#[derive(Debug)]
pub struct Inject<F> {
    /// The port.
    pub port: PortId,
    /// The frame.
    pub frame: F,
}

/// A walk over a worker's sessions, done in steps between bursts.
#[derive(Debug)]
pub struct SessionQuery {
    /// Where to go on in the table; 0 at first.
    pub next: u64,
    /// Filled by the worker up to the capacity that control gave it, never beyond.
    pub found: Vec<SessionView>,
    /// Set by the worker at the end of the table.
    pub done: bool,
}

/// Raises an event for a sleeping thread, once until it has woken.
#[derive(Debug)]
pub struct Waker<E> {
    asleep: AtomicBool,
    event: E,
}

/// Something that can be raised from any thread without blocking: an eventfd in the gateway.
pub trait Event {
    /// Raises it.
    fn raise(&self);
}

impl<E: Event> Waker<E> {
    /// A waker for a thread that is awake.
    pub fn new(event: E) -> Self {
        Self { asleep: AtomicBool::new(false), event }
    }

    /// Called by the thread before it looks at its rings for the last time and sleeps.
    pub fn going_to_sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// Called after something was put on a ring.
    pub fn wake(&self) {
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::SeqCst) {
            self.event.raise();
        }
    }

    /// The event itself, to wait on.
    pub fn event(&self) -> &E {
        &self.event
    }
}

/// One worker's link to the control thread, shared by both.
#[derive(Debug)]
pub struct WorkerLink<F, E> {
    /// Which worker.
    pub worker: WorkerId,
    /// Set by control: finish what is under way and return.
    pub stop: AtomicBool,
    /// Control to worker: new tables.
    pub snapshots: ArrayQueue<Arc<Snapshot>>,
    /// Worker to control: tables that the worker has left, for control to drop.
    pub retired: ArrayQueue<Arc<Snapshot>>,
    /// Worker to control: frames for the kernel.
    pub punts: ArrayQueue<Punt<F>>,
    /// Control to worker: frames from the kernel.
    pub injects: ArrayQueue<Inject<F>>,
    /// Worker to control: next hops to resolve.
    pub unresolved: ArrayQueue<Hop>,
    /// Control to worker: walks over the sessions.
    pub queries: ArrayQueue<SessionQuery>,
    /// Worker to control: the same walks, a step further.
    pub answers: ArrayQueue<SessionQuery>,
    /// What the worker counts.
    pub counters: Arc<WorkerCounters>,
    /// Wakes the control thread.
    pub waker: Arc<Waker<E>>,
}

/// Snapshots that can be on their way at once. Control waits for room before it publishes more.
pub const SNAPSHOT_RING: usize = 8;
/// Frames for the kernel that can be on their way at once.
pub const PUNT_RING: usize = 1024;
/// Frames from the kernel that can be on their way at once.
pub const INJECT_RING: usize = 1024;
/// Requests to resolve a next hop that can be on their way at once.
pub const UNRESOLVED_RING: usize = 256;

impl<F, E> WorkerLink<F, E> {
    /// A link with empty rings.
    pub fn new(worker: WorkerId, counters: Arc<WorkerCounters>, waker: Arc<Waker<E>>) -> Self {
        Self {
            worker,
            stop: AtomicBool::new(false),
            snapshots: ArrayQueue::new(SNAPSHOT_RING),
            retired: ArrayQueue::new(2 * SNAPSHOT_RING),
            punts: ArrayQueue::new(PUNT_RING),
            injects: ArrayQueue::new(INJECT_RING),
            unresolved: ArrayQueue::new(UNRESOLVED_RING),
            queries: ArrayQueue::new(1),
            answers: ArrayQueue::new(1),
            counters,
            waker,
        }
    }
}
