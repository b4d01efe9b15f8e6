//! The authoritative state of services, real servers, local pools and rules for source NAT, with the slots that they
//! hold.
//!
//! Pure and synchronous: requests are checked against it and become steps in `plan`, are done here, and become the
//! workers' table in `compile`. Doing planned steps cannot fail, so a request is done as a whole or not at all.
//!
//! A removed real server's slot stays *departed* while sessions may still count on it: the same address added to the
//! same virtual service again gets its slot, and with it those sessions, back, as IPVS does with its trash list. Its
//! slot is free once no worker has a session on it and every worker has adopted a table without it; what it counted
//! is then folded into its service, whose totals therefore never go backwards. Local addresses likewise.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use super::change::{Change, PoolSettings, ServiceSettings};
use super::departed::{DepartedLocal, DepartedRealServer};
use super::protocol::{Refusal, TrafficTotals};
use super::schedulers::Prepared;
use super::slots::Slots;
use super::snat::{DepartedSnat, SnatEntry};
use super::totals;
use crate::balance::{
    ForwardingMode, LocalAddress, LocalAddressSlot, Overloads, Persistence, RealServerSlot, SchedulerSettings,
    ServiceKey, Sysctls, Templates, Weight,
};
use crate::config::{BalanceConfig, BalanceScope, LocalPoolConfig, MarkConfig, RealServerConfig, ServiceConfig};
use crate::port::PortId;
use crate::telemetry::counters::{SlotLimits, WorkerCounters};

/// The state. See the module's description.
#[derive(Debug)]
pub struct Model {
    /// What of the gateway the rules need to know; its ports are in the order of [`PortId`].
    pub(super) scope: BalanceScope,
    pub(super) scheduling: SchedulerSettings,
    /// What workers tell each other of real servers that are full.
    pub(super) overloads: Arc<Overloads>,
    /// Which real servers clients stay with.
    pub(super) templates: Arc<Templates>,
    pub(super) sysctls: Sysctls,
    pub(super) counters: Vec<Arc<WorkerCounters>>,
    pub(super) pools: Vec<Pool>,
    /// By order of addition, which is also what tells a service from a later one of the same key.
    pub(super) services: BTreeMap<u64, ServiceEntry>,
    pub(super) by_key: HashMap<ServiceKey, u64>,
    next_service: u64,
    /// In the order in which they are looked at.
    pub(super) snat: Vec<SnatEntry>,
    /// Rules for marks, in the order in which they are looked at.
    pub(super) marks: Vec<MarkConfig>,
    pub(super) cursors: Slots,
    pub(super) real_slots: Slots,
    pub(super) local_slots: Slots,
    /// By real-server slot: whether what holds it is configured.
    pub(super) present: Vec<bool>,
    /// Every local address that holds a slot, also those withdrawn.
    pub(super) locals: HashMap<IpAddr, LocalAddressSlot>,
    pub(super) departed_real_servers: HashMap<ServiceKey, Vec<DepartedRealServer>>,
    pub(super) departed_locals: HashMap<IpAddr, DepartedLocal>,
    pub(super) departed_snat: Vec<DepartedSnat>,
    /// By worker: what was carried by rules for source NAT that are gone and whose slots are free again.
    pub(super) retired_snat: Vec<TrafficTotals>,
    /// Addresses to be taken off a port because they are on another one now.
    pub(super) moved: Vec<DepartedLocal>,
    /// How many services have this address, and how many real servers.
    pub(super) virtual_uses: HashMap<IpAddr, u32>,
    pub(super) real_uses: HashMap<IpAddr, u32>,
    /// Of the table compiled last.
    pub(super) generation: u64,
    /// Since the gateway's start, as it was told last; none: it starts.
    pub(super) time: Option<Duration>,
    /// Whether the weight of any real server may be yet to rise.
    pub(super) warming: bool,
}

/// A local pool.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub name: String,
    pub settings: PoolSettings,
    pub port: PortId,
    pub addresses: Vec<LocalAddress>,
}

/// A service.
#[derive(Clone, Debug)]
pub(super) struct ServiceEntry {
    pub key: ServiceKey,
    pub settings: ServiceSettings,
    pub cursor: u32,
    /// Its scheduler as it was in the table compiled last; none: it was in none.
    pub prepared: Option<Prepared>,
    /// In the order added.
    pub real_servers: Vec<RealServerEntry>,
    /// Of real servers that are gone and whose slots are free again.
    pub retired: TrafficTotals,
}

