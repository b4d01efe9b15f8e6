//! A frame in ordinary memory, for tests and benches of the pure core.

use super::Frame;

/// Room before the packet, as an mbuf has it.
const HEADROOM: usize = 128;

/// A packet in a `Vec`, with headroom; its later segments, if it has any, in another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryFrame {
    buffer: Vec<u8>,
    start: usize,
    /// Of the whole packet.
    len: usize,
    rest: Vec<u8>,
    stripped_tag: Option<u16>,
}

impl MemoryFrame {
    /// A frame that holds `packet`.
    pub fn new(packet: &[u8]) -> Self {
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(packet);
        Self { buffer, start: HEADROOM, len: packet.len(), rest: Vec::new(), stripped_tag: None }
    }

    /// The same as it comes from a device that took a VLAN tag with this control information off.
    pub fn stripped(packet: &[u8], tag: u16) -> Self {
        Self { stripped_tag: Some(tag), ..Self::new(packet) }
    }

    /// The same with only the first `first` bytes, or as many as there are, in the first segment.
    pub fn scattered(packet: &[u8], first: usize) -> Self {
        let (first, rest) = packet.split_at(first.min(packet.len()));
        Self { rest: rest.to_vec(), len: packet.len(), ..Self::new(first) }
    }
}

// Inlined wherever it is used, as an mbuf's is in the gateway, so that benches measure the path and not the frame.
impl Frame for MemoryFrame {
    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..]
    }

    #[inline]
    fn packet_len(&self) -> usize {
        self.len
    }

    fn copy_to(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(self.bytes());
        into.extend_from_slice(&self.rest);
    }

    #[inline]
    fn prepend(&mut self, count: usize) -> bool {
        let Some(start) = self.start.checked_sub(count) else { return false };
        self.start = start;
        self.len += count;
        true
    }

    #[inline]
    fn trim_front(&mut self, count: usize) -> bool {
        if count > self.bytes().len() {
            return false;
        }
        self.start += count;
        self.len -= count;
        true
    }

    #[inline]
    fn stripped_tag(&self) -> Option<u16> {
        self.stripped_tag
    }

    fn another(&self, front: &[u8], rest: &[u8]) -> Option<Self> {
        Some(Self::new(&[front, rest].concat()))
    }

    #[inline]
    fn truncate(&mut self, len: usize) -> bool {
        if len > self.len {
            return false;
        }
        self.rest.truncate(len.saturating_sub(self.buffer.len() - self.start));
        self.buffer.truncate(self.start + len);
        self.len = len;
        true
    }
}
