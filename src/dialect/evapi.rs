//! Kamailio's `evapi`: netstrings on a connection that queuewarden opens to Kamailio and keeps; Kamailio asks.
//!
//! queuewarden connects to every address of `[connect] evapi = ["127.0.0.1:8448"]`, and reconnects 50 ms after a failure,
//! later after at most 1 s, without end. The frames are the netstrings of [`crate::dialect::jsonrpc`]. A message is one
//! object with the members of its `params`, and beside them `verb`, and `idx` and `lbl`, which name the suspended
//! transaction of Kamailio and come back with the answer. The key `verb` is spelled `object_verb`.
//!
//! ```text
//! > {"verb":"dial","org":"acme","actor":"1001","digits":"*13600","idx":47360,"lbl":2076268761}
//! < {"idx":47360,"lbl":2076268761,"verdict":"allow","reason":"assigned","action":"queue.login","queues":["600"],"policy":1}
//! > {"verb":"dial","org":"acme","idx":47361,"lbl":2076268762}
//! < {"idx":47361,"lbl":2076268762,"error":{"code":-32602,"message":"Invalid params","data":{"reason":"missing_key","key":"actor"}}}
//! ```
//!
//! - A message without `idx` and `lbl` is not carried out, because it cannot be answered.
//! - queuewarden never stops reading. Kamailio's sockets block, so a full socket would stop the whole SIP server. A
//!   Kamailio that reads its answers too slowly gets `overload`, then loses the connection.
//! - Every answer is one complete netstring in one write, because Kamailio loses an answer that it reads in two parts.
//! - A message that is no netstring ends the connection.
//! - Set `modparam("evapi", "workers", 0)`. From Kamailio 5.7 on, any other value makes Kamailio poll for answers, which
//!   adds half a second to every call.

use serde::Serialize;
use serde::de::MapAccess;
use serde_json::Value;

use crate::decision::{ErrorReason, Outcome, WireError};
use crate::dialect::connection::PersistentConnection;
use crate::dialect::json::{
    self, DecisionMembers, ErrorMember, JsonQuestion, JsonRequestError, JsonScalar, ObjectReader, PONG,
    QuestionMembers, RequestErrorKind,
};
use crate::dialect::netstring::{self, Frame};
use crate::dialect::readable::ReadableRequest;
use crate::dialect::{After, Dialect, DialectLabel, Patience, Step};
use crate::event::Key;
use crate::limits::EVAPI_WRITE_BYTES_MAX;

/// The member for the key `verb`: the member `verb` is the verb of the question.
const OBJECT_VERB: &str = "object_verb";

/// One connection to Kamailio.
#[derive(Clone, Debug, Default)]
pub struct Evapi {
    connection: PersistentConnection,
}

/// One message, as far as it was read.
#[derive(Debug)]
struct EvapiMessage<'buf> {
    verb: Option<JsonScalar<'buf>>,
    idx: Option<JsonScalar<'buf>>,
    lbl: Option<JsonScalar<'buf>>,
    members: QuestionMembers<'buf>,
    /// A member of the first three occurs twice.
    has_duplicate: bool,
}

/// The suspended transaction of Kamailio that a question belongs to.
#[derive(Clone, Copy, Debug, Serialize)]
struct Transaction {
    idx: u32,
    lbl: u32,
}

/// An answer, as it is written.
#[derive(Serialize)]
struct EvapiAnswer<T> {
    #[serde(flatten)]
    transaction: Transaction,
    #[serde(flatten)]
    result: T,
}

/// The result of a question that was not decided.
#[derive(Serialize)]
struct ErrorResult {
    error: ErrorMember,
}

impl Evapi {
    /// A new connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of bytes of `answers` to send in one write: complete netstrings, because Kamailio loses one that it reads
    /// in two parts, and at most [`EVAPI_WRITE_BYTES_MAX`] bytes, because it reads no more at once.
    #[must_use]
    pub fn one_write(answers: &[u8]) -> usize {
        let window = answers.get(..EVAPI_WRITE_BYTES_MAX).unwrap_or(answers);
        netstring::complete_frames_length(window)
    }
}

