//! FULLNAT: the local address and port that a new session gets towards its real server.

use super::DropReason;
use crate::balance::{LocalPool, Protocol};
use crate::flow::ownership::Ownership;
use crate::flow::{FlowHash, FlowKey};
use crate::session::local_port::{ByRss, Deal, InTurn, LocalPorts};
use crate::session::{Tabled, Tables, Tick};

/// Local ports that one session set-up looks at, at most, over all addresses of its pool: a microsecond or two of work.
const PORTS_TRIED: u32 = 32;
/// ... and of one address at least, before the next one is asked.
const PORTS_TRIED_OF_AN_ADDRESS: u32 = 4;

/// Where a session's answers will come from.
#[derive(Clone, Copy)]
pub(super) struct Answers<A> {
    pub(super) real: (A, u16),
    pub(super) protocol: Protocol,
}

/// Takes a port of the pool's next address of the real server's family, or of one after it, that is this worker's and free
/// towards this real server. `turn` is the index of the address taken last. Gives address and port, and the hash of the
/// key that answers to them have.
#[inline(always)]
pub(super) fn take_local_port<A: Tabled>(
    sessions: &Tables,
    ports: &mut LocalPorts,
    ownership: &Ownership,
    pool: &LocalPool,
    turn: &mut usize,
    from: Answers<A>,
    now: Tick,
) -> Result<((A, u16), FlowHash), DropReason> {
    let search = Search { sessions, pool, from, now };
    match ownership.rss(pool.port, from.protocol) {
        None => search.take(ports, turn, |_| InTurn),
        Some(rss) => {
            search.take(ports, turn, |local| ByRss { rss, answers: rss.answers(from.real.0, from.real.1, local) })
        }
    }
}

/// What a port is looked for in and for.
struct Search<'a, A> {
    sessions: &'a Tables,
    pool: &'a LocalPool,
    from: Answers<A>,
    now: Tick,
}

impl<A: Tabled> Search<'_, A> {
    /// Looks at [`PORTS_TRIED`] ports, and the next session at others; `deal` says which ports of an address are this
    /// worker's.
    ///
    /// Part of both of its callers: a call with so much to pass would cost a session's set-up one in a hundred
    /// instructions.
    #[inline(always)]
    fn take<D: Deal>(
        &self,
        ports: &mut LocalPorts,
        turn: &mut usize,
        deal: impl Fn(A) -> D,
    ) -> Result<((A, u16), FlowHash), DropReason> {
        let of_family = self.pool.addresses_for(self.from.real.0.into());
        let addresses = of_family.len();
        let each = (PORTS_TRIED / u32::try_from(addresses).unwrap_or(u32::MAX).max(1)).max(PORTS_TRIED_OF_AN_ADDRESS);
        for _address in 0..addresses.min((PORTS_TRIED / each) as usize) {
            *turn = if *turn + 1 < addresses { *turn + 1 } else { 0 };
            let Some(address) = of_family.get(*turn).and_then(|local| A::of(local.address)) else { break };
            let answer = |port| FlowKey::new(self.from.protocol, self.from.real, (address, port));
            let pair = self.sessions.hash(&answer(0));
            let Some(mut ports) = ports.between(pair, self.pool.ports, deal(address)) else { continue };
            if let Some((port, outbound)) = ports.take(each, self.now, |port| A::unused(self.sessions, &answer(port))) {
                // What the pair's next session will ask is loaded until then.
                if let Some(next) = ports.peek() {
                    let table = A::table(self.sessions);
                    table.prefetch(table.hash(&answer(next)));
                }
                return Ok(((address, port), outbound));
            }
        }
        Err(if addresses == 0 { DropReason::NoLocalAddress } else { DropReason::LocalPortsExhausted })
    }
}
