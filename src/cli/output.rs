//! Writing to standard output and error. A reader that has gone away is an error like any other here; `cli::report`
//! ends quietly on it.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

use super::CliError;

/// Prints lines.
pub(super) fn print_lines<T: Display>(lines: &[T]) -> Result<(), CliError> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

/// Prints a text as it is.
pub(super) fn print(text: impl Display) -> Result<(), CliError> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    write!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Prints a value as JSON over several lines.
pub(super) fn print_json<T: Serialize>(value: &T) -> Result<(), CliError> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Prints a value as JSON on one line.
pub(super) fn print_json_line<T: Serialize>(value: &T) -> Result<(), CliError> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    serde_json::to_writer(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Prints a line to standard error. Where that is closed there is nobody left to tell.
pub(super) fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
