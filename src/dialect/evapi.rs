//! Kamailio's `evapi`: netstrings on a connection that we open to Kamailio; the questions come from there all the same.
//!
//! ```text
//! > 108:{"verb":"dial","org":"acme","actor":"1001","digits":"*13600","idx":47360,"lbl":2076268761},
//! < 119:{"idx":47360,"lbl":2076268761,"verdict":"allow","reason":"assigned",…},
//! ```
//!
//! `idx` and `lbl` name the suspended transaction: the answer carries them back, out of our own numbers. A message
//! without both cannot be answered, so nothing is done for it. Every answer is one whole netstring; a message that is
//! no netstring ends the connection.

use serde::Serialize;
use serde::de::MapAccess;

use crate::decision::{ErrorReason, Outcome, WireError};
use crate::dialect::fields::Verb;
use crate::dialect::json::{self, Decided, Failure, FailureKind, Members, Object, PONG, Scalar};
use crate::dialect::netstring::{self, Frame};
use crate::dialect::{After, Dialect, DialectLabel, Patience, Step};
use crate::event::{Event, Key};
use crate::limits::EVAPI_WRITE_BYTES_MAX;

/// The member for the key `verb`, whose own name is taken by what the question is: `dial`, `do` or `may`.
const OBJECT_VERB: &str = "object_verb";

/// One connection to Kamailio.
#[derive(Clone, Debug, Default)]
pub struct Evapi {
    finished: bool,
}

/// A message.
#[derive(Debug)]
struct Message<'buf> {
    verb: Option<Scalar<'buf>>,
    index: Option<Scalar<'buf>>,
    label: Option<Scalar<'buf>>,
    members: Members<'buf>,
    /// A member of the first three stands twice.
    twice: bool,
}

/// The suspended transaction that a question belongs to.
#[derive(Clone, Copy, Debug, Serialize)]
struct Transaction {
    idx: u32,
    lbl: u32,
}

/// What a message asks for.
enum Asked<'buf> {
    /// With the name of its transaction.
    Decision(Event<'buf>, &'buf [u8]),
    Pong,
}

/// What is written.
#[derive(Serialize)]
struct Answered<T> {
    #[serde(flatten)]
    transaction: Transaction,
    #[serde(flatten)]
    result: T,
}

/// What is written when there is no decision.
#[derive(Serialize)]
struct Failed {
    error: Failure,
}

impl Evapi {
    /// A new connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many of these answers go into one write: whole netstrings, because Kamailio loses one that it reads in two
    /// parts, and at most [`EVAPI_WRITE_BYTES_MAX`] bytes, because it reads no more at once.
    #[must_use]
    pub fn one_write(answers: &[u8]) -> usize {
        let window = answers.get(..EVAPI_WRITE_BYTES_MAX).unwrap_or(answers);
        netstring::whole(window)
    }
}

impl Dialect for Evapi {
    fn label(&self) -> DialectLabel {
        DialectLabel::Evapi
    }

    fn next<'buf>(&mut self, input: &'buf [u8], room: &'buf mut Vec<u8>, output: &mut Vec<u8>) -> Step<'buf> {
        let (payload, consumed) = match netstring::read(input) {
            _ if self.finished => return Step::Done { consumed: input.len(), fault: None, after: After::Finish },
            Frame::More => return Step::More,
            Frame::Whole { payload, consumed } => (payload, consumed),
            Frame::Broken(reason) => {
                self.finished = true;
                return Step::Done { consumed: input.len(), fault: Some(reason), after: After::Finish };
            }
        };
        let done = |fault| Step::Done { consumed, fault, after: After::Continue };
        let mut message = Message { verb: None, index: None, label: None, members: Members::new(room), twice: false };
        let read = json::read(payload, &mut message);
        let Some(transaction) = read.ok().and_then(|()| message.transaction()) else {
            return done(Some(ErrorReason::Malformed));
        };
        match message.asked(transaction) {
            Ok(Asked::Decision(event, id)) => Step::Ask { consumed, event, id },
            Ok(Asked::Pong) => {
                transaction.answer(PONG, output);
                done(None)
            }
            Err((kind, error)) => {
                transaction.answer(Failed { error: Failure::new(kind, error) }, output);
                done(Some(error.reason))
            }
        }
    }

    fn answer(&mut self, id: &[u8], outcome: &Outcome<'_>, output: &mut Vec<u8>) -> After {
        if let Some(transaction) = Transaction::named(id) {
            match outcome {
                Outcome::Decided(decided) => transaction.answer(Decided::of(decided), output),
                Outcome::Faulty(error) => {
                    transaction.answer(Failed { error: Failure::new(FailureKind::Params, *error) }, output);
                }
            }
        }
        After::Continue
    }

    /// Nothing can be said to Kamailio that is not about a transaction.
    fn give_up(&mut self, reason: Option<ErrorReason>, unread: &[u8], _output: &mut Vec<u8>) -> Option<ErrorReason> {
        if std::mem::replace(&mut self.finished, true) {
            return None;
        }
        reason.or_else(|| (!unread.is_empty()).then_some(ErrorReason::Malformed))
    }

