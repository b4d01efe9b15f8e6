//! UDP through virtual services.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use crate::lab::gateway::{real, vip};
use crate::lab::{Configuration, Gateway, Lab, PATIENCE, UdpEcho, wait_for};

/// The client's addresses that sockets are spread over.
const SOURCES: u8 = 20;

fn source(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 10 + u8::try_from(number % usize::from(SOURCES)).unwrap())
}

/// Sends from each client address until an echo comes: everybody on the way knows his neighbour then. A packet that waits for
/// one which a machine without a CPU to spare does not resolve in three seconds is dropped, and a UDP client does not send it again.
pub fn reach_all() {
    for number in 0..usize::from(SOURCES) {
        let socket = UdpSocket::bind((source(number), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket.connect(vip(53)).unwrap();
        wait_for("an echo to each client address", PATIENCE, || {
            // One that was refused while nobody listened yet is tried again.
            let _ = socket.send(b"hello");
            socket.recv(&mut [0; 8]).ok()
        });
    }
}

/// Sends `packets` numbered packets from each of `sockets` sockets over twenty client addresses, waits for every echo.
pub fn exchange(sockets: usize, packets: usize) {
    try_exchange(sockets, packets).unwrap();
}

/// The same; says which echo did not come.
pub fn try_exchange(sockets: usize, packets: usize) -> Result<(), String> {
    // All stay open to the end: a port that is free again could be a later socket's, whose packets would be of the
    // earlier one's session.
    let mut open = Vec::new();
    for number in 0..sockets {
        let socket = UdpSocket::bind((source(number), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.connect(vip(53)).unwrap();
        for packet in 0..packets {
            let sent = format!("{number} {packet}");
            socket.send(sent.as_bytes()).unwrap();
            let mut buffer = [0; 64];
            let size = socket.recv(&mut buffer).map_err(|error| format!("no echo of {sent}: {error}"))?;
            assert_eq!(&buffer[..size], sent.as_bytes());
        }
        open.push(socket);
    }
    Ok(())
}

#[test]
fn every_source_gets_its_own_echo() {
    let lab = Lab::two_arm(2, 1);
    let servers: Vec<_> = (0..2).map(|index| UdpEcho::start(&lab.reals[usize::from(index)], real(index, 53))).collect();
    let members = [(real(0, 53), 1), (real(1, 53), 1)];
    let gateway = Gateway::start(&lab, &Configuration::two_arm().with_service("udp", vip(53), "rr", &members));
    lab.client.enter(|| exchange(500, 3));
    assert_eq!(servers.iter().map(UdpEcho::count).collect::<Vec<_>>(), [750, 750]);
    let sources: Vec<_> = servers.iter().flat_map(UdpEcho::sources).collect();
    let addresses: BTreeSet<_> = sources.iter().map(|source| source.ip().to_string()).collect();
    assert_eq!(sources.len(), 500, "each client socket has a source of its own");
    assert_eq!(addresses.into_iter().collect::<Vec<_>>(), ["10.1.0.200", "10.1.0.201", "10.1.0.202", "10.1.0.203"]);
    let traffic = gateway.stats().services[0].traffic;
    assert_eq!((traffic.connections, traffic.in_packets, traffic.out_packets), (500, 1500, 1500));
}
