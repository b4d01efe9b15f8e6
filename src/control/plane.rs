//! The control plane as a whole: one task that owns the model and the publisher, does requests one after the other,
//! publishes, persists, and frees what removed real servers and local addresses held.
//!
//! It sleeps unless it was asked something or something is under way. A request that changes something is answered
//! when the new table is on its way to the workers, which take it at their next burst; where changes come faster
//! than tables can be made, several share a table, and the answer comes before it (see `Pace`). State is written
//! at most 100 ms after a change, by another thread, and when the plane ends.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::audit::{Audit, By};
use super::busy::BusySampler;
use super::change::Change;
use super::fullness::Fullness;
use super::handle::Job;
pub use super::handle::{ControlHandle, Measurements};
use super::kept::KeptTimeouts;
use super::model::Model;
use super::pace::Pace;
use super::persistence::StateStore;
use super::protocol::{ErrorKind, Outcome, PortRow, Refusal, Reply, Request, Stats, Status};
use super::publish::Publisher;
use super::report;
use super::saving::Saving;
use super::sessions::SessionWalks;
use super::settings::Settings;
use crate::balance::{SchedulerSettings, Templates};
use crate::config::{BalanceConfig, BalanceScope};
use crate::port::PortId;
use crate::route::RouteTable;
use crate::session::Capacity;
use crate::telemetry::counters::{SlotLimits, WorkerCounters};
use crate::worker::link::{Snapshot, WorkerLink};

/// What knows the ports.
pub trait PortReporter {
    /// A row for every port, in the order of the configuration, with its counters as they are now.
    fn rows(&self) -> Vec<PortRow>;
}

/// What puts local addresses where the kernel answers ARP, neighbour discovery and ping for them.
pub trait LocalAddressHost {
    /// Adds an address to a port. No error if it is there already.
    fn add(&self, port: PortId, address: IpAddr) -> impl Future<Output = Result<(), String>>;
    /// Takes an address off a port. No error if it is not there.
    fn remove(&self, port: PortId, address: IpAddr) -> impl Future<Output = Result<(), String>>;
}

/// What a control plane is made of.
#[derive(Debug)]
pub struct Parts<F, E, P, H> {
    /// The workers' links, by worker.
    pub links: Vec<Arc<WorkerLink<F, E>>>,
    /// What else counts drops and punts: the control thread's own. Slots are not read of these.
    pub other_counters: Vec<Arc<WorkerCounters>>,
    /// The CPUs of the workers, by worker.
    pub cores: Vec<u16>,
    /// Sessions that fit into each worker.
    pub session_capacity: Capacity,
    /// What of the gateway the rules for services and pools need to know; its ports are in the order of [`PortId`].
    pub scope: BalanceScope,
    /// Session timeouts and sysctls.
    pub settings: Settings,
    /// Settings for schedulers.
    pub scheduling: SchedulerSettings,
    /// Which real servers clients stay with.
    pub templates: Arc<Templates>,
    /// What to begin with (see [`super::persistence::restore`]).
    pub balance: BalanceConfig,
    /// Where changes are kept; none: nowhere.
    pub store: Option<StateStore>,
    /// Routes and neighbours: what is there now, and what comes.
    pub routes: watch::Receiver<Arc<RouteTable>>,
    /// The ports.
    pub ports: P,
    /// Where local addresses are put.
    pub host: H,
    /// DPDK's version.
    pub dpdk_version: String,
}

/// While tables are on their way to workers.
const EXCHANGE_INTERVAL: Duration = Duration::from_millis(1);
/// While a worker takes long.
const EXCHANGE_INTERVAL_MAX: Duration = Duration::from_millis(100);
/// While removed real servers or addresses have sessions.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(1);
/// While weights rise.
const WARM_UP_INTERVAL: Duration = Duration::from_secs(1);
/// Requests that can wait.
const JOBS: usize = 64;

/// The control plane. See the module's description.
#[derive(Debug)]
pub struct ControlPlane<F, E, P, H> {
    model: Model,
    publisher: Publisher<F, E>,
    walks: Arc<SessionWalks<F, E>>,
    counters: Vec<Arc<WorkerCounters>>,
    other_counters: Vec<Arc<WorkerCounters>>,
    cores: Vec<u16>,
    session_capacity: Capacity,
    settings: Settings,
    routes: watch::Receiver<Arc<RouteTable>>,
    ports: P,
    host: H,
    dpdk_version: String,
    started: Instant,
    jobs: mpsc::Receiver<Job>,
    jobs_sender: mpsc::Sender<Job>,
    pace: Pace,
    saving: Saving,
    exchange_due: Option<(Instant, Duration)>,
    reclaim_due: Option<Instant>,
    warm_up_due: Option<Instant>,
    busy: BusySampler,
    fullness: Fullness,
    audit: Arc<Audit>,
}