    fn patience(&self, has_unread: bool) -> Patience {
        match (self.finished, has_unread) {
            (true, _) => Patience::Closing,
            (false, true) => Patience::Frame,
            (false, false) => Patience::Endless,
        }
    }
}

impl<'buf> Object<'buf> for Message<'buf> {
    fn member<A: MapAccess<'buf>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        let slot = match name {
            "verb" => &mut self.verb,
            "idx" => &mut self.index,
            "lbl" => &mut self.label,
            OBJECT_VERB => {
                self.members.add(Some(Key::Verb), map.next_value()?);
                return Ok(());
            }
            name => return self.members.member(name, map),
        };
        self.twice |= slot.replace(map.next_value()?).is_some();
        Ok(())
    }
}

impl<'buf> Message<'buf> {
    /// The transaction; without it, or with two, nobody can be answered.
    fn transaction(&self) -> Option<Transaction> {
        let number = |value: &Option<Scalar<'_>>| match value {
            Some(Scalar::Number(number)) => u32::try_from(*number).ok(),
            _ => None,
        };
        let transaction = Transaction { idx: number(&self.index)?, lbl: number(&self.label)? };
        (!self.twice).then_some(transaction)
    }

    fn asked(self, transaction: Transaction) -> Result<Asked<'buf>, (FailureKind, WireError)> {
        let missing = (FailureKind::Request, WireError::new(ErrorReason::UnknownVerb));
        let verb = self.verb.as_ref().and_then(Scalar::text).ok_or(missing)?;
        let asked = match (Verb::named(verb.as_bytes()), verb) {
            // The name of the transaction stands in two places of the input, and has to stand in one.
            (Some(verb), _) => {
                let asked = self.members.into_event(verb, &transaction.name());
                asked.map(|(event, name)| Asked::Decision(event, name))
            }
            (None, "ping") if self.members.is_empty() => Ok(Asked::Pong),
            (None, "ping") => Err(WireError::new(ErrorReason::UnknownKey)),
            // There is no token here, and any is refused.
            (None, "auth") => Err(WireError::new(ErrorReason::Unauthenticated)),
            _ => return Err((FailureKind::Method, WireError::new(ErrorReason::UnknownVerb))),
        };
        asked.map_err(|error| (FailureKind::Params, error))
    }
}

impl Transaction {
    /// Its name among the questions of a connection.
    fn name(self) -> [u8; 8] {
        (u64::from(self.idx) << 32 | u64::from(self.lbl)).to_be_bytes()
    }

    /// The transaction of this name.
    fn named(name: &[u8]) -> Option<Self> {
        let (idx, lbl) = name.split_first_chunk::<4>()?;
        Some(Self { idx: u32::from_be_bytes(*idx), lbl: u32::from_be_bytes(lbl.try_into().ok()?) })
    }

    fn answer<T: Serialize>(self, result: T, output: &mut Vec<u8>) {
        netstring::wrap(output, |output| json::write(output, &Answered { transaction: self, result }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said to `payload`, without the netstring; questions are shown by the name of their transaction.
    fn said(payload: &str) -> String {
        let (mut room, mut output, mut kamailio) = (vec![], vec![], Evapi::new());
        let frame = format!("{}:{payload},", payload.len());
        let asked = match kamailio.next(frame.as_bytes(), &mut room, &mut output) {
            Step::Ask { consumed, id, .. } => {
                assert_eq!(consumed, frame.len());
                format!("{:?}", Transaction::named(id).unwrap())
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

    #[test]
    fn a_message_is_a_question_with_its_transaction() {
        let asked = "Transaction { idx: 47360, lbl: 2076268761 }";
        for message in [
            r#"{"verb":"dial","org":"acme","actor":"1001","digits":"*13600","idx":47360,"lbl":2076268761}"#,
            r#"{"idx":47360,"org":"acme","digits":"\u002a13600","actor":"1001","lbl":2076268761,"verb":"d\u0069al"}"#,
            r#"{"verb":"do","org":"a","actor":"1","action":"x","object_verb":"edit","idx":47360,"lbl":2076268761}"#,
        ] {
            assert_eq!(said(message), asked, "{message}");
        }
        assert_eq!(said(r#"{"verb":"ping","idx":1,"lbl":2}"#), r#"{"idx":1,"lbl":2,"pong":true}"#);
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
            let heard = said(&format!(r#"{{{members},"idx":1,"lbl":2}}"#));
            let (start, end) =
                (r#"{"idx":1,"lbl":2,"error":{"code":-32"#, format!(r#""data":{{"reason":{reason}}}}}}}"#));
            assert!(heard.starts_with(start) && heard.ends_with(&end), "{members}: {heard}");
        }
    }

    #[test]
    fn without_a_transaction_nothing_is_done_and_nothing_is_said() {
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
            assert_eq!(said(&format!("{{{question}{rest}}}")), "", "{rest}");
        }
        for message in ["", "[]", "{", "7", "null"] {
            assert_eq!(said(message), "", "{message}");
        }
    }
}
