//! Unix sockets that are connected and keep datagrams apart (SOCK_SEQPACKET), for the event loop.
//!
//! The standard library has none. What it has for streams accepts connections of this kind too, and what it has for
//! datagrams sends and receives on them: only the kernel looks at the kind.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use tokio::io::Interest;
use tokio::net::{UnixDatagram, UnixListener};

/// A listening one.
pub(super) struct Listener(UnixListener);

impl Listener {
    /// Takes a socket that listens already and does not block.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        UnixListener::from_std(socket.into()).map(Self)
    }

    pub(super) async fn accept(&self) -> io::Result<Connection> {
        let socket = OwnedFd::from(self.0.accept().await?.0.into_std()?);
        UnixDatagram::from_std(socket.into()).map(Connection)
    }
}

/// A connected one.
pub(super) struct Connection(UnixDatagram);

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Connection {
    /// The next datagram's length, which is more than the buffer's where it did not fit; 0: there are no more.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.async_io(Interest::READABLE, || Ok(recv(&self.0, &mut *buffer, RecvFlags::TRUNC)?.1)).await
    }

    /// Whether the client is gone, and with it whoever would want an answer. What it sent before can still be received.
    pub(super) fn is_closed(&self) -> bool {
        let mut polled = [PollFd::new(&self.0, PollFlags::RDHUP)];
        let closed = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
        poll(&mut polled, Some(&Timespec::default())).is_ok() && polled[0].revents().intersects(closed)
    }

    pub(super) async fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.send_with(datagram, None).await
    }

    /// A datagram, with an open file if one is given.
    pub(super) async fn send_with(&self, datagram: &[u8], file: Option<&OwnedFd>) -> io::Result<()> {
        let files = file.map(|file| [file.as_fd()]);
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if let Some(files) = &files {
                // There is room for one.
                ancillary.push(SendAncillaryMessage::ScmRights(files));
            }
            Ok(sendmsg(&self.0, &[IoSlice::new(datagram)], &mut ancillary, SendFlags::NOSIGNAL)?)
        };
        self.0.async_io(Interest::WRITABLE, send).await.map(drop)
    }
}
