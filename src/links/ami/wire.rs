//! AMI's bytes, without a socket: a banner, then messages of `Key: value` lines that end in CR LF; an empty line ends a
//! message.
//!
//! Reading has three outcomes, never two: not whole yet, whole, or wrong. Wrong is final: whoever sends a byte outside
//! the grammar cannot be trusted to mean what the next one says. Writing refuses a value that could begin a line of its
//! own, whatever it was meant to be.

use memchr::memchr;
use thiserror::Error;

use crate::limits::{AMI_BANNER_BYTES_MAX, AMI_LINE_BYTES_MAX, AMI_MESSAGE_BYTES_MAX, AMI_VALUE_BYTES_MAX};

/// How every version of Asterisk greets; its own version follows.
const GREETING: &[u8] = b"Asterisk Call Manager/";

/// What was heard is not AMI.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum WireError {
    /// An answer that answers nothing, or lacks what an answer of its kind has.
    #[error("it answered what was not asked")]
    Astray,
    /// A byte, a line or a message outside the grammar.
    #[error("it said something that is not AMI")]
    Malformed,
    /// The first line is not Asterisk's.
    #[error("it did not greet as Asterisk does")]
    Stranger,
    /// A line or a message beyond its bound.
    #[error("it said more at once than AMI ever does")]
    TooLong,
}

/// A value that cannot be written: empty, too long, or not of printable ASCII.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("`{key}` cannot be sent to Asterisk")]
pub struct Unwritable {
    /// The key of the line.
    pub key: &'static str,
}

/// Reads the banner: how many bytes it takes, or `None` while it is not whole.
///
/// # Errors
///
/// [`WireError::Stranger`] as soon as it cannot become one.
pub fn banner(input: &[u8]) -> Result<Option<usize>, WireError> {
    let known = input.len().min(GREETING.len());
    if input.get(..known) != GREETING.get(..known) {
        return Err(WireError::Stranger);
    }
    match memchr(b'\n', input) {
        None if input.len() >= AMI_BANNER_BYTES_MAX => Err(WireError::Stranger),
        None => Ok(None),
        Some(end) => {
            let line = input.get(..end).and_then(|line| line.strip_suffix(b"\r")).unwrap_or_default();
            let version = line.get(GREETING.len()..).unwrap_or_default();
            let is_version = !version.is_empty() && version.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
            if is_version && end < AMI_BANNER_BYTES_MAX {
                Ok(Some(end.saturating_add(1)))
            } else {
                Err(WireError::Stranger)
            }
        }
    }
}

/// A response or an event, borrowed from the read buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'buf> {
    /// Its lines, each with its CR LF; every one of them is within the grammar.
    lines: &'buf [u8],
}

/// Reads the message that begins here: it and how many bytes it takes, or `None` while it is not whole.
///
/// # Errors
///
/// As soon as what is there cannot become a message.
pub fn message(input: &[u8]) -> Result<Option<(Message<'_>, usize)>, WireError> {
    let mut rest = input;
    while let Some(end) = memchr(b'\n', rest) {
        let line = rest.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(WireError::Malformed)?;
        if line.len() > AMI_LINE_BYTES_MAX {
            return Err(WireError::TooLong);
        }
        let before = input.len().saturating_sub(rest.len());
        rest = rest.get(end.saturating_add(1)..).unwrap_or_default();
        let taken = input.len().saturating_sub(rest.len());
        if taken > AMI_MESSAGE_BYTES_MAX {
            return Err(WireError::TooLong);
        }
        if line.is_empty() {
            let lines = input.get(..before).filter(|lines| !lines.is_empty()).ok_or(WireError::Malformed)?;
            return Ok(Some((Message { lines }, taken)));
        }
        split(line).ok_or(WireError::Malformed)?;
    }
    if rest.len() > AMI_LINE_BYTES_MAX || input.len() > AMI_MESSAGE_BYTES_MAX {
        return Err(WireError::TooLong);
    }
    Ok(None)
}

/// A line as key and value. A value may be anything, in any encoding: names of people stand in events. It is compared,
/// never interpreted.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr(b':', line)?;
    let (key, value) = (line.get(..colon)?, line.get(colon.saturating_add(1)..)?);
    let is_key = !key.is_empty() && key.iter().all(u8::is_ascii_graphic);
    let is_value = !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    (is_key && is_value).then(|| (key, value.strip_prefix(b" ").unwrap_or(value)))
}

impl<'buf> Message<'buf> {
    /// The value of a key.
    ///
    /// # Errors
    ///
    /// [`WireError::Malformed`] when the key stands there twice: two readers would believe two different things.
    pub fn value(self, key: &str) -> Result<Option<&'buf [u8]>, WireError> {
        let mut values = self.pairs().filter(|(of, _)| *of == key.as_bytes()).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(WireError::Malformed),
        }
    }

    fn pairs(self) -> impl Iterator<Item = (&'buf [u8], &'buf [u8])> {
        let lines = self.lines.split(|&byte| byte == b'\n').filter_map(|line| line.strip_suffix(b"\r"));
        lines.filter_map(split)
    }
}

/// Writes an action, whole or not at all.
///
/// # Errors
///
/// When a value is none that could be sent.
pub fn write_action(
    output: &mut Vec<u8>,
    name: &'static str,
    id: u64,
    headers: &[(&'static str, &str)],
) -> Result<(), Unwritable> {
    for &(key, value) in headers {
        let printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        if value.is_empty() || value.len() > AMI_VALUE_BYTES_MAX || !value.bytes().all(printable) {
            return Err(Unwritable { key });
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
        for stranger in [
            "HTTP/1.1 400\r\n",
            "Asterisk Call Manager/\r\n",
            "Asterisk Call Manager/1\n",
            "asterisk",
            "\r\n",
            &endless,
        ] {
            assert_eq!(banner(stranger.as_bytes()), Err(WireError::Stranger), "{stranger:?}");
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
            b"no colon\r\n",
            b": no key\r\n",
            b"Key with spaces: x\r\n",
        ] {
            assert_eq!(message(wrong), Err(WireError::Malformed), "{wrong:?}");
        }
        let (twice, _) = message(b"ActionID: 1\r\nActionID: 2\r\n\r\n").unwrap().unwrap();
        assert_eq!(twice.value("ActionID"), Err(WireError::Malformed));
    }

    #[test]
    fn a_line_and_a_message_have_their_bounds() {
        let line = |bytes: usize| format!("K: {}", "x".repeat(bytes - 3));
        let longest = format!("{}\r\n\r\n", line(AMI_LINE_BYTES_MAX));
        assert!(message(longest.as_bytes()).unwrap().is_some());
        for too_long in [line(AMI_LINE_BYTES_MAX + 1), format!("{}\r\n\r\n", line(AMI_LINE_BYTES_MAX + 1))] {
            assert_eq!(message(too_long.as_bytes()), Err(WireError::TooLong));
        }
        let many = "K: x\r\n".repeat(AMI_MESSAGE_BYTES_MAX / 6 + 1);
        assert_eq!(message(many.as_bytes()), Err(WireError::TooLong));
        assert_eq!(message(format!("{many}\r\n").as_bytes()), Err(WireError::TooLong));
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
            assert_eq!(refused, Err(Unwritable { key: "Queue" }), "{value:?}");
        }
        assert_eq!(output, expected.as_bytes());
    }
}
