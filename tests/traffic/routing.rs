//! BIRD beside the gateway, with the example configuration: VIPs announced and withdrawn, routes learned and used.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::lab::bird::Bird;
use crate::lab::gateway::{pool, port};
use crate::lab::{Configuration, Gateway, Lab, Namespace, Nginx, PATIENCE, wait_for};

/// How soon what one side announces or withdraws must be in use on the other.
const SOON: Duration = Duration::from_secs(1);
const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 100);
const VIP6: &str = "2001:db8:100::100";
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 11), 80);
/// Clients behind the routers.
const FAR: &str = "198.51.100.7";
const FAR6: &str = "2001:db8:f::7";

/// dpdk-config/bird.conf with the lab's addresses and its only port.
fn gateways_bird() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dpdk-config/bird.conf");
    let mut text = std::fs::read_to_string(path).unwrap();
    for (example, lab) in [
        ("fg-wan", "fg-lan"),
        ("192.0.2.253", "10.0.0.10"),
        ("192.0.2.254", "10.0.0.20"),
        ("192.0.2.1", "10.0.0.1"),
        ("2001:db8::fd", "2001:db8::10"),
        ("2001:db8::fe", "2001:db8::20"),
    ] {
        assert!(text.contains(example), "{example} is in the example no more");
        text = text.replace(example, lab);
    }
    text
}

