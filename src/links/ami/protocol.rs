//! The bytes of AMI, without a socket: a banner, then messages of `Key: value` lines that end in CR LF; an empty line
//! ends a message.
//!
//! Reading has three outcomes: incomplete, complete, or an [`AmiProtocolError`], after which the connection must end.
//! Writing refuses a value that holds a line end or any other byte outside printable ASCII, so that no name can inject
//! an action.

use memchr::memchr;
use thiserror::Error;

use crate::limits::{AMI_BANNER_BYTES_MAX, AMI_LINE_BYTES_MAX, AMI_MESSAGE_BYTES_MAX, AMI_VALUE_BYTES_MAX};

/// The banner of every Asterisk begins with this; the version of AMI follows.
const GREETING: &[u8] = b"Asterisk Call Manager/";

/// The peer does not speak AMI; the connection must end.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AmiProtocolError {
    /// A response to no action of ours, or one that lacks a key that its kind always has.
    #[error("the PBX sent a response to an action that was not sent")]
    UnexpectedResponse,
    /// A byte, a line or a message outside the grammar.
    #[error("the PBX sent a message that is not AMI")]
    Malformed,
    /// A list ended before as many elements had come as its end says.
    #[error("the PBX sent a list that lacks elements")]
    Incomplete,
    /// The first line is not the banner of Asterisk.
    #[error("the first line that the PBX sent is not the banner of Asterisk")]
    UnknownBanner,
    /// A line or a message is longer than its limit.
    #[error("the PBX sent a line or a message that is longer than AMI allows")]
    TooLong,
}

/// A value that cannot be sent: it is empty, longer than [`AMI_VALUE_BYTES_MAX`], or not printable ASCII.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("`{key}` cannot be sent to Asterisk")]
pub struct UnwritableValue {
    /// The key of the refused value.
    pub key: &'static str,
}

/// Returns the length of the banner in bytes. `None`: it is incomplete.
///
/// # Errors
///
/// [`AmiProtocolError::UnknownBanner`] as soon as the bytes cannot become a banner.
pub fn banner(input: &[u8]) -> Result<Option<usize>, AmiProtocolError> {
    let known = input.len().min(GREETING.len());
    if input.get(..known) != GREETING.get(..known) {
        return Err(AmiProtocolError::UnknownBanner);
    }
    match memchr(b'\n', input) {
        None if input.len() >= AMI_BANNER_BYTES_MAX => Err(AmiProtocolError::UnknownBanner),
        None => Ok(None),
        Some(end) => {
            let line = input.get(..end).and_then(|line| line.strip_suffix(b"\r")).unwrap_or_default();
            let version = line.get(GREETING.len()..).unwrap_or_default();
            let is_version = !version.is_empty() && version.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
            if is_version && end < AMI_BANNER_BYTES_MAX {
                Ok(Some(end + 1))
            } else {
                Err(AmiProtocolError::UnknownBanner)
            }
        }
    }
}

/// One response or event, borrowed from the read buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmiMessage<'buf> {
    /// The lines with their CR LF. INVARIANT: the first line is `Key: value`.
    lines: &'buf [u8],
}

/// Reads the message at the start of `input`; returns it and its length in bytes. `None`: it is incomplete. Only the
/// first line has to be `Key: value`: a dialplan can put a line of any text into an event of its own.
///
/// # Errors
///
/// As soon as the bytes cannot become a message.
pub fn message(input: &[u8]) -> Result<Option<(AmiMessage<'_>, usize)>, AmiProtocolError> {
    let mut rest = input;
    while let Some(end) = memchr(b'\n', rest) {
        let line = rest.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(AmiProtocolError::Malformed)?;
        if line.len() > AMI_LINE_BYTES_MAX {
            return Err(AmiProtocolError::TooLong);
        }
        let before = input.len() - rest.len();
        rest = rest.get(end + 1..).unwrap_or_default();
        let taken = input.len() - rest.len();
        if taken > AMI_MESSAGE_BYTES_MAX {
            return Err(AmiProtocolError::TooLong);
        }
        if line.is_empty() {
            let lines = input.get(..before).filter(|lines| !lines.is_empty()).ok_or(AmiProtocolError::Malformed)?;
            return Ok(Some((AmiMessage { lines }, taken)));
        }
        if line.iter().any(|byte| matches!(byte, b'\r' | 0)) || (before == 0 && split(line).is_none()) {
            return Err(AmiProtocolError::Malformed);
        }
    }
    if rest.len() > AMI_LINE_BYTES_MAX || input.len() > AMI_MESSAGE_BYTES_MAX {
        return Err(AmiProtocolError::TooLong);
    }
    Ok(None)
}

