//! Packets made by the input's decisions: mostly sound, so that they get deep, and wrong in every way now and then.

use std::net::IpAddr;

use super::bytes::Bytes;
use super::gateway::{GUE_PORT, MACS};
use crate::targets::network::{
    GRE, ICMP, ICMP6, IPV4_IN_IP, IPV6_IN_IP, Ip, SCTP, TCP, UDP, ones_complement, pseudo_header, sctp_checksum,
};
use fullgate::port::PortId;

/// Clients, VIPs, local addresses, real servers, addresses of the gateway itself, and such as no packet should have.
const IPV4: [&str; 20] = [
    "10.0.0.2",
    "10.0.0.100",
    "198.18.0.7",
    "10.0.0.100",
    "10.0.0.2",
    "10.1.0.200",
    "10.1.0.11",
    "10.1.0.12",
    "10.1.0.201",
    "172.16.0.1",
    "198.18.0.8",
    "10.0.0.1",
    "10.1.0.1",
    "10.0.0.255",
    "192.0.2.1",
    "0.0.0.0",
    "255.255.255.255",
    "127.0.0.1",
    "224.0.0.5",
    "250.1.2.3",
];
const IPV6: [&str; 20] = [
    "2001:db8::2",
    "2001:db8::100",
    "2001:db8:8::7",
    "2001:db8::100",
    "2001:db8::2",
    "2001:db8:1::200",
    "2001:db8:1::11",
    "2001:db8:1::12",
    "2001:db8:1::201",
    "2001:db8:9::1",
    "2001:db8:8::8",
    "2001:db8::1",
    "2001:db8:1::1",
    "ff02::1",
    "fe80::1",
    "::",
    "::1",
    "::ffff:10.0.0.2",
    "64:ff9b::a00:2",
    "::ffff:10.1.0.11",
];
const PORTS: [u16; 24] = [
    80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 95, 8080, 8081, 1024, 1025, 1031, 1039, GUE_PORT, 40_000, 40_001, 53,
    0, 65_535,
];
const TCP_FLAGS: [u8; 10] = [0x02, 0x12, 0x10, 0x18, 0x11, 0x14, 0x04, 0x01, 0x00, 0x29];
const PROTOCOLS: [u8; 16] =
    [TCP, UDP, TCP, UDP, TCP, UDP, UDP, TCP, ICMP, ICMP6, GRE, IPV4_IN_IP, IPV6_IN_IP, SCTP, 59, 255];
const SCTP_CHUNKS: [u8; 16] = [1, 1, 1, 0, 2, 10, 11, 3, 7, 8, 14, 6, 9, 4, 1, 192];
const EXTENSIONS: [u8; 8] = [60, 44, 0, 43, 60, 51, 135, 59];

/// How deep packets quote or wrap packets.
const DEPTH: u8 = 2;

/// From whom to whom.
#[derive(Clone, Copy)]
pub struct Ends {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ports: (u16, u16),
}

/// Any packet.
pub fn any(bytes: &mut Bytes<'_>) -> Vec<u8> {
    nested(bytes, 0)
}

fn nested(bytes: &mut Bytes<'_>, depth: u8) -> Vec<u8> {
    let list = if bytes.byte() & 1 == 0 { IPV4 } else { IPV6 };
    // The first is a client, the second a virtual address: what an input is too short to say is a client's question.
    let mut address = |first: usize| list[(first + bytes.below(list.len())) % list.len()].parse().unwrap();
    let (source, destination) = (address(0), address(1));
    let ports = (40_000 + u16::from(bytes.byte() & 15), bytes.one_of(&PORTS));
    let ports = if bytes.rarely() { (bytes.one_of(&PORTS), bytes.word()) } else { ports };
    let protocol = bytes.one_of(&PROTOCOLS);
    of_protocol(bytes, Ends { source, destination, ports }, protocol, depth)
}

/// A packet between these ends.
pub fn between(bytes: &mut Bytes<'_>, ends: Ends, protocol: u8) -> Vec<u8> {
    of_protocol(bytes, ends, protocol, 0)
}

