//! The line dialect: one request a line, one reply a request, in order.
//!
//! ```text
//! request  = id SP verb *( SP key "=" value ) LF        id: 1 to 16 of A-Z a-z 0-9
//! verb     = "dial" / "do" / "may" / "auth" / "ping" / "watch"
//! reply    = id SP ("allow" / "deny" / "error" / "pong" / "event") *( SP key "=" value ) LF
//! ```
//!
//! A CR before the LF is accepted. Whatever else is not in the grammar is refused and the connection lives on; a line
//! over [`LINE_BYTES_MAX`] ends it, because where the next line begins can no longer be known.

use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::decision::{AnswerQueues, ErrorReason, Outcome, WireError};
use crate::dialect::fields::{Fields, Verb};
use crate::dialect::{After, ChangeWords, Dialect, DialectLabel, Patience, Step, supervision_options};
use crate::event::{Event, Key, KeySet};
use crate::limits::{LINE_BYTES_MAX, REQUEST_ID_BYTES_MAX};
use crate::telephony::Token;

/// The id of a reply to a line whose own id cannot be read.
const NO_ID: &[u8] = b"-";

/// One connection of the line dialect.
#[derive(Clone)]
pub struct Line {
    token: Option<Arc<[u8]>>,
    authenticated: bool,
    finished: bool,
}

/// What one line asks for.
enum Asked<'buf> {
    /// A decision; these are the words with its keys, each behind a space.
    Decision(Verb, &'buf [u8]),
    Watch {
        organization: Token<'buf>,
        from: Option<u64>,
    },
    Pong,
    Authenticated,
}

impl Line {
    /// A new connection; with a `token`, it has to be presented before anything is decided.
    #[must_use]
    pub const fn new(token: Option<Arc<[u8]>>) -> Self {
        Self { authenticated: token.is_none(), token, finished: false }
    }

    /// What the line asks for with what stands behind its id: nothing, or a space and more.
    fn read<'buf>(&mut self, behind_id: &'buf [u8]) -> Result<Asked<'buf>, WireError> {
        let malformed = WireError::new(ErrorReason::Malformed);
        let (_, behind_id) = behind_id.split_first().ok_or(malformed)?;
        let verb_bytes = behind_id.iter().position(|&byte| byte == b' ').unwrap_or(behind_id.len());
        let (word, words) = behind_id.split_at_checked(verb_bytes).ok_or(malformed)?;
        let mut tokens = words.split(|&byte| byte == b' ').skip(1);
        let verb = match word {
            b"dial" => Verb::Dial,
            b"do" => Verb::Do,
            b"may" => Verb::May,
            b"auth" => return self.authenticate(&mut tokens),
            b"ping" => return nothing_more(&mut tokens).map(|()| Asked::Pong),
            b"watch" => return self.watch(&mut tokens),
            word if !word.is_empty() && word.iter().all(u8::is_ascii_alphanumeric) => {
                return Err(WireError::new(ErrorReason::UnknownVerb));
            }
            _ => return Err(malformed),
        };
        if self.authenticated {
            Ok(Asked::Decision(verb, words))
        } else {
            Err(WireError::new(ErrorReason::Unauthenticated))
        }
    }

    fn watch<'buf>(&self, tokens: &mut impl Iterator<Item = &'buf [u8]>) -> Result<Asked<'buf>, WireError> {
        if self.authenticated { watch(tokens) } else { Err(WireError::new(ErrorReason::Unauthenticated)) }
    }

    fn authenticate<'buf>(&mut self, tokens: &mut impl Iterator<Item = &'buf [u8]>) -> Result<Asked<'buf>, WireError> {
        let pair = tokens.next().ok_or(WireError::of(ErrorReason::MissingKey, Key::Token))?;
        let Some(presented) = pair.strip_prefix(b"token=") else { return Err(key_error(pair)) };
        if Token::parse(presented).is_none() {
            return Err(WireError::of(ErrorReason::Malformed, Key::Token));
        }
        match tokens.next() {
            None => {}
            Some(pair) if pair.starts_with(b"token=") => {
                return Err(WireError::of(ErrorReason::DuplicateKey, Key::Token));
            }
            Some(pair) => return Err(key_error(pair)),
        }
        let matches = self.token.as_deref().is_some_and(|token| bool::from(token.ct_eq(presented)));
        if !matches {
            return Err(WireError::new(ErrorReason::Unauthenticated));
        }
        self.authenticated = true;
        Ok(Asked::Authenticated)
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Line").field("authenticated", &self.authenticated).finish_non_exhaustive()
    }
}

