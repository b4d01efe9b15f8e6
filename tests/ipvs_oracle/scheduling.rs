//! Who gets which connection: every scheduler that both have and whose choice is no hash, over one history of connections
//! that come, go and are reset, while real servers come, go and change.

use std::net::SocketAddr;

use fullgate::balance::Protocol;

use crate::director::{Counts, Director, Mode, Rule, Server, Service};
use crate::network::{Family, Out, Packet, Side, frame, router_mac, server_mac};
use crate::transcript::Transcript;

/// A service whose choices are compared.
struct Subject {
    name: &'static str,
    scheduler: &'static str,
    protocol: Protocol,
    /// Upper and lower thresholds of its real servers.
    limits: (u32, u32),
}

const fn tcp(name: &'static str, scheduler: &'static str) -> Subject {
    Subject { name, scheduler, protocol: Protocol::Tcp, limits: (0, 0) }
}

const fn limited(name: &'static str, scheduler: &'static str, limits: (u32, u32)) -> Subject {
    Subject { name, scheduler, protocol: Protocol::Tcp, limits }
}

const fn udp(name: &'static str, scheduler: &'static str) -> Subject {
    Subject { name, scheduler, protocol: Protocol::Udp, limits: (0, 0) }
}

const SUBJECTS: [Subject; 20] = [
    tcp("rr", "rr"),
    tcp("wrr", "wrr"),
    tcp("lc", "lc"),
    tcp("wlc", "wlc"),
    tcp("lblc", "lblc"),
    tcp("lblcr", "lblcr"),
    tcp("sed", "sed"),
    tcp("nq", "nq"),
    tcp("fo", "fo"),
    tcp("ovf", "ovf"),
    limited("rr with thresholds", "rr", (12, 5)),
    limited("wrr with thresholds", "wrr", (10, 0)),
    limited("wlc with thresholds", "wlc", (10, 4)),
    limited("fo with thresholds", "fo", (6, 0)),
    limited("lblc with thresholds", "lblc", (8, 3)),
    udp("rr over UDP", "rr"),
    udp("wlc over UDP", "wlc"),
    udp("sed over UDP", "sed"),
    udp("lc over UDP", "lc"),
    Subject { name: "wlc over SCTP", scheduler: "wlc", protocol: Protocol::Sctp, limits: (0, 0) },
];

const FIRST_PORT: u16 = 1000;
/// In the order in which they are added.
const WEIGHTS: [(u16, u32); 5] = [(1, 3), (2, 1), (3, 2), (4, 0), (5, 6)];
/// What is done with each service between two of its reconfigurations.
const ACTIONS: usize = 22;

/// What changes before each part of the history: one thing at a time, seconds after the beginning. No two of these moments are
/// about as far apart as a timeout is long: a part takes the kernel's machine some seconds, and the kernel's timers are late by up to an eighth.
const CHANGES: [(u64, Change); 15] = [
    (0, Change::Nothing),
    (19, Change::Weigh(2, 4)),
    (38, Change::Add(6, 2)),
    (113, Change::Weigh(5, 0)),
    (188, Change::Remove(3)),
    (207, Change::Add(3, 5)),
    (226, Change::Nothing),
    (383, Change::Remove(1)),
    (402, Change::Add(1, 1)),
    (477, Change::Weigh(4, 1)),
    (571, Change::Weigh(5, 9)),
    (590, Change::Nothing),
    (619, Change::Nothing),
    (665, Change::Scheduler("wrr")),
    (761, Change::Scheduler("wlc")),
];

#[derive(Clone, Copy)]
enum Change {
    Nothing,
    Weigh(u16, u32),
    Add(u16, u32),
    Remove(u16),
    Scheduler(&'static str),
}

/// A connection of the history.
struct Flow {
    client: SocketAddr,
    /// Its first packet as it came out, to answer.
    out: Out,
    is_established: bool,
}

/// The history of one service.
struct Story<'s> {
    subject: &'s Subject,
    service: Service,
    flows: Vec<Flow>,
    clients: u16,
    random: u64,
}

