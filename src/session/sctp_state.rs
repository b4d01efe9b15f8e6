//! IPVS's SCTP machine (net/netfilter/ipvs/ip_vs_proto_sctp.c, `sctp_states`).
//!
//! The states are the real server's, as packets show them (RFC 9260, 4), but for four: what the client asks a real server that is closed
//! is INIT1, INIT, COOKIE-SENT and COOKIE-REPLIED, and INIT1 is apart from INIT, REJECTED from CLOSED, to end sooner.
//! Said by event: from which states it leads where. From all others it leads nowhere.

use super::tcp_state::{Seen, State};
use crate::wire::sctp::Event;

use State::{
    None as Nothing, SctpClosed as Closed, SctpCookie as Cookie, SctpCookieEchoed as CookieEchoed,
    SctpCookieReplied as CookieReplied, SctpCookieSent as CookieSent, SctpCookieWait as CookieWait,
    SctpEstablished as Established, SctpInit as Init, SctpInit1 as Init1, SctpRejected as Rejected,
    SctpShutdownAckSent as ShutdownAckSent, SctpShutdownReceived as ShutdownReceived, SctpShutdownSent as ShutdownSent,
};

/// The state after a packet of an association that is seen so.
pub(super) const fn after(before: State, seen: Seen, event: Event) -> State {
    match seen {
        Seen::Inbound => after_inbound(before, event),
        Seen::Outbound => after_outbound(before, event),
        Seen::InboundOnly => after_inbound_only(before, event),
    }
}

const fn after_inbound(before: State, event: Event) -> State {
    match (event, before) {
        (Event::Data | Event::CookieAck, Nothing) | (Event::CookieAck, CookieEchoed) => Established,
        (Event::Init, Nothing) => Init1,
        (Event::Init, Init1 | Rejected | Closed) => Init,
        (Event::InitAck, Nothing | Init1 | Init) => CookieWait,
        (Event::InitAck, CookieWait) => Cookie,
        (Event::CookieEcho, Nothing | CookieSent) => CookieReplied,
        // Nobody has sent it a cookie: it begins again.
        (Event::CookieEcho | Event::ShutdownAck, Init1) => Init,
        (Event::Shutdown, Nothing | Established) => ShutdownReceived,
        (Event::ShutdownAck, Nothing | ShutdownSent | ShutdownAckSent) => Closed,
        (Event::ShutdownComplete, Nothing | Init1 | Init | ShutdownAckSent) => Closed,
        (Event::Error, Nothing | CookieEchoed) => Closed,
        (Event::Abort, CookieWait) => Rejected,
        (Event::Abort, _) => Closed,
        _ => before,
    }
}

const fn after_outbound(before: State, event: Event) -> State {
    match (event, before) {
        (Event::Data, Nothing) => Established,
        (Event::Init, Established) => before,
        (Event::Init, _) => CookieWait,
        (Event::InitAck, Nothing | Init1 | Init) => CookieSent,
        (Event::CookieEcho, Nothing | Init1 | Init | CookieSent | CookieReplied | CookieWait | Cookie) => CookieEchoed,
        (
            Event::CookieAck,
            Nothing | Init1 | Init | CookieSent | CookieReplied | CookieWait | Cookie | CookieEchoed,
        ) => Established,
        (
            Event::Shutdown,
            Nothing | Init1 | Init | CookieSent | CookieReplied | CookieWait | Cookie | CookieEchoed | Established,
        ) => ShutdownSent,
        (Event::ShutdownAck, Nothing | Init1 | Init | CookieSent | CookieReplied | ShutdownSent | ShutdownReceived) => {
            ShutdownAckSent
        }
        (Event::ShutdownComplete, Nothing) => Closed,
        (Event::Error, Nothing | Init1 | Init | CookieSent | CookieReplied) => Closed,
        (Event::Abort, Init1) => Rejected,
        (Event::Abort, _) => Closed,
        _ => before,
    }
}

