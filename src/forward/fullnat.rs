//! FULLNAT: the local address and port that a new session gets towards its real server.

use std::net::Ipv4Addr;

use super::DropReason;
use crate::balance::{LocalAddress, LocalPool, Protocol, RealServer};
use crate::flow::{FlowHash, FlowKey};
use crate::session::local_port::LocalPorts;
use crate::session::{SessionTable, Tick};

/// Local ports that one session set-up looks at, at most, over all addresses of its pool: a microsecond or two of work.
const PORTS_TRIED: u32 = 32;
/// ... and of one address at least, before the next one is asked.
const PORTS_TRIED_OF_AN_ADDRESS: u32 = 4;

/// Takes a port of the pool's next address, or of one after it, that has one free towards this real server; looks at
/// [`PORTS_TRIED`] of them, and the next session at others. `turn` is the index of the address taken last. Gives address
/// and port, and the hash of the key that answers to them have.
pub(super) fn take_local_port(
    sessions: &SessionTable,
    ports: &mut LocalPorts,
    pool: &LocalPool,
    turn: &mut usize,
    server: &RealServer,
    protocol: Protocol,
    now: Tick,
) -> Result<((Ipv4Addr, u16), FlowHash), DropReason> {
    let addresses = pool.addresses.len();
    let each = (PORTS_TRIED / u32::try_from(addresses).unwrap_or(u32::MAX).max(1)).max(PORTS_TRIED_OF_AN_ADDRESS);
    for _address in 0..addresses.min((PORTS_TRIED / each) as usize) {
        *turn = if *turn + 1 < addresses { *turn + 1 } else { 0 };
        let Some(&LocalAddress { address, .. }) = pool.addresses.get(*turn) else { break };
        let answer = |port| FlowKey::new(protocol, (server.address, server.port), (address, port));
        let free = |port| {
            let key = answer(port);
            let hash = sessions.hash(&key);
            sessions.find(hash, &key).is_none().then_some(hash)
        };
        let pair = sessions.hash(&answer(0));
        if let Some((port, outbound)) = ports.take(pair, pool.ports, each, now, free) {
            // What the pair's next session will ask is loaded until then.
            if let Some(next) = ports.next(pair, pool.ports) {
                sessions.prefetch(sessions.hash(&answer(next)));
            }
            return Ok(((address, port), outbound));
        }
    }
    Err(DropReason::LocalPortsExhausted)
}
