//! GRE headers, version 0 (RFC 2784).

/// IP protocol number.
pub const PROTOCOL: u8 = 47;
/// Bytes of a header without checksum.
pub const LEN: usize = 4;
/// Bytes of a header with checksum.
pub const LEN_WITH_CHECKSUM: usize = 8;

/// The header for a payload of this EtherType, with room for a checksum or without. Nothing is written to a slice that
/// is too short.
pub fn write(header: &mut [u8], ethertype: u16, checksum: bool) {
    let [high, low] = ethertype.to_be_bytes();
    if checksum {
        if let Some(header) = header.first_chunk_mut::<LEN_WITH_CHECKSUM>() {
            *header = [0x80, 0, high, low, 0, 0, 0, 0];
        }
    } else if let Some(header) = header.first_chunk_mut::<LEN>() {
        *header = [0, 0, high, low];
    }
}

/// Puts the checksum over header and payload into a header that has room for one.
pub fn set_checksum(header: &mut [u8], payload: &[u8]) {
    use super::checksum::{fold, sum};
    let total = fold(sum(header) + u32::from(fold(sum(payload))));
    if let Some(header) = header.first_chunk_mut::<LEN_WITH_CHECKSUM>() {
        header[4..6].copy_from_slice(&(!total).to_be_bytes());
    }
}

/// The EtherType of what a packet carries, and the bytes in front of that. None for headers other than those that
/// [`write`] makes.
pub fn read(packet: &[u8]) -> Option<(u16, usize)> {
    let &[flags, version, high, low] = packet.first_chunk::<LEN>()?;
    let len = match [flags, version] {
        [0, 0] => LEN,
        [0x80, 0] => LEN_WITH_CHECKSUM,
        _ => return None,
    };
    Some((u16::from_be_bytes([high, low]), len))
}
