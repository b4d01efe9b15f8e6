//! From a port of the configuration to the devices that the EAL must make for it. No call to DPDK here.
//!
//! A port is one DPDK device, except on AF_XDP, whose driver gives a virtual device one worker's queue at most in the
//! way we need it: there a port of n queues is n virtual devices, each with one queue of the interface.

use crate::config::{Device, PortConfig, bond};

/// The AF_XDP driver, as the beginning of its virtual devices' names and as ethdev calls it.
pub(super) const AF_XDP: &str = "net_af_xdp";
/// The AF_PACKET driver.
pub(super) const AF_PACKET: &str = "net_af_packet";
/// The driver of capture files.
pub(super) const PCAP: &str = "net_pcap";

/// One device for the EAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EalDevice {
    /// Name, and arguments behind a comma.
    pub(super) devargs: String,
    /// PCI, or virtual.
    pub(super) pci: bool,
    /// What a bond is made of.
    pub(super) members: Vec<EalDevice>,
}

impl EalDevice {
    fn vdev(devargs: String) -> Self {
        Self { devargs, pci: false, members: Vec::new() }
    }

    /// Its members, and then itself.
    pub(super) fn with_members(&self) -> impl Iterator<Item = &Self> {
        self.members.iter().chain([self])
    }

    /// The kernel interface that a virtual device takes over; none for other devices. (A TAP's is not: it is made.)
    pub(super) fn kernel_interface(&self) -> Option<&str> {
        let takes_over = [AF_XDP, AF_PACKET].iter().any(|driver| self.devargs.starts_with(driver));
        takes_over.then(|| argument(&self.devargs, "iface")).flatten()
    }

    /// What the device is called.
    pub(super) fn name(&self) -> &str {
        name(&self.devargs)
    }
}

/// The name in front of a device's arguments.
fn name(devargs: &str) -> &str {
    devargs.split_once(',').map_or(devargs, |(name, _)| name)
}

/// The value of argument `key`.
pub(super) fn argument<'a>(devargs: &'a str, key: &str) -> Option<&'a str> {
    devargs.split(',').skip(1).find_map(|argument| argument.split_once('=').filter(|(k, _)| *k == key)).map(|(_, v)| v)
}

/// The whole device string of a port; empty for one that has its parent's.
pub(super) fn text(port: &PortConfig) -> &str {
    match &port.device {
        Device::Pci(text) | Device::Vdev(text) => text,
        Device::Parent(_) => "",
    }
}

/// Whether the port's device, or a member of it, is made by `driver`, one of the constants above.
pub(super) fn is_vdev_of(port: &PortConfig, driver: &str) -> bool {
    let made = |device: &Device| matches!(device, Device::Vdev(text) if text.starts_with(driver));
    made(&port.device) || port.members.iter().any(made)
}

/// Queues that the port is to have: as configured, else one a worker.
pub(super) fn wanted_queues(port: &PortConfig, workers: u16) -> u16 {
    port.queues.unwrap_or(workers).max(1)
}

/// The devices that make up a port: none for one that has its parent's.
pub(super) fn eal_devices(port: &PortConfig, workers: u16) -> Vec<EalDevice> {
    let queues = wanted_queues(port, workers);
    match &port.device {
        Device::Vdev(text) if text.starts_with(AF_XDP) && queues > 1 => af_xdp_devices(text, queues),
        Device::Vdev(text) if bond::is_bond(&port.device) => vec![bond_device(port, text, queues)],
        Device::Pci(_) | Device::Vdev(_) => vec![plain_device(port, &port.device, queues)],
        Device::Parent(_) => Vec::new(),
    }
}

/// A device by itself, or as a member.
fn plain_device(port: &PortConfig, device: &Device, queues: u16) -> EalDevice {
    match device {
        Device::Pci(text) => EalDevice { devargs: full_pci_address(text), pci: true, members: Vec::new() },
        Device::Vdev(text) if text.starts_with(AF_PACKET) => af_packet_device(port, text, queues),
        Device::Vdev(text) => EalDevice::vdev(text.clone()),
        Device::Parent(_) => EalDevice::vdev(String::new()),
    }
}

