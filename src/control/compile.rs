//! From the model to the table that workers read.
//!
//! The whole table is made anew each time: time is linear in what is configured (10,000 services with 10 real
//! servers each: a few milliseconds), and workers need no locks. Who compiles many changes in a row should do so
//! once for several of them.

use std::net::SocketAddr;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::model::{Model, Pool, RealServerEntry, ServiceEntry};
use crate::balance::{
    ForwardingMode, LocalPool, Marks, MssClamp, Protocol, RealServer, Service, ServiceTable, Timeouts, Tunnel,
    WideServices,
};
use crate::port::PortId;

impl Model {
    /// The table of what the model holds now, of the next generation.
    pub fn compile(&mut self, timeouts: Timeouts) -> ServiceTable {
        self.generation += 1;
        let schedulers = self.prepare_schedulers();
        let pool_index: HashMap<&str, usize> =
            self.pools.iter().enumerate().map(|(index, pool)| (pool.name.as_str(), index)).collect();
        let services: Vec<Service> = self
            .services
            .values()
            .zip(schedulers)
            .map(|(service, scheduler)| Service {
                key: service.key,
                scheduler,
                persistence: service.persistence(),
                one_packet: service.settings.one_packet,
                max_connections: service.settings.max_connections,
                pool: pool_index.get(service.settings.local_pool.as_str()).copied(),
                owned_by_client: service.modes().any(|mode| mode == ForwardingMode::Nat),
                cursor: service.cursor as usize,
                real_servers: service.real_servers.iter().rev().map(|entry| entry.compile(service)).collect(),
            })
            .collect();
        ServiceTable {
            generation: self.generation,
            by_key: services.iter().enumerate().map(|(index, service)| (service.key, index)).collect(),
            wide: WideServices::of(&services),
            marks: Marks::of(self.compile_marks(), &services),
            virtual_addresses: addressed(&services).map(|service| service.key.address).collect(),
            cursor_count: self.cursors.high_water(),
            has_nat: services.iter().any(|service| service.owned_by_client),
            nat_servers: self.nat_servers(&services),
            snat: self.compile_snat(),
            drained: self.compile_drained(),
            tunnels: self.compile_tunnels(),
            mss_clamps: self.compile_mss_clamps(),
            services,
            real_server_present: self.present.clone(),
            pools: self.compile_pools(),
            local_addresses: self.locals.clone(),
            local_address_ports: self.local_address_ports(),
            timeouts,
            overloads: Arc::clone(&self.overloads),
            templates: Arc::clone(&self.templates),
            sysctls: self.sysctls,
        }
    }

    /// The real servers in mode `nat`, where there are rules that their packets might match, or these are told of lost sessions.
    fn nat_servers(&self, services: &[Service]) -> HashSet<(Protocol, SocketAddr)> {
        let is_wanted = !self.snat.is_empty() || self.sysctls.nat_icmp_send;
        let services = services.iter().filter(|service| service.owned_by_client && is_wanted);
        let of = |service: &Service| {
            let protocols = service.key.protocol.each();
            let servers = service.real_servers.iter().filter(|server| server.mode == ForwardingMode::Nat);
            let end = |server: &RealServer| SocketAddr::new(server.address, server.port);
            servers
                .flat_map(|server| protocols.iter().map(move |&protocol| (protocol, end(server))))
                .collect::<Vec<_>>()
        };
        services.flat_map(of).collect()
    }

    /// Whether a real server has weight 0.
    fn compile_drained(&self) -> Vec<bool> {
        let entries = self.services.values().flat_map(|service| &service.real_servers);
        let drained = entries.filter(|entry| entry.weight_now.0 == 0);
        by_slot(drained.map(|entry| (entry.slot.0, true)), false)
    }

    fn compile_tunnels(&self) -> Vec<Tunnel> {
        let entries = self.services.values().flat_map(|service| &service.real_servers);
        by_slot(entries.filter_map(|entry| Some((entry.slot.0, entry.config.tunnel?))), Tunnel::default())
    }

    fn compile_mss_clamps(&self) -> Vec<MssClamp> {
        let clamping = self.services.values().filter(|service| !service.settings.mss_clamp.is_off());
        let clamps = clamping.flat_map(|ServiceEntry { settings, real_servers, .. }| {
            real_servers.iter().map(|entry| (entry.slot.0, settings.mss_clamp))
        });
        by_slot(clamps, MssClamp::Off)
    }

    /// Withdrawn addresses are on the port that they were withdrawn from.
    fn local_address_ports(&self) -> Vec<PortId> {
        let in_pools = self.pools.iter().flat_map(|pool| pool.addresses.iter().map(|local| (local.slot.0, pool.port)));
        let departed = self.departed_locals.values().map(|departed| (departed.slot.0, departed.port));
        by_slot(departed.chain(in_pools), PortId(0))
    }

