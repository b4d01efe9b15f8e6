//! What becomes of a packet, to the last byte: both directions of every mode in both families, packets that are too large or
//! too old, ICMP errors about all of these, and what belongs to nobody.

use std::net::SocketAddr;

use fullgate::balance::{Encapsulation, Protocol, Tunnel};

use crate::director::{Director, Mode, Rule, Server, Service};
use crate::network::{Family, Out, Packet, Side, frame, icmp_error, internet_checksum, router_mac, server_mac};
use crate::transcript::Transcript;

const FIRST_PORT: u16 = 2000;
/// Where real servers listen in mode nat.
const SERVER_PORT: u16 = 8080;

/// A way of forwarding.
struct Way {
    name: &'static str,
    mode: Mode,
    /// The client's family, and the real server's.
    families: (Family, Family),
    /// The real server's number: in mode nat each service has one of its own.
    server: u16,
}

const fn way(name: &'static str, mode: Mode, families: (Family, Family), server: u16) -> Way {
    Way { name, mode, families, server }
}

const fn tunnel(encapsulation: Encapsulation, checksum: bool) -> Mode {
    let port = if matches!(encapsulation, Encapsulation::Gue) { 6080 } else { 0 };
    Mode::Tun(Tunnel { encapsulation, port, checksum })
}

const IPV4: (Family, Family) = (Family::Ipv4, Family::Ipv4);
const IPV6: (Family, Family) = (Family::Ipv6, Family::Ipv6);

const WAYS: [Way; 13] = [
    way("nat, IPv4", Mode::Nat, IPV4, 1),
    way("nat, IPv6", Mode::Nat, IPV6, 1),
    way("dr, IPv4", Mode::Dr, IPV4, 2),
    way("dr, IPv6", Mode::Dr, IPV6, 2),
    way("tun ipip, IPv4", tunnel(Encapsulation::Ipip, false), IPV4, 3),
    way("tun ipip, IPv6", tunnel(Encapsulation::Ipip, false), IPV6, 3),
    way("tun ipip, IPv4 in IPv6", tunnel(Encapsulation::Ipip, false), (Family::Ipv4, Family::Ipv6), 4),
    way("tun ipip, IPv6 in IPv4", tunnel(Encapsulation::Ipip, false), (Family::Ipv6, Family::Ipv4), 4),
    way("tun gre, IPv4", tunnel(Encapsulation::Gre, false), IPV4, 5),
    way("tun gre with checksum, IPv4", tunnel(Encapsulation::Gre, true), IPV4, 6),
    way("tun gre, IPv6", tunnel(Encapsulation::Gre, false), IPV6, 5),
    way("tun gue, IPv4", tunnel(Encapsulation::Gue, false), IPV4, 7),
    way("tun gue with checksum, IPv4", tunnel(Encapsulation::Gue, true), IPV4, 8),
];

/// A way at work for one protocol.
struct Stage<'d> {
    director: &'d mut dyn Director,
    transcript: &'d mut Transcript,
    way: &'static Way,
    service: Service,
    clients: u16,
}

