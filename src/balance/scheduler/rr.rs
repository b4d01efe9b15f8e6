//! Round robin (net/netfilter/ipvs/ip_vs_rr.c): the next real server in the list that takes sessions.

use super::{Cursor, Loads, RealServer};

pub(super) fn schedule(cursor: &mut Cursor, servers: &[RealServer], loads: &impl Loads) -> Option<usize> {
    let first = cursor.last.map_or(0, |last| last + 1);
    let count = servers.len();
    let index = (first..first + count).map(|index| index % count).find(|&index| loads.is_eligible(&servers[index]))?;
    Some(cursor.choose(servers, index))
}
