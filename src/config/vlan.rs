//! `[[port]] parent` and `vlan`: ports that are VLANs of another port's device.
//!
//! A parent may stand anywhere in the file, so parents are looked for when all ports have been read.

use hashbrown::HashMap;

use super::model::{Device, PortConfig};
use super::raw::{Section, Value};
use super::rules;
use crate::port::{PortId, VlanId};

/// Keys of a device, which a VLAN of it cannot have.
const DEVICE_KEYS: [&str; 8] = [
    "device",
    "members",
    "queues",
    "rx_descriptors",
    "tx_descriptors",
    "promiscuous",
    "steering",
    "link_timeout_milliseconds",
];

/// A port's `parent`, to be looked for, and where its other keys stand.
pub(super) struct ParentNamed<'d> {
    parent: Value<'d>,
    vlan: Option<Value<'d>>,
    mtu: Option<Value<'d>>,
}

/// Reads `parent` and `vlan`, and what goes with them.
pub(super) fn read<'d>(section: &mut Section<'d>) -> (Option<ParentNamed<'d>>, Option<VlanId>) {
    const ALLOWED: &str = "an integer from 1 to 4094";
    let parent = section.get("parent");
    let vlan = if parent.is_some() { section.require("vlan", ALLOWED) } else { section.get("vlan") };
    let id = vlan.as_ref().and_then(|value| value.integer(1..=VlanId::MAX.into(), "")).and_then(VlanId::new);
    let Some(parent) = parent else { return (None, id) };
    for key in DEVICE_KEYS {
        if let Some(value) = section.get(key) {
            value.error("a VLAN has its parent's; allowed: only in the parent's own table");
        }
    }
    (Some(ParentNamed { parent, vlan, mtu: section.get("mtu") }), id)
}

/// Finds the parents of all ports, by port, and gives the ports their devices.
pub(super) fn find_parents(ports: &mut [PortConfig], parents: &[Option<ParentNamed<'_>>]) {
    // Of a device with a `vlan` of its own there are no others.
    let mut seen: HashMap<(PortId, VlanId), usize> = HashMap::new();
    for (index, named) in parents.iter().enumerate() {
        let Some(named) = named else { continue };
        let Some(parent) = parent_of(ports, parents, named) else { continue };
        if let (Some(value), Some(vlan)) = (&named.vlan, ports[index].vlan)
            && let Some(line) = seen.insert((parent, vlan), value.line())
        {
            let name = &ports[parent.index()].name;
            value
                .error(format!("VLAN {vlan} of {name:?} is the port on line {line}; allowed: each VLAN once a parent"));
        }
        if let (Some(value), Some(mtu), Some(most)) = (&named.mtu, ports[index].mtu, ports[parent.index()].mtu)
            && mtu > most
        {
            value.error(format!("{mtu} is more than the parent's; allowed: at most {most}"));
        }
        ports[index].device = Device::Parent(parent);
    }
}

/// The port that a VLAN names as its parent, if that can be one.
fn parent_of(ports: &[PortConfig], parents: &[Option<ParentNamed<'_>>], named: &ParentNamed<'_>) -> Option<PortId> {
    let has_device = |index: usize| parents[index].is_none() && ports[index].vlan.is_none();
    let name = named.parent.text("the name of a [[port]] with a device")?;
    let allowed = || {
        let names = (0..ports.len()).filter(|&index| has_device(index)).map(|index| ports[index].name.as_str());
        rules::one_of(names, "port")
    };
    let Some(index) = ports.iter().position(|port| port.name == name) else {
        named.parent.error(format!("there is no port {name:?}; allowed: {}", allowed()));
        return None;
    };
    if !has_device(index) {
        named.parent.error(format!("{name:?} is a VLAN itself; allowed: {}", allowed()));
        return None;
    }
    u8::try_from(index).ok().map(PortId)
}
