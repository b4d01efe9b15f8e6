//! Schedulers that choose by a hash. fullgate's hash has a key and the kernel's has none, so who is chosen differs, and
//! what is compared is what one relies on: a client stays with its real server, shares follow weights, a real server that
//! takes nobody refuses its clients or leaves them to others, and one that is removed or added moves few.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use fullgate::balance::Protocol;

use crate::director::{Director, Mode, Rule, Server, Service};
use crate::network::{Family, Packet, Side, frame, router_mac};
use crate::transcript::Transcript;

struct Subject {
    name: &'static str,
    scheduler: &'static str,
    flags: &'static str,
    /// Real servers with their weights, in the order in which they are added.
    servers: [(u16, u32); 4],
}

const WEIGHTS: [(u16, u32); 4] = [(1, 1), (2, 2), (3, 1), (4, 4)];
const TURNED: [(u16, u32); 4] = [(4, 4), (3, 1), (2, 2), (1, 1)];

const SUBJECTS: [Subject; 8] = [
    Subject { name: "sh", scheduler: "sh", flags: "", servers: WEIGHTS },
    Subject { name: "sh-port", scheduler: "sh", flags: "sh-port", servers: WEIGHTS },
    Subject { name: "sh-fallback", scheduler: "sh", flags: "sh-fallback", servers: WEIGHTS },
    Subject { name: "dh", scheduler: "dh", flags: "", servers: WEIGHTS },
    Subject { name: "mh", scheduler: "mh", flags: "", servers: WEIGHTS },
    Subject { name: "mh, turned round", scheduler: "mh", flags: "", servers: TURNED },
    Subject { name: "mh-port", scheduler: "mh", flags: "mh-port", servers: WEIGHTS },
    Subject { name: "mh-fallback", scheduler: "mh", flags: "mh-fallback", servers: WEIGHTS },
];

const FIRST_PORT: u16 = 5000;
const CLIENTS: u16 = 240;

/// Which real server each client got; none: nobody.
type Chosen = Vec<Option<u8>>;

pub fn play(director: &mut dyn Director, transcript: &mut Transcript) {
    let service = |port| Service { protocol: Protocol::Udp, address: (Family::Ipv4.vip(), port).into() };
    let server = |(number, weight)| Server {
        address: SocketAddr::new(Family::Ipv4.server(number), 53),
        mode: Mode::Nat,
        weight,
        upper: 0,
        lower: 0,
    };
    let rules = (FIRST_PORT..).zip(&SUBJECTS).flat_map(|(port, subject)| {
        let servers = subject.servers.map(|entry| Rule::AddServer(service(port), server(entry)));
        std::iter::once(Rule::AddService(service(port), subject.scheduler, subject.flags)).chain(servers)
    });
    director.configure(&rules.collect::<Vec<_>>());
    let [first, again] = [10_000, 20_000].map(|from| all(director, from));
    let every = || FIRST_PORT..FIRST_PORT + SUBJECTS.len() as u16;
    director.configure(&every().map(|port| Rule::EditServer(service(port), server((2, 0)))).collect::<Vec<_>>());
    let drained = all(director, 30_000);
    director
        .configure(&every().map(|port| Rule::DeleteServer(service(port), server((2, 0)).address)).collect::<Vec<_>>());
    let removed = all(director, 40_000);
    for (number, subject) in SUBJECTS.iter().enumerate() {
        let courses = [&first, &again, &drained, &removed].map(|course| &course[number]);
        judge(subject, courses, transcript);
    }
    let same = first[4] == first[5];
    transcript.note("mh in two orders", format!("choose alike: {same}"));
}

/// Whom every subject's clients get, each from a port of its own.
fn all(director: &mut dyn Director, from: u16) -> Vec<Chosen> {
    let subjects = (FIRST_PORT..).take(SUBJECTS.len());
    subjects.map(|port| (0..CLIENTS).map(|number| chosen(director, port, number, from)).collect()).collect()
}

fn chosen(director: &mut dyn Director, port: u16, number: u16, from: u16) -> Option<u8> {
    // As far apart as clients are.
    // And from ports that no other service's have: the real servers are the same.
    let client = SocketAddr::new(Family::Ipv4.client(number * 7 + 1), from + number + (port - FIRST_PORT) * CLIENTS);
    let packet = Packet::new(Protocol::Udp, client, SocketAddr::new(Family::Ipv4.vip(), port));
    let out = director.send(Side::Wan, &frame(router_mac(Side::Wan), Side::Wan.director_mac(), &packet.bytes()));
    out.first().filter(|out| out.side == Side::Lan).map(|out| out.to_mac())
}

fn judge(subject: &Subject, [first, again, drained, removed]: [&Chosen; 4], transcript: &mut Transcript) {
    let mut note = |what: &str, seen: String| transcript.note(subject.name, format!("{what}: {seen}"));
    let follows_port = subject.flags.ends_with("-port");
    let stays = first.iter().zip(again).filter(|(one, other)| one == other).count();
    // By chance some do.
    note("another port of a client gets the same", (stays == first.len()).to_string());
    if follows_port {
        note("and only few do by chance", (stays < first.len() * 3 / 5).to_string());
    }
    let mut shares: BTreeMap<u8, usize> = BTreeMap::new();
    first.iter().flatten().for_each(|&server| *shares.entry(server).or_default() += 1);
    if subject.scheduler == "dh" {
        // One destination, one real server.
        note("real servers", shares.len().to_string());
    } else {
        for (server, weight) in subject.servers {
            let share = shares.get(&(server as u8)).copied().unwrap_or(0) as f64 / first.len() as f64;
            let fair = f64::from(weight) / 8.0;
            note(&format!("{server} has the share of its weight"), ((share - fair).abs() < 0.09).to_string());
        }
    }
    let others = |course: &Chosen| {
        let pairs = first.iter().zip(course).filter(|(before, _)| **before != Some(2));
        pairs.filter(|(before, after)| before != after).count()
    };
    if !follows_port && subject.scheduler != "dh" {
        let own = || first.iter().zip(drained).filter(|(before, _)| **before == Some(2)).map(|(_, after)| *after);
        note("clients of a drained one are refused", own().all(|after| after.is_none()).to_string());
        note("they go elsewhere", own().all(|after| after.is_some_and(|server| server != 2)).to_string());
        note("others stay when one is drained", (others(drained) == 0).to_string());
    }
    if subject.scheduler == "mh" && !follows_port {
        note("of others few move when one is removed", (others(removed) < first.len() / 12).to_string());
    }
    note("everybody is served when one is removed", removed.iter().all(Option::is_some).to_string());
}
