//! Sessions: the table, their records, timers and local ports.

use std::net::Ipv4Addr;

use crate::balance::Protocol;

/// A session as it is shown to the outside: a copy, by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The client's address and port (CIP).
    pub client: (Ipv4Addr, u16),
    /// The virtual address and port (VIP).
    pub virtual_: (Ipv4Addr, u16),
    /// The local address and port (LIP).
    pub local: (Ipv4Addr, u16),
    /// The real server's address and port (RS).
    pub real: (Ipv4Addr, u16),
    /// The state's IPVS name.
    pub state: &'static str,
    /// Seconds until it expires if nothing more comes.
    pub expires_seconds: u32,
}
