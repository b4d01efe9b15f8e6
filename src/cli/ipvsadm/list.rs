//! Services and real servers as `-L` and `-S` print them, byte for byte as ipvsadm does.

use std::fmt::{self, Display, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::names::Names;
use super::validity::{Options, Said, TUNNELS};
use crate::ipvs::{DestinationEntry, Forwarding, ServiceEntry, ServiceId, Stats, TunnelKind, VERSION, service_flags};

/// What lines are to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// Commands that make what there is.
    Commands,
    Stats,
    Rates,
    Thresholds,
    PersistentConnections,
    Tunnels,
    Plain,
}

/// How lines are written.
pub(super) struct Format<'a> {
    view: View,
    is_numeric: bool,
    is_exact: bool,
    names: &'a dyn Names,
}

impl<'a> Format<'a> {
    /// As the options of a listing say.
    pub(super) fn of_listing(options: Options, names: &'a dyn Names) -> Self {
        let views = [
            (Said::Stats, View::Stats),
            (Said::Rate, View::Rates),
            (Said::Thresholds, View::Thresholds),
            (Said::PersistentConn, View::PersistentConnections),
            (Said::TunnelInfo, View::Tunnels),
        ];
        let view = views.into_iter().find(|(said, _)| options.has(*said)).map_or(View::Plain, |(_, view)| view);
        Self { view, is_numeric: options.has(Said::Numeric), is_exact: options.has(Said::Exact), names }
    }

    /// Whether connections are shown with what persistence engines know of them.
    pub(super) fn shows_engines(&self) -> bool {
        self.view == View::PersistentConnections
    }

    /// As commands.
    pub(super) fn of_commands(options: Options, names: &'a dyn Names) -> Self {
        Self { view: View::Commands, is_numeric: options.has(Said::Numeric), is_exact: false, names }
    }

    /// The first line of a listing.
    pub(super) fn version(&self, table_size: u32) -> String {
        let [_, major, minor, patch] = VERSION.to_be_bytes();
        match self.view {
            View::Commands => String::new(),
            _ => format!("IP Virtual Server version {major}.{minor}.{patch} (size={table_size})\n"),
        }
    }

    /// The names of its columns.
    pub(super) fn columns(&self) -> String {
        let of_numbers = |columns: [&str; 5]| {
            let columns = columns.map(|column| format!(" {column:>8}")).concat();
            format!("{:<33}{columns}\n  -> RemoteAddress:Port\n", "Prot LocalAddress:Port")
        };
        let plain = |tunnel| {
            "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward ".to_owned()
                + tunnel
                + "Weight ActiveConn InActConn\n"
        };
        match self.view {
            View::Commands => String::new(),
            View::Stats => of_numbers(["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"]),
            View::Rates => of_numbers(["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"]),
            View::Thresholds => format!(
                "{:<33} {:<10} {:<10} {:<10} {:<10}\n  -> RemoteAddress:Port\n",
                "Prot LocalAddress:Port", "Uthreshold", "Lthreshold", "ActiveConn", "InActConn"
            ),
            View::PersistentConnections => format!(
                "{:<33} {:<9} {:<11} {:<10} {:<10}\n  -> RemoteAddress:Port\n",
                "Prot LocalAddress:Port", "Weight", "PersistConn", "ActiveConn", "InActConn"
            ),
            View::Tunnels => plain("TunnelInfo    "),
            View::Plain => plain(""),
        }
    }

    /// A service with its real servers.
    pub(super) fn service(&self, text: &mut String, entry: &ServiceEntry, real_servers: &[DestinationEntry]) {
        // Writing into a String cannot fail.
        let _ = self.service_line(text, entry);
        for real_server in real_servers {
            let _ = self.destination_line(text, &entry.service.id, real_server);
        }
    }

