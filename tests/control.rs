//! The control plane over a real socket, with threads in memory that play the workers.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fullgate::balance::{
    Persistence, Protocol, RealServerSlot, Sysctls, TemplateKey, TemplateTarget, Templates, Timeouts,
};
use fullgate::config::{BalanceConfig, BalanceScope};
use fullgate::control::persistence::{StateStore, restore};
use fullgate::control::protocol::{ErrorKind, MAX_LINE, Outcome, PortRow, Refusal, Reply, Request, ServiceRow};
use fullgate::control::settings::Settings;
use fullgate::control::socket::ControlSocket;
use fullgate::control::{ControlPlane, LocalAddressHost, Parts, PortReporter, line, server};
use fullgate::flow::HashSeed;
use fullgate::port::memory::MemoryFrame;
use fullgate::port::{PortId, WorkerId};
use fullgate::route::RouteTable;
use fullgate::session::{Capacity, SessionView, Tick};
use fullgate::telemetry::counters::{SlotLimits, WorkerCounters};
use fullgate::telemetry::http;
use fullgate::worker::link::{Event, Snapshot, Waker, WorkerLink};
use serde_json::{Value, json};

const LIMITS: SlotLimits = SlotLimits { real_servers: 64, local_addresses: 64 };
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct NoEvent;

impl Event for NoEvent {
    fn raise(&self) {}
}

type Link = Arc<WorkerLink<MemoryFrame, NoEvent>>;

/// Shows no more than one port.
struct OnePort;

impl PortReporter for OnePort {
    fn rows(&self) -> Vec<PortRow> {
        let row = json!({
            "name": "wan", "device": "net_null0", "driver": "net_null", "tap": "fg-wan", "mac": "02:00:00:00:00:01",
            "mtu": 1500, "link_up": true, "link_speed_mbps": 0, "rx_queues": 1, "tx_queues": 1, "steering": "single",
            "ownership": "single", "ownership_reason": null, "offloads": [], "rx_packets": 11, "rx_bytes": 22, "tx_packets": 33, "tx_bytes": 44, "rx_missed": 5,
            "rx_errors": 6, "tx_errors": 7, "handovers": 8, "xstats": [],
        });
        vec![serde_json::from_value(row).unwrap()]
    }
}

/// Remembers which addresses are on which port; refuses one.
#[derive(Clone, Default)]
struct Addresses(Arc<Mutex<HashSet<(PortId, IpAddr)>>>);

/// The address of port lan itself.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

const REFUSED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 250));

impl LocalAddressHost for Addresses {
    async fn add(&self, port: PortId, address: IpAddr) -> Result<(), String> {
        if address == REFUSED {
            return Err("no room on the TAP".to_owned());
        }
        self.0.lock().unwrap().insert((port, address));
        Ok(())
    }

    async fn remove(&self, port: PortId, address: IpAddr) -> Result<(), String> {
        self.0.lock().unwrap().remove(&(port, address));
        Ok(())
    }
}

/// A worker that adopts what is published and answers walks over the sessions that the test gives it.
struct Worker {
    link: Link,
    sessions: Arc<Mutex<Vec<SessionView>>>,
    current: Arc<Mutex<Arc<Snapshot>>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(link: Link, first: Arc<Snapshot>) -> Self {
        let (sessions, current) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(first)));
        let (own_link, own_sessions, own_current) = (link.clone(), sessions.clone(), current.clone());
        let thread = thread::spawn(move || {
            while !own_link.stop.load(Ordering::Relaxed) {
                step(&own_link, &own_sessions, &own_current);
                thread::sleep(Duration::from_micros(200));
            }
        });
        Self { link, sessions, current, thread: Some(thread) }
    }

    fn counters(&self) -> &WorkerCounters {
        &self.link.counters
    }
}

fn step(link: &Link, sessions: &Mutex<Vec<SessionView>>, current: &Mutex<Arc<Snapshot>>) {
    if let Some(next) = link.snapshots.pop() {
        let old = std::mem::replace(&mut *current.lock().unwrap(), next);
        link.retired.push(old).unwrap();
    }
    if let Some(mut query) = link.queries.pop() {
        let sessions = sessions.lock().unwrap();
        let rest = &sessions[usize::try_from(query.next).unwrap()..];
        let part = &rest[..rest.len().min(query.found.capacity()).min(1000)];
        query.found.extend_from_slice(part);
        query.next += part.len() as u64;
        query.done = part.len() == rest.len();
        link.answers.push(query).unwrap();
    }
}

/// A gateway without ports.
struct Gateway {
    directory: PathBuf,
    workers: Vec<Worker>,
    addresses: Addresses,
    metrics: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

fn file_balance() -> BalanceConfig {
    serde_json::from_value(json!({
        "local_pool": [{"name": "lan", "port": "lan", "addresses": ["10.1.0.200", "10.1.0.201"], "ports": "1024-65535"}],
        "service": [{
            "vip": "10.0.0.100:80", "protocol": "tcp", "scheduler": "wrr", "mode": "fullnat", "local_pool": "lan",
            "real_server": [{"address": "10.1.0.11:80", "weight": 1}, {"address": "10.1.0.12:80", "weight": 2}],
        }],
    }))
    .unwrap()
}

impl Gateway {
    fn start(directory: &Path) -> Self {
        Self::try_start(directory, file_balance(), false).unwrap()
    }

