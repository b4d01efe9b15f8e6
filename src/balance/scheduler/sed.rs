//! Shortest expected delay (net/netfilter/ipvs/ip_vs_sed.c): the least of active connections, the new one among them, for
//! its weight; the first of equals. Inactive connections do not count.

use super::least::Least;
use super::{Loads, RealServer, eligible};

pub(super) fn schedule(servers: &[RealServer], loads: &impl Loads) -> Option<usize> {
    let mut least = Least::default();
    for (index, server) in eligible(servers, loads) {
        least.offer(index, loads.load(server.slot).active + 1, server.weight.0);
    }
    least.index()
}
