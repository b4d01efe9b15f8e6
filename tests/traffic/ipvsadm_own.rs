//! `fullgate ipvsadm` on a gateway with traffic: it and the unmodified ipvsadm list and save the same, what the one makes
//! the other changes, and the options of Alibaba's fork make FULLNAT services.

use std::io::Write;
use std::process::{Output, Stdio};
use std::time::Instant;

use crate::lab::gateway::{FULLGATE, real, vip};
use crate::lab::{Configuration, Gateway, Lab, Nginx, get};

/// Runs `fullgate ipvsadm ARGUMENTS` with this on its standard input.
fn own_with(lab: &Lab, gateway: &Gateway, arguments: &str, input: &str) -> Output {
    let mut command = lab.gateway.command(FULLGATE);
    command.arg("ipvsadm").args(arguments.split_whitespace()).env("FULLGATE_SOCKET", gateway.socket());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that reads nothing of it may be gone.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// What `fullgate ipvsadm ARGUMENTS` says; it must succeed.
fn own(lab: &Lab, gateway: &Gateway, arguments: &str) -> String {
    let output = own_with(lab, gateway, arguments, "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ipvsadm {arguments}: {}: {said}\n{}", output.status, gateway.log());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What it is refused with, and its exit status.
fn refused(lab: &Lab, gateway: &Gateway, arguments: &str) -> (i32, String) {
    let output = own_with(lab, gateway, arguments, "");
    assert!(!output.status.success(), "ipvsadm {arguments}");
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

#[test]
fn it_and_the_unmodified_tool_say_the_same_of_a_gateway_with_traffic() {
    let lab = Lab::two_arm(2, 1);
    let gateway = Gateway::start(&lab, &Configuration::two_arm());
    let _servers: Vec<_> = (0..2)
        .map(|index: u8| {
            Nginx::start(&lab.reals[usize::from(index)], lab.path(), &format!("rs{index}"), real(index, 80))
        })
        .collect();
    own(&lab, &gateway, "-A -t 10.0.0.100:80 -s rr -b flag-3");
    own(&lab, &gateway, "-a -t 10.0.0.100:80 -r 10.1.0.11:80 -m");
    gateway.ipvsadm(&lab.gateway, "-a -t 10.0.0.100:80 -r 10.1.0.12:80 -m -w 3 -x 100 -y 50");
    own(&lab, &gateway, "-A -u 10.0.0.100:53 -s sh -b sh-port");
    own(&lab, &gateway, "-a -u 10.0.0.100:53 -r 10.1.0.11 -i --tun-type gue --tun-port 6080");
    own(&lab, &gateway, "-A -t [2001:db8::64]:443");
    for _ in 0..4 {
        lab.client.enter(|| get(vip(80), "/")).unwrap();
    }
    for arguments in [
        "-Ln",
        "-L -n --nosort",
        "-L -n --stats",
        "-L -n --stats --exact",
        "-L -n --thresholds",
        "-L -n --persistent-conn",
        "-L -n --tun-info",
        "-L -n -t 10.0.0.100:80 --stats",
        "-L --timeout",
        "-L --daemon",
        "-S -n",
    ] {
        assert_eq!(own(&lab, &gateway, arguments), gateway.ipvsadm(&lab.gateway, arguments), "{arguments}");
    }
    // Seconds until they expire pass between the two.
    let connections = |text: &str| {
        let words = |line: &str| {
            line.split_whitespace()
                .enumerate()
                .filter(|(index, _)| *index != 1)
                .map(|(_, word)| word.to_owned())
                .collect::<Vec<_>>()
        };
        let mut lines = text.lines().map(words).collect::<Vec<_>>();
        lines.sort();
        lines
    };
    let (ours, theirs) = (own(&lab, &gateway, "-L -n -c"), gateway.ipvsadm(&lab.gateway, "-L -n -c"));
    assert_eq!(connections(&ours), connections(&theirs));
    assert_eq!(ours.lines().filter(|line| line.contains("10.0.0.100:80")).count(), 4, "{ours}");
    own(&lab, &gateway, "-Z");
    let stats = own(&lab, &gateway, "-L -n --stats --exact");
    assert!(
        stats.lines().any(|line| line.split_whitespace().eq(["TCP", "10.0.0.100:80", "0", "0", "0", "0", "0"])),
        "{stats}"
    );

    assert_eq!(refused(&lab, &gateway, "-A -t 10.0.0.100:80"), (255, "Service already exists".to_owned()));
    assert_eq!(refused(&lab, &gateway, "-L -n -t 10.0.0.100:81"), (1, "No such service".to_owned()));
    own(&lab, &gateway, "--set 600 0 60");
    assert_eq!(own(&lab, &gateway, "-L --timeout"), "Timeout (tcp tcpfin udp): 600 120 60\n");
    own(&lab, &gateway, "-C");
    assert_eq!(own(&lab, &gateway, "-Sn"), "");
}

/// Packets dropped for want of a local address.
fn drops(gateway: &Gateway) -> u64 {
    let drops = gateway.stats().drops;
    drops.into_iter().find(|(reason, _)| reason == "no_local_address").unwrap().1
}

#[test]
fn the_forks_options_make_a_fullnat_service_with_a_pool_of_its_own() {
    let lab = Lab::two_arm(1, 1);
    let gateway = Gateway::start(&lab, &Configuration::two_arm());
    let _server = Nginx::start(&lab.reals[0], lab.path(), "rs0", real(0, 80));
    own(&lab, &gateway, "-A -t 10.0.0.100:80 -s rr -j disable");
    own(&lab, &gateway, "-P -t 10.0.0.100:80 -z 10.1.0.230");
    own(&lab, &gateway, "-P -t 10.0.0.100:80 -z 10.1.0.231");
    own(&lab, &gateway, "-a -t 10.0.0.100:80 -r 10.1.0.11:80 -b -w 2");
    let listed = gateway.json("service list");
    assert_eq!(listed[0]["local_pool"], "tcp-10-0-0-100-80", "{listed}");
    assert_eq!(listed[0]["real_servers"][0]["mode"], "fullnat", "{listed}");
    lab.client.enter(|| get(vip(80), "/")).unwrap();
    let sessions = gateway.json("session list");
    let local = sessions[0]["local"].as_str().unwrap().to_owned();
    assert!(local.starts_with("10.1.0.23"), "{sessions}");

    let table = own(&lab, &gateway, "-G -t 10.0.0.100:80");
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["VIP:VPORT", "TOTAL", "SNAT_IP", "CONFLICTS", "CONNS"]);
    assert_eq!(words[1], ["10.0.0.100:80", "2"]);
    assert_eq!((words[2][0], words[3][0]), ("10.1.0.230", "10.1.0.231"), "{table}");
    own(&lab, &gateway, "-Q -t 10.0.0.100:80 -z 10.1.0.230");
    assert!(!own(&lab, &gateway, "-G").contains("10.1.0.230"));
    own(&lab, &gateway, "-e -t 10.0.0.100:80 -r 10.1.0.11:80 -b -w 5");
    assert_eq!(
        own(&lab, &gateway, "-Sn"),
        "-A -t 10.0.0.100:80 -s rr -b flag-3\n-a -t 10.0.0.100:80 -r 10.1.0.11:80 -m -w 5\n"
    );
    // The last one can go, too: what is there stays, what is new is a drop that says why.
    own(&lab, &gateway, "-Q -t 10.0.0.100:80 -z 10.1.0.231");
    let listed = gateway.command("service list");
    assert!(listed.contains("TCP  10.0.0.100:80 rr tcp-10-0-0-100-80 (no local address: no new sessions)"), "{listed}");
    let pools = gateway.command("local list tcp-10-0-0-100-80");
    assert!(pools.contains("no address: new sessions are dropped"), "{pools}");
    let refused_before = drops(&gateway);
    lab.client
        .enter(|| std::net::TcpStream::connect_timeout(&vip(80).into(), std::time::Duration::from_secs(1)))
        .unwrap_err();
    assert!(drops(&gateway) > refused_before);
    own(&lab, &gateway, "-P -t 10.0.0.100:80 -z 10.1.0.231");
    lab.client.enter(|| get(vip(80), "/")).unwrap();
    // A pool that was made for a service goes with it.
    own(&lab, &gateway, "-D -t 10.0.0.100:80");
    let pools = gateway.json("local list");
    let own_pool = pools.as_array().unwrap().iter().find(|pool| pool["name"] == "tcp-10-0-0-100-80");
    assert!(own_pool.is_none_or(|pool| pool["ports"] == "" && pool["addresses"][0]["withdrawn"] == true), "{pools}");
    own(&lab, &gateway, "-A -t 10.0.0.100:80");
    own(&lab, &gateway, "-P -t 10.0.0.100:80 -z 10.1.0.231");
    assert_eq!(gateway.json("service list")[0]["local_pool"], "tcp-10-0-0-100-80");

    let (status, said) = refused(&lab, &gateway, "-E -t 10.0.0.100:80 -j enable");
    assert_eq!((status, said.contains("allowed with --synproxy is disable")), (2, true), "{said}");
    let (_, said) = refused(&lab, &gateway, "-P -t 10.0.0.100:81 -z 10.1.0.240");
    assert!(said.contains("10.0.0.100:81"), "{said}");
    own(&lab, &gateway, "-A -t 10.0.0.100:81");
    let (_, said) = refused(&lab, &gateway, "-P -t 10.0.0.100:81 -z 203.0.113.1");
    assert!(said.contains("is in no port's network"), "{said}");
    let (_, said) = refused(&lab, &gateway, "-a -t 10.0.0.100:81 -r 10.1.0.11:80 -b");
    assert!(said.contains("has no local address"), "{said}");
}

#[test]
fn many_rules_are_restored_over_one_connection_and_an_error_names_its_line() {
    let lab = Lab::two_arm(1, 1);
    let gateway = Gateway::start(&lab, &Configuration::two_arm());
    let mut rules = String::new();
    for service in 0..3_000_u32 {
        let port = 10_000 + service;
        rules.push_str(&format!("-A -t 10.0.0.100:{port} -s rr\n"));
        for server in 11..15 {
            rules.push_str(&format!("-a -t 10.0.0.100:{port} -r 10.1.0.{server}:80 -m -w 1\n"));
        }
    }
    let begun = Instant::now();
    let output = own_with(&lab, &gateway, "-R", &rules);
    println!("{} rules in {:?}", rules.lines().count(), begun.elapsed());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(own(&lab, &gateway, "-Sn"), rules);

    let wrong = "-C\n\n-A -t 10.0.0.100:80\nipvsadm -A -t 10.0.0.100:80\n-A -t 10.0.0.100:81\n-A -t nonsense\n-C\n";
    let output = own_with(&lab, &gateway, "-R", wrong);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "line 4: Service already exists\nline 6: illegal virtual server address[:port] specified\n"
    );
    assert_eq!(own(&lab, &gateway, "-Sn"), "-A -t 10.0.0.100:80 -s wlc\n-A -t 10.0.0.100:81 -s wlc\n");
}
