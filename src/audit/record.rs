//! What the gate knows at the moment of a decision, packed small: packing one takes no memory and a tenth of a
//! microsecond, and everything that takes longer is left to the writer's thread.
//!
//! Packed records stand one behind the other in a buffer, each behind its length.

use std::fmt;

use crate::decision::AnswerQueues;
use crate::limits::AUDIT_RECORD_BYTES_MAX;
use crate::telephony::closed_list;

closed_list! {
    /// What a line of the log is about.
    About {
        /// A question was answered.
        Decision = "decision",
        /// The change of a decision above could not be kept by the session store: the peer heard `state_unavailable`.
        Refused = "refused",
        /// A login session ended without a question.
        SessionEnded = "session_ended",
        /// A supervision ended without a question.
        SupervisionEnded = "supervision_ended",
        /// The sidecar began to write.
        Start = "start",
        /// The sidecar ended in order.
        Stop = "stop",
        /// A new policy judges from now on.
        Reload = "reload",
        /// The configuration did not load; the policy of before stays.
        ReloadFailed = "reload_failed",
        /// Lines found no room while the disk was slower than the questions.
        Dropped = "dropped",
        /// There were more allowed questions that change nothing than lines that they may have in a second.
        Sampled = "sampled",
        /// The log could not be written for a while, and can again.
        Resumed = "resumed",
        /// The last line was torn: what stood behind the last whole one was cut off.
        Cut = "cut",
        /// Files were removed because they were old, or too large together.
        Retention = "retention",
    }
}

