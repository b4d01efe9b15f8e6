//! What the table of templates is made of: the processor's atomic words, in pages of a region.
//!
//! In a test with `--cfg interleave` (`make interleave`) the words are loom's, which runs each test in every order of their
//! reads and writes that the memory model allows; those keep accounts beside them and cannot lie in a region.

#[cfg(not(all(test, interleave)))]
mod real {
    pub use std::hint::spin_loop;
    pub use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, fence};

    use pages::{Pages, Region};

    /// Entries of a bucket: their tags fill a line, with what belongs to the bucket.
    pub const PLACES: usize = 28;
    /// Looks at a bucket that another worker has claimed, a few nanoseconds each.
    pub const PATIENCE: usize = 128;
    /// Copies of a bucket that a listing tries to make.
    pub const COPIES: usize = 1000;

    pub type Buckets<T> = Pages<T>;

    pub fn cut<T: bytemuck::Zeroable>(region: &mut Region, count: usize) -> Option<Buckets<T>> {
        region.cut(count)
    }

    pub fn words(count: usize) -> Box<[AtomicU32]> {
        bytemuck::zeroed_slice_box(count)
    }

    pub fn bytes_for<T: bytemuck::Zeroable>(count: usize) -> u64 {
        pages::bytes_for::<T>(count)
    }
}

#[cfg(all(test, interleave))]
mod real {
    pub use loom::hint::spin_loop;
    pub use loom::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, fence};
    use pages::Region;

    /// Orders are as many as there are words and looks, and then some: the fewest that can do everything.
    pub const PLACES: usize = 2;
    pub const PATIENCE: usize = 2;
    pub const COPIES: usize = 1;

    pub type Buckets<T> = Box<[T]>;

    #[expect(clippy::unnecessary_wraps, reason = "as the real one")]
    pub fn cut<T: Default>(_region: &mut Region, count: usize) -> Option<Buckets<T>> {
        Some((0..count).map(|_| T::default()).collect())
    }

    pub fn words(count: usize) -> Box<[AtomicU32]> {
        (0..count).map(|_| AtomicU32::new(0)).collect()
    }

    pub fn bytes_for<T>(_count: usize) -> u64 {
        64
    }
}

pub(super) use real::*;
