//! Rows of listings, made of the model and of what the workers count.
//!
//! Counters are read one by one while workers go on: a row is right for each number by itself, and only nearly for
//! all of them together.

use std::sync::Arc;

use super::model::{Model, Pool, RealServerEntry, ServiceEntry};
use super::protocol::{
    ErrorKind, Fragments, LocalAddressRow, LocalPoolRow, Persistence, RealServerRow, Refusal, ServiceName, ServiceRow,
    Stats, TrafficTotals, WorkerRow,
};
use super::refusal::list;
use super::totals;
use crate::balance::{ForwardingMode, LocalAddressSlot, RealServerSlot, ServiceKey};
use crate::forward::{DropReason, PuntClass, strategies};
use crate::session::Capacity;
use crate::telemetry::counters::{Counter, WorkerCounters};

impl Model {
    /// The rows of one service, or of all in the order added.
    pub fn service_rows(&self, name: Option<ServiceName>) -> Result<Vec<ServiceRow>, Refusal> {
        let Some(name) = name else {
            return Ok(self.services.iter().map(|(&number, service)| self.service_row(number, service)).collect());
        };
        let key = ServiceKey::from(name);
        match self.by_key.get(&key).and_then(|number| self.services.get_key_value(number)) {
            Some((&number, service)) => Ok(vec![self.service_row(number, service)]),
            None => {
                let has = list(self.by_key.keys().filter(|other| other.address == key.address).take(10));
                let message = format!("there is no service {key}; on that address: {has}");
                Err(Refusal::new(ErrorKind::NotFound, message))
            }
        }
    }

    fn service_row(&self, number: u64, service: &ServiceEntry) -> ServiceRow {
        let ServiceName { vip, protocol } = service.key.into();
        ServiceRow {
            vip,
            protocol,
            scheduler: service.settings.scheduler,
            scheduler_flags: service.settings.scheduler_flags,
            mode: service.settings.mode,
            local_pool: service.settings.local_pool.clone(),
            lacks_local_address: self.lacks_local_address(service),
            mss_clamp: service.settings.mss_clamp,
            persistence: service.settings.persistence,
            persistence_prefix: service.settings.persistence_prefix,
            one_packet: service.settings.one_packet,
            max_connections: service.settings.max_connections,
            slow_start: service.settings.slow_start,
            traffic: self.service_traffic(number, service),
            real_servers: service
                .real_servers
                .iter()
                .map(|entry| self.real_server_row(service.settings.mode, entry))
                .collect(),
        }
    }

    fn real_server_row(&self, mode: ForwardingMode, entry: &RealServerEntry) -> RealServerRow {
        let connections = totals::real_server_connections(&self.counters, entry.slot);
        RealServerRow {
            address: entry.config.address,
            mode: entry.config.mode.unwrap_or(mode),
            tunnel: entry.config.tunnel,
            weight: entry.config.weight,
            effective_weight: Some(entry.weight_now).filter(|&now| now != entry.config.weight),
            upper_threshold: entry.config.upper_threshold,
            lower_threshold: entry.config.lower_threshold,
            active_connections: connections.active,
            inactive_connections: connections.inactive,
            persistent_connections: self.templates.of_real_server(entry.slot),
            traffic: totals::real_server_traffic(&self.counters, entry.slot) - entry.baseline,
        }
    }

    /// The rows of all local pools, withdrawn addresses that sessions still use last. Those of a pool that is itself
    /// gone are shown by a row of its name with no other address.
    pub fn local_pool_rows(&self) -> Vec<LocalPoolRow> {
        let mut rows: Vec<LocalPoolRow> = self.pools.iter().map(|pool| self.local_pool_row(pool)).collect();
        let mut departed: Vec<_> = self.departed_locals.values().collect();
        departed.sort_unstable_by_key(|departed| departed.address);
        for departed in departed {
            let row = self.local_address_row(departed.address, departed.slot, true);
            match rows.iter_mut().find(|pool| pool.name == departed.pool) {
                Some(pool) => pool.addresses.push(row),
                None => rows.push(LocalPoolRow {
                    name: departed.pool.clone(),
                    port: self.port_name(departed.port).to_owned(),
                    ports: String::new(),
                    transient: false,
                    addresses: vec![row],
                }),
            }
        }
        rows
    }

    fn local_pool_row(&self, pool: &Pool) -> LocalPoolRow {
        let addresses = pool.addresses.iter().map(|local| self.local_address_row(local.address, local.slot, false));
        LocalPoolRow {
            name: pool.name.clone(),
            port: pool.settings.port.clone(),
            ports: pool.settings.ports.to_string(),
            transient: pool.settings.transient,
            addresses: addresses.collect(),
        }
    }

