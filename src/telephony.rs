//! The vocabulary of every other module: ids, numbers, times and closed lists.
//!
//! Ids are dense numbers within one organization: they index arrays, stay the same across reloads and have no meaning
//! outside the process. Bytes of a peer enter the sidecar only as a [`Token`] or as [`Digits`], and both hold only text
//! that the grammar admits.

use crate::limits::{NUMBER_DIGITS_MAX, VALUE_BYTES_MAX};

/// The id of one PBX account (tenant). No decision involves two organizations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrganizationId(pub u16);

/// The id of a person with an extension, within one organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub u32);

/// The id of a call queue, ring group, inbox queue or campaign, within one organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u16);

/// The id of a group of users with one or more leading supervisors, within one organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u16);

/// An enum whose members have a fixed text: `name` returns the text, `named` finds the member, `ALL` lists the members
/// in the order of declaration.
///
/// With a sentence after the text the list is one of reasons: the sentence is the member's documentation, `sentence`
/// returns it, and the text is also called a code (`code`, `with_code`).
macro_rules! closed_list {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every member, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name on the wire, in the configuration and in metrics.
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
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal: $sentence:literal,)+ }) => {
        $crate::telephony::closed_list! { $(#[$doc])* $name { $(#[doc = $sentence] $variant = $text,)+ } }

        impl $name {
            /// The stable code: on the wire, in metrics, in the logs and in the documentation.
            #[must_use]
            pub const fn code(self) -> &'static str {
                self.name()
            }

            /// The reason with this code.
            #[must_use]
            pub fn with_code(code: &str) -> Option<Self> {
                Self::named(code)
            }

            /// The reason as a sentence for people.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)+ }
            }
        }
    };
}
pub(crate) use closed_list;

closed_list! {
    /// The channel by which a request came (rules R26, R28).
    Via {
        /// A phone, or another client that the PBX authenticated as the extension.
        Phone = "phone",
        /// The agent dashboard.
        Dashboard = "dashboard",
    }
}

closed_list! {
    /// The kind of a queue. The queue limit binds every kind alike (tests/conformance/goto.md, section 7).
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
    /// The mode of a supervision (rules R10 to R12).
    SupervisionMode {
        /// The supervisor hears both parties; neither hears the supervisor.
        Listen = "listen",
        /// As listen, and the agent alone hears the supervisor.
        Whisper = "whisper",
        /// All three hear each other.
        Barge = "barge",
    }
}

closed_list! {
    /// The ground on which a login session was opened.
    Ground {
        /// The user serves the queue.
        Assigned = "assigned",
        /// The organization allows logins to queues that the user does not serve (rules R22, R29).
        Unassigned = "unassigned",
        /// A supervisor logged the user in (rule R27).
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
    /// The time in whole seconds, rounded down.
    #[must_use]
    pub const fn second(self) -> UnixSeconds {
        UnixSeconds(self.0 / 1_000)
    }
}

/// A point in time by two clocks: the wall clock, which can be set, and the uptime, which only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Time by the wall clock.
    pub wall: UnixMillis,
    /// Milliseconds since the process started.
    pub uptime_ms: u64,
}

impl Moment {
    /// The moment `seconds` later. A time beyond the range stays at its end: it never comes.
    #[must_use]
    pub const fn after(self, seconds: u32) -> Self {
        let ms = (seconds as u64).saturating_mul(1_000);
        Self { wall: UnixMillis(self.wall.0.saturating_add(ms)), uptime_ms: self.uptime_ms.saturating_add(ms) }
    }

    /// Whether `now` is at or after this moment by either clock. A wall clock that is set back therefore extends no
    /// lease.
    #[must_use]
    pub const fn has_come(self, now: Self) -> bool {
        now.wall.0 >= self.wall.0 || now.uptime_ms >= self.uptime_ms
    }
}

