//! Next hops under indices that stay: what sessions remember of a route. Knows nothing of prefixes.
//!
//! Invariant: an index means the same hop in every later table as long as the hop is wanted, or was known and no
//! other hop needed the index. Which hops are wanted is the caller's word.

use hashbrown::HashMap;

use super::{Interface, MAX_HOPS};
use crate::forward::Hop;
use crate::port::MacAddress;

/// EtherType of IPv4, in network order.
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];

/// Names a hop in a [`super::RouteTable`], in this one and in its successors of the same generation. Never 65,535,
/// which is free to mean "none".
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct HopIndex(pub u16);

/// All that it takes to send an IPv4 packet to a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopEntry {
    /// The neighbour.
    pub hop: Hop,
    /// Whether its link-layer address is known; if not, `header` must not be used.
    pub resolved: bool,
    /// The Ethernet header: destination, source, 0x0800; ready to copy.
    pub header: [u8; 14],
    /// Bytes of the largest IP packet that the port sends.
    pub mtu: u16,
}

/// The entries and the way back from a hop to its index.
#[derive(Clone, Debug, Default)]
pub(super) struct Hops {
    slots: Vec<Option<Slot>>,
    indices: HashMap<Hop, u16>,
    left_out: usize,
}

/// An entry and for how many tables nobody wanted it.
#[derive(Clone, Copy, Debug)]
struct Slot {
    entry: HopEntry,
    unwanted_tables: u16,
}

impl Hops {
    /// The successor of `previous` with an entry for each of `wanted`. Entries of `previous` that are wanted no more stay, unresolved, where `keep` says so and no other hop needs the index.
    /// `interface` gives the port of a hop; hops of unknown ports get no entry.
    pub fn new<'a>(
        previous: &Self,
        wanted: &HashMap<Hop, Option<MacAddress>>,
        keep: impl Fn(Hop) -> bool,
        interface: impl Fn(Hop) -> Option<&'a Interface>,
    ) -> Self {
        let mut hops = Self { slots: Vec::with_capacity(previous.slots.len()), ..Self::default() };
        for (index, slot) in previous.slots.iter().enumerate() {
            let slot = slot.and_then(|slot| {
                let hop = slot.entry.hop;
                let interface = interface(hop)?;
                match wanted.get(&hop) {
                    Some(&mac) => Some(Slot { entry: entry(hop, mac, interface), unwanted_tables: 0 }),
                    None if keep(hop) => Some(Slot {
                        entry: entry(hop, None, interface),
                        unwanted_tables: slot.unwanted_tables.saturating_add(1),
                    }),
                    None => None,
                }
            });
            if let (Some(slot), Ok(index)) = (slot, u16::try_from(index)) {
                hops.indices.insert(slot.entry.hop, index);
            }
            hops.slots.push(slot);
        }
        hops.add(wanted, interface);
        hops
    }

    /// Where `hop` is.
    pub fn index(&self, hop: Hop) -> Option<HopIndex> {
        self.indices.get(&hop).copied().map(HopIndex)
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
    fn add<'a>(&mut self, wanted: &HashMap<Hop, Option<MacAddress>>, interface: impl Fn(Hop) -> Option<&'a Interface>) {
        let mut new: Vec<(Hop, Option<MacAddress>, &Interface)> = wanted
            .iter()
            .filter(|(hop, _)| !self.indices.contains_key(*hop))
            .filter_map(|(&hop, &mac)| Some((hop, mac, interface(hop)?)))
            .collect();
        // The map's order is random; equal inputs should give equal tables.
        new.sort_by_key(|(hop, _, _)| (hop.port, hop.address));
        let mut free = self.free_indices(new.len()).into_iter();
        for (hop, mac, interface) in new {
            let Some(index) = free.next() else {
                self.left_out += 1;
                continue;
            };
            let slot = Slot { entry: entry(hop, mac, interface), unwanted_tables: 0 };
            if let Some(evicted) = self.slots[usize::from(index)].replace(slot) {
                self.indices.remove(&evicted.entry.hop);
            }
            self.indices.insert(hop, index);
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

/// The entry of a hop behind `interface`.
fn entry(hop: Hop, mac: Option<MacAddress>, interface: &Interface) -> HopEntry {
    let mut header = [0; 14];
    header[..6].copy_from_slice(&mac.unwrap_or_default().0);
    header[6..12].copy_from_slice(&interface.mac.0);
    header[12..].copy_from_slice(&ETHERTYPE_IPV4);
    HopEntry { hop, resolved: mac.is_some(), header, mtu: interface.mtu }
}
