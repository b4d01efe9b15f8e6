//! The command line: what users type, one file a command family.
//!
//! Only `run` and `check` work on this machine alone; everything else asks the running daemon through the control
//! protocol ([`client`]) and nothing else. Exit codes: 0 done, 1 refused, 2 wrong usage, 3 no daemon.

mod apply;
mod arguments;
mod check;
pub mod client;
mod exec;
mod forwarding;
mod ipvsadm;
mod local;
mod mark;
mod output;
mod pages;
mod port;
mod real;
mod run;
mod service;
mod session;
mod snat;
mod stats;
mod stats_table;
mod status;
mod sysctl;
mod table;
mod worker;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;
use client::ClientError;

pub use run::RunOptions;

/// What `fullgate run` calls once the configuration is read and logging is set up: the daemon, until it ends.
pub type Daemon = fn(Config, RunOptions) -> ExitCode;

const REFUSED: u8 = 1;
const WRONG_USAGE: u8 = 2;
const NO_DAEMON: u8 = 3;

/// A layer-4 load-balancing gateway on DPDK
#[derive(Debug, Parser)]
#[command(name = "fullgate", version, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "\
Exit status: 0 done, 1 refused, 2 wrong usage, 3 no daemon.

Examples:
  fullgate check --config /etc/fullgate/fullgate.toml
  fullgate run --config /etc/fullgate/fullgate.toml
  fullgate service add -t 10.0.0.100:80 -s wrr
  fullgate real add -t 10.0.0.100:80 -r 10.1.0.11:80 -w 2
  fullgate service list
  fullgate stats --watch 1")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Check(check::Check),
    Apply(apply::Apply),
    #[command(subcommand)]
    Service(service::Service),
    #[command(subcommand)]
    Real(real::Real),
    #[command(subcommand)]
    Local(local::Local),
    #[command(subcommand)]
    Snat(snat::Snat),
    #[command(subcommand)]
    Mark(mark::Mark),
    #[command(subcommand)]
    Session(session::Session),
    #[command(subcommand)]
    Port(port::Port),
    #[command(subcommand)]
    Worker(worker::Worker),
    Stats(stats::Stats),
    Status(status::Status),
    Sysctl(sysctl::Sysctl),
    Exec(exec::Exec),
    Ipvsadm(ipvsadm::Ipvsadm),
    Completion(pages::Completion),
    Man(pages::Man),
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Client(#[from] ClientError),
    /// What was found wrong is printed already.
    #[error("refused")]
    Refused,
    #[error("{0}")]
    Failed(String),
    /// What clap cannot see to be wrong.
    #[error("{0}")]
    Usage(String),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// Runs the command line of this process.
pub fn main(daemon: Daemon) -> ExitCode {
    if let Some((program, words)) = ipvsadm::command_line() {
        return ipvsadm::main(&program, &words);
    }
    match Cli::try_parse() {
        Ok(cli) => cli.command.execute(daemon).unwrap_or_else(|error| report(&error)),
        Err(usage) => {
            // Nobody is left to tell where even this cannot be written.
            let _ = usage.print();
            ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(WRONG_USAGE))
        }
    }
}

impl Command {
    fn execute(self, daemon: Daemon) -> Result<ExitCode, CliError> {
        match self {
            Self::Run(run) => return run.execute(daemon),
            Self::Check(check) => check.execute()?,
            Self::Apply(apply) => apply.execute()?,
            Self::Service(service) => service.execute()?,
            Self::Real(real) => real.execute()?,
            Self::Local(local) => local.execute()?,
            Self::Snat(snat) => snat.execute()?,
            Self::Mark(mark) => mark.execute()?,
            Self::Session(session) => session.execute()?,
            Self::Port(port) => port.execute()?,
            Self::Worker(worker) => worker.execute()?,
            Self::Stats(stats) => stats.execute()?,
            Self::Status(status) => status.execute()?,
            Self::Sysctl(sysctl) => sysctl.execute()?,
            Self::Exec(exec) => exec.execute()?,
            // Taken in `main`, before clap reads the command line.
            Self::Ipvsadm(_) => {}
            Self::Completion(completion) => completion.execute()?,
            Self::Man(man) => man.execute()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn report(error: &CliError) -> ExitCode {
    match error {
        // The reader has seen enough, as with `| head`.
        CliError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        CliError::Refused => (),
        _ => output::complain(&format!("fullgate: {error}")),
    }
    match error {
        CliError::Client(ClientError::NoDaemon { .. }) => ExitCode::from(NO_DAEMON),
        CliError::Usage(_) => ExitCode::from(WRONG_USAGE),
        _ => ExitCode::from(REFUSED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