    fn service_line(&self, text: &mut String, entry: &ServiceEntry) -> fmt::Result {
        let service = &entry.service;
        let name = self.service_name(&service.id);
        match self.view {
            View::Commands => write!(text, "-A {name} -s {}", service.scheduler)?,
            View::Stats | View::Rates => write!(text, "{name:<33}{}", self.numbers(&entry.stats))?,
            _ => write!(text, "{name} {}", service.scheduler)?,
        }
        match self.view {
            View::Commands => options_of_service(text, entry)?,
            View::Stats | View::Rates => {}
            _ => flags_of_service(text, entry)?,
        }
        text.push('\n');
        Ok(())
    }

    fn destination_line(&self, text: &mut String, id: &ServiceId, entry: &DestinationEntry) -> fmt::Result {
        let named = &entry.destination;
        let protocol = if let ServiceId::Address { protocol, .. } = id { *protocol } else { 0 };
        let name = self.endpoint(named.address, named.port, protocol);
        let (active, inactive) = (entry.active, entry.inactive);
        if self.view == View::Commands {
            let way = option_of(named.forwarding);
            write!(text, "-a {} -r {name} {way} -w {}", self.service_name(id), named.weight)?;
            if named.forwarding == Forwarding::Tunnel {
                options_of_tunnel(text, named.tunnel)?;
            }
            text.push('\n');
            return Ok(());
        }
        let (way, weight) = (named.forwarding.name(), named.weight);
        match self.view {
            View::Commands => Ok(()),
            View::Stats | View::Rates => writeln!(text, "  -> {name:<28}{}", self.numbers(&entry.stats)),
            View::Thresholds => {
                let (upper, lower) = (named.upper_threshold, named.lower_threshold);
                writeln!(text, "  -> {name:<28} {upper:<10} {lower:<10} {active:<10} {inactive:<10}")
            }
            View::PersistentConnections => {
                let persistent = entry.persistent;
                writeln!(text, "  -> {name:<28} {weight:<9} {persistent:<11} {active:<10} {inactive:<10}")
            }
            View::Tunnels => {
                let tunnel = tunnel_info(named.forwarding, named.tunnel);
                writeln!(text, "  -> {name:<28} {way:<7} {tunnel:<13} {weight:<6} {active:<10} {inactive:<10}")
            }
            View::Plain => writeln!(text, "  -> {name:<28} {way:<7} {weight:<6} {active:<10} {inactive:<10}"),
        }
    }

    fn service_name(&self, id: &ServiceId) -> String {
        let is_command = self.view == View::Commands;
        match *id {
            ServiceId::Mark { is_ipv6, mark } => {
                // ipvsadm prints the number as a signed one.
                let mark = mark.cast_signed();
                match (is_command, is_ipv6) {
                    (true, false) => format!("-f {mark}"),
                    (true, true) => format!("-f {mark} -6"),
                    (false, false) => format!("FWM  {mark}"),
                    (false, true) => format!("FWM  {mark} IPv6"),
                }
            }
            ServiceId::Address { protocol, address, port } => {
                let endpoint = self.endpoint(address, port, protocol);
                let (option, name) = match protocol {
                    6 => ("-t", "TCP"),
                    17 => ("-u", "UDP"),
                    132 => ("--sctp-service", "SCTP"),
                    _ => ("--xxx-service", "?"),
                };
                if is_command { format!("{option} {endpoint}") } else { format!("{name:<4} {endpoint}") }
            }
        }
    }

