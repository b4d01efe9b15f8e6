//! The metrics, in Prometheus' text format.
//!
//! Every scrape fills a fresh recorder with absolute values, so that what was removed is gone from the next scrape;
//! a counter goes backwards only where its service or real server was removed and made again. Bytes are those of IP
//! packets. `direction` of services and of rules for source NAT is `in` (from the client on) or `out` (back to it), of
//! ports `rx` or `tx`.

use std::time::Duration;

use hashbrown::HashMap;
use metrics::{Label, SharedString, counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;

use super::worker_times;
use crate::balance::PortRange;
use crate::control::Measurements;
use crate::control::protocol::{
    LocalPoolRow, Persistence, PortRow, RealServerRow, ServiceRow, SnatRow, Stats, TrafficTotals, WorkerRow,
};
use crate::forward::strategies;

/// The text that `/metrics` answers with. Takes a few microseconds a series: not for the control thread where there
/// are thousands of services.
pub fn render(measured: &Measurements) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        describe();
        record_build(measured);
        record_gateway(&measured.stats);
        for port in &measured.stats.ports {
            record_port(port);
        }
        for (worker, row) in measured.stats.workers.iter().enumerate() {
            record_worker(row, measured.busy_ratios.get(worker).copied().unwrap_or_default());
        }
        for service in &measured.stats.services {
            record_service(service);
        }
        for rule in &measured.stats.snat {
            record_snat(rule);
        }
        let fullest = fullest(&measured.stats.services);
        for pool in &measured.local_pools {
            record_local_pool(pool, fullest.get(pool.name.as_str()).copied().unwrap_or_default());
        }
    });
    let mut text = recorder.handle().render();
    worker_times::append(&mut text, &measured.stats.workers);
    text
}

