//! The kernel's IPVS as a director: Debian's kernel in a virtual machine, configured by Debian's ipvsadm, its two NICs
//! cables to this process.
//!
//! Its clock follows the instructions that it executes, and jumps to the next timer when it has nothing to do
//! (`-icount sleep=off`). So that it does not jump by itself, something of the lowest priority always has something to do;
//! to let time pass is to stop that.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fullgate::balance::Protocol;
use fullgate::port::MacAddress;

use crate::director::{Connection, Counts, Director, Marked, Rule, Service};
use crate::network::{Family, Out, SERVERS, Side, router_mac, server_mac};
use crate::vm::{self, Machine};

/// How long it may take to answer a frame.
const PATIENCE: Duration = Duration::from_secs(20);
const ARP: [u8; 2] = [8, 6];

pub struct Kernel {
    machine: Machine,
    cables: [Cable; 2],
    /// When the scenario began, in the machine's time.
    began: f64,
    _directory: tempfile::TempDir,
}

/// A NIC's other end.
struct Cable {
    side: Side,
    socket: UnixDatagram,
    nic: PathBuf,
}

impl Kernel {
    /// Boots it, and sets its network up.
    pub fn boot() -> Self {
        let directory = tempfile::tempdir().unwrap();
        vm::make_image("ipvs", directory.path(), &[]);
        let cables = Side::BOTH.map(|side| Cable::new(side, directory.path()));
        let machine = Machine::boot(qemu(&cables, directory.path()), "loglevel=1", directory.path());
        let mut kernel = Self { machine, cables, began: 0.0, _directory: directory };
        kernel.set_up();
        kernel
    }

    fn set_up(&mut self) {
        // Without this, its clock would run away while it waits for us.
        self.machine.ok("nice -n 19 bash -c 'while :; do :; done' >/dev/null & echo $! >/run/busy; kill -0 $!");
        // No router advertisements, no looking for others with the same addresses, no limits for ICMP errors; the
        // defence against floods is another matter.
        let settings = [
            "ipv4/ip_forward=1",
            "ipv6/conf/all/forwarding=1",
            "ipv4/icmp_ratelimit=0",
            "ipv4/icmp_msgs_per_sec=100000",
            "ipv4/icmp_msgs_burst=100000",
            "ipv6/icmp/ratelimit=0",
        ];
        let settings = settings.map(|setting| setting.replace('=', " "));
        let write = "while read -r key value; do echo $value >/proc/sys/net/$key; done";
        self.machine.ok(&format!("printf '%s\\n' '{}' | {write}", settings.join("' '")));
        let lines = Side::BOTH.map(network_of).concat().join("\\n");
        self.machine.ok(&format!("printf '{lines}\\n' | ip -batch -"));
        self.machine.ok("for nic in eth0 eth1; do ethtool -K $nic gro off; done; tc qdisc add dev eth0 ingress");
    }

    /// What is said to be the time there, in seconds.
    fn uptime(&mut self) -> f64 {
        let text = self.machine.ok("read -r up rest </proc/uptime; echo $up");
        text.trim().parse().unwrap()
    }

    /// A new scenario begins: without services, with the sysctls of a kernel that has just started, and at a time of its own.
    /// Connections stay, as in any kernel.
    pub fn begin(&mut self) {
        self.machine.ok("ipvsadm -C; ipvsadm --set 900 120 300");
        let defaults = [
            ("expire_nodest_conn", 0),
            ("expire_quiescent_template", 0),
            ("conn_reuse_mode", 1),
            ("sloppy_tcp", 0),
            ("sloppy_sctp", 0),
        ];
        self.machine.ok(&defaults.map(|(name, value)| sysctl(name, value)).join("; "));
        self.began = self.uptime();
    }

    pub fn version(&mut self) -> String {
        self.machine.ok("uname -r")
    }
}

/// Commands of `ip` for one of its interfaces.
fn network_of(side: Side) -> Vec<String> {
    let interface = if side == Side::Wan { "eth0" } else { "eth1" };
    let mut lines = Vec::new();
    for family in [Family::Ipv4, Family::Ipv6] {
        let nodad = if family == Family::Ipv6 { " nodad" } else { "" };
        let own = family.director(side);
        lines.push(format!("addr add {own}/{} dev {interface}{nodad}", family.prefix_len()));
        let mut known = vec![(family.router(side), router_mac(side))];
        if side == Side::Lan {
            known.extend(SERVERS.map(|number| (family.server(number), server_mac(number))));
        } else {
            let whole = if family == Family::Ipv6 { 128 } else { 32 };
            let vips = [family.vip(), family.other_vip()];
            lines.extend(vips.map(|vip| format!("addr add {vip}/{whole} dev {interface}{nodad}")));
        }
        let neighbour =
            |(address, mac)| format!("neigh replace {address} lladdr {} dev {interface} nud permanent", colons(mac));
        lines.extend(known.into_iter().map(neighbour));
    }
    lines.insert(0, format!("link set {interface} mtu {} up", side.mtu()));
    if side == Side::Wan {
        for family in [Family::Ipv4, Family::Ipv6] {
            lines.push(format!("route add default via {} dev {interface}", family.router(side)));
        }
    }
    lines
}

