//! The daemon under test: its configuration, its process, its socket and its metrics.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use fullgate::control::protocol::{Outcome, Refusal, Reply, Request, SessionFilter, SessionRow, Stats};
use rustix::process::{Pid, Signal, kill_process};

use super::{Lab, Namespace, PATIENCE, VIP, wait_for};

/// The binary under test.
pub const FULLGATE: &str = env!("CARGO_BIN_EXE_fullgate");

/// What the daemon is started with, part by part, so that a test changes what it is about.
#[derive(Clone)]
pub struct Configuration {
    pub eal_args: String,
    pub cores: String,
    pub capacity: u32,
    pub control: String,
    pub timeouts: String,
    pub ports: String,
    pub balance: String,
}

impl Configuration {
    /// For [`Lab::two_arm`]: AF_XDP on both cables, no hugepages, one worker, no service yet.
    pub fn two_arm() -> Self {
        let wan = port("wan", "net_af_xdp0,iface=veth-wan", &["10.0.0.1/24", "10.0.0.100/32"]);
        let lan = port("lan", "net_af_xdp1,iface=veth-lan", &["10.1.0.1/24"]);
        Self { ports: wan + &lan, balance: pool("lan", "10.1.0.200-10.1.0.203"), ..Self::bare() }
    }

    /// For [`Lab::one_arm`].
    pub fn one_arm() -> Self {
        let lan = port("lan", "net_af_xdp0,iface=veth-lan", &["10.0.0.1/24", "10.0.0.100/32"]);
        Self { ports: lan, balance: pool("lan", "10.0.0.200-10.0.0.203"), ..Self::bare() }
    }

    /// For [`Lab::trunk`], with this device: the VLANs as ports of their own, and what has no tag as a third one.
    pub fn trunk(device: &str) -> Self {
        let wan = vlan("wan", 100, &["10.0.0.1/24", "10.0.0.100/32"]);
        let lan = vlan("lan", 200, &["10.1.0.1/24"]);
        let trunk = port("trunk", device, &["10.9.0.1/24"]);
        Self { ports: wan + &trunk + &lan, balance: pool("lan", "10.1.0.200-10.1.0.203"), ..Self::bare() }
    }

    /// Without ports.
    pub fn bare() -> Self {
        Self {
            eal_args: r#"["--no-huge", "-m", "256"]"#.into(),
            cores: "[0]".into(),
            capacity: 65_536,
            control: r#"metrics = "127.0.0.1:9469""#.into(),
            timeouts: String::new(),
            ports: String::new(),
            balance: String::new(),
        }
    }

    /// With one more service, whose real servers are given as (address, weight).
    pub fn with_service(
        mut self,
        protocol: &str,
        vip: SocketAddrV4,
        scheduler: &str,
        reals: &[(SocketAddrV4, u32)],
    ) -> Self {
        self.balance += &format!(
            "[[service]]\nvip = \"{vip}\"\nprotocol = \"{protocol}\"\nscheduler = \"{scheduler}\"\nmode = \"fullnat\"\nlocal_pool = \"lan\"\n"
        );
        for (address, weight) in reals {
            self.balance += &format!("[[service.real_server]]\naddress = \"{address}\"\nweight = {weight}\n");
        }
        self
    }

    /// The file's text, with its socket and state in `directory`.
    pub fn text(&self, directory: &Path) -> String {
        let Self { eal_args, cores, capacity, control, timeouts, ports, balance } = self;
        let directory = directory.display();
        format!(
            "[dpdk]\neal_args = {eal_args}\n\n[worker]\ncores = {cores}\nidle = \"sleep\"\n\n[session]\ncapacity = {capacity}\n\n\
             [control]\nsocket = \"{directory}/control.sock\"\nstate_dir = \"{directory}/state\"\n{control}\n\n\
             [timeouts]\n{timeouts}\n{ports}\n{balance}"
        )
    }
}

/// A `[[port]]`.
pub fn port(name: &str, device: &str, addresses: &[&str]) -> String {
    format!("[[port]]\nname = \"{name}\"\ndevice = \"{device}\"\ntap = \"fg-{name}\"\naddresses = {addresses:?}\n\n")
}

/// A `[[port]]` that is a VLAN of port `trunk`.
pub fn vlan(name: &str, vlan: u16, addresses: &[&str]) -> String {
    format!("[[port]]\nname = \"{name}\"\nparent = \"trunk\"\nvlan = {vlan}\naddresses = {addresses:?}\n\n")
}

/// A `[[local_pool]]` on the port of the same name.
pub fn pool(port: &str, addresses: &str) -> String {
    format!(
        "[[local_pool]]\nname = \"{port}\"\nport = \"{port}\"\naddresses = [\"{addresses}\"]\nports = \"1024-65535\"\n\n"
    )
}

/// The VIP's address with a port.
pub fn vip(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(VIP, port)
}

/// Real server `index` of a two-arm lab.
pub fn real(index: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 11 + index), port)
}

/// A running daemon; ended when dropped.
pub struct Gateway {
    child: Child,
    directory: PathBuf,
    namespace: String,
}

