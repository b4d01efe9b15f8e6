//! `fullgate worker`: the poll loops.

use clap::{Args, Subcommand};

use super::CliError;
use super::arguments::Connection;
use super::output::{print, print_json};
use super::table::Align::{Left, Right};
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
Poll gap is the time from one poll of a worker's queues to the next, stall the part of a long one (20 us and more)
that the worker itself used, burst the time that a turn's packets took. Quantiles are upper bounds, all since the start.
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
        if show.connection.json { print_json(&rows) } else { print(format!("{}\n{}", table(&rows), times(&rows))) }
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

/// How long turns took, in microseconds, since the start.
pub(super) fn times(rows: &[WorkerRow]) -> Table {
    let columns = ["Worker", "Time/us", "Count", "p50", "p99", "p99.9", "Worst"];
    let mut table = Table::new(&columns.map(|column| (column, if column == "Time/us" { Left } else { Right })));
    for row in rows {
        for (name, durations) in [("poll gap", &row.poll_gaps), ("stall", &row.stalls), ("burst", &row.burst_times)] {
            let quantile = |per_mille| durations.quantile_nanoseconds(per_mille).map_or("-".to_owned(), microseconds);
            table.row([
                row.worker.to_string(),
                name.to_owned(),
                durations.count().to_string(),
                quantile(500),
                quantile(990),
                quantile(999),
                quantile(1000),
            ]);
        }
    }
    table
}

/// With two decimals, rounded up: a bound stays one.
fn microseconds(nanoseconds: u64) -> String {
    let hundredths = nanoseconds.div_ceil(10);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// A share in percent, with one decimal.
pub(super) fn percent(part: u64, whole: u64) -> String {
    // Tenths of a percent in whole numbers: exact, and no whole is no load.
    let tenths = u128::from(part) * 1000 / u128::from(whole.max(1));
    format!("{}.{}", tenths / 10, tenths % 10)
}
