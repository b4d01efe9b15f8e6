//! Locality-based least connections (net/netfilter/ipvs/ip_vs_lblc.c): a destination address keeps the real server that it
//! has, as wlc chose it, until that takes no sessions or has more than its share while another has little to do.

use super::locality::{Locality, ServerSet};
use super::{Arrival, Loads, RealServer, wlc};
use crate::balance::RealServerSlot;

pub(super) fn schedule(
    locality: &Locality,
    arrival: &Arrival,
    servers: &[RealServer],
    loads: &impl Loads,
) -> Option<usize> {
    let (destination, now) = (arrival.destination, arrival.now);
    let seen = locality.find(destination, now);
    // The kernel's upper threshold does not end it: sessions of a destination stay together.
    let usable = |set: &ServerSet| {
        let index = set.slots().next().and_then(|slot| index_of(servers, slot))?;
        servers.get(index).filter(|server| server.weight.0 > 0).map(|_| index)
    };
    let known = seen.as_ref().and_then(usable);
    if let Some(index) = known.filter(|&index| !is_crowded(&servers[index], servers, loads)) {
        return Some(index);
    }
    let chosen = wlc::schedule(servers, loads)?;
    let kept = locality.replace(destination, now, seen, ServerSet::of(servers[chosen].slot, now));
    Some(usable(&kept).unwrap_or(chosen))
}

/// Where the real server of a slot stands in the list.
pub(super) fn index_of(servers: &[RealServer], slot: RealServerSlot) -> Option<usize> {
    servers.iter().position(|server| server.slot == slot)
}

/// Whether a real server has more active connections than its weight while another has less than half of its own.
pub(super) fn is_crowded(server: &RealServer, servers: &[RealServer], loads: &impl Loads) -> bool {
    let active = |server: &RealServer| loads.load(server.slot).active;
    let has_little = |other: &RealServer| active(other) * 2 < other.weight.0.into();
    active(server) > server.weight.0.into() && servers.iter().any(has_little)
}
