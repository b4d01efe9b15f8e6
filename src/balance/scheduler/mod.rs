//! The schedulers, by IPVS's definitions; one file each.
//!
//! A schedule is a function of a service's real servers, of what the workers count for them, of who asks
//! ([`Arrival`]) and of a [`Cursor`] that each worker keeps for each service. What a scheduler works out in advance,
//! or keeps for all workers, is in the service's [`Scheduler`].

mod buckets;
mod dh;
mod fo;
mod kind;
mod lblc;
mod lblcr;
mod lc;
mod least;
mod locality;
pub mod mh;
mod nq;
mod ovf;
mod rr;
mod secret;
mod sed;
mod sh;
#[cfg(test)]
mod tests;
mod twos;
mod wlc;
mod wrr;

use std::net::IpAddr;
use std::sync::Arc;

pub use self::buckets::Candidate;
pub use self::kind::{SchedulerFlag, SchedulerFlags, SchedulerKind};
pub use self::secret::{HashSecret, HashSecretError};

use self::buckets::Buckets;
use self::locality::Locality;
use super::service::{RealServer, RealServerSlot, Service, ServiceKey};
use super::sysctls::Sysctls;
use crate::port::WorkerId;
use crate::session::Tick;

/// What is set for schedulers on the gateway as a whole: `[ipvs]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerSettings {
    /// The key of the hashes of dh, sh and mh.
    pub hash_secret: HashSecret,
    /// IPVS's CONFIG_IP_VS_MH_TAB_INDEX, 8 to 17: which prime number of slots mh's tables have.
    pub mh_table_index: u8,
    /// Seconds after which lblc forgets a destination that was not used (IPVS's sysctl of this name).
    pub lblc_expiration: u32,
    /// The same for lblcr, and the seconds after which a set of real servers shrinks.
    pub lblcr_expiration: u32,
}

impl Default for SchedulerSettings {
    fn default() -> Self {
        const DAY: u32 = 86_400;
        Self { hash_secret: HashSecret::default(), mh_table_index: 12, lblc_expiration: DAY, lblcr_expiration: DAY }
    }
}

impl SchedulerSettings {
    /// The same with the expirations that are among the sysctls.
    #[must_use]
    pub fn with_expirations(self, sysctls: &Sysctls) -> Self {
        let Sysctls { lblc_expiration, lblcr_expiration, .. } = *sysctls;
        Self { lblc_expiration, lblcr_expiration, ..self }
    }
}

/// A service's scheduler.
#[derive(Clone, Debug)]
pub struct Scheduler {
    kind: SchedulerKind,
    means: Means,
}

/// What it needs beside the list of real servers.
#[derive(Clone, Debug)]
enum Means {
    Nothing,
    Secret(HashSecret),
    Buckets(Arc<Buckets>),
    Locality(Arc<Locality>),
}

impl Scheduler {
    /// A scheduler of a service of one address with these real servers, in the data path's order. It takes some
    /// 100 us with mh, whose tables are made here.
    pub fn new(
        kind: SchedulerKind,
        flags: SchedulerFlags,
        settings: &SchedulerSettings,
        candidates: &[Candidate],
    ) -> Self {
        let secret = settings.hash_secret;
        let buckets = |servers| Means::Buckets(Arc::new(Buckets::new(servers, secret, flags)));
        // Its address is all the destinations that a service has.
        let locality = |expiration| Means::Locality(Arc::new(Locality::new(1, expiration, secret)));
        let means = match kind {
            SchedulerKind::Sh => buckets(sh::buckets(candidates)),
            SchedulerKind::Mh => buckets(mh::buckets(candidates, secret, settings.mh_table_index)),
            SchedulerKind::Dh => Means::Secret(secret),
            SchedulerKind::Lblc => locality(settings.lblc_expiration),
            SchedulerKind::Lblcr => locality(settings.lblcr_expiration),
            _ => Means::Nothing,
        };
        Self { kind, means }
    }

