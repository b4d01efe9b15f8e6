//! Forwarding modes: how packets reach a real server, and what wraps them in a tunnel.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::protocol::UnknownWord;

/// How packets reach a real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, bytemuck::Zeroable)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum ForwardingMode {
    /// Source becomes a local address, destination the real server; answers come back through the gateway.
    #[default]
    Fullnat,
    /// Destination becomes the real server, which has the gateway as its way to clients (IPVS: masquerading).
    Nat,
    /// The packet goes to the real server's link-layer address as it is; answers do not pass the gateway (IPVS: direct
    /// routing, gatewaying).
    Dr,
    /// The packet goes to the real server inside another one; answers do not pass the gateway (IPVS: tunnelling).
    Tun,
}

impl ForwardingMode {
    /// Every mode's name, for messages.
    pub const NAMES: &'static str = "fullnat, nat, dr, tun";

    /// The name that users type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fullnat => "fullnat",
            Self::Nat => "nat",
            Self::Dr => "dr",
            Self::Tun => "tun",
        }
    }

    /// Whether answers do not come back through the gateway, and packets reach the real server with the addresses and
    /// ports that the client gave them.
    #[inline]
    pub const fn is_one_way(self) -> bool {
        // One comparison: they stand last.
        self as u8 >= Self::Dr as u8
    }
}

impl fmt::Display for ForwardingMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for ForwardingMode {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "fullnat" => Ok(Self::Fullnat),
            "nat" => Ok(Self::Nat),
            "dr" => Ok(Self::Dr),
            "tun" => Ok(Self::Tun),
            _ => Err(UnknownWord { what: "forwarding mode", value: text.to_owned(), allowed: Self::NAMES }),
        }
    }
}

/// What a tunnel puts between the outer IP header and the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encapsulation {
    /// Nothing (RFC 2003, RFC 2473, RFC 4213).
    #[default]
    Ipip,
    /// A GRE header (RFC 2784).
    Gre,
    /// UDP and a GUE header, version 0 (draft-ietf-intarea-gue, as Linux has it).
    Gue,
}

impl Encapsulation {
    /// Every name, for messages.
    pub const NAMES: &'static str = "ipip, gre, gue";

    /// The name that users type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gre => "gre",
            Self::Gue => "gue",
        }
    }
}

impl fmt::Display for Encapsulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Encapsulation {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ipip" => Ok(Self::Ipip),
            "gre" => Ok(Self::Gre),
            "gue" => Ok(Self::Gue),
            _ => Err(UnknownWord { what: "tunnel", value: text.to_owned(), allowed: Self::NAMES }),
        }
    }
}

/// How packets to a real server in mode `tun` are wrapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// By what.
    pub encapsulation: Encapsulation,
    /// GUE: the UDP port that the real server takes them at; 0 otherwise.
    #[serde(default)]
    pub port: u16,
    /// GRE, GUE: whether there is a checksum over what is wrapped.
    #[serde(default)]
    pub checksum: bool,
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.encapsulation.name())?;
        if self.port != 0 {
            write!(f, ":{}", self.port)?;
        }
        if self.checksum { f.write_str(" with checksum") } else { Ok(()) }
    }
}
