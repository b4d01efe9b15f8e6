//! Generic UDP Encapsulation, variant 0 without extensions, as Linux speaks it (include/net/gue.h, `struct guehdr`).

use crate::flow::FlowHash;

/// Bytes of a header without flags and options.
pub const LEN: usize = 4;
/// The lowest source port: of those that are nobody's in particular (RFC 6335, 6).
const FIRST_SOURCE_PORT: u16 = 0xc000;

/// The header in front of a packet of this IP protocol. Nothing is written to a slice that is too short.
pub fn write(header: &mut [u8], protocol: u8) {
    if let Some(header) = header.first_chunk_mut::<LEN>() {
        *header = [0, protocol, 0, 0];
    }
}

/// The IP protocol of what a header without flags and options stands in front of; none for other headers.
pub fn read(packet: &[u8]) -> Option<u8> {
    match packet.first_chunk::<LEN>()? {
        &[0, protocol, 0, 0] => Some(protocol),
        _ => None,
    }
}

/// The UDP source port of a flow's packets: the same for all of them, so that routers and devices on the way, which
/// spread packets by it, keep them in order.
#[allow(clippy::cast_possible_truncation, reason = "the low 14 bits are taken")]
pub fn source_port(flow: FlowHash) -> u16 {
    FIRST_SOURCE_PORT | (flow.low_bits() as u16 & !FIRST_SOURCE_PORT)
}
