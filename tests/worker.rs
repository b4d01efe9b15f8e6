//! A worker's turns over ports in memory, on a clock that the test sets: what is bounded, and what is recorded of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "the forwarding tests use all of it")]
#[path = "forwarding/lab.rs"]
mod lab;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fullgate::balance::{Protocol, ServiceTable, Timeouts};
use fullgate::config::{Idle, PuntRates};
use fullgate::forward::cut::cut;
use fullgate::forward::{DropReason, PuntClass};
use fullgate::port::memory::MemoryFrame;
use fullgate::port::{BURST_SIZE, Frame, PortId, PortPlace, PortQueue, VlanId, WorkerId};
use fullgate::route::RouteTable;
use fullgate::worker::link::{self, Event, Inject, SessionQuery, Snapshot, Waker, WorkerLink};
use fullgate::worker::{Clock, Worker, WorkerParts, hand_over_rings};
use lab::{Gateway, PORTS, SERVER};

struct NoEvent;

impl Event for NoEvent {
    fn raise(&self) {}
}

type Link = Arc<WorkerLink<MemoryFrame, NoEvent>>;

/// Moves on by as much at each reading; of that, the thread had all.
#[derive(Clone)]
struct Ticking {
    now: Rc<Cell<u64>>,
    step: u64,
}

impl Clock for Ticking {
    fn nanoseconds(&self) -> u64 {
        self.now.set(self.now.get() + self.step);
        self.now.get()
    }

    fn cpu_nanoseconds(&self) -> u64 {
        self.now.get()
    }
}

/// Gives a burst a turn, takes whatever comes, and calls `each_turn` with the number of the turn.
struct Script<T> {
    bursts: VecDeque<Vec<MemoryFrame>>,
    turn: u32,
    each_turn: T,
}

impl<T: FnMut(u32)> PortQueue for Script<T> {
    type Frame = MemoryFrame;

    fn receive(&mut self, into: &mut Vec<MemoryFrame>) -> usize {
        self.turn += 1;
        (self.each_turn)(self.turn);
        into.extend(self.bursts.pop_front().unwrap_or_default());
        into.len()
    }

    fn transmit(&mut self, frames: &mut Vec<MemoryFrame>) -> usize {
        frames.drain(..).count()
    }
}

fn services(udp_seconds: u32) -> ServiceTable {
    let mut table = lab::table(vec![lab::service(Protocol::Udp, vec![lab::server(0, SERVER, 1)])], PORTS);
    table.timeouts = Timeouts { udp: udp_seconds, ..Timeouts::default() };
    table
}

/// The n-th burst of as many new sessions.
fn opening(n: u16) -> Vec<MemoryFrame> {
    let packet = |of: u16| {
        let source = (Ipv4Addr::new(10, 0, 0, 2), 1024 + n * BURST_SIZE as u16 + of);
        MemoryFrame::new(&lab::Spec { source, ..lab::from_client(&[0; 18]) }.udp())
    };
    (0..BURST_SIZE as u16).map(packet).collect()
}

/// Runs a worker on these bursts until `each_turn` has the link stop it.
fn run(
    services: ServiceTable,
    step: u64,
    bursts: impl IntoIterator<Item = Vec<MemoryFrame>>,
    each_turn: impl Fn(&Link, u32),
) -> Link {
    run_published(services, None, step, bursts, each_turn)
}

/// The same with other services published before the first turn.
fn run_published(
    services: ServiceTable,
    published: Option<ServiceTable>,
    step: u64,
    bursts: impl IntoIterator<Item = Vec<MemoryFrame>>,
    each_turn: impl Fn(&Link, u32),
) -> Link {
    let gateway = Gateway::with(services.clone(), 1, WorkerId(0), 10_000);
    let link = Arc::new(WorkerLink::new(WorkerId(0), gateway.counters[0].clone(), Arc::new(Waker::new(NoEvent))));
    let routes = RouteTable::new(&lab::routes(&lab::NEIGHBOURS, 1500), None);
    let routes = Arc::new(routes);
    if let Some(services) = published {
        let snapshot = Snapshot { services: Arc::new(services), routes: routes.clone() };
        link.snapshots.push(Arc::new(snapshot)).unwrap();
    }
    let own = link.clone();
    let queue = |bursts, each_turn| Script { bursts, turn: 0, each_turn };
    let wan = Box::new(move |turn| each_turn(&own, turn)) as Box<dyn FnMut(u32)>;
    let parts = WorkerParts {
        worker: WorkerId(0),
        forwarder: gateway.forwarder,
        queues: vec![
            queue(bursts.into_iter().collect(), wan),
            queue(VecDeque::new(), Box::new(|_| {}) as Box<dyn FnMut(u32)>),
        ],
        places: vec![PortPlace::whole_device(lab::WAN), PortPlace::whole_device(lab::LAN)],
        link: link.clone(),
        rings: hand_over_rings(1),
        clock: Ticking { now: Rc::new(Cell::new(0)), step },
        idle: Idle::Spin,
        punt_rates: PuntRates([20_000; PuntClass::COUNT]),
        first: Arc::new(Snapshot { services: Arc::new(services), routes }),
    };
    Worker::new(parts).run();
    link
}

