//! The record of one decision or event, as the gate knows it: the members of a line of the audit log.
//!
//! The macro `audit_record!` lists the members once. The list makes the struct, its packing for the way to the writer's
//! thread, the members of the JSON line, and [`AuditRecord::MEMBERS`] for CSV.
//!
//! Packed records follow one another in a buffer, each behind its length of 4 bytes. Packing allocates nothing; JSON
//! and hashes are left to the writer's thread. The packing is our own because postcard took twice as long: 1.3 us
//! against 0.65 us to pack a usual record of 262 bytes, 1.5 us against 1.0 us to unpack it (release build, loaded
//! machine).

use std::fmt;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::decision::AnswerQueues;
use crate::limits::AUDIT_RECORD_BYTES_MAX;
use crate::telephony::closed_list;

closed_list! {
    /// The subject of a line of the log.
    About {
        /// A question was answered.
        Decision = "decision",
        /// A request was denied because it is no question: an error of the peer.
        Error = "error",
        /// Errors of a peer were left out: it made more of them than may be recorded.
        ErrorsLeftOut = "errors_left_out",
        /// Denials of a peer with one reason were left out: there were more of them than may be recorded.
        DenialsLeftOut = "denials_left_out",
        /// Lines of an actor went to `decisions`: the actor had its share of `record`.
        OverQuota = "over_quota",
        /// The last line of `record`, so that `decisions` shows if the end of `record` is missing.
        RecordHead = "record_head",
        /// The wall clock jumped: no file is removed because of its age until the clock is trusted again.
        ClockSuspect = "clock_suspect",
        /// The wall clock is trusted again.
        ClockTrusted = "clock_trusted",
        /// The session store could not write the change of an earlier decision: the peer got `state_unavailable`.
        Refused = "refused",
        /// The change of an earlier decision became durable too late, or its answer was too late: the change was
        /// undone, and the peer got `too_late`.
        Undone = "undone",
        /// A login session began without a question.
        SessionBegan = "session_began",
        /// A login session ended without a question.
        SessionEnded = "session_ended",
        /// A link found a member or a listener at the PBX that nobody allowed.
        Violation = "violation",
        /// A link removed the queue member of a login session that ended.
        MemberRemoved = "member_removed",
        /// A supervision ended without a question.
        SupervisionEnded = "supervision_ended",
        /// An operator let a link poll, adopt members, or go on.
        LinkCommand = "link_command",
        /// An operator wrote a backup of the session store.
        Backup = "backup",
        /// An operator restored a backup of the session store.
        Restore = "restore",
        /// The sidecar started.
        Start = "start",
        /// The sidecar stopped on request.
        Stop = "stop",
        /// A new policy judges from this line on.
        Reload = "reload",
        /// The configuration did not load; the running policy stays.
        ReloadFailed = "reload_failed",
        /// Records were dropped: the buffer was full because the disk was slower than the questions.
        Dropped = "dropped",
        /// Allowed questions that change nothing were left out: more arrived in a second than may be recorded.
        Sampled = "sampled",
        /// The log can be written again after a failure.
        Resumed = "resumed",
        /// The last line was unfinished after a crash: it was cut off.
        Cut = "cut",
        /// Files were removed because they were too old, or because all files together were too large.
        Retention = "retention",
    }
}

/// Which chain a record belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChainChoice {
    /// To `decisions`.
    #[default]
    Decisions,
    /// To `record`, as long as its actor has a share left there; then to `decisions`.
    Record,
}

impl ChainChoice {
    const fn as_byte(self) -> u8 {
        match self {
            Self::Decisions => 0,
            Self::Record => 1,
        }
    }

    const fn of_byte(byte: u8) -> Self {
        if byte == 0 { Self::Decisions } else { Self::Record }
    }
}

impl About {
    /// The chain of a line about this subject; a decision belongs to `record` only if the gate says so.
    const fn chain(self) -> ChainChoice {
        match self {
            Self::Decision
            | Self::Error
            | Self::ErrorsLeftOut
            | Self::DenialsLeftOut
            | Self::Dropped
            | Self::Sampled
            | Self::RecordHead => ChainChoice::Decisions,
            _ => ChainChoice::Record,
        }
    }
}

