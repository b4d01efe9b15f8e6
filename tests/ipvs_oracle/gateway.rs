//! fullgate as a director: the model that the control thread keeps, and one worker's forwarder, in this process.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use fullgate::balance::{MssClamp, ServiceTable, Sysctl, Sysctls, Templates, Timeouts};
use fullgate::config::BalanceConfig;
use fullgate::config::BalanceScope;
use fullgate::control::model::Model;
use fullgate::control::protocol::{RealServerRow, Request, ServiceRow, TrafficTotals};
use fullgate::flow::HashSeed;
use fullgate::flow::ownership::Ownership;
use fullgate::forward::{DatagramTag, Forwarder, ForwarderConfig, Hop, Now, Origin, PortView, Steering, Verdict, cut};
use fullgate::ipvs::proc_net;
use fullgate::port::memory::MemoryFrame;
use fullgate::port::{BURST_SIZE, Frame, PortId, WorkerId};
use fullgate::route::{Interface, Neighbour, RouteEntry, RouteInput, RouteNextHop, RouteTable};
use fullgate::session::Capacity;
use fullgate::telemetry::counters::{SlotLimits, WorkerCounters};

use crate::director::{Connection, Counts, Director, Rule, Service};
use crate::network::{Family, Out, SERVERS, Side, router_mac, server_mac};
use crate::requests;

const SESSIONS: u32 = 1 << 15;
const TEMPLATES: u32 = 4096;
const SECOND: u64 = 1_000_000_000;
const BEGINNING: u64 = 1_000_000_000;

pub struct Gateway {
    /// None only while it is changed.
    model: Model,
    sysctls: Sysctls,
    /// What was published last.
    services: Arc<ServiceTable>,
    forwarder: Forwarder,
    timeouts: Timeouts,
    /// Fragments that came before the first one of their datagram.
    waiting: Vec<(DatagramTag, PortId, MemoryFrame)>,
    now: Now,
}

impl Gateway {
    /// A new one, with the network that the other director has.
    pub fn new() -> Self {
        let limits = SlotLimits { real_servers: 512, local_addresses: 4 };
        let counters = Arc::new(WorkerCounters::new(limits));
        let scope = BalanceScope {
            ports: Side::BOTH.map(|side| side.name().to_owned()).into(),
            own_addresses: Vec::new(),
            workers: 1,
        };
        let empty = BalanceConfig::default();
        let templates = Templates::new(TEMPLATES, limits.real_servers as usize, HashSeed([13, 14]));
        let model = Model::new(scope, vec![counters.clone()], limits, &empty).unwrap();
        let model = model.with_templates(Arc::new(templates));
        let view = |side: Side| PortView {
            mac: side.director_mac(),
            promiscuous: false,
            steering: Steering::Software,
            mss_clamp: MssClamp::Off,
        };
        let now = Now::from_nanoseconds(BEGINNING);
        let config = ForwarderConfig {
            worker: WorkerId(0),
            workers: 1,
            ports: Side::BOTH.map(view).into(),
            session_capacity: Capacity { ipv4: SESSIONS, ipv6: SESSIONS },
            ownership: Ownership::in_turn(1),
            seed: HashSeed([11, 12]),
            counters: vec![counters].into(),
        };
        let forwarder = Forwarder::new(config, now).unwrap();
        let mut gateway = Self {
            model,
            sysctls: Sysctls::default(),
            services: Arc::default(),
            forwarder,
            timeouts: Timeouts::default(),
            waiting: Vec::new(),
            now,
        };
        gateway.publish();
        gateway
    }

    /// As the control thread does after a change.
    fn publish(&mut self) {
        let timeouts = self.timeouts;
        self.services = Arc::new(self.model.compile(timeouts));
        self.forwarder.adopt(self.services.clone(), Arc::new(RouteTable::new(&routes(), None)));
        let generation = self.services.generation;
        self.model.reclaim(generation);
    }

