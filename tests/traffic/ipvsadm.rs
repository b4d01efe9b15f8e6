//! Unmodified ipvsadm manages the gateway: each of its commands, what it prints, what it is refused, and the traffic that
//! follows.

use crate::lab::gateway::{real, vip};
use crate::lab::{Configuration, Gateway, Lab, Nginx, PATIENCE, get, wait_for};

fn lab_with_gateway(reals: usize) -> (Lab, Gateway) {
    let lab = Lab::two_arm(reals, 1);
    let gateway = Gateway::start(&lab, &Configuration::two_arm());
    (lab, gateway)
}

/// Lines without the padding at their ends.
fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn fullnat_and_nat_services_are_made_by_ipvsadm_and_serve() {
    let (lab, gateway) = lab_with_gateway(2);
    let _servers: Vec<_> = (0..2)
        .map(|index: u8| {
            Nginx::start(&lab.reals[usize::from(index)], lab.path(), &format!("rs{index}"), real(index, 80))
        })
        .collect();
    let ipvsadm = |arguments: &str| gateway.ipvsadm(&lab.gateway, arguments);
    ipvsadm("-A -t 10.0.0.100:80 -s rr -b flag-3");
    ipvsadm("-a -t 10.0.0.100:80 -r 10.1.0.11:80 -m");
    ipvsadm("-a -t 10.0.0.100:80 -r 10.1.0.12:80 -m -w 3 -x 100 -y 50");
    assert_eq!(
        lines(&ipvsadm("-L -n --nosort")),
        [
            "IP Virtual Server version 1.2.1 (size=4096)",
            "Prot LocalAddress:Port Scheduler Flags",
            "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn",
            "TCP  10.0.0.100:80 rr (flag-3)",
            "  -> 10.1.0.12:80                 Masq    3      0          0",
            "  -> 10.1.0.11:80                 Masq    1      0          0",
        ]
    );
    let pages: Vec<_> = (0..4).map(|_| lab.client.enter(|| get(vip(80), "/")).unwrap()).collect();
    assert_eq!(pages.iter().filter(|page| page.contains("rs0 ")).count(), 2, "{pages:?}");
    let stats = ipvsadm("-L -n --stats --exact");
    let service = lines(&stats).into_iter().find(|line| line.starts_with("TCP")).unwrap();
    assert_eq!(service.split_whitespace().nth(2), Some("4"), "connections: {stats}");
    let connections = ipvsadm("-L -n -c");
    let ended = lines(&connections).into_iter().filter(|line| line.contains("10.0.0.100:80")).count();
    assert_eq!(ended, 4, "{connections}");
    ipvsadm("-Z");
    let stats = ipvsadm("-L -n --stats --exact");
    let service = lines(&stats).into_iter().find(|line| line.starts_with("TCP")).unwrap();
    assert_eq!(service.split_whitespace().nth(2), Some("0"), "connections after -Z: {stats}");

    // The gateway's own commands see the same.
    let listed = gateway.json("service list");
    assert_eq!(listed[0]["real_servers"][0]["mode"], "fullnat", "{listed}");
    // Without the flag, what masquerades is NAT.
    ipvsadm("-E -t 10.0.0.100:80 -s wrr");
    let listed = gateway.json("service list");
    assert_eq!(
        (&listed[0]["real_servers"][1]["mode"], &listed[0]["scheduler"]),
        (&"nat".into(), &"wrr".into()),
        "{listed}"
    );
    ipvsadm("-e -t 10.0.0.100:80 -r 10.1.0.12:80 -m -w 0");
    ipvsadm("-d -t 10.0.0.100:80 -r 10.1.0.11:80");
    assert_eq!(ipvsadm("-S -n"), "-A -t 10.0.0.100:80 -s wrr\n-a -t 10.0.0.100:80 -r 10.1.0.12:80 -m -w 0\n");
    ipvsadm("-D -t 10.0.0.100:80");
    assert_eq!(ipvsadm("-S -n"), "");
}

