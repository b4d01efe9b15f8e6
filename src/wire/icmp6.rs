//! ICMPv6 (RFC 4443): the errors that the gateway makes.

use std::net::Ipv6Addr;

use super::checksum::{fold, sum};
use super::icmp::{ERROR_LEN, Error};
use super::ipv6;

/// IP protocol number.
pub const PROTOCOL: u8 = 58;

/// Writes header and checksum in front of the quotation, which stands behind them in `message` already. `message` is left
/// alone if it is shorter than the header.
pub fn write_error(error: Error, message: &mut [u8], (source, destination): (Ipv6Addr, Ipv6Addr)) {
    let (kind, code, mtu) = match error {
        Error::PortUnreachable => (1, 4, 0),
        Error::FragmentationNeeded { mtu } => (2, 0, mtu),
        Error::TimeExceeded => (3, 0, 0),
    };
    let [mtu_high, mtu_low] = u16::to_be_bytes(mtu);
    let Ok(len) = u16::try_from(message.len()) else { return };
    let Some(header) = message.first_chunk_mut::<ERROR_LEN>() else { return };
    *header = [kind, code, 0, 0, 0, 0, mtu_high, mtu_low];
    let checksum = !fold(ipv6::pseudo_header(source, destination, PROTOCOL, len) + sum(message));
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}
