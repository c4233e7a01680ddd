//! FastAGI: Asterisk connects for one question, and runs the commands of the answer.
//!
//! Asterisk asks with `AGI(agi://HOST:4573/ORG/ACTION,key=value,…)` and sends the question as a block of
//! `agi_key: value` lines. ACTION is `dial` or the name of an action. The arguments are the keys of
//! [`crate::dialect::fields::REQUEST_KEYS`] without `org`, `actor` and `action`, with the same values and the same
//! error for a duplicate.
//!
//! - **The actor is `agi_accountcode`**, which the endpoint's configuration sets, and no text that a caller can write:
//!   a dialed `*13600,actor=2001` would arrive as an argument.
//! - `ORG/dial` without the argument `digits` takes them from `agi_extension`, else from `agi_dnid`.
//! - The block has at most 16 KiB and 200 lines and must be complete within 2 s.
//! - The answer is one write of `SET VARIABLE` commands, the verdict last; [`ANSWER_VARIABLES`] lists them. Then
//!   queuewarden ends its side of the connection: Asterisk then runs all commands, where on an open connection it would
//!   run the first one and wait.
//! - There is always a verdict, because Asterisk reports a closed connection without a verdict as success. `DENY` with
//!   an error reason means that the question could not be read. A caller who hung up before the verdict gets `failure`,
//!   and nothing changes.
//! - Only fixed words and names from the configuration are sent.
//!
//! ```text
//! > agi_network: yes
//! > agi_network_script: acme/dial
//! > agi_request: agi://127.0.0.1:4573/acme/dial
//! > agi_channel: PJSIP/2001-00000007
//! > agi_callerid: 5551234
//! > agi_accountcode: 2001
//! > agi_extension: s
//! > agi_arg_1: digits=*2221001
//! > agi_arg_2: queue=600
//! >
//! < SET VARIABLE QW_REASON "role_permits"
//! < SET VARIABLE QW_ACTION "call.whisper"
//! < SET VARIABLE QW_QUEUES "600"
//! < SET VARIABLE QW_TARGET "1001-"
//! < SET VARIABLE QW_SPY_OPTIONS "qbwES"
//! < SET VARIABLE QW_VERDICT "ALLOW"
//! ```

use std::ops::Range;

use crate::decision::{ErrorReason, Outcome, WireError};
use crate::dialect::connection::VerdictDelivery;
use crate::dialect::fields::{Fields, Verb};
use crate::dialect::header_lines::{lines_of, split};
use crate::dialect::output::{append_queues, append_text};
use crate::dialect::readable::ReadableRequest;
use crate::dialect::{After, AnswerField, Dialect, DialectLabel, Patience, Step, supervision_options};
use crate::event::{Event, Key, KeySet};
use crate::limits::{AGI_ENVIRONMENT_BYTES_MAX, AGI_ENVIRONMENT_LINES_MAX, AGI_REPLY_BYTES_MAX};
use crate::telephony::{Digits, Token};

/// The channel variables of an answer, in the order in which they are set.
pub const ANSWER_VARIABLES: &[AnswerField] = &[
    variable("QW_REASON", "The reason code."),
    variable("QW_ACTION", "The action that was decided; empty if none was found."),
    variable("QW_QUEUES", "The numbers of the queues, separated by `&`."),
    variable(
        "QW_TARGET",
        "The extension of the supervised user and `-`. ChanSpy takes a prefix: `1001` would also match 10011.",
    ),
    variable(
        "QW_SPY_OPTIONS",
        "The options for `ChanSpy` that fix mode and target of an allowed supervision; never `d`.",
    ),
    variable("QW_VERDICT", "`ALLOW` or `DENY`."),
];

const fn variable(name: &'static str, description: &'static str) -> AnswerField {
    AnswerField { name, carried_by: "every answer", description }
}

/// In the path of the URL, instead of an action: the question is about dialed digits.
const DIAL: &[u8] = b"dial";

/// Keys that no argument may give, because a caller may write arguments.
const NEVER_ARGUMENTS: KeySet = KeySet::of(&[Key::Organization, Key::Actor, Key::Action]);

/// One connection from Asterisk.
#[derive(Clone, Debug, Default)]
pub struct FastAgi {
    delivery: VerdictDelivery,
    /// Start of the first line that was not checked yet.
    scanned: usize,
    /// Number of lines checked.
    lines: usize,
}

/// The values of the block that make the question.
#[derive(Clone, Copy, Debug, Default)]
struct AgiEnvironment<'buf> {
    /// `agi_network_script`: the path of the URL.
    script: Option<&'buf [u8]>,
    /// `agi_accountcode`: the actor.
    account: Option<&'buf [u8]>,
    /// `agi_extension`.
    extension: Option<&'buf [u8]>,
    /// `agi_dnid`: the dialed number.
    dialed: Option<&'buf [u8]>,
    /// `agi_uniqueid`: the unique id of the channel.
    channel: Option<&'buf [u8]>,
}

