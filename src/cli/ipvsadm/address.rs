//! `HOST[:PORT]` and numbers, as ipvsadm reads them: with the C library's rules for addresses and numbers, and with
//! names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::names::Names;

/// An address whose port may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) address: IpAddr,
    pub(super) port: Option<u16>,
}

/// Reads `HOST[:PORT]`, `[IPV6]:PORT` or `IPV6`. The port's name is one of `protocol`'s, an IP protocol number.
pub(super) fn endpoint(text: &str, protocol: u16, names: &dyn Names) -> Option<Endpoint> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, Some(port.strip_prefix(':')?))
        }
        None => (text, None),
    };
    let (address, port) = match host.parse::<Ipv6Addr>() {
        Ok(address) => (IpAddr::V6(address), port),
        // What stood behind brackets around anything else does not count.
        Err(_) => {
            let (host, port) = host.rsplit_once(':').map_or((host, None), |(host, port)| (host, Some(port)));
            (inet_aton(host).or_else(|| names.address(host))?.into(), port)
        }
    };
    let port = match port {
        None => None,
        Some(port) => Some(number(port, 0, 65_535).or_else(|| names.port(port, protocol).map(u32::from))?),
    };
    Some(Endpoint { address, port: port.and_then(|port| u16::try_from(port).ok()) })
}

/// A decimal number as `strtol` reads it, from `lowest` to `highest`.
pub(super) fn number(text: &str, lowest: u32, highest: u32) -> Option<u32> {
    // isspace(3) knows the vertical tab too.
    let text = text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let number = text.parse::<i64>().ok().and_then(|number| u32::try_from(number).ok())?;
    (lowest..=highest).contains(&number).then_some(number)
}

/// An IPv4 address as inet_aton(3) reads it: one to four numbers, decimal, octal or hexadecimal, the last of which fills
/// what is left; what follows a space does not count.
pub(super) fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let text = text.split([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']).next()?;
    let parts = text.split('.').map(part).collect::<Option<Vec<u32>>>()?;
    let (&last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|&part| part > 255) {
        return None;
    }
    // Each part in front takes eight bits.
    let left = 32 - 8 * u32::try_from(first.len()).ok()?;
    if left < 32 && last >> left != 0 {
        return None;
    }
    let high = (0..).zip(first).fold(0, |bits, (index, part)| bits | part << (24 - 8 * index));
    Some(Ipv4Addr::from_bits(high | last))
}

fn part(text: &str) -> Option<u32> {
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if digits.starts_with(|first: char| first.is_ascii_hexdigit()) => {
            u32::from_str_radix(digits, 16).ok()
        }
        Some(_) => None,
        None if text.len() > 1 && text.starts_with('0') => u32::from_str_radix(&text[1..], 8).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ipvsadm::names::tests::Known;

    fn read(text: &str) -> Option<(String, Option<u16>)> {
        endpoint(text, 6, &Known).map(|endpoint| (endpoint.address.to_string(), endpoint.port))
    }

    #[test]
    fn addresses_are_read_as_ipvsadm_does() {
        let is = |text: &str, address: &str, port| assert_eq!(read(text), Some((address.to_owned(), port)), "{text}");
        is("1.2.3.4:80", "1.2.3.4", Some(80));
        is("1.2.3.4: 80", "1.2.3.4", Some(80));
        is("1.2.3.4:http", "1.2.3.4", Some(80));
        is("1.2.3.4", "1.2.3.4", None);
        is("[::1]:80", "::1", Some(80));
        is("::1", "::1", None);
        is("[1.2.3.4]:80", "1.2.3.4", None);
        is("web:80", "10.0.0.100", Some(80));
        is("1.2.65535:0", "1.2.255.255", Some(0));
        is("0x7f.1:080", "127.0.0.1", Some(80));
        is("010.1.1.1:80", "8.1.1.1", Some(80));
        is("80:80", "0.0.0.80", Some(80));
        for text in ["", "80", ":80", "1.2.3.4:", "1.2.3.4:80 ", "1.2.3.4:0x50", "1.2.3.4:65536", "1.2.3.4:-1", "[::1]"]
        {
            assert_eq!(read(text), None, "{text}");
        }
        for text in ["[::1", "[::1]80", "256.1.1.1:80", "1.2.3.4.5:80", "1.:80", "nowhere:80", "1.2.3.4:nothing"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_whole_and_in_their_range() {
        assert_eq!(number(" +05", 0, 10), Some(5));
        for text in ["", "5 ", "0x5", "-1", "11", "4294967301", "99999999999999999999", "+-5", "--5"] {
            assert_eq!(number(text, 0, 10), None, "{text}");
        }
    }
}
