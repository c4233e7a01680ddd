//! The variables of a FreeSWITCH block: which are keys, how their values are decoded, and the times among them.

use percent_encoding::percent_decode;

use crate::decision::{ErrorReason, WireError};
use crate::dialect::fields::unix_ms;
use crate::dialect::header_lines::{lines_of, split};
use crate::dialect::readable::ReadableRequest;
use crate::event::{Event, Key, KeySet};
use crate::limits::UNTIL_AHEAD_MAX;
use crate::telephony::UnixMillis;

/// How FreeSWITCH writes an empty value.
const UNDEFINED: &[u8] = b"_undef_";

/// The start of the name of every queuewarden variable in a block.
const VARIABLE_PREFIX: &[u8] = b"variable_qw_";

/// Variables of an answer that are no keys. A block may hold them: the dialplan sets some before it asks, and others
/// are left from an earlier answer.
const ANSWER_ONLY: [&[u8]; 3] = [b"verdict", b"reason", b"queues"];

/// The variable for the key `verb`: `qw_verb` is the verb of the question.
const OBJECT_VERB: &[u8] = b"object_verb";

/// Keys that no variable may give: the actor is the user that FreeSWITCH authenticated.
const NEVER_VARIABLES: KeySet = KeySet::of(&[Key::Actor, Key::Token, Key::Verb]);

/// The variable for the key `until` as milliseconds from the header `Event-Date-Timestamp`.
pub(super) const WITHIN: &[u8] = b"within";

/// Where a decoded value is in the buffer of decoded values.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecodedRange {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Decodes a value and appends it to `decoded`. `None`: a `%` is not followed by two hexadecimal digits.
pub(super) fn decode(value: &[u8], decoded: &mut Vec<u8>) -> Option<DecodedRange> {
    let start = decoded.len();
    if value != UNDEFINED {
        let mut escapes = value.iter().enumerate().filter(|(_, byte)| **byte == b'%');
        let is_complete = |(at, _): (usize, &u8)| {
            let digits = value.get(at.saturating_add(1)..at.saturating_add(3));
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        };
        if !escapes.all(is_complete) {
            return None;
        }
        decoded.extend(percent_decode(value));
    }
    Some(DecodedRange { start, end: decoded.len() })
}

/// The name of a queuewarden variable without its prefix. FreeSWITCH ignores the case of variable names, and a key that
/// is not recognized would widen the question.
pub(super) fn key_name(name: &[u8]) -> Option<&[u8]> {
    let (prefix, name) = name.split_at_checked(VARIABLE_PREFIX.len())?;
    prefix.eq_ignore_ascii_case(VARIABLE_PREFIX).then_some(name)
}

/// The key that a variable gives. `None`: it is no queuewarden variable, or one of an answer.
pub(super) fn key_of_variable(name: &[u8]) -> Result<Option<Key>, WireError> {
    let Some(name) = key_name(name).filter(|name| !ANSWER_ONLY.contains(name)) else { return Ok(None) };
    if name == OBJECT_VERB {
        return Ok(Some(Key::Verb));
    }
    let key = Key::named(name).filter(|&key| !NEVER_VARIABLES.has(key));
    key.map(Some).ok_or(WireError::new(ErrorReason::UnknownKey))
}

/// What can be read of a block that is no question.
pub(super) fn readable(request: &[u8]) -> ReadableRequest {
    let mut readable = ReadableRequest::default();
    let mut value_bytes = vec![];
    let (mut login, mut dialed) = (vec![], vec![]);
    for (name, value) in lines_of(request).filter_map(split) {
        value_bytes.clear();
        if decode(value, &mut value_bytes).is_none() {
            continue;
        }
        match name {
            b"Channel-Name" => readable.set_channel(&value_bytes),
            b"Caller-Destination-Number" => dialed.clone_from(&value_bytes),
            b"variable_user_name" => readable.add(Key::Actor, &value_bytes),
            b"variable_sip_auth_username" => login.clone_from(&value_bytes),
            b"variable_qw_verb" => {}
            b"variable_qw_domain" => {
                readable.is_by_domain = true;
                readable.add(Key::Organization, &value_bytes);
            }
            name if key_name(name) == Some(WITHIN) => {}
            name => match key_of_variable(name) {
                Ok(Some(key)) => readable.add(key, &value_bytes),
                Ok(None) => {}
                Err(_) => readable.note_unknown(key_name(name).unwrap_or_default()),
            },
        }
    }
    readable.add(Key::Actor, &login);
    if readable.value(Key::Action).is_none() {
        readable.add(Key::Digits, &dialed);
    }
    readable
}