impl Gateway {
    /// Starts it in the lab's gateway namespace and waits until it answers; panics with its log if it ends.
    pub fn start(lab: &Lab, configuration: &Configuration) -> Self {
        Self::start_in(&lab.gateway, lab.path(), configuration)
    }

    /// Starts one in a namespace, with its files in `directory`, and waits until it answers.
    pub fn start_in(namespace: &Namespace, directory: &Path, configuration: &Configuration) -> Self {
        let mut gateway = Self::launch(namespace, directory, configuration);
        let deadline = Instant::now() + PATIENCE;
        while gateway.try_ask(&Request::Status {}).is_none() {
            if let Some(status) = gateway.child.try_wait().unwrap() {
                panic!("the gateway ended at start: {status}\n{}", gateway.log());
            }
            assert!(Instant::now() < deadline, "the gateway does not answer\n{}", gateway.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        gateway
    }

    /// Starts it without waiting.
    fn launch(namespace: &Namespace, directory: &Path, configuration: &Configuration) -> Self {
        let directory = directory.to_owned();
        std::fs::create_dir_all(directory.join("state")).unwrap();
        std::fs::write(directory.join("fullgate.toml"), configuration.text(&directory)).unwrap();
        let log = File::options().create(true).append(true).open(directory.join("fullgate.log")).unwrap();
        let mut command = namespace.command(FULLGATE);
        command.args(["run", "--config"]).arg(directory.join("fullgate.toml"));
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Self { child, directory, namespace: namespace.name().to_owned() }
    }

    /// What it logged so far, over all its starts in this lab.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("fullgate.log")).unwrap_or_default()
    }

    /// Its process.
    #[allow(dead_code, reason = "not every test looks at it")]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// `fullgate ARGUMENTS` against it.
    pub fn cli(&self, arguments: &str) -> Output {
        Command::new(FULLGATE)
            .args(arguments.split_whitespace())
            .env("FULLGATE_SOCKET", self.socket())
            .output()
            .unwrap()
    }

    /// The same, which must succeed; what it printed.
    pub fn command(&self, arguments: &str) -> String {
        let output = self.cli(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "fullgate {arguments}: {}: {said}\n{}", output.status, self.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same, with `--json`, parsed.
    pub fn json(&self, arguments: &str) -> serde_json::Value {
        serde_json::from_str(&self.command(&format!("{arguments} --json"))).unwrap()
    }

    /// Asks over the socket; panics if it is refused.
    pub fn ask(&self, request: &Request) -> Reply {
        match self.try_ask(request) {
            Some(Ok(reply)) => reply,
            other => panic!("{request:?}: {other:?}\n{}", self.log()),
        }
    }

    fn try_ask(&self, request: &Request) -> Option<Result<Reply, Refusal>> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        let mut value = serde_json::to_value(request).unwrap();
        value["version"] = fullgate::control::protocol::VERSION.into();
        writeln!(stream, "{value}").ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        let mut reply: serde_json::Value = serde_json::from_str(&line).ok()?;
        reply.as_object_mut()?.remove("version");
        match serde_json::from_value(reply).unwrap() {
            Outcome::Ok(reply) => Some(Ok(reply)),
            Outcome::Error(refusal) => Some(Err(refusal)),
        }
    }

    /// All its counters.
    pub fn stats(&self) -> Stats {
        match self.ask(&Request::Stats {}) {
            Reply::Stats(stats) => stats,
            other => panic!("no stats: {other:?}"),
        }
    }

    /// Its sessions.
    pub fn sessions(&self) -> Vec<SessionRow> {
        match self.ask(&Request::SessionList { filter: SessionFilter::default(), limit: None }) {
            Reply::Sessions(sessions) => sessions,
            other => panic!("no sessions: {other:?}"),
        }
    }

    /// Its metrics: name with labels -> value.
    pub fn metrics(&self, lab: &Lab) -> BTreeMap<String, f64> {
        let text = lab.gateway.enter(|| {
            let mut stream = TcpStream::connect("127.0.0.1:9469").unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        });
        let lines = text.lines().filter(|line| line.starts_with("fullgate_"));
        lines
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end; panics if that takes longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait_for("the gateway to end", limit, || self.child.try_wait().unwrap())
    }

    /// The interfaces of its namespace, by name.
    pub fn interfaces(&self) -> Vec<String> {
        let text = super::run(Command::new("ip").args(["-n", &self.namespace, "-br", "link"]));
        text.lines().filter_map(|line| line.split(['@', ' ']).next()).map(str::to_owned).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the gateway's log\n{}", self.log());
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(5);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `fullgate run` with this text to its end, which must come by itself: its exit code and what it said.
pub fn run_to_end(lab: &Lab, text: &str) -> (Option<i32>, String) {
    let file = lab.path().join("fullgate.toml");
    std::fs::write(&file, text).unwrap();
    let mut command = lab.gateway.command(FULLGATE);
    let mut child =
        command.args(["run", "--config"]).arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), said)
}
