//! Who serves a new session: one worker's scheduler cursors, and its view of every worker's connection counts.

use std::sync::Arc;

use crate::balance::scheduler::{Cursor, Load, Loads};
use crate::balance::{RealServer, RealServerSlot, Service, ServiceTable};
use crate::telemetry::counters::WorkerCounters;

/// Services that there is room for from the start. A table with more makes room when it is adopted, which takes a worker
/// some hundred microseconds once.
pub(super) const CURSORS: usize = 1 << 16;

/// One worker's scheduling state. It lives longer than any one service table.
#[derive(Debug)]
pub struct Balancer {
    cursors: Vec<Cursor>,
    /// By real-server slot: whether it has reached its upper threshold and not yet fallen below the lower one.
    overloaded: Vec<bool>,
    /// Every worker's counters.
    counters: Arc<[Arc<WorkerCounters>]>,
}

impl Balancer {
    /// For a gateway whose workers count here.
    pub fn new(counters: Arc<[Arc<WorkerCounters>]>) -> Self {
        let slots = counters.first().map_or(0, |counters| counters.real_servers.len());
        Self { cursors: vec![Cursor::default(); CURSORS], overloaded: vec![false; slots], counters }
    }

    /// Makes room for what a new table names, where there is not enough. There are no more real servers than the
    /// counters have slots for.
    pub fn adopt(&mut self, services: &ServiceTable) {
        if self.cursors.len() < services.cursor_count {
            self.cursors.resize_with(services.cursor_count, Cursor::default);
        }
    }

    /// Chooses a real server for a new session of this service, and gives its index.
    #[inline]
    pub fn choose(&mut self, service: &Service, generation: u64) -> Option<usize> {
        for server in service.real_servers.iter().filter(|server| server.upper_threshold > 0) {
            self.update_overload(server);
        }
        let cursor = self.cursors.get_mut(service.cursor)?;
        let loads = View { overloaded: &self.overloaded, counters: &self.counters };
        cursor.schedule(service, generation, &loads)
    }

    /// Overloaded from the upper threshold on, until below the lower one, or three quarters of the upper if that is
    /// 0 (net/netfilter/ipvs/ip_vs_conn.c, `ip_vs_dest_update_overload`).
    fn update_overload(&mut self, server: &RealServer) {
        let load = load(&self.counters, server.slot);
        let connections = load.active + load.inactive;
        let upper = u64::from(server.upper_threshold);
        let lower = if server.lower_threshold > 0 { u64::from(server.lower_threshold) } else { upper - upper / 4 };
        if let Some(overloaded) = self.overloaded.get_mut(server.slot.0 as usize) {
            *overloaded = connections >= upper || (*overloaded && connections >= lower);
        }
    }
}

struct View<'b> {
    overloaded: &'b [bool],
    counters: &'b [Arc<WorkerCounters>],
}

impl Loads for View<'_> {
    fn load(&self, slot: RealServerSlot) -> Load {
        load(self.counters, slot)
    }

    fn is_overloaded(&self, server: &RealServer) -> bool {
        server.upper_threshold > 0 && self.overloaded.get(server.slot.0 as usize).copied().unwrap_or(false)
    }
}

/// The sum over all workers.
fn load(counters: &[Arc<WorkerCounters>], slot: RealServerSlot) -> Load {
    let servers = counters.iter().filter_map(|worker| worker.real_servers.get(slot.0 as usize));
    servers.fold(Load::default(), |sum, server| Load {
        active: sum.active + server.active.get(),
        inactive: sum.inactive + server.inactive.get(),
    })
}
