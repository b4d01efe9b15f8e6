//! The command line as a user or script meets it: the real program, against a daemon made of canned answers.

#![cfg(feature = "dpdk")]
// The whole crate is a test; clippy only sees the functions marked so.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use serde_json::{Value, json};
use tempfile::TempDir;

const GOOD: &str = r#"[worker]
cores = [1]
[[port]]
name = "wan"
device = "net_null0"
addresses = ["10.0.0.1/24"]
[[local_pool]]
name = "lan"
port = "wan"
addresses = ["10.0.0.200"]
[[service]]
vip = "10.0.0.100:80"
protocol = "tcp"
"#;

fn fullgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fullgate"));
    command.args(arguments).env_remove("FULLGATE_SOCKET").env_remove("RUST_LOG").env("COLUMNS", "100");
    command
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    finish(fullgate(arguments).output().unwrap())
}

fn finish(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A daemon that answers each line with the next of its answers and remembers the lines.
struct FakeDaemon {
    socket: PathBuf,
    thread: JoinHandle<Vec<Value>>,
    _directory: TempDir,
}

impl FakeDaemon {
    fn new(answers: Vec<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut requests = Vec::new();
            for answer in answers {
                let Some(line) = lines.next() else { break };
                requests.push(serde_json::from_str(&line.unwrap()).unwrap());
                // A client that has left is part of some tests.
                let _ = (&stream).write_all(answer.as_bytes());
            }
            requests
        });
        Self { socket, thread, _directory: directory }
    }

    fn ok(reply: Value) -> Self {
        Self::new(vec![line(&reply)])
    }

    /// What the command did, and what it had asked.
    fn run(self, arguments: &[&str]) -> (i32, String, String, Vec<Value>) {
        let (code, out, err) = finish(fullgate(arguments).env("FULLGATE_SOCKET", &self.socket).output().unwrap());
        (code, out, err, self.thread.join().unwrap())
    }
}

fn line(reply: &Value) -> String {
    format!("{}\n", json!({ "version": 1, "ok": reply }))
}

#[track_caller]
fn assert_request(arguments: &[&str], request: Value) {
    let daemon = FakeDaemon::ok(json!({ "changed": ["something changed"] }));
    let (code, out, err, requests) = daemon.run(arguments);
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
    assert_eq!(out, "something changed\n");
    assert_eq!(requests, [request], "{arguments:?}");
}

#[track_caller]
fn assert_table(arguments: &[&str], reply: Value, request: Value, table: &str) {
    let (code, out, err, requests) = FakeDaemon::ok(reply).run(arguments);
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
    assert_eq!(requests, [request]);
    assert_eq!(out, table, "\n{out}");
}

/// With --json, what is in the reply comes out as it is.
#[track_caller]
fn assert_json(arguments: &[&str], reply: Value) {
    let inner = reply.as_object().unwrap().values().next().unwrap().clone();
    let (code, out, err, _) = FakeDaemon::ok(reply).run(arguments);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), inner);
}

const COMMANDS: &[&str] = &[
    "run",
    "check",
    "apply",
    "service add",
    "service edit",
    "service del",
    "service list",
    "real add",
    "real edit",
    "real del",
    "real list",
    "local create",
    "local destroy",
    "local add",
    "local del",
    "local list",
    "snat add",
    "snat del",
    "snat list",
    "mark add",
    "mark del",
    "mark list",
    "session list",
    "session count",
    "port show",
    "worker show",
    "stats",
    "status",
    "sysctl",
    "completion",
    "man",
];

#[test]
fn ipvsadms_command_line_is_known_to_help_pages_and_completions() {
    let (code, out, err) = run(&["--help"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("  ipvsadm "), "{out}");
    let (code, out, _) = run(&["ipvsadm", "--help"]);
    assert_eq!(code, 0);
    let program = format!("{} ipvsadm", env!("CARGO_BIN_EXE_fullgate"));
    assert!(out.starts_with("ipvsadm v1.31 ") && out.contains(&format!("\n  {program} -R\n")), "{out}");
    let (_, out, _) = run(&["completion", "bash"]);
    assert!(out.contains("fullgate__ipvsadm") || out.contains("fullgate__subcmd__ipvsadm"), "no ipvsadm");
    assert!(out.contains("--persistent-conn") && out.contains("--add-laddr"));
    let directory = tempfile::tempdir().unwrap();
    let (code, ..) = run(&["man", directory.path().to_str().unwrap()]);
    let page = std::fs::read_to_string(directory.path().join("fullgate-ipvsadm.1")).unwrap();
    assert!(code == 0 && page.contains("sched\\-flags"), "{page}");
}

#[test]
fn ipvsadm_without_a_daemon_says_so() {
    let mut command = fullgate(&["ipvsadm", "-Ln"]);
    let (code, out, err) = finish(command.env("FULLGATE_SOCKET", "/nonexistent/control.sock").output().unwrap());
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.starts_with("Can't initialize ipvs: no daemon listens on /nonexistent/control.ipvs.sock"), "{err}");
}

#[test]
fn every_command_has_help_with_examples() {
    for command in COMMANDS.iter().chain(&["", "service", "real", "local", "session", "port", "worker"]) {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        let (code, out, err) = run(&arguments);
        assert_eq!((code, err.as_str()), (0, ""), "{command}");
        assert!(out.contains(&format!("Examples:\n  fullgate {command}").trim_end().to_owned()), "{command}: {out}");
        assert!(out.lines().all(|line| line.chars().count() <= 200), "{command}");
    }
}

