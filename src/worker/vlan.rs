//! VLAN tags (IEEE 802.1Q) between devices and ports: forwarding knows of none.
//!
//! What comes in by a device that carries VLANs loses its tag here and goes on, burst by burst, as its port's; what
//! goes out of a port that is a VLAN gets the tag. A device without VLANs costs a branch a burst. Tags are software's
//! on both ways: 12 bytes move within a line that is read or written anyway, and it is the same on every device. Where
//! a device has taken the tag off nevertheless, what it says of it counts.

use super::link::Event;
use super::{Clock, Worker, port_id};
use crate::forward::{DropReason, Now, Origin};
use crate::port::{BURST_SIZE, Frame, MAX_PORTS, PortId, PortPlace, PortQueue, VlanId};
use crate::telemetry::counters::WorkerCounters;
use crate::wire::{ethernet, vlan};

// Ports are bits of a word here.
const _: () = assert!(MAX_PORTS <= u32::BITS as usize, "more ports than bits");

/// Numbers that a tag can carry.
const NUMBERS: usize = 1 << 12;

/// Whose the frames of a device are.
#[derive(Debug)]
pub(super) enum Receiver<F> {
    /// All are this port's, as they are.
    Port(PortId),
    /// Those of each VLAN are a port's.
    Vlans(Sorter<F>),
}

impl<F: Frame> Receiver<F> {
    /// Of the device with this index. `strips_tags`: it may have taken tags off.
    pub(super) fn of(device: usize, places: &[PortPlace], strips_tags: bool) -> Self {
        let ports = || (0..).map(PortId).zip(places).filter(|(_, place)| place.device == device);
        let owner = ports().map(|(_, place)| place.owner).next().unwrap_or(PortId(u8::MAX));
        if !strips_tags && ports().all(|(_, place)| place.vlan.is_none()) {
            return Self::Port(owner);
        }
        let mut by_number = vec![None; NUMBERS];
        for (port, place) in ports() {
            by_number[usize::from(place.vlan.map_or(0, VlanId::number))] = Some(port);
        }
        let bursts = places.iter().map(|_| Vec::with_capacity(BURST_SIZE)).collect();
        Self::Vlans(Sorter { owner, by_number: by_number.into(), bursts })
    }

    /// The port that the device was given to, which counts all that comes in.
    #[inline]
    pub(super) fn owner(&self) -> PortId {
        match self {
            Self::Port(owner) | Self::Vlans(Sorter { owner, .. }) => *owner,
        }
    }
}

/// Deals a device's frames to its ports.
#[derive(Debug)]
pub(super) struct Sorter<F> {
    owner: PortId,
    /// By number of the VLAN; at 0 the port of frames without a tag.
    by_number: Box<[Option<PortId>]>,
    /// By port; empty between bursts.
    bursts: Vec<Vec<F>>,
}

impl<F: Frame> Sorter<F> {
    /// Deals the frames of a burst, which it leaves empty, without their tags. Gives the ports, as bits.
    pub(super) fn sort(&mut self, burst: &mut Vec<F>, counters: &WorkerCounters) -> u32 {
        let mut ports = 0;
        for mut frame in burst.drain(..) {
            let port =
                untag(&mut frame).and_then(|number| self.by_number[usize::from(number)].ok_or(DropReason::UnknownVlan));
            match port {
                Ok(port) => {
                    if port != self.owner {
                        let received = &counters.ports[port.index()].received;
                        received.packets.add(1);
                        received.bytes.add(frame.packet_len() as u64);
                    }
                    ports |= 1 << port.index();
                    self.bursts[port.index()].push(frame);
                }
                Err(reason) => counters.drop_packets(reason, 1),
            }
        }
        ports
    }

    /// A port's frames, to be taken out before the next burst.
    pub(super) fn burst_mut(&mut self, port: PortId) -> &mut Vec<F> {
        &mut self.bursts[port.index()]
    }
}

