//! What can be wrong with a port, in words that name the port, its device, the value and what is allowed.

use super::{Errno, RecentLog};

/// A port could not be opened, or a call to it failed.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Too few transmit queues.
    #[error(
        "port {port:?}: device {device:?} has {max} transmit queues at most, but each of the {workers} workers needs \
         one: {advice}"
    )]
    TooFewTransmitQueues {
        /// The port.
        port: String,
        /// Its device.
        device: String,
        /// Transmit queues that the device has.
        max: u16,
        /// Workers.
        workers: u16,
        /// What to change.
        advice: &'static str,
    },
    /// An MTU that the device does not take.
    #[error("port {port:?}: MTU {mtu} is out of what device {device:?} takes, {min} to {max}: set `mtu` so")]
    Mtu {
        /// The port.
        port: String,
        /// Its device.
        device: String,
        /// The MTU.
        mtu: u16,
        /// The smallest.
        min: u16,
        /// The largest.
        max: u16,
    },
    /// Frames larger than a buffer, on a device that cannot split them.
    #[error(
        "port {port:?}: frames of MTU {mtu} do not fit packet buffers of {room} bytes, and device {device:?} cannot \
         receive into, or send from, several: set `mtu` of this port, and let no other port be AF_XDP"
    )]
    FramesTooLarge {
        /// The port.
        port: String,
        /// Its device.
        device: String,
        /// The MTU.
        mtu: u16,
        /// Bytes that a buffer holds.
        room: u16,
    },
    /// The link did not come up.
    #[error(
        "port {port:?} without link: device {device:?} had none within {waited_milliseconds} ms \
         (`link_timeout_milliseconds`; 0 does not wait)"
    )]
    NoLink {
        /// The port.
        port: String,
        /// Its device.
        device: String,
        /// How long it was waited.
        waited_milliseconds: u32,
    },
    /// The port's queues are still with workers.
    #[error("port {port:?} cannot be closed: {queues} of its queues are in use")]
    InUse {
        /// The port.
        port: String,
        /// Queues not yet dropped.
        queues: usize,
    },
    /// A call to DPDK failed.
    #[error("port {port:?}: device {device:?} could not {operation}: {errno}{hint}{log}")]
    Device {
        /// The port.
        port: String,
        /// Its device.
        device: String,
        /// What was attempted.
        operation: &'static str,
        /// Why not.
        errno: Errno,
        /// What may be the reason, where experience tells.
        hint: &'static str,
        /// DPDK's own words.
        log: RecentLog,
    },
}
