//! Which worker a port's packets come to: what its device's RSS was made to do, read back from the device, or why that
//! is of no use.
//!
//! Two things are decided. *Steering* is about clients: whether a flow's packets stay with the worker that they arrive
//! at. It needs a device that keeps a flow on a queue, whichever. *Ownership* is about the answers to local addresses:
//! whether the queue can be computed beforehand, so that a local port can be chosen by it. It needs the device's key and
//! its redirection table. What is wrong about either costs hand-overs, never packets: a packet that a worker knows no
//! session of goes to the owner that all workers compute alike.

use std::fmt;
use std::sync::Arc;

use super::Errno;
use super::ethdev::{EthDevice, Failure};
use super::plan::Plan;
use crate::config::{PortConfig, PortSteering};
use crate::flow::rss::{RssDeal, UnusableRss};

/// How a client's packets find their worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    /// The device deals flows to queues by their hash.
    Rss,
    /// Workers hand packets over to each other.
    Software,
    /// There is one worker.
    Single,
}

impl fmt::Display for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rss => "rss",
            Self::Software => "software",
            Self::Single => "single",
        })
    }
}

/// How answers to the local addresses on a port find their worker.
#[derive(Clone, Debug)]
pub enum PortOwnership {
    /// Local ports are chosen so that the device brings them there.
    Rss(Arc<RssDeal>),
    /// Local ports are dealt out to workers in turn, and packets are handed over.
    Software(WhySoftware),
    /// There is one worker.
    Single,
}

impl PortOwnership {
    /// `rss`, `software` or `single`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rss(_) => "rss",
            Self::Software(_) => "software",
            Self::Single => "single",
        }
    }

    /// Why it is the workers' and not the device's affair, where it is.
    pub fn reason(&self) -> Option<&WhySoftware> {
        match self {
            Self::Software(reason) => Some(reason),
            Self::Rss(_) | Self::Single => None,
        }
    }

    /// What the device deals out, where that is known.
    pub fn deal(&self) -> Option<Arc<RssDeal>> {
        match self {
            Self::Rss(deal) => Some(Arc::clone(deal)),
            Self::Software(_) | Self::Single => None,
        }
    }
}

/// Why local ports cannot be chosen by RSS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhySoftware {
    /// The configuration says so.
    #[error("the port's `steering` is \"software\"")]
    Configured,
    /// Somebody else has set the device up.
    #[error("the port's `steering` is \"rss\", and how somebody else has set the device up is not known")]
    Vouched,
    /// Nothing to choose from.
    #[error("the device has one receive queue for {workers} workers")]
    OneQueue {
        /// Workers.
        workers: u16,
    },
    /// No RSS, or none by a table.
    #[error("driver {driver} has no RSS with a redirection table")]
    NoRss {
        /// The driver.
        driver: String,
    },
    /// It offers what it does not do.
    #[error("driver {driver} offers RSS, but does none")]
    InNameOnly {
        /// The driver.
        driver: String,
    },
    /// Without ports there is nothing that a local port could change.
    #[error("driver {driver} hashes addresses, but not the ports of TCP and UDP")]
    AddressesOnly {
        /// The driver.
        driver: String,
    },
    /// It keeps to itself what it does.
    #[error("the device could not {operation}: {errno}")]
    Unknown {
        /// What it was asked.
        operation: &'static str,
        /// Why not.
        errno: Errno,
    },
    /// What it does cannot be used.
    #[error("of the device's RSS: {0}")]
    Unusable(#[from] UnusableRss),
}

impl From<Failure> for WhySoftware {
    fn from(Failure { operation, errno }: Failure) -> Self {
        Self::Unknown { operation, errno }
    }
}

/// Spreads flows over the receive queues where the device can, and says how packets find their worker: as the
/// configuration has it, where that vouches for a device that somebody else has set up.
pub(super) fn deal_flows(
    device: &EthDevice,
    config: &PortConfig,
    plan: &Plan,
    driver: &str,
    workers: u16,
) -> (Steering, PortOwnership) {
    let known = match &plan.no_rss {
        None => known_deal(device, plan, driver, workers),
        Some(reason) => Err(reason.clone()),
    };
    let (steering, ownership) = decide(config.steering, known, workers);
    if steering == Steering::Rss && plan.settings.rx_queues < workers {
        tracing::warn!(
            "port {}: clients' packets come to {} receive queues only, but there are {workers} workers: the others get no new sessions",
            config.name,
            plan.settings.rx_queues
        );
    }
    if let Some(reason) = ownership.reason() {
        tracing::info!("port {}: workers hand answers over to each other: {reason}", config.name);
    }
    (steering, ownership)
}

