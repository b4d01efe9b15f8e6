//! Local ports: which port of a local address a new session takes towards its real server.
//!
//! A local address may use the same port towards many real servers at once: what must be unique is the answer's whole
//! key. The session table has an index of just these keys, so that is asked whether a port is free, and nothing else
//! is kept of the ports in use: there is nothing to allocate or to give back, and as many pairs of local address and
//! real server as anybody likes. The line of the index that a question reads is the one that the session is entered in.
//!
//! Which ports are this worker's is either by number, dealt out to workers in turn, or by where a device's RSS would
//! bring the answers: then others' ports are passed by.
//!
//! Ports are taken in turn, so one that is given back rests while others have theirs. Where the next few are in use
//! (sessions that were set up together and last), the turn leaps to anywhere else; and where none was found, no more than a
//! look is taken for the rest of the tick, so that a flood to a real server whose ports are all in use costs little.

use super::Tick;
use crate::balance::PortRange;
use crate::flow::FlowHash;
use crate::flow::rss::{AnswerHash, RssDeal};
use crate::port::WorkerId;

/// Turns that are kept. Pairs of a local address and a real server share them by hash; that moves them on the faster.
const TURNS: usize = 1 << 14;
/// Ports that are looked at in turn before others are.
const TRIED_IN_TURN: u32 = 4;
/// Ports of other workers that are passed by, at most, on the way to one of this worker's: a microsecond or two. Among
/// `n` workers `n` are passed by on the average.
const PASSED_BY: u32 = 1024;

/// One worker's turns of local ports.
#[derive(Debug)]
pub struct LocalPorts {
    worker: WorkerId,
    workers: u32,
    turns: Box<[Turn]>,
}

/// Says which ports are a worker's.
pub trait Deal: Copy {
    /// Whether they are evenly spaced: all whose remainder by the number of workers is the worker's index.
    const EVENLY: bool;

    /// Whose a port is, where they are not.
    fn owner(self, port: u16) -> Option<WorkerId>;
}

/// Ports are dealt out to workers in turn.
#[derive(Clone, Copy, Debug)]
pub struct InTurn;

impl Deal for InTurn {
    const EVENLY: bool = true;

    fn owner(self, _port: u16) -> Option<WorkerId> {
        None
    }
}

/// A port is the worker's that a device's RSS brings these answers to.
#[derive(Clone, Copy, Debug)]
pub struct ByRss<'a> {
    /// The device's.
    pub rss: &'a RssDeal,
    /// What the answers have in common.
    pub answers: AnswerHash,
}

impl Deal for ByRss<'_> {
    const EVENLY: bool = false;

    #[inline]
    fn owner(self, port: u16) -> Option<WorkerId> {
        Some(self.rss.owner_of_port(self.answers, port))
    }
}

/// One worker's ports of a local address towards a real server.
#[derive(Debug)]
pub struct PairPorts<'a, D> {
    places: Places,
    deal: D,
    worker: WorkerId,
    /// The place that turns are counted from.
    start: u32,
    /// The turn's, below the number of places.
    place: u32,
    turn: &'a mut Turn,
    pair: FlowHash,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// Counted from where a pair's ports begin.
    place: u32,
    /// When no free port was found.
    none_found: Option<Tick>,
}

/// Where a worker looks for its ports: evenly spaced, `count` of them.
#[derive(Clone, Copy, Debug)]
struct Places {
    first: u32,
    step: u32,
    count: u32,
    /// How many of these are the worker's, more or less.
    own: u32,
}

impl LocalPorts {
    /// Those of one of `workers` workers.
    pub fn new(worker: WorkerId, workers: u8) -> Self {
        let turns = vec![Turn { place: 0, none_found: None }; TURNS].into_boxed_slice();
        Self { worker, workers: u32::from(workers).max(1), turns }
    }

    /// Those of a range towards the two ends whose hash is `pair`. It says, too, where their ports begin: as it is keyed, a
    /// restarted gateway begins somewhere else, and not with the ports that real servers remember. None if the worker
    /// has no ports there.
    #[inline]
    pub fn between<D: Deal>(&mut self, pair: FlowHash, range: PortRange, deal: D) -> Option<PairPorts<'_, D>> {
        let places = if D::EVENLY { self.share(range) } else { self.whole(range) }?;
        let (start, turn) = (pair.reduce(places.count), self.turns.get_mut(turn_of(pair))?);
        let place = turn.place % places.count;
        Some(PairPorts { places, deal, worker: self.worker, start, place, turn, pair })
    }

    /// Ports whose remainder by the number of workers is this one's; none if there are none.
    #[inline]
    fn share(&self, range: PortRange) -> Option<Places> {
        let (worker, step) = (u32::from(self.worker.0), self.workers);
        let first = u32::from(range.first).saturating_sub(worker).div_ceil(step);
        let last = u32::from(range.last).checked_sub(worker)? / step;
        let count = (last + 1).checked_sub(first).filter(|&count| count > 0)?;
        Some(Places { first: first * step + worker, step, count, own: count })
    }

    /// All ports of a range, this worker's and others'.
    #[inline]
    fn whole(&self, range: PortRange) -> Option<Places> {
        let first = u32::from(range.first);
        let count = (u32::from(range.last) + 1).checked_sub(first).filter(|&count| count > 0)?;
        Some(Places { first, step: 1, count, own: count / self.workers })
    }
}

