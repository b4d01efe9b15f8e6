//! A port of the gateway, open: its devices configured by what they offer, started, and dealt to the workers.
//!
//! Every worker can send by every port; receive queues are dealt to the workers in turn.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::MemPool;
use super::device::{self, EalDevice};
use super::ethdev::{self, Capabilities, EthDevice, Failure, NO_DEVICE};
use super::log::{self, RecentLog};
use super::plan::{self, Plan};
use super::port_error::PortError;
use super::queue::{DeviceQueue, Habits, Queue};
use super::rss::{self, PortOwnership, Steering};
use crate::config::PortConfig;
use crate::flow::rss::RssKey;
use crate::port::{MacAddress, PortId};

/// After a failure to bring an AF_XDP device up it is made anew after each of these pauses: the kernel tears down the
/// sockets of a former owner of its interface after that has ended, in some 50 ms. Few, because the driver (22.11)
/// loses the buffers of a fill ring with each failure.
const AF_XDP_PAUSES: [Duration; 3] = [Duration::from_millis(20), Duration::from_millis(60), Duration::from_millis(120)];

/// The driver does not pass the reason on.
const AF_XDP_HINT: &str = " (another process may have the interface, or it has no such queue, or its MTU is too large \
                           for XDP)";

/// Between two looks at the link.
const PAUSE: Duration = Duration::from_millis(10);

/// State of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether it is up.
    pub up: bool,
    /// In Mbit/s; 0: unknown.
    pub speed_mbps: u32,
}

/// What went wrong on a port since it was opened, by the device's count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets that the device missed for want of descriptors.
    pub rx_missed: u64,
    /// Packets received with errors.
    pub rx_errors: u64,
    /// Packets that the device failed to send.
    pub tx_errors: u64,
    /// Packets that were not received for want of buffers.
    pub rx_nombuf: u64,
}

/// An open port. Closed when this and all its queues are dropped. Its methods may be called while workers poll.
#[derive(Debug)]
pub struct Port {
    id: PortId,
    name: String,
    driver: String,
    interface: u32,
    mac: MacAddress,
    rx_queues: u16,
    tx_queues: u16,
    steering: Steering,
    ownership: PortOwnership,
    offloads: Vec<&'static str>,
    /// Empty once it is closed.
    devices: Arc<[EthDevice]>,
}

/// Makes errors about one port.
struct Context<'a> {
    port: &'a PortConfig,
}

impl Context<'_> {
    fn failed(&self, failure: Failure) -> PortError {
        let (port, device) = (self.port.name.clone(), device::text(self.port).to_owned());
        let Failure { operation, errno } = failure;
        let is_af_xdp_socket = device::is_vdev_of(self.port, device::AF_XDP) && operation == ethdev::SET_UP_RX_QUEUE;
        let hint = if is_af_xdp_socket { AF_XDP_HINT } else { "" };
        PortError::Device { port, device, operation, errno, hint, log: RecentLog::take() }
    }
}

impl Port {
    /// Opens the port and gives each of `workers` its queue, in their order; waits for the link as configured. `key` is
    /// the same for all ports.
    pub fn open(
        config: &PortConfig,
        id: PortId,
        workers: u16,
        pool: &MemPool,
        key: &RssKey,
    ) -> Result<(Self, Vec<Queue>), PortError> {
        log::forget();
        let context = Context { port: config };
        let Running { devices, capabilities, plan } = start(&context, workers, pool, key)?;
        let first = devices.first().ok_or_else(|| context.failed(NO_DEVICE))?;
        let mac = first.mac().map_err(|failure| context.failed(failure))?;
        let (steering, ownership) = rss::deal_flows(first, config, &plan, &capabilities.driver, workers);
        let count = u16::try_from(devices.len()).unwrap_or(u16::MAX);
        let port = Self {
            id,
            name: config.name.clone(),
            driver: capabilities.driver,
            interface: capabilities.interface,
            mac,
            rx_queues: plan.settings.rx_queues * count,
            tx_queues: plan.settings.tx_queues * count,
            steering,
            ownership,
            offloads: plan::offload_names(&plan.settings, steering),
            devices: devices.into(),
        };
        port.check_mtu(config);
        port.wait_for_link(config)?;
        let queues = port.deal(&plan, workers, habits(config));
        Ok((port, queues))
    }

    /// The port's index.
    pub fn id(&self) -> PortId {
        self.id
    }

