//! `[[local_pool]]`, `[[service]]` with its `[[service.real_server]]`, `[[snat]]` and `[[mark]]`: which keys there are, what
//! each may be.
//!
//! What must fit together is in `validate`; this finds the lines for what it says.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;

use super::model::{BalanceConfig, LocalPoolConfig, MarkConfig, RealServerConfig, ServiceConfig, SnatConfig};
use super::raw::{Document, Section, Value};
use super::rules;
use super::syntax;
use super::validate::{BalanceScope, Place, Violation};
use crate::balance::{
    ClientPrefix, Encapsulation, ForwardingMode, Mark, MssClamp, Network, Persistence, PortRange, Protocol,
    SchedulerFlag, SchedulerFlags, SchedulerKind, Tunnel, VirtualAddress, Weight,
};

/// Local ports of a pool that says nothing else: those that the kernel's own services do not use.
pub const DEFAULT_PORTS: PortRange = PortRange { first: 1024, last: 65_535 };

/// Stands for an address that could not be read.
const UNREAD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// For each pool and each of its addresses: which member of the list `addresses` it came from.
type Origins = Vec<Vec<usize>>;

/// Pools, services, and rules for source NAT and marks, checked against each other and the ports.
pub(super) fn balance(root: &mut Section<'_>, scope: &BalanceScope) -> BalanceConfig {
    let (local_pools, origins): (Vec<_>, Origins) = root.sections("local_pool").into_iter().map(local_pool).unzip();
    let services = root.sections("service").into_iter().map(service).collect();
    let snat = root.sections("snat").into_iter().map(snat).collect();
    let marks = root.sections("mark").into_iter().map(mark).collect();
    let mut balance = BalanceConfig { local_pools, services, snat, marks };
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
        Place::Mark(rule, key) => format!("mark[{rule}].{key}"),
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
    (LocalPoolConfig { name, port, addresses, ports: ports.unwrap_or(DEFAULT_PORTS), transient: false }, origins)
}

fn service(mut section: Section<'_>) -> ServiceConfig {
    let (vip, protocol) = service_name(&mut section);
    let scheduler = section.get("scheduler").and_then(|value| word(SchedulerKind::NAMES, &value));
    let scheduler_flags = section.get("scheduler_flags").map(|value| scheduler_flags(&value));
    let mode = section.get("mode").and_then(|value| word(ForwardingMode::NAMES, &value));
    let pool = section.get("local_pool").and_then(|value| pool_name(&value));
    let mss_clamp = mss_clamp(&mut section);
    let (persistence, persistence_prefix) = persistence(&mut section);
    let one_packet = section.get("one_packet").and_then(|value| value.boolean()).unwrap_or(false);
    let max_connections = section.get("max_connections").and_then(|value| value.integer(0..=u32::MAX, "sessions"));
    let slow_start = section.get("slow_start").and_then(|value| value.integer(rules::SLOW_START, "seconds (a day)"));
    let real_servers = section.sections("real_server").into_iter();
    let real_servers = real_servers.map(|real| real_server(real, vip)).collect();
    section.finish();
    ServiceConfig {
        vip,
        protocol,
        scheduler: scheduler.unwrap_or_default(),
        scheduler_flags: scheduler_flags.unwrap_or_default(),
        mode: mode.unwrap_or(ForwardingMode::Fullnat),
        local_pool: pool.unwrap_or_default(),
        mss_clamp,
        persistence,
        persistence_prefix: Persistence::prefix_kept(persistence_prefix, vip.address.is_ipv4()),
        one_packet,
        max_connections: max_connections.unwrap_or(0),
        slow_start: slow_start.unwrap_or(0),
        real_servers,
    }
}

/// `vip` and `protocol`, or `fwmark` and `family`.
fn service_name(section: &mut Section<'_>) -> (VirtualAddress, Protocol) {
    const VIP: &str = VirtualAddress::ALLOWED;
    let (mark, family) = (section.get("fwmark"), section.get("family"));
    let Some(mark) = mark else {
        if let Some(family) = family {
            family.error("there is no fwmark that it could be the family of; allowed: family with fwmark only");
        }
        let vip = section.require("vip", VIP).and_then(|value| value.parsed(VIP, VirtualAddress::from_str));
        if let Some(vip) = vip.filter(|vip| vip.mark.is_some()) {
            refuse_with_mark(section, &["protocol"]);
            return (vip, Protocol::Any);
        }
        let protocol = section.require("protocol", Protocol::NAMES).and_then(|value| word(Protocol::NAMES, &value));
        return (vip.unwrap_or(UNREAD.into()), protocol.unwrap_or(Protocol::Tcp));
    };
    refuse_with_mark(section, &["vip", "protocol"]);
    let is_ipv6 = family.is_some_and(|value| value.parsed("ipv4, ipv6", is_ipv6).unwrap_or(false));
    let marked = fwmark(&mark).map(|mark| VirtualAddress::marked(mark, is_ipv6));
    (marked.unwrap_or(UNREAD.into()), Protocol::Any)
}

