//! `[[port]]`: devices, their TAPs, addresses and routes.
//!
//! Where a value is wrong it is noted in the document and a placeholder returned.

use std::net::{IpAddr, Ipv4Addr};

use hashbrown::HashMap;

use super::balance::mss_clamp;
use super::bond;
use super::model::{Device, InterfaceAddress, PortConfig, PortSteering, RouteConfig};
use super::raw::{Section, Value};
use super::syntax::{self, DEVICE_ALLOWED, MAX_TAP_LEN};
use super::validate::BalanceScope;
use super::vlan::{self, ParentNamed};
use crate::port::{MAX_PORTS, MAX_WORKERS, MacAddress};

const MAC_ALLOWED: &str = "the address of one port, like \"02:00:00:00:00:01\"";
const DEFAULT_DESCRIPTORS: u16 = 1024;
const DEFAULT_LINK_TIMEOUT_MILLISECONDS: u32 = 5_000;
const MAX_LINK_TIMEOUT_MILLISECONDS: u32 = 600_000;
/// Below it the kernel switches IPv6 off on an interface (IPV6_MIN_MTU; RFC 8200, 5).
const MIN_MTU_IPV6: u16 = 1280;
/// The metric that the kernel gives to an IPv6 route that names none (IP6_RT_PRIO_USER). IPv4's is 0.
const DEFAULT_METRIC_IPV6: u32 = 1024;

/// What must differ between ports: the line on which each value stands already.
#[derive(Default)]
struct Seen {
    names: HashMap<String, usize>,
    devices: HashMap<String, usize>,
    taps: HashMap<String, usize>,
    addresses: HashMap<IpAddr, usize>,
    /// The kernel keeps one route for a destination and metric, whatever its device.
    routes: SeenRoutes,
}

type SeenRoutes = HashMap<(IpAddr, u8, u32), usize>;

/// Every `[[port]]`.
pub(super) fn ports(root: &mut Section<'_>, workers: usize) -> Vec<PortConfig> {
    let sections = root.sections("port");
    let count = sections.len();
    if !(1..=MAX_PORTS).contains(&count) {
        root.document()
            .consequence("port", format!("there are {count} ports; allowed: 1 to {MAX_PORTS} [[port]] tables"));
    }
    let (mut seen, mut parents) = (Seen::default(), Vec::new());
    let mut ports: Vec<PortConfig> =
        sections.into_iter().map(|section| port(section, workers, &mut seen, &mut parents)).collect();
    vlan::find_parents(&mut ports, &parents);
    ports
}

/// What the rules for pools and services need to know of these ports.
pub(super) fn balance_scope(ports: &[PortConfig], workers: usize) -> BalanceScope {
    BalanceScope {
        ports: ports.iter().map(|port| port.name.clone()).collect(),
        own_addresses: ports.iter().flat_map(|port| &port.addresses).map(|own| own.address).collect(),
        workers,
    }
}

fn port<'d>(
    mut section: Section<'d>,
    workers: usize,
    seen: &mut Seen,
    parents: &mut Vec<Option<ParentNamed<'d>>>,
) -> PortConfig {
    let name = name(&mut section, &mut seen.names);
    let (parent, vlan) = vlan::read(&mut section);
    // A placeholder until the parent is found.
    let device = if parent.is_some() { Device::Vdev(String::new()) } else { device(&mut section, &mut seen.devices) };
    let members = if parent.is_some() { Vec::new() } else { bond::members(&mut section, &device, &mut seen.devices) };
    parents.push(parent);
    let mac = section.get("mac").and_then(|value| value.parsed(MAC_ALLOWED, mac));
    let tap = tap(&mut section, &name, &mut seen.taps);
    let addresses = addresses(&mut section, &mut seen.addresses);
    let routes = routes(&mut section, &addresses, &mut seen.routes);
    let mtu = mtu(&mut section, &addresses);
    let queues = section.get("queues").and_then(|value| queues(&value, workers));
    let mut descriptors = |name| {
        let given = section.get(name).and_then(|value| value.integer(64..=32_768, "descriptors a queue"));
        given.unwrap_or(DEFAULT_DESCRIPTORS)
    };
    let (rx_descriptors, tx_descriptors) = (descriptors("rx_descriptors"), descriptors("tx_descriptors"));
    let promiscuous = section.get("promiscuous").and_then(|value| value.boolean()).unwrap_or(false);
    let steering = section.get("steering").and_then(|value| value.parsed("auto, rss, software", steering));
    let mss_clamp = mss_clamp(&mut section);
    let link_timeout = section
        .get("link_timeout_milliseconds")
        .and_then(|value| value.integer(0..=MAX_LINK_TIMEOUT_MILLISECONDS, "milliseconds"));
    section.finish();
    PortConfig {
        name,
        device,
        members,
        vlan,
        mac,
        tap,
        addresses,
        routes,
        mtu,
        queues,
        rx_descriptors,
        tx_descriptors,
        promiscuous,
        steering: steering.unwrap_or_default(),
        mss_clamp,
        link_timeout_milliseconds: link_timeout.unwrap_or(DEFAULT_LINK_TIMEOUT_MILLISECONDS),
    }
}

