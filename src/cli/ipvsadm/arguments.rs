//! A command line of ipvsadm's, read and checked: what is asked for, or what is wrong, in ipvsadm's words.
//!
//! Options are looked at from left to right and each may depend on those before it, as in ipvsadm: `-6` follows `-f`,
//! and a real server takes the port of the service before it.

mod draft;

use std::net::IpAddr;

use self::draft::Draft;
use super::address::number;
use super::names::Names;
use super::options::Opt;
use super::popt::{PoptError, Words};
use super::validity::{Action, OF_TUNNELS, Options, check_list, check_tunnel};
use crate::ipvs::{Daemon, Destination, Forwarding, Service, ServiceId, Timeouts, service_flags};

/// Most seconds of a timeout.
const LONGEST_TIMEOUT: u32 = 86_400 * 31;
const DEFAULT_SCHEDULER: &str = "wlc";
const DEFAULT_INTERFACE: &str = "eth0";

const UDP: u16 = 17;

/// What is wrong with a command line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    /// An option's value, or options that do not go together.
    #[error("{0}")]
    Usage(String),
    /// A word that is no option, or lacks its argument.
    #[error(transparent)]
    Word(#[from] PoptError),
    /// There is no command.
    #[error("no command")]
    NoCommand,
}

impl Wrong {
    pub(super) fn usage<T>(message: String) -> Result<T, Self> {
        Err(Self::Usage(message))
    }
}

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) action: Action,
    pub(super) options: Options,
    /// The service; of a command that has none, nonsense.
    pub(super) service: Service,
    pub(super) destination: Destination,
    /// Whether the real server is a FULLNAT one by the fork's `-b`.
    pub(super) is_fullnat: bool,
    pub(super) daemon: Daemon,
    pub(super) timeouts: Timeouts,
    pub(super) local_address: Option<IpAddr>,
}

impl Asked {
    /// Reads the words behind the program's name.
    pub(super) fn parse(words: &[String], names: &dyn Names) -> Result<Self, Wrong> {
        let mut words = Words::new(words);
        // Whatever is wrong with the first word, ipvsadm tells how to be called.
        let first = words.next(false).ok().flatten().ok_or(Wrong::NoCommand)?;
        let action = action_of(first.entry.option).ok_or(Wrong::NoCommand)?;
        let mut draft = Draft::new(action, names);
        if matches!(action, Action::Help | Action::Version) {
            return Ok(draft.asked);
        }
        draft.state_of_daemon(first)?;
        while let Some(found) = words.next(action.is_on_real_server())? {
            draft.option(found)?;
        }
        let mut others = words.others().into_iter();
        if action == Action::Set {
            draft.asked.timeouts = timeouts(&mut others)?;
        }
        if let Some(other) = others.next() {
            return Wrong::usage(format!("unexpected argument {other}"));
        }
        draft.finish()
    }

    /// What names its service.
    pub(super) fn service_id(&self) -> ServiceId {
        self.service.id
    }
}

fn action_of(option: Opt) -> Option<Action> {
    Some(match option {
        Opt::AddService => Action::AddService,
        Opt::EditService => Action::EditService,
        Opt::DeleteService => Action::DeleteService,
        Opt::Clear => Action::Clear,
        Opt::List => Action::List,
        Opt::Zero => Action::Zero,
        Opt::AddServer => Action::AddServer,
        Opt::EditServer => Action::EditServer,
        Opt::DeleteServer => Action::DeleteServer,
        Opt::Set => Action::Set,
        Opt::Help => Action::Help,
        Opt::Version => Action::Version,
        Opt::Restore => Action::Restore,
        Opt::Save => Action::Save,
        Opt::StartDaemon => Action::StartDaemon,
        Opt::StopDaemon => Action::StopDaemon,
        Opt::AddLocal => Action::AddLocal,
        Opt::DeleteLocal => Action::DeleteLocal,
        Opt::GetLocal => Action::GetLocal,
        _ => return None,
    })
}

fn timeouts<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Timeouts, Wrong> {
    let (Some(tcp), Some(tcp_fin), Some(udp)) = (words.next(), words.next(), words.next()) else {
        return Wrong::usage("--set option requires 3 timeout values".to_owned());
    };
    Ok(Timeouts { tcp: timeout(tcp, 0)?, tcp_fin: timeout(tcp_fin, 0)?, udp: timeout(udp, 0)? })
}