impl<Q: PortQueue, E: Event, C: Clock> Worker<Q, E, C> {
    /// Puts a burst from a device that carries VLANs through the forwarder, port by port; leaves `burst` empty.
    pub(super) fn process_by_vlan(&mut self, device: usize, burst: &mut Vec<Q::Frame>, now: Now) {
        let owner = self.receivers[device].owner();
        let mut receiver = std::mem::replace(&mut self.receivers[device], Receiver::Port(owner));
        if let Receiver::Vlans(sorter) = &mut receiver {
            let mut ports = sorter.sort(burst, &self.counters);
            while ports != 0 {
                let port = port_id(ports.trailing_zeros() as usize);
                self.process(port, sorter.burst_mut(port), Origin::Queue, now);
                ports &= ports - 1;
            }
        }
        self.receivers[device] = receiver;
    }
}

/// Takes a frame's tag off and gives the number of its VLAN: 0 for one that has none, or is tagged for its priority only.
fn untag<F: Frame>(frame: &mut F) -> Result<u16, DropReason> {
    let control = match frame.stripped_tag() {
        Some(control) => control,
        None => match ethertype(frame) {
            Some(vlan::CUSTOMER_TAG) => take_off(frame)?,
            Some(vlan::SERVICE_TAG) => return Err(DropReason::UnknownVlan),
            // Shorter than a header: forwarding says so.
            _ => return Ok(0),
        },
    };
    match ethertype(frame) {
        Some(second) if vlan::is_tag(second) => Err(DropReason::UnknownVlan),
        _ => Ok(vlan::number(control)),
    }
}

fn ethertype<F: Frame>(frame: &F) -> Option<u16> {
    ethernet::Ethernet::new(frame.bytes()).map(ethernet::Ethernet::ethertype)
}

/// A tag in the frame itself.
fn take_off<F: Frame>(frame: &mut F) -> Result<u16, DropReason> {
    let front = frame.bytes_mut().first_chunk_mut().ok_or(DropReason::Truncated)?;
    let control = vlan::take_off(front);
    if frame.trim_front(vlan::LEN) { Ok(control) } else { Err(DropReason::Truncated) }
}

