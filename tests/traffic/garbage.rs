//! Frames that no honest sender makes: none may harm, each must be counted.

use std::net::Ipv4Addr;

use fullgate::control::protocol::Stats;

use crate::lab::client::get_many;
use crate::lab::frames::{Random, garbage, write_pcap};
use crate::lab::gateway::{pool, port, real, vip};
use crate::lab::{Configuration, Gateway, Lab, Nginx, PATIENCE, VIP, wait_for};

/// Drops between control and kernel: of frames that came from the kernel, and of frames that count as punted already.
const BEYOND_WORKERS: [&str; 2] = ["inject_full", "punt_refused"];

/// Received from ports, and what became of it: dropped, punted, or sent (less what the kernel sent).
fn account(stats: &Stats) -> (u64, u64) {
    let received: u64 = stats.ports.iter().map(|port| port.rx_packets).sum();
    let sent: u64 = stats.ports.iter().map(|port| port.tx_packets).sum();
    let dropped: u64 = stats
        .drops
        .iter()
        .filter(|(reason, _)| !BEYOND_WORKERS.contains(&reason.as_str()))
        .map(|(_, count)| count)
        .sum();
    let punted: u64 = stats.punts.iter().map(|(_, count)| count).sum();
    (received, dropped + punted + sent - stats.injected)
}

fn dropped(stats: &Stats, reason: &str) -> u64 {
    stats.drops.iter().find(|(name, _)| name == reason).unwrap().1
}

fn settled(gateway: &Gateway, at_least: u64) -> Stats {
    let mut last = None;
    wait_for("every received frame to be accounted for", PATIENCE, || {
        let stats = gateway.stats();
        let (received, accounted) = account(&stats);
        let same = last.replace(received) == Some(received);
        if received >= at_least && received == accounted && same { Some(stats) } else { None }
    })
}

/// From capture files, which have no lower or upper bound of length: exact counts, on two ports.
#[test]
fn every_frame_of_a_capture_is_counted() {
    const FRAMES: usize = 20_000;
    let lab = Lab::two_arm(0, 1);
    let mut random = Random::new(20_260_101);
    let macs = ([2, 0, 0, 0, 0, 9], [0x02, 0x70, 0x63, 0x61, 0x70, 0x00]);
    for (name, target) in [("wan", VIP), ("lan", Ipv4Addr::new(10, 1, 0, 200))] {
        let frames: Vec<_> = (0..FRAMES)
            .map(|_| {
                let macs = if name == "lan" { (macs.0, [0x02, 0x70, 0x63, 0x61, 0x70, 0x01]) } else { macs };
                garbage(&mut random, macs, target, 1)
            })
            .collect();
        write_pcap(&lab.path().join(format!("{name}.pcap")), &frames);
    }
    let device = |name: &str, number: u8| {
        let directory = lab.path().display();
        format!("net_pcap{number},rx_pcap={directory}/{name}.pcap,tx_pcap={directory}/{name}-out.pcap")
    };
    let wan = port("wan", &device("wan", 0), &["10.0.0.1/24", "10.0.0.100/32"]);
    let lan = port("lan", &device("lan", 1), &["10.1.0.1/24"]);
    let balance = pool("lan", "10.1.0.200-10.1.0.203");
    let configuration = Configuration { ports: wan + &lan, balance, ..Configuration::bare() }
        .with_service("tcp", vip(80), "rr", &[(real(0, 80), 1)])
        .with_service("udp", vip(53), "rr", &[(real(0, 53), 1)]);
    let gateway = Gateway::start(&lab, &configuration);
    let stats = settled(&gateway, 2 * FRAMES as u64);
    assert_eq!(stats.ports.iter().map(|port| port.rx_packets).collect::<Vec<_>>(), [FRAMES as u64; 2]);
    for reason in
        ["truncated", "unknown_ethertype", "bad_ipv4_header", "bad_ipv4_checksum", "bad_l4_header", "not_our_mac"]
    {
        assert!(dropped(&stats, reason) > 0, "none of {FRAMES} frames was {reason}: {:?}", stats.drops);
    }
    let metrics = gateway.metrics(&lab);
    let total: f64 =
        metrics.iter().filter(|(name, _)| name.starts_with("fullgate_drops_total")).map(|(_, value)| value).sum();
    assert_eq!(total, stats.drops.iter().map(|(_, count)| *count).sum::<u64>() as f64);
}

