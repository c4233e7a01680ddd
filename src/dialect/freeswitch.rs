//! FreeSWITCH's outbound socket: FreeSWITCH dials us, is told `connect`, describes its channel in a block of `Name:
//! value` lines, and runs the commands it gets back.
//!
//! The question stands in channel variables, `qw_org`, `qw_digits` and so on; the actor is the authenticated user,
//! never the caller id, and never a variable of the question. Values are URL-encoded. The answer is one short write:
//! one `multiset` of all variables, the verdict last, then `exit`, after which FreeSWITCH says goodbye and goes on in
//! its dialplan. Short, because FreeSWITCH reads byte by byte; only fixed tokens and names from the tables, because it
//! expands what it is told. Our side stays open until FreeSWITCH has ended its own.

use percent_encoding::percent_decode;

use crate::decision::{AnswerQueues, ErrorReason, Outcome, WireError};
use crate::dialect::header_lines::{lines_of, split};
use crate::dialect::fields::{Fields, Verb};
use crate::dialect::{After, Dialect, DialectLabel, Patience, Step, supervision_options};
use crate::event::{Event, Key, KeySet};
use crate::limits::{FREESWITCH_BLOCK_BYTES_MAX, FREESWITCH_REPLY_BYTES_MAX};

/// What makes FreeSWITCH describe its channel.
const CONNECT: &[u8] = b"connect\n\n";

/// Before the variables of the answer, and after them: one command that sets them, and the end of the conversation.
const ANSWER: &[u8] = b"sendmsg\ncall-command: execute\nexecute-app-name: multiset\nexecute-app-arg: ";
const EXIT: &[u8] = b"\n\nexit\n\n";

/// How the name of a variable of ours begins, among the names of a block.
const OURS: &[u8] = b"variable_qw_";

/// Variables of ours that carry an answer: the dialplan sets some before it asks, and others are left from before.
const ANSWERS: [&[u8]; 3] = [b"verdict", b"reason", b"queues"];

/// The variable for the key `verb`, whose own name is taken by what the question is: `dial`, `do` or `may`.
const OBJECT_VERB: &[u8] = b"object_verb";

/// Keys that no variable may give: the actor is who FreeSWITCH authenticated.
const NEVER_VARIABLES: KeySet = KeySet::EMPTY.with(Key::Actor).with(Key::Token).with(Key::Verb);

/// How FreeSWITCH writes an empty value.
const UNDEFINED: &[u8] = b"_undef_";

/// One connection from FreeSWITCH.
#[derive(Clone, Debug, Default)]
pub struct FreeSwitch {
    state: State,
    greeted: bool,
    /// How far the input was looked at.
    scanned: usize,
    /// Where the line begins that `scanned` is in.
    line: usize,
    /// The verdict went out, but FreeSWITCH did not confirm it.
    unconfirmed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Block,
    Answered,
}

/// A decoded value: where it stands in the room.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    end: usize,
}

/// What a block says that a question is made of, in its order.
#[derive(Debug, Default)]
struct Block {
    verb: Option<Span>,
    /// The user that the directory has for the caller.
    user: Option<Span>,
    /// The name that the caller authenticated with.
    login: Option<Span>,
    destination: Option<Span>,
    keys: [Option<(Key, Span)>; Key::ALL.len()],
}

impl FreeSwitch {
    /// A new connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks for the empty line that ends the block; true when it was found, just before `scanned`.
    fn find_end(&mut self, input: &[u8]) -> Result<bool, WireError> {
        loop {
            let rest = input.get(self.scanned..).unwrap_or_default();
            let Some(length) = rest.iter().position(u8::is_ascii_control) else {
                self.scanned = input.len();
                let too_long = input.len() >= FREESWITCH_BLOCK_BYTES_MAX;
                return if too_long { Err(WireError::new(ErrorReason::TooLong)) } else { Ok(false) };
            };
            let end = self.scanned.saturating_add(length);
            let line = input.get(self.line..end).unwrap_or_default();
            self.scanned = end.saturating_add(1);
            if self.scanned > FREESWITCH_BLOCK_BYTES_MAX {
                return Err(WireError::new(ErrorReason::TooLong));
            }
            if input.get(end) != Some(&b'\n') {
                return Err(WireError::new(ErrorReason::Malformed));
            }
            self.line = self.scanned;
            if line.is_empty() {
                return Ok(true);
            }
            if split(line).is_none_or(|(name, _)| name.is_empty()) {
                return Err(WireError::new(ErrorReason::Malformed));
            }
        }
    }

