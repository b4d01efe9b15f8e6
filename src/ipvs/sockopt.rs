//! The older way in: socket options `IP_VS_SO_SET_*` and `IP_VS_SO_GET_*` of a raw IPv4 socket, which tools fall back
//! to where there is no generic netlink family. IPv4 only, no tunnels, counters of 32 bits.
//!
//! Structures are those of include/uapi/linux/ip_vs.h as x86-64 and arm64 lay them out, in the machine's byte order
//! but for addresses, ports and the netmask, which are in the network's.

use std::net::{IpAddr, Ipv4Addr};

use bytemuck::{Pod, Zeroable, bytes_of, pod_read_unaligned};

use super::command::{
    Answer, Command, Daemon, Destination, DestinationEntry, Errno, Forwarding, Service, ServiceEntry, ServiceId, Stats,
    Timeouts, TunnelKind, VERSION,
};

/// `IP_VS_BASE_CTL`: the option number that all count from.
pub const BASE: i32 = 1152;
/// The highest option number that is IPVS's (`IP_VS_SO_SET_MAX`, 63 above the base).
pub const LAST: i32 = BASE + 63;

const SET_ADD: i32 = BASE + 2;
const SET_EDIT: i32 = BASE + 3;
const SET_DEL: i32 = BASE + 4;
const SET_FLUSH: i32 = BASE + 5;
const SET_ADDDEST: i32 = BASE + 7;
const SET_DELDEST: i32 = BASE + 8;
const SET_EDITDEST: i32 = BASE + 9;
const SET_TIMEOUT: i32 = BASE + 10;
const SET_STARTDAEMON: i32 = BASE + 11;
const SET_STOPDAEMON: i32 = BASE + 12;
const SET_ZERO: i32 = BASE + 15;

const GET_VERSION: i32 = BASE;
const GET_INFO: i32 = BASE + 1;
const GET_SERVICES: i32 = BASE + 2;
const GET_SERVICE: i32 = BASE + 3;
const GET_DESTS: i32 = BASE + 4;
const GET_TIMEOUT: i32 = BASE + 6;
const GET_DAEMON: i32 = BASE + 7;

/// Bytes of the longest version text.
const VERSION_LEN: usize = 64;

/// `struct ip_vs_service_user`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct ServiceUser {
    protocol: u16,
    padding: u16,
    address: [u8; 4],
    port: [u8; 2],
    padding_2: u16,
    mark: u32,
    scheduler: [u8; 16],
    flags: u32,
    timeout: u32,
    netmask: [u8; 4],
}

/// `struct ip_vs_dest_user`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct DestinationUser {
    address: [u8; 4],
    port: [u8; 2],
    padding: u16,
    connection_flags: u32,
    weight: i32,
    upper_threshold: u32,
    lower_threshold: u32,
}

/// `struct ip_vs_stats_user`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct StatsUser {
    connections: u32,
    in_packets: u32,
    out_packets: u32,
    padding: u32,
    in_bytes: u64,
    out_bytes: u64,
    rates: [u32; 5],
    padding_2: u32,
}

/// `struct ip_vs_service_entry`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct ServiceRecord {
    service: ServiceUser,
    destinations: u32,
    stats: StatsUser,
}

/// `struct ip_vs_dest_entry`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct DestinationRecord {
    destination: DestinationUser,
    active: u32,
    inactive: u32,
    persistent: u32,
    padding: u32,
    stats: StatsUser,
}

/// `struct ip_vs_get_services`, without its entries.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct ServicesHead {
    services: u32,
    padding: u32,
}

/// `struct ip_vs_get_dests`, without its entries.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct DestinationsHead {
    protocol: u16,
    padding: u16,
    address: [u8; 4],
    port: [u8; 2],
    padding_2: u16,
    mark: u32,
    destinations: u32,
    padding_3: u32,
}

/// `struct ip_vs_timeout_user`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct TimeoutUser {
    tcp: u32,
    tcp_fin: u32,
    udp: u32,
}

/// `struct ip_vs_daemon_user`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct DaemonUser {
    state: u32,
    interface: [u8; 16],
    sync_id: u32,
}

const _: () = assert!(size_of::<ServiceUser>() == 44 && size_of::<DestinationUser>() == 24);
const _: () = assert!(size_of::<ServiceRecord>() == 104 && size_of::<DestinationRecord>() == 96);
const _: () = assert!(size_of::<StatsUser>() == 56 && size_of::<DestinationsHead>() == 24);