impl<D: Deal> PairPorts<'_, D> {
    /// The next port that `free` has an answer for, with that answer; it is asked for at most `tries` ports. Where few
    /// are free none of these may be; the next call looks at others.
    #[inline]
    pub fn take<T>(&mut self, tries: u32, now: Tick, free: impl Fn(u16) -> Option<T>) -> Option<(u16, T)> {
        let all = tries >= self.places.own;
        let tries = if self.turn.none_found == Some(now) { 1 } else { tries.min(self.places.count) };
        // Where all can be looked at, they are.
        let in_turn = if all { tries } else { TRIED_IN_TURN };
        let mut leap = u64::from(self.turn.place) ^ self.pair.0;
        for tried in 0..tries {
            if tried >= in_turn {
                leap = leap.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                self.place = FlowHash(leap).reduce(self.places.count);
            }
            let Some(port) = self.peek() else { break };
            self.place = self.places.after(self.place);
            if let Some(answer) = free(port) {
                *self.turn = Turn { place: self.place, none_found: None };
                return Some((port, answer));
            }
        }
        *self.turn = Turn { place: self.place, none_found: Some(now) };
        None
    }

    /// The port that the next call of [`Self::take`] looks at first: the worker's next one, to which the turn moves on.
    #[inline]
    pub fn peek(&mut self) -> Option<u16> {
        let Places { count, .. } = self.places;
        let at = self.start + self.place;
        let mut at = if at < count { at } else { at - count };
        if D::EVENLY {
            return self.places.port(at);
        }
        for _passed_by in 0..count.min(PASSED_BY) {
            let port = self.places.port(at)?;
            if self.deal.owner(port) == Some(self.worker) {
                self.turn.place = self.place;
                return Some(port);
            }
            at = self.places.after(at);
            self.place = self.places.after(self.place);
        }
        None
    }
}

impl Places {
    /// The place behind a place.
    #[inline]
    fn after(self, place: u32) -> u32 {
        if place + 1 < self.count { place + 1 } else { 0 }
    }

    #[inline]
    fn port(self, at: u32) -> Option<u16> {
        u16::try_from(self.first + at * self.step).ok()
    }
}

