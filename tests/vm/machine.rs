//! A virtual machine: an emulated x86 that boots what `tests/vm/image` makes, and does what a test says over a serial
//! port. Needs no KVM and no root. What devices it has is its test's.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the machine may take to boot: it does in 6 to 12 seconds.
const BOOT: Duration = Duration::from_secs(90);
/// How long one command may take.
const COMMAND: Duration = Duration::from_secs(60);
/// Begins the line after a command's output.
const MARK: char = '\u{1}';

/// A running machine; ended when dropped.
pub struct Machine {
    child: Child,
    agent: BufReader<UnixStream>,
    monitor: BufReader<UnixStream>,
    directory: PathBuf,
}

/// Makes what a machine of this kind boots, in a directory.
pub fn make_image(kind: &str, directory: &Path, more: &[&str]) {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm");
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/image");
    let output = Command::new(image).arg(kind).arg(cache).arg(directory).args(more).output().unwrap();
    assert!(output.status.success(), "tests/vm/image: {}", String::from_utf8_lossy(&output.stderr));
}

impl Machine {
    /// Boots what is in the directory, and waits until it takes commands. `qemu` is the emulator with the machine's
    /// processors, memory and devices, `parameters` what its kernel is told besides.
    pub fn boot(mut qemu: Command, parameters: &str, directory: &Path) -> Self {
        let path = |name: &str| directory.join(name).display().to_string();
        qemu.args([
            "-machine",
            "q35",
            "-cpu",
            "max",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args(["-kernel", &path("vmlinuz"), "-initrd", &path("initramfs")])
        .args(["-append", &format!("console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off {parameters}")])
        .args(["-serial", &format!("file:{}", path("console.log"))])
        // It waits for somebody to listen, so that nothing that is said is lost.
        .args(["-chardev", &format!("socket,id=agent,server=on,wait=on,path={}", path("agent"))])
        .args(["-serial", "chardev:agent"])
        .args(["-qmp", &format!("unix:{},server=on,wait=off", path("monitor"))]);
        let log = File::create(directory.join("qemu.log")).unwrap();
        let mut child = qemu.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let [agent, monitor] = ["agent", "monitor"].map(|name| connect(&mut child, directory, name));
        let (agent, monitor) = (BufReader::new(agent), BufReader::new(monitor));
        let mut machine = Self { child, agent, monitor, directory: directory.to_owned() };
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

/// Connects to one of its sockets, which it makes after its start.
fn connect(child: &mut Child, directory: &Path, name: &str) -> UnixStream {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Ok(socket) = UnixStream::connect(directory.join(name)) {
            return socket;
        }
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "qemu ended at once: {}", text(&directory.join("qemu.log")));
        assert!(Instant::now() < deadline, "the virtual machine makes no socket {name}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    let _ = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}
