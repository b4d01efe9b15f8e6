//! Who serves a new session: services, their real servers, local pools, and the schedulers that choose; and who may go
//! out through local pools.

mod mark;
mod mode;
mod mss_clamp;
mod overload;
mod persistence;
pub mod scheduler;
mod selector;
pub mod service;
mod snat;
mod sysctls;
mod templates;
mod timeouts;
mod virtual_address;

pub use mark::{Mark, MarkRule, Marks};
pub use mode::{Encapsulation, ForwardingMode, Tunnel};
pub use mss_clamp::{MssClamp, MssClampError};
pub use overload::Overloads;
pub use persistence::{ClientPrefix, Persistence, TemplateKey, TemplateTarget};
pub use scheduler::{Scheduler, SchedulerFlag, SchedulerFlags, SchedulerKind, SchedulerSettings};
pub use selector::{Network, NetworkError, Selector};
pub use service::{
    LocalAddress, LocalAddressSlot, LocalPool, PortRange, Protocol, RealServer, RealServerSlot, Service, ServiceKey,
    ServiceTable, Weight,
};
pub use snat::SnatRule;
pub use sysctls::{Strategy, Sysctl, Sysctls};
pub use templates::{Template, TemplateError, TemplateIndex, TemplateView, Templates};
pub use timeouts::Timeouts;
pub use virtual_address::{ServicePorts, VirtualAddress, VirtualAddressError, WideServices};
