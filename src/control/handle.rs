//! How other tasks ask the control plane's task: by messages, one answer each.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::audit::{Audit, By};
use super::protocol::{ErrorKind, LocalPoolRow, Outcome, Refusal, Reply, Request, Stats, TrafficTotals};
use super::sessions::SessionWalks;
use crate::balance::ServiceTable;

/// Asks a running control plane; ends with [`ErrorKind::Internal`] once that has ended.
#[derive(Debug)]
pub struct ControlHandle<F, E> {
    jobs: mpsc::Sender<Job>,
    walks: Arc<SessionWalks<F, E>>,
    audit: Arc<Audit>,
    /// Who asks.
    by: By,
}

impl<F, E> Clone for ControlHandle<F, E> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone(), walks: self.walks.clone(), audit: self.audit.clone(), by: self.by }
    }
}

impl<F, E> ControlHandle<F, E> {
    pub(super) fn new(jobs: mpsc::Sender<Job>, walks: Arc<SessionWalks<F, E>>, audit: Arc<Audit>) -> Self {
        Self { jobs, walks, audit, by: By::Daemon }
    }

    /// The same for somebody: what he changes is logged as his doing.
    pub(super) fn by(&self, by: By) -> Self {
        Self { by, ..self.clone() }
    }

    /// Who asks.
    pub(super) fn asker(&self) -> By {
        self.by
    }

    /// What the log says of who changed what.
    pub(super) fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Does a request. `session.list` and `template.list` are refused: their replies are lines only, see
    /// [`ControlHandle::walks`] and [`ControlHandle::template_line`].
    pub async fn request(&self, request: Request) -> Outcome {
        if let Request::SessionCount { filter } = &request {
            return self
                .walks
                .count(filter)
                .await
                .map_or_else(Outcome::Error, |count| Outcome::Ok(Reply::SessionCount(count)));
        }
        let (answer, answered) = oneshot::channel();
        // Either error means that the plane has ended.
        let _ = self.jobs.send(Job::Request(Box::new(request), self.by, answer)).await;
        answered.await.unwrap_or_else(|_| Outcome::Error(Refusal::new(ErrorKind::Internal, "the gateway is stopping")))
    }

    /// Walks through the sessions.
    pub fn walks(&self) -> &SessionWalks<F, E> {
        &self.walks
    }

    /// The services that workers have, or are about to.
    pub async fn services(&self) -> Result<Arc<ServiceTable>, Refusal> {
        let (answer, answered) = oneshot::channel();
        // Either error means that the plane has ended.
        let _ = self.jobs.send(Job::Services(answer)).await;
        answered.await.map_err(|_| Refusal::new(ErrorKind::Internal, "the gateway is stopping"))
    }

    /// What each worker has carried for services; none when the plane has ended.
    pub async fn worker_traffic(&self) -> Option<Vec<TrafficTotals>> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job::WorkerTraffic(answer)).await.ok()?;
        answered.await.ok()
    }

    /// What `/metrics` is made of; none when the plane has ended.
    pub async fn measure(&self) -> Option<Measurements> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job::Measure(answer)).await.ok()?;
        answered.await.ok()
    }
}

/// What `/metrics` is made of.
#[derive(Clone, Debug, Default)]
pub struct Measurements {
    /// fullgate's version.
    pub version: &'static str,
    /// DPDK's version.
    pub dpdk_version: String,
    /// All counters.
    pub stats: Stats,
    /// The local pools.
    pub local_pools: Vec<LocalPoolRow>,
    /// By worker: the part of the last whole second that it was busy, 0-1.
    pub busy_ratios: Vec<f64>,
    /// How often the state could not be written.
    pub state_write_failures: u64,
    /// Who was turned away at the sockets: socket, reason, how often.
    pub turned_away: Vec<(&'static str, &'static str, u64)>,
    /// Seconds since the gateway started.
    pub uptime_seconds: f64,
}

/// What the plane's task is asked.
#[derive(Debug)]
pub(super) enum Job {
    Request(Box<Request>, By, oneshot::Sender<Outcome>),
    Measure(oneshot::Sender<Measurements>),
    Services(oneshot::Sender<Arc<ServiceTable>>),
    WorkerTraffic(oneshot::Sender<Vec<TrafficTotals>>),
}
