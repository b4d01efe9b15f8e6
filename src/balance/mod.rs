//! Who serves a new session: services, their real servers, local pools, and the schedulers that choose.

pub mod scheduler;
pub mod service;

pub use scheduler::SchedulerKind;
pub use service::{
    ForwardingMode, LocalAddress, LocalAddressSlot, LocalPool, PortRange, Protocol, RealServer, RealServerSlot,
    Service, ServiceKey, ServiceTable, Timeouts, Weight,
};
