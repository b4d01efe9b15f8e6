//! Source NAT, packet in, packet out, without DPDK. Expected bytes and checksums come from etherparse.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "forwarding/any.rs"]
#[allow(dead_code, reason = "not every test looks at everything")]
mod any;
#[path = "forwarding/dual.rs"]
#[allow(dead_code, reason = "not every test looks at everything")]
mod dual;
#[path = "forwarding/lab.rs"]
#[allow(dead_code, reason = "not every test looks at everything")]
mod lab;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use any::{Any, read};
use etherparse::{Ipv4HeaderSlice, PacketBuilder};
use fullgate::balance::{
    ForwardingMode, LocalAddress, LocalAddressSlot, LocalPool, PortRange, Protocol, RealServer, RealServerSlot,
    Selector, ServiceTable, SnatRule,
};
use fullgate::flow::ownership::Ownership;
use fullgate::forward::{DropReason, Hop, PuntClass, Steering, Verdict};
use fullgate::port::{PortId, WorkerId};
use fullgate::route::{Neighbour, RouteEntry, RouteInput, RouteNextHop};
use lab::{CLIENT_MAC, Gateway, LAN, LAN_MAC, NEIGHBOURS, PORTS, SERVER_MAC, WAN, WAN_MAC, routes};

const INSIDE: Ipv4Addr = lab::SERVER;
const OUTSIDE: Ipv4Addr = lab::CLIENT;
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 200);
const INSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x11);
const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const LOCAL6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x200);
/// The slot of the first rule.
const SLOT: usize = 5;

/// The same for TCP alone.
fn tcp_rule(source: &str) -> SnatRule {
    let all = rule(source);
    SnatRule { selector: Selector { protocol: Some(Protocol::Tcp), ..all.selector }, ..all }
}

/// A rule for all that comes from a network.
fn rule(source: &str) -> SnatRule {
    SnatRule {
        selector: Selector { source: Some(source.parse().unwrap()), ..Selector::default() },
        pool: 1,
        slot: RealServerSlot(SLOT as u32),
        cursor: 20,
    }
}

fn pool(port: PortId, ports: PortRange) -> LocalPool {
    let address = |slot, address: IpAddr| vec![LocalAddress { slot: LocalAddressSlot(slot), address }];
    LocalPool { name: "wan".into(), port, ports, ipv4: address(2, LOCAL.into()), ipv6: address(3, LOCAL6.into()) }
}

/// These rules, whose addresses are on `wan`, beside a UDP service in FULLNAT mode.
fn services(snat: Vec<SnatRule>) -> ServiceTable {
    let service = lab::service(Protocol::Udp, vec![lab::server(0, INSIDE, 1)]);
    let mut services = ServiceTable { snat, ..lab::table(vec![service], PORTS) };
    services.pools.push(pool(WAN, PORTS));
    services.local_addresses.insert(LOCAL.into(), LocalAddressSlot(2));
    services.local_addresses.insert(LOCAL6.into(), LocalAddressSlot(3));
    services.local_address_ports = vec![LAN, LAN, WAN, WAN];
    services
}

fn both() -> ServiceTable {
    let ipv6 = SnatRule { slot: RealServerSlot(6), cursor: 21, ..rule("2001:db8:1::/64") };
    services(vec![rule("10.1.0.0/24"), ipv6])
}

fn both_routes() -> RouteInput {
    let mut input = routes(&NEIGHBOURS, 1500);
    for (port, network) in
        [(WAN, Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0)), (LAN, Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0))]
    {
        let next_hops = vec![RouteNextHop { port, gateway: None, weight: 1 }];
        input.routes.push(RouteEntry { destination: network.into(), prefix_len: 64, metric: 0, next_hops });
    }
    input.local.extend([IpAddr::from(LOCAL), LOCAL6.into()]);
    for (port, address, mac) in [(WAN, OUTSIDE6, CLIENT_MAC), (LAN, INSIDE6, SERVER_MAC)] {
        input.neighbours.push(Neighbour { hop: Hop { port, address: address.into() }, mac });
    }
    input
}

fn gateway_with(services: ServiceTable, routes: &RouteInput) -> Gateway {
    let mut gateway = Gateway::new(services.clone());
    gateway.adopt(services, routes);
    gateway
}

