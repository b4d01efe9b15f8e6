//! What a forwarder is told at start.

use std::sync::Arc;

use crate::balance::MssClamp;
use crate::flow::HashSeed;
use crate::flow::ownership::Ownership;
use crate::port::{MacAddress, WorkerId};
use crate::session::Capacity;
use crate::telemetry::counters::WorkerCounters;

/// How a client's packets of one flow come to one worker on a port.
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
    /// What the MSS options of SYNs are lowered to that sessions receive or send by it.
    pub mss_clamp: MssClamp,
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
    pub session_capacity: Capacity,
    /// The gateway's secret, the same for all workers.
    pub seed: HashSeed,
    /// Whose packets to local addresses are, the same for all workers.
    pub ownership: Ownership,
    /// Every worker's counters; its own are at its index.
    pub counters: Arc<[Arc<WorkerCounters>]>,
}
