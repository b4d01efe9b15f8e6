//! ldirectord: real servers come and go by what they answer, and a fallback page is there when none does.

use std::net::SocketAddr;

use super::{answers, direct_routing, example, one_arm, shares, wait_for_rules};
use crate::lab::gateway::vip;
use crate::lab::ipvs::Director;
use crate::lab::{Gateway, Lab, Nginx, PATIENCE, wait_for};

const SERVICE: &str = "-A -t 10.0.0.100:80 -s rr";
const FIRST: &str = "-a -t 10.0.0.100:80 -r 10.0.0.11:80 -g -w 1";
const SECOND: &str = "-a -t 10.0.0.100:80 -r 10.0.0.12:80 -g -w 1";
const FALLBACK: &str = "-a -t 10.0.0.100:80 -r 127.0.0.1:80 -g -w 1";

/// What ldirectord looks for in the page `/health`.
fn set_health(lab: &Lab, server: usize, says: &str) {
    std::fs::write(lab.path().join(format!("rs{server}/health")), says).unwrap();
}

#[test]
fn pages_are_negotiated_and_a_fallback_serves_when_both_die() {
    let lab = direct_routing(2);
    let mut servers = super::web_servers(&lab, 80);
    set_health(&lab, 0, "I am alive");
    set_health(&lab, 1, "I am alive");
    let gateway = Gateway::start(&lab, &one_arm(&["10.0.0.1/24", "10.0.0.100/32"]));
    let _fallback = Nginx::start(&lab.gateway, lab.path(), "fallback", SocketAddr::from(([0, 0, 0, 0], 80)));
    let text = example(
        "ldirectord.cf",
        &[
            ("10.20.0.", "10.0.0."),
            ("checkinterval = 5", "checkinterval = 1"),
            ("autoreload = yes", "supervised = yes"),
        ],
    );
    let ldirectord = Director::ldirectord(&gateway, &lab.gateway, lab.path(), &text);
    wait_for_rules(&gateway, &lab.gateway, &[SERVICE, FIRST, SECOND]);
    assert_eq!(answers(&lab, vip(80), 6), shares([("rs0", 3), ("rs1", 3)]));

    // One that answers, but not as it should, is out, and back when it does.
    set_health(&lab, 1, "I am ill");
    wait_for_rules(&gateway, &lab.gateway, &[SERVICE, FIRST]);
    assert_eq!(answers(&lab, vip(80), 4), shares([("rs0", 4)]));
    set_health(&lab, 1, "I am alive");
    wait_for_rules(&gateway, &lab.gateway, &[SERVICE, FIRST, SECOND]);
    assert_eq!(answers(&lab, vip(80), 6), shares([("rs0", 3), ("rs1", 3)]));

    // One by one they die.
    servers[0] = None;
    wait_for_rules(&gateway, &lab.gateway, &[SERVICE, SECOND]);
    servers[1] = None;
    wait_for_rules(&gateway, &lab.gateway, &[SERVICE, FALLBACK]);
    assert_eq!(answers(&lab, vip(80), 4), shares([("fallback", 4)]));
    servers[0] = Some(super::web_server(&lab, 0, 80));
    wait_for_rules(&gateway, &lab.gateway, &[SERVICE, FIRST]);
    assert_eq!(answers(&lab, vip(80), 4), shares([("rs0", 4)]));

    ldirectord.stop();
    wait_for("ldirectord to have taken its services away", PATIENCE, || {
        gateway.ipvsadm(&lab.gateway, "-S -n").is_empty().then_some(())
    });
}
