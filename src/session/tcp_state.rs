//! IPVS's session states and TCP machine (net/netfilter/ipvs/ip_vs_proto_tcp.c, `tcp_states`). SCTP's machine is in `sctp_state`.

use crate::balance::{Protocol, Timeouts};
use crate::flow::Direction;
use crate::wire::sctp::Event;
use crate::wire::tcp::Flags;

use super::Tick;

/// A session's state. The TCP states are IPVS's, in its order; UDP has one, and so has ICMP; those of SCTP are apart, but for NONE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, bytemuck::Zeroable)]
#[repr(u8)]
#[allow(missing_docs, reason = "the states of RFC 9293 and RFC 9260 by IPVS's names")]
pub enum State {
    None = 0,
    Established,
    SynSent,
    SynRecv,
    FinWait,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    SynAck,
    Udp,
    SctpEstablished,
    SctpInit1,
    SctpInit,
    SctpCookieSent,
    SctpCookieReplied,
    SctpCookieWait,
    SctpCookie,
    SctpCookieEchoed,
    SctpShutdownSent,
    SctpShutdownReceived,
    SctpShutdownAckSent,
    SctpRejected,
    SctpClosed,
    Icmp,
}

impl State {
    /// Every state: `ALL[state as usize] == state`.
    pub const ALL: [Self; 26] = [
        Self::None,
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::SynAck,
        Self::Udp,
        Self::SctpEstablished,
        Self::SctpInit1,
        Self::SctpInit,
        Self::SctpCookieSent,
        Self::SctpCookieReplied,
        Self::SctpCookieWait,
        Self::SctpCookie,
        Self::SctpCookieEchoed,
        Self::SctpShutdownSent,
        Self::SctpShutdownReceived,
        Self::SctpShutdownAckSent,
        Self::SctpRejected,
        Self::SctpClosed,
        Self::Icmp,
    ];

    /// IPVS's name.
    pub const fn name(self, protocol: Protocol) -> &'static str {
        match (self, protocol) {
            (Self::Udp, _) | (_, Protocol::Udp) => "UDP",
            (Self::Icmp, _) | (_, Protocol::Icmp) => "ICMP",
            (Self::None, _) => "NONE",
            (Self::Established | Self::SctpEstablished, _) => "ESTABLISHED",
            (Self::SynSent, _) => "SYN_SENT",
            (Self::SynRecv, _) => "SYN_RECV",
            (Self::FinWait, _) => "FIN_WAIT",
            (Self::TimeWait, _) => "TIME_WAIT",
            (Self::Close, _) => "CLOSE",
            (Self::CloseWait, _) => "CLOSE_WAIT",
            (Self::LastAck, _) => "LAST_ACK",
            (Self::Listen, _) => "LISTEN",
            (Self::SynAck, _) => "SYNACK",
            (Self::SctpInit1, _) => "INIT1",
            (Self::SctpInit, _) => "INIT",
            (Self::SctpCookieSent, _) => "C-SENT",
            (Self::SctpCookieReplied, _) => "C-REPLIED",
            (Self::SctpCookieWait, _) => "C-WAIT",
            (Self::SctpCookie, _) => "COOKIE",
            (Self::SctpCookieEchoed, _) => "C-ECHOED",
            (Self::SctpShutdownSent, _) => "S-SENT",
            (Self::SctpShutdownReceived, _) => "S-RECEIVED",
            (Self::SctpShutdownAckSent, _) => "S-ACK-SENT",
            (Self::SctpRejected, _) => "REJECTED",
            (Self::SctpClosed, _) => "CLOSED",
        }
    }

    /// Whether the session counts as an active connection (`tcp_state_active_table`; of SCTP when it is established); UDP
    /// never does.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Established | Self::SynSent | Self::SynRecv | Self::SynAck | Self::SctpEstablished)
    }

    /// Whether the peers are still agreeing on the connection (`ip_vs_random_dropentry`'s SYN_RECV, SYNACK, INIT1 and INIT).
    pub const fn is_handshake(self) -> bool {
        matches!(self, Self::SynRecv | Self::SynAck | Self::SctpInit1 | Self::SctpInit)
    }

    /// Whether a new SYN, or INIT, replaces the session instead of continuing it (conn_reuse_mode 1).
    pub const fn gives_way_to_syn(self) -> bool {
        matches!(self, Self::TimeWait | Self::Close | Self::SctpClosed)
    }

    /// The state after an SCTP packet that is seen so.
    // A call: inlined it takes registers from the packets of the others.
    #[inline(never)]
    pub const fn after_sctp(self, seen: Seen, event: Event) -> Self {
        super::sctp_state::after(self, seen, event)
    }

    /// The same with `secure_tcp` (`tcp_states_dos`): a client's ACK does not establish a connection, the real server's does,
    /// and a connection that was answered is in SYNACK until then. Where answers do not pass the gateway a SYN begins in SYNACK.
    ///
    /// What differs, a SYN apart, changes the state in both tables.
    pub fn after_secured(self, seen: Seen, flags: Flags) -> Self {
        let is_opening = flags.has(Flags::SYN) && !flags.has(Flags::RST);
        match (seen, self) {
            (Seen::Inbound, Self::SynAck) if flags.has(Flags::RST) => Self::Close,
            (Seen::Inbound, Self::SynAck) if is_opening || flags.has(Flags::FIN) || flags.has(Flags::ACK) => self,
            (Seen::Inbound, Self::SynRecv) if is_bare_ack(flags) => self,
            (Seen::Outbound, Self::SynRecv | Self::SynAck) if is_opening => Self::SynAck,
            (Seen::InboundOnly, Self::Established | Self::SynSent | Self::SynRecv) => self.after(seen, flags),
            (Seen::InboundOnly, _) if is_opening => Self::SynAck,
            _ => self.after(seen, flags),
        }
    }

    /// The TCP state after a segment that is seen so, with these control bits. Without RST, SYN, FIN and ACK it is CLOSE, as in IPVS.
    #[inline]
    pub fn after(self, seen: Seen, flags: Flags) -> Self {
        let event = if flags.has(Flags::RST) {
            3
        } else if flags.has(Flags::SYN) {
            0
        } else if flags.has(Flags::FIN) {
            1
        } else if flags.has(Flags::ACK) {
            2
        } else {
            return Self::Close;
        };
        TRANSITIONS[seen as usize][event].get(self as usize).copied().unwrap_or(self)
    }
}

