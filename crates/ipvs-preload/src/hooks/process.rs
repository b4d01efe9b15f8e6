//! Programs that are started.

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use super::fail;

/// Whether a program would load the kernel's ip_vs.
///
/// # Safety
/// `path` is a C string, `arguments` a list of them that ends with null.
unsafe fn loads_ip_vs(path: *const c_char, arguments: *const *const c_char) -> bool {
    if path.is_null() || arguments.is_null() {
        return false;
    }
    // SAFETY: the caller's promise.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    if Path::new(OsStr::from_bytes(path)).file_name() != Some(OsStr::new("modprobe")) {
        return false;
    }
    let mut next = arguments;
    loop {
        // SAFETY: the list has not ended yet.
        let argument = unsafe { *next };
        if argument.is_null() {
            return false;
        }
        // SAFETY: the caller's promise.
        if unsafe { CStr::from_ptr(argument) }.to_bytes().starts_with(b"ip_vs") {
            return true;
        }
        // SAFETY: this was not the end of the list.
        next = unsafe { next.add(1) };
    }
}

/// `execv(3)`.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execv(path: *const c_char, arguments: *const *const c_char) -> c_int {
    unsafe extern "C" {
        /// `environ(7)`.
        static environ: *const *const c_char;
    }
    // SAFETY: programs with threads do not change their environment while they start another one.
    let environment = unsafe { environ };
    // SAFETY: the caller's promise.
    unsafe { execve(path, arguments, environment) }
}

/// `execve(2)`.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execve(
    path: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    if unsafe { loads_ip_vs(path, arguments) } {
        return fail(Errno::PERM);
    }
    // SAFETY: the caller's promise is what the kernel's call needs.
    unsafe { libc::syscall(libc::SYS_execve, path, arguments, environment) as c_int }
}
