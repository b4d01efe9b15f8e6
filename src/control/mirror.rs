//! Mirrors what the kernel knows of the TAPs into [`RouteInput`], and has it resolve next hops.
//!
//! Every notification that may matter leads, some milliseconds later, to reading everything again: the kernel's
//! notifications alone are not enough to follow it (they can be lost, and say little of what a deleted device takes
//! with it), and what is read whole cannot drift. Invariant: what was published last is what the kernel last said.

mod read;

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt};
use hashbrown::HashMap;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::AsyncSocket;
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub use self::read::{AddressState, PortAddress};

use self::read::Reading;
use crate::forward::Hop;
use crate::port::{MacAddress, PortId};
use crate::route::RouteInput;

/// From the first notification to reading: those that belong together come together.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// After reading, this many times as long as it took passes before the next: a sixth of the CPU at most.
const REST_FACTOR: u32 = 5;
/// Read at least this often, should a notification ever be missing.
const READ_INTERVAL: Duration = Duration::from_secs(30);
/// Reading takes at most this long, or the netlink socket is given up.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Between attempts to open netlink sockets again.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);
/// A hop is asked for at most this often.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(1);
/// Requests to resolve that can be on their way at once.
const RESOLVE_QUEUE: usize = 1024;
/// Bytes of notifications that the kernel may hold for us; it gives as much as net.core.rmem_max allows.
const RECEIVE_BUFFER: i32 = 4 << 20;

/// A TAP to mirror.
#[derive(Clone, Copy, Debug)]
pub struct MirroredPort {
    /// The port that it is the twin of.
    pub port: PortId,
    /// Its index among the kernel's network devices.
    pub ifindex: u32,
    /// The port's MTU in bytes of an IP packet: what a larger MTU of the TAP does not change.
    pub mtu: u16,
}

/// Why there is no mirror.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// No socket.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The kernel did not say what it knows.
    #[error("cannot read {what} from the kernel: {source}")]
    Read {
        /// What was read.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel said nothing for long.
    #[error("the kernel did not answer within {} s", READ_TIMEOUT.as_secs())]
    Timeout,
    /// The kernel closed the socket.
    #[error("the netlink socket was closed")]
    Closed,
}

/// The mirror; its work ends when it is dropped.
#[derive(Debug)]
pub struct Mirror {
    input: watch::Receiver<Arc<RouteInput>>,
    addresses: watch::Receiver<Vec<PortAddress>>,
    resolve: mpsc::Sender<Hop>,
    _task: JoinSet<()>,
}

impl Mirror {
    /// Reads what the kernel knows of `ports` and follows it from then on. Must be called inside a tokio runtime with
    /// I/O and time.
    ///
    /// # Errors
    /// [`MirrorError`]. Later errors are logged and netlink opened again.
    pub async fn start(ports: &[MirroredPort]) -> Result<Self, MirrorError> {
        let (publish, input) = watch::channel(Arc::default());
        let (publish_addresses, addresses) = watch::channel(Vec::new());
        let (resolve, requests) = mpsc::channel(RESOLVE_QUEUE);
        let mut listener = Listener::new(ports, publish, publish_addresses);
        let mut kernel = Kernel::open()?;
        listener.read(&mut kernel).await?;
        let mut task = JoinSet::new();
        task.spawn(listener.run(kernel, requests));
        Ok(Self { input, addresses, resolve, _task: task })
    }

    /// What the kernel knows, now and from now on.
    pub fn subscribe(&self) -> watch::Receiver<Arc<RouteInput>> {
        self.input.clone()
    }

    /// The addresses of the TAPs, sorted, now and from now on, also those that the kernel does not use.
    pub fn addresses(&self) -> watch::Receiver<Vec<PortAddress>> {
        self.addresses.clone()
    }

    /// Asks the kernel to resolve a hop. The answer, if there is one, shows in [`Mirror::subscribe`]. Asking again
    /// within a second does nothing, so ask as often as you like; never blocks.
    pub fn resolve(&self, hop: Hop) {
        // A full queue: the data path asks again for the next packet.
        let _ = self.resolve.try_send(hop);
    }
}

