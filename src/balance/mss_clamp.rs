//! How large the segments of TCP connections may become at most: what the MSS options of their SYNs are lowered to.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What MSS options (RFC 9293, 3.7.1) are lowered to; never raised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MssClamp {
    /// They stay as they are.
    #[default]
    Off,
    /// To what the links on both sides take, less headers and tunnel.
    Mtu,
    /// To so many bytes.
    Bytes(u16),
}

impl MssClamp {
    /// How one is written, for messages.
    pub const ALLOWED: &'static str = "536 to 65495 bytes of TCP payload, mtu for what the links take, 0 for none";
    /// Bytes: from what every host takes (RFC 9293, 3.7.1) to what fits the longest packet of IPv4.
    const BYTES: RangeInclusive<u16> = 536..=65_495;

    /// Whether options stay as they are.
    pub fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

impl fmt::Display for MssClamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("0"),
            Self::Mtu => f.write_str("mtu"),
            Self::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

/// A text that is no MSS.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0} is no MSS to lower others to; allowed: {ALLOWED}", ALLOWED = MssClamp::ALLOWED)]
pub struct MssClampError(String);

impl FromStr for MssClamp {
    type Err = MssClampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse()) {
            ("mtu", _) => Ok(Self::Mtu),
            (_, Ok(0)) => Ok(Self::Off),
            (_, Ok(bytes)) if Self::BYTES.contains(&bytes) => Ok(Self::Bytes(bytes)),
            _ => Err(MssClampError(text.to_owned())),
        }
    }
}

/// As files and requests have it: a number, or a word.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Word(String),
}

impl Serialize for MssClamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = match *self {
            Self::Off => Written::Number(0),
            Self::Bytes(bytes) => Written::Number(bytes.into()),
            Self::Mtu => Written::Word("mtu".to_owned()),
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MssClamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match Written::deserialize(deserializer)? {
            Written::Number(number) => number.to_string(),
            Written::Word(word) => word,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_written_as_they_are_read() {
        for (text, json, clamp) in [
            ("0", "0", MssClamp::Off),
            ("mtu", "\"mtu\"", MssClamp::Mtu),
            ("536", "536", MssClamp::Bytes(536)),
            ("65495", "65495", MssClamp::Bytes(65_495)),
        ] {
            assert_eq!((text.parse(), clamp.to_string().as_str()), (Ok(clamp), text));
            assert_eq!(serde_json::to_string(&clamp).unwrap(), json);
            assert_eq!(serde_json::from_str::<MssClamp>(json).unwrap(), clamp);
        }
        for bad in ["535", "65496", "70000", "-1", "", "auto"] {
            let error = bad.parse::<MssClamp>().unwrap_err().to_string();
            assert_eq!(error, format!("{bad} is no MSS to lower others to; allowed: {}", MssClamp::ALLOWED));
        }
        assert!(serde_json::from_str::<MssClamp>("535").is_err());
    }
}
