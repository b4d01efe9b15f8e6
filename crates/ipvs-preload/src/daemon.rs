//! Speaking to the daemon: connections that netlink messages go over, and single questions for socket options and files.
//!
//! A single question is one datagram that begins with what it is, [`OPTION`] or [`FILE`]; a netlink message cannot begin
//! so, since its length would be over a gigabyte. The answer to an option is a datagram of an error number and a number
//! of bytes, and those in further datagrams; the answer to a file is an error number and a descriptor.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, recv, recvmsg, send, socket_with,
};

/// Names the daemon's socket, if it is not [`DEFAULT_SOCKET`].
const SOCKET_VARIABLE: &str = "FULLGATE_IPVS_SOCKET";
/// Where the daemon's socket is with its default configuration.
const DEFAULT_SOCKET: &str = "/run/fullgate/control.ipvs.sock";

/// Where it is `options`, programs are told that there is no netlink family, and use socket options if they can.
const INTERFACE_VARIABLE: &str = "FULLGATE_IPVS_INTERFACE";

/// A daemon that says nothing for so long is taken for hung.
const PATIENCE: Duration = Duration::from_secs(10);

/// What single questions begin with.
const OPTION: [u8; 8] = *b"FGOPTN01";
const FILE: [u8; 8] = *b"FGFILE01";

/// Bytes of the buffer of a `getsockopt` that say what is asked: those of the largest structure that any begins with.
const OPTION_HEAD: usize = 104;

/// Whether programs are to use the older interface.
pub(crate) fn has_options_only() -> bool {
    std::env::var_os(INTERFACE_VARIABLE).is_some_and(|value| value == "options")
}

/// A new connection, or the reason why there is none.
pub(crate) fn dial() -> Result<OwnedFd, Errno> {
    let socket = unconnected()?;
    let path = std::env::var_os(SOCKET_VARIABLE).unwrap_or_else(|| DEFAULT_SOCKET.into());
    connect(&socket, &SocketAddrUnix::new(path.as_os_str())?)?;
    Ok(socket)
}

/// What stands for a connection while there is none.
pub(crate) fn unconnected() -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    Ok(socket)
}

/// Sets an option.
pub(crate) fn set_option(option: i32, value: &[u8]) -> Result<(), Errno> {
    ask_option(option, true, value, value.len()).map(drop)
}

/// What an option's buffer of `length` bytes, which holds `buffer`, begins with afterwards.
pub(crate) fn get_option(option: i32, buffer: &[u8], length: usize) -> Result<Vec<u8>, Errno> {
    ask_option(option, false, &buffer[..buffer.len().min(OPTION_HEAD)], length)
}

fn ask_option(option: i32, is_set: bool, value: &[u8], length: usize) -> Result<Vec<u8>, Errno> {
    let socket = dial().map_err(away)?;
    let length = u32::try_from(length).map_err(|_| Errno::INVAL)?;
    let mut question = OPTION.to_vec();
    question.extend(option.to_ne_bytes());
    question.extend(u32::from(is_set).to_ne_bytes());
    question.extend(length.to_ne_bytes());
    question.extend(value);
    send(&socket, &question, SendFlags::NOSIGNAL).map_err(away)?;
    let mut head = [0; 8];
    let received = recv(&socket, &mut head, RecvFlags::empty()).map_err(away)?.0;
    let [a, b, c, d, rest @ ..] = head;
    match i32::from_ne_bytes([a, b, c, d]) {
        _ if received != head.len() => return Err(Errno::BUSY),
        0 => {}
        number => return Err(Errno::from_raw_os_error(number)),
    }
    let mut reply = vec![0; u32::from_ne_bytes(rest) as usize];
    let mut filled = 0;
    while filled < reply.len() {
        match recv(&socket, &mut reply[filled..], RecvFlags::empty()).map_err(away)?.0 {
            0 => return Err(Errno::BUSY),
            part => filled += part,
        }
    }
    Ok(reply)
}

/// A file of `/proc/net`, open for reading.
pub(crate) fn file(path: &[u8]) -> Result<OwnedFd, Errno> {
    let socket = dial().map_err(away)?;
    let question = [&FILE[..], path].concat();
    send(&socket, &question, SendFlags::NOSIGNAL).map_err(away)?;
    let mut head = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut head)];
    recvmsg(&socket, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).map_err(away)?;
    let file = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    let [a, b, c, d, ..] = head;
    match (file, i32::from_ne_bytes([a, b, c, d])) {
        (Some(file), _) => Ok(file),
        (None, 0) => Err(Errno::BUSY),
        (None, number) => Err(Errno::from_raw_os_error(number)),
    }
}

/// A daemon that is away, or cut a connection off, is a busy one to its clients.
fn away(_: Errno) -> Errno {
    Errno::BUSY
}

/// Sends the parts of one datagram.
pub(crate) fn send_parts(socket: impl std::os::fd::AsFd, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let mut ancillary = rustix::net::SendAncillaryBuffer::default();
    rustix::net::sendmsg(socket, parts, &mut ancillary, SendFlags::NOSIGNAL)
}