fn gateway(services: ServiceTable) -> Gateway {
    gateway_with(services, &both_routes())
}

/// From inside to port 443 of the other side.
fn question<'a>(payload: &'a [u8]) -> Any<'a> {
    Any {
        macs: (SERVER_MAC, LAN_MAC),
        source: (INSIDE, 50_000).into(),
        destination: (OUTSIDE, 443).into(),
        ttl: 64,
        payload,
    }
}

fn question6<'a>(payload: &'a [u8]) -> Any<'a> {
    Any { source: (INSIDE6, 50_000).into(), destination: (OUTSIDE6, 443).into(), ..question(payload) }
}

fn answer<'a>(question: &Any<'_>, local: SocketAddr, payload: &'a [u8]) -> Any<'a> {
    Any { macs: (CLIENT_MAC, WAN_MAC), source: question.destination, destination: local, ttl: 60, payload }
}

fn build(protocol: Protocol, packet: &Any<'_>, flags: &str) -> Vec<u8> {
    match protocol {
        Protocol::Tcp => packet.tcp(flags),
        Protocol::Udp | Protocol::Icmp | Protocol::Any => packet.udp(),
        Protocol::Sctp => packet.sctp(flags),
    }
}

/// Sends a packet that must be forwarded to the outside; the local address and port that it has then.
fn sent_out(gateway: &mut Gateway, packet: &[u8]) -> SocketAddr {
    let (verdict, out) = gateway.send(LAN, packet);
    assert_eq!(verdict, Verdict::Transmit(WAN));
    read(&out).source
}

#[test]
fn there_and_back() {
    let cases = [(question(b"question"), LOCAL.into(), SLOT), (question6(b"question"), IpAddr::from(LOCAL6), 6)];
    for ((question, local, slot), protocol) in cases
        .into_iter()
        .flat_map(|case| [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| (case, protocol)))
    {
        let mut gateway = gateway(both());
        for _again in 0..2 {
            let (verdict, out) = gateway.send(LAN, &build(protocol, &question, "S"));
            assert_eq!(verdict, Verdict::Transmit(WAN));
            let source = read(&out).source;
            assert_eq!(source.ip(), local);
            let expected = Any { macs: (WAN_MAC, CLIENT_MAC), source, ttl: 63, ..question };
            assert_eq!(out, build(protocol, &expected, "S"));
            let (verdict, out) = gateway.send(WAN, &build(protocol, &answer(&question, source, b"answer"), "SA"));
            assert_eq!(verdict, Verdict::Transmit(LAN));
            let expected = Any {
                macs: (LAN_MAC, SERVER_MAC),
                source: question.destination,
                destination: question.source,
                ttl: 59,
                payload: b"answer",
            };
            assert_eq!(out, build(protocol, &expected, "SA"));
        }
        let counters = gateway.counters[0].clone();
        let own = &counters.real_servers[slot];
        assert_eq!((own.connections.get(), own.inbound.packets.get(), own.outbound.packets.get()), (1, 2, 2));
        let mut sessions = Vec::with_capacity(16);
        let mut next = Some(0);
        while let Some(from) = next {
            next = gateway.forwarder.walk_sessions(from, 10_000, gateway.now, &mut sessions);
        }
        let [session] = sessions[..] else { panic!("{sessions:?}") };
        assert_eq!((session.mode, session.client, session.virtual_), ("snat", question.source, question.destination));
        assert_eq!((session.local.map(|local| local.ip()), session.real), (Some(local), question.destination));
        let ports_used = || counters.local_addresses.iter().map(|own| own.ports_used.get()).sum::<u64>();
        assert_eq!(ports_used(), 1);
        gateway.pass_seconds(1000);
        assert_eq!((ports_used(), own.active.get() + own.inactive.get()), (0, 0));
    }
}

