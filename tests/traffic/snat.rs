//! Source NAT with real traffic: hosts inside reach servers outside, over TCP and UDP, IPv4 and IPv6, with one worker and
//! two; rules given and taken at run time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::lab::client::get_many;
use crate::lab::gateway::port;
use crate::lab::{Configuration, Gateway, Lab, Namespace, Nginx, PATIENCE, UdpEcho, get, wait_for};

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);

const RULES: &str = "[[snat]]\nname = \"office\"\nsource = \"10.1.0.0/24\"\nlocal_pool = \"wan\"\n\n\
                     [[snat]]\nname = \"office6\"\nsource = \"2001:db8:1::/64\"\nport = \"lan\"\nlocal_pool = \"wan\"\n\n";

/// Servers on the outside, two hosts inside that have the gateway as their way there, and a pool on port `wan`.
fn lab(cores: &str) -> (Lab, (Vec<Nginx>, Vec<UdpEcho>), Configuration) {
    let lab = Lab::two_arm(2, if cores == "[0]" { 1 } else { 2 });
    lab.client.ipv6("eth0", "2001:db8::10/64");
    for (index, inside) in lab.reals.iter().enumerate() {
        inside.ipv6("eth0", &format!("2001:db8:1::{:x}/64", 0x11 + index));
        inside.ip("route add default via 10.1.0.1");
        inside.ip("-6 route add default via 2001:db8:1::1");
    }
    let ends = |port| [SocketAddr::from((OUTSIDE, port)), SocketAddr::from((OUTSIDE6, port))];
    let nginx = ends(80).map(|end| Nginx::start(&lab.client, lab.path(), if end.is_ipv4() { "v4" } else { "v6" }, end));
    let echo = ends(53).map(|end| UdpEcho::start(&lab.client, end));
    let wan = port("wan", "net_af_xdp0,iface=veth-wan", &["10.0.0.1/24", "2001:db8::1/64"]);
    let lan = port("lan", "net_af_xdp1,iface=veth-lan", &["10.1.0.1/24", "2001:db8:1::1/64"]);
    let pool = "[[local_pool]]\nname = \"wan\"\nport = \"wan\"\naddresses = [\"10.0.0.200-10.0.0.201\", \"2001:db8::200-2001:db8::201\"]\n\n";
    let configuration =
        Configuration { cores: cores.into(), ports: wan + &lan, balance: pool.into(), ..Configuration::bare() };
    (lab, (nginx.into(), echo.into()), configuration)
}

/// Sends `count` packets from as many sockets, which are all open to the end, and waits for each echo.
fn echoes(inside: &Namespace, target: SocketAddr, count: u8) {
    inside.enter(|| {
        let mut open = Vec::new();
        for number in 0..count {
            let any: IpAddr =
                if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket.connect(target).unwrap();
            socket.send(&[number]).unwrap();
            let mut buffer = [0; 16];
            assert_eq!(socket.recv(&mut buffer).unwrap(), 1);
            assert_eq!(buffer[0], number);
            open.push(socket);
        }
    });
}

#[test]
fn hosts_inside_reach_servers_outside() {
    for cores in ["[0]", "[0, 1]"] {
        let (lab, (_nginx, echo), mut configuration) = lab(cores);
        configuration.balance += RULES;
        let gateway = Gateway::start(&lab, &configuration);
        let is_local = |source: &str| source.starts_with("10.0.0.20") || source.starts_with("2001:db8::20");
        for inside in &lab.reals {
            for (end, name) in [(IpAddr::from(OUTSIDE), "v4"), (OUTSIDE6.into(), "v6")] {
                let (names, sources) = get_many(inside, SocketAddr::new(end, 80), 20);
                assert_eq!(names, [(name.to_owned(), 20)].into(), "{cores}");
                assert!(sources.len() == 2 && sources.keys().all(|source| is_local(source)), "{sources:?}");
                echoes(inside, SocketAddr::new(end, 53), 20);
            }
        }
        assert!(echo.iter().flat_map(UdpEcho::sources).all(|source| is_local(&source.ip().to_string())));
        let sessions = gateway.sessions();
        assert_eq!(sessions.len(), 160, "{sessions:?}");
        assert!(sessions.iter().all(|row| row.mode == "snat" && row.vip == row.real_server), "{sessions:?}");
        assert!(sessions.iter().all(|row| row.local.is_some_and(|local| is_local(&local.ip().to_string()))));
        let workers: std::collections::BTreeSet<_> = sessions.iter().map(|row| row.worker).collect();
        assert_eq!(workers.len(), if cores == "[0]" { 1 } else { 2 });
        for rule in gateway.stats().snat {
            assert_eq!((rule.traffic.connections, rule.traffic.in_packets > 80), (80, true), "{rule:?}");
        }
        let metrics = gateway.metrics(&lab);
        assert_eq!(metrics["fullgate_snat_connections_total{rule=\"office6\"}"], 80.0);
        assert!(metrics["fullgate_snat_bytes_total{rule=\"office\",direction=\"out\"}"] > 1000.0);
    }
}

