//! Kamailio's `janssonrpcc`: JSON-RPC 2.0 in netstrings, on a connection that Kamailio opens and keeps.
//!
//! ```text
//! > 97:{"jsonrpc":"2.0","id":5,"method":"dial","params":{"org":"acme","actor":"1001","digits":"*13600"}},
//! < 120:{"jsonrpc":"2.0","id":5,"result":{"verdict":"allow","reason":"assigned",…}},
//! ```
//!
//! The method is the verb, `params` an object with the keys of a question. A request without an id wants no answer, so
//! nothing is done for it. What is JSON and no question gets a JSON-RPC error, and the connection lives on; what is no
//! netstring ends it, because where the next one begins can no longer be known.

use serde::Serialize;
use serde::de::{IgnoredAny, MapAccess};
use serde_json::value::RawValue;

use crate::decision::{ErrorReason, Outcome, WireError};
use crate::dialect::fields::Verb;
use crate::dialect::json::{self, Decided, Failure, FailureKind, Members, Object, PONG, Scalar};
use crate::dialect::netstring::{self, Frame};
use crate::dialect::{After, Dialect, DialectLabel, Patience, Step};
use crate::event::Event;
use crate::limits::JSONRPC_ID_BYTES_MAX;

/// The id of an error whose request has none that could be read.
const NO_ID: &[u8] = b"null";

/// One connection from Kamailio.
#[derive(Clone, Debug, Default)]
pub struct JsonRpc {
    finished: bool,
}

/// A request.
#[derive(Debug)]
struct Request<'buf> {
    version: Option<Scalar<'buf>>,
    id: Option<&'buf RawValue>,
    method: Option<Scalar<'buf>>,
    params: Members<'buf>,
    has_params: bool,
    /// A member of these stands twice.
    twice: bool,
    /// It is JSON, and no object.
    is_other: bool,
}

/// What a request asks for.
enum Asked<'buf> {
    Decision(Event<'buf>),
    Pong,
}

/// What is written: a response with a result.
#[derive(Serialize)]
struct Answered<'a, T> {
    jsonrpc: &'static str,
    id: &'a RawValue,
    result: T,
}

/// What is written: a response with an error.
#[derive(Serialize)]
struct Failed<'a> {
    jsonrpc: &'static str,
    id: &'a RawValue,
    error: Failure,
}

impl JsonRpc {
    /// A new connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Dialect for JsonRpc {
    fn label(&self) -> DialectLabel {
        DialectLabel::JsonRpc
    }

    fn next<'buf>(&mut self, input: &'buf [u8], room: &'buf mut Vec<u8>, output: &mut Vec<u8>) -> Step<'buf> {
        if self.finished {
            return Step::Done { consumed: input.len(), fault: None, after: After::Finish };
        }
        let (payload, consumed) = match netstring::read(input) {
            Frame::More => return Step::More,
            Frame::Whole { payload, consumed } => (payload, consumed),
            Frame::Broken(reason) => {
                self.finished = true;
                fail(NO_ID, FailureKind::Parse, WireError::new(reason), output);
                return Step::Done { consumed: input.len(), fault: Some(reason), after: After::Finish };
            }
        };
        let done = |fault| Step::Done { consumed, fault, after: After::Continue };
        let request = match Request::read(payload, room) {
            Ok(request) => request,
            Err(kind) => {
                fail(NO_ID, kind, WireError::new(ErrorReason::Malformed), output);
                return done(Some(ErrorReason::Malformed));
            }
        };
        let Some(id) = request.readable_id() else {
            let error = WireError::new(ErrorReason::Malformed);
            if request.is_notification() {
                return done(Some(error.reason));
            }
            fail(NO_ID, FailureKind::Request, error, output);
            return done(Some(error.reason));
        };
        match request.asked() {
            Ok(Asked::Decision(event)) => Step::Ask { consumed, event, id },
            Ok(Asked::Pong) => {
                answer(id, PONG, output);
                done(None)
            }
            Err((kind, error)) => {
                fail(id, kind, error, output);
                done(Some(error.reason))
            }
        }
    }

    fn reads_ahead(&self) -> bool {
        true
    }

    fn answer(&mut self, id: &[u8], outcome: &Outcome<'_>, output: &mut Vec<u8>) -> After {
        match outcome {
            Outcome::Decided(decided) => answer(id, Decided::of(decided), output),
            Outcome::Faulty(error) => fail(id, FailureKind::Params, *error, output),
        }
        After::Continue
    }