impl Dialect for Evapi {
    fn label(&self) -> DialectLabel {
        DialectLabel::Evapi
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
                return Step::Done { consumed: input.len(), fault: Some(WireError::new(reason)), after: After::Finish };
            }
        };
        let done = |fault| Step::Done { consumed, fault, after: After::Continue };
        let members = QuestionMembers::new(decoded);
        let mut message = EvapiMessage { verb: None, idx: None, lbl: None, members, has_duplicate: false };
        let read = json::read(payload, &mut message);
        let Some(transaction) = read.ok().and_then(|()| message.transaction()) else {
            return done(Some(WireError::new(ErrorReason::Malformed)));
        };
        match message.into_question(transaction) {
            Ok(JsonQuestion::Event(event, id)) => Step::Ask { consumed, event, id },
            Ok(JsonQuestion::Ping) => {
                transaction.append_answer(output, PONG);
                done(None)
            }
            Err(error) => {
                transaction.append_answer(output, ErrorResult { error: ErrorMember::of(error) });
                done(Some(error.error))
            }
        }
    }

    fn answer(&mut self, id: &[u8], outcome: &Outcome<'_>, output: &mut Vec<u8>) -> After {
        if let Some(transaction) = Transaction::from_id(id) {
            match outcome {
                Outcome::Decided(answer) => transaction.append_answer(output, DecisionMembers::of(answer)),
                Outcome::Faulty(error) => {
                    let error = JsonRequestError { kind: RequestErrorKind::Params, error: *error };
                    transaction.append_answer(output, ErrorResult { error: ErrorMember::of(error) });
                }
            }
        }
        After::Continue
    }

    /// Appends nothing: an answer without a transaction has no meaning to Kamailio.
    fn give_up(&mut self, reason: Option<ErrorReason>, unread: &[u8], _output: &mut Vec<u8>) -> Option<ErrorReason> {
        self.connection.give_up(reason, unread)
    }

    fn readable(&self, request: &[u8]) -> ReadableRequest {
        let mut readable = ReadableRequest::default();
        let Frame::Whole { payload, .. } = netstring::read(request) else { return readable };
        if let Ok(Value::Object(members)) = serde_json::from_slice(payload)
            && members.get("verb").is_none_or(|verb| verb != "auth")
        {
            readable.add_members(&members, &["verb", "idx", "lbl", OBJECT_VERB]);
        }
        readable
    }

    fn patience(&self, has_unread: bool) -> Patience {
        self.connection.patience(has_unread)
    }
}

impl<'buf> ObjectReader<'buf> for EvapiMessage<'buf> {
    fn member<A: MapAccess<'buf>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        let slot = match name {
            "verb" => &mut self.verb,
            "idx" => &mut self.idx,
            "lbl" => &mut self.lbl,
            OBJECT_VERB => {
                self.members.add(Some(Key::Verb), map.next_value()?);
                return Ok(());
            }
            name => return self.members.member(name, map),
        };
        self.has_duplicate |= slot.replace(map.next_value()?).is_some();
        Ok(())
    }
}

impl<'buf> EvapiMessage<'buf> {
    /// The transaction. `None`: `idx` or `lbl` is missing or not a number of 32 bits, or a member is a duplicate.
    fn transaction(&self) -> Option<Transaction> {
        let number = |value: &Option<JsonScalar<'_>>| match value {
            Some(JsonScalar::Number(number)) => u32::try_from(*number).ok(),
            _ => None,
        };
        let transaction = Transaction { idx: number(&self.idx)?, lbl: number(&self.lbl)? };
        (!self.has_duplicate).then_some(transaction)
    }

    fn into_question(self, transaction: Transaction) -> Result<JsonQuestion<'buf>, JsonRequestError> {
        let missing = JsonRequestError::new(RequestErrorKind::Request, ErrorReason::UnknownVerb);
        let verb = self.verb.as_ref().and_then(JsonScalar::text).ok_or(missing)?;
        self.members.into_question(verb, &transaction.id())
    }
}

impl Transaction {
    /// The transaction as the id of a question: `idx`, then `lbl`, big-endian.
    fn id(self) -> [u8; 8] {
        (u64::from(self.idx) << 32 | u64::from(self.lbl)).to_be_bytes()
    }

