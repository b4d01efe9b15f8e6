//! A client's flow with whichever real server a director gives it, packet by packet.

use std::net::{IpAddr, SocketAddr};

use fullgate::balance::Protocol;

use crate::director::{Director, Mode, Rule, Server, Service};
use crate::network::{Flags, Out, Packet, Side, frame, router_mac, server_mac};

/// One that has not said anything yet, or is at work.
#[derive(Clone)]
pub struct Dialogue {
    pub packet: Packet,
    pub mode: Mode,
    /// The real server's number and where it listens, once it is known.
    server: Option<(u16, SocketAddr)>,
}

impl Dialogue {
    pub fn new(protocol: Protocol, client: SocketAddr, to: SocketAddr, mode: Mode) -> Self {
        Self { packet: Packet::new(protocol, client, to).with_payload(b"said"), mode, server: None }
    }

    /// The client sends a packet; where it goes.
    pub fn say(&mut self, director: &mut dyn Director, flags: Flags) -> String {
        let packet = self.packet.clone().with_flags(flags);
        let sent = frame(router_mac(Side::Wan), Side::Wan.director_mac(), &packet.bytes());
        let out = director.send(Side::Wan, &sent);
        if let Some(first) = out.first().filter(|first| first.side == Side::Lan) {
            self.server = Some((first.to_mac().into(), SocketAddr::new(first.destination(), first.destination_port())));
        }
        seen(&out)
    }

    /// So does its real server, where that passes the director.
    pub fn reply(&self, director: &mut dyn Director, flags: Flags) -> String {
        let (Some((number, server)), Mode::Nat) = (self.server, self.mode) else { return "nothing".to_owned() };
        let answer = self.packet.answer(server).with_flags(flags);
        seen(&director.send(Side::Lan, &frame(server_mac(number), Side::Lan.director_mac(), &answer.bytes())))
    }

    /// One of both.
    pub fn exchange(&mut self, director: &mut dyn Director, (side, flags): (Side, Flags)) -> String {
        match side {
            Side::Wan => self.say(director, flags),
            Side::Lan => self.reply(director, flags),
        }
    }

    /// The client goes on with another flow.
    pub fn begin_anew(&mut self) {
        self.packet.source.set_port(self.packet.source.port() + 1);
        self.server = None;
    }

    /// The number of the real server that it is with; 0: none.
    pub fn server(&self) -> u16 {
        self.server.map_or(0, |(number, _)| number)
    }
}

/// Where a packet went, in words.
fn seen(out: &[Out]) -> String {
    match out.first() {
        None => "nothing".to_owned(),
        Some(out) if out.side == Side::Lan => format!("real server {} at {}", out.to_mac(), out.destination_port()),
        Some(out) => {
            let packet = out.packet();
            format!("client gets protocol {}", if packet[0] >> 4 == 4 { packet[9] } else { packet[6] })
        }
    }
}

/// A real server of a mode, a weight and no thresholds.
pub fn real_server(address: IpAddr, port: u16, mode: Mode, weight: u32) -> Server {
    Server { address: SocketAddr::new(address, port), mode, weight, upper: 0, lower: 0 }
}

/// The rules that add real servers to a service.
pub fn add_all(service: Service, servers: &[Server]) -> Vec<Rule> {
    servers.iter().map(|&server| Rule::AddServer(service, server)).collect()
}
