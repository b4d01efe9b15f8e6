//! Who serves a new session: services, their real servers, local pools, and the schedulers that choose; and who may go
//! out through local pools.

mod mode;
mod mss_clamp;
pub mod scheduler;
pub mod service;
mod snat;
mod virtual_address;

pub use mode::{Encapsulation, ForwardingMode, Tunnel};
pub use mss_clamp::{MssClamp, MssClampError};
pub use scheduler::SchedulerKind;
pub use service::{
    LocalAddress, LocalAddressSlot, LocalPool, PortRange, Protocol, RealServer, RealServerSlot, Service, ServiceKey,
    ServiceTable, Timeouts, Weight,
};
pub use snat::{Network, NetworkError, SnatRule};
pub use virtual_address::{ServicePorts, VirtualAddress, VirtualAddressError, WideServices};