/// Which turn a pair has.
#[inline]
fn turn_of(pair: FlowHash) -> usize {
    pair.low_bits() as usize % TURNS
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::HashSet;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::flow::rss::RssKey;

    const PAIR: FlowHash = FlowHash(0x0123_4567_89ab_cdef);

    fn ports(first: u16, last: u16) -> PortRange {
        PortRange { first, last }
    }

    /// Takes a port that is dealt out in turn; none, too, where the worker has none.
    fn take<T>(
        local_ports: &mut LocalPorts,
        pair: FlowHash,
        range: PortRange,
        tries: u32,
        now: Tick,
        free: impl Fn(u16) -> Option<T>,
    ) -> Option<(u16, T)> {
        local_ports.between(pair, range, InTurn)?.take(tries, now, free)
    }

    const NOW: Tick = Tick(7);
    const ALL: PortRange = PortRange { first: 1024, last: u16::MAX };

    #[test]
    fn each_port_has_its_turn_before_one_comes_again() {
        let mut local_ports = LocalPorts::new(WorkerId(0), 1);
        let mut round = || -> Vec<u16> {
            (0..100).map(|_| take(&mut local_ports, PAIR, ports(5000, 5099), 1, NOW, |_| Some(())).unwrap().0).collect()
        };
        let (one, next) = (round(), round());
        assert_eq!(one.iter().collect::<HashSet<_>>().len(), 100);
        assert_eq!(one, next);
    }

    #[test]
    fn the_next_one_is_known_beforehand() {
        let mut local_ports = LocalPorts::new(WorkerId(1), 3);
        for _ in 0..100 {
            let next = local_ports.between(PAIR, ALL, InTurn).unwrap().peek();
            assert_eq!(take(&mut local_ports, PAIR, ALL, 32, NOW, |_| Some(())).map(|(port, ())| port), next);
        }
    }

    #[test]
    fn ports_that_stay_in_use_side_by_side_are_leapt_over() {
        // Half of all are taken one after the other, and kept; then ten thousand more come and go.
        let mut local_ports = LocalPorts::new(WorkerId(0), 1);
        let kept: HashSet<u16> =
            (0..32_000).map(|_| take(&mut local_ports, PAIR, ALL, 32, NOW, |_| Some(())).unwrap().0).collect();
        let looks = Cell::new(0);
        let free = |port| {
            looks.set(looks.get() + 1);
            (!kept.contains(&port)).then_some(())
        };
        for _ in 0..100_000 {
            assert!(take(&mut local_ports, PAIR, ALL, 32, NOW, free).is_some());
        }
        assert!(looks.get() < 110_000, "{} looks", looks.get());
    }

    #[test]
    fn a_flood_after_the_last_port_costs_a_look_a_packet() {
        let mut local_ports = LocalPorts::new(WorkerId(0), 1);
        let looks = Cell::new(0);
        let none = |_| {
            looks.set(looks.get() + 1);
            None::<()>
        };
        for packet in 0..10_000 {
            assert!(take(&mut local_ports, PAIR, ALL, 32, Tick(packet / 1000), none).is_none());
        }
        assert!(looks.get() <= 10_000 + 10 * 32, "{} looks", looks.get());
        // One that is free after all is found, and the look is a long one again.
        assert!(
            (0..64_512)
                .any(|_| take(&mut local_ports, PAIR, ALL, 32, NOW, |port| (port == 9999).then_some(())).is_some())
        );
        looks.set(0);
        assert!(take(&mut local_ports, PAIR, ALL, 32, NOW, none).is_none());
        assert_eq!(looks.get(), 32);
    }

    #[test]
    fn the_last_free_port_of_a_few_is_always_found() {
        let mut local_ports = LocalPorts::new(WorkerId(0), 1);
        for free in 2000..2032 {
            let found = take(&mut local_ports, PAIR, ports(2000, 2031), 32, NOW, |port| (port == free).then_some(()));
            assert_eq!(found, Some((free, ())));
        }
    }

    #[test]
    fn another_pair_begins_elsewhere() {
        let mut local_ports = LocalPorts::new(WorkerId(0), 1);
        let begun: HashSet<u16> = (0..32_u64)
            .map(|pair| take(&mut local_ports, FlowHash(pair << 59 | pair), ALL, 1, NOW, |_| Some(())).unwrap().0)
            .collect();
        assert_eq!(begun.len(), 32);
    }

    /// A device with a table of 128 entries for so many workers, and what some session's answers have in common.
    fn deal(workers: u8, seed: u64) -> (RssDeal, AnswerHash) {
        let mut state = seed;
        let key = RssKey::draw(|| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            state ^ state >> 29
        });
        let table: Vec<u16> = (0..128).map(|entry| entry % u16::from(workers)).collect();
        let deal = RssDeal::new(key.bytes(40), &table, workers).unwrap();
        let answers = deal.answers(Ipv4Addr::new(10, 1, 0, 11), 80, Ipv4Addr::new(10, 1, 0, 200));
        (deal, answers)
    }

    #[test]
    fn with_rss_each_port_of_ones_own_has_its_turn() {
        for workers in [2, 3, 16] {
            let (deal, answers) = deal(workers, 5);
            let by_rss = ByRss { rss: &deal, answers };
            let mut local_ports = LocalPorts::new(WorkerId(1), workers);
            let own = (1024..=u16::MAX).filter(|&port| deal.owner_of_port(answers, port) == WorkerId(1)).count();
            let mut taken = HashSet::new();
            for _ in 0..own {
                let next = local_ports.between(PAIR, ALL, by_rss).unwrap().peek();
                let mut ports = local_ports.between(PAIR, ALL, by_rss).unwrap();
                let (port, ()) = ports.take(1, NOW, |_| Some(())).unwrap();
                assert_eq!(next, Some(port));
                assert_eq!(deal.owner_of_port(answers, port), WorkerId(1));
                assert!(taken.insert(port), "{port} twice");
            }
            let mut ports = local_ports.between(PAIR, ALL, by_rss).unwrap();
            let again = ports.take(1, NOW, |_| Some(())).unwrap().0;
            assert!(taken.contains(&again));
        }
    }

    #[test]
    fn with_rss_a_small_range_is_searched_whole() {
        let (deal, answers) = deal(2, 6);
        let by_rss = ByRss { rss: &deal, answers };
        let mut local_ports = LocalPorts::new(WorkerId(0), 2);
        let own: Vec<u16> = (2000..2032).filter(|&port| deal.owner_of_port(answers, port) == WorkerId(0)).collect();
        assert!(own.len() > 8, "{own:?}");
        for &free in &own {
            let mut ports = local_ports.between(PAIR, ports(2000, 2031), by_rss).unwrap();
            let found = ports.take(32, NOW, |port| (port == free).then_some(()));
            assert_eq!(found, Some((free, ())));
        }
        // The other worker's are no use, and a range of them alone has nothing.
        let other = (2000..2032).find(|port| !own.contains(port)).unwrap();
        let mut ports = local_ports.between(PAIR, ports(other, other), by_rss).unwrap();
        assert_eq!((ports.take(32, NOW, |_| Some(())), ports.peek()), (None, None));
    }

    #[test]
    fn no_port_in_a_range_without_one_of_the_worker() {
        assert_eq!(take(&mut LocalPorts::new(WorkerId(1), 4), PAIR, ports(1024, 1024), 64, NOW, |_| Some(())), None);
        assert_eq!(take(&mut LocalPorts::new(WorkerId(3), 4), PAIR, ports(1, 2), 64, NOW, |_| Some(())), None);
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
                    take(&mut local_ports, FlowHash(pair), range, 256, NOW, |port| (!own.contains(&port)).then_some(()))
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
