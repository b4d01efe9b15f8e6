//! Measures how long UDP packets take to an echo and back, at a fixed rate.
//!
//!     fullgate-latency echo ADDRESS:PORT
//!     fullgate-latency send ADDRESS:PORT RATE SECONDS
//!
//! Each packet is due at a moment of a fixed schedule, and its time counts from there, sent late or not: a stall delays all
//! packets that were due in it, and all of them are in the figures. The echo writes its own time into the packet. Both
//! programs read the same clock (CLOCK_MONOTONIC), so they must run on one machine; each way is known by itself then.
//! Packets of the first second are sent and not counted.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

mod figures;
mod packet;

use std::io::{Error, ErrorKind, Result};
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use rustix::thread::{ClockId as SleepClock, clock_nanosleep_absolute};
use rustix::time::{ClockId, Timespec, clock_gettime};

use self::figures::Figures;
use self::packet::Packet;

const WARM_UP_NANOSECONDS: u64 = 1_000_000_000;
/// An answer that has not come so long after the last packet is lost.
const PATIENCE: Duration = Duration::from_millis(500);
const USAGE: &str = "usage: fullgate-latency echo ADDRESS:PORT | send ADDRESS:PORT RATE SECONDS";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["echo", address] => parse(address).and_then(echo),
        ["send", to, rate, seconds] => schedule(rate, seconds).and_then(|schedule| send(parse(to)?, schedule)),
        _ => Err(Error::new(ErrorKind::InvalidInput, USAGE)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fullgate-latency: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::new(ErrorKind::InvalidInput, format!("{text:?} does not fit; {USAGE}")))
}

/// Sends everything back, with the time of its arrival in it.
fn echo(address: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(address)?;
    let mut buffer = [0; packet::LEN];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        let arrived = now();
        if let Some(packet) = Packet::read(&buffer[..len]) {
            // Who does not listen any more is no reason to end.
            let _ = socket.send_to(&Packet { echoed: arrived, ..packet }.bytes(), from);
        }
    }
}

/// When packets are due.
#[derive(Clone, Copy)]
struct Schedule {
    /// Packets a second.
    rate: u64,
    /// Packets in all.
    count: u64,
}

fn schedule(rate: &str, seconds: &str) -> Result<Schedule> {
    let (rate, seconds): (u64, u64) = (parse(rate)?, parse(seconds)?);
    if !(1..=1_000_000).contains(&rate) || !(1..=3600).contains(&seconds) {
        return Err(Error::new(ErrorKind::InvalidInput, "allowed: 1 to 1000000 packets a second, 1 to 3600 seconds"));
    }
    Ok(Schedule { rate, count: rate * seconds + rate * WARM_UP_NANOSECONDS / 1_000_000_000 })
}

/// Sends by the schedule, takes the echoes on a second thread, and prints what was found.
fn send(to: SocketAddr, schedule: Schedule) -> Result<()> {
    let local: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(local)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let start = now() + 10_000_000;
    let figures = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&socket, schedule, start + WARM_UP_NANOSECONDS));
        let sent_late = transmit(&socket, schedule, start)?;
        let mut figures = receiver.join().map_err(|_| Error::other("the receiving thread has panicked"))??;
        figures.sent_late = sent_late;
        Ok::<_, Error>(figures)
    })?;
    println!("{}", figures.json(schedule.rate, schedule.count - schedule.rate));
    Ok(())
}

/// Sends all packets; gives how late each that counts was sent, in nanoseconds.
fn transmit(socket: &UdpSocket, schedule: Schedule, start: u64) -> Result<Vec<u64>> {
    // 50 microseconds of slack are the kernel's default, half of the time between packets.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
    let mut late = Vec::with_capacity(usize::try_from(schedule.count).unwrap_or(0));
    for number in 0..schedule.count {
        let due = start + number * 1_000_000_000 / schedule.rate;
        sleep_until(due);
        let sent = now();
        match socket.send(&Packet { number, due, sent, echoed: 0 }.bytes()) {
            Ok(_) => {}
            // Told of an earlier packet: nobody listened then. It counts as lost.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
        if due >= start + WARM_UP_NANOSECONDS {
            late.push(sent - due);
        }
    }
    Ok(late)
}

/// Takes echoes until the last one is there or none has come for [`PATIENCE`] after the end.
fn receive(socket: &UdpSocket, schedule: Schedule, counted_from: u64) -> Result<Figures> {
    let end = counted_from - WARM_UP_NANOSECONDS + schedule.count * 1_000_000_000 / schedule.rate;
    let mut figures = Figures::default();
    let mut buffer = [0; packet::LEN];
    loop {
        match socket.recv(&mut buffer) {
            Ok(len) => {
                let arrived = now();
                let Some(packet) = Packet::read(&buffer[..len]) else { continue };
                if packet.due >= counted_from {
                    figures.add(&packet, arrived);
                }
                if packet.number + 1 == schedule.count {
                    return Ok(figures);
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if now() > end {
                    return Ok(figures);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Nanoseconds of the machine's monotonic clock.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

fn sleep_until(moment: u64) {
    let seconds = i64::try_from(moment / 1_000_000_000).unwrap_or(i64::MAX);
    let nanoseconds = i64::try_from(moment % 1_000_000_000).unwrap_or(0);
    let request = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    // A signal ends it early, and none comes.
    let _ = clock_nanosleep_absolute(SleepClock::Monotonic, &request);
}
