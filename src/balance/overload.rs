//! Which real servers are held back by their upper threshold, for all workers.
//!
//! A real server is held back from the session on that brings it to its upper threshold, until it has fewer than the
//! lower one; three quarters of the upper one where that is 0 (net/netfilter/ipvs/ip_vs_conn.c, `ip_vs_bind_dest` and
//! `ip_vs_unbind_dest`). The kernel looks at each end of a connection; here a worker looks when the real server is
//! next considered, or gets a connection by persistence, which comes to the same. What is written depends only on what is counted at the moment, so plain
//! stores of several workers do: the next look mends what a race has left.

use std::sync::atomic::{AtomicU32, Ordering};

use super::service::RealServer;

/// By real-server slot, the upper threshold at which it is held back; 0: it is not.
#[derive(Debug, Default)]
pub struct Overloads(Box<[AtomicU32]>);

impl Overloads {
    /// For so many slots. A real server beyond them is held back at its upper threshold only.
    pub fn new(slots: usize) -> Self {
        Self(bytemuck::zeroed_slice_box(slots))
    }

    /// Whether a real server with so many connections is held back, looked at before it is chosen.
    pub fn is_overloaded(&self, server: &RealServer, connections: u64) -> bool {
        let upper = server.upper_threshold;
        if upper == 0 {
            return false;
        }
        let held = self.0.get(server.slot.0 as usize);
        let since = held.map_or(0, |held| held.load(Ordering::Relaxed));
        // An upper threshold that was raised lets it go, as in the kernel.
        let stays = since >= upper && connections >= lower(server);
        let overloaded = connections >= upper.into() || stays;
        let now = if overloaded { upper } else { 0 };
        if let Some(held) = held.filter(|_| since != now) {
            held.store(now, Ordering::Relaxed);
        }
        overloaded
    }
}

/// It is held back until it has fewer connections.
fn lower(server: &RealServer) -> u64 {
    let lower = if server.lower_threshold > 0 {
        server.lower_threshold
    } else {
        server.upper_threshold - server.upper_threshold / 4
    };
    lower.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{ForwardingMode, RealServerSlot, Weight};

    fn server(upper_threshold: u32, lower_threshold: u32) -> RealServer {
        RealServer {
            slot: RealServerSlot(1),
            address: std::net::Ipv4Addr::new(10, 1, 0, 11).into(),
            port: 80,
            mode: ForwardingMode::Fullnat,
            weight: Weight(1),
            upper_threshold,
            lower_threshold,
        }
    }

    fn course(server: &RealServer, overloads: &Overloads, connections: &[u64]) -> Vec<bool> {
        connections.iter().map(|&connections| overloads.is_overloaded(server, connections)).collect()
    }

    #[test]
    fn held_back_from_upper_until_below_lower() {
        let overloads = Overloads::new(2);
        let course = course(&server(10, 5), &overloads, &[9, 10, 9, 5, 4, 5, 9, 11, 4]);
        assert_eq!(course, [false, true, true, true, false, false, false, true, false]);
    }

    #[test]
    fn without_a_lower_threshold_it_is_three_quarters() {
        for (upper, last) in [(1, 0), (2, 1), (3, 2), (4, 2), (7, 5), (8, 5), (100, 74)] {
            let overloads = Overloads::new(2);
            let course = course(&server(upper, 0), &overloads, &[upper.into(), last + 1, last]);
            let stays = last + 1 < upper.into();
            assert_eq!(course, [true, stays || last + 1 >= upper.into(), false], "{upper}");
        }
    }

    #[test]
    fn a_raised_upper_threshold_lets_it_go_and_none_does() {
        let overloads = Overloads::new(2);
        assert_eq!(course(&server(10, 1), &overloads, &[10, 9]), [true, true]);
        assert_eq!(course(&server(20, 1), &overloads, &[9]), [false]);
        assert_eq!(course(&server(10, 1), &overloads, &[10]), [true]);
        assert_eq!(course(&server(0, 0), &overloads, &[10]), [false]);
        assert_eq!(course(&server(5, 1), &overloads, &[4]), [true], "lowered: the kernel keeps it, too");
    }
}
