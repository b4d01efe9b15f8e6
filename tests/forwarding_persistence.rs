//! Persistence through the forwarder: clients that stay with their real server over several workers, and what ends that.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, missing_docs)]

#[allow(dead_code, reason = "these tests need a part of it")]
#[path = "forwarding/lab.rs"]
mod lab;

use std::net::Ipv4Addr;
use std::sync::Arc;

use fullgate::balance::{
    ForwardingMode, Mark, MarkRule, Marks, Overloads, Persistence, Protocol, RealServer, RealServerSlot, Scheduler,
    SchedulerFlags, SchedulerKind, Selector, Service, ServiceKey, ServicePorts, ServiceTable, Sysctls, TemplateTarget,
    TemplateView, Templates, VirtualAddress, Weight,
};
use fullgate::flow::HashSeed;
use fullgate::forward::{DropReason, Verdict};
use lab::{Gateway, LAN, PORTS, SERVER, Spec, WAN, from_client, server, service, table};
use proptest::prelude::*;

const SLOTS: usize = 16;

/// Real servers of these weights, all at one address; the one with slot N at port 8080 + N.
fn servers(weights: &[u32]) -> Vec<RealServer> {
    let server = |(slot, &weight)| RealServer { port: 8080 + slot as u16, ..server(slot, SERVER, weight) };
    (0..).zip(weights).map(server).collect()
}

/// What changes from one table to the next, and what does not.
#[derive(Clone)]
struct Setting {
    servers: Vec<RealServer>,
    persistence: Option<Persistence>,
    ports: ServicePorts,
    protocol: Protocol,
    sysctls: Sysctls,
    scheduler: Scheduler,
    templates: Arc<Templates>,
}

impl Setting {
    fn new(weights: &[u32]) -> Self {
        let servers = servers(weights);
        Self {
            scheduler: lab::scheduler(SchedulerKind::Rr, SchedulerFlags::default(), &servers),
            servers,
            persistence: Some(Persistence { timeout_seconds: 300, prefix_len: 32 }),
            ports: 80.into(),
            protocol: Protocol::Tcp,
            sysctls: Sysctls::default(),
            templates: Arc::new(Templates::new(10_000, SLOTS, HashSeed([1, 2]))),
        }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = self.clone();
        change(&mut changed);
        changed
    }

    fn table(&self) -> ServiceTable {
        let mut service = Service {
            persistence: self.persistence,
            scheduler: self.scheduler.clone(),
            ..service(self.protocol, self.servers.clone())
        };
        service.key.ports = self.ports;
        ServiceTable {
            overloads: Arc::new(Overloads::new(SLOTS)),
            templates: Arc::clone(&self.templates),
            sysctls: self.sysctls,
            real_server_present: (0..SLOTS as u32)
                .map(|slot| self.servers.iter().any(|server| server.slot == RealServerSlot(slot)))
                .collect(),
            ..table(vec![service], PORTS)
        }
    }

    fn workers(&self, count: u8) -> Vec<Gateway> {
        Gateway::workers(self.table(), count, 10_000)
    }

    fn adopt(&self, gateways: &mut [Gateway]) {
        for gateway in gateways {
            gateway.adopt(self.table(), &lab::routes(&lab::NEIGHBOURS, 1500));
        }
    }

    fn views(&self, gateway: &Gateway) -> Vec<TemplateView> {
        let mut views = Vec::new();
        (0..self.templates.buckets()).for_each(|bucket| self.templates.views(bucket, gateway.now.tick, &mut views));
        views
    }
}

fn client(number: u32, port: u16) -> Spec<'static> {
    Spec { source: (Ipv4Addr::from_bits(0xc612_0002 + number), port), ..from_client(b"") }
}

/// A client opens a connection from this port; the slot of the real server that it gets.
fn open(gateway: &mut Gateway, spec: &Spec<'_>) -> u32 {
    let (verdict, bytes) = gateway.send(WAN, &spec.tcp("S", 1, 0));
    assert_eq!(verdict, Verdict::Transmit(LAN));
    u32::from(lab::see(&bytes).destination.1 - 8080)
}