/// An ICMP error to the source of a packet, or to whom the input says, about that packet.
pub fn error_about(bytes: &mut Bytes<'_>, quoted: &Ip<'_>) -> Vec<u8> {
    let (source, destination) = (quoted.destination, quoted.source);
    let source = if bytes.rarely() { any_like(bytes, source) } else { source };
    let protocol = if source.is_ipv4() { ICMP } else { ICMP6 };
    let mut quote = quoted.bytes.to_vec();
    mangle(bytes, &mut quote);
    let message = error(bytes, &quote);
    ip(bytes, Ends { source, destination, ports: (0, 0) }, protocol, message)
}

fn any_like(bytes: &mut Bytes<'_>, address: IpAddr) -> IpAddr {
    if address.is_ipv4() { bytes.one_of(&IPV4) } else { bytes.one_of(&IPV6) }.parse().unwrap()
}

fn of_protocol(bytes: &mut Bytes<'_>, ends: Ends, protocol: u8, depth: u8) -> Vec<u8> {
    let payload = match protocol {
        TCP => tcp(bytes, ends.ports),
        UDP => udp(bytes, ends.ports),
        SCTP => sctp(bytes, ends.ports),
        _ if depth >= DEPTH => payload(bytes),
        ICMP | ICMP6 => {
            let quote = nested(bytes, depth + 1);
            error(bytes, &quote)
        }
        GRE => [&[bytes.byte() & 0xb0, 0, 8, 0, 0, 0, 0, 0][..], &nested(bytes, depth + 1)].concat(),
        IPV4_IN_IP | IPV6_IN_IP => nested(bytes, depth + 1),
        _ => payload(bytes),
    };
    ip(bytes, ends, protocol, payload)
}

