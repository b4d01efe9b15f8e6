//! Sessions that end with a packet of their own: by a SYN those that are over but for their timeout, and, where it is set so,
//! those whose real server is gone (net/netfilter/ipvs/ip_vs_core.c, `ip_vs_in_hook`).

use super::flows::bits;
use super::plane::Plane;
use super::{DropReason, Forwarder, Verdict, is_opening};
use crate::flow::Direction;
use crate::port::BURST_SIZE;
use crate::session::{Found, State};
use crate::wire::tcp::Flags;

impl Forwarder {
    /// Whether a client's packet has come for a session that ends with it: by a SYN one that is over but for its timeout, by
    /// any packet one whose real server was removed, where it is set so (net/netfilter/ipvs/ip_vs_core.c, `ip_vs_in_hook`).
    #[inline(always)]
    pub(super) fn gives_way<A: Plane>(&self, flags: Flags, found: Found) -> bool {
        let may_end = is_opening(flags) || self.services.sysctls.expire_nodest_conn;
        may_end && found.direction == Direction::Inbound && self.is_to_end::<A>(flags, found)
    }

    #[inline(never)]
    fn is_to_end<A: Plane>(&self, flags: Flags, found: Found) -> bool {
        let sysctls = self.services.sysctls;
        let session = A::table(&self.sessions).session(found.index);
        if sysctls.expire_nodest_conn && !self.services.is_present(session.real_server()) {
            return true;
        }
        let state = session.state();
        let is_over = || {
            state.gives_way_to_syn()
                || (state == State::FinWait && sysctls.reuses_fin_wait() && session.mode().is_one_way())
        };
        let is_drained = || sysctls.expire_nodest_conn && self.services.is_drained(session.real_server());
        // A client that stays with its real server goes on there with what it has (`is_new_conn_expected`).
        let may_be_over = || sysctls.reuses() && session.template().is_none() && is_over();
        is_opening(flags) && (is_drained() || may_be_over())
    }

    /// A packet of a session whose real server was removed is dropped; or that session ends, but not now, since other
    /// packets of the burst may have found it, too.
    #[cold]
    pub(super) fn without_real_server(&mut self) -> Verdict {
        self.met_removed = self.services.sysctls.expire_nodest_conn;
        Verdict::Drop(DropReason::RealServerRemoved)
    }

    /// Of these packets, those that stay as they are: the others are seen to as if they had no session, which then ends.
    #[cold]
    #[inline(never)]
    pub(super) fn leave_removed(&mut self, hits: u32, verdicts: &[Verdict; BURST_SIZE]) -> u32 {
        self.met_removed = false;
        let is_left = |&index: &usize| verdicts[index] == Verdict::Drop(DropReason::RealServerRemoved);
        bits(hits).filter(is_left).fold(hits, |hits, index| hits & !(1 << index))
    }
}
