//! Where a packet goes next.

use super::verdict::{Hop, Verdict};
use crate::wire::ethernet;

/// The next hop of a packet, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'a> {
    /// To whom.
    pub(super) hop: Hop,
    /// Bytes of the largest IP packet that goes there.
    pub(super) mtu: u16,
    /// The Ethernet header; none while the hop has not answered.
    pub(super) header: Option<&'a [u8; ethernet::LEN]>,
}

impl<'a> Way<'a> {
    /// To a hop that takes IP packets of so many bytes.
    pub(super) fn new((hop, mtu): (Hop, u16), header: Option<&'a [u8; ethernet::LEN]>) -> Self {
        Self { hop, mtu, header }
    }

    /// What becomes of a packet that has been made ready for it.
    pub(super) fn verdict(&self) -> Verdict {
        if self.header.is_some() { Verdict::Transmit(self.hop.port) } else { Verdict::AwaitNeighbour(self.hop) }
    }
}
