//! Where packets go: longest-prefix routes and neighbours, as the kernel mirror last saw them.
//!
//! [`RouteInput`] is what the mirror read, [`RouteTable`] what the data path asks. Nothing here asks the kernel or
//! knows time. Invariant: a table never changes; what was true of an index stays true until `generation` differs.

mod hop;
mod lpm;

use std::net::Ipv4Addr;

use hashbrown::{HashMap, HashSet};

use self::hop::Hops;
use self::lpm::Prefixes;

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
    /// Addresses of the TAPs: packets to them are the host's.
    pub local: Vec<Ipv4Addr>,
    /// Subnet broadcast addresses.
    pub broadcast: Vec<Ipv4Addr>,
    /// Neighbours with a valid link-layer address.
    pub neighbours: Vec<Neighbour>,
    /// By port index: what to send from and how much at once. Ports not there (yet) cannot be routed to.
    pub interfaces: Vec<Interface>,
}

/// One IPv4 route of the kernel's main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// The destination network.
    pub destination: Ipv4Addr,
    /// Length of its prefix, 0-32.
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
    /// To this gateway; none: the destination is on-link.
    pub gateway: Option<Ipv4Addr>,
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
    /// An address of its own to send ICMP errors from, where it has one.
    pub address: Option<Ipv4Addr>,
}

/// The compiled routes: immutable, shared by all workers.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    /// Changes whenever [`RouteTable::resolve`] may give something else than it did, or an index that it gave may mean
    /// something else; not when only a link-layer address changed. Sessions keep indices.
    pub generation: u32,
    prefixes: Prefixes,
    hops: Hops,
    local: HashSet<Ipv4Addr>,
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
        let prefixes = Prefixes::new(&input.routes, |port| interface(port).is_some());

        let mut wanted: HashMap<Hop, Option<MacAddress>> =
            prefixes.gateways().map(|(port, address)| (Hop { port, address }, None)).collect();
        wanted.extend(input.neighbours.iter().map(|neighbour| (neighbour.hop, Some(neighbour.mac))));
        let on_link =
            |hop: Hop| prefixes.ways(hop.address).iter().any(|way| way.port == hop.port && way.gateway.is_none());

        let empty = RouteTable::default();
        let previous = previous.unwrap_or(&empty);
        let hops = Hops::new(&previous.hops, &wanted, on_link, |hop| interface(hop.port));
        let same = prefixes.same_as(&previous.prefixes) && hops.same_indices(&previous.hops);
        Self {
            generation: previous.generation.wrapping_add(u32::from(!same)),
            prefixes,
            hops,
            local: input.local.iter().copied().collect(),
            broadcast: input.broadcast.iter().copied().collect(),
            interfaces,
        }
    }

    /// The next hop towards `destination`. `flow_hash` chooses among the ways of a multipath route by its high bits:
    /// give every packet of a flow the same, well mixed one.
    pub fn resolve(&self, destination: Ipv4Addr, flow_hash: u32) -> Resolution {
        let Some(way) = lpm::choose(self.prefixes.ways(destination), flow_hash) else { return Resolution::NoRoute };
        let hop = Hop { port: way.port, address: way.gateway.unwrap_or(destination) };
        self.hops.index(hop).map_or(Resolution::Unresolved(hop), Resolution::Hop)
    }

    /// The index of a hop, if it has an entry.
    #[inline]
    pub fn hop_index(&self, hop: Hop) -> Option<HopIndex> {
        self.hops.index(hop)
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

    /// Whether `address` is one of the host's own.
    #[inline]
    pub fn is_local(&self, address: Ipv4Addr) -> bool {
        self.local.contains(&address)
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
