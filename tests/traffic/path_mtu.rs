//! Path MTU discovery through the gateway: transfers both ways between hosts whose own links take 1,500 bytes, with narrower
//! links between routers on both sides, in the modes in which the gateway has a part in it.
//!
//! client - router - narrow - router - gateway - router - narrow - router - real server. In mode tun the real server's answers
//! go from the router beside the gateway on its side to the one on the client's side. The link on the sender's side is the
//! wider one of both, so that it is the other one, beyond the gateway, that decides.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::lab::gateway::{pool, port};
use crate::lab::servers::Decapsulation;
use crate::lab::{Configuration, Gateway, Lab, Namespace, PATIENCE, cable, wait_for};

/// Bytes that the link on the sender's side takes, and that on the receiver's.
const WIDER: u32 = 1440;
const NARROW: u32 = 1380;
const TRANSFER: usize = 100 << 20;
const CHUNK: usize = 64 << 10;

/// The networks, from the real server's to the client's.
mod net {
    pub const GATEWAY_CLIENT: u8 = 0;
    pub const GATEWAY_SERVER: u8 = 1;
    pub const PAST_THE_GATEWAY: u8 = 5;
    pub const NARROW_SERVER: u8 = 6;
    pub const SERVER: u8 = 7;
    pub const NARROW_CLIENT: u8 = 8;
    pub const CLIENT: u8 = 9;
}

/// 10.NET.0.HOST or 2001:db8:NET::HOST, which has the host's number in decimal digits.
fn address(ipv6: bool, net: u8, host: u8) -> IpAddr {
    if ipv6 {
        format!("2001:db8:{net}::{host}").parse::<Ipv6Addr>().unwrap().into()
    } else {
        Ipv4Addr::new(10, net, 0, host).into()
    }
}

/// The lab around the gateway.
struct Path {
    lab: Lab,
    /// From the client's to the real server's.
    routers: [Namespace; 4],
}

/// Gives a host an address on each of its interfaces.
fn give(namespace: &Namespace, interface: &str, net: u8, host: u8) {
    namespace.ip(&format!("addr add {}/24 dev {interface}", address(false, net, host)));
    namespace.ipv6(interface, &format!("{}/64", address(true, net, host)));
}

fn route(namespace: &Namespace, to: Option<u8>, via: (u8, u8)) {
    for ipv6 in [false, true] {
        let to = match to {
            Some(net) => format!("{}/{}", address(ipv6, net, 0), if ipv6 { 64 } else { 24 }),
            None => "default".into(),
        };
        namespace.ip(&format!("{} route add {to} via {}", if ipv6 { "-6" } else { "-4" }, address(ipv6, via.0, via.1)));
    }
}

impl Path {
    /// `past`: the real server's answers go past the gateway.
    fn new(past: bool) -> Self {
        let lab = Lab {
            client: Namespace::new("client"),
            gateway: Namespace::new("gateway"),
            switch: Namespace::new("switch"),
            reals: vec![Namespace::new("rs0")],
            directory: tempfile::tempdir().unwrap(),
        };
        let routers = ["c2", "c1", "s1", "s2"].map(Namespace::new);
        let [c2, c1, s1, s2] = &routers;
        let server = &lab.reals[0];
        cable(&lab.client, "eth0", c2, "host", 1);
        cable(c2, "narrow", c1, "narrow", 1);
        cable(c1, "gateway", &lab.gateway, "veth-wan", 1);
        cable(s1, "gateway", &lab.gateway, "veth-lan", 1);
        cable(s1, "narrow", s2, "narrow", 1);
        cable(s2, "host", server, "eth0", 1);
        cable(s1, "past", c1, "past", 1);
        for router in &routers {
            router.enter(|| {
                std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
                std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
                // Answers past the gateway come from elsewhere than packets to their source would go to.
                std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").unwrap();
            });
        }
        give(&lab.client, "eth0", net::CLIENT, 10);
        give(c2, "host", net::CLIENT, 1);
        give(c2, "narrow", net::NARROW_CLIENT, 2);
        give(c1, "narrow", net::NARROW_CLIENT, 1);
        give(c1, "gateway", net::GATEWAY_CLIENT, 254);
        give(s1, "gateway", net::GATEWAY_SERVER, 254);
        give(s1, "narrow", net::NARROW_SERVER, 1);
        give(s2, "narrow", net::NARROW_SERVER, 2);
        give(s2, "host", net::SERVER, 1);
        give(server, "eth0", net::SERVER, 11);
        give(s1, "past", net::PAST_THE_GATEWAY, 1);
        give(c1, "past", net::PAST_THE_GATEWAY, 2);
        route(&lab.client, None, (net::CLIENT, 1));
        route(c2, None, (net::NARROW_CLIENT, 1));
        route(c1, Some(net::CLIENT), (net::NARROW_CLIENT, 2));
        route(server, None, (net::SERVER, 1));
        route(s2, None, (net::NARROW_SERVER, 1));
        route(s1, Some(net::SERVER), (net::NARROW_SERVER, 2));
        route(s1, None, if past { (net::PAST_THE_GATEWAY, 2) } else { (net::GATEWAY_SERVER, 1) });
        Self { lab, routers }
    }

