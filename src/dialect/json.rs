//! What both Kamailio dialects share: the keys of a question as members of a JSON object, and an answer as such
//! members.
//!
//! A member that is no key is an error, and so is a duplicate: a misspelled `queue` must not mean every queue.
//! `serde_json` reads and writes. No text of the peer is written back except an id.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::decision::{Answer, AnswerQueues, ErrorReason, WireError};
use crate::dialect::fields::{Fields, Verb};
use crate::dialect::supervision_options;
use crate::event::{Event, Key, KeySet};

/// Receives one JSON value. [`JsonVisitor`] drives it; a reader takes the kinds of value that it knows and treats all
/// others alike.
trait ValueReader<'de>: Sized {
    type Value;

    fn string(self, _text: Cow<'de, str>) -> Self::Value {
        self.other()
    }

    fn unsigned(self, _number: u64) -> Self::Value {
        self.other()
    }

    /// Receives an object; must read all its members.
    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(self.other())
    }

    /// Receives a value of any other kind.
    fn other(self) -> Self::Value;
}

/// The one visitor of JSON values: passes every kind of value to a [`ValueReader`].
struct JsonVisitor<R>(R);

impl<'de, R: ValueReader<'de>> Visitor<'de> for JsonVisitor<R> {
    type Value = R::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(self.0.string(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.0.string(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(self.0.unsigned(number))
    }

    fn visit_i64<E>(self, _number: i64) -> Result<Self::Value, E> {
        Ok(self.0.other())
    }

    fn visit_f64<E>(self, _number: f64) -> Result<Self::Value, E> {
        Ok(self.0.other())
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Self::Value, E> {
        Ok(self.0.other())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(self.0.other())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self.0.other())
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
        self.0.object(members)
    }
}

/// A JSON value, as far as questions use one: a string, borrowed from the input unless it holds escapes, or a whole
/// number.
#[derive(Debug)]
pub(super) enum JsonScalar<'de> {
    Text(Cow<'de, str>),
    Number(u64),
    /// Any other value.
    Other,
}

impl JsonScalar<'_> {
    /// The text of a string.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) | Self::Other => None,
        }
    }
}

struct ScalarReader;

impl<'de> ValueReader<'de> for ScalarReader {
    type Value = JsonScalar<'de>;

    fn string(self, text: Cow<'de, str>) -> Self::Value {
        JsonScalar::Text(text)
    }

    fn unsigned(self, number: u64) -> Self::Value {
        JsonScalar::Number(number)
    }

    fn other(self) -> Self::Value {
        JsonScalar::Other
    }
}

impl<'de> Deserialize<'de> for JsonScalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor(ScalarReader))
    }
}

/// The name of a member.
struct MemberName<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for MemberName<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match JsonScalar::deserialize(deserializer)? {
            JsonScalar::Text(text) => Ok(Self(text)),
            JsonScalar::Number(_) | JsonScalar::Other => Err(D::Error::custom("not a name")),
        }
    }
}

/// A type that is filled member by member, in one pass over an object.
pub(super) trait ObjectReader<'de> {
    /// Reads the value of the member `name`.
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;

    /// Notes that the value is not an object.
    fn not_an_object(&mut self) {}
}

/// Fills the referenced [`ObjectReader`] from one JSON value.
pub(super) struct FillObject<'a, T>(pub(super) &'a mut T);

impl<'de, T: ObjectReader<'de>> ValueReader<'de> for FillObject<'_, T> {
    type Value = ();

    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<MemberName<'de>>()? {
            self.0.member(&name.0, &mut members)?;
        }
        Ok(())
    }

    fn other(self) {
        self.0.not_an_object();
    }
}

impl<'de, T: ObjectReader<'de>> DeserializeSeed<'de> for FillObject<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(JsonVisitor(self))
    }
}

/// Reads bytes that hold one JSON value.
///
/// # Errors
///
/// When the bytes are not JSON. All of them must be UTF-8, ignored members included; otherwise the order of the members
/// would decide how much of a broken request is believed.
pub(super) fn read<'de>(json: &'de [u8], object: &mut impl ObjectReader<'de>) -> Result<(), serde_json::Error> {
    let json = std::str::from_utf8(json).map_err(serde_json::Error::custom)?;
    let mut deserializer = serde_json::Deserializer::from_str(json);
    FillObject(object).deserialize(&mut deserializer)?;
    deserializer.end()
}

