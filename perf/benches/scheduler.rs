//! Criterion benches of the schedulers, by the number of real servers: one choice for a new session each.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "not part of the gateway")]
#![allow(missing_docs, reason = "a program")]

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fullgate::balance::scheduler::{Cursor, Load, Loads};
use fullgate::balance::{
    ForwardingMode, Protocol, RealServer, RealServerSlot, SchedulerKind, Service, ServiceKey, Weight,
};

const REAL_SERVERS: [u32; 2] = [10, 1000];

criterion_group!(benches, schedulers);
criterion_main!(benches);

fn schedulers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("schedule");
    for name in SchedulerKind::NAMES.split(", ") {
        for count in REAL_SERVERS {
            let service = service(name.parse().unwrap(), count);
            // The load grows with each choice, as it does when sessions stay.
            let mut counts = Counts(vec![Load::default(); count as usize]);
            let mut cursor = Cursor::default();
            group.bench_function(BenchmarkId::new(name, count), |bench| {
                bench.iter(|| {
                    let chosen = cursor.schedule(black_box(&service), 1, &counts).unwrap();
                    counts.0[chosen].active += 1;
                });
            });
        }
    }
    group.finish();
}

/// One worker's counts by slot.
struct Counts(Vec<Load>);

impl Loads for Counts {
    fn load(&self, slot: RealServerSlot) -> Load {
        self.0[slot.0 as usize]
    }

    fn is_overloaded(&self, _server: &RealServer) -> bool {
        false
    }
}

/// Weights from 1 to 4, as a fleet of several generations has them.
fn service(scheduler: SchedulerKind, count: u32) -> Service {
    let server = |n: u32| RealServer {
        mode: ForwardingMode::Fullnat,
        slot: RealServerSlot(n),
        address: Ipv4Addr::from_bits(0x0a01_0000 + n).into(),
        port: 8080,
        weight: Weight(1 + n % 4),
        upper_threshold: 0,
        lower_threshold: 0,
    };
    Service {
        key: ServiceKey { protocol: Protocol::Tcp, address: Ipv4Addr::new(10, 0, 0, 100).into(), ports: 80.into() },
        scheduler,
        pool: Some(0),
        owned_by_client: false,
        cursor: 0,
        real_servers: (0..count).map(server).collect(),
    }
}
