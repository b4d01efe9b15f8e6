//! Slow start: the weight of a real server that was added, or that comes back from weight 0, rises to what is configured over
//! some time, so that it is not given all new sessions at once (least-connection schedulers would) while its caches are cold.
//!
//! Pure: the time is told. What rises is only what workers' tables say; the configured weight is kept, listed and saved as it is.

use std::time::Duration;

use super::model::{Model, RealServerEntry, ServiceEntry};
use crate::balance::Weight;

impl Model {
    /// Tells the time since the gateway's start, for what is done next. Until it is told first, real servers are there from the
    /// beginning and start at once.
    pub fn set_time(&mut self, now: Duration) {
        self.time = Some(now);
    }

    /// Lets weights rise to where they are now. Says whether any has become another.
    pub fn warm_up(&mut self, now: Duration) -> bool {
        self.set_time(now);
        let changed =
            self.services.values_mut().map(|service| service.warm_up(now)).filter(|&changed| changed).count() > 0;
        let mut entries = self.services.values().flat_map(|service| &service.real_servers);
        self.warming = entries.any(|entry| entry.warms_since.is_some());
        changed
    }

    /// Whether the weight of any real server may be yet to rise. (A flag: changes must not cost more the more services there are.)
    pub fn is_warming(&self) -> bool {
        self.warming
    }
}

impl ServiceEntry {
    /// Also after its settings have changed.
    pub(super) fn warm_up(&mut self, now: Duration) -> bool {
        let slow_start = self.settings.slow_start;
        self.real_servers.iter_mut().map(|entry| entry.warm_up(slow_start, now)).filter(|&changed| changed).count() > 0
    }
}

impl RealServerEntry {
    /// It was added, or comes back from weight 0.
    pub(super) fn begin(&mut self, slow_start_seconds: u32, now: Option<Duration>) {
        self.warms_since = now.filter(|_| slow_start_seconds > 0);
        self.weight_now = self.config.weight;
        self.warm_up(slow_start_seconds, now.unwrap_or_default());
    }

    /// Lets its weight rise to where it is now. Says whether it has become another.
    pub(super) fn warm_up(&mut self, slow_start_seconds: u32, now: Duration) -> bool {
        let before = self.weight_now;
        let elapsed = self.warms_since.map(|since| now.saturating_sub(since));
        self.weight_now = match elapsed {
            Some(elapsed) => warmed(self.config.weight, Duration::from_secs(slow_start_seconds.into()), elapsed),
            None => self.config.weight,
        };
        if self.weight_now == self.config.weight {
            self.warms_since = None;
        }
        self.weight_now != before
    }
}

