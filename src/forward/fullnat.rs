//! FULLNAT: the local address and port that a new session gets towards its real server.

use super::DropReason;
use crate::balance::{LocalPool, Protocol};
use crate::flow::{FlowHash, FlowKey};
use crate::session::local_port::LocalPorts;
use crate::session::{Tabled, Tables, Tick};

/// Local ports that one session set-up looks at, at most, over all addresses of its pool: a microsecond or two of work.
const PORTS_TRIED: u32 = 32;
/// ... and of one address at least, before the next one is asked.
const PORTS_TRIED_OF_AN_ADDRESS: u32 = 4;

/// Takes a port of the pool's next address of the real server's family, or of one after it, that has one free towards
/// this real server; looks at [`PORTS_TRIED`] of them, and the next session at others. `turn` is the index of the address
/// taken last. Gives address and port, and the hash of the key that answers to them have.
pub(super) fn take_local_port<A: Tabled>(
    sessions: &Tables,
    ports: &mut LocalPorts,
    pool: &LocalPool,
    turn: &mut usize,
    protocol: Protocol,
    real: (A, u16),
    now: Tick,
) -> Result<((A, u16), FlowHash), DropReason> {
    let of_family = pool.addresses_for(real.0.into());
    let addresses = of_family.len();
    let each = (PORTS_TRIED / u32::try_from(addresses).unwrap_or(u32::MAX).max(1)).max(PORTS_TRIED_OF_AN_ADDRESS);
    for _address in 0..addresses.min((PORTS_TRIED / each) as usize) {
        *turn = if *turn + 1 < addresses { *turn + 1 } else { 0 };
        let Some(address) = of_family.get(*turn).and_then(|local| A::of(local.address)) else { break };
        let answer = |port| FlowKey::new(protocol, real, (address, port));
        let pair = sessions.hash(&answer(0));
        if let Some((port, outbound)) =
            ports.take(pair, pool.ports, each, now, |port| A::unused(sessions, &answer(port)))
        {
            // What the pair's next session will ask is loaded until then.
            if let Some(next) = ports.next(pair, pool.ports) {
                let table = A::table(sessions);
                table.prefetch(table.hash(&answer(next)));
            }
            return Ok(((address, port), outbound));
        }
    }
    Err(DropReason::LocalPortsExhausted)
}
