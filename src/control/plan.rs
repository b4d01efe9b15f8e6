//! From a request to the steps that do it, or to the reason why it is refused. Changes nothing.
//!
//! Each single command is checked against the model by itself, so that its cost does not grow with the number of
//! services; `apply` (in `difference`) checks the wanted state as a whole and finds the difference. Either way the
//! steps that come out lead to a state that fulfils the configuration's rules, so that the next start accepts it;
//! besides, no address becomes virtual or a real server's while sessions still use it as a local one.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

use hashbrown::{HashMap, HashSet};

use super::change::{Change, ServiceSettings};
use super::model::{Model, Pool, ServiceEntry};
use super::protocol::{ErrorKind, RealServerEdit, Refusal, Request};
use super::refusal::{broken, check, list, refuse};
use super::rule_list::RuleChange;
use crate::balance::{ForwardingMode, Persistence, SchedulerFlags, ServiceKey};
use crate::config::{RealServerConfig, ServiceConfig, rules};
use crate::port::PortId;

impl Model {
    /// The steps that a request asks for, none if the state is as wanted already; or why it is refused. `None`: the
    /// request is not one that changes anything.
    pub fn plan(&self, request: &Request) -> Option<Result<Vec<Change>, Refusal>> {
        Some(match request {
            Request::Apply { balance, .. } => self.plan_apply(balance),
            Request::ServiceAdd { service } => self.plan_service_add(service),
            Request::ServiceEdit { service, .. } => self
                .known_service(&ServiceKey::from(*service))
                .and_then(|entry| self.plan_service_edit(entry, edited(entry, request))),
            Request::ServiceDel { service } => {
                self.known_service(&ServiceKey::from(*service)).map(|entry| self.plan_service_del(entry))
            }
            Request::RealAdd { service, real_server } => self.plan_real_add(&ServiceKey::from(*service), real_server),
            Request::RealEdit { service, address, set } => {
                self.plan_real_edit(&ServiceKey::from(*service), *address, set)
            }
            Request::RealDel { service, address } => self
                .known_real_server(&ServiceKey::from(*service), *address)
                .map(|(entry, _)| vec![Change::RealRemove { key: entry.key, address: *address }]),
            Request::LocalCreate { pool } => self.plan_local_create(pool),
            Request::LocalDestroy { pool } => self.plan_local_destroy(pool),
            Request::LocalAdd { pool, addresses } => self.plan_local_add(pool, addresses),
            Request::LocalDel { pool, addresses } => self.plan_local_del(pool, addresses),
            Request::SnatAdd { rule, before } => self.plan_snat_add(rule, before.as_deref()),
            Request::SnatDel { name } => self.plan_snat_del(name),
            Request::MarkAdd { rule, before } => self.plan_mark_add(rule, before.as_deref()),
            Request::MarkDel { name } => self.plan_mark_del(name),
            Request::Status {}
            | Request::ServiceList { .. }
            | Request::LocalList {}
            | Request::SnatList {}
            | Request::MarkList {}
            | Request::TimeoutsSet { .. }
            | Request::TimeoutsShow {}
            | Request::SysctlSet { .. }
            | Request::SysctlList { .. }
            | Request::SessionList { .. }
            | Request::SessionCount { .. }
            | Request::TemplateList { .. }
            | Request::PortShow {}
            | Request::WorkerShow {}
            | Request::Stats {} => return None,
        })
    }

