//! The kernel twin and its mirror against the real kernel, each test in a network namespace of its own. Needs root;
//! without it the tests say so and do nothing.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod ipv6;

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fullgate::config::{Device, InterfaceAddress, PortConfig, PortSteering, RouteConfig};
use fullgate::control::mirror::{Mirror, MirroredPort};
use fullgate::control::pump;
use fullgate::control::twin::{Twin, TwinPort};
use fullgate::control::wake::{EventFd, Sleeper};
use fullgate::forward::DropReason;
use fullgate::forward::{Hop, PuntClass};
use fullgate::port::memory::MemoryFrame;
use fullgate::port::{Frame, MacAddress, PortId, WorkerId};
use fullgate::route::{Resolution, RouteInput, RouteNextHop, RouteTable};
use fullgate::telemetry::counters::{SlotLimits, WorkerCounters};
use fullgate::worker::link::{Punt, Waker, WorkerLink};
use tokio::sync::watch;
use tokio::task::JoinSet;

const WAN: PortId = PortId(0);
const LAN: PortId = PortId(1);
const WAN_MAC: MacAddress = MacAddress([2, 0xf, 0, 0, 0, 1]);
const LAN_MAC: MacAddress = MacAddress([2, 0xf, 0, 0, 0, 2]);
const NEIGHBOUR_MAC: MacAddress = MacAddress([2, 0xa, 0, 0, 0, 9]);

/// How long a change may take to show.
const SOON: Duration = Duration::from_secs(1);

/// Set in the process that a test starts in its namespace.
const INSIDE: &str = "FULLGATE_TEST_INSIDE_NAMESPACE";

