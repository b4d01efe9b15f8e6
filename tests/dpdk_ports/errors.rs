//! What goes wrong, and how it is told.

use fullgate::config::{DpdkConfig, PortConfig};
use fullgate::dpdk::{Eal, MemPool, Port};
use fullgate::port::PortId;

use crate::lab::{self, dpdk, key, port, veth, workers};

fn init_error(dpdk: &DpdkConfig, ports: &[PortConfig]) -> String {
    Eal::init(dpdk, ports, &workers(1)).unwrap_err().to_string()
}

fn open_error(config: &PortConfig, workers: u16, pool: &MemPool) -> String {
    Port::open(config, PortId(0), workers, pool, &key()).unwrap_err().to_string()
}

fn assert_says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

pub fn before_the_eal() {
    let missing = port("wan", "net_af_xdp0,iface=nosuch0");
    let error = init_error(&dpdk(256), &[missing]);
    assert_says(&error, &["port \"wan\"", "net_af_xdp0,iface=nosuch0", "no interface \"nosuch0\""]);
    // The EAL was not touched: it still can be had, once.
    let (eal, pool) = lab::eal(&[port("lan", "net_null0")], 1);
    assert_says(&init_error(&dpdk(256), &[]), &["initialised already"]);
    drop((eal, pool));
}

pub fn of_devices() {
    let error = init_error(&dpdk(256), &[port("wan", "net_nosuchdriver0,x=y")]);
    assert_says(&error, &["port \"wan\"", "net_nosuchdriver0,x=y", "gave no DPDK port", "DPDK says"]);
}

pub fn of_ports() {
    veth("a0", "a1", 1);
    let wan = port("wan", "net_af_packet0,iface=a0");
    let (_eal, pool) = lab::eal(std::slice::from_ref(&wan), 1);
    assert_says(&open_error(&wan, 2, &pool), &["port \"wan\"", "1 transmit queues at most", "2 workers", "qpairs="]);
    let jumbo = PortConfig { mtu: Some(9000), ..wan.clone() };
    assert_says(&open_error(&jumbo, 1, &pool), &["port \"wan\"", "MTU 9000", "mtu"]);
    let _open = Port::open(&wan, PortId(0), 1, &pool, &key()).unwrap();
    assert_says(&open_error(&wan, 1, &pool), &["port \"wan\"", "busy"]);

    veth("b0", "b1", 1);
    lab::run("ip link set b1 down");
    let lan = PortConfig { link_timeout_milliseconds: 50, ..port("lan", "net_af_packet1,iface=b0") };
    assert_says(&open_error(&lan, 1, &pool), &["port \"lan\" without link", "50 ms"]);
    lab::run("ip link set b1 up");
    assert!(Port::open(&lan, PortId(1), 1, &pool, &key()).is_ok());
    lab::run("ip link del b0");
    let gone = port("lan", "net_af_xdp2,iface=b0");
    assert_says(&open_error(&gone, 1, &pool), &["port \"lan\"", "net_af_xdp2", "DPDK says"]);
}

pub fn of_memory() {
    let ports = [port("wan", "net_null0")];
    let eal = Eal::init(&dpdk(32), &ports, &workers(1)).unwrap();
    let dpdk = DpdkConfig { mbufs: Some(100_000), ..dpdk(32) };
    let error = MemPool::create(&eal, &dpdk, &ports, 1, 0).unwrap_err().to_string();
    assert_says(&error, &["100000 packet buffers", "MB", "hugepage-setup", "--no-huge", "mbufs"]);
}

/// Asks for more hugepages than any machine of a test has.
pub fn without_hugepages() {
    let asked = DpdkConfig { eal_args: ["-m", "99999999"].map(str::to_owned).into(), mbufs: None };
    let error = init_error(&asked, &[port("wan", "net_null0")]);
    assert_says(&error, &["99999999 MB", "MB of hugepages", "hugepage-setup", "--no-huge"]);
}
