//! ICMPv6 (RFC 4443): errors, those that the gateway makes and those that it passes on.

use std::net::Ipv6Addr;

use super::checksum::{fold, sum};
use super::icmp::{ERROR_LEN, Error, Header};
use super::ipv6;

/// IP protocol number.
pub const PROTOCOL: u8 = 58;

/// Types of echo messages.
pub const ECHO_REQUEST: u8 = 128;
/// See [`ECHO_REQUEST`].
pub const ECHO_REPLY: u8 = 129;

/// The type of errors: destination unreachable.
pub const UNREACHABLE: u8 = 1;
/// Packet too big.
pub(super) const TOO_BIG: u8 = 2;
/// Time exceeded.
pub const TIME_EXCEEDED: u8 = 3;
/// Parameter problem.
pub(super) const PARAMETER_PROBLEM: u8 = 4;

/// The first and the last type of neighbour discovery.
const ROUTER_SOLICITATION: u8 = 133;
const REDIRECT: u8 = 137;

/// The header of an error that the gateway makes.
pub fn header(error: Error) -> Header {
    let (kind, code, mtu) = match error {
        Error::PortUnreachable => (UNREACHABLE, 4, 0),
        Error::FragmentationNeeded { mtu } => (TOO_BIG, 0, mtu),
        Error::TimeExceeded => (TIME_EXCEEDED, 0, 0),
    };
    Header { kind, code, rest: u32::from(mtu).to_be_bytes() }
}

/// Whether a type is that of an error that says something of a packet's way.
pub fn is_error(kind: u8) -> bool {
    (UNREACHABLE..=PARAMETER_PROBLEM).contains(&kind)
}

/// Whether a type is one of neighbour discovery (RFC 4861): router and neighbour solicitations and advertisements, redirects.
pub fn is_neighbour_discovery(kind: u8) -> bool {
    (ROUTER_SOLICITATION..=REDIRECT).contains(&kind)
}

/// The MTU of the next hop, in bytes, that an error tells; none: it is another error.
pub fn path_mtu(header: Header) -> Option<u32> {
    (header.kind == TOO_BIG).then(|| u32::from_be_bytes(header.rest))
}

/// Whether a whole message has the right checksum.
pub fn checksum_is_right(message: &[u8], (source, destination): (Ipv6Addr, Ipv6Addr)) -> bool {
    u16::try_from(message.len())
        .is_ok_and(|len| fold(ipv6::pseudo_header(source, destination, PROTOCOL, len) + sum(message)) == 0xffff)
}

/// Writes header and checksum in front of the quotation, which stands behind them in `message` already. `message` is left
/// alone if it is shorter than the header.
pub fn write(header: Header, message: &mut [u8], (source, destination): (Ipv6Addr, Ipv6Addr)) {
    let Ok(len) = u16::try_from(message.len()) else { return };
    let Some(front) = message.first_chunk_mut::<ERROR_LEN>() else { return };
    *front = header.bytes();
    let checksum = !fold(ipv6::pseudo_header(source, destination, PROTOCOL, len) + sum(message));
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}
