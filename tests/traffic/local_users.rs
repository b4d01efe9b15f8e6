//! Who may use the gateway's sockets, and what those do to others who send nonsense, too much, or nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use crate::lab::{Configuration, Gateway, Lab, PATIENCE, wait_for};

/// Nobody's numbers.
const USER: u32 = 60_001;
const OWN_GROUP: u32 = 60_001;
/// `nogroup`, which every Debian has.
const GROUP: u32 = 65_534;

const STATUS: &str = "{\"version\":1,\"command\":\"status\"}\n";

/// Does something on a thread that is another user.
fn as_user<T: Send>(group: u32, groups: &[u32], work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let groups: Vec<_> = groups.iter().map(|&group| Gid::from_raw(group)).collect();
            set_thread_groups(&groups).unwrap();
            set_thread_gid(Gid::from_raw(group)).unwrap();
            set_thread_uid(Uid::from_raw(USER)).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

/// A gateway whose directory others can look into.
fn gateway(control: &str) -> (Lab, Gateway) {
    let lab = Lab::two_arm(0, 1);
    std::fs::set_permissions(lab.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut configuration = Configuration::two_arm();
    configuration.control = control.into();
    let gateway = Gateway::start(&lab, &configuration);
    (lab, gateway)
}

fn ipvs_socket(gateway: &Gateway) -> PathBuf {
    gateway.socket().with_file_name("control.ipvs.sock")
}

/// What a line is answered with, on a connection of its own.
fn ask(socket: &Path, line: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer)
}

/// A connection as the preloaded library makes it.
fn dial(socket: &Path) -> Result<OwnedFd, Errno> {
    let connection = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
    set_socket_timeout(&connection, Timeout::Recv, Some(PATIENCE))?;
    set_socket_timeout(&connection, Timeout::Send, Some(PATIENCE))?;
    rustix::net::connect(&connection, &SocketAddrUnix::new(socket)?)?;
    Ok(connection)
}

fn send(connection: &OwnedFd, datagram: &[u8]) -> Result<usize, Errno> {
    rustix::net::send(connection, datagram, SendFlags::NOSIGNAL)
}

fn receive(connection: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 1 << 17];
    let length = rustix::net::recv(connection, &mut buffer, RecvFlags::empty())?.0;
    buffer.truncate(length);
    Ok(buffer)
}

/// A netlink message of the family IPVS, whose number is the gateway's choice.
fn message(command: u8, flags: u16) -> Vec<u8> {
    let family = fullgate::ipvs::netlink::FAMILY;
    let head = [&20_u32.to_ne_bytes()[..], &family.to_ne_bytes(), &flags.to_ne_bytes(), &7_u32.to_ne_bytes(), &[0; 4]];
    [&head.concat()[..], &[command, 1, 0, 0]].concat()
}

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const FLUSH: u8 = 17;
const GET_INFO: u8 = 15;

/// The error number that a datagram tells, 0: none; panics if it is no `NLMSG_ERROR`.
fn told(answer: &[u8]) -> i32 {
    assert_eq!(answer[4..6], 2_u16.to_ne_bytes(), "{answer:?}");
    -i32::from_ne_bytes(answer[16..20].try_into().unwrap())
}

/// Whether it can read from and change by the one socket, and by the other.
fn use_both(gateway: &Gateway) -> [bool; 2] {
    let control = ask(&gateway.socket(), STATUS);
    if let Err(error) = &control {
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    }
    let ipvs = dial(&ipvs_socket(gateway)).map(|connection| {
        send(&connection, &message(GET_INFO, REQUEST)).unwrap();
        assert!(receive(&connection).unwrap().len() > 20, "an answer with versions");
        send(&connection, &message(FLUSH, REQUEST | ACKNOWLEDGE)).unwrap();
        assert_eq!(told(&receive(&connection).unwrap()), 0);
    });
    assert!(ipvs.is_ok() || ipvs == Err(Errno::ACCESS), "{ipvs:?}");
    [control.is_ok_and(|answer| answer.contains("\"ok\"")), ipvs.is_ok()]
}

