//! The whole way of packets through a gateway that has sessions: bursts on two ports, answers of real servers, errors about
//! packets, fragments, garbage, time that passes and tables that change.
//!
//! Whatever comes, each packet gets one verdict; what is sent is sound (`sent`); counts and tables agree, and once all
//! is quiet no session is left.

mod bytes;
mod gateway;
mod packet;
mod sent;

use fullgate::forward::{Origin, Verdict};
use fullgate::port::memory::MemoryFrame;
use fullgate::port::{BURST_SIZE, Frame, PortId, WorkerId};

use self::bytes::Bytes;
use self::gateway::{Gateway, LAN, MACS, VARIANTS, WAN};
use super::network::{self, Ip, SCTP, TCP, UDP};

/// Events of an input that count.
const EVENTS: usize = 64;
/// Packets of a port that are remembered, to be answered and complained about.
const REMEMBERED: usize = 16;
/// A port that there is not: what verdicts are before they are given.
const NO_PORT: PortId = PortId(99);

pub fn run(input: &[u8]) {
    let mut bytes = Bytes(input);
    let mut lab = Lab { gateway: Gateway::new(&mut bytes), seen: [Vec::new(), Vec::new()], waiting: Vec::new() };
    for _event in 0..EVENTS {
        if bytes.is_empty() {
            break;
        }
        lab.event(&mut bytes);
        lab.gateway.check_counts();
    }
    lab.gateway.check_end();
    lab.check_works();
}

struct Lab {
    gateway: Gateway,
    /// By port: packets that went out of it, and some that came in.
    seen: [Vec<Vec<u8>>; 2],
    /// Frames that wait for their next hop.
    waiting: Vec<(MemoryFrame, fullgate::forward::Hop)>,
}

impl Lab {
    fn event(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.byte() {
            what @ 0..0xd0 => {
                let port = if what & 1 == 0 { WAN } else { LAN };
                let worker = usize::from(what >> 1 & 1) % self.gateway.forwarders.len();
                // Most bursts are of few packets: an input is short.
                let count = if what >= 0xc8 { BURST_SIZE } else { 1 + usize::from(what >> 2 & 1) };
                self.burst(bytes, port, worker, count);
            }
            0xd0..0xe0 => {
                let seconds = bytes.one_of(&[0, 1, 3, 6, 13, 31, 91, 1700]);
                let milliseconds = seconds * 1000 + u64::from(bytes.byte()) * 10;
                self.gateway.pass(milliseconds, !bytes.rarely());
            }
            0xe0..0xf0 => self.gateway.change_services(bytes.below(VARIANTS)),
            _ => {
                self.gateway.change_routes(bytes.below(VARIANTS));
                self.complete();
            }
        }
    }

    /// A burst on a worker's queue, and what it hands over on the other worker's.
    fn burst(&mut self, bytes: &mut Bytes<'_>, port: PortId, worker: usize, count: usize) {
        let mut frames = Vec::new();
        while frames.len() < count && (frames.is_empty() || !bytes.is_empty()) {
            self.packets(bytes, port, &mut frames);
        }
        frames.truncate(BURST_SIZE);
        let first = if bytes.rarely() { 14 + usize::from(bytes.byte()) } else { usize::MAX };
        let handed_over = self.process(&frames, first, port, worker, Origin::Queue);
        if !handed_over.is_empty() {
            let rest = self.process(&handed_over, first, port, 1 - worker, Origin::HandedOver);
            let rest = self.process(&rest, first, port, worker, Origin::HandedOver);
            assert!(rest.is_empty(), "handed over three times");
        }
    }

    /// One packet, or all fragments of one.
    fn packets(&mut self, bytes: &mut Bytes<'_>, port: PortId, frames: &mut Vec<Vec<u8>>) {
        let what = bytes.byte();
        let seen = &self.seen[port.index()];
        let remembered = seen.get(bytes.below(REMEMBERED)).and_then(|packet| network::read(packet).ok());
        let packet = match (what, remembered) {
            (0xf8.., _) => {
                let len = bytes.byte().into();
                frames.push([&MACS[port.index()].0[..], bytes.take(len)].concat());
                return;
            }
            (0x60..0xb0, Some(seen)) => answer(bytes, &seen),
            (0xb0..0xd0, Some(seen)) => packet::error_about(bytes, &seen),
            (0xd0..0xe0, Some(seen)) => seen.bytes.to_vec(),
            (0xe0..0xf8, _) => {
                let whole = remembered.filter(|_| what & 1 == 0).map(|seen| answer(bytes, &seen));
                let whole = whole.unwrap_or_else(|| packet::any(bytes));
                let (size, id) = (usize::from(bytes.byte()) * 8, bytes.byte());
                let Ok(whole) = network::read(&whole) else { return frames.push(whole) };
                let mut fragments = packet::fragments(&whole, size, id);
                if id & 0x80 != 0 {
                    fragments.reverse();
                }
                frames.extend(fragments.iter().take(4).map(|fragment| packet::frame(bytes, port, fragment)));
                return;
            }
            _ => packet::any(bytes),
        };
        frames.push(packet::frame(bytes, port, &packet));
    }

