//! `fullgate local`: local addresses (LIPs), the sources that real servers see, and the pools that they are in.

use std::net::IpAddr;

use clap::{Args, Subcommand};

use super::CliError;
use super::arguments::Connection;
use super::output::{print, print_json};
use super::table::Align::{Left, Right};
use super::table::Table;
use crate::balance::PortRange;
use crate::config::{DEFAULT_PORTS, LocalPoolConfig, syntax};
use crate::control::protocol::{LocalPoolRow, Reply, Request};

/// Make and remove pools of local addresses; add, withdraw and list these
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  fullgate local create dmz --port lan 10.1.0.220-10.1.0.223
  fullgate local add lan 10.1.0.204-10.1.0.207
  fullgate local list")]
pub(super) enum Local {
    Create(Create),
    Destroy(Destroy),
    Add(Add),
    Del(Del),
    List(List),
}

/// Make a pool of local addresses
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fullgate local create dmz --port lan 10.1.0.220-10.1.0.223
  fullgate local create dmz --port lan --ports 20000-39999 10.1.0.220 2001:db8:1::220
  fullgate service edit -t 10.0.0.100:80 --local-pool dmz")]
pub(super) struct Create {
    #[command(flatten)]
    addresses: Addresses,

    /// Port that the addresses are on: they are put on its TAP
    #[arg(long, value_name = "NAME")]
    port: String,

    /// Local ports that sessions may use
    #[arg(long, value_name = "FIRST-LAST", default_value_t = DEFAULT_PORTS)]
    ports: PortRange,

    #[command(flatten)]
    connection: Connection,
}

/// Remove a pool that no service and no rule for source NAT uses; sessions keep their addresses
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fullgate local destroy dmz")]
pub(super) struct Destroy {
    /// Name of the local pool
    pool: String,

    #[command(flatten)]
    connection: Connection,
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
///
/// A pool may lose all of its addresses. New sessions of services that use it are then dropped (no_local_address) until it
/// has one again; `fullgate service list` and `fullgate local list` say so.
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
            Self::Create(Create { addresses, port, ports, connection }) => {
                let (name, addresses) = addresses.expand();
                let pool = LocalPoolConfig { name, port, addresses, ports, transient: false };
                connection.change(&Request::LocalCreate { pool })
            }
            Self::Destroy(Destroy { pool, connection }) => connection.change(&Request::LocalDestroy { pool }),
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
        // One that was removed has no ports any more, and waits for its sessions.
        if !pool.ports.is_empty() && pool.addresses.iter().all(|address| address.withdrawn) {
            let state = "no address: new sessions are dropped".to_owned();
            let none = || "-".to_owned();
            table.row([pool.name.clone(), pool.port.clone(), pool.ports.clone(), none(), none(), state]);
        }
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
