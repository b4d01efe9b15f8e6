//! keepalived with FULLNAT by `flag-3`, and its checks by HTTP: over IPv4 and IPv6, the VIP on the kernel twin by VRRP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{answers, example, shares, wait_for_rules};
use crate::lab::client::get_many;
use crate::lab::gateway::port;
use crate::lab::ipvs::Director;
use crate::lab::{Configuration, Gateway, Lab, Nginx, PATIENCE, wait_for};

const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);

/// A two-armed lab of both families whose real servers need no route back, and a gateway that has no VIP yet.
fn lab() -> (Lab, Gateway) {
    let lab = Lab::two_arm(2, 1);
    lab.client.ipv6("eth0", "2001:db8::10/64");
    for (index, real) in lab.reals.iter().enumerate() {
        real.ipv6("eth0", &format!("2001:db8:1::{}/64", 11 + index));
    }
    let wan = port("wan", "net_af_xdp0,iface=veth-wan", &["10.0.0.1/24", "2001:db8::1/64"]);
    let lan = port("lan", "net_af_xdp1,iface=veth-lan", &["10.1.0.1/24", "2001:db8:1::1/64"]);
    let pool = "[[local_pool]]\nname = \"lan\"\nport = \"lan\"\naddresses = [\"10.1.0.200-10.1.0.203\", \"2001:db8:1::200\"]\n";
    let configuration = Configuration { ports: wan + &lan, balance: pool.into(), ..Configuration::bare() };
    let gateway = Gateway::start(&lab, &configuration);
    (lab, gateway)
}

/// The example checked as often as can be, with these addresses for 192.0.2.100 and 10.1.0.1.
fn keepalived(vip: &str, vip_prefix: u8, real_servers: &str) -> String {
    example(
        "keepalived-fullnat.conf",
        &[
            ("192.0.2.100/32", &format!("{vip}/{vip_prefix}")),
            ("192.0.2.100", vip),
            ("10.1.0.1", real_servers),
            ("delay_loop 6", "delay_loop 1"),
            ("connect_timeout 3", "connect_timeout 1"),
            ("retry 3", "retry 1"),
            ("delay_before_retry 1", "delay_before_retry 0"),
        ],
    )
}

fn serves(vip: IpAddr, vip_prefix: u8, real_servers: &str) {
    let (lab, gateway) = lab();
    let server = |index: usize| {
        let any: IpAddr = if vip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        Nginx::start(&lab.reals[index], lab.path(), &format!("rs{index}"), SocketAddr::new(any, 8080))
    };
    let mut servers = [Some(server(0)), Some(server(1))];
    let text = keepalived(&vip.to_string(), vip_prefix, real_servers);
    let keepalived = Director::keepalived(&gateway, &lab.gateway, lab.path(), &text);
    wait_for("the VIP", PATIENCE, || {
        lab.gateway.ip("-o addr show dev fg-wan").contains(&format!(" {vip}/{vip_prefix} ")).then_some(())
    });
    let bracketed = |address: &str| if vip.is_ipv4() { address.to_owned() } else { format!("[{address}]") };
    let service = format!("{}:80", bracketed(&vip.to_string()));
    let rule = |index: u8, weight: u8| {
        format!("-a -t {service} -r {}:8080 -m -w {weight}", bracketed(&format!("{real_servers}{}", 1 + index)))
    };
    let add = format!("-A -t {service} -s wlc -b flag-3");
    wait_for_rules(&gateway, &lab.gateway, &[&add, &rule(0, 1), &rule(1, 1)]);
    let target = SocketAddr::new(vip, 80);
    let (names, sources) = get_many(&lab.client, target, 10);
    assert_eq!(names, shares([("rs0", 5), ("rs1", 5)]));
    let is_local = |source: &String| source.starts_with("10.1.0.20") || source == "2001:db8:1::200";
    assert!(sources.keys().all(is_local), "real servers see local addresses: {sources:?}");
    assert!(gateway.sessions().iter().all(|row| row.mode == "fullnat"));

    servers[0] = None;
    wait_for_rules(&gateway, &lab.gateway, &[&add, &rule(0, 0), &rule(1, 1)]);
    assert_eq!(answers(&lab, target, 5), shares([("rs1", 5)]));
    // A page that is not there is a failure, too.
    servers[0] = Some(server(0));
    wait_for_rules(&gateway, &lab.gateway, &[&add, &rule(0, 1), &rule(1, 1)]);
    keepalived.reload(&text.replacen("path /", "path /missing", 1));
    wait_for_rules(&gateway, &lab.gateway, &[&add, &rule(0, 0), &rule(1, 1)]);
    keepalived.stop();
    assert_eq!(gateway.ipvsadm(&lab.gateway, "-S -n"), "");
}

#[test]
fn fullnat_by_flag_3_over_ipv4() {
    serves(crate::lab::VIP.into(), 32, "10.1.0.1");
}

#[test]
fn fullnat_by_flag_3_over_ipv6() {
    serves(VIP6.into(), 128, "2001:db8:1::1");
}
