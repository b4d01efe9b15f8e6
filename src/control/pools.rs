//! Plans for local pools: making and removing them, adding addresses and withdrawing them.
//!
//! A pool can lose all of its addresses. Services that use it keep their sessions, and new ones are counted drops
//! (`no_local_address`) until it has an address again; listings say so. The configuration file has no such pools.

use std::net::IpAddr;

use hashbrown::HashSet;

use super::change::Change;
use super::model::{Model, Pool, ServiceEntry};
use super::protocol::{ErrorKind, Refusal};
use super::refusal::{broken, check, list, refuse};
use crate::balance::{ForwardingMode, ServiceKey};
use crate::config::{LocalPoolConfig, rules};

/// Users of a pool that a refusal names.
const NAMED: usize = 10;

impl Model {
    /// A pool besides those that there are. It is rare, so that everything may be checked again with it.
    pub(super) fn plan_local_create(&self, pool: &LocalPoolConfig) -> Result<Vec<Change>, Refusal> {
        let empty = pool.addresses.is_empty().then(rules::empty_pool);
        check(ErrorKind::Invalid, format_args!("local pool {:?}", pool.name), empty)?;
        let mut wanted = self.to_config();
        wanted.local_pools.push(pool.clone());
        self.plan_kept(&wanted)
    }

    /// A pool that no service and no rule uses goes, and no new session gets its addresses.
    pub(super) fn plan_local_destroy(&self, name: &str) -> Result<Vec<Change>, Refusal> {
        let pool = self.known_pool(name)?;
        let services = self.services.values().filter(|entry| entry.settings.local_pool == name);
        let services = services.map(|entry| format!("service {}", entry.key));
        let rules = self.snat.iter().filter(|entry| entry.config.local_pool == name);
        let rules = rules.map(|entry| format!("snat {:?}", entry.config.name));
        let users: Vec<String> = services.chain(rules).collect();
        if users.is_empty() {
            return Ok(removal(pool));
        }
        let more = users.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let message = format!(
            "local pool {name:?} is in use: {}{more}; allowed: to remove a pool that nothing uses: delete these, or give \
             them another pool first",
            list(users.iter().take(NAMED))
        );
        refuse(ErrorKind::Conflict, message)
    }

    /// What goes with a service that goes or takes another pool: the pool that it had, if that was made for the
    /// services that use it and no other does.
    pub(super) fn pool_left_by(&self, key: ServiceKey, pool: &str) -> Vec<Change> {
        let Some(pool) = self.pools.iter().find(|known| known.name == pool && known.settings.transient) else {
            return Vec::new();
        };
        let others = self.services.values().filter(|entry| entry.key != key);
        let is_used = others.into_iter().any(|entry| entry.settings.local_pool == pool.name)
            || self.snat.iter().any(|entry| entry.config.local_pool == pool.name);
        if is_used { Vec::new() } else { removal(pool) }
    }

    pub(super) fn plan_local_add(&self, pool: &str, addresses: &[IpAddr]) -> Result<Vec<Change>, Refusal> {
        self.known_pool(pool)?;
        let mut seen = HashSet::new();
        for &address in addresses {
            if !seen.insert(address) {
                let message =
                    format!("local pool {pool:?}: {address} is given twice; allowed: each address once over all pools");
                return refuse(ErrorKind::Invalid, message);
            }
            self.check_new_local(pool, address)?;
        }
        let add = |&address| Change::LocalAdd { pool: pool.to_owned(), address };
        let changes = addresses.iter().map(add).collect::<Vec<_>>();
        self.enough_slots(&changes)?;
        Ok(changes)
    }

    /// A new local address is used for nothing else.
    fn check_new_local(&self, pool: &str, address: IpAddr) -> Result<(), Refusal> {
        let subject = format_args!("local pool {pool:?}");
        check(ErrorKind::Invalid, subject, rules::local_address(address))?;
        if let Some(owner) = self.pool_of(address) {
            return broken(ErrorKind::Exists, subject, &rules::in_a_pool(address, owner));
        }
        let vip = self.virtual_uses.contains_key(&address).then(|| rules::is_a_vip(address));
        let real_server = self.real_uses.contains_key(&address).then(|| rules::is_a_real_server(address));
        let own = rules::not_own(address, &self.scope.own_addresses);
        check(ErrorKind::Conflict, subject, [vip, real_server, own].into_iter().flatten())
    }