pub fn play(director: &mut dyn Director, transcript: &mut Transcript) {
    let mut stories: Vec<Story<'_>> =
        (FIRST_PORT..).zip(&SUBJECTS).map(|(port, subject)| Story::new(port, subject)).collect();
    let beginning: Vec<_> = stories.iter().flat_map(Story::beginning).collect();
    director.configure(&beginning);
    for (part, (seconds, change)) in CHANGES.into_iter().enumerate() {
        director.at(seconds);
        let rules: Vec<_> = stories.iter().filter_map(|story| story.rule(change)).collect();
        if !rules.is_empty() {
            director.configure(&rules);
        }
        for story in &mut stories {
            for _action in 0..ACTIONS {
                story.act(director, transcript);
            }
        }
        // The listing takes the kernel's machine half a second.
        if part % 3 == 1 {
            let loads = director.loads();
            stories.iter().for_each(|story| story.count("active, inactive", &loads, transcript));
        }
    }
    let traffic = director.traffic();
    stories.iter().for_each(|story| story.count("connections, packets and bytes in and out", &traffic, transcript));
}

impl<'s> Story<'s> {
    fn new(port: u16, subject: &'s Subject) -> Self {
        let service = Service { protocol: subject.protocol, address: (Family::Ipv4.vip(), port).into() };
        Self { subject, service, flows: Vec::new(), clients: 0, random: u64::from(port) }
    }

    fn server(&self, number: u16, weight: u32) -> Server {
        let (upper, lower) = self.subject.limits;
        // A port of its own, so that a real server tells the services apart.
        let address = SocketAddr::new(Family::Ipv4.server(number), self.service.address.port());
        Server { address, mode: Mode::Nat, weight, upper, lower }
    }

    fn beginning(&self) -> Vec<Rule> {
        let servers = WEIGHTS.map(|(number, weight)| Rule::AddServer(self.service, self.server(number, weight)));
        std::iter::once(Rule::AddService(self.service, self.subject.scheduler, "")).chain(servers).collect()
    }

    fn rule(&self, change: Change) -> Option<Rule> {
        Some(match change {
            Change::Nothing => return None,
            Change::Weigh(number, weight) => Rule::EditServer(self.service, self.server(number, weight)),
            Change::Add(number, weight) => Rule::AddServer(self.service, self.server(number, weight)),
            Change::Remove(number) => Rule::DeleteServer(self.service, self.server(number, 0).address),
            Change::Scheduler(scheduler) => Rule::EditService(self.service, scheduler, ""),
        })
    }

