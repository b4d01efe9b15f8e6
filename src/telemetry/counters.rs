//! Counters, one set a worker: written by that worker alone with plain relaxed stores, read by anyone.
//!
//! No read-modify-write instruction is needed because each counter has one writer. Real servers and local addresses
//! are counted by slot (see `balance::service`): a slot's counters only ever grow; who hands out slots remembers the
//! values at which it did.

use std::sync::atomic::{AtomicU64, Ordering};

use super::histogram::Histogram;
use crate::balance::RealServerSlot;
use crate::forward::{DropReason, PuntClass};
use crate::port::MAX_PORTS;

/// A number with one writer and any number of readers.
#[derive(Debug, Default, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the owning worker may call this.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Takes `count` off a gauge. Only the owning worker may call this.
    #[inline]
    pub fn subtract(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(count), Ordering::Relaxed);
    }

    /// Sets a gauge. Only the owning worker may call this.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Packets and bytes of one direction. Bytes are those of the IP packet, as IPVS counts.
#[derive(Debug, Default, bytemuck::Zeroable)]
#[repr(C)]
pub struct Traffic {
    /// Packets.
    pub packets: Counter,
    /// Bytes.
    pub bytes: Counter,
}

/// What one worker counts of one real server, in one cache line.
#[derive(Debug, Default, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub struct RealServerCounters {
    /// Client to real server.
    pub inbound: Traffic,
    /// Real server to client.
    pub outbound: Traffic,
    /// Sessions set up.
    pub connections: Counter,
    /// Sessions now active (IPVS's ActiveConn).
    pub active: Counter,
    /// Sessions now inactive (IPVS's InActConn).
    pub inactive: Counter,
}

/// What one worker counts of one local address (LIP).
#[derive(Debug, Default, bytemuck::Zeroable)]
#[repr(C)]
pub struct LocalAddressCounters {
    /// Local ports now in use.
    pub ports_used: Counter,
}

/// What one worker counts of one port's queue.
#[derive(Debug, Default, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub struct PortCounters {
    /// Received from the device.
    pub received: Traffic,
    /// Handed to the device.
    pub transmitted: Traffic,
    /// Of those received, given to another worker.
    pub handed_over: Counter,
}

/// How many slots there are: real servers and local addresses that exist or still have sessions.
#[derive(Clone, Copy, Debug)]
pub struct SlotLimits {
    /// Real servers over all services.
    pub real_servers: u32,
    /// Local addresses over all pools.
    pub local_addresses: u32,
}

impl Default for SlotLimits {
    fn default() -> Self {
        Self { real_servers: 1 << 18, local_addresses: 1 << 14 }
    }
}

/// All that one worker counts.
#[derive(Debug)]
pub struct WorkerCounters {
    /// Dropped packets by [`DropReason`].
    pub drops: [Counter; DropReason::COUNT],
    /// Packets given to the kernel by [`PuntClass`].
    pub punts: [Counter; PuntClass::COUNT],
    /// By port.
    pub ports: [PortCounters; MAX_PORTS],
    /// By real-server slot. The memory is zero pages until a slot is used.
    pub real_servers: Box<[RealServerCounters]>,
    /// By local-address slot.
    pub local_addresses: Box<[LocalAddressCounters]>,
    /// Sessions of IPv4 alone now in their table.
    pub sessions: Counter,
    /// Sessions that have to do with IPv6 now in theirs.
    pub ipv6_sessions: Counter,
    /// Sessions set up.
    pub sessions_created: Counter,
    /// Sessions whose time ran out or that were replaced.
    pub sessions_expired: Counter,
    /// Of those, ended before their time by drop_entry.
    pub sessions_dropped: Counter,
    /// Which defence strategies are active now: see [`crate::forward::strategies`].
    pub defence: Counter,
    /// RSTs answered to TCP packets of no session.
    pub resets_sent: Counter,
    /// ICMP errors made by the gateway.
    pub icmp_errors_sent: Counter,
    /// Fragments forwarded.
    pub fragments_forwarded: Counter,
    /// Fragments made of packets larger than the link that they went to.
    pub fragments_created: Counter,
    /// Fragments that wait for their first one now.
    pub fragments_waiting: Counter,
    /// Datagrams that were forgotten before all their fragments had come, for want of room.
    pub datagrams_forgotten: Counter,
    /// Sessions set up without persistence that should have had it, since there was no room for a template.
    pub templates_full: Counter,
    /// The same, since another worker was at its templates.
    pub templates_busy: Counter,
    /// Bursts that held at least one packet.
    pub bursts: Counter,
    /// Packets given to another worker.
    pub handovers: Counter,
    /// Packets taken over from other workers.
    pub handovers_received: Counter,
    /// Frames from the kernel sent out.
    pub injected: Counter,
    /// Time spent on packets and housekeeping, in nanoseconds.
    pub busy_nanoseconds: Counter,
    /// Time since the worker started, in nanoseconds.
    pub total_nanoseconds: Counter,
    /// Time from one poll of its queues to the next; sleep that was asked for is not in it.
    pub poll_gaps: Histogram,
    /// Of the long ones of these, what the worker itself used.
    pub stalls: Histogram,
    /// Of the same, what was taken from it, in nanoseconds: the CPU was given to somebody else.
    pub preempted_nanoseconds: Counter,
    /// Time from a burst's reception until all of it is on its way, of turns that had packets.
    pub burst_times: Histogram,
}

impl WorkerCounters {
    /// All at zero.
    pub fn new(limits: SlotLimits) -> Self {
        Self {
            drops: std::array::from_fn(|_| Counter::default()),
            punts: std::array::from_fn(|_| Counter::default()),
            ports: std::array::from_fn(|_| PortCounters::default()),
            real_servers: bytemuck::zeroed_slice_box(limits.real_servers as usize),
            local_addresses: bytemuck::zeroed_slice_box(limits.local_addresses as usize),
            sessions: Counter::default(),
            ipv6_sessions: Counter::default(),
            sessions_created: Counter::default(),
            sessions_expired: Counter::default(),
            sessions_dropped: Counter::default(),
            defence: Counter::default(),
            resets_sent: Counter::default(),
            icmp_errors_sent: Counter::default(),
            fragments_forwarded: Counter::default(),
            fragments_created: Counter::default(),
            fragments_waiting: Counter::default(),
            datagrams_forgotten: Counter::default(),
            templates_full: Counter::default(),
            templates_busy: Counter::default(),
            bursts: Counter::default(),
            handovers: Counter::default(),
            handovers_received: Counter::default(),
            injected: Counter::default(),
            busy_nanoseconds: Counter::default(),
            total_nanoseconds: Counter::default(),
            poll_gaps: Histogram::default(),
            stalls: Histogram::default(),
            preempted_nanoseconds: Counter::default(),
            burst_times: Histogram::default(),
        }
    }

    /// Has loaded what is counted of a real server.
    #[inline]
    pub fn prefetch(&self, server: RealServerSlot) {
        if let Some(counters) = self.real_servers.get(server.0 as usize) {
            prefetch::prefetch(counters);
        }
    }

    /// Counts `count` packets dropped for `reason`.
    #[inline]
    pub fn drop_packets(&self, reason: DropReason, count: u64) {
        self.drops[reason as usize].add(count);
    }
}
