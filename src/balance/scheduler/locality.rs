//! What lblc and lblcr remember: the real servers of a destination address, in one table for all workers.
//!
//! It is touched at session set-up only, and never waited for: a row that another worker is in for longer than a few
//! looks is left alone, and the session is scheduled without it. Memory is fixed; where a row is full, who was
//! used longest ago is forgotten. (The kernel forgets who was not used for six minutes when the table has 16,384.)

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::secret::{HashSecret, Purpose};
use crate::balance::RealServerSlot;
use crate::session::Tick;

/// Destinations in a row.
const ROW: usize = 8;
/// Looks at a row that another worker is in: it leaves it within some hundred nanoseconds unless it was interrupted.
const PATIENCE: usize = 64;
/// Real servers that lblcr remembers for one destination. (The kernel has no limit.)
const MOST_SERVERS: usize = 16;

/// The real servers of one destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerSet {
    /// Newest first, as in the kernel.
    slots: [Option<RealServerSlot>; MOST_SERVERS],
    /// When one was added or taken out.
    pub(super) changed: Tick,
}

impl ServerSet {
    /// A set of one.
    pub(super) fn of(slot: RealServerSlot, now: Tick) -> Self {
        let mut set = Self { changed: now, ..Self::default() };
        set.slots[0] = Some(slot);
        set
    }

    /// Those in it, newest first.
    pub(super) fn slots(&self) -> impl Iterator<Item = RealServerSlot> {
        self.slots.iter().copied().flatten()
    }

    /// Whether the next one that is added drives one out.
    pub(super) fn is_full(&self) -> bool {
        self.slots.iter().all(Option::is_some)
    }

    /// Adds one that is not in it; where it is full, the oldest goes.
    pub(super) fn insert(&mut self, slot: RealServerSlot, now: Tick) {
        if !self.slots.contains(&Some(slot)) {
            self.slots.rotate_right(1);
            self.slots[0] = Some(slot);
            self.changed = now;
        }
    }

    /// Takes out all but those that `keep` says.
    pub(super) fn retain(&mut self, now: Tick, keep: impl Fn(RealServerSlot) -> bool) {
        let kept = self.slots.map(|slot| slot.filter(|&slot| keep(slot)));
        if kept != self.slots {
            self.slots = kept;
            self.slots.sort_by_key(Option::is_none);
            self.changed = now;
        }
    }
}

/// A destination and its real servers.
#[derive(Clone, Copy, Debug)]
struct Entry {
    destination: IpAddr,
    used: Tick,
    servers: ServerSet,
}

type Row = [Option<Entry>; ROW];

/// The table of one service.
#[derive(Debug)]
pub(super) struct Locality {
    rows: Box<[Mutex<Row>]>,
    secret: HashSecret,
    /// Ticks after which a destination that was not used is forgotten, and a set that was not changed shrinks.
    expiration: AtomicU32,
}

impl Locality {
    /// An empty table for so many destinations or some more. The expiration is in seconds.
    pub(super) fn new(destinations: usize, expiration_seconds: u32, secret: HashSecret) -> Self {
        let rows = (0..destinations.div_ceil(ROW).max(1)).map(|_| Mutex::new([None; ROW])).collect();
        let locality = Self { rows, secret, expiration: AtomicU32::new(0) };
        locality.set_expiration(expiration_seconds);
        locality
    }

    /// Ticks after which a destination that was not used is forgotten, and a set that was not changed shrinks.
    pub(super) fn expiration(&self) -> u32 {
        self.expiration.load(Ordering::Relaxed)
    }

    /// Changes that, in seconds, while workers look.
    pub(super) fn set_expiration(&self, seconds: u32) {
        self.expiration.store(seconds.saturating_mul(Tick::PER_SECOND), Ordering::Relaxed);
    }

    /// What is remembered of a destination, which is now used.
    pub(super) fn find(&self, destination: IpAddr, now: Tick) -> Option<ServerSet> {
        let mut row = self.row(destination)?;
        let entry = row.iter_mut().flatten().find(|entry| entry.destination == destination)?;
        if now.since(entry.used) >= self.expiration() {
            return None;
        }
        entry.used = now;
        Some(entry.servers)
    }

