//! Packets that are scheduled one by one, and services that may have so many sessions only, over two workers.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use crate::lab::client::connect;
use crate::lab::gateway::{real, vip};
use crate::lab::{Configuration, Gateway, Lab, Nginx, PATIENCE, UdpEcho, wait_for};

fn dropped(gateway: &Gateway, reason: &str) -> u64 {
    gateway.stats().drops.iter().find(|(name, _)| name == reason).unwrap().1
}

#[test]
fn each_packet_of_a_flow_goes_to_the_next_real_server() {
    let lab = Lab::two_arm(2, 2);
    let servers: Vec<_> = (0..2).map(|n| UdpEcho::start(&lab.reals[usize::from(n)], real(n, 514))).collect();
    let configuration = Configuration { cores: "[0, 1]".into(), ..Configuration::two_arm() };
    let gateway = Gateway::start(&lab, &configuration);
    let ipvsadm = |arguments: &str| gateway.ipvsadm(&lab.gateway, arguments);
    ipvsadm("-A -u 10.0.0.100:514 -s rr -o");
    ipvsadm("-a -u 10.0.0.100:514 -r 10.1.0.11:514 -m");
    ipvsadm("-a -u 10.0.0.100:514 -r 10.1.0.12:514 -m");
    assert!(ipvsadm("-S -n").contains("-A -u 10.0.0.100:514 -s rr -o\n"), "{}", ipvsadm("-S -n"));
    assert!(gateway.command("service list").contains("10.0.0.100:514 rr ops"));
    lab.client.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::new(10, 0, 0, 10), 5140)).unwrap();
        for number in 1..=100_u64 {
            socket.send_to(b"a line of a log", vip(514)).unwrap();
            let arrived = || servers.iter().map(UdpEcho::count).sum::<u64>();
            wait_for("the packet to arrive", PATIENCE, || (arrived() == number).then_some(()));
        }
    });
    assert_eq!(servers.iter().map(UdpEcho::count).collect::<Vec<_>>(), [50, 50]);
    assert_eq!(servers[0].sources(), ["10.0.0.10:5140".parse().unwrap()]);
    assert!(gateway.sessions().is_empty());
    let stats = gateway.stats();
    assert_eq!((stats.services[0].traffic.connections, stats.services[0].traffic.in_packets), (100, 100));
    let refused = gateway.cli("service edit -u 10.0.0.100:514 --mode fullnat");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("in mode fullnat answers come to a local port that only a session remembers"), "{said}");
}

#[test]
fn what_would_be_one_session_too_many_is_dropped_until_one_has_ended() {
    let lab = Lab::two_arm(1, 2);
    let _server = Nginx::start(&lab.reals[0], lab.path(), "rs0", real(0, 80));
    let timeouts = "tcp_close = 1\ntcp_time_wait = 1".into();
    let configuration = Configuration { cores: "[0, 1]".into(), timeouts, ..Configuration::two_arm() };
    let gateway = Gateway::start(&lab, &configuration.with_service("tcp", vip(80), "rr", &[(real(0, 80), 1)]));
    gateway.command("service edit -t 10.0.0.100:80 --max-connections 5");
    let mut open: Vec<_> = lab.client.enter(|| (0..5).map(|_| connect(vip(80)).unwrap()).collect());
    lab.client.enter(|| {
        let sixth = std::net::TcpStream::connect_timeout(&vip(80).into(), Duration::from_millis(500));
        assert!(sixth.is_err(), "there are five");
    });
    assert!(dropped(&gateway, "connection_limit") > 0);
    assert_eq!(gateway.sessions().len(), 5);
    let first = open.remove(0);
    crate::lab::client::ask(&mut { first.try_clone().unwrap() }, "/").unwrap();
    drop(crate::lab::client::answer(&mut { first.try_clone().unwrap() }).unwrap());
    drop(first);
    wait_for("its session to be over", PATIENCE, || (gateway.sessions().len() == 4).then_some(()));
    lab.client.enter(|| connect(vip(80)).unwrap());
}
