//! Setting sessions up and ending them, in every forwarding mode.

use std::net::{IpAddr, Ipv6Addr};

use super::fullnat::{Answers, take_local_port};
use super::nat::claim_answers;
use super::plane::{Plane, routed};
use super::{DropReason, Forwarder, Now};
use crate::balance::{ForwardingMode, RealServerSlot};
use crate::flow::{Direction, FlowHash, FlowKey};
use crate::session::{Found, Session, SessionIndex, TableFull};
use crate::telemetry::counters::Counter;

/// A new session.
pub(super) enum SetUp {
    /// In the table of its client's family.
    Plain(Found),
    /// In the table of IPv6, since its real server's is another.
    Mixed(Found),
}

/// What a new session is set up by: an index into the service table's services, or its rules for source NAT.
#[derive(Clone, Copy)]
pub(super) enum By {
    Service(usize),
    Rule(usize),
}

/// Whom a new session is to be with, and how.
pub(super) struct Target {
    pub(super) mode: ForwardingMode,
    /// What it belongs to and is counted by.
    pub(super) slot: RealServerSlot,
    /// The real server's address and port.
    pub(super) real: (IpAddr, u16),
    /// In FULLNAT mode: index into the table's pools, and whose turn among its addresses it is.
    pub(super) pool: Option<usize>,
    pub(super) cursor: usize,
    /// Whether it is a session of source NAT.
    pub(super) snat: bool,
}

impl Forwarder {
    /// Sets up a session for a flow that has none: finds whom it is to be with, takes what that mode needs, enters it. `hash`
    /// is the flow's.
    pub(super) fn set_up<A: Plane>(
        &mut self,
        by: By,
        key: &FlowKey<A>,
        hash: FlowHash,
        now: Now,
    ) -> Result<SetUp, DropReason> {
        let target = match by {
            By::Service(service) => self.real_server(service)?,
            By::Rule(rule) => self.outside(rule, (key.destination().into(), key.destination_port()))?,
        };
        let address = target.real.0;
        if address.is_ipv4() == key.source().into().is_ipv4() {
            return self.enter(&target, key, hash, now).map(SetUp::Plain);
        }
        let key = A::widened(*key);
        let found = self.enter::<Ipv6Addr>(&target, &key, self.sessions.ipv6.hash(&key), now)?;
        self.sessions.mixed += 1;
        Ok(SetUp::Mixed(found))
    }

    /// The real server that serves a service's next session.
    #[inline(always)]
    fn real_server(&mut self, service: usize) -> Result<Target, DropReason> {
        let table = &*self.services;
        let service = table.services.get(service).ok_or(DropReason::NoRealServer)?;
        let server = self.balancer.choose(service, table.generation).ok_or(DropReason::NoRealServer)?;
        let server = service.real_servers.get(server).ok_or(DropReason::NoRealServer)?;
        Ok(Target {
            mode: server.mode,
            slot: server.slot,
            real: (server.address, server.port),
            pool: service.pool,
            cursor: service.cursor,
            snat: false,
        })
    }

    /// Enters a session with whom it is to be with into the table of a family that can say both ends.
    fn enter<A: Plane>(
        &mut self,
        target: &Target,
        key: &FlowKey<A>,
        hash: FlowHash,
        now: Now,
    ) -> Result<Found, DropReason> {
        if A::table(&self.sessions).is_full() {
            return Err(DropReason::SessionTableFull);
        }
        let table = &*self.services;
        let real = (A::of(target.real.0).ok_or(DropReason::NoRealServer)?, target.real.1);
        let (protocol, client) = (key.protocol(), (key.source(), key.source_port()));
        let (local, outbound) = match target.mode {
            ForwardingMode::Fullnat => {
                let pool = target.pool.and_then(|pool| table.pools.get(pool)).ok_or(DropReason::LocalPortsExhausted)?;
                let turn = self.local_turns.get_mut(target.cursor).ok_or(DropReason::LocalPortsExhausted)?;
                let from = Answers { real, protocol };
                take_local_port(&self.sessions, &mut self.local_ports, &self.ownership, pool, turn, from, now.tick)?
            }
            ForwardingMode::Nat => (client, claim_answers(&self.sessions, protocol, real, client)?),
            // No answer passes here.
            ForwardingMode::Dr | ForwardingMode::Tun => (client, FlowHash(0)),
        };
        let session = Session::new(target.mode, key, local, real, target.slot).with_snat(target.snat);
        let end = now.tick.plus(self.timeouts.of(session.state()));
        let entered = A::table_mut(&mut self.sessions).insert_hashed(session, [hash, outbound], end);
        let index = entered.map_err(|TableFull| DropReason::SessionTableFull)?;
        self.count_start(&session);
        Ok(Found { index, direction: Direction::Inbound })
    }

    fn count_start<A: Plane>(&self, session: &Session<A>) {
        A::sessions(&self.counters).add(1);
        self.counters.sessions_created.add(1);
        if let Some(counters) = self.counters.real_servers.get(session.real_server().0 as usize) {
            counters.connections.add(1);
            counters.inactive.add(1);
        }
        self.count_local_port(session, |counter| counter.add(1));
    }

    /// Ends a session: its record and its counts are free again, and with them its local port.
    pub(super) fn end<A: Plane>(&mut self, index: SessionIndex) {
        let session = A::table_mut(&mut self.sessions).remove(index);
        self.ended(&session);
    }

    /// The same for one whose record is free already.
    pub(super) fn ended<A: Plane>(&mut self, session: &Session<A>) {
        self.sessions.mixed -= u32::from(session.is_mixed());
        A::sessions(&self.counters).subtract(1);
        self.counters.sessions_expired.add(1);
        if let Some(counters) = self.counters.real_servers.get(session.real_server().0 as usize) {
            if session.is_active() { counters.active.subtract(1) } else { counters.inactive.subtract(1) }
        }
        self.count_local_port(session, |counter| counter.subtract(1));
    }

    fn count_local_port<A: Plane>(&self, session: &Session<A>, count: impl FnOnce(&Counter)) {
        let slot = session.local_address().and_then(|address| self.services.local_addresses.get(&routed(address)));
        if let Some(counters) = slot.and_then(|slot| self.counters.local_addresses.get(slot.0 as usize)) {
            count(&counters.ports_used);
        }
    }
}
