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
    if workers == 1 {
        return (Steering::Single, PortOwnership::Single);
    }
    let dealt = match (config.steering, known) {
        (PortSteering::Software, _) => (Steering::Software, PortOwnership::Software(WhySoftware::Configured)),
        (_, Ok(deal)) => (Steering::Rss, PortOwnership::Rss(Arc::new(deal))),
        (PortSteering::Rss, Err(_)) => {
            if plan.settings.rx_queues < workers {
                tracing::warn!(
                    "port {}: steering = \"rss\" with {} receive queues for {workers} workers: the others get no new sessions",
                    config.name,
                    plan.settings.rx_queues
                );
            }
            (Steering::Rss, PortOwnership::Software(WhySoftware::Vouched))
        }
        (PortSteering::Auto, Err(reason)) => {
            // Flows are spread all the same where the device was asked to hash ports, and what is not known is how.
            let spread = matches!(reason, WhySoftware::Unknown { .. } | WhySoftware::Unusable(_));
            (if spread { Steering::Rss } else { Steering::Software }, PortOwnership::Software(reason))
        }
    };
    if let Some(reason) = dealt.1.reason() {
        tracing::info!("port {}: workers hand answers over to each other: {reason}", config.name);
    }
    dealt
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
