//! Raw bindings to the installed libdpdk, made at build time: functions as DPDK names them, and `dpdk_shim_*` /
//! `DPDK_SHIM_*` for what DPDK's headers define as static inline functions, macros and structure fields.
//!
//! No logic and nothing safe here: see `fullgate::dpdk`.
#![allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals, unsafe_op_in_unsafe_fn)]
#![allow(clippy::all, clippy::pedantic)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
