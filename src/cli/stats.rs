//! `fullgate stats`: all counters, as totals or as rates.
//!
//! Rates are what two replies differ by, over the daemon's own clock: a slow terminal or network does not bend them.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::CliError;
use super::arguments::{Connection, seconds};
use super::client::Client;
use super::output::{print, print_json, print_json_line};
use super::{stats_table, worker::percent};
use crate::balance::Protocol;
use crate::control::protocol::{
    PortRow, Reply, Request, ServiceRow, SnatRow, Stats as Sample, TrafficTotals, WorkerRow,
};

/// Show packets, sessions, drops: totals, or rates every few seconds
#[derive(Debug, Args)]
#[command(after_help = "\
Drops and punts are listed where they are not 0. With --json --watch each line is one JSON object.
Bytes and bits of services are those of IP packets.

Examples:
  fullgate stats
  fullgate stats --watch 1
  fullgate stats --watch 5 --count 1 --json | jq .ports")]
pub(super) struct Stats {
    /// Show rates, every so many seconds, until interrupted
    #[arg(long, short, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = seconds)]
    watch: Option<Duration>,

    /// With --watch: end after this many
    #[arg(long, value_name = "COUNT", requires = "watch", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    #[command(flatten)]
    connection: Connection,
}

impl Stats {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let mut client = self.connection.connect()?;
        let first = sample(&mut client)?;
        match self.watch {
            Some(interval) => self.watch(&mut client, first, interval),
            None if self.connection.json => print_json(&first),
            None => print(stats_table::totals(&first)),
        }
    }

    fn watch(&self, client: &mut Client, mut last: Sample, interval: Duration) -> Result<(), CliError> {
        let mut printed = 0;
        loop {
            std::thread::sleep(interval);
            let next = sample(client)?;
            let rates = Rates::between(&last, &next);
            match self.connection.json {
                true => print_json_line(&rates)?,
                false => print(stats_table::rates(&rates))?,
            }
            printed += 1;
            if self.count == Some(printed) {
                return Ok(());
            }
            last = next;
        }
    }
}

fn sample(client: &mut Client) -> Result<Sample, CliError> {
    match client.call(&Request::Stats {})? {
        Reply::Stats(sample) => Ok(sample),
        _ => Err(client.wrong_reply().into()),
    }
}

