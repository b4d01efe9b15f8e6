//! Frames through real drivers, there and back.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use fullgate::config::DpdkConfig;
use fullgate::dpdk::{Eal, Mbuf, MemPool, Port, Queue, Steering, clock, free_all, register_current_thread};
use fullgate::port::{BURST_SIZE, ChecksumStatus, Frame, PortId, PortQueue};

use crate::lab::{self, Hugepages, Peer, contents, flows, key, open, poll, port, receive, transmit, veth, wait_until};

/// Frames from one peer through both ports, received by the first and sent by the second, to the other.
fn forward(devices: [&str; 2], peers: [&str; 2], driver: &str) {
    let ports = [port("wan", devices[0]), port("lan", devices[1])];
    let (eal, pool) = lab::eal(&ports, 1);
    let mut opened = open(&ports, 1, &pool);
    let (mut lan, mut lan_queues) = opened.pop().unwrap();
    let (mut wan, mut wan_queues) = opened.pop().unwrap();
    assert_eq!(wan.driver(), driver);
    assert_eq!((wan.steering(), wan.ownership().name()), (Steering::Single, "single"));
    assert!(wan.link().unwrap().up);

    let (mut client, server) = (Peer::on(peers[0]), Peer::on(peers[1]));
    let sent = flows(100);
    sent.iter().for_each(|frame| client.send(frame));
    let frames = receive(&mut wan_queues[0], sent.len());
    assert_eq!(contents(&frames), sent);
    transmit(&mut lan_queues[0], frames);
    server.wait_for(&sent);

    let answer = lab::udp(7, 1400);
    transmit(&mut wan_queues[0], vec![pool.copy_from(&answer).unwrap()]);
    client.wait_for(&[answer]);

    assert_eq!(wan.stats().unwrap().rx_errors, 0);
    assert!(lab::xstat(&wan, "rx_good_packets") >= 100);
    assert!(lab::xstat(&lan, "tx_good_packets") >= 100);

    let error = wan.close().unwrap_err().to_string();
    assert_eq!(error, "port \"wan\" cannot be closed: 1 of its queues are in use");
    drop((wan_queues, lan_queues));
    for port in [&mut wan, &mut lan] {
        port.close().unwrap();
        port.close().unwrap();
        assert!(!port.link().unwrap().up);
    }
    // The AF_XDP driver (22.11) does not give back what is on its fill ring.
    let lost_at_close = if driver == "net_af_xdp" { 2 * 4096 } else { 0 };
    assert!(pool.size() - pool.available() <= lost_at_close, "lost {}", pool.size() - pool.available());
    drop(eal);
}

pub fn af_xdp_forwards() {
    veth("a0", "a1", 1);
    veth("b0", "b1", 1);
    forward(["net_af_xdp0,iface=a0", "net_af_xdp1,iface=b0"], ["a1", "b1"], "net_af_xdp");
}

pub fn af_packet_forwards() {
    veth("a0", "a1", 1);
    veth("b0", "b1", 1);
    forward(["net_af_packet0,iface=a0", "net_af_packet1,iface=b0"], ["a1", "b1"], "net_af_packet");
}

