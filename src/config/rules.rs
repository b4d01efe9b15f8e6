//! The rules for one thing at a time: an endpoint, a real server, a local address, the pool that a service names, a
//! rule for source NAT or for marks.
//!
//! What `validate` asks of a whole configuration and what the control plane asks of a single command are the same
//! functions, so that a state that commands led to is one that the next start accepts. Pure; what is right is no
//! [`Fault`] and costs no allocation.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::model::{BalanceConfig, MarkConfig, RealServerConfig, ServiceConfig, SnatConfig};
use super::syntax;
use crate::balance::{
    Encapsulation, ForwardingMode, Network, Protocol, SchedulerFlags, SchedulerKind, ServiceKey, Tunnel,
    VirtualAddress, Weight,
};

/// What is wrong with one thing. Prints as `KEY: WHAT IS WRONG; allowed: WHAT IS ALLOWED`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key that is wrong; empty where the thing is a value without a key.
    pub key: &'static str,
    /// What is wrong.
    pub wrong: String,
    /// What is allowed.
    pub allowed: String,
}

impl Fault {
    fn new(key: &'static str, wrong: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { key, wrong: wrong.into(), allowed: allowed.into() }
    }

    fn unless(holds: bool, fault: impl FnOnce() -> Self) -> Option<Self> {
        (!holds).then(fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, wrong, allowed } = self;
        let separator = if key.is_empty() { "" } else { ": " };
        write!(f, "{key}{separator}{wrong}; allowed: {allowed}")
    }
}

const HOST: &str = "neither multicast, broadcast, loopback, unspecified, 0.0.0.0/8, 240.0.0.0/4 nor IPv4-mapped";
/// Rules for source NAT that there may be: each packet without a session that leaves is held against all of them.
pub const MAX_SNAT_RULES: usize = 256;
/// Rules for marks that there may be: each packet without a session is held against all of them.
pub const MAX_MARK_RULES: usize = 256;
/// What a session timeout may be, in seconds: up to 31 days, as ipvsadm has it.
pub const TIMEOUT: RangeInclusive<u32> = 1..=31 * 86_400;
const APART: &str = "addresses that the gateway uses for nothing else";

/// The address of a service or of a real server.
pub fn host(key: &'static str, address: IpAddr) -> Option<Fault> {
    Fault::unless(syntax::is_host(address), || Fault::new(key, format!("{address} cannot be a host's address"), HOST))
}

/// The port of a real server of the service at `vip`, which is in this mode.
fn real_port(vip: VirtualAddress, mode: ForwardingMode, address: SocketAddr) -> Option<Fault> {
    if vip.mark.is_some() {
        // IPVS takes, and shows, any port there.
        return None;
    }
    let (port, default) = (address.port(), vip.default_port());
    let fault = |wrong: &str, allowed| Some(Fault::new("address", format!("{address} has {wrong}"), allowed));
    if port == 0 && default != 0 {
        return fault("port 0", "a port of 1-65535; 0 in a service of several ports only".to_owned());
    }
    if !mode.is_one_way() || port == default {
        return None;
    }
    match default {
        0 => fault("a port", format!("no port, or 0: mode {mode} leaves ports as they are")),
        _ => fault("another port than the service", format!("port {default}: mode {mode} leaves ports as they are")),
    }
}

/// A scheduler with flags that are another one's.
pub fn scheduler_flags(scheduler: SchedulerKind, flags: SchedulerFlags) -> Option<Fault> {
    let foreign = flags.foreign_to(scheduler)?;
    let wrong = format!("{foreign} is no flag of scheduler {scheduler}");
    Some(Fault::new("scheduler_flags", wrong, scheduler.flag_names()))
}

/// Seconds of a slow start, and 0 for none.
pub const SLOW_START: RangeInclusive<u32> = 0..=86_400;

