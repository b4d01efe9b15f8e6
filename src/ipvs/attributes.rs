//! Attributes of netlink messages: reading them with the checks that the kernel makes (lib/nlattr.c), and making them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{DefaultNla, Emitable, NLA_HEADER_SIZE, NlasIterator};

use super::command::Errno;

/// Linux's number for IPv4.
pub(super) const AF_INET: u16 = 2;
/// Linux's number for IPv6.
pub(super) const AF_INET6: u16 = 10;

/// One more than the highest attribute that any of IPVS's nests has.
const KINDS: usize = 16;

/// The attributes of a message or of a nest. Of those that come twice the last counts, and unknown ones are ignored.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attributes<'a> {
    values: [Option<&'a [u8]>; KINDS],
}

impl<'a> Attributes<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Errno> {
        let mut values = [None; KINDS];
        for attribute in NlasIterator::new(bytes) {
            let attribute = attribute.map_err(|_| Errno::Invalid)?;
            let (kind, length) = (usize::from(attribute.kind()), attribute.value_length());
            let value = attribute.into_inner().get(NLA_HEADER_SIZE..NLA_HEADER_SIZE + length);
            if let Some(place) = values.get_mut(kind) {
                *place = value;
            }
        }
        Ok(Self { values })
    }

    pub(super) fn has(&self, kind: u16) -> bool {
        self.bytes(kind).is_some()
    }

    fn bytes(&self, kind: u16) -> Option<&'a [u8]> {
        self.values.get(usize::from(kind)).copied().flatten()
    }

    /// The first bytes of an attribute, which may have more but not fewer.
    fn array<const N: usize>(&self, kind: u16) -> Result<Option<[u8; N]>, Errno> {
        self.bytes(kind).map(|bytes| bytes.first_chunk().copied().ok_or(Errno::Invalid)).transpose()
    }

    pub(super) fn nest(&self, kind: u16) -> Result<Option<Self>, Errno> {
        self.bytes(kind).map(Self::parse).transpose()
    }

    pub(super) fn u8(&self, kind: u16) -> Result<Option<u8>, Errno> {
        Ok(self.array::<1>(kind)?.map(|[byte]| byte))
    }

    pub(super) fn u16(&self, kind: u16) -> Result<Option<u16>, Errno> {
        Ok(self.array(kind)?.map(u16::from_ne_bytes))
    }

    pub(super) fn be16(&self, kind: u16) -> Result<Option<u16>, Errno> {
        Ok(self.array(kind)?.map(u16::from_be_bytes))
    }

    pub(super) fn u32(&self, kind: u16) -> Result<Option<u32>, Errno> {
        Ok(self.array(kind)?.map(u32::from_ne_bytes))
    }

    pub(super) fn u64(&self, kind: u16) -> Result<Option<u64>, Errno> {
        Ok(self.array(kind)?.map(u64::from_ne_bytes))
    }

    pub(super) fn be32(&self, kind: u16) -> Result<Option<u32>, Errno> {
        Ok(self.array(kind)?.map(u32::from_be_bytes))
    }

    /// Two numbers one after the other.
    pub(super) fn u32_pair(&self, kind: u16) -> Result<Option<(u32, u32)>, Errno> {
        let words = self.array::<8>(kind)?;
        Ok(words.map(|[a, b, c, d, e, f, g, h]| (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]))))
    }

    /// A text of at most `longest` bytes, up to its NUL if it has one.
    pub(super) fn text(&self, kind: u16, longest: usize) -> Result<Option<&'a str>, Errno> {
        let Some(bytes) = self.bytes(kind) else { return Ok(None) };
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| Errno::Invalid)?;
        if text.len() > longest { Err(Errno::Invalid) } else { Ok(Some(text)) }
    }

    /// An address of a family. Shorter ones are filled up with zeros, as the kernel does.
    pub(super) fn address(&self, kind: u16, family: u16) -> Result<Option<IpAddr>, Errno> {
        let Some(bytes) = self.bytes(kind) else { return Ok(None) };
        let mut octets = [0; 16];
        let length = bytes.len().min(octets.len());
        octets[..length].copy_from_slice(&bytes[..length]);
        let [a, b, c, d, ..] = octets;
        match family {
            AF_INET => Ok(Some(Ipv4Addr::new(a, b, c, d).into())),
            AF_INET6 => Ok(Some(Ipv6Addr::from(octets).into())),
            _ => Err(Errno::FamilyNotSupported),
        }
    }
}

/// Attributes being made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Builder(Vec<DefaultNla>);

impl Builder {
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.push(DefaultNla::new(kind, value.to_vec()));
        self
    }

    pub(super) fn nest(self, kind: u16, nested: &Self) -> Self {
        let mut value = vec![0; nested.len()];
        nested.emit(&mut value);
        self.bytes(kind, &value)
    }

    pub(super) fn u16(self, kind: u16, value: u16) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(super) fn be16(self, kind: u16, value: u16) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(super) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn u64(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A text with its NUL.
    pub(super) fn text(self, kind: u16, text: &str) -> Self {
        self.bytes(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// An address in the 16 bytes that every family's has.
    pub(super) fn address(self, kind: u16, address: IpAddr) -> Self {
        self.bytes(kind, &padded(address))
    }

    /// How many bytes [`Builder::emit`] writes.
    pub(super) fn len(&self) -> usize {
        self.0.as_slice().buffer_len()
    }

    pub(super) fn emit(&self, buffer: &mut [u8]) {
        self.0.as_slice().emit(buffer);
    }
}

/// `union nf_inet_addr`: IPv4's four bytes come first.
pub(super) fn padded(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// Linux's number for an address's family.
pub(super) fn family_of(is_ipv6: bool) -> u16 {
    if is_ipv6 { AF_INET6 } else { AF_INET }
}
