//! Datagrams that come in fragments: what became of the first one, for the later ones to follow, and which pieces there were.
//!
//! A table of fixed size, made at the start. Each look-up looks at one row. Where a row is full, a new datagram takes the place of
//! one that is complete, else of the one that has been quiet longest: fragments of a datagram come within moments, so that the flood
//! that fills the table drives out its own.

use std::net::Ipv6Addr;

use super::Now;
use super::parse::Fragment;
use super::verdict::{DatagramTag, DropReason, PuntClass};
use crate::balance::Protocol;
use crate::flow::{Address, FlowHash, FlowKey, HashSeed};
use crate::port::WorkerId;

/// Datagrams that a worker remembers: 256 rows of 8, of about 600 bytes each.
const ROWS: u32 = 256;
const ROW: usize = 8;
/// How long one is remembered after its last fragment, in nanoseconds. Identifications come again: those of IPv4, at 8,000 bytes a
/// datagram and a gigabit a second, after four seconds.
const MEMORY: u64 = 5_000_000_000;
/// Pieces of one datagram: enough for 64 kilobytes in pieces of 576 bytes, or in pieces of 1,500 bytes each of which is cut in two.
pub(super) const MOST_PIECES: usize = 128;

/// The name of a datagram: addresses, identification, and over IPv4 the protocol (RFC 791, 2.3; RFC 8200, 4.5). Kept as a flow's
/// key with the identification in place of the ports, and IPv4's addresses mapped, which no packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Datagram(FlowKey<Ipv6Addr>);

impl Datagram {
    /// The datagram of a fragment.
    pub(super) fn of<A: Address>(fragment: &Fragment<A>) -> Self {
        let key = &fragment.packet.key;
        let (source, destination) = (key.source().into(), key.destination().into());
        let mapped = |address| Ipv6Addr::of(address).unwrap_or(Ipv6Addr::UNSPECIFIED);
        let protocol = if source.is_ipv4() { key.protocol() } else { Protocol::Udp };
        let addresses = Ipv6Addr::pair(mapped(source), mapped(destination));
        Self(FlowKey::from_wire(protocol, addresses, fragment.piece.identification.to_be_bytes()))
    }

    /// Its hash, by which it is looked up and has its worker.
    pub(super) fn hash(&self, seed: HashSeed) -> FlowHash {
        seed.hash(&self.0)
    }
}

/// What its early fragments are kept by.
pub(super) fn tag(hash: FlowHash) -> DatagramTag {
    DatagramTag(hash.0.to_ne_bytes())
}

/// What became of a datagram's first fragment, and so becomes of the later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It went to its session, whose packets have this protocol and these ports.
    Forwarded(Protocol, [u8; 4]),
    /// It went to the worker that owns its session.
    HandedOn(WorkerId),
    /// The kernel got it.
    Punted(PuntClass),
    /// It was dropped, or one of its pieces is not right.
    Dropped(DropReason),
    /// It has not gone yet; the datagram ends here, in bytes: kept of SCTP, whose checksum depends on it.
    Ending(u16),
}

/// What is remembered of one datagram.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// None: nothing.
    datagram: Option<Datagram>,
    /// In nanoseconds: among many of one moment the oldest is to be told.
    until: u64,
    pub(super) fate: Fate,
    pub(super) pieces: Pieces,
}

/// The pieces of a datagram that have been forwarded.
#[derive(Clone, Debug)]
pub(super) struct Pieces {
    /// Where they begin and end, in bytes.
    ranges: [(u16, u16); MOST_PIECES],
    count: u8,
    /// Bytes that they have together.
    bytes: u32,
    /// Where the datagram ends, once the last one has come.
    end: Option<u16>,
}

impl Pieces {
    const NONE: Self = Self { ranges: [(0, 0); MOST_PIECES], count: 0, bytes: 0, end: None };

    fn known(&self) -> &[(u16, u16)] {
        self.ranges.get(..usize::from(self.count)).unwrap_or_default()
    }

    /// Whether all have come.
    pub(super) fn are_complete(&self) -> bool {
        self.end.is_some_and(|end| self.bytes == u32::from(end))
    }

