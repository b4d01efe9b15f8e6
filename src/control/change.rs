//! One step of a change of services and pools, and the line that tells the user about it.
//!
//! A list of steps is planned against the model as it is (`plan`) and then done without failing (`model`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::rule_list::RuleChange;
use crate::balance::{
    ForwardingMode, MssClamp, Persistence, PortRange, Protocol, SchedulerFlags, SchedulerKind, ServiceKey,
};
use crate::config::{LocalPoolConfig, MarkConfig, RealServerConfig, ServiceConfig, SnatConfig};

/// What can be changed of a service without touching its real servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    /// How it chooses real servers.
    pub scheduler: SchedulerKind,
    /// With which of its flags.
    pub scheduler_flags: SchedulerFlags,
    /// How packets reach them.
    pub mode: ForwardingMode,
    /// Name of its local pool.
    pub local_pool: String,
    /// What the MSS options of its sessions' SYNs are lowered to.
    pub mss_clamp: MssClamp,
    /// Seconds that clients stay with their real server; 0: none.
    pub persistence: u32,
    /// How many bits of a client's address count for that; none: all.
    pub persistence_prefix: Option<u8>,
    /// Whether each packet is scheduled on its own and leaves no session.
    pub one_packet: bool,
    /// Sessions that it may have; 0: as many as there is room for.
    pub max_connections: u32,
    /// Seconds over which a new real server's weight rises; 0: none.
    pub slow_start: u32,
}

impl From<&ServiceConfig> for ServiceSettings {
    fn from(config: &ServiceConfig) -> Self {
        Self {
            scheduler: config.scheduler,
            scheduler_flags: config.scheduler_flags,
            mode: config.mode,
            local_pool: config.local_pool.clone(),
            mss_clamp: config.mss_clamp,
            persistence: config.persistence,
            persistence_prefix: Persistence::prefix_kept(config.persistence_prefix, config.vip.address.is_ipv4()),
            one_packet: config.one_packet,
            max_connections: config.max_connections,
            slow_start: config.slow_start,
        }
    }
}

/// What can be changed of a local pool without touching its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Name of the port that its addresses are on.
    pub port: String,
    /// Local ports that sessions may use.
    pub ports: PortRange,
    /// Whether it goes when the last service that uses it does.
    pub transient: bool,
}

impl From<&LocalPoolConfig> for PoolSettings {
    fn from(config: &LocalPoolConfig) -> Self {
        Self { port: config.port.clone(), ports: config.ports, transient: config.transient }
    }
}

/// One step. Where a step edits, it carries the old value for its line.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are what their types say")]
pub enum Change {
    /// A new pool, without addresses.
    PoolAdd { name: String, settings: PoolSettings },
    /// Other settings for a pool. Its addresses must have been removed where its port changes.
    PoolEdit { name: String, from: PoolSettings, to: PoolSettings },
    /// A pool goes. Its addresses must have been removed.
    PoolRemove { name: String },
    /// A local address for new sessions.
    LocalAdd { pool: String, address: IpAddr },
    /// No new session gets this address.
    LocalRemove { pool: String, address: IpAddr },
    /// A new service, without real servers.
    ServiceAdd { key: ServiceKey, settings: ServiceSettings },
    /// Other settings for a service.
    ServiceEdit { key: ServiceKey, from: ServiceSettings, to: ServiceSettings },
    /// A service goes with all its real servers, of which there are `real_servers`.
    ServiceRemove { key: ServiceKey, real_servers: usize },
    /// A new real server, last in its service's list.
    RealAdd { key: ServiceKey, real_server: RealServerConfig },
    /// Other settings for the real server of the same address.
    RealEdit { key: ServiceKey, from: RealServerConfig, to: RealServerConfig },
    /// A real server goes.
    RealRemove { key: ServiceKey, address: SocketAddr },
    /// A step in the list of rules for source NAT.
    Snat(RuleChange<SnatConfig>),
    /// A step in the list of rules for marks.
    Mark(RuleChange<MarkConfig>),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoolAdd { name, settings } => {
                let until = if settings.transient { ", until no service uses it" } else { "" };
                write!(f, "local pool {name}: added on port {}, ports {}{until}", settings.port, settings.ports)
            }
            Self::PoolEdit { name, from, to } => {
                write!(f, "local pool {name}:")?;
                let mut edits = Edits::new(f);
                edits.show("port", &from.port, &to.port)?;
                edits.show("ports", &from.ports, &to.ports)?;
                edits.show("goes with its services", &from.transient, &to.transient)
            }
            Self::PoolRemove { name } => write!(f, "local pool {name}: removed"),
            Self::LocalAdd { pool, address } => write!(f, "local pool {pool}: address {address} added"),
            Self::LocalRemove { pool, address } => write!(f, "local pool {pool}: address {address} withdrawn"),
            Self::ServiceAdd { key, settings } => show_service(f, *key, settings),
            Self::ServiceEdit { key, from, to } => {
                write!(f, "service {key}:")?;
                let mut edits = Edits::new(f);
                edits.show("scheduler", &from.scheduler, &to.scheduler)?;
                edits.show("scheduler flags", &from.scheduler_flags, &to.scheduler_flags)?;
                edits.show("mode", &from.mode, &to.mode)?;
                edits.show("local pool", &or_none(&from.local_pool), &or_none(&to.local_pool))?;
                edits.show("MSS clamp", &from.mss_clamp, &to.mss_clamp)?;
                edits.show("persistence", &persistence_of(from), &persistence_of(to))?;
                edits.show("one packet", &from.one_packet, &to.one_packet)?;
                edits.show("most connections", &most(from), &most(to))?;
                edits.show("slow start", &slow_start_of(from), &slow_start_of(to))
            }
            Self::ServiceRemove { key, real_servers } => {
                write!(f, "service {key}: removed with its real servers ({real_servers})")
            }
            Self::RealAdd { key, real_server } => show_real_server(f, *key, real_server),
            Self::RealEdit { key, from, to } => {
                write!(f, "service {key}: real server {}:", from.address)?;
                let mut edits = Edits::new(f);
                edits.show("mode", &mode_of(from), &mode_of(to))?;
                edits.show("tunnel", &tunnel_of(from), &tunnel_of(to))?;
                edits.show("weight", &from.weight.0, &to.weight.0)?;
                edits.show("upper threshold", &from.upper_threshold, &to.upper_threshold)?;
                edits.show("lower threshold", &from.lower_threshold, &to.lower_threshold)
            }
            Self::RealRemove { key, address } => write!(f, "service {key}: real server {address} removed"),
            Self::Snat(change) => change.fmt(f),
            Self::Mark(change) => change.fmt(f),
        }
    }
}

