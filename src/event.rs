//! One question of a peer: who asks for what.
//!
//! An [`Event`] borrows from the read buffer of its connection. Its values are within their grammar and nothing more is
//! known of them: its names may be unknown and its action may not exist. A dialect builds it and [`crate::policy`]
//! resolves it.

use crate::telephony::{Digits, Token, UnixMillis, Via, closed_list};

closed_list! {
    /// The keys of a question, by their names on the wire.
    Key {
        /// The action to carry out.
        Action = "action",
        /// The user who asks.
        Actor = "actor",
        /// The call that the question is about.
        Call = "call",
        /// Whose conversation: an agent's, an unassigned one, or a bot's.
        Conversation = "conversation",
        /// The digits that the user dialed.
        Digits = "digits",
        /// The field of an object that is viewed or edited.
        Field = "field",
        /// Seconds that a login by a supervisor lasts.
        For = "for",
        /// The queue that the user is moved from.
        From = "from",
        /// The tag of the caller's side of the call (SIP, RFC 3891 and 3911).
        FromTag = "from_tag",
        /// A group of users.
        Group = "group",
        /// Whether the object is in use.
        InUse = "in_use",
        /// The kind of channel.
        Kind = "kind",
        /// The name of the question in its call: a repeat gets the first answer.
        Once = "once",
        /// The organization.
        Organization = "org",
        /// Why the user pauses.
        PauseReason = "pause_reason",
        /// The queue.
        Queue = "queue",
        /// The role that is given.
        Role = "role",
        /// A section of the general settings.
        Section = "section",
        /// The user that the action is carried out on.
        Target = "target",
        /// The tag of the called side of the call (SIP, RFC 3891 and 3911).
        ToTag = "to_tag",
        /// The secret of `auth` in the line dialect.
        Token = "token",
        /// When the asker stops waiting for the answer.
        Until = "until",
        /// The operation on the object.
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

    /// The set of these keys.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "the index is below the length")]
    pub const fn of(keys: &[Key]) -> Self {
        let (mut set, mut position) = (Self::EMPTY, 0);
        while position < keys.len() {
            set = set.with(keys[position]);
            position += 1;
        }
        set
    }

    /// This set and `key`.
    #[must_use]
    pub const fn with(self, key: Key) -> Self {
        Self(self.0 | 1 << key as u32)
    }

    /// This set and, if it is `given`, `key`.
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

    /// The keys in the set, in the order of [`Key::ALL`].
    pub fn keys(self) -> impl Iterator<Item = Key> {
        Key::ALL.iter().copied().filter(move |&key| self.has(key))
    }

    /// The first key of this set that `other` lacks.
    #[must_use]
    pub fn first_missing_in(self, other: Self) -> Option<Key> {
        Key::ALL.get((self.0 & !other.0).trailing_zeros() as usize).copied()
    }
}

/// The values of every key with a closed list (tests/conformance/voximplant.md, section 6). The position of a value is
/// its bit in an [`AttributeSet`].
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

/// The values of each key, by position in [`Key::ALL`]. A table, because every decision looks some of them up.
#[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
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

    /// The set of the value `text` of `key`. `None`: the key has no such value.
    #[must_use]
    pub fn value(key: Key, text: &str) -> Option<Self> {
        let bit = ATTRIBUTE_VALUES.iter().position(|&known| known == (key, text))?;
        Some(Self(1 << bit))
    }

    /// Every value of one key, each as a set of its own.
    pub fn values_of(key: Key) -> impl Iterator<Item = Self> {
        ATTRIBUTE_VALUES.iter().enumerate().filter(move |(_, (owner, _))| *owner == key).map(|(bit, _)| Self(1 << bit))
    }

    /// The set of all values of one key.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "the table has a row for every key")]
    pub const fn of(key: Key) -> Self {
        VALUES_OF_KEYS[key as usize]
    }

    /// The set of all values of all `keys`.
    #[must_use]
    pub fn all_of(keys: KeySet) -> Self {
        keys.keys().fold(Self::EMPTY, |all, key| all.union(Self::of(key)))
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

    /// The values, each with its key.
    pub fn iter(self) -> impl Iterator<Item = (Key, &'static str)> {
        bits(self.0).filter_map(|bit| ATTRIBUTE_VALUES.get(bit).copied())
    }

    /// The set of the value of `via`.
    #[must_use]
    pub const fn via(via: Via) -> Self {
        match via {
            Via::Phone => Self(1),
            Via::Dashboard => Self(1 << 1),
        }
    }
}

/// The positions of the bits that are set, from the lowest.
fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set.wrapping_sub(1);
        Some(lowest)
    })
}

/// Whether an allowed action is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Carry the action out if it is allowed.
    Do,
    /// Answer whether it would be allowed, and change nothing.
    May,
}

