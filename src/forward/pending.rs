//! Packets that wait for their next hop's link-layer address: a bounded queue with a time limit.

use hashbrown::HashMap;

use super::verdict::Hop;
use crate::session::Tick;

/// Packets that a worker lets wait at most.
pub const CAPACITY: usize = 1024;
/// ... and for one hop, so that a dead one leaves room for the others.
pub const PER_HOP: usize = 128;
/// How long a packet waits, in ticks: the kernel gives up on a neighbour after three requests a second apart.
const PATIENCE: u32 = 3 * Tick::PER_SECOND;

/// One worker's waiting packets, oldest first.
#[derive(Debug)]
pub struct Pending<F> {
    waiting: Vec<Waiting<F>>,
    /// How many wait for each hop, so that a flood to a dead one costs a look-up a packet and no more. No hop has 0.
    by_hop: HashMap<Hop, usize>,
}

#[derive(Debug)]
struct Waiting<F> {
    hop: Hop,
    until: Tick,
    frame: F,
}

/// What has become of a waiting packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on waiting.
    Wait,
    /// Its hop answered.
    Go,
}

impl<F> Default for Pending<F> {
    fn default() -> Self {
        Self { waiting: Vec::with_capacity(CAPACITY), by_hop: HashMap::with_capacity(CAPACITY) }
    }
}

impl<F> Pending<F> {
    /// Lets a packet wait, and says whether it is the first for its hop. Gives it back if too many wait already.
    pub fn push(&mut self, hop: Hop, frame: F, now: Tick) -> Result<bool, F> {
        let for_hop = self.by_hop.get(&hop).copied().unwrap_or(0);
        if self.waiting.len() >= CAPACITY || for_hop >= PER_HOP {
            return Err(frame);
        }
        self.by_hop.insert(hop, for_hop + 1);
        self.waiting.push(Waiting { hop, until: now.plus(PATIENCE), frame });
        Ok(for_hop == 0)
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Looks at `steps` packets from the `from`th on, and takes out, in order, those whose hop answered (`Ok`) and those
    /// whose time is over (`Err`). Gives where to go on; none at the end.
    pub fn settle(
        &mut self,
        from: usize,
        steps: usize,
        now: Tick,
        mut fate: impl FnMut(Hop, &mut F) -> Fate,
        mut out: impl FnMut(Result<(Hop, F), F>),
    ) -> Option<usize> {
        let from = from.min(self.waiting.len());
        let end = self.waiting.len().min(from + steps);
        let mut left = end;
        let settled = self
            .waiting
            .extract_if(from..end, |waiting| waiting.until <= now || fate(waiting.hop, &mut waiting.frame) == Fate::Go);
        for waiting in settled {
            left -= 1;
            if let Some(count) = self.by_hop.get_mut(&waiting.hop) {
                *count -= 1;
                if *count == 0 {
                    self.by_hop.remove(&waiting.hop);
                }
            }
            out(if waiting.until <= now { Err(waiting.frame) } else { Ok((waiting.hop, waiting.frame)) });
        }
        (left < self.waiting.len()).then_some(left)
    }

    /// Hops that are waited for.
    pub fn hops(&self) -> impl Iterator<Item = Hop> {
        self.by_hop.keys().copied()
    }

    /// Packets that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::PortId;

    fn hop(last: u8) -> Hop {
        Hop { port: PortId(0), address: [10, 0, 0, last].into() }
    }

    fn settle(pending: &mut Pending<u32>, now: Tick, answered: &[Hop]) -> Vec<Result<u32, u32>> {
        let mut out = Vec::new();
        let fate = |hop, _: &mut u32| if answered.contains(&hop) { Fate::Go } else { Fate::Wait };
        let mut next = Some(0);
        while let Some(from) = next {
            next = pending.settle(from, 3, now, fate, |result| out.push(result.map(|(_, frame)| frame)));
        }
        out
    }

    #[test]
    fn a_look_at_some_goes_on_where_it_ended_and_misses_none() {
        let mut pending = Pending::default();
        for frame in 0..10 {
            let _ = pending.push(hop(if frame % 3 == 0 { 1 } else { 2 }), frame, Tick(0));
        }
        let fate = |at: Hop, _: &mut u32| if at == hop(1) { Fate::Go } else { Fate::Wait };
        let mut out = Vec::new();
        let mut look = |from, steps| pending.settle(from, steps, Tick(1), fate, |result| out.push(result.unwrap().1));
        assert_eq!((look(0, 4), look(2, 4), look(5, 4), look(99, 4)), (Some(2), Some(5), None, None));
        assert_eq!((out, pending.len()), (vec![0, 3, 6, 9], 6));
    }

    #[test]
    fn packets_leave_in_order_when_their_hop_answers_or_their_time_is_over() {
        let mut pending = Pending::default();
        for (frame, last) in [(1, 1), (2, 2), (3, 1)] {
            assert_eq!(pending.push(hop(last), frame, Tick(frame)), Ok(frame < 3));
        }
        assert_eq!(settle(&mut pending, Tick(10), &[hop(1)]), [Ok(1), Ok(3)]);
        assert_eq!(settle(&mut pending, Tick(2 + PATIENCE - 1), &[]), [] as [Result<u32, u32>; 0]);
        assert_eq!(settle(&mut pending, Tick(2 + PATIENCE), &[hop(2)]), [Err(2)]);
        assert!(pending.is_empty());
    }

    #[test]
    fn is_bounded_as_a_whole_and_for_each_hop() {
        let mut pending = Pending::default();
        let accepted = (0..2 * PER_HOP).filter(|_| pending.push(hop(1), 0, Tick(0)).is_ok()).count();
        assert_eq!(accepted, PER_HOP);
        for last in 2..=255 {
            for _ in 0..PER_HOP {
                let _ = pending.push(hop(last), 0, Tick(0));
            }
        }
        assert_eq!((pending.len(), pending.hops().count()), (CAPACITY, CAPACITY / PER_HOP));
        let gone = settle(&mut pending, Tick(PATIENCE), &[]);
        assert_eq!((gone.len(), pending.hops().count()), (CAPACITY, 0));
    }
}