impl Dialect for Line {
    fn label(&self) -> DialectLabel {
        DialectLabel::Line
    }

    fn next<'buf>(&mut self, input: &'buf [u8], _room: &'buf mut Vec<u8>, output: &mut Vec<u8>) -> Step<'buf> {
        if self.finished {
            return Step::Done { consumed: input.len(), fault: None, after: After::Finish };
        }
        let window = input.get(..LINE_BYTES_MAX).unwrap_or(input);
        let Some(end) = memchr::memchr(b'\n', window) else {
            if input.len() < LINE_BYTES_MAX {
                return Step::More;
            }
            let error = WireError::new(ErrorReason::TooLong);
            write_error(id_of(window).0, error, output);
            self.finished = true;
            return Step::Done { consumed: input.len(), fault: Some(error.reason), after: After::Finish };
        };
        let consumed = end.saturating_add(1);
        let line = window.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (id, behind_id) = id_of(line);
        let asked = match behind_id {
            Some(behind_id) => self.read(behind_id),
            None => Err(WireError::new(ErrorReason::Malformed)),
        };
        let error = match asked {
            Ok(Asked::Decision(verb, words)) => match question(verb, words) {
                Ok(event) => return Step::Ask { consumed, event, id },
                Err(error) => error,
            },
            Ok(Asked::Watch { organization, from }) => return Step::Watch { consumed, organization, from, id },
            Ok(Asked::Pong) => {
                write(output, &[id, b" pong\n"]);
                return Step::Done { consumed, fault: None, after: After::Continue };
            }
            Ok(Asked::Authenticated) => {
                write(output, &[id, b" allow reason=authenticated\n"]);
                return Step::Done { consumed, fault: None, after: After::Continue };
            }
            Err(error) => error,
        };
        write_error(id, error, output);
        Step::Done { consumed, fault: Some(error.reason), after: After::Continue }
    }

    fn reads_ahead(&self) -> bool {
        true
    }

    fn answer(&mut self, id: &[u8], outcome: &Outcome<'_>, output: &mut Vec<u8>) -> After {
        let answer = match outcome {
            Outcome::Decided(answer) => answer,
            Outcome::Faulty(error) => {
                write_error(id, *error, output);
                return After::Continue;
            }
        };
        write(output, &[id, b" ", answer.reason.verdict().as_bytes()]);
        if let Some(action) = answer.action {
            write(output, &[b" action=", action.as_bytes()]);
        }
        let key: &[u8] = if matches!(answer.queues, AnswerQueues::All(..)) { b" queues=" } else { b" queue=" };
        for (position, number) in answer.queues.numbers().enumerate() {
            write(output, &[if position == 0 { key } else { b"," }, number.as_bytes()]);
        }
        write(output, &[b" reason=", answer.reason.code().as_bytes(), b" policy="]);
        write_number(output, answer.revision);
        // Without a target there is nothing to pin.
        if let (Some(mode), Some(target)) = (answer.mode, answer.target) {
            write(output, &[b" mode=", mode.name().as_bytes(), b" target=", target.as_bytes()]);
            write(output, &[b" asterisk=", supervision_options::asterisk(mode).as_bytes()]);
            write(output, &[b" freeswitch=", supervision_options::freeswitch(mode).as_bytes()]);
        }
        write(output, &[b"\n"]);
        After::Continue
    }

    fn change(&mut self, id: &[u8], revision: u64, change: &ChangeWords<'_>, output: &mut Vec<u8>) {
        write(output, &[id, b" event revision="]);
        write_number(output, revision);
        write(output, &[b" change=", change.change.as_bytes(), b" user=", change.user.as_bytes()]);
        let optional = [("target", change.target), ("mode", change.mode), ("queue", change.queue)];
        for (key, value) in optional {
            if let Some(value) = value {
                write(output, &[b" ", key.as_bytes(), b"=", value.as_bytes()]);
            }
        }
        write(output, &[b" reason=", change.reason.as_bytes(), b"\n"]);
    }

    fn give_up(&mut self, reason: Option<ErrorReason>, unread: &[u8], output: &mut Vec<u8>) -> Option<ErrorReason> {
        if std::mem::replace(&mut self.finished, true) {
            return None;
        }
        match reason {
            Some(reason) => {
                write_error(id_of(unread).0, WireError::new(reason), output);
                Some(reason)
            }
            // A line without its end is no line: the peer left in the middle of it.
            None => (!unread.is_empty()).then_some(ErrorReason::Malformed),
        }
    }

    fn patience(&self, has_unread: bool) -> Patience {
        match (self.finished, has_unread) {
            (true, _) => Patience::Closing,
            (false, true) => Patience::Frame,
            (false, false) => Patience::Endless,
        }
    }
}

