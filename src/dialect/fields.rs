//! The verbs and keys of a question, shared by every dialect.
//!
//! [`Fields`] collects the keys of one question and checks their values, their duplicates and their gaps. [`VERBS`] and
//! [`REQUEST_KEYS`] describe the same grammar for help, documents and tests.
//!
//! A value is 1 to 128 bytes of `A-Z a-z 0-9 _ - . : @ + * #`; an id of a call or a tag may also hold `/ ~ % !`. A
//! wrong value is refused and never repaired. A key that the verb does not have is an error, because a misspelled
//! `queue` must not mean every queue.

use crate::decision::{ErrorReason, WireError};
use crate::event::{AttributeSet, Event, Intent, Key, KeySet, Request};
use crate::limits::{LEASE_SECONDS_MAX, ONCE_BYTES_MAX};
use crate::telephony::{Alphabet, Digits, Token, UnixMillis, Via, closed_list};

/// Digits of a Unix time in milliseconds.
const UNTIL_DIGITS: usize = 13;

closed_list! {
    /// The verbs that ask for a decision.
    Verb {
        /// A question by dialed digits; carried out if it is allowed.
        Dial = "dial",
        /// A question by the name of an action; carried out if it is allowed.
        Do = "do",
        /// A question by the name of an action; changes nothing.
        May = "may",
    }
}

/// Keys that the PBX itself knows of a dialed call. No other key may come with digits, because a phone could dial it.
const DIAL_KEYS: KeySet = KeySet::of(&[
    Key::Organization,
    Key::Actor,
    Key::Digits,
    Key::Queue,
    Key::Call,
    Key::FromTag,
    Key::ToTag,
    Key::Via,
    Key::Until,
    Key::Once,
]);

const ACTION_KEYS: KeySet = KeySet::of(&[
    Key::Organization,
    Key::Actor,
    Key::Action,
    Key::Call,
    Key::Conversation,
    Key::Field,
    Key::For,
    Key::From,
    Key::FromTag,
    Key::Group,
    Key::InUse,
    Key::Kind,
    Key::PauseReason,
    Key::Queue,
    Key::Role,
    Key::Section,
    Key::Target,
    Key::ToTag,
    Key::Verb,
    Key::Via,
    Key::Until,
    Key::Once,
]);

/// One verb of the line dialect and of JSON-RPC, with its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerbReference {
    /// The word on the wire.
    pub name: &'static str,
    /// Keys that must be given, in the order in which a missing one is reported.
    pub required: &'static [Key],
    /// Every key that may be given, the required ones included.
    pub admitted: KeySet,
    /// What the verb does, in one sentence.
    pub description: &'static str,
}

/// Every verb. `watch` is in the line dialect only.
pub const VERBS: &[VerbReference] = &[
    VerbReference {
        name: "dial",
        required: &[Key::Organization, Key::Actor, Key::Digits],
        admitted: DIAL_KEYS,
        description: "Looks the digits up in the organization's feature codes and carries out what they mean, if it is \
                      allowed.",
    },
    VerbReference {
        name: "do",
        required: &[Key::Organization, Key::Actor, Key::Action],
        admitted: ACTION_KEYS,
        description: "Carries out a named action, if it is allowed.",
    },
    VerbReference {
        name: "may",
        required: &[Key::Organization, Key::Actor, Key::Action],
        admitted: ACTION_KEYS,
        description: "Answers as `do` would, and changes nothing.",
    },
    VerbReference {
        name: "auth",
        required: &[Key::Token],
        admitted: KeySet::of(&[Key::Token]),
        description: "Presents a token of `[[peers]]`; required where a token is the proof of a peer, refused where \
                      it is not.",
    },
    VerbReference { name: "ping", required: &[], admitted: KeySet::EMPTY, description: "Is answered `pong`." },
    VerbReference {
        name: "watch",
        required: &[Key::Organization],
        admitted: KeySet::of(&[Key::Organization, Key::From]),
        description: "Turns the connection into a list of the organization's changes.",
    },
];

