//! A TCP connection's state and timeout after every sequence of segments that matters, as both list them, and when
//! connections end.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use fullgate::balance::{Protocol, Tunnel};

use crate::director::{Connection, Director, Mode, Rule, Server, Service};
use crate::network::{Family, Flags, Packet, Side, frame, router_mac, server_mac};
use crate::transcript::Transcript;

/// A segment: who sends it, and its control bits.
type Event = (Side, Flags);

/// What may follow the first SYN. Of a real server's segments some do not occur, and a state machine must bear them.
const BOTH_SIDES: [Event; 10] = [
    (Side::Wan, "S"),
    (Side::Wan, "A"),
    (Side::Wan, "FA"),
    (Side::Wan, "R"),
    (Side::Wan, "P"),
    (Side::Lan, "SA"),
    (Side::Lan, "A"),
    (Side::Lan, "FA"),
    (Side::Lan, "R"),
    (Side::Lan, "S"),
];
const CLIENT_ONLY: [Event; 5] =
    [(Side::Wan, "S"), (Side::Wan, "A"), (Side::Wan, "FA"), (Side::Wan, "R"), (Side::Wan, "P")];

/// Timeouts that there are, in seconds.
const TIMEOUTS: [u32; 9] = [2, 10, 18, 30, 60, 90, 120, 300, 900];

struct Course {
    name: &'static str,
    mode: Mode,
    port: u16,
    events: &'static [Event],
    /// Segments after the first one.
    length: u32,
}

const COURSES: [Course; 3] = [
    Course { name: "TCP states, nat", mode: Mode::Nat, port: 3000, events: &BOTH_SIDES, length: 3 },
    Course { name: "TCP states, dr", mode: Mode::Dr, port: 3001, events: &CLIENT_ONLY, length: 4 },
    Course { name: "TCP states, tun", mode: Mode::Tun(TUNNEL), port: 3002, events: &CLIENT_ONLY, length: 2 },
];

const TUNNEL: Tunnel = Tunnel { encapsulation: fullgate::balance::Encapsulation::Ipip, port: 0, checksum: false };
const SERVER: u16 = 1;

pub fn play(director: &mut dyn Director, transcript: &mut Transcript) {
    for course in &COURSES {
        let service = Service { protocol: Protocol::Tcp, address: (Family::Ipv4.vip(), course.port).into() };
        director.configure(&begin(service, course.mode));
        let stories: Vec<_> = (0..).zip(course.stories()).collect();
        // A few at a time: the shortest timeout is ten seconds.
        for stories in stories.chunks(400) {
            for (number, story) in stories {
                story.iter().for_each(|&event| segment(director, service, *number, event));
            }
            let listed = director.connections(course.port..=course.port);
            let connections: BTreeMap<_, _> = listed.iter().map(|connection| (connection.client, connection)).collect();
            for (number, story) in stories {
                let seen = connections.get(&client(*number)).map_or("none".to_owned(), |connection| state(connection));
                transcript.note(course.name, format!("{}: {seen}", told(story)));
            }
        }
    }
}

impl Course {
    /// A SYN, and each sequence of at most so many segments behind it.
    fn stories(&self) -> Vec<Vec<Event>> {
        let mut stories = vec![vec![(Side::Wan, "S")]];
        let mut from = 0;
        for _length in 0..self.length {
            let longest = stories.len();
            for story in from..longest {
                let longer = self.events.iter().map(|&event| [stories[story].clone(), vec![event]].concat());
                stories.extend(longer.collect::<Vec<_>>());
            }
            from = longest;
        }
        stories
    }
}

fn told(story: &[Event]) -> String {
    let told =
        story.iter().map(|(side, flags)| format!("{}:{flags} ", if *side == Side::Wan { "client" } else { "server" }));
    told.collect()
}

fn begin(service: Service, mode: Mode) -> [Rule; 2] {
    let address = SocketAddr::new(Family::Ipv4.server(SERVER), service.address.port());
    let server = Server { address, mode, weight: 1, upper: 0, lower: 0 };
    [Rule::AddService(service, "rr", ""), Rule::AddServer(service, server)]
}

fn client(number: u32) -> SocketAddr {
    SocketAddr::new(Family::Ipv4.client(1 + (number % 200) as u16), 20_000 + number as u16)
}

/// A state and its timeout: a list is made some seconds after the packet.
fn state(connection: &Connection) -> String {
    let timeout = TIMEOUTS.iter().find(|&&timeout| timeout >= connection.expires);
    format!("{} of {:?} s", connection.state, timeout.copied().unwrap_or(connection.expires))
}

fn segment(director: &mut dyn Director, service: Service, number: u32, (side, flags): Event) {
    let said = Packet::new(service.protocol, client(number), service.address);
    match side {
        Side::Wan => {
            // No bit that IPVS looks at is one of its own.
            let packet = said.with_flags(flags);
            director.send(Side::Wan, &frame(router_mac(side), side.director_mac(), &packet.bytes()));
        }
        Side::Lan => {
            let server = SocketAddr::new(Family::Ipv4.server(SERVER), service.address.port());
            let packet = said.answer(server).with_flags(flags);
            director.send(Side::Lan, &frame(server_mac(SERVER), side.director_mac(), &packet.bytes()));
        }
    }
}

/// Sequences that lead to each state that there is.
const LIVES: [(&str, &[Event]); 6] = [
    ("SYN_RECV", &[]),
    ("ESTABLISHED", &[(Side::Lan, "SA"), (Side::Wan, "A")]),
    ("FIN_WAIT", &[(Side::Wan, "A"), (Side::Lan, "FA")]),
    ("CLOSE_WAIT", &[(Side::Wan, "A"), (Side::Wan, "FA")]),
    ("TIME_WAIT", &[(Side::Wan, "A"), (Side::Wan, "FA"), (Side::Lan, "FA")]),
    ("CLOSE", &[(Side::Wan, "A"), (Side::Wan, "R")]),
];

/// When who is still there is looked at: shortly before and after each timeout. The kernel's timers are late by up to an
/// eighth.
const LOOKS: [u64; 12] = [6, 14, 23, 56, 68, 86, 101, 116, 130, 296, 336, 890];

pub fn play_ages(director: &mut dyn Director, transcript: &mut Transcript) {
    // Some seconds are gone when everything is there.
    let mut began = 30;
    for (name, port, timeouts) in [("ages", 3010, None), ("ages after --set 18 90 10", 3020, Some((18, 90, 10)))] {
        let tcp = Service { protocol: Protocol::Tcp, address: (Family::Ipv4.vip(), port).into() };
        let udp = Service { protocol: Protocol::Udp, address: (Family::Ipv4.vip(), port + 1).into() };
        director.configure(&begin(tcp, Mode::Nat));
        director.configure(&begin(udp, Mode::Nat));
        if let Some((tcp, fin, udp)) = timeouts {
            director.configure(&[Rule::SetTimeouts(tcp, fin, udp)]);
        }
        director.at(began);
        for (number, (_, events)) in (0..).zip(&LIVES) {
            segment(director, tcp, number, (Side::Wan, "S"));
            events.iter().for_each(|&event| segment(director, tcp, number, event));
        }
        segment(director, udp, 0, (Side::Wan, ""));
        for look in LOOKS {
            director.at(began + look);
            let there = director.connections(port..=port + 1);
            let states: Vec<_> = there.iter().map(|connection| connection.state.as_str()).collect();
            transcript.note(name, format!("after {look} s: {}", states.join(" ")));
        }
        began += LOOKS[LOOKS.len() - 1] + 10;
    }
}
