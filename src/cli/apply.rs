//! `fullgate apply`: the running gateway's services, pools and rules for source NAT become those of a file.

use std::path::PathBuf;

use clap::Args;

use super::CliError;
use super::arguments::Connection;
use super::check::read_config_or_complain;
use super::output::complain;
use crate::control::protocol::Request;

/// Make the running gateway's services, local pools and snat rules equal to a file's, all or nothing
#[derive(Debug, Args)]
#[command(after_help = "\
Prints what changed, one line each; nothing where all was equal. Sessions of services and real
servers that stay are not disturbed. Ports, workers and all else in FILE are checked, but need a
restart to change.

Examples:
  fullgate apply --config /etc/fullgate/fullgate.toml --dry-run
  fullgate apply --config /etc/fullgate/fullgate.toml")]
pub(super) struct Apply {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,

    /// Only print what would change
    #[arg(long, short = 'n')]
    dry_run: bool,

    #[command(flatten)]
    connection: Connection,
}

impl Apply {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let config = read_config_or_complain(&self.config)?;
        self.connection.change(&Request::Apply { balance: config.balance, dry_run: self.dry_run })?;
        if self.dry_run {
            complain("dry run: nothing was changed");
        }
        Ok(())
    }
}
