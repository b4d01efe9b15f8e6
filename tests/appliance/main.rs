//! The appliance's way on a machine of its own: NICs on the PCI bus, bound to vfio-pci by `fullgate-hugepages`, with RSS,
//! hugepages, an IOMMU, two workers; real clients and real servers outside, in network namespaces. Needs root,
//! qemu-system-x86, busybox-static, kmod, and once a Debian kernel package from the archive.
#![cfg(feature = "dpdk")]
// Tests say what they expect: a failed expectation is a failed test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, missing_docs)]

#[path = "../lab/mod.rs"]
#[allow(dead_code, unused_imports, reason = "other tests use the rest")]
mod lab;
mod machine;
#[path = "../vm/machine.rs"]
mod vm;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use lab::gateway::{pool, real, vip};
use lab::{Configuration, Lab, Nginx, PATIENCE, UdpEcho, get, wait_for};
use machine::NICS;
use vm::Machine;

/// Clients at a time, and connections of each.
const CLIENTS: u8 = 8;
const CONNECTIONS: u16 = 250;
/// Flows of UDP, each an exchange of some packets.
const UDP_FLOWS: u16 = 400;
/// Where the gateway's files are in the machine.
const DIRECTORY: &str = "/run/fullgate";

#[test]
fn two_workers_on_nics_whose_rss_is_known_hand_nothing_over() {
    let lab = Lab::two_arm(2, 1);
    let _servers: Vec<_> = (0..2u8)
        .map(|index| Nginx::start(&lab.reals[usize::from(index)], lab.path(), &format!("rs{index}"), real(index, 80)))
        .collect();
    let _echoes: Vec<_> = (0..2).map(|index| UdpEcho::start(&lab.reals[usize::from(index)], real(index, 53))).collect();
    let mut machine = machine::start(&lab);
    set_up(&mut machine);

    start(&mut machine, "auto");
    for (port, nic) in ports(&mut machine).iter().zip(&NICS) {
        let told = ["device", "driver", "mac", "steering", "ownership"].map(|key| port[key].as_str().unwrap());
        assert_eq!(told, [nic.pci, "net_virtio", nic.mac, "rss", "rss"], "{port:#}");
        assert_eq!((&port["rx_queues"], &port["link_up"]), (&2.into(), &true.into()), "{port:#}");
    }
    links_are_seen(&mut machine);
    traffic(&lab);
    let known = Handed::read(&mut machine);
    assert_eq!((known.over, &known.ports[..]), (0, &[0, 0][..]), "with RSS known nothing is handed over: {known:?}");
    stop(&mut machine);

    leave_checksums_open(&lab);
    start(&mut machine, "software");
    for port in ports(&mut machine) {
        assert_eq!((&port["steering"], &port["ownership"]), (&"software".into(), &"software".into()), "{port:#}");
        assert_eq!(port["ownership_reason"], "the port's `steering` is \"software\"");
    }
    traffic(&lab);
    let software = Handed::read(&mut machine);
    // Half of what arrives is for the other worker; ARP and the like is nobody's.
    assert!(software.ports.iter().all(|&handed| handed > u64::from(CONNECTIONS)), "{software:?}");
    assert_eq!(software.ports.iter().sum::<u64>(), software.over);
    println!("known: {known:?}, software: {software:?}");
    stop(&mut machine);
    undo(&mut machine);
}

/// Hugepages and NICs, by the script that an operator would use.
fn set_up(machine: &mut Machine) {
    let [wan, lan] = &NICS;
    let wanted = format!("--pages-2m 192 --bind {} {}", wan.pci, lan.pci);
    let (status, missing) = machine.run(&format!("fullgate-hugepages --check {wanted}"));
    assert!(status == 1 && missing.contains("0000:00:10.0: driver virtio-pci, interface eth0"), "{missing}");
    let said = machine.ok(&format!("fullgate-hugepages {wanted}"));
    for line in ["2 MB pages: 192 reserved (0 before)", "vfio-pci: loaded", "0000:00:11.0: vfio-pci (was virtio-pci)"] {
        assert!(said.contains(line), "{line} in {said}");
    }
    let said = machine.ok(&format!("fullgate-hugepages --check {wanted}"));
    assert!(said.contains("ok       IOMMU: on") && said.contains("ok       0000:00:10.0: vfio-pci"), "{said}");
}

/// Brings the machine back to what it was.
fn undo(machine: &mut Machine) {
    let said = machine.ok("fullgate-hugepages --undo");
    assert!(said.contains("0000:00:10.0: back with virtio-pci"), "{said}");
    assert_eq!(machine.ok("cat /proc/sys/vm/nr_hugepages").trim(), "0");
    let interfaces = machine.ok("ip -br link");
    assert!(NICS.iter().all(|nic| interfaces.contains(nic.mac)), "{interfaces}");
}

