//! What can be read of a request that is no question, for the log and the audit log: an operator who asks why a phone
//! was refused finds who asked, and which key was wrong.
//!
//! Nothing here decides. A value is kept only if it is within the grammar of its key. Of a name that is no key, the
//! name is kept and never its value; of a request that presents a secret, nothing is kept.

use serde_json::{Map, Value};

use crate::dialect::fields::alphabet_of;
use crate::event::{Event, Key, KeySet, Request};
use crate::limits::VALUE_BYTES_MAX;
use crate::telephony::{Digits, Token, Via};

/// The keys that are kept: who asks for what, and where.
const KEPT_KEYS: KeySet = KeySet::of(&[
    Key::Action,
    Key::Actor,
    Key::Call,
    Key::Digits,
    Key::From,
    Key::Group,
    Key::Once,
    Key::Organization,
    Key::Queue,
    Key::Role,
    Key::Target,
    Key::Via,
]);

/// Bytes of a name that is no key; a longer name is not kept.
const UNKNOWN_KEY_BYTES_MAX: usize = 32;

/// What can be read of a request that is no question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadableRequest {
    /// The first value of each key.
    values: Vec<(Key, Box<str>)>,
    /// Whether the value of `org` is a SIP domain.
    pub is_by_domain: bool,
    /// The name of the PBX's channel, such as `PJSIP/1001-00000007`. `None`: the dialect has none, or it is not
    /// printable ASCII.
    pub channel: Option<Box<str>>,
    /// The first name in the place of a key that is none, such as `qeue`. `None`: every name is a key.
    pub unknown_key: Option<Box<str>>,
}

impl ReadableRequest {
    /// The request of a question that was read and not decided.
    #[must_use]
    pub fn of(event: &Event<'_>) -> Self {
        let mut request = Self { is_by_domain: event.is_by_domain, ..Self::default() };
        match event.request {
            Request::Action(action) => request.add(Key::Action, action.as_ref()),
            Request::Dial(digits) => request.add(Key::Digits, digits.as_str().as_bytes()),
        }
        let asker = [(Key::Organization, event.organization), (Key::Actor, event.actor)];
        let once = event.once.map(|once| (Key::Once, once));
        for (key, name) in asker.into_iter().chain(event.names()).chain(once) {
            request.add(key, name.as_ref());
        }
        request.add(Key::Via, event.via.name().as_bytes());
        request
    }

    /// What can be read of a line of the line dialect, and what follows it.
    pub(super) fn of_line(request: &[u8]) -> Self {
        let mut readable = Self::default();
        let line = request.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // A line that presents a secret, however misspelled the line is.
        if line.split(|&byte| byte == b' ').any(|word| word.eq_ignore_ascii_case(b"auth")) {
            return readable;
        }
        line.split(|&byte| byte == b' ').for_each(|word| readable.add_pair(word));
        readable
    }

    /// The value of a key. `None`: it was not given, or is outside its grammar.
    #[must_use]
    pub fn value(&self, key: Key) -> Option<&str> {
        self.values.iter().find(|(given, _)| *given == key).map(|(_, value)| &**value)
    }

    /// Keeps a value, unless the key has one already.
    pub(super) fn add(&mut self, key: Key, value: &[u8]) {
        let Some(token) = Token::parse_in(alphabet_of(key), value) else { return };
        let is_value = match key {
            Key::Digits => Digits::of(token).is_some(),
            Key::Via => Via::named(&token).is_some(),
            key => KEPT_KEYS.has(key),
        };
        if is_value && self.value(key).is_none() {
            self.values.push((key, token.as_str().into()));
        }
    }

    /// Keeps the value of a name, or the name if it is no key.
    pub(super) fn add_named(&mut self, name: &[u8], value: &[u8]) {
        match Key::named(name) {
            Some(key) => self.add(key, value),
            None => self.note_unknown(name),
        }
    }

    /// Keeps the value of `key=value`, or the name if it is no key.
    pub(super) fn add_pair(&mut self, pair: &[u8]) {
        if let Some((name, [_, value @ ..])) =
            pair.iter().position(|&byte| byte == b'=').and_then(|at| pair.split_at_checked(at))
        {
            self.add_named(name, value);
        }
    }

    /// Keeps the value of `key=value`, unless the key is one of those that a caller may not give.
    pub(super) fn add_argument(&mut self, pair: &[u8], barred: KeySet) {
        let name = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
        match Key::named(name).filter(|&key| barred.has(key)) {
            Some(_) if pair.contains(&b'=') => self.note_unknown(name),
            _ => self.add_pair(pair),
        }
    }

    /// Keeps a name in the place of a key that is none.
    pub(super) fn note_unknown(&mut self, name: &[u8]) {
        let is_name = (1..=UNKNOWN_KEY_BYTES_MAX).contains(&name.len())
            && name.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'_');
        if let Some(name) = std::str::from_utf8(name).ok().filter(|_| is_name && self.unknown_key.is_none()) {
            self.unknown_key = Some(name.into());
        }
    }

    /// Keeps the name of the PBX's channel.
    pub(super) fn set_channel(&mut self, name: &[u8]) {
        let is_shown =
            (1..=VALUE_BYTES_MAX).contains(&name.len()) && name.iter().all(|byte| matches!(byte, b' '..=b'~'));
        self.channel = std::str::from_utf8(name).ok().filter(|_| is_shown).map(Into::into);
    }

    /// Keeps the members of a JSON object. The names in `no_keys` are members of the dialect.
    pub(super) fn add_members(&mut self, members: &Map<String, Value>, no_keys: &[&str]) {
        for (name, value) in members.iter().filter(|(name, _)| !no_keys.contains(&name.as_str())) {
            match value {
                Value::String(text) => self.add_named(name.as_bytes(), text.as_bytes()),
                Value::Number(number) => self.add_named(name.as_bytes(), number.to_string().as_bytes()),
                _ => self.add_named(name.as_bytes(), &[]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIELD D1.
    #[test]
    fn values_within_the_grammar_are_kept_and_of_other_names_only_the_name() {
        let mut request = ReadableRequest::default();
        let pairs = [
            "org=acme",
            "actor=10 01",
            "actor=1001",
            "actor=1002",
            "qeue=600",
            "colour=red",
            "digits=13a",
            "token=s3cret",
        ];
        for pair in pairs {
            request.add_pair(pair.as_bytes());
        }
        assert_eq!(request.value(Key::Organization), Some("acme"));
        assert_eq!(request.value(Key::Actor), Some("1001"));
        assert_eq!((request.value(Key::Digits), request.value(Key::Token)), (None, None));
        assert_eq!(request.unknown_key.as_deref(), Some("qeue"));
        assert!(!format!("{request:?}").contains("s3cret"));
    }

    #[test]
    fn a_name_that_is_no_word_and_a_channel_that_is_not_printable_are_left_out() {
        let mut request = ReadableRequest::default();
        for name in ["", "S3CRET", "a-b", "q\u{1b}", &"x".repeat(UNKNOWN_KEY_BYTES_MAX + 1)] {
            request.add_named(name.as_bytes(), b"1");
        }
        request.set_channel(b"PJSIP/\x1b]0;x");
        assert_eq!(request, ReadableRequest::default());
        request.set_channel(b"sofia/internal/1001@acme.example");
        assert_eq!(request.channel.as_deref(), Some("sofia/internal/1001@acme.example"));
    }
}
