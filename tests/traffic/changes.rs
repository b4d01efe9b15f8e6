//! What changes while traffic flows: real servers, neighbours, routes, addresses.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::lab::client::{connect, get_many};
use crate::lab::gateway::{real, vip};
use crate::lab::{Configuration, Gateway, Lab, Load, Namespace, Nginx, PATIENCE, cable, get, wait_for};

/// How soon the gateway follows the kernel.
const SOON: Duration = Duration::from_secs(1);

fn web_servers(lab: &Lab) -> Vec<Nginx> {
    let start = |(index, namespace): (usize, &Namespace)| {
        Nginx::start(namespace, lab.path(), &format!("rs{index}"), real(index as u8, 80))
    };
    lab.reals.iter().enumerate().map(start).collect()
}

fn connections(gateway: &Gateway, address: SocketAddrV4) -> Option<(u64, u64)> {
    let stats = gateway.stats();
    let server = stats.services[0].real_servers.iter().find(|each| each.address == address.into())?;
    Some((server.traffic.connections, server.active_connections))
}

#[test]
fn real_servers_come_drain_and_go_under_load_without_a_failure() {
    let lab = Lab::two_arm(3, 1);
    let _servers = web_servers(&lab);
    let members = [(real(0, 80), 1), (real(1, 80), 1)];
    let gateway = Gateway::start(&lab, &Configuration::two_arm().with_service("tcp", vip(80), "wrr", &members));
    let load = Load::start(&lab.client, vip(80), 4);
    load.wait_for_more(200);

    gateway.command("real add -t 10.0.0.100:80 -r 10.1.0.13:80 --weight 1");
    load.wait_for_more(200);
    assert!(connections(&gateway, real(2, 80)).unwrap().0 > 50, "the new real server gets its share");

    gateway.command("real edit -t 10.0.0.100:80 -r 10.1.0.11:80 --weight 0");
    wait_for("rs0 to drain", PATIENCE, || (connections(&gateway, real(0, 80))?.1 == 0).then_some(()));
    let drained = connections(&gateway, real(0, 80)).unwrap().0;
    load.wait_for_more(200);
    assert_eq!(connections(&gateway, real(0, 80)).unwrap().0, drained, "weight 0 gets no new session");

    gateway.command("real del -t 10.0.0.100:80 -r 10.1.0.11:80");
    load.wait_for_more(200);
    assert_eq!(connections(&gateway, real(0, 80)), None);

    gateway.command("real add -t 10.0.0.100:80 -r 10.1.0.11:80 --weight 1");
    load.wait_for_more(200);
    assert!(connections(&gateway, real(0, 80)).unwrap().0 > 50, "it may come back");
    let failures = load.finish();
    assert!(failures.is_empty(), "{} failures, first: {}", failures.len(), failures[0]);
}

#[test]
fn a_long_connection_outlives_draining_and_ends_with_its_real_server() {
    let lab = Lab::two_arm(2, 1);
    let _servers = web_servers(&lab);
    let configuration = Configuration::two_arm().with_service("tcp", vip(80), "rr", &[(real(0, 80), 1)]);
    let gateway = Gateway::start(&lab, &configuration);
    let mut stream = lab.client.enter(|| connect(vip(80))).unwrap();
    gateway.command("real add -t 10.0.0.100:80 -r 10.1.0.12");
    gateway.command("real edit -t 10.0.0.100:80 -r 10.1.0.11 -w 0");
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n").unwrap();
        let mut page = [0; 4096];
        let size = stream.read(&mut page).unwrap();
        assert!(String::from_utf8_lossy(&page[..size]).contains("rs0 "), "the drained server keeps its sessions");
    }
    let (names, _) = get_many(&lab.client, vip(80), 4);
    assert_eq!(names["rs1"], 4, "and gets no new ones");

    gateway.command("real del -t 10.0.0.100:80 -r 10.1.0.11");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n").unwrap();
    wait_for("packets of a removed real server to be counted", PATIENCE, || {
        (dropped(&gateway, "real_server_removed") > 0).then_some(())
    });
    get_many(&lab.client, vip(80), 4);
}

fn dropped(gateway: &Gateway, reason: &str) -> u64 {
    gateway.stats().drops.iter().find(|(each, _)| each == reason).unwrap().1
}

#[test]
fn other_services_may_change_under_load() {
    let lab = Lab::two_arm(2, 1);
    let _servers = web_servers(&lab);
    let members = [(real(0, 80), 1), (real(1, 80), 1)];
    let gateway = Gateway::start(&lab, &Configuration::two_arm().with_service("tcp", vip(80), "wlc", &members));
    let load = Load::start(&lab.client, vip(80), 2);
    for port in 8000..8020 {
        gateway.command(&format!("service add -t 10.0.0.100:{port} --scheduler rr --local-pool lan"));
        gateway.command(&format!("real add -t 10.0.0.100:{port} -r 10.1.0.11:80 --weight 1"));
        lab.client.enter(|| get(vip(port), "/")).unwrap();
    }
    for port in 8000..8020 {
        gateway.command(&format!("service del -t 10.0.0.100:{port}"));
    }
    assert!(lab.client.enter(|| get(vip(8001), "/")).is_err(), "a deleted service is gone");
    load.wait_for_more(100);
    let failures = load.finish();
    assert!(failures.is_empty(), "{} failures, first: {}", failures.len(), failures[0]);
}