macro_rules! record {
    ($($(#[$doc:meta])* $field:ident: $type:ty,)+) => {
        /// One entry before it is a line. What does not apply is `None`, or 0.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct AuditRecord<'a> { $($(#[$doc])* pub $field: $type,)+ }

        impl<'a> AuditRecord<'a> {
            fn pack_fields(&self, into: &mut Packer<'_>) { $(self.$field.pack(into);)+ }

            fn unpack_fields(from: &mut &'a [u8]) -> Option<Self> {
                Some(Self { $($field: Part::unpack(from)?,)+ })
            }
        }
    };
}

record! {
    /// What it is about; see [`About`].
    event: &'a str,
    /// When, in milliseconds since 1970; 0: when it is written.
    unix_ms: u64,
    /// The number of the decision in this process.
    id: u64,
    /// The tenant.
    organization: Option<&'a str>,
    /// Who asked: an extension of the tables or, where they have nobody of that name, the word of the peer.
    actor: Option<&'a str>,
    /// Whose login session or supervision it was, where nobody asked.
    user: Option<&'a str>,
    /// The action.
    action: Option<&'a str>,
    /// `do` or `may`.
    intent: Option<&'a str>,
    /// What was dialed.
    digits: Option<&'a str>,
    /// Whom it was done to.
    target: Option<&'a str>,
    /// The numbers of the queues.
    queues: Words<'a>,
    /// The queue that somebody was moved from.
    from: Option<&'a str>,
    /// The group.
    group: Option<&'a str>,
    /// The role that was given.
    role: Option<&'a str>,
    /// How long a login of somebody else lasts, in seconds.
    lease_seconds: u32,
    /// The call.
    call: Option<&'a str>,
    /// The mode of a supervision.
    mode: Option<&'a str>,
    /// The channel.
    via: Option<&'a str>,
    /// The dialect of the peer.
    dialect: Option<&'a str>,
    /// The peer.
    peer: Option<&'a str>,
    /// `allow` or `deny`.
    verdict: Option<&'a str>,
    /// Why.
    reason: Option<&'a str>,
    /// The rules that decided.
    rules: Words<'a>,
    /// The file of the grant that decided.
    grant_file: Option<&'a str>,
    /// Its line there, from 1.
    grant_line: u32,
    /// Revision of the policy that judged.
    policy: u64,
    /// Hash of the configuration that it was made of.
    policy_hash: Option<&'a str>,
    /// It stands for so many allowed questions that change nothing; 0 and 1: for itself.
    one_in: u32,
    /// How many there are of what the event is about.
    count: u64,
    /// The decision that it is about, or the sequence up to which lines were removed.
    of: u64,
    /// What else there is to say.
    details: Option<&'a str>,
}

impl<'a> AuditRecord<'a> {
    /// A record about something.
    #[must_use]
    pub fn about(about: About) -> Self {
        Self { event: about.name(), ..Self::default() }
    }

    /// Appends the record, if it fits into so many bytes; whether it did.
    #[must_use]
    pub fn pack(&self, into: &mut Vec<u8>, bytes_max: usize) -> bool {
        let before = into.len();
        let mut packer = Packer { into, bytes_max, fits: true };
        packer.put(&0_u32.to_le_bytes());
        self.pack_fields(&mut packer);
        let fits = packer.fits;
        let start = before.saturating_add(LENGTH_BYTES);
        let length = u32::try_from(into.len().saturating_sub(start)).unwrap_or(u32::MAX);
        match into.get_mut(before..start) {
            Some(place) if fits => {
                place.copy_from_slice(&length.to_le_bytes());
                true
            }
            _ => {
                into.truncate(before);
                false
            }
        }
    }

    /// The record by itself, for a change that waits for the disk.
    #[must_use]
    pub fn packed(&self) -> Vec<u8> {
        let mut packed = Vec::with_capacity(PACKED_BYTES_USUAL);
        if !self.pack(&mut packed, AUDIT_RECORD_BYTES_MAX) {
            // Only what stands in the operator's own files can be as long as that.
            let without = Self { rules: Words::None, grant_file: None, details: None, ..*self };
            let _ = without.pack(&mut packed, AUDIT_RECORD_BYTES_MAX);
        }
        packed
    }

    /// Takes the first record off packed ones; `None` at their end.
    pub fn unpack(packed: &mut &'a [u8]) -> Option<Self> {
        let (length, rest) = packed.split_first_chunk::<LENGTH_BYTES>()?;
        let (mut one, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        *packed = rest;
        Self::unpack_fields(&mut one)
    }
}

const LENGTH_BYTES: usize = 4;
/// Bytes that most records stay below.
const PACKED_BYTES_USUAL: usize = 384;

struct Packer<'v> {
    into: &'v mut Vec<u8>,
    bytes_max: usize,
    fits: bool,
}

impl Packer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.fits &= self.into.len().saturating_add(bytes.len()) <= self.bytes_max;
        if self.fits {
            self.into.extend_from_slice(bytes);
        }
    }
}

/// A field that can be packed.
trait Part<'a>: Sized {
    fn pack(&self, into: &mut Packer<'_>);
    fn unpack(from: &mut &'a [u8]) -> Option<Self>;
}

impl<'a> Part<'a> for u64 {
    fn pack(&self, into: &mut Packer<'_>) {
        into.put(&self.to_le_bytes());
    }

    fn unpack(from: &mut &'a [u8]) -> Option<Self> {
        let (bytes, rest) = from.split_first_chunk()?;
        *from = rest;
        Some(Self::from_le_bytes(*bytes))
    }
}

impl<'a> Part<'a> for u32 {
    fn pack(&self, into: &mut Packer<'_>) {
        into.put(&self.to_le_bytes());
    }

    fn unpack(from: &mut &'a [u8]) -> Option<Self> {
        let (bytes, rest) = from.split_first_chunk()?;
        *from = rest;
        Some(Self::from_le_bytes(*bytes))
    }
}

impl<'a> Part<'a> for u16 {
    fn pack(&self, into: &mut Packer<'_>) {
        into.put(&self.to_le_bytes());
    }

    fn unpack(from: &mut &'a [u8]) -> Option<Self> {
        let (bytes, rest) = from.split_first_chunk()?;
        *from = rest;
        Some(Self::from_le_bytes(*bytes))
    }
}

impl<'a> Part<'a> for &'a str {
    fn pack(&self, into: &mut Packer<'_>) {
        u16::try_from(self.len()).unwrap_or(ABSENT).pack(into);
        into.put(self.as_bytes());
    }

    fn unpack(from: &mut &'a [u8]) -> Option<Self> {
        let length = usize::from(u16::unpack(from)?);
        let (text, rest) = from.split_at_checked(length)?;
        *from = rest;
        std::str::from_utf8(text).ok()
    }
}

/// The length of a text that is not there.
const ABSENT: u16 = u16::MAX;

impl<'a> Part<'a> for Option<&'a str> {
    fn pack(&self, into: &mut Packer<'_>) {
        match self {
            Some(text) => text.pack(into),
            None => ABSENT.pack(into),
        }
    }

    fn unpack(from: &mut &'a [u8]) -> Option<Self> {
        let mut ahead = *from;
        if u16::unpack(&mut ahead)? == ABSENT {
            *from = ahead;
            return Some(None);
        }
        <&str>::unpack(from).map(Some)
    }
}