    /// Sets the variables of an answer; the verdict goes last.
    fn set(&mut self, variables: &[(&str, &str)], verdict: &str, output: &mut Vec<u8>) {
        output.extend_from_slice(ANSWER);
        for (name, value) in variables {
            write(output, &["qw_", name, "=", value, " "]);
        }
        write(output, &["qw_verdict=", verdict]);
        output.extend_from_slice(EXIT);
        self.state = State::Answered;
        self.unconfirmed = true;
    }

    fn refuse(&mut self, error: WireError, output: &mut Vec<u8>) {
        if !self.greeted {
            self.greet(output);
        }
        let nothing = [("reason", error.reason.code()), ("action", ""), ("queues", ""), ("target", "")];
        self.set(&nothing, "deny", output);
    }

    /// What FreeSWITCH says to our commands, and its goodbye.
    fn replies(&mut self, input: &[u8]) -> Step<'static> {
        let done = |consumed, fault, after| Step::Done { consumed, fault, after };
        let Some(end) = memchr::memchr(b'\n', input) else {
            let too_long = input.len() > FREESWITCH_REPLY_BYTES_MAX;
            let fault = Some(ErrorReason::TooLong);
            return if too_long { done(input.len(), fault, After::Finish) } else { Step::More };
        };
        let line = input.get(..end).unwrap_or_default();
        let refused = self.unconfirmed && line.starts_with(b"Reply-Text: -ERR");
        if line.starts_with(b"Reply-Text: ") {
            self.unconfirmed = false;
        }
        done(end.saturating_add(1), refused.then_some(ErrorReason::VerdictRefused), After::Continue)
    }
}

impl Dialect for FreeSwitch {
    fn label(&self) -> DialectLabel {
        DialectLabel::FreeSwitch
    }

    fn greet(&mut self, output: &mut Vec<u8>) {
        output.extend_from_slice(CONNECT);
        self.greeted = true;
    }

    fn next<'buf>(&mut self, input: &'buf [u8], room: &'buf mut Vec<u8>, output: &mut Vec<u8>) -> Step<'buf> {
        if self.state == State::Answered {
            return self.replies(input);
        }
        let read = match self.find_end(input) {
            Ok(false) => return Step::More,
            Ok(true) => question(input.get(..self.scanned).unwrap_or_default(), room),
            Err(error) => {
                // Whoever says this is not FreeSWITCH, and would not understand `exit` either.
                self.refuse(error, output);
                return Step::Done { consumed: input.len(), fault: Some(error.reason), after: After::Finish };
            }
        };
        match read {
            Ok(event) => Step::Ask { consumed: self.scanned, event, id: &[] },
            Err(error) => {
                self.refuse(error, output);
                Step::Done { consumed: self.scanned, fault: Some(error.reason), after: After::Continue }
            }
        }
    }

    fn answer(&mut self, _id: &[u8], outcome: &Outcome<'_>, output: &mut Vec<u8>) -> After {
        let answer = match outcome {
            Outcome::Decided(answer) => answer,
            Outcome::Faulty(error) => {
                self.refuse(*error, output);
                return After::Continue;
            }
        };
        let allowed = answer.reason.verdict() == "allow";
        let target = answer.target.filter(|_| allowed);
        output.extend_from_slice(ANSWER);
        write(output, &["qw_reason=", answer.reason.code(), " qw_action=", answer.action.unwrap_or_default()]);
        write_queues(answer.queues, output);
        write(output, &[" qw_target=", target.unwrap_or_default()]);
        // Without a target there is nothing to pin.
        if let Some(mode) = answer.mode.filter(|_| target.is_some()) {
            for (name, value) in supervision_options::freeswitch(mode).split(',').filter_map(|pin| pin.split_once(':')) {
                write(output, &[" ", name, "=", value]);
            }
        }
        write(output, &[" qw_verdict=", answer.reason.verdict()]);
        output.extend_from_slice(EXIT);
        self.state = State::Answered;
        self.unconfirmed = true;
        After::Continue
    }