macro_rules! audit_record {
    ($($(#[$doc:meta])* $member:ident: $type:ty,)+) => {
        /// One entry of the audit log. A member that is `None`, 0 or empty does not apply, and is left out of the line.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct AuditRecord<'a> {
            /// The chain that the line belongs to. The line itself does not say it.
            pub chain: ChainChoice,
            $($(#[$doc])* pub $member: $type,)+
        }

        impl<'a> AuditRecord<'a> {
            /// The names of the members, in the order of the line.
            pub const MEMBERS: &'static [&'static str] = &[$(stringify!($member),)+];

            fn pack_members(&self, into: &mut Packer<'_>) {
                into.put(&[self.chain.as_byte()]);
                $(self.$member.pack(into);)+
            }

            fn unpack_members(from: &mut &'a [u8]) -> Option<Self> {
                let [chain] = take_bytes(from)?;
                Some(Self { chain: ChainChoice::of_byte(chain), $($member: Member::unpack(from)?,)+ })
            }

            /// Writes every member that applies.
            ///
            /// # Errors
            ///
            /// When the serializer fails.
            pub fn serialize_members<M: SerializeMap>(&self, line: &mut M) -> Result<(), M::Error> {
                $(if self.$member.applies() { line.serialize_entry(stringify!($member), &self.$member)?; })+
                Ok(())
            }
        }
    };
}

audit_record! {
    /// When the event happened. 0: when the line is written.
    time: LogTime,
    /// What the line is about; see [`About`].
    event: &'a str,
    /// The number of the decision.
    id: DecisionId,
    /// The organization.
    organization: Option<&'a str>,
    /// Who asked: an extension of the tables, or the word of the peer if the tables have no such user.
    actor: Option<&'a str>,
    /// The user of a login session or supervision that ended without a question.
    user: Option<&'a str>,
    /// The action.
    action: Option<&'a str>,
    /// `do` or `may`.
    intent: Option<&'a str>,
    /// The dialed digits.
    digits: Option<&'a str>,
    /// The extension of the target of the action.
    target: Option<&'a str>,
    /// The numbers of the queues.
    queues: AuditWords<'a>,
    /// The number of the queue that a user was moved from.
    from: Option<&'a str>,
    /// The group that the question names.
    group: Option<&'a str>,
    /// The role that the question names.
    role: Option<&'a str>,
    /// Seconds that a login by a supervisor lasts. 0: until logout.
    lease_seconds: u32,
    /// The id of the call.
    call: Option<&'a str>,
    /// The mode of a supervision.
    mode: Option<&'a str>,
    /// When the peer stops waiting, in milliseconds since 1970.
    until: u64,
    /// The name of the question.
    once: Option<&'a str>,
    /// The channel of the question: phone or dashboard.
    via: Option<&'a str>,
    /// The name of the PBX's channel, of a request that is no question.
    channel: Option<&'a str>,
    /// The dialect of the peer.
    dialect: Option<&'a str>,
    /// The peer, the link, or the operator who ended a session or supervision.
    peer: Option<&'a str>,
    /// Who acted: the id of the user, or `operator:` and the listener of the operator, on a Unix socket with the uid.
    by: Option<&'a str>,
    /// `allow` or `deny`.
    verdict: Option<&'a str>,
    /// The code of the reason.
    reason: Option<&'a str>,
    /// The key that is wrong, or the name in the place of a key that is none, of a request that is no question.
    key: Option<&'a str>,
    /// The rules that decided.
    rules: AuditWords<'a>,
    /// The grant that decided.
    grant: Option<GrantPosition<'a>>,
    /// The revision of the policy that judged.
    policy: u64,
    /// The hash of the configuration that the policy was made of.
    policy_hash: Option<&'a str>,
    /// The number of allowed questions of which this line is the sample.
    one_in: SamplingRate,
    /// The number of lines, files, bytes or problems that the event is about.
    count: u64,
    /// The decision that was refused or undone in the end.
    of: DecisionId,
    /// The sequence of the last line that was removed.
    through: u64,
    /// What else is known, for people.
    details: Option<&'a str>,
}

impl<'a> AuditRecord<'a> {
    /// A record about an event.
    #[must_use]
    pub fn about(about: About) -> Self {
        Self { event: about.name(), chain: about.chain(), ..Self::default() }
    }

    /// Whose share of `record` the line counts for: the actor, the user whose session or supervision it is about, or
    /// the link. `None`: it counts for nobody.
    pub(super) fn acting(&self) -> Option<&'a str> {
        self.actor.or(self.user).or(self.peer)
    }

    /// Appends the record if the buffer then has at most `bytes_max` bytes. False: it does not fit, and nothing is
    /// appended.
    #[must_use]
    pub fn pack(&self, into: &mut Vec<u8>, bytes_max: usize) -> bool {
        let before = into.len();
        let mut packer = Packer { into, bytes_max, fits: true };
        packer.put(&0_u32.to_le_bytes());
        self.pack_members(&mut packer);
        let fits = packer.fits;
        let start = before + LENGTH_BYTES;
        let length = u32::try_from(into.len().saturating_sub(start)).unwrap_or(u32::MAX);
        match into.get_mut(before..start) {
            Some(length_bytes) if fits => {
                length_bytes.copy_from_slice(&length.to_le_bytes());
                true
            }
            _ => {
                into.truncate(before);
                false
            }
        }
    }

    /// The record by itself, for a change that waits for the disk. At most [`AUDIT_RECORD_BYTES_MAX`] bytes: a longer
    /// record loses its rules, grant and details, the only members without a bound of their own.
    #[must_use]
    pub fn packed(&self) -> Vec<u8> {
        let mut packed = Vec::with_capacity(PACKED_BYTES_USUAL);
        if !self.pack(&mut packed, AUDIT_RECORD_BYTES_MAX) {
            let short = Self { rules: AuditWords::None, grant: None, details: None, ..*self };
            let _fits = short.pack(&mut packed, AUDIT_RECORD_BYTES_MAX);
        }
        packed
    }

    /// Takes the first record off packed records. `None`: no record is left.
    pub fn unpack(packed: &mut &'a [u8]) -> Option<Self> {
        let (length, rest) = packed.split_first_chunk::<LENGTH_BYTES>()?;
        let (mut record, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        *packed = rest;
        Self::unpack_members(&mut record)
    }
}

/// The chain of the first of these packed records, and its bytes with their length. `None`: no record is left.
pub(super) fn first_packed(packed: &[u8]) -> Option<(ChainChoice, &[u8])> {
    let (length, rest) = packed.split_first_chunk::<LENGTH_BYTES>()?;
    let bytes = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let chain = ChainChoice::of_byte(*rest.get(..bytes)?.first()?);
    Some((chain, packed.get(..LENGTH_BYTES + bytes)?))
}

const LENGTH_BYTES: usize = 4;
/// Bytes that most packed records stay below.
const PACKED_BYTES_USUAL: usize = 384;

struct Packer<'v> {
    into: &'v mut Vec<u8>,
    bytes_max: usize,
    /// Whether everything that was put fits.
    fits: bool,
}

impl Packer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.fits &= self.into.len() + bytes.len() <= self.bytes_max;
        if self.fits {
            self.into.extend_from_slice(bytes);
        }
    }
}

