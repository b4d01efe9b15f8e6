//! Takes what unmodified ipvsadm, keepalived and ldirectord say to the kernel's IPVS to a running fullgate instead, when
//! it is loaded into them by `LD_PRELOAD` (see `fullgate exec`).
//!
//! There is no logic of IPVS here: this moves bytes. A generic netlink socket that asks for the family "IPVS" becomes a
//! connection to the daemon under the same descriptor ([`taken`]); socket options and `/proc/net/ip_vs*` are asked for
//! one at a time ([`daemon`]); everything else goes to the kernel as it is. What the kernel's ip_vs would be loaded by
//! does not reach it. While the daemon is away its clients are told EBUSY, never the end of a connection, from which
//! some of them never recover.
//!
//! The daemon's side is fullgate's `control::ipvs`.

mod daemon;
mod hooks;
mod netlink;
mod taken;

pub use hooks::*;
