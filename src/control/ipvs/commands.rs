//! IPVS's commands as requests of the control protocol, with the errors that the kernel has for what goes wrong.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{MissedTickBehavior, interval};

use super::entries;
use super::rates::{Rates, name};
use crate::balance::{ForwardingMode, MssClamp, SchedulerKind, Weight};
use crate::config::{RealServerConfig, ServiceConfig};
use crate::control::audit::{Audit, By};
use crate::control::plane::ControlHandle;
use crate::control::protocol::{
    ErrorKind, Outcome, RealServerEdit, RealServerRow, Refusal, Reply, Request, ServiceName, ServiceRow, TrafficTotals,
};
use crate::control::sessions;
use crate::control::templates::Listing;
use crate::ipvs::{
    Answer, Command, Daemon, Destination, DestinationEntry, Errno, Service, ServiceEntry, ServiceId, Stats, Timeouts,
    proc_net, rates, service_flags,
};

/// What IPVS calls the size of its connection table. The gateway's has no buckets to speak of; this is the kernel's
/// usual number.
const CONNECTION_TABLE_SIZE: u32 = 4096;

/// Does what IPVS's tools ask for.
pub(super) struct Director<F, E> {
    handle: ControlHandle<F, E>,
    rates: Arc<Rates>,
    /// keepalived starts one to synchronise connections, and lists it. There is no such daemon here: it is remembered
    /// and does nothing.
    daemons: Arc<Mutex<Vec<Daemon>>>,
}

/// The error for what a request of the control protocol is refused for.
fn errno(refusal: &Refusal, not_found: Errno) -> Errno {
    match refusal.kind {
        ErrorKind::NotFound => not_found,
        ErrorKind::Exists => Errno::Exists,
        ErrorKind::Invalid | ErrorKind::Conflict | ErrorKind::Version => Errno::Invalid,
        ErrorKind::Limit => Errno::NoSpace,
        ErrorKind::Permission => Errno::NotPermitted,
        // ipvsadm: "Cannot assign requested address".
        ErrorKind::OwnAddress => Errno::AddressNotAvailable,
        ErrorKind::Internal => Errno::Failed,
    }
}

impl<F, E> Director<F, E> {
    pub(super) fn new(handle: ControlHandle<F, E>) -> Self {
        Self { handle, rates: Arc::default(), daemons: Arc::default() }
    }

    /// The same for somebody.
    pub(super) fn of(&self, by: By) -> Self {
        Self { handle: self.handle.by(by), rates: Arc::clone(&self.rates), daemons: Arc::clone(&self.daemons) }
    }

    pub(super) fn audit(&self) -> &Audit {
        self.handle.audit()
    }

    /// The error for a refusal. Its message goes into the log: a tool shows a number's text only.
    fn refused(&self, refusal: &Refusal, not_found: Errno) -> Errno {
        self.audit().refused(self.handle.asker(), refusal);
        errno(refusal, not_found)
    }

    /// Puts into the log what is changed for tools only.
    fn changed(&self, line: &str) {
        self.audit().changed(self.handle.asker(), line);
    }

    pub(super) fn connection_table_size(&self) -> u32 {
        CONNECTION_TABLE_SIZE
    }

    /// Keeps the rates, for ever.
    pub(super) async fn keep_rates(&self) {
        let mut ticks = interval(rates::INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            if let (Ok(rows), Ok(total)) = (self.rows().await, self.total_traffic().await) {
                self.rates.sample(&rows, &total);
            }
        }
    }