/// Flows spread by the kernel over two queues, each polled by a worker; each worker sends by its own.
fn two_queues(device: &str) {
    veth("a0", "a1", 2);
    let ports = [port("wan", device)];
    let (_eal, pool) = lab::eal(&ports, 2);
    let (wan, mut queues) = open(&ports, 2, &pool).pop().unwrap();
    assert_eq!((wan.rx_queues(), wan.tx_queues(), queues.len()), (2, 2, 2));
    assert_eq!((wan.steering(), wan.ownership().name()), (Steering::Software, "software"));
    let reason = wan.ownership().reason().map(ToString::to_string);
    assert_eq!(reason, Some(format!("driver {} has no RSS with a redirection table", wan.driver())));
    assert_eq!(wan.mac().to_string(), lab::mac("a0"));

    let mut peer = Peer::on("a1");
    let sent = flows(64);
    sent.iter().for_each(|frame| peer.send(frame));
    let mut received: [Vec<Mbuf>; 2] = Default::default();
    wait_until("64 frames on two queues", || {
        received.iter_mut().zip(&mut queues).for_each(|(frames, queue)| frames.extend(poll(queue)));
        received.iter().map(Vec::len).sum::<usize>() >= sent.len()
    });
    assert!(
        received.iter().all(|frames| !frames.is_empty()),
        "one queue got all: {:?}",
        received.each_ref().map(Vec::len)
    );
    let mut all: Vec<_> = received.iter().flat_map(|frames| contents(frames)).collect();
    all.sort();
    let mut wanted = sent.clone();
    wanted.sort();
    assert_eq!(all, wanted);
    queues.iter_mut().zip(received).for_each(|(queue, frames)| transmit(queue, frames));
    peer.wait_for(&sent);
    assert!(lab::xstat(&wan, "rx_good_packets") >= 64, "summed over both queues");
}

pub fn af_xdp_two_queues() {
    two_queues("net_af_xdp0,iface=a0");
}

/// Frames are kept until practically every buffer of the pool holds one, then all are sent.
pub fn af_xdp_uses_every_buffer() {
    const FRAMES: u16 = 5600;
    const BATCH: usize = 400;
    veth("a0", "a1", 1);
    let ports = [port("wan", "net_af_xdp0,iface=a0")];
    let dpdk = DpdkConfig { mbufs: Some(8192), ..lab::dpdk(256) };
    let eal = Eal::init(&dpdk, &ports, &lab::workers(1)).unwrap();
    let pool = MemPool::create(&eal, &dpdk, &ports, 1, 0).unwrap();
    let (wan, mut queues) = open(&ports, 1, &pool).pop().unwrap();
    let mut peer = Peer::on("a1");
    let sent: Vec<_> = (0..FRAMES).map(|flow| lab::udp(flow, 64)).collect();
    let mut kept = Vec::new();
    for batch in sent.chunks(BATCH) {
        batch.iter().for_each(|frame| peer.send(frame));
        kept.extend(receive(&mut queues[0], batch.len()));
    }
    assert_eq!(contents(&kept), sent);
    assert!(pool.available() < 1024, "{} buffers were not used", pool.available());
    for batch in sent.chunks(BATCH) {
        transmit(&mut queues[0], kept.drain(..batch.len()).collect());
        peer.wait_for(batch);
    }
    assert_eq!(wan.stats().unwrap().rx_missed, 0);
}

pub fn af_packet_two_queues() {
    two_queues("net_af_packet0,iface=a0,qpairs=2");
}

/// Closed and opened again. Not with AF_XDP and AF_PACKET: those drivers (22.11) keep sockets until the process ends.
pub fn reopens_in_one_process() {
    let ports = [port("lan", "net_tap0,iface=fgports0"), port("wan", "net_null0")];
    let (_eal, pool) = lab::eal(&ports, 1);
    for _ in 0..3 {
        let mut opened = open(&ports, 1, &pool);
        let mut kernel = Peer::on("fgports0");
        let sent = flows(5);
        sent.iter().for_each(|frame| kernel.send(frame));
        let frames = receive(&mut opened[0].1[0], 5);
        assert_eq!(contents(&frames), sent);
        transmit(&mut opened[0].1[0], frames);
        kernel.wait_for(&sent);
        drop(kernel);
        for (mut port, queues) in opened {
            drop(queues);
            port.close().unwrap();
        }
        assert_eq!(pool.available(), pool.size());
    }
}

/// A process that has port `wan` open, or tries to.
struct Holder {
    child: Child,
    output: BufReader<ChildStdout>,
    log: BufReader<ChildStderr>,
}

impl Holder {
    fn start() -> Self {
        let mut command = crate::command("open_and_wait");
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, output, log }
    }

    fn wait_until_open(&mut self) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line, "open\n");
    }

    fn wait_for_log(&mut self, text: &str) {
        let mut lines = self.log.by_ref().lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains(text)), "{text} was not logged");
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

