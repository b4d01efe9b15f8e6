//! What `port.show` and the metrics say of the ports: their devices' words beside what the workers counted.

use std::sync::Arc;

use tokio::sync::watch;

use super::data_plane::effective_steering;
use super::mirror::PortAddress;
use super::plane::PortReporter;
use super::protocol::PortRow;
use crate::config::{Config, Device, PortConfig};
use crate::dpdk::Port;
use crate::telemetry::counters::{Counter, PortCounters, WorkerCounters};

/// The ports of a running gateway.
#[derive(Debug)]
pub struct OpenPorts {
    ports: Arc<[Port]>,
    config: Arc<Config>,
    workers: Vec<Arc<WorkerCounters>>,
    addresses: watch::Receiver<Vec<PortAddress>>,
}

impl OpenPorts {
    /// These ports, in the order of the configuration, with what these workers count and the addresses of their TAPs.
    pub fn new(
        ports: Arc<[Port]>,
        config: Arc<Config>,
        workers: Vec<Arc<WorkerCounters>>,
        addresses: watch::Receiver<Vec<PortAddress>>,
    ) -> Self {
        Self { ports, config, workers, addresses }
    }

    fn row(&self, port: &Port, config: &PortConfig) -> PortRow {
        let counted = |counter: fn(&PortCounters) -> &Counter| {
            self.workers.iter().map(|worker| counter(&worker.ports[port.id().index()]).get()).sum()
        };
        // A device that cannot say is shown as one whose link is down and that counted nothing.
        let link = port.link().ok();
        let stats = port.stats().unwrap_or_default();
        let addresses = self.addresses.borrow();
        let own = addresses.iter().filter(|address| address.port == port.id()).map(ToString::to_string);
        let mut xstats = port.xstats().unwrap_or_default();
        xstats.retain(|(_, value)| *value != 0);
        PortRow {
            name: config.name.clone(),
            device: match &config.device {
                Device::Pci(text) | Device::Vdev(text) => text.clone(),
            },
            driver: port.driver().to_owned(),
            tap: config.tap.clone(),
            addresses: own.collect(),
            mac: port.mac().to_string(),
            mtu: port.mtu().unwrap_or(0),
            link_up: link.is_some_and(|link| link.up),
            link_speed_mbps: link.map_or(0, |link| link.speed_mbps),
            rx_queues: port.rx_queues(),
            tx_queues: port.tx_queues(),
            steering: effective_steering(&self.ports, port).to_string(),
            ownership: port.ownership().name().to_owned(),
            ownership_reason: port.ownership().reason().map(ToString::to_string),
            offloads: port.offloads().iter().map(ToString::to_string).collect(),
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

impl PortReporter for OpenPorts {
    fn rows(&self) -> Vec<PortRow> {
        self.ports.iter().zip(&self.config.ports).map(|(port, config)| self.row(port, config)).collect()
    }
}