#[test]
fn wrong_usage_is_2() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage: fullgate"),
        (&["servce"], "tip: a similar subcommand exists: 'service'"),
        (&["service"], "Usage: fullgate service"),
        (&["service", "add"], "<--tcp <VIP:PORTS>|--udp <VIP:PORTS>|--sctp <VIP:PORTS>|--fwmark <MARK[/ipv6]>>"),
        (&["service", "add", "-t", "10.0.0.1"], "\"10.0.0.1\" has no port; allowed: ADDRESS:PORT"),
        (&["service", "add", "-t", "10.0.0.1:90-80"], "has no port, and no range of ports, of 1-65535"),
        (&["service", "add", "-t", "::1"], "\"::1\" has no port; allowed: ADDRESS:PORT"),
        (&["service", "add", "-t", "10.0.0.1:80", "-u", "10.0.0.1:80"], "cannot be used with"),
        (
            &["service", "add", "-t", "10.0.0.1:80", "-s", "wwr"],
            "[possible values: rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, mh, fo, ovf, twos]",
        ),
        (
            &["service", "edit", "-t", "10.0.0.1:80"],
            "--scheduler <SCHEDULER>|--sched-flags [<FLAGS>...]|--mode <MODE>|--local-pool <POOL>",
        ),
        (
            &["service", "add", "-t", "10.0.0.1:80", "-b", "fallback"],
            "[possible values: sh-fallback, sh-port, mh-fallback, mh-port]",
        ),
        (&["real", "add", "-t", "10.0.0.1:80"], "--real-server <RIP[:PORT]>"),
        (&["real", "add", "-t", "10.0.0.1:80", "-r", "10.1.0.1", "-w", "65536"], "65536 is not in 0..=65535"),
        (&["real", "edit", "-t", "10.0.0.1:80", "-r", "10.1.0.1"], "--weight <WEIGHT>|--upper"),
        (&["local", "add", "lan"], "<A|A-B>..."),
        (&["local", "add", "lan", "10.0.0.9-10.0.0.1"], "ends before it begins"),
        (&["session", "list", "--limit", "0"], "--limit"),
        (&["session", "list", "--protocol", "dccp"], "[possible values: tcp, udp, sctp, icmp]"),
        (&["stats", "--watch", "0"], "allowed: 0.1 to 86400 seconds"),
        (&["stats", "--count", "1"], "--watch"),
        (&["sysctl", "sloppy_tcp=yes"], "\"yes\" is no whole number from 0 on"),
        (&["sysctl", "-a", "sloppy_tcp"], "cannot be used with"),
        (&["sysctl", "-w", "sloppy_tcp"], "sloppy_tcp: no value to set; allowed with -w: NAME=VALUE"),
        (&["sysctl", "sloppy_tcp=1", "sloppy_tcp=0"], "sloppy_tcp is given several values; allowed: one"),
        (&["sysctl", "-w"], "<NAME[=VALUE]>..."),
        (&["run"], "--config <FILE>"),
        (&["run", "--config", "x", "--log-format", "xml"], "[possible values: text, json]"),
    ];
    for (arguments, message) in cases {
        let (code, out, err) = run(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}");
        assert!(err.contains(message), "{arguments:?}: {err}");
    }
}

#[test]
fn no_daemon_is_3_and_says_where_and_how() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none.sock");
    let left_over = directory.path().join("left-over.sock");
    drop(UnixListener::bind(&left_over).unwrap());
    for (socket, kernel) in [
        (missing.as_path(), "No such file or directory (os error 2)"),
        (left_over.as_path(), "Connection refused (os error 111)"),
        (Path::new("/dev/null/x"), "Not a directory (os error 20)"),
    ] {
        let socket = socket.to_str().unwrap();
        for command in
            [&["status"][..], &["service", "list"], &["stats", "--watch"], &["local", "del", "a", "10.0.0.1"]]
        {
            let (code, out, err) = run(&[command, &["--socket", socket]].concat());
            assert_eq!((code, out.as_str()), (3, ""));
            assert_eq!(
                err,
                format!(
                    "fullgate: no daemon listens on {socket} ({kernel}): start one with `fullgate run --config FILE`, \
                     or name its socket with --socket or FULLGATE_SOCKET\n"
                )
            );
        }
    }
}

#[test]
fn the_socket_of_ipvs_tools_is_told_from_the_control_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.ipvs.sock");
    let of_tools = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&of_tools, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&of_tools, 1).unwrap();
    let (status, output, error) = run(&["status", "--socket", path.to_str().unwrap()]);
    assert_eq!((status, output.as_str()), (1, ""));
    assert!(error.contains("is the socket for IPVS's tools: the control socket is the one beside it"), "{error}");
}

#[test]
fn refusals_and_broken_daemons_are_1() {
    let refusal = json!({ "version": 1, "error": { "kind": "not_found", "message": "there is no service" } });
    let cases = [
        (format!("{refusal}\n"), "fullgate: there is no service\n"),
        ("{\"version\":9,\"ok\":{}}\n".to_owned(), "protocol version 9; this side speaks version 1"),
        ("{}\n".to_owned(), "no protocol version: \"version\":1 is wanted in every line"),
        ("HTTP/1.1 400\n".to_owned(), "the gateway's reply is not understood: expected value"),
        (line(&json!({ "workers": [] })), "answers something else than was asked"),
        ("{\"version\":1".to_owned(), "closed the connection without an answer"),
        (String::new(), "closed the connection without an answer"),
    ];
    for (answer, message) in cases {
        let (code, out, err, _) = FakeDaemon::new(vec![answer.clone()]).run(&["service", "del", "-t", "10.0.0.1:80"]);
        assert_eq!((code, out.as_str()), (1, ""), "{answer}");
        assert!(err.contains(message), "{answer}: {err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

#[test]
fn a_silent_daemon_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    // Connections wait in the backlog: nobody ever accepts.
    let _listener = UnixListener::bind(&socket).unwrap();
    let (code, _, err) = run(&["status", "--timeout", "0.2", "--socket", socket.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(err.contains("did not answer within 0.2 s"), "{err}");
}

#[test]
fn check_says_ok_or_each_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("f.toml");
    let name = file.to_str().unwrap();
    let check = |text: &[u8], more: &[&str]| {
        std::fs::write(&file, text).unwrap();
        run(&[&["check", "--config", name], more].concat())
    };
    let warning = "service tcp 10.0.0.100:80: no port has 10.0.0.100 among its addresses: \
                   right if keepalived or a routing daemon adds it";
    assert_eq!(check(GOOD.as_bytes(), &[]), (0, format!("{name}: ok\n"), format!("{name}: warning: {warning}\n")));

    let bad = GOOD.replace("cores = [1]", "coers = [1]").replace("\"tcp\"", "\"dccp\"");
    let (code, out, err) = check(bad.as_bytes(), &[]);
    assert_eq!((code, out.as_str()), (1, ""));
    let expected = [
        format!(
            "{name}:1: [worker].cores: missing; allowed: a list of CPU numbers, one worker on each, like [1] or [2, 3]"
        ),
        format!("{name}:2: [worker].coers: unknown key \"coers\"; did you mean \"cores\"?"),
        format!("{name}:13: service[0].protocol: \"dccp\" is not a protocol: allowed: tcp, udp, sctp"),
    ];
    assert_eq!(err.lines().collect::<Vec<_>>(), expected);

    let (code, out, err) = check(bad.as_bytes(), &["--json"]);
    assert_eq!((code, err.as_str()), (1, ""));
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&out["ok"], &out["file"]), (&json!(false), &json!(name)));
    assert_eq!(
        out["errors"][1],
        json!({ "line": 2, "key": "[worker].coers", "message": "unknown key \"coers\"; did you mean \"cores\"?" })
    );
    let (code, out, _) = check(GOOD.as_bytes(), &["--json"]);
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, out), (0, json!({ "file": name, "ok": true, "errors": [], "warnings": [warning] })));

    let (code, _, err) = check(b"[worker]\n\xff", &[]);
    assert_eq!((code, err), (1, format!("{name}:2: not UTF-8; allowed: TOML, which is UTF-8 text\n")));
    std::fs::remove_file(&file).unwrap();
    let missing = format!("{name}: cannot be read: No such file or directory (os error 2)\n");
    assert_eq!(run(&["check", "--config", name]), (1, String::new(), missing.clone()));
    assert_eq!(run(&["run", "--config", name]), (1, String::new(), missing.clone()));
    assert_eq!(run(&["apply", "--config", name]), (1, String::new(), missing));
}

