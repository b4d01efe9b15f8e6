//! The two session tables of a worker: one for flows of IPv4, one for all others.
//!
//! A session one side of which is IPv4 and the other IPv6 is in the table of IPv6, with IPv4-mapped addresses on its IPv4
//! side. Packets never carry those: they are dropped on arrival.

use std::net::{Ipv4Addr, Ipv6Addr};

use pages::Region;

use super::{SessionTable, Tick};
use crate::flow::{Address, FlowHash, FlowKey, HashSeed};

/// Sessions that one worker can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Those of IPv4 alone.
    pub ipv4: u32,
    /// Those that have to do with IPv6.
    pub ipv6: u32,
}

impl Capacity {
    /// Bytes of a region that a worker's tables take.
    pub fn memory_bytes(self) -> u64 {
        SessionTable::<Ipv4Addr>::memory_bytes(self.ipv4) + SessionTable::<Ipv6Addr>::memory_bytes(self.ipv6)
    }
}

/// One worker's sessions.
#[derive(Debug)]
pub struct Tables {
    /// Of IPv4 alone.
    pub ipv4: SessionTable<Ipv4Addr>,
    /// Of IPv6, and of both.
    pub ipv6: SessionTable<Ipv6Addr>,
    /// Sessions of both.
    pub mixed: u32,
}

/// An address family that has a table.
pub trait Tabled: Address {
    /// Its table.
    fn table(tables: &Tables) -> &SessionTable<Self>;
    /// The same, to change.
    fn table_mut(tables: &mut Tables) -> &mut SessionTable<Self>;
    /// The key in the table of IPv6.
    fn widened(key: FlowKey<Self>) -> FlowKey<Ipv6Addr>;
    /// The hash of a key that no session has in either table; none if one has it.
    fn unused(tables: &Tables, key: &FlowKey<Self>) -> Option<FlowHash>;
}

impl Tables {
    /// Empty tables with memory of a region; none if that has not [`Capacity::memory_bytes`] left.
    pub fn cut(region: &mut Region, capacity: Capacity, seed: HashSeed, now: Tick) -> Option<Self> {
        let ipv4 = SessionTable::cut(region, capacity.ipv4, seed, now)?;
        Some(Self { ipv4, ipv6: SessionTable::cut(region, capacity.ipv6, seed, now)?, mixed: 0 })
    }

    /// The hash by which a flow is looked up.
    #[inline]
    pub fn hash<A: Tabled>(&self, key: &FlowKey<A>) -> FlowHash {
        A::table(self).hash(key)
    }
}

impl Tabled for Ipv4Addr {
    #[inline]
    fn table(tables: &Tables) -> &SessionTable<Self> {
        &tables.ipv4
    }

    #[inline]
    fn table_mut(tables: &mut Tables) -> &mut SessionTable<Self> {
        &mut tables.ipv4
    }

    fn widened(key: FlowKey<Self>) -> FlowKey<Ipv6Addr> {
        key.mapped()
    }

    #[inline]
    fn unused(tables: &Tables, key: &FlowKey<Self>) -> Option<FlowHash> {
        let hash = tables.ipv4.hash(key);
        let is_mixed = || {
            let key = key.mapped();
            tables.ipv6.find(tables.ipv6.hash(&key), &key).is_some()
        };
        let used = tables.ipv4.find(hash, key).is_some() || (tables.mixed > 0 && is_mixed());
        (!used).then_some(hash)
    }
}

impl Tabled for Ipv6Addr {
    #[inline]
    fn table(tables: &Tables) -> &SessionTable<Self> {
        &tables.ipv6
    }

    #[inline]
    fn table_mut(tables: &mut Tables) -> &mut SessionTable<Self> {
        &mut tables.ipv6
    }

    fn widened(key: FlowKey<Self>) -> FlowKey<Ipv6Addr> {
        key
    }

    fn unused(tables: &Tables, key: &FlowKey<Self>) -> Option<FlowHash> {
        let hash = tables.ipv6.hash(key);
        let is_ipv4 = || key.unmapped().is_some_and(|key| tables.ipv4.find(tables.ipv4.hash(&key), &key).is_some());
        let used = tables.ipv6.find(hash, key).is_some() || is_ipv4();
        (!used).then_some(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_takes_90_bytes_all_in_and_154_over_ipv6() {
        for sessions in [100_000, 1 << 20, 16_000_000, 1 << 27] {
            let ipv4 = SessionTable::<Ipv4Addr>::memory_bytes(sessions);
            let ipv6 = SessionTable::<Ipv6Addr>::memory_bytes(sessions);
            assert!(ipv4 <= 90 * u64::from(sessions), "{sessions}: {ipv4}");
            assert!(ipv6 <= 154 * u64::from(sessions), "{sessions}: {ipv6}");
        }
    }
}
