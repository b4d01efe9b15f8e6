//! ICMP errors as clients and real servers have them through the gateway: refused packets.

use std::io::ErrorKind;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};

use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use crate::lab::gateway::{real, vip};
use crate::lab::{Configuration, Gateway, Lab, PATIENCE, UdpEcho, wait_for};

fn client(lab: &Lab, target: SocketAddrV4) -> UdpSocket {
    let socket = lab.client.enter(|| UdpSocket::bind("10.0.0.10:0")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(target).unwrap();
    socket
}

/// What a client is told who sends to a real server that does not listen.
fn refusal(mode: &str) -> ErrorKind {
    let lab = Lab::two_arm(1, 1);
    lab.reals[0].ip("route add default via 10.1.0.1");
    let mut configuration = Configuration::two_arm();
    configuration.balance += &format!(
        "[[service]]\nvip = \"{}\"\nprotocol = \"udp\"\nmode = \"{mode}\"\n[[service.real_server]]\naddress = \"{}\"\n",
        vip(53),
        real(0, 53)
    );
    let gateway = Gateway::start(&lab, &configuration);
    let socket = client(&lab, vip(53));
    socket.send(b"anybody there?").unwrap();
    let error = socket.recv(&mut [0; 16]).unwrap_err();
    assert_eq!(gateway.stats().icmp_errors_sent, 0, "the real server's own");
    error.kind()
}

#[test]
fn a_real_servers_refusal_reaches_the_client() {
    assert_eq!(refusal("fullnat"), ErrorKind::ConnectionRefused);
    assert_eq!(refusal("nat"), ErrorKind::ConnectionRefused);
}

#[test]
fn a_real_server_that_takes_no_tunnels_is_told_of() {
    // Protocol unreachable, about the tunnel's packet: to the client as if it were about its own.
    let kind = refusal("tun");
    assert_eq!(kind, std::io::Error::from_raw_os_error(rustix::io::Errno::NOPROTOOPT.raw_os_error()).kind());
}

#[test]
fn a_clients_refusal_reaches_the_real_server() {
    let lab = Lab::two_arm(1, 1);
    let _echo = UdpEcho::start(&lab.reals[0], real(0, 53));
    let _gateway =
        Gateway::start(&lab, &Configuration::two_arm().with_service("udp", vip(53), "rr", &[(real(0, 53), 1)]));
    // A packet from a port where nobody listens, so that its answer is refused.
    let raw = lab.client.enter(|| socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::UDP)).unwrap());
    let datagram = [&4000_u16.to_be_bytes()[..], &53_u16.to_be_bytes(), &[0, 12, 0, 0], b"ping"].concat();
    let before = lab.reals[0].snmp("Icmp", "InDestUnreachs");
    sendto(&raw, &datagram, SendFlags::empty(), &SocketAddr::from(SocketAddrV4::new(*vip(53).ip(), 0))).unwrap();
    wait_for("the refusal at the real server", PATIENCE, || {
        (lab.reals[0].snmp("Icmp", "InDestUnreachs") == before + 1).then_some(())
    });
}
