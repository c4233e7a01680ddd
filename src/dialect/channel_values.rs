//! The values of a FreeSWITCH block: how they are decoded, and the times among them.

use percent_encoding::percent_decode;

use crate::decision::{ErrorReason, WireError};
use crate::dialect::fields::unix_ms;
use crate::event::{Event, Key};
use crate::limits::UNTIL_AHEAD_MAX;
use crate::telephony::UnixMillis;

/// How FreeSWITCH writes an empty value.
const UNDEFINED: &[u8] = b"_undef_";

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