    /// Whether a piece is the same as one that has come: the network may double packets (RFC 8200, 4.5).
    pub(super) fn have<A: Address>(&self, fragment: &Fragment<A>) -> bool {
        let is_last = self.end == Some(fragment.end);
        is_last != fragment.piece.more && self.known().contains(&(fragment.piece.offset, fragment.end))
    }

    /// What is wrong with a piece that has not come before, in the light of those that have.
    pub(super) fn refuse<A: Address>(&self, fragment: &Fragment<A>) -> Result<(), DropReason> {
        let (start, end) = (fragment.piece.offset, fragment.end);
        let overlaps = self.known().iter().any(|&(from, to)| start < to && from < end);
        let beyond_end = self.end.is_some_and(|last| end > last || !fragment.piece.more);
        let before_others = !fragment.piece.more && self.known().iter().any(|&(_, to)| to > end);
        if overlaps || beyond_end || before_others {
            return Err(DropReason::FragmentOverlap);
        }
        if self.known().len() == MOST_PIECES { Err(DropReason::FragmentsTooMany) } else { Ok(()) }
    }

    /// Remembers a piece that has not come before and is not refused.
    pub(super) fn add<A: Address>(&mut self, fragment: &Fragment<A>) {
        let Some(range) = self.ranges.get_mut(usize::from(self.count)) else { return };
        *range = (fragment.piece.offset, fragment.end);
        self.count += 1;
        self.bytes += u32::from(fragment.end - fragment.piece.offset);
        if !fragment.piece.more {
            self.end = Some(fragment.end);
        }
    }
}

impl Memory {
    const NOTHING: Self =
        Self { datagram: None, until: 0, fate: Fate::Dropped(DropReason::FragmentNotForwarded), pieces: Pieces::NONE };

    /// A piece has gone the datagram's way.
    pub(super) fn went<A: Address>(&mut self, fragment: &Fragment<A>, now: Now) {
        self.until = now.nanoseconds + MEMORY;
        self.pieces.add(fragment);
    }

    /// Nothing is remembered any more.
    pub(super) fn forget(&mut self) {
        self.datagram = None;
    }

    fn is_of_use(&self, now: Now) -> bool {
        self.datagram.is_some() && self.until > now.nanoseconds
    }
}

/// One worker's datagrams.
#[derive(Debug)]
pub(super) struct Datagrams {
    rows: Box<[[Memory; ROW]]>,
}

impl Default for Datagrams {
    fn default() -> Self {
        Self { rows: vec![[Memory::NOTHING; ROW]; ROWS as usize].into_boxed_slice() }
    }
}

impl Datagrams {
    /// What is remembered of a datagram.
    pub(super) fn find(&mut self, hash: FlowHash, datagram: &Datagram, now: Now) -> Option<&mut Memory> {
        let row = self.rows.get_mut(hash.reduce(ROWS) as usize)?;
        row.iter_mut().find(|memory| memory.datagram.as_ref() == Some(datagram) && memory.until > now.nanoseconds)
    }

    /// Forgets a datagram.
    pub(super) fn forget(&mut self, hash: FlowHash, datagram: &Datagram) {
        let row = self.rows.get_mut(hash.reduce(ROWS) as usize);
        let of_it = |memory: &&mut Memory| memory.datagram.as_ref() == Some(datagram);
        row.into_iter().flatten().filter(of_it).for_each(Memory::forget);
    }

