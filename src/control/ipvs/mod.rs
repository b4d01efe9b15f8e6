//! Serves IPVS's own interface to unmodified ipvsadm, keepalived and ldirectord, through the library that is loaded into
//! them (crates/ipvs-preload): netlink messages, socket options and files of `/proc/net`, on a socket beside the
//! control socket with the same rights.
//!
//! A connection that sends netlink messages lives as long as its client's socket and keeps nothing between two of
//! them, so that a client goes on with a daemon that was started anew. What a client asked and then left is not done: it
//! was not answered in time and was told that IPVS is busy. What is asked becomes requests of the control
//! protocol (`commands`). Who may not use the gateway has EPERM for it, as from the kernel. No client sees more than its own answers, and nonsense costs its sender only.

mod commands;
mod entries;
mod files;
mod rates;
mod seqpacket;

use std::io;
use std::time::Duration;

use tokio::time::{sleep, timeout};

pub use self::entries::template as template_entry;

use self::commands::Director;
use self::seqpacket::{Connection, Listener};
use super::audit::{By, Door, Reason};
use super::plane::ControlHandle;
use super::room::{CONNECTIONS, Room, STRANGERS};
use super::socket::ControlSocket;
use crate::ipvs::netlink::{self, Asked};
use crate::ipvs::{Errno, sockopt};

/// A client that takes nothing of an answer for so long is cut off.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// One who may not use the gateway is told so for so long, or so often, and is then cut off.
const STRANGER_PATIENCE: Duration = Duration::from_secs(5);
const STRANGER_DATAGRAMS: usize = 64;

/// Bytes of the longest datagram from a client.
const LONGEST: usize = 64 << 10;
/// Bytes of the longest one to it, when an option's answer is sent in parts.
const PART: usize = 32 << 10;

/// What single questions begin with: these and the preloaded library's are the same.
const OPTION: [u8; 8] = *b"FGOPTN01";
const FILE: [u8; 8] = *b"FGFILE01";

/// Serves until it is dropped. Returns only where the socket cannot be listened to at all.
pub async fn serve<F, E>(socket: &ControlSocket, handle: ControlHandle<F, E>) -> io::Result<()>
where
    F: Send + 'static,
    E: Send + Sync + 'static,
{
    let listener = Listener::new(socket.descriptor()?)?;
    let director = Director::new(handle);
    let mut room = Room::new("IPVS tools", CONNECTIONS);
    let mut strangers = Room::new("IPVS tools of users that may not use the gateway", STRANGERS);
    let accept = async {
        loop {
            let connection = match listener.accept().await {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::warn!(%error, "a connection of an IPVS tool cannot be accepted");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let admitted = socket.admission().admit(&connection);
            // Without a place the connection ends here, and the client is told that IPVS is busy.
            let place = if admitted.is_ok() { room.take().await } else { strangers.take().await };
            if let Err(message) = &admitted {
                director.audit().turned_away(Door::Ipvs, Reason::Credentials);
                tracing::debug!("an IPVS tool is turned away: {message}");
            } else if place.is_none() {
                director.audit().turned_away(Door::Ipvs, Reason::Connections);
            }
            let Some(place) = place else { continue };
            let director = admitted.ok().map(|peer| director.of(By::Peer(peer)));
            tokio::spawn(async move {
                let ended = match director {
                    Some(director) => converse(&connection, &director).await,
                    None => timeout(STRANGER_PATIENCE, deny(&connection)).await.unwrap_or(Ok(())),
                };
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection of an IPVS tool ended");
                }
                drop(place);
            });
        }
    };
    tokio::select! {
        () = accept => Ok(()),
        () = director.keep_rates() => Ok(()),
    }
}