#[test]
fn apply_sends_services_and_pools_only() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("f.toml");
    std::fs::write(&file, GOOD).unwrap();
    let arguments = ["apply", "--config", file.to_str().unwrap(), "--dry-run"];
    let daemon = FakeDaemon::ok(json!({ "changed": ["add service tcp 10.0.0.100:80"] }));
    let (code, out, err, requests) = daemon.run(&arguments);
    assert_eq!((code, out.as_str()), (0, "add service tcp 10.0.0.100:80\n"));
    assert_eq!(err, "dry run: nothing was changed\n");
    let pool = json!({ "name": "lan", "port": "wan", "addresses": ["10.0.0.200"], "ports": "1024-65535" });
    let service = json!({
        "vip": "10.0.0.100:80", "protocol": "tcp", "scheduler": "wlc", "mode": "fullnat", "local_pool": "lan",
        "real_server": [],
    });
    let balance = json!({ "local_pool": [pool], "service": [service] });
    assert_eq!(requests, [json!({ "version": 1, "command": "apply", "balance": balance, "dry_run": true })]);
}

#[test]
fn changes_are_requests() {
    let service = json!({ "vip": "10.0.0.100:80", "protocol": "tcp" });
    assert_request(
        &["service", "add", "-t", "10.0.0.100:80", "-s", "wrr", "--local-pool", "lan"],
        json!({ "version": 1, "command": "service.add", "service": {
            "vip": "10.0.0.100:80", "protocol": "tcp", "scheduler": "wrr", "mode": "fullnat", "local_pool": "lan",
            "real_server": [],
        }}),
    );
    assert_request(
        &[
            "service",
            "add",
            "-u",
            "10.0.0.100:53",
            "--mode",
            "dr",
            "-p",
            "-M",
            "255.255.255.0",
            "-o",
            "--max-connections",
            "7",
            "--slow-start",
            "60",
        ],
        json!({ "version": 1, "command": "service.add", "service": {
            "vip": "10.0.0.100:53", "protocol": "udp", "scheduler": "wlc", "mode": "dr", "local_pool": "",
            "persistence": 300, "persistence_prefix": 24, "one_packet": true, "max_connections": 7,
            "slow_start": 60, "real_server": [],
        }}),
    );
    assert_request(
        &["service", "edit", "-u", "10.0.0.100:53", "-p", "0", "-o", "false"],
        json!({ "version": 1, "command": "service.edit",
                "service": { "vip": "10.0.0.100:53", "protocol": "udp" },
                "local_pool": null, "mss_clamp": null, "scheduler": null, "scheduler_flags": null, "mode": null,
                "persistence": 0, "persistence_prefix": null, "one_packet": false, "max_connections": null, "slow_start": null }),
    );
    assert_request(
        &["service", "add", "-t", "10.0.0.100:8000-8099", "--mss-clamp", "mtu"],
        json!({ "version": 1, "command": "service.add", "service": {
            "vip": "10.0.0.100:8000-8099", "protocol": "tcp", "scheduler": "wlc", "mode": "fullnat", "local_pool": "",
            "mss_clamp": "mtu", "real_server": [],
        }}),
    );
    assert_request(
        &["service", "edit", "-t", "10.0.0.100:0", "--mss-clamp", "1300"],
        json!({ "version": 1, "command": "service.edit", "service": { "vip": "10.0.0.100:0", "protocol": "tcp" },
                "local_pool": null, "mss_clamp": 1300, "scheduler": null, "scheduler_flags": null, "mode": null,
                "persistence": null, "persistence_prefix": null, "one_packet": null, "max_connections": null, "slow_start": null }),
    );
    assert_request(
        &["real", "del", "-t", "10.0.0.100:0", "-r", "10.1.0.11"],
        json!({ "version": 1, "command": "real.del", "service": { "vip": "10.0.0.100:0", "protocol": "tcp" },
                "address": "10.1.0.11:0" }),
    );
    assert_request(
        &["service", "edit", "--udp", "10.0.0.100:53", "--scheduler", "lc"],
        json!({ "version": 1, "command": "service.edit", "service": { "vip": "10.0.0.100:53", "protocol": "udp" },
                "scheduler": "lc", "scheduler_flags": null, "mode": null, "local_pool": null, "mss_clamp": null,
                "persistence": null, "persistence_prefix": null, "one_packet": null, "max_connections": null, "slow_start": null }),
    );
    assert_request(
        &["service", "add", "-t", "10.0.0.100:80", "-s", "mh", "-b", "mh-port,mh-fallback"],
        json!({ "version": 1, "command": "service.add", "service": {
            "vip": "10.0.0.100:80", "protocol": "tcp", "scheduler": "mh", "scheduler_flags": ["mh-fallback", "mh-port"],
            "mode": "fullnat", "local_pool": "", "real_server": [],
        }}),
    );
    for (given, flags) in [(&["-b", "sh-port"][..], json!(["sh-port"])), (&["-b"], json!([]))] {
        assert_request(
            &[&["service", "edit", "-t", "10.0.0.100:80"], given].concat(),
            json!({ "version": 1, "command": "service.edit", "service": service, "scheduler": null,
                    "scheduler_flags": flags, "mode": null, "local_pool": null, "mss_clamp": null,
                "persistence": null, "persistence_prefix": null, "one_packet": null, "max_connections": null, "slow_start": null }),
        );
    }
    assert_request(
        &["service", "del", "--tcp-service", "10.0.0.100:80"],
        json!({ "version": 1, "command": "service.del", "service": service }),
    );
    assert_request(
        &["real", "add", "-t", "10.0.0.100:80", "-r", "10.1.0.11", "-w", "7", "-x", "9", "-y", "8"],
        json!({ "version": 1, "command": "real.add", "service": service,
                "real_server": { "address": "10.1.0.11:80", "weight": 7, "upper": 9, "lower": 8 } }),
    );
    assert_request(
        &["real", "edit", "-t", "10.0.0.100:80", "-r", "10.1.0.11:8080", "-w", "0"],
        json!({ "version": 1, "command": "real.edit", "service": service, "address": "10.1.0.11:8080",
                "set": { "mode": null, "tunnel": null, "weight": 0, "upper": null, "lower": null } }),
    );
    assert_request(
        &["real", "add", "-t", "10.0.0.100:80", "-r", "10.1.0.11", "-i", "--tun-type", "gue", "--tun-port", "6080"],
        json!({ "version": 1, "command": "real.add", "service": service,
                "real_server": { "address": "10.1.0.11:80", "mode": "tun",
                                 "tunnel": { "encapsulation": "gue", "port": 6080, "checksum": false },
                                 "weight": 1, "upper": 0, "lower": 0 } }),
    );
    assert_request(
        &["real", "edit", "-t", "10.0.0.100:80", "-r", "10.1.0.11", "-g"],
        json!({ "version": 1, "command": "real.edit", "service": service, "address": "10.1.0.11:80",
                "set": { "mode": "dr", "tunnel": null, "weight": null, "upper": null, "lower": null } }),
    );
    assert_request(
        &["real", "del", "-t", "10.0.0.100:80", "-r", "10.1.0.11"],
        json!({ "version": 1, "command": "real.del", "service": service, "address": "10.1.0.11:80" }),
    );
    assert_request(
        &["local", "add", "lan", "10.1.0.254-10.1.1.1", "10.1.0.7"],
        json!({ "version": 1, "command": "local.add", "pool": "lan",
                "addresses": ["10.1.0.254", "10.1.0.255", "10.1.1.0", "10.1.1.1", "10.1.0.7"] }),
    );
    assert_request(
        &["local", "create", "dmz", "--port", "lan", "--ports", "2000-2999", "10.1.0.7-10.1.0.8"],
        json!({ "version": 1, "command": "local.create",
                "pool": { "name": "dmz", "port": "lan", "addresses": ["10.1.0.7", "10.1.0.8"], "ports": "2000-2999" } }),
    );
    assert_request(
        &["local", "create", "dmz", "10.1.0.7", "--port", "lan"],
        json!({ "version": 1, "command": "local.create",
                "pool": { "name": "dmz", "port": "lan", "addresses": ["10.1.0.7"], "ports": "1024-65535" } }),
    );
    assert_request(&["local", "destroy", "dmz"], json!({ "version": 1, "command": "local.destroy", "pool": "dmz" }));
    assert_request(
        &["local", "del", "lan", "10.1.0.7"],
        json!({ "version": 1, "command": "local.del", "pool": "lan", "addresses": ["10.1.0.7"] }),
    );
    assert_request(
        &[
            "snat",
            "add",
            "web",
            "-s",
            "10.1.0.0/24",
            "--destination-port",
            "80",
            "--local-pool",
            "wan",
            "--before",
            "x",
        ],
        json!({ "version": 1, "command": "snat.add", "before": "x", "rule": {
            "name": "web", "source": "10.1.0.0/24", "destination_port": "80", "local_pool": "wan",
        }}),
    );
    assert_request(&["snat", "del", "web"], json!({ "version": 1, "command": "snat.del", "name": "web" }));
    assert_request(
        &["mark", "add", "web", "-f", "1", "-d", "10.0.0.100/32", "--protocol", "tcp"],
        json!({ "version": 1, "command": "mark.add", "before": null, "rule": {
            "name": "web", "fwmark": 1, "destination": "10.0.0.100/32", "protocol": "tcp",
        }}),
    );
    assert_request(&["mark", "del", "web"], json!({ "version": 1, "command": "mark.del", "name": "web" }));
    assert_request(
        &["service", "del", "-f", "7/ipv6"],
        json!({ "version": 1, "command": "service.del", "service": { "vip": "fwmark:7/ipv6", "protocol": "any" } }),
    );
    assert_json_change();
}

