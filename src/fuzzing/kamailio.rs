//! Fuzz targets of both Kamailio dialects: the netstrings, and the JSON of one request.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::decision::{AllowReason, DenyReason, ErrorReason};
use crate::dialect::Dialect;
use crate::dialect::evapi::Evapi;
use crate::dialect::jsonrpc::JsonRpc;
use crate::event::{Event, Key};
use crate::fuzzing::conversation::{GateUnderTest, SHIPPED_GATE, text};
use crate::fuzzing::event_pairs::{pairs_of, sorted, verb_of};
use crate::limits::NETSTRING_BYTES_MAX;

/// Checks, in both dialects, that the answers do not depend on how the netstrings of the input are cut into segments,
/// and that each answer is one complete netstring.
pub fn netstring_frames(data: &[u8]) {
    SHIPPED_GATE.with(|gate| {
        converse_in_segments(gate, &JsonRpc::new(), data, check_response);
        converse_in_segments(gate, &Evapi::new(), data, check_answer);
        let (frames, rest) = frames_of(data);
        let mut waiting = vec![];
        JsonRpc::new().give_up(None, rest.unwrap_or_default(), &mut waiting);
        assert!(waiting.is_empty(), "nothing is sent to a peer that has left");
        let conversation = gate.converse(JsonRpc::new(), data, &[data.len()], |_, _| ());
        gate.log_everybody_out();
        let unread = rest.map_or(0, <[u8]>::len);
        assert_eq!(conversation.consumed, data.len() - unread, "exactly the complete frames are consumed");
        let answered = frames.iter().filter(|frame| !is_notification(frame)).count();
        assert_eq!(
            payloads(&conversation.output).len(),
            answered + usize::from(rest.is_none()),
            "one response per request"
        );
    });
}

/// Checks that the JSON of one request gets at most one response, and that the question holds the members of the JSON.
pub fn jsonrpc_body(data: &[u8]) {
    if data.len() > NETSTRING_BYTES_MAX {
        return;
    }
    SHIPPED_GATE.with(|gate| {
        let frame = [format!("{}:", data.len()).as_bytes(), data, b","].concat();
        let conversation =
            gate.converse(JsonRpc::new(), &frame, &[frame.len()], |_, event| check_question(data, event));
        gate.log_everybody_out();
        assert_eq!(conversation.consumed, frame.len());
        let responses = payloads(&conversation.output);
        assert_eq!(responses.len(), usize::from(!is_notification(data)), "{responses:?}");
        for response in &responses {
            check_response(gate, response);
            if conversation.questions > 0 {
                let request = members_of(data).expect("a question is an object");
                let id = value_of(&request, "id").expect("a question has an id");
                assert_eq!(response["id"], id, "a response has the id of its request");
            }
        }
    });
}

fn converse_in_segments<D: Dialect + Clone>(
    gate: &GateUnderTest,
    dialect: &D,
    data: &[u8],
    check: fn(&GateUnderTest, &Value),
) {
    let [whole, by_byte, cut] = gate.converse_in_segments(dialect, data, |_, _| ());
    for other in [&by_byte, &cut] {
        assert_eq!(whole.text(), other.text(), "segments change the answers");
        assert_eq!(
            (whole.consumed, &whole.faults),
            (other.consumed, &other.faults),
            "segments change what is consumed or counted"
        );
    }
    for payload in payloads(&whole.output) {
        check(gate, &payload);
    }
}

/// The payloads of our own output, which is complete netstrings.
fn payloads(output: &[u8]) -> Vec<Value> {
    let (mut rest, mut payloads) = (text(output), vec![]);
    while let Some((length, behind)) = rest.split_once(':') {
        let (payload, behind) = behind.split_at(length.parse().expect(rest));
        payloads.push(serde_json::from_str(payload).expect(payload));
        rest = behind.strip_prefix(',').expect(rest);
    }
    assert_eq!(rest, "", "half a netstring");
    payloads
}

/// The complete frames at the start of the bytes, and the rest that may become a frame. `None`: it cannot become one.
fn frames_of(mut data: &[u8]) -> (Vec<&[u8]>, Option<&[u8]>) {
    let mut frames = vec![];
    loop {
        let digits = data.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(data.len());
        let number = text(&data[..digits]);
        let length: usize = number.parse().unwrap_or(if number.is_empty() { 0 } else { usize::MAX });
        let is_canonical = number.len() < 2 || !number.starts_with('0');
        if !is_canonical || length > NETSTRING_BYTES_MAX {
            return (frames, None);
        }
        let Some(&colon) = data.get(digits) else { return (frames, Some(data)) };
        if colon != b':' || number.is_empty() {
            return (frames, None);
        }
        match data.get(digits + 1 + length) {
            None => return (frames, Some(data)),
            Some(b',') => frames.push(&data[digits + 1..digits + 1 + length]),
            Some(_) => return (frames, None),
        }
        data = &data[digits + length + 2..];
    }
}

/// The members of the top level, unparsed. Of several members with the same name: the last.
fn members_of(payload: &[u8]) -> Option<BTreeMap<String, Box<RawValue>>> {
    serde_json::from_slice(payload).ok()
}

