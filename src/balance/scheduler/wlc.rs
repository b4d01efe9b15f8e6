//! Weighted least connections (net/netfilter/ipvs/ip_vs_wlc.c): the least overhead for its weight, the first of equals.

use super::least::Least;
use super::{Loads, RealServer, eligible};

pub(super) fn schedule(servers: &[RealServer], loads: &impl Loads) -> Option<usize> {
    let mut least = Least::default();
    for (index, server) in eligible(servers, loads) {
        least.offer(index, loads.load(server.slot).overhead(), server.weight.0);
    }
    least.index()
}
