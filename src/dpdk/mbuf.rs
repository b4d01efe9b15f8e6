//! A packet buffer: one `rte_mbuf`, owned.
//!
//! Invariant: the pointer is to an mbuf (a chain's first) that nobody else holds; its data lies within its buffer.

use std::fmt;
use std::ptr::NonNull;

use dpdk_sys::{
    DPDK_SHIM_MBUF_BUF_ADDR, DPDK_SHIM_MBUF_DATA_LEN, DPDK_SHIM_MBUF_DATA_OFF, DPDK_SHIM_MBUF_OL_FLAGS,
    DPDK_SHIM_MBUF_PKT_LEN, DPDK_SHIM_MBUF_POOL, DPDK_SHIM_MBUF_VLAN_TCI, DPDK_SHIM_RX_VLAN_STRIPPED, rte_mbuf,
    rte_mempool,
};

use crate::port::{ChecksumStatus, Frame};

/// A packet buffer, given back to its pool when dropped. The size of a pointer, so that a slice of them is what
/// DPDK's burst functions take.
#[repr(transparent)]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: an mbuf belongs to no thread; pools take mbufs back from any thread.
unsafe impl Send for Mbuf {}

// SAFETY: what takes `&self` only reads.
unsafe impl Sync for Mbuf {}

impl Mbuf {
    /// Takes ownership.
    ///
    /// # Safety
    /// `raw` must point to an mbuf that nobody else holds.
    pub(super) unsafe fn from_raw(raw: NonNull<rte_mbuf>) -> Self {
        Self(raw)
    }

    /// Adds `packet` after what the buffer holds; false, and nothing changed, where it does not fit.
    pub(super) fn append(&mut self, packet: &[u8]) -> bool {
        let Ok(count) = u16::try_from(packet.len()) else { return false };
        // SAFETY: the mbuf is ours; the function checks the tailroom.
        let room = unsafe { dpdk_sys::dpdk_shim_mbuf_append(self.0.as_ptr(), count) };
        if room.is_null() {
            return false;
        }
        // SAFETY: append made `count` bytes at `room` ours; `packet` cannot overlap a buffer that is borrowed mutably.
        unsafe { std::ptr::copy_nonoverlapping(packet.as_ptr(), room.cast::<u8>(), packet.len()) };
        true
    }

    /// Adds `tail`'s segments behind this one's; false, and `tail` gone, where there would be too many.
    pub(super) fn chain(&mut self, tail: Self) -> bool {
        let tail = std::mem::ManuallyDrop::new(tail);
        // SAFETY: both are ours; if this succeeds the tail belongs to this packet.
        let result = unsafe { dpdk_sys::dpdk_shim_mbuf_chain(self.0.as_ptr(), tail.0.as_ptr()) };
        if result != 0 {
            drop(std::mem::ManuallyDrop::into_inner(tail));
        }
        result == 0
    }

    /// Reads a field of `rte_mbuf` by its offset, which dpdk-sys took from the installed headers.
    #[inline]
    fn field<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: the offset is within the mbuf.
        let field = unsafe { self.0.as_ptr().byte_add(offset) };
        // SAFETY: the field is initialised in every mbuf that is in use, of this type, and aligned as C aligns it.
        unsafe { field.cast::<T>().read() }
    }

    #[inline]
    fn start(&self) -> *mut u8 {
        let buffer: *mut u8 = self.field(DPDK_SHIM_MBUF_BUF_ADDR);
        let offset: u16 = self.field(DPDK_SHIM_MBUF_DATA_OFF);
        // SAFETY: by the type's invariant the data lies within the buffer.
        unsafe { buffer.add(usize::from(offset)) }
    }

    #[inline]
    fn first_len(&self) -> usize {
        usize::from(self.field::<u16>(DPDK_SHIM_MBUF_DATA_LEN))
    }

    #[inline]
    fn checksum(&self, mask: u64, good: u64, bad: u64) -> ChecksumStatus {
        match self.field::<u64>(DPDK_SHIM_MBUF_OL_FLAGS) & mask {
            flags if flags == good => ChecksumStatus::Good,
            flags if flags == bad => ChecksumStatus::Bad,
            // "None" too, which is: wrong in the packet, but its data is known to be right.
            _ => ChecksumStatus::Unknown,
        }
    }
}

