//! Services of all ports and of ranges with real traffic, and MSS options that real hosts obey.

use std::net::SocketAddr;

use crate::lab::client::{connect, get};
use crate::lab::gateway::{real, vip};
use crate::lab::{Configuration, Gateway, Lab, Namespace, Nginx, PATIENCE, UdpEcho, wait_for};

/// What TCP's timestamps take of each segment.
const TIMESTAMPS: u16 = 12;

/// The MSS by which a host sends on its connections to or from this address, as `ss` prints it.
fn sending_mss(host: &Namespace, peer: &str) -> Vec<u16> {
    let output = host.command("ss").args(["-tinH", "state", "established", "dst", peer]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split_whitespace().filter_map(|word| word.strip_prefix("mss:"));
    words.map(|mss| mss.parse().unwrap()).collect()
}

#[test]
fn the_port_that_a_client_asks_for_is_served() {
    let lab = Lab::two_arm(2, 1);
    let _servers: Vec<_> = [(0, 8000, "range"), (0, 8099, "end"), (1, 8050, "one"), (1, 9000, "all"), (1, 443, "too")]
        .map(|(index, port, name)| Nginx::start(&lab.reals[index], lab.path(), name, real(index as u8, port)))
        .into();
    let _echo = UdpEcho::start(&lab.reals[1], real(1, 5000));
    let gateway = Gateway::start(&lab, &Configuration::two_arm());
    for command in [
        "service add -t 10.0.0.100:0 --local-pool lan",
        "real add -t 10.0.0.100:0 -r 10.1.0.12",
        "service add -t 10.0.0.100:8000-8099 --local-pool lan",
        "real add -t 10.0.0.100:8000-8099 -r 10.1.0.11:0",
        "service add -t 10.0.0.100:8050 --local-pool lan",
        "real add -t 10.0.0.100:8050 -r 10.1.0.12",
        "service add -u 10.0.0.100:0 --local-pool lan",
        "real add -u 10.0.0.100:0 -r 10.1.0.12",
    ] {
        gateway.command(command);
    }
    for (port, name) in [(8000, "range"), (8099, "end"), (8050, "one"), (9000, "all"), (443, "too")] {
        let named = wait_for("the service", PATIENCE, || lab.client.enter(|| get(vip(port), "/")).ok());
        assert_eq!(named.split(' ').next(), Some(name), "port {port}");
    }
    let echoed = lab.client.enter(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"?", vip(5000)).unwrap();
        socket.recv_from(&mut [0; 8]).unwrap().1
    });
    assert_eq!(echoed, SocketAddr::V4(vip(5000)));
    // A port that nobody listens on is refused by the real server, and the client hears it.
    let refused = lab.client.enter(|| connect(vip(7))).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let refused = gateway.cli("service add -t 10.0.0.100:8090-8200 --local-pool lan");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("has ports in common with service tcp 10.0.0.100:8000-8099"), "{said}");
    let listed = gateway.command("service list");
    for line in ["TCP  10.0.0.100:0 wlc lan", "TCP  10.0.0.100:8000-8099 wlc lan", "  -> 10.1.0.11:0"] {
        assert!(listed.contains(line), "{listed}");
    }
    let metrics = gateway.metrics(&lab);
    let label = "fullgate_service_connections_total{service=\"10.0.0.100:8000-8099\",protocol=\"tcp\"}";
    assert_eq!(metrics[label], 2.0, "{metrics:?}");
    drop(gateway);
    let gateway = Gateway::start(&lab, &Configuration::two_arm());
    assert_eq!(gateway.command("service list").matches("10.0.0.100:").count(), 4, "kept over a restart");
}

#[test]
fn connections_keep_to_a_clamped_mss_both_ways() {
    let lab = Lab::two_arm(1, 1);
    let _nginx = Nginx::start(&lab.reals[0], lab.path(), "web", real(0, 80));
    let configuration = Configuration::two_arm().with_service("tcp", vip(80), "rr", &[(real(0, 80), 1)]);
    let gateway = Gateway::start(&lab, &configuration);
    let said = gateway.command("service edit -t 10.0.0.100:80 --mss-clamp 1300");
    assert_eq!(said, "service tcp 10.0.0.100:80: MSS clamp 0 -> 1300\n");
    assert!(gateway.command("service list").contains("TCP  10.0.0.100:80 rr lan mss-clamp 1300"));
    for (clamp, expected) in [("1300", 1300 - TIMESTAMPS), ("mtu", 1460 - TIMESTAMPS), ("0", 1460 - TIMESTAMPS)] {
        let edited = gateway.cli(&format!("service edit -t 10.0.0.100:80 --mss-clamp {clamp}"));
        assert!(edited.status.success());
        lab.client.enter(|| {
            let stream = connect(vip(80)).unwrap();
            for (host, peer) in [(&lab.client, "10.0.0.100"), (&lab.reals[0], "10.1.0.200/30")] {
                let what = format!("an MSS of {expected} towards {peer}, clamp {clamp}");
                wait_for(&what, PATIENCE, || (sending_mss(host, peer) == [expected]).then_some(()));
            }
            drop(stream);
            wait_for("the connection to end", PATIENCE, || {
                sending_mss(&lab.reals[0], "10.1.0.200/30").is_empty().then_some(())
            });
        });
    }
}
