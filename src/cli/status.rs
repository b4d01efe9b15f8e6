//! `fullgate status`: is the gateway there, and how is it?

use clap::Args;

use super::CliError;
use super::arguments::Connection;
use super::output::{print, print_json};
use crate::control::protocol::{Reply, Request, Status as StatusReply};

/// Show whether the gateway runs: version, uptime, workers, sessions
#[derive(Debug, Args)]
#[command(after_help = "\
The exit status is 3 where no daemon listens on the socket.

Examples:
  fullgate status
  fullgate status --json | jq .uptime_seconds")]
pub(super) struct Status {
    #[command(flatten)]
    connection: Connection,
}

impl Status {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let status = self.connection.ask(&Request::Status {}, |reply| match reply {
            Reply::Status(status) => Some(status),
            _ => None,
        })?;
        if self.connection.json { print_json(&status) } else { print(describe(&status)) }
    }
}

fn describe(status: &StatusReply) -> String {
    let StatusReply { version, dpdk, pid, uptime_seconds, workers, sessions, session_capacity, defence } = status;
    // DPDK's own version text begins with its name.
    let dpdk = dpdk.trim_start_matches("DPDK ");
    format!(
        "fullgate {version}, DPDK {dpdk}, process {pid}\n\
         up        {uptime_seconds:.1} s\n\
         workers   {workers}\n\
         sessions  {sessions} of {session_capacity}\n{}",
        match defence.is_empty() {
            true => String::new(),
            false => format!("defence   {} active\n", defence.join(", ")),
        }
    )
}