/// The bond with the driver's words: a mode's number, and each member by its name (DPDK 22.11: `slave=`).
fn bond_device(port: &PortConfig, text: &str, queues: u16) -> EalDevice {
    let members: Vec<_> = port.members.iter().map(|member| plain_device(port, member, queues)).collect();
    let number = |mode: &str| bond::MODES.iter().find(|(name, _)| *name == mode).map(|(_, number)| *number);
    let words = text.split(',').map(|word| match word.strip_prefix("mode=").and_then(number) {
        Some(number) => format!("mode={number}"),
        None => word.to_owned(),
    });
    let members_named = members.iter().map(|member| format!("slave={}", member.name()));
    let devargs = words.chain(members_named).collect::<Vec<_>>().join(",");
    EalDevice { devargs, pci: false, members }
}

/// Whether the bond speaks LACP, whose frames leave only while something is sent, be it nothing.
pub(super) fn speaks_lacp(port: &PortConfig) -> bool {
    bond::is_bond(&port.device) && argument(text(port), "mode") == Some("802.3ad")
}

/// As written, with a queue pair for each worker and frames large enough for the MTU, unless it says so itself.
fn af_packet_device(port: &PortConfig, text: &str, queues: u16) -> EalDevice {
    let mut devargs = text.to_owned();
    if queues > 1 && argument(text, "qpairs").is_none() {
        devargs += &format!(",qpairs={queues}");
    }
    if let Some(mtu) = port.mtu.filter(|mtu| *mtu > 1500 && argument(text, "framesz").is_none()) {
        let frame = af_packet_frame(mtu);
        // A block is of whole pages, and the driver believes frames to follow each other without a gap.
        let block = (1..=4).map(|frames| frame * frames).find(|block| block.is_multiple_of(4096)).unwrap_or(frame);
        devargs += &format!(",framesz={frame},blocksz={block}");
    }
    EalDevice::vdev(devargs)
}

/// Bytes of a frame of AF_PACKET's ring (linux/if_packet.h, TPACKET2): 66 of the kernel's own in front of an
/// Ethernet frame, its header and a VLAN tag.
fn af_packet_frame(mtu: u16) -> u32 {
    (66 + 14 + 4 + u32::from(mtu)).next_multiple_of(1024)
}

/// Bytes that the driver wants a buffer to hold, for all that a frame of its ring may; 0: the port is none of its.
pub(super) fn af_packet_room(port: &PortConfig) -> u32 {
    let of_device = |device: &Device| {
        let Device::Vdev(text) = device else { return 0 };
        if !text.starts_with(AF_PACKET) {
            return 0;
        }
        let given = argument(text, "framesz").and_then(|text| text.parse().ok());
        let frame: u32 = given.unwrap_or_else(|| port.mtu.filter(|mtu| *mtu > 1500).map_or(2048, af_packet_frame));
        // Less the kernel's header, without its link-layer address (TPACKET2_HDRLEN - sizeof(struct sockaddr_ll)).
        frame.saturating_sub(32)
    };
    port.members.iter().chain([&port.device]).map(of_device).max().unwrap_or(0)
}

/// `01:00.0` is short for `0000:01:00.0`; the EAL names the device by the long form.
fn full_pci_address(text: &str) -> String {
    if name(text).matches(':').count() == 1 { format!("0000:{text}") } else { text.to_owned() }
}

