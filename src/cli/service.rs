//! `fullgate service`: virtual services.

use clap::{Args, Subcommand};

use super::CliError;
use super::arguments::{Connection, ServiceArgument, ServiceChoice, scheduler, scheduler_flag};
use super::forwarding::mode;
use super::output::{print, print_json};
use super::stats_table::traffic_cells;
use super::table::Align::{Left, Right};
use super::table::Table;
use crate::balance::{ClientPrefix, ForwardingMode, MssClamp, SchedulerFlag, SchedulerKind};
use crate::config::ServiceConfig;
use crate::control::protocol::{RealServerRow, Reply, Request, ServiceName, ServiceRow};

/// Add, change, delete and list virtual services
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  fullgate service add -t 10.0.0.100:80 -s wrr
  fullgate service list")]
pub(super) enum Service {
    Add(Add),
    Edit(Edit),
    Del(Del),
    List(List),
}

/// Add a service, without real servers as yet
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fullgate service add -t 10.0.0.100:80 -s wrr
  fullgate service add -t 10.0.0.100:80 -s mh -b mh-fallback,mh-port
  fullgate service add -u 10.0.0.100:53 -s rr --local-pool lan
  fullgate service add -t 10.0.0.100:443 --mode dr
  fullgate service add -f 1 -s rr --mode nat
  fullgate service add -t 10.0.0.100:443 -p 600 -M 255.255.255.0")]
pub(super) struct Add {
    #[command(flatten)]
    service: ServiceArgument,

    /// How real servers are chosen
    #[arg(short, long, default_value = "wlc", value_parser = scheduler())]
    scheduler: SchedulerKind,

    /// Flags of schedulers sh and mh, separated by commas
    #[arg(short = 'b', long = "sched-flags", value_name = "FLAGS", value_delimiter = ',', value_parser = scheduler_flag())]
    scheduler_flags: Vec<SchedulerFlag>,

    /// How packets reach real servers that do not say it themselves
    #[arg(long, value_name = "MODE", default_value = "fullnat", value_parser = mode())]
    mode: ForwardingMode,

    /// Pool of local addresses, the source that real servers see in mode fullnat [default: the only pool there is]
    #[arg(long, value_name = "POOL")]
    local_pool: Option<String>,

    /// Lower the MSS of its TCP connections to this: bytes, or mtu for what the links take
    #[arg(long, value_name = "BYTES|mtu", default_value = "0", hide_default_value = true)]
    mss_clamp: MssClamp,

    /// Clients stay with their real server so many seconds from the beginning of their last connection on [default: 300
    /// where no number follows]
    #[arg(
        short = 'p', long = "persistent", value_name = "SECONDS", num_args = 0..=1, default_missing_value = "300",
        default_value = "0", hide_default_value = true
    )]
    persistence: u32,

    /// Clients that agree in so many bits of their address, or in a netmask's, stay together
    #[arg(short = 'M', long = "netmask", value_name = "BITS|NETMASK", requires = "persistence")]
    persistence_prefix: Option<ClientPrefix>,

    /// Schedule each packet on its own, without a session: UDP in modes nat, dr and tun
    #[arg(short = 'o', long = "ops")]
    one_packet: bool,

    /// Sessions that it may have, over all workers; what would begin more is dropped [default: no limit]
    #[arg(long, value_name = "COUNT", default_value = "0", hide_default_value = true)]
    max_connections: u32,

    /// Let the weight of a real server that is added, or comes back from weight 0, rise over so many seconds [default:
    /// at once]
    #[arg(long, value_name = "SECONDS", default_value = "0", hide_default_value = true)]
    slow_start: u32,

    #[command(flatten)]
    connection: Connection,
}

/// Change a service; what is not given stays
#[derive(Debug, Args)]
#[command(
    override_usage = "fullgate service edit <--tcp <VIP:PORTS>|--udp <VIP:PORTS>|--sctp <VIP:PORTS>|--fwmark <MARK[/ipv6]>> <WHAT CHANGES>..."
)]
#[command(group = clap::ArgGroup::new("change").args([
    "scheduler", "scheduler_flags", "mode", "local_pool", "mss_clamp", "persistence", "persistence_prefix",
    "one_packet", "max_connections", "slow_start",
]).required(true).multiple(true))]
#[command(after_help = "\
Sessions that are set up stay as they are.

Examples:
  fullgate service edit -t 10.0.0.100:80 -s wlc")]
