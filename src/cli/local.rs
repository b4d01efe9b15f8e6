//! `fullgate local`: local addresses (LIPs), the sources that real servers see.

use std::net::IpAddr;

use clap::{Args, Subcommand};

use super::CliError;
use super::arguments::Connection;
use super::output::{print, print_json};
use super::table::Align::{Left, Right};
use super::table::Table;
use crate::config::syntax;
use crate::control::protocol::{LocalPoolRow, Reply, Request};

/// Add, withdraw and list local addresses
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  fullgate local add lan 10.1.0.204-10.1.0.207
  fullgate local list")]
pub(super) enum Local {
    Add(Add),
    Del(Del),
    List(List),
}

/// Add local addresses to a pool
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fullgate local add lan 10.1.0.204
  fullgate local add lan 10.1.0.204-10.1.0.207 10.1.0.220")]
pub(super) struct Add {
    #[command(flatten)]
    addresses: Addresses,
    #[command(flatten)]
    connection: Connection,
}

/// Withdraw local addresses: no new session gets them, those that have them keep them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fullgate local del lan 10.1.0.204-10.1.0.207")]
pub(super) struct Del {
    #[command(flatten)]
    addresses: Addresses,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Debug, Args)]
struct Addresses {
    /// Name of the local pool
    pool: String,

    /// Addresses, and ranges of them
    #[arg(value_name = "A|A-B", required = true, value_parser = parse_range)]
    ranges: Vec<Range>,
}

/// A range in a type of its own, because clap takes a `Vec` for the whole argument.
#[derive(Clone, Debug)]
struct Range(Vec<IpAddr>);

fn parse_range(text: &str) -> Result<Range, syntax::SyntaxError> {
    syntax::address_range(text).map(Range)
}

/// List pools with their addresses and the ports in use
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fullgate local list
  fullgate local list lan --json")]
pub(super) struct List {
    /// Only this pool
    pool: Option<String>,

    #[command(flatten)]
    connection: Connection,
}

impl Local {
    pub(super) fn execute(self) -> Result<(), CliError> {
        match self {
            Self::Add(Add { addresses, connection }) => {
                let (pool, addresses) = addresses.expand();
                connection.change(&Request::LocalAdd { pool, addresses })
            }
            Self::Del(Del { addresses, connection }) => {
                let (pool, addresses) = addresses.expand();
                connection.change(&Request::LocalDel { pool, addresses })
            }
            Self::List(list) => list.execute(),
        }
    }
}

impl Addresses {
    fn expand(self) -> (String, Vec<IpAddr>) {
        (self.pool, self.ranges.into_iter().flat_map(|range| range.0).collect())
    }
}

impl List {
    fn execute(self) -> Result<(), CliError> {
        let mut pools = self.connection.ask(&Request::LocalList {}, |reply| match reply {
            Reply::LocalPools(rows) => Some(rows),
            _ => None,
        })?;
        if let Some(wanted) = self.pool {
            let names = pools.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>().join(", ");
            pools.retain(|pool| pool.name == wanted);
            if pools.is_empty() {
                return Err(CliError::Failed(format!("there is no local pool {wanted:?}; there are: {names}")));
            }
        }
        if self.connection.json { print_json(&pools) } else { print(table(&pools)) }
    }
}

fn table(pools: &[LocalPoolRow]) -> Table {
    let mut table = Table::new(&[
        ("Pool", Left),
        ("Port", Left),
        ("Ports", Left),
        ("LocalAddress", Left),
        ("PortsUsed", Right),
        ("State", Left),
    ]);
    for pool in pools {
        for address in &pool.addresses {
            table.row([
                pool.name.clone(),
                pool.port.clone(),
                pool.ports.clone(),
                address.address.to_string(),
                address.ports_used.to_string(),
                if address.withdrawn { "withdrawn" } else { "active" }.to_owned(),
            ]);
        }
    }
    table
}
