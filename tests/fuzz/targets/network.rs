//! IP packets as somebody else reads them: nothing here is taken from what is tested.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;
pub const ICMP: u8 = 1;
pub const ICMP6: u8 = 58;
pub const GRE: u8 = 47;
pub const IPV4_IN_IP: u8 = 4;
pub const IPV6_IN_IP: u8 = 41;

/// A packet whose headers are sound.
#[derive(Clone, Copy, Debug)]
pub struct Ip<'a> {
    /// All of it, and nothing behind it.
    pub bytes: &'a [u8],
    /// Bytes in front of what it carries.
    pub header_len: usize,
    /// The protocol number of that.
    pub protocol: u8,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    pub fragment: bool,
}

/// A checksum of TCP, UDP, SCTP or ICMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    Right,
    Wrong,
    /// A fragment, another protocol, or a header that is not sound.
    None,
}

/// The packet at the front of `bytes`, or what is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Ip<'_>, &'static str> {
    match bytes.first().ok_or("no byte")? >> 4 {
        4 => read_ipv4(bytes),
        6 => read_ipv6(bytes),
        _ => Err("neither version 4 nor 6"),
    }
}

fn read_ipv4(bytes: &[u8]) -> Result<Ip<'_>, &'static str> {
    let fixed: &[u8; 20] = bytes.first_chunk().ok_or("IPv4: cut off in its header")?;
    let header_len = usize::from(fixed[0] & 15) * 4;
    let whole = bytes.get(..word(fixed, 2).into()).ok_or("IPv4: cut off")?;
    let header = whole.get(..header_len).filter(|header| header.len() >= 20).ok_or("IPv4: header length")?;
    if ones_complement(&[header]) != 0xffff {
        return Err("IPv4: header checksum");
    }
    Ok(Ip {
        bytes: whole,
        header_len,
        protocol: fixed[9],
        source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]).into(),
        destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]).into(),
        ttl: fixed[8],
        fragment: word(fixed, 6) & 0x3fff != 0,
    })
}

fn read_ipv6(bytes: &[u8]) -> Result<Ip<'_>, &'static str> {
    let fixed: &[u8; 40] = bytes.first_chunk().ok_or("IPv6: cut off in its header")?;
    let whole = bytes.get(..40 + usize::from(word(fixed, 4))).ok_or("IPv6: cut off")?;
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&fixed[at..at + 16]).unwrap()).into();
    let (mut header_len, mut protocol, mut fragment) = (40, fixed[6], false);
    while matches!(protocol, 0 | 43 | 44 | 60) && !fragment {
        let header = whole.get(header_len..header_len + 8).ok_or("IPv6: extension header cut off")?;
        fragment = protocol == 44 && word(header, 2) & 0xfff9 != 0;
        header_len += if protocol == 44 { 8 } else { 8 + 8 * usize::from(header[1]) };
        protocol = header[0];
    }
    if header_len > whole.len() {
        return Err("IPv6: extension headers longer than the packet");
    }
    let (source, destination) = (address(8), address(24));
    Ok(Ip { bytes: whole, header_len, protocol, source, destination, ttl: fixed[7], fragment })
}

impl<'a> Ip<'a> {
    /// What it carries.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_len..]
    }

    /// The first four bytes of that, as ports.
    pub fn ports(&self) -> Option<(u16, u16)> {
        let ports: &[u8; 4] = self.payload().first_chunk()?;
        Some((word(ports, 0), word(ports, 2)))
    }

    /// Whether its transport checksum is right; UDP over IPv4 may do without.
    pub fn checksum(&self) -> Checksum {
        let payload = self.payload();
        let covered = match self.protocol {
            _ if self.fragment => None,
            TCP => Some(payload).filter(|payload| payload.len() >= 20),
            UDP => payload
                .get(4..6)
                .map(|len| word(len, 0).into())
                .filter(|&len| len >= 8)
                .and_then(|len| payload.get(..len)),
            SCTP => Some(payload).filter(|payload| payload.len() >= 16),
            ICMP if self.source.is_ipv4() => Some(payload).filter(|payload| payload.len() >= 8),
            ICMP6 if self.source.is_ipv6() => Some(payload).filter(|payload| payload.len() >= 8),
            _ => None,
        };
        let Some(covered) = covered else { return Checksum::None };
        let right = match self.protocol {
            UDP if covered[6..8] == [0, 0] => self.source.is_ipv4(),
            ICMP => ones_complement(&[covered]) == 0xffff,
            SCTP => covered[8..12] == sctp_checksum(covered),
            _ => {
                let pseudo = pseudo_header(self.source, self.destination, self.protocol, covered.len());
                ones_complement(&[&pseudo, covered]) == 0xffff
            }
        };
        if right { Checksum::Right } else { Checksum::Wrong }
    }

    /// The packet inside it, if it is a tunnel's: GUE is what goes to this UDP port.
    pub fn inside(&self, gue_port: u16) -> Option<&'a [u8]> {
        let payload = self.payload();
        match self.protocol {
            _ if self.fragment => None,
            IPV4_IN_IP | IPV6_IN_IP => Some(payload),
            GRE => payload.get(if payload.first()? & 0x80 == 0 { 4.. } else { 8.. }),
            UDP if self.ports()?.1 == gue_port => payload.get(12..),
            _ => None,
        }
    }
}

/// What TCP's, UDP's and ICMPv6's checksums cover besides their own bytes.
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut pseudo = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => pseudo.extend(address.octets()),
            IpAddr::V6(address) => pseudo.extend(address.octets()),
        }
    }
    pseudo.extend((len as u32).to_be_bytes());
    pseudo.extend([0, protocol]);
    pseudo
}

/// RFC 1071, a word at a time. Each part but the last must have an even length.
pub fn ones_complement(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u64 = words.map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The checksum of an SCTP packet, CRC32c with zeros in its place, a bit at a time.
pub fn sctp_checksum(packet: &[u8]) -> [u8; 4] {
    let bytes = packet.iter().enumerate().map(|(at, &byte)| if (8..12).contains(&at) { 0 } else { byte });
    let crc = bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    });
    (!crc).to_le_bytes()
}

pub fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
