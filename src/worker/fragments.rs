//! What a worker does with fragments that came before their first one, and with packets that are to be cut.
//!
//! Both come back to the forwarder in the same turn, as if another worker had handed them over: whether this one is the owner has been
//! decided.

use super::link::Event;
use super::{Clock, HandOver, Worker};
use crate::forward::{DatagramTag, DropReason, Now, Origin, cut};
use crate::port::{BURST_SIZE, PortId, PortQueue};

/// Packets that one turn processes once more, at most.
pub(super) const AGAIN: usize = 1024;
/// Early fragments that one turn looks at for their time.
const EXPIRY_STEPS: usize = 32;

impl<Q: PortQueue, E: Event, C: Clock> Worker<Q, E, C> {
    /// Lets a fragment wait for its first one.
    pub(super) fn await_fragment(&mut self, datagram: DatagramTag, port: PortId, frame: Q::Frame, now: Now) {
        if self.early.push(datagram, port, frame, now.tick).is_some() {
            self.counters.drop_packets(DropReason::FragmentQueueFull, 1);
        }
        self.counters.fragments_waiting.set(self.early.len() as u64);
    }

    /// Takes out those whose first fragment was in the burst that has just been processed.
    #[inline]
    pub(super) fn release_early(&mut self) {
        let (early, again, counters) = (&mut self.early, &mut self.again, &self.counters);
        for datagram in self.forwarder.arrived() {
            early.release(datagram, |port, frame| put(again, HandOver { port, frame }, counters));
            counters.fragments_waiting.set(early.len() as u64);
        }
    }

    /// Cuts a packet into pieces for a smaller link.
    #[cold]
    pub(super) fn cut(&mut self, port: PortId, frame: &Q::Frame, mtu: u16) {
        let before = self.again.len();
        if before + cut::MOST_PIECES > AGAIN {
            self.counters.drop_packets(DropReason::TooBig, 1);
            return;
        }
        match cut::cut(frame, mtu, |frame| self.again.push(HandOver { port, frame })) {
            Ok(()) => self.counters.fragments_created.add((self.again.len() - before) as u64),
            Err(reason) => {
                self.again.truncate(before);
                self.counters.drop_packets(reason, 1);
            }
        }
    }

    /// Processes what is to be processed once more. Hardly any of it comes again: what has been cut fits, and what had waited has a first
    /// fragment now. What does (of SCTP, where the last fragment came before the first) waits for the next turn.
    pub(super) fn process_again(&mut self, now: Now) {
        if self.again.is_empty() {
            return;
        }
        let mut again = std::mem::replace(&mut self.again, std::mem::take(&mut self.spare));
        let mut burst = std::mem::take(&mut self.burst);
        let mut packets = again.drain(..).peekable();
        while let Some(HandOver { port, frame }) = packets.next() {
            burst.push(frame);
            // A burst is of one port.
            if burst.len() == BURST_SIZE || packets.peek().is_none_or(|next| next.port != port) {
                self.process(port, &mut burst, Origin::HandedOver, now);
            }
        }
        drop(packets);
        self.burst = burst;
        self.spare = again;
    }

    /// Drops those that have waited too long.
    pub(super) fn expire_early(&mut self, now: Now) {
        let counters = &self.counters;
        self.expiring_early =
            self.early.expire(EXPIRY_STEPS, now.tick, |_| counters.drop_packets(DropReason::FragmentTimeout, 1));
        counters.fragments_waiting.set(self.early.len() as u64);
    }
}

/// Notes a packet to be processed once more, if there is room.
fn put<F>(again: &mut Vec<HandOver<F>>, packet: HandOver<F>, counters: &crate::telemetry::counters::WorkerCounters) {
    if again.len() < AGAIN {
        again.push(packet);
    } else {
        counters.drop_packets(DropReason::FragmentQueueFull, 1);
    }
}