/// Whether weights may rise slowly with a scheduler: to some they are no shares, and tables of hashes would change all the time.
pub fn slow_start(scheduler: SchedulerKind, seconds: u32) -> Option<Fault> {
    use SchedulerKind::{Lblc, Lblcr, Nq, Sed, Twos, Wlc, Wrr};
    if !SLOW_START.contains(&seconds) {
        let allowed = format!("{}-{} seconds; 0: none", SLOW_START.start(), SLOW_START.end());
        return Some(Fault::new("slow_start", format!("{seconds} is out of range"), allowed));
    }
    let has_shares = matches!(scheduler, Wrr | Wlc | Sed | Nq | Lblc | Lblcr | Twos);
    Fault::unless(seconds == 0 || has_shares, || {
        let wrong = format!("scheduler {scheduler} gives no shares that could rise with a weight");
        Fault::new("slow_start", wrong, "0, or scheduler wrr, wlc, sed, nq, lblc, lblcr, twos")
    })
}

/// How a service at `vip` keeps its clients.
pub fn persistence(vip: VirtualAddress, seconds: u32, prefix: Option<u8>) -> Option<Fault> {
    let is_timeout = seconds == 0 || TIMEOUT.contains(&seconds);
    let timeout = Fault::unless(is_timeout, || {
        let allowed = format!("{}-{} seconds; 0: none", TIMEOUT.start(), TIMEOUT.end());
        Fault::new("persistence", format!("{seconds} is no timeout"), allowed)
    });
    let bits = if vip.address.is_ipv4() { 0..=32 } else { 1..=128 };
    let range = || {
        Fault::unless(prefix.is_none_or(|prefix| bits.contains(&prefix)), || {
            let wrong = format!("{} is no prefix of the service's family", prefix.unwrap_or_default());
            Fault::new("persistence_prefix", wrong, format!("{}-{} bits", bits.start(), bits.end()))
        })
    };
    let alone = || {
        Fault::unless(prefix.is_none() || seconds > 0, || {
            Fault::new("persistence_prefix", "the service has no persistence", "a prefix with persistence only")
        })
    };
    timeout.or_else(range).or_else(alone)
}

/// A service that schedules each packet on its own, or a real server of one: what comes of this protocol in this mode.
pub fn one_packet(one_packet: bool, protocol: Protocol, mode: ForwardingMode) -> Option<Fault> {
    // Of what has a mark, it is for UDP alone.
    let fits = !one_packet || matches!(protocol, Protocol::Udp | Protocol::Any);
    let protocol = Fault::unless(fits, || {
        Fault::new("one_packet", format!("the service is of {protocol}"), "true with udp, or a fwmark, only")
    });
    let is_answered = one_packet && mode == ForwardingMode::Fullnat;
    protocol.or_else(|| {
        Fault::unless(!is_answered, || {
            let wrong = "in mode fullnat answers come to a local port that only a session remembers";
            Fault::new("one_packet", wrong, "true in modes nat, dr and tun")
        })
    })
}

/// A real server of the service at `vip`, whose own mode is `mode`.
pub fn real_server(vip: VirtualAddress, mode: ForwardingMode, real: &RealServerConfig) -> Vec<Fault> {
    let mode = real.mode.unwrap_or(mode);
    let mut faults = Vec::from_iter(match real.address.ip() {
        loopback if loopback.is_loopback() => is_this_host(mode, loopback),
        address => host("address", address),
    });
    faults.extend(real_port(vip, mode, real.address));
    faults.extend(Fault::unless(family_fits(vip, mode, real), || {
        let wrong = format!("{} is of another family than the service", real.address);
        Fault::new(
            "address",
            wrong,
            format!("the service's family in mode {mode}; another one in modes fullnat and tun"),
        )
    }));
    faults.extend(Fault::unless(real.tunnel.is_none() || mode == ForwardingMode::Tun, || {
        Fault::new("tunnel", format!("the real server is in mode {mode}"), "a tunnel in mode tun only")
    }));
    faults.extend(real.tunnel.into_iter().flat_map(tunnel));
    let port = real.address.port();
    let is_itself = real.address.ip() == vip.address && (port == 0 || vip.ports.contains(port));
    faults.extend(Fault::unless(!is_itself, || {
        Fault::new("address", format!("{} is the service itself", real.address), "an address of another host")
    }));
    faults.extend(Fault::unless(real.weight.0 <= Weight::MAX, || {
        let allowed = format!("an integer from 0 to {}", Weight::MAX);
        Fault::new("weight", format!("{} is out of range", real.weight.0), allowed)
    }));
    faults.extend(Fault::unless(real.lower_threshold <= real.upper_threshold, || {
        let wrong = format!("{} is above upper, which is {}", real.lower_threshold, real.upper_threshold);
        Fault::new("lower", wrong, "at most upper; 0 for three quarters of it")
    }));
    faults
}

