//! Path MTU discovery through the gateway: transfers both ways between hosts whose own links take 1,500 bytes, with narrower
//! links between routers on both sides, in the modes in which the gateway has a part in it.
//!
//! client - router - narrow - router - gateway - router - narrow - router - real server. In mode tun the real server's answers
//! go from the router beside the gateway on its side to the one on the client's side. In mode dr the router beside the gateway is
//! the real server, and the narrow link is the gateway's own. The link on the sender's side is the
//! wider one of both, so that it is the other one, beyond the gateway, that decides.
//!
//! `FULLGATE_TRANSFER_BYTES=1000000000` makes each transfer that long, instead of what keeps the tests short.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::lab::gateway::{pool, port};
use crate::lab::servers::Decapsulation;
use crate::lab::{Configuration, Gateway, Lab, Namespace, PATIENCE, cable, wait_for};

/// Bytes that the link on the sender's side takes, and that on the receiver's.
pub const WIDER: u32 = 1440;
pub const NARROW: u32 = 1380;
const CHUNK: usize = 64 << 10;

/// The networks, from the real server's to the client's.
pub mod net {
    pub const GATEWAY_CLIENT: u8 = 0;
    pub const GATEWAY_SERVER: u8 = 1;
    pub const PAST_THE_GATEWAY: u8 = 5;
    pub const NARROW_SERVER: u8 = 6;
    pub const SERVER: u8 = 7;
    pub const NARROW_CLIENT: u8 = 8;
    pub const CLIENT: u8 = 9;
}

/// 10.NET.0.HOST or 2001:db8:NET::HOST, which has the host's number in decimal digits.
pub fn address(ipv6: bool, net: u8, host: u8) -> IpAddr {
    if ipv6 {
        format!("2001:db8:{net}::{host}").parse::<Ipv6Addr>().unwrap().into()
    } else {
        Ipv4Addr::new(10, net, 0, host).into()
    }
}

