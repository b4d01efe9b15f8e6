//! Links that go down and come back, and link-layer addresses that change.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use crate::lab::gateway::{pool, port, real, vip};
use crate::lab::{Configuration, Gateway, Lab, Namespace, PATIENCE, UdpEcho, cable, wait_for};

/// Whether a real server's answer comes.
fn answered(socket: &UdpSocket) -> bool {
    // Drops what came too late for an earlier question.
    socket.set_nonblocking(true).unwrap();
    while socket.recv(&mut [0; 64]).is_ok() {}
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket.send(b"hello").is_ok() && socket.recv(&mut [0; 64]).is_ok()
}

fn client(lab: &Lab) -> UdpSocket {
    let socket = lab.client.enter(|| UdpSocket::bind("10.0.0.10:0")).unwrap();
    socket.connect(vip(53)).unwrap();
    socket
}

fn sent(gateway: &Gateway, port: &str) -> u64 {
    gateway.stats().ports.iter().find(|row| row.name == port).unwrap().tx_packets
}

/// Waits until the session's packets are answered and leave by `port` alone.
fn goes_by(gateway: &Gateway, socket: &UdpSocket, port: &str) {
    wait_for(&format!("packets to go by {port}"), PATIENCE, || {
        let before = sent(gateway, port);
        (answered(socket) && answered(socket) && sent(gateway, port) >= before + 2).then_some(())
    });
}

fn carrier(namespace: &Namespace, tap: &str) -> bool {
    !namespace.ip(&format!("link show {tap}")).contains("NO-CARRIER")
}

/// A real server behind two cables, the second of which is for when the first is pulled.
#[test]
fn routes_through_a_link_that_is_down_go_away_and_come_back() {
    let lab = Lab::two_arm(0, 1);
    let server = Namespace::new("rs");
    let routes = |server: &Namespace, way: u8| {
        server.ip(&format!("route add 10.4.0.200/30 via 10.{way}.0.1 metric {way}"));
    };
    for way in [5, 6] {
        let interface = format!("eth{way}");
        cable(&server, &interface, &lab.gateway, &format!("veth-{way}"), 1);
        server.ip(&format!("addr add 10.{way}.0.11/24 dev {interface}"));
        routes(&server, way);
    }
    let address = SocketAddrV4::new(Ipv4Addr::new(10, 3, 0, 11), 53);
    server.ip("addr add 10.3.0.11/32 dev lo");
    let _echo = UdpEcho::start(&server, address);
    let arm = |way: u8| {
        let device = format!("net_af_xdp{way},iface=veth-{way}");
        let route = format!("routes = [{{ to = \"10.3.0.0/24\", via = \"10.{way}.0.11\", metric = {way} }}]\n");
        port(&format!("arm{way}"), &device, &[&format!("10.{way}.0.1/24")]) + &route
    };
    let wan = port("wan", "net_af_xdp0,iface=veth-wan", &["10.0.0.1/24", "10.0.0.100/32"]);
    let balance = pool("lan", "10.4.0.200-10.4.0.203").replace("port = \"lan\"", "port = \"arm5\"");
    let configuration = Configuration { ports: wan + &arm(5) + &arm(6), balance, ..Configuration::bare() };
    let gateway = Gateway::start(&lab, &configuration.with_service("udp", vip(53), "rr", &[(address, 1)]));

    let socket = client(&lab);
    goes_by(&gateway, &socket, "arm5");
    server.ip("link set eth5 down");
    wait_for("the TAP to lose its carrier", PATIENCE, || (!carrier(&lab.gateway, "fg-arm5")).then_some(()));
    assert!(lab.gateway.ip("route show 10.3.0.0/24 metric 5").contains("linkdown"));
    assert!(lab.gateway.ip("route get 10.3.0.11").contains("fg-arm6"), "the kernel's own traffic goes around too");
    goes_by(&gateway, &socket, "arm6");
    assert!(carrier(&lab.gateway, "fg-arm6"));
    assert!(!gateway.stats().ports.iter().any(|row| row.name == "arm5" && row.link_up));

    server.ip("link set eth5 up");
    routes(&server, 5);
    wait_for("the TAP to have a carrier again", PATIENCE, || carrier(&lab.gateway, "fg-arm5").then_some(()));
    goes_by(&gateway, &socket, "arm5");
    assert_eq!(gateway.sessions().len(), 1, "it is one session all the way");
    assert!(gateway.log().contains("port arm5: link down") && gateway.log().contains("port arm5: link up"));
}

#[test]
fn the_link_of_a_vlan_is_its_parents() {
    let (lab, _trunk) = Lab::trunk(0, 1);
    let gateway = Gateway::start(&lab, &Configuration::trunk("net_af_xdp0,iface=veth-trunk"));
    assert!(carrier(&lab.gateway, "fg-wan") && carrier(&lab.gateway, "fg-trunk"));
    lab.switch.ip("link set cable down");
    for tap in ["fg-trunk", "fg-wan", "fg-lan"] {
        wait_for(&format!("{tap} to lose its carrier"), PATIENCE, || (!carrier(&lab.gateway, tap)).then_some(()));
    }
    assert!(gateway.stats().ports.iter().all(|row| !row.link_up));
    lab.switch.ip("link set cable up");
    for tap in ["fg-trunk", "fg-wan", "fg-lan"] {
        wait_for(&format!("{tap} to have a carrier"), PATIENCE, || carrier(&lab.gateway, tap).then_some(()));
    }
}

