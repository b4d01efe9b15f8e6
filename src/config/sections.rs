//! The plain tables: `[dpdk]`, `[worker]`, `[session]`, `[control]`, `[punt]`, `[timeouts]`, `[ipvs]`.
//!
//! Where a value is wrong it is noted in the document and a placeholder returned.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use super::model::{
    ControlConfig, DEFAULT_SOCKET, DpdkConfig, Idle, PuntRates, SessionConfig, SessionPages, WorkerConfig,
};
use super::raw::{Section, Value};
use super::rules;
use super::syntax;
use crate::balance::scheduler::{HashSecret, mh};
use crate::balance::{SchedulerSettings, Sysctl, Sysctls, Timeouts};
use crate::forward::PuntClass;
use crate::port::MAX_WORKERS;

/// Fewer sessions than this are no table worth its timers and buckets.
const MIN_CAPACITY: u32 = 1 << 10;
/// At 90 bytes a session this is 12 GB for each worker.
const MAX_CAPACITY: u32 = 1 << 27;
/// 94 MB for each worker.
const DEFAULT_CAPACITY: u32 = 1 << 20;
/// There is room for one session of IPv6 to so many of IPv4, unless the file says otherwise.
const IPV6_SHARE: u32 = 8;
/// Fewer templates than this are no table, either.
const MIN_PERSISTENCE_CAPACITY: u32 = 1 << 10;
/// At 133 bytes a template this is 2 GB.
const MAX_PERSISTENCE_CAPACITY: u32 = 1 << 24;
/// 35 MB.
const DEFAULT_PERSISTENCE_CAPACITY: u32 = 1 << 18;
/// The highest CPU number that Linux's CPU sets hold.
const MAX_CORE: u32 = 1023;
/// A mempool smaller than this starves the rings of a single port.
const MIN_MBUFS: u32 = 1 << 10;
/// 64 million buffers of over 2 kB.
const MAX_MBUFS: u32 = 1 << 26;
/// More frames a second than the kernel takes through a TAP.
const MAX_PUNT_RATE: u32 = 10_000_000;
/// Where /metrics is served unless said otherwise.
const DEFAULT_METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9469);

/// `[dpdk]`
pub(super) fn dpdk(mut section: Section<'_>) -> DpdkConfig {
    const ALLOWED: &str = "a list of texts, like [\"--no-huge\", \"-m\", \"512\"]";
    let mut eal_args = Vec::new();
    for value in section.get("eal_args").map(|value| value.list(ALLOWED)).unwrap_or_default() {
        match value.text("a text, one argument") {
            Some(text) if text.is_empty() || text.contains('\0') => {
                value.error("an argument that is empty or has a NUL in it; allowed: a text, one argument");
            }
            Some(text) => eal_args.push(text.to_owned()),
            None => (),
        }
    }
    let mbufs = section.get("mbufs").and_then(|value| value.integer(MIN_MBUFS..=MAX_MBUFS, "packet buffers"));
    section.finish();
    DpdkConfig { eal_args, mbufs }
}

/// `[worker]`
pub(super) fn worker(mut section: Section<'_>) -> WorkerConfig {
    const ALLOWED: &str = "a list of CPU numbers, one worker on each, like [1] or [2, 3]";
    let cores = section.require("cores", ALLOWED).map(|value| cores(&value, ALLOWED)).unwrap_or_default();
    let parse = |text: &str| match text {
        "spin" => Ok(Idle::Spin),
        "sleep" => Ok(Idle::Sleep),
        _ => Err(format!("{text:?} is no way to be idle; allowed: spin, sleep")),
    };
    let idle = section.get("idle").and_then(|value| value.parsed("spin, sleep", parse)).unwrap_or_default();
    section.finish();
    WorkerConfig { cores, idle }
}

fn cores(value: &Value<'_>, allowed: &str) -> Vec<u16> {
    let list = value.list(allowed);
    let mut cores = Vec::new();
    for each in &list {
        let Some(core) = each.integer::<u16>(0..=MAX_CORE, "") else { continue };
        if cores.contains(&core) {
            each.error(format!("CPU {core} is there already; allowed: each CPU once"));
        }
        cores.push(core);
    }
    if list.is_empty() && value.is_list() {
        value.error(format!("the list is empty; allowed: {allowed}"));
    }
    if list.len() > MAX_WORKERS {
        value.error(format!("{} workers are too many; allowed: 1 to {MAX_WORKERS} CPUs", list.len()));
    }
    cores
}

/// `[session]`
pub(super) fn session(mut section: Section<'_>) -> SessionConfig {
    const PAGES: &str = "auto, 1G, 2M, ordinary";
    let unit = "sessions a worker (90 bytes each: 2^27 take 12 GB)";
    let capacity = section.get("capacity").and_then(|value| value.integer(MIN_CAPACITY..=MAX_CAPACITY, unit));
    let unit = "sessions a worker (154 bytes each)";
    let ipv6_capacity = section.get("ipv6_capacity").and_then(|value| value.integer(MIN_CAPACITY..=MAX_CAPACITY, unit));
    let parse = |text: &str| match text {
        "auto" => Ok(SessionPages::Auto),
        "1G" => Ok(SessionPages::OneGigabyte),
        "2M" => Ok(SessionPages::TwoMegabytes),
        "ordinary" => Ok(SessionPages::Ordinary),
        _ => Err(format!("{text:?} is no size of pages; allowed: {PAGES}")),
    };
    let pages = section.get("pages").and_then(|value| value.parsed(PAGES, parse)).unwrap_or_default();
    let unit = "clients (133 bytes each: 2^24 take 2 GB)";
    let range = MIN_PERSISTENCE_CAPACITY..=MAX_PERSISTENCE_CAPACITY;
    let templates = section.get("persistence_capacity").and_then(|value| value.integer(range, unit));
    section.finish();
    let persistence_capacity = templates.unwrap_or(DEFAULT_PERSISTENCE_CAPACITY);
    let capacity = capacity.unwrap_or(DEFAULT_CAPACITY);
    let ipv6_capacity = ipv6_capacity.unwrap_or((capacity / IPV6_SHARE).max(MIN_CAPACITY));
    SessionConfig { capacity, ipv6_capacity, pages, persistence_capacity }
}