/// A real server.
#[derive(Clone, Debug)]
pub(super) struct RealServerEntry {
    pub config: RealServerConfig,
    pub slot: RealServerSlot,
    /// The slot's traffic when this real server got it.
    pub baseline: TrafficTotals,
    /// The weight last set that was not 0; 0 if it never had one (IPVS's `last_weight`).
    pub last_weight: Weight,
    /// The weight that workers are told: less than the configured one while it rises.
    pub weight_now: Weight,
    /// When it began to rise; none: it does not.
    pub warms_since: Option<Duration>,
}

impl Model {
    /// A model that holds `balance`, on a gateway with these ports (by [`PortId`]), whose workers count in `counters`.
    ///
    /// Services that name no local pool get the only one there is. Refuses what no commands could lead to.
    pub fn new(
        scope: BalanceScope,
        counters: Vec<Arc<WorkerCounters>>,
        limits: SlotLimits,
        balance: &BalanceConfig,
    ) -> Result<Self, Refusal> {
        let mut model = Self {
            scope,
            scheduling: SchedulerSettings::default(),
            overloads: Arc::new(Overloads::new(limits.real_servers as usize)),
            templates: Arc::default(),
            sysctls: Sysctls::default(),
            pools: Vec::new(),
            services: BTreeMap::new(),
            by_key: HashMap::new(),
            next_service: 0,
            snat: Vec::new(),
            marks: Vec::new(),
            cursors: Slots::new(u32::MAX),
            real_slots: Slots::new(limits.real_servers),
            local_slots: Slots::new(limits.local_addresses),
            present: Vec::new(),
            locals: HashMap::new(),
            departed_real_servers: HashMap::new(),
            departed_locals: HashMap::new(),
            departed_snat: Vec::new(),
            retired_snat: vec![TrafficTotals::default(); counters.len()],
            counters,
            moved: Vec::new(),
            virtual_uses: HashMap::new(),
            real_uses: HashMap::new(),
            generation: 0,
            time: None,
            warming: false,
        };
        let changes = model.plan_kept(balance)?;
        model.commit(changes);
        Ok(model)
    }

    /// Lets these sysctls hold from the next table on.
    pub fn set_sysctls(&mut self, sysctls: Sysctls) {
        self.sysctls = sysctls;
        self.set_schedulers(self.scheduling.with_expirations(&sysctls));
    }

    /// The same with this table of templates: to be called first.
    pub fn with_templates(self, templates: Arc<Templates>) -> Self {
        Self { templates, ..self }
    }

    /// What the model holds, in the words of the configuration.
    pub fn to_config(&self) -> BalanceConfig {
        BalanceConfig {
            local_pools: self.pools.iter().map(Pool::to_config).collect(),
            services: self.services.values().map(ServiceEntry::to_config).collect(),
            snat: self.snat.iter().map(|entry| entry.config.clone()).collect(),
            marks: self.marks.clone(),
        }
    }