fn stop_after(turns: u32) -> impl Fn(&Link, u32) {
    move |link, turn| link.stop.store(turn >= turns, Ordering::Relaxed)
}

#[test]
fn gaps_of_all_turns_and_times_of_bursts_are_recorded() {
    // The clock is read after each turn, and after the packets of the three turns that have any.
    let link = run(services(300), 1_000, (0..3).map(opening), stop_after(10));
    let (gaps, bursts) = (link.counters.poll_gaps.read(), link.counters.burst_times.read());
    assert_eq!((gaps.count(), gaps.sum_nanoseconds, gaps.worst_nanoseconds), (10, 13_000, 2_000));
    assert_eq!((bursts.count(), bursts.worst_nanoseconds), (3, 1_000));
    assert_eq!(link.counters.stalls.read().count(), 0);
    assert_eq!((link.counters.busy_nanoseconds.get(), link.counters.total_nanoseconds.get()), (6_000, 13_000));
}

#[test]
fn long_turns_are_looked_into() {
    let link = run(services(300), 30_000, [], stop_after(5));
    let stalls = link.counters.stalls.read();
    assert_eq!((stalls.count(), stalls.worst_nanoseconds), (5, 30_000));
    assert_eq!(link.counters.preempted_nanoseconds.get(), 0);
}

#[test]
fn a_worker_that_is_always_late_still_ends_as_many_sessions_as_it_begins() {
    // Each reading is 60 ms after the last: every turn is late from its beginning, and a second is nine turns.
    let link = run(services(1), 60_000_000, (0..200).map(opening), stop_after(200));
    let created = link.counters.sessions_created.get();
    assert_eq!(created, 200 * BURST_SIZE as u64);
    let live = link.counters.sessions.get();
    assert!(live <= 12 * BURST_SIZE as u64, "{live} sessions are left");
}

#[test]
fn a_turn_ends_a_bounded_number_of_sessions() {
    // 1,920 sessions end at once, while nothing else is to be done.
    let seen = Rc::new(Cell::new((0, 0)));
    let worst = seen.clone();
    let each_turn = move |link: &Link, turn: u32| {
        let ended = link.counters.sessions_expired.get();
        let (before, most) = worst.get();
        worst.set((ended, most.max(ended - before)));
        link.stop.store(turn > 64 && link.counters.sessions.get() == 0, Ordering::Relaxed);
    };
    // A turn without packets is 100 microseconds: none begins a second step of expiry.
    run(services(1), 100_000, (0..60).map(opening), each_turn);
    assert_eq!(seen.get(), (1920, 16));
}

#[test]
fn a_walk_goes_on_though_every_turn_is_late() {
    let each_turn = |link: &Link, turn: u32| {
        if turn == 11 {
            link.queries.push(SessionQuery { next: 0, found: Vec::with_capacity(1000), done: false }).unwrap();
        }
        link.stop.store(turn == 21, Ordering::Relaxed);
    };
    let link = run(services(300), 100_000, (0..10).map(opening), each_turn);
    let answer = link.answers.pop().unwrap();
    assert_eq!((answer.done, answer.found.len()), (true, 10 * BURST_SIZE));
}

