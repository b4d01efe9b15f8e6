//! NAT: real servers that have the gateway as their way to clients, so that a session needs no address of its own.

use super::DropReason;
use crate::balance::Protocol;
use crate::flow::{FlowHash, FlowKey};
use crate::session::{Tabled, Tables};

/// The hash of the key that a new session's answers will have, if no other session has these answers: the same client
/// and port may reach the same real server by another service, and what the real server says to the one could not be
/// told from what it says to the other.
pub(super) fn claim_answers<A: Tabled>(
    sessions: &Tables,
    protocol: Protocol,
    real: (A, u16),
    client: (A, u16),
) -> Result<FlowHash, DropReason> {
    A::unused(sessions, &FlowKey::new(protocol, real, client)).ok_or(DropReason::AnswersAmbiguous)
}
