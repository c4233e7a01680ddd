//! The line dialect: one request per line, one reply per request, in order.
//!
//! ASCII text over TCP port 4571 or a Unix socket. Requests may be pipelined and may arrive in any segments.
//!
//! ```text
//! request = id SP verb *( SP key "=" value ) LF        id: 1 to 16 of A-Z a-z 0-9, chosen by the peer
//! verb    = "dial" / "do" / "may" / "auth" / "ping" / "watch"
//! reply   = id SP ( "allow" / "deny" / "error" / "pong" / "event" ) *( SP key "=" value ) LF
//! value   = 1 to 128 of A-Z a-z 0-9 _ - . : @ + * #    call, to_tag and from_tag may also hold / ~ % !
//! ```
//!
//! - A line has at most [`LINE_BYTES_MAX`] (1,024) bytes, its LF included. A CR before the LF is accepted.
//! - Tokens are separated by exactly one space. A key occurs at most once. An unknown key is an error.
//! - A line outside the grammar is answered with `error`, and the connection goes on. Nothing is trimmed or guessed.
//!   But a first line that is no request (`malformed` or `unknown_verb` without a key), and a request line of HTTP at
//!   any time, end the connection after the answer: the peer speaks another protocol.
//! - A reply repeats the id of its request. It is `-` when the id cannot be read.
//! - A line that is too long, or whose rest does not arrive within 2 s, ends the connection after the answer, because
//!   it is unknown where the next line begins. A wrong token, and a line of the PROXY protocol, end it too.
//!
//! The verbs with their keys are [`crate::dialect::fields::VERBS`], the keys [`crate::dialect::fields::REQUEST_KEYS`]
//! and the keys of replies [`REPLY_KEYS`]; `queuewarden help line` prints them. Names in replies are those of the
//! configuration, never the text of the request.
//!
//! # Questions
//!
//! Lines that begin with `>` are sent by the peer, lines with `<` by queuewarden:
//!
//! ```text
//! > 7 dial org=acme actor=1001 digits=*13600
//! < 7 allow action=queue.login queue=600 reason=assigned policy=1
//! > 8 do org=acme actor=2001 action=call.whisper target=1001 queue=601 call=c-77
//! < 8 deny action=call.whisper queue=601 reason=queue_out_of_scope policy=1
//! > 9 dial org=acme
//! < 9 error reason=missing_key key=actor
//! ```
//!
//! A login code without a queue means every queue assigned to the actor, a logout code every queue to which the actor
//! is logged in. All of them are allowed or none:
//!
//! ```text
//! > a1 dial org=acme actor=1001 digits=*13
//! < a1 allow action=queue.login queues=600,601 reason=assigned policy=1
//! ```
//!
//! The answer to an allowed supervision carries the options that fix its mode and target at the PBX:
//!
//! ```text
//! > b4 dial org=acme actor=2001 digits=*2211002 queue=600 call=c-78
//! < b4 allow action=call.listen queue=600 reason=role_permits policy=1 mode=listen target=1002 asterisk=qbES freeswitch=eavesdrop_enable_dtmf:false
//! ```
//!
//! An answer that changed a login session is sent after the change and its line in the audit log are on disk. The same
//! holds for every answer to a supervisor who asks to supervise, denials included, and for every `reported`. Later
//! answers on the connection wait for it; earlier ones, and those of other connections that change nothing, do not. If
//! the disk does not take the change, the answer is `deny reason=state_unavailable` and nothing has changed.
//!
//! # Questions with an end, and repeats
//!
//! `until` says when the peer stops waiting. The system's clock is read when the question is read, when its change is
//! durable and before its answer is written; a `do` or `dial` that is too late by then is denied, and its change is
//! undone by a second one. A report of the PBX is checked when it is read only: what it reports has happened.
//!
//! ```text
//! > c5 dial org=acme actor=1001 digits=*13600 until=1000000000000
//! < c5 deny reason=too_late policy=1
//! ```
//!
//! `once` names a question: within 60 s the same question of the same actor under the same name gets the first answer
//! again, whatever id, `until` and dialect it has, and nothing happens twice. A repeat waits for a first that waits for
//! the disk. `too_late`, `overload` and `state_unavailable` are not kept.
//!
//! ```text
//! > d7 dial org=acme actor=1002 digits=*13601 once=call-9.1
//! < d7 allow action=queue.login queue=601 reason=assigned policy=1
//! > d8 dial org=acme actor=1002 digits=*13601 once=call-9.1
//! < d8 allow action=queue.login queue=601 reason=assigned policy=1
//! ```
//!
//! `watch` turns the connection into a list of changes: [`watch`](super::watch).

