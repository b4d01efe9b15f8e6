//! fullgate: a layer-4 load-balancing gateway on DPDK.
//!
//! A packet's way, six hops: `worker::run` -> `port.receive` -> [`forward::Forwarder::process`] (parse -> look up ->
//! on a miss: balance and set up -> rewrite) -> [`forward::Verdict`] -> `port.transmit`. Read `forward/mod.rs` from
//! top to bottom and you have seen it.
//!
//! The pure core knows no clock, thread, system call or foreign function and builds with
//! `--no-default-features`: [`wire`] header views, [`flow`] keys, hashing and ownership, [`session`] the table, its
//! timers and local ports, [`balance`] services and schedulers, [`route`] what the kernel mirror fills,
//! [`forward`] the fast path, [`port`] the traits of a port, [`config`] the TOML, [`control::protocol`] the words on
//! the Unix socket, [`ipvs`] those of IPVS's own tools, [`telemetry::counters`].
//!
//! Around it, with the feature `dpdk`: `dpdk` (EAL, mempool, mbuf, port: the only place for `unsafe`), `worker` (the
//! poll loop and its rings), `control` (socket, snapshots, persistence, netlink mirror, TAP), `telemetry`
//! (Prometheus), `cli`.

pub mod balance;
pub mod config;
pub mod control;
pub mod flow;
pub mod forward;
pub mod ipvs;
pub mod port;
pub mod route;
pub mod session;
pub mod telemetry;
pub mod wire;
pub mod worker;

#[cfg(feature = "dpdk")]
pub mod cli;
#[cfg(feature = "dpdk")]
pub mod dpdk;
