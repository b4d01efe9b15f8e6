//! Keeps TAPs and devices in step: a device's link is the carrier of its ports' TAPs, a TAP's link-layer address is its
//! port's. Announces addresses that are new, and all of a port whose link is back.
//!
//! Without carrier the kernel takes the routes through a TAP out of use, and the mirror follows; so a port whose cable
//! is pulled is routed around, by the kernel's own traffic and by the gateway's. Devices are asked for their link ten
//! times a second: not all of DPDK's drivers tell of changes.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{StreamExt, TryStreamExt};
use hashbrown::HashSet;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkUnspec, MulticastGroup};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::announce::{self, Announcements, Place};
use super::ports::{Ports, RunningPort};
use super::tap::Tap;
use super::twin::io_error;
use crate::dpdk::AddressFilter;
use crate::port::{MacAddress, PortId};

/// Between two looks at the links.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Between attempts to open netlink again.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// Sends a frame out of a port.
pub type Send = Box<dyn Fn(PortId, &[u8]) + std::marker::Send + Sync>;

/// Watches all ports.
pub struct PortWatch {
    ports: Arc<Ports>,
    /// By port.
    taps: Vec<WatchedTap>,
    /// On the TAPs.
    addresses: HashSet<Place>,
    announcements: Announcements,
    send: Send,
}

impl fmt::Debug for PortWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortWatch").field("taps", &self.taps).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct WatchedTap {
    tap: Arc<Tap>,
    /// The carrier that it was given last; none: that of its creation.
    up: Option<bool>,
    /// The members of its bond that have a link.
    members: Vec<bool>,
    /// Its bond sent by a member without link, at the last look already: nobody else mends that.
    stranded: bool,
}

impl PortWatch {
    /// For these ports, whose TAPs are in the same order.
    pub fn new(ports: Arc<Ports>, taps: &[Arc<Tap>], send: Send) -> Self {
        let taps = taps
            .iter()
            .map(|tap| WatchedTap { tap: Arc::clone(tap), up: None, members: Vec::new(), stranded: false })
            .collect();
        Self { ports, taps, addresses: HashSet::new(), announcements: Announcements::new(Instant::now()), send }
    }

    /// Watches until dropped.
    pub async fn run(mut self) {
        loop {
            let Err(error) = self.follow().await;
            tracing::warn!(%error, "lost sight of the TAPs; opening netlink again");
            sleep(REOPEN_INTERVAL).await;
        }
    }

