//! Schedulers with real clients and real servers: exact shares over two workers, a slow real server, and who sticks.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::lab::client::{ask, connect, get_many};
use crate::lab::gateway::{real, vip};
use crate::lab::{Configuration, Gateway, Lab, Namespace, Nginx, PATIENCE, UdpEcho, wait_for};

const CLIENTS: u16 = 20;

/// A packet and its echo from each of so many ports of every client address.
fn echoes(ports: u16) {
    for port in 0..ports {
        for client in 0..CLIENTS {
            let source = Ipv4Addr::new(10, 0, 0, 10 + u8::try_from(client).unwrap());
            let socket = UdpSocket::bind((source, 20_000 + port)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect(vip(53)).unwrap();
            let sent = (port * CLIENTS + client).to_be_bytes();
            socket.send(&sent).unwrap();
            let mut answer = [0; 8];
            let length = socket.recv(&mut answer).unwrap_or_else(|error| panic!("{source}, port {port}: {error}"));
            assert_eq!(answer[..length], sent);
        }
    }
}

/// A gateway of two workers with an echo on each of its real servers.
fn echo_lab(reals: u8, scheduler: &str, more: &str, turned: bool) -> (Lab, Vec<UdpEcho>, Gateway) {
    let lab = Lab::two_arm(reals.into(), 2);
    let servers = (0..reals).map(|n| UdpEcho::start(&lab.reals[usize::from(n)], real(n, 53))).collect();
    let mut members: Vec<_> = (0..reals).map(|n| (real(n, 53), u32::from(n) + 1)).collect();
    if turned {
        members.reverse();
    }
    let configuration = Configuration { cores: "[0, 1]".into(), ..Configuration::two_arm() };
    let mut configuration = configuration.with_service("udp", vip(53), scheduler, &members);
    configuration.balance += more;
    let gateway = Gateway::start(&lab, &configuration);
    (lab, servers, gateway)
}

#[test]
fn ten_thousand_connections_over_two_workers_split_evenly() {
    let (lab, _servers, gateway) = echo_lab(2, "rr", "", false);
    lab.client.enter(|| echoes(500));
    let stats = gateway.stats();
    let shares: Vec<_> = stats.services[0].real_servers.iter().map(|each| each.traffic.connections).collect();
    assert_eq!(shares.iter().sum::<u64>(), 10_000);
    assert!(shares.iter().all(|&share| (4_998..=5_002).contains(&share)), "{shares:?}");
    let owned: Vec<_> = stats.workers.iter().map(|worker| worker.sessions_created).collect();
    assert!(owned.iter().all(|&owned| owned > 3_000), "both workers have their part: {owned:?}");
    let counts: u64 = stats.services[0].real_servers.iter().map(|each| each.inactive_connections).sum();
    assert_eq!(counts, 10_000, "UDP is never active");
}

/// Which real server each client address got: one, over all its ports and both workers.
fn chosen(lab: &Lab, gateway: &Gateway) -> BTreeMap<IpAddr, SocketAddr> {
    lab.client.enter(|| echoes(10));
    let mut chosen = BTreeMap::new();
    let sessions = gateway.sessions();
    assert_eq!(sessions.len(), usize::from(CLIENTS) * 10);
    for session in &sessions {
        let server = *chosen.entry(session.client.ip()).or_insert(session.real_server);
        assert_eq!(server, session.real_server, "{}", session.client);
    }
    assert_eq!(sessions.iter().map(|session| session.worker).collect::<BTreeSet<_>>().len(), 2, "both workers");
    chosen
}

#[test]
fn a_client_sticks_with_source_hashing() {
    let (lab, _servers, gateway) = echo_lab(3, "sh", "", false);
    let chosen = chosen(&lab, &gateway);
    assert_eq!(chosen.values().collect::<BTreeSet<_>>().len(), 3, "{chosen:?}");
    gateway.command("service edit -u 10.0.0.100:53 -b sh-port,sh-fallback");
    assert!(gateway.command("service list").contains("10.0.0.100:53 sh lan (sh-fallback,sh-port)"));
}

#[test]
fn two_gateways_choose_alike_with_maglev_hashing() {
    let more = "[ipvs]\nhash_secret = \"8f14e45fceea167a5a36dedd4bea2543\"\n";
    let [one, another] = [false, true].map(|turned| {
        let (lab, _servers, gateway) = echo_lab(3, "mh", more, turned);
        chosen(&lab, &gateway)
    });
    assert_eq!(one, another);
    assert_eq!(one.values().collect::<BTreeSet<_>>().len(), 3, "{one:?}");
}

/// A web server that takes requests and does not answer.
struct Slow {
    accepted: Arc<AtomicUsize>,
}

impl Slow {
    fn start(namespace: &Namespace, address: SocketAddrV4) -> Self {
        let listener = namespace.enter(|| TcpListener::bind(address)).unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        // It ends with the process, as do the connections that it holds.
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                held.push(stream);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { accepted }
    }
}

/// Whether a request was answered; if not, it is the slow one that has it.
fn is_answered(stream: &mut TcpStream, slow: &Slow, before: usize) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    wait_for("an answer, or the slow real server to have the request", PATIENCE, || match stream.read(&mut [0; 1024]) {
        Ok(length) => Some(length > 0),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            (slow.accepted.load(Ordering::Relaxed) > before).then_some(false)
        }
        Err(error) => panic!("{error}"),
    })
}

