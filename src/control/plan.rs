//! From a request to the steps that do it, or to the reason why it is refused. Changes nothing.
//!
//! Each single command is checked against the model by itself, so that its cost does not grow with the number of
//! services; `apply` (in `difference`) checks the wanted state as a whole and finds the difference. Either way the
//! steps that come out lead to a state that fulfils the rules of `check`; besides, no address becomes virtual or a
//! real server's while sessions still use it as a local one.

use std::net::{Ipv4Addr, SocketAddrV4};

use hashbrown::{HashMap, HashSet};

use super::change::{Change, ServiceSettings};
use super::check::{check_host, check_real_server, check_service, list, refuse};
use super::model::{Model, Pool, ServiceEntry};
use super::protocol::{ErrorKind, Refusal, Request};
use crate::balance::ServiceKey;
use crate::config::{RealServerConfig, ServiceConfig};
use crate::port::PortId;

impl Model {
    /// The steps that a request asks for, none if the state is as wanted already; or why it is refused. `None`: the
    /// request is not one that changes anything.
    pub fn plan(&self, request: &Request) -> Option<Result<Vec<Change>, Refusal>> {
        Some(match request {
            Request::Apply { balance, .. } => self.plan_apply(balance),
            Request::ServiceAdd { service } => self.plan_service_add(service),
            Request::ServiceEdit { service, scheduler, local_pool } => {
                let key = ServiceKey::from(*service);
                self.known_service(&key).and_then(|entry| {
                    let mut settings = entry.settings.clone();
                    settings.scheduler = scheduler.unwrap_or(settings.scheduler);
                    settings.local_pool = local_pool.clone().unwrap_or(settings.local_pool);
                    self.plan_service_edit(entry, settings)
                })
            }
            Request::ServiceDel { service } => {
                let entry = self.known_service(&ServiceKey::from(*service));
                entry
                    .map(|entry| vec![Change::ServiceRemove { key: entry.key, real_servers: entry.real_servers.len() }])
            }
            Request::RealAdd { service, real_server } => self.plan_real_add(&ServiceKey::from(*service), real_server),
            Request::RealEdit { service, address, weight, upper_threshold, lower_threshold } => {
                self.known_real_server(&ServiceKey::from(*service), *address).and_then(|(entry, from)| {
                    let to = RealServerConfig {
                        address: *address,
                        weight: weight.unwrap_or(from.weight),
                        upper_threshold: upper_threshold.unwrap_or(from.upper_threshold),
                        lower_threshold: lower_threshold.unwrap_or(from.lower_threshold),
                    };
                    check_real_server(entry.key, &to)?;
                    Ok(if to == *from { vec![] } else { vec![real_edit(entry.key, from, &to)] })
                })
            }
            Request::RealDel { service, address } => self
                .known_real_server(&ServiceKey::from(*service), *address)
                .map(|(entry, _)| vec![Change::RealRemove { key: entry.key, address: *address }]),
            Request::LocalAdd { pool, addresses } => self.plan_local_add(pool, addresses),
            Request::LocalDel { pool, addresses } => self.plan_local_del(pool, addresses),
            Request::Status {}
            | Request::ServiceList { .. }
            | Request::LocalList {}
            | Request::SessionList { .. }
            | Request::SessionCount { .. }
            | Request::PortShow {}
            | Request::WorkerShow {}
            | Request::Stats {} => return None,
        })
    }

    /// Addresses that must be put on ports before these steps are done; those that are there already are not named.
    pub fn addresses_to_add(&self, changes: &[Change]) -> Vec<(PortId, Ipv4Addr)> {
        let mut ports: HashMap<&str, &str> =
            self.pools.iter().map(|pool| (pool.name.as_str(), pool.settings.port.as_str())).collect();
        let mut found = Vec::new();
        for change in changes {
            match change {
                Change::PoolAdd { name, settings } | Change::PoolEdit { name, to: settings, .. } => {
                    ports.insert(name, &settings.port);
                }
                Change::LocalAdd { pool, address } => {
                    let port = ports.get(pool.as_str()).and_then(|port| self.port_id(port));
                    let new = port.filter(|&port| self.port_of(*address) != Some(port));
                    found.extend(new.map(|port| (port, *address)));
                }
                _ => {}
            }
        }
        found
    }

    fn plan_service_add(&self, config: &ServiceConfig) -> Result<Vec<Change>, Refusal> {
        let config = &with_pool(config, self.pools.iter().map(|pool| pool.name.as_str()))?;
        let key = config.key();
        if self.by_key.contains_key(&key) {
            return refuse(ErrorKind::Exists, format!("service {key} exists already"));
        }
        check_service(config)?;
        self.known_pool_with_addresses(key, &config.local_pool)?;
        self.not_local(key.address, &format!("service {key}: its virtual address"))?;
        for real_server in &config.real_servers {
            self.real_server_not_local(key, real_server)?;
        }
        let changes = service_add(config);
        self.enough_slots(&changes)?;
        Ok(changes)
    }

