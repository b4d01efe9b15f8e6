//! IPv6 of the host itself through the TAPs: ping and HTTP both ways, far networks, addresses without a subnet; and IPv6
//! routers on the way of IPv4 packets.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6, TcpStream};
use std::time::Duration;

use crate::lab::gateway::{pool, port, vip};
use crate::lab::{Configuration, Gateway, Lab, Namespace, Nginx, PATIENCE, get as http, run, wait_for};

const OWN: &str = "2001:db8::1";
const VIP: &str = "2001:db8::100";
const CLIENT: &str = "2001:db8::10";
/// Behind the client, which is its router.
const FAR: &str = "2001:db8:f::1";

fn configuration() -> Configuration {
    let wan = port("wan", "net_af_xdp0,iface=veth-wan", &["10.0.0.1/24", "2001:db8::1/64", "2001:db8::100/128"]);
    let route = format!("routes = [{{ to = \"2001:db8:f::/48\", via = \"{CLIENT}\" }}]\n\n");
    let lan = port("lan", "net_af_xdp1,iface=veth-lan", &["10.1.0.1/24"]);
    Configuration {
        ports: wan + &route + &lan,
        balance: pool("lan", "10.1.0.200"),
        control: r#"metrics = "[::]:9469""#.into(),
        ..Configuration::bare()
    }
}

fn lab() -> Lab {
    let lab = Lab::two_arm(0, 1);
    lab.client.ipv6("eth0", &format!("{CLIENT}/64"));
    lab.client.ipv6("lo", &format!("{FAR}/128"));
    lab
}

fn ping(from: &Namespace, arguments: &str) -> bool {
    let mut command = from.command("ping");
    command.args(["-6", "-c", "3", "-i", "0.2", "-W", "1"]).args(arguments.split_whitespace());
    let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
    said.contains(" 0% packet loss")
}

/// A page over IPv6; the calling thread must be in the client's namespace.
fn get(address: &str, port: u16) -> std::io::Result<String> {
    let target = SocketAddrV6::new(address.parse::<Ipv6Addr>().unwrap(), port, 0, 0);
    let mut stream = TcpStream::connect_timeout(&target.into(), Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn the_hosts_own_ipv6_works_through_its_ports() {
    let lab = lab();
    let mut gateway = Gateway::start(&lab, &configuration());
    // Without a subnet: usable at once. The other is looked for on the link first.
    assert!(ping(&lab.client, VIP));
    wait_for("the TAP's address", PATIENCE, || ping(&lab.client, OWN).then_some(()));
    assert!(ping(&lab.client, &format!("-s 1400 {OWN}")));
    assert!(ping(&lab.client, &format!("-I {FAR} {VIP}")), "answers follow the configured route");
    assert!(ping(&lab.gateway, CLIENT) && ping(&lab.gateway, FAR));
    assert!(!ping(&lab.client, "2001:db8::101"), "nobody's address");
    let neighbours = lab.client.ip("-6 neigh show dev eth0");
    let mac = |address: &str| {
        let line = neighbours.lines().find(|line| line.starts_with(&format!("{address} ")))?;
        line.split_whitespace().skip_while(|word| *word != "lladdr").nth(1)
    };
    assert!(mac(OWN).is_some() && mac(OWN) == mac(VIP), "{neighbours}");

    for address in [OWN, VIP] {
        let page = lab.client.enter(|| get(address, 9469)).unwrap();
        assert!(page.contains("fullgate_punts_total{class=\"ipv6\"}"), "{page}");
    }
    let shown = gateway.command("port show wan");
    assert!(shown.contains("10.0.0.1/24, 2001:db8::1/64, 2001:db8::100/128, fe80::"), "{shown}");
    let addresses = gateway.json("port show")[1]["addresses"].to_string();
    assert_eq!(addresses, r#"["10.1.0.1/24","10.1.0.200/32"]"#, "no IPv6 where none is configured");

    // A link-local address of the port's, over its link.
    let link_local = shown.split(&[' ', ',', '\n', '/'][..]).find(|word| word.starts_with("fe80::")).unwrap();
    assert!(ping(&lab.client, &format!("{link_local}%eth0")));
    gateway.signal(rustix::process::Signal::TERM);
    assert!(gateway.wait(Duration::from_secs(5)).success());
    assert!(!run(lab.gateway.command("ip").args(["-6", "route"])).contains("fg-"), "routes go with the TAPs");
}

#[test]
fn an_ipv6_address_that_another_machine_has_is_shown_as_such() {
    let lab = lab();
    lab.client.ip(&format!("-6 addr add {OWN}/64 dev eth0 nodad"));
    let gateway = Gateway::start(&lab, &configuration());
    wait_for("the duplicate to be found", PATIENCE, || {
        gateway.command("port show wan").contains("2001:db8::1/64 (duplicate)").then_some(())
    });
    assert!(gateway.log().contains("2001:db8::1/64 is another machine's on the same link"), "{}", gateway.log());
    assert!(ping(&lab.client, VIP), "the other addresses are used");
}

#[test]
fn real_servers_behind_an_ipv6_gateway_are_reached() {
    let lab = Lab::two_arm(1, 1);
    // IPv4 without an IPv4 network between the gateway and its router, here the real server's own host (RFC 8950).
    let target = SocketAddrV4::new(Ipv4Addr::new(10, 2, 0, 1), 80);
    let server = &lab.reals[0];
    server.ip("addr add 10.2.0.1/32 dev lo");
    server.ipv6("eth0", "fe80::11/64");
    server.ip("route add 10.9.0.0/24 via inet6 fe80::1 dev eth0");
    let _nginx = Nginx::start(server, lab.path(), "far", target);
    let mut configuration = Configuration::two_arm();
    configuration.ports = configuration.ports.replace("[\"10.1.0.1/24\"]", "[\"10.9.0.1/32\", \"fe80::1/64\"]");
    configuration.balance = pool("lan", "10.9.0.200");
    let gateway = Gateway::start(&lab, &configuration.with_service("tcp", vip(80), "rr", &[(target, 1)]));
    lab.gateway.ip("route add 10.2.0.0/24 via inet6 fe80::11 dev fg-lan");
    let quick = || lab.client.enter(|| http(vip(80), "/")).ok();
    let page = wait_for("the route to be followed", PATIENCE, quick);
    assert_eq!(page.trim(), "far 10.9.0.200");
    // Its neighbour comes and goes as any other.
    lab.gateway.ip("-6 neigh flush dev fg-lan");
    assert!(quick().is_some());
    assert_eq!(gateway.stats().drops.iter().find(|(reason, _)| reason == "neighbour_unresolved").unwrap().1, 0);
}
