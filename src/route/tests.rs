//! The compiled table against a naive model, and the promises about indices and generations.

use proptest::prelude::*;

use super::*;

const WAN: PortId = PortId(0);
const LAN: PortId = PortId(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, last])
}

fn interface(port: PortId) -> Interface {
    Interface { port, mac: mac(0xf0 + port.0), mtu: 1500, address: None, ipv6_address: None }
}

fn way(port: PortId, gateway: Option<&str>, weight: u16) -> RouteNextHop {
    RouteNextHop { port, gateway: gateway.map(ip), weight }
}

fn route(to: &str, metric: u32, next_hops: &[RouteNextHop]) -> RouteEntry {
    let (destination, prefix_len) = to.split_once('/').unwrap();
    RouteEntry {
        destination: ip(destination),
        prefix_len: prefix_len.parse().unwrap(),
        metric,
        next_hops: next_hops.to_vec(),
    }
}

fn neighbour(port: PortId, address: &str, last: u8) -> Neighbour {
    Neighbour { hop: Hop { port, address: ip(address) }, mac: mac(last) }
}

fn two_arms() -> RouteInput {
    RouteInput {
        routes: vec![
            route("10.0.0.0/24", 0, &[way(WAN, None, 1)]),
            route("10.1.0.0/24", 0, &[way(LAN, None, 1)]),
            route("0.0.0.0/0", 0, &[way(WAN, Some("10.0.0.254"), 1)]),
        ],
        interfaces: vec![interface(WAN), interface(LAN)],
        ..RouteInput::default()
    }
}

fn index_of(table: &RouteTable, destination: &str) -> HopIndex {
    match table.resolve(ip(destination), 0) {
        Resolution::Hop(index) => index,
        other => panic!("{destination}: {other:?}"),
    }
}

#[test]
fn gateways_have_an_entry_before_they_are_resolved() {
    let table = RouteTable::new(&two_arms(), None);
    let entry = table.hop(index_of(&table, "192.0.2.1")).unwrap();
    assert_eq!(entry.hop, Hop { port: WAN, address: ip("10.0.0.254") });
    assert!(!entry.resolved);
    let on_link = Hop { port: LAN, address: ip("10.1.0.9") };
    assert_eq!(table.resolve(on_link.address, 0), Resolution::Unresolved(on_link));
}

#[test]
fn a_neighbour_makes_a_header_ready_to_copy() {
    let mut input = two_arms();
    input.neighbours.push(neighbour(LAN, "10.1.0.11", 0x11));
    input.interfaces[1].mtu = 9000;
    let table = RouteTable::new(&input, None);
    let entry = table.hop(index_of(&table, "10.1.0.11")).unwrap();
    assert!(entry.resolved);
    assert_eq!(entry.header, [2, 0, 0, 0, 0, 0x11, 2, 0, 0, 0, 0, 0xf1, 0x08, 0x00]);
    assert_eq!(entry.mtu, 9000);
}

#[test]
fn a_changed_mac_keeps_generation_and_index() {
    let mut input = two_arms();
    input.neighbours.push(neighbour(LAN, "10.1.0.11", 0x11));
    let first = RouteTable::new(&input, None);
    input.neighbours[0].mac = mac(0x12);
    let second = RouteTable::new(&input, Some(&first));
    assert_eq!(second.generation, first.generation);
    let index = index_of(&first, "10.1.0.11");
    assert_eq!(index_of(&second, "10.1.0.11"), index);
    assert_eq!(second.hop(index).unwrap().header[5], 0x12);
}