use std::sync::Arc;

use crate::decision::{AnswerQueues, ErrorReason, Outcome, WireError};
use crate::dialect::connection::PersistentConnection;
use crate::dialect::fields::{Fields, Verb, key_error};
pub use crate::dialect::line_reply_keys::REPLY_KEYS;
pub use crate::dialect::line_token::LineToken;
use crate::dialect::line_token::owner_of;
use crate::dialect::output::{append, append_number, append_queues};
use crate::dialect::readable::ReadableRequest;
use crate::dialect::watch::WatchRequest;
use crate::dialect::{After, ChangeWords, Dialect, DialectLabel, Patience, Step, supervision_options};
use crate::event::{Event, Key};
use crate::limits::{LINE_BYTES_MAX, REQUEST_ID_BYTES_MAX};
use crate::telephony::Token;

/// The id of a reply to a line whose own id cannot be read.
const NO_ID: &[u8] = b"-";

/// One connection of the line dialect.
#[derive(Clone)]
pub struct Line {
    /// The tokens of which the peer must present one before a question. `None`: none is needed, and any is refused.
    tokens: Option<Arc<[LineToken]>>,
    /// The position of the token that the peer presented. `None`: none was presented.
    presented: Option<usize>,
    /// Whether a line of the peer was a request of this dialect, right or wrong.
    has_spoken: bool,
    connection: PersistentConnection,
}

/// One readable line.
enum LineRequest<'buf> {
    /// A question: its verb, and the words with its keys, each behind a space.
    Question(Verb, &'buf [u8]),
    Watch(WatchRequest<'buf>),
    Ping,
    /// The right token was presented.
    Authenticated,
}

impl Line {
    /// A new connection. With a `token`, the peer must present it before questions are decided.
    #[must_use]
    pub fn new(token: Option<Arc<[u8]>>) -> Self {
        Self::of(token.map(|token| Arc::from([LineToken { token, owner: Arc::from("peer") }])))
    }

    /// A new connection. With tokens, the peer must present one of them before questions are decided.
    #[must_use]
    pub fn with_tokens(tokens: Arc<[LineToken]>) -> Self {
        Self::of(Some(tokens).filter(|tokens| !tokens.is_empty()))
    }

    const fn of(tokens: Option<Arc<[LineToken]>>) -> Self {
        Self { tokens, presented: None, has_spoken: false, connection: PersistentConnection::new() }
    }

    /// Whether the last reply was given.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.connection.is_finished()
    }

    fn is_authenticated(&self) -> bool {
        self.tokens.is_none() || self.presented.is_some()
    }

    /// Reads a line without its id: a space, the verb and the keys.
    fn read<'buf>(&mut self, after_id: &'buf [u8]) -> Result<LineRequest<'buf>, WireError> {
        let malformed = WireError::new(ErrorReason::Malformed);
        let (_, after_id) = after_id.split_first().ok_or(malformed)?;
        let verb_bytes = after_id.iter().position(|&byte| byte == b' ').unwrap_or(after_id.len());
        let (word, words) = after_id.split_at_checked(verb_bytes).ok_or(malformed)?;
        let mut pairs = words.split(|&byte| byte == b' ').skip(1);
        let verb = match word {
            b"dial" => Verb::Dial,
            b"do" => Verb::Do,
            b"may" => Verb::May,
            b"auth" => return self.authenticate(&mut pairs),
            b"ping" => return no_more(&mut pairs).map(|()| LineRequest::Ping),
            b"watch" => return self.watch(&mut pairs),
            word if !word.is_empty() && word.iter().all(u8::is_ascii_alphanumeric) => {
                return Err(WireError::new(ErrorReason::UnknownVerb));
            }
            _ => return Err(malformed),
        };
        if self.is_authenticated() {
            Ok(LineRequest::Question(verb, words))
        } else {
            Err(WireError::new(ErrorReason::Unauthenticated))
        }
    }

    fn watch<'buf>(&self, pairs: &mut impl Iterator<Item = &'buf [u8]>) -> Result<LineRequest<'buf>, WireError> {
        if self.is_authenticated() {
            WatchRequest::read(pairs).map(LineRequest::Watch)
        } else {
            Err(WireError::new(ErrorReason::Unauthenticated))
        }
    }

    fn authenticate<'buf>(
        &mut self,
        pairs: &mut impl Iterator<Item = &'buf [u8]>,
    ) -> Result<LineRequest<'buf>, WireError> {
        let pair = pairs.next().ok_or(WireError::of(ErrorReason::MissingKey, Key::Token))?;
        let Some(presented) = pair.strip_prefix(b"token=") else { return Err(key_error(pair)) };
        if Token::parse(presented).is_none() {
            return Err(WireError::of(ErrorReason::Malformed, Key::Token));
        }
        match pairs.next() {
            None => {}
            Some(pair) if pair.starts_with(b"token=") => {
                return Err(WireError::of(ErrorReason::DuplicateKey, Key::Token));
            }
            Some(pair) => return Err(key_error(pair)),
        }
        let found = owner_of(self.tokens.as_deref().unwrap_or_default(), presented);
        if found.is_none() {
            // A peer that guesses gets one guess a connection. Without tokens there is nothing to guess.
            if self.tokens.is_some() {
                self.presented = None;
                self.connection.finish();
            }
            return Err(WireError::new(ErrorReason::Unauthenticated));
        }
        self.presented = found;
        Ok(LineRequest::Authenticated)
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Line").field("authenticated", &self.is_authenticated()).finish_non_exhaustive()
    }
}

