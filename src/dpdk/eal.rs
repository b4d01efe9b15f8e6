//! The Environment Abstraction Layer: brought up once a process, with exactly the devices that the configuration
//! names, and cleaned up when everything made from it is gone.
//!
//! What the EAL would leave behind (hugepage files, shared configuration, a telemetry socket, its run-time directory)
//! is not made, or removed.

use std::ffi::{CStr, CString, c_char};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::device::{self, EalDevice};
use super::log::{self, RecentLog};
use super::{Errno, clock, ethdev};
use crate::config::{DpdkConfig, PortConfig, WorkerConfig};

/// Names the level of DPDK's log: a word (`notice`, `info`, `debug`) or what EAL's `--log-level` takes (`lib.eal:debug`).
const LOG_LEVEL_VARIABLE: &str = "FULLGATE_EAL_LOG";

/// What the file prefix of each gateway process begins with.
const FILE_PREFIX: &str = "fullgate-";

/// How to get memory, for error messages.
pub(super) const MEMORY_ADVICE: &str = "reserve more hugepages (hugepage-setup does it), or do without: \
     [dpdk] eal_args = [\"--no-huge\", \"-m\", \"512\"]";

/// The EAL could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// A process has one EAL, once.
    #[error("the EAL was initialised already in this process")]
    AlreadyInitialised,
    /// An argument that C cannot take.
    #[error("EAL argument {0:?} has a zero byte in it")]
    Argument(String),
    /// Two ports name one device.
    #[error("ports {first:?} and {second:?} have the same device {device:?}: each port needs its own")]
    DuplicateDevice {
        /// The earlier port.
        first: String,
        /// The later port.
        second: String,
        /// The device's name.
        device: String,
    },
    /// The kernel interface of a virtual device does not exist.
    #[error("port {port:?}: device {device:?}: there is no interface {interface:?} in this network namespace")]
    MissingInterface {
        /// The port.
        port: String,
        /// Its device string.
        device: String,
        /// The interface.
        interface: String,
    },
    /// No such PCI device.
    #[error("port {port:?}: there is no PCI device {address} (`lspci -D` lists those that there are)")]
    MissingPciDevice {
        /// The port.
        port: String,
        /// The address.
        address: String,
    },
    /// No driver of DPDK's made a port of the device.
    #[error("port {port:?}: device {device:?} gave no DPDK port: {advice}{log}")]
    NoPort {
        /// The port.
        port: String,
        /// Its device.
        device: String,
        /// What to do.
        advice: String,
        /// DPDK's own words.
        log: RecentLog,
    },
    /// No memory.
    #[error(
        "the EAL got no memory: asked for {asked}, free are {free_megabytes} MB of hugepages; {MEMORY_ADVICE}{log}"
    )]
    NoMemory {
        /// What was asked for.
        asked: String,
        /// Free hugepages, in MB.
        free_megabytes: u64,
        /// DPDK's own words.
        log: RecentLog,
    },
    /// Anything else.
    #[error("the EAL did not come up: {errno}; its arguments were {arguments:?}{log}")]
    Failed {
        /// Its error number.
        errno: Errno,
        /// Its arguments.
        arguments: Vec<String>,
        /// DPDK's own words.
        log: RecentLog,
    },
}

/// The EAL, up. It is cleaned up when this and every pool and port is dropped.
#[derive(Clone, Debug)]
pub struct Eal {
    runtime: Arc<Runtime>,
}

/// The EAL's life.
#[derive(Debug)]
pub(super) struct Runtime {
    folder: PathBuf,
    memory_in_use: AtomicBool,
}