    /// Does a command.
    pub(super) async fn execute(&self, command: &Command) -> Result<Answer, Errno> {
        match command {
            Command::AddService(service) => self.add_service(service).await,
            Command::EditService(service) => self.edit_service(service).await,
            Command::DeleteService(id) => self.delete_service(entries::name_of(id)?).await,
            Command::ListServices => {
                let rows = self.rows().await?;
                Ok(Answer::Services(rows.iter().filter_map(|row| self.service_entry(row)).collect()))
            }
            Command::GetService(id) => {
                self.service_entry(&self.row(id).await?).map(Answer::Service).ok_or(Errno::NoService)
            }
            Command::AddDestination(id, new) => self.add_destination(id, new).await,
            Command::EditDestination(id, new) => self.edit_destination(id, new).await,
            Command::DeleteDestination(id, address) => self.delete_destination(id, *address).await,
            // A dump for a service that there is not is an empty one.
            Command::ListDestinations(id) => Ok(Answer::Destinations(match self.row(id).await {
                Ok(row) => self.destination_entries(&row),
                Err(_) => Vec::new(),
            })),
            Command::StartDaemon(_) | Command::StopDaemon(_) | Command::ListDaemons => self.daemon(command),
            Command::SetTimeouts(timeouts) => self.set_timeouts(*timeouts).await,
            Command::GetTimeouts => self.timeouts().await.map(Answer::Timeouts),
            Command::GetInfo => Ok(Answer::Info { connection_table_size: CONNECTION_TABLE_SIZE }),
            Command::Zero(id) => self.zero(id.as_ref()).await,
            Command::Flush => self.flush().await,
        }
    }

    async fn ask(&self, request: Request, not_found: Errno) -> Result<Reply, Errno> {
        match self.handle.request(request).await {
            Outcome::Ok(reply) => Ok(reply),
            Outcome::Error(refusal) => Err(self.refused(&refusal, not_found)),
        }
    }

    async fn change(&self, request: Request, not_found: Errno) -> Result<Answer, Errno> {
        self.ask(request, not_found).await.map(|_| Answer::Done)
    }

    async fn list(&self, service: Option<ServiceName>) -> Result<Vec<ServiceRow>, Errno> {
        // Not by `ask`: to look for what there is not is no reason for a line in the log.
        match self.handle.request(Request::ServiceList { service }).await {
            Outcome::Ok(Reply::Services(rows)) => Ok(rows),
            Outcome::Error(refusal) if refusal.kind == ErrorKind::NotFound => Err(Errno::NoService),
            Outcome::Ok(_) | Outcome::Error(_) => Err(Errno::Failed),
        }
    }

    async fn rows(&self) -> Result<Vec<ServiceRow>, Errno> {
        self.list(None).await
    }

    async fn row(&self, id: &ServiceId) -> Result<ServiceRow, Errno> {
        let name = entries::name_of(id).map_err(|_| Errno::NoService)?;
        self.list(Some(name)).await?.pop().ok_or(Errno::NoService)
    }

    /// None: IPVS has no such services.
    fn service_entry(&self, row: &ServiceRow) -> Option<ServiceEntry> {
        entries::service(row, self.rates.of_service(row))
    }

    /// The newest first, as the kernel lists them.
    fn destination_entries(&self, row: &ServiceRow) -> Vec<DestinationEntry> {
        let stats = |real: &RealServerRow| self.rates.of_real_server(name(row), real.address, &real.traffic);
        row.real_servers.iter().rev().map(|real| entries::destination(real, stats(real))).collect()
    }

    async fn add_service(&self, service: &Service) -> Result<Answer, Errno> {
        let name = entries::name_of(&service.id)?;
        if self.list(Some(name)).await.is_ok() {
            return Err(Errno::Exists);
        }
        entries::check(service)?;
        let scheduler = scheduler_of(service)?;
        let flags = service.flags & service.flags_mask;
        let mode = entries::masquerading(flags);
        let (persistence, persistence_prefix) = entries::persistence(service, flags)?;
        let config = ServiceConfig {
            vip: name.vip,
            protocol: name.protocol,
            scheduler,
            scheduler_flags: entries::scheduler_flags(scheduler, flags)?,
            mode,
            mss_clamp: MssClamp::default(),
            persistence,
            persistence_prefix,
            one_packet: entries::one_packet(flags),
            max_connections: 0,
            slow_start: 0,
            local_pool: String::new(),
            real_servers: Vec::new(),
        };
        self.rates.forget(name, None);
        self.change(Request::ServiceAdd { service: config }, Errno::NoService).await
    }