fn show_service(f: &mut fmt::Formatter<'_>, key: ServiceKey, added: &ServiceSettings) -> fmt::Result {
    let ServiceSettings { scheduler, scheduler_flags, mode, local_pool, mss_clamp, .. } = added;
    write!(f, "service {key}: added, scheduler {scheduler}")?;
    if !scheduler_flags.is_empty() {
        write!(f, " ({scheduler_flags})")?;
    }
    write!(f, ", mode {mode}")?;
    if !local_pool.is_empty() {
        write!(f, ", local pool {local_pool}")?;
    }
    if !mss_clamp.is_off() {
        write!(f, ", MSS clamp {mss_clamp}")?;
    }
    if added.persistence > 0 {
        write!(f, ", persistence {}", persistence_of(added))?;
    }
    if added.one_packet {
        write!(f, ", each packet on its own")?;
    }
    if added.max_connections > 0 {
        write!(f, ", at most {} connections", added.max_connections)?;
    }
    if added.slow_start > 0 { write!(f, ", slow start {}", slow_start_of(added)) } else { Ok(()) }
}

/// What a rule says besides its networks.
pub(super) fn show_conditions(
    f: &mut fmt::Formatter<'_>,
    protocol: Option<Protocol>,
    destination_port: Option<PortRange>,
    port: Option<&String>,
) -> fmt::Result {
    if let Some(protocol) = protocol {
        write!(f, ", {protocol}")?;
    }
    if let Some(ports) = destination_port {
        write!(f, ", destination port {ports}")?;
    }
    port.map_or(Ok(()), |port| write!(f, ", port {port}"))
}

pub(super) fn or_any(value: Option<&impl fmt::Display>) -> String {
    value.map_or_else(|| "any".to_owned(), ToString::to_string)
}

fn show_real_server(f: &mut fmt::Formatter<'_>, key: ServiceKey, added: &RealServerConfig) -> fmt::Result {
    write!(f, "service {key}: real server {} added, weight {}", added.address, added.weight.0)?;
    if let Some(mode) = added.mode {
        write!(f, ", mode {mode}")?;
    }
    if let Some(tunnel) = added.tunnel {
        write!(f, ", tunnel {tunnel}")?;
    }
    if added.upper_threshold > 0 {
        write!(f, ", upper threshold {}, lower threshold {}", added.upper_threshold, added.lower_threshold)?;
    }
    Ok(())
}

fn most(settings: &ServiceSettings) -> String {
    let most = settings.max_connections;
    if most == 0 { "any".to_owned() } else { most.to_string() }
}

fn slow_start_of(settings: &ServiceSettings) -> String {
    if settings.slow_start == 0 { "none".to_owned() } else { format!("{} seconds", settings.slow_start) }
}

fn persistence_of(settings: &ServiceSettings) -> String {
    match (settings.persistence, settings.persistence_prefix) {
        (0, _) => "none".to_owned(),
        (seconds, None) => format!("{seconds} seconds"),
        (seconds, Some(bits)) => format!("{seconds} seconds for clients of /{bits}"),
    }
}

fn or_none(name: &str) -> &str {
    if name.is_empty() { "none" } else { name }
}

fn mode_of(real_server: &RealServerConfig) -> &'static str {
    real_server.mode.map_or("the service's", ForwardingMode::name)
}

fn tunnel_of(real_server: &RealServerConfig) -> String {
    real_server.tunnel.unwrap_or_default().to_string()
}

/// Writes ` NAME OLD -> NEW` for what differs, with commas between.
pub(super) struct Edits<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    separator: &'static str,
}

impl<'a, 'b> Edits<'a, 'b> {
    pub(super) fn new(f: &'a mut fmt::Formatter<'b>) -> Self {
        Self { f, separator: "" }
    }

    pub(super) fn show<T: PartialEq + fmt::Display>(&mut self, name: &str, from: &T, to: &T) -> fmt::Result {
        if from == to {
            return Ok(());
        }
        write!(self.f, "{} {name} {from} -> {to}", self.separator)?;
        self.separator = ",";
        Ok(())
    }

    /// The same for a condition that may be missing.
    pub(super) fn show_or_any<T: PartialEq + fmt::Display>(
        &mut self,
        name: &str,
        from: Option<&T>,
        to: Option<&T>,
    ) -> fmt::Result {
        self.show(name, &or_any(from), &or_any(to))
    }
}
