//! One session in one cache line.

use std::net::Ipv4Addr;

use super::Tick;
use super::tcp_state::State;
use crate::balance::{ForwardingMode, Protocol, RealServerSlot};
use crate::flow::{Direction, FlowKey};
use crate::route::HopIndex;
use crate::wire::checksum::{Delta, TTL_DECREMENT, address_sum};

/// A session over IPv4: `client -> virtual` outside is `local -> real` inside in FULLNAT mode and `client -> real` in NAT
/// mode. In modes DR and TUN `real -> client` is no flow that the gateway sees: it says where packets go, and no more.
///
/// 64 bytes, so that a packet of a known session touches one line of the table's memory besides its index. An
/// all-zero record is a free one: no protocol has number 0.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub struct Session {
    /// By direction: source and destination as its packets arrive, as they stand in the packet (see [`FlowKey`]).
    addresses: [[u8; 8]; 2],
    ports: [[u8; 4]; 2],
    /// IP protocol number; 0 in a free record.
    pub(super) protocol: u8,
    state: State,
    /// Whether it counts as active at its real server.
    active: u8,
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
    /// By direction, what rewriting does to the checksum of the IPv4 header, whose TTL falls by one, and to that of
    /// TCP or UDP.
    deltas: [[Delta; 2]; 2],
}

/// A hop that is not cached.
const NO_HOP: u16 = u16::MAX;

impl Session {
    /// A new session of the flow as the client's packets came, with `real`, from `local`: the client itself in other modes
    /// than FULLNAT. It is in state NONE, inactive.
    pub fn new(
        mode: ForwardingMode,
        flow: &FlowKey,
        local: (Ipv4Addr, u16),
        real: (Ipv4Addr, u16),
        real_server: RealServerSlot,
    ) -> Self {
        let answer = FlowKey::new(flow.protocol(), real, local);
        let outside = address_sum(flow.source()) + address_sum(flow.destination());
        let inside = address_sum(local.0) + address_sum(real.0);
        let outside_ports = u32::from(flow.source_port()) + u32::from(flow.destination_port());
        let inside_ports = u32::from(local.1) + u32::from(real.1);
        let addresses = Delta::new(outside, inside);
        let addresses_and_ports = Delta::new(outside + outside_ports, inside + inside_ports);
        Self {
            addresses: [flow.wire_addresses(), answer.wire_addresses()],
            ports: [flow.wire_ports(), answer.wire_ports()],
            protocol: flow.protocol() as u8,
            state: State::None,
            active: 0,
            mode,
            real_server: real_server.0,
            expires: Tick(0),
            next: 0,
            previous: 0,
            route_generation: 0,
            hops: [NO_HOP; 2],
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

    /// Whether the record holds a session.
    #[inline]
    pub(super) fn is_used(&self) -> bool {
        self.protocol != 0
    }

    /// The key that its packets of one direction carry when they arrive.
    #[inline]
    pub fn key(&self, direction: Direction) -> FlowKey {
        let protocol = if self.protocol == Protocol::Udp as u8 { Protocol::Udp } else { Protocol::Tcp };
        FlowKey::from_wire(protocol, self.addresses[direction as usize], self.ports[direction as usize])
    }

    /// Whether its packets of one direction carry this key when they arrive.
    #[inline]
    pub(super) fn has_key(&self, direction: Direction, key: &FlowKey) -> bool {
        let of = direction as usize;
        (self.addresses[of] == key.wire_addresses())
            & (self.ports[of] == key.wire_ports())
            & (self.protocol == key.protocol() as u8)
    }

    /// The key that its packets of one direction carry when they leave: that of an answer to the other direction's.
    #[inline]
    pub fn rewritten_key(&self, direction: Direction) -> FlowKey {
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

    /// Its real server.
    #[inline]
    pub fn real_server(&self) -> RealServerSlot {
        RealServerSlot(self.real_server)
    }

    /// Its local address; none in other modes than FULLNAT.
    pub fn local_address(&self) -> Option<Ipv4Addr> {
        (self.mode == ForwardingMode::Fullnat).then(|| self.key(Direction::Outbound).destination())
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
        self.active != 0
    }

    /// Remembers whether it counts as active.
    #[inline]
    pub fn set_active(&mut self, active: bool) {
        self.active = u8::from(active);
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
        SessionView {
            protocol: inbound.protocol(),
            client: (inbound.source(), inbound.source_port()),
            virtual_: (inbound.destination(), inbound.destination_port()),
            mode: self.mode,
            local: self.local_address().map(|address| (address, outbound.destination_port())),
            real: (outbound.source(), outbound.source_port()),
            state: self.state().name(inbound.protocol()),
            expires_seconds: self.expires.since(now).div_ceil(Tick::PER_SECOND),
        }
    }
}

/// A session as it is shown to the outside: a copy, by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The client's address and port (CIP).
    pub client: (Ipv4Addr, u16),
    /// The virtual address and port (VIP).
    pub virtual_: (Ipv4Addr, u16),
    /// How its packets reach the real server.
    pub mode: ForwardingMode,
    /// The local address and port (LIP), in FULLNAT mode.
    pub local: Option<(Ipv4Addr, u16)>,
    /// The real server's address and port (RS).
    pub real: (Ipv4Addr, u16),
    /// The state's IPVS name.
    pub state: &'static str,
    /// Seconds until it expires if nothing more comes.
    pub expires_seconds: u32,
}

impl SessionView {
    /// No session, to fill memory with.
    pub const PLACEHOLDER: Self = Self {
        protocol: Protocol::Udp,
        client: (Ipv4Addr::UNSPECIFIED, 0),
        virtual_: (Ipv4Addr::UNSPECIFIED, 0),
        mode: ForwardingMode::Fullnat,
        local: None,
        real: (Ipv4Addr::UNSPECIFIED, 0),
        state: "",
        expires_seconds: 0,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_cache_line() {
        assert_eq!((size_of::<Session>(), align_of::<Session>()), (64, 64));
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