pub fn play(director: &mut dyn Director, transcript: &mut Transcript) {
    let services = || {
        let of = |way: &'static Way| [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| (way, protocol));
        WAYS.iter().flat_map(of).zip(FIRST_PORT..)
    };
    let service_of =
        |way: &Way, protocol, port| Service { protocol, address: SocketAddr::new(way.families.0.vip(), port) };
    let rules = services().flat_map(|((way, protocol), port)| {
        let service = service_of(way, protocol, port);
        let server_port = if way.mode == Mode::Nat { SERVER_PORT } else { port };
        let address = SocketAddr::new(way.families.1.server(way.server), server_port);
        let server = Server { address, mode: way.mode, weight: 1, upper: 0, lower: 0 };
        [Rule::AddService(service, "rr", ""), Rule::AddServer(service, server)]
    });
    director.configure(&rules.collect::<Vec<_>>());
    for ((way, protocol), port) in services() {
        let service = service_of(way, protocol, port);
        Stage { director: &mut *director, transcript: &mut *transcript, way, service, clients: 0 }.there_and_back();
    }
    let count = |director: &mut dyn Director,
                 transcript: &mut Transcript,
                 subject: fn(&'static Way) -> &'static str| {
        let mut rows = director.traffic();
        rows.sort_by_key(|row| (row.service.1, row.server));
        for row in rows {
            let way = services().find(|((way, protocol), port)| service_of(way, *protocol, *port).is_row(&row));
            let Some(((way, protocol), _)) = way.filter(|_| row.server.is_none()) else { continue };
            transcript
                .note(subject(way), format!("{protocol} connections, packets and bytes in and out: {:?}", row.counts));
        }
    };
    count(director, transcript, |way| way.name);
    for ((way, protocol), port) in services() {
        let service = service_of(way, protocol, port);
        let mut stage = Stage { director: &mut *director, transcript: &mut *transcript, way, service, clients: 100 };
        stage.too_large_or_too_old();
        stage.errors();
    }
    count(director, transcript, |_| "counts of what is answered");
    // So many ICMP errors come of the director in a second, and no more.
    director.at(30);
    belongs_to_nobody(director, transcript);
}

impl Stage<'_> {
    /// A first packet of a client that was not there before.
    fn packet(&mut self) -> Packet {
        self.clients += 1;
        let address = self.way.families.0.client(self.clients);
        Packet::new(self.service.protocol, SocketAddr::new(address, 30_000), self.service.address)
            .with_payload(b"question")
    }

    fn note(&mut self, what: &str, out: &[Out]) {
        let seen = out.iter().map(shown).collect::<Vec<_>>().join(", ");
        let seen = if out.is_empty() { "nothing".to_owned() } else { seen };
        self.transcript.note(self.way.name, format!("{} {what}: {seen}", self.service.protocol));
    }

    /// A packet of the client's side; notes what comes of it.
    fn client_sends(&mut self, what: &str, packet: &[u8]) -> Vec<Out> {
        let sent = frame(router_mac(Side::Wan), Side::Wan.director_mac(), packet);
        let out = self.director.send(Side::Wan, &sent);
        self.note(what, &out);
        out
    }

    fn server_sends(&mut self, what: &str, packet: &[u8]) -> Vec<Out> {
        let sent = frame(server_mac(self.way.server), Side::Lan.director_mac(), packet);
        let out = self.director.send(Side::Lan, &sent);
        self.note(what, &out);
        out
    }

    fn server(&self) -> SocketAddr {
        SocketAddr::new(self.way.families.1.server(self.way.server), SERVER_PORT)
    }

    fn is_nat(&self) -> bool {
        self.way.mode == Mode::Nat
    }

    /// Every field that a header has, in a packet of a session that there is not yet and of one that there is.
    fn there_and_back(&mut self) {
        let plain = self.packet();
        let variants = [
            ("plain", plain.clone()),
            ("without DF", Packet { dont_fragment: false, ..self.packet() }),
            ("of a class", Packet { class: 0xb9, ..self.packet() }),
            ("congested", Packet { class: 3, ..self.packet() }),
            ("at its last hop", Packet { ttl: 2, ..self.packet() }),
            ("of odd length", Packet { payload: vec![7; 333], ..self.packet() }),
            ("empty", Packet { payload: Vec::new(), ..self.packet() }),
        ];
        for (what, packet) in variants {
            self.client_sends(what, &packet.bytes());
            let again = Packet { identification: 0x1235, ..packet.clone() }.with_flags("A");
            if self.is_nat() {
                let answer = Packet { class: packet.class, ..packet.answer(self.server()) };
                let answer = answer.with_flags("SA").with_payload(b"answer");
                self.server_sends(&format!("answer, {what}"), &answer.bytes());
            }
            self.client_sends(&format!("again, {what}"), &again.bytes());
        }
        let mut damaged = plain.with_flags("PA").bytes();
        *damaged.last_mut().unwrap() ^= 1;
        self.client_sends("damaged", &damaged);
    }

    fn too_large_or_too_old(&mut self) {
        let first = self.packet();
        self.client_sends("first", &first.bytes());
        let of = |payload: usize| Packet { payload: vec![b'x'; payload], ..first.clone() }.with_flags("PA");
        self.client_sends("too large", &of(1400).bytes());
        if !self.is_nat() {
            // Without the tunnel's headers it would fit.
            self.client_sends("nearly too large", &of(1330).bytes());
        }
        if self.way.families.0 == Family::Ipv4 {
            self.client_sends("too large without DF", &Packet { dont_fragment: false, ..of(1400) }.bytes());
        }
        if self.way.families.0 == Family::Ipv4 && self.service.protocol == Protocol::Udp {
            self.in_fragments();
        }
        self.client_sends("too old", &Packet { ttl: 1, ..of(5) }.bytes());
        if self.is_nat() {
            let answer = Packet { ttl: 1, ..first.answer(self.server()) }.with_flags("SA");
            self.server_sends("answer that is too old", &answer.bytes());
        }
    }

    fn in_fragments(&mut self) {
        let packet = Packet { payload: vec![b'f'; 200], ..self.packet() };
        let sent = packet.fragments(64).map(|packet| frame(router_mac(Side::Wan), Side::Wan.director_mac(), &packet));
        let out: Vec<_> = sent.iter().flat_map(|sent| self.director.send(Side::Wan, sent)).collect();
        self.note("in fragments", &out);
    }

    /// Errors about what the director sent, as those who got it would send them.
    fn errors(&mut self) {
        let question = self.packet();
        let out = self.client_sends("about to be refused", &question.bytes());
        let Some(sent) = out.first().map(|out| out.packet().to_vec()) else { return };
        let (kinds, family) = (Errors::of(self.way.families.1), self.way.families.1);
        let (server, router, director) =
            (family.server(self.way.server), family.router(Side::Lan), family.director(Side::Lan));
        let client = self.way.families.0.client(self.clients);
        // In modes nat and dr it comes to the client's address, in mode tun to the director.
        let to = if matches!(self.way.mode, Mode::Tun(_)) { director } else { client };
        if self.way.mode != Mode::Dr {
            self.server_sends("unreachable from the real server", &icmp_error(server, to, kinds.unreachable, &sent));
            self.server_sends("time exceeded on the way to it", &icmp_error(router, to, kinds.exceeded, &sent));
            self.server_sends("too big on the way to it", &icmp_error(router, to, kinds.too_big, &sent));
        }
        self.errors_about_answers(&question);
    }

    fn errors_about_answers(&mut self, question: &Packet) {
        let kinds = Errors::of(self.way.families.0);
        let (client, router) = (question.source.ip(), self.way.families.0.router(Side::Wan));
        // What the client got: by the director in mode nat, past it otherwise.
        let mut answer = question.answer(self.service.address).with_flags("SA").with_payload(&[9; 40]);
        if self.is_nat() {
            let sent = Packet { source: self.server(), ..answer.clone() };
            self.server_sends("answer", &sent.bytes());
        }
        answer.ttl = 60;
        let vip = self.service.address.ip();
        for (what, from, kind) in [
            ("client's unreachable", client, kinds.unreachable),
            ("time exceeded on the way to the client", router, kinds.exceeded),
            ("too big on the way to the client", router, kinds.too_big),
        ] {
            self.client_sends(what, &icmp_error(from, vip, kind, &answer.bytes()));
        }
    }
}

