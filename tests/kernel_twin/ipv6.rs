//! The same for IPv6: addresses with and without a subnet, routes, neighbour discovery, what is found to be a duplicate.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use etherparse::PacketBuilder;
use fullgate::control::mirror::AddressState;
use fullgate::forward::{Hop, PuntClass};
use fullgate::port::{MacAddress, PortId};
use fullgate::route::{Resolution, RouteInput, RouteTable};

use crate::{
    LAN, LAN_MAC, Lab, NEIGHBOUR_MAC, SOON, WAN, WAN_MAC, address, has_route, in_namespace, ip, lan_config, mac_of,
    port_config, route_is, to, twin, until_some, wan_config, way,
};

/// ICMPv6 types (RFC 4443, RFC 4861).
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Duplicate address detection waits up to a second and then another one.
const DAD: Duration = Duration::from_secs(5);

fn ipv6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// New devices of this namespace do without duplicate address detection: for tests that are about something else.
fn without_dad() {
    std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
}

/// An ICMPv6 packet as neighbours send it, with hop limit 255.
fn icmp(to: MacAddress, from: Ipv6Addr, target: Ipv6Addr, kind: u8, word: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(NEIGHBOUR_MAC.0, to.0)
        .ipv6(from.octets(), target.octets(), 255)
        .icmpv6_raw(kind, 0, word)
        .write(&mut frame, body)
        .unwrap();
    frame
}

/// The multicast address that a neighbour listens to, and its link-layer address (RFC 4291, 2.7.1; RFC 2464, 7).
fn solicited_node(target: Ipv6Addr) -> (Ipv6Addr, MacAddress) {
    let [.., a, b, c] = target.octets();
    let last = u16::from_be_bytes([b, c]);
    (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), last), MacAddress([0x33, 0x33, 0xff, a, b, c]))
}

/// Who has `target`? Asked by `from`.
fn solicitation(from: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let (group, mac) = solicited_node(target);
    let option: &[u8] = if from.is_unspecified() { &[] } else { &[&[1, 1], &NEIGHBOUR_MAC.0[..]].concat() };
    icmp(mac, from, group, SOLICITATION, [0; 4], &[&target.octets()[..], option].concat())
}

/// `target` is at `mac`.
fn advertisement(to: (MacAddress, Ipv6Addr), target: Ipv6Addr, mac: MacAddress) -> Vec<u8> {
    let body = [&target.octets()[..], &[2, 1], &mac.0[..]].concat();
    // Solicited, override; without "solicited" to all nodes.
    let flags = if to.1.is_multicast() { 0x20 } else { 0x60 };
    icmp(to.0, target, to.1, ADVERTISEMENT, [flags, 0, 0, 0], &body)
}

/// Whether a frame is ICMPv6 of this type, about this target.
fn is_about(frame: &[u8], kind: u8, target: Ipv6Addr) -> bool {
    frame.len() >= 78
        && frame[12..14] == [0x86, 0xdd]
        && frame[20] == 58
        && frame[54] == kind
        && frame[62..78] == target.octets()
}

fn source(frame: &[u8]) -> Ipv6Addr {
    Ipv6Addr::from(<[u8; 16]>::try_from(&frame[22..38]).unwrap())
}

/// Whether `client` behind the port, whose neighbour the kernel knows, gets its ping answered.
async fn ping(lab: &Lab, (port, mac): (PortId, MacAddress), client: Ipv6Addr, target: Ipv6Addr) -> bool {
    lab.punt(port, PuntClass::Ipv6, &icmp(mac, client, target, ECHO_REQUEST, [0, 77, 0, 1], b"are you there"));
    let is_reply = |frame: &[u8]| {
        frame.len() > 54 && frame[12..14] == [0x86, 0xdd] && frame[54] == ECHO_REPLY && source(frame) == target
    };
    lab.sent(port, SOON, is_reply).await.is_some()
}

