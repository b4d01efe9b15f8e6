//! Two workers make one gateway.

use std::net::UdpSocket;

use fullgate::control::protocol::WorkerRow;

use crate::lab::client::get_many;
use crate::lab::gateway::{pool, port, real, vip};
use crate::lab::{Configuration, Gateway, Lab, Load, Nginx, PATIENCE, UdpEcho, wait_for};

fn serve_with_two_workers(lab: &Lab, configuration: Configuration) {
    let _servers: Vec<_> = (0..2u8)
        .map(|index| Nginx::start(&lab.reals[usize::from(index)], lab.path(), &format!("rs{index}"), real(index, 80)))
        .collect();
    let _echoes: Vec<_> = (0..2).map(|index| UdpEcho::start(&lab.reals[usize::from(index)], real(index, 53))).collect();
    let configuration = Configuration { cores: "[0, 1]".into(), ..configuration }
        .with_service("tcp", vip(80), "rr", &[(real(0, 80), 1), (real(1, 80), 1)])
        .with_service("udp", vip(53), "rr", &[(real(0, 53), 1), (real(1, 53), 1)]);
    let gateway = Gateway::start(lab, &configuration);

    let load = Load::start(&lab.client, vip(80), 4);
    lab.client.enter(super::udp::reach_all);
    if let Err(lost) = lab.client.enter(|| super::udp::try_exchange(200, 3)) {
        let stats = gateway.stats();
        let drops: Vec<_> = stats.drops.iter().filter(|(_, count)| *count > 0).collect();
        panic!("{lost}\ndrops: {drops:?}\nports: {:#?}\nworkers: {:#?}", stats.ports, stats.workers);
    }
    load.wait_for_more(400);
    let failures = load.finish();
    assert!(failures.is_empty(), "{} failures, first: {}", failures.len(), failures[0]);
    let (names, _) = get_many(&lab.client, vip(80), 40);
    assert!(names.len() == 2, "{names:?}");

    let workers = gateway.stats().workers;
    assert_eq!(workers.len(), 2);
    assert!(workers.iter().all(|each| each.sessions_created > 50), "both own sessions: {workers:?}");
    assert!(workers.iter().any(|each| each.handovers > 0), "some packets arrive at the other worker: {workers:?}");
    wait_for("each packet handed over to be taken", PATIENCE, || {
        let workers = gateway.stats().workers;
        let sum = |count: fn(&WorkerRow) -> u64| workers.iter().map(count).sum::<u64>();
        (sum(|each| each.handovers) == sum(|each| each.handovers_received)).then_some(())
    });
}

#[test]
fn af_xdp() {
    serve_with_two_workers(&Lab::two_arm(2, 2), Configuration::two_arm());
}

#[test]
fn af_packet_with_two_queues() {
    let lab = Lab::two_arm(2, 2);
    // The kernel sees these interfaces' frames too, and the addresses that they are for are its own, on the TAPs. It
    // must take none of them here: it would answer for the service.
    lab.gateway.enter(|| {
        for (interface, key) in [
            ("veth-wan", "rp_filter"),
            ("veth-lan", "rp_filter"),
            ("veth-wan", "arp_ignore"),
            ("veth-lan", "arp_ignore"),
        ] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{interface}/{key}"), "1").unwrap();
        }
    });
    let wan = port("wan", "net_af_packet0,iface=veth-wan,qpairs=2", &["10.0.0.1/24", "10.0.0.100/32"]);
    let lan = port("lan", "net_af_packet1,iface=veth-lan,qpairs=2", &["10.1.0.1/24"]);
    let balance = pool("lan", "10.1.0.200-10.1.0.203");
    serve_with_two_workers(&lab, Configuration { ports: wan + &lan, balance, ..Configuration::bare() });
}

#[test]
fn one_flow_keeps_its_order() {
    let lab = Lab::two_arm(1, 2);
    let _echo = UdpEcho::start(&lab.reals[0], real(0, 53));
    let configuration = Configuration { cores: "[0, 1]".into(), ..Configuration::two_arm() };
    let _gateway = Gateway::start(&lab, &configuration.with_service("udp", vip(53), "rr", &[(real(0, 53), 1)]));
    lab.client.enter(|| {
        let socket = UdpSocket::bind("10.0.0.10:0").unwrap();
        socket.set_read_timeout(Some(crate::lab::PATIENCE)).unwrap();
        socket.connect(vip(53)).unwrap();
        // In windows of 20, well below every queue.
        for window in 0..50u32 {
            for each in 0..20 {
                socket.send(&(window * 20 + each).to_be_bytes()).unwrap();
            }
            for each in 0..20 {
                let mut buffer = [0; 4];
                socket.recv(&mut buffer).unwrap();
                assert_eq!(u32::from_be_bytes(buffer), window * 20 + each);
            }
        }
    });
}