#[test]
fn what_no_rule_is_for_is_not_forwarded() {
    let not_local = Verdict::Drop(DropReason::NotLocal);
    let selector = Selector {
        source: Some("10.1.0.8/29".parse().unwrap()),
        destination: Some("10.0.0.0/30".parse().unwrap()),
        protocol: Some(Protocol::Udp),
        destination_port: Some(PortRange { first: 440, last: 443 }),
        port: Some(LAN),
    };
    let narrow = SnatRule { selector, ..rule("10.1.0.0/24") };
    let mut gateway = gateway(services(vec![narrow]));
    let good = question(b"");
    let to = |address, port| Any { destination: (address, port).into(), ..good };
    assert_eq!(gateway.send(LAN, &good.tcp("S")).0, not_local);
    assert_eq!(gateway.send(LAN, &to(OUTSIDE, 444).udp()).0, not_local);
    assert_eq!(gateway.send(LAN, &to(Ipv4Addr::new(10, 0, 0, 4), 443).udp()).0, not_local);
    let other = Any { source: (Ipv4Addr::new(10, 1, 0, 16), 50_000).into(), ..good };
    assert_eq!(gateway.send(LAN, &other.udp()).0, not_local);
    let entered_elsewhere = Any { macs: (SERVER_MAC, WAN_MAC), ..good };
    assert_eq!(gateway.send(WAN, &entered_elsewhere.udp()).0, not_local);
    assert_eq!(gateway.counters[0].sessions.get(), 0);
    assert_eq!(gateway.send(LAN, &good.udp()).0, Verdict::Transmit(WAN));
}

#[test]
fn nothing_goes_where_the_pools_port_does_not_lead_nor_off_its_link() {
    let mut routes = both_routes();
    let next_hops = vec![RouteNextHop { port: LAN, gateway: None, weight: 1 }];
    let other_inside = Ipv4Addr::new(10, 2, 0, 0);
    routes.routes.push(RouteEntry { destination: other_inside.into(), prefix_len: 24, metric: 0, next_hops });
    let mut gateway = gateway_with(services(vec![rule("0.0.0.0/0"), rule("::/0")]), &routes);
    let to = |address: IpAddr| Any { destination: (address, 443).into(), ..question(b"") };
    let verdict = |gateway: &mut Gateway, packet: &Any<'_>| gateway.send(LAN, &packet.udp()).0;
    let not_local = Verdict::Drop(DropReason::NotLocal);
    assert_eq!(verdict(&mut gateway, &to(Ipv4Addr::new(10, 2, 0, 9).into())), not_local, "another inside network");
    assert_eq!(verdict(&mut gateway, &to(Ipv4Addr::new(192, 0, 2, 1).into())), not_local, "no route");
    assert_eq!(verdict(&mut gateway, &to(Ipv4Addr::new(169, 254, 0, 1).into())), not_local);
    let broadcast = to(Ipv4Addr::new(10, 0, 0, 255).into());
    assert_eq!(verdict(&mut gateway, &broadcast), Verdict::Punt(PuntClass::Multicast));
    let link_local = Any { source: ("fe80::1".parse::<IpAddr>().unwrap(), 1).into(), ..question6(b"") };
    assert_eq!(verdict(&mut gateway, &link_local), not_local);
    assert_eq!(gateway.counters[0].sessions_created.get(), 0);
}

#[test]
fn the_first_rule_that_matches_counts() {
    let first = SnatRule { slot: RealServerSlot(6), cursor: 21, ..tcp_rule("10.1.0.0/16") };
    let mut gateway = gateway(services(vec![first, rule("10.1.0.0/24"), rule("10.1.0.0/16")]));
    sent_out(&mut gateway, &question(b"").udp());
    sent_out(&mut gateway, &question(b"").tcp("S"));
    let connections = [6, SLOT].map(|slot| gateway.counters[0].real_servers[slot].connections.get());
    assert_eq!(connections, [1, 1]);
}

#[test]
fn services_and_own_addresses_come_first() {
    let mut gateway = gateway(services(vec![rule("10.1.0.0/24")]));
    let to = |address: Ipv4Addr, port| Any { destination: (address, port).into(), ..question(b"") };
    let (verdict, out) = gateway.send(LAN, &to(lab::VIP, 80).udp());
    assert_eq!(verdict, Verdict::Transmit(LAN), "the service's");
    assert_eq!(read(&out).source.ip(), IpAddr::from(lab::LIP));
    assert_eq!(gateway.send(LAN, &to(lab::VIP, 81).udp()).0, Verdict::Punt(PuntClass::Virtual));
    assert_eq!(gateway.send(LAN, &to(Ipv4Addr::new(10, 0, 0, 1), 53).udp()).0, Verdict::Punt(PuntClass::Local));
    let local = to(LOCAL, 5000).udp();
    assert_eq!(gateway.send(LAN, &local).0, Verdict::Drop(DropReason::LocalAddressNoSession));
}

