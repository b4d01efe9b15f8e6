//! What a packet carries: its number and its times.

/// Bytes of a packet: with its headers a frame of 74.
pub const LEN: usize = 32;

/// A packet; times are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// From 0 on.
    pub number: u64,
    /// When it should have been sent.
    pub due: u64,
    /// When it was.
    pub sent: u64,
    /// When it came to the echo; 0 until then.
    pub echoed: u64,
}

impl Packet {
    /// As it is sent.
    pub fn bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        for (place, word) in
            bytes.as_chunks_mut::<8>().0.iter_mut().zip([self.number, self.due, self.sent, self.echoed])
        {
            *place = word.to_be_bytes();
        }
        bytes
    }

    /// As it came; none if it is something else.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LEN] = bytes.try_into().ok()?;
        let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_be_bytes(*word));
        Some(Self { number: words.next()?, due: words.next()?, sent: words.next()?, echoed: words.next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_as_written() {
        let packet = Packet { number: 1, due: 2 << 40, sent: 3, echoed: u64::MAX };
        assert_eq!(Packet::read(&packet.bytes()), Some(packet));
        assert_eq!(Packet::read(&packet.bytes()[1..]), None);
    }
}
