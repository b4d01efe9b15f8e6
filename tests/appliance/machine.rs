//! The virtual machine that stands where a lab's gateway would: with an IOMMU and a virtio NIC on the PCI
//! bus for each of the lab's cables.
//!
//! The NICs hash flows as a device of hardware does (VIRTIO_NET_F_RSS: a key, a redirection table, Toeplitz), have two
//! queues, and are given to nobody: binding them is the test's.

use std::process::Command;

use crate::lab::Lab;
use crate::lab::gateway::FULLGATE;
use crate::vm::{self, Machine};

/// A NIC: its cable's name in the lab, its PCI address and its MAC.
pub struct Nic {
    pub name: &'static str,
    pub pci: &'static str,
    pub mac: &'static str,
}

/// One a cable, on slots of the root bus, so that each has an IOMMU group of its own.
pub const NICS: [Nic; 2] = [
    Nic { name: "wan", pci: "0000:00:10.0", mac: "02:00:00:00:01:01" },
    Nic { name: "lan", pci: "0000:00:11.0", mac: "02:00:00:00:01:02" },
];

/// Makes what it boots, bridges its NICs to the lab's cables, and waits until it takes commands.
pub fn start(lab: &Lab) -> Machine {
    vm::make_image("appliance", lab.path(), &[FULLGATE]);
    for nic in &NICS {
        bridge(lab, nic.name);
    }
    Machine::boot(qemu(lab), "intel_iommu=on", lab.path())
}

/// A TAP of two queues for the NIC, on a bridge with the lab's cable, in the gateway's namespace.
fn bridge(lab: &Lab, name: &str) {
    let ip = |arguments: String| lab.gateway.ip(&arguments);
    ip(format!("tuntap add dev tap-{name} mode tap multi_queue vnet_hdr"));
    ip(format!("link add br-{name} type bridge"));
    for interface in [format!("tap-{name}"), format!("veth-{name}")] {
        ip(format!("link set {interface} master br-{name}"));
        ip(format!("link set {interface} up"));
    }
    ip(format!("link set br-{name} up"));
}

fn qemu(lab: &Lab) -> Command {
    let mut command = lab.gateway.command("qemu-system-x86_64");
    command.args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024", "-device", "intel-iommu"]);
    for nic in &NICS {
        let (name, mac) = (nic.name, nic.mac);
        let slot = nic.pci.rsplit(':').next().unwrap();
        let tap = format!("tap,id={name},ifname=tap-{name},script=no,downscript=no,queues=2,vhost=off");
        let device = format!(
            "virtio-net-pci,netdev={name},addr=0x{slot},mac={mac},mq=on,vectors=6,rss=on,hash=on,romfile=,iommu_platform=on,disable-legacy=on"
        );
        command.args(["-netdev", &tap, "-device", &device]);
    }
    command
}
