//! One fuzz target under libFuzzer, which makes up inputs by what they cover. `FUZZ_TARGET` names it.
#![no_main]
#![allow(clippy::unwrap_used, clippy::panic, reason = "what is wrong is found by panicking")]

#[path = "../targets/mod.rs"]
mod targets;

use std::sync::OnceLock;

use targets::{TARGETS, Target};

fn target() -> Target {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let names = TARGETS.map(|target| target.name).join(", ");
    *TARGETS
        .iter()
        .find(|target| target.name == name)
        .unwrap_or_else(|| panic!("FUZZ_TARGET is {name:?}; allowed: {names}"))
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    static TARGET: OnceLock<Target> = OnceLock::new();
    (TARGET.get_or_init(target).run)(input);
});
