//! `fullgate run`: reads the configuration, sets up logging, becomes the daemon.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::SubscriberBuilder;

use super::check::read_config_or_complain;
use super::{CliError, Daemon};

/// What the daemon needs to know beside the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// The file, to be read again on SIGHUP.
    pub config_path: PathBuf,
    /// Services and pools are the file's, not those that were kept in `state_dir`.
    pub discard_state: bool,
}

/// Run the gateway in the foreground, logging to standard error
#[derive(Debug, Args)]
#[command(after_help = "\
Services and pools that were changed at run time are kept in [control] state_dir and win over
FILE at the next start; with --discard-state they are FILE's again. All else is always FILE's.

SIGTERM and SIGINT end the gateway. SIGHUP makes services and pools equal to FILE's, as
`fullgate apply` does.

Examples:
  fullgate run --config /etc/fullgate/fullgate.toml
  fullgate run --config lab.toml -v --log-format json
  RUST_LOG=fullgate::control=debug fullgate run --config lab.toml")]
pub(super) struct Run {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,

    /// How log lines are written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,

    /// Take services and pools from FILE, not from what was kept in state_dir
    #[arg(long)]
    discard_state: bool,

    /// Log more: -v debug, -vv trace (RUST_LOG, where set, says it in detail)
    #[arg(long, short, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl Run {
    pub(super) fn execute(self, daemon: Daemon) -> Result<ExitCode, CliError> {
        let config = read_config_or_complain(&self.config)?;
        self.start_logging()?;
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        Ok(daemon(config, RunOptions { config_path: self.config, discard_state: self.discard_state }))
    }

    fn start_logging(&self) -> Result<(), CliError> {
        let builder = tracing_subscriber::fmt()
            .with_env_filter(self.filter()?)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
        let installed = match self.log_format {
            LogFormat::Text => SubscriberBuilder::try_init(builder),
            LogFormat::Json => SubscriberBuilder::try_init(builder.json().flatten_event(true)),
        };
        installed.map_err(|error| CliError::Failed(format!("cannot set up logging: {error}")))
    }

    fn filter(&self) -> Result<EnvFilter, CliError> {
        if let Some(given) = std::env::var_os(EnvFilter::DEFAULT_ENV).filter(|given| !given.is_empty()) {
            let given = given.to_string_lossy();
            let allowed = "allowed: a level, or TARGET=LEVEL with commas between, like fullgate::control=debug";
            return EnvFilter::try_new(&given)
                .map_err(|error| CliError::Failed(format!("RUST_LOG: {given:?}: {error}; {allowed}")));
        }
        // Only this program's own words grow louder with -v; libraries stay at warnings.
        Ok(EnvFilter::new(match self.verbose {
            0 => "warn,fullgate=info",
            1 => "warn,fullgate=debug",
            _ => "info,fullgate=trace",
        }))
    }
}