fn af_xdp_devices(text: &str, queues: u16) -> Vec<EalDevice> {
    let first = argument(text, "start_queue").and_then(|queue| queue.parse::<u16>().ok()).unwrap_or(0);
    let others: String = text
        .split(',')
        .skip(1)
        .filter(|argument| !argument.starts_with("start_queue=") && !argument.starts_with("queue_count="))
        .map(|argument| format!(",{argument}"))
        .collect();
    let device = |queue: u16| {
        EalDevice::vdev(format!("{}_q{queue}{others},start_queue={}", name(text), first.saturating_add(queue)))
    };
    (0..queues).map(device).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::dpdk) fn port(name: &str, device: Device) -> PortConfig {
        PortConfig {
            mss_clamp: crate::balance::MssClamp::Off,
            name: name.to_owned(),
            device,
            members: Vec::new(),
            vlan: None,
            mac: None,
            tap: format!("fg-{name}"),
            addresses: Vec::new(),
            routes: Vec::new(),
            mtu: None,
            queues: None,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            promiscuous: false,
            steering: crate::config::PortSteering::Auto,
            link_timeout_milliseconds: 0,
        }
    }

    fn devargs(device: Device, queues: Option<u16>, workers: u16) -> Vec<String> {
        let port = PortConfig { queues, ..port("wan", device) };
        eal_devices(&port, workers).into_iter().map(|device| device.devargs).collect()
    }

    #[test]
    fn one_queue_is_the_device_as_written() {
        let text = "net_af_xdp0,iface=veth1";
        assert_eq!(devargs(Device::Vdev(text.to_owned()), None, 1), [text]);
        assert_eq!(devargs(Device::Vdev(text.to_owned()), Some(1), 2), [text]);
    }

    #[test]
    fn af_xdp_has_a_device_a_queue() {
        let device = Device::Vdev("net_af_xdp0,iface=veth1,start_queue=2,busy_budget=0".to_owned());
        assert_eq!(
            devargs(device, None, 2),
            [
                "net_af_xdp0_q0,iface=veth1,busy_budget=0,start_queue=2",
                "net_af_xdp0_q1,iface=veth1,busy_budget=0,start_queue=3",
            ]
        );
    }

    #[test]
    fn af_packet_gets_queue_pairs_unless_told() {
        let device = |text: &str| Device::Vdev(text.to_owned());
        assert_eq!(devargs(device("net_af_packet0,iface=a"), None, 3), ["net_af_packet0,iface=a,qpairs=3"]);
        assert_eq!(devargs(device("net_af_packet0,iface=a,qpairs=4"), None, 3), ["net_af_packet0,iface=a,qpairs=4"]);
    }

    #[test]
    fn af_packet_gets_frames_for_its_mtu_unless_told() {
        let devargs = |text: &str, mtu| {
            let port = PortConfig { mtu, ..port("x", Device::Vdev(text.to_owned())) };
            (eal_devices(&port, 1)[0].devargs.clone(), af_packet_room(&port))
        };
        assert_eq!(devargs("net_af_packet0,iface=a", None), ("net_af_packet0,iface=a".to_owned(), 2016));
        let jumbo = "net_af_packet0,iface=a,framesz=9216,blocksz=36864".to_owned();
        assert_eq!(devargs("net_af_packet0,iface=a", Some(9000)), (jumbo, 9184));
        let two = "net_af_packet0,iface=a,framesz=2048,blocksz=4096".to_owned();
        assert_eq!(devargs("net_af_packet0,iface=a", Some(1900)), (two, 2016));
        let own = "net_af_packet0,iface=a,framesz=16384,blocksz=16384".to_owned();
        assert_eq!(devargs(&own, Some(9000)), (own.clone(), 16352));
    }

    #[test]
    fn pci_addresses_are_completed() {
        assert_eq!(devargs(Device::Pci("01:00.0,x=y".to_owned()), None, 2), ["0000:01:00.0,x=y"]);
        assert_eq!(devargs(Device::Pci("0001:01:00.0".to_owned()), None, 2), ["0001:01:00.0"]);
    }

    #[test]
    fn a_bond_is_named_in_the_drivers_words_with_its_members() {
        let members = [Device::Pci("01:00.0".to_owned()), Device::Vdev("net_af_packet0,iface=a".to_owned())].to_vec();
        let bond = Device::Vdev("net_bonding0,mode=802.3ad,xmit_policy=l34".to_owned());
        let port = PortConfig { members, ..port("wan", bond) };
        let devices = eal_devices(&port, 2);
        let all: Vec<_> = devices.iter().flat_map(EalDevice::with_members).collect();
        assert_eq!(
            all.iter().map(|device| (device.devargs.as_str(), device.pci)).collect::<Vec<_>>(),
            [
                ("0000:01:00.0", true),
                ("net_af_packet0,iface=a,qpairs=2", false),
                ("net_bonding0,mode=4,xmit_policy=l34,slave=0000:01:00.0,slave=net_af_packet0", false),
            ]
        );
        assert!(speaks_lacp(&port));
    }

    #[test]
    fn interfaces_that_must_exist() {
        let interface = |text: &str| EalDevice::vdev(text.to_owned()).kernel_interface().map(str::to_owned);
        assert_eq!(interface("net_af_xdp0,iface=veth1").as_deref(), Some("veth1"));
        assert_eq!(interface("net_af_packet1,qpairs=2,iface=veth2").as_deref(), Some("veth2"));
        assert_eq!(interface("net_tap0,iface=new"), None);
    }
}