/// The id that a line begins with and what stands behind it, or [`NO_ID`] and nothing.
fn id_of(line: &[u8]) -> (&[u8], Option<&[u8]>) {
    let bytes = line.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(line.len());
    let (id, behind_id) = line.split_at_checked(bytes).unwrap_or_default();
    let is_id = (1..=REQUEST_ID_BYTES_MAX).contains(&bytes) && behind_id.first().is_none_or(|&byte| byte == b' ');
    if is_id { (id, Some(behind_id)) } else { (NO_ID, None) }
}

/// The question whose keys stand in these words, each behind a space.
fn question(verb: Verb, words: &[u8]) -> Result<Event<'_>, WireError> {
    let (mut fields, mut rest) = (Fields::new(verb), words);
    while let Some((_, words)) = rest.split_first() {
        rest = fields.set_word(words)?;
    }
    fields.into_event()
}

/// What `watch` has: an organization, and maybe the last revision that was seen.
fn watch<'buf>(tokens: &mut impl Iterator<Item = &'buf [u8]>) -> Result<Asked<'buf>, WireError> {
    let (mut organization, mut from) = (None, None);
    for pair in tokens {
        let of_key = |key: Key| pair.strip_prefix(key.name().as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
        let (key, value) = match (of_key(Key::Organization), of_key(Key::From)) {
            (Some(value), _) => (Key::Organization, value),
            (_, Some(value)) => (Key::From, value),
            _ => return Err(key_error(pair)),
        };
        let read = match key {
            Key::Organization if organization.is_some() => return Err(WireError::of(ErrorReason::DuplicateKey, key)),
            Key::From if from.is_some() => return Err(WireError::of(ErrorReason::DuplicateKey, key)),
            Key::Organization => Token::parse(value).map(|token| organization = Some(token)),
            _ => revision(value).map(|revision| from = Some(revision)),
        };
        read.ok_or(WireError::of(ErrorReason::Malformed, key))?;
    }
    let organization = organization.ok_or(WireError::of(ErrorReason::MissingKey, Key::Organization))?;
    Ok(Asked::Watch { organization, from })
}

/// A revision, in digits without a sign or a leading zero.
fn revision(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok().filter(|_| text == "0" || !text.starts_with('0'))
}

fn nothing_more<'buf>(tokens: &mut impl Iterator<Item = &'buf [u8]>) -> Result<(), WireError> {
    tokens.next().map_or(Ok(()), |pair| Err(key_error(pair)))
}

/// What is wrong with a pair that the verb does not have.
fn key_error(pair: &[u8]) -> WireError {
    let mut no_keys = Fields::new(Verb::Do);
    match no_keys.set_pair(pair, KeySet::EMPTY) {
        Err(error) if error.reason == ErrorReason::Malformed && error.key.is_none() => error,
        _ => WireError::new(ErrorReason::UnknownKey),
    }
}

fn write_error(id: &[u8], error: WireError, output: &mut Vec<u8>) {
    write(output, &[id, b" error reason=", error.reason.code().as_bytes()]);
    if let Some(key) = error.key {
        write(output, &[b" key=", key.name().as_bytes()]);
    }
    write(output, &[b"\n"]);
}

fn write(output: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        output.extend_from_slice(part);
    }
}

