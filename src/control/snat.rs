//! Rules for source NAT in the model: planning their changes, doing them, and the slots of those that are gone.
//!
//! A rule holds a slot of the real servers', by which its sessions are counted and known to be allowed still. It stays the
//! rule's while that has its name, whatever else of it changes; a removed rule's slot stays departed while sessions count
//! on it, and a rule of that name gets it, and with it these sessions, back.

use std::fmt;
use std::sync::Arc;

use super::change::{Change, Edits, or_any, show_conditions};
use super::model::Model;
use super::protocol::{ErrorKind, Refusal, SnatRow, TrafficTotals};
use super::refusal::{broken, check, list};
use super::rule_list::{self, Rule, RuleChange};
use super::totals;
use crate::balance::{RealServerSlot, Selector, SnatRule};
use crate::config::{SnatConfig, rules};
use crate::telemetry::counters::WorkerCounters;

/// A rule.
#[derive(Clone, Debug)]
pub(super) struct SnatEntry {
    pub config: SnatConfig,
    pub slot: RealServerSlot,
    cursor: u32,
    /// The slot's traffic when this rule got it.
    baseline: TrafficTotals,
    before: Vec<TrafficTotals>,
}

/// A removed rule that still holds its slot.
#[derive(Clone, Debug)]
pub(super) struct DepartedSnat {
    pub name: String,
    slot: RealServerSlot,
    /// By worker: the slot's traffic when a rule of this name first got it, which was services'.
    before: Vec<TrafficTotals>,
    /// The first table without it.
    since: u64,
}

impl Rule for SnatConfig {
    const KIND: &'static str = "snat";

    fn name(&self) -> &str {
        &self.name
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.source, or_any(self.destination.as_ref()))?;
        show_conditions(f, self.protocol, self.destination_port, self.port.as_ref())?;
        write!(f, ", local pool {}", self.local_pool)
    }

    fn show_edit(&self, to: &Self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut edits = Edits::new(f);
        edits.show("source", &self.source, &to.source)?;
        edits.show_or_any("destination", self.destination.as_ref(), to.destination.as_ref())?;
        edits.show_or_any("protocol", self.protocol.as_ref(), to.protocol.as_ref())?;
        edits.show_or_any("destination port", self.destination_port.as_ref(), to.destination_port.as_ref())?;
        edits.show_or_any("port", self.port.as_ref(), to.port.as_ref())?;
        edits.show("local pool", &self.local_pool, &to.local_pool)
    }
}

impl Model {
    pub(super) fn plan_snat_add(&self, rule: &SnatConfig, before: Option<&str>) -> Result<Vec<Change>, Refusal> {
        let subject = format_args!("snat {:?}", rule.name);
        if self.snat.iter().any(|entry| entry.config.name == rule.name) {
            return broken(ErrorKind::Exists, subject, &rules::is_a_snat_rule(&rule.name));
        }
        let pools = self.pools.iter().map(|pool| pool.name.as_str());
        check(ErrorKind::Invalid, subject, rules::snat(rule, &self.scope.ports, pools))?;
        if self.snat.len() >= rules::MAX_SNAT_RULES {
            return broken(ErrorKind::Limit, subject, &rules::too_many_snat_rules());
        }
        if let Some(before) = before {
            self.known_snat(before)?;
        }
        let changes = vec![Change::Snat(RuleChange::Add { rule: rule.clone(), before: before.map(str::to_owned) })];
        self.enough_slots(&changes)?;
        Ok(changes)
    }

    pub(super) fn plan_snat_del(&self, name: &str) -> Result<Vec<Change>, Refusal> {
        self.known_snat(name)?;
        Ok(vec![Change::Snat(RuleChange::Remove { name: name.to_owned() })])
    }

    fn known_snat(&self, name: &str) -> Result<(), Refusal> {
        if self.snat.iter().any(|entry| entry.config.name == name) {
            return Ok(());
        }
        let has = list(self.snat.iter().map(|entry| entry.config.name.as_str()).take(20));
        Err(Refusal::new(ErrorKind::NotFound, format!("there is no snat rule {name:?}; there are: {has}")))
    }

    /// The steps from the rules that there are to the wanted ones.
    pub(super) fn snat_changes(&self, wanted: &[SnatConfig]) -> impl Iterator<Item = Change> {
        rule_list::steps(self.snat.iter().map(|entry| &entry.config), wanted).into_iter().map(Change::Snat)
    }

    pub(super) fn change_snat(&mut self, change: RuleChange<SnatConfig>) {
        match change {
            RuleChange::Add { rule, before } => self.add_snat(rule, before.as_deref()),
            RuleChange::Edit { to, .. } => self.edit_snat(to),
            RuleChange::Remove { name } => self.remove_snat(&name),
            RuleChange::Order { names } => rule_list::sort(&mut self.snat, &names, |entry| &entry.config.name),
        }
    }