    /// The transaction of an id. `None`: the bytes are not the result of [`Transaction::id`].
    fn from_id(id: &[u8]) -> Option<Self> {
        let (idx, lbl) = id.split_first_chunk::<4>()?;
        Some(Self { idx: u32::from_be_bytes(*idx), lbl: u32::from_be_bytes(lbl.try_into().ok()?) })
    }

    fn append_answer<T: Serialize>(self, output: &mut Vec<u8>, result: T) {
        netstring::wrap(output, |output| json::write(output, &EvapiAnswer { transaction: self, result }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer to `payload`, without the netstring; of a question, its transaction.
    fn answer_to(payload: &str) -> String {
        let (mut room, mut output, mut kamailio) = (vec![], vec![], Evapi::new());
        let frame = format!("{}:{payload},", payload.len());
        let question = match kamailio.next(frame.as_bytes(), &mut room, &mut output) {
            Step::Ask { consumed, id, .. } => {
                assert_eq!(consumed, frame.len());
                format!("{:?}", Transaction::from_id(id).unwrap())
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

    #[test]
    fn a_message_is_a_question_with_its_transaction() {
        let question = "Transaction { idx: 47360, lbl: 2076268761 }";
        for message in [
            r#"{"verb":"dial","org":"acme","actor":"1001","digits":"*13600","idx":47360,"lbl":2076268761}"#,
            r#"{"idx":47360,"org":"acme","digits":"\u002a13600","actor":"1001","lbl":2076268761,"verb":"d\u0069al"}"#,
            r#"{"verb":"do","org":"a","actor":"1","action":"x","object_verb":"edit","idx":47360,"lbl":2076268761}"#,
        ] {
            assert_eq!(answer_to(message), question, "{message}");
        }
        assert_eq!(answer_to(r#"{"verb":"ping","idx":1,"lbl":2}"#), r#"{"idx":1,"lbl":2,"pong":true}"#);
    }

    #[test]
    fn a_message_that_is_no_question_gets_an_error_with_its_transaction() {
        let cases = [
            (r#""verb":"dial""#, r#""missing_key","key":"org""#),
            (r#""verb":"dial","org":"acme","org":"acme""#, r#""duplicate_key","key":"org""#),
            (r#""verb":"dial","qeue":"600""#, r#""unknown_key""#),
            (r#""verb":"dial","object_verb":"edit""#, r#""unknown_key","key":"verb""#),
            (r#""v":1,"verb":"dial""#, r#""unknown_key""#),
            (r#""verb":"dial","org":{}"#, r#""malformed","key":"org""#),
            (r#""verb":"check""#, r#""unknown_verb""#),
            (r#""verb":7"#, r#""unknown_verb""#),
            (r#""org":"acme""#, r#""unknown_verb""#),
            (r#""verb":"ping","org":"acme""#, r#""unknown_key""#),
            (r#""verb":"auth","token":"x""#, r#""unauthenticated""#),
        ];
        for (members, reason) in cases {
            let answer = answer_to(&format!(r#"{{{members},"idx":1,"lbl":2}}"#));
            let (start, end) =
                (r#"{"idx":1,"lbl":2,"error":{"code":-32"#, format!(r#""data":{{"reason":{reason}}}}}}}"#));
            assert!(answer.starts_with(start) && answer.ends_with(&end), "{members}: {answer}");
        }
    }

    #[test]
    fn a_message_without_a_transaction_is_neither_carried_out_nor_answered() {
        let question = r#""verb":"dial","org":"acme","actor":"1001","digits":"*13600""#;
        for rest in [
            "",
            r#","idx":1"#,
            r#","lbl":1"#,
            r#","idx":"1","lbl":1"#,
            r#","idx":-1,"lbl":1"#,
            r#","idx":1.0,"lbl":1"#,
            r#","idx":1,"lbl":4294967296"#,
            r#","idx":1,"idx":1,"lbl":1"#,
            r#","idx":1,"lbl":1,"verb":"dial""#,
        ] {
            assert_eq!(answer_to(&format!("{{{question}{rest}}}")), "", "{rest}");
        }
        for message in ["", "[]", "{", "7", "null"] {
            assert_eq!(answer_to(message), "", "{message}");
        }
    }
}
