//! The vocabulary: ids, numbers and the few closed lists that every other module speaks in.
//!
//! Ids are dense and belong to one organization: they index arrays, cross reloads unchanged and mean nothing outside
//! the process. [`Token`] and [`Digits`] are the only ways in which bytes of a peer enter the sidecar: whoever holds one
//! holds text that the grammar admits.

use crate::limits::{NUMBER_DIGITS_MAX, VALUE_BYTES_MAX};

/// One PBX account (tenant). Nothing crosses organizations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrganizationId(pub u16);

/// A person with an extension, within one organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub u32);

/// A call queue, ring group, inbox queue or campaign, within one organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u16);

/// Users with one or more leading supervisors, within one organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u16);

macro_rules! closed_list {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every member, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word for it on the wire, in the configuration and in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The member with this name.
            #[must_use]
            pub fn named(text: &(impl AsRef<[u8]> + ?Sized)) -> Option<Self> {
                match text.as_ref() { $(text if text == $text.as_bytes() => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}
pub(crate) use closed_list;

closed_list! {
    /// The channel that a request came by (RULES R26, R28).
    Via {
        /// A phone, or anything else that the PBX authenticated as the extension.
        Phone = "phone",
        /// The agent dashboard.
        Dashboard = "dashboard",
    }
}

closed_list! {
    /// What a queue is. The queue limit binds every kind alike (RULES section 7).
    QueueKind {
        /// A call queue.
        Call = "call",
        /// A ring group.
        RingGroup = "ring_group",
        /// An inbox queue.
        Inbox = "inbox",
        /// A campaign.
        Campaign = "campaign",
    }
}

closed_list! {
    /// What a supervisor does to a call (RULES R10 to R12).
    SupervisionMode {
        /// Hears both parties, unheard.
        Listen = "listen",
        /// As listen, and only the agent hears the supervisor.
        Whisper = "whisper",
        /// All three hear each other.
        Barge = "barge",
    }
}

closed_list! {
    /// On what ground a login session was opened.
    Ground {
        /// The user serves the queue.
        Assigned = "assigned",
        /// The organization lets users in to queues that they do not serve (RULES R22, R29).
        Unassigned = "unassigned",
        /// A supervisor logged the user in (RULES R27).
        Supervisor = "supervisor",
    }
}

/// Seconds since 1970-01-01T00:00:00Z, by the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub u64);

/// Milliseconds since 1970-01-01T00:00:00Z, by the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The second that it is in.
    #[must_use]
    pub const fn second(self) -> UnixSeconds {
        UnixSeconds(self.0 / 1_000)
    }
}

/// A point in time by both clocks: one that follows the calendar and may jump, one that only counts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// By the wall clock.
    pub wall: UnixMillis,
    /// Milliseconds since the process started.
    pub uptime_ms: u64,
}

impl Moment {
    /// The moment `seconds` later.
    #[must_use]
    pub const fn after(self, seconds: u32) -> Self {
        let ms = (seconds as u64).saturating_mul(1_000);
        Self { wall: UnixMillis(self.wall.0.saturating_add(ms)), uptime_ms: self.uptime_ms.saturating_add(ms) }
    }

    /// Whether `now` is at or past this by either clock: the earlier wins, so a clock that jumps back prolongs nothing.
    #[must_use]
    pub const fn has_come(self, now: Self) -> bool {
        now.wall.0 >= self.wall.0 || now.uptime_ms >= self.uptime_ms
    }
}

/// One user logged in to one queue, until logout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginSession {
    /// Where.
    pub queue: QueueId,
    /// Why it was allowed to begin.
    pub ground: Ground,
    /// Logged in, but taking no calls.
    pub paused: bool,
    /// When it began.
    pub since: UnixSeconds,
    /// The supervisor who opened it; `None` for a login by the user.
    pub by: Option<UserId>,
    /// When it ends by itself; `None`: at logout.
    pub ends: Option<Moment>,
}

/// The queues that one decision is about, without a heap: at most [`crate::limits::QUEUES_PER_USER_MAX`].
#[derive(Clone, Debug)]
pub struct QueueSet {
    queues: [QueueId; crate::limits::QUEUES_PER_USER_MAX],
    length: usize,
}

impl QueueSet {
    /// An empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { queues: [QueueId(0); crate::limits::QUEUES_PER_USER_MAX], length: 0 }
    }

    /// Forgets every queue.
    pub const fn clear(&mut self) {
        self.length = 0;
    }

    /// Adds a queue; returns false, and adds nothing, when the set is full.
    pub fn push(&mut self, queue: QueueId) -> bool {
        match self.queues.get_mut(self.length) {
            Some(slot) => {
                *slot = queue;
                self.length = self.length.saturating_add(1);
                true
            }
            None => false,
        }
    }

    /// The queues, in the order in which they were added.
    #[must_use]
    pub fn as_slice(&self) -> &[QueueId] {
        self.queues.get(..self.length).unwrap_or_default()
    }
}

impl Default for QueueSet {
    fn default() -> Self {
        Self::new()
    }
}

/// A value that came over the wire and obeys the grammar: 1 to 128 bytes of `A-Z a-z 0-9 _ - . : @ + * #`.
///
/// ```
/// use queuewarden::telephony::Token;
/// assert!(Token::parse("1001").is_some());
/// assert!(Token::parse("10 01").is_none());
/// assert!(Token::parse("").is_none());
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token<'buf>(&'buf [u8]);

