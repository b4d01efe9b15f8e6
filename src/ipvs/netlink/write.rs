//! Messages out of answers, laid out as `ip_vs_genl_fill_service` and its neighbours do (ip_vs_ctl.c).

use std::net::IpAddr;

use netlink_packet_core::{DoneMessage, NetlinkHeader, NetlinkPayload, NetlinkSerializable};

use super::read::{commands, daemon, destination, service, top};
use super::{FAMILY, FAMILY_VERSION, GENERIC_HEADER_LEN, Message};
use crate::ipvs::attributes::{Builder, family_of};
use crate::ipvs::command::{
    Answer, Daemon, Destination, DestinationEntry, Service, ServiceEntry, ServiceId, Stats, Timeouts, VERSION,
};

/// `IPVS_INFO_ATTR_*`.
pub(super) const INFO_VERSION: u16 = 1;
pub(super) const INFO_CONN_TAB_SIZE: u16 = 2;

const NLM_F_MULTI: u16 = 2;

/// Bytes of the longest datagram of a dump: what libnl reads at once.
const LONGEST_DATAGRAM: usize = 16 << 10;

/// A message of a generic netlink family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Generic {
    pub(super) family: u16,
    pub(super) command: u8,
    pub(super) version: u8,
    pub(super) attributes: Builder,
}

impl NetlinkSerializable for Generic {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        GENERIC_HEADER_LEN + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, rest) = buffer.split_at_mut(GENERIC_HEADER_LEN);
        header.copy_from_slice(&[self.command, self.version, 0, 0]);
        self.attributes.emit(rest);
    }
}

/// One message in a datagram of its own, in answer to the one with this header.
pub(super) fn message(to: &NetlinkHeader, flags: u16, payload: NetlinkPayload<Generic>) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = to.sequence_number;
    header.port_number = to.port_number;
    let mut message = Message::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// The datagrams of a dump.
pub(super) fn datagrams(to: &NetlinkHeader, messages: &[Generic]) -> Vec<Vec<u8>> {
    let mut datagrams: Vec<Vec<u8>> = Vec::new();
    for one in messages {
        // Attributes are filled up to whole words, so that each message begins on one.
        let bytes = message(to, NLM_F_MULTI, NetlinkPayload::InnerMessage(one.clone()));
        match datagrams.last_mut() {
            Some(last) if last.len() + bytes.len() <= LONGEST_DATAGRAM => last.extend_from_slice(&bytes),
            _ => datagrams.push(bytes),
        }
    }
    datagrams.push(message(to, NLM_F_MULTI, NetlinkPayload::Done(DoneMessage::default())));
    datagrams
}

/// The messages that an answer is made of.
pub(super) fn messages(answer: &Answer) -> Vec<Generic> {
    let of = |command, attributes| Generic { family: FAMILY, command, version: FAMILY_VERSION, attributes };
    let nested = |command, kind, nest: &Builder| of(command, Builder::default().nest(kind, nest));
    let service = |entry: &ServiceEntry| nested(commands::NEW_SERVICE, top::SERVICE, &service_nest(entry));
    match answer {
        Answer::Done => Vec::new(),
        Answer::Service(entry) => vec![service(entry)],
        Answer::Services(entries) => entries.iter().map(service).collect(),
        Answer::Destinations(entries) => {
            entries.iter().map(|entry| nested(commands::NEW_DEST, top::DEST, &destination_nest(entry))).collect()
        }
        Answer::Daemons(daemons) => {
            daemons.iter().map(|daemon| nested(commands::NEW_DAEMON, top::DAEMON, &daemon_nest(daemon))).collect()
        }
        Answer::Timeouts(timeouts) => vec![of(commands::SET_CONFIG, timeout_attributes(timeouts))],
        Answer::Info { connection_table_size } => {
            let info = Builder::default().u32(INFO_VERSION, VERSION).u32(INFO_CONN_TAB_SIZE, *connection_table_size);
            vec![of(commands::SET_INFO, info)]
        }
    }
}

fn service_nest(entry: &ServiceEntry) -> Builder {
    service_settings(&entry.service)
        .nest(service::STATS, &stats(&entry.stats))
        .nest(service::STATS64, &stats64(&entry.stats))
}

/// What names a service.
pub(super) fn service_name(id: &ServiceId) -> Builder {
    let nest = Builder::default().u16(service::AF, family_of(id.is_ipv6()));
    match *id {
        ServiceId::Mark { mark, .. } => nest.u32(service::FWMARK, mark),
        ServiceId::Address { protocol, address, port } => {
            nest.u16(service::PROTOCOL, protocol).address(service::ADDR, address).be16(service::PORT, port)
        }
    }
}