/// Every metric's HELP, counters first.
fn describe() {
    for (name, help) in COUNTERS {
        describe_counter!(*name, *help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(*name, *help);
    }
}

const COUNTERS: &[(&str, &str)] = &[
    ("fullgate_drops_total", "Packets dropped, by reason."),
    ("fullgate_punts_total", "Packets given to the kernel, by class."),
    ("fullgate_resets_sent_total", "TCP resets answered to packets of no session."),
    ("fullgate_icmp_errors_sent_total", "ICMP errors made by the gateway."),
    ("fullgate_injected_total", "Packets from the kernel sent out."),
    ("fullgate_fragments_forwarded_total", "Fragments forwarded."),
    ("fullgate_fragments_created_total", "Fragments made of packets larger than the link that they went to."),
    ("fullgate_fragment_datagrams_forgotten_total", "Datagrams forgotten before all their fragments had come."),
    ("fullgate_persistence_missed_total", "Sessions set up without the persistence that they should have had."),
    ("fullgate_state_write_failures_total", "Failed attempts to write the state file."),
    ("fullgate_socket_refusals_total", "Clients turned away at the control socket and that of IPVS tools, by reason."),
    ("fullgate_port_packets_total", "Packets received or sent by the workers, by port."),
    ("fullgate_port_bytes_total", "Bytes of IP packets received or sent by the workers, by port."),
    ("fullgate_port_errors_total", "Packets that the device received with errors or failed to send."),
    ("fullgate_port_missed_total", "Packets that the device missed for want of descriptors."),
    ("fullgate_port_handovers_total", "Packets received here and handed to the worker that owns them, by port."),
    ("fullgate_worker_bursts_total", "Bursts that held at least one packet."),
    ("fullgate_worker_handovers_total", "Packets handed to other workers."),
    ("fullgate_worker_handovers_received_total", "Packets taken over from other workers."),
    ("fullgate_sessions_created_total", "Sessions set up."),
    ("fullgate_sessions_expired_total", "Sessions whose time ran out or that were replaced."),
    ("fullgate_sessions_dropped_total", "Sessions ended before their time by drop_entry."),
    ("fullgate_service_connections_total", "Sessions set up, by service."),
    ("fullgate_service_packets_total", "Packets forwarded, by service."),
    ("fullgate_service_bytes_total", "Bytes of IP packets forwarded, by service."),
    ("fullgate_real_server_connections_total", "Sessions set up, by real server."),
    ("fullgate_real_server_packets_total", "Packets forwarded, by real server."),
    ("fullgate_real_server_bytes_total", "Bytes of IP packets forwarded, by real server."),
    ("fullgate_snat_connections_total", "Sessions set up, by rule for source NAT."),
    ("fullgate_snat_packets_total", "Packets forwarded, by rule for source NAT."),
    ("fullgate_snat_bytes_total", "Bytes of IP packets forwarded, by rule for source NAT."),
];

const GAUGES: &[(&str, &str)] = &[
    ("fullgate_build_info", "Always 1; versions of fullgate and DPDK."),
    ("fullgate_uptime_seconds", "Time since the gateway started."),
    ("fullgate_port_link_up", "1 if the port's link is up."),
    ("fullgate_worker_busy_ratio", "Part of the last second that the worker was busy, 0-1."),
    ("fullgate_worker_poll_gap_worst_seconds", "Longest time between two polls since the start."),
    ("fullgate_worker_stall_worst_seconds", "Longest part of one that the worker itself used."),
    ("fullgate_defence_active", "1 if the worker's defence strategy is active."),
    ("fullgate_sessions", "Sessions of IPv4 now, by worker."),
    ("fullgate_session_capacity", "Sessions of IPv4 that fit, by worker."),
    ("fullgate_ipv6_sessions", "Sessions that have to do with IPv6 now, by worker."),
    ("fullgate_ipv6_session_capacity", "Sessions that have to do with IPv6 that fit, by worker."),
    ("fullgate_real_server_active_connections", "Sessions that IPVS would call active."),
    ("fullgate_real_server_inactive_connections", "Sessions that IPVS would call inactive."),
    ("fullgate_snat_active_connections", "Sessions of a rule for source NAT that IPVS would call active."),
    ("fullgate_snat_inactive_connections", "Sessions of a rule for source NAT that IPVS would call inactive."),
    ("fullgate_real_server_persistent_connections", "Clients, or networks of them, that stay with it."),
    ("fullgate_persistence_templates", "Templates of persistence now."),
    ("fullgate_persistence_capacity", "Templates of persistence that there is room for."),
    ("fullgate_real_server_weight", "Weight; 0 takes no new sessions."),
    ("fullgate_real_server_effective_weight", "Weight as it is now: less while it rises (slow_start)."),
    ("fullgate_local_ports_used", "Local ports in use, over all addresses of the pool and all real servers."),
    ("fullgate_local_ports_capacity", "Local ports of the pool towards one real server, over all addresses."),
    ("fullgate_local_ports_fullest", "Local ports of the pool in use towards the real server with most of them."),
    ("fullgate_local_addresses", "Addresses of the pool that new sessions can get."),
    ("fullgate_fragments_waiting", "Fragments that wait for the first one of their datagram now."),
];

fn label(name: &'static str, value: impl Into<SharedString>) -> Label {
    Label::new(name, value)
}

fn count(name: &'static str, labels: &[Label], value: u64) {
    counter!(name, labels.iter()).absolute(value);
}

/// Gauges are floating-point numbers: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
fn show(name: &'static str, labels: &[Label], value: u64) {
    gauge!(name, labels.iter()).set(value as f64);
}

fn show_seconds(name: &'static str, labels: &[Label], nanoseconds: u64) {
    gauge!(name, labels.iter()).set(Duration::from_nanos(nanoseconds).as_secs_f64());
}

fn record_build(measured: &Measurements) {
    let labels = [label("version", measured.version), label("dpdk", measured.dpdk_version.clone())];
    show("fullgate_build_info", &labels, 1);
    gauge!("fullgate_uptime_seconds").set(measured.uptime_seconds);
    count("fullgate_state_write_failures_total", &[], measured.state_write_failures);
    for &(socket, reason, value) in &measured.turned_away {
        count("fullgate_socket_refusals_total", &[label("socket", socket), label("reason", reason)], value);
    }
}

fn record_gateway(stats: &Stats) {
    for (reason, value) in &stats.drops {
        count("fullgate_drops_total", &[label("reason", reason.clone())], *value);
    }
    for (class, value) in &stats.punts {
        count("fullgate_punts_total", &[label("class", class.clone())], *value);
    }
    count("fullgate_resets_sent_total", &[], stats.resets_sent);
    count("fullgate_icmp_errors_sent_total", &[], stats.icmp_errors_sent);
    count("fullgate_injected_total", &[], stats.injected);
    let fragments = &stats.fragments;
    count("fullgate_fragments_forwarded_total", &[], fragments.forwarded);
    count("fullgate_fragments_created_total", &[], fragments.created);
    count("fullgate_fragment_datagrams_forgotten_total", &[], fragments.datagrams_forgotten);
    show("fullgate_fragments_waiting", &[], fragments.waiting);
    let Persistence { templates, capacity, missed_full, missed_busy } = stats.persistence;
    show("fullgate_persistence_templates", &[], templates.into());
    show("fullgate_persistence_capacity", &[], capacity.into());
    for (reason, value) in [("full", missed_full), ("busy", missed_busy)] {
        count("fullgate_persistence_missed_total", &[label("reason", reason)], value);
    }
}

fn record_port(row: &PortRow) {
    let port = label("port", row.name.clone());
    let directions =
        [("rx", row.rx_packets, row.rx_bytes, row.rx_errors), ("tx", row.tx_packets, row.tx_bytes, row.tx_errors)];
    for (direction, packets, bytes, errors) in directions {
        let labels = [port.clone(), label("direction", direction)];
        count("fullgate_port_packets_total", &labels, packets);
        count("fullgate_port_bytes_total", &labels, bytes);
        count("fullgate_port_errors_total", &labels, errors);
    }
    count("fullgate_port_missed_total", std::slice::from_ref(&port), row.rx_missed);
    count("fullgate_port_handovers_total", std::slice::from_ref(&port), row.handovers);
    show("fullgate_port_link_up", &[port], u64::from(row.link_up));
}

fn record_worker(row: &WorkerRow, busy_ratio: f64) {
    let labels = [label("worker", row.worker.to_string())];
    count("fullgate_worker_bursts_total", &labels, row.bursts);
    count("fullgate_worker_handovers_total", &labels, row.handovers);
    count("fullgate_worker_handovers_received_total", &labels, row.handovers_received);
    count("fullgate_sessions_created_total", &labels, row.sessions_created);
    count("fullgate_sessions_expired_total", &labels, row.sessions_expired);
    count("fullgate_sessions_dropped_total", &labels, row.sessions_dropped);
    for (name, _) in strategies(0) {
        let is_active = row.defence.iter().any(|active| active == name);
        show("fullgate_defence_active", &[labels[0].clone(), label("strategy", name)], is_active.into());
    }
    show("fullgate_sessions", &labels, row.sessions);
    show("fullgate_session_capacity", &labels, row.session_capacity);
    show("fullgate_ipv6_sessions", &labels, row.ipv6_sessions);
    show("fullgate_ipv6_session_capacity", &labels, row.ipv6_session_capacity);
    gauge!("fullgate_worker_busy_ratio", labels.iter()).set(busy_ratio);
    show_seconds("fullgate_worker_poll_gap_worst_seconds", &labels, row.poll_gaps.worst_nanoseconds);
    show_seconds("fullgate_worker_stall_worst_seconds", &labels, row.stalls.worst_nanoseconds);
}

/// The names of the metrics of one kind of thing that carries traffic.
struct TrafficNames {
    connections: &'static str,
    packets: &'static str,
    bytes: &'static str,
}

const SERVICE: TrafficNames = TrafficNames {
    connections: "fullgate_service_connections_total",
    packets: "fullgate_service_packets_total",
    bytes: "fullgate_service_bytes_total",
};
const REAL_SERVER: TrafficNames = TrafficNames {
    connections: "fullgate_real_server_connections_total",
    packets: "fullgate_real_server_packets_total",
    bytes: "fullgate_real_server_bytes_total",
};
const SNAT: TrafficNames = TrafficNames {
    connections: "fullgate_snat_connections_total",
    packets: "fullgate_snat_packets_total",
    bytes: "fullgate_snat_bytes_total",
};

fn record_traffic(names: &TrafficNames, labels: &[Label], traffic: &TrafficTotals) {
    count(names.connections, labels, traffic.connections);
    let directions = [("in", traffic.in_packets, traffic.in_bytes), ("out", traffic.out_packets, traffic.out_bytes)];
    for (direction, packets, bytes) in directions {
        let mut labels = labels.to_vec();
        labels.push(label("direction", direction));
        count(names.packets, &labels, packets);
        count(names.bytes, &labels, bytes);
    }
}

fn record_service(row: &ServiceRow) {
    let labels = [label("service", row.vip.to_string()), label("protocol", row.protocol.name())];
    record_traffic(&SERVICE, &labels, &row.traffic);
    for real_server in &row.real_servers {
        record_real_server(&labels, real_server);
    }
}

fn record_real_server(service: &[Label], row: &RealServerRow) {
    let mut labels = service.to_vec();
    labels.push(label("real_server", row.address.to_string()));
    record_traffic(&REAL_SERVER, &labels, &row.traffic);
    show("fullgate_real_server_active_connections", &labels, row.active_connections);
    show("fullgate_real_server_inactive_connections", &labels, row.inactive_connections);
    show("fullgate_real_server_persistent_connections", &labels, row.persistent_connections.into());
    show("fullgate_real_server_weight", &labels, row.weight.0.into());
    show("fullgate_real_server_effective_weight", &labels, row.effective_weight.unwrap_or(row.weight).0.into());
}

fn record_snat(row: &SnatRow) {
    let labels = [label("rule", row.name.clone())];
    record_traffic(&SNAT, &labels, &row.traffic);
    show("fullgate_snat_active_connections", &labels, row.active_connections);
    show("fullgate_snat_inactive_connections", &labels, row.inactive_connections);
}

/// By pool: sessions to the real server that has most of them. Services that name the same real server share its local
/// ports, so they count together.
fn fullest(services: &[ServiceRow]) -> HashMap<&str, u64> {
    let mut sessions: HashMap<_, u64> = HashMap::new();
    for service in services {
        for row in &service.real_servers {
            let end = (service.local_pool.as_str(), row.address, service.protocol);
            *sessions.entry(end).or_default() += row.active_connections + row.inactive_connections;
        }
    }
    let mut fullest: HashMap<&str, u64> = HashMap::new();
    for ((pool, ..), sessions) in sessions {
        let most = fullest.entry(pool).or_default();
        *most = sessions.max(*most);
    }
    fullest
}

fn record_local_pool(row: &LocalPoolRow, fullest: u64) {
    let labels = [label("pool", row.name.clone())];
    show("fullgate_local_ports_used", &labels, row.addresses.iter().map(|address| address.ports_used).sum());
    let usable = row.addresses.iter().filter(|address| !address.withdrawn).count() as u64;
    show("fullgate_local_addresses", &labels, usable);
    // A pool that is itself gone has no range any more.
    let ports = row.ports.parse().map_or(0, |range: PortRange| u64::from(range.last - range.first) + 1);
    show("fullgate_local_ports_capacity", &labels, usable * ports);
    show("fullgate_local_ports_fullest", &labels, fullest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{ForwardingMode, Weight};
    use crate::control::protocol::LocalAddressRow;
    use crate::control::report::gateway_counters;
    use crate::forward::{DropReason, PuntClass};

    #[test]
    fn every_reason_and_class_is_there_with_help_and_type() {
        let stats = Stats { resets_sent: 3, ..gateway_counters(std::iter::empty()) };
        let text = render(&Measurements {
            version: "1.2.3",
            dpdk_version: "DPDK 22.11".to_owned(),
            stats,
            ..Measurements::default()
        });
        for reason in DropReason::ALL {
            assert!(text.contains(&format!("fullgate_drops_total{{reason=\"{}\"}} 0\n", reason.label())), "{text}");
        }
        for class in PuntClass::ALL {
            assert!(text.contains(&format!("fullgate_punts_total{{class=\"{}\"}} 0\n", class.label())), "{text}");
        }
        let head = "# HELP fullgate_drops_total Packets dropped, by reason.\n# TYPE fullgate_drops_total counter\n";
        assert!(text.contains(head), "{text}");
        assert!(text.contains("fullgate_resets_sent_total 3\n"), "{text}");
        assert!(text.contains("fullgate_build_info{version=\"1.2.3\",dpdk=\"DPDK 22.11\"} 1\n"), "{text}");
    }

    #[test]
    fn names_say_whether_they_count() {
        assert!(COUNTERS.iter().all(|(name, _)| name.starts_with("fullgate_") && name.ends_with("_total")));
        assert!(GAUGES.iter().all(|(name, _)| name.starts_with("fullgate_") && !name.ends_with("_total")));
    }

    #[test]
    fn a_pools_ceiling_and_its_fullest_real_server_can_be_compared() {
        let real_server = |address: &str, active: u64| {
            serde_json::json!({
                "address": address, "mode": "fullnat", "weight": 1, "upper": 0, "lower": 0, "active_connections": active,
                "inactive_connections": 2, "traffic": TrafficTotals::default(),
            })
        };
        let service = |port: u16, protocol: &str, real_servers: &[serde_json::Value]| {
            let row = serde_json::json!({
                "vip": format!("10.0.0.1:{port}"), "protocol": protocol, "scheduler": "rr", "mode": "fullnat",
                "local_pool": "lan", "traffic": TrafficTotals::default(), "real_servers": real_servers,
            });
            serde_json::from_value(row).unwrap()
        };
        let services = vec![
            service(80, "tcp", &[real_server("10.1.0.1:80", 5), real_server("10.1.0.2:80", 9)]),
            service(81, "tcp", &[real_server("10.1.0.1:80", 10)]),
            service(82, "udp", &[real_server("10.1.0.1:80", 11)]),
        ];
        let address = |last: u8, withdrawn| LocalAddressRow {
            address: std::net::Ipv4Addr::new(10, 1, 0, last).into(),
            ports_used: 20,
            withdrawn,
        };
        let pool = LocalPoolRow {
            name: "lan".to_owned(),
            port: "lan".to_owned(),
            ports: "1024-65535".to_owned(),
            transient: false,
            addresses: vec![address(200, false), address(201, false), address(202, true)],
        };
        let stats = Stats { services, ..Stats::default() };
        let text = render(&Measurements { stats, local_pools: vec![pool], ..Measurements::default() });
        for line in ["used{pool=\"lan\"} 60", "capacity{pool=\"lan\"} 129024", "fullest{pool=\"lan\"} 19"] {
            assert!(text.contains(&format!("fullgate_local_ports_{line}\n")), "{line} in {text}");
        }
    }

    #[test]
    fn services_and_their_real_servers_are_shown_as_they_are() {
        let mut service: ServiceRow = serde_json::from_value(serde_json::json!({
            "vip": "10.0.0.1:80", "protocol": "tcp", "scheduler": "rr", "mode": "fullnat", "local_pool": "lan",
            "traffic": {"connections": 9, "in_packets": 1, "in_bytes": 2, "out_packets": 3, "out_bytes": 18446744073709551615_u64},
            "real_servers": [],
        }))
        .unwrap();
        service.real_servers.push(RealServerRow {
            mode: ForwardingMode::Fullnat,
            tunnel: None,
            address: "10.1.0.1:8080".parse().unwrap(),
            weight: Weight(5),
            effective_weight: Some(Weight(2)),
            upper_threshold: 0,
            lower_threshold: 0,
            active_connections: 4,
            inactive_connections: 2,
            persistent_connections: 3,
            traffic: TrafficTotals { connections: 7, ..TrafficTotals::default() },
        });
        let stats = Stats { services: vec![service], ..Stats::default() };
        let text = render(&Measurements { stats, ..Measurements::default() });
        let of_service = "service=\"10.0.0.1:80\",protocol=\"tcp\"";
        for line in [
            format!("fullgate_service_connections_total{{{of_service}}} 9\n"),
            format!("fullgate_service_packets_total{{{of_service},direction=\"in\"}} 1\n"),
            format!("fullgate_service_bytes_total{{{of_service},direction=\"out\"}} 18446744073709551615\n"),
            format!("fullgate_real_server_connections_total{{{of_service},real_server=\"10.1.0.1:8080\"}} 7\n"),
            format!("fullgate_real_server_active_connections{{{of_service},real_server=\"10.1.0.1:8080\"}} 4\n"),
            format!("fullgate_real_server_persistent_connections{{{of_service},real_server=\"10.1.0.1:8080\"}} 3\n"),
            format!("fullgate_real_server_weight{{{of_service},real_server=\"10.1.0.1:8080\"}} 5\n"),
        ] {
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
}
