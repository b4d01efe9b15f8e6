//! The order of ipvsadm's listings: services by mark, family, protocol, address and port, real servers by
//! address and port.
//!
//! ipvsadm compares addresses by the sign of a difference of 32 bits, so that addresses further apart than half of all
//! come the other way round: 192.168.0.1 before 10.0.0.1. That is no order (three addresses can go in a circle), and what
//! comes of it depends on how one sorts; here as the C library does it, by merging halves.

use std::cmp::Ordering;
use std::net::IpAddr;

use crate::ipvs::{DestinationEntry, ServiceEntry, ServiceId};

/// Sorts by halves, the first of which has the smaller number, and takes from it where both are equal (glibc's qsort).
pub(super) fn merge_sort<T: Clone>(entries: &mut [T], compare: &impl Fn(&T, &T) -> Ordering) {
    if entries.len() < 2 {
        return;
    }
    let (first, second) = entries.split_at_mut(entries.len() / 2);
    merge_sort(first, compare);
    merge_sort(second, compare);
    let (first, second) = (first.to_vec(), second.to_vec());
    let (mut first, mut second) = (first.into_iter().peekable(), second.into_iter().peekable());
    for place in entries {
        let next = match (first.peek(), second.peek()) {
            (Some(a), Some(b)) if compare(a, b).is_gt() => second.next(),
            (Some(_), _) => first.next(),
            (None, _) => second.next(),
        };
        // As many places as entries.
        let Some(next) = next else { return };
        *place = next;
    }
}

/// The sign of a difference of 32 bits.
fn signed(a: u32, b: u32) -> Ordering {
    a.wrapping_sub(b).cast_signed().cmp(&0)
}

/// An address as ipvsadm keeps it: one of IPv4 in the first of four words.
fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => [address.to_bits(), 0, 0, 0],
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h] = address.segments().map(u32::from);
            [a << 16 | b, c << 16 | d, e << 16 | f, g << 16 | h]
        }
    }
}

/// The first address says how many words count: real servers of both families are compared as if they were of one.
fn addresses(a: IpAddr, b: IpAddr) -> Ordering {
    let count = if a.is_ipv6() { 4 } else { 1 };
    let orders = words(a).into_iter().zip(words(b)).take(count).map(|(a, b)| signed(a, b));
    orders.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

pub(super) fn services(a: &ServiceEntry, b: &ServiceEntry) -> Ordering {
    let mark = |id: &ServiceId| if let ServiceId::Mark { mark, .. } = id { *mark } else { 0 };
    let (a, b) = (&a.service.id, &b.service.id);
    let families = || a.is_ipv6().cmp(&b.is_ipv6());
    signed(mark(a), mark(b)).then_with(families).then_with(|| match (a, b) {
        (
            ServiceId::Address { protocol, address, port },
            ServiceId::Address { protocol: other, address: to, port: and },
        ) => protocol.cmp(other).then_with(|| addresses(*address, *to)).then(port.cmp(and)),
        _ => Ordering::Equal,
    })
}

pub(super) fn destinations(a: &DestinationEntry, b: &DestinationEntry) -> Ordering {
    let (a, b) = (&a.destination, &b.destination);
    addresses(a.address, b.address).then(a.port.cmp(&b.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_merged_and_equals_keep_their_order() {
        let mut entries = vec![(3, 'a'), (1, 'b'), (3, 'c'), (2, 'd'), (1, 'e')];
        merge_sort(&mut entries, &|a, b| a.0.cmp(&b.0));
        assert_eq!(entries, [(1, 'b'), (1, 'e'), (2, 'd'), (3, 'a'), (3, 'c')]);
    }

    #[test]
    fn addresses_far_apart_come_the_other_way_round() {
        let order = |a: &str, b: &str| addresses(a.parse().unwrap(), b.parse().unwrap());
        assert_eq!(order("10.0.0.1", "10.0.0.2"), Ordering::Less);
        assert_eq!(order("192.168.0.1", "10.0.0.1"), Ordering::Less);
        assert_eq!(order("2001:db8::1", "2001:db8::2"), Ordering::Less);
        assert_eq!(order("fe80::1", "2001:db8::1"), Ordering::Less);
        assert_eq!(order("2001:db8::1", "64.0.0.1"), Ordering::Less);
        assert_eq!(order("10.0.0.1", "::1"), Ordering::Greater);
    }
}
