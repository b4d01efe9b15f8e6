//! What to ask of a device: the configuration's wishes within what the device offers. Pure.

use dpdk_sys::{
    DPDK_SHIM_RSS_IPV4, DPDK_SHIM_RSS_IPV6, DPDK_SHIM_RSS_NONFRAG_IPV4_SCTP, DPDK_SHIM_RSS_NONFRAG_IPV4_TCP,
    DPDK_SHIM_RSS_NONFRAG_IPV4_UDP, DPDK_SHIM_RSS_NONFRAG_IPV6_SCTP, DPDK_SHIM_RSS_NONFRAG_IPV6_TCP,
    DPDK_SHIM_RSS_NONFRAG_IPV6_UDP, DPDK_SHIM_RX_OFFLOAD_IPV4_CKSUM, DPDK_SHIM_RX_OFFLOAD_SCATTER,
    DPDK_SHIM_RX_OFFLOAD_TCP_CKSUM, DPDK_SHIM_RX_OFFLOAD_UDP_CKSUM, DPDK_SHIM_TX_OFFLOAD_MULTI_SEGS,
};

use super::device;
use super::ethdev::{Capabilities, Settings};
use super::port_error::PortError;
use super::rss::{Steering, WhySoftware};
use crate::config::PortConfig;
use crate::flow::rss::RssKey;

/// Ethernet header and frame check sequence: what a frame has beyond its MTU.
const FRAME_OVERHEAD: u32 = 18;

/// Drivers that offer RSS but do none: their packets carry whatever queue they were put on.
const RSS_IN_NAME_ONLY: [&str; 2] = ["net_null", "net_ring"];

/// Drivers that understand an offer to check TCP and UDP checksums as leave to deliver packets whose checksums nobody has
/// made yet: those of neighbours on the same host (VIRTIO_NET_F_GUEST_CSUM). Forwarded, they would be wrong.
const CHECKSUMS_LEFT_OPEN: [&str; 2] = ["net_virtio", "net_virtio_user"];

/// Drivers whose queues are filled from outside, all of them, whether they are polled or not.
const QUEUES_FIXED: [&str; 2] = [device::PCAP, device::AF_PACKET];

/// Flows that must be hashed with their ports: those that are balanced.
pub(super) const RSS_NEEDED: u64 = DPDK_SHIM_RSS_NONFRAG_IPV4_TCP | DPDK_SHIM_RSS_NONFRAG_IPV4_UDP;
/// ... and those that may be, so that the rest is spread too.
const RSS_WANTED: u64 = RSS_NEEDED
    | DPDK_SHIM_RSS_IPV4
    | DPDK_SHIM_RSS_NONFRAG_IPV4_SCTP
    | DPDK_SHIM_RSS_IPV6
    | DPDK_SHIM_RSS_NONFRAG_IPV6_TCP
    | DPDK_SHIM_RSS_NONFRAG_IPV6_UDP
    | DPDK_SHIM_RSS_NONFRAG_IPV6_SCTP;

/// Bytes of the RSS key of a device that does not say: what most have.
const USUAL_KEY_SIZE: u8 = 40;
/// Drivers that receive into several buffers and send from them without being asked, and offer no such offload.
const SEGMENTS_UNASKED: [&str; 1] = [device::PCAP];

/// Drivers that say that they take no jumbo frames, but do: as large as the kernel's interface gives them.
const JUMBO_UNOFFERED: [&str; 1] = [device::AF_PACKET];
/// The largest MTU that is asked of those.
const ETHERNET_MTU: u16 = 1500;

/// Offloads by the names that users see.
const OFFLOAD_NAMES: [(u64, &str); 4] = [
    (DPDK_SHIM_RX_OFFLOAD_IPV4_CKSUM, "rx_ipv4_checksum"),
    (DPDK_SHIM_RX_OFFLOAD_TCP_CKSUM, "rx_tcp_checksum"),
    (DPDK_SHIM_RX_OFFLOAD_UDP_CKSUM, "rx_udp_checksum"),
    (DPDK_SHIM_RX_OFFLOAD_SCATTER, "rx_scatter"),
];

/// What each device of a port is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) settings: Settings,
    /// Why it is not asked for RSS; none: it is.
    pub(super) no_rss: Option<WhySoftware>,
    /// Entries of its redirection table.
    pub(super) reta_size: u16,
    /// Bytes of its RSS key.
    pub(super) key_size: u8,
    /// The MTU to ask for once the device runs; none: it has it.
    pub(super) set_mtu: Option<u16>,
}