fn mtu(section: &mut Section<'_>, addresses: &[InterfaceAddress]) -> Option<u16> {
    let mtu = section.get("mtu").and_then(|value| value.integer(68..=9600, "bytes of an IP packet"));
    if let Some(mtu) = mtu.filter(|&mtu| mtu < MIN_MTU_IPV6)
        && let Some(address) = addresses.iter().map(|own| own.address).find(IpAddr::is_ipv6)
    {
        let message =
            format!("{mtu} is too small for IPv6, and the port has {address}; allowed: at least {MIN_MTU_IPV6}");
        section.document().consequence(&section.place("mtu"), message);
    }
    mtu
}

fn name(section: &mut Section<'_>, seen: &mut HashMap<String, usize>) -> String {
    const ALLOWED: &str = "a name, like \"wan\"";
    let Some(value) = section.require("name", ALLOWED) else { return String::new() };
    let Some(name) = value.parsed(ALLOWED, syntax::name) else { return String::new() };
    if let Some(line) = seen.insert(name.clone(), value.line()) {
        value.error(format!("{name:?} is the name of the port on line {line}; allowed: each name once"));
    }
    name
}

fn device(section: &mut Section<'_>, seen: &mut HashMap<String, usize>) -> Device {
    let value = section.require("device", DEVICE_ALLOWED);
    let placeholder = Device::Vdev(String::new());
    let Some(value) = value else { return placeholder };
    let Some(device) = value.parsed(DEVICE_ALLOWED, syntax::device) else { return placeholder };
    let name = syntax::device_name(&device);
    if let Some(line) = seen.insert(name.to_owned(), value.line()) {
        value.error(format!("{name:?} is the device of the port on line {line}; allowed: each device once"));
    }
    device
}

fn tap(section: &mut Section<'_>, name: &str, seen: &mut HashMap<String, usize>) -> String {
    let value = section.get("tap");
    let given = value.as_ref().and_then(|value| value.parsed("the name of a network interface", syntax::tap_name));
    if value.is_some() && given.is_none() {
        return String::new();
    }
    let tap = given.unwrap_or_else(|| format!("fg-{name}"));
    let place = section.place("tap");
    if tap.len() > MAX_TAP_LEN {
        let (len, rest) = (tap.len(), "at most 15: give a tap of your own, or a name of at most 12 bytes");
        section.document().consequence(&place, format!("the default TAP {tap:?} has {len} bytes; allowed: {rest}"));
    }
    let line = section.document().line_of(&place);
    if let Some(earlier) = seen.insert(tap.clone(), line).filter(|_| !name.is_empty()) {
        let message = format!("{tap:?} is the TAP of the port on line {earlier}; allowed: each name once");
        // Two ports of one name have one default TAP: that is one mistake, told once.
        if value.is_some() || !section.document().is_faulty(&section.place("name")) {
            section.document().consequence(&place, message);
        }
    }
    tap
}

fn addresses(section: &mut Section<'_>, seen: &mut HashMap<IpAddr, usize>) -> Vec<InterfaceAddress> {
    const ALLOWED: &str = "a list of addresses with prefix, like [\"10.0.0.1/24\"]";
    let mut addresses: Vec<InterfaceAddress> = Vec::new();
    for value in section.get("addresses").map(|value| value.list(ALLOWED)).unwrap_or_default() {
        let Some(address) = value.parsed("ADDRESS/PREFIX", syntax::host_address) else { continue };
        // A link-local address means something on its own link only.
        let twice = if syntax::is_link_local(address.address) {
            addresses.iter().any(|own| own.address == address.address).then_some(value.line())
        } else {
            seen.insert(address.address, value.line())
        };
        if let Some(line) = twice {
            let address = address.address;
            value.error(format!("{address} is a port's address on line {line} already; allowed: each address once"));
        }
        addresses.push(address);
    }
    addresses
}

