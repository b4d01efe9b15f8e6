//! Neighbours that believe an address to be elsewhere learn better without asking: gratuitous ARP and unsolicited
//! neighbour advertisements.

use fullgate::control::protocol::Stats;

use crate::lab::gateway::{port, vlan};
use crate::lab::{Configuration, Gateway, Lab, Namespace, PATIENCE, wait_for};

/// Where a neighbour believes addresses to be that moved to the gateway.
const ELSEWHERE: &str = "02:0f:0f:0f:0f:99";

fn believes_elsewhere(host: &Namespace, address: &str) {
    host.ip(&format!("neigh replace {address} lladdr {ELSEWHERE} dev eth0 nud stale"));
}

/// Waits until a host believes an address to be at this port. It must not have asked: its own traffic would teach it.
fn learns(host: &Namespace, address: &str, gateway: &Gateway, port: &str) {
    let mac = mac(&gateway.stats(), port);
    wait_for(&format!("{address} to be known at {mac}"), PATIENCE, || {
        host.ip(&format!("neigh show {address} dev eth0")).contains(&mac).then_some(())
    });
}

fn mac(stats: &Stats, port: &str) -> String {
    stats.ports.iter().find(|row| row.name == port).unwrap().mac.clone()
}

#[test]
fn an_address_that_appears_is_announced_whoever_adds_it() {
    let lab = Lab::two_arm(1, 1);
    // The port's own, the VIP, the local pool: before the gateway is there.
    believes_elsewhere(&lab.client, "10.0.0.1");
    believes_elsewhere(&lab.client, "10.0.0.100");
    believes_elsewhere(&lab.reals[0], "10.1.0.203");
    let gateway = Gateway::start(&lab, &Configuration::two_arm());
    learns(&lab.client, "10.0.0.1", &gateway, "wan");
    learns(&lab.client, "10.0.0.100", &gateway, "wan");
    learns(&lab.reals[0], "10.1.0.203", &gateway, "lan");
    // As `ip` or keepalived add a VIP.
    believes_elsewhere(&lab.client, "10.0.0.101");
    lab.gateway.ip("addr add 10.0.0.101/32 dev fg-wan");
    learns(&lab.client, "10.0.0.101", &gateway, "wan");
    // As the gateway adds a local address.
    believes_elsewhere(&lab.reals[0], "10.1.0.210");
    gateway.command("local add lan 10.1.0.210");
    learns(&lab.reals[0], "10.1.0.210", &gateway, "lan");
    // One that goes and comes.
    lab.gateway.ip("addr del 10.0.0.101/32 dev fg-wan");
    believes_elsewhere(&lab.client, "10.0.0.101");
    lab.gateway.ip("addr add 10.0.0.101/32 dev fg-wan");
    learns(&lab.client, "10.0.0.101", &gateway, "wan");
}

#[test]
fn all_addresses_are_announced_when_the_link_is_back() {
    let lab = Lab::two_arm(1, 1);
    for namespace in [&lab.gateway, &lab.reals[0]] {
        namespace.enter(|| {
            for interface in ["all", "default"] {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "0").unwrap();
            }
        });
    }
    lab.reals[0].enter(|| std::fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0").unwrap());
    lab.reals[0].ip("addr add 2001:db8:1::11/64 dev eth0 nodad");
    let configuration = Configuration::two_arm();
    let ports = configuration.ports.replace("\"10.1.0.1/24\"", "\"10.1.0.1/24\", \"2001:db8:1::1/64\"");
    let gateway = Gateway::start(&lab, &Configuration { ports, ..configuration });
    let addresses = ["10.1.0.1", "10.1.0.200", "2001:db8:1::1"];
    wait_for("IPv6 to be ready", PATIENCE, || {
        (!lab.gateway.ip("addr show dev fg-lan").contains("tentative")).then_some(())
    });
    lab.switch.ip("link set gateway down");
    wait_for("the carrier to go", PATIENCE, || lab.gateway.ip("link show fg-lan").contains("NO-CARRIER").then_some(()));
    for address in addresses {
        believes_elsewhere(&lab.reals[0], address);
    }
    lab.switch.ip("link set gateway up");
    for address in addresses {
        learns(&lab.reals[0], address, &gateway, "lan");
    }
    // The kernel does it for those that it checks for duplicates first, the gateway for the others.
    for (address, option) in [("2001:db8:1::2", ""), ("2001:db8:1::3", "nodad")] {
        believes_elsewhere(&lab.reals[0], address);
        lab.gateway.ip(&format!("addr add {address}/64 dev fg-lan {option}"));
        learns(&lab.reals[0], address, &gateway, "lan");
    }
}

#[test]
fn a_vlans_addresses_are_announced_in_the_vlan() {
    let (lab, _trunk) = Lab::trunk(0, 1);
    believes_elsewhere(&lab.client, "10.0.0.1");
    let ports = port("trunk", "net_af_xdp0,iface=veth-trunk", &[]) + &vlan("wan", 100, &["10.0.0.1/24"]);
    let gateway = Gateway::start(&lab, &Configuration { ports, ..Configuration::bare() });
    learns(&lab.client, "10.0.0.1", &gateway, "wan");
}
