//! `fullgate port`: the DPDK ports.

use clap::{Args, Subcommand};

use super::CliError;
use super::arguments::Connection;
use super::output::{print, print_json};
use super::table::Align::{Left, Right};
use super::table::Table;
use crate::control::protocol::{PortRow, Reply, Request};

/// Show ports
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  fullgate port show
  fullgate port show wan --xstats")]
pub(super) enum Port {
    Show(Show),
}

/// Show ports: device, TAP, link, queues, steering, offloads, counters
#[derive(Debug, Args)]
#[command(after_help = "\
Steering says how a client's packet finds the worker that owns its session, ownership how a real
server's answer does: rss (the NIC brings it there), software (another worker hands it over) or
single (there is one worker). Where the ownership is software, the reason stands behind it.

Examples:
  fullgate port show
  fullgate port show wan --xstats
  fullgate port show --json | jq '.[] | {name, link_up}'")]
pub(super) struct Show {
    /// Only this port
    port: Option<String>,

    /// Show the device's own counters too, those that are not 0
    #[arg(long)]
    xstats: bool,

    #[command(flatten)]
    connection: Connection,
}

impl Port {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let Self::Show(show) = self;
        let mut ports = show.connection.ask(&Request::PortShow {}, |reply| match reply {
            Reply::Ports(rows) => Some(rows),
            _ => None,
        })?;
        if let Some(wanted) = show.port {
            let names = ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ");
            ports.retain(|port| port.name == wanted);
            if ports.is_empty() {
                return Err(CliError::Failed(format!("there is no port {wanted:?}; there are: {names}")));
            }
        }
        if show.connection.json {
            return print_json(&ports);
        }
        print(ports.iter().map(|port| describe(port, show.xstats)).collect::<Vec<_>>().join("\n"))
    }
}

fn describe(port: &PortRow, xstats: bool) -> String {
    let link = match (port.link_up, port.link_speed_mbps) {
        (false, _) => "down".to_owned(),
        (true, 0) => "up".to_owned(),
        (true, speed) => format!("up, {speed} Mbit/s"),
    };
    let offloads = if port.offloads.is_empty() { "none".to_owned() } else { port.offloads.join(", ") };
    let ownership = match &port.ownership_reason {
        Some(reason) => format!("{}: {reason}", port.ownership),
        None => port.ownership.clone(),
    };
    let facts = [
        ("device", device(port)),
        ("driver", port.driver.clone()),
        ("tap", port.tap.clone()),
        ("addresses", if port.addresses.is_empty() { "none".to_owned() } else { port.addresses.join(", ") }),
        ("mac", port.mac.clone()),
        ("mtu", port.mtu.to_string()),
        ("link", link),
        ("queues", format!("{} receive, {} transmit", port.rx_queues, port.tx_queues)),
        ("steering", port.steering.clone()),
        ("ownership", ownership),
        ("offloads", offloads),
    ];
    let mut text = format!("{}:\n", port.name);
    for (name, value) in facts {
        text.push_str(&format!("  {name:<9} {value}\n"));
    }
    for (member, up) in &port.members {
        text.push_str(&format!("  {:<9} {member}, link {}\n", "member", if *up { "up" } else { "down" }));
    }
    text.push_str(&indent(&counters(port)));
    if xstats {
        let mut table = Table::new(&[("xstat", Left), ("", Right)]);
        for (name, value) in &port.xstats {
            table.row([name.clone(), value.to_string()]);
        }
        text.push_str(&indent(&table));
    }
    text
}

fn device(port: &PortRow) -> String {
    match (port.vlan, &port.parent) {
        (None, _) => port.device.clone(),
        (Some(vlan), None) => format!("VLAN {vlan} of {}", port.device),
        (Some(vlan), Some(parent)) => format!("VLAN {vlan} of port {parent}"),
    }
}

fn counters(port: &PortRow) -> Table {
    let columns = [("", Left), ("packets", Right), ("bytes", Right), ("errors", Right), ("missed", Right)];
    let mut table = Table::new(&columns);
    let [rx, tx] = [
        ["rx".to_owned(), port.rx_packets.to_string(), port.rx_bytes.to_string(), port.rx_errors.to_string()],
        ["tx".to_owned(), port.tx_packets.to_string(), port.tx_bytes.to_string(), port.tx_errors.to_string()],
    ];
    let with = |[name, packets, bytes, errors]: [String; 4], missed| [name, packets, bytes, errors, missed];
    table.row(with(rx, port.rx_missed.to_string()));
    table.row(with(tx, String::new()));
    table
}

fn indent(table: &Table) -> String {
    table.to_string().lines().map(|line| format!("  {line}\n")).collect()
}
