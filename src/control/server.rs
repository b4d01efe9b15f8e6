//! Serves the control protocol on a Unix socket: a task for each connection, which reads a line, has it done, and
//! writes the reply, one after the other.
//!
//! A client that sends nothing, reads nothing, or sends nonsense costs one task and one line of memory, and disturbs
//! nobody else. Long lines are parsed and written off the control thread.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::line;
use super::plane::ControlHandle;
use super::protocol::{ErrorKind, MAX_LINE, Outcome, Refusal, Reply, Request};
use super::room::{CONNECTIONS, Room};
use super::socket::ControlSocket;

/// A client that takes nothing of a reply for so long is cut off.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);

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
    let mut room = Room::new("the control socket's clients");
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a control connection cannot be accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match room.take().await {
            Some(place) => {
                let handle = handle.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &handle).await {
                        tracing::debug!(%error, "a control connection ended");
                    }
                    drop(place);
                });
            }
            None => refuse(&stream),
        }
    }
}

/// Tells a client that there are too many, if it can be told without waiting.
fn refuse(stream: &UnixStream) {
    let message = format!("{CONNECTIONS} control connections are open: no more are taken");
    let refusal = Outcome::Error(Refusal::new(ErrorKind::Limit, message));
    if let Ok(line) = line::reply_line(&refusal) {
        // A fresh socket has room for this; if not, the client sees the end of the connection.
        let _ = stream.try_write(format!("{line}\n").as_bytes());
    }
}

async fn converse<F, E>(stream: UnixStream, handle: &ControlHandle<F, E>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(1 << 16, reader);
    loop {
        let (mut reply, last) = match read_line(&mut reader, MAX_LINE).await? {
            Input::End => return Ok(()),
            Input::Line(line) => (answer(line, handle).await, false),
            Input::TooLong => {
                let message = format!("the line is longer than {MAX_LINE} bytes");
                (encode(Outcome::Error(Refusal::new(ErrorKind::Invalid, message))).await, true)
            }
        };
        reply.push('\n');
        let mut rest = reply.as_bytes();
        while !rest.is_empty() {
            let written = timeout(WRITE_PATIENCE, writer.write(rest)).await??;
            rest = &rest[written..];
        }
        if last {
            return Ok(());
        }
    }
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    /// A line, its newline cut off; also what stands before the end without one.
    Line(Vec<u8>),
    /// More bytes than allowed without a newline.
    TooLong,
    /// Nothing more.
    End,
}

async fn read_line(reader: &mut (impl AsyncBufRead + Unpin), longest: usize) -> io::Result<Input> {
    let mut line = Vec::new();
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(if line.is_empty() { Input::End } else { Input::Line(line) });
        }
        let newline = available.iter().position(|&byte| byte == b'\n');
        let part = &available[..newline.unwrap_or(available.len())];
        if line.len() + part.len() > longest {
            return Ok(Input::TooLong);
        }
        line.extend_from_slice(part);
        let used = part.len() + usize::from(newline.is_some());
        reader.consume(used);
        if newline.is_some() {
            return Ok(Input::Line(line));
        }
    }
}

/// The reply line to a request line.
async fn answer<F, E>(line: Vec<u8>, handle: &ControlHandle<F, E>) -> String {
    let parsed = if line.len() < LONG_LINE {
        line::parse_request(&line)
    } else {
        spawn_blocking(move || line::parse_request(&line)).await.unwrap_or_else(|error| Err(failed(&error)))
    };
    match parsed {
        Ok(Request::SessionList { filter, limit }) => match handle.walks().list_line(&filter, limit).await {
            Ok(line) => line,
            Err(refusal) => encode(Outcome::Error(refusal)).await,
        },
        Ok(Request::TemplateList { filter, limit }) => match handle.template_line(&filter, limit).await {
            Ok(line) => line,
            Err(refusal) => encode(Outcome::Error(refusal)).await,
        },
        Ok(request) => encode(handle.request(request).await).await,
        Err(refusal) => encode(Outcome::Error(refusal)).await,
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

    #[tokio::test]
    async fn lines_are_cut_at_newlines_and_bounded() {
        let mut reader = BufReader::with_capacity(3, &b"one\n\nthree\nno newline"[..]);
        let mut lines = Vec::new();
        loop {
            match read_line(&mut reader, 10).await.unwrap() {
                Input::Line(line) => lines.push(String::from_utf8(line).unwrap()),
                end => {
                    assert_eq!(end, Input::End);
                    break;
                }
            }
        }
        assert_eq!(lines, ["one", "", "three", "no newline"]);
        let mut reader = BufReader::with_capacity(3, &b"0123456789\n01234567890\n"[..]);
        assert_eq!(read_line(&mut reader, 10).await.unwrap(), Input::Line(b"0123456789".to_vec()));
        assert_eq!(read_line(&mut reader, 10).await.unwrap(), Input::TooLong);
    }
}