/// The client learns the new address from the kernel's announcement, and the gateway answers to no other.
fn changes_its_address(device: &str, filters: bool) {
    let lab = Lab::two_arm(1, 1);
    let _echo = UdpEcho::start(&lab.reals[0], real(0, 53));
    let wan = port("wan", device, &["10.0.0.1/24", "10.0.0.100/32"]);
    let lan = port("lan", "net_af_xdp1,iface=veth-lan", &["10.1.0.1/24"]);
    let configuration =
        Configuration { ports: wan + &lan, balance: pool("lan", "10.1.0.200"), ..Configuration::bare() };
    let gateway = Gateway::start(&lab, &configuration.with_service("udp", vip(53), "rr", &[(real(0, 53), 1)]));
    let socket = client(&lab);
    wait_for("the first answer", PATIENCE, || answered(&socket).then_some(()));
    lab.gateway.ip("link set fg-wan address 02:0f:0f:0f:0f:01");
    let neighbour = || lab.client.ip("neigh show 10.0.0.100");
    wait_for("the client to learn it", PATIENCE, || neighbour().contains("02:0f:0f:0f:0f:01").then_some(()));
    wait_for("an answer at the new address", PATIENCE, || answered(&socket).then_some(()));
    let row = gateway.stats().ports.into_iter().find(|row| row.name == "wan").unwrap();
    assert_eq!(row.mac, "02:0f:0f:0f:0f:01");
    assert!(gateway.log().contains("port wan: its address is 02:0f:0f:0f:0f:01 from here on"));
    assert_eq!(gateway.log().contains("its device takes all frames"), !filters);
    assert_eq!(lab.gateway.ip("link show veth-wan").contains("02:0f:0f:0f:0f:01"), filters);
    // What is still sent to the old one is for somebody else.
    let before = gateway.metrics(&lab)[r#"fullgate_drops_total{reason="not_our_mac"}"#];
    lab.client.ip("neigh replace 10.0.0.100 lladdr 02:0f:0f:0f:0f:99 dev eth0 nud permanent");
    assert!(!answered(&socket));
    assert!(gateway.metrics(&lab)[r#"fullgate_drops_total{reason="not_our_mac"}"#] > before);
}

#[test]
fn a_device_that_can_takes_the_address_of_its_tap() {
    changes_its_address("net_af_packet0,iface=veth-wan", true);
}

#[test]
fn a_device_that_cannot_takes_all_frames() {
    changes_its_address("net_af_xdp0,iface=veth-wan", false);
}

#[test]
fn an_address_can_be_configured() {
    let lab = Lab::two_arm(1, 1);
    let _echo = UdpEcho::start(&lab.reals[0], real(0, 53));
    let address = |name, number: u8, own: &str, addresses: &[&str]| {
        port(name, &format!("net_af_packet{number},iface=veth-{name}"), addresses) + &format!("mac = \"{own}\"\n\n")
    };
    let wan = address("wan", 0, "02:0f:0f:0f:0f:05", &["10.0.0.1/24", "10.0.0.100/32"]);
    let lan = address("lan", 1, "02:0f:0f:0f:0f:06", &["10.1.0.1/24"]);
    let configuration =
        Configuration { ports: wan + &lan, balance: pool("lan", "10.1.0.200"), ..Configuration::bare() };
    // The kernel sees these interfaces' frames too. It must take none of them.
    lab.gateway.enter(|| {
        for path in ["veth-wan/rp_filter", "veth-wan/arp_ignore", "veth-lan/rp_filter", "veth-lan/arp_ignore"] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{path}"), "1").unwrap();
        }
    });
    let gateway = Gateway::start(&lab, &configuration.with_service("udp", vip(53), "rr", &[(real(0, 53), 1)]));
    let socket = client(&lab);
    wait_for("an answer", PATIENCE, || answered(&socket).then_some(()));
    assert!(lab.client.ip("neigh show 10.0.0.100").contains("02:0f:0f:0f:0f:05"));
    assert!(lab.reals[0].ip("neigh show 10.1.0.200").contains("02:0f:0f:0f:0f:06"));
    assert!(lab.gateway.ip("link show veth-lan").contains("02:0f:0f:0f:0f:06"), "the device has it too");
    assert_eq!(gateway.stats().ports[0].mac, "02:0f:0f:0f:0f:05");
}

#[test]
fn a_vlan_can_have_an_address_of_its_own() {
    let (lab, _trunk) = Lab::trunk(0, 1);
    let gateway = Gateway::start(&lab, &Configuration::trunk("net_af_xdp0,iface=veth-trunk"));
    let ping = |from: &Namespace, to: &str| {
        wait_for(&format!("an answer from {to}"), PATIENCE, || {
            let output = from.command("ping").args(["-c", "1", "-W", "1", to]).output().unwrap();
            output.status.success().then_some(())
        });
    };
    ping(&lab.client, "10.0.0.1");
    lab.gateway.ip("link set fg-wan address 02:0f:0f:0f:0f:02");
    let _ = lab.client.command("ip").args(["neigh", "flush", "all"]).output();
    ping(&lab.client, "10.0.0.1");
    ping(&lab.switch, "10.9.0.1");
    assert!(lab.client.ip("neigh show 10.0.0.1").contains("02:0f:0f:0f:0f:02"));
    let macs: Vec<_> = gateway.stats().ports.into_iter().map(|row| row.mac).collect();
    assert_eq!(macs[0], "02:0f:0f:0f:0f:02");
    assert_eq!(macs[1], macs[2], "the others have the device's still");
}
