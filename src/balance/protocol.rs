//! What services and sessions can be of, and words that are of a closed list.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What sessions can be of: a transport protocol that can be balanced, or echo messages, which source NAT is for. And what
/// services can be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Protocol {
    /// 0, as IPVS writes it: any that can be balanced. Services of marks are of it, packets and sessions never.
    Any = 0,
    /// IP protocols 1 and 58: echo requests and replies of ICMP and ICMPv6. No service is of it.
    Icmp = 1,
    /// IP protocol 6.
    Tcp = 6,
    /// IP protocol 17.
    Udp = 17,
    /// IP protocol 132.
    Sctp = 132,
}

impl Protocol {
    /// The names of what services can be of, for messages.
    pub const NAMES: &'static str = "tcp, udp, sctp";
    /// The names of what sessions can be of, for messages.
    pub const OF_SESSIONS: &'static str = "tcp, udp, sctp, icmp";

    /// The IP protocol number's meaning, where it is one that can be balanced.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }

    /// Itself; of any, each that can be balanced.
    pub const fn each(self) -> &'static [Self] {
        match self {
            Self::Any => &[Self::Tcp, Self::Udp, Self::Sctp],
            Self::Tcp => &[Self::Tcp],
            Self::Udp => &[Self::Udp],
            Self::Sctp => &[Self::Sctp],
            Self::Icmp => &[Self::Icmp],
        }
    }

    /// Whether it is known which worker a device's RSS brings a packet to. Of SCTP devices hash what they like: the ports as of
    /// TCP, with the verification tag, or none; and what stands for ports in ICMP they do not know.
    #[inline]
    pub const fn is_dealt_by_rss(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }

    /// `tcp`, `udp`, `sctp`, `icmp` or `any`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Icmp => "icmp",
            Self::Any => "any",
        }
    }

    /// What sessions can be of, from its name; a service's is parsed by [`FromStr`].
    ///
    /// # Errors
    /// The text is no such name.
    pub fn of_session(text: &str) -> Result<Self, UnknownWord> {
        if text == "icmp" {
            return Ok(Self::Icmp);
        }
        text.parse().map_err(|unknown| UnknownWord { allowed: Self::OF_SESSIONS, ..unknown })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Protocol {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(UnknownWord { what: "protocol", value: text.to_owned(), allowed: Self::NAMES }),
        }
    }
}

/// A word that is not in a closed list.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{value:?} is not a {what}: allowed: {allowed}")]
pub struct UnknownWord {
    /// What was wanted.
    pub what: &'static str,
    /// What was given.
    pub value: String,
    /// What is allowed, separated by commas.
    pub allowed: &'static str,
}
