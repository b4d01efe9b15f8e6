//! fullgate and the kernel's IPVS, given the same commands and the same packets, do the same: who gets which connection,
//! what becomes of a packet, what is counted, which state a connection is in and how long. Where they do not, the
//! difference is meant, and docs/differences-from-ipvs.md says why.
//!
//! The kernel is Debian's, in a virtual machine; fullgate runs in this process. Needs qemu-system-x86, busybox-static,
//! kmod, ipvsadm, iproute2, ethtool, and once a Debian kernel package from the archive; neither root nor KVM. With
//! the name of a scenario, or a part of it, in IPVS_ORACLE only that is compared.
#![cfg(feature = "dpdk")]
// Tests say what they expect: a failed expectation is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    missing_docs
)]

mod changes;
mod dialogue;
mod director;
mod gateway;
mod hashing;
mod kernel;
mod known;
mod marks;
mod network;
mod one_packet;
mod persistence;
mod requests;
mod rewriting;
mod scheduling;
mod sctp;
mod states;
mod sysctls;
mod template_ages;
mod transcript;
#[path = "../vm/machine.rs"]
#[allow(dead_code, reason = "the appliance's test uses the rest")]
mod vm;

use std::time::Instant;

use gateway::Gateway;
use kernel::Kernel;
use known::KNOWN;
use transcript::{Report, Scenario, Transcript};

/// Those with few connections first: the kernel's stay until they time out, and its listing has them all.
const SCENARIOS: &[Scenario] = &[
    Scenario { name: "changes", play: changes::play },
    Scenario { name: "ages", play: states::play_ages },
    Scenario { name: "ages of templates", play: template_ages::play },
    Scenario { name: "persistence", play: persistence::play },
    Scenario { name: "ages of SCTP", play: sctp::play_ages },
    Scenario { name: "SCTP", play: sctp::play },
    Scenario { name: "sysctls", play: sysctls::play },
    Scenario { name: "marks", play: marks::play },
    Scenario { name: "packets on their own", play: one_packet::play },
    Scenario { name: "rewriting", play: rewriting::play },
    Scenario { name: "states", play: states::play },
    Scenario { name: "hashing", play: hashing::play },
    Scenario { name: "overhead", play: scheduling::play_overhead },
    Scenario { name: "scheduling", play: scheduling::play },
];

#[test]
fn fullgate_does_what_ipvs_does() {
    let mut kernel = Kernel::boot();
    let mut report = Report::default();
    let only = std::env::var("IPVS_ORACLE").unwrap_or_default();
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.name.contains(&only)) {
        let [mut theirs, mut ours] = [(); 2].map(|()| Transcript::default());
        kernel.begin();
        let began = Instant::now();
        (scenario.play)(&mut kernel, &mut theirs);
        println!("{}: {:.1} s", scenario.name, began.elapsed().as_secs_f32());
        (scenario.play)(&mut Gateway::new(), &mut ours);
        report.add(scenario.name, [&theirs, &ours], KNOWN);
    }
    println!("Linux {}\n{}", kernel.version(), report.text());
    assert!(report.unexplained.is_empty(), "differences that nothing explains: see above");
    for (known, seen) in KNOWN.iter().zip(&report.seen).filter(|_| only.is_empty()) {
        assert!(*seen > 0, "{:?} of {:?} is no difference any more", known.heading, known.subject);
    }
}

#[test]
fn every_known_difference_is_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/differences-from-ipvs.md");
    let text = std::fs::read_to_string(path).unwrap();
    for known in KNOWN {
        let heading = format!("### {}", known.heading);
        assert!(text.lines().any(|line| line == heading), "{path} has no {heading:?}");
    }
}