#[test]
fn what_is_wrong_is_refused_with_the_kernels_errors() {
    let (lab, gateway) = lab_with_gateway(1);
    let refused = |arguments: &str| {
        let output = gateway.try_ipvsadm(&lab.gateway, arguments);
        assert!(!output.status.success(), "ipvsadm {arguments}");
        String::from_utf8_lossy(&output.stderr).trim().to_owned()
    };
    let ipvsadm = |arguments: &str| gateway.ipvsadm(&lab.gateway, arguments);
    assert_eq!(refused("-D -t 10.0.0.100:80"), "No such service");
    assert_eq!(refused("-a -t 10.0.0.100:80 -r 10.1.0.11:80 -m"), "Service not defined");
    ipvsadm("-A -t 10.0.0.100:80");
    assert_eq!(refused("-A -t 10.0.0.100:80"), "Service already exists");
    assert_eq!(refused("-A -t 10.0.0.100:81 -s nosuch"), "Scheduler or persistence engine not found");
    ipvsadm("-a -t 10.0.0.100:80 -r 10.1.0.11:80 -m");
    assert_eq!(refused("-a -t 10.0.0.100:80 -r 10.1.0.11:80 -m"), "Destination already exists");
    assert_eq!(refused("-d -t 10.0.0.100:80 -r 10.1.0.12:80"), "No such destination");
    assert_eq!(refused("-e -t 10.0.0.100:80 -r 10.1.0.12:80 -m"), "No such destination");
    // The gateway's own host is a real server only of what comes to it as it is.
    let said = refused("-a -t 10.0.0.100:80 -r 127.0.0.1 -m");
    assert!(said.contains("address not unicast"), "{said}");
    ipvsadm("-a -t 10.0.0.100:80 -r 127.0.0.1 -g");
    ipvsadm("-d -t 10.0.0.100:80 -r 127.0.0.1");
    // So with the address of one of its ports: in the configuration, or there since.
    for own in ["10.1.0.1", "10.0.0.1"] {
        let add = format!("-a -t 10.0.0.100:80 -r {own}:80 -m");
        assert_eq!(refused(&add), "Cannot assign requested address");
        let mut options = gateway.exec(&lab.gateway, &format!("ipvsadm {add}"));
        let output = options.env("FULLGATE_IPVS_INTERFACE", "options").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.trim() == "Cannot assign requested address", "{said}");
        let output = gateway.cli(&format!("real add -t 10.0.0.100:80 -r {own}:80"));
        let said = String::from_utf8_lossy(&output.stderr);
        let words = format!(
            "{own} is the gateway's own, whose host answers clients itself; allowed: an address of another host"
        );
        assert!(output.status.code() == Some(1) && said.contains(&words), "{said}");
        ipvsadm(&format!("-a -t 10.0.0.100:80 -r {own}:80 -i"));
        ipvsadm(&format!("-d -t 10.0.0.100:80 -r {own}:80"));
    }
    ipvsadm("-a -t 10.0.0.100:80 -r 10.1.0.78:80 -m");
    for later in ["10.1.0.77/24", "10.1.0.78/24"] {
        lab.gateway.ip(&format!("addr add {later} dev fg-lan"));
    }
    wait_for("the address to be the gateway's", PATIENCE, || {
        let output = gateway.try_ipvsadm(&lab.gateway, "-a -t 10.0.0.100:80 -r 10.1.0.77:80 -m");
        if output.status.success() {
            ipvsadm("-d -t 10.0.0.100:80 -r 10.1.0.77:80");
            return None;
        }
        assert_eq!(String::from_utf8_lossy(&output.stderr).trim(), "Cannot assign requested address");
        Some(())
    });
    // A real server whose address a port has got since can still be drained and removed.
    ipvsadm("-e -t 10.0.0.100:80 -r 10.1.0.78:80 -m -w 0");
    ipvsadm("-d -t 10.0.0.100:80 -r 10.1.0.78:80");
    // Nothing of this left anything behind.
    assert_eq!(ipvsadm("-S -n"), "-A -t 10.0.0.100:80 -s wlc\n-a -t 10.0.0.100:80 -r 10.1.0.11:80 -m -w 1\n");
}

#[test]
fn ways_to_real_servers_families_timeouts_and_daemons_are_kept() {
    let (lab, gateway) = lab_with_gateway(1);
    let ipvsadm = |arguments: &str| gateway.ipvsadm(&lab.gateway, arguments);
    let rules = "\
-A -t 10.0.0.100:80 -s rr
-a -t 10.0.0.100:80 -r 10.1.0.13:80 -i -w 1 --tun-type gre --tun-nocsum
-a -t 10.0.0.100:80 -r 10.1.0.12:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum
-a -t 10.0.0.100:80 -r 10.1.0.11:80 -g -w 1
-A -t [2001:db8::64]:443 -s wlc -b flag-3
-A -u 10.0.0.100:53 -s sh -b sh-fallback,sh-port
-a -u 10.0.0.100:53 -r 10.1.0.11:5353 -m -w 7
";
    gateway.ipvsadm_restore(&lab.gateway, rules);
    let mut saved = lines(&ipvsadm("-S -n"));
    let mut expected = lines(rules);
    saved.sort();
    expected.sort();
    assert_eq!(saved, expected);
    // What was saved is what there is after it was restored.
    let before = ipvsadm("-S -n");
    ipvsadm("-C");
    assert_eq!(ipvsadm("-S -n"), "");
    gateway.ipvsadm_restore(&lab.gateway, &before);
    let mut after = lines(&ipvsadm("-S -n"));
    after.sort();
    assert_eq!(after, expected);

    assert_eq!(ipvsadm("-L --timeout").trim(), "Timeout (tcp tcpfin udp): 900 120 300");
    ipvsadm("--set 600 0 60");
    assert_eq!(ipvsadm("-L --timeout").trim(), "Timeout (tcp tcpfin udp): 600 120 60");
    ipvsadm("--start-daemon master --mcast-interface veth-lan --syncid 7");
    assert!(ipvsadm("-L --daemon").starts_with("master sync daemon (mcast=veth-lan, syncid=7"));
    ipvsadm("--stop-daemon master");
    assert_eq!(ipvsadm("-L --daemon").trim(), "");
}

#[test]
fn a_tool_is_told_that_the_gateway_is_away_and_goes_on_when_it_is_back() {
    let (lab, mut gateway) = lab_with_gateway(1);
    gateway.ipvsadm(&lab.gateway, "-A -t 10.0.0.100:80");
    gateway.signal(rustix::process::Signal::TERM);
    gateway.wait(PATIENCE);
    let output = gateway.try_ipvsadm(&lab.gateway, "-L -n");
    assert!(!output.status.success());
    let gateway = Gateway::start(&lab, &Configuration::two_arm());
    let listed = wait_for("services to be back", PATIENCE, || {
        let output = gateway.try_ipvsadm(&lab.gateway, "-S -n");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    assert_eq!(listed, "-A -t 10.0.0.100:80 -s wlc\n");
    assert!(!std::path::Path::new("/proc/net/ip_vs").exists(), "the kernel's IPVS was never loaded");
}
