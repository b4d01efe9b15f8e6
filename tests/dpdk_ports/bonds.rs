//! Bonds, as DPDK's driver makes them of virtual devices.

use fullgate::config::{Device, PortConfig};
use fullgate::dpdk::Port;
use fullgate::port::PortQueue;

use crate::lab::{self, Peer, contents, flows, open, poll, port, transmit, veth, wait_until};

fn bond(name: &str, device: &str, members: &[&str]) -> PortConfig {
    let members = members.iter().map(|member| Device::Vdev((*member).to_owned())).collect();
    PortConfig { members, ..port(name, device) }
}

fn links(port: &Port) -> Vec<bool> {
    port.members().map(|(_, up)| up).collect()
}

/// AF_PACKET's link is always up to the bond: what the kernel knows of it is what counts.
pub fn active_backup_uses_a_member_with_a_link() {
    veth("a0", "b0", 1);
    veth("a1", "b1", 1);
    let members = ["net_af_packet0,iface=a0", "net_af_packet1,iface=a1"];
    let ports = [bond("wan", "net_bonding0,mode=active-backup,primary=net_af_packet0,mac=02:00:00:00:00:01", &members)];
    let (_eal, pool) = lab::eal(&ports, 1);
    let (mut wan, mut queues) = open(&ports, 1, &pool).pop().unwrap();
    assert_eq!((wan.driver(), wan.mac().to_string().as_str()), ("net_bonding", "02:00:00:00:00:01"));
    assert_eq!((links(&wan), wan.link().unwrap().up, wan.stranded()), (vec![true, true], true, None));
    let mut send_by = |end: &str, flow: u16| {
        let peer = Peer::on(end);
        transmit(&mut queues[0], vec![pool.copy_from(&lab::udp(flow, 100)).unwrap()]);
        peer.wait_for(&[lab::udp(flow, 100)]);
    };
    send_by("b0", 1);
    lab::run("ip link set b0 down");
    wait_until("the kernel to see it", || links(&wan) == [false, true]);
    assert_eq!((wan.stranded(), wan.link().unwrap().up), (Some(("net_af_packet0", "net_af_packet1")), true));
    wan.use_member("net_af_packet1").unwrap();
    assert_eq!(wan.stranded(), None);
    send_by("b1", 2);
    lab::run("ip link set b0 up");
    lab::run("ip link set b1 down");
    wait_until("the kernel to see it", || links(&wan) == [true, false]);
    wan.use_member(wan.stranded().unwrap().1).unwrap();
    send_by("b0", 3);
    lab::run("ip link set b0 down");
    wait_until("the bond to be without link", || !wan.link().unwrap().up);
    assert_eq!(wan.stranded(), None, "there is none to go on by");
    assert!(wan.use_member("net_af_packet7").is_err());
    drop(queues);
    wan.close().unwrap();
}

/// Two bonds at the ends of two cables agree by LACP, which needs nothing but that both are polled.
pub fn lacp_brings_two_bonds_together() {
    veth("a0", "b0", 1);
    veth("a1", "b1", 1);
    let bond = |name: &str, number: usize| {
        let members = [0, 1].map(|cable| format!("net_af_packet{}{cable},iface={name}{cable}", number + 1));
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        bond(name, &format!("net_bonding{number},mode=802.3ad,xmit_policy=l34"), &members)
    };
    let ports = [bond("a", 0), bond("b", 1)];
    let (_eal, pool) = lab::eal(&ports, 1);
    let mut opened = open(&ports, 1, &pool);
    let (mut b, mut b_queues) = opened.pop().unwrap();
    let (mut a, mut a_queues) = opened.pop().unwrap();
    let all = flows(20);
    let mut arrived: Vec<Vec<u8>> = Vec::new();
    wait_until("frames of all flows to arrive", || {
        let mut frames: Vec<_> = all.iter().map(|flow| pool.copy_from(flow).unwrap()).collect();
        a_queues[0].transmit(&mut frames);
        let _ = poll(&mut a_queues[0]);
        arrived.extend(contents(&poll(&mut b_queues[0])));
        std::thread::sleep(std::time::Duration::from_millis(5));
        all.iter().all(|flow| arrived.contains(flow))
    });
    let sent = |interface: &str| -> u64 {
        std::fs::read_to_string(format!("/sys/class/net/{interface}/statistics/rx_packets"))
            .map_or(1, |text| text.trim().parse().unwrap())
    };
    assert!(sent("b0") > 0 && sent("b1") > 0, "flows are spread over both cables");
    drop((a_queues, b_queues));
    a.close().unwrap();
    b.close().unwrap();
}
