//! Weighted round robin (net/netfilter/ipvs/ip_vs_wrr.c): passes over the list, each for a lower weight.
//!
//! The first pass takes the real servers of the greatest weight, the last one all; a pass is lower than the one
//! before by the greatest common divisor of the weights. So each gets its exact share in one round of passes.

use super::{Cursor, Loads, RealServer};

/// The weight that makes all real servers take part in a pass.
pub(super) const LOWEST_PASS: i64 = 1;

/// Begins anew at the head of a changed list, in the pass that it was in if there is one; in the first one if that is 0.
pub(super) fn reset(cursor: &mut Cursor, servers: &[RealServer]) {
    let weights = || servers.iter().map(|server| i64::from(server.weight.0)).filter(|&weight| weight > 0);
    let step = weights().fold(0, greatest_common_divisor).max(1);
    let maximum = (weights().max().unwrap_or(0) - (step - 1)).max(0);
    cursor.last = None;
    cursor.step = step;
    cursor.maximum_weight = maximum;
    if cursor.current_weight > maximum || cursor.current_weight == 0 {
        cursor.current_weight = maximum;
    } else if step > 1 {
        cursor.current_weight = cursor.current_weight / step * step + 1;
    }
}

pub(super) fn schedule(cursor: &mut Cursor, servers: &[RealServer], loads: &impl Loads) -> Option<usize> {
    let first = cursor.last.map_or(0, |last| last + 1);
    if let Some(index) = first_of_weight(servers, first, cursor.current_weight, loads) {
        return Some(cursor.choose(servers, index));
    }
    // Passes that would find nobody are left out at once: with one real server of weight 65535 held back and one of
    // weight 1, the kernel walks the list 65535 times here.
    let eligible = servers.iter().filter(|server| loads.is_eligible(server));
    let Some(greatest) = eligible.map(|server| i64::from(server.weight.0)).max() else {
        give_up(cursor);
        return None;
    };
    cursor.current_weight -= cursor.step;
    if cursor.current_weight <= 0 {
        cursor.current_weight = cursor.maximum_weight;
    }
    let above = (cursor.current_weight - greatest).max(0);
    let step = cursor.step.max(1);
    cursor.current_weight -= (above + step - 1) / step * step;
    let index = first_of_weight(servers, 0, cursor.current_weight, loads)?;
    Some(cursor.choose(servers, index))
}

/// Nobody takes sessions: where the kernel stands when it has looked at everybody. In the lowest pass it comes back to where
/// it was, otherwise it ends before the first.
fn give_up(cursor: &mut Cursor) {
    if cursor.last.is_none() || cursor.current_weight > cursor.step {
        cursor.current_weight = cursor.maximum_weight;
        cursor.last = None;
    }
}

fn first_of_weight(servers: &[RealServer], first: usize, wanted: i64, loads: &impl Loads) -> Option<usize> {
    let takes = |server: &RealServer| i64::from(server.weight.0) >= wanted && loads.is_eligible(server);
    (first..servers.len()).find(|&index| takes(&servers[index]))
}

pub(super) fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