impl<F, E, P: PortReporter, H: LocalAddressHost> ControlPlane<F, E, P, H> {
    /// Builds the plane and the first snapshot. Nothing is published and no address is put anywhere yet.
    ///
    /// Refuses a balance configuration that contradicts itself or does not fit.
    pub fn new(parts: Parts<F, E, P, H>) -> Result<Self, Refusal> {
        let counters: Vec<_> = parts.links.iter().map(|link| link.counters.clone()).collect();
        let model = Model::new(parts.scope, counters.clone(), slot_limits(&counters), &parts.balance)?;
        let mut model = model.with_schedulers(parts.scheduling).with_templates(parts.templates);
        model.set_sysctls(parts.settings.sysctls);
        let mut routes = parts.routes;
        let services = Arc::new(model.compile(parts.settings.timeouts));
        let first = Arc::new(Snapshot { services, routes: routes.borrow_and_update().clone() });
        let (jobs_sender, jobs) = mpsc::channel(JOBS);
        let now = Instant::now();
        Ok(Self {
            model,
            walks: Arc::new(SessionWalks::new(&parts.links)),
            publisher: Publisher::new(parts.links, first),
            busy: BusySampler::new(&counters, now),
            fullness: Fullness::new(counters.len(), parts.session_capacity),
            counters,
            other_counters: parts.other_counters,
            cores: parts.cores,
            session_capacity: parts.session_capacity,
            settings: parts.settings,
            routes,
            ports: parts.ports,
            host: parts.host,
            dpdk_version: parts.dpdk_version,
            started: now,
            jobs,
            jobs_sender,
            pace: Pace::new(now),
            saving: Saving::new(parts.store),
            exchange_due: None,
            reclaim_due: None,
            audit: Arc::default(),
            warm_up_due: None,
        })
    }

    /// What workers are to begin with.
    pub fn first_snapshot(&self) -> Arc<Snapshot> {
        self.publisher.current().clone()
    }

    /// What asks this plane once it runs.
    pub fn handle(&self) -> ControlHandle<F, E> {
        ControlHandle::new(self.jobs_sender.clone(), self.walks.clone(), self.audit.clone())
    }

    /// Puts the local addresses that the plane begins with on their ports. At the first error, which it returns,
    /// those before it stay: the ports' TAPs go with the daemon.
    pub async fn put_local_addresses(&self) -> Result<(), String> {
        for (port, address) in self.model.local_addresses() {
            self.host.add(port, address).await.map_err(|error| self.host_error(port, address, &error))?;
        }
        Ok(())
    }

