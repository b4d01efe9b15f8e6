//! What the forwarding core asks of a port: ids, link-layer addresses, and the [`Frame`] trait that a packet buffer
//! implements (`dpdk::Mbuf` in the gateway, [`memory::MemoryFrame`] in tests). No device is known here.

pub mod memory;
mod vlan;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use self::vlan::{PortPlace, VlanId};

/// Index of a port in the order of the configuration's `[[port]]` entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u8);

/// Index of a worker in the order of `[worker] cores`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u8);

/// The most ports a gateway can have.
pub const MAX_PORTS: usize = 32;

/// The most workers a gateway can have.
pub const MAX_WORKERS: usize = 128;

/// Packets taken from a receive queue at once.
pub const BURST_SIZE: usize = 32;

impl PortId {
    /// The id as an index into per-port arrays.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl WorkerId {
    /// The id as an index into per-worker arrays.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// An Ethernet address, in transmission order.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Its bytes as the lowest 48 bits of a word, the first byte lowest.
    #[inline]
    pub fn low_bits(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// Whether the group bit is set: multicast and broadcast (IEEE 802.3, 3.2.3).
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no Ethernet address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no Ethernet address: six hexadecimal bytes with colons between, like 02:00:00:00:00:01")]
pub struct MacAddressError(String);

impl FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || MacAddressError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(error)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(Self(bytes)) }
    }
}

impl Serialize for MacAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What the receiving device says of a checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumStatus {
    /// The device did not look: software must.
    #[default]
    Unknown,
    /// The device checked it: right.
    Good,
    /// The device checked it: wrong.
    Bad,
}

/// A packet buffer, beginning with the Ethernet header.
///
/// All headers that the gateway reads must lie in the first segment, which is what [`Frame::bytes`] gives; payload
/// may lie in further segments.
pub trait Frame: Sized {
    /// The first segment.
    fn bytes(&self) -> &[u8];

    /// The first segment, to change.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Has the headers loaded, to be read soon.
    #[inline]
    fn prefetch(&self) {}

    /// Length of the whole packet over all its segments, in bytes.
    fn packet_len(&self) -> usize;

    /// Grows the packet by `count` bytes of unspecified content at its front; false, and nothing changed, where the
    /// headroom is too small.
    fn prepend(&mut self, count: usize) -> bool;

    /// Takes `count` bytes off the packet's front; false, and nothing changed, where the first segment is shorter.
    fn trim_front(&mut self, count: usize) -> bool;

    /// Control information of a VLAN tag that the packet had on the wire and that the device took off.
    fn stripped_tag(&self) -> Option<u16> {
        None
    }

    /// Appends the whole packet, over all its segments.
    fn copy_to(&self, into: &mut Vec<u8>);

    /// Cuts the packet to `len` bytes; false, and nothing changed, where it is shorter.
    fn truncate(&mut self, len: usize) -> bool;

    /// Another packet, of these two parts, in a buffer of the same pool; none where the pool is empty or a buffer too small.
    fn another(&self, front: &[u8], rest: &[u8]) -> Option<Self>;

    /// What the device said of the IPv4 header checksum.
    fn ipv4_checksum(&self) -> ChecksumStatus {
        ChecksumStatus::Unknown
    }

    /// What the device said of the TCP or UDP checksum.
    fn l4_checksum(&self) -> ChecksumStatus {
        ChecksumStatus::Unknown
    }
}

/// One worker's queue pair on one port's device.
pub trait PortQueue {
    /// What it receives and sends.
    type Frame: Frame;

    /// Appends up to [`BURST_SIZE`] received frames to `into`, never beyond its capacity; gives how many.
    fn receive(&mut self, into: &mut Vec<Self::Frame>) -> usize;

    /// Whether the device takes VLAN tags off though nobody asked it to, so that what seems to have none may have had one:
    /// see [`Frame::stripped_tag`].
    fn strips_tags(&self) -> bool {
        false
    }

    /// Sends from the front of `frames`, takes out what the device took, and gives how many that were. What is left
    /// may be tried again.
    fn transmit(&mut self, frames: &mut Vec<Self::Frame>) -> usize;
}
