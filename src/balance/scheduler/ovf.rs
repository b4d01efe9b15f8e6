//! Weighted overflow (net/netfilter/ipvs/ip_vs_ovf.c): the greatest weight of those that have no more active connections
//! than their weight, the first of equals. Connections over UDP are never active: they do not overflow.

use super::fo::greatest;
use super::{Loads, RealServer, eligible};

pub(super) fn schedule(servers: &[RealServer], loads: &impl Loads) -> Option<usize> {
    let has_room = |server: &RealServer| loads.load(server.slot).active <= server.weight.0.into();
    greatest(eligible(servers, loads).filter(|(_, server)| has_room(server)))
}