    fn configuration(ipv6: (bool, bool), mode: &str, tunnel: &str) -> Configuration {
        let (client, server) = ipv6;
        let both =
            |net, host| [format!("{}/24", address(false, net, host)), format!("{}/64", address(true, net, host))];
        let vips = [format!("{}/32", address(false, 0, 100)), format!("{}/128", address(true, 0, 100))];
        let port = |name: &str, iface: &str, addresses: &[String], routes: [(u8, u8); 2]| {
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            let route = |ipv6: bool, to: u8, via: u8| {
                let prefix = if ipv6 { 64 } else { 24 };
                format!("{{ to = \"{}/{prefix}\", via = \"{}\" }}", address(ipv6, to, 0), address(ipv6, via, 254))
            };
            let routes: Vec<_> =
                routes.iter().flat_map(|&(to, via)| [route(false, to, via), route(true, to, via)]).collect();
            port(name, iface, &addresses) + &format!("routes = [{}]\n\n", routes.join(", "))
        };
        let wan = port(
            "wan",
            "net_af_xdp0,iface=veth-wan",
            &[both(net::GATEWAY_CLIENT, 1), vips].concat(),
            [(net::CLIENT, net::GATEWAY_CLIENT), (net::NARROW_CLIENT, net::GATEWAY_CLIENT)],
        );
        let lan = port(
            "lan",
            "net_af_xdp1,iface=veth-lan",
            &both(net::GATEWAY_SERVER, 1),
            [(net::SERVER, net::GATEWAY_SERVER), (net::NARROW_SERVER, net::GATEWAY_SERVER)],
        );
        let locals = format!("{}\", \"{}", address(false, 1, 200), address(true, 1, 200));
        let vip = SocketAddr::new(address(client, 0, 100), 80);
        let real = SocketAddr::new(address(server, net::SERVER, 11), 80);
        let service = format!(
            "[[service]]\nvip = \"{vip}\"\nprotocol = \"tcp\"\nmode = \"{mode}\"\n\
             [[service.real_server]]\naddress = \"{real}\"\n{tunnel}\n"
        );
        Configuration { ports: wan + &lan, balance: pool("lan", &locals) + &service, ..Configuration::bare() }
    }

    /// Gives the narrow links an MTU, the client's and the real server's, and lets the hosts forget what they have learned.
    fn set_mtus(&self, client: u32, server: u32) {
        for (router, mtu) in self.routers.iter().zip([client, client, server, server]) {
            router.ip(&format!("link set narrow mtu {mtu}"));
        }
        for host in [&self.lab.client, &self.lab.reals[0]] {
            host.ip("-4 route flush cache");
            host.ip("-6 route flush cache");
        }
    }

    /// What a host has learned of the path to an address.
    fn mtu(namespace: &Namespace, to: IpAddr) -> Option<u32> {
        let family = if to.is_ipv6() { "-6" } else { "-4" };
        let said = namespace.ip(&format!("{family} route get {to}"));
        said.split_whitespace().skip_while(|word| *word != "mtu").nth(1).map(|mtu| mtu.parse().unwrap())
    }
}

/// Bytes of a transfer at a place: what is lost, doubled or out of order shows.
fn fill(chunk: &mut [u8], from: usize) {
    for (at, byte) in chunk.iter_mut().enumerate() {
        let at = from + at;
        *byte = (at ^ at >> 8 ^ at >> 16) as u8;
    }
}

fn send(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    for from in (0..TRANSFER).step_by(CHUNK) {
        fill(&mut chunk, from);
        stream.write_all(&chunk)?;
    }
    Ok(())
}