#[test]
fn root_and_members_of_the_group_may_all_and_others_nothing() {
    let (lab, gateway) = gateway("metrics = false\ngroup = \"nogroup\"");
    for socket in [gateway.socket(), ipvs_socket(&gateway)] {
        let found = std::fs::metadata(&socket).unwrap();
        assert_eq!((found.mode() & 0o777, found.uid(), found.gid()), (0o660, 0, GROUP), "{}", socket.display());
    }
    assert_eq!(use_both(&gateway), [true; 2], "root");
    assert_eq!(as_user(GROUP, &[], || use_both(&gateway)), [true; 2], "one whose group it is");
    assert_eq!(as_user(OWN_GROUP, &[GROUP], || use_both(&gateway)), [true; 2], "one who is in it, too");
    gateway.command("service add -t 10.0.0.100:80 -s rr");
    let state = lab.path().join("state/services.json");
    wait_for("the state to be written", PATIENCE, || state.exists().then_some(()));
    let (controls, reads) = as_user(OWN_GROUP, &[], || (use_both(&gateway), std::fs::read(&state)));
    assert_eq!(
        (controls, reads.unwrap_err().kind()),
        ([false; 2], std::io::ErrorKind::PermissionDenied),
        "another one"
    );
    assert_eq!(gateway.stats().services.len(), 1, "who may not flush did not");
}

#[test]
fn without_a_group_only_root_may() {
    let (_lab, gateway) = gateway("metrics = false");
    assert_eq!(use_both(&gateway), [true; 2]);
    assert_eq!(as_user(GROUP, &[OWN_GROUP], || use_both(&gateway)), [false; 2]);
}

const GET_FAMILY: [u8; 28] = *b"\x1c\0\0\0\x10\0\x01\0\x07\0\0\0\0\0\0\0\x03\x02\0\0\x06\0\x01\0\xf0\x03\0\0";

/// What somebody is told who may connect and nothing else.
fn is_turned_away(gateway: &Gateway) {
    let answer = ask(&gateway.socket(), STATUS).unwrap();
    let words =
        format!("uid {USER}, pid {}, may not use this gateway: allowed: root, and members of ", std::process::id());
    assert!(answer.contains("\"kind\":\"permission\"") && answer.contains(&words), "{answer}");
    let connection = dial(&ipvs_socket(gateway)).unwrap();
    send(&connection, &GET_FAMILY).unwrap();
    assert!(
        receive(&connection).unwrap().windows(4).any(|name| name == b"IPVS"),
        "the family is there, as in the kernel"
    );
    for command in [GET_INFO, FLUSH] {
        send(&connection, &message(command, REQUEST | ACKNOWLEDGE)).unwrap();
        assert_eq!(told(&receive(&connection).unwrap()), 1, "EPERM");
    }
    for question in [&b"FGFILE01/proc/net/ip_vs"[..], b"FGOPTN01\x81\x04\0\0\0\0\0\0\x08\0\0\0"] {
        let connection = dial(&ipvs_socket(gateway)).unwrap();
        send(&connection, question).unwrap();
        assert_eq!(receive(&connection).unwrap(), [1, 0, 0, 0, 0, 0, 0, 0], "EPERM");
    }
}

#[test]
fn a_laxer_mode_lets_nobody_else_in() {
    let (lab, gateway) = gateway("metrics = \"127.0.0.1:9469\"\ngroup = \"nogroup\"");
    gateway.command("service add -t 10.0.0.100:80 -s rr");
    for socket in [gateway.socket(), ipvs_socket(&gateway)] {
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    }
    as_user(OWN_GROUP, &[], || is_turned_away(&gateway));
    // An unmodified tool says what it says of a kernel that refuses, and ends.
    let other = format!("setpriv --reuid={USER} --regid={OWN_GROUP} --clear-groups");
    let output = gateway.exec(&lab.gateway, &format!("{other} ipvsadm -L -n")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("Permission denied (you must be root)"), "{said}");
    let mut own = lab.gateway.command("setpriv");
    own.args(other.split(' ').skip(1)).args([crate::lab::gateway::FULLGATE, "service", "list", "--socket"]);
    let output = own.arg(gateway.socket()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("may not use this gateway: allowed: root"), "{said}");
    assert_eq!(gateway.stats().services.len(), 1);

    let metrics = gateway.metrics(&lab);
    let turned_away =
        |socket, reason| metrics[&format!("fullgate_socket_refusals_total{{socket=\"{socket}\",reason=\"{reason}\"}}")];
    assert_eq!((turned_away("control", "credentials"), turned_away("control", "memory")), (2.0, 0.0));
    assert!(turned_away("ipvs", "credentials") >= 4.0, "{metrics:?}");

    // Strangers take nobody's place.
    let socket = gateway.socket();
    let held = as_user(OWN_GROUP, &[], || {
        let controls = (0..400).filter_map(|_| UnixStream::connect(&socket).ok()).collect::<Vec<_>>();
        (controls, (0..400).filter_map(|_| dial(&ipvs_socket(&gateway)).ok()).collect::<Vec<_>>())
    });
    assert_eq!((held.0.len(), held.1.len()), (400, 400));
    answers_at_once(&gateway);
    assert_eq!(as_user(GROUP, &[], || use_both(&gateway)), [true; 2]);
}

