//! The fast path, and what it falls back to.
//!
//! [`Forwarder::process`] takes a burst through its steps: parse and hash all (`flows`), look all up, forward
//! those that have a session, then see to the rest. A packet of a known session costs a line of the index, a line of the table, one
//! copied Ethernet header and two incremental checksums. What has no session (`miss`) may set one up (`fullnat`), be answered
//! (`answer`), be handed to the worker that owns it, go to the kernel, or be a counted drop.
//!
//! Nothing here allocates per packet, locks, logs or makes a system call, and no bytes make it panic.

mod accounting;
mod answer;
mod balancer;
mod flows;
mod fullnat;
mod miss;
pub mod parse;
pub mod pending;
pub mod rewrite;
mod token_bucket;
mod verdict;

use std::sync::Arc;

use pages::Region;

pub use self::token_bucket::TokenBucket;
pub use self::verdict::{DropReason, Hop, PuntClass, Verdict};

use self::balancer::Balancer;
use self::flows::{Flows, all, bits};
use self::parse::Packet;
use crate::balance::ServiceTable;
use crate::flow::{Direction, HashSeed};
use crate::port::{BURST_SIZE, Frame, MacAddress, PortId, WorkerId};
use crate::route::{HopEntry, Resolution, RouteTable};
use crate::session::local_port::LocalPorts;
use crate::session::tcp_state::TimeoutTable;
use crate::session::{self, Found, SessionTable, SessionView, Tick};
use crate::telemetry::counters::WorkerCounters;
use crate::wire::ethernet;
use crate::wire::icmp;
use crate::wire::tcp::Flags;

/// ICMP errors that one worker sends a second at most (the kernel's icmp_msgs_per_sec).
const ICMP_ERRORS_PER_SECOND: u32 = 1000;
/// Bytes of the shortest Ethernet frame without its FCS: what pads a packet up to it is not cut off.
const MIN_FRAME: usize = 60;

/// How packets of one flow come to one worker on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    /// The device keeps a flow on one queue: a client's packets belong to the worker that they arrive at.
    Rss,
    /// It may not: the owner is computed, and packets are handed over.
    Software,
}

/// What the forwarder knows of a port.
#[derive(Clone, Copy, Debug)]
pub struct PortView {
    /// Its own link-layer address.
    pub mac: MacAddress,
    /// Whether frames for other addresses are taken too.
    pub promiscuous: bool,
    /// How flows come to workers.
    pub steering: Steering,
}

/// How a burst reached this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From its own receive queue.
    Queue,
    /// From another worker, which took this one for the owner.
    HandedOver,
}

/// The moment of a burst, read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds since the gateway started.
    pub nanoseconds: u64,
    /// The same for sessions.
    pub tick: Tick,
}

impl Now {
    /// A moment so many nanoseconds after the gateway started.
    pub fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self { nanoseconds, tick: Tick::from_nanoseconds(nanoseconds) }
    }
}

/// What [`Forwarder::expire`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiryStep {
    /// Sessions that it looked at.
    pub looked_at: u32,
    /// Whether there may be more whose time is over.
    pub more: bool,
}

/// What a worker needs to be told at start.
#[derive(Clone, Debug)]
pub struct ForwarderConfig {
    /// Which worker this is.
    pub worker: WorkerId,
    /// Of how many.
    pub workers: u8,
    /// By port index.
    pub ports: Vec<PortView>,
    /// Sessions that it can hold.
    pub session_capacity: u32,
    /// The gateway's secret, the same for all workers.
    pub seed: HashSeed,
    /// Every worker's counters; its own are at its index.
    pub counters: Arc<[Arc<WorkerCounters>]>,
}

/// One worker's forwarding: its sessions, its local ports, and the tables that all workers share.
#[derive(Debug)]
pub struct Forwarder {
    worker: WorkerId,
    workers: u8,
    ports: Vec<PortView>,
    services: Arc<ServiceTable>,
    routes: Arc<RouteTable>,
    sessions: SessionTable,
    local_ports: LocalPorts,
    balancer: Balancer,
    /// By service cursor: the local address taken last from its pool.
    local_turns: Vec<usize>,
    timeouts: TimeoutTable,
    counters: Arc<WorkerCounters>,
    icmp_errors: TokenBucket,
    seed: HashSeed,
}

impl Forwarder {
    /// A forwarder without services and routes, with memory of the heap. None if its index is not among the counters.
    pub fn new(config: ForwarderConfig, now: Now) -> Option<Self> {
        let mut region = Region::on_heap(session::memory_bytes(config.session_capacity));
        Self::in_region(config, &mut region, now)
    }

