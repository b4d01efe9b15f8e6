//! ICMP (RFC 792): errors, those that the gateway makes and those that it passes on.

use super::checksum::{Delta, fold, sum};

/// IP protocol number.
pub const PROTOCOL: u8 = 1;
/// Bytes of an error's header before the quoted packet.
pub const ERROR_LEN: usize = 8;
/// Bytes of the quoted packet's transport header that every error has (RFC 792).
pub const QUOTED_LEN: usize = 8;

/// Types of errors: destination unreachable, time exceeded, parameter problem.
pub(super) const UNREACHABLE: u8 = 3;
pub(super) const TIME_EXCEEDED: u8 = 11;
pub(super) const PARAMETER_PROBLEM: u8 = 12;
/// The code of [`UNREACHABLE`] that has an MTU.
pub(super) const FRAGMENTATION_NEEDED: u8 = 4;

/// Types of echo messages.
pub const ECHO_REQUEST: u8 = 8;
/// See [`ECHO_REQUEST`].
pub const ECHO_REPLY: u8 = 0;
/// Bytes of an echo message's header, in ICMP and in ICMPv6 (RFC 4443, 4).
pub const ECHO_LEN: usize = 8;

/// The identifier of an echo message, in ICMP or ICMPv6; none where its header is cut short.
pub fn identifier(message: &[u8]) -> Option<u16> {
    let &[_, _, _, _, high, low, ..] = message.first_chunk::<ECHO_LEN>()?;
    Some(u16::from_be_bytes([high, low]))
}

/// Gives an echo message another identifier, and lets its checksum follow. A message that is cut short is left alone.
pub fn set_identifier(message: &mut [u8], identifier: u16, delta: Delta) {
    let Some([_, _, first, second, high, low, ..]) = message.first_chunk_mut::<ECHO_LEN>() else { return };
    [*high, *low] = identifier.to_be_bytes();
    [*first, *second] = delta.apply([*first, *second]);
}

/// An error that the gateway sends about a packet that it could not forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Type 3, code 3.
    PortUnreachable,
    /// Type 3, code 4, with the MTU of the next hop in bytes (RFC 1191, 4).
    FragmentationNeeded {
        /// The MTU.
        mtu: u16,
    },
    /// Type 11, code 0.
    TimeExceeded,
}

impl Error {
    /// Its header in ICMP.
    pub fn header(self) -> Header {
        let (kind, code, mtu) = match self {
            Self::PortUnreachable => (UNREACHABLE, 3, 0),
            Self::FragmentationNeeded { mtu } => (UNREACHABLE, FRAGMENTATION_NEEDED, mtu),
            Self::TimeExceeded => (TIME_EXCEEDED, 0, 0),
        };
        Header { kind, code, rest: u32::from(mtu).to_be_bytes() }
    }
}

/// The header of an error, in ICMP or ICMPv6, but for its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type.
    pub kind: u8,
    /// The code.
    pub code: u8,
    /// What stands between the checksum and the quotation: an MTU, a pointer, the quotation's length.
    pub rest: [u8; 4],
}

impl Header {
    /// That at the front of a message; none if that is shorter.
    pub fn new(message: &[u8]) -> Option<Self> {
        let &[kind, code, _, _, a, b, c, d] = message.first_chunk::<ERROR_LEN>()?;
        Some(Self { kind, code, rest: [a, b, c, d] })
    }

    /// As it stands in a message, with a checksum of 0.
    pub(super) fn bytes(self) -> [u8; ERROR_LEN] {
        let [a, b, c, d] = self.rest;
        [self.kind, self.code, 0, 0, a, b, c, d]
    }
}

/// Whether a type is that of an error that says something of a packet's way. Source quench is none (RFC 6633: it is
/// ignored wherever it is met), nor is a redirect, which is for the next router alone.
pub fn is_error(kind: u8) -> bool {
    matches!(kind, UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
}

/// The MTU of the next hop, in bytes, that an error tells: 0 from routers older than RFC 1191. None: it is another error.
pub fn path_mtu(header: Header) -> Option<u32> {
    let [.., high, low] = header.rest;
    ((header.kind, header.code) == (UNREACHABLE, FRAGMENTATION_NEEDED)).then(|| u16::from_be_bytes([high, low]).into())
}

/// The largest MTU in use on some kind of link that is smaller than a packet which a router without RFC 1191 said to be
/// too big (RFC 1191, 7, table 7-1).
pub fn plateau_below(total_len: u16) -> u16 {
    const PLATEAUS: [u16; 10] = [32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];
    PLATEAUS.into_iter().find(|&plateau| plateau < total_len).unwrap_or(68)
}

/// Whether a whole message has the right checksum.
pub fn checksum_is_right(message: &[u8]) -> bool {
    fold(sum(message)) == 0xffff
}

/// Writes header and checksum in front of the quotation, which stands behind them in `message` already.
/// `message` is left alone if it is shorter than the header.
pub fn write(header: Header, message: &mut [u8]) {
    let Some(front) = message.first_chunk_mut::<ERROR_LEN>() else { return };
    *front = header.bytes();
    let checksum = !fold(sum(message));
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plateaus_fall_to_the_least_mtu() {
        assert_eq!([1500, 1492, 1491, 576, 68, 0].map(plateau_below), [1492, 1006, 1006, 508, 68, 68]);
    }

    #[test]
    fn only_fragmentation_needed_tells_an_mtu() {
        let needed = Error::FragmentationNeeded { mtu: 1400 }.header();
        assert_eq!(path_mtu(needed), Some(1400));
        assert_eq!(path_mtu(Header { code: 3, ..needed }), None);
        assert_eq!((0..=255).filter(|&kind| is_error(kind)).collect::<Vec<_>>(), [3, 11, 12]);
    }
}