    /// Does what was planned against this very state.
    pub fn commit(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.step(change);
        }
    }

    fn step(&mut self, change: Change) {
        match change {
            Change::PoolAdd { name, settings } => {
                let port = self.port_id(&settings.port).unwrap_or(PortId(0));
                self.pools.push(Pool { name, settings, port, addresses: Vec::new() });
            }
            Change::PoolEdit { name, to, .. } => {
                let port = self.port_id(&to.port).unwrap_or(PortId(0));
                if let Some(pool) = self.pools.iter_mut().find(|pool| pool.name == name) {
                    (pool.settings, pool.port) = (to, port);
                }
            }
            Change::PoolRemove { name } => self.pools.retain(|pool| pool.name != name),
            Change::LocalAdd { pool, address } => self.add_local(&pool, address),
            Change::LocalRemove { pool, address } => self.remove_local(&pool, address),
            Change::ServiceAdd { key, settings } => self.add_service(key, settings),
            Change::ServiceEdit { key, to, .. } => {
                let now = self.time.unwrap_or_default();
                if let Some(service) = self.service_mut(&key) {
                    service.settings = to;
                    service.warm_up(now);
                }
            }
            Change::ServiceRemove { key, .. } => self.remove_service(&key),
            Change::RealAdd { key, real_server } => self.add_real_server(&key, real_server),
            Change::RealEdit { key, to, .. } => self.edit_real_server(&key, to),
            Change::RealRemove { key, address } => self.remove_real_server(&key, address),
            Change::Snat(change) => self.change_snat(change),
            Change::Mark(change) => self.change_mark(change),
        }
    }

    fn add_service(&mut self, key: ServiceKey, settings: ServiceSettings) {
        let Some(cursor) = self.cursors.take() else { return };
        let retired = TrafficTotals::default();
        let entry = ServiceEntry { key, settings, cursor, prepared: None, real_servers: Vec::new(), retired };
        self.services.insert(self.next_service, entry);
        self.by_key.insert(key, self.next_service);
        self.next_service += 1;
        *self.virtual_uses.entry(key.address).or_default() += 1;
    }

    fn remove_service(&mut self, key: &ServiceKey) {
        let Some(number) = self.by_key.remove(key) else { return };
        let Some(service) = self.services.remove(&number) else { return };
        self.cursors.give_back(service.cursor);
        release(&mut self.virtual_uses, key.address);
        for entry in service.real_servers {
            self.depart(*key, number, entry);
        }
    }

    /// A slot of its own for a new real server, or the one that it had when it was removed.
    fn add_real_server(&mut self, key: &ServiceKey, config: RealServerConfig) {
        let Some(&number) = self.by_key.get(key) else { return };
        let (slot, baseline) = match self.take_departed(key, config.address) {
            Some(departed) if departed.service == number => (departed.slot, departed.baseline),
            Some(departed) => (departed.slot, totals::real_server_traffic(&self.counters, departed.slot)),
            None => {
                let Some(slot) = self.real_slots.take().map(RealServerSlot) else { return };
                (slot, totals::real_server_traffic(&self.counters, slot))
            }
        };
        self.set_present(slot, true);
        *self.real_uses.entry(config.address.ip()).or_default() += 1;
        if let Some(service) = self.services.get_mut(&number) {
            let weight = config.weight;
            let mut entry =
                RealServerEntry { config, slot, baseline, last_weight: weight, weight_now: weight, warms_since: None };
            entry.begin(service.settings.slow_start, self.time);
            self.warming |= entry.warms_since.is_some();
            service.real_servers.push(entry);
        }
    }

    fn edit_real_server(&mut self, key: &ServiceKey, to: RealServerConfig) {
        let now = self.time;
        let Some(service) = self.service_mut(key) else { return };
        let slow_start = service.settings.slow_start;
        let mut real_servers = service.real_servers.iter_mut();
        let Some(entry) = real_servers.find(|entry| entry.config.address == to.address) else { return };
        if to.weight.0 > 0 {
            entry.last_weight = to.weight;
        }
        let comes_back = entry.config.weight.0 == 0 && to.weight.0 > 0;
        entry.config = to;
        if comes_back {
            entry.begin(slow_start, now);
            self.warming |= entry.warms_since.is_some();
        } else {
            entry.warm_up(slow_start, now.unwrap_or_default());
        }
    }

    /// Says whether what holds a slot is configured.
    pub(super) fn set_present(&mut self, slot: RealServerSlot, present: bool) {
        let index = slot.0 as usize;
        if self.present.len() <= index {
            self.present.resize(index + 1, false);
        }
        self.present[index] = present;
    }

    fn remove_real_server(&mut self, key: &ServiceKey, address: SocketAddr) {
        let Some(&number) = self.by_key.get(key) else { return };
        let Some(service) = self.services.get_mut(&number) else { return };
        let Some(index) = service.real_servers.iter().position(|entry| entry.config.address == address) else { return };
        let entry = service.real_servers.remove(index);
        self.depart(*key, number, entry);
    }

    fn add_local(&mut self, pool: &str, address: IpAddr) {
        let Some(index) = self.pool_index(pool) else { return };
        let port = self.pools[index].port;
        let slot = match self.departed_locals.remove(&address) {
            Some(departed) => {
                if departed.port != port {
                    self.moved.push(DepartedLocal { since: self.generation + 1, ..departed });
                }
                departed.slot
            }
            None => {
                let Some(slot) = self.local_slots.take().map(LocalAddressSlot) else { return };
                slot
            }
        };
        self.moved.retain(|moved| (moved.port, moved.address) != (port, address));
        self.locals.insert(address, slot);
        self.pools[index].addresses.push(LocalAddress { slot, address });
    }

    fn remove_local(&mut self, pool: &str, address: IpAddr) {
        let Some(index) = self.pool_index(pool) else { return };
        let pool = &mut self.pools[index];
        let Some(position) = pool.addresses.iter().position(|local| local.address == address) else { return };
        let slot = pool.addresses.remove(position).slot;
        let departed =
            DepartedLocal { address, slot, port: pool.port, pool: pool.name.clone(), since: self.generation + 1 };
        self.departed_locals.insert(address, departed);
    }

    /// Every local address that is or was in a pool and is still on its port.
    pub fn local_addresses(&self) -> impl Iterator<Item = (PortId, IpAddr)> {
        self.pools.iter().flat_map(|pool| pool.addresses.iter().map(|local| (pool.port, local.address)))
    }

    /// What a service has carried while it existed: its real servers', and those' that it had.
    pub(super) fn service_traffic(&self, number: u64, service: &ServiceEntry) -> TrafficTotals {
        let mut sum = service.retired;
        for entry in &service.real_servers {
            sum += totals::real_server_traffic(&self.counters, entry.slot) - entry.baseline;
        }
        let departed = self.departed_real_servers.get(&service.key).into_iter().flatten();
        for departed in departed.filter(|departed| departed.service == number) {
            sum += totals::real_server_traffic(&self.counters, departed.slot) - departed.baseline;
        }
        sum
    }

    /// The port of this name.
    pub(super) fn port_id(&self, name: &str) -> Option<PortId> {
        let index = self.scope.ports.iter().position(|port| port == name)?;
        u8::try_from(index).ok().map(PortId)
    }

    /// The port that packets enter by, where a rule says that; none: there is no such port, and the rule is for nothing.
    #[expect(clippy::option_option, reason = "a rule that names no port is for every port")]
    pub(super) fn entry_port(&self, name: Option<&String>) -> Option<Option<PortId>> {
        name.map_or(Some(None), |name| self.port_id(name).map(Some))
    }

    /// The name of a port.
    pub fn port_name(&self, port: PortId) -> &str {
        self.scope.ports.get(port.index()).map_or("?", String::as_str)
    }

    pub(super) fn pool_index(&self, name: &str) -> Option<usize> {
        self.pools.iter().position(|pool| pool.name == name)
    }

    /// The service of this key.
    pub(super) fn service(&self, key: &ServiceKey) -> Option<&ServiceEntry> {
        self.services.get(self.by_key.get(key)?)
    }

    fn service_mut(&mut self, key: &ServiceKey) -> Option<&mut ServiceEntry> {
        self.services.get_mut(self.by_key.get(key)?)
    }
}

