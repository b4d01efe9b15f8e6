//! Setting sessions up and ending them, in every forwarding mode.

use super::fullnat::take_local_port;
use super::nat::claim_answers;
use super::parse::Packet;
use super::{DropReason, Forwarder, Now};
use crate::balance::ForwardingMode;
use crate::flow::{Direction, FlowHash};
use crate::session::{Found, Session, SessionIndex, TableFull};
use crate::telemetry::counters::Counter;

impl Forwarder {
    /// Sets up a session for a flow that has none: chooses a real server, takes what its mode needs, enters it.
    /// `service` is an index into the service table, `hash` the flow's.
    pub(super) fn set_up(
        &mut self,
        service: usize,
        packet: &Packet,
        hash: FlowHash,
        now: Now,
    ) -> Result<Found, DropReason> {
        let table = &*self.services;
        let service = table.services.get(service).ok_or(DropReason::NoRealServer)?;
        let server = self.balancer.choose(service, table.generation).ok_or(DropReason::NoRealServer)?;
        if self.sessions.is_full() {
            return Err(DropReason::SessionTableFull);
        }
        let (protocol, client) = (packet.key.protocol(), (packet.key.source(), packet.key.source_port()));
        let (local, outbound) = match server.mode {
            ForwardingMode::Fullnat => {
                let pool =
                    service.pool.and_then(|pool| table.pools.get(pool)).ok_or(DropReason::LocalPortsExhausted)?;
                let turn = self.local_turns.get_mut(service.cursor).ok_or(DropReason::LocalPortsExhausted)?;
                take_local_port(&self.sessions, &mut self.local_ports, pool, turn, server, protocol, now.tick)?
            }
            ForwardingMode::Nat => (client, claim_answers(&self.sessions, protocol, server, client)?),
            // No answer passes here.
            ForwardingMode::Dr | ForwardingMode::Tun => (client, FlowHash(0)),
        };
        let session = Session::new(server.mode, &packet.key, local, (server.address, server.port), server.slot);
        let end = now.tick.plus(self.timeouts.of(session.state()));
        let entered = self.sessions.insert_hashed(session, [hash, outbound], end);
        let index = entered.map_err(|TableFull| DropReason::SessionTableFull)?;
        self.count_start(&session);
        Ok(Found { index, direction: Direction::Inbound })
    }

    fn count_start(&self, session: &Session) {
        self.counters.sessions.add(1);
        self.counters.sessions_created.add(1);
        if let Some(counters) = self.counters.real_servers.get(session.real_server().0 as usize) {
            counters.connections.add(1);
            counters.inactive.add(1);
        }
        self.count_local_port(session, |counter| counter.add(1));
    }

    /// Ends a session: its record and its counts are free again, and with them its local port.
    pub(super) fn end(&mut self, index: SessionIndex) {
        let session = self.sessions.remove(index);
        self.ended(&session);
    }

    /// The same for one whose record is free already.
    pub(super) fn ended(&mut self, session: &Session) {
        self.counters.sessions.subtract(1);
        self.counters.sessions_expired.add(1);
        if let Some(counters) = self.counters.real_servers.get(session.real_server().0 as usize) {
            if session.is_active() { counters.active.subtract(1) } else { counters.inactive.subtract(1) }
        }
        self.count_local_port(session, |counter| counter.subtract(1));
    }

    fn count_local_port(&self, session: &Session, count: impl FnOnce(&Counter)) {
        let slot = session.local_address().and_then(|address| self.services.local_addresses.get(&address));
        if let Some(counters) = slot.and_then(|slot| self.counters.local_addresses.get(slot.0 as usize)) {
            count(&counters.ports_used);
        }
    }
}