/// What happened a second between two samples, rounded to whole numbers.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Rates {
    /// Of the later sample, on the daemon's monotonic clock.
    pub(super) at_nanoseconds: u64,
    /// Between the two samples.
    pub(super) interval_nanoseconds: u64,
    pub(super) ports: Vec<PortRates>,
    pub(super) workers: Vec<WorkerRates>,
    pub(super) services: Vec<ServiceRates>,
    /// Rules for source NAT; left out where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) snat: Vec<SnatRates>,
    /// By reason: those that are not 0 in total.
    pub(super) drops: Vec<NamedRate>,
    /// By class: those that are not 0 in total.
    pub(super) punts: Vec<NamedRate>,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct PortRates {
    pub(super) name: String,
    pub(super) link_up: bool,
    pub(super) rx_packets_per_second: u64,
    pub(super) rx_bits_per_second: u64,
    pub(super) tx_packets_per_second: u64,
    pub(super) tx_bits_per_second: u64,
    pub(super) rx_missed_per_second: u64,
    pub(super) rx_errors_per_second: u64,
    pub(super) tx_errors_per_second: u64,
    pub(super) handovers_per_second: u64,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct WorkerRates {
    pub(super) worker: usize,
    pub(super) core: u16,
    /// With one decimal.
    pub(super) busy_percent: String,
    pub(super) sessions: u64,
    pub(super) sessions_created_per_second: u64,
    pub(super) rx_packets_per_second: u64,
    pub(super) tx_packets_per_second: u64,
    pub(super) packets_per_burst: u64,
    pub(super) handovers_per_second: u64,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct ServiceRates {
    pub(super) protocol: Protocol,
    pub(super) vip: crate::balance::VirtualAddress,
    #[serde(flatten)]
    pub(super) traffic: TrafficRates,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct SnatRates {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) traffic: TrafficRates,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct TrafficRates {
    pub(super) active_connections: u64,
    pub(super) connections_per_second: u64,
    pub(super) in_packets_per_second: u64,
    pub(super) out_packets_per_second: u64,
    pub(super) in_bits_per_second: u64,
    pub(super) out_bits_per_second: u64,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct NamedRate {
    pub(super) name: String,
    pub(super) per_second: u64,
    pub(super) total: u64,
}

/// Time between two samples.
#[derive(Clone, Copy)]
struct Interval(u64);

impl Interval {
    /// Events a second. A counter that went back (a service deleted and added anew) counts as having begun at 0.
    fn rate(self, before: u64, after: u64) -> u64 {
        let count = after.checked_sub(before).unwrap_or(after);
        let nanoseconds = u128::from(self.0.max(1));
        u64::try_from((u128::from(count) * 1_000_000_000 + nanoseconds / 2) / nanoseconds).unwrap_or(u64::MAX)
    }

    /// Bits a second of bytes.
    fn bits(self, before: u64, after: u64) -> u64 {
        self.rate(before, after).saturating_mul(8)
    }
}

impl Rates {
    fn between(before: &Sample, after: &Sample) -> Self {
        let interval = Interval(after.at_nanoseconds.saturating_sub(before.at_nanoseconds));
        let port = |now: &PortRow| interval.port(before.ports.iter().find(|port| port.name == now.name), now);
        let worker =
            |now: &WorkerRow| interval.worker(before.workers.iter().find(|worker| worker.worker == now.worker), now);
        let earlier: hashbrown::HashMap<_, _> =
            before.services.iter().map(|service| ((service.vip, service.protocol), service)).collect();
        let service = |now: &ServiceRow| interval.service(earlier.get(&(now.vip, now.protocol)).copied(), now);
        let snat = |now: &SnatRow| interval.snat(before.snat.iter().find(|rule| rule.name == now.name), now);
        Self {
            at_nanoseconds: after.at_nanoseconds,
            interval_nanoseconds: interval.0,
            ports: after.ports.iter().map(port).collect(),
            workers: after.workers.iter().map(worker).collect(),
            services: after.services.iter().map(service).collect(),
            snat: after.snat.iter().map(snat).collect(),
            drops: interval.named(&before.drops, &after.drops),
            punts: interval.named(&before.punts, &after.punts),
        }
    }
}

impl Interval {
    fn port(self, before: Option<&PortRow>, now: &PortRow) -> PortRates {
        let was = |field: fn(&PortRow) -> u64| before.map_or(0, field);
        let rate = |field: fn(&PortRow) -> u64| self.rate(was(field), field(now));
        let bits = |field: fn(&PortRow) -> u64| self.bits(was(field), field(now));
        PortRates {
            name: now.name.clone(),
            link_up: now.link_up,
            rx_packets_per_second: rate(|port| port.rx_packets),
            rx_bits_per_second: bits(|port| port.rx_bytes),
            tx_packets_per_second: rate(|port| port.tx_packets),
            tx_bits_per_second: bits(|port| port.tx_bytes),
            rx_missed_per_second: rate(|port| port.rx_missed),
            rx_errors_per_second: rate(|port| port.rx_errors),
            tx_errors_per_second: rate(|port| port.tx_errors),
            handovers_per_second: rate(|port| port.handovers),
        }
    }

    fn worker(self, before: Option<&WorkerRow>, now: &WorkerRow) -> WorkerRates {
        let since = |field: fn(&WorkerRow) -> u64| field(now).saturating_sub(before.map_or(0, field));
        let rate = |field: fn(&WorkerRow) -> u64| self.rate(0, since(field));
        WorkerRates {
            worker: now.worker,
            core: now.core,
            busy_percent: percent(since(|worker| worker.busy_nanoseconds), since(|worker| worker.total_nanoseconds)),
            sessions: now.sessions,
            sessions_created_per_second: rate(|worker| worker.sessions_created),
            rx_packets_per_second: rate(|worker| worker.rx_packets),
            tx_packets_per_second: rate(|worker| worker.tx_packets),
            packets_per_burst: since(|worker| worker.rx_packets)
                .checked_div(since(|worker| worker.bursts))
                .unwrap_or(0),
            handovers_per_second: rate(|worker| worker.handovers),
        }
    }

    fn service(self, before: Option<&ServiceRow>, now: &ServiceRow) -> ServiceRates {
        let active = now.real_servers.iter().map(|real| real.active_connections).sum();
        let traffic = self.traffic(before.map(|before| before.traffic), now.traffic, active);
        ServiceRates { protocol: now.protocol, vip: now.vip, traffic }
    }

    fn snat(self, before: Option<&SnatRow>, now: &SnatRow) -> SnatRates {
        let traffic = self.traffic(before.map(|before| before.traffic), now.traffic, now.active_connections);
        SnatRates { name: now.name.clone(), traffic }
    }

    fn traffic(self, before: Option<TrafficTotals>, now: TrafficTotals, active_connections: u64) -> TrafficRates {
        let before = before.unwrap_or_default();
        TrafficRates {
            active_connections,
            connections_per_second: self.rate(before.connections, now.connections),
            in_packets_per_second: self.rate(before.in_packets, now.in_packets),
            out_packets_per_second: self.rate(before.out_packets, now.out_packets),
            in_bits_per_second: self.bits(before.in_bytes, now.in_bytes),
            out_bits_per_second: self.bits(before.out_bytes, now.out_bytes),
        }
    }

    fn named(self, before: &[(String, u64)], after: &[(String, u64)]) -> Vec<NamedRate> {
        let was = |name: &String| before.iter().find(|(earlier, _)| earlier == name).map_or(0, |&(_, count)| count);
        let rate = |(name, total): &(String, u64)| NamedRate {
            name: name.clone(),
            per_second: self.rate(was(name), *total),
            total: *total,
        };
        after.iter().filter(|(_, total)| *total > 0).map(rate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_rounded_and_survive_a_restart_of_counters() {
        let half = Interval(500_000_000);
        assert_eq!(half.rate(10, 15), 10);
        assert_eq!(half.bits(0, 125), 2_000);
        assert_eq!(half.rate(100, 7), 14);
        assert_eq!(Interval(3_000_000_000).rate(0, 5), 2);
        assert_eq!(Interval(0).rate(0, 0), 0);
        assert_eq!(Interval(1).rate(0, u64::MAX), u64::MAX);
    }

    #[test]
    fn only_names_that_count_are_listed() {
        let names = |counts: [u64; 3]| {
            ["truncated", "no_route", "not_local"].map(str::to_owned).into_iter().zip(counts).collect::<Vec<_>>()
        };
        let rates = Interval(2_000_000_000).named(&names([4, 0, 2]), &names([4, 0, 12]));
        let rate = |name: &str, per_second, total| NamedRate { name: name.to_owned(), per_second, total };
        assert_eq!(rates, [rate("truncated", 0, 4), rate("not_local", 5, 12)]);
    }
}
