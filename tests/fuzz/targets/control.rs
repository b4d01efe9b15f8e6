//! Requests on the control socket: any line is a request or is refused, and what requests change stays within the rules.

use std::sync::{Arc, OnceLock};

use fullgate::balance::Timeouts;
use fullgate::config::{BalanceConfig, BalanceScope};
use fullgate::control::line::{parse_reply, parse_request, reply_line, request_line};
use fullgate::control::model::Model;
use fullgate::telemetry::counters::{SlotLimits, WorkerCounters};

const LIMITS: SlotLimits = SlotLimits { real_servers: 16, local_addresses: 16 };
/// Lines of an input that count.
const LINES: usize = 16;

/// The input is lines, each a request to one gateway, or a reply.
pub fn run(input: &[u8]) {
    let mut model = None;
    for line in input.split(|&byte| byte == b'\n').take(LINES) {
        if let Ok(outcome) = parse_reply(line) {
            let again = reply_line(&outcome).unwrap();
            assert_eq!(parse_reply(again.as_bytes()).unwrap(), outcome);
        }
        let Ok(request) = parse_request(line) else { continue };
        let again = request_line(&request).unwrap();
        assert_eq!(parse_request(again.as_bytes()).unwrap(), request);
        let model = model.get_or_insert_with(empty);
        let Some(Ok(changes)) = model.plan(&request) else { continue };
        model.commit(changes);
        let table = model.compile(Timeouts::default());
        assert_eq!(table.services.len(), table.by_key.len());
        check(model, table.generation);
    }
}

fn empty() -> Model {
    Model::new(scope().clone(), vec![counters().clone()], LIMITS, &BalanceConfig::default()).unwrap()
}

/// What the model holds is what a configuration may say, and nothing is left to do about it.
fn check(model: &mut Model, generation: u64) {
    let held = model.to_config();
    assert_eq!(held.validate_kept(scope()), Ok(()), "against the rules");
    assert!(model.plan_kept(&held).unwrap().is_empty(), "not what it says that it is");
    // The only worker has adopted the table, and has no session.
    model.reclaim(generation);
    assert!(!model.has_departed(), "held for nobody");
}

fn scope() -> &'static BalanceScope {
    static SCOPE: OnceLock<BalanceScope> = OnceLock::new();
    SCOPE.get_or_init(|| BalanceScope {
        ports: vec!["wan".into(), "lan".into()],
        own_addresses: vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        workers: 2,
    })
}

/// Nothing counts in these.
fn counters() -> &'static Arc<WorkerCounters> {
    static COUNTERS: OnceLock<Arc<WorkerCounters>> = OnceLock::new();
    COUNTERS.get_or_init(|| Arc::new(WorkerCounters::new(LIMITS)))
}