    /// Runs until `stop` is ready; then writes what is not written yet.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let deadline = self.deadline();
            tokio::select! {
                () = &mut stop => break,
                Some(job) = self.jobs.recv() => self.answer(job).await,
                Ok(()) = self.routes.changed() => {
                    let routes = self.routes.borrow_and_update().clone();
                    self.publisher.publish_routes(routes);
                    self.expect_exchange();
                }
                result = self.saving.written() => self.saving.finish(result),
                () = sleep_until(deadline) => self.tick().await,
            }
        }
        self.audit.second();
        self.saving.end(|| (self.model.to_config(), self.settings.kept.clone())).await;
    }

    async fn answer(&mut self, job: Job) {
        match job {
            Job::Request(request, by, answer) => {
                let outcome = self.request(*request, by).await.map_or_else(Outcome::Error, Outcome::Ok);
                // Who asked may have gone.
                let _ = answer.send(outcome);
            }
            Job::Services(answer) => {
                let _ = answer.send(Arc::clone(&self.publisher.current().services));
            }
            Job::Measure(answer) => {
                let _ = answer.send(self.measure());
            }
            Job::WorkerTraffic(answer) => {
                let _ = answer.send(self.model.worker_traffic());
            }
        }
    }

    async fn request(&mut self, request: Request, by: By) -> Result<Reply, Refusal> {
        if let Some(mut planned) = self.model.plan(&request) {
            if matches!(&planned, Err(refusal) if refusal.kind == ErrorKind::Limit) {
                self.reclaim().await;
                planned = self.model.plan(&request).unwrap_or(planned);
            }
            let dry_run = matches!(request, Request::Apply { dry_run: true, .. });
            return self.change(planned?, by, dry_run).await.map(Reply::Changed);
        }
        match request {
            Request::Status {} => Ok(Reply::Status(self.status())),
            Request::ServiceList { service } => self.model.service_rows(service).map(Reply::Services),
            Request::LocalList {} => Ok(Reply::LocalPools(self.model.local_pool_rows())),
            Request::SnatList {} => Ok(Reply::Snat(self.model.snat_rows())),
            Request::MarkList {} => Ok(Reply::Marks(self.model.to_config().marks)),
            Request::TimeoutsSet { tcp, tcp_fin, udp } => {
                let lines = self.settings.set_timeouts(KeptTimeouts { tcp, tcp_fin, udp })?;
                Ok(Reply::Changed(self.settings_changed(lines, by)))
            }
            Request::TimeoutsShow {} => Ok(Reply::Timeouts(self.settings.timeouts)),
            Request::SysctlSet { values } => {
                let lines = self.settings.set_sysctls(&values)?;
                Ok(Reply::Changed(self.settings_changed(lines, by)))
            }
            Request::SysctlList { names } => {
                self.settings.sysctl_rows(&names, &report::defence(&self.counters)).map(Reply::Sysctls)
            }
            Request::PortShow {} => Ok(Reply::Ports(self.ports.rows())),
            Request::WorkerShow {} => {
                Ok(Reply::Workers(report::worker_rows(&self.counters, &self.cores, self.session_capacity)))
            }
            Request::Stats {} => Ok(Reply::Stats(self.stats())),
            _ => Err(Refusal::new(ErrorKind::Internal, "this request is answered elsewhere")),
        }
    }

    /// Settings were asked to change: keeps them, and publishes those that are others now, which holds for what sessions do from
    /// the next table on.
    fn settings_changed(&mut self, lines: Vec<String>, by: By) -> Vec<String> {
        self.saving.changed();
        if lines.is_empty() {
            return vec!["no difference".to_owned()];
        }
        self.model.set_sysctls(self.settings.sysctls);
        lines.iter().for_each(|line| self.audit.changed(by, line));
        self.pace.changed();
        self.publish_if_due();
        lines
    }

    /// Does what was planned; the lines that tell what.
    async fn change(&mut self, changes: Vec<Change>, by: By, dry_run: bool) -> Result<Vec<String>, Refusal> {
        if changes.is_empty() {
            return Ok(vec!["no difference".to_owned()]);
        }
        let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
        if dry_run {
            return Ok(lines);
        }
        self.model.check_on_link(&changes, &self.routes.borrow())?;
        self.put_new_addresses(&changes).await?;
        self.model.set_time(self.started.elapsed());
        self.model.commit(changes);
        self.expect_warm_up();
        lines.iter().for_each(|line| self.audit.changed(by, line));
        self.pace.changed();
        self.publish_if_due();
        self.saving.changed();
        self.reclaim_due.get_or_insert(Instant::now() + RECLAIM_INTERVAL);
        Ok(lines)
    }

    /// New local addresses are on their ports before workers use them. All or none.
    async fn put_new_addresses(&self, changes: &[Change]) -> Result<(), Refusal> {
        let new = self.model.addresses_to_add(changes);
        for (index, &(port, address)) in new.iter().enumerate() {
            let Err(error) = self.host.add(port, address).await else { continue };
            for &(port, address) in &new[..index] {
                self.take_off(port, address).await;
            }
            return Err(Refusal::new(ErrorKind::Internal, self.host_error(port, address, &error)));
        }
        Ok(())
    }

    async fn take_off(&self, port: PortId, address: IpAddr) {
        if let Err(error) = self.host.remove(port, address).await {
            tracing::warn!("{}", self.host_error(port, address, &error));
        }
    }

    fn host_error(&self, port: PortId, address: IpAddr, error: &str) -> String {
        format!("local address {address} on port {}: {error}", self.model.port_name(port))
    }

    fn publish_if_due(&mut self) {
        let before = Instant::now();
        if self.pace.due().is_some_and(|at| before >= at) {
            let table = self.model.compile(self.settings.timeouts);
            self.publisher.publish_services(Arc::new(table));
            self.pace.made(before, Instant::now());
            self.expect_exchange();
        }
    }

    fn expect_exchange(&mut self) {
        self.exchange_due = Some((Instant::now() + EXCHANGE_INTERVAL, EXCHANGE_INTERVAL));
    }

    fn deadline(&self) -> Instant {
        let exchange = self.exchange_due.map(|(at, _)| at);
        let others = [self.pace.due(), exchange, self.saving.due(), self.reclaim_due, self.warm_up_due];
        others.into_iter().flatten().fold(self.busy.due(), Instant::min)
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        self.publish_if_due();
        if let Some((at, interval)) = self.exchange_due.filter(|(at, _)| now >= *at) {
            let next = (interval * 2).min(EXCHANGE_INTERVAL_MAX);
            self.exchange_due = if self.publisher.exchange() { None } else { Some((at.max(now) + next, next)) };
        }
        if self.reclaim_due.is_some_and(|at| now >= at) {
            self.reclaim().await;
        }
        if self.warm_up_due.is_some_and(|at| now >= at) {
            self.warm_up_due = None;
            if self.model.warm_up(self.started.elapsed()) {
                self.pace.changed();
                self.publish_if_due();
            }
            self.expect_warm_up();
        }
        if self.saving.due().is_some_and(|at| now >= at) {
            self.saving.start(self.model.to_config(), self.settings.kept.clone());
        }
        if self.busy.sample(&self.counters, now) {
            self.fullness.look(&self.counters);
            self.audit.second();
        }
    }

    fn expect_warm_up(&mut self) {
        if self.model.is_warming() {
            self.warm_up_due.get_or_insert(Instant::now() + WARM_UP_INTERVAL);
        }
    }

    async fn reclaim(&mut self) {
        self.publisher.exchange();
        let reclaimed = self.model.reclaim(self.publisher.adopted());
        if reclaimed.publish {
            self.pace.changed();
            self.publish_if_due();
        }
        for (port, address) in reclaimed.local_addresses {
            self.take_off(port, address).await;
        }
        self.reclaim_due = self.model.has_departed().then(|| Instant::now() + RECLAIM_INTERVAL);
    }

    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            dpdk: self.dpdk_version.clone(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            workers: self.counters.len(),
            sessions: self.counters.iter().map(|own| own.sessions.get() + own.ipv6_sessions.get()).sum(),
            session_capacity: (u64::from(self.session_capacity.ipv4) + u64::from(self.session_capacity.ipv6))
                * self.counters.len() as u64,
            defence: report::defence(&self.counters),
        }
    }

    fn stats(&self) -> Stats {
        let nanoseconds = self.started.elapsed().as_nanos();
        let counters = report::gateway_counters(self.counters.iter().chain(&self.other_counters));
        Stats {
            at_nanoseconds: u64::try_from(nanoseconds).unwrap_or(u64::MAX),
            ports: self.ports.rows(),
            workers: report::worker_rows(&self.counters, &self.cores, self.session_capacity),
            services: self.model.service_rows(None).unwrap_or_default(),
            snat: self.model.snat_rows(),
            persistence: self.model.persistence(counters.persistence),
            ..counters
        }
    }

    fn measure(&self) -> Measurements {
        Measurements {
            version: env!("CARGO_PKG_VERSION"),
            dpdk_version: self.dpdk_version.clone(),
            stats: self.stats(),
            local_pools: self.model.local_pool_rows(),
            busy_ratios: self.busy.ratios().to_vec(),
            state_write_failures: self.saving.failures(),
            turned_away: self.audit.turned_away_counts(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
        }
    }
}

/// As many slots as every worker has counters for.
fn slot_limits(counters: &[Arc<WorkerCounters>]) -> SlotLimits {
    let default = SlotLimits::default();
    let smallest = |of: fn(&WorkerCounters) -> usize, default: u32| {
        let least = counters.iter().map(|own| of(own)).min();
        least.map_or(default, |least| u32::try_from(least).unwrap_or(u32::MAX))
    };
    SlotLimits {
        real_servers: smallest(|own| own.real_servers.len(), default.real_servers),
        local_addresses: smallest(|own| own.local_addresses.len(), default.local_addresses),
    }
}
