//! Ends and starts: what is left behind, what comes back, who may run beside whom.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::lab::client::get_many;
use crate::lab::gateway::{FULLGATE, real, vip};
use crate::lab::{Configuration, Gateway, Lab, Load, Namespace, Nginx, PATIENCE, wait_for};

fn lab() -> (Lab, Vec<Nginx>, Configuration) {
    let lab = Lab::two_arm(2, 1);
    let start = |(index, namespace): (usize, &Namespace)| {
        Nginx::start(namespace, lab.path(), &format!("rs{index}"), real(index as u8, 80))
    };
    let servers = lab.reals.iter().enumerate().map(start).collect();
    let configuration = Configuration::two_arm().with_service("tcp", vip(80), "wrr", &[(real(0, 80), 1)]);
    (lab, servers, configuration)
}

/// Changes services at run time, ends the daemon with `signal`, starts it again: all is as it was changed to be.
fn changes_survive(signal: Signal) {
    let (lab, _servers, configuration) = lab();
    let mut gateway = Gateway::start(&lab, &configuration);
    gateway.command("real add -t 10.0.0.100:80 -r 10.1.0.12:80 --weight 3");
    gateway.command("service add -t 10.0.0.100:81 --scheduler rr --local-pool lan");
    gateway.command("real add -t 10.0.0.100:81 -r 10.1.0.11:80 --weight 1");
    gateway.command("local add lan 10.1.0.210");
    gateway.command("local del lan 10.1.0.203");
    let shape = |gateway: &Gateway| -> (Vec<String>, Vec<String>) {
        let services = gateway.stats().services;
        let describe = |service: &fullgate::control::protocol::ServiceRow| {
            let members: Vec<_> =
                service.real_servers.iter().map(|each| format!("{}={}", each.address, each.weight.0)).collect();
            format!("{} {} {} {members:?}", service.protocol, service.vip, service.scheduler)
        };
        let pools = gateway.json("local list");
        let addresses = pools[0]["addresses"].as_array().unwrap();
        let kept = addresses.iter().filter(|each| each["withdrawn"] == false).map(|each| each["address"].to_string());
        (services.iter().map(describe).collect(), kept.collect())
    };
    let before = shape(&gateway);
    assert_eq!(before.0.len(), 2);
    assert_eq!(before.1.len(), 4);
    // Written within a tenth of a second: a kill before that would lose the last change.
    wait_for("the state to be written", PATIENCE, || {
        let state = std::fs::read_to_string(lab.path().join("state/services.json")).ok()?;
        (state.contains("10.1.0.210") && !state.contains("10.1.0.203")).then_some(())
    });
    gateway.signal(signal);
    gateway.wait(Duration::from_secs(5));

    let started = Instant::now();
    let gateway = Gateway::start(&lab, &configuration);
    assert!(started.elapsed() < Duration::from_secs(10), "a new start works at once: {:?}", started.elapsed());
    assert_eq!(shape(&gateway), before);
    let (names, _) = get_many(&lab.client, vip(80), 8);
    assert_eq!((names["rs0"], names["rs1"]), (2, 6), "the weights of run time");
    get_many(&lab.client, vip(81), 2);
}

#[test]
fn changes_survive_a_clean_stop() {
    changes_survive(Signal::TERM);
}

#[test]
fn changes_survive_a_kill() {
    changes_survive(Signal::KILL);
}

#[test]
fn the_file_wins_when_the_user_says_so() {
    let (lab, _servers, configuration) = lab();
    let gateway = Gateway::start(&lab, &configuration);
    gateway.command("service add -t 10.0.0.100:81 --scheduler rr --local-pool lan");
    assert_eq!(gateway.stats().services.len(), 2);
    // SIGHUP makes services equal to the file.
    gateway.signal(Signal::HUP);
    wait_for("SIGHUP to take effect", PATIENCE, || (gateway.stats().services.len() == 1).then_some(()));
    // So does apply, which says what it changed, and changes nothing when there is nothing to change.
    gateway.command("service add -t 10.0.0.100:82 --scheduler rr --local-pool lan");
    let file = lab.path().join("fullgate.toml");
    let difference = gateway.command(&format!("apply --config {}", file.display()));
    assert!(difference.contains("10.0.0.100:82"), "{difference}");
    assert_eq!(gateway.stats().services.len(), 1);
    assert!(!gateway.command(&format!("apply --config {}", file.display())).contains("10.0.0.100"));
}

#[test]
fn sigterm_under_load_ends_within_two_seconds_and_leaves_nothing() {
    let (lab, _servers, configuration) = lab();
    let interfaces_before = lab.gateway.ip("-br link");
    let mut gateway = Gateway::start(&lab, &configuration);
    assert!(gateway.interfaces().contains(&"fg-wan".to_owned()), "{:?}", gateway.interfaces());
    let load = Load::start(&lab.client, vip(80), 4);
    load.wait_for_more(100);
    gateway.signal(Signal::TERM);
    let status = gateway.wait(Duration::from_secs(2));
    assert!(status.success(), "{status}");
    assert!(!gateway.socket().exists(), "the socket is left");
    let names = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.split(['@', ' ']).next()).map(str::to_owned).collect()
    };
    assert_eq!(names(&lab.gateway.ip("-br link")), names(&interfaces_before), "an interface is left");
    drop(load);
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused() {
    let (lab, _servers, configuration) = lab();
    let gateway = Gateway::start(&lab, &configuration);
    let second = lab.path().join("second.toml");
    for (directory, named) in [("state", "/state/lock"), ("state-2", "control.sock")] {
        let text = configuration.text(lab.path()).replace("/state\"", &format!("/{directory}\""));
        std::fs::write(&second, text).unwrap();
        let output = lab.gateway.command(FULLGATE).args(["run", "--config"]).arg(&second).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(named), "what is in use already: {said}");
    }
    get_many(&lab.client, vip(80), 3);
    assert!(gateway.interfaces().contains(&"fg-wan".to_owned()), "the first one keeps its TAPs");
}
