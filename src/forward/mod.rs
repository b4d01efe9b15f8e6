//! The fast path, and what it falls back to.
//!
//! [`Forwarder::process`] takes a burst through its steps: parse and hash all (`flows`), look all up, forward
//! those that have a session, then see to the rest. A packet of a known session costs a line of the index, a line of the
//! table, one copied Ethernet header and two incremental checksums; in DR mode the checksum is one, in TUN mode (`tun`)
//! another packet goes around it.
//! What has no session (`miss`) may set one up (`set_up`, with `fullnat` or `nat`; `snat` towards the outside), be
//! answered (`answer`), be handed to the worker that owns it, go to the kernel, or be a counted drop.
//!
//! Nothing here allocates per packet, locks, logs or makes a system call, and no bytes make it panic.

mod accounting;
mod answer;
mod balancer;
mod config;
pub mod cut;
mod datagrams;
mod defence;
pub mod early;
mod echo;
mod flows;
mod fragment;
mod fullnat;
mod hop;
mod housekeeping;
mod icmp_change;
mod icmp_error;
mod icmp_plane;
mod icmp_tunnel;
mod miss;
mod mixed;
mod mss;
mod nat;
pub mod parse;
pub mod pending;
mod persistent;
mod plane;
mod reuse;
pub mod rewrite;
mod sctp_fragment;
mod set_up;
mod snat;
mod start;
mod token_bucket;
mod translate;
mod tun;
mod verdict;
mod way;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

pub use self::config::{ForwarderConfig, PortView, Steering};
pub use self::defence::strategies;
pub use self::housekeeping::ExpiryStep;
pub use self::token_bucket::TokenBucket;
pub use self::verdict::{DatagramTag, DropReason, Hop, PuntClass, Verdict};

use self::balancer::Balancer;
use self::datagrams::Datagrams;
use self::defence::Defence;
use self::flows::{Flows, all, bits};
use self::hop::Resolved;
use self::parse::{Packet, Parsed};
use self::plane::Plane;
use self::way::Way;
use crate::balance::{ForwardingMode, Protocol, ServiceTable};
use crate::flow::ownership::Ownership;
use crate::flow::{Direction, HashSeed};
use crate::port::{BURST_SIZE, Frame, PortId, WorkerId};
use crate::route::RouteTable;
use crate::session::local_port::LocalPorts;
use crate::session::tcp_state::TimeoutTable;
use crate::session::{Found, Tables, Tick};
use crate::telemetry::counters::WorkerCounters;
use crate::wire::ethernet;
use crate::wire::tcp::Flags;

/// Bytes of the shortest Ethernet frame without its FCS: what pads a packet up to it is not cut off.
const MIN_FRAME: usize = 60;

/// How a burst reached this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From its own receive queue.
    Queue,
    /// From another worker, which took this one for the owner.
    HandedOver,
    /// A first fragment at the worker that its datagram's fragments are brought together by. Not for a burst.
    Gathered,
    /// A first fragment that such a worker has handed on to this one as the owner. Not for a burst.
    HandedOn,
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

/// One worker's forwarding: its sessions, its local ports, and the tables that all workers share.
#[derive(Debug)]
pub struct Forwarder {
    worker: WorkerId,
    workers: u8,
    ports: Vec<PortView>,
    ownership: Ownership,
    services: Arc<ServiceTable>,
    routes: Arc<RouteTable>,
    sessions: Tables,
    local_ports: LocalPorts,
    balancer: Balancer,
    /// By service cursor: the local address taken last from its pool.
    local_turns: Vec<usize>,
    timeouts: TimeoutTable,
    counters: Arc<WorkerCounters>,
    icmp_errors: TokenBucket,
    defence: Defence,
    /// Of the outer packet sent last in TUN mode without DF.
    identification: u16,
    seed: HashSeed,
    /// Whether no other service or rule can be for a packet that no service of just its port is for: one flag, since all such packets
    /// ask.
    has_exact_only: bool,
    /// Whether any SYN's MSS option may have to be lowered.
    clamps_mss: bool,
    /// Whether the packet that is seen to is the first fragment of a datagram.
    leads_fragments: bool,
    /// Whether a packet of this burst was of a session that ends for want of its real server.
    met_removed: bool,
    /// The bucket of templates that is swept next.
    swept: usize,
    datagrams: Datagrams,
    /// Whose first fragments have come since that was last asked: one at most for each frame of a burst.
    arrived: Vec<DatagramTag>,
}

