//! `fullgate worker`: the poll loops.

use clap::{Args, Subcommand};

use super::CliError;
use super::arguments::Connection;
use super::output::{print, print_json};
use super::table::Align::Right;
use super::table::Table;
use crate::control::protocol::{Reply, Request, WorkerRow};

/// Show workers
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  fullgate worker show")]
pub(super) enum Worker {
    Show(Show),
}

/// Show workers: CPU, load, sessions, packets, hand-overs
#[derive(Debug, Args)]
#[command(after_help = "\
Busy% is the share of time since the start that was spent on packets and housekeeping;
`fullgate stats --watch` shows it as it is now.

Examples:
  fullgate worker show
  fullgate worker show --json | jq 'map(.sessions) | add'")]
pub(super) struct Show {
    #[command(flatten)]
    connection: Connection,
}

impl Worker {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let Self::Show(show) = self;
        let rows = show.connection.ask(&Request::WorkerShow {}, |reply| match reply {
            Reply::Workers(rows) => Some(rows),
            _ => None,
        })?;
        if show.connection.json { print_json(&rows) } else { print(table(&rows)) }
    }
}

/// Totals since the start.
pub(super) fn table(rows: &[WorkerRow]) -> Table {
    let mut table = Table::new(&[
        ("Worker", Right),
        ("Core", Right),
        ("Busy%", Right),
        ("Sessions", Right),
        ("Capacity", Right),
        ("Created", Right),
        ("Expired", Right),
        ("Rx-packets", Right),
        ("Tx-packets", Right),
        ("Bursts", Right),
        ("Handovers", Right),
        ("Taken-over", Right),
    ]);
    for row in rows {
        table.row([
            row.worker.to_string(),
            row.core.to_string(),
            percent(row.busy_nanoseconds, row.total_nanoseconds),
            row.sessions.to_string(),
            row.session_capacity.to_string(),
            row.sessions_created.to_string(),
            row.sessions_expired.to_string(),
            row.rx_packets.to_string(),
            row.tx_packets.to_string(),
            row.bursts.to_string(),
            row.handovers.to_string(),
            row.handovers_received.to_string(),
        ]);
    }
    table
}

/// A share in percent, with one decimal.
pub(super) fn percent(part: u64, whole: u64) -> String {
    // Tenths of a percent in whole numbers: exact, and no whole is no load.
    let tenths = u128::from(part) * 1000 / u128::from(whole.max(1));
    format!("{}.{}", tenths / 10, tenths % 10)
}
