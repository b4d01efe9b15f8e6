//! The daemon: everything put together, run until it is told to stop or cannot go on, and taken down in order.
//!
//! One thread runs it, asleep unless something happens: a signal, a request, a change in the kernel, a worker's
//! wake-up, a worker's end; and but for ten looks a second at the ports' links. Nothing but the workers, and JSON too long for it, runs on other threads.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::audit::By;
use super::data_plane::{DataPlane, DataPlaneError};
use super::ipvs;
use super::kept::KeptSettings;
use super::kernel_side::{KernelSide, KernelSideError, TapAddresses};
use super::persistence::{self, StateError, StateStore};
use super::plane::{ControlHandle, ControlPlane, Parts};
use super::port_report::OpenPorts;
use super::protocol::{Outcome, Refusal, Reply, Request};
use super::server;
use super::settings::Settings;
use super::socket::{ControlSocket, SocketError};
use super::wake::EventFd;
use crate::cli::RunOptions;
use crate::config::{BalanceConfig, Config, ControlConfig};
use crate::dpdk::{Eal, Mbuf};
use crate::route::RouteTable;
use crate::telemetry::http::{self, MetricsError};
use crate::worker::thread::Exit;

type Plane = ControlPlane<Mbuf, EventFd, OpenPorts, TapAddresses>;
type Handle = ControlHandle<Mbuf, EventFd>;

/// Why the gateway did not begin, or did not go on.
#[derive(Debug, thiserror::Error)]
enum DaemonError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    DataPlane(#[from] DataPlaneError),
    #[error(transparent)]
    KernelSide(#[from] KernelSideError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    // The file's own services and pools have passed the same rules before this.
    #[error(
        "the services kept in state_dir do not fit this configuration; start with --discard-state to have the file's: {0}"
    )]
    Refused(#[from] Refusal),
    #[error("{0}")]
    LocalAddress(String),
    #[error("worker {worker} on CPU {core}: {what}: the gateway ends, since its sessions are lost")]
    Worker { worker: u8, core: u16, what: String },
    #[error("{what}: {source}")]
    Io { what: &'static str, source: io::Error },
}

fn io_error(what: &'static str) -> impl Fn(io::Error) -> DaemonError {
    move |source| DaemonError::Io { what, source }
}

/// Runs the gateway; returns when it has ended.
pub fn run(config: Config, options: RunOptions) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(serve(Arc::new(config), &options)),
        Err(source) => Err(DaemonError::Io { what: "cannot start the control thread's event loop", source }),
    };
    match ended {
        Ok(()) => {
            tracing::info!("ended");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The signals that the daemon heeds.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self, DaemonError> {
        let listen = |kind| signal(kind).map_err(io_error("cannot listen to signals"));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }
}

async fn serve(config: Arc<Config>, options: &RunOptions) -> Result<(), DaemonError> {
    // Before anything is made: a signal from here on is a clean end.
    let mut signals = Signals::new()?;
    let store = StateStore::open(&config.control.state_dir)?;
    let kept = restore(&store, &config, options.discard_state)?;
    let (socket, ipvs_socket) = sockets(&config.control)?;
    let metrics = match config.control.metrics {
        Some(address) => Some(http::listen(address).await?),
        None => None,
    };
    let mut data_plane = DataPlane::open(Arc::clone(&config))?;
    let mut kernel_side = KernelSide::start(&data_plane).await?;
    // Dropped, and so ended, before what it uses.
    let mut tasks = JoinSet::new();
    let routes = kernel_side.routes(&mut tasks);
    let plane = Plane::new(parts(&config, kept, store, &data_plane, &kernel_side, routes))?;
    plane.put_local_addresses().await.map_err(DaemonError::LocalAddress)?;
    data_plane.start(&plane.first_snapshot())?;
    if let Some(listener) = metrics {
        let handle = plane.handle();
        tasks.spawn(async move {
            if let Err(error) = http::serve(listener, handle).await {
                tracing::error!("metrics are served no more: {error}");
            }
        });
    }
    data_plane.all_ready().await.map_err(|(worker, exit)| worker_error(worker.0, &exit, &config))?;
    announce(&config);

    let handle = plane.handle();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut plane = std::pin::pin!(plane.run(async {
        // Either way it is to stop.
        let _ = stopped.await;
    }));
    let outcome = tokio::select! {
        () = &mut plane => Ok(()),
        () = heed(&mut signals, &handle, &config, &options.config_path) => Ok(()),
        error = kernel_side.run() => Err(io_error("the kernel's side of the gateway broke")(error)),
        (worker, exit) = data_plane.worker_ended() => Err(worker_error(worker.0, &exit, &config)),
        served = server::serve(&socket, handle.clone()) => served.map_err(io_error("the control socket broke")),
        served = ipvs::serve(&ipvs_socket, handle.clone()) => served.map_err(io_error("the socket for IPVS's tools broke")),
    };
    notify(sd_notify::NotifyState::Stopping);
    // The plane may have ended by itself already; then nobody listens.
    let _ = stop.send(());
    plane.await;
    data_plane.stop();
    outcome
}

/// What the gateway begins with of what can be changed at run time.
fn restore(store: &StateStore, config: &Config, discard: bool) -> Result<(BalanceConfig, KeptSettings), StateError> {
    let balance = persistence::restore(store, config.balance.clone(), discard)?;
    Ok((balance, persistence::restore_settings(store, (config.timeouts, config.sysctls))?))
}

/// The sockets of the control protocol and of IPVS's tools.
fn sockets(config: &ControlConfig) -> Result<(ControlSocket, ControlSocket), SocketError> {
    let group = config.group.as_deref();
    Ok((ControlSocket::bind(&config.socket, group)?, ControlSocket::bind_for_datagrams(&config.ipvs_socket(), group)?))
}

/// What the control plane is made of.
fn parts(
    config: &Arc<Config>,
    (balance, kept): (BalanceConfig, KeptSettings),
    store: StateStore,
    data_plane: &DataPlane,
    kernel_side: &KernelSide,
    routes: watch::Receiver<Arc<RouteTable>>,
) -> Parts<Mbuf, EventFd, OpenPorts, TapAddresses> {
    let links = data_plane.links().to_vec();
    let counters = links.iter().map(|link| Arc::clone(&link.counters)).collect();
    Parts {
        links,
        other_counters: vec![Arc::clone(kernel_side.counters())],
        cores: config.worker.cores.clone(),
        session_capacity: config.session.capacity(),
        scope: config.balance_scope(),
        settings: Settings::new(config.timeouts, config.sysctls, kept),
        scheduling: config.ipvs,
        templates: Arc::clone(data_plane.templates()),
        balance,
        store: Some(store),
        routes,
        ports: OpenPorts::new(Arc::clone(data_plane.ports()), counters, kernel_side.addresses()),
        host: kernel_side.address_host(),
        dpdk_version: Eal::version(),
    }
}

/// Waits for the signal to end; reloads at each SIGHUP.
async fn heed(signals: &mut Signals, handle: &Handle, config: &Config, path: &Path) {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return tracing::info!("SIGTERM: stopping"),
            _ = signals.interrupt.recv() => return tracing::info!("SIGINT: stopping"),
            _ = signals.hang_up.recv() => reload(handle, config, path).await,
        }
    }
}