    /// The same numbers for both directors.
    fn random_below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % end
    }

    fn act(&mut self, director: &mut dyn Director, transcript: &mut Transcript) {
        let dice = self.random_below(100);
        let which = self.random_below(1 << 20) as usize;
        if dice < 62 || self.flows.is_empty() || self.subject.protocol == Protocol::Udp {
            return self.open(dice < 45, director, transcript);
        }
        let flow = self.flows.swap_remove(which % self.flows.len());
        let segment = |flags| self.packet(flow.client).with_flags(flags);
        match dice {
            62..75 => self.say(director, &segment("FA")),
            75..82 => self.say(director, &segment("R")),
            82..90 => self.reply(director, &flow, "FA"),
            90..94 => self.reply(director, &flow, "RA"),
            _ => {
                self.say(director, &segment("FA"));
                self.reply(director, &flow, "FA");
            }
        }
    }

    fn packet(&self, client: SocketAddr) -> Packet {
        Packet::new(self.subject.protocol, client, self.service.address).with_payload(b"?")
    }

    /// A client's packet.
    fn say(&self, director: &mut dyn Director, packet: &Packet) {
        director.send(Side::Wan, &frame(router_mac(Side::Wan), Side::Wan.director_mac(), &packet.bytes()));
    }

    /// A segment of the real server that has the flow.
    fn reply(&self, director: &mut dyn Director, flow: &Flow, flags: &'static str) {
        let server = SocketAddr::new(flow.out.destination(), self.service.address.port());
        let answer = self.packet(flow.client).answer(server).with_flags(flags);
        let from = server_mac(flow.out.to_mac().into());
        director.send(Side::Lan, &frame(from, Side::Lan.director_mac(), &answer.bytes()));
    }

    /// A new client; notes who gets it.
    fn open(&mut self, establishes: bool, director: &mut dyn Director, transcript: &mut Transcript) {
        self.clients += 1;
        let client = SocketAddr::new(Family::Ipv4.client(self.clients % 200 + 1), 10_000 + self.clients);
        let packet = self.packet(client);
        let sent = frame(router_mac(Side::Wan), Side::Wan.director_mac(), &packet.bytes());
        let mut out = director.send(Side::Wan, &sent);
        let Some(first) = out.pop().filter(|first| first.side == Side::Lan) else {
            return transcript.note(self.subject.name, "nobody");
        };
        transcript.note(self.subject.name, format!("real server {}", first.to_mac()));
        let flow = Flow { client, out: first, is_established: establishes };
        match self.subject.protocol {
            Protocol::Tcp if flow.is_established => {
                self.reply(director, &flow, "SA");
                self.say(director, &packet.with_flags("A"));
            }
            // What is not answered soon ends soon.
            Protocol::Sctp => {
                self.reply(director, &flow, "INIT ACK");
                if flow.is_established {
                    self.say(director, &packet.with_flags("COOKIE ECHO"));
                    self.reply(director, &flow, "COOKIE ACK");
                }
            }
            _ => {}
        }
        self.flows.push(flow);
    }

    fn count(&self, what: &str, counts: &[Counts], transcript: &mut Transcript) {
        let mut rows: Vec<_> = counts.iter().filter(|row| self.service.is_row(row) && !row.counts.is_empty()).collect();
        rows.sort_by_key(|row| row.server);
        for row in rows {
            let whose = row.server.map_or("the service".to_owned(), |server| server.ip().to_string());
            transcript.note(self.subject.name, format!("{whose}: {what} {:?}", row.counts));
        }
    }
}

/// How much an active connection counts beside inactive ones: a real server with one active connection against one with so many
/// inactive ones. Of equals the newer is taken.
pub fn play_overhead(director: &mut dyn Director, transcript: &mut Transcript) {
    let service = Service { protocol: Protocol::Tcp, address: (Family::Ipv4.vip(), 1900).into() };
    let server = |number, weight| {
        let address = SocketAddr::new(Family::Ipv4.server(number), 1900);
        Server { address, mode: Mode::Dr, weight, upper: 0, lower: 0 }
    };
    let rules = [Rule::AddService(service, "lc", ""), Rule::AddServer(service, server(1, 1))];
    director.configure(&rules);
    let mut clients = 0;
    let mut open = |director: &mut dyn Director, flags: &[&'static str]| {
        clients += 1;
        let client = SocketAddr::new(Family::Ipv4.client(201), 10_000 + clients);
        let packet = Packet::new(Protocol::Tcp, client, service.address);
        let sent = flags.iter().map(|flags| packet.clone().with_flags(flags).bytes());
        let sent = sent.map(|packet| frame(router_mac(Side::Wan), Side::Wan.director_mac(), &packet));
        let out: Vec<_> = sent.flat_map(|sent| director.send(Side::Wan, &sent)).collect();
        out.first().map_or("nobody".to_owned(), |out| format!("real server {}", out.to_mac()))
    };
    for _inactive in 0..254 {
        open(director, &["S", "FA"]);
    }
    director.configure(&[Rule::EditServer(service, server(1, 0)), Rule::AddServer(service, server(2, 1))]);
    open(director, &["S", "A"]);
    director.configure(&[Rule::EditServer(service, server(1, 1))]);
    for _step in 0..6 {
        let seen = open(director, &["S", "FA"]);
        transcript.note("overhead of an active connection", seen);
    }
    for row in director.loads().iter().filter(|row| service.is_row(row) && row.server.is_some()) {
        transcript.note("overhead of an active connection", format!("{:?}", row.counts));
    }
}
