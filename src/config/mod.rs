//! The configuration file: TOML -> spanned tree -> validated [`Config`]. Pure: it reads text, not files.
//!
//! Read in this order: `raw` (tables and values with positions), `sections`, `ports` and `balance` (which keys there
//! are, what each may be), [`validate`] (what must fit together, for the file and for changes at run time alike),
//! [`rules`] (the same for one thing, which is what a single command is checked by).
//! Every error of a file is found in one run. What a [`Config`] holds needs no further check of form; whether the
//! machine has the devices, cores and memory is for the daemon to find out at start.

mod balance;
pub mod bond;
mod error;
pub mod model;
mod ports;
mod raw;
pub mod rules;
mod sections;
mod suggest;
pub mod syntax;
pub mod validate;
mod vlan;

use std::net::IpAddr;

use toml::de::DeTable;

use raw::{Document, Section};

use crate::balance::scheduler::HashSecret;
pub use balance::DEFAULT_PORTS;
pub use error::ConfigError;
pub use model::*;
pub(crate) use suggest::nearest;
pub use validate::BalanceScope;

impl Config {
    /// Reads a whole file. `file_name` is what errors call it.
    ///
    /// # Errors
    /// Every error in the file, in the order of its lines. Faults of syntax hide all others.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, Vec<ConfigError>> {
        let document = Document::new(text, file_name);
        let (root, syntax) = DeTable::parse_recoverable(text);
        for fault in &syntax {
            let span = fault.span().unwrap_or_default();
            let found = text.get(span.clone()).filter(|found| !found.is_empty() && !found.contains('\n'));
            let found = found.map(|found| format!(": {found}")).unwrap_or_default();
            document.error(document.line_at(span.start), "", format!("not TOML: {}{found}", fault.message()));
        }
        let config = if syntax.is_empty() { Some(read(&document, root.get_ref())) } else { None };
        let errors = document.into_errors();
        config.filter(|_| errors.is_empty()).ok_or(errors)
    }

    /// What the rules for pools and services need to know of this gateway.
    pub fn balance_scope(&self) -> BalanceScope {
        ports::balance_scope(&self.ports, self.worker.cores.len())
    }

    /// What is allowed but likely to be a mistake, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let on_a_port = |vip: IpAddr| self.ports.iter().flat_map(|port| &port.addresses).any(|own| own.address == vip);
        let addressed = self.balance.services.iter().filter(|service| service.vip.mark.is_none());
        let missing = addressed.filter(|service| !on_a_port(service.vip.address));
        let warning = |service: &ServiceConfig| {
            let (key, vip) = (service.key(), service.vip.address);
            format!(
                "service {key}: no port has {vip} among its addresses: right if keepalived or a routing daemon adds it"
            )
        };
        let others = self.secret_warning().into_iter().chain(self.snat_warnings()).chain(self.mark_warnings());
        missing.map(warning).chain(others).collect()
    }

    /// Whom a client reaches is everybody's to know while the hashes have no secret.
    fn secret_warning(&self) -> Option<String> {
        let hashing = self.balance.services.iter().find(|service| service.scheduler.is_hashing())?;
        (self.ipvs.hash_secret == HashSecret::default()).then(|| {
            format!(
                "[ipvs].hash_secret is not set: clients can choose their real server of service {} (scheduler {}); \
                 set it, the same on all gateways that must choose alike",
                hashing.key(),
                hashing.scheduler
            )
        })
    }

    /// Services of marks that nothing gets: rules may be added at run time.
    fn mark_warnings(&self) -> impl Iterator<Item = String> {
        let unused = |service: &&ServiceConfig| {
            service.vip.mark.is_some_and(|mark| self.balance.marks.iter().all(|rule| rule.fwmark != mark))
        };
        self.balance
            .services
            .iter()
            .filter(unused)
            .map(|service| format!("service {}: no [[mark]] gives that mark: nothing comes to it", service.key()))
    }

    /// Rules for source NAT whose pool has no address for them: it may get one at run time.
    fn snat_warnings(&self) -> impl Iterator<Item = String> {
        let lacks_address = |rule: &&SnatConfig| {
            let pool = self.balance.local_pools.iter().find(|pool| pool.name == rule.local_pool);
            pool.is_some_and(|pool| pool.addresses.iter().all(|address| address.is_ipv4() != rule.source.is_ipv4()))
        };
        self.balance.snat.iter().filter(lacks_address).map(|rule| {
            let SnatConfig { name, source, local_pool, .. } = rule;
            format!("snat {name}: local pool {local_pool} has no address of the family of {source}: nothing goes out")
        })
    }
}

/// Reads all tables. Where `document` then has errors, the result holds placeholders and must not be used.
fn read(document: &Document<'_>, root: &DeTable<'_>) -> Config {
    let mut root = Section::root(document, root);
    let dpdk = sections::dpdk(root.section("dpdk"));
    let worker = sections::worker(root.section("worker"));
    let session = sections::session(root.section("session"));
    let control = sections::control(root.section("control"));
    let punt = sections::punt(root.section("punt"));
    let timeouts = sections::timeouts(root.section("timeouts"));
    let (ipvs, sysctls) = sections::ipvs(root.section("ipvs"));
    let ports = ports::ports(&mut root, worker.cores.len());
    let balance = balance::balance(&mut root, &ports::balance_scope(&ports, worker.cores.len()));
    root.finish();
    Config { dpdk, worker, session, control, punt, timeouts, ipvs, sysctls, ports, balance }
}
