//! The other ways in which tools speak to IPVS: socket options, files of /proc/net, and a daemon that is hung.

use std::io::Read;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::lab::client::get_many;
use crate::lab::gateway::{real, vip};
use crate::lab::ipvs::Director;
use crate::lab::{Configuration, Gateway, Lab, Nginx, PATIENCE, wait_for};

fn lab_with_gateway(cores: &str) -> (Lab, Gateway) {
    let lab = Lab::two_arm(2, cores.split(',').count());
    let configuration = Configuration { cores: cores.into(), ..Configuration::two_arm() };
    let gateway = Gateway::start(&lab, &configuration);
    (lab, gateway)
}

fn web_servers(lab: &Lab) -> Vec<Nginx> {
    let start =
        |index: u8| Nginx::start(&lab.reals[usize::from(index)], lab.path(), &format!("rs{index}"), real(index, 80));
    (0..2).map(start).collect()
}

/// ipvsadm that finds no netlink family and falls back to socket options.
fn by_options(gateway: &Gateway, lab: &Lab, arguments: &str) -> (bool, String) {
    let mut command = gateway.exec(&lab.gateway, &format!("ipvsadm {arguments}"));
    let output = command.env("FULLGATE_IPVS_INTERFACE", "options").output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn ipvsadm_manages_the_gateway_by_socket_options() {
    let (lab, gateway) = lab_with_gateway("[0]");
    let _servers = web_servers(&lab);
    let ipvsadm = |arguments: &str| {
        let (success, said) = by_options(&gateway, &lab, arguments);
        assert!(success, "ipvsadm {arguments}: {said}\n{}", gateway.log());
        said
    };
    // IPv6 is what this interface has not: that nothing of it is listed shows that it is in use.
    gateway.ipvsadm(&lab.gateway, "-A -t [2001:db8::64]:443 -s wlc");
    ipvsadm("-A -t 10.0.0.100:80 -s wrr -b flag-3");
    ipvsadm("-a -t 10.0.0.100:80 -r 10.1.0.11:80 -m -w 1");
    ipvsadm("-a -t 10.0.0.100:80 -r 10.1.0.12:80 -m -w 2 -x 900 -y 10");
    assert_eq!(get_many(&lab.client, vip(80), 9).0, [("rs0".into(), 3), ("rs1".into(), 6)].into());
    ipvsadm("-E -t 10.0.0.100:80 -s rr -b flag-3");
    ipvsadm("-e -t 10.0.0.100:80 -r 10.1.0.12:80 -m -w 5");
    let rules = [
        "-A -t 10.0.0.100:80 -s rr -b flag-3",
        "-a -t 10.0.0.100:80 -r 10.1.0.11:80 -m -w 1",
        "-a -t 10.0.0.100:80 -r 10.1.0.12:80 -m -w 5",
    ];
    assert_eq!(ipvsadm("-S -n").lines().collect::<Vec<_>>(), rules);
    // Both interfaces tell the same counters.
    for arguments in
        ["-L -n -t 10.0.0.100:80", "-L -n -t 10.0.0.100:80 --stats --exact", "-L -n -t 10.0.0.100:80 --thresholds"]
    {
        assert_eq!(ipvsadm(arguments), gateway.ipvsadm(&lab.gateway, arguments), "{arguments}");
    }
    ipvsadm("-Z -t 10.0.0.100:80");
    ipvsadm("--set 600 0 60");
    assert_eq!(ipvsadm("-L --timeout").trim(), "Timeout (tcp tcpfin udp): 600 120 60");
    ipvsadm("--start-daemon backup --mcast-interface fg-lan --syncid 9");
    assert!(ipvsadm("-L --daemon").starts_with("backup sync daemon (mcast=fg-lan, syncid=9"));
    ipvsadm("--stop-daemon backup");
    let refused = |arguments: &str| by_options(&gateway, &lab, arguments).1.trim().to_owned();
    assert_eq!(refused("-A -t 10.0.0.100:80"), "Service already exists");
    assert_eq!(refused("-d -t 10.0.0.100:80 -r 10.1.0.13:80"), "No such destination");
    ipvsadm("-d -t 10.0.0.100:80 -r 10.1.0.11:80");
    ipvsadm("-D -t 10.0.0.100:80");
    assert_eq!(refused("-D -t 10.0.0.100:80"), "No such service");
    ipvsadm("-C");
    assert_eq!(gateway.ipvsadm(&lab.gateway, "-S -n"), "", "IPv6, too");
}

#[test]
fn files_of_proc_net_tell_what_there_is() {
    let (lab, gateway) = lab_with_gateway("[0, 1]");
    let _servers = web_servers(&lab);
    gateway.ipvsadm(&lab.gateway, "-A -t 10.0.0.100:80 -s rr -b flag-3");
    gateway.ipvsadm(&lab.gateway, "-a -t 10.0.0.100:80 -r 10.1.0.11:80 -m");
    gateway.ipvsadm(&lab.gateway, "-a -t 10.0.0.100:80 -r 10.1.0.12:80 -m");
    get_many(&lab.client, vip(80), 16);
    let cat = |name: &str| {
        let output = gateway.exec(&lab.gateway, &format!("cat /proc/net/{name}")).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let services = cat("ip_vs");
    assert!(services.contains("\nTCP  0A000064:0050 rr "), "{services}");
    assert!(services.contains("\n  -> 0A01000B:0050      Masq    1 "), "{services}");
    let connections = cat("ip_vs_conn");
    let lines: Vec<_> = connections.lines().skip(1).collect();
    assert_eq!(lines.len(), 16, "{connections}");
    assert!(
        lines.iter().all(|line| line.starts_with("TCP 0A00000A ") && line.contains(" 0A000064 0050 0A0100")),
        "{connections}"
    );
    let number = |word: &str| u64::from_str_radix(word, 16).unwrap();
    let total: Vec<_> = cat("ip_vs_stats").lines().nth(2).unwrap().split_whitespace().map(number).collect();
    assert_eq!(total[0], 16);
    // A line a worker, which together make the whole.
    let by_worker = cat("ip_vs_stats_percpu");
    let rows: Vec<Vec<_>> = by_worker.lines().skip(2).take(3).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), ["0", "1", "~"], "{by_worker}");
    for column in 1..=5 {
        assert_eq!(number(rows[0][column]) + number(rows[1][column]), number(rows[2][column]), "{by_worker}");
        assert_eq!(number(rows[2][column]), total[column - 1], "{by_worker}");
    }
    gateway.ipvsadm(&lab.gateway, "-C");
    assert!(
        cat("ip_vs_stats").lines().nth(2).unwrap().trim().starts_with("10 "),
        "what services carried that are gone stays"
    );
    gateway.ipvsadm(&lab.gateway, "-Z");
    assert_eq!(cat("ip_vs_stats").lines().nth(2).unwrap().split_whitespace().collect::<Vec<_>>(), ["0"; 5]);
    assert!(!cat("dev").is_empty(), "other files are the kernel's");
    let output = gateway.exec(&lab.gateway, "cat /proc/net/ip_vs_app").output().unwrap();
    assert!(!output.status.success(), "a file that there is not");
}

