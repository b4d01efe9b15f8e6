//! Persistence: clients that stay with the real server that their first connection was given.
//!
//! A *template* remembers for the clients of a network, and for what they speak to, which real server that is
//! (net/netfilter/ipvs/ip_vs_core.c, `ip_vs_sched_persist`). This names templates; `templates` keeps them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::mark::Mark;
use super::port_range::PortRange;
use super::protocol::{Protocol, UnknownWord};
use super::service::ServiceKey;

/// How a service keeps its clients with their real servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// Seconds that a template lasts from the beginning of the last connection on that it was used for.
    pub timeout_seconds: u32,
    /// How many bits of a client's address count, from the first on: clients that agree in them share a template.
    pub prefix_len: u8,
}

impl Persistence {
    /// The longest prefix of a family: each client by itself.
    pub const fn longest_prefix(is_ipv4: bool) -> u8 {
        if is_ipv4 { 32 } else { 128 }
    }

    /// What a prefix is kept as: none where all bits of an address of the family count.
    pub fn prefix_kept(prefix: Option<u8>, is_ipv4: bool) -> Option<u8> {
        prefix.filter(|bits| *bits != Self::longest_prefix(is_ipv4))
    }

    /// A client's address with the bits that do not count at 0.
    #[inline]
    pub fn network_of(&self, client: IpAddr) -> IpAddr {
        match client {
            IpAddr::V4(client) => {
                Ipv4Addr::from_bits(client.to_bits() & ClientPrefix(self.prefix_len).netmask()).into()
            }
            IpAddr::V6(client) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix_len.min(128))).unwrap_or(0);
                Ipv6Addr::from_bits(client.to_bits() & mask).into()
            }
        }
    }
}

/// How many bits of a client's address count: a number of bits, or for IPv4 a netmask as ipvsadm takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPrefix(pub u8);

impl ClientPrefix {
    /// How one is written, for messages.
    pub const ALLOWED: &'static str = "a number of bits, 0-32 or for IPv6 1-128, or a netmask like 255.255.255.0";

    /// The bits of an IPv4 netmask; none: they are not the first ones.
    pub fn of_netmask(netmask: u32) -> Option<Self> {
        let len = netmask.leading_ones();
        (netmask.count_ones() == len).then(|| Self(u8::try_from(len).unwrap_or(u8::MAX)))
    }

    /// The IPv4 netmask of so many bits.
    pub fn netmask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.0.min(32))).unwrap_or(0)
    }
}

impl FromStr for ClientPrefix {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let of_netmask = || Self::of_netmask(text.parse::<Ipv4Addr>().ok()?.to_bits());
        let of_number = text.parse::<u8>().ok().filter(|bits| *bits <= 128).map(Self);
        let unknown = || UnknownWord { what: "prefix", value: text.to_owned(), allowed: Self::ALLOWED };
        of_number.or_else(of_netmask).ok_or_else(unknown)
    }
}

/// What clients speak to that have a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateTarget {
    /// A service's virtual address and ports.
    Virtual(ServiceKey),
    /// Packets with a mark, whatever their protocol and destination.
    Mark(Mark),
}

impl From<ServiceKey> for TemplateTarget {
    #[inline]
    fn from(service: ServiceKey) -> Self {
        service.mark.map_or(Self::Virtual(service), Self::Mark)
    }
}

/// A template's name: the clients' network and what they speak to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateKey {
    /// In words, as a table holds it: the client, the virtual address or mark, protocol and ports. IPv4 addresses are
    /// IPv4-mapped ones of IPv6.
    pub(super) words: [u64; 5],
}

/// Stands in a key for a mark's protocol, which IPVS calls IP.
const MARK: u64 = 1 << 40;

