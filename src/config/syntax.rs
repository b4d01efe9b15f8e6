//! How single values are written: names, devices, addresses. Shared by the file and the command line.
//!
//! Each parser takes the text alone and says in its error what is wrong with it and what is allowed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::model::{Device, InterfaceAddress};

/// A value that is not written as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} {wrong}; allowed: {allowed}")]
pub struct SyntaxError {
    /// What was given.
    pub value: String,
    /// What is wrong with it.
    pub wrong: &'static str,
    /// What is allowed.
    pub allowed: &'static str,
}

impl SyntaxError {
    fn new(value: &str, wrong: &'static str, allowed: &'static str) -> Self {
        Self { value: value.to_owned(), wrong, allowed }
    }
}

/// The longest name of a port or pool, in bytes.
const MAX_NAME_LEN: usize = 32;
/// The longest name of a network interface, in bytes (IFNAMSIZ less its closing NUL).
pub(super) const MAX_TAP_LEN: usize = 15;
/// The longest path of the control socket, in bytes: `sun_path` less its closing NUL and `.ipvs.sock`, which the socket
/// beside it has besides.
const MAX_SOCKET_LEN: usize = 97;
/// The longest device name that DPDK takes, in bytes (RTE_DEV_NAME_MAX_LEN less its closing NUL).
const MAX_DEVICE_LEN: usize = 63;
/// The most addresses that one range may name; as many as all pools may hold.
pub const MAX_RANGE: u32 = 16_384;

/// The name of a port or pool.
pub(super) fn name(text: &str) -> Result<String, SyntaxError> {
    const ALLOWED: &str = "1-32 characters of a-z, 0-9, _ and -";
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    if text.is_empty() {
        return Err(SyntaxError::new(text, "is empty", ALLOWED));
    }
    if text.len() > MAX_NAME_LEN {
        return Err(SyntaxError::new(text, "is too long", ALLOWED));
    }
    if !text.bytes().all(fits) {
        return Err(SyntaxError::new(text, "has a character that a name cannot have", ALLOWED));
    }
    Ok(text.to_owned())
}

/// The name of a TAP, by the kernel's rules (net/core/dev.c, `dev_valid_name`); `%` would make it a template.
pub(super) fn tap_name(text: &str) -> Result<String, SyntaxError> {
    const ALLOWED: &str = "1-15 bytes without spaces and none of / : %";
    if text.is_empty() || text == "." || text == ".." {
        return Err(SyntaxError::new(text, "is no name of a network interface", ALLOWED));
    }
    if text.len() > MAX_TAP_LEN {
        return Err(SyntaxError::new(text, "is longer than the kernel allows", ALLOWED));
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || "/:%".contains(c)) {
        return Err(SyntaxError::new(text, "has a character that an interface name cannot have", ALLOWED));
    }
    Ok(text.to_owned())
}

/// What a device may be, for messages.
pub(super) const DEVICE_ALLOWED: &str =
    "a PCI address DDDD:BB:DD.F like 0000:01:00.0, or a DPDK vdev net_... or eth_... like net_af_xdp0,iface=veth1";

/// A DPDK device.
pub(super) fn device(text: &str) -> Result<Device, SyntaxError> {
    let (name, arguments) = text.split_once(',').map_or((text, None), |(name, rest)| (name, Some(rest)));
    if arguments.is_some_and(str::is_empty) {
        return Err(SyntaxError::new(text, "ends in a comma without arguments", DEVICE_ALLOWED));
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(SyntaxError::new(text, "has white space in it", DEVICE_ALLOWED));
    }
    if is_vdev(name) {
        return Ok(Device::Vdev(text.to_owned()));
    }
    if is_pci(name) {
        let tail = arguments.map_or(String::new(), |arguments| format!(",{arguments}"));
        return Ok(Device::Pci(format!("{}{tail}", name.to_ascii_lowercase())));
    }
    if is_pci(&format!("0000:{name}")) {
        return Err(SyntaxError::new(text, "is a PCI address without its domain", DEVICE_ALLOWED));
    }
    Err(SyntaxError::new(text, "is no DPDK device", DEVICE_ALLOWED))
}

fn is_vdev(name: &str) -> bool {
    let stem = name.strip_prefix("net_").or_else(|| name.strip_prefix("eth_"));
    let word = |stem: &str| !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    name.len() <= MAX_DEVICE_LEN && stem.is_some_and(word)
}

/// DDDD:BB:DD.F in hexadecimal, devices up to 1f and functions up to 7.
fn is_pci(name: &str) -> bool {
    let hexadecimal = |part: &str, digits: usize, max: u32| {
        part.len() == digits
            && part.bytes().all(|byte| byte.is_ascii_hexdigit())
            && u32::from_str_radix(part, 16).is_ok_and(|number| number <= max)
    };
    let mut parts = name.split([':', '.']);
    let mut next = || parts.next().unwrap_or_default();
    let fits = hexadecimal(next(), 4, 0xffff)
        && hexadecimal(next(), 2, 0xff)
        && hexadecimal(next(), 2, 0x1f)
        && hexadecimal(next(), 1, 7);
    fits && parts.next().is_none() && name.rfind('.') == Some(10) && name.matches('.').count() == 1
}

