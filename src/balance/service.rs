//! The service table: what the control thread compiles and every worker reads, never changed once published.
//!
//! Real servers and local addresses carry a *slot*: a small number that stays theirs while they exist or any session
//! still belongs to them. Sessions and counters know them by slot alone, so that a new table may order its lists as
//! it likes. The control thread hands slots out and takes them back.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hashbrown::{Equivalent, HashMap, HashSet};
use serde::{Deserialize, Serialize};

use super::mark::{Mark, Marks};
use super::mode::{ForwardingMode, Tunnel};
use super::mss_clamp::MssClamp;
use super::overload::Overloads;
use super::persistence::Persistence;
use super::port_range::PortRange;
use super::protocol::Protocol;
use super::scheduler::Scheduler;
use super::snat::SnatRule;
use super::sysctls::Sysctls;
use super::templates::Templates;
use super::timeouts::Timeouts;
use super::virtual_address::{ServicePorts, VirtualAddress, WideServices};
use crate::port::PortId;

/// A real server's share; 0 takes no new sessions and keeps those it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Weight(pub u32);

impl Weight {
    /// The largest weight, IPVS's (INT_MAX would overflow its own comparisons; ipvsadm allows 65535).
    pub const MAX: u32 = 65_535;
}

/// What names a service: protocol, virtual address and ports; or a mark and a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceKey {
    /// TCP, UDP or SCTP; any for a mark.
    pub protocol: Protocol,
    /// The virtual IP address (VIP); for a mark the unspecified one of its family.
    pub address: IpAddr,
    /// The virtual ports; for a mark all.
    pub ports: ServicePorts,
    /// The mark, where it is that and not its address which names the service.
    pub mark: Option<Mark>,
}

impl ServiceKey {
    /// The key of the service of a protocol at a virtual address.
    pub fn new(protocol: Protocol, VirtualAddress { address, ports, mark }: VirtualAddress) -> Self {
        Self { protocol, address, ports, mark }
    }

    /// The virtual address with its ports, or the mark.
    pub fn vip(&self) -> VirtualAddress {
        VirtualAddress { address: self.address, ports: self.ports, mark: self.mark }
    }
}

impl Hash for ServiceKey {
    /// Where a range of ports ends makes no difference.
    fn hash<H: Hasher>(&self, state: &mut H) {
        JustPort { protocol: self.protocol, address: self.address, port: self.ports.first() }.hash(state);
        if let Some(mark) = self.mark {
            mark.hash(state);
        }
    }
}

/// The key of a service of just one port, to look for it.
struct JustPort {
    protocol: Protocol,
    address: IpAddr,
    port: u16,
}

impl Equivalent<ServiceKey> for JustPort {
    #[inline]
    fn equivalent(&self, key: &ServiceKey) -> bool {
        key.ports == ServicePorts::just(self.port) && key.protocol == self.protocol && key.address == self.address
    }
}

impl Hash for JustPort {
    /// In one word for IPv4: each session's set-up looks a service up.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let rest = u64::from(self.port) << 8 | self.protocol as u64;
        match self.address {
            IpAddr::V4(address) => state.write_u64(u64::from(address.to_bits()) << 32 | rest),
            IpAddr::V6(address) => {
                state.write_u128(address.to_bits());
                state.write_u64(rest);
            }
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mark {
            Some(_) => self.vip().fmt(f),
            None => write!(f, "{} {}", self.protocol, self.vip()),
        }
    }
}

/// A real server's stable number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RealServerSlot(pub u32);

/// A local address's stable number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalAddressSlot(pub u32);

/// One real server (RS) of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealServer {
    /// Its counters and sessions.
    pub slot: RealServerSlot,
    /// Its address.
    pub address: IpAddr,
    /// Its port; 0: the one that the client asked for.
    pub port: u16,
    /// How packets reach it.
    pub mode: ForwardingMode,
    /// Its share of new sessions.
    pub weight: Weight,
    /// New sessions are held back from this many connections on; 0: no limit.
    pub upper_threshold: u32,
    /// ... and let in again below this many; 0: three quarters of the upper threshold.
    pub lower_threshold: u32,
}

impl RealServer {
    /// The port that packets to it get when a client asked for this one.
    #[inline]
    pub fn port_for(&self, asked: u16) -> u16 {
        if self.port == 0 { asked } else { self.port }
    }
}

/// One virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What names it.
    pub key: ServiceKey,
    /// How it chooses real servers.
    pub scheduler: Scheduler,
    /// How it keeps clients with their real servers; none: it does not.
    pub persistence: Option<Persistence>,
    /// Whether each packet is scheduled on its own and leaves no session.
    pub one_packet: bool,
    /// Sessions that it may have over all workers; 0: as many as there is room for.
    pub max_connections: u32,
    /// Index into [`ServiceTable::pools`]: where real servers in FULLNAT mode get their local addresses from; none: it has
    /// no such real server.
    pub pool: Option<usize>,
    /// Whether the worker that a client's session belongs to must be found from the client alone: answers in NAT mode
    /// say nothing else of it.
    pub owned_by_client: bool,
    /// A stable number for the scheduler's cursor, below [`ServiceTable::cursor_count`].
    pub cursor: usize,
    /// Newest first, as IPVS lists and schedules them.
    pub real_servers: Vec<RealServer>,
}

/// One local address (LIP) that may be given to new sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// Its counters.
    pub slot: LocalAddressSlot,
    /// The address.
    pub address: IpAddr,
}

