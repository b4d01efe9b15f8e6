//! Fragments of TCP, UDP and SCTP packets: only what is wrong with one by itself is found here, nothing of the datagram's others.

use super::super::verdict::DropReason;
use super::{Packet, echo_ports, sctp_header};
use crate::balance::Protocol;
use crate::flow::{Address, FlowKey};
use crate::wire::fragment::{Piece, UNIT};
use crate::wire::tcp::{self, Flags, Tcp};
use crate::wire::udp::{self, Udp};

/// A piece of a TCP, UDP or SCTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<A: Address> {
    /// The packet that it came in. Of one that is not the first, the ports are 0, the headers end where its data begin, and
    /// over IPv6 the protocol says nothing.
    pub packet: Packet<A>,
    /// Its place in its datagram.
    pub piece: Piece,
    /// Where its data end there, in bytes.
    pub end: u16,
}

impl<A: Address> Fragment<A> {
    /// A fragment with these addresses, or what is wrong with it. `packet` has no ports yet; `bytes` are those of the IP packet
    /// that lie in the first segment, `kept` how many of its headers the whole datagram would have in front of the data.
    pub(super) fn new(packet: Packet<A>, piece: Piece, kept: usize, bytes: &[u8]) -> Result<Self, DropReason> {
        let len = packet.total_len.saturating_sub(piece.data_at.into());
        if len == 0 || piece.more && !len.is_multiple_of(UNIT) {
            return Err(DropReason::BadFragment);
        }
        let end = piece.offset.checked_add(len).filter(|&end| kept + usize::from(end) <= usize::from(u16::MAX));
        let end = end.ok_or(DropReason::FragmentTooLong)?;
        if piece.is_later() {
            return Ok(Self { packet, piece, end });
        }
        let l4 = bytes.get(packet.header_len.into()..).unwrap_or_default();
        let (source, destination) = (packet.key.source(), packet.key.destination());
        let protocol = packet.key.protocol();
        let (source_port, destination_port, flags) = match protocol {
            Protocol::Icmp => echo_ports(source.into().is_ipv4(), l4).ok_or(DropReason::FragmentTooShort)?,
            _ => first_ports(protocol, l4, packet.l4_len().into())?,
        };
        let key = FlowKey::new(protocol, (source, source_port), (destination, destination_port));
        Ok(Self { packet: Packet { key, flags, ..packet }, piece, end })
    }
}

/// Ports and flags of a first fragment, which must have the whole transport header (RFC 1858, 3; RFC 7112). `len` bytes from
/// the front of `l4` on belong to it.
fn first_ports(protocol: Protocol, l4: &[u8], len: usize) -> Result<(u16, u16, Flags), DropReason> {
    match protocol {
        Protocol::Tcp => {
            let tcp = Tcp::new(l4).filter(|_| len >= tcp::MIN_LEN).ok_or(DropReason::FragmentTooShort)?;
            match tcp.header_len() {
                header_len if header_len < tcp::MIN_LEN => Err(DropReason::BadL4Header),
                header_len if header_len > len => Err(DropReason::FragmentTooShort),
                _ => Ok((tcp.source_port(), tcp.destination_port(), tcp.flags())),
            }
        }
        Protocol::Udp | Protocol::Icmp | Protocol::Any => {
            let udp = Udp::new(l4).filter(|_| len >= udp::LEN).ok_or(DropReason::FragmentTooShort)?;
            if udp.is_empty() {
                return Err(DropReason::BadL4Header);
            }
            Ok((udp.source_port(), udp.destination_port(), Flags::default()))
        }
        Protocol::Sctp => sctp_header(l4.get(..len).unwrap_or(l4)).ok_or(DropReason::FragmentTooShort),
    }
}
