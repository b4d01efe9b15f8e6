//! `[[port]] members` and the arguments of a `net_bonding` device: several devices as one.
//!
//! The driver takes numbers where people have names, and its members by other keys in other releases: the file has the
//! names of Linux's bonding, and the members in a list. What becomes of them is `dpdk::device`'s.

use hashbrown::HashMap;

use super::model::Device;
use super::raw::Section;
use super::syntax::{self, DEVICE_ALLOWED};
use crate::port::MacAddress;

/// The driver, as the beginning of its devices' names.
pub const DRIVER: &str = "net_bonding";

/// Modes by their names, with the driver's numbers.
pub const MODES: [(&str, u8); 3] = [("active-backup", 1), ("balance-xor", 2), ("802.3ad", 4)];

/// A driver without a way to change a device's address, which a bond needs (DPDK 22.11).
const NO_MEMBER: &str = "net_af_xdp";

const MEMBERS_ALLOWED: &str = "a list of devices, like [\"0000:01:00.0\", \"0000:01:00.1\"]";

/// Whether a device is made of members.
pub fn is_bond(device: &Device) -> bool {
    matches!(device, Device::Vdev(text) if text.starts_with(DRIVER))
}

/// Reads `members`, which a bond has, and no other device; checks the bond's arguments. `seen`: the line of each device.
pub(super) fn members(section: &mut Section<'_>, device: &Device, seen: &mut HashMap<String, usize>) -> Vec<Device> {
    let value = section.get("members");
    let place = section.place("members");
    let (list, value) = match (value, is_bond(device)) {
        (None, false) => return Vec::new(),
        (None, true) => {
            let missing = format!("missing: {DRIVER} is made of other devices; allowed: {MEMBERS_ALLOWED}");
            section.document().error(section.document().line_of(&section.place("device")), &place, missing);
            return Vec::new();
        }
        (Some(value), false) => {
            let name = syntax::device_name(device);
            if !name.is_empty() {
                value.error(format!(
                    "{name:?} has no members; allowed: with a device {DRIVER}..., like \"{DRIVER}0,mode=active-backup\""
                ));
            }
            return Vec::new();
        }
        (Some(value), true) => (value.list(MEMBERS_ALLOWED), value),
    };
    if value.is_list() && list.is_empty() {
        value.error(format!("the list is empty; allowed: {MEMBERS_ALLOWED}"));
    }
    let mut members = Vec::new();
    for member in list {
        let Some(parsed) = member.parsed(DEVICE_ALLOWED, syntax::device) else { continue };
        let name = syntax::device_name(&parsed);
        if is_bond(&parsed) {
            member.error(format!("{name:?} is a bond itself; allowed: other devices"));
        } else if name.starts_with(NO_MEMBER) {
            member.error(format!(
                "{name:?} cannot take the bond's address; allowed: PCI devices, net_af_packet, net_tap"
            ));
        } else if let Some(line) = seen.insert(name.to_owned(), member.line()) {
            member.error(format!("{name:?} is in use on line {line}; allowed: each device once"));
        }
        members.push(parsed);
    }
    if let Err(wrong) = arguments(device, &members) {
        section.document().consequence(&section.place("device"), wrong);
    }
    members
}

/// Checks what stands behind the bond's name.
fn arguments(device: &Device, members: &[Device]) -> Result<(), String> {
    let Device::Vdev(text) = device else { return Ok(()) };
    let modes = || MODES.map(|(name, _)| name).join(", ");
    let mut mode = None;
    for argument in text.split(',').skip(1) {
        let (key, value) = argument.split_once('=').unwrap_or((argument, ""));
        let wrong = |allowed: String| Err(format!("{key}={value} is wrong; allowed: {allowed}"));
        let is_number = value.parse::<u32>().is_ok();
        match key {
            "mode" if MODES.iter().any(|(name, _)| *name == value) => mode = Some(value),
            "mode" => return wrong(format!("mode={}", modes())),
            "xmit_policy" if ["l2", "l23", "l34"].contains(&value) => {}
            "xmit_policy" => return wrong("xmit_policy=l2, l23, l34".to_owned()),
            "agg_mode" if ["stable", "bandwidth", "count"].contains(&value) => {}
            "agg_mode" => return wrong("agg_mode=stable, bandwidth, count".to_owned()),
            "mac" if value.parse::<MacAddress>().is_ok_and(|mac| !mac.is_group()) => {}
            "mac" => return wrong("the address of one device, like mac=02:00:00:00:00:01".to_owned()),
            "primary" if members.iter().any(|member| syntax::device_name(member) == value) => {}
            "primary" => {
                return wrong(members.iter().map(syntax::device_name).collect::<Vec<_>>().join(", "));
            }
            "lsc_poll_period_ms" | "up_delay" | "down_delay" | "socket_id" if is_number => {}
            "lsc_poll_period_ms" | "up_delay" | "down_delay" | "socket_id" => return wrong(format!("{key}=NUMBER")),
            "slave" | "member" => return Err(format!("{key}= is not for here; allowed: the list `members`")),
            _ => {
                return Err(format!(
                    "{DRIVER} has no argument {key:?}; allowed: mode, xmit_policy, mac, primary, agg_mode, \
                     lsc_poll_period_ms, up_delay, down_delay, socket_id"
                ));
            }
        }
    }
    mode.map(drop).ok_or_else(|| format!("there is no mode; allowed: mode={}", modes()))
}
