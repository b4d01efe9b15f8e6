//! What the kernel says over netlink, and what of it the data path needs.
//!
//! Decoding is pure and tested on messages made by hand. Invariant: the same state of the kernel gives the same
//! [`RouteInput`], in the same order, so that equal means unchanged.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::stream::{StreamExt, TryStreamExt};
use rtnetlink::Handle;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHopFlags, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{MirrorError, MirroredPort};
use crate::control::twin::{io_error, own_address};
use crate::forward::Hop;
use crate::port::{MacAddress, PortId};
use crate::route::{Interface, Neighbour, RouteEntry, RouteInput, RouteNextHop};

/// All that was read.
pub(super) struct Reading {
    /// For the data path.
    pub input: RouteInput,
    /// Neighbours that the kernel would not ask for of itself.
    pub stale: Vec<Hop>,
}

/// A neighbour on one of our TAPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeenNeighbour {
    /// Where it is.
    pub hop: Hop,
    /// Its address, if it is valid.
    pub mac: Option<MacAddress>,
    /// Whether it was valid long ago.
    pub stale: bool,
}

/// Reads addresses, routes, neighbours and links of `ports`.
pub(super) async fn read(handle: &Handle, ports: &[MirroredPort]) -> Result<Reading, MirrorError> {
    let failed = |what| move |error| MirrorError::Read { what, source: io_error(error) };
    let mut addresses = handle.address().get();
    addresses.message_mut().header.family = AddressFamily::Inet;
    let addresses: Vec<AddressMessage> = addresses.execute().try_collect().await.map_err(failed("addresses"))?;
    let mut filter = RouteMessage::default();
    filter.header.address_family = AddressFamily::Inet;
    let routes = handle.route().get(filter).execute();
    let mut routes: Vec<RouteEntry> = routes
        .try_filter_map(async |message| Ok(route(ports, &message)))
        .try_collect()
        .await
        .map_err(failed("routes"))?;
    // Stable: of equal ones the kernel uses, and says, the first.
    routes.sort_by_key(|route| (route.destination, route.prefix_len, route.metric));
    let neighbours = handle.neighbours().get().set_address_family(AddressFamily::Inet).execute();
    let mut neighbours: Vec<SeenNeighbour> = neighbours
        .try_filter_map(async |message| Ok(neighbour(ports, &message)))
        .try_collect()
        .await
        .map_err(failed("neighbours"))?;
    neighbours.sort_by_key(|seen| (seen.hop.port, seen.hop.address));
    let mut interfaces = Vec::new();
    for port in ports {
        interfaces.extend(link(handle, port).await?.and_then(|link| interface(port, &link, &addresses)));
    }
    let mut input = RouteInput { routes, interfaces, ..RouteInput::default() };
    input.neighbours = neighbours.iter().filter_map(|seen| Some(Neighbour { hop: seen.hop, mac: seen.mac? })).collect();
    add_addresses(&mut input, ports, &addresses);
    Ok(Reading { input, stale: neighbours.iter().filter(|seen| seen.stale).map(|seen| seen.hop).collect() })
}

/// The link of a port; none when it was deleted.
async fn link(handle: &Handle, port: &MirroredPort) -> Result<Option<LinkMessage>, MirrorError> {
    match handle.link().get().match_index(port.ifindex).execute().try_next().await.map_err(io_error) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(None),
        result => result.map_err(|source| MirrorError::Read { what: "links", source }),
    }
}

/// Has the kernel find out whether a neighbour is (still) there, as if it had a packet for it: NTF_USE
/// (linux/neighbour.h).
pub(super) async fn use_neighbour(handle: &Handle, ifindex: u32, address: Ipv4Addr) -> Result<(), std::io::Error> {
    let request =
        handle.neighbours().add(ifindex, IpAddr::V4(address)).state(NeighbourState::None).flags(NeighbourFlags::Use);
    match state(handle, ifindex, address).await? {
        None | Some(NeighbourState::None | NeighbourState::Stale | NeighbourState::Failed) => {
            request.replace().execute().await.map_err(io_error)
        }
        // Being asked for, or valid. NTF_USE would turn a permanent entry into an ordinary one.
        Some(_) => Ok(()),
    }
}

/// The state of one neighbour, as the kernel has it now; none: no entry.
async fn state(handle: &Handle, ifindex: u32, address: Ipv4Addr) -> Result<Option<NeighbourState>, std::io::Error> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = ifindex;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(message));
    request.header.flags = NLM_F_REQUEST;
    let mut answers = handle.clone().request(request).map_err(io_error)?;
    while let Some(answer) = answers.next().await {
        match answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(found)) => {
                return Ok(Some(found.header.state));
            }
            NetlinkPayload::Error(error) => {
                let error = error.to_io();
                return if error.kind() == std::io::ErrorKind::NotFound { Ok(None) } else { Err(error) };
            }
            _ => {}
        }
    }
    Ok(None)
}