#[test]
fn ipv6_addresses_and_settings_are_on_the_taps_also_where_ipv6_is_off_by_default() {
    in_namespace("ipv6::ipv6_addresses_and_settings_are_on_the_taps_also_where_ipv6_is_off_by_default", || async {
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let route = to("::/0", Some("fe80::fe"), None);
        let lan = port_config("lan", &["2001:db8:1::1/64", "2001:db8:1::100/128"], &[route]);
        let mut twin = twin(&wan_config(), &lan).await;
        let shown = ip("-6 address show dev fg-lan");
        let line =
            |address: &str| shown.lines().find(|line| line.contains(address)).unwrap_or_else(|| panic!("{shown}"));
        assert!(!line("2001:db8:1::1/64").contains("nodad"), "{shown}");
        let alone = line("2001:db8:1::100/128");
        assert!(alone.contains("nodad") && alone.contains("deprecated"), "{shown}");
        assert!(ip("-6 route show").contains("default via fe80::fe dev fg-lan proto static metric 1024"));
        assert_eq!(ip("-6 address show dev fg-wan"), "", "nothing of IPv6 is configured there");
        for (file, value) in [
            ("conf/fg-lan/accept_ra", "0"),
            ("conf/fg-lan/autoconf", "0"),
            ("conf/fg-lan/disable_ipv6", "0"),
            ("conf/fg-wan/disable_ipv6", "1"),
            ("conf/fg-lan/keep_addr_on_down", "1"),
            ("neigh/fg-lan/mcast_resolicit", "3"),
        ] {
            let content = std::fs::read_to_string(format!("/proc/sys/net/ipv6/{file}")).unwrap();
            assert_eq!(content.trim(), value, "{file}");
        }
        ip("link set fg-lan down");
        ip("link set fg-lan up");
        assert!(ip("-6 address show dev fg-lan").contains("2001:db8:1::1/64"), "kept, as IPv4's are");

        // A local address switches IPv6 on where it comes.
        twin.add_local_address(WAN, address("2001:db8::200")).await.unwrap();
        twin.add_local_address(WAN, address("2001:db8::200")).await.unwrap();
        // The kernel takes a moment, and nobody's answer, to find that it need not ask.
        let line = "inet6 2001:db8::200/128 scope global nodad deprecated \n";
        let usable = || ip("-6 address show dev fg-wan").contains(line).then_some(());
        until_some(SOON / 2, usable).await.unwrap_or_else(|| panic!("{}", ip("-6 address show dev fg-wan")));
        twin.remove_local_address(WAN, address("2001:db8::200")).await.unwrap();
        // Not put there by the twin: left alone.
        twin.add_local_address(LAN, address("2001:db8:1::1")).await.unwrap();
        twin.remove_local_address(LAN, address("2001:db8:1::1")).await.unwrap();
        assert!(!ip("-6 address show").contains("2001:db8::200"));
        assert!(ip("-6 address show dev fg-lan").contains("2001:db8:1::1/64"));
    });
}

#[test]
fn ipv6_routes_and_addresses_are_followed() {
    in_namespace("ipv6::ipv6_routes_and_addresses_are_followed", || async {
        without_dad();
        let mut lab = Lab::new().await;
        lab.until("what was configured", |input| {
            input.local.contains(&address("2001:db8:1::1"))
                && route_is(input, "2001:db8:2::", 48, 1024, &[way(LAN, Some("2001:db8:1::fe"), 1)])
                && route_is(input, "2001:db8:1::", 64, 256, &[way(LAN, None, 1)])
        })
        .await;
        assert!(!has_route(&lab.input.borrow(), "fe80::"), "a link-local network leads nowhere without its port");
        follow_routes(&mut lab).await;

        ip("address add 2001:db8:7::1/48 dev fg-lan");
        let there =
            |input: &RouteInput| (input.local.contains(&address("2001:db8:7::1")), has_route(input, "2001:db8:7::"));
        lab.until("a new address", |input| there(input) == (true, true)).await;
        ip("link set fg-lan down");
        lab.until("a TAP set down", |input| !has_route(input, "2001:db8:7::")).await;
        ip("link set fg-lan up");
        lab.until("and up again", |input| there(input) == (true, true)).await;
        ip("address delete 2001:db8:7::1/48 dev fg-lan");
        lab.until("a deleted address", |input| there(input) == (false, false)).await;

        // The host is made a router: it listens to the subnet-router address of each network.
        assert!(!lab.input.borrow().local.contains(&address("2001:db8:1::")));
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        lab.until("an anycast address", |input| input.local.contains(&address("2001:db8:1::"))).await;
    });
}