    fn give_up(&mut self, reason: Option<ErrorReason>, unread: &[u8], output: &mut Vec<u8>) -> Option<ErrorReason> {
        if std::mem::replace(&mut self.finished, true) {
            return None;
        }
        match reason {
            Some(reason) => {
                fail(NO_ID, FailureKind::Server, WireError::new(reason), output);
                Some(reason)
            }
            // A frame without its end is no frame: the peer left in the middle of it.
            None => (!unread.is_empty()).then_some(ErrorReason::Malformed),
        }
    }

    fn patience(&self, has_unread: bool) -> Patience {
        match (self.finished, has_unread) {
            (true, _) => Patience::Closing,
            (false, true) => Patience::Frame,
            (false, false) => Patience::Endless,
        }
    }
}

impl<'buf> Object<'buf> for Request<'buf> {
    fn member<A: MapAccess<'buf>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "jsonrpc" => self.twice |= self.version.replace(map.next_value()?).is_some(),
            "id" => self.twice |= self.id.replace(map.next_value()?).is_some(),
            "method" => self.twice |= self.method.replace(map.next_value()?).is_some(),
            "params" => {
                map.next_value_seed(json::Into(&mut self.params))?;
                self.twice |= std::mem::replace(&mut self.has_params, true);
            }
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }

    fn other(&mut self) {
        self.is_other = true;
    }
}

impl<'buf> Request<'buf> {
    fn read(payload: &'buf [u8], room: &'buf mut Vec<u8>) -> Result<Self, FailureKind> {
        let mut request = Self {
            version: None,
            id: None,
            method: None,
            params: Members::new(room),
            has_params: false,
            twice: false,
            is_other: false,
        };
        match json::read(payload, &mut request) {
            Ok(()) if request.is_other => Err(FailureKind::Request),
            Ok(()) => Ok(request),
            Err(_) => Err(FailureKind::Parse),
        }
    }

    /// The id as it is written, to be written back: a string, a number or null, and not a long one. Who skips a value
    /// does not see that a number is beyond all bounds, or that a string ends in half a character: it is read here, so
    /// that nobody is answered with what nobody can read.
    fn readable_id(&self) -> Option<&'buf [u8]> {
        let id = self.id.filter(|id| !self.twice && id.get().len() <= JSONRPC_ID_BYTES_MAX)?.get();
        let is_scalar = id == "null" || id.starts_with(|first: char| matches!(first, '"' | '-' | '0'..='9'));
        (is_scalar && serde_json::from_str::<Scalar<'_>>(id).is_ok()).then_some(id.as_bytes())
    }

    /// A request that wants no answer, not even to its mistakes.
    fn is_notification(&self) -> bool {
        let is_request = self.has_version() && self.method().is_some();
        is_request && self.id.is_none() && !self.twice
    }

    fn has_version(&self) -> bool {
        self.version.as_ref().and_then(Scalar::text) == Some("2.0")
    }

    fn method(&self) -> Option<&str> {
        self.method.as_ref().and_then(Scalar::text)
    }

    fn asked(self) -> Result<Asked<'buf>, (FailureKind, WireError)> {
        let method = self.method().filter(|_| self.has_version());
        let method = method.ok_or((FailureKind::Request, WireError::new(ErrorReason::Malformed)))?;
        let asked = match (Verb::named(method.as_bytes()), method) {
            (Some(verb), _) => self.params.into_event(verb, &[]).map(|(event, _)| Asked::Decision(event)),
            (None, "ping") if self.params.is_empty() => Ok(Asked::Pong),
            (None, "ping") => Err(WireError::new(ErrorReason::UnknownKey)),
            // This listener has no token, and any is refused.
            (None, "auth") => Err(WireError::new(ErrorReason::Unauthenticated)),
            _ => return Err((FailureKind::Method, WireError::new(ErrorReason::UnknownVerb))),
        };
        asked.map_err(|error| (FailureKind::Params, error))
    }
}

fn answer<T: Serialize>(id: &[u8], result: T, output: &mut Vec<u8>) {
    if let Ok(id) = serde_json::from_slice(id) {
        netstring::wrap(output, |output| json::write(output, &Answered { jsonrpc: "2.0", id, result }));
    }
}