#[test]
fn rules_are_given_and_taken_at_run_time_and_survive_a_restart() {
    let (lab, _servers, configuration) = lab("[0]");
    let mut gateway = Gateway::start(&lab, &configuration);
    let outside = SocketAddr::from((OUTSIDE, 80));
    let drops = |gateway: &Gateway, reason: &str| {
        gateway.stats().drops.iter().find(|(name, _)| name == reason).map_or(0, |&(_, count)| count)
    };
    lab.reals[0].enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"?", (OUTSIDE, 53)).unwrap();
    });
    wait_for("a packet that no rule is for to be dropped", PATIENCE, || {
        (drops(&gateway, "not_local") > 0).then_some(())
    });

    let said = gateway.command("snat add office --source 10.1.0.0/24 --local-pool wan");
    assert_eq!(said, "snat office: added, 10.1.0.0/24 -> any, local pool wan\n");
    gateway.command("snat add web -s 10.1.0.0/24 -d 10.0.0.0/24 --protocol tcp --destination-port 80 --port lan --local-pool wan --before office");
    let (names, _) = get_many(&lab.reals[0], outside, 5);
    assert_eq!(names, [("v4".to_owned(), 5)].into());
    echoes(&lab.reals[1], SocketAddr::from((OUTSIDE, 53)), 3);
    let connections = |gateway: &Gateway| -> Vec<_> {
        gateway.stats().snat.into_iter().map(|rule| (rule.name, rule.traffic.connections)).collect()
    };
    assert_eq!(connections(&gateway), [("web".to_owned(), 5), ("office".to_owned(), 3)]);

    gateway.signal(rustix::process::Signal::TERM);
    gateway.wait(PATIENCE);
    let gateway = Gateway::start(&lab, &configuration);
    let list = gateway.command("snat list");
    let rows: Vec<Vec<&str>> = list.lines().skip(1).map(|line| line.split_whitespace().take(7).collect()).collect();
    assert_eq!(rows[0], ["web", "10.1.0.0/24", "10.0.0.0/24", "TCP", "80", "lan", "wan"]);
    assert_eq!(rows[1], ["office", "10.1.0.0/24", "any", "any", "any", "any", "wan"]);
    wait_for("the outside to be reached again", PATIENCE, || lab.reals[0].enter(|| get(outside, "/")).ok());

    assert_eq!(gateway.command("snat del web"), "snat web: removed\n");
    let refused = gateway.cli("snat del web");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("there is no snat rule \"web\"; there are: office"));
    get_many(&lab.reals[0], outside, 2);
    std::fs::write(lab.path().join("fullgate.toml"), configuration.text(lab.path())).unwrap();
    let file = lab.path().join("fullgate.toml");
    assert_eq!(gateway.command(&format!("apply --config {}", file.display())), "snat office: removed\n");
    assert!(lab.reals[0].enter(|| get(outside, "/")).is_err());
}

/// Pings from inside reach a host outside and come back, also those that take several fragments, by one worker and two.
#[test]
fn hosts_inside_ping_hosts_outside() {
    for cores in ["[0]", "[0, 1]"] {
        let (lab, _servers, mut configuration) = lab(cores);
        configuration.balance += RULES;
        let gateway = Gateway::start(&lab, &configuration);
        for inside in &lab.reals {
            for (end, size) in [
                (IpAddr::from(OUTSIDE), "56"),
                (OUTSIDE6.into(), "56"),
                (OUTSIDE.into(), "4000"),
                (OUTSIDE6.into(), "4000"),
            ] {
                let ping = |count: &str| {
                    let mut ping = inside.command("ping");
                    ping.args(["-c", count, "-i", "0.05", "-w", "20", "-s", size, &end.to_string()]);
                    let output = ping.output().unwrap();
                    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
                };
                // The first one waits until neighbours are known, which only a few packets do.
                wait_for("a first reply", PATIENCE, || ping("1").0.then_some(()));
                let (all, text) = ping("5");
                assert!(all && text.contains("5 received"), "{cores} {end} {size}: {text}");
            }
        }
        let sessions = gateway.sessions();
        let echoes: Vec<_> = sessions.iter().filter(|row| row.state == "ICMP").collect();
        assert!(echoes.len() >= 8, "{sessions:?}");
        assert!(echoes.iter().all(|row| row.mode == "snat" && row.local.is_some()), "{echoes:?}");
        assert_eq!(gateway.json("session count --protocol icmp")["by_state"][0][0], "ICMP");
        assert!(gateway.stats().fragments.forwarded >= 2 * 3 * 4 * 5);
    }
}

/// A datagram in fragments goes out and its echo comes back.
#[test]
fn fragments_go_out_and_come_back() {
    for cores in ["[0]", "[0, 1]"] {
        let (lab, _servers, mut configuration) = lab(cores);
        configuration.balance += RULES;
        let gateway = Gateway::start(&lab, &configuration);
        for end in [SocketAddr::from((OUTSIDE, 53)), (OUTSIDE6, 53).into()] {
            lab.reals[0].enter(|| {
                let any: IpAddr =
                    if end.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let socket = UdpSocket::bind((any, 0)).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let question: Vec<u8> = (0..1900).map(|n| n as u8).collect();
                let mut buffer = [0; 4096];
                for _datagram in 0..20 {
                    socket.send_to(&question, end).unwrap();
                    let (len, from) = socket.recv_from(&mut buffer).unwrap();
                    assert_eq!((len > 0, from), (true, end));
                }
            });
        }
        assert!(gateway.sessions().iter().filter(|row| row.mode == "snat").count() == 2, "one a flow");
    }
}
