//! Fragments that came before the first one of their datagram: a bounded queue with a time limit.
//!
//! One waits until as many newer ones have come as there is room for: what comes out of order is in order again within moments, so that a flood of
//! later fragments drives out its own.

use hashbrown::HashMap;

use super::verdict::DatagramTag;
use crate::port::PortId;
use crate::session::Tick;

/// Fragments that a worker keeps at most, and newer ones that one of them waits for at most.
pub const CAPACITY: usize = 512;
/// How long one waits, in ticks. (Linux keeps what it reassembles for 30 seconds, ipfrag_time. What is forwarded has a receiver that
/// does so.)
const PATIENCE: u32 = 5 * Tick::PER_SECOND;

/// One worker's early fragments.
#[derive(Debug)]
pub struct Early<F> {
    /// A ring: the fragment of number n is at n modulo [`CAPACITY`]. Those that have left are holes in it.
    ring: Vec<Option<Waiting<F>>>,
    /// The numbers of the oldest one that may still be there, and of the next one to come.
    oldest: u64,
    next: u64,
    /// The numbers of a datagram's first and last waiting fragment.
    by_datagram: HashMap<DatagramTag, (u64, u64)>,
    len: usize,
}

#[derive(Debug)]
struct Waiting<F> {
    datagram: DatagramTag,
    until: Tick,
    /// The number of the datagram's next fragment.
    next: Option<u64>,
    port: PortId,
    frame: F,
}

