//! From bytes to what the fast path needs to know, or to a verdict at once.
//!
//! Whatever the bytes, this never fails otherwise; after it every offset that it gives lies in the frame's first
//! segment.

use std::net::Ipv4Addr;

use super::verdict::{DropReason, PuntClass, Verdict};
use crate::balance::Protocol;
use crate::flow::FlowKey;
use crate::port::{ChecksumStatus, Frame, MacAddress};
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::icmp;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::tcp::{self, Flags, Tcp};
use crate::wire::udp::{self, Udp};

/// A TCP or UDP packet over IPv4, whole, with sound headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its addresses and ports.
    pub key: FlowKey,
    /// Bytes of the IP packet.
    pub total_len: u16,
    /// Bytes of the IPv4 header with options.
    pub header_len: u8,
    /// Its time to live on arrival.
    pub ttl: u8,
    /// Its TCP control bits; none for UDP.
    pub flags: Flags,
    /// Whether it may not be fragmented.
    pub dont_fragment: bool,
}

impl Packet {
    /// Where the TCP or UDP header stands in the frame.
    #[inline]
    pub fn l4_offset(&self) -> usize {
        ethernet::LEN + usize::from(self.header_len)
    }
}

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Something that a service may be for.
    Flow(Packet),
    /// Another unicast IPv4 packet: the kernel's if the address is the gateway's, else a drop for this reason.
    Other {
        /// To whom.
        destination: Ipv4Addr,
        /// As what the kernel would get it.
        class: PuntClass,
        /// Whether it is a fragment.
        fragment: bool,
    },
    /// Decided.
    Decided(Verdict),
}

const fn dropped(reason: DropReason) -> Parsed {
    Parsed::Decided(Verdict::Drop(reason))
}

/// Looks at a frame that came in by a port with this MAC address.
#[inline]
pub fn parse<F: Frame>(frame: &F, own: MacAddress, promiscuous: bool) -> Parsed {
    let bytes = frame.bytes();
    let Some(ethernet) = Ethernet::new(bytes) else { return dropped(DropReason::Truncated) };
    let destination = ethernet.destination();
    let to_group = destination.is_group();
    if destination != own && !to_group && !promiscuous {
        return dropped(DropReason::NotOurMac);
    }
    match ethernet.ethertype() {
        ethernet::IPV4 => parse_ipv4(frame, bytes.split_at(ethernet::LEN).1, to_group),
        ethernet::ARP => Parsed::Decided(Verdict::Punt(PuntClass::Arp)),
        ethernet::IPV6 => Parsed::Decided(Verdict::Punt(PuntClass::Ipv6)),
        _ => dropped(DropReason::UnknownEthertype),
    }
}

#[inline]
fn parse_ipv4<F: Frame>(frame: &F, packet: &[u8], to_group: bool) -> Parsed {
    let header = match check_ipv4(frame, packet) {
        Ok(header) => header,
        Err(reason) => return dropped(reason),
    };
    let destination = header.destination();
    if destination.is_multicast() || destination.is_broadcast() {
        return Parsed::Decided(Verdict::Punt(PuntClass::Multicast));
    }
    // A unicast packet in a group frame is not forwarded (RFC 1812, 5.3.4), and no service is reached by one.
    if to_group {
        return dropped(DropReason::NotOurMac);
    }
    let protocol = match Protocol::from_number(header.protocol()) {
        Some(protocol) if !header.is_fragment() => protocol,
        _ => {
            let class = if header.protocol() == icmp::PROTOCOL { PuntClass::Icmp } else { PuntClass::Local };
            return Parsed::Other { destination, class, fragment: header.is_fragment() };
        }
    };
    match parse_l4(packet, header, protocol) {
        Some(_) if frame.l4_checksum() == ChecksumStatus::Bad => dropped(DropReason::BadL4Checksum),
        Some(packet) => Parsed::Flow(packet),
        None => dropped(DropReason::BadL4Header),
    }
}

/// The header, if it and the length that it gives are sound.
#[inline]
fn check_ipv4<'a, F: Frame>(frame: &F, packet: &'a [u8]) -> Result<Ipv4<'a>, DropReason> {
    let header = Ipv4::new(packet).ok_or(DropReason::Truncated)?;
    let (header_len, total_len) = (header.header_len(), usize::from(header.total_len()));
    if header.version() != 4 || header_len < ipv4::MIN_LEN || total_len < header_len {
        return Err(DropReason::BadIpv4Header);
    }
    let whole = packet.get(..header_len).ok_or(DropReason::Truncated)?;
    if total_len > frame.packet_len() - ethernet::LEN {
        return Err(DropReason::Truncated);
    }
    let right = match frame.ipv4_checksum() {
        ChecksumStatus::Good => true,
        ChecksumStatus::Bad => false,
        ChecksumStatus::Unknown => ipv4::checksum_is_right(whole),
    };
    if !right {
        return Err(DropReason::BadIpv4Checksum);
    }
    if ipv4::is_martian_source(header.source()) || header.destination().is_loopback() {
        return Err(DropReason::MartianSource);
    }
    Ok(header)
}

#[inline]
fn parse_l4(packet: &[u8], header: Ipv4<'_>, protocol: Protocol) -> Option<Packet> {
    let header_len = header.header_len();
    let l4_len = usize::from(header.total_len()) - header_len;
    let l4 = packet.get(header_len..)?;
    let (source_port, destination_port, flags) = match protocol {
        Protocol::Tcp => {
            let tcp = Tcp::new(l4)?;
            if tcp.header_len() < tcp::MIN_LEN || tcp.header_len() > l4_len {
                return None;
            }
            (tcp.source_port(), tcp.destination_port(), tcp.flags())
        }
        Protocol::Udp => {
            let udp = Udp::new(l4)?;
            if udp.is_empty() || l4_len < udp::LEN || usize::from(udp.len()) > l4_len {
                return None;
            }
            (udp.source_port(), udp.destination_port(), Flags::default())
        }
    };
    Some(Packet {
        key: FlowKey {
            source: header.source(),
            destination: header.destination(),
            source_port,
            destination_port,
            protocol,
        },
        total_len: header.total_len(),
        header_len: u8::try_from(header_len).ok()?,
        ttl: header.ttl(),
        flags,
        dont_fragment: header.dont_fragment(),
    })
}
