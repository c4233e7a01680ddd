//! Who asks for what: one signaling event, borrowed from the read buffer of the connection it came by.
//!
//! An [`Event`] is grammar-checked and nothing more: its names may be unknown and its action may not exist. Dialects
//! build it, [`crate::policy`] resolves it, and nobody keeps it longer than the bytes live.

use crate::telephony::{Digits, Token, Via, closed_list};

closed_list! {
    /// The keys that every dialect shares, spelled as on the wire.
    Key {
        /// What to do, by name.
        Action = "action",
        /// Who asks.
        Actor = "actor",
        /// The call that the event is about.
        Call = "call",
        /// Whose conversation: an agent's, nobody's yet, a bot's.
        Conversation = "conversation",
        /// What was dialed.
        Digits = "digits",
        /// The field of an object that is viewed or edited.
        Field = "field",
        /// How long a supervisor's login of somebody else lasts, in seconds.
        For = "for",
        /// The queue that somebody is moved from.
        From = "from",
        /// The tag of the caller's side of the call (SIP, RFC 3891 and 3911).
        FromTag = "from_tag",
        /// A group of users.
        Group = "group",
        /// Whether the object is in use.
        InUse = "in_use",
        /// What sort of channel.
        Kind = "kind",
        /// The tenant.
        Organization = "org",
        /// Why somebody pauses.
        PauseReason = "pause_reason",
        /// The queue.
        Queue = "queue",
        /// The role that is given.
        Role = "role",
        /// A section of the general settings.
        Section = "section",
        /// The user that something is done to.
        Target = "target",
        /// The tag of the called side of the call (SIP, RFC 3891 and 3911).
        ToTag = "to_tag",
        /// The secret of the line dialect.
        Token = "token",
        /// What is done to the object.
        Verb = "verb",
        /// The channel that the request came by.
        Via = "via",
    }
}

/// A set of [`Key`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeySet(u32);

impl KeySet {
    /// No key.
    pub const EMPTY: Self = Self(0);

    /// The set with `key` in it.
    #[must_use]
    pub const fn with(self, key: Key) -> Self {
        Self(self.0 | 1 << key as u32)
    }

    /// The set with `key` in it if it is `given`.
    #[must_use]
    pub const fn with_if(self, key: Key, given: bool) -> Self {
        Self(self.0 | (given as u32) << key as u32)
    }

    /// Whether `key` is in the set.
    #[must_use]
    pub const fn has(self, key: Key) -> bool {
        self.0 & 1 << key as u32 != 0
    }

    /// The keys of either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the sets share a key.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The first key of this set that `other` lacks.
    #[must_use]
    pub fn first_missing_in(self, other: Self) -> Option<Key> {
        Key::ALL.get((self.0 & !other.0).trailing_zeros() as usize).copied()
    }
}

/// Every value that a key with a closed list may have (RULES section 7, "Values"); the position is the value's bit.
pub const ATTRIBUTE_VALUES: &[(Key, &str)] = &[
    (Key::Via, Via::Phone.name()),
    (Key::Via, Via::Dashboard.name()),
    (Key::Conversation, "agent"),
    (Key::Conversation, "unassigned"),
    (Key::Conversation, "bot"),
    (Key::Field, "avatar"),
    (Key::Field, "language"),
    (Key::Field, "timezone"),
    (Key::Field, "email"),
    (Key::Field, "password"),
    (Key::Field, "role"),
    (Key::Field, "skills"),
    (Key::Field, "conversation_settings"),
    (Key::Field, "max_chats"),
    (Key::Field, "notify"),
    (Key::Field, "records"),
    (Key::Field, "recording"),
    (Key::Field, "billing"),
    (Key::Field, "details"),
    (Key::Section, "call_permissions"),
    (Key::Section, "contact_details"),
    (Key::Section, "dialing"),
    (Key::Section, "statuses"),
    (Key::Section, "other"),
    (Key::Kind, "sms"),
    (Key::Kind, "function"),
    (Key::Kind, "api_token"),
    (Key::Kind, "other"),
    (Key::Verb, "view"),
    (Key::Verb, "create"),
    (Key::Verb, "edit"),
    (Key::Verb, "delete"),
    (Key::InUse, "yes"),
    (Key::InUse, "no"),
];

const _: () = assert!(ATTRIBUTE_VALUES.len() <= 64, "a set of attribute values is a u64");

/// The values of each key, by position in [`Key::ALL`]: every question asks for some of them.
#[expect(clippy::indexing_slicing, reason = "evaluated when it is compiled")]
const VALUES_OF_KEYS: [AttributeSet; Key::ALL.len()] = {
    let mut sets = [AttributeSet::EMPTY; Key::ALL.len()];
    let mut bit = 0;
    while bit < ATTRIBUTE_VALUES.len() {
        let key = ATTRIBUTE_VALUES[bit].0 as usize;
        sets[key] = AttributeSet(sets[key].0 | 1 << bit);
        bit += 1;
    }
    sets
};

