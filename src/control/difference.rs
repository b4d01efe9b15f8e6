//! The steps from the model's state to a wanted one: what `apply` does.
//!
//! What is in both stays untouched: real servers keep slots, sessions and their order; services keep their cursors.
//! What is new comes last, in the order given. Local addresses are withdrawn before others are added, so that one
//! can go from a pool to another; a pool goes when nothing refers to it any more.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use hashbrown::{HashMap, HashSet};

use super::change::{Change, PoolSettings, ServiceSettings};
use super::model::{Model, Pool, ServiceEntry};
use super::plan::{real_edit, service_add};
use super::protocol::{ErrorKind, Refusal};
use crate::balance::ServiceKey;
use crate::config::{BalanceConfig, LocalPoolConfig, RealServerConfig, ServiceConfig};

impl Model {
    /// The steps that make the model equal to `wanted`, or why that is refused: every rule broken, one a line.
    pub fn plan_apply(&self, wanted: &BalanceConfig) -> Result<Vec<Change>, Refusal> {
        let wanted = &*with_default_pool(wanted);
        wanted.validate(&self.scope).map_err(refusal)?;
        self.plan_difference(wanted)
    }

    /// The same to a state that commands led to (see [`BalanceConfig::validate_kept`]).
    pub fn plan_kept(&self, wanted: &BalanceConfig) -> Result<Vec<Change>, Refusal> {
        let wanted = &*with_default_pool(wanted);
        wanted.validate_kept(&self.scope).map_err(refusal)?;
        self.plan_difference(wanted)
    }

    fn plan_difference(&self, wanted: &BalanceConfig) -> Result<Vec<Change>, Refusal> {
        let mut changes = self.pool_changes(&wanted.local_pools);
        self.service_changes(&wanted.services, &mut changes);
        changes.extend(self.snat_changes(&wanted.snat));
        changes.extend(self.mark_changes(&wanted.marks));
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
                Change::ServiceAdd { key, .. } => self.vip_not_local(*key)?,
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

fn refusal(broken: Vec<String>) -> Refusal {
    Refusal::new(ErrorKind::Invalid, broken.join("\n"))
}

/// The wanted state, with the only pool there is for services that name none.
fn with_default_pool(wanted: &BalanceConfig) -> Cow<'_, BalanceConfig> {
    let mut wanted = Cow::Borrowed(wanted);
    if wanted.services.iter().any(|service| service.local_pool.is_empty()) {
        wanted.to_mut().fill_default_pool();
    }
    wanted
}

/// All addresses of a pool that goes or changes its port, else those that are not wanted any more.
fn withdrawn_addresses(pool: &Pool, wanted: Option<&LocalPoolConfig>) -> Vec<Change> {
    let kept: HashSet<IpAddr> = match wanted {
        Some(config) if config.port == pool.settings.port => config.addresses.iter().copied().collect(),
        _ => HashSet::new(),
    };
    let gone = pool.addresses.iter().map(|local| local.address).filter(|address| !kept.contains(address));
    gone.map(|address| Change::LocalRemove { pool: pool.name.clone(), address }).collect()
}

fn added_addresses(pool: Option<&Pool>, wanted: &LocalPoolConfig) -> Vec<Change> {
    let kept: HashSet<IpAddr> = match pool {
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
    let wanted_by_address: HashMap<SocketAddr, &RealServerConfig> =
        wanted.real_servers.iter().map(|config| (config.address, config)).collect();
    for RealServerConfig { address, .. } in entry.real_servers.iter().map(|entry| &entry.config) {
        if !wanted_by_address.contains_key(address) {
            changes.push(Change::RealRemove { key, address: *address });
        }
    }
    let current: HashMap<SocketAddr, &RealServerConfig> =
        entry.real_servers.iter().map(|entry| (entry.config.address, &entry.config)).collect();
    for config in &wanted.real_servers {
        match current.get(&config.address) {
            None => changes.push(Change::RealAdd { key, real_server: config.clone() }),
            Some(from) if *from != config => changes.push(real_edit(key, from, config)),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::balance::{ForwardingMode, Timeouts, Weight};
    use crate::config::BalanceScope;
    use crate::control::protocol::ErrorKind;
    use crate::telemetry::counters::{SlotLimits, WorkerCounters};

    fn many(services: u32, real_servers: u32) -> BalanceConfig {
        let service = |number: u32| {
            let real_server = |index: u32| RealServerConfig {
                mode: None,
                tunnel: None,
                address: SocketAddr::new(
                    IpAddr::V4(std::net::Ipv4Addr::from(0x0a80_0000 + number * real_servers + index)),
                    80,
                ),
                weight: Weight(1),
                upper_threshold: 0,
                lower_threshold: 0,
            };
            ServiceConfig {
                vip: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::from(0x0a00_0100 + number)), 80).into(),
                protocol: crate::balance::Protocol::Tcp,
                scheduler: crate::balance::SchedulerKind::Wlc,
                scheduler_flags: crate::balance::SchedulerFlags::default(),
                mode: crate::balance::ForwardingMode::Fullnat,
                local_pool: "lan".to_owned(),
                mss_clamp: crate::balance::MssClamp::Off,
                persistence: 0,
                persistence_prefix: None,
                one_packet: false,
                max_connections: 0,
                slow_start: 0,
                real_servers: (0..real_servers).map(real_server).collect(),
            }
        };
        let pool = LocalPoolConfig {
            name: "lan".to_owned(),
            port: "lan".to_owned(),
            addresses: vec![IpAddr::from([10, 64, 0, 1]), IpAddr::from([10, 64, 0, 2])],
            ports: "1024-65535".parse().unwrap(),
            transient: false,
        };
        BalanceConfig {
            local_pools: vec![pool],
            services: (0..services).map(service).collect(),
            snat: Vec::new(),
            marks: Vec::new(),
        }
    }

    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 64, 0, 254));