/// A service without its counters.
pub(super) fn service_settings(named: &Service) -> Builder {
    let nest = service_name(&named.id).text(service::SCHED_NAME, &named.scheduler);
    let nest = match &named.persistence_engine {
        Some(engine) => nest.text(service::PE_NAME, engine),
        None => nest,
    };
    let nest = nest
        .bytes(service::FLAGS, &[named.flags.to_ne_bytes(), named.flags_mask.to_ne_bytes()].concat())
        .u32(service::TIMEOUT, named.timeout);
    match named.id.is_ipv6() {
        false => nest.be32(service::NETMASK, named.netmask),
        true => nest.u32(service::NETMASK, named.netmask),
    }
}

fn destination_nest(entry: &DestinationEntry) -> Builder {
    destination_settings(&entry.destination)
        .u32(destination::ACTIVE_CONNS, entry.active)
        .u32(destination::INACT_CONNS, entry.inactive)
        .u32(destination::PERSIST_CONNS, entry.persistent)
        .nest(destination::STATS, &stats(&entry.stats))
        .nest(destination::STATS64, &stats64(&entry.stats))
}

/// What names a real server.
pub(super) fn destination_name(address: IpAddr, port: u16) -> Builder {
    Builder::default()
        .u16(destination::ADDR_FAMILY, family_of(address.is_ipv6()))
        .address(destination::ADDR, address)
        .be16(destination::PORT, port)
}

/// A real server without its counters.
pub(super) fn destination_settings(named: &Destination) -> Builder {
    destination_name(named.address, named.port)
        .u32(destination::FWD_METHOD, named.forwarding as u32)
        .u32(destination::WEIGHT, named.weight.cast_unsigned())
        .bytes(destination::TUN_TYPE, &[named.tunnel.kind])
        .be16(destination::TUN_PORT, named.tunnel.port)
        .u16(destination::TUN_FLAGS, named.tunnel.flags)
        .u32(destination::U_THRESH, named.upper_threshold)
        .u32(destination::L_THRESH, named.lower_threshold)
}

pub(super) fn daemon_nest(running: &Daemon) -> Builder {
    let nest = Builder::default()
        .u32(daemon::STATE, running.state)
        .text(daemon::MCAST_IFN, &running.interface)
        .u32(daemon::SYNC_ID, running.sync_id)
        .u16(daemon::SYNC_MAXLEN, running.max_len)
        .u16(daemon::MCAST_PORT, running.port)
        .bytes(daemon::MCAST_TTL, &[running.ttl]);
    match running.group {
        None => nest,
        Some(IpAddr::V4(group)) => nest.bytes(daemon::MCAST_GROUP, &group.octets()),
        Some(IpAddr::V6(group)) => nest.bytes(daemon::MCAST_GROUP6, &group.octets()),
    }
}

pub(super) fn timeout_attributes(timeouts: &Timeouts) -> Builder {
    Builder::default()
        .u32(top::TIMEOUT_TCP, timeouts.tcp)
        .u32(top::TIMEOUT_TCP_FIN, timeouts.tcp_fin)
        .u32(top::TIMEOUT_UDP, timeouts.udp)
}

/// `IPVS_STATS_ATTR_*`: ten counters and rates, in this order, from 1 on.
fn numbers(stats: &Stats) -> [u64; 10] {
    [
        stats.connections,
        stats.in_packets,
        stats.out_packets,
        stats.in_bytes,
        stats.out_bytes,
        stats.connection_rate,
        stats.in_packet_rate,
        stats.out_packet_rate,
        stats.in_byte_rate,
        stats.out_byte_rate,
    ]
}

/// Bytes are whole words, the others the lower half of theirs.
#[expect(clippy::cast_possible_truncation, reason = "the old form has 32 bits, and wraps in the kernel too")]
fn stats(stats: &Stats) -> Builder {
    (1..).zip(numbers(stats)).fold(Builder::default(), |nest, (kind, number)| match kind {
        4 | 5 => nest.u64(kind, number),
        _ => nest.u32(kind, number as u32),
    })
}

fn stats64(stats: &Stats) -> Builder {
    (1..).zip(numbers(stats)).fold(Builder::default(), |nest, (kind, number)| nest.u64(kind, number))
}