impl Pool {
    pub fn to_config(&self) -> LocalPoolConfig {
        LocalPoolConfig {
            name: self.name.clone(),
            port: self.settings.port.clone(),
            addresses: self.addresses.iter().map(|local| local.address).collect(),
            ports: self.settings.ports,
            transient: self.settings.transient,
        }
    }
}

impl ServiceEntry {
    /// How packets reach each of its real servers.
    pub(super) fn modes(&self) -> impl Iterator<Item = ForwardingMode> {
        self.real_servers.iter().map(|entry| entry.config.mode.unwrap_or(self.settings.mode))
    }

    /// How it keeps its clients with their real servers.
    pub fn persistence(&self) -> Option<Persistence> {
        let longest = Persistence::longest_prefix(self.key.address.is_ipv4());
        let ServiceSettings { persistence: timeout_seconds, persistence_prefix, .. } = self.settings;
        let prefix_len = persistence_prefix.unwrap_or(longest);
        (timeout_seconds > 0).then_some(Persistence { timeout_seconds, prefix_len })
    }

    pub fn to_config(&self) -> ServiceConfig {
        let ServiceSettings { scheduler, scheduler_flags, mode, ref local_pool, mss_clamp, .. } = self.settings;
        ServiceConfig {
            vip: self.key.vip(),
            protocol: self.key.protocol,
            scheduler,
            scheduler_flags,
            mode,
            local_pool: local_pool.clone(),
            mss_clamp,
            persistence: self.settings.persistence,
            persistence_prefix: self.settings.persistence_prefix,
            one_packet: self.settings.one_packet,
            max_connections: self.settings.max_connections,
            slow_start: self.settings.slow_start,
            real_servers: self.real_servers.iter().map(|entry| entry.config.clone()).collect(),
        }
    }
}

pub(super) fn release(uses: &mut HashMap<IpAddr, u32>, address: IpAddr) {
    if let Some(count) = uses.get_mut(&address) {
        *count -= 1;
        if *count == 0 {
            uses.remove(&address);
        }
    }
}
