//! Commands out of attributes, and the entries of listings, with the checks of `ip_vs_genl_parse_service` and its neighbours (ip_vs_ctl.c).

use crate::ipvs::attributes::{AF_INET, AF_INET6, Attributes, family_of};
use crate::ipvs::command::{
    Command, Daemon, Destination, DestinationEntry, Errno, Forwarding, Service, ServiceEntry, ServiceId, Stats,
    Timeouts, TunnelKind,
};

/// `IPVS_CMD_*`.
pub(super) mod commands {
    pub(crate) const NEW_SERVICE: u8 = 1;
    pub(crate) const SET_SERVICE: u8 = 2;
    pub(crate) const DEL_SERVICE: u8 = 3;
    pub(crate) const GET_SERVICE: u8 = 4;
    pub(crate) const NEW_DEST: u8 = 5;
    pub(crate) const SET_DEST: u8 = 6;
    pub(crate) const DEL_DEST: u8 = 7;
    pub(crate) const GET_DEST: u8 = 8;
    pub(crate) const NEW_DAEMON: u8 = 9;
    pub(crate) const DEL_DAEMON: u8 = 10;
    pub(crate) const GET_DAEMON: u8 = 11;
    pub(crate) const SET_CONFIG: u8 = 12;
    pub(crate) const GET_CONFIG: u8 = 13;
    pub(crate) const SET_INFO: u8 = 14;
    pub(crate) const GET_INFO: u8 = 15;
    pub(crate) const ZERO: u8 = 16;
    pub(crate) const FLUSH: u8 = 17;
}

/// `IPVS_CMD_ATTR_*`.
pub(super) mod top {
    pub(crate) const SERVICE: u16 = 1;
    pub(crate) const DEST: u16 = 2;
    pub(crate) const DAEMON: u16 = 3;
    pub(crate) const TIMEOUT_TCP: u16 = 4;
    pub(crate) const TIMEOUT_TCP_FIN: u16 = 5;
    pub(crate) const TIMEOUT_UDP: u16 = 6;
}

/// `IPVS_SVC_ATTR_*`.
pub(super) mod service {
    pub(crate) const AF: u16 = 1;
    pub(crate) const PROTOCOL: u16 = 2;
    pub(crate) const ADDR: u16 = 3;
    pub(crate) const PORT: u16 = 4;
    pub(crate) const FWMARK: u16 = 5;
    pub(crate) const SCHED_NAME: u16 = 6;
    pub(crate) const FLAGS: u16 = 7;
    pub(crate) const TIMEOUT: u16 = 8;
    pub(crate) const NETMASK: u16 = 9;
    pub(crate) const STATS: u16 = 10;
    pub(crate) const PE_NAME: u16 = 11;
    pub(crate) const STATS64: u16 = 12;
}

/// `IPVS_DEST_ATTR_*`.
pub(super) mod destination {
    pub(crate) const ADDR: u16 = 1;
    pub(crate) const PORT: u16 = 2;
    pub(crate) const FWD_METHOD: u16 = 3;
    pub(crate) const WEIGHT: u16 = 4;
    pub(crate) const U_THRESH: u16 = 5;
    pub(crate) const L_THRESH: u16 = 6;
    pub(crate) const ACTIVE_CONNS: u16 = 7;
    pub(crate) const INACT_CONNS: u16 = 8;
    pub(crate) const PERSIST_CONNS: u16 = 9;
    pub(crate) const STATS: u16 = 10;
    pub(crate) const ADDR_FAMILY: u16 = 11;
    pub(crate) const STATS64: u16 = 12;
    pub(crate) const TUN_TYPE: u16 = 13;
    pub(crate) const TUN_PORT: u16 = 14;
    pub(crate) const TUN_FLAGS: u16 = 15;
}

/// `IPVS_DAEMON_ATTR_*`.
pub(super) mod daemon {
    pub(crate) const STATE: u16 = 1;
    pub(crate) const MCAST_IFN: u16 = 2;
    pub(crate) const SYNC_ID: u16 = 3;
    pub(crate) const SYNC_MAXLEN: u16 = 4;
    pub(crate) const MCAST_GROUP: u16 = 5;
    pub(crate) const MCAST_GROUP6: u16 = 6;
    pub(crate) const MCAST_PORT: u16 = 7;
    pub(crate) const MCAST_TTL: u16 = 8;
}

/// Longest name of a scheduler (`IP_VS_SCHEDNAME_MAXLEN`), of a persistence engine, and of an interface, NUL left out.
const LONGEST_NAME: usize = 15;

