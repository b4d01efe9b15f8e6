//! Criterion benches of the session table and of local ports, by the number of sessions that are there.
//!
//! Sizes go from a table that the second-level cache holds to one far beyond every cache; 16 million sessions take
//! about 1.5 GB and come in only with FULLGATE_BENCH_LARGE=1.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "not part of the gateway")]
#![allow(missing_docs, reason = "a program")]

#[path = "../random.rs"]
mod random;

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fullgate::balance::{ForwardingMode, PortRange, Protocol, RealServerSlot};
use fullgate::flow::rss::{RssDeal, RssKey};
use fullgate::flow::{FlowHash, FlowKey, HashSeed};
use fullgate::port::{BURST_SIZE, WorkerId};
use fullgate::session::local_port::{ByRss, InTurn, LocalPorts};
use fullgate::session::{Session, SessionTable, Tick};
use random::Random;

const SIZES: [u32; 3] = [1000, 100_000, 1_000_000];
const LARGE: u32 = 16_000_000;
/// An end that does not come while a bench runs.
const NEVER: Tick = Tick(u32::MAX / 2);

criterion_group!(benches, table, local_ports);
criterion_main!(benches);

fn table(criterion: &mut Criterion) {
    let large = std::env::var_os("FULLGATE_BENCH_LARGE").is_some_and(|value| value == "1");
    for size in SIZES.into_iter().chain(large.then_some(LARGE)) {
        // As full as it gets, but for the burst that the benches of new sessions add.
        let mut table = filled(size, size + BURST_SIZE as u32);
        let mut group = criterion.benchmark_group("table");
        group.throughput(Throughput::Elements(BURST_SIZE as u64));
        let name = |what: &str| BenchmarkId::new(what, size);
        let mut random = Random(1);
        group.bench_function(name("lookup hit"), |bench| {
            bench.iter_batched_ref(
                || std::array::from_fn(|_| client(random.below(size))),
                |keys| look_up(&table, keys),
                criterion::BatchSize::SmallInput,
            );
        });
        group.bench_function(name("lookup miss"), |bench| {
            bench.iter_batched_ref(
                || std::array::from_fn(|_| client(size + random.below(size))),
                |keys| look_up(&table, keys),
                criterion::BatchSize::SmallInput,
            );
        });
        new_sessions(&mut group, &mut table, size);
        group.finish();
    }
}

/// A burst of sessions comes and goes: removed by hand, or found to be over.
fn new_sessions(group: &mut BenchmarkGroup<'_, WallTime>, table: &mut SessionTable<Ipv4Addr>, size: u32) {
    let mut next = size;
    let mut burst = move || {
        next = if next >= u32::MAX - BURST_SIZE as u32 { size } else { next + BURST_SIZE as u32 };
        std::array::from_fn::<_, BURST_SIZE, _>(|n| session(next + n as u32))
    };
    group.bench_function(BenchmarkId::new("insert and remove", size), |bench| {
        bench.iter(|| {
            for index in burst().map(|session| table.insert(session, NEVER).unwrap()) {
                table.remove(index);
            }
        });
    });
    let mut now = Tick(0);
    group.bench_function(BenchmarkId::new("insert and expire", size), |bench| {
        bench.iter(|| {
            now = now.plus(1);
            for session in burst() {
                table.insert(session, now).unwrap();
            }
            loop {
                let expired = table.expired(now);
                let more = expired.more();
                for expired in expired {
                    table.remove_expired(expired);
                }
                if !more {
                    break;
                }
            }
        });
    });
    assert_eq!(table.len(), size, "every session that came has gone");
}

/// What the fast path does with a burst: hash all, then look all up.
fn look_up(table: &SessionTable<Ipv4Addr>, keys: &[FlowKey<Ipv4Addr>; BURST_SIZE]) {
    let mut hashes = [FlowHash(0); BURST_SIZE];
    for (key, hash) in keys.iter().zip(&mut hashes) {
        *hash = table.hash(key);
    }
    for (key, hash) in keys.iter().zip(hashes) {
        black_box(table.find(hash, key));
    }
}

fn local_ports(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("local port");
    let range = PortRange { first: 1024, last: 65_535 };
    // Parts of a hundred that are in use, spread evenly.
    for in_use in [0, 50, 90] {
        let mut ports = LocalPorts::new(WorkerId(0), 1);
        group.bench_function(BenchmarkId::new("take", format!("{in_use} % in use")), |bench| {
            bench.iter(|| {
                ports
                    .between(FlowHash(7), range, InTurn)?
                    .take(32, Tick(0), |port| (port % 100 >= in_use).then_some(()))
            });
        });
    }
    for workers in [2, 16] {
        let mut state = 1_u64;
        let key = RssKey::draw(|| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            state ^ state >> 29
        });
        let table: Vec<u16> = (0..128).map(|entry| entry % u16::from(workers)).collect();
        let rss = RssDeal::new(key.bytes(40), &table, workers).unwrap();
        let answers = rss.answers(Ipv4Addr::new(10, 1, 0, 11), 80, Ipv4Addr::new(10, 1, 0, 200));
        let mut ports = LocalPorts::new(WorkerId(0), workers);
        group.bench_function(BenchmarkId::new("take", format!("by RSS, among {workers} workers")), |bench| {
            bench.iter(|| {
                let mut ports = ports.between(FlowHash(7), range, ByRss { rss: &rss, answers })?;
                ports.take(32, Tick(0), |_| Some(()))
            });
        });
    }
    let mut ports = LocalPorts::new(WorkerId(0), 1);
    let mut now = Tick(0);
    group.bench_function(BenchmarkId::new("take", "32 looked at in vain"), |bench| {
        bench.iter(|| {
            now = now.plus(1);
            ports.between(FlowHash(7), range, InTurn)?.take(32, now, |port| black_box(port == 0).then_some(()))
        });
    });
    group.finish();
}

/// A table with sessions 0..size that do not end.
fn filled(size: u32, capacity: u32) -> SessionTable<Ipv4Addr> {
    let mut table = SessionTable::new(capacity, HashSeed([11, 12]), Tick(0));
    for n in 0..size {
        table.insert(session(n), NEVER).unwrap();
    }
    table
}

/// The n-th session, with both of its keys its own.
fn session(n: u32) -> Session<Ipv4Addr> {
    let local = (Ipv4Addr::from_bits(0x0a01_0000 + (n >> 15)), port(n));
    let real = (Ipv4Addr::new(10, 200, 0, 1), 8080);
    Session::new(ForwardingMode::Fullnat, &client(n), local, real, RealServerSlot(0))
}

fn client(n: u32) -> FlowKey<Ipv4Addr> {
    FlowKey::new(
        Protocol::Udp,
        (Ipv4Addr::from_bits(0x6440_0000 + (n >> 15)), port(n)),
        (Ipv4Addr::new(10, 0, 0, 100), 80),
    )
}

fn port(n: u32) -> u16 {
    1024 + u16::try_from(n & 0x7fff).unwrap_or(0)
}