/// Runs the body of the test `name` in a new network namespace, which ends with it.
fn in_namespace<F: Future<Output = ()>>(name: &str, body: impl FnOnce() -> F) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(body());
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("{name}: skipped, it needs root");
        return;
    }
    let status = Command::new("unshare")
        .args(["--net", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed in its namespace");
}

/// Runs `ip` with these words.
fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ipv4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn with_prefix(text: &str) -> InterfaceAddress {
    let (address, prefix_len) = text.split_once('/').unwrap();
    InterfaceAddress { address: address.parse().unwrap(), prefix_len: prefix_len.parse().unwrap() }
}

fn to(to: &str, via: Option<&str>, metric: Option<u32>) -> RouteConfig {
    RouteConfig { to: with_prefix(to), via: via.map(|via| via.parse().unwrap()), metric }
}

fn port_config(name: &str, addresses: &[&str], routes: &[RouteConfig]) -> PortConfig {
    PortConfig {
        name: name.to_owned(),
        device: Device::Vdev(format!("net_null_{name}")),
        members: Vec::new(),
        vlan: None,
        mac: None,
        tap: format!("fg-{name}"),
        addresses: addresses.iter().map(|text| with_prefix(text)).collect(),
        routes: routes.to_vec(),
        mtu: None,
        queues: None,
        rx_descriptors: 512,
        tx_descriptors: 512,
        promiscuous: false,
        mss_clamp: fullgate::balance::MssClamp::Off,
        steering: PortSteering::Auto,
        link_timeout_milliseconds: 0,
    }
}

fn wan_config() -> PortConfig {
    port_config("wan", &["10.0.0.1/24"], &[to("0.0.0.0/0", Some("10.0.0.254"), Some(7))])
}

fn lan_config() -> PortConfig {
    port_config("lan", &["10.1.0.1/24", "2001:db8:1::1/64"], &[to("2001:db8:2::/48", Some("2001:db8:1::fe"), None)])
}

type Links = Arc<[Arc<WorkerLink<MemoryFrame, EventFd>>]>;

/// Two ports with their twins, a mirror, and two workers that the test plays.
struct Lab {
    mirror: Mirror,
    input: watch::Receiver<Arc<RouteInput>>,
    links: Links,
    counters: Arc<WorkerCounters>,
    _tasks: JoinSet<()>,
}

impl Lab {
    async fn new() -> Self {
        Self::of(twin(&wan_config(), &lan_config()).await).await
    }

    async fn of(twin: Twin) -> Self {
        let waker = Arc::new(Waker::new(EventFd::new().unwrap()));
        let limits = SlotLimits { real_servers: 1, local_addresses: 1 };
        let links: Links = [WorkerId(0), WorkerId(1)]
            .map(|worker| {
                let counters = Arc::new(WorkerCounters::new(limits));
                Arc::new(WorkerLink::new(worker, counters, Arc::clone(&waker)))
            })
            .into();
        let counters = Arc::new(WorkerCounters::new(SlotLimits { real_servers: 0, local_addresses: 0 }));
        let ports: Vec<MirroredPort> =
            twin.taps().map(|(port, tap, mtu)| MirroredPort { port, ifindex: tap.ifindex(), mtu }).collect();
        let mirror = Mirror::start(&ports).await.unwrap();
        let tasks = Self::pump(twin, &links, &counters, waker);
        Self { input: mirror.subscribe(), mirror, links, counters, _tasks: tasks }
    }

    /// Moves frames as the control thread does.
    fn pump(twin: Twin, links: &Links, counters: &Arc<WorkerCounters>, waker: Arc<Waker<EventFd>>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let source = Arc::new(|bytes: &[u8]| Some(MemoryFrame::new(bytes)));
        for (port, tap, mtu) in twin.taps() {
            let (tap, links, counters) = (Arc::clone(tap), Arc::clone(links), Arc::clone(counters));
            let source = Arc::clone(&source);
            tasks.spawn(async move { drop(pump::inject(tap, port, mtu, links, source, counters).await) });
        }
        let taps: Vec<_> = twin.taps().map(|(_, tap, _)| Arc::clone(tap)).collect();
        let (links, counters) = (Arc::clone(links), Arc::clone(counters));
        let sleeper = Sleeper::new(waker).unwrap();
        tasks.spawn(async move {
            // The twin lives as long as its frames are moved.
            let _twin = twin;
            loop {
                sleeper.woken(|| links.iter().any(|link| !link.punts.is_empty())).await.unwrap();
                while pump::write_punts(&taps, &links, &counters) > 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
        tasks
    }

    /// Waits until what the mirror shows satisfies `condition`; panics after [`SOON`].
    async fn until(&mut self, what: &str, condition: impl Fn(&RouteInput) -> bool) {
        let started = Instant::now();
        let seen = tokio::time::timeout(SOON, self.input.wait_for(|input| condition(input))).await.map(drop);
        assert!(seen.is_ok(), "{what} does not show; this does: {:#?}", self.input.borrow());
        eprintln!("{what}: {:?}", started.elapsed());
    }

    /// Gives the kernel a frame as if it came in by `port`.
    fn punt(&self, port: PortId, class: PuntClass, bytes: &[u8]) {
        let link = &self.links[0];
        link.punts.push(Punt { port, class, frame: MemoryFrame::new(bytes) }).unwrap();
        link.waker.wake();
    }

    /// The first frame that the kernel sends out of `port` and that `wanted` takes; none after `patience`.
    async fn sent(&self, port: PortId, patience: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        until_some(patience, || {
            self.links.iter().find_map(|link| {
                let sent = link.injects.pop()?;
                (sent.port == port && wanted(sent.frame.bytes())).then(|| sent.frame.bytes().to_vec())
            })
        })
        .await
    }

    /// Whether a ping of `target` from `client` behind `port` is answered.
    async fn ping(&self, port: PortId, port_mac: MacAddress, client: Ipv4Addr, target: Ipv4Addr) -> bool {
        self.punt(port, PuntClass::Icmp, &echo_request(port_mac, client, target));
        let is_reply = |frame: &[u8]| {
            frame.len() > 34 && frame[12..14] == [8, 0] && frame[26..30] == target.octets() && frame[34] == 0
        };
        let Some(reply) = self.sent(port, SOON, is_reply).await else { return false };
        assert_eq!(reply[..12], [NEIGHBOUR_MAC.0, port_mac.0].concat()[..]);
        assert_eq!(reply[30..34], client.octets());
        true
    }
}

/// Tries every millisecond until there is something, or `patience` is over.
async fn until_some<T>(patience: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let attempts = async {
        loop {
            match attempt() {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    tokio::time::timeout(patience, attempts).await.ok()
}

async fn twin(wan: &PortConfig, lan: &PortConfig) -> Twin {
    Twin::create(&[
        TwinPort { port: WAN, config: wan, mac: WAN_MAC, mtu: 1500 },
        TwinPort { port: LAN, config: lan, mac: LAN_MAC, mtu: 9000 },
    ])
    .await
    .unwrap()
}

fn is_arp_request(frame: &[u8], target: Ipv4Addr) -> bool {
    frame.len() >= 42 && frame[12..14] == [8, 6] && frame[20..22] == [0, 1] && frame[38..42] == target.octets()
}

fn arp(operation: u8, to: MacAddress, sender: (MacAddress, Ipv4Addr), target: (MacAddress, Ipv4Addr)) -> Vec<u8> {
    let mut frame = [to.0, sender.0.0].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    for (mac, address) in [sender, target] {
        frame.extend(mac.0);
        frame.extend(address.octets());
    }
    frame
}

/// The answer to an ARP request, from `mac`.
fn arp_reply(request: &[u8], mac: MacAddress) -> Vec<u8> {
    let asker_mac = MacAddress(request[22..28].try_into().unwrap());
    let octets = |range: std::ops::Range<usize>| Ipv4Addr::from(<[u8; 4]>::try_from(&request[range]).unwrap());
    arp(2, asker_mac, (mac, octets(38..42)), (asker_mac, octets(28..32)))
}

fn echo_request(to: MacAddress, client: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(NEIGHBOUR_MAC.0, to.0)
        .ipv4(client.octets(), target.octets(), 64)
        .icmpv4_echo_request(77, 1)
        .write(&mut frame, b"are you there")
        .unwrap();
    frame
}

fn way(port: PortId, gateway: Option<&str>, weight: u16) -> RouteNextHop {
    RouteNextHop { port, gateway: gateway.map(address), weight }
}

fn route_is(input: &RouteInput, destination: &str, prefix_len: u8, metric: u32, next_hops: &[RouteNextHop]) -> bool {
    input.routes.iter().any(|route| {
        route.destination == address(destination)
            && route.prefix_len == prefix_len
            && route.metric == metric
            && route.next_hops == next_hops
    })
}

fn has_route(input: &RouteInput, destination: &str) -> bool {
    input.routes.iter().any(|route| route.destination == address(destination))
}

fn mac_of(input: &RouteInput, port: PortId, neighbour: &str) -> Option<MacAddress> {
    let hop = Hop { port, address: address(neighbour) };
    input.neighbours.iter().find(|neighbour| neighbour.hop == hop).map(|neighbour| neighbour.mac)
}

#[test]
fn the_configuration_is_on_the_taps_and_goes_with_them() {
    in_namespace("the_configuration_is_on_the_taps_and_goes_with_them", || async {
        let twin = twin(&wan_config(), &lan_config()).await;
        let wan = ip("address show dev fg-wan");
        assert!(wan.contains("mtu 1500") && wan.contains("UP") && wan.contains("02:0f:00:00:00:01"), "{wan}");
        assert!(wan.contains("inet 10.0.0.1/24"), "{wan}");
        let lan = ip("address show dev fg-lan");
        assert!(lan.contains("mtu 9000") && lan.contains("02:0f:00:00:00:02"), "{lan}");
        assert!(lan.contains("inet 10.1.0.1/24") && lan.contains("inet6 2001:db8:1::1/64"), "{lan}");
        let routes = ip("route show");
        assert!(routes.contains("default via 10.0.0.254 dev fg-wan proto static metric 7"), "{routes}");
        let routes = ip("-6 route show");
        assert!(routes.contains("2001:db8:2::/48 via 2001:db8:1::fe dev fg-lan"), "{routes}");
        for (file, value) in [("conf/fg-wan/arp_ignore", "1"), ("conf/fg-lan/rp_filter", "2")] {
            let content = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{file}")).unwrap();
            assert_eq!(content.trim(), value, "{file}");
        }
        drop(twin);
        assert!(!ip("link show").contains("fg-"), "TAPs are left behind");
    });
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_left_behind() {
    in_namespace("what_is_wrong_is_said_and_nothing_is_left_behind", || async {
        let refusal = async |wan: &PortConfig| {
            let ports = [TwinPort { port: WAN, config: wan, mac: WAN_MAC, mtu: 1500 }];
            let error = Twin::create(&ports).await.unwrap_err().to_string();
            eprintln!("{error}");
            error
        };
        ip("link add fg-wan type veth peer name other");
        let error = refusal(&wan_config()).await;
        assert!(error.contains("\"wan\"") && error.contains("\"fg-wan\"") && error.contains("already"), "{error}");
        ip("link delete fg-wan");
        ip("tuntap add fg-wan mode tap");
        let error = refusal(&wan_config()).await;
        assert!(error.contains("already"), "a persistent TAP of somebody else: {error}");
        ip("link delete fg-wan");

        let far = port_config("wan", &["10.0.0.1/24"], &[to("0.0.0.0/0", Some("192.0.2.1"), None)]);
        let error = refusal(&far).await;
        assert!(error.contains("0.0.0.0/0 via 192.0.2.1") && error.contains("subnet"), "{error}");
        let twice = port_config("wan", &["10.0.0.1/24", "10.0.0.1/24"], &[]);
        let error = refusal(&twice).await;
        assert!(error.contains("10.0.0.1/24") && error.contains("fg-wan"), "{error}");
        let route = to("192.0.2.0/24", Some("10.0.0.254"), None);
        let error = refusal(&port_config("wan", &["10.0.0.1/24"], &[route, route])).await;
        assert!(error.contains("`metric`"), "{error}");
        let mut long = wan_config();
        long.tap = "fg-wan-much-too-long".to_owned();
        let error = refusal(&long).await;
        assert!(error.contains("15 bytes"), "{error}");
        assert!(!ip("link show").contains("fg-"), "TAPs are left behind");
    });
}

#[test]
fn routes_and_addresses_are_followed() {
    in_namespace("routes_and_addresses_are_followed", || async {
        let mut lab = Lab::new().await;
        lab.until("what was configured", |input| {
            let of_ipv4: Vec<_> = input.local.iter().copied().filter(IpAddr::is_ipv4).collect();
            of_ipv4 == ["10.0.0.1", "10.1.0.1"].map(address)
                && input.broadcast == ["10.0.0.255", "10.1.0.255"].map(ipv4)
                && route_is(input, "0.0.0.0", 0, 7, &[way(WAN, Some("10.0.0.254"), 1)])
                && route_is(input, "10.1.0.0", 24, 0, &[way(LAN, None, 1)])
                && input.interfaces.len() == 2
                && input.interfaces[1].mac == LAN_MAC
                && input.interfaces[1].mtu == 9000
                && input.interfaces[1].address == Some(ipv4("10.1.0.1"))
        })
        .await;
        follow_routes(&mut lab).await;
        follow_addresses_and_links(&mut lab).await;

        ip("link add other type veth peer name another");
        ip("link set other up");
        ip("link set another up");
        ip("address add 172.16.0.1/24 dev other");
        ip("route add 172.17.0.0/16 via 172.16.0.2");
        ip("route add 192.0.2.128/25 via 10.1.0.9");
        lab.until("the last change", |input| has_route(input, "192.0.2.128")).await;
        let input = lab.input.borrow().clone();
        assert!(!has_route(&input, "172.16.0.0") && !has_route(&input, "172.17.0.0"), "another device's routes");
        assert!(!input.local.contains(&address("172.16.0.1")), "another device's address");

        ip("link delete fg-wan");
        lab.until("a deleted TAP", |input| {
            !input.interfaces.iter().any(|interface| interface.port == WAN) && !has_route(input, "10.0.0.0")
        })
        .await;
        ip("address add 10.7.0.1/16 dev fg-lan");
        lab.until("the other TAP's change", |input| input.local.contains(&address("10.7.0.1"))).await;
    });
}

async fn follow_routes(lab: &mut Lab) {
    let leads = |destination: &'static str, metric: u32, ways: Vec<RouteNextHop>| {
        move |input: &RouteInput| {
            let (destination, prefix_len) = destination.split_once('/').unwrap();
            route_is(input, destination, prefix_len.parse().unwrap(), metric, &ways)
        }
    };
    ip("route add 192.0.2.0/24 via 10.1.0.9");
    lab.until("a new route", leads("192.0.2.0/24", 0, vec![way(LAN, Some("10.1.0.9"), 1)])).await;
    ip("route replace 192.0.2.0/24 via 10.1.0.10");
    lab.until("another gateway", leads("192.0.2.0/24", 0, vec![way(LAN, Some("10.1.0.10"), 1)])).await;
    ip("route add 192.0.2.0/24 via 10.0.0.9 metric 50");
    lab.until("a second metric", leads("192.0.2.0/24", 50, vec![way(WAN, Some("10.0.0.9"), 1)])).await;
    ip("route replace default metric 7 nexthop via 10.0.0.253 weight 3 nexthop via 10.0.0.252 weight 1");
    let both = vec![way(WAN, Some("10.0.0.253"), 3), way(WAN, Some("10.0.0.252"), 1)];
    lab.until("two ways", leads("0.0.0.0/0", 7, both)).await;
    ip("route add blackhole 198.51.100.0/24");
    lab.until("a blackhole", leads("198.51.100.0/24", 0, vec![])).await;
    ip("nexthop add id 5 via 10.1.0.77 dev fg-lan");
    ip("route add 203.0.113.0/24 nhid 5");
    lab.until("a next-hop object", leads("203.0.113.0/24", 0, vec![way(LAN, Some("10.1.0.77"), 1)])).await;
    ip("nexthop replace id 5 via 10.1.0.78 dev fg-lan");
    lab.until("its change", leads("203.0.113.0/24", 0, vec![way(LAN, Some("10.1.0.78"), 1)])).await;
    ip("route delete 192.0.2.0/24 via 10.1.0.10");
    let still = leads("192.0.2.0/24", 0, vec![way(LAN, Some("10.1.0.10"), 1)]);
    lab.until("a deleted route", |input| !still(input)).await;
}

async fn follow_addresses_and_links(lab: &mut Lab) {
    ip("address add 10.7.0.1/16 dev fg-lan");
    lab.until("a new address", |input| {
        input.local.contains(&address("10.7.0.1"))
            && input.broadcast.contains(&ipv4("10.7.255.255"))
            && route_is(input, "10.7.0.0", 16, 0, &[way(LAN, None, 1)])
    })
    .await;
    ip("address delete 10.7.0.1/16 dev fg-lan");
    lab.until("a deleted address", |input| {
        !input.local.contains(&address("10.7.0.1")) && !has_route(input, "10.7.0.0")
    })
    .await;
    ip("link set fg-lan mtu 1400");
    lab.until("a smaller MTU", |input| input.interfaces[1].mtu == 1400).await;
    ip("link set fg-lan down");
    lab.until("a TAP set down", |input| {
        !input.interfaces.iter().any(|interface| interface.port == LAN) && !has_route(input, "10.1.0.0")
    })
    .await;
    ip("link set fg-lan up");
    lab.until("and up again", |input| input.interfaces.len() == 2 && has_route(input, "10.1.0.0")).await;
}

#[test]
fn neighbours_are_followed() {
    in_namespace("neighbours_are_followed", || async {
        let mut lab = Lab::new().await;
        let is = |last: u8| {
            move |input: &RouteInput| mac_of(input, LAN, "10.1.0.11") == Some(MacAddress([2, 0xa, 0, 0, 0, last]))
        };
        ip("neigh add 10.1.0.11 lladdr 02:0a:00:00:00:01 dev fg-lan nud permanent");
        lab.until("a permanent neighbour", is(1)).await;
        ip("neigh replace 10.1.0.11 lladdr 02:0a:00:00:00:02 dev fg-lan nud permanent");
        lab.until("its new address", is(2)).await;
        ip("neigh delete 10.1.0.11 dev fg-lan");
        lab.until("a deleted neighbour", |input| mac_of(input, LAN, "10.1.0.11").is_none()).await;

        // Asked for before the mirror can have seen that it is permanent.
        ip("neigh add 10.1.0.11 lladdr 02:0a:00:00:00:03 dev fg-lan nud permanent");
        lab.mirror.resolve(Hop { port: LAN, address: address("10.1.0.11") });
        lab.mirror.resolve(Hop { port: LAN, address: address("10.1.0.12") });
        assert!(lab.sent(LAN, SOON, |frame| is_arp_request(frame, ipv4("10.1.0.12"))).await.is_some());
        let neighbours = ip("neigh show dev fg-lan");
        assert!(neighbours.contains("10.1.0.11 lladdr 02:0a:00:00:00:03 PERMANENT"), "{neighbours}");
    });
}

#[test]
fn the_kernel_resolves_what_the_data_path_needs() {
    in_namespace("the_kernel_resolves_what_the_data_path_needs", || async {
        let mut lab = Lab::new().await;
        let server = ipv4("10.1.0.11");
        let hop = Hop { port: LAN, address: server.into() };
        let table = RouteTable::new(&lab.input.borrow(), None);
        assert_eq!(table.resolve(server, 0), Resolution::Unresolved(hop));

        for _ in 0..100 {
            lab.mirror.resolve(hop);
        }
        let question = lab.sent(LAN, SOON, |frame| is_arp_request(frame, server)).await.unwrap();
        assert_eq!(question[..12], [MacAddress::BROADCAST.0, LAN_MAC.0].concat()[..]);
        assert_eq!(question[28..32], ipv4("10.1.0.1").octets(), "asked from the address in its subnet");
        lab.punt(LAN, PuntClass::Arp, &arp_reply(&question, NEIGHBOUR_MAC));
        lab.until("the answer", |input| mac_of(input, LAN, "10.1.0.11") == Some(NEIGHBOUR_MAC)).await;
        let table = RouteTable::new(&lab.input.borrow(), Some(&table));
        let Resolution::Hop(index) = table.resolve(server, 0) else { panic!("not resolved") };
        assert_eq!(table.hop(index).unwrap().header[..12], [NEIGHBOUR_MAC.0, LAN_MAC.0].concat()[..]);

        // A server that silently comes back with another card: nothing refreshes the kernel's entry but us.
        ip("neigh change 10.1.0.11 lladdr 02:0a:00:00:00:09 dev fg-lan nud stale");
        let to_all = |frame: &[u8]| is_arp_request(frame, server) && frame[0..6] == MacAddress::BROADCAST.0;
        let started = Instant::now();
        let question =
            lab.sent(LAN, 15 * SOON, to_all).await.expect("a stale neighbour is asked for, in the end all are");
        eprintln!("asked everyone: {:?}", started.elapsed());
        assert_eq!(mac_of(&lab.input.borrow(), LAN, "10.1.0.11"), Some(NEIGHBOUR_MAC), "valid until then");
        let other = MacAddress([2, 0xa, 0, 0, 0, 0x77]);
        lab.punt(LAN, PuntClass::Arp, &arp_reply(&question, other));
        lab.until("the other card", |input| mac_of(input, LAN, "10.1.0.11") == Some(other)).await;
        assert_eq!(
            lab.counters.drops[DropReason::PuntRefused as usize].get()
                + lab.counters.drops[DropReason::InjectFull as usize].get(),
            0
        );
    });
}

#[test]
fn a_neighbour_that_never_answers_can_be_asked_for_again() {
    in_namespace("a_neighbour_that_never_answers_can_be_asked_for_again", || async {
        let mut lab = Lab::new().await;
        let server = ipv4("10.1.0.12");
        let hop = Hop { port: LAN, address: server.into() };
        lab.mirror.resolve(hop);
        let asked = |frame: &[u8]| is_arp_request(frame, server);
        assert!(lab.sent(LAN, SOON, asked).await.is_some());
        let failed = || ip("neigh show dev fg-lan").contains("10.1.0.12 FAILED").then_some(());
        until_some(10 * SOON, failed).await.expect("the kernel gives up");
        while lab.links.iter().any(|link| link.injects.pop().is_some()) {}
        lab.mirror.resolve(hop);
        let question = lab.sent(LAN, SOON, asked).await.expect("it is asked for again");
        lab.punt(LAN, PuntClass::Arp, &arp_reply(&question, NEIGHBOUR_MAC));
        lab.until("the late answer", |input| mac_of(input, LAN, "10.1.0.12") == Some(NEIGHBOUR_MAC)).await;
    });
}

#[test]
fn local_addresses_come_and_go_and_nobody_elses_do() {
    in_namespace("local_addresses_come_and_go_and_nobody_elses_do", || async {
        let mut twin = twin(&wan_config(), &lan_config()).await;
        // There already with another prefix: left alone, now and when it is removed.
        twin.add_local_address(LAN, address("10.1.0.1")).await.unwrap();
        twin.remove_local_address(LAN, address("10.1.0.1")).await.unwrap();
        twin.add_local_address(LAN, address("10.1.0.200")).await.unwrap();
        twin.add_local_address(LAN, address("10.1.0.200")).await.unwrap();
        assert!(ip("address show dev fg-lan").contains("inet 10.1.0.200/32"));
        twin.remove_local_address(LAN, address("10.1.0.200")).await.unwrap();
        let lan = ip("address show dev fg-lan");
        assert!(lan.contains("10.1.0.1/24") && !lan.contains("10.1.0.1/32") && !lan.contains("10.1.0.200"), "{lan}");
        // Removed by hand meanwhile.
        twin.add_local_address(LAN, address("10.1.0.201")).await.unwrap();
        ip("address delete 10.1.0.201/32 dev fg-lan");
        twin.remove_local_address(LAN, address("10.1.0.201")).await.unwrap();
        let error = twin.add_local_address(PortId(9), address("10.1.0.1")).await.unwrap_err().to_string();
        assert!(error.contains('9'), "{error}");
    });
}

#[test]
fn the_kernel_answers_pings_and_arp_for_its_addresses() {
    in_namespace("the_kernel_answers_pings_and_arp_for_its_addresses", || async {
        let mut twin = twin(&wan_config(), &lan_config()).await;
        twin.add_local_address(WAN, address("10.0.0.100")).await.unwrap();
        let mut lab = Lab::of(twin).await;
        lab.until("the virtual address", |input| input.local.contains(&address("10.0.0.100"))).await;
        ip("neigh replace 10.0.0.254 lladdr 02:0a:00:00:00:09 dev fg-wan nud permanent");
        ip("neigh replace 10.0.0.50 lladdr 02:0a:00:00:00:09 dev fg-wan nud permanent");
        let client = ipv4("10.0.0.50");
        assert!(lab.ping(WAN, WAN_MAC, client, ipv4("10.0.0.1")).await, "the TAP's address");
        assert!(lab.ping(WAN, WAN_MAC, client, ipv4("10.0.0.100")).await, "the virtual address");
        assert!(lab.ping(WAN, WAN_MAC, ipv4("203.0.113.5"), ipv4("10.0.0.100")).await, "from far away");
        assert!(!lab.ping(WAN, WAN_MAC, client, ipv4("10.0.0.101")).await, "nobody's address");

        // ARP for an address of the other port is not answered, for one of this port it is.
        let ask = |target: &str| {
            arp(1, MacAddress::BROADCAST, (NEIGHBOUR_MAC, client), (MacAddress::default(), ipv4(target)))
        };
        lab.punt(WAN, PuntClass::Arp, &ask("10.1.0.1"));
        lab.punt(WAN, PuntClass::Arp, &ask("10.0.0.100"));
        let answer = lab.sent(WAN, SOON, |frame| frame[12..14] == [8, 6] && frame[20..22] == [0, 2]).await.unwrap();
        assert_eq!(answer[28..32], ipv4("10.0.0.100").octets());
        assert_eq!(answer[6..12], WAN_MAC.0);

        // A frame in several buffers arrives whole.
        let request = echo_request(WAN_MAC, client, Ipv4Addr::new(10, 0, 0, 1));
        let in_parts = Punt { port: WAN, class: PuntClass::Icmp, frame: MemoryFrame::scattered(&request, 40) };
        lab.links[0].punts.push(in_parts).unwrap();
        lab.links[0].waker.wake();
        let reply = lab.sent(WAN, SOON, |frame| frame[12..14] == [8, 0] && frame[23] == 1).await.unwrap();
        assert_eq!(reply[26..30], Ipv4Addr::new(10, 0, 0, 1).octets());

        // A TAP may be given a larger MTU than its port; what it sends then does not fit.
        ip("link set fg-wan mtu 4000");
        ip("neigh replace 10.0.0.77 lladdr 02:0a:00:00:00:09 dev fg-wan nud permanent");
        let _unanswered = Command::new("ping").args(["-c1", "-W1", "-s3000", "10.0.0.77"]).output().unwrap();
        let counted = || (lab.counters.drops[DropReason::TooBig as usize].get() == 1).then_some(());
        until_some(SOON, counted).await.expect("it is counted");

        // What the kernel does not take is counted.
        ip("link set fg-wan down");
        lab.punt(WAN, PuntClass::Icmp, &echo_request(WAN_MAC, client, ipv4("10.0.0.1")));
        lab.punt(PortId(9), PuntClass::Icmp, &echo_request(WAN_MAC, client, ipv4("10.0.0.1")));
        let counted = || (lab.counters.drops[DropReason::PuntRefused as usize].get() == 2).then_some(());
        until_some(SOON, counted).await.expect("both are counted");
    });
}

#[test]
fn many_routes_at_once_arrive_whole() {
    in_namespace("many_routes_at_once_arrive_whole", || async {
        const ROUTES: usize = 20_000;
        let mut lab = Lab::new().await;
        let lines: String =
            (0..ROUTES).map(|n| format!("route add 172.16.{}.{}/32 via 10.1.0.9\n", (n >> 8) & 255, n & 255)).collect();
        let batch = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(batch.path(), lines).unwrap();
        // The mirror does not run meanwhile: more notifications than its socket holds.
        ip(&format!("-batch {}", batch.path().display()));
        let started = Instant::now();
        let all = lab.input.wait_for(|input| input.routes.len() >= ROUTES);
        drop(tokio::time::timeout(20 * SOON, all).await.expect("all routes").unwrap());
        eprintln!("{ROUTES} routes: {:?}", started.elapsed());
        let table = RouteTable::new(&lab.input.borrow(), None);
        let Resolution::Hop(index) = table.resolve(address("172.16.78.31"), 0) else { panic!("no route") };
        assert_eq!(table.hop(index).unwrap().hop.address, address("10.1.0.9"));
        ip("link set fg-lan down");
        let none = lab.input.wait_for(|input| input.routes.len() < 10);
        drop(tokio::time::timeout(20 * SOON, none).await.expect("all gone").unwrap());
    });
}

#[test]
fn frames_that_find_no_room_are_counted() {
    in_namespace("frames_that_find_no_room_are_counted", || async {
        let lab = Lab::new().await;
        ip("neigh replace 10.1.0.9 lladdr 02:0a:00:00:00:09 dev fg-lan nud permanent");
        let socket = std::net::UdpSocket::bind("10.1.0.1:0").unwrap();
        let full = || {
            for _ in 0..64 {
                socket.send_to(b"more than the ring takes", "10.1.0.9:9").unwrap();
            }
            (lab.counters.drops[DropReason::InjectFull as usize].get() >= 100).then_some(())
        };
        until_some(10 * SOON, full).await.expect("the ring fills up");
        let link = &lab.links[usize::from(LAN.0)];
        assert_eq!(link.injects.len(), link.injects.capacity());
    });
}

/// How often this process gave up the CPU to wait.
fn waits() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn an_idle_control_thread_sleeps() {
    in_namespace("an_idle_control_thread_sleeps", || async {
        let lab = Lab::new().await;
        // A neighbour that needs no refreshing; the TAPs' IPv6 link-local addresses settle in the first seconds.
        ip("neigh add 10.1.0.11 lladdr 02:0a:00:00:00:01 dev fg-lan nud permanent");
        let mut before = waits();
        let mut quiet = async || {
            tokio::time::sleep(SOON).await;
            let woken = waits() - before;
            before += woken;
            eprintln!("woken {woken} times in a second");
            woken < 5
        };
        let asleep = async { while !quiet().await {} };
        tokio::time::timeout(20 * SOON, asleep).await.expect("one second of sleep");
        drop(lab);
    });
}
