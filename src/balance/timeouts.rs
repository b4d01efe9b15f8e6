//! How long sessions may be silent, by state: IPVS's names and defaults. Which states there are is [`crate::session::State`]'s to say.

use serde::{Deserialize, Serialize};

/// Session timeouts, in seconds (net/netfilter/ipvs/ip_vs_proto_tcp.c, `tcp_timeouts`; ip_vs_proto_sctp.c, `sctp_timeouts`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// TCP ESTABLISHED.
    pub tcp: u32,
    /// TCP SYN_SENT.
    pub tcp_syn_sent: u32,
    /// TCP SYN_RECV.
    pub tcp_syn_recv: u32,
    /// TCP FIN_WAIT.
    pub tcp_fin: u32,
    /// TCP TIME_WAIT.
    pub tcp_time_wait: u32,
    /// TCP CLOSE.
    pub tcp_close: u32,
    /// TCP CLOSE_WAIT.
    pub tcp_close_wait: u32,
    /// TCP LAST_ACK.
    pub tcp_last_ack: u32,
    /// TCP LISTEN.
    pub tcp_listen: u32,
    /// TCP SYNACK.
    pub tcp_synack: u32,
    /// UDP.
    pub udp: u32,
    /// SCTP ESTABLISHED.
    pub sctp: u32,
    /// SCTP INIT1: the client's first INIT is not answered yet.
    pub sctp_init1: u32,
    /// SCTP INIT: nor is a later one.
    pub sctp_init: u32,
    /// SCTP COOKIE-SENT: INIT ACK is.
    pub sctp_cookie_sent: u32,
    /// SCTP COOKIE-REPLIED: COOKIE ECHO is not answered yet.
    pub sctp_cookie_replied: u32,
    /// SCTP COOKIE-WAIT: the real server's INIT is not answered yet.
    pub sctp_cookie_wait: u32,
    /// SCTP COOKIE: the client's INIT ACK is not.
    pub sctp_cookie: u32,
    /// SCTP COOKIE-ECHOED: the real server's COOKIE ECHO is not.
    pub sctp_cookie_echoed: u32,
    /// SCTP SHUTDOWN-SENT.
    pub sctp_shutdown_sent: u32,
    /// SCTP SHUTDOWN-RECEIVED.
    pub sctp_shutdown_received: u32,
    /// SCTP SHUTDOWN-ACK-SENT.
    pub sctp_shutdown_ack_sent: u32,
    /// SCTP REJECTED: INIT was answered with ABORT.
    pub sctp_rejected: u32,
    /// SCTP CLOSED.
    pub sctp_closed: u32,
    /// ICMP and ICMPv6 echo (net/netfilter/nf_conntrack_proto_icmp.c, `nf_ct_icmp_timeout`).
    pub icmp: u32,
}

/// What SCTP waits at most before it says something again (RFC 9260, 16: RTO.Max), and a second.
const SCTP_LONGEST_RETRY: u32 = 61;

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp: 900,
            tcp_syn_sent: 120,
            tcp_syn_recv: 60,
            tcp_fin: 120,
            tcp_time_wait: 120,
            tcp_close: 10,
            tcp_close_wait: 60,
            tcp_last_ack: 30,
            tcp_listen: 120,
            tcp_synack: 120,
            udp: 300,
            sctp: 900,
            sctp_init1: 4,
            sctp_init: SCTP_LONGEST_RETRY,
            sctp_cookie_sent: SCTP_LONGEST_RETRY,
            sctp_cookie_replied: SCTP_LONGEST_RETRY,
            sctp_cookie_wait: SCTP_LONGEST_RETRY,
            sctp_cookie: SCTP_LONGEST_RETRY,
            sctp_cookie_echoed: SCTP_LONGEST_RETRY,
            sctp_shutdown_sent: SCTP_LONGEST_RETRY,
            sctp_shutdown_received: SCTP_LONGEST_RETRY,
            sctp_shutdown_ack_sent: SCTP_LONGEST_RETRY,
            sctp_rejected: 4,
            sctp_closed: SCTP_LONGEST_RETRY,
            icmp: 30,
        }
    }
}
