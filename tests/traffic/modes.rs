//! Every mode with real clients and real servers: over TCP, UDP and SCTP, IPv4, IPv6 and between them, with one worker and two.
//!
//! FULLNAT over IPv4 is what all other tests run.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use fullgate::balance::Protocol;
use fullgate::control::protocol::SessionRow;

use crate::lab::client::get_many;
use crate::lab::gateway::{port, vip};
use crate::lab::servers::{Decapsulation, sctp_echo};
use crate::lab::{Configuration, Gateway, Lab, Namespace, Nginx, PATIENCE, SctpEcho, UdpEcho, wait_for};

const CORES: [&str; 2] = ["[0]", "[0, 1]"];
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);

/// The families of the clients and of the real servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Families {
    client: Family,
    server: Family,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Ipv4,
    Ipv6,
}

const IPV4: Families = Families { client: Family::Ipv4, server: Family::Ipv4 };
const IPV6: Families = Families { client: Family::Ipv6, server: Family::Ipv6 };
const NAT64: Families = Families { client: Family::Ipv6, server: Family::Ipv4 };
const NAT46: Families = Families { client: Family::Ipv4, server: Family::Ipv6 };

impl Families {
    fn vip(self, port: u16) -> SocketAddr {
        match self.client {
            Family::Ipv4 => vip(port).into(),
            Family::Ipv6 => SocketAddr::new(VIP6.into(), port),
        }
    }

    fn client(self) -> IpAddr {
        match self.client {
            Family::Ipv4 => Ipv4Addr::new(10, 0, 0, 10).into(),
            Family::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10).into(),
        }
    }

    /// Real server `index` in network `10.NETWORK.0.0/24` or `2001:db8:NETWORK::/64`.
    fn real(self, network: u8, index: u8, port: u16) -> SocketAddr {
        match self.server {
            Family::Ipv4 => SocketAddrV4::new(Ipv4Addr::new(10, network, 0, 11 + index), port).into(),
            Family::Ipv6 => {
                let address = Ipv6Addr::new(0x2001, 0xdb8, network.into(), 0, 0, 0, 0, 0x11 + u16::from(index));
                SocketAddr::new(address.into(), port)
            }
        }
    }
}

/// An HTTP, a UDP and an SCTP service on two real servers at `address`, in this mode, as a file has it.
fn services(families: Families, mode: &str, address: impl Fn(u8, u16) -> SocketAddr, tunnel: &str) -> String {
    let real_server =
        |index, port| format!("[[service.real_server]]\naddress = \"{}\"\n{tunnel}\n", address(index, port));
    let service = |protocol, port| {
        let service = format!(
            "[[service]]\nvip = \"{}\"\nprotocol = \"{protocol}\"\nscheduler = \"rr\"\nmode = \"{mode}\"\n",
            families.vip(port)
        );
        service + &real_server(0, port) + &real_server(1, port)
    };
    service("tcp", 80) + &service("udp", 53) + &service("sctp", 7)
}

/// Sends HTTP requests, UDP packets and SCTP messages, and looks at who answered, to whom, and what the gateway counted.
fn exchange(lab: &Lab, gateway: &Gateway, families: Families, mode: &str) {
    let (names, sources) = get_many(&lab.client, families.vip(80), 20);
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.values().all(|&count| count >= 5), "{names:?}");
    if mode == "fullnat" {
        let is_local = |source: &String| source.starts_with("10.1.0.20") || source.starts_with("2001:db8:1::20");
        assert!(sources.keys().all(is_local), "{sources:?}");
    } else {
        assert_eq!(
            sources,
            BTreeMap::from([(families.client().to_string(), 20)]),
            "real servers see the client itself"
        );
    }
    lab.client.enter(|| {
        for number in 0..20_u8 {
            let socket = UdpSocket::bind((families.client(), 0)).unwrap();
            socket.connect(families.vip(53)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket.send(&[number]).unwrap();
            let mut buffer = [0; 16];
            assert_eq!(socket.recv(&mut buffer).unwrap(), 1);
            assert_eq!(buffer[0], number);
        }
    });
    associate(lab, gateway, families);
    let sessions = gateway.sessions();
    let is_right = |row: &SessionRow| row.mode == mode && row.local.is_some() == (mode == "fullnat");
    assert!(sessions.iter().all(is_right), "{sessions:?}");
    let stats = gateway.stats();
    assert_eq!(stats.services.iter().map(|service| service.traffic.connections).collect::<Vec<_>>(), [20, 20, 4]);
    let one_way = matches!(mode, "dr" | "tun");
    assert!(stats.services.iter().all(|service| (service.traffic.out_packets == 0) == one_way), "{:?}", stats.services);
    let list = gateway.command("service list");
    assert_eq!(list.matches(&format!(" {mode} ")).count(), 6, "{list}");
}