#[test]
fn new_tables_and_walks_come_back_at_once() {
    let each_turn = |link: &Link, turn: u32| match turn {
        1 => {
            let tables = (2..6).map(|generation| ServiceTable { generation, ..services(300) });
            for services in tables {
                let snapshot = Snapshot { services: Arc::new(services), routes: Arc::default() };
                link.snapshots.push(Arc::new(snapshot)).unwrap();
            }
            link.queries.push(SessionQuery { next: 0, found: Vec::with_capacity(1000), done: false }).unwrap();
        }
        _ => link.stop.store(turn == 4, Ordering::Relaxed),
    };
    let link = run(services(300), 1_000, [opening(0)], each_turn);
    let retired: Vec<_> = std::iter::from_fn(|| link.retired.pop()).map(|old| old.services.generation).collect();
    assert_eq!(retired, [1, 2, 3, 4]);
    let answer = link.answers.pop().unwrap();
    assert_eq!((answer.done, answer.found.len()), (true, BURST_SIZE));
}

/// A command returns when control has published: what is sent after it finds the new tables.
#[test]
fn a_flood_of_other_ipv6_leaves_neighbour_discovery_its_way_to_the_kernel() {
    let message = |kind| {
        let mut frame = Vec::new();
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
        etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 1, 1], [0x33, 0x33, 0, 0, 0, 1])
            .ipv6([0xfe; 16], all_nodes, 255)
            .icmpv6_raw(kind, 0, [0; 4])
            .write(&mut frame, &[0; 16])
            .unwrap();
        MemoryFrame::new(&frame)
    };
    // More than its class may have at once, and than the ring takes, which nobody empties here.
    let (echo, solicitation) = (message(128), message(135));
    let flood = || (0..BURST_SIZE).map(|_| echo.clone()).collect::<Vec<_>>();
    let bursts = (0..125).map(|_| flood()).chain([(0..BURST_SIZE).map(|_| solicitation.clone()).collect()]);
    let link = run(services(300), 1_000, bursts, stop_after(130));
    let punts = |class| link.counters.punts[class as usize].get();
    assert_eq!(punts(PuntClass::Ipv6), (link::PUNT_RING * 3 / 4) as u64);
    assert_eq!(punts(PuntClass::NeighbourDiscovery), BURST_SIZE as u64);
}

#[test]
fn packets_find_what_was_published_before_they_came() {
    let nothing = ServiceTable { generation: 1, ..ServiceTable::default() };
    let published = ServiceTable { generation: 2, ..services(300) };
    let link = run_published(nothing, Some(published), 1_000, [opening(0)], stop_after(2));
    assert_eq!(link.counters.sessions_created.get(), BURST_SIZE as u64);
}

/// Sends what it is told by its first port, and notes what leaves by the second.
fn run_noting(
    bursts: Vec<Vec<MemoryFrame>>,
    mtu: u16,
    each_turn: impl Fn(&Link, u32) + 'static,
) -> (Link, Vec<Vec<u8>>) {
    let gateway = Gateway::with(services(300), 1, WorkerId(0), 10_000);
    let link = Arc::new(WorkerLink::new(WorkerId(0), gateway.counters[0].clone(), Arc::new(Waker::new(NoEvent))));
    let routes = Arc::new(RouteTable::new(&lab::routes(&lab::NEIGHBOURS, mtu), None));
    let (own, sent) = (link.clone(), Rc::new(RefCell::new(Vec::new())));
    let wan = Noting {
        bursts: bursts.into(),
        turn: 0,
        each_turn: Box::new(move |turn| each_turn(&own, turn)),
        sent: Rc::default(),
    };
    let lan = Noting { bursts: VecDeque::new(), turn: 0, each_turn: Box::new(|_| {}), sent: sent.clone() };
    let parts = WorkerParts {
        worker: WorkerId(0),
        forwarder: gateway.forwarder,
        queues: vec![wan, lan],
        places: vec![PortPlace::whole_device(lab::WAN), PortPlace::whole_device(lab::LAN)],
        link: link.clone(),
        rings: hand_over_rings(1),
        clock: Ticking { now: Rc::new(Cell::new(0)), step: 50_000_000 },
        idle: Idle::Spin,
        punt_rates: PuntRates([0; PuntClass::COUNT]),
        first: Arc::new(Snapshot { services: Arc::new(services(300)), routes }),
    };
    Worker::new(parts).run();
    (link, sent.take())
}