    fn try_model(balance: &BalanceConfig) -> Result<Model, Refusal> {
        let limits = SlotLimits::default();
        let counters = vec![Arc::new(WorkerCounters::new(limits))];
        let ports = vec!["wan".to_owned(), "lan".to_owned()];
        Model::new(BalanceScope { ports, own_addresses: vec![OWN], workers: 1 }, counters, limits, balance)
    }

    fn model(balance: &BalanceConfig) -> Model {
        try_model(balance).unwrap()
    }

    fn plan(model: &Model, request: serde_json::Value) -> Result<Vec<Change>, Refusal> {
        model.plan(&serde_json::from_value(request).unwrap()).unwrap()
    }

    fn two_pools() -> BalanceConfig {
        let mut two = many(1, 1);
        let addresses = vec![IpAddr::from([10, 64, 0, 9])];
        two.local_pools.push(LocalPoolConfig { name: "two".to_owned(), addresses, ..two.local_pools[0].clone() });
        two
    }

    fn lines(changes: &[Change]) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_pool_is_made_besides_those_that_there_are() {
        let create = |addresses: &[&str], name: &str, port: &str| {
            let pool = serde_json::json!({ "name": name, "port": port, "addresses": addresses, "ports": "1024-65535" });
            plan(&model(&many(1, 1)), serde_json::json!({ "command": "local.create", "pool": pool }))
        };
        assert_eq!(
            lines(&create(&["10.64.0.9"], "tcp-10-0-1-0-80", "lan").unwrap()),
            [
                "local pool tcp-10-0-1-0-80: added on port lan, ports 1024-65535",
                "local pool tcp-10-0-1-0-80: address 10.64.0.9 added",
            ]
        );
        let refused = |addresses, name, port| create(addresses, name, port).unwrap_err().message;
        assert!(refused(&["10.64.0.9"], "lan", "lan").contains("is the name of another pool"));
        assert!(refused(&["10.64.0.1"], "two", "lan").contains("is in local pool"));
        assert!(refused(&["10.64.0.9"], "two", "dmz").contains("there is no port"));
        assert!(refused(&[], "two", "lan").contains("has no address"));
    }

