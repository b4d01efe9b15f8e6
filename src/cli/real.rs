//! `fullgate real`: real servers of virtual services.

use clap::{Args, Subcommand};

use super::CliError;
use super::arguments::{AddressAndPort, Connection, ServiceArgument, ServiceChoice};
use super::forwarding::Forwarding;
use super::output::{print, print_json};
use super::service::{self, fetch};
use super::table::Align::{Left, Right};
use super::table::Table;
use crate::balance::{ServiceKey, Weight};
use crate::config::RealServerConfig;
use crate::control::protocol::{RealServerEdit, RealServerRow, Request, ServiceRow};

/// Add, change, delete and list real servers
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  fullgate real add -t 10.0.0.100:80 -r 10.1.0.11:8080 -w 2
  fullgate real edit -t 10.0.0.100:80 -r 10.1.0.11:8080 -w 0")]
pub(super) enum Real {
    Add(Add),
    Edit(Edit),
    Del(Del),
    List(List),
}

/// The real server that a command is about.
#[derive(Clone, Debug, Args)]
struct RealArgument {
    #[command(flatten)]
    service: ServiceArgument,

    /// The real server; without a port it has the service's, or, in a service of several, the one that the client asked for
    #[arg(short = 'r', long = "real-server", value_name = "RIP[:PORT]")]
    address: AddressAndPort,
}

const WEIGHTS: std::ops::RangeInclusive<i64> = 0..=Weight::MAX as i64;

/// Add a real server to a service
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fullgate real add -t 10.0.0.100:80 -r 10.1.0.11
  fullgate real add -t 10.0.0.100:80 -r 10.1.0.12:8080 -w 2 -x 20000 -y 15000
  fullgate real add -t 10.0.0.100:80 -r 10.1.0.13 --mode dr
  fullgate real add -t 10.0.0.100:80 -r 10.2.0.14 -i --tun-type gue --tun-port 6080")]
pub(super) struct Add {
    #[command(flatten)]
    real: RealArgument,

    /// Its share of new sessions, 0 to 65535; 0 takes none
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(WEIGHTS))]
    weight: u32,

    #[command(flatten)]
    forwarding: Forwarding,

    /// From this many connections on it takes no new sessions; 0: no limit
    #[arg(short = 'x', long, visible_alias = "u-threshold", value_name = "CONNECTIONS", default_value_t = 0)]
    upper: u32,

    /// Below this many it takes new sessions again; 0: three quarters of the upper threshold
    #[arg(short = 'y', long, visible_alias = "l-threshold", value_name = "CONNECTIONS", default_value_t = 0)]
    lower: u32,

    #[command(flatten)]
    connection: Connection,
}

/// Change a real server; what is not given stays
#[derive(Debug, Args)]
#[command(
    override_usage = "fullgate real edit <--tcp <VIP:PORTS>|--udp <VIP:PORTS>|--sctp <VIP:PORTS>|--fwmark <MARK[/ipv6]>> --real-server <RIP[:PORT]> <WHAT CHANGES>..."
)]
#[command(group = clap::ArgGroup::new("change").args([
    "weight", "upper", "lower", "mode", "fullnat", "nat", "dr", "tun", "tun_type", "tun_port", "tun_csum", "tun_nocsum",
]).required(true).multiple(true))]
#[command(after_help = "\
Weight 0 drains: it takes no new sessions and keeps those that it has.

Examples:
  fullgate real edit -t 10.0.0.100:80 -r 10.1.0.11 -w 0
  fullgate real edit -t 10.0.0.100:80 -r 10.1.0.11 -x 0 -y 0")]
pub(super) struct Edit {
    #[command(flatten)]
    real: RealArgument,

    /// Its share of new sessions, 0 to 65535; 0 takes none
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(WEIGHTS))]
    weight: Option<u32>,

    #[command(flatten)]
    forwarding: Forwarding,

    /// From this many connections on it takes no new sessions; 0: no limit
    #[arg(short = 'x', long, visible_alias = "u-threshold", value_name = "CONNECTIONS")]
    upper: Option<u32>,

    /// Below this many it takes new sessions again; 0: three quarters of the upper threshold
    #[arg(short = 'y', long, visible_alias = "l-threshold", value_name = "CONNECTIONS")]
    lower: Option<u32>,

    #[command(flatten)]
    connection: Connection,
}