#[test]
fn mark_list() {
    let rules = json!([
        { "name": "web", "fwmark": 1, "destination": "10.0.0.100/32", "protocol": "tcp", "destination_port": "80" },
        { "name": "caches", "fwmark": 2, "port": "lan" },
    ]);
    assert_table(
        &["mark", "list"],
        json!({ "marks": rules }),
        json!({ "version": 1, "command": "mark.list" }),
        "\
Rule    FWMark  Source  Destination    Prot  DstPort  Port
web     1       any     10.0.0.100/32  TCP   80       any
caches  2       any     any            any   any      lan
",
    );
}

#[test]
fn snat_list() {
    let rows = json!([
        { "name": "web", "source": "10.1.0.0/24", "destination": "192.0.2.0/24", "protocol": "tcp",
          "destination_port": "80-81", "port": "lan", "local_pool": "wan", "active_connections": 3,
          "inactive_connections": 4, "traffic": traffic(7, 100, 5000) },
        { "name": "office", "source": "2001:db8:1::/64", "destination": null, "protocol": null,
          "destination_port": null, "port": null, "local_pool": "wan", "active_connections": 0,
          "inactive_connections": 0, "traffic": traffic(0, 0, 0) },
    ]);
    let request = json!({ "version": 1, "command": "snat.list" });
    assert_table(
        &["snat", "list"],
        json!({ "snat": rows }),
        request.clone(),
        "\
Rule    Source           Destination   Prot  DstPort  Port  LocalPool  ActiveConn  InActConn
web     10.1.0.0/24      192.0.2.0/24  TCP   80-81    lan   wan                 3          4
office  2001:db8:1::/64  any           any   any      any   wan                 0          0
",
    );
    assert_table(
        &["snat", "list", "--stats"],
        json!({ "snat": rows }),
        request,
        "\
Snat    Conns  InPkts  OutPkts  InBytes  OutBytes
web         7     100      200     5000     10000
office      0       0        0        0         0
",
    );
    assert_json(&["snat", "list", "--json"], json!({ "snat": rows }));
}

fn assert_json_change() {
    let daemon = FakeDaemon::ok(json!({ "changed": ["one", "two"] }));
    let (code, out, _, _) = daemon.run(&["service", "del", "-t", "10.0.0.1:80", "--json"]);
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()), (0, json!({ "changed": ["one", "two"] })));
}

fn traffic(connections: u64, packets: u64, bytes: u64) -> Value {
    json!({ "connections": connections, "in_packets": packets, "in_bytes": bytes,
            "out_packets": 2 * packets, "out_bytes": 2 * bytes })
}

fn services() -> Value {
    json!([
        { "vip": "10.0.0.100:80", "protocol": "tcp", "scheduler": "wrr", "mode": "fullnat", "local_pool": "lan",
          "traffic": traffic(30, 400, 50_000),
          "real_servers": [
            { "address": "10.1.0.11:80", "mode": "fullnat", "weight": 1, "upper": 0, "lower": 0, "active_connections": 3,
              "inactive_connections": 12_345, "persistent_connections": 0, "traffic": traffic(10, 100, 10_000) },
            { "address": "10.1.0.112:8080", "mode": "tun",
              "tunnel": { "encapsulation": "gue", "port": 6080, "checksum": true }, "weight": 65_535, "upper": 9, "lower": 8, "active_connections": 0,
              "inactive_connections": 0, "persistent_connections": 0, "traffic": traffic(20, 300, 40_000) },
          ] },
        { "vip": "10.0.0.100:53", "protocol": "udp", "scheduler": "sh", "scheduler_flags": ["sh-fallback", "sh-port"],
          "mode": "fullnat", "local_pool": "lan", "traffic": traffic(0, 0, 0), "real_servers": [] },
    ])
}

