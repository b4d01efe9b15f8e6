//! Ports of real DPDK drivers: opened, received from, sent by, closed, and what goes wrong with them.
//!
//! Each case runs in a process of its own (an EAL can be had once a process) and in a network namespace of its own,
//! which vanishes with it. Needs root. Says `test result: ...` as the usual harness does.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod bonds;
mod cases;
mod errors;
mod lab;

use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Tells the process that it is to run a case, and which.
const CASE: &str = "FULLGATE_PORT_CASE";

/// A case that takes longer hangs.
const TIME_LIMIT: Duration = Duration::from_secs(60);

type Case = (&'static str, fn());

const CASES: &[Case] = &[
    ("af_xdp_forwards", cases::af_xdp_forwards),
    ("af_xdp_two_queues", cases::af_xdp_two_queues),
    ("af_xdp_uses_every_buffer", cases::af_xdp_uses_every_buffer),
    ("af_xdp_reopens_after_an_end_and_a_kill", cases::af_xdp_reopens_after_an_end_and_a_kill),
    ("af_xdp_waits_for_the_former_owner", cases::af_xdp_waits_for_the_former_owner),
    ("reopens_in_one_process", cases::reopens_in_one_process),
    ("af_packet_forwards", cases::af_packet_forwards),
    ("af_packet_two_queues", cases::af_packet_two_queues),
    ("tap_receives_sends_and_checks", cases::tap_receives_sends_and_checks),
    ("mtus_are_the_kernels", cases::mtus_are_the_kernels),
    ("pcap_to_null", cases::pcap_to_null),
    ("pcap_queues_are_dealt", cases::pcap_queues_are_dealt),
    ("buffers", cases::buffers),
    ("active_backup_uses_a_member_with_a_link", bonds::active_backup_uses_a_member_with_a_link),
    ("lacp_brings_two_bonds_together", bonds::lacp_brings_two_bonds_together),
    ("hugepages_are_used_and_given_back", cases::hugepages_are_used_and_given_back),
    ("process_is_left_as_it_was", cases::process_is_left_as_it_was),
    ("errors_before_the_eal", errors::before_the_eal),
    ("errors_of_devices", errors::of_devices),
    ("errors_of_ports", errors::of_ports),
    ("errors_of_memory", errors::of_memory),
    ("errors_without_hugepages", errors::without_hugepages),
];

/// Not cases of their own: run by one.
const INNER: &[Case] = &[("open_and_wait", cases::open_and_wait), ("use_hugepages", cases::use_hugepages)];

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(CASE) {
        let (_, case) = CASES.iter().chain(INNER).find(|(known, _)| *known == name).unwrap();
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).init();
        case();
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let chosen = |(name, _): &&Case| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let chosen: Vec<&Case> = CASES.iter().filter(chosen).collect();
    if words.iter().any(|word| word == "--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    run_all(&chosen)
}

fn run_all(cases: &[&Case]) -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        eprintln!("dpdk_ports makes network interfaces and opens DPDK devices: run it as root");
        println!("test result: FAILED. 0 passed; {} failed; 0 ignored", cases.len());
        return ExitCode::FAILURE;
    }
    println!("\nrunning {} tests", cases.len());
    let mut failed = Vec::new();
    for (name, _) in cases {
        match run_one(name) {
            Ok(()) => println!("test {name} ... ok"),
            Err(output) => {
                println!("test {name} ... FAILED");
                failed.push((name, output));
            }
        }
    }
    for (name, output) in &failed {
        println!("\n---- {name} ----\n{output}");
    }
    let result = if failed.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {result}. {} passed; {} failed; 0 ignored\n", cases.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A command that runs a case in this network namespace.
fn command(case: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(CASE, case);
    command
}

fn run_one(name: &str) -> Result<(), String> {
    // Without --fork the child is the case itself, so that a hanging one can be ended by its id.
    let mut child = Command::new("unshare")
        .args(["--net", "--"])
        .arg(std::env::current_exe().unwrap())
        .env(CASE, name)
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("unshare (util-linux) could not be run: {error}"))?;
    let mut streams: [Box<dyn Read + Send>; 2] =
        [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
    std::thread::scope(|scope| {
        let readers = streams.each_mut().map(|stream| {
            scope.spawn(move || {
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes);
                String::from_utf8_lossy(&bytes).into_owned()
            })
        });
        let deadline = Instant::now() + TIME_LIMIT;
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status.to_string().replace("exit status: 0", ""),
                None if Instant::now() > deadline => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    break format!("took more than {TIME_LIMIT:?}");
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        let output: String = readers.map(|reader| reader.join().unwrap_or_default()).concat();
        if status.is_empty() { Ok(()) } else { Err(format!("{output}{status}")) }
    })
}
