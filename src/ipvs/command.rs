//! What IPVS's tools ask for, and what they are told, whichever way it goes over the wire.

use std::net::{IpAddr, SocketAddr};

/// The version that the gateway answers with: IPVS 1.2.1, as in every Linux since 2.6.
pub const VERSION: u32 = 0x01_02_01;

/// Bits of a service's flags (`IP_VS_SVC_F_*`).
pub mod service_flags {
    /// Clients stay with their real server.
    pub const PERSISTENT: u32 = 0x01;
    /// Set by the kernel on every service that it lists.
    pub const HASHED: u32 = 0x02;
    /// Each UDP packet is scheduled on its own.
    pub const ONE_PACKET: u32 = 0x04;
    /// `flag-1`, which is sh-fallback and mh-fallback.
    pub const SCHEDULER_1: u32 = 0x08;
    /// `flag-2`, which is sh-port and mh-port.
    pub const SCHEDULER_2: u32 = 0x10;
    /// `flag-3`, which no scheduler uses. Here it makes real servers with masquerading FULLNAT ones.
    pub const SCHEDULER_3: u32 = 0x20;
}

/// Why a command is refused, by Linux's numbers (include/uapi/asm-generic/errno-base.h, errno.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(i32)]
pub enum Errno {
    /// EPERM.
    #[error("operation not permitted")]
    NotPermitted = 1,
    /// ENOENT: no such real server, scheduler or persistence engine.
    #[error("no such entry")]
    NoEntry = 2,
    /// ESRCH: no such service.
    #[error("no such service")]
    NoService = 3,
    /// EIO.
    #[error("the gateway failed")]
    Failed = 5,
    /// EBUSY.
    #[error("busy")]
    Busy = 16,
    /// EEXIST.
    #[error("exists already")]
    Exists = 17,
    /// EINVAL.
    #[error("invalid argument")]
    Invalid = 22,
    /// ENOSPC.
    #[error("a limit is reached")]
    NoSpace = 28,
    /// ERANGE: thresholds that contradict each other, or a weight below 0.
    #[error("out of range")]
    OutOfRange = 34,
    /// EOPNOTSUPP.
    #[error("not supported")]
    NotSupported = 95,
    /// EADDRNOTAVAIL: an address of the gateway's own, whose host gets nothing that is translated.
    #[error("an address of the gateway's own")]
    AddressNotAvailable = 99,
    /// EAFNOSUPPORT.
    #[error("address family not supported")]
    FamilyNotSupported = 97,
}

impl Errno {
    /// Its number, above 0.
    pub fn number(self) -> i32 {
        self as i32
    }
}

/// What names a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceId {
    /// A virtual address.
    Address {
        /// IP protocol number.
        protocol: u16,
        /// The virtual address.
        address: IpAddr,
        /// The virtual port; 0: all.
        port: u16,
    },
    /// Packets with a mark.
    Mark {
        /// Whether they are IPv6's.
        is_ipv6: bool,
        /// The mark, above 0.
        mark: u32,
    },
}

impl ServiceId {
    /// The family of its clients.
    pub fn is_ipv6(&self) -> bool {
        match self {
            Self::Address { address, .. } => address.is_ipv6(),
            Self::Mark { is_ipv6, .. } => *is_ipv6,
        }
    }
}

/// A service, as it is asked for and listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What names it.
    pub id: ServiceId,
    /// The scheduler's name.
    pub scheduler: String,
    /// Flags, see [`service_flags`].
    pub flags: u32,
    /// Which of the flags are given; the others stay as they are.
    pub flags_mask: u32,
    /// How long clients stay with their real server, in seconds.
    pub timeout: u32,
    /// IPv4: which bits of a client's address count for that. IPv6: how many, from the first on.
    pub netmask: u32,
    /// The persistence engine's name.
    pub persistence_engine: Option<String>,
}

/// Counters and rates. Rates are per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Stats {
    pub connections: u64,
    pub in_packets: u64,
    pub out_packets: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
    pub connection_rate: u64,
    pub in_packet_rate: u64,
    pub out_packet_rate: u64,
    pub in_byte_rate: u64,
    pub out_byte_rate: u64,
}

/// A service that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// What it is.
    pub service: Service,
    /// How many real servers it has.
    pub destinations: u32,
    /// Its counters.
    pub stats: Stats,
}

/// How packets reach a real server (`IP_VS_CONN_F_FWD_MASK`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Forwarding {
    /// Masquerading: NAT.
    Masquerade = 0,
    /// The director itself.
    Local = 1,
    /// A tunnel.
    Tunnel = 2,
    /// Direct routing.
    Direct = 3,
    /// A transparent cache's way out.
    Bypass = 4,
}

