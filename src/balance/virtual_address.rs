//! What clients speak to: a virtual address with one port, a range of ports, or all of them; or whatever has a mark.
//!
//! For a port that several services of an address and protocol are for, the narrowest counts: the one of just that port, then the one of a
//! range, then the one of all ports. Ranges of an address and protocol do not overlap: `config` sees to that.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::mark::Mark;
use super::port_range::PortRange;
use super::protocol::Protocol;
use super::service::Service;

/// The ports of a service: one, a range, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePorts {
    first: u16,
    last: u16,
}

impl ServicePorts {
    /// All ports: written as port 0, as in IPVS.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// Just this one; port 0 is none that a service has.
    #[inline]
    pub const fn just(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// The lowest; of all ports 0.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// The port, if it is only one.
    pub fn one(self) -> Option<u16> {
        (self.first == self.last).then_some(self.first)
    }

    /// Whether it is every port.
    pub fn is_all(self) -> bool {
        self == Self::ALL
    }

    /// Whether it is more than one port but not all.
    pub fn is_range(self) -> bool {
        self.one().is_none() && !self.is_all()
    }

    /// Whether a port is among them.
    pub fn contains(self, port: u16) -> bool {
        RangeInclusive::new(self.first, self.last).contains(&port)
    }

    /// Whether these are two ranges with a port in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.is_range() && other.is_range() && self.first <= other.last && other.first <= self.last
    }
}

impl From<u16> for ServicePorts {
    /// Just this port; 0 stands for all.
    fn from(port: u16) -> Self {
        if port == 0 { Self::ALL } else { Self::just(port) }
    }
}

impl From<PortRange> for ServicePorts {
    fn from(range: PortRange) -> Self {
        Self { first: range.first, last: range.last }
    }
}

/// A virtual address (VIP) with the ports that a service is for, or a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VirtualAddress {
    /// The address; for a mark the unspecified one of its family.
    pub address: IpAddr,
    /// The ports; for a mark all.
    pub ports: ServicePorts,
    /// The mark, if it is one.
    pub mark: Option<Mark>,
}

impl VirtualAddress {
    /// How one is written, for messages.
    pub const ALLOWED: &'static str = "ADDRESS:PORT with a port of 1-65535, like 10.0.0.100:80 or [2001:db8::100]:80; \
                                       ADDRESS:FIRST-LAST for a range of ports, like 10.0.0.100:8000-8099; ADDRESS:0 \
                                       for all ports; fwmark:MARK or fwmark:MARK/ipv6 for what has a mark";

    /// What has this mark, of one family.
    pub fn marked(mark: Mark, is_ipv6: bool) -> Self {
        let address = if is_ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        Self { address, ports: ServicePorts::ALL, mark: Some(mark) }
    }

    /// The port that a real server has when none is given for it: the service's, or, of several, 0.
    pub fn default_port(&self) -> u16 {
        self.ports.one().unwrap_or(0)
    }
}

impl From<SocketAddr> for VirtualAddress {
    /// Of one port, or with port 0 of all.
    fn from(address: SocketAddr) -> Self {
        Self { address: address.ip(), ports: address.port().into(), mark: None }
    }
}

impl fmt::Display for VirtualAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mark) = self.mark {
            let family = if self.address.is_ipv6() { "/ipv6" } else { "" };
            return f.pad(&format!("fwmark:{mark}{family}"));
        }
        let ServicePorts { first, last } = self.ports;
        let first = SocketAddr::new(self.address, first);
        if self.ports.is_range() { f.pad(&format!("{first}-{last}")) } else { f.pad(&first.to_string()) }
    }
}

/// A text that is no virtual address with ports.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{value:?} {wrong}; allowed: {ALLOWED}", ALLOWED = VirtualAddress::ALLOWED)]
pub struct VirtualAddressError {
    value: String,
    wrong: &'static str,
}

impl FromStr for VirtualAddress {
    type Err = VirtualAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |wrong| VirtualAddressError { value: text.to_owned(), wrong };
        if let Some(mark) = text.strip_prefix("fwmark:") {
            return mark_and_family(mark).ok_or_else(|| wrong("is no mark of 1-4294967295"));
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(wrong("has no port"));
        }
        let (host, ports) = text.rsplit_once(':').ok_or_else(|| wrong("is no address and port"))?;
        let address: IpAddr = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(host) if host.contains('%') => return Err(wrong("names an interface")),
            Some(host) => host.parse::<Ipv6Addr>().map_err(|_| wrong("is no address and port"))?.into(),
            None => host.parse::<Ipv4Addr>().map_err(|_| wrong("is no address and port"))?.into(),
        };
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        if !digits(first) || !digits(last) {
            return Err(wrong("has no number for a port"));
        }
        let ports = match ports {
            "0" => ServicePorts::ALL,
            _ => {
                ports.parse::<PortRange>().map_err(|_| wrong("has no port, and no range of ports, of 1-65535"))?.into()
            }
        };
        Ok(Self { address, ports, mark: None })
    }
}