impl<'buf> Token<'buf> {
    /// Admits the bytes, or refuses them. Nothing is trimmed, folded or decoded.
    #[must_use]
    pub fn parse(bytes: &'buf (impl AsRef<[u8]> + ?Sized)) -> Option<Self> {
        Self::parse_in(Alphabet::Value, bytes)
    }

    /// As [`Token::parse`], for a call id, which may also hold `/ ~ % !`.
    #[must_use]
    pub fn parse_call(bytes: &'buf (impl AsRef<[u8]> + ?Sized)) -> Option<Self> {
        Self::parse_in(Alphabet::Call, bytes)
    }

    /// As [`Token::parse`], with the bytes of another alphabet.
    #[must_use]
    pub fn parse_in(alphabet: Alphabet, bytes: &'buf (impl AsRef<[u8]> + ?Sized)) -> Option<Self> {
        Self::first(alphabet, bytes.as_ref()).filter(|(_, rest)| rest.is_empty()).map(|(token, _)| token)
    }

    /// The token that the bytes begin with, and what stands behind it, from the first byte that is not in the alphabet.
    #[must_use]
    pub fn first(alphabet: Alphabet, bytes: &'buf [u8]) -> Option<(Self, &'buf [u8])> {
        let is_known = |byte: &&u8| ALPHABETS.get(usize::from(**byte)).is_some_and(|of| of & alphabet as u8 != 0);
        let length = bytes.iter().take_while(is_known).count();
        let (token, rest) = bytes.split_at_checked(length)?;
        (1..=VALUE_BYTES_MAX).contains(&length).then_some((Self(token), rest))
    }

    /// The text.
    #[must_use]
    pub fn as_str(self) -> &'buf str {
        // The alphabets are of ASCII.
        std::str::from_utf8(self.0).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Token<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

impl std::fmt::Debug for Token<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Token").field(&self.as_str()).finish()
    }
}

/// What somebody dialed: 1 to 128 of `0-9 * #`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digits<'buf>(Token<'buf>);

impl<'buf> Digits<'buf> {
    /// Admits the bytes, or refuses them.
    #[must_use]
    pub fn parse(bytes: &'buf (impl AsRef<[u8]> + ?Sized)) -> Option<Self> {
        Token::parse(bytes).and_then(Self::of)
    }

    /// The token as digits, if it is nothing else.
    #[must_use]
    pub fn of(token: Token<'buf>) -> Option<Self> {
        let is_dialable = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'*' | b'#');
        token.0.iter().all(is_dialable).then_some(Self(token))
    }

    /// The text.
    #[must_use]
    pub fn as_str(self) -> &'buf str {
        self.0.as_str()
    }
}

/// Whether the text is a number that a phone can dial: 1 to 16 digits.
#[must_use]
pub fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= NUMBER_DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Which bytes a token may hold; each alphabet is a bit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alphabet {
    /// `A-Z a-z 0-9 _ - . : @ + * #`.
    Value = 1,
    /// Those and `/ ~ % !`.
    Call = 1 << 1,
}

/// The alphabets that each byte is in.
const ALPHABETS: [u8; 256] = {
    const ALPHANUMERIC: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut alphabets = [0; 256];
    add(&mut alphabets, ALPHANUMERIC, Alphabet::Value as u8 | Alphabet::Call as u8);
    add(&mut alphabets, b"_-.:@+*#", Alphabet::Value as u8 | Alphabet::Call as u8);
    add(&mut alphabets, b"/~%!", Alphabet::Call as u8);
    alphabets
};

#[expect(clippy::indexing_slicing, reason = "evaluated when it is compiled")]
const fn add(alphabets: &mut [u8; 256], bytes: &[u8], bits: u8) {
    let mut at = 0;
    while at < bytes.len() {
        alphabets[bytes[at] as usize] |= bits;
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_admits_its_alphabet_and_nothing_else() {
        for byte in 0..=u8::MAX {
            let admitted = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.:@+*#".contains(&byte);
            assert_eq!(Token::parse(&[byte]).is_some(), admitted, "byte {byte:#04x}");
            assert_eq!(Token::parse_call(&[byte]).is_some(), admitted || b"/~%!".contains(&byte), "byte {byte:#04x}");
        }
        assert!(Token::parse(&[b'a'; VALUE_BYTES_MAX]).is_some());
        assert!(Token::parse(&[b'a'; VALUE_BYTES_MAX + 1]).is_none());
    }

    #[test]
    fn digits_are_what_a_phone_can_dial() {
        assert_eq!(Digits::parse("*13#600").map(Digits::as_str), Some("*13#600"));
        for refused in [&b""[..], b"s", b"+49", b"13 ", b"1\n"] {
            assert_eq!(Digits::parse(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn a_moment_has_come_when_either_clock_says_so() {
        let start = Moment { wall: UnixMillis(1_000), uptime_ms: 5_000 };
        let end = start.after(60);
        let at = |wall, uptime_ms| end.has_come(Moment { wall: UnixMillis(wall), uptime_ms });
        assert!(!at(60_999, 64_999));
        assert!(at(61_000, 5_000), "the wall clock jumped ahead");
        assert!(at(0, 65_000), "the wall clock jumped back");
    }

    #[test]
    fn a_full_queue_set_takes_no_more() {
        let mut set = QueueSet::new();
        for queue in 0..crate::limits::QUEUES_PER_USER_MAX {
            assert!(set.push(QueueId(u16::try_from(queue).unwrap())));
        }
        assert!(!set.push(QueueId(9)));
        assert_eq!(set.as_slice().len(), crate::limits::QUEUES_PER_USER_MAX);
    }
}
