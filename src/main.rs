fn main() -> std::process::ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let path = std::env::args().nth(1).unwrap();
    let config = fullgate::config::Config::parse(&std::fs::read_to_string(&path).unwrap(), &path).map_err(|e| e.iter().map(|e| e.to_string()).collect::<Vec<_>>().join("\n")).unwrap();
    fullgate::control::daemon::run(config, fullgate::cli::RunOptions)
}
