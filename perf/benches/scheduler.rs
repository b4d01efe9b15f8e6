//! Criterion benches of the schedulers, by the number of real servers: one choice for a new session each.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "not part of the gateway")]
#![allow(missing_docs, reason = "a program")]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fullgate::balance::scheduler::{Arrival, Candidate, Cursor, Load, Loads};
use fullgate::balance::{
    ForwardingMode, Protocol, RealServer, RealServerSlot, Scheduler, SchedulerFlags, SchedulerKind, SchedulerSettings,
    Service, ServiceKey, Weight,
};
use fullgate::session::Tick;
use fullgate::telemetry::counters::{SlotLimits, WorkerCounters};

const REAL_SERVERS: [u32; 2] = [10, 1000];
const WORKERS: usize = 2;

criterion_group!(benches, schedulers, tables);
criterion_main!(benches);

fn schedulers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("schedule");
    for name in SchedulerKind::NAMES.split(", ") {
        for count in REAL_SERVERS {
            let service = service(name.parse().unwrap(), count);
            let counts = Counts::of(count);
            let (mut cursor, mut client) = (Cursor::default(), 0u32);
            group.bench_function(BenchmarkId::new(name, count), |bench| {
                bench.iter(|| {
                    client = client.wrapping_add(1);
                    let client = (Ipv4Addr::from_bits(client).into(), 40_000);
                    let arrival = Arrival { client, destination: service.key.address, now: Tick(1) };
                    let chosen = cursor.schedule(black_box(&service), 1, &arrival, &counts);
                    // The load grows with each choice, as it does when sessions stay. ovf runs out of room.
                    chosen.inspect(|&chosen| counts.0[0].real_servers[chosen].active.add(u64::from(name != "ovf")))
                });
            });
        }
    }
    group.finish();
}

/// What the control thread makes anew when a service's real servers change.
fn tables(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("make");
    for kind in [SchedulerKind::Sh, SchedulerKind::Mh] {
        for count in REAL_SERVERS {
            let candidates: Vec<_> = service(kind, count).real_servers.iter().map(Candidate::from).collect();
            let make = || Scheduler::new(kind, SchedulerFlags::default(), &SchedulerSettings::default(), &candidates);
            group.bench_function(BenchmarkId::new(kind.name(), count), |bench| bench.iter(make));
        }
    }
    group.finish();
}

/// What workers count, each in memory of its own.
struct Counts(Vec<WorkerCounters>);

impl Counts {
    fn of(real_servers: u32) -> Self {
        let limits = SlotLimits { real_servers, local_addresses: 1 };
        Self((0..WORKERS).map(|_| WorkerCounters::new(limits)).collect())
    }
}

impl Loads for Counts {
    fn load(&self, slot: RealServerSlot) -> Load {
        let servers = self.0.iter().map(|worker| &worker.real_servers[slot.0 as usize]);
        servers.fold(Load::default(), |sum, server| Load {
            active: sum.active + server.active.get(),
            inactive: sum.inactive + server.inactive.get(),
        })
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
    let real_servers: Vec<_> = (0..count).map(server).collect();
    let candidates: Vec<_> = real_servers.iter().map(Candidate::from).collect();
    Service {
        key: ServiceKey::new(Protocol::Tcp, SocketAddr::from(([10, 0, 0, 100], 80)).into()),
        scheduler: Scheduler::new(scheduler, SchedulerFlags::default(), &SchedulerSettings::default(), &candidates),
        persistence: None,
        one_packet: false,
        max_connections: 0,
        pool: Some(0),
        owned_by_client: false,
        cursor: 0,
        real_servers,
    }
}
