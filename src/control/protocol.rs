//! What is said over the Unix socket: one JSON object a line, a request and its reply in turn.
//!
//! A request is `{"version":1,"command":"service.add",...}`; a reply is `{"version":1,"ok":{...}}` or
//! `{"version":1,"error":{"kind":"not_found","message":"..."}}`. Every object refuses keys that it does not know.
//! Addresses, services and pools are written as the configuration file writes them. Pure: no socket here.

mod rows;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

pub use self::rows::*;
use crate::balance::{
    ForwardingMode, MssClamp, Protocol, SchedulerFlags, SchedulerKind, ServiceKey, Timeouts, Tunnel, VirtualAddress,
    Weight,
};
use crate::config::{BalanceConfig, LocalPoolConfig, MarkConfig, RealServerConfig, ServiceConfig, SnatConfig};

/// The version of the protocol. A daemon answers another version with [`ErrorKind::Version`].
pub const VERSION: u32 = 1;

/// The longest line that either side takes, in bytes.
pub const MAX_LINE: usize = 64 << 20;

/// What `real.edit` changes of a real server; what is not given stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RealServerEdit {
    /// A new forwarding mode, for new sessions.
    pub mode: Option<ForwardingMode>,
    /// What wraps packets to it in mode `tun`.
    pub tunnel: Option<Tunnel>,
    /// A new weight.
    pub weight: Option<Weight>,
    /// A new upper threshold.
    #[serde(rename = "upper")]
    pub upper_threshold: Option<u32>,
    /// A new lower threshold.
    #[serde(rename = "lower")]
    pub lower_threshold: Option<u32>,
}

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", deny_unknown_fields)]
pub enum Request {
    /// Version, uptime and size of the gateway.
    #[serde(rename = "status")]
    Status {},
    /// Make services, local pools and rules for source NAT equal to these, all or nothing. With `dry_run`, only say what would change.
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
        /// A new forwarding mode, for those of its real servers that do not say it themselves.
        mode: Option<ForwardingMode>,
        /// New flags of the scheduler, all of them; not given: those that it has, or none of a new scheduler.
        #[serde(default)]
        scheduler_flags: Option<SchedulerFlags>,
        /// A new local pool.
        local_pool: Option<String>,
        /// What the MSS options of its sessions' SYNs are lowered to from now on.
        mss_clamp: Option<MssClamp>,
        /// Seconds that clients stay with their real server; 0: none.
        persistence: Option<u32>,
        /// How many bits of a client's address count for that.
        persistence_prefix: Option<u8>,
        /// Whether each packet is scheduled on its own.
        one_packet: Option<bool>,
        /// Sessions that it may have; 0: as many as there is room for.
        max_connections: Option<u32>,
        /// Seconds over which a new real server's weight rises; 0: none.
        slow_start: Option<u32>,
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
        address: SocketAddr,
        /// What becomes otherwise.
        set: RealServerEdit,
    },
    /// Remove a real server.
    #[serde(rename = "real.del")]
    RealDel {
        /// From which service.
        service: ServiceName,
        /// Which real server.
        address: SocketAddr,
    },
    /// Make a local pool that does not exist.
    #[serde(rename = "local.create")]
    LocalCreate {
        /// The pool, with its first addresses.
        pool: LocalPoolConfig,
    },
    /// Remove a local pool that no service and no rule uses.
    #[serde(rename = "local.destroy")]
    LocalDestroy {
        /// Which.
        pool: String,
    },
    /// Add local addresses to a pool that exists.
    #[serde(rename = "local.add")]
    LocalAdd {
        /// To which pool.
        pool: String,
        /// The addresses.
        addresses: Vec<IpAddr>,
    },
    /// Withdraw local addresses: no new session gets them, those that have them keep them. A pool may lose all of them.
    #[serde(rename = "local.del")]
    LocalDel {
        /// From which pool.
        pool: String,
        /// The addresses.
        addresses: Vec<IpAddr>,
    },
    /// Local pools with their addresses and ports in use.
    #[serde(rename = "local.list")]
    LocalList {},
    /// Add a rule for source NAT.
    #[serde(rename = "snat.add")]
    SnatAdd {
        /// The new rule.
        rule: SnatConfig,
        /// The rule that it goes in front of; none: it goes last.
        before: Option<String>,
    },
    /// Remove a rule for source NAT.
    #[serde(rename = "snat.del")]
    SnatDel {
        /// Which.
        name: String,
    },
    /// Rules for source NAT with their counters, in the order in which they are looked at.
    #[serde(rename = "snat.list")]
    SnatList {},
    /// Add a rule for marks.
    #[serde(rename = "mark.add")]
    MarkAdd {
        /// The new rule.
        rule: MarkConfig,
        /// The rule that it goes in front of; none: it goes last.
        before: Option<String>,
    },
    /// Remove a rule for marks.
    #[serde(rename = "mark.del")]
    MarkDel {
        /// Which.
        name: String,
    },
    /// Rules for marks in the order in which they are looked at.
    #[serde(rename = "mark.list")]
    MarkList {},
    /// Change those session timeouts that are given, in seconds; that is kept over restarts.
    #[serde(rename = "timeouts.set")]
    TimeoutsSet {
        /// TCP ESTABLISHED.
        tcp: Option<u32>,
        /// TCP FIN_WAIT.
        tcp_fin: Option<u32>,
        /// UDP.
        udp: Option<u32>,
    },
    /// The session timeouts.
    #[serde(rename = "timeouts.show")]
    TimeoutsShow {},
    /// Set sysctls, all or nothing; that is kept over restarts.
    #[serde(rename = "sysctl.set")]
    SysctlSet {
        /// By name, with or without `net.ipv4.vs.` in front.
        values: BTreeMap<String, u32>,
    },
    /// Sysctls with their values.
    #[serde(rename = "sysctl.list")]
    SysctlList {
        /// Which, in the order wanted; empty: all.
        #[serde(default)]
        names: Vec<String>,
    },
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
    /// Templates of persistence that match.
    #[serde(rename = "template.list")]
    TemplateList {
        /// Which.
        #[serde(default)]
        filter: SessionFilter,
        /// The most to list; none: all.
        limit: Option<usize>,
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
    /// Virtual address and port, or ports; or a mark.
    pub vip: VirtualAddress,
    /// TCP, UDP or SCTP; any for a mark.
    pub protocol: Protocol,
}