    /// An address and its port, by names or as numbers. Nobody is asked for names that are not wanted: a name server that is away
    /// takes seconds for each.
    pub(super) fn endpoint(&self, address: IpAddr, port: u16, protocol: u16) -> String {
        if self.is_numeric {
            return SocketAddr::new(address, port).to_string();
        }
        let host = self.names.host(address).unwrap_or_else(|| address.to_string());
        let port = self.names.port_name(port, protocol).unwrap_or_else(|| port.to_string());
        if address.is_ipv6() { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    fn numbers(&self, stats: &Stats) -> String {
        let numbers = match self.view {
            View::Rates => [
                stats.connection_rate,
                stats.in_packet_rate,
                stats.out_packet_rate,
                stats.in_byte_rate,
                stats.out_byte_rate,
            ],
            _ => [stats.connections, stats.in_packets, stats.out_packets, stats.in_bytes, stats.out_bytes],
        };
        numbers.map(|number| self.number(number)).concat()
    }

    /// A number in nine columns, in thousands and so on where it is too large, unless it is to be exact.
    fn number(&self, number: u64) -> String {
        if self.is_exact {
            let digits = number.to_string();
            let width = if digits.len() <= 8 { 9 } else { digits.len() + 1 };
            return format!("{digits:>width$}");
        }
        const UNITS: [(u64, u64, &str); 4] = [
            (1_000_000_000, 1_000, "K"),
            (100_000_000_000, 1_000_000, "M"),
            (100_000_000_000_000, 1_000_000_000, "G"),
            (u64::MAX, 1_000_000_000_000, "T"),
        ];
        if number < 100_000_000 {
            return format!("{number:>9}");
        }
        let (_, of, unit) = UNITS.into_iter().find(|(below, ..)| number < *below).unwrap_or(UNITS[3]);
        format!("{:>8}{unit}", number / of)
    }
}

/// What stands behind a service's scheduler in a command.
fn options_of_service(text: &mut String, entry: &ServiceEntry) -> fmt::Result {
    let service = &entry.service;
    if service.flags & service_flags::PERSISTENT != 0 {
        write!(text, " -p {}", service.timeout)?;
        if let Some(netmask) = netmask(entry) {
            write!(text, " -M {netmask}")?;
        }
    }
    if let Some(engine) = &service.persistence_engine {
        write!(text, " --pe {engine}")?;
    }
    if service.flags & service_flags::ONE_PACKET != 0 {
        text.push_str(" -o");
    }
    let flags = scheduler_flags(entry);
    if !flags.is_empty() {
        write!(text, " -b {flags}")?;
    }
    Ok(())
}

/// What stands behind a service's scheduler in a listing.
fn flags_of_service(text: &mut String, entry: &ServiceEntry) -> fmt::Result {
    let service = &entry.service;
    let flags = scheduler_flags(entry);
    if !flags.is_empty() {
        write!(text, " ({flags})")?;
    }
    if service.flags & service_flags::PERSISTENT != 0 {
        write!(text, " persistent {}", service.timeout)?;
        if let Some(netmask) = netmask(entry) {
            write!(text, " mask {netmask}")?;
        }
        if let Some(engine) = &service.persistence_engine {
            write!(text, " pe {engine}")?;
        }
    }
    if service.flags & service_flags::ONE_PACKET != 0 {
        text.push_str(" ops");
    }
    Ok(())
}

/// The netmask, unless it is a single client's.
fn netmask(entry: &ServiceEntry) -> Option<String> {
    let (netmask, is_ipv6) = (entry.service.netmask, entry.service.id.is_ipv6());
    match is_ipv6 {
        true => (netmask != 128).then(|| netmask.cast_signed().to_string()),
        false => (netmask != u32::MAX).then(|| Ipv4Addr::from_bits(netmask).to_string()),
    }
}

/// A scheduler's flags by their names, with commas.
fn scheduler_flags(entry: &ServiceEntry) -> String {
    let (first, second) = match entry.service.scheduler.as_str() {
        "sh" => ("sh-fallback", "sh-port"),
        "mh" => ("mh-fallback", "mh-port"),
        _ => ("flag-1", "flag-2"),
    };
    let names = [
        (service_flags::SCHEDULER_1, first),
        (service_flags::SCHEDULER_2, second),
        (service_flags::SCHEDULER_3, "flag-3"),
    ];
    let given = names.into_iter().filter(|(flag, _)| entry.service.flags & flag != 0);
    given.map(|(_, name)| name).collect::<Vec<_>>().join(",")
}

fn option_of(forwarding: Forwarding) -> &'static str {
    match forwarding {
        Forwarding::Masquerade => "-m",
        Forwarding::Tunnel => "-i",
        _ => "-g",
    }
}

fn kind_of(tunnel: TunnelKind) -> &'static str {
    TUNNELS.get(usize::from(tunnel.kind)).copied().unwrap_or("?")
}

