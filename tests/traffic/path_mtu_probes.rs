//! What people look for path MTUs with: `tracepath` to services over UDP through the gateway, and `ping -M do` to the
//! addresses that answer it, VIP and LIP. Over the links of `path_mtu`; the narrow one is beyond the gateway.
//!
//! `tracepath` sends each probe to the next port, of 64, and knows the end of its way by a refusal: there is a service for each of
//! these ports, and nobody who listens.

use std::net::IpAddr;
use std::ops::Range;

use crate::lab::{Gateway, Namespace, run};
use crate::path_mtu::{Case, NARROW, WIDER, address, net};

/// The ports of a `tracepath -p`.
const PORTS: Range<u16> = 33_434..33_434 + 64;

/// The MTU of the path, and whether its end was reached, as `tracepath` says.
fn traced(from: &Namespace, to: IpAddr) -> (u32, bool) {
    let mut command = from.command("tracepath");
    let said = run(command.args(["-n", "-m", "12", "-p", &PORTS.start.to_string(), &to.to_string()]));
    let resume = said.lines().find_map(|line| line.trim().strip_prefix("Resume: pmtu "));
    let pmtu = resume.and_then(|resume| resume.split_whitespace().next());
    (pmtu.unwrap_or_else(|| panic!("{said}")).parse().unwrap(), said.contains("reached"))
}

fn trace(mut case: Case) {
    case.services = PORTS.map(|port| ("udp", port)).collect();
    let (path, _tunnel) = case.path();
    let gateway = Gateway::start(&path.lab, &case.configuration());
    path.set_mtus(WIDER, NARROW);
    assert_eq!(traced(&path.lab.client, case.vip()), (case.learned.0, true), "{} {:?}", case.mode, case.ipv6);
    let stats = gateway.stats();
    assert_eq!(stats.drops.iter().find(|(reason, _)| reason == "bad_icmp_error").unwrap().1, 0);
}

#[test]
fn tracepath_finds_the_path_mtu_in_every_mode() {
    let ipv4 = (false, false);
    for mode in ["fullnat", "nat", "dr"] {
        trace(Case::new(ipv4, mode, (NARROW, NARROW)));
    }
    trace(Case::tun(ipv4, "", 20));
}

#[test]
fn tracepath_finds_the_path_mtu_over_ipv6() {
    let ipv6 = (true, true);
    for mode in ["fullnat", "nat", "dr"] {
        trace(Case::new(ipv6, mode, (NARROW, NARROW)));
    }
    trace(Case::tun(ipv6, "", 40));
    trace(Case::new((false, true), "fullnat", (NARROW - 20, NARROW + 20)));
}

/// Whether a ping in one piece is answered whose packet has so many bytes, and what was said.
fn ping(from: &Namespace, to: IpAddr, bytes: u32) -> (bool, String) {
    let headers = if to.is_ipv6() { 40 + 8 } else { 20 + 8 };
    let size = (bytes - headers).to_string();
    let mut command = from.command("ping");
    command.args(["-n", "-c", "2", "-i", "0.2", "-W", "2", "-M", "do", "-s", &size, &to.to_string()]);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (output.status.success(), said)
}

#[test]
fn ping_finds_the_path_mtu_to_the_addresses_that_answer() {
    for ipv6 in [false, true] {
        let case = Case::new((ipv6, ipv6), "fullnat", (NARROW, NARROW));
        let (path, _tunnel) = case.path();
        let _gateway = Gateway::start(&path.lab, &case.configuration());
        path.set_mtus(NARROW, NARROW);
        let local = address(ipv6, net::GATEWAY_SERVER, 200);
        for (from, to) in [(&path.lab.client, case.vip()), (case.host(&path), local)] {
            // The first is told, the second is not even sent.
            let (answered, said) = ping(from, to, NARROW + 1);
            assert!(!answered && said.to_lowercase().contains(&format!("mtu={NARROW}")), "{said}");
            let (answered, said) = ping(from, to, NARROW);
            assert!(answered, "{said}");
        }
    }
}