#[test]
fn a_vanished_neighbour_waits_under_its_index() {
    let mut input = two_arms();
    input.neighbours.push(neighbour(LAN, "10.1.0.11", 0x11));
    let first = RouteTable::new(&input, None);
    let index = index_of(&first, "10.1.0.11");
    input.neighbours.clear();
    let second = RouteTable::new(&input, Some(&first));
    assert_eq!(second.generation, first.generation);
    assert!(!second.hop(index).unwrap().resolved);
    assert_eq!(second.resolve(ip("10.1.0.11"), 0), Resolution::Hop(index));
    input.neighbours.push(neighbour(LAN, "10.1.0.11", 0x13));
    let third = RouteTable::new(&input, Some(&second));
    assert_eq!(third.generation, first.generation);
    assert!(third.hop(index).unwrap().resolved);
}

#[test]
fn new_neighbours_routes_and_lost_routes_change_the_generation() {
    let mut input = two_arms();
    let first = RouteTable::new(&input, None);
    assert_eq!(RouteTable::new(&input, Some(&first)).generation, first.generation);
    input.neighbours.push(neighbour(LAN, "10.1.0.11", 0x11));
    let second = RouteTable::new(&input, Some(&first));
    assert_eq!(second.generation, first.generation + 1);
    input.routes.push(route("10.9.0.0/16", 0, &[way(LAN, Some("10.1.0.11"), 1)]));
    let third = RouteTable::new(&input, Some(&second));
    assert_eq!(third.generation, second.generation + 1);
    let index = index_of(&third, "10.9.1.1");
    assert_eq!(index, index_of(&third, "10.1.0.11"), "a gateway and an on-link neighbour are one hop");
    input.routes.retain(|route| route.destination == ip("10.0.0.0"));
    input.neighbours.clear();
    let fourth = RouteTable::new(&input, Some(&third));
    assert_eq!(fourth.generation, third.generation + 1);
    assert_eq!(fourth.hop(index), None, "no route leads there");
    assert_eq!(fourth.resolve(ip("10.1.0.11"), 0), Resolution::NoRoute);
}

#[test]
fn the_generation_wraps() {
    let previous = RouteTable { generation: u32::MAX, ..RouteTable::default() };
    assert_eq!(RouteTable::new(&two_arms(), Some(&previous)).generation, 0);
}

#[test]
fn a_blackhole_hides_shorter_prefixes_but_a_port_without_interface_does_not() {
    let mut input = two_arms();
    input.routes.push(route("192.0.2.0/24", 0, &[]));
    input.routes.push(route("198.51.100.0/24", 0, &[way(PortId(7), None, 1)]));
    let table = RouteTable::new(&input, None);
    assert_eq!(table.resolve(ip("192.0.2.1"), 0), Resolution::NoRoute);
    assert_eq!(index_of(&table, "198.51.100.1"), index_of(&table, "203.0.113.1"));
}

#[test]
fn multipath_shares_by_weight_and_keeps_flows_together() {
    let mut input = two_arms();
    input.routes[2].next_hops = vec![way(WAN, Some("10.0.0.253"), 1), way(WAN, Some("10.0.0.254"), 3)];
    let table = RouteTable::new(&input, None);
    let mut counts = [0; 2];
    for flow in 0..4096_u32 {
        let hash = flow << 20;
        let Resolution::Hop(index) = table.resolve(ip("192.0.2.1"), hash) else { panic!("no hop") };
        assert_eq!(table.resolve(ip("198.51.100.77"), hash), Resolution::Hop(index));
        counts[usize::from(table.hop(index).unwrap().hop.address == ip("10.0.0.254"))] += 1;
    }
    assert_eq!(counts, [1024, 3072]);
}

