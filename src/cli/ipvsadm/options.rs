//! ipvsadm's options and commands by their names, and those of Alibaba's fork: the one table that the parser, the manual
//! page and the completions are made of.
//!
//! The names, letters and arguments are those of ipvsadm 1.31.

/// An option, or a command, which is an option to the parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opt {
    AddService,
    EditService,
    DeleteService,
    Clear,
    List,
    Zero,
    AddServer,
    EditServer,
    DeleteServer,
    Set,
    Help,
    Version,
    Restore,
    Save,
    StartDaemon,
    StopDaemon,
    AddLocal,
    DeleteLocal,
    GetLocal,
    TcpService,
    UdpService,
    SctpService,
    MarkService,
    Scheduler,
    Persistent,
    Netmask,
    RealServer,
    Masquerading,
    Tunnel,
    Gatewaying,
    Fullnat,
    Weight,
    UpperThreshold,
    LowerThreshold,
    Numeric,
    Connection,
    McastInterface,
    SyncId,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    Sort,
    Exact,
    Ipv6,
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

/// Whether an option has an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    /// The rest of its word or the next one.
    Value,
    /// The same, unless that begins with a hyphen or is not there.
    Optional,
}

/// What is known of an option.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) option: Opt,
    pub(super) long: &'static str,
    pub(super) short: Option<char>,
    pub(super) takes: Takes,
    /// What its argument is called.
    pub(super) value: &'static str,
    /// For people.
    pub(super) help: &'static str,
}

const fn plain(option: Opt, long: &'static str, short: Option<char>, help: &'static str) -> Entry {
    Entry { option, long, short, takes: Takes::Nothing, value: "", help }
}

const fn with(option: Opt, long: &'static str, short: Option<char>, value: &'static str, help: &'static str) -> Entry {
    Entry { option, long, short, takes: Takes::Value, value, help }
}

