//! The schedulers, by IPVS's definitions; one file each.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::service::UnknownWord;

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
}

impl SchedulerKind {
    /// Every scheduler's name, for messages.
    pub const NAMES: &'static str = "rr, wrr, lc, wlc";

    /// The name that users type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
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
        match text {
            "rr" => Ok(Self::Rr),
            "wrr" => Ok(Self::Wrr),
            "lc" => Ok(Self::Lc),
            "wlc" => Ok(Self::Wlc),
            _ => Err(UnknownWord { what: "scheduler", value: text.to_owned(), allowed: Self::NAMES }),
        }
    }
}