/// A member of a record: how it is packed, and how it is written in the JSON line.
trait Member<'a>: Serialize + Sized {
    /// Whether the line has the member.
    fn applies(&self) -> bool;
    fn pack(&self, into: &mut Packer<'_>);
    fn unpack(from: &mut &'a [u8]) -> Option<Self>;
}

/// Takes the first `N` bytes off.
fn take_bytes<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*bytes)
}

impl Member<'_> for u64 {
    fn applies(&self) -> bool {
        *self > 0
    }

    fn pack(&self, into: &mut Packer<'_>) {
        into.put(&self.to_le_bytes());
    }

    fn unpack(from: &mut &[u8]) -> Option<Self> {
        take_bytes(from).map(Self::from_le_bytes)
    }
}

impl Member<'_> for u32 {
    fn applies(&self) -> bool {
        *self > 0
    }

    fn pack(&self, into: &mut Packer<'_>) {
        into.put(&self.to_le_bytes());
    }

    fn unpack(from: &mut &[u8]) -> Option<Self> {
        take_bytes(from).map(Self::from_le_bytes)
    }
}

/// The length of a text that does not apply.
const ABSENT: u16 = u16::MAX;

fn pack_length(length: u16, into: &mut Packer<'_>) {
    into.put(&length.to_le_bytes());
}

