//! How long workers take, in Prometheus' text format. The recorder that writes the other metrics counts durations one
//! by one and knows whole numbers only; workers have counted theirs already, so they are written here as they are.

use std::fmt::{self, Write};

use super::histogram::Durations;
use crate::control::protocol::WorkerRow;

/// A metric's name and help, and where its durations stand.
type Metric = (&'static str, &'static str, fn(&WorkerRow) -> &Durations);

const HISTOGRAMS: &[Metric] = &[
    (
        "fullgate_worker_poll_gap_seconds",
        "Time between two polls of a worker's queues, sleep that was asked for left out.",
        |row| &row.poll_gaps,
    ),
    (
        "fullgate_worker_stall_seconds",
        "Of poll gaps above 20 microseconds, the part that the worker itself used, by its CPU time.",
        |row| &row.stalls,
    ),
    (
        "fullgate_worker_burst_seconds",
        "Time from the reception of a turn's packets until they are on their way.",
        |row| &row.burst_times,
    ),
];

/// Adds all of them to `text`.
pub(super) fn append(text: &mut String, workers: &[WorkerRow]) {
    for (name, help, durations) in HISTOGRAMS {
        // Writing to a string does not fail.
        let _ = histogram(text, name, help, workers, *durations);
    }
    let _ = preempted(text, workers);
}

fn preempted(text: &mut String, workers: &[WorkerRow]) -> fmt::Result {
    let name = "fullgate_worker_preempted_seconds_total";
    writeln!(text, "# HELP {name} Time that was taken from a worker in poll gaps above 20 microseconds.")?;
    writeln!(text, "# TYPE {name} counter")?;
    for row in workers {
        writeln!(text, "{name}{{worker=\"{}\"}} {}", row.worker, Seconds(row.preempted_nanoseconds))?;
    }
    writeln!(text)
}

fn histogram(
    text: &mut String,
    name: &str,
    help: &str,
    workers: &[WorkerRow],
    durations: fn(&WorkerRow) -> &Durations,
) -> fmt::Result {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram")?;
    for row in workers {
        let (worker, durations) = (row.worker, durations(row));
        let mut below = 0;
        for (upper, count) in durations.upper_nanoseconds.iter().zip(&durations.counts) {
            below += count;
            writeln!(text, "{name}_bucket{{worker=\"{worker}\",le=\"{}\"}} {below}", Seconds(*upper))?;
        }
        let count = durations.count();
        writeln!(text, "{name}_bucket{{worker=\"{worker}\",le=\"+Inf\"}} {count}")?;
        writeln!(text, "{name}_sum{{worker=\"{worker}\"}} {}", Seconds(durations.sum_nanoseconds))?;
        writeln!(text, "{name}_count{{worker=\"{worker}\"}} {count}")?;
    }
    writeln!(text)
}

/// Nanoseconds shown as seconds, to the last digit, so that the names of buckets never change.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::report::worker_rows;
    use crate::telemetry::counters::{SlotLimits, WorkerCounters};

    #[test]
    fn buckets_add_up_and_count_and_sum_are_those_of_all() {
        let counters = Arc::new(WorkerCounters::new(SlotLimits { real_servers: 0, local_addresses: 0 }));
        for nanoseconds in [100, 200, 49_152, 2_000_000_000] {
            counters.poll_gaps.record(nanoseconds);
        }
        counters.preempted_nanoseconds.add(1_950_000_000);
        let mut text = String::new();
        append(&mut text, &worker_rows(&[counters], &[1], crate::session::Capacity { ipv4: 1, ipv6: 1 }));
        let name = "fullgate_worker_poll_gap_seconds";
        for line in [
            format!("# TYPE {name} histogram"),
            format!("{name}_bucket{{worker=\"0\",le=\"0.000000128\"}} 1"),
            format!("{name}_bucket{{worker=\"0\",le=\"0.000000256\"}} 2"),
            format!("{name}_bucket{{worker=\"0\",le=\"0.000032768\"}} 2"),
            format!("{name}_bucket{{worker=\"0\",le=\"0.000049152\"}} 3"),
            format!("{name}_bucket{{worker=\"0\",le=\"0.016777216\"}} 3"),
            format!("{name}_bucket{{worker=\"0\",le=\"+Inf\"}} 4"),
            format!("{name}_sum{{worker=\"0\"}} 2.000049452"),
            format!("{name}_count{{worker=\"0\"}} 4"),
            "fullgate_worker_preempted_seconds_total{worker=\"0\"} 1.95".to_owned(),
            "fullgate_worker_burst_seconds_count{worker=\"0\"} 0".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    #[test]
    fn seconds_are_exact() {
        let shown = [0, 1, 128, 1_500_000_000, 60_000_000_000].map(|nanoseconds| Seconds(nanoseconds).to_string());
        assert_eq!(shown, ["0", "0.000000001", "0.000000128", "1.5", "60"]);
    }
}
