//! Frames on their way out of one port: sent in bursts; what the device does not take waits, up to a bound.

use crate::forward::DropReason;
use crate::port::{BURST_SIZE, Frame, PortQueue};
use crate::telemetry::counters::WorkerCounters;

/// Frames that wait for a full device at most.
pub(super) const CAPACITY: usize = 8 * BURST_SIZE;

/// One worker's frames for one port.
#[derive(Debug)]
pub(super) struct Outgoing<F> {
    frames: Vec<F>,
}

impl<F> Default for Outgoing<F> {
    fn default() -> Self {
        Self { frames: Vec::with_capacity(CAPACITY) }
    }
}

impl<F: Frame> Outgoing<F> {
    /// Adds a frame, and sends once there is a burst.
    pub(super) fn push<Q: PortQueue<Frame = F>>(
        &mut self,
        frame: F,
        queue: &mut Q,
        counters: &WorkerCounters,
        port: usize,
    ) {
        if self.frames.len() >= CAPACITY {
            counters.drop_packets(DropReason::TransmitFull, 1);
            return;
        }
        self.frames.push(frame);
        if self.frames.len().is_multiple_of(BURST_SIZE) {
            self.flush(queue, counters, port);
        }
    }

    /// Sends what the device takes.
    pub(super) fn flush<Q: PortQueue<Frame = F>>(&mut self, queue: &mut Q, counters: &WorkerCounters, port: usize) {
        if self.frames.is_empty() {
            return;
        }
        let bytes = |frames: &[F]| frames.iter().map(|frame| frame.packet_len() as u64).sum::<u64>();
        let before = bytes(&self.frames);
        let sent = queue.transmit(&mut self.frames);
        if let Some(port) = counters.ports.get(port) {
            port.transmitted.packets.add(sent as u64);
            port.transmitted.bytes.add(before - bytes(&self.frames));
        }
    }
}

impl<F> Outgoing<F> {
    /// Frames that wait.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }
}