pub fn af_xdp_reopens_after_an_end_and_a_kill() {
    veth("a0", "a1", 1);
    for _ in 0..2 {
        let mut holder = Holder::start();
        holder.wait_until_open();
        holder.end();
        let mut holder = Holder::start();
        holder.wait_until_open();
        holder.kill();
    }
}

/// A new gateway starts while the interface still belongs to the old one, which ends meanwhile.
pub fn af_xdp_waits_for_the_former_owner() {
    veth("a0", "a1", 1);
    let mut former = Holder::start();
    former.wait_until_open();
    let mut next = Holder::start();
    next.wait_for_log("trying again");
    former.kill();
    next.wait_until_open();

    let mut third = Holder::start();
    third.wait_for_log("another process");
    assert!(!third.child.wait().unwrap().success());
    next.end();
}

/// Opens a port, says so, and keeps it until it is killed or its input ends.
pub fn open_and_wait() {
    let ports = [port("wan", "net_af_xdp0,iface=a0")];
    let (_eal, pool) = lab::eal(&ports, 1);
    let opened = open(&ports, 1, &pool);
    println!("open");
    let _ = std::io::stdin().read_line(&mut String::new());
    drop(opened);
}

pub fn tap_receives_sends_and_checks() {
    let ports = [port("tap", "net_tap0,iface=fgports0")];
    let (_eal, pool) = lab::eal(&ports, 1);
    let (tap, mut queues) = open(&ports, 1, &pool).pop().unwrap();
    let queue = &mut queues[0];
    assert_eq!(tap.driver(), "net_tap");
    assert_eq!(tap.mac().to_string(), lab::mac("fgports0"));
    assert!(tap.offloads().contains(&"rx_udp_checksum"), "{:?}", tap.offloads());

    let mut kernel = Peer::on("fgports0");
    let good = lab::udp(1, 100);
    let mut bad_payload = good.clone();
    *bad_payload.last_mut().unwrap() ^= 1;
    let mut bad_header = good.clone();
    bad_header[22] ^= 1;
    [&good, &bad_payload, &bad_header].into_iter().for_each(|frame| kernel.send(frame));
    let frames = receive(queue, 3);
    assert_eq!(contents(&frames), [good.clone(), bad_payload, bad_header]);
    let checksums: Vec<_> = frames.iter().map(|frame| (frame.ipv4_checksum(), frame.l4_checksum())).collect();
    assert_eq!(checksums[0], (ChecksumStatus::Good, ChecksumStatus::Good));
    assert_eq!(checksums[1], (ChecksumStatus::Good, ChecksumStatus::Bad));
    assert_eq!(checksums[2].0, ChecksumStatus::Bad);
    transmit(queue, frames);
    kernel.wait_for(&[good]);

    assert_eq!(tap.mtu().unwrap(), 1500);
    assert_eq!(tap.set_mtu(1400).unwrap(), 1400);
    assert!(tap.stats().unwrap().rx_errors < 3);
}

/// The MTU that counts is the kernel interface's, whatever the driver noted.
pub fn mtus_are_the_kernels() {
    veth("a0", "a1", 1);
    veth("b0", "b1", 1);
    lab::run("ip link set a0 mtu 1400");
    let mut ports = [port("wan", "net_af_xdp0,iface=a0"), port("lan", "net_af_packet0,iface=b0")];
    ports[1].mtu = Some(1300);
    let (_eal, pool) = lab::eal(&ports, 1);
    let opened = open(&ports, 1, &pool);
    let mtus = || opened.iter().map(|(port, _)| port.mtu().unwrap()).collect::<Vec<_>>();
    assert_eq!(mtus(), [1400, 1300]);
    assert_eq!(opened[0].0.set_mtu(1450).unwrap(), 1450);
    assert_eq!(mtus(), [lab::mtu("a0"), lab::mtu("b0")]);
}

