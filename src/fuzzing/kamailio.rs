//! What Kamailio says, both ways, in any segments.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::decision::{AllowReason, DenyReason, ErrorReason};
use crate::dialect::Dialect;
use crate::dialect::evapi::Evapi;
use crate::dialect::jsonrpc::JsonRpc;
use crate::event::{Event, Intent, Key, Request};
use crate::fuzzing::conversation::{CONFIGURED_SIDECAR, Sidecar, text};
use crate::fuzzing::wire::{pairs_of, sorted};
use crate::limits::NETSTRING_BYTES_MAX;

/// Netstrings, in both Kamailio dialects: the same answers whatever the segments, and every one a whole netstring.
pub fn netstring_frames(data: &[u8]) {
    CONFIGURED_SIDECAR.with(|sidecar| {
        talk_in_segments(sidecar, &JsonRpc::new(), data, check_response);
        talk_in_segments(sidecar, &Evapi::new(), data, check_answer);
        let (frames, rest) = frames_of(data);
        let mut waiting = vec![];
        JsonRpc::new().give_up(None, rest.unwrap_or_default(), &mut waiting);
        assert!(waiting.is_empty(), "who has gone hears nothing");
        let talk = sidecar.talk(JsonRpc::new(), data, &[data.len()], |_, _| ());
        sidecar.log_everybody_out();
        let unread = rest.map_or(0, <[u8]>::len);
        assert_eq!(talk.consumed, data.len() - unread, "whole frames are consumed, and nothing else");
        let answered = frames.iter().filter(|frame| !is_notification(frame)).count();
        assert_eq!(payloads(&talk.output).len(), answered + usize::from(rest.is_none()), "one response a request");
    });
}

/// The JSON of one request: at most one response, and a question that holds what it said.
pub fn jsonrpc_body(data: &[u8]) {
    if data.len() > NETSTRING_BYTES_MAX {
        return;
    }
    CONFIGURED_SIDECAR.with(|sidecar| {
        let frame = [format!("{}:", data.len()).as_bytes(), data, b","].concat();
        let talk = sidecar.talk(JsonRpc::new(), &frame, &[frame.len()], |_, event| check_question(data, event));
        sidecar.log_everybody_out();
        assert_eq!(talk.consumed, frame.len());
        let heard = payloads(&talk.output);
        assert_eq!(heard.len(), usize::from(!is_notification(data)), "{heard:?}");
        for response in &heard {
            check_response(sidecar, response);
            if talk.questions > 0 {
                let request = members_of(data).expect("a question is an object");
                let id = value_of(&request, "id").expect("a question has an id");
                assert_eq!(response["id"], id, "a response has the id of its request");
            }
        }
    });
}

fn talk_in_segments<D: Dialect + Clone>(sidecar: &Sidecar, dialect: &D, data: &[u8], check: fn(&Sidecar, &Value)) {
    let [whole, by_byte, cut] = sidecar.talk_in_segments(dialect, data, |_, _| ());
    for other in [&by_byte, &cut] {
        assert_eq!(whole.heard(), other.heard(), "segments change the answers");
        assert_eq!((whole.consumed, &whole.faults), (other.consumed, &other.faults), "segments change the rest");
    }
    for payload in payloads(&whole.output) {
        check(sidecar, &payload);
    }
}

/// The payloads of our own output, which is whole netstrings.
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

/// The whole frames that the bytes begin with, and what is left that may become one; `None` if it never can.
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

/// The members at the top, as they are written; of two of a name the last.
fn members_of(payload: &[u8]) -> Option<BTreeMap<String, Box<RawValue>>> {
    serde_json::from_slice(payload).ok()
}

/// A JSON value that is not nested deeply.
fn value_of(members: &BTreeMap<String, Box<RawValue>>, name: &str) -> Option<Value> {
    members.get(name).and_then(|value| serde_json::from_str(value.get()).ok())
}