impl From<ServiceKey> for ServiceName {
    fn from(key: ServiceKey) -> Self {
        Self { vip: key.vip(), protocol: key.protocol }
    }
}

impl From<ServiceName> for ServiceKey {
    fn from(name: ServiceName) -> Self {
        Self::new(name.protocol, name.vip)
    }
}

/// Which sessions; what is not given matches all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionFilter {
    /// Of this protocol.
    pub protocol: Option<Protocol>,
    /// Of this client address.
    pub client: Option<IpAddr>,
    /// Of this virtual address, and port unless that is 0.
    pub vip: Option<SocketAddr>,
    /// Of this real server address, and port unless that is 0.
    pub real_server: Option<SocketAddr>,
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
    /// Who asks may not use the gateway.
    Permission,
    /// An address of the gateway's own, where another host's is wanted.
    OwnAddress,
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
    /// To `snat.list`.
    Snat(Vec<SnatRow>),
    /// To `mark.list`.
    Marks(Vec<MarkConfig>),
    /// To `timeouts.show`.
    Timeouts(Timeouts),
    /// To `sysctl.list`.
    Sysctls(Vec<SysctlRow>),
    /// To `session.list`.
    Sessions(Vec<SessionRow>),
    /// To `template.list`.
    Templates(Vec<TemplateRow>),
    /// To `session.count`.
    SessionCount(SessionCount),
    /// To `port.show`.
    Ports(Vec<PortRow>),
    /// To `worker.show`.
    Workers(Vec<WorkerRow>),
    /// To `stats`.
    Stats(Stats),
}
