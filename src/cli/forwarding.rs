//! How a real server is reached: options of `real add` and `real edit`, with ipvsadm's letters.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::balance::{Encapsulation, ForwardingMode, Tunnel};

/// How packets reach the real server
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Forwarding")]
pub(super) struct Forwarding {
    /// How packets reach the real server [default: as the service says]
    #[arg(long, value_name = "MODE", value_parser = mode(), group = "forward")]
    mode: Option<ForwardingMode>,

    /// FULLNAT: source becomes a local address (as --mode fullnat)
    #[arg(short = 'b', long, group = "forward")]
    fullnat: bool,

    /// NAT: only the destination changes; the real server answers by way of the gateway (as --mode nat)
    #[arg(short = 'm', long = "masquerading", group = "forward")]
    nat: bool,

    /// Direct routing: to the real server's link-layer address (as --mode dr)
    #[arg(short = 'g', long = "gatewaying", group = "forward")]
    dr: bool,

    /// Tunnelling: inside another packet (as --mode tun)
    #[arg(short = 'i', long = "ipip", group = "forward")]
    tun: bool,

    /// Mode tun: what packets are wrapped in
    #[arg(long, value_name = "TYPE", value_parser = encapsulation())]
    tun_type: Option<Encapsulation>,

    /// Mode tun with gue: the UDP port that the real server takes them at
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    tun_port: Option<u16>,

    /// Mode tun with gre or gue: with a checksum over what is wrapped
    #[arg(long, group = "tun_checksum")]
    tun_csum: bool,

    /// Mode tun with gre or gue: without one, as if nothing were said
    #[arg(long, group = "tun_checksum")]
    tun_nocsum: bool,
}

impl Forwarding {
    /// The mode that is asked for, if one is.
    pub(super) fn mode(&self) -> Option<ForwardingMode> {
        let letters = [
            (self.fullnat, ForwardingMode::Fullnat),
            (self.nat, ForwardingMode::Nat),
            (self.dr, ForwardingMode::Dr),
            (self.tun, ForwardingMode::Tun),
        ];
        self.mode.or_else(|| letters.into_iter().find(|(given, _)| *given).map(|(_, mode)| mode))
    }

    /// The tunnel that is asked for, if any of its options is given.
    pub(super) fn tunnel(&self) -> Option<Tunnel> {
        let given = self.tun_type.is_some() || self.tun_port.is_some() || self.tun_csum || self.tun_nocsum;
        given.then(|| Tunnel {
            encapsulation: self.tun_type.unwrap_or_default(),
            port: self.tun_port.unwrap_or(0),
            checksum: self.tun_csum,
        })
    }
}

/// A mode's name.
pub(super) fn mode() -> impl TypedValueParser<Value = ForwardingMode> {
    PossibleValuesParser::new(ForwardingMode::NAMES.split(", ")).try_map(|name| name.parse::<ForwardingMode>())
}

fn encapsulation() -> impl TypedValueParser<Value = Encapsulation> {
    PossibleValuesParser::new(Encapsulation::NAMES.split(", ")).try_map(|name| name.parse::<Encapsulation>())
}
