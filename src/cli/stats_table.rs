//! How `fullgate stats` looks on a terminal.

use super::stats::{NamedRate, Rates, TrafficRates};
use super::table::Align::{Left, Right};
use super::table::Table;
use super::{snat, worker};
use crate::balance::ServiceKey;
use crate::control::protocol::{Fragments, Persistence, PortRow, ServiceRow, Stats, TrafficTotals};

/// Totals since the start.
pub(super) fn totals(stats: &Stats) -> String {
    let mut rest = Table::new(&[("Other", Left), ("Total", Right)]);
    let Fragments { forwarded, created, waiting, datagrams_forgotten: _ } = stats.fragments;
    let Persistence { templates, missed_full, missed_busy, capacity: _ } = stats.persistence;
    for (name, count) in [
        ("resets_sent", stats.resets_sent),
        ("icmp_errors_sent", stats.icmp_errors_sent),
        ("injected", stats.injected),
        ("fragments_forwarded", forwarded),
        ("fragments_created", created),
        ("fragments_waiting", waiting),
        ("persistence_templates", templates.into()),
        ("persistence_missed", missed_full + missed_busy),
        ("sessions_dropped", stats.workers.iter().map(|worker| worker.sessions_dropped).sum()),
    ] {
        rest.row([name.to_owned(), count.to_string()]);
    }
    join([
        port_totals(&stats.ports),
        worker::table(&stats.workers),
        worker::times(&stats.workers),
        service_totals(&stats.services),
        snat::stats_table(&stats.snat),
        named_totals("Drop", &stats.drops),
        named_totals("Punt", &stats.punts),
        rest,
    ])
}

/// Rates between two samples.
pub(super) fn rates(rates: &Rates) -> String {
    let second = |nanoseconds: u64| format!("{}.{}", nanoseconds / 1_000_000_000, nanoseconds / 100_000_000 % 10);
    let head = format!("==== at {} s, over {} s\n", second(rates.at_nanoseconds), second(rates.interval_nanoseconds));
    head + &join([
        port_rates(rates),
        worker_rates(rates),
        service_rates(rates),
        snat_rates(rates),
        named_rates("Drop", &rates.drops),
        named_rates("Punt", &rates.punts),
    ]) + "\n"
}

