//! Tells neighbours where addresses are: gratuitous ARP and unsolicited neighbour advertisements, some of each, at a
//! bounded rate.
//!
//! The kernel announces addresses when a TAP is set up or its link-layer address changes, and IPv6 addresses that it
//! has checked for duplicates (`twin/sysctl.rs` asks for it). It does not for an IPv4 address that is added, nor when
//! a link comes back; that is done here. What is due is decided here, when and to whom in `port_watch`.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::time::Instant;

use crate::port::{MacAddress, PortId};
use crate::wire::{checksum, ethernet};

/// How often an address is announced: frames get lost while switches learn where a link leads.
const TIMES: u8 = 3;
/// Between two announcements of one address, at least.
const GAP: Duration = Duration::from_secs(1);
/// Between two batches, and addresses in one: a thousand a second, which the slow path of a switch bears.
const BATCH_INTERVAL: Duration = Duration::from_millis(20);
const BATCH: usize = 20;

/// An address on a port.
pub type Place = (PortId, IpAddr);

/// What is to be announced. Bounded by the number of addresses: each is in it once.
#[derive(Debug)]
pub struct Announcements {
    /// How often each is still to be announced.
    left: HashMap<Place, u8>,
    /// For the first time.
    first: VecDeque<Place>,
    /// Again, not before.
    again: VecDeque<(Instant, Place)>,
    /// No batch before.
    rested: Instant,
}

impl Announcements {
    /// None, from now on.
    pub fn new(now: Instant) -> Self {
        Self { left: HashMap::new(), first: VecDeque::new(), again: VecDeque::new(), rested: now }
    }

    /// Has an address announced from now on, as often as needed.
    pub fn add(&mut self, place: Place) {
        if self.left.insert(place, TIMES).is_none() {
            self.first.push_back(place);
        }
    }

    /// When the next batch is due; none: nothing is to be announced.
    pub fn due(&self) -> Option<Instant> {
        let next = if self.first.is_empty() { self.again.front()?.0 } else { self.rested };
        Some(next.max(self.rested))
    }

    /// The next batch, of places that `is_there`; the others are forgotten.
    pub fn batch(&mut self, now: Instant, is_there: impl Fn(&Place) -> bool) -> Vec<Place> {
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(place) = self.next(now)
        {
            let left = self.left.get(&place).map_or(0, |left| left - 1);
            if !is_there(&place) {
                self.left.remove(&place);
                continue;
            }
            if left == 0 {
                self.left.remove(&place);
            } else {
                self.left.insert(place, left);
                self.again.push_back((now + GAP, place));
            }
            batch.push(place);
        }
        self.rested = now + BATCH_INTERVAL;
        batch
    }

    fn next(&mut self, now: Instant) -> Option<Place> {
        let again = |announcements: &mut Self| Some(announcements.again.pop_front_if(|(due, _)| *due <= now)?.1);
        self.first.pop_front().or_else(|| again(self))
    }
}

/// The frame that announces an address of a port with this link-layer address. `router`: whether an IPv6 neighbour may
/// take the host for a router.
pub fn frame(address: IpAddr, mac: MacAddress, router: bool) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => gratuitous_arp(address, mac),
        IpAddr::V6(address) => unsolicited_advertisement(address, mac, router),
    }
}

/// An ARP announcement (RFC 5227, 3): a request for the address by itself, as the kernel sends it.
fn gratuitous_arp(address: Ipv4Addr, mac: MacAddress) -> Vec<u8> {
    const REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let mut frame = ethernet_header(MacAddress::BROADCAST, mac, ethernet::ARP);
    for part in [&REQUEST[..], &mac.0, &address.octets(), &[0; 6], &address.octets()] {
        frame.extend_from_slice(part);
    }
    // The shortest frame.
    frame.resize(60, 0);
    frame
}

/// An unsolicited neighbour advertisement to all nodes, which overrides what they know (RFC 4861, 4.4 and 7.2.6).
fn unsolicited_advertisement(address: Ipv6Addr, mac: MacAddress, router: bool) -> Vec<u8> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const ICMPV6: u8 = 58;
    const LEN: u8 = 32;
    let flags = if router { 0xa0 } else { 0x20 };
    let mut message = vec![136, 0, 0, 0, flags, 0, 0, 0];
    message.extend_from_slice(&address.octets());
    // The target's link-layer address.
    message.extend_from_slice(&[2, 1]);
    message.extend_from_slice(&mac.0);
    let parts = [&address.octets()[..], &ALL_NODES.octets(), &[0, 0, 0, LEN, 0, 0, 0, ICMPV6], &message];
    let sum = !checksum::fold(parts.iter().map(|part| checksum::sum(part)).sum());
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = ethernet_header(MacAddress([0x33, 0x33, 0, 0, 0, 1]), mac, ethernet::IPV6);
    // Hop limit 255: from a neighbour.
    for part in [&[0x60, 0, 0, 0, 0, LEN, ICMPV6, 255][..], &address.octets(), &ALL_NODES.octets(), &message] {
        frame.extend_from_slice(part);
    }
    frame
}