pub(super) struct Edit {
    #[command(flatten)]
    service: ServiceArgument,

    /// How real servers are chosen
    #[arg(short, long, value_parser = scheduler())]
    scheduler: Option<SchedulerKind>,

    /// How packets reach real servers that do not say it themselves
    #[arg(long, value_name = "MODE", value_parser = mode())]
    mode: Option<ForwardingMode>,
    /// Flags of schedulers sh and mh, separated by commas: those it shall have; none if nothing follows
    #[arg(
        short = 'b', long = "sched-flags", value_name = "FLAGS", num_args = 0.., value_delimiter = ',', value_parser = scheduler_flag()
    )]
    scheduler_flags: Option<Vec<SchedulerFlag>>,

    /// Pool of local addresses, for new sessions
    #[arg(long, value_name = "POOL")]
    local_pool: Option<String>,

    /// Lower the MSS of its TCP connections to this: bytes, mtu for what the links take, 0 to leave it alone
    #[arg(long, value_name = "BYTES|mtu")]
    mss_clamp: Option<MssClamp>,

    /// Clients stay with their real server so many seconds from the beginning of their last connection on; 0: no more
    #[arg(
        short = 'p', long = "persistent", value_name = "SECONDS", num_args = 0..=1, default_missing_value = "300"
    )]
    persistence: Option<u32>,

    /// Clients that agree in so many bits of their address, or in a netmask's, stay together
    #[arg(short = 'M', long = "netmask", value_name = "BITS|NETMASK")]
    persistence_prefix: Option<ClientPrefix>,

    /// Whether each packet is scheduled on its own, without a session
    #[arg(short = 'o', long = "ops", value_name = "true|false", num_args = 0..=1, default_missing_value = "true")]
    one_packet: Option<bool>,

    /// Sessions that it may have, over all workers; 0: no limit
    #[arg(long, value_name = "COUNT")]
    max_connections: Option<u32>,

    /// Let the weight of a real server that is added, or comes back from weight 0, rise over so many seconds; 0: no more
    #[arg(long, value_name = "SECONDS")]
    slow_start: Option<u32>,

    #[command(flatten)]
    connection: Connection,
}

/// Delete a service with its real servers
#[derive(Debug, Args)]
#[command(after_help = "\
Packets of its sessions are dropped from then on. To let them end first, give its real servers
weight 0 and wait.

Examples:
  fullgate service del -t 10.0.0.100:80")]
pub(super) struct Del {
    #[command(flatten)]
    service: ServiceArgument,

    #[command(flatten)]
    connection: Connection,
}

/// List services with their real servers
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fullgate service list
  fullgate service list -t 10.0.0.100:80 --stats
  fullgate service list --json | jq '.[].real_servers[].active_connections'")]
pub(super) struct List {
    #[command(flatten)]
    service: ServiceChoice,

    /// Show connections, packets and bytes since the service was added
    #[arg(long)]
    stats: bool,

    #[command(flatten)]
    connection: Connection,
}

impl Service {
    pub(super) fn execute(self) -> Result<(), CliError> {
        match self {
            Self::Add(add) => add.execute(),
            Self::Edit(edit) => edit.connection.change(&Request::ServiceEdit {
                service: edit.service.name()?,
                scheduler: edit.scheduler,
                scheduler_flags: edit.scheduler_flags.map(Into::into),
                mode: edit.mode,
                local_pool: edit.local_pool,
                mss_clamp: edit.mss_clamp,
                persistence: edit.persistence,
                persistence_prefix: edit.persistence_prefix.map(|ClientPrefix(bits)| bits),
                one_packet: edit.one_packet,
                max_connections: edit.max_connections,
                slow_start: edit.slow_start,
            }),
            Self::Del(del) => del.connection.change(&Request::ServiceDel { service: del.service.name()? }),
            Self::List(list) => list.execute(),
        }
    }
}

impl Add {
    fn execute(self) -> Result<(), CliError> {
        let ServiceName { vip, protocol } = self.service.name()?;
        let service = ServiceConfig {
            vip,
            protocol,
            scheduler: self.scheduler,
            scheduler_flags: self.scheduler_flags.into(),
            mode: self.mode,
            local_pool: self.local_pool.unwrap_or_default(),
            mss_clamp: self.mss_clamp,
            persistence: self.persistence,
            persistence_prefix: self.persistence_prefix.map(|ClientPrefix(bits)| bits),
            one_packet: self.one_packet,
            max_connections: self.max_connections,
            slow_start: self.slow_start,
            real_servers: Vec::new(),
        };
        self.connection.change(&Request::ServiceAdd { service })
    }
}