    fn try_start(directory: &Path, file: BalanceConfig, discard: bool) -> Result<Self, String> {
        let store = StateStore::open(&directory.join("state")).map_err(|error| error.to_string())?;
        let balance = restore(&store, file, discard).map_err(|error| error.to_string())?;
        let kept = store.settings().map_err(|error| error.to_string())?;
        let socket = ControlSocket::bind(&directory.join("control.sock"), None).map_err(|error| error.to_string())?;
        let waker = Arc::new(Waker::new(NoEvent));
        let link =
            |worker| Arc::new(WorkerLink::new(WorkerId(worker), Arc::new(WorkerCounters::new(LIMITS)), waker.clone()));
        let links: Vec<Link> = (0..2).map(link).collect();
        let addresses = Addresses::default();
        let (own_links, host) = (links.clone(), addresses.clone());
        let (ready, is_ready) = mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (_routes_sender, routes) = tokio::sync::watch::channel(Arc::new(RouteTable::default()));
                let parts = Parts {
                    links: own_links,
                    other_counters: Vec::new(),
                    cores: vec![2, 3],
                    session_capacity: Capacity { ipv4: 1000, ipv6: 1000 },
                    scope: BalanceScope {
                        ports: vec!["wan".to_owned(), "lan".to_owned()],
                        own_addresses: vec![OWN.into()],
                        workers: 2,
                    },
                    settings: Settings::new(Timeouts::default(), Sysctls::default(), kept),
                    scheduling: fullgate::balance::SchedulerSettings::default(),
                    templates: Arc::new(Templates::new(1000, 64, HashSeed([1, 2]))),
                    balance,
                    store: Some(store),
                    routes,
                    ports: OnePort,
                    host,
                    dpdk_version: "DPDK 0".to_owned(),
                };
                let plane = ControlPlane::new(parts).unwrap();
                plane.put_local_addresses().await.unwrap();
                let listener = http::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
                let handle = plane.handle();
                ready.send((plane.first_snapshot(), listener.local_addr().unwrap())).unwrap();
                tokio::select! {
                    () = plane.run(async { drop(stopped.await) }) => {}
                    result = server::serve(&socket, handle.clone()) => panic!("{result:?}"),
                    result = http::serve(listener, handle) => panic!("{result:?}"),
                }
            });
        });
        let (first, metrics) = is_ready.recv().unwrap();
        let workers = links.into_iter().map(|link| Worker::start(link, first.clone())).collect();
        Ok(Self {
            directory: directory.to_owned(),
            workers,
            addresses,
            metrics,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    fn client(&self) -> Client {
        Client::connect(&self.directory)
    }

    /// Waits until every worker uses a table for which this holds.
    fn wait_for_tables(&self, what: &str, holds: impl Fn(&Snapshot) -> bool) {
        wait_until(what, || self.workers.iter().all(|worker| holds(&worker.current.lock().unwrap())));
    }

    fn slot(&self, address: &str) -> Option<RealServerSlot> {
        let table = self.workers[0].current.lock().unwrap().services.clone();
        let mut all = table.services.iter().flat_map(|service| &service.real_servers);
        all.find(|real_server| real_server.address.to_string() == address).map(|real_server| real_server.slot)
    }

    fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        for worker in &mut self.workers {
            worker.link.stop.store(true, Ordering::Relaxed);
            if let Some(thread) = worker.thread.take() {
                thread.join().unwrap();
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.end();
        }
    }
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

struct Client {
    writer: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Client {
    fn connect(directory: &Path) -> Self {
        let writer = UnixStream::connect(directory.join("control.sock")).unwrap();
        writer.set_read_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::new(writer.try_clone().unwrap());
        Self { writer, reader }
    }

    fn line(&mut self, line: &str) -> Outcome {
        self.writer.write_all(line.as_bytes()).unwrap();
        self.writer.write_all(b"\n").unwrap();
        self.reply()
    }

    fn reply(&mut self) -> Outcome {
        let mut text = String::new();
        self.reader.read_line(&mut text).unwrap();
        line::parse_reply(text.as_bytes()).unwrap()
    }

    fn ask(&mut self, request: Value) -> Outcome {
        let request: Request = serde_json::from_value(request).unwrap();
        self.line(&line::request_line(&request).unwrap())
    }

    fn refusal(&mut self, request: Value) -> Refusal {
        match self.ask(request) {
            Outcome::Error(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn changed(&mut self, request: Value) -> Vec<String> {
        match self.ask(request) {
            Outcome::Ok(Reply::Changed(lines)) => lines,
            other => panic!("nothing changed: {other:?}"),
        }
    }

    fn services(&mut self) -> Vec<ServiceRow> {
        match self.ask(json!({"command": "service.list"})) {
            Outcome::Ok(Reply::Services(rows)) => rows,
            other => panic!("no services: {other:?}"),
        }
    }
}

fn service() -> Value {
    json!({"vip": "10.0.0.100:80", "protocol": "tcp"})
}

fn real_add(address: &str) -> Value {
    json!({"command": "real.add", "service": service(), "real_server": {"address": address, "weight": 1}})
}

fn real_del(address: &str) -> Value {
    json!({"command": "real.del", "service": service(), "address": address})
}

#[test]
fn what_is_added_edited_and_deleted_is_told_listed_and_published() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path());
    let mut client = gateway.client();
    let new = json!({
        "vip": "10.0.0.101:53", "protocol": "udp", "scheduler": "wlc", "mode": "fullnat", "local_pool": "lan",
        "real_server": [{"address": "10.1.0.13:53", "weight": 4}],
    });
    assert_eq!(
        client.changed(json!({"command": "service.add", "service": new})),
        [
            "service udp 10.0.0.101:53: added, scheduler wlc, mode fullnat, local pool lan",
            "service udp 10.0.0.101:53: real server 10.1.0.13:53 added, weight 4",
        ]
    );
    gateway.wait_for_tables("two services", |table| table.services.services.len() == 2);
    assert_eq!(client.refusal(json!({"command": "service.add", "service": new})).kind, ErrorKind::Exists);

    client.changed(real_add("10.1.0.14:80"));
    let edit = json!({"command": "real.edit", "service": service(), "address": "10.1.0.11:80", "set": {"weight": 0}});
    assert_eq!(client.changed(edit.clone()), ["service tcp 10.0.0.100:80: real server 10.1.0.11:80: weight 1 -> 0"]);
    assert_eq!(client.changed(edit), ["no difference"]);
    client.changed(json!({"command": "service.edit", "service": service(), "scheduler": "rr"}));
    gateway.wait_for_tables("newest first, drained one last", |table| {
        let real_servers = &table.services.services[0].real_servers;
        let addresses: Vec<String> = real_servers.iter().map(|real| real.address.to_string()).collect();
        addresses == ["10.1.0.14", "10.1.0.12", "10.1.0.11"] && real_servers[2].weight.0 == 0
    });

    client.changed(real_del("10.1.0.12:80"));
    let refusal = client.refusal(real_del("10.1.0.12:80"));
    assert_eq!(refusal.kind, ErrorKind::NotFound);
    assert!(refusal.message.contains("it has 10.1.0.11:80, 10.1.0.14:80"), "{refusal}");
    client.changed(json!({"command": "service.del", "service": {"vip": "10.0.0.101:53", "protocol": "udp"}}));
    let rows = client.services();
    assert_eq!((rows.len(), rows[0].real_servers.len(), rows[0].scheduler.name()), (1, 2, "rr"));
    let missing =
        client.refusal(json!({"command": "service.list", "service": {"vip": "10.0.0.100:81", "protocol": "tcp"}}));
    assert!(missing.message.contains("tcp 10.0.0.100:80"), "{missing}");
}

#[test]
fn status_workers_ports_and_stats_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path());
    let mut client = gateway.client();
    gateway.workers[0].counters().sessions.set(3);
    gateway.workers[1].counters().sessions.set(4);
    gateway.workers[1].counters().ports[1].received.packets.add(9);
    let Outcome::Ok(Reply::Status(status)) = client.ask(json!({"command": "status"})) else { panic!() };
    assert_eq!(
        (status.pid, status.workers, status.sessions, status.session_capacity),
        (std::process::id(), 2, 7, 4000)
    );
    let Outcome::Ok(Reply::Workers(workers)) = client.ask(json!({"command": "worker.show"})) else { panic!() };
    assert_eq!((workers[1].core, workers[1].sessions, workers[1].rx_packets), (3, 4, 9));
    let Outcome::Ok(Reply::Ports(ports)) = client.ask(json!({"command": "port.show"})) else { panic!() };
    assert_eq!(ports[0].driver, "net_null");
    let Outcome::Ok(Reply::Stats(stats)) = client.ask(json!({"command": "stats"})) else { panic!() };
    assert_eq!((stats.services.len(), stats.workers.len(), stats.ports.len()), (1, 2, 1));
    assert!(stats.at_nanoseconds > 0 && stats.drops.contains(&("no_route".to_owned(), 0)));
}

#[test]
fn nonsense_is_answered_and_the_connection_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path());
    let mut client = gateway.client();
    for (line, kind, words) in [
        ("", ErrorKind::Invalid, "no JSON object"),
        ("{", ErrorKind::Invalid, "no JSON object"),
        ("\u{0}\u{1}\u{2}", ErrorKind::Invalid, "no JSON object"),
        (r#"{"version":1,"command":"servis.list"}"#, ErrorKind::Invalid, "did you mean `service.list`"),
        (r#"{"version":7,"command":"status"}"#, ErrorKind::Version, "version 7"),
        (r#"{"version":1,"command":"status","wieght":1}"#, ErrorKind::Invalid, "wieght"),
    ] {
        let Outcome::Error(refusal) = client.line(line) else { panic!("{line:?}") };
        assert_eq!((refusal.kind, refusal.message.contains(words)), (kind, true), "{refusal}");
    }
    client.writer.write_all(&[0xff, 0xfe, b'\n']).unwrap();
    assert!(matches!(client.reply(), Outcome::Error(Refusal { kind: ErrorKind::Invalid, .. })));
    let status = format!("{}\n", line::request_line(&Request::Status {}).unwrap());
    client.writer.write_all(format!("{status}nonsense\n{status}").as_bytes()).unwrap();
    assert!(matches!(client.reply(), Outcome::Ok(Reply::Status(_))));
    assert!(matches!(client.reply(), Outcome::Error(_)));
    assert!(matches!(client.reply(), Outcome::Ok(Reply::Status(_))));
}

#[test]
fn an_endless_line_is_refused_and_the_connection_ended() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path());
    let mut client = gateway.client();
    let mut writer = client.writer.try_clone().unwrap();
    let sender = thread::spawn(move || {
        let part = vec![b'x'; 1 << 20];
        (0..MAX_LINE / part.len() + 2).try_for_each(|_| writer.write_all(&part)).is_err()
    });
    let Outcome::Error(refusal) = client.reply() else { panic!() };
    assert!(refusal.message.contains(&MAX_LINE.to_string()), "{refusal}");
    // Its writer may or may not have got everything into the socket; the end has come in any case.
    let _ = sender.join().unwrap();
    assert!(matches!(client.reader.read(&mut [0]), Ok(0) | Err(_)));
    assert_eq!(gateway.client().services().len(), 1);
}

#[test]
fn slow_silent_and_too_many_clients_disturb_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path());
    let mut slow = gateway.client();
    slow.writer.write_all(b"{\"version\":1,\"comm").unwrap();
    // One that asks on and on and never reads.
    let mut deaf = gateway.client();
    deaf.writer.set_nonblocking(true).unwrap();
    let line = format!("{}\n", line::request_line(&Request::Stats {}).unwrap());
    while deaf.writer.write_all(line.as_bytes()).is_ok() {}
    let mut silent: Vec<Client> = (0..200).map(|_| gateway.client()).collect();
    let mut client = gateway.client();
    let started = Instant::now();
    assert_eq!(client.services().len(), 1);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    slow.writer.write_all(b"and\":\"status\"}\n").unwrap();
    assert!(matches!(slow.reply(), Outcome::Ok(Reply::Status(_))));
    let refused = (0..100).find_map(|_| {
        let mut client = gateway.client();
        let mut text = String::new();
        client.writer.write_all(b"{}\n").ok()?;
        client.reader.read_line(&mut text).unwrap();
        silent.push(client);
        text.contains("control connections are open").then_some(text)
    });
    assert!(refused.is_some());
    drop(silent);
    wait_until("room again", || {
        let mut client = gateway.client();
        let mut text = String::new();
        client.writer.write_all(line.as_bytes()).is_ok()
            && client.reader.read_line(&mut text).is_ok()
            && text.contains("\"stats\"")
    });
}

