//! Single packets: TTL as a router treats it.

use std::net::UdpSocket;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SocketType, ipproto, recv, socket};

use crate::lab::gateway::{real, vip};
use crate::lab::{Configuration, Gateway, Lab, PATIENCE, UdpEcho, wait_for};

/// The TTL with which the next UDP packet for `port` arrives in a namespace, read from its IP header.
fn next_ttl(socket: &rustix::fd::OwnedFd, port: u16) -> u8 {
    loop {
        let mut packet = [0; 2048];
        recv(socket, &mut packet[..], RecvFlags::empty()).unwrap();
        let header = usize::from(packet[0] & 15) * 4;
        if packet[header + 2..header + 4] == port.to_be_bytes() {
            return packet[8];
        }
    }
}

#[test]
fn ttl_is_decremented_once_each_way_and_its_end_is_told() {
    let lab = Lab::two_arm(1, 1);
    let _echo = UdpEcho::start(&lab.reals[0], real(0, 53));
    let gateway =
        Gateway::start(&lab, &Configuration::two_arm().with_service("udp", vip(53), "rr", &[(real(0, 53), 1)]));
    let raw = |namespace: &crate::lab::Namespace| {
        namespace.enter(|| socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::UDP)).unwrap())
    };
    let (at_server, at_client) = (raw(&lab.reals[0]), raw(&lab.client));
    let client = lab.client.enter(|| UdpSocket::bind("10.0.0.10:0")).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.connect(vip(53)).unwrap();
    for ttl in [64, 2] {
        client.set_ttl(ttl).unwrap();
        client.send(b"hello").unwrap();
        client.recv(&mut [0; 16]).unwrap();
        assert_eq!(u32::from(next_ttl(&at_server, 53)), ttl - 1);
        assert_eq!(next_ttl(&at_client, client.local_addr().unwrap().port()), 63);
    }

    let before = lab.client.snmp("Icmp", "InTimeExcds");
    client.set_ttl(1).unwrap();
    client.send(b"too far").unwrap();
    wait_for("ICMP time exceeded", PATIENCE, || (lab.client.snmp("Icmp", "InTimeExcds") == before + 1).then_some(()));
    assert_eq!(gateway.stats().icmp_errors_sent, 1);
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(client.recv(&mut [0; 16]).is_err(), "it did not reach the real server");
}
