//! Listing and counting sessions: walks through the workers' tables, step by step.
//!
//! A worker looks at a part of its table between bursts and answers with what it found, so that neither it nor the
//! control thread is held up by millions of sessions. Sessions that come, go or change during a walk may be missed.
//! A worker does one step at a time; walks that are under way take turns. A walk that is given up leaves its last step to come
//! back later: the next step waits for that first.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::protocol::{ErrorKind, MAX_LINE, Refusal, SessionCount, SessionFilter, SessionRow, VERSION};
use crate::session::SessionView;
use crate::worker::link::{SessionQuery, WorkerLink};

/// Sessions that a worker may give at once.
const BATCH: usize = 4096;

/// A worker that has not answered for so long is taken for stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// Walks through the sessions of all workers.
#[derive(Debug)]
pub struct SessionWalks<F, E> {
    workers: Vec<Turn<F, E>>,
}

#[derive(Debug)]
struct Turn<F, E> {
    link: Arc<WorkerLink<F, E>>,
    /// Whether a step is with the worker. Locked by the walk whose step it is.
    away: Mutex<bool>,
}

impl<F, E> SessionWalks<F, E> {
    /// Walks through the sessions of these workers.
    pub fn new(links: &[Arc<WorkerLink<F, E>>]) -> Self {
        let turn = |link: &Arc<WorkerLink<F, E>>| Turn { link: link.clone(), away: Mutex::new(false) };
        Self { workers: links.iter().map(turn).collect() }
    }

    /// The reply line to `session.list`: rows are written as they come, since there may be millions of them.
    ///
    /// Refuses with [`ErrorKind::Limit`] where they would not fit in a line.
    pub async fn list_line(&self, filter: &SessionFilter, limit: Option<usize>) -> Result<String, Refusal> {
        let mut line = format!("{{\"version\":{VERSION},\"ok\":{{\"sessions\":[");
        let (mut listed, limit) = (0_usize, limit.unwrap_or(usize::MAX));
        let mut walk = self.walk();
        'walk: while let Some((worker, views)) = walk.next().await? {
            for view in views.iter().filter(|view| matches(filter, view)) {
                if listed >= limit {
                    break 'walk;
                }
                listed += 1;
                push_row(&mut line, &row(view, worker), listed)?;
            }
        }
        line.push_str("]}}");
        Ok(line)
    }

    /// A walk through all sessions.
    pub fn walk(&self) -> Walk<'_, F, E> {
        Walk { turns: &self.workers, worker: 0, query: SessionQuery { next: 0, found: touched_batch(), done: false } }
    }

    /// How many sessions match.
    pub async fn count(&self, filter: &SessionFilter) -> Result<SessionCount, Refusal> {
        let mut count = SessionCount { by_worker: vec![0; self.workers.len()], ..SessionCount::default() };
        let mut states: BTreeMap<&'static str, u64> = BTreeMap::new();
        let mut walk = self.walk();
        while let Some((worker, views)) = walk.next().await? {
            for view in views.iter().filter(|view| matches(filter, view)) {
                count.total += 1;
                count.by_worker[worker] += 1;
                *states.entry(view.state).or_default() += 1;
            }
        }
        count.by_state = states.into_iter().map(|(state, number)| (state.to_owned(), number)).collect();
        Ok(count)
    }
}

/// A walk that is taken step by step, at its caller's pace.
#[derive(Debug)]
pub struct Walk<'w, F, E> {
    turns: &'w [Turn<F, E>],
    /// The worker that is next.
    worker: usize,
    query: SessionQuery,
}

impl<F, E> Walk<'_, F, E> {
    /// Some thousand more sessions, with the worker that has them; none: there are no more. After an error it is over.
    pub async fn next(&mut self) -> Result<Option<(usize, &[SessionView])>, Refusal> {
        let Some(turn) = self.turns.get(self.worker) else { return Ok(None) };
        let mut query = std::mem::replace(&mut self.query, SessionQuery { next: 0, found: Vec::new(), done: true });
        query.found.clear();
        self.query = turn.step(query).await?;
        let worker = self.worker;
        if self.query.done {
            self.worker += 1;
            (self.query.next, self.query.done) = (0, false);
        }
        Ok(Some((worker, &self.query.found)))
    }
}

impl<F, E> Turn<F, E> {
    /// Has the worker do a step.
    async fn step(&self, query: SessionQuery) -> Result<SessionQuery, Refusal> {
        let mut away = self.away.lock().await;
        if *away {
            self.answer().await?;
        }
        *away = true;
        if self.link.queries.push(query).is_err() {
            return Err(self.stuck());
        }
        let answer = self.answer().await?;
        *away = false;
        Ok(answer)
    }

    /// The worker's answer, waited for in sleeps: it comes within a few bursts.
    async fn answer(&self) -> Result<SessionQuery, Refusal> {
        let asked = Instant::now();
        for attempt in 0_u32.. {
            if let Some(answer) = self.link.answers.pop() {
                return Ok(answer);
            }
            if asked.elapsed() > PATIENCE {
                break;
            }
            if attempt < 4 { tokio::task::yield_now().await } else { sleep(Duration::from_millis(1)).await }
        }
        Err(self.stuck())
    }

