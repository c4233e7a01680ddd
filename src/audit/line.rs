//! One line of the audit log: a JSON object. Its last member is the SHA-256 of everything before that member, which
//! includes the hash of the line before.
//!
//! `hash` covers the bytes of the line up to `,"hash":`, so a line can be checked without a JSON parser.

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::audit::record::AuditRecord;

/// A SHA-256.
pub type LineHash = [u8; 32];

/// The hash that the first line of a log follows.
pub const NO_HASH: LineHash = [0; 32];

const HASH_MEMBER: &str = ",\"hash\":\"";
const LINE_END: &str = "\"}";
/// Hexadecimal digits of a hash.
const HASH_DIGITS: usize = 64;

/// The names of all members of a line, in their order: the columns of CSV.
#[must_use]
pub fn members() -> Vec<&'static str> {
    let of_record = AuditRecord::MEMBERS.iter().copied();
    ["sequence"].into_iter().chain(of_record).chain(["prev", "hash"]).collect()
}

/// A record at its place in the log.
#[derive(Clone, Copy, Debug)]
pub struct NewLine<'a> {
    /// The number of the line, from 1 on, over all files.
    pub sequence: u64,
    /// What the line says.
    pub record: AuditRecord<'a>,
    /// The hash of the line before.
    pub previous: LineHash,
}

impl Serialize for NewLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_map(None)?;
        line.serialize_entry("sequence", &self.sequence)?;
        self.record.serialize_members(&mut line)?;
        line.serialize_entry("prev", &hex(&self.previous))?;
        line.end()
    }
}

impl NewLine<'_> {
    /// Appends the line with its hash and its line end. Returns the hash.
    pub fn write(&self, into: &mut Vec<u8>) -> LineHash {
        let mut body = vec![];
        // Cannot fail: the members are numbers and text, and a vector takes every byte.
        serde_json::to_writer(&mut body, self).ok();
        body.pop();
        let hash: LineHash = Sha256::digest(&body).into();
        into.extend_from_slice(&body);
        into.extend_from_slice(HASH_MEMBER.as_bytes());
        into.extend_from_slice(hex(&hash).as_bytes());
        into.extend_from_slice(LINE_END.as_bytes());
        into.push(b'\n');
        hash
    }
}

/// A line that was read, with the members that a check needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ReadLine {
    /// The number of the line, from 1 on, over all files.
    pub sequence: u64,
    /// When the event happened, in UTC (RFC 3339).
    pub time: String,
    /// What the line is about; see [`crate::audit::record::About`].
    pub event: String,
    /// The decision. `None`: the line is about no decision.
    pub id: Option<String>,
    /// The number of lines that the event is about.
    pub count: Option<u64>,
    /// The sequence of the last line that was removed.
    pub through: Option<u64>,
    /// What else is known, for people.
    pub details: Option<String>,
    /// The hash of the line before, in hexadecimal digits.
    pub prev: String,
}

/// Why a line is not a line of the log, or was altered.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LineError {
    /// The line does not have the form of a line of the log.
    #[error("the line was altered: it is no line of this log")]
    Form,
    /// The line differs from the line that its hash was made of.
    #[error("the line was altered: its hash is another")]
    Hash,
}

/// Reads a line without its line end, and checks its hash.
///
/// # Errors
///
/// When the bytes are no line of the log, or the line was altered.
pub fn read(bytes: &[u8]) -> Result<(ReadLine, LineHash), LineError> {
    let tail_bytes = HASH_MEMBER.len() + HASH_DIGITS + LINE_END.len();
    let body_end = bytes.len().checked_sub(tail_bytes).ok_or(LineError::Form)?;
    let (body, tail) = bytes.split_at_checked(body_end).ok_or(LineError::Form)?;
    let digits = tail.strip_prefix(HASH_MEMBER.as_bytes()).and_then(|rest| rest.strip_suffix(LINE_END.as_bytes()));
    let written_hash = digits.and_then(unhex).ok_or(LineError::Form)?;
    let hash: LineHash = Sha256::digest(body).into();
    if hash != written_hash {
        return Err(LineError::Hash);
    }
    let object = [body, b"}"].concat();
    serde_json::from_slice(&object).map(|line| (line, hash)).map_err(|_| LineError::Form)
}

/// The hash in lower-case hexadecimal digits.
#[must_use]
pub fn hex(hash: &LineHash) -> String {
    hex_of(hash)
}

/// Bytes in lower-case hexadecimal digits.
#[must_use]
pub fn hex_of(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS.get(usize::from(nibble)).copied().unwrap_or_default());
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// The hash that these digits write. `None`: they are not 64 digits of `0-9 a-f`.
#[must_use]
pub fn unhex(digits: &[u8]) -> Option<LineHash> {
    if digits.len() != HASH_DIGITS {
        return None;
    }
    unhex_bytes(digits)?.try_into().ok()
}

/// The bytes that these digits write. `None`: they are not pairs of `0-9 a-f`.
#[must_use]
pub fn unhex_bytes(digits: &[u8]) -> Option<Vec<u8>> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(digit.wrapping_sub(b'a').wrapping_add(10)),
        _ => None,
    };
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some(nibble(high)? << 4 | nibble(low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::record::{About, DecisionId, LogTime};

    fn written(record: &AuditRecord<'_>) -> Vec<u8> {
        let mut bytes = vec![];
        NewLine { sequence: 9, record: *record, previous: NO_HASH }.write(&mut bytes);
        bytes
    }

    #[test]
    fn a_line_is_read_as_it_was_written_and_has_the_time_in_utc() {
        let record = AuditRecord {
            time: LogTime(1_700_000_000_123),
            id: DecisionId { start: 3, number: 4 },
            organization: Some("acme"),
            ..AuditRecord::about(About::Decision)
        };
        let bytes = written(&record);
        let (line, hash) = read(&bytes[..bytes.len() - 1]).unwrap();
        assert_eq!((line.sequence, line.id.as_deref()), (9, Some("3-4")));
        assert_eq!(line.time, "2023-11-14T22:13:20.123Z");
        assert_eq!(unhex(hex(&hash).as_bytes()), Some(hash));
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.ends_with(&format!(",\"hash\":\"{}\"}}\n", hex(&hash))), "{text}");
    }

    #[test]
    fn a_value_with_line_ends_and_quotes_stays_in_one_line() {
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
