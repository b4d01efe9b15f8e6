//! Everything that packets go through, as the control thread holds it: the EAL, the packet pool, ports, workers.
//!
//! It knows nothing of services: it is opened from the configuration, started with a first snapshot, and stopped.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use super::ports::{Ports, RunningPort};
use super::session_memory::{self, Available, SessionPlace, Shortage};
use super::wake::EventFd;
use crate::balance::Templates;
use crate::config::{Config, Device};
use crate::dpdk::{
    Eal, EalError, Mbuf, MemPool, MemPoolError, Port, PortError, Queue, Steering, clock, register_current_thread,
};
use crate::flow::HashSeed;
use crate::flow::ownership::Ownership;
use crate::flow::rss::RssKey;
use crate::forward::{self, Forwarder, ForwarderConfig, Now, PortView};
use crate::port::{PortId, PortPlace, WorkerId};
use crate::telemetry::counters::{SlotLimits, WorkerCounters};
use crate::worker::link::{Snapshot, Waker, WorkerLink};
use crate::worker::thread::{self, Exit};
use crate::worker::{Clock, Worker, WorkerParts, hand_over_rings, packets_held};

/// A worker's link with the types of the gateway.
pub type Link = WorkerLink<Mbuf, EventFd>;

/// Why the data path cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum DataPlaneError {
    /// A CPU that is not there, or not allowed.
    #[error("[worker].cores: there is no CPU {core} for a worker; allowed here: {allowed}")]
    NoSuchCore {
        /// The CPU.
        core: u16,
        /// CPUs that this process may use.
        allowed: CoreList,
    },
    /// The sessions do not fit into the machine's memory.
    #[error(transparent)]
    NoMemory(#[from] Shortage),
    /// DPDK did not come up.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// No packet buffers.
    #[error(transparent)]
    MemPool(#[from] MemPoolError),
    /// A port did not open.
    #[error(transparent)]
    Port(#[from] PortError),
    /// No eventfd.
    #[error("cannot make an eventfd: {0}")]
    Event(std::io::Error),
    /// No thread.
    #[error("cannot start the thread of worker {}: {source}", worker.0)]
    Thread {
        /// Whose.
        worker: WorkerId,
        /// Why.
        source: std::io::Error,
    },
}

/// CPUs, shown with ranges: `0-3,8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(Vec<usize>);

impl CoreList {
    /// Those that this process may use.
    pub fn allowed() -> Self {
        let set = sched_getaffinity(None).unwrap_or_default();
        Self((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
    }
}

impl fmt::Display for CoreList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, run) in self.0.chunk_by(|a, b| a + 1 == *b).enumerate() {
            let comma = if number == 0 { "" } else { "," };
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [only] => write!(f, "{comma}{only}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

/// What workers tell of themselves.
#[derive(Debug)]
enum News {
    /// A worker has its tables and begins to poll.
    Ready,
    /// A worker has ended.
    Ended(WorkerId, Exit),
}

/// The data path.
#[derive(Debug)]
pub struct DataPlane {
    threads: Vec<JoinHandle<()>>,
    news: mpsc::UnboundedReceiver<News>,
    told: mpsc::UnboundedSender<News>,
    links: Arc<[Arc<Link>]>,
    ports: Arc<Ports>,
    /// By worker, then by device; empty once the workers have them.
    queues: Vec<Vec<Queue>>,
    /// By worker.
    session_pages: Vec<SessionPlace>,
    templates: Arc<Templates>,
    pool: MemPool,
    config: Arc<Config>,
    /// Last, so that it is the last to go.
    _eal: Eal,
}

impl DataPlane {
    /// Brings up the EAL, the packet pool and every port. No packet moves yet.
    pub fn open(config: Arc<Config>) -> Result<Self, DataPlaneError> {
        check_cores(&config.worker.cores)?;
        let workers = config.worker.cores.len();
        let eal = Eal::init(&config.dpdk, &config.ports, &config.worker)?;
        let count = u16::try_from(workers).unwrap_or(u16::MAX);
        let held = packets_held(workers, config.ports.len());
        let pool = MemPool::create(&eal, &config.dpdk, &config.ports, count, held)?;
        let mut devices = Vec::new();
        let mut queues: Vec<Vec<Queue>> = (0..workers).map(|_| Vec::new()).collect();
        let key = draw_rss_key();
        for (index, port) in (0..).zip(&config.ports) {
            if matches!(port.device, Device::Parent(_)) {
                continue;
            }
            let (device, port_queues) = Port::open(port, PortId(index), count, &pool, &key)?;
            devices.push(device);
            for (queues, queue) in queues.iter_mut().zip(port_queues) {
                queues.push(queue);
            }
        }
        // Only now: sessions take what DPDK leaves.
        let session_pages = Available::now().plan(&config)?;
        let slots = SlotLimits::default().real_servers as usize;
        let templates = Arc::new(session_memory::take_templates(&config, slots, draw_seed())?);
        let (told, news) = mpsc::unbounded_channel();
        let links = make_links(workers)?;
        let ports = Arc::new(Ports::new(devices, Arc::clone(&config)));
        Ok(Self {
            threads: Vec::new(),
            news,
            told,
            links,
            ports,
            queues,
            session_pages,
            templates,
            pool,
            config,
            _eal: eal,
        })
    }

    /// The links to the workers, in their order.
    pub fn links(&self) -> &Arc<[Arc<Link>]> {
        &self.links
    }

    /// The ports.
    pub fn ports(&self) -> &Arc<Ports> {
        &self.ports
    }

    /// Which real servers clients stay with.
    pub fn templates(&self) -> &Arc<Templates> {
        &self.templates
    }

    /// The packet pool.
    pub fn pool(&self) -> &MemPool {
        &self.pool
    }

    /// Starts all workers with their first tables.
    pub fn start(&mut self, first: &Arc<Snapshot>) -> Result<(), DataPlaneError> {
        let rings = hand_over_rings(self.links.len());
        let seed = draw_seed();
        let counters: Arc<[_]> = self.links.iter().map(|link| Arc::clone(&link.counters)).collect();
        for (link, queues) in self.links.iter().zip(std::mem::take(&mut self.queues)) {
            let core = self.config.worker.cores[link.worker.index()];
            let place = self.session_pages[link.worker.index()];
            let forwarder = self.forwarder_config(link.worker, seed, &counters);
            let start = Start {
                link: Arc::clone(link),
                queues,
                places: self.ports.places().to_vec(),
                rings: Arc::clone(&rings),
                first: Arc::clone(first),
            };
            let (config, told) = (Arc::clone(&self.config), self.told.clone());
            let ready = told.clone();
            // Nobody listens any more once control has gone; then nobody is there to be told.
            let run = move || start.run(core, place, forwarder, &config, || drop(ready.send(News::Ready)));
            let tell = move |worker, exit| drop(told.send(News::Ended(worker, exit)));
            let thread = thread::spawn(link.worker, run, tell);
            self.threads.push(thread.map_err(|source| DataPlaneError::Thread { worker: link.worker, source })?);
        }
        Ok(())
    }

    fn forwarder_config(
        &self,
        worker: WorkerId,
        seed: HashSeed,
        counters: &Arc<[Arc<WorkerCounters>]>,
    ) -> ForwarderConfig {
        let view = |port: RunningPort<'_>| PortView {
            mac: port.device.mac(),
            promiscuous: port.owner.promiscuous,
            mss_clamp: port.owner.mss_clamp,
            steering: match self.ports.steering(port.device) {
                Steering::Rss => forward::Steering::Rss,
                Steering::Software | Steering::Single => forward::Steering::Software,
            },
        };
        let workers = u8::try_from(self.links.len()).unwrap_or(u8::MAX);
        ForwarderConfig {
            worker,
            workers,
            ports: self.ports.iter().map(view).collect(),
            session_capacity: self.config.session.capacity(),
            seed,
            ownership: Ownership::new(workers, self.ports.iter().map(|port| port.device.ownership().deal())),
            counters: Arc::clone(counters),
        }
    }

    /// Waits until all workers poll: with large tables that takes a while.
    ///
    /// # Errors
    /// A worker that has ended instead.
    pub async fn all_ready(&mut self) -> Result<(), (WorkerId, Exit)> {
        for _worker in 0..self.threads.len() {
            if let Some(News::Ended(worker, exit)) = self.news.recv().await {
                return Err((worker, exit));
            }
        }
        Ok(())
    }

    /// Waits until a worker has ended, and says how. Cancel safe.
    pub async fn worker_ended(&mut self) -> (WorkerId, Exit) {
        loop {
            match self.news.recv().await {
                Some(News::Ended(worker, exit)) => return (worker, exit),
                Some(News::Ready) => {}
                // `self.told` keeps the channel open.
                None => std::future::pending().await,
            }
        }
    }

    /// Has all workers send what they have accepted, and waits for their ends.
    pub fn stop(&mut self) {
        for link in self.links.iter() {
            link.stop.store(true, Ordering::Relaxed);
        }
        for thread in self.threads.drain(..) {
            // A worker's panic has been caught and told; the thread itself cannot panic.
            let _ = thread.join();
        }
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A secret of hashes.
fn draw_seed() -> HashSeed {
    let state = RandomState::new();
    HashSeed([state.hash_one(1u8), state.hash_one(2u8)])
}

/// A key that nobody outside knows.
fn draw_rss_key() -> RssKey {
    let (state, mut count) = (RandomState::new(), 0_u64);
    RssKey::draw(|| {
        count += 1;
        state.hash_one(count)
    })
}

fn check_cores(cores: &[u16]) -> Result<(), DataPlaneError> {
    let allowed = CoreList::allowed();
    match cores.iter().find(|&&core| !allowed.0.contains(&usize::from(core))) {
        Some(&core) => Err(DataPlaneError::NoSuchCore { core, allowed }),
        None => Ok(()),
    }
}

fn make_links(workers: usize) -> Result<Arc<[Arc<Link>]>, DataPlaneError> {
    let waker = Arc::new(Waker::new(EventFd::new().map_err(DataPlaneError::Event)?));
    let link = |worker| {
        let counters = Arc::new(WorkerCounters::new(SlotLimits::default()));
        Arc::new(WorkerLink::new(WorkerId(worker), counters, Arc::clone(&waker)))
    };
    Ok((0..u8::MAX).take(workers).map(link).collect())
}

/// What one worker begins with.
struct Start {
    link: Arc<Link>,
    queues: Vec<Queue>,
    places: Vec<PortPlace>,
    rings: crate::worker::HandOverRings<Mbuf>,
    first: Arc<Snapshot>,
}

impl Start {
    /// On the worker's own thread, so that its tables lie in its own node's memory.
    fn run(
        self,
        core: u16,
        place: SessionPlace,
        forwarder: ForwarderConfig,
        config: &Config,
        ready: impl FnOnce(),
    ) -> Result<(), String> {
        let mut cpu = CpuSet::new();
        cpu.set(usize::from(core));
        sched_setaffinity(None, &cpu).map_err(|error| format!("cannot run on CPU {core}: {error}"))?;
        let _registered = register_current_thread().map_err(|error| error.to_string())?;
        let mut region = place.take(self.link.worker, forwarder.session_capacity)?;
        let now = Now::from_nanoseconds(clock::now_nanoseconds());
        let forwarder = Forwarder::in_region(forwarder, &mut region, now).ok_or("it has no counters")?;
        let parts = WorkerParts {
            worker: self.link.worker,
            forwarder,
            queues: self.queues,
            places: self.places,
            link: self.link,
            rings: self.rings,
            clock: TimeStampCounter,
            idle: config.worker.idle,
            punt_rates: config.punt,
            first: self.first,
        };
        let worker = Worker::new(parts);
        ready();
        worker.run();
        Ok(())
    }
}

/// The processor's time stamp counter as a worker's clock, and the kernel's account of the thread.
#[derive(Clone, Copy, Debug)]
struct TimeStampCounter;

impl Clock for TimeStampCounter {
    #[inline]
    fn nanoseconds(&self) -> u64 {
        clock::now_nanoseconds()
    }

    fn cpu_nanoseconds(&self) -> u64 {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        let whole = u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000);
        whole + u64::try_from(time.tv_nsec).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shown_with_ranges() {
        assert_eq!(CoreList(vec![0, 1, 2, 3, 8, 10, 11]).to_string(), "0-3,8,10-11");
    }

    #[test]
    fn a_core_that_is_not_there_is_named() {
        let error = check_cores(&[4095]).unwrap_err().to_string();
        assert!(error.starts_with("[worker].cores: there is no CPU 4095 for a worker; allowed here: 0"), "{error}");
    }
}
