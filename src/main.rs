//! Arguments -> library -> exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    fullgate::cli::main(fullgate::control::daemon::run)
}
