//! What becomes of connections whose real server, or service, goes away and comes back; and what is counted for them.

use std::net::SocketAddr;

use fullgate::balance::{Encapsulation, Protocol, Tunnel};

use crate::director::{Counts, Director, Mode, Rule, Server, Service};
use crate::network::{Family, Out, Packet, Side, frame, router_mac, server_mac};
use crate::transcript::Transcript;

const MODES: [(&str, Mode, u16); 3] = [
    ("changes, nat", Mode::Nat, 4000),
    ("changes, dr", Mode::Dr, 4001),
    ("changes, tun", Mode::Tun(Tunnel { encapsulation: Encapsulation::Ipip, port: 0, checksum: false }), 4002),
];

/// A connection with one of a service's two real servers.
struct Story<'d> {
    director: &'d mut dyn Director,
    transcript: &'d mut Transcript,
    name: &'static str,
    mode: Mode,
    service: Service,
    client: SocketAddr,
    /// The real server's number.
    server: u16,
}

pub fn play(director: &mut dyn Director, transcript: &mut Transcript) {
    // Without any service left the kernel would leave packets alone, also those of connections.
    let other = Service { protocol: Protocol::Tcp, address: (Family::Ipv4.vip(), 4009).into() };
    director.configure(&[Rule::AddService(other, "rr", "")]);
    for (name, mode, port) in MODES {
        let service = Service { protocol: Protocol::Tcp, address: (Family::Ipv4.vip(), port).into() };
        let client = SocketAddr::new(Family::Ipv4.client(7), 21_000);
        let mut story =
            Story { director: &mut *director, transcript: &mut *transcript, name, mode, service, client, server: 0 };
        story.real_server_goes_and_comes_back();
        story.service_goes_and_comes_back();
        story.drained_and_reset();
    }
}

impl Story<'_> {
    fn entry(&self, number: u16, weight: u32) -> Server {
        let address = SocketAddr::new(Family::Ipv4.server(number), self.service.address.port());
        Server { address, mode: self.mode, weight, upper: 0, lower: 0 }
    }

    fn note(&mut self, what: &str, out: &[Out]) {
        let seen = match out.first() {
            None => "nothing".to_owned(),
            Some(out) if out.side == Side::Lan => format!("real server {}", out.to_mac()),
            Some(out) => format!("client gets protocol {}", out.packet()[9]),
        };
        self.transcript.note(self.name, format!("{what}: {seen}"));
    }

    fn say(&mut self, what: &str, flags: &'static str) -> Vec<Out> {
        let packet = Packet::new(Protocol::Tcp, self.client, self.service.address).with_flags(flags);
        let out =
            self.director.send(Side::Wan, &frame(router_mac(Side::Wan), Side::Wan.director_mac(), &packet.bytes()));
        self.note(what, &out);
        out
    }

    /// A segment of the real server that has the connection, where it passes the director.
    fn reply(&mut self, what: &str, flags: &'static str) {
        if self.mode != Mode::Nat {
            return;
        }
        let packet = Packet::new(Protocol::Tcp, self.client, self.service.address);
        let answer = packet.answer(self.entry(self.server, 0).address).with_flags(flags);
        let sent = frame(server_mac(self.server), Side::Lan.director_mac(), &answer.bytes());
        let out = self.director.send(Side::Lan, &sent);
        self.note(what, &out);
    }

    /// A new connection, established.
    fn connect(&mut self) {
        self.client.set_port(self.client.port() + 1);
        let out = self.say("SYN", "S");
        self.server = out.first().map_or(0, |out| out.to_mac().into());
        self.reply("SYN and ACK", "SA");
        self.say("ACK", "A");
    }

    fn count(&mut self, when: &str) {
        let loads = self.director.loads();
        self.note_counts(when, loads);
    }

    fn count_all(&mut self) {
        self.count("at the end");
        let traffic = self.director.traffic();
        self.note_counts("in all", traffic);
    }

    fn note_counts(&mut self, when: &str, mut rows: Vec<Counts>) {
        rows.retain(|row| self.service.is_row(row) && !row.counts.is_empty());
        rows.sort_by_key(|row| row.server);
        for row in rows {
            let whose = row.server.map_or("service".to_owned(), |server| server.ip().to_string());
            self.transcript.note(self.name, format!("{when}, {whose}: {:?}", row.counts));
        }
    }

    fn real_server_goes_and_comes_back(&mut self) {
        let (service, entries) = (self.service, [self.entry(1, 1), self.entry(2, 1)]);
        self.director.configure(&[
            Rule::AddService(service, "wlc", ""),
            Rule::AddServer(service, entries[0]),
            Rule::AddServer(service, entries[1]),
        ]);
        self.connect();
        let own = self.entry(self.server, 1);
        self.director.configure(&[Rule::DeleteServer(service, own.address)]);
        self.say("data to a removed real server", "PA");
        self.reply("data from a removed real server", "PA");
        self.say("SYN of the same client", "S");
        self.count("removed");
        self.director.configure(&[Rule::AddServer(service, own)]);
        self.say("data after it came back", "PA");
        self.reply("data of what came back", "PA");
        self.count("back");
    }

    fn service_goes_and_comes_back(&mut self) {
        let (service, entries) = (self.service, [self.entry(1, 1), self.entry(2, 1)]);
        self.connect();
        self.director.configure(&[Rule::DeleteService(service)]);
        self.say("data to a removed service", "PA");
        self.reply("data from a removed service", "PA");
        self.director.configure(&[
            Rule::AddService(service, "wlc", ""),
            Rule::AddServer(service, entries[0]),
            Rule::AddServer(service, entries[1]),
        ]);
        self.say("data after the service came back", "PA");
        self.reply("data of a service that came back", "PA");
        self.count("service back");
    }

    /// Weight 0 keeps connections; a reset one gives way to another.
    fn drained_and_reset(&mut self) {
        let service = self.service;
        self.connect();
        self.director.configure(&[Rule::EditServer(service, self.entry(self.server, 0))]);
        self.say("data to a drained real server", "PA");
        self.say("RST", "R");
        self.say("SYN on what was reset", "S");
        self.director.configure(&[1, 2].map(|number| Rule::EditServer(service, self.entry(number, 0))));
        self.client.set_port(self.client.port() + 1);
        self.say("SYN where all are drained", "S");
        self.count_all();
    }
}
