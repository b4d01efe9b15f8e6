//! The kernel twin: a TAP for each port, with the port's address and MTU, and on it what the configuration says.
//!
//! Everything else about addresses, routes and neighbours is the operator's and the kernel's; the mirror reads it back.
//! Invariant: what the twin put there vanishes with the twin, and what somebody else put there it does not remove.

mod sysctl;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use futures_util::stream::TryStreamExt;
use hashbrown::HashSet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, CacheInfo};
use rtnetlink::{AddressMessageBuilder, Handle, RouteMessageBuilder};
use tokio::task::JoinSet;

use super::tap::{Tap, TapError};
use crate::config::{InterfaceAddress, PortConfig, RouteConfig};
use crate::port::{MacAddress, PortId};

/// A port to make a twin of.
#[derive(Clone, Copy, Debug)]
pub struct TwinPort<'a> {
    /// Which one.
    pub port: PortId,
    /// Its name, its TAP's name, addresses and routes.
    pub config: &'a PortConfig,
    /// The device's link-layer address.
    pub mac: MacAddress,
    /// The device's MTU: bytes of an IP packet.
    pub mtu: u16,
}

/// Why the kernel is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum TwinError {
    /// There is no TAP.
    #[error("port {port:?}: {source}")]
    Tap {
        /// Name of the port.
        port: String,
        /// Why.
        source: TapError,
    },
    /// No netlink.
    #[error("cannot open a netlink socket: {0}")]
    Netlink(io::Error),
    /// A setting of the TAP cannot be made.
    #[error("port {port:?}: cannot set {path} to {value}: {source}")]
    Sysctl {
        /// Name of the port.
        port: String,
        /// The file.
        path: String,
        /// What it should say.
        value: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// An address cannot be put on the TAP.
    #[error("port {port:?}: cannot put the address {address}/{prefix_len} on TAP {tap}: {source}")]
    Address {
        /// Name of the port.
        port: String,
        /// Name of its TAP.
        tap: String,
        /// The address.
        address: IpAddr,
        /// Length of its prefix.
        prefix_len: u8,
        /// What the kernel said.
        source: io::Error,
    },
    /// A route cannot be put on the TAP.
    #[error("port {port:?}: cannot put the route {route} on TAP {tap}: {source}{hint}")]
    Route {
        /// Name of the port.
        port: String,
        /// Name of its TAP.
        tap: String,
        /// As `ip route add` would take it.
        route: String,
        /// What the kernel said.
        source: io::Error,
        /// What to do about it.
        hint: &'static str,
    },
    /// The addresses of a TAP cannot be read or removed.
    #[error("port {port:?}: cannot {action} on TAP {tap}: {source}")]
    LocalAddress {
        /// Name of the port.
        port: String,
        /// Name of its TAP.
        tap: String,
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no such port.
    #[error("port {} has no TAP", .0.0)]
    NoSuchPort(PortId),
}

/// The TAPs of all ports.
#[derive(Debug)]
pub struct Twin {
    ports: Vec<TwinnedPort>,
    handle: Handle,
    /// Addresses that [`Twin::add_local_address`] put there itself.
    added: HashSet<(PortId, IpAddr)>,
    /// The netlink connection's own task; ends with the twin.
    _connection: JoinSet<()>,
}

/// One port and its TAP.
#[derive(Debug)]
struct TwinnedPort {
    port: PortId,
    name: String,
    tap: Arc<Tap>,
    mtu: u16,
}

impl Twin {
    /// Creates a TAP for each port, sets them up, and puts addresses and routes on them. Must be called inside a tokio
    /// runtime with I/O.
    ///
    /// # Errors
    /// [`TwinError`]; nothing is left behind then.
    pub async fn create(ports: &[TwinPort<'_>]) -> Result<Self, TwinError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(TwinError::Netlink)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let mut twin = Self { ports: Vec::new(), handle, added: HashSet::new(), _connection: tasks };
        for port in ports {
            twin.create_tap(port).await?;
        }
        // Routes come after the addresses of all ports: a gateway must be on-link by then.
        for port in ports {
            for &route in &port.config.routes {
                twin.add_route(port.port, route).await?;
            }
        }
        Ok(twin)
    }

    /// The TAP of `port`.
    pub fn tap(&self, port: PortId) -> Option<&Arc<Tap>> {
        self.port(port).ok().map(|twinned| &twinned.tap)
    }

    /// Each port with its TAP and the port's MTU.
    pub fn taps(&self) -> impl Iterator<Item = (PortId, &Arc<Tap>, u16)> {
        self.ports.iter().map(|twinned| (twinned.port, &twinned.tap, twinned.mtu))
    }

    /// Puts a local address (LIP) or a virtual one on the TAP of `port`, so that the kernel answers for it to ARP or
    /// neighbour discovery and to ping. An address that is there already, with whatever prefix, is left as it is, and left there in the end.
    ///
    /// # Errors
    /// [`TwinError::NoSuchPort`], or what the kernel said.
    pub async fn add_local_address(&mut self, port: PortId, address: IpAddr) -> Result<(), TwinError> {
        let twinned = self.port(port)?;
        let there = self.addresses(twinned, address).await.map_err(|source| TwinError::LocalAddress {
            port: twinned.name.clone(),
            tap: twinned.tap.name().to_owned(),
            action: format!("look whether the address {address} is there"),
            source,
        })?;
        if !there.contains(&address) {
            if address.is_ipv6() {
                sysctl::enable_ipv6(&twinned.name, twinned.tap.name())?;
            }
            self.add_address(twinned, alone(address)).await?;
            self.added.insert((port, address));
        }
        Ok(())
    }

    /// Removes what [`Twin::add_local_address`] put there; does nothing where that found the address there already.
    ///
    /// # Errors
    /// [`TwinError::NoSuchPort`], or what the kernel said.
    pub async fn remove_local_address(&mut self, port: PortId, address: IpAddr) -> Result<(), TwinError> {
        let twinned = self.port(port)?;
        if !self.added.contains(&(port, address)) {
            return Ok(());
        }
        let message = address_message(twinned.tap.ifindex(), alone(address));
        match self.handle.address().del(message).execute().await.map_err(io_error) {
            Err(source) if source.kind() != io::ErrorKind::AddrNotAvailable => {
                return Err(TwinError::LocalAddress {
                    port: twinned.name.clone(),
                    tap: twinned.tap.name().to_owned(),
                    action: format!("remove the address {address}/{}", alone(address).prefix_len),
                    source,
                });
            }
            // Not there any more: somebody removed it by hand.
            Ok(()) | Err(_) => {}
        }
        self.added.remove(&(port, address));
        Ok(())
    }

    fn port(&self, port: PortId) -> Result<&TwinnedPort, TwinError> {
        self.ports.iter().find(|twinned| twinned.port == port).ok_or(TwinError::NoSuchPort(port))
    }

    async fn create_tap(&mut self, port: &TwinPort<'_>) -> Result<(), TwinError> {
        let name = &port.config.name;
        let tap_error = |source| TwinError::Tap { port: name.clone(), source };
        let tap = Tap::create(&port.config.tap, port.mac, port.mtu).map_err(tap_error)?;
        sysctl::set_all(name, tap.name())?;
        let destinations = port.config.routes.iter().map(|route| &route.to);
        if port.config.addresses.iter().chain(destinations).any(|configured| configured.address.is_ipv6()) {
            sysctl::enable_ipv6(name, tap.name())?;
        }
        tap.up().await.map_err(tap_error)?;
        let twinned = TwinnedPort { port: port.port, name: name.clone(), tap: Arc::new(tap), mtu: port.mtu };
        for &address in &port.config.addresses {
            self.add_address(&twinned, address).await?;
        }
        self.ports.push(twinned);
        Ok(())
    }

    async fn add_address(&self, port: &TwinnedPort, address: InterfaceAddress) -> Result<(), TwinError> {
        let mut request = self.handle.address().add(port.tap.ifindex(), address.address, address.prefix_len);
        if is_ipv6_alone(address) {
            let message = request.message_mut();
            // Usable at once, and by design maybe on several machines (anycast): nobody is asked whether he has it.
            message.header.flags |= AddressHeaderFlags::Nodad;
            // The kernel chooses the source that is most like the destination, which may well be a VIP or LIP: what comes
            // back to these is not the host's. So it takes them last, as keepalived's.
            let mut lifetimes = CacheInfo::default();
            (lifetimes.ifa_preferred, lifetimes.ifa_valid) = (0, u32::MAX);
            message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
        }
        let InterfaceAddress { address, prefix_len } = address;
        request.execute().await.map_err(|error| TwinError::Address {
            port: port.name.clone(),
            tap: port.tap.name().to_owned(),
            address,
            prefix_len,
            source: io_error(error),
        })
    }

    /// The addresses on a port's TAP that are of the family of `like`.
    async fn addresses(&self, port: &TwinnedPort, like: IpAddr) -> io::Result<Vec<IpAddr>> {
        let mut request = self.handle.address().get().set_link_index_filter(port.tap.ifindex());
        request.message_mut().header.family = if like.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let messages: Vec<AddressMessage> = request.execute().try_collect().await.map_err(io_error)?;
        Ok(messages.iter().filter_map(own_address).collect())
    }

    async fn add_route(&self, port: PortId, route: RouteConfig) -> Result<(), TwinError> {
        let twinned = self.port(port)?;
        let failed = |source: io::Error| TwinError::Route {
            port: twinned.name.clone(),
            tap: twinned.tap.name().to_owned(),
            route: describe(route),
            hint: hint(&source),
            source,
        };
        let invalid =
            |error: &dyn std::error::Error| failed(io::Error::new(io::ErrorKind::InvalidInput, error.to_string()));
        let mut builder = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(route.to.first(), route.to.prefix_len)
            .map_err(|error| invalid(&error))?
            .output_interface(twinned.tap.ifindex());
        if let Some(gateway) = route.via {
            builder = builder.gateway(gateway).map_err(|error| invalid(&error))?;
        } else {
            builder = builder.scope(rtnetlink::packet_route::route::RouteScope::Link);
        }
        if let Some(metric) = route.metric {
            builder = builder.priority(metric);
        }
        self.handle.route().add(builder.build()).execute().await.map_err(|error| failed(io_error(error)))
    }
}

/// The address of the host's own in an address message; the other may be a peer's.
pub(super) fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// An address without a subnet.
fn alone(address: IpAddr) -> InterfaceAddress {
    InterfaceAddress { address, prefix_len: if address.is_ipv4() { 32 } else { 128 } }
}

/// Whether an address is one without a subnet, as virtual and local ones are.
fn is_ipv6_alone(address: InterfaceAddress) -> bool {
    address.address.is_ipv6() && address.prefix_len == 128
}

fn address_message(ifindex: u32, address: InterfaceAddress) -> AddressMessage {
    let InterfaceAddress { address, prefix_len } = address;
    match address {
        IpAddr::V4(address) => {
            AddressMessageBuilder::<Ipv4Addr>::new().index(ifindex).address(address, prefix_len).build()
        }
        IpAddr::V6(address) => {
            AddressMessageBuilder::<Ipv6Addr>::new().index(ifindex).address(address, prefix_len).build()
        }
    }
}

/// What the kernel said, without the message that it said it about.
pub(super) fn io_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

/// A route as `ip route add` takes it.
fn describe(route: RouteConfig) -> String {
    let InterfaceAddress { address, prefix_len } = route.to;
    let via = route.via.map(|via| format!(" via {via}")).unwrap_or_default();
    let metric = route.metric.map(|metric| format!(" metric {metric}")).unwrap_or_default();
    format!("{address}/{prefix_len}{via}{metric}")
}

/// What to do about a route that the kernel refused.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AlreadyExists => {
            "; the host has a route with this destination and metric: give this one a `metric`"
        }
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::InvalidInput => {
            "; the gateway must be in a subnet of one of the port's `addresses`, and not one of them"
        }
        _ => "",
    }
}