/// A structure that must be all of `bytes`.
fn whole<T: Pod>(bytes: &[u8]) -> Result<T, Errno> {
    if bytes.len() == size_of::<T>() { Ok(pod_read_unaligned(bytes)) } else { Err(Errno::Invalid) }
}

/// A structure at the beginning of `bytes`.
fn leading<T: Pod>(bytes: &[u8]) -> Result<T, Errno> {
    bytes.get(..size_of::<T>()).map(pod_read_unaligned).ok_or(Errno::Invalid)
}

/// What setting an option asks for.
pub fn set(option: i32, value: &[u8]) -> Result<Command, Errno> {
    let service = || whole::<ServiceUser>(value);
    Ok(match option {
        SET_ADD => Command::AddService(service()?.service()?),
        SET_EDIT => Command::EditService(service()?.service()?),
        SET_DEL => Command::DeleteService(service()?.id()),
        SET_FLUSH if value.is_empty() => Command::Flush,
        SET_ADDDEST => with_destination(value, Command::AddDestination)?,
        SET_EDITDEST => with_destination(value, Command::EditDestination)?,
        SET_DELDEST => {
            let (service, destination) = service_and_destination(value)?;
            let key = (Ipv4Addr::from(destination.address).into(), u16::from_be_bytes(destination.port));
            Command::DeleteDestination(service.id(), key)
        }
        SET_TIMEOUT => {
            let TimeoutUser { tcp, tcp_fin, udp } = whole(value)?;
            Command::SetTimeouts(Timeouts { tcp, tcp_fin, udp })
        }
        SET_STARTDAEMON => Command::StartDaemon(whole::<DaemonUser>(value)?.daemon()?),
        SET_STOPDAEMON => Command::StopDaemon(whole::<DaemonUser>(value)?.daemon()?),
        SET_ZERO => {
            let service = service()?;
            Command::Zero((!service.names_nothing()).then(|| service.id()))
        }
        _ => return Err(Errno::Invalid),
    })
}

fn with_destination(value: &[u8], make: impl Fn(ServiceId, Destination) -> Command) -> Result<Command, Errno> {
    let (service, destination) = service_and_destination(value)?;
    Ok(make(service.id(), destination.destination()?))
}

fn service_and_destination(value: &[u8]) -> Result<(ServiceUser, DestinationUser), Errno> {
    let (service, destination) = value.split_at_checked(size_of::<ServiceUser>()).ok_or(Errno::Invalid)?;
    Ok((whole(service)?, whole(destination)?))
}

/// What getting an option asks for, which the caller's buffer says along with the option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The version as a text.
    Version,
    /// The version and two sizes.
    Info,
    /// As many services as there is room for.
    Services {
        /// How many.
        room: usize,
    },
    /// One service.
    Service(ServiceId),
    /// As many of its real servers as there is room for.
    Destinations {
        /// Whose.
        of: ServiceId,
        /// How many.
        room: usize,
    },
    /// The timeouts.
    Timeouts,
    /// The daemons that synchronise.
    Daemons,
}

impl Question {
    /// Reads one from what a buffer of `length` bytes begins with.
    pub fn parse(option: i32, buffer: &[u8], length: usize) -> Result<Self, Errno> {
        let room_for = |head: usize, entry: usize, entries: u32| {
            let entries = entries as usize;
            (entries.checked_mul(entry).and_then(|bytes| bytes.checked_add(head)) == Some(length))
                .then_some(entries)
                .ok_or(Errno::Invalid)
        };
        Ok(match option {
            GET_VERSION => Self::Version,
            GET_INFO if length >= 12 => Self::Info,
            GET_SERVICES => {
                let head: ServicesHead = leading(buffer)?;
                Self::Services { room: room_for(size_of_val(&head), size_of::<ServiceRecord>(), head.services)? }
            }
            GET_SERVICE if length == size_of::<ServiceRecord>() => Self::Service(leading::<ServiceUser>(buffer)?.id()),
            GET_DESTS => {
                let head: DestinationsHead = leading(buffer)?;
                let room = room_for(size_of_val(&head), size_of::<DestinationRecord>(), head.destinations)?;
                Self::Destinations { of: id_of(head.protocol, head.address, head.port, head.mark), room }
            }
            GET_TIMEOUT if length >= size_of::<TimeoutUser>() => Self::Timeouts,
            GET_DAEMON if length >= 2 * size_of::<DaemonUser>() => Self::Daemons,
            _ => return Err(Errno::Invalid),
        })
    }

