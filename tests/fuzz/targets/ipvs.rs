//! What IPVS's tools send: any bytes are commands or are refused, and every answer is one that netlink's readers take.

use fullgate::ipvs::netlink::{Asked, requests};
use fullgate::ipvs::sockopt::{self, Question};
use fullgate::ipvs::{Answer, Command, Errno, Timeouts};

/// Bytes of a netlink message's header.
const HEADER_LEN: usize = 16;

/// The first byte says by which way the others come: as a datagram, or as an option that is set or asked for.
pub fn run(input: &[u8]) {
    let Some((&way, rest)) = input.split_first() else { return };
    match way % 3 {
        0 => datagram(rest),
        1 => set(rest),
        _ => get(rest),
    }
}

fn datagram(bytes: &[u8]) {
    for request in requests(bytes) {
        let answers = match &request.asked {
            Ok(Asked::Nothing) => request.acknowledgement().into_iter().collect(),
            Ok(Asked::Family) => request.family(),
            Ok(Asked::Command(command)) => request.answers(answer_to(command)),
            Err(errno) => vec![request.error(*errno)],
        };
        for answer in answers {
            check_messages(&answer);
        }
    }
}

fn answer_to(command: &Command) -> Result<Answer, Errno> {
    match command {
        Command::ListServices => Ok(Answer::Services(Vec::new())),
        Command::ListDestinations(_) => Ok(Answer::Destinations(Vec::new())),
        Command::ListDaemons => Ok(Answer::Daemons(Vec::new())),
        Command::GetTimeouts => Ok(Answer::Timeouts(Timeouts::default())),
        Command::GetInfo => Ok(Answer::Info { connection_table_size: 4096 }),
        Command::StartDaemon(daemon) => Ok(Answer::Daemons(vec![daemon.clone()])),
        command if command.only_reads() => Err(Errno::NoService),
        _ => Ok(Answer::Done),
    }
}

/// A datagram is messages one after the other, each as long as it says, and nothing else.
fn check_messages(datagram: &[u8]) {
    let mut rest = datagram;
    while !rest.is_empty() {
        let length = u32::from_ne_bytes(*rest.first_chunk().unwrap()) as usize;
        assert!((HEADER_LEN..=rest.len()).contains(&length), "a message of {length} bytes in {}", rest.len());
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// Options are numbered from a base; one byte reaches all of them, and some beside them.
fn option(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (&number, value) = bytes.split_first()?;
    Some((sockopt::BASE - 8 + i32::from(number), value))
}

fn set(bytes: &[u8]) {
    let Some((option, value)) = option(bytes) else { return };
    if let Ok(command) = sockopt::set(option, value) {
        assert!(!command.only_reads(), "{command:?}");
    }
}

fn get(bytes: &[u8]) {
    let Some((option, buffer)) = option(bytes) else { return };
    let Ok(question) = Question::parse(option, buffer, buffer.len()) else { return };
    assert!(question.command().only_reads());
    let Ok(answer) = answer_to(&question.command()) else { return };
    let reply = question.reply(buffer, &answer, 4096).unwrap();
    assert!(reply.len() <= buffer.len() || question == Question::Version, "{} bytes in {}", reply.len(), buffer.len());
}