#[test]
fn apply_does_the_difference_as_a_whole_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path());
    let mut client = gateway.client();
    let before = gateway.slot("10.1.0.12").unwrap();
    let mut wanted = serde_json::to_value(file_balance()).unwrap();
    assert_eq!(client.changed(json!({"command": "apply", "balance": wanted})), ["no difference"]);
    wanted["service"][0]["real_server"][0]["weight"] = json!(9);
    wanted["service"].as_array_mut().unwrap().push(json!({
        "vip": "10.0.0.102:80", "protocol": "tcp", "scheduler": "lc", "mode": "fullnat", "local_pool": "nowhere",
    }));
    let refusal = client.refusal(json!({"command": "apply", "balance": wanted}));
    assert_eq!(refusal.kind, ErrorKind::Invalid);
    let no_pool = "service tcp 10.0.0.102:80: local_pool: there is no local pool \"nowhere\"; allowed: lan";
    assert_eq!(refusal.message, no_pool);
    assert_eq!(client.services()[0].real_servers[0].weight.0, 1, "nothing was changed");

    wanted["local_pool"][0]["addresses"].as_array_mut().unwrap().push(json!(OWN));
    let refusal = client.refusal(json!({"command": "apply", "balance": wanted, "dry_run": true}));
    let own = "local pool \"lan\": 10.1.0.1 is a port's own address; \
               allowed: addresses that the gateway uses for nothing else";
    assert_eq!(refusal.message, format!("{own}\n{no_pool}"), "everything at once");

    wanted["local_pool"] = serde_json::to_value(file_balance().local_pools).unwrap();
    wanted["service"][1].as_object_mut().unwrap().remove("local_pool");
    let expected = [
        "service tcp 10.0.0.100:80: real server 10.1.0.11:80: weight 1 -> 9",
        "service tcp 10.0.0.102:80: added, scheduler lc, mode fullnat, local pool lan",
    ];
    assert_eq!(client.changed(json!({"command": "apply", "balance": wanted, "dry_run": true})), expected);
    assert_eq!(client.services().len(), 1);
    assert_eq!(client.changed(json!({"command": "apply", "balance": wanted})), expected);
    gateway.wait_for_tables("the new service", |table| table.services.services.len() == 2);
    assert_eq!(gateway.slot("10.1.0.12"), Some(before));
}

