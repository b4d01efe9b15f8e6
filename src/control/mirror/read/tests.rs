//! Messages as the kernel sends them, and what is made of them.

use rtnetlink::packet_route::route::RouteNextHop as KernelNextHop;
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder, RouteNextHopBuilder};

use super::*;

const PORTS: [MirroredPort; 2] = [
    MirroredPort { port: PortId(0), ifindex: 10, mtu: 1500 },
    MirroredPort { port: PortId(1), ifindex: 11, mtu: 1500 },
];

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn to(destination: &str, prefix_len: u8) -> RouteMessageBuilder<Ipv4Addr> {
    RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(ip(destination), prefix_len)
}

fn next_hop(ifindex: u32, gateway: &str, weight: u8) -> KernelNextHop {
    RouteNextHopBuilder::new_ipv4().interface(ifindex).via(ip(gateway).into()).unwrap().weight(weight).build()
}

fn neighbour_message(ifindex: u32, address: &str, state: NeighbourState) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    message.header.state = state;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip(address))),
        NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 9]),
    ];
    message
}

#[test]
fn a_route_via_a_gateway() {
    let message = to("192.0.2.0", 24).output_interface(11).gateway(ip("10.1.0.254")).priority(50).build();
    let expected = RouteEntry {
        destination: ip("192.0.2.0"),
        prefix_len: 24,
        metric: 50,
        next_hops: vec![RouteNextHop { port: PortId(1), gateway: Some(ip("10.1.0.254")), weight: 1 }],
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
    assert_eq!(route(&PORTS, &ours().via("2001:db8::1".parse().unwrap()).build()), None, "an IPv6 gateway");
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
    let way = |port, gateway, weight| RouteNextHop { port: PortId(port), gateway: Some(ip(gateway)), weight };
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
        AddressMessageBuilder::<Ipv4Addr>::new().index(ifindex).address(ip(address), prefix_len).build()
    };
    let addresses = [address(11, "10.9.9.9", 24), address(10, "10.0.0.100", 32), address(10, "10.0.0.1", 24)];
    let expected =
        Interface { port: PortId(0), mac: MacAddress([2, 0, 0, 0, 0, 1]), mtu: 1500, address: Some(ip("10.0.0.1")) };
    assert_eq!(interface(&PORTS[0], &link, &addresses), Some(expected));
    link.attributes[1] = LinkAttribute::Mtu(1400);
    assert_eq!(interface(&PORTS[0], &link, &addresses[..2]).unwrap().mtu, 1400);
    assert_eq!(interface(&PORTS[0], &link, &addresses[..2]).unwrap().address, Some(ip("10.0.0.100")));
    link.header.flags = LinkFlags::empty();
    assert_eq!(interface(&PORTS[0], &link, &addresses), None, "down");
}

#[test]
fn addresses_and_their_broadcasts() {
    let address = |ifindex, address, prefix_len| {
        AddressMessageBuilder::<Ipv4Addr>::new().index(ifindex).address(ip(address), prefix_len).build()
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
    assert_eq!(input.broadcast, [ip("10.0.0.255")]);
}