impl<F> Default for Early<F> {
    fn default() -> Self {
        let ring = (0..CAPACITY).map(|_| None).collect();
        Self { ring, oldest: 0, next: 0, by_datagram: HashMap::with_capacity(CAPACITY), len: 0 }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a remainder")]
fn place(number: u64) -> usize {
    (number % CAPACITY as u64) as usize
}

impl<F> Early<F> {
    /// Lets a fragment wait that came in by a port. Gives the one that had to leave for it, if any.
    pub fn push(&mut self, datagram: DatagramTag, port: PortId, frame: F, now: Tick) -> Option<F> {
        let number = self.next;
        let gone = if number - self.oldest >= CAPACITY as u64 { self.take_oldest() } else { None };
        let last = self.by_datagram.get_mut(&datagram).map(|(_, last)| std::mem::replace(last, number));
        match last {
            Some(last) => {
                if let Some(Some(waiting)) = self.ring.get_mut(place(last)) {
                    waiting.next = Some(number);
                }
            }
            None => drop(self.by_datagram.insert(datagram, (number, number))),
        }
        if let Some(slot) = self.ring.get_mut(place(number)) {
            *slot = Some(Waiting { datagram, until: now.plus(PATIENCE), next: None, port, frame });
            self.len += 1;
        }
        self.next += 1;
        gone
    }

    /// Gives the fragments of a datagram, in the order in which they came, and the ports that they came in by.
    pub fn release(&mut self, datagram: DatagramTag, mut out: impl FnMut(PortId, F)) {
        let mut number = self.by_datagram.remove(&datagram).map(|(first, _)| first);
        while let Some(at) = number {
            let Some(waiting) = self.ring.get_mut(place(at)).and_then(Option::take) else { return };
            self.len -= 1;
            number = waiting.next;
            out(waiting.port, waiting.frame);
        }
    }

    /// Looks at up to `steps` of the oldest, and gives those whose time is over. Whether there may be more of them.
    pub fn expire(&mut self, steps: usize, now: Tick, mut out: impl FnMut(F)) -> bool {
        for _ in 0..steps {
            if self.oldest == self.next {
                return false;
            }
            if self.ring.get(place(self.oldest)).is_some_and(|slot| slot.as_ref().is_some_and(|own| own.until > now)) {
                return false;
            }
            self.take_oldest().into_iter().for_each(&mut out);
        }
        true
    }

    /// Takes the oldest out: of its datagram's, it is the first.
    fn take_oldest(&mut self) -> Option<F> {
        let slot = self.ring.get_mut(place(self.oldest)).and_then(Option::take);
        self.oldest += 1;
        let waiting = slot?;
        self.len -= 1;
        match (waiting.next, self.by_datagram.get_mut(&waiting.datagram)) {
            (Some(next), Some((first, _))) => *first = next,
            _ => drop(self.by_datagram.remove(&waiting.datagram)),
        }
        Some(waiting.frame)
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fragments that wait.
    pub fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(n: u64) -> DatagramTag {
        DatagramTag(n.to_ne_bytes())
    }

    fn released(early: &mut Early<u64>, datagram: u64) -> Vec<u64> {
        let mut out = Vec::new();
        early.release(tag(datagram), |_, frame| out.push(frame));
        out
    }

    fn expired(early: &mut Early<u64>, now: Tick) -> Vec<u64> {
        let mut out = Vec::new();
        while early.expire(3, now, |frame| out.push(frame)) {}
        out
    }

    #[test]
    fn fragments_leave_with_their_datagram_or_when_their_time_is_over() {
        let mut early = Early::default();
        for (frame, datagram) in [(10, 1), (20, 2), (11, 1), (30, 3), (12, 1)] {
            assert_eq!(early.push(tag(datagram), PortId(0), frame.into(), Tick(frame)), None);
        }
        assert_eq!(released(&mut early, 1), [10, 11, 12]);
        assert_eq!(released(&mut early, 1), [] as [u64; 0]);
        assert_eq!(early.len(), 2);
        assert_eq!(expired(&mut early, Tick(20 + PATIENCE - 1)), [] as [u64; 0]);
        assert_eq!(expired(&mut early, Tick(20 + PATIENCE)), [20]);
        assert_eq!((released(&mut early, 2), released(&mut early, 3)), (vec![], vec![30]));
        assert!(early.is_empty());
        assert_eq!(expired(&mut early, Tick(1_000_000)), [] as [u64; 0]);
    }

    #[test]
    fn the_oldest_gives_way_whoever_fills_the_queue() {
        let mut early = Early::default();
        early.push(tag(9), PortId(0), 9, Tick(0));
        let gone: Vec<_> =
            (100..100 + CAPACITY as u64).filter_map(|n| early.push(tag(n % 7), PortId(0), n, Tick(0))).collect();
        assert_eq!((gone, early.len()), (vec![9], CAPACITY));
        assert_eq!(released(&mut early, 9), [] as [u64; 0]);
        let gone: Vec<_> = (0..3).filter_map(|n| early.push(tag(1000 + n), PortId(0), n, Tick(0))).collect();
        assert_eq!(gone, [100, 101, 102]);
        let of_two = released(&mut early, 2);
        assert!(of_two.is_sorted() && of_two.len() > 70 && of_two.iter().all(|n| n % 7 == 2), "{of_two:?}");
    }

    /// Whatever is done, it is as with a plain list of what has been pushed not too long ago.
    #[test]
    fn behaves_like_a_list() {
        let (mut early, mut list) = (Early::default(), Vec::<(u64, u64)>::new());
        let (mut random, mut pushes) = (7u64, 0);
        for _ in 0..200_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let datagram = random >> 33 & 127;
            if random >> 60 == 0 {
                let expected: Vec<_> = list.extract_if(.., |(of, _)| *of == datagram).map(|(_, frame)| frame).collect();
                assert_eq!(released(&mut early, datagram), expected);
            } else {
                let gone = early.push(tag(datagram), PortId(0), pushes, Tick(0));
                let expected = list.first().is_some_and(|(_, first)| first + CAPACITY as u64 <= pushes);
                assert_eq!(gone, expected.then(|| list.remove(0).1));
                list.push((datagram, pushes));
                pushes += 1;
            }
            assert_eq!(early.len(), list.len());
        }
    }
}
