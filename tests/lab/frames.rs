//! Frames of our own making: valid ones, ones that are wrong in a chosen way, and capture files of them.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;

use etherparse::PacketBuilder;

/// A small deterministic generator (xorshift64*): the same seed gives the same frames everywhere.
pub struct Random(u64);

impl Random {
    /// One with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    /// That many random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[7]).collect()
    }
}

/// A valid UDP packet.
pub fn udp(macs: ([u8; 6], [u8; 6]), from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(macs.0, macs.1).ipv4(from.0.octets(), to.0.octets(), 64).udp(from.1, to.1);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// A valid TCP packet with these flags: `S`, `A`, `F`, `R`, `P`.
pub fn tcp(macs: ([u8; 6], [u8; 6]), from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: &str) -> Vec<u8> {
    let mut builder =
        PacketBuilder::ethernet2(macs.0, macs.1).ipv4(from.0.octets(), to.0.octets(), 64).tcp(from.1, to.1, 1000, 4096);
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'A' => builder.ack(1),
            'F' => builder.fin(),
            'R' => builder.rst(),
            _ => builder.psh(),
        };
    }
    let mut frame = Vec::new();
    builder.write(&mut frame, b"").unwrap();
    frame
}

/// A frame that is wrong somehow: cut, padded, with a field changed, of zeros, of noise. Never one of fewer than
/// `shortest` bytes.
pub fn garbage(random: &mut Random, macs: ([u8; 6], [u8; 6]), vip: Ipv4Addr, shortest: usize) -> Vec<u8> {
    let client = (Ipv4Addr::from(0x0a00_0000 | (random.next() as u32 & 0xff_ffff)), random.next() as u16);
    let port = [80, 53, 0, 65_535][random.below(4)];
    let size = random.below(64);
    let payload = random.bytes(size);
    let flags = ["S", "A", "F", "R", "SFRP", ""][random.below(6)];
    let mut frame = match random.below(2) {
        0 => udp(macs, client, (vip, port), &payload),
        _ => tcp(macs, client, (vip, port), flags),
    };
    match random.below(12) {
        0 => frame.truncate(random.below(frame.len())),
        1 => frame = vec![0; random.below(1600)],
        2 => {
            let size = random.below(1600);
            frame = random.bytes(size);
        }
        // Behind a good Ethernet header: noise.
        3 => {
            let size = random.below(1500);
            frame.truncate(14);
            frame.extend(random.bytes(size));
        }
        // Version and header length of IPv4; its total length; flags and fragment offset; its checksum.
        4 => frame[14] = random.next() as u8,
        5 => frame[16..18].copy_from_slice(&(random.next() as u16).to_be_bytes()),
        6 => frame[20..22].copy_from_slice(&(random.next() as u16).to_be_bytes()),
        7 => frame[24..26].copy_from_slice(&(random.next() as u16).to_be_bytes()),
        // TCP's header length, or a byte of UDP's payload; lengths and checksums of either.
        8 => change(&mut frame, 46, random.next() as u8),
        9 => change(&mut frame, 38 + random.below(4), random.next() as u8),
        // IPv4 options, which the header length announces and noise fills.
        10 => {
            let words = 1 + random.below(10);
            frame[14] = 0x45 + u8::try_from(words).unwrap();
            let options = random.bytes(4 * words);
            frame.splice(34..34, options);
        }
        // A good packet, grown far beyond what its headers say.
        _ => {
            let size = random.below(4000);
            frame.extend(random.bytes(size));
        }
    }
    if frame.len() < shortest {
        frame.resize(shortest, 0);
    }
    frame
}

fn change(frame: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = frame.get_mut(at) {
        *byte = value;
    }
}

/// Writes a capture file (the classic pcap format, Ethernet).
pub fn write_pcap(path: &Path, frames: &[Vec<u8>]) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let header: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1];
    header.iter().for_each(|word| file.write_all(&word.to_le_bytes()).unwrap());
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap();
        [0, 0, length, length].iter().for_each(|word: &u32| file.write_all(&word.to_le_bytes()).unwrap());
        file.write_all(frame).unwrap();
    }
    file.flush().unwrap();
}
