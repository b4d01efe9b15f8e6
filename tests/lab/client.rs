//! Clients: single HTTP requests, and a load that goes on until it is stopped.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Namespace;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Connects with a deadline.
pub fn connect(target: impl Into<SocketAddr>) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target.into(), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a request on an open connection, which the server closes after its answer.
pub fn ask(stream: &mut TcpStream, path: &str) -> io::Result<()> {
    // One write, one packet.
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n").as_bytes())
}

/// Reads a whole answer and gives its body; an error where it is not 200 or not as long as it says.
pub fn answer(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(end) = end else { return Err(io::Error::other(format!("cut short: {} bytes", bytes.len()))) };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
    let body = bytes.split_off(end + 4);
    if !head.starts_with("HTTP/1.1 200") || length != Some(body.len()) {
        return Err(io::Error::other(format!("{} bytes after: {head}", body.len())));
    }
    Ok(body)
}

/// One request on a connection of its own. The calling thread must be in the client's namespace.
pub fn get(target: impl Into<SocketAddr>, path: &str) -> io::Result<String> {
    let mut stream = connect(target)?;
    ask(&mut stream, path)?;
    Ok(String::from_utf8_lossy(&answer(&mut stream)?).into_owned())
}

/// The answers of `count` requests one after the other, counted: by real server's name, and by the source it saw.
pub fn get_many(
    client: &Namespace,
    target: impl Into<SocketAddr>,
    count: usize,
) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
    let target = target.into();
    client.enter(|| {
        let (mut names, mut sources) = (BTreeMap::new(), BTreeMap::new());
        for number in 0..count {
            let page = get(target, "/").unwrap_or_else(|error| panic!("request {number} of {count}: {error}"));
            let (name, source) = page.trim().split_once(' ').unwrap();
            *names.entry(name.to_owned()).or_default() += 1;
            *sources.entry(source.to_owned()).or_default() += 1;
        }
        (names, sources)
    })
}

/// Threads that send requests until stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// Starts `threads` of them in the client's namespace.
    pub fn start(client: &Namespace, target: impl Into<SocketAddr>, threads: usize) -> Self {
        Self::start_paced(client, target, threads, Duration::ZERO)
    }

    /// Starts them with a pause of this length after each answer.
    pub fn start_paced(client: &Namespace, target: impl Into<SocketAddr>, threads: usize, pause: Duration) -> Self {
        let target = target.into();
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let one = |_| {
            let (stop, done) = (stop.clone(), done.clone());
            client.spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match get(target, "/") {
                        Ok(_) => drop(done.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failures.push(error.to_string()),
                    }
                    std::thread::sleep(pause);
                }
                failures
            })
        };
        let threads = (0..threads).map(one).collect();
        Self { stop, done, threads }
    }

    /// Requests answered so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits for `count` more answers.
    pub fn wait_for_more(&self, count: u64) {
        let goal = self.done() + count;
        super::wait_for("more answers under load", super::PATIENCE, || (self.done() >= goal).then_some(()));
    }

    /// Stops it and gives the failures.
    pub fn finish(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).flat_map(|thread| thread.join().unwrap()).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
