//! What is said over the Unix socket: one JSON object a line, a request and its reply in turn.
//!
//! A request is `{"version":1,"command":"service.add",...}`; a reply is `{"version":1,"ok":{...}}` or
//! `{"version":1,"error":{"kind":"not_found","message":"..."}}`. Every object refuses keys that it does not know.
//! Addresses, services and pools are written as the configuration file writes them. Pure: no socket here.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};

use crate::balance::{ForwardingMode, Protocol, SchedulerKind, ServiceKey, Weight};
use crate::config::{BalanceConfig, RealServerConfig, ServiceConfig};
use crate::telemetry::histogram::Durations;

/// The version of the protocol. A daemon answers another version with [`ErrorKind::Version`].
pub const VERSION: u32 = 1;

/// The longest line that either side takes, in bytes.
pub const MAX_LINE: usize = 64 << 20;

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", deny_unknown_fields)]
pub enum Request {
    /// Version, uptime and size of the gateway.
    #[serde(rename = "status")]
    Status {},
    /// Make services and local pools equal to these, all or nothing. With `dry_run`, only say what would change.
    #[serde(rename = "apply")]
    Apply {
        /// The wanted state.
        balance: BalanceConfig,
        /// Change nothing.
        #[serde(default)]
        dry_run: bool,
    },
    /// Add a service, with or without real servers.
    #[serde(rename = "service.add")]
    ServiceAdd {
        /// The new service.
        service: ServiceConfig,
    },
    /// Change what is given of a service, keep the rest.
    #[serde(rename = "service.edit")]
    ServiceEdit {
        /// Which.
        service: ServiceName,
        /// A new scheduler.
        scheduler: Option<SchedulerKind>,
        /// A new local pool.
        local_pool: Option<String>,
    },
    /// Delete a service with its real servers.
    #[serde(rename = "service.del")]
    ServiceDel {
        /// Which.
        service: ServiceName,
    },
    /// Services with their real servers and counters: this one or all.
    #[serde(rename = "service.list")]
    ServiceList {
        /// Which; none: all.
        service: Option<ServiceName>,
    },
    /// Add a real server to a service.
    #[serde(rename = "real.add")]
    RealAdd {
        /// To which service.
        service: ServiceName,
        /// The new real server.
        real_server: RealServerConfig,
    },
    /// Change what is given of a real server, keep the rest. Weight 0 drains it.
    #[serde(rename = "real.edit")]
    RealEdit {
        /// Of which service.
        service: ServiceName,
        /// Which real server.
        address: SocketAddrV4,
        /// A new weight.
        weight: Option<Weight>,
        /// A new upper threshold.
        #[serde(rename = "upper")]
        upper_threshold: Option<u32>,
        /// A new lower threshold.
        #[serde(rename = "lower")]
        lower_threshold: Option<u32>,
    },
    /// Remove a real server.
    #[serde(rename = "real.del")]
    RealDel {
        /// From which service.
        service: ServiceName,
        /// Which real server.
        address: SocketAddrV4,
    },
    /// Add local addresses to a pool that exists.
    #[serde(rename = "local.add")]
    LocalAdd {
        /// To which pool.
        pool: String,
        /// The addresses.
        addresses: Vec<Ipv4Addr>,
    },
    /// Withdraw local addresses: no new session gets them, those that have them keep them.
    #[serde(rename = "local.del")]
    LocalDel {
        /// From which pool.
        pool: String,
        /// The addresses.
        addresses: Vec<Ipv4Addr>,
    },
    /// Local pools with their addresses and ports in use.
    #[serde(rename = "local.list")]
    LocalList {},
    /// Sessions that match.
    #[serde(rename = "session.list")]
    SessionList {
        /// Which.
        #[serde(default)]
        filter: SessionFilter,
        /// The most to list; none: all.
        limit: Option<usize>,
    },
    /// How many sessions match.
    #[serde(rename = "session.count")]
    SessionCount {
        /// Which.
        #[serde(default)]
        filter: SessionFilter,
    },
    /// Ports, their devices, links and counters.
    #[serde(rename = "port.show")]
    PortShow {},
    /// Workers and their counters.
    #[serde(rename = "worker.show")]
    WorkerShow {},
    /// All counters at once, to be subtracted from the next.
    #[serde(rename = "stats")]
    Stats {},
}

