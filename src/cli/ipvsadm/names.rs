//! Names of hosts and ports, for lines without `-n`: hosts as the system resolves them, ports as `/etc/services` has
//! them.

use std::cell::{OnceCell, RefCell};
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};

use hashbrown::HashMap;

/// The file of ports' names (services(5)).
const SERVICES: &str = "/etc/services";

/// Who knows names.
pub(super) trait Names {
    /// The IPv4 address of a host.
    fn address(&self, host: &str) -> Option<Ipv4Addr>;
    /// A host's name.
    fn host(&self, address: IpAddr) -> Option<String>;
    /// The port of this name.
    fn port(&self, name: &str, protocol: u16) -> Option<u16>;
    /// A port's name.
    fn port_name(&self, port: u16, protocol: u16) -> Option<String>;
}

/// The system's names, each asked for once.
#[derive(Debug, Default)]
pub(super) struct SystemNames {
    hosts: RefCell<HashMap<IpAddr, Option<String>>>,
    services: OnceCell<Vec<NamedPort>>,
}

/// A line of `/etc/services`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NamedPort {
    port: u16,
    protocol: u16,
    /// Its name, then others for it.
    names: Vec<String>,
}

impl SystemNames {
    fn services(&self) -> &[NamedPort] {
        // Without the file there are no names.
        self.services.get_or_init(|| named_ports(&std::fs::read_to_string(SERVICES).unwrap_or_default()))
    }
}

fn named_ports(text: &str) -> Vec<NamedPort> {
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let name = words.next()?;
        let (port, protocol) = words.next()?.split_once('/')?;
        let protocol = match protocol {
            "tcp" => 6,
            "udp" => 17,
            "sctp" => 132,
            _ => return None,
        };
        let names = std::iter::once(name).chain(words).map(str::to_owned).collect();
        Some(NamedPort { port: port.parse().ok()?, protocol, names })
    };
    text.lines().filter_map(line).collect()
}

impl Names for SystemNames {
    fn address(&self, host: &str) -> Option<Ipv4Addr> {
        (host, 0).to_socket_addrs().ok()?.find_map(|found| match found.ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
    }

    fn host(&self, address: IpAddr) -> Option<String> {
        let mut hosts = self.hosts.borrow_mut();
        let look_up = || dns_lookup::lookup_addr(&address).ok().filter(|name| name.parse::<IpAddr>().is_err());
        hosts.entry(address).or_insert_with(look_up).clone()
    }

    fn port(&self, name: &str, protocol: u16) -> Option<u16> {
        let has = |entry: &&NamedPort| entry.protocol == protocol && entry.names.iter().any(|known| known == name);
        self.services().iter().find(has).map(|entry| entry.port)
    }

    fn port_name(&self, port: u16, protocol: u16) -> Option<String> {
        let is = |entry: &&NamedPort| (entry.protocol, entry.port) == (protocol, port);
        self.services().iter().find(is).and_then(|entry| entry.names.first().cloned())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One host and one port.
    #[derive(Debug)]
    pub(in crate::cli::ipvsadm) struct Known;

    impl Names for Known {
        fn address(&self, host: &str) -> Option<Ipv4Addr> {
            (host == "web").then_some(Ipv4Addr::new(10, 0, 0, 100))
        }

        fn host(&self, address: IpAddr) -> Option<String> {
            (address == IpAddr::from([10, 0, 0, 100])).then(|| "web".to_owned())
        }

        fn port(&self, name: &str, protocol: u16) -> Option<u16> {
            ((name, protocol) == ("http", 6)).then_some(80)
        }

        fn port_name(&self, port: u16, protocol: u16) -> Option<String> {
            ((port, protocol) == (80, 6)).then(|| "http".to_owned())
        }
    }

    #[test]
    fn ports_names_are_read_with_their_other_names() {
        let text = "# comment\nhttp\t80/tcp\twww  # WorldWideWeb\nntp 123/udp\nbad line\nx 5/ddp\n\n";
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            named_ports(text),
            [
                NamedPort { port: 80, protocol: 6, names: names(&["http", "www"]) },
                NamedPort { port: 123, protocol: 17, names: names(&["ntp"]) },
            ]
        );
    }
}