    #[test]
    fn the_difference_is_what_differs_and_leads_to_the_wanted_state() {
        let mut model = model(&many(3, 3));
        let before = model.compile(Timeouts::default());
        let mut wanted = many(3, 3);
        wanted.services[1].real_servers.remove(0);
        wanted.services[1].real_servers[1].weight = Weight(0);
        wanted.services[2].scheduler = crate::balance::SchedulerKind::Rr;
        wanted.services.remove(0);
        let extra = RealServerConfig { weight: Weight(7), ..many(9, 3).services[8].real_servers[0].clone() };
        wanted.services[0].real_servers.push(extra);
        wanted.local_pools[0].addresses[0] = IpAddr::from([10, 64, 0, 3]);
        let changes = model.plan_apply(&wanted).unwrap();
        assert_eq!(
            lines(&changes),
            [
                "local pool lan: address 10.64.0.1 withdrawn",
                "local pool lan: address 10.64.0.3 added",
                "service tcp 10.0.1.0:80: removed with its real servers (3)",
                "service tcp 10.0.1.1:80: real server 10.128.0.3:80 removed",
                "service tcp 10.0.1.1:80: real server 10.128.0.5:80: weight 1 -> 0",
                "service tcp 10.0.1.1:80: real server 10.128.0.24:80 added, weight 7",
                "service tcp 10.0.1.2:80: scheduler wlc -> rr",
            ]
        );
        model.commit(changes);
        wanted.local_pools[0].addresses.reverse();
        assert_eq!(model.to_config(), wanted);
        assert_eq!(model.plan_apply(&wanted).unwrap(), []);

        let after = model.compile(Timeouts::default());
        let key = wanted.services[0].key();
        let (old, new) = (&before.services[before.by_key[&key]], &after.services[after.by_key[&key]]);
        assert_eq!(old.cursor, new.cursor);
        assert_eq!(
            (old.real_servers[1].slot, old.real_servers[0].slot),
            (new.real_servers[2].slot, new.real_servers[1].slot)
        );
        assert_eq!(new.real_servers[0].weight, Weight(7), "newest first");
        assert_eq!(after.by_key.len(), 2);
    }

    #[test]
    fn a_wanted_state_that_breaks_rules_is_refused_with_all_of_them() {
        let model = model(&many(2, 2));
        let mut wanted = many(2, 2);
        wanted.local_pools[0].addresses.push(OWN);
        wanted.local_pools[0].addresses.push(wanted.services[0].vip.address);
        wanted.local_pools[0].addresses.push(wanted.services[0].real_servers[0].address.ip());
        wanted.services[0].local_pool = "wan".to_owned();
        wanted.services[1].real_servers[0].address = SocketAddr::new(wanted.services[1].vip.address, 80);
        wanted.services[1].real_servers[1].weight = Weight(65_536);
        let expected = [
            "local pool \"lan\": 10.64.0.254 is a port's own address; allowed: addresses that the gateway uses for \
             nothing else",
            "local pool \"lan\": 10.0.1.0 is a service's VIP; allowed: addresses that the gateway uses for nothing else",
            "local pool \"lan\": 10.128.0.0 is a real server's address; allowed: addresses that the gateway uses for \
             nothing else",
            "service tcp 10.0.1.0:80: local_pool: there is no local pool \"wan\"; allowed: lan",
            "service tcp 10.0.1.1:80: real server 10.0.1.1:80: address: 10.0.1.1:80 is the service itself; \
             allowed: an address of another host",
            "service tcp 10.0.1.1:80: real server 10.128.0.3:80: weight: 65536 is out of range; \
             allowed: an integer from 0 to 65535",
        ];
        let refusal = model.plan_apply(&wanted).unwrap_err();
        assert_eq!(
            (refusal.kind, refusal.message.lines().collect::<Vec<_>>()),
            (ErrorKind::Invalid, expected.to_vec())
        );
        assert_eq!(try_model(&wanted).unwrap_err(), refusal, "no model begins with it either");
    }

