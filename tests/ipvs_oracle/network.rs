//! The network around a director, the same for both: clients behind a router on the `wan` side, real servers on the `lan`
//! side; and packets, whose bytes and checksums come from etherparse.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, TcpHeader, UdpHeader,
};
use fullgate::balance::Protocol;
use fullgate::port::MacAddress;

/// Which of the director's two links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Wan,
    Lan,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::Wan, Self::Lan];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Wan => "wan",
            Self::Lan => "lan",
        }
    }

    /// The director's own link-layer address.
    pub const fn director_mac(self) -> MacAddress {
        MacAddress([2, 0, 0, 0, 0, self as u8 + 1])
    }

    /// Bytes of the largest packet. That of `lan` is smaller, so that a client's packets can be too large.
    pub const fn mtu(self) -> u16 {
        match self {
            Self::Wan => 1500,
            Self::Lan => 1400,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    /// 10.NET.0.HOST or 2001:db8:NET::HOST.
    pub fn address(self, net: u8, host: u16) -> IpAddr {
        let [high, low] = host.to_be_bytes();
        match self {
            Self::Ipv4 => Ipv4Addr::new(10, net, high, low).into(),
            Self::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, net.into(), 0, 0, 0, 0, host).into(),
        }
    }

    pub fn vip(self) -> IpAddr {
        self.address(0, 100)
    }

    /// A second one.
    pub fn other_vip(self) -> IpAddr {
        self.address(0, 101)
    }

    /// A real server, 1 to 8.
    pub fn server(self, number: u16) -> IpAddr {
        self.address(1, 10 + number)
    }

    /// A client behind the router on the `wan` side.
    pub fn client(self, number: u16) -> IpAddr {
        self.address(9, number)
    }

    /// The router on a side, and the director.
    pub fn router(self, side: Side) -> IpAddr {
        self.address(side as u8, 2)
    }

    pub fn director(self, side: Side) -> IpAddr {
        self.address(side as u8, 1)
    }

    pub const fn prefix_len(self) -> u8 {
        match self {
            Self::Ipv4 => 24,
            Self::Ipv6 => 64,
        }
    }
}

pub const SERVERS: std::ops::RangeInclusive<u16> = 1..=8;

/// The router's on a side, by which clients come too.
pub const fn router_mac(side: Side) -> MacAddress {
    MacAddress([2, 0, 0, 0, 1, side as u8 + 1])
}

pub fn server_mac(number: u16) -> MacAddress {
    MacAddress([2, 0, 0, 0, 2, number as u8])
}

/// TCP's control bits as letters; of SCTP the first chunk's name.
pub type Flags = &'static str;

/// A packet to build.
#[derive(Clone, Debug)]
pub struct Packet {
    pub protocol: Protocol,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub ttl: u8,
    /// DSCP and ECN.
    pub class: u8,
    pub identification: u16,
    pub dont_fragment: bool,
    pub flags: Flags,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub payload: Vec<u8>,
}

