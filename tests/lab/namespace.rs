//! Network namespaces, cables between them, and commands run in them.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread::JoinHandle;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const PREFIX: &str = "fgt";
static NEXT: AtomicU32 = AtomicU32::new(0);
static FIRST: Once = Once::new();
/// `ip netns add` and `del` change shared mounts: one at a time.
static NETNS: Mutex<()> = Mutex::new(());

/// A network namespace, deleted when dropped.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one, with `role` in its name, its loopback up and IPv6 off (its multicasts would spoil exact counts).
    pub fn new(role: &str) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "tests with real traffic make network namespaces: run them as root"
        );
        FIRST.call_once(remove_leftovers);
        let name = format!("{PREFIX}-{}-{}-{role}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        {
            let _guard = NETNS.lock().unwrap_or_else(PoisonError::into_inner);
            run(Command::new("ip").args(["netns", "add", &name]));
        }
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace.enter(|| {
            // Absent where the kernel has no IPv6.
            for scope in ["all", "default"] {
                let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
            }
            // Absent unless bridges go through netfilter, which would look at the frames and drop some.
            for family in ["arptables", "iptables", "ip6tables"] {
                let _ = std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{family}"), "0");
            }
            std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "2048 65000").unwrap();
        });
        namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip ARGUMENTS` in it; panics if that fails.
    pub fn ip(&self, arguments: &str) -> String {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments.split_whitespace()))
    }

    /// Switches IPv6 on for one interface, with an address that is usable at once.
    #[allow(dead_code, reason = "not every test has IPv6")]
    pub fn ipv6(&self, interface: &str, address: &str) {
        self.enter(|| {
            for (key, value) in [("accept_dad", "0"), ("accept_ra", "0"), ("disable_ipv6", "0")] {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/{key}"), value).unwrap();
            }
            // A host speaks to its own addresses over its loopback.
            std::fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0").unwrap();
        });
        self.ip(&format!("-6 addr add {address} dev {interface} nodad"));
    }

    /// A command to be run in it. The process id is the program's own.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).stdin(Stdio::null());
        command
    }

    /// Runs `work` on a thread in it.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let joined = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into(&self.name);
                work()
            });
            thread.join()
        });
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts `work` on a thread in it.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let name = self.name.clone();
        std::thread::spawn(move || {
            move_into(&name);
            work()
        })
    }

    /// A number of the kernel's protocol statistics (/proc/net/snmp, /proc/net/netstat), like `("Icmp", "InTimeExcds")`.
    pub fn snmp(&self, protocol: &str, name: &str) -> u64 {
        let read = |file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
        let text = self.enter(|| read("snmp") + &read("netstat"));
        let mut rows = text.lines().filter(|line| line.split(':').next() == Some(protocol));
        let names = rows.next().unwrap().split_whitespace();
        let values = rows.next().unwrap().split_whitespace();
        let found = names.zip(values).find(|(each, _)| *each == name).unwrap();
        found.1.parse().unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _guard = NETNS.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

fn move_into(name: &str) {
    let file = File::open(format!("/run/netns/{name}")).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// Deletes the namespaces of earlier runs that were killed before they could.
fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("fgt-").and_then(|rest| rest.split('-').next()) else { continue };
        if !std::path::Path::new("/proc").join(pid).exists() {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}

/// A pair of veths with `queues` queues and without offloads: frames are what a NIC would see.
pub fn cable(a: &Namespace, a_interface: &str, b: &Namespace, b_interface: &str, queues: usize) {
    let queues = format!("numtxqueues {queues} numrxqueues {queues}");
    a.ip(&format!("link add {a_interface} {queues} type veth peer name {b_interface} {queues} netns {}", b.name));
    for (namespace, interface) in [(a, a_interface), (b, b_interface)] {
        let off = ["rx", "off", "tx", "off", "tso", "off", "gso", "off", "gro", "off"];
        // Some of these cannot be changed on some kernels; those that matter can on all.
        let _ = namespace.command("ethtool").args(["-K", interface]).args(off).output();
        namespace.ip(&format!("link set {interface} up"));
    }
}

/// Runs a command to its end and gives what it printed; panics with what it said if it fails.
pub fn run(command: &mut Command) -> String {
    let output: Output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
