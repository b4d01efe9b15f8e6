//! The older way in: socket options `IP_VS_SO_SET_*` and `IP_VS_SO_GET_*` of a raw IPv4 socket, which tools fall back
//! to where there is no generic netlink family. IPv4 only, no tunnels, counters of 32 bits.

mod records;

use std::net::Ipv4Addr;

use bytemuck::{Pod, Zeroable, bytes_of, pod_read_unaligned};

use self::records::{
    DaemonUser, DestinationRecord, DestinationUser, DestinationsHead, ServiceRecord, ServiceUser, ServicesHead,
    TimeoutUser, id_of, name_of,
};
use super::command::{
    Answer, Command, Daemon, Destination, DestinationEntry, Errno, ServiceEntry, ServiceId, Timeouts, VERSION,
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
            // ipvsadm's own record is longer.
            GET_SERVICE if length >= size_of::<ServiceRecord>() => Self::Service(leading::<ServiceUser>(buffer)?.id()),
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

#[cfg(test)]
mod tests;
