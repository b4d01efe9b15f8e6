//! `fullgate session`: what is under way.

use std::net::IpAddr;

use clap::{Args, Subcommand};

use super::CliError;
use super::arguments::{AddressAndPort, Connection, protocol};
use super::output::{complain, print, print_json};
use super::table::Align::{Left, Right};
use super::table::Table;
use crate::balance::Protocol;
use crate::control::protocol::{Reply, Request, SessionCount, SessionFilter, SessionRow, TemplateRow};

/// List and count sessions
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  fullgate session list --client 192.0.2.7
  fullgate session count --vip 10.0.0.100:80")]
pub(super) enum Session {
    List(List),
    Count(Count),
    Templates(Templates),
}

/// List sessions: client, virtual address, local address, real server
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fullgate session list --limit 20
  fullgate session list --protocol tcp --vip 10.0.0.100:80
  fullgate session list --real-server 10.1.0.11 --json")]
pub(super) struct List {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    connection: Connection,
}

/// List templates of persistence: which real server clients stay with
#[derive(Debug, Args)]
#[command(after_help = "\
A template is for a client, or for a network of clients whose first address is shown. It ends when its
time is over and it has no session.

Examples:
  fullgate session templates --client 192.0.2.7
  fullgate session templates --real-server 10.1.0.11 --json")]
pub(super) struct Templates {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    connection: Connection,
}

/// Count sessions by state and worker
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fullgate session count
  fullgate session count --protocol udp --json")]
pub(super) struct Count {
    #[command(flatten)]
    filter: Filter,

    #[command(flatten)]
    connection: Connection,
}

/// Which of them, and how many
#[derive(Clone, Debug, Args)]
struct Which {
    #[command(flatten)]
    filter: Filter,

    /// List at most this many [default: all]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl Which {
    /// As the protocol has it. More than memory can number is no limit.
    fn asked(self) -> (SessionFilter, Option<usize>) {
        (self.filter.into(), self.limit.and_then(|limit| usize::try_from(limit).ok()))
    }
}

/// Which sessions; several conditions must all hold
#[derive(Clone, Debug, Args)]
struct Filter {
    /// Only this protocol
    #[arg(long, value_parser = protocol())]
    protocol: Option<Protocol>,

    /// Only this client
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,

    /// Only this virtual address; without a port, all its ports
    #[arg(long, value_name = "VIP[:PORT]")]
    vip: Option<AddressAndPort>,

    /// Only this real server; without a port, all its ports
    #[arg(short = 'r', long, value_name = "RIP[:PORT]")]
    real_server: Option<AddressAndPort>,
}

impl From<Filter> for SessionFilter {
    fn from(filter: Filter) -> Self {
        // Port 0 stands for every port.
        let address = |address: AddressAndPort| address.or_port(0);
        Self {
            protocol: filter.protocol,
            client: filter.client,
            vip: filter.vip.map(address),
            real_server: filter.real_server.map(address),
        }
    }
}

impl Session {
    pub(super) fn execute(self) -> Result<(), CliError> {
        match self {
            Self::List(list) => list.execute(),
            Self::Count(count) => count.execute(),
            Self::Templates(templates) => templates.execute(),
        }
    }
}

impl List {
    fn execute(self) -> Result<(), CliError> {
        let (filter, limit) = self.which.asked();
        let request = Request::SessionList { filter, limit };
        let rows = self.connection.ask(&request, |reply| match reply {
            Reply::Sessions(rows) => Some(rows),
            _ => None,
        })?;
        if self.connection.json { print_json(&rows) } else { print_up_to(limit, rows.len(), table(&rows)) }
    }
}

/// Prints a table of so many rows, and says so where that may not be all.
fn print_up_to(limit: Option<usize>, rows: usize, table: Table) -> Result<(), CliError> {
    print(table)?;
    if limit == Some(rows) {
        complain(&format!("the first {rows} only, by --limit; there may be more"));
    }
    Ok(())
}

fn table(rows: &[SessionRow]) -> Table {
    let mut table = Table::new(&[
        ("Prot", Left),
        ("Client", Left),
        ("Virtual", Left),
        ("Forward", Left),
        ("Local", Left),
        ("RealServer", Left),
        ("State", Left),
        ("Expires", Right),
        ("Worker", Right),
    ]);
    for row in rows {
        table.row([
            row.protocol.name().to_uppercase(),
            row.client.to_string(),
            row.vip.to_string(),
            row.mode.clone(),
            row.local.map_or_else(|| "-".to_owned(), |local| local.to_string()),
            row.real_server.to_string(),
            row.state.clone(),
            expiry(row.expires_seconds),
            row.worker.to_string(),
        ]);
    }
    table
}

impl Templates {
    fn execute(self) -> Result<(), CliError> {
        let (filter, limit) = self.which.asked();
        let request = Request::TemplateList { filter, limit };
        let rows = self.connection.ask(&request, |reply| match reply {
            Reply::Templates(rows) => Some(rows),
            _ => None,
        })?;
        if self.connection.json { print_json(&rows) } else { print_up_to(limit, rows.len(), template_table(&rows)) }
    }
}

fn template_table(rows: &[TemplateRow]) -> Table {
    let mut table = Table::new(&[
        ("Prot", Left),
        ("Client", Left),
        ("Virtual", Left),
        ("Forward", Left),
        ("RealServer", Left),
        ("State", Left),
        ("Sessions", Right),
        ("Expires", Right),
    ]);
    for row in rows {
        let mark = || row.mark.map_or_else(|| "-".to_owned(), |mark| format!("mark {mark}"));
        table.row([
            row.protocol.map_or_else(|| "IP".to_owned(), |protocol| protocol.name().to_uppercase()),
            row.client.to_string(),
            row.vip.map_or_else(mark, |vip| vip.to_string()),
            row.mode.to_string(),
            row.real_server.to_string(),
            row.state.clone(),
            row.connections.to_string(),
            expiry(row.expires_seconds),
        ]);
    }
    table
}

/// Minutes and seconds, as ipvsadm prints them.
fn expiry(seconds: u32) -> String {
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}

impl Count {
    fn execute(self) -> Result<(), CliError> {
        let request = Request::SessionCount { filter: self.filter.into() };
        let count = self.connection.ask(&request, |reply| match reply {
            Reply::SessionCount(count) => Some(count),
            _ => None,
        })?;
        if self.connection.json { print_json(&count) } else { print(count_table(&count)) }
    }
}

fn count_table(count: &SessionCount) -> Table {
    let mut table = Table::new(&[("Group", Left), ("Sessions", Right)]);
    table.row(["total".to_owned(), count.total.to_string()]);
    for (state, sessions) in &count.by_state {
        table.row([format!("state {state}"), sessions.to_string()]);
    }
    for (worker, sessions) in count.by_worker.iter().enumerate() {
        table.row([format!("worker {worker}"), sessions.to_string()]);
    }
    table
}
