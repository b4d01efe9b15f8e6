//! When templates of persistence end, and how connections keep them.

use std::net::SocketAddr;

use fullgate::balance::Protocol;

use crate::director::{Connection, Director, Mode, Rule, Server, Service, Settings};
use crate::network::{Family, Flags, Packet, Side, frame, router_mac, server_mac};
use crate::transcript::Transcript;

/// Services for how long templates last.
const AGES: [(&str, u16, u32); 3] = [
    ("ages of templates, 30 s", 6300, 30),
    ("ages of templates, 100 s", 6301, 100),
    ("ages of templates, 360 s", 6302, 360),
];

/// When templates are looked at: five seconds before they may end, or after; the kernel's timers are a little late.
const LOOKS: [u64; 10] = [15, 35, 65, 95, 115, 165, 195, 295, 315, 395];
/// When a client comes again whose connection has kept its template.
const COMES_AGAIN: u64 = 185;

/// Connections by which templates begin: one that is not answered, one that is reset, and two that stay.
const CONNECTIONS: [(&str, &[(Side, Flags)]); 4] = [
    ("not answered", &[]),
    ("reset", &[(Side::Wan, "R")]),
    ("established", &[(Side::Lan, "SA"), (Side::Wan, "A")]),
    ("established, and another one", &[(Side::Lan, "SA"), (Side::Wan, "A")]),
];

pub fn play(director: &mut dyn Director, transcript: &mut Transcript) {
    let began = 10;
    director.configure(&[Rule::SetTimeouts(250, 120, 300)]);
    for (_, port, seconds) in AGES {
        let service = Service { protocol: Protocol::Tcp, address: (Family::Ipv4.vip(), port).into() };
        let address = SocketAddr::new(Family::Ipv4.server(1), port);
        let server = Server { address, mode: Mode::Nat, weight: 1, upper: 0, lower: 0 };
        director.configure(&[
            Rule::AddWith(service, "rr", Settings::persistent(seconds)),
            Rule::AddServer(service, server),
        ]);
    }
    director.at(began);
    let connect = |director: &mut dyn Director, number: u16, client_port: u16| {
        for (_, port, _) in AGES {
            let client = SocketAddr::new(Family::Ipv4.client(100 + number), client_port);
            let packet = Packet::new(Protocol::Tcp, client, (Family::Ipv4.vip(), port).into());
            let server = SocketAddr::new(Family::Ipv4.server(1), port);
            for (side, flags) in [(Side::Wan, "S")].iter().chain(CONNECTIONS[usize::from(number)].1) {
                let (from, packet) = match side {
                    Side::Wan => (router_mac(Side::Wan), packet.clone()),
                    Side::Lan => (server_mac(1), packet.answer(server)),
                };
                director.send(*side, &frame(from, side.director_mac(), &packet.with_flags(flags).bytes()));
            }
        }
    };
    (0..4).for_each(|number| connect(director, number, 20_000));
    for look in LOOKS {
        if look > COMES_AGAIN && look - COMES_AGAIN <= 10 {
            director.at(began + COMES_AGAIN);
            connect(director, 3, 20_001);
        }
        director.at(began + look);
        let templates = director.templates();
        for ((name, port, _), (number, (what, _))) in
            AGES.iter().flat_map(|age| (100..).zip(&CONNECTIONS).map(move |connection| (age, connection)))
        {
            let is_it = |template: &&Connection| {
                template.virtual_.port() == *port && template.client.ip() == Family::Ipv4.client(number)
            };
            let left = templates.iter().find(is_it).map(|template| template.expires.next_multiple_of(10));
            transcript.note(name, format!("after {look} s, {what}: {left:?}"));
        }
    }
}
