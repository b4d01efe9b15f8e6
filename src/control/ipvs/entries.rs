//! Services and real servers in IPVS's words, and back.
//!
//! FULLNAT has no name in IPVS: there a service has `flag-3`, and its real servers are masquerading ones.

use std::net::{IpAddr, SocketAddr};

use crate::balance::{
    ClientPrefix, Encapsulation, ForwardingMode, Mark, Persistence, Protocol, SchedulerFlag, SchedulerFlags,
    SchedulerKind, Tunnel, VirtualAddress,
};
use crate::control::protocol::{RealServerRow, ServiceName, ServiceRow, SessionRow, TemplateRow, TrafficTotals};
use crate::ipvs::{
    Connection, Destination, DestinationEntry, Errno, Forwarding, Service, ServiceEntry, ServiceId, Stats, TunnelKind,
    service_flags,
};

/// The flags that a service can have here, besides the one that the kernel sets by itself.
const KNOWN_FLAGS: u32 = service_flags::PERSISTENT
    | service_flags::ONE_PACKET
    | service_flags::SCHEDULER_1
    | service_flags::SCHEDULER_2
    | service_flags::SCHEDULER_3;

/// What the first and the second flag of a scheduler are called.
const SCHEDULER_FLAGS: [(SchedulerKind, u32, SchedulerFlag); 4] = [
    (SchedulerKind::Sh, service_flags::SCHEDULER_1, SchedulerFlag::ShFallback),
    (SchedulerKind::Sh, service_flags::SCHEDULER_2, SchedulerFlag::ShPort),
    (SchedulerKind::Mh, service_flags::SCHEDULER_1, SchedulerFlag::MhFallback),
    (SchedulerKind::Mh, service_flags::SCHEDULER_2, SchedulerFlag::MhPort),
];

/// `IP_VS_CONN_F_TUNNEL_TYPE_*`.
const IPIP: u8 = 0;
const GUE: u8 = 1;
const GRE: u8 = 2;
/// `IP_VS_TUNNEL_ENCAP_FLAG_CSUM`.
const CHECKSUM: u16 = 1;

/// The service that IPVS calls so. The others are refused.
pub(super) fn name_of(id: &ServiceId) -> Result<ServiceName, Errno> {
    match *id {
        ServiceId::Address { protocol, address, port } => {
            let number = u8::try_from(protocol).map_err(|_| Errno::NotSupported)?;
            let protocol = Protocol::from_number(number).ok_or(Errno::NotSupported)?;
            Ok(ServiceName { vip: SocketAddr::new(address, port).into(), protocol })
        }
        ServiceId::Mark { is_ipv6, mark } => {
            let mark = Mark::new(mark).ok_or(Errno::Invalid)?;
            Ok(ServiceName { vip: VirtualAddress::marked(mark, is_ipv6), protocol: Protocol::Any })
        }
    }
}

/// Whether a service asks only for what there is.
pub(super) fn check(service: &Service) -> Result<(), Errno> {
    let flags = service.flags & service.flags_mask & !service_flags::HASHED;
    // What the kernel says of one that is not there.
    if service.persistence_engine.is_some() {
        return Err(Errno::NoEntry);
    }
    if flags & !KNOWN_FLAGS != 0 { Err(Errno::NotSupported) } else { Ok(()) }
}

/// Whether a service schedules each packet on its own, by its flags.
pub(super) fn one_packet(flags: u32) -> bool {
    flags & service_flags::ONE_PACKET != 0
}

/// Seconds and prefix of a service's persistence, by the flags that it is to have; 0 without. A netmask other than of the first bits is refused.
pub(super) fn persistence(service: &Service, flags: u32) -> Result<(u32, Option<u8>), Errno> {
    if flags & service_flags::PERSISTENT == 0 {
        return Ok((0, None));
    }
    let is_ipv4 = !service.id.is_ipv6();
    let prefix = if is_ipv4 {
        ClientPrefix::of_netmask(service.netmask)
    } else {
        u8::try_from(service.netmask).ok().filter(|bits| (1..=128).contains(bits)).map(ClientPrefix)
    };
    let ClientPrefix(bits) = prefix.ok_or(Errno::Invalid)?;
    let timeout = if service.timeout == 0 { Err(Errno::Invalid) } else { Ok(service.timeout) };
    Ok((timeout?, Some(bits)))
}

/// A scheduler's flags. The kernel takes and ignores them with schedulers that have none; here they are refused.
pub(super) fn scheduler_flags(scheduler: SchedulerKind, flags: u32) -> Result<SchedulerFlags, Errno> {
    let own = || SCHEDULER_FLAGS.iter().filter(|(kind, bit, _)| *kind == scheduler && flags & bit != 0);
    let known = own().fold(0, |known, (_, bit, _)| known | bit);
    if flags & (service_flags::SCHEDULER_1 | service_flags::SCHEDULER_2) & !known != 0 {
        return Err(Errno::NotSupported);
    }
    Ok(own().map(|(_, _, flag)| *flag).collect())
}

