//! Serves the control protocol on a Unix socket: a task for each connection, which reads a line, has it done, and
//! writes the reply, one after the other.
//!
//! Who may not use the gateway is told so. A client that sends nothing, reads nothing, or sends nonsense costs one task and a
//! part of the memory that there is for lines (`budget`), and disturbs nobody else. Long lines are parsed and written off the
//! control thread.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::audit::{By, Door, Reason};
use super::budget::{BUDGET, Budget, PATIENCE, Reserved, Work};
use super::line;
use super::plane::ControlHandle;
use super::protocol::{ErrorKind, MAX_LINE, Outcome, Refusal, Reply, Request};
use super::room::{CONNECTIONS, Room, STRANGERS};
use super::socket::ControlSocket;

/// A client that takes nothing of a reply for so long is cut off.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// One who is turned away has so long to read why.
const STRANGER_PATIENCE: Duration = Duration::from_secs(1);

/// From this many bytes, or rows, on, another thread parses and writes JSON.
const LONG_LINE: usize = 1 << 18;
const MANY_ROWS: usize = 500;

/// Serves until it is dropped. Returns only where the socket cannot be listened to at all.
pub async fn serve<F, E>(socket: &ControlSocket, handle: ControlHandle<F, E>) -> io::Result<()>
where
    F: Send + 'static,
    E: Send + Sync + 'static,
{
    let listener = UnixListener::from_std(socket.descriptor()?.into())?;
    let budget = Budget::new(BUDGET, PATIENCE);
    let mut room = Room::new("the control socket's clients", CONNECTIONS);
    let mut strangers = Room::new("users that may not use the control socket", STRANGERS);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a control connection cannot be accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (reason, refusal, place) = match socket.admission().admit(&stream) {
            Ok(peer) => match room.take().await {
                Some(place) => {
                    let client = Client { handle: handle.by(By::Peer(peer)), budget: budget.clone() };
                    tokio::spawn(async move {
                        if let Err(error) = client.converse(stream).await {
                            tracing::debug!(%error, "a control connection ended");
                        }
                        drop(place);
                    });
                    continue;
                }
                None => (Reason::Connections, too_many(), None),
            },
            Err(message) => {
                tracing::debug!("a control connection is turned away: {message}");
                let refusal = Refusal::new(ErrorKind::Permission, message);
                (Reason::Credentials, refusal, strangers.take().await)
            }
        };
        handle.audit().turned_away(Door::Control, reason);
        let line = line::reply_line(&Outcome::Error(refusal)).unwrap_or_default() + "\n";
        // A fresh socket has room for this; if not, the client sees the end of the connection.
        let _ = stream.try_write(line.as_bytes());
        if let Some(place) = place {
            tokio::spawn(async move {
                let _ = timeout(STRANGER_PATIENCE, leave(stream)).await;
                drop(place);
            });
        }
    }
}

fn too_many() -> Refusal {
    Refusal::new(ErrorKind::Limit, format!("{CONNECTIONS} control connections are open: no more are taken"))
}

