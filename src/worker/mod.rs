//! The poll loop: one worker, one core, never blocking.
//!
//! Each turn it takes a burst from every port's queue, then what other workers handed over and what the kernel sends,
//! puts the forwarder's verdicts into effect, flushes what goes out, and does a bounded bit of housekeeping
//! (`housekeeping.rs`). The only system calls are the wake-up of the control thread, at most once until that has woken,
//! the sleep when idle, if that is asked for, and the reading of CPU time in `turns.rs`, a thousand times a second and
//! after a turn that took long.

mod fragments;
mod housekeeping;
pub mod link;
mod outgoing;
pub mod thread;
mod turns;
mod vlan;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use self::link::{Event, Punt, SessionQuery, Snapshot, WorkerLink};
use self::outgoing::Outgoing;
use self::turns::Turns;
use self::vlan::Receiver;
use crate::config::{Idle, PuntRates};
use crate::forward::early::{self, Early};
use crate::forward::pending::{self, Pending};
use crate::forward::{DropReason, Forwarder, Hop, Now, Origin, PuntClass, TokenBucket, Verdict};
use crate::port::{BURST_SIZE, Frame, PortId, PortPlace, PortQueue, WorkerId};
use crate::session::Tick;
use crate::telemetry::counters::WorkerCounters;

/// Packets that can be on their way from one worker to another at once.
const HAND_OVER_RING: usize = 1024;
/// Empty turns before the first sleep, and the longest sleep, of an idle worker that may sleep.
const TURNS_BEFORE_SLEEP: u32 = 64;
const LONGEST_SLEEP: Duration = Duration::from_micros(100);
/// Turns that a stopping worker takes to send what it has accepted.
const STOPPING_TURNS: usize = 64;

/// A packet on its way to the worker that owns it.
#[derive(Debug)]
pub struct HandOver<F> {
    /// The port that it came in by.
    pub port: PortId,
    /// The packet.
    pub frame: F,
}

/// The rings between workers: `rings[from][to]`, each with one producer and one consumer.
pub type HandOverRings<F> = Arc<Vec<Vec<ArrayQueue<HandOver<F>>>>>;

/// Rings between so many workers.
pub fn hand_over_rings<F>(workers: usize) -> HandOverRings<F> {
    let row = || (0..workers).map(|_| ArrayQueue::new(HAND_OVER_RING)).collect();
    Arc::new((0..workers).map(|_| row()).collect())
}

/// Packets that each of so many workers may hold in rings and lists, device queues not counted: what a packet pool must
/// have room for.
pub fn packets_held(workers: usize, ports: usize) -> u32 {
    let rings = link::PUNT_RING + link::INJECT_RING + workers * HAND_OVER_RING;
    let held = rings + pending::CAPACITY + early::CAPACITY + fragments::AGAIN + ports * outgoing::CAPACITY;
    u32::try_from(held).unwrap_or(u32::MAX)
}

/// A clock that a worker can read in a few nanoseconds.
pub trait Clock {
    /// Nanoseconds since the gateway started; never goes back.
    fn nanoseconds(&self) -> u64;

    /// Nanoseconds of CPU time that the calling thread has had. May take a system call: not for every turn.
    fn cpu_nanoseconds(&self) -> u64;
}

/// What a worker is made of.
#[derive(Debug)]
pub struct WorkerParts<Q: PortQueue, E, C> {
    /// Its number.
    pub worker: WorkerId,
    /// Its forwarding.
    pub forwarder: Forwarder,
    /// Its queue pair on each device.
    pub queues: Vec<Q>,
    /// Where each port is, by port index.
    pub places: Vec<PortPlace>,
    /// Its link to the control thread.
    pub link: Arc<WorkerLink<Q::Frame, E>>,
    /// The rings between all workers.
    pub rings: HandOverRings<Q::Frame>,
    /// What it reads the time from.
    pub clock: C,
    /// What to do when idle.
    pub idle: Idle,
    /// How much the kernel is given.
    pub punt_rates: PuntRates,
    /// The tables that it begins with.
    pub first: Arc<Snapshot>,
}