/// One key of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// The key.
    pub key: Key,
    /// The values of the key. Empty for a key with a closed list, whose values are in
    /// [`crate::event::ATTRIBUTE_VALUES`].
    pub values: &'static str,
    /// The meaning of the key, in one or two sentences.
    pub description: &'static str,
}

/// Every key, in the order in which documents list them.
pub const REQUEST_KEYS: &[RequestKey] = &[
    request_key(Key::Organization, "a name", "The organization."),
    request_key(Key::Actor, "an extension or a user id", "The user who asks."),
    request_key(Key::Action, "a name", "The action to carry out."),
    request_key(Key::Digits, "1 to 128 of `0-9 * #`", "The digits that the user dialed."),
    request_key(Key::Queue, "a queue number or id", "The queue; for a supervision, the queue of the call."),
    request_key(Key::Target, "an extension or a user id", "The user that the action is carried out on."),
    request_key(Key::Call, "an id", "The call that the question is about."),
    request_key(Key::ToTag, "an id", "The SIP tag of the called side of the call. It does not affect the decision."),
    request_key(
        Key::FromTag,
        "an id",
        "The SIP tag of the caller's side of the call. It does not affect the decision.",
    ),
    request_key(Key::Via, "", "The channel that the request came by; `phone` unless given."),
    request_key(Key::For, "1 to 2,678,400 seconds", "How long a login by a supervisor lasts."),
    request_key(
        Key::From,
        "a queue number or id",
        "The queue that the user is moved from; `queue` is where to. For `watch`: the last revision that was read.",
    ),
    request_key(
        Key::PauseReason,
        "1 to 128 bytes of the value grammar",
        "Why the user pauses; `queuewarden sessions` shows it.",
    ),
    request_key(
        Key::Conversation,
        "",
        "Whose conversation; `agent` unless given. `unassigned` and `bot` have no target.",
    ),
    request_key(Key::Group, "a group id", "A group of users."),
    request_key(Key::Role, "a role of the model", "The role that is given."),
    request_key(Key::Field, "", "The field of an object that is viewed or edited."),
    request_key(Key::Section, "", "A section of the general settings."),
    request_key(Key::Kind, "", "The kind of channel."),
    request_key(Key::Verb, "", "The operation on the object."),
    request_key(Key::InUse, "", "Whether the object is in use."),
    request_key(
        Key::Until,
        "Unix time in milliseconds, 13 digits, at most 60 s ahead",
        "When the asker stops waiting. A `do` or `dial` that is read, durable or answered later is `deny \
         reason=too_late` and changes nothing; `may` ignores it.",
    ),
    request_key(
        Key::Once,
        "1 to 64 bytes of the value grammar",
        "The name of the question. The same question of the same actor under the same name within 60 s gets the first \
         answer again and changes nothing; another question under it is `error reason=duplicate_once`. `may` ignores it.",
    ),
    request_key(Key::Token, "1 to 128 bytes of the value grammar", "The secret of `auth`."),
];

const _: () = assert!(LEASE_SECONDS_MAX == 2_678_400, "the values of `for`");

const fn request_key(key: Key, values: &'static str, description: &'static str) -> RequestKey {
    RequestKey { key, values, description }
}

/// The keys of one question, as far as they were read.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'buf> {
    verb: Verb,
    admitted: KeySet,
    given: KeySet,
    organization: Option<Token<'buf>>,
    is_by_domain: bool,
    actor: Option<Token<'buf>>,
    action: Option<Token<'buf>>,
    digits: Option<Digits<'buf>>,
    queue: Option<Token<'buf>>,
    target: Option<Token<'buf>>,
    from: Option<Token<'buf>>,
    group: Option<Token<'buf>>,
    role: Option<Token<'buf>>,
    call: Option<Token<'buf>>,
    pause_reason: Option<Token<'buf>>,
    to_tag: Option<Token<'buf>>,
    from_tag: Option<Token<'buf>>,
    via: Via,
    lease_seconds: Option<u32>,
    attributes: AttributeSet,
    until: Option<UnixMillis>,
    once: Option<Token<'buf>>,
}

