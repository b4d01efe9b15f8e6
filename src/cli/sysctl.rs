//! `fullgate sysctl`: IPVS's sysctls of the running gateway, in the manner of sysctl(8).

use std::collections::BTreeMap;
use std::str::FromStr;

use clap::Args;

use super::CliError;
use super::arguments::Connection;
use super::output::{print_json, print_lines};
use crate::balance::Sysctl as Known;
use crate::control::protocol::{Reply, Request, SysctlRow};

/// Show and set what IPVS has as sysctls (net.ipv4.vs)
#[derive(Debug, Args)]
#[command(after_help = "\
Without names, all are listed. Names may have net.ipv4.vs. in front, or net/ipv4/vs/. Several are set
together or, where one is refused, none. What is set holds at once, is kept over restarts and then wins
over [ipvs] of the configuration file, until a start with --discard-state.

Examples:
  fullgate sysctl -a
  fullgate sysctl expire_nodest_conn
  fullgate sysctl -w net.ipv4.vs.expire_nodest_conn=1 net.ipv4.vs.expire_quiescent_template=1
  fullgate sysctl -n conn_reuse_mode")]
pub(super) struct Sysctl {
    /// Sysctls to show, NAME, and to set, NAME=VALUE
    #[arg(value_name = "NAME[=VALUE]", conflicts_with = "all")]
    arguments: Vec<Argument>,

    /// Show all, as without names
    #[arg(short, long)]
    all: bool,

    /// Each argument is NAME=VALUE
    #[arg(short, long, requires = "arguments")]
    write: bool,

    /// Print values without names
    #[arg(short = 'n', long)]
    values: bool,

    #[command(flatten)]
    connection: Connection,
}

/// One of those that are named.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Argument {
    name: String,
    /// What it is to be set to.
    value: Option<u32>,
}

impl FromStr for Argument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (text, None),
        };
        if name.is_empty() {
            return Err("there is no name; allowed: NAME, NAME=VALUE".to_owned());
        }
        let number = |value: &str| value.parse().map_err(|_| format!("{value:?} is no whole number from 0 on"));
        Ok(Self { name: name.to_owned(), value: value.map(number).transpose()? })
    }
}

impl Sysctl {
    pub(super) fn execute(self) -> Result<(), CliError> {
        if let Some(Argument { name, .. }) = self.arguments.iter().find(|given| self.write && given.value.is_none()) {
            return Err(CliError::Usage(format!("{name}: no value to set; allowed with -w: NAME=VALUE")));
        }
        let values = values(&self.arguments)?;
        let mut client = self.connection.connect()?;
        if !values.is_empty() {
            let Reply::Changed(_) = client.call(&Request::SysctlSet { values })? else {
                return Err(client.wrong_reply().into());
            };
        }
        let names = self.arguments.iter().map(|given| given.name.clone()).collect();
        let Reply::Sysctls(rows) = client.call(&Request::SysctlList { names })? else {
            return Err(client.wrong_reply().into());
        };
        if self.connection.json {
            return print_json(&rows);
        }
        // As sysctl(8): of what is set, what was given. A defence strategy may read otherwise a moment later.
        let given = self.arguments.iter().map(|given| given.value).chain(std::iter::repeat(None));
        let line = |(SysctlRow { name, value, .. }, given): (&SysctlRow, Option<u32>)| {
            let value = given.unwrap_or(*value);
            if self.values { value.to_string() } else { format!("{}{name} = {value}", Known::PREFIX) }
        };
        print_lines(&rows.iter().zip(given).map(line).collect::<Vec<_>>())
    }
}

/// What is to be set. Each once, or it would be left to luck which value counts.
fn values(arguments: &[Argument]) -> Result<BTreeMap<String, u32>, CliError> {
    let mut values = BTreeMap::new();
    for Argument { name, value } in arguments {
        let Some(value) = *value else { continue };
        if values.insert(Known::short_name(name).to_owned(), value).is_some_and(|before| before != value) {
            return Err(CliError::Usage(format!("{name} is given several values; allowed: one")));
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_names_with_or_without_a_value() {
        let parsed = |text: &str| text.parse::<Argument>().map(|given| (given.name, given.value));
        assert_eq!(parsed("sloppy_tcp"), Ok(("sloppy_tcp".to_owned(), None)));
        assert_eq!(parsed("net.ipv4.vs.sloppy_tcp = 1"), Ok(("net.ipv4.vs.sloppy_tcp".to_owned(), Some(1))));
        assert_eq!(parsed("sloppy_tcp=on"), Err("\"on\" is no whole number from 0 on".to_owned()));
        assert!(parsed("=1").is_err());
    }

    #[test]
    fn two_values_for_one_are_refused() {
        let values = |words: &[&str]| values(&words.iter().map(|word| word.parse().unwrap()).collect::<Vec<_>>());
        assert_eq!(values(&["sloppy_tcp=1", "net.ipv4.vs.sloppy_tcp=1"]).unwrap().len(), 1);
        assert!(values(&["sloppy_tcp=1", "net.ipv4.vs.sloppy_tcp=0"]).is_err());
    }
}
