//! What IPVS lets be set by sysctls (net.ipv4.vs), by its names and with its defaults, as far as it is done here.

/// IPVS's switches that hold for all services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sysctls {
    /// Whether a session whose real server was removed ends with the client's next packet, which may begin another one;
    /// else its packets are dropped.
    pub expire_nodest_conn: bool,
    /// Whether a template whose real server has weight 0 is used no more.
    pub expire_quiescent_template: bool,
    /// Which sessions that are over but for their timeout give way to a SYN: see [`Sysctls::reuses`].
    pub conn_reuse_mode: u8,
    /// Whether any TCP segment but a reset may begin a session.
    pub sloppy_tcp: bool,
    /// Whether any SCTP packet but an ABORT may begin a session.
    pub sloppy_sctp: bool,
}

impl Default for Sysctls {
    fn default() -> Self {
        Self {
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            conn_reuse_mode: 1,
            sloppy_tcp: false,
            sloppy_sctp: false,
        }
    }
}

impl Sysctls {
    /// The greatest value of [`Self::conn_reuse_mode`].
    pub const MAX_CONN_REUSE_MODE: u8 = 3;
    /// Of [`Self::conn_reuse_mode`]: sessions in FIN_WAIT give way, too, where answers do not pass the gateway.
    const REUSE_FIN_WAIT: u8 = 2;

    /// Whether a new SYN, or INIT, may be scheduled anew although there is a session.
    pub const fn reuses(&self) -> bool {
        self.conn_reuse_mode != 0
    }

    /// Whether that goes for sessions in FIN_WAIT whose answers do not pass the gateway.
    pub const fn reuses_fin_wait(&self) -> bool {
        self.conn_reuse_mode & Self::REUSE_FIN_WAIT != 0
    }
}
