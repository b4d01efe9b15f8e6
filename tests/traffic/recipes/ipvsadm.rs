//! The recipes for ipvsadm alone: direct routing, NAT and tunnels.

use super::{answer_for_the_vip, answers, direct_routing, example, one_arm, shares, web_server, web_servers};
use crate::lab::client::get_many;
use crate::lab::gateway::{port, vip};
use crate::lab::servers::Decapsulation;
use crate::lab::{Configuration, Gateway, Lab};

#[test]
fn direct_routing_with_rr() {
    let lab = direct_routing(2);
    let _servers = web_servers(&lab, 80);
    let gateway = Gateway::start(&lab, &one_arm(&["10.0.0.1/24", "10.0.0.100/32"]));
    gateway.ipvsadm(&lab.gateway, "-A -t 10.0.0.100:80 -s rr");
    gateway.ipvsadm(&lab.gateway, "-a -t 10.0.0.100:80 -r 10.0.0.11 -g");
    gateway.ipvsadm(&lab.gateway, "-a -t 10.0.0.100:80 -r 10.0.0.12 -g");
    let (names, clients) = get_many(&lab.client, vip(80), 10);
    assert_eq!((names, clients), (shares([("rs0", 5), ("rs1", 5)]), shares([("10.0.0.10", 10)])));
    let listed = gateway.ipvsadm(&lab.gateway, "-L -n --stats --exact");
    let counts: Vec<_> = listed.lines().find(|line| line.starts_with("TCP")).unwrap().split_whitespace().collect();
    assert_eq!((counts[2], counts[4]), ("10", "0"), "connections, and no packet back: {listed}");
}

#[test]
fn nat_with_rr_and_port_8000_on_port_80() {
    let lab = Lab::two_arm(2, 1);
    // The director is the real servers' default gateway.
    lab.reals.iter().for_each(|real| drop(real.ip("route add default via 10.1.0.1")));
    let _servers = web_servers(&lab, 80);
    let wan = port("wan", "net_af_xdp0,iface=veth-wan", &["10.0.0.1/24", "10.0.0.100/32"]);
    let lan = port("lan", "net_af_xdp1,iface=veth-lan", &["10.1.0.1/24"]);
    let gateway = Gateway::start(&lab, &Configuration { ports: wan + &lan, ..Configuration::bare() });
    gateway.ipvsadm(&lab.gateway, "-A -t 10.0.0.100:8000 -s rr");
    gateway.ipvsadm(&lab.gateway, "-a -t 10.0.0.100:8000 -r 10.1.0.11:80 -m");
    gateway.ipvsadm(&lab.gateway, "-a -t 10.0.0.100:8000 -r 10.1.0.12:80 -m");
    let (names, clients) = get_many(&lab.client, vip(8000), 10);
    assert_eq!((names, clients), (shares([("rs0", 5), ("rs1", 5)]), shares([("10.0.0.10", 10)])));
}

#[test]
fn tunnels_with_wrr() {
    let lab = Lab::one_arm(2);
    let _tunnels: Vec<_> = lab.reals.iter().map(Decapsulation::start).collect();
    lab.reals.iter().for_each(|real| answer_for_the_vip(real, "dec0"));
    let _servers = web_servers(&lab, 80);
    let gateway = Gateway::start(&lab, &one_arm(&["10.0.0.1/24", "10.0.0.100/32"]));
    gateway.ipvsadm(&lab.gateway, "-A -t 10.0.0.100:80 -s wrr");
    gateway.ipvsadm(&lab.gateway, "-a -t 10.0.0.100:80 -r 10.0.0.11 -i -w 3");
    gateway.ipvsadm(&lab.gateway, "-a -t 10.0.0.100:80 -r 10.0.0.12 -i -w 1");
    assert_eq!(answers(&lab, vip(80), 12), shares([("rs0", 9), ("rs1", 3)]));
    let sessions = gateway.sessions();
    assert!(!sessions.is_empty() && sessions.iter().all(|row| row.mode == "tun"), "{sessions:?}");
}

/// `ipvsadm -R` takes the example's rules, `-S` gives them back, and those that the lab has servers for serve.
#[test]
fn the_examples_rules_are_restored_and_serve() {
    let lab = direct_routing(2);
    let _servers = [web_server(&lab, 0, 80), web_server(&lab, 1, 80)];
    let gateway = Gateway::start(&lab, &Configuration::one_arm());
    let rules = example("ipvsadm.rules", &[("10.20.0.", "10.0.0.")]);
    gateway.ipvsadm_restore(&lab.gateway, &rules);
    let saved = gateway.ipvsadm(&lab.gateway, "-S -n");
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let expected = sorted(&rules.replace(" --tun-type ipip", ""));
    assert_eq!(sorted(&saved.replace(" --tun-type ipip", "")).len(), expected.len(), "{saved}");
    for (line, rule) in sorted(&saved).iter().zip(sorted(&rules)) {
        assert!(line.starts_with(rule.trim_end_matches(" --tun-type ipip")), "{line:?} for {rule:?}");
    }
    assert_eq!(answers(&lab, vip(80), 6), shares([("rs0", 2), ("rs1", 4)]));
    assert_eq!(answers(&lab, vip(8080), 4), shares([("rs0", 2), ("rs1", 2)]));
}
