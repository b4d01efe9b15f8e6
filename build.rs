//! Stamps the version (`FULLGATE_VERSION`) and passes link arguments on. Needs neither git nor DPDK.

use std::env;
use std::path::Path;
use std::process::Command;

/// Where the dynamic linker looks by itself on the distributions that package DPDK.
const SYSTEM_LIBRARY_FOLDERS: [&str; 2] = ["/usr/lib", "/lib"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let stamp = git_commit().map_or(version.clone(), |commit| format!("{version}+{commit}"));
    println!("cargo::rustc-env=FULLGATE_VERSION={stamp}");

    // DEP_DPDK_LIBDIR comes from crates/dpdk-sys and is there only with the feature `dpdk`. A libdpdk outside of the
    // system's folders would not be found at run time; drivers need no argument, EAL loads them itself.
    if let Ok(folder) = env::var("DEP_DPDK_LIBDIR")
        && !SYSTEM_LIBRARY_FOLDERS.iter().any(|system| Path::new(&folder).starts_with(system))
    {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
}

/// `git describe` of this repository; none where it is not one (a tarball, or vendored into another) or git is not
/// installed.
fn git_commit() -> Option<String> {
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&env::var("CARGO_MANIFEST_DIR").ok()?).canonicalize().ok()? {
        return None;
    }
    // The log of HEAD grows with each commit and checkout; HEAD itself is there in a repository without a log.
    for file in ["logs/HEAD", "HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["describe", "--always", "--tags", "--abbrev=10"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
