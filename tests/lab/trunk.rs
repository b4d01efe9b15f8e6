//! A switch with VLANs, in user space: not every kernel has VLANs of its own.
//!
//! It is three TAPs, each of which the lab bridges to a segment: what comes in from a VLAN's segment goes out of the
//! trunk with the VLAN's tag, what comes in from the trunk goes to the segment of its tag without it. Frames without
//! a tag, and with tags that no segment is for, stay where they are.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use super::Namespace;

/// The switch; ended when dropped.
pub struct TrunkSwitch {
    trunk: Arc<SyncDevice>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl TrunkSwitch {
    /// Makes the TAPs in a namespace: one called `trunk`, and one for each (name, VLAN).
    pub fn start(namespace: &Namespace, trunk: &str, segments: &[(&str, u16)]) -> Self {
        let tap = |name: &str| {
            let build = || DeviceBuilder::new().name(name).layer(Layer::L2).build_sync().unwrap();
            Arc::new(namespace.enter(build))
        };
        let trunk = tap(trunk);
        let stop = Arc::new(AtomicBool::new(false));
        let segments: Vec<_> = segments.iter().map(|&(name, vlan)| (tap(name), vlan)).collect();
        let mut threads = Vec::new();
        for (segment, vlan) in segments.clone() {
            let trunk = trunk.clone();
            threads.push(copy(segment, &stop, move |frame| drop(trunk.send(&tagged(frame, vlan)))));
        }
        threads.push(copy(trunk.clone(), &stop, move |frame| {
            if frame.len() < 18 || frame[12..14] != [0x81, 0] {
                return;
            }
            let vlan = u16::from_be_bytes([frame[14], frame[15]]) & 0xfff;
            if let Some((segment, _)) = segments.iter().find(|(_, number)| *number == vlan) {
                let _ = segment.send(&[&frame[..12], &frame[16..]].concat());
            }
        }));
        Self { trunk, stop, threads }
    }

    /// Sends a frame into the trunk.
    pub fn send(&self, frame: &[u8]) {
        self.trunk.send(frame).unwrap();
    }
}

impl Drop for TrunkSwitch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A frame with one tag more, which becomes the outermost.
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &vlan.to_be_bytes(), &frame[12..]].concat()
}

/// Gives each frame from a TAP to `forward`, until told to stop or the TAP has gone.
fn copy(
    from: Arc<SyncDevice>,
    stop: &Arc<AtomicBool>,
    mut forward: impl FnMut(&[u8]) + Send + 'static,
) -> JoinHandle<()> {
    let stop = stop.clone();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        let patience = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        while !stop.load(Ordering::Relaxed) {
            let ready = poll(&mut [PollFd::new(&from.as_fd(), PollFlags::IN)], Some(&patience)).unwrap_or(0);
            if ready == 0 {
                continue;
            }
            match from.recv(&mut buffer) {
                Ok(length) => forward(&buffer[..length]),
                Err(_) => return,
            }
        }
    })
}
