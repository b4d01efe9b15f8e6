//! Who serves a new session: services, their real servers, local pools, and the schedulers that choose; and who may go
//! out through local pools.

mod mark;
mod mode;
mod mss_clamp;
mod overload;
mod persistence;
mod port_range;
mod protocol;
pub mod scheduler;
mod selector;
mod service;
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
pub use port_range::{PortRange, PortRangeError};
pub use protocol::{Protocol, UnknownWord};
pub use scheduler::{Scheduler, SchedulerFlag, SchedulerFlags, SchedulerKind, SchedulerSettings};
pub use selector::{Network, NetworkError, Selector};
pub use service::{
    LocalAddress, LocalAddressSlot, LocalPool, RealServer, RealServerSlot, Service, ServiceKey, ServiceTable, Weight,
};
pub use snat::SnatRule;
pub use sysctls::{Strategy, Sysctl, Sysctls};
pub use templates::{Template, TemplateError, TemplateIndex, TemplateView, Templates};
pub use timeouts::Timeouts;
pub use virtual_address::{ServicePorts, VirtualAddress, VirtualAddressError, WideServices};