impl<'buf> Fields<'buf> {
    /// Without any key.
    #[must_use]
    pub const fn new(verb: Verb) -> Self {
        let admitted = match verb {
            Verb::Dial => DIAL_KEYS,
            Verb::Do | Verb::May => ACTION_KEYS,
        };
        Self {
            verb,
            admitted,
            given: KeySet::EMPTY,
            organization: None,
            is_by_domain: false,
            actor: None,
            action: None,
            digits: None,
            queue: None,
            target: None,
            from: None,
            group: None,
            role: None,
            call: None,
            pause_reason: None,
            to_tag: None,
            from_tag: None,
            via: Via::Phone,
            lease_seconds: None,
            attributes: AttributeSet::EMPTY,
            until: None,
            once: None,
        }
    }

    /// Makes an event of pairs of key and value; see [`Event`] for an example.
    ///
    /// # Errors
    ///
    /// As [`Fields::set`] and [`Fields::into_event`].
    pub fn event_of<V: AsRef<[u8]> + ?Sized + 'buf>(
        verb: Verb,
        pairs: impl IntoIterator<Item = (Key, &'buf V)>,
    ) -> Result<Event<'buf>, WireError> {
        let mut fields = Self::new(verb);
        for (key, value) in pairs {
            fields.set(key, value)?;
        }
        fields.into_event()
    }

    /// Whether the key was given.
    #[must_use]
    pub const fn has(&self, key: Key) -> bool {
        self.given.has(key)
    }

    /// Reads `key=value`. Keys in `barred` are refused as if the verb did not have them.
    ///
    /// # Errors
    ///
    /// As [`Fields::set`], and when the bytes are not a pair.
    pub fn set_pair(&mut self, pair: &'buf [u8], barred: KeySet) -> Result<(), WireError> {
        let (key, value) = key_of(pair, barred)?;
        self.set(key, value)
    }

    /// Reads the first `key=value` of `words`, which are separated by single spaces. Returns the rest: empty, or a
    /// space and further words.
    ///
    /// # Errors
    ///
    /// As [`Fields::set_pair`].
    pub fn set_word(&mut self, words: &'buf [u8]) -> Result<&'buf [u8], WireError> {
        let (key, value) = key_of(words, KeySet::EMPTY)?;
        self.claim(key)?;
        let malformed = WireError::of(ErrorReason::Malformed, key);
        let (token, rest) = Token::first(alphabet_of(key), value).ok_or(malformed)?;
        let is_whole = rest.first().is_none_or(|&byte| byte == b' ');
        self.take(key, token).filter(|()| is_whole).map(|()| rest).ok_or(malformed)
    }

    /// Reads the value of a key.
    ///
    /// # Errors
    ///
    /// When the verb has no such key, the key was given before, or the value is outside its grammar.
    pub fn set(&mut self, key: Key, value: &'buf (impl AsRef<[u8]> + ?Sized)) -> Result<(), WireError> {
        self.claim(key)?;
        let token = Token::parse_in(alphabet_of(key), value);
        token.and_then(|token| self.take(key, token)).ok_or(WireError::of(ErrorReason::Malformed, key))
    }

    /// Reads the SIP domain of the organization, in place of its name.
    ///
    /// # Errors
    ///
    /// As [`Fields::set`] for the key `org`.
    pub fn set_domain(&mut self, value: &'buf (impl AsRef<[u8]> + ?Sized)) -> Result<(), WireError> {
        self.is_by_domain = true;
        self.set(Key::Organization, value)
    }

    /// Notes that the key is given; refuses a key that the verb does not have or that was given before.
    const fn claim(&mut self, key: Key) -> Result<(), WireError> {
        if !self.admitted.has(key) {
            return Err(WireError::of(ErrorReason::UnknownKey, key));
        }
        if self.given.has(key) {
            return Err(WireError::of(ErrorReason::DuplicateKey, key));
        }
        self.given = self.given.with(key);
        Ok(())
    }

    /// Stores the value of a key. `None`: the key has no such value.
    fn take(&mut self, key: Key, token: Token<'buf>) -> Option<()> {
        match key {
            Key::Organization => self.organization = Some(token),
            Key::Actor => self.actor = Some(token),
            Key::Action => self.action = Some(token),
            Key::Queue => self.queue = Some(token),
            Key::Target => self.target = Some(token),
            Key::From => self.from = Some(token),
            Key::Group => self.group = Some(token),
            Key::Role => self.role = Some(token),
            Key::Call => self.call = Some(token),
            Key::PauseReason => self.pause_reason = Some(token),
            Key::ToTag => self.to_tag = Some(token),
            Key::FromTag => self.from_tag = Some(token),
            Key::Digits => self.digits = Some(Digits::of(token)?),
            Key::For => self.lease_seconds = Some(seconds(token.as_str())?),
            Key::Via => self.via = Via::named(&token)?,
            Key::Conversation | Key::Field | Key::InUse | Key::Kind | Key::Section | Key::Verb => {
                self.attributes = self.attributes.union(AttributeSet::value(key, token.as_str())?);
            }
            Key::Until => self.until = Some(unix_ms(token.as_str())?),
            Key::Once if token.as_ref().len() > ONCE_BYTES_MAX => return None,
            Key::Once => self.once = Some(token),
            Key::Token => return None,
        }
        Some(())
    }

    /// Makes the event of the keys.
    ///
    /// # Errors
    ///
    /// When a key that the verb requires was not given.
    pub fn into_event(self) -> Result<Event<'buf>, WireError> {
        let missing = |key| WireError::of(ErrorReason::MissingKey, key);
        let organization = self.organization.ok_or(missing(Key::Organization))?;
        let actor = self.actor.ok_or(missing(Key::Actor))?;
        let (intent, request) = match self.verb {
            Verb::Dial => (Intent::Do, Request::Dial(self.digits.ok_or(missing(Key::Digits))?)),
            Verb::Do => (Intent::Do, Request::Action(self.action.ok_or(missing(Key::Action))?)),
            Verb::May => (Intent::May, Request::Action(self.action.ok_or(missing(Key::Action))?)),
        };
        Ok(Event {
            intent,
            organization,
            is_by_domain: self.is_by_domain,
            actor,
            request,
            via: self.via,
            queue: self.queue,
            target: self.target,
            from: self.from,
            group: self.group,
            role: self.role,
            call: self.call,
            pause_reason: self.pause_reason,
            to_tag: self.to_tag,
            from_tag: self.from_tag,
            lease_seconds: self.lease_seconds,
            attributes: self.attributes,
            until: self.until,
            once: self.once,
            channel: None,
            asked_at: None,
        })
    }
}