    /// Lets what is remembered of destinations expire as these settings say, from now on, also in tables that workers use
    /// already: what was learnt is kept.
    pub fn set_expiration(&self, settings: &SchedulerSettings) {
        if let Means::Locality(locality) = &self.means {
            let is_lblc = self.kind == SchedulerKind::Lblc;
            locality.set_expiration(if is_lblc { settings.lblc_expiration } else { settings.lblcr_expiration });
        }
    }

    /// Which it is.
    pub fn kind(&self) -> SchedulerKind {
        self.kind
    }

    /// Whether it was made of the real servers, and must be made again when they are others.
    pub fn depends_on_real_servers(&self) -> bool {
        matches!(self.means, Means::Buckets(_))
    }
}

impl PartialEq for Scheduler {
    /// Equal ones choose alike; what lblc and lblcr remember must be the same table.
    fn eq(&self, other: &Self) -> bool {
        let means = match (&self.means, &other.means) {
            (Means::Nothing, Means::Nothing) => true,
            (Means::Secret(one), Means::Secret(other)) => one == other,
            (Means::Buckets(one), Means::Buckets(other)) => one == other,
            (Means::Locality(one), Means::Locality(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        means && self.kind == other.kind
    }
}

impl Eq for Scheduler {}

/// Connections of a real server, summed over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// IPVS's ActiveConn.
    pub active: u64,
    /// IPVS's InActConn.
    pub inactive: u64,
}

impl Load {
    /// What IPVS takes a real server's load to be: 256 times the active connections, and all of them
    /// (include/net/ip_vs.h, `ip_vs_dest_conn_overhead`). Older kernels added the inactive ones in
    /// place of all: there an active one weighs as much as 256 inactive ones, here as 257.
    pub fn overhead(self) -> u64 {
        (self.active << 8) + self.active + self.inactive
    }
}

/// What schedulers ask about real servers.
pub trait Loads {
    /// Connections of a real server now.
    fn load(&self, slot: RealServerSlot) -> Load;
    /// Whether a real server is held back by its upper threshold.
    fn is_overloaded(&self, real_server: &RealServer) -> bool;

    /// Whether a real server takes new sessions.
    #[inline]
    fn is_eligible(&self, real_server: &RealServer) -> bool {
        real_server.weight.0 > 0 && !self.is_overloaded(real_server)
    }
}

/// Those that take new sessions, with their indices.
fn eligible<'s>(servers: &'s [RealServer], loads: &impl Loads) -> impl Iterator<Item = (usize, &'s RealServer)> {
    servers.iter().enumerate().filter(|(_, server)| loads.is_eligible(server))
}

/// A new session that wants a real server.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its client's address and port.
    pub client: (IpAddr, u16),
    /// The address that the client speaks to.
    pub destination: IpAddr,
    /// When.
    pub now: Tick,
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
    /// Turns that a new order begins behind its first one: workers that each have few sessions shall not give them all to
    /// the same real servers.
    ahead: u8,
    /// The state of a generator of random numbers.
    random: u64,
}

impl Cursor {
    /// A cursor of a worker. Who knows `random` and what was chosen since can foresee twos.
    pub fn new(worker: WorkerId, random: u64) -> Self {
        Self { ahead: worker.0, random: random.wrapping_add(u64::from(worker.0) << 32), ..Self::default() }
    }

