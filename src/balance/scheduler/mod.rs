//! The schedulers, by IPVS's definitions; one file each.
//!
//! A schedule is a pure function of a service's real servers, of what the workers count for them, and of a
//! [`Cursor`] that each worker keeps for each service.

mod lc;
mod rr;
mod wlc;
mod wrr;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::service::{RealServer, RealServerSlot, Service, ServiceKey, UnknownWord};

/// A scheduler, by its IPVS name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SchedulerKind {
    /// Round robin.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connections.
    Lc,
    /// Weighted least connections: ipvsadm's default.
    #[default]
    Wlc,
}

impl SchedulerKind {
    /// Every scheduler's name, for messages.
    pub const NAMES: &'static str = "rr, wrr, lc, wlc";

    /// The name that users type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
        }
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SchedulerKind {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "rr" => Ok(Self::Rr),
            "wrr" => Ok(Self::Wrr),
            "lc" => Ok(Self::Lc),
            "wlc" => Ok(Self::Wlc),
            _ => Err(UnknownWord { what: "scheduler", value: text.to_owned(), allowed: Self::NAMES }),
        }
    }
}

/// Connections of a real server, summed over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// IPVS's ActiveConn.
    pub active: u64,
    /// IPVS's InActConn.
    pub inactive: u64,
}

impl Load {
    /// What IPVS takes a real server's load to be: an active connection weighs as much as 256 inactive ones
    /// (include/net/ip_vs.h, `ip_vs_dest_conn_overhead`).
    pub fn overhead(self) -> u64 {
        (self.active << 8) + self.inactive
    }
}

/// What schedulers ask about real servers.
pub trait Loads {
    /// Connections of a real server now.
    fn load(&self, slot: RealServerSlot) -> Load;
    /// Whether a real server is held back by its upper threshold.
    fn is_overloaded(&self, real_server: &RealServer) -> bool;

    /// Whether a real server takes new sessions.
    fn is_eligible(&self, real_server: &RealServer) -> bool {
        real_server.weight.0 > 0 && !self.is_overloaded(real_server)
    }
}

/// Where one worker stands in one service's order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// Which service it is the cursor of, and by which scheduler.
    of: Option<(ServiceKey, SchedulerKind)>,
    /// What the service's list of real servers and weights was when the rest was set; 0: never.
    fingerprint: u64,
    /// Table generation for which the fingerprint was compared last.
    generation: u64,
    /// Index of the real server chosen last.
    last: Option<usize>,
    /// Its slot, to find it again in a changed list.
    last_slot: Option<RealServerSlot>,
    /// wrr: the weight that a real server must have in this pass, the first pass's, and the step between passes.
    current_weight: i64,
    maximum_weight: i64,
    step: i64,
}

impl Cursor {
    /// Chooses a real server for a new session; none if none takes any. `generation` is the service table's.
    pub fn schedule(&mut self, service: &Service, generation: u64, loads: &impl Loads) -> Option<usize> {
        let servers = &service.real_servers;
        let changed = self.changed(service, generation);
        match service.scheduler {
            SchedulerKind::Rr => {
                if changed {
                    self.find_last(servers);
                }
                rr::schedule(self, servers, loads)
            }
            SchedulerKind::Wrr => {
                if changed {
                    wrr::reset(self, servers);
                }
                wrr::schedule(self, servers, loads)
            }
            SchedulerKind::Lc => lc::schedule(servers, loads),
            SchedulerKind::Wlc => wlc::schedule(servers, loads),
        }
    }

    /// Whether the list is another than at the last call. Looks at it only once for each table. Begins anew for
    /// another scheduler, and for another service, which a cursor serves when its own is gone.
    fn changed(&mut self, service: &Service, generation: u64) -> bool {
        if self.generation == generation && self.fingerprint != 0 {
            return false;
        }
        let of = Some((service.key, service.scheduler));
        if self.of != of {
            *self = Self { of, ..Self::default() };
        }
        self.generation = generation;
        let fingerprint = fingerprint(&service.real_servers);
        std::mem::replace(&mut self.fingerprint, fingerprint) != fingerprint
    }