/// Splits `key=value` at the first `=`, and returns the key and the bytes of the value.
fn key_of(bytes: &[u8], barred: KeySet) -> Result<(Key, &[u8]), WireError> {
    let malformed = WireError::new(ErrorReason::Malformed);
    let end = bytes.iter().position(|&byte| byte == b'=').ok_or(malformed)?;
    let (name, value) = bytes.split_at_checked(end).ok_or(malformed)?;
    if let Some(key) = Key::named(name).filter(|&key| !barred.has(key)) {
        return Ok((key, value.get(1..).unwrap_or_default()));
    }
    let is_name = !name.is_empty() && name.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'_');
    Err(if is_name { WireError::new(ErrorReason::UnknownKey) } else { malformed })
}

pub(super) const fn alphabet_of(key: Key) -> Alphabet {
    match key {
        Key::Call | Key::ToTag | Key::FromTag => Alphabet::Call,
        _ => Alphabet::Value,
    }
}

/// A number of seconds from 1 to [`LEASE_SECONDS_MAX`], in digits without a sign or a leading zero.
fn seconds(text: &str) -> Option<u32> {
    let is_plain = crate::telephony::is_number(text) && !text.starts_with('0');
    let seconds = text.parse().ok().filter(|_| is_plain)?;
    (seconds <= LEASE_SECONDS_MAX).then_some(seconds)
}