    /// Chooses a real server for a new session; none if none takes any. `generation` is the service table's.
    pub fn schedule(
        &mut self,
        service: &Service,
        generation: u64,
        arrival: &Arrival,
        loads: &impl Loads,
    ) -> Option<usize> {
        self.follow(service, generation);
        let servers = &service.real_servers;
        match (service.scheduler.kind, &service.scheduler.means) {
            (SchedulerKind::Rr, _) => rr::schedule(self, servers, loads),
            (SchedulerKind::Wrr, _) => wrr::schedule(self, servers, loads),
            (SchedulerKind::Twos, _) => twos::schedule(self, servers, loads),
            (SchedulerKind::Lc, _) => lc::schedule(servers, loads),
            (SchedulerKind::Wlc, _) => wlc::schedule(servers, loads),
            (SchedulerKind::Sed, _) => sed::schedule(servers, loads),
            (SchedulerKind::Nq, _) => nq::schedule(servers, loads),
            (SchedulerKind::Fo, _) => fo::schedule(servers, loads),
            (SchedulerKind::Ovf, _) => ovf::schedule(servers, loads),
            (SchedulerKind::Lblcr, Means::Locality(locality)) => lblcr::schedule(locality, arrival, servers, loads),
            (_, Means::Locality(locality)) => lblc::schedule(locality, arrival, servers, loads),
            (_, Means::Buckets(buckets)) => buckets.choose(arrival.client, servers, loads),
            (_, Means::Secret(secret)) => dh::schedule(*secret, arrival.destination, servers, loads),
            // Every other scheduler is made with its means.
            (_, Means::Nothing) => None,
        }
    }

    /// Looks whether the list is another than at the last call, only once for each table, and goes over to it. Begins anew
    /// for another scheduler, and for another service, which a cursor serves when its own is gone.
    #[inline]
    fn follow(&mut self, service: &Service, generation: u64) {
        if self.generation != generation || self.fingerprint == 0 {
            self.adopt(service, generation);
        }
    }

    fn adopt(&mut self, service: &Service, generation: u64) {
        let of = Some((service.key, service.scheduler.kind));
        let is_new = self.of != of;
        if is_new {
            let was_another = self.of.is_some_and(|(key, _)| key == service.key);
            *self = Self { of, ahead: self.ahead, random: self.random, ..Self::default() };
            // Under the kernel a service is made without real servers, and gets one after the other: that leaves wrr in the
            // lowest pass. A service that goes over to wrr begins with the highest.
            self.current_weight = if was_another { 0 } else { wrr::LOWEST_PASS };
        }
        self.generation = generation;
        if !matches!(service.scheduler.kind, SchedulerKind::Rr | SchedulerKind::Wrr) {
            // The others have no order; they only remember that they were there.
            self.fingerprint = 1;
            return;
        }
        let fingerprint = fingerprint(&service.real_servers);
        if std::mem::replace(&mut self.fingerprint, fingerprint) == fingerprint {
            return;
        }
        let servers = &service.real_servers;
        if service.scheduler.kind == SchedulerKind::Rr {
            self.find_last(servers);
            if is_new && self.ahead > 0 && !servers.is_empty() {
                self.choose(servers, (usize::from(self.ahead) - 1) % servers.len());
            }
            return;
        }
        wrr::reset(self, servers);
        for _turn in 0..self.ahead {
            wrr::schedule(self, servers, &Unloaded);
        }
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

    /// A random number below `end`; 0 if that is 0 (SplitMix64: Steele, Lea, Flood, OOPSLA 2014).
    fn random_below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        u64::try_from((u128::from(mixed) * u128::from(end)) >> 64).unwrap_or(0)
    }
}

/// No real server has anything to do.
struct Unloaded;

impl Loads for Unloaded {
    fn load(&self, _slot: RealServerSlot) -> Load {
        Load::default()
    }

    fn is_overloaded(&self, _real_server: &RealServer) -> bool {
        false
    }
}

/// A number that changes when the list or a weight does; never 0 (FNV-1a over slots and weights).
fn fingerprint(servers: &[RealServer]) -> u64 {
    let words = servers.iter().flat_map(|server| [server.slot.0, server.weight.0]);
    let mix = |hash: u64, word: u32| (hash ^ u64::from(word)).wrapping_mul(0x0100_0000_01b3);
    words.fold(0xcbf2_9ce4_8422_2325, mix) | 1
}
