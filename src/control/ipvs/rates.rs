//! What IPVS's tools see of counters: since they were last set to zero, and with rates.
//!
//! The gateway's own counters never go backwards; what was counted when a tool set them to zero is kept here, and taken
//! off for tools only.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use super::entries;
use crate::control::protocol::{ServiceName, ServiceRow, TrafficTotals};
use crate::ipvs::Stats;
use crate::ipvs::rates::Estimator;

/// A service itself, or a real server of it.
type Part = Option<SocketAddr>;

/// What is kept of one.
#[derive(Clone, Copy, Debug)]
struct Kept {
    zero: TrafficTotals,
    estimator: Estimator,
    /// The last sampling that it was there at.
    seen: u64,
}

/// What is kept of all.
#[derive(Debug, Default)]
pub(super) struct Rates {
    kept: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By service first, so that to forget one costs what it has, however many others there are.
    by_service: HashMap<ServiceName, HashMap<Part, Kept>>,
    /// All services together, those that are gone included.
    total: Total,
    samplings: u64,
}

/// What is kept of the total.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    zero: TrafficTotals,
    estimator: Estimator,
}

pub(super) fn name(row: &ServiceRow) -> ServiceName {
    ServiceName { vip: row.vip, protocol: row.protocol }
}

/// A service and its real servers, with what each has counted.
fn parts(row: &ServiceRow) -> impl Iterator<Item = (Part, &TrafficTotals)> {
    let real_servers = row.real_servers.iter().map(|real| (Some(real.address), &real.traffic));
    std::iter::once((None, &row.traffic)).chain(real_servers)
}

impl Rates {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what two seconds have brought; forgets what is gone.
    pub(super) fn sample(&self, rows: &[ServiceRow], total: &TrafficTotals) {
        let mut state = self.lock();
        state.total.estimator.sample(&entries::stats(total));
        state.samplings += 1;
        let seen = state.samplings;
        for row in rows {
            let of_service = state.by_service.entry(name(row)).or_default();
            for (part, traffic) in parts(row) {
                let stats = entries::stats(traffic);
                let new = || Kept { zero: TrafficTotals::default(), estimator: Estimator::new(&stats), seen };
                let kept = of_service.entry(part).or_insert_with(new);
                kept.estimator.sample(&stats);
                kept.seen = seen;
            }
        }
        state.by_service.retain(|_, parts| {
            parts.retain(|_, kept| kept.seen == seen);
            !parts.is_empty()
        });
    }

    /// Counts from here on, for tools.
    pub(super) fn zero(&self, rows: &[ServiceRow]) {
        let mut state = self.lock();
        let seen = state.samplings;
        for row in rows {
            let of_service = state.by_service.entry(name(row)).or_default();
            for (part, traffic) in parts(row) {
                let estimator = Estimator::new(&entries::stats(traffic));
                of_service.insert(part, Kept { zero: *traffic, estimator, seen });
            }
        }
    }

    /// Counts the total from here on, for tools.
    pub(super) fn zero_total(&self, total: &TrafficTotals) {
        self.lock().total = Total { zero: *total, estimator: Estimator::new(&entries::stats(total)) };
    }

    /// Forgets one that goes, so that the next one of the same name does not count from its zero.
    pub(super) fn forget(&self, service: ServiceName, real_server: Option<SocketAddr>) {
        let mut state = self.lock();
        match (real_server, state.by_service.get_mut(&service)) {
            (Some(_), Some(parts)) => drop(parts.remove(&real_server)),
            (Some(_), None) => {}
            (None, _) => drop(state.by_service.remove(&service)),
        }
    }

    /// What tools see of all services together, those that are gone included.
    pub(super) fn of_total(&self, total: &TrafficTotals) -> Stats {
        let kept = self.lock().total;
        kept.estimator.fill(entries::stats(&since(total, &kept.zero)))
    }

    /// What tools see of a service.
    pub(super) fn of_service(&self, row: &ServiceRow) -> Stats {
        self.view(name(row), None, &row.traffic)
    }

    /// What tools see of a real server.
    pub(super) fn of_real_server(&self, service: ServiceName, address: SocketAddr, traffic: &TrafficTotals) -> Stats {
        self.view(service, Some(address), traffic)
    }

    fn view(&self, service: ServiceName, part: Part, traffic: &TrafficTotals) -> Stats {
        let kept = self.lock().by_service.get(&service).and_then(|parts| parts.get(&part)).copied();
        let Some(kept) = kept else { return entries::stats(traffic) };
        kept.estimator.fill(entries::stats(&since(traffic, &kept.zero)))
    }
}

/// What was counted since. One that counts less than it did was removed and added again in between.
fn since(now: &TrafficTotals, zero: &TrafficTotals) -> TrafficTotals {
    if now.connections < zero.connections || now.in_packets < zero.in_packets {
        return *now;
    }
    TrafficTotals {
        connections: now.connections - zero.connections,
        in_packets: now.in_packets - zero.in_packets,
        in_bytes: now.in_bytes.saturating_sub(zero.in_bytes),
        out_packets: now.out_packets.saturating_sub(zero.out_packets),
        out_bytes: now.out_bytes.saturating_sub(zero.out_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{ForwardingMode, MssClamp, Protocol, SchedulerFlags, SchedulerKind};

    fn row(connections: u64) -> ServiceRow {
        ServiceRow {
            vip: "10.0.0.100:80".parse().unwrap(),
            protocol: Protocol::Tcp,
            scheduler: SchedulerKind::Rr,
            scheduler_flags: SchedulerFlags::default(),
            mode: ForwardingMode::Nat,
            mss_clamp: MssClamp::default(),
            persistence: 0,
            persistence_prefix: None,
            one_packet: false,
            max_connections: 0,
            slow_start: 0,
            local_pool: String::new(),
            lacks_local_address: false,
            traffic: TrafficTotals { connections, ..TrafficTotals::default() },
            real_servers: Vec::new(),
        }
    }

    #[test]
    fn zero_is_where_a_tool_set_it_until_the_service_goes() {
        let rates = Rates::default();
        assert_eq!(rates.of_service(&row(7)).connections, 7);
        rates.zero(&[row(7)]);
        assert_eq!(rates.of_service(&row(9)).connections, 2);
        assert_eq!(rates.of_service(&row(3)).connections, 3, "it was removed and added again");
        rates.forget(name(&row(0)), None);
        assert_eq!(rates.of_service(&row(9)).connections, 9);
        rates.zero(&[row(7)]);
        rates.sample(&[], &TrafficTotals::default());
        assert_eq!(rates.of_service(&row(9)).connections, 9, "what is gone is forgotten");
    }

    #[test]
    fn rates_are_those_since_the_first_look() {
        let rates = Rates::default();
        rates.sample(&[row(1_000)], &row(5_000).traffic);
        assert_eq!(rates.of_service(&row(1_000)).connection_rate, 0);
        rates.sample(&[row(1_200)], &row(5_200).traffic);
        assert_eq!(rates.of_service(&row(1_200)).connection_rate, 25);
    }
}
