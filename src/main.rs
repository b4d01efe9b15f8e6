//! Arguments -> library -> exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    fullgate::cli::main(|_config, _options| {
        eprintln!("fullgate: this build has no data path");
        ExitCode::FAILURE
    })
}
