//! Local ports: which port of a local address a new session takes towards its real server.
//!
//! A local address may use the same port towards many real servers at once: what must be unique is the answer's whole
//! key. The session table has an index of just these keys, so that is asked whether a port is free, and nothing else
//! is kept of the ports in use: there is nothing to allocate or to give back, and as many pairs of local address and
//! real server as anybody likes. The line of the index that a question reads is the one that the session is entered in.
//!
//! Ports are taken in turn, so one that is given back rests until all the others have had theirs.

use crate::balance::PortRange;
use crate::flow::FlowHash;
use crate::port::WorkerId;

/// Turns that are kept. Pairs of a local address and a real server share them by hash; that moves them on the faster.
const TURNS: usize = 1 << 14;

/// One worker's turns of local ports.
#[derive(Debug)]
pub struct LocalPorts {
    worker: u32,
    workers: u32,
    turns: Box<[u32]>,
}

impl LocalPorts {
    /// Those of one of `workers` workers: ports whose remainder by their number is its own.
    pub fn new(worker: WorkerId, workers: u8) -> Self {
        Self { worker: worker.0.into(), workers: u32::from(workers).max(1), turns: vec![0; TURNS].into_boxed_slice() }
    }

    /// The next port of the range that `free` has an answer for, with that answer; it is asked for at most `tries`
    /// ports, which have then had their turn. None of these may be free while others are, where few are: the next call
    /// goes on from there.
    ///
    /// `pair` is the hash of the two ends that the port is wanted for. It says, too, where their ports begin:
    /// as it is keyed, a restarted gateway begins somewhere else, and not with the ports that real servers remember.
    pub fn take<T>(
        &mut self,
        pair: FlowHash,
        range: PortRange,
        tries: u32,
        free: impl Fn(u16) -> Option<T>,
    ) -> Option<(u16, T)> {
        let (_, count) = self.share(range)?;
        for _try in 0..tries.min(count) {
            let port = self.next(pair, range)?;
            let turn = self.turns.get_mut(turn_of(pair))?;
            *turn = turn.wrapping_add(1);
            if let Some(answer) = free(port) {
                return Some((port, answer));
            }
        }
        None
    }

    /// The port that the next call of [`Self::take`] for this pair looks at first.
    #[inline]
    pub fn next(&self, pair: FlowHash, range: PortRange) -> Option<u16> {
        let (first, count) = self.share(range)?;
        let turn = self.turns.get(turn_of(pair))?;
        let place = (pair.reduce(count) + turn % count) % count;
        u16::try_from((first + place) * self.workers + self.worker).ok()
    }

    /// The first of this worker's ports in a range, and how many these are; none if there are none.
    fn share(&self, range: PortRange) -> Option<(u32, u32)> {
        let first = u32::from(range.first).saturating_sub(self.worker).div_ceil(self.workers);
        let last = u32::from(range.last).checked_sub(self.worker)? / self.workers;
        (first <= last).then(|| (first, last - first + 1))
    }
}

/// Which turn a pair has.
#[inline]
fn turn_of(pair: FlowHash) -> usize {
    pair.low_bits() as usize % TURNS
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const PAIR: FlowHash = FlowHash(0x0123_4567_89ab_cdef);

    fn ports(first: u16, last: u16) -> PortRange {
        PortRange { first, last }
    }

    #[test]
    fn each_port_has_its_turn_before_one_comes_again() {
        let mut local_ports = LocalPorts::new(WorkerId(0), 1);
        let mut round = || -> Vec<u16> {
            (0..100).map(|_| local_ports.take(PAIR, ports(5000, 5099), 1, |_| Some(())).unwrap().0).collect()
        };
        let (one, next) = (round(), round());
        assert_eq!(one.iter().collect::<HashSet<_>>().len(), 100);
        assert_eq!(one, next);
    }

    #[test]
    fn looks_at_so_many_and_goes_on_from_there() {
        let mut local_ports = LocalPorts::new(WorkerId(0), 1);
        let mut take = |free: u16| local_ports.take(PAIR, ports(1000, 1999), 64, |port| (port == free).then_some(()));
        // A thousand ports, 64 at a time: whichever is free is found within 16 calls.
        for free in [1000, 1500, 1999] {
            assert!((0..16).any(|_| take(free).is_some_and(|(port, ())| port == free)));
        }
        assert_eq!(local_ports.take(PAIR, ports(1000, 1999), 2000, |_| None::<()>), None);
    }

    #[test]
    fn another_pair_begins_elsewhere() {
        let mut local_ports = LocalPorts::new(WorkerId(0), 1);
        let range = ports(1024, u16::MAX);
        let begun: HashSet<u16> = (0..32_u64)
            .map(|pair| local_ports.take(FlowHash(pair << 59 | pair), range, 1, |_| Some(())).unwrap().0)
            .collect();
        assert_eq!(begun.len(), 32);
    }

    #[test]
    fn no_port_in_a_range_without_one_of_the_worker() {
        assert_eq!(LocalPorts::new(WorkerId(1), 4).take(PAIR, ports(1024, 1024), 64, |_| Some(())), None);
        assert_eq!(LocalPorts::new(WorkerId(3), 4).take(PAIR, ports(1, 2), 64, |_| Some(())), None);
    }

    proptest! {
        /// Workers share a range between them: each port belongs to one, which finds it whatever the others do.
        #[test]
        fn workers_share_a_range(first in 1u16..2000, len in 0u16..200, workers in 1u8..9, pair in any::<u64>()) {
            let range = ports(first, first + len);
            let mut all = Vec::new();
            for worker in 0..workers {
                let mut local_ports = LocalPorts::new(WorkerId(worker), workers);
                let mut own = HashSet::new();
                while let Some((port, ())) =
                    local_ports.take(FlowHash(pair), range, 256, |port| (!own.contains(&port)).then_some(()))
                {
                    own.insert(port);
                    prop_assert_eq!(crate::flow::local_port_owner(port, workers), WorkerId(worker));
                }
                all.extend(own);
            }
            all.sort_unstable();
            prop_assert_eq!(all, (first..=first + len).collect::<Vec<_>>());
        }
    }
}
