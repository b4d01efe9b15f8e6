//! What `port.show` and the metrics say of the ports: their devices' words beside what the workers counted.

use std::sync::Arc;

use tokio::sync::watch;

use super::mirror::PortAddress;
use super::plane::PortReporter;
use super::ports::{Ports, RunningPort};
use super::protocol::PortRow;
use crate::config::Device;
use crate::dpdk::{Port, PortStats};
use crate::telemetry::counters::{Counter, PortCounters, WorkerCounters};

/// The ports of a running gateway.
#[derive(Debug)]
pub struct OpenPorts {
    ports: Arc<Ports>,
    workers: Vec<Arc<WorkerCounters>>,
    addresses: watch::Receiver<Vec<PortAddress>>,
}

impl OpenPorts {
    /// These ports with what these workers count and the addresses of their TAPs.
    pub fn new(
        ports: Arc<Ports>,
        workers: Vec<Arc<WorkerCounters>>,
        addresses: watch::Receiver<Vec<PortAddress>>,
    ) -> Self {
        Self { ports, workers, addresses }
    }

    fn row(&self, port: RunningPort<'_>) -> PortRow {
        let RunningPort { id, config, owner, device, .. } = port;
        let counted = |counter: fn(&PortCounters) -> &Counter| {
            self.workers.iter().map(|worker| counter(&worker.ports[id.index()]).get()).sum()
        };
        // A device that cannot say is shown as one whose link is down and that counted nothing.
        let link = device.link().ok();
        let (stats, xstats) = if port.is_owner() { own_counts(device) } else { Default::default() };
        let addresses = self.addresses.borrow();
        let own = addresses.iter().filter(|address| address.port == id).map(ToString::to_string);
        PortRow {
            name: config.name.clone(),
            device: match &config.device {
                Device::Pci(text) | Device::Vdev(text) => text.clone(),
                Device::Parent(_) => owner.name.clone(),
            },
            vlan: config.vlan.map(|vlan| vlan.number()),
            parent: (!port.is_owner()).then(|| owner.name.clone()),
            members: device.members().map(|(name, up)| (name.to_owned(), up)).collect(),
            driver: device.driver().to_owned(),
            tap: config.tap.clone(),
            addresses: own.collect(),
            mac: self.ports.mac(id).to_string(),
            mtu: port.mtu().unwrap_or(0),
            link_up: link.is_some_and(|link| link.up),
            link_speed_mbps: link.map_or(0, |link| link.speed_mbps),
            rx_queues: device.rx_queues(),
            tx_queues: device.tx_queues(),
            steering: self.ports.steering(device).to_string(),
            ownership: device.ownership().name().to_owned(),
            ownership_reason: device.ownership().reason().map(ToString::to_string),
            offloads: device.offloads().iter().map(ToString::to_string).collect(),
            rx_packets: counted(|port| &port.received.packets),
            rx_bytes: counted(|port| &port.received.bytes),
            tx_packets: counted(|port| &port.transmitted.packets),
            tx_bytes: counted(|port| &port.transmitted.bytes),
            rx_missed: stats.rx_missed + stats.rx_nombuf,
            rx_errors: stats.rx_errors,
            tx_errors: stats.tx_errors,
            handovers: counted(|port| &port.handed_over),
            xstats,
        }
    }
}

/// What the device itself has counted; of its own counters those that are not 0.
fn own_counts(device: &Port) -> (PortStats, Vec<(String, u64)>) {
    let mut xstats = device.xstats().unwrap_or_default();
    xstats.retain(|(_, value)| *value != 0);
    (device.stats().unwrap_or_default(), xstats)
}

impl PortReporter for OpenPorts {
    fn rows(&self) -> Vec<PortRow> {
        self.ports.iter().map(|port| self.row(port)).collect()
    }
}
