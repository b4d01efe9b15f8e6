//! Whether real servers are where their mode can reach them, as the kernel's addresses and routes say now: on another host, but for
//! modes DR and TUN, and in DR mode on a link of the gateway. Pure.
//!
//! It is asked at the time of the change only: addresses and routes that come later disturb no change that was made. What
//! has no route at all is let pass: its port may come up later, and until then its packets are counted drops.

use std::net::IpAddr;

use hashbrown::HashMap;

use super::change::Change;
use super::model::Model;
use super::protocol::{ErrorKind, Refusal};
use super::refusal::check;
use crate::balance::{ForwardingMode, ServiceKey};
use crate::config::{RealServerConfig, rules};
use crate::route::{Resolution, RouteTable};

impl Model {
    /// Refuses real servers whose address is the gateway's own in a mode that cannot reach it, and changes after which one
    /// in DR mode would be reached through a router only.
    pub fn check_on_link(&self, changes: &[Change], routes: &RouteTable) -> Result<(), Refusal> {
        let mut modes: HashMap<ServiceKey, ForwardingMode> = HashMap::new();
        for change in changes {
            match change {
                Change::ServiceAdd { key, settings } | Change::ServiceEdit { key, to: settings, .. } => {
                    modes.insert(*key, settings.mode);
                }
                Change::RealAdd { key, real_server } | Change::RealEdit { key, to: real_server, .. } => {
                    let of_service = || modes.get(key).copied().or_else(|| Some(self.service(key)?.settings.mode));
                    let Some(mode) = real_server.mode.or_else(of_service) else { continue };
                    if matches!(change, Change::RealAdd { .. }) {
                        own_host(*key, mode, real_server, routes)?;
                    }
                    if mode == ForwardingMode::Dr {
                        on_link(*key, real_server.address.ip(), routes)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn own_host(
    key: ServiceKey,
    mode: ForwardingMode,
    real_server: &RealServerConfig,
    routes: &RouteTable,
) -> Result<(), Refusal> {
    let address = real_server.address;
    let fault = routes.is_local(address.ip()).then(|| rules::is_this_host(mode, address.ip())).flatten();
    check(ErrorKind::OwnAddress, format_args!("service {key}: real server {address}"), fault)
}

fn on_link(key: ServiceKey, address: IpAddr, routes: &RouteTable) -> Result<(), Refusal> {
    if routes.is_host(address) {
        return Ok(());
    }
    let hop = match routes.resolve(address, 0) {
        Resolution::Hop(index) => routes.hop(index).map(|entry| entry.hop),
        Resolution::Unresolved(hop) => Some(hop),
        Resolution::NoRoute => None,
    };
    match hop.filter(|hop| hop.address != address) {
        None => Ok(()),
        Some(hop) => {
            let message = format!(
                "service {key}: real server {address}: mode: dr needs it on a link of the gateway, and it is behind \
                 router {}; allowed: a real server on a link, or mode fullnat, nat or tun",
                hop.address
            );
            Err(Refusal::new(ErrorKind::Conflict, message))
        }
    }
}