    /// One frame, as a worker does it: what is cut, or had to wait, goes round again.
    fn process(&mut self, port: PortId, frame: MemoryFrame, origin: Origin, out: &mut Vec<Out>) {
        let mut frames = [frame];
        let mut verdicts = [Verdict::Transmit(PortId(99)); BURST_SIZE];
        self.forwarder.process(port, &mut frames, origin, self.now, &mut verdicts);
        let [frame] = frames;
        match verdicts[0] {
            Verdict::Transmit(to) => out.push(Out { side: Side::BOTH[to.index()], bytes: frame.bytes().to_vec() }),
            Verdict::Drop(_) | Verdict::Punt(_) => {}
            Verdict::Cut(mtu) => {
                let mut pieces = Vec::new();
                cut::cut(&frame, mtu, |piece| pieces.push(piece)).unwrap();
                pieces.into_iter().for_each(|piece| self.process(port, piece, Origin::HandedOver, out));
            }
            Verdict::AwaitFragment(datagram) => self.waiting.push((datagram, port, frame)),
            other => panic!("{other:?}"),
        }
        let arrived: Vec<_> = self.forwarder.arrived().collect();
        for datagram in arrived {
            let (released, waiting) =
                std::mem::take(&mut self.waiting).into_iter().partition(|(of, ..)| *of == datagram);
            self.waiting = waiting;
            let released: Vec<(DatagramTag, PortId, MemoryFrame)> = released;
            released.into_iter().for_each(|(_, port, frame)| self.process(port, frame, Origin::HandedOver, out));
        }
    }

    fn change(&mut self, rule: &Rule) {
        if let Rule::SetTimeouts(tcp, fin, udp) = *rule {
            (self.timeouts.tcp, self.timeouts.tcp_fin, self.timeouts.udp) = (tcp, fin, udp);
            return self.publish();
        }
        if let Rule::Sysctl(name, value) = *rule {
            return self.set_sysctl(name, value);
        }
        let request: Request =
            serde_json::from_value(requests::of(rule)).unwrap_or_else(|error| panic!("{rule}: {error}"));
        let changes = self.model.plan(&request).unwrap().unwrap_or_else(|refusal| panic!("{rule}: {refusal}"));
        self.model.commit(changes);
        self.publish();
    }
}

/// With one of them set, by its name.
fn with_sysctl(mut sysctls: Sysctls, name: &str, value: u8) -> Sysctls {
    let known = Sysctl::find(name).unwrap_or_else(|| panic!("sysctl {name}"));
    assert!(known.set(&mut sysctls, value.into()), "{name} = {value}");
    sysctls
}

/// What the kernel's tables have there.
fn routes() -> RouteInput {
    let mut input = RouteInput {
        routes: Vec::new(),
        local: Vec::new(),
        broadcast: Vec::new(),
        neighbours: Vec::new(),
        interfaces: Side::BOTH.map(interface).into(),
    };
    for (side, family) in Side::BOTH.iter().flat_map(|&side| [(side, Family::Ipv4), (side, Family::Ipv6)]) {
        let port = port(side);
        let route = |destination, prefix_len, gateway| RouteEntry {
            destination,
            prefix_len,
            metric: 0,
            next_hops: vec![RouteNextHop { port, gateway, weight: 1 }],
        };
        input.routes.push(route(family.address(side as u8, 0), family.prefix_len(), None));
        input.local.push(family.director(side));
        let mut known = vec![(family.router(side), router_mac(side))];
        if side == Side::Lan {
            known.extend(SERVERS.map(|number| (family.server(number), server_mac(number))));
        } else {
            let any = if family == Family::Ipv4 { "0.0.0.0" } else { "::" };
            input.routes.push(route(any.parse().unwrap(), 0, Some(family.router(side))));
            input.local.extend([family.vip(), family.other_vip()]);
        }
        input.neighbours.extend(known.into_iter().map(|(address, mac)| Neighbour { hop: Hop { port, address }, mac }));
    }
    input
}

fn port(side: Side) -> PortId {
    PortId(side as u8)
}

