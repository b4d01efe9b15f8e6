//! What is fuzzed: plain functions of bytes, which panic where something is wrong.
//!
//! Each takes any bytes whatever and is the same function of them in every run. The test beside this folder calls them
//! with inputs that are kept and with random ones, the engine with those that it makes up by what they cover.

// A target fails by panicking, and lengths below are those of packets.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, missing_docs, reason = "tests")]

mod config;
mod control;
mod ipvs;
mod network;
mod parse;
mod process;
mod tool;

/// One of them.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folders of inputs.
    pub name: &'static str,
    /// The function.
    pub run: fn(&[u8]),
    /// Runs with random inputs that a test has time for: about a quarter of a minute in all.
    #[allow(dead_code, reason = "the engine runs for as long as it is told")]
    pub test_runs: u32,
}

/// All of them.
pub const TARGETS: [Target; 6] = [
    Target { name: "parse", run: parse::run, test_runs: 200_000 },
    Target { name: "process", run: process::run, test_runs: 3_000 },
    Target { name: "config", run: config::run, test_runs: 4_000 },
    Target { name: "control", run: control::run, test_runs: 10_000 },
    Target { name: "ipvs", run: ipvs::run, test_runs: 100_000 },
    Target { name: "tool", run: tool::run, test_runs: 100_000 },
];
