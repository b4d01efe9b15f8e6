//! `fullgate snat`: which flows of inside networks go out, and from which local addresses.

use clap::{Args, Subcommand};

use super::CliError;
use super::arguments::{Conditions, Connection};
use super::output::{print, print_json};
use super::stats_table::traffic_cells;
use super::table::Align::{Left, Right};
use super::table::{Table, or_any};
use crate::balance::Network;
use crate::config::SnatConfig;
use crate::control::protocol::{Reply, Request, SnatRow};

/// Add, delete and list rules for source NAT
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  fullgate snat add office --source 10.1.0.0/24 --local-pool wan
  fullgate snat list")]
pub(super) enum Snat {
    Add(Add),
    Del(Del),
    List(List),
}

/// Add a rule: what matches it goes out with an address of the pool as its source
#[derive(Debug, Args)]
#[command(after_help = "\
The first rule that matches a flow counts. Only flows that leave by the pool's port match.

Examples:
  fullgate snat add office --source 10.1.0.0/24 --local-pool wan
  fullgate snat add web --source 10.1.0.0/24 --protocol tcp --destination-port 80 --local-pool web --before office
  fullgate snat add dns --source 2001:db8:1::/64 --destination 2001:db8:53::/64 --port lan --local-pool wan")]
pub(super) struct Add {
    /// Name of the rule
    name: String,

    /// Where flows come from
    #[arg(short, long, value_name = "NETWORK/PREFIX")]
    source: Network,

    #[command(flatten)]
    conditions: Conditions,

    /// Pool of local addresses that become the source
    #[arg(long, value_name = "POOL")]
    local_pool: String,

    /// Put it in front of this rule [default: last]
    #[arg(long, value_name = "NAME")]
    before: Option<String>,

    #[command(flatten)]
    connection: Connection,
}

/// Delete a rule
#[derive(Debug, Args)]
#[command(after_help = "\
Packets from inside that belong to its sessions are dropped from then on.

Examples:
  fullgate snat del office")]
pub(super) struct Del {
    /// Name of the rule
    name: String,

    #[command(flatten)]
    connection: Connection,
}

/// List rules in the order in which they are looked at
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fullgate snat list
  fullgate snat list --stats
  fullgate snat list --json | jq '.[].active_connections'")]
pub(super) struct List {
    /// Show connections, packets and bytes since the rule was added
    #[arg(long)]
    stats: bool,

    #[command(flatten)]
    connection: Connection,
}

impl Snat {
    pub(super) fn execute(self) -> Result<(), CliError> {
        match self {
            Self::Add(add) => add.execute(),
            Self::Del(Del { name, connection }) => connection.change(&Request::SnatDel { name }),
            Self::List(list) => list.execute(),
        }
    }
}

impl Add {
    fn execute(self) -> Result<(), CliError> {
        let Self { name, source, conditions, local_pool, before, connection } = self;
        let Conditions { destination, protocol, destination_port, port } = conditions;
        let rule = SnatConfig { name, source, destination, protocol, destination_port, port, local_pool };
        connection.change(&Request::SnatAdd { rule, before })
    }
}

impl List {
    fn execute(self) -> Result<(), CliError> {
        let rows = self.connection.ask(&Request::SnatList {}, |reply| match reply {
            Reply::Snat(rows) => Some(rows),
            _ => None,
        })?;
        match (self.connection.json, self.stats) {
            (true, _) => print_json(&rows),
            (false, true) => print(stats_table(&rows)),
            (false, false) => print(table(&rows)),
        }
    }
}

fn table(rows: &[SnatRow]) -> Table {
    let mut table = Table::new(&[
        ("Rule", Left),
        ("Source", Left),
        ("Destination", Left),
        ("Prot", Left),
        ("DstPort", Left),
        ("Port", Left),
        ("LocalPool", Left),
        ("ActiveConn", Right),
        ("InActConn", Right),
    ]);
    for row in rows {
        table.row([
            row.name.clone(),
            row.source.to_string(),
            or_any(row.destination),
            or_any(row.protocol.map(|protocol| protocol.name().to_uppercase())),
            or_any(row.destination_port),
            or_any(row.port.as_ref()),
            row.local_pool.clone(),
            row.active_connections.to_string(),
            row.inactive_connections.to_string(),
        ]);
    }
    table
}

/// In packets go out, out packets come back: by the client's view, as everywhere.
pub(super) fn stats_table(rows: &[SnatRow]) -> Table {
    let mut table = Table::new(&[
        ("Snat", Left),
        ("Conns", Right),
        ("InPkts", Right),
        ("OutPkts", Right),
        ("InBytes", Right),
        ("OutBytes", Right),
    ]);
    for row in rows {
        table.row(traffic_cells(row.name.clone(), &row.traffic));
    }
    table
}