impl Eal {
    /// Brings the EAL up with the devices of `ports`. The calling thread keeps its CPU affinity.
    pub fn init(dpdk: &DpdkConfig, ports: &[PortConfig], worker: &WorkerConfig) -> Result<Self, EalError> {
        let workers = u16::try_from(worker.cores.len()).unwrap_or(u16::MAX);
        let devices = devices_of(ports, workers)?;
        let affinity = rustix::thread::sched_getaffinity(None).ok();
        let cpus = affinity
            .map_or(Vec::new(), |set| (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect());
        let all: Vec<EalDevice> =
            devices.iter().flat_map(|(_, devices)| devices.iter().flat_map(EalDevice::with_members).cloned()).collect();
        let level = std::env::var(LOG_LEVEL_VARIABLE).ok();
        let arguments = arguments(dpdk, &all, &cpus, std::process::id(), level.as_deref());
        let result = initialise(&arguments).map_err(|error| name_port(error, &devices));
        if let Some(set) = &affinity
            && let Err(error) = rustix::thread::sched_setaffinity(None, set)
        {
            tracing::warn!("the CPU affinity from before the EAL's start was not restored: {error}");
        }
        result?;
        clock::start();
        let folder = runtime_folder();
        sweep(&folder);
        let eal = Self { runtime: Arc::new(Runtime { folder, memory_in_use: AtomicBool::new(false) }) };
        for (port, devices) in &devices {
            check_present(port, devices)?;
        }
        Ok(eal)
    }

    /// DPDK's name and version, like `DPDK 22.11.11`.
    pub fn version() -> String {
        // SAFETY: returns a constant string.
        let text = unsafe { dpdk_sys::rte_version() };
        text_of(text)
    }

    /// A share in the EAL's life.
    pub(super) fn runtime(&self) -> Arc<Runtime> {
        Arc::clone(&self.runtime)
    }
}

impl Runtime {
    /// Buffers are still out: the EAL's memory must stay mapped until the process ends.
    pub(super) fn keep_memory(&self) {
        self.memory_in_use.store(true, Ordering::Relaxed);
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if self.memory_in_use.load(Ordering::Relaxed) {
            // Also where a driver lost buffers, as net_af_xdp (22.11) does at every close.
            tracing::debug!("packet buffers are still out: DPDK's memory is left to the end of the process");
        } else {
            // SAFETY: no pool, port or queue is left, and no buffer is out (see `keep_memory`).
            let result = unsafe { dpdk_sys::rte_eal_cleanup() };
            if let Err(errno) = Errno::check(result) {
                tracing::warn!("the EAL was not cleaned up: {errno}");
            }
        }
        // Empty, for nothing is shared; gone already is as good.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// The string that a C function returned; empty for none.
pub(super) fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null; DPDK's strings end with a zero byte and are not changed while they are read.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// The devices of each port, checked as far as that is possible before the EAL is up.
fn devices_of(ports: &[PortConfig], workers: u16) -> Result<Vec<(&PortConfig, Vec<EalDevice>)>, EalError> {
    let mut known: Vec<(&PortConfig, Vec<EalDevice>)> = Vec::with_capacity(ports.len());
    for port in ports {
        let devices = device::eal_devices(port, workers);
        for device in devices.iter().flat_map(EalDevice::with_members) {
            let same = |other: &EalDevice| other.name() == device.name();
            let taken = |(_, others): &&(_, Vec<EalDevice>)| others.iter().flat_map(EalDevice::with_members).any(same);
            if let Some((first, _)) = known.iter().find(taken) {
                return Err(EalError::DuplicateDevice {
                    first: first.name.clone(),
                    second: port.name.clone(),
                    device: device.name().to_owned(),
                });
            }
        }
        check_machine(port, &devices)?;
        known.push((port, devices));
    }
    Ok(known)
}

/// The machine has what the port's device stands on.
fn check_machine(port: &PortConfig, devices: &[EalDevice]) -> Result<(), EalError> {
    for device in devices.iter().flat_map(EalDevice::with_members) {
        if let Some(interface) = device.kernel_interface()
            && !interface_exists(interface)
        {
            return Err(EalError::MissingInterface {
                port: port.name.clone(),
                device: if port.members.is_empty() { device::text(port) } else { &device.devargs }.to_owned(),
                interface: interface.to_owned(),
            });
        }
        if device.pci && !pci_folder(device.name()).exists() {
            return Err(EalError::MissingPciDevice { port: port.name.clone(), address: device.name().to_owned() });
        }
    }
    Ok(())
}

/// Asks the kernel of the thread's network namespace; /sys may show another's.
fn interface_exists(name: &str) -> bool {
    use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};
    let Ok(any) = socket(AddressFamily::INET, SocketType::DGRAM, None) else { return true };
    name_to_index(any, name).is_ok()
}

fn pci_folder(address: &str) -> PathBuf {
    Path::new("/sys/bus/pci/devices").join(address)
}

/// The EAL's arguments, the program's name first.
fn arguments(dpdk: &DpdkConfig, devices: &[EalDevice], cpus: &[usize], pid: u32, level: Option<&str>) -> Vec<String> {
    let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
    let mut arguments: Vec<String> = ["fullgate", "--no-telemetry"].map(str::to_owned).into();
    let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
    if !cpus.is_empty() {
        // One lcore that floats over all CPUs: workers are threads of our own.
        add("--lcores", format!("0@({})", cpus.join(",")));
    }
    add("--file-prefix", format!("{FILE_PREFIX}{pid}"));
    add("--log-level", log_level(level));
    for device in devices {
        add(if device.pci { "--allow" } else { "--vdev" }, device.devargs.clone());
    }
    if !devices.iter().any(|device| device.pci) {
        arguments.push("--no-pci".to_owned());
    }
    // --no-huge means legacy memory, which --in-memory contradicts.
    arguments.push(if dpdk.is_without_hugepages() { "--no-shconf" } else { "--in-memory" }.to_owned());
    arguments.extend(dpdk.eal_args.iter().cloned());
    arguments
}

fn log_level(level: Option<&str>) -> String {
    match level {
        None | Some("") => "warning".to_owned(),
        Some(level) if level.contains([':', ',']) => level.to_owned(),
        Some(level) => format!("*:{level}"),
    }
}

fn initialise(arguments: &[String]) -> Result<(), EalError> {
    let strings: Vec<CString> = arguments
        .iter()
        .map(|argument| CString::new(argument.as_str()).map_err(|_| EalError::Argument(argument.clone())))
        .collect::<Result<_, _>>()?;
    // The EAL permutes the list as getopt does, and keeps pointers to its strings.
    let mut list: Vec<*mut c_char> = strings.into_iter().map(CString::into_raw).collect();
    let count = i32::try_from(list.len()).unwrap_or(i32::MAX);
    list.push(std::ptr::null_mut());
    let fail = |errno| EalError::Failed { errno, arguments: arguments.to_vec(), log: RecentLog::default() };
    log::redirect().map_err(fail)?;
    log::forget();
    // SAFETY: `count` strings that are never freed, and a null pointer behind them. A second call fails cleanly.
    let result = unsafe { dpdk_sys::rte_eal_init(count, list.leak().as_mut_ptr()) };
    if result >= 0 {
        log::redirect_bpf();
        return Ok(());
    }
    let errno = Errno::last();
    if errno == Errno::ALREADY {
        return Err(EalError::AlreadyInitialised);
    }
    // Made early on, and empty; it may not have come to that.
    let _ = fs::remove_dir(runtime_folder());
    Err(failure(errno, arguments, RecentLog::take()))
}

/// Names the reason where DPDK's words tell it.
fn failure(errno: Errno, arguments: &[String], log: RecentLog) -> EalError {
    let words = log.to_string();
    let is_memory = errno == Errno::NO_MEMORY
        || ["hugepage", "Cannot init memory", "Cannot init memzone", "not enough memory"]
            .iter()
            .any(|text| words.contains(text));
    if is_memory {
        let asked = arguments.windows(2).find(|pair| ["-m", "--socket-mem"].contains(&pair[0].as_str()));
        let asked = asked.map_or("hugepages as needed".to_owned(), |pair| format!("{} MB ({})", pair[1], pair[0]));
        return EalError::NoMemory { asked, free_megabytes: free_hugepage_megabytes(), log };
    }
    EalError::Failed { errno, arguments: arguments.to_vec(), log }
}

/// The EAL gives up where it knows no driver for a virtual device: says whose device that was.
fn name_port(error: EalError, devices: &[(&PortConfig, Vec<EalDevice>)]) -> EalError {
    let EalError::Failed { errno, arguments, log } = error else { return error };
    let words = log.to_string();
    let all = devices.iter().flat_map(|(port, devices)| {
        devices.iter().flat_map(EalDevice::with_members).map(move |device| (port, device, devices.len()))
    });
    let mut all = all.filter(|(_, device, _)| words.contains(device.name()));
    let Some((port, device, count)) = all.next() else { return EalError::Failed { errno, arguments, log } };
    let advice = advice(device, count);
    EalError::NoPort { port: port.name.clone(), device: device.devargs.clone(), advice, log }
}

/// Free hugepages of all sizes, as the kernel tells under /sys; 0 where it tells nothing.
fn free_hugepage_megabytes() -> u64 {
    let Ok(folders) = fs::read_dir("/sys/kernel/mm/hugepages") else { return 0 };
    let kilobytes = folders.flatten().filter_map(|folder| {
        let name = folder.file_name().into_string().ok()?;
        let size: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let free: u64 = fs::read_to_string(folder.path().join("free_hugepages")).ok()?.trim().parse().ok()?;
        Some(size.saturating_mul(free))
    });
    kilobytes.sum::<u64>() / 1024
}

/// Each device that was named became a port: the EAL itself goes on without those that did not.
fn check_present(port: &PortConfig, devices: &[EalDevice]) -> Result<(), EalError> {
    let mut all = devices.iter().flat_map(EalDevice::with_members);
    let Some(missing) = all.find(|device| ethdev::find(device.name()).is_none()) else { return Ok(()) };
    Err(EalError::NoPort {
        port: port.name.clone(),
        device: missing.devargs.clone(),
        advice: advice(missing, devices.len()),
        log: RecentLog::take(),
    })
}

fn advice(device: &EalDevice, queues: usize) -> String {
    if device.pci {
        let driver = fs::read_link(pci_folder(device.name()).join("driver")).ok();
        return match driver.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()) {
            None => "it is bound to no driver: bind it to vfio-pci (hugepage-setup does it)".to_owned(),
            Some(name @ ("vfio-pci" | "uio_pci_generic" | "igb_uio")) => {
                format!("it is bound to {name}, but DPDK has no driver for it, or may not open it")
            }
            Some(name) => format!("it is bound to the kernel's {name}: bind it to vfio-pci (hugepage-setup does it)"),
        };
    }
    match device.kernel_interface() {
        Some(interface) if queues > 1 => format!(
            "it wants {queues} queues of {interface} (one a worker unless `queues` says otherwise): make the interface \
             with as many (`ip link add ... numrxqueues {queues} numtxqueues {queues}`, `ethtool -L`), or use fewer workers"
        ),
        Some(interface) => {
            format!("DPDK could not take interface {interface}; it needs root or CAP_NET_RAW, CAP_NET_ADMIN")
        }
        None => {
            "its name must begin with a driver's (like net_tap, net_pcap, net_null) and its arguments be the driver's"
                .to_owned()
        }
    }
}

fn runtime_folder() -> PathBuf {
    // SAFETY: returns the EAL's own string, empty before it is up.
    PathBuf::from(text_of(unsafe { dpdk_sys::rte_eal_get_runtime_dir() }))
}

/// Removes the run-time folders, always empty, of gateways that were killed.
fn sweep(own: &Path) {
    let Some(parent) = own.parent() else { return };
    for folder in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = folder.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(FILE_PREFIX)).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = fs::remove_dir(folder.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::device::tests::port;
    use super::*;
    use crate::config::Device;

    fn vdev(devargs: &str) -> EalDevice {
        EalDevice { devargs: devargs.to_owned(), pci: false, members: Vec::new() }
    }

    #[test]
    fn a_lab_sees_its_vdevs_and_no_pci() {
        let dpdk = DpdkConfig { eal_args: ["--no-huge", "-m", "512"].map(str::to_owned).into(), mbufs: None };
        let arguments = arguments(&dpdk, &[vdev("net_null0"), vdev("net_tap0,iface=t")], &[0, 3], 77, None);
        assert_eq!(
            arguments.join(" "),
            "fullgate --no-telemetry --lcores 0@(0,3) --file-prefix fullgate-77 --log-level warning --vdev net_null0 \
             --vdev net_tap0,iface=t --no-pci --no-shconf --no-huge -m 512"
        );
    }

    #[test]
    fn an_appliance_sees_only_the_nics_named() {
        let nic = EalDevice { devargs: "0000:01:00.0".to_owned(), pci: true, members: Vec::new() };
        let arguments = arguments(&DpdkConfig::default(), &[nic], &[1], 77, Some("debug"));
        assert_eq!(
            arguments.join(" "),
            "fullgate --no-telemetry --lcores 0@(1) --file-prefix fullgate-77 --log-level *:debug \
             --allow 0000:01:00.0 --in-memory"
        );
    }

    #[test]
    fn log_levels() {
        assert_eq!(log_level(Some("lib.eal:debug")), "lib.eal:debug");
        assert_eq!(log_level(Some("")), "warning");
    }

    #[test]
    fn a_missing_interface_is_found_before_the_eal_starts() {
        let ports = [port("wan", Device::Vdev("net_af_xdp0,iface=nosuchiface0".to_owned()))];
        let error = devices_of(&ports, 1).unwrap_err().to_string();
        assert_eq!(
            error,
            "port \"wan\": device \"net_af_xdp0,iface=nosuchiface0\": there is no interface \"nosuchiface0\" in this \
             network namespace"
        );
        let ports = [port("wan", Device::Vdev("net_af_packet0,iface=lo".to_owned()))];
        assert!(devices_of(&ports, 1).is_ok());
    }

    #[test]
    fn missing_pci_and_doubled_devices_are_found_before_the_eal_starts() {
        let ports = [port("lan", Device::Pci("ffff:ff:1f.7".to_owned()))];
        assert!(devices_of(&ports, 1).unwrap_err().to_string().contains("no PCI device ffff:ff:1f.7"));
        let null = || Device::Vdev("net_null0".to_owned());
        let error = devices_of(&[port("a", null()), port("b", null())], 1).unwrap_err().to_string();
        assert_eq!(error, "ports \"a\" and \"b\" have the same device \"net_null0\": each port needs its own");
    }
}