#[test]
fn local_broadcast_and_interfaces() {
    let mut input = two_arms();
    input.local.push(ip("10.0.0.1"));
    input.local.push(ip("2001:db8::1"));
    input.broadcast.push(Ipv4Addr::new(10, 0, 0, 255));
    let table = RouteTable::new(&input, None);
    assert!(table.is_local(ip("10.0.0.1")) && !table.is_local(ip("10.0.0.255")));
    assert!(table.is_local(ip("2001:db8::1")) && !table.is_local(ip("2001:db8::2")) && !table.is_local(ip("ff02::1")));
    assert!(table.is_broadcast(Ipv4Addr::new(10, 0, 0, 255)) && !table.is_broadcast(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(table.interface(LAN), Some(&interface(LAN)));
    assert_eq!(table.interface(PortId(2)), None);
    assert_eq!(table.interface(PortId(255)), None);
}

fn two_families() -> RouteInput {
    let mut input = two_arms();
    input.routes.extend([
        route("2001:db8::/64", 256, &[way(WAN, None, 1)]),
        route("2001:db8:1::/64", 256, &[way(LAN, None, 1)]),
        route("::/0", 1024, &[way(WAN, Some("fe80::1"), 1)]),
    ]);
    input
}

#[test]
fn families_have_routes_of_their_own_and_headers_that_say_which() {
    let mut input = two_families();
    input.neighbours.push(neighbour(WAN, "fe80::1", 0x21));
    input.neighbours.push(neighbour(LAN, "2001:db8:1::11", 0x11));
    let table = RouteTable::new(&input, None);
    let far = table.hop(index_of(&table, "2001:db8:ffff::1")).unwrap();
    assert_eq!(far.hop, Hop { port: WAN, address: ip("fe80::1") });
    assert_eq!(far.header, [2, 0, 0, 0, 0, 0x21, 2, 0, 0, 0, 0, 0xf0, 0x86, 0xdd]);
    let near = table.hop(index_of(&table, "2001:db8:1::11")).unwrap();
    assert_eq!(near.header, [2, 0, 0, 0, 0, 0x11, 2, 0, 0, 0, 0, 0xf1, 0x86, 0xdd]);
    let unresolved = Hop { port: LAN, address: ip("2001:db8:1::12") };
    assert_eq!(table.resolve(unresolved.address, 0), Resolution::Unresolved(unresolved));
    assert_eq!(table.hop(index_of(&table, "192.0.2.1")).unwrap().hop.address, ip("10.0.0.254"));
    assert_eq!(table.hops_left_out(), 0);

    input.routes.retain(|route| route.destination.is_ipv4());
    assert_eq!(RouteTable::new(&input, Some(&table)).resolve(ip("2001:db8::9"), 0), Resolution::NoRoute);
}

#[test]
fn an_ipv6_gateway_carries_both_families_each_under_a_header_of_its_own() {
    let mut input = two_families();
    input.routes[2] = route("0.0.0.0/0", 0, &[way(WAN, Some("fe80::1"), 1)]);
    let gateway = Hop { port: WAN, address: ip("fe80::1") };
    let first = RouteTable::new(&input, None);
    let (ipv4, ipv6) = (index_of(&first, "192.0.2.1"), index_of(&first, "2001:db8:9::1"));
    assert_ne!(ipv4, ipv6);
    assert!(!first.hop(ipv4).unwrap().resolved && first.hop(ipv4).unwrap().hop == gateway);

    input.neighbours.push(neighbour(WAN, "fe80::1", 0x21));
    let second = RouteTable::new(&input, Some(&first));
    assert_eq!(second.generation, first.generation, "the hops were known, and are known by the same indices");
    let header = |index| second.hop(index).filter(|entry| entry.resolved).unwrap().header;
    assert_eq!(header(ipv4)[..12], header(ipv6)[..12]);
    assert_eq!((&header(ipv4)[12..], &header(ipv6)[12..]), (&[8, 0][..], &[0x86, 0xdd][..]));

    // Without IPv6 routes through it, its entry for IPv6 packets comes with the neighbour.
    input.routes.retain(|route| route.destination.is_ipv4());
    input.neighbours.clear();
    let third = RouteTable::new(&input, None);
    assert!(!third.hop(third.hop_index(gateway).unwrap()).unwrap().resolved);
    input.neighbours.push(neighbour(WAN, "fe80::1", 0x21));
    let fourth = RouteTable::new(&input, Some(&third));
    assert!(fourth.hop(fourth.hop_index(gateway).unwrap()).unwrap().resolved);
    assert!(fourth.hop(index_of(&fourth, "192.0.2.1")).unwrap().resolved);
}

#[test]
fn one_link_local_address_behind_two_ports_is_two_hops() {
    let mut input = two_families();
    input.routes.push(route("2001:db8:5::/48", 1024, &[way(LAN, Some("fe80::1"), 1)]));
    input.neighbours = vec![neighbour(WAN, "fe80::1", 0x21), neighbour(LAN, "fe80::1", 0x22)];
    let table = RouteTable::new(&input, None);
    let mac_towards = |destination| table.hop(index_of(&table, destination)).unwrap().header[5];
    assert_eq!((mac_towards("2001:db8:4::1"), mac_towards("2001:db8:5::1")), (0x21, 0x22));
}

/// Neighbours 10.x.y.z numbered from `first`.
fn crowd(first: u32, count: u32) -> Vec<Neighbour> {
    let address = |n: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n));
    (first..first + count).map(|n| Neighbour { hop: Hop { port: LAN, address: address(n) }, mac: mac(1) }).collect()
}

