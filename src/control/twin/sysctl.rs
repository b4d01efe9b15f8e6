//! Settings of a TAP in /proc/sys/net, each with its reason. The rest is the operator's.
//!
//! Left alone on purpose: `accept_local` (a packet that claims one of the host's own addresses as its source comes back
//! over the wire only by a loop or a forgery; between its own addresses the kernel uses `lo`), `forwarding` (only
//! packets for the host itself are punted) and `arp_accept` (a gratuitous ARP updates a neighbour that is known; others
//! are learned when they are needed), and of IPv6 `accept_dad` (an address with a subnet is looked for on the link before
//! it is used, as on any router; virtual and local addresses are not, see the twin) and `forwarding`.

use std::io;

use super::TwinError;

/// IPv4, by device.
const IPV4: [(&str, &str); 5] = [
    // Answer ARP only for addresses of the TAP that was asked. Two ports may be on one wire: both TAPs would answer
    // for each other's addresses otherwise, and neighbours would learn the wrong port.
    ("arp_ignore", "1"),
    // Ask for neighbours from an address in their subnet, not from whichever address the packet has (a VIP, a LIP):
    // others would refuse to answer, or learn that address at this port.
    ("arp_announce", "2"),
    // Loose: clients may come in by one port and have their route out of another (two arms, ECMP). The strict
    // check, 1, which some distributions set for `all`, would drop their pings and ARP; the larger of both counts.
    ("rp_filter", "2"),
    // No route of the kernel's own traffic through a port without link: the TAP's carrier says which those are.
    ("ignore_routes_with_linkdown", "1"),
    // Tell the neighbours when the TAP is set up or gets another link-layer address.
    ("arp_notify", "1"),
];

/// Neighbours of both families, by device. Forwarded packets do not refresh the kernel's neighbours, the mirror does when
/// they become stale.
const NEIGHBOUR: [(&str, &str); 2] = [
    // A stale neighbour that is asked for is probed after one second, not five: so much sooner a changed address
    // is noticed.
    ("delay_first_probe_time", "1"),
    // When a neighbour does not answer under its old address, ask everyone before it counts as gone: one that
    // silently changed its address never does.
    ("mcast_resolicit", "3"),
];

/// IPv6, by device.
const IPV6: [(&str, &str); 5] = [
    // The TAP is a router's port: addresses and routes come from the configuration or a routing daemon, not from
    // whoever sends router advertisements.
    ("accept_ra", "0"),
    ("autoconf", "0"),
    // `ip link set TAP down` and `up` again leaves the addresses there, as it does those of IPv4.
    ("keep_addr_on_down", "1"),
    // As for IPv4. `ndisc_notify` tells of new addresses too.
    ("ignore_routes_with_linkdown", "1"),
    ("ndisc_notify", "1"),
];

/// Makes all settings for the TAP of a port.
pub(super) fn set_all(port: &str, tap: &str) -> Result<(), TwinError> {
    for (key, value) in IPV4 {
        set(port, format!("/proc/sys/net/ipv4/conf/{tap}/{key}"), value)?;
    }
    for (key, value) in NEIGHBOUR {
        set(port, format!("/proc/sys/net/ipv4/neigh/{tap}/{key}"), value)?;
    }
    let conf = IPV6.iter().map(|(key, value)| (format!("conf/{tap}/{key}"), *value));
    let neighbour = NEIGHBOUR.iter().map(|(key, value)| (format!("neigh/{tap}/{key}"), *value));
    for (key, value) in conf.chain(neighbour) {
        match set(port, format!("/proc/sys/net/ipv6/{key}"), value) {
            // A kernel without IPv6.
            Err(TwinError::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

/// Switches IPv6 on for the TAP of a port that is to have an IPv6 address, on a host where it is off by default.
pub(super) fn enable_ipv6(port: &str, tap: &str) -> Result<(), TwinError> {
    set(port, format!("/proc/sys/net/ipv6/conf/{tap}/disable_ipv6"), "0")
}

/// Makes one setting, unless it is made: in a container the files may be read-only and right.
fn set(port: &str, path: String, value: &'static str) -> Result<(), TwinError> {
    if std::fs::read_to_string(&path).is_ok_and(|current| current.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|source| TwinError::Sysctl { port: port.to_owned(), path, value, source })
}