fn port_of(ports: &[MirroredPort], ifindex: u32) -> Option<PortId> {
    ports.iter().find(|port| port.ifindex == ifindex).map(|port| port.port)
}

/// The neighbour in a message, if it is one behind our ports: not multicast or broadcast, which the kernel lists too.
pub(super) fn neighbour(ports: &[MirroredPort], message: &NeighbourMessage) -> Option<SeenNeighbour> {
    let port = port_of(ports, message.header.ifindex)?;
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
        _ => None,
    })?;
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(MacAddress),
        _ => None,
    });
    let state = message.header.state;
    let valid = matches!(
        state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    );
    if address.is_multicast() || mac.is_some_and(MacAddress::is_group) {
        return None;
    }
    let mac = mac.filter(|_| valid);
    Some(SeenNeighbour { hop: Hop { port, address }, mac, stale: state == NeighbourState::Stale && mac.is_some() })
}

/// Whether a route is in the main table.
pub(super) fn is_main_table(message: &RouteMessage) -> bool {
    let extended = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    extended.unwrap_or_else(|| u32::from(message.header.table)) == u32::from(RouteHeader::RT_TABLE_MAIN)
}

/// The route in a message, if the data path can use it: of the main table, for any TOS, over our TAPs or nowhere.
fn route(ports: &[MirroredPort], message: &RouteMessage) -> Option<RouteEntry> {
    if message.header.address_family != AddressFamily::Inet
        || !is_main_table(message)
        || message.header.tos != 0
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
    let mut entry = RouteEntry {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix_len: message.header.destination_prefix_length,
        metric: 0,
        next_hops,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => entry.destination = *address,
            RouteAttribute::Priority(priority) => entry.metric = *priority,
            _ => {}
        }
    }
    Some(entry)
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
    let output = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(ifindex) => Some(*ifindex),
        _ => None,
    });
    output.and_then(|ifindex| way(ports, ifindex, &message.attributes, 1)).into_iter().collect()
}

/// One way; none over other devices, through tunnels, or to a gateway with an IPv6 address.
fn way(ports: &[MirroredPort], ifindex: u32, attributes: &[RouteAttribute], weight: u16) -> Option<RouteNextHop> {
    let mut way = RouteNextHop { port: port_of(ports, ifindex)?, gateway: None, weight };
    for attribute in attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => way.gateway = Some(*gateway),
            RouteAttribute::Via(_) | RouteAttribute::Encap(_) => return None,
            _ => {}
        }
    }
    Some(way)
}

/// The TAP of a port, if it is up.
fn interface(port: &MirroredPort, link: &LinkMessage, addresses: &[AddressMessage]) -> Option<Interface> {
    if !link.header.flags.contains(LinkFlags::Up) {
        return None;
    }
    let mut interface = Interface { port: port.port, mac: MacAddress::default(), mtu: port.mtu, address: None };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => interface.mac = MacAddress(bytes.as_slice().try_into().ok()?),
            LinkAttribute::Mtu(mtu) => interface.mtu = u16::try_from(*mtu).unwrap_or(u16::MAX).min(port.mtu),
            _ => {}
        }
    }
    // As the kernel chooses for its own ICMP errors: the first primary address; one of a subnet before a /32, which
    // may be a virtual or local address.
    let primary = |message: &&AddressMessage| {
        message.header.index == port.ifindex && !message.header.flags.contains(AddressHeaderFlags::Secondary)
    };
    let first =
        |of_subnet: bool| addresses.iter().filter(primary).find(|message| !of_subnet || message.header.prefix_len < 32);
    interface.address = first(true).or_else(|| first(false)).and_then(own_address);
    Some(interface)
}

/// Adds the TAPs' addresses and the broadcast addresses of their subnets.
fn add_addresses(input: &mut RouteInput, ports: &[MirroredPort], addresses: &[AddressMessage]) {
    for message in addresses.iter().filter(|message| port_of(ports, message.header.index).is_some()) {
        let Some(address) = own_address(message) else { continue };
        input.local.push(address);
        // As the kernel does (fib_add_ifaddr): the address that was given, and the last of a subnet that has one.
        input.broadcast.extend(message.attributes.iter().filter_map(|attribute| match attribute {
            AddressAttribute::Broadcast(broadcast) if *broadcast != Ipv4Addr::BROADCAST => Some(*broadcast),
            _ => None,
        }));
        if message.header.prefix_len < 31 {
            let host_bits = u32::MAX >> message.header.prefix_len;
            input.broadcast.push(Ipv4Addr::from(u32::from(address) | host_bits));
        }
    }
    for list in [&mut input.local, &mut input.broadcast] {
        list.sort_unstable();
        list.dedup();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
