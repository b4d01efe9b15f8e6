//! Services of marks: one for several virtual addresses, ports and protocols, with persistence and without.

use std::net::SocketAddr;

use fullgate::balance::Protocol;

use crate::dialogue::{Dialogue, add_all, real_server};
use crate::director::{Connection, Director, Marked, Mode, Rule, Server, Service, Settings};
use crate::network::{Family, Side};
use crate::transcript::Transcript;

struct Subject {
    name: &'static str,
    mark: u16,
    family: Family,
    scheduler: &'static str,
    settings: Settings,
    mode: Mode,
    /// The real servers'; 0: what the client asks for.
    server_port: u16,
}

const SUBJECTS: [Subject; 6] = [
    Subject {
        name: "mark, rr",
        mark: 1,
        family: Family::Ipv4,
        scheduler: "rr",
        settings: Settings::NONE,
        mode: Mode::Nat,
        server_port: 0,
    },
    Subject {
        name: "mark, wlc at a port of its own",
        mark: 2,
        family: Family::Ipv4,
        scheduler: "wlc",
        settings: Settings::NONE,
        mode: Mode::Nat,
        server_port: 8000,
    },
    Subject {
        name: "mark, wrr with persistence",
        mark: 3,
        family: Family::Ipv4,
        scheduler: "wrr",
        settings: Settings::persistent(300),
        mode: Mode::Nat,
        server_port: 8001,
    },
    Subject {
        name: "mark, rr in dr, with persistence of networks",
        mark: 4,
        family: Family::Ipv4,
        scheduler: "rr",
        settings: Settings::of_networks(300, 24),
        mode: Mode::Dr,
        server_port: 0,
    },
    Subject {
        name: "mark over IPv6, rr with persistence",
        mark: 5,
        family: Family::Ipv6,
        scheduler: "rr",
        settings: Settings::persistent(300),
        mode: Mode::Nat,
        server_port: 0,
    },
    Subject {
        name: "mark, packets on their own",
        mark: 6,
        family: Family::Ipv4,
        scheduler: "rr",
        settings: Settings::ONE_PACKET,
        mode: Mode::Dr,
        server_port: 0,
    },
];

const FIRST_PORT: u16 = 6600;
/// Ports of each subject, of which the last has no mark at the first address.
const PORTS: u16 = 10;
const ACTIONS: u64 = 60;
const WEIGHTS: [(u16, u32); 3] = [(1, 3), (2, 1), (3, 2)];
/// A mark that no service is for.
const NOBODYS: u32 = 9;

impl Subject {
    fn service(&self) -> Service {
        Service::of_mark(self.mark, self.family)
    }

    fn first_port(&self) -> u16 {
        FIRST_PORT + self.mark * PORTS
    }

    /// TCP and UDP at nine ports of one address, TCP and SCTP at all of another.
    fn marks(&self) -> Vec<Rule> {
        let (first, last) = (self.first_port(), self.first_port() + PORTS - 1);
        let mark = |protocol, destination, ports| Rule::Mark(self.mark.into(), Marked { protocol, destination, ports });
        let (one, other) = (self.family.vip(), self.family.other_vip());
        vec![
            mark(Protocol::Tcp, one, (first, last - 1)),
            mark(Protocol::Udp, one, (first, last - 1)),
            mark(Protocol::Tcp, other, (first, last)),
            mark(Protocol::Sctp, other, (first, last)),
        ]
    }

    fn server(&self, number: u16, weight: u32) -> Server {
        real_server(self.family.server(number), self.server_port, self.mode, weight)
    }

    fn rules(&self) -> Vec<Rule> {
        let servers = WEIGHTS.map(|(number, weight)| self.server(number, weight));
        // For what is marked, too, but the mark is first.
        let address = SocketAddr::new(self.family.vip(), self.first_port());
        let by_address = Service { protocol: Protocol::Tcp, address };
        // And for what is not.
        let address = SocketAddr::new(self.family.vip(), self.first_port() + PORTS - 1);
        let unmarked = Service { protocol: Protocol::Tcp, address };
        let of_address = [by_address, unmarked].map(|service| {
            let server = real_server(self.family.server(7), service.address.port(), self.mode, 1);
            vec![Rule::AddService(service, "rr", ""), Rule::AddServer(service, server)]
        });
        let of_mark = vec![Rule::AddWith(self.service(), self.scheduler, self.settings)];
        [of_mark, add_all(self.service(), &servers), of_address.concat()].concat()
    }
}

pub fn play(director: &mut dyn Director, transcript: &mut Transcript) {
    let nobodys = Marked { protocol: Protocol::Tcp, destination: Family::Ipv4.vip(), ports: (6690, 6690) };
    director.configure(&[Rule::Mark(NOBODYS, nobodys)]);
    director.configure(&SUBJECTS.iter().flat_map(Subject::marks).collect::<Vec<_>>());
    director.configure(&SUBJECTS.iter().flat_map(Subject::rules).collect::<Vec<_>>());
    SUBJECTS.iter().for_each(|subject| converse(subject, director, transcript));
    list(director, transcript);
    let service = Service { protocol: Protocol::Tcp, address: SocketAddr::new(nobodys.destination, 6690) };
    director.configure(&[
        Rule::AddService(service, "rr", ""),
        Rule::AddServer(service, real_server(Family::Ipv4.server(1), 6690, Mode::Nat, 1)),
    ]);
    let client = SocketAddr::new(Family::Ipv4.client(70), 30_000);
    let seen = Dialogue::new(Protocol::Tcp, client, service.address, Mode::Nat).say(director, "S");
    transcript.note("mark that no service is for", seen);
    for expire in [0, 1] {
        director.configure(&[Rule::Sysctl("expire_nodest_conn", expire)]);
        let kept = SUBJECTS.iter().filter(|subject| !subject.settings.one_packet);
        kept.for_each(|subject| drain(subject, expire, director, transcript));
    }
    director.configure(&[Rule::Sysctl("expire_nodest_conn", 0)]);
}