    /// What one command that breaks a rule is refused with, an `apply` of the same is refused with too.
    #[test]
    fn single_commands_are_held_to_the_same_rules_in_the_same_words() {
        let before = many(1, 1);
        let model = model(&before);
        let service = |change: fn(&mut ServiceConfig)| {
            let mut wanted = many(2, 1);
            change(&mut wanted.services[1]);
            let request = serde_json::json!({"command": "service.add", "service": wanted.services[1]});
            (request, wanted)
        };
        let real = |change: fn(&mut RealServerConfig)| {
            let mut wanted = many(1, 1);
            let mut added = RealServerConfig {
                address: "10.128.0.9:80".parse().unwrap(),
                ..many(1, 1).services[0].real_servers[0].clone()
            };
            change(&mut added);
            wanted.services[0].real_servers.push(added.clone());
            let of = serde_json::json!({"vip": "10.0.1.0:80", "protocol": "tcp"});
            (serde_json::json!({"command": "real.add", "service": of, "real_server": added}), wanted)
        };
        let local = |address: &str| {
            let mut wanted = many(1, 1);
            wanted.local_pools[0].addresses.push(address.parse().unwrap());
            (serde_json::json!({"command": "local.add", "pool": "lan", "addresses": [address]}), wanted)
        };
        let cases = [
            (service(|s| s.vip = "224.0.0.1:80".parse().unwrap()), ErrorKind::Invalid),
            (service(|s| (s.vip.ports, s.mode) = (0.into(), ForwardingMode::Dr)), ErrorKind::Invalid),
            (service(|s| s.vip.address = IpAddr::from([10, 0, 1, 0])), ErrorKind::Exists),
            (service(|s| s.local_pool = "wan".to_owned()), ErrorKind::NotFound),
            (service(|s| s.real_servers[0].address.set_ip(s.vip.address)), ErrorKind::Invalid),
            (service(|s| s.real_servers[0].address.set_port(0)), ErrorKind::Invalid),
            (service(|s| s.real_servers[0].weight = Weight(70_000)), ErrorKind::Invalid),
            (service(|s| s.real_servers.push(s.real_servers[0].clone())), ErrorKind::Invalid),
            (real(|r| r.address = "10.0.1.0:80".parse().unwrap()), ErrorKind::Invalid),
            (real(|r| r.address = "10.128.0.0:80".parse().unwrap()), ErrorKind::Exists),
            (real(|r| r.address = "127.0.0.1:0".parse().unwrap()), ErrorKind::Invalid),
            (real(|r| r.address = "10.64.0.254:80".parse().unwrap()), ErrorKind::OwnAddress),
            (service(|s| s.real_servers[0].address.set_ip(OWN)), ErrorKind::OwnAddress),
            (real(|r| (r.weight, r.lower_threshold) = (Weight(65_536), 1)), ErrorKind::Invalid),
            (local("10.64.0.254"), ErrorKind::Conflict),
            (local("10.0.1.0"), ErrorKind::Conflict),
            (local("10.128.0.0"), ErrorKind::Conflict),
            (local("10.64.0.2"), ErrorKind::Exists),
            (local("240.0.0.1"), ErrorKind::Invalid),
        ];
        for ((request, wanted), kind) in cases {
            let refusal = plan(&model, request.clone()).unwrap_err();
            let whole = model.plan_apply(&wanted).unwrap_err();
            assert_eq!((refusal.kind, &refusal.message), (kind, &whole.message), "{request}");
        }
        assert_eq!(model.to_config(), before);
    }

    #[test]
    fn ranges_of_ports_that_overlap_are_refused_and_both_named() {
        let mut before = many(1, 1);
        before.services[0].vip = "10.0.1.0:8000-8099".parse().unwrap();
        let model = model(&before);
        let with = |vip: &str| {
            let mut wanted = before.clone();
            wanted.services.push(ServiceConfig { vip: vip.parse().unwrap(), ..before.services[0].clone() });
            let added = plan(&model, serde_json::json!({"command": "service.add", "service": wanted.services[1]}));
            (added, model.plan_apply(&wanted))
        };
        for vip in ["10.0.1.0:8099-8200", "10.0.1.0:1-65535", "10.0.1.0:8010-8020"] {
            let (added, applied) = with(vip);
            let (added, applied) = (added.unwrap_err(), applied.unwrap_err());
            assert_eq!((added.kind, &added.message), (ErrorKind::Conflict, &applied.message), "{vip}");
            assert!(
                added.message.starts_with(&format!(
                    "service tcp {vip}: vip: tcp {vip} has ports in common with service tcp 10.0.1.0:8000-8099; allowed: "
                )),
                "{added}"
            );
        }
        for vip in ["10.0.1.0:8100-8200", "10.0.1.0:8010", "10.0.1.0:0", "10.0.1.1:8000-8099"] {
            let (added, applied) = with(vip);
            assert_eq!(lines(&added.unwrap()), lines(&applied.unwrap()), "{vip}");
        }
    }