fn interface(side: Side) -> Interface {
    let address = |family: Family| family.director(side).to_string();
    Interface {
        port: port(side),
        mac: side.director_mac(),
        mtu: side.mtu(),
        address: address(Family::Ipv4).parse().ok(),
        ipv6_address: address(Family::Ipv6).parse().ok(),
    }
}

impl Director for Gateway {
    fn configure(&mut self, rules: &[Rule]) {
        rules.iter().for_each(|rule| self.change(rule));
    }

    fn send(&mut self, side: Side, frame: &[u8]) -> Vec<Out> {
        let mut out = Vec::new();
        self.process(port(side), MemoryFrame::new(frame), Origin::Queue, &mut out);
        out
    }

    fn at(&mut self, seconds: u64) {
        let end = BEGINNING + seconds * SECOND;
        while self.now.nanoseconds < end {
            self.now = Now::from_nanoseconds(end.min(self.now.nanoseconds + SECOND));
            while self.forwarder.expire(self.now).more {}
            self.forwarder.begin_sweep(self.now);
            self.forwarder.sweep_templates(self.services.templates.buckets(), self.now);
        }
        self.publish();
    }

    fn connections(&mut self, ports: RangeInclusive<u16>) -> Vec<Connection> {
        let mut views = Vec::with_capacity(SESSIONS as usize);
        let mut from = Some(0);
        while let Some(next) = from {
            from = self.forwarder.walk_sessions(next, 10_000, self.now, &mut views);
        }
        let of = views.into_iter().filter(|view| ports.contains(&view.virtual_.port()));
        let mut connections: Vec<_> = of
            .map(|view| Connection {
                protocol: view.protocol.to_string().to_ascii_uppercase(),
                client: view.client,
                virtual_: view.virtual_,
                server: view.real,
                state: view.state.to_owned(),
                expires: view.expires_seconds,
            })
            .collect();
        connections.sort();
        connections
    }

    fn templates(&mut self) -> Vec<Connection> {
        let rows = fullgate::control::templates::rows(&self.services);
        let listed = rows.iter().map(fullgate::control::ipvs::template_entry).map(|entry| Connection {
            protocol: proc_net::protocol_name(entry.protocol).to_owned(),
            client: entry.client,
            virtual_: entry.virtual_address,
            server: entry.destination,
            state: entry.state,
            expires: entry.expires_seconds,
        });
        let mut templates: Vec<_> = listed.collect();
        templates.sort();
        templates
    }

    fn persistent(&mut self) -> Vec<Counts> {
        self.counts(
            |_| Vec::new(),
            |real| vec![real.persistent_connections.into(), real.active_connections, real.inactive_connections],
        )
    }

    fn loads(&mut self) -> Vec<Counts> {
        self.counts(|_| Vec::new(), |real| vec![real.active_connections, real.inactive_connections])
    }

    fn traffic(&mut self) -> Vec<Counts> {
        let numbers = |totals: &TrafficTotals| {
            vec![totals.connections, totals.in_packets, totals.out_packets, totals.in_bytes, totals.out_bytes]
        };
        self.counts(|service| numbers(&service.traffic), |real| numbers(&real.traffic))
    }
}

impl Gateway {
    fn set_sysctl(&mut self, name: &str, value: u8) {
        self.sysctls = with_sysctl(self.sysctls, name, value);
        self.model.set_sysctls(self.sysctls);
        self.publish();
    }

    fn counts(
        &mut self,
        of_service: impl Fn(&ServiceRow) -> Vec<u64>,
        of_server: impl Fn(&RealServerRow) -> Vec<u64>,
    ) -> Vec<Counts> {
        let mut counts = Vec::new();
        for row in self.model.service_rows(None).unwrap() {
            let family = if row.vip.address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
            let marked = row.vip.mark.map(|mark| Service::of_mark(mark.number() as u16, family).address);
            let service = (row.protocol, marked.unwrap_or(SocketAddr::new(row.vip.address, row.vip.default_port())));
            counts.push(Counts { service, server: None, counts: of_service(&row) });
            counts.extend(row.real_servers.iter().map(|real| Counts {
                service,
                server: Some(real.address),
                counts: of_server(real),
            }));
        }
        counts
    }
}
