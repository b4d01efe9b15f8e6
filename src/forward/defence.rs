//! IPVS's defence strategies against floods (net/netfilter/ipvs/ip_vs_ctl.c, `update_defense_level`; ip_vs_conn.c,
//! `ip_vs_random_dropentry`): what each worker does when its sessions' room becomes scarce, or always.
//!
//! What runs out is the session table, so its free sessions take the place of the kernel's free memory. The level is looked at
//! between bursts, ten times a second; the fast path knows nothing of it. Ending sessions is done in steps as expiry is.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::plane::Plane;
use super::{Forwarder, Now};
use crate::balance::{Strategy, Sysctls};
use crate::session::{Session, SessionTable, State, Tick};

/// The kernel looks at one in so many of its connections a second (`ip_vs_random_dropentry`).
const SHARE_A_SECOND: u32 = 32;
/// Records that one step looks at, in no cache: some microseconds.
const STEP: u32 = 16;
/// Records that one turn looks at, unless it has set up more sessions.
const TURN_MOST: u32 = 64;
/// A session of a protocol without a handshake that has been silent for so long may end (`todrop_entry`).
const SILENT_SECONDS: u32 = 60;

/// How a worker defends itself now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Defence {
    /// Whether any table has had too few free sessions, and has not recovered since.
    is_scarce: bool,
    /// Whether sessions that are only half there end before their time.
    drops_entries: bool,
    /// Whether TCP sessions go by the states that trust clients less.
    pub(super) secures_tcp: bool,
    /// One in so many packets that would begin a session is dropped; 0: none.
    drop_rate: u32,
    /// ... and the next one after so many.
    countdown: u32,
    /// By table: records that are to be looked at in this tick.
    shares: [u32; 2],
    /// By table: the record that is looked at next.
    hands: [u32; 2],
    /// By table: whether the turn before found sessions to end.
    finds: [bool; 2],
}

impl Defence {
    // Bits of what the worker's counters tell of it: by strategy, whether it is active.
    const DROP_ENTRY: u64 = 1;
    const DROP_PACKET: u64 = 2;
    const SECURE_TCP: u64 = 4;

    /// Goes over to what the sysctls say where sessions are so scarce in the tables; gives the bits of what is active then.
    fn look(&mut self, sysctls: &Sysctls, tables: [Scarce; 2]) -> u64 {
        self.is_scarce = match self.is_scarce {
            true => !tables.into_iter().all(Scarce::is_over),
            false => tables.into_iter().any(|table| table.missing() > 0),
        };
        let is_active = |strategy| match strategy {
            Strategy::Off => false,
            Strategy::Automatic => self.is_scarce,
            Strategy::Always => true,
        };
        let [ipv4, ipv6] = tables.map(Scarce::drop_rate);
        let scarcest = if ipv4 == 0 || ipv6 == 0 { ipv4.max(ipv6) } else { ipv4.min(ipv6) };
        self.drop_rate = match sysctls.drop_packet {
            Strategy::Off => 0,
            Strategy::Automatic => scarcest,
            Strategy::Always => sysctls.am_droprate,
        };
        self.drops_entries = is_active(sysctls.drop_entry);
        self.secures_tcp = is_active(sysctls.secure_tcp);
        // Not begun anew, or few packets a tick would never be dropped.
        self.countdown = self.countdown.min(self.drop_rate);
        let bits = [
            (self.drops_entries, Self::DROP_ENTRY),
            (self.drop_rate > 0, Self::DROP_PACKET),
            (self.secures_tcp, Self::SECURE_TCP),
        ];
        bits.into_iter().filter(|(active, _)| *active).fold(0, |bits, (_, bit)| bits | bit)
    }

    /// Whether a packet that would begin a session is to be dropped: one in [`Self::drop_rate`] is.
    #[inline]
    pub(super) fn drops_packet(&mut self) -> bool {
        self.drop_rate > 0 && self.is_its_turn()
    }