    fn give_up(&mut self, reason: Option<ErrorReason>, _unread: &[u8], output: &mut Vec<u8>) -> Option<ErrorReason> {
        match self.state {
            State::Block => {
                let reason = reason.unwrap_or(ErrorReason::Malformed);
                self.refuse(WireError::new(reason), output);
                Some(reason)
            }
            State::Answered => std::mem::take(&mut self.unconfirmed).then_some(ErrorReason::VerdictUnread),
        }
    }

    fn patience(&self, _has_unread: bool) -> Patience {
        match self.state {
            State::Block => Patience::Frame,
            State::Answered => Patience::Closing,
        }
    }
}

/// The question that a whole block asks. Its values are decoded into `room`.
fn question<'buf>(lines: &[u8], room: &'buf mut Vec<u8>) -> Result<Event<'buf>, WireError> {
    room.clear();
    let block = read_block(lines, room)?;
    let room: &'buf [u8] = room;
    let value = |span: Span| room.get(span.start..span.end).unwrap_or_default();
    let verb = block.verb.map_or(Some(Verb::Dial), |span| Verb::named(value(span)));
    let mut fields = Fields::new(verb.ok_or(WireError::new(ErrorReason::UnknownVerb))?);
    for (key, span) in block.keys.iter().flatten() {
        fields.set(*key, value(*span))?;
    }
    if let Some(actor) = [block.user, block.login].into_iter().flatten().map(value).find(|name| !name.is_empty()) {
        fields.set(Key::Actor, actor)?;
    }
    let dialed = block.destination.filter(|_| verb == Some(Verb::Dial) && !fields.has(Key::Digits));
    if let Some(dialed) = dialed {
        fields.set(Key::Digits, value(dialed))?;
    }
    fields.into_event()
}

/// Picks the lines that matter, none of which may stand twice: two would leave open which of them FreeSWITCH meant.
fn read_block(lines: &[u8], room: &mut Vec<u8>) -> Result<Block, WireError> {
    let mut block = Block::default();
    let mut given = KeySet::EMPTY;
    let mut free = block.keys.iter_mut();
    for (name, value) in lines_of(lines).filter_map(split).filter(|(name, _)| !name.is_empty()) {
        let (slot, key) = match name {
            b"variable_qw_verb" => (&mut block.verb, None),
            b"variable_user_name" => (&mut block.user, Some(Key::Actor)),
            b"variable_sip_auth_username" => (&mut block.login, Some(Key::Actor)),
            b"Caller-Destination-Number" => (&mut block.destination, Some(Key::Digits)),
            name => {
                let Some(key) = key_of_ours(name)? else { continue };
                let span = decode(value, room).ok_or(WireError::of(ErrorReason::Malformed, key))?;
                if given.has(key) {
                    return Err(WireError::of(ErrorReason::DuplicateKey, key));
                }
                given = given.with(key);
                if let Some(slot) = free.next() {
                    *slot = Some((key, span));
                }
                continue;
            }
        };
        let span = decode(value, room).ok_or(WireError { reason: ErrorReason::Malformed, key })?;
        if slot.replace(span).is_some() {
            return Err(WireError { reason: ErrorReason::DuplicateKey, key });
        }
    }
    Ok(block)
}

/// The key that a variable of ours gives; `None` for variables of others and for those of an answer.
fn key_of_ours(name: &[u8]) -> Result<Option<Key>, WireError> {
    let (Some(prefix), Some(name)) = (name.get(..OURS.len()), name.get(OURS.len()..)) else { return Ok(None) };
    // FreeSWITCH takes the names of variables in any case. A key that we missed would widen the question.
    if !prefix.eq_ignore_ascii_case(OURS) || ANSWERS.contains(&name) {
        return Ok(None);
    }
    if name == OBJECT_VERB {
        return Ok(Some(Key::Verb));
    }
    let key = Key::named(name).filter(|&key| !NEVER_VARIABLES.has(key));
    key.map(Some).ok_or(WireError::new(ErrorReason::UnknownKey))
}

/// Decodes a value into the room; `None` when its escapes are broken.
fn decode(value: &[u8], room: &mut Vec<u8>) -> Option<Span> {
    let start = room.len();
    if value != UNDEFINED {
        let mut escapes = value.iter().enumerate().filter(|(_, byte)| **byte == b'%');
        let is_whole = |(at, _): (usize, &u8)| {
            let digits = value.get(at.saturating_add(1)..at.saturating_add(3));
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        };
        if !escapes.all(is_whole) {
            return None;
        }
        room.extend(percent_decode(value));
    }
    Some(Span { start, end: room.len() })
}