/// A request that wants no answer.
fn is_notification(payload: &[u8]) -> bool {
    let Some(members) = members_of(payload) else { return false };
    let is_version = value_of(&members, "jsonrpc").is_some_and(|version| version == "2.0");
    let has_method = value_of(&members, "method").is_some_and(|method| method.is_string());
    let twice = ["jsonrpc", "method", "params", "id"].iter().any(|name| count_of(payload, name) > 1);
    let is_read = members.get("params").is_none_or(|params| match params.get().as_bytes() {
        [b'{', ..] => {
            members_of(params.get().as_bytes()).is_some_and(|members| members.values().all(|it| can_be_read(it)))
        }
        _ => can_be_read(params),
    });
    is_version && has_method && is_read && !members.contains_key("id") && !twice
}

/// Not a number beyond all bounds, nor half a character: what `serde_json` reads where it does not only look.
fn can_be_read(value: &RawValue) -> bool {
    value.get().starts_with(['[', '{']) || serde_json::from_str::<Value>(value.get()).is_ok()
}

/// How often a member of this name stands at the top.
fn count_of(payload: &[u8], name: &str) -> usize {
    struct Names<'a>(&'a str, usize);
    impl<'de> serde::de::Visitor<'de> for Names<'_> {
        type Value = usize;
        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("an object")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(mut self, mut map: A) -> Result<usize, A::Error> {
            while let Some((name, _)) = map.next_entry::<String, serde::de::IgnoredAny>()? {
                self.1 += usize::from(name == self.0);
            }
            Ok(self.1)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(payload);
    serde::Deserializer::deserialize_map(&mut deserializer, Names(name, 0)).unwrap_or_default()
}

/// A question holds what `params` said, all of it, and nothing else.
fn check_question(payload: &[u8], event: &Event<'_>) {
    let request = members_of(payload).expect("a question is an object");
    let meant = match (event.intent, event.request) {
        (Intent::Do, Request::Dial(_)) => "dial",
        (Intent::Do, Request::Action(_)) => "do",
        (Intent::May, _) => "may",
    };
    assert_eq!(value_of(&request, "method"), Some(meant.into()));
    assert_eq!(value_of(&request, "jsonrpc"), Some("2.0".into()));
    let params = value_of(&request, "params").expect("a question has params");
    let params = params.as_object().expect("params are an object");
    let pairs = params.iter().map(|(key, value)| match value {
        Value::String(value) => format!("{key}={value}"),
        value => format!("{key}={value}"),
    });
    assert_eq!(sorted(pairs), pairs_of(event));
}

/// Holds a JSON-RPC response against its grammar and our words.
fn check_response(sidecar: &Sidecar, response: &Value) {
    let members = response.as_object().expect("a response is an object");
    assert_eq!(members.len(), 3, "{response}");
    assert_eq!(response["jsonrpc"], "2.0");
    match (members.get("result"), members.get("error")) {
        (Some(result), None) => check_result(sidecar, result),
        (None, Some(error)) => check_error(error),
        _ => panic!("{response}"),
    }
}

/// Holds an answer of evapi against its grammar and our words.
fn check_answer(sidecar: &Sidecar, answer: &Value) {
    let mut members = answer.as_object().expect("an answer is an object").clone();
    for name in ["idx", "lbl"] {
        assert!(members.remove(name).is_some_and(|number| number.is_u64()), "{answer}");
    }
    match members.remove("error") {
        Some(error) => {
            assert!(members.is_empty(), "{answer}");
            check_error(&error);
        }
        None => check_result(sidecar, &Value::Object(members)),
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

fn check_result(sidecar: &Sidecar, result: &Value) {
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
    assert!(word("action").is_none_or(|action| sidecar.has_action(action)), "{result}");
    assert!(word("target").is_none_or(|target| sidecar.has_extension(target)), "{result}");
    let queues = result["queues"].as_array().expect("a list of queues");
    assert!(queues.iter().all(|queue| queue.as_str().is_some_and(|number| sidecar.has_queue(number))), "{result}");
    assert_eq!(word("mode").is_some(), word("target").is_some(), "{result}");
}
