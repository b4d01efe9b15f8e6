//! What `fullgate ipvsadm` hears from the daemon: any datagrams are an answer, an error, or not understood; and what is
//! understood is heard again as it was when the daemon says it. So is what a tool asks.

use std::net::IpAddr;

use fullgate::ipvs::netlink::{Asked, Heard, Hearing, question, requests};
use fullgate::ipvs::{Answer, Command, Errno, ServiceId, Timeouts};

/// Datagrams of an input that count: a dump's are as many as it takes.
const DATAGRAMS: usize = 64;

/// The first byte says which command is answered; the others are datagrams, the length in front of each. Or they are a
/// datagram of commands.
pub fn run(input: &[u8]) {
    let Some((&choice, rest)) = input.split_first() else { return };
    let commands = commands();
    match commands.get(usize::from(choice)) {
        Some(command) => hear(command, rest),
        None => ask(rest),
    }
}

/// One of each kind of answer.
fn commands() -> [Command; 8] {
    let id = ServiceId::Address { protocol: 6, address: IpAddr::from([10, 0, 0, 100]), port: 80 };
    [
        Command::ListServices,
        Command::GetService(id),
        Command::ListDestinations(id),
        Command::ListDaemons,
        Command::GetTimeouts,
        Command::GetInfo,
        Command::Flush,
        Command::SetTimeouts(Timeouts { tcp: 1, tcp_fin: 2, udp: 3 }),
    ]
}

fn hear(command: &Command, bytes: &[u8]) {
    let mut hearing = Hearing::new(command);
    for datagram in datagrams(bytes) {
        match hearing.take(datagram) {
            Ok(Heard::Part) => {}
            Ok(Heard::All(Ok(answer))) => return again(command, &answer),
            Ok(Heard::All(Err(number))) => return assert!(number > 0, "error {number} is none"),
            Err(_) => return,
        }
    }
}

fn datagrams(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let next = move || {
        let (&length, rest) = bytes.split_first_chunk::<2>()?;
        let (datagram, rest) = rest.split_at_checked(u16::from_le_bytes(length).into()).unwrap_or((rest, &[]));
        bytes = rest;
        Some(datagram)
    };
    std::iter::from_fn(next).take(DATAGRAMS)
}

/// The daemon's way of saying this leads to the same.
fn again(command: &Command, answer: &Answer) {
    let asked = requests(&question(command, 7));
    let [request] = asked.as_slice() else { panic!("{} requests", asked.len()) };
    assert_eq!(request.asked, Ok(Asked::Command(command.clone())));
    let mut hearing = Hearing::new(command);
    let heard = request.answers(Ok(answer.clone())).into_iter().find_map(|datagram| {
        assert!(datagram.len() <= 64 << 10, "{} bytes are more than a tool receives at once", datagram.len());
        match hearing.take(&datagram) {
            Ok(Heard::Part) => None,
            other => Some(other),
        }
    });
    assert_eq!(heard, Some(Ok(Heard::All(Ok(answer.clone())))));
    let refused = &request.answers(Err(Errno::Busy))[0];
    assert_eq!(Hearing::new(command).take(refused), Ok(Heard::All(Err(Errno::Busy.number()))));
}

/// What a datagram asks for, asked by a tool of the gateway's own.
fn ask(datagram: &[u8]) {
    for request in requests(datagram) {
        let Ok(Asked::Command(command)) = request.asked else { continue };
        let again = requests(&question(&command, 7));
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].asked, Ok(Asked::Command(command)));
    }
}