async fn follow_routes(lab: &mut Lab) {
    ip("-6 route add 2001:db8:9::/48 via fe80::9 dev fg-wan");
    lab.until("a link-local gateway", |input| {
        route_is(input, "2001:db8:9::", 48, 1024, &[way(WAN, Some("fe80::9"), 1)])
    })
    .await;
    ip(
        "-6 route replace default metric 7 nexthop via 2001:db8:1::fd weight 3 nexthop via fe80::fc dev fg-wan weight 1",
    );
    let ways = [way(LAN, Some("2001:db8:1::fd"), 3), way(WAN, Some("fe80::fc"), 1)];
    lab.until("two ways", |input| {
        let found = input.routes.iter().find(|route| route.destination == address("::"));
        found.is_some_and(|route| route.next_hops.len() == 2 && ways.iter().all(|way| route.next_hops.contains(way)))
    })
    .await;
    ip("-6 route add blackhole 2001:db8:a::/48");
    lab.until("a blackhole", |input| route_is(input, "2001:db8:a::", 48, 1024, &[])).await;
    ip("nexthop add id 6 via fe80::77 dev fg-lan");
    ip("-6 route add 2001:db8:b::/48 nhid 6");
    lab.until("a next-hop object", |input| route_is(input, "2001:db8:b::", 48, 1024, &[way(LAN, Some("fe80::77"), 1)]))
        .await;
    ip("route add 192.0.2.0/24 via inet6 fe80::9 dev fg-wan");
    ip("route add 198.51.100.0/24 nhid 6");
    lab.until("IPv4 routes through IPv6 gateways", |input| {
        route_is(input, "192.0.2.0", 24, 0, &[way(WAN, Some("fe80::9"), 1)])
            && route_is(input, "198.51.100.0", 24, 0, &[way(LAN, Some("fe80::77"), 1)])
    })
    .await;
    ip("-6 route delete 2001:db8:9::/48");
    lab.until("a deleted route", |input| !has_route(input, "2001:db8:9::")).await;
}

#[test]
fn the_kernel_resolves_ipv6_neighbours_and_keeps_them_alive() {
    in_namespace("ipv6::the_kernel_resolves_ipv6_neighbours_and_keeps_them_alive", || async {
        without_dad();
        let mut lab = Lab::new().await;
        let server = ipv6("2001:db8:1::11");
        let hop = Hop { port: LAN, address: server.into() };
        lab.until("the subnet", |input| has_route(input, "2001:db8:1::")).await;
        let table = RouteTable::new(&lab.input.borrow(), None);
        assert_eq!(table.resolve(server, 0), Resolution::Unresolved(hop));

        for _ in 0..100 {
            lab.mirror.resolve(hop);
        }
        let asked = |frame: &[u8]| is_about(frame, SOLICITATION, server);
        let question = lab.sent(LAN, 2 * SOON, asked).await.expect("a solicitation");
        assert_eq!(question[..6], solicited_node(server).1.0);
        assert!(source(&question).is_unicast_link_local(), "asked from the port's own address");
        let asker = (LAN_MAC, source(&question));
        lab.punt(LAN, PuntClass::NeighbourDiscovery, &advertisement(asker, server, NEIGHBOUR_MAC));
        lab.until("the answer", |input| mac_of(input, LAN, "2001:db8:1::11") == Some(NEIGHBOUR_MAC)).await;
        let table = RouteTable::new(&lab.input.borrow(), Some(&table));
        let Resolution::Hop(index) = table.resolve(server, 0) else { panic!("not resolved") };
        assert_eq!(table.hop(index).unwrap().header, *[&NEIGHBOUR_MAC.0[..], &LAN_MAC.0, &[0x86, 0xdd]].concat());

        // Nobody but us refreshes it; one that came back with another card is found.
        ip("neigh change 2001:db8:1::11 lladdr 02:0a:00:00:00:09 dev fg-lan nud stale");
        let to_all = |frame: &[u8]| asked(frame) && frame[..2] == [0x33, 0x33];
        lab.sent(LAN, 15 * SOON, to_all).await.expect("a stale neighbour is asked for, in the end all are");
        let other = MacAddress([2, 0xa, 0, 0, 0, 0x77]);
        lab.punt(LAN, PuntClass::NeighbourDiscovery, &advertisement(asker, server, other));
        lab.until("the other card", |input| mac_of(input, LAN, "2001:db8:1::11") == Some(other)).await;
    });
}

#[test]
fn a_link_local_gateway_is_resolved_behind_its_port() {
    in_namespace("ipv6::a_link_local_gateway_is_resolved_behind_its_port", || async {
        without_dad();
        let mut lab = Lab::new().await;
        ip("-6 route add default via fe80::fe dev fg-wan");
        lab.until("the route", |input| has_route(input, "::")).await;
        let gateway = ipv6("fe80::fe");
        let hop = Hop { port: WAN, address: gateway.into() };
        lab.mirror.resolve(hop);
        let question = lab.sent(WAN, 2 * SOON, |frame| is_about(frame, SOLICITATION, gateway)).await.unwrap();
        lab.punt(
            WAN,
            PuntClass::NeighbourDiscovery,
            &advertisement((WAN_MAC, source(&question)), gateway, NEIGHBOUR_MAC),
        );
        lab.until("the answer", |input| mac_of(input, WAN, "fe80::fe") == Some(NEIGHBOUR_MAC)).await;
        let table = RouteTable::new(&lab.input.borrow(), None);
        let Resolution::Hop(index) = table.resolve(ipv6("2001:db8:ffff::1"), 0) else { panic!("no route") };
        let entry = table.hop(index).unwrap();
        assert!(entry.resolved && entry.hop == hop);
    });
}

