//! Puts a question in the bytes of each dialect, without sockets, and reads the answer.

use queuewarden::dialect::evapi::Evapi;
use queuewarden::dialect::fastagi::FastAgi;
use queuewarden::dialect::freeswitch::FreeSwitch;
use queuewarden::dialect::jsonrpc::JsonRpc;
use queuewarden::dialect::line::Line;
use queuewarden::dialect::{Dialect, Step};
use queuewarden::gate::Gate;
use queuewarden::telephony::{Moment, QueueSet};

use crate::conformance::table::{Answer, Question, Verdict};
use crate::support::{agi_environment, channel_block, channel_variables, url_encoded, variables};

/// A dialect of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestDialect {
    /// The line dialect. A question with `do` is asked with `may` first, and both answers must be equal.
    Line,
    /// FastAGI, which has no `may`.
    FastAgi,
    /// FreeSWITCH's outbound socket.
    FreeSwitch,
    /// Kamailio's JSON-RPC.
    JsonRpc,
    /// Kamailio's evapi.
    Evapi,
}

impl TestDialect {
    pub const ALL: [Self; 5] = [Self::Line, Self::FastAgi, Self::FreeSwitch, Self::JsonRpc, Self::Evapi];

    /// The answer, or `None` when the dialect cannot put the question.
    pub fn ask(self, gate: &Gate, question: &Question, now: Moment) -> Option<Answer> {
        match self {
            Self::FastAgi if question.verb == "may" => None,
            Self::FastAgi => Some(ask_fastagi(gate, question, now)),
            Self::FreeSwitch => Some(ask_freeswitch(gate, question, now)),
            Self::JsonRpc => Some(ask_jsonrpc(gate, question, now)),
            Self::Evapi => Some(ask_evapi(gate, question, now)),
            Self::Line if question.verb == "do" => {
                let may_answer = ask_line(gate, &Question { verb: "may".to_owned(), ..question.clone() }, now);
                let done = ask_line(gate, question, now);
                Some(if may_answer == done { done } else { disagreement(may_answer) })
            }
            Self::Line => Some(ask_line(gate, question, now)),
        }
    }

    /// The answer as this dialect can express it: FastAGI and FreeSWITCH have no verdict `error`.
    pub fn as_expressed(self, expected: &Answer) -> Answer {
        let verdict = match (self, expected.verdict) {
            (Self::FastAgi | Self::FreeSwitch, Verdict::Error) => Verdict::Deny,
            (_, verdict) => verdict,
        };
        Answer { verdict, ..expected.clone() }
    }
}

/// The whole answer of a dialect to one message.
fn converse(dialect: &mut impl Dialect, gate: &Gate, message: &str, now: Moment) -> String {
    let (mut room, mut output) = (vec![], vec![]);
    match dialect.next(message.as_bytes(), &mut room, &mut output) {
        Step::Ask { event, id, .. } => {
            gate.ask(&event, now, &mut QueueSet::new(), |outcome, _| dialect.answer(id, &outcome, &mut output));
        }
        Step::Done { .. } => {}
        Step::Watch { .. } => panic!("{message:?} is no question"),
        Step::More => panic!("{message:?} is not a whole message"),
    }
    String::from_utf8(output).unwrap()
}

fn ask_line(gate: &Gate, question: &Question, now: Moment) -> Answer {
    let reply = converse(&mut Line::new(None), gate, &format!("1 {}\n", question.text()), now);
    let mut words = reply.trim_end().split(' ').skip(1);
    let verdict = match words.next() {
        Some("allow") => Verdict::Allow,
        Some("deny") => Verdict::Deny,
        _ => Verdict::Error,
    };
    let mut answer = Answer { verdict, reason: String::new(), action: None, queues: vec![], mode: None };
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        match key {
            "reason" => value.clone_into(&mut answer.reason),
            "action" => answer.action = Some(value.to_owned()),
            "mode" => answer.mode = Some(value.to_owned()),
            "queue" | "queues" => answer.queues = value.split(',').map(str::to_owned).collect(),
            _ => {}
        }
    }
    answer
}

fn ask_fastagi(gate: &Gate, question: &Question, now: Moment) -> Answer {
    let value = |key| question.key(key).unwrap_or_default();
    let action = question.key("action").unwrap_or("dial");
    let arguments = question.keys.iter().filter(|(key, _)| !["org", "actor", "action"].contains(&key.as_str()));
    let arguments: Vec<String> = arguments.map(|(key, value)| format!("{key}={value}")).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let environment = agi_environment(value("actor"), &format!("{}/{action}", value("org")), &arguments);
    let set = variables(&converse(&mut FastAgi::new(), gate, &environment, now));
    let some = |name: &str| set.get(name).filter(|value| !value.is_empty()).cloned();
    Answer {
        verdict: if set["QW_VERDICT"] == "ALLOW" { Verdict::Allow } else { Verdict::Deny },
        reason: some("QW_REASON").unwrap_or_default(),
        action: some("QW_ACTION"),
        queues: some("QW_QUEUES").map_or_else(Vec::new, |queues| queues.split('&').map(str::to_owned).collect()),
        mode: some("QW_SPY_OPTIONS").map(|options| mode_of(&options).to_owned()),
    }
}

