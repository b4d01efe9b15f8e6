//! Gives workers new tables and takes the old ones back.
//!
//! A worker holds one snapshot. When it takes a newer one off its ring, it puts the one that it held on `retired`,
//! and so those that it skipped: snapshots come back in the order in which they were sent. A worker has therefore
//! *adopted* the oldest snapshot that it has not given back, if that has been preceded by one that it did. Until it
//! gives the first one back it has adopted only that.
//!
//! Every snapshot is held here until the worker gives it back, so that none is ever freed on a worker. Where a ring
//! is full, only the newest snapshot waits for room: those between would be skipped anyway.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::balance::ServiceTable;
use crate::route::RouteTable;
use crate::worker::link::{Snapshot, WorkerLink};

/// Publishes snapshots to all workers.
#[derive(Debug)]
pub struct Publisher<F, E> {
    links: Vec<Arc<WorkerLink<F, E>>>,
    lanes: Vec<Lane>,
    current: Arc<Snapshot>,
}

/// What one worker holds, or will.
#[derive(Debug)]
struct Lane {
    /// Sent and not given back, oldest first; the first is the one that the worker holds.
    sent: VecDeque<Arc<Snapshot>>,
    /// The newest one, where the ring had no room for it.
    waiting: Option<Arc<Snapshot>>,
}

impl<F, E> Publisher<F, E> {
    /// A publisher for workers that begin with `first`: nothing is sent yet.
    pub fn new(links: Vec<Arc<WorkerLink<F, E>>>, first: Arc<Snapshot>) -> Self {
        let lanes = links.iter().map(|_| Lane { sent: VecDeque::from([first.clone()]), waiting: None });
        Self { lanes: lanes.collect(), links, current: first }
    }

    /// What was published last.
    pub fn current(&self) -> &Arc<Snapshot> {
        &self.current
    }

    /// Publishes new services beside the routes as they are.
    pub fn publish_services(&mut self, services: Arc<ServiceTable>) {
        self.publish(Snapshot { services, routes: self.current.routes.clone() });
    }

    /// Publishes new routes beside the services as they are.
    pub fn publish_routes(&mut self, routes: Arc<RouteTable>) {
        self.publish(Snapshot { services: self.current.services.clone(), routes });
    }

    fn publish(&mut self, snapshot: Snapshot) {
        self.current = Arc::new(snapshot);
        for lane in &mut self.lanes {
            lane.waiting = Some(self.current.clone());
        }
        self.exchange();
    }

    /// Takes back what workers have left, drops it, and sends what waits. True when nothing is under way any more:
    /// every worker has adopted the current snapshot.
    pub fn exchange(&mut self) -> bool {
        for (lane, link) in self.lanes.iter_mut().zip(&self.links) {
            while let Some(retired) = link.retired.pop() {
                lane.take_back(&retired);
            }
            if let Some(snapshot) = lane.waiting.take() {
                match link.snapshots.push(snapshot.clone()) {
                    Ok(()) => lane.sent.push_back(snapshot),
                    Err(snapshot) => lane.waiting = Some(snapshot),
                }
            }
        }
        self.settled()
    }

    fn settled(&self) -> bool {
        self.lanes.iter().all(|lane| lane.waiting.is_none() && lane.sent.len() <= 1)
    }

    /// The oldest [`ServiceTable::generation`] that a worker may still use; [`Publisher::exchange`] brings it up to
    /// date. Without workers, that of the current snapshot.
    pub fn adopted(&self) -> u64 {
        let fronts = self.lanes.iter().filter_map(|lane| lane.sent.front());
        fronts.map(|snapshot| snapshot.services.generation).min().unwrap_or(self.current.services.generation)
    }
}

