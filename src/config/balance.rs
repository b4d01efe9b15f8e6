//! `[[local_pool]]`, `[[service]]` with its `[[service.real_server]]`, and `[[snat]]`: which keys there are, what each
//! may be.
//!
//! What must fit together is in `validate`; this finds the lines for what it says.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use super::model::{BalanceConfig, LocalPoolConfig, RealServerConfig, ServiceConfig, SnatConfig};
use super::raw::{Document, Section, Value};
use super::syntax;
use super::validate::{BalanceScope, Place, Violation};
use crate::balance::{
    Encapsulation, ForwardingMode, MssClamp, Network, PortRange, Protocol, SchedulerFlag, SchedulerFlags,
    SchedulerKind, Tunnel, VirtualAddress, Weight,
};

/// Local ports of a pool that says nothing else: those that the kernel's own services do not use.
pub const DEFAULT_PORTS: PortRange = PortRange { first: 1024, last: 65_535 };

/// Stands for an address that could not be read.
const UNREAD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// For each pool and each of its addresses: which member of the list `addresses` it came from.
type Origins = Vec<Vec<usize>>;

/// Pools, services and rules for source NAT, checked against each other and the ports.
pub(super) fn balance(root: &mut Section<'_>, scope: &BalanceScope) -> BalanceConfig {
    let (local_pools, origins): (Vec<_>, Origins) = root.sections("local_pool").into_iter().map(local_pool).unzip();
    let services = root.sections("service").into_iter().map(service).collect();
    let snat = root.sections("snat").into_iter().map(snat).collect();
    let mut balance = BalanceConfig { local_pools, services, snat };
    balance.fill_default_pool();
    for violation in balance.violations(scope) {
        report(root.document(), &violation, &origins);
    }
    balance
}

fn report(document: &Document<'_>, violation: &Violation, origins: &Origins) {
    let Violation { wrong, allowed, .. } = violation;
    let earlier = violation.earlier.map(|place| key_of(place, origins));
    let on_line = earlier.map(|key| format!(" on line {}", document.line_of(&key))).unwrap_or_default();
    document.consequence(&key_of(violation.place, origins), format!("{wrong}{on_line}; allowed: {allowed}"));
}

fn key_of(place: Place, origins: &Origins) -> String {
    match place {
        Place::Pool(pool, key) => format!("local_pool[{pool}].{key}"),
        Place::PoolAddress(pool, address) => format!("local_pool[{pool}].addresses[{}]", origins[pool][address]),
        Place::Service(service, key) => format!("service[{service}].{key}"),
        Place::RealServer(service, real, key) => format!("service[{service}].real_server[{real}].{key}"),
        Place::Snat(rule, key) => format!("snat[{rule}].{key}"),
    }
}

fn local_pool(mut section: Section<'_>) -> (LocalPoolConfig, Vec<usize>) {
    const ADDRESSES: &str = "a list of addresses and ranges A-B, like [\"10.1.0.200-10.1.0.203\"]";
    let name = section.require("name", "a name, like \"lan\"");
    let name = name.and_then(|value| value.text("a name, like \"lan\"").map(str::to_owned)).unwrap_or_default();
    let port = section.require("port", "the name of a [[port]]");
    let port = port.and_then(|value| value.text("the name of a [[port]]").map(str::to_owned)).unwrap_or_default();
    let (mut addresses, mut origins) = (Vec::new(), Vec::new());
    let members = section.require("addresses", ADDRESSES).map(|value| value.list(ADDRESSES)).unwrap_or_default();
    for (member, value) in members.iter().enumerate() {
        let range = value.parsed("an address or a range A-B", syntax::address_range).unwrap_or_default();
        origins.resize(origins.len() + range.len(), member);
        addresses.extend(range);
    }
    let ports =
        section.get("ports").and_then(|value| value.parsed("FIRST-LAST, like \"1024-65535\"", PortRange::from_str));
    section.finish();
    (LocalPoolConfig { name, port, addresses, ports: ports.unwrap_or(DEFAULT_PORTS) }, origins)
}

fn service(mut section: Section<'_>) -> ServiceConfig {
    const VIP: &str = VirtualAddress::ALLOWED;
    let vip = section.require("vip", VIP).and_then(|value| value.parsed(VIP, VirtualAddress::from_str));
    let vip = vip.unwrap_or(UNREAD.into());
    let protocol = section.require("protocol", Protocol::NAMES).and_then(|value| word(Protocol::NAMES, &value));
    let scheduler = section.get("scheduler").and_then(|value| word(SchedulerKind::NAMES, &value));
    let scheduler_flags = section.get("scheduler_flags").map(|value| scheduler_flags(&value));
    let mode = section.get("mode").and_then(|value| word(ForwardingMode::NAMES, &value));
    let pool = section.get("local_pool").and_then(|value| pool_name(&value));
    let mss_clamp = mss_clamp(&mut section);
    let real_servers = section.sections("real_server").into_iter();
    let real_servers = real_servers.map(|real| real_server(real, vip)).collect();
    section.finish();
    ServiceConfig {
        vip,
        protocol: protocol.unwrap_or(Protocol::Tcp),
        scheduler: scheduler.unwrap_or_default(),
        scheduler_flags: scheduler_flags.unwrap_or_default(),
        mode: mode.unwrap_or(ForwardingMode::Fullnat),
        local_pool: pool.unwrap_or_default(),
        mss_clamp,
        real_servers,
    }
}

