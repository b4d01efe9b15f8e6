//! Slots of what was removed: kept while sessions may still count on them, given back to the same real server or
//! local address, or freed.
//!
//! A slot is freed only when every worker has adopted a table without its holder *and then* no worker has a session
//! on it: with neither a table nor a session naming it, nobody can count on it any more.

use std::net::{IpAddr, SocketAddr};

use super::model::{Model, RealServerEntry, release};
use super::protocol::TrafficTotals;
use super::totals;
use crate::balance::{LocalAddressSlot, RealServerSlot, ServiceKey};
use crate::port::PortId;

/// A removed real server that still holds its slot.
#[derive(Clone, Debug)]
pub(super) struct DepartedRealServer {
    pub address: SocketAddr,
    pub slot: RealServerSlot,
    pub baseline: TrafficTotals,
    /// The service that it belonged to.
    pub service: u64,
    /// The first table without it.
    pub since: u64,
}

/// A withdrawn local address that still holds its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DepartedLocal {
    pub address: IpAddr,
    pub slot: LocalAddressSlot,
    pub port: PortId,
    /// The pool that it was in.
    pub pool: String,
    /// The first table without it.
    pub since: u64,
}

/// What [`Model::reclaim`] found free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Slots of real servers, and of rules for source NAT, that can be used again.
    pub real_servers: usize,
    /// Local addresses that no session uses any more and that can be taken off these ports.
    pub local_addresses: Vec<(PortId, IpAddr)>,
    /// The workers' table still names a freed local address: publish a new one.
    pub publish: bool,
}

impl Model {
    pub(super) fn depart(&mut self, key: ServiceKey, service: u64, entry: RealServerEntry) {
        let RealServerEntry { config, slot, baseline, .. } = entry;
        self.set_present(slot, false);
        release(&mut self.real_uses, config.address.ip());
        let since = self.generation + 1;
        let departed = DepartedRealServer { address: config.address, slot, baseline, service, since };
        self.departed_real_servers.entry(key).or_default().push(departed);
    }

    /// Where a real server that was removed and may still have sessions stands in its list, if an added one of its address is to have
    /// them again: not where they end for want of it.
    pub(super) fn departed_position(&self, key: &ServiceKey, address: SocketAddr) -> Option<usize> {
        let list = self.departed_real_servers.get(key).filter(|_| !self.sysctls.expire_nodest_conn)?;
        list.iter().position(|departed| departed.address == address)
    }

    pub(super) fn take_departed(&mut self, key: &ServiceKey, address: SocketAddr) -> Option<DepartedRealServer> {
        let index = self.departed_position(key, address)?;
        let list = self.departed_real_servers.get_mut(key)?;
        let departed = list.swap_remove(index);
        if list.is_empty() {
            self.departed_real_servers.remove(key);
        }
        Some(departed)
    }

    /// Frees the slots of departed real servers and local addresses that have no session any more, given that every
    /// worker has adopted the table of this generation or a later one.
    ///
    /// `adopted` must have been found out before this is called: a worker that still used an older table when its
    /// counters were read might set up one more session afterwards.
    pub fn reclaim(&mut self, adopted: u64) -> Reclaimed {
        let real_servers = self.reclaim_real_servers(adopted) + self.reclaim_snat(adopted);
        let mut reclaimed = Reclaimed { real_servers, ..Reclaimed::default() };
        let (counters, locals, slots) = (&self.counters, &mut self.locals, &mut self.local_slots);
        self.departed_locals.retain(|address, departed| {
            let used = adopted < departed.since || totals::local_ports_used(counters, departed.slot) > 0;
            if !used {
                locals.remove(address);
                slots.give_back(departed.slot.0);
                reclaimed.local_addresses.push((departed.port, *address));
                reclaimed.publish = true;
            }
            used
        });
        self.moved.retain(|moved| {
            let used = adopted < moved.since;
            if !used {
                reclaimed.local_addresses.push((moved.port, moved.address));
            }
            used
        });
        reclaimed
    }