    /// Addresses that must be put on ports before these steps are done; those that are there already are not named.
    pub fn addresses_to_add(&self, changes: &[Change]) -> Vec<(PortId, IpAddr)> {
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
        let mut config = config.clone();
        config.fill_default_pool(self.pool_names());
        let key = config.key();
        if self.by_key.contains_key(&key) {
            return broken(ErrorKind::Exists, format_args!("service {key}"), &rules::is_a_service(key));
        }
        check(ErrorKind::Invalid, format_args!("service {key}"), rules::service_name(config.vip, key.protocol))?;
        let flags = rules::scheduler_flags(config.scheduler, config.scheduler_flags);
        check(ErrorKind::Invalid, format_args!("service {key}"), flags)?;
        let slow_start = rules::slow_start(config.scheduler, config.slow_start);
        check(ErrorKind::Invalid, format_args!("service {key}"), slow_start)?;
        let persistence = rules::persistence(config.vip, config.persistence, config.persistence_prefix);
        check(ErrorKind::Invalid, format_args!("service {key}"), persistence)?;
        let one_packet = |mode| rules::one_packet(config.one_packet, key.protocol, mode);
        check(ErrorKind::Invalid, format_args!("service {key}"), one_packet(config.mode))?;
        self.ports_are_free(key)?;
        self.known_pool_of(key, &config.local_pool, config.needs_local_pool())?;
        self.vip_not_local(key)?;
        let mut seen = HashSet::new();
        for real_server in &config.real_servers {
            let subject = format_args!("service {key}: real server {}", real_server.address);
            check(ErrorKind::Invalid, subject, rules::real_server(config.vip, config.mode, real_server))?;
            check(ErrorKind::Invalid, subject, one_packet(real_server.mode.unwrap_or(config.mode)))?;
            check(ErrorKind::Invalid, subject, self.pool_speaks_to(real_server, config.mode, &config.local_pool))?;
            if !seen.insert(real_server.address) {
                return real_server_twice(ErrorKind::Invalid, key, real_server.address);
            }
            self.own_host(key, real_server.mode.unwrap_or(config.mode), real_server)?;
            self.real_server_not_local(key, real_server)?;
        }
        let changes = service_add(&config);
        self.enough_slots(&changes)?;
        Ok(changes)
    }

    /// A new service's range of ports has none in common with that of another one. (Only ranges are looked for.)
    fn ports_are_free(&self, key: ServiceKey) -> Result<(), Refusal> {
        let overlaps = |other: &&ServiceKey| {
            (other.protocol, other.address) == (key.protocol, key.address) && other.ports.overlaps(key.ports)
        };
        let mut known = self.by_key.keys().filter(|_| key.ports.is_range());
        match known.find(overlaps) {
            Some(&other) => {
                broken(ErrorKind::Conflict, format_args!("service {key}"), &rules::ports_overlap(key, other))
            }
            None => Ok(()),
        }
    }

    fn plan_service_edit(&self, entry: &ServiceEntry, mut to: ServiceSettings) -> Result<Vec<Change>, Refusal> {
        let modes = entry.real_servers.iter().map(|real| real.config.mode.unwrap_or(to.mode));
        let needs = modes.chain([to.mode]).any(|mode| mode == ForwardingMode::Fullnat);
        let mut pools = self.pool_names();
        if let (true, Some(only), None) = (needs && to.local_pool.is_empty(), pools.next(), pools.next()) {
            only.clone_into(&mut to.local_pool);
        }
        self.known_pool_of(entry.key, &to.local_pool, needs)?;
        self.real_servers_allow(entry, &to)?;
        let flags = rules::scheduler_flags(to.scheduler, to.scheduler_flags);
        check(ErrorKind::Invalid, format_args!("service {}", entry.key), flags)?;
        let slow_start = rules::slow_start(to.scheduler, to.slow_start);
        check(ErrorKind::Invalid, format_args!("service {}", entry.key), slow_start)?;
        let persistence = rules::persistence(entry.key.vip(), to.persistence, to.persistence_prefix);
        check(ErrorKind::Invalid, format_args!("service {}", entry.key), persistence)?;
        let modes = entry.real_servers.iter().map(|real| real.config.mode.unwrap_or(to.mode)).chain([to.mode]);
        let one_packet = modes.filter_map(|mode| rules::one_packet(to.one_packet, entry.key.protocol, mode)).next();
        check(ErrorKind::Invalid, format_args!("service {}", entry.key), one_packet)?;
        if to == entry.settings {
            return Ok(Vec::new());
        }
        let left = (to.local_pool != entry.settings.local_pool).then_some(entry.settings.local_pool.as_str());
        if left.is_some() {
            self.pool_serves(entry, &to)?;
        }
        let gone = left.map(|pool| self.pool_left_by(entry.key, pool)).unwrap_or_default();
        let edit = Change::ServiceEdit { key: entry.key, from: entry.settings.clone(), to };
        Ok(std::iter::once(edit).chain(gone).collect())
    }

