//! How requests and replies are written as lines, and read back: JSON with the protocol's version beside it.
//!
//! Errors say what is wrong in serde's words, with the nearest allowed word where one was misspelt. No input panics.

use serde::Serialize;
use serde_json::{Map, Value};

use super::protocol::{ErrorKind, Outcome, Refusal, Request, VERSION};

/// Objects, and values in all, that a line may have. A value takes many times the bytes of its text, and this is what the
/// largest configuration has, twice.
const MAX_OBJECTS: usize = 1 << 19;
const MAX_VALUES: usize = 1 << 22;
/// Shorter lines cannot have so many that it matters.
const UNCOUNTED: usize = 1 << 18;

/// The line of a request, without a newline.
pub fn request_line(request: &Request) -> serde_json::Result<String> {
    let mut object = serde_json::to_value(request)?;
    if let Value::Object(map) = &mut object {
        map.insert("version".to_owned(), VERSION.into());
    }
    serde_json::to_string(&object)
}

/// The request of a line.
///
/// Refuses with [`ErrorKind::Version`] another version, with [`ErrorKind::Invalid`] all else that is wrong.
pub fn parse_request(line: &[u8]) -> Result<Request, Refusal> {
    let invalid = |message: String| Refusal::new(ErrorKind::Invalid, message);
    check_size(line)?;
    let value: Value = serde_json::from_slice(line).map_err(|error| invalid(format!("no JSON object: {error}")))?;
    let Value::Object(mut object) = value else {
        return Err(invalid(
            "no JSON object: a request is one, like {\"version\":1,\"command\":\"status\"}".to_owned(),
        ));
    };
    check_version(object.remove("version"))?;
    serde_json::from_value(Value::Object(object)).map_err(|error| invalid(with_suggestion(&error.to_string())))
}

/// Refuses a line with more values than any honest one has, before they are made of it. (Signs in texts count, too.)
fn check_size(line: &[u8]) -> Result<(), Refusal> {
    if line.len() < UNCOUNTED {
        return Ok(());
    }
    let count = |signs: &[u8]| line.iter().filter(|byte| signs.contains(byte)).count();
    if count(b"{") <= MAX_OBJECTS && count(b",[{") <= MAX_VALUES {
        return Ok(());
    }
    let message =
        format!("the line has more than {MAX_OBJECTS} objects, or {MAX_VALUES} values: allowed: at most these");
    Err(Refusal::new(ErrorKind::Limit, message))
}

fn check_version(version: Option<Value>) -> Result<(), Refusal> {
    let message = match version {
        None => format!("no protocol version: \"version\":{VERSION} is wanted in every line"),
        Some(Value::Number(number)) if number.as_u64() == Some(u64::from(VERSION)) => return Ok(()),
        Some(other) => {
            format!("protocol version {other}; this side speaks version {VERSION}: use the same release on both")
        }
    };
    Err(Refusal::new(ErrorKind::Version, message))
}

#[derive(Serialize)]
struct ReplyLine<'a> {
    version: u32,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

/// The line of a reply, without a newline.
pub fn reply_line(outcome: &Outcome) -> serde_json::Result<String> {
    serde_json::to_string(&ReplyLine { version: VERSION, outcome })
}

/// The reply of a line: what the gateway said, or [`ErrorKind::Internal`] where the line is no reply.
pub fn parse_reply(line: &[u8]) -> Result<Outcome, Refusal> {
    let bad =
        |error: String| Refusal::new(ErrorKind::Internal, format!("the gateway's reply is not understood: {error}"));
    let mut object: Map<String, Value> = serde_json::from_slice(line).map_err(|error| bad(error.to_string()))?;
    // An error of kind `version` is worth showing whatever version it came in.
    let version = object.remove("version");
    if !object.contains_key("error") {
        check_version(version).map_err(|refusal| bad(refusal.message))?;
    }
    serde_json::from_value(Value::Object(object)).map_err(|error| bad(error.to_string()))
}

/// Adds the nearest allowed word to serde's message about an unknown one: "unknown field `a`, expected `b` or `c`".
fn with_suggestion(message: &str) -> String {
    let Some(rest) = ["unknown field `", "unknown variant `"].iter().find_map(|start| message.strip_prefix(start))
    else {
        return message.to_owned();
    };
    let mut words = rest.split('`').step_by(2);
    let Some(unknown) = words.next() else { return message.to_owned() };
    let nearest = words
        .map(|allowed| (strsim::jaro_winkler(unknown, allowed), allowed))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    match nearest {
        Some((_, word)) => format!("{message} (did you mean `{word}`?)"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::Reply;

    fn refusal(line: &str) -> Refusal {
        parse_request(line.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_request_survives_its_line() {
        let request: Request = serde_json::from_str(
            r#"{"command":"real.edit","service":{"vip":"10.0.0.1:80","protocol":"tcp"},"address":"10.1.0.1:80","set":{"weight":0}}"#,
        )
        .unwrap();
        let line = request_line(&request).unwrap();
        assert!(line.contains("\"version\":1"), "{line}");
        assert_eq!(parse_request(line.as_bytes()).unwrap(), request);
    }

    #[test]
    fn a_reply_survives_its_line() {
        for outcome in [
            Outcome::Ok(Reply::Changed(vec!["a".to_owned()])),
            Outcome::Error(Refusal::new(ErrorKind::NotFound, "no such thing")),
        ] {
            let line = reply_line(&outcome).unwrap();
            assert!(line.starts_with("{\"version\":1,"), "{line}");
            assert_eq!(parse_reply(line.as_bytes()).unwrap(), outcome);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(refusal("hello").kind, ErrorKind::Invalid);
        assert_eq!(refusal("[1]").kind, ErrorKind::Invalid);
        assert_eq!(refusal(r#"{"command":"status"}"#).kind, ErrorKind::Version);
        let other = refusal(r#"{"version":2,"command":"status"}"#);
        assert_eq!((other.kind, other.message.contains("version 2")), (ErrorKind::Version, true));
        let unknown = refusal(r#"{"version":1,"command":"servce.list"}"#);
        assert!(unknown.message.ends_with("(did you mean `service.list`?)"), "{unknown}");
        let key = refusal(r#"{"version":1,"command":"session.list","filter":{"clinet":"10.0.0.1"}}"#);
        assert!(key.message.contains("`clinet`") && key.message.ends_with("(did you mean `client`?)"), "{key}");
        let extra = refusal(r#"{"version":1,"command":"status","nonsense":1}"#);
        assert!(extra.message.contains("nonsense"), "{extra}");
        let scheduler = refusal(
            r#"{"version":1,"command":"service.edit","service":{"vip":"10.0.0.1:80","protocol":"tcp"},"scheduler":"wlcc"}"#,
        );
        assert!(scheduler.message.ends_with("(did you mean `wlc`?)"), "{scheduler}");
    }

    #[test]
    fn a_line_has_no_more_values_than_there_can_be_memory_for() {
        let many = |part: &str, count: usize| format!("[{}]", vec![part; count].join(","));
        assert_eq!(refusal(&many("{}", MAX_OBJECTS + 1)).kind, ErrorKind::Limit);
        assert_eq!(refusal(&many("0", MAX_VALUES + 1)).kind, ErrorKind::Limit);
        assert_eq!(refusal(&many("{}", MAX_OBJECTS)).kind, ErrorKind::Invalid, "no object");
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line: Vec<u8>, text in "\\PC*") {
            let _ = parse_request(&line);
            let _ = parse_request(text.as_bytes());
            let _ = parse_reply(&line);
        }
    }
}
