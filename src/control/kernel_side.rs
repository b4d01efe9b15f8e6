//! The kernel's part in the gateway: TAPs, the mirror of what the kernel knows, and the frames between both.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use tokio::task::{JoinSet, yield_now};

use super::data_plane::{DataPlane, Link};
use super::mirror::{Mirror, MirrorError, MirroredPort, PortAddress};
use super::plane::LocalAddressHost;
use super::port_watch::PortWatch;
use super::pump;
use super::tap::Tap;
use super::twin::{Twin, TwinError, TwinPort};
use super::wake::Sleeper;
use crate::dpdk::PortError;
use crate::port::PortId;
use crate::route::{MAX_HOPS, RouteInput, RouteTable};
use crate::telemetry::counters::{SlotLimits, WorkerCounters};

/// Why the kernel's part cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum KernelSideError {
    /// A TAP, or what is to be put on it.
    #[error(transparent)]
    Twin(#[from] TwinError),
    /// The mirror.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// A port did not say its MTU.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The wake-up by workers.
    #[error("cannot wait for workers: {0}")]
    Wake(#[from] io::Error),
}

/// The running parts. Everything ends, and the TAPs vanish, when it is dropped.
#[derive(Debug)]
pub struct KernelSide {
    taps: Vec<Arc<Tap>>,
    twin: Arc<Mutex<Twin>>,
    mirror: Mirror,
    links: Arc<[Arc<Link>]>,
    sleeper: Sleeper,
    counters: Arc<WorkerCounters>,
    injections: JoinSet<io::Result<()>>,
    /// None once it runs.
    watch: Option<PortWatch>,
    watching: JoinSet<()>,
}

impl KernelSide {
    /// Makes the TAPs as configured, begins to mirror them, and to pass on what the kernel sends.
    pub async fn start(plane: &DataPlane) -> Result<Self, KernelSideError> {
        let mut twins = Vec::new();
        for port in plane.ports().iter() {
            // Where the TAP's is another than the device's, the port watch has the device follow.
            let mac = port.config.mac.unwrap_or(port.device.mac());
            twins.push(TwinPort { port: port.id, config: port.config, mac, mtu: port.mtu()? });
        }
        let twin = Twin::create(&twins).await?;
        let mirrored: Vec<_> =
            twin.taps().map(|(port, tap, mtu)| MirroredPort { port, ifindex: tap.ifindex(), mtu }).collect();
        let mirror = Mirror::start(&mirrored).await?;
        let links = Arc::clone(plane.links());
        let waker = links.first().map(|link| Arc::clone(&link.waker)).ok_or_else(|| io::Error::other("no workers"))?;
        let counters = Arc::new(WorkerCounters::new(SlotLimits { real_servers: 0, local_addresses: 0 }));
        let pool = plane.pool().clone();
        let source = Arc::new(move |bytes: &[u8]| pool.copy_from(bytes));
        let mut injections = JoinSet::new();
        for (port, tap, mtu) in twin.taps() {
            let (tap, links, source) = (Arc::clone(tap), Arc::clone(&links), Arc::clone(&source));
            injections.spawn(pump::inject(tap, port, mtu, links, source, Arc::clone(&counters)));
        }
        let taps: Vec<_> = twin.taps().map(|(_, tap, _)| Arc::clone(tap)).collect();
        let sleeper = Sleeper::new(waker)?;
        let (own_links, own_counters) = (Arc::clone(&links), Arc::clone(&counters));
        let send = move |port, frame: &[u8]| pump::pass_on(port, frame, &own_links, source.as_ref(), &own_counters);
        let watch = Some(PortWatch::new(Arc::clone(plane.ports()), &taps, Box::new(send)));
        let (twin, watching) = (Arc::new(Mutex::new(twin)), JoinSet::new());
        Ok(Self { taps, twin, mirror, links, sleeper, counters, injections, watch, watching })
    }

    /// What the control thread counts of frames to and from the kernel.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.counters
    }

    /// Where local addresses are put.
    pub fn address_host(&self) -> TapAddresses {
        TapAddresses(Arc::clone(&self.twin))
    }

    /// The addresses of the TAPs, now and whenever they change.
    pub fn addresses(&self) -> watch::Receiver<Vec<PortAddress>> {
        self.mirror.addresses()
    }

    /// The routes, compiled, now and whenever the kernel's change. The task that compiles them belongs to `tasks`.
    pub fn routes(&self, tasks: &mut JoinSet<()>) -> watch::Receiver<Arc<RouteTable>> {
        let mut input = self.mirror.subscribe();
        let first = compile(&input.borrow_and_update(), None);
        let (sender, receiver) = watch::channel(first);
        tasks.spawn(async move {
            while input.changed().await.is_ok() {
                let next = compile(&input.borrow_and_update(), Some(&sender.borrow()));
                sender.send_replace(next);
            }
        });
        receiver
    }

    /// Passes on what workers have for the kernel, and keeps TAPs and devices in step, until something breaks that
    /// cannot be mended.
    pub async fn run(&mut self) -> io::Error {
        if let Some(watch) = self.watch.take() {
            self.watching.spawn(watch.run());
        }
        loop {
            let links = &self.links;
            let has_work = || links.iter().any(|link| !link.punts.is_empty() || !link.unresolved.is_empty());
            tokio::select! {
                woken = self.sleeper.woken(has_work) => if let Err(error) = woken { return error; },
                Some(ended) = self.injections.join_next() => return injection_error(ended),
            }
            self.pass_on().await;
        }
    }

    async fn pass_on(&self) {
        loop {
            // Between the batches: a flood of punts must not keep next hops from being asked for.
            for link in self.links.iter() {
                while let Some(hop) = link.unresolved.pop() {
                    self.mirror.resolve(hop);
                }
            }
            if pump::write_punts(&self.taps, &self.links, &self.counters) == 0 {
                return;
            }
            yield_now().await;
        }
    }
}

fn injection_error(ended: Result<io::Result<()>, tokio::task::JoinError>) -> io::Error {
    match ended {
        Ok(Err(error)) => io::Error::new(error.kind(), format!("a TAP cannot be read any more: {error}")),
        Ok(Ok(())) => io::Error::other("a TAP has ended"),
        Err(error) => io::Error::other(error),
    }
}

fn compile(input: &RouteInput, previous: Option<&RouteTable>) -> Arc<RouteTable> {
    let table = RouteTable::new(input, previous);
    if table.hops_left_out() > 0 {
        let left_out = table.hops_left_out();
        tracing::warn!(
            "{left_out} neighbours have no place beside {MAX_HOPS} others: packets to them wait and are lost"
        );
    }
    Arc::new(table)
}

/// Puts local addresses on the TAPs.
#[derive(Clone, Debug)]
pub struct TapAddresses(Arc<Mutex<Twin>>);

impl LocalAddressHost for TapAddresses {
    async fn add(&self, port: PortId, address: IpAddr) -> Result<(), String> {
        self.0.lock().await.add_local_address(port, address).await.map_err(|error| error.to_string())
    }

    async fn remove(&self, port: PortId, address: IpAddr) -> Result<(), String> {
        self.0.lock().await.remove_local_address(port, address).await.map_err(|error| error.to_string())
    }
}
