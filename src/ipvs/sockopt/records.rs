//! The structures of socket options, and what they stand for. They are those of include/uapi/linux/ip_vs.h as x86-64 and arm64
//! lay them out, in the machine's byte order but for addresses, ports and the netmask, which are in the network's.

use std::net::{IpAddr, Ipv4Addr};

use bytemuck::{Pod, Zeroable};

use crate::ipvs::command::{
    Daemon, Destination, DestinationEntry, Errno, Forwarding, Service, ServiceEntry, ServiceId, Stats, TunnelKind,
};

/// `struct ip_vs_service_user`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ServiceUser {
    pub(super) protocol: u16,
    pub(super) padding: u16,
    pub(super) address: [u8; 4],
    pub(super) port: [u8; 2],
    pub(super) padding_2: u16,
    pub(super) mark: u32,
    pub(super) scheduler: [u8; 16],
    pub(super) flags: u32,
    pub(super) timeout: u32,
    pub(super) netmask: [u8; 4],
}

/// `struct ip_vs_dest_user`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct DestinationUser {
    pub(super) address: [u8; 4],
    pub(super) port: [u8; 2],
    pub(super) padding: u16,
    pub(super) connection_flags: u32,
    pub(super) weight: i32,
    pub(super) upper_threshold: u32,
    pub(super) lower_threshold: u32,
}

/// `struct ip_vs_stats_user`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct StatsUser {
    pub(super) connections: u32,
    pub(super) in_packets: u32,
    pub(super) out_packets: u32,
    pub(super) padding: u32,
    pub(super) in_bytes: u64,
    pub(super) out_bytes: u64,
    pub(super) rates: [u32; 5],
    pub(super) padding_2: u32,
}

/// `struct ip_vs_service_entry`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ServiceRecord {
    pub(super) service: ServiceUser,
    pub(super) destinations: u32,
    pub(super) stats: StatsUser,
}

/// `struct ip_vs_dest_entry`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct DestinationRecord {
    pub(super) destination: DestinationUser,
    pub(super) active: u32,
    pub(super) inactive: u32,
    pub(super) persistent: u32,
    pub(super) padding: u32,
    pub(super) stats: StatsUser,
}

/// `struct ip_vs_get_services`, without its entries.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ServicesHead {
    pub(super) services: u32,
    pub(super) padding: u32,
}

/// `struct ip_vs_get_dests`, without its entries.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct DestinationsHead {
    pub(super) protocol: u16,
    pub(super) padding: u16,
    pub(super) address: [u8; 4],
    pub(super) port: [u8; 2],
    pub(super) padding_2: u16,
    pub(super) mark: u32,
    pub(super) destinations: u32,
    pub(super) padding_3: u32,
}

/// `struct ip_vs_timeout_user`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct TimeoutUser {
    pub(super) tcp: u32,
    pub(super) tcp_fin: u32,
    pub(super) udp: u32,
}

/// `struct ip_vs_daemon_user`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct DaemonUser {
    pub(super) state: u32,
    pub(super) interface: [u8; 16],
    pub(super) sync_id: u32,
}

const _: () = assert!(size_of::<ServiceUser>() == 44 && size_of::<DestinationUser>() == 24);
const _: () = assert!(size_of::<ServiceRecord>() == 104 && size_of::<DestinationRecord>() == 96);
const _: () = assert!(size_of::<StatsUser>() == 56 && size_of::<DestinationsHead>() == 24);

pub(super) fn id_of(protocol: u16, address: [u8; 4], port: [u8; 2], mark: u32) -> ServiceId {
    match mark {
        0 => ServiceId::Address { protocol, address: Ipv4Addr::from(address).into(), port: u16::from_be_bytes(port) },
        mark => ServiceId::Mark { is_ipv6: false, mark },
    }
}

/// A name in a field that it need not fill.
pub(super) fn text_of(field: &[u8]) -> Result<String, Errno> {
    let end = field.iter().position(|&byte| byte == 0).ok_or(Errno::Invalid)?;
    String::from_utf8(field[..end].to_vec()).map_err(|_| Errno::Invalid)
}

/// The field that a name goes into; a NUL ends it.
pub(super) fn name_of(name: &str) -> [u8; 16] {
    let mut field = [0; 16];
    let length = name.len().min(15);
    field[..length].copy_from_slice(&name.as_bytes()[..length]);
    field
}

impl ServiceUser {
    pub(super) fn id(&self) -> ServiceId {
        id_of(self.protocol, self.address, self.port, self.mark)
    }

    pub(super) fn names_nothing(&self) -> bool {
        (self.protocol, self.address, self.port, self.mark) == (0, [0; 4], [0; 2], 0)
    }

    pub(super) fn service(&self) -> Result<Service, Errno> {
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
    pub(super) fn destination(&self) -> Result<Destination, Errno> {
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
    pub(super) fn daemon(&self) -> Result<Daemon, Errno> {
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
    pub(super) fn of(entry: &DestinationEntry) -> Option<Self> {
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