/// One worker.
#[derive(Debug)]
pub struct Worker<Q: PortQueue, E, C> {
    worker: WorkerId,
    forwarder: Forwarder,
    /// By device.
    queues: Vec<Q>,
    /// By device, too.
    receivers: Vec<Receiver<Q::Frame>>,
    link: Arc<WorkerLink<Q::Frame, E>>,
    rings: HandOverRings<Q::Frame>,
    turns: Turns<C>,
    idle: Idle,
    counters: Arc<WorkerCounters>,
    snapshot: Arc<Snapshot>,
    /// By port.
    outgoing: Vec<Outgoing<Q::Frame>>,
    pending: Pending<Q::Frame>,
    /// Where the look through the waiting packets goes on; none: all have been looked at.
    settling: Option<usize>,
    /// Buckets of templates to be swept in this tick yet.
    sweeping: usize,
    /// Fragments that wait for their first one.
    early: Early<Q::Frame>,
    /// Whether the time of some of these may be over.
    expiring_early: bool,
    /// Packets to be processed once more in this turn: fragments whose first one has come, and pieces of packets that were cut.
    again: Vec<HandOver<Q::Frame>>,
    /// Room for more of these while they are processed, empty in between.
    spare: Vec<HandOver<Q::Frame>>,
    /// Room for the waiting packets that may go, empty in between.
    ready: Vec<(Hop, Q::Frame)>,
    punt_limits: [TokenBucket; PuntClass::COUNT],
    query: Option<SessionQuery>,
    burst: Vec<Q::Frame>,
    /// Whether control has something to do that it was not woken for yet.
    wake_control: bool,
    last_tick: Tick,
}

impl<Q: PortQueue, E: Event, C: Clock> Worker<Q, E, C> {
    /// A worker that has not begun.
    pub fn new(mut parts: WorkerParts<Q, E, C>) -> Self {
        let mut punt_limits = [TokenBucket::new(0); PuntClass::COUNT];
        for (limit, rate) in punt_limits.iter_mut().zip(parts.punt_rates.0) {
            *limit = TokenBucket::new(rate);
        }
        let receiver = |(device, queue): (usize, &Q)| Receiver::of(device, &parts.places, queue.strips_tags());
        let receivers = parts.queues.iter().enumerate().map(receiver).collect();
        let outgoing = |(index, place): (usize, &PortPlace)| Outgoing::new(port_id(index), *place);
        let outgoing = parts.places.iter().enumerate().map(outgoing).collect();
        parts.forwarder.adopt(Arc::clone(&parts.first.services), Arc::clone(&parts.first.routes));
        Self {
            worker: parts.worker,
            forwarder: parts.forwarder,
            outgoing,
            receivers,
            queues: parts.queues,
            counters: Arc::clone(&parts.link.counters),
            link: parts.link,
            rings: parts.rings,
            turns: Turns::new(parts.clock),
            idle: parts.idle,
            snapshot: parts.first,
            pending: Pending::default(),
            settling: None,
            sweeping: 0,
            early: Early::default(),
            expiring_early: false,
            again: Vec::with_capacity(fragments::AGAIN),
            spare: Vec::with_capacity(fragments::AGAIN),
            ready: Vec::with_capacity(housekeeping::SETTLE_STEPS),
            punt_limits,
            query: None,
            burst: Vec::with_capacity(BURST_SIZE),
            wake_control: false,
            last_tick: Tick(0),
        }
    }

    /// Polls until control says stop, then sends what is under way and returns.
    pub fn run(mut self) {
        let start = self.turns.started();
        let mut idle_turns = 0u32;
        while !self.link.stop.load(Ordering::Relaxed) {
            let worked = self.turn();
            let took = self.turns.end(&self.counters);
            if worked {
                self.counters.busy_nanoseconds.add(took);
                idle_turns = 0;
            } else {
                idle_turns = idle_turns.saturating_add(1);
                self.rest(idle_turns);
            }
            self.counters.total_nanoseconds.set(self.turns.started() - start);
        }
        self.finish();
    }