impl Dialect for Line {
    fn label(&self) -> DialectLabel {
        DialectLabel::Line
    }

    fn next<'buf>(&mut self, input: &'buf [u8], _decoded: &'buf mut Vec<u8>, output: &mut Vec<u8>) -> Step<'buf> {
        if self.connection.is_finished() {
            return Step::Done { consumed: input.len(), fault: None, after: After::Finish };
        }
        let window = input.get(..LINE_BYTES_MAX).unwrap_or(input);
        let Some(end) = memchr::memchr(b'\n', window) else {
            if input.len() < LINE_BYTES_MAX {
                return Step::More;
            }
            self.connection.finish();
            let error = WireError::new(ErrorReason::TooLong);
            append_error(output, split_id(window).0, error);
            return Step::Done { consumed: input.len(), fault: Some(error), after: After::Finish };
        };
        let consumed = end.saturating_add(1);
        let done = |fault| Step::Done { consumed, fault, after: After::Continue };
        let line = window.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (id, after_id) = split_id(line);
        let request = match after_id {
            Some(after_id) => self.read(after_id),
            None => Err(WireError::new(ErrorReason::Malformed)),
        };
        let is_first = !std::mem::replace(&mut self.has_spoken, true);
        let error = match request {
            Ok(LineRequest::Question(verb, words)) => match question(verb, words) {
                Ok(event) => return Step::Ask { consumed, event, id },
                Err(error) => error,
            },
            Ok(LineRequest::Watch(WatchRequest { organization, from })) => {
                return Step::Watch { consumed, organization, from, id };
            }
            Ok(LineRequest::Ping) => {
                append(output, &[id, b" pong\n"]);
                return done(None);
            }
            Ok(LineRequest::Authenticated) => {
                append(output, &[id, b" allow reason=authenticated\n"]);
                return done(None);
            }
            Err(error) => error,
        };
        // The server reads such lines, where a listener is marked: this one is forged.
        let is_forged = is_proxy_line(line);
        let error = if is_forged { WireError::new(ErrorReason::Malformed) } else { error };
        append_error(output, id, error);
        if is_forged || is_http(line) || (is_first && is_no_request(error)) {
            self.connection.finish();
        }
        if self.connection.is_finished() {
            return Step::Done { consumed: input.len(), fault: Some(error), after: After::Finish };
        }
        done(Some(error))
    }

    fn authenticated_as(&self) -> Option<&Arc<str>> {
        Some(&self.tokens.as_ref()?.get(self.presented?)?.owner)
    }

    fn reads_ahead(&self) -> bool {
        true
    }

