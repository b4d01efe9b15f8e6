//! Lists of named rules whose order counts: for source NAT, for marks. The steps from one list to another.

use std::fmt;

use hashbrown::{HashMap, HashSet};

/// A rule in such a list.
pub trait Rule: Clone + PartialEq {
    /// What messages call rules of its kind.
    const KIND: &'static str;

    /// Its name, which no other rule of its list has.
    fn name(&self) -> &str;

    /// Writes what it says behind its name.
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Writes what is other in `to`, a rule of the same name.
    fn show_edit(&self, to: &Self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// One step in a list of rules.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleChange<R> {
    /// A new rule, in front of another one or last.
    Add { rule: R, before: Option<String> },
    /// The rule of the same name says something else.
    Edit { from: R, to: R },
    /// A rule goes.
    Remove { name: String },
    /// All rules, in the order in which they are to be.
    Order { names: Vec<String> },
}

impl<R: Rule> fmt::Display for RuleChange<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = R::KIND;
        match self {
            Self::Add { rule, before } => {
                write!(f, "{kind} {}: added, ", rule.name())?;
                rule.show(f)?;
                before.as_ref().map_or(Ok(()), |before| write!(f, ", before {before}"))
            }
            Self::Edit { from, to } => {
                write!(f, "{kind} {}:", from.name())?;
                from.show_edit(to, f)
            }
            Self::Remove { name } => write!(f, "{kind} {name}: removed"),
            Self::Order { names } => write!(f, "{kind}: order {}", names.join(", ")),
        }
    }
}

/// The steps from the rules that there are to the wanted ones: what goes, what is other, what is new, then the order if that
/// is another.
pub(super) fn steps<'a, R: Rule + 'a>(
    current: impl Iterator<Item = &'a R> + Clone,
    wanted: &[R],
) -> Vec<RuleChange<R>> {
    let by_name: HashMap<&str, &R> = current.clone().map(|rule| (rule.name(), rule)).collect();
    let names: HashSet<&str> = wanted.iter().map(R::name).collect();
    let (stay, go): (Vec<&str>, Vec<&str>) = current.map(R::name).partition(|name| names.contains(name));
    let mut steps: Vec<_> = go.into_iter().map(|name| RuleChange::Remove { name: name.to_owned() }).collect();
    let mut order = stay;
    for rule in wanted {
        match by_name.get(rule.name()) {
            None => {
                order.push(rule.name());
                steps.push(RuleChange::Add { rule: rule.clone(), before: None });
            }
            Some(&from) if from != rule => steps.push(RuleChange::Edit { from: from.clone(), to: rule.clone() }),
            Some(_) => {}
        }
    }
    let names = || wanted.iter().map(R::name);
    if !names().eq(order) {
        steps.push(RuleChange::Order { names: names().map(str::to_owned).collect() });
    }
    steps
}

/// Brings a list into the order of these names.
pub(super) fn sort<T>(rules: &mut [T], names: &[String], name: impl Fn(&T) -> &str) {
    let place: HashMap<&str, usize> = names.iter().enumerate().map(|(place, name)| (name.as_str(), place)).collect();
    rules.sort_by_key(|rule| place.get(name(rule)).copied());
}