/// A service's key in the words of the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceName {
    /// Virtual address and port.
    pub vip: SocketAddrV4,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl From<ServiceKey> for ServiceName {
    fn from(key: ServiceKey) -> Self {
        Self { vip: SocketAddrV4::new(key.address, key.port), protocol: key.protocol }
    }
}

impl From<ServiceName> for ServiceKey {
    fn from(name: ServiceName) -> Self {
        Self { protocol: name.protocol, address: *name.vip.ip(), port: name.vip.port() }
    }
}

/// Which sessions; what is not given matches all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionFilter {
    /// Of this protocol.
    pub protocol: Option<Protocol>,
    /// Of this client address.
    pub client: Option<Ipv4Addr>,
    /// Of this virtual address, and port unless that is 0.
    pub vip: Option<SocketAddrV4>,
    /// Of this real server address, and port unless that is 0.
    pub real_server: Option<SocketAddrV4>,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done, or here it is.
    Ok(Reply),
    /// Refused; nothing was changed.
    Error(Refusal),
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The kind, for programs.
    pub kind: ErrorKind,
    /// What is wrong and what is allowed, for people.
    pub message: String,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The protocol version is another.
    Version,
    /// No request, or one with a wrong value.
    Invalid,
    /// It exists already.
    Exists,
    /// It does not exist.
    NotFound,
    /// It would contradict something else, or something still uses it.
    Conflict,
    /// A limit of the gateway is reached.
    Limit,
    /// The gateway failed.
    Internal,
}

/// What a request that was not refused is answered with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To commands that change something: what changed, one line each, in the order done.
    Changed(Vec<String>),
    /// To `status`.
    Status(Status),
    /// To `service.list`.
    Services(Vec<ServiceRow>),
    /// To `local.list`.
    LocalPools(Vec<LocalPoolRow>),
    /// To `session.list`.
    Sessions(Vec<SessionRow>),
    /// To `session.count`.
    SessionCount(SessionCount),
    /// To `port.show`.
    Ports(Vec<PortRow>),
    /// To `worker.show`.
    Workers(Vec<WorkerRow>),
    /// To `stats`.
    Stats(Stats),
}

/// The gateway as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// fullgate's version.
    pub version: String,
    /// DPDK's version.
    pub dpdk: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: f64,
    /// Workers.
    pub workers: usize,
    /// Sessions now.
    pub sessions: u64,
    /// Sessions that fit.
    pub session_capacity: u64,
}

/// Packets and bytes each way. Bytes are those of IP packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficTotals {
    /// Sessions set up.
    pub connections: u64,
    /// Client to real server.
    pub in_packets: u64,
    /// Client to real server.
    pub in_bytes: u64,
    /// Real server to client.
    pub out_packets: u64,
    /// Real server to client.
    pub out_bytes: u64,
}

/// A service in `service.list` and `stats`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Virtual address and port.
    pub vip: SocketAddrV4,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Its scheduler.
    pub scheduler: SchedulerKind,
    /// Its forwarding mode.
    pub mode: ForwardingMode,
    /// Its local pool.
    pub local_pool: String,
    /// Its traffic, real servers since removed included.
    pub traffic: TrafficTotals,
    /// Its real servers, in the order added.
    pub real_servers: Vec<RealServerRow>,
}

/// A real server in a [`ServiceRow`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RealServerRow {
    /// Its address and port.
    pub address: SocketAddrV4,
    /// Its weight.
    pub weight: Weight,
    /// Its upper threshold; 0: none.
    #[serde(rename = "upper")]
    pub upper_threshold: u32,
    /// Its lower threshold; 0: none.
    #[serde(rename = "lower")]
    pub lower_threshold: u32,
    /// Sessions that IPVS would call active.
    pub active_connections: u64,
    /// Sessions that IPVS would call inactive.
    pub inactive_connections: u64,
    /// Its traffic.
    pub traffic: TrafficTotals,
}

/// A pool in `local.list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalPoolRow {
    /// Its name.
    pub name: String,
    /// The port that its addresses are on.
    pub port: String,
    /// Its range of local ports, `1024-65535`.
    pub ports: String,
    /// Its addresses.
    pub addresses: Vec<LocalAddressRow>,
}

/// A local address in a [`LocalPoolRow`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalAddressRow {
    /// The address.
    pub address: Ipv4Addr,
    /// Local ports in use, over all real servers.
    pub ports_used: u64,
    /// Withdrawn, and only kept for the sessions that still use it.
    pub withdrawn: bool,
}

