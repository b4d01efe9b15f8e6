//! Where packets go: longest-prefix routes and neighbours, as the kernel mirror last saw them.

use std::net::Ipv4Addr;

use hashbrown::HashMap;

use crate::forward::Hop;
use crate::port::{MAX_PORTS, MacAddress, PortId};

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
    /// Changes whenever an index that [`RouteTable::resolve`] gave may mean something else. Sessions keep indices.
    pub generation: u32,
}
