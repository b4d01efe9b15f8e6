//! What Alibaba's fork has and ipvsadm has not: local addresses of a service, and FULLNAT real servers.
//!
//! In the fork local addresses belong to a service; here they belong to pools that services name. `-P` adds to the pool
//! of the service, `-Q` withdraws from it; a service without one gets one of its own, on the port whose network the
//! address is in, which goes with it.

use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use siphasher::sip::SipHasher24;

use super::Failure;
use super::arguments::Asked;
use super::validity::{Action, Said};
use crate::balance::{ForwardingMode, Mark, Protocol, VirtualAddress, Weight};
use crate::cli::client::Client;
use crate::config::{DEFAULT_PORTS, LocalPoolConfig, RealServerConfig};
use crate::control::protocol::{LocalPoolRow, PortRow, RealServerEdit, Reply, Request, ServiceName, ServiceRow};
use crate::ipvs::{Destination, ServiceId};

/// The daemon may take so long for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The control socket, with what is asked of it here.
struct Control(Client);

impl Control {
    fn connect(socket: &Path) -> Result<Self, Failure> {
        Ok(Self(Client::connect(socket, PATIENCE)?))
    }

    fn ask<T>(&mut self, request: &Request, pick: impl FnOnce(Reply) -> Option<T>) -> Result<T, Failure> {
        let reply = self.0.call(request)?;
        Ok(pick(reply).ok_or_else(|| self.0.wrong_reply())?)
    }

    fn change(&mut self, request: &Request) -> Result<(), Failure> {
        self.ask(request, |reply| if let Reply::Changed(_) = reply { Some(()) } else { None })
    }

    fn services(&mut self, service: Option<ServiceName>) -> Result<Vec<ServiceRow>, Failure> {
        self.ask(&Request::ServiceList { service }, |reply| match reply {
            Reply::Services(rows) => Some(rows),
            _ => None,
        })
    }

    fn service(&mut self, name: ServiceName) -> Result<ServiceRow, Failure> {
        self.services(Some(name))?.pop().ok_or_else(|| Failure::Fork("No such service".to_owned()))
    }

    /// Those that there are. Others that are listed wait for the sessions of their addresses to end, and have no ports.
    fn pools(&mut self) -> Result<Vec<LocalPoolRow>, Failure> {
        let mut pools = self.ask(&Request::LocalList {}, |reply| match reply {
            Reply::LocalPools(rows) => Some(rows),
            _ => None,
        })?;
        pools.retain(|pool| !pool.ports.is_empty());
        Ok(pools)
    }

    fn choose_pool(&mut self, service: ServiceName, pool: String) -> Result<(), Failure> {
        self.change(&Request::ServiceEdit {
            service,
            scheduler: None,
            scheduler_flags: None,
            mode: None,
            local_pool: Some(pool),
            mss_clamp: None,
            persistence: None,
            persistence_prefix: None,
            one_packet: None,
            max_connections: None,
            slow_start: None,
        })
    }

    fn ports(&mut self) -> Result<Vec<PortRow>, Failure> {
        self.ask(&Request::PortShow {}, |reply| match reply {
            Reply::Ports(rows) => Some(rows),
            _ => None,
        })
    }
}

/// The service's name in the control protocol.
fn name_of(id: ServiceId) -> Result<ServiceName, Failure> {
    match id {
        ServiceId::Address { protocol, address, port } => {
            let protocol = u8::try_from(protocol).ok().and_then(Protocol::from_number);
            let protocol = protocol.ok_or_else(|| Failure::Fork("illegal protocol".to_owned()))?;
            Ok(ServiceName { vip: SocketAddr::new(address, port).into(), protocol })
        }
        ServiceId::Mark { is_ipv6, mark } => {
            let mark = Mark::new(mark).ok_or_else(|| Failure::Fork("illegal fwmark".to_owned()))?;
            Ok(ServiceName { vip: VirtualAddress::marked(mark, is_ipv6), protocol: Protocol::Any })
        }
    }
}

/// Characters of a pool's longest name.
const LONGEST_NAME: usize = 32;