/// A session in `session.list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The client.
    pub client: SocketAddrV4,
    /// The virtual address.
    pub vip: SocketAddrV4,
    /// The local address.
    pub local: SocketAddrV4,
    /// The real server.
    pub real_server: SocketAddrV4,
    /// The state's IPVS name.
    pub state: String,
    /// Seconds until it expires if nothing more comes.
    pub expires_seconds: u32,
    /// The worker that owns it.
    pub worker: usize,
}

/// To `session.count`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCount {
    /// All that match.
    pub total: u64,
    /// By worker.
    pub by_worker: Vec<u64>,
    /// By state: IPVS name and number, those that occur.
    pub by_state: Vec<(String, u64)>,
}

/// A port in `port.show` and `stats`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortRow {
    /// Its name.
    pub name: String,
    /// Its device string; of a VLAN the parent's name.
    pub device: String,
    /// The VLAN of the device that it is; none: what has no tag.
    #[serde(default)]
    pub vlan: Option<u16>,
    /// The port that has the device; none: this one.
    #[serde(default)]
    pub parent: Option<String>,
    /// Of a bond, its members and whether each has a link.
    #[serde(default)]
    pub members: Vec<(String, bool)>,
    /// Its PMD.
    pub driver: String,
    /// Its TAP.
    pub tap: String,
    /// Its link-layer address.
    pub mac: String,
    /// Bytes of the largest IP packet.
    pub mtu: u16,
    /// Whether the link is up.
    pub link_up: bool,
    /// In megabits a second; 0: unknown.
    pub link_speed_mbps: u32,
    /// Receive queues.
    pub rx_queues: u16,
    /// Transmit queues.
    pub tx_queues: u16,
    /// How packets find their worker: `rss`, `software` or `single`.
    pub steering: String,
    /// Offloads in use.
    pub offloads: Vec<String>,
    /// Received by the workers. The port that has a device counts its VLANs' packets too, with their tags.
    pub rx_packets: u64,
    /// Received by the workers.
    pub rx_bytes: u64,
    /// Sent by the workers.
    pub tx_packets: u64,
    /// Sent by the workers.
    pub tx_bytes: u64,
    /// Packets that the device missed for want of descriptors.
    pub rx_missed: u64,
    /// Packets that the device received with errors.
    pub rx_errors: u64,
    /// Packets that the device failed to send.
    pub tx_errors: u64,
    /// The device's own counters, by its names, those that are not 0.
    pub xstats: Vec<(String, u64)>,
}

/// A worker in `worker.show` and `stats`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its number.
    pub worker: usize,
    /// Its CPU.
    pub core: u16,
    /// Sessions now.
    pub sessions: u64,
    /// Sessions that fit.
    pub session_capacity: u64,
    /// Sessions set up.
    pub sessions_created: u64,
    /// Sessions expired.
    pub sessions_expired: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bursts with at least one packet.
    pub bursts: u64,
    /// Packets handed to other workers.
    pub handovers: u64,
    /// Packets taken over from other workers.
    pub handovers_received: u64,
    /// Nanoseconds spent on packets and housekeeping.
    pub busy_nanoseconds: u64,
    /// Nanoseconds since it started.
    pub total_nanoseconds: u64,
    /// From one poll of its queues to the next, sleep that was asked for left out.
    #[serde(default)]
    pub poll_gaps: Durations,
    /// Of those above 20 microseconds, the part that the worker itself used.
    #[serde(default)]
    pub stalls: Durations,
    /// Of the same, nanoseconds in which its CPU was given to somebody else.
    #[serde(default)]
    pub preempted_nanoseconds: u64,
    /// From the reception of a turn's packets until they are on their way.
    #[serde(default)]
    pub burst_times: Durations,
}

/// All counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// When, in nanoseconds of the daemon's monotonic clock.
    pub at_nanoseconds: u64,
    /// Ports.
    pub ports: Vec<PortRow>,
    /// Workers.
    pub workers: Vec<WorkerRow>,
    /// Services.
    pub services: Vec<ServiceRow>,
    /// Dropped packets by reason, every reason.
    pub drops: Vec<(String, u64)>,
    /// Packets given to the kernel by class, every class.
    pub punts: Vec<(String, u64)>,
    /// RSTs answered to TCP packets of no session.
    pub resets_sent: u64,
    /// ICMP errors made by the gateway.
    pub icmp_errors_sent: u64,
    /// Frames from the kernel sent out.
    pub injected: u64,
}
