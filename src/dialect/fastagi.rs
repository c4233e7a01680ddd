//! FastAGI: Asterisk dials us, says who and what in a block of `agi_key: value` lines, and runs the commands it gets
//! back.
//!
//! The question is `agi://HOST/ORG/ACTION,key=value,…`; the actor is `agi_accountcode`, which the endpoint's
//! configuration sets, and nothing else. The answer is one write of `SET VARIABLE` commands, the verdict last, after
//! which our side of the connection ends: Asterisk then runs all of them, where on an open connection it would run the
//! first and wait. Only fixed tokens and names from the tables are ever sent. The connection is never closed without a
//! verdict, because Asterisk reports a silent close as success.

use std::ops::Range;

use crate::decision::{ErrorReason, Outcome, WireError};
use crate::dialect::header_lines::{lines_of, split};
use crate::dialect::fields::{Fields, Verb};
use crate::dialect::{After, Dialect, DialectLabel, Patience, Step, supervision_options};
use crate::event::{Event, Key, KeySet};
use crate::limits::{AGI_ENVIRONMENT_BYTES_MAX, AGI_ENVIRONMENT_LINES_MAX, AGI_REPLY_BYTES_MAX};
use crate::telephony::Digits;

/// What the path of the URL says instead of an action when the question is about dialed digits.
const DIAL: &[u8] = b"dial";

/// Keys that no argument may give: they come from where a caller cannot write.
const NEVER_ARGUMENTS: KeySet = KeySet::EMPTY.with(Key::Organization).with(Key::Actor).with(Key::Action);

/// One connection from Asterisk.
#[derive(Clone, Debug, Default)]
pub struct FastAgi {
    state: State,
    /// Where the first line begins that was not looked at yet.
    scanned: usize,
    lines: usize,
    /// The verdict went out, but no command of it was confirmed.
    unconfirmed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Environment,
    Answered,
}

/// The lines of an environment that a question is made of.
#[derive(Clone, Copy, Debug, Default)]
struct Environment<'buf> {
    script: Option<&'buf [u8]>,
    account: Option<&'buf [u8]>,
    extension: Option<&'buf [u8]>,
    dialed: Option<&'buf [u8]>,
}

impl FastAgi {
    /// A new connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks for the end of the environment: the range of its lines without the empty one, or `None` if it goes on.
    fn environment_end(&mut self, input: &[u8]) -> Result<Option<Range<usize>>, WireError> {
        loop {
            let rest = input.get(self.scanned..).unwrap_or_default();
            let Some(length) = memchr::memchr(b'\n', rest) else {
                let too_long = input.len() > AGI_ENVIRONMENT_BYTES_MAX;
                return if too_long { Err(WireError::new(ErrorReason::TooLong)) } else { Ok(None) };
            };
            let line = rest.get(..length).unwrap_or_default();
            let start = self.scanned;
            self.scanned = start.saturating_add(length).saturating_add(1);
            self.lines = self.lines.saturating_add(1);
            if self.scanned > AGI_ENVIRONMENT_BYTES_MAX || self.lines > AGI_ENVIRONMENT_LINES_MAX {
                return Err(WireError::new(ErrorReason::TooLong));
            }
            if line.is_empty() {
                return Ok(Some(0..start));
            }
            if !split(line).is_some_and(|(name, _)| is_name(name)) {
                return Err(WireError::new(ErrorReason::Malformed));
            }
        }
    }

    fn refuse(&mut self, error: WireError, output: &mut Vec<u8>) {
        set(output, "QW_REASON", error.reason.code());
        for empty in ["QW_ACTION", "QW_QUEUES", "QW_TARGET", "QW_SPY_OPTIONS"] {
            set(output, empty, "");
        }
        set(output, "QW_VERDICT", "DENY");
        self.state = State::Answered;
        self.unconfirmed = true;
    }

    /// The replies to our commands, and the `HANGUP` that ends even a healthy call.
    fn replies(&mut self, input: &[u8]) -> Step<'static> {
        let done = |consumed, fault| Step::Done { consumed, fault, after: After::Finish };
        let Some(end) = memchr::memchr(b'\n', input) else {
            let too_long = input.len() > AGI_REPLY_BYTES_MAX;
            return if too_long { done(input.len(), Some(ErrorReason::TooLong)) } else { Step::More };
        };
        let line = input.get(..end).unwrap_or_default();
        let refused = [&b"510 "[..], b"511 ", b"520-"].iter().any(|code| line.starts_with(code));
        if line.starts_with(b"200 ") {
            self.unconfirmed = false;
        }
        done(end.saturating_add(1), refused.then_some(ErrorReason::VerdictRefused))
    }
}