#[test]
fn a_full_table_leaves_out_what_is_new_and_reuses_what_nobody_wants() {
    let mut input = RouteInput {
        routes: vec![route("10.0.0.0/8", 0, &[way(LAN, None, 1)])],
        interfaces: vec![interface(LAN)],
        ..RouteInput::default()
    };
    input.neighbours = crowd(0, 65_540);
    let full = RouteTable::new(&input, None);
    assert_eq!(full.hops_left_out(), 5);
    assert_eq!(full.hops().count(), MAX_HOPS);
    assert_eq!(full.hop(HopIndex(u16::MAX)), None);
    let left_out = Hop { port: LAN, address: ip("10.1.0.3") };
    assert_eq!(full.resolve(left_out.address, 0), Resolution::Unresolved(left_out));

    let kept = index_of(&full, "10.0.0.200");
    input.neighbours = crowd(100, 65_440);
    let reused = RouteTable::new(&input, Some(&full));
    assert_eq!(reused.hops_left_out(), 0);
    assert_ne!(reused.generation, full.generation);
    assert_eq!(index_of(&reused, "10.0.0.200"), kept);
    let entry = reused.hop(index_of(&reused, "10.1.0.3")).unwrap();
    assert!(entry.resolved && entry.hop == left_out);
}

/// What [`RouteTable::resolve`] must find, by trying every route.
fn naive(input: &RouteInput, destination: IpAddr) -> Vec<Hop> {
    let usable = |port: PortId| input.interfaces.iter().any(|interface| interface.port == port);
    let covers = |route: &&RouteEntry| match (route.destination, destination) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let bits = u32::from(network) ^ u32::from(address);
            u64::from(bits) >> (32 - route.prefix_len) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            (network.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(route.prefix_len)
        }
        _ => false,
    };
    let mut best: Option<&RouteEntry> = None;
    for route in input.routes.iter().filter(covers) {
        if !route.next_hops.is_empty() && !route.next_hops.iter().any(|hop| usable(hop.port)) {
            continue;
        }
        let better = |old: &RouteEntry| {
            route.prefix_len > old.prefix_len || route.prefix_len == old.prefix_len && route.metric < old.metric
        };
        if best.is_none_or(better) {
            best = Some(route);
        }
    }
    let next_hops = best.map_or(&[][..], |route| &route.next_hops);
    let hop = |next: &RouteNextHop| Hop { port: next.port, address: next.gateway.unwrap_or(destination) };
    next_hops.iter().filter(|next| usable(next.port)).map(hop).collect()
}

/// Few distinct addresses, so that routes, neighbours and destinations meet.
fn ipv4() -> impl Strategy<Value = IpAddr> {
    (0..4_u8, 0..3_u8, prop_oneof![0..6_u8, 250..=255_u8]).prop_map(|(a, b, c)| Ipv4Addr::new(10, a, b * 127, c).into())
}

