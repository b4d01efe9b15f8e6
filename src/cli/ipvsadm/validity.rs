//! Which option goes with which command, and which must: ipvsadm's tables and its words for what they refuse.

use super::arguments::Wrong;

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    AddService,
    EditService,
    DeleteService,
    Clear,
    List,
    AddServer,
    DeleteServer,
    EditServer,
    Set,
    StartDaemon,
    StopDaemon,
    Restore,
    Save,
    Zero,
    AddLocal,
    DeleteLocal,
    GetLocal,
    Help,
    Version,
}

/// What an option says. Several options may say the same, and each may be said once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Said {
    Numeric,
    Connection,
    Service,
    Scheduler,
    Persistent,
    Netmask,
    RealServer,
    Forwarding,
    Weight,
    UpperThreshold,
    LowerThreshold,
    McastInterface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    SyncId,
    Exact,
    OnePacket,
    PersistenceEngine,
    SchedulerFlags,
    McastGroup,
    McastPort,
    McastTtl,
    SyncMaxlen,
    TunnelInfo,
    TunnelType,
    TunnelPort,
    TunnelNoChecksum,
    TunnelChecksum,
    TunnelRemoteChecksum,
    LocalAddress,
    SynProxy,
}

use Said::{
    Connection, Daemon, Exact, Forwarding, LocalAddress, LowerThreshold, McastGroup, McastInterface, McastPort,
    McastTtl, Netmask, NoSort, Numeric, OnePacket, PersistenceEngine, Persistent, PersistentConn, Rate, RealServer,
    Scheduler, SchedulerFlags, Service, Stats, SynProxy, SyncId, SyncMaxlen, Thresholds, Timeout, TunnelChecksum,
    TunnelInfo, TunnelNoChecksum, TunnelPort, TunnelRemoteChecksum, TunnelType, UpperThreshold, Weight,
};

/// All, in the order in which they are looked at, with their names.
const SAID: [(Said, &str); 36] = [
    (Numeric, "numeric"),
    (Connection, "connection"),
    (Service, "service-address"),
    (Scheduler, "scheduler"),
    (Persistent, "persistent"),
    (Netmask, "netmask"),
    (RealServer, "real-server"),
    (Forwarding, "forwarding-method"),
    (Weight, "weight"),
    (UpperThreshold, "u-threshold"),
    (LowerThreshold, "l-threshold"),
    (McastInterface, "mcast-interface"),
    (Timeout, "timeout"),
    (Daemon, "daemon"),
    (Stats, "stats"),
    (Rate, "rate"),
    (Thresholds, "thresholds"),
    (PersistentConn, "persistent-conn"),
    (NoSort, "nosort"),
    (SyncId, "syncid"),
    (Exact, "exact"),
    (OnePacket, "ops"),
    (PersistenceEngine, "pe"),
    (SchedulerFlags, "sched-flags"),
    (McastGroup, "mcast-group"),
    (McastPort, "mcast-port"),
    (McastTtl, "mcast-ttl"),
    (SyncMaxlen, "sync-maxlen"),
    (TunnelInfo, "tun-info"),
    (TunnelType, "tun-type"),
    (TunnelPort, "tun-port"),
    (TunnelNoChecksum, "tun-nocsum"),
    (TunnelChecksum, "tun-csum"),
    (TunnelRemoteChecksum, "tun-remcsum"),
    (LocalAddress, "local-address"),
    (SynProxy, "synproxy"),
];

impl Said {
    /// Its name in messages.
    fn name(self) -> &'static str {
        SAID.iter().find(|(said, _)| *said == self).map_or("", |(_, name)| name)
    }

    fn bit(self) -> u64 {
        1 << (self as u8)
    }
}

/// What a command line has said so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options(u64);

impl Options {
    /// Refuses what was said already.
    pub(super) fn say(&mut self, said: Said) -> Result<(), Wrong> {
        if self.has(said) {
            return Wrong::usage(format!("multiple '{}' options specified", said.name()));
        }
        self.0 |= said.bit();
        Ok(())
    }