    pub(super) fn plan_local_del(&self, pool: &str, addresses: &[IpAddr]) -> Result<Vec<Change>, Refusal> {
        let entry = self.known_pool(pool)?;
        let mut left: HashSet<IpAddr> = entry.addresses.iter().map(|local| local.address).collect();
        for address in addresses {
            if !left.remove(address) {
                let has = list(entry.addresses.iter().map(|local| local.address));
                let message = format!("local pool {pool} has no address {address} (to withdraw): it has {has}");
                return refuse(ErrorKind::NotFound, message);
            }
        }
        let remove = |&address| Change::LocalRemove { pool: pool.to_owned(), address };
        Ok(addresses.iter().map(remove).collect())
    }

    /// Whether a service has a real server in FULLNAT mode for which its pool has no address: new sessions of that one
    /// are dropped.
    pub(super) fn lacks_local_address(&self, service: &ServiceEntry) -> bool {
        let Some(pool) = self.pools.iter().find(|pool| pool.name == service.settings.local_pool) else { return false };
        let has = |is_ipv4| pool.addresses.iter().any(|local| local.address.is_ipv4() == is_ipv4);
        let (ipv4, ipv6) = (has(true), has(false));
        let lacks = |is_ipv4: bool| if is_ipv4 { !ipv4 } else { !ipv6 };
        let mut real_servers = service.real_servers.iter().zip(service.modes());
        real_servers.any(|(real, mode)| mode == ForwardingMode::Fullnat && lacks(real.config.address.is_ipv4()))
    }
}

