//! Socket options: IPVS's older interface.

use std::ffi::{c_int, c_void};

use libc::socklen_t;

use super::fail;
use crate::daemon;

/// IPVS's options: `IP_VS_BASE_CTL` and what is above it, to the last one that is IPVS's.
const OPTIONS: std::ops::RangeInclusive<c_int> = 1152..=1215;

/// `setsockopt(2)`.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn setsockopt(
    descriptor: c_int,
    level: c_int,
    option: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    if level == libc::IPPROTO_IP && OPTIONS.contains(&option) {
        let value = match value.is_null() {
            true => &[][..],
            // SAFETY: the caller's promise: as many bytes as it says.
            false => unsafe { std::slice::from_raw_parts(value.cast::<u8>(), length as usize) },
        };
        return daemon::set_option(option, value).map_or_else(fail, |()| 0);
    }
    // SAFETY: the caller's promise is what the kernel's call needs.
    unsafe { libc::syscall(libc::SYS_setsockopt, descriptor, level, option, value, length) as c_int }
}

/// `getsockopt(2)`.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockopt(
    descriptor: c_int,
    level: c_int,
    option: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    if level != libc::IPPROTO_IP || !OPTIONS.contains(&option) || value.is_null() || length.is_null() {
        // SAFETY: the caller's promise is what the kernel's call needs.
        return unsafe { libc::syscall(libc::SYS_getsockopt, descriptor, level, option, value, length) as c_int };
    }
    // SAFETY: the caller's promise.
    let length = unsafe { &mut *length };
    // SAFETY: the caller's promise: as many bytes as it says.
    let buffer = unsafe { std::slice::from_raw_parts_mut(value.cast::<u8>(), *length as usize) };
    match daemon::get_option(option, buffer, buffer.len()) {
        Err(errno) => fail(errno),
        Ok(reply) => {
            let written = reply.len().min(buffer.len());
            buffer[..written].copy_from_slice(&reply[..written]);
            *length = written as socklen_t;
            0
        }
    }
}