/// `[control]`
pub(super) fn control(mut section: Section<'_>) -> ControlConfig {
    let mut path = |name, default: &str, parse: fn(&str) -> Result<String, syntax::SyntaxError>| {
        let given = section.get(name).and_then(|value| value.parsed("an absolute path", parse));
        PathBuf::from(given.unwrap_or_else(|| default.to_owned()))
    };
    let socket = path("socket", DEFAULT_SOCKET, syntax::socket_path);
    let state_dir = path("state_dir", "/var/lib/fullgate", syntax::absolute_path);
    let group = section.get("group").and_then(|value| value.parsed("the name of a group", group));
    let metrics = section.get("metrics").map_or(Some(DEFAULT_METRICS), |value| metrics(&value));
    section.finish();
    ControlConfig { socket, group, metrics, state_dir }
}

fn group(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':') {
        return Err(format!("{text:?} is no name of a group; allowed: a group's name without spaces and colons"));
    }
    Ok(text.to_owned())
}

fn metrics(value: &Value<'_>) -> Option<SocketAddr> {
    const ALLOWED: &str = "ADDRESS:PORT, like \"127.0.0.1:9469\", or false for none";
    let parse = |text: &str| {
        let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
        address.ok_or_else(|| format!("{text:?} is no address and port; allowed: {ALLOWED}"))
    };
    if value.is_false() { None } else { value.parsed(ALLOWED, parse) }
}

/// `[punt]`
pub(super) fn punt(mut section: Section<'_>) -> PuntRates {
    let mut rates = PuntRates::default();
    for &class in PuntClass::ALL {
        let value = section.get(class.label());
        if let Some(rate) = value.and_then(|value| value.integer(0..=MAX_PUNT_RATE, "frames a second")) {
            rates.0[class as usize] = rate;
        }
    }
    section.finish();
    rates
}

/// `[timeouts]`
pub(super) fn timeouts(mut section: Section<'_>) -> Timeouts {
    let mut timeouts = Timeouts::default();
    let fields: [(&'static str, &mut u32); 25] = [
        ("tcp", &mut timeouts.tcp),
        ("tcp_syn_sent", &mut timeouts.tcp_syn_sent),
        ("tcp_syn_recv", &mut timeouts.tcp_syn_recv),
        ("tcp_fin", &mut timeouts.tcp_fin),
        ("tcp_time_wait", &mut timeouts.tcp_time_wait),
        ("tcp_close", &mut timeouts.tcp_close),
        ("tcp_close_wait", &mut timeouts.tcp_close_wait),
        ("tcp_last_ack", &mut timeouts.tcp_last_ack),
        ("tcp_listen", &mut timeouts.tcp_listen),
        ("tcp_synack", &mut timeouts.tcp_synack),
        ("udp", &mut timeouts.udp),
        ("sctp", &mut timeouts.sctp),
        ("sctp_init1", &mut timeouts.sctp_init1),
        ("sctp_init", &mut timeouts.sctp_init),
        ("sctp_cookie_sent", &mut timeouts.sctp_cookie_sent),
        ("sctp_cookie_replied", &mut timeouts.sctp_cookie_replied),
        ("sctp_cookie_wait", &mut timeouts.sctp_cookie_wait),
        ("sctp_cookie", &mut timeouts.sctp_cookie),
        ("sctp_cookie_echoed", &mut timeouts.sctp_cookie_echoed),
        ("sctp_shutdown_sent", &mut timeouts.sctp_shutdown_sent),
        ("sctp_shutdown_received", &mut timeouts.sctp_shutdown_received),
        ("sctp_shutdown_ack_sent", &mut timeouts.sctp_shutdown_ack_sent),
        ("sctp_rejected", &mut timeouts.sctp_rejected),
        ("sctp_closed", &mut timeouts.sctp_closed),
        ("icmp", &mut timeouts.icmp),
    ];
    for (name, field) in fields {
        let value = section.get(name);
        if let Some(seconds) = value.and_then(|value| value.integer(rules::TIMEOUT, "seconds (31 days)")) {
            *field = seconds;
        }
    }
    section.finish();
    timeouts
}

/// `[ipvs]`: keys by IPVS's names where it has them.
pub(super) fn ipvs(mut section: Section<'_>) -> (SchedulerSettings, Sysctls) {
    let mut sysctls = Sysctls::default();
    for sysctl in Sysctl::ALL {
        let value = section.get(sysctl.name);
        if let Some(number) = value.and_then(|value| value.integer(sysctl.range.clone(), sysctl.unit)) {
            let _in_range = sysctl.set(&mut sysctls, number);
        }
    }
    let mut settings = SchedulerSettings::default().with_expirations(&sysctls);
    let secret = section.get("hash_secret");
    if let Some(secret) = secret.and_then(|value| value.parsed(HashSecret::ALLOWED, HashSecret::from_str)) {
        settings.hash_secret = secret;
    }
    let index = section.get("mh_tab_index");
    if let Some(index) = index.and_then(|value| value.integer(mh::TABLE_INDICES, "")) {
        settings.mh_table_index = index;
    }
    section.finish();
    (settings, sysctls)
}
