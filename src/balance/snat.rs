//! Which flows of networks behind the gateway it lets out, and from which local addresses: source NAT.
//!
//! Rules stand in an order, and the first that matches a flow is the one for it. They are looked at when a session is set
//! up and never again: a session stays its rule's.

use super::selector::Selector;
use super::service::RealServerSlot;

/// One rule, as workers have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnatRule {
    /// Which flows it is for. Its source is given.
    pub selector: Selector,
    /// Index into [`ServiceTable::pools`](super::ServiceTable::pools): whose addresses become its source.
    pub pool: usize,
    /// What its sessions belong to and are counted by, as those of a real server are.
    pub slot: RealServerSlot,
    /// A stable number for the pool's turn, below [`ServiceTable::cursor_count`](super::ServiceTable::cursor_count).
    pub cursor: usize,
}
