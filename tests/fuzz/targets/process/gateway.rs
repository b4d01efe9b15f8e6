//! The gateway that packets are sent through: two workers, or one, with the services of `gateway.toml`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};

use fullgate::balance::{MssClamp, RealServerSlot, Strategy, Sysctls, Templates, Timeouts, Weight};
use fullgate::config::{BalanceConfig, BalanceScope, Config};
use fullgate::control::model::Model;
use fullgate::flow::HashSeed;
use fullgate::flow::ownership::Ownership;
use fullgate::forward::{Forwarder, ForwarderConfig, Hop, Now, PortView, Steering};
use fullgate::port::{MacAddress, PortId, WorkerId};
use fullgate::route::{Interface, Neighbour, RouteEntry, RouteInput, RouteNextHop, RouteTable};
use fullgate::session::Capacity;
use fullgate::telemetry::counters::{SlotLimits, WorkerCounters};

use super::bytes::Bytes;

pub const WAN: PortId = PortId(0);
pub const LAN: PortId = PortId(1);
pub const MACS: [MacAddress; 2] = [MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2])];
/// The UDP port of GUE in `gateway.toml`.
pub const GUE_PORT: u16 = 6080;
const LIMITS: SlotLimits = SlotLimits { real_servers: 128, local_addresses: 8 };
/// Few enough to be full.
const TEMPLATES: u32 = 20;
/// Services that `gateway.toml` can be changed to, and routes.
pub const VARIANTS: usize = 4;

/// What is the same for every input.
struct Setting {
    scope: BalanceScope,
    timeouts: Timeouts,
    mss_clamps: [MssClamp; 2],
    balance: [BalanceConfig; VARIANTS],
    routes: [RouteInput; VARIANTS],
}

pub struct Gateway {
    pub forwarders: Vec<Forwarder>,
    pub counters: Arc<[Arc<WorkerCounters>]>,
    pub now: Now,
    model: Model,
    templates: Arc<Templates>,
    routes: Arc<RouteTable>,
    /// Of the routes in use.
    pub mtu: u16,
}

impl Gateway {
    /// The input says how many workers there are, how packets come to them, and how many sessions they hold.
    pub fn new(bytes: &mut Bytes<'_>) -> Self {
        let how = bytes.byte();
        // A forwarder costs most of what a short input does.
        let workers = 1 + u8::from(how & 0x11 == 0x11);
        let steering = if how & 2 == 0 { Steering::Software } else { Steering::Rss };
        let capacity = if how & 4 == 0 { 64 } else { 3 };
        let view = |(mac, mss_clamp)| PortView { mac, promiscuous: how & 8 != 0, steering, mss_clamp };
        let counters: Arc<[_]> = (0..workers).map(|_| Arc::new(WorkerCounters::new(LIMITS))).collect();
        let now = Now::from_nanoseconds(1_000_000_000);
        let forwarder = |worker| {
            let config = ForwarderConfig {
                worker: WorkerId(worker),
                workers,
                ports: MACS.into_iter().zip(setting().mss_clamps).map(view).collect(),
                session_capacity: Capacity { ipv4: capacity, ipv6: capacity },
                ownership: Ownership::in_turn(workers),
                seed: HashSeed([11, 12]),
                counters: Arc::clone(&counters),
            };
            Forwarder::new(config, now).unwrap()
        };
        let setting = setting();
        let model = Model::new(setting.scope.clone(), counters.to_vec(), LIMITS, &setting.balance[0]).unwrap();
        let on = how & 0x20 != 0;
        let sysctls = Sysctls {
            expire_nodest_conn: on,
            expire_quiescent_template: on,
            conn_reuse_mode: if on { 3 } else { 1 },
            sloppy_tcp: on,
            sloppy_sctp: on,
            drop_entry: if on { Strategy::Automatic } else { Strategy::Off },
            secure_tcp: if on { Strategy::Always } else { Strategy::Off },
            nat_icmp_send: on,
            ..Sysctls::default()
        };
        let templates = Arc::new(Templates::new(TEMPLATES, LIMITS.real_servers as usize, HashSeed([11, 12])));
        let mut model = model.with_templates(Arc::clone(&templates));
        model.set_sysctls(sysctls);
        let forwarders = (0..workers).map(forwarder).collect();
        let mut gateway = Self { templates, forwarders, model, now, routes: Arc::default(), mtu: 0, counters };
        gateway.change_routes(0);
        gateway
    }