/// Two netlink connections: on the one that gets notifications the kernel may drop messages when we are slow, so
/// requests and their answers have one of their own.
struct Kernel {
    handle: Handle,
    events: Pin<Box<dyn Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Send>>,
    _connections: JoinSet<()>,
}

impl Kernel {
    fn open() -> Result<Self, MirrorError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Nexthop,
        ];
        let (mut listening, _, events) = rtnetlink::new_multicast_connection(&groups).map_err(MirrorError::Open)?;
        if let Err(error) = listening.socket_mut().socket_mut().set_rx_buf_sz(RECEIVE_BUFFER) {
            tracing::debug!(%error, "the netlink socket keeps its small receive buffer");
        }
        let (asking, handle, _) = rtnetlink::new_connection().map_err(MirrorError::Open)?;
        let mut connections = JoinSet::new();
        connections.spawn(listening);
        connections.spawn(asking);
        Ok(Self { handle, events: Box::pin(events.map(|(message, _)| message)), _connections: connections })
    }
}

/// The mirror's task.
struct Listener {
    ports: Arc<[MirroredPort]>,
    publish: watch::Sender<Arc<RouteInput>>,
    publish_addresses: watch::Sender<Vec<PortAddress>>,
    /// The neighbours that were published last.
    known: HashMap<Hop, MacAddress>,
    /// Hops that the kernel was asked for in the last second, or somewhat longer.
    asked: HashMap<Hop, Instant>,
    /// Neighbours that became stale.
    stale: Vec<Hop>,
    /// When to read next.
    due: Instant,
    /// Not to read before.
    rested: Instant,
}