#[test]
fn snat_rules_are_added_listed_ordered_counted_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path());
    let mut client = gateway.client();
    let rule = |name: &str, source: &str| json!({"name": name, "source": source, "local_pool": "lan"});
    let add = |rule: Value| json!({"command": "snat.add", "rule": rule});
    assert_eq!(
        client.changed(add(rule("office", "10.2.0.0/16"))),
        ["snat office: added, 10.2.0.0/16 -> any, local pool lan"]
    );
    let web = json!({
        "name": "web", "source": "10.2.0.0/16", "destination": "192.0.2.0/24", "protocol": "tcp",
        "destination_port": "80-81", "port": "wan", "local_pool": "lan",
    });
    assert_eq!(
        client.changed(json!({"command": "snat.add", "rule": web, "before": "office"})),
        ["snat web: added, 10.2.0.0/16 -> 192.0.2.0/24, tcp, destination port 80-81, port wan, local pool lan, \
          before office"]
    );
    let refused = |client: &mut Client, request: Value| {
        let refusal = client.refusal(request);
        (refusal.kind, refusal.message)
    };
    let twice = refused(&mut client, add(rule("web", "10.3.0.0/16")));
    let text = "snat \"web\": name: \"web\" is the name of another rule; allowed: each name once";
    assert_eq!(twice, (ErrorKind::Exists, text.to_owned()));
    let mut wrong = rule("v6", "2001:db8::/64");
    (wrong["destination"], wrong["port"], wrong["local_pool"]) = (json!("10.0.0.0/8"), json!("dmz"), json!("dmz"));
    let (kind, text) = refused(&mut client, add(wrong));
    assert_eq!(
        (kind, text.lines().collect::<Vec<_>>()),
        (
            ErrorKind::Invalid,
            vec![
                "snat \"v6\": destination: 10.0.0.0/8 is of another family than the source; \
                 allowed: a network of the family of 2001:db8::/64",
                "snat \"v6\": port: there is no port \"dmz\"; allowed: wan, lan",
                "snat \"v6\": local_pool: there is no local pool \"dmz\"; allowed: lan",
            ]
        )
    );
    let (kind, text) = refused(&mut client, json!({"command": "snat.del", "name": "dmz"}));
    assert_eq!((kind, text.as_str()), (ErrorKind::NotFound, "there is no snat rule \"dmz\"; there are: web, office"));

    gateway.wait_for_tables("both rules", |snapshot| snapshot.services.snat.len() == 2);
    let slots: Vec<_> = {
        let table = gateway.workers[0].current.lock().unwrap();
        assert!(table.services.snat.iter().all(|rule| table.services.is_present(rule.slot)));
        table.services.snat.iter().map(|rule| rule.slot).collect()
    };
    gateway.workers[0].counters().real_servers[slots[0].0 as usize].inbound.packets.add(3);
    gateway.workers[1].counters().real_servers[slots[0].0 as usize].active.add(1);
    let rows = |client: &mut Client| match client.ask(json!({"command": "snat.list"})) {
        Outcome::Ok(Reply::Snat(rows)) => rows,
        other => panic!("{other:?}"),
    };
    let row = &rows(&mut client)[0];
    assert_eq!((row.name.as_str(), row.active_connections, row.traffic.in_packets), ("web", 1, 3));
    let text = scrape(gateway.metrics, "/metrics");
    assert!(text.contains("fullgate_snat_packets_total{rule=\"web\",direction=\"in\"} 3\n"), "{text}");
    check_exposition(text.split_once("\r\n\r\n").unwrap().1);

    // A removed rule's slot is not another's while a session has it, and comes back with the name.
    assert_eq!(client.changed(json!({"command": "snat.del", "name": "web"})), ["snat web: removed"]);
    gateway.wait_for_tables("the rule's end", |snapshot| !snapshot.services.is_present(slots[0]));
    client.changed(add(rule("dns", "10.4.0.0/16")));
    client.changed(add(rule("web", "10.5.0.0/16")));
    gateway.wait_for_tables("the rule's return", |snapshot| {
        let slot = |index: usize| snapshot.services.snat.get(index).map(|rule| rule.slot);
        slot(2) == Some(slots[0]) && slot(1) != Some(slots[0]) && snapshot.services.is_present(slots[0])
    });
    assert_eq!(rows(&mut client)[2].traffic.in_packets, 0);

    let mut wanted = serde_json::to_value(file_balance()).unwrap();
    wanted["snat"] = json!([rule("web", "10.6.0.0/16"), rule("new", "10.7.0.0/16"), rule("office", "10.2.0.0/16")]);
    let apply = |balance: &Value| json!({"command": "apply", "balance": balance});
    assert_eq!(
        client.changed(apply(&wanted)),
        [
            "snat dns: removed",
            "snat web: source 10.5.0.0/16 -> 10.6.0.0/16",
            "snat new: added, 10.7.0.0/16 -> any, local pool lan",
            "snat: order web, new, office",
        ]
    );
    assert_eq!(client.changed(apply(&wanted)), ["no difference"]);
    let names: Vec<_> = rows(&mut client).into_iter().map(|row| row.name).collect();
    assert_eq!(names, ["web", "new", "office"]);
    drop(client);
    gateway.stop();
    let gateway = Gateway::start(directory.path());
    assert_eq!(rows(&mut gateway.client()).len(), 3, "kept over a restart");
}