#[test]
fn tcp_begins_with_a_syn_and_is_followed() {
    let mut gateway = gateway(both());
    let (verdict, out) = gateway.send(LAN, &question(b"late").tcp("A"));
    assert_eq!(verdict, Verdict::Transmit(LAN), "a reset");
    assert_eq!((read(&out).source, read(&out).destination), (question(b"").destination, question(b"").source));
    assert_eq!((gateway.counters[0].resets_sent.get(), gateway.counters[0].sessions.get()), (1, 0));
    assert_eq!(gateway.send(LAN, &question(b"").tcp("R")).0, Verdict::Drop(DropReason::NoSession));

    let local = sent_out(&mut gateway, &question(b"").tcp("S"));
    gateway.send(WAN, &answer(&question(b""), local, b"").tcp("SA"));
    gateway.send(LAN, &question(b"").tcp("A"));
    let own = |gateway: &Gateway| {
        let own = &gateway.counters[0].real_servers[SLOT];
        (own.active.get(), own.inactive.get())
    };
    assert_eq!(own(&gateway), (1, 0));
    gateway.pass_seconds(800);
    assert_eq!(own(&gateway), (1, 0));
    gateway.send(LAN, &question(b"").tcp("FA"));
    gateway.send(WAN, &answer(&question(b""), local, b"").tcp("FA"));
    gateway.pass_seconds(130);
    assert_eq!(own(&gateway), (0, 0));
}

#[test]
fn both_directions_find_their_worker() {
    let mut owners = std::collections::HashSet::new();
    for port in 50_000..50_032 {
        let mut gateways = [0, 1].map(|worker| {
            let mut gateway = Gateway::with(both(), 2, WorkerId(worker), 100);
            gateway.adopt(both(), &both_routes());
            gateway
        });
        let question = Any { source: (INSIDE, port).into(), ..question(b"?") };
        let owner = match gateways[0].send(LAN, &question.udp()).0 {
            Verdict::HandOver(owner) => owner,
            other => {
                assert_eq!(other, Verdict::Transmit(WAN));
                WorkerId(0)
            }
        };
        let other = 1 - owner.index();
        assert_eq!(gateways[other].send(LAN, &question.udp()).0, Verdict::HandOver(owner));
        let local = sent_out(&mut gateways[owner.index()], &question.udp());
        let back = answer(&question, local, b"!").udp();
        assert_eq!(gateways[other].send(WAN, &back).0, Verdict::HandOver(owner));
        assert_eq!(gateways[owner.index()].send(WAN, &back).0, Verdict::Transmit(LAN));
        owners.insert(owner.0);
    }
    assert_eq!(owners.len(), 2, "both workers own some");
}

/// What a real server in NAT mode answers must still find its session where rules for source NAT match it too.
#[test]
fn answers_in_nat_mode_keep_their_way() {
    let nat = || {
        let real = RealServer { mode: ForwardingMode::Nat, ..lab::server(0, INSIDE, 1) };
        let mut service = lab::service(Protocol::Udp, vec![real]);
        service.owned_by_client = true;
        let nat_servers = [(Protocol::Udp, SocketAddr::from((INSIDE, 8080)))].into_iter().collect();
        ServiceTable { services: vec![service], has_nat: true, nat_servers, ..both() }
    };
    for port in 40_000..40_016 {
        let mut gateways = [0, 1].map(|worker| {
            let mut gateway = Gateway::with(nat(), 2, WorkerId(worker), 100);
            gateway.adopt(nat(), &both_routes());
            gateway
        });
        let from_client = lab::Spec { source: (OUTSIDE, port), ..lab::from_client(b"?") }.udp();
        let owner = match gateways[0].send(WAN, &from_client).0 {
            Verdict::HandOver(owner) => owner.index(),
            _ => 0,
        };
        gateways[owner].send(WAN, &from_client);
        let back = Any { source: (INSIDE, 8080).into(), destination: (OUTSIDE, port).into(), ..question(b"!") }.udp();
        assert_eq!(gateways[1 - owner].send(LAN, &back).0, Verdict::HandOver(WorkerId(owner as u8)));
        let (verdict, out) = gateways[owner].send(LAN, &back);
        assert_eq!(verdict, Verdict::Transmit(WAN));
        assert_eq!(read(&out).source, SocketAddr::from((lab::VIP, 80)));
    }
}