/// The keys whose value may be a whole number instead of a string.
const NUMBERS: KeySet = KeySet::of(&[Key::For, Key::Until, Key::Once]);

/// Where the bytes of a value are.
#[derive(Clone, Copy, Debug)]
enum ValueLocation<'buf> {
    /// In the input, as they are meant.
    Input(&'buf [u8]),
    /// In the buffer of decoded values.
    Decoded { start: usize, end: usize },
}

/// The keys of a question as members of an object, in their order, up to the first wrong one.
#[derive(Debug)]
pub(super) struct QuestionMembers<'buf> {
    values: [Option<(Key, ValueLocation<'buf>)>; Key::ALL.len()],
    count: usize,
    given: KeySet,
    error: Option<WireError>,
    /// Values that had to be decoded.
    decoded: &'buf mut Vec<u8>,
}

/// What the verb and the keys of a request ask for.
#[expect(clippy::large_enum_variant, reason = "it lives for one question, and a box would be an allocation")]
pub(super) enum JsonQuestion<'buf> {
    /// A decision, and a copy of the id that [`QuestionMembers::into_question`] was given.
    Event(Event<'buf>, &'buf [u8]),
    Ping,
}

impl<'buf> QuestionMembers<'buf> {
    /// Without members; clears the buffer of decoded values.
    pub(super) fn new(decoded: &'buf mut Vec<u8>) -> Self {
        decoded.clear();
        Self { values: [None; Key::ALL.len()], count: 0, given: KeySet::EMPTY, error: None, decoded }
    }

    /// Adds one member. `key` is `None` for a name that is no key. A value must be a string; those of
    /// [`NUMBERS`] may be a number.
    pub(super) fn add(&mut self, key: Option<Key>, value: JsonScalar<'buf>) {
        if self.error.is_some() {
            return;
        }
        let Some(key) = key else {
            self.error = Some(WireError::new(ErrorReason::UnknownKey));
            return;
        };
        let start = self.decoded.len();
        let location = match value {
            JsonScalar::Text(Cow::Borrowed(text)) => Some(ValueLocation::Input(text.as_bytes())),
            JsonScalar::Text(Cow::Owned(text)) => {
                self.decoded.extend_from_slice(text.as_bytes());
                Some(ValueLocation::Decoded { start, end: self.decoded.len() })
            }
            JsonScalar::Number(number) if NUMBERS.has(key) => {
                // Writing to a vector cannot fail.
                write!(self.decoded, "{number}").ok();
                Some(ValueLocation::Decoded { start, end: self.decoded.len() })
            }
            JsonScalar::Number(_) | JsonScalar::Other => None,
        };
        let slot = self.values.get_mut(self.count);
        match (location, slot) {
            _ if self.given.has(key) => self.error = Some(WireError::of(ErrorReason::DuplicateKey, key)),
            (Some(location), Some(slot)) => {
                *slot = Some((key, location));
                self.count = self.count.saturating_add(1);
                self.given = self.given.with(key);
            }
            _ => self.error = Some(WireError::of(ErrorReason::Malformed, key)),
        }
    }

    /// Makes the question of `verb` and these keys. `id` is copied behind the decoded values, so that a dialect whose
    /// id is not one slice of the input has one slice to return.
    ///
    /// # Errors
    ///
    /// When the verb is unknown, or the keys make no question.
    pub(super) fn into_question(self, verb: &str, id: &[u8]) -> Result<JsonQuestion<'buf>, JsonRequestError> {
        let error = match (Verb::named(verb), verb) {
            (Some(verb), _) => match self.into_event(verb, id) {
                Ok((event, id)) => return Ok(JsonQuestion::Event(event, id)),
                Err(error) => error,
            },
            (None, "ping") if self.count == 0 && self.error.is_none() => return Ok(JsonQuestion::Ping),
            (None, "ping") => WireError::new(ErrorReason::UnknownKey),
            // These dialects have no token, so any is refused.
            (None, "auth") => WireError::new(ErrorReason::Unauthenticated),
            _ => return Err(JsonRequestError::new(RequestErrorKind::Method, ErrorReason::UnknownVerb)),
        };
        Err(JsonRequestError { kind: RequestErrorKind::Params, error })
    }

    fn into_event(self, verb: Verb, id: &[u8]) -> Result<(Event<'buf>, &'buf [u8]), WireError> {
        let decoded_bytes = self.decoded.len();
        self.decoded.extend_from_slice(id);
        let (decoded, id) = self.decoded.split_at(decoded_bytes);
        let mut fields = Fields::new(verb);
        for (key, location) in self.values.into_iter().flatten() {
            let value = match location {
                ValueLocation::Input(value) => value,
                ValueLocation::Decoded { start, end } => decoded.get(start..end).unwrap_or_default(),
            };
            fields.set(key, value)?;
        }
        let event = self.error.map_or_else(|| fields.into_event(), Err)?;
        Ok((event, id))
    }
}

