//! One session in one cache line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Tick;
use super::tcp_state::State;
use crate::balance::{ForwardingMode, Protocol, RealServerSlot, TemplateIndex};
use crate::flow::{Address, Direction, FlowKey};
use crate::route::HopIndex;
use crate::wire::checksum::{Delta, TTL_DECREMENT};
use crate::wire::{icmp, sctp, tcp, udp};

/// A session: `client -> virtual` outside is `local -> real` inside in FULLNAT mode and `client -> real` in NAT
/// mode. In modes DR and TUN `real -> client` is no flow that the gateway sees: it says where packets go, and no more.
///
/// 64 bytes over IPv4, so that a packet of a known session touches one line of the table's memory besides its index, and
/// 128 over IPv6. Where one side is IPv4 and the other IPv6, the IPv4 addresses are IPv4-mapped ones in a record of IPv6.
/// An all-zero record is a free one: no protocol has number 0.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[zeroable(bound = "A: Address")]
#[repr(C, align(64))]
pub struct Session<A: Address> {
    /// By direction: source and destination as its packets arrive, as they stand in the packet (see [`FlowKey`]).
    addresses: [A::Pair; 2],
    ports: [[u8; 4]; 2],
    /// IP protocol number; 0 in a free record.
    pub(super) protocol: u8,
    state: State,
    /// [`ACTIVE`], [`MIXED`], [`SNAT`].
    flags: u8,
    mode: ForwardingMode,
    real_server: u32,
    /// When it ends if nothing more comes.
    pub(super) expires: Tick,
    /// The timer wheel's links, or the free list's.
    pub(super) next: u32,
    pub(super) previous: u32,
    /// Where packets go each way, as last resolved in routes of this generation.
    route_generation: u32,
    hops: [u16; 2],
    /// The template that it was set up by; 0: none.
    template: u32,
    /// By direction, what rewriting does to the checksum of the IPv4 header, whose TTL falls by one, and to that of
    /// TCP, UDP or SCTP.
    deltas: [[Delta; 2]; 2],
}

/// It counts as active at its real server.
const ACTIVE: u8 = 1;
/// One side of it is IPv4, the other IPv6.
const MIXED: u8 = 2;
/// It is one of source NAT.
const SNAT: u8 = 4;
/// A hop that is not cached.
const NO_HOP: u16 = u16::MAX;

impl<A: Address> Session<A> {
    /// A new session of the flow as the client's packets came, with `real`, from `local`: the client itself in other modes
    /// than FULLNAT. It is in state NONE, inactive.
    pub fn new(
        mode: ForwardingMode,
        flow: &FlowKey<A>,
        local: (A, u16),
        real: (A, u16),
        real_server: RealServerSlot,
    ) -> Self {
        let answer = FlowKey::new(flow.protocol(), real, local);
        let outside = flow.source().sum() + flow.destination().sum();
        let inside = local.0.sum() + real.0.sum();
        let outside_ports = u32::from(flow.source_port()) + u32::from(flow.destination_port());
        let inside_ports = u32::from(local.1) + u32::from(real.1);
        let addresses = Delta::new(outside, inside);
        let addresses_and_ports = Delta::new(outside + outside_ports, inside + inside_ports);
        Self {
            addresses: [flow.wire_addresses(), answer.wire_addresses()],
            ports: [flow.wire_ports(), answer.wire_ports()],
            protocol: flow.protocol() as u8,
            state: State::None,
            flags: if is_mixed(flow.source(), real.0) { MIXED } else { 0 },
            mode,
            real_server: real_server.0,
            expires: Tick(0),
            next: 0,
            previous: 0,
            route_generation: 0,
            hops: [NO_HOP; 2],
            template: 0,
            deltas: if mode.is_one_way() {
                [[TTL_DECREMENT, Delta::NONE]; 2]
            } else {
                [
                    [addresses.and(TTL_DECREMENT), addresses_and_ports],
                    [addresses.reverse().and(TTL_DECREMENT), addresses_and_ports.reverse()],
                ]
            },
        }
    }

