//! What `-h` and `-v` print, and how ipvsadm is called, where it was not understood.

use std::fmt::Write;

use super::options::{Entry, OPTIONS, Opt, Takes};
use crate::ipvs::VERSION;

/// The version whose command line this is.
pub(super) fn version() -> String {
    let [_, major, minor, patch] = VERSION.to_be_bytes();
    let own = env!("CARGO_PKG_VERSION");
    format!("ipvsadm v1.31 2019/12/24 (of fullgate {own} and IPVS v{major}.{minor}.{patch})\n")
}

/// How to be told more.
pub(super) fn hint(program: &str) -> String {
    format!("Try `{program} -h' or '{program} --help' for more information.\n")
}

/// Ways to call it, behind the program's name.
const USAGE: [&str; 15] = [
    "-A|E virtual-service [-s scheduler] [-p [timeout]] [-M netmask] [--pe engine] [-b sched-flags] [-j disable]",
    "-D virtual-service",
    "-C",
    "-R",
    "-S [-n]",
    "-a|e virtual-service -r server-address [options]",
    "-d virtual-service -r server-address",
    "-L|l [virtual-service] [options]",
    "-Z [virtual-service]",
    "-P|Q virtual-service -z local-address",
    "-G [virtual-service]",
    "--set tcp tcpfin udp",
    "--start-daemon {master|backup} [daemon-options]",
    "--stop-daemon {master|backup}",
    "-h",
];

/// The help text.
pub(super) fn help(program: &str) -> String {
    let mut text = version() + "Usage:\n";
    for usage in USAGE {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "  {program} {usage}");
    }
    text.push_str("\nCommands, of which the first option is one:\n");
    text.extend(of(|option| (option as u8) <= Opt::GetLocal as u8).map(line));
    text.push_str("\nvirtual-service:\n");
    text.extend(of(is_service).map(line));
    text.push_str("\nOptions:\n");
    text.extend(of(|option| (option as u8) > Opt::GetLocal as u8 && !is_service(option)).map(line));
    text
}

fn is_service(option: Opt) -> bool {
    matches!(option, Opt::TcpService | Opt::UdpService | Opt::SctpService | Opt::MarkService)
}

fn of(wanted: impl Fn(Opt) -> bool) -> impl Iterator<Item = &'static Entry> {
    OPTIONS.iter().filter(move |entry| wanted(entry.option))
}

fn line(entry: &Entry) -> String {
    let long = format!("--{}", entry.long);
    let short = entry.short.map_or(String::new(), |letter| format!("-{letter}"));
    let value = match entry.takes {
        Takes::Nothing => String::new(),
        Takes::Value => entry.value.to_owned(),
        Takes::Optional => format!("[{}]", entry.value),
    };
    format!("  {long:<17} {:<21} {}\n", format!("{short:<2} {value}"), entry.help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_its_line() {
        let text = help("ipvsadm");
        for entry in &OPTIONS {
            let lines =
                text.lines().filter(|line| line.split_whitespace().next() == Some(&format!("--{}", entry.long)));
            assert_eq!(lines.count(), 1, "{}\n{text}", entry.long);
        }
        assert!(text.starts_with("ipvsadm v1.31 "), "{text}");
        assert!(text.contains("\n  ipvsadm --set tcp tcpfin udp\n"), "{text}");
    }
}
