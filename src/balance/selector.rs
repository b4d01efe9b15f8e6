//! What a rule says of the flows that it is for: networks, a protocol, ports, and where they enter.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::port_range::PortRange;
use super::protocol::Protocol;
use crate::flow::{Address, FlowKey};
use crate::port::PortId;

/// A network. The bits of its address behind the prefix are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix_len: u8,
}

impl Network {
    /// All of IPv4.
    pub const IPV4: Self = Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix_len: 0 };

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let equal = (leading_bits(self.address) ^ leading_bits(address)).leading_zeros();
        self.address.is_ipv4() == address.is_ipv4() && equal >= u32::from(self.prefix_len)
    }

    /// Whether it is one of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }
}

/// The address's bits as the first ones of a word.
fn leading_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// A text that is no network.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{value:?} {wrong}; allowed: {ALLOWED}", ALLOWED = Network::ALLOWED)]
pub struct NetworkError {
    value: String,
    wrong: &'static str,
}

impl Network {
    /// How one is written, for messages.
    pub const ALLOWED: &'static str = "NETWORK/PREFIX, like 10.1.0.0/24 or 2001:db8:1::/64";
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |wrong| NetworkError { value: text.to_owned(), wrong };
        let (address, prefix) = text.split_once('/').ok_or_else(|| wrong("has no prefix length"))?;
        let address: IpAddr = address.parse().map_err(|_| wrong("is no network"))?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let is_number = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix_len = prefix.parse().ok().filter(|&len| is_number && len <= longest);
        let prefix_len: u8 = prefix_len.ok_or_else(|| wrong("has a wrong prefix length"))?;
        if leading_bits(address).checked_shl(prefix_len.into()).unwrap_or(0) != 0 {
            return Err(wrong("has bits set behind its prefix"));
        }
        Ok(Self { address, prefix_len })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

impl Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Conditions that all must hold for a flow. Without any, each flow has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Where the flow comes from; none: anywhere.
    pub source: Option<Network>,
    /// Where it goes; none: anywhere.
    pub destination: Option<Network>,
    /// Of what it is; none: of anything.
    pub protocol: Option<Protocol>,
    /// Its destination port; none: any.
    pub destination_port: Option<PortRange>,
    /// The port that it enters by; none: any.
    pub port: Option<PortId>,
}

impl Selector {
    /// Whether it is for a flow whose first packet entered by `port`.
    pub fn matches<A: Address>(&self, key: &FlowKey<A>, port: PortId) -> bool {
        let destination_port = key.destination_port();
        self.source.is_none_or(|network| network.contains(key.source().into()))
            && self.destination.is_none_or(|network| network.contains(key.destination().into()))
            && self.protocol.is_none_or(|protocol| protocol == key.protocol())
            && self.destination_port.is_none_or(|range| (range.first..=range.last).contains(&destination_port))
            && self.port.is_none_or(|wanted| wanted == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn networks() {
        assert!(network("10.0.0.128/25").contains("10.0.0.200".parse().unwrap()));
        assert!(!network("10.0.0.128/25").contains("10.0.0.1".parse().unwrap()));
        assert!(network("10.0.0.1/32").contains("10.0.0.1".parse().unwrap()));
        assert!(!network("10.0.0.1/32").contains("10.0.0.0".parse().unwrap()));
        assert!(network("0.0.0.0/0").contains("192.0.2.1".parse().unwrap()));
        assert!(!network("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(network("2001:db8::/64").contains("2001:db8::ffff".parse().unwrap()));
        assert!(!network("2001:db8::/64").contains("2001:db8:0:1::".parse().unwrap()));
        assert!(!network("::/0").contains("10.0.0.1".parse().unwrap()));
        assert_eq!(network("2001:DB8::/64").to_string(), "2001:db8::/64");
    }

    #[test]
    fn texts_that_are_no_networks() {
        let wrong = |text: &str| text.parse::<Network>().unwrap_err().to_string();
        assert_eq!(
            wrong("10.0.0.1"),
            "\"10.0.0.1\" has no prefix length; allowed: NETWORK/PREFIX, like 10.1.0.0/24 or 2001:db8:1::/64"
        );
        assert!(wrong("10.0.0.1/24").contains("bits set behind its prefix"));
        assert!(wrong("10.0.0.0/33").contains("wrong prefix length"));
        assert!(wrong("10.0.0.0/+8").contains("wrong prefix length"));
        assert!(wrong("10.0.0.0/").contains("wrong prefix length"));
        assert!(wrong("::/129").contains("wrong prefix length"));
        assert!(wrong("x/8").contains("is no network"));
    }

    #[test]
    fn every_condition_must_hold() {
        let rule = Selector {
            source: Some(network("10.1.0.0/24")),
            destination: Some(network("192.0.2.0/24")),
            protocol: Some(Protocol::Tcp),
            destination_port: Some(PortRange { first: 80, last: 90 }),
            port: Some(PortId(1)),
        };
        let key = |protocol, source: [u8; 4], destination: [u8; 4], port| {
            FlowKey::new(protocol, (Ipv4Addr::from(source), 5000), (Ipv4Addr::from(destination), port))
        };
        let (inside, outside) = ([10, 1, 0, 7], [192, 0, 2, 1]);
        let good = key(Protocol::Tcp, inside, outside, 90);
        assert!(rule.matches(&good, PortId(1)));
        assert!(!rule.matches(&good, PortId(0)));
        assert!(!rule.matches(&key(Protocol::Udp, inside, outside, 90), PortId(1)));
        assert!(!rule.matches(&key(Protocol::Tcp, [10, 2, 0, 7], outside, 90), PortId(1)));
        assert!(!rule.matches(&key(Protocol::Tcp, inside, [192, 0, 3, 1], 90), PortId(1)));
        assert!(!rule.matches(&key(Protocol::Tcp, inside, outside, 91), PortId(1)));
        assert!(!rule.matches(&key(Protocol::Tcp, inside, outside, 79), PortId(1)));
        let any = Selector { source: rule.source, ..Selector::default() };
        assert!(any.matches(&key(Protocol::Udp, inside, [8, 8, 8, 8], 0), PortId(7)));
    }
}