/// The steps by which a pool goes.
fn removal(pool: &Pool) -> Vec<Change> {
    let withdrawn = pool.addresses.iter().map(|local| local.address);
    let withdrawn = withdrawn.map(|address| Change::LocalRemove { pool: pool.name.clone(), address });
    withdrawn.chain([Change::PoolRemove { name: pool.name.clone() }]).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::config::{BalanceConfig, BalanceScope};
    use crate::telemetry::counters::{SlotLimits, WorkerCounters};

    const LIMITS: SlotLimits = SlotLimits { real_servers: 16, local_addresses: 16 };

    fn scope() -> BalanceScope {
        BalanceScope { ports: vec!["lan".to_owned()], own_addresses: Vec::new(), workers: 1 }
    }

    fn begun(balance: &BalanceConfig) -> Result<Model, Refusal> {
        Model::new(scope(), vec![Arc::new(WorkerCounters::new(LIMITS))], LIMITS, balance)
    }

    fn pool(name: &str, addresses: &[&str], transient: bool) -> Value {
        json!({"name": name, "port": "lan", "addresses": addresses, "ports": "1024-65535", "transient": transient})
    }

    fn service(port: u16, pool: &str) -> Value {
        json!({
            "vip": format!("10.0.0.100:{port}"), "protocol": "tcp", "scheduler": "rr", "mode": "fullnat",
            "local_pool": pool, "real_server": [{"address": "10.1.0.11:80", "weight": 1}],
        })
    }

    fn model(pools: &[Value], services: &[Value]) -> Model {
        let snat = json!([{"name": "out", "source": "10.1.0.0/24", "local_pool": "nat"}]);
        let pools = [pools, &[pool("nat", &["10.9.0.1"], true)]].concat();
        let balance = json!({"local_pool": pools, "service": services, "snat": snat});
        begun(&serde_json::from_value(balance).unwrap()).unwrap()
    }

    fn ask(model: &Model, request: Value) -> Result<Vec<String>, Refusal> {
        let changes = model.plan(&serde_json::from_value(request).unwrap()).unwrap()?;
        Ok(changes.iter().map(ToString::to_string).collect())
    }

    fn run(model: &mut Model, request: Value) {
        let changes = model.plan(&serde_json::from_value(request).unwrap()).unwrap().unwrap();
        model.commit(changes);
    }

    fn name(port: u16) -> Value {
        json!({"vip": format!("10.0.0.100:{port}"), "protocol": "tcp"})
    }

    #[test]
    fn a_pool_goes_if_nothing_uses_it() {
        let mut model =
            model(&[pool("a", &["10.1.0.200"], false), pool("b", &["10.1.0.201"], false)], &[service(80, "a")]);
        let destroy = |pool: &str| json!({"command": "local.destroy", "pool": pool});
        let refusal = ask(&model, destroy("a")).unwrap_err();
        assert_eq!(refusal.kind, ErrorKind::Conflict);
        assert!(
            refusal.message.starts_with("local pool \"a\" is in use: service tcp 10.0.0.100:80; allowed: "),
            "{refusal}"
        );
        assert!(ask(&model, destroy("nat")).unwrap_err().message.contains("is in use: snat \"out\"; allowed: "));
        assert_eq!(ask(&model, destroy("c")).unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(
            ask(&model, destroy("b")).unwrap(),
            ["local pool b: address 10.1.0.201 withdrawn", "local pool b: removed"]
        );
        run(&mut model, destroy("b"));
        assert_eq!(ask(&model, destroy("b")).unwrap_err().kind, ErrorKind::NotFound);
        // The address can be in another one at once.
        let again = json!({"command": "local.create", "pool": pool("d", &["10.1.0.201"], false)});
        run(&mut model, again);
        let many: Vec<Value> = (0..12).map(|port| service(1_000 + port, "d")).collect();
        for service in many {
            run(&mut model, json!({"command": "service.add", "service": service}));
        }
        let refusal = ask(&model, destroy("d")).unwrap_err();
        assert!(refusal.message.contains("service tcp 10.0.0.100:1009 and 2 more; allowed"), "{refusal}");
    }

    #[test]
    fn a_pool_loses_its_last_address_and_is_kept_so() {
        let mut model = model(&[pool("a", &["10.1.0.200", "2001:db8::200"], false)], &[service(80, "a")]);
        let lacks = |model: &Model| model.service_rows(None).unwrap()[0].lacks_local_address;
        assert!(!lacks(&model));
        run(&mut model, json!({"command": "local.del", "pool": "a", "addresses": ["10.1.0.200"]}));
        assert!(lacks(&model), "there is none of IPv4");
        let edit =
            |set: Value| json!({"command": "real.edit", "service": name(80), "address": "10.1.0.11:80", "set": set});
        run(&mut model, edit(json!({"weight": 0})));
        let new = json!({"address": "10.1.0.12:80", "weight": 1});
        let add = json!({"command": "real.add", "service": name(80), "real_server": new});
        assert!(ask(&model, add.clone()).unwrap_err().message.contains("of which local pool \"a\" has no address"));
        run(&mut model, json!({"command": "local.del", "pool": "a", "addresses": ["2001:db8::200"]}));
        assert!(lacks(&model) && model.local_pool_rows()[0].addresses.iter().all(|address| address.withdrawn));
        // Everything can go on: real servers come and go, the service is changed, pools are made.
        run(&mut model, add);
        run(&mut model, edit(json!({"weight": 7})));
        let scheduler = json!({"command": "service.edit", "service": name(80), "scheduler": "wlc"});
        run(&mut model, scheduler);
        run(&mut model, json!({"command": "local.create", "pool": pool("b", &["10.1.0.9"], false)}));
        // The next start accepts it; a file, or `apply`, would have to have an address.
        let kept = model.to_config();
        assert!(begun(&kept).unwrap().to_config() == kept);
        let refusal = model.plan_apply(&kept).unwrap_err();
        assert!(refusal.message.contains("local pool \"a\": addresses: the pool has no address; allowed"), "{refusal}");
        run(&mut model, json!({"command": "local.add", "pool": "a", "addresses": ["10.1.0.200"]}));
        assert!(!lacks(&model));
    }

    #[test]
    fn a_pool_that_was_made_for_services_goes_with_the_last() {
        let pools = [pool("own", &["10.1.0.200"], true), pool("file", &["10.1.0.201"], false)];
        let mut model = model(&pools, &[service(80, "own"), service(81, "own"), service(82, "file")]);
        let del = |port: u16| json!({"command": "service.del", "service": name(port)});
        assert_eq!(ask(&model, del(82)).unwrap().len(), 1, "a pool that somebody made stays");
        assert_eq!(ask(&model, del(80)).unwrap().len(), 1, "another service has it");
        run(&mut model, del(80));
        let kept = model.to_config();
        assert!(begun(&kept).unwrap().to_config() == kept, "what it was made for is kept");
        let gone = ["local pool own: address 10.1.0.200 withdrawn", "local pool own: removed"];
        assert_eq!(ask(&model, del(81)).unwrap()[1..], gone);
        let other = json!({"command": "service.edit", "service": name(81), "local_pool": "file"});
        assert_eq!(ask(&model, other).unwrap()[1..], gone);
        run(&mut model, del(81));
        assert!(!model.to_config().local_pools.iter().any(|pool| pool.name == "own"));
        // One that a rule uses stays.
        run(&mut model, json!({"command": "service.add", "service": service(90, "nat")}));
        assert_eq!(ask(&model, del(90)).unwrap().len(), 1);
    }
}