    /// Watches until netlink is lost.
    async fn follow(&mut self) -> io::Result<Infallible> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (listening, _, mut events) = rtnetlink::new_multicast_connection(&groups)?;
        // Apart, since of a socket that gets notifications the kernel may drop answers too.
        let (asking, handle, _) = rtnetlink::new_connection()?;
        let mut connections = JoinSet::new();
        connections.spawn(listening);
        connections.spawn(asking);
        self.read(&handle).await?;
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.announcements.due();
            let batch = async { sleep_until(due.unwrap_or_else(Instant::now)).await };
            tokio::select! {
                () = batch, if due.is_some() => self.announce(),
                _ = look.tick() => self.look(&handle).await,
                event = events.next() => {
                    let (event, _) = event.ok_or(io::ErrorKind::BrokenPipe)?;
                    self.note(&handle, event).await?;
                }
            }
        }
    }

    /// Reads the TAPs as they are now.
    async fn read(&mut self, handle: &Handle) -> io::Result<()> {
        for watched in &self.taps {
            let request = handle.link().get().match_index(watched.tap.ifindex());
            if let Some(link) = request.execute().try_next().await.map_err(io_error)? {
                self.follow_address(&link);
            }
        }
        let addresses: Vec<AddressMessage> = handle.address().get().execute().try_collect().await.map_err(io_error)?;
        let before = std::mem::take(&mut self.addresses);
        for message in &addresses {
            if let Some(place) = self.place(message)
                && self.addresses.insert(place)
                && !before.contains(&place)
            {
                self.appeared(place, message);
            }
        }
        Ok(())
    }

    async fn note(&mut self, handle: &Handle, event: NetlinkMessage<RouteNetlinkMessage>) -> io::Result<()> {
        match event.payload {
            NetlinkPayload::Overrun(_) => self.read(handle).await,
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                self.follow_address(&link);
                Ok(())
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)) => {
                if let Some(place) = self.place(&message)
                    && self.addresses.insert(place)
                {
                    self.appeared(place, &message);
                }
                Ok(())
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(message)) => {
                if let Some(place) = self.place(&message) {
                    self.addresses.remove(&place);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Gives a port the address of its TAP.
    fn follow_address(&self, link: &LinkMessage) {
        let mut pairs = self.ports.iter().zip(&self.taps);
        let Some((port, _)) = pairs.find(|(_, watched)| watched.tap.ifindex() == link.header.index) else { return };
        let mac = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok().map(MacAddress),
            _ => None,
        });
        let Some(mac) = mac else { return };
        let name = &port.config.name;
        match self.ports.set_mac(&port, mac) {
            Ok(None) => {}
            Ok(Some(AddressFilter::Exact)) => tracing::info!("port {name}: its address is {mac} from here on"),
            Ok(Some(AddressFilter::None)) => tracing::warn!(
                "port {name}: its address is {mac} from here on; its device takes all frames, since it cannot be given the \
                 address"
            ),
            Err(error) => tracing::error!("port {name}: frames for its new address {mac} do not arrive: {error}"),
        }
    }

    /// The address in a message, if it is on one of our TAPs.
    fn place(&self, message: &AddressMessage) -> Option<Place> {
        let tap = self.taps.iter().position(|watched| watched.tap.ifindex() == message.header.index)?;
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        // IPv6 has no other; with IPv4 this one is the peer's.
        let other = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        Some((PortId(u8::try_from(tap).ok()?), local.or(other)?))
    }

    /// An address is there that was not. The kernel announces IPv6 addresses itself, after it has looked for duplicates.
    fn appeared(&mut self, place: Place, message: &AddressMessage) {
        if place.1.is_ipv4() || message.header.flags.contains(AddressHeaderFlags::Nodad) {
            self.announcements.add(place);
        }
    }

    /// Announces what is due, but nothing through a link that is down: all is announced when it is back.
    fn announce(&mut self) {
        let link_is_up = |port: PortId| self.taps.get(port.index()).is_some_and(|watched| watched.up != Some(false));
        let is_there = |place: &Place| self.addresses.contains(place) && link_is_up(place.0);
        for (port, address) in self.announcements.batch(Instant::now(), is_there) {
            let Some(watched) = self.taps.get(port.index()) else { continue };
            let router = address.is_ipv6() && is_router(watched.tap.name());
            (self.send)(port, &announce::frame(address, self.ports.mac(port), router));
        }
    }

    /// Gives the TAPs of a device whose link has changed their carrier.
    async fn look(&mut self, handle: &Handle) {
        for (port, watched) in self.ports.iter().zip(&mut self.taps) {
            // A device that cannot say is taken for one that is as before.
            let Ok(link) = port.device.link() else { continue };
            if watched.up.unwrap_or(true) != link.up {
                set_carrier(handle, &port, watched, link.up).await;
            }
            let switched = port.is_owner() && leave_stranded_member(&port, watched);
            // Other members may lead to another switch port: neighbours and switches are to know at once.
            let members: Vec<bool> = port.device.members().map(|(_, up)| up).collect();
            let moved = switched || (!watched.members.is_empty() && watched.members != members);
            watched.members = members;
            if watched.up == Some(false) || moved {
                let of_port = self.addresses.iter().filter(|(id, _)| *id == port.id && link.up);
                of_port.for_each(|&place| self.announcements.add(place));
            }
            watched.up = Some(link.up);
        }
    }
}

/// Has a bond go on by another member, where its driver has not seen for a while that the one in use has no link.
fn leave_stranded_member(port: &RunningPort<'_>, watched: &mut WatchedTap) -> bool {
    let stranded = port.device.stranded();
    let before = std::mem::replace(&mut watched.stranded, stranded.is_some());
    let Some((from, to)) = stranded.filter(|_| before) else { return false };
    let name = &port.config.name;
    match port.device.use_member(to) {
        Ok(()) => tracing::info!("port {name}: {from} has no link, it goes on by {to}"),
        Err(error) => tracing::warn!("port {name}: {from} has no link, and {to} cannot be used: {error}"),
    }
    true
}

/// Whether IPv6 neighbours may take the host for a router on this TAP; as the kernel, which says so in its own answers.
fn is_router(tap: &str) -> bool {
    std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{tap}/forwarding")).is_ok_and(|text| text.trim() == "1")
}

async fn set_carrier(handle: &Handle, port: &RunningPort<'_>, watched: &WatchedTap, up: bool) {
    let (name, tap) = (&port.config.name, watched.tap.name());
    let state = if up { "up" } else { "down" };
    tracing::info!("port {name}: link {state}");
    let message = LinkUnspec::new_with_index(watched.tap.ifindex()).carrier(up).build();
    if let Err(error) = handle.link().set(message).execute().await.map_err(io_error) {
        tracing::warn!("port {name}: TAP {tap} does not show that the link is {state}: {error}");
    }
}
