//! Next hops under indices that stay: what sessions remember of a route. Knows nothing of prefixes.
//!
//! A hop has an entry for each family of packets that it is sent: the Ethernet header differs by its EtherType. Nearly
//! every hop carries its own family only; an IPv6 gateway of an IPv4 route (RFC 8950) carries both.
//! Invariant: an index means the same in every later table as long as it is wanted, or was known and nothing else
//! needed the index. What is wanted is the caller's word.

use std::net::IpAddr;

use hashbrown::HashMap;

use super::{Interface, MAX_HOPS};
use crate::forward::Hop;
use crate::port::MacAddress;
use crate::wire::ethernet;

/// A family of packets. Not of hops: see the module.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    /// That of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }

    /// The EtherType, in network order.
    const fn ethertype(self) -> [u8; 2] {
        match self {
            Self::Ipv4 => ethernet::IPV4.to_be_bytes(),
            Self::Ipv6 => ethernet::IPV6.to_be_bytes(),
        }
    }
}

/// A hop and the packets that it is sent.
pub(super) type Carrier = (Hop, Family);

/// What a table needs entries for, and what is known of each.
pub(super) type Wanted = HashMap<Carrier, Option<MacAddress>>;

/// Names a hop in a [`super::RouteTable`], in this one and in its successors of the same generation. Never 65,535,
/// which is free to mean "none".
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct HopIndex(pub u16);

/// All that it takes to send a packet to a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopEntry {
    /// The neighbour.
    pub hop: Hop,
    /// Whether its link-layer address is known; if not, `header` must not be used.
    pub resolved: bool,
    /// The Ethernet header: destination, source, EtherType of the packets that were resolved to it; ready to copy.
    pub header: [u8; 14],
    /// Bytes of the largest IP packet that the port sends.
    pub mtu: u16,
}

/// The entries and the way back from a hop to its index.
#[derive(Clone, Debug, Default)]
pub(super) struct Hops {
    slots: Vec<Option<Slot>>,
    indices: Indices,
    left_out: usize,
}

/// An entry and for how many tables nobody wanted it. On a cache line of its own: a packet reads one.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Slot {
    entry: HopEntry,
    family: Family,
    unwanted_tables: u16,
}

impl Slot {
    fn new((hop, family): Carrier, mac: Option<MacAddress>, interface: &Interface, unwanted_tables: u16) -> Self {
        Self { entry: entry(hop, family, mac, interface), family, unwanted_tables }
    }

    fn carrier(&self) -> Carrier {
        (self.entry.hop, self.family)
    }
}

/// The way from a carrier to its index. IPv4 hops, which carry IPv4 only, have a map of their own: its short keys are
/// quicker to hash, and each new session asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Indices {
    ipv4: HashMap<u64, u16>,
    others: HashMap<Carrier, u16>,
}

impl Indices {
    fn get(&self, carrier: &Carrier) -> Option<u16> {
        match short_key(carrier) {
            Some(key) => self.ipv4.get(&key).copied(),
            None => self.others.get(carrier).copied(),
        }
    }

    fn insert(&mut self, carrier: Carrier, index: u16) {
        match short_key(&carrier) {
            Some(key) => self.ipv4.insert(key, index),
            None => self.others.insert(carrier, index),
        };
    }

    fn remove(&mut self, carrier: &Carrier) {
        match short_key(carrier) {
            Some(key) => self.ipv4.remove(&key),
            None => self.others.remove(carrier),
        };
    }
}

/// What names an IPv4 hop; none for others.
fn short_key((hop, family): &Carrier) -> Option<u64> {
    match (hop.address, family) {
        (IpAddr::V4(address), Family::Ipv4) => Some(u64::from(hop.port.0) << 32 | u64::from(address.to_bits())),
        _ => None,
    }
}

