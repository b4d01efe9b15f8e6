//! Least connections (net/netfilter/ipvs/ip_vs_lc.c): the least overhead, the first of equals; any weight above 0.

use super::{Loads, RealServer, eligible};

pub(super) fn schedule(servers: &[RealServer], loads: &impl Loads) -> Option<usize> {
    let least = eligible(servers, loads).min_by_key(|(_, server)| loads.load(server.slot).overhead());
    least.map(|(index, _)| index)
}
