//! The files `/proc/net/ip_vs`, `ip_vs_stats`, `ip_vs_stats_percpu` and `ip_vs_conn`, as the kernel writes them
//! (`ip_vs_info_seq_show`, `ip_vs_stats_show` and `ip_vs_stats_percpu_show` in ip_vs_ctl.c, `ip_vs_conn_seq_show` in
//! ip_vs_conn.c): addresses and ports in hexadecimal.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::command::{Connection, DestinationEntry, ServiceEntry, ServiceId, Stats, VERSION, service_flags};

/// `/proc/net/ip_vs`: services with their real servers.
pub fn services<'a>(
    entries: impl IntoIterator<Item = (&'a ServiceEntry, &'a [DestinationEntry])>,
    table_size: u32,
) -> String {
    let [_, major, minor, patch] = VERSION.to_be_bytes();
    let mut text = format!("IP Virtual Server version {major}.{minor}.{patch} (size={table_size})\n");
    text.push_str("Prot LocalAddress:Port Scheduler Flags\n");
    text.push_str("  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n");
    for (service, destinations) in entries {
        // Writing into a String cannot fail.
        let _ = write_service(&mut text, service);
        for destination in destinations {
            let _ = write_destination(&mut text, destination);
        }
    }
    text
}

fn write_service(text: &mut String, entry: &ServiceEntry) -> std::fmt::Result {
    let service = &entry.service;
    match service.id {
        ServiceId::Mark { mark, .. } => write!(text, "FWM  {mark:08X} {}", service.scheduler)?,
        ServiceId::Address { protocol, address, port } => {
            write!(text, "{}  {} {}", protocol_name(protocol), endpoint(address, port), service.scheduler)?;
        }
    }
    text.push(' ');
    if service.flags & service_flags::ONE_PACKET != 0 {
        text.push_str("ops ");
    }
    if service.flags & service_flags::PERSISTENT != 0 {
        write!(text, "persistent {} {:08X}", service.timeout, service.netmask)?;
    }
    text.push('\n');
    Ok(())
}

fn write_destination(text: &mut String, entry: &DestinationEntry) -> std::fmt::Result {
    let named = &entry.destination;
    writeln!(
        text,
        "  -> {}      {:<7} {:<6} {:<10} {:<10}",
        endpoint(named.address, named.port),
        named.forwarding.name(),
        named.weight,
        entry.active,
        entry.inactive
    )
}

/// `/proc/net/ip_vs_stats`: the counters of all services together.
pub fn stats(total: &Stats) -> String {
    format!(
        "   Total Incoming Outgoing         Incoming         Outgoing\n   \
         Conns  Packets  Packets            Bytes            Bytes\n\
         {}\n\n \
         Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n\
         {}\n",
        counters(total),
        rates(total)
    )
}

/// `/proc/net/ip_vs_stats_percpu`: a line for each worker, which stands for a CPU, and one for all together.
pub fn stats_by_worker(workers: &[Stats], total: &Stats) -> String {
    let mut text = String::from(
        "       Total Incoming Outgoing         Incoming         Outgoing\n\
         CPU    Conns  Packets  Packets            Bytes            Bytes\n",
    );
    for (worker, stats) in workers.iter().enumerate() {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{worker:3X} {}", counters(stats));
    }
    let _ = writeln!(text, "  ~ {}\n", counters(total));
    text.push_str("     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n");
    let _ = writeln!(text, "    {}", rates(total));
    text
}

fn counters(stats: &Stats) -> String {
    let Stats { connections, in_packets, out_packets, in_bytes, out_bytes, .. } = stats;
    format!("{connections:8X} {in_packets:8X} {out_packets:8X} {in_bytes:16X} {out_bytes:16X}")
}

fn rates(stats: &Stats) -> String {
    let Stats { connection_rate, in_packet_rate, out_packet_rate, in_byte_rate, out_byte_rate, .. } = stats;
    format!("{connection_rate:8X} {in_packet_rate:8X} {out_packet_rate:8X} {in_byte_rate:16X} {out_byte_rate:16X}")
}

/// The first line of `/proc/net/ip_vs_conn`.
pub const CONNECTIONS_HEAD: &str = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n";