fn scheduler_flags(value: &Value<'_>) -> SchedulerFlags {
    let flags = value.list("a list of flags, like [\"sh-fallback\", \"sh-port\"]");
    flags.iter().filter_map(|flag| word::<SchedulerFlag>(SchedulerFlag::NAMES, flag)).collect()
}

fn snat(mut section: Section<'_>) -> SnatConfig {
    let mut text = |name, allowed| {
        let value = section.require(name, allowed);
        value.and_then(|value| value.text(allowed).map(str::to_owned)).unwrap_or_default()
    };
    let (name, local_pool) =
        (text("name", "a name, like \"office\""), text("local_pool", "the name of a [[local_pool]]"));
    let network = |value: Value<'_>| value.parsed(Network::ALLOWED, Network::from_str);
    let source = section.require("source", Network::ALLOWED).and_then(network);
    let destination = section.get("destination").and_then(network);
    let protocol = section.get("protocol").and_then(|value| value.parsed(Protocol::OF_SESSIONS, Protocol::of_session));
    let ports = section.get("destination_port");
    let destination_port =
        ports.and_then(|value| value.parsed("a port or FIRST-LAST, like \"443\"", PortRange::from_str));
    let port = section.get("port");
    let port = port.and_then(|value| value.text("the name of a [[port]]").map(str::to_owned));
    section.finish();
    SnatConfig {
        name,
        // What a source that could not be read is of which family nobody knows.
        destination: destination.filter(|_| source.is_some()),
        source: source.unwrap_or(Network::IPV4),
        protocol,
        destination_port,
        port,
        local_pool,
    }
}

/// `mss_clamp` of a service or of a port.
pub(super) fn mss_clamp(section: &mut Section<'_>) -> MssClamp {
    let value = section.get("mss_clamp");
    let clamp = value.and_then(|value| value.parsed_number_or_text(MssClamp::ALLOWED, MssClamp::from_str));
    clamp.unwrap_or_default()
}

/// An empty text would silently mean "the only pool".
fn pool_name(value: &Value<'_>) -> Option<String> {
    let text = value.text("the name of a [[local_pool]]")?;
    if text.is_empty() {
        value.error("the name is empty; allowed: the name of a [[local_pool]], or no key where there is only one");
    }
    Some(text.to_owned())
}

fn real_server(mut section: Section<'_>, vip: VirtualAddress) -> RealServerConfig {
    const ADDRESS: &str = syntax::ENDPOINT_ALLOWED;
    let address = section.require("address", ADDRESS).and_then(|value| value.parsed(ADDRESS, syntax::endpoint));
    let mode = section.get("mode").and_then(|value| word(ForwardingMode::NAMES, &value));
    let tunnel = tunnel(&mut section);
    let weight = section.get("weight").and_then(|value| value.integer(0..=Weight::MAX, ""));
    let mut threshold = |name| {
        let given = section.get(name).and_then(|value| value.integer(0..=u32::MAX, "connections"));
        given.unwrap_or(0)
    };
    let (upper_threshold, lower_threshold) = (threshold("upper"), threshold("lower"));
    section.finish();
    RealServerConfig {
        address: address.map_or(UNREAD, |(ip, port)| SocketAddr::new(ip, port.unwrap_or(vip.default_port()))),
        mode,
        tunnel,
        weight: Weight(weight.unwrap_or(1)),
        upper_threshold,
        lower_threshold,
    }
}

/// `tunnel`, `tunnel_port` and `tunnel_checksum`; none where none of them is given.
fn tunnel(section: &mut Section<'_>) -> Option<Tunnel> {
    let encapsulation = section.get("tunnel").and_then(|value| word(Encapsulation::NAMES, &value));
    let port = section.get("tunnel_port").and_then(|value| value.integer(1..=65_535, ""));
    let checksum = section.get("tunnel_checksum").and_then(|value| value.boolean());
    let given = encapsulation.is_some() || port.is_some() || checksum.is_some();
    given.then(|| Tunnel {
        encapsulation: encapsulation.unwrap_or_default(),
        port: port.unwrap_or(0),
        checksum: checksum.unwrap_or(false),
    })
}

/// A word of a closed list.
fn word<T: FromStr<Err: Display>>(allowed: &str, value: &Value<'_>) -> Option<T> {
    value.parsed(allowed, T::from_str)
}