    /// The command whose answer answers it.
    pub fn command(&self) -> Command {
        match *self {
            Self::Version | Self::Info | Self::Services { .. } => Command::ListServices,
            Self::Service(id) => Command::GetService(id),
            Self::Destinations { of, .. } => Command::ListDestinations(of),
            Self::Timeouts => Command::GetTimeouts,
            Self::Daemons => Command::ListDaemons,
        }
    }

    /// What the caller's buffer begins with afterwards: `before` is what it held, `table_size` is the connection table's.
    pub fn reply(&self, before: &[u8], answer: &Answer, table_size: u32) -> Result<Vec<u8>, Errno> {
        Ok(match (self, answer) {
            (Self::Version, _) => version_text(table_size).into_bytes(),
            (Self::Info, Answer::Services(services)) => {
                let services = services.iter().filter(|entry| !entry.service.id.is_ipv6()).count();
                let words = [VERSION, table_size, u32::try_from(services).unwrap_or(u32::MAX)];
                words.map(u32::to_ne_bytes).concat()
            }
            (Self::Services { room }, Answer::Services(services)) => services_reply(services, *room),
            (Self::Service(_), Answer::Service(entry)) => bytes_of(&ServiceRecord::from(entry)).to_vec(),
            (Self::Destinations { room, .. }, Answer::Destinations(entries)) => {
                destinations_reply(leading(before)?, entries, *room)
            }
            (Self::Timeouts, Answer::Timeouts(timeouts)) => {
                let Timeouts { tcp, tcp_fin, udp } = *timeouts;
                bytes_of(&TimeoutUser { tcp, tcp_fin, udp }).to_vec()
            }
            (Self::Daemons, Answer::Daemons(daemons)) => daemons_reply(daemons),
            _ => return Err(Errno::Invalid),
        })
    }
}

/// The text of `IP_VS_SO_GET_VERSION`, with its NUL.
fn version_text(table_size: u32) -> String {
    let [_, major, minor, patch] = VERSION.to_be_bytes();
    let mut text = format!("IP Virtual Server version {major}.{minor}.{patch} (size={table_size})\0");
    text.truncate(VERSION_LEN);
    text
}

fn services_reply(services: &[ServiceEntry], room: usize) -> Vec<u8> {
    let entries = services.iter().filter(|entry| !entry.service.id.is_ipv6()).take(room).map(ServiceRecord::from);
    let entries: Vec<_> = entries.collect();
    let head = ServicesHead { services: u32::try_from(entries.len()).unwrap_or(u32::MAX), padding: 0 };
    [bytes_of(&head), bytemuck::cast_slice(&entries)].concat()
}

fn destinations_reply(head: DestinationsHead, entries: &[DestinationEntry], room: usize) -> Vec<u8> {
    let entries: Vec<_> = entries.iter().filter_map(DestinationRecord::of).take(room).collect();
    let head = DestinationsHead { destinations: u32::try_from(entries.len()).unwrap_or(u32::MAX), ..head };
    [bytes_of(&head), bytemuck::cast_slice(&entries)].concat()
}

/// The master and the backup, in this order; one that does not run is all zeros.
fn daemons_reply(daemons: &[Daemon]) -> Vec<u8> {
    let mut pair = [DaemonUser::zeroed(); 2];
    for daemon in daemons {
        let place = &mut pair[usize::from(daemon.state == 2)];
        *place = DaemonUser { state: daemon.state, interface: name_of(&daemon.interface), sync_id: daemon.sync_id };
    }
    bytes_of(&pair).to_vec()
}

fn id_of(protocol: u16, address: [u8; 4], port: [u8; 2], mark: u32) -> ServiceId {
    match mark {
        0 => ServiceId::Address { protocol, address: Ipv4Addr::from(address).into(), port: u16::from_be_bytes(port) },
        mark => ServiceId::Mark { is_ipv6: false, mark },
    }
}

/// A name in a field that it need not fill.
fn text_of(field: &[u8]) -> Result<String, Errno> {
    let end = field.iter().position(|&byte| byte == 0).ok_or(Errno::Invalid)?;
    String::from_utf8(field[..end].to_vec()).map_err(|_| Errno::Invalid)
}

