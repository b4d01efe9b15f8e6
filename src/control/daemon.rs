//! The daemon: everything put together, run until it is told to stop or cannot go on, and taken down in order.
//!
//! One thread runs it, asleep unless something happens: a signal, a request, a change in the kernel, a worker's
//! wake-up, a worker's end.

use std::process::ExitCode;
use std::sync::Arc;

use tokio::sync::watch;

use super::data_plane::{DataPlane, Link};
use super::mirror::{Mirror, MirroredPort};
use super::model::Model;
use super::publish::Publisher;
use super::pump::{self, ControlCounters};
use super::twin::{Twin, TwinPort};
use super::wake::{EventFd, Sleeper};
use crate::cli::RunOptions;
use crate::config::Config;
use crate::dpdk::Mbuf;
use crate::route::{RouteInput, RouteTable};
use crate::telemetry::counters::SlotLimits;
use crate::worker::link::Snapshot;

type AnyError = Box<dyn std::error::Error>;

/// Runs the gateway; returns when it has ended.
pub fn run(config: Config, _options: RunOptions) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match runtime.block_on(serve(Arc::new(config))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Arc<Config>) -> Result<(), AnyError> {
    let mut plane = DataPlane::open(Arc::clone(&config))?;
    let ports = Arc::clone(plane.ports());
    let mut twins = Vec::new();
    for (port, config) in ports.iter().zip(&config.ports) {
        twins.push(TwinPort { port: port.id(), config, mac: port.mac(), mtu: port.mtu()? });
    }
    let mut twin = Twin::create(&twins).await?;
    let mirrored: Vec<_> =
        twin.taps().map(|(port, tap, mtu)| MirroredPort { port, ifindex: tap.ifindex(), mtu }).collect();
    let mirror = Mirror::start(&mirrored).await?;
    let mut input = mirror.subscribe();
    let links: Vec<Arc<Link>> = plane.links().to_vec();
    let counters = links.iter().map(|link| Arc::clone(&link.counters)).collect();
    let names = config.ports.iter().map(|port| port.name.clone()).collect();
    let mut model = Model::new(names, counters, SlotLimits::default(), &config.balance)?;
    for (port, address) in model.local_addresses() {
        twin.add_local_address(port, address).await?;
    }
    let routes = Arc::new(RouteTable::new(&input.borrow_and_update(), None));
    let first = Arc::new(Snapshot { services: Arc::new(model.compile(config.timeouts)), routes });
    let mut publisher = Publisher::new(links.clone(), Arc::clone(&first));
    plane.start(&first)?;
    let counters = Arc::new(ControlCounters::default());
    let pool = plane.pool().clone();
    let source = Arc::new(move |bytes: &[u8]| pool.copy_from(bytes));
    let mut tasks = tokio::task::JoinSet::new();
    for (port, tap, _) in twin.taps() {
        let (links, source) = (Arc::clone(plane.links()), Arc::clone(&source));
        tasks.spawn(pump::inject(Arc::clone(tap), port, links, source, Arc::clone(&counters)));
    }
    let sleeper = Sleeper::new(Arc::clone(&links[0].waker))?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tracing::info!("running");
    loop {
        let has_work = || links.iter().any(|link| !link.punts.is_empty() || !link.unresolved.is_empty() || !link.retired.is_empty());
        tokio::select! {
            _ = terminate.recv() => break,
            _ = input.changed() => {
                let routes = RouteTable::new(&input.borrow_and_update(), Some(&publisher.current().routes));
                publisher.publish_routes(Arc::new(routes));
            }
            woken = sleeper.woken(has_work) => {
                woken?;
                pump::write_punts(&twin, &links, &counters);
                for link in &links {
                    while let Some(hop) = link.unresolved.pop() { mirror.resolve(hop); }
                }
                publisher.exchange();
                tokio::task::yield_now().await;
            }
            (worker, exit) = plane.worker_ended() => {
                tracing::error!("worker {}: {exit:?}", worker.0);
                break;
            }
        }
    }
    drop(tasks);
    plane.stop();
    Ok(())
}
