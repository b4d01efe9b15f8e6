//! Destination hashing (net/netfilter/ipvs/ip_vs_dh.c): 256 buckets, dealt out to the real servers in turn, whatever their
//! weights; the destination's hash names the bucket. Nobody, where that real server takes no sessions.
//!
//! The hash is keyed (`secret`), the kernel's is not.

use std::net::IpAddr;

use super::secret::{HashSecret, Purpose};
use super::{Loads, RealServer};

const BUCKETS: u64 = 256;

pub(super) fn schedule(
    secret: HashSecret,
    destination: IpAddr,
    servers: &[RealServer],
    loads: &impl Loads,
) -> Option<usize> {
    let bucket = secret.hash(Purpose::Destination, (destination, 0), 0) % BUCKETS;
    let index = usize::try_from(bucket).ok()?.checked_rem(servers.len())?;
    servers.get(index).is_some_and(|server| loads.is_eligible(server)).then_some(index)
}