    fn plan_service_del(&self, entry: &ServiceEntry) -> Vec<Change> {
        let remove = Change::ServiceRemove { key: entry.key, real_servers: entry.real_servers.len() };
        std::iter::once(remove).chain(self.pool_left_by(entry.key, &entry.settings.local_pool)).collect()
    }

    /// Whether real servers that take their service's mode can have its new one.
    fn real_servers_allow(&self, entry: &ServiceEntry, to: &ServiceSettings) -> Result<(), Refusal> {
        let vip = entry.key.vip();
        for real in
            entry.real_servers.iter().filter(|real| real.config.mode.is_none() && to.mode != entry.settings.mode)
        {
            let subject = format_args!("service {}: real server {}", entry.key, real.config.address);
            check(ErrorKind::Conflict, subject, rules::real_server(vip, to.mode, &real.config))?;
            check(ErrorKind::Conflict, subject, self.pool_speaks_to(&real.config, to.mode, &to.local_pool))?;
        }
        Ok(())
    }

    fn plan_real_add(&self, key: &ServiceKey, real_server: &RealServerConfig) -> Result<Vec<Change>, Refusal> {
        let entry = self.known_service(key)?;
        let address = real_server.address;
        if entry.real_servers.iter().any(|existing| existing.config.address == address) {
            return real_server_twice(ErrorKind::Exists, *key, address);
        }
        self.check_real_server(entry, real_server)?;
        self.check_pool_of(entry, real_server)?;
        self.own_host(*key, real_server.mode.unwrap_or(entry.settings.mode), real_server)?;
        self.real_server_not_local(*key, real_server)?;
        let changes = vec![Change::RealAdd { key: *key, real_server: real_server.clone() }];
        self.enough_slots(&changes)?;
        Ok(changes)
    }

    fn plan_real_edit(
        &self,
        key: &ServiceKey,
        address: SocketAddr,
        edit: &RealServerEdit,
    ) -> Result<Vec<Change>, Refusal> {
        let (entry, from) = self.known_real_server(key, address)?;
        let mode = edit.mode.or(from.mode);
        let stays_tunnelled = mode.unwrap_or(entry.settings.mode) == ForwardingMode::Tun;
        let to = RealServerConfig {
            address,
            mode,
            tunnel: edit.tunnel.or(from.tunnel.filter(|_| stays_tunnelled)),
            weight: edit.weight.unwrap_or(from.weight),
            upper_threshold: edit.upper_threshold.unwrap_or(from.upper_threshold),
            lower_threshold: edit.lower_threshold.unwrap_or(from.lower_threshold),
        };
        self.check_real_server(entry, &to)?;
        // What is not about its mode can be changed, whatever has become of the pool since.
        if to.mode != from.mode {
            self.check_pool_of(entry, &to)?;
        }
        Ok(if to == *from { vec![] } else { vec![real_edit(entry.key, from, &to)] })
    }