/// Programs that are not built on libnl, as ipvsadm and keepalived are.
#[test]
fn netlink_is_understood_by_whichever_functions_it_is_spoken() {
    let (lab, gateway) = lab_with_gateway("[0]");
    gateway.ipvsadm(&lab.gateway, "-A -t 10.0.0.100:80 -s rr");
    gateway.ipvsadm(&lab.gateway, "-A -u 10.0.0.101:53 -s rr");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/ask_ipvs.py");
    for way in ["send", "sendto", "sendmsg"] {
        let output = gateway.exec(&lab.gateway, &format!("python3 {script} {way}")).output().unwrap();
        let mut listed: Vec<_> = std::str::from_utf8(&output.stdout).unwrap().lines().collect();
        listed.sort_unstable();
        let services = ["17 10.0.0.101 53", "6 10.0.0.100 80"];
        assert_eq!(listed, services, "{way}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Has that many sessions begin.
fn begin_sessions(lab: &Lab, gateway: &Gateway, sessions: u16) {
    const FIRST: u16 = 20_000;
    let begun = || u16::try_from(gateway.stats().workers[0].sessions).unwrap();
    wait_for("all sessions", PATIENCE, || {
        // What was lost on the way is sent again.
        lab.client.enter(|| {
            for port in FIRST..FIRST + sessions {
                UdpSocket::bind((Ipv4Addr::new(10, 0, 0, 10), port)).unwrap().send_to(b"?", vip(53)).unwrap();
            }
        });
        (begun() == sessions).then_some(())
    });
}

/// Whoever reads them slowly holds nobody up, and is told where the list is cut short.
#[test]
fn connections_are_listed_as_they_are_read() {
    const SESSIONS: u16 = 20_000;
    let lab = Lab::two_arm(1, 1);
    let mut gateway =
        Gateway::start(&lab, &Configuration::two_arm().with_service("udp", vip(53), "rr", &[(real(0, 53), 1)]));
    begin_sessions(&lab, &gateway, SESSIONS);
    let read = |command: &str| {
        let mut command = gateway.exec(&lab.gateway, command);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut slow: Vec<_> = (0..20).map(|_| read("cat /proc/net/ip_vs_conn")).collect();
    for reader in &mut slow {
        reader.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    }
    let whole = read("wc -l /proc/net/ip_vs_conn").wait_with_output().unwrap();
    assert!(String::from_utf8(whole.stdout).unwrap().starts_with(&format!("{} ", SESSIONS + 1)));
    let first = read("head -n 2 /proc/net/ip_vs_conn").wait_with_output().unwrap();
    assert!(String::from_utf8(first.stdout).unwrap().contains("\nUDP 0A00000A "));
    assert_eq!(gateway.sessions().len(), usize::from(SESSIONS));
    gateway.signal(Signal::KILL);
    gateway.wait(PATIENCE);
    for reader in slow {
        let output = reader.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains("Connection reset by peer"), "{said}");
        assert!(output.stdout.split(|&byte| byte == b'\n').count() < usize::from(SESSIONS));
    }
}

/// A FULLNAT service whose real servers are checked every second.
fn two_real_servers() -> String {
    let real_server = |address: &str| {
        format!("real_server {address} 80 {{\n weight 1\n TCP_CHECK {{\n connect_timeout 1\n retry 0\n }}\n}}\n")
    };
    let real_servers = real_server("10.1.0.11") + &real_server("10.1.0.12");
    let service = "delay_loop 1\n lb_algo rr\n lb_kind NAT\n flag-3\n protocol TCP";
    format!("virtual_server 10.0.0.100 80 {{\n {service}\n{real_servers}}}\n")
}

/// Stopped, as a daemon is that hangs: it takes connections and messages, and answers nothing.
#[test]
fn a_hung_gateway_is_busy_after_ten_seconds_and_keepalived_goes_on_when_it_is_back() {
    let (lab, gateway) = lab_with_gateway("[0]");
    let mut servers: Vec<_> = web_servers(&lab).into_iter().map(Some).collect();
    let text = two_real_servers();
    let mut keepalived = Director::keepalived(&gateway, &lab.gateway, lab.path(), &text);
    let rules = |count: usize| {
        wait_for(&format!("{count} rules"), PATIENCE, || {
            let output = gateway.try_ipvsadm(&lab.gateway, "-S -n");
            (output.status.success() && output.stdout.split(|byte| *byte == b'\n').count() == count + 1).then_some(())
        });
    };
    rules(3);
    let before = keepalived.cpu_time();
    gateway.signal(Signal::STOP);
    let asked = Instant::now();
    let question = by_netlink(&gateway, &lab);
    let took = asked.elapsed();
    assert!(question.contains("busy"), "{question}");
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(60), "{took:?}");
    // A real server dies meanwhile, and another comes to nothing: nobody can check either.
    servers[1] = None;
    let log = "Removing service [10.1.0.11]:tcp:80";
    wait_for("keepalived to try", PATIENCE, || keepalived.log().contains(log).then_some(()));
    gateway.signal(Signal::CONT);
    rules(2);
    assert_eq!(get_many(&lab.client, vip(80), 4).0, [("rs0".into(), 4)].into());
    let used = keepalived.cpu_time() - before;
    assert!(keepalived.is_running() && used < Duration::from_secs(1), "keepalived used {used:?}");
}

#[test]
fn keepalived_starts_with_the_gateway_only() {
    let (lab, mut gateway) = lab_with_gateway("[0]");
    gateway.signal(Signal::TERM);
    gateway.wait(PATIENCE);
    let text = two_real_servers();
    let mut early = Director::keepalived(&gateway, &lab.gateway, lab.path(), &text);
    wait_for("keepalived to give up", PATIENCE, || (!early.is_running()).then_some(()));
    let gateway = Gateway::start(&lab, &Configuration::two_arm());
    let _keepalived = Director::keepalived(&gateway, &lab.gateway, lab.path(), &text);
    wait_for("its service", PATIENCE, || {
        gateway.ipvsadm(&lab.gateway, "-S -n").starts_with("-A -t 10.0.0.100:80").then_some(())
    });
}

/// What `ipvsadm -L` says that cannot fall back to socket options.
fn by_netlink(gateway: &Gateway, lab: &Lab) -> String {
    let mut command: Command = gateway.exec(&lab.gateway, "ipvsadm -L -n");
    String::from_utf8(command.output().unwrap().stderr).unwrap()
}