/// Waits for the other end to go, a few lines of his unread: one that is closed before he has sent his first would tell him
/// that, and not what was written.
async fn leave(mut stream: UnixStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut ignored = [0; 4096];
    for _ in 0..4 {
        if stream.read(&mut ignored).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// One connection's side.
struct Client<F, E> {
    handle: ControlHandle<F, E>,
    budget: Budget,
}

impl<F, E> Client<F, E> {
    async fn converse(&self, stream: UnixStream) -> io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::with_capacity(1 << 16, reader);
        loop {
            let mut request = self.budget.line();
            let refusal = match read_line(&mut reader, MAX_LINE, &mut request).await? {
                Input::End => return Ok(()),
                Input::Line(line) => {
                    let (reply, reserved) = self.answer(line, request).await;
                    write(&mut writer, reply, &reserved).await?;
                    continue;
                }
                Input::TooLong => Refusal::new(ErrorKind::Invalid, format!("the line is longer than {MAX_LINE} bytes")),
                Input::NoRoom(refusal) => {
                    self.handle.audit().turned_away(Door::Control, Reason::Memory);
                    refusal
                }
            };
            // What is left of the line stays unread, so that there can be no other after it.
            drop(request);
            let reply = encode(Outcome::Error(refusal)).await;
            return write(&mut writer, reply, &self.budget.line()).await;
        }
    }

    /// The reply line to a request line, and the memory that it has. That of the request is free with the request.
    async fn answer(&self, line: Vec<u8>, request: Reserved) -> (String, Reserved) {
        let is_long = line.len() >= LONG_LINE;
        let reading = if is_long { self.budget.turn(Work::Long).await } else { None };
        let parsed = if is_long {
            let parse = spawn_blocking(move || (line::parse_request(&line), drop(line)).0);
            parse.await.unwrap_or_else(|error| Err(failed(&error)))
        } else {
            line::parse_request(&line)
        };
        drop(request);
        let work = parsed.as_ref().map_or(Work::Short, Work::of);
        // Whoever read a long line has his turn already.
        let _turn = match (work, reading) {
            (Work::Long | Work::Short, Some(turn)) => Some(turn),
            (work, _) => self.budget.turn(work).await,
        };
        let mut reply = match parsed {
            Ok(Request::SessionList { filter, limit }) => {
                or_refusal(self.handle.walks().list_line(&filter, limit).await).await
            }
            Ok(Request::TemplateList { filter, limit }) => {
                or_refusal(self.handle.template_line(&filter, limit).await).await
            }
            Ok(request) => encode(self.handle.request(request).await).await,
            Err(refusal) => encode(Outcome::Error(refusal)).await,
        };
        reply.push('\n');
        reply.shrink_to_fit();
        let mut reserved = self.budget.line();
        if let Err(refusal) = reserved.grow_to(reply.len()) {
            self.handle.audit().turned_away(Door::Control, Reason::Memory);
            reply = encode(Outcome::Error(refusal)).await + "\n";
        }
        (reply, reserved)
    }
}

async fn or_refusal(line: Result<String, Refusal>) -> String {
    match line {
        Ok(line) => line,
        Err(refusal) => encode(Outcome::Error(refusal)).await,
    }
}

/// Writes a reply that has this memory.
async fn write(writer: &mut OwnedWriteHalf, mut reply: String, reserved: &Reserved) -> io::Result<()> {
    if !reply.ends_with('\n') {
        reply.push('\n');
    }
    let mut rest = reply.as_bytes();
    while !rest.is_empty() {
        let patience = Instant::now() + WRITE_PATIENCE;
        let patience = reserved.deadline().map_or(patience, |deadline| patience.min(deadline));
        let written = timeout_at(patience, writer.write(rest)).await??;
        rest = &rest[written..];
    }
    Ok(())
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    /// A line, its newline cut off; also what stands before the end without one.
    Line(Vec<u8>),
    /// More bytes than allowed without a newline.
    TooLong,
    /// More than there is memory for now.
    NoRoom(Refusal),
    /// Nothing more.
    End,
}

/// Reads a line, whose memory is reserved before it is there.
async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    longest: usize,
    reserved: &mut Reserved,
) -> io::Result<Input> {
    let mut line = Vec::new();
    loop {
        let available = match reserved.deadline() {
            None => reader.fill_buf().await?,
            Some(deadline) => timeout_at(deadline, reader.fill_buf()).await??,
        };
        if available.is_empty() {
            return Ok(if line.is_empty() { Input::End } else { Input::Line(line) });
        }
        let newline = available.iter().position(|&byte| byte == b'\n');
        let part = &available[..newline.unwrap_or(available.len())];
        let length = line.len() + part.len();
        if length > longest {
            return Ok(Input::TooLong);
        }
        if length > line.capacity() {
            let capacity = length.max(2 * line.capacity()).min(longest);
            if let Err(refusal) = reserved.grow_to(capacity) {
                return Ok(Input::NoRoom(refusal));
            }
            line.reserve_exact(capacity - line.len());
        }
        line.extend_from_slice(part);
        let used = part.len() + usize::from(newline.is_some());
        reader.consume(used);
        if newline.is_some() {
            return Ok(Input::Line(line));
        }
    }
}