/// The name of a pool that is one service's: `tcp-10-0-0-100-80`. Where that is too long, as it can be with IPv6, a hash
/// stands for the address.
fn pool_name(service: ServiceName) -> String {
    let (protocol, vip) = (service.protocol, service.vip.to_string());
    let vip_in_name = vip.replace(['.', ':', '/'], "-").replace(['[', ']'], "");
    let name = if service.vip.mark.is_some() { vip_in_name } else { format!("{protocol}-{vip_in_name}") };
    if name.len() <= LONGEST_NAME {
        return name;
    }
    let mut hasher = SipHasher24::new();
    service.vip.address.hash(&mut hasher);
    let ports = vip.rsplit(':').next().unwrap_or_default();
    format!("{protocol}-{:016x}-{ports}", hasher.finish())
}

/// `-P` and `-Q`.
pub(super) fn change(socket: &Path, asked: &Asked) -> Result<(), Failure> {
    let name = name_of(asked.service_id())?;
    let Some(address) = asked.local_address else { return Ok(()) };
    let mut control = Control::connect(socket)?;
    let service = control.service(name)?;
    let addresses = vec![address];
    match (asked.action, service.local_pool) {
        (Action::AddLocal, pool) if pool.is_empty() => add_first(&mut control, name, address),
        (Action::AddLocal, pool) => control.change(&Request::LocalAdd { pool, addresses }),
        (_, pool) if pool.is_empty() => Err(Failure::Fork(format!("service {}: it has no local address", name.vip))),
        (_, pool) => control.change(&Request::LocalDel { pool, addresses }),
    }
}

/// The first local address of a service: in a pool of its own.
fn add_first(control: &mut Control, service: ServiceName, address: IpAddr) -> Result<(), Failure> {
    let name = pool_name(service);
    let addresses = vec![address];
    // Somebody may have made one by this name, or another service have it.
    match control.pools()?.iter().find(|pool| pool.name == name) {
        Some(pool) if pool.addresses.iter().any(|local| local.address == address && !local.withdrawn) => {}
        Some(_) => control.change(&Request::LocalAdd { pool: name.clone(), addresses })?,
        None => {
            let port = port_of(&control.ports()?, address)?;
            let pool = LocalPoolConfig { name: name.clone(), port, addresses, ports: DEFAULT_PORTS, transient: true };
            control.change(&Request::LocalCreate { pool })?;
            let chosen = control.choose_pool(service, name.clone());
            if chosen.is_err() {
                // What was made for the service goes again; it is the first failure that is told.
                let _ = control.change(&Request::LocalDestroy { pool: name });
            }
            return chosen;
        }
    }
    control.choose_pool(service, name)
}

/// The port whose network an address is in.
fn port_of(ports: &[PortRow], address: IpAddr) -> Result<String, Failure> {
    let is_in = |network: &String| network.split_whitespace().next().is_some_and(|network| contains(network, address));
    let found = ports.iter().find(|port| port.addresses.iter().any(is_in));
    found.map(|port| port.name.clone()).ok_or_else(|| {
        let names = ports.iter().map(|port| format!("{} ({})", port.name, port.addresses.join(", ")));
        let message = format!(
            "local address {address} is in no port's network; ports: {}; allowed: an address of one, or of a \
             [[local_pool]] in the configuration",
            names.collect::<Vec<_>>().join(", ")
        );
        Failure::Fork(message)
    })
}

