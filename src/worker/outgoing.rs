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

    /// Adds all frames of a burst and leaves it empty. A full burst goes straight to the device where nothing waits.
    pub(super) fn append<Q: PortQueue<Frame = F>>(
        &mut self,
        burst: &mut Vec<F>,
        queue: &mut Q,
        counters: &WorkerCounters,
        port: usize,
    ) {
        if burst.len() >= BURST_SIZE && self.frames.is_empty() {
            send(burst, queue, counters, port);
        }
        let room = CAPACITY - self.frames.len().min(CAPACITY);
        self.frames.extend(burst.drain(..burst.len().min(room)));
        if !burst.is_empty() {
            counters.drop_packets(DropReason::TransmitFull, burst.len() as u64);
            burst.clear();
        }
        if self.frames.len() >= BURST_SIZE {
            self.flush(queue, counters, port);
        }
    }

    /// Sends what the device takes.
    pub(super) fn flush<Q: PortQueue<Frame = F>>(&mut self, queue: &mut Q, counters: &WorkerCounters, port: usize) {
        if self.frames.is_empty() {
            return;
        }
        send(&mut self.frames, queue, counters, port);
    }
}

impl<F> Outgoing<F> {
    /// Frames that wait.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }
}

/// Sends what the device takes, and counts it.
fn send<Q: PortQueue>(frames: &mut Vec<Q::Frame>, queue: &mut Q, counters: &WorkerCounters, port: usize) {
    let bytes = |frames: &[Q::Frame]| frames.iter().map(|frame| frame.packet_len() as u64).sum::<u64>();
    let before = bytes(frames);
    let sent = queue.transmit(frames);
    if let Some(port) = counters.ports.get(port) {
        port.transmitted.packets.add(sent as u64);
        port.transmitted.bytes.add(before - bytes(frames));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::memory::MemoryFrame;
    use crate::telemetry::counters::SlotLimits;

    /// A device that takes so many frames at once, and remembers their first bytes.
    struct Device {
        takes: usize,
        sent: Vec<u8>,
    }

    impl PortQueue for Device {
        type Frame = MemoryFrame;

        fn receive(&mut self, _into: &mut Vec<MemoryFrame>) -> usize {
            0
        }

        fn transmit(&mut self, frames: &mut Vec<MemoryFrame>) -> usize {
            let count = frames.len().min(self.takes);
            self.sent.extend(frames.drain(..count).map(|frame| frame.bytes()[0]));
            count
        }
    }

    fn burst(numbers: std::ops::Range<u8>) -> Vec<MemoryFrame> {
        numbers.map(|number| MemoryFrame::new(&[number; 60])).collect()
    }

    #[test]
    fn a_full_burst_goes_at_once_and_in_order_and_is_counted() {
        let counters = WorkerCounters::new(SlotLimits { real_servers: 1, local_addresses: 1 });
        let (mut outgoing, mut device) = (Outgoing::default(), Device { takes: 20, sent: Vec::new() });
        let mut frames = burst(0..32);
        outgoing.append(&mut frames, &mut device, &counters, 1);
        assert_eq!((frames.len(), outgoing.len()), (0, 12));
        // What waits goes first.
        outgoing.append(&mut burst(32..64), &mut device, &counters, 1);
        device.takes = 64;
        outgoing.flush(&mut device, &counters, 1);
        assert_eq!(device.sent, (0..64).collect::<Vec<_>>());
        let transmitted = &counters.ports[1].transmitted;
        assert_eq!((transmitted.packets.get(), transmitted.bytes.get()), (64, 64 * 60));
    }

    #[test]
    fn a_few_frames_wait_for_the_turn_to_end() {
        let counters = WorkerCounters::new(SlotLimits { real_servers: 1, local_addresses: 1 });
        let (mut outgoing, mut device) = (Outgoing::default(), Device { takes: 64, sent: Vec::new() });
        outgoing.append(&mut burst(0..5), &mut device, &counters, 0);
        assert!(device.sent.is_empty());
        outgoing.append(&mut burst(5..9), &mut device, &counters, 0);
        outgoing.flush(&mut device, &counters, 0);
        assert_eq!(device.sent, (0..9).collect::<Vec<_>>());
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let counters = WorkerCounters::new(SlotLimits { real_servers: 1, local_addresses: 1 });
        let (mut outgoing, mut device) = (Outgoing::default(), Device { takes: 0, sent: Vec::new() });
        for _ in 0..CAPACITY / BURST_SIZE {
            outgoing.append(&mut burst(0..32), &mut device, &counters, 0);
        }
        outgoing.append(&mut burst(0..3), &mut device, &counters, 0);
        assert_eq!(outgoing.len(), CAPACITY);
        assert_eq!(counters.drops[DropReason::TransmitFull as usize].get(), 3);
    }
}