/// What reads commands of a rule's kind, one a line.
fn program(rule: &Rule) -> &'static str {
    match rule {
        Rule::Sysctl(..) => "bash",
        Rule::Mark(..) => "tc -batch -",
        _ => "ipvsadm -R",
    }
}

fn line(rule: &Rule) -> String {
    match *rule {
        Rule::Sysctl(name, value) => sysctl(name, value),
        Rule::Mark(mark, marked) => filter(mark, marked),
        _ => rule.to_string(),
    }
}

fn sysctl(name: &str, value: u8) -> String {
    format!("echo {value} >/proc/sys/net/ipv4/vs/{name}")
}

/// A filter that marks packets as they come in.
fn filter(mark: u32, marked: Marked) -> String {
    let Marked { protocol, destination, ports: (first, last) } = marked;
    let (ethertype, protocol) =
        (if destination.is_ipv4() { "ip" } else { "ipv6" }, protocol.to_string().to_ascii_lowercase());
    let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
    format!(
        "filter add dev eth0 ingress protocol {ethertype} flower ip_proto {protocol} dst_ip {destination} \
         dst_port {ports} action skbedit mark {mark}"
    )
}

fn colons(mac: MacAddress) -> String {
    mac.0.map(|byte| format!("{byte:02x}")).join(":")
}

fn qemu(cables: &[Cable; 2], directory: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-m", "256", "-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off"]);
    for cable in cables {
        let (name, mac) = (cable.side.name(), colons(cable.side.director_mac()));
        let path = |end: &str| directory.join(format!("{name}-{end}")).display().to_string();
        let (here, there) = (path("nic"), path("test"));
        let netdev = format!("dgram,id={name},local.type=unix,local.path={here},remote.type=unix,remote.path={there}");
        command.args(["-netdev", &netdev, "-device", &format!("virtio-net-pci,netdev={name},mac={mac},romfile=")]);
    }
    command
}

impl Cable {
    fn new(side: Side, directory: &Path) -> Self {
        let socket = UnixDatagram::bind(directory.join(format!("{}-test", side.name()))).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { side, socket, nic: directory.join(format!("{}-nic", side.name())) }
    }

    /// Asks for the director's address, and gives what came out of it up to the answer: all that it had to send there for
    /// what it was given before.
    fn flush(&self) -> Vec<Out> {
        self.socket.send_to(&who_has(self.side), &self.nic).unwrap();
        let (mut out, mut buffer) = (Vec::new(), [0; 65_536]);
        loop {
            let read = self.socket.recv(&mut buffer);
            let len =
                read.unwrap_or_else(|error| panic!("no answer on {} within {PATIENCE:?}: {error}", self.side.name()));
            let frame = &buffer[..len];
            if frame[12..14] == ARP {
                return out;
            }
            // Multicast is what it says of itself.
            if frame[0] & 1 == 0 {
                out.push(Out { side: self.side, bytes: frame.to_vec() });
            }
        }
    }
}

/// A request for the director's address from the router, which it knows already.
fn who_has(side: Side) -> Vec<u8> {
    let octets = |address| match address {
        std::net::IpAddr::V4(address) => address.octets(),
        std::net::IpAddr::V6(_) => unreachable!("ARP is IPv4's"),
    };
    let (mac, own) = (router_mac(side).0, side.director_mac().0);
    let (router, director) = (octets(Family::Ipv4.router(side)), octets(Family::Ipv4.director(side)));
    let mut frame = [&own[..], &mac, &ARP, &[0, 1, 8, 0, 6, 4, 0, 1], &mac, &router, &[0; 6], &director].concat();
    frame.resize(60, 0);
    frame
}

impl Director for Kernel {
    fn configure(&mut self, rules: &[Rule]) {
        // As many as may be at once: a process takes the machine a tenth of a second.
        for rules in rules.chunk_by(|one, other| program(one) == program(other)) {
            let (program, lines) = (program(&rules[0]), rules.iter().map(line).collect::<Vec<_>>());
            for lines in lines.chunks(60) {
                let said = self.machine.ok(&format!("{program} <<<$'{}'", lines.join("\\n")));
                assert_eq!(said.trim(), "", "{lines:#?}");
            }
        }
    }

