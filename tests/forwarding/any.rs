//! Packets of both families, built and read by etherparse.

use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice};
use fullgate::port::MacAddress;

use crate::lab::sctp;

/// A packet to build: who to whom, with what.
#[derive(Clone, Copy, Debug)]
pub struct Any<'a> {
    pub macs: (MacAddress, MacAddress),
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub ttl: u8,
    pub payload: &'a [u8],
}

impl Any<'_> {
    fn start(&self) -> PacketBuilderStep<etherparse::IpHeaders> {
        let ethernet = PacketBuilder::ethernet2(self.macs.0.0, self.macs.1.0);
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ethernet.ipv4(source.octets(), destination.octets(), self.ttl)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ethernet.ipv6(source.octets(), destination.octets(), self.ttl)
            }
            other => panic!("two families: {other:?}"),
        }
    }

    pub fn udp(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let step = self.start().udp(self.source.port(), self.destination.port());
        step.write(&mut bytes, self.payload).unwrap();
        bytes
    }

    /// What TCP does with these flags.
    pub fn sctp(&self, flags: &str) -> Vec<u8> {
        let ends = [self.source, self.destination].map(|end| (end.ip(), end.port()));
        sctp::frame(self.macs, ends.into(), self.ttl, &sctp::like_tcp(flags, self.payload))
    }

    /// `flags` as letters: S A F R.
    pub fn tcp(&self, flags: &str) -> Vec<u8> {
        let mut step = self.start().tcp(self.source.port(), self.destination.port(), 7, 1000);
        for flag in flags.chars() {
            step = match flag {
                'S' => step.syn(),
                'A' => step.ack(9),
                'F' => step.fin(),
                'R' => step.rst(),
                other => unreachable!("flag {other}"),
            };
        }
        let mut bytes = Vec::new();
        step.write(&mut bytes, self.payload).unwrap();
        bytes
    }
}

/// What an independent reader finds in a frame; panics where a checksum is wrong.
#[derive(Debug)]
pub struct Read {
    pub macs: (MacAddress, MacAddress),
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub ttl: u8,
    pub traffic_class: u8,
    pub payload: Vec<u8>,
}

pub fn read(frame: &[u8]) -> Read {
    let mac = |bytes: &[u8]| MacAddress(bytes.try_into().unwrap());
    let macs = (mac(&frame[6..12]), mac(&frame[..6]));
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let (source, destination, ttl, traffic_class): (IpAddr, IpAddr, u8, u8) = match sliced.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 checksum");
            let tos = header.dscp.value() << 2 | header.ecn.value();
            (ip.header().source_addr().into(), ip.header().destination_addr().into(), header.time_to_live, tos)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
                header.hop_limit,
                header.traffic_class,
            )
        }
        other => panic!("no IP: {other:?}"),
    };
    let checksum = |udp: bool, ports: &TransportSlice<'_>| match (source, destination, ports) {
        (IpAddr::V4(a), IpAddr::V4(b), TransportSlice::Udp(l4)) if udp => {
            l4.to_header().calc_checksum_ipv4_raw(a.octets(), b.octets(), l4.payload()).unwrap()
        }
        (IpAddr::V6(a), IpAddr::V6(b), TransportSlice::Udp(l4)) if udp => {
            l4.to_header().calc_checksum_ipv6_raw(a.octets(), b.octets(), l4.payload()).unwrap()
        }
        (IpAddr::V4(a), IpAddr::V4(b), TransportSlice::Tcp(l4)) => {
            l4.to_header().calc_checksum_ipv4_raw(a.octets(), b.octets(), l4.payload()).unwrap()
        }
        (IpAddr::V6(a), IpAddr::V6(b), TransportSlice::Tcp(l4)) => {
            l4.to_header().calc_checksum_ipv6_raw(a.octets(), b.octets(), l4.payload()).unwrap()
        }
        other => panic!("{other:?}"),
    };
    let transport = sliced.transport;
    let (ports, payload) = match &transport {
        None => {
            let at = if source.is_ipv4() { 34 } else { 54 };
            (sctp::ports(frame).expect("TCP, UDP or SCTP"), frame[at + 12..].to_vec())
        }
        Some(transport) => transport_of(transport, source, checksum),
    };
    Read {
        macs,
        source: SocketAddr::new(source, ports.0),
        destination: SocketAddr::new(destination, ports.1),
        ttl,
        traffic_class,
        payload,
    }
}

/// Ports and payload of a packet whose checksum is what `checksum` computes.
fn transport_of(
    transport: &TransportSlice<'_>,
    source: IpAddr,
    checksum: impl Fn(bool, &TransportSlice<'_>) -> u16,
) -> ((u16, u16), Vec<u8>) {
    match transport {
        TransportSlice::Udp(udp) => {
            assert!(
                udp.checksum() == checksum(true, transport) || (udp.checksum() == 0 && source.is_ipv4()),
                "UDP checksum"
            );
            ((udp.source_port(), udp.destination_port()), udp.payload().to_vec())
        }
        TransportSlice::Tcp(tcp) => {
            assert_eq!(tcp.checksum(), checksum(false, transport), "TCP checksum");
            ((tcp.source_port(), tcp.destination_port()), tcp.payload().to_vec())
        }
        other => panic!("neither UDP nor TCP: {other:?}"),
    }
}