/// A weight after so much of its time: from 1 on in a straight line.
fn warmed(weight: Weight, slow_start: Duration, elapsed: Duration) -> Weight {
    if elapsed >= slow_start {
        return weight;
    }
    let risen = u128::from(weight.0) * elapsed.as_millis() / slow_start.as_millis().max(1);
    Weight(u32::try_from(risen).unwrap_or(weight.0).max(1).min(weight.0))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::balance::Timeouts;
    use crate::config::{BalanceConfig, BalanceScope};
    use crate::control::protocol::Request;
    use crate::telemetry::counters::SlotLimits;

    /// A service with slow start of 100 seconds and one real server of weight 50, there from the beginning.
    fn model() -> Model {
        let balance: BalanceConfig = serde_json::from_value(json!({
            "local_pool": [{"name": "lan", "port": "lan", "addresses": ["10.1.0.200"], "ports": "1024-65535"}],
            "service": [{"vip": "10.0.0.100:80", "protocol": "tcp", "scheduler": "wrr", "mode": "fullnat",
                         "local_pool": "lan", "slow_start": 100,
                         "real_server": [{"address": "10.1.0.11:80", "weight": 50}]}],
        }))
        .unwrap();
        let scope = BalanceScope { ports: vec!["lan".to_owned()], own_addresses: vec![], workers: 1 };
        Model::new(scope, Vec::new(), SlotLimits { real_servers: 8, local_addresses: 8 }, &balance).unwrap()
    }

    fn ask(model: &mut Model, request: Value) {
        let mut request = request;
        request["service"] = json!({"vip": "10.0.0.100:80", "protocol": "tcp"});
        let request: Request = serde_json::from_value(request).unwrap();
        let changes = model.plan(&request).unwrap().unwrap();
        model.commit(changes);
    }

    /// The weights that workers get, in the order added.
    fn weights(model: &mut Model) -> Vec<u32> {
        let table = model.compile(Timeouts::default());
        table.services[0].real_servers.iter().rev().map(|server| server.weight.0).collect()
    }

    fn at(model: &mut Model, seconds: u64) -> Vec<u32> {
        model.warm_up(Duration::from_secs(seconds));
        weights(model)
    }

    #[test]
    fn a_weight_rises_from_1_in_a_straight_line() {
        let weight = |seconds| warmed(Weight(50), Duration::from_secs(100), Duration::from_secs(seconds)).0;
        assert_eq!([0, 1, 2, 4, 50, 99, 100, 1000].map(weight), [1, 1, 1, 2, 25, 49, 50, 50]);
        assert_eq!(warmed(Weight(0), Duration::from_secs(100), Duration::ZERO), Weight(0));
    }

    #[test]
    fn who_is_added_or_comes_back_starts_slowly_and_who_was_there_does_not() {
        let mut model = model();
        assert_eq!((weights(&mut model), model.is_warming()), (vec![50], false));
        model.set_time(Duration::from_secs(1000));
        let new = json!({"address": "10.1.0.12:80", "weight": 20});
        ask(&mut model, json!({"command": "real.add", "real_server": new}));
        assert_eq!((weights(&mut model), model.is_warming()), (vec![50, 1], true));
        assert_eq!(at(&mut model, 1050), [50, 10]);
        assert!(!model.warm_up(Duration::from_secs(1050)), "nothing new");
        let set =
            |address: &str, weight| json!({"command": "real.edit", "address": address, "set": {"weight": weight}});
        ask(&mut model, set("10.1.0.12:80", 40));
        assert_eq!(at(&mut model, 1050), [50, 20], "another weight on the way");
        assert_eq!((at(&mut model, 1100), model.is_warming()), (vec![50, 40], false));
        ask(&mut model, set("10.1.0.12:80", 10));
        assert_eq!(weights(&mut model), [50, 10], "who is warm is so at once");

        ask(&mut model, set("10.1.0.11:80", 0));
        assert_eq!(weights(&mut model), [0, 10]);
        ask(&mut model, set("10.1.0.11:80", 50));
        assert_eq!(weights(&mut model), [1, 10]);
        assert_eq!(at(&mut model, 1120), [10, 10]);
        assert_eq!(model.to_config().services[0].real_servers[0].weight, Weight(50), "what is configured stays");
        ask(&mut model, json!({"command": "service.edit", "slow_start": 0}));
        assert_eq!(weights(&mut model), [50, 10]);
        assert!(!model.warm_up(Duration::from_secs(1121)) && !model.is_warming());
    }

    #[test]
    fn a_scheduler_to_which_weights_are_not_shares_is_refused() {
        let model = model();
        let request = json!({"command": "service.edit", "service": {"vip": "10.0.0.100:80", "protocol": "tcp"}, "scheduler": "sh"});
        let refused = model.plan(&serde_json::from_value(request).unwrap()).unwrap().unwrap_err();
        assert_eq!(
            refused.message,
            "service tcp 10.0.0.100:80: slow_start: scheduler sh gives no shares that could rise with a weight; allowed: 0, \
             or scheduler wrr, wlc, sed, nq, lblc, lblcr, twos"
        );
    }
}
