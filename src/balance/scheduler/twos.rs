//! The power of two choices (net/netfilter/ipvs/ip_vs_twos.c): two real servers at random, each with its weight's
//! chance; of these the one with the lesser overhead for its weight, the first where they are equal.
//!
//! The kernel draws from one number more than there are, which gives the head of the list a chance of one weight more (two
//! of three with two real servers of weight 1). Here the chances are the weights'.

use super::least::Least;
use super::{Cursor, Loads, RealServer, eligible};

pub(super) fn schedule(cursor: &mut Cursor, servers: &[RealServer], loads: &impl Loads) -> Option<usize> {
    let total: u64 = eligible(servers, loads).map(|(_, server)| u64::from(server.weight.0)).sum();
    let points = [cursor.random_below(total), cursor.random_below(total)];
    let mut choices = [None; 2];
    let mut end = 0;
    for (index, server) in eligible(servers, loads) {
        end += u64::from(server.weight.0);
        for (choice, point) in choices.iter_mut().zip(points) {
            if choice.is_none() && point < end {
                *choice = Some((index, server));
            }
        }
        if choices.iter().all(Option::is_some) {
            break;
        }
    }
    let mut least = Least::default();
    for (index, server) in choices.into_iter().flatten() {
        least.offer(index, loads.load(server.slot).overhead(), server.weight.0);
    }
    least.index()
}
