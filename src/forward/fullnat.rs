//! FULLNAT: setting sessions up and ending them.

use std::net::Ipv4Addr;

use super::{DropReason, Forwarder, Now};
use crate::balance::{LocalPool, Protocol, RealServer};
use crate::flow::Direction;
use crate::forward::parse::Packet;
use crate::session::local_port::{LocalPorts, Pair, PairIndex};
use crate::session::{Found, Session, SessionIndex, TableFull};
use crate::telemetry::counters::Counter;

/// Addresses of a pool that one session set-up asks for a port at most.
const ADDRESSES_TRIED: usize = 64;

/// What a session holds of its pool.
struct LocalPort {
    address: Ipv4Addr,
    port: u16,
    pair: PairIndex,
}

impl Forwarder {
    /// Sets up a session for a flow that has none: chooses a real server, takes a local port, enters it.
    /// `service` is an index into the service table.
    pub(super) fn set_up(&mut self, service: usize, packet: &Packet, now: Now) -> Result<Found, DropReason> {
        let table = &*self.services;
        let service = table.services.get(service).ok_or(DropReason::NoRealServer)?;
        let server = self.balancer.choose(service, table.generation).ok_or(DropReason::NoRealServer)?;
        let pool = table.pools.get(service.pool).ok_or(DropReason::LocalPortsExhausted)?;
        let turn = self.local_turns.get_mut(service.cursor).ok_or(DropReason::LocalPortsExhausted)?;
        let start = self.seed.hash(&packet.key).low_bits();
        let local = take_local_port(&mut self.local_ports, pool, turn, server, packet.key.protocol(), start)?;
        let real = (server.address, server.port);
        let session = Session::new(&packet.key, (local.address, local.port), real, server.slot, local.pair);
        let end = now.tick.plus(self.timeouts.of(session.state()));
        match self.sessions.insert(session, end) {
            Ok(index) => {
                self.count_start(&session);
                Ok(Found { index, direction: Direction::Inbound })
            }
            Err(TableFull) => {
                self.local_ports.release(local.pair, local.port, now.tick);
                Err(DropReason::SessionTableFull)
            }
        }
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

    /// Ends a session: its record, its local port and its counts are free again.
    pub(super) fn end(&mut self, index: SessionIndex, now: Now) {
        let session = self.sessions.remove(index);
        self.ended(&session, now);
    }

    /// The same for one whose record is free already.
    pub(super) fn ended(&mut self, session: &Session, now: Now) {
        self.local_ports.release(session.pair(), session.local_port(), now.tick);
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

/// Takes a port of the pool's next address, or of the first after it that has one left towards this real server;
/// looks at [`ADDRESSES_TRIED`] of them, and the next session at the ones after those.
///
/// `turn` is the index of the address taken last, `start` a random number for ports (see [`LocalPorts::allocate`]).
fn take_local_port(
    ports: &mut LocalPorts,
    pool: &LocalPool,
    turn: &mut usize,
    server: &RealServer,
    protocol: Protocol,
    start: u32,
) -> Result<LocalPort, DropReason> {
    let count = pool.addresses.len();
    for step in 1..=count.min(ADDRESSES_TRIED) {
        let index = (*turn + step) % count;
        let address = pool.addresses[index].address;
        let pair = Pair { local: address, real: server.address, real_port: server.port, protocol };
        if let Some((port, pair)) = ports.allocate(pair, pool.ports, start) {
            *turn = index;
            return Ok(LocalPort { address, port, pair });
        }
    }
    *turn = (*turn + ADDRESSES_TRIED.min(count)) % count.max(1);
    Err(DropReason::LocalPortsExhausted)
}