/// The mode of real servers that are masquerading ones, by their service's flags.
pub(super) fn masquerading(flags: u32) -> ForwardingMode {
    if flags & service_flags::SCHEDULER_3 == 0 { ForwardingMode::Nat } else { ForwardingMode::Fullnat }
}

/// The flags that a service has where masquerading means this.
fn flags_of(mode: ForwardingMode) -> u32 {
    let fullnat = if mode == ForwardingMode::Fullnat { service_flags::SCHEDULER_3 } else { 0 };
    service_flags::HASHED | fullnat
}

/// A service's flags now.
pub(super) fn flags(row: &ServiceRow) -> u32 {
    let has_fullnat = row.real_servers.iter().any(|real| real.mode == ForwardingMode::Fullnat);
    let named =
        row.scheduler_flags.iter().filter_map(|flag| SCHEDULER_FLAGS.iter().find(|(_, _, named)| *named == flag));
    let scheduler = named.fold(0, |bits, (_, bit, _)| bits | bit);
    let persistent = if row.persistence > 0 { service_flags::PERSISTENT } else { 0 };
    let one_packet = if row.one_packet { service_flags::ONE_PACKET } else { 0 };
    persistent | one_packet | scheduler | flags_of(if has_fullnat { ForwardingMode::Fullnat } else { row.mode })
}

/// How packets reach a real server, and what wraps them.
pub(super) fn way_of(
    destination: &Destination,
    service: &ServiceRow,
) -> Result<(ForwardingMode, Option<Tunnel>), Errno> {
    match destination.forwarding {
        Forwarding::Masquerade => Ok((masquerading(flags(service)), None)),
        Forwarding::Direct => Ok((ForwardingMode::Dr, None)),
        Forwarding::Tunnel => Ok((ForwardingMode::Tun, Some(tunnel_of(destination.tunnel)?))),
        // Tools name the director's own host by its address, and there is no cache to pass by.
        Forwarding::Local | Forwarding::Bypass => Err(Errno::NotSupported),
    }
}

fn tunnel_of(wanted: TunnelKind) -> Result<Tunnel, Errno> {
    let encapsulation = match wanted.kind {
        IPIP => return Ok(Tunnel::default()),
        GUE if wanted.port == 0 => return Err(Errno::Invalid),
        GUE => Encapsulation::Gue,
        GRE => Encapsulation::Gre,
        _ => return Err(Errno::Invalid),
    };
    if wanted.flags & !CHECKSUM != 0 {
        return Err(Errno::NotSupported);
    }
    let port = if encapsulation == Encapsulation::Gue { wanted.port } else { 0 };
    Ok(Tunnel { encapsulation, port, checksum: wanted.flags & CHECKSUM != 0 })
}

/// A service as IPVS lists it. It has none of a range of ports.
pub(super) fn service(row: &ServiceRow, stats: Stats) -> Option<ServiceEntry> {
    let address = row.vip.address;
    Some(ServiceEntry {
        service: Service {
            id: id_of(row)?,
            scheduler: row.scheduler.name().to_owned(),
            flags: flags(row),
            flags_mask: u32::MAX,
            timeout: row.persistence,
            netmask: netmask(address.is_ipv4(), row.persistence_prefix),
            persistence_engine: None,
        },
        destinations: u32::try_from(row.real_servers.len()).unwrap_or(u32::MAX),
        stats,
    })
}

/// What IPVS calls a service; none: it has none of a range of ports.
fn id_of(row: &ServiceRow) -> Option<ServiceId> {
    let VirtualAddress { address, ports, mark } = row.vip;
    if let Some(mark) = mark {
        return Some(ServiceId::Mark { is_ipv6: address.is_ipv6(), mark: mark.number() });
    }
    let port = if ports.is_all() { 0 } else { ports.one()? };
    Some(ServiceId::Address { protocol: u16::from(row.protocol as u8), address, port })
}

fn netmask(is_ipv4: bool, prefix: Option<u8>) -> u32 {
    let prefix = prefix.unwrap_or(Persistence::longest_prefix(is_ipv4));
    if is_ipv4 { ClientPrefix(prefix).netmask() } else { prefix.into() }
}

/// A real server as IPVS lists it.
pub(super) fn destination(row: &RealServerRow, stats: Stats) -> DestinationEntry {
    let forwarding = match row.mode {
        ForwardingMode::Fullnat | ForwardingMode::Nat => Forwarding::Masquerade,
        ForwardingMode::Dr => Forwarding::Direct,
        ForwardingMode::Tun => Forwarding::Tunnel,
    };
    let count = |connections: u64| u32::try_from(connections).unwrap_or(u32::MAX);
    DestinationEntry {
        destination: Destination {
            address: row.address.ip(),
            port: row.address.port(),
            forwarding,
            tunnel: row.tunnel.map(tunnel_kind).unwrap_or_default(),
            weight: i32::try_from(row.weight.0).unwrap_or(i32::MAX),
            upper_threshold: row.upper_threshold,
            lower_threshold: row.lower_threshold,
        },
        active: count(row.active_connections),
        inactive: count(row.inactive_connections),
        persistent: row.persistent_connections,
        stats,
    }
}

