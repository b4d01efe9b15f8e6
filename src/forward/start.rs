//! A forwarder's beginning, and its change to new tables: all that is done once, or once a publication, so that packets find it done.

use std::sync::Arc;

use pages::Region;

use super::balancer::{self, Balancer};
use super::datagrams::Datagrams;
use super::defence::Defence;
use super::{Forwarder, ForwarderConfig, Now, TokenBucket};
use crate::balance::ServiceTable;
use crate::port::{BURST_SIZE, PortId};
use crate::route::RouteTable;
use crate::session::Tables;
use crate::session::local_port::LocalPorts;
use crate::session::tcp_state::TimeoutTable;

/// ICMP errors that one worker sends a second at most (the kernel's icmp_msgs_per_sec).
const ICMP_ERRORS_PER_SECOND: u32 = 1000;

impl Forwarder {
    /// A forwarder without services and routes, with memory of the heap. None if its index is not among the counters.
    pub fn new(config: ForwarderConfig, now: Now) -> Option<Self> {
        let mut region = Region::on_heap(config.session_capacity.memory_bytes());
        Self::in_region(config, &mut region, now)
    }

    /// The same with memory of a region. None, too, if that has not as many bytes left as [`Capacity::memory_bytes`](crate::session::Capacity::memory_bytes)
    /// says.
    pub fn in_region(config: ForwarderConfig, region: &mut Region, now: Now) -> Option<Self> {
        let (capacity, workers) = (config.session_capacity, config.workers.max(1));
        let counters = config.counters.get(config.worker.index())?.clone();
        let services = Arc::new(ServiceTable::default());
        Some(Self {
            worker: config.worker,
            workers,
            ports: config.ports,
            ownership: config.ownership,
            timeouts: TimeoutTable::new(&services.timeouts),
            services,
            routes: Arc::default(),
            sessions: Tables::cut(region, capacity, config.seed, now.tick)?,
            local_ports: LocalPorts::new(config.worker, workers),
            balancer: Balancer::new(config.counters, config.worker, config.seed),
            local_turns: vec![0; balancer::CURSORS],
            counters,
            icmp_errors: TokenBucket::new(ICMP_ERRORS_PER_SECOND),
            defence: Defence::default(),
            identification: 0,
            seed: config.seed,
            has_exact_only: true,
            clamps_mss: false,
            leads_fragments: false,
            met_removed: false,
            swept: usize::MAX,
            datagrams: Datagrams::default(),
            arrived: Vec::with_capacity(BURST_SIZE),
        })
    }

    /// Goes over to new tables. To be called between bursts. The old ones are given back for someone else to drop. What
    /// it costs does not depend on how many services there are.
    pub fn adopt(
        &mut self,
        services: Arc<ServiceTable>,
        routes: Arc<RouteTable>,
    ) -> (Arc<ServiceTable>, Arc<RouteTable>) {
        self.balancer.adopt(&services);
        if self.local_turns.len() < services.cursor_count {
            self.local_turns.resize(services.cursor_count, 0);
        }
        self.timeouts = TimeoutTable::new(&services.timeouts);
        for (port, view) in (0..).map(PortId).zip(&mut self.ports) {
            view.mac = routes.interface(port).map_or(view.mac, |interface| interface.mac);
        }
        let old = (std::mem::replace(&mut self.services, services), std::mem::replace(&mut self.routes, routes));
        self.clamps_mss = self.wants_mss_clamped();
        self.begin_defence();
        let now = &self.services;
        self.has_exact_only = now.wide.is_empty() && now.marks.is_empty() && now.snat.is_empty() && !now.has_nat;
        old
    }
}