fn tcp(bytes: &mut Bytes<'_>, ports: (u16, u16)) -> Vec<u8> {
    let flags = bytes.one_of(&TCP_FLAGS);
    let words = if bytes.rarely() { bytes.byte() >> 4 } else { 5 };
    let mut header = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    header.extend([0, 0, 0, 1, 0, 0, 0, 2, words << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    header.resize(header.len().max(usize::from(words) * 4), 1);
    header.extend(payload(bytes));
    header
}

fn udp(bytes: &mut Bytes<'_>, ports: (u16, u16)) -> Vec<u8> {
    // One in sixteen says another length than it has, most of these a shorter one.
    let (other, off) = (bytes.rarely(), bytes.byte());
    let payload = payload(bytes);
    let len = (payload.len() + 8) as u16;
    let len = if other { len.wrapping_sub((off & 15).into()) } else { len };
    let mut datagram = [ports.0, ports.1, len, 0].map(u16::to_be_bytes).concat();
    if ports.1 == GUE_PORT {
        datagram.extend([off, IPV4_IN_IP, 0, 0]);
    }
    datagram.extend(payload);
    datagram
}

/// One chunk, now and then two; most open, or go on.
fn sctp(bytes: &mut Bytes<'_>, ports: (u16, u16)) -> Vec<u8> {
    let mut packet = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    packet.extend([0, 0, 0, 7, 0, 0, 0, 0]);
    let chunks = 1 + usize::from(bytes.rarely());
    for _ in 0..chunks {
        let kind = bytes.one_of(&SCTP_CHUNKS);
        let payload = payload(bytes);
        let len = (payload.len() + 4) as u16;
        let len = if bytes.rarely() { bytes.word() } else { len };
        packet.extend([kind, 0]);
        packet.extend(len.to_be_bytes());
        packet.extend(&payload);
        packet.resize(packet.len().next_multiple_of(4), 0);
    }
    // No packet is longer.
    packet.truncate(65_535 - 60);
    if bytes.rarely() {
        packet.truncate(bytes.below(20));
    }
    packet
}

/// A message that quotes a packet, or as much of it as the input says.
fn error(bytes: &mut Bytes<'_>, quote: &[u8]) -> Vec<u8> {
    let kind = bytes.one_of(&[3, 1, 11, 2, 3, 4, 12, 0, 8, 128, 129, 135]);
    let code = bytes.byte() & 7;
    let [high, low] = bytes.one_of(&[0u16, 1280, 1400, 68, 1, 0xffff]).to_be_bytes();
    let quoted = quote.len() * (256 - bytes.below(256)) / 256;
    [&[kind, code, 0, 0, 0, bytes.byte() & 31, high, low][..], &quote[..quoted]].concat()
}

fn payload(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let len = match bytes.byte() {
        len @ 0..=0x3f => len.into(),
        size @ 0x40..=0xdf => usize::from(size) * 8,
        size @ 0xe0..=0xfe => 1180 + (usize::from(size) - 0xe0) * 12,
        // The longest there is, whatever is in front of it.
        _ => 65_535 - 60 + usize::from(bytes.byte() & 63),
    };
    let mut payload = bytes.take(len.min(8)).to_vec();
    payload.resize(len, 0xa5);
    payload
}

/// The packet that carries this, with its checksums right but in one of 16.
fn ip(bytes: &mut Bytes<'_>, ends: Ends, protocol: u8, mut payload: Vec<u8>) -> Vec<u8> {
    let (ttl, class) = (bytes.one_of(&[64, 64, 64, 255, 2, 1, 0]), bytes.byte());
    match bytes.byte() {
        0xf0.. => {}
        0xe0..0xf0 if protocol == UDP => {}
        _ => put_checksum(&mut payload, ends, protocol),
    }
    match (ends.source, ends.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let options = if bytes.rarely() { bytes.take(40).len() / 4 * 4 } else { 0 };
            let total_len = (20 + options + payload.len()) as u16;
            let mut header = vec![0x45 + (options / 4) as u8, class];
            header.extend(total_len.to_be_bytes());
            header.extend([0, class, if class & 1 == 0 { 0x40 } else { 0 }, 0, ttl, protocol, 0, 0]);
            header.extend(source.octets());
            header.extend(destination.octets());
            header.resize(header.len() + options, 1);
            if bytes.rarely() {
                header[6..8].copy_from_slice(&bytes.word().to_be_bytes());
            }
            put_header_checksum(&mut header);
            [header, payload].concat()
        }
        (source, destination) => {
            let (first, extensions) = extensions(bytes, protocol);
            let len = ((extensions.len() + payload.len()) as u16).to_be_bytes();
            let addresses = pseudo_header(source, destination, 0, 0);
            let fixed = [&[0x60 | class >> 4, class << 4, 0, 0, len[0], len[1], first, ttl], &addresses[..32]].concat();
            [fixed, extensions, payload].concat()
        }
    }
}

/// The number of the first header behind the fixed one, and all in front of `protocol`.
fn extensions(bytes: &mut Bytes<'_>, protocol: u8) -> (u8, Vec<u8>) {
    let count = if bytes.byte() >= 0xd0 { bytes.below(12) } else { 0 };
    let kinds: Vec<u8> = (0..count).map(|_| bytes.one_of(&EXTENSIONS)).collect();
    let mut headers = Vec::new();
    for (index, &kind) in kinds.iter().enumerate() {
        let next = kinds.get(index + 1).copied().unwrap_or(protocol);
        let (units, field) = if bytes.rarely() { (bytes.byte(), bytes.word()) } else { (0, 0) };
        let at = headers.len();
        headers.extend([next, if kind == 44 { 0 } else { units }]);
        headers.extend(field.to_be_bytes());
        let len = if kind == 44 { 8 } else { 8 + 8 * usize::from(units & 31) };
        headers.resize(at + len, 0);
    }
    (kinds.first().copied().unwrap_or(protocol), headers)
}

/// Puts the checksum of what these ends say to each other into it.
fn put_checksum(payload: &mut [u8], ends: Ends, protocol: u8) {
    let (at, len) = match protocol {
        TCP => (16, payload.len()),
        UDP => (6, usize::from(u16::from_be_bytes([payload[4], payload[5]]))),
        SCTP if payload.len() >= 12 => {
            let checksum = sctp_checksum(payload);
            payload[8..12].copy_from_slice(&checksum);
            return;
        }
        ICMP | ICMP6 => (2, payload.len()),
        _ => return,
    };
    let Some(covered) = payload.get_mut(..len).filter(|covered| covered.len() >= at + 2) else { return };
    let pseudo = pseudo_header(ends.source, ends.destination, protocol, len);
    let sum = !ones_complement(&[if protocol == ICMP { &[] } else { &pseudo }, covered]);
    // UDP says so that there is one.
    let sum = if sum == 0 && protocol == UDP { 0xffff } else { sum };
    covered[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

pub fn put_header_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = !ones_complement(&[header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// A frame that comes in by `port`, mostly to its own address.
pub fn frame(bytes: &mut Bytes<'_>, port: PortId, packet: &[u8]) -> Vec<u8> {
    let how = bytes.byte();
    let own = MACS[port.index()].0;
    let destination = match how {
        0xff => [0xff; 6],
        0xfe => [1, 0, 0x5e, 0, 0, 5],
        0xfd => [2, 9, 9, 9, 9, 9],
        _ => own,
    };
    let source = if how == 0xfc { [0x33; 6] } else { [2, 0, 0, 0, 1 + port.0, 1] };
    let mut frame = [destination, source].concat();
    for _tag in 0..usize::from(how).saturating_sub(0xf9).min(2) * usize::from(how < 0xfc) {
        frame.extend([0x81, 0, 0, 100]);
    }
    let ipv6 = packet.first().is_some_and(|first| first >> 4 == 6);
    frame.extend(if ipv6 { [0x86, 0xdd] } else { [8, 0] });
    frame.extend(packet);
    match how {
        0xf0..0xf4 => frame.truncate(frame.len().saturating_sub(bytes.byte().into())),
        0xe0..0xf0 => frame.resize(frame.len().max(60), 0),
        0xd0..0xe0 => frame.resize(frame.len() + usize::from(bytes.byte()), 0xee),
        0xf4..0xf9 => mangle(bytes, &mut frame[14..]),
        _ => {}
    }
    frame
}

/// Changes a byte of a packet; the checksum of an IPv4 header follows.
fn mangle(bytes: &mut Bytes<'_>, packet: &mut [u8]) {
    let (at, value) = (bytes.below(100), bytes.byte());
    let Some(byte) = packet.get_mut(at) else { return };
    *byte ^= value;
    let len = usize::from(packet[0] & 15) * 4;
    if let Some(header) =
        packet.get_mut(..len).filter(|header| header.len() >= 20 && header[0] >> 4 == 4 && value & 1 == 0)
    {
        put_header_checksum(header);
    }
}

/// Cuts a packet into fragments of so many bytes of payload, a multiple of 8, in order.
pub fn fragments(packet: &Ip<'_>, size: usize, id: u8) -> Vec<Vec<u8>> {
    let (header, payload) = packet.bytes.split_at(packet.header_len);
    let pieces = payload.chunks(size.max(8) / 8 * 8);
    let mut fragments = Vec::new();
    let mut offset = 0;
    for piece in pieces {
        let more = offset + piece.len() < payload.len();
        fragments.push(fragment(packet, header, piece, offset, more, id));
        offset += piece.len();
    }
    fragments
}

fn fragment(packet: &Ip<'_>, header: &[u8], piece: &[u8], offset: usize, more: bool, id: u8) -> Vec<u8> {
    let mut header = header.to_vec();
    if packet.source.is_ipv4() {
        let place = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
        let len = ((header.len() + piece.len()) as u16).to_be_bytes();
        header[2..4].copy_from_slice(&len);
        header[4..6].copy_from_slice(&[0, id]);
        header[6..8].copy_from_slice(&place.to_be_bytes());
        put_header_checksum(&mut header);
        return [&header, piece].concat();
    }
    let place = (offset as u16 | u16::from(more)).to_be_bytes();
    header.truncate(40);
    header[4..6].copy_from_slice(&((8 + piece.len()) as u16).to_be_bytes());
    header[6] = 44;
    [&header[..], &[packet.protocol, 0, place[0], place[1], 0, 0, 0, id], piece].concat()
}
