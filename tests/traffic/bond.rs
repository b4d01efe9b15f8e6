//! Bonds: several devices as one port.

use crate::lab::client::get_many;
use crate::lab::gateway::{pool, port, real, vip};
use crate::lab::{Configuration, Gateway, Lab, Load, Nginx, PATIENCE, wait_for};

use std::net::{Ipv4Addr, SocketAddrV4};

/// A one-arm lab with two cables to the switch, and a bond of both.
fn lab(arguments: &str) -> (Lab, Configuration) {
    let lab = Lab::one_arm(1);
    lab.plug("gateway2", &lab.gateway, "veth-lan2", 1);
    // The kernel sees these interfaces' frames too. It must take none of them.
    lab.gateway.enter(|| {
        for interface in ["veth-lan", "veth-lan2"] {
            for key in ["rp_filter", "arp_ignore"] {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/{interface}/{key}"), "1").unwrap();
            }
        }
    });
    let ports = port("lan", &format!("net_bonding0,{arguments}"), &["10.0.0.1/24", "10.0.0.100/32"]);
    let members = "members = [\"net_af_packet0,iface=veth-lan\", \"net_af_packet1,iface=veth-lan2\"]\n\n";
    let ports = ports.trim_end().to_owned() + "\n" + members;
    let server = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 11), 80);
    let configuration = Configuration { ports, balance: pool("lan", "10.0.0.200-10.0.0.203"), ..Configuration::bare() };
    (lab, configuration.with_service("tcp", vip(80), "rr", &[(server, 1)]))
}

fn server(lab: &Lab) -> Nginx {
    let address = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 11), real(0, 80).port());
    Nginx::start(&lab.reals[0], lab.path(), "rs0", address)
}

/// Which members have a link.
fn up(gateway: &Gateway) -> Vec<bool> {
    gateway.stats().ports[0].members.iter().map(|(_, up)| *up).collect()
}

#[test]
fn active_backup_goes_on_with_the_other_member() {
    let (lab, configuration) = lab("mode=active-backup");
    let _server = server(&lab);
    let gateway = Gateway::start(&lab, &configuration);
    assert_eq!(up(&gateway), [true, true]);
    let load = Load::start(&lab.client, vip(80), 2);
    load.wait_for_more(50);
    for (cable, expected) in [("gateway", [false, true]), ("gateway2", [true, false])] {
        lab.switch.ip(&format!("link set {cable} down"));
        wait_for("the other member alone", PATIENCE, || (up(&gateway) == expected).then_some(()));
        load.wait_for_more(100);
        let shown = gateway.command("port show lan");
        assert!(shown.contains("link down") && shown.contains("link      up"), "{shown}");
        assert!(!lab.gateway.ip("link show fg-lan").contains("NO-CARRIER"));
        lab.switch.ip(&format!("link set {cable} up"));
        wait_for("both members", PATIENCE, || (up(&gateway) == [true, true]).then_some(()));
        load.wait_for_more(50);
    }
    let failures = load.finish();
    assert!(failures.is_empty(), "TCP repeats what was under way: {failures:?}");
    assert!(gateway.log().contains("port lan: net_af_packet0 has no link, it goes on by net_af_packet1"));
    for cable in ["gateway", "gateway2"] {
        lab.switch.ip(&format!("link set {cable} down"));
    }
    wait_for("the whole bond to be down", PATIENCE, || {
        lab.gateway.ip("link show fg-lan").contains("NO-CARRIER").then_some(())
    });
}

/// The switch knows of no bond, and so learns the gateway now at one cable and now at the other: any will do.
#[test]
fn balance_xor_carries_traffic() {
    let (lab, configuration) = lab("mode=balance-xor,xmit_policy=l34");
    let _server = server(&lab);
    let _gateway = Gateway::start(&lab, &configuration);
    let (names, _) = get_many(&lab.client, vip(80), 20);
    assert_eq!(names.len(), 1);
}
