//! What both directors, the kernel's IPVS and fullgate, can be told and asked; scenarios know nothing else.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use fullgate::balance::{Encapsulation, Protocol, Tunnel};

use crate::network::{Family, Out, Side};

/// One of both.
pub trait Director {
    /// Does what ipvsadm would do with each rule, in this order.
    fn configure(&mut self, rules: &[Rule]);
    /// Gives it a frame on a side; what comes out of it for that.
    fn send(&mut self, side: Side, frame: &[u8]) -> Vec<Out>;
    /// Lets time pass until so many seconds after the scenario began.
    fn at(&mut self, seconds: u64);
    /// Its connections with these virtual ports, by client.
    fn connections(&mut self, ports: RangeInclusive<u16>) -> Vec<Connection>;
    /// Its templates of persistence, which it lists among its connections, without a client's port.
    fn templates(&mut self) -> Vec<Connection>;
    /// Active and inactive connections of all real servers.
    fn loads(&mut self) -> Vec<Counts>;
    /// Templates, active and inactive connections of all real servers.
    fn persistent(&mut self) -> Vec<Counts>;
    /// Of all services and real servers: connections in all, packets in, packets out, bytes in, bytes out.
    fn traffic(&mut self) -> Vec<Counts>;
}

/// A virtual service's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Any: it is one of a mark.
    pub protocol: Protocol,
    /// Of a mark the address that stands for it where IPVS lists connections.
    pub address: SocketAddr,
}

/// What a service is besides its scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Seconds that a client stays with its real server, and how many bits of its address count: none, all.
    pub persistence: Option<(u32, Option<u8>)>,
    /// Whether each packet is scheduled on its own.
    pub one_packet: bool,
}

/// Which packets get a mark.
#[derive(Clone, Copy, Debug)]
pub struct Marked {
    pub protocol: Protocol,
    pub destination: IpAddr,
    pub ports: (u16, u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Nat,
    Dr,
    Tun(Tunnel),
}

/// A real server.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    pub address: SocketAddr,
    pub mode: Mode,
    pub weight: u32,
    pub upper: u32,
    pub lower: u32,
}

/// A command of ipvsadm.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    AddService(Service, &'static str, &'static str),
    EditService(Service, &'static str, &'static str),
    /// The same, with all that it is besides.
    AddWith(Service, &'static str, Settings),
    EditWith(Service, &'static str, Settings),
    DeleteService(Service),
    AddServer(Service, Server),
    EditServer(Service, Server),
    DeleteServer(Service, SocketAddr),
    /// Seconds of ESTABLISHED, FIN_WAIT and UDP.
    SetTimeouts(u32, u32, u32),
    /// A sysctl of net.ipv4.vs.
    Sysctl(&'static str, u8),
    /// Gives packets a mark when they come in.
    Mark(u32, Marked),
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.protocol, self.mark()) {
            (_, Some((mark, Family::Ipv4))) => write!(f, "-f {mark}"),
            (_, Some((mark, Family::Ipv6))) => write!(f, "-f {mark} -6"),
            (Protocol::Udp, None) => write!(f, "-u {}", self.address),
            (Protocol::Sctp, None) => write!(f, "--sctp-service {}", self.address),
            (_, None) => write!(f, "-t {}", self.address),
        }
    }
}

impl Settings {
    pub const NONE: Self = Self { persistence: None, one_packet: false };
    pub const ONE_PACKET: Self = Self { persistence: None, one_packet: true };

    /// Persistence of so many seconds.
    pub const fn persistent(seconds: u32) -> Self {
        Self { persistence: Some((seconds, None)), one_packet: false }
    }

