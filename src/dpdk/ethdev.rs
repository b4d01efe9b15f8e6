//! One DPDK Ethernet device, claimed: DPDK's `rte_eth_*` calls with owned results. What to ask of a device is decided
//! in [`super::port`].
//!
//! Invariant: a device has one owner; it is stopped, closed and removed when its owner is dropped.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use dpdk_sys::{
    DPDK_SHIM_MAX_ETHPORTS, DPDK_SHIM_MQ_RX_NONE, DPDK_SHIM_MQ_RX_RSS, rte_device, rte_eth_conf, rte_eth_dev_info,
    rte_eth_rss_conf, rte_eth_rss_reta_entry64, rte_eth_stats, rte_eth_xstat, rte_eth_xstat_name, rte_ether_addr,
};

use super::device::EalDevice;
use super::eal::text_of;
use super::{Errno, MemPool};
use crate::port::MacAddress;

/// Any NUMA node (SOCKET_ID_ANY).
const ANY_SOCKET: u32 = u32::MAX;

/// What failed where a receive queue could not be had.
pub(super) const SET_UP_RX_QUEUE: &str = "set up a receive queue";

static CLAIMED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A call to a device that failed: what was attempted, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {errno}")]
pub(super) struct Failure {
    pub(super) operation: &'static str,
    pub(super) errno: Errno,
}

/// A device that should be there is not.
pub(super) const NO_DEVICE: Failure = Failure { operation: "find the device", errno: Errno::NO_DEVICE };

/// Gives a result of DPDK the name of what was attempted.
pub(super) fn attempt(operation: &'static str, result: i32) -> Result<i32, Failure> {
    Errno::check(result).map_err(|errno| Failure { operation, errno })
}

/// What a device offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// The driver, by ethdev's name for it.
    pub(super) driver: String,
    /// Index of the kernel interface behind it; 0: none.
    pub(super) interface: u32,
    pub(super) max_rx_queues: u16,
    pub(super) max_tx_queues: u16,
    pub(super) min_mtu: u16,
    pub(super) max_mtu: u16,
    /// RTE_ETH_RX_OFFLOAD_*
    pub(super) rx_offloads: u64,
    /// RTE_ETH_TX_OFFLOAD_*
    pub(super) tx_offloads: u64,
    /// RTE_ETH_RSS_*
    pub(super) rss_flows: u64,
    /// Entries of the redirection table; 0: none.
    pub(super) reta_size: u16,
    /// Bytes of the RSS key; 0: the driver does not say.
    pub(super) key_size: u8,
}

/// What a device hashes, and by which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RssHash {
    pub(super) key: Vec<u8>,
    /// RTE_ETH_RSS_*
    pub(super) flows: u64,
}

/// What is asked of a device, within what it offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) rx_queues: u16,
    pub(super) tx_queues: u16,
    pub(super) rx_descriptors: u16,
    pub(super) tx_descriptors: u16,
    /// 0: the device's own.
    pub(super) mtu: u16,
    /// RTE_ETH_RX_OFFLOAD_*
    pub(super) rx_offloads: u64,
    /// RTE_ETH_TX_OFFLOAD_*
    pub(super) tx_offloads: u64,
    /// RTE_ETH_RSS_*; 0: no RSS.
    pub(super) rss_flows: u64,
    /// The RSS key; empty: the driver's own.
    pub(super) rss_key: Vec<u8>,
}

/// A claimed device.
#[derive(Debug)]
pub(super) struct EthDevice {
    id: u16,
    name: String,
    /// Receive queues take their buffers from it: it must outlive the device.
    pool: MemPool,
    /// Of a bond. They are closed after it.
    members: Vec<EthDevice>,
}

/// The number of the device called `name`; none where there is none.
pub(super) fn find(name: &str) -> Option<u16> {
    let mut id = 0;
    loop {
        // SAFETY: takes any number; gives one past the last device at the end.
        id = unsafe { dpdk_sys::rte_eth_find_next(id) };
        if id >= DPDK_SHIM_MAX_ETHPORTS {
            return None;
        }
        if rte_device_of(id).is_some_and(|device| name_of(device) == name) {
            return Some(id);
        }
        id += 1;
    }
}