/// Over AF_XDP, on both ports at once, beside a service that goes on working.
#[test]
fn a_service_goes_on_under_garbage_on_every_port() {
    const FRAMES: usize = 5_000;
    let lab = Lab::two_arm(1, 1);
    let _server = Nginx::start(&lab.reals[0], lab.path(), "rs0", real(0, 80));
    let gateway =
        Gateway::start(&lab, &Configuration::two_arm().with_service("tcp", vip(80), "rr", &[(real(0, 80), 1)]));
    let macs: Vec<_> = gateway.stats().ports.iter().map(|port| mac(&port.mac)).collect();
    let before = account(&gateway.stats()).0;
    let floods: Vec<_> =
        [(&lab.client, "eth0", macs[0], VIP), (&lab.reals[0], "eth0", macs[1], Ipv4Addr::new(10, 1, 0, 201))]
            .into_iter()
            .enumerate()
            .map(|(number, (namespace, interface, mac, target))| {
                // A TAP beside the cable, bridged to it, is a way to send any frame without a line of unsafe code.
                let bridge = bridged_tap(namespace, interface);
                namespace.spawn(move || {
                    let mut random = Random::new(99 + number as u64);
                    for _ in 0..FRAMES {
                        let mut frame = garbage(&mut random, ([2, 0, 0, 0, 1, 9], mac), target, 14);
                        frame.truncate(1514);
                        // Refused by the kernel's own checks now and then: those were never sent.
                        let _ = bridge.send(&frame);
                    }
                })
            })
            .collect();
    let mut served = 0;
    while !floods.iter().all(|flood| flood.is_finished()) {
        get_many(&lab.client, vip(80), 5);
        served += 5;
    }
    floods.into_iter().for_each(|flood| flood.join().unwrap());
    assert!(served > 0);
    get_many(&lab.client, vip(80), 20);
    let stats = settled(&gateway, before + FRAMES as u64);
    for reason in ["truncated", "unknown_ethertype", "bad_ipv4_header", "bad_ipv4_checksum", "bad_l4_header"] {
        assert!(dropped(&stats, reason) > 0, "none of {FRAMES} frames was {reason}: {:?}", stats.drops);
    }
}

fn mac(text: &str) -> [u8; 6] {
    text.parse::<fullgate::port::MacAddress>().unwrap().0
}

/// Puts `interface` and a new TAP on a bridge that takes over the interface's addresses.
fn bridged_tap(namespace: &crate::lab::Namespace, interface: &str) -> tun_rs::SyncDevice {
    let device = namespace.enter(|| {
        let builder = tun_rs::DeviceBuilder::new().name("flood").layer(tun_rs::Layer::L2);
        builder.build_sync().unwrap()
    });
    let addresses = namespace.ip(&format!("-o -4 addr show dev {interface}"));
    let addresses: Vec<_> = addresses.split_whitespace().filter(|word| word.contains('/')).map(str::to_owned).collect();
    namespace.ip("link add bridge type bridge");
    let mac = namespace.ip(&format!("-o link show dev {interface}"));
    let mac = mac.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
    namespace.ip(&format!("link set bridge address {mac} up"));
    namespace.ip(&format!("addr flush dev {interface}"));
    namespace.ip(&format!("link set {interface} master bridge"));
    namespace.ip("link set flood master bridge up");
    for address in addresses {
        namespace.ip(&format!("addr add {address} dev bridge"));
    }
    device
}
