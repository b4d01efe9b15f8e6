//! The pool of packet buffers, one for all ports: a buffer received by one port is sent by another.
//!
//! Pools are multi-producer and multi-consumer: any thread may take and give back; registered threads have a cache.

use std::ffi::CString;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dpdk_sys::{DPDK_SHIM_PKTMBUF_HEADROOM, rte_mempool};

use super::eal::{Eal, MEMORY_ADVICE, Runtime};
use super::log::{self, RecentLog};
use super::umem::{self, NotMade};
use super::{Errno, Mbuf, device};
use crate::config::{Device, DpdkConfig, PortConfig};
use crate::port::BURST_SIZE;

/// Buffers that a registered thread keeps at hand; its cache holds at most half as many again.
const CACHE_SIZE: u32 = 256;

/// What an AF_XDP device's kernel rings hold beyond the descriptors asked for: its fill and its completion ring.
const AF_XDP_RINGS: u32 = 2 * 4096;

/// For the control thread, frames of the TAPs, and captures that a net_pcap device with infinite_rx loads whole
/// (several thousand packets; `[dpdk] mbufs` where that is too little).
const RESERVE: u32 = 8192;

/// The largest payload of an Ethernet frame without `mtu` configured.
const DEFAULT_MTU: u16 = 1500;

/// Ethernet header, two VLAN tags, frame check sequence.
const FRAME_OVERHEAD: u32 = 14 + 2 * 4 + 4;

/// Payload that drivers expect a buffer to hold at least.
const SMALLEST_ROOM: u32 = 2048;

/// A jumbo frame; larger ones are received into several buffers.
const LARGEST_ROOM: u32 = 10 * 1024;

/// The pool could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MemPoolError {
    /// Not enough memory.
    #[error(
        "no memory for {count} packet buffers of {element_bytes} bytes ({} MB): {MEMORY_ADVICE}, or set [dpdk] mbufs lower{log}",
        (u64::from(*.count) * u64::from(*.element_bytes)).div_ceil(1 << 20)
    )]
    NoMemory {
        /// Buffers asked for.
        count: u32,
        /// Bytes of each, its headers included.
        element_bytes: u32,
        /// DPDK's own words.
        log: RecentLog,
    },
    /// In pieces, of which an AF_XDP port can use the first only.
    #[error(
        "the memory for {count} packet buffers of {} bytes ({} MB) is not in one piece, as net_af_xdp needs it: {MEMORY_ADVICE}, \
         or set [dpdk] mbufs lower",
        umem::ELEMENT_LEN,
        (u64::from(*.count) * u64::from(umem::ELEMENT_LEN)).div_ceil(1 << 20)
    )]
    Scattered {
        /// Buffers asked for.
        count: u32,
    },
    /// Anything else.
    #[error("no pool of {count} packet buffers could be made: {errno}{log}")]
    Failed {
        /// Buffers asked for.
        count: u32,
        /// DPDK's error number.
        errno: Errno,
        /// DPDK's own words.
        log: RecentLog,
    },
}

/// A shared handle of the pool; the pool is freed with the last.
#[derive(Clone)]
pub struct MemPool {
    inner: Arc<Inner>,
}

struct Inner {
    pool: NonNull<rte_mempool>,
    runtime: Arc<Runtime>,
}

// SAFETY: mempool functions take calls from any thread.
unsafe impl Send for Inner {}

// SAFETY: as above; the pool is multi-producer and multi-consumer.
unsafe impl Sync for Inner {}

impl MemPool {
    /// Makes a pool with as many buffers as [`DpdkConfig::mbufs`] says, else as [`mbufs_needed`]; buffers are
    /// as large as the largest MTU configured needs, so that frames lie in one piece, up to about 10,000 bytes. With
    /// an AF_XDP port each holds about 3,700 bytes: larger frames of other ports lie in several.
    pub fn create(
        eal: &Eal,
        dpdk: &DpdkConfig,
        ports: &[PortConfig],
        workers: u16,
        held_per_worker: u32,
    ) -> Result<Self, MemPoolError> {
        let count = dpdk.mbufs.unwrap_or_else(|| mbufs_needed(ports, workers, held_per_worker));
        log::forget();
        let pool = create(count, ports)?;
        Ok(Self { inner: Arc::new(Inner { pool, runtime: eal.runtime() }) })
    }