impl Forwarding {
    /// The method in a real server's flags.
    pub fn from_flags(flags: u32) -> Option<Self> {
        [Self::Masquerade, Self::Local, Self::Tunnel, Self::Direct, Self::Bypass]
            .into_iter()
            .find(|&method| method as u32 == flags & 7)
    }

    /// Its name in `/proc/net/ip_vs`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Masquerade => "Masq",
            Self::Local => "Local",
            Self::Tunnel => "Tunnel",
            Self::Direct => "Route",
            Self::Bypass => "Bypass",
        }
    }
}

/// What wraps packets to a real server behind a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelKind {
    /// `IP_VS_CONN_F_TUNNEL_TYPE_*`: 0 ipip, 1 gue, 2 gre.
    pub kind: u8,
    /// gue: the UDP port.
    pub port: u16,
    /// `IP_VS_TUNNEL_ENCAP_FLAG_*`: 0 nocsum, 1 csum, 2 remcsum.
    pub flags: u16,
}

/// A real server, as it is asked for and listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// How packets reach it.
    pub forwarding: Forwarding,
    /// What wraps them.
    pub tunnel: TunnelKind,
    /// Its share of new connections, not below 0 when it comes from a tool that keeps the rules.
    pub weight: i32,
    /// Connections from which on it gets no new one; 0: no limit.
    pub upper_threshold: u32,
    /// Connections below which it gets new ones again.
    pub lower_threshold: u32,
}

/// A real server that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationEntry {
    /// What it is.
    pub destination: Destination,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
    /// Clients that stay with it.
    pub persistent: u32,
    /// Its counters.
    pub stats: Stats,
}

/// A daemon that synchronises connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Daemon {
    /// 1 master, 2 backup.
    pub state: u32,
    /// The interface that it speaks on.
    pub interface: String,
    /// Which others it hears.
    pub sync_id: u32,
    /// Bytes of the longest message; 0: what fits.
    pub max_len: u16,
    /// The multicast group; none: 224.0.0.81.
    pub group: Option<IpAddr>,
    /// The UDP port; 0: 8848.
    pub port: u16,
    /// The messages' time to live; 0: 1.
    pub ttl: u8,
}

/// The timeouts that tools can change, in seconds. 0 in a request: as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Timeouts {
    pub tcp: u32,
    pub tcp_fin: u32,
    pub udp: u32,
}

/// A connection, as `/proc/net/ip_vs_conn` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// IP protocol number.
    pub protocol: u16,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The virtual ones.
    pub virtual_address: SocketAddr,
    /// The real server's.
    pub destination: SocketAddr,
    /// The state's name.
    pub state: String,
    /// Seconds until it expires.
    pub expires_seconds: u32,
}

/// What a tool asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Command {
    AddService(Service),
    EditService(Service),
    DeleteService(ServiceId),
    ListServices,
    GetService(ServiceId),
    AddDestination(ServiceId, Destination),
    EditDestination(ServiceId, Destination),
    DeleteDestination(ServiceId, (IpAddr, u16)),
    ListDestinations(ServiceId),
    StartDaemon(Daemon),
    StopDaemon(Daemon),
    ListDaemons,
    SetTimeouts(Timeouts),
    GetTimeouts,
    GetInfo,
    /// Counters to 0: of one service or of all.
    Zero(Option<ServiceId>),
    /// All services go.
    Flush,
}

impl Command {
    /// Whether it leaves everything as it is.
    pub fn only_reads(&self) -> bool {
        match self {
            Self::ListServices
            | Self::GetService(_)
            | Self::ListDestinations(_)
            | Self::ListDaemons
            | Self::GetTimeouts
            | Self::GetInfo => true,
            Self::AddService(_)
            | Self::EditService(_)
            | Self::DeleteService(_)
            | Self::AddDestination(..)
            | Self::EditDestination(..)
            | Self::DeleteDestination(..)
            | Self::StartDaemon(_)
            | Self::StopDaemon(_)
            | Self::SetTimeouts(_)
            | Self::Zero(_)
            | Self::Flush => false,
        }
    }
}

/// What a tool is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Answer {
    Done,
    Service(ServiceEntry),
    Services(Vec<ServiceEntry>),
    Destinations(Vec<DestinationEntry>),
    Daemons(Vec<Daemon>),
    Timeouts(Timeouts),
    Info { connection_table_size: u32 },
}
