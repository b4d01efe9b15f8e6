//! What there is to list.

use std::net::IpAddr;

use fullgate::ipvs::{
    Connection, Daemon, Destination, DestinationEntry, Forwarding, Service, ServiceEntry, ServiceId, Stats, Timeouts,
    TunnelKind,
};

use crate::director::Table;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(protocol: u16, host: &str, port: u16) -> ServiceId {
    ServiceId::Address { protocol, address: address(host), port }
}

fn service(id: ServiceId, scheduler: &str, flags: u32) -> ServiceEntry {
    let service = Service {
        id,
        scheduler: scheduler.to_owned(),
        flags: flags | 2,
        flags_mask: u32::MAX,
        timeout: 300,
        netmask: if id.is_ipv6() { 128 } else { u32::MAX },
        persistence_engine: None,
    };
    ServiceEntry { service, destinations: 0, stats: Stats::default() }
}

fn real(host: &str, port: u16, forwarding: Forwarding, tunnel: TunnelKind) -> DestinationEntry {
    let destination = Destination {
        address: address(host),
        port,
        forwarding,
        tunnel,
        weight: 100,
        upper_threshold: 1_000,
        lower_threshold: 750,
    };
    DestinationEntry { destination, active: 12, inactive: 3_456, persistent: 7, stats: stats(1) }
}

/// Counters that differ from each other, and grow with `scale`.
fn stats(scale: u64) -> Stats {
    Stats {
        connections: 5 * scale,
        in_packets: 99 * scale,
        out_packets: 1_234 * scale,
        in_bytes: 56_789 * scale,
        out_bytes: 9_876_543 * scale,
        connection_rate: 3 * scale,
        in_packet_rate: 17 * scale,
        out_packet_rate: 101 * scale,
        in_byte_rate: 20_021 * scale,
        out_byte_rate: 3_333_333 * scale,
    }
}

fn ways() -> Vec<DestinationEntry> {
    let tunnel = |kind, port, flags| TunnelKind { kind, port, flags };
    let none = TunnelKind::default();
    vec![
        real("10.1.0.11", 80, Forwarding::Masquerade, none),
        real("10.1.0.12", 80, Forwarding::Local, none),
        real("10.1.0.13", 80, Forwarding::Tunnel, none),
        real("10.1.0.14", 80, Forwarding::Tunnel, tunnel(1, 6080, 0)),
        real("10.1.0.15", 80, Forwarding::Tunnel, tunnel(1, 6080, 1)),
        real("10.1.0.16", 80, Forwarding::Tunnel, tunnel(1, 6080, 2)),
        real("10.1.0.17", 80, Forwarding::Tunnel, tunnel(2, 0, 0)),
        real("10.1.0.18", 80, Forwarding::Tunnel, tunnel(2, 0, 1)),
        real("10.1.0.19", 80, Forwarding::Direct, none),
        real("2001:db8:1111:2222:3333:4444:5555:6666", 65_535, Forwarding::Tunnel, none),
        real("127.0.0.1", 443, Forwarding::Masquerade, none),
    ]
}

/// Services and real servers of every kind, with counters of every length.
pub fn rich() -> Table {
    let mut services = Vec::new();
    let mut scale = 1;
    for flags in (0..=0x3d).filter(|flags| flags & 2 == 0) {
        // Debian's forgets flag-3 with the schedulers that name the others; a test of its own is about that.
        let named = if flags & 0x25 == 0 { &["wlc", "sh", "mh"][..] } else { &["wlc"] };
        for (number, scheduler) in (0..).zip(named) {
            let mut entry =
                service(at(6, "10.0.0.100", 1_000 + 100 * number + (flags & 0xff) as u16), scheduler, flags);
            entry.stats = stats(scale);
            scale = if scale > 100_000_000_000 { 1 } else { scale * 7 };
            services.push((entry, Vec::new()));
        }
    }
    services.push((service(at(6, "10.0.0.100", 80), "wlc", 0), ways()));
    services.push((
        service(at(17, "127.0.0.1", 53), "rr", 4),
        vec![real("127.0.0.1", 53, Forwarding::Masquerade, TunnelKind::default())],
    ));
    services.push((service(at(132, "10.0.0.100", 5_000), "rr", 0), ways()));
    services.push((
        service(at(6, "::1", 443), "rr", 0),
        vec![real("::1", 443, Forwarding::Masquerade, TunnelKind::default())],
    ));
    services.push((service(at(6, "2001:db8:1111:2222:3333:4444:5555:6666", 65_535), "wrr", 1), ways()));
    services.push((service(ServiceId::Mark { is_ipv6: false, mark: 7 }, "wlc", 0x25), ways()));
    services.push((
        service(ServiceId::Mark { is_ipv6: false, mark: 6 }, "wlc", 1),
        vec![real("127.0.0.1", 443, Forwarding::Masquerade, TunnelKind::default())],
    ));
    services.push((service(ServiceId::Mark { is_ipv6: true, mark: 8 }, "wlc", 1), ways()));
    services.push((service(ServiceId::Mark { is_ipv6: false, mark: u32::MAX }, "wlc", 0), Vec::new()));
    for (number, (netmask, engine)) in (0..).zip([(0xffff_ff00, None), (u32::MAX, Some("sip")), (0, Some("sip"))]) {
        for flags in [0, 1, 5] {
            let mut entry = service(at(17, "10.0.0.101", 100 + 10 * number + flags as u16), "rr", flags);
            entry.service.netmask = netmask;
            entry.service.persistence_engine = engine.map(str::to_owned);
            services.push((entry, Vec::new()));
            let mut entry = service(at(17, "2001:db8::65", 100 + 10 * number + flags as u16), "rr", flags);
            entry.service.netmask = 64;
            entry.service.persistence_engine = engine.map(str::to_owned);
            services.push((entry, Vec::new()));
        }
    }
    let (connections, connection_lines) = connections();
    Table {
        services,
        daemons: daemons(),
        timeouts: Timeouts { tcp: 900, tcp_fin: 120, udp: 300 },
        connections,
        connection_lines,
        refusal: None,
    }
}

