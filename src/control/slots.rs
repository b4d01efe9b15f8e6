//! Small stable numbers, handed out and taken back: real-server slots, local-address slots, scheduler cursors.
//!
//! The lowest numbers are used first and again, so that the arrays that they index stay dense. Who takes a number
//! back must know that nobody uses it any more: here nothing is checked.

/// Numbers below a limit.
#[derive(Clone, Debug)]
pub struct Slots {
    limit: u32,
    /// Below this, every number is out or in `free`.
    next: u32,
    free: Vec<u32>,
}

impl Slots {
    /// All numbers below `limit`, none out.
    pub fn new(limit: u32) -> Self {
        Self { limit, next: 0, free: Vec::new() }
    }

    /// Takes a number; none when all are out.
    pub fn take(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        let slot = self.next;
        if slot == self.limit {
            return None;
        }
        self.next += 1;
        Some(slot)
    }

    /// Takes a number back.
    pub fn give_back(&mut self, slot: u32) {
        debug_assert!(slot < self.next, "slot {slot} was never out");
        self.free.push(slot);
    }

    /// How many can still be taken.
    pub fn available(&self) -> usize {
        (self.limit - self.next) as usize + self.free.len()
    }

    /// How many there are in all.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// One more than the highest number ever out.
    pub fn high_water(&self) -> usize {
        self.next as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_reused_and_limited() {
        let mut slots = Slots::new(3);
        assert_eq!((slots.take(), slots.take(), slots.available()), (Some(0), Some(1), 1));
        slots.give_back(0);
        assert_eq!((slots.take(), slots.take(), slots.take()), (Some(0), Some(2), None));
        assert_eq!((slots.available(), slots.high_water()), (0, 3));
        slots.give_back(1);
        assert_eq!((slots.available(), slots.take()), (1, Some(1)));
    }
}
