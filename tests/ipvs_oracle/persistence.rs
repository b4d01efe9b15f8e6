//! Who stays with which real server by persistence, over a history in which real servers come, go and are drained, and
//! connections keep templates alive; and what is listed of templates.

use std::net::{IpAddr, SocketAddr};

use fullgate::balance::Protocol;

use crate::director::{Connection, Counts, Director, Mode, Rule, Server, Service, Settings};
use crate::network::{Family, Flags, Packet, Side, frame, router_mac, server_mac};
use crate::transcript::Transcript;

/// Longer than each of the history's two phases, shorter than what lies between.
const SECONDS: u32 = 500;

/// A service whose choices are compared.
struct Subject {
    name: &'static str,
    scheduler: &'static str,
    protocol: Protocol,
    vip: IpAddr,
    mode: Mode,
    settings: Settings,
    /// The service's; 0: all.
    port: u16,
    /// Those that clients ask for.
    asked: [u16; 3],
    /// The real servers'; 0: the one that was asked for.
    server_port: u16,
    /// Upper and lower thresholds of its real servers.
    limits: (u32, u32),
}

impl Subject {
    /// One of TCP in mode nat; the others are made of it.
    const fn new(name: &'static str, scheduler: &'static str, port: u16) -> Self {
        Self {
            name,
            scheduler,
            protocol: Protocol::Tcp,
            vip: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 100)),
            mode: Mode::Nat,
            settings: Settings::persistent(SECONDS),
            port,
            asked: [port; 3],
            server_port: port,
            limits: (0, 0),
        }
    }

    fn family(&self) -> Family {
        if self.vip.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }

    fn service(&self) -> Service {
        Service { protocol: self.protocol, address: SocketAddr::new(self.vip, self.port) }
    }
}

fn subjects() -> Vec<Subject> {
    let networks = Settings::of_networks(SECONDS, 24);
    let (vip6, other_vip) = (Family::Ipv6.vip(), Family::Ipv4.other_vip());
    vec![
        Subject::new("persistence, rr", "rr", 6000),
        Subject { mode: Mode::Dr, ..Subject::new("persistence, wlc in dr", "wlc", 6001) },
        Subject { protocol: Protocol::Udp, ..Subject::new("persistence, wrr over UDP", "wrr", 6002) },
        Subject { settings: networks, ..Subject::new("persistence of networks, IPv4", "wrr", 6003) },
        Subject {
            vip: vip6,
            settings: Settings::of_networks(SECONDS, 120),
            ..Subject::new("persistence of networks, IPv6", "rr", 6004)
        },
        Subject { limits: (5, 2), ..Subject::new("persistence, rr with thresholds", "rr", 6005) },
        Subject {
            vip: other_vip,
            port: 0,
            asked: [6100, 6101, 6102],
            server_port: 0,
            ..Subject::new("persistence of all ports", "wlc", 0)
        },
        Subject { vip: other_vip, server_port: 8103, ..Subject::new("persistence beside all ports", "rr", 6103) },
        Subject {
            protocol: Protocol::Udp,
            vip: other_vip,
            asked: [6200, 6201, 6202],
            server_port: 8200,
            ..Subject::new("persistence of all UDP ports", "rr", 0)
        },
        Subject { protocol: Protocol::Sctp, ..Subject::new("persistence, rr over SCTP", "rr", 6006) },
        Subject {
            protocol: Protocol::Udp,
            settings: Settings { one_packet: true, ..Settings::persistent(SECONDS) },
            ..Subject::new("persistence, packets on their own", "wrr", 6007)
        },
    ]
}

/// In the order in which they are added.
const WEIGHTS: [(u16, u32); 4] = [(1, 3), (2, 1), (3, 2), (5, 2)];
/// What each service's clients do between two changes.
const ACTIONS: usize = 10;
/// Networks of clients, and clients of each.
const NETWORKS: u16 = 4;
const CLIENTS: u16 = 3;

/// What changes before each part of the history, seconds after the beginning. First nothing ends; then all templates are over that
/// no connection keeps, and a minute more is what they get; then nothing is left. As in `scheduling`, no two of these moments are
/// about as far apart as a timeout is long.
const CHANGES: [(u64, Change); 12] = [
    (0, Change::Nothing),
    (26, Change::Weigh(2, 0)),
    (102, Change::Remove(3)),
    (178, Change::Add(3, 5)),
    (204, Change::ExpireQuiescent(1)),
    (280, Change::Weigh(2, 2)),
    (815, Change::ExpireQuiescent(0)),
    (841, Change::Remove(1)),
    (2100, Change::Nothing),
    (2126, Change::Persistence(false)),
    (2202, Change::Persistence(true)),
    (2278, Change::Weigh(5, 0)),
];

