//! `fullgate mark`: which packets get a mark, by which services can be for them.

use std::num::NonZeroU32;

use clap::{Args, Subcommand};

use super::CliError;
use super::arguments::{Conditions, Connection};
use super::output::{print, print_json};
use super::table::Align::Left;
use super::table::{Table, or_any};
use crate::balance::{self, Network};
use crate::config::MarkConfig;
use crate::control::protocol::{Reply, Request};

/// Add, delete and list rules that mark packets for fwmark services
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  fullgate mark add web --fwmark 1 --destination 10.0.0.100/32 --protocol tcp --destination-port 80
  fullgate service add -f 1 -s wlc
  fullgate mark list")]
pub(super) enum Mark {
    Add(Add),
    Del(Del),
    List(List),
}

/// Add a rule: what matches it has this mark
#[derive(Debug, Args)]
#[command(after_help = "\
The first rule that matches a packet counts. A rule says where packets go, or where they enter. A
service of the packet's mark is for it before one of its address.

Examples:
  fullgate mark add web --fwmark 1 --destination 10.0.0.100/32 --protocol tcp --destination-port 80
  fullgate mark add tls --fwmark 1 --destination 10.0.0.100/32 --protocol tcp --destination-port 443
  fullgate mark add caches --fwmark 2 --port lan --protocol tcp --destination-port 80 --before web")]
pub(super) struct Add {
    /// Name of the rule
    name: String,

    /// The mark
    #[arg(short, long, value_name = "MARK")]
    fwmark: NonZeroU32,

    /// Only what comes from here [default: anywhere]
    #[arg(short, long, value_name = "NETWORK/PREFIX")]
    source: Option<Network>,

    #[command(flatten)]
    conditions: Conditions,

    /// Put it in front of this rule [default: last]
    #[arg(long, value_name = "NAME")]
    before: Option<String>,

    #[command(flatten)]
    connection: Connection,
}

/// Delete a rule
#[derive(Debug, Args)]
#[command(after_help = "\
Sessions that are set up stay with their real servers.

Examples:
  fullgate mark del web")]
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
  fullgate mark list
  fullgate mark list --json | jq '.[].fwmark'")]
pub(super) struct List {
    #[command(flatten)]
    connection: Connection,
}

impl Mark {
    pub(super) fn execute(self) -> Result<(), CliError> {
        match self {
            Self::Add(add) => add.execute(),
            Self::Del(Del { name, connection }) => connection.change(&Request::MarkDel { name }),
            Self::List(list) => list.execute(),
        }
    }
}

impl Add {
    fn execute(self) -> Result<(), CliError> {
        let Self { name, fwmark, source, conditions, before, connection } = self;
        let Conditions { destination, protocol, destination_port, port } = conditions;
        let fwmark = balance::Mark(fwmark);
        let rule = MarkConfig { name, fwmark, source, destination, protocol, destination_port, port };
        connection.change(&Request::MarkAdd { rule, before })
    }
}

impl List {
    fn execute(self) -> Result<(), CliError> {
        let rules = self.connection.ask(&Request::MarkList {}, |reply| match reply {
            Reply::Marks(rules) => Some(rules),
            _ => None,
        })?;
        if self.connection.json { print_json(&rules) } else { print(table(&rules)) }
    }
}

fn table(rules: &[MarkConfig]) -> Table {
    let columns = ["Rule", "FWMark", "Source", "Destination", "Prot", "DstPort", "Port"];
    let mut table = Table::new(&columns.map(|name| (name, Left)));
    for rule in rules {
        table.row([
            rule.name.clone(),
            rule.fwmark.to_string(),
            or_any(rule.source),
            or_any(rule.destination),
            or_any(rule.protocol.map(|protocol| protocol.name().to_uppercase())),
            or_any(rule.destination_port),
            or_any(rule.port.as_ref()),
        ]);
    }
    table
}
