//! Jumbo frames: in one buffer where buffers are large enough, else in several.

use std::net::UdpSocket;

use crate::lab::client::{answer, ask, connect};
use crate::lab::gateway::{pool, port, real, vip};
use crate::lab::{Configuration, Gateway, Lab, Nginx, PATIENCE, UdpEcho, wait_for};

const MTU: u64 = 9000;

/// A two-arm lab whose cables, but for the gateway's addresses, are for jumbo frames.
fn lab() -> Lab {
    let lab = Lab::two_arm(1, 1);
    let links = [
        (&lab.client, "eth0"),
        (&lab.gateway, "veth-wan"),
        (&lab.gateway, "veth-lan"),
        (&lab.switch, "gateway"),
        (&lab.switch, "rs0"),
        (&lab.switch, "switch"),
        (&lab.reals[0], "eth0"),
    ];
    for (namespace, interface) in links {
        namespace.ip(&format!("link set {interface} mtu {MTU}"));
    }
    // Where the kernel sees the frames too, it must take none of them.
    lab.gateway.enter(|| {
        for interface in ["veth-wan", "veth-lan"] {
            for key in ["rp_filter", "arp_ignore"] {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/{interface}/{key}"), "1").unwrap();
            }
        }
    });
    lab
}

fn carries_jumbo_frames(lab: &Lab, ports: String) -> Gateway {
    let content: Vec<u8> = (0..4_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::create_dir_all(lab.path().join("rs0")).unwrap();
    std::fs::write(lab.path().join("rs0/large.bin"), &content).unwrap();
    let _server = Nginx::start(&lab.reals[0], lab.path(), "rs0", real(0, 80));
    let _echo = UdpEcho::start(&lab.reals[0], real(0, 53));
    let configuration = Configuration {
        ports,
        balance: pool("lan", "10.1.0.200"),
        eal_args: r#"["--no-huge", "-m", "512"]"#.into(),
        ..Configuration::bare()
    };
    let configuration = configuration.with_service("tcp", vip(80), "rr", &[(real(0, 80), 1)]).with_service(
        "udp",
        vip(53),
        "rr",
        &[(real(0, 53), 1)],
    );
    let gateway = Gateway::start(lab, &configuration);
    assert!(lab.gateway.ip("link show fg-wan").contains("mtu 9000"));

    // TCP, several megabytes.
    let received = lab.client.enter(|| {
        let mut stream = connect(vip(80)).unwrap();
        ask(&mut stream, "/large.bin").unwrap();
        answer(&mut stream).unwrap()
    });
    assert!(received == content, "{} bytes of {}", received.len(), content.len());
    let stats = gateway.stats();
    let lan = stats.ports.iter().find(|row| row.name == "lan").unwrap();
    assert!(lan.rx_bytes / lan.rx_packets > 4000, "mostly jumbo frames: {lan:?}");
    // UDP, the largest packet that fits.
    lab.client.enter(|| {
        let socket = UdpSocket::bind("10.0.0.10:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(vip(53)).unwrap();
        socket.send(&[7; MTU as usize - 28]).unwrap();
        let mut buffer = [0; 10_000];
        let size = socket.recv(&mut buffer).unwrap();
        assert!(buffer[..size] == [7; MTU as usize - 28], "{size} bytes");
    });
    // The kernel's own, in and out by the TAP.
    wait_for("a large ping", PATIENCE, || {
        let ping = ["-c", "1", "-W", "1", "-M", "do", "-s", "8972", "10.0.0.1"];
        lab.client.command("ping").args(ping).output().unwrap().status.success().then_some(())
    });
    let stats = gateway.stats();
    for reason in ["too_big", "truncated", "punt_refused", "inject_full", "no_headroom"] {
        assert!(stats.drops.contains(&(reason.to_owned(), 0)), "{reason}: {:?}", stats.drops);
    }
    gateway
}

#[test]
fn in_one_buffer_by_af_packet() {
    let lab = lab();
    let port = |name: &str, number, addresses: &[&str]| {
        port(name, &format!("net_af_packet{number},iface=veth-{name}"), addresses) + "mtu = 9000\n\n"
    };
    let wan = port("wan", 0, &["10.0.0.1/24", "10.0.0.100/32"]);
    carries_jumbo_frames(&lab, wan + &port("lan", 1, &["10.1.0.1/24"]));
}

/// An AF_XDP port, which need not do anything, has buffers within a page; the other driver takes several for a frame.
#[test]
fn in_several_buffers_by_pcap() {
    let lab = lab();
    crate::lab::cable(&lab.switch, "third", &lab.gateway, "veth-third", 1);
    let port = |name: &str, number, addresses: &[&str]| {
        let device = format!("net_pcap{number},rx_iface_in=veth-{name},tx_iface=veth-{name}");
        port(name, &device, addresses) + "mtu = 9000\n\n"
    };
    let wan = port("wan", 0, &["10.0.0.1/24", "10.0.0.100/32"]);
    let lan = port("lan", 1, &["10.1.0.1/24"]);
    let third = crate::lab::gateway::port("third", "net_af_xdp0,iface=veth-third", &[]);
    carries_jumbo_frames(&lab, wan + &lan + &third);
}
