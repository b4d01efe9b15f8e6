//! What the kernel says over netlink, and what of it the data path needs.
//!
//! Decoding is pure and tested on messages made by hand. Invariant: the same state of the kernel gives the same
//! [`RouteInput`], in the same order, so that equal means unchanged.

mod addresses;
pub(super) mod routes;

use std::net::IpAddr;

use futures_util::stream::{StreamExt, TryStreamExt};
use rtnetlink::Handle;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

pub use self::addresses::{AddressState, PortAddress};

use super::{MirrorError, MirroredPort};
use crate::control::twin::io_error;
use crate::forward::Hop;
use crate::port::{MacAddress, PortId};
use crate::route::{Neighbour, RouteInput};

/// What is read. A kernel without IPv6 answers for other families instead, so every message is asked for its own.
const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// All that was read.
pub(super) struct Reading {
    /// For the data path.
    pub input: RouteInput,
    /// For people.
    pub addresses: Vec<PortAddress>,
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
    let mut input = RouteInput::default();
    let (mut addresses, mut neighbours) = (Vec::new(), Vec::new());
    for family in FAMILIES {
        addresses.extend(read_addresses(handle, family).await?);
        read_routes(handle, family, ports, &mut input).await?;
        neighbours.extend(read_neighbours(handle, family, ports).await?);
    }
    // Stable: of equal ones the kernel uses, and says, the first.
    input.routes.sort_by_key(|route| (route.destination, route.prefix_len, route.metric));
    neighbours.sort_by_key(|seen: &SeenNeighbour| (seen.hop.port, seen.hop.address));
    input.neighbours = neighbours.iter().filter_map(|seen| Some(Neighbour { hop: seen.hop, mac: seen.mac? })).collect();
    for port in ports {
        let link = link(handle, port).await?;
        input.interfaces.extend(link.and_then(|link| addresses::interface(port, &link, &addresses)));
    }
    let of_ports = addresses::add_addresses(&mut input, ports, &addresses);
    let stale = neighbours.iter().filter(|seen| seen.stale).map(|seen| seen.hop).collect();
    Ok(Reading { input, addresses: of_ports, stale })
}

fn failed(what: &'static str) -> impl Fn(rtnetlink::Error) -> MirrorError {
    move |error| MirrorError::Read { what, source: io_error(error) }
}

async fn read_addresses(handle: &Handle, family: AddressFamily) -> Result<Vec<AddressMessage>, MirrorError> {
    let mut request = handle.address().get();
    request.message_mut().header.family = family;
    let messages = request.execute().try_filter(|message| std::future::ready(message.header.family == family));
    messages.try_collect().await.map_err(failed("addresses"))
}

/// Adds the routes of a family and the anycast addresses that are told among them.
async fn read_routes(
    handle: &Handle,
    family: AddressFamily,
    ports: &[MirroredPort],
    input: &mut RouteInput,
) -> Result<(), MirrorError> {
    let mut filter = RouteMessage::default();
    filter.header.address_family = family;
    let mut messages = handle.route().get(filter).execute();
    while let Some(message) = messages.try_next().await.map_err(failed("routes"))? {
        if message.header.address_family == family {
            input.routes.extend(routes::route(ports, &message));
            input.local.extend(routes::anycast(ports, &message));
        }
    }
    Ok(())
}

async fn read_neighbours(
    handle: &Handle,
    family: AddressFamily,
    ports: &[MirroredPort],
) -> Result<Vec<SeenNeighbour>, MirrorError> {
    let messages = handle.neighbours().get().set_address_family(family).execute();
    messages
        .try_filter_map(async |message| {
            Ok((message.header.family == family).then(|| neighbour(ports, &message)).flatten())
        })
        .try_collect()
        .await
        .map_err(failed("neighbours"))
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
pub(super) async fn use_neighbour(handle: &Handle, ifindex: u32, address: IpAddr) -> Result<(), std::io::Error> {
    let request = handle.neighbours().add(ifindex, address).state(NeighbourState::None).flags(NeighbourFlags::Use);
    match state(handle, ifindex, address).await? {
        None | Some(NeighbourState::None | NeighbourState::Stale | NeighbourState::Failed) => {
            request.replace().execute().await.map_err(io_error)
        }
        // Being asked for, or valid. NTF_USE would turn a permanent entry into an ordinary one.
        Some(_) => Ok(()),
    }
}

/// The state of one neighbour, as the kernel has it now; none: no entry.
async fn state(handle: &Handle, ifindex: u32, address: IpAddr) -> Result<Option<NeighbourState>, std::io::Error> {
    let (family, address) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = ifindex;
    message.attributes.push(NeighbourAttribute::Destination(address));
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
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