fn timeout(text: &str, lowest: u32) -> Result<u32, Wrong> {
    let seconds = number(text, lowest, LONGEST_TIMEOUT);
    seconds.map_or_else(|| Wrong::usage(format!("invalid timeout value `{text}' specified")), Ok)
}

impl Draft<'_> {
    /// Checks what concerns more than one option, and fills in what was left out.
    fn finish(mut self) -> Result<Asked, Wrong> {
        if let Some(flags) = &self.flags {
            self.asked.service.flags |= scheduler_flags(&self.asked.service.scheduler, flags)?;
        }
        self.asked.service.id = match (self.mark, self.address) {
            (0, Some(address)) => ServiceId::Address { protocol: self.protocol, address, port: self.port },
            (0, None) => self.asked.service.id,
            (mark, _) => ServiceId::Mark { is_ipv6: self.is_ipv6, mark },
        };
        let mut asked = self.asked;
        asked.action.check(asked.options)?;
        match asked.action {
            Action::AddService | Action::EditService => complete_service(&mut asked.service)?,
            Action::AddServer | Action::EditServer => complete_real_server(&mut asked)?,
            Action::List => check_list(asked.options)?,
            Action::StartDaemon if asked.daemon.interface.is_empty() => {
                DEFAULT_INTERFACE.clone_into(&mut asked.daemon.interface);
            }
            _ => {}
        }
        Ok(asked)
    }
}

/// Flags by their names, some of which are one scheduler's.
fn scheduler_flags(scheduler: &str, names: &str) -> Result<u32, Wrong> {
    let mut flags = 0;
    for name in names.split(',').filter(|name| !name.is_empty()) {
        let (of, flag) = match name {
            "flag-1" => (None, service_flags::SCHEDULER_1),
            "flag-2" => (None, service_flags::SCHEDULER_2),
            "flag-3" => (None, service_flags::SCHEDULER_3),
            "sh-fallback" => (Some("sh"), service_flags::SCHEDULER_1),
            "sh-port" => (Some("sh"), service_flags::SCHEDULER_2),
            "mh-fallback" => (Some("mh"), service_flags::SCHEDULER_1),
            "mh-port" => (Some("mh"), service_flags::SCHEDULER_2),
            _ => return Wrong::usage(format!("invalid scheduler flag `{name}'")),
        };
        if of.is_some_and(|of| of != scheduler) {
            return Wrong::usage(format!("incompatible scheduler flag `{name}'"));
        }
        flags |= flag;
    }
    Ok(flags)
}

fn complete_service(service: &mut Service) -> Result<(), Wrong> {
    if let ServiceId::Address { protocol, port, .. } = service.id {
        if port == 0 && service.flags & service_flags::PERSISTENT == 0 {
            return Wrong::usage("Zero port specified for non-persistent service".to_owned());
        }
        if service.flags & service_flags::ONE_PACKET != 0 && protocol != UDP {
            return Wrong::usage("One-Packet Scheduling is only for UDP virtual services".to_owned());
        }
    }
    if service.scheduler.is_empty() {
        DEFAULT_SCHEDULER.clone_into(&mut service.scheduler);
    }
    Ok(())
}

fn complete_real_server(asked: &mut Asked) -> Result<(), Wrong> {
    let (id, destination) = (asked.service.id, &mut asked.destination);
    let is_tunnel = destination.forwarding == Forwarding::Tunnel;
    if let ServiceId::Address { port, .. } = id
        && destination.forwarding != Forwarding::Masquerade
    {
        destination.port = port;
    }
    // FULLNAT translates between the families; ipvsadm has no FULLNAT.
    if destination.address.is_ipv6() != id.is_ipv6() && !is_tunnel && !asked.is_fullnat {
        return Wrong::usage("Different address family is allowed only for tunneling servers".to_owned());
    }
    if asked.options.has_any(&OF_TUNNELS) && !is_tunnel {
        return Wrong::usage("Tunnel options conflict with forward method".to_owned());
    }
    check_tunnel(destination.tunnel.kind, asked.options)
}