    /// A copy of `packet`, in as many buffers as it needs; none where the pool has too few.
    pub fn copy_from(&self, packet: &[u8]) -> Option<Mbuf> {
        let mut parts = packet.chunks(usize::from(self.room()).max(1));
        let mut frame = self.copy_of(parts.next().unwrap_or_default())?;
        for part in parts {
            let more = self.copy_of(part)?;
            if !frame.chain(more) {
                return None;
            }
        }
        Some(frame)
    }

    /// A buffer with bytes that fit it.
    fn copy_of(&self, bytes: &[u8]) -> Option<Mbuf> {
        // SAFETY: the pool exists as long as `self`.
        let raw = unsafe { dpdk_sys::dpdk_shim_mbuf_alloc(self.as_ptr()) };
        // SAFETY: a buffer that was just allocated is nobody else's.
        let mut frame = unsafe { Mbuf::from_raw(NonNull::new(raw)?) };
        frame.append(bytes).then_some(frame)
    }

    /// Buffers in the pool, in use or not.
    pub fn size(&self) -> u32 {
        // SAFETY: the pool exists as long as `self`.
        unsafe { dpdk_sys::dpdk_shim_mempool_size(self.as_ptr()) }
    }

    /// Buffers not in use now. Counts all caches: not for the data path.
    pub fn available(&self) -> u32 {
        // SAFETY: the pool exists as long as `self`.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.as_ptr()) }
    }

    /// The largest frame, in bytes, that one buffer holds.
    pub fn room(&self) -> u16 {
        // SAFETY: the pool exists as long as `self` and is one of packet buffers.
        let room = unsafe { dpdk_sys::dpdk_shim_data_room_size(self.as_ptr()) };
        room.saturating_sub(DPDK_SHIM_PKTMBUF_HEADROOM)
    }

    pub(super) fn as_ptr(&self) -> *mut rte_mempool {
        self.inner.pool.as_ptr()
    }
}

impl fmt::Debug for MemPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemPool").field("size", &self.size()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: the pool exists.
        let available = unsafe { dpdk_sys::rte_mempool_avail_count(self.pool.as_ptr()) };
        // SAFETY: the pool exists.
        let size = unsafe { dpdk_sys::dpdk_shim_mempool_size(self.pool.as_ptr()) };
        // Who takes buffers out has a handle of this pool, so while it is dropped none is taken.
        if available < size {
            tracing::debug!("{} packet buffers were not given back", size - available);
            self.runtime.keep_memory();
            return;
        }
        // SAFETY: every buffer is back, no device uses the pool (devices hold a handle of it), and it is not used again.
        unsafe { dpdk_sys::rte_mempool_free(self.pool.as_ptr()) };
    }
}