    fn plan_service_edit(&self, entry: &ServiceEntry, to: ServiceSettings) -> Result<Vec<Change>, Refusal> {
        self.known_pool_with_addresses(entry.key, &to.local_pool)?;
        if to == entry.settings {
            return Ok(Vec::new());
        }
        Ok(vec![Change::ServiceEdit { key: entry.key, from: entry.settings.clone(), to }])
    }

    fn plan_real_add(&self, key: &ServiceKey, real_server: &RealServerConfig) -> Result<Vec<Change>, Refusal> {
        let entry = self.known_service(key)?;
        let address = real_server.address;
        if entry.real_servers.iter().any(|existing| existing.config.address == address) {
            return refuse(ErrorKind::Exists, format!("service {key} has a real server {address} already"));
        }
        check_real_server(*key, real_server)?;
        self.real_server_not_local(*key, real_server)?;
        let changes = vec![Change::RealAdd { key: *key, real_server: real_server.clone() }];
        self.enough_slots(&changes)?;
        Ok(changes)
    }

    fn plan_local_add(&self, pool: &str, addresses: &[Ipv4Addr]) -> Result<Vec<Change>, Refusal> {
        self.known_pool(pool)?;
        let mut seen = HashSet::new();
        for &address in addresses {
            check_host(address, &format!("local pool {pool}: address"))?;
            if !seen.insert(address) {
                return refuse(ErrorKind::Invalid, format!("local pool {pool}: address {address} is given twice"));
            }
            if let Some(owner) = self.pool_of(address) {
                let message = format!("local pool {pool}: address {address} is in local pool {owner} already");
                return refuse(ErrorKind::Exists, message);
            }
            if self.virtual_uses.contains_key(&address) {
                let message = format!("local pool {pool}: address {address} is the virtual address of a service");
                return refuse(ErrorKind::Conflict, message);
            }
            if self.real_uses.contains_key(&address) {
                let message = format!("local pool {pool}: address {address} is the address of a real server");
                return refuse(ErrorKind::Conflict, message);
            }
        }
        let add = |&address| Change::LocalAdd { pool: pool.to_owned(), address };
        let changes = addresses.iter().map(add).collect::<Vec<_>>();
        self.enough_slots(&changes)?;
        Ok(changes)
    }

    fn plan_local_del(&self, pool: &str, addresses: &[Ipv4Addr]) -> Result<Vec<Change>, Refusal> {
        let entry = self.known_pool(pool)?;
        let mut left: HashSet<Ipv4Addr> = entry.addresses.iter().map(|local| local.address).collect();
        for address in addresses {
            if !left.remove(address) {
                let has = list(entry.addresses.iter().map(|local| local.address));
                let message = format!("local pool {pool} has no address {address} (to withdraw): it has {has}");
                return refuse(ErrorKind::NotFound, message);
            }
        }
        let user = self.services.values().find(|service| service.settings.local_pool == pool);
        if let Some(service) = user.filter(|_| left.is_empty() && !addresses.is_empty()) {
            let message = format!("local pool {pool} would have no address left, and service {} uses it", service.key);
            return refuse(ErrorKind::Conflict, message);
        }
        let remove = |&address| Change::LocalRemove { pool: pool.to_owned(), address };
        Ok(addresses.iter().map(remove).collect())
    }

    fn known_service(&self, key: &ServiceKey) -> Result<&ServiceEntry, Refusal> {
        self.service(key).ok_or_else(|| {
            let same_address = self.virtual_uses.contains_key(&key.address);
            let others = self.by_key.keys().filter(|other| same_address && other.address == key.address).take(10);
            let hint = if same_address { format!("; on that address: {}", list(others)) } else { String::new() };
            Refusal::new(ErrorKind::NotFound, format!("there is no service {key}{hint}"))
        })
    }

    fn known_real_server(
        &self,
        key: &ServiceKey,
        address: SocketAddrV4,
    ) -> Result<(&ServiceEntry, &RealServerConfig), Refusal> {
        let service = self.known_service(key)?;
        let mut configs = service.real_servers.iter().map(|entry| &entry.config);
        configs.find(|config| config.address == address).map(|config| (service, config)).ok_or_else(|| {
            let has = list(service.real_servers.iter().map(|entry| entry.config.address).take(20));
            let message = format!("service {key} has no real server {address}: it has {has}");
            Refusal::new(ErrorKind::NotFound, message)
        })
    }

    fn known_pool(&self, name: &str) -> Result<&Pool, Refusal> {
        self.pools.iter().find(|pool| pool.name == name).ok_or_else(|| {
            let has = list(self.pools.iter().map(|pool| &pool.name));
            Refusal::new(ErrorKind::NotFound, format!("there is no local pool {name:?}: there is {has}"))
        })
    }