/// Plans a port of `devices` devices that all offer `offers`. `own_mtu` is that of the kernel interface behind it;
/// `room` the bytes that a packet buffer holds.
pub(super) fn plan(
    port: &PortConfig,
    offers: &Capabilities,
    own_mtu: Option<u16>,
    workers: u16,
    devices: u16,
    room: u16,
    key: &RssKey,
) -> Result<Plan, PortError> {
    let (rx_queues, tx_queues) = queues(port, offers, workers, devices)?;
    let mtu = mtu(port, offers, own_mtu)?;
    let (rx_offloads, tx_offloads) = offloads(port, offers, mtu, room)?;
    let (rss_flows, no_rss) = match rss_flows(offers, rx_queues, workers) {
        Ok(flows) => (flows, None),
        Err(reason) => (0, Some(reason)),
    };
    let key_size = if offers.key_size == 0 { USUAL_KEY_SIZE } else { offers.key_size };
    let rss_key = if no_rss.is_some() { Vec::new() } else { key.bytes(key_size.into()).to_vec() };
    let (rx_descriptors, tx_descriptors) = (port.rx_descriptors, port.tx_descriptors);
    let askable = |mtu: &u16| *mtu <= ETHERNET_MTU || !JUMBO_UNOFFERED.contains(&offers.driver.as_str());
    let mtu = mtu.filter(askable).unwrap_or(0);
    Ok(Plan {
        set_mtu: port.mtu.filter(askable),
        settings: Settings {
            rx_queues,
            tx_queues,
            rx_descriptors,
            tx_descriptors,
            mtu,
            rx_offloads,
            tx_offloads,
            rss_flows,
            rss_key,
        },
        no_rss,
        reta_size: offers.reta_size,
        key_size,
    })
}

/// The names of what is in use.
pub(super) fn offload_names(settings: &Settings, steering: Steering) -> Vec<&'static str> {
    let used = |(bit, name): &(u64, &'static str)| (settings.rx_offloads & bit != 0).then_some(*name);
    let mut names: Vec<_> = OFFLOAD_NAMES.iter().filter_map(used).collect();
    if settings.tx_offloads & DPDK_SHIM_TX_OFFLOAD_MULTI_SEGS != 0 {
        names.push("tx_segments");
    }
    if steering == Steering::Rss {
        names.push("rss");
    }
    names
}

/// Receive and transmit queues of each device.
fn queues(port: &PortConfig, offers: &Capabilities, workers: u16, devices: u16) -> Result<(u16, u16), PortError> {
    let max = offers.max_tx_queues.saturating_mul(devices);
    if max < workers {
        return Err(PortError::TooFewTransmitQueues {
            port: port.name.clone(),
            device: device::text(port).to_owned(),
            max,
            workers,
            advice: queue_advice(&offers.driver),
        });
    }
    if devices > 1 {
        return Ok((1, 1));
    }
    let fixed = QUEUES_FIXED.contains(&offers.driver.as_str());
    let wanted = if fixed { offers.max_rx_queues } else { device::wanted_queues(port, workers) };
    Ok((wanted.min(offers.max_rx_queues), workers))
}

fn queue_advice(driver: &str) -> &'static str {
    match driver {
        device::AF_XDP => "set the port's `queues` to the number of workers, or use fewer workers",
        device::AF_PACKET => "raise qpairs= in the device, or use fewer workers",
        device::PCAP => "give the device a tx_pcap= or rx_pcap= a worker, or use fewer workers",
        _ => "ask the device for more (many virtual devices take queues=), or use fewer workers ([worker] cores)",
    }
}

/// The MTU to ask for; none: the device's own.
fn mtu(port: &PortConfig, offers: &Capabilities, own: Option<u16>) -> Result<Option<u16>, PortError> {
    let wanted = port.mtu.or(own);
    // A driver that says nothing of its limits says 0.
    let max = if offers.max_mtu == 0 { u16::MAX } else { offers.max_mtu };
    match wanted {
        Some(mtu) if mtu < offers.min_mtu || mtu > max => Err(PortError::Mtu {
            port: port.name.clone(),
            device: device::text(port).to_owned(),
            mtu,
            min: offers.min_mtu,
            max,
        }),
        wanted => Ok(wanted),
    }
}

