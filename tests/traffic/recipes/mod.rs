//! LVS's own recipes with its own tools, unmodified, against the gateway: what the tools are told is what the recipes say but
//! for addresses, and real servers are set up as they say.

mod failover;
mod fullnat;
mod ipvsadm;
mod ldirectord;
mod restarts;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::lab::client::get_many;
use crate::lab::gateway::port;
use crate::lab::{Configuration, Gateway, Lab, Namespace, Nginx, PATIENCE, wait_for};

/// An example of `dpdk-config/`, each first word replaced by the second.
fn example(name: &str, replace: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dpdk-config").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    replace.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{name} has {from:?}");
        text.replace(from, to)
    })
}

/// A one-armed lab whose real servers are set up for direct routing.
fn direct_routing(reals: usize) -> Lab {
    let lab = Lab::one_arm(reals);
    lab.reals.iter().for_each(|real| answer_for_the_vip(real, "lo"));
    lab
}

/// What every recipe for direct routing and tunnels does on a real server: it has the VIP and does not say so.
fn answer_for_the_vip(real: &Namespace, interface: &str) {
    real.enter(|| {
        for (key, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/all/{key}"), value).unwrap();
        }
    });
    real.ip(&format!("addr add 10.0.0.100/32 dev {interface}"));
}

/// Web servers on all addresses of the real servers, called rs0 and on.
fn web_servers(lab: &Lab, port: u16) -> Vec<Option<Nginx>> {
    (0..lab.reals.len()).map(|index| Some(web_server(lab, index, port))).collect()
}

fn web_server(lab: &Lab, index: usize, port: u16) -> Nginx {
    Nginx::start(&lab.reals[index], lab.path(), &format!("rs{index}"), SocketAddr::from(([0, 0, 0, 0], port)))
}

/// A gateway's only port on [`Lab::one_arm`]'s switch, with these addresses.
fn one_arm(addresses: &[&str]) -> Configuration {
    Configuration { ports: port("lan", "net_af_xdp0,iface=veth-lan", addresses), ..Configuration::bare() }
}

/// How often each real server answered `count` requests of the lab's client.
fn answers(lab: &Lab, target: impl Into<SocketAddr>, count: usize) -> BTreeMap<String, usize> {
    get_many(&lab.client, target, count).0
}

fn shares<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    expected.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

/// Waits until ipvsadm lists these rules and no others, in whatever order.
fn wait_for_rules(gateway: &Gateway, namespace: &Namespace, rules: &[&str]) {
    wait_for_rules_within(PATIENCE, gateway, namespace, rules);
}

fn wait_for_rules_within(limit: Duration, gateway: &Gateway, namespace: &Namespace, rules: &[&str]) {
    let mut expected: Vec<_> = rules.iter().map(|&rule| rule.to_owned()).collect();
    expected.sort();
    let mut last = String::new();
    let settled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for("ipvsadm's rules", limit, || {
            let output = gateway.try_ipvsadm(namespace, "-S -n");
            last = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut found: Vec<_> = last.lines().map(|line| line.trim_end().to_owned()).collect();
            found.sort();
            (output.status.success() && found == expected).then_some(())
        });
    }));
    assert!(settled.is_ok(), "expected:\n{}\nlast seen:\n{last}", rules.join("\n"));
}