#[test]
fn a_weight_that_rises_is_shown_beside_what_it_rises_to() {
    let mut services = services();
    services[0]["slow_start"] = json!(60);
    services[0]["real_servers"][0]["weight"] = json!(100);
    services[0]["real_servers"][0]["effective_weight"] = json!(25);
    let (_, out, _, _) = FakeDaemon::ok(json!({ "services": services })).run(&["service", "list"]);
    assert!(out.contains("TCP  10.0.0.100:80 wrr lan slow-start 60\n"), "{out}");
    assert!(out.contains("  -> 10.1.0.11:80        fullnat  25 of 100           3      12345\n"), "{out}");
    let (_, out, _, _) = FakeDaemon::ok(json!({ "services": services })).run(&["real", "list"]);
    assert!(out.contains("25 of 100"), "{out}");
}

#[test]
fn service_list_reads_like_ipvsadm() {
    let all = json!({ "version": 1, "command": "service.list", "service": null });
    assert_table(
        &["service", "list"],
        json!({ "services": services() }),
        all.clone(),
        "\
Prot LocalAddress:Port Scheduler LocalPool
  -> RemoteAddress:Port  Forward  Weight  ActiveConn  InActConn
TCP  10.0.0.100:80 wrr lan
  -> 10.1.0.11:80        fullnat       1           3      12345
  -> 10.1.0.112:8080     tun       65535           0          0
UDP  10.0.0.100:53 sh lan (sh-fallback,sh-port)
",
    );
    let one =
        json!({ "version": 1, "command": "service.list", "service": { "vip": "10.0.0.100:80", "protocol": "tcp" } });
    assert_table(
        &["service", "list", "--stats", "-t", "10.0.0.100:80"],
        json!({ "services": services() }),
        one,
        "\
Prot LocalAddress:Port  Conns  InPkts  OutPkts  InBytes  OutBytes
  -> RemoteAddress:Port
TCP  10.0.0.100:80         30     400      800    50000    100000
  -> 10.1.0.11:80          10     100      200    10000     20000
  -> 10.1.0.112:8080       20     300      600    40000     80000
UDP  10.0.0.100:53          0       0        0        0         0
",
    );
    assert_table(&["real", "list"], json!({ "services": services() }), all, "\
Service            RealServer       Forward                     Weight  Upper  Lower  ActiveConn  InActConn  Conns  InPkts  OutPkts  InBytes  OutBytes
tcp 10.0.0.100:80  10.1.0.11:80     fullnat                          1      0      0           3      12345     10     100      200    10000     20000
tcp 10.0.0.100:80  10.1.0.112:8080  tun gue:6080 with checksum   65535      9      8           0          0     20     300      600    40000     80000
");
    assert_json(&["service", "list", "--json"], json!({ "services": services() }));

    let (_, out, _, _) = FakeDaemon::ok(json!({ "services": services() })).run(&["real", "list", "--json"]);
    let rows: Vec<Value> = serde_json::from_str(&out).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!((&rows[1]["vip"], &rows[1]["real_server"]["weight"]), (&json!("10.0.0.100:80"), &json!(65_535)));
}

#[test]
fn local_list() {
    let pools = json!([
        { "name": "lan", "port": "lan", "ports": "1024-65535", "addresses": [
            { "address": "10.1.0.200", "ports_used": 64_512, "withdrawn": false },
            { "address": "10.1.0.9", "ports_used": 1, "withdrawn": true },
        ] },
        { "name": "dmz", "port": "wan", "ports": "1-9", "addresses": [
            { "address": "10.2.0.1", "ports_used": 0, "withdrawn": false },
        ] },
    ]);
    let request = json!({ "version": 1, "command": "local.list" });
    assert_table(
        &["local", "list"],
        json!({ "local_pools": pools }),
        request.clone(),
        "\
Pool  Port  Ports       LocalAddress  PortsUsed  State
lan   lan   1024-65535  10.1.0.200        64512  active
lan   lan   1024-65535  10.1.0.9              1  withdrawn
dmz   wan   1-9         10.2.0.1              0  active
",
    );
    assert_table(
        &["local", "list", "dmz"],
        json!({ "local_pools": pools }),
        request,
        "\
Pool  Port  Ports  LocalAddress  PortsUsed  State
dmz   wan   1-9    10.2.0.1              0  active
",
    );
    assert_json(&["local", "list", "--json"], json!({ "local_pools": pools }));
    let without = json!([
        { "name": "lan", "port": "lan", "ports": "1024-65535", "addresses": [
            { "address": "10.1.0.9", "ports_used": 1, "withdrawn": true },
        ] },
        { "name": "gone", "port": "lan", "ports": "", "addresses": [
            { "address": "10.1.0.8", "ports_used": 2, "withdrawn": true },
        ] },
    ]);
    assert_table(
        &["local", "list"],
        json!({ "local_pools": without }),
        json!({ "version": 1, "command": "local.list" }),
        "\
Pool  Port  Ports       LocalAddress  PortsUsed  State
lan   lan   1024-65535  -                     -  no address: new sessions are dropped
lan   lan   1024-65535  10.1.0.9              1  withdrawn
gone  lan               10.1.0.8              2  withdrawn
",
    );
    let (code, _, err, _) = FakeDaemon::ok(json!({ "local_pools": pools })).run(&["local", "list", "wan"]);
    assert_eq!((code, err.as_str()), (1, "fullgate: there is no local pool \"wan\"; there are: lan, dmz\n"));
}

fn session(client: &str, expires_seconds: u32) -> Value {
    json!({ "protocol": "tcp", "client": client, "vip": "10.0.0.100:80", "mode": "fullnat",
            "local": "10.1.0.200:1024", "real_server": "10.1.0.11:80", "state": "ESTABLISHED", "expires_seconds": expires_seconds, "worker": 0 })
}

#[test]
fn sessions() {
    let rows = json!([session("192.0.2.7:40000", 899), session("192.0.2.123:5", 7)]);
    let filter =
        json!({ "protocol": "tcp", "client": "192.0.2.7", "vip": "10.0.0.100:0", "real_server": "10.1.0.11:80" });
    let arguments =
        ["session", "list", "--protocol", "tcp", "--client", "192.0.2.7", "--vip", "10.0.0.100", "-r", "10.1.0.11:80"];
    let request = json!({ "version": 1, "command": "session.list", "filter": filter, "limit": null });
    assert_table(
        &arguments,
        json!({ "sessions": rows }),
        request,
        "\
Prot  Client           Virtual        Forward  Local            RealServer    State        Expires  Worker
TCP   192.0.2.7:40000  10.0.0.100:80  fullnat  10.1.0.200:1024  10.1.0.11:80  ESTABLISHED    14:59       0
TCP   192.0.2.123:5    10.0.0.100:80  fullnat  10.1.0.200:1024  10.1.0.11:80  ESTABLISHED    00:07       0
",
    );
    assert_json(&["session", "list", "--json"], json!({ "sessions": rows }));
    let (code, _, err, requests) =
        FakeDaemon::ok(json!({ "sessions": rows })).run(&["session", "list", "--limit", "2"]);
    assert_eq!((code, err.as_str()), (0, "the first 2 only, by --limit; there may be more\n"));
    assert_eq!(requests[0]["limit"], json!(2));

    let count = json!({ "total": 12, "by_worker": [5, 7], "by_state": [["ESTABLISHED", 10], ["FIN_WAIT", 2]] });
    let none = json!({ "protocol": null, "client": null, "vip": null, "real_server": null });
    let request = json!({ "version": 1, "command": "session.count", "filter": none });
    assert_table(
        &["session", "count"],
        json!({ "session_count": count }),
        request,
        "\
Group              Sessions
total                    12
state ESTABLISHED        10
state FIN_WAIT            2
worker 0                  5
worker 1                  7
",
    );
    assert_json(&["session", "count", "--json"], json!({ "session_count": count }));
}

#[test]
fn templates_of_persistence() {
    let rows = json!([
        { "protocol": "tcp", "client": "192.0.2.0", "vip": "10.0.0.100:443", "mode": "fullnat", "real_server": "10.1.0.11:443",
          "connections": 3, "state": "ASSURED", "expires_seconds": 3600 },
        { "protocol": null, "client": "2001:db8::7", "vip": null, "mark": 7, "mode": "nat", "real_server": "[fd00::11]:0",
          "connections": 0, "state": "NONE", "expires_seconds": 59 },
    ]);
    let filter = json!({ "protocol": null, "client": null, "vip": null, "real_server": null });
    assert_table(
        &["session", "templates"],
        json!({ "templates": rows }),
        json!({ "version": 1, "command": "template.list", "filter": filter, "limit": null }),
        "\
Prot  Client       Virtual         Forward  RealServer     State    Sessions  Expires
TCP   192.0.2.0    10.0.0.100:443  fullnat  10.1.0.11:443  ASSURED         3    60:00
IP    2001:db8::7  mark 7          nat      [fd00::11]:0   NONE            0    00:59
",
    );
    assert_json(&["session", "templates", "--json"], json!({ "templates": rows }));
    let (_, _, err, requests) =
        FakeDaemon::ok(json!({ "templates": rows })).run(&["session", "templates", "--limit", "2"]);
    assert_eq!(err, "the first 2 only, by --limit; there may be more\n");
    assert_eq!(requests[0]["limit"], json!(2));
}

fn port(name: &str, packets: u64) -> Value {
    json!({ "name": name, "device": format!("net_af_xdp0,iface={name}"), "vlan": null, "parent": null, "members": [],
            "driver": "net_af_xdp", "tap": format!("fg-{name}"),
            "addresses": ["10.0.0.1/24", "2001:db8::1/64 (tentative)"],
            "mac": "02:00:00:00:00:01", "mtu": 1500, "link_up": true, "link_speed_mbps": 10_000, "rx_queues": 2,
            "tx_queues": 2, "steering": "software", "ownership": "software",
            "ownership_reason": "driver net_af_xdp has no RSS", "offloads": ["tx_ipv4_checksum"], "rx_packets": packets,
            "rx_bytes": 100 * packets, "tx_packets": 2 * packets, "tx_bytes": 200 * packets, "rx_missed": 1,
            "rx_errors": 2, "tx_errors": 3, "handovers": packets / 4, "xstats": [["rx_good_packets", packets]] })
}

fn worker(worker: u64, packets: u64, nanoseconds: u64) -> Value {
    json!({ "worker": worker, "core": worker + 2, "sessions": 5, "session_capacity": 1_048_576,
            "ipv6_sessions": 1, "ipv6_session_capacity": 131_072,
            "sessions_created": packets / 10, "sessions_expired": 1, "sessions_dropped": 12,
            "defence": ["drop_entry"], "rx_packets": packets, "tx_packets": packets,
            "bursts": packets / 8, "handovers": packets / 4, "handovers_received": 0,
            "busy_nanoseconds": nanoseconds / 4, "total_nanoseconds": nanoseconds,
            "poll_gaps": durations([900, 99, 1], 25_000), "stalls": durations([0, 0, 1], 24_500),
            "preempted_nanoseconds": 500, "burst_times": durations([0, 0, 0], 0) })
}

/// So many up to 128 ns, up to 192 ns and above.
fn durations(counts: [u64; 3], worst: u64) -> Value {
    json!({ "upper_nanoseconds": [128, 192], "counts": counts, "sum_nanoseconds": 1, "worst_nanoseconds": worst })
}

#[test]
fn ports_and_workers() {
    let ports = json!([port("wan", 1000), port("lan", 7)]);
    let request = json!({ "version": 1, "command": "port.show" });
    assert_table(
        &["port", "show"],
        json!({ "ports": ports }),
        request.clone(),
        "\
wan:
  device    net_af_xdp0,iface=wan
  driver    net_af_xdp
  tap       fg-wan
  addresses 10.0.0.1/24, 2001:db8::1/64 (tentative)
  mac       02:00:00:00:00:01
  mtu       1500
  link      up, 10000 Mbit/s
  queues    2 receive, 2 transmit
  steering  software
  ownership software: driver net_af_xdp has no RSS
  offloads  tx_ipv4_checksum
      packets   bytes  errors  missed
  rx     1000  100000       2       1
  tx     2000  200000       3

lan:
  device    net_af_xdp0,iface=lan
  driver    net_af_xdp
  tap       fg-lan
  addresses 10.0.0.1/24, 2001:db8::1/64 (tentative)
  mac       02:00:00:00:00:01
  mtu       1500
  link      up, 10000 Mbit/s
  queues    2 receive, 2 transmit
  steering  software
  ownership software: driver net_af_xdp has no RSS
  offloads  tx_ipv4_checksum
      packets  bytes  errors  missed
  rx        7    700       2       1
  tx       14   1400       3
",
    );
    assert_table(
        &["port", "show", "lan", "--xstats"],
        json!({ "ports": ports }),
        request,
        "\
lan:
  device    net_af_xdp0,iface=lan
  driver    net_af_xdp
  tap       fg-lan
  addresses 10.0.0.1/24, 2001:db8::1/64 (tentative)
  mac       02:00:00:00:00:01
  mtu       1500
  link      up, 10000 Mbit/s
  queues    2 receive, 2 transmit
  steering  software
  ownership software: driver net_af_xdp has no RSS
  offloads  tx_ipv4_checksum
      packets  bytes  errors  missed
  rx        7    700       2       1
  tx       14   1400       3
  xstat
  rx_good_packets  7
",
    );
    assert_json(&["port", "show", "--json"], json!({ "ports": ports }));
    let [mut bond, mut vlan] = [port("uplink", 1), port("wan", 1)];
    bond["members"] = json!([["net_tap0", true], ["0000:01:00.0", false]]);
    (vlan["vlan"], vlan["parent"]) = (json!(100), json!("uplink"));
    let (code, out, _, _) = FakeDaemon::ok(json!({ "ports": [bond, vlan] })).run(&["port", "show"]);
    assert_eq!(code, 0);
    for line in [
        "  member    net_tap0, link up\n",
        "  member    0000:01:00.0, link down\n",
        "  device    VLAN 100 of port uplink\n",
    ] {
        assert!(out.contains(line), "{line:?} in {out}");
    }
    let (code, _, err, _) = FakeDaemon::ok(json!({ "ports": ports })).run(&["port", "show", "dmz"]);
    assert_eq!((code, err.as_str()), (1, "fullgate: there is no port \"dmz\"; there are: wan, lan\n"));

    let workers = json!([worker(0, 1000, 4_000_000_000), worker(1, 0, 0)]);
    let request = json!({ "version": 1, "command": "worker.show" });
    assert_table(
        &["worker", "show"],
        json!({ "workers": workers }),
        request,
        "\
Worker  Core  Busy%  Sessions  Capacity  Created  Expired  Rx-packets  Tx-packets  Bursts  Handovers  Taken-over
     0     2   25.0         5   1048576      100        1        1000        1000     125        250           0
     1     3    0.0         5   1048576        0        1           0           0       0          0           0

Worker  Time/us   Count    p50    p99  p99.9  Worst
     0  poll gap   1000   0.13   0.20   0.20  25.00
     0  stall         1  24.50  24.50  24.50  24.50
     0  burst         0      -      -      -      -
     1  poll gap   1000   0.13   0.20   0.20  25.00
     1  stall         1  24.50  24.50  24.50  24.50
     1  burst         0      -      -      -      -
",
    );
    assert_json(&["worker", "show", "--json"], json!({ "workers": workers }));
}

/// All counters after so many packets and seconds.
fn stats(packets: u64, seconds: u64) -> Value {
    let nanoseconds = seconds * 1_000_000_000;
    let mut services = services();
    services[0]["traffic"] = traffic(packets / 100, packets, 100 * packets);
    json!({ "at_nanoseconds": nanoseconds, "ports": [port("wan", packets), port("lan", 2 * packets)],
            "workers": [worker(0, packets, nanoseconds)], "services": services,
            "drops": [["truncated", 0], ["no_route", packets / 2]], "punts": [["arp", 3], ["icmp", 0]],
            "resets_sent": 1, "icmp_errors_sent": 2, "injected": 3,
            "fragments": { "forwarded": 4, "created": 5, "waiting": 6, "datagrams_forgotten": 7 },
            "persistence": { "templates": 8, "capacity": 9, "missed_full": 10, "missed_busy": 11 } })
}

#[test]
fn stats_as_totals_and_rates() {
    let request = json!({ "version": 1, "command": "stats" });
    assert_table(
        &["stats"],
        json!({ "stats": stats(1000, 10) }),
        request.clone(),
        "\
Port  Link  Rx-packets  Rx-bytes  Tx-packets  Tx-bytes  Rx-missed  Rx-errors  Tx-errors  Handovers
wan   up          1000    100000        2000    200000          1          2          3        250
lan   up          2000    200000        4000    400000          1          2          3        500

Worker  Core  Busy%  Sessions  Capacity  Created  Expired  Rx-packets  Tx-packets  Bursts  Handovers  Taken-over
     0     2   25.0         5   1048576      100        1        1000        1000     125        250           0

Worker  Time/us   Count    p50    p99  p99.9  Worst
     0  poll gap   1000   0.13   0.20   0.20  25.00
     0  stall         1  24.50  24.50  24.50  24.50
     0  burst         0      -      -      -      -

Service            Conns  InPkts  OutPkts  InBytes  OutBytes
tcp 10.0.0.100:80     10    1000     2000   100000    200000
udp 10.0.0.100:53      0       0        0        0         0

Drop      Packets
no_route      500

Punt  Packets
arp         3

Other                  Total
resets_sent                1
icmp_errors_sent           2
injected                   3
fragments_forwarded        4
fragments_created          5
fragments_waiting          6
persistence_templates      8
persistence_missed        21
sessions_dropped          12
",
    );
    assert_json(&["stats", "--json"], json!({ "stats": stats(1000, 10) }));

    let samples =
        || [stats(1000, 10), stats(3000, 12), stats(3000, 13)].map(|stats| line(&json!({ "stats": stats }))).to_vec();
    let arguments = ["stats", "--watch", "0.1", "--count", "2"];
    let (code, out, err, requests) = FakeDaemon::new(samples()).run(&arguments);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(requests, [request.clone(), request.clone(), request]);
    assert_eq!(
        out,
        "\
==== at 12.0 s, over 2.0 s
Port  Link  Rx-pps  Rx-bit/s  Tx-pps  Tx-bit/s  Rx-missed/s  Rx-errors/s  Tx-errors/s  Handovers/s
wan   up      1000    800000    2000   1600000            0            0            0          250
lan   up      2000   1600000    4000   3200000            0            0            0          500

Worker  Core  Busy%  Rx-pps  Tx-pps  Pkts/burst  Handovers/s  Sessions  New/s
     0     2   25.0    1000    1000           8          250         5    100

Service            ActiveConn  Conns/s  In-pps  Out-pps  In-bit/s  Out-bit/s
tcp 10.0.0.100:80           3       10    1000     2000    800000    1600000
udp 10.0.0.100:53           0        0       0        0         0          0

Drop      Packets/s  Total
no_route        500   1500

Punt  Packets/s  Total
arp           0      3

==== at 13.0 s, over 1.0 s
Port  Link  Rx-pps  Rx-bit/s  Tx-pps  Tx-bit/s  Rx-missed/s  Rx-errors/s  Tx-errors/s  Handovers/s
wan   up         0         0       0         0            0            0            0            0
lan   up         0         0       0         0            0            0            0            0

Worker  Core  Busy%  Rx-pps  Tx-pps  Pkts/burst  Handovers/s  Sessions  New/s
     0     2   25.0       0       0           0            0         5      0

Service            ActiveConn  Conns/s  In-pps  Out-pps  In-bit/s  Out-bit/s
tcp 10.0.0.100:80           3        0       0        0         0          0
udp 10.0.0.100:53           0        0       0        0         0          0

Drop      Packets/s  Total
no_route          0   1500

Punt  Packets/s  Total
arp           0      3

",
        "\n{out}"
    );

    let (code, out, _, _) = FakeDaemon::new(samples()).run(&[&arguments[..], &["--json"]].concat());
    let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, rows.len()), (0, 2));
    assert_eq!(rows[0]["ports"][0]["rx_packets_per_second"], json!(1000));
    assert_eq!(rows[0]["ports"][1]["tx_bits_per_second"], json!(3_200_000));
    assert_eq!(rows[1]["services"][0]["connections_per_second"], json!(0));
    assert_eq!(rows[0]["drops"], json!([{ "name": "no_route", "per_second": 500, "total": 1500 }]));
}