/// All of them. `-l` is another letter of `-L`, and `-b` is `--sched-flags` but for commands on real servers.
pub(super) const OPTIONS: [Entry; 63] = [
    plain(Opt::AddService, "add-service", Some('A'), "Add a virtual service"),
    plain(Opt::EditService, "edit-service", Some('E'), "Edit a virtual service"),
    plain(Opt::DeleteService, "delete-service", Some('D'), "Delete a virtual service with its real servers"),
    plain(Opt::Clear, "clear", Some('C'), "Delete all virtual services"),
    plain(Opt::Restore, "restore", Some('R'), "Carry out commands from standard input, one a line"),
    plain(Opt::Save, "save", Some('S'), "Print the commands that make what there is"),
    plain(Opt::AddServer, "add-server", Some('a'), "Add a real server to a virtual service"),
    plain(Opt::EditServer, "edit-server", Some('e'), "Edit a real server of a virtual service"),
    plain(Opt::DeleteServer, "delete-server", Some('d'), "Remove a real server from a virtual service"),
    plain(Opt::List, "list", Some('L'), "List virtual services and their real servers (also -l)"),
    plain(Opt::Zero, "zero", Some('Z'), "Count from zero again, a service or all"),
    plain(Opt::Set, "set", None, "Set the timeouts TCP, TCPFIN and UDP, in seconds; 0: as it is"),
    with(Opt::StartDaemon, "start-daemon", None, "master|backup", "Start a daemon for synchronisation"),
    with(Opt::StopDaemon, "stop-daemon", None, "master|backup", "Stop a daemon for synchronisation"),
    plain(Opt::AddLocal, "add-laddr", Some('P'), "Add a local address for FULLNAT to a virtual service"),
    plain(Opt::DeleteLocal, "del-laddr", Some('Q'), "Withdraw a local address from a virtual service"),
    plain(Opt::GetLocal, "get-laddr", Some('G'), "List local addresses, of a virtual service or of all"),
    plain(Opt::Help, "help", Some('h'), "Print a help text"),
    plain(Opt::Version, "version", Some('v'), "Print the version"),
    with(Opt::TcpService, "tcp-service", Some('t'), "HOST[:PORT]", "The TCP service of this address"),
    with(Opt::UdpService, "udp-service", Some('u'), "HOST[:PORT]", "The UDP service of this address"),
    with(Opt::SctpService, "sctp-service", None, "HOST[:PORT]", "The SCTP service of this address"),
    with(Opt::MarkService, "fwmark-service", Some('f'), "MARK", "The service of packets with this mark, above 0"),
    plain(Opt::Ipv6, "ipv6", Some('6'), "The service of a mark is one of IPv6; after -f"),
    with(Opt::Scheduler, "scheduler", Some('s'), "NAME", "How a service chooses real servers; wlc if not given"),
    with(Opt::SchedulerFlags, "sched-flags", Some('b'), "FLAGS", "The scheduler's flags, with commas (with -A and -E)"),
    with(Opt::PersistenceEngine, "pe", None, "ENGINE", "Another persistence engine"),
    Entry {
        option: Opt::Persistent,
        long: "persistent",
        short: Some('p'),
        takes: Takes::Optional,
        value: "SECONDS",
        help: "Clients stay with their real server for so long; 360 if not given",
    },
    with(Opt::Netmask, "netmask", Some('M'), "NETMASK", "Clients of one such network stay together"),
    plain(Opt::OnePacket, "ops", Some('o'), "Each packet is scheduled on its own (UDP)"),
    with(Opt::SynProxy, "synproxy", Some('j'), "enable|disable", "Answer SYNs in the real servers' stead"),
    with(Opt::RealServer, "real-server", Some('r'), "HOST[:PORT]", "The real server"),
    plain(Opt::Gatewaying, "gatewaying", Some('g'), "Direct routing (DR), which is the default"),
    plain(Opt::Tunnel, "ipip", Some('i'), "A tunnel (TUN)"),
    plain(Opt::Masquerading, "masquerading", Some('m'), "NAT; FULLNAT where the service has flag-3"),
    plain(Opt::Fullnat, "fullnat", None, "FULLNAT (-b with -a and -e)"),
    with(Opt::TunnelType, "tun-type", None, "ipip|gue|gre", "What the tunnel is made of; ipip if not given"),
    with(Opt::TunnelPort, "tun-port", None, "PORT", "The UDP port of a gue tunnel"),
    plain(Opt::TunnelNoChecksum, "tun-nocsum", None, "The tunnel has no checksums"),
    plain(Opt::TunnelChecksum, "tun-csum", None, "The tunnel has checksums"),
    plain(Opt::TunnelRemoteChecksum, "tun-remcsum", None, "The tunnel has remote checksums"),
    with(Opt::Weight, "weight", Some('w'), "WEIGHT", "Its share of new connections; 1 if not given"),
    with(Opt::UpperThreshold, "u-threshold", Some('x'), "COUNT", "Connections from which on it gets no new ones"),
    with(Opt::LowerThreshold, "l-threshold", Some('y'), "COUNT", "Connections below which it gets new ones again"),
    with(Opt::LocalAddress, "local-address", Some('z'), "ADDRESS", "The local address"),
    plain(Opt::Connection, "connection", Some('c'), "List connections"),
    plain(Opt::Timeout, "timeout", None, "List timeouts"),
    plain(Opt::Daemon, "daemon", None, "List daemons for synchronisation"),
    plain(Opt::Stats, "stats", None, "List counters"),
    plain(Opt::Rate, "rate", None, "List rates"),
    plain(Opt::Exact, "exact", Some('X'), "Write large numbers out"),
    plain(Opt::Thresholds, "thresholds", None, "List thresholds"),
    plain(Opt::PersistentConn, "persistent-conn", None, "List how many clients stay with real servers"),
    plain(Opt::TunnelInfo, "tun-info", None, "List what tunnels are made of"),
    plain(Opt::NoSort, "nosort", None, "List in the order that the gateway keeps"),
    plain(Opt::Sort, "sort", None, "List sorted, which is the default"),
    plain(Opt::Numeric, "numeric", Some('n'), "Print addresses and ports, not names"),
    with(Opt::SyncId, "syncid", None, "ID", "What tells daemons of one group from others', 0 to 255"),
    with(Opt::SyncMaxlen, "sync-maxlen", None, "BYTES", "Longest message, 1 to 65507"),
    with(Opt::McastInterface, "mcast-interface", None, "NAME", "Interface of the messages; eth0 if not given"),
    with(Opt::McastGroup, "mcast-group", None, "ADDRESS", "Their multicast group; 224.0.0.81 if not given"),
    with(Opt::McastPort, "mcast-port", None, "PORT", "Their UDP port; 8848 if not given"),
    with(Opt::McastTtl, "mcast-ttl", None, "TTL", "Their time to live; 1 if not given"),
];

/// The option of a long name, which is to be written out.
pub(super) fn by_long_name(name: &str) -> Option<&'static Entry> {
    OPTIONS.iter().find(|entry| entry.long == name)
}

/// The option of a letter. After a command on real servers `b` is the fork's FULLNAT.
pub(super) fn by_letter(letter: char, on_real_server: bool) -> Option<&'static Entry> {
    match letter {
        'l' => by_letter('L', false),
        'b' if on_real_server => OPTIONS.iter().find(|entry| entry.option == Opt::Fullnat),
        _ => OPTIONS.iter().find(|entry| entry.short == Some(letter)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_letters_are_given_once() {
        for (index, entry) in OPTIONS.iter().enumerate() {
            let others = || OPTIONS[index + 1..].iter();
            assert!(others().all(|other| other.long != entry.long && other.option != entry.option), "{}", entry.long);
            assert!(entry.short.is_none() || others().all(|other| other.short != entry.short), "{}", entry.long);
            assert_eq!(entry.takes == Takes::Nothing, entry.value.is_empty(), "{}", entry.long);
        }
    }

    #[test]
    fn b_is_what_its_command_makes_of_it() {
        assert_eq!(by_letter('b', false).map(|entry| entry.option), Some(Opt::SchedulerFlags));
        assert_eq!(by_letter('b', true).map(|entry| entry.option), Some(Opt::Fullnat));
        assert_eq!(by_letter('l', false).map(|entry| entry.option), Some(Opt::List));
    }
}