/// A list of words: of the tables before it is packed, of the buffer after.
#[derive(Clone, Copy, Default)]
pub enum Words<'a> {
    /// None.
    #[default]
    None,
    /// One.
    One(&'a str),
    /// The queues of an answer.
    Queues(AnswerQueues<'a>),
    /// The rules of a grant or an action.
    Rules(&'a [Box<str>]),
    /// Packed, so many.
    Packed(u16, &'a [u8]),
}

impl<'a> Words<'a> {
    fn each(self, mut tell: impl FnMut(&'a str)) {
        match self {
            Self::None => {}
            Self::One(word) => tell(word),
            Self::Queues(queues) => queues.numbers().for_each(tell),
            Self::Rules(rules) => rules.iter().for_each(|rule| tell(rule)),
            Self::Packed(count, mut packed) => {
                (0..count).map_while(|_| <&str>::unpack(&mut packed)).for_each(tell);
            }
        }
    }

    /// The words.
    #[must_use]
    pub fn to_vec(self) -> Vec<&'a str> {
        let mut words = vec![];
        self.each(|word| words.push(word));
        words
    }
}

impl fmt::Debug for Words<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.to_vec()).finish()
    }
}

impl<'a> Part<'a> for Words<'a> {
    fn pack(&self, into: &mut Packer<'_>) {
        let mut count = 0_u16;
        self.each(|_| count = count.saturating_add(1));
        count.pack(into);
        self.each(|word| word.pack(into));
    }

    fn unpack(from: &mut &'a [u8]) -> Option<Self> {
        let count = u16::unpack(from)?;
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
    fn a_draft_comes_back_as_it_was_and_one_that_does_not_fit_leaves_no_trace() {
        let rules: [Box<str>; 2] = ["R10".into(), "R38".into()];
        let record = AuditRecord {
            id: 7,
            organization: Some("acme"),
            actor: Some(""),
            queues: Words::One("600"),
            rules: Words::Rules(&rules),
            grant_line: 3,
            one_in: 100,
            details: Some("ü\n\"x\u{1b}"),
            ..AuditRecord::about(About::Decision)
        };
        let mut packed = vec![];
        assert!(record.pack(&mut packed, 4_096) && AuditRecord::about(About::Stop).pack(&mut packed, 4_096));
        let whole = packed.len();
        assert!(!record.pack(&mut packed, whole + 8));
        assert_eq!(packed.len(), whole);
        let mut rest = packed.as_slice();
        let back = AuditRecord::unpack(&mut rest).unwrap();
        assert_eq!(format!("{back:?}"), format!("{record:?}"));
        assert_eq!(AuditRecord::unpack(&mut rest).unwrap().event, "stop");
        assert!(AuditRecord::unpack(&mut rest).is_none() && rest.is_empty());
        for length in 0..whole {
            // Cut anywhere, it is a shorter list, never a panic.
            let mut cut = &packed[..length];
            while AuditRecord::unpack(&mut cut).is_some() {}
        }
    }
}
