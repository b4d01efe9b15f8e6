//! fullgate and the kernel's IPVS, given the same commands and the same packets, do the same: who gets which connection,
//! what becomes of a packet, what is counted, which state a connection is in and how long. Where they do not, the
//! difference is meant, and docs/differences-from-ipvs.md says why.
//!
//! The kernel is Debian's, in a virtual machine; fullgate runs in this process. Needs qemu-system-x86, busybox-static,
//! kmod, ipvsadm, ethtool, and once a Debian kernel package from the archive; neither root nor KVM.
#![cfg(feature = "dpdk")]
// Tests say what they expect: a failed expectation is a failed test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, clippy::cast_precision_loss, missing_docs)]

mod director;
mod gateway;
mod kernel;
mod network;
mod scheduling;
mod transcript;
#[path = "../vm/machine.rs"]
#[allow(dead_code, reason = "the appliance's test uses the rest")]
mod vm;

use gateway::Gateway;
use kernel::Kernel;
use transcript::{Known, Report, Scenario, Transcript};

const SCENARIOS: &[Scenario] = &[Scenario { name: "scheduling", play: scheduling::play }];

const KNOWN: &[Known] = &[];

#[test]
fn fullgate_does_what_ipvs_does() {
    let mut kernel = Kernel::boot();
    let mut report = Report::default();
    let only = std::env::var("ONLY").ok();
    for scenario in SCENARIOS.iter().filter(|scenario| only.as_deref().is_none_or(|only| only == scenario.name)) {
        let [mut theirs, mut ours] = [(); 2].map(|()| Transcript::default());
        let began = std::time::Instant::now();
        kernel.begin();
        (scenario.play)(&mut kernel, &mut theirs);
        eprintln!("{}: {:?}", scenario.name, began.elapsed());
        (scenario.play)(&mut Gateway::new(), &mut ours);
        report.add(&theirs, &ours, KNOWN);
    }
    println!("Linux {}\n{}", kernel.version(), report.text());
    assert!(report.unexplained.is_empty(), "differences that nothing explains: see above");
}
