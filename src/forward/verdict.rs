//! What becomes of a packet: one closed type, one counter for each way that is not transmission.

use std::net::IpAddr;

use crate::port::{PortId, WorkerId};

/// What the worker does with a packet after [`super::Forwarder::process`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it out of this port, as it now is.
    Transmit(PortId),
    /// Its session is, or would be, another worker's.
    HandOver(WorkerId),
    /// Give it to the kernel through the TAP of the port that it came in by.
    Punt(PuntClass),
    /// It is ready but for its Ethernet header: the next hop's link-layer address is not known yet.
    AwaitNeighbour(Hop),
    /// It is a fragment of a datagram of which the first one, which says where they go, has not come yet: keep it until
    /// [`super::Forwarder::arrived`] names its datagram.
    AwaitFragment(DatagramTag),
    /// It is larger than the link that it goes to takes, and may be cut: into packets of so many bytes at most, which are
    /// then to be processed like any. It is as it came.
    Cut(u16),
    /// Drop it and count why.
    Drop(DropReason),
}

/// The name of a datagram, by which its early fragments are kept: a hash of its addresses, protocol and identification with the
/// gateway's secret. Two datagrams may have one in theory, which does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DatagramTag(pub [u8; 8]);

/// A neighbour to send to: an on-link address behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    /// The port behind which it is.
    pub port: PortId,
    /// Its address: a gateway's, or the destination's own when that is on-link. A gateway's family may be another than
    /// the packets' (RFC 8950).
    pub address: IpAddr,
}

/// Declares a closed enum with a fixed order, its names for metrics, and a one-line meaning for each.
macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// Every variant, in declaration order: `ALL[v as usize] == v`.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// How many variants there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name that metrics and listings use.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }
        }
    };
}

