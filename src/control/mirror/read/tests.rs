//! Messages as the kernel sends them, and what is made of them.

use rtnetlink::packet_route::route::RouteNextHop as KernelNextHop;
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder, RouteNextHopBuilder};

use std::net::{Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::{RouteFlags, RouteNextHopFlags, RouteType};

use super::addresses::{add_addresses, interface};
use super::routes::{anycast, route};
use super::*;
use crate::route::{Interface, RouteEntry, RouteNextHop};

const PORTS: [MirroredPort; 2] = [
    MirroredPort { port: PortId(0), ifindex: 10, mtu: 1500 },
    MirroredPort { port: PortId(1), ifindex: 11, mtu: 1500 },
];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ipv4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn ipv6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn to(destination: &str, prefix_len: u8) -> RouteMessageBuilder<Ipv4Addr> {
    RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(ipv4(destination), prefix_len)
}

fn to6(destination: &str, prefix_len: u8) -> RouteMessageBuilder<Ipv6Addr> {
    RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(ipv6(destination), prefix_len)
}

fn way(port: u8, gateway: &str, weight: u16) -> RouteNextHop {
    RouteNextHop { port: PortId(port), gateway: Some(ip(gateway)), weight }
}

fn next_hop(ifindex: u32, gateway: &str, weight: u8) -> KernelNextHop {
    RouteNextHopBuilder::new_ipv4().interface(ifindex).via(ip(gateway)).unwrap().weight(weight).build()
}

fn neighbour_message(ifindex: u32, address: &str, state: NeighbourState) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    message.header.state = state;
    let address = match ip(address) {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message.attributes =
        vec![NeighbourAttribute::Destination(address), NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 9])];
    message
}

#[test]
fn a_route_via_a_gateway() {
    let message = to("192.0.2.0", 24).output_interface(11).gateway(ipv4("10.1.0.254")).priority(50).build();
    let expected = RouteEntry {
        destination: ip("192.0.2.0"),
        prefix_len: 24,
        metric: 50,
        next_hops: vec![way(1, "10.1.0.254", 1)],
    };
    assert_eq!(route(&PORTS, &message), Some(expected));
}

#[test]
fn routes_that_do_not_concern_us() {
    let ours = || to("192.0.2.0", 24).output_interface(10);
    assert!(route(&PORTS, &ours().build()).is_some());
    assert_eq!(route(&PORTS, &to("192.0.2.0", 24).output_interface(2).build()), None, "another device");
    assert_eq!(route(&PORTS, &ours().table_id(255).build()), None, "the local table");
    assert_eq!(route(&PORTS, &ours().table_id(1000).build()), None, "a table of policy routing");
    assert_eq!(route(&PORTS, &ours().tos(16).build()), None, "for one TOS only");
    assert_eq!(route(&PORTS, &ours().kind(RouteType::Local).build()), None);
    let mut dead = ours().build();
    dead.header.flags = RouteFlags::Dead | RouteFlags::Linkdown;
    assert_eq!(route(&PORTS, &dead), None);
}

#[test]
fn routes_that_lead_nowhere() {
    for kind in [RouteType::BlackHole, RouteType::Unreachable, RouteType::Prohibit, RouteType::Throw] {
        let entry = route(&PORTS, &to("192.0.2.0", 24).kind(kind).build()).unwrap();
        assert_eq!(entry.next_hops, []);
    }
}

#[test]
fn multipath_keeps_weights_and_leaves_out_what_is_dead_or_elsewhere() {
    let mut dead = next_hop(10, "10.0.0.3", 1);
    dead.flags = RouteNextHopFlags::Linkdown;
    // The builder's weight is the kernel's: one less.
    let (light, heavy) = (next_hop(10, "10.0.0.2", 0), next_hop(11, "10.1.0.2", 255));
    let message = to("0.0.0.0", 0).multipath(vec![light, heavy, dead, next_hop(2, "172.16.0.1", 1)]).build();
    assert_eq!(route(&PORTS, &message).unwrap().next_hops, [way(0, "10.0.0.2", 1), way(1, "10.1.0.2", 256)]);
}

#[test]
fn neighbours_by_state() {
    use NeighbourState::{Delay, Failed, Incomplete, Noarp, Permanent, Probe, Reachable, Stale};
    for state in [Reachable, Stale, Delay, Probe, Permanent, Noarp] {
        let seen = neighbour(&PORTS, &neighbour_message(10, "10.0.0.2", state)).unwrap();
        assert_eq!(seen.hop, Hop { port: PortId(0), address: ip("10.0.0.2") });
        assert_eq!(seen.mac, Some(MacAddress([2, 0, 0, 0, 0, 9])));
        assert_eq!(seen.stale, state == Stale);
    }
    for state in [Failed, Incomplete, NeighbourState::None] {
        let seen = neighbour(&PORTS, &neighbour_message(10, "10.0.0.2", state)).unwrap();
        assert_eq!((seen.mac, seen.stale), (None, false));
    }
    assert_eq!(neighbour(&PORTS, &neighbour_message(2, "10.0.0.2", Reachable)), None, "another device");
    assert_eq!(neighbour(&PORTS, &neighbour_message(10, "224.0.0.5", Noarp)), None, "multicast");
}