    fn stuck(&self) -> Refusal {
        let worker = self.link.worker.index();
        let message = format!("worker {worker} has not answered for {} seconds", PATIENCE.as_secs());
        Refusal::new(ErrorKind::Internal, message)
    }
}

/// Room for a batch, in memory that is there: its pages are not for the worker to fault in.
fn touched_batch() -> Vec<SessionView> {
    let mut batch = vec![SessionView::PLACEHOLDER; BATCH];
    batch.clear();
    batch
}

fn matches(filter: &SessionFilter, view: &SessionView) -> bool {
    let SessionFilter { protocol, client, vip, real_server } = filter;
    let is_at = |wanted: &Option<SocketAddr>, end: SocketAddr| {
        wanted.is_none_or(|wanted| wanted.ip() == end.ip() && (wanted.port() == 0 || wanted.port() == end.port()))
    };
    protocol.is_none_or(|protocol| protocol == view.protocol)
        && client.is_none_or(|client| client == view.client.ip())
        && is_at(vip, view.virtual_)
        && is_at(real_server, view.real)
}

pub(super) fn row(view: &SessionView, worker: usize) -> SessionRow {
    SessionRow {
        protocol: view.protocol,
        client: view.client,
        vip: view.virtual_,
        mode: view.mode.to_owned(),
        local: view.local,
        real_server: view.real,
        state: view.state.to_owned(),
        expires_seconds: view.expires_seconds,
        worker,
    }
}

/// Adds the row that is the `number`th in its list.
pub(super) fn push_row(line: &mut String, row: &impl Serialize, number: usize) -> Result<(), Refusal> {
    let text = serde_json::to_string(row).map_err(|error| Refusal::new(ErrorKind::Internal, error.to_string()))?;
    // Room for the separator and the closing brackets.
    if line.len() + text.len() + 8 > MAX_LINE {
        let message = format!(
            "more match than fit in a reply of {MAX_LINE} bytes: give a limit of at most {}, or a filter",
            number - 1
        );
        return Err(Refusal::new(ErrorKind::Limit, message));
    }
    if number > 1 {
        line.push(',');
    }
    line.push_str(&text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Protocol;
    use crate::port::WorkerId;
    use crate::telemetry::counters::{SlotLimits, WorkerCounters};
    use crate::worker::link::{Event, Waker};

    struct NoEvent;

    impl Event for NoEvent {
        fn raise(&self) {}
    }

    fn view() -> SessionView {
        SessionView {
            protocol: Protocol::Udp,
            client: SocketAddr::from(([10, 0, 0, 1], 5000)),
            virtual_: SocketAddr::from(([10, 0, 0, 100], 53)),
            mode: "fullnat",
            local: Some(SocketAddr::from(([10, 1, 0, 200], 1024))),
            real: SocketAddr::from(([10, 1, 0, 11], 53)),
            state: "UDP",
            expires_seconds: 300,
        }
    }

    #[tokio::test]
    async fn a_walk_that_was_given_up_does_not_spoil_the_next() {
        let counters = WorkerCounters::new(SlotLimits { real_servers: 0, local_addresses: 0 });
        let link =
            Arc::new(WorkerLink::<(), NoEvent>::new(WorkerId(0), Arc::new(counters), Arc::new(Waker::new(NoEvent))));
        let walks = SessionWalks::new(std::slice::from_ref(&link));
        let filter = SessionFilter::default();
        let given_up = tokio::time::timeout(Duration::from_millis(5), walks.count(&filter)).await;
        assert!(given_up.is_err());
        // The worker answers late, to nobody: with a session that must not be counted twice.
        let mut late = link.queries.pop().unwrap();
        late.found.push(view());
        late.done = true;
        link.answers.push(late).unwrap();
        let worker = async {
            loop {
                if let Some(mut query) = link.queries.pop() {
                    assert!(query.found.is_empty() && query.found.capacity() >= BATCH);
                    query.found.push(view());
                    query.done = query.next == 2;
                    query.next += 1;
                    link.answers.push(query).unwrap();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            count = walks.count(&filter) => assert_eq!(count.unwrap().total, 3),
            () = worker => {}
        }
    }

    #[test]
    fn port_0_in_a_filter_is_any_port() {
        let filter = |vip: &str| SessionFilter { vip: vip.parse().ok(), ..SessionFilter::default() };
        assert!(matches(&filter("10.0.0.100:0"), &view()) && matches(&filter("10.0.0.100:53"), &view()));
        assert!(!matches(&filter("10.0.0.100:54"), &view()) && !matches(&filter("10.0.0.101:0"), &view()));
        assert!(!matches(&SessionFilter { protocol: Some(Protocol::Tcp), ..SessionFilter::default() }, &view()));
    }
}