/// What a message asks for.
pub(super) fn command(number: u8, is_dump: bool, attributes: &Attributes<'_>) -> Result<Command, Errno> {
    Ok(match number {
        commands::NEW_SERVICE => Command::AddService(service_of(attributes)?),
        commands::SET_SERVICE => Command::EditService(service_of(attributes)?),
        commands::DEL_SERVICE => Command::DeleteService(service_id(attributes)?),
        commands::GET_SERVICE if is_dump => Command::ListServices,
        commands::GET_SERVICE => Command::GetService(service_id(attributes)?),
        commands::NEW_DEST => destination_of(attributes).map(|(id, new)| Command::AddDestination(id, new))?,
        commands::SET_DEST => destination_of(attributes).map(|(id, new)| Command::EditDestination(id, new))?,
        commands::DEL_DEST => destination_key(attributes)?,
        commands::GET_DEST if is_dump => Command::ListDestinations(service_id(attributes)?),
        commands::NEW_DAEMON => Command::StartDaemon(daemon_of(attributes, true)?),
        commands::DEL_DAEMON => Command::StopDaemon(daemon_of(attributes, false)?),
        commands::GET_DAEMON if is_dump => Command::ListDaemons,
        commands::SET_CONFIG => Command::SetTimeouts(timeouts(attributes)?),
        commands::GET_CONFIG => Command::GetTimeouts,
        commands::GET_INFO => Command::GetInfo,
        commands::ZERO if attributes.has(top::SERVICE) => Command::Zero(Some(service_id(attributes)?)),
        commands::ZERO => Command::Zero(None),
        commands::FLUSH => Command::Flush,
        _ => return Err(Errno::NotSupported),
    })
}

fn service_nest<'a>(attributes: &Attributes<'a>) -> Result<(Attributes<'a>, u16), Errno> {
    let nest = attributes.nest(top::SERVICE)?.ok_or(Errno::Invalid)?;
    match nest.u16(service::AF)?.ok_or(Errno::Invalid)? {
        family @ (AF_INET | AF_INET6) => Ok((nest, family)),
        _ => Err(Errno::FamilyNotSupported),
    }
}

fn service_id(attributes: &Attributes<'_>) -> Result<ServiceId, Errno> {
    let (nest, family) = service_nest(attributes)?;
    if let Some(mark) = nest.u32(service::FWMARK)?.filter(|&mark| mark != 0) {
        return Ok(ServiceId::Mark { is_ipv6: family == AF_INET6, mark });
    }
    Ok(ServiceId::Address {
        protocol: nest.u16(service::PROTOCOL)?.ok_or(Errno::Invalid)?,
        address: nest.address(service::ADDR, family)?.ok_or(Errno::Invalid)?,
        port: nest.be16(service::PORT)?.ok_or(Errno::Invalid)?,
    })
}

fn service_of(attributes: &Attributes<'_>) -> Result<Service, Errno> {
    let id = service_id(attributes)?;
    let (nest, family) = service_nest(attributes)?;
    let (flags, flags_mask) = nest.u32_pair(service::FLAGS)?.ok_or(Errno::Invalid)?;
    let netmask = if family == AF_INET { nest.be32(service::NETMASK)? } else { nest.u32(service::NETMASK)? };
    Ok(Service {
        id,
        scheduler: nest.text(service::SCHED_NAME, LONGEST_NAME)?.unwrap_or("none").to_owned(),
        flags,
        flags_mask,
        timeout: nest.u32(service::TIMEOUT)?.ok_or(Errno::Invalid)?,
        netmask: netmask.ok_or(Errno::Invalid)?,
        persistence_engine: nest
            .text(service::PE_NAME, LONGEST_NAME)?
            .filter(|name| !name.is_empty())
            .map(str::to_owned),
    })
}

/// A real server's nest, and the family of its address: its service's unless it says another.
fn destination_nest<'a>(attributes: &Attributes<'a>) -> Result<(ServiceId, Attributes<'a>, u16), Errno> {
    let id = service_id(attributes)?;
    let nest = attributes.nest(top::DEST)?.ok_or(Errno::Invalid)?;
    let family = nest.u16(destination::ADDR_FAMILY)?.filter(|&family| family != 0);
    Ok((id, nest, family.unwrap_or(family_of(id.is_ipv6()))))
}

fn destination_key(attributes: &Attributes<'_>) -> Result<Command, Errno> {
    let (id, nest, family) = destination_nest(attributes)?;
    let address = nest.address(destination::ADDR, family)?.ok_or(Errno::Invalid)?;
    let port = nest.be16(destination::PORT)?.ok_or(Errno::Invalid)?;
    Ok(Command::DeleteDestination(id, (address, port)))
}

fn destination_of(attributes: &Attributes<'_>) -> Result<(ServiceId, Destination), Errno> {
    let (id, nest, family) = destination_nest(attributes)?;
    Ok((id, destination_in(&nest, family)?))
}