fn create(count: u32, ports: &[PortConfig]) -> Result<NonNull<rte_mempool>, MemPoolError> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = CString::new(format!("fullgate{}", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap_or_default();
    // DPDK refuses a cache larger than two thirds of the pool.
    let cache = CACHE_SIZE.min(count / 2);
    if has_af_xdp(ports) {
        return umem::create(&name, count, cache).map_err(|reason| match reason {
            NotMade::Refused(errno) => failure(errno, count, umem::ELEMENT_LEN),
            NotMade::Scattered => MemPoolError::Scattered { count },
        });
    }
    let any_socket = -1;
    let room = DPDK_SHIM_PKTMBUF_HEADROOM.saturating_add(room_needed(ports));
    // SAFETY: the name is a C string that DPDK copies.
    let pool = unsafe { dpdk_sys::rte_pktmbuf_pool_create(name.as_ptr(), count, cache, 0, room, any_socket) };
    NonNull::new(pool).ok_or_else(|| failure(Errno::last(), count, u32::from(room) + 64 + 128))
}

fn failure(errno: Errno, count: u32, element_bytes: u32) -> MemPoolError {
    let log = RecentLog::take();
    if errno == Errno::NO_MEMORY {
        return MemPoolError::NoMemory { count, element_bytes, log };
    }
    MemPoolError::Failed { count, errno, log }
}

fn has_af_xdp(ports: &[PortConfig]) -> bool {
    ports.iter().any(|port| device::is_vdev_of(port, device::AF_XDP))
}

/// How many buffers the gateway needs so that none of its queues can starve another: full descriptor rings of every
/// queue of every port, in both directions (drivers free sent buffers late), what `held_per_worker` says of rings and
/// lists between and in workers, their caches and a burst each a port, and a reserve of 8,192.
pub fn mbufs_needed(ports: &[PortConfig], workers: u16, held_per_worker: u32) -> u32 {
    let burst = u32::try_from(BURST_SIZE).unwrap_or(u32::MAX);
    let of_queue = |port: &PortConfig| {
        let extra = if device::is_vdev_of(port, device::AF_XDP) { AF_XDP_RINGS } else { 0 };
        u32::from(port.rx_descriptors) + u32::from(port.tx_descriptors) + extra
    };
    let of_port = |port: &PortConfig| {
        let queues = u32::from(device::wanted_queues(port, workers).max(workers));
        let devices = u32::try_from(port.members.len().max(1)).unwrap_or(u32::MAX);
        queues.saturating_mul(devices).saturating_mul(of_queue(port) + 2 * burst)
    };
    let with_device = ports.iter().filter(|port| !matches!(port.device, Device::Parent(_)));
    let of_ports = with_device.map(of_port).fold(0, u32::saturating_add);
    let of_workers = u32::from(workers).saturating_mul(held_per_worker.saturating_add(CACHE_SIZE * 3 / 2));
    of_ports.saturating_add(of_workers).saturating_add(RESERVE)
}

/// Bytes of the largest frame of `ports`, within what a buffer may be; none of them is of AF_XDP.
fn room_needed(ports: &[PortConfig]) -> u16 {
    let of_port = |port: &PortConfig| {
        let frame = u32::from(port.mtu.unwrap_or(DEFAULT_MTU)) + FRAME_OVERHEAD;
        frame.max(device::af_packet_room(port))
    };
    let room = ports.iter().map(of_port).fold(SMALLEST_ROOM, u32::max).next_multiple_of(64).min(LARGEST_ROOM);
    u16::try_from(room).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::device::tests::port;
    use super::*;
    use crate::port::PortId;

    fn with_mtu(device: &str, mtu: Option<u16>) -> PortConfig {
        PortConfig { mtu, ..port("p", Device::Vdev(device.to_owned())) }
    }

    #[test]
    fn buffers_hold_the_largest_frame() {
        assert_eq!(room_needed(&[with_mtu("net_tap0", None)]), 2048);
        assert_eq!(room_needed(&[with_mtu("net_tap0", None), with_mtu("net_tap1", Some(9000))]), 9088);
        assert_eq!(room_needed(&[with_mtu("net_tap0", Some(65535))]), 10240);
        // AF_PACKET's frames hold a header of the kernel's too.
        assert_eq!(room_needed(&[with_mtu("net_af_packet0,iface=x", Some(9000))]), 9216);
        assert_eq!(room_needed(&[with_mtu("net_af_packet0,iface=x,framesz=8192,blocksz=8192", None)]), 8192);
    }

    #[test]
    fn the_count_covers_every_ring() {
        let ports = [with_mtu("net_null0", None), with_mtu("net_null1", None)];
        let one = mbufs_needed(&ports, 1, 0);
        assert_eq!(one, 2 * (1024 + 1024 + 64) + 384 + 8192);
        let vlan = PortConfig { device: Device::Parent(PortId(0)), ..ports[0].clone() };
        assert_eq!(mbufs_needed(&[ports.to_vec(), vec![vlan]].concat(), 1, 0), one, "a VLAN has no rings");
        assert_eq!(mbufs_needed(&ports, 2, 5000) - RESERVE, 2 * (one - RESERVE) + 2 * 5000);
        let af_xdp = [with_mtu("net_af_xdp0,iface=x", None)];
        assert!(mbufs_needed(&af_xdp, 1, 0) >= 8192 + 2048 + RESERVE);
    }
}
