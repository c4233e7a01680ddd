//! Kamailio's `janssonrpcc`: JSON-RPC 2.0 in netstrings, on a connection that Kamailio opens and keeps.
//!
//! Kamailio connects to TCP port 4575 and sends requests as netstrings, `LENGTH:JSON,`. The method is the verb (`dial`,
//! `do`, `may`, `ping`, `auth`) and `params` an object with the keys of [`crate::dialect::fields::REQUEST_KEYS`].
//! Values are strings; `for`, `until` and `once` may be numbers. Many requests may be under way, and replies may come
//! in any order.
//!
//! ```text
//! > {"jsonrpc":"2.0","id":5,"method":"dial","params":{"org":"acme","actor":"1001","digits":"*13600"}}
//! < {"jsonrpc":"2.0","id":5,"result":{"verdict":"allow","reason":"assigned","action":"queue.login","queues":["600"],"policy":1}}
//! > {"jsonrpc":"2.0","id":6,"method":"dial","params":{"org":"acme","actor":"1001","digts":"*13600"}}
//! < {"jsonrpc":"2.0","id":6,"error":{"code":-32602,"message":"Invalid params","data":{"reason":"unknown_key"}}}
//! > {"jsonrpc":"2.0","id":7,"method":"ping"}
//! < {"jsonrpc":"2.0","id":7,"result":{"pong":true}}
//! ```
//!
//! - The members of a result are [`RESULT_MEMBERS`].
//! - Unknown members beside `params` are ignored. In `params` an unknown member is `unknown_key`, and a duplicate
//!   member is `duplicate_key`.
//! - A request that cannot be read gets a JSON-RPC error, and the connection goes on. `data.reason` is an error reason,
//!   `data.key` the key that is wrong. A batch is refused.
//! - A request without `id` is neither carried out nor answered.
//! - An `id` is a string, a number or null, of at most [`JSONRPC_ID_BYTES_MAX`] (64) bytes.
//! - A netstring has no leading zeros, no space, and at most 4,096 bytes of JSON. Any other frame ends the connection,
//!   because it is unknown where the next one begins.
//! - This listener has no token, so every `auth` is `unauthenticated`.

use serde::Serialize;
use serde::de::{IgnoredAny, MapAccess};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::decision::{ErrorReason, Outcome, WireError};
use crate::dialect::connection::PersistentConnection;
use crate::dialect::json::{
    self, DecisionMembers, ErrorMember, FillObject, JsonQuestion, JsonRequestError, JsonScalar, ObjectReader, PONG,
    QuestionMembers, RequestErrorKind,
};
use crate::dialect::netstring::{self, Frame};
use crate::dialect::readable::ReadableRequest;
use crate::dialect::{After, AnswerField, Dialect, DialectLabel, Patience, Step};
use crate::limits::JSONRPC_ID_BYTES_MAX;

/// The members of a result, in their order. evapi has the same.
pub const RESULT_MEMBERS: &[AnswerField] = &[
    result_member("verdict", "allow, deny", "`allow` or `deny`."),
    result_member("reason", "allow, deny", "The reason code."),
    result_member("action", "allow, deny", "The action that was decided. Missing if none was found."),
    result_member("queues", "allow, deny", "An array of queue numbers; empty if the question is about no queue."),
    result_member("policy", "allow, deny", "The revision of the policy that decided."),
    result_member("mode", "allow of a supervision", "`listen`, `whisper` or `barge`."),
    result_member("target", "allow of a supervision", "The extension of the supervised user."),
    result_member("asterisk", "allow of a supervision", "The options for `ChanSpy`."),
    result_member(
        "freeswitch",
        "allow of a supervision",
        "The channel variables for `eavesdrop`, as `name:value`, separated by `,`.",
    ),
];

const fn result_member(name: &'static str, carried_by: &'static str, description: &'static str) -> AnswerField {
    AnswerField { name, carried_by, description }
}

/// The id of an error whose request has no readable id.
const NO_ID: &[u8] = b"null";