impl Packet {
    pub fn new(protocol: Protocol, source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            protocol,
            source,
            destination,
            ttl: 64,
            class: 0,
            identification: 0x1234,
            dont_fragment: true,
            flags: if protocol == Protocol::Sctp { "INIT" } else { "S" },
            sequence: 1000,
            acknowledgement: 0,
            payload: Vec::new(),
        }
    }

    pub fn with_flags(mut self, flags: Flags) -> Self {
        self.flags = flags;
        self.acknowledgement = if flags.contains('A') { 5000 } else { 0 };
        self
    }

    pub fn with_payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// What the other end says about it.
    pub fn answer(&self, from: SocketAddr) -> Self {
        Self { identification: 0x4321, ..Self::new(self.protocol, from, self.source) }
    }

    fn transport(&self) -> (IpNumber, Vec<u8>) {
        let ports = (self.source.port(), self.destination.port());
        let mut bytes = Vec::new();
        match self.protocol {
            Protocol::Tcp => {
                let mut header = TcpHeader::new(ports.0, ports.1, self.sequence, 1000);
                header.acknowledgment_number = self.acknowledgement;
                for flag in self.flags.chars() {
                    match flag {
                        'S' => header.syn = true,
                        'A' => header.ack = true,
                        'F' => header.fin = true,
                        'R' => header.rst = true,
                        'P' => header.psh = true,
                        other => unreachable!("flag {other}"),
                    }
                }
                header.write(&mut bytes).unwrap();
            }
            Protocol::Sctp => return (IpNumber(132), sctp(ports, self.flags, &self.payload)),
            _ => {
                let length = (8 + self.payload.len()) as u16;
                let header = UdpHeader { source_port: ports.0, destination_port: ports.1, length, checksum: 0 };
                header.write(&mut bytes).unwrap();
            }
        }
        bytes.extend_from_slice(&self.payload);
        let at = if self.protocol == Protocol::Tcp { 16 } else { 6 };
        let sum = internet_checksum(&[&self.pseudo_header(bytes.len()), &bytes[..]].concat());
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        (IpNumber(self.protocol as u8), bytes)
    }

    fn pseudo_header(&self, len: usize) -> Vec<u8> {
        pseudo_header(self.source.ip(), self.destination.ip(), self.protocol as u8, len)
    }

    /// The IP packet.
    pub fn bytes(&self) -> Vec<u8> {
        let (next, transport) = self.transport();
        self.wrap(next, &transport)
    }

    /// An IP header of this packet's around something else.
    fn wrap(&self, next: IpNumber, content: &[u8]) -> Vec<u8> {
        let headers = self.headers(next, content.len());
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([0; 6], [0; 6]).ip(headers).write(&mut frame, next, content).unwrap();
        frame.split_off(14)
    }

    fn headers(&self, next: IpNumber, len: usize) -> IpHeaders {
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut header = Ipv4Header::new(len as u16, self.ttl, next, from.octets(), to.octets()).unwrap();
                header.dscp = (self.class >> 2).try_into().unwrap();
                header.ecn = (self.class & 3).try_into().unwrap();
                header.identification = self.identification;
                header.dont_fragment = self.dont_fragment;
                IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let header = Ipv6Header {
                    traffic_class: self.class,
                    flow_label: Ipv6FlowLabel::try_new(0x12345).unwrap(),
                    payload_length: len as u16,
                    next_header: next,
                    hop_limit: self.ttl,
                    source: from.octets(),
                    destination: to.octets(),
                };
                IpHeaders::Ipv6(header, etherparse::Ipv6Extensions::default())
            }
            ends => unreachable!("{ends:?}"),
        }
    }

    /// Its two fragments, the first of so many bytes of content; of IPv4.
    pub fn fragments(&self, first: usize) -> [Vec<u8>; 2] {
        let (next, transport) = self.transport();
        let piece = |more: bool, offset: usize, content: &[u8]| {
            let IpHeaders::Ipv4(mut header, _) = self.headers(next, content.len()) else { unreachable!("IPv4") };
            header.dont_fragment = false;
            header.more_fragments = more;
            header.fragment_offset = IpFragOffset::try_new((offset / 8) as u16).unwrap();
            header.header_checksum = header.calc_header_checksum();
            let mut bytes = Vec::new();
            header.write_raw(&mut bytes).unwrap();
            bytes.extend_from_slice(content);
            bytes
        };
        [piece(true, 0, &transport[..first]), piece(false, first, &transport[first..])]
    }
}

/// An ICMP error, or ICMPv6's, about a packet.
pub fn icmp_error(from: IpAddr, to: IpAddr, (kind, code, rest): (u8, u8, u32), quote: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0][..], &rest.to_be_bytes(), quote].concat();
    let outer = Packet::new(Protocol::Icmp, SocketAddr::new(from, 0), SocketAddr::new(to, 0));
    let (next, pseudo) = match to {
        IpAddr::V4(_) => (1, Vec::new()),
        IpAddr::V6(_) => (58, pseudo_header(from, to, 58, message.len())),
    };
    let sum = internet_checksum(&[&pseudo[..], &message].concat());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    outer.wrap(IpNumber(next), &message)
}