#[derive(Clone, Copy)]
enum Change {
    Nothing,
    Weigh(u16, u32),
    Add(u16, u32),
    Remove(u16),
    ExpireQuiescent(u8),
    Persistence(bool),
}

/// A connection of the history.
struct Flow {
    packet: Packet,
    server: SocketAddr,
    number: u16,
}

struct Story {
    subject: Subject,
    flows: Vec<Flow>,
    opened: u16,
    random: u64,
}

pub fn play(director: &mut dyn Director, transcript: &mut Transcript) {
    let mut stories: Vec<_> = (1..).zip(subjects()).map(|(seed, subject)| Story::new(seed, subject)).collect();
    let beginning: Vec<_> = stories.iter().flat_map(Story::beginning).collect();
    director.configure(&beginning);
    for (part, (seconds, change)) in CHANGES.into_iter().enumerate() {
        director.at(seconds);
        let rules: Vec<_> = match change {
            Change::ExpireQuiescent(value) => vec![Rule::Sysctl("expire_quiescent_template", value)],
            _ => stories.iter().filter_map(|story| story.rule(change)).collect(),
        };
        director.configure(&rules);
        for story in &mut stories {
            // The scheduler sees each change: where it stands behind two of them is another matter.
            story.open_for((10 + part as u16) * 256 + 1, 0, true, director, transcript);
            (0..ACTIONS).for_each(|_action| story.act(director, transcript));
        }
        if [0, 2, 4, 7, 9, 11].contains(&part) {
            let (templates, counts) = (director.templates(), director.persistent());
            stories.iter().for_each(|story| story.list(part, &templates, &counts, transcript));
        }
    }
    let traffic = director.traffic();
    for story in &stories {
        count(story, "connections, packets and bytes in and out", &traffic, story.subject.name, transcript);
    }
}

impl Story {
    fn new(seed: u64, subject: Subject) -> Self {
        Self { subject, flows: Vec::new(), opened: 0, random: seed }
    }

    fn server(&self, number: u16, weight: u32) -> Server {
        let Subject { mode, limits: (upper, lower), server_port, .. } = self.subject;
        let address = SocketAddr::new(self.subject.family().server(number), server_port);
        Server { address, mode, weight, upper, lower }
    }

    fn beginning(&self) -> Vec<Rule> {
        let (service, Subject { scheduler, settings, .. }) = (self.subject.service(), &self.subject);
        let servers = WEIGHTS.map(|(number, weight)| Rule::AddServer(service, self.server(number, weight)));
        std::iter::once(Rule::AddWith(service, scheduler, *settings)).chain(servers).collect()
    }

