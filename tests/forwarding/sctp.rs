//! SCTP packets, with checksums computed a bit at a time, and what they are found to be.

use std::net::IpAddr;

use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder};
use fullgate::port::MacAddress;

pub const DATA: u8 = 0;
pub const INIT: u8 = 1;
pub const INIT_ACK: u8 = 2;
pub const SACK: u8 = 3;
pub const HEARTBEAT: u8 = 4;
pub const ABORT: u8 = 6;
pub const SHUTDOWN: u8 = 7;
pub const SHUTDOWN_ACK: u8 = 8;
pub const ERROR: u8 = 9;
pub const COOKIE_ECHO: u8 = 10;
pub const COOKIE_ACK: u8 = 11;
pub const SHUTDOWN_COMPLETE: u8 = 14;

pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// A chunk, padded.
pub fn chunk(kind: u8, value: &[u8]) -> Vec<u8> {
    let [high, low] = (4 + value.len() as u16).to_be_bytes();
    let mut bytes = [&[kind, 0, high, low], value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A packet from its ports on.
pub fn segment(ports: (u16, u16), chunks: &[u8]) -> Vec<u8> {
    let tag = [0xde, 0xad, 0xbe, 0xef];
    let mut bytes = [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &tag, &[0; 4], chunks].concat();
    let checksum = crc32c(&bytes);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

pub fn checksum_is_right(segment: &[u8]) -> bool {
    let mut bytes = segment.to_vec();
    bytes[8..12].fill(0);
    segment[8..12] == crc32c(&bytes).to_le_bytes()
}

/// The chunk that does what a TCP segment with these flags does; its value is the payload.
pub fn like_tcp(flags: &str, payload: &[u8]) -> Vec<u8> {
    let kind = match flags {
        "S" => INIT,
        "SA" => INIT_ACK,
        "R" | "RA" => ABORT,
        _ => DATA,
    };
    chunk(kind, payload)
}

/// A frame with a packet in it.
pub fn frame(
    macs: (MacAddress, MacAddress),
    (source, destination): ((IpAddr, u16), (IpAddr, u16)),
    ttl: u8,
    chunks: &[u8],
) -> Vec<u8> {
    let segment = segment((source.1, destination.1), chunks);
    let len = segment.len() as u16;
    let headers = match (source.0, destination.0) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = Ipv4Header::new(len, ttl, IpNumber(132), source.octets(), destination.octets()).unwrap();
            IpHeaders::Ipv4(header, Default::default())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = Ipv6Header {
                payload_length: len,
                next_header: IpNumber(132),
                hop_limit: ttl,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(header, Default::default())
        }
        ends => panic!("{ends:?}"),
    };
    let mut bytes = Vec::new();
    let ethernet = PacketBuilder::ethernet2(macs.0.0, macs.1.0);
    ethernet.ip(headers).write(&mut bytes, IpNumber(132), &segment).unwrap();
    bytes
}

/// The ports of a packet of IPv4 or IPv6 without options, if it is one of SCTP; panics where its checksum is wrong.
pub fn ports(frame: &[u8]) -> Option<(u16, u16)> {
    let word = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    // Behind the packet there may be what pads the frame.
    let (protocol, packet) =
        if frame[12] == 8 { (frame[23], 34..14 + word(16)) } else { (frame[20], 54..54 + word(18)) };
    (protocol == 132).then(|| {
        let at = packet.start;
        assert!(checksum_is_right(&frame[packet]), "SCTP checksum");
        let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        (port(at), port(at + 2))
    })
}