pub fn pcap_to_null() {
    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().join("in.pcap");
    let sent = flows(50);
    lab::write_capture(&capture, &sent);
    let mut ports = [
        port("wan", &format!("net_pcap0,rx_pcap={},infinite_rx=1", capture.display())),
        port("lan", "net_null0,no-rx=1"),
    ];
    ports[0].mtu = Some(1600);
    let (_eal, pool) = lab::eal(&ports, 1);
    let mut opened = open(&ports, 1, &pool);
    let (lan, mut lan_queues) = opened.pop().unwrap();
    let (wan, mut wan_queues) = opened.pop().unwrap();
    assert_eq!((wan.driver(), lan.driver()), ("net_pcap", "net_null"));
    assert_eq!(wan.set_mtu(1600).unwrap(), wan.mtu().unwrap());

    let mut total = 0;
    let mut burst = Vec::with_capacity(BURST_SIZE);
    wait_until("10,000 frames", || {
        let count = wan_queues[0].receive(&mut burst);
        assert_eq!(count, burst.len());
        for frame in &burst {
            assert_eq!(frame.bytes(), sent[total % sent.len()]);
            total += 1;
        }
        assert_eq!(lan_queues[0].transmit(&mut burst), count);
        assert!(burst.is_empty());
        total >= 10_000
    });
    assert_eq!(lan_queues[0].receive(&mut burst), 0);
    assert_eq!(lab::xstat(&lan, "tx_good_packets"), u64::try_from(total).unwrap());
}

pub fn pcap_queues_are_dealt() {
    let folder = tempfile::tempdir().unwrap();
    let captures = [folder.path().join("first.pcap"), folder.path().join("second.pcap")];
    let halves = [flows(10), flows(20).split_off(10)];
    captures.iter().zip(&halves).for_each(|(path, frames)| lab::write_capture(path, frames));
    let [first, second] = captures.map(|path| path.display().to_string());
    let device = format!("net_pcap0,rx_pcap={first},rx_pcap={second}");
    let ports = [port("wan", &device)];
    let (_eal, pool) = lab::eal(&ports, 2);
    for workers in [2, 1] {
        let (wan, mut queues) = open(&ports, workers, &pool).pop().unwrap();
        assert_eq!(wan.rx_queues(), 2);
        assert_eq!(queues.len(), usize::from(workers));
        let received: Vec<_> =
            queues.iter_mut().map(|queue| contents(&receive(queue, 20 / usize::from(workers)))).collect();
        if workers == 2 {
            assert_eq!(received, halves, "each worker has one capture");
        } else {
            assert_eq!(received, [halves.concat()], "the one worker has both");
        }
    }
}

/// A packet of three buffers: read whole, cut anywhere, changed at its front.
fn in_several_buffers(pool: &MemPool) {
    let room = usize::from(pool.room());
    let packet: Vec<u8> = (0..2 * room + 100).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let whole = |frame: &Mbuf| {
        let mut bytes = Vec::new();
        frame.copy_to(&mut bytes);
        assert_eq!(bytes.len(), frame.packet_len());
        bytes
    };
    for len in [2 * room + 99, 2 * room + 1, 2 * room, room + 1, room, 60, 0] {
        let mut frame = pool.copy_from(&packet).unwrap();
        assert_eq!((frame.bytes(), frame.packet_len()), (&packet[..room], packet.len()));
        assert_eq!(whole(&frame), packet);
        assert!(!frame.truncate(packet.len() + 1));
        assert!(frame.truncate(len));
        assert_eq!((whole(&frame), frame.bytes().len()), (packet[..len].to_vec(), len.min(room)));
        assert!(frame.prepend(4) && frame.trim_front(4.min(frame.bytes().len())));
        assert_eq!(whole(&frame), packet[..len]);
        assert!(!frame.trim_front(room + 1), "more than the first buffer has");
    }
}