/// The field that a name goes into; a NUL ends it.
fn name_of(name: &str) -> [u8; 16] {
    let mut field = [0; 16];
    let length = name.len().min(15);
    field[..length].copy_from_slice(&name.as_bytes()[..length]);
    field
}

impl ServiceUser {
    fn id(&self) -> ServiceId {
        id_of(self.protocol, self.address, self.port, self.mark)
    }

    fn names_nothing(&self) -> bool {
        (self.protocol, self.address, self.port, self.mark) == (0, [0; 4], [0; 2], 0)
    }

    fn service(&self) -> Result<Service, Errno> {
        Ok(Service {
            id: self.id(),
            scheduler: text_of(&self.scheduler)?,
            flags: self.flags,
            flags_mask: u32::MAX,
            timeout: self.timeout,
            netmask: u32::from_be_bytes(self.netmask),
            persistence_engine: None,
        })
    }
}

impl DestinationUser {
    fn destination(&self) -> Result<Destination, Errno> {
        Ok(Destination {
            address: Ipv4Addr::from(self.address).into(),
            port: u16::from_be_bytes(self.port),
            forwarding: Forwarding::from_flags(self.connection_flags).ok_or(Errno::Invalid)?,
            tunnel: TunnelKind::default(),
            weight: self.weight,
            upper_threshold: self.upper_threshold,
            lower_threshold: self.lower_threshold,
        })
    }
}

impl DaemonUser {
    fn daemon(&self) -> Result<Daemon, Errno> {
        if ![1, 2].contains(&self.state) {
            return Err(Errno::Invalid);
        }
        let interface = text_of(&self.interface)?;
        Ok(Daemon { state: self.state, interface, sync_id: self.sync_id, ..Daemon::default() })
    }
}

impl From<&ServiceEntry> for ServiceRecord {
    fn from(entry: &ServiceEntry) -> Self {
        let (protocol, address, port, mark) = match entry.service.id {
            ServiceId::Address { protocol, address: IpAddr::V4(address), port } => (protocol, address, port, 0),
            ServiceId::Address { protocol, port, .. } => (protocol, Ipv4Addr::UNSPECIFIED, port, 0),
            ServiceId::Mark { mark, .. } => (0, Ipv4Addr::UNSPECIFIED, 0, mark),
        };
        let service = ServiceUser {
            protocol,
            address: address.octets(),
            port: port.to_be_bytes(),
            mark,
            scheduler: name_of(&entry.service.scheduler),
            flags: entry.service.flags,
            timeout: entry.service.timeout,
            netmask: entry.service.netmask.to_be_bytes(),
            ..ServiceUser::zeroed()
        };
        Self { service, destinations: entry.destinations, stats: (&entry.stats).into() }
    }
}

impl DestinationRecord {
    /// None: its address is not of this family.
    fn of(entry: &DestinationEntry) -> Option<Self> {
        let IpAddr::V4(address) = entry.destination.address else { return None };
        let destination = DestinationUser {
            address: address.octets(),
            port: entry.destination.port.to_be_bytes(),
            padding: 0,
            connection_flags: entry.destination.forwarding as u32,
            weight: entry.destination.weight,
            upper_threshold: entry.destination.upper_threshold,
            lower_threshold: entry.destination.lower_threshold,
        };
        let (active, inactive, persistent) = (entry.active, entry.inactive, entry.persistent);
        Some(Self { destination, active, inactive, persistent, padding: 0, stats: (&entry.stats).into() })
    }
}

impl From<&Stats> for StatsUser {
    #[expect(clippy::cast_possible_truncation, reason = "the old form has 32 bits, and wraps in the kernel too")]
    fn from(stats: &Stats) -> Self {
        let rates = [
            stats.connection_rate,
            stats.in_packet_rate,
            stats.out_packet_rate,
            stats.in_byte_rate,
            stats.out_byte_rate,
        ];
        Self {
            connections: stats.connections as u32,
            in_packets: stats.in_packets as u32,
            out_packets: stats.out_packets as u32,
            padding: 0,
            in_bytes: stats.in_bytes,
            out_bytes: stats.out_bytes,
            rates: rates.map(|rate| rate as u32),
            padding_2: 0,
        }
    }
}

#[cfg(test)]
mod tests;