/// A Unix time in milliseconds, in exactly [`UNTIL_DIGITS`] digits without a leading zero: from the year 2001 to 2286.
/// A time in seconds or in nanoseconds has another length.
pub(super) fn unix_ms(text: &str) -> Option<UnixMillis> {
    let is_plain = crate::telephony::is_number(text) && text.len() == UNTIL_DIGITS && !text.starts_with('0');
    text.parse().ok().filter(|_| is_plain).map(UnixMillis)
}

/// The error of a pair that the verb does not have: `malformed` if it is no pair at all, else `unknown_key`.
pub(super) fn key_error(pair: &[u8]) -> WireError {
    match Fields::new(Verb::Do).set_pair(pair, KeySet::EMPTY) {
        Err(error) if error.reason == ErrorReason::Malformed && error.key.is_none() => error,
        _ => WireError::new(ErrorReason::UnknownKey),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'buf>(verb: Verb, pairs: &[&'buf str]) -> Result<Event<'buf>, WireError> {
        let mut fields = Fields::new(verb);
        for pair in pairs {
            fields.set_pair(pair.as_bytes(), KeySet::EMPTY)?;
        }
        fields.into_event()
    }

    #[test]
    fn an_event_holds_its_keys() {
        let event = read(
            Verb::May,
            &["org=acme", "actor=2001", "action=agent.login", "target=1001", "for=60", "via=dashboard"],
        );
        let event = event.unwrap();
        assert_eq!((event.intent, event.via, event.lease_seconds), (Intent::May, Via::Dashboard, Some(60)));
        assert_eq!(event.target.map(Token::as_str), Some("1001"));
        assert_eq!(event.queue, None);
    }

    #[test]
    fn via_is_phone_unless_given() {
        assert_eq!(read(Verb::Dial, &["org=a", "actor=1", "digits=*13"]).unwrap().via, Via::Phone);
    }

    /// TRUTH 1: 1 to 64 bytes.
    #[test]
    fn once_has_at_most_64_bytes() {
        let event = |once: &str| {
            let pairs = [(Key::Organization, "a"), (Key::Actor, "1"), (Key::Digits, "*13"), (Key::Once, once)];
            Fields::event_of(Verb::Dial, pairs).map(|event| event.once.is_some())
        };
        assert_eq!(event(&"x".repeat(64)), Ok(true));
        assert_eq!(event(&"x".repeat(65)), Err(WireError::of(ErrorReason::Malformed, Key::Once)));
    }

    #[test]
    fn until_is_the_first_and_the_last_time_of_13_digits() {
        assert_eq!(unix_ms("1000000000000"), Some(UnixMillis(1_000_000_000_000)));
        assert_eq!(unix_ms("9999999999999"), Some(UnixMillis(9_999_999_999_999)));
    }

    #[test]
    fn an_error_names_its_key() {
        use ErrorReason::{DuplicateKey, Malformed, MissingKey, UnknownKey};
        let cases: &[(Verb, &[&str], WireError)] = &[
            (Verb::Dial, &[], WireError::of(MissingKey, Key::Organization)),
            (Verb::Dial, &["org=a"], WireError::of(MissingKey, Key::Actor)),
            (Verb::Dial, &["org=a", "actor=1"], WireError::of(MissingKey, Key::Digits)),
            (Verb::Do, &["org=a", "actor=1"], WireError::of(MissingKey, Key::Action)),
            (Verb::Dial, &["org=a", "org=a"], WireError::of(DuplicateKey, Key::Organization)),
            (Verb::Dial, &["target=1001"], WireError::of(UnknownKey, Key::Target)),
            (Verb::Do, &["digits=*13"], WireError::of(UnknownKey, Key::Digits)),
            (Verb::Do, &["token=x"], WireError::of(UnknownKey, Key::Token)),
            (Verb::Do, &["colour=red"], WireError::new(UnknownKey)),
            (Verb::Do, &["org"], WireError::new(Malformed)),
            (Verb::Do, &["=a"], WireError::new(Malformed)),
            (Verb::Do, &["Org=a"], WireError::new(Malformed)),
            (Verb::Do, &["org="], WireError::of(Malformed, Key::Organization)),
            (Verb::Do, &["org=a=b"], WireError::of(Malformed, Key::Organization)),
            (Verb::Do, &["via=fax"], WireError::of(Malformed, Key::Via)),
            (Verb::Do, &["for=0"], WireError::of(Malformed, Key::For)),
            (Verb::Do, &["for=007"], WireError::of(Malformed, Key::For)),
            (Verb::Do, &["for=99999999999"], WireError::of(Malformed, Key::For)),
            (Verb::Do, &["in_use=maybe"], WireError::of(Malformed, Key::InUse)),
            (Verb::Dial, &["digits=13a"], WireError::of(Malformed, Key::Digits)),
            // TRUTH 1: a time that is no 13 digits is refused, under `may` as well.
            (Verb::Do, &["until=0"], WireError::of(Malformed, Key::Until)),
            (Verb::Do, &["until=1764288000"], WireError::of(Malformed, Key::Until)),
            (Verb::Dial, &["until=17642880000000000000"], WireError::of(Malformed, Key::Until)),
            (Verb::May, &["until=0764288000000"], WireError::of(Malformed, Key::Until)),
            (Verb::Do, &["until=+764288000000"], WireError::of(Malformed, Key::Until)),
            (Verb::Do, &["until=-764288000000"], WireError::of(Malformed, Key::Until)),
            (Verb::Do, &["until=1764288000.00"], WireError::of(Malformed, Key::Until)),
            (Verb::Do, &["until=1764288000000", "until=1764288000000"], WireError::of(DuplicateKey, Key::Until)),
            (Verb::Do, &["once="], WireError::of(Malformed, Key::Once)),
            (Verb::Do, &["once=a/b"], WireError::of(Malformed, Key::Once)),
            (Verb::Do, &["once=a", "once=a"], WireError::of(DuplicateKey, Key::Once)),
        ];
        for (verb, pairs, error) in cases {
            assert_eq!(read(*verb, pairs), Err(*error), "{verb:?} {pairs:?}");
        }
    }

    #[test]
    fn every_verb_requires_and_admits_the_keys_of_its_reference() {
        for verb in Verb::ALL {
            let reference = VERBS.iter().find(|reference| reference.name == verb.name()).unwrap();
            assert_eq!(Fields::new(*verb).admitted, reference.admitted, "{verb:?}");
            let mut fields = Fields::new(*verb);
            for &key in reference.required {
                assert_eq!(fields.into_event(), Err(WireError::of(ErrorReason::MissingKey, key)), "{verb:?}");
                fields.set(key, if key == Key::Digits { "*13" } else { "x" }).unwrap();
            }
            assert!(fields.into_event().is_ok(), "{verb:?}");
        }
    }

    #[test]
    fn every_key_is_described_and_has_values() {
        assert_eq!(REQUEST_KEYS.len(), Key::ALL.len());
        for row in REQUEST_KEYS {
            assert_eq!(REQUEST_KEYS.iter().filter(|other| other.key == row.key).count(), 1, "{row:?}");
            assert_eq!(row.values.is_empty(), AttributeSet::values_of(row.key).next().is_some(), "{row:?}");
            assert!(row.description.ends_with('.'), "{row:?}");
        }
    }
}