/// Whether an address is in the network of `ADDRESS/BITS`.
fn contains(network: &str, address: IpAddr) -> bool {
    let Some((own, bits)) = network.split_once('/') else { return false };
    let (Ok(own), Ok(bits)) = (own.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (own, address) {
        (IpAddr::V4(own), IpAddr::V4(address)) => {
            (own.to_bits() ^ address.to_bits()).checked_shr(32_u32.saturating_sub(bits)).unwrap_or(0) == 0
        }
        (IpAddr::V6(own), IpAddr::V6(address)) => {
            (own.to_bits() ^ address.to_bits()).checked_shr(128_u32.saturating_sub(bits)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// `-a` and `-e` with the fork's `-b`.
pub(super) fn fullnat(socket: &Path, asked: &Asked) -> Result<(), Failure> {
    let service = name_of(asked.service_id())?;
    let mut control = Control::connect(socket)?;
    let row = control.service(service)?;
    let Destination { address, port, weight, upper_threshold, lower_threshold, .. } = asked.destination;
    let (address, mode) = (SocketAddr::new(address, port), Some(ForwardingMode::Fullnat));
    let weight = Weight(weight.cast_unsigned());
    if row.local_pool.is_empty() {
        take_only_pool(&mut control, service)?;
    }
    control.change(&match asked.action {
        Action::AddServer => Request::RealAdd {
            service,
            real_server: RealServerConfig { address, mode, tunnel: None, weight, upper_threshold, lower_threshold },
        },
        _ => {
            let set = RealServerEdit {
                mode,
                tunnel: None,
                weight: Some(weight),
                upper_threshold: Some(upper_threshold),
                lower_threshold: Some(lower_threshold),
            };
            Request::RealEdit { service, address, set }
        }
    })
}

/// A service without a pool takes the one that there is.
fn take_only_pool(control: &mut Control, service: ServiceName) -> Result<(), Failure> {
    let pools = control.pools()?;
    let [only] = pools.as_slice() else {
        let message = format!("service {} has no local address: add one first, with -P and -z ADDRESS", service.vip);
        return Err(Failure::Fork(message));
    };
    control.choose_pool(service, only.name.clone())
}

/// `-G`: services with their local addresses, in the fork's columns.
pub(super) fn list(socket: &Path, asked: &Asked) -> Result<String, Failure> {
    let mut control = Control::connect(socket)?;
    let services = match asked.options.has(Said::Service) {
        true => vec![control.service(name_of(asked.service_id())?)?],
        false => control.services(None)?,
    };
    let pools = control.pools()?;
    Ok(table(&services, &pools))
}

/// Local ports in use are those of the address, over all services that share it. That one is taken already is no
/// failure here, so that there are no conflicts to count.
fn table(services: &[ServiceRow], pools: &[LocalPoolRow]) -> String {
    let mut text =
        format!("{:<20} {:<8} {:<20} {:<10} {:<10}\n", "VIP:VPORT", "TOTAL", "SNAT_IP", "CONFLICTS", "CONNS");
    for service in services {
        let pool = pools.iter().find(|pool| pool.name == service.local_pool);
        let addresses = pool.map_or(&[][..], |pool| &pool.addresses);
        let used = || addresses.iter().filter(|address| !address.withdrawn);
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{:<20} {:<8}", service.vip.to_string(), used().count());
        for local in used() {
            let _ = writeln!(text, "{:<20} {:<8} {:<20} {:<10} {:<10}", "", "", local.address, 0, local.ports_used);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_pool_has_a_name_that_pools_can_have() {
        let name = |vip: &str| pool_name(ServiceName { vip: vip.parse().unwrap(), protocol: Protocol::Tcp });
        assert_eq!(name("10.0.0.100:80"), "tcp-10-0-0-100-80");
        assert_eq!(name("fwmark:7/ipv6"), "fwmark-7-ipv6");
        assert_eq!(name("[2001:db8::64]:443"), "tcp-2001-db8--64-443");
        let (long, other) = (name("[2001:db8:1:2:3:4:5:6]:443"), name("[2001:db8:1:2:3:4:5:7]:443"));
        assert!(long.len() <= LONGEST_NAME && long.ends_with("-443"), "{long}");
        assert_ne!(long, other);
    }

    #[test]
    fn an_address_is_in_its_ports_network() {
        let contains = |network, address: &str| contains(network, address.parse().unwrap());
        assert!(contains("10.1.0.1/24", "10.1.0.204"));
        assert!(!contains("10.1.0.1/24", "10.1.1.204"));
        assert!(contains("10.1.0.1/0", "192.0.2.1"));
        assert!(contains("2001:db8::1/64", "2001:db8::204"));
        assert!(!contains("2001:db8::1/64", "2001:db8:1::204"));
        assert!(!contains("10.1.0.1/24", "::1") && !contains("nonsense", "::1") && !contains("10.1.0.1/x", "10.1.0.1"));
    }
}