fn offloads(port: &PortConfig, offers: &Capabilities, mtu: Option<u16>, room: u16) -> Result<(u64, u64), PortError> {
    let checksums = DPDK_SHIM_RX_OFFLOAD_IPV4_CKSUM | DPDK_SHIM_RX_OFFLOAD_TCP_CKSUM | DPDK_SHIM_RX_OFFLOAD_UDP_CKSUM;
    let left_open = CHECKSUMS_LEFT_OPEN.contains(&offers.driver.as_str());
    let rx = if left_open { 0 } else { offers.rx_offloads & checksums };
    // Buffers in several pieces come from any port that scatters and leave by any port.
    let tx = offers.tx_offloads & DPDK_SHIM_TX_OFFLOAD_MULTI_SEGS;
    match mtu {
        Some(mtu) if u32::from(mtu) + FRAME_OVERHEAD > u32::from(room) => {
            let scatter = offers.rx_offloads & DPDK_SHIM_RX_OFFLOAD_SCATTER;
            // What comes in in several buffers, here or elsewhere, goes out in as many.
            let able = (scatter != 0 && tx != 0) || SEGMENTS_UNASKED.contains(&offers.driver.as_str());
            if !able {
                let (port, device) = (port.name.clone(), device::text(port).to_owned());
                return Err(PortError::FramesTooLarge { port, device, mtu, room });
            }
            Ok((rx | scatter, tx))
        }
        _ => Ok((rx, tx)),
    }
}

/// The flows to hash, or why none are: TCP and UDP over IPv4 must be dealt by a table.
fn rss_flows(offers: &Capabilities, rx_queues: u16, workers: u16) -> Result<u64, WhySoftware> {
    let driver = || offers.driver.clone();
    if RSS_IN_NAME_ONLY.contains(&offers.driver.as_str()) {
        Err(WhySoftware::InNameOnly { driver: driver() })
    } else if offers.reta_size == 0 || offers.rss_flows == 0 {
        Err(WhySoftware::NoRss { driver: driver() })
    } else if offers.rss_flows & RSS_NEEDED != RSS_NEEDED {
        Err(WhySoftware::AddressesOnly { driver: driver() })
    } else if rx_queues <= 1 {
        Err(WhySoftware::OneQueue { workers })
    } else {
        Ok(offers.rss_flows & RSS_WANTED)
    }
}

#[cfg(test)]
mod tests {
    use super::device::tests::port;
    use super::*;
    use crate::config::Device;

    fn nic() -> Capabilities {
        Capabilities {
            driver: "net_ixgbe".to_owned(),
            max_rx_queues: 8,
            max_tx_queues: 8,
            min_mtu: 68,
            max_mtu: 9000,
            rx_offloads: u64::MAX,
            tx_offloads: DPDK_SHIM_TX_OFFLOAD_MULTI_SEGS,
            rss_flows: u64::MAX,
            reta_size: 128,
            ..Capabilities::default()
        }
    }

    fn plan(
        port: &PortConfig,
        offers: &Capabilities,
        own_mtu: Option<u16>,
        workers: u16,
        devices: u16,
        room: u16,
    ) -> Result<Plan, PortError> {
        super::plan(port, offers, own_mtu, workers, devices, room, &RssKey::draw(|| 7))
    }

    fn config(device: &str) -> PortConfig {
        port("wan", Device::Vdev(device.to_owned()))
    }

    #[test]
    fn a_nic_spreads_over_as_many_queues_as_workers() {
        let plan = plan(&config("x"), &nic(), None, 3, 1, 2048).unwrap().settings;
        assert_eq!((plan.rx_queues, plan.tx_queues), (3, 3));
        assert_ne!(plan.rss_flows, 0);
        assert_eq!(
            offload_names(&plan, Steering::Rss),
            ["rx_ipv4_checksum", "rx_tcp_checksum", "rx_udp_checksum", "tx_segments", "rss"]
        );
    }

    #[test]
    fn checksums_must_be_finished_when_they_come() {
        for driver in CHECKSUMS_LEFT_OPEN {
            let offers = Capabilities { driver: driver.to_owned(), ..nic() };
            let plan = plan(&config("x"), &offers, None, 2, 1, 2048).unwrap().settings;
            assert_eq!(offload_names(&plan, Steering::Rss), ["tx_segments", "rss"]);
        }
    }

    #[test]
    fn the_key_is_as_long_as_the_device_has_it() {
        for (says, has) in [(0, 40), (40, 40), (52, 52)] {
            let plan = plan(&config("x"), &Capabilities { key_size: says, ..nic() }, None, 2, 1, 2048).unwrap();
            assert_eq!((plan.settings.rss_key.len(), usize::from(plan.key_size), plan.no_rss), (has, has, None));
        }
    }

