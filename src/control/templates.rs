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

impl<F, E> ControlHandle<F, E> {
    /// Shows `visit` the row of every template that matches; the first error that it returns ends the walk.
    pub async fn each_template<X>(
        &self,
        filter: &SessionFilter,
        mut visit: impl FnMut(TemplateRow) -> Result<(), X>,
    ) -> Result<Result<(), X>, Refusal> {
        let table = self.services().await?;
        let servers = servers(&table);
        let mut views = Vec::new();
        for bucket in 0..table.templates.buckets() {
            table.templates.views(bucket, table.templates.now(), &mut views);
            if bucket % STEP == 0 {
                tokio::task::yield_now().await;
            }
            for view in views.drain(..) {
                let server = servers.get(&view.server.0);
                let Some(row) = server.and_then(|server| row(&view, server, table.templates.now())) else { continue };
                if matches(filter, &row)
                    && let Err(error) = visit(row)
                {
                    return Ok(Err(error));
                }
            }
        }
        Ok(Ok(()))
    }

    /// The reply line to `template.list`.
    ///
    /// Refuses with [`super::protocol::ErrorKind::Limit`] where it would be too long.
    pub async fn template_line(&self, filter: &SessionFilter, limit: Option<usize>) -> Result<String, Refusal> {
        let mut line = format!("{{\"version\":{VERSION},\"ok\":{{\"templates\":[");
        let (mut listed, limit) = (0_usize, limit.unwrap_or(usize::MAX));
        let visit = |row: TemplateRow| {
            if listed >= limit {
                return Err(None);
            }
            listed += 1;
            push_row(&mut line, &row, listed).map_err(Some)
        };
        if let Err(Some(refusal)) = self.each_template(filter, visit).await? {
            return Err(refusal);
        }
        line.push_str("]}}");
        debug_assert!(line.len() <= MAX_LINE);
        Ok(line)
    }
}

/// The rows of all templates at the time that a worker has told last.
pub fn rows(table: &ServiceTable) -> Vec<TemplateRow> {
    let (servers, now) = (servers(table), table.templates.now());
    let mut views = Vec::new();
    (0..table.templates.buckets()).for_each(|bucket| table.templates.views(bucket, now, &mut views));
    views.iter().filter_map(|view| row(view, servers.get(&view.server.0)?, now)).collect()
}

/// By slot, the real servers whose templates are any.
fn servers(table: &ServiceTable) -> HashMap<u32, &RealServer> {
    let servers = table.services.iter().flat_map(|service| &service.real_servers);
    servers.map(|server| (server.slot.0, server)).collect()
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
