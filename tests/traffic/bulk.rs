//! Thousands of services by ipvsadm while traffic flows: what is saved is what was restored, nothing takes long, and not
//! a packet of anybody else's is lost.

use std::time::{Duration, Instant};

use crate::lab::gateway::{real, vip};
use crate::lab::{Configuration, Gateway, Lab, Load, Namespace, Nginx};

/// Times are asked for in a release build only, which is what users have.
const SERVICES: u32 = if cfg!(debug_assertions) { 500 } else { 3_000 };

/// Looks three times, of which the quickest counts: others use the machine, too.
fn looked<T>(what: &str, limit: Duration, look: impl Fn() -> T) -> T {
    let once = || {
        let started = Instant::now();
        (look(), started.elapsed())
    };
    let (seen, took) = [once(), once(), once()].into_iter().min_by_key(|(_, took)| *took).unwrap();
    println!("{what}: {took:?}");
    assert!(cfg!(debug_assertions) || took < limit, "{what} took {took:?}");
    seen
}

/// Does something, says how long it took, and in a release build asks that it took no longer than this.
fn timed<T>(what: &str, limit: Duration, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let outcome = work();
    let took = started.elapsed();
    println!("{what}: {took:?}");
    assert!(cfg!(debug_assertions) || took < limit, "{what} took {took:?}");
    outcome
}

/// A service of port 80 on an address of its own, with four real servers.
fn rules() -> String {
    let mut rules = String::new();
    for service in 0..SERVICES {
        let (high, low) = (service / 250, service % 250 + 1);
        rules.push_str(&format!("-A -t 10.9.{high}.{low}:80 -s wlc -b flag-3\n"));
        for server in 1..=4 {
            rules.push_str(&format!(
                "-a -t 10.9.{high}.{low}:80 -r 10.{}.{high}.{low}:8080 -m -w {server}\n",
                10 + server
            ));
        }
    }
    rules
}

/// Segments that client and server sent a second time, but for those that the other already had and said so (RFC 2883): on
/// a busy machine they ask again after some milliseconds (RFC 8985, tail loss probes) although nothing was lost.
fn lost_segments(lab: &Lab) -> [i64; 2] {
    let count = |host: &Namespace, protocol, names: &[&str]| -> i64 {
        names.iter().map(|name| host.snmp(protocol, name) as i64).sum()
    };
    let lost = |from: &Namespace, to: &Namespace| {
        count(from, "Tcp", &["RetransSegs"]) - count(to, "TcpExt", &["TCPDSACKOldSent", "TCPDSACKOfoSent"])
    };
    [lost(&lab.client, &lab.reals[0]), lost(&lab.reals[0], &lab.client)]
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn thousands_of_services_come_and_go_while_traffic_flows() {
    let lab = Lab::two_arm(1, 1);
    let _server = Nginx::start(&lab.reals[0], lab.path(), "rs0", real(0, 80));
    let configuration = Configuration::two_arm().with_service("tcp", vip(80), "rr", &[(real(0, 80), 1)]);
    let gateway = Gateway::start(&lab, &configuration);
    let own = gateway.ipvsadm(&lab.gateway, "-S -n");
    let rules = rules();
    let load = Load::start_paced(&lab.client, vip(80), 4, Duration::from_millis(1));
    load.wait_for_more(100);
    let (drops, served) = (gateway.stats().drops, load.done());

    timed("restoring", Duration::from_secs(10), || gateway.ipvsadm_restore(&lab.gateway, &rules));
    let saved = looked("saving", Duration::from_secs(1), || gateway.ipvsadm(&lab.gateway, "-S -n"));
    assert_eq!(sorted(&saved), sorted(&format!("{own}{rules}")));
    let listed = looked("listing", Duration::from_secs(1), || gateway.ipvsadm(&lab.gateway, "-L -n"));
    assert_eq!(listed.lines().count(), saved.lines().count() + 3);
    // `ipvsadm -S -n | ipvsadm -R` onto nothing: all but the service that carries the load goes first.
    let others: Vec<_> = saved.lines().filter(|line| !own.contains(line.trim_end())).collect();
    let removals: String =
        (0..SERVICES).map(|service| format!("-D -t 10.9.{}.{}:80\n", service / 250, service % 250 + 1)).collect();
    timed("removing", Duration::from_secs(10), || gateway.ipvsadm_restore(&lab.gateway, &removals));
    assert_eq!(gateway.ipvsadm(&lab.gateway, "-S -n"), own);
    timed("restoring what was saved", Duration::from_secs(10), || {
        gateway.ipvsadm_restore(&lab.gateway, &(others.join("\n") + "\n"));
    });
    assert_eq!(gateway.ipvsadm(&lab.gateway, "-S -n"), saved);

    assert!(load.done() > served);
    println!("{} requests answered meanwhile", load.done() - served);
    assert_eq!(load.finish(), Vec::<String>::new());
    let after = gateway.stats().drops;
    assert_eq!(after, drops, "nothing was dropped");
    assert_eq!(lost_segments(&lab), [0, 0], "nor was anything lost without the gateway's noticing");
}