    pub(super) fn has(self, said: Said) -> bool {
        self.0 & said.bit() != 0
    }

    pub(super) fn has_any(self, of: &[Said]) -> bool {
        of.iter().any(|&said| self.has(said))
    }
}

/// What a command must have, may have, and may have one of; all else is refused.
#[derive(Clone, Copy, Debug, Default)]
struct Rule {
    needs: &'static [Said],
    allows: &'static [Said],
    one_of: &'static [Said],
}

impl Action {
    /// Its name in messages.
    fn name(self) -> &'static str {
        match self {
            Self::AddService => "add-service",
            Self::EditService => "edit-service",
            Self::DeleteService => "delete-service",
            Self::Clear => "flush",
            Self::List => "list",
            Self::AddServer => "add-server",
            Self::DeleteServer => "delete-server",
            Self::EditServer => "edit-server",
            Self::Set => "set",
            Self::StartDaemon => "start-daemon",
            Self::StopDaemon => "stop-daemon",
            Self::Restore => "restore",
            Self::Save => "save",
            Self::Zero => "zero",
            Self::AddLocal => "add-laddr",
            Self::DeleteLocal => "del-laddr",
            Self::GetLocal => "get-laddr",
            Self::Help => "help",
            Self::Version => "version",
        }
    }

    fn rule(self) -> Rule {
        let rule = Rule::default();
        match self {
            Self::AddService | Self::EditService => Rule {
                needs: &[Service],
                allows: &[Scheduler, Persistent, Netmask, OnePacket, PersistenceEngine, SchedulerFlags, SynProxy],
                ..rule
            },
            Self::DeleteService => Rule { needs: &[Service], ..rule },
            Self::List => Rule {
                allows: &[Numeric, Stats, Rate, Thresholds, PersistentConn, NoSort, SyncId, Exact, TunnelInfo],
                one_of: &[Connection, Service, Timeout, Daemon],
                ..rule
            },
            Self::AddServer | Self::EditServer => Rule {
                needs: &[Service, RealServer],
                allows: &[
                    Forwarding,
                    Weight,
                    UpperThreshold,
                    LowerThreshold,
                    TunnelType,
                    TunnelPort,
                    TunnelNoChecksum,
                    TunnelChecksum,
                    TunnelRemoteChecksum,
                ],
                ..rule
            },
            Self::DeleteServer => Rule { needs: &[Service, RealServer], ..rule },
            Self::StartDaemon => {
                Rule { allows: &[McastInterface, SyncId, McastGroup, McastPort, McastTtl, SyncMaxlen], ..rule }
            }
            Self::StopDaemon => Rule { allows: &[SyncId], ..rule },
            Self::Save => Rule { allows: &[Numeric], ..rule },
            Self::Zero => Rule { allows: &[Service], ..rule },
            Self::AddLocal | Self::DeleteLocal => Rule { needs: &[Service, LocalAddress], ..rule },
            Self::GetLocal => Rule { allows: &[Service, Numeric], ..rule },
            Self::Clear | Self::Set | Self::Restore | Self::Help | Self::Version => rule,
        }
    }

    /// Whether it is about real servers, where `-b` is FULLNAT.
    pub(super) fn is_on_real_server(self) -> bool {
        matches!(self, Self::AddServer | Self::EditServer | Self::DeleteServer)
    }

    /// Refuses options that it does not go with, or that are missing.
    pub(super) fn check(self, options: Options) -> Result<(), Wrong> {
        self.rule().check(options, self.name(), "command", &SAID)
    }
}

