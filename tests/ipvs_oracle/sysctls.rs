//! What IPVS's sysctls change: which connections give way to a SYN, what becomes of those whose real server is gone or
//! drained, and what may begin a connection.

use std::net::SocketAddr;

use fullgate::balance::Protocol;

use crate::dialogue::{Dialogue, add_all, real_server};
use crate::director::{Director, Mode, Rule, Server, Service, Settings};
use crate::network::{Family, Flags, Side};
use crate::transcript::Transcript;

/// A flow that leads to a state, behind what opens it.
type Life = (&'static str, &'static [(Side, Flags)]);

const TCP_LIVES: [Life; 6] = [
    ("SYN_RECV", &[]),
    ("ESTABLISHED", &[(Side::Lan, "SA"), (Side::Wan, "A")]),
    ("FIN_WAIT", &[(Side::Wan, "A"), (Side::Lan, "FA")]),
    ("CLOSE_WAIT", &[(Side::Wan, "A"), (Side::Wan, "FA")]),
    ("TIME_WAIT", &[(Side::Wan, "A"), (Side::Wan, "FA"), (Side::Lan, "FA")]),
    ("CLOSE", &[(Side::Wan, "A"), (Side::Wan, "R")]),
];

const SCTP_LIVES: [Life; 5] = [
    ("INIT1", &[]),
    ("REJECTED", &[(Side::Lan, "ABORT")]),
    ("ESTABLISHED", &[(Side::Lan, "INIT ACK"), (Side::Wan, "COOKIE ECHO"), (Side::Lan, "COOKIE ACK")]),
    (
        "S-RECEIVED",
        &[(Side::Lan, "INIT ACK"), (Side::Wan, "COOKIE ECHO"), (Side::Lan, "COOKIE ACK"), (Side::Wan, "SHUTDOWN")],
    ),
    ("CLOSED", &[(Side::Lan, "INIT ACK"), (Side::Wan, "ABORT")]),
];

/// What is played on.
struct Scene<'d> {
    director: &'d mut dyn Director,
    transcript: &'d mut Transcript,
}

/// A service with two real servers, which take turns, and a flow of a client.
struct Stage {
    subject: String,
    service: Service,
    settings: Settings,
    servers: [Server; 2],
    /// The one that was drained or removed last.
    lost: Server,
    dialogue: Dialogue,
}

pub fn play(director: &mut dyn Director, transcript: &mut Transcript) {
    let mut scene = Scene { director, transcript };
    // Without any service left the kernel would leave packets alone, also those of connections.
    let other = Service { protocol: Protocol::Tcp, address: (Family::Ipv4.vip(), 6399).into() };
    scene.configure(vec![Rule::AddService(other, "rr", "")]);
    let mut played = Vec::new();
    for mode in 0..4 {
        let of = [
            (Protocol::Tcp, Mode::Nat, Settings::NONE),
            (Protocol::Tcp, Mode::Dr, Settings::NONE),
            (Protocol::Tcp, Mode::Nat, Settings::persistent(300)),
            (Protocol::Sctp, Mode::Nat, Settings::NONE),
        ];
        let port = 6400 + 10 * u16::from(mode);
        let mut stages = scene.set_up(&format!("conn_reuse_mode {mode}"), port, &of);
        scene.configure(vec![Rule::Sysctl("conn_reuse_mode", mode)]);
        stages.iter_mut().for_each(|stage| stage.opens_again(&mut scene));
        scene.list(&stages);
        played.extend(stages);
    }
    for (number, (expire, reuse)) in (0..).zip([(0, 1), (1, 1), (1, 0)]) {
        let of = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| {
            [Settings::NONE, Settings::persistent(300)].map(|settings| (protocol, Mode::Nat, settings))
        });
        let of = [&of.concat()[..], &[(Protocol::Tcp, Mode::Dr, Settings::NONE)]].concat();
        let subject = format!("expire_nodest_conn {expire}, reuse {reuse}");
        let mut stages = scene.set_up(&subject, 6440 + 10 * number, &of);
        scene.configure(vec![Rule::Sysctl("expire_nodest_conn", expire), Rule::Sysctl("conn_reuse_mode", reuse)]);
        scene.loses_real_servers(&mut stages);
        scene.list(&stages);
        played.extend(stages);
    }
    scene.configure(vec![Rule::Sysctl("expire_nodest_conn", 0), Rule::Sysctl("conn_reuse_mode", 1)]);
    for sloppy in [0, 1] {
        let of = [Protocol::Tcp, Protocol::Sctp]
            .map(|protocol| [Mode::Nat, Mode::Dr].map(|way| (protocol, way, Settings::NONE)));
        let subject = format!("sloppy {sloppy}");
        let mut stages = scene.set_up(&subject, 6470 + 10 * u16::from(sloppy), &of.concat());
        scene.configure(vec![Rule::Sysctl("sloppy_tcp", sloppy), Rule::Sysctl("sloppy_sctp", sloppy)]);
        for stage in &mut stages {
            let is_tcp = stage.service.protocol == Protocol::Tcp;
            stage.begins_with(&mut scene, if is_tcp { &SEGMENTS[usize::from(1 - sloppy)..] } else { &CHUNKS });
        }
        scene.list(&stages);
        played.extend(stages);
    }
    scene.count(&played);
}