fn ask_freeswitch(gate: &Gate, question: &Question, now: Moment) -> Answer {
    let named = |key: &str| match key {
        "actor" => "user_name".to_owned(),
        "verb" => "qw_object_verb".to_owned(),
        key => format!("qw_{key}"),
    };
    let mut keys: Vec<(String, String)> =
        question.keys.iter().map(|(key, value)| (named(key), url_encoded(value))).collect();
    keys.push(("qw_verb".to_owned(), question.verb.clone()));
    let keys: Vec<(&str, &str)> = keys.iter().map(|(key, value)| (&**key, &**value)).collect();
    // The dialed digits are in a variable, if there are any.
    let block = channel_block("", &keys).replace("Caller-Destination-Number: \n", "");
    let mut freeswitch = FreeSwitch::new();
    freeswitch.greet(&mut vec![]);
    let set = channel_variables(&converse(&mut freeswitch, gate, &block, now));
    let some = |name: &str| set.get(name).filter(|value| !value.is_empty()).cloned();
    let is_on = |name: &str| set.get(name).is_some_and(|value| value == "true");
    let mode = some("eavesdrop_enable_dtmf").map(|_| {
        match (is_on("eavesdrop_whisper_aleg"), is_on("eavesdrop_whisper_bleg")) {
            (false, false) => "listen",
            (false, true) => "whisper",
            (true, true) => "barge",
            (true, false) => "the far party hears",
        }
    });
    Answer {
        verdict: if set["qw_verdict"] == "allow" { Verdict::Allow } else { Verdict::Deny },
        reason: some("qw_reason").unwrap_or_default(),
        action: some("qw_action"),
        queues: some("qw_queues").map_or_else(Vec::new, |queues| queues.split(',').map(str::to_owned).collect()),
        mode: mode.map(str::to_owned),
    }
}

/// The members of an object in their order, repeated names included.
fn members(keys: &[(String, String)], named: impl Fn(&str) -> &str) -> String {
    let member = |(key, value): &(String, String)| format!("{:?}:{}", named(key), serde_json::json!(value));
    keys.iter().map(member).collect::<Vec<_>>().join(",")
}

fn ask_jsonrpc(gate: &Gate, question: &Question, now: Moment) -> Answer {
    let (verb, params) = (&question.verb, members(&question.keys, |key| key));
    let request = format!(r#"{{"id":5,"jsonrpc":"2.0","method":"{verb}","params":{{{params}}}}}"#);
    let reply = framed(&mut JsonRpc::new(), gate, &request, now);
    assert_eq!((&reply["jsonrpc"], &reply["id"]), (&"2.0".into(), &5.into()), "{reply}");
    in_members(if reply["error"].is_null() { &reply["result"] } else { &reply })
}

fn ask_evapi(gate: &Gate, question: &Question, now: Moment) -> Answer {
    let keys = members(&question.keys, |key| if key == "verb" { "object_verb" } else { key });
    let comma = if keys.is_empty() { "" } else { "," };
    let message = format!(r#"{{"verb":"{}"{comma}{keys},"idx":47360,"lbl":2076268761}}"#, question.verb);
    let reply = framed(&mut Evapi::new(), gate, &message, now);
    assert_eq!((&reply["idx"], &reply["lbl"]), (&47_360.into(), &2_076_268_761_u32.into()), "{reply}");
    in_members(&reply)
}

/// The answer to a payload, both without their netstrings.
fn framed(dialect: &mut impl Dialect, gate: &Gate, payload: &str, now: Moment) -> serde_json::Value {
    let reply = converse(dialect, gate, &format!("{}:{payload},", payload.len()), now);
    let (length, payload) = reply.split_once(':').expect(&reply);
    let payload = payload.strip_suffix(',').expect(&reply);
    assert_eq!(length, payload.len().to_string());
    serde_json::from_str(payload).expect(payload)
}

/// The answer in the members of an object.
fn in_members(members: &serde_json::Value) -> Answer {
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let queues = members["queues"].as_array().map_or_else(Vec::new, |queues| queues.iter().filter_map(text).collect());
    let failure = &members["error"]["data"]["reason"];
    let (verdict, reason) = match members["verdict"].as_str() {
        Some("allow") => (Verdict::Allow, &members["reason"]),
        Some("deny") => (Verdict::Deny, &members["reason"]),
        _ => (Verdict::Error, failure),
    };
    let reason = text(reason).unwrap_or_default();
    Answer { verdict, reason, action: text(&members["action"]), queues, mode: text(&members["mode"]) }
}

/// The mode that the options of `ChanSpy` mean.
fn mode_of(options: &str) -> &'static str {
    match (options.contains('w'), options.contains('B')) {
        (false, false) => "listen",
        (true, false) => "whisper",
        (false, true) => "barge",
        (true, true) => "two modes at once",
    }
}

/// An answer that equals no other, so that the row fails and shows the answer to `may`.
fn disagreement(may_answer: Answer) -> Answer {
    Answer { reason: format!("({} after `may`, but something else after `do`)", may_answer.reason), ..may_answer }
}