#[test]
fn mark_rules_are_added_listed_ordered_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path());
    let mut client = gateway.client();
    let rule = |name: &str, mark: u32| json!({"name": name, "fwmark": mark, "destination": "10.0.0.100/32"});
    let add = |rule: Value| json!({"command": "mark.add", "rule": rule});
    assert_eq!(client.changed(add(rule("all", 1))), ["mark all: added, fwmark 1, any -> 10.0.0.100/32"]);
    let web = json!({
        "name": "web", "fwmark": 2, "source": "10.0.0.0/24", "protocol": "tcp", "destination_port": "80", "port": "wan",
    });
    assert_eq!(
        client.changed(json!({"command": "mark.add", "rule": web, "before": "all"})),
        ["mark web: added, fwmark 2, 10.0.0.0/24 -> any, tcp, destination port 80, port wan, before all"]
    );
    for (request, kind, text) in [
        (
            add(rule("web", 3)),
            ErrorKind::Exists,
            "mark \"web\": name: \"web\" is the name of another rule; allowed: each name once",
        ),
        (
            add(json!({"name": "x", "fwmark": 1})),
            ErrorKind::Invalid,
            "mark \"x\": destination: missing, and so is port: what real servers answer would be marked, too; \
             allowed: a destination, a port to enter by, or both",
        ),
        (
            json!({"command": "mark.del", "name": "dmz"}),
            ErrorKind::NotFound,
            "there is no mark rule \"dmz\"; there are: web, all",
        ),
    ] {
        let refusal = client.refusal(request);
        assert_eq!((refusal.kind, refusal.message.as_str()), (kind, text));
    }
    let service = json!({
        "vip": "fwmark:1", "protocol": "any", "scheduler": "rr", "mode": "dr",
        "real_server": [{"address": "10.1.0.77:80", "weight": 1}],
    });
    client.changed(json!({"command": "service.add", "service": service}));
    let protocol = client.refusal(json!({"command": "service.add", "service":
        {"vip": "fwmark:2", "protocol": "tcp", "scheduler": "rr", "mode": "dr"}}));
    assert_eq!(
        protocol.message,
        "service fwmark:2: protocol: fwmark:2 is for every protocol; allowed: any; [[mark]] says which protocol gets the mark"
    );
    gateway.wait_for_tables("the mark", |snapshot| {
        let table = &snapshot.services;
        !table.marks.is_empty() && !table.virtual_addresses.contains(&IpAddr::from([0; 4]))
    });
    let text = scrape(gateway.metrics, "/metrics");
    assert!(text.contains("fullgate_service_connections_total{service=\"fwmark:1\",protocol=\"any\"} 0\n"), "{text}");

    let mut wanted = serde_json::to_value(file_balance()).unwrap();
    wanted["mark"] = json!([rule("new", 9), rule("all", 3)]);
    let apply = |balance: &Value| json!({"command": "apply", "balance": balance});
    let expected = [
        "service fwmark:1: removed with its real servers (1)",
        "mark web: removed",
        "mark new: added, fwmark 9, any -> 10.0.0.100/32",
        "mark all: fwmark 1 -> 3",
        "mark: order new, all",
    ];
    assert_eq!(client.changed(apply(&wanted)), expected);
    assert_eq!(client.changed(apply(&wanted)), ["no difference"]);
    drop(client);
    gateway.stop();
    let gateway = Gateway::start(directory.path());
    let Outcome::Ok(Reply::Marks(rules)) = gateway.client().ask(json!({"command": "mark.list"})) else { panic!() };
    let names: Vec<_> = rules.iter().map(|rule| (rule.name.as_str(), rule.fwmark.number())).collect();
    assert_eq!(names, [("new", 9), ("all", 3)], "kept over a restart");
}

#[test]
fn local_addresses_are_on_their_port_while_anything_uses_them() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path());
    let mut client = gateway.client();
    let on_port = |address: &str| gateway.addresses.0.lock().unwrap().contains(&(PortId(1), address.parse().unwrap()));
    assert!(on_port("10.1.0.200") && on_port("10.1.0.201"));
    let local = |command: &str, addresses: &[&str]| json!({"command": command, "pool": "lan", "addresses": addresses});

    let refusal = client.refusal(local("local.add", &["10.1.0.202", "10.1.0.250"]));
    assert!(refusal.message.contains("10.1.0.250 on port lan: no room on the TAP"), "{refusal}");
    assert!(!on_port("10.1.0.202"), "what was put there before the failure is taken off");
    for (address, kind) in [
        ("10.0.0.100", ErrorKind::Conflict),
        ("10.1.0.11", ErrorKind::Conflict),
        ("10.1.0.200", ErrorKind::Exists),
        ("224.0.0.1", ErrorKind::Invalid),
        ("10.1.0.1", ErrorKind::Conflict),
    ] {
        assert_eq!(client.refusal(local("local.add", &[address])).kind, kind, "{address}");
    }
    let lacks = |client: &mut Client| client.services()[0].lacks_local_address;
    client.changed(local("local.del", &["10.1.0.200", "10.1.0.201"]));
    assert!(lacks(&mut client), "a pool may lose all of them");
    client.changed(local("local.add", &["10.1.0.201", "10.1.0.200"]));
    assert!(!lacks(&mut client) && on_port("10.1.0.200"));

    client.changed(local("local.add", &["10.1.0.203"]));
    assert!(on_port("10.1.0.203"));
    let used = "10.1.0.200".parse().unwrap();
    let slot = gateway.workers[0].current.lock().unwrap().services.local_addresses[&used].0 as usize;
    gateway.workers[1].counters().local_addresses[slot].ports_used.set(2);
    client.changed(local("local.del", &["10.1.0.200"]));
    client.changed(local("local.del", &["10.1.0.203"]));
    wait_until("the unused address is gone", || !on_port("10.1.0.203"));
    assert!(on_port("10.1.0.200"));
    let Outcome::Ok(Reply::LocalPools(pools)) = client.ask(json!({"command": "local.list"})) else { panic!() };
    let withdrawn = &pools[0].addresses[1];
    assert_eq!((withdrawn.address, withdrawn.ports_used, withdrawn.withdrawn), (used, 2, true));
    let refusal = client.refusal(
        json!({"command": "real.add", "service": service(), "real_server": {"address": "10.1.0.200:80", "weight": 1}}),
    );
    assert!(refusal.message.contains("sessions still use it"), "{refusal}");
    gateway.workers[1].counters().local_addresses[slot].ports_used.set(0);
    wait_until("the used address is gone", || !on_port("10.1.0.200"));
    gateway.wait_for_tables("no worker knows it", |table| !table.services.local_addresses.contains_key(&used));
}