impl Forwarder {
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
        for frame in &*frames {
            frame.prefetch();
        }
        let all = all(frames.len());
        let flows = Flows::of(&self.sessions.ipv4, view, frames, 0);
        let forwarded = self.forward_known::<Ipv4Addr, F>(port, frames, &flows, now, verdicts);
        if flows.plain != all {
            return self.process_others((port, view), frames, (&flows, forwarded), (origin, now), verdicts);
        }
        for index in bits(all & !forwarded) {
            let packet = flows.plain_packet(index).map(|(packet, hash)| (Parsed::Ipv4(packet), hash));
            verdicts[index] = self.miss(port, &mut frames[index], packet, origin, now);
        }
    }

    /// The rest of it for a burst in which not every frame is a plain packet of IPv4.
    #[inline(never)]
    fn process_others<F: Frame>(
        &mut self,
        (port, view): (PortId, PortView),
        frames: &mut [F],
        (ipv4, done): (&Flows<Ipv4Addr>, u32),
        (origin, now): (Origin, Now),
        verdicts: &mut [Verdict; BURST_SIZE],
    ) {
        let ipv6 = Flows::of(&self.sessions.ipv6, view, frames, ipv4.plain);
        let done = done | self.forward_known::<Ipv6Addr, F>(port, frames, &ipv6, now, verdicts);
        for index in bits(all(frames.len()) & !done) {
            let ipv4 = ipv4.plain_packet(index).map(|(packet, hash)| (Parsed::Ipv4(packet), hash));
            let ipv6 = || ipv6.plain_packet(index).map(|(packet, hash)| (Parsed::Ipv6(packet), hash));
            let packet = ipv4.or_else(ipv6);
            verdicts[index] = self.miss(port, &mut frames[index], packet, origin, now);
        }
    }

    /// Forwards the plain packets of one family that have a session, and gives which these are.
    #[inline(always)]
    fn forward_known<A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frames: &mut [F],
        flows: &Flows<A>,
        now: Now,
        verdicts: &mut [Verdict; BURST_SIZE],
    ) -> u32 {
        let Hits { hits, one_way, found } = self.confirm(flows);
        for index in bits(hits & !one_way) {
            verdicts[index] = self.forward_hit::<false, true, A, F>(
                port,
                &mut frames[index],
                &flows.packets[index],
                found[index],
                now,
            );
        }
        for index in bits(hits & one_way) {
            verdicts[index] = self.forward_hit::<true, true, A, F>(
                port,
                &mut frames[index],
                &flows.packets[index],
                found[index],
                now,
            );
        }
        if self.met_removed { self.leave_removed(hits, verdicts) } else { hits }
    }

    /// The packets whose candidate is their session. Has loaded what they are counted in.
    #[inline]
    fn confirm<A: Plane>(&self, flows: &Flows<A>) -> Hits {
        let sessions = A::table(&self.sessions);
        let mut hits = Hits { hits: 0, one_way: 0, found: [Found::NONE; BURST_SIZE] };
        for index in bits(flows.plain) {
            let packet = &flows.packets[index];
            let Some(found) = sessions.confirm(flows.candidates[index], &packet.key) else { continue };
            let session = sessions.session(found.index);
            if packet.flags.has(Flags::SYN) {
                // A session that is over gives way to it, later; or its MSS option is lowered.
                sessions.prefetch_removal(found.index);
                continue;
            }
            if A::HAS_MIXED && session.is_mixed() {
                continue;
            }
            self.counters.prefetch(session.real_server());
            hits.found[index] = found;
            hits.hits |= 1 << index;
            if session.mode().is_one_way() {
                hits.one_way |= 1 << index;
            }
        }
        hits
    }

    /// A packet of a known session, in the loop over a burst. `ONE_WAY`: answers do not pass the gateway. `PLAIN`: it is what
    /// [`parse::plain`] finds.
    #[inline(always)]
    fn forward_hit<const ONE_WAY: bool, const PLAIN: bool, A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<A>,
        found: Found,
        now: Now,
    ) -> Verdict {
        let session = A::table_mut(&mut self.sessions).session_mut(found.index);
        let server = session.real_server();
        if found.direction == Direction::Inbound && !self.services.is_present(server) {
            return self.without_real_server();
        }
        if packet.ttl <= 1 {
            return self.expired(port, frame, packet, found, now);
        }
        let hop = session.hop(found.direction, self.routes.generation).and_then(|hop| self.routes.hop(hop));
        let Some(hop) = hop.filter(|hop| hop.resolved) else {
            return self.forward_anew(port, frame, packet, found, now);
        };
        if ONE_WAY && session.mode() == ForwardingMode::Tun {
            let (header, way) = (hop.header, (hop.hop, hop.mtu));
            return self.forward_tunnelled::<false, PLAIN, A, A, F>(
                port,
                frame,
                packet,
                found,
                &Way::new(way, Some(&header)),
                now,
            );
        }
        if packet.total_len > hop.mtu {
            let mtu = hop.mtu;
            return self.too_big(port, frame, packet, mtu, now);
        }
        cut_trailer(frame, packet.total_len);
        A::rewrite::<ONE_WAY, PLAIN>(frame.bytes_mut(), packet, Some(&hop.header), session, found.direction);
        let verdict = Verdict::Transmit(hop.hop.port);
        self.account::<ONE_WAY, PLAIN, A>(found, server, packet, now);
        verdict
    }

    /// The same for the few that come late.
    #[inline(never)]
    fn forward<A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<A>,
        found: Found,
        now: Now,
    ) -> Verdict {
        if self.clamps_mss && packet.flags.has(Flags::SYN) {
            self.clamp_mss::<A, A, F>(port, frame, packet, found);
        }
        let session = A::table(&self.sessions).session(found.index);
        if session.mode().is_one_way() {
            return self.forward_hit::<true, false, A, F>(port, frame, packet, found, now);
        }
        self.forward_hit::<false, false, A, F>(port, frame, packet, found, now)
    }

    /// A packet of a session that does not know its hop in the routes of now, or whose hop has not answered yet.
    #[cold]
    fn forward_anew<A: Plane, F: Frame>(
        &mut self,
        port: PortId,
        frame: &mut F,
        packet: &Packet<A>,
        found: Found,
        now: Now,
    ) -> Verdict {
        let hop = match self.find_hop::<A>(found) {
            Ok(Resolved::Now(_)) => return self.forward(port, frame, packet, found, now),
            Ok(Resolved::Later(hop)) => hop,
            Err(verdict) => return self.without_hop(packet, found, verdict, now),
        };
        let mtu = self.routes.interface(hop.port).map_or(u16::MAX, |interface| interface.mtu);
        let session = *A::table(&self.sessions).session(found.index);
        if session.mode() == ForwardingMode::Tun {
            return self.forward_tunnelled::<false, false, A, A, F>(
                port,
                frame,
                packet,
                found,
                &Way::new((hop, mtu), None),
                now,
            );
        }
        if packet.total_len > mtu {
            return self.too_big(port, frame, packet, mtu, now);
        }
        cut_trailer(frame, packet.total_len);
        let (bytes, direction, server) = (frame.bytes_mut(), found.direction, session.real_server());
        if session.mode().is_one_way() {
            A::rewrite::<true, false>(bytes, packet, None, &session, direction);
            self.account::<true, false, A>(found, server, packet, now);
        } else {
            A::rewrite::<false, false>(bytes, packet, None, &session, direction);
            self.account::<false, false, A>(found, server, packet, now);
        }
        Verdict::AwaitNeighbour(hop)
    }
}

/// Packets of a burst that have a session: a bit for each.
struct Hits {
    hits: u32,
    /// Those of them whose answers do not pass the gateway.
    one_way: u32,
    found: [Found; BURST_SIZE],
}

/// Whether only certain packets open a session of a protocol.
fn has_opening(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Tcp | Protocol::Sctp)
}

/// Whether a segment opens a connection.
fn is_opening(flags: Flags) -> bool {
    flags.has(Flags::SYN) && !flags.has(Flags::ACK) && !flags.has(Flags::RST)
}

/// Cuts off what follows the IP packet in a frame, unless it only pads a short one.
#[inline]
fn cut_trailer<F: Frame>(frame: &mut F, total_len: u16) {
    let len = ethernet::LEN + usize::from(total_len);
    if frame.packet_len() > len.max(MIN_FRAME) {
        frame.truncate(len.max(MIN_FRAME));
    }
}
