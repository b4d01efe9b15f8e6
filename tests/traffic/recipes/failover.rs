//! keepalived on two gateways, master and backup: VRRP on the kernel twin moves the VIP, checkers move real servers.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{answers, direct_routing, example, one_arm, shares, wait_for_rules, web_server, web_servers};
use crate::lab::client::{answer, ask};
use crate::lab::gateway::vip;
use crate::lab::ipvs::Director;
use crate::lab::{Gateway, Lab, Namespace, Nginx, PATIENCE, wait_for};

const SERVICE: &str = "-A -t 10.0.0.100:80 -s wrr";
const FIRST: &str = "-a -t 10.0.0.100:80 -r 10.0.0.11:80 -g -w 1";
const SECOND: &str = "-a -t 10.0.0.100:80 -r 10.0.0.12:80 -g -w 2";
const SORRY: &str = "-a -t 10.0.0.100:80 -r 10.0.0.13:80 -g -w 1";

/// One of the two.
struct Node<'a> {
    namespace: &'a Namespace,
    directory: PathBuf,
    address: &'static str,
    configuration: String,
    running: Option<(Gateway, Director)>,
}

impl<'a> Node<'a> {
    fn new(namespace: &'a Namespace, directory: &Path, name: &str, address: &'static str, vrrp: &str) -> Self {
        let directory = directory.join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let configuration = keepalived(&directory, vrrp);
        Self { namespace, directory, address, configuration, running: None }
    }

    fn start(&mut self) {
        let gateway = Gateway::start_in(self.namespace, &self.directory, &one_arm(&[self.address]));
        let keepalived = Director::keepalived(&gateway, self.namespace, &self.directory, &self.configuration);
        self.running = Some((gateway, keepalived));
    }

    /// The machine loses power: nothing is said, nothing taken away.
    fn lose_power(&mut self) {
        let (mut gateway, keepalived) = self.running.take().unwrap();
        gateway.signal(Signal::KILL);
        keepalived.kill();
        gateway.wait(PATIENCE);
    }

    fn gateway(&self) -> &Gateway {
        &self.running.as_ref().unwrap().0
    }

    fn keepalived(&self) -> &Director {
        &self.running.as_ref().unwrap().1
    }

    /// What its notify scripts have said so far.
    fn notified(&self) -> String {
        std::fs::read_to_string(self.directory.join("notified")).unwrap_or_default()
    }

    fn has_vip(&self) -> bool {
        self.namespace.ip("-o addr show").contains(" 10.0.0.100/32 ")
    }

    fn wait_for_vip(&self, limit: Duration) {
        wait_for(&format!("the VIP on {}", self.address), limit, || self.has_vip().then_some(()));
    }
}

/// The example with the lab's addresses, checks as often as can be, and scripts that write down what they are told.
fn keepalived(directory: &Path, vrrp: &str) -> String {
    let script = directory.join("notify");
    let notified = directory.join("notified");
    std::fs::write(&script, format!("#!/bin/sh\necho \"$@\" >>{}\n", notified.display())).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = script.display();
    let notify_vrrp =
        format!("state MASTER\n    notify_master \"{script} master\"\n    notify_backup \"{script} backup\"\n");
    let notify_service = format!(
        "protocol TCP\n    quorum 1\n    hysteresis 0\n    quorum_up \"{script} quorum up\"\n    quorum_down \"{script} quorum down\"\n"
    );
    let notify_real = |weight| {
        format!(
            "weight {weight}\n        notify_up \"{script} {weight} up\"\n        notify_down \"{script} {weight} down\"\n"
        )
    };
    let text = example(
        "keepalived-dr.conf",
        &[
            ("10.20.0.", "10.0.0."),
            ("delay_loop 6", "delay_loop 1"),
            ("connect_timeout 3", "connect_timeout 1"),
            ("retry 3", "retry 1"),
            ("delay_before_retry 1", "delay_before_retry 0"),
            ("dynamic_interfaces\n", "dynamic_interfaces\n    lvs_sync_daemon fg-lan web\n"),
            ("state MASTER\n", &notify_vrrp),
            ("protocol TCP\n", &notify_service),
            ("weight 1\n", &notify_real(1)),
            ("weight 2\n", &notify_real(2)),
        ],
    );
    let (from, to) = ("state MASTER\n", vrrp);
    text.replace(from, &format!("{to}\n")).replace("    priority 250\n", "")
}

/// Real servers for direct routing and two gateways on one switch, both running, the first one master.
fn pair<'a>(lab: &'a Lab, backup: &'a Namespace) -> (Node<'a>, Node<'a>, Vec<Option<Nginx>>) {
    lab.plug("backup", backup, "veth-lan", 1);
    let servers = web_servers(lab, 80);
    let master = "state MASTER\n    priority 250";
    let mut first = Node::new(&lab.gateway, lab.path(), "master", "10.0.0.1/24", master);
    let mut second = Node::new(backup, lab.path(), "backup", "10.0.0.2/24", "state BACKUP\n    priority 200");
    first.start();
    first.wait_for_vip(PATIENCE);
    second.start();
    for node in [&first, &second] {
        wait_for_rules(node.gateway(), node.namespace, &[SERVICE, FIRST, SECOND]);
    }
    (first, second, servers)
}

/// The time until the client is answered, by connections of a fifth of a second each.
fn time_to_answer(lab: &Lab, since: Instant, limit: Duration) -> Duration {
    lab.client.enter(|| {
        wait_for("the VIP to answer", limit, || {
            let patience = Duration::from_millis(200);
            let mut stream = TcpStream::connect_timeout(&SocketAddr::from(vip(80)), patience).ok()?;
            stream.set_read_timeout(Some(patience)).unwrap();
            ask(&mut stream, "/").ok()?;
            answer(&mut stream).ok().map(|_| since.elapsed())
        })
    })
}