/// One connection from Kamailio.
#[derive(Clone, Debug, Default)]
pub struct JsonRpc {
    connection: PersistentConnection,
}

/// One request, as far as it was read.
#[derive(Debug)]
struct RpcRequest<'buf> {
    version: Option<JsonScalar<'buf>>,
    id: Option<&'buf RawValue>,
    method: Option<JsonScalar<'buf>>,
    params: QuestionMembers<'buf>,
    has_params: bool,
    /// A member of the four above occurs twice.
    has_duplicate: bool,
    /// The JSON is not an object.
    is_no_object: bool,
}

/// A response with a result, as it is written.
#[derive(Serialize)]
struct ResultResponse<'a, T> {
    jsonrpc: &'static str,
    id: &'a RawValue,
    result: T,
}

/// A response with an error, as it is written.
#[derive(Serialize)]
struct ErrorResponse<'a> {
    jsonrpc: &'static str,
    id: &'a RawValue,
    error: ErrorMember,
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

    fn next<'buf>(&mut self, input: &'buf [u8], decoded: &'buf mut Vec<u8>, output: &mut Vec<u8>) -> Step<'buf> {
        if self.connection.is_finished() {
            return Step::Done { consumed: input.len(), fault: None, after: After::Finish };
        }
        let (payload, consumed) = match netstring::read(input) {
            Frame::More => return Step::More,
            Frame::Whole { payload, consumed } => (payload, consumed),
            Frame::Broken(reason) => {
                self.connection.finish();
                append_error(output, NO_ID, JsonRequestError::new(RequestErrorKind::Parse, reason));
                return Step::Done { consumed: input.len(), fault: Some(WireError::new(reason)), after: After::Finish };
            }
        };
        let done = |fault| Step::Done { consumed, fault, after: After::Continue };
        let request = match RpcRequest::read(payload, decoded) {
            Ok(request) => request,
            Err(kind) => {
                append_error(output, NO_ID, JsonRequestError::new(kind, ErrorReason::Malformed));
                return done(Some(WireError::new(ErrorReason::Malformed)));
            }
        };
        let Some(id) = request.readable_id() else {
            if !request.is_notification() {
                append_error(output, NO_ID, JsonRequestError::new(RequestErrorKind::Request, ErrorReason::Malformed));
            }
            return done(Some(WireError::new(ErrorReason::Malformed)));
        };
        match request.into_question() {
            Ok(JsonQuestion::Event(event, _)) => Step::Ask { consumed, event, id },
            Ok(JsonQuestion::Ping) => {
                append_result(output, id, PONG);
                done(None)
            }
            Err(error) => {
                append_error(output, id, error);
                done(Some(error.error))
            }
        }
    }

    fn reads_ahead(&self) -> bool {
        true
    }

    fn answer(&mut self, id: &[u8], outcome: &Outcome<'_>, output: &mut Vec<u8>) -> After {
        match outcome {
            Outcome::Decided(answer) => append_result(output, id, DecisionMembers::of(answer)),
            Outcome::Faulty(error) => {
                append_error(output, id, JsonRequestError { kind: RequestErrorKind::Params, error: *error });
            }
        }
        After::Continue
    }

    fn give_up(&mut self, reason: Option<ErrorReason>, unread: &[u8], output: &mut Vec<u8>) -> Option<ErrorReason> {
        let fault = self.connection.give_up(reason, unread)?;
        if reason.is_some() {
            append_error(output, NO_ID, JsonRequestError::new(RequestErrorKind::Server, fault));
        }
        Some(fault)
    }

    fn readable(&self, request: &[u8]) -> ReadableRequest {
        let mut readable = ReadableRequest::default();
        let Frame::Whole { payload, .. } = netstring::read(request) else { return readable };
        if let Ok(Value::Object(members)) = serde_json::from_slice(payload)
            && let Some(Value::Object(params)) = members.get("params")
            && members.get("method").is_none_or(|method| method != "auth")
        {
            readable.add_members(params, &[]);
        }
        readable
    }

    fn patience(&self, has_unread: bool) -> Patience {
        self.connection.patience(has_unread)
    }
}

