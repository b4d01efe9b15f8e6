//! Criterion benches of the hashes of flows: the gateway's own, by which it finds sessions, and Toeplitz, by which NICs
//! deal flows to queues.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "not part of the gateway")]
#![allow(missing_docs, reason = "a program")]

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fullgate::balance::Protocol;
use fullgate::flow::toeplitz::{MIN_KEY, Toeplitz};
use fullgate::flow::{FlowKey, HashSeed};
use fullgate::port::BURST_SIZE;

criterion_group!(benches, hashes, toeplitz);
criterion_main!(benches);

fn hashes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hash");
    group.throughput(Throughput::Elements(BURST_SIZE as u64));
    let keys: [FlowKey<Ipv4Addr>; BURST_SIZE] = std::array::from_fn(|n| {
        let (source, source_port) = client(n as u32);
        FlowKey::new(Protocol::Tcp, (source, source_port), (VIP, 80))
    });
    let seed = HashSeed([11, 12]);
    group.bench_function("gateway", |bench| {
        bench.iter(|| {
            for key in &keys {
                black_box(seed.hash(black_box(key)));
            }
        });
    });
    group.finish();
}

fn toeplitz(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("toeplitz");
    let key: [u8; MIN_KEY] = std::array::from_fn(|n| (n as u8).wrapping_mul(151).wrapping_add(43));
    group.bench_function("tables of a key", |bench| bench.iter(|| Toeplitz::new(black_box(&key)).unwrap()));

    let hash = Toeplitz::new(&key).unwrap();
    group.throughput(Throughput::Elements(BURST_SIZE as u64));
    let v4: [_; BURST_SIZE] = std::array::from_fn(|n| client(n as u32));
    group.bench_function("ipv4", |bench| {
        bench.iter(|| {
            for &(source, port) in &v4 {
                black_box(hash.hash_v4(black_box(source), VIP, black_box(port), 80));
            }
        });
    });
    let v6 = v4.map(|(address, port)| (address.to_ipv6_mapped(), port));
    let destination = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x64);
    group.bench_function("ipv6", |bench| {
        bench.iter(|| {
            for &(source, port) in &v6 {
                black_box(hash.hash_v6(black_box(source), destination, black_box(port), 80));
            }
        });
    });
    // What a choice of local ports pays for each port that it considers.
    let addresses = hash.addresses_v4(VIP, v4[0].0) ^ hash.source_port_v4(80);
    group.bench_function("ipv4, another port", |bench| {
        bench.iter(|| {
            for &(_, port) in &v4 {
                black_box(addresses ^ hash.destination_port_v4(black_box(port)));
            }
        });
    });
    group.finish();
}

const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);

/// The n-th flow's client.
fn client(n: u32) -> (Ipv4Addr, u16) {
    (
        Ipv4Addr::from_bits(0xc612_0000 + n.wrapping_mul(0x9e37) % 0x2_0000),
        1024 + (n as u16).wrapping_mul(7919) % 60_000,
    )
}