    fn answer(&mut self, id: &[u8], outcome: &Outcome<'_>, output: &mut Vec<u8>) -> After {
        let answer = match outcome {
            Outcome::Decided(answer) => answer,
            Outcome::Faulty(error) => {
                append_error(output, id, *error);
                return After::Continue;
            }
        };
        append(output, &[id, b" ", answer.reason.verdict().as_bytes()]);
        if let Some(action) = answer.action {
            append(output, &[b" action=", action.as_bytes()]);
        }
        let key = if matches!(answer.queues, AnswerQueues::All(..)) { " queues=" } else { " queue=" };
        append_queues(output, key, answer.queues, ",");
        append(output, &[b" reason=", answer.reason.code().as_bytes(), b" policy="]);
        append_number(output, answer.revision);
        // Options without a target would let the supervisor listen to anybody.
        if let (Some(mode), Some(target)) = (answer.mode, answer.target) {
            append(output, &[b" mode=", mode.name().as_bytes(), b" target=", target.as_bytes()]);
            append(output, &[b" asterisk=", supervision_options::asterisk(mode).as_bytes()]);
            append(output, &[b" freeswitch=", supervision_options::freeswitch(mode).as_bytes()]);
        }
        append(output, &[b"\n"]);
        After::Continue
    }

    fn change(&mut self, id: &[u8], revision: u64, change: &ChangeWords<'_>, output: &mut Vec<u8>) {
        append(output, &[id, b" event revision="]);
        append_number(output, revision);
        append(output, &[b" change=", change.change.as_bytes(), b" user=", change.user.as_bytes()]);
        let optional = [("target", change.target), ("mode", change.mode), ("queue", change.queue)];
        for (key, value) in optional {
            if let Some(value) = value {
                append(output, &[b" ", key.as_bytes(), b"=", value.as_bytes()]);
            }
        }
        append(output, &[b" reason=", change.reason.as_bytes(), b"\n"]);
    }

    fn give_up(&mut self, reason: Option<ErrorReason>, unread: &[u8], output: &mut Vec<u8>) -> Option<ErrorReason> {
        let fault = self.connection.give_up(reason, unread)?;
        if reason.is_some() {
            append_error(output, split_id(unread).0, WireError::new(fault));
        }
        Some(fault)
    }

    fn readable(&self, request: &[u8]) -> ReadableRequest {
        ReadableRequest::of_line(request)
    }

    fn patience(&self, has_unread: bool) -> Patience {
        self.connection.patience(has_unread)
    }
}

/// Splits a line into its id and the rest. If the id cannot be read, the result is [`NO_ID`] and `None`.
fn split_id(line: &[u8]) -> (&[u8], Option<&[u8]>) {
    let bytes = line.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(line.len());
    let (id, after_id) = line.split_at_checked(bytes).unwrap_or_default();
    let is_id = (1..=REQUEST_ID_BYTES_MAX).contains(&bytes) && after_id.first().is_none_or(|&byte| byte == b' ');
    if is_id { (id, Some(after_id)) } else { (NO_ID, None) }
}

/// Whether a line with this error is none of this dialect: a peer that begins with such a line speaks another protocol.
const fn is_no_request(error: WireError) -> bool {
    matches!(error.reason, ErrorReason::Malformed | ErrorReason::UnknownVerb) && error.key.is_none()
}

/// Whether the line begins a request of HTTP, whose body may be a question of a web page: method, target, version.
fn is_http(line: &[u8]) -> bool {
    let mut words = line.split(|&byte| byte == b' ');
    let [method, target, version] = std::array::from_fn(|_| words.next().unwrap_or_default());
    !target.is_empty()
        && !method.is_empty()
        && method.iter().all(u8::is_ascii_uppercase)
        && version.starts_with(b"HTTP/")
        && words.next().is_none()
}

/// Whether the line is the first one of the PROXY protocol, version 1.
fn is_proxy_line(line: &[u8]) -> bool {
    [&b"PROXY TCP4 "[..], b"PROXY TCP6 ", b"PROXY UNKNOWN"].iter().any(|start| line.starts_with(start))
}

/// Reads the keys of a question from words that each follow a space.
fn question(verb: Verb, words: &[u8]) -> Result<Event<'_>, WireError> {
    let (mut fields, mut rest) = (Fields::new(verb), words);
    while let Some((_, words)) = rest.split_first() {
        rest = fields.set_word(words)?;
    }
    fields.into_event()
}

/// Refuses any further key.
fn no_more<'buf>(pairs: &mut impl Iterator<Item = &'buf [u8]>) -> Result<(), WireError> {
    pairs.next().map_or(Ok(()), |pair| Err(key_error(pair)))
}

fn append_error(output: &mut Vec<u8>, id: &[u8], error: WireError) {
    append(output, &[id, b" error reason=", error.reason.code().as_bytes()]);
    if let Some(key) = error.key {
        append(output, &[b" key=", key.name().as_bytes()]);
    }
    append(output, &[b"\n"]);
}

#[cfg(test)]
mod tests;
