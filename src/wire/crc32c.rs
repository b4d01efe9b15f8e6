//! What changing some bits of a packet does to its CRC32c (RFC 9260, appendix A), without reading the packet.
//!
//! A CRC is linear: of two packets of one length, the CRCs differ by what the difference of the packets, most of it zeros, gives on its
//! own. That is the changed bits, as a polynomial, times x to the power of the bits that follow them, modulo the CRC's
//! polynomial. The power is put together from two tables, so that a change costs two multiplications whatever the length.
//!
//! Polynomials are held as the CRC has them: the highest bit is the coefficient of x^0.

/// The CRC's polynomial without x^32.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// The polynomial 1, and x^8: a byte further on.
const ONE: u32 = 1 << 31;
const BYTE: u32 = ONE >> 8;

/// x to the power of 8n, and of 8 * 256n, for each byte n.
static POWERS: [[u32; 256]; 2] = {
    let low = powers(BYTE);
    [low, powers(multiply(low[255], BYTE))]
};

/// The powers of a polynomial, from 0 on.
const fn powers(of: u32) -> [u32; 256] {
    let mut powers = [ONE; 256];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = multiply(powers[at - 1], of);
        at += 1;
    }
    powers
}

/// The product of two polynomials, modulo the CRC's.
#[inline]
const fn multiply(a: u32, mut b: u32) -> u32 {
    let (mut product, mut bit) = (0, 0);
    while bit < u32::BITS {
        // Without a branch: which bits there are nobody can foresee.
        product ^= b & 0_u32.wrapping_sub(a << bit >> 31);
        b = b >> 1 ^ POLYNOMIAL & 0_u32.wrapping_sub(b & 1);
        bit += 1;
    }
    product
}

/// The bits by which the CRC of a packet of `len` bytes changes where its first four bytes change by `bits`, these read lowest byte
/// first.
#[inline]
pub fn change(bits: u32, len: u16) -> u32 {
    if bits == 0 {
        return 0;
    }
    let [high, low] = len.to_be_bytes();
    let change = multiply(POWERS[0][usize::from(low)], bits);
    if high == 0 { change } else { multiply(POWERS[1][usize::from(high)], change) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The CRC itself, a bit at a time.
    pub fn bit_by_bit(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 })
        })
    }

    #[test]
    fn the_slow_one_is_the_right_one() {
        // RFC 3720, B.4.
        assert_eq!(bit_by_bit(b"123456789"), 0xe306_9283);
        assert_eq!(bit_by_bit(&[0; 32]), 0x8a91_36aa);
        assert_eq!(bit_by_bit(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn follows_a_change_of_the_first_bytes_whatever_the_length() {
        for len in (4..600).chain([1279, 1280, 1480, 8972, 0xff00, 0xffff]) {
            let mut bytes = vec![0x5a_u8; len];
            let before = bit_by_bit(&bytes);
            bytes[..4].copy_from_slice(&[1, 0xbb, 0xff, 0x80]);
            let bits = u32::from_le_bytes([0x5a; 4]) ^ u32::from_le_bytes([1, 0xbb, 0xff, 0x80]);
            assert_eq!(before ^ change(bits, u16::try_from(len).unwrap()), bit_by_bit(&bytes), "{len}");
        }
        assert_eq!(change(0, 1000), 0);
    }
}