fn unpack_length(from: &mut &[u8]) -> Option<u16> {
    take_bytes(from).map(u16::from_le_bytes)
}

impl<'a> Member<'a> for &'a str {
    fn applies(&self) -> bool {
        true
    }

    fn pack(&self, into: &mut Packer<'_>) {
        pack_length(u16::try_from(self.len()).unwrap_or(ABSENT), into);
        into.put(self.as_bytes());
    }

    fn unpack(from: &mut &'a [u8]) -> Option<Self> {
        let length = usize::from(unpack_length(from)?);
        let (text, rest) = from.split_at_checked(length)?;
        *from = rest;
        std::str::from_utf8(text).ok()
    }
}

impl<'a> Member<'a> for Option<&'a str> {
    fn applies(&self) -> bool {
        self.is_some()
    }

    fn pack(&self, into: &mut Packer<'_>) {
        match self {
            Some(text) => text.pack(into),
            None => pack_length(ABSENT, into),
        }
    }

    fn unpack(from: &mut &'a [u8]) -> Option<Self> {
        let mut ahead = *from;
        if unpack_length(&mut ahead)? == ABSENT {
            *from = ahead;
            return Some(None);
        }
        <&str>::unpack(from).map(Some)
    }
}

/// A time in milliseconds since 1970; in the line in UTC, as RFC 3339 writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogTime(pub u64);

impl Serialize for LogTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

impl Member<'_> for LogTime {
    fn applies(&self) -> bool {
        true
    }

    fn pack(&self, into: &mut Packer<'_>) {
        self.0.pack(into);
    }

    fn unpack(from: &mut &[u8]) -> Option<Self> {
        u64::unpack(from).map(Self)
    }
}

/// A time in milliseconds since 1970 as RFC 3339 writes it, in UTC. A time after the year 9999 stays a number.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| unix_ms.to_string(), |time| format!("{time:.3}"))
}

/// A decision of one process; in the line `START-NUMBER`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecisionId {
    /// The sequence of the `start` line of the process. The log fills it in; it is not packed.
    pub start: u64,
    /// The number of the decision in the process, from 1. 0: no decision.
    pub number: u64,
}

impl DecisionId {
    /// The decision with this number in this process.
    #[must_use]
    pub const fn numbered(number: u64) -> Self {
        Self { start: 0, number }
    }
}

impl Serialize for DecisionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}-{}", self.start, self.number))
    }
}

impl Member<'_> for DecisionId {
    fn applies(&self) -> bool {
        self.number > 0
    }

    fn pack(&self, into: &mut Packer<'_>) {
        self.number.pack(into);
    }

    fn unpack(from: &mut &[u8]) -> Option<Self> {
        u64::unpack(from).map(Self::numbered)
    }
}

/// Where a grant is written; in the line `FILE:LINE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantPosition<'a> {
    /// The file of the role model.
    pub file: &'a str,
    /// The line in the file, from 1.
    pub line: u32,
}

impl Serialize for GrantPosition<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}:{}", self.file, self.line))
    }
}

impl<'a> Member<'a> for Option<GrantPosition<'a>> {
    fn applies(&self) -> bool {
        self.is_some()
    }

    fn pack(&self, into: &mut Packer<'_>) {
        self.map(|grant| grant.file).pack(into);
        self.map_or(0, |grant| grant.line).pack(into);
    }

    fn unpack(from: &mut &'a [u8]) -> Option<Self> {
        let (file, line) = (<Option<&str>>::unpack(from)?, u32::unpack(from)?);
        Some(file.map(|file| GrantPosition { file, line }))
    }
}