/// Without sloppy_tcp, the first one is another matter.
const SEGMENTS: [Flags; 8] = ["SA", "A", "FA", "R", "RA", "PA", "", "S"];

/// Every chunk that there is a name for, but what the host answers by itself.
const CHUNKS: [Flags; 12] = [
    "INIT ACK",
    "COOKIE ECHO",
    "COOKIE ACK",
    "DATA",
    "SACK",
    "SHUTDOWN",
    "SHUTDOWN ACK",
    "SHUTDOWN COMPLETE",
    "ERROR",
    "ABORT",
    "HEARTBEAT",
    "INIT",
];

impl Scene<'_> {
    fn configure(&mut self, rules: Vec<Rule>) {
        self.director.configure(&rules);
    }

    /// A service each at the ports from this one on.
    fn set_up(&mut self, subject: &str, port: u16, of: &[(Protocol, Mode, Settings)]) -> Vec<Stage> {
        let stages: Vec<_> = (port..).zip(of).map(|(port, of)| Stage::new(subject, port, *of)).collect();
        self.configure(stages.iter().flat_map(Stage::beginning).collect());
        stages
    }

    /// One step of all stages at the same time: a command takes the kernel's machine longer than a packet.
    fn change(&mut self, stages: &[Stage], rule: impl Fn(&Stage) -> Rule) {
        self.configure(stages.iter().map(rule).collect());
    }

    fn loses_real_servers(&mut self, stages: &mut [Stage]) {
        stages.iter_mut().for_each(|stage| stage.connect(self));
        self.change(stages, |stage| Rule::EditServer(stage.service, stage.own(0)));
        for stage in &mut *stages {
            stage.say(self, "data to a drained one", "PA");
            stage.lost = stage.own(1);
            stage.open(self, "opened again with a drained one");
            stage.open(self, "and once more");
        }
        self.change(stages, |stage| Rule::EditServer(stage.service, stage.lost));
        stages.iter_mut().for_each(|stage| stage.connect(self));
        self.change(stages, |stage| Rule::DeleteServer(stage.service, stage.own(1).address));
        for stage in &mut *stages {
            stage.lost = stage.own(1);
            stage.reply(self, "data of a removed one", "PA");
            stage.another_comes(self);
            stage.say(self, "data to a removed one", "PA");
            stage.open(self, "opened again with a removed one");
        }
        self.change(stages, |stage| Rule::AddServer(stage.service, stage.lost));
        for stage in &mut *stages {
            stage.say(self, "data when it is back", "PA");
            stage.reply(self, "data of whom it is with", "PA");
            stage.connect(self);
        }
        self.change(stages, |stage| Rule::DeleteServer(stage.service, stage.own(1).address));
        self.change(stages, |stage| Rule::AddServer(stage.service, stage.own(1)));
        stages.iter_mut().for_each(|stage| stage.say(self, "data when it was away for a moment", "PA"));
    }

    /// The connections that are listed, by client.
    fn list(&mut self, stages: &[Stage]) {
        let first = stages[0].service.address.port();
        let listed = self.director.connections(first..=first + 9);
        for stage in stages {
            let own = listed.iter().filter(|connection| connection.virtual_ == stage.service.address);
            let states: Vec<_> = own
                .map(|one| format!("{}:{} {} {}", one.client.ip(), one.client.port(), one.server, one.state))
                .collect();
            stage.note(self, "connections", &states.join(", "));
        }
    }

    /// What was counted.
    fn count(&mut self, stages: &[Stage]) {
        let mut traffic = self.director.traffic();
        traffic.sort_by_key(|row| row.server);
        for stage in stages {
            for row in traffic.iter().filter(|row| stage.service.is_row(row)) {
                let whose = row.server.map_or("service".to_owned(), |server| server.ip().to_string());
                stage.note(self, &format!("{whose}: connections, packets, bytes"), &format!("{:?}", row.counts));
            }
        }
    }
}

