//! VLANs of one device as ports of their own.

use std::io::ErrorKind;
use std::net::UdpSocket;

use fullgate::control::protocol::{PortRow, Stats};

use crate::lab::client::get_many;
use crate::lab::frames;
use crate::lab::gateway::{pool, port, real, vip, vlan};
use crate::lab::trunk::tagged;
use crate::lab::{Configuration, Gateway, Lab, Load, Namespace, Nginx, PATIENCE, UdpEcho, wait_for};

fn row<'a>(stats: &'a Stats, name: &str) -> &'a PortRow {
    stats.ports.iter().find(|port| port.name == name).unwrap()
}

fn drops(stats: &Stats, reason: &str) -> u64 {
    stats.drops.iter().find(|(name, _)| *name == reason).map_or(0, |(_, count)| *count)
}

/// Waits until a ping is answered: the first may find a gateway that does not know its neighbours yet.
fn ping(from: &Namespace, to: &str) {
    wait_for(&format!("an answer from {to}"), PATIENCE, || {
        let output = from.command("ping").args(["-c", "1", "-W", "1", to]).output().unwrap();
        output.status.success().then_some(())
    });
}

/// HTTP from a VLAN of clients to real servers in another one, through one device, with as many workers as queues.
fn serve(device: &str, queues: usize) {
    serve_by(&Configuration::trunk(device), queues);
}