#[test]
fn a_service_that_names_no_pool_gets_the_only_one_also_from_the_state() {
    let directory = tempfile::tempdir().unwrap();
    let unnamed = json!({"vip": "10.0.0.103:80", "protocol": "tcp", "scheduler": "rr", "mode": "fullnat"});
    let mut file = serde_json::to_value(file_balance()).unwrap();
    file["service"].as_array_mut().unwrap().push(unnamed.clone());
    let state = json!({"version": 1, "balance": file});
    std::fs::create_dir(directory.path().join("state")).unwrap();
    std::fs::write(directory.path().join("state/services.json"), state.to_string()).unwrap();
    let gateway = Gateway::start(directory.path());
    let mut client = gateway.client();
    let pools = |client: &mut Client| -> Vec<String> {
        client.services().into_iter().map(|service| service.local_pool).collect()
    };
    assert_eq!(pools(&mut client), ["lan", "lan"]);
    let mut other = unnamed;
    other["vip"] = json!("10.0.0.104:80");
    assert_eq!(
        client.changed(json!({"command": "service.add", "service": other})),
        ["service tcp 10.0.0.104:80: added, scheduler rr, mode fullnat, local pool lan"]
    );
    let mut second = file_balance().local_pools.remove(0);
    (second.name, second.addresses) = ("dmz".to_owned(), vec![Ipv4Addr::new(10, 1, 0, 220).into()]);
    let mut wanted = serde_json::to_value(file_balance()).unwrap();
    wanted["local_pool"].as_array_mut().unwrap().push(serde_json::to_value(second).unwrap());
    client.changed(json!({"command": "apply", "balance": wanted}));
    let expected = "service tcp 10.0.0.104:80: local_pool: missing, and mode fullnat needs one; allowed: lan, dmz";
    let refusal = client.refusal(json!({"command": "service.add", "service": other}));
    assert_eq!((refusal.kind, refusal.message.as_str()), (ErrorKind::Invalid, expected));
    wanted["service"].as_array_mut().unwrap().push(other);
    let refusal = client.refusal(json!({"command": "apply", "balance": wanted}));
    assert_eq!((refusal.kind, refusal.message.as_str()), (ErrorKind::Invalid, expected));
    assert_eq!(pools(&mut client), ["lan"], "nothing was changed");
}

#[test]
fn a_removed_real_server_keeps_its_slot_while_it_has_sessions() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path());
    let mut client = gateway.client();
    let slot = gateway.slot("10.1.0.11").unwrap();
    let own = &gateway.workers[1].counters().real_servers[slot.0 as usize];
    own.connections.add(5);
    own.active.add(1);
    client.changed(real_del("10.1.0.11:80"));
    gateway.wait_for_tables("its sessions are dropped", |table| !table.services.is_present(slot));
    client.changed(real_add("10.1.0.11:80"));
    gateway.wait_for_tables("its sessions live again", |table| table.services.is_present(slot));
    let row = client.services().remove(0);
    assert_eq!(row.real_servers[1].address.to_string(), "10.1.0.11:80");
    assert_eq!((row.real_servers[1].traffic.connections, row.real_servers[1].active_connections), (5, 1));

    client.changed(real_del("10.1.0.11:80"));
    own.active.set(0);
    let mut count = 20;
    let other = loop {
        count += 1;
        let address = format!("10.1.0.{count}:80");
        client.changed(real_add(&address));
        let ip = address.trim_end_matches(":80").to_owned();
        gateway.wait_for_tables("it is there", |table| {
            table.services.services[0].real_servers[0].address.to_string() == ip
        });
        if gateway.slot(&ip) == Some(slot) {
            break address;
        }
        assert!(count < 80, "the slot is never used again");
        thread::sleep(Duration::from_millis(100));
    };
    let row = client.services().remove(0);
    let reborn = row.real_servers.iter().find(|real| real.address.to_string() == other).unwrap();
    assert_eq!((reborn.traffic.connections, row.traffic.connections), (0, 5));
}

#[test]
fn changes_survive_a_restart_and_a_second_daemon_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state/services.json");
    let gateway = Gateway::start(directory.path());
    assert!(!state.exists());
    let second = Gateway::try_start(directory.path(), file_balance(), false).err().unwrap();
    assert!(second.contains("state/lock") && second.contains("process"), "{second}");
    let elsewhere = ControlSocket::bind(&directory.path().join("control.sock"), None).unwrap_err().to_string();
    assert!(elsewhere.contains("a running fullgate (process"), "{elsewhere}");

    gateway.client().changed(real_add("10.1.0.77:80"));
    wait_until("the state is written", || state.exists());
    gateway.client().changed(real_del("10.1.0.11:80"));
    gateway.stop();
    assert!(!directory.path().join("control.sock").exists());

    let gateway = Gateway::start(directory.path());
    let addresses = |rows: Vec<ServiceRow>| -> Vec<String> {
        rows[0].real_servers.iter().map(|real| real.address.to_string()).collect()
    };
    assert_eq!(addresses(gateway.client().services()), ["10.1.0.12:80", "10.1.0.77:80"]);
    gateway.stop();

    std::fs::write(&state, "garbage").unwrap();
    let refused = Gateway::try_start(directory.path(), file_balance(), false).err().unwrap();
    assert!(refused.contains("services.json") && refused.contains("--discard-state"), "{refused}");
    let gateway = Gateway::try_start(directory.path(), file_balance(), true).unwrap();
    assert_eq!(addresses(gateway.client().services()), ["10.1.0.11:80", "10.1.0.12:80"]);
    assert_eq!(std::fs::read_to_string(state.with_extension("json.bad")).unwrap(), "garbage");
}

#[test]
fn timeouts_that_were_set_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let shown = |gateway: &Gateway| match gateway.client().ask(json!({"command": "timeouts.show"})) {
        Outcome::Ok(Reply::Timeouts(timeouts)) => (timeouts.tcp, timeouts.tcp_fin, timeouts.udp),
        other => panic!("no timeouts: {other:?}"),
    };
    let gateway = Gateway::start(directory.path());
    let lines = gateway.client().changed(json!({"command": "timeouts.set", "tcp": 600, "udp": 300}));
    assert_eq!(lines, ["timeout tcp: 900 -> 600 seconds"]);
    gateway.stop();
    let gateway = Gateway::start(directory.path());
    assert_eq!(shown(&gateway), (600, 120, 300));
    gateway.wait_for_tables("the timeout", |snapshot| snapshot.services.timeouts.tcp == 600);
    gateway.client().changed(json!({"command": "timeouts.set", "tcp_fin": 60}));
    gateway.stop();
    let gateway = Gateway::start(directory.path());
    assert_eq!(shown(&gateway), (600, 60, 300), "and with others that are set later");
    gateway.stop();
    let gateway = Gateway::try_start(directory.path(), file_balance(), true).unwrap();
    assert_eq!(shown(&gateway), (900, 120, 300), "unless the state is discarded");
}

