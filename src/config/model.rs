//! The validated configuration.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::balance::{
    ForwardingMode, Mark, MssClamp, Network, PortRange, Protocol, SchedulerFlags, SchedulerKind, SchedulerSettings,
    ServiceKey, Sysctls, Timeouts, Tunnel, VirtualAddress, Weight,
};
use crate::forward::PuntClass;
use crate::port::{MacAddress, PortId, VlanId};
use crate::session::Capacity;

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/fullgate/control.sock";

/// The whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[dpdk]`
    pub dpdk: DpdkConfig,
    /// `[worker]`
    pub worker: WorkerConfig,
    /// `[session]`
    pub session: SessionConfig,
    /// `[control]`
    pub control: ControlConfig,
    /// `[punt]`
    pub punt: PuntRates,
    /// `[timeouts]`
    pub timeouts: Timeouts,
    /// `[ipvs]`
    pub ipvs: SchedulerSettings,
    /// ... and its switches.
    pub sysctls: Sysctls,
    /// `[[port]]`
    pub ports: Vec<PortConfig>,
    /// Local pools, services and rules for source NAT: what run-time commands can change.
    pub balance: BalanceConfig,
}

impl Config {
    /// The sections, what run-time commands can change apart, in which `other` differs.
    pub fn sections_changed(&self, other: &Self) -> Vec<&'static str> {
        let sections = [
            ("[dpdk]", self.dpdk == other.dpdk),
            ("[worker]", self.worker == other.worker),
            ("[session]", self.session == other.session),
            ("[control]", self.control == other.control),
            ("[punt]", self.punt == other.punt),
            ("[timeouts]", self.timeouts == other.timeouts),
            ("[ipvs]", self.ipvs == other.ipvs && self.sysctls == other.sysctls),
            ("[[port]]", self.ports == other.ports),
        ];
        sections.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect()
    }
}

/// `[dpdk]`: what goes to the Environment Abstraction Layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DpdkConfig {
    /// Added to the arguments that fullgate derives.
    pub eal_args: Vec<String>,
    /// Packet buffers in the pool; none: as many as queues, rings and bursts need.
    pub mbufs: Option<u32>,
}

impl DpdkConfig {
    /// Whether DPDK is to do without hugepages.
    pub fn is_without_hugepages(&self) -> bool {
        self.eal_args.iter().any(|argument| argument == "--no-huge")
    }
}

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Idle {
    /// Poll on: lowest latency, a whole core.
    #[default]
    Spin,
    /// Back off in sleeps that grow to about a tenth of a millisecond.
    Sleep,
}

/// `[worker]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// One worker on each of these CPUs.
    pub cores: Vec<u16>,
    /// When idle.
    pub idle: Idle,
}

/// The pages that session memory is to lie on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionPages {
    /// Hugepages if enough are free, else ordinary ones.
    #[default]
    Auto,
    /// Hugepages of 1 GB.
    OneGigabyte,
    /// Hugepages of 2 MB.
    TwoMegabytes,
    /// No reserved hugepages.
    Ordinary,
}

/// `[session]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// Sessions of IPv4 alone that each worker can hold.
    pub capacity: u32,
    /// Sessions that have to do with IPv6 that each worker can hold.
    pub ipv6_capacity: u32,
    /// What their memory lies on.
    pub pages: SessionPages,
    /// Templates that there is room for, for all workers together.
    pub persistence_capacity: u32,
}

impl SessionConfig {
    /// Sessions that each worker can hold.
    pub fn capacity(&self) -> Capacity {
        Capacity { ipv4: self.capacity, ipv6: self.ipv6_capacity }
    }
}

/// `[control]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlConfig {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Group of the socket, which has mode 0660; none: the daemon's own group.
    pub group: Option<String>,
    /// Where /metrics is served; none: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Where run-time changes are kept.
    pub state_dir: PathBuf,
}

impl ControlConfig {
    /// Where IPVS's own tools are listened to, through the library that they are started with: beside the control socket.
    pub fn ipvs_socket(&self) -> PathBuf {
        ipvs_socket_beside(&self.socket)
    }
}

