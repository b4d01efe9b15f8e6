//! Ranges of ports, as local pools, services and selectors have them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest; not below `first`.
    pub last: u16,
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// A text that is no range of ports.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no range of ports: FIRST-LAST, each 1-65535, FIRST not above LAST, like 1024-65535, or one port")]
pub struct PortRangeError(String);

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = |part: &str| part.trim().parse::<u16>().ok().filter(|&port| port > 0);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        parse(first)
            .and_then(|first| Some(Self { first, last: parse(last)? }))
            .filter(|range| range.first <= range.last)
            .ok_or_else(|| PortRangeError(text.to_owned()))
    }
}

impl Serialize for PortRange {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
