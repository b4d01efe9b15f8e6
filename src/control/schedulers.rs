//! The schedulers of the model's services, kept from one table to the next.
//!
//! A scheduler is made anew where its kind, its flags or, with sh and mh, the real servers have changed; so a change of one
//! service costs no other's tables of slots, and lblc and lblcr remember what they have learnt.

use super::model::{Model, RealServerEntry, ServiceEntry};
use crate::balance::scheduler::Candidate;
use crate::balance::{Scheduler, SchedulerFlags, SchedulerKind, SchedulerSettings};

/// A scheduler, and what it was made for.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    kind: SchedulerKind,
    flags: SchedulerFlags,
    /// Empty where it does not depend on them.
    candidates: Vec<Candidate>,
    scheduler: Scheduler,
}

impl Model {
    /// The same with these settings, which hold for schedulers made from now on: to be called first.
    pub fn with_schedulers(mut self, settings: SchedulerSettings) -> Self {
        self.scheduling = settings;
        self
    }

    /// The schedulers of all services, in their order. Makes those that are not there yet, or not as they should be.
    pub(super) fn prepare_schedulers(&mut self) -> Vec<Scheduler> {
        let settings = self.scheduling;
        self.services.values_mut().map(|service| service.prepare_scheduler(&settings)).collect()
    }
}

impl ServiceEntry {
    fn prepare_scheduler(&mut self, settings: &SchedulerSettings) -> Scheduler {
        let (kind, flags) = (self.settings.scheduler, self.settings.scheduler_flags);
        if let Some(prepared) = &self.prepared {
            let is_for = |entries: &[RealServerEntry]| {
                let wanted = entries.iter().rev().map(RealServerEntry::candidate);
                !prepared.scheduler.depends_on_real_servers() || wanted.eq(prepared.candidates.iter().copied())
            };
            if (prepared.kind, prepared.flags) == (kind, flags) && is_for(&self.real_servers) {
                return prepared.scheduler.clone();
            }
        }
        let mut candidates: Vec<_> = self.real_servers.iter().rev().map(RealServerEntry::candidate).collect();
        let scheduler = Scheduler::new(kind, flags, settings, &candidates);
        if !scheduler.depends_on_real_servers() {
            candidates = Vec::new();
        }
        self.prepared = Some(Prepared { kind, flags, candidates, scheduler: scheduler.clone() });
        scheduler
    }
}

impl RealServerEntry {
    fn candidate(&self) -> Candidate {
        Candidate { address: self.config.address, weight: self.config.weight, last_weight: self.last_weight }
    }
}