impl Stage {
    fn new(subject: &str, port: u16, (protocol, mode, settings): (Protocol, Mode, Settings)) -> Self {
        let service = Service { protocol, address: (Family::Ipv4.vip(), port).into() };
        let client = SocketAddr::new(Family::Ipv4.client(60), 20_000);
        let keeps = if settings.persistence.is_some() { ", persistent" } else { "" };
        let way = if mode == Mode::Nat { "nat" } else { "dr" };
        let servers = [1, 2].map(|number| real_server(Family::Ipv4.server(number), port, mode, 1));
        Self {
            subject: format!("{subject}: {protocol}, {way}{keeps}"),
            service,
            settings,
            servers,
            lost: servers[0],
            dialogue: Dialogue::new(protocol, client, service.address, mode),
        }
    }

    fn beginning(&self) -> Vec<Rule> {
        [vec![Rule::AddWith(self.service, "rr", self.settings)], add_all(self.service, &self.servers)].concat()
    }

    fn note(&self, scene: &mut Scene<'_>, what: &str, seen: &str) {
        scene.transcript.note(&self.subject, format!("{what}: {seen}"));
    }

    fn opening(&self) -> Flags {
        if self.service.protocol == Protocol::Sctp { "INIT" } else { "S" }
    }

    fn say(&mut self, scene: &mut Scene<'_>, what: &str, flags: Flags) {
        let seen = self.dialogue.say(scene.director, flags);
        self.note(scene, what, &seen);
    }

    fn reply(&self, scene: &mut Scene<'_>, what: &str, flags: Flags) {
        let seen = self.dialogue.reply(scene.director, flags);
        self.note(scene, what, &seen);
    }

    fn open(&mut self, scene: &mut Scene<'_>, what: &str) {
        self.say(scene, what, self.opening());
    }

    /// What opens a flow comes for one that there is, in every state.
    fn opens_again(&mut self, scene: &mut Scene<'_>) {
        let lives: &[Life] = if self.service.protocol == Protocol::Sctp { &SCTP_LIVES } else { &TCP_LIVES };
        for (state, events) in lives {
            self.dialogue.begin_anew();
            self.open(scene, &format!("first, {state}"));
            events.iter().for_each(|&event| drop(self.dialogue.exchange(scene.director, event)));
            self.open(scene, &format!("again in {state}"));
        }
    }

    /// A flow that both ends have spoken in.
    fn connect(&mut self, scene: &mut Scene<'_>) {
        self.dialogue.begin_anew();
        self.open(scene, "first");
        let events: &[(Side, Flags)] = match self.service.protocol {
            Protocol::Tcp => TCP_LIVES[1].1,
            Protocol::Sctp => SCTP_LIVES[2].1,
            _ => &[(Side::Lan, ""), (Side::Wan, "")],
        };
        events.iter().for_each(|&event| drop(self.dialogue.exchange(scene.director, event)));
    }

    /// The scheduler sees who is gone.
    fn another_comes(&self, scene: &mut Scene<'_>) {
        let client = SocketAddr::new(Family::Ipv4.client(61), self.dialogue.packet.source.port());
        let mut another = Dialogue::new(self.service.protocol, client, self.service.address, self.servers[0].mode);
        let seen = another.say(scene.director, self.opening());
        self.note(scene, "another client", &seen);
    }

    /// The real server that the flow is with, of this weight.
    fn own(&self, weight: u32) -> Server {
        let number = usize::from(self.dialogue.server().max(1) - 1);
        Server { weight, ..self.servers[number] }
    }

    fn begins_with(&mut self, scene: &mut Scene<'_>, first: &[Flags]) {
        for flags in first {
            self.dialogue.begin_anew();
            self.say(scene, &format!("first {flags:?}"), flags);
        }
    }
}
