//! Times of all packets, and their quantiles. All in nanoseconds until they are printed.

use serde_json::{Value, json};

use crate::packet::Packet;

/// Quantiles that are printed, in hundredths of a per cent.
const QUANTILES: [(&str, usize); 3] = [("p50", 5_000), ("p99", 9_900), ("p999", 9_990)];

/// What was found. Every packet is kept: an hour of 10,000 a second takes a gigabyte, and quantiles are exact.
#[derive(Debug, Default)]
pub struct Figures {
    /// How late packets were sent.
    pub sent_late: Vec<u64>,
    /// From when it was due until its echo was back.
    round_trip: Vec<u64>,
    /// From when it was sent until its echo was back.
    round_trip_from_sent: Vec<u64>,
    /// From when it was sent until it came to the echo.
    forth: Vec<u64>,
    /// From the echo until it was back.
    back: Vec<u64>,
}

impl Figures {
    /// A packet that came back.
    pub fn add(&mut self, packet: &Packet, arrived: u64) {
        self.round_trip.push(arrived.saturating_sub(packet.due));
        self.round_trip_from_sent.push(arrived.saturating_sub(packet.sent));
        self.forth.push(packet.echoed.saturating_sub(packet.sent));
        self.back.push(arrived.saturating_sub(packet.echoed));
    }

    /// The figures in microseconds; `sent` packets count.
    pub fn json(mut self, rate: u64, sent: u64) -> Value {
        let received = self.round_trip.len() as u64;
        json!({
            "rate": rate,
            "sent": sent,
            "received": received,
            "lost": sent.saturating_sub(received),
            "round_trip": quantiles(&mut self.round_trip),
            "round_trip_from_sent": quantiles(&mut self.round_trip_from_sent),
            "forth": quantiles(&mut self.forth),
            "back": quantiles(&mut self.back),
            "sent_late": quantiles(&mut self.sent_late),
        })
    }
}

/// Quantiles and the greatest, in microseconds; null where there is nothing.
fn quantiles(times: &mut [u64]) -> Value {
    times.sort_unstable();
    let Some(&last) = times.last() else { return Value::Null };
    let mut found = serde_json::Map::new();
    for (name, share) in QUANTILES {
        // The least time that so large a share of packets does not exceed.
        let rank = (times.len() * share).div_ceil(10_000).max(1);
        found.insert(name.to_owned(), microseconds(times[rank - 1]));
    }
    found.insert("max".to_owned(), microseconds(last));
    Value::Object(found)
}

#[allow(clippy::cast_precision_loss, reason = "times are far below 2^52 nanoseconds")]
fn microseconds(nanoseconds: u64) -> Value {
    json!(nanoseconds as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact() {
        let mut times: Vec<u64> = (1..=1000).rev().map(|n| n * 1000).collect();
        assert_eq!(quantiles(&mut times), json!({"p50": 500.0, "p99": 990.0, "p999": 999.0, "max": 1000.0}));
        assert_eq!(quantiles(&mut [7_500]), json!({"p50": 7.5, "p99": 7.5, "p999": 7.5, "max": 7.5}));
        assert_eq!(quantiles(&mut []), Value::Null);
    }

    #[test]
    fn a_packet_sent_late_counts_from_when_it_was_due() {
        let mut figures = Figures::default();
        figures.add(&Packet { number: 0, due: 1_000, sent: 5_000, echoed: 6_000 }, 9_000);
        let json = figures.json(10, 2);
        assert_eq!((&json["round_trip"]["max"], &json["round_trip_from_sent"]["max"]), (&json!(8.0), &json!(4.0)));
        assert_eq!((&json["forth"]["max"], &json["back"]["max"]), (&json!(1.0), &json!(3.0)));
        assert_eq!((&json["received"], &json["lost"]), (&json!(1), &json!(1)));
    }
}
