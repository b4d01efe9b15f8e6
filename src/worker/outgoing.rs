//! Frames on their way out of one port: sent in bursts; what the device does not take waits, up to a bound.

use super::vlan;
use crate::forward::DropReason;
use crate::port::{BURST_SIZE, Frame, PortId, PortPlace, PortQueue, VlanId};
use crate::telemetry::counters::WorkerCounters;
use crate::wire;

/// Frames that wait for a full device at most.
pub(super) const CAPACITY: usize = 8 * BURST_SIZE;

/// One worker's frames for one port.
#[derive(Debug)]
pub(super) struct Outgoing<F> {
    port: PortId,
    place: PortPlace,
    /// Tagged, if the port is a VLAN.
    frames: Vec<F>,
}

impl<F: Frame> Outgoing<F> {
    /// None yet.
    pub(super) fn new(port: PortId, place: PortPlace) -> Self {
        Self { port, place, frames: Vec::with_capacity(CAPACITY) }
    }

    /// Adds a frame, and sends once there is a burst.
    pub(super) fn push<Q: PortQueue<Frame = F>>(&mut self, mut frame: F, queue: &mut Q, counters: &WorkerCounters) {
        if let Some(vlan) = self.place.vlan
            && !vlan::tag(&mut frame, vlan)
        {
            counters.drop_packets(DropReason::NoHeadroom, 1);
            return;
        }
        if self.frames.len() >= CAPACITY {
            counters.drop_packets(DropReason::TransmitFull, 1);
            return;
        }
        self.frames.push(frame);
        if self.frames.len().is_multiple_of(BURST_SIZE) {
            self.flush(queue, counters);
        }
    }

    /// Adds all frames of a burst and leaves it empty. A full burst goes straight to the device where nothing waits.
    pub(super) fn append<Q: PortQueue<Frame = F>>(
        &mut self,
        burst: &mut Vec<F>,
        queue: &mut Q,
        counters: &WorkerCounters,
    ) {
        if let Some(vlan) = self.place.vlan {
            tag_all(burst, vlan, counters);
        }
        if burst.len() >= BURST_SIZE && self.frames.is_empty() {
            self.send_from(burst, queue, counters);
        }
        let room = CAPACITY - self.frames.len().min(CAPACITY);
        self.frames.extend(burst.drain(..burst.len().min(room)));
        if !burst.is_empty() {
            counters.drop_packets(DropReason::TransmitFull, burst.len() as u64);
            burst.clear();
        }
        if self.frames.len() >= BURST_SIZE {
            self.flush(queue, counters);
        }
    }

    /// Sends what the device takes.
    pub(super) fn flush<Q: PortQueue<Frame = F>>(&mut self, queue: &mut Q, counters: &WorkerCounters) {
        if self.frames.is_empty() {
            return;
        }
        let mut frames = std::mem::take(&mut self.frames);
        self.send_from(&mut frames, queue, counters);
        self.frames = frames;
    }

    /// Sends what the device takes, and counts it.
    fn send_from<Q: PortQueue<Frame = F>>(&self, frames: &mut Vec<F>, queue: &mut Q, counters: &WorkerCounters) {
        let bytes = |frames: &[F]| frames.iter().map(|frame| frame.packet_len() as u64).sum::<u64>();
        let before = bytes(frames);
        let sent = queue.transmit(frames) as u64;
        let bytes = before - bytes(frames);
        let count = |port: PortId, bytes| {
            if let Some(port) = counters.ports.get(port.index()) {
                port.transmitted.packets.add(sent);
                port.transmitted.bytes.add(bytes);
            }
        };
        count(self.place.owner, bytes);
        if self.place.owner != self.port {
            count(self.port, bytes - sent * wire::vlan::LEN as u64);
        }
    }
}

impl<F> Outgoing<F> {
    /// Frames that wait.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// The index of the device that they go to.
    #[inline]
    pub(super) fn device(&self) -> usize {
        self.place.device
    }
}