    fn local_address_row(&self, address: std::net::IpAddr, slot: LocalAddressSlot, withdrawn: bool) -> LocalAddressRow {
        LocalAddressRow { address, ports_used: totals::local_ports_used(&self.counters, slot), withdrawn }
    }

    /// What there is of persistence besides what workers count.
    pub fn persistence(&self, counted: Persistence) -> Persistence {
        Persistence { templates: self.templates.len(), capacity: self.templates.capacity(), ..counted }
    }

    /// What each worker has carried for services since it started, removed ones included; source NAT is none.
    pub fn worker_traffic(&self) -> Vec<TrafficTotals> {
        let slots = (0..self.real_slots.high_water()).filter_map(|slot| u32::try_from(slot).ok()).map(RealServerSlot);
        let of = |worker: &Arc<WorkerCounters>| -> TrafficTotals {
            slots.clone().map(|slot| totals::worker_traffic(worker, slot)).sum()
        };
        self.counters.iter().map(of).zip(self.snat_traffic()).map(|(all, snat)| all - snat).collect()
    }

    /// How many services there are.
    pub fn service_count(&self) -> usize {
        self.services.len()
    }
}

/// The rows of all workers. `cores` and `counters` are by worker, `capacity` is the sessions that fit into each.
pub fn worker_rows(counters: &[Arc<WorkerCounters>], cores: &[u16], capacity: Capacity) -> Vec<WorkerRow> {
    let row = |(worker, own): (usize, &Arc<WorkerCounters>)| WorkerRow {
        worker,
        core: cores.get(worker).copied().unwrap_or_default(),
        sessions: own.sessions.get(),
        session_capacity: capacity.ipv4.into(),
        ipv6_sessions: own.ipv6_sessions.get(),
        ipv6_session_capacity: capacity.ipv6.into(),
        sessions_created: own.sessions_created.get(),
        sessions_expired: own.sessions_expired.get(),
        sessions_dropped: own.sessions_dropped.get(),
        defence: defence(std::slice::from_ref(own)),
        rx_packets: own.ports.iter().map(|port| port.received.packets.get()).sum(),
        tx_packets: own.ports.iter().map(|port| port.transmitted.packets.get()).sum(),
        bursts: own.bursts.get(),
        handovers: own.handovers.get(),
        handovers_received: own.handovers_received.get(),
        busy_nanoseconds: own.busy_nanoseconds.get(),
        total_nanoseconds: own.total_nanoseconds.get(),
        poll_gaps: own.poll_gaps.read(),
        stalls: own.stalls.read(),
        preempted_nanoseconds: own.preempted_nanoseconds.get(),
        burst_times: own.burst_times.read(),
    };
    counters.iter().enumerate().map(row).collect()
}

/// The defence strategies that are active on any of these workers.
pub fn defence(counters: &[Arc<WorkerCounters>]) -> Vec<String> {
    let active = strategies(counters.iter().fold(0, |bits, own| bits | own.defence.get()));
    active.into_iter().filter(|&(_, active)| active).map(|(name, _)| name.to_owned()).collect()
}

/// Drops, punts and the like, summed over `counters`: the workers' and whatever else the gateway counts with. Ports,
/// workers, services and the time are left to be filled in.
pub fn gateway_counters<'a>(counters: impl Iterator<Item = &'a Arc<WorkerCounters>>) -> Stats {
    let counters: Vec<&WorkerCounters> = counters.map(Arc::as_ref).collect();
    let sum = |of: &dyn Fn(&WorkerCounters) -> &Counter| counters.iter().map(|own| of(own).get()).sum::<u64>();
    let drops = DropReason::ALL.iter();
    let punts = PuntClass::ALL.iter();
    Stats {
        drops: drops.map(|&reason| (reason.label().to_owned(), sum(&|own| &own.drops[reason as usize]))).collect(),
        punts: punts.map(|&class| (class.label().to_owned(), sum(&|own| &own.punts[class as usize]))).collect(),
        resets_sent: sum(&|own| &own.resets_sent),
        icmp_errors_sent: sum(&|own| &own.icmp_errors_sent),
        injected: sum(&|own| &own.injected),
        fragments: Fragments {
            forwarded: sum(&|own| &own.fragments_forwarded),
            created: sum(&|own| &own.fragments_created),
            waiting: sum(&|own| &own.fragments_waiting),
            datagrams_forgotten: sum(&|own| &own.datagrams_forgotten),
        },
        persistence: Persistence {
            missed_full: sum(&|own| &own.templates_full),
            missed_busy: sum(&|own| &own.templates_busy),
            ..Persistence::default()
        },
        ..Stats::default()
    }
}