/// What the clocks say that outlive a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// Time by the wall clock, which can be set.
    pub wall: UnixMillis,
    /// Milliseconds since the machine was booted. They go on while it sleeps, and nobody can set them.
    pub since_boot_ms: u64,
    /// Names the run of the machine since it was booted: different after each boot. `None`: not known.
    pub boot: Option<u64>,
}

impl ClockReading {
    /// The wall time of `now`, if the wall clock had not been set back since this reading: at least its time and the
    /// time that the machine measured since. `None`: the machine was booted in between, and its wall clock is before
    /// this reading, so nobody knows how much time has passed.
    ///
    /// ```
    /// use queuewarden::telephony::{ClockReading, UnixMillis};
    ///
    /// let read = |wall, boot, since_boot_ms| ClockReading { wall: UnixMillis(wall), since_boot_ms, boot: Some(boot) };
    /// let stored = read(100_000, 1, 5_000);
    /// // Set back by 50 s while the machine measured 7 s.
    /// assert_eq!(stored.until(read(57_000, 1, 12_000)), Some(UnixMillis(107_000)));
    /// assert_eq!(stored.until(read(190_000, 1, 12_000)), Some(UnixMillis(190_000)));
    /// // After a boot only the wall clock counts.
    /// assert_eq!(stored.until(read(130_000, 2, 1_000)), Some(UnixMillis(130_000)));
    /// assert_eq!(stored.until(read(57_000, 2, 1_000)), None);
    /// ```
    #[must_use]
    pub fn until(self, now: Self) -> Option<UnixMillis> {
        match self.boot.zip(now.boot) {
            Some((before, after)) if before != after => (now.wall >= self.wall).then_some(now.wall),
            Some(_) => {
                let measured_ms = now.since_boot_ms.saturating_sub(self.since_boot_ms);
                Some(now.wall.max(UnixMillis(self.wall.0.saturating_add(measured_ms))))
            }
            None => Some(now.wall.max(self.wall)),
        }
    }
}

impl From<UnixMillis> for ClockReading {
    /// The reading of a wall clock that nobody sets: both go on alike.
    fn from(wall: UnixMillis) -> Self {
        Self { wall, since_boot_ms: wall.0, boot: None }
    }
}

closed_list! {
    /// Who makes the queue member of a login session.
    Origin {
        /// The PBX asked, and adds the member itself.
        Phone = "phone",
        /// A dashboard, a supervisor, an operator or another sidecar: a link adds the member.
        Elsewhere = "elsewhere",
    }
}

/// One user logged in to one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginSession {
    /// The queue.
    pub queue: QueueId,
    /// The ground on which the session was opened.
    pub ground: Ground,
    /// Whether the session is paused: the agent gets no calls.
    pub paused: bool,
    /// The time at which the session began.
    pub since: UnixSeconds,
    /// The supervisor who opened the session. `None`: the user did.
    pub by: Option<UserId>,
    /// The time at which the session ends by itself. `None`: it ends at logout.
    pub ends: Option<Moment>,
    /// Who makes its queue member.
    pub origin: Origin,
}

/// The queues of one decision, at most [`crate::limits::QUEUES_PER_USER_MAX`], without an allocation.
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

    /// Removes every queue.
    pub const fn clear(&mut self) {
        self.length = 0;
    }

    /// Adds a queue. Returns false, and adds nothing, if the set is full.
    pub fn push(&mut self, queue: QueueId) -> bool {
        match self.queues.get_mut(self.length) {
            Some(slot) => {
                *slot = queue;
                self.length += 1;
                true
            }
            None => false,
        }
    }

    /// The queues, in the order in which they were added.
    #[must_use]
    pub fn as_slice(&self) -> &[QueueId] {
        // INVARIANT: `length` is at most the length of the array.
        self.queues.get(..self.length).unwrap_or_default()
    }
}

impl Default for QueueSet {
    fn default() -> Self {
        Self::new()
    }
}