/// The services of the daemon: this one or all.
pub(super) fn fetch(connection: &Connection, service: Option<ServiceName>) -> Result<Vec<ServiceRow>, CliError> {
    connection.ask(&Request::ServiceList { service }, |reply| match reply {
        Reply::Services(rows) => Some(rows),
        _ => None,
    })
}

impl List {
    fn execute(self) -> Result<(), CliError> {
        let rows = fetch(&self.connection, self.service.name())?;
        match (self.connection.json, self.stats) {
            (true, _) => print_json(&rows),
            (false, true) => print(stats_table(&rows)),
            (false, false) => print(table(&rows)),
        }
    }
}

/// As ipvsadm writes it.
fn service_name(service: &ServiceRow) -> String {
    let ServiceRow { vip, protocol, .. } = service;
    match vip.mark {
        Some(mark) if vip.address.is_ipv6() => format!("FWM  {mark} IPv6"),
        Some(mark) => format!("FWM  {mark}"),
        None => format!("{}  {vip}", protocol.name().to_uppercase()),
    }
}

/// As `ipvsadm -L -n` prints it, with columns as wide as need be.
fn table(rows: &[ServiceRow]) -> Table {
    // A column of zeroes says nothing.
    let real_servers = rows.iter().flat_map(|service| &service.real_servers);
    let has_persistence = rows.iter().any(|service| service.persistence > 0)
        || real_servers.into_iter().any(|real| real.persistent_connections > 0);
    let columns = [
        ("  -> RemoteAddress:Port", Left),
        ("Forward", Left),
        ("Weight", Right),
        ("ActiveConn", Right),
        ("InActConn", Right),
        ("PersistConn", Right),
    ];
    let shown = if has_persistence { columns.len() } else { columns.len() - 1 };
    let mut table = Table::new(&columns[..shown]);
    table.put_first("Prot LocalAddress:Port Scheduler LocalPool");
    for service in rows {
        let mut words = vec![service_name(service), service.scheduler.to_string(), service.local_pool.clone()];
        if !service.scheduler_flags.is_empty() {
            words.push(format!("({})", service.scheduler_flags));
        }
        if !service.mss_clamp.is_off() {
            words.push(format!("mss-clamp {}", service.mss_clamp));
        }
        if service.persistence > 0 {
            words.push(format!("persistent {}", service.persistence));
        }
        words.extend(service.persistence_prefix.map(|bits| format!("mask /{bits}")));
        words.extend(service.one_packet.then(|| "ops".to_owned()));
        words.extend((service.max_connections > 0).then(|| format!("max-connections {}", service.max_connections)));
        words.extend((service.slow_start > 0).then(|| format!("slow-start {}", service.slow_start)));
        words.extend(service.lacks_local_address.then(|| "(no local address: no new sessions)".to_owned()));
        words.retain(|word| !word.is_empty());
        table.line(words.join(" "));
        for real in &service.real_servers {
            let cells = [
                format!("  -> {}", real.address),
                real.mode.to_string(),
                weight(real),
                real.active_connections.to_string(),
                real.inactive_connections.to_string(),
                real.persistent_connections.to_string(),
            ];
            table.row(cells.into_iter().take(shown));
        }
    }
    table
}

/// A real server's weight; while that rises, where it is.
pub(super) fn weight(real: &RealServerRow) -> String {
    let weight = real.weight.0;
    real.effective_weight.map_or_else(|| weight.to_string(), |now| format!("{} of {weight}", now.0))
}

/// As `ipvsadm -L -n --stats --exact` prints it.
fn stats_table(rows: &[ServiceRow]) -> Table {
    let columns = [
        ("Prot LocalAddress:Port", Left),
        ("Conns", Right),
        ("InPkts", Right),
        ("OutPkts", Right),
        ("InBytes", Right),
        ("OutBytes", Right),
    ];
    let mut table = Table::new(&columns);
    table.line("  -> RemoteAddress:Port");
    for service in rows {
        table.row(traffic_cells(service_name(service), &service.traffic));
        for real in &service.real_servers {
            table.row(traffic_cells(format!("  -> {}", real.address), &real.traffic));
        }
    }
    table
}