/// The device's name: what stands before the first comma. A parent's is not known here.
pub(super) fn device_name(device: &Device) -> &str {
    match device {
        Device::Pci(text) | Device::Vdev(text) => text.split(',').next().unwrap_or(text),
        Device::Parent(_) => "",
    }
}

/// An address with its prefix, as `ip addr add` takes it.
pub(super) fn interface_address(text: &str) -> Result<InterfaceAddress, SyntaxError> {
    const ALLOWED: &str = "ADDRESS/PREFIX, like 10.0.0.1/24 or 2001:db8::1/64";
    let Some((address, prefix)) = text.split_once('/') else {
        return Err(SyntaxError::new(text, "has no prefix length", ALLOWED));
    };
    let address: IpAddr = address.parse().map_err(|_| SyntaxError::new(text, "is no IP address", ALLOWED))?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix_len = decimal(prefix).filter(|&bits| bits <= longest);
    let prefix_len = prefix_len.ok_or_else(|| {
        SyntaxError::new(text, "has a wrong prefix length", "a prefix of 0-32 bits for IPv4, 0-128 for IPv6")
    })?;
    Ok(InterfaceAddress { address, prefix_len })
}

/// An address that a host can have, with its prefix.
pub(super) fn host_address(text: &str) -> Result<InterfaceAddress, SyntaxError> {
    const ALLOWED: &str =
        "an address that a host can have: neither multicast, broadcast, loopback, 0.0.0.0/8 nor ::ffff:0.0.0.0/96";
    let address = interface_address(text)?;
    let usable = is_host(address.address);
    if usable { Ok(address) } else { Err(SyntaxError::new(text, "cannot be an interface's address", ALLOWED)) }
}

/// Whether a host can have this address.
pub(super) fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let first = address.octets()[0];
            !(first == 0 || address.is_loopback() || address.is_multicast() || first >= 240)
        }
        IpAddr::V6(address) => {
            let mapped = address.to_ipv4_mapped().is_some();
            !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || mapped)
        }
    }
}

/// Whether an address is one that each link may have (fe80::/10).
pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// The destination of a route; `None` for the word `default`, whose family the gateway tells.
pub(super) fn route_destination(text: &str) -> Result<Option<InterfaceAddress>, SyntaxError> {
    const ALLOWED: &str = "default, or NETWORK/PREFIX like 10.2.0.0/16 or 2001:db8:2::/48";
    if text == "default" {
        return Ok(None);
    }
    let network = interface_address(text).map_err(|error| SyntaxError::new(text, error.wrong, ALLOWED))?;
    if network.first() != network.address {
        return Err(SyntaxError::new(text, "has bits set behind its prefix, which the kernel refuses", ALLOWED));
    }
    Ok(Some(network))
}

impl InterfaceAddress {
    /// The network's first address: the address with the bits behind the prefix cleared.
    pub fn first(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_len)).unwrap_or(0);
                IpAddr::V4((u32::from(address) & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix_len)).unwrap_or(0);
                IpAddr::V6((u128::from(address) & mask).into())
            }
        }
    }

    /// Whether `address` is in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && Self { address, prefix_len: self.prefix_len }.first() == self.first()
    }
}

/// What a real server's address and port may be, for messages.
pub(super) const ENDPOINT_ALLOWED: &str =
    "ADDRESS:PORT, like 10.1.0.11:80 or [2001:db8:1::11]:80; ADDRESS alone for the port that clients ask for";

/// An address and port, those of IPv6 with the address in brackets, or an address alone. Port 0 stands for every port.
///
/// # Errors
/// The text is neither.
pub fn endpoint(text: &str) -> Result<(IpAddr, Option<u16>), SyntaxError> {
    const ALLOWED: &str = ENDPOINT_ALLOWED;
    if let Ok(address) = text.parse() {
        return Ok((address, None));
    }
    match SocketAddr::from_str(text) {
        Ok(SocketAddr::V6(address)) if address.scope_id() != 0 => {
            Err(SyntaxError::new(text, "names an interface", ALLOWED))
        }
        Ok(address) => Ok((address.ip(), Some(address.port()))),
        Err(_) => Err(SyntaxError::new(text, "is no address and port", ALLOWED)),
    }
}

