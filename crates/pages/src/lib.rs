//! Memory for large arrays that live as long as the process: cut from one region, from the heap or, with the feature
//! `map`, from pages of a chosen size that are mapped and there from the start.
//!
//! In a crate of its own because it needs `unsafe`, which the pure core does without. A [`Pages`] keeps its address and
//! length by itself, so that an access is what it is in a boxed slice, wherever the memory came from.

#[cfg(feature = "map")]
mod map;

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Zeroable;

#[cfg(feature = "map")]
pub use map::PageSize;

/// Arrays begin at multiples of so many bytes: a cache line, and the strictest alignment that an element may have.
const ALIGN: usize = 64;

/// Bytes of a region that an array of `len` elements takes.
pub const fn bytes_for<T>(len: usize) -> u64 {
    (size_of::<T>() as u64).saturating_mul(len as u64).saturating_add(ALIGN as u64 - 1) & !(ALIGN as u64 - 1)
}

/// A stretch of zeroed memory to cut arrays from. It goes when it and all of them are dropped.
#[derive(Debug)]
pub struct Region {
    memory: Arc<Memory>,
    /// Bytes that arrays have taken, from the front.
    used: usize,
}

impl Region {
    /// So many bytes of the heap.
    pub fn on_heap(bytes: u64) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).clamp(ALIGN, isize::MAX as usize - ALIGN);
        // The bounds above are what this asks for.
        let Ok(layout) = Layout::from_size_align(bytes, ALIGN) else { handle_alloc_error(Layout::new::<u64>()) };
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self::new(Memory { start, len: bytes, origin: Origin::Heap })
    }

    fn new(memory: Memory) -> Self {
        Self { memory: Arc::new(memory), used: 0 }
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.memory.len
    }

    /// Whether it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.memory.len == 0
    }

    /// Cuts off an array of `len` zeroed elements, which takes [`bytes_for`] of them; none if less is left.
    /// Elements are never dropped, so they must be of a type that needs no dropping.
    pub fn cut<T: Zeroable>(&mut self, len: usize) -> Option<Pages<T>> {
        const { assert!(align_of::<T>() <= ALIGN && !std::mem::needs_drop::<T>()) };
        let end = usize::try_from(bytes_for::<T>(len)).ok()?.checked_add(self.used)?;
        if end > self.memory.len {
            return None;
        }
        // SAFETY: `used` is within the memory, which is one object.
        let start = unsafe { self.memory.start.add(self.used) };
        self.used = end;
        Some(Pages { start: start.cast(), len, _memory: Arc::clone(&self.memory), _elements: PhantomData })
    }
}

/// Where memory came from, and so how it is given back.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Heap,
    #[cfg(feature = "map")]
    Mapping,
}

/// Owned zeroed memory, aligned to [`ALIGN`].
#[derive(Debug)]
struct Memory {
    start: NonNull<u8>,
    len: usize,
    origin: Origin,
}

// SAFETY: it is plain memory that any thread may use and give back; who may use which part is up to `Pages`.
unsafe impl Send for Memory {}
// SAFETY: as above; a shared reference to it gives no access to the bytes.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        match self.origin {
            Origin::Heap => {
                if let Ok(layout) = Layout::from_size_align(self.len, ALIGN) {
                    // SAFETY: `Region::on_heap` allocated it with this layout, and no array is left.
                    unsafe { dealloc(self.start.as_ptr(), layout) };
                }
            }
            #[cfg(feature = "map")]
            Origin::Mapping => map::unmap(self.start, self.len),
        }
    }
}

/// An array cut from a [`Region`].
pub struct Pages<T> {
    start: NonNull<T>,
    len: usize,
    /// Keeps the memory there.
    _memory: Arc<Memory>,
    _elements: PhantomData<T>,
}

// SAFETY: it owns its elements, as a boxed slice does.
unsafe impl<T: Send> Send for Pages<T> {}
// SAFETY: a shared reference to it gives shared references to its elements only.
unsafe impl<T: Sync> Sync for Pages<T> {}

impl<T: Zeroable> Pages<T> {
    /// An array of `len` zeroed elements with memory of its own, of the heap.
    pub fn on_heap(len: usize) -> Self {
        let mut region = Region::on_heap(bytes_for::<T>(len));
        let Some(pages) = region.cut(len) else { handle_alloc_error(Layout::new::<T>()) };
        pages
    }
}

impl<T> Deref for Pages<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `Region::cut` made `start` and `len` of memory that holds as many elements, aligned and zeroed, which
        // is a value of `T`; nothing else was or will be cut from it, and `_memory` keeps it there.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Pages<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed for as long as the slice.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// Where it lies and how long it is; its elements may be millions.
impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("start", &self.start).field("len", &self.len).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_one_region_are_zeroed_aligned_and_apart() {
        let mut region = Region::on_heap(bytes_for::<u8>(3) + bytes_for::<u64>(9));
        let mut first: Pages<u8> = region.cut(3).unwrap();
        let mut second: Pages<u64> = region.cut(9).unwrap();
        assert_eq!((&*first, &*second), ([0u8; 3].as_slice(), [0u64; 9].as_slice()));
        first.fill(0xff);
        second.fill(7);
        assert_eq!((first.as_ptr() as usize % ALIGN, second.as_ptr() as usize % ALIGN), (0, 0));
        assert!(region.cut::<u8>(1).is_none(), "both fill it");
        drop(region);
        assert_eq!((&*first, &*second), ([0xffu8; 3].as_slice(), [7u64; 9].as_slice()));
    }

    #[test]
    fn an_array_may_be_empty_and_is_never_too_large() {
        assert!(Pages::<u64>::on_heap(0).is_empty());
        assert!(Region::on_heap(64).cut::<u64>(usize::MAX).is_none());
        assert_eq!(bytes_for::<u32>(17), 128);
    }
}
