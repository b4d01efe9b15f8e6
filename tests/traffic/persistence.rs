//! Persistence with real clients and real servers over two workers: who stays with whom, for how long, and what ipvsadm
//! makes of it; and sessions whose real server is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;

use fullgate::control::protocol::{Reply, Request, SessionFilter, TemplateRow};

use crate::lab::gateway::{real, vip};
use crate::lab::{Configuration, Gateway, Lab, PATIENCE, UdpEcho, run, wait_for};

/// Clients stand in this network, of which every address is the client machine's.
fn client(number: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a40_0000 + u32::from(number))
}

/// Two workers, three real servers that echo, and clients with thousands of addresses.
struct Fleet {
    lab: Lab,
    _servers: Vec<UdpEcho>,
    gateway: Gateway,
}

impl Fleet {
    /// `service` is added to the service's keys, `timeouts` to the gateway's, `more` to its file.
    fn start(service: &str, timeouts: &str, more: &str) -> Self {
        let lab = Lab::two_arm(3, 2);
        let name = lab.client.name();
        run(Command::new("ip").args(["-n", name, "route", "add", "local", "10.64.0.0/16", "dev", "lo"]));
        let servers = (0..3).map(|n| UdpEcho::start(&lab.reals[usize::from(n)], real(n, 53))).collect();
        let members: Vec<_> = (0..3).map(|n| (real(n, 53), 1)).collect();
        let configuration =
            Configuration { cores: "[0, 1]".into(), timeouts: timeouts.into(), ..Configuration::two_arm() };
        let mut configuration = configuration.with_service("udp", vip(53), "rr", &members);
        let keys = format!("scheduler = \"rr\"\n{service}\n");
        configuration.balance = configuration.balance.replacen("scheduler = \"rr\"\n", &keys, 1) + more;
        let routes = "tap = \"fg-wan\"\nroutes = [{ to = \"10.64.0.0/16\", via = \"10.0.0.10\" }]\n";
        configuration.ports = configuration.ports.replacen("tap = \"fg-wan\"\n", routes, 1);
        let gateway = Gateway::start(&lab, &configuration);
        Self { lab, _servers: servers, gateway }
    }

    /// A packet and its echo from this port of each of these clients.
    fn echo(&self, clients: impl Iterator<Item = u16> + Send, port: u16) {
        self.lab.client.enter(|| {
            for number in clients {
                let socket = UdpSocket::bind((client(number), port)).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.connect(vip(53)).unwrap();
                socket.send(&number.to_be_bytes()).unwrap();
                let mut answer = [0; 8];
                let length = socket.recv(&mut answer).unwrap_or_else(|error| panic!("{number}, port {port}: {error}"));
                assert_eq!(answer[..length], number.to_be_bytes());
            }
        });
    }

    /// The real server that each client address has: one over all its sessions.
    fn chosen(&self) -> BTreeMap<IpAddr, SocketAddr> {
        let mut chosen = BTreeMap::new();
        for session in self.gateway.sessions() {
            let server = *chosen.entry(session.client.ip()).or_insert(session.real_server);
            assert_eq!(server, session.real_server, "{}", session.client);
        }
        chosen
    }

    fn templates(&self) -> Vec<TemplateRow> {
        let request = Request::TemplateList { filter: SessionFilter::default(), limit: None };
        match self.gateway.ask(&request) {
            Reply::Templates(rows) => rows,
            other => panic!("no templates: {other:?}"),
        }
    }

    fn wait_until_forgotten(&self) {
        wait_for("all templates to be over", PATIENCE, || {
            (self.gateway.stats().persistence.templates == 0).then_some(())
        });
        assert_eq!(self.templates(), []);
    }

    fn drops(&self, reason: &str) -> u64 {
        let stats = self.gateway.stats();
        stats.drops.iter().find(|(name, _)| name == reason).unwrap().1
    }
}

#[test]
fn a_thousand_clients_stay_with_their_real_server_through_ten_connections_over_two_workers() {
    let fleet = Fleet::start("persistence = 300", "", "");
    for port in 0..10 {
        fleet.echo(0..1_000, 20_000 + port);
    }
    let sessions = fleet.gateway.sessions();
    assert_eq!(sessions.len(), 10_000);
    assert_eq!(sessions.iter().map(|session| session.worker).collect::<BTreeSet<_>>().len(), 2, "both workers");
    let chosen = fleet.chosen();
    assert_eq!(chosen.len(), 1_000);
    let templates = fleet.templates();
    assert_eq!(templates.len(), 1_000);
    for template in &templates {
        assert_eq!((template.connections, chosen[&template.client]), (10, template.real_server));
        assert!((1..=300).contains(&template.expires_seconds), "{template:?}");
    }
    let stats = fleet.gateway.stats();
    let persistent: Vec<_> = stats.services[0].real_servers.iter().map(|each| each.persistent_connections).collect();
    assert!(persistent.iter().all(|&clients| clients.abs_diff(333) <= 2), "{persistent:?}");
    assert_eq!((stats.persistence.templates, stats.persistence.missed_full), (1_000, 0));
    let metrics = fleet.gateway.metrics(&fleet.lab);
    assert_eq!(metrics["fullgate_persistence_templates"], 1_000.0);
    let one = fleet.gateway.json("session templates --client 10.64.0.7");
    assert_eq!((one.as_array().unwrap().len(), &one[0]["vip"]), (1, &"10.0.0.100:53".into()));
}