/// The real server of a flow gets weight 0, and then a SYN comes for the flow.
fn drain(subject: &Subject, expire: u8, director: &mut dyn Director, transcript: &mut Transcript) {
    let client = SocketAddr::new(subject.family.client(80), 31_000 + u16::from(expire));
    let to = SocketAddr::new(subject.family.vip(), subject.first_port() + 1);
    let mut dialogue = Dialogue::new(Protocol::Tcp, client, to, subject.mode);
    for event in [(Side::Wan, "S"), (Side::Lan, "SA"), (Side::Wan, "A")] {
        dialogue.exchange(director, event);
    }
    let number = dialogue.server();
    let weigh = |director: &mut dyn Director, weight| {
        director.configure(&[Rule::EditServer(subject.service(), subject.server(number, weight))]);
    };
    weigh(director, 0);
    for (what, flags) in [("data", "PA"), ("SYN", "S"), ("second SYN", "S")] {
        let seen = dialogue.say(director, flags);
        transcript.note(subject.name, format!("expire_nodest_conn {expire}, {what} with a drained one: {seen}"));
    }
    let was = WEIGHTS.iter().find(|&&(own, _)| own == number);
    weigh(director, was.map_or(1, |&(_, weight)| weight));
}

/// Flows of a few clients to everything that is marked, some of them closed.
fn converse(subject: &Subject, director: &mut dyn Director, transcript: &mut Transcript) {
    let mut random = u64::from(subject.mark);
    let mut random_below = |end: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % end
    };
    for action in 0..ACTIONS {
        let (vip, other) = (subject.family.vip(), subject.family.other_vip());
        let (protocol, to) =
            [(Protocol::Tcp, vip), (Protocol::Udp, vip), (Protocol::Tcp, other), (Protocol::Sctp, other)]
                [random_below(4) as usize];
        // At a port without a mark and without a service it would be the host's.
        let ports = if protocol == Protocol::Udp { PORTS - 1 } else { PORTS };
        let to = SocketAddr::new(to, subject.first_port() + random_below(ports.into()) as u16);
        let number = random_below(6) as u16;
        let client = subject.family.client(number / 2 * 256 + number % 2 + 1);
        let client = SocketAddr::new(client, 20_000 + action as u16);
        let mut dialogue = Dialogue::new(protocol, client, to, subject.mode);
        let opening = if protocol == Protocol::Sctp { "INIT" } else { "S" };
        let seen = dialogue.say(director, opening);
        transcript.note(subject.name, format!("{protocol} {client} to {to}: {seen}"));
        let answered = dialogue.reply(director, if protocol == Protocol::Sctp { "INIT ACK" } else { "SA" });
        // Answers of what left nothing are the host's to see to.
        if !subject.settings.one_packet {
            transcript.note(subject.name, format!("answer: {answered}"));
        }
        if random_below(3) == 0 && dialogue.server() != 0 {
            let seen =
                dialogue.exchange(director, (Side::Wan, if protocol == Protocol::Sctp { "SHUTDOWN" } else { "FA" }));
            transcript.note(subject.name, format!("closed: {seen}"));
        }
    }
}

fn list(director: &mut dyn Director, transcript: &mut Transcript) {
    let [loads, traffic] = [director.persistent(), director.traffic()].map(|mut rows| {
        rows.retain(|row| !row.counts.is_empty());
        rows.sort_by_key(|row| row.server);
        rows
    });
    let templates = director.templates();
    let connections = director.connections(FIRST_PORT..=FIRST_PORT + 100);
    for subject in &SUBJECTS {
        let service = subject.service();
        let mut note = |line: String| transcript.note(subject.name, line);
        for (what, rows) in [("templates, active, inactive", &loads), ("connections, packets, bytes", &traffic)] {
            for row in rows.iter().filter(|row| service.is_row(row)) {
                let whose = row.server.map_or("service".to_owned(), |server| server.to_string());
                note(format!("{whose}: {what} {:?}", row.counts));
            }
        }
        for Connection { protocol, client, server, state, .. } in
            templates.iter().filter(|template| template.virtual_ == service.address)
        {
            note(format!("template {protocol} {client} {server} {state}"));
        }
        let ports = subject.first_port()..subject.first_port() + PORTS;
        for Connection { protocol, client, virtual_, server, state, .. } in
            connections.iter().filter(|connection| ports.contains(&connection.virtual_.port()))
        {
            note(format!("connection {protocol} {client} {virtual_} {server} {state}"));
        }
    }
}