    fn rule(&self, change: Change) -> Option<Rule> {
        let (service, Subject { scheduler, settings, .. }) = (self.subject.service(), &self.subject);
        Some(match change {
            Change::Nothing | Change::ExpireQuiescent(_) => return None,
            // The kernel has no service of all ports without it.
            Change::Persistence(_) if self.subject.port == 0 => return None,
            Change::Weigh(number, weight) => Rule::EditServer(service, self.server(number, weight)),
            Change::Add(number, weight) => Rule::AddServer(service, self.server(number, weight)),
            Change::Remove(number) => Rule::DeleteServer(service, self.server(number, 0).address),
            Change::Persistence(true) => Rule::EditWith(service, scheduler, *settings),
            Change::Persistence(false) => {
                Rule::EditWith(service, scheduler, Settings { persistence: None, ..*settings })
            }
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
        if dice < 65 || self.flows.is_empty() || self.subject.protocol == Protocol::Udp {
            return self.open(which, dice < 40, director, transcript);
        }
        let flow = self.flows.swap_remove(which % self.flows.len());
        match dice {
            65..80 => self.say(director, &flow, "FA"),
            80..90 => self.say(director, &flow, "R"),
            _ => {
                self.say(director, &flow, "FA");
                self.reply(
                    director,
                    &flow,
                    if self.subject.protocol == Protocol::Sctp { "SHUTDOWN ACK" } else { "FA" },
                );
            }
        }
    }

    fn client(number: usize) -> u16 {
        let number = number as u16 % (NETWORKS * CLIENTS);
        (number / CLIENTS + 1) * 256 + number % CLIENTS + 1
    }

    fn open(&mut self, which: usize, establishes: bool, director: &mut dyn Director, transcript: &mut Transcript) {
        self.open_for(Self::client(which), which / 16 % 3, establishes, director, transcript);
    }

    /// A connection of a client; notes who gets it.
    fn open_for(
        &mut self,
        client: u16,
        asked: usize,
        establishes: bool,
        director: &mut dyn Director,
        transcript: &mut Transcript,
    ) {
        self.opened += 1;
        let (client, asked) = (self.subject.family().client(client), self.subject.asked[asked]);
        let to = SocketAddr::new(self.subject.vip, asked);
        let packet = Packet::new(self.subject.protocol, SocketAddr::new(client, 10_000 + self.opened), to);
        let sent = frame(router_mac(Side::Wan), Side::Wan.director_mac(), &packet.bytes());
        let out = director.send(Side::Wan, &sent);
        let Some(first) = out.first().filter(|first| first.side == Side::Lan) else {
            return transcript.note(self.subject.name, format!("{client}: nobody"));
        };
        let port = first.destination_port();
        transcript.note(self.subject.name, format!("{client}: real server {} at {port}", first.to_mac()));
        let server = SocketAddr::new(first.destination(), port);
        let flow = Flow { packet, server, number: first.to_mac().into() };
        self.establish(establishes, director, &flow);
        self.flows.push(flow);
    }

    fn establish(&self, whole: bool, director: &mut dyn Director, flow: &Flow) {
        match self.subject.protocol {
            // What is not answered soon ends soon.
            Protocol::Sctp => {
                self.reply(director, flow, "INIT ACK");
                if whole {
                    self.say(director, flow, "COOKIE ECHO");
                    self.reply(director, flow, "COOKIE ACK");
                }
            }
            Protocol::Tcp if whole => {
                self.reply(director, flow, "SA");
                self.say(director, flow, "A");
            }
            _ => {}
        }
    }

    /// A client's packet.
    fn say(&self, director: &mut dyn Director, flow: &Flow, flags: Flags) {
        let packet = flow.packet.clone().with_flags(flags);
        director.send(Side::Wan, &frame(router_mac(Side::Wan), Side::Wan.director_mac(), &packet.bytes()));
    }

    /// One of the real server's, where it passes the director.
    fn reply(&self, director: &mut dyn Director, flow: &Flow, flags: Flags) {
        if self.subject.mode == Mode::Nat {
            let answer = flow.packet.answer(flow.server).with_flags(flags);
            director.send(Side::Lan, &frame(server_mac(flow.number), Side::Lan.director_mac(), &answer.bytes()));
        }
    }

    /// Notes the template of each client or network, and how many each real server has.
    fn list(&self, part: usize, templates: &[Connection], counts: &[Counts], transcript: &mut Transcript) {
        let name = format!("templates: {}", self.subject.name);
        let is_own = |template: &&Connection| {
            template.protocol == self.subject.protocol.to_string().to_ascii_uppercase()
                && template.virtual_ == self.subject.service().address
        };
        for network in self.networks() {
            let of_client = |template: &&Connection| template.client.ip() == network;
            let own = templates.iter().filter(is_own).find(of_client);
            let seen = own.map_or("none".to_owned(), |template| format!("{} {}", template.server, template.state));
            transcript.note(&name, format!("part {part}, {network}: {seen}"));
        }
        count(self, "templates, active, inactive", counts, &name, transcript);
    }

    /// What templates are for.
    fn networks(&self) -> Vec<IpAddr> {
        let family = self.subject.family();
        let is_of_networks = self.subject.settings.persistence.is_some_and(|(_, bits)| bits.is_some());
        match is_of_networks {
            true => (1..=NETWORKS).map(|network| family.client(network * 256)).collect(),
            false => (0..usize::from(NETWORKS * CLIENTS)).map(|number| family.client(Self::client(number))).collect(),
        }
    }
}

fn count(story: &Story, what: &str, counts: &[Counts], name: &str, transcript: &mut Transcript) {
    let service = story.subject.service();
    let mut rows: Vec<_> = counts.iter().filter(|row| service.is_row(row) && !row.counts.is_empty()).collect();
    rows.sort_by_key(|row| row.server);
    for row in rows {
        let whose = row.server.map_or("the service".to_owned(), |server| server.ip().to_string());
        transcript.note(name, format!("{whose}: {what} {:?}", row.counts));
    }
}
