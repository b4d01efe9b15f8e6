//! What sh and mh have in common: a table made when real servers change, of which a client's hash names a place.

use std::net::{IpAddr, SocketAddr};

use super::kind::SchedulerFlags;
use super::secret::{HashSecret, Purpose};
use super::{Loads, RealServer};
use crate::balance::Weight;

/// What is known of a real server when a table is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its address and port.
    pub address: SocketAddr,
    /// Its weight.
    pub weight: Weight,
    /// The weight last set that was not 0; 0 if it never had one.
    pub last_weight: Weight,
}

impl From<&RealServer> for Candidate {
    /// One that has its weight for the first time.
    fn from(server: &RealServer) -> Self {
        let address = SocketAddr::new(server.address, server.port);
        Self { address, weight: server.weight, last_weight: server.weight }
    }
}

/// The table, and how a client's place in it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Buckets {
    /// Indices into the service's list of real servers.
    servers: Box<[u32]>,
    secret: HashSecret,
    flags: SchedulerFlags,
}

impl Buckets {
    pub(super) fn new(servers: Vec<u32>, secret: HashSecret, flags: SchedulerFlags) -> Self {
        Self { servers: servers.into(), secret, flags }
    }

    /// The real server of a client; where that takes no sessions, nobody, or with the flag for it the next one that does:
    /// the hash is made anew with the numbers from the first place on, as often as there are places.
    pub(super) fn choose(
        &self,
        (address, port): (IpAddr, u16),
        servers: &[RealServer],
        loads: &impl Loads,
    ) -> Option<usize> {
        let client = (address, if self.flags.uses_port() { port } else { 0 });
        let size = u32::try_from(self.servers.len()).ok().filter(|&size| size > 0)?;
        let place = |attempt| u32::try_from(self.secret.hash(Purpose::Client, client, attempt) % u64::from(size)).ok();
        let takes = |index: &usize| servers.get(*index).is_some_and(|server| loads.is_eligible(server));
        let first = place(0)?;
        let chosen = self.at(first).filter(takes);
        if chosen.is_some() || !self.flags.falls_back() || !servers.iter().any(|server| loads.is_eligible(server)) {
            return chosen;
        }
        let mut attempts = (0..size).map(|offset| (first + offset) % size);
        attempts.find_map(|attempt| self.at(place(attempt)?).filter(takes))
    }

    fn at(&self, place: u32) -> Option<usize> {
        self.servers.get(place as usize).map(|&index| index as usize)
    }
}
