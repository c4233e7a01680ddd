//! The keys of a question, whichever dialect spelled them: one place for their grammar, their duplicates and their
//! gaps.

use crate::decision::{ErrorReason, WireError};
use crate::event::{AttributeSet, Event, Intent, Key, KeySet, Request};
use crate::limits::LEASE_SECONDS_MAX;
use crate::telephony::{Alphabet, Digits, Token, Via};

/// How a question is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// By dialed digits, and it is done if it is allowed.
    Dial,
    /// By the name of an action, and it is done if it is allowed.
    Do,
    /// By the name of an action, only asking.
    May,
}

/// What the PBX knows of a dialed call beside its digits. Nothing else may come with digits: a phone could dial it.
const DIAL_KEYS: KeySet = KeySet::EMPTY
    .with(Key::Organization)
    .with(Key::Actor)
    .with(Key::Digits)
    .with(Key::Queue)
    .with(Key::Call)
    .with(Key::FromTag)
    .with(Key::ToTag)
    .with(Key::Via);

const ACTION_KEYS: KeySet = KeySet::EMPTY
    .with(Key::Organization)
    .with(Key::Actor)
    .with(Key::Action)
    .with(Key::Call)
    .with(Key::Conversation)
    .with(Key::Field)
    .with(Key::For)
    .with(Key::From)
    .with(Key::FromTag)
    .with(Key::Group)
    .with(Key::InUse)
    .with(Key::Kind)
    .with(Key::PauseReason)
    .with(Key::Queue)
    .with(Key::Role)
    .with(Key::Section)
    .with(Key::Target)
    .with(Key::ToTag)
    .with(Key::Verb)
    .with(Key::Via);

/// The keys of one question, as far as they were read.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'buf> {
    verb: Verb,
    admitted: KeySet,
    given: KeySet,
    organization: Option<Token<'buf>>,
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
}

impl Verb {
    /// The verb of this name.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"dial" => Some(Self::Dial),
            b"do" => Some(Self::Do),
            b"may" => Some(Self::May),
            _ => None,
        }
    }
}

impl<'buf> Fields<'buf> {
    /// No key yet.
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
        }
    }

    /// Whether the key was read.
    #[must_use]
    pub const fn has(&self, key: Key) -> bool {
        self.given.has(key)
    }

    /// Reads `key=value`. Keys in `barred` are treated as if the verb did not have them.
    ///
    /// # Errors
    ///
    /// As [`Fields::set`], or when the bytes are no such pair.
    pub fn set_pair(&mut self, pair: &'buf [u8], barred: KeySet) -> Result<(), WireError> {
        let (key, value) = key_of(pair, barred)?;
        self.set(key, value)
    }

    /// Reads the first of some words `key=value` that stand behind each other with one space between them. Returns what
    /// stands behind it: a space, or nothing.
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
    /// When the verb has no such key, it was read before, or the value is not in its grammar.
    pub fn set(&mut self, key: Key, value: &'buf (impl AsRef<[u8]> + ?Sized)) -> Result<(), WireError> {
        self.claim(key)?;
        let token = Token::parse_in(alphabet_of(key), value);
        token.and_then(|token| self.take(key, token)).ok_or(WireError::of(ErrorReason::Malformed, key))
    }

    /// The verb has the key, and it comes once.
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

    /// Keeps the value of a key; `None`: the key has no such value.
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
            Key::Token => return None,
        }
        Some(())
    }

    /// The event that the keys make.
    ///
    /// # Errors
    ///
    /// When a key that the verb needs was not read.
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
        })
    }
}

/// The key that the bytes begin with, and what stands behind its `=`.
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

const fn alphabet_of(key: Key) -> Alphabet {
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
    fn a_question_is_what_its_keys_say() {
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

    #[test]
    fn what_is_wrong_is_said_with_its_key() {
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
        ];
        for (verb, pairs, error) in cases {
            assert_eq!(read(*verb, pairs), Err(*error), "{verb:?} {pairs:?}");
        }
    }
}
