//! The bytes of the event socket: messages of `Name: value` lines that end in LF; an empty line ends them, and a body
//! of `Content-Length` bytes may follow.
//!
//! Reading has three outcomes: incomplete, complete, or an [`EslProtocolError`], after which the connection must end.

use std::borrow::Cow;

use memchr::memchr;
use percent_encoding::percent_decode;
use thiserror::Error;

use crate::limits::{ESL_BODY_BYTES_MAX, ESL_COMMAND_BYTES_MAX, ESL_HEAD_BYTES_MAX};

/// The peer does not speak the protocol of the event socket; the connection must end.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum EslProtocolError {
    /// A line without a name, a length that is no number, or a byte that no line may hold.
    #[error("the PBX sent a message that is not of FreeSWITCH's event socket")]
    Malformed,
    /// An answer to no command of ours.
    #[error("the PBX sent an answer to a command that was not sent")]
    UnexpectedAnswer,
    /// The lines or the body of a message are longer than their limit.
    #[error("the PBX sent a message that is longer than its limit")]
    TooLong,
}

/// A command that cannot be sent: it is empty, longer than [`ESL_COMMAND_BYTES_MAX`], or has a control character.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the command cannot be sent to FreeSWITCH")]
pub struct UnwritableCommand;

/// A list of `Name: value` lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EslHeaders<'buf> {
    /// The lines with their LF. INVARIANT: every line is `Name: value`.
    lines: &'buf [u8],
}

/// One message, borrowed from the read buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EslMessage<'buf> {
    /// The lines before the body.
    pub headers: EslHeaders<'buf>,
    /// The body; empty if there is none.
    pub body: &'buf [u8],
}

/// Reads the message at the start of `input`; returns it and its length in bytes. `None`: it is incomplete.
///
/// # Errors
///
/// As soon as the bytes cannot become a message.
pub fn message(input: &[u8]) -> Result<Option<(EslMessage<'_>, usize)>, EslProtocolError> {
    // FreeSWITCH sends one more line end after some bodies.
    let blank = input.iter().take_while(|&&byte| byte == b'\n').count().min(BLANK_LINES_MAX);
    let rest = input.get(blank..).unwrap_or_default();
    let Some((headers, head_bytes)) = headers(rest)? else { return Ok(None) };
    let length = match headers.value("Content-Length")? {
        None => 0,
        Some(text) => number(text).ok_or(EslProtocolError::Malformed)?,
    };
    if length > ESL_BODY_BYTES_MAX {
        return Err(EslProtocolError::TooLong);
    }
    let body = rest.get(head_bytes..).and_then(|rest| rest.get(..length));
    Ok(body.map(|body| (EslMessage { headers, body }, blank + head_bytes + length)))
}

/// Line ends before a message that are skipped.
const BLANK_LINES_MAX: usize = 2;

/// Reads lines up to an empty line; returns them and their length in bytes, with the empty line.
///
/// # Errors
///
/// As soon as the bytes cannot become such lines.
pub fn headers(input: &[u8]) -> Result<Option<(EslHeaders<'_>, usize)>, EslProtocolError> {
    let mut rest = input;
    while let Some(end) = memchr(b'\n', rest) {
        let line = rest.get(..end).unwrap_or_default();
        let before = input.len() - rest.len();
        rest = rest.get(end + 1..).unwrap_or_default();
        let taken = input.len() - rest.len();
        if taken > ESL_HEAD_BYTES_MAX {
            return Err(EslProtocolError::TooLong);
        }
        if line.is_empty() {
            let lines = input.get(..before).filter(|lines| !lines.is_empty()).ok_or(EslProtocolError::Malformed)?;
            return Ok(Some((EslHeaders { lines }, taken)));
        }
        split(line).ok_or(EslProtocolError::Malformed)?;
    }
    if input.len() > ESL_HEAD_BYTES_MAX { Err(EslProtocolError::TooLong) } else { Ok(None) }
}

fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr(b':', line)?;
    let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    let is_value = !value.iter().any(|byte| matches!(byte, b'\r' | 0));
    (is_name && is_value).then(|| (name, value.strip_prefix(b" ").unwrap_or(value)))
}

/// A decimal number of at most nine digits.
fn number(text: &[u8]) -> Option<usize> {
    let is_number = (1..=9).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_number)?.parse().ok()
}

