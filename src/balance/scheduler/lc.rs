//! Least connections (net/netfilter/ipvs/ip_vs_lc.c): the least overhead, the first of equals; any weight above 0.

use super::{Loads, RealServer};

pub(super) fn schedule(servers: &[RealServer], loads: &impl Loads) -> Option<usize> {
    let eligible = servers.iter().enumerate().filter(|(_, server)| loads.is_eligible(server));
    eligible.min_by_key(|(_, server)| loads.load(server.slot).overhead()).map(|(index, _)| index)
}