fn options_of_tunnel(text: &mut String, tunnel: TunnelKind) -> fmt::Result {
    let checksum = match tunnel.flags & 3 {
        0 => "--tun-nocsum",
        1 => "--tun-csum",
        _ => "--tun-remcsum",
    };
    let kind = kind_of(tunnel);
    match tunnel.kind {
        0 => write!(text, " --tun-type {kind}"),
        1 => write!(text, " --tun-type {kind} --tun-port {} {checksum}", tunnel.port),
        _ => write!(text, " --tun-type {kind} {checksum}"),
    }
}

fn tunnel_info(forwarding: Forwarding, tunnel: TunnelKind) -> String {
    if forwarding != Forwarding::Tunnel {
        return "n/a".to_owned();
    }
    let checksum = match tunnel.flags & 3 {
        0 => "-c",
        1 => "+c",
        _ => "r+c",
    };
    let kind = kind_of(tunnel);
    match tunnel.kind {
        0 => kind.to_owned(),
        1 => format!("{kind}:{}:{checksum}", tunnel.port),
        _ => format!("{kind}:{checksum}"),
    }
}

/// A daemon for synchronisation.
pub(super) fn daemon(daemon: &crate::ipvs::Daemon) -> String {
    let name = if daemon.state == 1 { "master" } else { "backup" };
    let mut text = format!("{name} sync daemon (mcast={}, syncid={}", daemon.interface, daemon.sync_id);
    let mut tell = |name: &str, value: Option<&dyn Display>| {
        if let Some(value) = value {
            let _ = write!(text, ", {name}={value}");
        }
    };
    tell("maxlen", Some(&daemon.max_len as &dyn Display).filter(|_| daemon.max_len != 0));
    tell("group", daemon.group.as_ref().map(|group| group as &dyn Display));
    tell("port", Some(&daemon.port as &dyn Display).filter(|_| daemon.port != 0));
    tell("ttl", Some(&daemon.ttl as &dyn Display).filter(|_| daemon.ttl != 0));
    text.push_str(")\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ipvsadm::names::tests::Known;

    /// May be asked nothing.
    struct Nobody;

    impl Names for Nobody {
        fn address(&self, host: &str) -> Option<Ipv4Addr> {
            unreachable!("{host}")
        }

        fn host(&self, address: IpAddr) -> Option<String> {
            unreachable!("{address}")
        }

        fn port(&self, name: &str, protocol: u16) -> Option<u16> {
            unreachable!("{name} {protocol}")
        }

        fn port_name(&self, port: u16, protocol: u16) -> Option<String> {
            unreachable!("{port} {protocol}")
        }
    }

    #[test]
    fn numbers_are_written_without_asking_for_names() {
        let mut numeric = Options::default();
        numeric.say(Said::Numeric).unwrap();
        let [vip, ipv6] = ["10.0.0.100", "2001:db8::64"].map(|address| address.parse().unwrap());
        for format in [Format::of_listing(numeric, &Nobody), Format::of_commands(numeric, &Nobody)] {
            assert_eq!(format.endpoint(vip, 80, 6), "10.0.0.100:80");
            assert_eq!(format.endpoint(ipv6, 80, 6), "[2001:db8::64]:80");
        }
        let named = Format::of_listing(Options::default(), &Known);
        assert_eq!(named.endpoint(vip, 80, 6), "web:http");
        assert_eq!(named.endpoint(ipv6, 443, 6), "[2001:db8::64]:443");
    }
}