impl<'buf> ObjectReader<'buf> for RpcRequest<'buf> {
    fn member<A: MapAccess<'buf>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "jsonrpc" => self.has_duplicate |= self.version.replace(map.next_value()?).is_some(),
            "id" => self.has_duplicate |= self.id.replace(map.next_value()?).is_some(),
            "method" => self.has_duplicate |= self.method.replace(map.next_value()?).is_some(),
            "params" => {
                map.next_value_seed(FillObject(&mut self.params))?;
                self.has_duplicate |= std::mem::replace(&mut self.has_params, true);
            }
            _ => {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn not_an_object(&mut self) {
        self.is_no_object = true;
    }
}

impl<'buf> RpcRequest<'buf> {
    fn read(payload: &'buf [u8], decoded: &'buf mut Vec<u8>) -> Result<Self, RequestErrorKind> {
        let mut request = Self {
            version: None,
            id: None,
            method: None,
            params: QuestionMembers::new(decoded),
            has_params: false,
            has_duplicate: false,
            is_no_object: false,
        };
        match json::read(payload, &mut request) {
            Ok(()) if request.is_no_object => Err(RequestErrorKind::Request),
            Ok(()) => Ok(request),
            Err(_) => Err(RequestErrorKind::Parse),
        }
    }

    /// The id, as it is written in the request. `None`: it is missing, too long, or not a string, a number or null. It
    /// is parsed because a raw value is only scanned: a number may be out of range and a string may end in half a
    /// character, and the peer could not read such an id in the response.
    fn readable_id(&self) -> Option<&'buf [u8]> {
        let id = self.id.filter(|id| !self.has_duplicate && id.get().len() <= JSONRPC_ID_BYTES_MAX)?.get();
        let is_scalar = id == "null" || id.starts_with(|first: char| matches!(first, '"' | '-' | '0'..='9'));
        (is_scalar && serde_json::from_str::<JsonScalar<'_>>(id).is_ok()).then_some(id.as_bytes())
    }

    /// Whether the request is a notification, which gets no response, not even an error.
    fn is_notification(&self) -> bool {
        self.has_version() && self.method().is_some() && self.id.is_none() && !self.has_duplicate
    }

    fn has_version(&self) -> bool {
        self.version.as_ref().and_then(JsonScalar::text) == Some("2.0")
    }

    fn method(&self) -> Option<&str> {
        self.method.as_ref().and_then(JsonScalar::text)
    }

    fn into_question(self) -> Result<JsonQuestion<'buf>, JsonRequestError> {
        let has_version = self.has_version();
        match self.method.as_ref().and_then(JsonScalar::text) {
            Some(method) if has_version => self.params.into_question(method, &[]),
            _ => Err(JsonRequestError::new(RequestErrorKind::Request, ErrorReason::Malformed)),
        }
    }
}

fn append_result<T: Serialize>(output: &mut Vec<u8>, id: &[u8], result: T) {
    if let Ok(id) = serde_json::from_slice(id) {
        netstring::wrap(output, |output| json::write(output, &ResultResponse { jsonrpc: "2.0", id, result }));
    }
}

