//! Whether local pools, services, and rules for source NAT and marks make sense together and on this gateway's ports.
//!
//! The same rules hold for the file, for `apply` and for each command at run time, so they know no lines of a file:
//! each [`Violation`] names a [`Place`] in the [`BalanceConfig`], and the file's reader finds the line. What one thing
//! must be by itself is in `rules`; this goes through all of them and finds what clashes.

use std::net::IpAddr;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::model::{BalanceConfig, LocalPoolConfig, ServiceConfig};
use super::rules::{self, Fault};
use super::syntax::{self, MAX_RANGE};
use crate::balance::ServiceKey;

/// Real servers over all services that the counters have room for.
pub const MAX_REAL_SERVERS: usize = 1 << 18;
/// Local addresses over all pools that the counters have room for.
pub const MAX_LOCAL_ADDRESSES: usize = MAX_RANGE as usize;

/// What of the gateway the rules need to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BalanceScope {
    /// Names of the ports.
    pub ports: Vec<String>,
    /// The ports' own IPv4 addresses.
    pub own_addresses: Vec<IpAddr>,
    /// How many workers share each local address's ports.
    pub workers: usize,
}

/// Where in a [`BalanceConfig`] something is wrong, by indices into its lists, with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A key of a pool.
    Pool(usize, &'static str),
    /// An address of a pool.
    PoolAddress(usize, usize),
    /// A key of a service.
    Service(usize, &'static str),
    /// A key of a real server of a service.
    RealServer(usize, usize, &'static str),
    /// A key of a rule for source NAT.
    Snat(usize, &'static str),
    /// A key of a rule for marks.
    Mark(usize, &'static str),
}

/// One rule broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub wrong: String,
    /// The other place that it clashes with.
    pub earlier: Option<Place>,
    /// What is allowed.
    pub allowed: String,
}

impl BalanceConfig {
    /// Checks that everything fits together and onto the gateway.
    ///
    /// # Errors
    /// One sentence for each rule broken, beginning with the pool or service that breaks it.
    pub fn validate(&self, scope: &BalanceScope) -> Result<(), Vec<String>> {
        self.sentences(&self.violations(scope))
    }

    /// The same of a state that commands led to, which may be one that nobody would ask for as a whole: pools whose
    /// addresses were withdrawn, services that have none left for their real servers, and real servers whose address a
    /// port has got since.
    ///
    /// # Errors
    /// As of [`Self::validate`].
    pub fn validate_kept(&self, scope: &BalanceScope) -> Result<(), Vec<String>> {
        self.sentences(&self.violations_of(scope, Asked::Kept))
    }

    fn sentences(&self, violations: &[Violation]) -> Result<(), Vec<String>> {
        if violations.is_empty() {
            return Ok(());
        }
        let sentence = |v: &Violation| format!("{}: {}; allowed: {}", self.subject(v.place), v.wrong, v.allowed);
        Err(violations.iter().map(sentence).collect())
    }

    /// Every rule broken, in the order of the lists.
    pub fn violations(&self, scope: &BalanceScope) -> Vec<Violation> {
        self.violations_of(scope, Asked::Wanted)
    }

    fn violations_of(&self, scope: &BalanceScope, asked: Asked) -> Vec<Violation> {
        let mut check = Check { balance: self, scope, asked, violations: Vec::new() };
        check.pools();
        check.services();
        check.snat();
        check.marks();
        check.violations
    }

    /// The words for a place that mean something without a file.
    fn subject(&self, place: Place) -> String {
        let service = |index: usize| self.services[index].key();
        match place {
            Place::Pool(pool, key) => format!("local pool {:?}: {key}", self.local_pools[pool].name),
            Place::PoolAddress(pool, _) => format!("local pool {:?}", self.local_pools[pool].name),
            Place::Service(index, key) => format!("service {}: {key}", service(index)),
            Place::Snat(index, key) => format!("snat {:?}: {key}", self.snat[index].name),
            Place::Mark(index, key) => format!("mark {:?}: {key}", self.marks[index].name),
            Place::RealServer(index, real, key) => {
                format!(
                    "service {}: real server {}: {key}",
                    service(index),
                    self.services[index].real_servers[real].address
                )
            }
        }
    }
}

/// What a configuration is checked as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// What somebody wants to have.
    Wanted,
    /// What there is already.
    Kept,
}

struct Check<'a> {
    balance: &'a BalanceConfig,
    scope: &'a BalanceScope,
    asked: Asked,
    violations: Vec<Violation>,
}

impl Check<'_> {
    fn wrong(&mut self, place: Place, wrong: impl Into<String>, allowed: impl Into<String>) {
        self.violations.push(Violation { place, wrong: wrong.into(), earlier: None, allowed: allowed.into() });
    }

    /// Faults of the thing whose keys these places are.
    fn faults(&mut self, place: impl Fn(&'static str) -> Place, faults: impl IntoIterator<Item = Fault>) {
        for Fault { key, wrong, allowed } in faults {
            self.wrong(place(key), wrong, allowed);
        }
    }

    fn clash(&mut self, place: Place, earlier: Place, Fault { wrong, allowed, .. }: Fault) {
        self.violations.push(Violation { place, wrong, earlier: Some(earlier), allowed });
    }

    fn pools(&mut self) {
        let mut names = HashMap::new();
        for (index, pool) in self.balance.local_pools.iter().enumerate() {
            let place = Place::Pool(index, "name");
            if let Err(error) = syntax::name(&pool.name) {
                self.wrong(place, format!("{:?} {}", pool.name, error.wrong), error.allowed);
            }
            if let Some(earlier) = names.insert(pool.name.as_str(), place) {
                self.clash(place, earlier, rules::is_a_pool(&pool.name));
            }
            self.pool_port(index, pool);
        }
        self.pool_addresses();
    }

    fn pool_port(&mut self, index: usize, pool: &LocalPoolConfig) {
        if !self.scope.ports.contains(&pool.port) {
            let allowed = rules::one_of(self.scope.ports.iter().map(String::as_str), "port");
            self.wrong(Place::Pool(index, "port"), format!("there is no port {:?}", pool.port), allowed);
        }
        let count = (usize::from(pool.ports.last) + 1).saturating_sub(pool.ports.first.into());
        if count < self.scope.workers.max(1) {
            let wrong = format!("{} are too few: {count} ports for {} workers", pool.ports, self.scope.workers);
            self.wrong(Place::Pool(index, "ports"), wrong, "at least one port for each worker");
        }
    }

    fn pool_addresses(&mut self) {
        let users = self.users();
        let mut seen = HashMap::new();
        let mut total = 0;
        for (index, pool) in self.balance.local_pools.iter().enumerate() {
            if pool.addresses.is_empty() && self.asked == Asked::Wanted {
                self.faults(|key| Place::Pool(index, key), [rules::empty_pool()]);
            }
            for (at, &address) in pool.addresses.iter().enumerate() {
                self.pool_address((index, at), address, &mut seen, &users);
            }
            let before = total;
            total += pool.addresses.len();
            if before <= MAX_LOCAL_ADDRESSES && total > MAX_LOCAL_ADDRESSES {
                let wrong = format!("the pools up to here hold {total} addresses");
                let allowed = format!("at most {MAX_LOCAL_ADDRESSES} over all pools");
                self.wrong(Place::Pool(index, "addresses"), wrong, allowed);
            }
        }
    }

    /// The first service and the first real server of each address.
    fn users(&self) -> Users {
        let mut users = Users::default();
        for (index, service) in self.balance.services.iter().enumerate() {
            users.vips.entry(service.vip.address).or_insert(Place::Service(index, "vip"));
            for (at, real) in service.real_servers.iter().enumerate() {
                let place = Place::RealServer(index, at, "address");
                users.real_servers.entry(real.address.ip()).or_insert(place);
            }
        }
        users
    }

    fn pool_address(
        &mut self,
        (pool, at): (usize, usize),
        address: IpAddr,
        seen: &mut HashMap<IpAddr, (usize, usize)>,
        users: &Users,
    ) {
        let place = Place::PoolAddress(pool, at);
        match seen.entry(address) {
            Entry::Occupied(earlier) => {
                let (pool, at) = *earlier.get();
                let fault = rules::in_a_pool(address, &self.balance.local_pools[pool].name);
                self.clash(place, Place::PoolAddress(pool, at), fault);
            }
            Entry::Vacant(vacant) => _ = vacant.insert((pool, at)),
        }
        if let Some(&service) = users.vips.get(&address) {
            self.clash(place, service, rules::is_a_vip(address));
        }
        if let Some(&real_server) = users.real_servers.get(&address) {
            self.clash(place, real_server, rules::is_a_real_server(address));
        }
        let own = rules::not_own(address, &self.scope.own_addresses);
        self.faults(|_| place, rules::local_address(address).into_iter().chain(own));
    }

    fn services(&mut self) {
        let mut keys: HashMap<ServiceKey, Place> = HashMap::new();
        self.ranges();
        let mut total = 0;
        for (index, service) in self.balance.services.iter().enumerate() {
            let place = Place::Service(index, rules::name_key(service.vip));
            self.faults(|key| Place::Service(index, key), rules::service_name(service.vip, service.protocol));
            match keys.entry(service.key()) {
                Entry::Occupied(earlier) => self.clash(place, *earlier.get(), rules::is_a_service(service.key())),
                Entry::Vacant(vacant) => _ = vacant.insert(place),
            }
            let flags = rules::scheduler_flags(service.scheduler, service.scheduler_flags);
            self.faults(|key| Place::Service(index, key), flags);
            let slow_start = rules::slow_start(service.scheduler, service.slow_start);
            self.faults(|key| Place::Service(index, key), slow_start);
            let persistence = rules::persistence(service.vip, service.persistence, service.persistence_prefix);
            self.faults(|key| Place::Service(index, key), persistence);
            self.one_packet(index, service);
            self.service_pool(index, service);
            self.real_servers(index, service);
            let before = total;
            total += service.real_servers.len();
            if before <= MAX_REAL_SERVERS && total > MAX_REAL_SERVERS {
                let wrong = format!("the services up to here have {total} real servers");
                let allowed = format!("at most {MAX_REAL_SERVERS} over all services");
                self.wrong(Place::Service(index, "real_server"), wrong, allowed);
            }
        }
    }

    /// Each real server's mode goes with packets that are scheduled on their own, and that which others will have.
    fn one_packet(&mut self, index: usize, service: &ServiceConfig) {
        let own = service.real_servers.iter().map(|real| real.mode.unwrap_or(service.mode));
        let mut faults =
            own.chain([service.mode]).map(|mode| rules::one_packet(service.one_packet, service.protocol, mode));
        let fault = faults.find_map(|fault| fault);
        self.faults(|key| Place::Service(index, key), fault);
    }

    /// Ranges of a protocol and VIP have no port in common.
    fn ranges(&mut self) {
        let services = self.balance.services.iter().enumerate();
        let ranges = services.map(|(index, service)| (service.key(), index)).filter(|(key, _)| key.ports.is_range());
        let mut ranges: Vec<_> = ranges.collect();
        // By protocol, address and first port: then one that overlaps any before it overlaps the one that ends last.
        ranges.sort_unstable();
        let mut widest: Option<(ServiceKey, usize)> = None;
        for (key, index) in ranges {
            let same = widest.filter(|(other, _)| (other.protocol, other.address) == (key.protocol, key.address));
            if let Some((other, at)) = same.filter(|(other, _)| other.ports.overlaps(key.ports) && *other != key) {
                let (later, earlier) =
                    if index > at { ((key, index), (other, at)) } else { ((other, at), (key, index)) };
                let place = |index| Place::Service(index, "vip");
                self.clash(place(later.1), place(earlier.1), rules::ports_overlap(later.0, earlier.0));
            }
            if same.is_none_or(|(other, _)| other.ports.last() < key.ports.last()) {
                widest = Some((key, index));
            }
        }
    }

    fn service_pool(&mut self, index: usize, service: &ServiceConfig) {
        let pools = self.balance.local_pools.iter().map(|pool| pool.name.as_str());
        let fault = rules::service_pool(&service.local_pool, service.needs_local_pool(), pools);
        self.faults(|key| Place::Service(index, key), fault);
    }

    fn snat(&mut self) {
        let mut names = HashMap::new();
        let pools = self.balance.local_pools.iter().map(|pool| pool.name.as_str());
        for (index, rule) in self.balance.snat.iter().enumerate() {
            self.faults(|key| Place::Snat(index, key), rules::snat(rule, &self.scope.ports, pools.clone()));
            let place = Place::Snat(index, "name");
            if let Some(earlier) = names.insert(rule.name.as_str(), place) {
                self.clash(place, earlier, rules::is_a_snat_rule(&rule.name));
            }
            if index == rules::MAX_SNAT_RULES {
                self.faults(|key| Place::Snat(index, key), [rules::too_many_snat_rules()]);
            }
        }
    }

    fn marks(&mut self) {
        let mut names = HashMap::new();
        for (index, rule) in self.balance.marks.iter().enumerate() {
            self.faults(|key| Place::Mark(index, key), rules::mark(rule, &self.scope.ports));
            let place = Place::Mark(index, "name");
            if let Some(earlier) = names.insert(rule.name.as_str(), place) {
                self.clash(place, earlier, rules::is_a_mark_rule(&rule.name));
            }
            if index == rules::MAX_MARK_RULES {
                self.faults(|key| Place::Mark(index, key), [rules::too_many_mark_rules()]);
            }
        }
    }

    fn real_servers(&mut self, index: usize, service: &ServiceConfig) {
        let mut seen = HashMap::new();
        let pool = self.balance.local_pools.iter().find(|pool| pool.name == service.local_pool);
        for (at, real) in service.real_servers.iter().enumerate() {
            self.faults(|key| Place::RealServer(index, at, key), rules::real_server(service.vip, service.mode, real));
            let mode = real.mode.unwrap_or(service.mode);
            // An address that came to a port later is no reason to refuse a whole start.
            let own = if self.asked == Asked::Wanted { self.scope.own_addresses.as_slice() } else { &[] };
            self.faults(|key| Place::RealServer(index, at, key), rules::own_host(mode, real.address.ip(), own));
            if let Some(pool) = pool.filter(|pool| self.asked == Asked::Wanted && !pool.addresses.is_empty()) {
                let addresses = pool.addresses.iter().copied();
                let fault = rules::pool_speaks_to(real, service.mode, &pool.name, addresses);
                self.faults(|key| Place::RealServer(index, at, key), fault);
            }
            let place = Place::RealServer(index, at, "address");
            match seen.entry(real.address) {
                Entry::Occupied(earlier) => self.clash(place, *earlier.get(), rules::is_in_service(real.address)),
                Entry::Vacant(vacant) => _ = vacant.insert(place),
            }
        }
    }
}

/// Where addresses are used for something else than a pool.
#[derive(Default)]
struct Users {
    vips: HashMap<IpAddr, Place>,
    real_servers: HashMap<IpAddr, Place>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{ForwardingMode, PortRange, Protocol, SchedulerKind, Weight};
    use crate::config::RealServerConfig;

    fn balance() -> (BalanceConfig, BalanceScope) {
        let pool = LocalPoolConfig {
            name: "lan".into(),
            port: "lan".into(),
            addresses: vec![IpAddr::from([10, 1, 0, 200])],
            ports: PortRange { first: 1024, last: 65535 },
            transient: false,
        };
        let real = RealServerConfig {
            mode: None,
            tunnel: None,
            address: "10.1.0.11:80".parse().unwrap(),
            weight: Weight(1),
            upper_threshold: 0,
            lower_threshold: 0,
        };
        let service = ServiceConfig {
            vip: "10.0.0.100:80".parse().unwrap(),
            protocol: Protocol::Tcp,
            scheduler: SchedulerKind::Rr,
            scheduler_flags: crate::balance::SchedulerFlags::default(),
            mode: ForwardingMode::Fullnat,
            local_pool: "lan".into(),
            mss_clamp: crate::balance::MssClamp::Off,
            persistence: 0,
            persistence_prefix: None,
            one_packet: false,
            max_connections: 0,
            slow_start: 0,
            real_servers: vec![real],
        };
        let scope =
            BalanceScope { ports: vec!["lan".into()], own_addresses: vec![IpAddr::from([10, 1, 0, 1])], workers: 2 };
        (BalanceConfig { local_pools: vec![pool], services: vec![service], snat: Vec::new(), marks: Vec::new() }, scope)
    }

    /// The one sentence that a change of a good configuration leads to.
    #[track_caller]
    fn assert_refused(change: impl FnOnce(&mut BalanceConfig), expected: &str) {
        let (mut balance, scope) = balance();
        change(&mut balance);
        assert_eq!(balance.validate(&scope).unwrap_err(), [expected]);
    }

    #[test]
    fn good_balance_passes() {
        let (balance, scope) = balance();
        assert_eq!(balance.validate(&scope), Ok(()));
    }

    #[test]
    fn run_time_changes_are_refused_in_words_without_lines() {
        assert_refused(
            |b| b.services[0].real_servers[0].weight = Weight(70_000),
            "service tcp 10.0.0.100:80: real server 10.1.0.11:80: weight: 70000 is out of range; \
             allowed: an integer from 0 to 65535",
        );
        assert_refused(
            |b| b.services[0].local_pool = "wan".into(),
            "service tcp 10.0.0.100:80: local_pool: there is no local pool \"wan\"; allowed: lan",
        );
        assert_refused(
            |b| b.services.push(b.services[0].clone()),
            "service tcp 10.0.0.100:80: vip: tcp 10.0.0.100:80 is a service already; \
             allowed: each protocol, VIP and port once",
        );
        assert_refused(
            |b| b.local_pools[0].addresses.push(IpAddr::from([10, 1, 0, 1])),
            "local pool \"lan\": 10.1.0.1 is a port's own address; \
             allowed: addresses that the gateway uses for nothing else",
        );
        assert_refused(
            |b| b.local_pools[0].addresses.push(IpAddr::from([10, 1, 0, 11])),
            "local pool \"lan\": 10.1.0.11 is a real server's address; \
             allowed: addresses that the gateway uses for nothing else",
        );
        assert_refused(
            |b| b.services[0].real_servers[0].address = "10.1.0.1:80".parse().unwrap(),
            "service tcp 10.0.0.100:80: real server 10.1.0.1:80: address: 10.1.0.1 is the gateway's own, whose host \
             answers clients itself; allowed: an address of another host; the gateway's own in modes dr and tun, not fullnat",
        );
        assert_refused(
            |b| b.local_pools[0].ports = PortRange { first: 6, last: 5 },
            "local pool \"lan\": ports: 6-5 are too few: 0 ports for 2 workers; \
             allowed: at least one port for each worker",
        );
        assert_refused(
            |b| b.local_pools[0].ports = PortRange { first: 5, last: 5 },
            "local pool \"lan\": ports: 5 are too few: 1 ports for 2 workers; \
             allowed: at least one port for each worker",
        );
    }

    #[test]
    fn one_pool_is_the_default_and_two_are_not() {
        let (mut balance, scope) = balance();
        balance.services[0].local_pool.clear();
        let mut two = balance.clone();
        balance.fill_default_pool();
        assert_eq!(balance.validate(&scope), Ok(()));
        two.local_pools.push(LocalPoolConfig {
            name: "other".into(),
            addresses: vec![IpAddr::from([10, 1, 0, 201])],
            ..two.local_pools[0].clone()
        });
        two.fill_default_pool();
        assert_eq!(
            two.validate(&scope).unwrap_err(),
            ["service tcp 10.0.0.100:80: local_pool: missing, and mode fullnat needs one; allowed: lan, other"]
        );
    }

    #[test]
    fn too_many_addresses_over_all_pools() {
        assert_refused(
            |b| {
                b.local_pools[0].addresses =
                    (0..16_385).map(|n| IpAddr::V4(std::net::Ipv4Addr::from(0x0a02_0000 + n))).collect()
            },
            "local pool \"lan\": addresses: the pools up to here hold 16385 addresses; \
             allowed: at most 16384 over all pools",
        );
    }
}