/// The tables that have rows, with an empty line between.
fn join<const N: usize>(tables: [Table; N]) -> String {
    let filled = tables.iter().filter(|table| !table.is_empty());
    filled.map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn port_totals(ports: &[PortRow]) -> Table {
    let mut table = Table::new(&[
        ("Port", Left),
        ("Link", Left),
        ("Rx-packets", Right),
        ("Rx-bytes", Right),
        ("Tx-packets", Right),
        ("Tx-bytes", Right),
        ("Rx-missed", Right),
        ("Rx-errors", Right),
        ("Tx-errors", Right),
        ("Handovers", Right),
    ]);
    for port in ports {
        table.row([
            port.name.clone(),
            link(port.link_up),
            port.rx_packets.to_string(),
            port.rx_bytes.to_string(),
            port.tx_packets.to_string(),
            port.tx_bytes.to_string(),
            port.rx_missed.to_string(),
            port.rx_errors.to_string(),
            port.tx_errors.to_string(),
            port.handovers.to_string(),
        ]);
    }
    table
}

fn port_rates(rates: &Rates) -> Table {
    let mut table = Table::new(&[
        ("Port", Left),
        ("Link", Left),
        ("Rx-pps", Right),
        ("Rx-bit/s", Right),
        ("Tx-pps", Right),
        ("Tx-bit/s", Right),
        ("Rx-missed/s", Right),
        ("Rx-errors/s", Right),
        ("Tx-errors/s", Right),
        ("Handovers/s", Right),
    ]);
    for port in &rates.ports {
        table.row([
            port.name.clone(),
            link(port.link_up),
            port.rx_packets_per_second.to_string(),
            port.rx_bits_per_second.to_string(),
            port.tx_packets_per_second.to_string(),
            port.tx_bits_per_second.to_string(),
            port.rx_missed_per_second.to_string(),
            port.rx_errors_per_second.to_string(),
            port.tx_errors_per_second.to_string(),
            port.handovers_per_second.to_string(),
        ]);
    }
    table
}

fn link(up: bool) -> String {
    if up { "up" } else { "down" }.to_owned()
}

fn worker_rates(rates: &Rates) -> Table {
    let mut table = Table::new(&[
        ("Worker", Right),
        ("Core", Right),
        ("Busy%", Right),
        ("Rx-pps", Right),
        ("Tx-pps", Right),
        ("Pkts/burst", Right),
        ("Handovers/s", Right),
        ("Sessions", Right),
        ("New/s", Right),
    ]);
    for worker in &rates.workers {
        table.row([
            worker.worker.to_string(),
            worker.core.to_string(),
            worker.busy_percent.clone(),
            worker.rx_packets_per_second.to_string(),
            worker.tx_packets_per_second.to_string(),
            worker.packets_per_burst.to_string(),
            worker.handovers_per_second.to_string(),
            worker.sessions.to_string(),
            worker.sessions_created_per_second.to_string(),
        ]);
    }
    table
}

/// A row of what something has carried, behind its name.
pub(super) fn traffic_cells(name: String, traffic: &TrafficTotals) -> [String; 6] {
    let TrafficTotals { connections, in_packets, out_packets, in_bytes, out_bytes } = *traffic;
    let [connections, in_packets, out_packets, in_bytes, out_bytes] =
        [connections, in_packets, out_packets, in_bytes, out_bytes].map(|count| count.to_string());
    [name, connections, in_packets, out_packets, in_bytes, out_bytes]
}

fn service_totals(services: &[ServiceRow]) -> Table {
    let mut table = Table::new(&[
        ("Service", Left),
        ("Conns", Right),
        ("InPkts", Right),
        ("OutPkts", Right),
        ("InBytes", Right),
        ("OutBytes", Right),
    ]);
    for service in services {
        table.row(traffic_cells(ServiceKey::new(service.protocol, service.vip).to_string(), &service.traffic));
    }
    table
}

fn service_rates(rates: &Rates) -> Table {
    let rows = rates
        .services
        .iter()
        .map(|service| (ServiceKey::new(service.protocol, service.vip).to_string(), &service.traffic));
    traffic_rates("Service", rows)
}

fn snat_rates(rates: &Rates) -> Table {
    traffic_rates("Snat", rates.snat.iter().map(|rule| (rule.name.clone(), &rule.traffic)))
}

fn traffic_rates<'a>(heading: &str, rows: impl Iterator<Item = (String, &'a TrafficRates)>) -> Table {
    let mut table = Table::new(&[
        (heading, Left),
        ("ActiveConn", Right),
        ("Conns/s", Right),
        ("In-pps", Right),
        ("Out-pps", Right),
        ("In-bit/s", Right),
        ("Out-bit/s", Right),
    ]);
    for (name, traffic) in rows {
        table.row([
            name,
            traffic.active_connections.to_string(),
            traffic.connections_per_second.to_string(),
            traffic.in_packets_per_second.to_string(),
            traffic.out_packets_per_second.to_string(),
            traffic.in_bits_per_second.to_string(),
            traffic.out_bits_per_second.to_string(),
        ]);
    }
    table
}

fn named_totals(heading: &str, counts: &[(String, u64)]) -> Table {
    let mut table = Table::new(&[(heading, Left), ("Packets", Right)]);
    for (name, count) in counts.iter().filter(|(_, count)| *count > 0) {
        table.row([name.clone(), count.to_string()]);
    }
    table
}

fn named_rates(heading: &str, rates: &[NamedRate]) -> Table {
    let mut table = Table::new(&[(heading, Left), ("Packets/s", Right), ("Total", Right)]);
    for rate in rates {
        table.row([rate.name.clone(), rate.per_second.to_string(), rate.total.to_string()]);
    }
    table
}
