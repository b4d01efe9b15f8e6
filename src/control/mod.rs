//! The control thread.
//!
//! `ipvs` takes what IPVS's own tools ask for to the same requests. Pure: [`protocol`] is what is said on the socket and [`mod@line`] how it is written; [`model`] holds services, real
//! servers, local pools and (in `snat` and `mark`) rules for source NAT and marks, [`plan`] and `difference` turn requests into steps, `compile` makes the workers' table
//! of it, [`report`] the rows of listings.

#[cfg(feature = "dpdk")]
mod admission;
#[cfg(feature = "dpdk")]
mod announce;
#[cfg(feature = "dpdk")]
mod audit;
#[cfg(feature = "dpdk")]
mod budget;
#[cfg(feature = "dpdk")]
mod busy;
pub mod change;
mod compile;
mod departed;
mod difference;
#[cfg(feature = "dpdk")]
mod fullness;
#[cfg(feature = "dpdk")]
mod handle;
#[cfg(feature = "dpdk")]
pub mod ipvs;
mod kept;
pub mod line;
mod mark;
pub mod model;
mod on_link;
#[cfg(feature = "dpdk")]
mod pace;
#[cfg(feature = "dpdk")]
pub mod persistence;
pub mod plan;
#[cfg(feature = "dpdk")]
pub mod plane;
mod pools;
pub mod protocol;
pub mod publish;
mod refusal;
pub mod report;
#[cfg(feature = "dpdk")]
mod room;
mod rule_list;
#[cfg(feature = "dpdk")]
mod saving;
mod schedulers;
#[cfg(feature = "dpdk")]
pub mod server;
#[cfg(feature = "dpdk")]
pub mod sessions;
pub mod settings;
mod slots;
mod slow_start;
mod snat;
#[cfg(feature = "dpdk")]
pub mod socket;
mod totals;

#[cfg(feature = "dpdk")]
pub mod daemon;
#[cfg(feature = "dpdk")]
pub mod data_plane;
#[cfg(feature = "dpdk")]
pub mod kernel_side;
#[cfg(feature = "dpdk")]
pub mod mirror;
#[cfg(feature = "dpdk")]
pub mod port_report;
#[cfg(feature = "dpdk")]
mod port_watch;
#[cfg(feature = "dpdk")]
pub mod ports;
#[cfg(feature = "dpdk")]
pub mod pump;
#[cfg(feature = "dpdk")]
pub mod session_memory;
#[cfg(feature = "dpdk")]
pub mod tap;
#[cfg(feature = "dpdk")]
pub mod templates;
#[cfg(feature = "dpdk")]
pub mod twin;
#[cfg(feature = "dpdk")]
pub mod wake;

pub use departed::Reclaimed;
pub use kept::{KeptSettings, KeptSysctls, KeptTimeouts};
#[cfg(feature = "dpdk")]
pub use plane::{ControlHandle, ControlPlane, LocalAddressHost, Measurements, Parts, PortReporter};