fn fail(id: &[u8], kind: FailureKind, error: WireError, output: &mut Vec<u8>) {
    if let Ok(id) = serde_json::from_slice(id) {
        let error = Failure::new(kind, error);
        netstring::wrap(output, |output| json::write(output, &Failed { jsonrpc: "2.0", id, error }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(payload: &str) -> String {
        format!("{}:{payload},", payload.len())
    }

    /// What is said to `payload`, and whether it is a question.
    fn said(payload: &str) -> String {
        let (mut room, mut output, mut kamailio) = (vec![], vec![], JsonRpc::new());
        let frame = framed(payload);
        let asked = match kamailio.next(frame.as_bytes(), &mut room, &mut output) {
            Step::Ask { consumed, id, .. } => {
                assert_eq!(consumed, frame.len());
                format!("? {}", std::str::from_utf8(id).unwrap())
            }
            Step::Done { consumed, after, .. } => {
                assert_eq!((consumed, after), (frame.len(), After::Continue));
                String::new()
            }
            Step::More | Step::Watch { .. } => panic!("{payload} is a whole question"),
        };
        let text = asked + std::str::from_utf8(&output).unwrap();
        text.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches(':').trim_end_matches(',').to_owned()
    }

    fn failed(id: &str, code: i32, message: &str, data: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{message}","data":{{"reason":{data}}}}}}}"#
        )
    }

    #[test]
    fn a_request_is_a_question_with_its_id() {
        let params = r#"{"org":"acme","actor":"1001","digits":"*13600"}"#;
        for (request, id) in [
            (format!(r#"{{"jsonrpc":"2.0","id":5,"method":"dial","params":{params}}}"#), "5"),
            (format!(r#"{{"params":{params},"method":"dial","id":"a\"b","jsonrpc":"2.0"}}"#), r#""a\"b""#),
            (format!(r#" {{"jsonrpc" : "2.0", "id":null, "method":"\u0064ial", "params":{params}}} "#), "null"),
            (format!(r#"{{"jsonrpc":"2.0","id":-1,"method":"dial","params":{params},"v":1,"v":{{}}}}"#), "-1"),
        ] {
            assert_eq!(said(&request), format!("? {id}"), "{request}");
        }
    }

    #[test]
    fn what_is_no_question_gets_an_error() {
        let request = |method: &str, params: &str| {
            said(&format!(r#"{{"jsonrpc":"2.0","id":5,"method":"{method}","params":{params}}}"#))
        };
        let params = |data: &str| failed("5", -32_602, "Invalid params", data);
        let cases = [
            (r#"{"org":"acme"}"#, r#""missing_key","key":"actor""#),
            ("{}", r#""missing_key","key":"org""#),
            (r#"{"org":"acme","org":"acme"}"#, r#""duplicate_key","key":"org""#),
            (r#"{"org":"acme","\u006frg":"acme"}"#, r#""duplicate_key","key":"org""#),
            (r#"{"qeue":"600"}"#, r#""unknown_key""#),
            (r#"{"target":"1001"}"#, r#""unknown_key","key":"target""#),
            (r#"{"org":7}"#, r#""malformed","key":"org""#),
            (r#"{"org":null}"#, r#""malformed","key":"org""#),
            (r#"{"org":"a\u0000"}"#, r#""malformed","key":"org""#),
            (r#"{"org":"é"}"#, r#""malformed","key":"org""#),
            (r#"{"digits":"*13sales\r\nX"}"#, r#""malformed","key":"digits""#),
            (r#"["acme","1001"]"#, r#""malformed""#),
            (r#""acme""#, r#""malformed""#),
            ("null", r#""malformed""#),
        ];
        for (given, data) in cases {
            assert_eq!(request("dial", given), params(data), "{given}");
        }
        assert_eq!(request("check", "{}"), failed("5", -32_601, "Method not found", r#""unknown_verb""#));
        assert_eq!(request("auth", r#"{"token":"x"}"#), params(r#""unauthenticated""#));
        assert_eq!(request("ping", r#"{"org":"x"}"#), params(r#""unknown_key""#));
        assert_eq!(request("ping", "{}"), r#"{"jsonrpc":"2.0","id":5,"result":{"pong":true}}"#);
    }

    #[test]
    fn what_is_no_request_gets_an_error_without_an_id() {
        let invalid = failed("null", -32_600, "Invalid Request", r#""malformed""#);
        let long = "7".repeat(JSONRPC_ID_BYTES_MAX + 1);
        for payload in [
            "[]",
            r#"[{"jsonrpc":"2.0","id":5,"method":"ping"}]"#,
            "7",
            "{}",
            r#"{"jsonrpc":"2.0","id":[5],"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":5,"id":5,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":5,"method":"ping","method":"ping"}"#,
            &format!(r#"{{"jsonrpc":"2.0","id":{long},"method":"ping"}}"#),
            r#"{"jsonrpc":"2.0","id":7e777,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":"\ud800","method":"ping"}"#,
        ] {
            assert_eq!(said(payload), invalid, "{payload}");
        }
        let invalid = failed("5", -32_600, "Invalid Request", r#""malformed""#);
        for payload in [
            r#"{"id":5,"method":"ping"}"#,
            r#"{"jsonrpc":"1.0","id":5,"method":"ping"}"#,
            r#"{"jsonrpc":2.0,"id":5,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":5}"#,
            r#"{"jsonrpc":"2.0","id":5,"method":7}"#,
        ] {
            assert_eq!(said(payload), invalid, "{payload}");
        }
        let parse = failed("null", -32_700, "Parse error", r#""malformed""#);
        for payload in ["", "{", r#"{"jsonrpc":"2.0","id":5,"method":"ping"}x"#, "{'id':5}", "\u{0}"] {
            assert_eq!(said(payload), parse, "{payload}");
        }
    }

    #[test]
    fn all_of_a_frame_is_utf_8_also_where_nobody_looks() {
        let parse = failed("null", -32_700, "Parse error", r#""malformed""#);
        for (before, after) in [
            (&br#"{"jsonrpc":"2.0","method":"dial","params":{"org":"a","digit"#[..], &br#"s":"*13"}}"#[..]),
            (br#"{"jsonrpc":"2.0","id":5,"method":"ping","params":{"#, b"}}"),
            (br#"{"jsonrpc":"2.0","id":5,"method":"ping","comment":""#, br#""}"#),
        ] {
            let payload = [before, b"\xff", after].concat();
            let frame = [format!("{}:", payload.len()).as_bytes(), &payload, b","].concat();
            let mut output = vec![];
            let step = JsonRpc::new().next(&frame, &mut vec![], &mut output).after();
            assert_eq!(step, Some(After::Continue));
            assert!(String::from_utf8(output).unwrap().contains(&parse));
        }
    }

    #[test]
    fn without_an_id_nothing_is_done_and_nothing_is_said() {
        for request in [
            r#"{"jsonrpc":"2.0","method":"dial","params":{"org":"acme","actor":"1001","digits":"*13600"}}"#,
            r#"{"jsonrpc":"2.0","method":"nonsense"}"#,
            r#"{"jsonrpc":"2.0","method":"ping"}"#,
        ] {
            assert_eq!(said(request), "", "{request}");
        }
    }

    #[test]
    fn what_is_no_netstring_ends_the_connection() {
        for (input, reason) in [(&b"hello"[..], "malformed"), (b"5000:", "too_long"), (b"1:x;", "malformed")] {
            let (mut kamailio, mut output) = (JsonRpc::new(), vec![]);
            let step = kamailio.next(input, &mut vec![], &mut output).after();
            assert_eq!(step, Some(After::Finish));
            let text = String::from_utf8(output).unwrap();
            assert!(text.contains(&failed("null", -32_700, "Parse error", &format!("\"{reason}\""))), "{text}");
            let mut more = vec![];
            assert_eq!(kamailio.next(b"2:{},", &mut vec![], &mut more).after(), Some(After::Finish));
            assert!(more.is_empty() && kamailio.give_up(None, b"", &mut more).is_none());
        }
    }

    #[test]
    fn seconds_may_be_a_number_and_nothing_else_may() {
        let ask = |seconds: &str| {
            said(&format!(
                r#"{{"jsonrpc":"2.0","id":5,"method":"do","params":{{"org":"a","actor":"1","action":"x","for":{seconds}}}}}"#
            ))
        };
        for seconds in ["60", "\"60\""] {
            assert_eq!(ask(seconds), "? 5");
        }
        let malformed = failed("5", -32_602, "Invalid params", r#""malformed","key":"for""#);
        for seconds in ["0", "-1", "1.5", "6e1", "[60]", "true", "\"060\"", "99999999999"] {
            assert_eq!(ask(seconds), malformed, "{seconds}");
        }
    }

    impl Step<'_> {
        fn after(&self) -> Option<After> {
            match self {
                Step::Done { after, .. } => Some(*after),
                _ => None,
            }
        }
    }
}