    /// One turn; whether there was anything to do.
    fn turn(&mut self) -> bool {
        let now = Now::from_nanoseconds(self.turns.started());
        let created = self.counters.sessions_created.get();
        if !self.link.snapshots.is_empty() {
            self.adopt_snapshot();
        }
        let mut worked = self.receive_all(now);
        worked |= self.take_over(now);
        self.process_again(now);
        worked |= self.inject();
        self.flush();
        if worked {
            self.counters.burst_times.record(self.turns.lasted());
        }
        let created = self.counters.sessions_created.get() - created;
        self.housekeep(now, created);
        if std::mem::take(&mut self.wake_control) {
            self.link.waker.wake();
        }
        worked
    }

    /// A burst from every device.
    fn receive_all(&mut self, now: Now) -> bool {
        let mut worked = false;
        for index in 0..self.queues.len() {
            let mut burst = std::mem::take(&mut self.burst);
            if self.queues[index].receive(&mut burst) > 0 {
                worked = true;
                self.counters.bursts.add(1);
                let owner = self.receivers[index].owner();
                let received = &self.counters.ports[owner.index()].received;
                received.packets.add(burst.len() as u64);
                received.bytes.add(burst.iter().map(|frame| frame.packet_len() as u64).sum());
                match self.receivers[index] {
                    Receiver::Port(port) => self.process(port, &mut burst, Origin::Queue, now),
                    Receiver::Vlans(_) => self.process_by_vlan(index, &mut burst, now),
                }
            }
            self.burst = burst;
        }
        worked
    }

    /// What other workers took this one to be the owner of.
    fn take_over(&mut self, now: Now) -> bool {
        let mut worked = false;
        for from in 0..self.rings.len() {
            let mut burst = std::mem::take(&mut self.burst);
            let mut port = None;
            // So many of each ring in a turn, however they are divided among ports: the rest of the turn must come.
            for _packet in 0..BURST_SIZE {
                let Some(handed_over) = self.rings[from][self.worker.index()].pop() else { break };
                // A burst is of one port: a packet of another one begins the next.
                if port.is_some_and(|port| port != handed_over.port) {
                    self.process(port.unwrap_or(handed_over.port), &mut burst, Origin::HandedOver, now);
                }
                port = Some(handed_over.port);
                burst.push(handed_over.frame);
                self.counters.handovers_received.add(1);
            }
            if let Some(port) = port {
                worked = true;
                self.process(port, &mut burst, Origin::HandedOver, now);
            }
            self.burst = burst;
        }
        worked
    }

    /// Puts a burst through the forwarder and its verdicts into effect; leaves `burst` empty.
    fn process(&mut self, port: PortId, burst: &mut Vec<Q::Frame>, origin: Origin, now: Now) {
        let mut verdicts = [Verdict::Drop(DropReason::NotLocal); BURST_SIZE];
        self.forwarder.process(port, burst, origin, now, &mut verdicts);
        if let Some(out) = sole_port(&verdicts[..burst.len()])
            && let Some(outgoing) = self.outgoing.get_mut(out.index())
            && let Some(queue) = self.queues.get_mut(outgoing.device())
        {
            outgoing.append(burst, queue, &self.counters);
            self.release_early();
            return;
        }
        for (frame, verdict) in burst.drain(..).zip(verdicts) {
            match verdict {
                Verdict::Transmit(out) => self.transmit(out, frame),
                Verdict::Drop(reason) => self.counters.drop_packets(reason, 1),
                Verdict::HandOver(owner) => self.hand_over(owner, HandOver { port, frame }),
                Verdict::Punt(class) => self.punt(Punt { port, class, frame }, now),
                Verdict::AwaitNeighbour(hop) => self.await_neighbour(hop, frame, now),
                Verdict::AwaitFragment(datagram) => self.await_fragment(datagram, port, frame, now),
                Verdict::Cut(mtu) => self.cut(port, &frame, mtu),
            }
        }
        // Of one burst, too, some may have come before their first.
        self.release_early();
    }

    fn transmit(&mut self, port: PortId, frame: Q::Frame) {
        if let Some(outgoing) = self.outgoing.get_mut(port.index())
            && let Some(queue) = self.queues.get_mut(outgoing.device())
        {
            outgoing.push(frame, queue, &self.counters);
        } else {
            self.counters.drop_packets(DropReason::NoRoute, 1);
        }
    }

