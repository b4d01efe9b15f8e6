//! Moves frames between the TAPs and the workers' rings.
//!
//! It looks into no frame: what comes here was chosen and rate-limited by the workers, what comes from the kernel is
//! sent as it is. Invariant: each frame that is not passed on is counted once, as [`DropReason::PuntRefused`],
//! [`DropReason::InjectFull`] or [`DropReason::TooBig`], in counters that the control thread alone writes.

use std::io;
use std::sync::Arc;

use super::tap::Tap;
use crate::forward::DropReason;
use crate::port::{Frame, PortId};
use crate::telemetry::counters::WorkerCounters;
use crate::worker::link::{Event, Inject, WorkerLink};

/// Punted frames that are written in a row before the control thread looks at its other work.
pub const PUNT_BATCH: usize = 256;

/// Bytes of a frame beyond its MTU: its Ethernet header and a VLAN tag.
const FRAME_OVERHEAD: usize = 14 + 4;

/// Where buffers for frames from the kernel come from: the packet pool in the gateway.
pub trait FrameSource<F>: Send + Sync {
    /// A frame that holds `bytes`; none when there is no buffer or the frame is too long for one.
    fn frame(&self, bytes: &[u8]) -> Option<F>;
}

impl<F, S: Fn(&[u8]) -> Option<F> + Send + Sync> FrameSource<F> for S {
    fn frame(&self, bytes: &[u8]) -> Option<F> {
        self(bytes)
    }
}

/// Workers -> kernel: writes up to [`PUNT_BATCH`] frames from each ring to the TAPs (by port) and returns how many it took. Call
/// again, after other work, until it returns 0.
pub fn write_punts<F: Frame, E>(
    taps: &[Arc<Tap>],
    links: &[Arc<WorkerLink<F, E>>],
    counters: &WorkerCounters,
) -> usize {
    let mut taken = 0;
    // For the few of several segments: the TAP takes a frame in one piece.
    let mut in_one_piece = Vec::new();
    for link in links {
        for punt in std::iter::from_fn(|| link.punts.pop()).take(PUNT_BATCH) {
            taken += 1;
            let mut bytes = punt.frame.bytes();
            if bytes.len() < punt.frame.packet_len() {
                in_one_piece.clear();
                punt.frame.copy_to(&mut in_one_piece);
                bytes = &in_one_piece;
            }
            let written = taps.get(punt.port.index()).is_some_and(|tap| tap.write(bytes).is_ok());
            if !written {
                counters.drop_packets(DropReason::PuntRefused, 1);
            }
        }
    }
    taken
}

/// Kernel -> workers: passes each frame that the kernel sends out of the TAP of `port` to the worker that this port's
/// frames go to. Frames larger than `mtu`, the port's, are dropped: a TAP can be given a larger one. Runs until the TAP
/// is deleted; one task for each port.
///
/// # Errors
/// What reading the TAP said in the end.
pub async fn inject<F, E, S>(
    tap: Arc<Tap>,
    port: PortId,
    mtu: u16,
    links: Arc<[Arc<WorkerLink<F, E>>]>,
    source: Arc<S>,
    counters: Arc<WorkerCounters>,
) -> io::Result<()>
where
    F: Frame + Send,
    E: Event,
    S: FrameSource<F> + ?Sized,
{
    let longest = usize::from(mtu) + FRAME_OVERHEAD;
    // One more, by which longer ones show.
    let mut buffer = vec![0; longest + 1];
    loop {
        let len = tap.read(&mut buffer).await?;
        match buffer.get(..len) {
            Some(frame) if len <= longest => pass_on(port, frame, &links, source.as_ref(), &counters),
            _ => counters.drop_packets(DropReason::TooBig, 1),
        }
    }
}

/// Passes one frame on, to be sent out of `port`.
pub fn pass_on<F: Frame, E, S: FrameSource<F> + ?Sized>(
    port: PortId,
    bytes: &[u8],
    links: &[Arc<WorkerLink<F, E>>],
    source: &S,
    counters: &WorkerCounters,
) {
    // All frames of a port go to one worker, so that they stay in order; ports are spread over the workers.
    let link = port.index().checked_rem(links.len()).and_then(|index| links.get(index));
    let injected =
        link.zip(source.frame(bytes)).is_some_and(|(link, frame)| link.injects.push(Inject { port, frame }).is_ok());
    if !injected {
        counters.drop_packets(DropReason::InjectFull, 1);
    }
}
