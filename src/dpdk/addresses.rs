//! Which frames a running port's devices take: for their own link-layer address, and for others beside it.

use dpdk_sys::rte_ether_addr;

use super::ethdev::{EthDevice, Failure, attempt};
use super::port::Port;
use super::port_error::PortError;
use crate::port::MacAddress;

/// How a port takes the frames that are for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFilter {
    /// The devices know its addresses.
    Exact,
    /// The devices cannot filter for them: they take all frames, and forwarding picks out.
    None,
}

impl Port {
    /// Gives the devices `own` as their address and has them take frames for `others` too.
    ///
    /// # Errors
    /// A device can neither do that nor take all frames.
    pub fn take_addresses(&self, own: MacAddress, others: &[MacAddress]) -> Result<AddressFilter, PortError> {
        let mut filter = AddressFilter::Exact;
        for device in self.devices() {
            if let Err(failure) = filter_for(device, own, others) {
                tracing::debug!("device {}: could not {failure}; it takes all frames", device.name());
                device.accept_addresses(true).map_err(|failure| self.failed(failure))?;
                filter = AddressFilter::None;
            }
        }
        Ok(filter)
    }

    /// Has the devices take frames for `address` no more, unless it is their own.
    pub fn leave_address(&self, address: MacAddress) {
        let address = ether(address);
        for device in self.devices() {
            let mut address = address;
            // SAFETY: the address is read during the call only.
            let result = unsafe { dpdk_sys::rte_eth_dev_mac_addr_remove(device.id(), &raw mut address) };
            if let Err(failure) = attempt("leave the address", result) {
                tracing::debug!("device {}: could not {failure}", device.name());
            }
        }
    }
}

fn filter_for(device: &EthDevice, own: MacAddress, others: &[MacAddress]) -> Result<(), Failure> {
    if device.mac()? != own {
        let mut address = ether(own);
        // SAFETY: the address is read during the call only.
        let result = unsafe { dpdk_sys::rte_eth_dev_default_mac_addr_set(device.id(), &raw mut address) };
        attempt("change the address", result)?;
    }
    for &other in others {
        let mut address = ether(other);
        // SAFETY: the address is read during the call only; pool 0 is the one of a device without such pools.
        let result = unsafe { dpdk_sys::rte_eth_dev_mac_addr_add(device.id(), &raw mut address, 0) };
        attempt("take one more address", result)?;
    }
    Ok(())
}

fn ether(address: MacAddress) -> rte_ether_addr {
    rte_ether_addr { addr_bytes: address.0 }
}