pub fn buffers() {
    let ports = [port("wan", "net_null0")];
    let (_eal, pool) = lab::eal(&ports, 1);
    assert_eq!(size_of::<Option<Mbuf>>(), size_of::<usize>());
    let packet = lab::udp(3, 200);
    let mut frame = pool.copy_from(&packet).unwrap();
    assert_eq!((frame.bytes(), frame.packet_len()), (&packet[..], packet.len()));
    assert!(frame.prepend(8));
    frame.bytes_mut()[..8].fill(0xee);
    assert_eq!(frame.bytes(), [&[0xee; 8], &packet[..]].concat());
    assert!(!frame.prepend(1000), "the headroom is 128 bytes");
    assert!(!frame.truncate(packet.len() + 9));
    assert!(frame.truncate(20));
    assert_eq!((frame.packet_len(), frame.bytes().len()), (20, 20));
    drop(frame);
    assert!(pool.copy_from(&vec![0; usize::from(pool.room())]).is_some());
    in_several_buffers(&pool);
    assert_eq!(pool.available(), pool.size(), "each buffer is back");

    let mut all: Vec<Mbuf> = std::iter::from_fn(|| pool.copy_from(&packet)).collect();
    assert_eq!(all.len(), pool.size() as usize);
    let theirs = all.split_off(all.len() / 2);
    let shared = pool.clone();
    let other = std::thread::spawn(move || {
        let _registered = register_current_thread().unwrap();
        let mut theirs = theirs;
        free_all(&mut theirs);
        assert!(theirs.is_empty());
        shared.copy_from(&[1, 2, 3]).unwrap()
    });
    let frame = other.join().unwrap();
    assert_eq!(frame.bytes(), [1, 2, 3]);
    free_all(&mut all);
    drop(frame);
    assert_eq!(pool.available(), pool.size());
}

pub fn hugepages_are_used_and_given_back() {
    let _reserved = Hugepages::reserve(64);
    let free = lab::hugepages("free_hugepages");
    assert!(crate::command("use_hugepages").status().unwrap().success());
    assert_eq!(lab::hugepages("free_hugepages"), free);
}

/// Takes its buffers from hugepages.
pub fn use_hugepages() {
    let free = lab::hugepages("free_hugepages");
    let ports = [port("wan", "net_null0")];
    let dpdk = DpdkConfig::default();
    let eal = Eal::init(&dpdk, &ports, &lab::workers(1)).unwrap();
    let pool = MemPool::create(&eal, &dpdk, &ports, 1, 0).unwrap();
    let mut opened = open(&ports, 1, &pool);
    assert!(!receive_any(&mut opened[0].1[0]).is_empty());
    assert!(lab::hugepages("free_hugepages") + 8 < free, "the pool lies in ordinary memory");
}

/// A burst of whatever comes.
fn receive_any(queue: &mut Queue) -> Vec<Mbuf> {
    let mut burst = Vec::with_capacity(BURST_SIZE);
    queue.receive(&mut burst);
    burst
}

pub fn process_is_left_as_it_was() {
    let affinity = rustix::thread::sched_getaffinity(None).unwrap();
    assert_eq!(clock::now_nanoseconds(), 0);
    let ports = [port("wan", "net_null0")];
    let (eal, pool) = lab::eal(&ports, 1);
    let (start, from) = (Instant::now(), clock::now_nanoseconds());
    assert_eq!(rustix::thread::sched_getaffinity(None).unwrap(), affinity);
    let folder = format!("/run/dpdk/fullgate-{}", std::process::id());
    let mut last = from;
    while start.elapsed() < Duration::from_millis(200) {
        let now = clock::now_nanoseconds();
        assert!(now >= last);
        last = now;
    }
    let (elapsed, wall) = (last - from, 200_000_000);
    assert!(elapsed.abs_diff(wall) < wall / 20, "{elapsed} ns instead of {wall}");
    let opened = Port::open(&ports[0], PortId(0), 1, &pool, &key()).unwrap();
    drop((opened, eal));
    assert!(std::path::Path::new(&folder).exists(), "the pool keeps the EAL up");
    drop(pool);
    assert!(!std::path::Path::new(&folder).exists(), "{folder} is left behind");
}
