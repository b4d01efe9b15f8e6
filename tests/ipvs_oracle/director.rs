//! What both directors, the kernel's IPVS and fullgate, can be told and asked; scenarios know nothing else.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use fullgate::balance::{Encapsulation, Protocol, Tunnel};

use crate::network::{Out, Side};

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
    /// Active and inactive connections of all real servers.
    fn loads(&mut self) -> Vec<Counts>;
    /// Of all services and real servers: connections in all, packets in, packets out, bytes in, bytes out.
    fn traffic(&mut self) -> Vec<Counts>;
}

/// A virtual service's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    pub protocol: Protocol,
    pub address: SocketAddr,
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
    DeleteService(Service),
    AddServer(Service, Server),
    EditServer(Service, Server),
    DeleteServer(Service, SocketAddr),
    /// Seconds of ESTABLISHED, FIN_WAIT and UDP.
    SetTimeouts(u32, u32, u32),
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.protocol == Protocol::Udp { "-u" } else { "-t" }, self.address)
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
            Self::DeleteService(service) => write!(f, "-D {service}"),
            Self::AddServer(service, server) => write!(f, "-a {service} {server}"),
            Self::EditServer(service, server) => write!(f, "-e {service} {server}"),
            Self::DeleteServer(service, address) => write!(f, "-d {service} -r {address}"),
            Self::SetTimeouts(tcp, fin, udp) => write!(f, "--set {tcp} {fin} {udp}"),
        }
    }
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
    /// Whether a row is its, or of a real server of its.
    pub fn is_row(&self, row: &Counts) -> bool {
        row.service == (self.protocol, self.address)
    }
}
