//! Connections as `-L -c` prints them, out of `/proc/net/ip_vs_conn`.

use std::io::{self, BufRead, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::list::Format;

/// The file.
pub(super) const CONNECTIONS: &str = "/proc/net/ip_vs_conn";

/// Prints all lines of the file behind its first.
pub(super) fn print(file: impl BufRead, out: &mut impl Write, format: &Format<'_>) -> io::Result<()> {
    writeln!(out, "IPVS connection entries")?;
    write!(out, "pro expire {:<11} {:<18} {:<18} ", "state", "source", "virtual")?;
    match format.shows_engines() {
        true => writeln!(out, "{:<18} {:<16} pe_data", "destination", "pe name")?,
        false => writeln!(out, "destination")?,
    }
    for line in file.lines().skip(1) {
        if let Some(line) = connection(&line?, format) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// A line of the file as ipvsadm shows it. None: it is none of the kernel's.
fn connection(line: &str, format: &Format<'_>) -> Option<String> {
    let words = line.split_whitespace().collect::<Vec<_>>();
    let &[name, client, client_port, to, to_port, real, real_port, state, seconds, ref engine @ ..] = words.as_slice()
    else {
        return None;
    };
    let protocol = match name {
        "TCP" => 6,
        "UDP" => 17,
        "SCTP" => 132,
        _ => 0,
    };
    let endpoint =
        |address, port| Some(format.endpoint(self::address(address)?, u16::from_str_radix(port, 16).ok()?, protocol));
    let seconds: u32 = seconds.parse().ok()?;
    let expires = format!("{:02}:{:02}", seconds / 60, seconds % 60);
    let mut text = format!(
        "{name:<3} {expires:<6} {state:<11} {:<18} {:<18} ",
        endpoint(client, client_port)?,
        endpoint(to, to_port)?
    );
    let destination = endpoint(real, real_port)?;
    match engine {
        [engine, data, ..] if format.shows_engines() => text += &format!("{destination:<16} {engine:<18} {data}"),
        _ => text += &destination,
    }
    Some(text)
}

/// An address as the file has it: eight hexadecimal digits, or IPv6's groups written out.
fn address(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    u32::from_str_radix(text, 16).ok().map(|bits| Ipv4Addr::from_bits(bits).into())
}
