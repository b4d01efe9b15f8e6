//! ICMP errors in words of ICMPv6 and back (RFC 7915, 4.2 and 5.2). What an error says of a path's MTU is not translated
//! here: that depends on the links around.

use super::icmp::{self, Header};
use super::icmp6;

/// An error in words of ICMPv6; none where there are none for it.
pub fn to_icmp6(header: Header) -> Option<Header> {
    let (kind, code, pointer) = match (header.kind, header.code) {
        // Protocol unreachable: the next header is what is not known.
        (icmp::UNREACHABLE, 2) => (icmp6::PARAMETER_PROBLEM, 1, 6),
        (icmp::UNREACHABLE, 3) => (icmp6::UNREACHABLE, 4, 0),
        (icmp::UNREACHABLE, 9 | 10 | 13 | 15) => (icmp6::UNREACHABLE, 1, 0),
        (icmp::UNREACHABLE, 0 | 1 | 5..=8 | 11 | 12) => (icmp6::UNREACHABLE, 0, 0),
        (icmp::TIME_EXCEEDED, code) => (icmp6::TIME_EXCEEDED, code, 0),
        (icmp::PARAMETER_PROBLEM, 0 | 2) => (icmp6::PARAMETER_PROBLEM, 0, pointer_to_ipv6(header.rest[0])?),
        _ => return None,
    };
    Some(Header { kind, code, rest: [0, 0, 0, pointer] })
}

/// An error in words of ICMP; none where there are none for it.
pub fn to_icmp(header: Header) -> Option<Header> {
    let (kind, code, pointer) = match (header.kind, header.code) {
        (icmp6::UNREACHABLE, 0 | 2 | 3) => (icmp::UNREACHABLE, 1, 0),
        (icmp6::UNREACHABLE, 1) => (icmp::UNREACHABLE, 10, 0),
        (icmp6::UNREACHABLE, 4) => (icmp::UNREACHABLE, 3, 0),
        (icmp6::TIME_EXCEEDED, code) => (icmp::TIME_EXCEEDED, code, 0),
        (icmp6::PARAMETER_PROBLEM, 0) => {
            (icmp::PARAMETER_PROBLEM, 0, pointer_to_ipv4(u32::from_be_bytes(header.rest))?)
        }
        (icmp6::PARAMETER_PROBLEM, 1) => (icmp::UNREACHABLE, 2, 0),
        _ => return None,
    };
    Some(Header { kind, code, rest: [pointer, 0, 0, 0] })
}

/// The field of IPv6's header that says what the one at this offset of IPv4's does.
fn pointer_to_ipv6(pointer: u8) -> Option<u8> {
    match pointer {
        0 | 1 => Some(pointer),
        2 | 3 => Some(4),
        8 => Some(7),
        9 => Some(6),
        12..=15 => Some(8),
        16..=19 => Some(24),
        _ => None,
    }
}

/// The field of IPv4's header that says what the one at this offset of IPv6's does.
fn pointer_to_ipv4(pointer: u32) -> Option<u8> {
    match pointer {
        0 => Some(0),
        1 => Some(1),
        4 | 5 => Some(2),
        6 => Some(9),
        7 => Some(8),
        8..=23 => Some(12),
        24..=39 => Some(16),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u8, code: u8, rest: [u8; 4]) -> Header {
        Header { kind, code, rest }
    }

    /// RFC 7915, 4.2, line by line.
    #[test]
    fn icmp_in_words_of_icmpv6() {
        let unreachable = |code| to_icmp6(header(3, code, [0, 0, 1, 2])).map(|to| (to.kind, to.code, to.rest));
        for code in [0, 1, 5, 6, 7, 8, 11, 12] {
            assert_eq!(unreachable(code), Some((1, 0, [0; 4])), "{code}");
        }
        for code in [9, 10, 13, 15] {
            assert_eq!(unreachable(code), Some((1, 1, [0; 4])), "{code}");
        }
        assert_eq!(unreachable(2), Some((4, 1, [0, 0, 0, 6])));
        assert_eq!(unreachable(3), Some((1, 4, [0; 4])));
        assert_eq!([4, 14, 16, 255].map(unreachable), [None; 4], "4 is the caller's");
        assert_eq!(to_icmp6(header(11, 1, [9; 4])), Some(header(3, 1, [0; 4])));
        let fields = [(0, 0), (1, 1), (2, 4), (3, 4), (8, 7), (9, 6), (12, 8), (15, 8), (16, 24), (19, 24)];
        for (from, to) in fields {
            assert_eq!(to_icmp6(header(12, 0, [from, 0, 0, 0])), Some(header(4, 0, [0, 0, 0, to])), "{from}");
        }
        for nowhere in [4, 5, 6, 7, 10, 11, 20, 255] {
            assert_eq!(to_icmp6(header(12, 0, [nowhere, 0, 0, 0])), None, "{nowhere}");
        }
        assert_eq!(to_icmp6(header(12, 1, [0; 4])), None, "a missing option");
        assert_eq!(to_icmp6(header(4, 0, [0; 4])), None, "source quench");
    }

    /// RFC 7915, 5.2, line by line.
    #[test]
    fn icmpv6_in_words_of_icmp() {
        let unreachable = |code| to_icmp(header(1, code, [0; 4])).map(|to| (to.kind, to.code));
        let expected = [Some((3, 1)), Some((3, 10)), Some((3, 1)), Some((3, 1)), Some((3, 3)), None];
        assert_eq!([0, 1, 2, 3, 4, 5].map(unreachable), expected);
        assert_eq!(to_icmp(header(3, 1, [9; 4])), Some(header(11, 1, [0; 4])));
        for (from, to) in [(0, 0), (1, 1), (4, 2), (5, 2), (6, 9), (7, 8), (8, 12), (23, 12), (24, 16), (39, 16)] {
            assert_eq!(to_icmp(header(4, 0, [0, 0, 0, from])), Some(header(12, 0, [to, 0, 0, 0])), "{from}");
        }
        for nowhere in [[0, 0, 0, 2], [0, 0, 0, 3], [0, 0, 0, 40], [1, 0, 0, 0]] {
            assert_eq!(to_icmp(header(4, 0, nowhere)), None, "{nowhere:?}");
        }
        assert_eq!(to_icmp(header(4, 1, [0, 0, 0, 6])), Some(header(3, 2, [0; 4])));
        assert_eq!((to_icmp(header(4, 2, [0; 4])), to_icmp(header(2, 0, [0; 4]))), (None, None));
    }
}