impl Dialect for FastAgi {
    fn label(&self) -> DialectLabel {
        DialectLabel::FastAgi
    }

    fn next<'buf>(&mut self, input: &'buf [u8], _room: &'buf mut Vec<u8>, output: &mut Vec<u8>) -> Step<'buf> {
        if self.state == State::Answered {
            return self.replies(input);
        }
        let read = match self.environment_end(input) {
            Ok(None) => return Step::More,
            Ok(Some(lines)) => {
                // The caller hung up before the verdict: the dialplan is gone, so nothing may come of the question.
                if input.get(self.scanned..).unwrap_or_default().starts_with(b"HANGUP\n") {
                    output.extend_from_slice(b"failure the caller is gone\n");
                    self.state = State::Answered;
                    let fault = Some(ErrorReason::VerdictUnread);
                    return Step::Done { consumed: self.scanned, fault, after: After::Finish };
                }
                question(input.get(lines).unwrap_or_default())
            }
            Err(error) => Err(error),
        };
        match read {
            Ok(event) => Step::Ask { consumed: self.scanned, event, id: &[] },
            Err(error) => {
                self.refuse(error, output);
                Step::Done { consumed: input.len(), fault: Some(error.reason), after: After::Finish }
            }
        }
    }

    fn answer(&mut self, _id: &[u8], outcome: &Outcome<'_>, output: &mut Vec<u8>) -> After {
        let answer = match outcome {
            Outcome::Decided(answer) => answer,
            Outcome::Faulty(error) => {
                self.refuse(*error, output);
                return After::Finish;
            }
        };
        let allowed = answer.reason.verdict() == "allow";
        set(output, "QW_REASON", answer.reason.code());
        set(output, "QW_ACTION", answer.action.unwrap_or_default());
        output.extend_from_slice(b"SET VARIABLE QW_QUEUES \"");
        for (position, number) in answer.queues.numbers().enumerate() {
            output.extend_from_slice(if position == 0 { b"" } else { b"&" });
            output.extend_from_slice(number.as_bytes());
        }
        output.extend_from_slice(b"\"\n");
        // ChanSpy takes a prefix: `1001` would also match `10011`, and `1001-` cannot.
        let target = answer.target.filter(|_| allowed);
        output.extend_from_slice(b"SET VARIABLE QW_TARGET \"");
        for part in target.into_iter().flat_map(|target| [target, "-"]) {
            output.extend_from_slice(part.as_bytes());
        }
        output.extend_from_slice(b"\"\n");
        // Without a target there is nothing to pin, and ChanSpy without one would spy on anybody.
        set(output, "QW_SPY_OPTIONS", answer.mode.filter(|_| target.is_some()).map_or("", supervision_options::asterisk));
        set(output, "QW_VERDICT", if allowed { "ALLOW" } else { "DENY" });
        self.state = State::Answered;
        self.unconfirmed = true;
        After::Finish
    }

    fn give_up(&mut self, reason: Option<ErrorReason>, _unread: &[u8], output: &mut Vec<u8>) -> Option<ErrorReason> {
        match (self.state, reason) {
            (State::Environment, reason) => {
                let reason = reason.unwrap_or(ErrorReason::Malformed);
                self.refuse(WireError::new(reason), output);
                Some(reason)
            }
            (State::Answered, _) => std::mem::take(&mut self.unconfirmed).then_some(ErrorReason::VerdictUnread),
        }
    }

    fn patience(&self, _has_unread: bool) -> Patience {
        match self.state {
            State::Environment => Patience::Frame,
            State::Answered => Patience::Closing,
        }
    }
}

