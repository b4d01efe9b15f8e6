//! The performance harness runs: right captures, sessions that come up, figures that fit each other. How fast is no
//! matter here: the binary may be a debug build, and others use the machine.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A short run without hugepages and testpmd.
fn run(case: &str, sessions: u32) -> Value {
    run_with(case, sessions, &[])
}

fn run_with(case: &str, sessions: u32, more: &[&str]) -> Value {
    let output = Command::new(root().join("perf/run"))
        .args(["--case", case, "--sessions", &sessions.to_string(), "--seconds", "0.3", "--rounds", "1", "--json"])
        .args(more)
        .args(["--no-huge", "--without-testpmd", "--binary", env!("CARGO_BIN_EXE_fullgate")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn udp_sessions_are_forwarded_without_a_drop() {
    let result = run("fullnat-udp", 64);
    assert_eq!((&result["case"], &result["protocol"]), (&"fullnat-udp".into(), &"udp".into()));
    assert_eq!(result["sessions_live"], 64);
    assert_eq!((&result["drop_ratio"], &result["new_sessions_per_second"]), (&0.0.into(), &0.into()));
    assert!(result["mpps"].as_f64().unwrap() > 0.0, "{result}");
    assert!(result["ns_per_packet"].as_f64().unwrap() > 0.0, "{result}");
    assert!(result["testpmd_macswap_ns"].is_null() && result["over_macswap_ns"].is_null());
}

#[test]
fn every_answer_belongs_to_a_session() {
    for case in ["fullnat-udp-both", "fullnat-udp-replies"] {
        let result = run(case, 64);
        assert_eq!((&result["sessions_live"], &result["drop_ratio"]), (&64.into(), &0.0.into()), "{result}");
    }
}

#[test]
fn each_of_two_workers_gets_its_own_flows() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        return;
    }
    let result = run("fullnat-udp-two-workers", 64);
    assert_eq!((&result["workers"], &result["sessions_live"]), (&2.into(), &64.into()));
    assert_eq!((&result["handovers_per_second"], &result["drop_ratio"]), (&0.into(), &0.0.into()), "{result}");
    assert!(result["scaling"].as_f64().unwrap() > 0.0 && result["one_worker_mpps"].as_f64().unwrap() > 0.0);
}

#[test]
fn sessions_spread_over_services_that_are_loaded_meanwhile() {
    let result = run_with("fullnat-udp-10k-services", 256, &["--services", "100"]);
    assert_eq!((&result["services"], &result["sessions_live"]), (&100.into(), &256.into()));
    assert_eq!((&result["drop_ratio"], &result["drop_ratio_while_loading"]), (&0.0.into(), &0.0.into()), "{result}");
    assert!(result["load_seconds"].as_f64().unwrap() > 0.0 && result["over_one_service_percent"].is_number());
}

#[test]
fn many_sessions_come_and_go_while_others_are_forwarded() {
    let result = run("fullnat-udp-16m", 20_000);
    assert_eq!((&result["sessions_most"], &result["sessions_after"]), (&21_024.into(), &1024.into()), "{result}");
    for phase in ["full", "expiring", "after"] {
        assert!(result[format!("mpps_while_{phase}")].as_f64().unwrap() > 0.0, "{phase}: {result}");
    }
}

#[test]
fn tcp_sessions_are_established_or_come_anew() {
    // That the sessions are ESTABLISHED is checked by perf/run itself.
    assert_eq!(run("fullnat-tcp-established", 64)["sessions_live"], 64);
    assert_eq!(run("fullnat-tcp-syn", 64)["sessions_live"], 64);
    let result = run("fullnat-tcp-new", 64);
    assert!(result["new_sessions_per_second"].as_f64().unwrap() > 0.0, "{result}");
}

#[test]
fn stalls_are_found_and_a_spinner_stands_beside_them() {
    let result = run("stalls", 1000);
    assert_eq!((&result["case"], &result["timeout_seconds"]), (&"stalls".into(), &1.into()));
    let figure = |value: &Value| value.as_f64().unwrap();
    assert!(figure(&result["worst_poll_gap_us"]) >= figure(&result["worst_own_us"]), "{result}");
    assert!(figure(&result["new_sessions_per_second"]) > 0.0, "{result}");
    assert!(result["histogram_us"]["burst_times"].as_object().is_some_and(|buckets| !buckets.is_empty()), "{result}");
    assert!(figure(&result["reference"]["before"]["turns"]) > 0.0, "{result}");
}

#[test]
fn the_search_finds_the_rate_at_which_loss_begins() {
    // Loses a tenth above rate 6.25.
    let generator = "echo sent 1000; awk 'BEGIN { print \"received\", ({rate} > 6.25) ? 900 : 1000 }'";
    let output = Command::new(root().join("perf/rfc2544"))
        .args(["--most", "10", "--seconds", "1", "--sent", r"sent (\d+)", "--received", r"received (\d+)"])
        .args(["--", "sh", "-c", generator])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rate = found["rate"].as_f64().unwrap();
    assert!((6.15..=6.25).contains(&rate), "{rate}");
}