/// The action that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'buf> {
    /// The name of the action in the organization's role model.
    Action(Token<'buf>),
    /// Dialed digits, which the organization's feature codes translate to an action.
    Dial(Digits<'buf>),
}

/// One question of a peer.
///
/// ```
/// use queuewarden::dialect::fields::{Fields, Verb};
/// use queuewarden::event::{Event, Intent, Key, Request};
/// use queuewarden::telephony::Token;
///
/// let token = |text: &'static str| Token::parse(text).ok_or("outside the grammar of values");
/// let event = Event {
///     queue: Some(token("600")?),
///     ..Event::new(Intent::May, token("acme")?, token("1001")?, Request::Action(token("queue.login")?))
/// };
///
/// // The same event, as a dialect makes it from the keys that it read.
/// let pairs = [(Key::Organization, "acme"), (Key::Actor, "1001"), (Key::Action, "queue.login"), (Key::Queue, "600")];
/// assert_eq!(Fields::event_of(Verb::May, pairs), Ok(event));
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'buf> {
    /// Whether an allowed action is carried out.
    pub intent: Intent,
    /// The organization's name, or one of its SIP domains.
    pub organization: Token<'buf>,
    /// Whether [`Event::organization`] is a SIP domain. A name and a domain that look alike are different things.
    pub is_by_domain: bool,
    /// The user who asks: an extension or a user id.
    pub actor: Token<'buf>,
    /// The action that is asked for.
    pub request: Request<'buf>,
    /// The channel that the request came by.
    pub via: Via,
    /// A queue number or a queue id. `None`: the peer named no queue.
    pub queue: Option<Token<'buf>>,
    /// The user that the action is carried out on: an extension or a user id. `None`: the actor, or nobody.
    pub target: Option<Token<'buf>>,
    /// The number or id of the queue that the target is moved from. `None`: not given.
    pub from: Option<Token<'buf>>,
    /// The id of a group. `None`: not given.
    pub group: Option<Token<'buf>>,
    /// The role that is given to the target. `None`: not given.
    pub role: Option<Token<'buf>>,
    /// The id of the call that the question is about. `None`: not given.
    pub call: Option<Token<'buf>>,
    /// The SIP tag of the called side of the call. `None`: not given.
    pub to_tag: Option<Token<'buf>>,
    /// The SIP tag of the caller's side of the call. `None`: not given.
    pub from_tag: Option<Token<'buf>>,
    /// Seconds that a login by a supervisor lasts. `None`: until logout.
    pub lease_seconds: Option<u32>,
    /// Why the user pauses. `None`: not given.
    pub pause_reason: Option<Token<'buf>>,
    /// The values of the keys with a closed list, without `via`.
    pub attributes: AttributeSet,
    /// When the asker stops waiting for the answer: the answer to a question with [`Intent::Do`] is later
    /// [`TooLate`](crate::decision::DenyReason::TooLate), and nothing changes. `None`: the asker waits.
    pub until: Option<UnixMillis>,
    /// The name of the question: the same question under the same name gets the first answer again. `None`: every
    /// question is a new one.
    pub once: Option<Token<'buf>>,
    /// The unique id of the channel that asked, at the PBX. `None`: the dialect names no channel.
    pub channel: Option<Token<'buf>>,
    /// The time by the clock of the peer when it asked. `None`: the dialect does not carry it.
    pub asked_at: Option<UnixMillis>,
}

impl<'buf> Event<'buf> {
    /// An event with the required keys only, by phone.
    #[must_use]
    pub const fn new(intent: Intent, organization: Token<'buf>, actor: Token<'buf>, request: Request<'buf>) -> Self {
        Self {
            intent,
            organization,
            is_by_domain: false,
            actor,
            request,
            via: Via::Phone,
            queue: None,
            target: None,
            from: None,
            group: None,
            role: None,
            call: None,
            to_tag: None,
            from_tag: None,
            lease_seconds: None,
            pause_reason: None,
            attributes: AttributeSet::EMPTY,
            until: None,
            once: None,
            channel: None,
            asked_at: None,
        }
    }

    /// The names that the event carries beside organization, actor and action, each with its key.
    pub fn names(&self) -> impl Iterator<Item = (Key, Token<'buf>)> {
        let names = [
            (Key::Queue, self.queue),
            (Key::Target, self.target),
            (Key::From, self.from),
            (Key::Group, self.group),
            (Key::Role, self.role),
            (Key::Call, self.call),
            (Key::ToTag, self.to_tag),
            (Key::FromTag, self.from_tag),
        ];
        names.into_iter().filter_map(|(key, name)| Some((key, name?)))
    }

    /// The keys that the event carries beside organization, actor and action. Every question asks for them, so they are
    /// not taken from [`Event::names`].
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
    fn the_values_of_via_have_the_first_two_bits() {
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
