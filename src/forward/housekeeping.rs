//! What a forwarder is asked for between bursts: to end sessions and templates whose time is over, and to show sessions. Each step is
//! bounded, so that no burst waits long for it.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::plane::Plane;
use super::{Forwarder, Now};
use crate::session::{SessionView, Tables};

/// All templates are swept within so many ticks, two seconds,
const TICKS_TO_SWEEP_TEMPLATES: usize = 20;
/// ... unless that were more buckets a tick for each worker: a hundred microseconds where none of them is in a cache.
const TEMPLATE_BUCKETS_A_TICK: usize = 1024;

/// What [`Forwarder::expire`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiryStep {
    /// Sessions that it looked at.
    pub looked_at: u32,
    /// Whether there may be more whose time is over.
    pub more: bool,
}

impl Forwarder {
    /// Ends sessions whose time is over, a few at most: a step of some microseconds.
    pub fn expire(&mut self, now: Now) -> ExpiryStep {
        let ipv4 = self.expire_in::<Ipv4Addr>(now);
        if ipv4.looked_at > 0 || ipv4.more {
            return ipv4;
        }
        self.expire_in::<Ipv6Addr>(now)
    }

    fn expire_in<A: Plane>(&mut self, now: Now) -> ExpiryStep {
        if !A::table(&self.sessions).is_due(now.tick) {
            return ExpiryStep { looked_at: 0, more: false };
        }
        let expired = A::table_mut(&mut self.sessions).expired(now.tick);
        let step = ExpiryStep { looked_at: expired.looked_at(), more: expired.more() };
        for expired in expired {
            let session = A::table_mut(&mut self.sessions).remove_expired(expired);
            self.ended(&session);
        }
        step
    }

    /// Buckets of templates that this worker is to sweep in the tick that begins: with those of the other workers, all within two seconds,
    /// or as soon as a bounded part of its time allows.
    pub fn begin_sweep(&self, now: Now) -> usize {
        self.services.templates.tell_time(now.tick);
        let own = self.services.templates.buckets().div_ceil(usize::from(self.workers));
        own.div_ceil(TICKS_TO_SWEEP_TEMPLATES).min(TEMPLATE_BUCKETS_A_TICK)
    }

    /// Frees templates whose time is over in so many of the buckets that are this worker's to sweep.
    pub fn sweep_templates(&mut self, buckets: usize, now: Now) {
        let templates = &self.services.templates;
        for _bucket in 0..buckets {
            if self.swept >= templates.buckets() {
                self.swept = self.worker.index();
            }
            templates.sweep(self.swept, now.tick);
            self.swept += usize::from(self.workers);
        }
    }

    /// Copies sessions for showing, those of IPv4 first. Looks at up to `steps` records from `next` on; gives where to go
    /// on, none at the end. See [`crate::session::SessionTable::walk`].
    pub fn walk_sessions(&self, next: u64, steps: u32, now: Now, into: &mut Vec<SessionView>) -> Option<u64> {
        let Tables { ipv4, ipv6, .. } = &self.sessions;
        let of_ipv4 = u64::from(ipv4.capacity());
        match u32::try_from(next) {
            Ok(next) if u64::from(next) < of_ipv4 => {
                Some(ipv4.walk(next, steps, now.tick, into).map_or(of_ipv4, u64::from))
            }
            _ => {
                let next = u32::try_from(next.saturating_sub(of_ipv4)).unwrap_or(u32::MAX);
                ipv6.walk(next, steps, now.tick, into).map(|next| of_ipv4 + u64::from(next))
            }
        }
    }
}