#[test]
fn a_changed_neighbour_is_followed() {
    let lab = Lab::two_arm(1, 1);
    let _servers = web_servers(&lab);
    let _gateway =
        Gateway::start(&lab, &Configuration::two_arm().with_service("tcp", vip(80), "rr", &[(real(0, 80), 1)]));
    get_many(&lab.client, vip(80), 3);
    // Another link-layer address behind the same address, of which the real server tells nobody.
    lab.reals[0].ip("link set eth0 address 02:00:00:00:aa:01");
    lab.gateway.ip("neigh replace 10.1.0.11 lladdr 02:00:00:00:aa:01 dev fg-lan nud reachable");
    wait_for("the new neighbour", SOON, || lab.client.enter(|| quick_get(vip(80))));
    get_many(&lab.client, vip(80), 5);
}

#[test]
fn a_changed_route_is_followed() {
    let lab = Lab::two_arm(0, 1);
    let server = Namespace::new("far");
    // Two routers between the gateway's network and the real server's; which one is used shows in their counters.
    let routers: Vec<_> = [253, 254].map(|host| router(&lab, &server, host)).into();
    server.ip("link set lo up");
    let target = SocketAddrV4::new(Ipv4Addr::new(10, 2, 0, 1), 80);
    server.ip("addr add 10.2.0.1/32 dev lo");
    server.ip("route add 10.1.0.0/24 via 10.3.253.1");
    let _nginx = Nginx::start(&server, lab.path(), "far", target);
    let mut configuration = Configuration::two_arm().with_service("tcp", vip(80), "rr", &[(target, 1)]);
    configuration.ports += "routes = [{ to = \"10.2.0.0/24\", via = \"10.1.0.253\" }]\n\n";
    let gateway = Gateway::start(&lab, &configuration);

    get_many(&lab.client, vip(80), 3);
    let before = routers[0].snmp("Ip", "ForwDatagrams");
    get_many(&lab.client, vip(80), 3);
    assert!(routers[0].snmp("Ip", "ForwDatagrams") > before, "the route of the configuration is used");

    lab.gateway.ip("route replace 10.2.0.0/24 via 10.1.0.254 dev fg-lan");
    server.ip("route replace 10.1.0.0/24 via 10.3.254.1");
    routers[0].ip("link set lan down");
    let before = routers[1].snmp("Ip", "ForwDatagrams");
    wait_for("the new route", SOON, || lab.client.enter(|| quick_get(vip(80))));
    assert!(routers[1].snmp("Ip", "ForwDatagrams") > before);

    lab.gateway.ip("route del 10.2.0.0/24");
    let before = dropped(&gateway, "no_route");
    wait_for("packets without a route to be dropped and counted", SOON, || {
        let answered = lab.client.enter(|| quick_get(vip(80))).is_some();
        (!answered && dropped(&gateway, "no_route") > before).then_some(())
    });
}

/// A router between the gateway's network, there 10.1.0.HOST, and the far server.
fn router(lab: &Lab, server: &Namespace, host: u8) -> Namespace {
    let router = Namespace::new(&format!("router{host}"));
    router.enter(|| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        // The far server answers through either router.
        for scope in ["all", "default"] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{scope}/rp_filter"), "0").unwrap();
        }
    });
    lab.plug(&format!("router{host}"), &router, "lan", 1);
    router.ip(&format!("addr add 10.1.0.{host}/24 dev lan"));
    cable(&router, "far", server, &format!("to{host}"), 1);
    router.ip(&format!("addr add 10.3.{host}.1/24 dev far"));
    server.ip(&format!("addr add 10.3.{host}.2/24 dev to{host}"));
    router.ip(&format!("route add 10.2.0.0/24 via 10.3.{host}.2"));
    router
}

/// A request that gives up after a fraction of a second.
fn quick_get(target: SocketAddrV4) -> Option<()> {
    let limit = Duration::from_millis(300);
    let mut stream = std::net::TcpStream::connect_timeout(&target.into(), limit).ok()?;
    stream.set_read_timeout(Some(limit)).unwrap();
    crate::lab::client::ask(&mut stream, "/").ok()?;
    crate::lab::client::answer(&mut stream).ok().map(drop)
}

/// Whether one of the echo requests of a second is answered.
fn ping(lab: &Lab, address: &str) -> bool {
    lab.client.command("ping").args(["-c", "1", "-i", "0.1", "-w", "1", address]).output().unwrap().status.success()
}

#[test]
fn virtual_and_local_addresses_answer_ping_also_new_ones() {
    let lab = Lab::two_arm(1, 1);
    let _servers = web_servers(&lab);
    let _gateway =
        Gateway::start(&lab, &Configuration::two_arm().with_service("tcp", vip(80), "rr", &[(real(0, 80), 1)]));
    lab.client.ip("route add 10.1.0.0/24 via 10.0.0.1");
    for address in ["10.0.0.1", "10.0.0.100", "10.1.0.1", "10.1.0.200", "10.1.0.203"] {
        assert!(ping(&lab, address), "{address} does not answer ping");
    }
    assert!(!ping(&lab, "10.0.0.102"), "nobody has this address");
    lab.gateway.ip("addr add 10.0.0.101/32 dev fg-wan");
    wait_for("the new address to answer", SOON, || ping(&lab, "10.0.0.101").then_some(()));
    lab.gateway.ip("addr del 10.0.0.101/32 dev fg-wan");
    wait_for("the address to be gone", PATIENCE, || (!ping(&lab, "10.0.0.101")).then_some(()));
}
