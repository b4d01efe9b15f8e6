//! IPVS's defence strategies against a flood of SYNs that fills the session table.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use fullgate::control::protocol::{Reply, Request, Status};

use crate::lab::client::{connect, get_many};
use crate::lab::gateway::{real, vip};
use crate::lab::{Configuration, Gateway, Lab, Namespace, Nginx, PATIENCE, wait_for};

/// The smallest table that there may be.
const CAPACITY: u32 = 1024;
/// It is full after half a second, and half-open sessions last for a minute.
const PACKETS_A_SECOND: &str = "3000";

/// SYNs from addresses that nobody has; ended when dropped.
struct SynFlood(Child);

impl SynFlood {
    fn start(client: &Namespace) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/syn_flood.py");
        let mut command = client.command("python3");
        command.arg(script).args(["10.0.0.100", "80", PACKETS_A_SECOND]).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for SynFlood {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn dropped(gateway: &Gateway, reason: &str) -> u64 {
    gateway.stats().drops.iter().find(|(name, _)| name == reason).unwrap().1
}

fn status(gateway: &Gateway) -> Status {
    match gateway.ask(&Request::Status {}) {
        Reply::Status(status) => status,
        other => panic!("no status: {other:?}"),
    }
}

fn ask(stream: &mut TcpStream) -> usize {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n").unwrap();
    stream.read(&mut [0; 4096]).unwrap()
}

#[test]
fn clients_get_in_during_a_flood_once_drop_entry_is_on() {
    let lab = Lab::two_arm(1, 1);
    let _server = Nginx::start(&lab.reals[0], lab.path(), "rs0", real(0, 80));
    let configuration = Configuration { capacity: CAPACITY, ..Configuration::two_arm() };
    let gateway = Gateway::start(&lab, &configuration.with_service("tcp", vip(80), "rr", &[(real(0, 80), 1)]));
    let mut before = lab.client.enter(|| connect(vip(80))).unwrap();
    assert!(ask(&mut before) > 0);
    let flood = SynFlood::start(&lab.client);
    wait_for("the table to be full", PATIENCE, || (dropped(&gateway, "session_table_full") > 1000).then_some(()));
    for _ in 0..3 {
        let new = lab.client.enter(|| TcpStream::connect_timeout(&vip(80).into(), Duration::from_millis(500)));
        assert!(new.is_err(), "no session is free, and none will be for a minute");
    }
    assert_eq!(status(&gateway).defence, [""; 0]);

    assert_eq!(gateway.command("sysctl -w net.ipv4.vs.drop_entry=1"), "net.ipv4.vs.drop_entry = 1\n");
    wait_for("room for sessions", PATIENCE, || {
        (status(&gateway).sessions < u64::from(CAPACITY) * 95 / 100).then_some(())
    });
    for rounds in 1..=3 {
        get_many(&lab.client, vip(80), 20);
        assert!(ask(&mut before) > 0, "who was there stays");
        let ended = || gateway.stats().workers[0].sessions_dropped;
        wait_for("the table to be gone through", PATIENCE, || (ended() > rounds * u64::from(CAPACITY)).then_some(()));
    }
    assert_eq!(gateway.command("sysctl -n drop_entry"), "2\n", "active now");
    assert_eq!(status(&gateway).defence, ["drop_entry"]);
    assert!(gateway.command("status").ends_with("defence   drop_entry active\n"));
    let metrics = gateway.metrics(&lab);
    let metric = |name: &str, labels: &[&str]| {
        let is_it = |key: &str| key.starts_with(name) && labels.iter().all(|label| key.contains(label));
        metrics.iter().find(|(key, _)| is_it(key)).map(|(_, &value)| value)
    };
    assert_eq!(metric("fullgate_defence_active{", &["strategy=\"drop_entry\"", "worker=\"0\""]), Some(1.0));
    assert_eq!(metric("fullgate_defence_active{", &["strategy=\"drop_packet\""]), Some(0.0));
    assert!(metric("fullgate_sessions_dropped_total{", &["worker=\"0\""]).unwrap() > 1000.0);

    drop(flood);
    // Nothing comes any more: the hand goes on round the table until there is more than enough room.
    wait_for("the defence to end", PATIENCE, || status(&gateway).defence.is_empty().then_some(()));
    assert_eq!(gateway.command("sysctl -n drop_entry"), "1\n");
}

#[test]
fn drop_packet_drops_part_of_what_would_begin_sessions() {
    let lab = Lab::two_arm(1, 1);
    let gateway =
        Gateway::start(&lab, &Configuration::two_arm().with_service("tcp", vip(80), "rr", &[(real(0, 80), 1)]));
    gateway.command("sysctl drop_packet=3 am_droprate=4");
    let _flood = SynFlood::start(&lab.client);
    wait_for("packets to be dropped", PATIENCE, || (dropped(&gateway, "drop_packet") > 500).then_some(()));
    let stats = gateway.stats();
    let dropped = stats.drops.iter().find(|(name, _)| name == "drop_packet").unwrap().1;
    let created: u64 = stats.workers.iter().map(|worker| worker.sessions_created).sum();
    assert!(created.abs_diff(dropped * 3) < 200, "one in four: {dropped} dropped, {created} begun");
    assert_eq!(stats.workers[0].defence, ["drop_packet"]);
}
