//! One line of the log: a JSON object whose last member is the SHA-256 of everything before that member, the hash of
//! the line before among it.
//!
//! Whoever checks a line needs no JSON: `hash` covers the bytes of the line up to `,"hash":`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::audit::record::{About, AuditRecord};

/// A SHA-256.
pub type Hash = [u8; 32];

/// The hash before the first line of all.
pub const NO_HASH: Hash = [0; 32];

const HASH_MEMBER: &str = ",\"hash\":\"";
const LINE_END: &str = "\"}";
/// Hexadecimal digits of a hash.
const HASH_DIGITS: usize = 64;

/// What a line says, beside its hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its number, from 1 on, over all files.
    pub sequence: u64,
    /// When, in UTC (RFC 3339).
    pub time: String,
    /// What it is about; see [`crate::audit::record::About`].
    pub event: String,
    /// The decision: the sequence of the `start` before it, and its number since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Whose login session or supervision it was, where nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// `do` or `may`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<String>,
    /// What was dialed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digits: Option<String>,
    /// Whom it was done to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The numbers of the queues.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<String>,
    /// The queue that somebody was moved from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The role that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// How long a login of somebody else lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u32>,
    /// The call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// The mode of a supervision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// The dialect of the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<String>,
    /// The peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// `allow` or `deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The rules that decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// The grant that decided: `file:line` of the role model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// Revision of the policy that judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<u64>,
    /// Hash of the configuration that it was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_hash: Option<String>,
    /// It stands for so many allowed questions that change nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_in: Option<u32>,
    /// How many there are of what the event is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The decision that was refused in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// The sequence of the last line that was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<u64>,
    /// What else there is to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
    /// The hash of the line before.
    pub prev: String,
}

impl Line {
    /// The line of a record, in the process that began at the line `start`.
    #[must_use]
    pub fn of(record: &AuditRecord<'_>, sequence: u64, start: u64, now_ms: u64, prev: &Hash) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let words = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect();
        let number = |number: u64| Some(number).filter(|&number| number > 0);
        let decision = |id: u64| number(id).map(|id| format!("{start}-{id}"));
        let is_retention = record.event == About::Retention.name();
        Self {
            sequence,
            time: rfc3339(if record.unix_ms == 0 { now_ms } else { record.unix_ms }),
            event: record.event.to_owned(),
            id: decision(record.id),
            organization: owned(record.organization),
            actor: owned(record.actor),
            user: owned(record.user),
            action: owned(record.action),
            intent: owned(record.intent),
            digits: owned(record.digits),
            target: owned(record.target),
            queues: words(record.queues.to_vec()),
            from: owned(record.from),
            group: owned(record.group),
            role: owned(record.role),
            lease_seconds: Some(record.lease_seconds).filter(|&seconds| seconds > 0),
            call: owned(record.call),
            mode: owned(record.mode),
            via: owned(record.via),
            dialect: owned(record.dialect),
            peer: owned(record.peer),
            verdict: owned(record.verdict),
            reason: owned(record.reason),
            rules: words(record.rules.to_vec()),
            grant: record.grant_file.map(|file| format!("{file}:{}", record.grant_line)),
            policy: number(record.policy),
            policy_hash: owned(record.policy_hash),
            one_in: Some(record.one_in).filter(|&one_in| one_in > 1),
            count: number(record.count),
            of: decision(record.of).filter(|_| !is_retention),
            through: number(record.of).filter(|_| is_retention),
            details: owned(record.details),
            prev: hex(prev),
        }
    }

    /// Appends the line with its hash and its end; gives the hash.
    pub fn write(&self, into: &mut Vec<u8>) -> Hash {
        let start = into.len();
        // Only a value that is no JSON can fail, and a vector takes what it is given.
        drop(serde_json::to_writer(&mut *into, self));
        into.pop();
        let hash: Hash = Sha256::digest(into.get(start..).unwrap_or_default()).into();
        into.extend_from_slice(HASH_MEMBER.as_bytes());
        into.extend_from_slice(hex(&hash).as_bytes());
        into.extend_from_slice(LINE_END.as_bytes());
        into.push(b'\n');
        hash
    }
}