    /// The port's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The driver's name.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// The port's link-layer address.
    pub fn mac(&self) -> MacAddress {
        self.mac
    }

    /// Receive queues, over all workers.
    pub fn rx_queues(&self) -> u16 {
        self.rx_queues
    }

    /// Transmit queues, over all workers.
    pub fn tx_queues(&self) -> u16 {
        self.tx_queues
    }

    /// How a client's packets find their worker.
    pub fn steering(&self) -> Steering {
        self.steering
    }

    /// How answers to local addresses find their worker.
    pub fn ownership(&self) -> &PortOwnership {
        &self.ownership
    }

    /// Offloads in use, by name.
    pub fn offloads(&self) -> &[&'static str] {
        &self.offloads
    }

    /// The MTU in effect, in bytes of an IP packet.
    pub fn mtu(&self) -> Result<u16, PortError> {
        self.devices.first().map_or(Ok(0), |device| device.mtu(self.interface)).map_err(|failure| self.failed(failure))
    }

    /// Asks for an MTU and returns the one then in effect, which is another where the device keeps its own.
    pub fn set_mtu(&self, mtu: u16) -> Result<u16, PortError> {
        let mut devices = self.devices.iter();
        devices.try_for_each(|device| device.set_mtu(mtu)).map_err(|failure| self.failed(failure))?;
        self.mtu()
    }

    /// State of the link: up where all devices of the port are.
    pub fn link(&self) -> Result<Link, PortError> {
        let mut link = Link { up: !self.devices.is_empty(), speed_mbps: 0 };
        for device in self.devices.iter() {
            let (up, speed_mbps) = device.link(self.interface).map_err(|failure| self.failed(failure))?;
            let members = device.members();
            let up = up && (members.is_empty() || members.iter().any(EthDevice::has_link));
            link = Link { up: link.up && up, speed_mbps };
        }
        Ok(link)
    }

    /// Errors that the device counted.
    pub fn stats(&self) -> Result<PortStats, PortError> {
        let mut total = PortStats::default();
        for device in self.devices.iter() {
            let stats = device.stats().map_err(|failure| self.failed(failure))?;
            total.rx_missed += stats.imissed;
            total.rx_errors += stats.ierrors;
            total.tx_errors += stats.oerrors;
            total.rx_nombuf += stats.rx_nombuf;
        }
        Ok(total)
    }

    /// The device's own counters by its names for them, summed over the devices of the port.
    pub fn xstats(&self) -> Result<Vec<(String, u64)>, PortError> {
        let mut total: Vec<(String, u64)> = Vec::new();
        for device in self.devices.iter() {
            for (name, value) in device.xstats().map_err(|failure| self.failed(failure))? {
                match total.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, sum)) => *sum += value,
                    None => total.push((name, value)),
                }
            }
        }
        Ok(total)
    }

    /// Stops and closes the port, unless workers still have queues of it. A closed port stays closed; its link is
    /// down and its counters are 0.
    pub fn close(&mut self) -> Result<(), PortError> {
        let queues = Arc::strong_count(&self.devices) - 1;
        if !self.devices.is_empty() && queues != 0 {
            return Err(PortError::InUse { port: self.name.clone(), queues });
        }
        self.devices = Arc::new([]);
        Ok(())
    }

    pub(super) fn devices(&self) -> &[EthDevice] {
        &self.devices
    }

    pub(super) fn failed(&self, failure: Failure) -> PortError {
        let device = self.devices.first().map_or("", EthDevice::name).to_owned();
        let Failure { operation, errno } = failure;
        PortError::Device { port: self.name.clone(), device, operation, errno, hint: "", log: RecentLog::default() }
    }

    fn check_mtu(&self, config: &PortConfig) {
        if let (Some(wanted), Ok(mtu)) = (config.mtu, self.mtu())
            && mtu != wanted
        {
            tracing::warn!("port {}: MTU {wanted} is configured, but the device keeps {mtu}", self.name);
        }
    }

    fn wait_for_link(&self, config: &PortConfig) -> Result<(), PortError> {
        let waited_milliseconds = config.link_timeout_milliseconds;
        if waited_milliseconds == 0 {
            return Ok(());
        }
        let deadline = Instant::now() + Duration::from_millis(waited_milliseconds.into());
        while !self.link()?.up {
            if Instant::now() >= deadline {
                let (port, device) = (self.name.clone(), device::text(config).to_owned());
                return Err(PortError::NoLink { port, device, waited_milliseconds });
            }
            sleep(PAUSE);
        }
        Ok(())
    }

    /// Deals the device queues to the workers. Called once.
    fn deal(&self, plan: &Plan, workers: u16, habits: Habits) -> Vec<Queue> {
        let all = |queues: u16| -> Vec<DeviceQueue> {
            let of = |device: &EthDevice| {
                let device = device.id();
                (0..queues).map(move |queue| DeviceQueue { device, queue })
            };
            self.devices.iter().flat_map(of).collect()
        };
        let (sources, sinks) = (all(plan.settings.rx_queues), all(plan.settings.tx_queues));
        let deal = |(worker, sink): (usize, &DeviceQueue)| {
            let sources = sources.iter().copied().skip(worker).step_by(usize::from(workers)).collect();
            // SAFETY: the devices are started; each source goes to one worker and so does each sink.
            unsafe { Queue::new(sources, *sink, habits, Arc::clone(&self.devices)) }
        };
        sinks.iter().take(usize::from(workers)).enumerate().map(deal).collect()
    }
}