/// An SCTP packet of one chunk (RFC 9260, 3).
fn sctp((from, to): (u16, u16), name: Flags, content: &[u8]) -> Vec<u8> {
    let len = (4 + content.len()) as u16;
    let mut bytes = [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 0, 0, 7], &[0; 4]].concat();
    bytes.extend_from_slice(&[chunk(name), 3]);
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let sum = crc32c(&bytes);
    bytes[8..12].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// A chunk's type by its name; by TCP's control bits, the one that says as much.
fn chunk(name: Flags) -> u8 {
    match name {
        "DATA" | "A" | "PA" | "P" | "" => 0,
        "INIT" | "S" => 1,
        "INIT ACK" | "SA" => 2,
        "SACK" => 3,
        "HEARTBEAT" => 4,
        "ABORT" | "R" | "RA" => 6,
        "SHUTDOWN" | "FA" => 7,
        "SHUTDOWN ACK" => 8,
        "ERROR" => 9,
        "COOKIE ECHO" => 10,
        "COOKIE ACK" => 11,
        "SHUTDOWN COMPLETE" => 14,
        other => unreachable!("chunk {other}"),
    }
}

/// RFC 9260, appendix A, a bit at a time.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
    !bytes.iter().fold(u32::MAX, |sum, &byte| (0..8).fold(sum ^ u32::from(byte), |sum, _bit| step(sum)))
}

/// What is summed up besides (RFC 9293, 3.1; RFC 8200, 8.1).
fn pseudo_header(from: IpAddr, to: IpAddr, next: u8, len: usize) -> Vec<u8> {
    let tail = [0, 0, 0, next];
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            [&from.octets()[..], &to.octets(), &[0, next], &(len as u16).to_be_bytes()].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            [&from.octets()[..], &to.octets(), &(len as u32).to_be_bytes(), &tail].concat()
        }
        ends => unreachable!("{ends:?}"),
    }
}

/// RFC 1071, a word at a time.
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low)));
    let sum: u32 = words.sum();
    let once = (sum >> 16) + (sum & 0xffff);
    !((once >> 16) + (once & 0xffff)) as u16
}

/// A frame around an IP packet.
pub fn frame(from: MacAddress, to: MacAddress, packet: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
    let mut bytes = [&to.0[..], &from.0, &ethertype, packet].concat();
    // Who sends pads it.
    bytes.resize(bytes.len().max(60), 0);
    bytes
}

/// A frame that came out of the director.
#[derive(Clone, PartialEq, Eq)]
pub struct Out {
    pub side: Side,
    pub bytes: Vec<u8>,
}

impl Out {
    /// The IP packet, without what pads the frame.
    pub fn packet(&self) -> &[u8] {
        let packet = &self.bytes[14..];
        let len = match packet[0] >> 4 {
            4 => u16::from_be_bytes([packet[2], packet[3]]).into(),
            _ => 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])),
        };
        &packet[..len]
    }

    pub fn destination(&self) -> IpAddr {
        let packet = self.packet();
        match packet[0] >> 4 {
            4 => Ipv4Addr::from(<[u8; 4]>::try_from(&packet[16..20]).unwrap()).into(),
            _ => Ipv6Addr::from(<[u8; 16]>::try_from(&packet[24..40]).unwrap()).into(),
        }
    }

    /// Of a packet of a protocol with ports that is no fragment.
    pub fn destination_port(&self) -> u16 {
        let packet = self.packet();
        let header = if packet[0] >> 4 == 4 { usize::from(packet[0] & 15) * 4 } else { 40 };
        u16::from_be_bytes([packet[header + 2], packet[header + 3]])
    }

    /// The last byte of the link-layer address that it goes to: a real server's number on the `lan` side.
    pub fn to_mac(&self) -> u8 {
        self.bytes[5]
    }
}

impl fmt::Display for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {:02x}{:02x} ", self.side.name(), self.bytes[4], self.bytes[5])?;
        self.packet().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
