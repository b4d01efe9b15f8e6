//! From the model to the table that workers read.
//!
//! The whole table is made anew each time: time is linear in what is configured (10,000 services with 10 real
//! servers each: a few milliseconds), and workers need no locks. Who compiles many changes in a row should do so
//! once for several of them.

use hashbrown::HashMap;

use super::model::{Model, RealServerEntry};
use crate::balance::{LocalPool, RealServer, Service, ServiceTable, Timeouts};
use crate::port::PortId;

impl Model {
    /// The table of what the model holds now, of the next generation.
    pub fn compile(&mut self, timeouts: Timeouts) -> ServiceTable {
        self.generation += 1;
        let pool_index: HashMap<&str, usize> =
            self.pools.iter().enumerate().map(|(index, pool)| (pool.name.as_str(), index)).collect();
        let services: Vec<Service> = self
            .services
            .values()
            .map(|service| Service {
                key: service.key,
                scheduler: service.settings.scheduler,
                mode: service.settings.mode,
                pool: pool_index.get(service.settings.local_pool.as_str()).copied().unwrap_or(0),
                cursor: service.cursor as usize,
                real_servers: service.real_servers.iter().rev().map(RealServerEntry::compile).collect(),
            })
            .collect();
        ServiceTable {
            generation: self.generation,
            by_key: services.iter().enumerate().map(|(index, service)| (service.key, index)).collect(),
            virtual_addresses: services.iter().map(|service| service.key.address).collect(),
            cursor_count: self.cursors.high_water(),
            services,
            real_server_present: self.present.clone(),
            pools: self.compile_pools(),
            local_addresses: self.locals.clone(),
            local_address_ports: self.local_address_ports(),
            timeouts,
        }
    }

    /// By slot. Withdrawn addresses are on the port that they were withdrawn from.
    fn local_address_ports(&self) -> Vec<PortId> {
        let in_pools = self.pools.iter().flat_map(|pool| pool.addresses.iter().map(|local| (local.slot, pool.port)));
        let departed = self.departed_locals.values().map(|departed| (departed.slot, departed.port));
        let mut ports = Vec::new();
        for (slot, port) in departed.chain(in_pools) {
            let slot = slot.0 as usize;
            ports.resize(ports.len().max(slot + 1), PortId(0));
            ports[slot] = port;
        }
        ports
    }

    fn compile_pools(&self) -> Vec<LocalPool> {
        let pools = self.pools.iter().map(|pool| LocalPool {
            name: pool.name.clone(),
            port: pool.port,
            ports: pool.settings.ports,
            addresses: pool.addresses.clone(),
        });
        pools.collect()
    }
}

impl RealServerEntry {
    fn compile(&self) -> RealServer {
        RealServer {
            slot: self.slot,
            address: *self.config.address.ip(),
            port: self.config.address.port(),
            weight: self.config.weight,
            upper_threshold: self.config.upper_threshold,
            lower_threshold: self.config.lower_threshold,
        }
    }
}
