//! DPDK
