//! Locality-based least connections with replication (net/netfilter/ipvs/ip_vs_lblcr.c): a destination address has a set of
//! real servers, of which the least loaded for its weight takes the session. Where that has more than its share while
//! another has little to do, or takes no sessions, the set gets one more, as wlc chooses. A set that has not
//! changed for the time of expiration loses its most loaded one.

use super::lblc::{index_of, is_crowded};
use super::least::Least;
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
    let mut set = seen.unwrap_or_default();
    let least = least_of(&set, servers, loads);
    if set.slots().nth(1).is_some() && now.since(set.changed) > locality.expiration() {
        let most = most_of(&set, servers, loads);
        set.retain(now, |slot| Some(slot) != most);
    }
    let fits = least.filter(|&index| !is_crowded(&servers[index], servers, loads));
    let chosen = match fits {
        Some(index) => index,
        None => {
            let chosen = wlc::schedule(servers, loads)?;
            if set.is_full() {
                // Those that are gone make room.
                set.retain(now, |slot| index_of(servers, slot).is_some());
            }
            set.insert(servers[chosen].slot, now);
            chosen
        }
    };
    if seen == Some(set) {
        return Some(chosen);
    }
    let kept = locality.replace(destination, now, seen, set);
    // Another worker has changed it first: its choice counts.
    Some(if kept == set { chosen } else { least_of(&kept, servers, loads).unwrap_or(chosen) })
}

/// The first with the least overhead for its weight of those that take sessions.
fn least_of(set: &ServerSet, servers: &[RealServer], loads: &impl Loads) -> Option<usize> {
    let mut least = Least::default();
    for index in set.slots().filter_map(|slot| index_of(servers, slot)) {
        let server = &servers[index];
        if loads.is_eligible(server) {
            least.offer(index, loads.load(server.slot).overhead(), server.weight.0);
        }
    }
    least.index()
}

/// The first with the most overhead for its weight of those that have one.
fn most_of(set: &ServerSet, servers: &[RealServer], loads: &impl Loads) -> Option<RealServerSlot> {
    let weighted = set.slots().filter_map(|slot| {
        let server = servers.get(index_of(servers, slot)?)?;
        let weight = u64::from(server.weight.0);
        (weight > 0).then(|| (slot, loads.load(slot).overhead(), weight))
    });
    let most = weighted.reduce(|most, next| if most.1 * next.2 < next.1 * most.2 { next } else { most });
    most.map(|(slot, ..)| slot)
}
