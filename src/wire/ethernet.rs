//! Ethernet II headers (IEEE 802.3, 3.2.6): 14 bytes, no VLAN tag.

use super::be16;
use crate::port::MacAddress;

/// Bytes of the header.
pub const LEN: usize = 14;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// A view of the header.
#[derive(Clone, Copy, Debug)]
pub struct Ethernet<'a>(&'a [u8; LEN]);

impl<'a> Ethernet<'a> {
    /// The header at the front of a frame; none if the frame is shorter.
    #[inline]
    pub fn new(frame: &'a [u8]) -> Option<Self> {
        frame.first_chunk().map(Self)
    }

    /// To whom.
    #[inline]
    pub fn destination(self) -> MacAddress {
        let [a, b, c, d, e, f, ..] = *self.0;
        MacAddress([a, b, c, d, e, f])
    }

    /// From whom.
    #[inline]
    pub fn source(self) -> MacAddress {
        let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.0;
        MacAddress([a, b, c, d, e, f])
    }

    /// The EtherType.
    #[inline]
    pub fn ethertype(self) -> u16 {
        be16!(self.0, 12)
    }
}

/// Sends a frame back to where it came from: exchanges its two addresses.
pub fn swap_addresses(frame: &mut [u8]) {
    if let Some((destination, rest)) = frame.split_first_chunk_mut::<6>()
        && let Some(source) = rest.first_chunk_mut::<6>()
    {
        std::mem::swap(destination, source);
    }
}

/// Makes a frame one from this address.
pub fn set_source(frame: &mut [u8], source: MacAddress) {
    if let Some(field) = frame.get_mut(6..12) {
        field.copy_from_slice(&source.0);
    }
}

/// Makes the EtherType say what the IP packet behind the header says of its version.
pub fn set_ethertype_of_packet(frame: &mut [u8]) {
    let Some(&version) = frame.get(LEN) else { return };
    let ethertype = if version >> 4 == 6 { IPV6 } else { IPV4 };
    if let Some(field) = frame.get_mut(12..LEN) {
        field.copy_from_slice(&ethertype.to_be_bytes());
    }
}