/// Type, code and the rest of the header.
struct Errors {
    unreachable: (u8, u8, u32),
    exceeded: (u8, u8, u32),
    too_big: (u8, u8, u32),
}

impl Errors {
    fn of(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self { unreachable: (3, 3, 0), exceeded: (11, 0, 0), too_big: (3, 4, 1300) },
            Family::Ipv6 => Self { unreachable: (1, 4, 0), exceeded: (3, 0, 0), too_big: (2, 0, 1300) },
        }
    }
}

/// What is for a service and no session, or for a service that nobody serves.
fn belongs_to_nobody(director: &mut dyn Director, transcript: &mut Transcript) {
    for family in [Family::Ipv4, Family::Ipv6] {
        let subject = if family == Family::Ipv4 { "nobody's, IPv4" } else { "nobody's, IPv6" };
        let services = [(Protocol::Tcp, 2100), (Protocol::Udp, 2101), (Protocol::Sctp, 2102)]
            .map(|(protocol, port)| Service { protocol, address: SocketAddr::new(family.vip(), port) });
        director.configure(&services.map(|service| Rule::AddService(service, "rr", "")));
        for service in services {
            let client = SocketAddr::new(family.client(50), 31_000);
            let packet = Packet::new(service.protocol, client, service.address).with_payload(b"anybody?");
            let mut packets = vec![("first", packet.clone())];
            if service.protocol == Protocol::Tcp {
                packets.extend(
                    ["A", "FA", "R", "RA", "SA", "PA", ""].map(|flags| (flags, packet.clone().with_flags(flags))),
                );
                packets.push(("first, empty", packet.clone().with_payload(b"")));
                packets.push(("A, empty", packet.with_payload(b"").with_flags("A")));
            }
            for (what, packet) in packets {
                let sent = frame(router_mac(Side::Wan), Side::Wan.director_mac(), &packet.bytes());
                let out = director.send(Side::Wan, &sent);
                let seen = out.first().map_or("nothing".to_owned(), shown);
                transcript.note(subject, format!("{} {what:?}: {seen}", service.protocol));
            }
        }
    }
}