/// One line of how many questions is written. 0 and 1: every line, and the line does not say so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SamplingRate(pub u32);

impl Serialize for SamplingRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl Member<'_> for SamplingRate {
    fn applies(&self) -> bool {
        self.0 > 1
    }

    fn pack(&self, into: &mut Packer<'_>) {
        self.0.pack(into);
    }

    fn unpack(from: &mut &[u8]) -> Option<Self> {
        u32::unpack(from).map(Self)
    }
}

/// A list of words: in the tables before the record is packed, in the buffer after.
#[derive(Clone, Copy, Default)]
pub enum AuditWords<'a> {
    /// No word.
    #[default]
    None,
    /// One word.
    One(&'a str),
    /// The queues of an answer.
    Queues(AnswerQueues<'a>),
    /// The rules of a grant or an action.
    Rules(&'a [Box<str>]),
    /// Packed words, and how many there are.
    Packed(u16, &'a [u8]),
}

impl<'a> AuditWords<'a> {
    fn for_each(self, mut visit: impl FnMut(&'a str)) {
        match self {
            Self::None => {}
            Self::One(word) => visit(word),
            Self::Queues(queues) => queues.numbers().for_each(visit),
            Self::Rules(rules) => rules.iter().for_each(|rule| visit(rule)),
            Self::Packed(count, mut packed) => {
                (0..count).map_while(|_| <&str>::unpack(&mut packed)).for_each(visit);
            }
        }
    }

    /// The words.
    #[must_use]
    pub fn to_vec(self) -> Vec<&'a str> {
        let mut words = vec![];
        self.for_each(|word| words.push(word));
        words
    }

    fn count(self) -> u16 {
        let mut count = 0_u16;
        self.for_each(|_| count += 1);
        count
    }
}

impl fmt::Debug for AuditWords<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.to_vec()).finish()
    }
}

impl Serialize for AuditWords<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let words = self.to_vec();
        let mut list = serializer.serialize_seq(Some(words.len()))?;
        for word in words {
            list.serialize_element(word)?;
        }
        list.end()
    }
}

impl<'a> Member<'a> for AuditWords<'a> {
    fn applies(&self) -> bool {
        self.count() > 0
    }

    fn pack(&self, into: &mut Packer<'_>) {
        pack_length(self.count(), into);
        self.for_each(|word| word.pack(into));
    }

    fn unpack(from: &mut &'a [u8]) -> Option<Self> {
        let count = unpack_length(from)?;
        let words = *from;
        for _ in 0..count {
            <&str>::unpack(from)?;
        }
        Some(Self::Packed(count, words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_unpacked_as_it_was_packed_and_one_that_does_not_fit_leaves_nothing() {
        let rules: [Box<str>; 2] = ["R10".into(), "R38".into()];
        let record = AuditRecord {
            id: DecisionId::numbered(7),
            organization: Some("acme"),
            actor: Some(""),
            queues: AuditWords::One("600"),
            rules: AuditWords::Rules(&rules),
            grant: Some(GrantPosition { file: "goto.toml", line: 3 }),
            one_in: SamplingRate(100),
            details: Some("ü\n\"x\u{1b}"),
            ..AuditRecord::about(About::Decision)
        };
        let mut packed = vec![];
        assert!(record.pack(&mut packed, 4_096) && AuditRecord::about(About::Stop).pack(&mut packed, 4_096));
        let length = packed.len();
        assert!(!record.pack(&mut packed, length + 8));
        assert_eq!(packed.len(), length);
        let mut rest = packed.as_slice();
        let unpacked = AuditRecord::unpack(&mut rest).unwrap();
        assert_eq!(format!("{unpacked:?}"), format!("{record:?}"));
        assert_eq!(AuditRecord::unpack(&mut rest).unwrap().event, "stop");
        assert!(AuditRecord::unpack(&mut rest).is_none() && rest.is_empty());
        for end in 0..length {
            // A buffer that ends anywhere holds fewer records; it never panics.
            let mut cut = &packed[..end];
            while AuditRecord::unpack(&mut cut).is_some() {}
        }
    }
}
