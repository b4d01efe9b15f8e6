//! Who serves a new session: one worker's scheduler cursors, and its view of every worker's connection counts.

use std::sync::Arc;

use crate::balance::scheduler::{Arrival, Cursor, Load, Loads};
use crate::balance::{Overloads, RealServer, RealServerSlot, Service, ServiceTable};
use crate::flow::HashSeed;
use crate::port::WorkerId;
use crate::telemetry::counters::WorkerCounters;

/// Services that there is room for from the start. A table with more makes room when it is adopted, which takes a worker
/// some hundred microseconds once.
pub(super) const CURSORS: usize = 1 << 16;

/// One worker's scheduling state. It lives longer than any one service table.
#[derive(Debug)]
pub struct Balancer {
    cursors: Vec<Cursor>,
    /// What a cursor begins as.
    new: Cursor,
    /// Every worker's counters.
    counters: Arc<[Arc<WorkerCounters>]>,
}

impl Balancer {
    /// For a worker of a gateway whose workers count here.
    pub fn new(counters: Arc<[Arc<WorkerCounters>]>, worker: WorkerId, seed: HashSeed) -> Self {
        let new = Cursor::new(worker, seed.0[0] ^ seed.0[1].rotate_left(32));
        Self { cursors: vec![new; CURSORS], new, counters }
    }

    /// Makes room for what a new table names, where there is not enough. There are no more real servers than the
    /// counters have slots for.
    pub fn adopt(&mut self, services: &ServiceTable) {
        if self.cursors.len() < services.cursor_count {
            self.cursors.resize(services.cursor_count, self.new);
        }
    }

    /// Chooses a real server for a new session of a service, by their indices.
    #[inline]
    pub fn choose(&mut self, table: &ServiceTable, service: usize, arrival: &Arrival) -> Option<usize> {
        let service = table.services.get(service)?;
        let cursor = self.cursors.get_mut(service.cursor)?;
        let loads = View { overloads: &table.overloads, counters: &self.counters };
        cursor.schedule(service, table.generation, arrival, &loads)
    }

    /// Sessions of a service's real servers now, over all workers. Each of the others may be setting one up.
    pub fn connections(&self, service: &Service) -> u64 {
        let counters = service.real_servers.iter().flat_map(|server| {
            self.counters.iter().filter_map(|worker| worker.real_servers.get(server.slot.0 as usize))
        });
        counters.map(|own| own.active.get().wrapping_add(own.inactive.get())).fold(0, u64::wrapping_add)
    }

    /// A real server gets a session without being considered, or has got one: looks whether its thresholds hold it back
    /// before, or from then on.
    #[inline]
    pub fn look_at(&self, table: &ServiceTable, server: &RealServer) {
        if server.upper_threshold > 0 {
            View { overloads: &table.overloads, counters: &self.counters }.is_overloaded(server);
        }
    }
}

struct View<'b> {
    overloads: &'b Overloads,
    counters: &'b [Arc<WorkerCounters>],
}

impl Loads for View<'_> {
    /// The sum over all workers. What they count has one writer each: a worker may be behind by the sessions that others
    /// have set up within the last fractions of a microsecond.
    #[inline]
    fn load(&self, slot: RealServerSlot) -> Load {
        let servers = self.counters.iter().filter_map(|worker| worker.real_servers.get(slot.0 as usize));
        servers.fold(Load::default(), |sum, server| Load {
            active: sum.active + server.active.get(),
            inactive: sum.inactive + server.inactive.get(),
        })
    }

    #[inline]
    fn is_overloaded(&self, server: &RealServer) -> bool {
        if server.upper_threshold == 0 {
            return false;
        }
        let load = self.load(server.slot);
        self.overloads.is_overloaded(server, load.active + load.inactive)
    }
}
