//! Messages of netlink sockets.

use std::ffi::{c_int, c_void};
use std::os::fd::BorrowedFd;

use libc::{msghdr, size_t, sockaddr, sockaddr_nl, socklen_t, ssize_t};
use rustix::io::Errno;

use super::{borrow, fail};
use crate::{daemon, netlink, taken};

/// Bytes of the longest request of a tool that is looked at.
const LONGEST_MESSAGE: usize = 1 << 20;

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

/// Takes a message that is for the daemon, and says what the caller is told; none: it is the kernel's.
fn divert(socket: BorrowedFd<'_>, message: &[u8]) -> Option<ssize_t> {
    let asks_for_ipvs = netlink::asks_for_ipvs(message);
    if asks_for_ipvs
        && !taken::is_taken(socket)
        && is_generic_netlink(socket)
        && let Err(errno) = taken::take_over(socket)
    {
        return Some(fail(errno));
    }
    if !taken::is_taken(socket) {
        return None;
    }
    let sent = match asks_for_ipvs && daemon::has_options_only() {
        true => taken::deny_family(socket, message),
        false => taken::send(socket, message),
    };
    Some(sent.try_into().unwrap_or(ssize_t::MAX))
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
        && let Some(sent) = divert(socket, &bytes)
    {
        return sent;
    }
    // SAFETY: the caller's promise is what the kernel's call needs.
    unsafe { libc::syscall(libc::SYS_sendmsg, descriptor, message, flags) as ssize_t }
}

/// `sendto(2)`.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendto(
    descriptor: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_length: socklen_t,
) -> ssize_t {
    if let Some(socket) = borrow(descriptor).filter(|_| !buffer.is_null() && length <= LONGEST_MESSAGE) {
        // SAFETY: the caller's promise: as many bytes as it says.
        let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), length) };
        if let Some(sent) = divert(socket, bytes) {
            return sent;
        }
    }
    // SAFETY: the caller's promise is what the kernel's call needs.
    unsafe { libc::syscall(libc::SYS_sendto, descriptor, buffer, length, flags, to, to_length) as ssize_t }
}

/// `send(2)`.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn send(descriptor: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    unsafe { sendto(descriptor, buffer, length, flags, std::ptr::null(), 0) }
}

/// What the daemon has to say on a descriptor that was taken over; none: it was not.
fn receive(descriptor: c_int, flags: c_int) -> Option<Result<Vec<u8>, Errno>> {
    let socket = borrow(descriptor).filter(|&socket| taken::is_taken(socket))?;
    Some(taken::receive(socket, flags & libc::MSG_PEEK != 0, flags & libc::MSG_DONTWAIT == 0))
}

/// What the caller is told of a datagram of which so many bytes fitted.
fn received(answer: &[u8], fitted: usize, flags: c_int) -> ssize_t {
    let told = if flags & libc::MSG_TRUNC == 0 { fitted } else { answer.len() };
    told.try_into().unwrap_or(ssize_t::MAX)
}

/// Writes the address of the kernel's netlink, as far as there is room for it. The length that it has.
///
/// # Safety
/// `room` bytes of `place` can be written.
unsafe fn write_kernel(place: *mut c_void, room: socklen_t) -> socklen_t {
    // SAFETY: a sockaddr_nl of zeros is one: port 0 is the kernel's.
    let mut kernel: sockaddr_nl = unsafe { std::mem::zeroed() };
    kernel.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    let length = size_of::<sockaddr_nl>();
    let from = (&raw const kernel).cast::<u8>();
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(from, place.cast::<u8>(), length.min(room as usize)) };
    length as socklen_t
}

/// `recvmsg(2)`.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmsg(descriptor: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    match if message.is_null() { None } else { receive(descriptor, flags) } {
        // SAFETY: the caller's promise is what the kernel's call needs.
        None => unsafe { libc::syscall(libc::SYS_recvmsg, descriptor, message, flags) as ssize_t },
        Some(Err(errno)) => fail(errno),
        // SAFETY: the caller's promise: a message header with parts that can be written.
        Some(Ok(answer)) => unsafe { deliver(&answer, message, flags) },
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
    if !header.msg_name.is_null() {
        // SAFETY: the caller's promise.
        header.msg_namelen = unsafe { write_kernel(header.msg_name, header.msg_namelen) };
    }
    received(answer, answer.len() - rest.len(), flags)
}

/// `recvfrom(2)`.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvfrom(
    descriptor: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_length: *mut socklen_t,
) -> ssize_t {
    // Without a buffer a caller can ask for the next datagram's length.
    let answer = match if buffer.is_null() && length > 0 { None } else { receive(descriptor, flags) } {
        Some(Ok(answer)) => answer,
        Some(Err(errno)) => return fail(errno),
        None => {
            let call = libc::SYS_recvfrom;
            // SAFETY: the caller's promise is what the kernel's call needs.
            return unsafe { libc::syscall(call, descriptor, buffer, length, flags, from, from_length) as ssize_t };
        }
    };
    let fitted = length.min(answer.len());
    if fitted > 0 {
        // SAFETY: the caller's promise: as many bytes as it says can be written.
        unsafe { std::ptr::copy_nonoverlapping(answer.as_ptr(), buffer.cast::<u8>(), fitted) };
    }
    if !from.is_null() && !from_length.is_null() {
        // SAFETY: the caller's promise.
        let from_length = unsafe { &mut *from_length };
        // SAFETY: the caller's promise: it has room for as much as it says.
        *from_length = unsafe { write_kernel(from.cast(), *from_length) };
    }
    received(&answer, fitted, flags)
}

/// `recv(2)`.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recv(descriptor: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    unsafe { recvfrom(descriptor, buffer, length, flags, std::ptr::null_mut(), std::ptr::null_mut()) }
}

/// `recv(2)` for a buffer whose size is known.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __recv_chk(
    descriptor: c_int,
    buffer: *mut c_void,
    length: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    abort_beyond(length, room);
    // SAFETY: the caller's promise.
    unsafe { recv(descriptor, buffer, length, flags) }
}

/// `recvfrom(2)` for a buffer whose size is known.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __recvfrom_chk(
    descriptor: c_int,
    buffer: *mut c_void,
    length: size_t,
    room: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_length: *mut socklen_t,
) -> ssize_t {
    abort_beyond(length, room);
    // SAFETY: the caller's promise.
    unsafe { recvfrom(descriptor, buffer, length, flags, from, from_length) }
}

/// Ends a program that would write beyond its buffer, as the C library does.
fn abort_beyond(length: size_t, room: size_t) {
    if length > room {
        std::process::abort();
    }
}
