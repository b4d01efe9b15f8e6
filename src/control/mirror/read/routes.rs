//! Routes as the kernel tells them, and what of them the data path can follow.
//!
//! Not followed, and left out without a word: routes for some packets only (other tables than main, a TOS, a source
//! prefix), over other devices than the TAPs, or with an encapsulation; cached exceptions; and IPv6 link-local networks,
//! which each port has one of: an address there leads nowhere without its port, and a gateway that has one brings it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHopFlags, RouteType, RouteVia,
};

use super::{MirroredPort, port_of};
use crate::route::{RouteEntry, RouteNextHop};

/// Whether the data path may have to know of a change of this route.
pub(in super::super) fn matters(message: &RouteMessage) -> bool {
    table(message) == u32::from(RouteHeader::RT_TABLE_MAIN) || is_anycast(message)
}

fn table(message: &RouteMessage) -> u32 {
    let extended = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    extended.unwrap_or_else(|| u32::from(message.header.table))
}

fn is_anycast(message: &RouteMessage) -> bool {
    message.header.kind == RouteType::Anycast && message.header.address_family == AddressFamily::Inet6
}

/// The anycast address that a route of the local table stands for, if the kernel has joined it on one of our TAPs: the
/// subnet-router address (RFC 4291, 2.6.1) of each network of a host that forwards.
pub(super) fn anycast(ports: &[MirroredPort], message: &RouteMessage) -> Option<IpAddr> {
    let on_port = output(message).is_some_and(|ifindex| port_of(ports, ifindex).is_some());
    if is_anycast(message) && on_port { destination(message) } else { None }
}

/// The route in a message, if the data path can use it: of the main table, for all packets, over our TAPs or nowhere.
pub(super) fn route(ports: &[MirroredPort], message: &RouteMessage) -> Option<RouteEntry> {
    if table(message) != u32::from(RouteHeader::RT_TABLE_MAIN)
        || message.header.tos != 0
        || message.header.source_prefix_length != 0
        || message.header.flags.contains(RouteFlags::Cloned)
    {
        return None;
    }
    let next_hops = match message.header.kind {
        RouteType::Unicast => {
            let ways = ways(ports, message);
            if ways.is_empty() {
                return None;
            }
            ways
        }
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw => Vec::new(),
        _ => return None,
    };
    let metric = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    let destination = destination(message)?;
    let prefix_len = message.header.destination_prefix_length;
    let link_local = matches!(destination, IpAddr::V6(address) if address.is_unicast_link_local() && prefix_len >= 10);
    (!link_local).then_some(RouteEntry { destination, prefix_len, metric: metric.unwrap_or(0), next_hops })
}

/// The network that a route leads to; none for families other than IPv4 and IPv6.
fn destination(message: &RouteMessage) -> Option<IpAddr> {
    let unspecified = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let given = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip_address(address),
        _ => None,
    });
    Some(given.unwrap_or(unspecified))
}

fn ip_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn output(message: &RouteMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(ifindex) => Some(*ifindex),
        _ => None,
    })
}

/// The ways of a route that lead over our TAPs, are alive, and need nothing but Ethernet.
fn ways(ports: &[MirroredPort], message: &RouteMessage) -> Vec<RouteNextHop> {
    let several = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    if let Some(hops) = several {
        let dead = RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown;
        return hops
            .iter()
            .filter(|hop| !hop.flags.intersects(dead))
            // The kernel's rtnh_hops is the weight less one.
            .filter_map(|hop| way(ports, hop.interface_index, &hop.attributes, u16::from(hop.hops) + 1))
            .collect();
    }
    if message.header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown) {
        return Vec::new();
    }
    output(message).and_then(|ifindex| way(ports, ifindex, &message.attributes, 1)).into_iter().collect()
}

/// One way; none over other devices or through tunnels. RTA_VIA is a gateway of the other family (RFC 8950).
fn way(ports: &[MirroredPort], ifindex: u32, attributes: &[RouteAttribute], weight: u16) -> Option<RouteNextHop> {
    let mut way = RouteNextHop { port: port_of(ports, ifindex)?, gateway: None, weight };
    for attribute in attributes {
        match attribute {
            RouteAttribute::Gateway(gateway) => way.gateway = Some(ip_address(gateway)?),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => way.gateway = Some(IpAddr::V6(*gateway)),
            RouteAttribute::Via(_) | RouteAttribute::Encap(_) => return None,
            _ => {}
        }
    }
    Some(way)
}