    /// The same with memory of a region. None, too, if that has not as many bytes left as [`session::memory_bytes`]
    /// says.
    pub fn in_region(config: ForwarderConfig, region: &mut Region, now: Now) -> Option<Self> {
        let (capacity, workers) = (config.session_capacity, config.workers.max(1));
        let counters = config.counters.get(config.worker.index())?.clone();
        let services = Arc::new(ServiceTable::default());
        Some(Self {
            worker: config.worker,
            workers,
            ports: config.ports,
            timeouts: TimeoutTable::new(&services.timeouts),
            services,
            routes: Arc::default(),
            sessions: SessionTable::cut(region, capacity, config.seed, now.tick)?,
            local_ports: LocalPorts::new(config.worker, workers),
            balancer: Balancer::new(config.counters),
            local_turns: vec![0; balancer::CURSORS],
            counters,
            icmp_errors: TokenBucket::new(ICMP_ERRORS_PER_SECOND),
            seed: config.seed,
        })
    }

    /// Goes over to new tables. To be called between bursts. The old ones are given back for someone else to drop. What
    /// it costs does not depend on how many services there are.
    pub fn adopt(
        &mut self,
        services: Arc<ServiceTable>,
        routes: Arc<RouteTable>,
    ) -> (Arc<ServiceTable>, Arc<RouteTable>) {
        self.balancer.adopt(&services);
        if self.local_turns.len() < services.cursor_count {
            self.local_turns.resize(services.cursor_count, 0);
        }
        self.timeouts = TimeoutTable::new(&services.timeouts);
        for (port, view) in (0..).map(PortId).zip(&mut self.ports) {
            view.mac = routes.interface(port).map_or(view.mac, |interface| interface.mac);
        }
        (std::mem::replace(&mut self.services, services), std::mem::replace(&mut self.routes, routes))
    }

    /// Takes a burst of at most [`BURST_SIZE`] frames that came in by `port`, and gives the verdict on each.
    pub fn process<F: Frame>(
        &mut self,
        port: PortId,
        frames: &mut [F],
        origin: Origin,
        now: Now,
        verdicts: &mut [Verdict; BURST_SIZE],
    ) {
        let Some(&view) = self.ports.get(port.index()) else {
            verdicts.fill(Verdict::Drop(DropReason::NotLocal));
            return;
        };
        let flows = Flows::of(&self.sessions, view, frames);
        let (hits, found) = self.confirm(&flows);
        for index in bits(hits) {
            verdicts[index] = self.forward_hit(port, &mut frames[index], &flows.packets[index], found[index], now);
        }
        for index in bits(all(frames.len()) & !hits) {
            verdicts[index] = self.miss(port, &mut frames[index], flows.plain_packet(index), origin, now);
        }
    }

    /// The packets whose candidate is their session, and these. Has loaded what they are counted in.
    #[inline]
    fn confirm(&self, flows: &Flows) -> (u32, [Found; BURST_SIZE]) {
        let (mut hits, mut all) = (0, [Found::NONE; BURST_SIZE]);
        for index in bits(flows.plain) {
            let packet = &flows.packets[index];
            let Some(found) = self.sessions.confirm(flows.candidates[index], &packet.key) else { continue };
            if is_opening(packet.flags) {
                // A session that is over gives way to it, later.
                self.sessions.prefetch_removal(found.index);
                continue;
            }
            self.counters.prefetch(self.sessions.session(found.index).real_server());
            all[index] = found;
            hits |= 1 << index;
        }
        (hits, all)
    }

    /// Whether a SYN has come for a session that is over but for its timeout, and is to be scheduled anew.
    fn gives_way(&self, packet: &Packet, found: Found) -> bool {
        is_opening(packet.flags)
            && found.direction == Direction::Inbound
            && self.sessions.session(found.index).state().gives_way_to_syn()
    }