#[test]
fn watching_ends_when_the_daemon_does() {
    let samples = vec![line(&json!({ "stats": stats(1, 1) })), line(&json!({ "stats": stats(2, 2) }))];
    let (code, out, err, _) = FakeDaemon::new(samples).run(&["stats", "--watch", "0.1"]);
    assert_eq!(code, 1);
    assert!(out.starts_with("==== at 2.0 s, over 1.0 s\n"), "{out}");
    assert!(err.contains("closed the connection without an answer"), "{err}");
}

#[test]
fn status() {
    let status = json!({ "version": "0.1.0", "dpdk": "DPDK 22.11.7", "pid": 42, "uptime_seconds": 3.5, "workers": 2,
                         "sessions": 10, "session_capacity": 2_097_152, "defence": ["drop_entry", "secure_tcp"] });
    let request = json!({ "version": 1, "command": "status" });
    assert_table(
        &["status"],
        json!({ "status": status }),
        request,
        "\
fullgate 0.1.0, DPDK 22.11.7, process 42
up        3.5 s
workers   2
sessions  10 of 2097152
defence   drop_entry, secure_tcp active
",
    );
    assert_json(&["status", "--json"], json!({ "status": status }));
}

fn sysctl_rows(rows: &[(&str, u32)]) -> Value {
    let row = |&(name, value): &(&str, u32)| json!({ "name": name, "value": value, "default": 0, "least": 0, "most": 3, "changed_at_run_time": value != 0 });
    json!({ "sysctls": rows.iter().map(row).collect::<Vec<_>>() })
}