/// What follows from the configuration and from what is known of the device.
fn decide(wanted: PortSteering, known: Result<RssDeal, WhySoftware>, workers: u16) -> (Steering, PortOwnership) {
    if workers == 1 {
        return (Steering::Single, PortOwnership::Single);
    }
    match (wanted, known) {
        (PortSteering::Software, _) => (Steering::Software, PortOwnership::Software(WhySoftware::Configured)),
        (_, Ok(deal)) => (Steering::Rss, PortOwnership::Rss(Arc::new(deal))),
        // Flows are spread where the device was asked to hash ports; what is not known is how.
        (_, Err(reason @ (WhySoftware::Unknown { .. } | WhySoftware::Unusable(_)))) => {
            (Steering::Rss, PortOwnership::Software(reason))
        }
        (PortSteering::Rss, Err(_)) => (Steering::Rss, PortOwnership::Software(WhySoftware::Vouched)),
        (PortSteering::Auto, Err(reason)) => (Steering::Software, PortOwnership::Software(reason)),
    }
}

/// Deals the redirection table to the queues, and reads back what the device does.
fn known_deal(device: &EthDevice, plan: &Plan, driver: &str, workers: u16) -> Result<RssDeal, WhySoftware> {
    let (entries, queues) = (plan.reta_size, plan.settings.rx_queues);
    if let Err(failure) = device.spread(entries, queues) {
        tracing::warn!("device {}: could not {failure}; the driver's stays", device.name());
    }
    let hash = device.rss_hash(plan.key_size)?;
    if hash.flows & super::plan::RSS_NEEDED != super::plan::RSS_NEEDED {
        return Err(WhySoftware::AddressesOnly { driver: driver.to_owned() });
    }
    let table = device.redirection_table(entries)?;
    let workers = u8::try_from(workers).unwrap_or(u8::MAX);
    Ok(RssDeal::new(&hash.key, &table, workers)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::rss::RssKey;

    fn deal() -> RssDeal {
        RssDeal::new(RssKey::draw(|| 0x0123_4567_89ab_cdef).bytes(40), &[0, 1], 2).unwrap()
    }

    /// The two names, and the reason.
    fn decided(wanted: PortSteering, known: Result<RssDeal, WhySoftware>, workers: u16) -> (String, String) {
        let (steering, ownership) = decide(wanted, known, workers);
        let reason = ownership.reason().map(|reason| format!(": {reason}")).unwrap_or_default();
        (steering.to_string(), format!("{}{reason}", ownership.name()))
    }

    #[test]
    fn what_is_known_is_used_unless_the_configuration_says_no() {
        let pair = |steering: &str, ownership: &str| (steering.to_owned(), ownership.to_owned());
        assert_eq!(decided(PortSteering::Auto, Ok(deal()), 2), pair("rss", "rss"));
        assert_eq!(decided(PortSteering::Rss, Ok(deal()), 2), pair("rss", "rss"));
        let configured = pair("software", "software: the port's `steering` is \"software\"");
        assert_eq!(decided(PortSteering::Software, Ok(deal()), 2), configured);
        assert_eq!(decided(PortSteering::Software, Err(no_rss()), 2), configured);
        for wanted in [PortSteering::Auto, PortSteering::Rss, PortSteering::Software] {
            assert_eq!(decided(wanted, Ok(deal()), 1), pair("single", "single"));
        }
    }

    fn no_rss() -> WhySoftware {
        WhySoftware::NoRss { driver: "net_x".to_owned() }
    }

    #[test]
    fn a_device_that_keeps_its_key_to_itself_still_keeps_flows_together() {
        let silent = || {
            let failure = Failure { operation: "tell its RSS key", errno: Errno::NOT_SUPPORTED };
            Err(WhySoftware::from(failure))
        };
        for wanted in [PortSteering::Auto, PortSteering::Rss] {
            let (steering, ownership) = decided(wanted, silent(), 2);
            assert_eq!(steering, "rss");
            assert!(ownership.starts_with("software: the device could not tell its RSS key: "), "{ownership}");
        }
        let idle = || Err(WhySoftware::from(UnusableRss::Idle(crate::port::WorkerId(1))));
        let reason = "software: of the device's RSS: its redirection table has nothing for worker 1";
        assert_eq!(decided(PortSteering::Auto, idle(), 2), ("rss".to_owned(), reason.to_owned()));
    }

    #[test]
    fn without_rss_of_ours_a_device_is_vouched_for_or_not_relied_on() {
        let (steering, ownership) = decided(PortSteering::Auto, Err(no_rss()), 2);
        assert_eq!(
            (steering.as_str(), ownership.as_str()),
            ("software", "software: driver net_x has no RSS with a redirection table")
        );
        let (steering, ownership) = decided(PortSteering::Rss, Err(no_rss()), 2);
        assert_eq!(steering, "rss");
        assert!(ownership.starts_with("software: the port's `steering` is \"rss\""), "{ownership}");
    }
}
