//! What a forwarded packet does to counters, to its session's state, and to that session's end.

use super::parse::Packet;
use super::plane::Plane;
use super::{Forwarder, Now};
use crate::balance::{Protocol, RealServerSlot};
use crate::flow::{Address, Direction};
use crate::session::{Found, Seen, SessionIndex, State};
use crate::wire::sctp::Event;
use crate::wire::tcp::Flags;

impl Forwarder {
    /// Counts a forwarded packet, and lets it move the session's state and end. `PLAIN`: it is what parsing has found to be plain.
    #[inline(always)]
    pub(super) fn account<const ONE_WAY: bool, const PLAIN: bool, A: Plane>(
        &mut self,
        found: Found,
        server: RealServerSlot,
        packet: &Packet<impl Address>,
        now: Now,
    ) {
        self.count(found.direction, server, packet.total_len);
        let session = A::table_mut(&mut self.sessions).session_mut(found.index);
        let before = session.state();
        let after = match packet.key.protocol() {
            // Plain packets are no SYNs, and what others do differs only where it changes the state.
            Protocol::Tcp if !PLAIN && self.defence.secures_tcp => {
                before.after_secured(Seen::new(ONE_WAY, found.direction), packet.flags)
            }
            Protocol::Tcp => before.after(Seen::new(ONE_WAY, found.direction), packet.flags),
            Protocol::Sctp if !PLAIN => {
                before.after_sctp(Seen::new(ONE_WAY, found.direction), Event::from_flags(packet.flags))
            }
            // No plain packet is one of SCTP, and echo messages come by another way.
            Protocol::Udp | Protocol::Sctp | Protocol::Icmp | Protocol::Any => State::Udp,
        };
        if after != before {
            return self.change_state::<ONE_WAY, PLAIN, A>(found, after, packet.flags, now);
        }
        A::table_mut(&mut self.sessions).set_end(found.index, now.tick.plus(self.timeouts.of(after)));
    }

    /// Moves a session to another state, or the one that it has instead with `secure_tcp`; with it the session moves between its real
    /// server's active and inactive connections, and so does its end.
    #[cold]
    #[inline(never)]
    fn change_state<const ONE_WAY: bool, const PLAIN: bool, A: Plane>(
        &mut self,
        found: Found,
        state: State,
        flags: Flags,
        now: Now,
    ) {
        let session = A::table_mut(&mut self.sessions).session_mut(found.index);
        let is_secured = PLAIN && self.defence.secures_tcp && session.is_tcp();
        let seen = Seen::new(ONE_WAY, found.direction);
        let state = if is_secured { session.state().after_secured(seen, flags) } else { state };
        session.set_state(state);
        self.count_activity::<A>(found.index, state);
        A::table_mut(&mut self.sessions).set_end(found.index, now.tick.plus(self.timeouts.of(state)));
    }

    /// The same for a fragment that is not the first: it moves no state.
    pub(super) fn account_later<A: Plane>(
        &mut self,
        found: Found,
        server: RealServerSlot,
        packet: &Packet<impl Address>,
        now: Now,
    ) {
        self.count(found.direction, server, packet.total_len);
        let state = A::table(&self.sessions).session(found.index).state();
        A::table_mut(&mut self.sessions).set_end(found.index, now.tick.plus(self.timeouts.of(state)));
    }

    /// One of both.
    #[inline(always)]
    pub(super) fn account_piece<const LATER: bool, const ONE_WAY: bool, const PLAIN: bool, A: Plane>(
        &mut self,
        found: Found,
        server: RealServerSlot,
        packet: &Packet<impl Address>,
        now: Now,
    ) {
        if LATER {
            self.account_later::<A>(found, server, packet, now);
        } else {
            self.account::<ONE_WAY, PLAIN, A>(found, server, packet, now);
        }
    }

    /// Counts a forwarded packet of so many bytes.
    #[inline(always)]
    pub(super) fn count(&self, direction: Direction, server: RealServerSlot, total_len: u16) {
        let Some(counters) = self.counters.real_servers.get(server.0 as usize) else { return };
        let traffic = match direction {
            Direction::Inbound => &counters.inbound,
            Direction::Outbound => &counters.outbound,
        };
        traffic.packets.add(1);
        traffic.bytes.add(total_len.into());
    }

    /// Moves a session between its real server's active and inactive connections, as its state says; and its template knows of one that
    /// is established.
    fn count_activity<A: Plane>(&mut self, index: SessionIndex, state: State) {
        let session = A::table_mut(&mut self.sessions).session_mut(index);
        if let (State::Established | State::SctpEstablished, Some(template)) = (state, session.template()) {
            self.services.templates.assure(template);
        }
        if session.is_active() == state.is_active() {
            return;
        }
        session.set_active(state.is_active());
        let Some(counters) = self.counters.real_servers.get(session.real_server().0 as usize) else { return };
        let (grows, shrinks) = if state.is_active() {
            (&counters.active, &counters.inactive)
        } else {
            (&counters.inactive, &counters.active)
        };
        grows.add(1);
        shrinks.subtract(1);
    }
}
