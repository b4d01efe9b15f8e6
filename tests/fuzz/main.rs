//! The targets that are fuzzed, as a test: inputs that are kept, and random changes to them, the same in every run.
//!
//! `corpus/` has inputs that between them cover what is reachable, `found/` those that have found a bug each. What makes
//! new ones is the engine beside: `make fuzz`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

mod mutate;
#[path = "../../perf/random.rs"]
mod random;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use mutate::mutated;
use random::Random;
use targets::{TARGETS, Target};

/// Bytes of the longest random input.
const LONGEST: usize = 4096;

fn target(name: &str) -> Target {
    *TARGETS.iter().find(|target| target.name == name).unwrap()
}

/// The files of a folder of inputs of a target, in the order of their names.
fn inputs(folder: &str, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(folder).join(target);
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Runs a target, and says with which input it failed.
fn try_run(target: Target, input: &[u8], name: &dyn std::fmt::Display) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let text = input.escape_ascii();
        panic!("{} fails with {name}; the input: b\"{text}\"", target.name);
    }
}

fn kept_and_random(name: &str) {
    let target = target(name);
    let kept: Vec<_> = ["found", "corpus"].iter().flat_map(|folder| inputs(folder, name)).collect();
    assert!(kept.len() >= 3, "{name}: {} inputs are kept, which is no corpus", kept.len());
    for (path, input) in &kept {
        try_run(target, input, &path.display());
    }
    let seeds: Vec<_> = kept.into_iter().map(|(_, input)| input).collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for run in 0..target.test_runs {
        let input = mutated(&mut random, &seeds, LONGEST);
        try_run(target, &input, &format_args!("random input {run}"));
    }
}

#[test]
fn parse() {
    kept_and_random("parse");
}

#[test]
fn process() {
    kept_and_random("process");
}

#[test]
fn config() {
    kept_and_random("config");
}

#[test]
fn ipvs() {
    kept_and_random("ipvs");
}

#[test]
fn tool() {
    kept_and_random("tool");
}

#[test]
fn control() {
    kept_and_random("control");
}
