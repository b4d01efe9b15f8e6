//! VLANs of ports: their numbers, and which port is which VLAN of which device.

use std::fmt;

use super::PortId;

/// The number of a VLAN, 1-4094 (IEEE 802.1Q, 9.6: 0 means no VLAN, 4095 is reserved).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VlanId(u16);

impl VlanId {
    /// The largest number.
    pub const MAX: u16 = 4094;

    /// The VLAN of this number; none if no VLAN can have it.
    pub fn new(number: u16) -> Option<Self> {
        (1..=Self::MAX).contains(&number).then_some(Self(number))
    }

    /// Its number.
    pub fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a port is: on which device, and in which of its VLANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPlace {
    /// The device's index among those of the gateway.
    pub device: usize,
    /// The port that the device was given to: this one, or its parent.
    pub owner: PortId,
    /// The VLAN that its frames are tagged for; none: they have no tag.
    pub vlan: Option<VlanId>,
}

impl PortPlace {
    /// The place of a port that has a device to itself, the devices being in the order of the ports.
    pub fn whole_device(port: PortId) -> Self {
        Self { device: port.index(), owner: port, vlan: None }
    }
}