/// Whether a segment has ACK and none of the bits that count before it.
const fn is_bare_ack(flags: Flags) -> bool {
    flags.has(Flags::ACK) && !flags.has(Flags::RST) && !flags.has(Flags::SYN) && !flags.has(Flags::FIN)
}

/// What a segment that the gateway sees is of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Seen {
    /// The client's; the real server's pass the gateway too.
    Inbound = 0,
    /// The real server's.
    Outbound = 1,
    /// The client's, and the gateway sees no other.
    InboundOnly = 2,
}

impl Seen {
    /// What a packet is; in a session whose answers do not pass the gateway: `one_way`.
    #[inline]
    pub const fn new(one_way: bool, direction: Direction) -> Self {
        match direction {
            Direction::Inbound if one_way => Self::InboundOnly,
            Direction::Inbound => Self::Inbound,
            Direction::Outbound => Self::Outbound,
        }
    }
}

/// By what is seen, event (SYN, FIN, ACK, RST) and state before.
const TRANSITIONS: [[[State; 11]; 4]; 3] = {
    use State::{
        Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, Listen as LI, SynRecv as SR,
        SynSent as SS, TimeWait as TW,
    };
    [
        // Inbound:
        //  NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
        [
            [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
            [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW],
            [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
            [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR],
        ],
        // Outbound:
        [
            [SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR],
            [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
            [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
            [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],
        ],
        // Inbound only:
        [
            [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
            [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW],
            [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
            [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
        ],
    ]
};

/// How long a session may be silent, in ticks, by state.
#[derive(Clone, Copy, Debug)]
pub struct TimeoutTable([u32; State::ALL.len()]);

impl TimeoutTable {
    /// IPVS's timeout of a session that no packet has given a state yet, in seconds.
    const NONE: u32 = 2;

    /// The table of these timeouts.
    pub fn new(timeouts: &Timeouts) -> Self {
        let seconds = [
            Self::NONE,
            timeouts.tcp,
            timeouts.tcp_syn_sent,
            timeouts.tcp_syn_recv,
            timeouts.tcp_fin,
            timeouts.tcp_time_wait,
            timeouts.tcp_close,
            timeouts.tcp_close_wait,
            timeouts.tcp_last_ack,
            timeouts.tcp_listen,
            timeouts.tcp_synack,
            timeouts.udp,
            timeouts.sctp,
            timeouts.sctp_init1,
            timeouts.sctp_init,
            timeouts.sctp_cookie_sent,
            timeouts.sctp_cookie_replied,
            timeouts.sctp_cookie_wait,
            timeouts.sctp_cookie,
            timeouts.sctp_cookie_echoed,
            timeouts.sctp_shutdown_sent,
            timeouts.sctp_shutdown_received,
            timeouts.sctp_shutdown_ack_sent,
            timeouts.sctp_rejected,
            timeouts.sctp_closed,
            timeouts.icmp,
        ];
        Self(seconds.map(|seconds| seconds.saturating_mul(Tick::PER_SECOND)))
    }

    /// Of one state, in ticks.
    #[inline]
    pub fn of(&self, state: State) -> u32 {
        self.0[state as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Seen::{Inbound, InboundOnly, Outbound};

    fn run(steps: &[(Seen, u8)]) -> Vec<&'static str> {
        let mut state = State::None;
        steps
            .iter()
            .map(|&(seen, flags)| {
                state = state.after(seen, Flags(flags));
                state.name(Protocol::Tcp)
            })
            .collect()
    }

    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    const FIN: u8 = 0x11;
    const RST: u8 = 0x04;

    #[test]
    fn client_closes_first() {
        let steps =
            [(Inbound, SYN), (Outbound, SYN | ACK), (Inbound, ACK), (Inbound, FIN), (Outbound, FIN), (Inbound, ACK)];
        assert_eq!(run(&steps), ["SYN_RECV", "SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "TIME_WAIT", "TIME_WAIT"]);
    }

    #[test]
    fn server_closes_first() {
        let steps =
            [(Inbound, SYN), (Outbound, SYN | ACK), (Inbound, ACK), (Outbound, FIN), (Inbound, FIN), (Outbound, ACK)];
        assert_eq!(run(&steps), ["SYN_RECV", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "TIME_WAIT", "TIME_WAIT"]);
    }

    #[test]
    fn a_client_alone_is_followed_to_its_end() {
        let steps = [SYN, ACK, FIN, ACK].map(|flags| (InboundOnly, flags));
        assert_eq!(run(&steps), ["SYN_RECV", "ESTABLISHED", "FIN_WAIT", "FIN_WAIT"]);
        assert_eq!(run(&[SYN, ACK, RST].map(|flags| (InboundOnly, flags))), ["SYN_RECV", "ESTABLISHED", "CLOSE"]);
    }

    fn run_secured(steps: &[(Seen, u8)]) -> Vec<&'static str> {
        let mut state = State::None;
        let step = |&(seen, flags): &(Seen, u8)| {
            state = state.after_secured(seen, Flags(flags));
            state.name(Protocol::Tcp)
        };
        steps.iter().map(step).collect()
    }

    #[test]
    fn secured_a_connection_is_established_by_its_real_server() {
        let blind = [(Inbound, SYN), (Inbound, ACK), (Inbound, ACK)];
        assert_eq!(run_secured(&blind), ["SYN_RECV"; 3]);
        let steps = [(Inbound, SYN), (Outbound, SYN | ACK), (Inbound, ACK), (Inbound, SYN), (Outbound, ACK)];
        assert_eq!(run_secured(&steps), ["SYN_RECV", "SYNACK", "SYNACK", "SYNACK", "ESTABLISHED"]);
        let reset = [(Inbound, SYN), (Outbound, SYN | ACK), (Inbound, RST)];
        assert_eq!(run_secured(&reset), ["SYN_RECV", "SYNACK", "CLOSE"]);
        assert_eq!(run_secured(&[(InboundOnly, SYN), (InboundOnly, ACK)]), ["SYNACK", "ESTABLISHED"]);
    }

    /// The fast path asks for the secured state only where the other one would change, unless the segment is a SYN.
    #[test]
    fn secured_states_differ_only_where_the_state_changes() {
        for seen in [Inbound, Outbound, InboundOnly] {
            for state in &State::ALL[..11] {
                for flags in [0, 0x08, ACK, FIN, 0x01, RST, RST | ACK].map(Flags) {
                    let ordinary = state.after(seen, flags);
                    if ordinary == *state {
                        assert_eq!(state.after_secured(seen, flags), ordinary, "{seen:?} {state:?} {flags:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn resets_close() {
        assert_eq!(run(&[(Inbound, SYN), (Outbound, RST)]), ["SYN_RECV", "CLOSE"]);
        assert_eq!(run(&[(Inbound, SYN), (Inbound, ACK), (Inbound, RST)]), ["SYN_RECV", "ESTABLISHED", "CLOSE"]);
    }

    #[test]
    fn a_segment_without_control_bits_closes() {
        assert_eq!(State::Established.after(Inbound, Flags(0x08)), State::Close);
    }

    #[test]
    fn names_are_in_order() {
        assert!(State::ALL.iter().enumerate().all(|(number, &state)| number == state as usize));
        assert_eq!(TimeoutTable::new(&Timeouts::default()).of(State::Udp), 3000);
        assert_eq!(TimeoutTable::new(&Timeouts::default()).of(State::LastAck), 300);
        assert_eq!(TimeoutTable::new(&Timeouts::default()).of(State::SctpRejected), 40);
        assert_eq!(TimeoutTable::new(&Timeouts::default()).of(State::SctpClosed), 610);
    }
}