/// A port's devices, started, and what they offer and were asked.
struct Running {
    devices: Vec<EthDevice>,
    capabilities: Capabilities,
    plan: Plan,
}

/// Claims, configures and starts the devices of a port.
fn start(context: &Context<'_>, workers: u16, pool: &MemPool, key: &RssKey) -> Result<Running, PortError> {
    let config = context.port;
    let failed = |failure| context.failed(failure);
    let sources = device::eal_devices(config, workers);
    let claimed = sources.iter().map(|source| EthDevice::claim(source, pool));
    let claimed: Vec<EthDevice> = claimed.collect::<Result<_, _>>().map_err(failed)?;
    let first = claimed.first().ok_or_else(|| failed(NO_DEVICE))?;
    let capabilities = first.capabilities().map_err(failed)?;
    let own_mtu = kernel_mtu(first, capabilities.interface).map_err(failed)?;
    let count = u16::try_from(claimed.len()).unwrap_or(u16::MAX);
    let plan = plan::plan(config, &capabilities, own_mtu, workers, count, pool.room(), key)?;
    let driver = &capabilities.driver;
    let devices = claimed.into_iter().zip(&sources);
    let devices = devices.map(|(device, source)| bring_up_patiently(device, source, config, &plan, driver, pool));
    let devices = devices.collect::<Result<_, _>>().map_err(failed)?;
    Ok(Running { devices, capabilities, plan })
}

fn habits(config: &PortConfig) -> Habits {
    Habits {
        // The kernel takes tags off before it gives frames to a packet socket, and the driver passes them on beside.
        strips_tags: device::is_vdev_of(config, device::AF_PACKET),
        speaks_lacp: device::speaks_lacp(config),
    }
}

/// The MTU of the kernel interface behind the device; none where there is none.
fn kernel_mtu(device: &EthDevice, interface: u32) -> Result<Option<u16>, Failure> {
    if interface == 0 { Ok(None) } else { device.mtu(interface).map(Some) }
}

/// Configures and starts a device.
fn bring_up(device: &EthDevice, config: &PortConfig, plan: &Plan) -> Result<(), Failure> {
    device.configure(&plan.settings)?;
    device.start()?;
    if let Some(mtu) = plan.set_mtu {
        device.set_mtu(mtu)?;
    }
    device.accept_addresses(config.promiscuous)
}

/// Brings a device up; tries again where a former owner may still be in the way.
fn bring_up_patiently(
    mut device: EthDevice,
    source: &EalDevice,
    config: &PortConfig,
    plan: &Plan,
    driver: &str,
    pool: &MemPool,
) -> Result<EthDevice, Failure> {
    let pauses: &[Duration] = if driver == device::AF_XDP { &AF_XDP_PAUSES } else { &[] };
    for pause in pauses {
        let Err(failure) = bring_up(&device, config, plan) else { return Ok(device) };
        tracing::debug!("device {}: could not {failure}; trying again", device.name());
        // The driver's state is spoilt by the failure: only a new device can succeed.
        drop(device);
        sleep(*pause);
        log::forget();
        device = EthDevice::claim(source, pool)?;
    }
    bring_up(&device, config, plan).map(|()| device)
}
