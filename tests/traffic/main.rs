//! Real traffic through a real daemon, in network namespaces, over real poll-mode drivers. Needs root, and the
//! packages of tests/lab/packages.
#![cfg(feature = "dpdk")]
// Tests say what they expect: a failed expectation is a failed test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, missing_docs)]

#[path = "../lab/mod.rs"]
mod lab;

mod announcements;
mod bond;
mod bulk;
mod changes;
mod counts;
mod defence;
mod fragments;
mod garbage;
mod http;
mod hugepages;
mod icmp;
mod ipv6;
mod ipvs_interfaces;
mod ipvsadm;
mod ipvsadm_own;
mod jumbo;
mod limits;
mod links;
mod local_users;
mod marks;
mod modes;
mod packets;
mod path_mtu;
mod path_mtu_probes;
mod persistence;
mod ports;
mod recipes;
mod restart;
mod routing;
mod schedulers;
mod slow_start;
mod snat;
mod start;
mod sysctls;
mod udp;
mod vlan;
mod workers;