    /// Remembers `wanted` in place of `seen`, which was found before, unless another worker has changed what is
    /// remembered meanwhile; gives what is remembered then.
    pub(super) fn replace(
        &self,
        destination: IpAddr,
        now: Tick,
        seen: Option<ServerSet>,
        wanted: ServerSet,
    ) -> ServerSet {
        let Some(mut row) = self.row(destination) else { return wanted };
        let known = row.iter_mut().flatten().find(|entry| entry.destination == destination);
        match known {
            Some(entry) if seen != Some(entry.servers) && now.since(entry.used) < self.expiration() => entry.servers,
            Some(entry) => {
                (entry.servers, entry.used) = (wanted, now);
                wanted
            }
            None => {
                let place = row.iter_mut().min_by_key(|place| place.map(|entry| entry.used));
                if let Some(place) = place {
                    *place = Some(Entry { destination, used: now, servers: wanted });
                }
                wanted
            }
        }
    }

    /// The row of a destination; none: somebody else is in it, for long.
    fn row(&self, destination: IpAddr) -> Option<MutexGuard<'_, Row>> {
        let row = match &*self.rows {
            [only] => only,
            rows => {
                let hash = self.secret.hash(Purpose::Destination, (destination, 0), 0);
                rows.get(usize::try_from(hash % rows.len() as u64).ok()?)?
            }
        };
        // Nobody ever waits for the lock in the kernel, so nobody has to wake anybody there.
        (0..PATIENCE).find_map(|_| {
            let guard = row.try_lock().ok();
            if guard.is_none() {
                std::hint::spin_loop();
            }
            guard
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(destinations: usize) -> Locality {
        Locality::new(destinations, 60, HashSecret::default())
    }

    fn address(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    #[test]
    fn forgets_what_was_not_used_for_so_long() {
        let (table, set) = (table(1), ServerSet::of(RealServerSlot(3), Tick(0)));
        table.replace(address(1), Tick(0), None, set);
        assert_eq!(table.find(address(1), Tick(599)), Some(set));
        assert_eq!(table.find(address(1), Tick(1198)), Some(set), "it was used since");
        assert_eq!(table.find(address(1), Tick(1798)), None);
        assert_eq!(table.find(address(2), Tick(0)), None);
    }

    #[test]
    fn of_two_workers_the_first_counts() {
        let (table, [one, other]) = (table(1), [1, 2].map(|slot| ServerSet::of(RealServerSlot(slot), Tick(0))));
        assert_eq!(table.replace(address(1), Tick(0), None, one), one);
        assert_eq!(table.replace(address(1), Tick(0), None, other), one, "it had seen nothing");
        assert_eq!(table.replace(address(1), Tick(0), Some(one), other), other);
    }

    #[test]
    fn a_full_row_forgets_who_was_used_longest_ago() {
        let table = table(1);
        for n in 0..9 {
            table.replace(address(n), Tick(n), None, ServerSet::of(RealServerSlot(n), Tick(n)));
            table.find(address(0), Tick(n));
        }
        let known: Vec<_> = (0..9).filter(|&n| table.find(address(n), Tick(9)).is_some()).collect();
        assert_eq!(known, [0, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_row_that_is_held_is_not_waited_for() {
        let (table, set) = (table(1), ServerSet::of(RealServerSlot(3), Tick(0)));
        table.replace(address(1), Tick(0), None, set);
        let held = table.row(address(1));
        assert_eq!(table.find(address(1), Tick(0)), None);
        assert_eq!(table.replace(address(1), Tick(0), Some(set), set), set);
        drop(held);
        assert_eq!(table.find(address(1), Tick(0)), Some(set));
    }

    #[test]
    fn many_destinations_have_many_rows() {
        let table = table(1024);
        for n in 0..512 {
            table.replace(address(n), Tick(0), None, ServerSet::of(RealServerSlot(n), Tick(0)));
        }
        let known = (0..512)
            .filter(|&n| table.find(address(n), Tick(0)).is_some_and(|set| set.slots().eq([RealServerSlot(n)])));
        assert!(known.count() > 490);
    }

    #[test]
    fn sets_are_ordered_and_bounded() {
        let mut set = ServerSet::of(RealServerSlot(0), Tick(1));
        for slot in 1..20 {
            set.insert(RealServerSlot(slot), Tick(slot));
            set.insert(RealServerSlot(slot), Tick(99));
        }
        assert_eq!(set.changed, Tick(19));
        assert!(set.slots().map(|slot| slot.0).eq((4..20).rev()));
        set.retain(Tick(30), |slot| slot.0 % 2 == 0);
        assert!(set.slots().map(|slot| slot.0).eq([18, 16, 14, 12, 10, 8, 6, 4]));
        set.retain(Tick(40), |_| true);
        assert_eq!(set.changed, Tick(30));
    }
}
