//! What the cases need: interfaces in the case's own network namespace, a peer on an interface, configurations, frames,
//! and waiting for a condition.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use fullgate::config::{Device, DpdkConfig, Idle, PortConfig, PortSteering, WorkerConfig};
use fullgate::dpdk::{Eal, Mbuf, MemPool, Port, Queue};
use fullgate::flow::rss::RssKey;
use fullgate::port::{BURST_SIZE, Frame, PortId, PortQueue};

/// How long a condition may take to come true.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Runs a command that must succeed.
pub fn run(command: &str) {
    let mut words = command.split_whitespace();
    let program = words.next().unwrap_or_default();
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A veth pair, up, without IPv6's chatter, with `queues` queues on both sides.
pub fn veth(name: &str, peer: &str, queues: u16) {
    let many = format!("numrxqueues {queues} numtxqueues {queues}");
    run(&format!("ip link add {name} {many} type veth peer name {peer} {many}"));
    for name in [name, peer] {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        run(&format!("ip link set {name} up"));
    }
}

/// The MAC address of a kernel interface.
pub fn mac(interface: &str) -> String {
    let output = Command::new("ip").args(["-br", "link", "show", interface]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().nth(2).unwrap().to_owned()
}

/// The MTU of a kernel interface.
pub fn mtu(interface: &str) -> u16 {
    let output = Command::new("ip").args(["link", "show", interface]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().skip_while(|word| *word != "mtu").nth(1).unwrap().parse().unwrap()
}

/// A packet socket on an interface.
pub struct Peer {
    child: Child,
    input: ChildStdin,
    frames: Receiver<Vec<u8>>,
}

impl Peer {
    /// Opens it.
    pub fn on(interface: &str) -> Self {
        let mut child = Command::new("python3")
            .args(["-u", "-c", include_str!("peer.py"), interface])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        let (sender, frames) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(bytes_of(&line)).is_err() {
                    break;
                }
            }
        });
        Self { child, input, frames }
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &[u8]) {
        let digits: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(self.input, "{digits}").unwrap();
    }

    /// Waits until these frames, among others, have arrived.
    pub fn wait_for(&self, wanted: &[Vec<u8>]) {
        let mut missing: Vec<&Vec<u8>> = wanted.iter().collect();
        let deadline = Instant::now() + PATIENCE;
        while !missing.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = self.frames.recv_timeout(left);
            let frame = frame.unwrap_or_else(|_| panic!("{} frames did not arrive: {missing:02x?}", missing.len()));
            missing.retain(|wanted| **wanted != frame);
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bytes_of(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// A UDP packet of flow `flow`, by a builder that knows nothing of fullgate.
pub fn udp(flow: u16, payload_len: usize) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(10_000 + flow, 53);
    let payload: Vec<u8> = flow.to_be_bytes().into_iter().cycle().take(payload_len).collect();
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, &payload).unwrap();
    frame
}

/// `count` packets of different flows and lengths.
pub fn flows(count: u16) -> Vec<Vec<u8>> {
    (0..count).map(|flow| udp(flow, 60 + usize::from(flow) * 7 % 1200)).collect()
}

/// Whether a frame is one of [`flows`]: the kernel may send others.
pub fn is_ours(frame: &[u8]) -> bool {
    frame.get(26..30) == Some(&Ipv4Addr::new(10, 0, 0, 1).octets())
}

/// A port with a virtual device.
pub fn port(name: &str, device: &str) -> PortConfig {
    PortConfig {
        name: name.to_owned(),
        device: Device::Vdev(device.to_owned()),
        members: Vec::new(),
        vlan: None,
        mac: None,
        tap: format!("fg-{name}"),
        addresses: Vec::new(),
        routes: Vec::new(),
        mtu: None,
        queues: None,
        rx_descriptors: 512,
        tx_descriptors: 512,
        promiscuous: true,
        mss_clamp: fullgate::balance::MssClamp::Off,
        steering: PortSteering::Auto,
        link_timeout_milliseconds: 2000,
    }
}

/// `[dpdk]` without hugepages.
/// An RSS key, which no virtual device takes.
pub fn key() -> RssKey {
    RssKey::draw(|| 0x0123_4567_89ab_cdef)
}

pub fn dpdk(megabytes: u32) -> DpdkConfig {
    DpdkConfig { eal_args: vec!["--no-huge".to_owned(), "-m".to_owned(), megabytes.to_string()], mbufs: None }
}

/// `[worker]` with `count` workers.
pub fn workers(count: u16) -> WorkerConfig {
    WorkerConfig { cores: (0..count).collect(), idle: Idle::Sleep }
}

/// Hugepages of 2 MB, reserved until this is dropped.
pub struct Hugepages {
    before: u32,
}

const HUGEPAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

impl Hugepages {
    /// Reserves `count` more.
    pub fn reserve(count: u32) -> Self {
        let reserved = Self { before: hugepages("nr_hugepages") };
        let wanted = reserved.before + count;
        fs::write(format!("{HUGEPAGES}/nr_hugepages"), wanted.to_string()).unwrap();
        assert_eq!(hugepages("nr_hugepages"), wanted, "the machine has no room for {count} hugepages of 2 MB");
        reserved
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        let _ = fs::write(format!("{HUGEPAGES}/nr_hugepages"), self.before.to_string());
    }
}

/// A number that the kernel tells of its hugepages of 2 MB.
pub fn hugepages(what: &str) -> u32 {
    fs::read_to_string(format!("{HUGEPAGES}/{what}")).unwrap().trim().parse().unwrap()
}

/// An EAL and a pool for `ports`.
pub fn eal(ports: &[PortConfig], count: u16) -> (Eal, MemPool) {
    let dpdk = dpdk(256);
    let eal = Eal::init(&dpdk, ports, &workers(count)).unwrap();
    let pool = MemPool::create(&eal, &dpdk, ports, count, 1024).unwrap();
    (eal, pool)
}

/// Opens all ports.
pub fn open(ports: &[PortConfig], count: u16, pool: &MemPool) -> Vec<(Port, Vec<Queue>)> {
    (0u8..)
        .zip(ports)
        .map(|(id, config)| {
            Port::open(config, PortId(id), count, pool, &key()).unwrap_or_else(|error| panic!("{error}"))
        })
        .collect()
}

/// Waits for a condition, looking again and again.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Receives until `count` frames of ours are there.
pub fn receive(queue: &mut Queue, count: usize) -> Vec<Mbuf> {
    let mut frames = Vec::new();
    wait_until(&format!("{count} frames"), || {
        frames.extend(poll(queue));
        frames.len() >= count
    });
    frames
}

/// One burst, without what is not ours.
pub fn poll(queue: &mut Queue) -> Vec<Mbuf> {
    let mut burst = Vec::with_capacity(BURST_SIZE);
    queue.receive(&mut burst);
    burst.retain(|frame| is_ours(frame.bytes()));
    burst
}

/// Sends all of `frames`, trying again while the device is full.
pub fn transmit(queue: &mut Queue, mut frames: Vec<Mbuf>) {
    wait_until("room to transmit", || {
        queue.transmit(&mut frames);
        frames.is_empty()
    });
}

/// The frames' bytes.
pub fn contents(frames: &[Mbuf]) -> Vec<Vec<u8>> {
    frames.iter().map(|frame| frame.bytes().to_vec()).collect()
}

/// Writes a capture file (libpcap's classic format, microseconds, Ethernet).
pub fn write_capture(path: &Path, frames: &[Vec<u8>]) {
    let mut file = Vec::new();
    let header: [u32; 6] = [0xa1b2_c3d4, (4 << 16) | 2, 0, 0, 65535, 1];
    file.extend(header.into_iter().flat_map(u32::to_le_bytes));
    for frame in frames {
        let len = u32::try_from(frame.len()).unwrap();
        file.extend([0, 0, len, len].into_iter().flat_map(u32::to_le_bytes));
        file.extend_from_slice(frame);
    }
    fs::write(path, file).unwrap();
}

/// Counter `name` of the device's own.
pub fn xstat(port: &Port, name: &str) -> u64 {
    let xstats = port.xstats().unwrap();
    xstats.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no {name} in {xstats:?}")).1
}