/// A router's: announces the addresses of its loopback, or what it is told to by `routes`.
fn routers_bird(host: u8, routes: &str) -> String {
    format!(
        "log stderr {{ warning, error, fatal }};
        router id 10.0.0.{host};
        protocol device {{ }}
        protocol direct {{ ipv4; ipv6; interface \"lo\"; }}
        {routes}
        protocol kernel {{ ipv4 {{ import none; export where source != RTS_DEVICE; }}; }}
        protocol kernel {{ ipv6 {{ import none; export where source != RTS_DEVICE; }}; }}
        protocol bfd {{ interface \"eth0\" {{ min rx interval 150 ms; min tx interval 150 ms; multiplier 3; }}; }}
        template bgp downstream {{
            local as 64500; bfd on; connect delay time 1; connect retry time 2; error wait time 1, 10;
        }}
        protocol bgp from downstream {{
            neighbor 10.0.0.1 as 64512; ipv4 {{ import all; export where source != RTS_BGP; next hop self; }};
        }}
        protocol bgp from downstream {{
            neighbor 2001:db8::1 as 64512; ipv6 {{ import all; export where source != RTS_BGP; next hop self; }};
        }}
        "
    )
}

fn configuration() -> Configuration {
    let vips = [format!("{VIP}/32"), format!("{VIP6}/128")];
    let lan = port("lan", "net_af_xdp0,iface=veth-lan", &["10.0.0.1/24", "2001:db8::1/64", &vips[0], &vips[1]]);
    let bare = Configuration { ports: lan, balance: pool("lan", "10.0.0.200"), ..Configuration::bare() };
    bare.with_service("tcp", SocketAddrV4::new(VIP, 80), "rr", &[(SERVER, 1)])
}

/// A page for a far client, by a new connection each time.
fn page(client: &Namespace) -> Option<()> {
    let mut command = client.command("curl");
    command.args(["-s", "--interface", FAR, "--connect-timeout", "0.1", "--max-time", "2", &format!("http://{VIP}/")]);
    (command.output().unwrap().stdout == b"rs0 10.0.0.200\n").then_some(())
}

fn ping6(client: &Namespace) -> Option<()> {
    let status = client.command("ping").args(["-6", "-c", "1", "-W", "0.2", "-I", FAR6, VIP6]).output().unwrap().status;
    status.success().then_some(())
}

fn route(namespace: &Namespace, to: &str) -> String {
    let family = if to.contains(':') { "-6" } else { "-4" };
    namespace.ip(&format!("{family} route show {to}"))
}

/// Waits until a condition holds, which must be so within [`SOON`], and prints how long it took.
fn within_a_second(what: &str, condition: impl FnMut() -> Option<()>) {
    let started = Instant::now();
    wait_for(what, PATIENCE, condition);
    let took = started.elapsed();
    eprintln!("{what}: {took:?}");
    assert!(took < SOON, "{what} took {took:?}");
}

/// The first router is where the clients are.
fn lab() -> (Lab, Nginx) {
    let lab = Lab::one_arm(1);
    lab.client.ipv6("eth0", "2001:db8::10/64");
    lab.client.ipv6("lo", "2001:db8:e::10/128");
    let nginx = Nginx::start(&lab.reals[0], lab.path(), "rs0", SERVER);
    (lab, nginx)
}

/// The second router; it reaches the clients through the first.
fn second_router(lab: &Lab) -> (Namespace, Bird) {
    let router = Namespace::new("router2");
    lab.plug("router2", &router, "eth0", 1);
    router.ip("addr add 10.0.0.20/24 dev eth0");
    router.ipv6("eth0", "2001:db8::20/64");
    router.enter(|| {
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{key}"), "1").unwrap();
        }
    });
    let routes = format!(
        "protocol static {{ ipv4; route {FAR}/32 via 10.0.0.10; }}
        protocol static {{ ipv6; route {FAR6}/128 via 2001:db8::10; }}"
    );
    let bird = Bird::start(&router, lab.path(), "router2", &routers_bird(20, &routes));
    (router, bird)
}

fn announced(router: &Namespace) -> Option<()> {
    let both =
        route(router, "203.0.113.100").contains("via 10.0.0.1 ") && route(router, VIP6).contains("via 2001:db8::1 ");
    both.then_some(())
}

fn withdrawn(router: &Namespace) -> Option<()> {
    (route(router, "203.0.113.100").is_empty() && route(router, VIP6).is_empty()).then_some(())
}

#[test]
fn vips_are_announced_learned_routes_used_and_both_withdrawn() {
    let (lab, _nginx) = lab();
    let mut gateway = Gateway::start(&lab, &configuration());
    let _beside = Bird::start(&lab.gateway, lab.path(), "gateway", &gateways_bird());
    let router = Bird::start(&lab.client, lab.path(), "router", &routers_bird(10, ""));
    wait_for("the VIPs at the router", PATIENCE, || announced(&lab.client));
    assert!(!route(&lab.client, "default").contains("via"), "nothing but VIPs is announced");

    // Until now the gateway knows no way back to these clients.
    lab.client.ip(&format!("addr add {FAR}/32 dev lo"));
    within_a_second("HTTP from behind the router", || page(&lab.client));
    lab.client.ip(&format!("-6 addr add {FAR6}/128 dev lo nodad"));
    within_a_second("IPv6 from behind the router", || ping6(&lab.client));

    // A VIP taken off its port is announced no more, and back there it is again.
    lab.gateway.ip(&format!("addr del {VIP}/32 dev fg-lan"));
    within_a_second("a VIP's end", || route(&lab.client, "203.0.113.100").is_empty().then_some(()));
    lab.gateway.ip(&format!("addr add {VIP}/32 dev fg-lan"));
    within_a_second("and its return", || page(&lab.client));
    lab.client.ip(&format!("addr del {FAR}/32 dev lo"));
    within_a_second("a learned route's end", || route(&lab.gateway, FAR).is_empty().then_some(()));
    lab.client.ip(&format!("addr add {FAR}/32 dev lo"));
    within_a_second("and its return", || page(&lab.client));

    // It begins after BGP, and slowly.
    wait_for("BFD in both families", PATIENCE, || {
        (router.ask("show bfd sessions").matches(" Up ").count() == 2).then_some(())
    });
    gateway.signal(Signal::KILL);
    within_a_second("the VIPs' end with their gateway", || withdrawn(&lab.client));
    gateway.wait(PATIENCE);
    let _gateway = Gateway::start(&lab, &configuration());
    wait_for("HTTP after a restart", PATIENCE, || page(&lab.client));
    wait_for("IPv6 after a restart", PATIENCE, || ping6(&lab.client));
}

#[test]
fn two_routers_share_the_traffic_and_one_may_fail() {
    let (lab, _nginx) = lab();
    lab.client.ip(&format!("addr add {FAR}/32 dev lo"));
    lab.client.ip(&format!("-6 addr add {FAR6}/128 dev lo nodad"));
    let gateway = Gateway::start(&lab, &configuration());
    let _beside = Bird::start(&lab.gateway, lab.path(), "gateway", &gateways_bird());
    let _router = Bird::start(&lab.client, lab.path(), "router", &routers_bird(10, ""));
    let (second, second_bird) = second_router(&lab);
    wait_for("the VIPs at the second router", PATIENCE, || announced(&second));
    let two_ways = |to, ways: [&str; 2]| {
        let route = route(&lab.gateway, to);
        ways.iter().all(|way| route.contains(&format!("via {way} ")))
    };
    wait_for("both routers to be used", PATIENCE, || {
        let both = two_ways(FAR, ["10.0.0.10", "10.0.0.20"]) && two_ways(FAR6, ["2001:db8::10", "2001:db8::20"]);
        both.then_some(())
    });
    let forwarded = second.snmp("Ip", "ForwDatagrams");
    wait_for("the second router's share", PATIENCE, || {
        page(&lab.client).unwrap_or_else(|| panic!("a request failed: {:?}", gateway.stats().drops));
        (second.snmp("Ip", "ForwDatagrams") > forwarded).then_some(())
    });

    drop(second_bird);
    within_a_second("the end of a router", || {
        let left = route(&lab.gateway, FAR).contains("via 10.0.0.10 ") && !two_ways(FAR, ["10.0.0.10", "10.0.0.20"]);
        left.then_some(())
    });
    wait_for("the others' traffic", SOON, || page(&lab.client));
    assert!((0..10).all(|_| page(&lab.client).is_some()));
}