fn mark_and_family(text: &str) -> Option<VirtualAddress> {
    let (mark, is_ipv6) = text.strip_suffix("/ipv6").map_or((text, false), |mark| (mark, true));
    let is_number = !mark.is_empty() && mark.bytes().all(|byte| byte.is_ascii_digit());
    let mark = mark.parse().ok().filter(|_| is_number).and_then(Mark::new)?;
    Some(VirtualAddress::marked(mark, is_ipv6))
}

impl Serialize for VirtualAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VirtualAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Where the services of more than one port stand in a service table.
#[derive(Clone, Debug, Default)]
pub struct WideServices {
    by_address: HashMap<(Protocol, IpAddr), OfAddress>,
}

/// Those of one address and protocol.
#[derive(Clone, Debug, Default)]
struct OfAddress {
    /// In the order of their ports, which no two of them share.
    ranges: Vec<(ServicePorts, usize)>,
    all: Option<usize>,
}

impl WideServices {
    /// Those of these services.
    pub fn of(services: &[Service]) -> Self {
        let mut wide = Self::default();
        let is_wide = |service: &Service| service.key.mark.is_none() && service.key.ports.one().is_none();
        for (index, service) in services.iter().enumerate().filter(|(_, service)| is_wide(service)) {
            let of_address = wide.by_address.entry((service.key.protocol, service.key.address)).or_default();
            match service.key.ports.is_all() {
                true => of_address.all = Some(index),
                false => of_address.ranges.push((service.key.ports, index)),
            }
        }
        wide.by_address.values_mut().for_each(|of_address| of_address.ranges.sort_unstable());
        wide
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// The one that a port is for: of a range before one of all ports. A range is found in steps that grow with the logarithm
    /// of their number.
    pub fn find(&self, protocol: Protocol, address: IpAddr, port: u16) -> Option<usize> {
        let of_address = self.by_address.get(&(protocol, address))?;
        let behind = of_address.ranges.partition_point(|(ports, _)| ports.first() <= port);
        let range = of_address.ranges.get(behind.wrapping_sub(1)).filter(|(ports, _)| ports.contains(port));
        range.map(|&(_, index)| index).or(of_address.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> VirtualAddress {
        text.parse().unwrap()
    }

    #[test]
    fn are_written_as_they_are_read() {
        for text in [
            "10.0.0.100:80",
            "10.0.0.100:0",
            "10.0.0.100:8000-8099",
            "[2001:db8::1]:1-65535",
            "[::1]:0",
            "fwmark:1",
            "fwmark:4294967295/ipv6",
        ] {
            assert_eq!(parse(text).to_string(), text);
            let json = serde_json::to_string(&parse(text)).unwrap();
            assert_eq!(serde_json::from_str::<VirtualAddress>(&json).unwrap(), parse(text));
        }
        assert_eq!(parse("10.0.0.100:80-80"), parse("10.0.0.100:80"));
        assert_eq!(parse("10.0.0.100:0"), "10.0.0.100:0".parse::<SocketAddr>().unwrap().into());
    }

    #[test]
    fn what_is_none_is_told_why() {
        for (text, wrong) in [
            ("10.0.0.100", "has no port"),
            ("2001:db8::1", "has no port"),
            ("[2001:db8::1]", "is no address and port"),
            ("2001:db8::1:80-90", "is no address and port"),
            ("[fe80::1%2]:80", "names an interface"),
            ("10.0.0.100:", "has no number for a port"),
            ("10.0.0.100:+80", "has no number for a port"),
            ("10.0.0.100:80-", "has no number for a port"),
            ("10.0.0.100:99999", "has no port, and no range of ports, of 1-65535"),
            ("10.0.0.100:0-90", "has no port, and no range of ports, of 1-65535"),
            ("fwmark:0", "is no mark of 1-4294967295"),
            ("fwmark:4294967296", "is no mark of 1-4294967295"),
            ("fwmark:+1", "is no mark of 1-4294967295"),
            ("fwmark:1/inet6", "is no mark of 1-4294967295"),
            ("10.0.0.100:90-80", "has no port, and no range of ports, of 1-65535"),
        ] {
            let error = text.parse::<VirtualAddress>().unwrap_err();
            assert_eq!(error.wrong, wrong, "{text}");
            assert!(error.to_string().contains("; allowed: ADDRESS:PORT"), "{error}");
        }
    }

    #[test]
    fn ranges_overlap_in_any_port_and_with_nothing_but_ranges() {
        let ports = |text: &str| parse(&format!("10.0.0.1:{text}")).ports;
        assert!(ports("80-90").overlaps(ports("90-95")));
        assert!(ports("80-90").overlaps(ports("1-65535")));
        assert!(!ports("80-90").overlaps(ports("91-95")));
        assert!(!ports("80-90").overlaps(ports("85")));
        assert!(!ports("80-90").overlaps(ports("0")));
        assert!(ports("0").contains(0) && ports("0").contains(u16::MAX) && !ports("80-90").contains(91));
    }
}
