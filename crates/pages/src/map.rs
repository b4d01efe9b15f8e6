//! Mapped memory: on pages of a chosen size, all of them there before the first use.

use std::ffi::c_void;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::{NonNull, null_mut};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use rustix::param::page_size;

use super::{Memory, Origin, Region};

/// The pages that memory lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PageSize {
    /// The processor's ordinary ones; the kernel is asked to make huge ones of them where it can.
    Ordinary,
    /// Reserved hugepages of 2 MB.
    TwoMegabytes,
    /// Reserved hugepages of 1 GB.
    OneGigabyte,
}

impl PageSize {
    /// Bytes of a page.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Ordinary => page_size() as u64,
            Self::TwoMegabytes => 1 << 21,
            Self::OneGigabyte => 1 << 30,
        }
    }
}

impl Region {
    /// At least so many bytes on pages of this size, rounded up to whole ones, each of them there when this returns:
    /// it takes its time. They come from the memory of the NUMA node that the calling thread runs on, as far as that
    /// has them. `name` is what the mapping of hugepages is called in /proc/PID/maps.
    ///
    /// Hugepages are taken as a file without a name (memfd), which another process could map too. Ordinary pages are
    /// not: the kernel makes huge ones of a file's pages only where an administrator has allowed it.
    ///
    /// # Errors
    /// As mmap(2), memfd_create(2) and madvise(2): there are not as many pages.
    pub fn map(bytes: u64, pages: PageSize, name: &str) -> io::Result<Self> {
        let len = bytes.max(1).checked_next_multiple_of(pages.bytes()).and_then(|len| usize::try_from(len).ok());
        let len = len.ok_or(io::ErrorKind::OutOfMemory)?;
        let start = match pages {
            PageSize::Ordinary => map_ordinary(len)?,
            PageSize::TwoMegabytes => map_huge(len, MemfdFlags::HUGE_2MB, name)?,
            PageSize::OneGigabyte => map_huge(len, MemfdFlags::HUGE_1GB, name)?,
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        // From here on it is given back, whatever happens.
        let memory = Memory { start, len, origin: Origin::Mapping };
        touch(&memory, pages)?;
        Ok(Self::new(memory))
    }
}

fn map_ordinary(len: usize) -> io::Result<*mut c_void> {
    // SAFETY: a new mapping at an address that the kernel chooses touches no other memory.
    let start = unsafe { mmap_anonymous(null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)? };
    // A kernel without transparent hugepages says so; then they stay small.
    // SAFETY: the whole of the mapping just made; the advice changes no contents.
    let _ = unsafe { madvise(start, len, Advice::LinuxHugepage) };
    Ok(start)
}

fn map_huge(len: usize, size: MemfdFlags, name: &str) -> io::Result<*mut c_void> {
    let file: OwnedFd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | size)?;
    ftruncate(&file, len as u64)?;
    // SAFETY: a new mapping at an address that the kernel chooses touches no other memory. It reserves all of its pages,
    // or fails; and no one else has the file, so none can be taken away.
    let start = unsafe { mmap(null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0)? };
    Ok(start)
}

/// Has every page there, by the kernel in one go.
fn touch(memory: &Memory, pages: PageSize) -> io::Result<()> {
    // SAFETY: the whole of a mapping of our own; its contents stay zeroes.
    let touched = unsafe { madvise(memory.start.as_ptr().cast(), memory.len, Advice::LinuxPopulateWrite) };
    match touched {
        // Kernels before 5.14 do not know this advice.
        Err(rustix::io::Errno::INVAL) => {
            let step = usize::try_from(pages.bytes()).unwrap_or(4096);
            (0..memory.len).step_by(step).for_each(|offset| touch_byte(memory, offset));
            Ok(())
        }
        touched => Ok(touched?),
    }
}

fn touch_byte(memory: &Memory, offset: usize) {
    // SAFETY: the offset is below the mapping's length.
    let byte = unsafe { memory.start.add(offset) };
    // SAFETY: the byte is writable, nobody has a reference to it yet, and it stays the zero that it is.
    unsafe { byte.write_volatile(0) };
}

/// Gives a mapping back.
pub(super) fn unmap(start: NonNull<u8>, len: usize) {
    // SAFETY: `Region::map` mapped exactly this, and no array is left. It cannot fail then.
    let _ = unsafe { munmap(start.as_ptr().cast(), len) };
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Kilobytes of ordinary memory that this process has.
    fn resident_kilobytes() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn ordinary_memory_is_there_at_once_and_gone_at_the_end() {
        let before = resident_kilobytes();
        let mut region = Region::map(64 << 20, PageSize::Ordinary, "test").unwrap();
        assert!(resident_kilobytes() >= before + 60_000, "it is not there");
        let mut array = region.cut::<u64>(1 << 20).unwrap();
        assert!(array.iter().all(|&word| word == 0));
        array.fill(1);
        drop((region, array));
        assert!(resident_kilobytes() < before + 30_000, "it is not gone");
    }

    #[test]
    fn more_memory_than_there_is_is_an_error() {
        for pages in [PageSize::Ordinary, PageSize::TwoMegabytes, PageSize::OneGigabyte] {
            assert!(Region::map(1 << 60, pages, "test").is_err(), "{pages:?}");
            assert!(Region::map(u64::MAX, pages, "test").is_err(), "{pages:?}");
        }
    }
}
