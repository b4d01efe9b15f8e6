//! Files of `/proc/net`.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::IntoRawFd;

use libc::{FILE, mode_t};
use rustix::io::Errno;

use super::fail;
use crate::daemon;

/// Files that are asked of the daemon.
const FILES: &[u8] = b"/proc/net/ip_vs";

/// The path, if it is of a file that the daemon has.
///
/// # Safety
/// `path` is null or a C string.
unsafe fn is_ours<'a>(path: *const c_char) -> Option<&'a [u8]> {
    if path.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    path.starts_with(FILES).then_some(path)
}

/// `open(2)`. Its mode is passed as a variable argument's place is, in a register.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { openat(libc::AT_FDCWD, path, flags, mode) }
}

/// `open(2)` for large files, which all are.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { openat(libc::AT_FDCWD, path, flags, mode) }
}

/// `openat(2)`.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise.
    if let Some(path) = unsafe { is_ours(path) } {
        return daemon::file(path).map_or_else(fail, IntoRawFd::into_raw_fd);
    }
    // SAFETY: the caller's promise is what the kernel's call needs.
    unsafe { libc::syscall(libc::SYS_openat, directory, path, flags, mode) as c_int }
}

/// `openat(2)` for large files, which all are.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat64(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { openat(directory, path, flags, mode) }
}

type Fopen = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut FILE;

/// `fopen(3)`.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: the caller's promise.
    if let Some(path) = unsafe { is_ours(path) } {
        let Ok(file) = daemon::file(path) else {
            fail::<c_int>(Errno::NOENT);
            return std::ptr::null_mut();
        };
        // SAFETY: the descriptor is open and nobody else's; the mode is the caller's.
        return unsafe { libc::fdopen(file.into_raw_fd(), mode) };
    }
    // SAFETY: the name is a C string.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"fopen".as_ptr()) };
    if next.is_null() {
        fail::<c_int>(Errno::NOSYS);
        return std::ptr::null_mut();
    }
    // SAFETY: it is the C library's function of this name.
    let next = unsafe { std::mem::transmute::<*mut c_void, Fopen>(next) };
    // SAFETY: the caller's promise.
    unsafe { next(path, mode) }
}

/// `fopen(3)` for large files, which all are.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: the caller's promise.
    unsafe { fopen(path, mode) }
}

/// `open(2)` of what is not made.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __open_2(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { openat(libc::AT_FDCWD, path, flags, 0) }
}

/// `open(2)` of what is not made, for large files, which all are.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __open64_2(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { openat(libc::AT_FDCWD, path, flags, 0) }
}

/// `openat(2)` of what is not made.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __openat_2(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { openat(directory, path, flags, 0) }
}

/// `openat(2)` of what is not made, for large files, which all are.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __openat64_2(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { openat(directory, path, flags, 0) }
}