    /// Goes over to other services, as the control thread would.
    pub fn change_services(&mut self, variant: usize) {
        let changes = self.model.plan_apply(&setting().balance[variant]).unwrap();
        self.model.commit(changes);
        self.adopt();
    }

    pub fn change_routes(&mut self, variant: usize) {
        let input = &setting().routes[variant];
        self.mtu = input.interfaces[0].mtu;
        self.routes = Arc::new(RouteTable::new(input, Some(&self.routes)));
        self.adopt();
    }

    fn adopt(&mut self) {
        let services = Arc::new(self.model.compile(setting().timeouts));
        for forwarder in &mut self.forwarders {
            forwarder.adopt(Arc::clone(&services), Arc::clone(&self.routes));
        }
        self.model.reclaim(services.generation);
    }

    /// Lets time pass, and ends the sessions whose time is over: all of them, or as many as one step does.
    pub fn pass(&mut self, milliseconds: u64, all: bool) {
        self.now = Now::from_nanoseconds(self.now.nanoseconds + milliseconds * 1_000_000);
        for forwarder in &mut self.forwarders {
            let mut steps = 0;
            while forwarder.expire(self.now).more && all {
                steps += 1;
                assert!(steps < 100_000, "expiry does not come to an end");
            }
            forwarder.begin_defence();
            forwarder.drop_entries(u64::from(all), self.now);
            forwarder.sweep_templates(if all { self.templates.buckets() } else { 1 }, self.now);
        }
    }

    /// Sessions that come are counted once, and once when they go; every one is some real server's.
    pub fn check_counts(&self) {
        for (forwarder, counters) in self.forwarders.iter().zip(&*self.counters) {
            let sessions = counters.sessions.get() + counters.ipv6_sessions.get();
            assert_eq!(sessions, counters.sessions_created.get() - counters.sessions_expired.get());
            let connections = counters.real_servers.iter().map(|server| server.active.get() + server.inactive.get());
            assert_eq!(connections.sum::<u64>(), sessions, "connections of real servers");
            let ports = counters.local_addresses.iter().map(|local| local.ports_used.get());
            assert!(ports.sum::<u64>() <= sessions, "more local ports than sessions");
            let (mut views, mut next) = (Vec::with_capacity(8), Some(0));
            let mut walked = 0;
            while let Some(from) = next {
                next = forwarder.walk_sessions(from, 64, self.now, &mut views);
                walked += views.len() as u64;
                views.clear();
            }
            assert_eq!(walked, sessions, "sessions in the tables");
        }
        self.check_templates();
    }

    /// Templates are counted as real servers' are, and none has more sessions than there are.
    fn check_templates(&self) {
        let of_servers: u32 =
            (0..LIMITS.real_servers).map(|slot| self.templates.of_real_server(RealServerSlot(slot))).sum();
        assert_eq!(of_servers, self.templates.len(), "templates of real servers");
        let mut views = Vec::new();
        (0..self.templates.buckets()).for_each(|bucket| self.templates.views(bucket, self.now.tick, &mut views));
        assert!(views.len() as u64 <= u64::from(self.templates.len()));
        let sessions: u64 = views.iter().map(|view| u64::from(view.connections)).sum();
        assert!(sessions <= self.sessions(), "sessions of templates");
    }

    fn sessions(&self) -> u64 {
        self.counters.iter().map(|counters| counters.sessions.get() + counters.ipv6_sessions.get()).sum()
    }

    /// Once all is quiet for long enough, nothing is left, and the gateway works as it did at first.
    pub fn check_end(&mut self) {
        for _minute in 0..30 {
            if self.sessions() > 0 || !self.templates.is_empty() {
                self.pass(60_000, true);
            }
        }
        self.check_counts();
        assert!(self.templates.is_empty(), "templates that never end");
        for counters in &*self.counters {
            assert_eq!(counters.sessions_created.get(), counters.sessions_expired.get(), "sessions that never end");
            assert!(counters.local_addresses.iter().all(|local| local.ports_used.get() == 0), "local ports in use");
        }
        self.change_routes(0);
        self.change_services(0);
    }
}