impl TemplateKey {
    /// The key for clients of a network ([`Persistence::network_of`]).
    #[inline]
    pub fn new(network: IpAddr, target: TemplateTarget) -> Self {
        let [client_high, client_low] = words_of(network);
        let ([high, low], rest) = match target {
            TemplateTarget::Virtual(ServiceKey { protocol, address, ports, .. }) => {
                let ports = u64::from(ports.first()) << 8 | u64::from(ports.last()) << 24;
                (words_of(address), protocol as u64 | ports)
            }
            TemplateTarget::Mark(mark) => ([0, mark.number().into()], MARK),
        };
        Self { words: [client_high, client_low, high, low, rest] }
    }

    /// The clients' network: its first address.
    pub fn network(&self) -> IpAddr {
        address_of(self.words[0], self.words[1])
    }

    /// What they speak to. None: the words are none that [`Self::new`] makes.
    pub fn target(&self) -> Option<TemplateTarget> {
        let [_, _, high, low, rest] = self.words;
        if rest == MARK {
            return u32::try_from(low).ok().and_then(Mark::new).map(TemplateTarget::Mark);
        }
        let [protocol, a, b, c, d, ..] = rest.to_le_bytes();
        let (first, last) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        let protocol = Protocol::from_number(protocol)?;
        let (address, ports) = (address_of(high, low), PortRange { first, last }.into());
        Some(TemplateTarget::Virtual(ServiceKey { protocol, address, ports, mark: None }))
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "both halves are taken")]
fn words_of(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

fn address_of(high: u64, low: u64) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::ServicePorts;

    fn network(prefix_len: u8, client: &str) -> String {
        Persistence { timeout_seconds: 1, prefix_len }.network_of(client.parse().unwrap()).to_string()
    }

    #[test]
    fn clients_of_a_network_are_one() {
        assert_eq!(network(32, "10.1.2.3"), "10.1.2.3");
        assert_eq!(network(24, "10.1.2.3"), "10.1.2.0");
        assert_eq!(network(9, "10.255.2.3"), "10.128.0.0");
        assert_eq!(network(0, "10.1.2.3"), "0.0.0.0");
        assert_eq!(network(128, "2001:db8::1:2"), "2001:db8::1:2");
        assert_eq!(network(64, "2001:db8:0:7:1::2"), "2001:db8:0:7::");
        assert_eq!(network(1, "ffff::1"), "8000::");
    }

    #[test]
    fn prefixes_are_numbers_or_netmasks() {
        for (text, bits) in [("24", 24), ("255.255.255.0", 24), ("0", 0), ("0.0.0.0", 0), ("128", 128)] {
            assert_eq!(text.parse(), Ok(ClientPrefix(bits)), "{text}");
        }
        for text in ["129", "255.0.255.0", "0.0.0.255", "", "-1", "/24"] {
            let error = text.parse::<ClientPrefix>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is not a prefix: allowed: a number of bits")), "{error}");
        }
        for bits in 0..=32 {
            assert_eq!(ClientPrefix::of_netmask(ClientPrefix(bits).netmask()), Some(ClientPrefix(bits)));
        }
    }

    #[test]
    fn keys_say_what_they_were_made_of() {
        let service = |address: &str, ports| {
            let address = address.parse().unwrap();
            TemplateTarget::Virtual(ServiceKey { protocol: Protocol::Udp, address, ports, mark: None })
        };
        for target in [
            service("10.0.0.100", ServicePorts::just(53)),
            service("10.0.0.100", ServicePorts::ALL),
            service("2001:db8::100", PortRange { first: 8000, last: 8099 }.into()),
            TemplateTarget::Mark(Mark::new(7).unwrap()),
        ] {
            for client in ["10.0.0.0", "2001:db8::"] {
                let key = TemplateKey::new(client.parse().unwrap(), target);
                assert_eq!((key.network().to_string().as_str(), key.target()), (client, Some(target)));
            }
        }
        let of_port = |ports| TemplateKey::new(Ipv4Addr::LOCALHOST.into(), service("10.0.0.100", ports));
        assert_ne!(of_port(ServicePorts::just(80)), of_port(ServicePorts::ALL));
    }
}