#[test]
fn the_kernel_answers_pings_and_solicitations_for_its_ipv6_addresses() {
    in_namespace("ipv6::the_kernel_answers_pings_and_solicitations_for_its_ipv6_addresses", || async {
        let mut twin = twin(&wan_config(), &lan_config()).await;
        twin.add_local_address(LAN, address("2001:db8:1::100")).await.unwrap();
        let mut lab = Lab::of(twin).await;
        let (client, vip) = (ipv6("2001:db8:1::50"), ipv6("2001:db8:1::100"));
        lab.until("the virtual address, at once", |input| input.local.contains(&vip.into())).await;
        ip("neigh replace 2001:db8:1::50 lladdr 02:0a:00:00:00:09 dev fg-lan nud permanent");
        ip("neigh replace 2001:db8:1::fe lladdr 02:0a:00:00:00:09 dev fg-lan nud permanent");
        assert!(ping(&lab, (LAN, LAN_MAC), client, vip).await, "the virtual address");
        assert!(ping(&lab, (LAN, LAN_MAC), ipv6("2001:db8:2::5"), vip).await, "from far away");

        lab.punt(LAN, PuntClass::NeighbourDiscovery, &solicitation(client, vip));
        let answer = lab.sent(LAN, SOON, |frame| is_about(frame, ADVERTISEMENT, vip)).await.expect("an advertisement");
        assert_eq!((&answer[..6], &answer[6..12]), (&NEIGHBOUR_MAC.0[..], &LAN_MAC.0[..]));

        let own = ipv6("2001:db8:1::1");
        let settled = lab.input.wait_for(|input| input.local.contains(&own.into()));
        drop(tokio::time::timeout(DAD, settled).await.expect("the address is tentative no more").unwrap());
        assert!(ping(&lab, (LAN, LAN_MAC), client, own).await, "the TAP's address");
        let chosen = ip("-6 route get 2001:db8:1::50");
        assert!(chosen.contains("src 2001:db8:1::1 "), "neither VIP nor LIP is a source of the host's own: {chosen}");
        assert!(!ping(&lab, (WAN, WAN_MAC), client, ipv6("2001:db8:1::101")).await, "nobody's address");
    });
}

#[test]
fn an_address_that_another_machine_has_is_never_the_hosts() {
    in_namespace("ipv6::an_address_that_another_machine_has_is_never_the_hosts", || async {
        let lab = Lab::new().await;
        let own = ipv6("2001:db8:1::1");
        let question = lab.sent(LAN, DAD, |frame| is_about(frame, SOLICITATION, own)).await.expect("it is looked for");
        assert!(source(&question).is_unspecified());
        let all_nodes = (MacAddress([0x33, 0x33, 0, 0, 0, 1]), ipv6("ff02::1"));
        lab.punt(LAN, PuntClass::NeighbourDiscovery, &advertisement(all_nodes, own, NEIGHBOUR_MAC));
        let state =
            || lab.mirror.addresses().borrow().iter().find(|each| each.address == IpAddr::V6(own)).map(|a| a.state);
        let duplicate = || (state() == Some(AddressState::Duplicate)).then_some(());
        until_some(SOON, duplicate).await.unwrap_or_else(|| panic!("it is {:?}", state()));
        assert!(!lab.input.borrow().local.contains(&own.into()));
    });
}

#[test]
fn many_ipv6_routes_at_once_arrive_whole() {
    in_namespace("ipv6::many_ipv6_routes_at_once_arrive_whole", || async {
        const ROUTES: usize = 20_000;
        without_dad();
        let mut lab = Lab::new().await;
        let lines: String = (0..ROUTES)
            .map(|n| {
                format!("route add 2001:db8:{:x}::/{} via fe80::{:x} dev fg-lan\n", n + 16, 48 + n % 17, n % 7 + 1)
            })
            .collect();
        let batch = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(batch.path(), lines).unwrap();
        ip(&format!("-6 -batch {}", batch.path().display()));
        let started = std::time::Instant::now();
        let all = lab.input.wait_for(|input| input.routes.len() >= ROUTES);
        drop(tokio::time::timeout(20 * SOON, all).await.expect("all routes").unwrap());
        eprintln!("{ROUTES} IPv6 routes: {:?}", started.elapsed());
        let table = RouteTable::new(&lab.input.borrow(), None);
        let Resolution::Hop(index) = table.resolve(ipv6("2001:db8:2710::"), 0) else { panic!("no route") };
        assert_eq!(
            table.hop(index).unwrap().hop,
            Hop { port: LAN, address: address(&format!("fe80::{}", 9984 % 7 + 1)) }
        );
    });
}