    fn hand_over(&self, owner: WorkerId, packet: HandOver<Q::Frame>) {
        let ring = self.rings.get(self.worker.index()).and_then(|row| row.get(owner.index()));
        let port = packet.port.index();
        match ring.map(|ring| ring.push(packet)) {
            Some(Ok(())) => {
                self.counters.handovers.add(1);
                if let Some(port) = self.counters.ports.get(port) {
                    port.handed_over.add(1);
                }
            }
            _ => self.counters.drop_packets(DropReason::HandOverFull, 1),
        }
    }

    fn punt(&mut self, punt: Punt<Q::Frame>, now: Now) {
        let class = punt.class as usize;
        if !self.punt_limits[class].take(now.nanoseconds) {
            self.counters.drop_packets(DropReason::PuntRateLimited, 1);
            return;
        }
        self.wake_control = true;
        // The last quarter of the ring is for what keeps neighbours and routing alive.
        let keep = if punt.class.is_vital() { 0 } else { link::PUNT_RING / 4 };
        if self.link.punts.len() + keep >= link::PUNT_RING {
            self.counters.drop_packets(DropReason::PuntFull, 1);
            return;
        }
        match self.link.punts.push(punt) {
            Ok(()) => self.counters.punts[class].add(1),
            Err(_) => self.counters.drop_packets(DropReason::PuntFull, 1),
        }
    }

    fn await_neighbour(&mut self, hop: Hop, frame: Q::Frame, now: Now) {
        match self.pending.push(hop, frame, now.tick) {
            Ok(true) => self.ask_for(hop),
            Ok(false) => {}
            Err(_) => self.counters.drop_packets(DropReason::NeighbourQueueFull, 1),
        }
    }

    /// Asks control to have the kernel resolve a hop. A full ring is no loss: waiting hops are asked for again.
    fn ask_for(&mut self, hop: Hop) {
        let _ = self.link.unresolved.push(hop);
        self.wake_control = true;
    }

    /// Frames from the kernel, as they are.
    fn inject(&mut self) -> bool {
        let mut count = 0;
        while count < BURST_SIZE
            && let Some(inject) = self.link.injects.pop()
        {
            self.transmit(inject.port, inject.frame);
            self.counters.injected.add(1);
            count += 1;
        }
        count > 0
    }

    fn flush(&mut self) {
        for outgoing in &mut self.outgoing {
            if let Some(queue) = self.queues.get_mut(outgoing.device()) {
                outgoing.flush(queue, &self.counters);
            }
        }
    }

    fn rest(&mut self, idle_turns: u32) {
        match self.idle {
            Idle::Sleep if idle_turns > TURNS_BEFORE_SLEEP => {
                let turns = idle_turns - TURNS_BEFORE_SLEEP;
                std::thread::sleep(LONGEST_SLEEP.min(Duration::from_micros(turns.into())));
                self.turns.slept();
            }
            _ => std::hint::spin_loop(),
        }
    }

    /// Sends what was accepted, and counts what cannot be sent any more.
    fn finish(mut self) {
        for _turn in 0..STOPPING_TURNS {
            let now = Now::from_nanoseconds(self.turns.started() + self.turns.lasted());
            self.take_over(now);
            self.process_again(now);
            self.inject();
            self.flush();
        }
        let mut left = self.pending.len()
            + self.early.len()
            + self.again.len()
            + self.outgoing.iter().map(Outgoing::len).sum::<usize>();
        for from in self.rings.iter().filter_map(|row| row.get(self.worker.index())) {
            left += std::iter::from_fn(|| from.pop()).count();
        }
        left += std::iter::from_fn(|| self.link.injects.pop()).count();
        self.counters.drop_packets(DropReason::Stopping, left as u64);
    }
}

/// The port that all packets of a burst go out of, if it is one and the same: the way of nearly every burst.
#[inline]
fn sole_port(verdicts: &[Verdict]) -> Option<PortId> {
    let &Verdict::Transmit(out) = verdicts.first()? else { return None };
    verdicts.iter().all(|&verdict| matches!(verdict, Verdict::Transmit(port) if port == out)).then_some(out)
}

/// The id of the port at an index: there are at most [`crate::port::MAX_PORTS`].
fn port_id(index: usize) -> PortId {
    PortId(u8::try_from(index).unwrap_or(u8::MAX))
}