fn receive(stream: &mut TcpStream) -> std::io::Result<()> {
    let (mut chunk, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
    for from in (0..TRANSFER).step_by(CHUNK) {
        stream.read_exact(&mut chunk)?;
        fill(&mut expected, from);
        assert!(chunk == expected, "other bytes from {from} on");
    }
    Ok(())
}

/// Answers one connection: what it sends is received ("u"), or it is sent to ("d").
fn serve(listener: &TcpListener) {
    let (mut stream, what) = loop {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut what = [0];
        // Nothing: somebody looked whether it listens.
        if stream.read(&mut what).unwrap() > 0 {
            break (stream, what[0]);
        }
    };
    if what == b'u' { receive(&mut stream) } else { send(&mut stream) }.unwrap();
    stream.write_all(b"!").unwrap();
}

fn connect(target: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn transfer(path: &Path, listener: &TcpListener, target: SocketAddr, way: u8) {
    let listener = listener.try_clone().unwrap();
    let serving = std::thread::spawn(move || serve(&listener));
    path.lab.client.enter(|| ask(target, way));
    serving.join().unwrap();
}

fn ask(target: SocketAddr, way: u8) {
    let mut stream = connect(target).unwrap();
    stream.write_all(&[way]).unwrap();
    if way == b'u' { send(&mut stream) } else { receive(&mut stream) }.unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

/// Sends both ways and looks at what the ends have learned.
fn exchange((client, server): (bool, bool), mode: &str, tunnel: &str, learned: (u32, u32)) {
    let one_way = mode == "tun";
    let path = Path::new(one_way);
    let (vip, real) = (address(client, 0, 100), address(server, net::SERVER, 11));
    let host = &path.lab.reals[0];
    if one_way {
        let prefix = if client { 128 } else { 32 };
        match vip {
            IpAddr::V6(_) => host.ipv6("lo", &format!("{vip}/{prefix}")),
            IpAddr::V4(_) => _ = host.ip(&format!("addr add {vip}/{prefix} dev lo")),
        }
    }
    let _tunnel = one_way.then(|| Decapsulation::start(host));
    let gateway = Gateway::start(&path.lab, &Path::configuration((client, server), mode, tunnel));
    let own = SocketAddr::new(if one_way { vip } else { real }, 80);
    let listener = host.enter(|| TcpListener::bind(own)).unwrap();
    let target = SocketAddr::new(vip, 80);
    wait_for("the service to answer", PATIENCE, || path.lab.client.enter(|| connect(target)).ok());
    path.set_mtus(WIDER, NARROW);
    transfer(&path, &listener, target, b'u');
    assert_eq!(Path::mtu(&path.lab.client, vip), Some(learned.0), "the client: {mode} {tunnel}");
    path.set_mtus(NARROW, WIDER);
    transfer(&path, &listener, target, b'd');
    let peer = match gateway.sessions()[0].local {
        Some(local) => local.ip(),
        None => address(client, net::CLIENT, 10),
    };
    assert_eq!(Path::mtu(host, peer), Some(learned.1), "the real server: {mode} {tunnel}");
    let stats = gateway.stats();
    let bad = stats.drops.iter().find(|(reason, _)| reason == "bad_icmp_error").unwrap().1;
    assert_eq!(bad, 0);
}

#[test]
fn fullnat_learns_of_narrow_links_on_both_sides() {
    for ipv6 in [false, true] {
        exchange((ipv6, ipv6), "fullnat", "", (NARROW, NARROW));
    }
}

#[test]
fn fullnat_between_families_learns_of_narrow_links_on_both_sides() {
    exchange((false, true), "fullnat", "", (NARROW - 20, NARROW + 20));
    exchange((true, false), "fullnat", "", (NARROW + 20, NARROW - 20));
}

#[test]
fn nat_learns_of_narrow_links_on_both_sides() {
    for ipv6 in [false, true] {
        exchange((ipv6, ipv6), "nat", "", (NARROW, NARROW));
    }
}

#[test]
fn tun_learns_of_narrow_links_on_both_sides() {
    exchange((false, false), "tun", "", (NARROW - 20, NARROW));
    exchange((false, false), "tun", "tunnel = \"gre\"\ntunnel_checksum = true", (NARROW - 28, NARROW));
    let gue = "tunnel = \"gue\"\ntunnel_port = 6080";
    exchange((true, true), "tun", gue, (NARROW - 52, NARROW));
    exchange((true, true), "tun", "", (NARROW - 40, NARROW));
    exchange((false, true), "tun", "", (NARROW - 40, NARROW));
}
