//! The first steps over a burst: parse, hash, and look at where sessions may be.

use super::PortView;
use super::parse::Packet;
use super::plane::Plane;
use crate::flow::FlowHash;
use crate::port::{BURST_SIZE, Frame};
use crate::session::{Candidate, SessionTable};

/// What the first steps find out about a burst.
pub(super) struct Flows<A: Plane> {
    /// A bit for each frame that is a plain packet of this family: the arrays hold these only.
    pub(super) plain: u32,
    pub(super) packets: [Packet<A>; BURST_SIZE],
    hashes: [FlowHash; BURST_SIZE],
    pub(super) candidates: [Candidate; BURST_SIZE],
}

impl<A: Plane> Flows<A> {
    /// Parses and hashes those frames whose bits are not set in `skip`, then looks at where their sessions may be: each step
    /// has the lines loaded that the next one reads, so that a burst waits for memory three times and not a hundred.
    #[inline(always)]
    pub(super) fn of<F: Frame>(sessions: &SessionTable<A>, view: PortView, frames: &[F], skip: u32) -> Self {
        let mut flows = Self {
            plain: 0,
            packets: [Packet::NONE; BURST_SIZE],
            hashes: [FlowHash(0); BURST_SIZE],
            candidates: [Candidate::NONE; BURST_SIZE],
        };
        let slots = flows.packets.iter_mut().zip(&mut flows.hashes);
        for ((index, frame), (packet, hash)) in frames.iter().enumerate().zip(slots) {
            if skip & 1 << index == 0
                && let Some(plain) = A::plain(frame, view.mac)
            {
                *packet = plain;
                *hash = sessions.hash(&plain.key);
                sessions.prefetch(*hash);
                flows.plain |= 1 << index;
            }
        }
        for index in bits(flows.plain) {
            flows.candidates[index] = sessions.candidate(flows.hashes[index]);
        }
        flows
    }

    /// The packet of a frame and its flow's hash, if that is a plain one; its addresses are looked at now.
    pub(super) fn plain_packet(&self, index: usize) -> Option<(Packet<A>, FlowHash)> {
        let plain = (self.plain & 1 << index != 0).then_some((self.packets[index], self.hashes[index]));
        plain.filter(|(packet, _)| A::is_unicast(&packet.key))
    }
}

/// A bit for each of so many frames, at most [`BURST_SIZE`].
pub(super) fn all(frames: usize) -> u32 {
    u32::try_from((1_u64 << frames.min(BURST_SIZE)) - 1).unwrap_or(u32::MAX)
}

/// The places of the bits that are set, lowest first.
#[inline]
pub(super) fn bits(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let index = bits.trailing_zeros() as usize;
        (index < BURST_SIZE).then(|| {
            bits &= bits - 1;
            index
        })
    })
}