/// A frame for comparing, with all checksums found right and what docs/differences-from-ipvs.md lists as not compared left out.
fn shown(out: &Out) -> String {
    let mut packet = out.packet().to_vec();
    let is_ipv4 = packet[0] >> 4 == 4;
    let header = if is_ipv4 { usize::from(packet[0] & 15) * 4 } else { 40 };
    let next = if is_ipv4 { packet[9] } else { packet[6] };
    let mut wrong = "";
    if is_ipv4 {
        wrong = if internet_checksum(&packet[..header]) == 0 { "" } else { " wrong header checksum" };
        // An identification is the director's own where the packet is, and drawn by lot.
        let is_made =
            matches!(next, 1 | 4 | 41 | 47) || is_gue(&packet, next, header) || is_reset(&packet, next, header);
        if is_made {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
    }
    if is_gue(&packet, next, header) {
        mask_gue(&mut packet[header..]);
    }
    let is_error = matches!((next, packet[header]), (1, 3 | 11) | (58, 1..=3));
    if is_error {
        let pseudo = if is_ipv4 { Vec::new() } else { pseudo_header_of(&packet) };
        if internet_checksum(&[&pseudo, &packet[header..]].concat()) != 0 {
            wrong = " wrong ICMP checksum";
        }
        mask_error(&mut packet, header);
    }
    if !is_ipv4 && (is_error || is_reset(&packet, next, header)) {
        // The flow label.
        packet[1] &= 0xf0;
        packet[2..4].fill(0);
    }
    Out { side: out.side, bytes: [&out.bytes[..14], &packet].concat() }.to_string() + wrong
}

fn is_gue(packet: &[u8], next: u8, header: usize) -> bool {
    next == 17 && packet[header + 2..header + 4] == 6080u16.to_be_bytes()
}

fn is_reset(packet: &[u8], next: u8, header: usize) -> bool {
    // From a virtual port of those that nobody serves.
    next == 6 && packet[header..header + 2] == 2100u16.to_be_bytes()
}

/// The source port of a GUE packet only tells flows apart; its checksum covers it.
fn mask_gue(udp: &mut [u8]) {
    udp[..2].fill(0);
    if udp[6..8] != [0, 0] {
        udp[6..8].fill(0xff);
    }
}

/// Of an error: its checksum, DF, and in what it quotes the TTL and the checksums.
fn mask_error(packet: &mut [u8], header: usize) {
    if header < 40 {
        packet[6] &= !0x40;
    }
    packet[header + 2..header + 4].fill(0);
    let quote = &mut packet[header + 8..];
    let (next, inner, ttl_at) = match quote[0] >> 4 {
        4 => (quote[9], usize::from(quote[0] & 15) * 4, 8),
        _ => (quote[6], 40, 7),
    };
    quote[ttl_at] = 0;
    if inner < 40 {
        quote[10..12].fill(0);
    }
    let checksum = match next {
        6 => inner + 16..inner + 18,
        132 => inner + 8..inner + 12,
        _ => inner + 6..inner + 8,
    };
    if let Some(checksum) = quote.get_mut(checksum) {
        checksum.fill(0);
    }
}

/// Of an ICMPv6 message.
fn pseudo_header_of(packet: &[u8]) -> Vec<u8> {
    [&packet[8..40], &[0, 0], &packet[4..6], &[0, 0, 0, 58]].concat()
}