/// A real server, whose own mode is `mode`, on a gateway that has these addresses itself.
pub fn own_host(mode: ForwardingMode, address: IpAddr, own_addresses: &[IpAddr]) -> Option<Fault> {
    own_addresses.contains(&address).then(|| is_this_host(mode, address)).flatten()
}

/// A real server whose address is the gateway's own: its host answers for the virtual address what comes to it unchanged, and
/// that alone.
pub fn is_this_host(mode: ForwardingMode, address: IpAddr) -> Option<Fault> {
    Fault::unless(mode.is_one_way(), || {
        let wrong = format!("{address} is the gateway's own, whose host answers clients itself");
        Fault::new(
            "address",
            wrong,
            format!("an address of another host; the gateway's own in modes dr and tun, not {mode}"),
        )
    })
}

/// A real server in FULLNAT mode of a service without a local pool.
pub fn no_pool_for_fullnat() -> Fault {
    Fault::new("mode", "fullnat needs local addresses, and the service has no local pool", "a service with one")
}

/// Whether a mode can bring packets to a service at `vip` to this real server.
fn family_fits(vip: VirtualAddress, mode: ForwardingMode, real: &RealServerConfig) -> bool {
    vip.address.is_ipv4() == real.address.is_ipv4() || matches!(mode, ForwardingMode::Fullnat | ForwardingMode::Tun)
}

/// A real server in FULLNAT mode of a service whose pool has these addresses: one of them must be of its family.
pub fn pool_speaks_to(
    real: &RealServerConfig,
    mode: ForwardingMode,
    pool: &str,
    mut addresses: impl Iterator<Item = IpAddr>,
) -> Option<Fault> {
    let is_fullnat = real.mode.unwrap_or(mode) == ForwardingMode::Fullnat;
    let is_ipv4 = real.address.is_ipv4();
    let family = if is_ipv4 { "IPv4" } else { "IPv6" };
    Fault::unless(!is_fullnat || addresses.any(|address| address.is_ipv4() == is_ipv4), || {
        let wrong = format!("{} is of {family}, of which local pool {pool:?} has no address", real.address);
        Fault::new("address", wrong, format!("a pool with an address of {family}, or another mode"))
    })
}

/// A tunnel by itself.
fn tunnel(tunnel: Tunnel) -> Vec<Fault> {
    let is = |encapsulation| tunnel.encapsulation == encapsulation;
    let has_port = Fault::unless(!is(Encapsulation::Gue) || tunnel.port != 0, || {
        Fault::new("tunnel_port", "missing or 0", "1-65535: the UDP port at which the real server takes GUE")
    });
    let no_port = Fault::unless(is(Encapsulation::Gue) || tunnel.port == 0, || {
        Fault::new("tunnel_port", format!("a tunnel by {} has no port", tunnel.encapsulation), "a port with gue only")
    });
    let no_checksum = Fault::unless(!is(Encapsulation::Ipip) || !tunnel.checksum, || {
        Fault::new("tunnel_checksum", "a tunnel by ipip has no checksum", "true with gre and gue only")
    });
    [has_port, no_port, no_checksum].into_iter().flatten().collect()
}

/// An address of a pool by itself.
pub fn local_address(address: IpAddr) -> Option<Fault> {
    Fault::unless(syntax::is_host(address), || Fault::new("", format!("{address} cannot be a source address"), HOST))
}

