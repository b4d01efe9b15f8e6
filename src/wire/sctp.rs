//! SCTP headers (RFC 9260), as much of them as balancing needs: the ports, the checksum, and what the packet is for.
//!
//! Nothing is said here of chunks behind the first one, but for an ABORT that comes with a COOKIE ECHO or a COOKIE ACK.

use super::crc32c;
use super::{be16, tcp::Flags};

/// IP protocol number.
pub const PROTOCOL: u8 = 132;
/// Bytes of the common header (section 3.1).
pub const LEN: usize = 12;
/// Bytes of a chunk's header (section 3.2).
pub const CHUNK_LEN: usize = 4;
/// Bytes that any packet has: one without a chunk says nothing.
pub const MIN_LEN: usize = LEN + CHUNK_LEN;
/// Where the checksum stands in the common header.
pub const CHECKSUM_AT: usize = 8;

/// A view of the common header and the first chunk's.
#[derive(Clone, Copy, Debug)]
pub struct Sctp<'a>(&'a [u8; MIN_LEN]);

/// What a packet does to its association, as far as a middle box sees it (net/netfilter/ipvs/ip_vs_proto_sctp.c,
/// `sctp_events`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the chunk types of section 3.2")]
pub enum Event {
    /// DATA, SACK, HEARTBEAT and whatever else changes nothing.
    Data = 0,
    Init,
    InitAck,
    CookieEcho,
    CookieAck,
    Shutdown,
    ShutdownAck,
    ShutdownComplete,
    Error,
    Abort,
}

impl Event {
    /// Every event: `ALL[event as usize] == event`.
    pub const ALL: [Self; 10] = [
        Self::Data,
        Self::Init,
        Self::InitAck,
        Self::CookieEcho,
        Self::CookieAck,
        Self::Shutdown,
        Self::ShutdownAck,
        Self::ShutdownComplete,
        Self::Error,
        Self::Abort,
    ];

    /// What a chunk of this type is.
    const fn of_chunk(kind: u8) -> Self {
        match kind {
            1 => Self::Init,
            2 => Self::InitAck,
            6 => Self::Abort,
            7 => Self::Shutdown,
            8 => Self::ShutdownAck,
            9 => Self::Error,
            10 => Self::CookieEcho,
            11 => Self::CookieAck,
            14 => Self::ShutdownComplete,
            _ => Self::Data,
        }
    }

    /// The event in the place of TCP's control bits: INIT looks like a SYN, which it is to an association, and nothing else
    /// does. So what opens a session is asked in one way of both.
    #[inline]
    pub const fn to_flags(self) -> Flags {
        match self {
            Self::Init => Flags(Flags::SYN.0),
            event => Flags((event as u8) << 4 | Flags::RST.0),
        }
    }

    /// The event that such bits stand for.
    #[inline]
    pub fn from_flags(flags: Flags) -> Self {
        match flags.has(Flags::RST) {
            true => Self::ALL.get(usize::from(flags.0 >> 4)).copied().unwrap_or(Self::Data),
            false => Self::Init,
        }
    }
}

impl<'a> Sctp<'a> {
    /// The headers at the front of an IP payload; none if that is shorter.
    #[inline]
    pub fn new(payload: &'a [u8]) -> Option<Self> {
        payload.first_chunk().map(Self)
    }

    /// The source port.
    #[inline]
    pub fn source_port(self) -> u16 {
        be16!(self.0, 0)
    }

    /// The destination port.
    #[inline]
    pub fn destination_port(self) -> u16 {
        be16!(self.0, 2)
    }

    /// What the packet does: what its first chunk says, or ABORT where that is the second behind a COOKIE ECHO or COOKIE ACK
    /// (section 3.3.7: it may come behind control chunks). `payload` is the whole packet, as far as it is at hand.
    pub fn event(self, payload: &[u8]) -> Event {
        let event = Event::of_chunk(self.0[LEN]);
        if !matches!(event, Event::CookieEcho | Event::CookieAck) {
            return event;
        }
        let len = usize::from(be16!(self.0, 14));
        let second = payload.get(LEN + len.next_multiple_of(4)..).filter(|_| len >= CHUNK_LEN);
        match second.and_then(<[u8]>::first_chunk::<CHUNK_LEN>) {
            Some(&[kind, ..]) if Event::of_chunk(kind) == Event::Abort => Event::Abort,
            _ => event,
        }
    }
}