/// Tags the frames of a burst; those that cannot be are dropped.
fn tag_all<F: Frame>(burst: &mut Vec<F>, vlan: VlanId, counters: &WorkerCounters) {
    burst.retain_mut(|frame| {
        let tagged = vlan::tag(frame, vlan);
        if !tagged {
            counters.drop_packets(DropReason::NoHeadroom, 1);
        }
        tagged
    });
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

    fn outgoing() -> Outgoing<MemoryFrame> {
        Outgoing::new(PortId(0), PortPlace::whole_device(PortId(0)))
    }

    fn burst(numbers: std::ops::Range<u8>) -> Vec<MemoryFrame> {
        numbers.map(|number| MemoryFrame::new(&[number; 60])).collect()
    }

    #[test]
    fn a_full_burst_goes_at_once_and_in_order_and_is_counted() {
        let counters = WorkerCounters::new(SlotLimits { real_servers: 1, local_addresses: 1 });
        let (mut outgoing, mut device) = (outgoing(), Device { takes: 20, sent: Vec::new() });
        let mut frames = burst(0..32);
        outgoing.append(&mut frames, &mut device, &counters);
        assert_eq!((frames.len(), outgoing.len()), (0, 12));
        // What waits goes first.
        outgoing.append(&mut burst(32..64), &mut device, &counters);
        device.takes = 64;
        outgoing.flush(&mut device, &counters);
        assert_eq!(device.sent, (0..64).collect::<Vec<_>>());
        let transmitted = &counters.ports[0].transmitted;
        assert_eq!((transmitted.packets.get(), transmitted.bytes.get()), (64, 64 * 60));
    }

    #[test]
    fn a_few_frames_wait_for_the_turn_to_end() {
        let counters = WorkerCounters::new(SlotLimits { real_servers: 1, local_addresses: 1 });
        let (mut outgoing, mut device) = (outgoing(), Device { takes: 64, sent: Vec::new() });
        outgoing.append(&mut burst(0..5), &mut device, &counters);
        assert!(device.sent.is_empty());
        outgoing.append(&mut burst(5..9), &mut device, &counters);
        outgoing.flush(&mut device, &counters);
        assert_eq!(device.sent, (0..9).collect::<Vec<_>>());
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let counters = WorkerCounters::new(SlotLimits { real_servers: 1, local_addresses: 1 });
        let (mut outgoing, mut device) = (outgoing(), Device { takes: 0, sent: Vec::new() });
        for _ in 0..CAPACITY / BURST_SIZE {
            outgoing.append(&mut burst(0..32), &mut device, &counters);
        }
        outgoing.append(&mut burst(0..3), &mut device, &counters);
        assert_eq!(outgoing.len(), CAPACITY);
        assert_eq!(counters.drops[DropReason::TransmitFull as usize].get(), 3);
    }

    #[test]
    fn a_vlan_is_tagged_once_and_counted_with_its_device() {
        let counters = WorkerCounters::new(SlotLimits { real_servers: 1, local_addresses: 1 });
        let place = PortPlace { device: 0, owner: PortId(0), vlan: VlanId::new(7) };
        let (mut outgoing, mut device) = (Outgoing::new(PortId(1), place), Device { takes: 2, sent: Vec::new() });
        outgoing.append(&mut burst(0..3), &mut device, &counters);
        outgoing.push(burst(3..4).remove(0), &mut device, &counters);
        // What waits has its tag already.
        outgoing.flush(&mut device, &counters);
        outgoing.flush(&mut device, &counters);
        assert_eq!(device.sent, [0, 1, 2, 3]);
        let traffic = |port: usize| {
            let transmitted = &counters.ports[port].transmitted;
            (transmitted.packets.get(), transmitted.bytes.get())
        };
        assert_eq!((traffic(0), traffic(1)), ((4, 4 * 64), (4, 4 * 60)));
    }
}