/// Remove a real server from a service
#[derive(Debug, Args)]
#[command(after_help = "\
Packets of its sessions are dropped from then on. To let them end first, give it weight 0 with
`fullgate real edit` and wait.

Examples:
  fullgate real del -t 10.0.0.100:80 -r 10.1.0.11")]
pub(super) struct Del {
    #[command(flatten)]
    real: RealArgument,

    #[command(flatten)]
    connection: Connection,
}

/// List real servers with thresholds and traffic
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fullgate real list
  fullgate real list -t 10.0.0.100:80 --json")]
pub(super) struct List {
    #[command(flatten)]
    service: ServiceChoice,

    #[command(flatten)]
    connection: Connection,
}

impl Real {
    pub(super) fn execute(self) -> Result<(), CliError> {
        match self {
            Self::Add(add) => add.execute(),
            Self::Edit(edit) => edit.execute(),
            Self::Del(del) => del.execute(),
            Self::List(list) => list.execute(),
        }
    }
}

impl Add {
    fn execute(self) -> Result<(), CliError> {
        let service = self.real.service.name()?;
        let real_server = RealServerConfig {
            address: self.real.address.or_port(service.vip.default_port()),
            mode: self.forwarding.mode(),
            tunnel: self.forwarding.tunnel(),
            weight: Weight(self.weight),
            upper_threshold: self.upper,
            lower_threshold: self.lower,
        };
        self.connection.change(&Request::RealAdd { service, real_server })
    }
}

impl Edit {
    fn execute(self) -> Result<(), CliError> {
        let service = self.real.service.name()?;
        self.connection.change(&Request::RealEdit {
            service,
            address: self.real.address.or_port(service.vip.default_port()),
            set: RealServerEdit {
                mode: self.forwarding.mode(),
                tunnel: self.forwarding.tunnel(),
                weight: self.weight.map(Weight),
                upper_threshold: self.upper,
                lower_threshold: self.lower,
            },
        })
    }
}

impl Del {
    fn execute(self) -> Result<(), CliError> {
        let service = self.real.service.name()?;
        let address = self.real.address.or_port(service.vip.default_port());
        self.connection.change(&Request::RealDel { service, address })
    }
}

impl List {
    fn execute(self) -> Result<(), CliError> {
        let services = fetch(&self.connection, self.service.name())?;
        if !self.connection.json {
            return print(table(&services));
        }
        let with_service = |service: &ServiceRow| {
            let (vip, protocol) = (service.vip, service.protocol);
            let row = move |real| serde_json::json!({ "vip": vip, "protocol": protocol, "real_server": real });
            service.real_servers.iter().map(row).collect::<Vec<_>>()
        };
        print_json(&services.iter().flat_map(with_service).collect::<Vec<_>>())
    }
}

/// The mode, with what wraps packets where it is not plain IPIP.
fn forward(real: &RealServerRow) -> String {
    real.tunnel.map_or_else(|| real.mode.to_string(), |tunnel| format!("{} {tunnel}", real.mode))
}

fn table(services: &[ServiceRow]) -> Table {
    let mut table = Table::new(&[
        ("Service", Left),
        ("RealServer", Left),
        ("Forward", Left),
        ("Weight", Right),
        ("Upper", Right),
        ("Lower", Right),
        ("ActiveConn", Right),
        ("InActConn", Right),
        ("Conns", Right),
        ("InPkts", Right),
        ("OutPkts", Right),
        ("InBytes", Right),
        ("OutBytes", Right),
    ]);
    for service in services {
        for real in &service.real_servers {
            table.row([
                ServiceKey::new(service.protocol, service.vip).to_string(),
                real.address.to_string(),
                forward(real),
                service::weight(real),
                real.upper_threshold.to_string(),
                real.lower_threshold.to_string(),
                real.active_connections.to_string(),
                real.inactive_connections.to_string(),
                real.traffic.connections.to_string(),
                real.traffic.in_packets.to_string(),
                real.traffic.out_packets.to_string(),
                real.traffic.in_bytes.to_string(),
                real.traffic.out_bytes.to_string(),
            ]);
        }
    }
    table
}
