//! The C functions that stand in front of the C library's. Each looks whether a call is for IPVS, and makes the same
//! system call as the C library if not. Programs that were built with checks of sizes call others of the same meaning, whose
//! names begin with two underscores.
//!
//! All `unsafe` of this crate is here and below: reading what C callers point to, and writing where they say.

mod file;
mod option;
mod process;
mod socket;

use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

pub use file::*;
use libc::size_t;
pub use option::*;
pub use process::*;
use rustix::io::Errno;
pub use socket::*;

fn fail<T: From<i8>>(errno: Errno) -> T {
    // SAFETY: the C library gives the address of this thread's errno, which is always there.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: see above; nothing else of this thread is at it.
    unsafe { place.write(errno.raw_os_error()) };
    T::from(-1)
}

/// A descriptor as the caller gave it. If it is not open, calls with it fail.
fn borrow<'a>(descriptor: c_int) -> Option<BorrowedFd<'a>> {
    // SAFETY: it is not -1, and the caller keeps it open during its own call, as with the kernel's.
    (descriptor >= 0).then(|| unsafe { BorrowedFd::borrow_raw(descriptor) })
}

/// Puts a socket under a descriptor that the caller goes on using.
pub(crate) fn duplicate_over(socket: &OwnedFd, descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: both are open; what was under the second one is closed, as its owner, the client's netlink library, expects
    // no more of it than that it can be written to and read from.
    let outcome = unsafe { libc::dup3(socket.as_raw_fd(), descriptor.as_raw_fd(), libc::O_CLOEXEC) };
    if outcome < 0 {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::BADF))
    } else {
        Ok(())
    }
}

/// A length as C has it: the same in both worlds on the machines that this is for.
const _: () = assert!(size_of::<size_t>() == size_of::<usize>());
