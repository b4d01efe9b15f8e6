//! NAT, DR and TUN with real clients and real servers, over TCP and UDP, with one worker and two.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::lab::client::get_many;
use crate::lab::gateway::{real, vip};
use crate::lab::{Configuration, Gateway, Lab, Namespace, Nginx, PATIENCE, UdpEcho, VIP, wait_for};

const CORES: [&str; 2] = ["[0]", "[0, 1]"];

/// An HTTP and a UDP service on two real servers at `address`, in this mode, as a file has it.
fn services(mode: &str, address: impl Fn(u8, u16) -> SocketAddrV4, tunnel: &str) -> String {
    let real_server =
        |index, port| format!("[[service.real_server]]\naddress = \"{}\"\n{tunnel}\n", address(index, port));
    let service = |protocol, port| {
        let service = format!(
            "[[service]]\nvip = \"{}\"\nprotocol = \"{protocol}\"\nscheduler = \"rr\"\nmode = \"{mode}\"\n",
            vip(port)
        );
        service + &real_server(0, port) + &real_server(1, port)
    };
    service("tcp", 80) + &service("udp", 53)
}

/// Sends HTTP requests and UDP packets, and looks at who answered, to whom, and what the gateway counted.
fn exchange(lab: &Lab, gateway: &Gateway, mode: &str) {
    let (names, sources) = get_many(&lab.client, vip(80), 20);
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.values().all(|&count| count >= 5), "{names:?}");
    assert_eq!(sources, BTreeMap::from([("10.0.0.10".into(), 20)]), "real servers see the client itself");
    lab.client.enter(|| {
        for number in 0..20_u8 {
            let socket = UdpSocket::bind((Ipv4Addr::new(10, 0, 0, 10), 0)).unwrap();
            socket.connect(vip(53)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket.send(&[number]).unwrap();
            let mut buffer = [0; 16];
            assert_eq!(socket.recv(&mut buffer).unwrap(), 1);
            assert_eq!(buffer[0], number);
        }
    });
    let sessions = gateway.sessions();
    assert!(sessions.iter().all(|session| session.mode.name() == mode && session.local.is_none()), "{sessions:?}");
    let stats = gateway.stats();
    assert_eq!(stats.services.iter().map(|service| service.traffic.connections).collect::<Vec<_>>(), [20, 20]);
    let one_way = mode != "nat";
    assert!(stats.services.iter().all(|service| (service.traffic.out_packets == 0) == one_way), "{:?}", stats.services);
    let list = gateway.command("service list");
    assert_eq!(list.matches(&format!(" {mode} ")).count(), 4, "{list}");
}

#[test]
fn nat_over_one_worker_and_two() {
    for cores in CORES {
        let lab = Lab::two_arm(2, if cores == CORES[0] { 1 } else { 2 });
        lab.reals.iter().for_each(|real| {
            real.ip("route add default via 10.1.0.1");
        });
        // Another port than the service's: NAT maps it.
        let address = |index, port| real(index, if port == 80 { 8000 } else { port });
        let _servers: Vec<_> = (0..2_u8)
            .map(|index| {
                let namespace = &lab.reals[usize::from(index)];
                let nginx = Nginx::start(namespace, lab.path(), &format!("rs{index}"), address(index, 80));
                (nginx, UdpEcho::start(namespace, address(index, 53)))
            })
            .collect();
        let mut configuration = Configuration { cores: cores.into(), ..Configuration::two_arm() };
        configuration.balance = services("nat", address, "");
        exchange(&lab, &Gateway::start(&lab, &configuration), "nat");
    }
}

/// Real servers on the clients' switch that have the VIP on their loopback and do not say so.
fn one_arm_with_vip(lab: &Lab) -> Vec<(Nginx, UdpEcho)> {
    let start = |(index, real): (usize, &Namespace)| {
        real.enter(|| {
            for (key, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/all/{key}"), value).unwrap();
            }
        });
        real.ip("addr add 10.0.0.100/32 dev lo");
        let nginx = Nginx::start(real, lab.path(), &format!("rs{index}"), SocketAddrV4::new(VIP, 80));
        (nginx, UdpEcho::start(real, SocketAddrV4::new(VIP, 53)))
    };
    lab.reals.iter().enumerate().map(start).collect()
}

fn one_arm_address(index: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 11 + index), port)
}

#[test]
fn dr_over_one_worker_and_two() {
    for cores in CORES {
        let lab = Lab::one_arm_with_queues(2, if cores == CORES[0] { 1 } else { 2 });
        let _servers = one_arm_with_vip(&lab);
        let mut configuration = Configuration { cores: cores.into(), ..Configuration::one_arm() };
        configuration.balance = services("dr", one_arm_address, "");
        exchange(&lab, &Gateway::start(&lab, &configuration), "dr");
    }
}

/// Takes tunnelled packets apart in a real server; ended when dropped.
pub struct Decapsulation(Child);

impl Decapsulation {
    pub fn start(namespace: &Namespace) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/decapsulate.py");
        let mut command: Command = namespace.command("python3");
        let mut child = command.arg(script).args(["dec0", "6080"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for Decapsulation {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tun_by_each_encapsulation_over_one_worker_and_two() {
    let gue = "mode = \"tun\"\ntunnel = \"gue\"\ntunnel_port = 6080";
    for (cores, tunnel) in [
        (CORES[0], ""),
        (CORES[1], "tunnel = \"gre\"\ntunnel_checksum = true"),
        (CORES[0], gue),
        (CORES[1], &format!("{gue}\ntunnel_checksum = true")),
    ] {
        let lab = Lab::one_arm_with_queues(2, if cores == CORES[0] { 1 } else { 2 });
        let _servers = one_arm_with_vip(&lab);
        let _tunnels: Vec<_> = lab.reals.iter().map(Decapsulation::start).collect();
        let mut configuration = Configuration { cores: cores.into(), ..Configuration::one_arm() };
        configuration.balance = services("tun", one_arm_address, tunnel);
        exchange(&lab, &Gateway::start(&lab, &configuration), "tun");
    }
}

#[test]
fn modes_are_given_and_changed_at_run_time() {
    let lab = Lab::one_arm(2);
    let _servers = one_arm_with_vip(&lab);
    let gateway = Gateway::start(&lab, &Configuration::one_arm());
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

    let _tunnel = Decapsulation::start(&lab.reals[1]);
    let said = gateway.command("real edit -t 10.0.0.100:80 -r 10.0.0.12 -i --tun-type gre");
    assert_eq!(said, "service tcp 10.0.0.100:80: real server 10.0.0.12:80: mode dr -> tun, tunnel ipip -> gre\n");
    let (names, _) = get_many(&lab.client, vip(80), 10);
    assert_eq!(names, BTreeMap::from([("rs0".into(), 5), ("rs1".into(), 5)]));
    let real_servers = &gateway.json("service list")[0]["real_servers"];
    assert_eq!((&real_servers[1]["mode"], &real_servers[1]["tunnel"]["encapsulation"]), (&"tun".into(), &"gre".into()));
    wait_for("both modes among the sessions", PATIENCE, || {
        let modes: std::collections::BTreeSet<_> = gateway.sessions().iter().map(|row| row.mode.name()).collect();
        modes.contains("tun").then_some(())
    });
}
