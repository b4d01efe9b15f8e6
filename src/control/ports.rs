//! The gateway's ports as they run: those that have a device, and those that are VLANs of another's.

use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{Config, Device, PortConfig};
use crate::dpdk::{AddressFilter, Port, PortError, Steering};
use crate::port::{MacAddress, PortId, PortPlace};

/// All ports.
#[derive(Debug)]
pub struct Ports {
    /// In the order of the configuration.
    devices: Vec<Port>,
    /// By port.
    places: Vec<PortPlace>,
    /// By port.
    macs: Mutex<Vec<MacAddress>>,
    config: Arc<Config>,
}

/// One port.
#[derive(Clone, Copy, Debug)]
pub struct RunningPort<'a> {
    /// Its index.
    pub id: PortId,
    /// What it is configured to be.
    pub config: &'a PortConfig,
    /// The same of the port that has the device: this one or its parent.
    pub owner: &'a PortConfig,
    /// Where it is.
    pub place: PortPlace,
    /// The device.
    pub device: &'a Port,
}

impl Ports {
    /// The ports of a configuration, whose devices are open: those ports' that have one, in their order.
    pub fn new(devices: Vec<Port>, config: Arc<Config>) -> Self {
        let places = places(&config.ports);
        let mac = |place: &PortPlace| devices.get(place.device).map(Port::mac).unwrap_or_default();
        let macs = Mutex::new(places.iter().map(mac).collect());
        Self { devices, places, macs, config }
    }

    /// Where each port is.
    pub fn places(&self) -> &[PortPlace] {
        &self.places
    }

    /// All ports, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = RunningPort<'_>> {
        let ports = (0..).map(PortId).zip(&self.config.ports).zip(&self.places);
        ports.filter_map(|((id, config), &place)| {
            let owner = self.config.ports.get(place.owner.index())?;
            Some(RunningPort { id, config, owner, place, device: self.devices.get(place.device)? })
        })
    }

    /// A port's link-layer address: its TAP's, and at first its device's.
    pub fn mac(&self, port: PortId) -> MacAddress {
        self.macs.lock().unwrap_or_else(PoisonError::into_inner).get(port.index()).copied().unwrap_or_default()
    }

    /// Gives a port the address that its TAP has now, and its device the addresses of all of its ports. None: it had it
    /// already.
    ///
    /// # Errors
    /// The device takes no frames for it.
    pub fn set_mac(&self, port: &RunningPort<'_>, mac: MacAddress) -> Result<Option<AddressFilter>, PortError> {
        let mut macs = self.macs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = macs.get_mut(port.id.index()).filter(|known| **known != mac) else { return Ok(None) };
        let previous = std::mem::replace(slot, mac);
        let own = macs.get(port.place.owner.index()).copied().unwrap_or(mac);
        let same_device = self.places.iter().zip(macs.iter()).filter(|(place, _)| place.device == port.place.device);
        let others: Vec<_> = same_device.map(|(_, mac)| *mac).filter(|mac| *mac != own).collect();
        let filter = port.device.take_addresses(own, &others)?;
        if previous != own && !others.contains(&previous) {
            port.device.leave_address(previous);
        }
        Ok(Some(filter))
    }

    /// How packets of a device really find their worker. A client's flow may move between ports (two uplinks, a changed
    /// path) and must stay with its worker: so the devices' own choice counts only where all of them make the same one.
    pub fn steering(&self, device: &Port) -> Steering {
        let same = |other: &Port| other.steering() == Steering::Rss && other.rx_queues() == device.rx_queues();
        let differs = device.steering() == Steering::Rss && !self.devices.iter().all(same);
        if differs { Steering::Software } else { device.steering() }
    }
}

impl RunningPort<'_> {
    /// Whether it has the device, and does not share a parent's.
    pub fn is_owner(&self) -> bool {
        self.place.owner == self.id
    }

    /// Its MTU: a VLAN's may be smaller than its parent's.
    ///
    /// # Errors
    /// The device did not say.
    pub fn mtu(&self) -> Result<u16, PortError> {
        let most = self.device.mtu()?;
        Ok(self.config.mtu.filter(|_| !self.is_owner()).map_or(most, |mtu| mtu.min(most)))
    }
}

fn places(ports: &[PortConfig]) -> Vec<PortPlace> {
    let has_device = |port: &PortConfig| !matches!(port.device, Device::Parent(_));
    let place = |(id, port): (PortId, &PortConfig)| {
        let owner = match port.device {
            Device::Parent(parent) => parent,
            Device::Pci(_) | Device::Vdev(_) => id,
        };
        let device = ports.iter().take(owner.index()).filter(|port| has_device(port)).count();
        PortPlace { device, owner, vlan: port.vlan }
    };
    (0..).map(PortId).zip(ports).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::VlanId;

    #[test]
    fn vlans_are_on_their_parents_devices_wherever_these_stand() {
        let text = "[worker]\ncores = [0]\n\
            [[port]]\nname = \"v\"\nparent = \"b\"\nvlan = 7\n[[port]]\nname = \"a\"\ndevice = \"net_null0\"\nvlan = 5\n\
            [[port]]\nname = \"b\"\ndevice = \"net_null1\"\n[[port]]\nname = \"w\"\nparent = \"b\"\nvlan = 8\n";
        let config = Config::parse(text, "f").unwrap_or_else(|errors| panic!("{errors:?}"));
        let place = |device, owner, vlan| PortPlace { device, owner: PortId(owner), vlan: VlanId::new(vlan) };
        assert_eq!(places(&config.ports), [place(1, 2, 7), place(0, 1, 5), place(1, 2, 0), place(1, 2, 8)]);
    }
}
