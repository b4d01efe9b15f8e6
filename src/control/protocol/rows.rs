//! What listings and counters are made of, as they go over the Unix socket.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::balance::{
    ForwardingMode, MssClamp, Network, PortRange, Protocol, SchedulerFlags, SchedulerKind, Tunnel, VirtualAddress,
    Weight,
};
use crate::config::{is_false, is_zero};
use crate::telemetry::histogram::Durations;

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
    /// Defence strategies that are active now on any worker, by their sysctls' names.
    #[serde(default)]
    pub defence: Vec<String>,
}

/// Packets and bytes each way. Bytes are those of IP packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficTotals {
    /// Sessions set up.
    pub connections: u64,
    /// Client to real server or, with source NAT, from inside to the destination.
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
    /// Virtual address and port, or ports.
    pub vip: VirtualAddress,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Its scheduler.
    pub scheduler: SchedulerKind,
    /// Its scheduler's flags.
    #[serde(default, skip_serializing_if = "SchedulerFlags::is_empty")]
    pub scheduler_flags: SchedulerFlags,
    /// The forwarding mode of real servers that are added without one.
    pub mode: ForwardingMode,
    /// Its local pool; empty: none.
    pub local_pool: String,
    /// Whether that has no address for one of its real servers, so that new sessions with it are dropped.
    #[serde(default, skip_serializing_if = "is_false")]
    pub lacks_local_address: bool,
    /// What the MSS options of its sessions' SYNs are lowered to.
    #[serde(default, skip_serializing_if = "MssClamp::is_off")]
    pub mss_clamp: MssClamp,
    /// Seconds that clients stay with their real server; 0: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub persistence: u32,
    /// How many bits of a client's address count for that; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence_prefix: Option<u8>,
    /// Whether each packet is scheduled on its own and leaves no session.
    #[serde(default, skip_serializing_if = "is_false")]
    pub one_packet: bool,
    /// Sessions that it may have; 0: as many as there is room for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_connections: u32,
    /// Seconds over which a new real server's weight rises; 0: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slow_start: u32,
    /// Its traffic, real servers since removed included.
    pub traffic: TrafficTotals,
    /// Its real servers, in the order added.
    pub real_servers: Vec<RealServerRow>,
}

/// A real server in a [`ServiceRow`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RealServerRow {
    /// Its address and port; port 0: the one that the client asked for.
    pub address: SocketAddr,
    /// How packets reach it.
    pub mode: ForwardingMode,
    /// What wraps them, in mode `tun`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// Its weight.
    pub weight: Weight,
    /// Its weight as it is now, while that rises to its weight; else none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_weight: Option<Weight>,
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
    /// Clients that stay with it, or networks of them.
    #[serde(default)]
    pub persistent_connections: u32,
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
    /// Its range of local ports, `1024-65535`; empty: it was removed, and waits for the sessions of its addresses to end.
    pub ports: String,
    /// Whether it goes when the last service that uses it does.
    #[serde(default, skip_serializing_if = "is_false")]
    pub transient: bool,
    /// Its addresses.
    pub addresses: Vec<LocalAddressRow>,
}

/// A local address in a [`LocalPoolRow`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalAddressRow {
    /// The address.
    pub address: IpAddr,
    /// Local ports in use, over all real servers.
    pub ports_used: u64,
    /// Withdrawn, and only kept for the sessions that still use it.
    pub withdrawn: bool,
}

/// A rule for source NAT in `snat.list` and `stats`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnatRow {
    /// Its name.
    pub name: String,
    /// Where its flows come from.
    pub source: Network,
    /// Where they go; none: anywhere.
    #[serde(default)]
    pub destination: Option<Network>,
    /// TCP, UDP or SCTP; none: all of them.
    #[serde(default)]
    pub protocol: Option<Protocol>,
    /// Their destination port; none: any.
    #[serde(default)]
    pub destination_port: Option<PortRange>,
    /// The port that they enter by; none: any.
    #[serde(default)]
    pub port: Option<String>,
    /// Its local pool.
    pub local_pool: String,
    /// Sessions that IPVS would call active.
    pub active_connections: u64,
    /// Sessions that IPVS would call inactive.
    pub inactive_connections: u64,
    /// Its traffic: `in` goes out, `out` comes back, by the client's view as with services.
    pub traffic: TrafficTotals,
}