#[test]
fn sessions_of_a_removed_rule_end_and_those_of_a_changed_one_stay() {
    let mut gateway = gateway(both());
    let local = sent_out(&mut gateway, &question(b"").udp());
    let changed = services(vec![rule("10.9.0.0/24")]);
    gateway.adopt(changed, &both_routes());
    assert_eq!(sent_out(&mut gateway, &question(b"").udp()), local);
    let mut removed = services(vec![]);
    removed.real_server_present[SLOT] = false;
    gateway.adopt(removed, &both_routes());
    assert_eq!(gateway.send(LAN, &question(b"").udp()).0, Verdict::Drop(DropReason::RealServerRemoved));
}

#[test]
fn errors_about_packets_come_from_the_gateway_itself() {
    let mut routes = both_routes();
    routes.interfaces[WAN.index()].mtu = 1000;
    let mut gateway = gateway_with(both(), &routes);
    let dying = Any { ttl: 1, ..question(b"x") };
    let (verdict, out) = gateway.send(LAN, &dying.udp());
    assert_eq!(verdict, Verdict::Transmit(LAN));
    let header = Ipv4HeaderSlice::from_slice(&out[14..]).unwrap();
    assert_eq!((header.source_addr(), header.destination_addr()), (Ipv4Addr::new(10, 1, 0, 1), INSIDE));
    assert_eq!(out[34..36], [11, 0], "time exceeded");
    let large = [0; 1100];
    let (verdict, out) = gateway.send(LAN, &question(&large).udp());
    assert_eq!((verdict, &out[34..36]), (Verdict::Transmit(LAN), &[3, 4][..]), "fragmentation needed");
    assert_eq!(out[40..42], 1000_u16.to_be_bytes());
}

#[test]
fn a_used_up_pool_is_counted() {
    let mut one = services(vec![rule("10.1.0.0/24")]);
    one.pools[1] = pool(WAN, PortRange { first: 5000, last: 5000 });
    let mut gateway = gateway(one);
    assert_eq!(sent_out(&mut gateway, &question(b"").udp()), SocketAddr::from((LOCAL, 5000)));
    let second = Any { source: (INSIDE, 50_001).into(), ..question(b"") };
    assert_eq!(gateway.send(LAN, &second.udp()).0, Verdict::Drop(DropReason::LocalPortsExhausted));
    let elsewhere = Any { destination: (OUTSIDE, 444).into(), ..second };
    assert_eq!(sent_out(&mut gateway, &elsewhere.udp()), SocketAddr::from((LOCAL, 5000)), "another destination");
}

/// With a default route over two ports, a flow gets an address of the port that it leaves by.
#[test]
fn several_ways_out_each_have_their_pool() {
    let mut routes = both_routes();
    let hop = |port, gateway: Ipv4Addr| RouteNextHop { port, gateway: Some(gateway.into()), weight: 1 };
    let next_hops = vec![hop(WAN, OUTSIDE), hop(LAN, INSIDE)];
    routes.routes.push(RouteEntry { destination: Ipv4Addr::UNSPECIFIED.into(), prefix_len: 0, metric: 0, next_hops });
    let by_lan = SnatRule { pool: 0, cursor: 21, ..rule("10.1.0.0/24") };
    let mut gateway = gateway_with(services(vec![rule("10.1.0.0/24"), by_lan]), &routes);
    let mut ways = std::collections::HashSet::new();
    for port in 50_000..50_064 {
        let far = Any {
            source: (INSIDE, port).into(),
            destination: (Ipv4Addr::new(192, 0, 2, 1), 443).into(),
            ..question(b"")
        };
        for _again in 0..2 {
            let (verdict, out) = gateway.send(LAN, &far.udp());
            let expected = if verdict == Verdict::Transmit(WAN) { LOCAL } else { lab::LIP };
            assert_eq!(read(&out).source.ip(), IpAddr::from(expected), "{verdict:?}");
            ways.insert(expected);
        }
    }
    assert_eq!(ways.len(), 2);
}

