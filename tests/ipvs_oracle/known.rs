//! The differences that are meant. Each has a heading in docs/differences-from-ipvs.md, which gives its reason.

use crate::transcript::Known;

pub const KNOWN: &[Known] = &[
    Known { subject: "tun", shows: differs_in_outer_ecn, heading: "ECN of tunnels" },
    Known { subject: "tun ipip, IPv6 in IPv4", shows: differs_in_outer_dont_fragment, heading: "DF of tunnels" },
    Known { subject: "tun", shows: both_cut, heading: "Packets too large for a tunnel" },
    Known { subject: "tun", shows: differs_in_relayed_ttl, heading: "Errors from inside tunnels" },
    Known { subject: "tun", shows: is_relayed_only_by_fullgate, heading: "Errors from inside tunnels" },
    Known { subject: "tun", shows: differs_in_learnt_mtu, heading: "Path MTU of tunnels" },
    Known { subject: "", shows: is_put_together, heading: "Fragments" },
    Known { subject: "nat", shows: is_mended, heading: "Damaged SCTP packets" },
    Known { subject: "nobody's", shows: is_answered_syn, heading: "What opens a connection" },
    Known { subject: "counts of what is answered", shows: both_count, heading: "What is counted" },
    Known { subject: "", shows: counts_answers_of_the_removed, heading: "What is counted" },
    Known { subject: "", shows: counts_from_zero, heading: "Counters of what comes back" },
    Known { subject: "templates: ", shows: is_not_listed, heading: "Templates without their real server" },
    Known { subject: "templates: ", shows: counts_templates_in_use, heading: "Templates without their real server" },
    Known {
        subject: "expire_nodest_conn 1",
        shows: lists_those_to_end,
        heading: "Connections of a removed real server",
    },
    Known { subject: "expire_nodest_conn 1", shows: counts_lower, heading: "Counters of what comes back" },
    Known { subject: "expire_nodest_conn 1", shows: is_answered_unreachable, heading: "SCTP without an association" },
    Known { subject: "sloppy", shows: is_answered_unreachable, heading: "SCTP without an association" },
    Known { subject: "mark", shows: is_assured_by_udp, heading: "Templates of UDP" },
    Known { subject: "ages of templates", shows: comes_again, heading: "Templates that connections have kept" },
    Known { subject: "mh in two orders", shows: |_, _| true, heading: "Maglev tables" },
];

/// Whether the kernel's tunnel packet differs from fullgate's in the outer header's ECN alone: a congested inner packet.
fn differs_in_outer_ecn(kernel: &str, fullgate: &str) -> bool {
    let is_congested = kernel.contains("congested");
    let outer = |text: &str| text.find("lan to").map(|at| at + "lan to 0203 ".len());
    let (Some(at), true) = (outer(kernel), is_congested) else { return false };
    let same = |one: &str, other: &str| {
        // IPv4 has it in the second byte, IPv6 in the nibble before.
        let place = if one[at..].starts_with('4') { at + 3 } else { at + 2 };
        one[..place] == other[..place] && one[place + 1..] == other[place + 1..] && one[place..].starts_with('2')
    };
    kernel.len() == fullgate.len() && same(kernel, fullgate)
}

/// Whether they differ in the outer header's DF alone, or in its ECN, too: IPv6 in IPv4.
fn differs_in_outer_dont_fragment(kernel: &str, fullgate: &str) -> bool {
    let Some(at) = kernel.find("lan to").map(|at| at + "lan to 0203 ".len()) else { return false };
    let without = |text: &str| {
        let mut text = text.to_owned();
        text.replace_range(at + 12..at + 14, "00");
        if text.contains("congested") {
            text.replace_range(at + 3..at + 4, "0");
        }
        text
    };
    kernel.len() == fullgate.len() && without(kernel) == without(fullgate)
}

/// Whether the kernel answers by the path MTU that it has learnt for a real server, or has not yet learnt when it relays the
/// first error about it.
fn differs_in_learnt_mtu(kernel: &str, _fullgate: &str) -> bool {
    let learns = [
        "too big on the way to it",
        "udp too large",
        "udp nearly too large",
        "sctp too large",
        "sctp nearly too large",
    ];
    learns.iter().any(|what| kernel.contains(what)) && kernel.contains("0304000000000")
}

/// Whether both cut a packet, each its own.
fn both_cut(kernel: &str, fullgate: &str) -> bool {
    let pieces = |text: &str| text.contains("too large without DF") && text.matches("lan to").count() > 1;
    pieces(kernel) && pieces(fullgate)
}

/// Whether the kernel sends a datagram whole, or cut anew, that came in two fragments, and fullgate forwards those.
fn is_put_together(kernel: &str, fullgate: &str) -> bool {
    let sent = |text: &str| text.matches("lan to").count();
    kernel.contains("in fragments") && sent(kernel) > 0 && sent(fullgate) == 2
}

/// Whether both relay an error from inside a tunnel, the kernel as one of its own.
fn differs_in_relayed_ttl(kernel: &str, fullgate: &str) -> bool {
    let own = |text: &str| text.replace(" 45c0", " 4500").replace("00400100000a000064", "003f0100000a000064");
    kernel.contains("wan to") && own(kernel) == fullgate
}