/// The question that a whole environment asks.
fn question(lines: &[u8]) -> Result<Event<'_>, WireError> {
    let environment = read_environment(lines)?;
    let script = environment.script.ok_or(WireError::of(ErrorReason::MissingKey, Key::Organization))?;
    let mut path = script.split(|&byte| byte == b'/');
    let (Some(organization), Some(action), None) = (path.next(), path.next(), path.next()) else {
        return Err(WireError::new(ErrorReason::Malformed));
    };
    let dialed = action == DIAL;
    let mut fields = Fields::new(if dialed { Verb::Dial } else { Verb::Do });
    fields.set(Key::Organization, organization)?;
    if !dialed {
        fields.set(Key::Action, action)?;
    }
    match environment.account {
        None | Some(b"") => return Err(WireError::of(ErrorReason::MissingKey, Key::Actor)),
        Some(account) => fields.set(Key::Actor, account)?,
    }
    for (_, value) in lines_of(lines).filter(|line| line.starts_with(b"agi_arg_")).filter_map(split) {
        fields.set_pair(value, NEVER_ARGUMENTS)?;
    }
    if dialed && !fields.has(Key::Digits) {
        let candidates = [environment.extension, environment.dialed];
        let digits = candidates.into_iter().flatten().find(|&value| Digits::parse(value).is_some());
        fields.set(Key::Digits, digits.ok_or(WireError::of(ErrorReason::MissingKey, Key::Digits))?)?;
    }
    fields.into_event()
}

/// Picks the lines that matter, none of which may stand twice: two would leave open which of them Asterisk meant.
fn read_environment(lines: &[u8]) -> Result<Environment<'_>, WireError> {
    let mut environment = Environment::default();
    for (name, value) in lines_of(lines).filter_map(split) {
        let (slot, key) = match name {
            b"agi_network_script" => (&mut environment.script, Key::Organization),
            b"agi_accountcode" => (&mut environment.account, Key::Actor),
            b"agi_extension" => (&mut environment.extension, Key::Digits),
            b"agi_dnid" => (&mut environment.dialed, Key::Digits),
            _ => continue,
        };
        if slot.replace(value).is_some() {
            return Err(WireError::of(ErrorReason::DuplicateKey, key));
        }
    }
    Ok(environment)
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