    /// Remembers a datagram, of which nothing is remembered yet, and gives whether an incomplete one had to be forgotten for it.
    pub(super) fn remember(
        &mut self,
        hash: FlowHash,
        datagram: Datagram,
        fate: Fate,
        now: Now,
    ) -> Option<(&mut Memory, bool)> {
        let row = self.rows.get_mut(hash.reduce(ROWS) as usize)?;
        let worth = |memory: &Memory| match (memory.is_of_use(now), memory.pieces.are_complete()) {
            (false, _) => (0, 0),
            (true, true) => (1, 0),
            (true, false) => (2, memory.until),
        };
        let place = row.iter_mut().min_by_key(|memory| worth(memory))?;
        let loses = worth(place).0 == 2;
        *place = Memory { datagram: Some(datagram), until: now.nanoseconds + MEMORY, fate, pieces: Pieces::NONE };
        Some((place, loses))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::forward::parse::Packet;
    use crate::wire::fragment::Piece;

    fn fragment(identification: u32, offset: u16, end: u16, more: bool) -> Fragment<Ipv6Addr> {
        Fragment { packet: Packet::NONE, piece: Piece { identification, offset, more, data_at: 48 }, end }
    }

    #[test]
    fn pieces_that_overlap_or_contradict_the_end_are_refused_and_doubles_known() {
        let mut pieces = Pieces::NONE;
        for piece in [fragment(1, 0, 16, true), fragment(1, 32, 48, true)] {
            assert_eq!((pieces.have(&piece), pieces.refuse(&piece)), (false, Ok(())));
            pieces.add(&piece);
            assert!(pieces.have(&piece));
        }
        for (offset, end, more) in [(0, 8, true), (8, 24, true), (16, 40, true), (24, 33, false), (16, 24, false)] {
            let piece = fragment(1, offset, end, more);
            assert_eq!((pieces.have(&piece), pieces.refuse(&piece)), (false, Err(DropReason::FragmentOverlap)));
        }
        assert!(!pieces.have(&fragment(1, 32, 48, false)), "the same place, but the last");
        pieces.add(&fragment(1, 48, 50, false));
        assert_eq!(pieces.refuse(&fragment(1, 56, 64, true)), Err(DropReason::FragmentOverlap));
        assert!(!pieces.are_complete());
        pieces.add(&fragment(1, 16, 32, true));
        assert!(pieces.are_complete());
    }

    #[test]
    fn no_more_pieces_than_there_is_room_for() {
        let mut pieces = Pieces::NONE;
        for n in 0..128 {
            pieces.add(&fragment(1, n * 8, n * 8 + 8, true));
        }
        assert_eq!(pieces.refuse(&fragment(1, 1024, 1032, true)), Err(DropReason::FragmentsTooMany));
    }

    proptest! {
        /// In any order, a datagram's pieces are taken, and are complete with the last of them and not before.
        #[test]
        fn any_order_completes(lengths in proptest::collection::vec(1u16..60, 1..128), seed in any::<u64>()) {
            let mut start = 0;
            let mut all: Vec<_> = lengths.iter().map(|len| { let from = start; start += len * 8; (from, start) }).collect();
            let last = start;
            let mut state = seed | 1;
            for index in (1..all.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                all.swap(index, (state >> 33) as usize % (index + 1));
            }
            let mut pieces = Pieces::NONE;
            for (from, to) in all {
                let piece = fragment(1, from, to, to != last);
                prop_assert!(!pieces.are_complete());
                prop_assert_eq!(pieces.refuse(&piece), Ok(()));
                pieces.add(&piece);
            }
            prop_assert!(pieces.are_complete());
        }
    }

    /// A flood of datagrams that never end leaves one alone whose fragments keep coming.
    #[test]
    fn a_flood_drives_out_its_own() {
        let (mut datagrams, seed) = (Datagrams::default(), HashSeed([1, 2]));
        let at = |microsecond: u32| Now::from_nanoseconds(u64::from(microsecond) * 1000);
        let fate = Fate::HandedOn(WorkerId(1));
        let mine = Datagram::of(&fragment(0, 0, 8, true));
        let mut lost = 0;
        datagrams.remember(mine.hash(seed), mine, fate, at(0));
        for n in 1..100_000 {
            let now = at(n);
            let other = Datagram::of(&fragment(n, 0, 8, true));
            lost += u32::from(datagrams.remember(other.hash(seed), other, fate, now).is_some_and(|(_, lost)| lost));
            if n % 250 == 0 {
                let memory = datagrams.find(mine.hash(seed), &mine, now).expect("still there");
                memory.went(&fragment(0, 8, 16, true), now);
            }
        }
        assert!(lost > 90_000);
        assert!(datagrams.find(mine.hash(seed), &mine, at(100_000 + 5_000_000)).is_none(), "in time it is forgotten");
    }
}