/// The parsed value of a member. `None`: it is missing, or nested too deeply.
fn value_of(members: &BTreeMap<String, Box<RawValue>>, name: &str) -> Option<Value> {
    members.get(name).and_then(|value| serde_json::from_str(value.get()).ok())
}

/// Whether the payload is a notification, which gets no response.
fn is_notification(payload: &[u8]) -> bool {
    let Some(members) = members_of(payload) else { return false };
    let is_version = value_of(&members, "jsonrpc").is_some_and(|version| version == "2.0");
    let has_method = value_of(&members, "method").is_some_and(|method| method.is_string());
    let has_duplicate = serde_json::from_slice::<KnownMembers>(payload).is_err();
    let is_read = members.get("params").is_none_or(|params| match params.get().as_bytes() {
        [b'{', ..] => {
            members_of(params.get().as_bytes()).is_some_and(|members| members.values().all(|it| can_be_read(it)))
        }
        _ => can_be_read(params),
    });
    is_version && has_method && is_read && !members.contains_key("id") && !has_duplicate
}

/// Whether a value can be parsed, and not only scanned: a number may be out of range, a string may end in half a
/// character.
fn can_be_read(value: &RawValue) -> bool {
    value.get().starts_with(['[', '{']) || serde_json::from_str::<Value>(value.get()).is_ok()
}

/// The members that a request may have once; reading fails if one occurs twice.
#[derive(serde::Deserialize)]
struct KnownMembers {
    #[serde(default, rename = "jsonrpc")]
    _jsonrpc: IgnoredAny,
    #[serde(default, rename = "method")]
    _method: IgnoredAny,
    #[serde(default, rename = "params")]
    _params: IgnoredAny,
    #[serde(default, rename = "id")]
    _id: IgnoredAny,
}

/// Checks that a question holds exactly the members of `params`.
fn check_question(payload: &[u8], event: &Event<'_>) {
    let request = members_of(payload).expect("a question is an object");
    assert_eq!(value_of(&request, "method"), Some(verb_of(event).into()));
    assert_eq!(value_of(&request, "jsonrpc"), Some("2.0".into()));
    let params = value_of(&request, "params").expect("a question has params");
    let params = params.as_object().expect("params are an object");
    let pairs = params.iter().map(|(key, value)| match value {
        Value::String(value) => format!("{key}={value}"),
        value => format!("{key}={value}"),
    });
    assert_eq!(sorted(pairs), pairs_of(event));
}

/// Checks a JSON-RPC response against its grammar and the names of the configuration.
fn check_response(gate: &GateUnderTest, response: &Value) {
    let members = response.as_object().expect("a response is an object");
    assert_eq!(members.len(), 3, "{response}");
    assert_eq!(response["jsonrpc"], "2.0");
    match (members.get("result"), members.get("error")) {
        (Some(result), None) => check_result(gate, result),
        (None, Some(error)) => check_error(error),
        _ => panic!("{response}"),
    }
}

/// Checks an answer of evapi against its grammar and the names of the configuration.
fn check_answer(gate: &GateUnderTest, answer: &Value) {
    let mut members = answer.as_object().expect("an answer is an object").clone();
    for name in ["idx", "lbl"] {
        assert!(members.remove(name).is_some_and(|number| number.is_u64()), "{answer}");
    }
    match members.remove("error") {
        Some(error) => {
            assert!(members.is_empty(), "{answer}");
            check_error(&error);
        }
        None => check_result(gate, &Value::Object(members)),
    }
}

fn check_error(error: &Value) {
    let reason = error["data"]["reason"].as_str().expect("an error has a reason");
    assert!(
        ErrorReason::with_code(reason).is_some() && error["code"].is_i64() && error["message"].is_string(),
        "{error}"
    );
    let key = error["data"].get("key");
    assert!(key.is_none_or(|key| key.as_str().is_some_and(|key| Key::named(key).is_some())), "{error}");
    assert!(error.as_object().is_some_and(|members| members.len() == 3), "{error}");
}

fn check_result(gate: &GateUnderTest, result: &Value) {
    const NAMES: [&str; 9] =
        ["verdict", "reason", "action", "queues", "policy", "mode", "target", "asterisk", "freeswitch"];
    if *result == serde_json::json!({"pong": true}) {
        return;
    }
    let members = result.as_object().expect("a result is an object");
    assert!(members.keys().all(|name| NAMES.contains(&name.as_str())), "{result}");
    let word = |name: &str| members.get(name).map(|value| value.as_str().expect("a word"));
    let reason = word("reason").expect("a decision has a reason");
    let known = match word("verdict") {
        Some("allow") => AllowReason::with_code(reason).is_some(),
        Some("deny") => DenyReason::with_code(reason).is_some_and(|reason| reason != DenyReason::Internal),
        _ => false,
    };
    assert!(known, "{result}");
    assert!(word("action").is_none_or(|action| gate.has_action(action)), "{result}");
    assert!(word("target").is_none_or(|target| gate.has_extension(target)), "{result}");
    let queues = result["queues"].as_array().expect("a list of queues");
    assert!(queues.iter().all(|queue| queue.as_str().is_some_and(|number| gate.has_queue(number))), "{result}");
    assert_eq!(word("mode").is_some(), word("target").is_some(), "{result}");
}
