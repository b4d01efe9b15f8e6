//! Real servers: nginx for HTTP, an echo of our own for UDP, one of usrsctp's for SCTP.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Namespace, PATIENCE, get, wait_for};

/// An nginx whose page is `NAME CLIENT-ADDRESS`; ended when dropped.
pub struct Nginx {
    child: Child,
}

impl Nginx {
    /// Starts one on `address`; `/name.bin` and the like come from its directory.
    pub fn start(namespace: &Namespace, directory: &Path, name: &str, address: impl Into<SocketAddr>) -> Self {
        let (directory, address) = (directory.join(name), address.into());
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("nginx.conf");
        std::fs::write(&file, configuration(&directory.display().to_string(), name, address)).unwrap();
        let mut command = namespace.command("nginx");
        command.arg("-c").arg(&file).arg("-e").arg(directory.join("error.log")).args(["-g", "daemon off;"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { child };
        wait_for(&format!("nginx to answer at {address}"), PATIENCE, || namespace.enter(|| get(address, "/")).ok());
        server
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // TERM, so that the master ends its workers.
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

fn configuration(directory: &str, name: &str, address: SocketAddr) -> String {
    format!(
        "user root;
        pid {directory}/nginx.pid;
        worker_processes 1;
        events {{ worker_connections 4096; }}
        http {{
            access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
            client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
            uwsgi_temp_path {directory}; scgi_temp_path {directory};
            server {{
                listen {address} backlog=4096;
                default_type text/plain;
                location = / {{ return 200 '{name} $remote_addr\\n'; }}
                location / {{ root {directory}; }}
            }}
        }}
        "
    )
}

/// A UDP server that answers each packet with its own content; ended when dropped.
pub struct UdpEcho {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    sources: Arc<std::sync::Mutex<Vec<SocketAddr>>>,
    thread: Option<JoinHandle<()>>,
}

impl UdpEcho {
    /// Starts one on `address`.
    pub fn start(namespace: &Namespace, address: impl Into<SocketAddr>) -> Self {
        let address = address.into();
        let socket = namespace.enter(|| UdpSocket::bind(address)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let sources = Arc::new(std::sync::Mutex::new(Vec::new()));
        let thread = {
            let (stop, count, sources) = (stop.clone(), count.clone(), sources.clone());
            std::thread::spawn(move || echo(&socket, &stop, &count, &sources))
        };
        Self { stop, count, sources, thread: Some(thread) }
    }

    /// Packets answered so far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Where they came from, each source once, in order of appearance.
    pub fn sources(&self) -> Vec<SocketAddr> {
        self.sources.lock().unwrap().clone()
    }
}

fn echo(socket: &UdpSocket, stop: &AtomicBool, count: &AtomicU64, sources: &std::sync::Mutex<Vec<SocketAddr>>) {
    let mut buffer = [0; 65536];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((size, source)) => {
                let mut sources = sources.lock().unwrap();
                if !sources.contains(&source) {
                    sources.push(source);
                }
                drop(sources);
                count.fetch_add(1, Ordering::Relaxed);
                let _ = socket.send_to(&buffer[..size], source);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // An ICMP error of an earlier answer.
            Err(_) => {}
        }
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Where Debian's libusrsctp-examples has its programs: SCTP without the kernel's, on raw sockets, so one at a time in a namespace.
const USRSCTP: &str = "/usr/lib/usrsctp";

/// An SCTP server at port 7 of every address that answers each message with its own content; ended when dropped.
pub struct SctpEcho(Child);

impl SctpEcho {
    /// Starts it.
    pub fn start(namespace: &Namespace) -> Self {
        let mut command = namespace.command(&format!("{USRSCTP}/echo_server"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let has_sockets = |file| {
            let sockets = namespace.enter(|| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap());
            sockets.contains(":0084 ")
        };
        wait_for("the SCTP server's sockets", PATIENCE, || (has_sockets("raw") && has_sockets("raw6")).then_some(()));
        Self(child)
    }
}

impl Drop for SctpEcho {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Opens an association with an echo server, sends messages of one line each, reads each back, and closes.
#[allow(dead_code, reason = "not every test has SCTP")]
pub fn sctp_echo(namespace: &Namespace, server: SocketAddr, messages: &[String]) {
    let mut command = namespace.command(&format!("{USRSCTP}/client"));
    command.args([server.ip().to_string(), server.port().to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (said, heard) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        // The program has words of its own, too.
        BufReader::new(output).lines().map_while(Result::ok).all(|line| said.send(line).is_ok());
    });
    for message in messages {
        input.write_all(format!("{message}\n").as_bytes()).unwrap();
        wait_for(&format!("{server} to send {:.20} back", message), PATIENCE, || {
            heard.try_iter().any(|line| line.ends_with(message)).then_some(())
        });
    }
    drop(input);
    let ended = wait_for("the association to end", PATIENCE, || child.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
    reader.join().unwrap();
}

/// Takes tunnelled packets apart in a real server; ended when dropped.
pub struct Decapsulation(Child);

impl Decapsulation {
    /// Starts it; GUE comes at port 6080.
    pub fn start(namespace: &Namespace) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/decapsulate.py");
        let mut command = namespace.command("python3");
        let mut child = command.arg(script).args(["dec0", "6080"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for Decapsulation {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