/// Splits a line into key and value. A value may hold any byte but CR, LF and NUL, because events carry names of people
/// in any encoding; values are only compared. `None`: the line has no key.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr(b':', line)?;
    let (key, value) = (line.get(..colon)?, line.get(colon + 1..)?);
    let is_key = !key.is_empty() && key.iter().all(u8::is_ascii_graphic);
    is_key.then(|| (key, value.strip_prefix(b" ").unwrap_or(value)))
}

impl<'buf> AmiMessage<'buf> {
    /// The key of the first line.
    #[must_use]
    pub fn first_key(self) -> &'buf [u8] {
        self.pairs().next().map_or(&[], |(key, _)| key)
    }

    /// The value of the first line. Of an event it is the name of the event, whatever the lines behind it say.
    #[must_use]
    pub fn first_value(self) -> &'buf [u8] {
        self.pairs().next().map_or(&[], |(_, value)| value)
    }

    /// The value of `key`. `None`: the message has no such key.
    ///
    /// # Errors
    ///
    /// [`AmiProtocolError::Malformed`] when the message has the key twice, because it is then unclear which value
    /// counts.
    pub fn value(self, key: &str) -> Result<Option<&'buf [u8]>, AmiProtocolError> {
        let mut values = self.pairs().filter(|(name, _)| *name == key.as_bytes()).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(AmiProtocolError::Malformed),
        }
    }

    fn pairs(self) -> impl Iterator<Item = (&'buf [u8], &'buf [u8])> {
        let lines = self.lines.split(|&byte| byte == b'\n').filter_map(|line| line.strip_suffix(b"\r"));
        lines.filter_map(split)
    }
}