/// An echo message of either family: a request or a reply, with this identifier.
fn echo(packet: &Any<'_>, is_request: bool, identifier: u16) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(packet.macs.0.0, packet.macs.1.0);
    let mut bytes = Vec::new();
    match (packet.source.ip(), packet.destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let step = ethernet.ipv4(from.octets(), to.octets(), packet.ttl);
            let step = match is_request {
                true => step.icmpv4_echo_request(identifier, 7),
                false => step.icmpv4_echo_reply(identifier, 7),
            };
            step.write(&mut bytes, packet.payload).unwrap();
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let step = ethernet.ipv6(from.octets(), to.octets(), packet.ttl);
            let step = match is_request {
                true => step.icmpv6_echo_request(identifier, 7),
                false => step.icmpv6_echo_reply(identifier, 7),
            };
            step.write(&mut bytes, packet.payload).unwrap();
        }
        other => panic!("{other:?}"),
    }
    bytes
}

/// The source and the identifier of an echo message.
fn source_of_echo(frame: &[u8]) -> (IpAddr, u16) {
    let sliced = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
    let source = match sliced.net.as_ref().unwrap() {
        etherparse::NetSlice::Ipv4(ip) => ip.header().source_addr().into(),
        etherparse::NetSlice::Ipv6(ip) => IpAddr::from(ip.header().source_addr()),
        other => panic!("{other:?}"),
    };
    let at = if source.is_ipv4() { 14 + 20 + 4 } else { 14 + 40 + 4 };
    (source, u16::from_be_bytes([frame[at], frame[at + 1]]))
}

fn source_of_fragment(frame: &[u8]) -> IpAddr {
    match frame[14] >> 4 {
        4 => Ipv4HeaderSlice::from_slice(&frame[14..]).unwrap().source_addr().into(),
        _ => etherparse::Ipv6HeaderSlice::from_slice(&frame[14..]).unwrap().source_addr().into(),
    }
}

