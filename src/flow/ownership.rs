//! Whose a packet to a local address (LIP) is, where the worker that it arrived at knows no session of it.
//!
//! Each port of the gateway has one of two ways, chosen at start and never changed: on a port whose RSS is known, the
//! packet is the worker's that the device would bring it to; on any other, local ports are dealt out to workers in
//! turn. So are those of SCTP on all ports: devices hash it as they like. It is the port on which the local address stands that counts, not the one that the packet came in by: so all
//! workers find the same owner for an answer that took another way.

use std::sync::Arc;

use super::rss::RssDeal;
use super::{Address, FlowKey, local_port_owner};
use crate::balance::Protocol;
use crate::port::{PortId, WorkerId};

/// The ways of all ports.
#[derive(Clone, Debug)]
pub struct Ownership {
    workers: u8,
    /// By port; none: in turn.
    ports: Arc<[Option<Arc<RssDeal>>]>,
}

impl Ownership {
    /// Local ports are dealt out in turn, on all ports.
    pub fn in_turn(workers: u8) -> Self {
        Self::new(workers, [])
    }

    /// By port what its RSS deals out, where that is known.
    pub fn new(workers: u8, ports: impl IntoIterator<Item = Option<Arc<RssDeal>>>) -> Self {
        Self { workers: workers.max(1), ports: ports.into_iter().collect() }
    }

    /// What RSS deals out on a port of the packets of a protocol.
    #[inline]
    pub fn rss(&self, port: PortId, protocol: Protocol) -> Option<&RssDeal> {
        self.ports.get(port.index())?.as_deref().filter(|_| protocol.is_dealt_by_rss())
    }

    /// The owner of a packet to a local address that stands on `port`.
    pub fn of_answer<A: Address>(&self, port: PortId, key: &FlowKey<A>) -> WorkerId {
        match self.rss(port, key.protocol()) {
            Some(deal) => deal.owner(key),
            None => local_port_owner(key.destination_port(), self.workers),
        }
    }
}