#[test]
fn the_log_says_who_changed_what_and_sums_a_bulk_up() {
    let (lab, gateway) = gateway("metrics = false\ngroup = \"nogroup\"");
    let pid = std::process::id();
    let add = "{\"version\":1,\"command\":\"service.add\",\"service\":{\"vip\":\"10.0.0.100:80\",\"protocol\":\"tcp\",\"scheduler\":\"rr\",\"mode\":\"nat\",\"local_pool\":\"\",\"real_server\":[]}}\n";
    let answer = as_user(GROUP, &[], || ask(&gateway.socket(), add)).unwrap();
    assert!(answer.contains("\"ok\""), "{answer}");
    let log = gateway.log();
    let line =
        log.lines().find(|line| line.contains("service tcp 10.0.0.100:80: added")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains(&format!("uid {USER}, pid {pid}")) && line.contains("INFO"), "{line}");
    gateway.ipvsadm(&lab.gateway, "-Z");
    assert!(gateway.log().contains("counters set to zero"), "{}", gateway.log());

    let rules: String = (0..3_000).map(|port| format!("-A -t 10.0.0.101:{} -s rr\n", port + 1)).collect();
    gateway.ipvsadm_restore(&lab.gateway, &rules);
    let summed = wait_for("the rest to be summed up", PATIENCE, || {
        let log = gateway.log();
        let count =
            |line: &str| line.split(" more changes, by uid 0, pid ").next()?.rsplit(' ').next()?.parse::<usize>().ok();
        let lines = log.lines().filter(|line| line.contains("service tcp 10.0.0.101:")).count();
        let sums = log.lines().filter(|line| line.contains(" more changes, by uid 0, pid "));
        let sum = sums.map(|line| count(line).unwrap()).sum::<usize>();
        (lines + sum == 3_000).then_some((lines, sum))
    });
    assert!(summed.0 < 3_000 / 2, "{summed:?}");
}

/// Descriptors that the daemon has open.
fn descriptors(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count()
}