fn serve_by(configuration: &Configuration, queues: usize) {
    let (lab, _trunk) = Lab::trunk(2, queues);
    let _servers: Vec<_> = (0..2u8)
        .map(|index| Nginx::start(&lab.reals[usize::from(index)], lab.path(), &format!("rs{index}"), real(index, 80)))
        .collect();
    let cores = if queues == 1 { "[0]" } else { "[0, 1]" }.into();
    let configuration = Configuration { cores, ..configuration.clone() };
    let members = [(real(0, 80), 1), (real(1, 80), 1)];
    let gateway = Gateway::start(&lab, &configuration.with_service("tcp", vip(80), "rr", &members));

    ping(&lab.client, "10.0.0.1");
    ping(&lab.reals[0], "10.1.0.1");
    ping(&lab.switch, "10.9.0.1");
    let load = Load::start(&lab.client, vip(80), 4);
    load.wait_for_more(200);
    let failures = load.finish();
    assert!(failures.is_empty(), "{} failures, first: {}", failures.len(), failures[0]);
    let (names, sources) = get_many(&lab.client, vip(80), 20);
    assert!(names.len() == 2 && sources.keys().all(|source| source.starts_with("10.1.0.20")), "{names:?} {sources:?}");

    let stats = gateway.stats();
    let (trunk, wan, lan) = (row(&stats, "trunk"), row(&stats, "wan"), row(&stats, "lan"));
    assert_eq!((wan.vlan, wan.parent.as_deref(), wan.mac.as_str()), (Some(100), Some("trunk"), trunk.mac.as_str()));
    assert_eq!((trunk.vlan, &trunk.parent, wan.link_up), (None, &None, true));
    assert!(wan.rx_packets > 1000 && lan.rx_packets > 1000 && wan.tx_packets > 1000 && lan.tx_packets > 1000);
    assert!(trunk.rx_packets > wan.rx_packets + lan.rx_packets, "its own beside all of its VLANs: {stats:?}");
    assert!(trunk.tx_bytes > wan.tx_bytes + lan.tx_bytes + 4 * (wan.tx_packets + lan.tx_packets), "{stats:?}");
    assert_eq!((drops(&stats, "unknown_vlan"), drops(&stats, "unknown_ethertype")), (0, 0));
    if queues > 1 {
        assert!(stats.workers.iter().any(|worker| worker.handovers > 0), "{stats:?}");
    }
    let shown = gateway.command("port show wan");
    assert!(shown.contains("VLAN 100 of port trunk"), "{shown}");
    let metrics = gateway.metrics(&lab);
    assert!(metrics[r#"fullgate_port_packets_total{port="wan",direction="rx"}"#] > 1000.0);
    assert!((metrics[r#"fullgate_port_link_up{port="lan"}"#] - 1.0).abs() < f64::EPSILON);
}

#[test]
fn af_xdp() {
    serve("net_af_xdp0,iface=veth-trunk", 1);
}

#[test]
fn af_xdp_with_two_workers_that_hand_over() {
    serve("net_af_xdp0,iface=veth-trunk", 2);
}

/// The kernel takes the tags off before the device sees the frames, and the device says so beside them.
#[test]
fn af_packet_that_strips_tags() {
    serve("net_af_packet0,iface=veth-trunk", 1);
}

#[test]
fn a_bond_can_carry_vlans() {
    let configuration = Configuration::trunk("net_bonding0,mode=active-backup");
    let members = "members = [\"net_af_packet0,iface=veth-trunk\"]\ntap = \"fg-trunk\"";
    let ports = configuration.ports.replace("tap = \"fg-trunk\"", members);
    serve_by(&Configuration { ports, ..configuration }, 1);
}

#[test]
fn other_vlans_and_stacks_of_tags_are_counted_drops() {
    for device in ["net_af_xdp0,iface=veth-trunk", "net_af_packet0,iface=veth-trunk"] {
        let (lab, trunk) = Lab::trunk(0, 1);
        let gateway = Gateway::start(&lab, &Configuration::trunk(device));
        ping(&lab.client, "10.0.0.1");
        let stats = gateway.stats();
        let (unknown, received) = (drops(&stats, "unknown_vlan"), row(&stats, "wan").rx_packets);
        let mac: [u8; 6] = row(&stats, "trunk").mac.parse::<fullgate::port::MacAddress>().unwrap().0;
        let plain = frames::udp(([2; 6], mac), (vip(0).ip().to_owned(), 1), (vip(0).ip().to_owned(), 53), b"hello");
        trunk.send(&tagged(&plain, 300));
        trunk.send(&tagged(&tagged(&plain, 100), 100));
        trunk.send(&[&plain[..12], &[0x88, 0xa8, 0, 7], &tagged(&plain, 100)[12..]].concat());
        wait_for(device, PATIENCE, || (drops(&gateway.stats(), "unknown_vlan") == unknown + 3).then_some(()));
        // For its priority only, and for VLAN 100 with a priority.
        let before = row(&gateway.stats(), "trunk").rx_packets;
        trunk.send(&tagged(&plain, 0xe000));
        trunk.send(&tagged(&plain, 0xe000 | 100));
        wait_for(device, PATIENCE, || (row(&gateway.stats(), "trunk").rx_packets >= before + 2).then_some(()));
        let stats = gateway.stats();
        assert_eq!((drops(&stats, "unknown_vlan"), drops(&stats, "unknown_ethertype")), (unknown + 3, 0));
        assert!(row(&stats, "wan").rx_packets > received);
    }
}

/// An AF_PACKET port without VLANs must not take tagged frames for untagged ones.
#[test]
fn a_port_without_vlans_takes_no_tagged_frames() {
    let (lab, _trunk) = Lab::trunk(0, 1);
    let ports = port("trunk", "net_af_packet0,iface=veth-trunk", &["10.9.0.1/24"]);
    let gateway = Gateway::start(&lab, &Configuration { ports, ..Configuration::bare() });
    ping(&lab.switch, "10.9.0.1");
    let asked = lab.client.command("ping").args(["-c", "1", "-W", "1", "10.0.0.1"]).output().unwrap();
    assert!(!asked.status.success());
    assert!(drops(&gateway.stats(), "unknown_vlan") > 0);
}

/// `vlan` without `parent`: all frames of the device are tagged.
#[test]
fn a_device_can_be_one_vlan_only() {
    let (lab, _trunk) = Lab::trunk(0, 1);
    let ports = port("wan", "net_af_xdp0,iface=veth-trunk", &["10.0.0.1/24"]) + "vlan = 100\n";
    let gateway = Gateway::start(&lab, &Configuration { ports, ..Configuration::bare() });
    ping(&lab.client, "10.0.0.1");
    let asked = lab.switch.command("ping").args(["-c", "1", "-W", "1", "10.9.0.1"]).output().unwrap();
    assert!(!asked.status.success());
    assert!(drops(&gateway.stats(), "unknown_vlan") > 0);
    assert!(gateway.command("port show").contains("VLAN 100 of net_af_xdp0,iface=veth-trunk"));
}

#[test]
fn a_vlan_has_an_mtu_of_its_own() {
    let (lab, _trunk) = Lab::trunk(1, 1);
    let _echo = UdpEcho::start(&lab.reals[0], real(0, 53));
    let lan = vlan("lan", 200, &["10.1.0.1/24"]) + "mtu = 1400\n\n";
    let wan = vlan("wan", 100, &["10.0.0.1/24", "10.0.0.100/32"]);
    let trunk = port("trunk", "net_af_xdp0,iface=veth-trunk", &[]);
    let configuration =
        Configuration { ports: lan + &wan + &trunk, balance: pool("lan", "10.1.0.200"), ..Configuration::bare() };
    let gateway = Gateway::start(&lab, &configuration.with_service("udp", vip(53), "rr", &[(real(0, 53), 1)]));
    let stats = gateway.stats();
    assert_eq!((row(&stats, "lan").mtu, row(&stats, "wan").mtu), (1400, 1500));
    assert!(lab.gateway.ip("link show fg-lan").contains("mtu 1400"));
    let socket = lab.client.enter(|| UdpSocket::bind("10.0.0.10:0")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(vip(53)).unwrap();
    socket.send(&[1; 1372]).unwrap();
    assert_eq!(socket.recv(&mut [0; 2000]).unwrap(), 1372);
    socket.send(&[1; 1373]).unwrap();
    // The gateway's ICMP, which the kernel gives to the next call on the socket.
    let error = wait_for("fragmentation needed", PATIENCE, || socket.send(&[1; 1373]).err());
    assert_ne!(error.kind(), ErrorKind::WouldBlock);
    assert!(gateway.stats().icmp_errors_sent > 0);
}
