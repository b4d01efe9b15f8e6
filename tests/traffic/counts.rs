//! What the gateway says it did is what was sent.

use std::collections::BTreeSet;

use crate::lab::gateway::{real, vip};
use crate::lab::{Configuration, Gateway, Lab, PATIENCE, UdpEcho, wait_for};

use super::udp::exchange;

const SOCKETS: u64 = 40;
const PACKETS: u64 = 5;
/// IP header, UDP header, and payloads like `12 3`.
const HEADERS: u64 = 28;

fn payload_bytes() -> u64 {
    (0..SOCKETS).flat_map(|socket| (0..PACKETS).map(move |packet| format!("{socket} {packet}").len() as u64)).sum()
}

fn sum(metrics: &std::collections::BTreeMap<String, f64>, name: &str, labels: &[&str]) -> u64 {
    let wanted = |key: &&String| key.split('{').next() == Some(name) && labels.iter().all(|label| key.contains(label));
    let values: Vec<_> = metrics.keys().filter(wanted).map(|key| metrics[key]).collect();
    assert!(!values.is_empty(), "no metric {name} {labels:?} among {:?}", metrics.keys());
    format!("{}", values.iter().sum::<f64>()).parse().unwrap()
}

#[test]
fn sessions_counters_and_metrics_agree_with_what_was_sent() {
    let lab = Lab::two_arm(2, 1);
    let _servers: Vec<_> =
        (0..2).map(|index| UdpEcho::start(&lab.reals[usize::from(index)], real(index, 53))).collect();
    let members = [(real(0, 53), 1), (real(1, 53), 1)];
    let gateway = Gateway::start(&lab, &Configuration::two_arm().with_service("udp", vip(53), "rr", &members));
    lab.client.enter(|| exchange(SOCKETS as usize, PACKETS as usize));
    let (packets, bytes) = (SOCKETS * PACKETS, payload_bytes() + SOCKETS * PACKETS * HEADERS);

    let listed = gateway.json("session list");
    let rows = listed.as_array().unwrap_or_else(|| panic!("not a list: {listed}"));
    assert_eq!(rows.len() as u64, SOCKETS);
    assert!(
        rows.iter().all(|row| row["protocol"] == "udp" && row["vip"] == "10.0.0.100:53" && row["state"] == "UDP"),
        "{rows:?}"
    );
    let clients: BTreeSet<_> = rows.iter().map(|row| row["client"].as_str().unwrap()).collect();
    let locals: BTreeSet<_> =
        rows.iter().map(|row| (row["local"].as_str().unwrap(), row["real_server"].as_str().unwrap())).collect();
    assert_eq!((clients.len() as u64, locals.len() as u64), (SOCKETS, SOCKETS), "each pair is used once");
    let count = gateway.json("session count");
    assert_eq!(count["total"], SOCKETS, "{count}");

    let stats = gateway.stats();
    let traffic = stats.services[0].traffic;
    assert_eq!((traffic.connections, traffic.in_packets, traffic.out_packets), (SOCKETS, packets, packets));
    assert_eq!((traffic.in_bytes, traffic.out_bytes), (bytes, bytes));
    assert!(stats.services[0].real_servers.iter().all(|each| each.traffic.in_packets == packets / 2), "{stats:?}");
    assert!(
        stats.services[0]
            .real_servers
            .iter()
            .all(|each| each.inactive_connections == SOCKETS / 2 && each.active_connections == 0)
    );

    let metrics = gateway.metrics(&lab);
    let readme = include_str!("../../README.md");
    for name in metrics.keys().filter_map(|key| key.split('{').next()) {
        let part_of = |part| name.strip_suffix(part).filter(|whole| readme.contains(&format!("`{whole}`")));
        if ["_bucket", "_sum", "_count"].into_iter().find_map(part_of).is_some() {
            continue; // of a histogram
        }
        assert!(readme.contains(&format!("`{name}`")), "{name} is not in README");
    }
    let service = |name: &str, direction: &str| {
        sum(&metrics, &format!("fullgate_service_{name}_total"), &["10.0.0.100:53", "udp", direction])
    };
    assert_eq!(service("connections", ""), SOCKETS);
    assert_eq!(service("packets", r#"direction="in""#), packets);
    assert_eq!(service("packets", r#"direction="out""#), packets);
    assert_eq!(service("bytes", r#"direction="in""#), bytes);
    assert_eq!(service("bytes", r#"direction="out""#), bytes);
    assert_eq!(sum(&metrics, "fullgate_sessions", &[]), SOCKETS);
    assert_eq!(sum(&metrics, "fullgate_sessions_created_total", &[]), SOCKETS);
    assert_eq!(sum(&metrics, "fullgate_real_server_packets_total", &[r#"direction="in""#]), packets);
    assert_eq!(sum(&metrics, "fullgate_real_server_inactive_connections", &[]), SOCKETS);
    assert_eq!(sum(&metrics, "fullgate_local_ports_used", &[]), SOCKETS);
    assert!(sum(&metrics, "fullgate_port_packets_total", &[r#"port="wan""#, r#"direction="rx""#]) >= packets);
    assert!(sum(&metrics, "fullgate_port_packets_total", &[r#"port="lan""#, r#"direction="tx""#]) >= packets);
}

#[test]
fn sessions_expire_and_give_their_local_ports_back() {
    let lab = Lab::two_arm(1, 1);
    let _server = UdpEcho::start(&lab.reals[0], real(0, 53));
    let configuration = Configuration { timeouts: "udp = 2".into(), ..Configuration::two_arm() };
    let gateway = Gateway::start(&lab, &configuration.with_service("udp", vip(53), "rr", &[(real(0, 53), 1)]));
    lab.client.enter(|| exchange(SOCKETS as usize, 1));
    let used = |gateway: &Gateway| -> u64 {
        let pools = gateway.json("local list");
        pools[0]["addresses"].as_array().unwrap().iter().map(|each| each["ports_used"].as_u64().unwrap()).sum()
    };
    assert_eq!((gateway.sessions().len() as u64, used(&gateway)), (SOCKETS, SOCKETS));
    wait_for("the sessions to expire", PATIENCE, || (gateway.stats().workers[0].sessions == 0).then_some(()));
    assert_eq!((gateway.sessions().len(), used(&gateway)), (0, 0));
    let stats = gateway.stats();
    assert_eq!(stats.workers[0].sessions_expired, SOCKETS);
    assert_eq!(stats.services[0].traffic.connections, SOCKETS, "counters keep what was");
    assert_eq!(stats.services[0].real_servers[0].inactive_connections, 0);
    lab.client.enter(|| exchange(1, 1));
}
