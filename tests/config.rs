//! The configuration file as an operator meets it: what a good one means, and the exact words for each bad one.

// The whole crate is a test; clippy only sees the functions marked so.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::Ipv4Addr;

use fullgate::balance::scheduler::HashSecret;
use fullgate::balance::{Encapsulation, ForwardingMode, PortRange, Protocol, SchedulerKind, Timeouts, Tunnel, Weight};
use fullgate::config::{BalanceConfig, Config, Device, Idle, PortSteering, PuntRates, SessionPages};
use fullgate::port::{MacAddress, PortId, VlanId};

/// A small good file, to which bad tables are added.
const GOOD: &str = r#"[worker]
cores = [1, 2]

[[port]]
name = "wan"
device = "net_af_xdp0,iface=veth1"
addresses = ["10.0.0.1/24", "10.0.0.100/32"]

[[port]]
name = "lan"
device = "0000:01:00.0"
addresses = ["10.1.0.1/24"]

[[local_pool]]
name = "lan"
port = "lan"
addresses = ["10.1.0.200-10.1.0.203"]

[[service]]
vip = "10.0.0.100:80"
protocol = "tcp"

[[service.real_server]]
address = "10.1.0.11:80"
"#;

fn errors(text: &str) -> Vec<String> {
    match Config::parse(text, "f.toml") {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// `GOOD` with one text in it replaced.
fn changed(from: &str, to: &str) -> String {
    assert_eq!(GOOD.matches(from).count(), 1, "{from:?} must be once in the good file");
    GOOD.replace(from, to)
}

#[test]
fn defaults_of_a_small_file() {
    let config = Config::parse(GOOD, "f.toml").unwrap();
    assert_eq!(config.worker.cores, [1, 2]);
    assert_eq!(config.worker.idle, Idle::Spin);
    assert_eq!((config.session.capacity, config.session.pages), (1_048_576, SessionPages::Auto));
    assert_eq!(config.control.socket.to_str(), Some("/run/fullgate/control.sock"));
    assert_eq!(config.control.state_dir.to_str(), Some("/var/lib/fullgate"));
    assert_eq!(config.control.metrics, Some("127.0.0.1:9469".parse().unwrap()));
    assert_eq!(config.control.group, None);
    assert_eq!(config.timeouts, Timeouts::default());
    assert_eq!(config.punt, PuntRates::default());
    let wan = &config.ports[0];
    assert_eq!((wan.tap.as_str(), wan.mtu, wan.queues, wan.promiscuous), ("fg-wan", None, None, false));
    assert_eq!(wan.steering, PortSteering::Auto);
    assert_eq!((wan.rx_descriptors, wan.tx_descriptors, wan.link_timeout_milliseconds), (1024, 1024, 5000));
    assert_eq!(wan.device, Device::Vdev("net_af_xdp0,iface=veth1".into()));
    assert_eq!(config.ports[1].device, Device::Pci("0000:01:00.0".into()));
    let pool = &config.balance.local_pools[0];
    assert_eq!(pool.ports, PortRange { first: 1024, last: 65535 });
    assert_eq!(pool.addresses, [200, 201, 202, 203].map(|last| Ipv4Addr::new(10, 1, 0, last)));
    let service = &config.balance.services[0];
    assert_eq!((service.protocol, service.scheduler), (Protocol::Tcp, SchedulerKind::Wlc));
    assert_eq!((service.mode, service.local_pool.as_str()), (ForwardingMode::Fullnat, "lan"));
    assert_eq!(service.real_servers[0].weight, Weight(1));
    assert_eq!(config.warnings(), Vec::<String>::new());
}

#[test]
fn every_key_is_read() {
    let text = r#"
[dpdk]
eal_args = ["--no-huge", "-m", "512"]
mbufs = 65536
[worker]
cores = [0x1]
idle = "sleep"
[session]
capacity = 1_024
pages = "2M"
[control]
socket = "/run/s"
group = "adm"
metrics = false
state_dir = "/srv/state"
[punt]
arp = 1
icmp = 2
nd = 5
ipv6 = 3
multicast = 4
local = 0
[timeouts]
tcp = 1
tcp_syn_sent = 2
tcp_syn_recv = 3
tcp_fin = 4
tcp_time_wait = 5
tcp_close = 6
tcp_close_wait = 7
tcp_last_ack = 8
tcp_listen = 9
tcp_synack = 10
udp = 2678400
sctp = 11
sctp_init1 = 12
sctp_init = 13
sctp_cookie_sent = 14
sctp_cookie_replied = 15
sctp_cookie_wait = 16
sctp_cookie = 17
sctp_cookie_echoed = 18
sctp_shutdown_sent = 19
sctp_shutdown_received = 20
sctp_shutdown_ack_sent = 21
sctp_rejected = 22
sctp_closed = 23
[ipvs]
hash_secret = "000102030405060708090a0b0c0d0e0f"
mh_tab_index = 17
lblc_expiration = 1
lblcr_expiration = 2
[[port]]
name = "a"
device = "net_null0,no-rx=1"
tap = "tap-a"
addresses = ["10.0.0.1/24", "2001:db8::1/64"]
routes = [
    { to = "default", via = "10.0.0.254", metric = 7 },
    { to = "10.9.0.0/16" },
    { to = "default", via = "fe80::1" },
]
mtu = 9000
queues = 1
rx_descriptors = 64
tx_descriptors = 32768
promiscuous = true
mac = "02:0A:00:00:00:01"
steering = "rss"
link_timeout_milliseconds = 0
[[local_pool]]
name = "p"
port = "a"
addresses = ["10.0.0.7", "10.0.0.8-10.0.0.9"]
ports = "1-2"
[[service]]
vip = "10.0.0.1:53"
protocol = "udp"
scheduler = "sh"
scheduler_flags = ["sh-port", "sh-fallback"]
mode = "fullnat"
local_pool = "p"
real_server = [{ address = "10.0.0.20:5353", weight = 0, upper = 9, lower = 8 }]
[[snat]]
name = "s"
source = "2001:db8:1::/64"
destination = "::/0"
protocol = "udp"
destination_port = "53"
port = "a"
local_pool = "p"
"#;
    let config = Config::parse(text, "f.toml").unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(config.dpdk.eal_args, ["--no-huge", "-m", "512"]);
    assert_eq!(config.dpdk.mbufs, Some(65536));
    assert_eq!(config.worker.idle, Idle::Sleep);
    assert_eq!((config.session.capacity, config.session.pages), (1024, SessionPages::TwoMegabytes));
    assert_eq!(config.control.metrics, None);
    assert_eq!(config.control.group.as_deref(), Some("adm"));
    assert_eq!(config.punt.0, [1, 2, 5, 3, 4, 0, 2000, 20_000]);
    assert_eq!((config.timeouts.tcp, config.timeouts.tcp_synack, config.timeouts.udp), (1, 10, 2_678_400));
    let ipvs = config.ipvs;
    assert_eq!(ipvs.hash_secret, HashSecret([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]));
    assert_eq!((ipvs.mh_table_index, ipvs.lblc_expiration, ipvs.lblcr_expiration), (17, 1, 2));
    let timeouts = serde_json::to_value(config.timeouts).unwrap();
    let sctp: Vec<_> = timeouts.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("sctp")).collect();
    let mut seconds: Vec<_> = sctp.iter().map(|(_, value)| value.as_u64().unwrap()).collect();
    seconds.sort_unstable();
    assert_eq!(seconds, (11..24).collect::<Vec<_>>(), "{sctp:?}");
    assert_eq!((config.timeouts.sctp, config.timeouts.sctp_cookie_echoed, config.timeouts.sctp_closed), (11, 18, 23));
    let port = &config.ports[0];
    assert_eq!((port.mtu, port.queues, port.promiscuous), (Some(9000), Some(1), true));
    assert_eq!(port.mac, Some(MacAddress([2, 10, 0, 0, 0, 1])));
    assert_eq!(port.steering, PortSteering::Rss);
    assert_eq!((port.rx_descriptors, port.tx_descriptors, port.link_timeout_milliseconds), (64, 32768, 0));
    assert_eq!(port.routes.len(), 3);
    assert_eq!((port.routes[0].metric, port.routes[0].to.prefix_len), (Some(7), 0));
    assert!(port.routes[2].to.address.is_ipv6());
    let pool = &config.balance.local_pools[0];
    assert_eq!((pool.addresses.len(), pool.ports), (3, PortRange { first: 1, last: 2 }));
    let service = &config.balance.services[0];
    assert_eq!(
        (service.scheduler, service.scheduler_flags.to_string().as_str()),
        (SchedulerKind::Sh, "sh-fallback,sh-port")
    );
    let real = &config.balance.services[0].real_servers[0];
    assert_eq!((real.weight, real.upper_threshold, real.lower_threshold), (Weight(0), 9, 8));
    let rule = &config.balance.snat[0];
    assert_eq!(
        (rule.source.to_string(), rule.destination.map(|to| to.to_string())),
        ("2001:db8:1::/64".into(), Some("::/0".into()))
    );
    assert_eq!((rule.protocol, rule.destination_port), (Some(Protocol::Udp), Some(PortRange { first: 53, last: 53 })));
    assert_eq!((rule.name.as_str(), rule.port.as_deref(), rule.local_pool.as_str()), ("s", Some("a"), "p"));
    let json = serde_json::to_string(&config.balance).unwrap();
    assert_eq!(serde_json::from_str::<BalanceConfig>(&json).unwrap(), config.balance);
}

#[test]
fn the_same_words_in_toml_and_json() {
    let config = Config::parse(GOOD, "f.toml").unwrap();
    let json = serde_json::to_string(&config.balance).unwrap();
    assert!(json.contains(r#""real_server":[{"address":"10.1.0.11:80","weight":1,"upper":0,"lower":0}]"#), "{json}");
    assert_eq!(serde_json::from_str::<BalanceConfig>(&json).unwrap(), config.balance);
}

#[test]
fn hashing_without_a_secret_is_a_warning() {
    for scheduler in SchedulerKind::ALL {
        let text = changed("protocol = \"tcp\"", &format!("protocol = \"tcp\"\nscheduler = \"{scheduler}\""));
        let warnings = Config::parse(&text, "f.toml").unwrap().warnings();
        assert_eq!(warnings.len(), usize::from(["dh", "sh", "mh"].contains(&scheduler.name())), "{warnings:?}");
        let with_secret = text + "[ipvs]\nhash_secret = \"000102030405060708090a0b0c0d0e0f\"\n";
        assert_eq!(Config::parse(&with_secret, "f.toml").unwrap().warnings(), Vec::<String>::new());
    }
    let text = changed("protocol = \"tcp\"", "protocol = \"tcp\"\nscheduler = \"mh\"");
    assert_eq!(
        Config::parse(&text, "f.toml").unwrap().warnings(),
        [
            "[ipvs].hash_secret is not set: clients can choose their real server of service tcp 10.0.0.100:80 (scheduler mh); \
          set it, the same on all gateways that must choose alike"
        ]
    );
}

#[test]
fn a_vip_on_no_port_is_a_warning() {
    let config = Config::parse(&changed(", \"10.0.0.100/32\"", ""), "f.toml").unwrap();
    assert_eq!(
        config.warnings(),
        ["service tcp 10.0.0.100:80: no port has 10.0.0.100 among its addresses: \
          right if keepalived or a routing daemon adds it"]
    );
}

/// One change of the good file, and the one error that it makes.
struct Bad {
    from: &'static str,
    to: &'static str,
    error: &'static str,
}

const fn bad(from: &'static str, to: &'static str, error: &'static str) -> Bad {
    Bad { from, to, error }
}

#[track_caller]
fn assert_each(cases: &[Bad]) {
    let mut wrong = Vec::new();
    for Bad { from, to, error } in cases {
        let got = errors(&changed(from, to));
        if got != [*error] {
            wrong.push(format!("{from:?} -> {to:?}\n  expected {error:?}\n  got      {got:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const CORES: &str = "cores = [1, 2]";

#[test]
fn bad_plain_tables() {
    assert_each(&[
        bad(
            CORES,
            "",
            "f.toml:1: [worker].cores: missing; allowed: a list of CPU numbers, one worker on each, like [1] or [2, 3]",
        ),
        bad(
            CORES,
            "cores = []",
            "f.toml:2: [worker].cores: the list is empty; allowed: a list of CPU numbers, one worker on each, like [1] or [2, 3]",
        ),
        bad(
            CORES,
            "cores = 1",
            "f.toml:2: [worker].cores: an integer does not fit here; allowed: a list of CPU numbers, one worker on each, like [1] or [2, 3]",
        ),
        bad(
            CORES,
            "cores = [1, \"2\"]",
            "f.toml:2: [worker].cores[1]: a string does not fit here; allowed: an integer from 0 to 1023",
        ),
        bad(CORES, "cores = [1, 1]", "f.toml:2: [worker].cores[1]: CPU 1 is there already; allowed: each CPU once"),
        bad(
            CORES,
            "cores = [1,\n-1]",
            "f.toml:3: [worker].cores[1]: -1 is out of range; allowed: an integer from 0 to 1023",
        ),
        bad(
            CORES,
            "cores = [1]\nidle = \"slep\"",
            "f.toml:3: [worker].idle: \"slep\" is no way to be idle; allowed: spin, sleep",
        ),
        bad(
            CORES,
            "cores = [1]\nidle = true",
            "f.toml:3: [worker].idle: a boolean does not fit here; allowed: spin, sleep",
        ),
        bad(
            CORES,
            "cores = [1]\ncoers = 2",
            "f.toml:3: [worker].coers: unknown key \"coers\"; did you mean \"cores\"?",
        ),
        bad(
            "[worker]",
            "[session]\ncapacity = 1000\n[worker]",
            "f.toml:2: [session].capacity: 1000 is out of range; allowed: an integer from 1024 to 134217728 sessions a worker (90 bytes each: 2^27 take 12 GB)",
        ),
        bad(
            "[worker]",
            "[session]\ncapacity = 134_217_729\n[worker]",
            "f.toml:2: [session].capacity: 134217729 is out of range; allowed: an integer from 1024 to 134217728 sessions a worker (90 bytes each: 2^27 take 12 GB)",
        ),
        bad(
            "[worker]",
            "[session]\npages = \"4M\"\n[worker]",
            "f.toml:2: [session].pages: \"4M\" is no size of pages; allowed: auto, 1G, 2M, ordinary",
        ),
        bad(
            "[worker]",
            "[session]\ncapacity = 1e6\n[worker]",
            "f.toml:2: [session].capacity: a float does not fit here; allowed: an integer from 1024 to 134217728 sessions a worker (90 bytes each: 2^27 take 12 GB)",
        ),
        bad(
            "[worker]",
            "[sesion]\ncapacity = 1024\n[worker]",
            "f.toml:1: sesion: unknown key \"sesion\"; did you mean \"session\"?",
        ),
        bad(
            "[worker]",
            "colour = 1\n[worker]",
            "f.toml:1: colour: unknown key \"colour\"; allowed: dpdk, worker, session, control, punt, timeouts, ipvs, port, local_pool, service, snat, mark",
        ),
        bad(
            "[worker]",
            "session = 7\n[worker]",
            "f.toml:1: session: an integer does not fit here; allowed: a table, [session]",
        ),
        bad(
            "[worker]",
            "[dpdk]\neal_args = \"-m 512\"\n[worker]",
            "f.toml:2: [dpdk].eal_args: a string does not fit here; allowed: a list of texts, like [\"--no-huge\", \"-m\", \"512\"]",
        ),
        bad(
            "[worker]",
            "[dpdk]\neal_args = [\"-m\", 512]\n[worker]",
            "f.toml:2: [dpdk].eal_args[1]: an integer does not fit here; allowed: a text, one argument",
        ),
        bad(
            "[worker]",
            "[dpdk]\neal_args = [\"\"]\n[worker]",
            "f.toml:2: [dpdk].eal_args[0]: an argument that is empty or has a NUL in it; allowed: a text, one argument",
        ),
        bad(
            "[worker]",
            "[dpdk]\nmbufs = 1\n[worker]",
            "f.toml:2: [dpdk].mbufs: 1 is out of range; allowed: an integer from 1024 to 67108864 packet buffers",
        ),
        bad(
            "[worker]",
            "[control]\nsocket = \"run/s\"\n[worker]",
            "f.toml:2: [control].socket: \"run/s\" is no absolute path; allowed: an absolute path of at most 97 bytes, like /run/fullgate/control.sock",
        ),
        bad(
            "[worker]",
            "[control]\nstate_dir = \"\"\n[worker]",
            "f.toml:2: [control].state_dir: \"\" is no absolute path; allowed: an absolute path, like /var/lib/fullgate",
        ),
        bad(
            "[worker]",
            "[control]\ngroup = \"\"\n[worker]",
            "f.toml:2: [control].group: \"\" is no name of a group; allowed: a group's name without spaces and colons",
        ),
        bad(
            "[worker]",
            "[control]\nmetrics = true\n[worker]",
            "f.toml:2: [control].metrics: a boolean does not fit here; allowed: ADDRESS:PORT, like \"127.0.0.1:9469\", or false for none",
        ),
        bad(
            "[worker]",
            "[control]\nmetrics = \"\"\n[worker]",
            "f.toml:2: [control].metrics: \"\" is no address and port; allowed: ADDRESS:PORT, like \"127.0.0.1:9469\", or false for none",
        ),
        bad(
            "[worker]",
            "[control]\nmetrics = \"localhost:9469\"\n[worker]",
            "f.toml:2: [control].metrics: \"localhost:9469\" is no address and port; allowed: ADDRESS:PORT, like \"127.0.0.1:9469\", or false for none",
        ),
        bad(
            "[worker]",
            "[control]\nsockte = \"/s\"\n[worker]",
            "f.toml:2: [control].sockte: unknown key \"sockte\"; did you mean \"socket\"?",
        ),
        bad(
            "[worker]",
            "[punt]\narp = -1\n[worker]",
            "f.toml:2: [punt].arp: -1 is out of range; allowed: an integer from 0 to 10000000 frames a second",
        ),
        bad(
            "[worker]",
            "[punt]\nospf = 1\n[worker]",
            "f.toml:2: [punt].ospf: unknown key \"ospf\"; allowed: arp, icmp, nd, ipv6, multicast, local, virtual, local_node",
        ),
        bad(
            "[worker]",
            "[ipvs]\nmh_tab_index = 18\n[worker]",
            "f.toml:2: [ipvs].mh_tab_index: 18 is out of range; allowed: an integer from 8 to 17",
        ),
        bad(
            "[worker]",
            "[ipvs]\nhash_secret = \"00\"\n[worker]",
            "f.toml:2: [ipvs].hash_secret: 2 characters that are not 32 hexadecimal digits; allowed: 32 hexadecimal digits, as `openssl rand -hex 16` prints them",
        ),
        bad(
            "[worker]",
            "[ipvs]\nlblc_expiration = 0\n[worker]",
            "f.toml:2: [ipvs].lblc_expiration: 0 is out of range; allowed: an integer from 1 to 2678400 seconds (31 days)",
        ),
        bad(
            "[worker]",
            "[timeouts]\ntcp = 0\n[worker]",
            "f.toml:2: [timeouts].tcp: 0 is out of range; allowed: an integer from 1 to 2678400 seconds (31 days)",
        ),
        bad(
            "[worker]",
            "[timeouts]\nudp = 2678401\n[worker]",
            "f.toml:2: [timeouts].udp: 2678401 is out of range; allowed: an integer from 1 to 2678400 seconds (31 days)",
        ),
        bad(
            "[worker]",
            "[timeouts]\ntcp_finn = 1\n[worker]",
            "f.toml:2: [timeouts].tcp_finn: unknown key \"tcp_finn\"; did you mean \"tcp_fin\"?",
        ),
        bad(
            "[worker]",
            "[timeouts]\ntcp = 99999999999999999999999999999999999999999\n[worker]",
            "f.toml:2: [timeouts].tcp: 99999999999999999999999999999999999999999 is out of range; allowed: an integer from 1 to 2678400 seconds (31 days)",
        ),
        bad("[worker]", "[worker]\ncores = [3]", "f.toml:3: not TOML: duplicate key: cores"),
    ]);
}

/// A port that is VLAN 7 of "wan", before the pools.
const VLAN: &str = "[[port]]\nname = \"v\"\nparent = \"wan\"\nvlan = 7\n\n[[local_pool]]";

#[test]
fn vlans_have_their_parents_device() {
    let config = Config::parse(&changed("[[local_pool]]", VLAN), "f.toml").unwrap();
    let vlan = &config.ports[2];
    assert_eq!((&vlan.device, vlan.vlan), (&Device::Parent(PortId(0)), VlanId::new(7)));
    assert_eq!((vlan.tap.as_str(), config.ports[0].vlan), ("fg-v", None));
    // Without a parent: a device all of whose frames are tagged.
    let config = Config::parse(&changed("name = \"wan\"", "name = \"wan\"\nvlan = 4094"), "f.toml").unwrap();
    assert_eq!(config.ports[0].vlan, VlanId::new(4094));
    // A parent may come after its VLANs.
    let first = format!("{CORES}\n{}", VLAN.trim_end_matches("[[local_pool]]"));
    let config = Config::parse(&changed(CORES, &first), "f.toml").unwrap();
    assert_eq!(config.ports[0].device, Device::Parent(PortId(1)));
}

#[test]
fn bad_vlans() {
    let wrong = |from: &str, to: &str, error: &str| {
        assert!(VLAN.contains(from));
        assert_eq!(errors(&changed("[[local_pool]]", &VLAN.replace(from, to))), [error]);
    };
    wrong("\"wan\"", "\"wam\"", "f.toml:16: port[2].parent: there is no port \"wam\"; allowed: wan, lan");
    wrong("\"wan\"", "\"v\"", "f.toml:16: port[2].parent: \"v\" is a VLAN itself; allowed: wan, lan");
    wrong("vlan = 7\n", "", "f.toml:14: port[2].vlan: missing; allowed: an integer from 1 to 4094");
    wrong("vlan = 7", "vlan = 0", "f.toml:17: port[2].vlan: 0 is out of range; allowed: an integer from 1 to 4094");
    wrong(
        "vlan = 7",
        "vlan = 4095",
        "f.toml:17: port[2].vlan: 4095 is out of range; allowed: an integer from 1 to 4094",
    );
    wrong(
        "vlan = 7",
        "vlan = 7\nqueues = 1",
        "f.toml:18: port[2].queues: a VLAN has its parent's; allowed: only in the parent's own table",
    );
    wrong(
        "vlan = 7",
        "vlan = 7\ndevice = \"net_null0\"",
        "f.toml:18: port[2].device: a VLAN has its parent's; allowed: only in the parent's own table",
    );
    let again = VLAN.replace("[[local_pool]]", &VLAN.replace("\"v\"", "\"w\""));
    assert_eq!(
        errors(&changed("[[local_pool]]", &again)),
        ["f.toml:22: port[3].vlan: VLAN 7 of \"wan\" is the port on line 17; allowed: each VLAN once a parent"]
    );
    let stacked = again.replacen("parent = \"wan\"\nvlan = 7\n\n[[local", "parent = \"v\"\nvlan = 8\n\n[[local", 1);
    assert_eq!(
        errors(&changed("[[local_pool]]", &stacked)),
        ["f.toml:21: port[3].parent: \"v\" is a VLAN itself; allowed: wan, lan"]
    );
    let small = changed("[[local_pool]]", &VLAN.replace("vlan = 7", "vlan = 7\nmtu = 1501"));
    let small = small.replace("name = \"wan\"", "name = \"wan\"\nmtu = 1500");
    assert_eq!(errors(&small), ["f.toml:19: port[2].mtu: 1501 is more than the parent's; allowed: at most 1500"]);
    let tagged = changed("[[local_pool]]", VLAN).replace("name = \"wan\"", "name = \"wan\"\nvlan = 5");
    assert_eq!(errors(&tagged), ["f.toml:17: port[2].parent: \"wan\" is a VLAN itself; allowed: lan"]);
}

/// What a bond stands for in the good file.
const BOND: &str = "\"net_bonding0,mode=802.3ad,xmit_policy=l34\"\nmembers = [\"0000:01:00.0\", \"net_tap0\"]";

#[test]
fn a_bond_has_members() {
    let config = Config::parse(&changed("\"0000:01:00.0\"", BOND), "f.toml").unwrap();
    assert_eq!(config.ports[0].members, []);
    assert_eq!(config.ports[1].members, [Device::Pci("0000:01:00.0".into()), Device::Vdev("net_tap0".into())]);
    for arguments in [
        "mode=active-backup,primary=net_tap0,mac=02:00:00:00:00:01,lsc_poll_period_ms=50,up_delay=1,down_delay=2",
        "mode=balance-xor,xmit_policy=l2,socket_id=0",
        "mode=802.3ad,agg_mode=bandwidth",
    ] {
        let bond = BOND.replace("mode=802.3ad,xmit_policy=l34", arguments);
        assert_eq!(errors(&changed("\"0000:01:00.0\"", &bond)), Vec::<String>::new());
    }
}

#[test]
fn bad_bonds() {
    let wrong = |from: &str, to: &str, error: &str| {
        assert!(BOND.contains(from), "{from}");
        assert_eq!(errors(&changed("\"0000:01:00.0\"", &BOND.replace(from, to))), [error]);
    };
    let members = "a list of devices, like [\"0000:01:00.0\", \"0000:01:00.1\"]";
    wrong(
        "\nmembers = [\"0000:01:00.0\", \"net_tap0\"]",
        "",
        &format!("f.toml:11: port[1].members: missing: net_bonding is made of other devices; allowed: {members}"),
    );
    wrong(
        "[\"0000:01:00.0\", \"net_tap0\"]",
        "[]",
        &format!("f.toml:12: port[1].members: the list is empty; allowed: {members}"),
    );
    wrong(
        "\"net_tap0\"",
        "\"net_bonding1\"",
        "f.toml:12: port[1].members[1]: \"net_bonding1\" is a bond itself; allowed: other devices",
    );
    wrong(
        "\"net_tap0\"",
        "\"net_af_xdp7,iface=x\"",
        "f.toml:12: port[1].members[1]: \"net_af_xdp7\" cannot take the bond's address; allowed: PCI devices, \
         net_af_packet, net_tap",
    );
    wrong(
        "\"net_tap0\"",
        "\"0000:01:00.0\"",
        "f.toml:12: port[1].members[1]: \"0000:01:00.0\" is in use on line 12; allowed: each device once",
    );
    let device = |arguments: &str, error: &str| {
        wrong("mode=802.3ad,xmit_policy=l34", arguments, &format!("f.toml:11: port[1].device: {error}"));
    };
    let modes = "mode=active-backup, balance-xor, 802.3ad";
    device("mode=4", &format!("mode=4 is wrong; allowed: {modes}"));
    device("xmit_policy=l34", &format!("there is no mode; allowed: {modes}"));
    device("mode=802.3ad,xmit_policy=l4", "xmit_policy=l4 is wrong; allowed: xmit_policy=l2, l23, l34");
    device("mode=802.3ad,agg_mode=", "agg_mode= is wrong; allowed: agg_mode=stable, bandwidth, count");
    device("mode=802.3ad,mac=no", "mac=no is wrong; allowed: the address of one device, like mac=02:00:00:00:00:01");
    device("mode=active-backup,primary=net_tap1", "primary=net_tap1 is wrong; allowed: 0000:01:00.0, net_tap0");
    device("mode=802.3ad,up_delay=soon", "up_delay=soon is wrong; allowed: up_delay=NUMBER");
    device("mode=802.3ad,slave=net_tap0", "slave= is not for here; allowed: the list `members`");
    device(
        "mode=802.3ad,lacp=fast",
        "net_bonding has no argument \"lacp\"; allowed: mode, xmit_policy, mac, primary, agg_mode, lsc_poll_period_ms, \
         up_delay, down_delay, socket_id",
    );
    assert_eq!(
        errors(&changed("\"0000:01:00.0\"", "\"0000:01:00.0\"\nmembers = [\"net_tap0\"]")),
        ["f.toml:12: port[1].members: \"0000:01:00.0\" has no members; allowed: with a device net_bonding..., like \
          \"net_bonding0,mode=active-backup\""]
    );
}

#[test]
fn bad_ports() {
    assert_each(&[
        bad("name = \"wan\"\n", "", "f.toml:4: port[0].name: missing; allowed: a name, like \"wan\""),
        bad(
            "name = \"wan\"",
            "name = \"\"",
            "f.toml:5: port[0].name: \"\" is empty; allowed: 1-32 characters of a-z, 0-9, _ and -",
        ),
        bad(
            "name = \"wan\"",
            "name = \"Wan\"",
            "f.toml:5: port[0].name: \"Wan\" has a character that a name cannot have; allowed: 1-32 characters of a-z, 0-9, _ and -",
        ),
        bad(
            "name = \"wan\"",
            "name = 1",
            "f.toml:5: port[0].name: an integer does not fit here; allowed: a name, like \"wan\"",
        ),
        bad(
            "name = \"wan\"",
            "name = \"lan\"",
            "f.toml:10: port[1].name: \"lan\" is the name of the port on line 5; allowed: each name once",
        ),
        bad(
            "name = \"wan\"",
            "name = \"wan-of-the-west\"",
            "f.toml:4: port[0].tap: the default TAP \"fg-wan-of-the-west\" has 18 bytes; allowed: at most 15: give a tap of your own, or a name of at most 12 bytes",
        ),
        bad(
            "name = \"wan\"",
            "name = \"wan\"\ntap = \"a-name-too-long1\"",
            "f.toml:6: port[0].tap: \"a-name-too-long1\" is longer than the kernel allows; allowed: 1-15 bytes without spaces and none of / : %",
        ),
        bad(
            "name = \"wan\"",
            "name = \"wan\"\ntap = \"fg/wan\"",
            "f.toml:6: port[0].tap: \"fg/wan\" has a character that an interface name cannot have; allowed: 1-15 bytes without spaces and none of / : %",
        ),
        bad(
            "name = \"wan\"",
            "name = \"wan\"\ntap = \"fg-lan\"",
            "f.toml:10: port[1].tap: \"fg-lan\" is the TAP of the port on line 6; allowed: each name once",
        ),
        bad(
            "device = \"0000:01:00.0\"",
            "",
            "f.toml:9: port[1].device: missing; allowed: a PCI address DDDD:BB:DD.F like 0000:01:00.0, or a DPDK vdev net_... or eth_... like net_af_xdp0,iface=veth1",
        ),
        bad(
            "\"0000:01:00.0\"",
            "\"01:00.0\"",
            "f.toml:11: port[1].device: \"01:00.0\" is a PCI address without its domain; allowed: a PCI address DDDD:BB:DD.F like 0000:01:00.0, or a DPDK vdev net_... or eth_... like net_af_xdp0,iface=veth1",
        ),
        bad(
            "\"0000:01:00.0\"",
            "\"eth0\"",
            "f.toml:11: port[1].device: \"eth0\" is no DPDK device; allowed: a PCI address DDDD:BB:DD.F like 0000:01:00.0, or a DPDK vdev net_... or eth_... like net_af_xdp0,iface=veth1",
        ),
        bad(
            "\"0000:01:00.0\"",
            "\"net_af_xdp0,iface=veth2\"",
            "f.toml:11: port[1].device: \"net_af_xdp0\" is the device of the port on line 6; allowed: each device once",
        ),
        bad(
            "\"10.1.0.1/24\"",
            "\"10.1.0.1\"",
            "f.toml:12: port[1].addresses[0]: \"10.1.0.1\" has no prefix length; allowed: ADDRESS/PREFIX, like 10.0.0.1/24 or 2001:db8::1/64",
        ),
        bad(
            "\"10.1.0.1/24\"",
            "\"10.1.0.1/33\"",
            "f.toml:12: port[1].addresses[0]: \"10.1.0.1/33\" has a wrong prefix length; allowed: a prefix of 0-32 bits for IPv4, 0-128 for IPv6",
        ),
        bad(
            "\"10.1.0.1/24\"",
            "\"10.1.0/24\"",
            "f.toml:12: port[1].addresses[0]: \"10.1.0/24\" is no IP address; allowed: ADDRESS/PREFIX, like 10.0.0.1/24 or 2001:db8::1/64",
        ),
        bad(
            "\"10.1.0.1/24\"",
            "\"224.0.0.1/24\"",
            "f.toml:12: port[1].addresses[0]: \"224.0.0.1/24\" cannot be an interface's address; allowed: an address that a host can have: neither multicast, broadcast, loopback, 0.0.0.0/8 nor ::ffff:0.0.0.0/96",
        ),
        bad(
            "\"10.1.0.1/24\"",
            "\"10.0.0.1/24\"",
            "f.toml:12: port[1].addresses[0]: 10.0.0.1 is a port's address on line 7 already; allowed: each address once",
        ),
        bad(
            "\"10.1.0.1/24\"",
            "\"2001:db8::1/129\"",
            "f.toml:12: port[1].addresses[0]: \"2001:db8::1/129\" has a wrong prefix length; allowed: a prefix of 0-32 bits for IPv4, 0-128 for IPv6",
        ),
        bad(
            "\"10.1.0.1/24\"",
            "\"::ffff:10.1.0.1/128\"",
            "f.toml:12: port[1].addresses[0]: \"::ffff:10.1.0.1/128\" cannot be an interface's address; allowed: an address that a host can have: neither multicast, broadcast, loopback, 0.0.0.0/8 nor ::ffff:0.0.0.0/96",
        ),
        bad(
            "\"10.1.0.1/24\"",
            "\"fe80::1/64\", \"fe80::1/64\"",
            "f.toml:12: port[1].addresses[1]: fe80::1 is a port's address on line 12 already; allowed: each address once",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"2001:db8::1/64\"]\nmtu = 1279",
            "f.toml:13: port[1].mtu: 1279 is too small for IPv6, and the port has 2001:db8::1; allowed: at least 1280",
        ),
        bad(
            "[\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"",
            "f.toml:12: port[1].addresses: a string does not fit here; allowed: a list of addresses with prefix, like [\"10.0.0.1/24\"]",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nmtu = 67",
            "f.toml:13: port[1].mtu: 67 is out of range; allowed: an integer from 68 to 9600 bytes of an IP packet",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nmtu = \"1500\"",
            "f.toml:13: port[1].mtu: a string does not fit here; allowed: an integer from 68 to 9600 bytes of an IP packet",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nqueues = 3",
            "f.toml:13: port[1].queues: 3 queues are more than workers to read them; allowed: 1 to 2, one a worker",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nqueues = 0",
            "f.toml:13: port[1].queues: 0 is out of range; allowed: an integer from 1 to 128 queues each way",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nrx_descriptors = 63",
            "f.toml:13: port[1].rx_descriptors: 63 is out of range; allowed: an integer from 64 to 32768 descriptors a queue",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\ntx_descriptors = 65536",
            "f.toml:13: port[1].tx_descriptors: 65536 is out of range; allowed: an integer from 64 to 32768 descriptors a queue",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\npromiscuous = 1",
            "f.toml:13: port[1].promiscuous: an integer does not fit here; allowed: true, false",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nmac = \"02:00:00:00:00\"",
            "f.toml:13: port[1].mac: \"02:00:00:00:00\" is no Ethernet address; allowed: the address of one port, like \"02:00:00:00:00:01\"",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nmac = \"01:00:5e:00:00:01\"",
            "f.toml:13: port[1].mac: 01:00:5e:00:00:01 is no address of one port; allowed: the address of one port, like \"02:00:00:00:00:01\"",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nsteering = \"hash\"",
            "f.toml:13: port[1].steering: \"hash\" is no way to deal flows to workers; allowed: auto, rss, software",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nlink_timeout_milliseconds = 600001",
            "f.toml:13: port[1].link_timeout_milliseconds: 600001 is out of range; allowed: an integer from 0 to 600000 milliseconds",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nrx-descriptors = 64",
            "f.toml:13: port[1].rx-descriptors: unknown key \"rx-descriptors\"; did you mean \"rx_descriptors\"?",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nroutes = [{ via = \"10.1.0.2\" }]",
            "f.toml:13: port[1].routes[0].to: missing; allowed: default, or NETWORK/PREFIX",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nroutes = [\"default\"]",
            "f.toml:13: port[1].routes[0]: a string does not fit here; allowed: a table, like { to = \"default\", via = \"10.0.0.254\" }",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nroutes = [{ to = \"10.2.0.1/16\" }]",
            "f.toml:13: port[1].routes[0].to: \"10.2.0.1/16\" has bits set behind its prefix, which the kernel refuses; allowed: default, or NETWORK/PREFIX like 10.2.0.0/16 or 2001:db8:2::/48",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nroutes = [{ to = \"10.2.0.0\" }]",
            "f.toml:13: port[1].routes[0].to: \"10.2.0.0\" has no prefix length; allowed: default, or NETWORK/PREFIX like 10.2.0.0/16 or 2001:db8:2::/48",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nroutes = [{ to = \"default\", via = \"gw\" }]",
            "f.toml:13: port[1].routes[0].via: \"gw\" is no IP address; allowed: the address of a gateway, like \"10.0.0.254\" or \"2001:db8::fe\"",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nroutes = [{ to = \"default\", via = \"10.2.0.1\" }]",
            "f.toml:13: port[1].routes[0].via: 10.2.0.1 is in no network of this port; allowed: a neighbour by addresses or by a route above",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nroutes = [{ to = \"10.2.0.0/16\", via = \"fe80::1\" }]",
            "f.toml:13: port[1].routes[0].via: fe80::1 is of another family than 10.2.0.0; allowed: IPv4 with IPv4, IPv6 with IPv6",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nroutes = [{ to = \"default\", metric = -1 }]",
            "f.toml:13: port[1].routes[0].metric: -1 is out of range; allowed: an integer from 0 to 4294967295",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nroutes = [{ to = \"default\", dev = \"x\" }]",
            "f.toml:13: port[1].routes[0].dev: unknown key \"dev\"; allowed: to, via, metric",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nroutes = [{ to = \"default\" },\n{ to = \"0.0.0.0/0\" }]",
            "f.toml:14: port[1].routes[1].to: 0.0.0.0/0 has a route on line 13; allowed: each destination once a metric",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nroutes = [{ to = \"default\" },\n{ to = \"default\", metric = 0 }]",
            "f.toml:14: port[1].routes[1].to: 0.0.0.0/0 has a route on line 13; allowed: each destination once a metric",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"2001:db8::1/64\"]\nroutes = [{ to = \"default\", via = \"2001:db8::fe\" },\n{ to = \"::/0\", via = \"fe80::1\", metric = 1024 }]",
            "f.toml:14: port[1].routes[1].to: ::/0 has a route on line 13; allowed: each destination once a metric",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"10.1.0.1/24\"]\nroutes = [{ to = \"2001:db8::1/32\", via = \"fe80::1\" }]",
            "f.toml:13: port[1].routes[0].to: \"2001:db8::1/32\" has bits set behind its prefix, which the kernel refuses; allowed: default, or NETWORK/PREFIX like 10.2.0.0/16 or 2001:db8:2::/48",
        ),
        bad(
            "\"10.1.0.1/24\"]",
            "\"2001:db8::1/64\"]\nroutes = [{ to = \"default\", via = \"2001:db8:1::fe\" }]",
            "f.toml:13: port[1].routes[0].via: 2001:db8:1::fe is in no network of this port; allowed: a neighbour by addresses or by a route above",
        ),
    ]);
}

#[test]
fn bad_local_pools() {
    assert_each(&[
        bad(
            "name = \"lan\"\nport = \"lan\"",
            "port = \"lan\"",
            "f.toml:14: local_pool[0].name: missing; allowed: a name, like \"lan\"",
        ),
        bad(
            "name = \"lan\"\nport = \"lan\"",
            "name = \"\"\nport = \"lan\"",
            "f.toml:15: local_pool[0].name: \"\" is empty; allowed: 1-32 characters of a-z, 0-9, _ and -",
        ),
        bad("port = \"lan\"\n", "", "f.toml:14: local_pool[0].port: missing; allowed: the name of a [[port]]"),
        bad(
            "port = \"lan\"",
            "port = \"dmz\"",
            "f.toml:16: local_pool[0].port: there is no port \"dmz\"; allowed: wan, lan",
        ),
        bad(
            "port = \"lan\"",
            "port = \"lan\"\nports = \"65535-1024\"",
            "f.toml:17: local_pool[0].ports: \"65535-1024\" is no range of ports: FIRST-LAST, each 1-65535, FIRST not above LAST, like 1024-65535, or one port",
        ),
        bad(
            "port = \"lan\"",
            "port = \"lan\"\nports = \"0-1024\"",
            "f.toml:17: local_pool[0].ports: \"0-1024\" is no range of ports: FIRST-LAST, each 1-65535, FIRST not above LAST, like 1024-65535, or one port",
        ),
        bad(
            "port = \"lan\"",
            "port = \"lan\"\nports = 1024",
            "f.toml:17: local_pool[0].ports: an integer does not fit here; allowed: FIRST-LAST, like \"1024-65535\"",
        ),
        bad(
            "port = \"lan\"",
            "port = \"lan\"\nports = \"1024-1024\"",
            "f.toml:17: local_pool[0].ports: 1024 are too few: 1 ports for 2 workers; allowed: at least one port for each worker",
        ),
        bad(
            "port = \"lan\"",
            "port = \"lan\"\nadresses = []",
            "f.toml:17: local_pool[0].adresses: unknown key \"adresses\"; did you mean \"addresses\"?",
        ),
        bad(
            "[\"10.1.0.200-10.1.0.203\"]",
            "[]",
            "f.toml:17: local_pool[0].addresses: the pool has no address; allowed: at least one address, or range A-B",
        ),
        bad(
            "[\"10.1.0.200-10.1.0.203\"]",
            "\"10.1.0.200\"",
            "f.toml:17: local_pool[0].addresses: a string does not fit here; allowed: a list of addresses and ranges A-B, like [\"10.1.0.200-10.1.0.203\"]",
        ),
        bad(
            "\"10.1.0.200-10.1.0.203\"",
            "\"10.1.0.203-10.1.0.200\"",
            "f.toml:17: local_pool[0].addresses[0]: \"10.1.0.203-10.1.0.200\" ends before it begins; allowed: an address or a range A-B of at most 16384, like 10.1.0.200-10.1.0.203 or 2001:db8::200-2001:db8::203",
        ),
        bad(
            "\"10.1.0.200-10.1.0.203\"",
            "\"10.1.0.200-203\"",
            "f.toml:17: local_pool[0].addresses[0]: \"10.1.0.200-203\" is no address or range of addresses; allowed: an address or a range A-B of at most 16384, like 10.1.0.200-10.1.0.203 or 2001:db8::200-2001:db8::203",
        ),
        bad(
            "\"10.1.0.200-10.1.0.203\"",
            "\"10.0.0.0-10.255.255.255\"",
            "f.toml:17: local_pool[0].addresses[0]: \"10.0.0.0-10.255.255.255\" is too large a range; allowed: an address or a range A-B of at most 16384, like 10.1.0.200-10.1.0.203 or 2001:db8::200-2001:db8::203",
        ),
        bad(
            "\"10.1.0.200-10.1.0.203\"",
            "\"10.1.0.200-2001:db8::1\"",
            "f.toml:17: local_pool[0].addresses[0]: \"10.1.0.200-2001:db8::1\" is of two families; allowed: an address or a range A-B of at most 16384, like 10.1.0.200-10.1.0.203 or 2001:db8::200-2001:db8::203",
        ),
        bad(
            "\"10.1.0.200-10.1.0.203\"",
            "\"10.1.0.200\",\n\"10.1.0.199-10.1.0.200\"",
            "f.toml:18: local_pool[0].addresses[1]: 10.1.0.200 is in local pool \"lan\" already on line 17; allowed: each address once over all pools",
        ),
        bad(
            "\"10.1.0.200-10.1.0.203\"",
            "\"10.0.0.99-10.0.0.101\"",
            "f.toml:17: local_pool[0].addresses[0]: 10.0.0.100 is a service's VIP on line 20; allowed: addresses that the gateway uses for nothing else",
        ),
        bad(
            "\"10.1.0.200-10.1.0.203\"",
            "\"10.1.0.10-10.1.0.12\"",
            "f.toml:17: local_pool[0].addresses[0]: 10.1.0.11 is a real server's address on line 24; allowed: addresses that the gateway uses for nothing else",
        ),
        bad(
            "\"10.1.0.200-10.1.0.203\"",
            "\"10.1.0.1\"",
            "f.toml:17: local_pool[0].addresses[0]: 10.1.0.1 is a port's own address; allowed: addresses that the gateway uses for nothing else",
        ),
        bad(
            "\"10.1.0.200-10.1.0.203\"",
            "\"10.2.0.0-10.2.63.255\", \"10.3.0.0\"",
            "f.toml:17: local_pool[0].addresses: the pools up to here hold 16385 addresses; allowed: at most 16384 over all pools",
        ),
        bad(
            "\"10.1.0.200-10.1.0.203\"",
            "\"239.1.1.1\"",
            "f.toml:17: local_pool[0].addresses[0]: 239.1.1.1 cannot be a source address; allowed: neither multicast, broadcast, loopback, unspecified, 0.0.0.0/8, 240.0.0.0/4 nor IPv4-mapped",
        ),
        bad(
            "[[service]]",
            "[[local_pool]]\nname = \"lan\"\nport = \"lan\"\naddresses = [\"10.1.0.210\"]\n[[service]]\nlocal_pool = \"lan\"",
            "f.toml:20: local_pool[1].name: \"lan\" is the name of another pool on line 15; allowed: each name once",
        ),
        bad(
            "[[service]]",
            "[[local_pool]]\nname = \"lan2\"\nport = \"lan\"\naddresses = [\"10.1.0.203\"]\n[[service]]\nlocal_pool = \"lan\"",
            "f.toml:22: local_pool[1].addresses[0]: 10.1.0.203 is in local pool \"lan\" already on line 17; allowed: each address once over all pools",
        ),
    ]);
}

#[test]
fn bad_services() {
    assert_each(&[
        bad(
            "vip = \"10.0.0.100:80\"\n",
            "",
            "f.toml:19: service[0].vip: missing; allowed: ADDRESS:PORT with a port of 1-65535, like 10.0.0.100:80 or [2001:db8::100]:80; ADDRESS:FIRST-LAST for a range of ports, like 10.0.0.100:8000-8099; ADDRESS:0 for all ports; fwmark:MARK or fwmark:MARK/ipv6 for what has a mark",
        ),
        bad(
            "vip = \"10.0.0.100:80\"",
            "vip = 80",
            "f.toml:20: service[0].vip: an integer does not fit here; allowed: ADDRESS:PORT with a port of 1-65535, like 10.0.0.100:80 or [2001:db8::100]:80; ADDRESS:FIRST-LAST for a range of ports, like 10.0.0.100:8000-8099; ADDRESS:0 for all ports; fwmark:MARK or fwmark:MARK/ipv6 for what has a mark",
        ),
        bad(
            "vip = \"10.0.0.100:80\"",
            "vip = \"10.0.0.100\"",
            "f.toml:20: service[0].vip: \"10.0.0.100\" has no port; allowed: ADDRESS:PORT with a port of 1-65535, like 10.0.0.100:80 or [2001:db8::100]:80; ADDRESS:FIRST-LAST for a range of ports, like 10.0.0.100:8000-8099; ADDRESS:0 for all ports; fwmark:MARK or fwmark:MARK/ipv6 for what has a mark",
        ),
        bad(
            "vip = \"10.0.0.100:80\"",
            "vip = \"10.0.0.100:90-80\"",
            "f.toml:20: service[0].vip: \"10.0.0.100:90-80\" has no port, and no range of ports, of 1-65535; allowed: ADDRESS:PORT with a port of 1-65535, like 10.0.0.100:80 or [2001:db8::100]:80; ADDRESS:FIRST-LAST for a range of ports, like 10.0.0.100:8000-8099; ADDRESS:0 for all ports; fwmark:MARK or fwmark:MARK/ipv6 for what has a mark",
        ),
        bad(
            "vip = \"10.0.0.100:80\"",
            "vip = \"10.0.0.100:65536\"",
            "f.toml:20: service[0].vip: \"10.0.0.100:65536\" has no port, and no range of ports, of 1-65535; allowed: ADDRESS:PORT with a port of 1-65535, like 10.0.0.100:80 or [2001:db8::100]:80; ADDRESS:FIRST-LAST for a range of ports, like 10.0.0.100:8000-8099; ADDRESS:0 for all ports; fwmark:MARK or fwmark:MARK/ipv6 for what has a mark",
        ),
        bad(
            "vip = \"10.0.0.100:80\"",
            "vip = \"[2001:db8::1%1]:80\"",
            "f.toml:20: service[0].vip: \"[2001:db8::1%1]:80\" names an interface; allowed: ADDRESS:PORT with a port of 1-65535, like 10.0.0.100:80 or [2001:db8::100]:80; ADDRESS:FIRST-LAST for a range of ports, like 10.0.0.100:8000-8099; ADDRESS:0 for all ports; fwmark:MARK or fwmark:MARK/ipv6 for what has a mark",
        ),
        bad(
            "vip = \"10.0.0.100:80\"",
            "vip = \"www.example:80\"",
            "f.toml:20: service[0].vip: \"www.example:80\" is no address and port; allowed: ADDRESS:PORT with a port of 1-65535, like 10.0.0.100:80 or [2001:db8::100]:80; ADDRESS:FIRST-LAST for a range of ports, like 10.0.0.100:8000-8099; ADDRESS:0 for all ports; fwmark:MARK or fwmark:MARK/ipv6 for what has a mark",
        ),
        bad(
            "vip = \"10.0.0.100:80\"",
            "vip = \"224.0.0.1:80\"",
            "f.toml:20: service[0].vip: 224.0.0.1 cannot be a host's address; allowed: neither multicast, broadcast, loopback, unspecified, 0.0.0.0/8, 240.0.0.0/4 nor IPv4-mapped",
        ),
        bad("protocol = \"tcp\"\n", "", "f.toml:19: service[0].protocol: missing; allowed: tcp, udp, sctp"),
        bad(
            "protocol = \"tcp\"",
            "protocol = \"dccp\"",
            "f.toml:21: service[0].protocol: \"dccp\" is not a protocol: allowed: tcp, udp, sctp",
        ),
        bad(
            "protocol = \"tcp\"",
            "protocol = 6",
            "f.toml:21: service[0].protocol: an integer does not fit here; allowed: tcp, udp, sctp",
        ),
        bad(
            "protocol = \"tcp\"",
            "protocol = \"tcp\"\nshceduler = \"rr\"",
            "f.toml:22: service[0].shceduler: unknown key \"shceduler\"; did you mean \"scheduler\"?",
        ),
        bad(
            "protocol = \"tcp\"",
            "protocol = \"tcp\"\nscheduler = \"random\"",
            "f.toml:22: service[0].scheduler: \"random\" is not a scheduler: allowed: rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, mh, fo, ovf, twos",
        ),
        bad(
            "protocol = \"tcp\"",
            "protocol = \"tcp\"\nscheduler_flags = [\"sh-fallback\", \"sh-ports\"]",
            "f.toml:22: service[0].scheduler_flags[1]: \"sh-ports\" is not a scheduler flag: allowed: sh-fallback, sh-port, mh-fallback, mh-port",
        ),
        bad(
            "protocol = \"tcp\"",
            "protocol = \"tcp\"\nscheduler_flags = \"sh-port\"",
            "f.toml:22: service[0].scheduler_flags: a string does not fit here; allowed: a list of flags, like [\"sh-fallback\", \"sh-port\"]",
        ),
        bad(
            "protocol = \"tcp\"",
            "protocol = \"tcp\"\nscheduler = \"mh\"\nscheduler_flags = [\"sh-port\"]",
            "f.toml:23: service[0].scheduler_flags: sh-port is no flag of scheduler mh; allowed: mh-fallback, mh-port",
        ),
        bad(
            "protocol = \"tcp\"",
            "protocol = \"tcp\"\nscheduler_flags = [\"mh-port\"]",
            "f.toml:22: service[0].scheduler_flags: mh-port is no flag of scheduler wlc; allowed: none: only sh and mh have flags",
        ),
        bad(
            "protocol = \"tcp\"",
            "protocol = \"tcp\"\nmode = \"bridge\"",
            "f.toml:22: service[0].mode: \"bridge\" is not a forwarding mode: allowed: fullnat, nat, dr, tun",
        ),
        bad(
            "protocol = \"tcp\"",
            "protocol = \"tcp\"\nlocal_pool = \"wan\"",
            "f.toml:22: service[0].local_pool: there is no local pool \"wan\"; allowed: lan",
        ),
        bad(
            "protocol = \"tcp\"",
            "protocol = \"tcp\"\nlocal_pool = \"\"",
            "f.toml:22: service[0].local_pool: the name is empty; allowed: the name of a [[local_pool]], or no key where there is only one",
        ),
        bad(
            "protocol = \"tcp\"",
            "protocol = \"tcp\"\n[[service]]\nvip = \"10.0.0.100:80\"\nprotocol = \"tcp\"",
            "f.toml:23: service[1].vip: tcp 10.0.0.100:80 is a service already on line 20; allowed: each protocol, VIP and port once",
        ),
        bad(
            "[[service.real_server]]",
            "[service.real_server]",
            "f.toml:23: service[0].real_server: a table does not fit here; allowed: tables, each [[service.real_server]]",
        ),
        bad(
            "[[service.real_server]]",
            "[[service.realserver]]",
            "f.toml:23: service[0].realserver: unknown key \"realserver\"; did you mean \"real_server\"?",
        ),
        bad(
            "address = \"10.1.0.11:80\"",
            "",
            "f.toml:23: service[0].real_server[0].address: missing; allowed: ADDRESS:PORT, like 10.1.0.11:80 or [2001:db8:1::11]:80; ADDRESS alone for the port that clients ask for",
        ),
        bad(
            "address = \"10.1.0.11:80\"",
            "address = \"10.1.0.11:0\"",
            "f.toml:24: service[0].real_server[0].address: 10.1.0.11:0 has port 0; allowed: a port of 1-65535; 0 in a service of several ports only",
        ),
        bad(
            "address = \"10.1.0.11:80\"",
            "address = \"10.0.0.100:80\"",
            "f.toml:24: service[0].real_server[0].address: 10.0.0.100:80 is the service itself; allowed: an address of another host",
        ),
        bad(
            "address = \"10.1.0.11:80\"",
            "address = \"10.1.0.1:80\"",
            "f.toml:24: service[0].real_server[0].address: 10.1.0.1 is the gateway's own, whose host answers clients itself; allowed: an address of another host; the gateway's own in modes dr and tun, not fullnat",
        ),
        bad(
            "\"10.1.0.11:80\"",
            "\"10.1.0.11:80\"\nweight = 65536",
            "f.toml:25: service[0].real_server[0].weight: 65536 is out of range; allowed: an integer from 0 to 65535",
        ),
        bad(
            "\"10.1.0.11:80\"",
            "\"10.1.0.11:80\"\nweight = \"heavy\"",
            "f.toml:25: service[0].real_server[0].weight: a string does not fit here; allowed: an integer from 0 to 65535",
        ),
        bad(
            "\"10.1.0.11:80\"",
            "\"10.1.0.11:80\"\nweight = -1",
            "f.toml:25: service[0].real_server[0].weight: -1 is out of range; allowed: an integer from 0 to 65535",
        ),
        bad(
            "\"10.1.0.11:80\"",
            "\"10.1.0.11:80\"\nlower = 5",
            "f.toml:25: service[0].real_server[0].lower: 5 is above upper, which is 0; allowed: at most upper; 0 for three quarters of it",
        ),
        bad(
            "\"10.1.0.11:80\"",
            "\"10.1.0.11:80\"\nupper = 4\nlower = 5",
            "f.toml:26: service[0].real_server[0].lower: 5 is above upper, which is 4; allowed: at most upper; 0 for three quarters of it",
        ),
        bad(
            "\"10.1.0.11:80\"",
            "\"10.1.0.11:80\"\nupper_threshold = 4",
            "f.toml:25: service[0].real_server[0].upper_threshold: unknown key \"upper_threshold\"; allowed: address, mode, tunnel, tunnel_port, tunnel_checksum, weight, upper, lower",
        ),
        bad(
            "\"10.1.0.11:80\"",
            "\"10.1.0.11:80\"\n[[service.real_server]]\naddress = \"10.1.0.11:80\"",
            "f.toml:26: service[0].real_server[1].address: 10.1.0.11:80 is a real server of this service already on line 24; allowed: each address and port once in a service",
        ),
    ]);
}

#[test]
fn bad_snat() {
    let with = |lines: &str| format!("{GOOD}\n[[snat]]\n{lines}\n");
    const RULE: &str = "name = \"s\"\nlocal_pool = \"lan\"\nsource = \"10.1.0.0/24\"";
    assert_eq!(errors(&with(RULE)), Vec::<String>::new());
    let ipv6 = Config::parse(&with(&RULE.replace("10.1.0.0/24", "2001:db8::/64")), "f.toml").unwrap();
    let warning = "snat s: local pool lan has no address of the family of 2001:db8::/64: nothing goes out";
    assert_eq!(ipv6.warnings(), [warning]);
    let missing = errors(&with(""));
    assert_eq!(
        missing,
        [
            "f.toml:26: snat[0].name: missing; allowed: a name, like \"office\"",
            "f.toml:26: snat[0].local_pool: missing; allowed: the name of a [[local_pool]]",
            "f.toml:26: snat[0].source: missing; allowed: NETWORK/PREFIX, like 10.1.0.0/24 or 2001:db8:1::/64",
        ]
    );
    let one = |from: &str, to: &str| {
        let found = errors(&with(&RULE.replace(from, to)));
        let [error] = &found[..] else { panic!("{found:?}") };
        error.clone()
    };
    assert_eq!(
        one("10.1.0.0/24", "10.1.0.7/24"),
        "f.toml:29: snat[0].source: \"10.1.0.7/24\" has bits set behind its prefix; allowed: NETWORK/PREFIX, like 10.1.0.0/24 or 2001:db8:1::/64"
    );
    assert_eq!(
        one("\"s\"", "\"S\"").split(';').next().unwrap(),
        "f.toml:27: snat[0].name: \"S\" has a character that a name cannot have"
    );
    assert_eq!(
        one("local_pool = \"lan\"", "local_pool = \"wan\""),
        "f.toml:28: snat[0].local_pool: there is no local pool \"wan\"; allowed: lan"
    );
    let added = |line: &str| one("local_pool = \"lan\"", &format!("local_pool = \"lan\"\n{line}"));
    assert_eq!(
        added("destination = \"::/0\""),
        "f.toml:29: snat[0].destination: ::/0 is of another family than the source; allowed: a network of the family of 10.1.0.0/24"
    );
    assert_eq!(added("port = \"dmz\""), "f.toml:29: snat[0].port: there is no port \"dmz\"; allowed: wan, lan");
    assert_eq!(
        added("destination_port = \"90-80\""),
        "f.toml:29: snat[0].destination_port: \"90-80\" is no range of ports: FIRST-LAST, each 1-65535, FIRST not above LAST, like 1024-65535, or one port"
    );
    assert_eq!(
        added("protocol = \"gre\""),
        "f.toml:29: snat[0].protocol: \"gre\" is not a protocol: allowed: tcp, udp, sctp, icmp"
    );
    assert_eq!(added("soruce = \"x\""), "f.toml:29: snat[0].soruce: unknown key \"soruce\"; did you mean \"source\"?");
    assert_eq!(
        one("local_pool", "local_pool = \"lan\"\nsource = \"10.1.0.0/24\"\n[[snat]]\nname = \"s\"\nlocal_pool"),
        "f.toml:31: snat[1].name: \"s\" is the name of another rule on line 27; allowed: each name once"
    );
}

#[test]
fn bad_marks() {
    let with = |lines: &str| format!("{GOOD}\n[[mark]]\n{lines}\n");
    const RULE: &str = "name = \"m\"\nfwmark = 1\ndestination = \"10.0.0.100/32\"";
    assert_eq!(errors(&with(RULE)), Vec::<String>::new());
    assert_eq!(
        errors(&with("")),
        [
            "f.toml:26: mark[0].name: missing; allowed: a name, like \"web\"",
            "f.toml:26: mark[0].fwmark: missing; allowed: a mark from 1 to 4294967295",
            "f.toml:26: mark[0].destination: missing, and so is port: what real servers answer would be marked, too; allowed: a destination, a port to enter by, or both",
        ]
    );
    let one = |from: &str, to: &str| {
        let found = errors(&with(&RULE.replace(from, to)));
        let [error] = &found[..] else { panic!("{found:?}") };
        error.clone()
    };
    for (from, to, expected) in [
        ("= 1", "= 0", "f.toml:28: mark[0].fwmark: 0 is out of range; allowed: an integer from 1 to 4294967295"),
        (
            "= 1",
            "= 1\nprotocol = \"icmp\"",
            "f.toml:29: mark[0].protocol: \"icmp\" is not a protocol: allowed: tcp, udp, sctp",
        ),
        ("= 1", "= 1\nport = \"dmz\"", "f.toml:29: mark[0].port: there is no port \"dmz\"; allowed: wan, lan"),
        (
            "= 1",
            "= 1\nsource = \"::/0\"",
            "f.toml:30: mark[0].destination: 10.0.0.100/32 is of another family than the source; allowed: a network of the family of ::/0",
        ),
        (
            "= 1",
            "= 1\nport = \"wan\"\n[[mark]]\nfwmark = 2\nname = \"m\"",
            "f.toml:32: mark[1].name: \"m\" is the name of another rule on line 27; allowed: each name once",
        ),
    ] {
        assert_eq!(one(from, to), expected);
    }
}

#[test]
fn services_of_marks() {
    const SERVICE: &str = "[[service]]\nfwmark = 1\nmode = \"dr\"\n[[service.real_server]]\naddress = \"10.1.0.11\"";
    let with = |service: &str| format!("{GOOD}\n[[mark]]\nname = \"m\"\nfwmark = 1\nport = \"wan\"\n{service}\n");
    let config = Config::parse(&with(SERVICE), "f.toml").unwrap();
    assert_eq!(config.warnings(), Vec::<String>::new());
    let service = config.balance.services.last().unwrap();
    assert_eq!((service.vip.to_string().as_str(), service.protocol), ("fwmark:1", Protocol::Any));
    assert_eq!(service.real_servers[0].address.port(), 0, "the one that the client asked for");
    let text = serde_json::to_string(&config.balance).unwrap();
    assert_eq!(serde_json::from_str::<fullgate::config::BalanceConfig>(&text).unwrap(), config.balance);

    let other = Config::parse(&with(&SERVICE.replace("= 1", "= 2")), "f.toml").unwrap();
    assert_eq!(other.warnings(), ["service fwmark:2: no [[mark]] gives that mark: nothing comes to it"]);
    for (from, to, expected) in [
        (
            "= 1",
            "= 1\nvip = \"10.0.0.100:80\"",
            "f.toml:32: service[1].vip: a service of a mark has none: [[mark]] says which packets are marked; allowed: no such key",
        ),
        (
            "= 1",
            "= 1\nprotocol = \"tcp\"",
            "f.toml:32: service[1].protocol: a service of a mark has none: [[mark]] says which packets are marked; allowed: no such key",
        ),
        ("= 1", "= 1\nfamily = \"inet6\"", "f.toml:32: service[1].family: \"inet6\" is no family; allowed: ipv4, ipv6"),
        (
            "= 1",
            "= 1\nfamily = \"ipv6\"",
            "f.toml:35: service[1].real_server[0].address: 10.1.0.11:0 is of another family than the service; allowed: the service's family in mode dr; another one in modes fullnat and tun",
        ),
        (
            "fwmark = 1",
            "vip = \"10.0.0.9:80\"\nprotocol = \"tcp\"\nfamily = \"ipv4\"",
            "f.toml:33: service[1].family: there is no fwmark that it could be the family of; allowed: family with fwmark only",
        ),
        (
            "[[service]]",
            "[[service]]\nfwmark = 1\n[[service]]",
            "f.toml:33: service[2].fwmark: fwmark:1 is a service already on line 31; allowed: each mark and family once",
        ),
    ] {
        let found = errors(&with(&SERVICE.replacen(from, to, 1)));
        assert_eq!(found, [expected]);
    }
}

#[test]
fn faults_of_syntax() {
    assert_eq!(errors("[worker\ncores = [1]\n"), ["f.toml:1: not TOML: unclosed table, expected `]`"]);
    assert_eq!(
        errors("[worker]\ncores = \nidle = 'x\n"),
        [
            "f.toml:2: not TOML: string values must be quoted, expected literal string",
            "f.toml:3: not TOML: invalid literal string, expected `'`",
        ]
    );
}

#[test]
fn an_empty_file_misses_what_must_be_there() {
    assert_eq!(
        errors(""),
        [
            "f.toml:1: [worker].cores: missing; allowed: a list of CPU numbers, one worker on each, like [1] or [2, 3]",
            "f.toml:1: port: there are 0 ports; allowed: 1 to 32 [[port]] tables",
        ]
    );
}

#[test]
fn too_many_ports_and_workers() {
    let port = |n: usize| format!("[[port]]\nname = \"p{n}\"\ndevice = \"net_null{n}\"\n");
    let ports = |count: usize| format!("[worker]\ncores = [1]\n{}", (0..count).map(port).collect::<String>());
    assert_eq!(errors(&ports(32)), Vec::<String>::new());
    assert_eq!(errors(&ports(33)), ["f.toml:3: port: there are 33 ports; allowed: 1 to 32 [[port]] tables"]);
    let cores = |count: usize| ports(1).replace("[1]", &format!("{:?}", (0..count).collect::<Vec<_>>()));
    assert_eq!(errors(&cores(128)), Vec::<String>::new());
    assert_eq!(errors(&cores(129)), ["f.toml:2: [worker].cores: 129 workers are too many; allowed: 1 to 128 CPUs"]);
}

#[test]
fn two_pools_have_no_default() {
    let second = "[[local_pool]]\nname = \"wan\"\nport = \"wan\"\naddresses = [\"10.0.0.200\"]\n\n[[service]]";
    assert_eq!(
        errors(&changed("[[service]]", second)),
        ["f.toml:24: service[0].local_pool: missing, and mode fullnat needs one; allowed: lan, wan"]
    );
    let none = changed("[[local_pool]]\nname = \"lan\"\nport = \"lan\"\naddresses = [\"10.1.0.200-10.1.0.203\"]\n", "");
    assert_eq!(
        errors(&none),
        [
            "f.toml:15: service[0].local_pool: missing, and mode fullnat needs one; allowed: the name of a [[local_pool]], of which there is none"
        ]
    );
}

#[test]
fn all_errors_at_once_in_the_order_of_lines_and_no_consequences() {
    let text = r#"[worker]
cores = []
[[port]]
name = "wan"
device = "eth0"
mtu = 1
[[local_pool]]
name = "p"
port = "wan"
addresses = ["10.1.0.300"]
[[service]]
vip = "10.0.0.1"
protocol = "tpc"
[[service]]
vip = "10.0.0.2"
protocol = "tcp"
local_pool = "q"
real_server = [{ address = "10.1.0.1:80", weigth = 3 }, { address = "10.1.0.1:80" }]
[service.extra]
"#;
    let places: Vec<String> =
        errors(text).iter().map(|error| error.splitn(4, ':').take(3).collect::<Vec<_>>().join(":")).collect();
    assert_eq!(
        places,
        [
            "f.toml:2: [worker].cores",
            "f.toml:5: port[0].device",
            "f.toml:6: port[0].mtu",
            "f.toml:10: local_pool[0].addresses[0]",
            "f.toml:12: service[0].vip",
            "f.toml:13: service[0].protocol",
            "f.toml:15: service[1].vip",
            "f.toml:17: service[1].local_pool",
            "f.toml:18: service[1].real_server[0].weigth",
            "f.toml:18: service[1].real_server[1].address",
            "f.toml:19: service[1].extra",
        ]
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(at in 0..GOOD.len(), len in 0..40_usize, with in "[\\PC\n\"=\\[\\].0-9:/,-]{0,20}") {
        let mut text = GOOD.as_bytes().to_vec();
        text.splice(at..(at + len).min(GOOD.len()), with.bytes());
        let text = String::from_utf8_lossy(&text);
        if let Err(errors) = Config::parse(&text, "f.toml") {
            proptest::prop_assert!(!errors.is_empty());
        }
    }
}

#[test]
fn forwarding_modes_and_tunnels() {
    let with = |service: &str, real: &str| {
        let text = changed("protocol = \"tcp\"", &format!("protocol = \"tcp\"\n{service}"));
        format!("{}\n{real}\n", text.replace("10.1.0.11:80", "10.1.0.11:PORT"))
    };
    let real =
        |text: String, port| Config::parse(&text.replace("PORT", port), "f.toml").unwrap().balance.services[0].clone();
    let service = real(with("mode = \"dr\"", ""), "80");
    assert_eq!((service.mode, service.local_pool.as_str()), (ForwardingMode::Dr, ""), "no pool is needed");
    let service = real(with("mode = \"dr\"", "mode = \"fullnat\""), "8080");
    assert_eq!(service.real_servers[0].mode, Some(ForwardingMode::Fullnat));
    assert_eq!(service.local_pool, "lan", "this one needs the only pool there is");
    let service = real(with("mode = \"tun\"", "tunnel = \"gue\"\ntunnel_port = 6080\ntunnel_checksum = true"), "80");
    let tunnel = Tunnel { encapsulation: Encapsulation::Gue, port: 6080, checksum: true };
    assert_eq!(service.real_servers[0].tunnel, Some(tunnel));

    for (service, real, port, expected) in [
        (
            "mode = \"dr\"",
            "",
            "8080",
            "has another port than the service; allowed: port 80: mode dr leaves ports as they are",
        ),
        ("mode = \"nat\"", "mode = \"tun\"", "8080", "has another port than the service; allowed: port 80: mode tun"),
        (
            "",
            "tunnel = \"ipip\"",
            "80",
            "tunnel: the real server is in mode fullnat; allowed: a tunnel in mode tun only",
        ),
        ("mode = \"tun\"", "tunnel = \"gue\"", "80", "tunnel_port: missing or 0; allowed: 1-65535"),
        ("mode = \"tun\"", "tunnel = \"gre\"\ntunnel_port = 7", "80", "tunnel_port: a tunnel by gre has no port"),
        ("mode = \"tun\"", "tunnel_checksum = true", "80", "tunnel_checksum: a tunnel by ipip has no checksum"),
        ("mode = \"tun\"", "tunnel = \"vxlan\"", "80", "\"vxlan\" is not a tunnel: allowed: ipip, gre, gue"),
        ("mode = \"tun\"", "tunnel_port = 0", "80", "allowed: an integer from 1 to 65535"),
    ] {
        let found = errors(&with(service, real).replace("PORT", port));
        assert!(found.len() == 1 && found[0].contains(expected), "{expected:?}: {found:?}");
    }
}

#[test]
fn services_of_several_ports() {
    let with = |vip: &str, mode: &str, real: &str| {
        let text = changed("vip = \"10.0.0.100:80\"", &format!("vip = \"{vip}\"\nmode = \"{mode}\""));
        text.replace("address = \"10.1.0.11:80\"", &format!("address = \"{real}\""))
    };
    for (vip, mode, real, expected) in [
        ("10.0.0.100:0", "fullnat", "10.1.0.11", "10.1.0.11:0"),
        ("10.0.0.100:0", "dr", "10.1.0.11:0", "10.1.0.11:0"),
        ("10.0.0.100:8000-8099", "nat", "10.1.0.11:80", "10.1.0.11:80"),
        ("10.0.0.100:8000-8000", "fullnat", "10.1.0.11", "10.1.0.11:8000"),
    ] {
        let config = Config::parse(&with(vip, mode, real), "f.toml").unwrap();
        let service = &config.balance.services[0];
        assert_eq!(service.vip, vip.parse().unwrap());
        assert_eq!(service.real_servers[0].address, expected.parse().unwrap(), "{vip} {mode} {real}");
    }
    for (vip, mode, real, expected) in [
        ("10.0.0.100:0", "dr", "10.1.0.11:80", "10.1.0.11:80 has a port; allowed: no port, or 0: mode dr leaves ports"),
        ("10.0.0.100:8000-8099", "tun", "10.1.0.11:8000", "allowed: no port, or 0: mode tun leaves ports as they are"),
        ("10.0.0.100:80", "dr", "10.1.0.11:0", "10.1.0.11:0 has port 0; allowed: a port of 1-65535"),
        ("10.0.0.100:0", "fullnat", "10.0.0.100", "10.0.0.100:0 is the service itself"),
        ("10.0.0.100:8000-8099", "fullnat", "10.0.0.100:8050", "10.0.0.100:8050 is the service itself"),
    ] {
        let found = errors(&with(vip, mode, real));
        assert!(found.len() == 1 && found[0].contains(expected), "{expected:?}: {found:?}");
    }
    let two = with("10.0.0.100:8000-8099", "fullnat", "10.1.0.11")
        + "\n[[service]]\nvip = \"10.0.0.100:8099-8100\"\nprotocol = \"tcp\"\n";
    let found = errors(&two);
    assert!(
        found.len() == 1
            && found[0]
                .contains("tcp 10.0.0.100:8099-8100 has ports in common with service tcp 10.0.0.100:8000-8099 on line"),
        "{found:?}"
    );
}

#[test]
fn services_and_real_servers_of_both_families() {
    let with = |vip: &str, mode: &str, real: &str, pool: &str| {
        let text = changed("vip = \"10.0.0.100:80\"", &format!("vip = \"{vip}\"\nmode = \"{mode}\""));
        let text = text.replace("address = \"10.1.0.11:80\"", &format!("address = \"{real}\""));
        errors(&text.replace("\"10.1.0.200-10.1.0.203\"", pool))
    };
    let (ipv4, ipv6) = ("\"10.1.0.200\"", "\"2001:db8::200-2001:db8::2ff\"");
    let both = format!("{ipv4}, {ipv6}");
    let none = Vec::<String>::new();
    assert_eq!(with("[2001:db8::100]:80", "fullnat", "[2001:db8::11]:8080", ipv6), none);
    assert_eq!(with("[2001:db8::100]:80", "fullnat", "10.1.0.11:8080", ipv4), none, "NAT64");
    assert_eq!(with("10.0.0.100:80", "fullnat", "[2001:db8::11]:8080", &both), none);
    assert_eq!(with("10.0.0.100:80", "tun", "[2001:db8::11]:80", ipv4), none);
    assert_eq!(with("[2001:db8::100]:80", "dr", "[2001:db8::11]:80", ipv4), none);
    let refused = with("10.0.0.100:80", "fullnat", "[2001:db8::11]:8080", ipv4);
    assert!(refused[0].contains("is of IPv6, of which local pool \"lan\" has no address"), "{refused:?}");
    for mode in ["dr", "nat"] {
        let refused = with("10.0.0.100:80", mode, "[2001:db8::11]:80", &both);
        assert!(refused.len() == 1 && refused[0].contains("is of another family than the service"), "{refused:?}");
    }
}

#[test]
fn ports_may_have_ipv6_addresses_and_routes() {
    let text = r#"
[worker]
cores = [1]
[[port]]
name = "wan"
device = "net_null0"
addresses = ["2001:db8::1/64", "2001:db8::100/128", "fe80::1/64"]
routes = [
    { to = "default", via = "2001:db8::fe" },
    { to = "::/0", via = "fe80::2", metric = 2048 },
    { to = "2001:db8:9::/48", via = "2001:db8::fd", metric = 7 },
]
[[port]]
name = "lan"
device = "net_null1"
addresses = ["10.1.0.1/24", "fe80::1/64"]
routes = [{ to = "default", via = "10.1.0.254" }]
"#;
    let config = Config::parse(text, "f.toml").unwrap_or_else(|errors| panic!("{errors:?}"));
    let destinations: Vec<_> = config
        .ports
        .iter()
        .flat_map(|port| &port.routes)
        .map(|route| format!("{}/{}", route.to.address, route.to.prefix_len))
        .collect();
    assert_eq!(destinations, ["::/0", "::/0", "2001:db8:9::/48", "0.0.0.0/0"]);
    assert_eq!(config.ports[0].addresses[1].prefix_len, 128);
}

/// `GOOD` with these keys of its service, whose protocol and mode are so.
fn with_service_keys(protocol: &str, mode: &str, keys: &str) -> String {
    changed("protocol = \"tcp\"\n", &format!("protocol = \"{protocol}\"\nmode = \"{mode}\"\n{keys}\n"))
}

#[test]
fn persistence_limits_and_packets_on_their_own() {
    let service = |keys: &str| {
        let text = with_service_keys("udp", "nat", keys);
        let config = Config::parse(&text, "f.toml").unwrap_or_else(|errors| panic!("{errors:?}"));
        config.balance.services[0].clone()
    };
    let plain = service("");
    assert_eq!(
        (plain.persistence, plain.persistence_prefix, plain.one_packet, plain.max_connections),
        (0, None, false, 0)
    );
    let all =
        service("persistence = 300\npersistence_prefix = \"255.255.255.0\"\none_packet = true\nmax_connections = 9");
    assert_eq!(
        (all.persistence, all.persistence_prefix, all.one_packet, all.max_connections),
        (300, Some(24), true, 9)
    );
    assert_eq!((plain.slow_start, service("slow_start = 30").slow_start), (0, 30));
    assert_eq!(service("persistence = 1\npersistence_prefix = 0").persistence_prefix, Some(0));
    let whole = service("persistence = 1\npersistence_prefix = 32");
    assert_eq!(whole.persistence_prefix, None, "all bits are no prefix");
    let json = serde_json::to_value(&all).unwrap();
    assert_eq!(serde_json::from_value::<fullgate::config::ServiceConfig>(json).unwrap(), all);
}

#[test]
fn a_slow_start_goes_with_schedulers_whose_weights_are_shares() {
    let error = |keys: &str| errors(&with_service_keys("tcp", "nat", keys)).join("\n");
    assert_eq!(
        error("slow_start = 30\nscheduler = \"mh\""),
        "f.toml:23: service[0].slow_start: scheduler mh gives no shares that could rise with a weight; allowed: 0, or \
         scheduler wrr, wlc, sed, nq, lblc, lblcr, twos"
    );
    assert!(error("slow_start = 90000").contains("allowed: an integer from 0 to 86400 seconds (a day)"));
}

#[test]
fn wrong_persistence_and_packets_on_their_own_that_cannot_be() {
    let error = |protocol: &str, mode: &str, keys: &str| errors(&with_service_keys(protocol, mode, keys)).join("\n");
    let nat = |keys: &str| error("udp", "nat", keys);
    assert_eq!(
        nat("persistence = 2678401"),
        "f.toml:23: service[0].persistence: 2678401 is out of range; allowed: an integer from 0 to 2678400 seconds (31 days)"
    );
    assert_eq!(
        nat("persistence = 1\npersistence_prefix = 33"),
        "f.toml:24: service[0].persistence_prefix: 33 is no prefix of the service's family; allowed: 0-32 bits"
    );
    assert_eq!(
        nat("persistence = 1\npersistence_prefix = \"255.0.255.0\""),
        "f.toml:24: service[0].persistence_prefix: \"255.0.255.0\" is not a prefix: allowed: a number of bits, 0-32 or for \
         IPv6 1-128, or a netmask like 255.255.255.0"
    );
    assert_eq!(
        nat("persistence_prefix = 24"),
        "f.toml:23: service[0].persistence_prefix: the service has no persistence; allowed: a prefix with persistence only"
    );
    assert_eq!(
        error("tcp", "nat", "one_packet = true"),
        "f.toml:23: service[0].one_packet: the service is of tcp; allowed: true with udp, or a fwmark, only"
    );
    assert_eq!(
        error("udp", "fullnat", "one_packet = true"),
        "f.toml:23: service[0].one_packet: in mode fullnat answers come to a local port that only a session remembers; \
         allowed: true in modes nat, dr and tun"
    );
}

#[test]
fn sysctls_of_ipvs_by_their_names() {
    use fullgate::balance::{Strategy, Sysctls};
    let config = |keys: &str| Config::parse(&format!("[ipvs]\n{keys}\n{GOOD}"), "f.toml");
    assert_eq!(config("").unwrap().sysctls, Sysctls::default());
    let all =
        "expire_nodest_conn = 1\nexpire_quiescent_template = 1\nconn_reuse_mode = 3\nsloppy_tcp = 1\nsloppy_sctp = 1";
    let on = Sysctls {
        expire_nodest_conn: true,
        expire_quiescent_template: true,
        conn_reuse_mode: 3,
        sloppy_tcp: true,
        sloppy_sctp: true,
        ..Sysctls::default()
    };
    assert_eq!(config(all).unwrap().sysctls, on);
    let defence = config(
        "drop_entry = 1\ndrop_packet = 2\nsecure_tcp = 3\nam_droprate = 5\ndefence_free_percent = 20\nnat_icmp_send = 1",
    );
    let on = Sysctls {
        drop_entry: Strategy::Automatic,
        drop_packet: Strategy::Automatic,
        secure_tcp: Strategy::Always,
        am_droprate: 5,
        defence_free_percent: 20,
        nat_icmp_send: true,
        ..Sysctls::default()
    };
    assert_eq!(defence.unwrap().sysctls, on);
    let error = |keys: &str| config(keys).unwrap_err()[0].to_string();
    assert_eq!(
        error("defence_free_percent = 100"),
        "f.toml:2: [ipvs].defence_free_percent: 100 is out of range; allowed: an integer from 1 to 99 percent of a session table"
    );
    assert_eq!(
        error("expire_nodest_conn = 2"),
        "f.toml:2: [ipvs].expire_nodest_conn: 2 is out of range; allowed: an integer from 0 to 1"
    );
    assert_eq!(
        error("sync_ports = 1"),
        "f.toml:2: [ipvs].sync_ports: unknown key \"sync_ports\"; allowed: am_droprate, conn_reuse_mode, \
         defence_free_percent, drop_entry, drop_packet, expire_nodest_conn, expire_quiescent_template, lblc_expiration, \
         lblcr_expiration, nat_icmp_send, secure_tcp, sloppy_sctp, sloppy_tcp, hash_secret, mh_tab_index"
    );
    assert_eq!(Config::parse(GOOD, "f.toml").unwrap().session.persistence_capacity, 262_144);
    let session = |keys: &str| Config::parse(&format!("[session]\n{keys}\n{GOOD}"), "f.toml");
    assert_eq!(session("persistence_capacity = 1024").unwrap().session.persistence_capacity, 1024);
}
