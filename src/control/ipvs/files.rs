//! The files of `/proc/net`: their reader is given an open descriptor.
//!
//! What is as long as the configuration is written whole, into memory that stays as it is. Connections, of which there may be
//! millions, are written as they are read: that takes no memory to speak of, and a reader who has seen enough ends the walk.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use rustix::fs::{MemfdFlags, SealFlags};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::WRITE_PATIENCE;
use super::commands::Director;
use super::seqpacket::Connection;
use crate::ipvs::{Errno, proc_net};

/// Answers who asks for a file: an error number, and the file.
pub(super) async fn answer<F, E>(connection: &Connection, director: &Director<F, E>, path: &[u8]) -> io::Result<()> {
    let text = match path {
        b"/proc/net/ip_vs_conn" => return connections(connection, director).await,
        b"/proc/net/ip_vs" => director.services_with_destinations().await.map(|listed| {
            let pairs = listed.iter().map(|(service, destinations)| (service, destinations.as_slice()));
            proc_net::services(pairs, director.connection_table_size())
        }),
        b"/proc/net/ip_vs_stats" => director.total().await.map(|total| proc_net::stats(&total)),
        b"/proc/net/ip_vs_stats_percpu" => match (director.by_worker().await, director.total().await) {
            (Ok(workers), Ok(total)) => Ok(proc_net::stats_by_worker(&workers, &total)),
            (Err(errno), _) | (_, Err(errno)) => Err(errno),
        },
        _ => Err(Errno::NoEntry),
    };
    match text {
        Ok(text) => send(connection, 0, Some(&memory_file(&text)?)).await,
        Err(errno) => send(connection, errno.number(), None).await,
    }
}

async fn send(connection: &Connection, error: i32, file: Option<&OwnedFd>) -> io::Result<()> {
    let head = [error.to_ne_bytes(), [0; 4]].concat();
    timeout(WRITE_PATIENCE, connection.send_with(&head, file)).await?
}

/// A file of this text, at its beginning, never to be changed again.
fn memory_file(text: &str) -> io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create("ip_vs", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file.into())
}

/// The file of connections. Its reader may take as long as it likes.
async fn connections<F, E>(connection: &Connection, director: &Director<F, E>) -> io::Result<()> {
    let (mut ours, theirs) = stream()?;
    send(connection, 0, Some(&theirs)).await?;
    drop(theirs);
    match director.write_connections(&mut ours).await {
        Ok(()) => finish(ours).await,
        // Its reader has seen enough.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What is written to the one end is read at the other one. That ends with an error (ECONNRESET) unless it is [finished](finish):
/// the first end is closed with a byte unread, which resets a Unix stream. A list that is cut short, by a worker that is stuck or a
/// daemon that is killed, must not pass for a whole one.
fn stream() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    (&theirs).write_all(&[0])?;
    theirs.shutdown(Shutdown::Write)?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}

/// All was written.
async fn finish(mut stream: UnixStream) -> io::Result<()> {
    stream.read_u8().await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn files_are_read_from_their_beginning_and_stay_as_they_are() {
        let file = memory_file("text").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(rustix::io::read(&file, &mut buffer).unwrap(), 4);
        assert_eq!(&buffer[..4], b"text");
        rustix::io::write(&file, b"more").unwrap_err();
    }

    #[tokio::test]
    async fn a_stream_that_is_not_finished_ends_with_an_error_behind_what_was_written() {
        for whole in [true, false] {
            let (mut ours, theirs) = stream().unwrap();
            ours.write_all(b"lines").await.unwrap();
            if whole {
                finish(ours).await.unwrap()
            } else {
                drop(ours)
            }
            let (mut file, mut text) = (File::from(theirs), Vec::new());
            let ended = file.read_to_end(&mut text).map_err(|error| error.kind());
            assert_eq!(text, b"lines");
            assert_eq!(ended, if whole { Ok(5) } else { Err(io::ErrorKind::ConnectionReset) });
        }
    }
}
