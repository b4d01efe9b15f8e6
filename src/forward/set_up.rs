//! Setting sessions up and ending them, in every forwarding mode.

use std::net::Ipv6Addr;

use super::fullnat::{Answers, take_local_port};
use super::nat::claim_answers;
use super::persistent::Chosen;
use super::plane::{Plane, routed};
use super::{DropReason, Forwarder, Now};
use crate::balance::scheduler::Arrival;
use crate::balance::{ForwardingMode, Persistence, TemplateError, TemplateIndex};
use crate::flow::{Direction, FlowHash, FlowKey};
use crate::session::{Found, Session, SessionIndex, TableFull};
use crate::telemetry::counters::Counter;

/// A new session.
#[derive(Clone, Copy)]
pub(super) enum SetUp {
    /// In the table of its client's family.
    Plain(Found),
    /// In the table of IPv6, since its real server's is another.
    Mixed(Found),
}

impl Forwarder {
    /// Sets up a session for a flow that has none: chooses a real server, takes what its mode needs, enters it.
    /// `service` is an index into the service table, `hash` the flow's.
    pub(super) fn set_up<A: Plane>(
        &mut self,
        service: usize,
        key: &FlowKey<A>,
        hash: FlowHash,
        now: Now,
    ) -> Result<SetUp, DropReason> {
        let table = &*self.services;
        let of_service = table.services.get(service).ok_or(DropReason::NoRealServer)?;
        let client = key.source().into();
        let arrival =
            Arrival { client: (client, key.source_port()), destination: key.destination().into(), now: now.tick };
        if let Some(persistence) = of_service.persistence {
            return self.set_up_persistent((service, persistence), key, hash, &arrival, now);
        }
        let server = self.balancer.choose(table, service, &arrival).ok_or(DropReason::NoRealServer)?;
        let address = of_service.real_servers.get(server).ok_or(DropReason::NoRealServer)?.address;
        if address.is_ipv4() == client.is_ipv4() {
            return self.enter((service, server), None, key, hash, now).map(SetUp::Plain);
        }
        self.enter_mixed((service, server), None, &A::widened(*key), now)
    }

    /// The same for a service with persistence.
    #[inline(never)]
    fn set_up_persistent<A: Plane>(
        &mut self,
        (service, persistence): (usize, Persistence),
        key: &FlowKey<A>,
        hash: FlowHash,
        arrival: &Arrival,
        now: Now,
    ) -> Result<SetUp, DropReason> {
        let table = &*self.services;
        let chosen = self.balancer.choose_persistent(table, service, persistence, arrival);
        let Chosen { server, template, missed } = chosen.ok_or(DropReason::NoRealServer)?;
        let real_server = table.services.get(service).and_then(|service| service.real_servers.get(server));
        let is_mixed = real_server.is_some_and(|real| real.address.is_ipv4() != arrival.client.0.is_ipv4());
        match missed {
            None => {}
            Some(TemplateError::Full) => self.counters.templates_full.add(1),
            Some(TemplateError::Busy) => self.counters.templates_busy.add(1),
        }
        let entered = match is_mixed {
            false => self.enter((service, server), template, key, hash, now).map(SetUp::Plain),
            true => self.enter_mixed((service, server), template, &A::widened(*key), now),
        };
        if let (Err(_), Some(template)) = (&entered, template) {
            self.services.templates.release(template);
        }
        entered
    }

    /// Enters a session one side of which is of another family.
    #[inline(never)]
    fn enter_mixed(
        &mut self,
        place: (usize, usize),
        template: Option<TemplateIndex>,
        key: &FlowKey<Ipv6Addr>,
        now: Now,
    ) -> Result<SetUp, DropReason> {
        let found = self.enter(place, template, key, self.sessions.ipv6.hash(key), now)?;
        self.sessions.mixed += 1;
        Ok(SetUp::Mixed(found))
    }

    /// Enters a session with a real server of a service, by their indices, into the table of a family that can say both.
    ///
    /// Part of its callers, so that a session without a template costs what it would without templates.
    #[inline(always)]
    fn enter<A: Plane>(
        &mut self,
        (service, server): (usize, usize),
        template: Option<TemplateIndex>,
        key: &FlowKey<A>,
        hash: FlowHash,
        now: Now,
    ) -> Result<Found, DropReason> {
        let table = &*self.services;
        let service = table.services.get(service).ok_or(DropReason::NoRealServer)?;
        let server = service.real_servers.get(server).ok_or(DropReason::NoRealServer)?;
        if A::table(&self.sessions).is_full() {
            return Err(DropReason::SessionTableFull);
        }
        let real = (A::of(server.address).ok_or(DropReason::NoRealServer)?, server.port_for(key.destination_port()));
        let (protocol, client) = (key.protocol(), (key.source(), key.source_port()));
        let (local, outbound) = match server.mode {
            ForwardingMode::Fullnat => {
                let pool = service.pool.and_then(|pool| table.pools.get(pool)).ok_or(DropReason::NoLocalAddress)?;
                let turn = self.local_turns.get_mut(service.cursor).ok_or(DropReason::LocalPortsExhausted)?;
                let from = Answers { real, protocol };
                take_local_port(&self.sessions, &mut self.local_ports, &self.ownership, pool, turn, from, now.tick)?
            }
            ForwardingMode::Nat => (client, claim_answers(&self.sessions, protocol, real, client)?),
            // No answer passes here.
            ForwardingMode::Dr | ForwardingMode::Tun => (client, FlowHash(0)),
        };
        let session = Session::new(server.mode, key, local, real, server.slot).with_template(template);
        if server.upper_threshold == 0 {
            return self.start(session, [hash, outbound], now);
        }
        let server = server.clone();
        let found = self.start(session, [hash, outbound], now)?;
        self.balancer.look_at(&self.services, &server);
        Ok(found)
    }

    /// Enters a session by the hashes of its keys, and counts it.
    #[inline(always)]
    pub(super) fn start<A: Plane>(
        &mut self,
        session: Session<A>,
        hashes: [FlowHash; 2],
        now: Now,
    ) -> Result<Found, DropReason> {
        let end = now.tick.plus(self.timeouts.of(session.state()));
        let entered = A::table_mut(&mut self.sessions).insert_hashed(session, hashes, end);
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
        if let Some(template) = session.template() {
            self.services.templates.release(template);
        }
    }

    fn count_local_port<A: Plane>(&self, session: &Session<A>, count: impl FnOnce(&Counter)) {
        let slot = session.local_address().and_then(|address| self.services.local_addresses.get(&routed(address)));
        if let Some(counters) = slot.and_then(|slot| self.counters.local_addresses.get(slot.0 as usize)) {
            count(&counters.ports_used);
        }
    }
}