const fn after_inbound_only(before: State, event: Event) -> State {
    match (event, before) {
        (Event::Data, Nothing | CookieWait) => Established,
        (Event::Init, Nothing) => Init1,
        (Event::Init, Init1 | CookieSent | CookieReplied | CookieWait | Rejected | Closed) => Init,
        (Event::InitAck, Nothing | Init1 | Init | CookieSent | CookieReplied | CookieWait) => CookieEchoed,
        (Event::CookieEcho, Nothing | Init1 | Init | CookieSent | CookieReplied | CookieWait) => Established,
        (Event::CookieAck, Nothing | CookieSent | CookieReplied | Cookie | CookieEchoed) => Established,
        (Event::Shutdown, Nothing | Established) => ShutdownReceived,
        (Event::ShutdownAck, Init1) => Init,
        (Event::ShutdownAck, Nothing | Established | ShutdownSent | ShutdownAckSent) => Closed,
        (
            Event::ShutdownComplete,
            Nothing | Init1 | Init | CookieSent | CookieReplied | ShutdownReceived | ShutdownAckSent,
        ) => Closed,
        (Event::Error, Nothing) => Closed,
        (Event::Abort, CookieWait) => Rejected,
        (Event::Abort, _) => Closed,
        _ => before,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Protocol;
    use Seen::{Inbound, InboundOnly, Outbound};

    const SCTP: &[State] = State::ALL.split_at(State::SctpEstablished as usize).1;

    fn run(steps: &[(Seen, Event)]) -> Vec<&'static str> {
        let mut state = Nothing;
        steps
            .iter()
            .map(|&(seen, event)| {
                state = after(state, seen, event);
                state.name(Protocol::Sctp)
            })
            .collect()
    }

    #[test]
    fn client_opens_and_closes() {
        let steps = [
            (Inbound, Event::Init),
            (Outbound, Event::InitAck),
            (Inbound, Event::CookieEcho),
            (Outbound, Event::CookieAck),
            (Inbound, Event::Data),
            (Outbound, Event::Data),
            (Inbound, Event::Shutdown),
            (Outbound, Event::ShutdownAck),
            (Inbound, Event::ShutdownComplete),
        ];
        assert_eq!(
            run(&steps),
            [
                "INIT1",
                "C-SENT",
                "C-REPLIED",
                "ESTABLISHED",
                "ESTABLISHED",
                "ESTABLISHED",
                "S-RECEIVED",
                "S-ACK-SENT",
                "CLOSED"
            ]
        );
    }

    #[test]
    fn server_closes() {
        let open = [
            (Inbound, Event::Init),
            (Inbound, Event::Init),
            (Outbound, Event::InitAck),
            (Inbound, Event::CookieEcho),
            (Outbound, Event::CookieAck),
        ];
        let close = [(Outbound, Event::Shutdown), (Inbound, Event::ShutdownAck), (Outbound, Event::ShutdownComplete)];
        assert_eq!(
            run(&[&open[..], &close].concat()),
            ["INIT1", "INIT", "C-SENT", "C-REPLIED", "ESTABLISHED", "S-SENT", "CLOSED", "CLOSED"]
        );
    }

    #[test]
    fn a_client_alone_is_followed_to_its_end() {
        let steps = [Event::Init, Event::CookieEcho, Event::Data, Event::Shutdown, Event::ShutdownComplete]
            .map(|event| (InboundOnly, event));
        assert_eq!(run(&steps), ["INIT1", "ESTABLISHED", "ESTABLISHED", "S-RECEIVED", "CLOSED"]);
        let by_server = [Event::Init, Event::CookieEcho, Event::ShutdownAck].map(|event| (InboundOnly, event));
        assert_eq!(run(&by_server), ["INIT1", "ESTABLISHED", "CLOSED"]);
    }

    #[test]
    fn real_server_opens() {
        let steps = [
            (Inbound, Event::Init),
            (Outbound, Event::Init),
            (Inbound, Event::InitAck),
            (Outbound, Event::CookieEcho),
            (Inbound, Event::CookieAck),
        ];
        assert_eq!(run(&steps), ["INIT1", "C-WAIT", "COOKIE", "C-ECHOED", "ESTABLISHED"]);
    }

    #[test]
    fn a_refusal_is_told_from_an_abort() {
        assert_eq!(run(&[(Inbound, Event::Init), (Outbound, Event::Abort)]), ["INIT1", "REJECTED"]);
        let steps = [
            (Inbound, Event::Init),
            (Outbound, Event::InitAck),
            (Inbound, Event::CookieEcho),
            (Outbound, Event::CookieAck),
            (Inbound, Event::Abort),
        ];
        assert_eq!(run(&steps)[4], "CLOSED");
    }

    #[test]
    fn states_of_sctp_lead_to_such_only() {
        for event in Event::ALL {
            for seen in [Inbound, Outbound, InboundOnly] {
                for &state in SCTP {
                    assert!(SCTP.contains(&after(state, seen, event)), "{state:?} {seen:?} {event:?}");
                }
                assert_ne!(after(Nothing, seen, event), Nothing, "{seen:?} {event:?}");
            }
        }
    }
}