fn write_queues(queues: AnswerQueues<'_>, output: &mut Vec<u8>) {
    write(output, &[" qw_queues="]);
    for (position, number) in queues.numbers().enumerate() {
        write(output, &[if position == 0 { "" } else { "," }, number]);
    }
}

fn write(output: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        output.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::event::{Intent, Request};
    use crate::telephony::{Token, Via};

    fn block(variables: &[(&str, &str)]) -> String {
        let mut text =
            "Event-Name: CHANNEL_DATA\nCaller-Caller-ID-Number: 2001\nCaller-Caller-ID-Name: %0Aevil%3A%20\n\
                        Caller-Destination-Number: *13600\nvariable_sip_h_X-qw_org: other\n"
                .to_owned();
        for (name, value) in variables {
            writeln!(text, "variable_{name}: {value}").unwrap();
        }
        text + "Content-Type: command/reply\nReply-Text: %2BOK%0A\nSocket-Mode: static\nControl: single-channel\n\n"
    }

    fn refusal(input: &[u8]) -> String {
        let (mut room, mut output) = (vec![], vec![]);
        match FreeSwitch::new().next(input, &mut room, &mut output) {
            Step::Done { fault: Some(_), .. } => {}
            other => panic!("{} is not refused: {other:?}", input.escape_ascii()),
        }
        let text = String::from_utf8(output).unwrap();
        assert!(text.ends_with(" qw_verdict=deny\n\nexit\n\n"), "{text}");
        text.split_once("qw_reason=").unwrap().1.split(' ').next().unwrap().to_owned()
    }

    fn asked(input: &str, check: impl FnOnce(Event<'_>)) {
        let (mut room, mut output) = (vec![], vec![]);
        match FreeSwitch::new().next(input.as_bytes(), &mut room, &mut output) {
            Step::Ask { event, consumed, .. } => {
                assert_eq!(consumed, input.len());
                check(event);
            }
            other => panic!("{input:?} is no question: {other:?} {}", String::from_utf8_lossy(&output)),
        }
    }

    #[test]
    fn who_asks_is_the_authenticated_user_and_what_is_the_number_dialed() {
        asked(&block(&[("qw_org", "acme"), ("user_name", "1001"), ("qw_verdict", "deny")]), |event| {
            assert_eq!((event.organization.as_str(), event.actor.as_str()), ("acme", "1001"));
            assert!(matches!(event.request, Request::Dial(digits) if digits.as_str() == "*13600"));
        });
        for (variables, actor) in [
            (&[("sip_auth_username", "1002")][..], "1002"),
            (&[("user_name", "1001"), ("sip_auth_username", "alias")], "1001"),
            (&[("user_name", "_undef_"), ("sip_auth_username", "1002")], "1002"),
        ] {
            asked(&block(&[&[("qw_org", "acme")], variables].concat()), |event| {
                assert_eq!(event.actor.as_str(), actor);
            });
        }
    }

    #[test]
    fn values_are_decoded() {
        let variables = [("qw_org", "acme"), ("user_name", "1001"), ("qw_digits", "%2a13%23"), ("qw_call", "a%40b%25")];
        asked(&block(&variables), |event| {
            assert!(matches!(event.request, Request::Dial(digits) if digits.as_str() == "*13#"));
            assert_eq!(event.call.map(Token::as_str), Some("a@b%"));
        });
    }

    #[test]
    fn a_named_action_takes_every_key() {
        let variables = [
            ("qw_verb", "may"),
            ("qw_org", "acme"),
            ("user_name", "2001"),
            ("qw_action", "call.whisper"),
            ("qw_target", "1001"),
            ("qw_queue", "600"),
            ("qw_via", "dashboard"),
            ("qw_object_verb", "edit"),
        ];
        asked(&block(&variables), |event| {
            assert_eq!((event.intent, event.via), (Intent::May, Via::Dashboard));
            assert_eq!(event.target.map(Token::as_str), Some("1001"));
            assert!(event.keys().has(Key::Verb));
        });
    }

    #[test]
    fn what_is_not_a_question_is_refused_with_its_reason() {
        let good = [("qw_org", "acme"), ("user_name", "1001")];
        let with = |more: &[(&str, &str)]| block(&[&good, more].concat());
        let cases = [
            (block(&[]), "missing_key"),
            (block(&[("qw_org", "acme")]), "missing_key"),
            (block(&[("user_name", "1001")]), "missing_key"),
            (with(&[("qw_verb", "do")]), "missing_key"),
            (with(&[("qw_verb", "ping")]), "unknown_verb"),
            (with(&[("qw_action", "queue.login")]), "unknown_key"),
            (with(&[("qw_actor", "2001")]), "unknown_key"),
            (with(&[("qw_token", "x")]), "unknown_key"),
            (with(&[("qw_qeue", "600")]), "unknown_key"),
            (with(&[("qw_Queue", "600")]), "unknown_key"),
            (with(&[("QW_queues", "600"), ("qw_queue", "601"), ("qw_queue", "602")]), "duplicate_key"),
            (with(&[("user_name", "2001")]), "duplicate_key"),
            (with(&[("qw_verb", "dial"), ("qw_verb", "do")]), "duplicate_key"),
            (with(&[("qw_queue", "_undef_")]), "malformed"),
            (with(&[("qw_queue", "60%")]), "malformed"),
            (with(&[("qw_queue", "60%4")]), "malformed"),
            (with(&[("qw_queue", "60%zz")]), "malformed"),
            (with(&[("qw_queue", "60%0A1")]), "malformed"),
            (with(&[("qw_digits", "%2A13sales")]), "malformed"),
            (good.map(|(name, value)| format!("variable_{name}: {value}\n")).concat() + "\n", "missing_key"),
            ("\n".to_owned(), "missing_key"),
        ];
        for (input, reason) in cases {
            assert_eq!(refusal(input.as_bytes()), reason, "{input}");
        }
        for garbage in [&b"\0\x01\x02"[..], b"Event-Name: X\n\0", b"GET / HTTP/1.1\r\n", b"hello there\n\n", b": x\n"] {
            assert_eq!(refusal(garbage), "malformed");
        }
    }

    #[test]
    fn a_block_has_at_most_64_kib() {
        let longest = |length: usize| {
            let text = block(&[("qw_org", "acme"), ("user_name", "1001")]);
            format!("Padding: {}\n{text}", "x".repeat(length - text.len() - "Padding: \n".len()))
        };
        asked(&longest(FREESWITCH_BLOCK_BYTES_MAX), |_| ());
        assert_eq!(refusal(longest(FREESWITCH_BLOCK_BYTES_MAX + 1).as_bytes()), "too_long");
        assert_eq!(refusal(&vec![b'x'; FREESWITCH_BLOCK_BYTES_MAX]), "too_long");
    }

    #[test]
    fn who_is_refused_without_a_greeting_hears_it_first() {
        let mut output = vec![];
        FreeSwitch::new().give_up(Some(ErrorReason::Overload), &[], &mut output);
        assert!(output.starts_with(b"connect\n\nsendmsg\n"));
        let (mut freeswitch, mut output) = (FreeSwitch::new(), vec![]);
        freeswitch.greet(&mut output);
        freeswitch.give_up(Some(ErrorReason::TimedOut), &[], &mut output);
        assert_eq!(String::from_utf8(output).unwrap().matches("connect").count(), 1);
    }

    #[test]
    fn a_refused_verdict_and_an_unread_one_are_told_apart() {
        let reply = |text: &str| {
            let mut freeswitch = FreeSwitch::new();
            let (mut input, mut faults) = (text.as_bytes(), vec![]);
            freeswitch.refuse(WireError::new(ErrorReason::Malformed), &mut vec![]);
            while let Step::Done { consumed, fault, .. } = freeswitch.next(input, &mut vec![], &mut vec![]) {
                faults.extend(fault);
                input = &input[consumed..];
            }
            faults.extend(freeswitch.give_up(None, input, &mut vec![]));
            faults
        };
        let bye = "Content-Type: command/reply\nReply-Text: +OK bye\n\nContent-Type: text/disconnect-change\n\n";
        assert_eq!(reply(&format!("Content-Type: command/reply\nReply-Text: +OK\n\n{bye}")), []);
        assert_eq!(
            reply(&format!("Content-Type: command/reply\nReply-Text: -ERR invalid command\n\n{bye}")),
            [ErrorReason::VerdictRefused]
        );
        assert_eq!(reply("Content-Type: command/reply\n"), [ErrorReason::VerdictUnread]);
    }
}
