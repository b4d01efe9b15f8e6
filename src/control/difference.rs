//! The steps from the model's state to a wanted one: what `apply` does.
//!
//! What is in both stays untouched: real servers keep slots, sessions and their order; services keep their cursors.
//! What is new comes last, in the order given. Local addresses are withdrawn before others are added, so that one
//! can go from a pool to another; a pool goes when nothing refers to it any more.

use std::net::{Ipv4Addr, SocketAddrV4};

use hashbrown::{HashMap, HashSet};

use super::change::{Change, PoolSettings, ServiceSettings};
use super::check::check_balance;
use super::model::{Model, Pool, ServiceEntry};
use super::plan::{real_edit, service_add};
use super::protocol::Refusal;
use crate::balance::ServiceKey;
use crate::config::{BalanceConfig, LocalPoolConfig, RealServerConfig, ServiceConfig};

impl Model {
    /// The steps that make the model equal to `wanted`, or why that is refused.
    pub fn plan_apply(&self, wanted: &BalanceConfig) -> Result<Vec<Change>, Refusal> {
        check_balance(&self.ports, wanted)?;
        let mut changes = self.pool_changes(&wanted.local_pools);
        self.service_changes(&wanted.services, &mut changes);
        let names: HashSet<&str> = wanted.local_pools.iter().map(|pool| pool.name.as_str()).collect();
        let gone = self.pools.iter().filter(|pool| !names.contains(pool.name.as_str()));
        changes.extend(gone.map(|pool| Change::PoolRemove { name: pool.name.clone() }));
        self.check_against_sessions(&changes)?;
        self.enough_slots(&changes)?;
        Ok(changes)
    }

    /// Addresses that sessions use as local ones cannot become virtual or real at once.
    fn check_against_sessions(&self, changes: &[Change]) -> Result<(), Refusal> {
        for change in changes {
            match change {
                Change::ServiceAdd { key, .. } => {
                    self.not_local(key.address, &format!("service {key}: its address"))?
                }
                Change::RealAdd { key, real_server } => self.real_server_not_local(*key, real_server)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn pool_changes(&self, wanted: &[LocalPoolConfig]) -> Vec<Change> {
        let by_name: HashMap<&str, &LocalPoolConfig> = wanted.iter().map(|pool| (pool.name.as_str(), pool)).collect();
        let mut changes = Vec::new();
        for pool in &self.pools {
            changes.extend(withdrawn_addresses(pool, by_name.get(pool.name.as_str()).copied()));
        }
        for config in wanted {
            let to = PoolSettings::from(config);
            let name = config.name.clone();
            match self.pools.iter().find(|pool| pool.name == config.name) {
                None => changes.push(Change::PoolAdd { name, settings: to }),
                Some(pool) if pool.settings != to => {
                    changes.push(Change::PoolEdit { name, from: pool.settings.clone(), to });
                }
                Some(_) => {}
            }
        }
        for config in wanted {
            let pool = self.pools.iter().find(|pool| pool.name == config.name);
            changes.extend(added_addresses(pool, config));
        }
        changes
    }

    fn service_changes(&self, wanted: &[ServiceConfig], changes: &mut Vec<Change>) {
        let keys: HashSet<ServiceKey> = wanted.iter().map(ServiceConfig::key).collect();
        for entry in self.services.values().filter(|entry| !keys.contains(&entry.key)) {
            changes.push(Change::ServiceRemove { key: entry.key, real_servers: entry.real_servers.len() });
        }
        for config in wanted {
            match self.service(&config.key()) {
                None => changes.extend(service_add(config)),
                Some(entry) => edit_service(entry, config, changes),
            }
        }
    }
}

/// All addresses of a pool that goes or changes its port, else those that are not wanted any more.
fn withdrawn_addresses(pool: &Pool, wanted: Option<&LocalPoolConfig>) -> Vec<Change> {
    let kept: HashSet<Ipv4Addr> = match wanted {
        Some(config) if config.port == pool.settings.port => config.addresses.iter().copied().collect(),
        _ => HashSet::new(),
    };
    let gone = pool.addresses.iter().map(|local| local.address).filter(|address| !kept.contains(address));
    gone.map(|address| Change::LocalRemove { pool: pool.name.clone(), address }).collect()
}

fn added_addresses(pool: Option<&Pool>, wanted: &LocalPoolConfig) -> Vec<Change> {
    let kept: HashSet<Ipv4Addr> = match pool {
        Some(pool) if wanted.port == pool.settings.port => pool.addresses.iter().map(|local| local.address).collect(),
        _ => HashSet::new(),
    };
    let new = wanted.addresses.iter().copied().filter(|address| !kept.contains(address));
    new.map(|address| Change::LocalAdd { pool: wanted.name.clone(), address }).collect()
}

fn edit_service(entry: &ServiceEntry, wanted: &ServiceConfig, changes: &mut Vec<Change>) {
    let key = entry.key;
    let to = ServiceSettings::from(wanted);
    if entry.settings != to {
        changes.push(Change::ServiceEdit { key, from: entry.settings.clone(), to });
    }
    if entry.real_servers.iter().map(|entry| &entry.config).eq(&wanted.real_servers) {
        return;
    }
    let wanted_by_address: HashMap<SocketAddrV4, &RealServerConfig> =
        wanted.real_servers.iter().map(|config| (config.address, config)).collect();
    for RealServerConfig { address, .. } in entry.real_servers.iter().map(|entry| &entry.config) {
        if !wanted_by_address.contains_key(address) {
            changes.push(Change::RealRemove { key, address: *address });
        }
    }
    let current: HashMap<SocketAddrV4, &RealServerConfig> =
        entry.real_servers.iter().map(|entry| (entry.config.address, &entry.config)).collect();
    for config in &wanted.real_servers {
        match current.get(&config.address) {
            None => changes.push(Change::RealAdd { key, real_server: config.clone() }),
            Some(from) if *from != config => changes.push(real_edit(key, from, config)),
            Some(_) => {}
        }
    }
}
