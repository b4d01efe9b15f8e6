//! `fullgate ipvsadm` beside Debian's ipvsadm 1.31: the same command lines against the same director, and the same
//! output, errors, exit status and questions to the director, byte for byte.
//!
//! The director is a table in memory, so that all that IPVS can list is listed, also what the gateway has not. Needs the
//! package ipvsadm, no root.

#![cfg(feature = "dpdk")]
// The whole crate is a test; clippy only sees the functions marked so.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, missing_docs)]

mod cases;
mod director;
#[path = "../lab/preload.rs"]
mod preload;
mod tables;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use director::{Director, Table};

const OURS: &str = env!("CARGO_BIN_EXE_fullgate");
const DEBIANS: &str = "/usr/sbin/ipvsadm";

/// What a run of a tool came to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    status: Option<i32>,
    output: String,
    errors: String,
    asked: Vec<fullgate::ipvs::Command>,
}

fn run(program: &str, words: &[&str], input: &str, table: &Table) -> Outcome {
    let director = Director::start(table.clone());
    let mut command = Command::new(program);
    // By this name either calls itself so in its messages, and ours is ipvsadm.
    command.arg0("ipvsadm").args(words).current_dir(director.directory()).env_remove("FULLGATE_SOCKET");
    // Names are those of /etc/hosts: no name server is asked, and none waited for that is not there.
    command.env("RES_OPTIONS", "attempts:0");
    if program == DEBIANS {
        command.env("LD_PRELOAD", preload::library()).env("FULLGATE_IPVS_SOCKET", director.ipvs_socket());
    } else {
        command.env("FULLGATE_SOCKET", director.control_socket());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}: is the package ipvsadm there?"));
    // A tool that reads nothing of it may be gone.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Outcome {
        status: output.status.code(),
        output: text(&output.stdout),
        errors: text(&output.stderr),
        asked: director.asked(),
    }
}

/// The words of a line; `''` is an empty one, and `_` stands for a space in one.
fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(|word| word.replace("''", "").replace('_', " ")).collect()
}

/// Runs both tools with each of these lines, and lists what differs.
fn compare(lines: &[&str], input: &str, table: &Table) {
    let mut different = String::new();
    for line in lines {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (debians, ours) = (run(DEBIANS, &words, input, table), run(OURS, &words, input, table));
        if debians != ours {
            different += &format!("ipvsadm {line}\n Debian's: {debians:#?}\n ours: {ours:#?}\n");
        }
    }
    assert!(different.is_empty(), "{different}");
}

#[test]
fn commands_are_understood_and_refused_alike() {
    compare(&cases::COMMANDS, "", &Table::default());
}

#[test]
fn listings_are_alike() {
    compare(&cases::LISTINGS, "", &tables::rich());
}

#[test]
fn names_are_alike() {
    compare(&cases::NAMED, "", &tables::named());
}

#[test]
fn listings_are_sorted_alike() {
    for table in tables::shuffled() {
        compare(&["-Ln", "-Ln --nosort", "-Sn"], "", &table);
    }
}

#[test]
fn errors_are_told_alike() {
    use fullgate::ipvs::Errno;
    let errors = [
        Errno::NotPermitted,
        Errno::NoEntry,
        Errno::NoService,
        Errno::Failed,
        Errno::Busy,
        Errno::Exists,
        Errno::Invalid,
        Errno::NoSpace,
        Errno::OutOfRange,
        Errno::NotSupported,
        Errno::FamilyNotSupported,
    ];
    for errno in errors {
        compare(&cases::REFUSED, "", &Table { refusal: Some(errno), ..Table::default() });
    }
}

/// With sh and mh Debian's prints no name for flag-3, and what it saves cannot be restored. Here that flag is FULLNAT.
#[test]
fn fullnat_is_saved_with_every_scheduler() {
    for scheduler in ["sh", "mh", "wrr"] {
        let saved = run(OURS, &["-Sn"], "", &tables::fullnat(scheduler)).output;
        let first = saved.lines().next().unwrap();
        assert_eq!(first, format!("-A -t 10.0.0.100:80 -s {scheduler} -b flag-3"));
        let restored = run(OURS, &["-R"], &saved, &Table::default());
        assert_eq!((restored.status, restored.asked.len()), (Some(0), 1), "{restored:#?}");
    }
}

#[test]
fn rules_are_restored_alike() {
    for input in cases::RESTORED {
        let (debians, ours) =
            (run(DEBIANS, &["-R"], input, &Table::default()), run(OURS, &["-R"], input, &Table::default()));
        assert_eq!((&debians.asked, debians.status), (&ours.asked, ours.status), "{input:?}: {debians:#?}{ours:#?}");
        assert_eq!(debians.output, ours.output, "{input:?}");
        // Ours has the line's number in front.
        let without_numbers = |errors: &str| {
            let message = |line: &str| match line.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
                Some((number, message)) if number.parse::<usize>().is_ok() => message.to_owned(),
                _ => line.to_owned(),
            };
            errors.lines().map(message).collect::<Vec<_>>()
        };
        assert_eq!(without_numbers(&debians.errors), without_numbers(&ours.errors), "{input:?}");
        if !ours.errors.is_empty() {
            assert!(ours.errors.starts_with("line "), "{ours:#?}");
        }
    }
}