/// Why a line is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is not of this form.
    Form,
    /// It is not what its hash was made of.
    Hash,
}

/// Reads a line, without its end, that has to be what its hash was made of.
///
/// # Errors
///
/// When it is not.
pub fn read(bytes: &[u8]) -> Result<(Line, Hash), Flaw> {
    let tail = HASH_MEMBER.len().saturating_add(HASH_DIGITS).saturating_add(LINE_END.len());
    let body_end = bytes.len().checked_sub(tail).ok_or(Flaw::Form)?;
    let (body, tail) = bytes.split_at_checked(body_end).ok_or(Flaw::Form)?;
    let digits = tail.strip_prefix(HASH_MEMBER.as_bytes()).and_then(|rest| rest.strip_suffix(LINE_END.as_bytes()));
    let said = digits.and_then(unhex).ok_or(Flaw::Form)?;
    let hash: Hash = Sha256::digest(body).into();
    if hash != said {
        return Err(Flaw::Hash);
    }
    let whole = [body, b"}"].concat();
    serde_json::from_slice(&whole).map(|line| (line, hash)).map_err(|_| Flaw::Form)
}

/// The hash in lower-case hexadecimal digits.
#[must_use]
pub fn hex(hash: &Hash) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
    hash.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The hash of these digits.
#[must_use]
pub fn unhex(digits: &[u8]) -> Option<Hash> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(digit.wrapping_sub(b'a').wrapping_add(10)),
        _ => None,
    };
    if digits.len() != HASH_DIGITS {
        return None;
    }
    let mut hash = NO_HASH;
    for (byte, pair) in hash.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(hash)
}

/// A time as RFC 3339 writes it, in UTC and with milliseconds.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).map_or_else(|_| unix_ms.to_string(), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(record: &AuditRecord<'_>) -> Vec<u8> {
        let mut bytes = vec![];
        Line::of(record, 9, 3, 1_700_000_000_123, &NO_HASH).write(&mut bytes);
        bytes
    }

    #[test]
    fn a_line_comes_back_and_says_the_time_in_utc() {
        let record = AuditRecord { id: 4, organization: Some("acme"), ..AuditRecord::about(About::Decision) };
        let bytes = written(&record);
        let (line, hash) = read(&bytes[..bytes.len() - 1]).unwrap();
        assert_eq!((line.sequence, line.id.as_deref()), (9, Some("3-4")));
        assert_eq!(line.time, "2023-11-14T22:13:20.123Z");
        assert_eq!(unhex(hex(&hash).as_bytes()), Some(hash));
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.ends_with(&format!(",\"hash\":\"{}\"}}\n", hex(&hash))), "{text}");
    }

    #[test]
    fn whatever_a_value_holds_the_line_is_one_line() {
        let forged = "x\n{\"event\":\"decision\"}\r\u{1b}]0;x\u{7}\u{2028}\",\"hash\":\"0";
        let bytes = written(&AuditRecord { details: Some(forged), ..AuditRecord::about(About::Start) });
        assert_eq!(memchr::memchr_iter(b'\n', &bytes).count(), 1);
        assert!(!bytes.contains(&0x1b) && !bytes.contains(&b'\r'));
        assert_eq!(read(&bytes[..bytes.len() - 1]).unwrap().0.details.as_deref(), Some(forged));
    }

    #[test]
    fn any_altered_bit_is_found() {
        let bytes = written(&AuditRecord { actor: Some("1001"), ..AuditRecord::about(About::Decision) });
        let line = &bytes[..bytes.len() - 1];
        assert!(read(line).is_ok());
        for position in 0..line.len() {
            for bit in 0..8 {
                let mut altered = line.to_vec();
                altered[position] ^= 1 << bit;
                assert!(read(&altered).is_err(), "bit {bit} of byte {position}");
            }
        }
        for length in 0..line.len() {
            assert!(read(&line[..length]).is_err(), "cut at {length}");
        }
    }
}
