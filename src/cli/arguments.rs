//! Arguments that several commands share, and how their values are written.
//!
//! Letters are ipvsadm's: -t, -u and -f name a service, -r a real server, -s a scheduler, -w a weight, -x and -y the
//! thresholds.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::CliError;
use super::client::Client;
use super::output::{print_json, print_lines};
use crate::balance::{Network, PortRange, Protocol, SchedulerFlag, SchedulerKind, VirtualAddress, VirtualAddressError};
use crate::config::DEFAULT_SOCKET;
use crate::config::syntax::{self, SyntaxError};
use crate::control::protocol::{Reply, Request, ServiceName};

/// How to reach the daemon, and how to print what it says
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Common options")]
pub(super) struct Connection {
    /// Socket of the daemon
    #[arg(long, value_name = "PATH", env = "FULLGATE_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,

    /// Seconds to wait for the daemon's answer
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    timeout: Duration,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Connection {
    /// Connects to the daemon.
    pub(super) fn connect(&self) -> Result<Client, CliError> {
        Ok(Client::connect(&self.socket, self.timeout)?)
    }

    /// Asks for something and takes of the reply what `pick` wants.
    pub(super) fn ask<T>(&self, request: &Request, pick: impl FnOnce(Reply) -> Option<T>) -> Result<T, CliError> {
        let mut client = self.connect()?;
        let reply = client.call(request)?;
        pick(reply).ok_or_else(|| client.wrong_reply().into())
    }

    /// Asks for a change and prints what changed, one line each.
    pub(super) fn change(&self, request: &Request) -> Result<(), CliError> {
        let changed = self.ask(request, |reply| match reply {
            Reply::Changed(lines) => Some(lines),
            _ => None,
        })?;
        match self.json {
            true => print_json(&serde_json::json!({ "changed": changed })),
            false => print_lines(&changed),
        }
    }
}

/// The service that a command is about.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct ServiceArgument {
    /// The TCP service of this virtual address and port; FIRST-LAST for a range of ports, 0 for all
    #[arg(short = 't', long = "tcp", alias = "tcp-service", value_name = "VIP:PORTS", value_parser = VirtualAddress::from_str)]
    tcp: Option<VirtualAddress>,

    /// The UDP service of this virtual address and port; FIRST-LAST for a range of ports, 0 for all
    #[arg(short = 'u', long = "udp", alias = "udp-service", value_name = "VIP:PORTS", value_parser = VirtualAddress::from_str)]
    udp: Option<VirtualAddress>,

    /// The SCTP service of this virtual address and port; FIRST-LAST for a range of ports, 0 for all
    #[arg(long = "sctp", alias = "sctp-service", value_name = "VIP:PORTS", value_parser = VirtualAddress::from_str)]
    sctp: Option<VirtualAddress>,

    /// The service of IPv4, or of IPv6, packets that rules give this mark
    #[arg(short = 'f', long = "fwmark", alias = "fwmark-service", value_name = "MARK[/ipv6]", value_parser = marked)]
    fwmark: Option<VirtualAddress>,
}

impl ServiceArgument {
    /// Its name in the protocol.
    pub(super) fn name(&self) -> Result<ServiceName, CliError> {
        name_of([self.tcp, self.udp, self.sctp, self.fwmark])
            .ok_or_else(|| CliError::Failed("no service given: -t, -u or --sctp VIP:PORTS, or -f MARK".to_owned()))
    }
}

/// The service that a listing is limited to.
#[derive(Clone, Debug, Args)]
#[group(id = "one_service", multiple = false)]
pub(super) struct ServiceChoice {
    /// Only the TCP service of this virtual address and port; FIRST-LAST for a range of ports, 0 for all
    #[arg(short = 't', long = "tcp", alias = "tcp-service", value_name = "VIP:PORTS", value_parser = VirtualAddress::from_str)]
    tcp: Option<VirtualAddress>,

    /// Only the UDP service of this virtual address and port; FIRST-LAST for a range of ports, 0 for all
    #[arg(short = 'u', long = "udp", alias = "udp-service", value_name = "VIP:PORTS", value_parser = VirtualAddress::from_str)]
    udp: Option<VirtualAddress>,

    /// Only the SCTP service of this virtual address and port; FIRST-LAST for a range of ports, 0 for all
    #[arg(long = "sctp", alias = "sctp-service", value_name = "VIP:PORTS", value_parser = VirtualAddress::from_str)]
    sctp: Option<VirtualAddress>,

    /// Only the service of IPv4, or of IPv6, packets that rules give this mark
    #[arg(short = 'f', long = "fwmark", alias = "fwmark-service", value_name = "MARK[/ipv6]", value_parser = marked)]
    fwmark: Option<VirtualAddress>,
}

impl ServiceChoice {
    /// Its name in the protocol; none: all.
    pub(super) fn name(&self) -> Option<ServiceName> {
        name_of([self.tcp, self.udp, self.sctp, self.fwmark])
    }
}

/// What flows a rule is for, besides where they come from
#[derive(Clone, Debug, Args)]
pub(super) struct Conditions {
    /// Where they go [default: anywhere]
    #[arg(short, long, value_name = "NETWORK/PREFIX")]
    pub(super) destination: Option<Network>,

    /// Only this protocol, of icmp echo messages [default: all]
    #[arg(long, value_parser = protocol())]
    pub(super) protocol: Option<Protocol>,

    /// Only these destination ports [default: all]
    #[arg(long, value_name = "PORT|FIRST-LAST")]
    pub(super) destination_port: Option<PortRange>,

    /// Only what enters by this port of the gateway [default: any]
    #[arg(long, value_name = "PORT")]
    pub(super) port: Option<String>,
}

/// By what was given of the four options.
fn name_of(given: [Option<VirtualAddress>; 4]) -> Option<ServiceName> {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Any];
    given.into_iter().zip(protocols).find_map(|(vip, protocol)| vip.map(|vip| ServiceName { vip, protocol }))
}

/// What has a mark.
fn marked(text: &str) -> Result<VirtualAddress, VirtualAddressError> {
    format!("fwmark:{text}").parse()
}

/// An address whose port may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressAndPort {
    address: IpAddr,
    port: Option<u16>,
}

impl AddressAndPort {
    /// With this port where none was given.
    pub(super) fn or_port(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, self.port.unwrap_or(port))
    }
}

impl FromStr for AddressAndPort {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, port) = syntax::endpoint(text)?;
        Ok(Self { address, port })
    }
}

/// A scheduler's name; the list of names is what help and completions show.
pub(super) fn scheduler() -> impl TypedValueParser<Value = SchedulerKind> {
    PossibleValuesParser::new(SchedulerKind::NAMES.split(", ")).try_map(|name| name.parse::<SchedulerKind>())
}

/// A scheduler's flag, likewise.
pub(super) fn scheduler_flag() -> impl TypedValueParser<Value = SchedulerFlag> {
    PossibleValuesParser::new(SchedulerFlag::NAMES.split(", ")).try_map(|name| name.parse::<SchedulerFlag>())
}

/// The name of what sessions can be of.
pub(super) fn protocol() -> impl TypedValueParser<Value = Protocol> {
    PossibleValuesParser::new(Protocol::OF_SESSIONS.split(", ")).try_map(|name| Protocol::of_session(&name))
}

/// A number of seconds, fractions allowed.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "allowed: 0.1 to 86400 seconds".to_owned())
}
