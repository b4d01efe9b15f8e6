//! Starts that must fail, each with its reason; and the start of a measurement, from a capture into nothing.

use std::net::Ipv4Addr;
use std::process::Command;

use crate::lab::frames::{udp, write_pcap};
use crate::lab::gateway::{FULLGATE, pool, port, real, run_to_end, vip};
use crate::lab::{Configuration, Gateway, Lab, PATIENCE, VIP, wait_for};

/// What is wrong, the file, the exit code, and what the message must say.
fn wrong_starts(lab: &Lab) -> Vec<(&'static str, String, i32, Vec<&'static str>)> {
    let good = || Configuration::two_arm().with_service("tcp", vip(80), "rr", &[(real(0, 80), 1)]);
    let text = |configuration: Configuration| configuration.text(lab.path());
    let one_port = |device: &str| {
        let balance = pool("wan", "10.0.0.200");
        text(Configuration { ports: port("wan", device, &["10.0.0.1/24"]), balance, ..Configuration::bare() })
    };
    vec![
        (
            "wrong key",
            text(good()).replace("capacity =", "capacty ="),
            1,
            vec!["capacty", "capacity", "fullgate.toml:"],
        ),
        ("wrong type", text(good()).replace("capacity = 65536", "capacity = \"many\""), 1, vec!["capacity", "integer"]),
        ("wrong scheduler", text(good()).replace("\"rr\"", "\"rrr\""), 1, vec!["rrr", "rr, wrr, lc, wlc"]),
        ("wrong address", text(good()).replace("10.1.0.11:80", "10.1.0.311:80"), 1, vec!["10.1.0.311:80"]),
        ("no such pool", text(good()).replace("local_pool = \"lan\"", "local_pool = \"dmz\""), 1, vec!["dmz"]),
        ("service twice", text(good().with_service("tcp", vip(80), "rr", &[])), 1, vec!["10.0.0.100:80"]),
        (
            "pool too small",
            text(Configuration { cores: "[0, 1]".into(), ..good() }).replace("1024-65535", "7000-7000"),
            1,
            vec!["7000", "2 workers"],
        ),
        ("no such interface", one_port("net_af_xdp0,iface=nowhere0"), 1, vec!["wan", "nowhere0"]),
        ("no such PCI device", one_port("0000:7f:1e.6"), 1, vec!["wan", "0000:7f:1e.6"]),
        ("no such driver", one_port("net_teleport0"), 1, vec!["wan", "net_teleport0"]),
        ("no such core", text(Configuration { cores: "[0, 511]".into(), ..good() }), 1, vec!["511"]),
        (
            "too little memory",
            text(Configuration { eal_args: r#"["--no-huge", "-m", "8"]"#.into(), ..good() }),
            1,
            vec!["memory"],
        ),
    ]
}

#[test]
fn wrong_configurations_fail_at_start_with_their_reason() {
    let lab = Lab::two_arm(0, 1);
    for (name, text, code, words) in wrong_starts(&lab) {
        let (found, said) = run_to_end(&lab, &text);
        assert_eq!(found, Some(code), "{name}: {said}");
        for word in words {
            assert!(said.contains(word), "{name}: {word:?} is not in: {said}");
        }
        assert!(!said.contains("panicked"), "{name}: {said}");
        assert!(!lab.path().join("control.sock").exists(), "{name}: the socket is left");
        assert!(!lab.gateway.ip("-br link").contains("fg-"), "{name}: a TAP is left");
    }
}

#[test]
fn a_port_without_link_is_named() {
    let lab = Lab::two_arm(0, 1);
    // The other end of the cable is down, so there is no carrier here.
    lab.client.ip("link set eth0 down");
    // The kernel tells this end up to a second later.
    wait_for("the carrier to be gone", PATIENCE, || {
        lab.gateway.ip("-br link show dev veth-wan").contains("NO-CARRIER").then_some(())
    });
    let mut configuration = Configuration::two_arm();
    configuration.ports =
        configuration.ports.replace("name = \"wan\"\n", "name = \"wan\"\nlink_timeout_milliseconds = 500\n");
    let (code, said) = run_to_end(&lab, &configuration.text(lab.path()));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("wan") && said.contains("link"), "{said}");
}

#[test]
fn commands_tell_usage_refusal_and_absence_apart() {
    let lab = Lab::two_arm(0, 1);
    let socket = lab.path().join("control.sock");
    let code = |arguments: &[&str]| {
        let output = Command::new(FULLGATE).args(arguments).env("FULLGATE_SOCKET", &socket).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (absent, said) = code(&["status"]);
    assert_eq!(absent, Some(3), "{said}");
    assert!(said.contains("control.sock"), "{said}");
    assert_eq!(code(&["service", "frobnicate"]).0, Some(2));
    let _gateway = Gateway::start(&lab, &Configuration::two_arm());
    assert_eq!(code(&["status"]).0, Some(0));
    let (refused, said) = code(&["service", "del", "-t", "10.0.0.100:80"]);
    assert_eq!(refused, Some(1), "{said}");
    assert!(said.contains("10.0.0.100:80"), "{said}");
}

#[test]
fn a_capture_of_1024_flows_is_forwarded_into_nothing() {
    let lab = Lab::two_arm(0, 1);
    let macs = ([2, 0, 0, 0, 0, 9], [0x02, 0x70, 0x63, 0x61, 0x70, 0x00]);
    let flow = |number: u16| udp(macs, (Ipv4Addr::new(10, 0, 0, 10), 1024 + number), (VIP, 53), &[0; 18]);
    let file = lab.path().join("flows.pcap");
    write_pcap(&file, &(0..1024).map(flow).collect::<Vec<_>>());
    let wan =
        port("wan", &format!("net_pcap0,rx_pcap={},infinite_rx=1", file.display()), &["10.0.0.1/24", "10.0.0.100/32"]);
    let lan = port("lan", "net_null0,no-rx=1", &["10.1.0.1/24"]);
    let balance = pool("lan", "10.1.0.200-10.1.0.203");
    let configuration = Configuration { ports: wan + &lan, balance, ..Configuration::bare() };
    let gateway = Gateway::start(&lab, &configuration.with_service("udp", vip(53), "rr", &[(real(0, 53), 1)]));
    lab.gateway.ip("neigh replace 10.1.0.11 lladdr 02:00:00:00:00:11 dev fg-lan nud permanent");
    wait_for("a million forwarded packets", PATIENCE, || {
        let stats = gateway.stats();
        (stats.ports[1].tx_packets > 1_000_000).then_some(())
    });
    let stats = gateway.stats();
    assert_eq!(stats.workers[0].sessions, 1024);
    assert_eq!(stats.services[0].traffic.connections, 1024);
    let mut watch = Command::new("timeout");
    let watch = watch.args(["3", FULLGATE, "stats", "--watch", "1"]).env("FULLGATE_SOCKET", gateway.socket());
    let watched = String::from_utf8_lossy(&watch.output().unwrap().stdout).into_owned();
    assert!(watched.contains("wan") && watched.contains("lan"), "{watched}");
}