fn pass(gateways: &mut [Gateway], seconds: u64) {
    gateways.iter_mut().for_each(|gateway| gateway.pass_seconds(seconds));
}

#[test]
fn each_client_stays_with_its_real_server_whichever_worker_it_comes_to() {
    let setting = Setting::new(&[1; 4]);
    let mut gateways = setting.workers(2);
    let mut chosen: Vec<u32> = Vec::new();
    for number in 0..200 {
        chosen.push(open(&mut gateways[number as usize % 2], &client(number, 10_000)));
    }
    for connection in 1..10 {
        for number in 0..200 {
            let worker = (number as usize + connection as usize) % 2;
            let server = open(&mut gateways[worker], &client(number, 10_000 + connection));
            assert_eq!(server, chosen[number as usize], "connection {connection} of client {number}");
        }
    }
    let shares: Vec<_> = (0..4).map(|slot| chosen.iter().filter(|chosen| **chosen == slot).count()).collect();
    assert_eq!(shares, [50; 4], "new clients are scheduled as without persistence");
    let persistent: Vec<_> = (0..4).map(|slot| setting.templates.of_real_server(RealServerSlot(slot))).collect();
    assert_eq!(persistent, [50; 4]);
    let views = setting.views(&gateways[0]);
    assert!(views.len() == 200 && views.iter().all(|view| view.connections == 10));
}