fn ethernet_header(destination: MacAddress, source: MacAddress, ethertype: u16) -> Vec<u8> {
    [&destination.0[..], &source.0, &ethertype.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv6Type, SlicedPacket, TransportSlice};

    use super::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 7]);

    fn place(number: u32) -> Place {
        (PortId(0), Ipv4Addr::from_bits(0x0a00_0000 + number).into())
    }

    /// Announces all that comes due within a minute, by seconds from the start.
    fn run(announcements: &mut Announcements, start: Instant) -> Vec<(u64, Place)> {
        let mut all = Vec::new();
        let mut now = start;
        while let Some(due) = announcements.due() {
            now = now.max(due);
            let batch = announcements.batch(now, |_| true);
            assert!(batch.len() <= BATCH);
            all.extend(batch.into_iter().map(|place| ((now - start).as_secs(), place)));
        }
        all
    }

    #[test]
    fn an_address_is_announced_three_times_a_second_apart() {
        let start = Instant::now();
        let mut announcements = Announcements::new(start);
        assert_eq!(announcements.due(), None);
        announcements.add(place(1));
        assert_eq!(run(&mut announcements, start), [(0, place(1)), (1, place(1)), (2, place(1))]);
        assert_eq!((announcements.due(), announcements.left.len()), (None, 0));
    }

    #[test]
    fn thousands_take_their_time_and_none_is_queued_twice() {
        let start = Instant::now();
        let mut announcements = Announcements::new(start);
        for number in 0..4000 {
            announcements.add(place(number));
            announcements.add(place(number));
        }
        assert_eq!(announcements.first.len(), 4000);
        let all = run(&mut announcements, start);
        assert_eq!(all.len(), 12_000);
        assert!((11..=13).contains(&all.last().unwrap().0), "a thousand a second: {:?}", all.last());
        assert!((0..4000).all(|number| all.iter().filter(|(_, each)| *each == place(number)).count() == 3));
    }

    #[test]
    fn what_is_gone_is_announced_no_more() {
        let start = Instant::now();
        let mut announcements = Announcements::new(start);
        announcements.add(place(1));
        announcements.add(place(2));
        assert_eq!(announcements.batch(start, |_| true), [place(1), place(2)]);
        assert_eq!(announcements.batch(start + GAP, |each| *each == place(2)), [place(2)]);
        // Again from the beginning, while the last time is still to come.
        announcements.add(place(2));
        assert_eq!(announcements.batch(start + 2 * GAP, |_| true), [place(2)]);
        assert_eq!(announcements.left[&place(2)], 2);
    }

    #[test]
    fn the_arp_frame_asks_for_itself() {
        let frame = frame("10.0.0.1".parse().unwrap(), MAC, false);
        assert_eq!((frame.len(), &frame[..14]), (60, &[255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 7, 8, 6][..]));
        assert_eq!(frame[14..28], [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7]);
        assert_eq!(frame[28..42], [10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    }

    #[test]
    fn the_advertisement_is_a_sound_icmpv6_packet() {
        let address: Ipv6Addr = "2001:db8::7".parse().unwrap();
        for (router, flags) in [(false, 0x20), (true, 0xa0)] {
            let frame = frame(address.into(), MAC, router);
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("{packet:?}") };
            let header = icmp.header();
            assert!(icmp.is_checksum_valid(address.octets(), "ff02::1".parse::<Ipv6Addr>().unwrap().octets()));
            assert!(!matches!(header.icmp_type, Icmpv6Type::Unknown { .. }), "{header:?}");
            assert_eq!((icmp.slice()[0], icmp.slice()[4]), (136, flags));
            assert_eq!(icmp.slice()[8..], [&address.octets()[..], &[2, 1], &MAC.0].concat());
            assert_eq!((frame[14 + 7], &frame[..6]), (255, &[0x33, 0x33, 0, 0, 0, 1][..]));
        }
    }
}