impl Frame for Mbuf {
    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: `first_len` bytes from `start` are the first segment's data, borrowed with `self`.
        unsafe { std::slice::from_raw_parts(self.start(), self.first_len()) }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `self` is borrowed mutably and nobody else holds the mbuf.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.first_len()) }
    }

    #[inline]
    fn prefetch(&self) {
        // SAFETY: by the type's invariant `start` is within the buffer, where a byte can always be read.
        prefetch::prefetch(unsafe { &*self.start() });
    }

    #[inline]
    fn packet_len(&self) -> usize {
        self.field::<u32>(DPDK_SHIM_MBUF_PKT_LEN) as usize
    }

    fn prepend(&mut self, count: usize) -> bool {
        let Ok(count) = u16::try_from(count) else { return false };
        // SAFETY: the mbuf is ours; the function checks the headroom.
        let start = unsafe { dpdk_sys::dpdk_shim_mbuf_prepend(self.0.as_ptr(), count) };
        !start.is_null()
    }

    fn trim_front(&mut self, count: usize) -> bool {
        let Ok(count) = u16::try_from(count) else { return false };
        // SAFETY: the mbuf is ours; the function checks the first segment's length.
        let start = unsafe { dpdk_sys::dpdk_shim_mbuf_adj(self.0.as_ptr(), count) };
        !start.is_null()
    }

    #[inline]
    fn stripped_tag(&self) -> Option<u16> {
        let stripped = self.field::<u64>(DPDK_SHIM_MBUF_OL_FLAGS) & DPDK_SHIM_RX_VLAN_STRIPPED != 0;
        stripped.then(|| self.field(DPDK_SHIM_MBUF_VLAN_TCI))
    }

    fn copy_to(&self, into: &mut Vec<u8>) {
        let (length, before) = (self.field::<u32>(DPDK_SHIM_MBUF_PKT_LEN), into.len());
        into.resize(before + length as usize, 0);
        let room = into[before..].as_mut_ptr().cast();
        // SAFETY: the packet has `length` bytes over its segments, and so has the room.
        unsafe { dpdk_sys::dpdk_shim_mbuf_copy(self.0.as_ptr(), length, room) };
    }

    fn truncate(&mut self, len: usize) -> bool {
        let Ok(len) = u32::try_from(len) else { return false };
        if len > self.field(DPDK_SHIM_MBUF_PKT_LEN) {
            return false;
        }
        // SAFETY: the mbuf is ours, and the packet has so many bytes.
        unsafe { dpdk_sys::dpdk_shim_mbuf_truncate(self.0.as_ptr(), len) };
        true
    }

    fn another(&self, front: &[u8], rest: &[u8]) -> Option<Self> {
        let pool: *mut rte_mempool = self.field(DPDK_SHIM_MBUF_POOL);
        // SAFETY: a pool exists as long as any of its buffers is in use, and `self` is one.
        let raw = unsafe { dpdk_sys::dpdk_shim_mbuf_alloc(pool) };
        // SAFETY: a buffer that was just allocated is nobody else's.
        let mut frame = unsafe { Self::from_raw(NonNull::new(raw)?) };
        (frame.append(front) && frame.append(rest)).then_some(frame)
    }

    #[inline]
    fn ipv4_checksum(&self) -> ChecksumStatus {
        self.checksum(
            dpdk_sys::DPDK_SHIM_RX_IP_CKSUM_MASK,
            dpdk_sys::DPDK_SHIM_RX_IP_CKSUM_GOOD,
            dpdk_sys::DPDK_SHIM_RX_IP_CKSUM_BAD,
        )
    }

    #[inline]
    fn l4_checksum(&self) -> ChecksumStatus {
        self.checksum(
            dpdk_sys::DPDK_SHIM_RX_L4_CKSUM_MASK,
            dpdk_sys::DPDK_SHIM_RX_L4_CKSUM_GOOD,
            dpdk_sys::DPDK_SHIM_RX_L4_CKSUM_BAD,
        )
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: the mbuf is ours and is not used again.
        unsafe { dpdk_sys::dpdk_shim_mbuf_free(self.0.as_ptr()) };
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf").field("packet_len", &self.packet_len()).finish_non_exhaustive()
    }
}

/// Gives all of `frames` back to their pools at once.
pub fn free_all(frames: &mut Vec<Mbuf>) {
    let Ok(count) = u32::try_from(frames.len()) else { return frames.clear() };
    // SAFETY: shortens; what is cut off is owned by the next call.
    unsafe { frames.set_len(0) };
    // SAFETY: the first `count` elements are mbufs that the vector has just given up; `Mbuf` is a pointer to one.
    unsafe { dpdk_sys::rte_pktmbuf_free_bulk(frames.as_mut_ptr().cast(), count) };
}
