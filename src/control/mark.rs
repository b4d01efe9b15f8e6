//! Rules for marks in the model: planning their changes, doing them, and what workers get of them.

use std::fmt;

use super::change::{Change, Edits, or_any, show_conditions};
use super::model::Model;
use super::protocol::{ErrorKind, Refusal};
use super::refusal::{broken, check, list};
use super::rule_list::{self, Rule, RuleChange};
use crate::balance::{MarkRule, Selector};
use crate::config::{MarkConfig, rules};

impl Rule for MarkConfig {
    const KIND: &'static str = "mark";

    fn name(&self) -> &str {
        &self.name
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fwmark {}, ", self.fwmark)?;
        write!(f, "{} -> {}", or_any(self.source.as_ref()), or_any(self.destination.as_ref()))?;
        show_conditions(f, self.protocol, self.destination_port, self.port.as_ref())
    }

    fn show_edit(&self, to: &Self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut edits = Edits::new(f);
        edits.show("fwmark", &self.fwmark, &to.fwmark)?;
        edits.show_or_any("source", self.source.as_ref(), to.source.as_ref())?;
        edits.show_or_any("destination", self.destination.as_ref(), to.destination.as_ref())?;
        edits.show_or_any("protocol", self.protocol.as_ref(), to.protocol.as_ref())?;
        edits.show_or_any("destination port", self.destination_port.as_ref(), to.destination_port.as_ref())?;
        edits.show_or_any("port", self.port.as_ref(), to.port.as_ref())
    }
}

impl Model {
    pub(super) fn plan_mark_add(&self, rule: &MarkConfig, before: Option<&str>) -> Result<Vec<Change>, Refusal> {
        let subject = format_args!("mark {:?}", rule.name);
        if self.mark_position(&rule.name).is_some() {
            return broken(ErrorKind::Exists, subject, &rules::is_a_mark_rule(&rule.name));
        }
        check(ErrorKind::Invalid, subject, rules::mark(rule, &self.scope.ports))?;
        if self.marks.len() >= rules::MAX_MARK_RULES {
            return broken(ErrorKind::Limit, subject, &rules::too_many_mark_rules());
        }
        if let Some(before) = before {
            self.known_mark(before)?;
        }
        Ok(vec![Change::Mark(RuleChange::Add { rule: rule.clone(), before: before.map(str::to_owned) })])
    }

    pub(super) fn plan_mark_del(&self, name: &str) -> Result<Vec<Change>, Refusal> {
        self.known_mark(name)?;
        Ok(vec![Change::Mark(RuleChange::Remove { name: name.to_owned() })])
    }

    fn known_mark(&self, name: &str) -> Result<(), Refusal> {
        if self.mark_position(name).is_some() {
            return Ok(());
        }
        let has = list(self.marks.iter().map(|rule| rule.name.as_str()).take(20));
        Err(Refusal::new(ErrorKind::NotFound, format!("there is no mark rule {name:?}; there are: {has}")))
    }

    fn mark_position(&self, name: &str) -> Option<usize> {
        self.marks.iter().position(|rule| rule.name == name)
    }

    /// The steps from the rules that there are to the wanted ones.
    pub(super) fn mark_changes(&self, wanted: &[MarkConfig]) -> impl Iterator<Item = Change> {
        rule_list::steps(self.marks.iter(), wanted).into_iter().map(Change::Mark)
    }

    pub(super) fn change_mark(&mut self, change: RuleChange<MarkConfig>) {
        match change {
            RuleChange::Add { rule, before } => {
                let at = before.and_then(|name| self.mark_position(&name));
                self.marks.insert(at.unwrap_or(self.marks.len()), rule);
            }
            RuleChange::Edit { to, .. } => {
                if let Some(at) = self.mark_position(&to.name) {
                    self.marks[at] = to;
                }
            }
            RuleChange::Remove { name } => self.marks.retain(|rule| rule.name != name),
            RuleChange::Order { names } => rule_list::sort(&mut self.marks, &names, |rule| &rule.name),
        }
    }

    /// The rules as workers have them, in their order.
    pub(super) fn compile_marks(&self) -> Vec<MarkRule> {
        let rules = self.marks.iter().filter_map(|rule| {
            let MarkConfig { source, destination, protocol, destination_port, .. } = *rule;
            let port = self.entry_port(rule.port.as_ref())?;
            let selector = Selector { source, destination, protocol, destination_port, port };
            Some(MarkRule { selector, mark: rule.fwmark })
        });
        rules.collect()
    }
}