fn set(output: &mut Vec<u8>, variable: &str, value: &str) {
    for part in ["SET VARIABLE ", variable, " \"", value, "\"\n"] {
        output.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::event::Request;
    use crate::telephony::Token;

    fn environment(script: &str, account: &str, arguments: &[&str]) -> String {
        let mut text = format!(
            "agi_network: yes\nagi_network_script: {script}\nagi_request: agi://127.0.0.1:4573/{script}\n\
             agi_channel: PJSIP/1001-00000000\nagi_calleridname: Ev: il, \"x\"\nagi_dnid: *13600\nagi_extension: s\n\
             agi_accountcode: {account}\n"
        );
        for (position, argument) in (1..).zip(arguments) {
            writeln!(text, "agi_arg_{position}: {argument}").unwrap();
        }
        text + "\n"
    }

    fn refusal(input: &str) -> String {
        let mut output = vec![];
        match FastAgi::new().next(input.as_bytes(), &mut vec![], &mut output) {
            Step::Done { after: After::Finish, fault: Some(_), .. } => {}
            other => panic!("{input:?} is not refused: {other:?}"),
        }
        let text = String::from_utf8(output).unwrap();
        assert!(text.ends_with("SET VARIABLE QW_VERDICT \"DENY\"\n"), "{text}");
        text.lines().next().unwrap().replace("SET VARIABLE QW_REASON ", "").replace('"', "")
    }

    fn asked(input: &str, check: impl FnOnce(Event<'_>)) {
        let mut output = vec![];
        match FastAgi::new().next(input.as_bytes(), &mut vec![], &mut output) {
            Step::Ask { event, consumed, .. } => {
                assert_eq!(consumed, input.len());
                check(event);
            }
            other => panic!("{input:?} is no question: {other:?} {}", String::from_utf8_lossy(&output)),
        }
    }

    #[test]
    fn the_path_names_the_organization_and_the_action() {
        asked(&environment("acme/queue.login", "1001", &["queue=600"]), |event| {
            assert_eq!(event.organization.as_str(), "acme");
            assert_eq!(event.actor.as_str(), "1001");
            assert_eq!(event.request, Request::Action(Token::parse("queue.login").unwrap()));
            assert_eq!(event.queue.map(Token::as_str), Some("600"));
        });
    }

    #[test]
    fn digits_come_from_the_argument_else_the_extension_else_the_number_dialed() {
        let digits = |event: Event<'_>| match event.request {
            Request::Dial(digits) => digits.as_str().to_owned(),
            Request::Action(_) => panic!("dialed"),
        };
        asked(&environment("acme/dial", "1001", &["digits=*14"]), |event| assert_eq!(digits(event), "*14"));
        asked(&environment("acme/dial", "1001", &[]), |event| assert_eq!(digits(event), "*13600"));
        let at_the_code = environment("acme/dial", "1001", &[]).replace("agi_extension: s", "agi_extension: *15");
        asked(&at_the_code, |event| assert_eq!(digits(event), "*15"));
    }

    #[test]
    fn what_is_no_question_is_denied_with_its_reason() {
        let cases = [
            (environment("acme/dial", "1001", &["queue"]), "malformed"),
            (environment("acme/dial", "1001", &[""]), "malformed"),
            (environment("acme/dial", "1001", &["digits="]), "malformed"),
            (environment("acme/dial", "1001", &["digits=*13 600"]), "malformed"),
            (environment("acme/dial", "1001", &["digits=*13600", "actor=2001"]), "unknown_key"),
            (environment("acme/dial", "1001", &["org=other"]), "unknown_key"),
            (environment("acme/dial", "1001", &["action=call.barge"]), "unknown_key"),
            (environment("acme/queue.login", "1001", &["action=call.barge"]), "unknown_key"),
            (environment("acme/queue.login", "1001", &["queue=600", "queue=601"]), "duplicate_key"),
            (environment("acme/queue.login", "", &["queue=600"]), "missing_key"),
            (environment("acme", "1001", &[]), "malformed"),
            (environment("acme/dial/x", "1001", &[]), "malformed"),
            (environment("/dial", "1001", &[]), "malformed"),
            (environment("acme/", "1001", &[]), "malformed"),
            (environment("acme/dial?x=1", "1001", &[]), "malformed"),
            (environment("acme/dial", "10 01", &[]), "malformed"),
            (environment("acme/dial", "1001\nagi_accountcode: 2001", &[]), "duplicate_key"),
            (environment("acme/dial", "1001", &[]).replace("agi_dnid: *13600", "agi_dnid: unknown"), "missing_key"),
            ("GET / HTTP/1.1\r\n".to_owned(), "malformed"),
            ("agi_network: yes\nHANGUP\n".to_owned(), "malformed"),
            ("\n".to_owned(), "missing_key"),
            ("agi_x: y\n".repeat(AGI_ENVIRONMENT_LINES_MAX + 1), "too_long"),
            (format!("agi_x: {}", "y".repeat(AGI_ENVIRONMENT_BYTES_MAX)), "too_long"),
        ];
        for (input, reason) in cases {
            assert_eq!(refusal(&input), reason, "{input:?}");
        }
    }

    #[test]
    fn a_caller_who_hung_up_before_the_verdict_changes_nothing() {
        let mut output = vec![];
        let input = environment("acme/queue.login", "1001", &["queue=600"]) + "HANGUP\n";
        let mut room = vec![];
        let step = FastAgi::new().next(input.as_bytes(), &mut room, &mut output);
        assert!(matches!(step, Step::Done { fault: Some(ErrorReason::VerdictUnread), .. }), "{step:?}");
        assert_eq!(output, b"failure the caller is gone\n");
    }

    #[test]
    fn replies_are_read_and_refusals_among_them_counted() {
        let mut agi = FastAgi::new();
        let mut output = vec![];
        agi.refuse(WireError::new(ErrorReason::Malformed), &mut output);
        let mut faults = vec![];
        let replies = [
            "200 result=1",
            "510 Invalid or unknown command",
            "520-Invalid command syntax.",
            "Usage",
            "520 End of proper usage.",
            "511 Command Not Permitted on a dead channel or intercept routine",
            "HANGUP\n",
        ];
        let replies = replies.join("\n");
        let mut input = replies.as_bytes();
        while let Step::Done { consumed, fault, after: After::Finish } = agi.next(input, &mut vec![], &mut output) {
            faults.extend(fault);
            input = &input[consumed..];
        }
        assert_eq!(faults, [ErrorReason::VerdictRefused; 3]);
        assert_eq!(agi.give_up(None, &[], &mut output), None, "one command was confirmed");
    }
}