#[test]
fn a_backup_takes_over_within_four_seconds_and_gives_back() {
    let lab = direct_routing(3);
    let backup = Namespace::new("backup");
    let (mut first, second, _servers) = pair(&lab, &backup);
    assert_eq!(answers(&lab, vip(80), 9), shares([("rs0", 3), ("rs1", 6)]));
    assert!(!second.has_vip());
    let daemon = |node: &Node| node.gateway().ipvsadm(node.namespace, "-L --daemon");
    assert!(daemon(&first).starts_with("master sync daemon (mcast=fg-lan, syncid=51"), "{}", daemon(&first));
    assert!(daemon(&second).starts_with("backup sync daemon (mcast=fg-lan, syncid=51"), "{}", daemon(&second));

    let stopped = Instant::now();
    first.lose_power();
    let took = time_to_answer(&lab, stopped, PATIENCE);
    println!("the backup serves {took:?} after the master lost power");
    assert!(took < Duration::from_secs(4), "the backup served after {took:?}");
    assert!(second.has_vip());
    assert_eq!(answers(&lab, vip(80), 9), shares([("rs0", 3), ("rs1", 6)]));
    assert!(second.notified().lines().any(|line| line == "master"), "{}", second.notified());

    first.start();
    first.wait_for_vip(PATIENCE);
    wait_for("the backup to give the VIP back", PATIENCE, || (!second.has_vip()).then_some(()));
    assert_eq!(answers(&lab, vip(80), 9), shares([("rs0", 3), ("rs1", 6)]));
    assert_eq!(second.notified().lines().filter(|line| *line == "backup").count(), 2, "{}", second.notified());

    // An orderly end is told to the backup, which need not wait.
    let stopped = Instant::now();
    let (gateway, keepalived) = first.running.take().unwrap();
    keepalived.stop();
    let took = time_to_answer(&lab, stopped, PATIENCE);
    println!("the backup serves {took:?} after the master was stopped");
    assert!(took < Duration::from_secs(2), "the backup served after {took:?}");
    assert_eq!(gateway.ipvsadm(&lab.gateway, "-S -n"), "", "keepalived takes its services away");
}

#[test]
fn real_servers_stop_and_start_and_a_quorum_brings_the_sorry_server() {
    let lab = direct_routing(3);
    let mut servers = web_servers(&lab, 80);
    let vrrp = "state MASTER\n    priority 250";
    let mut node = Node::new(&lab.gateway, lab.path(), "master", "10.0.0.1/24", vrrp);
    node.start();
    node.wait_for_vip(PATIENCE);
    let rules = |node: &Node, rules: &[&str]| wait_for_rules(node.gateway(), node.namespace, rules);
    rules(&node, &[SERVICE, FIRST, SECOND]);
    servers[1] = None;
    rules(&node, &[SERVICE, FIRST]);
    assert_eq!(answers(&lab, vip(80), 4), shares([("rs0", 4)]));
    servers[1] = Some(web_server(&lab, 1, 80));
    rules(&node, &[SERVICE, FIRST, SECOND]);
    assert_eq!(answers(&lab, vip(80), 6), shares([("rs0", 2), ("rs1", 4)]));
    (servers[0], servers[1]) = (None, None);
    rules(&node, &[SERVICE, SORRY]);
    assert_eq!(answers(&lab, vip(80), 4), shares([("rs2", 4)]));
    servers[0] = Some(web_server(&lab, 0, 80));
    rules(&node, &[SERVICE, FIRST]);
    let said = |line: &str| node.notified().lines().filter(|said| *said == line).count();
    wait_for("all scripts to have run", PATIENCE, || (said("quorum up") == 2).then_some(()));
    let counts: BTreeMap<_, _> =
        ["2 down", "2 up", "1 down", "1 up", "quorum down"].map(|line| (line, said(line))).into();
    // Real servers are up when keepalived starts, which is not told, while the first quorum is.
    assert_eq!(counts, BTreeMap::from([("2 down", 2), ("2 up", 1), ("1 down", 1), ("1 up", 1), ("quorum down", 1)]));

    // A changed file: another weight, another real server that is kept at weight 0 when it fails, one more service.
    let kept = node.configuration.replace("weight 1\n", "weight 5\n        inhibit_on_failure\n");
    let service = node.configuration.split("virtual_server ").nth(1).unwrap().replace(" 80", " 81");
    node.keepalived().reload(&format!("{kept}\nvirtual_server {service}"));
    let other = ["-A -t 10.0.0.100:81 -s wrr", "-a -t 10.0.0.100:81 -r 10.0.0.13:81 -g -w 1"];
    rules(&node, &[SERVICE, &FIRST.replace("-w 1", "-w 5"), other[0], other[1]]);
    servers[0] = None;
    rules(&node, &[SERVICE, &FIRST.replace("-w 1", "-w 0"), SORRY, other[0], other[1]]);
    assert_eq!(answers(&lab, vip(80), 4), shares([("rs2", 4)]));
    // And back to what it was.
    servers[0] = Some(web_server(&lab, 0, 80));
    node.keepalived().reload(&node.configuration);
    rules(&node, &[SERVICE, FIRST]);
    assert!(node.has_vip(), "a reload leaves the VIP");
    assert_eq!(answers(&lab, vip(80), 4), shares([("rs0", 4)]));
}
