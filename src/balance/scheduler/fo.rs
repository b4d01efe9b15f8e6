//! Weighted failover (net/netfilter/ipvs/ip_vs_fo.c): the greatest weight takes all, the first of equals.

use super::{Loads, RealServer, eligible};

pub(super) fn schedule(servers: &[RealServer], loads: &impl Loads) -> Option<usize> {
    greatest(eligible(servers, loads))
}

/// The first of those with the greatest weight.
pub(super) fn greatest<'s>(servers: impl Iterator<Item = (usize, &'s RealServer)>) -> Option<usize> {
    let greatest = servers.reduce(|best, next| if next.1.weight > best.1.weight { next } else { best });
    greatest.map(|(index, _)| index)
}