/// Appends an action to `output`. On an error nothing is appended.
///
/// # Errors
///
/// When a value cannot be sent; see [`UnwritableValue`].
pub fn write_action(
    output: &mut Vec<u8>,
    name: &'static str,
    id: u64,
    headers: &[(&'static str, &str)],
) -> Result<(), UnwritableValue> {
    for &(key, value) in headers {
        let printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        if value.is_empty() || value.len() > AMI_VALUE_BYTES_MAX || !value.bytes().all(printable) {
            return Err(UnwritableValue { key });
        }
    }
    let id = id.to_string();
    for (key, value) in [("Action", name), ("ActionID", &id)].iter().chain(headers) {
        for part in [key.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            output.extend_from_slice(part);
        }
    }
    output.extend_from_slice(b"\r\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"Response: Error\r\nActionID: 7\r\nMessage: Unable to remove interface: Not there\r\n\r\n";

    #[test]
    fn a_banner_is_whole_or_not_yet_at_every_split() {
        for greeting in ["Asterisk Call Manager/11.0.0\r\n", "Asterisk Call Manager/5.0.4\r\n"] {
            for split in 0..greeting.len() {
                assert_eq!(banner(&greeting.as_bytes()[..split]), Ok(None), "{split}");
            }
            assert_eq!(banner(format!("{greeting}Response: ").as_bytes()), Ok(Some(greeting.len())));
        }
        let endless = format!("Asterisk Call Manager/{}", "1".repeat(AMI_BANNER_BYTES_MAX));
        for line in [
            "HTTP/1.1 400\r\n",
            "Asterisk Call Manager/\r\n",
            "Asterisk Call Manager/1\n",
            "asterisk",
            "\r\n",
            &endless,
        ] {
            assert_eq!(banner(line.as_bytes()), Err(AmiProtocolError::UnknownBanner), "{line:?}");
        }
    }

    #[test]
    fn a_message_is_whole_or_not_yet_at_every_split() {
        for split in 0..ANSWER.len() {
            assert_eq!(message(&ANSWER[..split]), Ok(None), "{split}");
        }
        let with_more = [ANSWER, b"Event: X\r\n"].concat();
        let (read, taken) = message(&with_more).unwrap().unwrap();
        assert_eq!(taken, ANSWER.len());
        assert_eq!(read.value("ActionID"), Ok(Some(&b"7"[..])));
        assert_eq!(read.value("Message"), Ok(Some(&b"Unable to remove interface: Not there"[..])));
        assert_eq!(read.value("Messag"), Ok(None));
    }

    #[test]
    fn an_empty_value_a_colon_in_a_value_and_any_encoding_are_read() {
        let text = b"Event: X\r\nPausedReason: \r\nTime:12:30\r\nCallerIDName: J\xf6rg \"\x1b\"\r\n\r\n";
        let (read, _) = message(text).unwrap().unwrap();
        assert_eq!(read.value("PausedReason"), Ok(Some(&b""[..])));
        assert_eq!(read.value("Time"), Ok(Some(&b"12:30"[..])));
        assert_eq!(read.value("CallerIDName"), Ok(Some(&b"J\xf6rg \"\x1b\""[..])));
    }

    #[test]
    fn what_is_outside_the_grammar_is_refused_as_soon_as_it_is_seen() {
        for wrong in [
            &b"\r\n"[..],
            b"Response: Success\n",
            b"Response: Suc\rcess\r\n",
            b"Response: Suc\0cess\r\n",
            b"Event: X\r\nA: b\0\r\n",
            b"Event: X\r\nA: b\rc\r\n",
            b"no colon\r\n",
            b": no key\r\n",
            b"Key with spaces: x\r\n",
        ] {
            assert_eq!(message(wrong), Err(AmiProtocolError::Malformed), "{wrong:?}");
        }
        let (twice, _) = message(b"ActionID: 1\r\nActionID: 2\r\n\r\n").unwrap().unwrap();
        assert_eq!(twice.value("ActionID"), Err(AmiProtocolError::Malformed));
    }

    /// `UserEvent(Lunch,any text)` of a dialplan sends such lines, and may repeat the key `Event`.
    #[test]
    fn lines_of_any_text_behind_the_first_are_no_keys() {
        let text = b"Event: UserEvent\r\nany text\r\nKey with spaces: x\r\n: y\r\nEvent: QueueMemberAdded\r\n\r\n";
        let (read, taken) = message(text).unwrap().unwrap();
        assert_eq!((taken, read.first_key(), read.first_value()), (text.len(), &b"Event"[..], &b"UserEvent"[..]));
        assert_eq!(read.value("any text"), Ok(None));
        assert_eq!(read.value("Event"), Err(AmiProtocolError::Malformed));
    }

    #[test]
    fn a_line_and_a_message_have_their_bounds() {
        let line = |bytes: usize| format!("K: {}", "x".repeat(bytes - 3));
        let longest = format!("{}\r\n\r\n", line(AMI_LINE_BYTES_MAX));
        assert!(message(longest.as_bytes()).unwrap().is_some());
        for too_long in [line(AMI_LINE_BYTES_MAX + 1), format!("{}\r\n\r\n", line(AMI_LINE_BYTES_MAX + 1))] {
            assert_eq!(message(too_long.as_bytes()), Err(AmiProtocolError::TooLong));
        }
        let many = "K: x\r\n".repeat(AMI_MESSAGE_BYTES_MAX / 6 + 1);
        assert_eq!(message(many.as_bytes()), Err(AmiProtocolError::TooLong));
        assert_eq!(message(format!("{many}\r\n").as_bytes()), Err(AmiProtocolError::TooLong));
    }

    #[test]
    fn an_action_is_written_whole_or_not_at_all() {
        let mut output = vec![];
        write_action(&mut output, "QueueRemove", 3, &[("Queue", "600"), ("Interface", "Local/1001@agents/n")]).unwrap();
        let expected = "Action: QueueRemove\r\nActionID: 3\r\nQueue: 600\r\nInterface: Local/1001@agents/n\r\n\r\n";
        assert_eq!(output, expected.as_bytes());
        let too_long = "x".repeat(AMI_VALUE_BYTES_MAX + 1);
        for value in ["", "600\r\nAction: Command", "600\n", "600\r", "6\x000", "6\u{7f}", "6\t0", "sálés", &too_long]
        {
            let refused = write_action(&mut output, "QueueRemove", 4, &[("Interface", "PJSIP/1"), ("Queue", value)]);
            assert_eq!(refused, Err(UnwritableValue { key: "Queue" }), "{value:?}");
        }
        assert_eq!(output, expected.as_bytes());
    }
}
