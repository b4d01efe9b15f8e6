//! The C functions that stand in front of the C library's. Each looks whether a call is for IPVS, and makes the same
//! system call as the C library if not.
//!
//! All `unsafe` of this crate is here: reading what C callers point to, and writing where they say.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::{FILE, mode_t, msghdr, size_t, sockaddr_nl, socklen_t, ssize_t};
use rustix::io::Errno;

use crate::{daemon, netlink, taken};

/// IPVS's options: `IP_VS_BASE_CTL` and what is above it, to the last one that is IPVS's.
const OPTIONS: std::ops::RangeInclusive<c_int> = 1152..=1215;

/// Bytes of the longest request of a tool that is looked at.
const LONGEST_MESSAGE: usize = 1 << 20;

/// Files that are asked of the daemon.
const FILES: &[u8] = b"/proc/net/ip_vs";

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

/// The parts that a message's bytes are in, or are to be put in.
///
/// # Safety
/// `message` points to a message header whose vector of parts is as long as it says.
unsafe fn parts<'a>(message: *const msghdr) -> &'a [libc::iovec] {
    // SAFETY: the caller's promise.
    let header = unsafe { &*message };
    if header.msg_iov.is_null() || header.msg_iovlen == 0 {
        return &[];
    }
    // SAFETY: the caller's promise; it is not null.
    unsafe { std::slice::from_raw_parts(header.msg_iov, header.msg_iovlen) }
}

/// The bytes of a message, one part after the other; none if they are too many.
///
/// # Safety
/// As for [`parts`], and each part can be read.
unsafe fn bytes_of(message: *const msghdr) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    // SAFETY: the caller's promise.
    for part in unsafe { parts(message) } {
        if part.iov_len > LONGEST_MESSAGE - bytes.len() {
            return None;
        }
        if part.iov_len > 0 {
            // SAFETY: the caller's promise for this part.
            bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len) });
        }
    }
    Some(bytes)
}

/// Whether a descriptor is a generic netlink socket.
fn is_generic_netlink(descriptor: BorrowedFd<'_>) -> bool {
    use rustix::net::sockopt::{socket_domain, socket_protocol};
    socket_domain(descriptor) == Ok(rustix::net::AddressFamily::NETLINK)
        && socket_protocol(descriptor) == Ok(Some(rustix::net::netlink::GENERIC))
}

/// `sendmsg(2)`.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmsg(descriptor: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    if let Some(socket) = borrow(descriptor)
        && !message.is_null()
        && (taken::is_taken(socket) || is_generic_netlink(socket))
        // SAFETY: the caller's promise.
        && let Some(bytes) = unsafe { bytes_of(message) }
    {
        let asks_for_ipvs = netlink::asks_for_ipvs(&bytes);
        if !taken::is_taken(socket)
            && asks_for_ipvs
            && let Err(errno) = taken::take_over(socket)
        {
            return fail(errno);
        }
        if asks_for_ipvs && daemon::has_options_only() {
            return taken::deny_family(socket, &bytes).try_into().unwrap_or(ssize_t::MAX);
        }
        if taken::is_taken(socket) {
            return taken::send(socket, &bytes).try_into().unwrap_or(ssize_t::MAX);
        }
    }
    // SAFETY: the caller's promise is what the kernel's call needs.
    unsafe { libc::syscall(libc::SYS_sendmsg, descriptor, message, flags) as ssize_t }
}

/// `recvmsg(2)`.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmsg(descriptor: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    let Some(socket) = borrow(descriptor).filter(|socket| !message.is_null() && taken::is_taken(*socket)) else {
        // SAFETY: the caller's promise is what the kernel's call needs.
        return unsafe { libc::syscall(libc::SYS_recvmsg, descriptor, message, flags) as ssize_t };
    };
    match taken::receive(socket, flags & libc::MSG_PEEK != 0, flags & libc::MSG_DONTWAIT == 0) {
        Err(errno) => fail(errno),
        // SAFETY: the caller's promise: a message header with parts that can be written.
        Ok(answer) => unsafe { deliver(&answer, message, flags) },
    }
}

/// Writes a datagram where the caller of `recvmsg` wants it, as from the kernel's netlink.
///
/// # Safety
/// As for [`parts`], and each part can be written; the name is as long as the header says.
unsafe fn deliver(answer: &[u8], message: *mut msghdr, flags: c_int) -> ssize_t {
    let mut rest = answer;
    // SAFETY: the caller's promise.
    for part in unsafe { parts(message) } {
        let (now, later) = rest.split_at(part.iov_len.min(rest.len()));
        // SAFETY: the caller's promise; the part has room for as much.
        unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), part.iov_base.cast::<u8>(), now.len()) };
        rest = later;
    }
    // SAFETY: the caller's promise.
    let header = unsafe { &mut *message };
    header.msg_flags = if rest.is_empty() { 0 } else { libc::MSG_TRUNC };
    header.msg_controllen = 0;
    let length = size_of::<sockaddr_nl>();
    if !header.msg_name.is_null() && header.msg_namelen as usize >= length {
        // SAFETY: a sockaddr_nl of zeros is one: port 0 is the kernel's.
        let mut kernel: sockaddr_nl = unsafe { std::mem::zeroed() };
        kernel.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        // SAFETY: there is room for it; it need not be aligned.
        unsafe { header.msg_name.cast::<sockaddr_nl>().write_unaligned(kernel) };
        header.msg_namelen = length as socklen_t;
    }
    let received = if flags & libc::MSG_TRUNC == 0 { answer.len() - rest.len() } else { answer.len() };
    received.try_into().unwrap_or(ssize_t::MAX)
}

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

/// A length as C has it: the same in both worlds on the machines that this is for.
const _: () = assert!(size_of::<size_t>() == size_of::<usize>());