    async fn edit_service(&self, service: &Service) -> Result<Answer, Errno> {
        let row = self.row(&service.id).await?;
        entries::check(service)?;
        let scheduler = scheduler_of(service)?;
        let before = entries::flags(&row);
        let after = (before & !service.flags_mask) | (service.flags & service.flags_mask);
        let mode = ((before ^ after) & service_flags::SCHEDULER_3 != 0).then(|| entries::masquerading(after));
        let (persistence, persistence_prefix) = entries::persistence(service, after)?;
        let service = name(&row);
        let scheduler_flags = Some(entries::scheduler_flags(scheduler, after)?);
        let scheduler = Some(scheduler);
        let edit = Request::ServiceEdit {
            service,
            scheduler,
            scheduler_flags,
            mode,
            local_pool: None,
            mss_clamp: None,
            persistence: Some(persistence),
            persistence_prefix,
            one_packet: Some(entries::one_packet(after)),
            max_connections: None,
            slow_start: None,
        };
        self.change(edit, Errno::NoService).await?;
        let Some(mode) = mode else { return Ok(Answer::Done) };
        // What masquerades does so in the new way.
        let masquerades = |mode| [ForwardingMode::Nat, ForwardingMode::Fullnat].contains(&mode);
        for real_server in row.real_servers.iter().filter(|real| masquerades(real.mode)) {
            let set = RealServerEdit { mode: Some(mode), ..RealServerEdit::default() };
            let edit = Request::RealEdit { service, address: real_server.address, set };
            self.change(edit, Errno::NoEntry).await?;
        }
        Ok(Answer::Done)
    }

    async fn delete_service(&self, service: ServiceName) -> Result<Answer, Errno> {
        let done = self.change(Request::ServiceDel { service }, Errno::NoService).await?;
        self.rates.forget(service, None);
        Ok(done)
    }

    async fn add_destination(&self, id: &ServiceId, new: &Destination) -> Result<Answer, Errno> {
        let row = self.row(id).await?;
        check_numbers(new)?;
        let (mode, tunnel) = entries::way_of(new, &row)?;
        let real_server = RealServerConfig {
            address: SocketAddr::new(new.address, new.port),
            mode: (mode != row.mode).then_some(mode),
            tunnel,
            weight: weight_of(new)?,
            upper_threshold: new.upper_threshold,
            lower_threshold: new.lower_threshold,
        };
        self.rates.forget(name(&row), Some(real_server.address));
        self.change(Request::RealAdd { service: name(&row), real_server }, Errno::NoEntry).await
    }

    async fn edit_destination(&self, id: &ServiceId, new: &Destination) -> Result<Answer, Errno> {
        let row = self.row(id).await?;
        check_numbers(new)?;
        let (mode, tunnel) = entries::way_of(new, &row)?;
        let set = RealServerEdit {
            mode: Some(mode),
            tunnel,
            weight: Some(weight_of(new)?),
            upper_threshold: Some(new.upper_threshold),
            lower_threshold: Some(new.lower_threshold),
        };
        let address = SocketAddr::new(new.address, new.port);
        self.change(Request::RealEdit { service: name(&row), address, set }, Errno::NoEntry).await
    }

    async fn delete_destination(&self, id: &ServiceId, (address, port): (IpAddr, u16)) -> Result<Answer, Errno> {
        let service = name(&self.row(id).await?);
        let address = SocketAddr::new(address, port);
        let done = self.change(Request::RealDel { service, address }, Errno::NoEntry).await?;
        self.rates.forget(service, Some(address));
        Ok(done)
    }

    /// A master and a backup can be there at once, each once.
    fn daemon(&self, command: &Command) -> Result<Answer, Errno> {
        let mut daemons = self.daemons.lock().unwrap_or_else(PoisonError::into_inner);
        let place = |daemons: &[Daemon], wanted: &Daemon| daemons.iter().position(|one| one.state == wanted.state);
        match command {
            Command::StartDaemon(wanted) if place(&daemons, wanted).is_some() => return Err(Errno::Exists),
            Command::StartDaemon(wanted) => {
                tracing::warn!("connections are not synchronised: the daemon on {} does nothing", wanted.interface);
                daemons.push(wanted.clone());
            }
            Command::StopDaemon(wanted) => {
                let place = place(&daemons, wanted).ok_or(Errno::NoService)?;
                daemons.remove(place);
            }
            _ => return Ok(Answer::Daemons(daemons.clone())),
        }
        Ok(Answer::Done)
    }

    async fn timeouts(&self) -> Result<Timeouts, Errno> {
        match self.ask(Request::TimeoutsShow {}, Errno::Failed).await? {
            Reply::Timeouts(timeouts) => {
                Ok(Timeouts { tcp: timeouts.tcp, tcp_fin: timeouts.tcp_fin, udp: timeouts.udp })
            }
            _ => Err(Errno::Failed),
        }
    }