#[test]
fn slow_start_is_told_listed_and_published() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path());
    let mut client = gateway.client();
    let lines = client.changed(json!({"command": "service.edit", "service": service(), "slow_start": 2}));
    assert_eq!(lines, ["service tcp 10.0.0.100:80: slow start none -> 2 seconds"]);
    let new = json!({"address": "10.1.0.13:80", "weight": 1000});
    client.changed(json!({"command": "real.add", "service": service(), "real_server": new}));
    let newest = |snapshot: &Snapshot| snapshot.services.services[0].real_servers[0].weight.0;
    let row = client.services()[0].real_servers[2].clone();
    assert_eq!((row.weight.0, row.effective_weight.is_some()), (1000, true));
    gateway.wait_for_tables("a weight on its way", |snapshot| (2..1000).contains(&newest(snapshot)));
    gateway.wait_for_tables("the whole weight", |snapshot| newest(snapshot) == 1000);
    assert_eq!(client.services()[0].real_servers[2].effective_weight, None);
    let edit = json!({"command": "service.edit", "service": service(), "scheduler": "rr"});
    assert!(client.refusal(edit).message.contains("slow_start: scheduler rr gives no shares"));
}

#[test]
fn sysctls_are_set_published_and_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let shown = |gateway: &Gateway| match gateway.client().ask(json!({"command": "sysctl.list"})) {
        Outcome::Ok(Reply::Sysctls(rows)) => {
            rows.into_iter().filter(|row| row.changed_at_run_time).map(|row| (row.name, row.value)).collect::<Vec<_>>()
        }
        other => panic!("no sysctls: {other:?}"),
    };
    let set = |values: Value| json!({"command": "sysctl.set", "values": values});
    let gateway = Gateway::start(directory.path());
    let mut client = gateway.client();
    assert_eq!(shown(&gateway), []);
    let refusal = client.refusal(set(json!({"sloppy_tcp": 1, "conn_reuse_mode": 4})));
    assert_eq!(refusal.kind, ErrorKind::Invalid);
    assert_eq!(refusal.message, "sysctl conn_reuse_mode: 4 is out of range; allowed: 0-3");
    let refusal = client.refusal(set(json!({"net.ipv4.vs.slopy_tcp": 1})));
    assert_eq!(refusal.kind, ErrorKind::NotFound);
    assert_eq!(refusal.message, "there is no sysctl \"slopy_tcp\"; did you mean \"sloppy_tcp\"?");
    assert_eq!(shown(&gateway), [], "all or nothing");

    let lines = client.changed(set(json!({"net.ipv4.vs.sloppy_tcp": 1, "lblc_expiration": 60, "conn_reuse_mode": 1})));
    assert_eq!(lines, ["sysctl lblc_expiration: 86400 -> 60", "sysctl sloppy_tcp: 0 -> 1"]);
    gateway.wait_for_tables("the switch", |snapshot| snapshot.services.sysctls.sloppy_tcp);
    let kept = |pairs: &[(&str, u32)]| pairs.iter().map(|&(name, value)| (name.to_owned(), value)).collect::<Vec<_>>();
    let three = kept(&[("conn_reuse_mode", 1), ("lblc_expiration", 60), ("sloppy_tcp", 1)]);
    assert_eq!(shown(&gateway), three);
    assert_eq!(client.changed(set(json!({"sloppy_tcp": 1}))), ["no difference"]);
    // Applying a file is about services: what else was changed stays.
    client.ask(json!({"command": "apply", "balance": file_balance()}));
    assert_eq!(shown(&gateway), three);
    gateway.stop();

    let gateway = Gateway::start(directory.path());
    assert_eq!(shown(&gateway), three);
    assert!(gateway.workers[0].current.lock().unwrap().services.sysctls.sloppy_tcp, "from the first table on");
    gateway.stop();
    let gateway = Gateway::try_start(directory.path(), file_balance(), true).unwrap();
    assert_eq!(shown(&gateway), [], "unless the state is discarded");
}

#[test]
fn persistence_is_told_published_listed_and_holds_the_slots_of_removed_real_servers() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path());
    let mut client = gateway.client();
    let edit = |what: Value| {
        let mut request = json!({"command": "service.edit", "service": service()});
        request.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        request
    };
    let lines = client.changed(edit(json!({"persistence": 60, "persistence_prefix": 24, "max_connections": 9})));
    assert_eq!(
        lines,
        ["service tcp 10.0.0.100:80: persistence none -> 60 seconds for clients of /24, most connections any -> 9"]
    );
    assert!(client.refusal(edit(json!({"persistence_prefix": 33}))).message.contains("allowed: 0-32 bits"));
    assert!(client.refusal(edit(json!({"one_packet": true}))).message.contains("true with udp, or a fwmark, only"));
    let expected = Persistence { timeout_seconds: 60, prefix_len: 24 };
    gateway.wait_for_tables("persistence", |snapshot| {
        snapshot.services.services[0].persistence == Some(expected)
            && snapshot.services.services[0].max_connections == 9
    });

    // A client comes, as at a worker.
    let table = gateway.workers[0].current.lock().unwrap().services.clone();
    let of_service = &table.services[0];
    let key = TemplateKey::new("10.9.8.0".parse().unwrap(), TemplateTarget::Virtual(of_service.key));
    let slot = gateway.slot("10.1.0.12").unwrap();
    table.templates.tell_time(Tick(100));
    let template = table.templates.enter(&key, (slot, 0), 60, Tick(100)).unwrap();
    let rows =
        |client: &mut Client, filter: Value| match client.ask(json!({"command": "template.list", "filter": filter})) {
            Outcome::Ok(Reply::Templates(rows)) => rows,
            other => panic!("no templates: {other:?}"),
        };
    let listed = rows(&mut client, json!({}));
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].client.to_string().as_str(), listed[0].connections, listed[0].expires_seconds),
        ("10.9.8.0", 1, 60)
    );
    assert_eq!((listed[0].real_server.to_string().as_str(), listed[0].protocol), ("10.1.0.12:80", Some(Protocol::Tcp)));
    assert_eq!(rows(&mut client, json!({"real_server": "10.1.0.11:0"})), []);
    assert_eq!(rows(&mut client, json!({"vip": "10.0.0.100:0", "client": "10.9.8.0"})).len(), 1);
    assert_eq!(client.services()[0].real_servers[1].persistent_connections, 1);

    // While it lasts, the real server that comes back is the same one.
    client.changed(real_del("10.1.0.12:80"));
    client.changed(real_add("10.1.0.13:80"));
    gateway.wait_for_tables("another real server", |snapshot| {
        snapshot.services.services[0].real_servers.iter().any(|real| real.address.to_string() == "10.1.0.13")
    });
    assert_ne!(gateway.slot("10.1.0.13"), Some(slot));
    client.changed(real_add("10.1.0.12:80"));
    gateway.wait_for_tables("it to be back", |snapshot| {
        snapshot.services.services[0].real_servers.iter().any(|real| real.slot == slot)
    });
    table.templates.retire(template.index);
    assert_eq!(rows(&mut client, json!({})), []);
    assert_eq!(client.changed(edit(json!({"persistence": 0}))).len(), 1);
    assert_eq!(client.services()[0].persistence_prefix, None);
}

