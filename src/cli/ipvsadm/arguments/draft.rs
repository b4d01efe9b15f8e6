//! Options one after the other, each with its value checked, into what is asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::address::{endpoint, inet_aton, number};
use super::super::names::Names;
use super::super::options::Opt;
use super::super::popt::Found;
use super::super::validity::{Action, Options, Said, TUNNELS};
use super::{Asked, Wrong, timeout};
use crate::ipvs::{Daemon, Destination, Forwarding, Service, ServiceId, Timeouts, TunnelKind, service_flags};

/// Seconds that clients stay with their real server where nothing else is said.
const PERSISTENCE: u32 = 360;
/// Bytes that count of a scheduler's and an interface's name, and of a persistence engine's.
const LONGEST_NAME: usize = 15;
const LONGEST_ENGINE: usize = 16;
/// Highest weight and threshold.
const LARGEST: u32 = i32::MAX.cast_unsigned();

const TCP: u16 = 6;
const UDP: u16 = 17;
const SCTP: u16 = 132;

/// The first bytes of a text, as many as there is room for.
fn cut(text: &str, longest: usize) -> String {
    text[..text.floor_char_boundary(longest)].to_owned()
}

/// A command line that is being read.
pub(super) struct Draft<'a> {
    names: &'a dyn Names,
    pub(super) asked: Asked,
    /// The service's address, port and protocol, or its mark, as far as they are known.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
    pub(super) protocol: u16,
    pub(super) mark: u32,
    pub(super) is_ipv6: bool,
    pub(super) flags: Option<String>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(action: Action, names: &'a dyn Names) -> Self {
        let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let service = Service {
            id: ServiceId::Address { protocol: 0, address: unknown, port: 0 },
            scheduler: String::new(),
            flags: 0,
            flags_mask: u32::MAX,
            timeout: 0,
            netmask: u32::MAX,
            persistence_engine: None,
        };
        let destination = Destination {
            address: unknown,
            port: 0,
            forwarding: Forwarding::Direct,
            tunnel: TunnelKind::default(),
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        };
        let asked = Asked {
            action,
            options: Options::default(),
            service,
            destination,
            is_fullnat: false,
            daemon: Daemon::default(),
            timeouts: Timeouts::default(),
            local_address: None,
        };
        Self { names, asked, address: None, port: 0, protocol: 0, mark: 0, is_ipv6: false, flags: None }
    }

    /// `master` or `backup`, which the commands about daemons have for an argument.
    pub(super) fn state_of_daemon(&mut self, command: Found<'_>) -> Result<(), Wrong> {
        let message = match self.asked.action {
            Action::StartDaemon => "illegal start-daemon parameter specified",
            Action::StopDaemon => "illegal start_daemon specified",
            _ => return Ok(()),
        };
        self.asked.daemon.state = match command.argument {
            Some("master") => 1,
            Some("backup") => 2,
            _ => return Wrong::usage(message.to_owned()),
        };
        Ok(())
    }

    fn say(&mut self, said: Said) -> Result<(), Wrong> {
        self.asked.options.say(said)
    }

    pub(super) fn option(&mut self, found: Found<'_>) -> Result<(), Wrong> {
        let option = found.entry.option;
        let argument = found.argument.unwrap_or_default();
        match option {
            Opt::TcpService => self.service(TCP, argument),
            Opt::UdpService => self.service(UDP, argument),
            Opt::SctpService => self.service(SCTP, argument),
            Opt::MarkService => self.mark(argument),
            Opt::Ipv6 => self.ipv6(),
            Opt::Scheduler
            | Opt::Persistent
            | Opt::Netmask
            | Opt::OnePacket
            | Opt::PersistenceEngine
            | Opt::SchedulerFlags
            | Opt::SynProxy => self.option_of_service(option, found.argument),
            Opt::RealServer => self.real_server(argument),
            Opt::Masquerading | Opt::Tunnel | Opt::Gatewaying | Opt::Fullnat => self.forwarding(option),
            Opt::Weight
            | Opt::UpperThreshold
            | Opt::LowerThreshold
            | Opt::TunnelType
            | Opt::TunnelPort
            | Opt::TunnelNoChecksum
            | Opt::TunnelChecksum
            | Opt::TunnelRemoteChecksum => self.option_of_real_server(option, argument),
            Opt::SyncId | Opt::SyncMaxlen | Opt::McastInterface | Opt::McastGroup | Opt::McastPort | Opt::McastTtl => {
                self.option_of_daemon(option, argument)
            }
            Opt::LocalAddress => self.local_address(argument),
            // It may be said more than once, and says nothing.
            Opt::Sort => Ok(()),
            _ => match listing(option) {
                Some(said) => self.say(said),
                None => Wrong::usage(format!("invalid option `{}'", found.word)),
            },
        }
    }

    fn service(&mut self, protocol: u16, text: &str) -> Result<(), Wrong> {
        self.say(Said::Service)?;
        self.protocol = protocol;
        let Some(found) = endpoint(text, protocol, self.names) else {
            return Wrong::usage("illegal virtual server address[:port] specified".to_owned());
        };
        self.address = Some(found.address);
        self.port = found.port.unwrap_or(0);
        self.is_ipv6 = found.address.is_ipv6();
        if self.is_ipv6 {
            self.asked.service.netmask = 128;
        }
        Ok(())
    }

    fn mark(&mut self, text: &str) -> Result<(), Wrong> {
        self.say(Said::Service)?;
        self.is_ipv6 = false;
        // Names of ports are TCP's.
        self.protocol = TCP;
        match number(text, 1, u32::MAX) {
            Some(mark) => self.mark = mark,
            None => return Wrong::usage(format!("invalid fwmark value `{text}' specified")),
        }
        Ok(())
    }

    fn ipv6(&mut self) -> Result<(), Wrong> {
        if self.mark == 0 {
            return Wrong::usage("-6 used before -f\n".to_owned());
        }
        self.is_ipv6 = true;
        self.asked.service.netmask = 128;
        Ok(())
    }

    fn option_of_service(&mut self, option: Opt, argument: Option<&str>) -> Result<(), Wrong> {
        let text = argument.unwrap_or_default();
        match option {
            Opt::Scheduler => {
                self.say(Said::Scheduler)?;
                self.asked.service.scheduler = cut(text, LONGEST_NAME);
            }
            Opt::Persistent => {
                self.say(Said::Persistent)?;
                self.asked.service.flags |= service_flags::PERSISTENT;
                self.asked.service.timeout = argument.map_or(Ok(PERSISTENCE), |text| timeout(text, 1))?;
            }
            Opt::Netmask => self.netmask(text)?,
            Opt::OnePacket => {
                self.say(Said::OnePacket)?;
                self.asked.service.flags |= service_flags::ONE_PACKET;
            }
            Opt::PersistenceEngine => {
                self.say(Said::PersistenceEngine)?;
                self.asked.service.persistence_engine =
                    Some(cut(text, LONGEST_ENGINE)).filter(|engine| !engine.is_empty());
            }
            Opt::SchedulerFlags => {
                self.say(Said::SchedulerFlags)?;
                self.flags = Some(text.to_owned());
            }
            _ => {
                self.say(Said::SynProxy)?;
                syn_proxy(text)?;
            }
        }
        Ok(())
    }

    fn netmask(&mut self, text: &str) -> Result<(), Wrong> {
        self.say(Said::Netmask)?;
        self.asked.service.netmask = if self.is_ipv6 {
            let bits = number(text, 1, 128);
            bits.map_or_else(|| Wrong::usage("illegal ipv6 netmask specified".to_owned()), Ok)?
        } else {
            let mask = inet_aton(text).map(Ipv4Addr::to_bits);
            mask.map_or_else(|| Wrong::usage("illegal virtual server persistent mask specified".to_owned()), Ok)?
        };
        Ok(())
    }

    fn real_server(&mut self, text: &str) -> Result<(), Wrong> {
        self.say(Said::RealServer)?;
        let Some(found) = endpoint(text, self.protocol, self.names) else {
            return Wrong::usage("illegal real server address[:port] specified".to_owned());
        };
        self.asked.destination.address = found.address;
        self.asked.destination.port = found.port.unwrap_or(self.port);
        Ok(())
    }

    fn forwarding(&mut self, option: Opt) -> Result<(), Wrong> {
        self.say(Said::Forwarding)?;
        self.asked.is_fullnat = option == Opt::Fullnat;
        self.asked.destination.forwarding = match option {
            Opt::Gatewaying => Forwarding::Direct,
            Opt::Tunnel => Forwarding::Tunnel,
            _ => Forwarding::Masquerade,
        };
        Ok(())
    }

    fn option_of_real_server(&mut self, option: Opt, text: &str) -> Result<(), Wrong> {
        let (said, highest, message) = match option {
            Opt::Weight => (Said::Weight, LARGEST, "illegal weight specified"),
            Opt::UpperThreshold => (Said::UpperThreshold, LARGEST, "illegal u_threshold specified"),
            Opt::LowerThreshold => (Said::LowerThreshold, LARGEST, "illegal l_threshold specified"),
            Opt::TunnelPort => (Said::TunnelPort, 65_535, "illegal tunnel port specified"),
            _ => return self.tunnel(option, text),
        };
        self.say(said)?;
        let lowest = u32::from(option == Opt::TunnelPort);
        let Some(number) = number(text, lowest, highest) else { return Wrong::usage(message.to_owned()) };
        let destination = &mut self.asked.destination;
        match option {
            Opt::Weight => destination.weight = number.cast_signed(),
            Opt::UpperThreshold => destination.upper_threshold = number,
            Opt::LowerThreshold => destination.lower_threshold = number,
            _ => destination.tunnel.port = u16::try_from(number).unwrap_or(u16::MAX),
        }
        Ok(())
    }

    fn tunnel(&mut self, option: Opt, text: &str) -> Result<(), Wrong> {
        let (said, flags) = match option {
            Opt::TunnelNoChecksum => (Said::TunnelNoChecksum, 0),
            Opt::TunnelChecksum => (Said::TunnelChecksum, 1),
            Opt::TunnelRemoteChecksum => (Said::TunnelRemoteChecksum, 2),
            _ => {
                self.say(Said::TunnelType)?;
                let kind = (0..).zip(TUNNELS).find(|(_, name)| *name == text);
                let Some((kind, _)) = kind else { return Wrong::usage("illegal tunnel type specified".to_owned()) };
                self.asked.destination.tunnel.kind = kind;
                return Ok(());
            }
        };
        self.say(said)?;
        self.asked.destination.tunnel.flags |= flags;
        Ok(())
    }

    fn option_of_daemon(&mut self, option: Opt, text: &str) -> Result<(), Wrong> {
        let (said, lowest, highest, message) = match option {
            Opt::SyncId => (Said::SyncId, 0, 255, "illegal syncid specified"),
            Opt::SyncMaxlen => (Said::SyncMaxlen, 1, 65_507, "illegal sync-maxlen specified"),
            Opt::McastPort => (Said::McastPort, 1, 65_535, "illegal mcast-port specified"),
            Opt::McastTtl => (Said::McastTtl, 1, 255, "illegal mcast-ttl specified"),
            Opt::McastGroup => return self.group(text),
            _ => {
                self.say(Said::McastInterface)?;
                self.asked.daemon.interface = cut(text, LONGEST_NAME);
                return Ok(());
            }
        };
        self.say(said)?;
        let Some(number) = number(text, lowest, highest) else { return Wrong::usage(message.to_owned()) };
        let (daemon, word) = (&mut self.asked.daemon, u16::try_from(number).unwrap_or(u16::MAX));
        match option {
            Opt::SyncId => daemon.sync_id = number,
            Opt::SyncMaxlen => daemon.max_len = word,
            Opt::McastPort => daemon.port = word,
            _ => daemon.ttl = u8::try_from(number).unwrap_or(u8::MAX),
        }
        Ok(())
    }

    fn group(&mut self, text: &str) -> Result<(), Wrong> {
        self.say(Said::McastGroup)?;
        let (family, group) = match text.contains(':') {
            true => ("IPv6", text.parse::<Ipv6Addr>().ok().filter(Ipv6Addr::is_multicast).map(IpAddr::V6)),
            false => ("IPv4", text.parse::<Ipv4Addr>().ok().filter(Ipv4Addr::is_multicast).map(IpAddr::V4)),
        };
        if group.is_none() {
            return Wrong::usage(format!("invalid {family} mcast-group `{text}'"));
        }
        self.asked.daemon.group = group;
        Ok(())
    }

    fn local_address(&mut self, text: &str) -> Result<(), Wrong> {
        self.say(Said::LocalAddress)?;
        let address = text.parse().ok();
        if address.is_none() {
            return Wrong::usage(format!("illegal local address `{text}' specified: allowed is an IP address"));
        }
        self.asked.local_address = address;
        Ok(())
    }
}

/// Options of listings, which say nothing but themselves.
fn listing(option: Opt) -> Option<Said> {
    Some(match option {
        Opt::Numeric => Said::Numeric,
        Opt::Connection => Said::Connection,
        Opt::Timeout => Said::Timeout,
        Opt::Daemon => Said::Daemon,
        Opt::Stats => Said::Stats,
        Opt::Rate => Said::Rate,
        Opt::Exact => Said::Exact,
        Opt::Thresholds => Said::Thresholds,
        Opt::PersistentConn => Said::PersistentConn,
        Opt::TunnelInfo => Said::TunnelInfo,
        Opt::NoSort => Said::NoSort,
        _ => return None,
    })
}

fn syn_proxy(text: &str) -> Result<(), Wrong> {
    match text {
        "disable" => Ok(()),
        "enable" => Wrong::usage("this gateway has no SYN proxy yet: allowed with --synproxy is disable".to_owned()),
        _ => Wrong::usage(format!("illegal synproxy value `{text}' specified: allowed is disable")),
    }
}