/// Opens, uses and closes associations of SCTP, one after the other. Both ends drop what has a wrong checksum.
fn associate(lab: &Lab, gateway: &Gateway, families: Families) {
    for number in 0..4 {
        let long = "long".repeat(300);
        sctp_echo(&lab.client, families.vip(7), &[format!("message {number}"), format!("{number} {long}")]);
    }
    let rows: Vec<_> = gateway.sessions().into_iter().filter(|row| row.protocol == Protocol::Sctp).collect();
    assert!(rows.iter().all(|row| row.state == "CLOSED" || row.state.starts_with("S-")), "{rows:?}");
    assert_eq!(rows.len(), 4);
    let servers: std::collections::BTreeSet<_> = rows.iter().map(|row| row.real_server).collect();
    assert_eq!(servers.len(), 2, "{rows:?}");
}

/// A two-arm lab of both families and servers in it, with its configuration but for the services.
fn two_arm(
    cores: &str,
    address: impl Fn(u8, u16) -> SocketAddr,
) -> (Lab, Vec<(Nginx, UdpEcho, SctpEcho)>, Configuration) {
    let lab = Lab::two_arm(2, if cores == CORES[0] { 1 } else { 2 });
    lab.client.ipv6("eth0", "2001:db8::10/64");
    let start = |(index, real): (u8, &Namespace)| {
        real.ipv6("eth0", &format!("2001:db8:1::{:x}/64", 0x11 + index));
        real.ip("route add default via 10.1.0.1");
        real.ip("-6 route add default via 2001:db8:1::1");
        let nginx = Nginx::start(real, lab.path(), &format!("rs{index}"), address(index, 80));
        (nginx, UdpEcho::start(real, address(index, 53)), SctpEcho::start(real))
    };
    let servers = (0..).zip(&lab.reals).map(start).collect();
    let wan = ["10.0.0.1/24", "10.0.0.100/32", "2001:db8::1/64", "2001:db8::100/128"];
    let wan = port("wan", "net_af_xdp0,iface=veth-wan", &wan);
    let lan = port("lan", "net_af_xdp1,iface=veth-lan", &["10.1.0.1/24", "2001:db8:1::1/64"]);
    let pool = "[[local_pool]]\nname = \"lan\"\nport = \"lan\"\naddresses = [\"10.1.0.200-10.1.0.203\", \"2001:db8:1::200-2001:db8:1::203\"]\n\n";
    let configuration =
        Configuration { cores: cores.into(), ports: wan + &lan, balance: pool.into(), ..Configuration::bare() };
    (lab, servers, configuration)
}

#[test]
fn fullnat_over_ipv6_and_between_the_families() {
    for (families, cores) in [(IPV6, CORES[0]), (IPV6, CORES[1]), (NAT64, CORES[1]), (NAT46, CORES[0])] {
        let address = |index, port| families.real(1, index, port);
        let (lab, _servers, mut configuration) = two_arm(cores, address);
        configuration.balance += &services(families, "fullnat", address, "");
        let gateway = Gateway::start(&lab, &configuration);
        exchange(&lab, &gateway, families, "fullnat");
    }
}

#[test]
fn nat_over_one_worker_and_two() {
    for (families, cores) in [(IPV4, CORES[0]), (IPV4, CORES[1]), (IPV6, CORES[1])] {
        // Another port than the service's: NAT maps it.
        let address = |index, port| families.real(1, index, if port == 80 { 8000 } else { port });
        let (lab, _servers, mut configuration) = two_arm(cores, address);
        configuration.balance = services(families, "nat", address, "");
        exchange(&lab, &Gateway::start(&lab, &configuration), families, "nat");
    }
}

/// A lab of both families in which real servers are on the clients' switch, and have the VIP on an interface of their own without
/// saying so; with its configuration but for the services.
fn one_arm(families: Families, cores: &str) -> (Lab, Vec<(Nginx, UdpEcho, SctpEcho)>, Configuration) {
    let lab = Lab::one_arm_with_queues(2, if cores == CORES[0] { 1 } else { 2 });
    lab.client.ipv6("eth0", "2001:db8::10/64");
    let start = |(index, real): (u8, &Namespace)| {
        real.enter(|| {
            for (key, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/all/{key}"), value).unwrap();
            }
        });
        real.ipv6("eth0", &format!("2001:db8::{:x}/64", 0x11 + index));
        // Not on the loopback interface, whose addresses usrsctp never sends from.
        real.ip("link add vip type veth peer name vip-peer");
        real.ip("link set vip-peer up");
        real.ip("link set vip up");
        real.ip("addr add 10.0.0.100/32 dev vip");
        real.ipv6("vip", "2001:db8::100/128");
        let nginx = Nginx::start(real, lab.path(), &format!("rs{index}"), families.vip(80));
        (nginx, UdpEcho::start(real, families.vip(53)), SctpEcho::start(real))
    };
    let servers = (0..).zip(&lab.reals).map(start).collect();
    let addresses = ["10.0.0.1/24", "10.0.0.100/32", "2001:db8::1/64", "2001:db8::100/128"];
    let ports = port("lan", "net_af_xdp0,iface=veth-lan", &addresses);
    (lab, servers, Configuration { cores: cores.into(), ports, ..Configuration::bare() })
}