    /// A packet of a known session, in the loop over a burst.
    #[inline(always)]
    fn forward_hit<F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet,
        found: Found,
        now: Now,
    ) -> Verdict {
        let session = self.sessions.session_mut(found.index);
        let server = session.real_server();
        if found.direction == Direction::Inbound && !self.services.is_present(server) {
            return Verdict::Drop(DropReason::RealServerRemoved);
        }
        if packet.ttl <= 1 {
            return self.answer_icmp(port, frame, packet, icmp::Error::TimeExceeded, DropReason::TtlExpired, now);
        }
        let hop = session.hop(found.direction, self.routes.generation).and_then(|hop| self.routes.hop(hop));
        let Some(hop) = hop.filter(|hop| hop.resolved) else {
            return self.forward_anew(port, frame, packet, found, now);
        };
        if packet.total_len > hop.mtu {
            let mtu = hop.mtu;
            return self.too_big(port, frame, packet, mtu, now);
        }
        cut_trailer(frame, packet);
        rewrite::rewrite(frame.bytes_mut(), packet, Some(&hop.header), session, found.direction);
        let verdict = Verdict::Transmit(hop.hop.port);
        self.account(found, server, packet, now);
        verdict
    }

    /// The same for the few that come late.
    #[inline(never)]
    fn forward<F: Frame>(&mut self, port: PortId, frame: &mut F, packet: &Packet, found: Found, now: Now) -> Verdict {
        self.forward_hit(port, frame, packet, found, now)
    }

    /// A packet of a session that does not know its hop in the routes of now, or whose hop has not answered yet.
    #[cold]
    fn forward_anew<F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet,
        found: Found,
        now: Now,
    ) -> Verdict {
        let (hop, mtu) = match self.find_hop(found) {
            Ok(entry) if entry.resolved => return self.forward(port, frame, packet, found, now),
            Ok(entry) => (entry.hop, entry.mtu),
            Err(Resolution::Unresolved(hop)) => {
                (hop, self.routes.interface(hop.port).map_or(u16::MAX, |interface| interface.mtu))
            }
            Err(_) => return Verdict::Drop(DropReason::NoRoute),
        };
        if packet.total_len > mtu {
            return self.too_big(port, frame, packet, mtu, now);
        }
        cut_trailer(frame, packet);
        let session = self.sessions.session(found.index);
        rewrite::rewrite(frame.bytes_mut(), packet, None, session, found.direction);
        self.account(found, session.real_server(), packet, now);
        Verdict::AwaitNeighbour(hop)
    }

    /// The hop of a session's packets by the routes of now, which the session remembers from here on.
    fn find_hop(&mut self, found: Found) -> Result<HopEntry, Resolution> {
        let session = self.sessions.session_mut(found.index);
        let to = session.rewritten_key(found.direction);
        let resolution = self.routes.resolve(to.destination(), self.seed.hash(&to).low_bits());
        let Resolution::Hop(hop) = resolution else { return Err(resolution) };
        session.set_hop(found.direction, self.routes.generation, hop);
        self.routes.hop(hop).copied().ok_or(Resolution::NoRoute)
    }

    /// Gives a packet that waited for `hop` its Ethernet header; false while the hop has not answered.
    pub fn complete<F: Frame>(&self, frame: &mut F, hop: Hop) -> bool {
        let Some(index) = self.routes.hop_index(hop) else { return false };
        match (self.routes.hop(index), frame.bytes_mut().first_chunk_mut()) {
            (Some(entry), Some(front)) if entry.resolved => {
                *front = entry.header;
                true
            }
            _ => false,
        }
    }

    /// Ends sessions whose time is over, a few at most: a step of some microseconds.
    pub fn expire(&mut self, now: Now) -> ExpiryStep {
        if !self.sessions.is_due(now.tick) {
            return ExpiryStep { looked_at: 0, more: false };
        }
        let expired = self.sessions.expired(now.tick);
        let step = ExpiryStep { looked_at: expired.looked_at(), more: expired.more() };
        for expired in expired {
            let session = self.sessions.remove_expired(expired);
            self.ended(&session);
        }
        step
    }

    /// Copies sessions for showing; see [`SessionTable::walk`].
    pub fn walk_sessions(&self, next: u32, steps: u32, now: Now, into: &mut Vec<SessionView>) -> Option<u32> {
        self.sessions.walk(next, steps, now.tick, into)
    }
}

/// Whether a segment opens a connection.
fn is_opening(flags: Flags) -> bool {
    flags.has(Flags::SYN) && !flags.has(Flags::ACK) && !flags.has(Flags::RST)
}

/// Cuts off what follows the IP packet in a frame, unless it only pads a short one.
#[inline]
fn cut_trailer<F: Frame>(frame: &mut F, packet: &Packet) {
    let len = ethernet::LEN + usize::from(packet.total_len);
    if frame.packet_len() > len.max(MIN_FRAME) {
        frame.truncate(len.max(MIN_FRAME));
    }
}