/// A mark is of packets of any address and protocol.
fn refuse_with_mark(section: &mut Section<'_>, keys: &[&'static str]) {
    for key in keys {
        if let Some(value) = section.get(key) {
            value.error("a service of a mark has none: [[mark]] says which packets are marked; allowed: no such key");
        }
    }
}

fn is_ipv6(family: &str) -> Result<bool, String> {
    match family {
        "ipv4" => Ok(false),
        "ipv6" => Ok(true),
        other => Err(format!("{other:?} is no family; allowed: ipv4, ipv6")),
    }
}

fn fwmark(value: &Value<'_>) -> Option<Mark> {
    value.integer(1..=u32::MAX, "").and_then(Mark::new)
}

/// `persistence` and `persistence_prefix`.
fn persistence(section: &mut Section<'_>) -> (u32, Option<u8>) {
    let seconds =
        section.get("persistence").and_then(|value| value.integer(0..=*rules::TIMEOUT.end(), "seconds (31 days)"));
    let prefix = section.get("persistence_prefix");
    let prefix = prefix.and_then(|value| value.parsed_number_or_text(ClientPrefix::ALLOWED, ClientPrefix::from_str));
    (seconds.unwrap_or(0), prefix.map(|ClientPrefix(bits)| bits))
}

fn scheduler_flags(value: &Value<'_>) -> SchedulerFlags {
    let flags = value.list("a list of flags, like [\"sh-fallback\", \"sh-port\"]");
    flags.iter().filter_map(|flag| word::<SchedulerFlag>(SchedulerFlag::NAMES, flag)).collect()
}

fn snat(mut section: Section<'_>) -> SnatConfig {
    let name = required_text(&mut section, "name", "a name, like \"office\"");
    let local_pool = required_text(&mut section, "local_pool", "the name of a [[local_pool]]");
    let source = section.require("source", Network::ALLOWED).and_then(|value| network(&value));
    let protocol = section.get("protocol").and_then(|value| value.parsed(Protocol::OF_SESSIONS, Protocol::of_session));
    let (destination, destination_port, port) = conditions(&mut section);
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

fn mark(mut section: Section<'_>) -> MarkConfig {
    let name = required_text(&mut section, "name", "a name, like \"web\"");
    let mark = section.require("fwmark", Mark::ALLOWED).and_then(|value| fwmark(&value));
    let source = section.get("source").and_then(|value| network(&value));
    let protocol = section.get("protocol").and_then(|value| word(Protocol::NAMES, &value));
    let (destination, destination_port, port) = conditions(&mut section);
    section.finish();
    MarkConfig {
        name,
        fwmark: mark.unwrap_or(Mark(NonZeroU32::MIN)),
        source,
        destination,
        protocol,
        destination_port,
        port,
    }
}

fn required_text(section: &mut Section<'_>, name: &'static str, allowed: &'static str) -> String {
    let value = section.require(name, allowed);
    value.and_then(|value| value.text(allowed).map(str::to_owned)).unwrap_or_default()
}

fn network(value: &Value<'_>) -> Option<Network> {
    value.parsed(Network::ALLOWED, Network::from_str)
}

/// `destination`, `destination_port` and `port` of a rule.
fn conditions(section: &mut Section<'_>) -> (Option<Network>, Option<PortRange>, Option<String>) {
    let destination = section.get("destination").and_then(|value| network(&value));
    let ports = section.get("destination_port");
    let destination_port =
        ports.and_then(|value| value.parsed("a port or FIRST-LAST, like \"443\"", PortRange::from_str));
    let port = section.get("port");
    (destination, destination_port, port.and_then(|value| value.text("the name of a [[port]]").map(str::to_owned)))
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
