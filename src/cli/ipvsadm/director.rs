//! The connection to the daemon's IPVS socket, which all commands of one run share.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, recv, recvmsg, send, socket_with,
};

use crate::ipvs::netlink::{Heard, Hearing, NotUnderstood, question};
use crate::ipvs::{Answer, Command};

/// A daemon that says nothing for so long is taken for hung.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of the longest datagram from the daemon.
const LONGEST: usize = 64 << 10;

/// What a question for a file begins with, as the daemon knows it.
const FILE: [u8; 8] = *b"FGFILE01";

/// Why a command got no answer, or not the one that was hoped for.
#[derive(Debug, thiserror::Error)]
pub(super) enum DirectorError {
    /// Nobody listens.
    #[error(
        "no daemon listens on {path} ({source}): start one with `fullgate run --config FILE`, \
         or name its control socket with FULLGATE_SOCKET"
    )]
    Away {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The connection failed under way.
    #[error("the daemon cannot be talked to: {0}")]
    Broken(#[from] io::Error),
    /// The daemon speaks otherwise.
    #[error("the daemon is not understood, use the same release on both sides: {0}")]
    NotUnderstood(#[from] NotUnderstood),
    /// The daemon said no, with Linux's number for why.
    #[error("error {0}")]
    Refused(i32),
}

/// The connection, made when it is first needed.
#[derive(Debug)]
pub(super) struct Director {
    path: PathBuf,
    socket: Option<OwnedFd>,
    asked: u32,
}

impl Director {
    /// Of the daemon that listens here for IPVS's tools.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, socket: None, asked: 0 }
    }

    /// Asks for a command, and waits for its answer.
    pub(super) fn ask(&mut self, command: &Command) -> Result<Answer, DirectorError> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => dial(&self.path)?,
        };
        self.asked = self.asked.wrapping_add(1);
        let mut buffer = vec![0; LONGEST];
        send(&socket, &question(command, self.asked), SendFlags::NOSIGNAL).map_err(io::Error::from)?;
        let mut hearing = Hearing::new(command);
        let answer = loop {
            let datagram = received(&socket, &mut buffer)?;
            if let Heard::All(answer) = hearing.take(datagram)? {
                break answer;
            }
        };
        self.socket = Some(socket);
        answer.map_err(DirectorError::Refused)
    }

    /// Opens a file of `/proc/net`.
    pub(super) fn file(&self, path: &str) -> Result<File, DirectorError> {
        let socket = dial(&self.path)?;
        send(&socket, &[&FILE[..], path.as_bytes()].concat(), SendFlags::NOSIGNAL).map_err(io::Error::from)?;
        let mut head = [0; 8];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut head)];
        recvmsg(&socket, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).map_err(io::Error::from)?;
        let file = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        let [a, b, c, d, ..] = head;
        file.map(File::from).ok_or(DirectorError::Refused(i32::from_ne_bytes([a, b, c, d])))
    }
}

fn dial(path: &Path) -> Result<OwnedFd, DirectorError> {
    let connected = || -> io::Result<OwnedFd> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket)
    };
    connected().map_err(|source| DirectorError::Away { path: path.to_owned(), source })
}

fn received<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> Result<&'a [u8], DirectorError> {
    let (_, length) = recv(socket, &mut *buffer, RecvFlags::TRUNC).map_err(io::Error::from)?;
    match buffer.get(..length) {
        Some([]) => Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
        Some(datagram) => Ok(datagram),
        None => Err(NotUnderstood.into()),
    }
}
