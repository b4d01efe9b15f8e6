//! Addresses and links of the TAPs as the kernel tells them.
//!
//! Invariant: an IPv6 address counts as the host's only when the kernel uses it: not while it is being looked for on the
//! link (tentative), and not when somebody else was found to have it (RFC 4862, 5.4).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::{MirroredPort, port_of};
use crate::control::twin::own_address;
use crate::port::{MacAddress, PortId};
use crate::route::{Interface, RouteInput};

/// An address of a TAP, as `fullgate port show` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortAddress {
    /// The port that the TAP is the twin of.
    pub port: PortId,
    /// The address.
    pub address: IpAddr,
    /// Length of its prefix in bits.
    pub prefix_len: u8,
    /// What the kernel makes of it.
    pub state: AddressState,
}

/// Whether the kernel uses an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressState {
    /// It does.
    Usable,
    /// Not yet: it asks whether anybody else has it.
    Tentative,
    /// It never will: somebody else has it.
    Duplicate,
}

impl fmt::Display for PortAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            AddressState::Usable => "",
            AddressState::Tentative => " (tentative)",
            AddressState::Duplicate => " (duplicate)",
        };
        write!(f, "{}/{}{state}", self.address, self.prefix_len)
    }
}

/// The address in a message, if it is one of our TAPs'.
pub(super) fn port_address(ports: &[MirroredPort], message: &AddressMessage) -> Option<PortAddress> {
    let flags = message.header.flags;
    let state = if flags.contains(AddressHeaderFlags::Dadfailed) {
        AddressState::Duplicate
    } else if flags.contains(AddressHeaderFlags::Tentative) && !flags.contains(AddressHeaderFlags::Optimistic) {
        AddressState::Tentative
    } else {
        AddressState::Usable
    };
    let port = port_of(ports, message.header.index)?;
    Some(PortAddress { port, address: own_address(message)?, prefix_len: message.header.prefix_len, state })
}

/// The TAP of a port, if it is up.
pub(super) fn interface(port: &MirroredPort, link: &LinkMessage, addresses: &[AddressMessage]) -> Option<Interface> {
    if !link.header.flags.contains(LinkFlags::Up) {
        return None;
    }
    let (mac, mtu) = (MacAddress::default(), port.mtu);
    let mut interface = Interface { port: port.port, mac, mtu, address: None, ipv6_address: None };
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
        let is_primary = !message.header.flags.contains(AddressHeaderFlags::Secondary);
        message.header.index == port.ifindex && is_primary
    };
    let own = |host_prefix: u8, is_usable: &dyn Fn(&AddressMessage) -> bool| {
        let mut usable = addresses.iter().filter(primary).filter(|message| is_usable(message));
        let of_subnet = usable.clone().find(|message| message.header.prefix_len < host_prefix);
        of_subnet.or_else(|| usable.next()).and_then(own_address)
    };
    if let Some(IpAddr::V4(address)) = own(32, &|message| message.header.family == AddressFamily::Inet) {
        interface.address = Some(address);
    }
    let global = |message: &AddressMessage| {
        let state = port_address(std::slice::from_ref(port), message).map(|address| address.state);
        message.header.family == AddressFamily::Inet6
            && message.header.scope == AddressScope::Universe
            && state == Some(AddressState::Usable)
    };
    if let Some(IpAddr::V6(address)) = own(128, &global) {
        interface.ipv6_address = Some(address);
    }
    Some(interface)
}

/// Adds the addresses that the kernel uses, and the broadcast addresses of their subnets. Gives all addresses.
pub(super) fn add_addresses(
    input: &mut RouteInput,
    ports: &[MirroredPort],
    addresses: &[AddressMessage],
) -> Vec<PortAddress> {
    let mut of_ports = Vec::new();
    for message in addresses {
        let Some(found) = port_address(ports, message) else { continue };
        of_ports.push(found);
        if found.state == AddressState::Usable {
            input.local.push(found.address);
        }
        if let IpAddr::V4(address) = found.address {
            input.broadcast.extend(broadcasts(message, address));
        }
    }
    input.local.sort_unstable();
    input.local.dedup();
    input.broadcast.sort_unstable();
    input.broadcast.dedup();
    of_ports.sort_unstable();
    of_ports
}

/// As the kernel has it (fib_add_ifaddr): the address that was given, and the last of a subnet that has one.
fn broadcasts(message: &AddressMessage, address: Ipv4Addr) -> impl Iterator<Item = Ipv4Addr> {
    let given = message.attributes.iter().filter_map(|attribute| match attribute {
        AddressAttribute::Broadcast(broadcast) if *broadcast != Ipv4Addr::BROADCAST => Some(*broadcast),
        _ => None,
    });
    let prefix_len = message.header.prefix_len;
    let last = (prefix_len < 31).then(|| Ipv4Addr::from(u32::from(address) | (u32::MAX >> prefix_len)));
    given.chain(last)
}