fn routes(section: &mut Section<'_>, addresses: &[InterfaceAddress], seen: &mut SeenRoutes) -> Vec<RouteConfig> {
    const ALLOWED: &str = "a list of tables, like [{ to = \"default\", via = \"10.0.0.254\" }]";
    let mut routes = Vec::new();
    let addresses_known = !section.document().is_faulty(&section.place("addresses"));
    for value in section.get("routes").map(|value| value.list(ALLOWED)).unwrap_or_default() {
        let line = value.line();
        let Some(mut table) = value.table("a table, like { to = \"default\", via = \"10.0.0.254\" }") else { continue };
        if let Some(route) = route(&mut table) {
            if addresses_known {
                gateway_is_near(&table, &route, addresses, &routes);
            }
            only_route(&table, &route, line, seen);
            routes.push(route);
        }
        table.finish();
    }
    routes
}

fn route(table: &mut Section<'_>) -> Option<RouteConfig> {
    const TO: &str = "default, or NETWORK/PREFIX";
    const VIA: &str = "the address of a gateway, like \"10.0.0.254\" or \"2001:db8::fe\"";
    let to = table.require("to", TO).and_then(|value| value.parsed(TO, syntax::route_destination));
    let parse = |text: &str| text.parse::<IpAddr>().map_err(|_| format!("{text:?} is no IP address; allowed: {VIA}"));
    let given = table.get("via");
    let via = given.as_ref().and_then(|value| value.parsed(VIA, parse));
    let metric = table.get("metric").and_then(|value| value.integer(0..=u32::MAX, ""));
    let unspecified = match via {
        Some(IpAddr::V6(_)) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let to = to?.unwrap_or(InterfaceAddress { address: unspecified, prefix_len: 0 });
    match (given, via) {
        (Some(_), None) => return None,
        (Some(value), Some(via)) if via.is_ipv4() != to.address.is_ipv4() => {
            value.error(format!(
                "{via} is of another family than {}; allowed: IPv4 with IPv4, IPv6 with IPv6",
                to.address
            ));
            return None;
        }
        _ => (),
    }
    Some(RouteConfig { to, via, metric })
}

/// The kernel refuses a gateway that it cannot reach directly.
fn gateway_is_near(table: &Section<'_>, route: &RouteConfig, own: &[InterfaceAddress], earlier: &[RouteConfig]) {
    let Some(via) = route.via else { return };
    let on_link = own.iter().any(|own| own.contains(via));
    let routed = earlier.iter().any(|earlier| earlier.via.is_none() && earlier.to.contains(via));
    if !(syntax::is_link_local(via) || on_link || routed) {
        let message =
            format!("{via} is in no network of this port; allowed: a neighbour by addresses or by a route above");
        table.document().consequence(&table.place("via"), message);
    }
}

fn only_route(table: &Section<'_>, route: &RouteConfig, line: usize, seen: &mut SeenRoutes) {
    let to = route.to.address;
    let metric = match (to, route.metric) {
        (IpAddr::V6(_), None | Some(0)) => DEFAULT_METRIC_IPV6,
        (_, metric) => metric.unwrap_or(0),
    };
    if let Some(earlier) = seen.insert((to, route.to.prefix_len, metric), line) {
        let prefix = route.to.prefix_len;
        let message = format!("{to}/{prefix} has a route on line {earlier}; allowed: each destination once a metric");
        table.document().consequence(&table.place("to"), message);
    }
}

fn mac(text: &str) -> Result<MacAddress, String> {
    let mac: MacAddress =
        text.parse().map_err(|_| format!("{text:?} is no Ethernet address; allowed: {MAC_ALLOWED}"))?;
    if mac.is_group() || mac == MacAddress::default() {
        return Err(format!("{mac} is no address of one port; allowed: {MAC_ALLOWED}"));
    }
    Ok(mac)
}

fn steering(text: &str) -> Result<PortSteering, String> {
    match text {
        "auto" => Ok(PortSteering::Auto),
        "rss" => Ok(PortSteering::Rss),
        "software" => Ok(PortSteering::Software),
        _ => Err(format!("{text:?} is no way to deal flows to workers; allowed: auto, rss, software")),
    }
}

fn queues(value: &Value<'_>, workers: usize) -> Option<u16> {
    let most = u32::try_from(MAX_WORKERS).unwrap_or(u32::MAX);
    let queues: u16 = value.integer(1..=most, "queues each way")?;
    if workers > 0 && usize::from(queues) > workers {
        value.error(format!(
            "{queues} queues are more than workers to read them; allowed: 1 to {workers}, one a worker"
        ));
    }
    Some(queues)
}
