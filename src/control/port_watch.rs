//! Keeps TAPs and devices in step: a device's link is the carrier of its ports' TAPs, a TAP's link-layer address is its
//! port's.
//!
//! Without carrier the kernel takes the routes through a TAP out of use, and the mirror follows; so a port whose cable
//! is pulled is routed around, by the kernel's own traffic and by the gateway's. Devices are asked for their link ten
//! times a second: not all of DPDK's drivers tell of changes.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkUnspec, MulticastGroup};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::ports::{Ports, RunningPort};
use super::tap::Tap;
use super::twin::io_error;
use crate::dpdk::AddressFilter;
use crate::port::MacAddress;

/// Between two looks at the links.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Between attempts to open netlink again.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// Watches all ports.
#[derive(Debug)]
pub struct PortWatch {
    ports: Arc<Ports>,
    /// By port.
    taps: Vec<WatchedTap>,
}

#[derive(Debug)]
struct WatchedTap {
    tap: Arc<Tap>,
    /// The carrier that it was given last; none: that of its creation.
    up: Option<bool>,
}

impl PortWatch {
    /// For these ports, whose TAPs are in the same order.
    pub fn new(ports: Arc<Ports>, taps: &[Arc<Tap>]) -> Self {
        let taps = taps.iter().map(|tap| WatchedTap { tap: Arc::clone(tap), up: None }).collect();
        Self { ports, taps }
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
        let (connection, handle, mut events) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
        let mut connections = JoinSet::new();
        connections.spawn(connection);
        self.read(&handle).await?;
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = look.tick() => self.look(&handle).await,
                event = events.next() => {
                    let (event, _) = event.ok_or(io::ErrorKind::BrokenPipe)?;
                    self.note(&handle, event).await?;
                }
            }
        }
    }

    /// Reads the TAPs as they are now.
    async fn read(&self, handle: &Handle) -> io::Result<()> {
        for watched in &self.taps {
            let request = handle.link().get().match_index(watched.tap.ifindex());
            if let Some(link) = request.execute().try_next().await.map_err(io_error)? {
                self.follow_address(&link);
            }
        }
        Ok(())
    }

    async fn note(&self, handle: &Handle, event: NetlinkMessage<RouteNetlinkMessage>) -> io::Result<()> {
        match event.payload {
            NetlinkPayload::Overrun(_) => self.read(handle).await,
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                self.follow_address(&link);
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

    /// Gives the TAPs of a device whose link has changed their carrier.
    async fn look(&mut self, handle: &Handle) {
        for (port, watched) in self.ports.iter().zip(&mut self.taps) {
            // A device that cannot say is taken for one that is as before.
            let Ok(link) = port.device.link() else { continue };
            if watched.up.unwrap_or(true) != link.up {
                set_carrier(handle, &port, watched, link.up).await;
            }
            watched.up = Some(link.up);
        }
    }
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
