//! A virtual machine that stands where a lab's gateway would: an emulated x86 with an IOMMU and a virtio NIC on the PCI
//! bus for each of the lab's cables. Booted from what `tests/vm/image` makes; needs no KVM.
//!
//! The NICs hash flows as a device of hardware does (VIRTIO_NET_F_RSS: a key, a redirection table, Toeplitz), have two
//! queues, and are given to nobody: binding them is the test's.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::lab::gateway::FULLGATE;
use crate::lab::{Lab, run, wait_for};

/// How long the machine may take to boot: it does in 6 to 8 seconds.
const BOOT: Duration = Duration::from_secs(90);
/// How long one command may take.
const COMMAND: Duration = Duration::from_secs(60);
/// Begins the line after a command's output.
const MARK: char = '\u{1}';

/// A NIC: its cable's name in the lab, its PCI address and its MAC.
pub struct Nic {
    pub name: &'static str,
    pub pci: &'static str,
    pub mac: &'static str,
}

/// One a cable, on slots of the root bus, so that each has an IOMMU group of its own.
pub const NICS: [Nic; 2] = [
    Nic { name: "wan", pci: "0000:00:10.0", mac: "02:00:00:00:01:01" },
    Nic { name: "lan", pci: "0000:00:11.0", mac: "02:00:00:00:01:02" },
];

/// A running machine; ended when dropped.
pub struct Machine {
    child: Child,
    agent: BufReader<UnixStream>,
    monitor: BufReader<UnixStream>,
    directory: PathBuf,
}

impl Machine {
    /// Makes what it boots, bridges its NICs to the lab's cables, and waits until it takes commands.
    pub fn start(lab: &Lab) -> Self {
        let directory = lab.path().to_owned();
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm");
        let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/image");
        run(Command::new(image).arg(cache).arg(&directory).arg(FULLGATE));
        for nic in &NICS {
            bridge(lab, nic.name);
        }
        let mut child = qemu(lab, &directory);
        let mut connect = |name: &str| {
            wait_for("the virtual machine's sockets", Duration::from_secs(20), || {
                let ended = child.try_wait().unwrap();
                assert!(ended.is_none(), "qemu ended at once: {}", text(&directory.join("qemu.log")));
                UnixStream::connect(directory.join(name)).ok()
            })
        };
        let (agent, monitor) = (connect("agent"), connect("monitor"));
        let mut machine = Self { child, agent: BufReader::new(agent), monitor: BufReader::new(monitor), directory };
        assert_eq!(machine.reply(BOOT).1, "ready", "{}", machine.console());
        machine.say_to_monitor(r#"{"execute":"qmp_capabilities"}"#);
        machine
    }

    /// Runs a line of bash; its exit status and all that it printed.
    pub fn run(&mut self, command: &str) -> (i32, String) {
        assert!(!command.contains('\n'), "a command is one line: {command}");
        writeln!(self.agent.get_mut(), "{command}").unwrap();
        let (output, status) = self.reply(COMMAND);
        // The mark begins a line of its own.
        (status.parse().unwrap(), output.strip_suffix('\n').unwrap_or(&output).to_owned())
    }

    /// The same, which must succeed; what it printed.
    pub fn ok(&mut self, command: &str) -> String {
        let (status, output) = self.run(command);
        assert_eq!(status, 0, "{command}: {output}\n{}", self.console());
        output
    }

    /// Writes a file.
    pub fn write(&mut self, path: &str, content: &str) {
        let content = content.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n");
        self.ok(&format!("printf %s $'{content}' >{path}"));
    }

    /// Plugs a NIC's cable in, or pulls it out.
    pub fn set_link(&mut self, nic: &str, up: bool) {
        self.say_to_monitor(&format!(r#"{{"execute":"set_link","arguments":{{"name":"{nic}","up":{up}}}}}"#));
    }

    /// What its kernel said.
    pub fn console(&self) -> String {
        text(&self.directory.join("console.log"))
    }

    /// What comes from the agent up to the next mark, and what stands behind that.
    fn reply(&mut self, limit: Duration) -> (String, String) {
        self.agent.get_ref().set_read_timeout(Some(limit)).unwrap();
        let (mut output, mut line) = (String::new(), Vec::new());
        loop {
            line.clear();
            let read = self.agent.read_until(b'\n', &mut line);
            let log = || format!("{}\n{}", self.console(), text(&self.directory.join("qemu.log")));
            assert!(read.is_ok_and(|count| count > 0), "no answer within {limit:?}, after {output:?}\n{}", log());
            let text = String::from_utf8_lossy(&line);
            match text.split_once(MARK) {
                Some((before, status)) => return (output + before, status.trim().to_owned()),
                None => output.push_str(&text),
            }
        }
    }

    /// One command of QEMU's machine protocol, done when this returns.
    fn say_to_monitor(&mut self, command: &str) {
        self.monitor.get_ref().set_read_timeout(Some(COMMAND)).unwrap();
        writeln!(self.monitor.get_mut(), "{command}").unwrap();
        let mut line = String::new();
        // Greetings and events come in between.
        while !line.starts_with(r#"{"return""#) {
            line.clear();
            let read = self.monitor.read_line(&mut line).unwrap();
            assert!(read > 0 && !line.starts_with(r#"{"error""#), "{command}: {line}");
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the virtual machine's console\n{}", self.console());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A TAP of two queues for the NIC, on a bridge with the lab's cable, in the gateway's namespace.
fn bridge(lab: &Lab, name: &str) {
    let ip = |arguments: String| lab.gateway.ip(&arguments);
    ip(format!("tuntap add dev tap-{name} mode tap multi_queue vnet_hdr"));
    ip(format!("link add br-{name} type bridge"));
    for interface in [format!("tap-{name}"), format!("veth-{name}")] {
        ip(format!("link set {interface} master br-{name}"));
        ip(format!("link set {interface} up"));
    }
    ip(format!("link set br-{name} up"));
}

fn qemu(lab: &Lab, directory: &Path) -> Child {
    let path = |name: &str| directory.join(name).display().to_string();
    let mut command = lab.gateway.command("qemu-system-x86_64");
    command
        .args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-kernel", &path("vmlinuz"), "-initrd", &path("initramfs")])
        .args(["-append", "console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off intel_iommu=on"])
        .args(["-serial", &format!("file:{}", path("console.log"))])
        // It waits for somebody to listen, so that nothing that is said is lost.
        .args(["-chardev", &format!("socket,id=agent,server=on,wait=on,path={}", path("agent"))])
        .args(["-serial", "chardev:agent"])
        .args(["-qmp", &format!("unix:{},server=on,wait=off", path("monitor"))])
        .args(["-device", "intel-iommu"]);
    for nic in &NICS {
        let (name, mac) = (nic.name, nic.mac);
        let slot = nic.pci.rsplit(':').next().unwrap();
        let tap = format!("tap,id={name},ifname=tap-{name},script=no,downscript=no,queues=2,vhost=off");
        let device = format!(
            "virtio-net-pci,netdev={name},addr=0x{slot},mac={mac},mq=on,vectors=6,rss=on,hash=on,romfile=,iommu_platform=on,disable-legacy=on"
        );
        command.args(["-netdev", &tap, "-device", &device]);
    }
    let log = File::create(directory.join("qemu.log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    let _ = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}