    #[test]
    fn rss_that_is_of_no_use_is_not_asked_for() {
        let why = |offers: Capabilities, workers| {
            let plan = plan(&config("x"), &offers, None, workers, 1, 2048).unwrap();
            assert_eq!((plan.settings.rss_flows, plan.settings.rss_key.len()), (0, 0));
            plan.no_rss.unwrap().to_string()
        };
        assert_eq!(why(nic(), 1), "the device has one receive queue for 1 workers");
        assert_eq!(
            why(Capabilities { max_rx_queues: 1, ..nic() }, 2),
            "the device has one receive queue for 2 workers"
        );
        for driver in RSS_IN_NAME_ONLY {
            let offers = Capabilities { driver: driver.to_owned(), ..nic() };
            assert_eq!(why(offers, 2), format!("driver {driver} offers RSS, but does none"));
        }
        let table = "driver net_ixgbe has no RSS with a redirection table";
        assert_eq!(why(Capabilities { reta_size: 0, ..nic() }, 2), table);
        assert_eq!(why(Capabilities { rss_flows: 0, ..nic() }, 2), table);
        let addresses = Capabilities { rss_flows: DPDK_SHIM_RSS_IPV4 | DPDK_SHIM_RSS_NONFRAG_IPV4_TCP, ..nic() };
        assert_eq!(why(addresses, 2), "driver net_ixgbe hashes addresses, but not the ports of TCP and UDP");
    }

    #[test]
    fn queues_filled_from_outside_are_all_polled() {
        let pcap = Capabilities { driver: device::PCAP.to_owned(), max_rx_queues: 4, ..nic() };
        assert_eq!(plan(&config("net_pcap0"), &pcap, None, 1, 1, 2048).unwrap().settings.rx_queues, 4);
    }

    #[test]
    fn each_worker_needs_a_transmit_queue() {
        let offers = Capabilities { driver: device::AF_PACKET.to_owned(), max_tx_queues: 1, ..nic() };
        let error = plan(&config("net_af_packet0,iface=a,qpairs=1"), &offers, None, 2, 1, 2048).unwrap_err();
        assert_eq!(
            error.to_string(),
            "port \"wan\": device \"net_af_packet0,iface=a,qpairs=1\" has 1 transmit queues at most, but each of the 2 \
             workers needs one: raise qpairs= in the device, or use fewer workers"
        );
        let af_xdp = Capabilities { driver: device::AF_XDP.to_owned(), max_rx_queues: 1, max_tx_queues: 1, ..nic() };
        let plan = plan(&config("net_af_xdp0,iface=a"), &af_xdp, None, 2, 2, 2048).unwrap().settings;
        assert_eq!((plan.rx_queues, plan.tx_queues), (1, 1));
    }

    #[test]
    fn mtus_out_of_range_and_out_of_room() {
        let config = |mtu| PortConfig { mtu, ..config("x") };
        let error = plan(&config(Some(9001)), &nic(), None, 1, 1, 2048).unwrap_err().to_string();
        assert!(error.contains("MTU 9001 is out of what device \"x\" takes, 68 to 9000"), "{error}");
        let scatters = plan(&config(Some(4000)), &nic(), None, 1, 1, 2048).unwrap().settings;
        assert_ne!(scatters.rx_offloads & DPDK_SHIM_RX_OFFLOAD_SCATTER, 0);
        let pcap = Capabilities { driver: device::PCAP.to_owned(), rx_offloads: 0, tx_offloads: 0, ..nic() };
        assert_eq!(plan(&config(Some(4000)), &pcap, None, 1, 1, 2048).unwrap().settings.rx_offloads, 0);
        let packet = Capabilities { driver: device::AF_PACKET.to_owned(), ..nic() };
        let asked = |mtu| {
            let plan = plan(&config(Some(mtu)), &packet, Some(9000), 1, 1, 9088).unwrap();
            (plan.settings.mtu, plan.set_mtu)
        };
        assert_eq!((asked(9000), asked(1400)), ((0, None), (1400, Some(1400))));
        let one_by_one = Capabilities { tx_offloads: 0, ..nic() };
        let error = plan(&config(Some(4000)), &one_by_one, None, 1, 1, 2048).unwrap_err().to_string();
        assert!(error.contains("frames of MTU 4000 do not fit"), "{error}");
        let plain = Capabilities { rx_offloads: 0, ..nic() };
        let error = plan(&config(None), &plain, Some(4000), 1, 1, 2048).unwrap_err().to_string();
        assert!(error.contains("frames of MTU 4000 do not fit packet buffers of 2048 bytes"), "{error}");
    }
}