/// Answers one who may not use the gateway as the kernel answers one without CAP_NET_ADMIN: the family is there, and each of
/// its commands is not permitted.
async fn deny(connection: &Connection) -> io::Result<()> {
    let denied = Errno::NotPermitted;
    let mut buffer = vec![0; LONGEST];
    for _ in 0..STRANGER_DATAGRAMS {
        let length = connection.receive(&mut buffer).await?;
        let Some(datagram) = buffer.get(..length).filter(|datagram| !datagram.is_empty()) else { break };
        if datagram.starts_with(&OPTION) || datagram.starts_with(&FILE) {
            connection.send(&[denied.number().to_ne_bytes(), [0; 4]].concat()).await?;
            continue;
        }
        for request in netlink::requests(datagram) {
            let answers = match &request.asked {
                Ok(Asked::Family) => request.family(),
                Ok(Asked::Nothing) => request.acknowledgement().into_iter().collect(),
                Ok(Asked::Command(_)) | Err(_) => vec![request.error(denied)],
            };
            for answer in answers {
                connection.send(&answer).await?;
            }
        }
    }
    Ok(())
}

async fn converse<F, E>(connection: &Connection, director: &Director<F, E>) -> io::Result<()> {
    let mut buffer = vec![0; LONGEST];
    loop {
        let length = connection.receive(&mut buffer).await?;
        let Some(datagram) = buffer.get(..length).filter(|datagram| !datagram.is_empty()) else { return Ok(()) };
        // A client that waited in vain took it that nothing was done, and nothing is.
        if connection.is_closed() {
            return Ok(());
        }
        match datagram.split_first_chunk::<8>() {
            Some((&OPTION, question)) => option(connection, director, question).await?,
            Some((&FILE, path)) => files::answer(connection, director, path).await?,
            _ => messages(connection, director, datagram).await?,
        }
    }
}

async fn send(connection: &Connection, datagram: &[u8]) -> io::Result<()> {
    timeout(WRITE_PATIENCE, connection.send(datagram)).await?
}

/// A datagram of netlink messages.
async fn messages<F, E>(connection: &Connection, director: &Director<F, E>, datagram: &[u8]) -> io::Result<()> {
    for request in netlink::requests(datagram) {
        let answers = match &request.asked {
            Ok(Asked::Nothing) => request.acknowledgement().into_iter().collect(),
            Ok(Asked::Family) => request.family(),
            Ok(Asked::Command(command)) => request.answers(director.execute(command).await),
            Err(errno) => vec![request.error(*errno)],
        };
        for answer in answers {
            send(connection, &answer).await?;
        }
    }
    Ok(())
}

/// A socket option: its number, whether it is to be set, the length of the caller's buffer, and what that holds.
async fn option<F, E>(connection: &Connection, director: &Director<F, E>, question: &[u8]) -> io::Result<()> {
    let answer = match asked_option(question) {
        None => Err(Errno::Invalid),
        Some((option, true, _, value)) => match sockopt::set(option, value) {
            Ok(command) => director.execute(&command).await.map(|_| Vec::new()),
            Err(errno) => Err(errno),
        },
        Some((option, false, length, buffer)) => match sockopt::Question::parse(option, buffer, length) {
            Ok(asked) => match director.execute(&asked.command()).await {
                Ok(answer) => asked.reply(buffer, &answer, director.connection_table_size()),
                Err(errno) => Err(errno),
            },
            Err(errno) => Err(errno),
        },
    };
    let (number, reply) = match answer {
        Ok(reply) => (0, reply),
        Err(errno) => (errno.number(), Vec::new()),
    };
    let length = u32::try_from(reply.len()).unwrap_or(u32::MAX);
    send(connection, &[number.to_ne_bytes(), length.to_ne_bytes()].concat()).await?;
    for part in reply.chunks(PART) {
        send(connection, part).await?;
    }
    Ok(())
}

fn asked_option(question: &[u8]) -> Option<(i32, bool, usize, &[u8])> {
    let (option, rest) = question.split_first_chunk()?;
    let (is_set, rest) = rest.split_first_chunk()?;
    let (length, value) = rest.split_first_chunk()?;
    let length = u32::from_ne_bytes(*length) as usize;
    Some((i32::from_ne_bytes(*option), u32::from_ne_bytes(*is_set) != 0, length, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_whole_or_not_at_all() {
        let question = [&1154_i32.to_ne_bytes()[..], &1_u32.to_ne_bytes(), &2_u32.to_ne_bytes(), b"ab"].concat();
        assert_eq!(asked_option(&question), Some((1154, true, 2, &b"ab"[..])));
        assert_eq!(asked_option(&question[..11]), None);
        assert_eq!(asked_option(&[]), None);
    }
}
