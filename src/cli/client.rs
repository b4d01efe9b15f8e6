//! The client's end of the control protocol: one Unix socket, a line out, a line back.
//!
//! Nothing waits for ever: connecting, sending and receiving together have one time limit a request.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::control::line;
use crate::control::protocol::{MAX_LINE, Outcome, Refusal, Reply, Request};

/// EPROTOTYPE: of Unix sockets, one of datagrams where a stream was wanted.
const WRONG_SOCKET_TYPE: i32 = rustix::io::Errno::PROTOTYPE.raw_os_error();

/// Why a request got no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error(
        "no daemon listens on {path} ({source}): start one with `fullgate run --config FILE`, \
         or name its socket with --socket or FULLGATE_SOCKET"
    )]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket is there, but not for this user.
    #[error("no permission for {0}: allowed: root and members of the group of [control] group")]
    Permission(PathBuf),
    /// The socket is there, and is the other one.
    #[error(
        "{0} is the socket for IPVS's tools: the control socket is the one beside it, without \".ipvs\" in its name"
    )]
    OfTools(PathBuf),
    /// The connection failed under way.
    #[error("the daemon on {path} cannot be talked to: {source}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The daemon went away before it answered.
    #[error("the daemon on {0} closed the connection without an answer: see its log")]
    Closed(PathBuf),
    /// The daemon took too long.
    #[error("the daemon on {path} did not answer within {seconds} s: see its log, or allow more with --timeout")]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// The limit.
        seconds: f64,
    },
    /// Longer than either side takes.
    #[error("the {0} is longer than {MAX_LINE} bytes, the most a line may have: ask for less, as with --limit")]
    TooLong(&'static str),
    /// The answer is not understood.
    #[error("the daemon on {path}: {reason}")]
    NotUnderstood {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The daemon said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The answer is to another question.
    #[error("the daemon on {0} answers something else than was asked: use the same release on both sides")]
    WrongReply(PathBuf),
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: UnixStream,
    timeout: Duration,
}

impl Client {
    /// Connects to the daemon's socket. Each request may take up to `timeout`.
    ///
    /// # Errors
    /// [`ClientError::NoDaemon`], [`ClientError::Permission`] or [`ClientError::Broken`].
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, ClientError> {
        let path = path.to_owned();
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Self { path, stream, timeout }),
            Err(source) => Err(match source.kind() {
                // Not a directory: a part of the path is a file, so there is no socket either.
                ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::NotADirectory => {
                    ClientError::NoDaemon { path, source }
                }
                ErrorKind::PermissionDenied => ClientError::Permission(path),
                _ if source.raw_os_error() == Some(WRONG_SOCKET_TYPE) => ClientError::OfTools(path),
                _ => ClientError::Broken { path, source },
            }),
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// Any [`ClientError`]; after others than [`ClientError::Refused`] the connection must not be used again.
    pub fn call(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let deadline = Instant::now() + self.timeout;
        let mut line = line::request_line(request).map_err(|error| self.not_understood(&error))?;
        line.push('\n');
        if line.len() > MAX_LINE {
            return Err(ClientError::TooLong("request"));
        }
        self.send(line.as_bytes(), deadline)?;
        let line = self.receive(deadline)?;
        match line::parse_reply(&line).map_err(|refusal| self.not_understood(&refusal))? {
            Outcome::Ok(reply) => Ok(reply),
            Outcome::Error(refusal) => Err(refusal.into()),
        }
    }

    /// What to say of a reply that is none to the request.
    pub fn wrong_reply(&self) -> ClientError {
        ClientError::WrongReply(self.path.clone())
    }

    fn send(&mut self, mut line: &[u8], deadline: Instant) -> Result<(), ClientError> {
        while !line.is_empty() {
            let left = self.time_left(deadline)?;
            let written = self.stream.set_write_timeout(Some(left)).and_then(|()| self.stream.write(line));
            match written {
                Ok(0) => return Err(ClientError::Closed(self.path.clone())),
                Ok(count) => line = &line[count..],
                Err(error) => self.unless_transient(error)?,
            }
        }
        Ok(())
    }

    /// A line without its newline.
    fn receive(&mut self, deadline: Instant) -> Result<Vec<u8>, ClientError> {
        let mut line = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let left = self.time_left(deadline)?;
            let count = match self.stream.set_read_timeout(Some(left)).and_then(|()| self.stream.read(&mut buffer)) {
                Ok(0) => return Err(ClientError::Closed(self.path.clone())),
                Ok(count) => count,
                Err(error) => {
                    self.unless_transient(error)?;
                    continue;
                }
            };
            // One line answers one request: what follows a newline can only be of a peer that is no daemon.
            let end = buffer[..count].iter().position(|&byte| byte == b'\n');
            line.extend_from_slice(&buffer[..end.unwrap_or(count)]);
            if line.len() > MAX_LINE {
                return Err(ClientError::TooLong("answer"));
            }
            if end.is_some() {
                return Ok(line);
            }
        }
    }

    fn time_left(&self, deadline: Instant) -> Result<Duration, ClientError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ClientError::TimedOut { path: self.path.clone(), seconds: self.timeout.as_secs_f64() });
        }
        Ok(left)
    }

    /// An expired socket timeout is no error of its own: the deadline is looked at next.
    fn unless_transient(&self, source: io::Error) -> Result<(), ClientError> {
        match source.kind() {
            ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(()),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Err(ClientError::Closed(self.path.clone())),
            _ => Err(ClientError::Broken { path: self.path.clone(), source }),
        }
    }

    fn not_understood(&self, reason: &dyn std::fmt::Display) -> ClientError {
        ClientError::NotUnderstood { path: self.path.clone(), reason: reason.to_string() }
    }
}