fn daemons() -> Vec<Daemon> {
    let daemon = |state, sync_id| Daemon { state, interface: "eth0".to_owned(), sync_id, ..Daemon::default() };
    vec![
        Daemon { max_len: 1_400, group: Some(address("ff02::81")), ..daemon(1, 0) },
        Daemon { max_len: 1_472, group: Some(address("224.0.0.81")), port: 8_848, ttl: 3, ..daemon(2, 255) },
    ]
}

fn connections() -> (Vec<Connection>, String) {
    let connection = |protocol, client: &str, to: &str, real: &str, state: &str, expires_seconds| Connection {
        protocol,
        client: client.parse().unwrap(),
        virtual_address: to.parse().unwrap(),
        destination: real.parse().unwrap(),
        state: state.to_owned(),
        expires_seconds,
    };
    let listed = vec![
        connection(6, "10.0.0.7:40000", "10.0.0.100:80", "10.1.0.11:8080", "ESTABLISHED", 899),
        connection(17, "127.0.0.1:53", "127.0.0.1:53", "127.0.0.1:53", "UDP", 3_600_000),
        connection(132, "10.0.0.7:1", "10.0.0.100:2", "10.1.0.11:3", "ESTABLISHED", 0),
        connection(6, "[2001:db8:1111:2222:3333:4444:5555:6666]:40000", "[::1]:443", "[::1]:80", "SYN_RECV", 59),
    ];
    let lines = "IP  0A000007 0000 0A000064 0050 0A01000B 1F90 NONE            300\n\
                 UDP 0A000007 13C4 0A000064 13C4 0A01000B 13C4 UDP             300 sip 12013223@10.0.0.7\n";
    (listed, lines.to_owned())
}

/// Tables in orders that a sort has to change, with addresses far apart.
pub fn shuffled() -> Vec<Table> {
    let hosts =
        ["10.0.0.1", "192.168.0.1", "100.64.0.1", "223.255.255.254", "1.1.1.1", "128.0.0.1", "64.0.0.1", "10.0.0.2"];
    let tables = (0..12_usize).map(|round| {
        let mut state = 0x9e37_79b9_u64.wrapping_mul(round as u64 + 1);
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        let mut services: Vec<_> = hosts
            .iter()
            .flat_map(|host| [at(6, host, 80), at(17, host, 53), at(6, host, 81)])
            .chain(["2001:db8::1", "fe80::1", "2001:db8::2", "::1"].map(|host| at(6, host, 80)))
            .chain([1, 7, u32::MAX, 0x8000_0000].map(|mark| ServiceId::Mark { is_ipv6: mark == 7, mark }))
            .map(|id| (service(id, "rr", 0), Vec::new()))
            .collect();
        let mut real_servers: Vec<_> = hosts
            .iter()
            .flat_map(|host| {
                [
                    real(host, 81, Forwarding::Masquerade, TunnelKind::default()),
                    real(host, 80, Forwarding::Masquerade, TunnelKind::default()),
                ]
            })
            .chain(
                ["2001:db8::1", "fe80::1", "::1"].map(|host| real(host, 80, Forwarding::Tunnel, TunnelKind::default())),
            )
            .collect();
        for index in (1..services.len()).rev() {
            services.swap(index, random() % (index + 1));
        }
        for index in (1..real_servers.len()).rev() {
            real_servers.swap(index, random() % (index + 1));
        }
        // Lists of different lengths are cut into halves differently.
        services.truncate(services.len() - round);
        services[0].1 = real_servers;
        Table { services, ..Table::default() }
    });
    tables.collect()
}

/// A FULLNAT service.
pub fn fullnat(scheduler: &str) -> Table {
    Table { services: vec![(service(at(6, "10.0.0.100", 80), scheduler, 0x20), Vec::new())], ..Table::default() }
}

/// Services and connections whose names every machine knows.
pub fn named() -> Table {
    let local = |host, port| vec![real(host, port, Forwarding::Masquerade, TunnelKind::default())];
    let connection = |protocol, host: &str, port| Connection {
        protocol,
        client: (address(host), 40_000).into(),
        virtual_address: (address(host), port).into(),
        destination: (address(host), port).into(),
        state: "ESTABLISHED".to_owned(),
        expires_seconds: 61,
    };
    let services = vec![
        (service(at(6, "127.0.0.1", 443), "wlc", 1), local("127.0.0.1", 80)),
        (service(at(17, "127.0.0.1", 53), "rr", 4), local("127.0.0.1", 69)),
        (service(at(6, "127.0.0.1", 69), "rr", 0), local("::1", 53)),
        (service(at(132, "127.0.0.1", 36_412), "rr", 0), local("127.0.0.1", 2_905)),
        (service(at(6, "::1", 443), "rr", 0), local("::1", 443)),
        (service(ServiceId::Mark { is_ipv6: false, mark: 6 }, "wlc", 1), local("127.0.0.1", 443)),
    ];
    let connections = vec![connection(6, "127.0.0.1", 443), connection(17, "127.0.0.1", 53), connection(6, "::1", 443)];
    Table { services, connections, ..Table::default() }
}
