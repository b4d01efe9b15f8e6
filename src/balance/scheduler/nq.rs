//! Never queue (net/netfilter/ipvs/ip_vs_nq.c): the first real server without active connections, whatever its weight;
//! where there is none, as sed chooses.

use super::least::Least;
use super::{Loads, RealServer, eligible};

pub(super) fn schedule(servers: &[RealServer], loads: &impl Loads) -> Option<usize> {
    let mut least = Least::default();
    for (index, server) in eligible(servers, loads) {
        let active = loads.load(server.slot).active;
        if active == 0 {
            return Some(index);
        }
        least.offer(index, active + 1, server.weight.0);
    }
    least.index()
}