fn setting() -> &'static Setting {
    static SETTING: OnceLock<Setting> = OnceLock::new();
    SETTING.get_or_init(|| {
        let config = Config::parse(include_str!("gateway.toml"), "gateway.toml").unwrap();
        Setting {
            scope: config.balance_scope(),
            timeouts: config.timeouts,
            mss_clamps: [0, 1].map(|port| config.ports[port].mss_clamp),
            balance: balances(&config.balance),
            routes: [
                routes(1500, true, true),
                routes(1280, true, true),
                routes(9000, false, true),
                routes(1500, true, false),
            ],
        }
    })
}

/// As it is; without every service's first real server; with all weights 0; without local addresses but the first of each family, and
/// without services that need none.
fn balances(base: &BalanceConfig) -> [BalanceConfig; VARIANTS] {
    let [mut fewer, mut drained, mut narrow] = [(); 3].map(|()| base.clone());
    for service in &mut fewer.services {
        service.real_servers.truncate(service.real_servers.len().saturating_sub(1));
    }
    for server in drained.services.iter_mut().flat_map(|service| &mut service.real_servers) {
        server.weight = Weight(0);
    }
    for pool in &mut narrow.local_pools {
        let mut seen = [false; 2];
        pool.addresses.retain(|address| !std::mem::replace(&mut seen[usize::from(address.is_ipv6())], true));
    }
    narrow.services.retain(|service| service.needs_local_pool());
    [base.clone(), fewer, drained, narrow]
}

/// Two subnets of each family on links, real servers and clients behind routers; `neighbours` of the real servers and
/// `addresses` to send tunnels from, or not.
fn routes(mtu: u16, neighbours: bool, addresses: bool) -> RouteInput {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let route = |port, destination, prefix_len, gateway: Option<&str>| RouteEntry {
        destination: ip(destination),
        prefix_len,
        metric: 0,
        next_hops: vec![RouteNextHop { port, gateway: gateway.map(ip), weight: 1 }],
    };
    let neighbour = |port, address, last| Neighbour {
        hop: Hop { port, address: ip(address) },
        mac: MacAddress([2, 0, 0, 0, 1 + port.0, last]),
    };
    let interface = |port: PortId, ipv4: [u8; 4], ipv6: &str| Interface {
        port,
        mac: MACS[port.index()],
        mtu,
        address: addresses.then_some(Ipv4Addr::from(ipv4)),
        ipv6_address: addresses.then(|| ipv6.parse::<Ipv6Addr>().unwrap()),
    };
    let mut input = RouteInput {
        routes: vec![
            route(WAN, "10.0.0.0", 24, None),
            route(WAN, "2001:db8::", 64, None),
            route(LAN, "10.1.0.0", 24, None),
            route(LAN, "2001:db8:1::", 64, None),
            route(WAN, "198.18.0.0", 15, Some("10.0.0.254")),
            route(WAN, "2001:db8:8::", 48, Some("2001:db8::fe")),
            route(LAN, "172.16.0.0", 16, Some("2001:db8:1::fe")),
        ],
        local: [
            "10.0.0.1",
            "10.0.0.100",
            "10.1.0.1",
            "10.1.0.200",
            "10.1.0.201",
            "2001:db8::1",
            "2001:db8::100",
            "2001:db8:1::1",
            "2001:db8:1::200",
            "2001:db8:1::201",
        ]
        .map(ip)
        .to_vec(),
        broadcast: vec![[10, 0, 0, 255].into(), [10, 1, 0, 255].into()],
        neighbours: vec![
            neighbour(WAN, "10.0.0.2", 1),
            neighbour(WAN, "10.0.0.254", 2),
            neighbour(WAN, "2001:db8::2", 3),
            neighbour(WAN, "2001:db8::fe", 4),
            neighbour(LAN, "2001:db8:1::fe", 5),
        ],
        interfaces: vec![interface(WAN, [10, 0, 0, 1], "2001:db8::1"), interface(LAN, [10, 1, 0, 1], "2001:db8:1::1")],
    };
    if neighbours {
        let servers = ["10.1.0.11", "10.1.0.12", "2001:db8:1::11", "2001:db8:1::12"];
        input.neighbours.extend((6..).zip(servers).map(|(last, server)| neighbour(LAN, server, last)));
    }
    input
}
