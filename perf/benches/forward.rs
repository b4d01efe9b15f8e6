//! Criterion benches of the fast path: parsing, rewriting, and whole bursts through [`Forwarder::process`] by their kind.
//!
//! A burst has to be written anew each time, since the gateway rewrites it in place; that is in every figure of
//! `process`, and `receive` is its cost alone, to be taken off.
//!
//! [`Forwarder::process`]: fullgate::forward::Forwarder::process
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "not part of the gateway")]
#![allow(missing_docs, reason = "a program")]

#[path = "../gateway.rs"]
mod gateway;

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fullgate::balance::{ForwardingMode, Protocol, RealServerSlot};
use fullgate::flow::Direction;
use fullgate::forward::{DropReason, Verdict, parse, rewrite};
use fullgate::port::{BURST_SIZE, Frame};
use fullgate::session::Session;
use gateway::{Load, Rig};

/// Sessions of the cases that hit one: in the first-level cache, out of it, and out of every cache.
const SESSIONS: [u32; 4] = [1, 1024, 50_000, 1_000_000];
/// Flows that open sessions in turn. With 32 of them a tick, and 20 s to live, each is over before it comes again.
const CHURNED: u32 = 1 << 16;

fn parsing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(BURST_SIZE as u64));
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let mut load = Rig::new(protocol, 1).inbound(0..BURST_SIZE as u32);
        load.receive();
        group.bench_function(protocol.name(), |bench| {
            bench.iter(|| {
                for frame in &load.frames {
                    black_box(parse::plain(black_box(frame), load.own_mac()));
                }
            });
        });
    }
    group.finish();
}

/// What is left of a hit when its session and next hop are known. Frames stay in the first-level cache, and are
/// rewritten to the same key each time.
fn rewriting(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rewrite");
    group.throughput(Throughput::Elements(BURST_SIZE as u64));
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let mut load = Rig::new(protocol, 1).inbound(0..BURST_SIZE as u32);
        load.receive();
        let packets: Vec<_> = load
            .frames
            .iter()
            .map(|frame| match parse::parse(frame, load.own_mac(), false) {
                parse::Parsed::Ipv4(packet) => packet,
                other => panic!("no flow: {other:?}"),
            })
            .collect();
        let local = (Ipv4Addr::new(10, 1, 0, 200), 4096);
        let real = (Ipv4Addr::new(10, 1, 0, 11), 8080);
        let session = Session::new(ForwardingMode::Fullnat, &packets[0].key, local, real, RealServerSlot(0));
        let inbound = Direction::Inbound;
        let to = session.rewritten_key(inbound);
        let header = [2u8; 14];
        group.bench_function(protocol.name(), |bench| {
            bench.iter(|| {
                for (frame, packet) in load.frames.iter_mut().zip(&packets) {
                    rewrite::ipv4::<false, true>(
                        frame.bytes_mut(),
                        packet,
                        Some(black_box(&header)),
                        black_box(&session),
                        inbound,
                    );
                }
            });
        });
        // The checksum is no longer right: what was changed once is changed again and again.
        let after = load.frames[0].bytes_mut();
        assert_eq!((&after[..14], &after[26..34]), (&header[..], &to.wire_addresses().to_ne_bytes()[..]));
        assert_eq!(after[34..38], to.wire_ports());
    }
    group.finish();
}

fn receiving(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("receive");
    group.throughput(Throughput::Elements(BURST_SIZE as u64));
    for sessions in SESSIONS {
        let mut load = Rig::new(Protocol::Udp, 1).inbound(0..sessions);
        group.bench_function(sessions.to_string(), |bench| {
            bench.iter(|| {
                load.receive();
                black_box(&load.frames);
            });
        });
    }
    group.finish();
}

fn hits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("process");
    group.throughput(Throughput::Elements(BURST_SIZE as u64));
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        for sessions in SESSIONS {
            let mut rig = Rig::new(protocol, sessions);
            let mut replies = rig.open(0..sessions).shuffled();
            let mut requests = rig.inbound(0..sessions).shuffled();
            for (direction, inbound, load) in [("in", true, &mut requests), ("out", false, &mut replies)] {
                let id = BenchmarkId::new(format!("{protocol} {direction}"), sessions);
                group.bench_function(id, |bench| bench.iter(|| burst(&mut rig, load)));
                // Here, so that the comparison is not in the figure.
                burst(&mut rig, load);
                rig.expect(Rig::transmitted(inbound));
            }
        }
    }
    group.finish();
}

fn misses(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("process");
    group.throughput(Throughput::Elements(BURST_SIZE as u64));
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let mut rig = Rig::new(protocol, CHURNED);
        let mut load = rig.opening(0..CHURNED);
        group.bench_function(format!("{protocol} new, with its end"), |bench| {
            bench.iter(|| {
                burst(&mut rig, &mut load);
                rig.pass_tick();
            });
        });
        burst(&mut rig, &mut load);
        rig.expect(Rig::transmitted(true));
    }
    let mut rig = Rig::new(Protocol::Udp, 1);
    let mut load = rig.astray(0..1024);
    group.bench_function("not local", |bench| bench.iter(|| burst(&mut rig, &mut load)));
    burst(&mut rig, &mut load);
    rig.expect(Verdict::Drop(DropReason::NotLocal));
    group.finish();
}

fn burst(rig: &mut Rig, load: &mut Load) {
    load.receive();
    rig.process(load.port, &mut load.frames);
}

criterion_group!(benches, parsing, rewriting, receiving, hits, misses);
criterion_main!(benches);
