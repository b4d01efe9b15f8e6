//! Pools of packet buffers for AF_XDP: an element each of 4,096 bytes, side by side.
//!
//! The kernel is told of a pool's memory as one stretch from its start, and passes over buffers beyond its end without a
//! word: a queue that is given many of these receives nothing any more. net_af_xdp (22.11) takes the stretch for as long as
//! the elements' lengths come to. An element must not cross a page, though, so those of another length have gaps between
//! them, and the last of the pool lie beyond. Those of a page's length that begin where a page does have none. The kernel
//! takes none that is longer.
//!
//! Invariant: every element lies within the stretch; a pool where that is not so is not given out.

use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

use dpdk_sys::{DPDK_SHIM_MEMPOOL_NO_SPREAD, DPDK_SHIM_POOL_PRIVATE_LEN, rte_mempool, rte_mempool_memhdr};

use super::Errno;

/// Bytes of an element: of the smallest page that there is, so that larger ones hold whole ones, too.
pub(super) const ELEMENT_LEN: u32 = 4096;

/// Bytes of an element in front of its buffer: the pool's header, as long as a line.
const HEADER_LEN: u32 = 64;

/// Why there is no such pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotMade {
    /// DPDK says so.
    Refused(Errno),
    /// Some elements lie elsewhere.
    Scattered,
}

/// A pool of `count` buffers.
pub(super) fn create(name: &CStr, count: u32, cache: u32) -> Result<NonNull<rte_mempool>, NotMade> {
    let any_socket = -1;
    // SAFETY: the name is a C string that DPDK copies.
    let empty = unsafe {
        dpdk_sys::rte_mempool_create_empty(
            name.as_ptr(),
            count,
            ELEMENT_LEN - HEADER_LEN,
            cache,
            DPDK_SHIM_POOL_PRIVATE_LEN,
            any_socket,
            DPDK_SHIM_MEMPOOL_NO_SPREAD,
        )
    };
    let pool = NonNull::new(empty).ok_or_else(|| NotMade::Refused(Errno::last()))?;
    populate(pool, count).and_then(|()| is_one_stretch(pool)).map(|()| pool).inspect_err(|_| {
        // SAFETY: nobody else has heard of it.
        unsafe { dpdk_sys::rte_mempool_free(pool.as_ptr()) };
    })
}

/// Gives a pool that was just made its memory, and makes packet buffers of it.
fn populate(pool: NonNull<rte_mempool>, count: u32) -> Result<(), NotMade> {
    // SAFETY: asks only, the answer is a C string that lives as long as the process.
    let operations = unsafe { dpdk_sys::rte_mbuf_best_mempool_ops() };
    // SAFETY: an empty pool of ours and a C string; no configuration.
    let result = unsafe { dpdk_sys::rte_mempool_set_ops_byname(pool.as_ptr(), operations, std::ptr::null_mut()) };
    Errno::check(result).map_err(NotMade::Refused)?;
    // SAFETY: a pool of ours whose private data are as long as they have to be; none given: what an element holds is room.
    unsafe { dpdk_sys::rte_pktmbuf_pool_init(pool.as_ptr(), std::ptr::null_mut()) };
    give_memory(pool, count)?;
    // SAFETY: a pool of packet buffers, of which none is in use; the function is for them, and takes no argument.
    unsafe { dpdk_sys::rte_mempool_obj_iter(pool.as_ptr(), Some(dpdk_sys::rte_pktmbuf_init), std::ptr::null_mut()) };
    Ok(())
}

/// Memory that begins with a page. (DPDK's own choice need not.)
fn give_memory(pool: NonNull<rte_mempool>, count: u32) -> Result<(), NotMade> {
    let mut page = 0;
    // SAFETY: an empty pool of ours, and a place for the answer.
    let result = unsafe { dpdk_sys::rte_mempool_get_page_size(pool.as_ptr(), &raw mut page) };
    Errno::check(result).map_err(NotMade::Refused)?;
    let bytes = count as usize * ELEMENT_LEN as usize;
    let any_socket = -1;
    // SAFETY: allocates, without a name.
    let memory = unsafe { dpdk_sys::rte_malloc_socket(std::ptr::null(), bytes, ELEMENT_LEN, any_socket) };
    let memory = NonNull::new(memory).ok_or(NotMade::Refused(Errno::NO_MEMORY))?;
    // SAFETY: `bytes` bytes of nobody else's, which the pool keeps, and gives back by the function given.
    let result = unsafe {
        dpdk_sys::rte_mempool_populate_virt(
            pool.as_ptr(),
            memory.as_ptr().cast(),
            bytes,
            page,
            Some(give_back),
            memory.as_ptr(),
        )
    };
    // On failure nobody can say whether the pool has given it back already. It is lost, with the process that needs a pool.
    let populated = Errno::check(result).map_err(NotMade::Refused)?;
    if u32::try_from(populated) == Ok(count) { Ok(()) } else { Err(NotMade::Scattered) }
}

/// Called by a pool that is freed, with its memory.
///
/// # Safety
/// `memory` must be what [`give_memory`] has allocated, and not used any more.
unsafe extern "C" fn give_back(_piece: *mut rte_mempool_memhdr, memory: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { dpdk_sys::rte_free(memory) };
}

/// Whether all elements lie within the stretch that the driver will tell the kernel of.
fn is_one_stretch(pool: NonNull<rte_mempool>) -> Result<(), NotMade> {
    let mut end = 0u64;
    // SAFETY: the function takes the pool's objects, and what `end` is: it lives longer than the call.
    unsafe { dpdk_sys::rte_mempool_obj_iter(pool.as_ptr(), Some(note_end), (&raw mut end).cast()) };
    // SAFETY: a pool of ours.
    let len = unsafe { dpdk_sys::dpdk_shim_mempool_element_len(pool.as_ptr()) };
    // SAFETY: as before.
    let count = unsafe { dpdk_sys::dpdk_shim_mempool_size(pool.as_ptr()) };
    let stretch = u64::from(count) * u64::from(len);
    if len == ELEMENT_LEN && end <= stretch { Ok(()) } else { Err(NotMade::Scattered) }
}

/// Notes in `*end` where an object's element ends, from the start of the pool's memory, if no other ends later.
///
/// # Safety
/// `end` must point to a u64 that nothing else uses, `object` must be one of the pool's.
unsafe extern "C" fn note_end(pool: *mut rte_mempool, end: *mut c_void, object: *mut c_void, _index: u32) {
    // SAFETY: an object of this pool.
    let offset = unsafe { dpdk_sys::dpdk_shim_mempool_offset(pool, object) };
    // SAFETY: the caller's, and ours for now.
    let end = unsafe { &mut *end.cast::<u64>() };
    *end = (*end).max(offset.saturating_add(u64::from(ELEMENT_LEN)));
}