/// Megabytes of memory that the daemon has of its own.
fn megabytes(gateway: &Gateway) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Both interfaces answer at once, whatever others do.
fn answers_at_once(gateway: &Gateway) {
    let asked = Instant::now();
    assert!(ask(&gateway.socket(), STATUS).unwrap().contains("\"ok\""));
    let connection = dial(&ipvs_socket(gateway)).unwrap();
    send(&connection, &message(GET_INFO, REQUEST)).unwrap();
    assert!(receive(&connection).unwrap().len() > 20);
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

/// Runs `abuse` between two looks at the daemon, which must be as it was.
fn undisturbed(gateway: &Gateway, abuse: impl FnOnce()) {
    answers_at_once(gateway);
    let (before, memory) = (descriptors(gateway), megabytes(gateway));
    abuse();
    answers_at_once(gateway);
    wait_for("the daemon to close what is closed", PATIENCE, || (descriptors(gateway) <= before).then_some(()));
    let grown = megabytes(gateway).saturating_sub(memory);
    assert!(grown < 200, "{grown} MB more");
}

#[test]
fn nonsense_on_the_control_socket_disturbs_nobody() {
    let (_lab, gateway) = gateway("metrics = false");
    let refused = |line: &str, words: &str| {
        let answer = ask(&gateway.socket(), line).unwrap();
        assert!(answer.contains("\"error\"") && answer.contains(words), "{line:.80}: {answer}");
    };
    undisturbed(&gateway, || {
        refused("\n", "no JSON object");
        refused("\u{1b}[2J\u{7f}garbage\n", "no JSON object");
        refused("{\"version\":1,\"command\":\"service.del\",\"service\":\n", "no JSON object");
        refused(&format!("{}\n", "[".repeat(100_000)), "no JSON object");
        // Half a message, and then the end, or nothing for as long as the others take.
        drop(UnixStream::connect(gateway.socket()).unwrap().write_all(b"{\"version\":1,\"comm"));
        let mut halves: Vec<_> = (0..100).map(|_| UnixStream::connect(gateway.socket()).unwrap()).collect();
        halves.iter_mut().for_each(|half| half.write_all(b"{\"version\":1,").unwrap());
        answers_at_once(&gateway);
        for half in &mut halves {
            half.write_all(b"\"command\":\"status\"}\n").unwrap();
            let mut answer = [0; 12];
            half.read_exact(&mut answer).unwrap();
        }
    });
    undisturbed(&gateway, || {
        let mut stream = UnixStream::connect(gateway.socket()).unwrap();
        let part = vec![b'x'; 1 << 20];
        let sent = (0..80).take_while(|_| stream.write_all(&part).is_ok()).count();
        assert!(sent < 80, "a line without end is cut off");
        let mut answer = String::new();
        // The daemon may have gone before all that was sent was read.
        let _ = stream.read_to_string(&mut answer);
    });
    undisturbed(&gateway, || {
        // Long lines without an end: they have the memory that there is for such, and everybody else goes on.
        let part = vec![b' '; 1 << 20];
        let mut full = 0;
        let mut lines = Vec::new();
        for _ in 0..8 {
            let mut stream = UnixStream::connect(gateway.socket()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            if (0..40).any(|_| stream.write_all(&part).is_err()) {
                let mut answer = String::new();
                BufReader::new(&stream).read_line(&mut answer).unwrap();
                assert!(answer.contains("\"limit\"") && answer.contains("there is no memory for a line"), "{answer}");
                full += 1;
            }
            lines.push(stream);
            answers_at_once(&gateway);
        }
        assert_eq!(full, 4, "four of the longest lines fit");
        // A line that was there before is finished as it would have been.
        let mut answer = String::new();
        lines[0].write_all(STATUS.as_bytes()).unwrap();
        BufReader::new(&lines[0]).read_line(&mut answer).unwrap();
        assert!(answer.contains("\"ok\""), "{answer}");
        drop(lines);
        let long = format!("{}{STATUS}", " ".repeat(40 << 20));
        wait_for("memory for another", PATIENCE, || {
            ask(&gateway.socket(), &long).ok()?.contains("\"ok\"").then_some(())
        });
    });
    undisturbed(&gateway, || {
        // Requests without end, and not one answer read.
        let mut stream = UnixStream::connect(gateway.socket()).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        let sent = (0..10_000).take_while(|_| stream.write_all(STATUS.repeat(100).as_bytes()).is_ok()).count();
        assert!(sent < 10_000, "the daemon reads no more than it answers");
        answers_at_once(&gateway);
    });
}

#[test]
fn floods_of_connections_are_bounded_and_told_so() {
    const MOST: usize = 256;
    let (_lab, gateway) = gateway("metrics = false");
    undisturbed(&gateway, || {
        let idle: Vec<_> = (0..MOST + 20).map(|_| UnixStream::connect(gateway.socket()).unwrap()).collect();
        let answer = ask(&gateway.socket(), "").unwrap();
        assert!(answer.contains("256 control connections are open"), "{answer}");
        // The one that IPVS's tools have is as it was.
        drop(dial(&ipvs_socket(&gateway)).unwrap());
        drop(idle);
        wait_for("room for a connection", PATIENCE, || {
            ask(&gateway.socket(), STATUS).ok()?.contains("\"ok\"").then_some(())
        });
    });
    undisturbed(&gateway, || {
        let socket = ipvs_socket(&gateway);
        let idle: Vec<_> = (0..MOST + 20).map(|_| dial(&socket).unwrap()).collect();
        let connection = dial(&socket).unwrap();
        let _ = send(&connection, &message(GET_INFO, REQUEST));
        let answer = receive(&connection);
        assert!(answer.as_ref().is_ok_and(Vec::is_empty) || answer == Err(Errno::CONNRESET), "{answer:?}");
        assert!(gateway.log().contains("256 connections of IPVS tools are open"), "{}", gateway.log());
        assert!(ask(&gateway.socket(), STATUS).unwrap().contains("\"ok\""), "the control socket is as it was");
        drop(idle);
        wait_for("room for a connection", PATIENCE, || {
            let connection = dial(&socket).ok()?;
            send(&connection, &message(GET_INFO, REQUEST)).ok()?;
            (receive(&connection).ok()?.len() > 20).then_some(())
        });
    });
    undisturbed(&gateway, || {
        // One after the other, as fast as can be, beside those who want something.
        for round in 0..5_000 {
            drop(UnixStream::connect(gateway.socket()));
            drop(dial(&ipvs_socket(&gateway)));
            if round % 500 == 0 {
                answers_at_once(&gateway);
            }
        }
    });
}

#[test]
fn nonsense_from_ipvs_tools_disturbs_nobody() {
    let (_lab, gateway) = gateway("metrics = false");
    gateway.command("service add -t 10.0.0.100:80 -s rr");
    let socket = ipvs_socket(&gateway);
    undisturbed(&gateway, || {
        let connection = dial(&socket).unwrap();
        let info = message(GET_INFO, REQUEST | ACKNOWLEDGE);
        // Cut short, and of a length that is not its own: ignored, as the kernel does.
        for cut in 1..info.len() {
            send(&connection, &info[..cut]).unwrap();
        }
        let long = [&u32::MAX.to_ne_bytes()[..], &info[4..]].concat();
        send(&connection, &long).unwrap();
        // A command that there is not, and attributes of other lengths than they say.
        send(&connection, &message(99, REQUEST)).unwrap();
        assert_ne!(told(&receive(&connection).unwrap()), 0);
        let mut broken = message(1, REQUEST);
        broken.extend([200, 0, 1, 0, 9, 9, 9, 9]);
        broken[0] = u8::try_from(broken.len()).unwrap();
        send(&connection, &broken).unwrap();
        assert_eq!(told(&receive(&connection).unwrap()), 22);
        // Larger than any tool's: refused by the kernel, or cut off.
        let _ = send(&connection, &vec![0xff; 150 << 10]);
        drop(connection);
        // Files and options that are not IPVS's.
        for (question, number) in [
            (&b"FGFILE01/etc/shadow"[..], 2),
            (&b"FGFILE01/proc/net/ip_vs/../../1/environ"[..], 2),
            (&b"FGFILE01"[..], 2),
            (&b"FGOPTN01"[..], 22),
            (&b"FGOPTN01\x82\x04\0\0\0\0\0\0\xff\xff\xff\xff"[..], 22),
            (&b"FGOPTN01\x82\x04\0\0\x01\0\0\0\xff\xff\xff\xff"[..], 22),
        ] {
            let connection = dial(&socket).unwrap();
            send(&connection, question).unwrap();
            let answer = receive(&connection).unwrap();
            let told = i32::from_ne_bytes(answer[..4].try_into().unwrap());
            assert_eq!(told, number, "{question:?}");
        }
    });
    undisturbed(&gateway, || {
        // Questions without end, and not one answer read.
        let connection = dial(&socket).unwrap();
        set_socket_timeout(&connection, Timeout::Send, Some(Duration::from_secs(1))).unwrap();
        let dump = message(4, REQUEST | 0x300);
        let sent = (0..100_000).take_while(|_| send(&connection, &dump).is_ok()).count();
        assert!(sent < 100_000, "the daemon reads no more than it answers");
        answers_at_once(&gateway);
    });
    assert_eq!(gateway.stats().services.len(), 1);
}

/// Who waited in vain was told that nothing was done.
#[test]
fn what_a_client_left_unanswered_is_not_done() {
    let (_lab, gateway) = gateway("metrics = false");
    gateway.command("service add -t 10.0.0.100:80 -s rr");
    gateway.signal(rustix::process::Signal::STOP);
    for _ in 0..3 {
        let connection = dial(&ipvs_socket(&gateway)).unwrap();
        send(&connection, &message(FLUSH, REQUEST | ACKNOWLEDGE)).unwrap();
    }
    gateway.signal(rustix::process::Signal::CONT);
    answers_at_once(&gateway);
    assert_eq!(gateway.stats().services.len(), 1);
}