fn tunnel_kind(tunnel: Tunnel) -> TunnelKind {
    let kind = match tunnel.encapsulation {
        Encapsulation::Ipip => IPIP,
        Encapsulation::Gue => GUE,
        Encapsulation::Gre => GRE,
    };
    TunnelKind { kind, port: tunnel.port, flags: if tunnel.checksum { CHECKSUM } else { 0 } }
}

/// A session as IPVS lists it. Those of source NAT are none of IPVS's.
pub(super) fn connection(row: SessionRow) -> Option<Connection> {
    let is_ipvs = row.mode.parse::<ForwardingMode>().is_ok();
    is_ipvs.then_some(Connection {
        protocol: u16::from(row.protocol as u8),
        client: row.client,
        virtual_address: row.vip,
        destination: row.real_server,
        state: row.state,
        expires_seconds: row.expires_seconds,
    })
}

/// A template as IPVS lists it, among the connections: without a client's port. A mark stands for the virtual address.
pub fn template(row: &TemplateRow) -> Connection {
    let of_mark = |mark: u32| match row.client {
        IpAddr::V4(_) => IpAddr::V4(mark.into()),
        IpAddr::V6(_) => {
            let [a, b, c, d] = mark.to_be_bytes();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        }
    };
    let marked = || SocketAddr::new(of_mark(row.mark.unwrap_or_default()), 0);
    Connection {
        protocol: row.protocol.map_or(0, |protocol| u16::from(protocol as u8)),
        client: SocketAddr::new(row.client, 0),
        virtual_address: row.vip.map_or_else(marked, |vip| SocketAddr::new(vip.address, vip.default_port())),
        destination: row.real_server,
        state: row.state.clone(),
        expires_seconds: row.expires_seconds,
    }
}

/// Counters without rates.
pub(super) fn stats(traffic: &TrafficTotals) -> Stats {
    Stats {
        connections: traffic.connections,
        in_packets: traffic.in_packets,
        out_packets: traffic.out_packets,
        in_bytes: traffic.in_bytes,
        out_bytes: traffic.out_bytes,
        ..Stats::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_go_there_and_back() {
        for wanted in [
            TunnelKind { kind: 0, port: 0, flags: 0 },
            TunnelKind { kind: 1, port: 6080, flags: 0 },
            TunnelKind { kind: 1, port: 6080, flags: 1 },
            TunnelKind { kind: 2, port: 0, flags: 1 },
        ] {
            assert_eq!(tunnel_of(wanted).map(tunnel_kind), Ok(wanted));
        }
        assert_eq!(tunnel_of(TunnelKind { kind: 1, port: 0, flags: 0 }), Err(Errno::Invalid));
        assert_eq!(tunnel_of(TunnelKind { kind: 3, port: 0, flags: 0 }), Err(Errno::Invalid));
        assert_eq!(tunnel_of(TunnelKind { kind: 1, port: 1, flags: 2 }), Err(Errno::NotSupported), "remote checksums");
    }

    #[test]
    fn a_schedulers_flags_are_its_own() {
        let flags = scheduler_flags(SchedulerKind::Sh, 0x38).unwrap();
        assert_eq!(flags.to_string(), "sh-fallback,sh-port");
        assert_eq!(scheduler_flags(SchedulerKind::Mh, 0x10).unwrap().to_string(), "mh-port");
        assert_eq!(scheduler_flags(SchedulerKind::Rr, 0x08), Err(Errno::NotSupported));
        assert_eq!(scheduler_flags(SchedulerKind::Rr, 0x20), Ok(SchedulerFlags::default()));
    }

    #[test]
    fn what_there_is_not_is_refused() {
        assert_eq!(name_of(&ServiceId::Mark { is_ipv6: false, mark: 0 }), Err(Errno::Invalid));
        let marked = name_of(&ServiceId::Mark { is_ipv6: true, mark: 7 }).unwrap();
        assert_eq!((marked.vip.to_string().as_str(), marked.protocol), ("fwmark:7/ipv6", Protocol::Any));
        let address = "10.0.0.100".parse().unwrap();
        assert_eq!(name_of(&ServiceId::Address { protocol: 300, address, port: 80 }), Err(Errno::NotSupported));
        let name = name_of(&ServiceId::Address { protocol: 6, address, port: 80 }).unwrap();
        assert_eq!((name.vip.to_string().as_str(), name.protocol), ("10.0.0.100:80", Protocol::Tcp));
    }
}