named_enum! {
    /// Why a packet was dropped. One counter and one metric label each; nothing is lost without one.
    DropReason {
        /// Shorter than its headers say, or headers not all in the first segment.
        Truncated = "truncated",
        /// Its destination MAC is another machine's and the port is not promiscuous.
        NotOurMac = "not_our_mac",
        /// An EtherType that the gateway does not speak.
        UnknownEthertype = "unknown_ethertype",
        /// Tagged for a VLAN that no port is for, without a tag where only tagged frames are taken, or with several tags.
        UnknownVlan = "unknown_vlan",
        /// IPv4 version, header length or total length is wrong.
        BadIpv4Header = "bad_ipv4_header",
        /// IPv6 version, length or extension headers are wrong, or these are more than the gateway looks behind.
        BadIpv6Header = "bad_ipv6_header",
        /// The IPv4 header checksum is wrong.
        BadIpv4Checksum = "bad_ipv4_checksum",
        /// The device found the TCP or UDP checksum wrong.
        BadL4Checksum = "bad_l4_checksum",
        /// TCP, UDP or SCTP header lengths are wrong.
        BadL4Header = "bad_l4_header",
        /// An ICMP error about a session's packet that quotes too little of it or has a wrong checksum, or that the
        /// other family has no words for.
        BadIcmpError = "bad_icmp_error",
        /// A source address that no host can have: multicast, broadcast, loopback, 0.0.0.0/8, ::, IPv4-mapped. In a packet to a
        /// service, also one of the gateway's own.
        MartianSource = "martian_source",
        /// A fragment to a virtual or local address, of neither TCP, UDP nor SCTP.
        Fragment = "fragment",
        /// A fragment without data, or one that is not the last and whose data are no multiple of 8 bytes.
        BadFragment = "bad_fragment",
        /// A first fragment that does not hold its transport header (RFC 1858).
        FragmentTooShort = "fragment_too_short",
        /// A fragment that ends beyond the largest datagram.
        FragmentTooLong = "fragment_too_long",
        /// A fragment that overlaps another one or contradicts the datagram's end, or another one of that datagram (RFC 5722).
        FragmentOverlap = "fragment_overlap",
        /// A fragment of a datagram in more pieces than the gateway keeps account of, or another one of that datagram.
        FragmentsTooMany = "fragments_too_many",
        /// A fragment of a datagram whose first one was dropped, or whose session has ended.
        FragmentNotForwarded = "fragment_not_forwarded",
        /// A fragment whose first one did not come in time.
        FragmentTimeout = "fragment_timeout",
        /// A fragment that waited for its first one and gave way to a newer one: too many wait.
        FragmentQueueFull = "fragment_queue_full",
        /// Neither for a service, nor for a local address, nor for the kernel.
        NotLocal = "not_local",
        /// TTL ran out here, and no answer was due or allowed.
        TtlExpired = "ttl_expired",
        /// A TCP packet to a service that is neither a SYN nor of a session, and gets no RST.
        NoSession = "no_session",
        /// A packet to a local (LIP) address that belongs to no session and gets no RST.
        LocalAddressNoSession = "local_address_no_session",
        /// The service has no real server that takes new sessions.
        NoRealServer = "no_real_server",
        /// The service has as many sessions as it may have.
        ConnectionLimit = "connection_limit",
        /// The session's real server was removed.
        RealServerRemoved = "real_server_removed",
        /// In NAT mode: another session of this client and port with this real server, by another service, has the same
        /// answers.
        AnswersAmbiguous = "answers_ambiguous",
        /// In DR mode: the real server is behind a router, not on a link of the gateway.
        RealServerNotOnLink = "real_server_not_on_link",
        /// In TUN mode: the port towards the real server has no address to send from.
        NoSourceAddress = "no_source_address",
        /// Every local port towards this real server is in use.
        LocalPortsExhausted = "local_ports_exhausted",
        /// The service's, or rule's, pool has no address of the real server's family: they were withdrawn.
        NoLocalAddress = "no_local_address",
        /// It would have begun a session, and drop_packet is active.
        DropPacket = "drop_packet",
        /// The session table is full.
        SessionTableFull = "session_table_full",
        /// No route to the destination.
        NoRoute = "no_route",
        /// The next hop did not answer in time.
        NeighbourUnresolved = "neighbour_unresolved",
        /// Too many packets wait for next hops already.
        NeighbourQueueFull = "neighbour_queue_full",
        /// Larger than the outgoing port's MTU.
        TooBig = "too_big",
        /// No packet buffer was free for the pieces of a packet larger than the outgoing port's MTU.
        NoBuffer = "no_buffer",
        /// No room in the packet's buffer for a header that goes in front.
        NoHeadroom = "no_headroom",
        /// The outgoing queue stayed full.
        TransmitFull = "transmit_full",
        /// The ring to the owning worker was full.
        HandOverFull = "hand_over_full",
        /// More packets of this class for the kernel than its rate allows.
        PuntRateLimited = "punt_rate_limited",
        /// The ring to the control thread was full.
        PuntFull = "punt_full",
        /// The kernel refused the frame that it was given.
        PuntRefused = "punt_refused",
        /// A frame from the kernel that found the worker's ring full or no packet buffer.
        InjectFull = "inject_full",
        /// Still under way when the gateway stopped.
        Stopping = "stopping",
    }
}

named_enum! {
    /// What the kernel is given, each class with a rate of its own.
    PuntClass {
        /// ARP.
        Arp = "arp",
        /// ICMP for an address of the gateway: echo, errors.
        Icmp = "icmp",
        /// Neighbour discovery of IPv6 (RFC 4861): solicitations, advertisements, redirects.
        NeighbourDiscovery = "nd",
        /// The rest of IPv6's multicasts and ICMP: routing protocols, echo, errors.
        Ipv6 = "ipv6",
        /// IPv4 multicast and broadcast: VRRP, OSPF, BFD, DHCP.
        Multicast = "multicast",
        /// Unicast for an address of the gateway's own: BGP, ssh.
        Local = "local",
        /// Unicast for a virtual address, but for none of its services: the kernel refuses it.
        Virtual = "virtual",
        /// Of a service whose real server is the gateway's own host: IPVS's local node.
        LocalNode = "local_node",
    }
}

impl PuntClass {
    /// Whether neighbours or routing die without it.
    pub const fn is_vital(self) -> bool {
        matches!(self, Self::Arp | Self::NeighbourDiscovery | Self::Multicast)
    }
}