    /// Takes frames through a worker, and gives those that it hands over.
    fn process(
        &mut self,
        frames: &[Vec<u8>],
        first: usize,
        port: PortId,
        worker: usize,
        origin: Origin,
    ) -> Vec<Vec<u8>> {
        let mut memory: Vec<_> = frames.iter().map(|frame| MemoryFrame::scattered(frame, first)).collect();
        let mut verdicts = [Verdict::Transmit(NO_PORT); BURST_SIZE];
        let gateway = &mut self.gateway;
        gateway.forwarders[worker].process(port, &mut memory, origin, gateway.now, &mut verdicts);
        let mut handed_over = Vec::new();
        for ((input, frame), verdict) in frames.iter().zip(memory).zip(verdicts) {
            let mut output = Vec::new();
            frame.copy_to(&mut output);
            assert_eq!(output.len(), frame.packet_len(), "the frame's length");
            match verdict {
                Verdict::Transmit(out) => {
                    assert!(out.index() < MACS.len(), "no verdict, or a port that there is not");
                    sent::check(input, &output, gateway.mtu);
                    assert_eq!(output[6..12], MACS[out.index()].0, "from another's link-layer address");
                    remember(&mut self.seen[out.index()], &output[14..]);
                }
                Verdict::AwaitNeighbour(hop) => {
                    assert!(hop.port.index() < MACS.len(), "a port that there is not");
                    // All is ready but the Ethernet header.
                    let ethertype = if output[14] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
                    output[12..14].copy_from_slice(&ethertype);
                    sent::check(input, &output, gateway.mtu);
                    self.waiting.push((frame, hop));
                }
                Verdict::HandOver(WorkerId(to)) => {
                    let other = usize::from(to) == 1 - worker && gateway.forwarders.len() == 2;
                    assert!(other, "handed over to itself or to nobody");
                    // A fragment goes to the worker that brings its datagram together, and then to the owner. An ICMP
                    // error goes round, where nobody knows whom a device has dealt its flow to.
                    let may_go_on =
                        || network::read(&input[14..]).is_ok_and(|packet| packet.fragment || is_icmp(&packet));
                    assert!(origin == Origin::Queue || may_go_on(), "handed over twice");
                    assert_eq!(&output, input, "changed before it is handed over");
                    handed_over.push(output);
                }
                Verdict::Punt(_) => assert_eq!(&output, input, "changed before the kernel gets it"),
                // What is dropped may be anything by then.
                _ => {}
            }
        }
        handed_over
    }

    /// Sends what waited and can go.
    fn complete(&mut self) {
        for (mut frame, hop) in std::mem::take(&mut self.waiting) {
            if self.gateway.forwarders[0].complete(&mut frame, hop) {
                let mut output = Vec::new();
                frame.copy_to(&mut output);
                sent::check_alone(&output);
                assert_eq!(output[6..12], MACS[hop.port.index()].0, "from another's link-layer address");
            }
        }
    }

    /// A new client gets through.
    fn check_works(&mut self) {
        let source = "198.18.9.9".parse().unwrap();
        let ends = packet::Ends { source, destination: "10.0.0.100".parse().unwrap(), ports: (50_000, 87) };
        let question = packet::between(&mut Bytes(&[]), ends, UDP);
        let frame = packet::frame(&mut Bytes(&[]), WAN, &question);
        let before = self.gateway.counters.iter().map(|counters| counters.sessions_created.get()).sum::<u64>();
        let handed_over = self.process(&[frame], usize::MAX, WAN, 0, Origin::Queue);
        self.process(&handed_over, usize::MAX, WAN, 1 % self.gateway.forwarders.len(), Origin::HandedOver);
        let after = self.gateway.counters.iter().map(|counters| counters.sessions_created.get()).sum::<u64>();
        assert_eq!(after, before + 1, "a new client gets no session any more");
    }
}

fn is_icmp(packet: &Ip<'_>) -> bool {
    [1, 58].contains(&packet.protocol)
}

/// What the receiver of a packet says to it.
fn answer(bytes: &mut Bytes<'_>, seen: &Ip<'_>) -> Vec<u8> {
    let (source, destination) = seen.ports().unwrap_or_default();
    let ends = packet::Ends { source: seen.destination, destination: seen.source, ports: (destination, source) };
    let protocol = if bytes.rarely() { bytes.one_of(&[TCP, UDP, SCTP]) } else { seen.protocol };
    packet::between(bytes, ends, protocol)
}

/// Keeps the last packets. A tunnel's is kept as what is inside it: that is what real servers answer.
fn remember(seen: &mut Vec<Vec<u8>>, packet: &[u8]) {
    if seen.len() == REMEMBERED {
        seen.pop();
    }
    seen.insert(0, packet.to_vec());
}