/// A real server out of its nest.
fn destination_in(nest: &Attributes<'_>, family: u16) -> Result<Destination, Errno> {
    let flags = nest.u32(destination::FWD_METHOD)?.ok_or(Errno::Invalid)?;
    Ok(Destination {
        address: nest.address(destination::ADDR, family)?.ok_or(Errno::Invalid)?,
        port: nest.be16(destination::PORT)?.ok_or(Errno::Invalid)?,
        forwarding: Forwarding::from_flags(flags).ok_or(Errno::Invalid)?,
        tunnel: TunnelKind {
            kind: nest.u8(destination::TUN_TYPE)?.unwrap_or(0),
            port: nest.be16(destination::TUN_PORT)?.unwrap_or(0),
            flags: nest.u16(destination::TUN_FLAGS)?.unwrap_or(0),
        },
        weight: nest.u32(destination::WEIGHT)?.ok_or(Errno::Invalid)?.cast_signed(),
        upper_threshold: nest.u32(destination::U_THRESH)?.ok_or(Errno::Invalid)?,
        lower_threshold: nest.u32(destination::L_THRESH)?.ok_or(Errno::Invalid)?,
    })
}

/// A service that a listing tells of.
pub(super) fn service_entry(attributes: &Attributes<'_>) -> Result<ServiceEntry, Errno> {
    let (nest, _) = service_nest(attributes)?;
    // How many real servers it has is not told.
    Ok(ServiceEntry { service: service_of(attributes)?, destinations: 0, stats: stats(&nest, service::STATS64)? })
}

/// A real server that a listing tells of.
pub(super) fn destination_entry(attributes: &Attributes<'_>) -> Result<DestinationEntry, Errno> {
    let nest = attributes.nest(top::DEST)?.ok_or(Errno::Invalid)?;
    let family = nest.u16(destination::ADDR_FAMILY)?.ok_or(Errno::Invalid)?;
    Ok(DestinationEntry {
        destination: destination_in(&nest, family)?,
        active: nest.u32(destination::ACTIVE_CONNS)?.ok_or(Errno::Invalid)?,
        inactive: nest.u32(destination::INACT_CONNS)?.ok_or(Errno::Invalid)?,
        persistent: nest.u32(destination::PERSIST_CONNS)?.ok_or(Errno::Invalid)?,
        stats: stats(&nest, destination::STATS64)?,
    })
}

/// Counters and rates, as `write` lays them out.
fn stats(entry: &Attributes<'_>, kind: u16) -> Result<Stats, Errno> {
    let nest = entry.nest(kind)?.ok_or(Errno::Invalid)?;
    let number = |kind| nest.u64(kind)?.ok_or(Errno::Invalid);
    Ok(Stats {
        connections: number(1)?,
        in_packets: number(2)?,
        out_packets: number(3)?,
        in_bytes: number(4)?,
        out_bytes: number(5)?,
        connection_rate: number(6)?,
        in_packet_rate: number(7)?,
        out_packet_rate: number(8)?,
        in_byte_rate: number(9)?,
        out_byte_rate: number(10)?,
    })
}

pub(super) fn daemon_of(attributes: &Attributes<'_>, is_whole: bool) -> Result<Daemon, Errno> {
    let nest = attributes.nest(top::DAEMON)?.ok_or(Errno::Invalid)?;
    let interface = nest.text(daemon::MCAST_IFN, LONGEST_NAME)?;
    let sync_id = nest.u32(daemon::SYNC_ID)?;
    if is_whole && (interface.is_none() || sync_id.is_none()) {
        return Err(Errno::Invalid);
    }
    let group = match nest.address(daemon::MCAST_GROUP, AF_INET)? {
        None => nest.address(daemon::MCAST_GROUP6, AF_INET6)?,
        group => group,
    };
    Ok(Daemon {
        state: nest.u32(daemon::STATE)?.filter(|state| [1, 2].contains(state)).ok_or(Errno::Invalid)?,
        interface: interface.unwrap_or_default().to_owned(),
        sync_id: sync_id.unwrap_or(0),
        max_len: nest.u16(daemon::SYNC_MAXLEN)?.unwrap_or(0),
        group,
        port: nest.u16(daemon::MCAST_PORT)?.unwrap_or(0),
        ttl: nest.u8(daemon::MCAST_TTL)?.unwrap_or(0),
    })
}

pub(super) fn timeouts(attributes: &Attributes<'_>) -> Result<Timeouts, Errno> {
    Ok(Timeouts {
        tcp: attributes.u32(top::TIMEOUT_TCP)?.unwrap_or(0),
        tcp_fin: attributes.u32(top::TIMEOUT_TCP_FIN)?.unwrap_or(0),
        udp: attributes.u32(top::TIMEOUT_UDP)?.unwrap_or(0),
    })
}