/// Puts a tag on a frame without one; false, where its buffer has no room for it or it is no frame.
pub(super) fn tag<F: Frame>(frame: &mut F, number: VlanId) -> bool {
    if frame.bytes().len() < ethernet::LEN || !frame.prepend(vlan::LEN) {
        return false;
    }
    let Some(front) = frame.bytes_mut().first_chunk_mut() else { return false };
    vlan::put_on(front, number.number());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::memory::MemoryFrame;
    use crate::telemetry::counters::SlotLimits;

    const ADDRESSES: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    const PAYLOAD: [u8; 46] = [7; 46];

    fn frame(between: &[u8]) -> MemoryFrame {
        MemoryFrame::new(&[&ADDRESSES[..], between, &[8, 0], &PAYLOAD].concat())
    }

    fn places(vlans: &[Option<u16>]) -> Vec<PortPlace> {
        let place = |vlan: &Option<u16>| PortPlace { device: 0, owner: PortId(0), vlan: vlan.and_then(VlanId::new) };
        vlans.iter().map(place).collect()
    }

    /// By port: the frames that it gets; and how often each reason was counted.
    fn sorted(places: &[PortPlace], frames: Vec<MemoryFrame>) -> (Vec<usize>, Vec<(DropReason, u64)>) {
        let counters = WorkerCounters::new(SlotLimits { real_servers: 0, local_addresses: 0 });
        let Receiver::Vlans(mut sorter) = Receiver::of(0, places, false) else { panic!("no VLANs") };
        let mut burst = frames;
        let ports = sorter.sort(&mut burst, &counters);
        assert!(burst.is_empty());
        let counts = sorter.bursts.iter().enumerate().map(|(index, burst)| {
            assert_eq!(ports >> index & 1 == 1, !burst.is_empty());
            assert!(burst.iter().all(|each| each.bytes() == frame(&[]).bytes()), "{burst:?}");
            burst.len()
        });
        let drops = DropReason::ALL.iter().map(|&reason| (reason, counters.drops[reason as usize].get()));
        (counts.collect(), drops.filter(|(_, count)| *count > 0).collect())
    }

    #[test]
    fn each_vlan_is_a_port_and_priority_alone_is_none() {
        let frames = vec![
            frame(&[]),
            frame(&[0x81, 0, 0, 100]),
            frame(&[0x81, 0, 0x0f, 0xfe]),
            // Priority 7 with VLAN 100, and without one.
            frame(&[0x81, 0, 0xe0, 100]),
            frame(&[0x81, 0, 0xe0, 0]),
            MemoryFrame::stripped(frame(&[]).bytes(), 0x2064),
            MemoryFrame::stripped(frame(&[]).bytes(), 0),
        ];
        assert_eq!(sorted(&places(&[None, Some(100), Some(4094)]), frames), (vec![3, 3, 1], vec![]));
    }

    #[test]
    fn what_is_no_ports_is_counted() {
        let frames = || {
            vec![
                frame(&[0x81, 0, 0, 101]),
                frame(&[0x81, 0, 0x0f, 0xff]),
                // Stacks of tags.
                frame(&[0x88, 0xa8, 0, 100]),
                frame(&[0x88, 0xa8, 0, 100, 0x81, 0, 0, 100]),
                frame(&[0x81, 0, 0, 100, 0x81, 0, 0, 100]),
                MemoryFrame::stripped(frame(&[0x81, 0, 0, 100]).bytes(), 100),
                // Cut within the tag, and within the EtherType behind it.
                MemoryFrame::new(&frame(&[0x81, 0, 0, 100]).bytes()[..16]),
                MemoryFrame::new(&frame(&[0x81, 0, 0, 100]).bytes()[..17]),
            ]
        };
        let counted = vec![(DropReason::Truncated, 2), (DropReason::UnknownVlan, 6)];
        assert_eq!(sorted(&places(&[None, Some(100)]), frames()), (vec![0, 0], counted));
        // A port for one VLAN takes nothing else, not even what has no tag.
        let alone = sorted(&places(&[Some(100)]), vec![frame(&[]), frame(&[0x81, 0, 0, 100])]);
        assert_eq!(alone, (vec![1], vec![(DropReason::UnknownVlan, 1)]));
    }

    #[test]
    fn a_device_without_vlans_is_sorted_only_if_it_hides_tags() {
        let whole = [PortPlace::whole_device(PortId(0)), PortPlace::whole_device(PortId(1))];
        assert!(matches!(Receiver::<MemoryFrame>::of(1, &whole, false), Receiver::Port(PortId(1))));
        assert!(matches!(Receiver::<MemoryFrame>::of(1, &whole, true), Receiver::Vlans(_)));
        let vlan = [places(&[None, Some(5)]), vec![PortPlace { device: 1, owner: PortId(2), vlan: None }]].concat();
        assert!(matches!(Receiver::<MemoryFrame>::of(0, &vlan, false), Receiver::Vlans(_)));
        assert!(matches!(Receiver::<MemoryFrame>::of(1, &vlan, false), Receiver::Port(PortId(2))));
    }

    #[test]
    fn a_tag_is_put_on_where_there_is_room() {
        let mut tagged = frame(&[]);
        assert!(tag(&mut tagged, VlanId::new(100).unwrap()));
        assert_eq!(tagged.bytes(), frame(&[0x81, 0, 0, 100]).bytes());
        let mut frame = frame(&[]);
        assert!(frame.prepend(126), "more than half of the headroom");
        assert!(!tag(&mut frame, VlanId::new(100).unwrap()));
        assert!(!tag(&mut MemoryFrame::new(&[1; 13]), VlanId::new(1).unwrap()));
    }
}
