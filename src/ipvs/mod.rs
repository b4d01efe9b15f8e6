//! IPVS's own interface, by which unmodified ipvsadm, keepalived and ldirectord speak to the gateway: the generic
//! netlink family "IPVS" ([`netlink`]), the older socket options ([`sockopt`]) and the files in `/proc/net`
//! ([`proc_net`]). All three say the same things: [`Command`] and [`Answer`].
//!
//! Pure: what is read is checked and what is written is bytes; nothing here knows the gateway's services. Whatever a
//! client sends, the outcome is a command or a refusal, never a panic.
//!
//! Source: include/uapi/linux/ip_vs.h, net/netfilter/ipvs/ip_vs_ctl.c.

mod attributes;
mod command;
pub mod netlink;
pub mod proc_net;
pub mod rates;
pub mod sockopt;

pub use command::*;