impl Listener {
    fn new(
        ports: &[MirroredPort],
        publish: watch::Sender<Arc<RouteInput>>,
        publish_addresses: watch::Sender<Vec<PortAddress>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            ports: ports.into(),
            publish,
            publish_addresses,
            known: HashMap::new(),
            asked: HashMap::new(),
            stale: Vec::new(),
            due: now,
            rested: now,
        }
    }

    /// Follows the kernel until the mirror is dropped.
    async fn run(mut self, mut kernel: Kernel, mut requests: mpsc::Receiver<Hop>) {
        while let Err(error) = self.follow(&mut kernel, &mut requests).await {
            tracing::warn!(%error, "lost sight of the kernel's routes and neighbours; opening netlink again");
            kernel = loop {
                sleep(REOPEN_INTERVAL).await;
                match Kernel::open() {
                    Ok(kernel) => break kernel,
                    Err(error) => tracing::warn!(%error, "no netlink yet"),
                }
            };
            self.due = Instant::now();
        }
    }

    /// Follows the kernel until it is lost, or no requests can come any more.
    async fn follow(&mut self, kernel: &mut Kernel, requests: &mut mpsc::Receiver<Hop>) -> Result<(), MirrorError> {
        loop {
            tokio::select! {
                event = kernel.events.next() => self.note(event.ok_or(MirrorError::Closed)?),
                request = requests.recv() => match request {
                    Some(hop) => self.resolve(&kernel.handle, hop).await,
                    None => return Ok(()),
                },
                () = sleep_until(self.due) => self.read(kernel).await?,
            }
            for hop in std::mem::take(&mut self.stale) {
                if !self.ask(&kernel.handle, hop).await {
                    // Nobody will say again that it is stale; reading will.
                    self.read_by(Instant::now() + RESOLVE_INTERVAL);
                }
            }
        }
    }

    /// Notes what a notification means for us.
    fn note(&mut self, event: NetlinkMessage<RouteNetlinkMessage>) {
        use RouteNetlinkMessage as Message;
        let matters = match &event.payload {
            NetlinkPayload::Overrun(_) => {
                tracing::debug!("netlink notifications were lost; reading again");
                true
            }
            NetlinkPayload::InnerMessage(Message::NewLink(link) | Message::DelLink(link)) => {
                self.port(link.header.index).is_some()
            }
            NetlinkPayload::InnerMessage(Message::NewAddress(address) | Message::DelAddress(address)) => {
                self.port(address.header.index).is_some()
            }
            NetlinkPayload::InnerMessage(Message::NewRoute(route) | Message::DelRoute(route)) => {
                read::routes::matters(route)
            }
            NetlinkPayload::InnerMessage(Message::NewNeighbour(message)) => {
                read::neighbour(&self.ports, message).is_some_and(|seen| {
                    if seen.stale {
                        self.stale.push(seen.hop);
                    }
                    // Most notifications only say that a neighbour is still there.
                    self.known.get(&seen.hop) != seen.mac.as_ref()
                })
            }
            NetlinkPayload::InnerMessage(Message::DelNeighbour(message)) => {
                read::neighbour(&self.ports, message).is_some_and(|seen| self.known.contains_key(&seen.hop))
            }
            // Next-hop objects name no table; they change seldom.
            NetlinkPayload::InnerMessage(_) => true,
            _ => false,
        };
        if matters {
            self.read_by(Instant::now() + DEBOUNCE);
        }
    }

    /// Read no later than `when`, but for the rest after the last reading.
    fn read_by(&mut self, when: Instant) {
        self.due = self.due.min(when.max(self.rested));
    }

    fn port(&self, ifindex: u32) -> Option<&MirroredPort> {
        self.ports.iter().find(|port| port.ifindex == ifindex)
    }

    /// Reads everything, notes meanwhile what happens, and publishes what is new.
    async fn read(&mut self, kernel: &mut Kernel) -> Result<(), MirrorError> {
        let started = Instant::now();
        self.due = started + READ_INTERVAL;
        let ports = Arc::clone(&self.ports);
        let mut reading = pin!(timeout(READ_TIMEOUT, read::read(&kernel.handle, &ports)));
        let Reading { input, addresses, stale } = loop {
            tokio::select! {
                reading = &mut reading => break reading.map_err(|_| MirrorError::Timeout)??,
                event = kernel.events.next() => self.note(event.ok_or(MirrorError::Closed)?),
            }
        };
        let now = Instant::now();
        self.rested = now + (now - started) * REST_FACTOR;
        self.due = self.due.max(self.rested);
        self.stale.extend(stale);
        self.asked.retain(|_, asked| now - *asked < RESOLVE_INTERVAL);
        self.known = input.neighbours.iter().map(|neighbour| (neighbour.hop, neighbour.mac)).collect();
        self.publish.send_if_modified(|last| {
            let changed = **last != input;
            if changed {
                *last = Arc::new(input);
            }
            changed
        });
        self.publish_addresses.send_if_modified(|last| {
            let changed = *last != addresses;
            if changed {
                warn_of_duplicates(last, &addresses);
                *last = addresses;
            }
            changed
        });
        Ok(())
    }

    /// Has the kernel resolve a hop that the data path waits for.
    async fn resolve(&mut self, handle: &Handle, hop: Hop) {
        // Known already: the data path will see it with its next table.
        if !self.known.contains_key(&hop) {
            self.ask(handle, hop).await;
        }
    }

    /// Has the kernel look for a neighbour; false if it did so within the last second and is not asked.
    async fn ask(&mut self, handle: &Handle, hop: Hop) -> bool {
        let Some(ifindex) = self.ports.iter().find(|port| port.port == hop.port).map(|port| port.ifindex) else {
            return true;
        };
        let now = Instant::now();
        if self.asked.get(&hop).is_some_and(|&asked| now - asked < RESOLVE_INTERVAL) {
            return false;
        }
        self.asked.insert(hop, now);
        if let Err(error) = read::use_neighbour(handle, ifindex, hop.address).await {
            tracing::debug!(%error, address = %hop.address, port = hop.port.0, "the kernel does not resolve a next hop");
        }
        true
    }
}

/// Logs the addresses that have turned out to be somebody else's.
fn warn_of_duplicates(last: &[PortAddress], now: &[PortAddress]) {
    let new = |address: &&PortAddress| address.state == AddressState::Duplicate && !last.contains(address);
    for PortAddress { port, address, prefix_len, .. } in now.iter().filter(new) {
        tracing::warn!(
            port = port.0,
            "{address}/{prefix_len} is another machine's on the same link: the kernel does not use it on this port"
        );
    }
}