    /// A real server of a service that there is.
    fn check_real_server(&self, service: &ServiceEntry, config: &RealServerConfig) -> Result<(), Refusal> {
        let (key, settings) = (service.key, &service.settings);
        let subject = format_args!("service {key}: real server {}", config.address);
        check(ErrorKind::Invalid, subject, rules::real_server(key.vip(), settings.mode, config))?;
        let mode = config.mode.unwrap_or(settings.mode);
        check(ErrorKind::Invalid, subject, rules::one_packet(settings.one_packet, key.protocol, mode))?;
        let is_fullnat = mode == ForwardingMode::Fullnat;
        let lacks_pool = (is_fullnat && settings.local_pool.is_empty()).then(rules::no_pool_for_fullnat);
        check(ErrorKind::Invalid, subject, lacks_pool)
    }

    fn check_pool_of(&self, service: &ServiceEntry, config: &RealServerConfig) -> Result<(), Refusal> {
        let (key, settings) = (service.key, &service.settings);
        let subject = format_args!("service {key}: real server {}", config.address);
        check(ErrorKind::Invalid, subject, self.pool_speaks_to(config, settings.mode, &settings.local_pool))
    }

    /// Whether the pool that a service is to have has an address for each of its real servers.
    fn pool_serves(&self, service: &ServiceEntry, to: &ServiceSettings) -> Result<(), Refusal> {
        for real in &service.real_servers {
            let subject = format_args!("service {}: real server {}", service.key, real.config.address);
            let fault = self.pool_speaks_to(&real.config, to.mode, &to.local_pool);
            check(ErrorKind::Conflict, subject, fault)?;
        }
        Ok(())
    }

    /// A pool whose addresses were all withdrawn speaks to nobody for now, and may be named.
    fn pool_speaks_to(&self, config: &RealServerConfig, mode: ForwardingMode, pool: &str) -> Option<rules::Fault> {
        let pool = self.pools.iter().find(|known| known.name == pool).filter(|pool| !pool.addresses.is_empty())?;
        rules::pool_speaks_to(config, mode, &pool.name, pool.addresses.iter().map(|local| local.address))
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
        address: SocketAddr,
    ) -> Result<(&ServiceEntry, &RealServerConfig), Refusal> {
        let service = self.known_service(key)?;
        let mut configs = service.real_servers.iter().map(|entry| &entry.config);
        configs.find(|config| config.address == address).map(|config| (service, config)).ok_or_else(|| {
            let has = list(service.real_servers.iter().map(|entry| entry.config.address).take(20));
            let message = format!("service {key} has no real server {address}: it has {has}");
            Refusal::new(ErrorKind::NotFound, message)
        })
    }

    pub(super) fn known_pool(&self, name: &str) -> Result<&Pool, Refusal> {
        self.pools.iter().find(|pool| pool.name == name).ok_or_else(|| {
            let allowed = rules::one_of(self.pool_names(), "local_pool");
            Refusal::new(ErrorKind::NotFound, format!("there is no local pool {name:?}; allowed: {allowed}"))
        })
    }

    fn known_pool_of(&self, key: ServiceKey, name: &str, needs: bool) -> Result<(), Refusal> {
        let kind = if name.is_empty() { ErrorKind::Invalid } else { ErrorKind::NotFound };
        check(kind, format_args!("service {key}"), rules::service_pool(name, needs, self.pool_names()))
    }