    #[cold]
    fn is_its_turn(&mut self) -> bool {
        self.countdown = self.countdown.saturating_sub(1);
        let is_its_turn = self.countdown == 0;
        if is_its_turn {
            self.countdown = self.drop_rate;
        }
        is_its_turn
    }
}

/// How scarce a table's free sessions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scarce {
    capacity: u32,
    free: u32,
    wanted: u32,
}

impl Scarce {
    fn of<A: Plane>(table: &SessionTable<A>, percent: u32) -> Self {
        let capacity = table.capacity();
        let wanted = u64::from(capacity) * u64::from(percent) / 100;
        let wanted = u32::try_from(wanted).unwrap_or(capacity).max(1);
        Self { capacity, free: capacity - table.len(), wanted }
    }

    fn missing(self) -> u32 {
        self.wanted.saturating_sub(self.free)
    }

    /// Whether enough is free, and a quarter more or all: that ends what scarcity has begun. The strategies themselves free no more than is
    /// wanted, and would else end and begin ten times a second while a flood goes on.
    fn is_over(self) -> bool {
        self.free >= self.wanted.saturating_add(self.wanted / 4).min(self.capacity)
    }

    /// The kernel's formula: all packets where nothing is free, one in many where nearly enough is, none where enough is.
    fn drop_rate(self) -> u32 {
        self.wanted.checked_div(self.missing()).unwrap_or(0)
    }
}