/// Gives the packet at whose front `header` stands, and that has `len` bytes, other ports, and lets its checksum follow.
///
/// The checksum covers the ports, but no address, and all that follows; what follows need not be read: see
/// [`crc32c::change`]. So one that was wrong stays wrong, and the receiver finds it out.
pub fn set_ports(header: &mut [u8; LEN], ports: [u8; 4], len: u16) {
    let [a, b, c, d, ..] = *header;
    header[..4].copy_from_slice(&ports);
    flip_checksum(header, crc32c::change(changed_bits([a, b, c, d], ports), len));
}

/// The bits by which ports differ, as [`crc32c::change`] takes them.
#[inline]
pub const fn changed_bits(old: [u8; 4], new: [u8; 4]) -> u32 {
    u32::from_le_bytes(old) ^ u32::from_le_bytes(new)
}

/// Changes these bits of the checksum.
#[inline]
pub fn flip_checksum(header: &mut [u8; LEN], bits: u32) {
    if let Some(field) = header.last_chunk_mut::<4>() {
        // The checksum is sent lowest byte first (appendix A).
        *field = (u32::from_le_bytes(*field) ^ bits).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(chunks: &[u8]) -> Vec<u8> {
        [&[0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0], chunks].concat()
    }

    fn event(chunks: &[u8]) -> Event {
        let bytes = packet(chunks);
        Sctp::new(&bytes).unwrap().event(&bytes)
    }

    #[test]
    fn events_are_in_order_and_come_back_from_flags() {
        for (number, &event) in Event::ALL.iter().enumerate() {
            assert_eq!(number, event as usize);
            let flags = event.to_flags();
            assert_eq!(Event::from_flags(flags), event);
            assert_eq!(flags.has(Flags::SYN) && !flags.has(Flags::RST), event == Event::Init, "{event:?}");
        }
    }

    #[test]
    fn the_first_chunk_says_what_a_packet_is() {
        assert_eq!(event(&[1, 0, 0, 20]), Event::Init);
        assert_eq!(event(&[3, 0, 0, 16]), Event::Data);
        assert_eq!(event(&[14, 1, 0, 4]), Event::ShutdownComplete);
        assert_eq!(event(&[6, 0, 0, 4, 1, 0, 0, 20]), Event::Abort);
        assert_eq!(event(&[192, 0, 0, 4]), Event::Data);
    }

    #[test]
    fn an_abort_behind_a_cookie_counts() {
        assert_eq!(event(&[10, 0, 0, 4, 6, 0, 0, 4]), Event::Abort);
        assert_eq!(event(&[11, 0, 0, 5, 9, 9, 9, 9, 6, 0, 0, 4]), Event::Abort, "chunks are padded");
        assert_eq!(event(&[10, 0, 0, 4, 0, 3, 0, 16]), Event::CookieEcho);
        assert_eq!(event(&[10, 0, 0, 4, 6, 0, 0]), Event::CookieEcho, "cut short");
        assert_eq!(event(&[10, 0, 0, 0, 6, 0, 0, 4]), Event::CookieEcho, "a length that cannot be");
        assert_eq!(event(&[10, 0, 0xff, 0xff, 6, 0, 0, 4]), Event::CookieEcho, "beyond the packet");
        assert_eq!(event(&[3, 0, 0, 4, 6, 0, 0, 4]), Event::Data, "only behind these");
    }

    proptest! {
        #[test]
        fn changed_equals_recomputed(
            mut bytes in proptest::collection::vec(any::<u8>(), MIN_LEN..3000),
            ports in any::<[u8; 4]>(),
            damage in any::<bool>(),
        ) {
            bytes[8..12].fill(0);
            let checksum = crc32c::tests::bit_by_bit(&bytes);
            bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
            if damage {
                bytes[14] ^= 0x10;
            }
            let len = u16::try_from(bytes.len()).unwrap();
            set_ports(bytes.first_chunk_mut().unwrap(), ports, len);
            let sent = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
            prop_assert_eq!(&bytes[..4], &ports);
            bytes[8..12].fill(0);
            prop_assert_eq!(sent == crc32c::tests::bit_by_bit(&bytes), !damage);
        }
    }
}
