//! The lines themselves: a request or an outcome with the protocol's version beside it. Pure: no socket here.
//!
//! A line never holds a newline of its own, because JSON writes those as `\n`.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::protocol::{ErrorKind, Outcome, Refusal, Request, VERSION};

/// A line that is not understood.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// It is no JSON object, or none that is known.
    #[error("not a line of the control protocol: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It has no version.
    #[error("no version: every line has \"version\":{VERSION}")]
    Unversioned,
    /// Its version is another.
    #[error("version {0} of the control protocol; this side speaks version {VERSION}: use the same release on both")]
    Version(u64),
}

impl From<EnvelopeError> for Refusal {
    fn from(error: EnvelopeError) -> Self {
        let kind = match error {
            EnvelopeError::Version(_) => ErrorKind::Version,
            EnvelopeError::Malformed(_) | EnvelopeError::Unversioned => ErrorKind::Invalid,
        };
        Self { kind, message: error.to_string() }
    }
}

/// The line of a request, newline included.
///
/// # Errors
/// serde's, which these types do not lead to.
pub fn encode_request(request: &Request) -> Result<String, EnvelopeError> {
    encode(request)
}

/// The request of a line.
///
/// # Errors
/// The line is none, or of another version.
pub fn decode_request(line: &[u8]) -> Result<Request, EnvelopeError> {
    decode(line)
}

/// The line of an outcome, newline included.
///
/// # Errors
/// serde's, which these types do not lead to.
pub fn encode_outcome(outcome: &Outcome) -> Result<String, EnvelopeError> {
    encode(outcome)
}

/// The outcome of a line.
///
/// # Errors
/// The line is none, or of another version.
pub fn decode_outcome(line: &[u8]) -> Result<Outcome, EnvelopeError> {
    decode(line)
}

#[derive(Serialize)]
struct Envelope<T> {
    version: u32,
    #[serde(flatten)]
    content: T,
}

fn encode<T: Serialize>(content: &T) -> Result<String, EnvelopeError> {
    let mut line = serde_json::to_string(&Envelope { version: VERSION, content })?;
    line.push('\n');
    Ok(line)
}

/// The version is read, and taken out, before the rest: another version's content need not be understood. (Decoding
/// a flattened struct would not do: serde's `flatten` does not go with `deny_unknown_fields`.)
fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, EnvelopeError> {
    let mut object: Map<String, Value> = serde_json::from_slice(line)?;
    let version = object.remove("version").and_then(|version| version.as_u64());
    match version.ok_or(EnvelopeError::Unversioned)? {
        version if version == u64::from(VERSION) => Ok(serde_json::from_value(Value::Object(object))?),
        other => Err(EnvelopeError::Version(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{Reply, ServiceName, SessionFilter};

    #[test]
    fn lines_as_documented() {
        assert_eq!(encode_request(&Request::Status {}).unwrap(), "{\"version\":1,\"command\":\"status\"}\n");
        let refusal = Refusal { kind: ErrorKind::NotFound, message: "no\nsuch".into() };
        let outcome = Outcome::Error(refusal);
        let line = "{\"version\":1,\"error\":{\"kind\":\"not_found\",\"message\":\"no\\nsuch\"}}\n";
        assert_eq!(encode_outcome(&outcome).unwrap(), line);
        assert_eq!(decode_outcome(line.as_bytes()).unwrap(), outcome);
    }

    #[test]
    fn requests_come_back() {
        let service = ServiceName { vip: "10.0.0.1:80".parse().unwrap(), protocol: crate::balance::Protocol::Tcp };
        for request in [
            Request::Status {},
            Request::ServiceDel { service },
            Request::SessionList { filter: SessionFilter::default(), limit: Some(3) },
        ] {
            assert_eq!(decode_request(encode_request(&request).unwrap().as_bytes()).unwrap(), request);
        }
        let outcome = Outcome::Ok(Reply::Changed(vec!["one".into()]));
        assert_eq!(decode_outcome(encode_outcome(&outcome).unwrap().as_bytes()).unwrap(), outcome);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let kind = |line: &str| Refusal::from(decode_request(line.as_bytes()).unwrap_err()).kind;
        assert_eq!(kind("{\"version\":2,\"command\":\"from the future\"}"), ErrorKind::Version);
        assert_eq!(kind("{\"command\":\"status\"}"), ErrorKind::Invalid);
        assert_eq!(kind("{\"version\":1,\"command\":\"status\",\"colour\":1}"), ErrorKind::Invalid);
        assert_eq!(kind("{\"version\":1,\"command\":\"no such\"}"), ErrorKind::Invalid);
        for line in ["", "1", "[]", "{\"version\":1"] {
            assert_eq!(kind(line), ErrorKind::Invalid, "{line}");
        }
    }
}
