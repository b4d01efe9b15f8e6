//! Longest-prefix match: destination -> the ways of its route. Knows nothing of neighbours.
//!
//! One hash map for each prefix length that occurs, tried from the longest: at most 33 look-ups for IPv4 and 129 for
//! IPv6, in practice three or four (some thirty with a full routing table of IPv6), and none of the memory of a 24-bit
//! table. A route is looked up when a session is set up or its next hop may have changed, not for each packet. Each family
//! has an instance of its own, so that neither asks which one it is. Invariant: `levels` falls strictly in prefix length,
//! and every index in a level is one of `routes`.

use std::fmt::Debug;
use std::hash::Hash;
use std::net::IpAddr;
use std::ops::BitAnd;

use hashbrown::HashMap;

use super::{RouteEntry, RouteNextHop};
use crate::port::PortId;

/// The bits of an address: a `u32` or a `u128`.
pub(super) trait Bits: Copy + Ord + Hash + Debug + Default + BitAnd<Output = Self> {
    /// Bits of an address of this family.
    const WIDTH: u8;

    /// The netmask of a prefix length of at most [`Bits::WIDTH`].
    fn mask(prefix_len: u8) -> Self;

    /// The bits of an address of this family; none for one of the other.
    fn of(address: IpAddr) -> Option<Self>;
}

impl Bits for u32 {
    const WIDTH: u8 = 32;

    fn mask(prefix_len: u8) -> Self {
        Self::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0)
    }

    fn of(address: IpAddr) -> Option<Self> {
        if let IpAddr::V4(address) = address { Some(address.to_bits()) } else { None }
    }
}

impl Bits for u128 {
    const WIDTH: u8 = 128;

    fn mask(prefix_len: u8) -> Self {
        Self::MAX.checked_shl(128 - u32::from(prefix_len)).unwrap_or(0)
    }

    fn of(address: IpAddr) -> Option<Self> {
        if let IpAddr::V6(address) = address { Some(address.to_bits()) } else { None }
    }
}

/// All routes of a family, ready to look up.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefixes<B> {
    levels: Vec<Level<B>>,
    routes: Vec<Route<B>>,
    ways: Vec<Way>,
}

/// The routes of one prefix length: network -> index into `Prefixes::routes`.
#[derive(Clone, Debug)]
struct Level<B> {
    mask: B,
    networks: HashMap<B, u32>,
}

/// The best route of one prefix; its ways are `ways[first..first + count]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route<B> {
    network: B,
    prefix_len: u8,
    first: u32,
    count: u32,
}

/// One way of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Through this port.
    pub port: PortId,
    /// To this gateway, which may be of the other family (RFC 8950); none: on-link.
    pub gateway: Option<IpAddr>,
    /// Weights of the route's ways up to and with this one.
    weight_so_far: u32,
}

impl<B: Bits> Prefixes<B> {
    /// Compiles those of `routes` that are of this family; of equal prefixes the lowest metric wins, of equal metrics the
    /// first. Ways through ports that `usable` refuses are left out, and with its last way the route; a route that had
    /// none to begin with (`blackhole`) stays and hides the shorter prefixes.
    pub fn new(routes: &[RouteEntry], usable: impl Fn(PortId) -> bool) -> Self {
        let mut sorted: Vec<(B, &RouteEntry)> = routes
            .iter()
            .filter(|route| route.prefix_len <= B::WIDTH)
            .filter(|route| route.next_hops.is_empty() || route.next_hops.iter().any(|hop| usable(hop.port)))
            .filter_map(|route| Some((B::of(route.destination)? & B::mask(route.prefix_len), route)))
            .collect();
        // Stable, so that the first of equal metrics stays first.
        sorted.sort_by_key(|&(network, route)| (std::cmp::Reverse(route.prefix_len), network, route.metric));
        sorted.dedup_by_key(|&mut (network, route)| (route.prefix_len, network));
        let mut prefixes = Self::default();
        for (network, route) in sorted {
            prefixes.push(network, route.prefix_len, route.next_hops.iter().filter(|hop| usable(hop.port)));
        }
        prefixes
    }

    /// The ways to the address of these bits; none: no route or one that leads nowhere.
    pub fn ways(&self, destination: B) -> &[Way] {
        self.levels
            .iter()
            .find_map(|level| level.networks.get(&(destination & level.mask)))
            .and_then(|&index| self.routes.get(index as usize))
            .map_or(&[], |route| self.ways_of(route))
    }

    /// Every gateway of every route.
    pub fn gateways(&self) -> impl Iterator<Item = (PortId, IpAddr)> {
        self.ways.iter().filter_map(|way| way.gateway.map(|gateway| (way.port, gateway)))
    }

    /// Whether both lead every packet the same way.
    pub fn same_as(&self, other: &Self) -> bool {
        self.routes == other.routes && self.ways == other.ways
    }

    fn ways_of(&self, route: &Route<B>) -> &[Way] {
        let first = route.first as usize;
        self.ways.get(first..first + route.count as usize).unwrap_or(&[])
    }

    /// Adds a route. They must come by falling prefix length.
    fn push<'a>(&mut self, network: B, prefix_len: u8, next_hops: impl Iterator<Item = &'a RouteNextHop>) {
        let mask = B::mask(prefix_len);
        let first = self.ways.len();
        let mut weight_so_far = 0;
        for hop in next_hops {
            weight_so_far += u32::from(hop.weight.max(1));
            self.ways.push(Way { port: hop.port, gateway: hop.gateway, weight_so_far });
        }
        let index = index(self.routes.len());
        let count = self::index(self.ways.len() - first);
        self.routes.push(Route { network, prefix_len, first: self::index(first), count });
        match self.levels.last_mut().filter(|level| level.mask == mask) {
            Some(level) => _ = level.networks.insert(network, index),
            None => self.levels.push(Level { mask, networks: HashMap::from_iter([(network, index)]) }),
        }
    }
}

/// The way among `ways` that a flow takes: its hash, spread over the sum of the weights. Equal hashes take equal ways
/// as long as the ways are the same (RFC 2992's hash-threshold, as the kernel does).
pub(super) fn choose(ways: &[Way], flow_hash: u32) -> Option<&Way> {
    let total = ways.last()?.weight_so_far;
    let point = (u64::from(flow_hash) * u64::from(total)) >> 32;
    ways.iter().find(|way| u64::from(way.weight_so_far) > point)
}

/// An index as it is stored: there are not 2^32 routes in any memory that the mirror could fill.
fn index(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
