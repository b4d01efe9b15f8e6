//! Where packets go: longest-prefix routes and neighbours, as the kernel mirror last saw them.
//!
//! [`RouteInput`] is what the mirror read, [`RouteTable`] what the data path asks. Nothing here asks the kernel or
//! knows time. Invariant: a table never changes; what was true of an index stays true until `generation` differs.

mod hop;
mod lpm;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashSet;

use self::hop::{Family, Hops, Wanted};
use self::lpm::{Prefixes, Way};

use crate::forward::Hop;
use crate::port::{MAX_PORTS, MacAddress, PortId};

pub use self::hop::{HopEntry, HopIndex};

/// The most hops that a table can hold: one less than there are indices, so that one can mean "none".
pub const MAX_HOPS: usize = 65_535;

/// What the kernel mirror knows, in any order; compiled by [`RouteTable::new`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteInput {
    /// Unicast routes over the TAPs.
    pub routes: Vec<RouteEntry>,
    /// Addresses of the TAPs: packets to them are the host's. Also the anycast ones that the kernel has joined there.
    pub local: Vec<IpAddr>,
    /// Subnet broadcast addresses. IPv6 has none.
    pub broadcast: Vec<Ipv4Addr>,
    /// Neighbours with a valid link-layer address.
    pub neighbours: Vec<Neighbour>,
    /// By port index: what to send from and how much at once. Ports not there (yet) cannot be routed to.
    pub interfaces: Vec<Interface>,
}

/// One route of the kernel's main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// The destination network.
    pub destination: IpAddr,
    /// Length of its prefix, 0-32 or 0-128.
    pub prefix_len: u8,
    /// The kernel's priority; the lowest wins among equal prefixes.
    pub metric: u32,
    /// One for a plain route, several for a multipath one, none for `blackhole`, `unreachable`, `prohibit`.
    pub next_hops: Vec<RouteNextHop>,
}

/// One way of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteNextHop {
    /// Through this port.
    pub port: PortId,
    /// To this gateway, which may be an IPv6 one also on the way to an IPv4 destination (RFC 8950); none: the destination
    /// is on-link.
    pub gateway: Option<IpAddr>,
    /// Its share among the ways, 1-256.
    pub weight: u16,
}

/// A neighbour whose link-layer address the kernel holds valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Where it is.
    pub hop: Hop,
    /// Its link-layer address.
    pub mac: MacAddress,
}

/// A port as the routes see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Which one.
    pub port: PortId,
    /// Its own link-layer address.
    pub mac: MacAddress,
    /// Bytes of the largest IP packet that it sends.
    pub mtu: u16,
    /// An address of its own to send tunnels' packets from, where it has one.
    pub address: Option<Ipv4Addr>,
    /// The same of IPv6: not a link-local one.
    pub ipv6_address: Option<Ipv6Addr>,
}

/// The compiled routes: immutable, shared by all workers.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    /// Changes whenever [`RouteTable::resolve`] may give something else than it did, or an index that it gave may mean
    /// something else; not when only a link-layer address changed. Sessions keep indices.
    pub generation: u32,
    ipv4: Prefixes<u32>,
    ipv6: Prefixes<u128>,
    hops: Hops,
    local_ipv4: HashSet<Ipv4Addr>,
    local_ipv6: HashSet<Ipv6Addr>,
    /// A bit for each local address, by its last six bits: most others are told from them by this alone.
    local_ends: u64,
    broadcast: HashSet<Ipv4Addr>,
    interfaces: [Option<Interface>; MAX_PORTS],
}

/// Where packets to a destination go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// To this hop, which may be waiting for its link-layer address still (see [`HopEntry::resolved`]).
    Hop(HopIndex),
    /// To this hop, whose link-layer address is not known and which has no index yet.
    Unresolved(Hop),
    /// Nowhere.
    NoRoute,
}

/// The bit of an address in [`RouteTable::local_ends`].
#[inline]
fn end_of(address: IpAddr) -> u64 {
    let last = match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    1 << (last % 64)
}

impl RouteTable {
    /// Compiles `input`. Hops keep the indices that they have in `previous`; no previous table is the same as an
    /// empty one.
    pub fn new(input: &RouteInput, previous: Option<&RouteTable>) -> Self {
        let mut interfaces = [None; MAX_PORTS];
        for interface in &input.interfaces {
            if let Some(slot) = interfaces.get_mut(interface.port.index()) {
                *slot = Some(*interface);
            }
        }
        let interface = |port: PortId| interfaces.get(port.index()).and_then(Option::as_ref);
        let usable = |port| interface(port).is_some();
        let (ipv4, ipv6) = (Prefixes::new(&input.routes, usable), Prefixes::new(&input.routes, usable));
        let wanted = wanted(&ipv4, &ipv6, &input.neighbours);
        let on_link = |hop: Hop| {
            let ways = match hop.address {
                IpAddr::V4(address) => ipv4.ways(address.to_bits()),
                IpAddr::V6(address) => ipv6.ways(address.to_bits()),
            };
            ways.iter().any(|way| way.port == hop.port && way.gateway.is_none())
        };

        let empty = RouteTable::default();
        let previous = previous.unwrap_or(&empty);
        let hops = Hops::new(&previous.hops, &wanted, on_link, |hop| interface(hop.port));
        let same = ipv4.same_as(&previous.ipv4) && ipv6.same_as(&previous.ipv6) && hops.same_indices(&previous.hops);
        let mut table = Self {
            generation: previous.generation.wrapping_add(u32::from(!same)),
            ipv4,
            ipv6,
            hops,
            local_ipv4: HashSet::new(),
            local_ipv6: HashSet::new(),
            local_ends: input.local.iter().fold(0, |ends, &address| ends | end_of(address)),
            broadcast: input.broadcast.iter().copied().collect(),
            interfaces,
        };
        for &address in &input.local {
            match address {
                IpAddr::V4(address) => _ = table.local_ipv4.insert(address),
                IpAddr::V6(address) => _ = table.local_ipv6.insert(address),
            }
        }
        table
    }