fn session(client: u32, vip_port: u16, state: &'static str) -> SessionView {
    SessionView {
        protocol: Protocol::Tcp,
        client: (Ipv4Addr::from(0x0a00_0200 + client), 40_000).into(),
        virtual_: (Ipv4Addr::new(10, 0, 0, 100), vip_port).into(),
        mode: "fullnat",
        local: Some(SocketAddr::from(([10, 1, 0, 200], 1024))),
        real: SocketAddr::from(([10, 1, 0, 11], 80)),
        state,
        expires_seconds: 900,
    }
}

#[test]
fn sessions_are_walked_filtered_limited_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path());
    let mut client = gateway.client();
    *gateway.workers[0].sessions.lock().unwrap() = (0..10_000).map(|n| session(n, 80, "ESTABLISHED")).collect();
    *gateway.workers[1].sessions.lock().unwrap() =
        (0..10).map(|n| session(n, if n < 3 { 443 } else { 80 }, "TIME_WAIT")).collect();
    let mut list = |filter: Value, limit: Option<usize>| match client
        .ask(json!({"command": "session.list", "filter": filter, "limit": limit}))
    {
        Outcome::Ok(Reply::Sessions(rows)) => rows,
        other => panic!("{other:?}"),
    };
    assert_eq!(list(json!({}), None).len(), 10_010);
    assert_eq!(list(json!({}), Some(5)).len(), 5);
    assert_eq!(list(json!({}), Some(0)).len(), 0);
    let rows = list(json!({"vip": "10.0.0.100:443"}), None);
    assert_eq!((rows.len(), rows[0].worker, rows[0].state.as_str()), (3, 1, "TIME_WAIT"));
    assert_eq!(rows[0].client.to_string(), "10.0.2.0:40000");
    assert_eq!(list(json!({"client": "10.0.2.5", "vip": "10.0.0.100:0"}), None).len(), 2);
    assert_eq!(list(json!({"real_server": "10.1.0.12:0"}), None).len(), 0);
    assert_eq!(list(json!({"protocol": "udp"}), None).len(), 0);

    let Outcome::Ok(Reply::SessionCount(count)) = client.ask(json!({"command": "session.count"})) else { panic!() };
    assert_eq!((count.total, count.by_worker), (10_010, vec![10_000, 10]));
    assert_eq!(count.by_state, [("ESTABLISHED".to_owned(), 10_000), ("TIME_WAIT".to_owned(), 10)]);
    // Walks at the same time wait for each other.
    let counted = AtomicBool::new(true);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let outcome = gateway.client().ask(json!({"command": "session.count", "filter": {}}));
                let right = matches!(outcome, Outcome::Ok(Reply::SessionCount(count)) if count.total == 10_010);
                counted.fetch_and(right, Ordering::Relaxed);
            });
        }
    });
    assert!(counted.into_inner());
}

#[test]
fn more_sessions_than_fit_in_a_reply_are_refused_with_advice() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path());
    *gateway.workers[0].sessions.lock().unwrap() = (0..500_000).map(|n| session(n, 80, "ESTABLISHED")).collect();
    let mut client = gateway.client();
    client.writer.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let refusal = client.refusal(json!({"command": "session.list", "filter": {}}));
    assert_eq!(refusal.kind, ErrorKind::Limit);
    assert!(refusal.message.contains("give a limit of at most"), "{refusal}");
}

fn scrape(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn metrics_follow_the_counters_and_lose_what_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path());
    let slot = gateway.slot("10.1.0.11").unwrap().0 as usize;
    gateway.workers[0].counters().real_servers[slot].inbound.packets.add(3);
    gateway.workers[1].counters().real_servers[slot].inbound.packets.add(4);
    gateway.workers[1].counters().total_nanoseconds.set(1_000);
    gateway.workers[1].counters().busy_nanoseconds.set(250);
    let text = scrape(gateway.metrics, "/metrics");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("text/plain; version=0.0.4"), "{text}");
    for line in [
        "fullgate_service_packets_total{service=\"10.0.0.100:80\",protocol=\"tcp\",direction=\"in\"} 7\n",
        "fullgate_port_packets_total{port=\"wan\",direction=\"rx\"} 11\n",
        "fullgate_port_errors_total{port=\"wan\",direction=\"tx\"} 7\n",
        "fullgate_worker_bursts_total{worker=\"1\"} 0\n",
        "fullgate_local_ports_used{pool=\"lan\"} 0\n",
        "fullgate_state_write_failures_total 0\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    check_exposition(text.split_once("\r\n\r\n").unwrap().1);
    wait_until("a second was sampled", || {
        scrape(gateway.metrics, "/metrics").contains("busy_ratio{worker=\"1\"} 0.25\n")
    });

    gateway.client().changed(real_del("10.1.0.11:80"));
    let text = scrape(gateway.metrics, "/metrics");
    assert!(!text.contains("10.1.0.11:80"));
    assert!(
        text.contains(
            "fullgate_service_packets_total{service=\"10.0.0.100:80\",protocol=\"tcp\",direction=\"in\"} 7\n"
        )
    );
    assert!(scrape(gateway.metrics, "/").contains("are at /metrics"));
    assert!(scrape(gateway.metrics, "/nothing").starts_with("HTTP/1.1 404"));
}

/// Each series has a HELP and a TYPE before it, counters alone end in `_total`, and a histogram's buckets never fall.
fn check_exposition(text: &str) {
    let mut helped = HashSet::new();
    let mut last = 0.0;
    let mut kinds = std::collections::HashMap::new();
    let lines = text.lines().filter(|line| line.starts_with("# ") || line.starts_with("fullgate_"));
    for line in lines {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, _] => drop(helped.insert(name)),
            ["#", "TYPE", name, kind] => drop(kinds.insert(name, kind)),
            _ => {
                let name = line.split(['{', ' ']).next().unwrap();
                let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{line}"));
                let part = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
                if let Some(histogram) = part.filter(|histogram| kinds.get(histogram) == Some(&"histogram")) {
                    assert!(helped.contains(histogram), "{line}");
                    // The first bucket begins anew; +Inf and the count after it are the largest.
                    let rises = value >= last || line.contains("le=\"0.000000128\"") || name.ends_with("_sum");
                    assert!(rises, "{line}");
                    last = if name.ends_with("_sum") { last } else { value };
                    continue;
                }
                let wanted = if name.ends_with("_total") { "counter" } else { "gauge" };
                assert_eq!((kinds.get(name), helped.contains(name)), (Some(&wanted), true), "{line}");
            }
        }
    }
    assert!(kinds.len() > 20);
}
