//! A gateway on hugepages: sessions lie on them, and all are given back when it has ended, however it ended.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fullgate::session::Capacity;
use rustix::process::Signal;

use crate::lab::client::get_many;
use crate::lab::gateway::{real, run_to_end, vip};
use crate::lab::{Configuration, Gateway, Lab, Nginx, PATIENCE, run, wait_for};

const SETUP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hugepage-setup/fullgate-hugepages");
const PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// One test at a time counts free pages.
static ALONE: Mutex<()> = Mutex::new(());

/// Pages of 2 MB beyond those that were there, given back when dropped.
struct Reservation {
    state: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Reservation {
    fn new(more: u64) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let reservation = Self { state: tempfile::tempdir().unwrap(), _alone: alone };
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

/// Free pages of 2 MB.
fn free() -> u64 {
    let path = PAGES.replace("nr_hugepages", "free_hugepages");
    std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

/// Kilobytes of hugepages that the mappings of a name take in a process.
fn mapped_kilobytes(pid: u32, name: &str) -> u64 {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let of_name = smaps.lines().skip_while(|line| !line.contains(name));
    let shared = of_name.take_while(|line| !line.starts_with("VmFlags:"));
    let shared = shared.filter(|line| line.contains("_Hugetlb:"));
    shared.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn sessions_lie_on_hugepages_that_are_given_back_at_the_end() {
    let _reservation = Reservation::new(256);
    let before = free();
    // Others on this machine may hold some for a moment.
    let given_back = || wait_for("all pages to be free", PATIENCE, || (free() >= before).then_some(()));
    let lab = Lab::two_arm(1, 1);
    let _server = Nginx::start(&lab.reals[0], lab.path(), "rs0", real(0, 80));
    let configuration =
        Configuration { eal_args: r#"["-m", "128"]"#.into(), capacity: 1 << 18, ..Configuration::two_arm() };
    let configuration = configuration.with_service("tcp", vip(80), "rr", &[(real(0, 80), 1)]);
    let mut gateway = Gateway::start(&lab, &configuration);
    get_many(&lab.client, vip(80), 5);
    let session_pages = Capacity { ipv4: 1 << 18, ipv6: 1 << 15 }.memory_bytes().div_ceil(2 << 20);
    let pid = u32::try_from(gateway.json("status")["pid"].as_u64().unwrap()).unwrap();
    assert_eq!(mapped_kilobytes(pid, "memfd:fullgate-sessions-0"), session_pages * 2048);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let all = status.lines().find_map(|line| line.strip_prefix("HugetlbPages:")).unwrap();
    let all: u64 = all.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(all >= (session_pages + 64) * 2048, "DPDK's 64 pages and those of sessions: {all} kB");
    let said = format!("{session_pages} 2 MB pages of NUMA node 0");
    assert!(gateway.log().contains(&said), "{said} is not in: {}", gateway.log());
    gateway.signal(Signal::TERM);
    assert!(gateway.wait(Duration::from_secs(2)).success());
    given_back();

    let wanted = configuration.text(lab.path()).replace("[session]\n", "[session]\npages = \"1G\"\n");
    let (code, said) = run_to_end(&lab, &wanted);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("[session].pages: worker 0 needs 1 hugepages of 1 GB") && said.contains("fullgate-hugepages"),
        "{said}"
    );
    given_back();
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