/// An address of a pool on a gateway whose ports have these addresses.
pub fn not_own(address: IpAddr, own_addresses: &[IpAddr]) -> Option<Fault> {
    Fault::unless(!own_addresses.contains(&address), || {
        Fault::new("", format!("{address} is a port's own address"), APART)
    })
}

/// The pool that a service names is one of these; it may name none where no real server `needs` one.
pub fn service_pool<'a>(name: &str, needs: bool, pools: impl Iterator<Item = &'a str> + Clone) -> Option<Fault> {
    let may_be_left_out = name.is_empty() && !needs;
    Fault::unless(may_be_left_out || pools.clone().any(|pool| pool == name), || {
        let missing = || "missing, and mode fullnat needs one".to_owned();
        let wrong = if name.is_empty() { missing() } else { format!("there is no local pool {name:?}") };
        Fault::new("local_pool", wrong, one_of(pools, "local_pool"))
    })
}

/// The name of a pool that there is already.
pub fn is_a_pool(name: &str) -> Fault {
    Fault::new("name", format!("{name:?} is the name of another pool"), "each name once")
}

/// A pool without any address.
pub fn empty_pool() -> Fault {
    Fault::new("addresses", "the pool has no address", "at least one address, or range A-B")
}

/// A local address that is in this pool already.
pub fn in_a_pool(address: IpAddr, pool: &str) -> Fault {
    Fault::new("", format!("{address} is in local pool {pool:?} already"), "each address once over all pools")
}

/// A local address that is a service's.
pub fn is_a_vip(address: IpAddr) -> Fault {
    Fault::new("", format!("{address} is a service's VIP"), APART)
}

/// A local address that is a real server's: packets to it would never leave the gateway.
pub fn is_a_real_server(address: IpAddr) -> Fault {
    Fault::new("", format!("{address} is a real server's address"), APART)
}

/// What names a service.
pub fn service_name(vip: VirtualAddress, protocol: Protocol) -> Option<Fault> {
    if vip.mark.is_some() {
        return Fault::unless(protocol == Protocol::Any, || {
            let wrong = format!("{vip} is for every protocol");
            Fault::new("protocol", wrong, "any; [[mark]] says which protocol gets the mark")
        });
    }
    let has_ports = Fault::unless(Protocol::from_number(protocol as u8).is_some(), || {
        Fault::new("protocol", format!("{protocol} has no ports that a service could be for"), Protocol::NAMES)
    });
    host("vip", vip.address).or(has_ports)
}

/// The key that names a service at `vip`.
pub fn name_key(vip: VirtualAddress) -> &'static str {
    if vip.mark.is_some() { "fwmark" } else { "vip" }
}

/// A service that there is already.
pub fn is_a_service(key: ServiceKey) -> Fault {
    let allowed = if key.mark.is_some() { "each mark and family once" } else { "each protocol, VIP and port once" };
    Fault::new(name_key(key.vip()), format!("{key} is a service already"), allowed)
}

/// A service of a range of ports of which another service's range has some.
pub fn ports_overlap(key: ServiceKey, other: ServiceKey) -> Fault {
    let wrong = format!("{key} has ports in common with service {other}");
    Fault::new(
        "vip",
        wrong,
        "ranges of a protocol and VIP that have no port in common; single ports of them, and all ports, besides",
    )
}

/// A real server that its service has already.
pub fn is_in_service(address: SocketAddr) -> Fault {
    let wrong = format!("{address} is a real server of this service already");
    Fault::new("address", wrong, "each address and port once in a service")
}

/// A rule for source NAT by itself, on a gateway with these ports and pools.
pub fn snat<'a>(rule: &SnatConfig, ports: &[String], pools: impl Iterator<Item = &'a str> + Clone) -> Vec<Fault> {
    let SnatConfig { name, source, destination, port, local_pool, .. } = rule;
    let mut faults = conditions(name, (Some(*source), *destination), port.as_ref(), ports);
    if !pools.clone().any(|pool| pool == local_pool) {
        let wrong = format!("there is no local pool {local_pool:?}");
        faults.push(Fault::new("local_pool", wrong, one_of(pools, "local_pool")));
    }
    faults
}