/// A value from the wire that is in the grammar: 1 to 128 bytes of `A-Z a-z 0-9 _ - . : @ + * #`.
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
    /// The bytes as a token. `None`: they are not in the grammar. Nothing is trimmed, folded or decoded.
    #[must_use]
    pub fn parse(bytes: &'buf (impl AsRef<[u8]> + ?Sized)) -> Option<Self> {
        Self::parse_in(Alphabet::Value, bytes)
    }

    /// As [`Token::parse`], for a call id, which may also hold `/ ~ % !`.
    #[must_use]
    pub fn parse_call(bytes: &'buf (impl AsRef<[u8]> + ?Sized)) -> Option<Self> {
        Self::parse_in(Alphabet::Call, bytes)
    }

    /// As [`Token::parse`], with another alphabet.
    #[must_use]
    pub fn parse_in(alphabet: Alphabet, bytes: &'buf (impl AsRef<[u8]> + ?Sized)) -> Option<Self> {
        Self::first(alphabet, bytes.as_ref()).filter(|(_, rest)| rest.is_empty()).map(|(token, _)| token)
    }

    /// The token at the start of the bytes, and the rest from the first byte that is not in the alphabet. `None`: the
    /// token would be empty or too long.
    #[must_use]
    pub fn first(alphabet: Alphabet, bytes: &'buf [u8]) -> Option<(Self, &'buf [u8])> {
        let is_admitted =
            |byte: &&u8| ALPHABETS.get(usize::from(**byte)).is_some_and(|alphabets| alphabets & alphabet as u8 != 0);
        let length = bytes.iter().take_while(is_admitted).count();
        let (token, rest) = bytes.split_at_checked(length)?;
        (1..=VALUE_BYTES_MAX).contains(&length).then_some((Self(token), rest))
    }

    /// The text.
    #[must_use]
    pub fn as_str(self) -> &'buf str {
        // INVARIANT: every alphabet is ASCII.
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

/// Dialed digits: 1 to 128 of `0-9 * #`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digits<'buf>(Token<'buf>);

impl<'buf> Digits<'buf> {
    /// The bytes as digits. `None`: they are not in the grammar.
    #[must_use]
    pub fn parse(bytes: &'buf (impl AsRef<[u8]> + ?Sized)) -> Option<Self> {
        Token::parse(bytes).and_then(Self::of)
    }

    /// The token as digits. `None`: it has another character.
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

/// Whether the text is an extension or a queue number: 1 to 16 digits.
#[must_use]
pub fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= NUMBER_DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The bytes that a token may have. Each alphabet is one bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alphabet {
    /// `A-Z a-z 0-9 _ - . : @ + * #`.
    Value = 1,
    /// The bytes of [`Alphabet::Value`] and `/ ~ % !`.
    Call = 1 << 1,
}

/// For each byte, the alphabets that have it.
const ALPHABETS: [u8; 256] = {
    const ALPHANUMERIC: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut alphabets = [0; 256];
    add(&mut alphabets, ALPHANUMERIC, Alphabet::Value as u8 | Alphabet::Call as u8);
    add(&mut alphabets, b"_-.:@+*#", Alphabet::Value as u8 | Alphabet::Call as u8);
    add(&mut alphabets, b"/~%!", Alphabet::Call as u8);
    alphabets
};

#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "evaluated at compile time")]
const fn add(alphabets: &mut [u8; 256], bytes: &[u8], bits: u8) {
    let mut position = 0;
    while position < bytes.len() {
        alphabets[bytes[position] as usize] |= bits;
        position += 1;
    }
}

/// Whether a character could begin a line or control a terminal: control characters of ASCII and Latin-1, line
/// separators, invisible characters, and marks that change the direction of writing.
#[must_use]
pub fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(character, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The text for a terminal: every character of [`is_dangerous`] is escaped, as `\n` or `\u{1b}`.
#[must_use]
pub fn escaped(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.chars().any(is_dangerous) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if !is_dangerous(character) {
            shown.push(character);
        } else if character.is_ascii() {
            shown.extend(character.escape_default());
        } else {
            shown.extend(character.escape_unicode());
        }
    }
    shown.into()
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