/// Starts the gateway in the machine and waits until it answers.
fn start(machine: &mut Machine, steering: &str) {
    let [wan, lan] = NICS.map(|nic| {
        let addresses = if nic.name == "wan" { r#"["10.0.0.1/24", "10.0.0.100/32"]"# } else { r#"["10.1.0.1/24"]"# };
        format!(
            "[[port]]\nname = \"{}\"\ndevice = \"{}\"\naddresses = {addresses}\nsteering = \"{steering}\"\n\n",
            nic.name, nic.pci
        )
    });
    let configuration = Configuration {
        eal_args: "[]".into(),
        cores: "[0, 1]".into(),
        ports: wan + &lan,
        balance: pool("lan", "10.1.0.200-10.1.0.203"),
        ..Configuration::bare()
    };
    let text = configuration
        .with_service("tcp", vip(80), "rr", &[(real(0, 80), 1), (real(1, 80), 1)])
        .with_service("udp", vip(53), "rr", &[(real(0, 53), 1), (real(1, 53), 1)])
        .text(Path::new(DIRECTORY));
    machine.ok(&format!("mkdir -p {DIRECTORY}/state"));
    machine.write(&format!("{DIRECTORY}/fullgate.toml"), &text);
    machine.ok(&format!(
        "fullgate run --config {DIRECTORY}/fullgate.toml >{DIRECTORY}/log 2>&1 & echo $! >{DIRECTORY}/pid"
    ));
    wait_for("the gateway in the machine to answer", Duration::from_secs(60), || {
        let ended = machine.run(&format!("kill -0 $(<{DIRECTORY}/pid)")).0 != 0;
        assert!(!ended, "the gateway ended at start: {}", machine.ok(&format!("cat {DIRECTORY}/log")));
        (machine.run("fullgate status").0 == 0).then_some(())
    });
}

/// Ends it, and waits until it has ended and left nothing.
fn stop(machine: &mut Machine) {
    machine.ok(&format!("kill $(<{DIRECTORY}/pid)"));
    wait_for("the gateway in the machine to end", PATIENCE, || {
        (machine.run(&format!("kill -0 $(<{DIRECTORY}/pid)")).0 != 0).then_some(())
    });
    let log = machine.ok(&format!("cat {DIRECTORY}/log"));
    assert!(log.contains("ended") && !log.contains("ERROR"), "{log}");
    assert_eq!(machine.ok("ls /dev/hugepages").trim(), "", "no hugepage file is left");
}

fn json(machine: &mut Machine, command: &str) -> Value {
    serde_json::from_str(&machine.ok(&format!("fullgate {command} --json"))).unwrap()
}

fn ports(machine: &mut Machine) -> Vec<Value> {
    json(machine, "port show").as_array().unwrap().clone()
}

/// Clients and real servers leave checksums to their NICs from here on, as a virtual machine's neighbours on the same host
/// do. Nobody on the way to the machine has one that could finish them, so it must not have said that it takes them so.
fn leave_checksums_open(lab: &Lab) {
    for host in std::iter::once(&lab.client).chain(&lab.reals) {
        lab::run(host.command("ethtool").args(["-K", "eth0", "tx", "on"]));
    }
}

/// A cable that is pulled out and plugged in again shows.
fn links_are_seen(machine: &mut Machine) {
    for up in [false, true] {
        machine.set_link("lan", up);
        wait_for("the link's state to be seen", PATIENCE, || (ports(machine)[1]["link_up"] == up).then_some(()));
    }
}

/// HTTP over thousands of connections, UDP in hundreds of flows, and the kernel's TAP: all must be answered.
fn traffic(lab: &Lab) {
    let clients = (0..CLIENTS).map(|_| {
        lab.client.spawn(|| {
            let mut pages =
                (0..CONNECTIONS).map(|number| get(vip(80), "/").map_err(|error| format!("{number}: {error}")));
            pages.find_map(Result::err)
        })
    });
    let clients: Vec<_> = clients.collect();
    lab.client.enter(|| (0..UDP_FLOWS).for_each(udp_flow));
    let failures: Vec<String> = clients.into_iter().filter_map(|client| client.join().unwrap()).collect();
    assert!(failures.is_empty(), "{failures:?}");
    lab::run(lab.client.command("ping").args(["-c", "3", "-i", "0.2", "-W", "2", "10.0.0.1"]));
}

/// A flow of its own, of three packets each way.
fn udp_flow(flow: u16) {
    let socket = std::net::UdpSocket::bind("10.0.0.10:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(vip(53)).unwrap();
    for packet in 0..3u16 {
        let sent = [flow.to_be_bytes(), packet.to_be_bytes()].concat();
        socket.send(&sent).unwrap();
        let mut buffer = [0; 16];
        let size = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("flow {flow}, packet {packet}: {error}"));
        assert_eq!(buffer[..size], sent);
    }
}

/// What workers have handed to each other.
#[derive(Debug)]
struct Handed {
    /// In all.
    over: u64,
    /// By the port that it came in by.
    ports: Vec<u64>,
}

impl Handed {
    /// Of a gateway that has had its traffic; both workers must have had their part of it.
    fn read(machine: &mut Machine) -> Self {
        let stats = json(machine, "stats");
        let number = |row: &Value, key: &str| row[key].as_u64().unwrap();
        let of = |rows: &str, key: &str| -> Vec<u64> {
            stats[rows].as_array().unwrap().iter().map(|row| number(row, key)).collect()
        };
        let created = of("workers", "sessions_created");
        // Those of UDP not counted: its clients may come from a port twice.
        let all = u64::from(CLIENTS) * u64::from(CONNECTIONS);
        assert!(created.iter().sum::<u64>() >= all, "{created:?} of {all} sessions");
        assert!(created.iter().all(|&own| own > all / 4), "each worker has sessions: {created:?}");
        assert!(of("workers", "rx_packets").iter().all(|&own| own > all), "each worker has a queue: {stats:#}");
        let over: u64 = of("workers", "handovers").iter().sum();
        assert_eq!(over, of("workers", "handovers_received").iter().sum::<u64>());
        Self { over, ports: of("ports", "handovers") }
    }
}