/// What rules for source NAT and for marks have in common: a name, networks of one family, a port that there is.
fn conditions(
    name: &str,
    (source, destination): (Option<Network>, Option<Network>),
    port: Option<&String>,
    ports: &[String],
) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Err(error) = syntax::name(name) {
        faults.push(Fault::new("name", format!("{name:?} {}", error.wrong), error.allowed));
    }
    if let (Some(source), Some(destination)) = (source, destination)
        && source.is_ipv4() != destination.is_ipv4()
    {
        let wrong = format!("{destination} is of another family than the source");
        faults.push(Fault::new("destination", wrong, format!("a network of the family of {source}")));
    }
    if let Some(port) = port.filter(|&port| !ports.contains(port)) {
        let allowed = one_of(ports.iter().map(String::as_str), "port");
        faults.push(Fault::new("port", format!("there is no port {port:?}"), allowed));
    }
    faults
}

/// A rule for marks by itself, on a gateway with these ports.
pub fn mark(rule: &MarkConfig, ports: &[String]) -> Vec<Fault> {
    let MarkConfig { name, source, destination, protocol, port, .. } = rule;
    let mut faults = conditions(name, (*source, *destination), port.as_ref(), ports);
    let can_be = protocol.is_none_or(|protocol| Protocol::from_number(protocol as u8).is_some());
    faults.extend(Fault::unless(can_be, || Fault::new("protocol", "no service is for it", Protocol::NAMES)));
    faults.extend(Fault::unless(destination.is_some() || port.is_some(), || {
        let wrong = "missing, and so is port: what real servers answer would be marked, too";
        Fault::new("destination", wrong, "a destination, a port to enter by, or both")
    }));
    faults
}

/// The name of a rule for marks that there is already.
pub fn is_a_mark_rule(name: &str) -> Fault {
    Fault::new("name", format!("{name:?} is the name of another rule"), "each name once")
}

/// More rules for marks than are looked through in the time that a new session may take.
pub fn too_many_mark_rules() -> Fault {
    let wrong = format!("there are {MAX_MARK_RULES} rules already");
    Fault::new("name", wrong, format!("at most {MAX_MARK_RULES} rules"))
}

/// The name of a rule for source NAT that there is already.
pub fn is_a_snat_rule(name: &str) -> Fault {
    Fault::new("name", format!("{name:?} is the name of another rule"), "each name once")
}

/// More rules for source NAT than are looked through in the time that a new session may take.
pub fn too_many_snat_rules() -> Fault {
    let wrong = format!("there are {MAX_SNAT_RULES} rules already");
    Fault::new("name", wrong, format!("at most {MAX_SNAT_RULES} rules"))
}

/// The names that there are, or how to make one.
pub fn one_of<'a>(names: impl Iterator<Item = &'a str>, table: &str) -> String {
    let names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
    if names.is_empty() { format!("the name of a [[{table}]], of which there is none") } else { names.join(", ") }
}

impl ServiceConfig {
    /// Gives a service that needs a local pool and names none the only one of these, if there is only one.
    pub fn fill_default_pool<'a>(&mut self, mut pools: impl Iterator<Item = &'a str>) {
        let lacks = self.local_pool.is_empty() && self.needs_local_pool();
        if let (true, Some(only), None) = (lacks, pools.next(), pools.next()) {
            only.clone_into(&mut self.local_pool);
        }
    }
}

impl BalanceConfig {
    /// Gives services that need a local pool and name none the only pool there is.
    pub fn fill_default_pool(&mut self) {
        let pools = self.local_pools.iter().map(|pool| pool.name.as_str());
        self.services.iter_mut().for_each(|service| service.fill_default_pool(pools.clone()));
    }
}
