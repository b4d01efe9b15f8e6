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

    /// Lets other expirations hold. Nothing else of the settings may be another than before.
    pub(super) fn set_schedulers(&mut self, settings: SchedulerSettings) {
        self.scheduling = settings;
        for prepared in self.services.values().filter_map(|service| service.prepared.as_ref()) {
            prepared.scheduler.set_expiration(&settings);
        }
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::balance::{ServiceTable, Timeouts};
    use crate::config::{BalanceConfig, BalanceScope};
    use crate::control::protocol::Request;
    use crate::telemetry::counters::SlotLimits;

    fn model(scheduler: &str) -> Model {
        let service = |port: u16, scheduler: &str| {
            json!({
                "vip": format!("10.0.0.100:{port}"), "protocol": "tcp", "scheduler": scheduler, "mode": "nat",
                "real_server": [{"address": "10.1.0.11:80", "weight": 1}, {"address": "10.1.0.12:80", "weight": 2}],
            })
        };
        let balance = json!({"service": [service(80, scheduler), service(81, scheduler)]});
        let balance: BalanceConfig = serde_json::from_value(balance).unwrap();
        let scope = BalanceScope { ports: vec!["lan".into()], own_addresses: Vec::new(), workers: 1 };
        Model::new(scope, Vec::new(), SlotLimits::default(), &balance).unwrap()
    }

    fn change(model: &mut Model, mut request: Value) -> ServiceTable {
        request["service"] = json!({"vip": "10.0.0.100:80", "protocol": "tcp"});
        let request: Request = serde_json::from_value(request).unwrap();
        let changes = model.plan(&request).unwrap().unwrap();
        model.commit(changes);
        model.compile(Timeouts::default())
    }

    fn scheduler(table: &ServiceTable, index: usize) -> &Scheduler {
        &table.services[index].scheduler
    }

    #[test]
    fn draining_keeps_the_table_of_mh_and_a_new_weight_does_not() {
        let mut model = model("mh");
        let first = model.compile(Timeouts::default());
        let weight =
            |weight: u32| json!({"command": "real.edit", "address": "10.1.0.12:80", "set": {"weight": weight}});
        let drained = change(&mut model, weight(0));
        assert_eq!(scheduler(&drained, 0), scheduler(&first, 0));
        let back = change(&mut model, weight(2));
        assert_eq!(scheduler(&back, 0), scheduler(&first, 0));
        let heavier = change(&mut model, weight(3));
        assert_ne!(scheduler(&heavier, 0), scheduler(&first, 0));
        assert_eq!(scheduler(&heavier, 1), scheduler(&first, 1), "the other service's is the same");
        let flags = change(&mut model, json!({"command": "service.edit", "scheduler_flags": ["mh-port"]}));
        assert_ne!(scheduler(&flags, 0), scheduler(&heavier, 0));
        let fewer = change(&mut model, json!({"command": "real.del", "address": "10.1.0.11:80"}));
        assert_ne!(scheduler(&fewer, 0), scheduler(&flags, 0));
    }

    #[test]
    fn what_lblc_remembers_survives_changes_of_real_servers() {
        let mut model = model("lblc");
        let first = model.compile(Timeouts::default());
        let later = change(&mut model, json!({"command": "real.del", "address": "10.1.0.11:80"}));
        assert_eq!(scheduler(&later, 0), scheduler(&first, 0));
        let other = change(&mut model, json!({"command": "service.edit", "scheduler": "lblcr"}));
        assert_eq!(scheduler(&other, 0).kind(), SchedulerKind::Lblcr);
        let again = change(&mut model, json!({"command": "service.edit", "scheduler": "lblc"}));
        assert_ne!(scheduler(&again, 0), scheduler(&first, 0), "it begins anew");
    }

    #[test]
    fn flags_go_with_their_scheduler() {
        let mut model = model("sh");
        let edit = |what: Value| {
            let mut edit = json!({"command": "service.edit", "service": {"vip": "10.0.0.100:80", "protocol": "tcp"}});
            edit.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
            serde_json::from_value::<Request>(edit).unwrap()
        };
        let mut done = |what: Value| {
            let changes = model.plan(&edit(what)).unwrap()?;
            let lines: Vec<_> = changes.iter().map(ToString::to_string).collect();
            model.commit(changes);
            Ok(lines)
        };
        let service = "service tcp 10.0.0.100:80:";
        let lines = done(json!({"scheduler_flags": ["sh-port", "sh-fallback"]}));
        assert_eq!(lines, Ok(vec![format!("{service} scheduler flags none -> sh-fallback,sh-port")]));
        let refusal: crate::control::protocol::Refusal = done(json!({"scheduler_flags": ["mh-port"]})).unwrap_err();
        assert!(
            refusal.message.ends_with("mh-port is no flag of scheduler sh; allowed: sh-fallback, sh-port"),
            "{refusal}"
        );
        let lines = done(json!({"scheduler": "mh", "scheduler_flags": ["mh-port"]}));
        assert_eq!(
            lines,
            Ok(vec![format!("{service} scheduler sh -> mh, scheduler flags sh-fallback,sh-port -> mh-port")])
        );
        let lines = done(json!({"scheduler": "wlc"}));
        assert_eq!(lines, Ok(vec![format!("{service} scheduler mh -> wlc, scheduler flags mh-port -> none")]));
    }
}
