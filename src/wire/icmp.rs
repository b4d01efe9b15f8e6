//! ICMP (RFC 792): the errors that the gateway makes.

use super::checksum::{fold, sum};

/// IP protocol number.
pub const PROTOCOL: u8 = 1;
/// Bytes of an error's header before the quoted packet.
pub const ERROR_LEN: usize = 8;

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
    /// Writes header and checksum in front of the quotation, which stands behind them in `message` already.
    /// `message` is left alone if it is shorter than the header.
    pub fn write(self, message: &mut [u8]) {
        let (kind, code, mtu) = match self {
            Self::PortUnreachable => (3, 3, 0),
            Self::FragmentationNeeded { mtu } => (3, 4, mtu),
            Self::TimeExceeded => (11, 0, 0),
        };
        let [mtu_high, mtu_low] = u16::to_be_bytes(mtu);
        let Some(header) = message.first_chunk_mut::<ERROR_LEN>() else { return };
        *header = [kind, code, 0, 0, 0, 0, mtu_high, mtu_low];
        let [high, low] = (!fold(sum(message))).to_be_bytes();
        if let Some(header) = message.first_chunk_mut::<ERROR_LEN>() {
            header[2] = high;
            header[3] = low;
        }
    }
}
