//! What any state of services and pools must fulfil by itself, whatever came before it.
//!
//! - Virtual, local and real addresses are unicast addresses of hosts, with ports above 0.
//! - No service, pool name, address in pools, or address of a real server in one service occurs twice.
//! - No local address is a virtual address or a real server's.
//! - Each pool's port exists; each service's pool exists and has an address.
//! - A weight is at most [`Weight::MAX`], a lower threshold at most the upper one (as IPVS has it).

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddrV4};

use hashbrown::{HashMap, HashSet};

use super::protocol::{ErrorKind, Refusal};
use crate::balance::{ServiceKey, Weight};
use crate::config::{BalanceConfig, LocalPoolConfig, RealServerConfig, ServiceConfig};

impl Refusal {
    /// A refusal of this kind for this reason.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

pub(super) fn refuse<T>(kind: ErrorKind, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(kind, message))
}

/// A service by itself: addresses, ports, weights, thresholds, and no real server twice.
pub(super) fn check_service(config: &ServiceConfig) -> Result<(), Refusal> {
    let key = config.key();
    check_endpoint(config.vip, &format!("service {key}: its virtual address"))?;
    let mut seen = HashSet::new();
    for real_server in &config.real_servers {
        check_real_server(key, real_server)?;
        if !seen.insert(real_server.address) {
            let message = format!("service {key}: real server {} is given twice", real_server.address);
            return refuse(ErrorKind::Invalid, message);
        }
    }
    Ok(())
}

pub(super) fn check_real_server(key: ServiceKey, config: &RealServerConfig) -> Result<(), Refusal> {
    let RealServerConfig { address, weight, upper_threshold, lower_threshold } = *config;
    check_endpoint(address, &format!("service {key}: real server"))?;
    if address == SocketAddrV4::new(key.address, key.port) {
        return refuse(ErrorKind::Invalid, format!("service {key}: real server {address} is the service itself"));
    }
    if weight.0 > Weight::MAX {
        let message =
            format!("service {key}: real server {address}: weight {} is too high: 0-{}", weight.0, Weight::MAX);
        return refuse(ErrorKind::Invalid, message);
    }
    if lower_threshold > upper_threshold {
        let message = format!(
            "service {key}: real server {address}: lower threshold {lower_threshold} is above the upper threshold \
             {upper_threshold}"
        );
        return refuse(ErrorKind::Invalid, message);
    }
    Ok(())
}

fn check_endpoint(endpoint: SocketAddrV4, what: &str) -> Result<(), Refusal> {
    check_host(*endpoint.ip(), what)?;
    if endpoint.port() == 0 {
        return refuse(ErrorKind::Invalid, format!("{what} {endpoint} has port 0: allowed are 1-65535"));
    }
    Ok(())
}

/// An address that a host can have: not 0.0.0.0/8, loopback, multicast, 240.0.0.0/4 or broadcast.
pub(super) fn check_host(address: Ipv4Addr, what: &str) -> Result<(), Refusal> {
    let [first, ..] = address.octets();
    if first == 0 || first == 127 || first >= 224 {
        let message = format!(
            "{what} {address} is no address of a host: allowed is unicast, outside 0.0.0.0/8, 127.0.0.0/8, \
             224.0.0.0/4 and 240.0.0.0/4"
        );
        return refuse(ErrorKind::Invalid, message);
    }
    Ok(())
}

/// Words with commas between, or `none`.
pub(super) fn list<T: Display>(items: impl Iterator<Item = T>) -> String {
    let words: Vec<String> = items.map(|item| item.to_string()).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// Whether the wanted state is allowed by itself, on ports of these names, with so many workers.
pub(super) fn check_balance(ports: &[String], workers: usize, wanted: &BalanceConfig) -> Result<(), Refusal> {
    let locals = check_pools(ports, workers, &wanted.local_pools)?;
    let pools: HashMap<&str, &LocalPoolConfig> =
        wanted.local_pools.iter().map(|pool| (pool.name.as_str(), pool)).collect();
    let mut keys = HashSet::new();
    for service in &wanted.services {
        let key = service.key();
        if !keys.insert(key) {
            return refuse(ErrorKind::Invalid, format!("service {key} is given twice"));
        }
        check_service(service)?;
        let Some(pool) = pools.get(service.local_pool.as_str()) else {
            let has = list(wanted.local_pools.iter().map(|pool| &pool.name));
            let message = format!("service {key}: there is no local pool {:?}: there is {has}", service.local_pool);
            return refuse(ErrorKind::Conflict, message);
        };
        if pool.addresses.is_empty() {
            return refuse(ErrorKind::Conflict, format!("service {key}: local pool {} has no address", pool.name));
        }
        if let Some(pool) = locals.get(&key.address) {
            let message = format!("service {key}: its virtual address {} is in local pool {pool}", key.address);
            return refuse(ErrorKind::Conflict, message);
        }
        for real_server in &service.real_servers {
            if let Some(pool) = locals.get(real_server.address.ip()) {
                let message = format!("service {key}: real server {} is in local pool {pool}", real_server.address);
                return refuse(ErrorKind::Conflict, message);
            }
        }
    }
    Ok(())
}

fn check_pools<'a>(
    ports: &[String],
    workers: usize,
    pools: &'a [LocalPoolConfig],
) -> Result<HashMap<Ipv4Addr, &'a str>, Refusal> {
    let mut names = HashSet::new();
    let mut locals = HashMap::new();
    for pool in pools {
        let name = pool.name.as_str();
        if name.is_empty() || !names.insert(name) {
            let message = format!("local pool {name:?}: each needs a name of its own");
            return refuse(ErrorKind::Invalid, message);
        }
        if !ports.contains(&pool.port) {
            let message =
                format!("local pool {name}: there is no port {:?}: there is {}", pool.port, list(ports.iter()));
            return refuse(ErrorKind::NotFound, message);
        }
        check_port_count(pool, workers)?;
        for &address in &pool.addresses {
            check_host(address, &format!("local pool {name}: address"))?;
            if let Some(other) = locals.insert(address, name) {
                let message = format!("local pool {name}: address {address} is in local pool {other} already");
                return refuse(ErrorKind::Invalid, message);
            }
        }
    }
    Ok(locals)
}

/// Each worker has local ports of its own.
fn check_port_count(pool: &LocalPoolConfig, workers: usize) -> Result<(), Refusal> {
    let count = (usize::from(pool.ports.last) + 1).saturating_sub(pool.ports.first.into());
    if count < workers.max(1) {
        let message = format!(
            "local pool {}: ports {} are {count} for {workers} workers: allowed is at least one for each",
            pool.name, pool.ports
        );
        return refuse(ErrorKind::Invalid, message);
    }
    Ok(())
}
