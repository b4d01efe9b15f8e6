//! Bonds of devices: their members, and an active-backup bond's choice among them where its driver does not see that a
//! member has lost its link.
//!
//! DPDK's bonding driver (22.11) asks a member's driver for its link, or waits to be told. AF_PACKET's always says that
//! it is up, net_tap's says that it tells and does not: the kernel knows better for both, and is asked here.

use super::ethdev::{EthDevice, Failure, NO_DEVICE, attempt};
use super::port::Port;
use super::port_error::PortError;

impl Port {
    /// The members of a bond by their names, and whether each has a link. One that cannot say has none.
    pub fn members(&self) -> impl Iterator<Item = (&str, bool)> {
        let members = self.devices().iter().flat_map(EthDevice::members);
        members.map(|member| (member.name(), member.has_link()))
    }

    /// The member that an active-backup bond sends by, and the one that it should because that has no link and this one
    /// has; none if there is nothing to mend. In other modes, too: a bond of those uses all of its members.
    pub fn stranded(&self) -> Option<(&str, &str)> {
        let bond = self.devices().first()?;
        let active = primary(bond)?;
        let active = bond.members().iter().find(|member| member.id() == active)?;
        let other = || bond.members().iter().find(|member| member.has_link());
        if active.has_link() { None } else { Some((active.name(), other()?.name())) }
    }

    /// Has an active-backup bond send by a member.
    ///
    /// # Errors
    /// It has no such member.
    pub fn use_member(&self, name: &str) -> Result<(), PortError> {
        let bond = self.devices().first().ok_or(NO_DEVICE);
        let switch = |bond: &EthDevice| {
            let member = bond.members().iter().find(|member| member.name() == name).ok_or(NO_DEVICE)?;
            // SAFETY: changes a number that the bond's bursts read; both devices are ours.
            attempt("use a member", unsafe { dpdk_sys::dpdk_shim_bond_primary_set(bond.id(), member.id()) })
        };
        bond.and_then(switch).map(drop).map_err(|failure| self.failed(failure))
    }
}

/// The number of the member that an active-backup bond uses.
fn primary(bond: &EthDevice) -> Option<u16> {
    if bond.members().is_empty() {
        return None;
    }
    // SAFETY: reads two numbers of a device that is ours.
    let member: Result<i32, Failure> =
        attempt("read the member in use", unsafe { dpdk_sys::dpdk_shim_bond_primary(bond.id()) });
    u16::try_from(member.ok()?).ok()
}