/// Makes services and local pools equal to the file's. What else has changed in it waits for a restart.
async fn reload(handle: &Handle, running: &Config, path: &Path) {
    tracing::info!("SIGHUP: reading {}", path.display());
    let wanted = match read(path) {
        Ok(wanted) => wanted,
        Err(errors) => {
            errors.iter().for_each(|error| tracing::error!("{error}"));
            return tracing::error!("nothing was changed");
        }
    };
    let sections = running.sections_changed(&wanted);
    if !sections.is_empty() {
        tracing::warn!("changes of {} take effect at the next start", sections.join(", "));
    }
    match handle.by(By::Signal("SIGHUP")).request(Request::Apply { balance: wanted.balance, dry_run: false }).await {
        Outcome::Ok(Reply::Changed(lines)) => tracing::info!("reloaded: {}", lines.join("; ")),
        Outcome::Ok(_) => {}
        Outcome::Error(refusal) => {
            refusal.message.lines().for_each(|line| tracing::error!("{line}"));
            tracing::error!("nothing was changed");
        }
    }
}

fn read(path: &Path) -> Result<Config, Vec<String>> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| vec![format!("{name}: {error}")])?;
    Config::parse(&text, &name).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn worker_error(worker: u8, exit: &Exit, config: &Config) -> DaemonError {
    let core = config.worker.cores.get(usize::from(worker)).copied().unwrap_or_default();
    let what = match exit {
        Exit::Stopped => "it stopped without being told to".to_owned(),
        Exit::NotStarted(reason) => format!("it did not start: {reason}"),
        Exit::Panicked(message) => format!("it panicked: {message}"),
    };
    DaemonError::Worker { worker, core, what }
}

/// Tells the log and systemd that traffic flows.
fn announce(config: &Config) {
    let cores: Vec<_> = config.worker.cores.iter().map(ToString::to_string).collect();
    tracing::info!(
        "running: {} ports, workers on CPUs {}, control socket {}",
        config.ports.len(),
        cores.join(","),
        config.control.socket.display()
    );
    notify(sd_notify::NotifyState::Ready);
}

/// Without systemd there is nobody to tell; with it, a failure to tell shows in its own log.
fn notify(state: sd_notify::NotifyState<'_>) {
    let _ = sd_notify::notify(&[state]);
}