impl<'buf> ObjectReader<'buf> for QuestionMembers<'buf> {
    fn member<A: MapAccess<'buf>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        self.add(Key::named(name), map.next_value()?);
        Ok(())
    }

    fn not_an_object(&mut self) {
        self.error = Some(WireError::new(ErrorReason::Malformed));
    }
}

/// A decision as members of an object.
#[derive(serde::Serialize)]
pub(super) struct DecisionMembers<'a> {
    verdict: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'a str>,
    #[serde(serialize_with = "as_array")]
    queues: AnswerQueues<'a>,
    policy: u64,
    #[serde(flatten)]
    supervision: Option<SupervisionMembers<'a>>,
}

/// Further members of an allowed supervision.
#[derive(serde::Serialize)]
struct SupervisionMembers<'a> {
    mode: &'static str,
    target: &'a str,
    asterisk: &'static str,
    freeswitch: &'static str,
}

impl<'a> DecisionMembers<'a> {
    pub(super) fn of(answer: &Answer<'a>) -> Self {
        // Options without a target would let the supervisor listen to anybody.
        let supervision = answer.mode.zip(answer.target).map(|(mode, target)| SupervisionMembers {
            mode: mode.name(),
            target,
            asterisk: supervision_options::asterisk(mode),
            freeswitch: supervision_options::freeswitch(mode),
        });
        Self {
            verdict: answer.reason.verdict(),
            reason: answer.reason.code(),
            action: answer.action,
            queues: answer.queues,
            policy: answer.revision,
            supervision,
        }
    }
}

fn as_array<S: Serializer>(queues: &AnswerQueues<'_>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(queues.numbers())
}

/// The answer to `ping` as members of an object.
#[derive(serde::Serialize)]
pub(super) struct PongMembers {
    pong: bool,
}

/// The only value of [`PongMembers`].
pub(super) const PONG: PongMembers = PongMembers { pong: true };

/// Why a request was not decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JsonRequestError {
    pub(super) kind: RequestErrorKind,
    pub(super) error: WireError,
}

/// The kinds of error of JSON-RPC 2.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestErrorKind {
    /// The payload is not JSON, or the frame is not a netstring.
    Parse,
    /// The JSON is not a request; a batch, for example.
    Request,
    /// The method is unknown.
    Method,
    /// The members of `params` make no question.
    Params,
    /// The request is correct, but came too late or found no room.
    Server,
}

impl JsonRequestError {
    pub(super) const fn new(kind: RequestErrorKind, reason: ErrorReason) -> Self {
        Self { kind, error: WireError::new(reason) }
    }
}

/// A [`JsonRequestError`] as the member `error` of JSON-RPC 2.0.
#[derive(serde::Serialize)]
pub(super) struct ErrorMember {
    code: i32,
    message: &'static str,
    data: ErrorData,
}

#[derive(serde::Serialize)]
struct ErrorData {
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'static str>,
}

impl ErrorMember {
    pub(super) fn of(error: JsonRequestError) -> Self {
        let (code, message) = match error.kind {
            RequestErrorKind::Parse => (-32_700, "Parse error"),
            RequestErrorKind::Request => (-32_600, "Invalid Request"),
            RequestErrorKind::Method => (-32_601, "Method not found"),
            RequestErrorKind::Params => (-32_602, "Invalid params"),
            RequestErrorKind::Server => (-32_000, "Server error"),
        };
        let WireError { reason, key } = error.error;
        Self { code, message, data: ErrorData { reason: reason.code(), key: key.map(Key::name) } }
    }
}

/// Appends a value as JSON. Writing our own types to a vector cannot fail.
pub(super) fn write(output: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(output, value).ok();
}
