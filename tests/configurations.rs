//! Documentation and examples are what the program accepts and says.
#![cfg(feature = "dpdk")]
// The whole file is a test; clippy only sees the functions marked so.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::Command;

#[test]
fn examples_pass_check() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("dpdk-config");
    let mut checked = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let output =
            Command::new(env!("CARGO_BIN_EXE_fullgate")).args(["check", "--config"]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", file.display());
        checked.push(file.file_name().unwrap().to_string_lossy().into_owned());
    }
    for name in ["bond.toml", "lab.toml", "one-arm.toml", "two-arm.toml", "vlan.toml"] {
        assert!(checked.iter().any(|each| each == name), "{name} is not among {checked:?}");
    }
}

/// The text of a file of the project.
fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_configuration_in_the_readme_passes_check() {
    let readme = text("README.md");
    let example = readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("readme.toml");
    std::fs::write(&file, example).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_fullgate")).args(["check", "--config"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_operators_guide_has_every_drop_reason_and_no_other() {
    let guide = text("docs/operations.md");
    let section = guide.split("\n## Drops\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let mut documented: Vec<_> = cells.flat_map(|cell| cell.split(", ")).map(|word| word.replace('`', "")).collect();
    let mut known: Vec<_> = fullgate::forward::DropReason::ALL.iter().map(|reason| reason.label().to_owned()).collect();
    documented.sort();
    known.sort();
    assert_eq!(documented, known);
}

#[test]
fn every_sysctl_is_in_the_guides_and_in_the_list_of_the_kernels() {
    let guide = text("docs/operations.md");
    let section = guide.split("\n### [ipvs]\n").nth(1).unwrap().split("\n### ").next().unwrap();
    let moving = text("docs/moving.md");
    let moving = moving.split("\n### sysctls of net.ipv4.vs\n").nth(1).unwrap().split("\n### ").next().unwrap();
    for sysctl in fullgate::balance::Sysctl::ALL {
        assert!(section.contains(&format!("\n| `{}` | ", sysctl.name)), "operations.md: {}", sysctl.name);
        assert!(moving.contains(&format!("`{}`", sysctl.name)), "moving.md: {}", sysctl.name);
    }
}

#[test]
fn a_wrong_key_in_an_example_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let example = text("dpdk-config/lab.toml");
    let line = 1 + example.lines().position(|line| line.starts_with("capacity")).unwrap();
    let file = directory.path().join("wrong.toml");
    std::fs::write(&file, example.replace("\ncapacity =", "\ncapactiy =")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_fullgate")).args(["check", "--config"]).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("wrong.toml:{line}:")) && said.contains("\"capacity\""), "{said}");
}

#[test]
fn keepalived_takes_its_examples() {
    let directory = tempfile::tempdir().unwrap();
    let check = |text: &str| {
        let file = directory.path().join("keepalived.conf");
        std::fs::write(&file, text).unwrap();
        let output = Command::new("keepalived").arg("-t").arg("-f").arg(&file).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for name in ["keepalived-dr.conf", "keepalived-fullnat.conf"] {
        let example = text(&format!("dpdk-config/{name}"));
        assert_eq!(check(&example), (true, String::new()), "{name}");
        assert!(!check(&example.replace("delay_loop", "delay_lop")).0, "{name}: what is wrong is found");
    }
}

/// Debian's units with the drop-ins that `make install` puts beside the examples.
#[test]
fn drop_ins_for_debians_units_are_right() {
    let directory = tempfile::tempdir().unwrap();
    let units = directory.path();
    std::fs::write(units.join("fullgate.service"), text("hugepage-setup/fullgate.service")).unwrap();
    std::fs::write(units.join("fullgate-hugepages.service"), text("hugepage-setup/fullgate-hugepages.service"))
        .unwrap();
    for name in ["keepalived", "ldirectord"] {
        let unit = units.join(format!("{name}.service"));
        std::fs::copy(format!("/lib/systemd/system/{name}.service"), &unit).unwrap();
        let drop_in = text(&format!("hugepage-setup/{name}.service.d/fullgate.conf"));
        std::fs::create_dir(units.join(format!("{name}.service.d"))).unwrap();
        std::fs::write(units.join(format!("{name}.service.d/fullgate.conf")), &drop_in).unwrap();
        for line in ["Requires=fullgate.service", "Environment=LD_PRELOAD=/usr/lib/fullgate/libfullgate_ipvs.so"] {
            assert!(drop_in.lines().any(|each| each == line), "{name}: {line}");
        }
        let mut verify = Command::new("systemd-analyze");
        let output = verify
            .args(["verify", "--man=no"])
            .arg(&unit)
            .env("SYSTEMD_UNIT_PATH", format!("{}:", units.display()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains(".service.d"), "{name}: {said}");
    }
}