    fn add_snat(&mut self, config: SnatConfig, before: Option<&str>) {
        let departed = self.departed_snat.iter().position(|departed| departed.name == config.name);
        let (slot, before_it) = match departed.map(|index| self.departed_snat.swap_remove(index)) {
            Some(departed) => (departed.slot, departed.before),
            None => {
                let Some(slot) = self.real_slots.take().map(RealServerSlot) else { return };
                (slot, totals::by_worker(&self.counters, slot).collect())
            }
        };
        let Some(cursor) = self.cursors.take() else { return };
        self.set_present(slot, true);
        let baseline = totals::real_server_traffic(&self.counters, slot);
        let entry = SnatEntry { config, slot, cursor, baseline, before: before_it };
        let at = before.and_then(|name| self.snat.iter().position(|entry| entry.config.name == name));
        self.snat.insert(at.unwrap_or(self.snat.len()), entry);
    }

    fn edit_snat(&mut self, to: SnatConfig) {
        if let Some(entry) = self.snat.iter_mut().find(|entry| entry.config.name == to.name) {
            entry.config = to;
        }
    }

    fn remove_snat(&mut self, name: &str) {
        let Some(index) = self.snat.iter().position(|entry| entry.config.name == name) else { return };
        let SnatEntry { config, slot, cursor, before, .. } = self.snat.remove(index);
        self.cursors.give_back(cursor);
        self.set_present(slot, false);
        let since = self.generation + 1;
        self.departed_snat.push(DepartedSnat { name: config.name, slot, before, since });
    }

    /// What each worker has carried by rules since it started, also by removed ones.
    pub(super) fn snat_traffic(&self) -> Vec<TrafficTotals> {
        let mut sums = self.retired_snat.clone();
        let rules = self.snat.iter().map(|entry| (entry.slot, &entry.before));
        let departed = self.departed_snat.iter().map(|departed| (departed.slot, &departed.before));
        rules.chain(departed).for_each(|(slot, before)| add_since(&mut sums, &self.counters, slot, before));
        sums
    }

    /// Whether a new rule of this name gets the slot of a removed one.
    pub(super) fn has_departed_snat(&self, name: &str) -> bool {
        self.departed_snat.iter().any(|departed| departed.name == name)
    }

    /// Frees slots of removed rules; see [`Model::reclaim`].
    pub(super) fn reclaim_snat(&mut self, adopted: u64) -> usize {
        let before = self.departed_snat.len();
        let (counters, slots, retired) = (&self.counters, &mut self.real_slots, &mut self.retired_snat);
        self.departed_snat.retain(|departed| {
            let now = totals::real_server_connections(counters, departed.slot);
            let used = adopted < departed.since || now.active != 0 || now.inactive != 0;
            if !used {
                add_since(retired, counters, departed.slot, &departed.before);
                slots.give_back(departed.slot.0);
            }
            used
        });
        before - self.departed_snat.len()
    }

    /// The rules as workers have them, in their order.
    pub(super) fn compile_snat(&self) -> Vec<SnatRule> {
        let rules = self.snat.iter().filter_map(|entry| {
            let SnatConfig { source, destination, protocol, destination_port, .. } = entry.config;
            let port = self.entry_port(entry.config.port.as_ref())?;
            Some(SnatRule {
                selector: Selector { source: Some(source), destination, protocol, destination_port, port },
                pool: self.pool_index(&entry.config.local_pool)?,
                slot: entry.slot,
                cursor: entry.cursor as usize,
            })
        });
        rules.collect()
    }

    /// The rows of all rules, in their order.
    pub fn snat_rows(&self) -> Vec<SnatRow> {
        let row = |entry: &SnatEntry| {
            let connections = totals::real_server_connections(&self.counters, entry.slot);
            let config = entry.config.clone();
            SnatRow {
                name: config.name,
                source: config.source,
                destination: config.destination,
                protocol: config.protocol,
                destination_port: config.destination_port,
                port: config.port,
                local_pool: config.local_pool,
                active_connections: connections.active,
                inactive_connections: connections.inactive,
                traffic: totals::real_server_traffic(&self.counters, entry.slot) - entry.baseline,
            }
        };
        self.snat.iter().map(row).collect()
    }
}

/// Adds what each worker has counted on a slot since it had counted this much.
fn add_since(
    sums: &mut [TrafficTotals],
    counters: &[Arc<WorkerCounters>],
    slot: RealServerSlot,
    before: &[TrafficTotals],
) {
    let now = totals::by_worker(counters, slot);
    sums.iter_mut().zip(now.zip(before)).for_each(|(sum, (now, before))| *sum += now - *before);
}