impl Rule {
    fn check(self, options: Options, subject: &str, kind: &str, among: &[(Said, &'static str)]) -> Result<(), Wrong> {
        let mut chosen: Option<&str> = None;
        for &(said, name) in among {
            let (given, needed) = (options.has(said), self.needs.contains(&said));
            if !given && needed {
                return Wrong::usage(format!("You need to supply the '{name}' option for the '{subject}' {kind}"));
            }
            if !given || needed || self.allows.contains(&said) {
                continue;
            }
            if !self.one_of.contains(&said) {
                return Wrong::usage(format!("Illegal '{name}' option with the '{subject}' {kind}"));
            }
            if let Some(other) = chosen.replace(name) {
                return Wrong::usage(format!(
                    "The option '{name}' conflicts with the '{other}' option in the '{subject}' {kind}"
                ));
            }
        }
        Ok(())
    }
}

/// Options about what a tunnel is made of.
pub(super) const OF_TUNNELS: [Said; 5] =
    [TunnelType, TunnelPort, TunnelNoChecksum, TunnelChecksum, TunnelRemoteChecksum];

/// Refuses options that a kind of tunnel does not go with, by its number (`IP_VS_CONN_F_TUNNEL_TYPE_*`).
pub(super) fn check_tunnel(kind: u8, options: Options) -> Result<(), Wrong> {
    let rule = match kind {
        1 => Rule {
            needs: &[TunnelPort],
            one_of: &[TunnelNoChecksum, TunnelChecksum, TunnelRemoteChecksum],
            ..Rule::default()
        },
        2 => Rule { one_of: &[TunnelNoChecksum, TunnelChecksum], ..Rule::default() },
        _ => Rule::default(),
    };
    let among = SAID.into_iter().filter(|(said, _)| OF_TUNNELS[1..].contains(said)).collect::<Vec<_>>();
    rule.check(options, TUNNELS[usize::from(kind).min(2)], "tunnel type", &among)
}

/// The kinds of tunnels by their numbers.
pub(super) const TUNNELS: [&str; 3] = ["ipip", "gue", "gre"];

/// What options on its own say of a listing, which some others contradict.
pub(super) fn check_list(options: Options) -> Result<(), Wrong> {
    let of_services = [Stats, Rate, Thresholds];
    if options.has_any(&[Connection, Timeout, Daemon]) && options.has_any(&of_services) {
        return Wrong::usage("options conflicts in the list command".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(said: &[Said]) -> Options {
        let mut options = Options::default();
        for &one in said {
            options.say(one).unwrap();
        }
        options
    }

    #[test]
    fn everything_said_is_listed_in_its_place() {
        for (index, (said, _)) in SAID.iter().enumerate() {
            assert_eq!(*said as usize, index);
        }
    }

    #[test]
    fn commands_refuse_what_they_do_not_go_with() {
        let refused = |action: Action, said: &[Said]| action.check(options(said)).unwrap_err().to_string();
        assert_eq!(
            refused(Action::AddService, &[]),
            "You need to supply the 'service-address' option for the 'add-service' command"
        );
        assert_eq!(refused(Action::Clear, &[Numeric]), "Illegal 'numeric' option with the 'flush' command");
        assert_eq!(
            refused(Action::List, &[Daemon, Timeout]),
            "The option 'daemon' conflicts with the 'timeout' option in the 'list' command"
        );
        // The first in the order of the table is told.
        assert_eq!(refused(Action::AddServer, &[Numeric]), "Illegal 'numeric' option with the 'add-server' command");
        Action::List.check(options(&[Numeric, Service, Stats])).unwrap();
    }

    #[test]
    fn tunnels_refuse_what_they_are_not_made_of() {
        let refused = |kind, said: &[Said]| check_tunnel(kind, options(said)).unwrap_err().to_string();
        assert_eq!(refused(0, &[TunnelChecksum]), "Illegal 'tun-csum' option with the 'ipip' tunnel type");
        assert_eq!(refused(1, &[]), "You need to supply the 'tun-port' option for the 'gue' tunnel type");
        assert_eq!(
            refused(2, &[TunnelNoChecksum, TunnelChecksum]),
            "The option 'tun-csum' conflicts with the 'tun-nocsum' option in the 'gre' tunnel type"
        );
        check_tunnel(1, options(&[TunnelType, TunnelPort, TunnelRemoteChecksum])).unwrap();
    }
}
