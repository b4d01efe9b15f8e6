//! FULLNAT: setting sessions up and ending them.

use std::net::Ipv4Addr;

use super::{DropReason, Forwarder, Now};
use crate::balance::{LocalAddress, LocalPool, Protocol};
use crate::flow::{Direction, FlowHash, FlowKey};
use crate::forward::parse::Packet;
use crate::session::local_port::{ByRss, Deal, InTurn, LocalPorts};
use crate::session::{Found, Session, SessionIndex, SessionTable, TableFull, Tick};
use crate::telemetry::counters::Counter;

/// Local ports that one session set-up looks at, at most, over all addresses of its pool: a microsecond or two of work.
const PORTS_TRIED: u32 = 32;
/// ... and of one address at least, before the next one is asked.
const PORTS_TRIED_OF_AN_ADDRESS: u32 = 4;

/// What a session takes of its pool.
struct LocalPort {
    address: Ipv4Addr,
    port: u16,
    /// The hash of the answers' key.
    outbound: FlowHash,
}

/// Where a session's answers will come from.
#[derive(Clone, Copy)]
struct Answers {
    address: Ipv4Addr,
    port: u16,
    protocol: Protocol,
}

impl Forwarder {
    /// Sets up a session for a flow that has none: chooses a real server, takes a local port, enters it.
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
        let pool = table.pools.get(service.pool).ok_or(DropReason::LocalPortsExhausted)?;
        let turn = self.local_turns.get_mut(service.cursor).ok_or(DropReason::LocalPortsExhausted)?;
        let answers = Answers { address: server.address, port: server.port, protocol: packet.key.protocol() };
        let (sessions, ports) = (&self.sessions, &mut self.local_ports);
        let local = match self.ownership.rss(pool.port) {
            None => take_local_port(sessions, ports, pool, turn, answers, now.tick, |_| InTurn)?,
            Some(rss) => take_local_port(sessions, ports, pool, turn, answers, now.tick, |local| ByRss {
                rss,
                answers: rss.answers(answers.address, answers.port, local),
            })?,
        };
        let real = (server.address, server.port);
        let session = Session::new(&packet.key, (local.address, local.port), real, server.slot);
        let end = now.tick.plus(self.timeouts.of(session.state()));
        let entered = self.sessions.insert_hashed(session, [hash, local.outbound], end);
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
        let slot = self.services.local_addresses.get(&session.local_address());
        if let Some(counters) = slot.and_then(|slot| self.counters.local_addresses.get(slot.0 as usize)) {
            count(&counters.ports_used);
        }
    }
}

/// Takes a port of the pool's next address, or of one after it, that has one free towards this real server; looks at
/// [`PORTS_TRIED`] of them, and the next session at others. `turn` is the index of the address taken last; `deal` says
/// which ports of an address are this worker's.
///
/// Part of both of its callers: a call with so much to pass would cost a session's set-up one in a hundred instructions.
#[inline(always)]
fn take_local_port<D: Deal>(
    sessions: &SessionTable,
    ports: &mut LocalPorts,
    pool: &LocalPool,
    turn: &mut usize,
    from: Answers,
    now: Tick,
    deal: impl Fn(Ipv4Addr) -> D,
) -> Result<LocalPort, DropReason> {
    let addresses = pool.addresses.len();
    let each = (PORTS_TRIED / u32::try_from(addresses).unwrap_or(u32::MAX).max(1)).max(PORTS_TRIED_OF_AN_ADDRESS);
    for _address in 0..addresses.min((PORTS_TRIED / each) as usize) {
        *turn = if *turn + 1 < addresses { *turn + 1 } else { 0 };
        let Some(&LocalAddress { address, .. }) = pool.addresses.get(*turn) else { break };
        let answer = |port| FlowKey::new(from.protocol, (from.address, from.port), (address, port));
        let free = |port| {
            let key = answer(port);
            let hash = sessions.hash(&key);
            sessions.find(hash, &key).is_none().then_some(hash)
        };
        let pair = sessions.hash(&answer(0));
        let Some(mut ports) = ports.between(pair, pool.ports, deal(address)) else { continue };
        if let Some((port, outbound)) = ports.take(each, now, free) {
            // What the pair's next session will ask is loaded until then.
            if let Some(next) = ports.peek() {
                sessions.prefetch(sessions.hash(&answer(next)));
            }
            return Ok(LocalPort { address, port, outbound });
        }
    }
    Err(DropReason::LocalPortsExhausted)
}
