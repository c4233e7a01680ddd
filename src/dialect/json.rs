//! What both Kamailio dialects have in common: the keys of a question as members of a JSON object, and an answer as
//! one.
//!
//! A member that is no key of ours is an error, and so is one that stands twice: a misspelled `queue` must not come to
//! mean every queue. `serde_json` reads and writes; nothing of a peer's is written back but what the dialects say.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::decision::{Answer, AnswerQueues, ErrorReason, WireError};
use crate::dialect::fields::{Fields, Verb};
use crate::dialect::supervision_options;
use crate::event::{Event, Key, KeySet};

/// A value, as far as questions have any: a string, borrowed where it stands in the input as it is meant, or a whole
/// number.
#[derive(Debug)]
pub(super) enum Scalar<'de> {
    Text(Cow<'de, str>),
    Number(u64),
    Other,
}

impl Scalar<'_> {
    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) | Self::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;

        impl<'de> Visitor<'de> for ScalarVisitor {
            type Value = Scalar<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a value")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Scalar::Number(number))
            }

            fn visit_i64<E>(self, _number: i64) -> Result<Self::Value, E> {
                Ok(Scalar::Other)
            }

            fn visit_f64<E>(self, _number: f64) -> Result<Self::Value, E> {
                Ok(Scalar::Other)
            }

            fn visit_bool<E>(self, _value: bool) -> Result<Self::Value, E> {
                Ok(Scalar::Other)
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Scalar::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
                while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }

        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// A string that is the name of a member.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(deserializer)? {
            Scalar::Text(text) => Ok(Self(text)),
            Scalar::Number(_) | Scalar::Other => Err(D::Error::custom("not a name")),
        }
    }
}

/// Something that is read member by member, in one pass.
pub(super) trait Object<'de> {
    /// Takes the value of the member of this name.
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;

    /// What stands there is no object.
    fn other(&mut self) {}
}

/// Reads the members of an object into what is behind the reference.
pub(super) struct Into<'a, T>(pub(super) &'a mut T);

impl<'de, T: Object<'de>> DeserializeSeed<'de> for Into<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Object<'de>> Visitor<'de> for Into<'_, T> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Name<'de>>()? {
            self.0.member(&name.0, &mut map)?;
        }
        Ok(())
    }

    fn visit_str<E>(self, _text: &str) -> Result<(), E> {
        self.0.other();
        Ok(())
    }

    fn visit_u64<E>(self, _number: u64) -> Result<(), E> {
        self.0.other();
        Ok(())
    }

    fn visit_i64<E>(self, _number: i64) -> Result<(), E> {
        self.0.other();
        Ok(())
    }

    fn visit_f64<E>(self, _number: f64) -> Result<(), E> {
        self.0.other();
        Ok(())
    }

    fn visit_bool<E>(self, _value: bool) -> Result<(), E> {
        self.0.other();
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.other();
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        self.0.other();
        Ok(())
    }
}

/// Reads bytes that hold one JSON value. `Err` when they are no JSON. All of them must be UTF-8, also where nobody
/// looks: otherwise it would depend on the order of the members how much of a broken request was believed.
pub(super) fn read<'de>(json: &'de [u8], object: &mut impl Object<'de>) -> Result<(), serde_json::Error> {
    let json = std::str::from_utf8(json).map_err(serde_json::Error::custom)?;
    let mut deserializer = serde_json::Deserializer::from_str(json);
    Into(object).deserialize(&mut deserializer)?;
    deserializer.end()
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
    /// What had to be decoded.
    room: &'buf mut Vec<u8>,
}

impl<'buf> Members<'buf> {
    /// No member yet.
    pub(super) fn new(room: &'buf mut Vec<u8>) -> Self {
        room.clear();
        Self { values: [None; Key::ALL.len()], count: 0, given: KeySet::EMPTY, error: None, room }
    }

    /// Adds one member; `None` is a name that no key has. A value is a string; seconds may be a number.
    pub(super) fn add(&mut self, key: Option<Key>, value: Scalar<'buf>) {
        if self.error.is_some() {
            return;
        }
        let Some(key) = key else {
            self.error = Some(WireError::new(ErrorReason::UnknownKey));
            return;
        };
        let start = self.room.len();
        let place = match value {
            Scalar::Text(Cow::Borrowed(text)) => Some(Place::Input(text.as_bytes())),
            Scalar::Text(Cow::Owned(text)) => {
                self.room.extend_from_slice(text.as_bytes());
                Some(Place::Room { start, end: self.room.len() })
            }
            Scalar::Number(number) if key == Key::For => {
                // Writing to a vector cannot fail.
                drop(write!(self.room, "{number}"));
                Some(Place::Room { start, end: self.room.len() })
            }
            Scalar::Number(_) | Scalar::Other => None,
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

    /// The event that the members make, and the room behind what was decoded, filled with `behind`.
    pub(super) fn into_event(self, verb: Verb, behind: &[u8]) -> Result<(Event<'buf>, &'buf [u8]), WireError> {
        let decoded = self.room.len();
        self.room.extend_from_slice(behind);
        let (room, behind) = self.room.split_at(decoded);
        let mut fields = Fields::new(verb);
        for (key, place) in self.values.into_iter().flatten() {
            let value = match place {
                Place::Input(value) => value,
                Place::Room { start, end } => room.get(start..end).unwrap_or_default(),
            };
            fields.set(key, value)?;
        }
        let event = self.error.map_or_else(|| fields.into_event(), Err)?;
        Ok((event, behind))
    }
}

impl<'buf> Object<'buf> for Members<'buf> {
    fn member<A: MapAccess<'buf>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        self.add(Key::named(name), map.next_value()?);
        Ok(())
    }

    fn other(&mut self) {
        self.error = Some(WireError::new(ErrorReason::Malformed));
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
            asterisk: supervision_options::asterisk(mode),
            freeswitch: supervision_options::freeswitch(mode),
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
