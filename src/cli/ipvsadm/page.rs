//! The subcommand as the manual page, the completions and `fullgate --help` know it. Its command line is not read by
//! this but by `arguments`: clap has no rules for options that mean one thing or another after a command.

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

use super::options::{OPTIONS, Takes};

/// Stands for the subcommand.
#[derive(Debug)]
pub(in crate::cli) struct Ipvsadm;

const EXAMPLES: &str = "\
Options, output and exit status are ipvsadm 1.31's, with the FULLNAT options of Alibaba's fork besides: -b on real
servers, -P, -Q, -G, -z, -j. The daemon is the one of FULLGATE_SOCKET. A link by the name of ipvsadm to this program
is this command, and makes ipvsadm-save and ipvsadm-restore work on this gateway.

Examples:
  fullgate ipvsadm -A -t 10.0.0.100:80 -s wlc
  fullgate ipvsadm -P -t 10.0.0.100:80 -z 10.1.0.204
  fullgate ipvsadm -a -t 10.0.0.100:80 -r 10.1.0.11:80 -b -w 2
  fullgate ipvsadm -Ln --stats
  fullgate ipvsadm -Sn >rules
  fullgate ipvsadm -R <rules";

impl Args for Ipvsadm {
    fn augment_args(command: Command) -> Command {
        let command = command
            .about("Manage services with ipvsadm's command line")
            .after_help(EXAMPLES)
            .disable_help_flag(true)
            .disable_version_flag(true);
        command.args(OPTIONS.iter().map(|entry| {
            let arg = Arg::new(entry.long).long(entry.long).help(entry.help);
            let arg = match entry.takes {
                Takes::Nothing => arg.action(ArgAction::SetTrue),
                Takes::Value => arg.value_name(entry.value),
                Takes::Optional => arg.value_name(entry.value).num_args(0..=1),
            };
            match entry.short {
                Some(letter @ 'L') => arg.short(letter).visible_short_alias('l'),
                Some(letter) => arg.short(letter),
                None => arg,
            }
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Ipvsadm {
    fn from_arg_matches(_: &ArgMatches) -> Result<Self, Error> {
        // `cli::main` has taken such a command line before clap.
        Err(Error::raw(ErrorKind::InvalidSubcommand, "ipvsadm is the first word: fullgate ipvsadm ...\n"))
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), Error> {
        Ok(())
    }
}
