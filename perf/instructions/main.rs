//! The cases whose instructions per packet are compared with a baseline: see `check` beside this file, which runs
//! this under callgrind. Alone it only goes through the motions.
//!
//! callgrind collects inside the functions `collected_*` only, and writes its count down each time that
//! [`measured_run`] ends. Each case runs twice, with different numbers of packets, each time from a new gateway, so
//! that the difference of both has nothing of first times in it. Everything is fixed: seeds, addresses, order, time.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "not part of the gateway"
)]
#![allow(missing_docs, reason = "a program")]

#[path = "../gateway.rs"]
mod gateway;

use std::hint::black_box;

use fullgate::balance::{ForwardingMode, Protocol};
use fullgate::forward::{DropReason, Verdict, parse};
use fullgate::port::memory::MemoryFrame;
use fullgate::port::{BURST_SIZE, MacAddress, PortId};
use gateway::{Load, Rig};

/// Packets of the two runs of a case, multiples of the burst size.
const PACKETS: [u32; 2] = [16_384, 32_768];
/// Sessions of the cases that hit one.
const SESSIONS: u32 = 1024;
/// Sessions that a table has room for.
const CAPACITY: u32 = 65_536;

/// A case sets a gateway up and gives what is done for each burst.
type Case = (&'static str, fn(u32) -> Box<dyn FnMut()>);

const CASES: [Case; 16] = [
    ("parse_udp", |_| parse_only(Protocol::Udp)),
    ("parse_tcp", |_| parse_only(Protocol::Tcp)),
    ("udp_inbound", |_| hit(Protocol::Udp, true)),
    ("udp_outbound", |_| hit(Protocol::Udp, false)),
    ("tcp_inbound", |_| hit(Protocol::Tcp, true)),
    ("tcp_outbound", |_| hit(Protocol::Tcp, false)),
    ("sctp_inbound", |_| hit(Protocol::Sctp, true)),
    ("sctp_outbound", |_| hit(Protocol::Sctp, false)),
    ("udp_new", |packets| new_sessions(Protocol::Udp, packets)),
    ("tcp_new", |packets| new_sessions(Protocol::Tcp, packets)),
    ("udp_churn", |packets| churn(Protocol::Udp, packets)),
    ("tcp_churn", |packets| churn(Protocol::Tcp, packets)),
    ("not_local", |_| not_local()),
    ("nat_udp_inbound", |_| hit_in(ForwardingMode::Nat)),
    ("dr_udp_inbound", |_| hit_in(ForwardingMode::Dr)),
    ("tun_udp_inbound", |_| hit_in(ForwardingMode::Tun)),
];

fn main() {
    for (name, set_up) in CASES {
        for packets in PACKETS {
            measured_run(set_up(packets), packets / BURST_SIZE as u32);
            println!("{name} {packets}");
        }
    }
}

/// callgrind writes its count down when this returns.
#[inline(never)]
fn measured_run(mut burst: Box<dyn FnMut()>, bursts: u32) {
    for _ in 0..bursts {
        burst();
    }
}

#[inline(never)]
fn collected_parse(frames: &[MemoryFrame], own: MacAddress) {
    for frame in frames {
        black_box(parse::plain(frame, own));
    }
}

#[inline(never)]
fn collected_process(rig: &mut Rig, port: PortId, frames: &mut [MemoryFrame]) {
    rig.process(port, frames);
}

#[inline(never)]
fn collected_expire(rig: &mut Rig) {
    rig.pass_tick();
}

fn parse_only(protocol: Protocol) -> Box<dyn FnMut()> {
    let mut load = Rig::new(protocol, CAPACITY).inbound(0..SESSIONS);
    Box::new(move || {
        load.receive();
        collected_parse(&load.frames, load.own_mac());
    })
}

/// Packets of established sessions.
fn hit(protocol: Protocol, inbound: bool) -> Box<dyn FnMut()> {
    let mut rig = Rig::new(protocol, CAPACITY);
    let replies = rig.open(0..SESSIONS);
    let load = if inbound { rig.inbound(0..SESSIONS) } else { replies };
    forward(rig, load, Rig::transmitted(inbound))
}

/// Packets of sessions in another mode than FULLNAT.
fn hit_in(mode: ForwardingMode) -> Box<dyn FnMut()> {
    let mut rig = Rig::in_mode(mode, Protocol::Udp, CAPACITY);
    let mut opening = rig.inbound(0..SESSIONS);
    for _ in 0..SESSIONS as usize / BURST_SIZE {
        opening.receive();
        rig.process(opening.port, &mut opening.frames);
    }
    let load = rig.inbound(0..SESSIONS);
    forward(rig, load, Rig::transmitted(true))
}

/// Each packet opens a session in a table that only fills.
fn new_sessions(protocol: Protocol, packets: u32) -> Box<dyn FnMut()> {
    let rig = Rig::new(protocol, CAPACITY);
    let load = rig.opening(0..packets);
    forward(rig, load, Rig::transmitted(true))
}

/// Each packet opens a session while as many end, in a table that has reached that balance before.
fn churn(protocol: Protocol, packets: u32) -> Box<dyn FnMut()> {
    let mut rig = Rig::new(protocol, CAPACITY);
    let mut load = rig.opening(0..packets + CAPACITY / 2);
    for _ in 0..CAPACITY as usize / 2 / BURST_SIZE {
        load.receive();
        rig.process(load.port, &mut load.frames);
        rig.pass_tick();
    }
    Box::new(move || {
        load.receive();
        collected_process(&mut rig, load.port, &mut load.frames);
        rig.expect(Rig::transmitted(true));
        collected_expire(&mut rig);
    })
}

fn not_local() -> Box<dyn FnMut()> {
    let rig = Rig::new(Protocol::Udp, CAPACITY);
    let load = rig.astray(0..SESSIONS);
    forward(rig, load, Verdict::Drop(DropReason::NotLocal))
}

/// Takes a load through, burst by burst, and makes sure of its verdict.
fn forward(mut rig: Rig, mut load: Load, verdict: Verdict) -> Box<dyn FnMut()> {
    Box::new(move || {
        load.receive();
        collected_process(&mut rig, load.port, &mut load.frames);
        rig.expect(verdict);
    })
}