/// The lab around the gateway.
pub struct Path {
    pub lab: Lab,
    /// From the client's to the real server's.
    pub routers: [Namespace; 4],
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
    fn new(past: bool, queues: usize) -> Self {
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
        cable(c1, "gateway", &lab.gateway, "veth-wan", queues);
        cable(s1, "gateway", &lab.gateway, "veth-lan", queues);
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
        for host in [&lab.client, s1, server] {
            // One that slows down for losses, whatever the machine's default is: hosts share its few processors.
            host.enter(|| std::fs::write("/proc/sys/net/ipv4/tcp_congestion_control", "reno").unwrap());
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

    /// Gives the narrow links an MTU, the client's and the real server's, and lets the hosts forget what they have learned.
    pub fn set_mtus(&self, client: u32, server: u32) {
        for (router, mtu) in self.routers.iter().zip([client, client, server, server]) {
            router.ip(&format!("link set narrow mtu {mtu}"));
        }
        for host in [&self.lab.client, &self.routers[2], &self.lab.reals[0]] {
            host.ip("-4 route flush cache");
            host.ip("-6 route flush cache");
        }
    }

    /// What a host has learned of the path to an address.
    pub fn mtu(namespace: &Namespace, to: IpAddr) -> Option<u32> {
        let family = if to.is_ipv6() { "-6" } else { "-4" };
        let said = namespace.ip(&format!("{family} route get {to}"));
        said.split_whitespace().skip_while(|word| *word != "mtu").nth(1).map(|mtu| mtu.parse().unwrap())
    }
}

/// What `FULLGATE_TRANSFER_BYTES` says, in whole megabytes.
fn transfer_megabytes() -> Option<usize> {
    let bytes: usize = std::env::var("FULLGATE_TRANSFER_BYTES").ok()?.parse().unwrap();
    Some(bytes.div_ceil(1 << 20))
}

/// Bytes of a transfer at a place: what is lost, doubled or out of order shows.
fn fill(chunk: &mut [u8], from: usize) {
    for (at, byte) in chunk.iter_mut().enumerate() {
        let at = from + at;
        *byte = (at ^ at >> 8 ^ at >> 16) as u8;
    }
}

fn send(stream: &mut TcpStream, megabytes: usize) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    for from in (0..megabytes << 20).step_by(CHUNK) {
        fill(&mut chunk, from);
        stream.write_all(&chunk)?;
    }
    Ok(())
}

fn receive(stream: &mut TcpStream, megabytes: usize) -> std::io::Result<()> {
    let (mut chunk, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
    for from in (0..megabytes << 20).step_by(CHUNK) {
        stream.read_exact(&mut chunk)?;
        fill(&mut expected, from);
        assert!(chunk == expected, "other bytes from {from} on");
    }
    Ok(())
}

/// Answers one connection: what it sends is received ("u"), or it is sent to ("d").
fn serve(listener: &TcpListener, megabytes: usize) {
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
    if what == b'u' { receive(&mut stream, megabytes) } else { send(&mut stream, megabytes) }.unwrap();
    stream.write_all(b"!").unwrap();
}

fn connect(target: SocketAddr, limit: Duration) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, limit)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn transfer(path: &Path, listener: &TcpListener, target: SocketAddr, way: u8, megabytes: usize) {
    let listener = listener.try_clone().unwrap();
    let serving = std::thread::spawn(move || serve(&listener, megabytes));
    path.lab.client.enter(|| ask(target, way, megabytes));
    serving.join().unwrap();
}

fn ask(target: SocketAddr, way: u8, megabytes: usize) {
    let mut stream = connect(target, PATIENCE).unwrap();
    stream.write_all(&[way]).unwrap();
    if way == b'u' { send(&mut stream, megabytes) } else { receive(&mut stream, megabytes) }.unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

/// What is tried.
pub struct Case {
    /// Whether the client and the real server are of IPv6.
    pub ipv6: (bool, bool),
    pub mode: &'static str,
    tunnel: &'static str,
    workers: usize,
    /// Protocol and port of each service.
    pub services: Vec<(&'static str, u16)>,
    /// What is sent each way.
    megabytes: usize,
    /// What the client and the real server learn of the way to each other.
    pub learned: (u32, u32),
}

impl Case {
    pub fn new(ipv6: (bool, bool), mode: &'static str, learned: (u32, u32)) -> Self {
        Self { ipv6, mode, tunnel: "", workers: 2, services: vec![("tcp", 80)], megabytes: 100, learned }
    }

    pub fn tun(ipv6: (bool, bool), tunnel: &'static str, overhead: u32) -> Self {
        Self { tunnel, megabytes: 30, ..Self::new(ipv6, "tun", (NARROW - overhead, NARROW)) }
    }

    /// Whether answers go past the gateway.
    fn is_one_way(&self) -> bool {
        ["dr", "tun"].contains(&self.mode)
    }

    pub fn vip(&self) -> IpAddr {
        address(self.ipv6.0, 0, 100)
    }

    fn real(&self) -> IpAddr {
        let (net, host) = if self.mode == "dr" { (net::GATEWAY_SERVER, 254) } else { (net::SERVER, 11) };
        address(self.ipv6.1, net, host)
    }

    /// The real server.
    pub fn host<'p>(&self, path: &'p Path) -> &'p Namespace {
        if self.mode == "dr" { &path.routers[2] } else { &path.lab.reals[0] }
    }

    /// The lab, with a real server that takes what its mode brings.
    pub fn path(&self) -> (Path, Option<Decapsulation>) {
        let path = Path::new(self.is_one_way(), self.workers);
        let host = self.host(&path);
        match self.vip() {
            vip @ IpAddr::V6(_) if self.is_one_way() => host.ipv6("lo", &format!("{vip}/128")),
            vip @ IpAddr::V4(_) if self.is_one_way() => _ = host.ip(&format!("addr add {vip}/32 dev lo")),
            _ => {}
        }
        let tunnel = (self.mode == "tun").then(|| Decapsulation::start(host));
        (path, tunnel)
    }

    pub fn configuration(&self) -> Configuration {
        let Self { mode, tunnel, workers, .. } = self;
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
        let lan = if *mode == "dr" { lan + &format!("mtu = {NARROW}\n\n") } else { lan };
        let service = |&(protocol, port): &(&str, u16)| {
            let (vip, real) = (SocketAddr::new(self.vip(), port), SocketAddr::new(self.real(), port));
            format!(
                "[[service]]\nvip = \"{vip}\"\nprotocol = \"{protocol}\"\nmode = \"{mode}\"\n\
                 [[service.real_server]]\naddress = \"{real}\"\n{tunnel}\n"
            )
        };
        let services: String = self.services.iter().map(service).collect();
        let cores = if *workers == 1 { "[0]" } else { "[0, 1]" };
        Configuration {
            cores: cores.into(),
            ports: wan + &lan,
            balance: pool("lan", &locals) + &services,
            ..Configuration::bare()
        }
    }

    /// Sends both ways, and looks at what the ends have learned.
    fn exchange(&self) {
        let Self { mode, tunnel, .. } = self;
        let megabytes = transfer_megabytes().unwrap_or(self.megabytes);
        let (path, _tunnel) = self.path();
        let (vip, host) = (self.vip(), self.host(&path));
        let gateway = Gateway::start(&path.lab, &self.configuration());
        let bound = if self.is_one_way() { vip } else { self.real() };
        let listener = host.enter(|| TcpListener::bind(SocketAddr::new(bound, 80))).unwrap();
        let target = SocketAddr::new(vip, 80);
        wait_for("the service to answer", PATIENCE, || {
            path.lab.client.enter(|| connect(target, Duration::from_secs(1))).ok()
        });

        path.set_mtus(WIDER, NARROW);
        let start = Instant::now();
        transfer(&path, &listener, target, b'u', megabytes);
        let up = start.elapsed();
        assert_eq!(Path::mtu(&path.lab.client, vip), Some(self.learned.0), "the client: {mode} {tunnel}");
        path.set_mtus(NARROW, WIDER);
        let start = Instant::now();
        transfer(&path, &listener, target, b'd', megabytes);
        println!("{mode} {tunnel:?} {:?}: {megabytes} MB, {up:.1?} up, {:.1?} down", self.ipv6, start.elapsed());
        let local = gateway.sessions()[0].local.map(|local| local.ip());
        let peer = local.unwrap_or_else(|| address(self.ipv6.0, net::CLIENT, 10));
        assert_eq!(Path::mtu(host, peer), Some(self.learned.1), "the real server: {mode} {tunnel}");
        let stats = gateway.stats();
        assert_eq!(stats.drops.iter().find(|(reason, _)| reason == "bad_icmp_error").unwrap().1, 0);
    }
}

#[test]
fn fullnat_learns_of_narrow_links_on_both_sides() {
    Case { workers: 1, ..Case::new((false, false), "fullnat", (NARROW, NARROW)) }.exchange();
    Case::new((true, true), "fullnat", (NARROW, NARROW)).exchange();
}

#[test]
fn fullnat_between_families_learns_of_narrow_links_on_both_sides() {
    let case = |ipv6, learned| Case { megabytes: 30, ..Case::new(ipv6, "fullnat", learned) };
    case((false, true), (NARROW - 20, NARROW + 20)).exchange();
    case((true, false), (NARROW + 20, NARROW - 20)).exchange();
}

#[test]
fn nat_learns_of_narrow_links_on_both_sides() {
    Case::new((false, false), "nat", (NARROW, NARROW)).exchange();
    Case::new((true, true), "nat", (NARROW, NARROW)).exchange();
}

#[test]
fn dr_learns_of_narrow_links_on_both_sides() {
    Case::new((false, false), "dr", (NARROW, NARROW)).exchange();
    Case::new((true, true), "dr", (NARROW, NARROW)).exchange();
}

#[test]
fn tun_learns_of_narrow_links_on_both_sides() {
    let gue = "tunnel = \"gue\"\ntunnel_port = 6080";
    Case { megabytes: 100, ..Case::tun((false, false), "", 20) }.exchange();
    Case::tun((false, false), "tunnel = \"gre\"\ntunnel_checksum = true", 28).exchange();
    Case::tun((true, true), gue, 52).exchange();
    Case { megabytes: 100, ..Case::tun((true, true), "", 40) }.exchange();
    Case::tun((false, true), "", 40).exchange();
}