/// Cuts what is behind the IP header of a frame into pieces of so many bytes.
fn pieces(frame: &[u8], size: usize, id: u16) -> Vec<Vec<u8>> {
    let is_ipv4 = frame[14] >> 4 == 4;
    let header_len = if is_ipv4 { 20 } else { 40 };
    let (front, data) = frame.split_at(14 + header_len);
    let count = data.len().div_ceil(size);
    let piece = |(index, part): (usize, &[u8])| {
        let (mut front, more) = (front.to_vec(), u8::from(index + 1 < count));
        let place = ((index * size) as u16).to_be_bytes();
        if is_ipv4 {
            front[16..18].copy_from_slice(&((20 + part.len()) as u16).to_be_bytes());
            front[18..20].copy_from_slice(&id.to_be_bytes());
            front[20..22].copy_from_slice(&((index * size / 8) as u16 | u16::from(more) << 13).to_be_bytes());
            let header = Ipv4HeaderSlice::from_slice(&front[14..]).unwrap().to_header();
            front[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
        } else {
            front[18..20].copy_from_slice(&((8 + part.len()) as u16).to_be_bytes());
            let next = std::mem::replace(&mut front[20], 44);
            front.extend([next, 0, place[0], place[1] | more, 0, 0]);
            front.extend(id.to_be_bytes());
        }
        [&front[..], part].concat()
    };
    data.chunks(size).enumerate().map(piece).collect()
}

fn echo_cases() -> [(Any<'static>, IpAddr); 2] {
    [(question(b"ping"), LOCAL.into()), (question6(b"ping"), IpAddr::from(LOCAL6))]
}

fn only_session(gateway: &Gateway) -> fullgate::session::SessionView {
    let mut sessions = Vec::with_capacity(16);
    let mut next = Some(0);
    while let Some(from) = next {
        next = gateway.forwarder.walk_sessions(from, 10_000, gateway.now, &mut sessions);
    }
    let [session] = sessions[..] else { panic!("{sessions:?}") };
    session
}

#[test]
fn echo_messages_go_there_and_back_with_another_identifier() {
    for (question, local) in echo_cases() {
        let mut gateway = gateway(both());
        let mut seen = None;
        for _again in 0..2 {
            let (verdict, out) = gateway.send(LAN, &echo(&question, true, 1234));
            assert_eq!(verdict, Verdict::Transmit(WAN));
            let (source, identifier) = source_of_echo(&out);
            assert_eq!((source, identifier >= 1024), (local, true));
            assert_eq!(*seen.get_or_insert(identifier), identifier, "the session's");
            let expected = Any { macs: (WAN_MAC, CLIENT_MAC), source: (local, 0).into(), ttl: 63, ..question };
            assert_eq!(out, echo(&expected, true, identifier));
            let reply = answer(&question, (local, 0).into(), b"ping");
            let (verdict, out) = gateway.send(WAN, &echo(&reply, false, identifier));
            assert_eq!(verdict, Verdict::Transmit(LAN));
            let back = Any {
                macs: (LAN_MAC, SERVER_MAC),
                source: question.destination,
                destination: question.source,
                ttl: 59,
                ..question
            };
            assert_eq!(out, echo(&back, false, 1234));
        }
        let session = only_session(&gateway);
        assert_eq!((session.protocol, session.state, session.client.port()), (Protocol::Icmp, "ICMP", 1234));
        gateway.pass_seconds(20);
        assert_eq!(gateway.counters[0].sessions.get() + gateway.counters[0].ipv6_sessions.get(), 1);
        gateway.pass_seconds(15);
        assert_eq!(gateway.counters[0].sessions.get() + gateway.counters[0].ipv6_sessions.get(), 0);
    }
}

#[test]
fn echo_messages_that_no_session_is_for_are_the_hosts_or_nobodys() {
    for (question, local) in echo_cases() {
        let mut gateway = gateway(both());
        let class = if local.is_ipv4() { PuntClass::Icmp } else { PuntClass::Ipv6 };
        let to_local = answer(&question, (local, 0).into(), b"");
        assert_eq!(gateway.send(WAN, &echo(&to_local, true, 5000)).0, Verdict::Punt(class), "the kernel answers");
        assert_eq!(gateway.send(WAN, &echo(&to_local, false, 5000)).0, Verdict::Punt(class), "a reply to nothing");
        let reply = echo(&question, false, 9);
        assert_eq!(gateway.send(LAN, &reply).0, Verdict::Drop(DropReason::NotLocal), "a reply begins nothing");
        gateway.send(LAN, &echo(&question, true, 0));
        assert_eq!(gateway.send(LAN, &echo(&question, false, 0)).0, Verdict::Drop(DropReason::NotLocal));
        let (_, out) = gateway.send(LAN, &echo(&question, true, 0));
        let identifier = source_of_echo(&out).1;
        let (_, out) = gateway.send(WAN, &echo(&to_local, false, identifier));
        assert_eq!(source_of_echo(&out).1, 0, "identifier 0 is one like others");
        assert_eq!(gateway.send(WAN, &echo(&to_local, true, identifier)).0, Verdict::Punt(class), "no reply");
        let tcp = services(vec![tcp_rule("10.1.0.0/24"), tcp_rule("2001:db8:1::/64")]);
        gateway.adopt(tcp, &both_routes());
        assert_eq!(gateway.send(LAN, &echo(&question, true, 77)).0, Verdict::Drop(DropReason::NotLocal), "TCP's rule");
    }
}

/// A router outside cannot send the request on: the error's quotation has what the host inside has sent.
#[test]
fn errors_about_echo_requests_reach_who_sent_them() {
    for (question, local) in echo_cases() {
        let mut gateway = gateway(both());
        let request = echo(&Any { ttl: 60, ..question }, true, 1234);
        let (_, out) = gateway.send(LAN, &request);
        let kind = if local.is_ipv4() { (11, 0, [0; 4]) } else { (3, 0, [0; 4]) };
        let router = question.destination.ip();
        let error = dual::error((CLIENT_MAC, WAN_MAC), (router, local), 64, kind, &out[14..]);
        let (verdict, out) = gateway.send(WAN, &error);
        assert_eq!(verdict, Verdict::Transmit(LAN));
        let mut quote = request[14..].to_vec();
        // The quoted packet has the TTL with which it left.
        let (at, is_ipv4) = if local.is_ipv4() { (8, true) } else { (7, false) };
        quote[at] = 59;
        if is_ipv4 {
            let header = Ipv4HeaderSlice::from_slice(&quote).unwrap().to_header();
            quote[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
        }
        let header_len = if is_ipv4 { 20 } else { 40 };
        assert_eq!(out[14 + header_len + 8..], quote);
        let expected = dual::error((LAN_MAC, SERVER_MAC), (router, question.source.ip()), 63, kind, &quote);
        let checksum_at = 14 + header_len + 2;
        assert_eq!(out[checksum_at..checksum_at + 2], expected[checksum_at..checksum_at + 2]);
    }
}

#[test]
fn fragments_follow_their_first_one_both_ways() {
    let long = vec![b'x'; 3000];
    for (question, local) in echo_cases() {
        let question = Any { payload: &long, ..question };
        for is_echo in [true, false] {
            let mut gateway = gateway(both());
            let whole = if is_echo { echo(&question, true, 1234) } else { question.udp() };
            let parts = pieces(&whole, 1400, 99);
            let mut identifier = 0;
            for (index, part) in parts.iter().enumerate() {
                let (verdict, out) = gateway.send(LAN, part);
                assert_eq!(verdict, Verdict::Transmit(WAN), "{index} {is_echo} {local}");
                assert_eq!(source_of_fragment(&out), local);
                if index == 0 {
                    let at = out.len() - 1400 + if is_echo { 4 } else { 0 };
                    identifier = u16::from_be_bytes([out[at], out[at + 1]]);
                }
            }
            let back = answer(&question, (local, identifier).into(), &long);
            let whole = if is_echo { echo(&back, false, identifier) } else { back.udp() };
            let mut data = Vec::<u8>::new();
            for part in pieces(&whole, 1400, 7) {
                let (verdict, out) = gateway.send(WAN, &part);
                assert_eq!(verdict, Verdict::Transmit(LAN));
                data.extend(&out[14 + if local.is_ipv4() { 20 } else { 48 }..]);
            }
            let expected = Any { source: question.destination, destination: question.source, ..back };
            let whole = if is_echo { echo(&expected, false, 1234) } else { expected.udp() };
            assert_eq!(data, whole[14 + if local.is_ipv4() { 20 } else { 40 }..], "as if sent whole");
            assert_eq!(gateway.counters[0].fragments_forwarded.get(), 6);
            only_session(&gateway);
        }
    }
}

/// Where RSS deals whole packets to workers, fragments go to the one that has their flow's session.
#[test]
fn two_workers_agree_on_echo_messages_and_fragments() {
    let long = vec![b'x'; 2000];
    let mut owners = std::collections::HashSet::new();
    for steering in [Steering::Software, Steering::Rss] {
        for identifier in 1..24 {
            let mut gateways = [0, 1].map(|worker| {
                let ownership = Ownership::in_turn(2);
                let mut gateway = Gateway::built((ownership, steering), both(), 2, WorkerId(worker), 100);
                gateway.adopt(both(), &both_routes());
                gateway
            });
            let request = echo(&question(b"?"), true, identifier);
            let owner = match gateways[0].send(LAN, &request).0 {
                Verdict::HandOver(owner) => owner.index(),
                other => {
                    assert_eq!(other, Verdict::Transmit(WAN));
                    0
                }
            };
            owners.insert(owner);
            assert_eq!(gateways[1 - owner].send(LAN, &request).0, Verdict::HandOver(WorkerId(owner as u8)));
            let (_, out) = gateways[owner].send(LAN, &request);
            let (source, changed) = source_of_echo(&out);
            let reply = echo(&answer(&question(b"?"), (source, 0).into(), b"?"), false, changed);
            assert_eq!(gateways[1 - owner].send(WAN, &reply).0, Verdict::HandOver(WorkerId(owner as u8)));
            assert_eq!(gateways[owner].send(WAN, &reply).0, Verdict::Transmit(LAN));
            // A datagram in pieces: it is gathered somewhere, and goes out by the same session.
            let parts = pieces(&echo(&question(&long), true, identifier), 1400, 5 + identifier);
            let (mut at, mut verdict) = (0, gateways[0].send(LAN, &parts[0]).0);
            while let Verdict::HandOver(to) = verdict {
                at = to.index();
                verdict = gateways[at].send_as(LAN, &parts[0], fullgate::forward::Origin::HandedOver).0;
            }
            assert_eq!((at, verdict), (owner, Verdict::Transmit(WAN)));
            assert_eq!(gateways[owner].counters[owner].sessions.get(), 1);
        }
    }
    assert_eq!(owners.len(), 2);
}
