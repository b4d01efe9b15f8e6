//! Every example in dpdk-config/ is what `fullgate check` accepts.
#![cfg(feature = "dpdk")]
#![allow(missing_docs)]

use std::path::Path;
use std::process::Command;

#[test]
fn examples_pass_check() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("dpdk-config");
    let mut checked = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let file = entry.unwrap().path();
        let output =
            Command::new(env!("CARGO_BIN_EXE_fullgate")).args(["check", "--config"]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", file.display());
        checked.push(file.file_name().unwrap().to_string_lossy().into_owned());
    }
    for name in ["lab.toml", "one-arm.toml", "two-arm.toml"] {
        assert!(checked.iter().any(|each| each == name), "{name} is not among {checked:?}");
    }
}

#[test]
fn a_wrong_key_in_an_example_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let example = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/dpdk-config/lab.toml")).unwrap();
    let line = 1 + example.lines().position(|line| line.starts_with("capacity")).unwrap();
    let file = directory.path().join("wrong.toml");
    std::fs::write(&file, example.replace("\ncapacity =", "\ncapactiy =")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_fullgate")).args(["check", "--config"]).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("wrong.toml:{line}:")) && said.contains("\"capacity\""), "{said}");
}