/// The same, differing in bits all over the address.
fn ipv6() -> impl Strategy<Value = IpAddr> {
    (0..2_u16, 0..3_u16, prop_oneof![0..6_u16, 0xfffa..=0xffff_u16])
        .prop_map(|(a, b, c)| Ipv6Addr::new(0x2001, 0xdb8, a << 15, 0, b * 0x7fff, 0, 0, c).into())
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![ipv4(), ipv6()]
}

fn port() -> impl Strategy<Value = PortId> {
    (0..4_u8).prop_map(PortId)
}

/// A route to `destination`; gateways of IPv4 routes may be of either family.
fn route_to(destination: IpAddr) -> impl Strategy<Value = RouteEntry> {
    let (gateway, longest) = if destination.is_ipv4() { (address().boxed(), 32_u8) } else { (ipv6().boxed(), 128) };
    let next_hop = (port(), proptest::option::of(gateway), 1..257_u16)
        .prop_map(|(port, gateway, weight)| RouteNextHop { port, gateway, weight });
    (0..=longest, 0..3_u32, proptest::collection::vec(next_hop, 0..4))
        .prop_map(move |(prefix_len, metric, next_hops)| RouteEntry { destination, prefix_len, metric, next_hops })
}

fn any_route() -> impl Strategy<Value = RouteEntry> {
    address().prop_flat_map(route_to)
}

fn any_input() -> impl Strategy<Value = RouteInput> {
    let neighbour = (port(), address(), any::<u8>())
        .prop_map(|(port, address, last)| Neighbour { hop: Hop { port, address }, mac: mac(last) });
    (
        proptest::collection::vec(any_route(), 0..20),
        proptest::collection::vec(neighbour, 0..20),
        proptest::collection::hash_set(0..4_u8, 0..5),
    )
        .prop_map(|(routes, neighbours, ports)| RouteInput {
            routes,
            neighbours,
            interfaces: ports.into_iter().map(|port| interface(PortId(port))).collect(),
            ..RouteInput::default()
        })
}

proptest! {
    #[test]
    fn resolves_as_the_naive_model_and_keeps_its_word_about_indices(
        inputs in proptest::collection::vec(any_input(), 1..5),
        destinations in proptest::collection::vec((address(), any::<u32>()), 1..20),
    ) {
        let mut previous = RouteTable::default();
        for input in &inputs {
            let table = RouteTable::new(input, Some(&previous));
            for &(destination, hash) in &destinations {
                let expected = naive(input, destination);
                let resolution = table.resolve(destination, hash);
                match resolution {
                    Resolution::NoRoute => prop_assert!(expected.is_empty()),
                    Resolution::Unresolved(hop) => {
                        prop_assert!(expected.contains(&hop));
                        prop_assert!(!input.neighbours.iter().any(|neighbour| neighbour.hop == hop));
                        prop_assert!(hop.address == destination, "gateways have an entry");
                    }
                    Resolution::Hop(index) => {
                        let entry = table.hop(index).unwrap();
                        prop_assert!(expected.contains(&entry.hop));
                        let known = input.neighbours.iter().rfind(|neighbour| neighbour.hop == entry.hop);
                        prop_assert_eq!(entry.resolved, known.is_some());
                        prop_assert_eq!(&entry.header[..6], &known.map(|known| known.mac).unwrap_or_default().0);
                        prop_assert_eq!(entry.header[12..] == [8, 0], destination.is_ipv4());
                    }
                }
                if table.generation == previous.generation {
                    prop_assert_eq!(resolution, previous.resolve(destination, hash));
                }
            }
            if table.generation == previous.generation {
                for index in (0..200).map(HopIndex) {
                    let hop = |table: &RouteTable| table.hop(index).map(|entry| entry.hop);
                    prop_assert_eq!(hop(&table), hop(&previous));
                }
            }
            previous = table;
        }
    }
}