impl Hops {
    /// The successor of `previous` with an entry for each of `wanted`. Entries of `previous` that are wanted no more stay, unresolved, where `keep` says so and no other hop needs the index.
    /// `interface` gives the port of a hop; hops of unknown ports get no entry.
    pub fn new<'a>(
        previous: &Self,
        wanted: &Wanted,
        keep: impl Fn(Hop) -> bool,
        interface: impl Fn(Hop) -> Option<&'a Interface>,
    ) -> Self {
        let mut hops = Self { slots: Vec::with_capacity(previous.slots.len()), ..Self::default() };
        for (index, slot) in previous.slots.iter().enumerate() {
            let slot = slot.and_then(|slot| {
                let carrier @ (hop, family) = slot.carrier();
                let interface = interface(hop)?;
                match wanted.get(&carrier) {
                    Some(&mac) => Some(Slot::new(carrier, mac, interface, 0)),
                    // Only to a hop of their own family are packets sent without a gateway.
                    None if family == Family::of(hop.address) && keep(hop) => {
                        Some(Slot::new(carrier, None, interface, slot.unwanted_tables.saturating_add(1)))
                    }
                    None => None,
                }
            });
            if let (Some(slot), Ok(index)) = (slot, u16::try_from(index)) {
                hops.indices.insert(slot.carrier(), index);
            }
            hops.slots.push(slot);
        }
        hops.add(wanted, interface);
        hops
    }

    /// Where `hop` is as the carrier of packets of `family`.
    pub fn index(&self, hop: Hop, family: Family) -> Option<HopIndex> {
        self.indices.get(&(hop, family)).map(HopIndex)
    }

    /// What is at `index`.
    pub fn get(&self, index: HopIndex) -> Option<&HopEntry> {
        self.slots.get(usize::from(index.0))?.as_ref().map(|slot| &slot.entry)
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = &HopEntry> {
        self.slots.iter().flatten().map(|slot| &slot.entry)
    }

    /// Hops that found no index.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Whether both give every hop the same index.
    pub fn same_indices(&self, other: &Self) -> bool {
        self.indices == other.indices
    }

    /// Finds indices for the wanted hops that have none yet.
    fn add<'a>(&mut self, wanted: &Wanted, interface: impl Fn(Hop) -> Option<&'a Interface>) {
        let mut new: Vec<(Carrier, Option<MacAddress>, &Interface)> = wanted
            .iter()
            .filter(|(carrier, _)| self.indices.get(carrier).is_none())
            .filter_map(|(&carrier, &mac)| Some((carrier, mac, interface(carrier.0)?)))
            .collect();
        // The map's order is random; equal inputs should give equal tables.
        new.sort_by_key(|((hop, family), _, _)| (hop.port, hop.address, *family));
        let mut free = self.free_indices(new.len()).into_iter();
        for (carrier, mac, interface) in new {
            let Some(index) = free.next() else {
                self.left_out += 1;
                continue;
            };
            let slot = Slot::new(carrier, mac, interface, 0);
            if let Some(evicted) = self.slots[usize::from(index)].replace(slot) {
                self.indices.remove(&evicted.carrier());
            }
            self.indices.insert(carrier, index);
        }
    }

    /// Up to `count` indices to use: empty ones, then new ones, then those of hops that nobody wants, the longest
    /// unwanted first.
    fn free_indices(&mut self, count: usize) -> Vec<u16> {
        let empty = (0..u16::MAX).zip(&self.slots).filter(|(_, slot)| slot.is_none()).map(|(index, _)| index);
        let mut free: Vec<u16> = empty.take(count).collect();
        while free.len() < count && self.slots.len() < MAX_HOPS {
            free.extend(u16::try_from(self.slots.len()));
            self.slots.push(None);
        }
        if free.len() < count {
            let mut unwanted: Vec<(u16, u16)> = (0..u16::MAX)
                .zip(&self.slots)
                .filter_map(|(index, slot)| slot.as_ref().map(|slot| (slot.unwanted_tables, index)))
                .filter(|&(unwanted_tables, _)| unwanted_tables > 0)
                .collect();
            unwanted.sort_unstable_by(|a, b| b.cmp(a));
            free.extend(unwanted.into_iter().take(count - free.len()).map(|(_, index)| index));
        }
        free
    }
}

/// The entry of a hop behind `interface` for packets of `family`.
fn entry(hop: Hop, family: Family, mac: Option<MacAddress>, interface: &Interface) -> HopEntry {
    let mut header = [0; 14];
    header[..6].copy_from_slice(&mac.unwrap_or_default().0);
    header[6..12].copy_from_slice(&interface.mac.0);
    header[12..].copy_from_slice(&family.ethertype());
    HopEntry { hop, resolved: mac.is_some(), header, mtu: interface.mtu }
}