/// Where IPVS's own tools are listened to by the daemon with this control socket.
pub fn ipvs_socket_beside(control_socket: &Path) -> PathBuf {
    control_socket.with_extension("ipvs.sock")
}

/// `[punt]`: frames a second that each worker gives to the kernel, by class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PuntRates(pub [u32; PuntClass::COUNT]);

impl Default for PuntRates {
    fn default() -> Self {
        let mut rates = [0; PuntClass::COUNT];
        rates[PuntClass::Arp as usize] = 2_000;
        rates[PuntClass::Icmp as usize] = 2_000;
        rates[PuntClass::NeighbourDiscovery as usize] = 2_000;
        rates[PuntClass::Ipv6 as usize] = 2_000;
        rates[PuntClass::Multicast as usize] = 2_000;
        rates[PuntClass::Local as usize] = 100_000;
        rates[PuntClass::Virtual as usize] = 2_000;
        rates[PuntClass::LocalNode as usize] = 20_000;
        Self(rates)
    }
}

/// `[[port]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Its name everywhere.
    pub name: String,
    /// A PCI address, a vdev with its arguments, or the device of its parent.
    pub device: Device,
    /// What a bond is made of; none of other devices.
    pub members: Vec<Device>,
    /// The VLAN of the device that it is; none: what has no tag.
    pub vlan: Option<VlanId>,
    /// Its link-layer address; none: its device's.
    pub mac: Option<MacAddress>,
    /// Name of its TAP in the kernel.
    pub tap: String,
    /// Put on the TAP at start.
    pub addresses: Vec<InterfaceAddress>,
    /// Put on the TAP at start.
    pub routes: Vec<RouteConfig>,
    /// Bytes of an IP packet; none: the device's own.
    pub mtu: Option<u16>,
    /// Receive and transmit queues; none: one a worker.
    pub queues: Option<u16>,
    /// Receive descriptors a queue.
    pub rx_descriptors: u16,
    /// Transmit descriptors a queue.
    pub tx_descriptors: u16,
    /// Take frames for any MAC address.
    pub promiscuous: bool,
    /// Who deals flows to workers.
    pub steering: PortSteering,
    /// What the MSS options of SYNs are lowered to that sessions receive or send by it.
    pub mss_clamp: MssClamp,
    /// How long to wait at start for the link, in milliseconds; a port without link by then is an error, unless 0.
    pub link_timeout_milliseconds: u32,
}

/// Who deals a port's flows to workers, as far as the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortSteering {
    /// The device where fullgate can set its RSS up, else the workers among themselves.
    #[default]
    Auto,
    /// The device, set up by somebody else: all packets of a flow come by one queue.
    Rss,
    /// The workers among themselves, whatever the device can do.
    Software,
}

/// A DPDK device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// `0000:01:00.0`, with devargs behind a comma if need be.
    Pci(String),
    /// `net_af_xdp0,iface=veth1`: the whole string. Its name is what stands before the first comma.
    Vdev(String),
    /// That of another port, which has it by one of the above: the port is one of its VLANs.
    Parent(PortId),
}

/// An address with its prefix, as `ip addr add` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of its prefix in bits.
    pub prefix_len: u8,
}

/// A route, as `ip route add` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// The destination; for `default` 0.0.0.0/0, or ::/0 where the gateway has an IPv6 address.
    pub to: InterfaceAddress,
    /// The gateway; none: on-link.
    pub via: Option<IpAddr>,
    /// The metric; none: the kernel's default.
    pub metric: Option<u32>,
}

/// Local pools, services and rules for source NAT, by the words of the file, of the control protocol and of the persisted state alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalanceConfig {
    /// `[[local_pool]]`
    #[serde(default, rename = "local_pool")]
    pub local_pools: Vec<LocalPoolConfig>,
    /// `[[service]]`
    #[serde(default, rename = "service")]
    pub services: Vec<ServiceConfig>,
    /// `[[snat]]`, in the order in which they are looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snat: Vec<SnatConfig>,
    /// `[[mark]]`, in the order in which they are looked at.
    #[serde(default, rename = "mark", skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<MarkConfig>,
}

