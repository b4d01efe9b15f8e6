//! A gateway on hugepages: its memory files are gone when it has ended, however it ended.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::lab::client::get_many;
use crate::lab::gateway::{real, vip};
use crate::lab::{Configuration, Gateway, Lab, Nginx, run};

const SETUP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hugepage-setup/fullgate-hugepages");
const PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// Pages of 2 MB beyond those that were there, given back when dropped.
struct Reservation {
    state: tempfile::TempDir,
}

impl Reservation {
    fn new(more: u64) -> Self {
        let reservation = Self { state: tempfile::tempdir().unwrap() };
        let before: u64 = std::fs::read_to_string(PAGES).unwrap().trim().parse().unwrap();
        run(reservation.setup().args(["--pages-2m", &(before + more).to_string()]));
        reservation
    }

    fn setup(&self) -> Command {
        let mut command = Command::new(SETUP);
        command.env("FULLGATE_HUGEPAGES_STATE", self.state.path().join("state"));
        command
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let _ = self.setup().arg("--undo").output();
    }
}

/// Files in every hugetlbfs.
fn files() -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let directories =
        mounts.lines().filter(|line| line.contains(" hugetlbfs ")).filter_map(|line| line.split(' ').nth(1));
    let entries = directories.filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten();
    entries.map(|entry| entry.path().display().to_string()).collect()
}

#[test]
fn nothing_is_left_in_hugetlbfs_after_sigterm_and_a_start_after_a_kill_works() {
    let _reservation = Reservation::new(256);
    let lab = Lab::two_arm(1, 1);
    let _server = Nginx::start(&lab.reals[0], lab.path(), "rs0", real(0, 80));
    let configuration = Configuration { eal_args: r#"["-m", "256"]"#.into(), ..Configuration::two_arm() };
    let configuration = configuration.with_service("tcp", vip(80), "rr", &[(real(0, 80), 1)]);
    let before = files();
    let mut gateway = Gateway::start(&lab, &configuration);
    get_many(&lab.client, vip(80), 5);
    gateway.signal(Signal::KILL);
    gateway.wait(Duration::from_secs(5));
    let mut gateway = Gateway::start(&lab, &configuration);
    get_many(&lab.client, vip(80), 5);
    gateway.signal(Signal::TERM);
    assert!(gateway.wait(Duration::from_secs(2)).success());
    assert_eq!(files(), before);
}