impl<'buf> EslHeaders<'buf> {
    /// The value of `name` as it was sent. `None`: there is no such line.
    ///
    /// # Errors
    ///
    /// [`EslProtocolError::Malformed`] when there are two such lines, because it is then unclear which counts.
    pub fn value(self, name: &str) -> Result<Option<&'buf [u8]>, EslProtocolError> {
        let lines = self.lines.split(|&byte| byte == b'\n').filter_map(split);
        let mut values = lines.filter(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(EslProtocolError::Malformed),
        }
    }

    /// The value of `name` in an event of the format `plain`, whose values are percent-encoded. `None`: there is no
    /// such line, or its value is not UTF-8.
    ///
    /// # Errors
    ///
    /// As [`EslHeaders::value`].
    pub fn decoded(self, name: &str) -> Result<Option<Cow<'buf, str>>, EslProtocolError> {
        Ok(self.value(name)?.and_then(|value| percent_decode(value).decode_utf8().ok()))
    }
}

/// Appends a command of one line to `output`. On an error nothing is appended.
///
/// # Errors
///
/// When the command cannot be sent; see [`UnwritableCommand`].
pub fn write_command(output: &mut Vec<u8>, parts: &[&str]) -> Result<(), UnwritableCommand> {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    let is_printable = |part: &&str| !part.chars().any(char::is_control);
    if bytes == 0 || bytes > ESL_COMMAND_BYTES_MAX || !parts.iter().all(is_printable) {
        return Err(UnwritableCommand);
    }
    for part in parts {
        output.extend_from_slice(part.as_bytes());
    }
    output.extend_from_slice(b"\n\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"Content-Type: api/response\nContent-Length: 4\n\n+OK\n";

    #[test]
    fn a_message_is_whole_or_not_yet_at_every_split() {
        for split in 0..ANSWER.len() {
            assert_eq!(message(&ANSWER[..split]), Ok(None), "{split}");
        }
        let with_more = [ANSWER, b"Content-Type: x\n"].concat();
        let (read, taken) = message(&with_more).unwrap().unwrap();
        assert_eq!((read.body, taken), (&b"+OK\n"[..], ANSWER.len()));
        assert_eq!(read.headers.value("Content-Type"), Ok(Some(&b"api/response"[..])));
        assert_eq!(read.headers.value("content-type"), Ok(None));
    }

    #[test]
    fn a_value_may_be_empty_hold_colons_or_be_encoded() {
        let text = b"A: \nB: 1: 2\nCC-Queue: 600%40pbx.test\nX: %ff\n\n";
        let (read, _) = headers(text).unwrap().unwrap();
        assert_eq!(read.value("A"), Ok(Some(&b""[..])));
        assert_eq!(read.value("B"), Ok(Some(&b"1: 2"[..])));
        assert_eq!(read.decoded("CC-Queue").unwrap().as_deref(), Some("600@pbx.test"));
        assert_eq!(read.decoded("X"), Ok(None), "not UTF-8");
    }

    #[test]
    fn what_is_outside_the_grammar_is_refused_as_soon_as_it_is_seen() {
        for wrong in [
            &b"no colon\n"[..],
            b": no name\n",
            b"Name with spaces: x\n",
            b"A: x\r\n",
            b"A: \0\n",
            b"\n\n\n",
            b"Content-Length: -1\n\n",
            b"Content-Length: \n\n",
            b"Content-Length: 1\nContent-Length: 2\n\n",
            b"Content-Length: 99999999999999999999\n\n",
        ] {
            assert_eq!(message(wrong), Err(EslProtocolError::Malformed), "{:?}", String::from_utf8_lossy(wrong));
        }
        assert_eq!(message(b"Content-Length: 999999999\n\n"), Err(EslProtocolError::TooLong));
        let endless = vec![b'x'; ESL_HEAD_BYTES_MAX + 1];
        assert_eq!(message(&endless), Err(EslProtocolError::TooLong));
        let many = "A: x\n".repeat(ESL_HEAD_BYTES_MAX / 5 + 1);
        assert_eq!(message(many.as_bytes()), Err(EslProtocolError::TooLong));
    }

    #[test]
    fn a_command_is_written_whole_or_not_at_all() {
        let mut output = vec![];
        write_command(&mut output, &["api callcenter_config tier del ", "600@pbx.test", " 1001"]).unwrap();
        assert_eq!(output, b"api callcenter_config tier del 600@pbx.test 1001\n\n");
        let long = "x".repeat(ESL_COMMAND_BYTES_MAX + 1);
        for wrong in ["", "api x\napi y", "api x\r", "api \0", "api \u{85}", &long] {
            assert_eq!(write_command(&mut output, &[wrong]), Err(UnwritableCommand), "{wrong:?}");
        }
        assert_eq!(output.len(), 50);
        write_command(&mut output, &["api callcenter_config agent get status müller"]).unwrap();
    }
}
