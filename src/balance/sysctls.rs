//! What IPVS lets be set by sysctls (net.ipv4.vs), by its names and with its defaults, as far as it is done here.
//!
//! [`Sysctl::ALL`] is the one list of them: the configuration file, the command line, the state and the documentation's tests
//! go by it.

use std::ops::RangeInclusive;

/// IPVS's switches that hold for all services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sysctls {
    /// Whether a session whose real server was removed ends with the client's next packet, which may begin another one;
    /// else its packets are dropped.
    pub expire_nodest_conn: bool,
    /// Whether a template whose real server has weight 0 is used no more.
    pub expire_quiescent_template: bool,
    /// Which sessions that are over but for their timeout give way to a SYN: see [`Sysctls::reuses`].
    pub conn_reuse_mode: u32,
    /// Whether any TCP segment but a reset may begin a session.
    pub sloppy_tcp: bool,
    /// Whether any SCTP packet but an ABORT may begin a session.
    pub sloppy_sctp: bool,
    /// Seconds after which lblc forgets a destination that was not used.
    pub lblc_expiration: u32,
    /// The same for lblcr, and the seconds after which a set of real servers shrinks.
    pub lblcr_expiration: u32,
    /// Whether sessions that are only half there end before their time.
    pub drop_entry: Strategy,
    /// Whether part of the packets that would begin a session are dropped.
    pub drop_packet: Strategy,
    /// Whether TCP sessions go by the states that trust clients less.
    pub secure_tcp: Strategy,
    /// With [`Self::drop_packet`] always on: one in so many is dropped.
    pub am_droprate: u32,
    /// Percent of a session table: with fewer free sessions, automatic strategies are active. In place of the kernel's
    /// `amemthresh`, which counts free pages of memory.
    pub defence_free_percent: u32,
    /// Whether real servers in mode nat are told by ICMP that what they send belongs to no session.
    pub nat_icmp_send: bool,
}

/// When a defence strategy is active (net/netfilter/ipvs/ip_vs_ctl.c, `update_defense_level`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Never: 0.
    #[default]
    Off,
    /// While sessions are scarce: 1 and, as it reads while it is active, 2.
    Automatic,
    /// Always: 3.
    Always,
}

impl Strategy {
    /// What an automatic one reads.
    pub const AUTOMATIC: u32 = 1;
    /// ... and while it is active.
    pub const ACTIVE: u32 = 2;

    const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Off,
            1 | 2 => Self::Automatic,
            _ => Self::Always,
        }
    }

    const fn number(self) -> u32 {
        match self {
            Self::Off => 0,
            Self::Automatic => Self::AUTOMATIC,
            Self::Always => 3,
        }
    }
}

impl Default for Sysctls {
    fn default() -> Self {
        const DAY: u32 = 86_400;
        Self {
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            conn_reuse_mode: 1,
            sloppy_tcp: false,
            sloppy_sctp: false,
            lblc_expiration: DAY,
            lblcr_expiration: DAY,
            drop_entry: Strategy::Off,
            drop_packet: Strategy::Off,
            secure_tcp: Strategy::Off,
            am_droprate: 10,
            defence_free_percent: 10,
            nat_icmp_send: false,
        }
    }
}

impl Sysctls {
    /// Of [`Self::conn_reuse_mode`]: sessions in FIN_WAIT give way, too, where answers do not pass the gateway.
    const REUSE_FIN_WAIT: u32 = 2;

    /// Whether a new SYN, or INIT, may be scheduled anew although there is a session.
    pub const fn reuses(&self) -> bool {
        self.conn_reuse_mode != 0
    }

    /// Whether that goes for sessions in FIN_WAIT whose answers do not pass the gateway.
    pub const fn reuses_fin_wait(&self) -> bool {
        self.conn_reuse_mode & Self::REUSE_FIN_WAIT != 0
    }
}

/// One of them: its name, and what it may be.
#[derive(Clone, Debug)]
pub struct Sysctl {
    /// IPVS's name, if it has it.
    pub name: &'static str,
    /// The values that it may have.
    pub range: RangeInclusive<u32>,
    /// What these count; empty: nothing.
    pub unit: &'static str,
    field: Field,
}

/// Where its value is.
#[derive(Clone, Debug)]
enum Field {
    Switch(fn(&mut Sysctls) -> &mut bool),
    Number(fn(&mut Sysctls) -> &mut u32),
    Strategy(fn(&mut Sysctls) -> &mut Strategy),
}

impl Sysctl {
    /// What the kernel puts in front of their names.
    pub const PREFIX: &'static str = "net.ipv4.vs.";

