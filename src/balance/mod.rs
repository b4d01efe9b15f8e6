//! Who serves a new session: services, their real servers, local pools, and the schedulers that choose; and who may go
//! out through local pools.

mod mode;
mod overload;
pub mod scheduler;
pub mod service;
mod snat;
mod timeouts;

pub use mode::{Encapsulation, ForwardingMode, Tunnel};
pub use overload::Overloads;
pub use scheduler::{Scheduler, SchedulerFlag, SchedulerFlags, SchedulerKind, SchedulerSettings};
pub use service::{
    LocalAddress, LocalAddressSlot, LocalPool, PortRange, Protocol, RealServer, RealServerSlot, Service, ServiceKey,
    ServiceTable, Weight,
};
pub use snat::{Network, NetworkError, SnatRule};
pub use timeouts::Timeouts;