    fn known_pool_with_addresses(&self, key: ServiceKey, name: &str) -> Result<(), Refusal> {
        let pool = self
            .known_pool(name)
            .map_err(|refusal| Refusal { message: format!("service {key}: {}", refusal.message), ..refusal })?;
        if pool.addresses.is_empty() {
            let message = format!("service {key}: local pool {name} has no address: add one to it first");
            return refuse(ErrorKind::Conflict, message);
        }
        Ok(())
    }

    pub(super) fn real_server_not_local(&self, key: ServiceKey, real_server: &RealServerConfig) -> Result<(), Refusal> {
        let address = real_server.address;
        self.not_local(*address.ip(), &format!("service {key}: real server {address}: its address"))
    }

    pub(super) fn not_local(&self, address: Ipv4Addr, what: &str) -> Result<(), Refusal> {
        if let Some(departed) = self.departed_locals.get(&address) {
            let pool = &departed.pool;
            let message = format!("{what} {address} was withdrawn from local pool {pool}, and sessions still use it");
            return refuse(ErrorKind::Conflict, message);
        }
        match self.pool_of(address) {
            Some(pool) => refuse(ErrorKind::Conflict, format!("{what} {address} is in local pool {pool}")),
            None => Ok(()),
        }
    }

    /// The pool that an address is in, withdrawn addresses not.
    pub(super) fn pool_of(&self, address: Ipv4Addr) -> Option<&str> {
        if !self.locals.contains_key(&address) || self.departed_locals.contains_key(&address) {
            return None;
        }
        let holds = |pool: &&Pool| pool.addresses.iter().any(|local| local.address == address);
        self.pools.iter().find(holds).map(|pool| pool.name.as_str())
    }

    /// The port that a local address is on, also one being withdrawn.
    fn port_of(&self, address: Ipv4Addr) -> Option<PortId> {
        if let Some(departed) = self.departed_locals.get(&address) {
            return Some(departed.port);
        }
        self.pool_index(self.pool_of(address)?).map(|index| self.pools[index].port)
    }

    /// Whether what is added finds slots. Slots of what is removed with it do not count: sessions may hold them.
    pub(super) fn enough_slots(&self, changes: &[Change]) -> Result<(), Refusal> {
        let removed: HashSet<Ipv4Addr> = changes.iter().filter_map(removed_address).collect();
        let mut real_servers = 0;
        let mut locals = 0;
        for change in changes {
            match change {
                Change::RealAdd { key, real_server } => {
                    let mut departed = self.departed_real_servers.get(key).into_iter().flatten();
                    real_servers += usize::from(!departed.any(|old| old.address == real_server.address));
                }
                Change::LocalAdd { address, .. } => {
                    let keeps = self.departed_locals.contains_key(address) || removed.contains(address);
                    locals += usize::from(!keeps);
                }
                _ => {}
            }
        }
        let lacks = |wanted: usize, available: usize, limit: u32, what: &str| {
            let message = format!(
                "{wanted} more {what} do not fit: the gateway holds {limit}, those removed that still have sessions \
                 included, and has room for {available}"
            );
            if wanted > available { refuse(ErrorKind::Limit, message) } else { Ok(()) }
        };
        lacks(real_servers, self.real_slots.available(), self.real_slots.limit(), "real servers")?;
        lacks(locals, self.local_slots.available(), self.local_slots.limit(), "local addresses")
    }
}

fn removed_address(change: &Change) -> Option<Ipv4Addr> {
    if let Change::LocalRemove { address, .. } = change { Some(*address) } else { None }
}

/// The service, with the only pool there is where it names none.
pub(super) fn with_pool<'a>(
    config: &ServiceConfig,
    mut pools: impl Iterator<Item = &'a str> + Clone,
) -> Result<ServiceConfig, Refusal> {
    let mut config = config.clone();
    if config.local_pool.is_empty() {
        let has = list(pools.clone());
        let (Some(only), None) = (pools.next(), pools.next()) else {
            let message =
                format!("service {} names no local pool, and there is not exactly one: there is {has}", config.key());
            return refuse(ErrorKind::Invalid, message);
        };
        only.clone_into(&mut config.local_pool);
    }
    Ok(config)
}

/// A service with its real servers, as steps.
pub(super) fn service_add(config: &ServiceConfig) -> Vec<Change> {
    let key = config.key();
    let service = Change::ServiceAdd { key, settings: ServiceSettings::from(config) };
    let real_servers = config.real_servers.iter();
    let real_servers = real_servers.map(|real_server| Change::RealAdd { key, real_server: real_server.clone() });
    std::iter::once(service).chain(real_servers).collect()
}

pub(super) fn real_edit(key: ServiceKey, from: &RealServerConfig, to: &RealServerConfig) -> Change {
    Change::RealEdit { key, from: from.clone(), to: to.clone() }
}