/// A pool of local addresses. Addresses being withdrawn are not in it any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPool {
    /// Its name in the configuration.
    pub name: String,
    /// The port that its addresses are on.
    pub port: PortId,
    /// Local ports that sessions may use.
    pub ports: PortRange,
    /// The addresses of IPv4, in the order in which they were added.
    pub ipv4: Vec<LocalAddress>,
    /// Those of IPv6.
    pub ipv6: Vec<LocalAddress>,
}

impl LocalPool {
    /// The addresses that a real server can be spoken to from: of its family.
    #[inline]
    pub fn addresses_for(&self, real_server: IpAddr) -> &[LocalAddress] {
        if real_server.to_canonical().is_ipv4() { &self.ipv4 } else { &self.ipv6 }
    }
}

/// Everything that setting up and accounting a session needs to know of the configuration.
#[derive(Clone, Debug, Default)]
pub struct ServiceTable {
    /// Grows by one with each published table.
    pub generation: u64,
    /// Where each service stands in `services`.
    pub by_key: HashMap<ServiceKey, usize>,
    /// Where those of more than one port stand.
    pub wide: WideServices,
    /// What is marked, and where the services of marks stand.
    pub marks: Marks,
    /// The services.
    pub services: Vec<Service>,
    /// The addresses of all services (VIPs).
    pub virtual_addresses: HashSet<IpAddr>,
    /// One more than the highest [`Service::cursor`] in use.
    pub cursor_count: usize,
    /// By [`RealServerSlot`]: whether that real server, or rule, is configured. A session whose real server is not is dropped
    /// packet by packet until it expires, as IPVS does with expire_nodest_conn=0.
    pub real_server_present: Vec<bool>,
    /// By [`RealServerSlot`], as far as there are any: whether that real server has weight 0.
    pub drained: Vec<bool>,
    /// By [`RealServerSlot`], as far as there are any: how packets to a real server in mode `tun` are wrapped.
    pub tunnels: Vec<Tunnel>,
    /// By [`RealServerSlot`], as far as there are any: what the MSS options of its sessions' SYNs are lowered to.
    pub mss_clamps: Vec<MssClamp>,
    /// Whether any real server is in mode `nat`: packets from it to clients are of sessions then.
    pub has_nat: bool,
    /// Where there are rules for source NAT, or `nat_icmp_send` is on: the real servers in mode `nat`, whose packets may be answers; with port 0 from
    /// any port.
    pub nat_servers: HashSet<(Protocol, SocketAddr)>,
    /// The rules for source NAT: the first that matches counts.
    pub snat: Vec<SnatRule>,
    /// The local pools.
    pub pools: Vec<LocalPool>,
    /// Every local address that sessions may still use, also those being withdrawn.
    pub local_addresses: HashMap<IpAddr, LocalAddressSlot>,
    /// By [`LocalAddressSlot`]: the port that the address is on.
    pub local_address_ports: Vec<PortId>,
    /// Session timeouts.
    pub timeouts: Timeouts,
    /// Which real servers are held back by their upper thresholds; the same in every table of a gateway.
    pub overloads: Arc<Overloads>,
    /// Which real servers clients stay with; the same in every table of a gateway.
    pub templates: Arc<Templates>,
    /// IPVS's switches.
    pub sysctls: Sysctls,
}

impl ServiceTable {
    /// Where the service of just this port stands in `services`.
    #[inline]
    pub fn exact_service(&self, protocol: Protocol, address: IpAddr, port: u16) -> Option<usize> {
        self.by_key.get(&JustPort { protocol, address, port }).copied()
    }

    /// Where the service for packets to this address and port stands in `services`: the one of just that port, else one of
    /// more.
    pub fn service_for(&self, protocol: Protocol, address: IpAddr, port: u16) -> Option<usize> {
        self.exact_service(protocol, address, port).or_else(|| self.wide.find(protocol, address, port))
    }

    /// Whether the real server of a slot is configured.
    #[inline]
    pub fn is_present(&self, slot: RealServerSlot) -> bool {
        self.real_server_present.get(slot.0 as usize).copied().unwrap_or(false)
    }

    /// Whether the real server of a slot has weight 0.
    pub fn is_drained(&self, slot: RealServerSlot) -> bool {
        self.drained.get(slot.0 as usize).copied().unwrap_or(false)
    }

    /// The port that a local address is on, which sessions may still use; none: it is no local address.
    pub fn local_address_port(&self, address: IpAddr) -> Option<PortId> {
        let slot = self.local_addresses.get(&address)?;
        Some(self.local_address_ports.get(slot.0 as usize).copied().unwrap_or(PortId(0)))
    }

    /// How packets to the real server of a slot are wrapped.
    #[inline]
    pub fn tunnel(&self, slot: RealServerSlot) -> Tunnel {
        self.tunnels.get(slot.0 as usize).copied().unwrap_or_default()
    }

    /// What the MSS options of the SYNs of this real server's sessions are lowered to.
    pub fn mss_clamp(&self, slot: RealServerSlot) -> MssClamp {
        self.mss_clamps.get(slot.0 as usize).copied().unwrap_or_default()
    }

    /// Whether packets to an address are, or may be, a service's: it is a virtual or a local address.
    pub fn is_balanced(&self, address: IpAddr) -> bool {
        self.virtual_addresses.contains(&address) || self.local_addresses.contains_key(&address)
    }
}