/// One address or an inclusive range of them, `A` or `A-B`.
///
/// # Errors
/// The text is neither, or the range is turned round, of two families or larger than [`MAX_RANGE`].
pub fn address_range(text: &str) -> Result<Vec<IpAddr>, SyntaxError> {
    const ALLOWED: &str =
        "an address or a range A-B of at most 16384, like 10.1.0.200-10.1.0.203 or 2001:db8::200-2001:db8::203";
    let parse = |part: &str| {
        let address = IpAddr::from_str(part.trim());
        address.map_err(|_| SyntaxError::new(text, "is no address or range of addresses", ALLOWED))
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (parse(first)?, parse(last)?),
        None => (parse(text)?, parse(text)?),
    };
    let (first, last, address): (u128, u128, fn(u128) -> Option<IpAddr>) = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (first.to_bits().into(), last.to_bits().into(), |bits| {
            Some(IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits).ok()?)))
        }),
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            (first.to_bits(), last.to_bits(), |bits| Some(IpAddr::V6(Ipv6Addr::from_bits(bits))))
        }
        _ => return Err(SyntaxError::new(text, "is of two families", ALLOWED)),
    };
    match last.checked_sub(first) {
        None => Err(SyntaxError::new(text, "ends before it begins", ALLOWED)),
        Some(span) if span >= MAX_RANGE.into() => Err(SyntaxError::new(text, "is too large a range", ALLOWED)),
        Some(_) => Ok((first..=last).filter_map(address).collect()),
    }
}

/// A path of the control socket.
pub(super) fn socket_path(text: &str) -> Result<String, SyntaxError> {
    const ALLOWED: &str = "an absolute path of at most 97 bytes, like /run/fullgate/control.sock";
    if text.len() > MAX_SOCKET_LEN {
        return Err(SyntaxError::new(text, "is too long for a Unix socket", ALLOWED));
    }
    absolute_path(text).map_err(|error| SyntaxError { allowed: ALLOWED, ..error })
}

/// A path from the root.
pub(super) fn absolute_path(text: &str) -> Result<String, SyntaxError> {
    const ALLOWED: &str = "an absolute path, like /var/lib/fullgate";
    if !text.starts_with('/') {
        return Err(SyntaxError::new(text, "is no absolute path", ALLOWED));
    }
    if text.contains('\0') {
        return Err(SyntaxError::new(text, "has a NUL in it", ALLOWED));
    }
    Ok(text.to_owned())
}

/// A decimal number without sign.
fn decimal(text: &str) -> Option<u8> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        for good in ["0000:01:00.0", "0000:01:00.0,arg=1", "net_af_xdp0,iface=veth1", "eth_pcap0", "net_null0,no-rx=1"]
        {
            assert!(device(good).is_ok(), "{good}");
        }
        assert_eq!(device("0000:AB:1F.7"), Ok(Device::Pci("0000:ab:1f.7".into())));
        for bad in ["", "eth0", "net_", "01:00.0", "0000:01:20.0", "0000:01:00.8", "0000.01:00.0", "0000:01:00:0", "x,"]
        {
            assert!(device(bad).is_err(), "{bad}");
        }
        for bad in ["crypto_openssl0", "net_tap0,", "net_tap0, iface=a", "0000:01:00.0.1", "+000:01:00.0"] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes() {
        let address = interface_address("10.0.0.129/25").unwrap();
        assert_eq!(address.first(), IpAddr::from([10, 0, 0, 128]));
        assert!(address.contains("10.0.0.200".parse().unwrap()));
        assert!(!address.contains("10.0.0.1".parse().unwrap()));
        assert!(!address.contains("::1".parse().unwrap()));
        assert!(interface_address("0.0.0.0/0").unwrap().contains("1.2.3.4".parse().unwrap()));
        assert!(interface_address("::/0").unwrap().contains("2001:db8::1".parse().unwrap()));
        assert!(interface_address("10.0.0.1/33").is_err());
        assert!(interface_address("10.0.0.1/+8").is_err());
    }

    #[test]
    fn ranges() {
        assert_eq!(address_range("10.0.0.1").unwrap(), [Ipv4Addr::new(10, 0, 0, 1)]);
        assert_eq!(address_range("10.0.0.254-10.0.1.1").unwrap().len(), 4);
        assert_eq!(address_range("0.0.0.0-255.255.255.255").unwrap_err().wrong, "is too large a range");
        assert_eq!(address_range("10.0.0.2-10.0.0.1").unwrap_err().wrong, "ends before it begins");
        let range = address_range("2001:db8::fffe-2001:db8::1:1").unwrap();
        assert_eq!((range.len(), range[3]), (4, "2001:db8::1:1".parse().unwrap()));
        assert_eq!(address_range("::-ffff::").unwrap_err().wrong, "is too large a range");
        assert_eq!(address_range("10.0.0.1-2001:db8::1").unwrap_err().wrong, "is of two families");
    }

    #[test]
    fn endpoints() {
        let address = IpAddr::from([10, 0, 0, 100]);
        assert_eq!(endpoint("10.0.0.100:80").unwrap(), (address, Some(80)));
        assert_eq!(endpoint("10.0.0.100:0").unwrap(), (address, Some(0)));
        assert_eq!(endpoint("10.0.0.100").unwrap(), (address, None));
        assert_eq!(endpoint("[2001:db8::1]:80").unwrap().1, Some(80));
        assert_eq!(endpoint("2001:db8::1").unwrap().1, None);
        assert_eq!(endpoint("[fe80::1%2]:80").unwrap_err().wrong, "names an interface");
        assert!(endpoint("10.0.0.100:99999").is_err());
    }
}
