//! From bytes to a packet: what is found lies in the frame, and both ways of looking agree.

use fullgate::forward::parse::{Parsed, parse, plain, plain_ipv6};
use fullgate::port::memory::MemoryFrame;
use fullgate::port::{Frame, MacAddress};

const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

/// The first byte says whether the frame is made one for this port, whether that is promiscuous, and whether only a part of
/// the frame is in its first segment; the second how much. The frame follows.
pub fn run(input: &[u8]) {
    let Some((&[how, first], frame)) = input.split_first_chunk() else { return };
    let mut bytes = frame.to_vec();
    if how & 1 == 0
        && let Some(destination) = bytes.first_chunk_mut()
    {
        *destination = OWN.0;
    }
    let frame = match how & 4 {
        0 => MemoryFrame::new(&bytes),
        _ => MemoryFrame::scattered(&bytes, first.into()),
    };
    let parsed = parse(&frame, OWN, how & 2 != 0);
    match parsed {
        Parsed::Ipv4(packet) => check_lengths(&frame, packet.header_len, packet.total_len, packet.l4_offset()),
        Parsed::Ipv6(packet) => check_lengths(&frame, packet.header_len, packet.total_len, packet.l4_offset()),
        _ => {}
    }
    // The quick ones do not look at addresses: what the careful one refuses has one that no session has.
    if let Some(quick) = plain(&frame, OWN) {
        assert!(parsed == Parsed::Ipv4(quick) || matches!(parsed, Parsed::Decided(_)), "{quick:?} and {parsed:?}");
    }
    if let Some(quick) = plain_ipv6(&frame, OWN) {
        assert!(parsed == Parsed::Ipv6(quick) || matches!(parsed, Parsed::Decided(_)), "{quick:?} and {parsed:?}");
    }
}

fn check_lengths(frame: &MemoryFrame, header_len: u8, total_len: u16, l4_offset: usize) {
    assert!(14 + usize::from(total_len) <= frame.packet_len(), "longer than its frame");
    assert!(u16::from(header_len) + 8 <= total_len, "no room for a transport header");
    assert!(l4_offset + 8 <= frame.bytes().len(), "the transport header is not in the first segment");
}