#[test]
fn dr_over_one_worker_and_two() {
    for (families, cores) in [(IPV4, CORES[0]), (IPV4, CORES[1]), (IPV6, CORES[1])] {
        let (lab, _servers, mut configuration) = one_arm(families, cores);
        configuration.balance = services(families, "dr", |index, port| families.real(0, index, port), "");
        exchange(&lab, &Gateway::start(&lab, &configuration), families, "dr");
    }
}

#[test]
fn tun_by_each_encapsulation_over_one_worker_and_two() {
    let gue = "mode = \"tun\"\ntunnel = \"gue\"\ntunnel_port = 6080";
    for (families, cores, tunnel) in [
        (IPV4, CORES[0], ""),
        (IPV4, CORES[1], "tunnel = \"gre\"\ntunnel_checksum = true"),
        (IPV4, CORES[0], gue),
        (IPV4, CORES[1], &format!("{gue}\ntunnel_checksum = true")),
        (IPV6, CORES[1], ""),
        (IPV6, CORES[0], &format!("{gue}\ntunnel_checksum = true")),
        (NAT64, CORES[1], ""),
        (NAT46, CORES[0], "tunnel = \"gre\""),
    ] {
        let (lab, _servers, mut configuration) = one_arm(families, cores);
        let _tunnels: Vec<_> = lab.reals.iter().map(Decapsulation::start).collect();
        configuration.balance = services(families, "tun", |index, port| families.real(0, index, port), tunnel);
        exchange(&lab, &Gateway::start(&lab, &configuration), families, "tun");
    }
}

#[test]
fn modes_are_given_and_changed_at_run_time() {
    let (lab, _servers, configuration) = one_arm(IPV4, CORES[0]);
    let gateway = Gateway::start(&lab, &configuration);
    gateway.command("service add -t 10.0.0.100:80 -s rr --mode dr");
    gateway.command("real add -t 10.0.0.100:80 -r 10.0.0.11");
    gateway.command("real add -t 10.0.0.100:80 -r 10.0.0.12 -g");
    let (names, _) = get_many(&lab.client, vip(80), 10);
    assert_eq!(names, BTreeMap::from([("rs0".into(), 5), ("rs1".into(), 5)]));

    let refused = |arguments: &str, expected: &str| {
        let output = gateway.cli(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(expected), "{arguments}: {said}");
    };
    refused("real add -t 10.0.0.100:80 -r 10.0.0.13:8080", "10.0.0.13:8080 has another port than the service");
    refused("real add -t 10.0.0.100:80 -r 10.0.0.13 -b", "the service has no local pool");
    refused("real add -t 10.0.0.100:80 -r 10.0.0.13 --tun-type gre", "the real server is in mode dr");
    refused("real add -t 10.0.0.100:80 -r 10.0.0.13 -i --tun-type gue", "tunnel_port: missing or 0");
    refused("real add -t 10.0.0.100:80 -r 10.0.0.13 -i --tun-csum", "a tunnel by ipip has no checksum");

    lab.gateway.ip("route add 172.16.0.0/16 via 10.0.0.11");
    wait_for("the route to be followed", PATIENCE, || {
        let output = gateway.cli("real add -t 10.0.0.100:80 -r 172.16.0.1");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            gateway.command("real del -t 10.0.0.100:80 -r 172.16.0.1");
        }
        said.contains("dr needs it on a link of the gateway, and it is behind router 10.0.0.11").then_some(())
    });

    let _tunnel = Decapsulation::start(&lab.reals[1]);
    let said = gateway.command("real edit -t 10.0.0.100:80 -r 10.0.0.12 -i --tun-type gre");
    assert_eq!(said, "service tcp 10.0.0.100:80: real server 10.0.0.12:80: mode dr -> tun, tunnel ipip -> gre\n");
    let (names, _) = get_many(&lab.client, vip(80), 10);
    assert_eq!(names, BTreeMap::from([("rs0".into(), 5), ("rs1".into(), 5)]));
    gateway.command("service add --sctp-service 10.0.0.100:7 -s rr --mode dr");
    gateway.command("real add --sctp 10.0.0.100:7 -r 10.0.0.11");
    sctp_echo(&lab.client, vip(7).into(), &["by a service made at run time".to_owned()]);
    let list = gateway.command("service list");
    assert!(list.contains("SCTP  10.0.0.100:7 rr"), "{list}");
    gateway.command("service del --sctp 10.0.0.100:7");
    let real_servers = &gateway.json("service list")[0]["real_servers"];
    assert_eq!((&real_servers[1]["mode"], &real_servers[1]["tunnel"]["encapsulation"]), (&"tun".into(), &"gre".into()));
    wait_for("both modes among the sessions", PATIENCE, || {
        let modes: std::collections::BTreeSet<_> = gateway.sessions().into_iter().map(|row| row.mode).collect();
        modes.contains("tun").then_some(())
    });
}
