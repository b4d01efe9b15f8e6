//! `fullgate completion` and `fullgate man`: made from the same description that parses the arguments.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::output::{print, print_lines};
use super::{Cli, CliError};

/// Print a shell's completions of this command
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fullgate completion bash >/usr/share/bash-completion/completions/fullgate
  fullgate completion zsh >/usr/share/zsh/site-functions/_fullgate")]
pub(super) struct Completion {
    /// The shell
    shell: Shell,
}

/// Print the manual page, or write the pages of all commands into a directory
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fullgate man | man -l -
  fullgate man /usr/local/share/man/man1")]
pub(super) struct Man {
    /// Write one page a command here
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Completion {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "fullgate", &mut script);
        print(String::from_utf8_lossy(&script))
    }
}

impl Man {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let Some(directory) = self.directory else {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            return print(String::from_utf8_lossy(&page));
        };
        let failed = |error| CliError::Failed(format!("{}: cannot be written: {error}", directory.display()));
        std::fs::create_dir_all(&directory).map_err(failed)?;
        clap_mangen::generate_to(Cli::command(), &directory).map_err(failed)?;
        print_lines(&[format!("wrote the manual pages into {}", directory.display())])
    }
}