    fn send(&mut self, side: Side, frame: &[u8]) -> Vec<Out> {
        let cable = &self.cables[side as usize];
        cable.socket.send_to(frame, &cable.nic).unwrap();
        // First the side that it came from: when that is done, what goes out by the other is on its way.
        let mut out = cable.flush();
        out.extend(self.cables[1 - side as usize].flush());
        out
    }

    fn at(&mut self, seconds: u64) {
        // In hundredths, which bash can reckon with.
        let end = (self.began * 100.0) as u64 + seconds * 100;
        self.machine.ok(&format!(
            "read -r up rest </proc/uptime; left=$(({end} - ${{up/./}})); ((left > 0)) || exit 0; \
             kill -STOP $(</run/busy); sleep $((left / 100)).$((left / 10 % 10))$((left % 10)); kill -CONT $(</run/busy)"
        ));
    }

    fn connections(&mut self, ports: RangeInclusive<u16>) -> Vec<Connection> {
        let mut connections = self.listed();
        connections.retain(|connection| connection.client.port() != 0 && ports.contains(&connection.virtual_.port()));
        connections
    }

    fn templates(&mut self) -> Vec<Connection> {
        let mut templates = self.listed();
        templates.retain(|template| template.client.port() == 0);
        templates
    }

    fn loads(&mut self) -> Vec<Counts> {
        let text = self.machine.ok("ipvsadm -Ln");
        // Before them stand the way of forwarding and the weight.
        rows(&text, |is_server, numbers| match numbers {
            [_, _, active, inactive] if is_server => vec![*active, *inactive],
            _ => Vec::new(),
        })
    }

    fn persistent(&mut self) -> Vec<Counts> {
        let text = self.machine.ok("ipvsadm -Ln --persistent-conn");
        rows(&text, |is_server, numbers| match numbers {
            [_weight, counts @ ..] if is_server => counts.to_vec(),
            _ => Vec::new(),
        })
    }

    fn traffic(&mut self) -> Vec<Counts> {
        // It adds up what its processors have counted every two seconds.
        self.machine.ok("kill -STOP $(</run/busy); sleep 2.1; kill -CONT $(</run/busy)");
        let text = self.machine.ok("ipvsadm -Ln --stats --exact");
        rows(&text, |_, numbers| numbers.to_vec())
    }
}

impl Kernel {
    fn listed(&mut self) -> Vec<Connection> {
        let text = self.machine.ok("ipvsadm -Lnc");
        let mut connections: Vec<_> = text.lines().filter_map(connection).collect();
        connections.sort();
        connections
    }
}

/// A line of `ipvsadm -Lnc`: `TCP 14:59  ESTABLISHED 10.9.0.1:40000 10.0.0.100:80 10.1.0.11:80`.
fn connection(line: &str) -> Option<Connection> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [protocol, expires, state, client, virtual_, server] = words[..] else { return None };
    let (minutes, seconds) = expires.split_once(':')?;
    Some(Connection {
        protocol: protocol.to_owned(),
        client: client.parse().ok()?,
        virtual_: virtual_.parse().ok()?,
        server: server.parse().ok()?,
        state: state.to_owned(),
        expires: minutes.parse::<u32>().ok()? * 60 + seconds.parse::<u32>().ok()?,
    })
}

/// The services and real servers of a listing, with those of the numbers behind their names that are wanted.
fn rows(text: &str, wanted: impl Fn(bool, &[u64]) -> Vec<u64>) -> Vec<Counts> {
    let mut service = None;
    let row = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let server = match words[..] {
            ["->", server, ..] => Some(server.parse::<SocketAddr>().ok()?),
            [protocol, name, ..] => {
                service = Some(service_named(protocol, name, words.contains(&"IPv6"))?);
                None
            }
            _ => return None,
        };
        let numbers = words[2..].iter().filter(|word| **word != "IPv6").map(|word| word.parse().unwrap_or(0));
        let numbers: Vec<_> = numbers.collect();
        Some(Counts { service: service?, server, counts: wanted(server.is_some(), &numbers) })
    };
    text.lines().filter_map(row).collect()
}

/// A service as listings name it.
fn service_named(protocol: &str, name: &str, is_ipv6: bool) -> Option<(Protocol, SocketAddr)> {
    let protocol = match protocol {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        "FWM" => {
            let family = if is_ipv6 { Family::Ipv6 } else { Family::Ipv4 };
            let Service { protocol, address } = Service::of_mark(name.parse().ok()?, family);
            return Some((protocol, address));
        }
        _ => return None,
    };
    Some((protocol, name.parse().ok()?))
}