    /// Says that it is one of source NAT: a session in FULLNAT mode whose client is inside, and whose virtual address and
    /// real server are both the destination.
    pub fn with_snat(self) -> Self {
        Self { flags: self.flags | SNAT, ..self }
    }

    /// Says which template it was set up by.
    #[inline]
    pub fn with_template(self, template: Option<TemplateIndex>) -> Self {
        Self { template: template.map_or(0, |index| index.0), ..self }
    }

    /// The template that it was set up by.
    #[inline]
    pub fn template(&self) -> Option<TemplateIndex> {
        (self.template != 0).then_some(TemplateIndex(self.template))
    }

    /// Whether it is one of source NAT.
    #[inline]
    pub fn is_snat(&self) -> bool {
        self.flags & SNAT != 0
    }

    /// Whether it is one of TCP.
    pub fn is_tcp(&self) -> bool {
        self.protocol == tcp::PROTOCOL
    }

    /// Whether the record holds a session.
    #[inline]
    pub(super) fn is_used(&self) -> bool {
        self.protocol != 0
    }

    /// The key that its packets of one direction carry when they arrive.
    #[inline]
    pub fn key(&self, direction: Direction) -> FlowKey<A> {
        let protocol = match self.protocol {
            udp::PROTOCOL => Protocol::Udp,
            sctp::PROTOCOL => Protocol::Sctp,
            icmp::PROTOCOL => Protocol::Icmp,
            _ => Protocol::Tcp,
        };
        FlowKey::from_wire(protocol, self.addresses[direction as usize], self.ports[direction as usize])
    }

    /// Whether its packets of one direction carry this key when they arrive.
    #[inline]
    pub(super) fn has_key(&self, direction: Direction, key: &FlowKey<A>) -> bool {
        let of = direction as usize;
        (self.addresses[of] == key.wire_addresses())
            & (self.ports[of] == key.wire_ports())
            & (self.protocol == key.protocol() as u8)
    }

    /// The key that its packets of one direction carry when they leave: that of an answer to the other direction's.
    #[inline]
    pub fn rewritten_key(&self, direction: Direction) -> FlowKey<A> {
        self.key(direction.opposite()).reversed()
    }

    /// What rewriting a packet of one direction, TTL included, does to the IPv4 header checksum and to that of TCP or
    /// UDP.
    #[inline]
    pub fn deltas(&self, direction: Direction) -> [Delta; 2] {
        self.deltas[direction as usize]
    }

    /// How its packets reach the real server.
    #[inline]
    pub fn mode(&self) -> ForwardingMode {
        self.mode
    }

    /// Whether one side of it is IPv4 and the other IPv6.
    #[inline]
    pub fn is_mixed(&self) -> bool {
        self.flags & MIXED != 0
    }

    /// Its real server, or rule for source NAT.
    #[inline]
    pub fn real_server(&self) -> RealServerSlot {
        RealServerSlot(self.real_server)
    }

    /// Its local address; none in other modes than FULLNAT.
    pub fn local_address(&self) -> Option<A> {
        (self.mode == ForwardingMode::Fullnat).then(|| self.key(Direction::Outbound).destination())
    }

    /// When it ends if nothing more comes.
    pub fn ends(&self) -> Tick {
        self.expires
    }

    /// Its state.
    #[inline]
    pub fn state(&self) -> State {
        self.state
    }

    /// Changes its state.
    #[inline]
    pub fn set_state(&mut self, state: State) {
        self.state = state;
    }