    /// The same for the clients of a network together.
    pub const fn of_networks(seconds: u32, prefix: u8) -> Self {
        Self { persistence: Some((seconds, Some(prefix))), one_packet: false }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-r {} -w {} -x {} -y {} ", self.address, self.weight, self.upper, self.lower)?;
        let tunnel = match self.mode {
            Mode::Nat => return f.write_str("-m"),
            Mode::Dr => return f.write_str("-g"),
            Mode::Tun(tunnel) => tunnel,
        };
        write!(f, "-i --tun-type {}", tunnel.encapsulation.name())?;
        if tunnel.encapsulation == Encapsulation::Gue {
            write!(f, " --tun-port {}", tunnel.port)?;
        }
        match tunnel.encapsulation {
            Encapsulation::Ipip => Ok(()),
            _ if tunnel.checksum => f.write_str(" --tun-csum"),
            _ => f.write_str(" --tun-nocsum"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddService(service, scheduler, flags) => show_service(f, "-A", service, scheduler, flags),
            Self::EditService(service, scheduler, flags) => show_service(f, "-E", service, scheduler, flags),
            Self::AddWith(service, scheduler, settings) => {
                show_service(f, "-A", service, scheduler, "")?;
                show_settings(f, service, settings)
            }
            Self::EditWith(service, scheduler, settings) => {
                show_service(f, "-E", service, scheduler, "")?;
                show_settings(f, service, settings)
            }
            Self::DeleteService(service) => write!(f, "-D {service}"),
            Self::AddServer(service, server) => write!(f, "-a {service} {server}"),
            Self::EditServer(service, server) => write!(f, "-e {service} {server}"),
            Self::DeleteServer(service, address) => write!(f, "-d {service} -r {address}"),
            Self::SetTimeouts(tcp, fin, udp) => write!(f, "--set {tcp} {fin} {udp}"),
            Self::Sysctl(name, value) => write!(f, "net.ipv4.vs.{name}={value}"),
            Self::Mark(mark, marked) => write!(f, "mark {mark}: {marked:?}"),
        }
    }
}

fn show_settings(f: &mut fmt::Formatter<'_>, service: &Service, settings: &Settings) -> fmt::Result {
    if let Some((seconds, prefix)) = settings.persistence {
        write!(f, " -p {seconds}")?;
        match (prefix, service.address) {
            (None, _) => {}
            (Some(bits), SocketAddr::V6(_)) => write!(f, " -M {bits}")?,
            (Some(bits), SocketAddr::V4(_)) => {
                write!(f, " -M {}", Ipv4Addr::from_bits(!u32::MAX.checked_shr(bits.into()).unwrap_or(0)))?;
            }
        }
    }
    f.write_str(if settings.one_packet { " -o" } else { "" })
}

fn show_service(
    f: &mut fmt::Formatter<'_>,
    command: &str,
    service: &Service,
    scheduler: &str,
    flags: &str,
) -> fmt::Result {
    write!(f, "{command} {service} -s {scheduler}")?;
    if flags.is_empty() { Ok(()) } else { write!(f, " -b {flags}") }
}

/// A connection as both list it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// TCP, UDP, SCTP, or IP.
    pub protocol: String,
    pub client: SocketAddr,
    pub virtual_: SocketAddr,
    pub server: SocketAddr,
    pub state: String,
    pub expires: u32,
}

/// A service's or real server's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Protocol and virtual address.
    pub service: (Protocol, SocketAddr),
    /// None: of the service as a whole.
    pub server: Option<SocketAddr>,
    pub counts: Vec<u64>,
}

impl Service {
    /// The service of what has a mark.
    pub fn of_mark(mark: u16, family: Family) -> Self {
        let address: IpAddr = match family {
            Family::Ipv4 => Ipv4Addr::from_bits(mark.into()).into(),
            Family::Ipv6 => Ipv6Addr::new(0, mark, 0, 0, 0, 0, 0, 0).into(),
        };
        Self { protocol: Protocol::Any, address: (address, 0).into() }
    }

    /// The mark that it is for.
    pub fn mark(&self) -> Option<(u32, Family)> {
        (self.protocol == Protocol::Any).then(|| match self.address.ip() {
            IpAddr::V4(address) => (address.to_bits(), Family::Ipv4),
            IpAddr::V6(address) => (address.segments()[1].into(), Family::Ipv6),
        })
    }

    /// Whether a row is its, or of a real server of its.
    pub fn is_row(&self, row: &Counts) -> bool {
        row.service == (self.protocol, self.address)
    }
}