#[test]
fn sysctls_are_shown_as_sysctl_does() {
    let two = sysctl_rows(&[("conn_reuse_mode", 3), ("sloppy_tcp", 0)]);
    let all = json!({ "version": 1, "command": "sysctl.list", "names": [] });
    let lines = "net.ipv4.vs.conn_reuse_mode = 3\nnet.ipv4.vs.sloppy_tcp = 0\n";
    assert_table(&["sysctl"], two.clone(), all.clone(), lines);
    assert_table(&["sysctl", "-a"], two.clone(), all.clone(), lines);
    assert_table(&["sysctl", "-an"], two.clone(), all, "3\n0\n");
    let named = json!({ "version": 1, "command": "sysctl.list", "names": ["net/ipv4/vs/sloppy_tcp"] });
    let one = sysctl_rows(&[("sloppy_tcp", 1)]);
    assert_table(&["sysctl", "net/ipv4/vs/sloppy_tcp"], one.clone(), named, "net.ipv4.vs.sloppy_tcp = 1\n");
    assert_json(&["sysctl", "--json"], two);
}

#[test]
fn sysctls_are_set_together_and_shown() {
    let changed = line(&json!({ "changed": ["sysctl sloppy_tcp: 0 -> 1"] }));
    let rows = line(&sysctl_rows(&[("sloppy_tcp", 1), ("conn_reuse_mode", 0)]));
    for arguments in [
        &["sysctl", "-w", "net.ipv4.vs.sloppy_tcp=1", "conn_reuse_mode=0"][..],
        &["sysctl", "net.ipv4.vs.sloppy_tcp=1", "conn_reuse_mode = 0"],
    ] {
        let (code, out, err, requests) = FakeDaemon::new(vec![changed.clone(), rows.clone()]).run(arguments);
        let lines = "net.ipv4.vs.sloppy_tcp = 1\nnet.ipv4.vs.conn_reuse_mode = 0\n";
        assert_eq!((code, out.as_str(), err.as_str()), (0, lines, ""));
        let set = json!({ "version": 1, "command": "sysctl.set", "values": { "sloppy_tcp": 1, "conn_reuse_mode": 0 } });
        let names = ["net.ipv4.vs.sloppy_tcp", "conn_reuse_mode"];
        assert_eq!(requests, [set, json!({ "version": 1, "command": "sysctl.list", "names": names })]);
    }
    let refusal = json!({ "version": 1, "error": { "kind": "invalid", "message": "sysctl sloppy_tcp: 2 is out of range; allowed: 0-1" } });
    let (code, out, err, _) = FakeDaemon::new(vec![format!("{refusal}\n")]).run(&["sysctl", "-w", "sloppy_tcp=2"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err, "fullgate: sysctl sloppy_tcp: 2 is out of range; allowed: 0-1\n");
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let rows: Vec<Value> = (0..20_000).map(|n| session(&format!("192.0.2.7:{}", n + 1), 7)).collect();
    for more in [&[][..], &["--json"]] {
        let daemon = FakeDaemon::ok(json!({ "sessions": rows }));
        let mut command = fullgate(&[&["session", "list"], more].concat());
        command.env("FULLGATE_SOCKET", &daemon.socket).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut first = String::new();
        // The reader takes one line and is dropped with the pipe, as `head -1` would.
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(!first.is_empty());
        let (code, _, err) = finish(child.wait_with_output().unwrap());
        assert_eq!((code, err.as_str()), (0, ""), "{more:?}");
    }
}

#[test]
fn completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, err) = run(&["completion", shell]);
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.contains("scheduler"), "{shell}");
    }
    let (code, page, _) = run(&["man"]);
    assert_eq!(code, 0);
    assert!(page.contains(".TH fullgate 1"), "{page}");
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man1");
    assert_eq!(run(&["man", pages.to_str().unwrap()]).0, 0);
    for command in COMMANDS {
        let page = std::fs::read_to_string(pages.join(format!("fullgate-{}.1", command.replace(' ', "-"))));
        assert!(page.unwrap().contains("Examples:"), "{command}");
    }
    let (code, _, err) = run(&["man", "/dev/null/x"]);
    assert_eq!((code, err.as_str()), (1, "fullgate: /dev/null/x: cannot be written: Not a directory (os error 20)\n"));
}

#[test]
fn a_bad_log_filter_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("f.toml");
    std::fs::write(&file, GOOD).unwrap();
    let mut command = fullgate(&["run", "--config", file.to_str().unwrap()]);
    let (code, out, err) = finish(command.env("RUST_LOG", "fullgate=loud").output().unwrap());
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with("fullgate: RUST_LOG: \"fullgate=loud\": "), "{err}");
}
