//! Packets that are scheduled on their own: who gets them, what is counted and what is listed.

use std::net::SocketAddr;

use fullgate::balance::Protocol;

use crate::dialogue::{Dialogue, add_all, real_server};
use crate::director::{Counts, Director, Mode, Rule, Server, Service, Settings};
use crate::network::Family;
use crate::transcript::Transcript;

const SUBJECTS: [(&str, &str, Family, Mode); 7] = [
    ("packets on their own, rr", "rr", Family::Ipv4, Mode::Nat),
    ("packets on their own, wrr", "wrr", Family::Ipv4, Mode::Dr),
    ("packets on their own, lc", "lc", Family::Ipv4, Mode::Dr),
    ("packets on their own, wlc", "wlc", Family::Ipv4, Mode::Nat),
    ("packets on their own, sed", "sed", Family::Ipv4, Mode::Dr),
    ("packets on their own, nq", "nq", Family::Ipv4, Mode::Dr),
    ("packets on their own, rr over IPv6", "rr", Family::Ipv6, Mode::Nat),
];

const FIRST_PORT: u16 = 6800;
const WEIGHTS: [(u16, u32); 4] = [(1, 3), (2, 1), (3, 2), (4, 1)];
/// Packets of a flow one after the other.
const PACKETS: usize = 18;

pub fn play(director: &mut dyn Director, transcript: &mut Transcript) {
    let mut counted = Vec::new();
    for (port, (name, scheduler, family, mode)) in (FIRST_PORT..).zip(SUBJECTS) {
        let service = Service { protocol: Protocol::Udp, address: SocketAddr::new(family.vip(), port) };
        // A threshold that one connection reaches.
        let server = |number: u16, weight| {
            let upper = if number == 4 { 1 } else { 0 };
            Server { upper, ..real_server(family.server(number), port, mode, weight) }
        };
        let servers = WEIGHTS.map(|(number, weight)| server(number, weight));
        let begin = vec![Rule::AddWith(service, scheduler, Settings::ONE_PACKET)];
        director.configure(&[begin, add_all(service, &servers)].concat());
        let mut flows = [1, 2]
            .map(|client| Dialogue::new(Protocol::Udp, (family.client(client), 5000).into(), service.address, mode));
        let mut say = |director: &mut dyn Director| {
            for packet in 0..PACKETS {
                let seen = flows[packet % 2].say(director, "");
                transcript.note(name, seen);
            }
        };
        say(director);
        director.configure(&[Rule::EditServer(service, server(1, 0)), Rule::DeleteServer(service, servers[1].address)]);
        say(director);
        // Now a packet leaves a connection, which the first one after that ends with.
        director.configure(&[Rule::EditWith(service, scheduler, Settings::NONE)]);
        say(director);
        director.configure(&[Rule::EditWith(service, scheduler, Settings::ONE_PACKET)]);
        say(director);
        counted.push((name, service));
    }
    let (loads, traffic) = (director.loads(), director.traffic());
    for (name, service) in counted {
        let port = service.address.port();
        let listed = director.connections(port..=port);
        transcript.note(name, format!("{} connections", listed.len()));
        let mut note = |what: &str, rows: &[Counts]| {
            for row in rows.iter().filter(|row| service.is_row(row) && !row.counts.is_empty()) {
                transcript.note(name, format!("{:?}: {what} {:?}", row.server, row.counts));
            }
        };
        note("active, inactive", &loads);
        note("connections, packets, bytes", &traffic);
    }
}
