//! A frame in ordinary memory, for tests and benches of the pure core.

use super::Frame;

/// Room before the packet, as an mbuf has it.
const HEADROOM: usize = 128;

/// A packet in a `Vec`, with headroom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryFrame {
    buffer: Vec<u8>,
    start: usize,
}

impl MemoryFrame {
    /// A frame that holds `packet`.
    pub fn new(packet: &[u8]) -> Self {
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(packet);
        Self { buffer, start: HEADROOM }
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
        self.buffer.len() - self.start
    }

    #[inline]
    fn prepend(&mut self, count: usize) -> bool {
        let Some(start) = self.start.checked_sub(count) else { return false };
        self.start = start;
        true
    }

    #[inline]
    fn advance(&mut self, count: usize) -> bool {
        let fits = count < self.packet_len();
        self.start += if fits { count } else { 0 };
        fits
    }

    fn another(&self, front: &[u8], rest: &[u8]) -> Option<Self> {
        Some(Self::new(&[front, rest].concat()))
    }

    #[inline]
    fn truncate(&mut self, len: usize) -> bool {
        if len > self.packet_len() {
            return false;
        }
        self.buffer.truncate(self.start + len);
        true
    }
}