async fn encode(outcome: Outcome) -> String {
    let encoded = if is_long(&outcome) {
        spawn_blocking(move || line::reply_line(&outcome)).await.map_err(|error| failed(&error))
    } else {
        Ok(line::reply_line(&outcome))
    };
    let line = encoded.and_then(|line| line.map_err(|error| failed(&error)));
    let line = line.and_then(|line| if line.len() > MAX_LINE { Err(too_long(line.len())) } else { Ok(line) });
    line.or_else(|refusal| line::reply_line(&Outcome::Error(refusal))).unwrap_or_default()
}

fn is_long(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Ok(Reply::Services(rows)) => rows.len() > MANY_ROWS,
        Outcome::Ok(Reply::Stats(stats)) => stats.services.len() > MANY_ROWS,
        Outcome::Ok(Reply::Changed(lines)) => lines.len() > MANY_ROWS,
        _ => false,
    }
}

fn failed(error: &dyn std::error::Error) -> Refusal {
    Refusal::new(ErrorKind::Internal, error.to_string())
}

fn too_long(length: usize) -> Refusal {
    let message = format!("the reply has {length} bytes and a line can have {MAX_LINE}: ask for one service at a time");
    Refusal::new(ErrorKind::Limit, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::budget::OWN;

    async fn read(reader: &mut (impl AsyncBufRead + Unpin), longest: usize) -> Input {
        read_line(reader, longest, &mut Budget::new(0, PATIENCE).line()).await.unwrap()
    }

    #[tokio::test]
    async fn lines_are_cut_at_newlines_and_bounded() {
        let mut reader = BufReader::with_capacity(3, &b"one\n\nthree\nno newline"[..]);
        let mut lines = Vec::new();
        loop {
            match read(&mut reader, 10).await {
                Input::Line(line) => lines.push(String::from_utf8(line).unwrap()),
                end => {
                    assert_eq!(end, Input::End);
                    break;
                }
            }
        }
        assert_eq!(lines, ["one", "", "three", "no newline"]);
        let mut reader = BufReader::with_capacity(3, &b"0123456789\n01234567890\n"[..]);
        assert_eq!(read(&mut reader, 10).await, Input::Line(b"0123456789".to_vec()));
        assert_eq!(read(&mut reader, 10).await, Input::TooLong);
    }

    #[tokio::test]
    async fn a_line_has_its_memory_before_it_is_read() {
        let budget = Budget::new(OWN, PATIENCE);
        let long = [vec![b'x'; OWN + 1_000], b"\nshort\n".to_vec()].concat();
        let mut reader = BufReader::new(&long[..]);
        let mut reserved = budget.line();
        let read = read_line(&mut reader, MAX_LINE, &mut reserved).await.unwrap();
        assert_eq!(read, Input::Line(long[..OWN + 1_000].to_vec()));
        assert!(reserved.deadline().is_some());
        // While that one is there, there is no room for another; short ones need none.
        let mut other = budget.line();
        assert_eq!(read_line(&mut reader, MAX_LINE, &mut other).await.unwrap(), Input::Line(b"short".to_vec()));
        let mut reader = BufReader::new(&long[..]);
        let refused = read_line(&mut reader, MAX_LINE, &mut other).await.unwrap();
        assert!(matches!(refused, Input::NoRoom(refusal) if refusal.kind == ErrorKind::Limit));
        drop(reserved);
        let mut reader = BufReader::new(&long[..]);
        assert!(matches!(read_line(&mut reader, MAX_LINE, &mut other).await.unwrap(), Input::Line(_)));
    }

    #[tokio::test]
    async fn a_long_line_has_its_memory_for_so_long_only() {
        let (mut client, server) = tokio::io::duplex(OWN);
        let mut reader = BufReader::new(server);
        let mut reserved = Budget::new(1 << 20, Duration::from_millis(100)).line();
        let sender = async {
            client.write_all(&vec![b'x'; 2 * OWN]).await.unwrap();
            while client.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            read = read_line(&mut reader, MAX_LINE, &mut reserved) => assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut),
            () = sender => panic!("the reader went on"),
        }
    }
}
