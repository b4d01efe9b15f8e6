//! One worker's access to one port: what it receives from, and what it sends by.
//!
//! Invariant: a device queue is in one [`Queue`] only, so bursts need no lock. Nothing here allocates or logs.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use super::Mbuf;
use super::ethdev::EthDevice;
use crate::port::{BURST_SIZE, PortQueue};

/// How often a full transmit ring is tried before the caller gets the rest back.
const TRANSMIT_ATTEMPTS: u32 = 4;

/// A queue of a DPDK device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceQueue {
    pub(super) device: u16,
    pub(super) queue: u16,
}

/// A worker's queue of a port. Belongs to one thread at a time. The port's devices run until the last of its queues
/// is dropped.
#[derive(Debug)]
pub struct Queue {
    /// One, or several where the port has more receive queues than there are workers, or none where it has fewer.
    sources: Box<[DeviceQueue]>,
    /// Which of them is asked first, so that none is starved.
    next: usize,
    sink: DeviceQueue,
    /// See [`PortQueue::strips_tags`].
    strips_tags: bool,
    /// A bond's LACP frames leave with a transmission, of nothing if need be, ten times a second at least.
    speaks_lacp: bool,
    /// Keeps the devices running.
    _devices: Arc<[EthDevice]>,
    not_sync: PhantomData<Cell<()>>,
}

/// What a device does unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Habits {
    pub(super) strips_tags: bool,
    pub(super) speaks_lacp: bool,
}

impl Queue {
    /// # Safety
    /// The devices must be started and have these queues, and no other `Queue` may be given them.
    pub(super) unsafe fn new(
        sources: Box<[DeviceQueue]>,
        sink: DeviceQueue,
        habits: Habits,
        devices: Arc<[EthDevice]>,
    ) -> Self {
        let Habits { strips_tags, speaks_lacp } = habits;
        Self { sources, next: 0, sink, strips_tags, speaks_lacp, _devices: devices, not_sync: PhantomData }
    }

    /// Whether the worker receives from this port at all.
    pub fn receives(&self) -> bool {
        !self.sources.is_empty()
    }
}

impl PortQueue for Queue {
    type Frame = Mbuf;

    /// Receives into the free capacity of `into`, at most [`BURST_SIZE`] frames; returns how many.
    #[inline]
    fn receive(&mut self, into: &mut Vec<Mbuf>) -> usize {
        let wanted = (into.capacity() - into.len()).min(BURST_SIZE);
        if self.speaks_lacp {
            transmit_burst(self.sink, &mut []);
        }
        if let [source] = *self.sources {
            return receive_from(source, into, wanted);
        }
        let mut received = 0;
        for _ in 0..self.sources.len() {
            let Some(&source) = self.sources.get(self.next) else { break };
            self.next = if self.next + 1 < self.sources.len() { self.next + 1 } else { 0 };
            received += receive_from(source, into, wanted - received);
            if received == wanted {
                break;
            }
        }
        received
    }

    fn strips_tags(&self) -> bool {
        self.strips_tags
    }

    /// Sends `frames` from the front and removes those that the device took; returns how many. A device that is full
    /// is tried a few times more; the frames that are left are the caller's to keep or drop.
    #[inline]
    fn transmit(&mut self, frames: &mut Vec<Mbuf>) -> usize {
        let mut sent = 0;
        for _ in 0..TRANSMIT_ATTEMPTS {
            if sent == frames.len() {
                break;
            }
            sent += transmit_burst(self.sink, &mut frames[sent..]);
        }
        let left = frames.len() - sent;
        // SAFETY: shortens; the device owns the first `sent` frames, the others are put in their place below.
        unsafe { frames.set_len(0) };
        let start = frames.as_mut_ptr();
        if left != 0 {
            // SAFETY: `sent` is within the vector's former length.
            let rest = unsafe { start.add(sent) };
            // SAFETY: both ranges lie within the vector's former length; the destination's frames are gone.
            unsafe { std::ptr::copy(rest, start, left) };
            // SAFETY: `left` frames now stand at the start.
            unsafe { frames.set_len(left) };
        }
        sent
    }
}

#[inline]
fn receive_from(source: DeviceQueue, into: &mut Vec<Mbuf>, wanted: usize) -> usize {
    let wanted = wanted.min(into.capacity() - into.len());
    let count = u16::try_from(wanted).unwrap_or(u16::MAX);
    let room = into.spare_capacity_mut().as_mut_ptr();
    // SAFETY: `room` has space for `count` pointers, which is what an `Mbuf` is; the device is started and the queue
    // is this worker's alone.
    let received = unsafe { dpdk_sys::dpdk_shim_rx_burst(source.device, source.queue, room.cast(), count) };
    // SAFETY: the device put `received` mbufs, now ours, behind the vector's end, within its capacity.
    unsafe { into.set_len(into.len() + usize::from(received)) };
    usize::from(received)
}

#[inline]
fn transmit_burst(sink: DeviceQueue, frames: &mut [Mbuf]) -> usize {
    let count = u16::try_from(frames.len()).unwrap_or(u16::MAX);
    let frames = frames.as_mut_ptr().cast();
    // SAFETY: `count` pointers to mbufs of ours; those that the device takes are forgotten by the caller. The device
    // is started and the queue is this worker's alone.
    usize::from(unsafe { dpdk_sys::dpdk_shim_tx_burst(sink.device, sink.queue, frames, count) })
}