/// A line of `/proc/net/ip_vs_conn`.
pub fn connection(connection: &Connection) -> String {
    let field = |endpoint: SocketAddr| format!("{} {:04X}", hexadecimal(endpoint.ip()), endpoint.port());
    format!(
        "{:<3} {} {} {} {:<11} {:>7}\n",
        protocol_name(connection.protocol),
        field(connection.client),
        field(connection.virtual_address),
        field(connection.destination),
        connection.state,
        connection.expires_seconds
    )
}

/// The kernel's name of an IP protocol that can be balanced.
pub fn protocol_name(protocol: u16) -> &'static str {
    match protocol {
        6 => "TCP",
        17 => "UDP",
        132 => "SCTP",
        _ => "IP",
    }
}

fn endpoint(address: IpAddr, port: u16) -> String {
    let digits = hexadecimal(address);
    if address.is_ipv4() { format!("{digits}:{port:04X}") } else { format!("[{digits}]:{port:04X}") }
}

fn hexadecimal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:08X}", address.to_bits()),
        IpAddr::V6(address) => address.segments().map(|segment| format!("{segment:04x}")).join(":"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipvs::{Destination, Forwarding, Service, TunnelKind};

    #[test]
    fn files_look_like_the_kernels() {
        let service = |id, flags, scheduler: &str| ServiceEntry {
            service: Service {
                id,
                scheduler: scheduler.to_owned(),
                flags,
                flags_mask: u32::MAX,
                timeout: 300,
                netmask: u32::MAX,
                persistence_engine: None,
            },
            destinations: 1,
            stats: Stats::default(),
        };
        let address =
            |protocol, address: &str| ServiceId::Address { protocol, address: address.parse().unwrap(), port: 80 };
        let destination = DestinationEntry {
            destination: Destination {
                address: "10.1.0.11".parse().unwrap(),
                port: 8080,
                forwarding: Forwarding::Masquerade,
                tunnel: TunnelKind::default(),
                weight: 1,
                upper_threshold: 0,
                lower_threshold: 0,
            },
            active: 2,
            inactive: 30,
            persistent: 0,
            stats: Stats::default(),
        };
        let tcp = service(address(6, "10.0.0.100"), service_flags::HASHED, "wlc");
        let udp = service(address(17, "2001:db8::64"), service_flags::PERSISTENT, "rr");
        let mark = service(ServiceId::Mark { is_ipv6: false, mark: 7 }, service_flags::ONE_PACKET, "rr");
        let text = services([(&tcp, [destination].as_slice()), (&udp, &[]), (&mark, &[])], 4096);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "IP Virtual Server version 1.2.1 (size=4096)");
        assert_eq!(lines[3], "TCP  0A000064:0050 wlc ");
        assert_eq!(lines[4], "  -> 0A01000B:1F90      Masq    1      2          30        ");
        assert_eq!(lines[5], "UDP  [2001:0db8:0000:0000:0000:0000:0000:0064]:0050 rr persistent 300 FFFFFFFF");
        assert_eq!(lines[6], "FWM  00000007 rr ops ");
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn connections_are_lines_of_fixed_columns() {
        let line = connection(&Connection {
            protocol: 6,
            client: "10.0.0.7:40000".parse().unwrap(),
            virtual_address: "10.0.0.100:80".parse().unwrap(),
            destination: "10.1.0.11:8080".parse().unwrap(),
            state: "ESTABLISHED".to_owned(),
            expires_seconds: 899,
        });
        assert_eq!(line, "TCP 0A000007 9C40 0A000064 0050 0A01000B 1F90 ESTABLISHED     899\n");
    }

    #[test]
    fn the_counters_are_in_hexadecimal_columns() {
        let text = stats(&Stats { connections: 10, in_packets: 255, in_bytes: 65_536, ..Stats::default() });
        assert_eq!(text.lines().nth(2), Some("       A       FF        0            10000                0"));
        assert!(text.lines().all(|line| line.len() <= 62), "{text}");
    }

    #[test]
    fn workers_are_the_lines_of_cpus() {
        let worker = |connections| Stats { connections, in_packets: 17, in_bytes: 4096, ..Stats::default() };
        let total = Stats { connections: 30, in_packet_rate: 3, ..Stats::default() };
        let text = stats_by_worker(&[worker(10), worker(20)], &total);
        let expected = "       Total Incoming Outgoing         Incoming         Outgoing
CPU    Conns  Packets  Packets            Bytes            Bytes
  0        A       11        0             1000                0
  1       14       11        0             1000                0
  ~       1E        0        0                0                0

     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s
           0        3        0                0                0
";
        assert_eq!(text, expected);
    }
}