/// A session in `session.list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The client.
    pub client: SocketAddr,
    /// The virtual address.
    pub vip: SocketAddr,
    /// How its packets reach the real server: a forwarding mode's name, or `snat`.
    pub mode: String,
    /// The local address, in FULLNAT mode and with source NAT.
    pub local: Option<SocketAddr>,
    /// The real server.
    pub real_server: SocketAddr,
    /// The state's IPVS name.
    pub state: String,
    /// Seconds until it expires if nothing more comes.
    pub expires_seconds: u32,
    /// The worker that owns it.
    pub worker: usize,
}

/// A template of persistence in `template.list`: clients that stay with a real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateRow {
    /// TCP, UDP or SCTP; none: any, for a mark.
    pub protocol: Option<Protocol>,
    /// The client, or the first address of a network of clients.
    pub client: IpAddr,
    /// What they speak to; none: packets with a mark.
    pub vip: Option<VirtualAddress>,
    /// The mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
    /// How packets reach the real server.
    pub mode: ForwardingMode,
    /// The real server; port 0: whatever port it is.
    pub real_server: SocketAddr,
    /// Its sessions, which keep it.
    pub connections: u32,
    /// IPVS's name of its state: ASSURED once one of its TCP or SCTP sessions was established, else NONE.
    pub state: String,
    /// Seconds until it ends if it is not used and has no session.
    pub expires_seconds: u32,
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
    /// The TAP's addresses as the kernel has them, with their prefixes; `(tentative)` or `(duplicate)` behind an IPv6
    /// address that the kernel does not use yet, or never.
    #[serde(default)]
    pub addresses: Vec<String>,
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
    /// How a client's packets find their worker: `rss`, `software` or `single`.
    pub steering: String,
    /// How answers to local addresses find it: `rss`, `software` or `single`.
    pub ownership: String,
    /// Why the ownership is software, where it is.
    pub ownership_reason: Option<String>,
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
    /// Packets received here that the workers handed over to each other.
    pub handovers: u64,
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
    /// Sessions that have to do with IPv6 now.
    pub ipv6_sessions: u64,
    /// Of those, as many as fit.
    pub ipv6_session_capacity: u64,
    /// Sessions set up.
    pub sessions_created: u64,
    /// Sessions expired.
    pub sessions_expired: u64,
    /// Of these, ended before their time by drop_entry.
    #[serde(default)]
    pub sessions_dropped: u64,
    /// Defence strategies that are active now, by their sysctls' names.
    #[serde(default)]
    pub defence: Vec<String>,
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

/// A sysctl in `sysctl.list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SysctlRow {
    /// Its name, without `net.ipv4.vs.`.
    pub name: String,
    /// Its value.
    pub value: u32,
    /// What it is where nothing is said.
    pub default: u32,
    /// The least that it may be.
    pub least: u32,
    /// The most.
    pub most: u32,
    /// Whether it was set at run time, and so wins over the configuration file.
    pub changed_at_run_time: bool,
}

/// What became of fragments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragments {
    /// Forwarded.
    pub forwarded: u64,
    /// Made of packets larger than the link that they went to.
    pub created: u64,
    /// Waiting for their first one now.
    pub waiting: u64,
    /// Datagrams that were forgotten before all of theirs had come, for want of room.
    pub datagrams_forgotten: u64,
}

/// Templates of persistence: which real server clients stay with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    /// Templates now.
    pub templates: u32,
    /// Templates that there is room for.
    pub capacity: u32,
    /// Sessions set up without one that should have had one: there was no room.
    pub missed_full: u64,
    /// The same: another worker was at the place.
    pub missed_busy: u64,
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
    /// Rules for source NAT.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snat: Vec<SnatRow>,
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
    /// Fragments.
    #[serde(default)]
    pub fragments: Fragments,
    /// Persistence.
    #[serde(default)]
    pub persistence: Persistence,
}
