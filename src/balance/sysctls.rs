//! What IPVS lets be set by sysctls (net.ipv4.vs), by its names and defaults, as far as it is done here.

/// IPVS's switches that hold for all services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sysctls {
    /// Whether a template whose real server has weight 0 is used no more.
    pub expire_quiescent_template: bool,
}