/// A set of values of [`ATTRIBUTE_VALUES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributeSet(u64);

impl AttributeSet {
    /// No value.
    pub const EMPTY: Self = Self(0);

    /// The one value `text` of `key`, or `None` when the key has no such value.
    #[must_use]
    pub fn value(key: Key, text: &str) -> Option<Self> {
        let bit = ATTRIBUTE_VALUES.iter().position(|&(of, value)| of == key && value == text)?;
        Some(Self(1 << bit))
    }

    /// Every value of one key, each a set of its own.
    pub fn values_of(key: Key) -> impl Iterator<Item = Self> {
        ATTRIBUTE_VALUES.iter().enumerate().filter(move |(_, (of, _))| *of == key).map(|(bit, _)| Self(1 << bit))
    }

    /// Every value of the key.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "there is a row for every key")]
    pub const fn of(key: Key) -> Self {
        VALUES_OF_KEYS[key as usize]
    }

    /// Every value of every key in `keys`.
    #[must_use]
    pub fn all_of(keys: KeySet) -> Self {
        let of_keys = Key::ALL.iter().filter(|&&key| keys.has(key));
        of_keys.fold(Self::EMPTY, |all, &key| all.union(Self::of(key)))
    }

    /// The values of either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The values of both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The values of this set that `other` lacks.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The values, as `(key, value)`.
    pub fn iter(self) -> impl Iterator<Item = (Key, &'static str)> {
        bits(self.0).filter_map(|bit| ATTRIBUTE_VALUES.get(bit).copied())
    }

    /// The set of the channel.
    #[must_use]
    pub const fn via(via: Via) -> Self {
        match via {
            Via::Phone => Self(1),
            Via::Dashboard => Self(1 << 1),
        }
    }
}

/// The positions of the bits, from the lowest.
fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set.wrapping_sub(1);
        Some(lowest)
    })
}

/// Whether an allowed event changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Do it, if it is allowed.
    Do,
    /// Only say whether it would be allowed.
    May,
}

/// How the action is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'buf> {
    /// By the name that the organization's role model gives it.
    Action(Token<'buf>),
    /// By digits that the organization's feature codes translate.
    Dial(Digits<'buf>),
}

/// One question of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'buf> {
    /// Whether an allowed event changes anything.
    pub intent: Intent,
    /// The tenant.
    pub organization: Token<'buf>,
    /// Who asks: an extension or a user id.
    pub actor: Token<'buf>,
    /// What is asked for.
    pub request: Request<'buf>,
    /// The channel that the request came by.
    pub via: Via,
    /// A queue number or a queue id.
    pub queue: Option<Token<'buf>>,
    /// An extension or a user id.
    pub target: Option<Token<'buf>>,
    /// The queue that somebody is moved from: its number or id.
    pub from: Option<Token<'buf>>,
    /// A group id.
    pub group: Option<Token<'buf>>,
    /// The role that is given.
    pub role: Option<Token<'buf>>,
    /// The id of a call.
    pub call: Option<Token<'buf>>,
    /// The tag of the called side of the call.
    pub to_tag: Option<Token<'buf>>,
    /// The tag of the caller's side of the call.
    pub from_tag: Option<Token<'buf>>,
    /// How long a supervisor's login of somebody else lasts, in seconds.
    pub lease_seconds: Option<u32>,
    /// Why somebody pauses.
    pub pause_reason: Option<Token<'buf>>,
    /// The values given for keys with a closed list, `via` excepted.
    pub attributes: AttributeSet,
}

impl Event<'_> {
    /// The keys that the event carries beside organization, actor and request.
    #[must_use]
    pub fn keys(&self) -> KeySet {
        let named = KeySet::EMPTY
            .with(Key::Via)
            .with_if(Key::Queue, self.queue.is_some())
            .with_if(Key::Target, self.target.is_some())
            .with_if(Key::From, self.from.is_some())
            .with_if(Key::Group, self.group.is_some())
            .with_if(Key::Role, self.role.is_some())
            .with_if(Key::Call, self.call.is_some())
            .with_if(Key::ToTag, self.to_tag.is_some())
            .with_if(Key::FromTag, self.from_tag.is_some());
        self.attributes.iter().map(|(key, _)| key).fold(named, KeySet::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channels_have_the_first_two_bits() {
        for &via in Via::ALL {
            assert_eq!(AttributeSet::value(Key::Via, via.name()), Some(AttributeSet::via(via)));
        }
    }

    #[test]
    fn a_value_belongs_to_its_key() {
        assert!(AttributeSet::value(Key::Kind, "other").is_some());
        assert_ne!(AttributeSet::value(Key::Kind, "other"), AttributeSet::value(Key::Section, "other"));
        assert_eq!(AttributeSet::value(Key::Kind, "statuses"), None);
    }
}