fn raw_info(id: u16) -> Result<rte_eth_dev_info, Failure> {
    let mut info = rte_eth_dev_info::default();
    // SAFETY: fills `info`; fails for a device that does not exist.
    attempt("read what the device offers", unsafe { dpdk_sys::rte_eth_dev_info_get(id, &raw mut info) })?;
    Ok(info)
}

fn rte_device_of(id: u16) -> Option<NonNull<rte_device>> {
    NonNull::new(raw_info(id).ok()?.device)
}

fn name_of(device: NonNull<rte_device>) -> String {
    // SAFETY: a device of the EAL, which exists until it is removed.
    text_of(unsafe { dpdk_sys::rte_dev_name(device.as_ptr()) })
}

impl EthDevice {
    /// Claims a device that the EAL made. One that was closed before is made again.
    pub(super) fn claim(source: &EalDevice, pool: &MemPool) -> Result<Self, Failure> {
        let name = source.name();
        let members = source.members.iter().map(|member| Self::claim(member, pool)).collect::<Result<_, _>>()?;
        let id = match find(name) {
            Some(id) => id,
            None => {
                let argument = CString::new(source.devargs.as_str()).map_err(|_| NO_DEVICE)?;
                // SAFETY: a C string, which DPDK copies; the EAL is up, for there is a pool.
                attempt("make the device", unsafe { dpdk_sys::rte_dev_probe(argument.as_ptr()) })?;
                find(name).ok_or(NO_DEVICE)?
            }
        };
        if !CLAIMED.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            return Err(Failure { operation: "claim the device", errno: Errno::BUSY });
        }
        let device = Self { id, name: name.to_owned(), pool: pool.clone(), members };
        device.join_members()?;
        Ok(device)
    }

    /// Has a bond take its members, which it does when it is configured first: only then does it know what it offers.
    fn join_members(&self) -> Result<(), Failure> {
        if self.members.is_empty() {
            return Ok(());
        }
        let conf = rte_eth_conf::default();
        // SAFETY: `conf` is read during the call only.
        attempt("join its members", unsafe { dpdk_sys::rte_eth_dev_configure(self.id, 1, 1, &raw const conf) })
            .map(|_| ())
    }

    /// What it is a bond of.
    pub(super) fn members(&self) -> &[Self] {
        &self.members
    }

    /// DPDK's number of the device.
    pub(super) fn id(&self) -> u16 {
        self.id
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn capabilities(&self) -> Result<Capabilities, Failure> {
        let info = raw_info(self.id)?;
        Ok(Capabilities {
            driver: text_of(info.driver_name),
            interface: info.if_index,
            max_rx_queues: info.max_rx_queues,
            max_tx_queues: info.max_tx_queues,
            min_mtu: info.min_mtu,
            max_mtu: info.max_mtu,
            rx_offloads: info.rx_offload_capa,
            tx_offloads: info.tx_offload_capa,
            rss_flows: info.flow_type_rss_offloads,
            reta_size: info.reta_size,
            key_size: info.hash_key_size,
        })
    }

    /// Configures the stopped device and its queues. One that does not take the RSS key keeps its own.
    pub(super) fn configure(&self, settings: &Settings) -> Result<(), Failure> {
        if let Err(failure) = self.configure_ports(settings, settings.rss_key.clone()) {
            if settings.rss_key.is_empty() {
                return Err(failure);
            }
            self.configure_ports(settings, Vec::new())?;
            tracing::info!("device {}: could not {failure} with an RSS key; the driver's stays", self.name);
        }
        let (mut rx_descriptors, mut tx_descriptors) = (settings.rx_descriptors, settings.tx_descriptors);
        // SAFETY: changes the two numbers to what the device takes.
        let result = unsafe {
            dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &raw mut rx_descriptors, &raw mut tx_descriptors)
        };
        attempt("adjust the descriptors", result)?;
        (0..settings.rx_queues).try_for_each(|queue| self.set_up_rx_queue(queue, rx_descriptors))?;
        (0..settings.tx_queues).try_for_each(|queue| self.set_up_tx_queue(queue, tx_descriptors))
    }

    /// Configures the device alone, with this RSS key, or its own if that is empty.
    fn configure_ports(&self, settings: &Settings, mut key: Vec<u8>) -> Result<(), Failure> {
        let mut conf = rte_eth_conf::default();
        conf.rxmode.mtu = u32::from(settings.mtu);
        conf.rxmode.offloads = settings.rx_offloads;
        conf.txmode.offloads = settings.tx_offloads;
        conf.rxmode.mq_mode = if settings.rss_flows == 0 { DPDK_SHIM_MQ_RX_NONE } else { DPDK_SHIM_MQ_RX_RSS };
        conf.rx_adv_conf.rss_conf.rss_hf = settings.rss_flows;
        if !key.is_empty() {
            conf.rx_adv_conf.rss_conf.rss_key = key.as_mut_ptr();
            conf.rx_adv_conf.rss_conf.rss_key_len = u8::try_from(key.len()).unwrap_or(u8::MAX);
        }
        let (rx, tx) = (settings.rx_queues, settings.tx_queues);
        // SAFETY: `conf` is read during the call only, and so is its one pointer, the RSS key, which is null, for the
        // driver's own, or of the length given.
        attempt("configure", unsafe { dpdk_sys::rte_eth_dev_configure(self.id, rx, tx, &raw const conf) }).map(|_| ())
    }

    fn set_up_rx_queue(&self, queue: u16, descriptors: u16) -> Result<(), Failure> {
        let (defaults, pool) = (std::ptr::null(), self.pool.as_ptr());
        // SAFETY: the pool lives as long as the device (see the field); a null configuration means the defaults.
        let result =
            unsafe { dpdk_sys::rte_eth_rx_queue_setup(self.id, queue, descriptors, ANY_SOCKET, defaults, pool) };
        attempt(SET_UP_RX_QUEUE, result).map(|_| ())
    }

    fn set_up_tx_queue(&self, queue: u16, descriptors: u16) -> Result<(), Failure> {
        let defaults = std::ptr::null();
        // SAFETY: a null configuration means the defaults.
        let result = unsafe { dpdk_sys::rte_eth_tx_queue_setup(self.id, queue, descriptors, ANY_SOCKET, defaults) };
        attempt("set up a transmit queue", result).map(|_| ())
    }

    pub(super) fn start(&self) -> Result<(), Failure> {
        // SAFETY: the device is ours; fails where it is not configured.
        attempt("start", unsafe { dpdk_sys::rte_eth_dev_start(self.id) }).map(|_| ())
    }

    /// Deals the redirection table's `entries` to `queues` in turn.
    pub(super) fn spread(&self, entries: u16, queues: u16) -> Result<(), Failure> {
        let mut table = redirection_table(entries, queues);
        // SAFETY: the table has `entries` entries, in groups of 64, and is read during the call only.
        let result = unsafe { dpdk_sys::rte_eth_dev_rss_reta_update(self.id, table.as_mut_ptr(), entries) };
        attempt("set the redirection table", result).map(|_| ())
    }

    /// The redirection table as it is: a queue for each of its `entries`.
    pub(super) fn redirection_table(&self, entries: u16) -> Result<Vec<u16>, Failure> {
        // All groups are asked for.
        let mut table = redirection_table(entries, 1);
        // SAFETY: the table has `entries` entries, in groups of 64, which are filled.
        let result = unsafe { dpdk_sys::rte_eth_dev_rss_reta_query(self.id, table.as_mut_ptr(), entries) };
        attempt("tell its redirection table", result)?;
        Ok(table.iter().flat_map(|group| group.reta).take(entries.into()).collect())
    }

    /// What the device hashes, with a key of so many bytes.
    pub(super) fn rss_hash(&self, key_size: u8) -> Result<RssHash, Failure> {
        // Room for the longest that there may be, whatever was said.
        let mut key = vec![0; usize::from(u8::MAX)];
        let mut conf = rte_eth_rss_conf { rss_key: key.as_mut_ptr(), rss_key_len: key_size, ..Default::default() };
        // SAFETY: fills `conf` and the key that it points to, which has room for any length that a driver can give.
        let result = unsafe { dpdk_sys::rte_eth_dev_rss_hash_conf_get(self.id, &raw mut conf) };
        attempt("tell its RSS key", result)?;
        key.truncate(conf.rss_key_len.into());
        Ok(RssHash { key, flows: conf.rss_hf })
    }

    /// Every MAC address where `all`, and in any case every multicast group. Devices that do not filter, and so
    /// have no such switch, are as wanted.
    pub(super) fn accept_addresses(&self, all: bool) -> Result<(), Failure> {
        let tolerant = |result: Result<i32, Failure>| match result {
            Err(Failure { errno: Errno::NOT_SUPPORTED, .. }) | Ok(_) => Ok(()),
            Err(failure) => Err(failure),
        };
        // SAFETY: the device is ours.
        let multicast = attempt("accept multicast", unsafe { dpdk_sys::rte_eth_allmulticast_enable(self.id) });
        // A bond filters by itself: where its members have no such switch, it must take all.
        let all = all || (!self.members.is_empty() && multicast.is_err());
        tolerant(multicast)?;
        if all {
            // SAFETY: the device is ours.
            tolerant(attempt("be promiscuous", unsafe { dpdk_sys::rte_eth_promiscuous_enable(self.id) }))?;
        }
        Ok(())
    }

    pub(super) fn mac(&self) -> Result<MacAddress, Failure> {
        let mut address = rte_ether_addr::default();
        // SAFETY: fills `address`.
        attempt("read the MAC address", unsafe { dpdk_sys::rte_eth_macaddr_get(self.id, &raw mut address) })?;
        Ok(MacAddress(address.addr_bytes))
    }

    /// The MTU in effect: the kernel's, where the device stands on a kernel interface (some drivers only note what
    /// was asked of them).
    pub(super) fn mtu(&self, interface: u32) -> Result<u16, Failure> {
        if interface != 0 {
            // SAFETY: reads a number from the kernel.
            let mtu = unsafe { dpdk_sys::dpdk_shim_interface_mtu(interface) };
            let mtu = attempt("read the MTU", mtu)?;
            return Ok(u16::try_from(mtu).unwrap_or(u16::MAX));
        }
        let mut mtu = 0;
        // SAFETY: fills `mtu`.
        attempt("read the MTU", unsafe { dpdk_sys::rte_eth_dev_get_mtu(self.id, &raw mut mtu) })?;
        Ok(mtu)
    }

    /// Asks for an MTU. A device that cannot be asked keeps its own.
    pub(super) fn set_mtu(&self, mtu: u16) -> Result<(), Failure> {
        // SAFETY: the device is ours.
        match attempt("set the MTU", unsafe { dpdk_sys::rte_eth_dev_set_mtu(self.id, mtu) }) {
            Ok(_) | Err(Failure { errno: Errno::NOT_SUPPORTED, .. }) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Whether the link is up, and its speed in Mbit/s, 0 for unknown. Drivers that stand on a kernel interface
    /// always say "up": there the kernel is asked too.
    pub(super) fn link(&self, interface: u32) -> Result<(bool, u32), Failure> {
        let operation = "read the link";
        let mut speed = 0;
        // SAFETY: fills `speed`.
        let up = attempt(operation, unsafe { dpdk_sys::dpdk_shim_link(self.id, &raw mut speed) })?;
        let running = if interface == 0 {
            1
        } else {
            // SAFETY: reads a flag from the kernel.
            attempt(operation, unsafe { dpdk_sys::dpdk_shim_interface_running(interface) })?
        };
        Ok((up == 1 && running == 1, if speed == dpdk_sys::DPDK_SHIM_SPEED_UNKNOWN { 0 } else { speed }))
    }

    /// Whether there is a link, by the kernel's word too. A device that cannot say has none.
    pub(super) fn has_link(&self) -> bool {
        raw_info(self.id).and_then(|info| self.link(info.if_index)).is_ok_and(|(up, _)| up)
    }

    pub(super) fn stats(&self) -> Result<rte_eth_stats, Failure> {
        let mut stats = rte_eth_stats::default();
        // SAFETY: fills `stats`.
        attempt("read the counters", unsafe { dpdk_sys::rte_eth_stats_get(self.id, &raw mut stats) })?;
        Ok(stats)
    }

    /// The device's own counters by its names for them.
    pub(super) fn xstats(&self) -> Result<Vec<(String, u64)>, Failure> {
        let operation = "read the device's own counters";
        // SAFETY: a null array of length 0 asks for the count.
        let count = unsafe { dpdk_sys::rte_eth_xstats_get_names(self.id, std::ptr::null_mut(), 0) };
        let count = attempt(operation, count)?.unsigned_abs();
        let mut names = vec![rte_eth_xstat_name::default(); count as usize];
        // SAFETY: the array has `count` elements.
        let named = unsafe { dpdk_sys::rte_eth_xstats_get_names(self.id, names.as_mut_ptr(), count) };
        let mut values = vec![rte_eth_xstat::default(); count as usize];
        // SAFETY: the array has `count` elements.
        let valued = unsafe { dpdk_sys::rte_eth_xstats_get(self.id, values.as_mut_ptr(), count) };
        let named = attempt(operation, named)?.unsigned_abs().min(count);
        let valued = attempt(operation, valued)?.unsigned_abs().min(count);
        names.truncate(named as usize);
        let name = |id: u64| names.get(usize::try_from(id).ok()?).map(|name| text_in(&name.name));
        let values = values.iter().take(valued as usize);
        Ok(values.filter_map(|xstat| Some((name(xstat.id)?, xstat.value))).collect())
    }
}

impl Drop for EthDevice {
    fn drop(&mut self) {
        let device = rte_device_of(self.id);
        // SAFETY: the device is ours, and whoever polls its queues shares its ownership: nobody polls.
        let stopped = attempt("stop", unsafe { dpdk_sys::rte_eth_dev_stop(self.id) });
        // SAFETY: as above; the device is stopped.
        let closed = attempt("close", unsafe { dpdk_sys::rte_eth_dev_close(self.id) });
        // Removed, so that it can be made again; its kernel resources go with it.
        let removed = device.map_or(Ok(0), |device| {
            // SAFETY: the EAL's device, closed above.
            attempt("remove", unsafe { dpdk_sys::rte_dev_remove(device.as_ptr()) })
        });
        for failure in [stopped, closed, removed].into_iter().filter_map(Result::err) {
            tracing::warn!("device {}: {failure}", self.name);
        }
        CLAIMED.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// The string in a fixed array of C.
fn text_in(array: &[c_char]) -> String {
    let bytes: Vec<u8> = array.iter().map(|&byte| byte.cast_unsigned()).collect();
    CStr::from_bytes_until_nul(&bytes).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

fn redirection_table(entries: u16, queues: u16) -> Vec<rte_eth_rss_reta_entry64> {
    let mut entry = 0..entries;
    let mut group = || {
        let mut group = rte_eth_rss_reta_entry64::default();
        for (place, number) in group.reta.iter_mut().zip(entry.by_ref()) {
            *place = number % queues.max(1);
        }
        group.mask = u64::MAX;
        group
    };
    (0..entries.div_ceil(dpdk_sys::DPDK_SHIM_RETA_GROUP_SIZE)).map(|_| group()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_redirection_table_is_dealt_in_turn() {
        let table = redirection_table(128, 3);
        assert_eq!(table.len(), 2);
        let all: Vec<u16> = table.iter().flat_map(|group| group.reta).collect();
        assert!(all.iter().zip(0u16..).all(|(&queue, entry)| queue == entry % 3), "{all:?}");
    }
}