#[test]
fn an_interface_takes_the_smaller_mtu_and_its_subnet_address() {
    let mut link = LinkMessage::default();
    link.header.flags = LinkFlags::Up;
    link.attributes = vec![LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]), LinkAttribute::Mtu(9000)];
    let address = |ifindex, address, prefix_len| {
        AddressMessageBuilder::<Ipv4Addr>::new().index(ifindex).address(ipv4(address), prefix_len).build()
    };
    let addresses = [address(11, "10.9.9.9", 24), address(10, "10.0.0.100", 32), address(10, "10.0.0.1", 24)];
    let expected = Interface {
        port: PortId(0),
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        address: Some(ipv4("10.0.0.1")),
        ipv6_address: None,
    };
    assert_eq!(interface(&PORTS[0], &link, &addresses), Some(expected));
    link.attributes[1] = LinkAttribute::Mtu(1400);
    assert_eq!(interface(&PORTS[0], &link, &addresses[..2]).unwrap().mtu, 1400);
    assert_eq!(interface(&PORTS[0], &link, &addresses[..2]).unwrap().address, Some(ipv4("10.0.0.100")));
    link.header.flags = LinkFlags::empty();
    assert_eq!(interface(&PORTS[0], &link, &addresses), None, "down");
}

#[test]
fn addresses_and_their_broadcasts() {
    let address = |ifindex, address, prefix_len| {
        AddressMessageBuilder::<Ipv4Addr>::new().index(ifindex).address(ipv4(address), prefix_len).build()
    };
    let messages = [
        address(10, "10.0.0.1", 24),
        address(10, "10.0.0.2", 24),
        address(11, "10.1.0.4", 31),
        address(11, "10.1.0.9", 32),
        address(2, "172.16.0.1", 16),
    ];
    let mut input = RouteInput::default();
    add_addresses(&mut input, &PORTS, &messages);
    assert_eq!(input.local, ["10.0.0.1", "10.0.0.2", "10.1.0.4", "10.1.0.9"].map(ip));
    assert_eq!(input.broadcast, [ipv4("10.0.0.255")]);
}

#[test]
fn ipv6_routes_lead_over_our_ports_and_link_local_networks_nowhere() {
    let message = to6("2001:db8:5::", 48).output_interface(11).gateway(ipv6("fe80::1")).priority(1024).build();
    let expected = RouteEntry {
        destination: ip("2001:db8:5::"),
        prefix_len: 48,
        metric: 1024,
        next_hops: vec![way(1, "fe80::1", 1)],
    };
    assert_eq!(route(&PORTS, &message), Some(expected));
    let default = route(&PORTS, &to6("::", 0).output_interface(10).gateway(ipv6("2001:db8::fe")).build()).unwrap();
    assert_eq!((default.destination, default.prefix_len), (ip("::"), 0));
    assert_eq!(default.next_hops, [way(0, "2001:db8::fe", 1)]);
    assert_eq!(route(&PORTS, &to6("2001:db8::", 32).kind(RouteType::Unreachable).build()).unwrap().next_hops, []);

    let ours = || to6("2001:db8:5::", 48).output_interface(10);
    assert!(route(&PORTS, &ours().build()).is_some());
    assert_eq!(route(&PORTS, &ours().table_id(255).build()), None, "the local table");
    assert_eq!(route(&PORTS, &to6("fe80::", 64).output_interface(10).build()), None, "link-local");
    assert_eq!(route(&PORTS, &ours().source_prefix(ipv6("2001:db8:6::"), 48).build()), None, "for some sources only");
}

#[test]
fn an_ipv4_route_may_lead_to_an_ipv6_gateway() {
    let message = to("192.0.2.0", 24).output_interface(10).via(ipv6("fe80::1")).build();
    assert_eq!(route(&PORTS, &message).unwrap().next_hops, [way(0, "fe80::1", 1)]);
}

#[test]
fn ipv6_neighbours() {
    let seen = neighbour(&PORTS, &neighbour_message(11, "fe80::2", NeighbourState::Stale)).unwrap();
    assert_eq!(seen.hop, Hop { port: PortId(1), address: ip("fe80::2") });
    assert!(seen.stale && seen.mac.is_some());
    assert_eq!(neighbour(&PORTS, &neighbour_message(10, "ff02::1:ff00:1", NeighbourState::Noarp)), None, "multicast");
}

#[test]
fn ipv6_addresses_count_once_the_kernel_uses_them() {
    use AddressHeaderFlags as Flags;
    let address = |address, flags: &[Flags]| {
        let mut message = AddressMessageBuilder::<Ipv6Addr>::new().index(10).address(ipv6(address), 64).build();
        flags.iter().for_each(|flag| message.header.flags |= *flag);
        message
    };
    let messages = [
        address("2001:db8::4", &[Flags::Tentative, Flags::Dadfailed]),
        address("2001:db8::3", &[Flags::Tentative, Flags::Optimistic]),
        address("2001:db8::2", &[Flags::Tentative]),
        address("2001:db8::1", &[Flags::Permanent]),
    ];
    let mut input = RouteInput::default();
    let all = add_addresses(&mut input, &PORTS, &messages);
    assert_eq!(input.local, ["2001:db8::1", "2001:db8::3"].map(ip));
    assert_eq!(input.broadcast, [] as [Ipv4Addr; 0]);
    let shown: Vec<_> = all.iter().map(ToString::to_string).collect();
    let expected = ["2001:db8::1/64", "2001:db8::2/64 (tentative)", "2001:db8::3/64", "2001:db8::4/64 (duplicate)"];
    assert_eq!(shown, expected);
    let mut link = LinkMessage::default();
    link.header.flags = LinkFlags::Up;
    assert_eq!(interface(&PORTS[0], &link, &messages).unwrap().address, None, "ICMP errors are IPv4's");
}

#[test]
fn anycast_addresses_of_our_ports_are_found() {
    let joined =
        |ifindex| to6("2001:db8::", 128).kind(RouteType::Anycast).table_id(255).output_interface(ifindex).build();
    assert_eq!(anycast(&PORTS, &joined(10)), Some(ip("2001:db8::")));
    assert_eq!(anycast(&PORTS, &joined(2)), None, "another device");
    assert!(routes::matters(&joined(10)) && route(&PORTS, &joined(10)).is_none());
}