    fn reclaim_real_servers(&mut self, adopted: u64) -> usize {
        let mut count = 0;
        let (counters, services, slots) = (&self.counters, &mut self.services, &mut self.real_slots);
        let templates = &self.templates;
        self.departed_real_servers.retain(|_, list| {
            list.retain(|departed| {
                let now = totals::real_server_connections(counters, departed.slot);
                let has_sessions = now.active != 0 || now.inactive != 0;
                let used = adopted < departed.since || has_sessions || templates.of_real_server(departed.slot) > 0;
                if !used {
                    if let Some(service) = services.get_mut(&departed.service) {
                        service.retired += totals::real_server_traffic(counters, departed.slot) - departed.baseline;
                    }
                    slots.give_back(departed.slot.0);
                    count += 1;
                }
                used
            });
            !list.is_empty()
        });
        count
    }

    /// Whether [`Model::reclaim`] may find something.
    pub fn has_departed(&self) -> bool {
        let none = self.departed_real_servers.is_empty() && self.departed_snat.is_empty();
        !(none && self.departed_locals.is_empty() && self.moved.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::balance::{Sysctls, Timeouts};
    use crate::config::{BalanceConfig, BalanceScope};
    use crate::control::protocol::{ErrorKind, Request};
    use crate::telemetry::counters::{SlotLimits, WorkerCounters};

    const LIMITS: SlotLimits = SlotLimits { real_servers: 4, local_addresses: 4 };

    fn balance() -> BalanceConfig {
        let real_server = |address: &str| serde_json::json!({"address": address, "weight": 1});
        serde_json::from_value(serde_json::json!({
            "local_pool": [{"name": "lan", "port": "lan", "addresses": ["10.1.0.200", "10.1.0.201"], "ports": "1024-65535"}],
            "service": [{
                "vip": "10.0.0.100:80", "protocol": "tcp", "scheduler": "rr", "mode": "fullnat", "local_pool": "lan",
                "real_server": [real_server("10.1.0.11:80"), real_server("10.1.0.12:80")],
            }],
        }))
        .unwrap()
    }

    fn model() -> (Model, Arc<WorkerCounters>) {
        let counters = Arc::new(WorkerCounters::new(LIMITS));
        let ports = vec!["wan".to_owned(), "lan".to_owned()];
        let scope = BalanceScope { ports, own_addresses: Vec::new(), workers: 1 };
        (Model::new(scope, vec![counters.clone()], LIMITS, &balance()).unwrap(), counters)
    }

    fn run(model: &mut Model, request: serde_json::Value) {
        let request: Request = serde_json::from_value(request).unwrap();
        let changes = model.plan(&request).unwrap().unwrap();
        assert!(!changes.is_empty());
        model.commit(changes);
    }

    fn real(command: &str, address: &str) -> serde_json::Value {
        let service = serde_json::json!({"vip": "10.0.0.100:80", "protocol": "tcp"});
        match command {
            "real.add" => serde_json::json!({
                "command": command, "service": service, "real_server": {"address": address, "weight": 1},
            }),
            _ => serde_json::json!({"command": command, "service": service, "address": address}),
        }
    }

    fn compile(model: &mut Model) -> u64 {
        model.compile(Timeouts::default()).generation
    }

    fn slot_of(model: &mut Model, address: &str) -> Option<RealServerSlot> {
        let address: SocketAddr = address.parse().unwrap();
        let table = model.compile(Timeouts::default());
        let slot = table.services[0].real_servers.iter().find(|real| real.address == address.ip())?.slot;
        assert!(table.is_present(slot));
        Some(slot)
    }

    #[test]
    fn a_real_server_that_comes_back_while_it_has_sessions_gets_its_slot_and_totals_back() {
        let (mut model, counters) = model();
        let slot = slot_of(&mut model, "10.1.0.11:80").unwrap();
        let own = &counters.real_servers[slot.0 as usize];
        own.connections.add(3);
        own.active.add(1);
        run(&mut model, real("real.del", "10.1.0.11:80"));
        let generation = compile(&mut model);
        assert!(!model.compile(Timeouts::default()).is_present(slot));
        assert_eq!(model.reclaim(generation), Reclaimed::default(), "a session holds it");
        run(&mut model, real("real.add", "10.1.0.13:80"));
        assert_ne!(slot_of(&mut model, "10.1.0.13:80"), Some(slot));
        run(&mut model, real("real.add", "10.1.0.11:80"));
        assert_eq!(slot_of(&mut model, "10.1.0.11:80"), Some(slot));
        assert!(!model.has_departed());
        let row = &model.service_rows(None).unwrap()[0];
        assert_eq!((row.traffic.connections, row.real_servers[2].traffic.connections), (3, 3));
        assert_eq!(row.real_servers[2].active_connections, 1);
    }

    #[test]
    fn where_sessions_end_for_want_of_a_real_server_it_comes_back_without_them() {
        let (mut model, counters) = model();
        model.set_sysctls(Sysctls { expire_nodest_conn: true, ..Sysctls::default() });
        let slot = slot_of(&mut model, "10.1.0.11:80").unwrap();
        let own = &counters.real_servers[slot.0 as usize];
        own.connections.add(3);
        own.active.add(1);
        run(&mut model, real("real.del", "10.1.0.11:80"));
        run(&mut model, real("real.add", "10.1.0.11:80"));
        assert_ne!(slot_of(&mut model, "10.1.0.11:80"), Some(slot));
        assert!(!model.compile(Timeouts::default()).is_present(slot));
        let connections = |model: &Model| {
            let row = &model.service_rows(None).unwrap()[0];
            (row.traffic.connections, row.real_servers[1].traffic.connections)
        };
        assert_eq!(connections(&model), (3, 0));
        own.active.subtract(1);
        let generation = compile(&mut model);
        assert_eq!(model.reclaim(generation).real_servers, 1, "when they have ended");
        assert_eq!(connections(&model), (3, 0));
    }

    #[test]
    fn a_slot_is_freed_without_sessions_and_tables_and_its_totals_stay_with_the_service() {
        let (mut model, counters) = model();
        let slot = slot_of(&mut model, "10.1.0.11:80").unwrap();
        let own = &counters.real_servers[slot.0 as usize];
        own.connections.add(5);
        own.inbound.bytes.add(700);
        let before = compile(&mut model);
        run(&mut model, real("real.del", "10.1.0.11:80"));
        assert_eq!(model.reclaim(before).real_servers, 0, "a worker may still use the old table");
        let after = compile(&mut model);
        own.connections.add(1);
        assert_eq!(model.reclaim(after).real_servers, 1);
        let traffic = model.service_rows(None).unwrap()[0].traffic;
        assert_eq!((traffic.connections, traffic.in_bytes), (6, 700));
        run(&mut model, real("real.add", "10.1.0.14:80"));
        assert_eq!(slot_of(&mut model, "10.1.0.14:80"), Some(slot), "the slot is used again");
        let row = &model.service_rows(None).unwrap()[0];
        assert_eq!(row.real_servers[1].traffic, TrafficTotals::default(), "and counts from 0");
        assert_eq!(row.traffic.connections, 6);
    }

    #[test]
    fn a_service_that_is_made_again_counts_from_0_and_its_sessions_come_back() {
        let (mut model, counters) = model();
        let slot = slot_of(&mut model, "10.1.0.11:80").unwrap();
        counters.real_servers[slot.0 as usize].connections.add(5);
        counters.real_servers[slot.0 as usize].active.add(2);
        let service = serde_json::json!({"vip": "10.0.0.100:80", "protocol": "tcp"});
        run(&mut model, serde_json::json!({"command": "service.del", "service": service}));
        run(&mut model, serde_json::json!({"command": "service.add", "service": balance().services[0]}));
        assert_eq!(slot_of(&mut model, "10.1.0.11:80"), Some(slot));
        let row = &model.service_rows(None).unwrap()[0];
        assert_eq!((row.traffic.connections, row.real_servers[0].active_connections), (0, 2));
    }

    #[test]
    fn what_workers_carried_for_services_stays_theirs_when_source_nat_gets_the_slot_and_the_other_way_round() {
        let (mut model, counters) = model();
        let carried = |model: &Model| model.worker_traffic()[0].connections;
        let slot = slot_of(&mut model, "10.1.0.11:80").unwrap();
        let own = &counters.real_servers[slot.0 as usize];
        own.connections.add(5);
        run(&mut model, real("real.del", "10.1.0.11:80"));
        let generation = compile(&mut model);
        assert_eq!(model.reclaim(generation).real_servers, 1);
        let rule = serde_json::json!({"name": "office", "source": "10.1.0.0/24", "local_pool": "lan"});
        run(&mut model, serde_json::json!({"command": "snat.add", "rule": rule}));
        own.connections.add(7);
        assert_eq!(carried(&model), 5);
        run(&mut model, serde_json::json!({"command": "snat.del", "name": "office"}));
        assert_eq!(carried(&model), 5);
        let generation = compile(&mut model);
        assert_eq!(model.reclaim(generation).real_servers, 1);
        run(&mut model, real("real.add", "10.1.0.13:80"));
        own.connections.add(1);
        assert_eq!(carried(&model), 6);
        let service = serde_json::json!({"vip": "10.0.0.100:80", "protocol": "tcp"});
        run(&mut model, serde_json::json!({"command": "service.del", "service": service}));
        assert_eq!(carried(&model), 6);
    }

    #[test]
    fn departed_slots_count_against_the_limit() {
        let (mut model, counters) = model();
        let slot = slot_of(&mut model, "10.1.0.11:80").unwrap();
        counters.real_servers[slot.0 as usize].inactive.add(1);
        run(&mut model, real("real.del", "10.1.0.11:80"));
        run(&mut model, real("real.add", "10.1.0.13:80"));
        run(&mut model, real("real.add", "10.1.0.14:80"));
        let request: Request = serde_json::from_value(real("real.add", "10.1.0.15:80")).unwrap();
        let refusal = model.plan(&request).unwrap().unwrap_err();
        assert_eq!(refusal.kind, ErrorKind::Limit, "{refusal}");
        run(&mut model, real("real.add", "10.1.0.11:80"));
    }

    #[test]
    fn a_withdrawn_address_stays_known_to_the_workers_until_its_ports_are_free() {
        let (mut model, counters) = model();
        let address: IpAddr = "10.1.0.200".parse().unwrap();
        let slot = model.compile(Timeouts::default()).local_addresses[&address];
        counters.local_addresses[slot.0 as usize].ports_used.set(1);
        let del = serde_json::json!({"command": "local.del", "pool": "lan", "addresses": ["10.1.0.200"]});
        run(&mut model, del.clone());
        let table = model.compile(Timeouts::default());
        assert_eq!(table.pools[0].ipv4.len(), 1);
        assert_eq!(table.local_addresses.get(&address), Some(&slot));
        assert!(model.local_pool_rows()[0].addresses[1].withdrawn);
        assert_eq!(model.reclaim(table.generation), Reclaimed::default());

        let add = serde_json::json!({"command": "local.add", "pool": "lan", "addresses": ["10.1.0.200"]});
        let request: Request = serde_json::from_value(add.clone()).unwrap();
        let changes = model.plan(&request).unwrap().unwrap();
        assert_eq!(model.addresses_to_add(&changes), [], "it is still on its port");
        model.commit(changes);
        assert_eq!(model.compile(Timeouts::default()).local_addresses[&address], slot);

        run(&mut model, del);
        counters.local_addresses[slot.0 as usize].ports_used.set(0);
        let generation = compile(&mut model);
        let reclaimed = model.reclaim(generation);
        assert_eq!(reclaimed.local_addresses, [(PortId(1), address)]);
        assert!(reclaimed.publish);
        assert!(!model.compile(Timeouts::default()).local_addresses.contains_key(&address));
        let request: Request = serde_json::from_value(add).unwrap();
        let changes = model.plan(&request).unwrap().unwrap();
        assert_eq!(model.addresses_to_add(&changes), [(PortId(1), address)]);
    }

    #[test]
    fn a_pool_that_moves_to_another_port_takes_its_addresses_along() {
        let (mut model, counters) = model();
        let address: IpAddr = "10.1.0.200".parse().unwrap();
        let slot = model.compile(Timeouts::default()).local_addresses[&address];
        counters.local_addresses[slot.0 as usize].ports_used.set(7);
        let mut wanted = balance();
        wanted.local_pools[0].port = "wan".to_owned();
        let changes = model.plan_apply(&wanted).unwrap();
        assert_eq!(model.addresses_to_add(&changes).len(), 2);
        model.commit(changes);
        let table = model.compile(Timeouts::default());
        assert_eq!((table.pools[0].port, table.local_addresses[&address]), (PortId(0), slot));
        let reclaimed = model.reclaim(table.generation);
        assert_eq!(reclaimed.local_addresses.len(), 2, "both leave the old port at once");
        assert!(reclaimed.local_addresses.contains(&(PortId(1), address)));
        assert_eq!(model.to_config(), wanted);
    }
}