    /// The next hop towards `destination`. `flow_hash` chooses among the ways of a multipath route by its high bits:
    /// give every packet of a flow the same, well mixed one. For an address whose family the caller's types know, the
    /// other family costs nothing.
    #[inline]
    pub fn resolve(&self, destination: impl Into<IpAddr>, flow_hash: u32) -> Resolution {
        match destination.into() {
            IpAddr::V4(address) => self.resolve_ipv4(address, flow_hash),
            IpAddr::V6(address) => self.resolve_ipv6(address, flow_hash),
        }
    }

    fn resolve_ipv4(&self, destination: Ipv4Addr, flow_hash: u32) -> Resolution {
        self.hop_of(self.ipv4.ways(destination.to_bits()), destination.into(), Family::Ipv4, flow_hash)
    }

    fn resolve_ipv6(&self, destination: Ipv6Addr, flow_hash: u32) -> Resolution {
        self.hop_of(self.ipv6.ways(destination.to_bits()), destination.into(), Family::Ipv6, flow_hash)
    }

    fn hop_of(&self, ways: &[Way], destination: IpAddr, family: Family, flow_hash: u32) -> Resolution {
        let Some(way) = lpm::choose(ways, flow_hash) else { return Resolution::NoRoute };
        let hop = Hop { port: way.port, address: way.gateway.unwrap_or(destination) };
        self.hops.index(hop, family).map_or(Resolution::Unresolved(hop), Resolution::Hop)
    }

    /// The index of a hop, if it has an entry. The entry's EtherType is that of the hop's own family, or, if no packets of
    /// that family go there, of the other.
    #[inline]
    pub fn hop_index(&self, hop: Hop) -> Option<HopIndex> {
        let own = self.hops.index(hop, Family::of(hop.address));
        // A neighbour has an entry for its own family; an unresolved gateway of IPv4 routes has none for IPv6.
        own.or_else(|| self.hops.index(hop, Family::Ipv4))
    }

    /// What `index` means; none: nothing any more, resolve again.
    #[inline]
    pub fn hop(&self, index: HopIndex) -> Option<&HopEntry> {
        self.hops.get(index)
    }

    /// Every hop that has an index, resolved or not.
    pub fn hops(&self) -> impl Iterator<Item = &HopEntry> {
        self.hops.iter()
    }

    /// Hops that should have an index and have none because all [`MAX_HOPS`] are taken. Packets to them are
    /// [`Resolution::Unresolved`] for ever: more than 0 deserves a warning.
    pub fn hops_left_out(&self) -> usize {
        self.hops.left_out()
    }

    /// Whether `address` is one of the host's own. No multicast address is: who listens to it is the kernel's to know.
    #[inline]
    pub fn is_local(&self, address: impl Into<IpAddr>) -> bool {
        match address.into() {
            IpAddr::V4(address) => self.local_ipv4.contains(&address),
            IpAddr::V6(address) => self.local_ipv6.contains(&address),
        }
    }

    /// Whether packets to `address` are for the host that the gateway runs on: one of its own, or loopback.
    pub fn is_host(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.is_local(address)
    }

    /// The same as [`Self::is_local`], in less time where it is hardly ever true.
    #[inline]
    pub fn is_local_source(&self, address: IpAddr) -> bool {
        self.local_ends & end_of(address) != 0 && self.is_local(address)
    }

    /// Whether `address` is the broadcast address of a subnet of the host's.
    #[inline]
    pub fn is_broadcast(&self, address: Ipv4Addr) -> bool {
        self.broadcast.contains(&address)
    }

    /// The port as routes see it; none: not there yet.
    #[inline]
    pub fn interface(&self, port: PortId) -> Option<&Interface> {
        self.interfaces.get(port.index())?.as_ref()
    }
}

/// What the hops must have entries for: every gateway for the packets of its routes, every neighbour for those of its
/// own family.
fn wanted(ipv4: &Prefixes<u32>, ipv6: &Prefixes<u128>, neighbours: &[Neighbour]) -> Wanted {
    let of = |family| move |(port, address)| ((Hop { port, address }, family), None);
    let mut wanted: Wanted = ipv4.gateways().map(of(Family::Ipv4)).collect();
    wanted.extend(ipv6.gateways().map(of(Family::Ipv6)));
    for neighbour in neighbours {
        wanted.insert((neighbour.hop, Family::of(neighbour.hop.address)), Some(neighbour.mac));
        if neighbour.hop.address.is_ipv6()
            && let Some(mac) = wanted.get_mut(&(neighbour.hop, Family::Ipv4))
        {
            *mac = Some(neighbour.mac);
        }
    }
    wanted
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
