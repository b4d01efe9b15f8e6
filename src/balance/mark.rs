//! Packets that services are for by a mark and not by their address: fwmark services.
//!
//! A kernel's firewall marks packets for IPVS. Here rules of the configuration do: they stand in an order, and the first that
//! matches a flow gives it its mark. They are looked at when a session is set up and never again.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::selector::Selector;
use super::service::Service;
use crate::flow::{Address, FlowKey};
use crate::port::PortId;

/// A firewall mark (`fwmark`). 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(pub NonZeroU32);

impl Mark {
    /// How one is written, for messages.
    pub const ALLOWED: &'static str = "a mark from 1 to 4294967295";

    /// None of 0.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One rule, as workers have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkRule {
    /// Which flows it is for.
    pub selector: Selector,
    /// What it marks them with.
    pub mark: Mark,
}

/// The rules, and where the services of marks stand in a service table.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    rules: Vec<MarkRule>,
    /// By mark, and whether their clients are of IPv6.
    services: HashMap<(Mark, bool), usize>,
}

impl Marks {
    /// These rules, with the services of marks among `services`.
    pub fn of(rules: Vec<MarkRule>, services: &[Service]) -> Self {
        let by_mark = services.iter().enumerate().filter_map(|(index, service)| {
            let mark = service.key.mark?;
            Some(((mark, service.key.address.is_ipv6()), index))
        });
        Self { rules, services: by_mark.collect() }
    }

    /// Whether no flow can have a service by its mark.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() || self.services.is_empty()
    }

    /// Where the service of a flow's mark stands in the table, whose first packet entered by `port`; none: it has no mark, or no
    /// service is for that.
    pub fn find<A: Address>(&self, key: &FlowKey<A>, port: PortId) -> Option<usize> {
        let rule = self.rules.iter().find(|rule| rule.selector.matches(key, port))?;
        self.services.get(&(rule.mark, key.destination().into().is_ipv6())).copied()
    }

    /// Whether any flow to an address may have a mark.
    pub fn may_mark(&self, destination: IpAddr) -> bool {
        let covers = |rule: &MarkRule| rule.selector.destination.is_none_or(|network| network.contains(destination));
        !self.is_empty() && self.rules.iter().any(covers)
    }
}