fn append_error(output: &mut Vec<u8>, id: &[u8], error: JsonRequestError) {
    if let Ok(id) = serde_json::from_slice(id) {
        let error = ErrorMember::of(error);
        netstring::wrap(output, |output| json::write(output, &ErrorResponse { jsonrpc: "2.0", id, error }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(payload: &str) -> String {
        format!("{}:{payload},", payload.len())
    }

    /// The response to `payload`; of a question, `? ` and its id.
    fn response_to(payload: &str) -> String {
        let (mut room, mut output, mut kamailio) = (vec![], vec![], JsonRpc::new());
        let frame = framed(payload);
        let question = match kamailio.next(frame.as_bytes(), &mut room, &mut output) {
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
        let text = question + std::str::from_utf8(&output).unwrap();
        text.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches(':').trim_end_matches(',').to_owned()
    }

    fn error_response(id: &str, code: i32, message: &str, data: &str) -> String {
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
            assert_eq!(response_to(&request), format!("? {id}"), "{request}");
        }
    }

    #[test]
    fn a_wrong_question_gets_an_error() {
        let request = |method: &str, params: &str| {
            response_to(&format!(r#"{{"jsonrpc":"2.0","id":5,"method":"{method}","params":{params}}}"#))
        };
        let params = |data: &str| error_response("5", -32_602, "Invalid params", data);
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
        assert_eq!(request("check", "{}"), error_response("5", -32_601, "Method not found", r#""unknown_verb""#));
        assert_eq!(request("auth", r#"{"token":"x"}"#), params(r#""unauthenticated""#));
        assert_eq!(request("ping", r#"{"org":"x"}"#), params(r#""unknown_key""#));
        assert_eq!(request("ping", "{}"), r#"{"jsonrpc":"2.0","id":5,"result":{"pong":true}}"#);
    }

    #[test]
    fn a_wrong_request_gets_an_error_without_an_id() {
        let invalid = error_response("null", -32_600, "Invalid Request", r#""malformed""#);
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
            assert_eq!(response_to(payload), invalid, "{payload}");
        }
        let invalid = error_response("5", -32_600, "Invalid Request", r#""malformed""#);
        for payload in [
            r#"{"id":5,"method":"ping"}"#,
            r#"{"jsonrpc":"1.0","id":5,"method":"ping"}"#,
            r#"{"jsonrpc":2.0,"id":5,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":5}"#,
            r#"{"jsonrpc":"2.0","id":5,"method":7}"#,
        ] {
            assert_eq!(response_to(payload), invalid, "{payload}");
        }
        let parse = error_response("null", -32_700, "Parse error", r#""malformed""#);
        for payload in ["", "{", r#"{"jsonrpc":"2.0","id":5,"method":"ping"}x"#, "{'id':5}", "\u{0}"] {
            assert_eq!(response_to(payload), parse, "{payload}");
        }
    }

    #[test]
    fn a_frame_must_be_utf_8_in_ignored_members_too() {
        let parse = error_response("null", -32_700, "Parse error", r#""malformed""#);
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
    fn a_request_without_an_id_is_neither_carried_out_nor_answered() {
        for request in [
            r#"{"jsonrpc":"2.0","method":"dial","params":{"org":"acme","actor":"1001","digits":"*13600"}}"#,
            r#"{"jsonrpc":"2.0","method":"nonsense"}"#,
            r#"{"jsonrpc":"2.0","method":"ping"}"#,
        ] {
            assert_eq!(response_to(request), "", "{request}");
        }
    }

    #[test]
    fn a_frame_that_is_no_netstring_ends_the_connection() {
        for (input, reason) in [(&b"hello"[..], "malformed"), (b"5000:", "too_long"), (b"1:x;", "malformed")] {
            let (mut kamailio, mut output) = (JsonRpc::new(), vec![]);
            let step = kamailio.next(input, &mut vec![], &mut output).after();
            assert_eq!(step, Some(After::Finish));
            let text = String::from_utf8(output).unwrap();
            assert!(text.contains(&error_response("null", -32_700, "Parse error", &format!("\"{reason}\""))), "{text}");
            let mut more = vec![];
            assert_eq!(kamailio.next(b"2:{},", &mut vec![], &mut more).after(), Some(After::Finish));
            assert!(more.is_empty() && kamailio.give_up(None, b"", &mut more).is_none());
        }
    }

    #[test]
    fn only_seconds_may_be_a_number() {
        let ask = |seconds: &str| {
            response_to(&format!(
                r#"{{"jsonrpc":"2.0","id":5,"method":"do","params":{{"org":"a","actor":"1","action":"x","for":{seconds}}}}}"#
            ))
        };
        for seconds in ["60", "\"60\""] {
            assert_eq!(ask(seconds), "? 5");
        }
        let malformed = error_response("5", -32_602, "Invalid params", r#""malformed","key":"for""#);
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
