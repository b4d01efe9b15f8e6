//! IPVS's sysctls while traffic flows.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use rustix::process::Signal;

use crate::lab::gateway::{real, vip};
use crate::lab::{Configuration, Gateway, Lab, PATIENCE, UdpEcho, wait_for};

/// Whether a packet of this flow is answered.
fn is_answered(socket: &UdpSocket) -> bool {
    socket.send_to(b"?", vip(53)).unwrap();
    socket.recv(&mut [0; 8]).is_ok()
}

#[test]
fn a_sysctl_changes_what_a_live_gateway_does_and_is_kept() {
    let lab = Lab::two_arm(2, 1);
    let _servers: Vec<_> =
        (0..2).map(|index| UdpEcho::start(&lab.reals[usize::from(index)], real(index, 53))).collect();
    let members = [(real(0, 53), 1), (real(1, 53), 0)];
    let configuration = Configuration::two_arm().with_service("udp", vip(53), "rr", &members);
    let mut gateway = Gateway::start(&lab, &configuration);
    let socket = lab.client.enter(|| UdpSocket::bind((Ipv4Addr::new(10, 0, 0, 10), 5353))).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(is_answered(&socket));
    gateway.command("real edit -u 10.0.0.100:53 -r 10.1.0.12:53 -w 1");
    gateway.command("real del -u 10.0.0.100:53 -r 10.1.0.11:53");
    assert!(!is_answered(&socket), "its real server is gone, and the session is not over");

    let set = gateway.command("sysctl -w net.ipv4.vs.expire_nodest_conn=1");
    assert_eq!(set, "net.ipv4.vs.expire_nodest_conn = 1\n");
    wait_for("the flow to go to the other real server", PATIENCE, || is_answered(&socket).then_some(()));

    let refused = gateway.cli("sysctl -w expire_nodest_conn=0 conn_reuse_mode=9");
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(gateway.command("sysctl -n expire_nodest_conn"), "1\n", "all or nothing");
    // The file knows nothing of it: neither reading it again nor a new start makes it undone.
    gateway.signal(Signal::HUP);
    wait_for("the file to be read again", PATIENCE, || gateway.log().contains("reloaded: ").then_some(()));
    assert_eq!(gateway.command("sysctl -n expire_nodest_conn"), "1\n");
    gateway.signal(Signal::TERM);
    gateway.wait(Duration::from_secs(5));
    let gateway = Gateway::start(&lab, &configuration);
    assert_eq!(gateway.command("sysctl -n net/ipv4/vs/expire_nodest_conn"), "1\n");
    assert!(gateway.log().contains("sysctls kept from run time differ"), "{}", gateway.log());
}
