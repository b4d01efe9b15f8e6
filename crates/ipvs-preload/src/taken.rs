//! The netlink sockets that have been taken over: each is a connection to the daemon under the client's descriptor.
//!
//! A client sends and receives as before. While the daemon is away, each message is taken and answered with EBUSY; the
//! next one is sent to the daemon again if it has come back. A connection to a daemon that did not answer is closed when
//! the client is told so: the daemon does nothing any more of what it finds on a closed one.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::{daemon, netlink};

/// One that was taken over.
struct Taken {
    descriptor: RawFd,
    /// Device and inode: a descriptor that was closed may have become something else.
    identity: (u64, u64),
    connected: bool,
    /// What the daemon has to answer yet.
    unanswered: Option<Vec<u8>>,
    /// Answers made here.
    answers: VecDeque<Vec<u8>>,
}

static TAKEN: Mutex<Vec<Taken>> = Mutex::new(Vec::new());
/// As many as there are in the list, to be seen without its lock.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Bytes of the longest datagram from the daemon, whose dumps are of at most 16 KB each.
const LONGEST: usize = 64 << 10;

fn taken() -> MutexGuard<'static, Vec<Taken>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn identity(descriptor: impl AsFd) -> Option<(u64, u64)> {
    rustix::fs::fstat(descriptor).ok().map(|found| (found.st_dev, found.st_ino))
}

/// Does something with what is known of a descriptor, if it was taken over and still is what it was.
fn with<T>(descriptor: BorrowedFd<'_>, act: impl FnOnce(&mut Taken) -> T) -> Option<T> {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let mut list = taken();
    let place = list.iter().position(|one| one.descriptor == descriptor.as_raw_fd())?;
    if identity(descriptor) != Some(list[place].identity) {
        list.swap_remove(place);
        COUNT.store(list.len(), Ordering::Relaxed);
        return None;
    }
    Some(act(&mut list[place]))
}

/// Whether a descriptor was taken over.
pub(crate) fn is_taken(descriptor: BorrowedFd<'_>) -> bool {
    with(descriptor, |_| ()).is_some()
}

/// Takes a netlink socket over.
pub(crate) fn take_over(descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
    let (socket, connected) = dialled()?;
    let identity = put_under(descriptor, &socket)?;
    let mut list = taken();
    list.retain(|one| one.descriptor != descriptor.as_raw_fd());
    list.push(Taken {
        descriptor: descriptor.as_raw_fd(),
        identity,
        connected,
        unanswered: None,
        answers: VecDeque::new(),
    });
    COUNT.store(list.len(), Ordering::Relaxed);
    Ok(())
}

/// A connection, or what stands for one.
fn dialled() -> Result<(OwnedFd, bool), Errno> {
    match daemon::dial() {
        Ok(socket) => Ok((socket, true)),
        Err(_) => Ok((daemon::unconnected()?, false)),
    }
}

/// Puts a socket under a descriptor that has another one, with the other one's way of waiting.
fn put_under(descriptor: BorrowedFd<'_>, socket: &OwnedFd) -> Result<(u64, u64), Errno> {
    let blocking = rustix::fs::fcntl_getfl(descriptor)?;
    let on_exec = rustix::io::fcntl_getfd(descriptor)?;
    rustix::fs::fcntl_setfl(socket, blocking)?;
    crate::hooks::duplicate_over(socket, descriptor)?;
    rustix::io::fcntl_setfd(descriptor, on_exec)?;
    identity(descriptor).ok_or(Errno::BADF)
}

/// Takes a message that asks for the family, and answers that there is none.
pub(crate) fn deny_family(descriptor: BorrowedFd<'_>, message: &[u8]) -> usize {
    with(descriptor, |one| one.answers.push_back(netlink::error(message, netlink::ENOENT)));
    message.len()
}

/// Sends a message. It is always taken: what cannot reach the daemon is answered here.
pub(crate) fn send(descriptor: BorrowedFd<'_>, message: &[u8]) -> usize {
    let connected = with(descriptor, |one| one.connected).unwrap_or(false);
    let parts = [std::io::IoSlice::new(message)];
    let sent = (connected && daemon::send_parts(descriptor, &parts).is_ok())
        || (redial(descriptor) && daemon::send_parts(descriptor, &parts).is_ok());
    with(descriptor, |one| match sent {
        true => one.unanswered = Some(message.to_vec()),
        false => one.answers.push_back(netlink::error(message, netlink::EBUSY)),
    });
    message.len()
}

/// Connects anew, under the same descriptor.
fn redial(descriptor: BorrowedFd<'_>) -> bool {
    match daemon::dial() {
        Ok(socket) => exchange(descriptor, &socket, true),
        Err(_) => {
            with(descriptor, |one| one.connected = false);
            false
        }
    }
}

/// Closes the connection under a descriptor.
fn disconnect(descriptor: BorrowedFd<'_>) {
    if let Ok(socket) = daemon::unconnected() {
        exchange(descriptor, &socket, false);
    }
}

/// Puts another socket under a descriptor that was taken over: what the descriptor is changes, and with it how it is known.
fn exchange(descriptor: BorrowedFd<'_>, socket: &OwnedFd, connected: bool) -> bool {
    let mut list = taken();
    let Some(one) = list.iter_mut().find(|one| one.descriptor == descriptor.as_raw_fd()) else { return false };
    let Ok(identity) = put_under(descriptor, socket) else { return false };
    (one.identity, one.connected) = (identity, connected);
    true
}

/// Receives an answer; it stays to be received again where `peek` says so.
pub(crate) fn receive(descriptor: BorrowedFd<'_>, peek: bool, wait: bool) -> Result<Vec<u8>, Errno> {
    let made_here = with(descriptor, |one| if peek { one.answers.front().cloned() } else { one.answers.pop_front() });
    if let Some(answer) = made_here.flatten() {
        return Ok(answer);
    }
    let mut flags = RecvFlags::empty();
    flags.set(RecvFlags::PEEK, peek);
    flags.set(RecvFlags::DONTWAIT, !wait);
    // Not filled with zeros first: tools receive each answer twice, and lists of thousands of services take thousands.
    let mut answer = Vec::with_capacity(LONGEST);
    match recv(descriptor, spare_capacity(&mut answer), flags) {
        Ok((0, _)) => {}
        Ok(_) => return Ok(answer),
        Err(Errno::INTR) => return Err(Errno::INTR),
        Err(Errno::AGAIN) if !wait || does_not_wait(descriptor) => return Err(Errno::AGAIN),
        Err(_) => {}
    }
    lost(descriptor, peek)
}

fn does_not_wait(descriptor: BorrowedFd<'_>) -> bool {
    rustix::fs::fcntl_getfl(descriptor).is_ok_and(|flags| flags.contains(rustix::fs::OFlags::NONBLOCK))
}

/// The daemon went, or has said nothing for too long: what it was asked is answered here.
fn lost(descriptor: BorrowedFd<'_>, peek: bool) -> Result<Vec<u8>, Errno> {
    disconnect(descriptor);
    with(descriptor, |one| {
        one.connected = false;
        let answer = netlink::error(&one.unanswered.take()?, netlink::EBUSY);
        if peek {
            one.answers.push_back(answer.clone());
        }
        Some(answer)
    })
    .flatten()
    .ok_or(Errno::AGAIN)
}