/// Whether the kernel is silent about an error from inside a tunnel, and fullgate is not.
fn is_relayed_only_by_fullgate(kernel: &str, fullgate: &str) -> bool {
    kernel.ends_with(": nothing") && fullgate.contains("wan to")
}

/// Whether it is a SYN with an ACK that belongs to nothing.
fn is_answered_syn(kernel: &str, _fullgate: &str) -> bool {
    kernel.contains("tcp \"SA\"")
}

/// The counters that two lines end with, where the rest of them is the same.
fn counters(kernel: &str, fullgate: &str) -> Option<[Vec<u64>; 2]> {
    let split = |text: &str| {
        let (what, list) = text.strip_suffix(']')?.split_once('[')?;
        let numbers: Result<Vec<u64>, _> = list.split(", ").map(str::parse).collect();
        Some((what.to_owned(), numbers.ok().filter(|numbers| numbers.len() == 5)?))
    };
    let (kernel, fullgate) = (split(kernel)?, split(fullgate)?);
    (kernel.0 == fullgate.0).then_some([kernel.1, fullgate.1])
}

/// Whether both count the same connections.
fn both_count(kernel: &str, fullgate: &str) -> bool {
    counters(kernel, fullgate).is_some_and(|[kernel, fullgate]| kernel[0] == fullgate[0])
}

/// Whether fullgate has counted more answers, and all else is the same.
fn counts_answers_of_the_removed(kernel: &str, fullgate: &str) -> bool {
    counters(kernel, fullgate).is_some_and(|[kernel, fullgate]| {
        let inbound = |counts: &[u64]| [counts[0], counts[1], counts[3]];
        inbound(&kernel) == inbound(&fullgate) && kernel[2] < fullgate[2] && kernel[4] < fullgate[4]
    })
}

/// Whether the counters of a real server that was away are lower at fullgate.
fn counts_from_zero(kernel: &str, fullgate: &str) -> bool {
    let comes_back = ["10.1.0.11: ", "10.1.0.13: ", "2001:db8:1::b: ", "2001:db8:1::d: ", "in all, 10.1.0.1"]
        .iter()
        .any(|whose| kernel.starts_with(whose));
    comes_back && counts_lower(kernel, fullgate)
}

fn counts_lower(kernel: &str, fullgate: &str) -> bool {
    let lower = |[kernel, fullgate]: [Vec<u64>; 2]| kernel.iter().zip(&fullgate).all(|(one, other)| one >= other);
    counters(kernel, fullgate).is_some_and(lower)
}

/// Whether the kernel lists a template that fullgate does not.
fn is_not_listed(kernel: &str, fullgate: &str) -> bool {
    kernel.starts_with("part ") && fullgate.ends_with(": none")
}

/// Whether they differ in the templates of a real server alone, of which the kernel counts more.
fn counts_templates_in_use(kernel: &str, fullgate: &str) -> bool {
    let split = |text: &str| {
        let (what, counts) = text.split_once("templates, active, inactive [")?;
        let (templates, rest) = counts.split_once(',')?;
        Some((what.to_owned(), templates.parse::<u32>().ok()?, rest.to_owned()))
    };
    let (Some(kernel), Some(fullgate)) = (split(kernel), split(fullgate)) else { return false };
    (kernel.0, kernel.2) == (fullgate.0, fullgate.2) && kernel.1 > fullgate.1
}

/// Whether it is the template of a client that came again after a connection had kept it.
fn comes_again(kernel: &str, _fullgate: &str) -> bool {
    kernel.contains("and another one")
}

/// Whether fullgate lists connections that the kernel does not.
fn lists_those_to_end(kernel: &str, fullgate: &str) -> bool {
    let split = |text: &str| {
        let list = text.strip_prefix("connections: ")?;
        Some(list.split(", ").filter(|one| !one.is_empty()).map(str::to_owned).collect::<Vec<_>>())
    };
    let (Some(kernel), Some(fullgate)) = (split(kernel), split(fullgate)) else { return false };
    kernel.len() < fullgate.len() && kernel.iter().all(|one| fullgate.contains(one))
}

/// Whether the kernel answers a packet that belongs to nothing with an ICMP error, and fullgate is silent.
fn is_answered_unreachable(kernel: &str, fullgate: &str) -> bool {
    kernel.ends_with("client gets protocol 1") && fullgate.ends_with(": nothing")
}

/// Whether it is a template that only the kernel calls assured.
fn is_assured_by_udp(kernel: &str, fullgate: &str) -> bool {
    kernel.starts_with("template ") && kernel.replace("ASSURED", "NONE") == fullgate
}

/// Whether it is a packet of SCTP with a wrong checksum, and all else is the same.
fn is_mended(kernel: &str, fullgate: &str) -> bool {
    let is_it = kernel.starts_with("sctp damaged") && kernel.len() == fullgate.len();
    is_it && kernel.bytes().zip(fullgate.bytes()).filter(|(one, other)| one != other).count() <= 8
}
