//! Templates of persistence as they are listed.
//!
//! A listing copies the table bucket by bucket, on the control thread but for a few hundred microseconds at a time, and
//! claims nothing of what workers want.

use std::net::SocketAddr;

use hashbrown::HashMap;

use super::handle::ControlHandle;
use super::protocol::{MAX_LINE, Refusal, SessionFilter, TemplateRow, VERSION};
use super::sessions::push_row;
use crate::balance::{Mark, RealServer, ServiceTable, TemplateTarget, TemplateView};
use crate::session::Tick;

/// Buckets that are copied at once.
const STEP: usize = 256;

/// The rows of a table's templates, those of some hundred buckets at a time.
pub(super) struct Listing<'t> {
    table: &'t ServiceTable,
    /// By slot.
    servers: HashMap<u32, &'t RealServer>,
    /// The bucket that is next.
    bucket: usize,
}

impl<'t> Listing<'t> {
    /// Of a table, from its beginning.
    pub fn new(table: &'t ServiceTable) -> Self {
        let servers = table.services.iter().flat_map(|service| &service.real_servers);
        Self { table, servers: servers.map(|server| (server.slot.0, server)).collect(), bucket: 0 }
    }
}

impl Iterator for Listing<'_> {
    type Item = Vec<TemplateRow>;

    fn next(&mut self) -> Option<Self::Item> {
        let (templates, end) = (&self.table.templates, self.table.templates.buckets());
        let buckets = self.bucket..end.min(self.bucket + STEP);
        self.bucket = buckets.end;
        let is_over = buckets.is_empty();
        // The time that a worker has told last.
        let (mut views, now) = (Vec::new(), templates.now());
        buckets.for_each(|bucket| templates.views(bucket, now, &mut views));
        let rows = views.iter().filter_map(|view| row(view, self.servers.get(&view.server.0)?, now)).collect();
        (!is_over).then_some(rows)
    }
}

impl<F, E> ControlHandle<F, E> {
    /// The reply line to `template.list`.
    ///
    /// Refuses with [`super::protocol::ErrorKind::Limit`] where it would be too long.
    pub async fn template_line(&self, filter: &SessionFilter, limit: Option<usize>) -> Result<String, Refusal> {
        let mut line = format!("{{\"version\":{VERSION},\"ok\":{{\"templates\":[");
        let (mut listed, limit) = (0_usize, limit.unwrap_or(usize::MAX));
        let table = self.services().await?;
        'listing: for rows in Listing::new(&table) {
            for row in rows.iter().filter(|row| matches(filter, row)) {
                if listed >= limit {
                    break 'listing;
                }
                listed += 1;
                push_row(&mut line, row, listed)?;
            }
            tokio::task::yield_now().await;
        }
        line.push_str("]}}");
        debug_assert!(line.len() <= MAX_LINE);
        Ok(line)
    }
}

/// The rows of all templates.
pub fn rows(table: &ServiceTable) -> Vec<TemplateRow> {
    Listing::new(table).flatten().collect()
}

/// As IPVS shows it: the real server's port where the template is for one port, else 0.
fn row(view: &TemplateView, server: &RealServer, now: Tick) -> Option<TemplateRow> {
    let target = view.key.target()?;
    let (protocol, vip, mark) = match target {
        TemplateTarget::Virtual(key) => (Some(key.protocol), Some(key.vip()), None),
        TemplateTarget::Mark(mark) => (None, None, Some(mark)),
    };
    let is_of_one_port = vip.is_some_and(|vip| vip.ports.one().is_some());
    Some(TemplateRow {
        protocol,
        client: view.key.network(),
        vip,
        mark: mark.map(Mark::number),
        mode: server.mode,
        real_server: SocketAddr::new(server.address, if is_of_one_port { server.port } else { 0 }),
        connections: view.connections,
        state: if view.is_assured { "ASSURED" } else { "NONE" }.to_owned(),
        expires_seconds: view.expires.since(now).div_ceil(Tick::PER_SECOND),
    })
}

fn matches(filter: &SessionFilter, row: &TemplateRow) -> bool {
    let SessionFilter { protocol, client, vip, real_server } = *filter;
    protocol.is_none_or(|protocol| row.protocol == Some(protocol))
        && client.is_none_or(|client| client == row.client)
        && vip.is_none_or(|wanted| {
            row.vip.is_some_and(|vip| {
                vip.address == wanted.ip() && (wanted.port() == 0 || vip.ports.contains(wanted.port()))
            })
        })
        && real_server.is_none_or(|wanted| {
            wanted.ip() == row.real_server.ip() && [0, row.real_server.port()].contains(&wanted.port())
        })
}