    async fn set_timeouts(&self, wanted: Timeouts) -> Result<Answer, Errno> {
        let given = |seconds: u32| (seconds != 0).then_some(seconds);
        let (tcp, tcp_fin, udp) = (given(wanted.tcp), given(wanted.tcp_fin), given(wanted.udp));
        self.change(Request::TimeoutsSet { tcp, tcp_fin, udp }, Errno::Failed).await
    }

    async fn zero(&self, id: Option<&ServiceId>) -> Result<Answer, Errno> {
        match id {
            Some(id) => {
                let row = self.row(id).await?;
                self.changed(&format!("service {} {}: counters set to zero for IPVS's tools", row.protocol, row.vip));
                self.rates.zero(&[row]);
            }
            None => {
                self.rates.zero(&self.rows().await?);
                self.rates.zero_total(&self.total_traffic().await?);
                self.changed("all services: counters set to zero for IPVS's tools");
            }
        }
        Ok(Answer::Done)
    }

    async fn flush(&self) -> Result<Answer, Errno> {
        for row in self.rows().await? {
            match self.delete_service(name(&row)).await {
                // Somebody else was quicker.
                Ok(_) | Err(Errno::NoService) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(Answer::Done)
    }

    /// All services, each with its real servers.
    pub(super) async fn services_with_destinations(&self) -> Result<Vec<(ServiceEntry, Vec<DestinationEntry>)>, Errno> {
        let rows = self.rows().await?;
        let listed = rows.iter().filter_map(|row| Some((self.service_entry(row)?, self.destination_entries(row))));
        Ok(listed.collect())
    }

    /// The counters of all services together, those that are gone included, as the kernel's `tot_stats`.
    pub(super) async fn total(&self) -> Result<Stats, Errno> {
        Ok(self.rates.of_total(&self.total_traffic().await?))
    }

    async fn total_traffic(&self) -> Result<TrafficTotals, Errno> {
        let workers = self.handle.worker_traffic().await.ok_or(Errno::Failed)?;
        Ok(workers.into_iter().sum())
    }

    /// The counters of each worker, which never go back, as the kernel's of each CPU.
    pub(super) async fn by_worker(&self) -> Result<Vec<Stats>, Errno> {
        let traffic = self.handle.worker_traffic().await.ok_or(Errno::Failed)?;
        Ok(traffic.iter().map(entries::stats).collect())
    }

    /// Writes `/proc/net/ip_vs_conn`, as fast as it is taken: there may be millions of lines.
    pub(super) async fn write_connections(&self, out: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let refused = |refusal: Refusal| {
            self.refused(&refusal, Errno::Failed);
            io::Error::other(refusal.message)
        };
        out.write_all(proc_net::CONNECTIONS_HEAD.as_bytes()).await?;
        let mut walk = self.handle.walks().walk();
        while let Some((worker, views)) = walk.next().await.map_err(refused)? {
            let rows = views.iter().filter_map(|view| entries::connection(sessions::row(view, worker)));
            let lines: String = rows.map(|row| proc_net::connection(&row)).collect();
            out.write_all(lines.as_bytes()).await?;
        }
        let table = self.handle.services().await.map_err(refused)?;
        for rows in Listing::new(&table) {
            let lines: String = rows.iter().map(|row| proc_net::connection(&entries::template(row))).collect();
            out.write_all(lines.as_bytes()).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// The scheduler of a name; ipvsadm shows ENOENT as an unknown one.
fn scheduler_of(service: &Service) -> Result<SchedulerKind, Errno> {
    service.scheduler.parse().map_err(|_| Errno::NoEntry)
}

/// The rules that the kernel has for a real server's numbers (`ip_vs_add_dest`).
fn check_numbers(destination: &Destination) -> Result<(), Errno> {
    if destination.weight < 0 || destination.lower_threshold > destination.upper_threshold {
        return Err(Errno::OutOfRange);
    }
    Ok(())
}

fn weight_of(destination: &Destination) -> Result<Weight, Errno> {
    let weight = u32::try_from(destination.weight).map_err(|_| Errno::OutOfRange)?;
    if weight > Weight::MAX { Err(Errno::OutOfRange) } else { Ok(Weight(weight)) }
}