#[test]
fn without_persistence_there_are_no_templates() {
    let setting = Setting::new(&[1; 4]).with(|setting| setting.persistence = None);
    let mut gateways = setting.workers(1);
    let chosen: Vec<_> = (0..4).map(|port| open(&mut gateways[0], &client(1, 10_000 + port))).collect();
    assert_eq!(chosen.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    assert!(setting.templates.is_empty());
}

#[test]
fn clients_of_one_network_stay_together() {
    let setting = Setting::new(&[1; 4])
        .with(|setting| setting.persistence = Some(Persistence { timeout_seconds: 300, prefix_len: 30 }));
    let mut gateways = setting.workers(2);
    // From 10.0.0.4 on.
    let chosen: Vec<_> =
        (2..18).map(|number| open(&mut gateways[number as usize % 2], &client(number, 10_000))).collect();
    for network in chosen.chunks(4) {
        assert!(network.iter().all(|server| *server == network[0]), "{chosen:?}");
    }
    assert_eq!(setting.templates.len(), 4);
    assert!(setting.views(&gateways[0]).iter().any(|view| view.key.network() == Ipv4Addr::new(198, 18, 0, 4)));
}

#[test]
fn a_service_of_all_ports_keeps_a_client_for_all_of_them() {
    let mut setting = Setting::new(&[1; 4]).with(|setting| setting.ports = ServicePorts::ALL);
    setting.servers.iter_mut().for_each(|server| server.port = 0);
    let mut gateways = setting.workers(2);
    for port in [21, 80, 443, 50_000] {
        let spec = Spec { destination: (lab::VIP, port), ..client(1, 10_000) };
        let (verdict, bytes) = gateways[usize::from(port) % 2].send(WAN, &spec.tcp("S", 1, 0));
        assert_eq!((verdict, lab::see(&bytes).destination.1), (Verdict::Transmit(LAN), port));
    }
    let [view] = setting.views(&gateways[0])[..] else { panic!("one template") };
    assert_eq!((view.connections, setting.templates.of_real_server(view.server)), (4, 1));
}

#[test]
fn a_template_ends_at_its_time_but_not_before_its_sessions() {
    let setting = Setting::new(&[1; 2]).with(|setting| setting.protocol = Protocol::Udp);
    let mut gateways = setting.workers(1);
    let send = |gateways: &mut [Gateway], number, port| {
        let (verdict, bytes) = gateways[0].send(WAN, &client(number, port).udp());
        assert_eq!(verdict, Verdict::Transmit(LAN));
        lab::see(&bytes).destination.1
    };
    let first = send(&mut gateways, 1, 1000);
    pass(&mut gateways, 250);
    assert_eq!(send(&mut gateways, 1, 1001), first);
    pass(&mut gateways, 250);
    assert_eq!(send(&mut gateways, 1, 1001), first, "the session goes on, and the template for a minute more");
    pass(&mut gateways, 55);
    assert_eq!(setting.templates.len(), 1, "its time is over, and it has a session");
    assert_eq!(setting.views(&gateways[0])[0].connections, 1);
    (0..4).for_each(|_| pass(&mut gateways, 60));
    pass(&mut gateways, 6);
    assert_eq!((gateways[0].sessions().len(), setting.templates.len()), (0, 1), "until the minute is over");
    pass(&mut gateways, 60);
    assert_eq!(setting.templates.len(), 0);
    assert_ne!(send(&mut gateways, 1, 1002), first, "scheduled anew: the next one in turn");
}

#[test]
fn a_drained_real_server_keeps_its_clients_unless_that_ends_templates() {
    let setting = Setting::new(&[1; 2]);
    let mut gateways = setting.workers(2);
    let first = open(&mut gateways[0], &client(1, 10_000));
    let drained = setting.with(|setting| setting.servers[first as usize].weight = Weight(0));
    drained.adopt(&mut gateways);
    assert_eq!(open(&mut gateways[1], &client(1, 10_001)), first);
    assert_ne!(open(&mut gateways[1], &client(2, 10_001)), first, "no new clients");
    let expiring = drained.with(|setting| setting.sysctls.expire_quiescent_template = true);
    expiring.adopt(&mut gateways);
    let second = open(&mut gateways[0], &client(1, 10_002));
    assert_ne!(second, first);
    setting.adopt(&mut gateways);
    assert_eq!(open(&mut gateways[1], &client(1, 10_003)), second, "and stays there");
    assert_eq!(setting.templates.len(), 2);
}

#[test]
fn a_threshold_is_no_obstacle_for_who_has_a_template() {
    let mut setting = Setting::new(&[1; 2]);
    setting.servers.iter_mut().for_each(|server| server.upper_threshold = 1);
    let mut gateways = setting.workers(1);
    let first = open(&mut gateways[0], &client(1, 10_000));
    assert_eq!(open(&mut gateways[0], &client(1, 10_001)), first);
    assert_ne!(open(&mut gateways[0], &client(2, 10_000)), first);
    let (verdict, _) = gateways[0].send(WAN, &client(3, 10_000).tcp("S", 1, 0));
    assert_ne!(verdict, Verdict::Transmit(LAN), "all are full");
}

#[test]
fn a_real_server_takes_new_clients_again_although_old_ones_came_first() {
    let mut setting = Setting::new(&[1]);
    (setting.servers[0].upper_threshold, setting.servers[0].lower_threshold) = (3, 2);
    let mut gateways = setting.workers(1);
    (0..3).for_each(|connection| _ = open(&mut gateways[0], &client(1, 10_000 + connection)));
    assert_ne!(gateways[0].send(WAN, &client(2, 10_000).tcp("S", 1, 0)).0, Verdict::Transmit(LAN), "it is full");
    pass(&mut gateways, 61);
    assert_eq!(gateways[0].sessions().len(), 0);
    // Below the lower threshold it was for all that.
    (3..5).for_each(|connection| _ = open(&mut gateways[0], &client(1, 10_000 + connection)));
    open(&mut gateways[0], &client(2, 10_000));
}

#[test]
fn a_session_that_persistence_has_placed_gives_way_to_no_syn() {
    for (keeps, sessions) in [(true, 1), (false, 2)] {
        let setting = Setting::new(&[1]).with(|setting| setting.persistence = setting.persistence.filter(|_| keeps));
        let mut gateways = setting.workers(1);
        open(&mut gateways[0], &client(1, 10_000));
        gateways[0].send(WAN, &client(1, 10_000).tcp("R", 2, 0));
        gateways[0].send(WAN, &client(1, 10_000).tcp("A", 2, 1));
        gateways[0].send(WAN, &client(1, 10_000).tcp("R", 2, 0));
        assert_eq!(gateways[0].sessions()[0].state, "CLOSE");
        open(&mut gateways[0], &client(1, 10_000));
        assert_eq!(gateways[0].sessions()[0].state, "SYN_RECV");
        assert_eq!(gateways[0].counters[0].sessions_created.get(), sessions, "{keeps}");
    }
}

#[test]
fn a_template_is_assured_when_a_connection_of_its_is_established() {
    let setting = Setting::new(&[1]);
    let mut gateways = setting.workers(1);
    open(&mut gateways[0], &client(1, 10_000));
    assert!(!setting.views(&gateways[0])[0].is_assured);
    gateways[0].send(WAN, &client(1, 10_000).tcp("A", 2, 1));
    assert!(setting.views(&gateways[0])[0].is_assured);
}

#[test]
fn a_real_server_that_is_removed_loses_its_clients_and_gets_them_back_unless_they_have_come() {
    let setting = Setting::new(&[1; 3]);
    let mut gateways = setting.workers(2);
    let first = open(&mut gateways[0], &client(1, 10_000));
    let other = (2..9).find(|&number| open(&mut gateways[0], &client(number, 10_000)) == first).unwrap();
    let without = setting.with(|setting| setting.servers.retain(|server| server.slot.0 != first));
    without.adopt(&mut gateways);
    let second = open(&mut gateways[1], &client(1, 10_001));
    assert_ne!(second, first);
    let (verdict, _) = gateways[0].send(WAN, &client(1, 10_000).tcp("A", 2, 1));
    assert_eq!(verdict, Verdict::Drop(DropReason::RealServerRemoved));
    setting.adopt(&mut gateways);
    assert_eq!(open(&mut gateways[0], &client(1, 10_002)), second);
    assert_eq!(open(&mut gateways[1], &client(other, 10_001)), first, "who was not seen meanwhile has not noticed");
}

#[test]
fn a_list_in_another_order_is_no_other_list() {
    let setting = Setting::new(&[1; 5]);
    let mut gateways = setting.workers(2);
    let chosen: Vec<_> = (0..10).map(|number| open(&mut gateways[0], &client(number, 10_000))).collect();
    setting.with(|setting| setting.servers.reverse()).adopt(&mut gateways);
    let again: Vec<_> = (0..10).map(|number| open(&mut gateways[1], &client(number, 10_001))).collect();
    assert_eq!(again, chosen);
}

#[test]
fn where_there_is_no_room_clients_are_scheduled_freely_and_that_is_counted() {
    let setting =
        Setting::new(&[1; 2]).with(|setting| setting.templates = Arc::new(Templates::new(1, SLOTS, HashSeed([1, 2]))));
    let mut gateways = setting.workers(1);
    for number in 0..40 {
        open(&mut gateways[0], &client(number, 10_000));
    }
    let counters = &gateways[0].counters[0];
    let missed = counters.templates_full.get();
    assert_eq!((missed + u64::from(setting.templates.len()), counters.templates_busy.get()), (40, 0));
    assert!(missed > 0);
    pass(&mut gateways, 2_000);
    assert!(setting.templates.is_empty());
}

#[test]
fn a_changed_timeout_is_for_new_connections_and_none_lets_templates_die() {
    let setting = Setting::new(&[1; 2]);
    let mut gateways = setting.workers(1);
    let first = open(&mut gateways[0], &client(1, 10_000));
    let changed =
        setting.with(|setting| setting.persistence = Some(Persistence { timeout_seconds: 1000, prefix_len: 32 }));
    changed.adopt(&mut gateways);
    pass(&mut gateways, 250);
    assert_eq!(open(&mut gateways[0], &client(1, 10_001)), first);
    pass(&mut gateways, 900);
    assert_eq!(open(&mut gateways[0], &client(1, 10_002)), first);
    setting.with(|setting| setting.persistence = None).adopt(&mut gateways);
    let freely: Vec<_> = (0..2).map(|port| open(&mut gateways[0], &client(1, 10_003 + port))).collect();
    assert_ne!(freely[0], freely[1]);
    assert_eq!(setting.templates.len(), 1);
    pass(&mut gateways, 1_001);
    pass(&mut gateways, 100);
    assert_eq!(setting.templates.len(), 0);
}

#[test]
fn a_session_that_is_not_set_up_leaves_no_mark() {
    let setting = Setting::new(&[1]).with(|setting| setting.servers[0].mode = ForwardingMode::Nat);
    let mut services = setting.table();
    services.services[0].owned_by_client = true;
    let mut gateways = Gateway::workers(services, 1, 1);
    open(&mut gateways[0], &client(1, 10_000));
    let (verdict, _) = gateways[0].send(WAN, &client(1, 10_001).tcp("S", 1, 0));
    assert_eq!(verdict, Verdict::Drop(DropReason::SessionTableFull));
    assert_eq!(setting.views(&gateways[0])[0].connections, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever comes, when and to which worker: a client whose template lives gets its real server, and at the end nothing
    /// is left.
    #[test]
    fn clients_move_only_when_their_templates_are_over(
        steps in prop::collection::vec((0_u32..20, 0_u16..50, 0_usize..3, 0_u64..40), 1..200)
    ) {
        let setting = Setting::new(&[1, 2, 3])
            .with(|setting| setting.persistence = Some(Persistence { timeout_seconds: 60, prefix_len: 32 }));
        let mut gateways = setting.workers(3);
        let mut known: std::collections::HashMap<u32, (u32, u64)> = std::collections::HashMap::new();
        let mut now = 0;
        for (number, port, worker, wait) in steps {
            pass(&mut gateways, wait);
            now += wait;
            let server = open(&mut gateways[worker], &client(number, 10_000 + port));
            if let Some((before, at)) = known.insert(number, (server, now)) && now - at < 60 {
                prop_assert_eq!(server, before);
            }
        }
        pass(&mut gateways, 1_000);
        pass(&mut gateways, 1_000);
        prop_assert!(setting.templates.is_empty());
        for slot in 0..3 {
            prop_assert_eq!(setting.templates.of_real_server(RealServerSlot(slot)), 0);
        }
    }
}

/// As with shops that are one service on ports 80 and 443: one template for all that has the mark, over TCP and UDP alike.
#[test]
fn a_mark_keeps_a_client_for_all_that_has_it() {
    let setting = Setting::new(&[1, 1, 1]);
    let mut table = setting.table();
    let mark = Mark::new(7).unwrap();
    let service = &mut table.services[0];
    service.key = ServiceKey::new(Protocol::Any, VirtualAddress::marked(mark, false));
    table.by_key = [(service.key, 0)].into_iter().collect();
    table.virtual_addresses.clear();
    let selector = Selector { port: Some(WAN), ..Selector::default() };
    table.marks = Marks::of(vec![MarkRule { selector, mark }], &table.services);
    let mut gateways = Gateway::workers(table, 2, 10_000);
    for number in 0..30 {
        let at = |port: u16, from: u16| Spec { destination: (lab::VIP, port), ..client(number, from) };
        let first = open(&mut gateways[0], &at(80, 1000));
        assert_eq!(open(&mut gateways[1], &at(443, 1001)), first);
        let (_, bytes) = gateways[1].send(WAN, &at(443, 1002).udp());
        assert_eq!(u32::from(lab::see(&bytes).destination.1 - 8080), first, "over UDP");
    }
    let views = setting.views(&gateways[0]);
    assert_eq!(views.len(), 30);
    assert!(views.iter().all(|view| view.key.target() == Some(TemplateTarget::Mark(mark))));
}
