//! Datagrams larger than a packet, both ways through every mode, over IPv4 and IPv6, with one worker and two; and links of different
//! sizes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::lab::gateway::port;
use crate::lab::servers::Decapsulation;
use crate::lab::{Configuration, Gateway, Lab, Namespace, PATIENCE, wait_for};

/// What is sent: in one piece, in a few, in many.
const SIZES: [usize; 4] = [100, 3000, 8_000, 60_000];
const ROUNDS: u8 = 5;

/// A UDP server that answers each datagram with its own content, from wherever it was sent to; ended when dropped.
struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start(namespace: &Namespace, address: SocketAddr) -> Self {
        let socket = namespace.enter(|| UdpSocket::bind(address)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = namespace.spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((size, source)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..size], source);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends datagrams of each size from some sockets, and looks at what comes back.
fn exchange(lab: &Lab, gateway: &Gateway, client: IpAddr, vip: SocketAddr) {
    lab.client.enter(|| {
        for socket in 0..4_u8 {
            let own = UdpSocket::bind((client, 0)).unwrap();
            own.connect(vip).unwrap();
            own.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            for (round, size) in (0..ROUNDS).flat_map(|round| SIZES.map(|size| (round, size))) {
                let sent: Vec<u8> = (0..size).map(|n| (n % 251) as u8 ^ round ^ socket << 4).collect();
                own.send(&sent).unwrap();
                let mut buffer = vec![0; 65_536];
                let got =
                    own.recv(&mut buffer).unwrap_or_else(|error| panic!("{size} bytes: {error}: {:?}", lost(gateway)));
                assert!(buffer[..got] == sent, "{size} bytes came back as {got}");
            }
        }
    });
    assert_eq!(lost(gateway), [] as [(String, u64); 0]);
    let fragments = gateway.stats().fragments;
    assert!(fragments.forwarded > 4 * u64::from(ROUNDS) * 40 && fragments.waiting == 0, "{fragments:?}");
}

/// Drops that have to do with fragments, or with too little room.
fn lost(gateway: &Gateway) -> Vec<(String, u64)> {
    let telling = |name: &str| name.contains("fragment") || ["too_big", "no_buffer", "hand_over_full"].contains(&name);
    gateway.stats().drops.into_iter().filter(|(name, count)| *count > 0 && telling(name)).collect()
}

/// A UDP service on one real server.
fn service(vip: SocketAddr, mode: &str, real: SocketAddr) -> String {
    let pool = if mode == "fullnat" { "local_pool = \"lan\"\n" } else { "" };
    format!(
        "[[service]]\nvip = \"{vip}\"\nprotocol = \"udp\"\nscheduler = \"rr\"\nmode = \"{mode}\"\n{pool}\n\
         [[service.real_server]]\naddress = \"{real}\"\n"
    )
}

/// The addresses of a test: IPv4 or IPv6.
struct Plan {
    client: &'static str,
    vip: &'static str,
    real: &'static str,
    wan: [&'static str; 2],
    lan: [&'static str; 1],
    pool: &'static str,
}

const IPV4: Plan = Plan {
    client: "10.0.0.10",
    vip: "10.0.0.100",
    real: "10.1.0.11",
    wan: ["10.0.0.1/24", "10.0.0.100/32"],
    lan: ["10.1.0.1/24"],
    pool: "10.1.0.200-10.1.0.203",
};
const IPV6: Plan = Plan {
    client: "2001:db8::10",
    vip: "2001:db8::100",
    real: "2001:db8:1::11",
    wan: ["2001:db8::1/64", "2001:db8::100/128"],
    lan: ["2001:db8:1::1/64"],
    pool: "2001:db8:1::200-2001:db8:1::203",
};

impl Plan {
    fn client(&self) -> IpAddr {
        self.client.parse().unwrap()
    }

    fn vip(&self) -> SocketAddr {
        SocketAddr::new(self.vip.parse().unwrap(), 53)
    }

    fn real(&self) -> SocketAddr {
        SocketAddr::new(self.real.parse().unwrap(), 53)
    }

    fn is_ipv6(&self) -> bool {
        self.client().is_ipv6()
    }

    fn two_arm(&self, cores: &str) -> (Lab, Configuration) {
        let queues = if cores == "[0]" { 1 } else { 2 };
        let lab = Lab::two_arm(1, queues);
        if self.is_ipv6() {
            lab.client.ipv6("eth0", &format!("{}/64", self.client));
            lab.reals[0].ipv6("eth0", &format!("{}/64", self.real));
            lab.reals[0].ip("-6 route add default via 2001:db8:1::1");
        } else {
            lab.reals[0].ip("route add default via 10.1.0.1");
        }
        let wan = port("wan", "net_af_xdp0,iface=veth-wan", &self.wan);
        let lan = port("lan", "net_af_xdp1,iface=veth-lan", &self.lan);
        let balance = crate::lab::gateway::pool("lan", self.pool);
        let configuration = Configuration { cores: cores.into(), ports: wan + &lan, balance, ..Configuration::bare() };
        (lab, configuration)
    }
}

const CORES: [&str; 2] = ["[0]", "[0, 1]"];

#[test]
fn fullnat_and_nat() {
    for plan in [IPV4, IPV6] {
        for (mode, cores) in [("fullnat", CORES[0]), ("fullnat", CORES[1]), ("nat", CORES[0]), ("nat", CORES[1])] {
            let (lab, mut configuration) = plan.two_arm(cores);
            let _echo = Echo::start(&lab.reals[0], plan.real());
            configuration.balance += &service(plan.vip(), mode, plan.real());
            exchange(&lab, &Gateway::start(&lab, &configuration), plan.client(), plan.vip());
        }
    }
}

/// Everybody on one switch; the real server has the VIP, too, and says nothing of it.
fn one_arm(plan: &Plan, cores: &str, mode: &str) -> (Lab, Configuration, SocketAddr) {
    let lab = Lab::one_arm_with_queues(1, if cores == CORES[0] { 1 } else { 2 });
    let real = &lab.reals[0];
    let (addresses, server) = if plan.is_ipv6() {
        lab.client.ipv6("eth0", "2001:db8::10/64");
        real.ipv6("eth0", "2001:db8::11/64");
        real.ipv6("lo", "2001:db8::100/128");
        (["2001:db8::1/64", "2001:db8::100/128"], "[2001:db8::11]:53")
    } else {
        real.enter(|| {
            for (key, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/all/{key}"), value).unwrap();
            }
        });
        real.ip("addr add 10.0.0.100/32 dev lo");
        (["10.0.0.1/24", "10.0.0.100/32"], "10.0.0.11:53")
    };
    let ports = port("lan", "net_af_xdp0,iface=veth-lan", &addresses);
    let server: SocketAddr = server.parse().unwrap();
    let balance = service(plan.vip(), mode, server);
    (lab, Configuration { cores: cores.into(), ports, balance, ..Configuration::bare() }, server)
}

#[test]
fn dr() {
    for plan in [IPV4, IPV6] {
        for cores in CORES {
            let (lab, configuration, _) = one_arm(&plan, cores, "dr");
            let _echo = Echo::start(&lab.reals[0], plan.vip());
            exchange(&lab, &Gateway::start(&lab, &configuration), plan.client(), plan.vip());
        }
    }
}

/// The client's fragments are as long as the link takes: with another header they are cut once more.
#[test]
fn tun() {
    for cores in CORES {
        let (lab, configuration, _) = one_arm(&IPV4, cores, "tun");
        let _tunnel = Decapsulation::start(&lab.reals[0]);
        let _echo = Echo::start(&lab.reals[0], IPV4.vip());
        let gateway = Gateway::start(&lab, &configuration);
        exchange(&lab, &gateway, IPV4.client(), IPV4.vip());
        assert!(gateway.stats().fragments.created > 0);
    }
}

/// From a link of 1,500 bytes to one of 1,000: packets and fragments without DF are cut there.
#[test]
fn a_smaller_link_gets_smaller_pieces() {
    for cores in CORES {
        let (lab, mut configuration) = IPV4.two_arm(cores);
        lab.reals[0].ip("link set eth0 mtu 1000");
        lab.gateway.ip("link set veth-lan mtu 1000");
        // The client does not ask for the path's MTU: no DF.
        lab.client.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_no_pmtu_disc", "1")).unwrap();
        configuration.ports = configuration.ports.replace("tap = \"fg-lan\"\n", "tap = \"fg-lan\"\nmtu = 1000\n");
        let _echo = Echo::start(&lab.reals[0], IPV4.real());
        configuration.balance += &service(IPV4.vip(), "fullnat", IPV4.real());
        let gateway = Gateway::start(&lab, &configuration);
        exchange(&lab, &gateway, IPV4.client(), IPV4.vip());
        let before = gateway.stats().fragments;
        assert!(before.created >= before.forwarded / 2, "{before:?}");
        // A whole packet that only the way on is too small for.
        lab.client.enter(|| {
            let own = UdpSocket::bind((Ipv4Addr::new(10, 0, 0, 11), 0)).unwrap();
            own.connect(IPV4.vip()).unwrap();
            own.set_read_timeout(Some(PATIENCE)).unwrap();
            own.send(&[7; 1400]).unwrap();
            assert_eq!(own.recv(&mut [0; 2000]).unwrap(), 1400);
        });
        wait_for("two pieces more", PATIENCE, || {
            (gateway.stats().fragments.created == before.created + 2).then_some(())
        });
    }
}