/// Sets the times of a question: when FreeSWITCH asked (`sent_at`), and until when it waits, if the block says that as
/// milliseconds from there (`within`).
///
/// # Errors
///
/// When `within` is no such number, there is no time to count from, or `until` is given as well.
pub(super) fn set_times(event: &mut Event<'_>, sent_at: Option<&[u8]>, within: Option<&[u8]>) -> Result<(), WireError> {
    event.asked_at = sent_at.and_then(unix_ms_of_microseconds);
    let Some(within) = within else { return Ok(()) };
    if event.until.is_some() {
        return Err(WireError::of(ErrorReason::DuplicateKey, Key::Until));
    }
    let until = event.asked_at.zip(milliseconds(within)).map(|(at, within)| at.0.saturating_add(within));
    event.until = Some(until.map(UnixMillis).ok_or(WireError::of(ErrorReason::Malformed, Key::Until))?);
    Ok(())
}

/// The time of an `Event-Date-Timestamp`, which has 16 digits. `None`: it is no time of this century.
fn unix_ms_of_microseconds(microseconds: &[u8]) -> Option<UnixMillis> {
    let (ms, rest) = microseconds.split_at_checked(microseconds.len().checked_sub(3)?)?;
    let is_plain = rest.iter().all(u8::is_ascii_digit);
    unix_ms(std::str::from_utf8(ms).ok()?).filter(|_| is_plain)
}

/// The value of `qw_within`: a number from 1 to [`UNTIL_AHEAD_MAX`] in milliseconds, without a sign or a leading zero.
fn milliseconds(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let is_plain = crate::telephony::is_number(text) && !text.starts_with('0');
    let ms: u64 = text.parse().ok().filter(|_| is_plain)?;
    (u128::from(ms) <= UNTIL_AHEAD_MAX.as_millis()).then_some(ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Intent, Request};
    use crate::telephony::Token;

    /// TRUTH 1: `qw_within` counts from the block's own time.
    #[test]
    fn until_is_counted_from_the_time_of_the_block() {
        let token = |text| Token::parse(text).unwrap();
        let question = || Event::new(Intent::Do, token("acme"), token("1001"), Request::Action(token("queue.login")));
        let until = |sent_at: &str, within: &str| {
            let mut event = question();
            set_times(&mut event, Some(sent_at.as_bytes()), Some(within.as_bytes())).map(|()| event.until.unwrap().0)
        };
        let malformed = Err(WireError::of(ErrorReason::Malformed, Key::Until));
        assert_eq!(until("1764288000123456", "900"), Ok(1_764_288_001_023));
        assert_eq!(until("1764288000123456", "60000"), Ok(1_764_288_060_123));
        for within in ["", "0", "0900", "60001", "-1", "+1", "1.5", "99999999999999999999"] {
            assert_eq!(until("1764288000123456", within), malformed, "{within}");
        }
        for sent_at in ["", "1764288000", "never", "1764288000123x56", "17642880001234567"] {
            assert_eq!(until(sent_at, "900"), malformed, "{sent_at}");
        }
        let mut event = question();
        assert_eq!(set_times(&mut event, Some(b"never"), None), Ok(()));
        assert_eq!((event.asked_at, event.until), (None, None));
        assert_eq!(set_times(&mut event, None, Some(b"900")), malformed.map(|_: u64| ()));
        event.until = Some(UnixMillis(1_764_288_000_999));
        let both = set_times(&mut event, Some(b"1764288000123456"), Some(b"900"));
        assert_eq!(both, Err(WireError::of(ErrorReason::DuplicateKey, Key::Until)));
    }
}
