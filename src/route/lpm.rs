//! Longest-prefix match: destination -> the ways of its route. Knows nothing of neighbours.
//!
//! One hash map for each prefix length that occurs, tried from the longest: at most 33 look-ups, in practice three or
//! four, and none of the memory of a 24-bit table. A route is looked up when a session is set up or its next hop may
//! have changed, not for each packet. Invariant: `levels` falls strictly in prefix length, and every index in a level
//! is one of `routes`.

use std::net::Ipv4Addr;

use hashbrown::HashMap;

use super::RouteEntry;
use crate::port::PortId;

/// All routes, ready to look up.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefixes {
    levels: Vec<Level>,
    routes: Vec<Route>,
    ways: Vec<Way>,
}

/// The routes of one prefix length: network -> index into `Prefixes::routes`.
#[derive(Clone, Debug)]
struct Level {
    mask: u32,
    networks: HashMap<u32, u32>,
}

/// The best route of one prefix; its ways are `ways[first..first + count]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    network: u32,
    prefix_len: u8,
    first: u32,
    count: u32,
}

/// One way of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Through this port.
    pub port: PortId,
    /// To this gateway; none: on-link.
    pub gateway: Option<Ipv4Addr>,
    /// Weights of the route's ways up to and with this one.
    weight_so_far: u32,
}

impl Prefixes {
    /// Compiles `routes`; of equal prefixes the lowest metric wins, of equal metrics the first. Ways through ports
    /// that `usable` refuses are left out, and with its last way the route; a route that had none to begin with
    /// (`blackhole`) stays and hides the shorter prefixes.
    pub fn new(routes: &[RouteEntry], usable: impl Fn(PortId) -> bool) -> Self {
        let mut sorted: Vec<&RouteEntry> = routes
            .iter()
            .filter(|route| route.prefix_len <= 32)
            .filter(|route| route.next_hops.is_empty() || route.next_hops.iter().any(|hop| usable(hop.port)))
            .collect();
        // Stable, so that the first of equal metrics stays first.
        sorted.sort_by_key(|route| (std::cmp::Reverse(route.prefix_len), network(route), route.metric));
        sorted.dedup_by_key(|route| (route.prefix_len, network(route)));
        let mut prefixes = Self::default();
        for route in sorted {
            prefixes.push(route, &usable);
        }
        prefixes
    }

    /// The ways to `destination`; none: no route or one that leads nowhere.
    pub fn ways(&self, destination: Ipv4Addr) -> &[Way] {
        let destination = u32::from(destination);
        self.levels
            .iter()
            .find_map(|level| level.networks.get(&(destination & level.mask)))
            .and_then(|&index| self.routes.get(index as usize))
            .map_or(&[], |route| self.ways_of(route))
    }

    /// Every gateway of every route.
    pub fn gateways(&self) -> impl Iterator<Item = (PortId, Ipv4Addr)> {
        self.ways.iter().filter_map(|way| way.gateway.map(|gateway| (way.port, gateway)))
    }

    /// Whether both lead every packet the same way.
    pub fn same_as(&self, other: &Self) -> bool {
        self.routes == other.routes && self.ways == other.ways
    }

    fn ways_of(&self, route: &Route) -> &[Way] {
        let first = route.first as usize;
        self.ways.get(first..first + route.count as usize).unwrap_or(&[])
    }

    /// Adds a route. They must come by falling prefix length.
    fn push(&mut self, route: &RouteEntry, usable: impl Fn(PortId) -> bool) {
        let mask = mask(route.prefix_len);
        let first = self.ways.len();
        let mut weight_so_far = 0;
        for hop in route.next_hops.iter().filter(|hop| usable(hop.port)) {
            weight_so_far += u32::from(hop.weight.max(1));
            self.ways.push(Way { port: hop.port, gateway: hop.gateway, weight_so_far });
        }
        let index = index(self.routes.len());
        self.routes.push(Route {
            network: network(route),
            prefix_len: route.prefix_len,
            first: self::index(first),
            count: self::index(self.ways.len() - first),
        });
        match self.levels.last_mut().filter(|level| level.mask == mask) {
            Some(level) => _ = level.networks.insert(network(route), index),
            None => self.levels.push(Level { mask, networks: HashMap::from_iter([(network(route), index)]) }),
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

/// The network part of a route's destination.
fn network(route: &RouteEntry) -> u32 {
    u32::from(route.destination) & mask(route.prefix_len)
}

/// The netmask of a prefix length of 0-32.
fn mask(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0)
}

/// An index as it is stored: there are not 2^32 routes in any memory that the mirror could fill.
fn index(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