impl FastAgi {
    /// A new connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks for the empty line that ends the block. Returns the range of the lines before it. `None`: more bytes are
    /// needed.
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
        set_variable(output, "QW_REASON", error.reason.code());
        for empty in ["QW_ACTION", "QW_QUEUES", "QW_TARGET", "QW_SPY_OPTIONS"] {
            set_variable(output, empty, "");
        }
        set_variable(output, "QW_VERDICT", "DENY");
        self.delivery = VerdictDelivery::Unconfirmed;
    }

    /// Reads one reply of Asterisk to a command of the answer, or the `HANGUP` line that ends every call.
    fn read_reply(&mut self, input: &[u8]) -> Step<'static> {
        let done = |consumed, fault: Option<ErrorReason>| Step::Done {
            consumed,
            fault: fault.map(WireError::new),
            after: After::Finish,
        };
        let Some(end) = memchr::memchr(b'\n', input) else {
            let too_long = input.len() > AGI_REPLY_BYTES_MAX;
            return if too_long { done(input.len(), Some(ErrorReason::TooLong)) } else { Step::More };
        };
        let line = input.get(..end).unwrap_or_default();
        let refused = [&b"510 "[..], b"511 ", b"520-"].iter().any(|code| line.starts_with(code));
        if line.starts_with(b"200 ") {
            self.delivery = VerdictDelivery::Concluded;
        }
        done(end.saturating_add(1), refused.then_some(ErrorReason::VerdictRefused))
    }
}

impl Dialect for FastAgi {
    fn label(&self) -> DialectLabel {
        DialectLabel::FastAgi
    }

