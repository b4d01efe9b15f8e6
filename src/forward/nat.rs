//! NAT: real servers that have the gateway as their way to clients, so that a session needs no address of its own.

use std::net::Ipv4Addr;

use super::DropReason;
use crate::balance::{Protocol, RealServer};
use crate::flow::{FlowHash, FlowKey};
use crate::session::SessionTable;

/// The hash of the key that a new session's answers will have, if no other session has these answers: the same client
/// and port may reach the same real server by another service, and what the real server says to the one could not be
/// told from what it says to the other.
pub(super) fn claim_answers(
    sessions: &SessionTable,
    protocol: Protocol,
    server: &RealServer,
    client: (Ipv4Addr, u16),
) -> Result<FlowHash, DropReason> {
    let answer = FlowKey::new(protocol, (server.address, server.port), client);
    let hash = sessions.hash(&answer);
    if sessions.find(hash, &answer).is_some() { Err(DropReason::AnswersAmbiguous) } else { Ok(hash) }
}
