//! What both Kamailio dialects have in common: the keys of a question as members of a JSON object, and an answer as
//! one.
//!
//! A member that is no key of ours is an error, and so is one that stands twice: a misspelled `queue` must not come to
//! mean every queue. `serde_json` reads and writes; nothing of a peer's is written back but what the dialects say.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::decision::{Answer, AnswerQueues, ErrorReason, WireError};
use crate::dialect::fields::{Fields, Verb, key_named};
use crate::dialect::pins;
use crate::event::{Event, Key, KeySet};

/// A string, borrowed where it stands in the input as it is meant.
#[derive(Debug)]
pub(super) struct Text<'de>(pub(super) Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

/// The text of a JSON value that is a string.
pub(super) fn text_of(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

/// Reads an object and hands out its members, in their order. `Err` when the bytes are no JSON object.
pub(super) fn read_object<'de>(
    json: &'de [u8],
    member: impl FnMut(Cow<'de, str>, &'de RawValue),
) -> Result<(), serde_json::Error> {
    struct Object<F>(F);

    impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue)> Visitor<'de> for Object<F> {
        type Value = ();

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some(name) = map.next_key::<Text<'de>>()? {
                let value = map.next_value::<&'de RawValue>()?;
                (self.0)(name.0, value);
            }
            Ok(())
        }
    }

    let mut deserializer = serde_json::Deserializer::from_slice(json);
    deserializer.deserialize_map(Object(member))?;
    deserializer.end()
}

/// Whether the bytes are JSON at all.
pub(super) fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok() && std::str::from_utf8(bytes).is_ok()
}

/// Where a value stands.
#[derive(Clone, Copy, Debug)]
enum Place<'buf> {
    Input(&'buf [u8]),
    Room { start: usize, end: usize },
}

/// The members of an object that are keys of a question, in their order, up to the first that is wrong.
#[derive(Debug)]
pub(super) struct Members<'buf> {
    values: [Option<(Key, Place<'buf>)>; Key::ALL.len()],
    count: usize,
    given: KeySet,
    error: Option<WireError>,
}

impl<'buf> Members<'buf> {
    /// No member yet.
    pub(super) const fn new() -> Self {
        Self { values: [None; Key::ALL.len()], count: 0, given: KeySet::EMPTY, error: None }
    }

    /// Reads the members of `params`.
    pub(super) fn read(params: &'buf RawValue, room: &mut Vec<u8>) -> Self {
        let mut members = Self::new();
        let read = read_object(params.get().as_bytes(), |name, value| {
            members.add(key_named(name.as_bytes()), value, room);
        });
        if read.is_err() {
            members.error = Some(WireError::new(ErrorReason::Malformed));
        }
        members
    }

    /// Adds one member; `None` is a name that no key has. A value is a string; seconds may be a number.
    pub(super) fn add(&mut self, key: Option<Key>, value: &'buf RawValue, room: &mut Vec<u8>) {
        if self.error.is_some() {
            return;
        }
        let Some(key) = key else {
            self.error = Some(WireError::new(ErrorReason::UnknownKey));
            return;
        };
        let place = match text_of(value) {
            Some(Cow::Borrowed(text)) => Some(Place::Input(text.as_bytes())),
            Some(Cow::Owned(text)) => {
                let start = room.len();
                room.extend_from_slice(text.as_bytes());
                Some(Place::Room { start, end: room.len() })
            }
            None => {
                let is_number = value.get().starts_with(|first: char| first.is_ascii_digit());
                (key == Key::For && is_number).then(|| Place::Input(value.get().as_bytes()))
            }
        };
        let slot = self.values.get_mut(self.count);
        match (place, slot) {
            _ if self.given.has(key) => self.error = Some(WireError::of(ErrorReason::DuplicateKey, key)),
            (Some(place), Some(slot)) => {
                *slot = Some((key, place));
                self.count = self.count.saturating_add(1);
                self.given = self.given.with(key);
            }
            _ => self.error = Some(WireError::of(ErrorReason::Malformed, key)),
        }
    }

    /// Whether there is no member, right or wrong.
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0 && self.error.is_none()
    }

    /// The event that the members make; `room` is what they were decoded into.
    pub(super) fn into_event(self, verb: Verb, room: &'buf [u8]) -> Result<Event<'buf>, WireError> {
        let mut fields = Fields::new(verb);
        for (key, place) in self.values.into_iter().flatten() {
            let value = match place {
                Place::Input(value) => value,
                Place::Room { start, end } => room.get(start..end).unwrap_or_default(),
            };
            fields.set(key, value)?;
        }
        self.error.map_or_else(|| fields.into_event(), Err)
    }
}

/// A decision as the members of an object.
#[derive(serde::Serialize)]
pub(super) struct Decided<'a> {
    verdict: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'a str>,
    #[serde(serialize_with = "as_array")]
    queues: AnswerQueues<'a>,
    policy: u64,
    #[serde(flatten)]
    pinned: Option<Pinned<'a>>,
}

/// What pins an allowed supervision down.
#[derive(serde::Serialize)]
struct Pinned<'a> {
    mode: &'static str,
    target: &'a str,
    asterisk: &'static str,
    freeswitch: &'static str,
}

impl<'a> Decided<'a> {
    pub(super) fn of(answer: &Answer<'a>) -> Self {
        // Without a target there is nothing to pin.
        let pinned = answer.mode.zip(answer.target).map(|(mode, target)| Pinned {
            mode: mode.name(),
            target,
            asterisk: pins::asterisk(mode),
            freeswitch: pins::freeswitch(mode),
        });
        Self {
            verdict: answer.reason.verdict(),
            reason: answer.reason.code(),
            action: answer.action,
            queues: answer.queues,
            policy: answer.revision,
            pinned,
        }
    }
}

fn as_array<S: Serializer>(queues: &AnswerQueues<'_>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(queues.numbers())
}

/// The answer to `ping`.
#[derive(serde::Serialize)]
pub(super) struct Pong {
    pong: bool,
}

/// The one pong.
pub(super) const PONG: Pong = Pong { pong: true };

/// Why there is no decision, as the member `error` of JSON-RPC 2.0.
#[derive(serde::Serialize)]
pub(super) struct Failure {
    code: i32,
    message: &'static str,
    data: FailureData,
}

#[derive(serde::Serialize)]
struct FailureData {
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'static str>,
}

/// What JSON-RPC 2.0 calls a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The payload is not JSON, or the frame is none.
    Parse,
    /// It is JSON, but no request; a batch, for example.
    Request,
    /// There is no such method.
    Method,
    /// The members of `params` make no question.
    Params,
    /// Nothing is wrong with the request: too late, or no room.
    Server,
}

impl Failure {
    pub(super) const fn new(kind: FailureKind, error: WireError) -> Self {
        let (code, message) = match kind {
            FailureKind::Parse => (-32_700, "Parse error"),
            FailureKind::Request => (-32_600, "Invalid Request"),
            FailureKind::Method => (-32_601, "Method not found"),
            FailureKind::Params => (-32_602, "Invalid params"),
            FailureKind::Server => (-32_000, "Server error"),
        };
        let key = match error.key {
            Some(key) => Some(key.name()),
            None => None,
        };
        Self { code, message, data: FailureData { reason: error.reason.code(), key } }
    }
}

/// Appends a value. Writing our own types to a vector cannot fail.
pub(super) fn write(output: &mut Vec<u8>, value: &impl Serialize) {
    drop(serde_json::to_writer(output, value));
}
