//! Commands of ipvsadm, and marks, as fullgate's control protocol has them.

use fullgate::balance::{Protocol, Tunnel};
use serde_json::{Value, json};

use crate::director::{Marked, Mode, Rule, Server, Service, Settings};
use crate::network::Family;

/// A command of ipvsadm as a request of the control protocol.
pub fn of(rule: &Rule) -> Value {
    match *rule {
        Rule::AddService(service, scheduler, flags) => json!({
            "command": "service.add",
            "service": {
                "vip": vip(service), "protocol": protocol(service), "scheduler": scheduler,
                "scheduler_flags": flag_list(flags), "mode": "nat",
            },
        }),
        Rule::EditService(service, scheduler, flags) => json!({
            "command": "service.edit", "service": name(service), "scheduler": scheduler,
            "scheduler_flags": flag_list(flags),
        }),
        Rule::AddWith(service, scheduler, settings) => {
            let (persistence, prefix) = persistence(settings);
            json!({
                "command": "service.add",
                "service": {
                    "vip": vip(service), "protocol": protocol(service), "scheduler": scheduler, "mode": "nat",
                    "persistence": persistence, "persistence_prefix": prefix, "one_packet": settings.one_packet,
                },
            })
        }
        Rule::EditWith(service, scheduler, settings) => {
            let (persistence, prefix) = persistence(settings);
            json!({
                "command": "service.edit", "service": name(service), "scheduler": scheduler,
                "persistence": persistence, "persistence_prefix": prefix, "one_packet": settings.one_packet,
            })
        }
        Rule::Mark(mark, Marked { protocol, destination, ports: (first, last) }) => {
            let whole = if destination.is_ipv4() { 32 } else { 128 };
            json!({
                "command": "mark.add",
                "rule": {
                    "name": format!("{mark}-{first}-{protocol}-{destination}").replace(['.', ':'], "_"), "fwmark": mark,
                    "destination": format!("{destination}/{whole}"), "protocol": protocol_name(protocol),
                    "destination_port": format!("{first}-{last}"),
                },
            })
        }
        Rule::DeleteService(service) => json!({ "command": "service.del", "service": name(service) }),
        Rule::AddServer(service, server) => {
            json!({ "command": "real.add", "service": name(service), "real_server": real_server(server) })
        }
        Rule::EditServer(service, server) => {
            let mut set = real_server(server);
            let address = set.as_object_mut().unwrap().remove("address").unwrap();
            json!({ "command": "real.edit", "service": name(service), "address": address, "set": set })
        }
        Rule::DeleteServer(service, address) => {
            json!({ "command": "real.del", "service": name(service), "address": address.to_string() })
        }
        Rule::SetTimeouts(..) | Rule::Sysctl(..) => unreachable!("of the gateway, not of its services"),
    }
}

fn flag_list(flags: &str) -> Vec<&str> {
    flags.split(',').filter(|flag| !flag.is_empty()).collect()
}

/// Seconds, and how many bits of an address count.
fn persistence(settings: Settings) -> (u32, Option<u8>) {
    settings.persistence.unwrap_or((0, None))
}

fn protocol(service: Service) -> &'static str {
    protocol_name(service.protocol)
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
        Protocol::Any => "any",
        _ => "tcp",
    }
}

fn vip(service: Service) -> String {
    match service.mark() {
        None => service.address.to_string(),
        Some((mark, Family::Ipv4)) => format!("fwmark:{mark}"),
        Some((mark, Family::Ipv6)) => format!("fwmark:{mark}/ipv6"),
    }
}

fn name(service: Service) -> Value {
    json!({ "vip": vip(service), "protocol": protocol(service) })
}

fn real_server(server: Server) -> Value {
    let (mode, tunnel): (_, Option<Tunnel>) = match server.mode {
        Mode::Nat => ("nat", None),
        Mode::Dr => ("dr", None),
        Mode::Tun(tunnel) => ("tun", Some(tunnel)),
    };
    json!({
        "address": server.address.to_string(), "mode": mode, "tunnel": tunnel, "weight": server.weight,
        "upper": server.upper, "lower": server.lower,
    })
}