impl Lane {
    /// Forgets a snapshot that came back, and any older one. One that was not sent from here is let go.
    fn take_back(&mut self, retired: &Arc<Snapshot>) {
        if let Some(position) = self.sent.iter().position(|sent| Arc::ptr_eq(sent, retired)) {
            self.sent.drain(..=position);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::thread;

    use super::*;
    use crate::port::WorkerId;
    use crate::port::memory::MemoryFrame;
    use crate::telemetry::counters::{SlotLimits, WorkerCounters};
    use crate::worker::link::{Event, SNAPSHOT_RING, Waker};

    #[derive(Debug)]
    struct NoEvent;

    impl Event for NoEvent {
        fn raise(&self) {}
    }

    type Link = Arc<WorkerLink<MemoryFrame, NoEvent>>;

    fn link() -> Link {
        let counters = WorkerCounters::new(SlotLimits { real_servers: 1, local_addresses: 1 });
        Arc::new(WorkerLink::new(WorkerId(0), Arc::new(counters), Arc::new(Waker::new(NoEvent))))
    }

    fn table(generation: u64) -> Arc<ServiceTable> {
        Arc::new(ServiceTable { generation, ..ServiceTable::default() })
    }

    fn first() -> Arc<Snapshot> {
        Arc::new(Snapshot { services: table(1), routes: Arc::new(RouteTable::default()) })
    }

    #[test]
    fn a_full_ring_gets_only_the_newest_and_adoption_follows_what_comes_back() {
        let link = link();
        let first = first();
        let mut publisher = Publisher::new(vec![link.clone()], first.clone());
        for generation in 2..100 {
            publisher.publish_services(table(generation));
        }
        assert_eq!((link.snapshots.len(), publisher.adopted(), publisher.exchange()), (SNAPSHOT_RING, 1, false));
        let second = link.snapshots.pop().unwrap();
        link.retired.push(first).unwrap();
        assert!(!publisher.exchange());
        assert_eq!((publisher.adopted(), link.snapshots.len()), (2, SNAPSHOT_RING), "the newest took the room");
        let mut held = second;
        while let Some(next) = link.snapshots.pop() {
            link.retired.push(std::mem::replace(&mut held, next)).unwrap();
        }
        assert_eq!(held.services.generation, 99);
        assert!(publisher.exchange());
        assert_eq!((publisher.adopted(), Arc::strong_count(&held)), (99, 3), "ours twice and the worker's");
    }

    #[test]
    fn new_routes_leave_the_services_as_they_are() {
        let link = link();
        let mut publisher = Publisher::new(vec![link.clone()], first());
        publisher.publish_services(table(2));
        let routes = Arc::new(RouteTable::default());
        publisher.publish_routes(routes.clone());
        link.snapshots.pop();
        let snapshot = link.snapshots.pop().unwrap();
        assert_eq!(snapshot.services.generation, 2);
        assert!(Arc::ptr_eq(&snapshot.routes, &routes));
    }

    #[test]
    fn workers_move_on_while_tables_come_and_free_none_of_them() {
        let links: Vec<Link> = (0..2).map(|_| link()).collect();
        let first = first();
        let mut publisher = Publisher::new(links.clone(), first.clone());
        let seen: Vec<AtomicU64> = (0..2).map(|_| AtomicU64::new(1)).collect();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for (link, seen) in links.iter().zip(&seen) {
                let (stop, mut held) = (&stop, first.clone());
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        if let Some(next) = link.snapshots.pop() {
                            assert!(next.services.generation > held.services.generation);
                            seen.store(next.services.generation, Ordering::Release);
                            link.retired.push(std::mem::replace(&mut held, next)).unwrap();
                        }
                        thread::yield_now();
                    }
                    held
                });
            }
            for generation in 2..=2_000 {
                publisher.publish_services(table(generation));
                let adopted = publisher.adopted();
                assert!(seen.iter().all(|seen| seen.load(Ordering::Acquire) >= adopted));
            }
            while !publisher.exchange() {
                thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(publisher.adopted(), 2_000);
        assert!(seen.iter().all(|seen| seen.load(Ordering::Acquire) == 2_000));
    }
}
