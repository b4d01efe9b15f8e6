//! The keyed hash of dh, sh and mh.
//!
//! SipHash-2-4 with the gateway's seed, so that nobody without the seed can tell which real server an address leads to,
//! and so that all gateways with one seed agree. The message is, in this order: a byte that says what is hashed
//! ([`Purpose`]), the address (4 bytes of IPv4 or 16 of IPv6, in network order), the port (2 bytes in network order, 0 where
//! it does not count) and the number of the attempt (4 bytes in network order, 0 for the first). These are part of what
//! gateways agree on: change none of them.

use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;
use std::str::FromStr;

use siphasher::sip::SipHasher24;

/// The key of the hashes by which dh, sh and mh choose.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashSecret(pub [u8; 16]);

impl Default for HashSecret {
    /// What gateways that are told no secret agree on. It is in this source for everyone to read.
    fn default() -> Self {
        Self(*b"fullgate default")
    }
}

impl fmt::Debug for HashSecret {
    /// Logs are no place for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::default() { "HashSecret(default)" } else { "HashSecret(secret)" })
    }
}

/// A text that is no secret. The text itself is not shown: it may be nearly one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{digits} characters that are not 32 hexadecimal digits; allowed: {}", HashSecret::ALLOWED)]
pub struct HashSecretError {
    digits: usize,
}

impl HashSecret {
    /// What it may be, for messages.
    pub const ALLOWED: &'static str = "32 hexadecimal digits, as `openssl rand -hex 16` prints them";

    /// Hashes an address and port.
    pub(super) fn hash(self, purpose: Purpose, (address, port): (IpAddr, u16), attempt: u32) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        let mut message = [0; 23];
        let octets = match address.to_canonical() {
            IpAddr::V4(address) => {
                message[1..5].copy_from_slice(&address.octets());
                4
            }
            IpAddr::V6(address) => {
                message[1..17].copy_from_slice(&address.octets());
                16
            }
        };
        message[0] = purpose as u8;
        message[1 + octets..3 + octets].copy_from_slice(&port.to_be_bytes());
        message[3 + octets..7 + octets].copy_from_slice(&attempt.to_be_bytes());
        hasher.write(&message[..7 + octets]);
        hasher.finish()
    }
}

impl FromStr for HashSecret {
    type Err = HashSecretError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || HashSecretError { digits: text.chars().count() };
        let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit()) && text.len() == 32;
        let number = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten().ok_or_else(error)?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// What is hashed, so that hashes for one thing say nothing of those for another.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Purpose {
    /// A client, for sh and mh.
    Client = 0,
    /// A destination, for dh.
    Destination = 1,
    /// A real server, for where it begins in mh's table.
    Offset = 2,
    /// A real server, for its steps through mh's table.
    Skip = 3,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gateways of different versions must agree.
    #[test]
    fn the_message_is_as_documented() {
        let reference = |message: &[u8]| {
            let mut hasher = SipHasher24::new_with_key(b"fullgate default");
            hasher.write(message);
            hasher.finish()
        };
        let secret = HashSecret::default();
        let client = ("10.0.0.2".parse().unwrap(), 0x1234);
        assert_eq!(secret.hash(Purpose::Client, client, 7), reference(&[0, 10, 0, 0, 2, 0x12, 0x34, 0, 0, 0, 7]));
        let mapped = ("::ffff:10.0.0.2".parse().unwrap(), 0x1234);
        assert_eq!(secret.hash(Purpose::Client, mapped, 7), secret.hash(Purpose::Client, client, 7));
        let server = ("2001:db8::1".parse().unwrap(), 80);
        let mut message = vec![3, 0x20, 1, 0x0d, 0xb8];
        message.extend([0; 11]);
        message.extend([1, 0, 80, 0, 0, 0, 0]);
        assert_eq!(secret.hash(Purpose::Skip, server, 0), reference(&message));
    }

    /// The reference vector of SipHash-2-4 (Aumasson and Bernstein, appendix A).
    #[test]
    fn it_is_siphash_2_4() {
        let key: [u8; 16] = std::array::from_fn(|n| u8::try_from(n).unwrap());
        let mut hasher = SipHasher24::new_with_key(&key);
        hasher.write(&key[..15]);
        assert_eq!(hasher.finish(), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn secrets_are_32_hexadecimal_digits() {
        let secret: HashSecret = "000102030405060708090a0b0c0d0e0F".parse().unwrap();
        assert_eq!(secret.0, std::array::from_fn(|n| u8::try_from(n).unwrap()));
        assert_eq!(format!("{secret:?}"), "HashSecret(secret)");
        for wrong in [
            "",
            "00",
            "+00102030405060708090a0b0c0d0e0f",
            "g00102030405060708090a0b0c0d0e0f",
            "ä00102030405060708090a0b0c0d0e0",
        ] {
            let error = wrong.parse::<HashSecret>().unwrap_err().to_string();
            assert!(error.contains("openssl rand -hex 16") && (wrong.len() < 3 || !error.contains(wrong)), "{error}");
        }
    }
}