    /// Goes on after the real server chosen last, wherever it now stands; if it is gone, from where it stood.
    fn find_last(&mut self, servers: &[RealServer]) {
        let found = self.last_slot.and_then(|slot| servers.iter().position(|server| server.slot == slot));
        if found.is_some() || self.last_slot.is_none() {
            self.last = found;
        } else {
            self.last = self.last.and_then(|last| last.checked_sub(1));
        }
    }

    fn choose(&mut self, servers: &[RealServer], index: usize) -> usize {
        self.last = Some(index);
        self.last_slot = servers.get(index).map(|server| server.slot);
        index
    }
}

/// A number that changes when the list or a weight does; never 0 (FNV-1a over slots and weights).
fn fingerprint(servers: &[RealServer]) -> u64 {
    let words = servers.iter().flat_map(|server| [server.slot.0, server.weight.0]);
    let mix = |hash: u64, word: u32| (hash ^ u64::from(word)).wrapping_mul(0x0100_0000_01b3);
    words.fold(0xcbf2_9ce4_8422_2325, mix) | 1
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::balance::{ForwardingMode, Protocol, ServiceKey, Weight};

    #[derive(Default)]
    struct Fixed {
        loads: HashMap<u32, Load>,
        overloaded: Vec<u32>,
    }

    impl Loads for Fixed {
        fn load(&self, slot: RealServerSlot) -> Load {
            self.loads.get(&slot.0).copied().unwrap_or_default()
        }

        fn is_overloaded(&self, real_server: &RealServer) -> bool {
            self.overloaded.contains(&real_server.slot.0)
        }
    }

    /// A service whose real servers, in the data path's order (newest first), have these slots and weights.
    fn service(scheduler: SchedulerKind, servers: &[(u32, u32)]) -> Service {
        let real_servers = servers
            .iter()
            .map(|&(slot, weight)| RealServer {
                mode: ForwardingMode::Fullnat,
                slot: RealServerSlot(slot),
                address: Ipv4Addr::new(10, 1, 0, 1).into(),
                port: 80,
                weight: Weight(weight),
                upper_threshold: 0,
                lower_threshold: 0,
            })
            .collect();
        let key =
            ServiceKey { protocol: Protocol::Tcp, address: Ipv4Addr::new(10, 0, 0, 100).into(), ports: 80.into() };
        Service { key, scheduler, pool: None, owned_by_client: false, cursor: 0, real_servers }
    }

    fn picks(cursor: &mut Cursor, service: &Service, generation: u64, loads: &Fixed, count: usize) -> Vec<u32> {
        (0..count)
            .filter_map(|_| cursor.schedule(service, generation, loads))
            .map(|index| service.real_servers[index].slot.0)
            .collect()
    }

    #[test]
    fn rr_starts_with_the_newest_and_skips_who_takes_none() {
        let service = service(SchedulerKind::Rr, &[(3, 1), (2, 0), (1, 5), (0, 1)]);
        let mut loads = Fixed::default();
        let mut cursor = Cursor::default();
        assert_eq!(picks(&mut cursor, &service, 1, &loads, 5), [3, 1, 0, 3, 1]);
        loads.overloaded = vec![0, 3];
        assert_eq!(picks(&mut cursor, &service, 1, &loads, 3), [1, 1, 1]);
        loads.overloaded.push(1);
        assert_eq!(picks(&mut cursor, &service, 1, &loads, 1), [0u32; 0]);
    }

    #[test]
    fn rr_goes_on_where_it_was_in_a_changed_list() {
        let loads = Fixed::default();
        let mut cursor = Cursor::default();
        assert_eq!(picks(&mut cursor, &service(SchedulerKind::Rr, &[(2, 1), (1, 1), (0, 1)]), 1, &loads, 2), [2, 1]);
        let grown = service(SchedulerKind::Rr, &[(3, 1), (2, 1), (1, 1), (0, 1)]);
        assert_eq!(picks(&mut cursor, &grown, 2, &loads, 3), [0, 3, 2]);
        let shrunk = service(SchedulerKind::Rr, &[(3, 1), (1, 1), (0, 1)]);
        assert_eq!(picks(&mut cursor, &shrunk, 3, &loads, 3), [1, 0, 3]);
    }

    #[test]
    fn wrr_takes_the_kernels_order() {
        let loads = Fixed::default();
        let service = service(SchedulerKind::Wrr, &[(2, 1), (1, 3)]);
        assert_eq!(picks(&mut Cursor::default(), &service, 1, &loads, 8), [1, 1, 2, 1, 1, 1, 2, 1]);
    }

    #[test]
    fn wrr_gives_each_its_exact_share_in_each_round() {
        let loads = Fixed::default();
        let service = service(SchedulerKind::Wrr, &[(0, 10), (1, 4), (2, 0), (3, 6), (4, 2)]);
        let mut cursor = Cursor::default();
        for _round in 0..5 {
            let mut shares = [0; 5];
            picks(&mut cursor, &service, 1, &loads, 11).iter().for_each(|&slot| shares[slot as usize] += 1);
            assert_eq!(shares, [5, 2, 0, 3, 1]);
        }
    }

    #[test]
    fn wrr_ends_when_nobody_takes_sessions() {
        let mut loads = Fixed::default();
        let mut cursor = Cursor::default();
        assert_eq!(picks(&mut cursor, &service(SchedulerKind::Wrr, &[]), 1, &loads, 1), [0u32; 0]);
        assert_eq!(picks(&mut cursor, &service(SchedulerKind::Wrr, &[(1, 0)]), 2, &loads, 1), [0u32; 0]);
        let service = service(SchedulerKind::Wrr, &[(1, 3), (2, 2)]);
        assert_eq!(picks(&mut cursor, &service, 3, &loads, 3).len(), 3);
        loads.overloaded = vec![1];
        assert_eq!(picks(&mut cursor, &service, 3, &loads, 3), [2, 2, 2]);
        loads.overloaded = vec![1, 2];
        for _ in 0..4 {
            assert_eq!(picks(&mut cursor, &service, 3, &loads, 1), [0u32; 0]);
        }
        loads.overloaded = vec![2];
        assert_eq!(picks(&mut cursor, &service, 3, &loads, 2), [1, 1]);
    }

    #[test]
    fn a_cursor_follows_a_changed_scheduler() {
        let loads = Fixed::default();
        let servers = [(2, 1), (1, 3)];
        let mut cursor = Cursor::default();
        let mut generation = 0;
        for (scheduler, expected) in [
            (SchedulerKind::Rr, [2, 1, 2, 1]),
            (SchedulerKind::Wrr, [1, 1, 2, 1]),
            (SchedulerKind::Lc, [2, 2, 2, 2]),
            (SchedulerKind::Wrr, [1, 1, 2, 1]),
            (SchedulerKind::Rr, [2, 1, 2, 1]),
        ] {
            generation += 1;
            assert_eq!(
                picks(&mut cursor, &service(scheduler, &servers), generation, &loads, 4),
                expected,
                "{scheduler}"
            );
        }
    }

    #[test]
    fn lc_and_wlc_weigh_active_connections_256_times() {
        let mut loads = Fixed::default();
        loads.loads.insert(1, Load { active: 1, inactive: 0 });
        loads.loads.insert(2, Load { active: 0, inactive: 255 });
        let mut cursor = Cursor::default();
        assert_eq!(picks(&mut cursor, &service(SchedulerKind::Lc, &[(1, 9), (2, 1)]), 1, &loads, 1), [2]);
        assert_eq!(picks(&mut cursor, &service(SchedulerKind::Wlc, &[(1, 9), (2, 1)]), 1, &loads, 1), [1]);
        loads.loads.insert(2, Load { active: 0, inactive: 256 });
        assert_eq!(
            picks(&mut cursor, &service(SchedulerKind::Lc, &[(1, 1), (2, 1)]), 1, &loads, 1),
            [1],
            "first of equals"
        );
        assert_eq!(picks(&mut cursor, &service(SchedulerKind::Wlc, &[(1, 1), (2, 2)]), 1, &loads, 1), [2]);
        assert_eq!(picks(&mut cursor, &service(SchedulerKind::Wlc, &[(1, 0), (2, 0)]), 1, &loads, 1), [0u32; 0]);
    }
}