/// The strategies, by their sysctls' names, and of each whether it is among those whose bits are set in what a worker counts
/// (`WorkerCounters::defence`).
pub fn strategies(bits: u64) -> [(&'static str, bool); 3] {
    let all = [
        (Defence::DROP_ENTRY, "drop_entry"),
        (Defence::DROP_PACKET, "drop_packet"),
        (Defence::SECURE_TCP, "secure_tcp"),
    ];
    all.map(|(bit, name)| (name, bits & bit != 0))
}

impl Forwarder {
    /// Looks how scarce sessions are, and defends itself accordingly: once a tick.
    pub fn begin_defence(&mut self) {
        let sysctls = self.services.sysctls;
        let percent = sysctls.defence_free_percent;
        let tables = [
            Scarce::of::<Ipv4Addr>(&self.sessions.ipv4, percent),
            Scarce::of::<Ipv6Addr>(&self.sessions.ipv6, percent),
        ];
        let active = self.defence.look(&sysctls, tables);
        self.counters.defence.set(active);
        let capacities = [self.sessions.ipv4.capacity(), self.sessions.ipv6.capacity()];
        self.defence.shares = capacities.map(|capacity| capacity.div_ceil(SHARE_A_SECOND * Tick::PER_SECOND));
    }

    /// Ends some sessions that are only half there, if it is time to: a step that is bounded by what one turn may take and by how
    /// many sessions this turn has set up.
    #[inline]
    pub fn drop_entries(&mut self, created: u64, now: Now) {
        if self.defence.drops_entries {
            self.drop_entries_of::<Ipv4Addr>(0, created, now);
            self.drop_entries_of::<Ipv6Addr>(1, created, now);
        }
    }

    /// The hand goes round the table: where sessions are scarce, as far as it takes for enough to be free again, and 1/32 of
    /// it a second anyhow. So those that are only half there last for as long as a round takes: the faster they come, the shorter.
    #[cold]
    fn drop_entries_of<A: Plane>(&mut self, table: usize, created: u64, now: Now) {
        let percent = self.services.sysctls.defence_free_percent;
        let created = u32::try_from(created).unwrap_or(u32::MAX);
        // Where nothing is to be found, looking for it must not take the time from packets.
        let usual = if self.defence.finds[table] { TURN_MOST } else { STEP };
        let most = usual.max(created.saturating_mul(2));
        let mut looked_at = 0;
        self.defence.finds[table] = false;
        while looked_at < most {
            let missing = Scarce::of::<A>(A::table(&self.sessions), percent).missing();
            if missing == 0 && self.defence.shares[table] == 0 {
                return;
            }
            self.defence.shares[table] = self.defence.shares[table].saturating_sub(STEP);
            looked_at += STEP;
            let timeouts = &self.timeouts;
            let ends = |session: &Session<A>| is_half_there(session, timeouts.of(session.state()), now.tick);
            let (hand, found) = A::table_mut(&mut self.sessions).pick(self.defence.hands[table], STEP, ends);
            self.defence.hands[table] = hand;
            self.defence.finds[table] |= found.count() > 0;
            for dropped in found {
                let session = A::table_mut(&mut self.sessions).remove_expired(dropped);
                self.ended(&session);
                self.counters.sessions_dropped.add(1);
            }
        }
    }
}

/// Whether a session may end before its time: one whose handshake is under way, or one without a handshake that has been silent
/// for a minute. (The kernel spares those of more than 8 packets, and ends established connections of fewer: sessions here do not
/// count their packets, so established connections stay.)
fn is_half_there<A: Plane>(session: &Session<A>, timeout: u32, now: Tick) -> bool {
    let state = session.state();
    let is_silent = || now.plus(timeout).since(session.ends()) >= SILENT_SECONDS * Tick::PER_SECOND;
    state.is_handshake() || (matches!(state, State::Udp | State::Icmp) && is_silent())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Scarce = free(1000);

    /// A table that should have 100 free sessions.
    const fn free(free: u32) -> Scarce {
        Scarce { capacity: 1000, free, wanted: 100 }
    }

    #[test]
    fn strategies_are_active_as_they_are_set_and_sessions_are_scarce() {
        let active = |strategy, table| {
            let sysctls =
                Sysctls { drop_entry: strategy, drop_packet: strategy, secure_tcp: strategy, ..Sysctls::default() };
            strategies(Defence::default().look(&sysctls, [PLENTY, table])).map(|(_, active)| active)
        };
        assert_eq!(active(Strategy::Off, free(25)), [false; 3]);
        assert_eq!(active(Strategy::Automatic, PLENTY), [false; 3]);
        assert_eq!(active(Strategy::Automatic, free(25)), [true; 3]);
        assert_eq!(active(Strategy::Always, PLENTY), [true; 3]);
    }

    #[test]
    fn what_has_begun_ends_when_there_is_a_quarter_more_than_enough() {
        let sysctls =
            Sysctls { drop_entry: Strategy::Automatic, drop_packet: Strategy::Automatic, ..Sysctls::default() };
        let mut defence = Defence::default();
        let mut active = |table| strategies(defence.look(&sysctls, [table, PLENTY])).map(|(_, active)| active);
        assert_eq!(active(free(100)), [false, false, false]);
        assert_eq!(active(free(99)), [true, true, false]);
        assert_eq!(active(free(124)), [true, false, false], "no packet is dropped where enough is free");
        assert_eq!(active(free(125)), [false; 3]);
        assert_eq!(active(free(124)), [false; 3]);
    }

    #[test]
    fn one_in_so_many_packets_is_dropped() {
        let dropped = |strategy, table, packets: u32| {
            let mut defence = Defence::default();
            let sysctls = Sysctls { drop_packet: strategy, am_droprate: 7, ..Sysctls::default() };
            // Levels are looked at far more often than packets come.
            let drops = (0..packets).map(|_| {
                defence.look(&sysctls, [table, PLENTY]);
                defence.drops_packet()
            });
            drops.filter(|&dropped| dropped).count()
        };
        assert_eq!(dropped(Strategy::Off, free(0), 70), 0);
        assert_eq!(dropped(Strategy::Automatic, PLENTY, 70), 0);
        assert_eq!(dropped(Strategy::Always, PLENTY, 70), 10);
        assert_eq!(dropped(Strategy::Automatic, free(0), 70), 70);
        assert_eq!(dropped(Strategy::Automatic, free(80), 70), 14);
    }
}