fn write_number(output: &mut Vec<u8>, number: u64) {
    output.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the dialect says to `input` by itself; questions are left unanswered and shown as `?`.
    fn talk(line: &mut Line, mut input: &[u8]) -> String {
        let mut output = vec![];
        loop {
            match line.next(input, &mut vec![], &mut output) {
                Step::More => return String::from_utf8(output).unwrap(),
                Step::Ask { consumed, id, .. } => {
                    write(&mut output, &[id, b" ?\n"]);
                    input = &input[consumed..];
                }
                Step::Watch { consumed, id, from, .. } => {
                    write(&mut output, &[id, format!(" watches {from:?}\n").as_bytes()]);
                    input = &input[consumed..];
                }
                Step::Done { consumed, after, .. } => {
                    input = &input[consumed..];
                    if after == After::Finish {
                        output.extend_from_slice(b"(finished)\n");
                        return String::from_utf8(output).unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn each_line_gets_one_reply_with_its_id() {
        let cases = [
            ("7 ping\n", "7 pong\n"),
            ("7 ping\r\n", "7 pong\n"),
            ("abcDEF0123456789 ping\n", "abcDEF0123456789 pong\n"),
            ("7 dial org=acme actor=1001 digits=*13600\n", "7 ?\n"),
            ("1 ping\n2 ping\n3 pi", "1 pong\n2 pong\n"),
            ("\n", "- error reason=malformed\n"),
            (" \n", "- error reason=malformed\n"),
            ("7\n", "7 error reason=malformed\n"),
            ("7 \n", "7 error reason=malformed\n"),
            ("abcDEF01234567890 ping\n", "- error reason=malformed\n"),
            ("a-b ping\n", "- error reason=malformed\n"),
            ("7  ping\n", "7 error reason=malformed\n"),
            ("7 ping \n", "7 error reason=malformed\n"),
            ("7 ping\r\r\n", "7 error reason=malformed\n"),
            ("7 pi\0ng\n", "7 error reason=malformed\n"),
            ("7 dail org=acme\n", "7 error reason=unknown_verb\n"),
            ("7 ping org=acme\n", "7 error reason=unknown_key\n"),
            ("9 dial org=acme\n", "9 error reason=missing_key key=actor\n"),
            ("9 dial org=acme colour=red\n", "9 error reason=unknown_key\n"),
            ("9 dial org=acme org=acme\n", "9 error reason=duplicate_key key=org\n"),
            ("9 dial org=ac\tme\n", "9 error reason=malformed key=org\n"),
            ("9 auth\n", "9 error reason=missing_key key=token\n"),
            ("9 auth token=x\n", "9 error reason=unauthenticated\n"),
            ("9 auth token=\n", "9 error reason=malformed key=token\n"),
            ("9 auth token=x token=x\n", "9 error reason=duplicate_key key=token\n"),
            ("9 auth org=x\n", "9 error reason=unknown_key\n"),
            ("9 watch org=x\n", "9 watches None\n"),
            ("9 watch org=x from=0\n", "9 watches Some(0)\n"),
            ("9 watch from=41 org=x\n", "9 watches Some(41)\n"),
            ("9 watch\n", "9 error reason=missing_key key=org\n"),
            ("9 watch org=\n", "9 error reason=malformed key=org\n"),
            ("9 watch org=x org=x\n", "9 error reason=duplicate_key key=org\n"),
            ("9 watch org=x from=1 from=1\n", "9 error reason=duplicate_key key=from\n"),
            ("9 watch org=x from=01\n", "9 error reason=malformed key=from\n"),
            ("9 watch org=x from=-1\n", "9 error reason=malformed key=from\n"),
            ("9 watch org=x from=99999999999999999999\n", "9 error reason=malformed key=from\n"),
            ("9 watch org=x actor=1\n", "9 error reason=unknown_key\n"),
        ];
        for (said, heard) in cases {
            assert_eq!(talk(&mut Line::new(None), said.as_bytes()), heard, "{said:?}");
        }
    }

    #[test]
    fn a_line_has_at_most_1024_bytes_with_its_end() {
        let longest = format!("7 dial org={}", "a".repeat(LINE_BYTES_MAX - 12));
        assert_eq!(longest.len(), LINE_BYTES_MAX - 1);
        let heard = talk(&mut Line::new(None), format!("{longest}\n").as_bytes());
        assert_eq!(heard, "7 error reason=malformed key=org\n", "a whole line, refused for its value");
        let heard = talk(&mut Line::new(None), format!("{longest}a\n8 ping\n").as_bytes());
        assert_eq!(heard, "7 error reason=too_long\n(finished)\n");
        assert_eq!(talk(&mut Line::new(None), longest.as_bytes()), "", "one more byte may still be the end");
        assert_eq!(talk(&mut Line::new(None), &[b'!'; 2_000]), "- error reason=too_long\n(finished)\n");
    }

    #[test]
    fn with_a_token_nothing_is_decided_before_it_is_presented() {
        let mut line = Line::new(Some(Arc::from(&b"s3cret"[..])));
        let question = "1 dial org=acme actor=1001 digits=*13\n";
        assert_eq!(talk(&mut line, question.as_bytes()), "1 error reason=unauthenticated\n");
        assert_eq!(talk(&mut line, b"2 ping\n"), "2 pong\n");
        assert_eq!(talk(&mut line, b"3 auth token=s3creT\n"), "3 error reason=unauthenticated\n");
        assert_eq!(talk(&mut line, b"4 auth token=s3cret2\n"), "4 error reason=unauthenticated\n");
        assert_eq!(talk(&mut line, question.as_bytes()), "1 error reason=unauthenticated\n");
        assert_eq!(talk(&mut line, b"5 auth token=s3cret\n"), "5 allow reason=authenticated\n");
        assert_eq!(talk(&mut line, question.as_bytes()), "1 ?\n");
    }
}