    fn compile_pools(&self) -> Vec<LocalPool> {
        let of = |pool: &Pool, ipv4: bool| {
            let addresses = pool.addresses.iter().filter(|local| local.address.is_ipv4() == ipv4);
            addresses.copied().collect()
        };
        let pools = self.pools.iter().map(|pool| LocalPool {
            name: pool.name.clone(),
            port: pool.port,
            ports: pool.settings.ports,
            ipv4: of(pool, true),
            ipv6: of(pool, false),
        });
        pools.collect()
    }
}

/// The services of addresses, not of marks.
fn addressed(services: &[Service]) -> impl Iterator<Item = &Service> {
    services.iter().filter(|service| service.key.mark.is_none())
}

impl RealServerEntry {
    fn compile(&self, service: &ServiceEntry) -> RealServer {
        let mode = self.config.mode.unwrap_or(service.settings.mode);
        // As in IPVS, which lists its port nevertheless (net/netfilter/ipvs/ip_vs_core.c, `ip_vs_sched_persist`).
        let is_asked = mode == ForwardingMode::Nat && service.key.ports.is_all() && service.settings.persistence > 0;
        RealServer {
            mode,
            slot: self.slot,
            address: self.config.address.ip(),
            port: if is_asked { 0 } else { self.config.address.port() },
            weight: self.weight_now,
            upper_threshold: self.config.upper_threshold,
            lower_threshold: self.config.lower_threshold,
        }
    }
}

/// What slots have, up to the last that has something; of those below that have nothing, `nothing`. The last one given of a slot counts.
fn by_slot<T: Copy>(given: impl Iterator<Item = (u32, T)>, nothing: T) -> Vec<T> {
    let mut all = Vec::new();
    for (slot, value) in given {
        let slot = slot as usize;
        all.resize(all.len().max(slot + 1), nothing);
        all[slot] = value;
    }
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::{BalanceConfig, BalanceScope, ServiceConfig};
    use crate::telemetry::counters::SlotLimits;

    /// The table of these services.
    fn compiled(services: Value) -> ServiceTable {
        let services: Vec<ServiceConfig> = serde_json::from_value(services).unwrap();
        let balance = BalanceConfig { services, ..BalanceConfig::default() };
        let scope = BalanceScope { ports: Vec::new(), own_addresses: Vec::new(), workers: 1 };
        let limits = SlotLimits { real_servers: 4, local_addresses: 4 };
        Model::new(scope, Vec::new(), limits, &balance).unwrap().compile(Timeouts::default())
    }

    /// The port at which the real server 10.1.0.11:8080 of a service gets what a client asks of port 7001.
    fn port_of(vip: &str, mode: ForwardingMode, persistence: u32) -> u16 {
        let table = compiled(json!([{
            "vip": vip, "protocol": "tcp", "scheduler": "rr", "local_pool": "", "mode": mode, "persistence": persistence,
            "real_server": [{"address": "10.1.0.11:8080", "weight": 1}],
        }]));
        table.services[0].real_servers[0].port_for(7001)
    }

    #[test]
    fn real_servers_of_weight_0_are_known_by_their_slots_also_those_of_marks() {
        let of = |weights: [u32; 2]| {
            let service = |vip: &str, protocol: &str, weight| {
                json!({"vip": vip, "protocol": protocol, "scheduler": "rr", "local_pool": "", "mode": "dr",
                       "real_server": [{"address": "10.1.0.11:80", "weight": weight}]})
            };
            let table =
                compiled(json!([service("10.0.0.100:80", "tcp", weights[0]), service("fwmark:7", "any", weights[1]),]));
            table.services.iter().map(|own| table.is_drained(own.real_servers[0].slot)).collect::<Vec<_>>()
        };
        assert_eq!(of([1, 1]), [false, false]);
        assert_eq!(of([0, 1]), [true, false]);
        assert_eq!(of([1, 0]), [false, true]);
    }

    #[test]
    fn a_persistent_service_of_all_ports_leaves_the_port_alone_in_mode_nat() {
        assert_eq!(port_of("10.0.0.100:0", ForwardingMode::Nat, 300), 7001);
        assert_eq!(port_of("10.0.0.100:0", ForwardingMode::Nat, 0), 8080);
        assert_eq!(port_of("10.0.0.100:7001", ForwardingMode::Nat, 300), 8080);
        assert_eq!(port_of("10.0.0.100:7000-7009", ForwardingMode::Nat, 300), 8080);
    }
}