struct Noting {
    bursts: VecDeque<Vec<MemoryFrame>>,
    turn: u32,
    each_turn: Box<dyn FnMut(u32)>,
    sent: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl PortQueue for Noting {
    type Frame = MemoryFrame;

    fn receive(&mut self, into: &mut Vec<MemoryFrame>) -> usize {
        self.turn += 1;
        (self.each_turn)(self.turn);
        into.extend(self.bursts.pop_front().unwrap_or_default());
        into.len()
    }

    fn transmit(&mut self, frames: &mut Vec<MemoryFrame>) -> usize {
        self.sent.borrow_mut().extend(frames.iter().map(|frame| frame.bytes().to_vec()));
        frames.drain(..).count()
    }
}

/// A packet that may be fragmented, and the pieces that it is cut into for this MTU.
fn datagram_of(payload: usize, mtu: u16) -> (MemoryFrame, Vec<MemoryFrame>) {
    let mut whole = lab::from_client(&vec![7; payload]).udp();
    whole[20] = 0;
    let header = etherparse::Ipv4Header::from_slice(&whole[14..]).unwrap().0;
    whole[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    let (whole, mut pieces) = (MemoryFrame::new(&whole), Vec::new());
    cut(&whole, mtu, |piece| pieces.push(piece)).unwrap();
    (whole, pieces)
}

fn datagram(mtu: u16) -> (MemoryFrame, Vec<MemoryFrame>) {
    datagram_of(1400, mtu)
}

#[test]
fn early_fragments_leave_with_their_first_one_or_in_time() {
    let (_, mut pieces) = datagram(500);
    pieces.reverse();
    let first = pieces.pop().unwrap();
    let burst = |frames: &[MemoryFrame]| frames.to_vec();
    // Within one burst; in two; never.
    for (bursts, sent, drops, turns) in [
        (vec![[burst(&pieces), vec![first.clone()]].concat()], pieces.len() + 1, 0, 3),
        (vec![burst(&pieces), vec![first.clone()]], pieces.len() + 1, 0, 4),
        (vec![burst(&pieces)], 0, pieces.len() as u64, 130),
    ] {
        let (link, out) = run_noting(bursts, 1500, move |link, turn| link.stop.store(turn >= turns, Ordering::Relaxed));
        let dropped = link.counters.drops[DropReason::FragmentTimeout as usize].get();
        assert_eq!((out.len(), dropped, link.counters.fragments_waiting.get()), (sent, drops, 0));
        assert_eq!(link.counters.fragments_forwarded.get(), sent as u64);
    }
}

#[test]
fn a_packet_too_large_for_its_link_leaves_in_pieces() {
    let (whole, pieces) = datagram(500);
    // As one packet, then as two pieces, the second of which fits.
    let coarse = datagram(1000).1;
    for (burst, fit) in [(vec![whole], 0), (coarse, 1)] {
        let (link, out) = run_noting(vec![burst], 500, |link, turn| link.stop.store(turn >= 3, Ordering::Relaxed));
        assert!(out.len() >= pieces.len() && out.iter().all(|frame| frame.len() <= 514));
        assert_eq!(link.counters.fragments_created.get(), out.len() as u64 - fit);
        assert_eq!(link.counters.drops.iter().map(|drops| drops.get()).sum::<u64>(), 0);
    }
}

/// Pieces beyond what one turn processes are dropped by name, and the rest passes.
#[test]
fn cutting_is_bounded() {
    let bursts = (0..4).map(|_| (0..BURST_SIZE).map(|_| datagram_of(2800, 500).0).collect()).collect();
    let (link, out) = run_noting(bursts, 68, |link, turn| link.stop.store(turn >= 10, Ordering::Relaxed));
    let dropped = link.counters.drops[DropReason::TooBig as usize].get();
    assert!(dropped > 0);
    assert_eq!(out.len() as u64 + dropped * 59, 4 * BURST_SIZE as u64 * 59);
}

#[test]
fn fragments_that_wait_when_the_worker_stops_are_counted() {
    let (_, pieces) = datagram(500);
    let (link, _) =
        run_noting(vec![pieces[1..].to_vec()], 1500, |link, turn| link.stop.store(turn >= 2, Ordering::Relaxed));
    assert_eq!(link.counters.drops[DropReason::Stopping as usize].get(), pieces.len() as u64 - 1);
}

/// A device with two VLANs: gives its bursts, one a turn, and keeps what is sent.
struct Trunk {
    bursts: VecDeque<Vec<MemoryFrame>>,
    sent: Rc<RefCell<Vec<Vec<u8>>>>,
    link: Link,
}

impl PortQueue for Trunk {
    type Frame = MemoryFrame;

    fn receive(&mut self, into: &mut Vec<MemoryFrame>) -> usize {
        self.link.stop.store(self.bursts.is_empty(), Ordering::Relaxed);
        into.extend(self.bursts.pop_front().unwrap_or_default());
        into.len()
    }

    fn transmit(&mut self, frames: &mut Vec<MemoryFrame>) -> usize {
        let count = frames.len();
        self.sent.borrow_mut().extend(frames.drain(..).map(|frame| frame.bytes().to_vec()));
        count
    }
}

fn tagged(packet: &[u8], vlan: u16) -> Vec<u8> {
    [&packet[..12], &[0x81, 0], &vlan.to_be_bytes(), &packet[12..]].concat()
}

/// Of two workers the first: its own sessions leave with the other VLAN's tag; what it hands over, and what the
/// kernel gets, has none and is its port's; what the kernel sends gets one.
#[test]
fn vlans_of_a_device_are_ports_to_all_but_the_device() {
    const TRUNK: PortId = PortId(2);
    let gateway = Gateway::with(services(300), 2, WorkerId(0), 10_000);
    let counters = gateway.counters[0].clone();
    let link = Arc::new(WorkerLink::new(WorkerId(0), counters.clone(), Arc::new(Waker::new(NoEvent))));
    let (sent, rings) = (Rc::default(), hand_over_rings(2));
    let client = |of: u16| {
        let source = (Ipv4Addr::new(10, 0, 0, 2), 2000 + of);
        lab::Spec { source, ..lab::from_client(&[0; 18]) }.udp()
    };
    let mut arp = client(0);
    arp[..6].fill(0xff);
    arp[12..14].copy_from_slice(&[8, 6]);
    // Of both VLANs and of none at once, in one burst.
    let mut burst: Vec<_> = (0..20).map(|of| MemoryFrame::new(&tagged(&client(of), 100))).collect();
    burst.insert(3, MemoryFrame::new(&tagged(&arp, 200)));
    burst.insert(7, MemoryFrame::new(&tagged(&arp, 300)));
    burst.insert(9, MemoryFrame::new(&arp));
    link.injects.push(Inject { port: lab::WAN, frame: MemoryFrame::new(&arp) }).unwrap();
    let place = |vlan| PortPlace { device: 0, owner: TRUNK, vlan: VlanId::new(vlan) };
    let parts = WorkerParts {
        worker: WorkerId(0),
        forwarder: gateway.forwarder,
        queues: vec![Trunk { bursts: [burst].into(), sent: Rc::clone(&sent), link: link.clone() }],
        places: vec![place(100), place(200), place(0)],
        link: link.clone(),
        rings: rings.clone(),
        clock: Ticking { now: Rc::new(Cell::new(0)), step: 1_000 },
        idle: Idle::Spin,
        punt_rates: PuntRates([1000; PuntClass::COUNT]),
        first: Arc::new(Snapshot {
            services: Arc::new(services(300)),
            routes: Arc::new(RouteTable::new(&lab::routes(&lab::NEIGHBOURS, 1500), None)),
        }),
    };
    Worker::new(parts).run();

    let sent = sent.borrow();
    let (from_kernel, forwarded): (Vec<_>, Vec<_>) = sent.iter().partition(|frame| frame[16..18] == [8, 6]);
    assert_eq!(from_kernel, [&tagged(&arp, 100)]);
    assert!(
        forwarded.iter().all(|frame| frame[12..18] == [0x81, 0, 0, 200, 8, 0] && frame.len() == 64),
        "{forwarded:?}"
    );
    let handed_over: Vec<_> = std::iter::from_fn(|| rings[0][1].pop()).collect();
    assert!(handed_over.iter().all(|each| each.port == lab::WAN && each.frame.bytes()[12..14] == [8, 0]));
    assert!(handed_over.len() > 2 && forwarded.len() > 2, "each worker has some of the sessions");
    assert_eq!(handed_over.len() + forwarded.len(), 20);
    let punt = link.punts.pop().unwrap();
    assert_eq!((punt.port, punt.frame.bytes()), (lab::LAN, &arp[..]));
    assert!(link.punts.pop().is_none(), "the untagged one's port is not known to the forwarder here");
    assert_eq!(counters.drops[DropReason::UnknownVlan as usize].get(), 1);
    let traffic = |port: PortId| {
        let port = &counters.ports[port.index()];
        (port.received.packets.get(), port.transmitted.packets.get())
    };
    let out = forwarded.len() as u64;
    assert_eq!((traffic(lab::WAN), traffic(lab::LAN), traffic(TRUNK)), ((20, 1), (1, out), (23, out + 1)));
}
