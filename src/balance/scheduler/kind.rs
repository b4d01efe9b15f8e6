//! The schedulers' names, and their flags as users write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::balance::UnknownWord;

/// A scheduler, by its IPVS name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SchedulerKind {
    /// Round robin.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connections.
    Lc,
    /// Weighted least connections: ipvsadm's default.
    #[default]
    Wlc,
    /// Locality-based least connections: a destination address keeps its real server.
    Lblc,
    /// The same with replication: a destination address has a set of real servers.
    Lblcr,
    /// Destination hashing.
    Dh,
    /// Source hashing.
    Sh,
    /// Shortest expected delay.
    Sed,
    /// Never queue: an idle real server first.
    Nq,
    /// Maglev hashing.
    Mh,
    /// Weighted failover: the greatest weight takes all.
    Fo,
    /// Weighted overflow: the greatest weight takes as many as its weight says, then the next.
    Ovf,
    /// The power of two choices.
    Twos,
}

impl SchedulerKind {
    /// Every scheduler's name, for messages.
    pub const NAMES: &'static str = "rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, mh, fo, ovf, twos";

    /// Every scheduler, in the order of [`SchedulerKind::NAMES`].
    pub const ALL: [Self; 14] = [
        Self::Rr,
        Self::Wrr,
        Self::Lc,
        Self::Wlc,
        Self::Lblc,
        Self::Lblcr,
        Self::Dh,
        Self::Sh,
        Self::Sed,
        Self::Nq,
        Self::Mh,
        Self::Fo,
        Self::Ovf,
        Self::Twos,
    ];

    /// The name that users type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Lblc => "lblc",
            Self::Lblcr => "lblcr",
            Self::Dh => "dh",
            Self::Sh => "sh",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Mh => "mh",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
            Self::Twos => "twos",
        }
    }

    /// Whether what it chooses depends on a keyed hash that clients could foresee if they knew the key.
    pub const fn is_hashing(self) -> bool {
        matches!(self, Self::Dh | Self::Sh | Self::Mh)
    }

    /// The names of the flags that it has, for messages.
    pub const fn flag_names(self) -> &'static str {
        match self {
            Self::Sh => "sh-fallback, sh-port",
            Self::Mh => "mh-fallback, mh-port",
            _ => "none: only sh and mh have flags",
        }
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SchedulerKind {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| UnknownWord { what: "scheduler", value: text.to_owned(), allowed: Self::NAMES })
    }
}

/// A scheduler's flag, by ipvsadm's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SchedulerFlag {
    /// sh: where the real server takes none, another one.
    ShFallback,
    /// sh: the client's port is hashed, too.
    ShPort,
    /// mh: where the real server takes none, another one.
    MhFallback,
    /// mh: the client's port is hashed, too.
    MhPort,
}

impl SchedulerFlag {
    /// Every flag's name, for messages.
    pub const NAMES: &'static str = "sh-fallback, sh-port, mh-fallback, mh-port";

    /// Every flag, in the order of [`SchedulerFlag::NAMES`].
    pub const ALL: [Self; 4] = [Self::ShFallback, Self::ShPort, Self::MhFallback, Self::MhPort];

    /// The name that users type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ShFallback => "sh-fallback",
            Self::ShPort => "sh-port",
            Self::MhFallback => "mh-fallback",
            Self::MhPort => "mh-port",
        }
    }

    /// The scheduler that has it.
    pub const fn scheduler(self) -> SchedulerKind {
        match self {
            Self::ShFallback | Self::ShPort => SchedulerKind::Sh,
            Self::MhFallback | Self::MhPort => SchedulerKind::Mh,
        }
    }
}

impl fmt::Display for SchedulerFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SchedulerFlag {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|flag| flag.name() == text);
        found.ok_or_else(|| UnknownWord { what: "scheduler flag", value: text.to_owned(), allowed: Self::NAMES })
    }
}

/// A service's scheduler flags: each at most once, in one order whatever the order given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<SchedulerFlag>", into = "Vec<SchedulerFlag>")]
pub struct SchedulerFlags([bool; SchedulerFlag::ALL.len()]);

impl SchedulerFlags {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Those that are set.
    pub fn iter(self) -> impl Iterator<Item = SchedulerFlag> {
        SchedulerFlag::ALL.into_iter().filter(move |&flag| self.has(flag))
    }

    /// Whether another real server is taken where the one that the hash names takes none.
    pub fn falls_back(self) -> bool {
        self.has(SchedulerFlag::ShFallback) || self.has(SchedulerFlag::MhFallback)
    }

    /// Whether the client's port is hashed, too.
    pub fn uses_port(self) -> bool {
        self.has(SchedulerFlag::ShPort) || self.has(SchedulerFlag::MhPort)
    }

    /// The first one that is not of this scheduler.
    pub fn foreign_to(self, scheduler: SchedulerKind) -> Option<SchedulerFlag> {
        self.iter().find(|flag| flag.scheduler() != scheduler)
    }

    fn has(self, flag: SchedulerFlag) -> bool {
        self.0[flag as usize]
    }
}

impl FromIterator<SchedulerFlag> for SchedulerFlags {
    fn from_iter<I: IntoIterator<Item = SchedulerFlag>>(flags: I) -> Self {
        let mut set = Self::default();
        flags.into_iter().for_each(|flag| set.0[flag as usize] = true);
        set
    }
}

impl From<Vec<SchedulerFlag>> for SchedulerFlags {
    fn from(flags: Vec<SchedulerFlag>) -> Self {
        flags.into_iter().collect()
    }
}

impl From<SchedulerFlags> for Vec<SchedulerFlag> {
    fn from(flags: SchedulerFlags) -> Self {
        flags.iter().collect()
    }
}

impl fmt::Display for SchedulerFlags {
    /// As ipvsadm writes them, with commas; `none` where there are none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(SchedulerFlag::name).collect();
        f.pad(&if names.is_empty() { "none".to_owned() } else { names.join(",") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_shown() {
        assert_eq!(SchedulerKind::ALL.map(SchedulerKind::name).join(", "), SchedulerKind::NAMES);
        assert_eq!(SchedulerFlag::ALL.map(SchedulerFlag::name).join(", "), SchedulerFlag::NAMES);
        for kind in SchedulerKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        for flag in SchedulerFlag::ALL {
            assert_eq!(flag.name().parse(), Ok(flag));
            assert_eq!(serde_json::to_value(flag).unwrap(), flag.name());
        }
        assert!("RR".parse::<SchedulerKind>().unwrap_err().to_string().contains("twos"));
    }

    #[test]
    fn flags_are_a_set() {
        let flags: SchedulerFlags = serde_json::from_str(r#"["sh-port","sh-fallback","sh-port"]"#).unwrap();
        assert_eq!(
            (flags.to_string().as_str(), flags.falls_back(), flags.uses_port()),
            ("sh-fallback,sh-port", true, true)
        );
        assert_eq!(serde_json::to_string(&flags).unwrap(), r#"["sh-fallback","sh-port"]"#);
        assert_eq!(flags.foreign_to(SchedulerKind::Mh), Some(SchedulerFlag::ShFallback));
        assert_eq!(flags.foreign_to(SchedulerKind::Sh), None);
        assert_eq!(SchedulerFlags::default().to_string(), "none");
    }
}
