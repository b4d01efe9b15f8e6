//! Weighted least connections (net/netfilter/ipvs/ip_vs_wlc.c): the least overhead for its weight, the first of equals.

use super::{Loads, RealServer};

pub(super) fn schedule(servers: &[RealServer], loads: &impl Loads) -> Option<usize> {
    let mut least: Option<(usize, u128, u128)> = None;
    for (index, server) in servers.iter().enumerate().filter(|(_, server)| loads.is_eligible(server)) {
        let overhead = u128::from(loads.load(server.slot).overhead());
        let weight = u128::from(server.weight.0);
        // overhead / weight compared by cross-multiplication, as the kernel does.
        if least.is_none_or(|(_, least_overhead, least_weight)| least_overhead * weight > overhead * least_weight) {
            least = Some((index, overhead, weight));
        }
    }
    least.map(|(index, ..)| index)
}