/// `[[local_pool]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalPoolConfig {
    /// Its name.
    pub name: String,
    /// The name of the port that its addresses are on.
    pub port: String,
    /// Its addresses, ranges expanded.
    pub addresses: Vec<IpAddr>,
    /// Local ports that sessions may use.
    pub ports: PortRange,
    /// Whether it goes when the last service that uses it does, as a pool that was made for one. Not in the file.
    #[serde(default, skip_serializing_if = "is_false")]
    pub transient: bool,
}

/// `[[service]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Virtual address and port, or ports; or a mark.
    pub vip: VirtualAddress,
    /// TCP, UDP or SCTP; any for a mark.
    pub protocol: Protocol,
    /// How it chooses real servers.
    pub scheduler: SchedulerKind,
    /// The scheduler's flags.
    #[serde(default, skip_serializing_if = "SchedulerFlags::is_empty")]
    pub scheduler_flags: SchedulerFlags,
    /// How packets reach those of its real servers that do not say it themselves.
    pub mode: ForwardingMode,
    /// Name of its local pool, for real servers in FULLNAT mode; empty where there is none of these.
    #[serde(default)]
    pub local_pool: String,
    /// What the MSS options of its sessions' SYNs are lowered to.
    #[serde(default, skip_serializing_if = "MssClamp::is_off")]
    pub mss_clamp: MssClamp,
    /// Seconds that clients stay with their real server from the beginning of their last connection on; 0: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub persistence: u32,
    /// How many bits of a client's address count for that, from the first on; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence_prefix: Option<u8>,
    /// Whether each packet is scheduled on its own and leaves no session.
    #[serde(default, skip_serializing_if = "is_false")]
    pub one_packet: bool,
    /// Sessions that it may have; 0: as many as there is room for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_connections: u32,
    /// Seconds over which the weight of a real server that is added, or comes back from weight 0, rises to its own; 0: at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slow_start: u32,
    /// In the order in which they were added (the data path lists the newest first).
    #[serde(default, rename = "real_server")]
    pub real_servers: Vec<RealServerConfig>,
}

/// `[[service.real_server]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealServerConfig {
    /// Its address and port; port 0: the one that the client asked for.
    pub address: SocketAddr,
    /// How packets reach it; none: as its service says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ForwardingMode>,
    /// What wraps packets to it in mode `tun`; none: IPIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// Its share of new sessions.
    pub weight: Weight,
    /// IPVS's upper connection threshold; 0: none.
    #[serde(default, rename = "upper")]
    pub upper_threshold: u32,
    /// IPVS's lower connection threshold; 0: none.
    #[serde(default, rename = "lower")]
    pub lower_threshold: u32,
}

/// `[[snat]]`: flows from inside that go out with a local address as their source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnatConfig {
    /// The rule's name.
    pub name: String,
    /// Where they come from.
    pub source: Network,
    /// Where they go; none: anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Network>,
    /// TCP, UDP or SCTP; none: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Their destination port; none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<PortRange>,
    /// The name of the port that they enter by; none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The name of the pool whose addresses become their source; they leave by its port.
    pub local_pool: String,
}

/// `[[mark]]`: flows that get a mark, by which services can be for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkConfig {
    /// The rule's name.
    pub name: String,
    /// The mark.
    pub fwmark: Mark,
    /// Where they come from; none: anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Network>,
    /// Where they go; none: anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Network>,
    /// TCP, UDP or SCTP; none: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Their destination port; none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<PortRange>,
    /// The name of the port that they enter by; none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

/// Whether a number says nothing.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde wants it")]
pub(crate) fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Whether a switch says nothing.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde wants it")]
pub(crate) fn is_false(switch: &bool) -> bool {
    !*switch
}

impl ServiceConfig {
    /// What names the service.
    pub fn key(&self) -> ServiceKey {
        ServiceKey::new(self.protocol, self.vip)
    }

    /// Whether any real server is, or one added without saying otherwise would be, in FULLNAT mode.
    pub fn needs_local_pool(&self) -> bool {
        let is_fullnat = |mode| mode == ForwardingMode::Fullnat;
        is_fullnat(self.mode) || self.real_servers.iter().any(|real| real.mode.is_some_and(is_fullnat))
    }
}