    fn next<'buf>(&mut self, input: &'buf [u8], _decoded: &'buf mut Vec<u8>, output: &mut Vec<u8>) -> Step<'buf> {
        if !self.delivery.is_reading() {
            return self.read_reply(input);
        }
        let question = match self.environment_end(input) {
            Ok(None) => return Step::More,
            Ok(Some(lines)) => {
                // The caller hung up before the verdict, and the dialplan has ended: nothing may change.
                if input.get(self.scanned..).unwrap_or_default().starts_with(b"HANGUP\n") {
                    output.extend_from_slice(b"failure the caller is gone\n");
                    self.delivery = VerdictDelivery::Concluded;
                    let fault = Some(WireError::new(ErrorReason::VerdictUnread));
                    return Step::Done { consumed: self.scanned, fault, after: After::Finish };
                }
                question(input.get(lines).unwrap_or_default())
            }
            Err(error) => Err(error),
        };
        match question {
            Ok(event) => Step::Ask { consumed: self.scanned, event, id: &[] },
            Err(error) => {
                self.refuse(error, output);
                Step::Done { consumed: input.len(), fault: Some(error), after: After::Finish }
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
        set_variable(output, "QW_REASON", answer.reason.code());
        set_variable(output, "QW_ACTION", answer.action.unwrap_or_default());
        append_text(output, &["SET VARIABLE QW_QUEUES \""]);
        append_queues(output, "", answer.queues, "&");
        append_text(output, &["\"\n"]);
        // ChanSpy takes a prefix: `1001` would also match `10011`, and `1001-` cannot.
        let target = answer.target.filter(|_| allowed);
        append_text(output, &["SET VARIABLE QW_TARGET \""]);
        if let Some(extension) = target {
            append_text(output, &[extension, "-"]);
        }
        append_text(output, &["\"\n"]);
        // ChanSpy with options and without a target would listen to anybody.
        let mode = answer.mode.filter(|_| target.is_some());
        set_variable(output, "QW_SPY_OPTIONS", mode.map_or("", supervision_options::asterisk));
        set_variable(output, "QW_VERDICT", if allowed { "ALLOW" } else { "DENY" });
        self.delivery = VerdictDelivery::Unconfirmed;
        After::Finish
    }

    fn give_up(&mut self, reason: Option<ErrorReason>, unread: &[u8], output: &mut Vec<u8>) -> Option<ErrorReason> {
        if !self.delivery.is_reading() {
            return self.delivery.take_unconfirmed();
        }
        let reason = reason.unwrap_or(ErrorReason::Malformed);
        self.refuse(WireError::new(reason), output);
        VerdictDelivery::incomplete(reason, unread)
    }

    fn readable(&self, request: &[u8]) -> ReadableRequest {
        let mut readable = ReadableRequest::default();
        let mut is_dialed = false;
        for (name, value) in lines_of(request).filter_map(split) {
            match name {
                b"agi_network_script" => {
                    let mut path = value.split(|&byte| byte == b'/');
                    readable.add(Key::Organization, path.next().unwrap_or_default());
                    let action = path.next().unwrap_or_default();
                    is_dialed = action == DIAL;
                    if !is_dialed {
                        readable.add(Key::Action, action);
                    }
                }
                b"agi_accountcode" => readable.add(Key::Actor, value),
                b"agi_channel" => readable.set_channel(value),
                name if name.starts_with(b"agi_arg_") => readable.add_argument(value, NEVER_ARGUMENTS),
                _ => {}
            }
        }
        for name in [&b"agi_extension"[..], b"agi_dnid"].into_iter().filter(|_| is_dialed) {
            for (_, value) in lines_of(request).filter_map(split).filter(|(other, _)| *other == name) {
                readable.add(Key::Digits, value);
            }
        }
        readable
    }

    fn patience(&self, _has_unread: bool) -> Patience {
        self.delivery.patience()
    }
}

/// Makes the question of a complete block.
fn question(lines: &[u8]) -> Result<Event<'_>, WireError> {
    let environment = read_environment(lines)?;
    let script = environment.script.ok_or(WireError::of(ErrorReason::MissingKey, Key::Organization))?;
    let mut path = script.split(|&byte| byte == b'/');
    let (Some(organization), Some(action), None) = (path.next(), path.next(), path.next()) else {
        return Err(WireError::new(ErrorReason::Malformed));
    };
    let is_dialed = action == DIAL;
    let mut fields = Fields::new(if is_dialed { Verb::Dial } else { Verb::Do });
    fields.set(Key::Organization, organization)?;
    if !is_dialed {
        fields.set(Key::Action, action)?;
    }
    match environment.account {
        None | Some(b"") => return Err(WireError::of(ErrorReason::MissingKey, Key::Actor)),
        Some(account) => fields.set(Key::Actor, account)?,
    }
    for (_, value) in lines_of(lines).filter(|line| line.starts_with(b"agi_arg_")).filter_map(split) {
        fields.set_pair(value, NEVER_ARGUMENTS)?;
    }
    if is_dialed && !fields.has(Key::Digits) {
        let candidates = [environment.extension, environment.dialed];
        let digits = candidates.into_iter().flatten().find(|&value| Digits::parse(value).is_some());
        fields.set(Key::Digits, digits.ok_or(WireError::of(ErrorReason::MissingKey, Key::Digits))?)?;
    }
    let channel = environment.channel.and_then(Token::parse);
    Ok(Event { channel, ..fields.into_event()? })
}

/// Picks the values that make the question. A duplicate is an error, because it is unclear which one Asterisk meant.
fn read_environment(lines: &[u8]) -> Result<AgiEnvironment<'_>, WireError> {
    let mut environment = AgiEnvironment::default();
    for (name, value) in lines_of(lines).filter_map(split) {
        let (slot, key) = match name {
            b"agi_network_script" => (&mut environment.script, Key::Organization),
            b"agi_accountcode" => (&mut environment.account, Key::Actor),
            b"agi_extension" => (&mut environment.extension, Key::Digits),
            b"agi_dnid" => (&mut environment.dialed, Key::Digits),
            b"agi_uniqueid" => {
                // Not part of the question: a link compares it with what the PBX says.
                environment.channel = environment.channel.is_none().then_some(value);
                continue;
            }
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

fn set_variable(output: &mut Vec<u8>, name: &str, value: &str) {
    append_text(output, &["SET VARIABLE ", name, " \"", value, "\"\n"]);
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

    fn with_question(input: &str, check: impl FnOnce(Event<'_>)) {
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
        with_question(&environment("acme/queue.login", "1001", &["queue=600"]), |event| {
            assert_eq!(event.organization.as_str(), "acme");
            assert_eq!(event.actor.as_str(), "1001");
            assert_eq!(event.request, Request::Action(Token::parse("queue.login").unwrap()));
            assert_eq!(event.queue.map(Token::as_str), Some("600"));
        });
    }

    #[test]
    fn digits_come_from_the_argument_else_the_extension_else_the_dialed_number() {
        let digits = |event: Event<'_>| match event.request {
            Request::Dial(digits) => digits.as_str().to_owned(),
            Request::Action(_) => panic!("dialed"),
        };
        with_question(&environment("acme/dial", "1001", &["digits=*14"]), |event| assert_eq!(digits(event), "*14"));
        with_question(&environment("acme/dial", "1001", &[]), |event| assert_eq!(digits(event), "*13600"));
        let at_the_code = environment("acme/dial", "1001", &[]).replace("agi_extension: s", "agi_extension: *15");
        with_question(&at_the_code, |event| assert_eq!(digits(event), "*15"));
    }

    #[test]
    fn a_wrong_question_is_denied_with_an_error_reason() {
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
        assert!(
            matches!(step, Step::Done { fault: Some(WireError { reason: ErrorReason::VerdictUnread, .. }), .. }),
            "{step:?}"
        );
        assert_eq!(output, b"failure the caller is gone\n");
    }

    #[test]
    fn refused_commands_are_counted() {
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
            faults.extend(fault.map(|error| error.reason));
            input = &input[consumed..];
        }
        assert_eq!(faults, [ErrorReason::VerdictRefused; 3]);
        assert_eq!(agi.give_up(None, &[], &mut output), None, "one command was confirmed");
    }
}
