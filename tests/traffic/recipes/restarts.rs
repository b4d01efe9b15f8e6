//! keepalived goes on while the gateway is killed and started again and again.
//!
//! `make test` does so a few times; with FULLGATE_SOAK_MINUTES=10 it goes on for ten minutes, a kill every 20 s.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{answers, direct_routing, example, one_arm, shares, wait_for_rules, web_server, web_servers};
use crate::lab::gateway::vip;
use crate::lab::ipvs::Director;
use crate::lab::{Gateway, Load, PATIENCE, wait_for};

const SERVICE: &str = "-A -t 10.0.0.100:80 -s wrr";
const FIRST: &str = "-a -t 10.0.0.100:80 -r 10.0.0.11:80 -g -w 1";
const SECOND: &str = "-a -t 10.0.0.100:80 -r 10.0.0.12:80 -g -w 2";

/// How long, how often, and of what share of a CPU keepalived may use no more.
struct Plan {
    until: Option<Instant>,
    kills: usize,
    interval: Duration,
}

fn plan() -> Plan {
    let minutes = std::env::var("FULLGATE_SOAK_MINUTES").ok().map(|text| text.parse::<u64>().unwrap());
    match minutes {
        Some(minutes) => {
            let until = Some(Instant::now() + Duration::from_secs(60 * minutes));
            Plan { until, kills: usize::MAX, interval: Duration::from_secs(20) }
        }
        None => Plan { until: None, kills: 3, interval: Duration::from_secs(2) },
    }
}

#[test]
fn keepalived_outlives_the_gateway_again_and_again() {
    let lab = direct_routing(3);
    let mut servers = web_servers(&lab, 80);
    let configuration = one_arm(&["10.0.0.1/24"]);
    let mut gateway = Gateway::start(&lab, &configuration);
    let text = example(
        "keepalived-dr.conf",
        &[
            ("10.20.0.", "10.0.0."),
            ("delay_loop 6", "delay_loop 1"),
            ("connect_timeout 3", "connect_timeout 1"),
            ("retry 3", "retry 1"),
            ("delay_before_retry 1", "delay_before_retry 0"),
        ],
    );
    let mut keepalived = Director::keepalived(&gateway, &lab.gateway, lab.path(), &text);
    let has_vip = || lab.gateway.ip("-o addr show").contains(" 10.0.0.100/32 ").then_some(());
    wait_for("the VIP", PATIENCE, has_vip);
    wait_for_rules(&gateway, &lab.gateway, &[SERVICE, FIRST, SECOND]);
    let children = keepalived.children();
    assert_eq!(children.len(), 2, "one for VRRP, one for checks");
    let plan = plan();
    let (started, cpu_before) = (Instant::now(), keepalived.cpu_time());
    let (mut kills, mut answered, mut longest) = (0, 0, Duration::ZERO);
    while kills < plan.kills && plan.until.is_none_or(|until| Instant::now() < until) {
        let load = Load::start_paced(&lab.client, vip(80), 4, Duration::from_millis(20));
        let round = Instant::now();
        load.wait_for_more(100);
        wait_for("the next kill", plan.interval + PATIENCE, || (round.elapsed() >= plan.interval).then_some(()));
        answered += load.done();
        assert_eq!(load.finish(), Vec::<String>::new(), "between two kills every request is answered");

        gateway.signal(Signal::KILL);
        gateway.wait(PATIENCE);
        let killed = Instant::now();
        // A real server that dies meanwhile is out as soon as the gateway, which remembers it, is back.
        servers[1] = None;
        gateway = Gateway::start(&lab, &configuration);
        kills += 1;
        wait_for_rules(&gateway, &lab.gateway, &[SERVICE, FIRST]);
        servers[1] = Some(web_server(&lab, 1, 80));
        wait_for_rules(&gateway, &lab.gateway, &[SERVICE, FIRST, SECOND]);
        wait_for("the VIP", PATIENCE, has_vip);
        assert_eq!(answers(&lab, vip(80), 6), shares([("rs0", 2), ("rs1", 4)]));
        longest = longest.max(killed.elapsed());
    }
    let (lasted, cpu) = (started.elapsed(), keepalived.cpu_time() - cpu_before);
    println!(
        "{kills} kills in {lasted:?}: {answered} answers, at most {longest:?} without service, {cpu:?} of keepalived"
    );
    assert!(keepalived.is_running());
    assert_eq!(keepalived.children(), children, "no child of keepalived died");
    assert!(cpu < lasted / 20, "keepalived used {cpu:?} of CPU time in {lasted:?}");

    // It still does its work.
    servers[1] = None;
    wait_for_rules(&gateway, &lab.gateway, &[SERVICE, FIRST]);
    servers[1] = Some(web_server(&lab, 1, 80));
    wait_for_rules(&gateway, &lab.gateway, &[SERVICE, FIRST, SECOND]);
    keepalived.stop();
    assert_eq!(gateway.ipvsadm(&lab.gateway, "-S -n"), "");
}
