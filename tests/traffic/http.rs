//! HTTP through virtual services: shares, many connections, large answers.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::lab::client::{answer, ask, connect, get_many};
use crate::lab::frames::Random;
use crate::lab::gateway::{real, vip};
use crate::lab::{Configuration, Gateway, Lab, Nginx, PATIENCE, get, wait_for};

/// A two-arm lab with an nginx on each real server, and its gateway.
fn web_lab(reals: u8, scheduler: &str, weights: &[u32]) -> (Lab, Vec<Nginx>, Gateway) {
    let lab = Lab::two_arm(reals.into(), 1);
    let start =
        |index: u8| Nginx::start(&lab.reals[usize::from(index)], lab.path(), &format!("rs{index}"), real(index, 80));
    let servers = (0..reals).map(start).collect();
    let members: Vec<_> = (0..reals).zip(weights).map(|(index, &weight)| (real(index, 80), weight)).collect();
    let gateway = Gateway::start(&lab, &Configuration::two_arm().with_service("tcp", vip(80), scheduler, &members));
    (lab, servers, gateway)
}

fn is_local_address(source: &str, network: [u8; 3]) -> bool {
    let [a, b, c] = network;
    (200..=203).any(|host| source == Ipv4Addr::new(a, b, c, host).to_string())
}

#[test]
fn two_arms_reach_every_real_server_from_local_addresses() {
    let (lab, _servers, _gateway) = web_lab(2, "rr", &[1, 1]);
    let (names, sources) = get_many(&lab.client, vip(80), 20);
    assert_eq!(names, BTreeMap::from([("rs0".into(), 10), ("rs1".into(), 10)]));
    assert!(sources.keys().all(|source| is_local_address(source, [10, 1, 0])), "{sources:?}");
    assert_eq!(sources.len(), 4, "every local address of the pool gets its turn: {sources:?}");
}

#[test]
fn one_arm_serves_clients_and_real_servers_on_one_port() {
    let lab = Lab::one_arm(2);
    let address = |index: u8| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 11 + index), 80);
    let start =
        |index: u8| Nginx::start(&lab.reals[usize::from(index)], lab.path(), &format!("rs{index}"), address(index));
    let _servers: Vec<_> = (0..2).map(start).collect();
    let configuration =
        Configuration::one_arm().with_service("tcp", vip(80), "rr", &[(address(0), 1), (address(1), 1)]);
    let _gateway = Gateway::start(&lab, &configuration);
    let (names, sources) = get_many(&lab.client, vip(80), 20);
    assert_eq!(names, BTreeMap::from([("rs0".into(), 10), ("rs1".into(), 10)]));
    assert!(sources.keys().all(|source| is_local_address(source, [10, 0, 0])), "{sources:?}");
}

#[test]
fn weighted_round_robin_shares_exactly() {
    let (lab, _servers, _gateway) = web_lab(3, "wrr", &[5, 3, 2]);
    let (names, _) = get_many(&lab.client, vip(80), 100);
    assert_eq!(names, BTreeMap::from([("rs0".into(), 50), ("rs1".into(), 30), ("rs2".into(), 20)]));
}

#[test]
fn least_connections_prefers_the_idle_server() {
    let (lab, _servers, gateway) = web_lab(2, "lc", &[1, 1]);
    let mut open: Vec<_> = lab.client.enter(|| (0..10).map(|_| connect(vip(80)).unwrap()).collect());
    assert_eq!(active(&gateway), [5, 5]);
    let sessions = gateway.sessions();
    open.retain(|stream| {
        let port = stream.local_addr().unwrap().port();
        sessions.iter().any(|session| session.client.port() == port && session.real_server == real(0, 80).into())
    });
    wait_for("the closed connections to be inactive", PATIENCE, || (active(&gateway) == [5, 0]).then_some(()));
    open.extend(lab.client.enter(|| (0..4).map(|_| connect(vip(80)).unwrap()).collect::<Vec<_>>()));
    assert_eq!(active(&gateway), [5, 4]);
}

fn active(gateway: &Gateway) -> Vec<u64> {
    gateway.stats().services[0].real_servers.iter().map(|each| each.active_connections).collect()
}

#[test]
fn ten_thousand_short_connections_lose_nothing() {
    let (lab, _servers, gateway) = web_lab(2, "rr", &[1, 1]);
    let threads: Vec<_> = (0..8)
        .map(|_| lab.client.spawn(|| (0..1250).filter_map(|_| get(vip(80), "/").err()).collect::<Vec<_>>()))
        .collect();
    let failures: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    assert!(failures.is_empty(), "{} of 10000 failed, first: {:?}", failures.len(), failures[0]);
    let stats = gateway.stats();
    assert_eq!(stats.services[0].traffic.connections, 10_000);
    assert!(stats.services[0].real_servers.iter().all(|each| each.traffic.connections == 5_000));
}

#[test]
fn a_thousand_connections_at_once_lose_nothing() {
    let (lab, _servers, gateway) = web_lab(2, "rr", &[1, 1]);
    let failures: Vec<String> = lab.client.enter(|| {
        let mut open: Vec<_> =
            (0..1000).map(|number| connect(vip(80)).unwrap_or_else(|e| panic!("{number}: {e}"))).collect();
        let active: u64 = gateway.stats().services[0].real_servers.iter().map(|each| each.active_connections).sum();
        assert_eq!(active, 1000, "all are open at once");
        open.iter_mut().for_each(|stream| ask(stream, "/").unwrap());
        open.iter_mut().filter_map(|stream| answer(stream).err()).map(|error| error.to_string()).collect()
    });
    assert!(failures.is_empty(), "{} of 1000 failed, first: {}", failures.len(), failures[0]);
}

#[test]
fn a_large_download_arrives_whole() {
    const MEGABYTES: usize = 100;
    let (lab, _servers, _gateway) = web_lab(1, "rr", &[1]);
    let mut random = Random::new(7);
    let block = random.bytes(1 << 20);
    let (mut file, mut sent) = (Vec::new(), DefaultHasher::new());
    for number in 0..MEGABYTES {
        file.extend_from_slice(&number.to_le_bytes());
        file.extend_from_slice(&block[8..]);
    }
    sent.write(&file);
    std::fs::write(lab.path().join("rs0/large.bin"), &file).unwrap();
    let received = lab.client.enter(|| {
        let mut stream = connect(vip(80)).unwrap();
        ask(&mut stream, "/large.bin").unwrap();
        answer(&mut stream).unwrap()
    });
    let mut hash = DefaultHasher::new();
    hash.write(&received);
    assert_eq!((received.len(), hash.finish()), (MEGABYTES << 20, sent.finish()));
}

#[test]
fn a_connection_that_the_gateway_does_not_know_is_reset() {
    let (lab, _servers, mut gateway) = web_lab(1, "rr", &[1]);
    let mut stream = lab.client.enter(|| connect(vip(80))).unwrap();
    gateway.signal(rustix::process::Signal::KILL);
    gateway.wait(Duration::from_secs(5));
    let members = [(real(0, 80), 1)];
    let gateway = Gateway::start(&lab, &Configuration::two_arm().with_service("tcp", vip(80), "rr", &members));
    ask(&mut stream, "/").unwrap();
    let error = stream.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(gateway.stats().resets_sent >= 1);
}