    /// Whether it counts as active at its real server.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.flags & ACTIVE != 0
    }

    /// Remembers whether it counts as active.
    #[inline]
    pub fn set_active(&mut self, active: bool) {
        self.flags = self.flags & !ACTIVE | u8::from(active);
    }

    /// The hop of one direction, if it was resolved in routes of this generation.
    #[inline]
    pub fn hop(&self, direction: Direction, generation: u32) -> Option<HopIndex> {
        let hop = self.hops[direction as usize];
        (self.route_generation == generation && hop != NO_HOP).then_some(HopIndex(hop))
    }

    /// Remembers a hop of one direction; those of older routes are forgotten.
    pub fn set_hop(&mut self, direction: Direction, generation: u32, hop: HopIndex) {
        if self.route_generation != generation {
            self.route_generation = generation;
            self.hops = [NO_HOP; 2];
        }
        self.hops[direction as usize] = hop.0;
    }

    /// A copy for showing.
    pub fn view(&self, now: Tick) -> SessionView {
        let inbound = self.key(Direction::Inbound);
        let outbound = self.key(Direction::Outbound);
        let end = |address: A, port| SocketAddr::new(address.into().to_canonical(), port);
        SessionView {
            protocol: inbound.protocol(),
            client: end(inbound.source(), inbound.source_port()),
            virtual_: end(inbound.destination(), inbound.destination_port()),
            mode: if self.is_snat() { "snat" } else { self.mode.name() },
            local: self.local_address().map(|address| end(address, outbound.destination_port())),
            real: end(outbound.source(), outbound.source_port()),
            state: self.state().name(inbound.protocol()),
            expires_seconds: self.expires.since(now).div_ceil(Tick::PER_SECOND),
        }
    }
}

/// Whether two addresses, IPv4-mapped ones taken for what they are mapped from, are of different families.
fn is_mixed<A: Address>(one: A, other: A) -> bool {
    let is_ipv4 = |address: A| address.into().to_canonical().is_ipv4();
    is_ipv4(one) != is_ipv4(other)
}

/// A session as it is shown to the outside: a copy, by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The client's address and port (CIP).
    pub client: SocketAddr,
    /// The virtual address and port (VIP).
    pub virtual_: SocketAddr,
    /// How its packets reach the real server: a forwarding mode's name, or `snat`.
    pub mode: &'static str,
    /// The local address and port (LIP), in FULLNAT mode and with source NAT.
    pub local: Option<SocketAddr>,
    /// The real server's address and port (RS).
    pub real: SocketAddr,
    /// The state's IPVS name.
    pub state: &'static str,
    /// Seconds until it expires if nothing more comes.
    pub expires_seconds: u32,
}

impl SessionView {
    /// No session, to fill memory with.
    pub const PLACEHOLDER: Self = Self {
        protocol: Protocol::Udp,
        client: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        virtual_: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        mode: "",
        local: None,
        real: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        state: "",
        expires_seconds: 0,
    };
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn is_one_cache_line_or_two() {
        assert_eq!((size_of::<Session<Ipv4Addr>>(), align_of::<Session<Ipv4Addr>>()), (64, 64));
        assert_eq!((size_of::<Session<Ipv6Addr>>(), align_of::<Session<Ipv6Addr>>()), (128, 64));
    }

    #[test]
    fn forgets_hops_of_older_routes() {
        let flow =
            FlowKey::new(Protocol::Tcp, (Ipv4Addr::new(10, 0, 0, 1), 40_000), (Ipv4Addr::new(10, 0, 0, 100), 80));
        let (local, real) = ((Ipv4Addr::new(10, 1, 0, 200), 1024), (Ipv4Addr::new(10, 1, 0, 11), 8080));
        let mut session = Session::new(ForwardingMode::Fullnat, &flow, local, real, RealServerSlot(3));
        session.set_hop(Direction::Inbound, 1, HopIndex(5));
        session.set_hop(Direction::Outbound, 1, HopIndex(6));
        assert_eq!(session.hop(Direction::Inbound, 1), Some(HopIndex(5)));
        assert_eq!(session.hop(Direction::Inbound, 2), None);
        session.set_hop(Direction::Outbound, 2, HopIndex(7));
        assert_eq!(session.hop(Direction::Inbound, 2), None);
        assert_eq!(session.hop(Direction::Outbound, 2), Some(HopIndex(7)));
    }
}
