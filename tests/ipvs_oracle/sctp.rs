//! SCTP: an association's state after sequences of chunks from both sides, as both list it, when each state ends, and what is
//! counted as active.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use fullgate::balance::Protocol;

use crate::dialogue::{Dialogue, real_server};
use crate::director::{Director, Mode, Rule, Service};
use crate::network::{Family, Flags, Side};
use crate::transcript::Transcript;

/// A packet of one chunk: who sends it, and which.
type Event = (Side, Flags);

const CHUNKS: [Flags; 10] = [
    "DATA",
    "INIT",
    "INIT ACK",
    "COOKIE ECHO",
    "COOKIE ACK",
    "SHUTDOWN",
    "SHUTDOWN ACK",
    "SHUTDOWN COMPLETE",
    "ERROR",
    "ABORT",
];

/// Sequences behind an INIT that lead to each state that there is, in mode nat.
const STATES: [&[Event]; 13] = [
    &[],
    &[(Side::Wan, "INIT")],
    &[(Side::Lan, "INIT ACK")],
    &[(Side::Lan, "INIT ACK"), (Side::Wan, "COOKIE ECHO")],
    &[(Side::Lan, "INIT")],
    &[(Side::Lan, "INIT"), (Side::Wan, "INIT ACK")],
    &[(Side::Lan, "COOKIE ECHO")],
    &[(Side::Lan, "COOKIE ACK")],
    &[(Side::Lan, "SHUTDOWN")],
    &[(Side::Lan, "COOKIE ACK"), (Side::Wan, "SHUTDOWN")],
    &[(Side::Lan, "SHUTDOWN ACK")],
    &[(Side::Lan, "ABORT")],
    &[(Side::Wan, "ABORT")],
];

/// The same where only the client is heard.
const STATES_OF_CLIENTS: [&[Event]; 6] = [
    &[],
    &[(Side::Wan, "INIT")],
    &[(Side::Wan, "INIT ACK")],
    &[(Side::Wan, "COOKIE ECHO")],
    &[(Side::Wan, "COOKIE ECHO"), (Side::Wan, "SHUTDOWN")],
    &[(Side::Wan, "ABORT")],
];

/// Timeouts that there are, in seconds.
const TIMEOUTS: [u32; 3] = [4, 61, 900];
/// So many associations at a time: the shortest timeout is four seconds.
const AT_A_TIME: usize = 24;

pub fn play(director: &mut dyn Director, transcript: &mut Transcript) {
    // One that gives way to an INIT is followed from there on.
    let courses = [
        ("SCTP states, nat", Mode::Nat, 7000, stories(&STATES, &[Side::Wan, Side::Lan])),
        ("SCTP states, dr", Mode::Dr, 7001, stories(&STATES_OF_CLIENTS, &[Side::Wan])),
    ];
    for (name, mode, port, stories) in courses {
        let service = Service { protocol: Protocol::Sctp, address: (Family::Ipv4.vip(), port).into() };
        let server = real_server(Family::Ipv4.server(1), port, mode, 1);
        director.configure(&[Rule::AddService(service, "rr", ""), Rule::AddServer(service, server)]);
        let numbered: Vec<_> = (0..).zip(&stories).collect();
        for stories in numbered.chunks(AT_A_TIME) {
            for (number, story) in stories {
                let mut dialogue = Dialogue::new(Protocol::Sctp, client(*number), service.address, mode);
                story.iter().for_each(|&event| drop(dialogue.exchange(director, event)));
            }
            // The kernel finds its place in a listing again by counting: one that ends meanwhile hides another, so it is asked twice.
            let listed = [director.connections(port..=port), director.connections(port..=port)];
            let last_first = listed.iter().rev().flatten();
            let listed: BTreeMap<_, _> = last_first.map(|connection| (connection.client, connection)).collect();
            for (number, story) in stories {
                let state = listed.get(&client(*number)).map_or("none".to_owned(), |connection| {
                    let timeout = TIMEOUTS.iter().find(|&&timeout| timeout >= connection.expires);
                    format!("{} of {timeout:?} s", connection.state)
                });
                transcript.note(name, format!("{}: {state}", told(story)));
            }
        }
        for row in director.loads().iter().filter(|row| service.is_row(row) && row.server.is_some()) {
            // Those of four seconds are gone here and may be there.
            transcript.note(name, format!("active: {}", row.counts[0]));
        }
    }
}

fn client(number: u16) -> SocketAddr {
    SocketAddr::new(Family::Ipv4.client(1 + number % 200), 20_000 + number)
}

fn told(story: &[Event]) -> String {
    let told = story
        .iter()
        .map(|(side, chunk)| format!("{}: {chunk}, ", if *side == Side::Wan { "client" } else { "server" }));
    told.collect()
}

/// An INIT, what leads to each state, and each chunk behind that from these sides; then each pair of chunks behind the INIT.
fn stories(states: &[&[Event]], sides: &[Side]) -> Vec<Vec<Event>> {
    let events: Vec<Event> = sides.iter().flat_map(|&side| CHUNKS.map(|chunk| (side, chunk))).collect();
    let init = (Side::Wan, "INIT");
    let behind = |state: &[Event]| {
        let state = [&[init], state].concat();
        let longer = events.iter().map(|&event| [&state[..], &[event]].concat()).collect::<Vec<_>>();
        std::iter::once(state).chain(longer).collect::<Vec<_>>()
    };
    let of_states = states.iter().flat_map(|state| behind(state));
    let pairs = events.iter().flat_map(|&first| events.iter().map(move |&second| vec![init, first, second]));
    let mut stories: Vec<_> = of_states.chain(pairs).collect();
    stories.sort_by_key(|story| told(story));
    stories.dedup();
    stories
}

/// When who is still there is looked at, shortly before and after each timeout.
const LOOKS: [u64; 6] = [2, 6, 56, 66, 880, 920];

pub fn play_ages(director: &mut dyn Director, transcript: &mut Transcript) {
    let service = Service { protocol: Protocol::Sctp, address: (Family::Ipv4.vip(), 7010).into() };
    let server = real_server(Family::Ipv4.server(1), 7010, Mode::Nat, 1);
    director.configure(&[Rule::AddService(service, "rr", ""), Rule::AddServer(service, server)]);
    let began = 10;
    director.at(began);
    for (number, state) in (0..).zip(&STATES) {
        let mut dialogue = Dialogue::new(Protocol::Sctp, client(number), service.address, Mode::Nat);
        dialogue.say(director, "INIT");
        state.iter().for_each(|&event| drop(dialogue.exchange(director, event)));
    }
    for look in LOOKS {
        director.at(began + look);
        let there = director.connections(7010..=7010);
        let states: Vec<_> = there.iter().map(|connection| connection.state.as_str()).collect();
        transcript.note("ages of SCTP", format!("after {look} s: {}", states.join(" ")));
    }
}