    #[test]
    fn what_clashes_with_a_local_address_is_refused() {
        let model = model(&many(1, 1));
        let mut service = many(2, 1).services.remove(1);
        service.vip.address = IpAddr::from([10, 64, 0, 1]);
        let refusal = plan(&model, serde_json::json!({"command": "service.add", "service": service})).unwrap_err();
        assert_eq!(
            (refusal.kind, refusal.message.as_str()),
            (
                ErrorKind::Conflict,
                "service tcp 10.64.0.1:80: vip: 10.64.0.1 is in local pool \"lan\"; \
                 allowed: an address that is in no local pool"
            )
        );
        let of = serde_json::json!({"vip": "10.0.1.0:80", "protocol": "tcp"});
        let real_server = serde_json::json!({"address": "10.64.0.2:80", "weight": 1});
        let add = serde_json::json!({"command": "real.add", "service": of, "real_server": real_server});
        let refusal = plan(&model, add).unwrap_err();
        assert_eq!(
            (refusal.kind, refusal.message.as_str()),
            (
                ErrorKind::Conflict,
                "service tcp 10.0.1.0:80: real server 10.64.0.2:80: address: 10.64.0.2 is in local pool \"lan\"; \
                 allowed: an address that is in no local pool"
            )
        );
    }

    #[test]
    fn the_only_pool_is_the_one_of_services_that_name_none() {
        let mut model = model(&many(1, 1));
        let mut wanted = many(2, 1);
        wanted.services.iter_mut().for_each(|service| service.local_pool.clear());
        let changes = model.plan_apply(&wanted).unwrap();
        model.commit(changes);
        assert_eq!(model.to_config(), many(2, 1));
        let mut service = many(3, 1).services.remove(2);
        service.local_pool.clear();
        let add = crate::control::protocol::Request::ServiceAdd { service };
        let changes = model.plan(&add).unwrap().unwrap();
        model.commit(changes);
        assert_eq!(model.to_config(), many(3, 1));
        let mut first = many(2, 1);
        first.services.iter_mut().for_each(|service| service.local_pool.clear());
        assert_eq!(try_model(&first).unwrap().to_config(), many(2, 1), "what it begins with likewise");
    }

    #[test]
    fn of_several_pools_or_none_a_service_names_one() {
        let (several, mut none) = (two_pools(), many(0, 0));
        none.local_pools.clear();
        for (balance, allowed) in
            [(several, "lan, two"), (none, "the name of a [[local_pool]], of which there is none")]
        {
            let model = model(&balance);
            let mut wanted = balance;
            let mut service = many(3, 1).services.remove(2);
            service.local_pool.clear();
            wanted.services.push(service.clone());
            let expected =
                format!("service tcp 10.0.1.2:80: local_pool: missing, and mode fullnat needs one; allowed: {allowed}");
            let add = plan(&model, serde_json::json!({"command": "service.add", "service": service})).unwrap_err();
            let applied = model.plan_apply(&wanted).unwrap_err();
            let begun = try_model(&wanted).unwrap_err();
            for refusal in [add, applied, begun] {
                assert_eq!((refusal.kind, &refusal.message), (ErrorKind::Invalid, &expected));
            }
        }
    }

    #[test]
    fn ten_thousand_services_are_no_burden() {
        let mut full = model(&many(10_000, 10));
        let started = Instant::now();
        let table = full.compile(Timeouts::default());
        let compiled = started.elapsed();
        assert_eq!((table.services.len(), table.real_server_present.len()), (10_000, 100_000));
        let started = Instant::now();
        assert!(full.plan_apply(&many(10_000, 10)).unwrap().is_empty());
        let compared = started.elapsed();
        let started = Instant::now();
        let mut last = many(10_000, 10).services.remove(9_999);
        for port in 1000_u16..2000 {
            last.vip.ports = port.into();
            let changes = full.plan(&crate::control::protocol::Request::ServiceAdd { service: last.clone() });
            full.commit(changes.unwrap().unwrap());
        }
        let added = started.elapsed();
        let started = Instant::now();
        full.commit(full.plan_apply(&many(10, 10)).unwrap());
        let emptied = started.elapsed();
        assert_eq!(full.service_count(), 10);
        assert!(compiled + compared + added < std::time::Duration::from_secs(20), "quadratic somewhere");
        eprintln!("compile {compiled:?}, compare {compared:?}, add 1,000 {added:?}, empty {emptied:?}");
    }
}