    fn pool_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.pools.iter().map(|pool| pool.name.as_str())
    }

    pub(super) fn vip_not_local(&self, key: ServiceKey) -> Result<(), Refusal> {
        self.not_local(key.address, format_args!("service {key}: vip"))
    }

    pub(super) fn real_server_not_local(&self, key: ServiceKey, real_server: &RealServerConfig) -> Result<(), Refusal> {
        let address = real_server.address;
        self.not_local(address.ip(), format_args!("service {key}: real server {address}: address"))
    }

    /// By the configuration's addresses; those that ports have now are asked for by `on_link`.
    fn own_host(&self, key: ServiceKey, mode: ForwardingMode, real_server: &RealServerConfig) -> Result<(), Refusal> {
        let address = real_server.address;
        let fault = rules::own_host(mode, address.ip(), &self.scope.own_addresses);
        check(ErrorKind::OwnAddress, format_args!("service {key}: real server {address}"), fault)
    }

    fn not_local(&self, address: IpAddr, what: impl Display) -> Result<(), Refusal> {
        let why = match (self.departed_locals.get(&address), self.pool_of(address)) {
            (Some(departed), _) => {
                format!("was withdrawn from local pool {:?}, and sessions still use it", departed.pool)
            }
            (None, Some(pool)) => format!("is in local pool {pool:?}"),
            (None, None) => return Ok(()),
        };
        refuse(ErrorKind::Conflict, format!("{what}: {address} {why}; allowed: an address that is in no local pool"))
    }

    /// The pool that an address is in, withdrawn addresses not.
    pub(super) fn pool_of(&self, address: IpAddr) -> Option<&str> {
        if !self.locals.contains_key(&address) || self.departed_locals.contains_key(&address) {
            return None;
        }
        let holds = |pool: &&Pool| pool.addresses.iter().any(|local| local.address == address);
        self.pools.iter().find(holds).map(|pool| pool.name.as_str())
    }

    /// The port that a local address is on, also one being withdrawn.
    fn port_of(&self, address: IpAddr) -> Option<PortId> {
        if let Some(departed) = self.departed_locals.get(&address) {
            return Some(departed.port);
        }
        self.pool_index(self.pool_of(address)?).map(|index| self.pools[index].port)
    }

    /// Whether what is added finds slots. Slots of what is removed with it do not count: sessions may hold them.
    pub(super) fn enough_slots(&self, changes: &[Change]) -> Result<(), Refusal> {
        let removed: HashSet<IpAddr> = changes.iter().filter_map(removed_address).collect();
        let mut real_servers = 0;
        let mut locals = 0;
        for change in changes {
            match change {
                Change::RealAdd { key, real_server } => {
                    real_servers += usize::from(self.departed_position(key, real_server.address).is_none());
                }
                Change::Snat(RuleChange::Add { rule, .. }) => {
                    real_servers += usize::from(!self.has_departed_snat(&rule.name))
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

/// A service's settings with what a request changes of them.
fn edited(entry: &ServiceEntry, request: &Request) -> ServiceSettings {
    let mut to = entry.settings.clone();
    let Request::ServiceEdit {
        service: _,
        scheduler,
        scheduler_flags,
        mode,
        local_pool,
        mss_clamp,
        persistence,
        persistence_prefix,
        one_packet,
        max_connections,
        slow_start,
    } = request
    else {
        return to;
    };
    if scheduler.is_some_and(|scheduler| scheduler != to.scheduler) {
        to.scheduler_flags = SchedulerFlags::default();
    }
    to.scheduler = scheduler.unwrap_or(to.scheduler);
    to.mode = mode.unwrap_or(to.mode);
    to.scheduler_flags = scheduler_flags.unwrap_or(to.scheduler_flags);
    to.mss_clamp = mss_clamp.unwrap_or(to.mss_clamp);
    to.local_pool = local_pool.clone().unwrap_or(to.local_pool);
    to.one_packet = one_packet.unwrap_or(to.one_packet);
    to.max_connections = max_connections.unwrap_or(to.max_connections);
    to.slow_start = slow_start.unwrap_or(to.slow_start);
    to.persistence = persistence.unwrap_or(to.persistence);
    let kept = to.persistence_prefix.filter(|_| to.persistence > 0);
    to.persistence_prefix = Persistence::prefix_kept(persistence_prefix.or(kept), entry.key.address.is_ipv4());
    to
}

fn removed_address(change: &Change) -> Option<IpAddr> {
    if let Change::LocalRemove { address, .. } = change { Some(*address) } else { None }
}

fn real_server_twice<T>(kind: ErrorKind, key: ServiceKey, address: SocketAddr) -> Result<T, Refusal> {
    broken(kind, format_args!("service {key}: real server {address}"), &rules::is_in_service(address))
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