    /// All of them, by name.
    pub const ALL: &'static [Self] = &[
        Self::number("am_droprate", 1..=Self::MOST_DROPRATE, "packets", |all| &mut all.am_droprate),
        Self::number("conn_reuse_mode", 0..=3, "", |all| &mut all.conn_reuse_mode),
        Self::number("defence_free_percent", 1..=99, "percent of a session table", |all| &mut all.defence_free_percent),
        Self::strategy("drop_entry", |all| &mut all.drop_entry),
        Self::strategy("drop_packet", |all| &mut all.drop_packet),
        Self::switch("expire_nodest_conn", |all| &mut all.expire_nodest_conn),
        Self::switch("expire_quiescent_template", |all| &mut all.expire_quiescent_template),
        Self::number("lblc_expiration", Self::TIME, "seconds (31 days)", |all| &mut all.lblc_expiration),
        Self::number("lblcr_expiration", Self::TIME, "seconds (31 days)", |all| &mut all.lblcr_expiration),
        Self::switch("nat_icmp_send", |all| &mut all.nat_icmp_send),
        Self::strategy("secure_tcp", |all| &mut all.secure_tcp),
        Self::switch("sloppy_sctp", |all| &mut all.sloppy_sctp),
        Self::switch("sloppy_tcp", |all| &mut all.sloppy_tcp),
    ];

    /// Seconds, as timeouts may be.
    const TIME: RangeInclusive<u32> = 1..=31 * 86_400;

    /// One in a million: less would not be noticed.
    const MOST_DROPRATE: u32 = 1_000_000;

    const fn strategy(name: &'static str, field: fn(&mut Sysctls) -> &mut Strategy) -> Self {
        Self { name, range: 0..=3, unit: "", field: Field::Strategy(field) }
    }

    const fn switch(name: &'static str, field: fn(&mut Sysctls) -> &mut bool) -> Self {
        Self { name, range: 0..=1, unit: "", field: Field::Switch(field) }
    }

    const fn number(
        name: &'static str,
        range: RangeInclusive<u32>,
        unit: &'static str,
        field: fn(&mut Sysctls) -> &mut u32,
    ) -> Self {
        Self { name, range, unit, field: Field::Number(field) }
    }

    /// The one of this name: `drop_entry`, `net.ipv4.vs.drop_entry` or `net/ipv4/vs/drop_entry`.
    pub fn find(name: &str) -> Option<&'static Self> {
        let name = Self::short_name(name);
        Self::ALL.iter().find(|sysctl| sysctl.name == name)
    }

    /// A name without the kernel's prefix.
    pub fn short_name(name: &str) -> &str {
        const BY_SLASHES: &str = "net/ipv4/vs/";
        name.strip_prefix(Self::PREFIX).or_else(|| name.strip_prefix(BY_SLASHES)).unwrap_or(name)
    }

    /// Its value among all.
    pub fn value(&self, all: &Sysctls) -> u32 {
        let mut all = *all;
        match self.field {
            Field::Switch(field) => u32::from(*field(&mut all)),
            Field::Number(field) => *field(&mut all),
            Field::Strategy(field) => field(&mut all).number(),
        }
    }

    /// Sets it. Says whether the value may be: if not, nothing is changed.
    #[must_use]
    pub fn set(&self, all: &mut Sysctls, value: u32) -> bool {
        if !self.range.contains(&value) {
            return false;
        }
        match self.field {
            Field::Switch(field) => *field(all) = value != 0,
            Field::Number(field) => *field(all) = value,
            Field::Strategy(field) => *field(all) = Strategy::from_number(value),
        }
        true
    }

    /// What it may be, in words: `0-3`, `1-2678400 seconds (31 days)`.
    pub fn allowed(&self) -> String {
        let (least, most) = (self.range.start(), self.range.end());
        format!("{least}-{most} {}", self.unit).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_and_they_are_in_order() {
        assert!(Sysctl::ALL.is_sorted_by(|one, next| one.name < next.name));
    }

    #[test]
    fn each_takes_its_least_and_its_most_and_nothing_beyond() {
        for sysctl in Sysctl::ALL {
            let mut all = Sysctls::default();
            assert!(sysctl.range.contains(&sysctl.value(&all)), "{}: its default", sysctl.name);
            for value in [*sysctl.range.start(), *sysctl.range.end()] {
                assert!(sysctl.set(&mut all, value));
                assert_eq!(sysctl.value(&all), value, "{}", sysctl.name);
            }
            let set = all;
            assert!(!sysctl.set(&mut all, sysctl.range.end() + 1));
            assert_eq!(all, set);
            assert!(sysctl.set(&mut all, sysctl.value(&Sysctls::default())));
            assert_eq!(all, Sysctls::default(), "{} is no other's value", sysctl.name);
        }
    }

    #[test]
    fn an_automatic_strategy_may_be_said_in_two_ways() {
        let mut all = Sysctls::default();
        let drop_entry = Sysctl::find("drop_entry").unwrap();
        for (value, shown) in [(0, 0), (1, 1), (2, 1), (3, 3)] {
            assert!(drop_entry.set(&mut all, value));
            assert_eq!(drop_entry.value(&all), shown);
        }
    }

    #[test]
    fn names_may_have_the_kernels_prefix_with_dots_or_slashes() {
        for name in ["sloppy_tcp", "net.ipv4.vs.sloppy_tcp", "net/ipv4/vs/sloppy_tcp"] {
            assert_eq!(Sysctl::find(name).map(|sysctl| sysctl.name), Some("sloppy_tcp"));
        }
        assert!(Sysctl::find("net.ipv4.sloppy_tcp").is_none());
    }
}