#[test]
fn a_network_of_clients_stays_together_and_is_forgotten_in_time() {
    let fleet = Fleet::start("persistence = 2\npersistence_prefix = 24", "udp = 1", "");
    fleet.echo((0..4).flat_map(|network| [1, 100, 200].map(|host| network * 256 + host)), 20_000);
    let chosen = fleet.chosen();
    let of = |network: u8, host: u8| chosen[&IpAddr::from([10, 64, network, host])];
    for network in 0..4 {
        assert_eq!((of(network, 1), of(network, 1)), (of(network, 100), of(network, 200)));
    }
    assert_eq!(chosen.values().collect::<BTreeSet<_>>().len(), 3, "networks are dealt out in turn");
    fleet.wait_until_forgotten();
    let stats = fleet.gateway.stats();
    assert!(stats.services[0].real_servers.iter().all(|each| each.persistent_connections == 0));
}

#[test]
fn a_drained_real_server_keeps_its_clients_unless_that_ends_templates() {
    for (more, stays) in [("", true), ("[ipvs]\nexpire_quiescent_template = 1\n", false)] {
        let fleet = Fleet::start("persistence = 300", "", more);
        fleet.echo(1..2, 20_000);
        let first = fleet.chosen()[&client(1).into()];
        fleet.gateway.command(&format!("real edit -u 10.0.0.100:53 -r {first} -w 0"));
        fleet.echo(1..2, 20_001);
        let mut servers: Vec<_> = fleet.gateway.sessions().iter().map(|session| session.real_server).collect();
        servers.dedup();
        assert_eq!(servers.len() == 1, stays, "{servers:?}");
        let template = fleet.templates().remove(0);
        assert_eq!(template.real_server == first, stays);
    }
}

#[test]
fn clients_of_a_deleted_real_server_go_elsewhere_at_once_or_with_their_next_connection() {
    for (more, moves) in [("", false), ("[ipvs]\nexpire_nodest_conn = 1\n", true)] {
        let fleet = Fleet::start("persistence = 300", "", more);
        fleet.echo(1..2, 20_000);
        let first = fleet.chosen()[&client(1).into()];
        fleet.gateway.command(&format!("real del -u 10.0.0.100:53 -r {first}"));
        fleet.echo(1..2, 20_001);
        let template = fleet.templates().remove(0);
        assert_ne!(template.real_server, first, "a new connection");
        if moves {
            fleet.echo(1..2, 20_000);
            assert_eq!(fleet.chosen()[&client(1).into()], template.real_server);
            assert_eq!(fleet.drops("real_server_removed"), 0);
            continue;
        }
        fleet.lab.client.enter(|| {
            let socket = UdpSocket::bind((client(1), 20_000)).unwrap();
            socket.send_to(b"?", vip(53)).unwrap();
        });
        wait_for("the packet to be dropped", PATIENCE, || (fleet.drops("real_server_removed") == 1).then_some(()));
    }
}

#[test]
fn ipvsadm_makes_services_persistent_and_lists_templates_as_the_kernel_does() {
    let fleet = Fleet::start("", "", "");
    let ipvsadm = |arguments: &str| fleet.gateway.ipvsadm(&fleet.lab.gateway, arguments);
    ipvsadm("-C");
    let rules = "\
-A -t 10.0.0.100:443 -s wlc -p 300
-A -t [2001:db8::64]:443 -s wlc -p 60 -M 64 -b flag-3
-A -u 10.0.0.100:0 -s wlc -p 1800 -M 255.255.0.0
-A -u 10.0.0.100:53 -s rr -p 600 -M 255.255.255.0 -b flag-3
-a -u 10.0.0.100:53 -r 10.1.0.11:53 -m -w 1
-a -u 10.0.0.100:53 -r 10.1.0.12:53 -m -w 1
";
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.sort();
        lines
    };
    fleet.gateway.ipvsadm_restore(&fleet.lab.gateway, rules);
    assert_eq!(sorted(&ipvsadm("-S -n")), sorted(rules));
    assert!(ipvsadm("-L -n").contains("UDP  10.0.0.100:53 rr (flag-3) persistent 600 mask 255.255.255.0"));
    fleet.gateway.command("service edit -u 10.0.0.100:53 --local-pool lan");

    fleet.echo(1..4, 20_000);
    let connections = ipvsadm("-L -n -c");
    let template = connections.lines().find(|line| line.contains("10.64.0.0:0")).unwrap();
    let words: Vec<_> = template.split_whitespace().collect();
    assert_eq!((words[0], words[2], words[3], words[4]), ("UDP", "NONE", "10.64.0.0:0", "10.0.0.100:53"));
    assert!(["10.1.0.11:53", "10.1.0.12:53"].contains(&words[5]), "{template}");
    let persistent = ipvsadm("-L -n --persistent-conn");
    let counts: Vec<_> =
        persistent.lines().filter(|line| line.contains("-> 10.1.0.1")).map(|line| line.split_whitespace()).collect();
    let counts: u32 = counts.into_iter().map(|mut words| words.nth(3).unwrap().parse::<u32>().unwrap()).sum();
    assert_eq!(counts, 1, "{persistent}");

    ipvsadm("-E -u 10.0.0.100:53 -s rr -p 60 -b flag-3");
    assert!(ipvsadm("-S -n").contains("-A -u 10.0.0.100:53 -s rr -p 60 -b flag-3\n"), "all bits count again");
    ipvsadm("-E -u 10.0.0.100:53 -s rr -b flag-3");
    assert!(ipvsadm("-S -n").contains("-A -u 10.0.0.100:53 -s rr -b flag-3\n"));
    let refused = |arguments: &str| {
        let output = fleet.gateway.try_ipvsadm(&fleet.lab.gateway, arguments);
        assert!(!output.status.success(), "ipvsadm {arguments}");
        String::from_utf8_lossy(&output.stderr).trim().to_owned()
    };
    assert_eq!(refused("-A -u 10.0.0.100:5060 -p 60 --pe sip -o"), "Scheduler or persistence engine not found");
}
