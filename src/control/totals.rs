//! Sums of per-worker counters by slot, and arithmetic on [`TrafficTotals`].
//!
//! A slot's traffic only ever grows while the process lives, whoever holds the slot; what a holder shows is the
//! difference to the sums at which it got the slot. Gauges (connections, ports in use) are shown as they are.

use std::iter::Sum;
use std::ops::{AddAssign, Sub};
use std::sync::Arc;

use super::protocol::TrafficTotals;
use crate::balance::{LocalAddressSlot, RealServerSlot};
use crate::telemetry::counters::WorkerCounters;

impl AddAssign for TrafficTotals {
    fn add_assign(&mut self, other: Self) {
        self.connections = self.connections.wrapping_add(other.connections);
        self.in_packets = self.in_packets.wrapping_add(other.in_packets);
        self.in_bytes = self.in_bytes.wrapping_add(other.in_bytes);
        self.out_packets = self.out_packets.wrapping_add(other.out_packets);
        self.out_bytes = self.out_bytes.wrapping_add(other.out_bytes);
    }
}

impl Sum for TrafficTotals {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, each| {
            sum += each;
            sum
        })
    }
}

impl Sub for TrafficTotals {
    type Output = Self;

    /// What has come since `earlier`.
    fn sub(self, earlier: Self) -> Self {
        Self {
            connections: self.connections.wrapping_sub(earlier.connections),
            in_packets: self.in_packets.wrapping_sub(earlier.in_packets),
            in_bytes: self.in_bytes.wrapping_sub(earlier.in_bytes),
            out_packets: self.out_packets.wrapping_sub(earlier.out_packets),
            out_bytes: self.out_bytes.wrapping_sub(earlier.out_bytes),
        }
    }
}

/// Sessions of a real server now, over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// IPVS's ActiveConn.
    pub active: u64,
    /// IPVS's InActConn.
    pub inactive: u64,
}

/// What all workers have ever counted on a real-server slot. Slots beyond a worker's counters count as 0.
pub fn real_server_traffic(counters: &[Arc<WorkerCounters>], slot: RealServerSlot) -> TrafficTotals {
    by_worker(counters, slot).sum()
}

/// What each worker has ever counted on a real-server slot.
pub fn by_worker(counters: &[Arc<WorkerCounters>], slot: RealServerSlot) -> impl Iterator<Item = TrafficTotals> {
    counters.iter().map(move |worker| worker_traffic(worker, slot))
}

/// What one worker has ever counted on a real-server slot.
pub fn worker_traffic(worker: &WorkerCounters, slot: RealServerSlot) -> TrafficTotals {
    let Some(own) = worker.real_servers.get(slot.0 as usize) else { return TrafficTotals::default() };
    TrafficTotals {
        connections: own.connections.get(),
        in_packets: own.inbound.packets.get(),
        in_bytes: own.inbound.bytes.get(),
        out_packets: own.outbound.packets.get(),
        out_bytes: own.outbound.bytes.get(),
    }
}

/// The sessions of a real-server slot now.
pub fn real_server_connections(counters: &[Arc<WorkerCounters>], slot: RealServerSlot) -> Connections {
    let mut sum = Connections::default();
    for own in counters.iter().filter_map(|worker| worker.real_servers.get(slot.0 as usize)) {
        sum.active = sum.active.wrapping_add(own.active.get());
        sum.inactive = sum.inactive.wrapping_add(own.inactive.get());
    }
    sum
}

/// Local ports in use now on a local-address slot, over all workers and real servers.
pub fn local_ports_used(counters: &[Arc<WorkerCounters>], slot: LocalAddressSlot) -> u64 {
    let of_worker = counters.iter().filter_map(|worker| worker.local_addresses.get(slot.0 as usize));
    of_worker.map(|own| own.ports_used.get()).fold(0, u64::wrapping_add)
}