#[test]
fn weighted_least_connections_spares_the_slow_real_server() {
    let lab = Lab::two_arm(2, 2);
    let _nginx = Nginx::start(&lab.reals[0], lab.path(), "rs0", real(0, 80));
    let slow = Slow::start(&lab.reals[1], real(1, 80));
    let configuration = Configuration { cores: "[0, 1]".into(), ..Configuration::two_arm() };
    let members = [(real(0, 80), 1), (real(1, 80), 1)];
    let gateway = Gateway::start(&lab, &configuration.with_service("tcp", vip(80), "wlc", &members));
    let mut open = Vec::new();
    lab.client.enter(|| {
        for _request in 0..60 {
            let before = slow.accepted.load(Ordering::Relaxed);
            let mut stream = connect(vip(80)).unwrap();
            ask(&mut stream, "/").unwrap();
            if is_answered(&mut stream, &slow, before) {
                drop(stream);
            } else {
                open.push(stream);
            }
        }
    });
    let accepted = slow.accepted.load(Ordering::Relaxed);
    assert!((1..=3).contains(&accepted), "of 60 the slow one has {accepted}");
    let reals = &gateway.stats().services[0].real_servers;
    assert_eq!(reals[1].active_connections, accepted as u64);
    assert!(reals[0].traffic.connections >= 57);
}

#[test]
fn an_upper_threshold_is_kept_and_taken_back_below_the_lower_one() {
    let lab = Lab::two_arm(2, 2);
    let _servers: Vec<_> =
        (0..2).map(|n| Nginx::start(&lab.reals[usize::from(n)], lab.path(), &format!("rs{n}"), real(n, 80))).collect();
    let configuration = Configuration { cores: "[0, 1]".into(), ..Configuration::two_arm() };
    let members = [(real(0, 80), 1), (real(1, 80), 1)];
    // What a closed connection leaves behind counts, too, while it lasts.
    let configuration = Configuration { timeouts: "tcp_time_wait = 1\ntcp_close = 1".into(), ..configuration };
    let gateway = Gateway::start(&lab, &configuration.with_service("tcp", vip(80), "rr", &members));
    gateway.command("real edit -t 10.0.0.100:80 -r 10.1.0.11:80 -x 6 -y 3");
    let mut open: Vec<TcpStream> = lab.client.enter(|| (0..30).map(|_| connect(vip(80)).unwrap()).collect());
    let active = || {
        let stats = gateway.stats();
        stats.services[0].real_servers.iter().map(|each| each.active_connections).collect::<Vec<_>>()
    };
    assert_eq!(active(), [6, 24]);
    let sessions = gateway.sessions();
    let mut of_first = sessions.iter().filter(|session| session.real_server == real(0, 80).into());
    let mut close = |count: usize| {
        for session in of_first.by_ref().take(count) {
            let at = open.iter().position(|stream| stream.local_addr().unwrap() == session.client).unwrap();
            let mut stream = open.swap_remove(at);
            // nginx closes, too.
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        }
    };
    let connections = || {
        let each = &gateway.stats().services[0].real_servers[0];
        each.active_connections + each.inactive_connections
    };
    close(3);
    wait_for("three connections to be over", PATIENCE, || (connections() == 3).then_some(()));
    let (names, _) = get_many(&lab.client, vip(80), 6);
    assert_eq!(names, BTreeMap::from([("rs1".into(), 6)]), "three are not fewer than three");
    close(1);
    wait_for("another one to be over", PATIENCE, || (connections() == 2).then_some(()));
    let (names, _) = get_many(&lab.client, vip(80), 2);
    assert!(names.contains_key("rs0"), "two are: {names:?}");
}
