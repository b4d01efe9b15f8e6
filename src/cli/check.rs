//! `fullgate check`: is this configuration file right, as far as the file alone can tell?

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::CliError;
use super::output::{complain, print_json, print_lines};
use crate::config::{Config, ConfigError};

/// Check a configuration file; the running gateway is not touched
#[derive(Debug, Args)]
#[command(after_help = "\
Every error is a line on standard error: FILE:LINE: KEY: what is wrong; what is allowed. The exit
status is then 1.

Examples:
  fullgate check --config /etc/fullgate/fullgate.toml
  fullgate check --config lab.toml --json | jq '.errors[].line'")]
pub(super) struct Check {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why a file gave no configuration.
pub(super) enum ReadError {
    /// It cannot be read.
    File(String),
    /// What is in it is wrong.
    Content(Vec<ConfigError>),
}

impl ReadError {
    /// One line each.
    pub(super) fn lines(&self) -> Vec<String> {
        match self {
            Self::File(message) => vec![message.clone()],
            Self::Content(errors) => errors.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Reads a configuration file.
pub(super) fn read_config(path: &Path) -> Result<Config, ReadError> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| ReadError::File(format!("{name}: cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
        ReadError::File(format!("{name}:{line}: not UTF-8; allowed: TOML, which is UTF-8 text"))
    })?;
    Config::parse(&text, &name).map_err(ReadError::Content)
}

/// Reads a configuration file; what is wrong with it goes to standard error.
pub(super) fn read_config_or_complain(path: &Path) -> Result<Config, CliError> {
    read_config(path).map_err(|error| {
        error.lines().iter().for_each(|line| complain(line));
        CliError::Refused
    })
}

impl Check {
    pub(super) fn execute(self) -> Result<(), CliError> {
        if self.json {
            return self.execute_json();
        }
        let config = read_config_or_complain(&self.config)?;
        let name = self.config.display();
        for warning in config.warnings() {
            complain(&format!("{name}: warning: {warning}"));
        }
        print_lines(&[format!("{name}: ok")])
    }

    fn execute_json(&self) -> Result<(), CliError> {
        let file = self.config.display().to_string();
        let read = read_config(&self.config);
        let warnings = read.as_ref().map(Config::warnings).unwrap_or_default();
        let errors = match &read {
            Ok(_) => Vec::new(),
            Err(ReadError::File(message)) => vec![json!({ "line": null, "key": null, "message": message })],
            Err(ReadError::Content(errors)) => errors
                .iter()
                .map(|error| json!({ "line": error.line, "key": error.key, "message": error.message }))
                .collect(),
        };
        print_json(&json!({ "file": file, "ok": read.is_ok(), "errors": errors, "warnings": warnings }))?;
        read.map(drop).map_err(|_| CliError::Refused)
    }
}
